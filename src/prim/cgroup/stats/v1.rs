//! Statistics of cgroup v1.

use super::read::Files;
use super::{BlkioEntry, BlkioStats, CpusetStats, HugetlbEntry, HugetlbStats, MemoryEntry, Stats, page_sizes, v2};
use crate::error::Result;
use crate::prim::cgroup::Group;

/// USER_HZ, in which cpuacct.stat counts: 100 on every architecture.
const TICK: u64 = 1_000_000_000 / 100;

/// Adds what one hierarchy counts.
pub(super) fn read(group: &Group, files: &Files, stats: &mut Stats) -> Result<()> {
    for controller in &group.controllers {
        match controller.as_str() {
            "cpu" => cpu(files, stats)?,
            "cpuacct" => cpuacct(files, stats)?,
            "cpuset" => stats.cpuset = cpuset(files)?,
            "memory" => memory(files, stats)?,
            "pids" => v2::pids(files, stats)?,
            "blkio" => blkio(files, &mut stats.blkio)?,
            "hugetlb" => hugetlb(files, stats)?,
            "rdma" => v2::rdma(files, stats)?,
            _ => {}
        }
    }
    Ok(())
}

fn cpu(files: &Files, stats: &mut Stats) -> Result<()> {
    let map = files.map("cpu.stat")?;
    let get = |key: &str| map.get(key).copied().unwrap_or_default();
    let cpu = &mut stats.cpu;
    cpu.throttling.periods = get("nr_periods");
    cpu.throttling.throttled_periods = get("nr_throttled");
    cpu.throttling.throttled_time = get("throttled_time");
    cpu.burst.periods = get("nr_bursts");
    cpu.burst.time = get("burst_time");
    Ok(())
}

fn cpuacct(files: &Files, stats: &mut Stats) -> Result<()> {
    let cpu = &mut stats.cpu;
    cpu.total = files.number("cpuacct.usage")?.unwrap_or_default();
    let map = files.map("cpuacct.stat")?;
    cpu.user = map.get("user").copied().unwrap_or_default() * TICK;
    cpu.kernel = map.get("system").copied().unwrap_or_default() * TICK;
    cpu.percpu = files.list("cpuacct.usage_percpu")?;
    // A header, and "cpu user system" for each.
    for line in files.text("cpuacct.usage_all")?.unwrap_or_default().lines().skip(1) {
        let mut numbers = line.split(' ').skip(1).map(|n| n.parse().unwrap_or_default());
        cpu.percpu_user.push(numbers.next().unwrap_or_default());
        cpu.percpu_kernel.push(numbers.next().unwrap_or_default());
    }
    Ok(())
}

fn cpuset(files: &Files) -> Result<CpusetStats> {
    // A hierarchy that was mounted with noprefix has the short names.
    let prefix = if files.text("cpuset.cpus")?.is_some() { "cpuset." } else { "" };
    let name = |file: &str| format!("{prefix}{file}");
    let flag = |file: &str| files.number(&name(file)).map(Option::unwrap_or_default);
    Ok(CpusetStats {
        cpus: files.set(&name("cpus"))?,
        mems: files.set(&name("mems"))?,
        cpu_exclusive: flag("cpu_exclusive")?,
        mem_hardwall: flag("mem_hardwall")?,
        mem_exclusive: flag("mem_exclusive")?,
        memory_migrate: flag("memory_migrate")?,
        memory_spread_page: flag("memory_spread_page")?,
        memory_spread_slab: flag("memory_spread_slab")?,
        memory_pressure: flag("memory_pressure")?,
        sched_load_balance: flag("sched_load_balance")?,
        sched_relax_domain_level: files.signed(&name("sched_relax_domain_level"))?.unwrap_or_default(),
    })
}

fn memory(files: &Files, stats: &mut Stats) -> Result<()> {
    let entry = |kind: &str| -> Result<MemoryEntry> {
        let Some(usage) = files.number(&format!("memory.{kind}usage_in_bytes"))? else {
            return Ok(MemoryEntry::default());
        };
        let number = |file: &str| files.number(&format!("memory.{kind}{file}")).map(Option::unwrap_or_default);
        Ok(MemoryEntry {
            limit: number("limit_in_bytes")?,
            usage,
            max: number("max_usage_in_bytes")?,
            failcnt: number("failcnt")?,
        })
    };
    let memory = &mut stats.memory;
    memory.raw = files.map("memory.stat")?;
    memory.cache = memory.raw.get("cache").copied().unwrap_or_default();
    memory.usage = entry("")?;
    memory.swap = entry("memsw.")?;
    memory.kernel = entry("kmem.")?;
    memory.kernel_tcp = entry("kmem.tcp.")?;
    Ok(())
}

/// The first set of files that counts anything: BFQ's with and without its debug counters, CFQ's of before Linux 5.0, and
/// what throttling counts under any scheduler.
fn blkio(files: &Files, blkio: &mut BlkioStats) -> Result<()> {
    for prefix in ["blkio.bfq.", "blkio."] {
        let read = |file: &str| entries(files, &format!("{prefix}{file}_recursive"));
        let bytes = read("io_service_bytes")?;
        if bytes.is_empty() {
            continue;
        }
        *blkio = BlkioStats {
            io_service_bytes_recursive: bytes,
            io_serviced_recursive: read("io_serviced")?,
            io_queued_recursive: read("io_queued")?,
            io_service_time_recursive: read("io_service_time")?,
            io_wait_time_recursive: read("io_wait_time")?,
            io_merged_recursive: read("io_merged")?,
            io_time_recursive: read("time")?,
            sectors_recursive: read("sectors")?,
            psi: None,
        };
        return Ok(());
    }
    for suffix in ["_recursive", ""] {
        let bytes = entries(files, &format!("blkio.throttle.io_service_bytes{suffix}"))?;
        if !bytes.is_empty() {
            blkio.io_service_bytes_recursive = bytes;
            blkio.io_serviced_recursive = entries(files, &format!("blkio.throttle.io_serviced{suffix}"))?;
            return Ok(());
        }
    }
    Ok(())
}

/// `8:0 Read 4096` and `8:0 4096` lines, without the sum over all devices at the end.
fn entries(files: &Files, file: &str) -> Result<Vec<BlkioEntry>> {
    let text = files.text(file)?.unwrap_or_default();
    let entry = |line: &str| {
        let (device, rest) = line.split_once(' ')?;
        let (major, minor) = device.split_once(':')?;
        let (op, value) = rest.rsplit_once(' ').unwrap_or(("", rest));
        let (major, minor) = (major.parse().ok()?, minor.parse().ok()?);
        Some(BlkioEntry { major, minor, op: op.to_owned(), value: value.parse().ok()? })
    };
    Ok(text.lines().filter_map(entry).collect())
}

fn hugetlb(files: &Files, stats: &mut Stats) -> Result<()> {
    for size in page_sizes() {
        let entry = |kind: &str| -> Result<Option<HugetlbEntry>> {
            let number = |file: &str| files.number(&format!("hugetlb.{size}.{kind}{file}"));
            let Some(usage) = number("usage_in_bytes")? else { return Ok(None) };
            let max = number("max_usage_in_bytes")?.unwrap_or_default();
            Ok(Some(HugetlbEntry { usage, max, failcnt: number("failcnt")?.unwrap_or_default() }))
        };
        if let Some(used) = entry("")? {
            let reserved = entry("rsvd.")?;
            stats.hugetlb.insert(size, HugetlbStats { used, reserved });
        }
    }
    Ok(())
}
