//! `exec`: more processes in a container that runs.

use crate::support::{Bundle, Container, Kind, Test, Value, cases, json, os};
use std::fs;
use std::io::Write;

cases![
    joins_every_namespace,
    joins_a_user_namespace,
    joins_the_cgroups,
    passes_on_the_exit_status,
    a_signal_is_128_and_its_number,
    standard_streams_are_the_callers,
    env_is_the_containers_and_more,
    cwd,
    user_and_groups,
    capabilities_are_the_containers,
    capabilities_can_be_added,
    no_new_privileges,
    seccomp_applies,
    arguments_are_not_flags,
    process_file,
    process_file_with_limits_and_ids,
    detached_with_a_pid_file,
    no_descriptor_leaks,
    preserves_descriptors,
    a_created_container_takes_it,
    a_stopped_container_does_not,
    an_unknown_container_does_not,
    a_program_that_cannot_run,
    bad_flags,
    several_at_once,
    ends_with_the_container,
];

/// A container that sleeps.
pub fn sleeper<'t>(t: &'t Test, change: impl FnOnce(&mut Bundle)) -> Container<'t> {
    let mut b = t.bundle();
    b.payload(&["ns", "sleep"]);
    change(&mut b);
    let c = t.create(&b);
    c.start();
    c
}

fn joins_every_namespace(t: &Test) {
    let c = sleeper(t, |b| {
        b.namespace("cgroup", None);
    });
    let init = c.line();
    let seen = c.see(&[], &["ns", "pid", "uts", "ps"]);
    assert_eq!(seen["ns"], init["ns"]);
    assert_ne!(seen["pid"]["pid"], 1);
    assert_eq!(seen["uts"]["hostname"], "inside");
    assert!(seen["ps"].as_object().unwrap().len() >= 2);
}

