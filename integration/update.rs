//! `update`: limits that change while a container runs, and hold.

use crate::support::{Bundle, Container, Kind, Out, Test, Value, cases, host, json, os, suite};
use std::fs;
use std::time::Duration;

cases![
    every_limit_by_flag,
    from_a_file_and_from_standard_input,
    as_the_engines_write_it,
    a_flag_beside_a_file_wins,
    sizes_with_units,
    what_is_not_named_stays,
    memory_and_swap_move_together,
    no_limit,
    more_processes_may_run_after_it,
    more_memory_may_be_used_after_it,
    cpu_time_is_held_back_after_it,
    below_what_is_in_use,
    every_problem_at_once,
    a_refused_limit_undoes_the_others,
    of_a_paused_and_a_created_container,
    not_of_a_stopped_or_unknown_container,
    many_at_once,
    while_it_ends,
    what_is_no_longer_limited,
    without_resctrl,
];

/// The files of one limit: the v1 controller and file, and what it is called on v2.
fn limit(c: &Container, controller: &str, v1: &str, v2: &str) -> String {
    match host::has_v1(controller) {
        true => host::cgroup_file(c.pid, controller, v1),
        false => host::cgroup_file(c.pid, "", v2),
    }
}

fn memory(c: &Container) -> String {
    limit(c, "memory", "memory.limit_in_bytes", "memory.max")
}

fn pids(c: &Container) -> String {
    limit(c, "pids", "pids.max", "pids.max")
}

fn has(c: &Container, controller: &str, file: &str) -> bool {
    let v1 = host::has_v1(controller);
    host::cgroup_dir(c.pid, if v1 { controller } else { "" }).is_some_and(|dir| dir.join(file).exists())
}

fn running(t: &Test, resources: &[(&str, Value)]) -> (Bundle, String) {
    let mut b = t.bundle();
    b.payload(&["sleep"]);
    for (pointer, value) in resources {
        b.set(&format!("/linux/resources{pointer}"), value.clone());
    }
    (b, t.id().to_owned())
}

fn start<'t>(t: &'t Test, resources: &[(&str, Value)]) -> Container<'t> {
    let (b, _) = running(t, resources);
    let c = t.create(&b);
    c.start();
    c.line();
    if !has(&c, "pids", "pids.max") || !has(&c, "memory", if host::has_v1("memory") { "memory.limit_in_bytes" } else { "memory.max" }) {
        suite::skip("there are no pids and memory controllers here");
    }
    c
}

fn update(c: &Container, flags: &[&str]) -> Out {
    c.test().call(&["update"]).args(flags).args(&[&c.id]).out()
}

fn every_limit_by_flag(t: &Test) {
    let c = start(t, &[]);
    update(&c, &["--memory", "67108864", "--memory-reservation", "33554432", "--pids-limit", "33"]).ok();
    assert_eq!(memory(&c), "67108864");
    assert_eq!(limit(&c, "memory", "memory.soft_limit_in_bytes", "memory.low"), "33554432");
    assert_eq!(pids(&c), "33");
    update(&c, &["--cpu-share", "512"]).ok();
    assert!(["512", "59", "20"].contains(&limit(&c, "cpu", "cpu.shares", "cpu.weight").as_str()));
    update(&c, &["--cpu-period", "50000", "--cpu-quota", "20000"]).ok();
    if host::has_v1("cpu") {
        assert_eq!(host::cgroup_file(c.pid, "cpu", "cpu.cfs_quota_us"), "20000");
        assert_eq!(host::cgroup_file(c.pid, "cpu", "cpu.cfs_period_us"), "50000");
    } else {
        assert_eq!(host::cgroup_file(c.pid, "", "cpu.max"), "20000 50000");
        // One half leaves the other as it is.
        update(&c, &["--cpu-quota", "30000"]).ok();
        assert_eq!(host::cgroup_file(c.pid, "", "cpu.max"), "30000 50000");
    }
    if has(&c, "cpuset", "cpuset.cpus") {
        update(&c, &["--cpuset-cpus", "0", "--cpuset-mems", "0"]).ok();
        assert_eq!(limit(&c, "cpuset", "cpuset.cpus", "cpuset.cpus"), "0");
        assert_eq!(limit(&c, "cpuset", "cpuset.mems", "cpuset.mems"), "0");
    }
    if t.kind() != Kind::Brig {
        return;
    }
    if has(&c, "cpu", "cpu.cfs_burst_us") || has(&c, "cpu", "cpu.max.burst") {
        update(&c, &["--cpu-burst", "10000"]).ok();
        assert_eq!(limit(&c, "cpu", "cpu.cfs_burst_us", "cpu.max.burst"), "10000");
    }
    if has(&c, "cpu", "cpu.idle") {
        update(&c, &["--cpu-idle", "1"]).ok();
        assert_eq!(limit(&c, "cpu", "cpu.idle", "cpu.idle"), "1");
        update(&c, &["--cpu-idle=0"]).ok();
    }
    let weight = update(&c, &["--blkio-weight", "500"]);
    if ["blkio.weight", "blkio.bfq.weight", "io.bfq.weight", "io.weight"].iter().any(|file| has(&c, "blkio", file)) {
        weight.ok();
    } else {
        weight.fails(&["BFQ"]);
    }
    let realtime = update(&c, &["--cpu-rt-period", "1000000", "--cpu-rt-runtime", "1000"]);
    if !has(&c, "cpu", "cpu.rt_runtime_us") {
        realtime.fails(&["real-time"]);
    }
    let out = update(&c, &["--kernel-memory", "5000000", "--kernel-memory-tcp", "5000000"]).ok();
    assert_eq!(out.stderr.matches("is ignored: kernel memory counts as memory").count(), 2, "{}", out.stderr);
    assert_eq!(memory(&c), "67108864");
}

