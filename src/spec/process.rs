//! `process`: what runs in the container, as whom, and under which limits.

use super::IdMapping;
use std::path::PathBuf;

spec_objects! {
    /// `process`.
    struct Process {
        terminal: bool,
        console_size: Option<ConsoleSize>,
        user: User,
        args: Vec<String>,
        env: Vec<String>,
        cwd: PathBuf,
        capabilities: Option<Capabilities>,
        rlimits: Vec<Rlimit>,
        no_new_privileges: bool,
        apparmor_profile: Option<String>,
        selinux_label: Option<String>,
        oom_score_adj: Option<i32>,
        scheduler: Option<Scheduler>,
        io_priority: Option<IoPriority>,
        #[serde(rename = "execCPUAffinity")]
        exec_cpu_affinity: Option<ExecCpuAffinity>,
    }

    /// `process.consoleSize`, in character cells.
    struct ConsoleSize {
        height: u16,
        width: u16,
    }

    /// `process.user`: numbers only; the runtime resolves no names (CVE-2016-3697).
    struct User {
        uid: u32,
        gid: u32,
        umask: Option<u32>,
        additional_gids: Vec<u32>,
    }

    /// `process.capabilities`: names as in capabilities(7). Unknown names are known only to a newer kernel or to none;
    /// they are dropped with a warning, as runc does.
    struct Capabilities {
        bounding: Vec<String>,
        effective: Vec<String>,
        inheritable: Vec<String>,
        permitted: Vec<String>,
        ambient: Vec<String>,
    }

    /// One entry of `process.rlimits`.
    struct Rlimit {
        #[serde(rename = "type")]
        typ: Option<RlimitType>,
        soft: u64,
        hard: u64,
    }

    /// `process.scheduler`, see sched_setattr(2). Runtime, deadline and period are in nanoseconds.
    struct Scheduler {
        policy: Option<SchedulerPolicy>,
        nice: i32,
        priority: i32,
        flags: Vec<SchedulerFlag>,
        runtime: u64,
        deadline: u64,
        period: u64,
    }

    /// `process.ioPriority`, see ioprio_set(2).
    struct IoPriority {
        class: Option<IoPriorityClass>,
        priority: i64,
    }

    /// `process.execCPUAffinity`: CPU lists such as `0-3,7` for `exec`, before and after the move to the cgroup.
    struct ExecCpuAffinity {
        initial: Option<String>,
        #[serde(rename = "final")]
        last: Option<String>,
    }
}

spec_words! {
    /// Resource limits of getrlimit(2).
    enum RlimitType {
        As = "RLIMIT_AS",
        Core = "RLIMIT_CORE",
        Cpu = "RLIMIT_CPU",
        Data = "RLIMIT_DATA",
        Fsize = "RLIMIT_FSIZE",
        Locks = "RLIMIT_LOCKS",
        Memlock = "RLIMIT_MEMLOCK",
        Msgqueue = "RLIMIT_MSGQUEUE",
        Nice = "RLIMIT_NICE",
        Nofile = "RLIMIT_NOFILE",
        Nproc = "RLIMIT_NPROC",
        Rss = "RLIMIT_RSS",
        Rtprio = "RLIMIT_RTPRIO",
        Rttime = "RLIMIT_RTTIME",
        Sigpending = "RLIMIT_SIGPENDING",
        Stack = "RLIMIT_STACK",
    }

    /// Scheduling policies of sched(7).
    enum SchedulerPolicy {
        Other = "SCHED_OTHER",
        Fifo = "SCHED_FIFO",
        Rr = "SCHED_RR",
        Batch = "SCHED_BATCH",
        Iso = "SCHED_ISO",
        Idle = "SCHED_IDLE",
        Deadline = "SCHED_DEADLINE",
    }

    /// Flags of sched_setattr(2).
    enum SchedulerFlag {
        ResetOnFork = "SCHED_FLAG_RESET_ON_FORK",
        Reclaim = "SCHED_FLAG_RECLAIM",
        DlOverrun = "SCHED_FLAG_DL_OVERRUN",
        KeepPolicy = "SCHED_FLAG_KEEP_POLICY",
        KeepParams = "SCHED_FLAG_KEEP_PARAMS",
        UtilClampMin = "SCHED_FLAG_UTIL_CLAMP_MIN",
        UtilClampMax = "SCHED_FLAG_UTIL_CLAMP_MAX",
    }

    /// I/O scheduling classes of ioprio_set(2).
    enum IoPriorityClass {
        Rt = "IOPRIO_CLASS_RT",
        Be = "IOPRIO_CLASS_BE",
        Idle = "IOPRIO_CLASS_IDLE",
    }
}

impl IdMapping {
    /// Where a container ID lies on the host, if this mapping holds it.
    pub fn to_host(&self, id: u32) -> Option<u32> {
        let offset = id.checked_sub(self.container_id)?;
        (offset < self.size).then(|| self.host_id.checked_add(offset)).flatten()
    }
}
