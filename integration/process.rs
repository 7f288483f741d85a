//! What the process itself is given: environment, limits, capabilities, scheduling and the like.

use crate::support::{Call, Kind, Test, cases, host, json, suite};
use std::fs;
use std::os::unix::fs::PermissionsExt;

cases![
    arguments_and_environment_are_exact,
    the_program_is_found_in_path,
    home_is_added,
    rlimits,
    rlimits_of_every_kind,
    duplicate_rlimits_are_refused,
    soft_above_hard_is_refused,
    capability_sets,
    ambient_capabilities_survive_another_user,
    no_capabilities_at_all,
    unknown_capabilities_are_dropped,
    no_new_privileges,
    oom_score,
    umask,
    umask_of_the_config,
    personality,
    scheduler_policies,
    scheduler_nice,
    scheduler_deadline,
    scheduler_flags,
    io_priority,
    exec_cpu_affinity,
    memory_policy,
    descriptors_are_three,
    descriptors_of_the_caller_do_not_leak,
    preserved_descriptors,
    listen_fds_are_passed_on,
    standard_input_of_run,
    another_user_may_read_its_own_streams,
    dumpable_and_ptraceable_only_from_inside,
];

fn arguments_and_environment_are_exact(t: &Test) {
    let mut b = t.bundle();
    b.payload(&["args", "env", "", "a b", "\"quoted\"", "ünïcode", "$HOME", "*"]);
    b.set("/process/env", json!(["A=1", "EMPTY=", "WITH=a=b", "SPACE=a b", "PATH=/bin", "A=2"]));
    let out = t.run(&b).ok().json();
    assert_eq!(out["args"], json!(["/bin/payload", "args", "env", "", "a b", "\"quoted\"", "ünïcode", "$HOME", "*"]));
    let env: Vec<&str> = out["env"].as_array().unwrap().iter().filter_map(|e| e.as_str()).collect();
    for wanted in ["EMPTY=", "WITH=a=b", "SPACE=a b", "A=2"] {
        assert!(env.contains(&wanted), "{env:?}");
    }
    assert!(
        !env.iter().any(|e| e.starts_with("BRIG_TEST") || e.starts_with("_")),
        "the caller's environment leaks: {env:?}"
    );
}

fn the_program_is_found_in_path(t: &Test) {
    let mut b = t.bundle();
    fs::create_dir_all(b.rootfs("first/payload")).unwrap();
    fs::create_dir_all(b.rootfs("second")).unwrap();
    fs::write(b.rootfs("second/payload"), "not executable").unwrap();
    b.args(&["payload", "args", "cwd"]).set("/process/env", json!(["PATH=/first:/second:/none:/bin"]));
    assert_eq!(t.run(&b).ok().json()["args"][0], "payload");
    b.args(&["linked", "args"]);
    t.run(&b).ok();
    b.set("/process/cwd", json!("/bin")).args(&["./payload", "cwd"]);
    assert_eq!(t.run(&b).ok().json()["cwd"]["ok"], "/bin");
}

fn home_is_added(t: &Test) {
    let mut b = t.bundle();
    fs::write(b.rootfs("etc/passwd"), "root:x:0:0::/root:/bin/sh\nworker:x:1000:1000::/home/worker:/bin/sh\n").unwrap();
    b.set("/process/user", json!({"uid": 1000, "gid": 1000}));
    let seen = t.see(&mut b, &["env"]);
    assert!(seen["env"].as_array().unwrap().contains(&json!("HOME=/home/worker")), "{seen}");
    b.set("/process/env/-", json!("HOME=/given"));
    let seen = t.see(&mut b, &["env"]);
    assert!(seen["env"].as_array().unwrap().contains(&json!("HOME=/given")), "{seen}");
    assert!(!seen.to_string().contains("/home/worker"), "{seen}");
}

