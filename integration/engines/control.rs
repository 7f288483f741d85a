//! Engines that pause, list, measure and limit what already runs: podman and containerd.

use super::containerd::Containerd;
use super::podman::Podman;
use crate::support::{Kind, Test, cases, host, suite};

cases![
    podman_pause,
    podman_pause_of_what_is_not_running,
    podman_top,
    podman_stats,
    podman_update,
    podman_update_holds,
    podman_update_that_is_refused,
    containerd_pause,
    containerd_ps,
    containerd_metrics,
];

/// A file of a container's cgroup: of a v1 controller, or what stands for it on v2.
fn limit(pid: i32, controller: &str, v1: &str, v2: &str) -> String {
    match host::has_v1(controller) {
        true => host::cgroup_file(pid, controller, v1),
        false => host::cgroup_file(pid, "", v2),
    }
}

fn memory(pid: i32) -> String {
    limit(pid, "memory", "memory.limit_in_bytes", "memory.max")
}

fn podman_pause(t: &Test) {
    let p = Podman::new(t);
    p.start("web", &[], &["sleep", "1000"]);
    for _ in 0..3 {
        p.call(&["pause", "web"]).ok();
        assert_eq!(p.inspect("web", "State.Status"), "paused");
        assert!(["FROZEN", "1"].contains(&limit(p.pid("web"), "freezer", "freezer.state", "cgroup.freeze").as_str()));
        let refused = p.call(&["exec", "web", "true"]).out();
        assert_ne!(refused.code, 0, "{}", refused.stdout);
        p.call(&["unpause", "web"]).ok();
        assert_eq!(p.inspect("web", "State.Status"), "running");
    }
    assert_eq!(p.exec("web", "echo here"), "here\n");
    p.call(&["pause", "web"]).ok();
    p.call(&["rm", "--force", "--time", "0", "web"]).ok();
}

fn podman_pause_of_what_is_not_running(t: &Test) {
    let p = Podman::new(t);
    p.start("web", &[], &["true"]);
    assert_eq!(p.wait("web"), 0);
    assert_ne!(p.call(&["pause", "web"]).out().code, 0);
    p.start("two", &[], &["sleep", "1000"]);
    assert_ne!(p.call(&["unpause", "two"]).out().code, 0);
    p.call(&["pause", "--all"]).ok();
    assert_eq!(p.inspect("two", "State.Status"), "paused");
    p.call(&["unpause", "--all"]).ok();
    assert_eq!(p.inspect("two", "State.Status"), "running");
}

fn podman_top(t: &Test) {
    let p = Podman::new(t);
    p.start("web", &[], &["sh", "-c", "sleep 1000; true"]);
    let table = p.call(&["top", "web", "pid", "hpid", "args"]).ok().stdout;
    let init = p.pid("web").to_string();
    let found = |pid: &str, args: &str| {
        table.lines().any(|line| line.contains(args) && line.split_whitespace().any(|word| word == pid))
    };
    assert!(found(&init, "sh -c") && found("1", "sh -c"), "{table}");
    assert!(table.contains("sleep 1000"), "{table}");
}

fn podman_stats(t: &Test) {
    let p = Podman::new(t);
    p.start("web", &["--memory", "64m", "--pids-limit", "40"], &["sh", "-c", "sleep 1000; true"]);
    let out = p.call(&["stats", "--no-stream", "--no-reset", "--format", "json", "web"]).ok().json();
    let (pids, memory) = (&out[0]["pids"], out[0]["mem_usage"].as_str().unwrap_or_default().to_owned());
    assert_eq!(pids, "2", "{out}");
    assert!(memory.ends_with("67.11MB"), "{out}");
}

