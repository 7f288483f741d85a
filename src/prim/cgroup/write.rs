//! One value into one control file: as data, carried out, and in words when the kernel refuses it.

use super::Group;
use crate::error::{Context, Error, Result};
use crate::sys::files;
use nix::errno::Errno;
use std::borrow::Cow;
use std::fs::{self, File, OpenOptions};
use std::io::Read as _;
use std::os::fd::AsFd;

type Text = Cow<'static, str>;

/// Writes that the kernel checks against each other. Which order is right depends on what is in force (a memory limit may
/// not pass the limit for memory and swap, and the other way round), so a refused write waits for the rest of its set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Set {
    /// Nothing else matters.
    Alone,
    /// Memory, and memory with swap.
    Memory,
    /// CPU period, quota and burst.
    Bandwidth,
    /// Real-time period and runtime.
    Realtime,
    /// CPU shares and idle.
    Shares,
}

/// One write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// Into which of the plan's groups.
    pub group: usize,
    /// The file's name.
    pub file: Text,
    /// The bytes.
    pub value: String,
    /// The JSON pointer of what asked for it.
    pub pointer: Text,
    /// What to write on a kernel that does not have `file`.
    pub instead: Option<(Text, String)>,
    /// Whether a kernel without the file does what is asked anyway.
    pub missing_ok: bool,
    /// Which other writes it depends on.
    pub set: Set,
    /// A file with a number that has to be below the value (`memory.checkBeforeUpdate`).
    pub above: Option<&'static str>,
}

impl Write {
    /// A plain write; [`super::compile`] finds the group.
    pub fn new(file: impl Into<Text>, value: impl ToString, pointer: impl Into<Text>) -> Write {
        Write {
            group: usize::MAX,
            file: file.into(),
            value: value.to_string(),
            pointer: pointer.into(),
            instead: None,
            missing_ok: false,
            set: Set::Alone,
            above: None,
        }
    }

    /// One of a set.
    pub fn of(mut self, set: Set) -> Write {
        self.set = set;
        self
    }

    /// Another file and value for kernels without this file.
    pub fn or(mut self, file: impl Into<Text>, value: impl ToString) -> Write {
        self.instead = Some((file.into(), value.to_string()));
        self
    }

    /// No error on kernels without this file.
    pub fn if_there(mut self, condition: bool) -> Write {
        self.missing_ok = condition;
        self
    }

    /// The step in words.
    pub fn phrase(&self) -> String {
        format!("write {} to {}", self.value.escape_debug(), self.file)
    }
}

/// Carries out writes in order.
///
/// # Errors
/// The first write that fails, in words.
pub fn write_all(groups: &[Group], writes: &[Write]) -> Result<()> {
    let mut last = Last::default();
    sets(writes).try_for_each(|set| write_set(groups, set, &mut last))
}

/// Writes cut into those that depend on each other.
pub(super) fn sets(writes: &[Write]) -> impl Iterator<Item = &[Write]> {
    writes.chunk_by(|a, b| a.set != Set::Alone && a.set == b.set && a.group == b.group)
}

fn write_set(groups: &[Group], set: &[Write], last: &mut Last) -> Result<()> {
    let mut pending: Vec<&Write> = set.iter().collect();
    while !pending.is_empty() {
        let mut refused = Vec::new();
        let mut first_error = None;
        for &write in &pending {
            let dir = &groups[write.group].path;
            check_above(dir, write)?;
            match last.put(write.group, dir, write) {
                Ok(()) => {}
                // EBUSY is v1's answer to a memory limit below the usage.
                Err(errno @ (Errno::EINVAL | Errno::EBUSY)) if set.len() > 1 => {
                    first_error.get_or_insert((write, errno));
                    refused.push(write);
                }
                Err(errno) => return Err(refusal(dir, write, errno)),
            }
        }
        if refused.len() == pending.len()
            && let Some((write, errno)) = first_error
        {
            return Err(refusal(&groups[write.group].path, write, errno));
        }
        pending = refused;
    }
    Ok(())
}

