//! Tables for [`compile`]: a layout made by hand, a piece of config.json, and the writes expected, in order.

use super::*;

static NO_ANNOTATIONS: &std::collections::BTreeMap<String, String> = &std::collections::BTreeMap::new();

fn hierarchy(version: Version, controllers: &str, mount: &str, own: &str) -> Hierarchy {
    Hierarchy {
        version,
        controllers: controllers.split(' ').filter(|c| !c.is_empty()).map(Into::into).collect(),
        mount: mount.into(),
        own: own.into(),
    }
}

/// Every v1 controller in a hierarchy of its own, and a v2 tree with only hugetlb.
pub(super) fn hybrid() -> Layout {
    let v1 = "blkio cpu cpuacct cpuset devices freezer memory net_cls net_prio perf_event pids rdma";
    let mut hierarchies: Vec<Hierarchy> =
        v1.split(' ').map(|c| hierarchy(Version::V1, c, &format!("/sys/fs/cgroup/{c}"), "/")).collect();
    hierarchies.push(hierarchy(Version::V1, "name=systemd", "/sys/fs/cgroup/systemd", "/"));
    hierarchies.push(hierarchy(Version::V2, "hugetlb", "/sys/fs/cgroup/unified", "/"));
    Layout { hierarchies }
}

fn v2() -> Layout {
    let controllers = "cpuset cpu io memory hugetlb pids rdma";
    Layout { hierarchies: vec![hierarchy(Version::V2, controllers, "/sys/fs/cgroup", "/user.slice/session")] }
}

pub(super) fn resources(json: &str) -> Resources {
    serde_json::from_str(json).unwrap()
}

pub(super) fn request<'a>(path: Option<&'a str>, resources: &'a Resources) -> Request<'a> {
    Request {
        path,
        id: "web",
        resources,
        manager: Manager::Cgroupfs,
        annotations: NO_ANNOTATIONS,
        default_devices: true,
        rootless: false,
        owner: None,
    }
}

/// `file=value @pointer` for each write; device rules are left out, they have their own tests.
fn writes(layout: &Layout, json: &str) -> Vec<String> {
    let resources = resources(json);
    let plan = compile(layout, &Request { rootless: true, ..request(None, &resources) }).unwrap();
    let dir = |w: &Write| plan.groups[w.group].path.trim_start_matches("/sys/fs/cgroup/").to_owned();
    let line = |w: &Write| {
        let short = w.pointer.trim_start_matches("/linux/resources/");
        let or = w.instead.as_ref().map_or(String::new(), |(file, value)| format!(" or {file}={value}"));
        format!("{}/{}={}{or}{} @{short}", dir(w), w.file, w.value, if w.missing_ok { " if there" } else { "" })
    };
    plan.writes.iter().map(line).collect()
}

fn problems(layout: &Layout, json: &str) -> Vec<String> {
    let resources = resources(json);
    let request = Request { rootless: true, ..request(None, &resources) };
    compile(layout, &request).unwrap_err().iter().map(ToString::to_string).collect()
}

#[test]
fn memory_v1() {
    let json = r#"{"memory": {"limit": 268435456, "swap": 536870912, "reservation": 1048576, "swappiness": 0,
        "disableOOMKiller": true, "useHierarchy": true, "checkBeforeUpdate": true}}"#;
    assert_eq!(
        writes(&hybrid(), json),
        [
            "memory/web/memory.limit_in_bytes=268435456 @memory/limit",
            "memory/web/memory.memsw.limit_in_bytes=536870912 @memory/swap",
            "memory/web/memory.soft_limit_in_bytes=1048576 @memory/reservation",
            "memory/web/memory.swappiness=0 @memory/swappiness",
            "memory/web/memory.oom_control=1 @memory/disableOOMKiller",
            "memory/web/memory.use_hierarchy=1 @memory/useHierarchy",
        ]
    );
    assert_eq!(
        writes(&hybrid(), r#"{"memory": {"limit": -1}}"#),
        [
            "memory/web/memory.limit_in_bytes=-1 @memory/limit",
            "memory/web/memory.memsw.limit_in_bytes=-1 if there @memory/limit",
        ]
    );
}