fn from_a_file_and_from_standard_input(t: &Test) {
    let c = start(t, &[]);
    let file = t.dir().join("resources.json");
    let of = |pids: u32| json!({"pids": {"limit": pids}, "memory": {"limit": 64 << 20}}).to_string();
    fs::write(&file, of(41)).unwrap();
    update(&c, &["--resources", file.to_str().unwrap()]).ok();
    assert_eq!((pids(&c), memory(&c)), ("41".into(), "67108864".into()));
    for (number, flags) in [(42, ["--resources", "-"].as_slice()), (43, &["--resources=-"]), (44, &["-r", "-"])] {
        fs::write(&file, of(number)).unwrap();
        t.call(&["update"]).args(flags).args(&[&c.id]).stdin(fs::File::open(&file).unwrap()).ok();
        assert_eq!(pids(&c), number.to_string());
    }
    update(&c, &["--resources", "/no/such/file"]).fails(&["--resources", "/no/such/file", "no such file"]);
}

/// What docker and podman send: every part is there, most of it empty.
fn as_the_engines_write_it(t: &Test) {
    t.differs(Kind::Crun, "1.8.1 takes a zero for a limit");
    let c = start(t, &[]);
    let file = t.dir().join("resources.json");
    for text in [
        r#"{"memory":{"limit":67108864,"swap":0},"cpu":{"shares":0,"quota":0,"period":0,"cpus":"","mems":""},"pids":{"limit":50},"blockIO":{"weight":0}}"#,
        r#"{"devices":[{"allow":false,"access":"rwm"}],"memory":{},"cpu":{},"pids":{"limit":50},"blockIO":{},"network":null,"unified":null}"#,
        "{}",
    ] {
        fs::write(&file, text).unwrap();
        update(&c, &["--resources", file.to_str().unwrap()]).ok();
        assert_eq!((pids(&c), memory(&c)), ("50".into(), "67108864".into()), "{text}");
    }
    update(&c, &[]).ok();
}

