//! Seccomp filters: every action and operator, flags, and the agent that answers notifications.

use crate::support::{Bundle, Kind, Test, Value, cases, json, pty, suite};
use std::os::unix::net::UnixListener;

cases![
    a_filter_is_there,
    errno_and_its_default,
    default_errno,
    actions_that_kill,
    trap_and_trace_and_log,
    operators,
    conditions_on_several_arguments,
    conditions_on_one_argument_are_alternatives,
    an_allow_list,
    unknown_system_calls_are_skipped,
    calls_newer_than_the_filter_are_enosys,
    other_architectures,
    flags,
    for_a_user_without_capabilities,
    without_no_new_privileges,
    wrong_words_are_refused,
    notify_with_an_agent,
    notify_without_an_agent_is_refused,
    notify_with_nobody_listening,
];

fn rule(names: &[&str], action: &str) -> Value {
    json!({"names": names, "action": action})
}

/// Everything is allowed but for these rules.
fn filter(b: &mut Bundle, rules: Value) -> &mut Bundle {
    b.set("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules}))
}

fn a_filter_is_there(t: &Test) {
    let around = t.filters_around();
    let mut b = t.bundle();
    assert_eq!(t.see(&mut b, &["seccomp"])["seccomp"]["mode"], if around > 0 { 2 } else { 0 });
    filter(&mut b, json!([rule(&["getcwd"], "SCMP_ACT_ERRNO")]));
    let seen = t.see(&mut b, &["seccomp"]);
    assert_eq!((&seen["seccomp"]["mode"], &seen["seccomp"]["filters"]), (&json!(2), &json!(around + 1)));
}

fn errno_and_its_default(t: &Test) {
    let mut b = t.bundle();
    let mut with = rule(&["getpgid"], "SCMP_ACT_ERRNO");
    with["errnoRet"] = json!(33);
    filter(&mut b, json!([rule(&["getcwd", "getsid"], "SCMP_ACT_ERRNO"), with]));
    let seen = t.see(&mut b, &["syscall=getcwd", "syscall=getsid", "syscall=getpgid", "syscall=getpid"]);
    assert_eq!(seen["syscall=getcwd"]["errno"], "EPERM");
    assert_eq!(seen["syscall=getsid"]["errno"], "EPERM");
    assert_eq!(seen["syscall=getpgid"]["errno"], "EDOM");
    assert_eq!(seen["syscall=getpid"]["ok"], 1);
}

fn default_errno(t: &Test) {
    let mut b = t.bundle();
    allow_list(&mut b);
    b.set("/linux/seccomp/defaultErrnoRet", json!(33));
    assert_eq!(t.see(&mut b, &["syscall=getsid"])["syscall=getsid"]["errno"], "EDOM");
}

fn actions_that_kill(t: &Test) {
    for action in ["SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_KILL_THREAD"] {
        let mut b = t.bundle();
        filter(&mut b, json!([rule(&["getsid"], action)]));
        t.run(b.payload(&["syscall=getsid"])).code(159);
    }
}

fn trap_and_trace_and_log(t: &Test) {
    let mut b = t.bundle();
    filter(&mut b, json!([rule(&["getsid"], "SCMP_ACT_TRAP")]));
    t.run(b.payload(&["syscall=getsid"])).code(159);
    filter(&mut b, json!([rule(&["getsid"], "SCMP_ACT_TRACE"), rule(&["getpgid"], "SCMP_ACT_LOG")]));
    let seen = t.see(&mut b, &["syscall=getsid", "syscall=getpgid"]);
    assert_eq!(seen["syscall=getsid"]["errno"], "ENOSYS", "there is no tracer");
    assert_eq!(seen["syscall=getpgid"]["ok"], 1);
}

/// lseek of a descriptor that is not open: the offset is the argument that the filter looks at.
fn seek(offset: u64) -> String {
    format!("syscall=lseek:99:{}:0", offset.cast_signed())
}

fn operators(t: &Test) {
    let big = 0x1_0000_0005_u64;
    type Row<'a> = (&'a str, u64, u64, &'a [u64], &'a [u64]);
    let table: [Row; 8] = [
        ("SCMP_CMP_EQ", 5, 0, &[5], &[4, 6, big]),
        ("SCMP_CMP_NE", 5, 0, &[4, 6, big], &[5]),
        ("SCMP_CMP_LT", 5, 0, &[0, 4], &[5, 6, big]),
        ("SCMP_CMP_LE", 5, 0, &[4, 5], &[6, big]),
        ("SCMP_CMP_GE", big, 0, &[big, big + 1, 0x2_0000_0000], &[5, 0xffff_ffff, big - 1]),
        ("SCMP_CMP_GT", big, 0, &[big + 1, 0x2_0000_0000], &[big, 6]),
        ("SCMP_CMP_MASKED_EQ", 0xf0, 0x50, &[0x50, 0x5f, 0x1_0000_0051], &[0x40, 0x60, 5]),
        ("SCMP_CMP_MASKED_EQ", 0xf_0000_0000, 0x1_0000_0000, &[big], &[5, 0x2_0000_0000]),
    ];
    for (op, value, two, hits, misses) in table {
        let mut b = t.bundle();
        let mut seeks = rule(&["lseek"], "SCMP_ACT_ERRNO");
        seeks["errnoRet"] = json!(33);
        seeks["args"] = json!([{"index": 1, "value": value, "valueTwo": two, "op": op}]);
        filter(&mut b, json!([seeks]));
        let verbs: Vec<String> = hits.iter().chain(misses).map(|n| seek(*n)).collect();
        let verbs: Vec<&str> = verbs.iter().map(String::as_str).collect();
        let seen = t.see(&mut b, &verbs);
        for n in hits {
            assert_eq!(seen[seek(*n)]["errno"], "EDOM", "{op} {value:#x} {two:#x} with {n:#x}");
        }
        for n in misses {
            assert_eq!(seen[seek(*n)]["errno"], "EBADF", "{op} {value:#x} {two:#x} with {n:#x}");
        }
    }
}

