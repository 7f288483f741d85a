//! podman on cgroup v2: limits that are seen to bite, not only to be written, and what podman reads of a container's use.

use super::place::{self, User};
use super::podman::Podman;
use crate::support::{Test, cases, os};
use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;

cases![
    oom_kill_systemd,
    oom_kill_rootless,
    throttled_and_pids,
    io_and_weights,
    update_of_a_running_one,
    stats_and_top,
    pause,
    pause_rootless,
];

/// The cgroup of a running container, as the host sees it.
fn cgroup(p: &Podman, name: &str) -> PathBuf {
    PathBuf::from(format!("/sys/fs/cgroup{}", place::cgroup_of(p.pid(name))))
}

/// A file of "key value" lines.
#[track_caller]
fn numbers(text: &str) -> HashMap<&str, u64> {
    text.lines().filter_map(|line| line.split_once(' ')).filter_map(|(k, v)| Some((k, v.parse().ok()?))).collect()
}

/// Memory above the limit is asked for by a process that is not the container's first, which then reads what the kernel
/// counted, and ends as podman's user would see it.
const HUNGRY: &str = "dd if=/dev/zero of=/dev/null bs=200M count=1; echo $?; cat /sys/fs/cgroup/memory.events";

fn oom_kill(t: &Test, user: Option<&User>) {
    let p = Podman::under_systemd(t, user);
    let limits = ["--memory", "24m", "--memory-swap", "24m"];
    let out = p.shell(&limits, HUNGRY);
    let (status, events) = out.split_once('\n').expect("two parts");
    assert_eq!(status, "137", "{out}");
    assert_eq!(numbers(events)["oom_kill"], 1, "{out}");
    let first = ["dd", "if=/dev/zero", "of=/dev/null", "bs=200M", "count=1"];
    p.run(&limits, &first).code(137);
}

fn oom_kill_systemd(t: &Test) {
    oom_kill(t, None);
}

fn oom_kill_rootless(t: &Test) {
    oom_kill(t, Some(&place::user()));
}

/// A loop that has to run out of its share in most periods, and a fork more than there may be. The loop ends by a count,
/// not by the clock, so that a slow machine does not change how often it is stopped.
fn throttled_and_pids(t: &Test) {
    let p = Podman::under_systemd(t, None);
    let script =
        "cat /sys/fs/cgroup/cpu.max; i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; cat /sys/fs/cgroup/cpu.stat";
    let out = p.shell(&["--cpus", "0.2"], script);
    assert!(out.starts_with("20000 100000\n"), "{out}");
    assert!(numbers(&out)["nr_throttled"] > 0, "{out}");

    let script = "cat /sys/fs/cgroup/pids.max; for i in 1 2 3 4 5 6 7 8; do sleep 100 & done; exit 0";
    let out = p.run(&["--pids-limit", "5"], &["sh", "-c", script]);
    assert!(out.stdout.starts_with("5\n"), "{}", out.stdout);
    assert!(out.stderr.contains("can't fork"), "{}", out.stderr);
}

/// A block device that can have limits: a whole disk with a queue of its own.
fn disk() -> Option<String> {
    let names =
        fs::read_dir("/sys/block").ok()?.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut disks: Vec<String> =
        names.filter(|name| ["vd", "sd", "nvme", "xvd"].iter().any(|kind| name.starts_with(kind))).collect();
    disks.sort();
    disks.first().map(|name| format!("/dev/{name}"))
}

fn io_and_weights(t: &Test) {
    let p = Podman::under_systemd(t, None);
    let disk = disk();
    let rate = disk.as_ref().map(|disk| format!("{disk}:1mb")).unwrap_or_default();
    let mut flags =
        vec!["--blkio-weight", "500", "--cpu-shares", "2048", "--cpuset-cpus", "0", "--memory-reservation", "16m"];
    if disk.is_some() {
        flags.extend(["--device-read-bps", &rate]);
    }
    let files = "io.bfq.weight io.weight cpu.weight cpuset.cpus memory.low io.max";
    let out =
        p.shell(&flags, &format!("cd /sys/fs/cgroup; for f in {files}; do [ ! -e $f ] || grep -H . $f; done; true"));
    // The conversion of shares to a weight has two formulas by now; 1024 shares are 39, or 100.
    let line = |name: &str| {
        out.lines().find_map(|line| line.strip_prefix(&format!("{name}:"))).map(str::to_string).unwrap_or_default()
    };
    let weight: u32 = line("cpu.weight").parse().unwrap_or_else(|_| panic!("{out}"));
    assert!((70..=250).contains(&weight), "{out}");
    assert_eq!(line("cpuset.cpus"), "0", "{out}");
    assert_eq!(line("memory.low"), "16777216", "{out}");
    // io.weight, where there is one, runs from 1 to 10000; bfq's own to 1000, as the flag does.
    let plain = line("io.weight");
    let bfq = line("io.bfq.weight");
    let weights = [plain.trim_start_matches("default "), bfq.trim_start_matches("default ")];
    assert!(weights[1] == "500" || ["4950", "4955", "500"].contains(&weights[0]), "{out}");
    if disk.is_some() {
        assert!(line("io.max").contains("rbps=1048576 "), "{out}");
    }
}