fn joins_a_user_namespace(t: &Test) {
    let c = sleeper(t, |b| {
        b.user_namespace(100_000, 65536);
    });
    let init = c.line();
    let seen = c.see(&[], &["ns", "ids", "maps", "caps"]);
    assert_eq!(seen["ns"], init["ns"]);
    assert_eq!(seen["ids"]["uid"], json!([0, 0, 0, 0]));
    assert_eq!(seen["maps"]["uid"], json!([[0, 100_000, 65536]]));
    assert_eq!(seen["caps"]["effective"], json!(["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]));
}

fn joins_the_cgroups(t: &Test) {
    let c = sleeper(t, |_| ());
    c.line();
    let seen = c.see(&[], &["cgroup"]);
    let init = fs::read_to_string(format!("/proc/{}/cgroup", c.pid)).unwrap();
    assert_eq!(seen["cgroup"], json!(init.lines().collect::<Vec<_>>()));
}

fn passes_on_the_exit_status(t: &Test) {
    let c = sleeper(t, |_| ());
    for code in [0, 1, 42, 255] {
        c.exec(&[], &["/bin/payload", &format!("exit={code}")]).code(code);
    }
    assert_eq!(c.status(), "running");
}

fn a_signal_is_128_and_its_number(t: &Test) {
    t.only_brig("they write the pid file when the process has begun already");
    let c = sleeper(t, |_| ());
    let (read, write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap();
    let pid_file = t.dir().join("exec.pid");
    let running =
        c.exec_call(&["--pid-file", &pid_file.display().to_string()], &["/bin/payload", "sleep"]).stdout(write).spawn();
    crate::support::container::Lines::new(read).next();
    os::kill(fs::read_to_string(&pid_file).unwrap().parse().unwrap(), libc::SIGKILL);
    running.wait().code(137);
}

fn standard_streams_are_the_callers(t: &Test) {
    let c = sleeper(t, |_| ());
    let (read, write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap();
    fs::File::from(write).write_all(b"over stdin").unwrap();
    let out = c.exec_call(&[], &["/bin/payload", "stdin", "err=oh", "tty"]).stdin(read).ok();
    assert_eq!(out.json()["stdin"]["ok"], "over stdin");
    assert_eq!(out.json()["tty"]["0"], Value::Null);
    assert_eq!(out.stderr, "oh\n");
}

fn env_is_the_containers_and_more(t: &Test) {
    t.differs(Kind::Crun, "without --process, exec begins with an empty environment there");
    let c = sleeper(t, |b| {
        b.set("/process/env/-", json!("A=one")).set("/process/env/-", json!("HOME=/home"));
    });
    let seen =
        c.exec_call(&["--env", "B=two", "--env", "C=a=b c"], &["/bin/payload", "env"]).env("LEAK", "no").ok().json();
    let env: Vec<&str> = seen["env"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    for wanted in ["A=one", "B=two", "C=a=b c", "HOME=/home"] {
        assert!(env.contains(&wanted), "no {wanted} in {env:?}");
    }
    assert!(!env.iter().any(|e| e.starts_with("LEAK=")), "{env:?}");
}

fn cwd(t: &Test) {
    t.differs(Kind::Crun, "without --process, exec begins in / there");
    let c = sleeper(t, |b| {
        b.set("/process/cwd", json!("/home"));
    });
    assert_eq!(c.see(&[], &["cwd"])["cwd"]["ok"], "/home");
    assert_eq!(c.see(&["--cwd", "/tmp"], &["cwd"])["cwd"]["ok"], "/tmp");
}

/// CVE-2026-30892 was `-u 1` becoming user 0.
fn user_and_groups(t: &Test) {
    let c = sleeper(t, |_| ());
    let table = [("1", 1, 0), ("1:2", 1, 2), ("0:7", 0, 7), ("1000:1000", 1000, 1000), ("65534", 65534, 0)];
    for (user, uid, gid) in table {
        if t.kind() == Kind::Crun && !user.contains(':') {
            continue;
        }
        let seen = c.see(&["--user", user], &["ids"]);
        assert_eq!(seen["ids"]["uid"], json!([uid, uid, uid, uid]), "{user}");
        assert_eq!(seen["ids"]["gid"], json!([gid, gid, gid, gid]), "{user}");
    }
    for user in ["root", ":2", "1:", "-1", "4294967296", "1:2:3"] {
        if t.kind() == Kind::Brig {
            c.exec(&[&format!("--user={user}")], &["/bin/payload"]).fails(&["user"]);
        }
    }
    if t.kind() != Kind::Crun {
        let seen = c.see(&["-u", "1:2", "--additional-gids", "5", "--additional-gids", "6"], &["ids"]);
        assert_eq!(seen["ids"]["groups"], json!([5, 6]));
    }
}

fn capabilities_are_the_containers(t: &Test) {
    let c = sleeper(t, |_| ());
    let caps = &c.see(&[], &["caps"])["caps"];
    let wanted = json!(["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]);
    assert_eq!((&caps["bounding"], &caps["effective"], &caps["permitted"]), (&wanted, &wanted, &wanted));
    assert_eq!((&caps["inheritable"], &caps["ambient"]), (&json!([]), &json!([])));
}

/// CVE-2022-29162: capabilities that are asked for may not become inheritable.
fn capabilities_can_be_added(t: &Test) {
    let c = sleeper(t, |_| ());
    let caps = &c.see(&["--cap", "CAP_CHOWN", "--cap", "CAP_SYS_CHROOT"], &["caps"])["caps"];
    for set in ["bounding", "effective", "permitted"] {
        for name in ["CAP_CHOWN", "CAP_SYS_CHROOT"] {
            assert!(caps[set].as_array().unwrap().contains(&json!(name)), "no {name} in {set}: {caps}");
        }
    }
    if t.kind() != Kind::Crun {
        assert_eq!(caps["inheritable"], json!([]));
    }
}

fn no_new_privileges(t: &Test) {
    let c = sleeper(t, |b| {
        b.set("/process/noNewPrivileges", json!(false));
    });
    assert_eq!(c.see(&[], &["seccomp"])["seccomp"]["nnp"], 0);
    assert_eq!(c.see(&["--no-new-privs"], &["seccomp"])["seccomp"]["nnp"], 1);
}

fn seccomp_applies(t: &Test) {
    let c = sleeper(t, |b| {
        b.set(
            "/linux/seccomp",
            json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls":
            [{"names": ["getcwd"], "action": "SCMP_ACT_ERRNO", "errnoRet": 33}]}),
        );
    });
    let seen = c.see(&[], &["seccomp", "syscall=getcwd"]);
    assert_eq!(seen["seccomp"]["mode"], 2);
    assert_eq!(seen["syscall=getcwd"]["errno"], "EDOM");
}

fn arguments_are_not_flags(t: &Test) {
    let c = sleeper(t, |_| ());
    let seen = c.exec(&[], &["/bin/payload", "args", "--user", "-t", "--", "-e"]).ok().json();
    assert_eq!(seen["args"], json!(["/bin/payload", "args", "--user", "-t", "--", "-e"]));
}

fn process_file(t: &Test) {
    let c = sleeper(t, |_| ());
    let process = json!({
        "args": ["/bin/payload", "env", "cwd", "ids", "caps", "seccomp"], "env": ["ONLY=this", "PATH=/bin"], "cwd": "/tmp",
        "user": {"uid": 5, "gid": 6, "additionalGids": [7, 8]}, "noNewPrivileges": true,
        "capabilities": {"bounding": ["CAP_KILL"]},
    });
    let file = t.dir().join("process.json");
    fs::write(&file, process.to_string()).unwrap();
    let seen = t.call(&["exec", "--process", &file.display().to_string(), &c.id]).ok().json();
    assert!(seen["env"].as_array().unwrap().contains(&json!("ONLY=this")));
    assert!(!seen["env"].to_string().contains("BRIG_TEST"), "process.json's env is the whole of it: {seen}");
    assert_eq!(seen["cwd"]["ok"], "/tmp");
    assert_eq!((&seen["ids"]["uid"], &seen["ids"]["groups"]), (&json!([5, 5, 5, 5]), &json!([7, 8])));
    assert_eq!((&seen["caps"]["bounding"], &seen["caps"]["effective"]), (&json!(["CAP_KILL"]), &json!([])));
    fs::write(&file, r#"{"args": []}"#).unwrap();
    t.call(&["exec", "--process", &file.display().to_string(), &c.id]).out().fails(&["args"]);
    fs::write(&file, "{").unwrap();
    t.call(&["exec", "--process", &file.display().to_string(), &c.id]).out().fails(&["JSON"]);
}

fn process_file_with_limits_and_ids(t: &Test) {
    let c = sleeper(t, |_| ());
    let process = json!({
        "args": ["payload", "limits", "sched", "ids"], "env": ["PATH=/bin"], "cwd": "/", "user": {"uid": 0, "gid": 0, "umask": 0o27},
        "rlimits": [{"type": "RLIMIT_SIGPENDING", "soft": 100, "hard": 200}], "oomScoreAdj": 321,
    });
    let file = t.dir().join("process.json");
    fs::write(&file, process.to_string()).unwrap();
    let seen = t.call(&["exec", "--process", &file.display().to_string(), &c.id]).ok().json();
    assert_eq!(seen["limits"]["RLIMIT_SIGPENDING"], json!([100, 200]));
    if t.kind() != Kind::Runc {
        assert_eq!(seen["ids"]["umask"], "0027");
    }
    if t.kind() == Kind::Brig {
        assert_eq!(seen["sched"]["oom_score_adj"], 321);
    }
}

fn detached_with_a_pid_file(t: &Test) {
    let c = sleeper(t, |_| ());
    c.line();
    let pid_file = t.dir().join("exec.pid");
    let (read, write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap();
    let flags = ["--detach", "--pid-file", &pid_file.display().to_string()];
    c.exec_call(&flags, &["/bin/payload", "pid", "trap"]).stdout(write).ok();
    let mut lines = crate::support::container::Lines::new(read);
    let seen: Value = serde_json::from_str(&lines.next().unwrap()).unwrap();
    let pid: i32 = fs::read_to_string(&pid_file).unwrap().parse().unwrap();
    assert!(seen["pid"]["nspid"].to_string().contains(&seen["pid"]["pid"].to_string()), "{seen}");
    assert!(fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap().contains("trap"));
    lines.next();
    os::kill(pid, libc::SIGTERM);
    assert_eq!(os::reap(pid), Some(0));
    assert_eq!(c.status(), "running");
}

fn no_descriptor_leaks(t: &Test) {
    let c = sleeper(t, |_| ());
    let (read, _write) = nix::unistd::pipe().unwrap();
    let seen = c.exec_call(&[], &["/bin/payload", "fds"]).pass(vec![(read, 3)]).ok().json();
    assert_eq!(seen["fds"].as_object().unwrap().keys().collect::<Vec<_>>(), ["0", "1", "2"], "{seen}");
}

fn preserves_descriptors(t: &Test) {
    t.differs(Kind::Crun, "it numbers them otherwise");
    let c = sleeper(t, |_| ());
    let fds: Vec<_> = (3..5).map(|n| (fs::File::open(t.dir()).unwrap().into(), n)).collect();
    let seen = c.exec_call(&["--preserve-fds", "2"], &["/bin/payload", "fds"]).pass(fds).ok().json();
    let numbers: Vec<_> = seen["fds"].as_object().unwrap().keys().cloned().collect();
    assert_eq!(numbers, ["0", "1", "2", "3", "4"], "{seen}");
}

fn a_created_container_takes_it(t: &Test) {
    let c = t.create(t.bundle().payload(&["sleep"]));
    assert_eq!(c.see(&[], &["uts"])["uts"]["hostname"], "inside");
    assert_eq!(c.status(), "created");
}

fn a_stopped_container_does_not(t: &Test) {
    let c = t.create(t.bundle().payload(&["exit=0"]));
    c.start();
    c.wait_unreaped();
    c.exec(&[], &["/bin/payload"]).fails(&["container", "not running"]);
    c.wait();
    c.exec(&[], &["/bin/payload"]).fails(&["container", "not running"]);
}

fn an_unknown_container_does_not(t: &Test) {
    t.call(&["exec", &t.new_id(), "/bin/payload"]).out().fails(&["does not exist"]);
}

fn a_program_that_cannot_run(t: &Test) {
    let c = sleeper(t, |_| ());
    c.exec(&[], &["no-such-program"]).fails(&["executable file not found in $PATH"]);
    c.exec(&[], &["/no/such/program"]).fails(&["no such file or directory"]);
    c.exec(&[], &["/etc/hostname"]).fails(&["permission denied"]);
    if t.kind() != Kind::Crun {
        c.exec(&["--cwd", "/no/such"], &["/bin/payload"]).fails(&["/no/such"]);
    }
    if t.kind() == Kind::Brig {
        c.exec(&[], &["no-such-program"]).code(255);
        c.exec(&[], &["/etc"]).code(255).fails(&["permission denied"]);
    }
    assert_eq!(c.status(), "running");
}

fn bad_flags(t: &Test) {
    let c = sleeper(t, |_| ());
    c.exec(&[], &[]).fails(&[]);
    c.exec(&["--no-such-flag"], &["/bin/payload"]).fails(&["--no-such-flag"]);
    assert_eq!(c.status(), "running");
}

fn several_at_once(t: &Test) {
    let c = sleeper(t, |_| ());
    let calls: Vec<_> = (0..8).map(|n| c.exec_call(&[], &["/bin/payload", &format!("exit={n}")]).spawn()).collect();
    for (n, call) in calls.into_iter().enumerate() {
        call.wait().code(n as i32);
    }
}

fn ends_with_the_container(t: &Test) {
    let c = sleeper(t, |_| ());
    let (read, write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap();
    let running = c.exec_call(&[], &["/bin/payload", "sleep"]).stdout(write).spawn();
    crate::support::container::Lines::new(read).next();
    c.kill("KILL");
    running.wait().code(137);
    assert_eq!(c.wait(), 137);
}
