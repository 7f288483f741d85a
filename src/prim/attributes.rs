//! Attributes of the process that are numbers to the kernel: limits, scheduling, I/O priority, memory policy, personality.

use crate::error::Problem;
use crate::spec::{
    self, IoPriorityClass, MemoryPolicyFlag, MemoryPolicyMode, PersonalityDomain, RlimitType, SchedulerFlag,
    SchedulerPolicy,
};
use crate::sys::sched::{self, SchedAttr};
use crate::sys::{At, Call, Errno, Failure};

/// A resource limit: the kernel's number, soft, hard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rlimit {
    /// `RLIMIT_*`.
    pub resource: u32,
    /// Soft limit.
    pub soft: u64,
    /// Hard limit.
    pub hard: u64,
}

/// The kernel's number of a limit.
pub fn rlimit_number(typ: RlimitType) -> u32 {
    let number = match typ {
        RlimitType::As => libc::RLIMIT_AS,
        RlimitType::Core => libc::RLIMIT_CORE,
        RlimitType::Cpu => libc::RLIMIT_CPU,
        RlimitType::Data => libc::RLIMIT_DATA,
        RlimitType::Fsize => libc::RLIMIT_FSIZE,
        RlimitType::Locks => libc::RLIMIT_LOCKS,
        RlimitType::Memlock => libc::RLIMIT_MEMLOCK,
        RlimitType::Msgqueue => libc::RLIMIT_MSGQUEUE,
        RlimitType::Nice => libc::RLIMIT_NICE,
        RlimitType::Nofile => libc::RLIMIT_NOFILE,
        RlimitType::Nproc => libc::RLIMIT_NPROC,
        RlimitType::Rss => libc::RLIMIT_RSS,
        RlimitType::Rtprio => libc::RLIMIT_RTPRIO,
        RlimitType::Rttime => libc::RLIMIT_RTTIME,
        RlimitType::Sigpending => libc::RLIMIT_SIGPENDING,
        RlimitType::Stack => libc::RLIMIT_STACK,
    };
    number as _
}

/// Compiles `process.rlimits`, in order.
pub fn rlimits(limits: &[spec::Rlimit]) -> Vec<Rlimit> {
    let one = |l: &spec::Rlimit| Some(Rlimit { resource: rlimit_number(l.typ?), soft: l.soft, hard: l.hard });
    limits.iter().filter_map(one).collect()
}

/// The errno of a limit that can't be set, in words that name the way out.
pub fn rlimit_hint(limit: Rlimit, errno: Errno) -> Option<String> {
    let (_, hard) = sched::get_rlimit(limit.resource).ok()?;
    (errno == Errno::EPERM && limit.hard > hard).then(|| {
        format!("the hard limit is {hard} here, and only CAP_SYS_RESOURCE may raise it: ask for at most that, or raise the caller's")
    })
}

/// Compiles `process.scheduler` (runtime-spec, config.md, "Scheduler"; sched_setattr(2)).
pub fn scheduler(scheduler: &spec::Scheduler) -> SchedAttr {
    let policy = match scheduler.policy.unwrap_or(SchedulerPolicy::Other) {
        SchedulerPolicy::Other => libc::SCHED_OTHER,
        SchedulerPolicy::Fifo => libc::SCHED_FIFO,
        SchedulerPolicy::Rr => libc::SCHED_RR,
        SchedulerPolicy::Batch => libc::SCHED_BATCH,
        // Linux reserves the number and implements nothing: the kernel's own answer is the clearest.
        SchedulerPolicy::Iso => 4,
        SchedulerPolicy::Idle => libc::SCHED_IDLE,
        SchedulerPolicy::Deadline => libc::SCHED_DEADLINE,
    };
    let flag = |f: &SchedulerFlag| match f {
        SchedulerFlag::ResetOnFork => 0x01,
        SchedulerFlag::Reclaim => 0x02,
        SchedulerFlag::DlOverrun => 0x04,
        SchedulerFlag::KeepPolicy => 0x08,
        SchedulerFlag::KeepParams => 0x10,
        SchedulerFlag::UtilClampMin => 0x20,
        SchedulerFlag::UtilClampMax => 0x40,
    };
    SchedAttr {
        size: size_of::<SchedAttr>() as u32,
        policy: policy as u32,
        flags: scheduler.flags.iter().map(flag).fold(0, |all, f| all | f),
        nice: scheduler.nice,
        priority: scheduler.priority as u32,
        runtime: scheduler.runtime,
        deadline: scheduler.deadline,
        period: scheduler.period,
        util_min: 0,
        util_max: 0,
    }
}