fn rlimits(t: &Test) {
    let mut b = t.bundle();
    b.set(
        "/process/rlimits",
        json!([{"type": "RLIMIT_NOFILE", "soft": 32, "hard": 64}, {"type": "RLIMIT_CORE", "soft": 0, "hard": 0}]),
    );
    let seen = t.see(&mut b, &["limits", "files=100"]);
    assert_eq!(seen["limits"]["RLIMIT_NOFILE"], json!([32, 64]));
    assert_eq!(seen["limits"]["RLIMIT_CORE"], json!([0, 0]));
    assert_eq!(seen["files=100"]["errno"], "EMFILE");
}

fn rlimits_of_every_kind(t: &Test) {
    let names = [
        "AS",
        "CORE",
        "CPU",
        "DATA",
        "FSIZE",
        "LOCKS",
        "MEMLOCK",
        "MSGQUEUE",
        "NICE",
        "NOFILE",
        "NPROC",
        "RSS",
        "RTPRIO",
        "RTTIME",
        "SIGPENDING",
        "STACK",
    ];
    // Below what any machine sets: raising a hard limit needs a capability that not every root has.
    let limit = |name: &str| match name {
        "NICE" | "RTPRIO" | "CORE" => 0,
        "STACK" | "RSS" => 4 << 20,
        "AS" | "DATA" => 1_u64 << 40,
        _ => 4000,
    };
    let list: Vec<_> =
        names.iter().map(|n| json!({"type": format!("RLIMIT_{n}"), "soft": limit(n), "hard": limit(n)})).collect();
    let mut b = t.bundle();
    b.set("/process/rlimits", json!(list));
    let seen = t.see(&mut b, &["limits"]);
    for name in names {
        assert_eq!(seen["limits"][format!("RLIMIT_{name}")], json!([limit(name), limit(name)]), "{name}");
    }
}

fn duplicate_rlimits_are_refused(t: &Test) {
    t.only_brig("they take the last of them, though the spec wants an error");
    let mut b = t.bundle();
    let limit = json!({"type": "RLIMIT_CORE", "soft": 0, "hard": 0});
    b.set("/process/rlimits", json!([limit, limit]));
    t.create_fails(&b, &["/process/rlimits/1", "RLIMIT_CORE"]);
}

fn soft_above_hard_is_refused(t: &Test) {
    let mut b = t.bundle();
    b.set("/process/rlimits", json!([{"type": "RLIMIT_CORE", "soft": 10, "hard": 5}]));
    t.create_fails(&b, &["rlimit"]);
}

fn capability_sets(t: &Test) {
    let mut b = t.bundle();
    b.set(
        "/process/capabilities",
        json!({
            "bounding": ["CAP_CHOWN", "CAP_KILL", "CAP_NET_RAW", "CAP_SYS_CHROOT"],
            "permitted": ["CAP_CHOWN", "CAP_KILL", "CAP_NET_RAW"],
            "effective": ["CAP_CHOWN", "CAP_KILL"],
            "inheritable": ["CAP_KILL", "CAP_NET_RAW"],
            "ambient": ["CAP_KILL"],
        }),
    );
    b.set("/process/user", json!({"uid": 1000, "gid": 1000}));
    let caps = &t.see(&mut b, &["caps", "chown=5:/etc/hostname"])["caps"];
    // What a user other than root keeps over execve is what is ambient.
    assert_eq!(caps["bounding"], json!(["CAP_CHOWN", "CAP_KILL", "CAP_NET_RAW", "CAP_SYS_CHROOT"]));
    assert_eq!(caps["inheritable"], json!(["CAP_KILL", "CAP_NET_RAW"]));
    for set in ["ambient", "permitted", "effective"] {
        assert_eq!(caps[set], json!(["CAP_KILL"]), "{set}");
    }
}