fn update_of_a_running_one(t: &Test) {
    let p = Podman::under_systemd(t, None);
    p.start("web", &["--memory", "64m", "--memory-swap", "64m"], &["sleep", "1000"]);
    let flags = ["--memory", "100m", "--memory-swap", "100m", "--cpus", "0.25", "--pids-limit", "77"];
    let updated = p.call(&[["update"].as_slice(), &flags, &["web"]].concat()).out();
    if updated.code == 125 && updated.stderr.contains("unknown flag: --pids-limit") {
        // podman 4.3 has all of them but this one.
        p.call(&[["update"].as_slice(), &flags[..6], &["web"]].concat()).ok();
    }
    let seen = "cd /sys/fs/cgroup; cat memory.max memory.swap.max cpu.max";
    assert_eq!(p.exec("web", seen), "104857600\n0\n25000 100000\n");
    // It is the unit that has them: nothing that systemd does later may take them back.
    place::systemctl(t, None, &["daemon-reload"]).ok();
    assert_eq!(p.exec("web", seen), "104857600\n0\n25000 100000\n", "after a reload of systemd");
}

fn stats_and_top(t: &Test) {
    let p = Podman::under_systemd(t, None);
    p.start("web", &["--memory", "64m"], &["sh", "-c", "sleep 1000 & while :; do :; done"]);
    let out =
        p.call(&["stats", "--no-stream", "--format", "{{.PIDs}} {{.MemLimit}} {{.MemUsage}} {{.CPUPerc}}", "web"]).ok();
    let words: Vec<&str> = out.stdout.split_whitespace().collect();
    assert_eq!(words[0], "2", "processes in {}", out.stdout);
    assert!(out.stdout.contains("67108864") || out.stdout.contains("67.11MB"), "{}", out.stdout);
    let percent: f64 = words.last().and_then(|word| word.trim_end_matches('%').parse().ok()).unwrap_or_default();
    assert!(percent > 1.0, "a busy loop in {}", out.stdout);
    let top = p.call(&["top", "web", "pid", "args"]).ok().stdout;
    assert!(top.contains("sleep 1000") && top.lines().count() == 3, "{top}");
}

fn paused(t: &Test, user: Option<&User>) {
    let p = Podman::under_systemd(t, user);
    p.start("web", &[], &["sleep", "1000"]);
    let cgroup = cgroup(&p, "web");
    let frozen = || {
        let events = fs::read_to_string(cgroup.join("cgroup.events")).expect("the cgroup's events");
        numbers(&events)["frozen"]
    };
    p.call(&["pause", "web"]).ok();
    assert_eq!((p.inspect("web", "State.Status").as_str(), frozen()), ("paused", 1));
    let refused = p.call(&["exec", "web", "true"]).out();
    assert_ne!(refused.code, 0, "what is paused runs nothing");
    p.call(&["unpause", "web"]).ok();
    assert_eq!((p.inspect("web", "State.Status").as_str(), frozen()), ("running", 0));
    assert_eq!(p.exec("web", "echo awake"), "awake\n");
    // One that is paused is ended all the same.
    p.call(&["pause", "web"]).ok();
    let init = os::pidfd(p.pid("web")).expect("a pidfd");
    p.call(&["rm", "--force", "--time", "0", "web"]).ok();
    assert!(os::readable(&init, os::PATIENCE));
}

fn pause(t: &Test) {
    paused(t, None);
}

fn pause_rootless(t: &Test) {
    paused(t, Some(&place::user()));
}