#[test]
fn memory_v2() {
    let json = r#"{"memory": {"limit": 268435456, "swap": 536870912, "reservation": -1, "useHierarchy": true,
        "checkBeforeUpdate": true}}"#;
    assert_eq!(
        writes(&v2(), json),
        [
            "user.slice/web/memory.swap.max=268435456 @memory/swap",
            "user.slice/web/memory.max=268435456 @memory/limit",
            "user.slice/web/memory.low=max @memory/reservation",
        ]
    );
    let same = r#"{"memory": {"limit": 1000, "swap": 1000}}"#;
    assert_eq!(writes(&v2(), same)[0], "user.slice/web/memory.swap.max=0 if there @memory/swap");
    let unlimited = r#"{"memory": {"limit": -1}}"#;
    assert_eq!(
        writes(&v2(), unlimited),
        ["user.slice/web/memory.swap.max=max if there @memory/limit", "user.slice/web/memory.max=max @memory/limit"]
    );
    assert_eq!(
        writes(&v2(), r#"{"memory": {"swap": -1}}"#),
        ["user.slice/web/memory.swap.max=max if there @memory/swap"]
    );
}

#[test]
fn cpu_v1() {
    let json = r#"{"cpu": {"shares": 512, "quota": 50000, "period": 100000, "burst": 0, "realtimeRuntime": 950000,
        "realtimePeriod": 1000000, "idle": 0, "cpus": "0-1", "mems": "0"}}"#;
    assert_eq!(
        writes(&hybrid(), json),
        [
            "cpu/web/cpu.shares=512 @cpu/shares",
            "cpu/web/cpu.idle=0 @cpu/idle",
            "cpu/web/cpu.cfs_period_us=100000 @cpu/period",
            "cpu/web/cpu.cfs_quota_us=50000 @cpu/quota",
            "cpu/web/cpu.cfs_burst_us=0 @cpu/burst",
            "cpu/web/cpu.rt_period_us=1000000 @cpu/realtimePeriod",
            "cpu/web/cpu.rt_runtime_us=950000 @cpu/realtimeRuntime",
            "cpuset/web/cpuset.cpus=0-1 or cpus=0-1 @cpu/cpus",
            "cpuset/web/cpuset.mems=0 or mems=0 @cpu/mems",
        ]
    );
}

#[test]
fn cpu_v2() {
    let json = r#"{"cpu": {"shares": 1024, "quota": 50000, "period": 200000, "burst": 10000, "idle": 1, "cpus": "0"}}"#;
    assert_eq!(
        writes(&v2(), json),
        [
            "user.slice/web/cpu.weight=100 @cpu/shares",
            "user.slice/web/cpu.idle=1 @cpu/idle",
            "user.slice/web/cpu.max=50000 200000 @cpu/quota",
            "user.slice/web/cpu.max.burst=10000 @cpu/burst",
            "user.slice/web/cpuset.cpus=0 or cpus=0 @cpu/cpus",
        ]
    );
    for (json, max) in [
        (r#"{"cpu": {"quota": 50000}}"#, "50000 100000"),
        (r#"{"cpu": {"quota": -1}}"#, "max 100000"),
        (r#"{"cpu": {"period": 50000}}"#, "max 50000"),
    ] {
        assert!(writes(&v2(), json)[0].starts_with(&format!("user.slice/web/cpu.max={max} @")), "{json}");
    }
}

#[test]
fn pids() {
    for (limit, value) in [(0, "0"), (100, "100"), (-1, "max")] {
        let json = format!(r#"{{"pids": {{"limit": {limit}}}}}"#);
        assert_eq!(writes(&hybrid(), &json), [format!("pids/web/pids.max={value} @pids/limit")]);
        assert_eq!(writes(&v2(), &json), [format!("user.slice/web/pids.max={value} @pids/limit")]);
    }
}

#[test]
fn block_io_v1() {
    let json = r#"{"blockIO": {"weight": 500, "leafWeight": 10,
        "weightDevice": [{"major": 8, "minor": 0, "weight": 300, "leafWeight": 200}],
        "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 1}], "throttleWriteBpsDevice": [{"major": 8, "minor": 1, "rate": 2}],
        "throttleReadIOPSDevice": [{"major": 8, "minor": 2, "rate": 3}],
        "throttleWriteIOPSDevice": [{"major": 8, "minor": 3, "rate": 0}]}}"#;
    assert_eq!(
        writes(&hybrid(), json),
        [
            "blkio/web/blkio.weight=500 or blkio.bfq.weight=500 @blockIO/weight",
            "blkio/web/blkio.leaf_weight=10 @blockIO/leafWeight",
            "blkio/web/blkio.weight_device=8:0 300 or blkio.bfq.weight_device=8:0 300 @blockIO/weightDevice/0/weight",
            "blkio/web/blkio.leaf_weight_device=8:0 200 @blockIO/weightDevice/0/leafWeight",
            "blkio/web/blkio.throttle.read_bps_device=8:0 1 @blockIO/throttleReadBpsDevice/0",
            "blkio/web/blkio.throttle.write_bps_device=8:1 2 @blockIO/throttleWriteBpsDevice/0",
            "blkio/web/blkio.throttle.read_iops_device=8:2 3 @blockIO/throttleReadIOPSDevice/0",
            "blkio/web/blkio.throttle.write_iops_device=8:3 0 @blockIO/throttleWriteIOPSDevice/0",
        ]
    );
}

#[test]
fn block_io_v2() {
    let json = r#"{"blockIO": {"weight": 500, "weightDevice": [{"major": 8, "minor": 0, "weight": 1000}],
        "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 1}], "throttleWriteBpsDevice": [{"major": 8, "minor": 1, "rate": 2}],
        "throttleReadIOPSDevice": [{"major": 8, "minor": 2, "rate": 3}],
        "throttleWriteIOPSDevice": [{"major": 8, "minor": 3, "rate": 0}]}}"#;
    assert_eq!(
        writes(&v2(), json),
        [
            "user.slice/web/io.bfq.weight=500 or io.weight=4950 @blockIO/weight",
            "user.slice/web/io.bfq.weight=8:0 1000 or io.weight=8:0 10000 @blockIO/weightDevice/0/weight",
            "user.slice/web/io.max=8:0 rbps=1 @blockIO/throttleReadBpsDevice/0",
            "user.slice/web/io.max=8:1 wbps=2 @blockIO/throttleWriteBpsDevice/0",
            "user.slice/web/io.max=8:2 riops=3 @blockIO/throttleReadIOPSDevice/0",
            "user.slice/web/io.max=8:3 wiops=max @blockIO/throttleWriteIOPSDevice/0",
        ]
    );
}