fn ambient_capabilities_survive_another_user(t: &Test) {
    let mut b = t.bundle();
    let all = json!(["CAP_NET_BIND_SERVICE"]);
    b.set(
        "/process/capabilities",
        json!({"bounding": all, "permitted": all, "effective": all, "inheritable": all, "ambient": all}),
    );
    b.set("/process/user", json!({"uid": 1000, "gid": 1000}));
    let seen = t.see(&mut b, &["caps", "listener=127.0.0.1:80"]);
    assert_eq!(seen["caps"]["effective"], all);
    assert_eq!(seen["listener=127.0.0.1:80"]["ok"], true);
    b.unset("/process/capabilities/ambient");
    assert_eq!(t.see(&mut b, &["caps"])["caps"]["effective"], json!([]));
}

fn no_capabilities_at_all(t: &Test) {
    let mut b = t.bundle();
    b.set("/process/capabilities", json!({}));
    let caps = &t.see(&mut b, &["caps"])["caps"];
    for set in ["bounding", "effective", "permitted", "inheritable", "ambient"] {
        assert_eq!(caps[set], json!([]), "{set}");
    }
    b.unset("/process/capabilities");
    assert_eq!(t.see(&mut b, &["caps"])["caps"]["effective"], json!([]), "none are asked for");
}

fn unknown_capabilities_are_dropped(t: &Test) {
    let mut b = t.bundle();
    b.capabilities(&["CAP_KILL", "CAP_OF_TOMORROW"]);
    assert_eq!(t.see(&mut b, &["caps"])["caps"]["effective"], json!(["CAP_KILL"]));
}

fn no_new_privileges(t: &Test) {
    let mut b = t.bundle();
    for wanted in [0, 1] {
        b.set("/process/noNewPrivileges", json!(wanted == 1));
        assert_eq!(t.see(&mut b, &["seccomp"])["seccomp"]["nnp"], wanted);
    }
}

fn oom_score(t: &Test) {
    let mut b = t.bundle();
    b.set("/process/oomScoreAdj", json!(555));
    assert_eq!(t.see(&mut b, &["sched"])["sched"]["oom_score_adj"], 555);
    b.unset("/process/oomScoreAdj");
    let own: i64 = fs::read_to_string("/proc/self/oom_score_adj").unwrap().trim().parse().unwrap();
    assert_eq!(t.see(&mut b, &["sched"])["sched"]["oom_score_adj"], own);
}

fn umask(t: &Test) {
    let mut b = t.bundle();
    b.payload(&["ids"]).write();
    let call = t.call(&["run", "--bundle", b.path(), &t.new_id()]);
    let set = || {
        nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
        Ok(())
    };
    // SAFETY: sets the umask, and does nothing else.
    let seen = unsafe { call.before(set) }.ok().json();
    assert_eq!(seen["ids"]["umask"], "0022", "the caller's umask is no concern of the container's");
}

fn umask_of_the_config(t: &Test) {
    t.differs(Kind::Runc, "1.1 ignores it in config.json");
    let mut b = t.bundle();
    b.set("/process/user/umask", json!(0o027));
    let seen = t.see(&mut b, &["ids", "touch=/file", "stat=/file"]);
    assert_eq!(seen["ids"]["umask"], "0027");
    assert_eq!(seen["stat=/file"]["ok"]["mode"], "100640");
}

fn personality(t: &Test) {
    t.differs(Kind::Runc, "1.1 ignores it");
    let mut b = t.bundle();
    b.set("/linux/personality", json!({"domain": "LINUX32"}));
    assert_eq!(t.see(&mut b, &["sched"])["sched"]["personality"], 8);
    b.set("/linux/personality", json!({"domain": "LINUX"}));
    assert_eq!(t.see(&mut b, &["sched"])["sched"]["personality"], 0);
}

