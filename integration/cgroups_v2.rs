//! Cgroups on a host that has v2 alone: limits as a container meets them, and device programs.

use crate::support::{Container, Kind, Test, Value, cases, host, json, os, suite};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

cases![
    memory,
    memory_kill_is_reported,
    swap_is_limited_alone,
    cpu,
    cpu_quota_throttles,
    cpuset,
    pids_limit_holds,
    exec_at_the_pids_limit_says_so,
    io_limits,
    huge_pages,
    misc_and_rdma,
    unified_files,
    what_v2_does_not_have_is_refused,
    devices_are_denied,
    devices_are_allowed,
    devices_are_decided_by_the_last_rule,
    everything_allowed_needs_no_program,
    an_update_replaces_the_devices,
    an_update_sets_limits,
    an_update_below_the_usage_is_refused_if_asked,
];

pub fn need() {
    if !os::is_root() {
        suite::skip("only root makes cgroups at the root of the tree");
    }
    if fs::metadata("/sys/fs/cgroup/cgroup.controllers").is_err() {
        suite::skip("this host does not have cgroup v2 alone");
    }
}

fn need_controller(controller: &str) {
    need();
    let all = fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap();
    if !all.split_whitespace().any(|c| c == controller) {
        suite::skip(format!("this kernel has no {controller} controller"));
    }
}

/// A container with these resources that waits, not yet started.
pub fn with<'t>(t: &'t Test, resources: Value) -> Container<'t> {
    let mut b = t.bundle();
    b.payload(&["sleep"]).set("/linux/resources", resources);
    t.create(&b)
}

pub fn dir(c: &Container) -> PathBuf {
    host::cgroup_dir(c.pid, "").expect("a v2 cgroup")
}

#[track_caller]
pub fn read(dir: &Path, file: &str) -> String {
    fs::read_to_string(dir.join(file)).unwrap_or_else(|e| panic!("{}/{file}: {e}", dir.display())).trim().to_string()
}

#[track_caller]
fn reads(c: &Container, file: &str, wanted: &str) {
    assert_eq!(read(&dir(c), file), wanted, "{file}");
}

/// The number in a file of `key number` lines.
pub fn count(dir: &Path, file: &str, key: &str) -> u64 {
    read(dir, file).lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(' ')?.parse().ok()).unwrap_or_default()
}

#[track_caller]
fn update(c: &Container, resources: &Value) -> crate::support::Out {
    let (read, write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).expect("a pipe");
    nix::unistd::write(&write, resources.to_string().as_bytes()).unwrap();
    drop(write);
    let out = c.call(&["update", "--resources", "-"]).stdin(read).out();
    if out.stderr.contains("unrecognized subcommand") {
        suite::skip("this runtime has no update");
    }
    out
}

/// Waits until cgroup.events has this line, by the event that the kernel gives for it.
#[track_caller]
pub fn until(dir: &Path, line: &str) {
    let events = fs::File::open(dir.join("cgroup.events")).expect("cgroup.events");
    loop {
        let mut text = String::new();
        (&events).seek(SeekFrom::Start(0)).unwrap();
        (&events).read_to_string(&mut text).unwrap();
        if text.lines().any(|l| l == line) {
            return;
        }
        let mut polled = [PollFd::new(events.as_fd(), PollFlags::POLLPRI)];
        let changed = poll(&mut polled, PollTimeout::try_from(os::PATIENCE).unwrap()).unwrap();
        assert!(changed > 0, "{} does not get to {line:?}: {text}", dir.display());
    }
}

fn memory(t: &Test) {
    need();
    let c = with(t, json!({"memory": {"limit": 64 << 20, "reservation": 32 << 20}}));
    reads(&c, "memory.max", "67108864");
    reads(&c, "memory.low", "33554432");
    reads(&c, "memory.swap.max", "max");
}

fn memory_kill_is_reported(t: &Test) {
    need();
    let mut b = t.bundle();
    b.set("/linux/resources/memory", json!({"limit": 24 << 20, "swap": 24 << 20}));
    b.payload(&["sleep"]);
    let c = t.create(&b);
    c.start();
    c.line();
    let dir = dir(&c);
    c.exec(&[], &["/bin/payload", &format!("hog={}", 256 << 20)]).code(137);
    assert!(count(&dir, "memory.events", "oom_kill") >= 1, "{}", read(&dir, "memory.events"));
    assert_eq!(c.status(), "running", "only the one that wanted too much");
}