/// The file that was written last: lists (devices, throttling) go into one file, line by line.
#[derive(Default)]
struct Last {
    file: Option<(usize, String, File)>,
}

impl Last {
    fn put(&mut self, group: usize, dir: &str, write: &Write) -> Result<(), Errno> {
        match (self.put_into(group, dir, &write.file, &write.value), &write.instead) {
            (Err(Errno::ENOENT), Some((file, value))) => self.put_into(group, dir, file, value),
            (Err(Errno::ENOENT), None) if write.missing_ok => Ok(()),
            (other, _) => other,
        }
    }

    fn put_into(&mut self, group: usize, dir: &str, name: &str, value: &str) -> Result<(), Errno> {
        let again = matches!(&self.file, Some((at, open, _)) if *at == group && open == name);
        if !again {
            let file = OpenOptions::new().write(true).open(format!("{dir}/{name}")).map_err(|e| errno(&e))?;
            self.file = Some((group, name.to_owned(), file));
        }
        let Some((_, _, file)) = &self.file else { return Ok(()) };
        // A control file takes a value in one write. std would not make the call at all for an empty one, which some files
        // (cpuset.cpus) take for "as the parent".
        files::write(file.as_fd(), value.as_bytes())
    }
}

/// Writes one value.
///
/// # Errors
/// As open(2) and write(2).
pub fn put(path: &str, value: &str) -> Result<(), Errno> {
    let file = OpenOptions::new().write(true).open(path).map_err(|e| errno(&e))?;
    files::write(file.as_fd(), value.as_bytes())
}