/// Compiles `process.ioPriority` to class and level of ioprio_set(2).
pub fn io_priority(priority: &spec::IoPriority) -> (u32, u32) {
    let class = match priority.class.unwrap_or(IoPriorityClass::Be) {
        IoPriorityClass::Rt => 1,
        IoPriorityClass::Be => 2,
        IoPriorityClass::Idle => 3,
    };
    (class, priority.priority as u32)
}

/// Compiles `linux.personality`.
pub fn personality(personality: &spec::Personality) -> u64 {
    match personality.domain.unwrap_or(PersonalityDomain::Linux) {
        PersonalityDomain::Linux => 0,
        PersonalityDomain::Linux32 => 8,
    }
}

/// Mode word (with its flags) and nodes of set_mempolicy(2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryPolicy {
    mode: u32,
    nodes: Vec<u64>,
}

/// Compiles `linux.memoryPolicy`.
///
/// # Errors
/// A node list that is none.
pub fn memory_policy(policy: &spec::MemoryPolicy) -> Result<MemoryPolicy, Problem> {
    let mode = match policy.mode.unwrap_or(MemoryPolicyMode::Default) {
        MemoryPolicyMode::Default => 0,
        MemoryPolicyMode::Preferred => 1,
        MemoryPolicyMode::Bind => 2,
        MemoryPolicyMode::Interleave => 3,
        MemoryPolicyMode::Local => 4,
        MemoryPolicyMode::PreferredMany => 5,
        MemoryPolicyMode::WeightedInterleave => 6,
    };
    let flag = |f: &MemoryPolicyFlag| match f {
        MemoryPolicyFlag::NumaBalancing => 1 << 13,
        MemoryPolicyFlag::RelativeNodes => 1 << 14,
        MemoryPolicyFlag::StaticNodes => 1 << 15,
    };
    let nodes = match policy.nodes.as_deref().filter(|nodes| !nodes.is_empty()) {
        Some(nodes) => list(nodes).map_err(|what| Problem::new("/linux/memoryPolicy/nodes", what))?,
        None => Vec::new(),
    };
    Ok(MemoryPolicy { mode: policy.flags.iter().map(flag).fold(mode, |all, f| all | f), nodes })
}

/// Sets a memory policy. For the child: allocates nothing.
///
/// # Errors
/// As set_mempolicy(2).
pub fn apply_memory_policy(policy: &MemoryPolicy) -> Result<(), Failure> {
    sched::set_memory_policy(policy.mode, &policy.nodes).at(Call::MemPolicy)
}

/// A list of numbers and ranges such as `0-3,7` as a bit mask, 64 a word.
///
/// # Errors
/// What is wrong with it, and what would be right.
pub fn list(text: &str) -> Result<Vec<u64>, String> {
    let wrong = || format!("`{text}` is not a list of numbers and ranges such as 0-3,7");
    let mut mask: Vec<u64> = Vec::new();
    for part in text.trim().split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let number = |n: &str| n.trim().parse::<usize>().ok().filter(|n| *n < 1 << 16).ok_or_else(wrong);
        let (first, last) = (number(first)?, number(last)?);
        if first > last {
            return Err(wrong());
        }
        mask.resize(mask.len().max(last / 64 + 1), 0);
        (first..=last).for_each(|n| mask[n / 64] |= 1 << (n % 64));
    }
    if mask.is_empty() { Err(wrong()) } else { Ok(mask) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_cpus_and_nodes() {
        assert_eq!(list("0-3,7"), Ok(vec![0b1000_1111]));
        assert_eq!(list(" 64 , 1"), Ok(vec![2, 1]));
        for wrong in ["", ",", "3-1", "a", "-1", "1-", "99999999"] {
            assert!(list(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_policy_with_its_flags() {
        let policy = spec::MemoryPolicy {
            mode: Some(MemoryPolicyMode::Bind),
            nodes: Some("0".into()),
            flags: vec![MemoryPolicyFlag::StaticNodes],
        };
        assert_eq!(memory_policy(&policy), Ok(MemoryPolicy { mode: 2 | 1 << 15, nodes: vec![1] }));
    }
}
