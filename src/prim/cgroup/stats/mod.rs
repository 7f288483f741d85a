//! What a container uses of its resources: one typed answer from either generation of cgroups. The fields are those of the
//! `stats` event that runc prints, since engines parse that.

mod read;
mod v1;
mod v2;

use super::{Record, Version, write};
use crate::error::{Error, Kind, Result};
use read::Files;
use std::collections::BTreeMap;

/// The statistics of one container. What the kernel does not count is zero, empty or `None`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Stats {
    /// Time on the CPUs.
    pub cpu: CpuStats,
    /// The CPUs and memory nodes it may use, and their flags.
    pub cpuset: CpusetStats,
    /// Memory.
    pub memory: MemoryStats,
    /// Processes and threads.
    pub pids: PidsStats,
    /// Block devices.
    pub blkio: BlkioStats,
    /// Huge pages, by page size (`2MB`).
    pub hugetlb: BTreeMap<String, HugetlbStats>,
    /// RDMA devices, by name.
    pub rdma: BTreeMap<String, RdmaStats>,
    /// Resources of the v2 misc controller, by name.
    pub misc: BTreeMap<String, MiscStats>,
}

/// Time on the CPUs, in nanoseconds.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CpuStats {
    /// All of it.
    pub total: u64,
    /// In the kernel.
    pub kernel: u64,
    /// In user space.
    pub user: u64,
    /// By CPU; v1 only.
    pub percpu: Vec<u64>,
    /// By CPU, in the kernel; v1 only.
    pub percpu_kernel: Vec<u64>,
    /// By CPU, in user space; v1 only.
    pub percpu_user: Vec<u64>,
    /// What a quota did.
    pub throttling: Throttling,
    /// What a burst did.
    pub burst: Burst,
    /// Time lost in waiting for a CPU; v2 only.
    pub psi: Option<Psi>,
}

/// What a CPU quota did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Throttling {
    /// Periods in which the container ran.
    pub periods: u64,
    /// Those in which it used up its quota.
    pub throttled_periods: u64,
    /// How long it was held back, in nanoseconds.
    pub throttled_time: u64,
}

/// What a CPU burst did (Linux 5.15).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Burst {
    /// Periods in which more than the quota was used.
    pub periods: u64,
    /// How much more, in nanoseconds.
    pub time: u64,
}

/// The v1 flags are as the files have them; v2 has only the two lists.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are the files of cpuset(7)")]
pub struct CpusetStats {
    pub cpus: Vec<u16>,
    pub mems: Vec<u16>,
    pub cpu_exclusive: u64,
    pub mem_hardwall: u64,
    pub mem_exclusive: u64,
    pub memory_migrate: u64,
    pub memory_spread_page: u64,
    pub memory_spread_slab: u64,
    pub memory_pressure: u64,
    pub sched_load_balance: u64,
    pub sched_relax_domain_level: i64,
}

/// Memory, in bytes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct MemoryStats {
    /// Page cache.
    pub cache: u64,
    /// All memory.
    pub usage: MemoryEntry,
    /// Memory and swap together, also on v2.
    pub swap: MemoryEntry,
    /// Swap alone; v2 only.
    pub swap_only: MemoryEntry,
    /// Kernel memory; v1 only.
    pub kernel: MemoryEntry,
    /// Buffers of TCP sockets; v1 only.
    pub kernel_tcp: MemoryEntry,
    /// memory.stat as it is.
    pub raw: BTreeMap<String, u64>,
    /// memory.events as it is; v2 only.
    pub events: BTreeMap<String, u64>,
    /// Time lost in waiting for memory; v2 only.
    pub psi: Option<Psi>,
}

/// One kind of memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MemoryEntry {
    /// The limit; `u64::MAX` for none on v2, a number near 2^63 for none on v1.
    pub limit: u64,
    /// In use now.
    pub usage: u64,
    /// The most that was ever in use (v2: Linux 5.19).
    pub max: u64,
    /// How often the limit was hit; v1 only.
    pub failcnt: u64,
}

