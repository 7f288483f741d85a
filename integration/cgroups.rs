//! Cgroups: where the container is put, and its limits as read back from the host. v1 here; v2 needs another machine.

use crate::support::{Bundle, Call, Container, Kind, Test, cases, host, json, suite};
use std::fs;
use std::path::Path;

cases![
    a_cgroup_in_every_hierarchy,
    the_path_of_the_config,
    a_relative_path,
    memory,
    memory_swap_and_swappiness,
    memory_check_before_update,
    cpu,
    cpu_realtime,
    cpuset,
    pids,
    pids_limit_holds,
    pids_zero_is_a_limit,
    block_io,
    huge_pages,
    network,
    rdma,
    unified_needs_v2,
    a_process_over_its_memory_is_killed,
    limits_are_there_before_the_process_is,
    nothing_is_left_after_delete,
    a_sub_cgroup_of_the_container_goes_too,
    two_containers_in_one_cgroup_are_refused,
    no_cgroup_manager,
    exec_in_a_cgroup_below,
    a_container_sees_its_cgroup_as_the_root,
];

fn need(controller: &str) {
    if !host::has_v1(controller) {
        suite::skip(format!("there is no v1 {controller} controller"));
    }
}

/// A container that waits, with these resources.
fn with<'t>(t: &'t Test, set: &[(&str, serde_json::Value)]) -> Container<'t> {
    let mut b = t.bundle();
    b.payload(&["sleep"]);
    for (pointer, value) in set {
        b.set(&format!("/linux/resources{pointer}"), value.clone());
    }
    t.create(&b)
}

#[track_caller]
fn reads(c: &Container, controller: &str, file: &str, wanted: &str) {
    assert_eq!(host::cgroup_file(c.pid, controller, file), wanted, "{file}");
}

const ALL: [&str; 9] = ["cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids", "name=systemd"];

fn a_cgroup_in_every_hierarchy(t: &Test) {
    let c = with(t, &[]);
    for controller in ALL.into_iter().filter(|c| host::has_v1(c)) {
        let dir = host::cgroup_dir(c.pid, controller).unwrap();
        assert!(dir.ends_with(&c.id), "{controller}: {}", dir.display());
        assert_eq!(fs::read_to_string(dir.join("cgroup.procs")).unwrap().trim(), c.pid.to_string());
    }
}

fn the_path_of_the_config(t: &Test) {
    need("pids");
    let mut b = t.bundle();
    b.set("/linux/cgroupsPath", json!(format!("/{0}-outer/{0}-inner", t.id()))).payload(&["sleep"]);
    let c = t.create(&b);
    let dir = host::cgroup_dir(c.pid, "pids").unwrap();
    assert!(dir.ends_with(format!("{0}-outer/{0}-inner", t.id())), "{}", dir.display());
    c.call(&["delete", "--force"]).ok();
    assert!(!dir.exists());
    for outer in host::cgroups_named(&format!("{}-outer", t.id())) {
        fs::remove_dir(outer).unwrap();
    }
}

fn a_relative_path(t: &Test) {
    need("pids");
    let mut b = t.bundle();
    b.set("/linux/cgroupsPath", json!(format!("{}-relative", t.id()))).payload(&["sleep"]);
    let c = t.create(&b);
    let dir = host::cgroup_dir(c.pid, "pids").unwrap();
    assert!(dir.ends_with(format!("{}-relative", t.id())), "{}", dir.display());
}

fn memory(t: &Test) {
    need("memory");
    let c = with(t, &[("/memory", json!({"limit": 64 << 20, "reservation": 32 << 20}))]);
    reads(&c, "memory", "memory.limit_in_bytes", "67108864");
    reads(&c, "memory", "memory.soft_limit_in_bytes", "33554432");
}

fn memory_swap_and_swappiness(t: &Test) {
    need("memory");
    let c = with(t, &[("/memory", json!({"limit": 64 << 20, "swappiness": 30, "disableOOMKiller": true}))]);
    reads(&c, "memory", "memory.swappiness", "30");
    assert!(host::cgroup_file(c.pid, "memory", "memory.oom_control").contains("oom_kill_disable 1"));
    if host::cgroup_dir(c.pid, "memory").unwrap().join("memory.memsw.limit_in_bytes").exists() {
        let c = with(t, &[("/memory", json!({"limit": 64 << 20, "swap": 128 << 20}))]);
        reads(&c, "memory", "memory.memsw.limit_in_bytes", "134217728");
    }
}

