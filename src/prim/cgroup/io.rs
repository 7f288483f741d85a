//! `linux.resources.blockIO` as writes.

use super::limits::Limits;
use super::write::Write;
use super::{Version, convert};
use crate::spec::{BlockIo, ThrottleDevice, WeightDevice};

const WEIGHTS: std::ops::RangeInclusive<u16> = 10..=1000;

impl Limits<'_> {
    pub(super) fn block_io(&mut self, io: &BlockIo) {
        let v2 = self.version("blkio") == Some(Version::V2);
        let base = "/linux/resources/blockIO";
        if let Some(weight) = self.weight(&format!("{base}/weight"), io.weight) {
            self.put_weight(v2, None, weight, format!("{base}/weight"));
        }
        if let Some(weight) = self.weight(&format!("{base}/leafWeight"), io.leaf_weight) {
            self.put_leaf_weight(v2, None, weight, format!("{base}/leafWeight"));
        }
        for (i, device) in io.weight_device.iter().enumerate() {
            self.weight_device(v2, device, &format!("{base}/weightDevice/{i}"));
        }
        let throttles = [
            (&io.throttle_read_bps_device, "throttleReadBpsDevice", "read_bps", "rbps"),
            (&io.throttle_write_bps_device, "throttleWriteBpsDevice", "write_bps", "wbps"),
            (&io.throttle_read_iops_device, "throttleReadIOPSDevice", "read_iops", "riops"),
            (&io.throttle_write_iops_device, "throttleWriteIOPSDevice", "write_iops", "wiops"),
        ];
        for (list, field, v1_name, v2_key) in throttles {
            for (i, ThrottleDevice { major, minor, rate }) in list.iter().enumerate() {
                let pointer = format!("{base}/{field}/{i}");
                if !self.numbers(&pointer, *major, *minor) {
                    continue;
                }
                let write = if v2 {
                    // 0 stands for no limit on v1, and is refused by v2.
                    let rate = if *rate == 0 { "max".to_owned() } else { rate.to_string() };
                    Write::new("io.max", format!("{major}:{minor} {v2_key}={rate}"), pointer)
                } else {
                    Write::new(format!("blkio.throttle.{v1_name}_device"), format!("{major}:{minor} {rate}"), pointer)
                };
                self.put("blkio", write);
            }
        }
    }

    fn weight_device(&mut self, v2: bool, device: &WeightDevice, pointer: &str) {
        if !self.numbers(pointer, device.major, device.minor) {
            return;
        }
        let numbers = (device.major, device.minor);
        if let Some(weight) = self.weight(&format!("{pointer}/weight"), device.weight) {
            self.put_weight(v2, Some(numbers), weight, format!("{pointer}/weight"));
        }
        if let Some(weight) = self.weight(&format!("{pointer}/leafWeight"), device.leaf_weight) {
            self.put_leaf_weight(v2, Some(numbers), weight, format!("{pointer}/leafWeight"));
        }
    }

    /// BFQ has its own files, on v1 beside those that the CFQ scheduler left behind in Linux 5.0.
    fn put_weight(&mut self, v2: bool, device: Option<(i64, i64)>, weight: u16, pointer: String) {
        let value = |weight: u64| match device {
            Some((major, minor)) => format!("{major}:{minor} {weight}"),
            None => weight.to_string(),
        };
        let own = value(weight.into());
        let write = match (v2, device) {
            (true, _) => Write::new("io.bfq.weight", own, pointer).or("io.weight", value(convert::io_weight(weight))),
            (false, None) => Write::new("blkio.weight", own.clone(), pointer).or("blkio.bfq.weight", own),
            (false, Some(_)) => {
                Write::new("blkio.weight_device", own.clone(), pointer).or("blkio.bfq.weight_device", own)
            }
        };
        self.put("blkio", write);
    }

    fn put_leaf_weight(&mut self, v2: bool, device: Option<(i64, i64)>, weight: u16, pointer: String) {
        if v2 {
            return self.problem(&pointer, "cgroup v2 has no leaf weights; remove it");
        }
        let write = match device {
            Some((major, minor)) => {
                Write::new("blkio.leaf_weight_device", format!("{major}:{minor} {weight}"), pointer)
            }
            None => Write::new("blkio.leaf_weight", weight, pointer),
        };
        self.put("blkio", write);
    }

    /// A weight that was given and is in range.
    fn weight(&mut self, pointer: &str, weight: Option<u16>) -> Option<u16> {
        let weight = weight.filter(|w| *w != 0)?;
        if !WEIGHTS.contains(&weight) {
            self.problem(pointer, format!("{weight} is out of range; weights are 10 to 1000"));
            return None;
        }
        Some(weight)
    }

    fn numbers(&mut self, pointer: &str, major: i64, minor: i64) -> bool {
        let fine = u32::try_from(major).is_ok() && u32::try_from(minor).is_ok();
        if !fine {
            self.problem(pointer, format!("{major}:{minor} is no block device; give its major and minor numbers"));
        }
        fine
    }
}