fn podman_update(t: &Test) {
    let p = Podman::new(t);
    p.start("web", &["--memory", "64m", "--pids-limit", "40"], &["sleep", "1000"]);
    let pid = p.pid("web");
    let refused = p.call(&["update", "--help"]).out();
    if refused.code != 0 {
        suite::skip("this podman has no update");
    }
    p.call(&["update", "--memory", "128m", "--memory-swap", "256m", "web"]).ok();
    assert_eq!(memory(pid), (128 << 20).to_string());
    assert_eq!(limit(pid, "pids", "pids.max", "pids.max"), "40", "what was not named stays");
    p.call(&["update", "--cpu-shares", "300", "--cpus", "0.5", "--cpuset-cpus", "0", "web"]).ok();
    if host::has_v1("cpu") {
        assert_eq!(host::cgroup_file(pid, "cpu", "cpu.shares"), "300");
    }
    assert!(["50000", "50000 100000"].contains(&limit(pid, "cpu", "cpu.cfs_quota_us", "cpu.max").as_str()));
    assert_eq!(limit(pid, "cpuset", "cpuset.cpus", "cpuset.cpus"), "0");
    assert_eq!(memory(pid), (128 << 20).to_string());
    assert_eq!(p.exec("web", "echo here"), "here\n");
}

fn podman_update_holds(t: &Test) {
    let p = Podman::new(t);
    p.start("web", &[], &["sleep", "1000"]);
    let hungry = ["exec", "web", "dd", "if=/dev/zero", "of=/dev/null", "bs=100M", "count=1"];
    p.call(&hungry).ok();
    p.call(&["update", "--memory", "24m", "--memory-swap", "24m", "web"]).ok();
    assert_eq!(p.call(&hungry).out().code, 137);
    p.call(&["update", "--memory", "512m", "--memory-swap", "512m", "web"]).ok();
    p.call(&hungry).ok();
}

/// What was wrong reaches the user, and nothing has changed.
fn podman_update_that_is_refused(t: &Test) {
    let p = Podman::new(t);
    p.start("web", &["--memory", "64m"], &["sleep", "1000"]);
    let out = p.call(&["update", "--memory", "32m", "--cpuset-cpus", "4000", "web"]).out();
    assert_ne!(out.code, 0);
    if t.kind() == Kind::Brig {
        assert!(out.stderr.contains("cpuset"), "{}", out.stderr);
        assert_eq!(memory(p.pid("web")), (64 << 20).to_string());
    }
}

fn containerd_pause(t: &Test) {
    let c = Containerd::new(t);
    c.detached(&["sleep", "1000"]);
    for _ in 0..3 {
        c.ctr(&["task", "pause", "web"]).ok();
        assert_eq!(c.task().1, "PAUSED");
        c.ctr(&["task", "resume", "web"]).ok();
        assert_eq!(c.task().1, "RUNNING");
    }
    c.exec("one", &[], &["true"]).ok();
    c.ctr(&["task", "pause", "web"]).ok();
    c.kill();
}

fn containerd_ps(t: &Test) {
    let c = Containerd::new(t);
    c.detached(&["sh", "-c", "sleep 1000; true"]);
    let (pid, _) = c.task();
    let table = c.ctr(&["task", "ps", "web"]).ok().stdout;
    assert_eq!(table.lines().count(), 3, "a heading and two processes: {table}");
    assert!(table.lines().any(|line| line.split_whitespace().next() == Some(&pid.to_string())), "{table}");
    c.kill();
}

fn containerd_metrics(t: &Test) {
    let c = Containerd::new(t);
    c.detached(&["sleep", "1000"]);
    let table = c.ctr(&["task", "metrics", "web"]).ok().stdout;
    let value = |name: &str| {
        let line = table.lines().find(|line| line.split_whitespace().next() == Some(name));
        line.and_then(|line| line.split_whitespace().nth(1)).and_then(|n| n.parse::<u64>().ok())
    };
    assert!(value("memory.usage_in_bytes").or(value("memory.usage")).is_some_and(|n| n > 0), "{table}");
    c.kill();
}
