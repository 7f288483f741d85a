//! `pause` and `resume`, and what the other commands do with a container that is paused.

use crate::support::{Bundle, Call, Container, Kind, Test, cases, host, os, suite};
use std::fs;
use std::time::Duration;

cases![
    a_paused_container_stands_still,
    what_exec_added_is_paused_too,
    a_created_container_can_be_paused,
    only_in_the_right_status,
    exec_in_a_paused_container,
    kill_ends_a_paused_container,
    delete_of_a_paused_container,
    twenty_times,
    while_it_ends,
    beside_delete,
    without_a_cgroup,
];

fn need_freezer() {
    if !host::has_v1("freezer") && host::cgroup_dir(std::process::id().cast_signed(), "").is_none() {
        suite::skip("there is no cgroup freezer here");
    }
}

/// A container that reports each signal it gets.
fn trap(t: &Test) -> Container<'_> {
    need_freezer();
    let mut b = t.bundle();
    b.payload(&["trap"]);
    let c = t.create(&b);
    c.start();
    assert_eq!(c.line()["ready"], true);
    c
}

fn sleeper(t: &Test) -> Bundle {
    need_freezer();
    let mut b = t.bundle();
    b.payload(&["sleep"]);
    b
}

#[track_caller]
fn ok(c: &Container, command: &str) {
    c.call(&[command]).ok();
}

fn a_paused_container_stands_still(t: &Test) {
    let c = trap(t);
    ok(&c, "pause");
    assert_eq!(c.status(), "paused");
    let list = t.call(&["list", "--format", "json"]).ok().json();
    assert_eq!(list[0]["status"], "paused");
    c.kill("USR1");
    assert!(!c.says_within(Duration::from_millis(300)), "it took a signal while it was paused");
    ok(&c, "resume");
    assert_eq!(c.line()["signal"], libc::SIGUSR1);
    assert_eq!(c.status(), "running");
}