fn scheduler_policies(t: &Test) {
    t.differs(Kind::Runc, "1.1 ignores it");
    t.differs(Kind::Crun, "1.8.1 ignores it");
    for (policy, name, priority) in [
        ("SCHED_BATCH", "BATCH", 0),
        ("SCHED_IDLE", "IDLE", 0),
        ("SCHED_FIFO", "FIFO", 7),
        ("SCHED_RR", "RR", 8),
        ("SCHED_OTHER", "OTHER", 0),
    ] {
        let mut b = t.bundle();
        // A kernel with CONFIG_RT_GROUP_SCHED gives a new cgroup of v1 no time for real-time processes.
        if priority > 0 && fs::exists("/sys/fs/cgroup/cpu/cpu.rt_runtime_us").unwrap() {
            b.set("/linux/resources/cpu", json!({"realtimePeriod": 1_000_000, "realtimeRuntime": 10_000}));
        }
        b.set("/process/scheduler", json!({"policy": policy, "priority": priority})).capabilities(&["CAP_SYS_NICE"]);
        if priority > 0 && host::cgroup_dir(std::process::id().cast_signed(), "cpu").is_some_and(|d| d.join("cpu.rt_runtime_us").exists()) {
            // With real-time group scheduling, a v1 cgroup has no real-time share of its own accord.
            b.set("/linux/resources/cpu", json!({"realtimeRuntime": 10_000, "realtimePeriod": 1_000_000}));
        }
        let seen = t.see(&mut b, &["sched"]);
        assert_eq!(
            (&seen["sched"]["policy"], &seen["sched"]["priority"]),
            (&json!(name), &json!(priority)),
            "{policy}"
        );
    }
    let mut b = t.bundle();
    b.set("/process/scheduler", json!({"policy": "SCHED_FIFO", "priority": 1000}));
    t.create_fails(&b, &["/process/scheduler"]);
    b.set("/process/scheduler", json!({"policy": "SCHED_NONE"}));
    t.create_fails(&b, &["/process/scheduler/policy", "SCHED_NONE"]);
}

fn scheduler_nice(t: &Test) {
    t.differs(Kind::Runc, "1.1 ignores it");
    t.differs(Kind::Crun, "1.8.1 ignores it");
    for nice in [5, -5] {
        let mut b = t.bundle();
        b.set("/process/scheduler", json!({"policy": "SCHED_OTHER", "nice": nice}));
        let seen = t.see(&mut b, &["sched"]);
        assert_eq!((&seen["sched"]["policy"], &seen["sched"]["nice"]), (&json!("OTHER"), &json!(nice)));
    }
}

fn scheduler_deadline(t: &Test) {
    t.differs(Kind::Runc, "1.1 ignores it");
    t.differs(Kind::Crun, "1.8.1 ignores it");
    let mut b = t.bundle();
    b.set(
        "/process/scheduler",
        json!({"policy": "SCHED_DEADLINE", "runtime": 1_000_000, "deadline": 10_000_000, "period": 20_000_000}),
    );
    let seen = t.see(&mut b, &["sched"]);
    assert_eq!(seen["sched"]["policy"], "DEADLINE");
    assert_eq!((&seen["sched"]["runtime"], &seen["sched"]["period"]), (&json!(1_000_000), &json!(20_000_000)));
}

fn scheduler_flags(t: &Test) {
    t.differs(Kind::Runc, "1.1 ignores it");
    t.differs(Kind::Crun, "1.8.1 ignores it");
    let mut b = t.bundle();
    b.set("/process/scheduler", json!({"policy": "SCHED_BATCH", "nice": 3, "flags": ["SCHED_FLAG_RESET_ON_FORK"]}));
    let seen = t.see(&mut b, &["sched"]);
    assert_eq!((&seen["sched"]["policy"], &seen["sched"]["flags"]), (&json!("BATCH"), &json!(1)));
}