fn swap_is_limited_alone(t: &Test) {
    need();
    if !dir_of_any_group().join("memory.swap.max").exists() {
        suite::skip("swap is not counted");
    }
    let c = with(t, json!({"memory": {"limit": 64 << 20, "swap": 96 << 20}}));
    reads(&c, "memory.swap.max", "33554432");
    let c = with(t, json!({"memory": {"limit": 64 << 20, "swap": 64 << 20}}));
    reads(&c, "memory.swap.max", "0");
    let c = with(t, json!({"memory": {"limit": 64 << 20, "swap": -1}}));
    reads(&c, "memory.swap.max", "max");
}

fn dir_of_any_group() -> PathBuf {
    let has_memory = |e: &fs::DirEntry| e.path().join("memory.max").exists();
    let found = fs::read_dir("/sys/fs/cgroup").unwrap().flatten().find(has_memory);
    found.map_or_else(|| "/sys/fs/cgroup".into(), |e| e.path())
}

fn cpu(t: &Test) {
    need_controller("cpu");
    let c = with(t, json!({"cpu": {"shares": 1024, "quota": 20000, "period": 50000}}));
    reads(&c, "cpu.weight", "100");
    reads(&c, "cpu.max", "20000 50000");
    let dir = dir(&c);
    if dir.join("cpu.max.burst").exists() {
        reads(&with(t, json!({"cpu": {"quota": 20000, "burst": 10000}})), "cpu.max.burst", "10000");
    }
    if t.kind() == Kind::Brig && dir.join("cpu.idle").exists() {
        let c = with(t, json!({"cpu": {"idle": 1}}));
        reads(&c, "cpu.idle", "1");
    }
}

fn cpu_quota_throttles(t: &Test) {
    need_controller("cpu");
    let mut b = t.bundle();
    b.set("/linux/resources/cpu", json!({"quota": 2000, "period": 20000})).payload(&["burn=100"]);
    let c = t.create(&b);
    let dir = dir(&c);
    c.start();
    c.wait_unreaped();
    assert!(count(&dir, "cpu.stat", "nr_throttled") > 2, "{}", read(&dir, "cpu.stat"));
    assert!(count(&dir, "cpu.stat", "throttled_usec") > 0);
}

fn cpuset(t: &Test) {
    need_controller("cpuset");
    let c = with(t, json!({"cpu": {"cpus": "0", "mems": "0"}}));
    reads(&c, "cpuset.cpus", "0");
    reads(&c, "cpuset.mems", "0");
    reads(&c, "cpuset.cpus.effective", "0");
    c.start();
    c.line();
    assert_eq!(c.see(&[], &["sched"])["sched"]["cpus"], "0");
}

fn pids_limit_holds(t: &Test) {
    need();
    let mut b = t.bundle();
    b.set("/linux/resources/pids", json!({"limit": 5}));
    let seen = t.see(&mut b, &["forks=20"]);
    assert_eq!((&seen["forks=20"]["errno"], &seen["forks=20"]["made"]), (&json!("EAGAIN"), &json!(4)));
}

fn exec_at_the_pids_limit_says_so(t: &Test) {
    need();
    t.only_brig("they move a process in, whatever the limit");
    let c = with(t, json!({"pids": {"limit": 1}}));
    c.start();
    c.line();
    c.exec(&[], &["/bin/payload"]).fails(&["limit of processes", "/linux/resources/pids/limit"]);
    assert_eq!(c.status(), "running");
}

/// A whole disk that can be throttled.
fn disk() -> (u64, u64) {
    for entry in fs::read_dir("/sys/block").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if ["loop", "ram", "zram", "sr"].iter().any(|virtual_| name.starts_with(virtual_)) {
            continue;
        }
        let text = fs::read_to_string(entry.path().join("dev")).unwrap_or_default();
        if let Some((major, minor)) = text.trim().split_once(':') {
            return (major.parse().unwrap(), minor.parse().unwrap());
        }
    }
    suite::skip("there is no disk to limit")
}

fn io_limits(t: &Test) {
    need_controller("io");
    let (major, minor) = disk();
    let rate = |rate: u64| json!([{"major": major, "minor": minor, "rate": rate}]);
    let c = with(
        t,
        json!({"blockIO": {
            "throttleReadBpsDevice": rate(1 << 20), "throttleWriteBpsDevice": rate(2 << 20),
            "throttleReadIOPSDevice": rate(100), "throttleWriteIOPSDevice": rate(200),
        }}),
    );
    reads(&c, "io.max", &format!("{major}:{minor} rbps=1048576 wbps=2097152 riops=100 wiops=200"));
    let dir = dir(&c);
    let file = ["io.bfq.weight", "io.weight"].into_iter().find(|file| dir.join(file).exists());
    let Some(file) = file else { return };
    let c = with(t, json!({"blockIO": {"weight": 500}}));
    let wanted = if file == "io.weight" { "default 4950" } else { "default 500" };
    assert!(read(&self::dir(&c), file).lines().any(|l| l == wanted), "{}", read(&self::dir(&c), file));
}