#[test]
fn the_rest_v1() {
    let json = r#"{"network": {"classID": 1048577, "priorities": [{"name": "eth0", "priority": 5}]},
        "rdma": {"mlx5_0": {"hcaHandles": 3, "hcaObjects": 10000}, "mlx4_0": {"hcaObjects": 0}, "none": {}}}"#;
    assert_eq!(
        writes(&hybrid(), json),
        [
            "net_cls/web/net_cls.classid=1048577 @network/classID",
            "net_prio/web/net_prio.ifpriomap=eth0 5 @network/priorities/0",
            "rdma/web/rdma.max=mlx4_0 hca_object=0 @rdma/mlx4_0",
            "rdma/web/rdma.max=mlx5_0 hca_handle=3 hca_object=10000 @rdma/mlx5_0",
        ]
    );
}

#[test]
fn huge_pages_are_limited_where_the_controller_is() {
    let json = r#"{"hugepageLimits": [{"pageSize": "2MB", "limit": 0}]}"#;
    assert_eq!(
        writes(&hybrid(), json),
        [
            "unified/web/hugetlb.2MB.max=0 @hugepageLimits/0",
            "unified/web/hugetlb.2MB.rsvd.max=0 if there @hugepageLimits/0"
        ]
    );
    let v1 = Layout { hierarchies: vec![hierarchy(Version::V1, "hugetlb", "/sys/fs/cgroup/hugetlb", "/")] };
    assert_eq!(
        writes(&v1, json),
        [
            "hugetlb/web/hugetlb.2MB.limit_in_bytes=0 @hugepageLimits/0",
            "hugetlb/web/hugetlb.2MB.rsvd.limit_in_bytes=0 if there @hugepageLimits/0"
        ]
    );
}

