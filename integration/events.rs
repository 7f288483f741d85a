//! `events`: statistics as their callers parse them, and the OOM killer's calls.

use crate::support::container::Lines;
use crate::support::{Call, Container, Kind, Running, Test, Value, cases, host, json, os, suite};
use std::collections::BTreeMap;
use std::fs;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

cases![
    stats_once,
    stats_of_what_was_used,
    stats_of_limits,
    a_line_at_every_interval_until_the_end,
    an_oom_kill_is_told,
    an_oom_kill_of_init_is_told,
    of_a_paused_container,
    intervals_that_are_none,
    not_of_a_stopped_or_unknown_container,
    a_reader_that_leaves,
    beside_delete,
    without_a_cgroup,
];

/// As go-runc declares it (events.go), with every field that it knows, so that a wrong type fails here as it would there.
#[derive(Debug, serde::Deserialize)]
struct Event {
    #[serde(rename = "type")]
    kind: String,
    id: String,
    data: Option<Stats>,
}

#[derive(Debug, serde::Deserialize)]
struct Stats {
    cpu: Cpu,
    memory: Memory,
    pids: Pids,
    blkio: BTreeMap<String, Value>,
    hugetlb: BTreeMap<String, Hugetlb>,
    cpuset: Option<Cpuset>,
}

#[derive(Debug, serde::Deserialize)]
struct Cpu {
    usage: Usage,
    #[serde(default)]
    throttling: BTreeMap<String, u64>,
}

#[derive(Debug, serde::Deserialize)]
#[serde(default)]
#[derive(Default)]
struct Usage {
    total: u64,
    percpu: Vec<u64>,
    kernel: u64,
    user: u64,
}

#[derive(Debug, serde::Deserialize)]
#[allow(dead_code, reason = "parsed for its type")]
struct Memory {
    #[serde(default)]
    cache: u64,
    usage: Entry,
    swap: Entry,
    kernel: Entry,
    #[serde(rename = "kernelTCP")]
    kernel_tcp: Entry,
    #[serde(default)]
    raw: BTreeMap<String, u64>,
}

#[derive(Debug, serde::Deserialize)]
#[allow(dead_code, reason = "parsed for its type")]
struct Entry {
    limit: u64,
    #[serde(default)]
    usage: u64,
    #[serde(default)]
    max: u64,
    failcnt: u64,
}

#[derive(Debug, serde::Deserialize)]
#[serde(default)]
#[derive(Default)]
struct Pids {
    current: u64,
    limit: u64,
}

#[derive(Debug, serde::Deserialize)]
#[allow(dead_code, reason = "parsed for its type")]
struct Hugetlb {
    #[serde(default)]
    usage: u64,
    failcnt: u64,
}

#[derive(Debug, serde::Deserialize)]
#[allow(dead_code, reason = "parsed for its type")]
struct Cpuset {
    #[serde(default)]
    cpus: Vec<u16>,
    #[serde(default)]
    mems: Vec<u16>,
}

fn need() {
    let v2 = host::cgroup_dir(std::process::id().cast_signed(), "").map(|_| ());
    if !host::has_v1("memory") && v2.is_none() {
        suite::skip("there is no memory controller here");
    }
}

fn with<'t>(t: &'t Test, verbs: &[&str], resources: &[(&str, Value)]) -> Container<'t> {
    need();
    t.differs(Kind::Crun, "1.8.1 has no events");
    let mut b = t.bundle();
    b.payload(verbs);
    for (pointer, value) in resources {
        b.set(&format!("/linux/resources{pointer}"), value.clone());
    }
    t.create(&b)
}

fn running(t: &Test) -> Container<'_> {
    let c = with(t, &["sleep"], &[]);
    c.start();
    c.line();
    c
}

#[track_caller]
fn parse(line: &str) -> Event {
    serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))
}

#[track_caller]
fn once(c: &Container) -> Stats {
    let out = c.call(&["events", "--stats"]).ok();
    assert_eq!(out.stdout.lines().count(), 1, "{}", out.stdout);
    let event = parse(&out.stdout);
    assert_eq!((event.kind.as_str(), &event.id), ("stats", &c.id));
    event.data.expect("data")
}