fn huge_pages(t: &Test) {
    need_controller("hugetlb");
    let c = with(t, json!({"hugepageLimits": [{"pageSize": "2MB", "limit": 4 << 20}]}));
    reads(&c, "hugetlb.2MB.max", "4194304");
    if t.kind() == Kind::Brig {
        reads(&c, "hugetlb.2MB.rsvd.max", "4194304");
        let mut b = t.bundle();
        b.set("/linux/resources/hugepageLimits", json!([{"pageSize": "3MB", "limit": 0}]));
        t.create_fails(&b, &["hugepageLimits/0", "2MB"]);
    }
}

fn misc_and_rdma(t: &Test) {
    need_controller("rdma");
    t.only_brig("they say less");
    let mut b = t.bundle();
    b.set("/linux/resources/rdma", json!({"nosuch0": {"hcaHandles": 3}}));
    t.create_fails(&b, &["/linux/resources/rdma/nosuch0", "no such RDMA device"]);
}

fn unified_files(t: &Test) {
    need();
    let c = with(t, json!({"unified": {"memory.high": "40000000", "pids.max": "77", "cgroup.max.depth": "2"}}));
    reads(&c, "memory.high", &(40_000_000 / 4096 * 4096).to_string());
    reads(&c, "pids.max", "77");
    reads(&c, "cgroup.max.depth", "2");
    let mut b = t.bundle();
    for (file, value) in [("memory.nosuch", "1"), ("nosuch.max", "1"), ("pids.max", "many")] {
        b.unset("/linux/resources").set("/linux/resources", json!({"unified": {file: value}}));
        t.create_fails(&b, &[file]);
    }
}

fn what_v2_does_not_have_is_refused(t: &Test) {
    need();
    t.only_brig("they drop some of these in silence");
    let mut b = t.bundle();
    for (resources, pointer) in [
        (json!({"cpu": {"realtimeRuntime": 1000}}), "cpu/realtimeRuntime"),
        (json!({"memory": {"limit": 64 << 20, "swappiness": 10}}), "memory/swappiness"),
        (json!({"network": {"classID": 1}}), "network/classID"),
        (json!({"network": {"priorities": [{"name": "lo", "priority": 5}]}}), "network/priorities/0"),
    ] {
        b.set("/linux/resources", resources);
        t.create_fails(&b, &[&format!("/linux/resources/{pointer}")]);
    }
}

fn devices_are_denied(t: &Test) {
    need();
    let mut b = t.bundle();
    b.capabilities(&["CAP_MKNOD"]);
    let tries = [
        "mknod=c:1:11:/tmp/kmsg",
        "mknod=c:1:3:/tmp/null",
        "write=/tmp/null:x",
        "mknod=b:7:0:/tmp/loop",
        "touch=/tmp/loop",
        "touch=/tmp/kmsg",
    ];
    let seen = t.see(&mut b, &tries);
    for allowed in &tries[..4] {
        assert_eq!(seen[allowed]["ok"], true, "{allowed}: {seen}");
    }
    for denied in &tries[4..] {
        assert_eq!(seen[denied]["errno"], "EPERM", "{denied}: {seen}");
    }
}

fn devices_are_allowed(t: &Test) {
    need();
    let mut b = t.bundle();
    b.capabilities(&["CAP_MKNOD"]).set(
        "/linux/resources/devices",
        json!([{"allow": false, "access": "rwm"}, {"allow": true, "type": "c", "major": 1, "minor": 11, "access": "w"}]),
    );
    let seen = t.see(&mut b, &["mknod=c:1:11:/tmp/kmsg", "touch=/tmp/kmsg", "read=/tmp/kmsg"]);
    assert_eq!(seen["touch=/tmp/kmsg"]["ok"], true, "{seen}");
    assert_eq!(seen["read=/tmp/kmsg"]["errno"], "EPERM", "only writing was allowed: {seen}");
}