fn conditions_on_several_arguments(t: &Test) {
    let mut b = t.bundle();
    let mut both = rule(&["lseek"], "SCMP_ACT_ERRNO");
    both["errnoRet"] = json!(33);
    both["args"] =
        json!([{"index": 1, "value": 7, "op": "SCMP_CMP_EQ"}, {"index": 2, "value": 1, "op": "SCMP_CMP_EQ"}]);
    filter(&mut b, json!([both]));
    let seen = t.see(&mut b, &["syscall=lseek:99:7:1", "syscall=lseek:99:7:0", "syscall=lseek:99:8:1"]);
    assert_eq!(seen["syscall=lseek:99:7:1"]["errno"], "EDOM");
    assert_eq!(seen["syscall=lseek:99:7:0"]["errno"], "EBADF");
    assert_eq!(seen["syscall=lseek:99:8:1"]["errno"], "EBADF");
}

/// libseccomp cannot say "and" of one argument twice, so runc and crun read a list of conditions on it as alternatives.
fn conditions_on_one_argument_are_alternatives(t: &Test) {
    let mut b = t.bundle();
    let mut either = rule(&["lseek"], "SCMP_ACT_ERRNO");
    either["errnoRet"] = json!(33);
    either["args"] =
        json!([{"index": 1, "value": 7, "op": "SCMP_CMP_EQ"}, {"index": 1, "value": 9, "op": "SCMP_CMP_EQ"}]);
    filter(&mut b, json!([either]));
    let seen = t.see(&mut b, &["syscall=lseek:99:7:0", "syscall=lseek:99:9:0", "syscall=lseek:99:8:0"]);
    assert_eq!(seen["syscall=lseek:99:7:0"]["errno"], "EDOM");
    assert_eq!(seen["syscall=lseek:99:9:0"]["errno"], "EDOM");
    assert_eq!(seen["syscall=lseek:99:8:0"]["errno"], "EBADF");
}

