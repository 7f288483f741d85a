//! The built-in system-call profiles: lists of what is allowed, each a superset of the one before; all else fails with EPERM.

use super::policy::{Network, NetworkMode, Policy, Profile};
use crate::spec::{Seccomp, SeccompAction, SeccompArch, SeccompArg, SeccompOp, Syscall};

/// What any program makes to start, also one that is linked dynamically, to read, write and exit.
const MINIMAL: &str = "access arch_prctl brk clock_getres clock_gettime clock_nanosleep close close_range dup dup2 dup3 \
    epoll_create epoll_create1 epoll_ctl epoll_pwait epoll_pwait2 epoll_wait eventfd eventfd2 execve execveat exit exit_group \
    faccessat faccessat2 fadvise64 fcntl fcntl64 fstat fstat64 fstatat64 fstatfs futex futex_wait futex_wake futex_waitv \
    get_robust_list get_thread_area getcpu getcwd getdents getdents64 getegid getegid32 geteuid geteuid32 getgid getgid32 \
    getgroups getgroups32 getitimer getpgid getpgrp getpid getppid getpriority getrandom getresgid getresuid getrlimit \
    getrusage getsid gettid gettimeofday getuid getuid32 ioctl lseek _llseek lstat lstat64 madvise membarrier mmap mmap2 \
    mprotect mremap munmap nanosleep newfstatat pause pipe pipe2 poll ppoll prctl pread64 preadv preadv2 prlimit64 \
    pselect6 read readlink readlinkat readv restart_syscall riscv_flush_icache rseq rt_sigaction rt_sigpending rt_sigprocmask \
    rt_sigreturn rt_sigsuspend rt_sigtimedwait sched_getaffinity sched_getparam sched_getscheduler sched_yield select \
    sendfile sendfile64 set_robust_list set_thread_area set_tid_address sigaltstack sigreturn splice stat stat64 statfs statfs64 \
    statx sysinfo tee time times ugetrlimit umask uname vmsplice write writev pwrite64 pwritev pwritev2";

/// And files: made, changed, watched.
const FILES: &str = "chdir chmod chown chown32 copy_file_range creat fallocate fanotify_mark fchdir fchmod fchmodat fchmodat2 \
    fchown fchown32 fchownat fdatasync fgetxattr flistxattr flock fremovexattr fsetxattr fsync ftruncate ftruncate64 \
    futimesat getxattr inotify_add_watch inotify_init inotify_init1 inotify_rm_watch io_destroy io_getevents io_pgetevents \
    io_setup io_submit io_cancel lchown lchown32 lgetxattr link linkat listxattr llistxattr lremovexattr lsetxattr mkdir \
    mkdirat mknod mknodat msync name_to_handle_at open openat openat2 readahead removexattr rename renameat renameat2 rmdir \
    setxattr symlink symlinkat sync sync_file_range syncfs truncate truncate64 unlink unlinkat utime utimensat utimes \
    cachestat";

/// And memory, threads, processes, their signals and clocks: what most programs take.
const COMPUTE: &str = "alarm capget capset fork get_mempolicy io_uring_enter kill landlock_add_rule \
    landlock_create_ruleset landlock_restrict_self map_shadow_stack mbind memfd_create mincore mlock mlock2 mlockall \
    mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedsend mq_unlink msgctl msgget msgrcv msgsnd munlock munlockall \
    pidfd_open pidfd_send_signal pkey_alloc pkey_free pkey_mprotect process_madvise process_mrelease remap_file_pages \
    rt_sigqueueinfo rt_tgsigqueueinfo sched_get_priority_max sched_get_priority_min sched_getattr sched_rr_get_interval \
    sched_setaffinity sched_setattr sched_setparam sched_setscheduler seccomp semctl semget semop semtimedop set_mempolicy setfsgid setfsuid \
    setgid setgid32 setgroups setgroups32 setitimer setpgid setpriority setregid setresgid setresgid32 setresuid setresuid32 \
    setreuid setrlimit setsid setuid setuid32 shmat shmctl shmdt shmget signalfd signalfd4 socketpair tgkill timer_create \
    timer_delete timer_getoverrun timer_gettime timer_settime timerfd_create timerfd_gettime timerfd_settime tkill vfork \
    wait4 waitid waitpid ioprio_get ioprio_set";