/// `events` with these flags, and its lines.
fn follow(c: &Container, flags: &[&str]) -> (Running, Lines) {
    let (read, write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap();
    let running = c.test().call(&["events"]).args(flags).args(&[&c.id]).stdout(write).spawn();
    (running, Lines::new(read))
}

fn stats_once(t: &Test) {
    let c = running(t);
    let stats = once(&c);
    assert_eq!(stats.pids.current, 1);
    assert!(stats.memory.usage.usage > 0, "{stats:?}");
    assert!(stats.memory.raw.len() > 10, "{stats:?}");
    let out = c.call(&["events", "--stats"]).ok().json();
    assert_eq!(out["data"]["network_interfaces"], json!(null));
    assert!(out["data"]["intel_rdt"].is_object(), "{out}");
    // A controller that is not there counts nothing.
    assert!(stats.hugetlb.keys().all(|size| size.ends_with('B')), "{:?}", stats.hugetlb);
    assert!(stats.blkio.keys().all(|list| list.ends_with("Recursive") || list == "psi"), "{:?}", stats.blkio);
    if host::has_v1("cpuset") {
        assert!(!stats.cpuset.unwrap().cpus.is_empty());
    }
}

fn stats_of_what_was_used(t: &Test) {
    let c = running(t);
    let before = once(&c);
    c.exec(&[], &["/bin/payload", "burn=300", &format!("hog={}", 50 << 20)]).ok();
    let after = once(&c);
    let burnt = after.cpu.usage.total - before.cpu.usage.total;
    assert!((250_000_000..30_000_000_000).contains(&burnt), "{burnt} ns");
    let parts = after.cpu.usage.kernel + after.cpu.usage.user;
    assert!(parts > 200_000_000, "{:?}", after.cpu.usage);
    if !after.cpu.usage.percpu.is_empty() {
        assert!(after.cpu.usage.percpu.iter().sum::<u64>() >= burnt, "{:?}", after.cpu.usage);
    }
    if after.memory.usage.max > 0 {
        assert!(after.memory.usage.max > 50 << 20, "{:?}", after.memory.usage);
    }
}

fn stats_of_limits(t: &Test) {
    // So short a quota that one turn on the CPU uses it up, however busy the host is.
    let limits = [
        ("/memory", json!({"limit": 64 << 20})),
        ("/pids", json!({"limit": 33})),
        ("/cpu", json!({"period": 20000, "quota": 1000})),
    ];
    let c = with(t, &["sleep"], &limits);
    c.start();
    c.line();
    c.exec(&[], &["/bin/payload", "burn=40"]).ok();
    let stats = once(&c);
    assert_eq!((stats.memory.usage.limit, stats.pids.limit), (64 << 20, 33));
    assert!(stats.cpu.throttling["throttledPeriods"] > 1, "{:?}", stats.cpu);
    assert!(stats.cpu.throttling["throttledTime"] > 1_000_000, "{:?}", stats.cpu);
    assert!(stats.cpu.throttling["periods"] >= stats.cpu.throttling["throttledPeriods"]);
}

fn a_line_at_every_interval_until_the_end(t: &Test) {
    let c = running(t);
    let start = Instant::now();
    let (events, mut lines) = follow(&c, &["--interval", "100ms"]);
    for _ in 0..5 {
        let event = parse(&lines.next().expect("a line"));
        assert_eq!((event.kind.as_str(), event.data.expect("data").pids.current), ("stats", 1));
    }
    assert!(start.elapsed() >= Duration::from_millis(500), "{:?}", start.elapsed());
    c.kill("KILL");
    c.wait();
    if t.kind() == Kind::Brig {
        let out = events.wait().ok();
        assert_eq!(out.stderr, "");
        assert!(std::iter::from_fn(|| lines.next()).all(|line| parse(&line).kind == "stats"));
    }
}

/// Waits for a line of this type.
#[track_caller]
fn until(lines: &mut Lines, kind: &str) -> Event {
    loop {
        let event = parse(&lines.next().unwrap_or_else(|| panic!("no {kind}")));
        if event.kind == kind {
            return event;
        }
    }
}

fn an_oom_kill_is_told(t: &Test) {
    let c = with(t, &["sleep"], &[("/memory", json!({"limit": 32 << 20}))]);
    c.start();
    c.line();
    let (events, mut lines) = follow(&c, &["--interval", "50ms"]);
    // It is watching by the time it tells something.
    until(&mut lines, "stats");
    c.exec(&[], &["/bin/payload", &format!("hog={}", 128 << 20)]).code(137);
    let event = until(&mut lines, "oom");
    assert_eq!((event.id.as_str(), event.data.is_none()), (c.id.as_str(), true));
    assert_eq!(c.status(), "running");
    c.kill("KILL");
    c.wait();
    if t.kind() == Kind::Brig {
        events.wait().ok();
    }
}

/// Watched from before its start; what ends it is told before the end.
fn an_oom_kill_of_init_is_told(t: &Test) {
    t.only_brig("they miss it now and then");
    let c = with(t, &[&format!("hog={}", 128 << 20)], &[("/memory", json!({"limit": 32 << 20}))]);
    let (events, mut lines) = follow(&c, &["--interval", "50ms"]);
    until(&mut lines, "stats");
    c.start();
    until(&mut lines, "oom");
    assert_eq!(c.wait(), 137);
    assert_eq!(events.wait().ok().stderr, "");
}

fn of_a_paused_container(t: &Test) {
    let c = running(t);
    c.call(&["pause"]).ok();
    assert_eq!(once(&c).pids.current, 1);
    c.call(&["resume"]).ok();
}

fn intervals_that_are_none(t: &Test) {
    let c = running(t);
    for interval in ["0", "0s", "-5s", "five", "5", ""] {
        c.test().call(&["events", "--interval", interval, &c.id]).out().code(1).fails(&["--interval"]);
    }
}

fn not_of_a_stopped_or_unknown_container(t: &Test) {
    let c = running(t);
    c.kill("KILL");
    c.wait();
    for flags in [["events"].as_slice(), &["events", "--stats"]] {
        c.call(flags).out().code(1).fails(&["is not running"]);
        t.call(flags).args(&["nobody"]).out().code(1).fails(&["does not exist"]);
    }
}

fn a_reader_that_leaves(t: &Test) {
    t.differs(Kind::Runc, "it goes on, and says at every line that it can't write");
    let c = running(t);
    // One that has read, and one that has not even waited for the first line.
    let (events, mut lines) = follow(&c, &["--interval", "50ms"]);
    lines.next();
    drop(lines);
    assert_eq!(events.wait().ok().stderr, "");
    let (events, lines) = follow(&c, &["--interval", "1h"]);
    drop(lines);
    assert_eq!(events.wait().ok().stderr, "");
}

fn beside_delete(t: &Test) {
    t.only_brig("they may say that a file of theirs is missing");
    for _ in 0..4 {
        let c = running(t);
        let follows: Vec<_> = (0..2).map(|_| follow(&c, &["--interval", "1ms"])).collect();
        let mut follows: Vec<_> = follows
            .into_iter()
            .map(|(events, mut lines)| {
                lines.next();
                (events, lines)
            })
            .collect();
        let delete = c.call(&["delete", "--force"]).spawn();
        let once: Vec<_> = (0..3).map(|_| c.call(&["events", "--stats"]).spawn()).collect();
        for (events, lines) in follows.drain(..) {
            let mut lines = lines;
            while let Some(line) = lines.next() {
                assert_eq!(parse(&line).kind, "stats", "{line}");
            }
            assert_eq!(events.wait().ok().stderr, "");
        }
        for out in once.into_iter().map(Running::wait) {
            let known = ["is not running", "does not exist"];
            assert!(out.code == 0 || known.iter().any(|k| out.stderr.contains(k)), "{}", out.stderr);
        }
        delete.wait().ok();
        c.wait();
    }
}

fn without_a_cgroup(t: &Test) {
    t.only_brig("the others have no --cgroup-manager disabled, or fail in other words");
    let mut b = t.bundle();
    b.unset("/linux/resources").payload(&["sleep"]).write();
    let id = t.new_id();
    let pid_file = t.dir().join("pid").display().to_string();
    let (_read, write): (OwnedFd, OwnedFd) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap();
    let args = ["run", "--detach", "--pid-file", &pid_file, "--bundle", b.path(), &id];
    Call::new(t, &["--cgroup-manager", "disabled"], &args).stdout(write).ok();
    for flags in [["events"].as_slice(), &["events", "--stats"]] {
        t.call(flags).args(&[&id]).out().code(1).fails(&["no cgroup", "--cgroup-manager disabled"]);
    }
    t.call(&["delete", "--force", &id]).ok();
    os::reap(fs::read_to_string(pid_file).unwrap().parse().unwrap());
}