fn memory_check_before_update(t: &Test) {
    t.only_brig("they heed it in update only, where there is use already");
    need("memory");
    let c = with(t, &[("/memory", json!({"limit": 64 << 20, "checkBeforeUpdate": true}))]);
    reads(&c, "memory", "memory.limit_in_bytes", "67108864");
}

fn cpu(t: &Test) {
    need("cpu");
    let c = with(t, &[("/cpu", json!({"shares": 512, "quota": 20000, "period": 50000}))]);
    reads(&c, "cpu", "cpu.shares", "512");
    reads(&c, "cpu", "cpu.cfs_quota_us", "20000");
    reads(&c, "cpu", "cpu.cfs_period_us", "50000");
    let dir = host::cgroup_dir(c.pid, "cpu").unwrap();
    if t.kind() == Kind::Brig && dir.join("cpu.cfs_burst_us").exists() {
        let c = with(t, &[("/cpu", json!({"quota": 20000, "period": 50000, "burst": 10000}))]);
        reads(&c, "cpu", "cpu.cfs_burst_us", "10000");
    }
    if t.kind() == Kind::Brig && dir.join("cpu.idle").exists() {
        let c = with(t, &[("/cpu", json!({"idle": 1}))]);
        reads(&c, "cpu", "cpu.idle", "1");
    }
}

fn cpu_realtime(t: &Test) {
    need("cpu");
    let c = with(t, &[]);
    if !host::cgroup_dir(c.pid, "cpu").unwrap().join("cpu.rt_runtime_us").exists() {
        let mut b = t.bundle();
        b.set("/linux/resources/cpu", json!({"realtimeRuntime": 1000, "realtimePeriod": 100_000}));
        t.create_fails(&b, &["realtime"]);
        suite::skip("the kernel has no real-time group scheduling; that it is refused was tested");
    }
    let c = with(t, &[("/cpu", json!({"realtimeRuntime": 1000, "realtimePeriod": 100_000}))]);
    reads(&c, "cpu", "cpu.rt_runtime_us", "1000");
}

fn cpuset(t: &Test) {
    need("cpuset");
    let c = with(t, &[("/cpu", json!({"cpus": "0", "mems": "0"}))]);
    reads(&c, "cpuset", "cpuset.cpus", "0");
    reads(&c, "cpuset", "cpuset.mems", "0");
    c.start();
    c.line();
    assert_eq!(c.see(&[], &["sched"])["sched"]["cpus"], "0");
    if t.kind() != Kind::Crun {
        let mut b = t.bundle();
        b.set("/linux/resources/cpu", json!({"cpus": "4000"}));
        t.create_fails(&b, &["cpu"]);
    }
}

fn pids(t: &Test) {
    need("pids");
    let c = with(t, &[("/pids", json!({"limit": 33}))]);
    reads(&c, "pids", "pids.max", "33");
    if t.kind() != Kind::Crun {
        let c = with(t, &[("/pids", json!({"limit": -1}))]);
        reads(&c, "pids", "pids.max", "max");
    }
}

fn pids_limit_holds(t: &Test) {
    need("pids");
    let mut b = t.bundle();
    b.set("/linux/resources/pids", json!({"limit": 5}));
    let seen = t.see(&mut b, &["forks=20"]);
    assert_eq!(seen["forks=20"]["errno"], "EAGAIN");
    assert_eq!(seen["forks=20"]["made"], 4);
}

fn pids_zero_is_a_limit(t: &Test) {
    t.only_brig("to their releases of then, 0 is no limit");
    need("pids");
    let mut b = t.bundle();
    b.set("/linux/resources/pids", json!({"limit": 0}));
    let seen = t.see(&mut b, &["forks=3"]);
    assert_eq!((&seen["forks=3"]["errno"], &seen["forks=3"]["made"]), (&json!("EAGAIN"), &json!(0)));
}