/// And sockets.
const SOCKETS: &str = "accept accept4 bind connect getpeername getsockname getsockopt listen recv recvfrom recvmmsg recvmsg \
    send sendmmsg sendmsg sendto setsockopt shutdown";

/// What a pair of sockets takes, which many a runtime makes to talk to itself.
const PAIRS: &str =
    "getpeername getsockname getsockopt recvfrom recvmsg recvmmsg sendmsg sendmmsg sendto setsockopt shutdown";

/// All `CLONE_NEW*` flags of clone(2).
const NEW_NAMESPACES: u64 = 0x7e02_0080;

impl Profile {
    /// All of them, the smallest first.
    pub const ALL: [Profile; 5] =
        [Profile::Minimal, Profile::IoHeavy, Profile::Compute, Profile::Network, Profile::Unrestricted];

    /// Its name on the command line and in policy files.
    pub fn name(self) -> &'static str {
        match self {
            Profile::Minimal => "minimal",
            Profile::IoHeavy => "io-heavy",
            Profile::Compute => "compute",
            Profile::Network => "network",
            Profile::Unrestricted => "unrestricted",
        }
    }

    /// What it is for, in a sentence.
    pub fn purpose(self) -> &'static str {
        match self {
            Profile::Minimal => "start, read, write what is open, exit; no files opened to write, no processes",
            Profile::IoHeavy => "and files: make, write, rename, remove, watch",
            Profile::Compute => "and memory, threads, processes, signals, timers: most programs",
            Profile::Network => "and sockets, but for unix sockets",
            Profile::Unrestricted => "everything; for debugging",
        }
    }

    /// The names of the calls that it allows without conditions, in order.
    pub fn names(self) -> Vec<&'static str> {
        let mut names: Vec<_> = self.calls().collect();
        names.sort_unstable();
        names
    }

    fn calls(self) -> impl Iterator<Item = &'static str> {
        let lists: &[&str] = match self {
            Profile::Minimal => &[MINIMAL],
            Profile::IoHeavy => &[MINIMAL, FILES],
            Profile::Compute => &[MINIMAL, FILES, COMPUTE, PAIRS],
            Profile::Network | Profile::Unrestricted => &[MINIMAL, FILES, COMPUTE, SOCKETS],
        };
        lists.iter().flat_map(|list| list.split_ascii_whitespace())
    }
}

/// The profile that a policy comes to: a network takes sockets.
pub fn effective(policy: &Policy) -> Profile {
    match policy.network.mode {
        NetworkMode::None if !policy.network.allow_local_binding => policy.syscalls.profile,
        _ => policy.syscalls.profile.max(Profile::Network),
    }
}

/// Whether the program may have unix sockets. A filter can't tell one path from another: which of them it may use is a matter
/// of the view, which shows those that the policy names and none in /run and /tmp, but the others where it shows files.
pub fn unix_sockets(network: &Network) -> bool {
    network.allow_all_unix_sockets || !network.allow_unix_sockets.is_empty()
}