fn devices_are_decided_by_the_last_rule(t: &Test) {
    need();
    t.only_brig("a rule that denies writing alone does not stop who reads and writes there");
    let mut b = t.bundle();
    b.capabilities(&["CAP_MKNOD"]).set(
        "/linux/resources/devices",
        json!([
            {"allow": true, "access": "rwm"},
            {"allow": false, "type": "c", "major": 1, "minor": 11, "access": "w"},
            {"allow": false, "type": "b", "access": "m"},
        ]),
    );
    let seen = t.see(&mut b, &["mknod=c:1:11:/tmp/kmsg", "touch=/tmp/kmsg", "mknod=b:7:0:/tmp/loop"]);
    assert_eq!(seen["mknod=c:1:11:/tmp/kmsg"]["ok"], true, "{seen}");
    assert_eq!(seen["touch=/tmp/kmsg"]["errno"], "EPERM", "{seen}");
    // The default devices, of which any node may be made, come after the config's rules.
    assert_eq!(seen["mknod=b:7:0:/tmp/loop"]["ok"], true, "{seen}");
}

fn everything_allowed_needs_no_program(t: &Test) {
    need();
    let mut b = t.bundle();
    b.capabilities(&["CAP_MKNOD"]).set("/linux/resources/devices", json!([{"allow": true, "access": "rwm"}]));
    let seen = t.see(&mut b, &["mknod=c:1:11:/tmp/kmsg", "touch=/tmp/kmsg"]);
    assert_eq!(seen["touch=/tmp/kmsg"]["ok"], true, "{seen}");
}

/// While rules are replaced, what is allowed before and after is never denied, and what is denied in both is never allowed.
fn an_update_replaces_the_devices(t: &Test) {
    need();
    t.only_brig("they leave the devices alone");
    let kmsg = |allow: bool| json!({"devices": [{"allow": allow, "type": "c", "major": 1, "minor": 11, "access": "rw"}]});
    let mut b = t.bundle();
    b.capabilities(&["CAP_MKNOD"]).set("/linux/resources", kmsg(false));
    b.payload(&["mknod=c:1:11:/tmp/kmsg", "mknod=c:1:3:/tmp/null", "mknod=b:7:0:/tmp/loop", "sleep"]);
    let c = t.create(&b);
    c.start();
    c.line();
    let touch = || c.see(&[], &["touch=/tmp/kmsg"])["touch=/tmp/kmsg"].clone();
    assert_eq!(touch()["errno"], "EPERM");
    let watch = c.exec_call(&[], &["/bin/payload", "watch=/tmp/null:/tmp/loop"]).spawn();
    for _ in 0..5 {
        update(&c, &kmsg(true)).code(0);
        assert_eq!(touch()["ok"], true);
        update(&c, &kmsg(false)).code(0);
        assert_eq!(touch()["errno"], "EPERM");
    }
    c.exec(&[], &["/bin/payload", "touch=/tmp/stop"]).code(0);
    let seen = watch.wait().code(0).json();
    assert_eq!(seen["watch=/tmp/null:/tmp/loop"]["wrong"], 0, "{seen}");
    assert!(seen["watch=/tmp/null:/tmp/loop"]["times"].as_u64() > Some(10), "{seen}");
    update(&c, &json!({"devices": [{"allow": true}]})).code(0);
    let seen = c.see(&[], &["touch=/tmp/loop"]);
    assert_ne!(seen["touch=/tmp/loop"]["errno"], "EPERM", "nobody denies it any more");
    update(&c, &json!({"pids": {"limit": 50}})).code(0);
    update(&c, &kmsg(false)).code(0);
    assert_eq!(touch()["errno"], "EPERM");
}

fn an_update_sets_limits(t: &Test) {
    need();
    let c = with(t, json!({"cpu": {"quota": 20000, "period": 50000}, "memory": {"limit": 64 << 20}}));
    c.start();
    c.line();
    let wanted = json!({"memory": {"limit": 128 << 20, "swap": 256 << 20}, "pids": {"limit": 44},
        "cpu": {"shares": 512, "quota": 30000}});
    update(&c, &wanted).code(0);
    reads(&c, "memory.max", "134217728");
    reads(&c, "pids.max", "44");
    if t.kind() == Kind::Brig {
        reads(&c, "cpu.max", "30000 50000");
        reads(&c, "cpu.weight", "59");
    }
}

fn an_update_below_the_usage_is_refused_if_asked(t: &Test) {
    need();
    let c = with(t, json!({"memory": {"limit": 64 << 20}}));
    c.start();
    c.line();
    let low = json!({"memory": {"limit": 4096, "swap": 4096, "checkBeforeUpdate": true}});
    let out = update(&c, &low);
    assert_ne!(out.code, 0);
    assert!(out.stderr.contains("memory"), "{}", out.stderr);
    reads(&c, "memory.max", "67108864");
    assert_eq!(c.status(), "running");
}