fn block_io(t: &Test) {
    need("blkio");
    let Some((major, minor)) = disk() else { suite::skip("there is no disk to limit") };
    let rate = |rate: u64| json!([{"major": major, "minor": minor, "rate": rate}]);
    let c = with(
        t,
        &[(
            "/blockIO",
            json!({
                "throttleReadBpsDevice": rate(1 << 20), "throttleWriteBpsDevice": rate(2 << 20), "throttleReadIOPSDevice": rate(100), "throttleWriteIOPSDevice": rate(200),
            }),
        )],
    );
    for (file, wanted) in [("read_bps", 1 << 20), ("write_bps", 2 << 20), ("read_iops", 100), ("write_iops", 200)] {
        reads(&c, "blkio", &format!("blkio.throttle.{file}_device"), &format!("{major}:{minor} {wanted}"));
    }
    let dir = host::cgroup_dir(c.pid, "blkio").unwrap();
    for (file, weight) in [("blkio.weight", 500), ("blkio.bfq.weight", 500)] {
        if dir.join(file).exists() && (t.kind() != Kind::Crun || file == "blkio.weight") {
            reads(&with(t, &[("/blockIO", json!({"weight": weight}))]), "blkio", file, "500");
        }
    }
}

/// A whole disk, that can be throttled.
fn disk() -> Option<(u64, u64)> {
    fs::read_dir("/sys/block").ok()?.flatten().find_map(|entry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with("loop") || name.starts_with("ram") || name.starts_with("zram") {
            return None;
        }
        let text = fs::read_to_string(entry.path().join("dev")).ok()?;
        let (major, minor) = text.trim().split_once(':')?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    })
}

fn huge_pages(t: &Test) {
    need("hugetlb");
    let c = with(t, &[("/hugepageLimits", json!([{"pageSize": "2MB", "limit": 4 << 20}]))]);
    reads(&c, "hugetlb", "hugetlb.2MB.limit_in_bytes", "4194304");
}

fn network(t: &Test) {
    need("net_cls");
    let c = with(t, &[("/network", json!({"classID": 0x10_0001, "priorities": [{"name": "lo", "priority": 5}]}))]);
    reads(&c, "net_cls", "net_cls.classid", "1048577");
    assert!(host::cgroup_file(c.pid, "net_prio", "net_prio.ifpriomap").contains("lo 5"));
}

fn rdma(t: &Test) {
    need("rdma");
    let c = with(t, &[("/rdma", json!({"mlx5_1": {"hcaHandles": 3, "hcaObjects": 10000}}))]);
    assert!(host::cgroup_file(c.pid, "rdma", "rdma.max").contains("hca_handle"));
}

fn unified_needs_v2(t: &Test) {
    t.differs(Kind::Crun, "it drops what it cannot apply");
    need("memory");
    let mut b = t.bundle();
    b.set("/linux/resources/unified", json!({"memory.high": "1000000"}));
    t.create_fails(&b, &["unified"]);
}

fn a_process_over_its_memory_is_killed(t: &Test) {
    need("memory");
    let mut b = t.bundle();
    b.set("/linux/resources/memory", json!({"limit": 32 << 20})).payload(&[&format!("hog={}", 256 << 20)]);
    t.run(&b).code(137);
}

/// A container that is over its limit from the start must not come to be, in words that say why.
fn limits_are_there_before_the_process_is(t: &Test) {
    need("memory");
    let mut b: Bundle = t.bundle();
    b.set("/linux/resources/memory", json!({"limit": 4096}));
    let out = t.run(&b);
    assert_ne!(out.code, 0);
    if t.kind() == Kind::Brig {
        assert!(out.stderr.to_lowercase().contains("memory"), "{}", out.stderr);
    }
}

fn nothing_is_left_after_delete(t: &Test) {
    let c = with(t, &[("/pids", json!({"limit": 10}))]);
    assert!(!host::cgroups_named(&c.id).is_empty());
    c.call(&["delete", "--force"]).ok();
    assert_eq!(host::cgroups_named(&c.id), Vec::<std::path::PathBuf>::new());
}