/// Compiles the policy's system calls to `linux.seccomp`; `None` is no filter.
pub fn compile(policy: &Policy) -> Option<Seccomp> {
    let wanted = &policy.syscalls;
    if let Some(custom) = &wanted.custom {
        return Some(custom.clone());
    }
    let profile = effective(policy);
    if profile == Profile::Unrestricted && wanted.deny.is_empty() {
        return None;
    }
    let rule = |names: Vec<String>, args: Vec<SeccompArg>| Syscall {
        names,
        action: Some(SeccompAction::Allow),
        errno_ret: None,
        args,
    };
    let on = |index, op, value, value_two| vec![SeccompArg { index, value, value_two, op: Some(op) }];
    let denied = |name: &str| wanted.deny.iter().any(|d| d == name);
    let mut allowed: Vec<String> = profile.calls().map(str::to_owned).chain(wanted.allow.iter().cloned()).collect();
    // Without it nobody is to be listened to. A socket's family can't be seen here, so unix sockets take it along.
    let network = &policy.network;
    let local = network.allow_local_binding || network.mode != NetworkMode::Domains || unix_sockets(network);
    allowed.retain(|name| !denied(name) && (local || name != "listen" || wanted.allow.contains(name)));
    // A pair of datagram sockets is connected, and yet a message of either goes to any path that it names.
    let pairs = has_pairs(profile) && !unix_sockets(network) && !wanted.allow.iter().any(|name| name == "socketpair");
    allowed.retain(|name| !pairs || name != "socketpair");
    let has = |name: &str| allowed.iter().any(|a| a == name);
    let mut syscalls = Vec::new();
    let mut conditional = |name: &str, args| {
        if !has(name) && !denied(name) {
            syscalls.push(rule(vec![name.to_owned()], args));
        }
    };
    if profile == Profile::Minimal {
        // O_WRONLY, O_RDWR, O_CREAT, O_TRUNC, O_APPEND.
        let writes = (libc::O_ACCMODE | libc::O_CREAT | libc::O_TRUNC | libc::O_APPEND) as u64;
        conditional("open", on(1, SeccompOp::MaskedEq, writes, 0));
        conditional("openat", on(2, SeccompOp::MaskedEq, writes, 0));
    }
    if profile >= Profile::Compute {
        // The new namespaces that clone3 makes can't be seen by a filter; C libraries fall back to clone when it is missing.
        conditional("clone", on(0, SeccompOp::MaskedEq, NEW_NAMESPACES, 0));
    }
    if profile == Profile::Unrestricted {
        return Some(Seccomp {
            default_action: Some(SeccompAction::Allow),
            syscalls: vec![Syscall { action: Some(SeccompAction::Errno), ..rule(wanted.deny.clone(), Vec::new()) }],
            ..Seccomp::default()
        });
    }
    if profile == Profile::Network {
        for family in [libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK] {
            conditional("socket", on(0, SeccompOp::Eq, family as u64, 0));
        }
    }
    for kind in [libc::SOCK_STREAM, libc::SOCK_SEQPACKET].iter().filter(|_| pairs) {
        // Without SOCK_NONBLOCK and SOCK_CLOEXEC (kernel: linux/net.h, `SOCK_TYPE_MASK`).
        conditional("socketpair", on(1, SeccompOp::MaskedEq, 0xf, *kind as u64));
    }
    if unix_sockets(&policy.network) {
        conditional("socket", on(0, SeccompOp::Eq, libc::AF_UNIX as u64, 0));
        if profile < Profile::Network {
            allowed.extend(SOCKETS.split_whitespace().map(str::to_owned).filter(|name| !denied(name)));
        }
    }
    if profile >= Profile::Compute && !has_clone3(wanted) {
        syscalls.push(Syscall {
            names: vec!["clone3".into()],
            action: Some(SeccompAction::Errno),
            errno_ret: Some(libc::ENOSYS as u32),
            args: Vec::new(),
        });
    }
    syscalls.insert(0, rule(allowed, Vec::new()));
    Some(Seccomp {
        default_action: Some(SeccompAction::Errno),
        default_errno_ret: Some(libc::EPERM as u32),
        architectures: vec![SeccompArch::Native],
        syscalls,
        ..Seccomp::default()
    })
}

fn has_pairs(profile: Profile) -> bool {
    profile < Profile::Unrestricted && profile.calls().any(|name| name == "socketpair")
}

fn has_clone3(wanted: &super::policy::Syscalls) -> bool {
    wanted.allow.iter().any(|name| name == "clone3")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_profile_holds_the_one_before() {
        for pair in Profile::ALL.windows(2) {
            let (smaller, larger) = (pair[0].names(), pair[1].names());
            assert!(smaller.iter().all(|name| larger.contains(name)), "{:?} is not in {:?}", pair[0], pair[1]);
        }
    }

    #[test]
    fn every_name_is_a_call_and_every_filter_compiles() {
        for profile in Profile::ALL {
            let mut policy = Policy::default();
            policy.syscalls.profile = profile;
            let Some(seccomp) = compile(&policy) else {
                assert_eq!(profile, Profile::Unrestricted);
                continue;
            };
            assert!(profile.names().is_sorted_by(|a, b| a < b), "{profile:?} names a call twice");
            let filter = crate::prim::seccomp::compile(&seccomp).unwrap().unwrap();
            assert_eq!(filter.unknown, Vec::<String>::new(), "{profile:?}");
            assert!(filter.notifying().program.iter().any(|i| i.k == libc::SECCOMP_RET_USER_NOTIF));
        }
    }
}
