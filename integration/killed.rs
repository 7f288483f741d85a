//! A runtime that is killed at any moment leaves what `delete --force` removes wholly.

use crate::support::{Bundle, Call, Test, cases, json, os, suite};
use std::process::Command;
use std::time::{Duration, Instant};

cases![
    create_killed_by_a_hook,
    create_killed_after_a_while,
    create_killed_at_a_system_call,
    start_killed_after_a_while,
    delete_killed_after_a_while,
    run_killed_while_it_waits,
    exec_killed_while_it_waits,
    init_killed_before_the_start,
];

fn sleeper(t: &Test) -> Bundle {
    let mut b = t.bundle();
    b.payload(&["sleep"]);
    b.set("/linux/resources/pids", json!({"limit": 50}));
    b.namespace("cgroup", None);
    b
}

/// `delete --force` succeeds and leaves nothing, now and when it is said again.
#[track_caller]
fn gone(t: &Test, id: &str, when: &str) {
    let out = t.call(&["delete", "--force", id]).out();
    assert!(out.code == 0, "killed {when}: delete --force ended with {}: {}", out.code, out.stderr);
    let mut left = t.left();
    // A child that was just born has not joined the cgroup by which it is found; it ends by itself when it misses its parent.
    let since = Instant::now();
    while left.iter().any(|one| one.starts_with("process ")) && since.elapsed() < os::PATIENCE {
        std::thread::yield_now();
        left = t.left();
    }
    assert!(left.is_empty(), "killed {when}: left {}", left.join("; "));
    t.call(&["delete", "--force", id]).ok();
}

const WEAK: &str = "they leave processes or cgroups that they do not find again";

/// Hooks are the runtime's children, so each can end it at a point that is always the same.
fn create_killed_by_a_hook(t: &Test) {
    t.only_brig(WEAK);
    let payload = suite::scratch().join("payload").display().to_string();
    for kind in ["prestart", "createRuntime"] {
        let mut b = sleeper(t);
        b.set(&format!("/hooks/{kind}"), json!([{"path": payload, "args": ["payload", "kill=parent"]}]));
        b.write();
        let id = t.new_id();
        t.call(&["create", "--bundle", b.path(), &id]).out().code(137);
        gone(t, &id, &format!("by a {kind} hook"));
    }
}

/// The moments are spread over how long the command takes; which step each falls on is left to chance, run by run. A slow
/// machine tries fewer of them.
fn moments(whole: Duration, count: u32) -> impl Iterator<Item = Duration> {
    let count = count.div_ceil(os::slowness());
    (0..count).map(move |n| whole * n / count)
}

#[expect(clippy::disallowed_methods, reason = "the moment is one that nothing announces")]
fn kill_after(call: Call, after: Duration) -> String {
    let running = call.spawn();
    std::thread::sleep(after);
    running.kill();
    format!("after {after:?}")
}

fn create_killed_after_a_while(t: &Test) {
    t.only_brig(WEAK);
    let b = sleeper(t);
    b.write();
    let begun = Instant::now();
    let _first = t.create(&b);
    let whole = begun.elapsed();
    drop(_first);
    for after in moments(whole, 40) {
        let id = t.new_id();
        let when = kill_after(t.call(&["create", "--bundle", b.path(), &id]), after);
        gone(t, &id, &when);
    }
}

/// strace ends the runtime at the nth call of a kind, so that every step is met once.
fn create_killed_at_a_system_call(t: &Test) {
    t.only_brig(WEAK);
    let probe = Command::new("strace").args(["-o", "/dev/null", "true"]).output();
    if !probe.is_ok_and(|o| o.status.success()) {
        suite::skip("there is no strace that works here");
    }
    let b = sleeper(t);
    b.write();
    let calls = ["mkdir", "mkdirat", "openat", "openat2", "write", "rename", "renameat", "renameat2", "clone3", "recvmsg", "recvfrom", "sendmsg", "sendto", "read", "flock", "close"];
    let every = if os::slowness() > 1 { 3 } else { 1 };
    for call in calls {
        for nth in [1, 2, 3, 5, 8, 13, 21, 34].into_iter().step_by(every) {
            let id = t.new_id();
            let inject = format!("inject={call}:signal=SIGKILL:when={nth}");
            let filter = format!("trace={call}");
            let words = ["strace", "-qq", "-o", "/dev/null", "-e", &filter, "-e", &inject];
            let out = Call::through(t, &words, &[], &["create", "--bundle", b.path(), &id]).out();
            gone(t, &id, &format!("at {call} number {nth}"));
            if out.code == 0 {
                break;
            }
        }
    }
}

fn start_killed_after_a_while(t: &Test) {
    t.only_brig(WEAK);
    let b = sleeper(t);
    let c = t.create(&b);
    let begun = Instant::now();
    c.start();
    let whole = begun.elapsed();
    drop(c);
    for after in moments(whole, 15) {
        let c = t.create(&b);
        let when = kill_after(c.call(&["start"]), after);
        gone(t, &c.id, &when);
    }
}

fn delete_killed_after_a_while(t: &Test) {
    t.only_brig(WEAK);
    let b = sleeper(t);
    let c = t.create(&b);
    let begun = Instant::now();
    c.call(&["delete", "--force"]).ok();
    let whole = begun.elapsed();
    drop(c);
    for after in moments(whole, 25) {
        let c = t.create(&b);
        c.start();
        let when = kill_after(c.call(&["delete", "--force"]), after);
        gone(t, &c.id, &when);
    }
}

fn run_killed_while_it_waits(t: &Test) {
    t.only_brig("runc shows the container as created then, and crun has no state of it left");
    let b = sleeper(t);
    b.write();
    let id = t.new_id();
    let (read, write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap();
    let running = t.call(&["run", "--bundle", b.path(), &id]).stdout(write).spawn();
    crate::support::container::Lines::new(read).next();
    running.kill();
    assert_eq!(t.call(&["state", &id]).ok().json()["status"], "running", "the container goes on without it");
    gone(t, &id, "while it waits");
}

fn exec_killed_while_it_waits(t: &Test) {
    t.only_brig("they write the pid file when the process has begun already");
    let c = t.create(&sleeper(t));
    c.start();
    c.line();
    let (read, write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap();
    let pid_file = t.dir().join("exec.pid");
    let flags = ["--pid-file", &pid_file.display().to_string()];
    let running = c.exec_call(&flags, &["/bin/payload", "sleep"]).stdout(write).spawn();
    crate::support::container::Lines::new(read).next();
    let pid: i32 = std::fs::read_to_string(&pid_file).unwrap().parse().unwrap();
    running.kill();
    assert_eq!(c.status(), "running");
    // Its parent is this process now, and init of a pid namespace does not end before all of it is reaped.
    let reaper = std::thread::spawn(move || os::reap(pid));
    gone(t, &c.id, "while it waits for exec");
    assert_eq!(reaper.join().unwrap(), Some(137));
}

fn init_killed_before_the_start(t: &Test) {
    let c = t.create(&sleeper(t));
    os::kill(c.pid, libc::SIGKILL);
    c.wait_unreaped();
    assert_eq!(c.status(), "stopped");
    c.call(&["start"]).out().fails(&[]);
    assert_eq!(c.wait(), 137);
    c.delete();
}