pub(super) fn errno(e: &std::io::Error) -> Errno {
    e.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

/// The number in a control file.
pub(super) fn number(path: &str) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

pub(super) fn check_above(dir: &str, write: &Write) -> Result<()> {
    let Some(usage_file) = write.above else { return Ok(()) };
    // In a group without the file nothing runs yet.
    let (Some(usage), Ok(limit)) = (number(&format!("{dir}/{usage_file}")), write.value.parse::<u64>()) else {
        return Ok(());
    };
    if usage < limit {
        return Ok(());
    }
    let what = format!("{}: {dir}/{usage_file} is already {usage}, and {limit} is not above it", write.pointer);
    Err(Error::invalid(what).hint("memory.checkBeforeUpdate asks for this to be refused; take a higher limit"))
}

/// A refused write as the user reads it.
fn refusal(dir: &str, write: &Write, errno: Errno) -> Error {
    let (file, value) = (&write.file, write.value.escape_debug());
    let error = Error::os(format!("write {value} to {dir}/{file} ({})", write.pointer), errno);
    match hint(dir, write, errno) {
        Some(hint) => error.hint(hint),
        None => error,
    }
}

fn hint(dir: &str, write: &Write, errno: Errno) -> Option<String> {
    let file = write.file.as_ref();
    let parent = dir.rsplit_once('/').map_or("", |(parent, _)| parent);
    let current = |path: String| fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default();
    Some(match errno {
        Errno::EROFS => {
            format!("the cgroup filesystem is read-only here; mount it read-write, or remove {}", write.pointer)
        }
        Errno::ENOENT => missing(file),
        Errno::EBUSY if file.starts_with("memory.") => {
            let usage = current(format!("{dir}/memory.usage_in_bytes"));
            format!("{usage} bytes are in use, and the kernel could not free enough of them; take a higher limit")
        }
        Errno::ENODEV | Errno::EINVAL if file.starts_with("rdma.") => {
            "there is no such RDMA device on this host; /sys/class/infiniband has those that are".into()
        }
        Errno::ENODEV | Errno::ENXIO => {
            "there is no such block device on this host; numbers are those of a whole disk".into()
        }
        Errno::EPERM if file.starts_with("devices.") => "the parent cgroup does not allow this device itself".into(),
        Errno::EACCES | Errno::EPERM => {
            "this user may not set it: run brig as root, or have this part of the cgroup tree delegated".into()
        }
        _ if file.starts_with("cpuset.") => {
            let theirs = current(format!("{parent}/{file}"));
            format!("it has to be a part of the parent's {file}, which is {theirs:?}")
        }
        Errno::EINVAL | Errno::ERANGE => range(file)?.to_owned(),
        _ => return None,
    })
}

/// What a kernel without this file lacks.
fn missing(file: &str) -> String {
    if file.starts_with("hugetlb.") {
        return format!("the page sizes of this kernel are {}", page_sizes().join(", "));
    }
    let lacks = [
        ("memory.memsw.", "swap accounting is off: boot with swapaccount=1, or leave out memory.swap"),
        ("memory.swap.", "swap accounting is off: boot with swapaccount=1, or leave out memory.swap"),
        ("memory.use_hierarchy", "memory is always accounted hierarchically by this kernel; leave it out"),
        ("cpu.rt_", "this kernel has no real-time group scheduling (CONFIG_RT_GROUP_SCHED)"),
        ("cpu.cfs_", "this kernel has no CPU bandwidth control (CONFIG_CFS_BANDWIDTH), or is too old for this"),
        ("cpu.idle", "cpu.idle needs Linux 5.15"),
        ("blkio.leaf_weight", "leaf weights went with the CFQ scheduler in Linux 5.0"),
        ("blkio.", "this kernel lacks what is needed for it (the BFQ scheduler, or CONFIG_BLK_DEV_THROTTLING)"),
        ("io.", "this kernel lacks what is needed for it (the BFQ scheduler, or blk-iocost)"),
    ];
    let lack = lacks.iter().find(|(prefix, _)| file.starts_with(prefix)).map(|(_, lack)| *lack);
    lack.unwrap_or("this kernel has no such file in the container's cgroup").to_owned()
}

fn range(file: &str) -> Option<&'static str> {
    let ranges = [
        (
            "memory.use_hierarchy",
            "since Linux 5.11 memory is always accounted hierarchically; leave it out or say true",
        ),
        ("memory.memsw.", "it may not be below memory.limit"),
        ("memory.limit", "it may not be above memory.swap (memory and swap together)"),
        ("memory.swappiness", "it takes 0 to 100"),
        ("cpu.cfs_quota_us", "it takes -1, or 1000 and more, and no larger share of its period than the parent has"),
        ("cpu.cfs_period_us", "it takes 1000 to 1000000"),
        ("cpu.cfs_burst_us", "it may not be above the quota"),
        (
            "cpu.max",
            "the quota takes 1000 and more, the period 1000 to 1000000, and a burst may not be above the quota",
        ),
        ("cpu.rt_", "the parent cgroup has to have as much real-time runtime left"),
        ("cpu.shares", "an idle cgroup has no shares"),
        ("cpu.weight", "an idle cgroup has no weight"),
        ("blkio.", "weights take 10 to 1000"),
    ];
    ranges.iter().find(|(prefix, _)| file.starts_with(prefix)).map(|(_, range)| *range)
}

/// The huge page sizes of this kernel, as the cgroup files name them (`2MB`).
pub(super) fn page_sizes() -> Vec<String> {
    let kilobytes = |name: &str| name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse::<u64>().ok();
    let name = |kb: u64| match kb {
        _ if kb >= 1 << 20 => format!("{}GB", kb >> 20),
        _ if kb >= 1 << 10 => format!("{}MB", kb >> 10),
        _ => format!("{kb}KB"),
    };
    let entries = fs::read_dir("/sys/kernel/mm/hugepages").into_iter().flatten().flatten();
    let mut sizes: Vec<u64> = entries.filter_map(|e| kilobytes(e.file_name().to_str()?)).collect();
    sizes.sort_unstable();
    sizes.into_iter().map(name).collect()
}

/// Reads a control file with one value, trimmed. Such a file comes whole in one read.
pub(super) fn read(path: &str) -> Result<String> {
    let mut buffer = [0; 4096];
    let n = File::open(path).and_then(|mut file| file.read(&mut buffer)).during(|| format!("read {path}"))?;
    Ok(String::from_utf8_lossy(&buffer[..n]).trim().to_owned())
}