fn io_priority(t: &Test) {
    t.differs(Kind::Runc, "1.1 ignores it");
    t.differs(Kind::Crun, "1.8.1 ignores it");
    for (class, number, priority) in [("IOPRIO_CLASS_BE", 2, 6), ("IOPRIO_CLASS_IDLE", 3, 0), ("IOPRIO_CLASS_RT", 1, 3)]
    {
        let mut b = t.bundle();
        b.set("/process/ioPriority", json!({"class": class, "priority": priority}));
        let seen = t.see(&mut b, &["sched"]);
        assert_eq!(seen["sched"]["ioprio"], json!({"class": number, "level": priority}), "{class}");
    }
    let mut b = t.bundle();
    b.set("/process/ioPriority", json!({"class": "IOPRIO_CLASS_BE", "priority": 9}));
    t.create_fails(&b, &["/process/ioPriority/priority"]);
}

/// Affinity is for processes that exec starts.
fn exec_cpu_affinity(t: &Test) {
    t.differs(Kind::Runc, "1.1 ignores it");
    t.differs(Kind::Crun, "1.8.1 ignores it");
    let mut b = t.bundle();
    b.payload(&["sched", "sleep"]).set("/process/execCPUAffinity", json!({"initial": "0", "final": "0"}));
    let c = t.create(&b);
    c.start();
    let init = c.line();
    if init["sched"]["cpus"] == "0" {
        suite::skip("there is one CPU");
    }
    assert_eq!(c.see(&[], &["sched"])["sched"]["cpus"], "0");
    let process = json!({"args": ["/bin/payload", "sched"], "cwd": "/", "execCPUAffinity": {"final": "1"}});
    fs::write(t.dir().join("p.json"), process.to_string()).unwrap();
    let seen = t.call(&["exec", "--process", "p.json", &c.id]).ok().json();
    assert_eq!(seen["sched"]["cpus"], "1");
    b.set("/process/execCPUAffinity", json!({"initial": "a-b"}));
    t.create_fails(&b, &["/process/execCPUAffinity/initial"]);
}

fn memory_policy(t: &Test) {
    t.only_brig("it is of runtime-spec 1.3");
    for (mode, number, nodes) in
        [("MPOL_INTERLEAVE", 3, "0"), ("MPOL_BIND", 2, "0"), ("MPOL_PREFERRED", 1, "0"), ("MPOL_DEFAULT", 0, "")]
    {
        let mut b = t.bundle();
        b.set("/linux/memoryPolicy", json!({"mode": mode, "nodes": nodes}));
        if t.see(&mut t.bundle(), &["syscall=get_mempolicy:0:0:0:0:0"])["syscall=get_mempolicy:0:0:0:0:0"]["errno"]
            == "ENOSYS"
        {
            suite::skip("the kernel has no memory policies");
        }
        let seen = t.see(&mut b, &["sched"]);
        assert_eq!(seen["sched"]["mempolicy"]["mode"], number, "{mode}");
        assert_eq!(seen["sched"]["mempolicy"]["nodes"], u64::from(!nodes.is_empty()), "{mode}");
    }
    let mut b = t.bundle();
    b.set("/linux/memoryPolicy", json!({"mode": "MPOL_NONE"}));
    t.create_fails(&b, &["/linux/memoryPolicy/mode", "MPOL_NONE"]);
}

fn descriptors_are_three(t: &Test) {
    let seen = t.see(&mut t.bundle(), &["fds"]);
    assert_eq!(seen["fds"].as_object().unwrap().keys().collect::<Vec<_>>(), ["0", "1", "2"], "{seen}");
    let c = t.create(t.bundle().payload(&["fds"]));
    c.start();
    assert_eq!(c.line()["fds"].as_object().unwrap().len(), 3);
}

/// CVE-2024-21626: a descriptor of the host's was the way out.
fn descriptors_of_the_caller_do_not_leak(t: &Test) {
    let mut b = t.bundle();
    b.payload(&["fds"]).write();
    let fds: Vec<_> = [3, 7, 50].into_iter().map(|n| (fs::File::open("/").unwrap().into(), n)).collect();
    let seen = t.call(&["run", "--bundle", b.path(), &t.new_id()]).pass(fds).ok().json();
    assert_eq!(seen["fds"].as_object().unwrap().len(), 3, "{seen}");
}