fn what_exec_added_is_paused_too(t: &Test) {
    let c = trap(t);
    let (read, write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap();
    let exec = c.exec_call(&[], &["/bin/payload", "trap"]).stdout(write).spawn();
    let mut lines = crate::support::container::Lines::new(read);
    lines.next();
    ok(&c, "pause");
    os::kill(exec.pid(), libc::SIGUSR1);
    assert!(!lines.readable(Duration::from_millis(300)));
    ok(&c, "resume");
    assert!(lines.next().unwrap().contains("signal"));
    os::kill(exec.pid(), libc::SIGTERM);
    exec.wait().ok();
}

fn a_created_container_can_be_paused(t: &Test) {
    t.differs(Kind::Crun, "it pauses running containers only");
    let c = t.create(&sleeper(t));
    ok(&c, "pause");
    assert_eq!(c.status(), "paused");
    if t.kind() == Kind::Brig {
        // Nobody would answer at the gate.
        c.call(&["start"]).out().fails(&["paused", "resume"]);
    }
    ok(&c, "resume");
    assert_eq!(c.status(), "created");
    c.start();
    c.line();
}

fn only_in_the_right_status(t: &Test) {
    let c = t.create(&sleeper(t));
    c.start();
    c.line();
    if t.kind() != Kind::Crun {
        c.call(&["resume"]).out().fails(&["not paused", "running"]);
    }
    ok(&c, "pause");
    if t.kind() != Kind::Crun {
        c.call(&["pause"]).out().fails(&["container not running", "paused"]);
    }
    ok(&c, "resume");
    c.kill("KILL");
    c.wait();
    c.call(&["pause"]).out().fails(&["container not running"]);
    c.call(&["resume"]).out().fails(&["container not running"]);
    t.call(&["pause", "nobody"]).out().code(1).fails(&["does not exist"]);
    t.call(&["resume", "nobody"]).out().code(1).fails(&["does not exist"]);
}

fn exec_in_a_paused_container(t: &Test) {
    let c = trap(t);
    ok(&c, "pause");
    c.exec(&[], &["/bin/payload"]).fails(&["paused", "--ignore-paused"]);
    if t.kind() == Kind::Brig {
        // It stands still as soon as it is inside, and runs when the others do.
        let exec = c.exec_call(&["--ignore-paused"], &["/bin/payload", "exit=7"]).spawn();
        let process = os::pidfd(exec.pid()).unwrap();
        assert!(!os::readable(&process, Duration::from_millis(500)), "it ran in a paused container");
        ok(&c, "resume");
        exec.wait().code(7);
    } else {
        ok(&c, "resume");
    }
}

fn kill_ends_a_paused_container(t: &Test) {
    t.differs(Kind::Crun, "1.8.1 leaves it frozen on cgroup v1, where the signal waits for a thaw");
    let c = trap(t);
    ok(&c, "pause");
    c.kill("KILL");
    assert_eq!(c.wait(), 137);
    assert_eq!(c.status(), "stopped");
    c.delete();
}

fn delete_of_a_paused_container(t: &Test) {
    let c = trap(t);
    ok(&c, "pause");
    c.call(&["delete"]).out().fails(&["not stopped", "paused"]);
    assert_eq!(c.status(), "paused");
    c.call(&["delete", "--force"]).ok();
    assert_eq!(c.wait(), 137);
    assert_eq!(t.left(), Vec::<String>::new());
}

fn twenty_times(t: &Test) {
    let c = trap(t);
    for _ in 0..20 {
        ok(&c, "pause");
        ok(&c, "resume");
    }
    c.kill("USR1");
    assert_eq!(c.line()["signal"], libc::SIGUSR1);
}

/// A container that ends in that moment is told from one that can't be paused, and leaves nothing frozen.
fn while_it_ends(t: &Test) {
    t.only_brig("they may say that a file of theirs is missing");
    for _ in 0..5 {
        let c = trap(t);
        let pauses: Vec<_> = (0..3).map(|_| c.call(&["pause"]).spawn()).collect();
        os::kill(c.pid, libc::SIGKILL);
        for pause in pauses {
            let out = pause.wait();
            assert!(out.code == 0 || out.stderr.contains("container not running"), "{}", out.stderr);
        }
        // A pause that was first holds the signal back.
        let _ = c.call(&["resume"]).out();
        assert_eq!(c.wait(), 137);
        c.delete();
    }
}

fn beside_delete(t: &Test) {
    t.only_brig("they may say that a file of theirs is missing");
    for _ in 0..3 {
        let c = trap(t);
        let pauses: Vec<_> = (0..4).map(|_| c.call(&["pause"]).spawn()).collect();
        let delete = c.call(&["delete", "--force"]).spawn();
        let resume = c.call(&["resume"]).spawn();
        for pause in pauses.into_iter().chain([resume]) {
            let out = pause.wait();
            let known = ["does not exist", "container not running", "container not paused"];
            assert!(out.code == 0 || known.iter().any(|k| out.stderr.contains(k)), "{}", out.stderr);
        }
        delete.wait().ok();
        c.wait();
        assert_eq!(t.left(), Vec::<String>::new());
    }
}

fn without_a_cgroup(t: &Test) {
    t.only_brig("the others have no --cgroup-manager disabled, or fail in other words");
    let mut b = t.bundle();
    b.unset("/linux/resources").payload(&["sleep"]).write();
    let id = t.new_id();
    let pid_file = t.dir().join("pid").display().to_string();
    let globals = ["--cgroup-manager", "disabled"];
    let (_read, write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap();
    let args = ["run", "--detach", "--pid-file", &pid_file, "--bundle", b.path(), &id];
    Call::new(t, &globals, &args).stdout(write).ok();
    t.call(&["pause", &id]).out().code(1).fails(&["no cgroup", "--cgroup-manager disabled"]);
    t.call(&["ps", &id]).out().code(1).fails(&["no cgroup"]);
    t.call(&["resume", &id]).out().fails(&["not paused"]);
    t.call(&["delete", "--force", &id]).ok();
    os::reap(fs::read_to_string(pid_file).unwrap().parse().unwrap());
}
