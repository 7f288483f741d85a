//! Statistics of cgroup v2.

use super::read::Files;
use super::{BlkioEntry, HugetlbEntry, HugetlbStats, MemoryEntry, Stats, page_sizes};
use crate::error::Result;
use crate::prim::cgroup::Group;

/// Adds what the v2 group counts: of a hybrid host only what its controllers there do.
pub(super) fn read(group: &Group, files: &Files, stats: &mut Stats) -> Result<()> {
    for controller in &group.controllers {
        match controller.as_str() {
            // Time is counted even where the controller is not turned on.
            "cpu" => cpu(files, stats)?,
            "cpuset" => {
                stats.cpuset.cpus = files.set("cpuset.cpus.effective")?;
                stats.cpuset.mems = files.set("cpuset.mems.effective")?;
            }
            "memory" => memory(files, stats)?,
            "pids" => pids(files, stats)?,
            "io" => io(files, stats)?,
            "hugetlb" => hugetlb(files, stats)?,
            "rdma" => rdma(files, stats)?,
            "misc" => misc(files, stats)?,
            _ => {}
        }
    }
    Ok(())
}

fn cpu(files: &Files, stats: &mut Stats) -> Result<()> {
    let map = files.map("cpu.stat")?;
    let get = |key: &str| map.get(key).copied().unwrap_or_default();
    let cpu = &mut stats.cpu;
    cpu.total = get("usage_usec") * 1000;
    cpu.user = get("user_usec") * 1000;
    cpu.kernel = get("system_usec") * 1000;
    cpu.throttling.periods = get("nr_periods");
    cpu.throttling.throttled_periods = get("nr_throttled");
    cpu.throttling.throttled_time = get("throttled_usec") * 1000;
    cpu.burst.periods = get("nr_bursts");
    cpu.burst.time = get("burst_usec") * 1000;
    cpu.psi = files.psi("cpu.pressure")?;
    Ok(())
}

fn memory(files: &Files, stats: &mut Stats) -> Result<()> {
    let entry = |kind: &str| -> Result<MemoryEntry> {
        let number = |file: &str| files.number(&format!("memory.{kind}{file}"));
        let Some(usage) = number("current")? else { return Ok(MemoryEntry::default()) };
        Ok(MemoryEntry {
            limit: number("max")?.unwrap_or_default(),
            usage,
            max: number("peak")?.unwrap_or_default(),
            failcnt: 0,
        })
    };
    let memory = &mut stats.memory;
    memory.raw = files.map("memory.stat")?;
    memory.events = files.map("memory.events")?;
    memory.cache = memory.raw.get("file").copied().unwrap_or_default();
    memory.usage = entry("")?;
    memory.swap_only = entry("swap.")?;
    // Readers expect both together, as v1 counts; the highest of the sum nobody knows.
    memory.swap = MemoryEntry {
        limit: memory.swap_only.limit.saturating_add(memory.usage.limit),
        usage: memory.swap_only.usage.saturating_add(memory.usage.usage),
        max: 0,
        failcnt: 0,
    };
    memory.psi = files.psi("memory.pressure")?;
    Ok(())
}

/// The same files in both generations.
pub(super) fn pids(files: &Files, stats: &mut Stats) -> Result<()> {
    stats.pids.current = match files.number("pids.current")? {
        Some(current) => current,
        // The controller is not turned on here.
        None => files.list("cgroup.threads")?.len() as u64,
    };
    stats.pids.limit = files.number("pids.max")?.filter(|limit| *limit != u64::MAX).unwrap_or_default();
    Ok(())
}

/// io.stat in the lists of v1.
fn io(files: &Files, stats: &mut Stats) -> Result<()> {
    let blkio = &mut stats.blkio;
    for (device, fields) in files.keyed("io.stat")? {
        let Some((major, minor)) = device.split_once(':') else { continue };
        let (Ok(major), Ok(minor)) = (major.parse(), minor.parse()) else { continue };
        for (key, value) in fields {
            let (list, op) = match key.as_str() {
                "rbytes" => (&mut blkio.io_service_bytes_recursive, "Read"),
                "wbytes" => (&mut blkio.io_service_bytes_recursive, "Write"),
                "dbytes" => (&mut blkio.io_service_bytes_recursive, "Discard"),
                "rios" => (&mut blkio.io_serviced_recursive, "Read"),
                "wios" => (&mut blkio.io_serviced_recursive, "Write"),
                "dios" => (&mut blkio.io_serviced_recursive, "Discard"),
                // The counters of iocost and iolatency have no place there.
                _ => continue,
            };
            list.push(BlkioEntry { major, minor, op: op.to_owned(), value: value.unwrap_or_default() });
        }
    }
    blkio.psi = files.psi("io.pressure")?;
    Ok(())
}

fn hugetlb(files: &Files, stats: &mut Stats) -> Result<()> {
    for size in page_sizes() {
        let Some(usage) = files.number(&format!("hugetlb.{size}.current"))? else { continue };
        let failcnt = files.map(&format!("hugetlb.{size}.events"))?.get("max").copied().unwrap_or_default();
        // No count of its own for reservations that failed: the events are those of both.
        let reserved = files.number(&format!("hugetlb.{size}.rsvd.current"))?;
        let entry = |usage| HugetlbEntry { usage, max: 0, failcnt };
        stats.hugetlb.insert(size, HugetlbStats { used: entry(usage), reserved: reserved.map(entry) });
    }
    Ok(())
}

/// The same files in both generations.
pub(super) fn rdma(files: &Files, stats: &mut Stats) -> Result<()> {
    let narrow = |value: Option<u64>| value.and_then(|v| u32::try_from(v).ok());
    for (device, fields) in files.keyed("rdma.current")? {
        let entry = stats.rdma.entry(device).or_default();
        for (key, value) in fields {
            match key.as_str() {
                "hca_handle" => entry.hca_handles = narrow(value).unwrap_or_default(),
                "hca_object" => entry.hca_objects = narrow(value).unwrap_or_default(),
                _ => {}
            }
        }
    }
    for (device, fields) in files.keyed("rdma.max")? {
        let entry = stats.rdma.entry(device).or_default();
        for (key, value) in fields {
            match key.as_str() {
                "hca_handle" => entry.hca_handles_limit = narrow(value),
                "hca_object" => entry.hca_objects_limit = narrow(value),
                _ => {}
            }
        }
    }
    Ok(())
}

fn misc(files: &Files, stats: &mut Stats) -> Result<()> {
    for (name, usage) in files.map("misc.current")? {
        stats.misc.entry(name).or_default().usage = usage;
    }
    for (name, count) in files.map("misc.events")? {
        if let Some(name) = name.strip_suffix(".max") {
            stats.misc.entry(name.to_owned()).or_default().events = count;
        }
    }
    Ok(())
}