/// Processes and threads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PidsStats {
    /// How many there are.
    pub current: u64,
    /// The limit; 0 for none.
    pub limit: u64,
}

/// Block devices.
#[derive(Debug, Clone, Default, PartialEq)]
#[allow(missing_docs, reason = "the fields are the blkio files of the same name")]
pub struct BlkioStats {
    pub io_service_bytes_recursive: Vec<BlkioEntry>,
    pub io_serviced_recursive: Vec<BlkioEntry>,
    pub io_queued_recursive: Vec<BlkioEntry>,
    pub io_service_time_recursive: Vec<BlkioEntry>,
    pub io_wait_time_recursive: Vec<BlkioEntry>,
    pub io_merged_recursive: Vec<BlkioEntry>,
    pub io_time_recursive: Vec<BlkioEntry>,
    pub sectors_recursive: Vec<BlkioEntry>,
    /// Time lost in waiting for a device; v2 only.
    pub psi: Option<Psi>,
}

/// One number of one block device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlkioEntry {
    /// The device's major number.
    pub major: u64,
    /// The device's minor number.
    pub minor: u64,
    /// `Read`, `Write`, `Sync`, `Async`, `Discard`, `Total`, or nothing.
    pub op: String,
    /// Bytes, operations, nanoseconds or sectors, by the list that it is in.
    pub value: u64,
}

/// Huge pages of one size, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HugetlbStats {
    /// Faulted in.
    pub used: HugetlbEntry,
    /// Reserved as well (Linux 5.7); it is what runc prints where there is one.
    pub reserved: Option<HugetlbEntry>,
}

/// One way of counting huge pages, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HugetlbEntry {
    /// In use now.
    pub usage: u64,
    /// The most that was ever in use; v1 only.
    pub max: u64,
    /// How often the limit was hit.
    pub failcnt: u64,
}

/// One RDMA device; `None` is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are those of rdma.current and rdma.max")]
pub struct RdmaStats {
    pub hca_handles: u32,
    pub hca_objects: u32,
    pub hca_handles_limit: Option<u32>,
    pub hca_objects_limit: Option<u32>,
}

/// One resource of the misc controller.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MiscStats {
    /// In use now.
    pub usage: u64,
    /// How often the limit was hit.
    pub events: u64,
}

/// Pressure stall information, see the kernel's psi.rst.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Psi {
    /// While some process waited.
    pub some: PsiLine,
    /// While all of them waited.
    pub full: PsiLine,
}

/// One line of a pressure file: percentages over the last 10, 60 and 300 seconds, and microseconds in all.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
#[allow(missing_docs, reason = "the fields are those of the file")]
pub struct PsiLine {
    pub avg10: f64,
    pub avg60: f64,
    pub avg300: f64,
    pub total: u64,
}

impl Record {
    /// Reads what the container uses. A file that the kernel lacks, or whose controller is not turned on, counts as zero.
    ///
    /// # Errors
    /// [`Kind::Gone`] when the cgroups are gone, also if they go meanwhile; [`Kind::Status`] when the container never had any;
    /// a file that can't be read.
    pub fn stats(&self) -> Result<Stats> {
        let Some(main) = self.main() else {
            return Err(Error::new(Kind::Status, "the container has no cgroup, so nothing counts what it uses")
                .hint("give it one: run without --cgroup-manager disabled, where cgroups are mounted"));
        };
        let mut stats = Stats::default();
        for group in &self.groups {
            let files = Files { dir: &group.path };
            match group.version {
                Version::V1 => v1::read(group, &files, &mut stats)?,
                Version::V2 => v2::read(group, &files, &mut stats)?,
            }
        }
        // Absent files read as zero, so one that has gone meanwhile would pass for an idle one.
        if !std::path::Path::new(&main.path).exists() {
            return Err(Error::new(Kind::Gone, format!("cgroup {} is gone: the container has ended", main.path)));
        }
        Ok(stats)
    }
}

/// The page sizes for which a group may have files.
fn page_sizes() -> Vec<String> {
    write::page_sizes()
}

#[cfg(test)]
mod tests;
