//! Limits as the kernel keeps them, refuses them and enforces them.

use super::*;

#[test]
fn limits_can_go_up_and_down() {
    let Some(layout) = v1_machine() else { return };
    let made = make(&layout, &fresh_path(), r#"{"memory": {"limit": 33554432, "swap": 33554432}}"#);
    let memory = |limit: i64, swap: i64| {
        let resources = resources(&format!(r#"{{"memory": {{"limit": {limit}, "swap": {swap}}}}}"#));
        update(&made.0, &resources).unwrap().apply().unwrap();
        content(&made.0, "memory", "memory.limit_in_bytes")
    };
    assert_eq!(
        memory(67_108_864, 67_108_864),
        "67108864",
        "up: the limit would pass the old limit for memory and swap"
    );
    assert_eq!(memory(16_777_216, 16_777_216), "16777216", "down: the other one would fall below the old limit");
    assert!(memory(-1, 0).len() > 16, "no limit at all takes the one for memory and swap along");
    for cpu in [
        r#"{"quota": 90000, "period": 100000, "burst": 50000}"#,
        r#"{"quota": 4000, "period": 5000, "burst": 1000}"#,
        r#"{"quota": 900000, "period": 1000000, "burst": 900000}"#,
        r#"{"realtimePeriod": 500000, "realtimeRuntime": 2000}"#,
        r#"{"realtimePeriod": 1000, "realtimeRuntime": 500}"#,
        r#"{"shares": 2000, "idle": 1}"#,
        r#"{"shares": 3000, "idle": 0}"#,
    ] {
        let json = resources(&format!(r#"{{"cpu": {cpu}}}"#));
        update(&made.0, &json).unwrap().apply().unwrap_or_else(|e| panic!("{cpu}: {e}"));
    }
    assert_eq!(content(&made.0, "cpu", "cpu.cfs_period_us"), "1000000");
    assert_eq!(content(&made.0, "cpu", "cpu.cfs_burst_us"), "900000");
}

#[test]
fn a_refused_value_leaves_nothing_and_says_all() {
    let Some(layout) = v1_machine() else { return };
    let path = fresh_path();
    let resources = resources(r#"{"cpu": {"cpus": "4095"}}"#);
    let plan = compile(&layout, &request(Some(&format!("{path}/web")), &resources)).unwrap();
    let error = plan.create().unwrap_err();
    let text = error.to_string();
    for part in ["write 4095 to ", "/cpuset.cpus", "/linux/resources/cpu/cpus", "hint: ", "parent's cpuset.cpus"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!plan.record().exists());
    assert!(!Path::new(&format!("/sys/fs/cgroup/freezer{path}")).exists());
    let huge = super::tests::resources(r#"{"memory": {"limit": 4611686018427387904, "swap": 1}}"#);
    assert!(compile(&layout, &request(None, &huge)).is_err());
}

#[test]
fn empty_parents_of_a_cpuset_are_filled() {
    let Some(layout) = v1_machine() else { return };
    let parent = fresh_path();
    let cpuset = layout.hierarchies.iter().find(|h| h.controllers == ["cpuset"]).unwrap();
    let foreign = PathBuf::from(format!("{}{parent}", cpuset.mount));
    fs::create_dir(&foreign).unwrap();
    let made = make(&layout, &format!("{parent}/in/web"), r#"{"cpu": {"cpus": "0"}}"#);
    let all = fs::read_to_string(foreign.join("cpuset.cpus"));
    let own = content(&made.0, "cpuset", "cpuset.cpus");
    drop(made);
    fs::remove_dir(&foreign).unwrap();
    assert_eq!(all.unwrap(), fs::read_to_string(format!("{}/cpuset.cpus", cpuset.mount)).unwrap());
    assert_eq!(own, "0");
}

#[test]
fn huge_pages_on_a_hybrid_host() {
    let Some(layout) = v1_machine() else { return };
    if !layout.unified().is_some_and(|h| h.controllers.iter().any(|c| c == "hugetlb")) {
        eprintln!("skipped: needs hugetlb in the v2 tree of a hybrid host");
        return;
    }
    let made = make(&layout, &fresh_path(), r#"{"hugepageLimits": [{"pageSize": "2MB", "limit": 4194304}]}"#);
    assert_eq!(content(&made.0, "hugetlb", "hugetlb.2MB.max"), "4194304");
    assert_eq!(content(&made.0, "hugetlb", "hugetlb.2MB.rsvd.max"), "4194304");
    let child = sleeper(&made.0);
    let cgroups = fs::read_to_string(format!("/proc/{}/cgroup", child.pid)).unwrap();
    assert!(cgroups.lines().any(|line| line.starts_with("0::/brig-test-")), "cloned into it: {cgroups}");
    made.0.kill(libc::SIGKILL).unwrap();
    child.wait().unwrap();

    let resources = resources(r#"{"hugepageLimits": [{"pageSize": "3MB", "limit": 0}]}"#);
    let error = compile(&layout, &request(Some(&fresh_path()), &resources)).unwrap().create().unwrap_err();
    assert!(
        error.to_string().contains("page sizes of this kernel are") && error.to_string().contains("2MB"),
        "{error}"
    );
}

#[test]
fn block_io_of_a_real_disk() {
    let Some(layout) = v1_machine() else { return };
    let disks = fs::read_dir("/sys/block").into_iter().flatten().flatten();
    let numbers = |e: fs::DirEntry| fs::read_to_string(e.path().join("dev")).ok();
    let Some(disk) =
        disks.filter_map(numbers).next().filter(|_| layout.hierarchies.iter().any(|h| h.controllers == ["blkio"]))
    else {
        eprintln!("skipped: needs a disk and the v1 blkio controller");
        return;
    };
    let (major, minor) = disk.trim().split_once(':').unwrap();
    let json = |major: &str, minor: &str| {
        format!(
            r#"{{"blockIO": {{"weight": 300,
                "throttleReadBpsDevice": [{{"major": {major}, "minor": {minor}, "rate": 1048576}}],
                "throttleWriteIOPSDevice": [{{"major": {major}, "minor": {minor}, "rate": 100}}]}}}}"#
        )
    };
    let made = make(&layout, &fresh_path(), &json(major, minor));
    assert_eq!(content(&made.0, "blkio", "blkio.throttle.read_bps_device"), format!("{major}:{minor} 1048576"));
    assert_eq!(content(&made.0, "blkio", "blkio.throttle.write_iops_device"), format!("{major}:{minor} 100"));

    let none = resources(&json("4000", "0"));
    let error = compile(&layout, &request(Some(&fresh_path()), &none)).unwrap().create().unwrap_err().to_string();
    assert!(error.contains("throttleReadBpsDevice/0") && error.contains("no such block device"), "{error}");
}

#[test]
fn out_of_memory_is_counted() {
    let Some(layout) = v1_machine() else { return };
    let made = make(&layout, &fresh_path(), r#"{"memory": {"limit": 8388608, "swap": 8388608}, "pids": {"limit": 5}}"#);
    assert_eq!(made.0.oom_kills(), Some(0));
    let mut watch = made.0.oom_watch().unwrap();
    assert_eq!(watch.read().unwrap(), 0);
    let mut hungry = script(&made.0, "exec tail /dev/zero");
    hungry.wait().unwrap();
    assert!(made.0.oom_kills() >= Some(1));
    assert!(watch.read().unwrap() >= 1);
    let stats = made.0.stats().unwrap();
    assert_eq!((stats.memory.usage.limit, stats.pids.limit), (8_388_608, 5));
    assert!(stats.memory.usage.max == 8_388_608 && stats.cpu.total > 0 && !stats.cpu.percpu.is_empty(), "{stats:?}");
    assert_eq!(watch.read().unwrap(), 0, "what was told is not told again");
    made.0.remove().unwrap();
    assert_eq!(watch.read().unwrap(), 0, "the end of a cgroup is no want of memory");
}
