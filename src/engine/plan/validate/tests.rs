//! Every rule has a bundle in bundles/invalid, or a row here; what lies just beside it is accepted.

use super::*;
use serde_json::json;
use std::fs;
use std::path::PathBuf;

fn bundles() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("bundles")
}

/// The bundles of a directory, by name.
fn configs(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    let mut found: Vec<PathBuf> =
        entries.flatten().map(|e| e.path()).filter(|path| path.join("config.json").exists()).collect();
    found.sort();
    found
}

fn problems_of(raw: impl Into<Vec<u8>>, context: &Context) -> Vec<Problem> {
    let loaded = crate::spec::parse(raw.into(), "config.json").unwrap();
    validate(&loaded, context).map_or_else(|problems| problems, |_| Vec::new())
}

/// A small valid config.
fn base() -> Value {
    json!({
        "ociVersion": "1.2.0",
        "process": {"args": ["/bin/sh"], "cwd": "/", "env": ["PATH=/bin"]},
        "root": {"path": "."},
        "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
        "linux": {"namespaces": [{"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}]}
    })
}

/// The base with values put at pointers; the steps to them are made, `-` appends, null removes.
fn with(changes: &Value) -> Value {
    let mut config = base();
    for (pointer, value) in changes.as_object().unwrap() {
        let mut at = &mut config;
        for step in pointer.split('/').skip(1) {
            let step = step.replace("~1", "/").replace("~0", "~");
            if let Value::Array(list) = at {
                if step == "-" {
                    list.push(Value::Null);
                }
                let index = step.parse().unwrap_or(list.len() - 1);
                at = &mut at[index];
            } else {
                at = &mut at[step];
            }
        }
        *at = value.clone();
    }
    config
}

fn pointers(changes: &Value, context: &Context) -> Vec<String> {
    problems_of(with(changes).to_string(), context).into_iter().map(|problem| problem.pointer).collect()
}

#[test]
fn every_invalid_bundle_has_exactly_its_problems() {
    let bundles = configs(&bundles().join("invalid"));
    assert!(bundles.len() > 100, "only {} bundles", bundles.len());
    let mut wrong = Vec::new();
    for bundle in bundles {
        let name = bundle.file_name().unwrap().to_string_lossy().into_owned();
        let wanted: Value = serde_json::from_slice(&fs::read(bundle.join("expect.json")).unwrap()).unwrap();
        let context = Context { bundle: Some(&bundle), ..Context::default() };
        let found = problems_of(fs::read(bundle.join("config.json")).unwrap(), &context);
        let fits = |problem: &Problem, wanted: &Value| {
            problem.pointer == wanted["pointer"] && problem.what.contains(wanted["contains"].as_str().unwrap())
        };
        let wanted = wanted.as_array().unwrap();
        if wanted.is_empty() || found.len() != wanted.len() || !found.iter().zip(wanted).all(|(f, w)| fits(f, w)) {
            let lines: Vec<String> = found.iter().map(|problem| format!("    {problem}")).collect();
            wrong.push(format!("{name}:\n{}", lines.join("\n")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn valid_bundles_have_no_problems() {
    for bundle in configs(&bundles()) {
        let found = problems_of(fs::read(bundle.join("config.json")).unwrap(), &Context::default());
        assert_eq!(found, [], "{}", bundle.display());
    }
}

#[test]
fn what_engines_and_the_others_write_is_valid() {
    // Caught from podman 4.3, buildah 1.28, containerd 1.6 (ctr), runc 1.1 and crun 1.8; only podman.json keeps its seccomp
    // profile.
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/engine/plan/validate/testdata");
    let read = |name: &str| fs::read(dir.join(format!("{name}.json"))).unwrap();
    let podman = crate::spec::parse(read("podman"), "podman.json").unwrap().value;
    let mut seen = 0;
    for entry in fs::read_dir(&dir).unwrap().flatten() {
        let name = entry.path().file_stem().unwrap().to_string_lossy().into_owned();
        if name == "podman-exec-process" {
            let process = crate::spec::parse_process(read(&name), &name).unwrap();
            assert_eq!(process.problems, [], "{name}");
            assert_eq!(validate_process(&process.value, &podman, "/process"), [], "{name}");
        } else {
            let terminal = crate::spec::parse(read(&name), &name).unwrap().value.process.unwrap().terminal;
            let context = Context {
                rootless: name.ends_with("rootless"),
                bundle: None,
                console_socket: terminal,
                detached: true,
            };
            let found: Vec<String> = problems_of(read(&name), &context).into_iter().map(|p| p.pointer).collect();
            // crun makes up the maps that its own config lacks; runc refuses that, too.
            let wanted =
                if name == "crun-spec-rootless" { &["/linux/gidMappings", "/linux/uidMappings"][..] } else { &[] };
            assert_eq!(found, wanted, "{name}");
        }
        seen += 1;
    }
    assert!(seen >= 14, "only {seen} configs in {}", dir.display());
}

/// What lies just beside a rule, and what others accept.
#[test]
fn neighbours_of_the_rules_are_accepted() {
    let map = |container: u32, host: u32, size: u32| json!({"containerID": container, "hostID": host, "size": size});
    let namespaces = |list: &[&str]| json!(list.iter().map(|typ| json!({"type": typ})).collect::<Vec<_>>());
    let in_user = |changes: Value| {
        let mut all = json!({
            "/linux/namespaces": namespaces(&["pid", "network", "ipc", "uts", "mount", "user"]),
            "/linux/uidMappings": [map(0, 100_000, 65536)],
            "/linux/gidMappings": [map(0, 100_000, 65536)],
        });
        all.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        all
    };
    let bind = |options: Value| json!({"/mounts/-": {"destination": "mnt", "source": "etc", "options": options}});
    let scheduler = |value: Value| json!({"/process/scheduler": value});
    let device = |value: Value| json!({"/linux/devices": [value]});
    let resources = |value: Value| json!({"/linux/resources": value});
    let many: Vec<Value> = (0..340).map(|n| map(n, 100_000 + n, 1)).collect();
    for changes in [
        json!({}),
        json!({"/ociVersion": "1.0.0"}),
        json!({"/ociVersion": "1.0.0-rc5"}),
        json!({"/ociVersion": "1.0.2-dev"}),
        json!({"/ociVersion": "1.2.1+dev"}),
        json!({"/ociVersion": "1.99.0"}),
        json!({"/vm": {"kernel": {"path": "k"}}, "/windows": {}, "/unknown": "\0"}),
        json!({"/annotations": {"key": ""}}),
        json!({"/hostname": "h".repeat(64), "/domainname": "d".repeat(64)}),
        json!({"/hostname": "", "/domainname": "", "/linux/namespaces": namespaces(&["mount"])}),
        // A joined namespace's name may be set, as runc does.
        json!({"/hostname": "web", "/linux/namespaces/3/path": "/proc/1/ns/uts"}),
        json!({"/hooks": {"poststop": [{"path": "/h", "timeout": 1, "env": ["A"], "args": []}, {"path": "/h"}]}}),
        // JSON's escape for a backslash, then text.
        json!({"/process/args": ["printf", "\\u0000"]}),
        json!({"/process/env": ["A=", "b.c=d=e", "PATH=/bin"], "/process/args": ["sh", ""]}),
        json!({"/process/user": {"umask": 0o777, "uid": u32::MAX - 1}}),
        in_user(json!({"/process/user": {"uid": 65535, "gid": 65535, "additionalGids": [0, 65535]}})),
        json!({"/process/rlimits": [{"type": "RLIMIT_CORE", "soft": 1, "hard": 1}, {"type": "RLIMIT_AS", "soft": 0, "hard": u64::MAX}]}),
        json!({"/process/oomScoreAdj": -1000}),
        json!({"/process/oomScoreAdj": 1000}),
        scheduler(json!({"policy": "SCHED_OTHER", "nice": -20})),
        scheduler(json!({"policy": "SCHED_BATCH", "nice": 19, "flags": ["SCHED_FLAG_RESET_ON_FORK"]})),
        scheduler(json!({"policy": "SCHED_FIFO", "priority": 1})),
        scheduler(json!({"policy": "SCHED_RR", "priority": 99})),
        scheduler(json!({"policy": "SCHED_DEADLINE", "runtime": 1024, "deadline": 1024})),
        scheduler(json!({"policy": "SCHED_DEADLINE", "runtime": 5000, "deadline": 6000, "period": 6000})),
        json!({"/process/ioPriority": {"class": "IOPRIO_CLASS_IDLE"}}),
        json!({"/process/ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 7}}),
        json!({"/process/execCPUAffinity": {"initial": "", "final": "0-3,7"}}),
        json!({"/process/capabilities": {"bounding": ["CAP_FLY"], "ambient": ["CAP_KILL"]}}),
        bind(json!(["rbind", "ro", "rprivate", "nosuid"])),
        bind(json!(["bind", "ro", "remount"])),
        json!({"/mounts/-": {"destination": "mnt", "type": "bind", "source": "etc"}}),
        json!({"/mounts/-": {"destination": "/mnt", "type": "none", "source": "/etc", "options": ["bind"]}}),
        json!({"/mounts/-": {"destination": "/mnt", "type": "tmpfs", "options": ["mode=755,size=1k", "tmpcopyup", "gid=5"]}}),
        json!({"/mounts/-": {"destination": "/mnt", "type": "overlay", "source": "overlay", "options": ["lowerdir=/a", "uid=5"]}}),
        json!({"/mounts/-": {"destination": "/m", "type": "bind", "source": "/etc", "options": ["bind", "idmap"],
            "uidMappings": [map(0, 1, 2)], "gidMappings": [map(0, 1, 2)]}}),
        in_user(bind(json!(["rbind", "ridmap"]))),
        in_user(
            json!({"/mounts/-": {"destination": "/dev/pts", "type": "devpts", "options": ["newinstance", "gid=5"]}}),
        ),
        json!({"/linux/namespaces/-": {"type": "cgroup", "path": ""}}),
        // Engines give the maps of a user namespace that is joined, too.
        in_user(json!({"/linux/namespaces/5/path": "/proc/1/ns/user", "/process/user": {"uid": 70000}})),
        json!({"/linux/namespaces/-": {"type": "user", "path": "/proc/1/ns/user"}}),
        in_user(
            json!({"/linux/uidMappings": [map(0, 0, u32::MAX)], "/linux/gidMappings": [map(5, 100, 1), map(0, 101, 5), map(6, 99, 1)], "/process/user": {"gid": 6}}),
        ),
        in_user(json!({"/linux/uidMappings": many, "/linux/gidMappings": many})),
        json!({"/linux/timeOffsets": {}}),
        json!({"/linux/namespaces/-": {"type": "time"}, "/linux/timeOffsets": {"monotonic": {"secs": -5, "nanosecs": 999_999_999}, "boottime": {}}}),
        json!({"/linux/netDevices": {"eth0": {"name": "eth1"}, "eth1": {"name": "a-name-of-15-by"}, "x": {}}}),
        json!({"/linux/sysctl": {"net/ipv4/conf/eth0.100/forwarding": "1", "net.core.somaxconn": "1", "kernel.domainname": "x",
            "kernel.shm_rmid_forced": "1", "fs.mqueue.msg_max": "1", "kernel/sem": "1 1 1 1"}}),
        json!({"/linux/sysctl": {"net.core.somaxconn": "1"}, "/linux/namespaces/1/path": "/no/such/namespace"}),
        device(json!({"path": "/opt/dev", "type": "b", "major": 4095, "minor": 1_048_575, "fileMode": 0o060_660})),
        device(json!({"path": "/dev/fifo", "type": "p", "major": -1})),
        device(json!({"path": "/dev/null", "type": "u", "major": 1, "minor": 3})),
        json!({"/linux/rootfsPropagation": "runbindable"}),
        json!({"/linux/rootfsPropagation": "", "/linux/maskedPaths": ["proc/kcore"], "/linux/readonlyPaths": ["/proc/sys"]}),
        json!({"/linux/personality": {"domain": "LINUX32"}}),
        json!({"/linux/intelRdt": {"closID": "web", "l3CacheSchema": "L3:0=f", "schemata": ["MB:0=20"]}}),
        json!({"/linux/memoryPolicy": {"mode": "MPOL_BIND", "nodes": "0-1,3", "flags": ["MPOL_F_STATIC_NODES", "MPOL_F_NUMA_BALANCING"]}}),
        json!({"/linux/memoryPolicy": {"mode": "MPOL_PREFERRED"}}),
        json!({"/linux/memoryPolicy": {"mode": "MPOL_LOCAL", "nodes": ""}}),
        resources(
            json!({"devices": [{"allow": false, "type": "a", "major": -1, "minor": -1, "access": "rwm"}, {"allow": false, "access": "rwm"}]}),
        ),
        resources(json!({"memory": {"limit": -1, "swap": -1, "reservation": 0, "swappiness": 100}})),
        resources(
            json!({"memory": {"limit": 1_000_000, "swap": 1_000_000, "reservation": 2_000_000, "swappiness": u64::MAX}}),
        ),
        resources(json!({"cpu": {"cpus": "", "mems": "0", "quota": -1, "period": 1000, "burst": 5, "idle": 1}})),
        resources(
            json!({"cpu": {"cpus": "0-7:1/2", "mems": "0,2-3", "quota": 1000, "period": 1_000_000, "burst": 1000, "idle": 0}}),
        ),
        resources(json!({"cpu": {"quota": 0, "period": 0, "shares": 1}, "pids": {"limit": -1}})),
        resources(
            json!({"blockIO": {"weight": 0, "leafWeight": 10, "weightDevice": [{"major": 8, "minor": 0, "weight": 1000}]}}),
        ),
        resources(
            json!({"hugepageLimits": [{"pageSize": "2MB", "limit": 0}, {"pageSize": "64KB"}, {"pageSize": "1GB"}]}),
        ),
        resources(
            json!({"rdma": {"mlx5_1": {"hcaObjects": 0}}, "unified": {"memory.high": "1", "cgroup.freeze": "0"}}),
        ),
        resources(json!({"network": {"classID": 1, "priorities": [{"name": "eth0", "priority": 1}]}})),
        json!({"/linux/seccomp": {"defaultAction": "SCMP_ACT_ALLOW"}}),
    ] {
        let found = problems_of(with(&changes).to_string(), &Context::default());
        assert_eq!(found, [], "{changes}");
    }
}

#[test]
fn the_terminal_and_the_caller_fit_together() {
    let at = vec!["/process/terminal"];
    for (terminal, console_socket, detached, wanted) in [
        (true, true, true, vec![]),
        (true, false, false, vec![]),
        (true, false, true, at.clone()),
        (false, false, true, vec![]),
        (false, false, false, vec![]),
        (false, true, true, at.clone()),
        (false, true, false, at),
        (true, true, false, vec![]),
    ] {
        let context = Context { console_socket, detached, ..Context::default() };
        let found = pointers(&json!({"/process/terminal": terminal, "/process/consoleSize": {"width": 1}}), &context);
        assert_eq!(found, wanted, "terminal {terminal}, socket {console_socket}, detached {detached}");
    }
}

#[test]
fn who_is_not_root_needs_a_user_namespace() {
    let context = Context { rootless: true, ..Context::default() };
    assert_eq!(pointers(&json!({}), &context), ["/linux/namespaces"]);
    let joined = json!({"/linux/namespaces/-": {"type": "user", "path": "/proc/1/ns/user"}});
    assert_eq!(pointers(&joined, &context), Vec::<String>::new());
}

#[test]
fn nothing_follows_from_what_could_not_be_read() {
    let found = |changes: Value| pointers(&changes, &Context::default());
    // Were these taken for their defaults, a hostname without its namespace and the like would be found, too.
    assert_eq!(found(json!({"/linux": 7, "/hostname": "web"})), ["/linux"]);
    assert_eq!(
        found(json!({"/linux/namespaces": "all", "/hostname": "web", "/linux/maskedPaths": ["/proc/kcore"]})),
        ["/linux/namespaces"]
    );
    assert_eq!(
        found(json!({"/linux/namespaces/3/type": "utc", "/hostname": "web", "/linux/sysctl": {"net.a": "1"}})),
        ["/linux/namespaces/3/type"]
    );
    assert_eq!(
        found(json!({"/process/cwd": 1, "/process/env": [1], "/process/args": "sh"})),
        ["/process/args", "/process/cwd", "/process/env/0"]
    );
    assert_eq!(found(json!({"/root": "rootfs", "/process": "sh"})), ["/process", "/root"]);
    let user = json!({"/linux/namespaces/-": {"type": "user"}, "/linux/gidMappings": [{"size": 1}], "/linux/uidMappings": "0 0 1", "/process/user": {"uid": 5}});
    assert_eq!(found(user), ["/linux/uidMappings"]);
    for text in ["7", "null", "\"config\""] {
        let pointers: Vec<String> = problems_of(text, &Context::default()).into_iter().map(|p| p.pointer).collect();
        assert_eq!(pointers, [""], "{text}");
    }
}

#[test]
fn pointers_sort_by_step_and_number() {
    let mut list = ["/mounts/10", "/mounts/2/type", "/mounts/2", "/linux", "", "/mounts"];
    list.sort_by(|a, b| by_pointer(a, b));
    assert_eq!(list, ["", "/linux", "/mounts", "/mounts/2", "/mounts/2/type", "/mounts/10"]);
}

#[test]
fn only_a_valid_config_is_checked() {
    let loaded = crate::spec::parse(base().to_string().into_bytes(), "config.json").unwrap();
    let checked = validate(&loaded, &Context::default()).unwrap();
    assert_eq!(checked.oci_version, "1.2.0");
    assert_eq!(warnings(&checked), []);
}

/// The conformance suites' test of inherited namespaces keeps the default mounts and a read-only root.
#[test]
fn mounts_without_a_namespace_are_left_out_aloud() {
    let changes = json!({"/linux": {}, "/root/readonly": true});
    assert_eq!(pointers(&changes, &Context::default()), Vec::<String>::new());
    let loaded = crate::spec::parse(with(&changes).to_string().into_bytes(), "config.json").unwrap();
    let warned: Vec<String> = warnings(&loaded.value).into_iter().map(|problem| problem.pointer).collect();
    assert_eq!(warned, ["/mounts", "/root/readonly"]);
}

#[test]
fn a_process_for_exec_is_held_to_its_container() {
    let config = json!({
        "/linux/namespaces/-": {"type": "user"},
        "/linux/uidMappings": [{"containerID": 0, "hostID": 1000, "size": 1}],
        "/linux/gidMappings": [{"containerID": 0, "hostID": 1000, "size": 1}],
    });
    let spec: Spec = serde_json::from_value(with(&config)).unwrap();
    let process = |value: Value| serde_json::from_value::<Process>(value).unwrap();
    let found = validate_process(
        &process(json!({"args": [], "cwd": "x", "user": {"uid": 1, "additionalGids": [0, 1]}, "env": ["A"]})),
        &spec,
        "",
    );
    let pointers: Vec<&str> = found.iter().map(|problem| problem.pointer.as_str()).collect();
    assert_eq!(pointers, ["/args", "/cwd", "/env/0", "/user/additionalGids/1", "/user/uid"]);
    assert_eq!(validate_process(&process(json!({"args": ["sh"], "cwd": "/"})), &spec, "/process"), []);
}

/// The `oci-spec` crate is the witness: what it reads, brig reads alike.
#[test]
fn the_oci_spec_crate_reads_the_same() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/engine/plan/validate/testdata");
    let mut compared = 0;
    let files = fs::read_dir(&dir).unwrap().flatten().map(|entry| entry.path());
    for path in files.chain(configs(&bundles()).into_iter().map(|bundle| bundle.join("config.json"))) {
        let raw = fs::read(&path).unwrap();
        let Ok(theirs) = serde_json::from_slice::<oci_spec::runtime::Spec>(&raw) else { continue };
        let ours = crate::spec::parse(raw, "config.json").unwrap();
        assert_eq!(ours.problems, [], "{}", path.display());
        // As JSON, every field that both know has to be the same.
        let (ours, theirs) = (serde_json::to_value(&ours.value).unwrap(), serde_json::to_value(&theirs).unwrap());
        let mut different = Vec::new();
        compare(&ours, &theirs, "", &mut different);
        assert!(different.is_empty(), "{}: {different:#?}", path.display());
        compared += 1;
    }
    assert!(compared >= 10, "the crate read only {compared} configs");
}

/// Notes where two documents differ, an absent value being the same as an empty one, null, false or 0.
fn compare(ours: &Value, theirs: &Value, at: &str, different: &mut Vec<String>) {
    let empty = |value: &Value| match value {
        Value::Null => true,
        Value::Bool(b) => !b,
        Value::Number(n) => n.as_u64() == Some(0),
        Value::String(s) => s.is_empty(),
        Value::Array(l) => l.is_empty(),
        Value::Object(_) => false,
    };
    match (ours, theirs) {
        (Value::Object(a), Value::Object(b)) => {
            for key in a.keys().chain(b.keys().filter(|key| !a.contains_key(*key))) {
                compare(&ours[key], &theirs[key], &format!("{at}/{}", escape(key)), different);
            }
        }
        // The crate keeps capabilities as sets.
        (Value::Array(a), Value::Array(b)) if at.starts_with("/process/capabilities/") => {
            let sorted = |list: &[Value]| list.iter().map(Value::to_string).collect::<std::collections::BTreeSet<_>>();
            if sorted(a) != sorted(b) {
                different.push(format!("{at}: {ours} here, {theirs} there"));
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            a.iter().zip(b).enumerate().for_each(|(n, (a, b))| compare(a, b, &format!("{at}/{n}"), different));
        }
        (Value::Null, Value::Object(b)) => {
            b.iter().for_each(|(key, b)| compare(&Value::Null, b, &format!("{at}/{key}"), different));
        }
        _ if ours == theirs || empty(ours) && empty(theirs) => {}
        _ => different.push(format!("{at}: {ours} here, {theirs} there")),
    }
}
