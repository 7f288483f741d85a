//! `linux.resources`: what the container's cgroup limits. Sizes are in bytes, times in microseconds.

use super::DeviceType;
use std::collections::BTreeMap;

spec_objects! {
    /// `linux.resources`.
    struct Resources {
        devices: Vec<DeviceRule>,
        memory: Option<Memory>,
        cpu: Option<Cpu>,
        pids: Option<Pids>,
        #[serde(rename = "blockIO")]
        block_io: Option<BlockIo>,
        hugepage_limits: Vec<HugepageLimit>,
        network: Option<Network>,
        rdma: BTreeMap<String, Rdma>,
        unified: BTreeMap<String, String>,
    }

    /// One rule of `devices`, later rules win. An absent number is a wildcard.
    struct DeviceRule {
        allow: bool,
        #[serde(rename = "type")]
        typ: Option<DeviceType>,
        major: Option<i64>,
        minor: Option<i64>,
        access: Option<String>,
    }

    /// `memory`; -1 is no limit.
    struct Memory {
        limit: Option<i64>,
        reservation: Option<i64>,
        swap: Option<i64>,
        kernel: Option<i64>,
        #[serde(rename = "kernelTCP")]
        kernel_tcp: Option<i64>,
        swappiness: Option<u64>,
        #[serde(rename = "disableOOMKiller")]
        disable_oom_killer: Option<bool>,
        use_hierarchy: Option<bool>,
        check_before_update: Option<bool>,
    }

    /// `cpu`.
    struct Cpu {
        shares: Option<u64>,
        quota: Option<i64>,
        burst: Option<u64>,
        period: Option<u64>,
        realtime_runtime: Option<i64>,
        realtime_period: Option<u64>,
        cpus: Option<String>,
        mems: Option<String>,
        idle: Option<i64>,
    }

    /// `pids`; 0 is a real limit since 1.3, a negative one is none.
    struct Pids {
        limit: Option<i64>,
    }

    /// `blockIO`.
    struct BlockIo {
        weight: Option<u16>,
        leaf_weight: Option<u16>,
        weight_device: Vec<WeightDevice>,
        throttle_read_bps_device: Vec<ThrottleDevice>,
        throttle_write_bps_device: Vec<ThrottleDevice>,
        #[serde(rename = "throttleReadIOPSDevice")]
        throttle_read_iops_device: Vec<ThrottleDevice>,
        #[serde(rename = "throttleWriteIOPSDevice")]
        throttle_write_iops_device: Vec<ThrottleDevice>,
    }

    /// A weight for one block device.
    struct WeightDevice {
        major: i64,
        minor: i64,
        weight: Option<u16>,
        leaf_weight: Option<u16>,
    }

    /// A rate (bytes or operations a second) for one block device.
    struct ThrottleDevice {
        major: i64,
        minor: i64,
        rate: u64,
    }

    /// One entry of `hugepageLimits`; the page size reads as `2MB`.
    struct HugepageLimit {
        page_size: String,
        limit: u64,
    }

    /// `network`, cgroup v1 only.
    struct Network {
        #[serde(rename = "classID")]
        class_id: Option<u32>,
        priorities: Vec<InterfacePriority>,
    }

    /// The priority of traffic that leaves by one interface.
    struct InterfacePriority {
        name: String,
        priority: u32,
    }

    /// Limits for one RDMA device.
    struct Rdma {
        hca_handles: Option<u32>,
        hca_objects: Option<u32>,
    }
}