fn preserved_descriptors(t: &Test) {
    let mut b = t.bundle();
    fs::write(t.dir().join("one"), "first").unwrap();
    fs::write(t.dir().join("two"), "second").unwrap();
    let open = |name| fs::File::open(t.dir().join(name)).unwrap().into();
    b.payload(&["fds", "readfd=3", "readfd=4"]).write();
    let fds = vec![(open("one"), 3), (open("two"), 4), (fs::File::open("/").unwrap().into(), 5)];
    let seen = t.call(&["run", "--preserve-fds", "2", "--bundle", b.path(), &t.new_id()]).pass(fds).ok().json();
    assert_eq!((&seen["readfd=3"]["ok"], &seen["readfd=4"]["ok"]), (&json!("first"), &json!("second")));
    assert_eq!(seen["fds"].as_object().unwrap().keys().collect::<Vec<_>>(), ["0", "1", "2", "3", "4"], "{seen}");
}

fn listen_fds_are_passed_on(t: &Test) {
    t.differs(Kind::Crun, "it passes on LISTEN_PID alone");
    let mut b = t.bundle();
    fs::write(t.dir().join("socket"), "a socket").unwrap();
    b.payload(&["env", "fds", "readfd=3", "readfd=4"]).write();
    let open = || fs::File::open(t.dir().join("socket")).unwrap().into();
    // As systemd does it, which knows the pid of what it starts.
    let shell = ["/bin/sh", "-c", r#"LISTEN_PID=$$ exec "$0" "$@""#];
    let call = Call::through(t, &shell, &[], &["run", "--preserve-fds", "1", "--bundle", b.path(), &t.new_id()]);
    let seen =
        call.env("LISTEN_FDS", "1").pass(vec![(open(), 3), (open(), 4)]).ok().json();
    let env = seen["env"].as_array().unwrap();
    assert!(env.contains(&json!("LISTEN_FDS=1")) && env.contains(&json!("LISTEN_PID=1")), "{env:?}");
    assert_eq!((&seen["readfd=3"]["ok"], &seen["readfd=4"]["ok"]), (&json!("a socket"), &json!("a socket")));
}

fn standard_input_of_run(t: &Test) {
    let mut b = t.bundle();
    fs::write(t.dir().join("in"), "typed").unwrap();
    b.payload(&["stdin"]).write();
    let seen = t
        .call(&["run", "--bundle", b.path(), &t.new_id()])
        .stdin(fs::File::open(t.dir().join("in")).unwrap())
        .ok()
        .json();
    assert_eq!(seen["stdin"]["ok"], "typed");
}

/// A process that may not open its own /dev/stderr can't log; the streams have to belong to it.
fn another_user_may_read_its_own_streams(t: &Test) {
    let mut b = t.bundle();
    b.set("/process/user", json!({"uid": 1000, "gid": 1000}))
        .payload(&["stat=/proc/self/fd/0", "write=/dev/stderr:words"])
        .write();
    let (read, write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap();
    let out = t.call(&["run", "--bundle", b.path(), &t.new_id()]).stdin(read).out().ok();
    drop(write);
    let _ = out;
}

fn dumpable_and_ptraceable_only_from_inside(t: &Test) {
    let c = t.create(t.bundle().payload(&["sleep"]));
    // Before the start init is the runtime itself, which nobody but the host's root may look into.
    let meta = fs::metadata(format!("/proc/{}/exe", c.pid));
    assert!(meta.is_ok());
    let mode = fs::symlink_metadata(format!("/proc/{}/environ", c.pid)).unwrap().permissions().mode();
    assert_eq!(mode & 0o077, 0);
}
