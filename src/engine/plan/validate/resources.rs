//! `linux.resources`, as far as it can be told without a host: what its controllers take is the cgroup primitive's.

use super::Findings;
use crate::error::Problem;
use crate::prim::attributes;
use crate::prim::cgroup::devices;
use crate::spec::{BlockIo, Cpu, Memory, Resources, escape};

const AT: &str = "/linux/resources";

/// Finds what is wrong with limits on any host; pointers are those in config.json.
pub fn check(resources: &Resources) -> Vec<Problem> {
    let mut found = Findings(devices::rules(&resources.devices, false).err().unwrap_or_default());
    if let Some(limits) = &resources.memory {
        memory(limits, &mut found);
    }
    if let Some(limits) = &resources.cpu {
        cpu(limits, &mut found);
    }
    if let Some(limits) = &resources.block_io {
        block_io(limits, &mut found);
    }
    for (index, limit) in resources.hugepage_limits.iter().enumerate().filter(|(_, l)| !is_page_size(&l.page_size)) {
        let what = format!("{:?} is no page size; they read as 64KB, 2MB or 1GB", limit.page_size);
        found.add(format!("{AT}/hugepageLimits/{index}/pageSize"), what);
    }
    let priorities = resources.network.iter().flat_map(|network| network.priorities.iter().enumerate());
    for (index, priority) in priorities.filter(|(_, p)| !is_word(&p.name)) {
        let what = format!("{:?} is no interface of the host; name one such as eth0", priority.name);
        found.add(format!("{AT}/network/priorities/{index}/name"), what);
    }
    for (name, limit) in &resources.rdma {
        let at = format!("{AT}/rdma/{}", escape(name));
        if !is_word(name) {
            found.add(at, format!("{name:?} is no RDMA device; name one such as mlx5_1"));
        } else if limit.hca_handles.is_none() && limit.hca_objects.is_none() {
            found.add(at, "limits nothing; give hcaHandles, hcaObjects or both");
        }
    }
    for file in resources.unified.keys() {
        if file.contains('/') || file.starts_with('.') || !file.contains('.') {
            let what = format!("{file:?} is no file of a cgroup; name one such as memory.high, without a slash");
            found.add(format!("{AT}/unified/{}", escape(file)), what);
        }
    }
    found.0
}

fn memory(memory: &Memory, found: &mut Findings) {
    for (name, bytes) in [("limit", memory.limit), ("reservation", memory.reservation), ("swap", memory.swap)] {
        if let Some(bytes @ ..-1) = bytes {
            found.add(format!("{AT}/memory/{name}"), format!("{bytes} is no size in bytes; -1 means no limit"));
        }
    }
    if let (Some(limit @ 1..), Some(swap @ 1..)) = (memory.limit, memory.swap)
        && swap < limit
    {
        let what = format!("{swap} is below memory.limit, {limit}; it counts memory and swap together");
        found.add(format!("{AT}/memory/swap"), what);
    }
    // dockerd writes its -1, "not set", as the largest number.
    if let Some(swappiness) = memory.swappiness.filter(|s| *s > 100 && *s != u64::MAX) {
        found.add(format!("{AT}/memory/swappiness"), format!("{swappiness} is out of range; it goes from 0 to 100"));
    }
}

/// The kernel's sched_group_set_cfs bandwidth checks; 0 means not set.
fn cpu(cpu: &Cpu, found: &mut Findings) {
    for (name, list) in [("cpus", &cpu.cpus), ("mems", &cpu.mems)] {
        if let Some(Err(what)) = list.as_deref().filter(|list| !is_kernel_list(list)).map(attributes::list) {
            found.add(format!("{AT}/cpu/{name}"), what);
        }
    }
    if let Some(period) = cpu.period.filter(|p| *p != 0 && !(1_000..=1_000_000).contains(p)) {
        let what = format!("{period} is out of range; it goes from 1000 to 1000000 microseconds");
        found.add(format!("{AT}/cpu/period"), what);
    }
    if let Some(quota @ 1..1_000) = cpu.quota {
        let what = format!("{quota} is too little; the kernel takes 1000 microseconds or more, and -1 for no limit");
        found.add(format!("{AT}/cpu/quota"), what);
    }
    if let (Some(quota @ 1..), Some(burst)) = (cpu.quota, cpu.burst)
        && burst > quota.unsigned_abs()
    {
        found.add(format!("{AT}/cpu/burst"), format!("{burst} is above the quota, {quota}; it must not be"));
    }
    if let Some(idle) = cpu.idle.filter(|idle| !(0..=1).contains(idle)) {
        found.add(format!("{AT}/cpu/idle"), format!("{idle} is out of range; 0 is the default, 1 is idle"));
    }
}

/// Forms of a list that the kernel knows beyond the plain one (lib/bitmap-str.c), and the empty one, which is "not set".
fn is_kernel_list(list: &str) -> bool {
    list.is_empty() || list == "all" || list.contains([':', 'N'])
}

fn block_io(io: &BlockIo, found: &mut Findings) {
    let at = format!("{AT}/blockIO");
    weight(io.weight, &format!("{at}/weight"), found);
    weight(io.leaf_weight, &format!("{at}/leafWeight"), found);
    for (index, device) in io.weight_device.iter().enumerate() {
        let at = format!("{at}/weightDevice/{index}");
        numbers(device.major, device.minor, &at, found);
        weight(device.weight, &format!("{at}/weight"), found);
        weight(device.leaf_weight, &format!("{at}/leafWeight"), found);
        if device.weight.is_none() && device.leaf_weight.is_none() {
            found.add(at, "sets nothing; give weight, leafWeight or both");
        }
    }
    for (field, list) in [
        ("throttleReadBpsDevice", &io.throttle_read_bps_device),
        ("throttleWriteBpsDevice", &io.throttle_write_bps_device),
        ("throttleReadIOPSDevice", &io.throttle_read_iops_device),
        ("throttleWriteIOPSDevice", &io.throttle_write_iops_device),
    ] {
        for (index, device) in list.iter().enumerate() {
            numbers(device.major, device.minor, &format!("{at}/{field}/{index}"), found);
        }
    }
}

fn weight(weight: Option<u16>, at: &str, found: &mut Findings) {
    if let Some(weight) = weight.filter(|w| *w != 0 && !(10..=1000).contains(w)) {
        found.add(at, format!("{weight} is out of range; it goes from 10 to 1000"));
    }
}

fn numbers(major: i64, minor: i64, at: &str, found: &mut Findings) {
    for (name, number) in [("major", major), ("minor", minor)] {
        if u32::try_from(number).is_err() {
            found.add(format!("{at}/{name}"), format!("{number} is no number of a block device"));
        }
    }
}

fn is_page_size(text: &str) -> bool {
    let number = text.strip_suffix("KB").or(text.strip_suffix("MB")).or(text.strip_suffix("GB")).unwrap_or_default();
    number.bytes().all(|b| b.is_ascii_digit()) && number.parse().is_ok_and(|n: u64| n > 0)
}

fn is_word(name: &str) -> bool {
    !name.is_empty() && !name.contains(char::is_whitespace)
}