#[test]
fn unified() {
    let json =
        r#"{"memory": {"limit": 1000}, "unified": {"memory.high": "500", "io.max": "8:0 rbps=1\n8:16 rbps=2\n"}}"#;
    assert_eq!(
        writes(&v2(), json),
        [
            "user.slice/web/memory.max=1000 @memory/limit",
            "user.slice/web/io.max=8:0 rbps=1 @unified/io.max",
            "user.slice/web/io.max=8:16 rbps=2 @unified/io.max",
            "user.slice/web/memory.high=500 @unified/memory.high",
        ]
    );
    let here = r#"{"unified": {"hugetlb.2MB.max": "0", "cgroup.max.depth": "1"}}"#;
    assert_eq!(writes(&hybrid(), here).len(), 2);
    for (json, layout) in [
        (r#"{"unified": {"memory.high": "1"}}"#, hybrid()),
        (r#"{"unified": {"misc.max": "1"}}"#, v2()),
        (r#"{"unified": {"../x.y": "1"}}"#, v2()),
        (r#"{"unified": {"plain": "1"}}"#, v2()),
        (r#"{"unified": {"cgroup.procs": "1"}}"#, v2()),
    ] {
        assert_eq!(problems(&layout, json).len(), 1, "{json}");
        assert!(problems(&layout, json)[0].starts_with("/linux/resources/unified/"), "{json}");
    }
    assert!(problems(&v2(), r#"{"unified": {"a/b.c": "1"}}"#)[0].starts_with("/linux/resources/unified/a~1b.c: "));
}

#[test]
fn zero_and_absent_ask_for_nothing() {
    let json = r#"{"memory": {"limit": 0, "swap": 0, "reservation": 0, "kernel": 0, "disableOOMKiller": false},
        "cpu": {"shares": 0, "quota": 0, "period": 0, "realtimeRuntime": 0, "realtimePeriod": 0, "cpus": "", "mems": ""},
        "pids": {}, "blockIO": {"weight": 0, "leafWeight": 0, "weightDevice": []}, "network": {"classID": 0}}"#;
    for layout in [hybrid(), v2(), Layout::default()] {
        assert_eq!(writes(&layout, json), [""; 0]);
    }
}

#[test]
fn what_the_host_lacks_is_named() {
    let json = r#"{"memory": {"limit": 1000}, "pids": {"limit": 5}, "network": {"classID": 1},
        "hugepageLimits": [{"pageSize": "2MB", "limit": 1}], "rdma": {"a": {"hcaHandles": 1}}, "unified": {"a.b": "1"}}"#;
    let found = problems(&Layout::default(), json);
    for (pointer, missing) in [
        ("/linux/resources/memory/limit", "memory"),
        ("/linux/resources/pids/limit", "pids"),
        ("/linux/resources/network/classID", "net_cls"),
        ("/linux/resources/hugepageLimits/0", "hugetlb"),
        ("/linux/resources/rdma/a", "rdma"),
        ("/linux/resources/unified/a.b", "v2"),
    ] {
        assert!(found.iter().any(|p| p.starts_with(pointer) && p.contains(missing)), "{pointer}: {found:?}");
    }
    assert_eq!(found.len(), 6);
    assert!(problems(&v2(), r#"{"network": {"classID": 1}}"#)[0].contains("only cgroup v1"));
}

#[test]
fn wrong_values_are_found() {
    for (json, pointer) in [
        (r#"{"memory": {"limit": -2}}"#, "memory/limit"),
        (r#"{"memory": {"limit": 1000, "swap": 999}}"#, "memory/swap"),
        (r#"{"memory": {"swap": 1000}}"#, "memory/swap"),
        (r#"{"memory": {"swappiness": 101}}"#, "memory/swappiness"),
        (r#"{"blockIO": {"weight": 9}}"#, "blockIO/weight"),
        (r#"{"blockIO": {"weight": 1001}}"#, "blockIO/weight"),
        (r#"{"blockIO": {"weightDevice": [{"major": -1, "minor": 0, "weight": 10}]}}"#, "blockIO/weightDevice/0"),
        (r#"{"hugepageLimits": [{"pageSize": "2mb", "limit": 1}]}"#, "hugepageLimits/0/pageSize"),
        (r#"{"hugepageLimits": [{"pageSize": "../2MB", "limit": 1}]}"#, "hugepageLimits/0/pageSize"),
    ] {
        for layout in [hybrid(), v2()] {
            let found = problems(&layout, json);
            assert_eq!(found.len(), 1, "{json}: {found:?}");
            assert!(found[0].starts_with(&format!("/linux/resources/{pointer}: ")), "{json}: {found:?}");
        }
    }
    for (json, pointer) in [
        (r#"{"memory": {"swappiness": 10}}"#, "memory/swappiness"),
        (r#"{"memory": {"disableOOMKiller": true}}"#, "memory/disableOOMKiller"),
        (r#"{"memory": {"useHierarchy": false}}"#, "memory/useHierarchy"),
        (r#"{"cpu": {"realtimeRuntime": 1}}"#, "cpu/realtimeRuntime"),
        (r#"{"cpu": {"realtimePeriod": 1}}"#, "cpu/realtimePeriod"),
        (r#"{"blockIO": {"leafWeight": 10}}"#, "blockIO/leafWeight"),
    ] {
        let found = problems(&v2(), json);
        assert_eq!(found.len(), 1, "{json}: {found:?}");
        assert!(found[0].starts_with(&format!("/linux/resources/{pointer}: ")), "{json}: {found:?}");
    }
}

#[test]
fn deprecated_and_clamped_values_are_warned_of() {
    let resources = resources(r#"{"memory": {"kernel": 1000, "kernelTCP": 1000}, "cpu": {"shares": 1}}"#);
    let plan = compile(&hybrid(), &request(None, &resources)).unwrap();
    let pointers: Vec<&str> = plan.warnings().map(|w| w.pointer.as_str()).collect();
    let kernel = ["/linux/resources/memory/kernel", "/linux/resources/memory/kernelTCP", "/linux/resources/cpu/shares"];
    assert_eq!(pointers, kernel);
}

#[test]
fn device_rules() {
    let none = Resources::default();
    let plan = compile(&hybrid(), &request(None, &none)).unwrap();
    assert_eq!(plan.steps().filter(|(phrase, _)| phrase.ends_with("devices.deny")).count(), 1);
    assert_eq!(plan.writes[0].phrase(), "write a to devices.deny");
    assert!(plan.writes.iter().any(|w| w.phrase() == "write c 1:3 rwm to devices.allow"));

    let deny = resources(r#"{"devices": [{"allow": false, "access": "rwm"}]}"#);
    let program = |layout: &Layout, request: &Request| {
        let plan = compile(layout, request).unwrap();
        let words = plan.steps().map(|(phrase, _)| phrase).find(|phrase| phrase.contains("device program"));
        assert_eq!(words.is_some(), plan.device_program.is_some());
        words
    };
    let words = program(&v2(), &request(None, &deny)).unwrap();
    assert!(words.ends_with(" to /sys/fs/cgroup/user.slice/web"), "{words}");
    assert_eq!(program(&v2(), &request(None, &none)), Some(words), "the same rules");
    let allow = resources(r#"{"devices": [{"allow": true, "access": "rwm"}]}"#);
    assert_eq!(program(&v2(), &request(None, &allow)), None);
    let mut without_v1 = hybrid();
    without_v1.hierarchies.retain(|h| h.controllers != ["devices"]);
    assert!(program(&without_v1, &request(None, &none)).unwrap().contains("/unified/web"), "so it gets a v2 group");
    assert_eq!(program(&hybrid(), &request(None, &none)), None);
    let v1_alone = Layout { hierarchies: vec![hierarchy(Version::V1, "pids", "/sys/fs/cgroup/pids", "/")] };
    assert_eq!(compile(&v1_alone, &request(None, &deny)).unwrap_err()[0].pointer, "/linux/resources/devices");
    assert!(compile(&v1_alone, &request(None, &none)).is_ok());
    let rootless = Request { rootless: true, ..request(None, &deny) };
    assert_eq!(program(&v2(), &rootless), None);
    assert_eq!(compile(&v2(), &rootless).unwrap().warnings().count(), 0);
    let taken = resources(r#"{"devices": [{"allow": false, "type": "c", "major": 1, "minor": 3, "access": "w"}]}"#);
    let rootless = Request { rootless: true, ..request(None, &taken) };
    assert_eq!(compile(&v2(), &rootless).unwrap().warnings().count(), 1, "somebody counts on it");
}

#[test]
fn paths() {
    let nested = Layout {
        hierarchies: vec![
            hierarchy(Version::V1, "memory", "/sys/fs/cgroup/memory", "/own/group"),
            hierarchy(Version::V2, "hugetlb", "/sys/fs/cgroup/unified", "/own/group"),
        ],
    };
    let huge = resources(r#"{"hugepageLimits": [{"pageSize": "2MB", "limit": 0}]}"#);
    for (path, v1, v2) in [
        (None, "/own/group/web", "/own/web"),
        (Some(""), "/own/group/web", "/own/web"),
        (Some("pod/a"), "/own/group/pod/a", "/own/pod/a"),
        (Some("/pod/a"), "/pod/a", "/pod/a"),
        (Some("//pod/./a/"), "/pod/a", "/pod/a"),
        (Some("../../x/../a"), "/own/group/a", "/own/a"),
        (Some("/../../etc"), "/etc", "/etc"),
    ] {
        let plan = compile(&nested, &Request { rootless: true, ..request(path, &huge) }).unwrap();
        assert_eq!(plan.groups[0].path, format!("/sys/fs/cgroup/memory{v1}"), "{path:?}");
        assert_eq!(plan.groups[1].path, format!("/sys/fs/cgroup/unified{v2}"), "{path:?}");
    }
    for path in ["/", "..", "/a/..", "a\nb", &"n".repeat(256)] {
        assert_eq!(
            compile(&nested, &request(Some(path), &huge)).unwrap_err()[0].pointer,
            "/linux/cgroupsPath",
            "{path}"
        );
    }
}

#[test]
fn the_v2_tree_of_a_hybrid_host_is_used_only_when_needed() {
    let (none, huge) = (Resources::default(), resources(r#"{"hugepageLimits": [{"pageSize": "2MB", "limit": 0}]}"#));
    let plain = compile(&hybrid(), &request(None, &none)).unwrap();
    assert!(plain.groups.iter().all(|g| g.version == Version::V1));
    assert!(plain.v2_dir().unwrap().is_none());
    let files: Vec<_> = plain.join_files().iter().map(|f| f.to_str().unwrap().to_owned()).collect();
    assert_eq!(files.len(), 13);
    assert_eq!(files[0], "/sys/fs/cgroup/blkio/web/tasks");
    let limited = compile(&hybrid(), &request(None, &huge)).unwrap();
    assert_eq!(limited.groups.last().unwrap().path, "/sys/fs/cgroup/unified/web");
    assert_eq!(limited.join_files().len(), 13, "the v2 cgroup is entered by clone");
}

#[test]
fn no_process_is_cloned_where_none_may_be() {
    let none = resources(r#"{"pids": {"limit": 0}}"#);
    let plan = compile(&v2(), &request(None, &none)).unwrap();
    assert!(plan.v2_dir().unwrap().is_none());
    assert_eq!(plan.join_files(), [c"/sys/fs/cgroup/user.slice/web/cgroup.procs".to_owned()]);
    let record = plan.record();
    assert!(record.moves && record.v2_dir().unwrap().is_none());
    assert_eq!(record.join_files(), plan.join_files());
    let some = resources(r#"{"pids": {"limit": 1}}"#);
    assert!(compile(&v2(), &request(None, &some)).unwrap().join_files().is_empty());
}

#[test]
fn managers() {
    let limits = resources(r#"{"pids": {"limit": 1}}"#);
    let disabled = compile(&hybrid(), &Request { manager: Manager::Disabled, ..request(None, &limits) }).unwrap();
    assert!(disabled.is_empty() && disabled.join_files().is_empty());
    assert_eq!(disabled.warnings().count(), 1);
}

#[test]
fn an_update_writes_only_what_it_was_given() {
    let record = Record {
        groups: compile(&hybrid(), &request(None, &Resources::default())).unwrap().groups,
        ..Record::default()
    };
    let json = r#"{"memory": {"swap": 1000, "disableOOMKiller": false}}"#;
    let plan = update(&record, &resources(json)).unwrap();
    let phrases: Vec<String> = plan.writes.iter().map(Write::phrase).collect();
    assert_eq!(phrases, ["write 1000 to memory.memsw.limit_in_bytes", "write 0 to memory.oom_control"]);
    assert_eq!(plan.warnings().count(), 0);
    let devices = resources(r#"{"devices": [{"allow": false}]}"#);
    let plan = update(&record, &devices).unwrap();
    assert_eq!(plan.writes[0].phrase(), "write a to devices.deny", "there is no list to start from");
    assert!(plan.writes.len() > 10, "the default devices stay");
    let on_v2 = Record { groups: compile(&v2(), &request(None, &devices)).unwrap().groups, ..Record::default() };
    let plan = update(&on_v2, &devices).unwrap();
    assert!(plan.writes.is_empty() && plan.device_program.is_some());
    assert!(update(&on_v2, &Resources::default()).unwrap().device_program.is_none(), "what is in force stays");
    let problems = update(&record, &resources(r#"{"hugepageLimits": [{"pageSize": "2MB", "limit": 0}]}"#)).unwrap_err();
    assert!(problems[0].what.contains("no cgroup with the hugetlb controller"), "{problems:?}");
}