/// What the payload and the runtime's last steps need; all else is refused.
fn allow_list(b: &mut Bundle) {
    let names = [
        "access",
        "arch_prctl",
        "brk",
        "capget",
        "capset",
        "chdir",
        "clock_gettime",
        "close",
        "close_range",
        "dup",
        "dup2",
        "dup3",
        "epoll_create1",
        "epoll_ctl",
        "epoll_pwait",
        "execve",
        "exit",
        "exit_group",
        "fchdir",
        "fchown",
        "fcntl",
        "fstat",
        "fstatfs",
        "futex",
        "getcwd",
        "getdents64",
        "getgid",
        "getpid",
        "getppid",
        "getrandom",
        "gettid",
        "getuid",
        "ioctl",
        "lseek",
        "lstat",
        "madvise",
        "mmap",
        "mprotect",
        "munmap",
        "nanosleep",
        "newfstatat",
        "openat",
        "openat2",
        "poll",
        "ppoll",
        "prctl",
        "prlimit64",
        "read",
        "readlink",
        "readlinkat",
        "recvfrom",
        "recvmsg",
        "rseq",
        "rt_sigaction",
        "rt_sigprocmask",
        "rt_sigreturn",
        "sched_getaffinity",
        "sched_yield",
        "sendmsg",
        "sendto",
        "set_robust_list",
        "set_tid_address",
        "setgid",
        "setgroups",
        "setresgid",
        "setresuid",
        "setuid",
        "sigaltstack",
        "stat",
        "statx",
        "tgkill",
        "umask",
        "uname",
        "write",
        "writev",
        "keyctl",
        "setsid",
        "getsockopt",
        "clone",
        "clone3",
        "pread64",
        "faccessat2",
        "sched_setattr",
        "execveat",
        "socket",
        "connect",
        "unlinkat",
    ];
    b.set("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [rule(&names, "SCMP_ACT_ALLOW")]}));
}

fn an_allow_list(t: &Test) {
    let mut b = t.bundle();
    allow_list(&mut b);
    let seen = t.see(&mut b, &["syscall=getsid", "syscall=getpid", "mkdir=/x"]);
    assert_eq!(seen["syscall=getsid"]["errno"], "EPERM");
    assert_eq!(seen["syscall=getpid"]["ok"], 1);
    assert_eq!(seen["mkdir=/x"]["errno"], "EPERM");
}

fn unknown_system_calls_are_skipped(t: &Test) {
    let mut b = t.bundle();
    filter(&mut b, json!([rule(&["no_such_call", "getsid", "another_one"], "SCMP_ACT_ERRNO")]));
    assert_eq!(t.see(&mut b, &["syscall=getsid"])["syscall=getsid"]["errno"], "EPERM");
}

/// glibc falls back to older calls on ENOSYS, but not on EPERM.
fn calls_newer_than_the_filter_are_enosys(t: &Test) {
    t.differs(Kind::Crun, "it answers every call that is not listed with the default action");
    let mut b = t.bundle();
    allow_list(&mut b);
    let own = json!([format!("SCMP_ARCH_{}", std::env::consts::ARCH.to_uppercase())]);
    b.set("/linux/seccomp/architectures", own);
    let seen = t.see(&mut b, &["syscall=9999", "syscall=getsid"]);
    assert_eq!(seen["syscall=9999"]["errno"], "ENOSYS");
    assert_eq!(seen["syscall=getsid"]["errno"], "EPERM");
}

fn other_architectures(t: &Test) {
    let mut b = t.bundle();
    filter(&mut b, json!([rule(&["getsid"], "SCMP_ACT_ERRNO")]));
    b.set(
        "/linux/seccomp/architectures",
        json!([
            "SCMP_ARCH_X86_64",
            "SCMP_ARCH_X86",
            "SCMP_ARCH_X32",
            "SCMP_ARCH_AARCH64",
            "SCMP_ARCH_ARM",
            "SCMP_ARCH_PPC64LE"
        ]),
    );
    let seen = t.see(&mut b, &["syscall=getsid", "syscall=getpid"]);
    assert_eq!(seen["syscall=getsid"]["errno"], "EPERM");
    assert_eq!(seen["syscall=getpid"]["ok"], 1);
}

fn flags(t: &Test) {
    t.differs(Kind::Runc, "1.1 knows no flags");
    for flag in ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW", "SECCOMP_FILTER_FLAG_TSYNC"] {
        let mut b = t.bundle();
        filter(&mut b, json!([rule(&["getsid"], "SCMP_ACT_ERRNO")]));
        b.set("/linux/seccomp/flags", json!([flag]));
        assert_eq!(t.see(&mut b, &["syscall=getsid"])["syscall=getsid"]["errno"], "EPERM", "{flag}");
    }
}

fn for_a_user_without_capabilities(t: &Test) {
    for nnp in [true, false] {
        let mut b = t.bundle();
        filter(&mut b, json!([rule(&["getsid"], "SCMP_ACT_ERRNO")]));
        b.set("/process/user", json!({"uid": 1000, "gid": 1000})).set("/process/capabilities", json!({}));
        b.set("/process/noNewPrivileges", json!(nnp));
        let seen = t.see(&mut b, &["syscall=getsid", "seccomp", "caps"]);
        assert_eq!(seen["syscall=getsid"]["errno"], "EPERM");
        assert_eq!(seen["seccomp"]["nnp"], i32::from(nnp));
        assert_eq!(seen["caps"]["effective"], json!([]));
    }
}