fn a_flag_beside_a_file_wins(t: &Test) {
    t.only_brig("they ignore flags beside a file, which runc says in its help");
    let c = start(t, &[]);
    let file = t.dir().join("resources.json");
    fs::write(&file, r#"{"pids":{"limit":50},"memory":{"limit":67108864}}"#).unwrap();
    update(&c, &["--pids-limit", "60", "--resources", file.to_str().unwrap()]).ok();
    assert_eq!((pids(&c), memory(&c)), ("60".into(), "67108864".into()));
}

fn sizes_with_units(t: &Test) {
    t.differs(Kind::Crun, "it takes bytes alone");
    let c = start(t, &[]);
    for (text, bytes) in [("64m", 64 << 20), ("0.5GiB", 512 << 20), ("65536k", 64 << 20)] {
        update(&c, &["--memory", text]).ok();
        assert_eq!(memory(&c), bytes.to_string(), "{text}");
    }
    update(&c, &["--memory", "much"]).fails(&["--memory", "512M"]);
}

fn what_is_not_named_stays(t: &Test) {
    let c = start(t, &[("/pids", json!({"limit": 30})), ("/memory", json!({"limit": 64 << 20}))]);
    update(&c, &["--cpu-share", "700"]).ok();
    assert_eq!(memory(&c), "67108864");
    if t.kind() != Kind::Crun {
        assert_eq!(pids(&c), "30");
    }
    update(&c, &["--pids-limit", "31"]).ok();
    if t.kind() == Kind::Brig {
        let state: Value = serde_json::from_slice(&fs::read(t.root().join(&c.id).join("state.json")).unwrap()).unwrap();
        let resources = &state["resources"];
        assert_eq!(resources["pids"]["limit"], 31, "{resources}");
        assert_eq!(resources["cpu"]["shares"], 700, "{resources}");
        assert_eq!(resources["memory"]["limit"], 64 << 20, "what the config says counts, too: {resources}");
    }
}

fn swap(c: &Container) -> Option<String> {
    let (controller, file) = if host::has_v1("memory") { ("memory", "memory.memsw.limit_in_bytes") } else { ("", "memory.swap.max") };
    fs::read_to_string(host::cgroup_dir(c.pid, controller)?.join(file)).ok().map(|text| text.trim().to_owned())
}

/// On v1 one limit may not pass the other at any moment, whichever way they move.
fn memory_and_swap_move_together(t: &Test) {
    let m = |n: u64| (n << 20).to_string();
    let c = start(t, &[("/memory", json!({"limit": 64 << 20}))]);
    if swap(&c).is_none() {
        suite::skip("swap is not accounted here");
    }
    for (limit, both) in [(64, 128), (256, 512), (32, 64), (128, 128)] {
        update(&c, &["--memory", &m(limit), "--memory-swap", &m(both)]).ok();
        let swap_is = if host::has_v1("memory") { both } else { both - limit };
        assert_eq!((memory(&c), swap(&c).unwrap()), (m(limit), m(swap_is)));
    }
    t.only_brig("they answer EINVAL, and runc leaves one half done");
    update(&c, &["--memory", &m(129)]).fails(&["--memory:", "together", "--memory-swap"]);
    update(&c, &["--memory-swap", &m(127)]).fails(&["--memory-swap:", "below"]);
    update(&c, &["--memory-swap", &m(200)]).ok();
    assert_eq!(memory(&c), m(128));
    update(&c, &["--memory", &m(100)]).ok();
    assert_eq!(swap(&c).unwrap(), m(if host::has_v1("memory") { 200 } else { 100 }));
}

fn no_limit(t: &Test) {
    t.differs(Kind::Crun, "1.8.1 knows no -1 on cgroup v1");
    let c = start(t, &[("/pids", json!({"limit": 30})), ("/memory", json!({"limit": 64 << 20, "swap": 128 << 20}))]);
    update(&c, &["--memory", "-1", "--pids-limit", "-1"]).ok();
    if t.kind() != Kind::Crun {
        assert_eq!(pids(&c), "max");
    }
    assert!(["max", "9223372036854771712"].contains(&memory(&c).as_str()), "{}", memory(&c));
    if let Some(swap) = swap(&c) {
        assert!(["max", "9223372036854771712"].contains(&swap.as_str()), "{swap}");
    }
    update(&c, &["--cpu-quota=20000"]).ok();
    update(&c, &["--cpu-quota", "-1"]).ok();
    let quota = limit(&c, "cpu", "cpu.cfs_quota_us", "cpu.max");
    assert!(quota == "-1" || quota.starts_with("max "), "{quota}");
}

fn more_processes_may_run_after_it(t: &Test) {
    let c = start(t, &[("/pids", json!({"limit": 40}))]);
    let made = |c: &Container| c.see(&[], &["forks=20"])["forks=20"]["made"].as_u64().unwrap();
    assert_eq!(made(&c), 20);
    update(&c, &["--pids-limit", "8"]).ok();
    assert_eq!(made(&c), 6, "two of them are the container's first process and the one that forks");
    update(&c, &["--pids-limit", "40"]).ok();
    assert_eq!(made(&c), 20);
}

fn more_memory_may_be_used_after_it(t: &Test) {
    let c = start(t, &[]);
    let hog = |c: &Container| c.exec(&[], &["/bin/payload", &format!("hog={}", 64 << 20)]).code;
    assert_eq!(hog(&c), 0);
    update(&c, &["--memory", "33554432", "--memory-swap", "33554432"]).ok();
    assert_eq!(hog(&c), 137, "the OOM killer ends it");
    update(&c, &["--memory", "268435456", "--memory-swap", "268435456"]).ok();
    assert_eq!(hog(&c), 0);
}

fn cpu_time_is_held_back_after_it(t: &Test) {
    t.differs(Kind::Crun, "1.8.1 knows no -1 on cgroup v1");
    let c = start(t, &[]);
    let held = |c: &Container| -> u64 {
        let text = limit(c, "cpu", "cpu.stat", "cpu.stat");
        text.lines().find_map(|l| l.strip_prefix("nr_throttled ")).unwrap().parse().unwrap()
    };
    let burn = |c: &Container| c.exec(&[], &["/bin/payload", "burn=60"]).ok();
    burn(&c);
    assert_eq!(held(&c), 0);
    // So short that one turn on the CPU uses it up, however busy the host is.
    update(&c, &["--cpu-period", "20000", "--cpu-quota", "1000"]).ok();
    burn(&c);
    let after = held(&c);
    assert!(after > 3, "{after}");
    update(&c, &["--cpu-quota", "-1"]).ok();
    let before = held(&c);
    burn(&c);
    assert_eq!(held(&c), before);
}

fn below_what_is_in_use(t: &Test) {
    t.only_brig("they may leave a part of it done");
    let mut b = t.bundle();
    b.payload(&[&format!("hold={}", 64 << 20), "sleep"]);
    // Without swap there is nowhere to go for what is in use.
    b.set("/linux/resources/memory", json!({"limit": 256 << 20, "swap": 256 << 20}));
    let c = t.create(&b);
    c.start();
    while !c.line()["ready"].is_boolean() {}
    let check = t.dir().join("check.json");
    fs::write(&check, r#"{"memory":{"limit":16777216,"swap":16777216,"checkBeforeUpdate":true},"pids":{"limit":99}}"#).unwrap();
    let before = pids(&c);
    if host::has_v1("memory") {
        update(&c, &["--memory", "16m", "--memory-swap", "16m", "--pids-limit", "99"]).fails(&["bytes are in use", "higher", "stay as they were"]);
    }
    let words = if host::has_v1("memory") { "in use" } else { "is already" };
    update(&c, &["-r", check.to_str().unwrap()]).fails(&[words, "higher", "stay as they were"]);
    assert_eq!((memory(&c), pids(&c)), ((256 << 20).to_string(), before));
    assert_eq!(c.status(), "running");
}

fn every_problem_at_once(t: &Test) {
    t.only_brig("they tell one");
    let c = start(t, &[("/pids", json!({"limit": 30}))]);
    let flags = ["--pids-limit", "x", "--memory", "5q", "--cpu-period", "5", "--blkio-weight", "5", "--cpuset-cpus", "a", "--cpu-share", "-3"];
    let out = update(&c, &flags).fails(&["6 problems", "--pids-limit:", "--memory:", "--cpu-period:", "--blkio-weight:", "--cpuset-cpus:", "--cpu-share:"]);
    assert_eq!(out.code, 1);
    let file = t.dir().join("resources.json");
    fs::write(&file, r#"{"memory":{"limit":"much"},"cpu":{"period":5},"linux":{},"pids":{"limit":5}}"#).unwrap();
    let path = file.to_str().unwrap();
    update(&c, &["-r", path]).fails(&[path, "3 problems", "\n  /memory/limit:", "\n  /cpu/period:", "\n  /linux:"]);
    assert_eq!(pids(&c), "30", "nothing is done by halves");
    for text in ["", "{", "[]", "nonsense"] {
        fs::write(&file, text).unwrap();
        update(&c, &["-r", path]).fails(&[path]);
    }
    update(&c, &["--no-such-flag"]).fails(&["--no-such-flag"]);
}

fn a_refused_limit_undoes_the_others(t: &Test) {
    t.only_brig("they leave what was done before");
    let c = start(t, &[("/pids", json!({"limit": 30})), ("/memory", json!({"limit": 64 << 20})), ("/cpu", json!({"shares": 512}))]);
    if !has(&c, "cpuset", "cpuset.cpus") {
        suite::skip("there is no cpuset controller here");
    }
    let state = fs::read(t.root().join(&c.id).join("state.json")).unwrap();
    let all = |c: &Container| (memory(c), swap(c), pids(c), limit(c, "cpu", "cpu.shares", "cpu.weight"));
    let before = all(&c);
    let flags = ["--memory", "128m", "--memory-swap", "256m", "--cpu-share", "2000", "--pids-limit", "99", "--cpuset-cpus", "4000"];
    update(&c, &flags).fails(&["cpuset.cpus", "stay as they were"]);
    assert_eq!(all(&c), before);
    assert_eq!(fs::read(t.root().join(&c.id).join("state.json")).unwrap(), state);
    let files = fs::read_dir(t.root().join(&c.id)).unwrap().flatten();
    assert!(!files.map(|f| f.file_name()).any(|name| name == "state.json.new"));
}

fn of_a_paused_and_a_created_container(t: &Test) {
    let (b, _) = running(t, &[]);
    let c = t.create(&b);
    update(&c, &["--pids-limit", "21"]).ok();
    assert_eq!(pids(&c), "21");
    c.start();
    c.line();
    c.call(&["pause"]).ok();
    update(&c, &["--pids-limit", "22", "--memory", "67108864"]).ok();
    assert_eq!((pids(&c), memory(&c)), ("22".into(), "67108864".into()));
    assert_eq!(c.status(), "paused", "it is not thawed for that");
    c.call(&["resume"]).ok();
    assert_eq!(c.status(), "running");
}

fn not_of_a_stopped_or_unknown_container(t: &Test) {
    let c = start(t, &[]);
    c.kill("KILL");
    c.wait();
    if t.kind() != Kind::Crun {
        update(&c, &["--pids-limit", "21"]).code(1).fails(&["container not running"]);
    }
    t.call(&["update", "--pids-limit", "21", "nobody"]).out().code(1).fails(&["does not exist"]);
}

fn many_at_once(t: &Test) {
    let c = start(t, &[]);
    let calls: Vec<_> = (20..28).map(|n| c.test().call(&["update", "--pids-limit", &n.to_string(), &c.id]).spawn()).collect();
    for call in calls {
        call.wait().ok();
    }
    let last = pids(&c);
    assert!((20..28).any(|n| last == n.to_string()));
    if t.kind() == Kind::Brig {
        let state: Value = serde_json::from_slice(&fs::read(t.root().join(&c.id).join("state.json")).unwrap()).unwrap();
        assert_eq!(state["resources"]["pids"]["limit"].to_string(), last, "what is remembered is what is in force");
    }
}

fn while_it_ends(t: &Test) {
    t.only_brig("they may say that a file of theirs is missing");
    for _ in 0..5 {
        let c = start(t, &[]);
        let mut calls: Vec<_> = (0..3).map(|_| c.test().call(&["update", "--pids-limit", "50", "--memory", "1g", &c.id]).spawn()).collect();
        os::kill(c.pid, libc::SIGKILL);
        calls.extend((0..2).map(|_| c.test().call(&["update", "--pids-limit", "50", &c.id]).spawn()));
        let delete = t.call(&["delete", "--force", &c.id]).spawn();
        for call in calls {
            let out = call.wait();
            let known = ["container not running", "does not exist"];
            assert!(out.code == 0 || known.iter().any(|k| out.stderr.contains(k)), "{}", out.stderr);
        }
        delete.wait().ok();
        os::reap(c.pid);
    }
}

fn what_is_no_longer_limited(t: &Test) {
    t.only_brig("the others have no --cgroup-manager disabled, or fail in other words");
    let mut b = t.bundle();
    b.unset("/linux/resources").payload(&["sleep"]).write();
    let id = t.new_id();
    let pid_file = t.dir().join("pid").display().to_string();
    let (_read, write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap();
    let args = ["run", "--detach", "--pid-file", &pid_file, "--bundle", b.path(), &id];
    crate::support::Call::new(t, &["--cgroup-manager", "disabled"], &args).stdout(write).ok();
    t.call(&["update", "--pids-limit", "5", &id]).out().code(1).fails(&["no cgroup", "--cgroup-manager disabled"]);
    t.call(&["update", &id]).ok();
    t.call(&["delete", "--force", &id]).ok();
    let pid = fs::read_to_string(pid_file).unwrap().parse().unwrap();
    assert!(os::pidfd(pid).is_ok_and(|fd| os::readable(&fd, Duration::from_secs(10))));
    os::reap(pid);
}

fn without_resctrl(t: &Test) {
    t.only_brig("in words of its own");
    if fs::read_to_string("/proc/self/mountinfo").unwrap().contains(" - resctrl ") {
        suite::skip("this host has resctrl");
    }
    let c = start(t, &[("/pids", json!({"limit": 30}))]);
    update(&c, &["--l3-cache-schema", "L3:0=f", "--pids-limit", "5"]).fails(&["resctrl"]);
    update(&c, &["--mem-bw-schema", "nonsense"]).fails(&["resctrl"]);
    assert_eq!(pids(&c), "30");
}