fn a_sub_cgroup_of_the_container_goes_too(t: &Test) {
    need("pids");
    let c = with(t, &[]);
    let dir = host::cgroup_dir(c.pid, "pids").unwrap();
    make(&dir.join("sub"));
    make(&dir.join("sub/deeper"));
    c.call(&["delete", "--force"]).ok();
    assert!(!dir.exists());
}

fn make(dir: &Path) {
    fs::create_dir(dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
}

/// What ends one would end the other.
fn two_containers_in_one_cgroup_are_refused(t: &Test) {
    t.differs(Kind::Crun, "it allows them, and ends them together");
    let mut b = t.bundle();
    b.set("/linux/cgroupsPath", json!(format!("/{}-shared", t.id()))).payload(&["sleep"]);
    let first = t.create(&b);
    b.write();
    let out = t.call(&["create", "--bundle", b.path(), &t.new_id()]).out();
    if t.kind() == Kind::Brig {
        out.fails(&["cgroup"]);
    }
    assert_eq!(first.status(), "created");
}

fn no_cgroup_manager(t: &Test) {
    t.differs(Kind::Runc, "it has no --cgroup-manager");
    let mut b = t.bundle();
    b.unset("/linux/resources").payload(&["cgroup"]).write();
    let globals = ["--cgroup-manager", "disabled"];
    let seen = Call::new(t, &globals, &["run", "--bundle", b.path(), &t.new_id()]).ok().json();
    let own = fs::read_to_string("/proc/self/cgroup").unwrap();
    assert_eq!(seen["cgroup"], json!(own.lines().collect::<Vec<_>>()), "it stays where it was started");
    if t.kind() == Kind::Brig {
        b.set("/linux/resources/pids", json!({"limit": 5})).write();
        let out = Call::new(t, &globals, &["run", "--bundle", b.path(), &t.new_id()]).out();
        assert!(out.stderr.contains("/linux/resources"), "limits may not be left aside in silence: {}", out.stderr);
    }
}

fn exec_in_a_cgroup_below(t: &Test) {
    t.differs(Kind::Runc, "1.1 has it for v2 and single v1 controllers only");
    t.differs(Kind::Crun, "1.8.1 has it for v2 only");
    need("pids");
    let c = with(t, &[]);
    c.start();
    c.line();
    let dir = host::cgroup_dir(c.pid, "pids").unwrap();
    for controller in ALL.into_iter().filter(|c| host::has_v1(c)) {
        let dir = host::cgroup_dir(c.pid, controller).unwrap();
        make(&dir.join("below"));
        for file in ["cpuset.cpus", "cpuset.mems"].iter().filter(|_| controller == "cpuset") {
            fs::write(dir.join("below").join(file), fs::read(dir.join(file)).unwrap()).unwrap();
        }
    }
    let inside = format!("{}/below", dir.file_name().unwrap().to_string_lossy());
    let seen = c.see(&["--cgroup", "below"], &["cgroup"]);
    let lines = seen["cgroup"].as_array().unwrap();
    assert!(lines.iter().any(|l| l.as_str().unwrap().contains(":pids:") && l.as_str().unwrap().ends_with(&inside)), "{seen}");
    c.exec(&["--cgroup", "nowhere"], &["/bin/payload"]).fails(&["nowhere"]);
    c.exec(&["--cgroup", "../.."], &["/bin/payload"]).fails(&[]);
}

fn a_container_sees_its_cgroup_as_the_root(t: &Test) {
    need("pids");
    let mut b = t.bundle();
    b.namespace("cgroup", None).mount("/sys/fs/cgroup", "cgroup", "cgroup", &["ro"]);
    b.set("/linux/resources/pids", json!({"limit": 21}));
    let seen = t.see(&mut b, &["cgfile=pids/pids.max", "cgfile=pids/cgroup.procs", "mkdir=/sys/fs/cgroup/pids/x"]);
    assert_eq!(seen["cgfile=pids/pids.max"]["ok"], "21\n");
    assert_eq!(seen["cgfile=pids/cgroup.procs"]["ok"], "1\n");
    assert_eq!(seen["mkdir=/sys/fs/cgroup/pids/x"]["errno"], "EROFS");
}