/// The filter is loaded with CAP_SYS_ADMIN then, before that is dropped; the calls between may not be hindered by it.
fn without_no_new_privileges(t: &Test) {
    let mut b = t.bundle();
    filter(&mut b, json!([rule(&["getsid", "setgroups", "capset", "setuid", "setresuid", "prctl"], "SCMP_ACT_ERRNO")]));
    b.set("/process/noNewPrivileges", json!(true));
    assert_eq!(t.see(&mut b, &["syscall=getsid"])["syscall=getsid"]["errno"], "EPERM");
}

fn wrong_words_are_refused(t: &Test) {
    let table = [
        ("/linux/seccomp/defaultAction", json!("SCMP_ACT_NONE")),
        ("/linux/seccomp/syscalls/0/action", json!("SCMP_ACT_NONE")),
        ("/linux/seccomp/architectures", json!(["SCMP_ARCH_NONE"])),
        ("/linux/seccomp/syscalls/0/args", json!([{"index": 0, "value": 1, "op": "SCMP_CMP_NONE"}])),
        ("/linux/seccomp/syscalls/0/args", json!([{"index": 6, "value": 1, "op": "SCMP_CMP_EQ"}])),
        ("/linux/seccomp/flags", json!(["SECCOMP_FILTER_FLAG_NONE"])),
    ];
    for (pointer, value) in table {
        // 1.8.1 overlooks the others.
        if t.kind() == Kind::Crun && pointer != "/linux/seccomp/defaultAction" {
            continue;
        }
        let mut b = t.bundle();
        filter(&mut b, json!([rule(&["getsid"], "SCMP_ACT_ERRNO")]));
        b.set(pointer, value);
        t.create_fails(&b, &[pointer]);
    }
}

fn notify(b: &mut Bundle, socket: &str) {
    filter(b, json!([rule(&["getsid"], "SCMP_ACT_NOTIFY")]));
    b.set("/linux/seccomp/listenerPath", json!(socket)).set("/linux/seccomp/listenerMetadata", json!("for the agent"));
}

fn notify_with_an_agent(t: &Test) {
    let path = t.dir().join("agent");
    let listener = UnixListener::bind(&path).unwrap();
    let mut b = t.bundle();
    notify(&mut b, &path.display().to_string());
    b.set("/annotations", json!({"k": "v"})).payload(&["syscall=getsid", "syscall=getsid:1", "sleep"]);
    if t.is_taken("pidfd") {
        t.create_fails(&b, &["/linux/seccomp", "pidfd_getfd", "Linux 5.6", "filter around brig"]);
        return;
    }
    let agent = std::thread::spawn(move || {
        let (text, fds) = pty::receive(&pty::accept(&listener));
        let state: Value = serde_json::from_str(&text).expect("the container process state");
        for answer in [-libc::EXDEV, -libc::EDOM] {
            pty::answer_notification(&fds[0], answer);
        }
        (state, fds.len())
    });
    let c = t.create(&b);
    c.start();
    let seen = c.line();
    assert_eq!(seen["syscall=getsid"]["errno"], "EXDEV");
    assert_eq!(seen["syscall=getsid:1"]["errno"], "EDOM");
    let (state, fds) = agent.join().unwrap();
    assert_eq!(fds, 1);
    assert_eq!(state["fds"], json!(["seccompFd"]));
    assert_eq!(state["metadata"], "for the agent");
    assert_eq!(state["pid"], c.pid);
    assert_eq!((&state["state"]["id"], &state["state"]["bundle"]), (&json!(c.id), &json!(b.path())));
    assert_eq!(state["state"]["annotations"]["k"], "v");
}

fn notify_without_an_agent_is_refused(t: &Test) {
    t.differs(Kind::Crun, "1.8.1 runs the container, whose call then waits for nobody");
    let mut b = t.bundle();
    notify(&mut b, "/x");
    b.unset("/linux/seccomp/listenerPath");
    t.create_fails(&b, &["listenerPath"]);
}

fn notify_with_nobody_listening(t: &Test) {
    let mut b = t.bundle();
    notify(&mut b, &t.dir().join("nobody").display().to_string());
    b.payload(&["exit=0"]);
    let out = t.run(&b);
    assert_ne!(out.code, 0);
    if t.kind() == Kind::Brig {
        assert!(out.stderr.contains("nobody"), "{}", out.stderr);
    }
    let _ = suite::scratch();
}
