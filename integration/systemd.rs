//! The systemd driver: scopes, their properties, what becomes of them; and systemd that is absent or does not answer.

use crate::engines::place::{self, systemctl};
use crate::support::{Bundle, Call, Test, Value, cases, host, json, os, runtime, suite};
use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

cases![
    a_scope_with_limits_that_survive_a_reload,
    an_update_reaches_the_unit,
    annotations_become_properties,
    a_slice_of_its_own,
    exec_and_pause_in_a_scope,
    a_scope_of_that_name_is_not_taken,
    a_container_that_ends_takes_its_scope_along,
    a_killed_runtime_leaves_no_scope,
    a_failed_create_leaves_no_scope,
    a_user_gets_scopes_of_its_own,
    paths_are_read_as_slice_prefix_and_name,
    the_plan_shows_the_scope,
    an_absent_bus_is_named,
    a_bus_that_is_none_is_named,
    a_stalled_bus_does_not_hang,
];

/// A call with the systemd driver.
fn systemd<'t>(t: &'t Test, args: &[&str]) -> Call<'t> {
    t.call(&[&["--systemd-cgroup"], args].concat())
}

fn need() {
    place::needs_systemd();
    if !os::is_root() {
        suite::skip("needs root");
    }
}

fn sleeper(t: &Test) -> Bundle {
    let mut b = t.bundle();
    b.payload(&["sleep"]);
    b
}

/// A started container and its pid.
fn run(t: &Test, b: &Bundle) -> (String, i32) {
    b.write();
    let (id, pid_file) = (t.new_id(), t.dir().join("pid"));
    let pid_path = pid_file.display().to_string();
    systemd(t, &["run", "--detach", "--bundle", b.path(), "--pid-file", &pid_path, &id]).patient().ok();
    (id, fs::read_to_string(pid_file).unwrap().parse().unwrap())
}

/// The scope's cgroup: of v2, or of the hierarchy that systemd has for itself.
fn dir(pid: i32) -> PathBuf {
    host::cgroup_dir(pid, if place::is_v2() { "" } else { "name=systemd" }).expect("a cgroup")
}

fn shows(t: &Test, unit: &str, properties: &[(&str, &str)]) {
    for (name, wanted) in properties {
        let out = systemctl(t, None, &["show", "--property", name, "--value", unit]).ok();
        assert_eq!(out.stdout.trim(), *wanted, "{name} of {unit}");
    }
}

/// What systemd has of a unit, and that it has none in the end.
fn is_loaded(t: &Test, unit: &str) -> bool {
    let out = systemctl(t, None, &["show", "--property", "LoadState,ActiveState", unit]).ok().stdout;
    !out.contains("not-found") && !out.contains("ActiveState=inactive")
}

fn limits() -> Value {
    json!({"memory": {"limit": 64 << 20}, "cpu": {"quota": 30000, "period": 100_000, "shares": 512}, "pids": {"limit": 20}})
}

fn a_scope_with_limits_that_survive_a_reload(t: &Test) {
    need();
    let mut b = sleeper(t);
    b.set("/linux/resources", limits());
    let (id, pid) = run(t, &b);
    let unit = if t.kind() == runtime::Kind::Brig { format!("brig-{id}.scope") } else { unit_of(pid) };
    assert!(dir(pid).ends_with(format!("system.slice/{unit}")), "{}", dir(pid).display());
    let cpu = ("CPUQuotaPerSecUSec", "300ms");
    shows(t, &unit, &[("Slice", "system.slice"), ("Delegate", "yes"), ("TasksMax", "20"), cpu]);
    let read = |v2: &str, controller: &str, v1: &str| match place::is_v2() {
        true => host::cgroup_file(pid, "", v2),
        false => host::cgroup_file(pid, controller, v1),
    };
    let check = || {
        assert_eq!(read("memory.max", "memory", "memory.limit_in_bytes"), "67108864");
        assert_eq!(read("pids.max", "pids", "pids.max"), "20");
        assert_eq!(read("cpu.weight", "cpu", "cpu.shares"), if place::is_v2() { "59" } else { "512" });
        assert_eq!(read("cpu.max", "cpu", "cpu.cfs_quota_us").split(' ').next(), Some("30000"));
    };
    check();
    systemctl(t, None, &["daemon-reload"]).ok();
    check();
    systemd(t, &["delete", "--force", &id]).patient().ok();
    os::reap(pid);
    assert!(!is_loaded(t, &unit));
    assert_eq!(t.left(), Vec::<String>::new());
}

fn unit_of(pid: i32) -> String {
    dir(pid).file_name().expect("a name").to_string_lossy().into_owned()
}

fn end(t: &Test, id: &str, pid: i32) {
    systemd(t, &["delete", "--force", id]).patient().ok();
    os::reap(pid);
    assert_eq!(t.left(), Vec::<String>::new());
}

fn an_update_reaches_the_unit(t: &Test) {
    need();
    t.only_brig("the names of its flags");
    let mut b = sleeper(t);
    b.set("/linux/resources", limits());
    let (id, pid) = run(t, &b);
    let unit = unit_of(pid);
    systemd(t, &["update", "--memory", "33554432", "--pids-limit", "30", "--cpu-quota", "20000", &id]).ok();
    let memory = if place::is_v2() { "MemoryMax" } else { "MemoryLimit" };
    shows(t, &unit, &[(memory, "33554432"), ("TasksMax", "30"), ("CPUQuotaPerSecUSec", "200ms")]);
    systemctl(t, None, &["daemon-reload"]).ok();
    assert_eq!(host::cgroup_file(pid, if place::is_v2() { "" } else { "pids" }, "pids.max"), "30");
    // systemd's own rules and brig's have to agree, or a device that is allowed now would stay denied.
    let change = t.dir().join("change.json");
    fs::write(&change, r#"{"devices": [{"allow": true, "type": "c", "major": 1, "minor": 11, "access": "r"}]}"#).unwrap();
    systemd(t, &["update", "--resources", &change.display().to_string(), &id]).ok();
    let list = systemctl(t, None, &["show", "--property", "DeviceAllow", "--value", &unit]).ok().stdout;
    assert!(list.contains("/dev/char/1:11 r") && list.matches("1:3").count() == 1, "{list}");
    end(t, &id, pid);
}

fn annotations_become_properties(t: &Test) {
    need();
    let mut b = sleeper(t);
    b.set("/annotations/org.systemd.property.TimeoutStopUSec", json!("uint64 7000000"));
    b.set("/annotations/org.systemd.property.KillMode", json!("'mixed'"));
    b.set("/annotations/org.systemd.property.After", json!("['sysinit.target']"));
    let (id, pid) = run(t, &b);
    shows(t, &unit_of(pid), &[("TimeoutStopUSec", "7s"), ("KillMode", "mixed")]);
    let after = systemctl(t, None, &["show", "--property", "After", "--value", &unit_of(pid)]).ok().stdout;
    assert!(after.contains("sysinit.target"), "{after}");
    end(t, &id, pid);
    t.only_brig("the words of its errors");
    for (name, value, words) in [
        ("KillMode", "mixed", "GVariant"),
        ("Kill-Mode", "'mixed'", "letters alone"),
        ("NoSuchThing", "true", "NoSuchThing"),
        ("KillMode", "7", "KillMode"),
    ] {
        let mut b = sleeper(t);
        b.set(&format!("/annotations/org.systemd.property.{name}"), json!(value)).write();
        let out = systemd(t, &["create", "--bundle", b.path(), &t.new_id()]).out();
        out.fails(&[&format!("/annotations/org.systemd.property.{name}"), words]);
        assert_eq!(t.left(), Vec::<String>::new());
    }
}

fn a_slice_of_its_own(t: &Test) {
    need();
    let stem = t.id().replace('-', "");
    let mut b = sleeper(t);
    b.set("/linux/cgroupsPath", json!(format!("{stem}-in.slice:pre:{}", t.id())));
    let (id, pid) = run(t, &b);
    let wanted = format!("{stem}.slice/{stem}-in.slice/pre-{}.scope", t.id());
    assert!(dir(pid).ends_with(&wanted), "{}", dir(pid).display());
    end(t, &id, pid);
    systemctl(t, None, &["stop", &format!("{stem}.slice")]).ok();
}

fn exec_and_pause_in_a_scope(t: &Test) {
    need();
    t.only_brig("ps and its flags");
    let (id, pid) = run(t, &sleeper(t));
    let pid_file = t.dir().join("exec.pid");
    let path = pid_file.display().to_string();
    systemd(t, &["exec", "--detach", "--pid-file", &path, &id, "/bin/payload", "sleep"]).ok();
    let second = fs::read_to_string(pid_file).unwrap().parse().unwrap();
    assert_eq!(dir(second), dir(pid));
    systemd(t, &["pause", &id]).ok();
    assert_eq!(systemd(t, &["state", &id]).ok().json()["status"], "paused");
    systemd(t, &["resume", &id]).ok();
    os::kill(second, libc::SIGKILL);
    os::reap(second);
    end(t, &id, pid);
}

fn a_scope_of_that_name_is_not_taken(t: &Test) {
    need();
    t.only_brig("the words of its errors");
    let name = format!("pre-{}.scope", t.id());
    let other = Call::of(t, &["systemd-run", "--scope", "--quiet", &format!("--unit={name}"), "sleep", "300"]).spawn();
    let mut b = sleeper(t);
    b.set("/linux/cgroupsPath", json!(format!(":pre:{}", t.id()))).write();
    while !is_loaded(t, &name) {}
    let out = systemd(t, &["create", "--bundle", b.path(), &t.new_id()]).out();
    // Whichever is seen first: its processes, or its name.
    assert!(out.stderr.contains("already"), "{}", out.stderr);
    assert_ne!(out.code, 0);
    assert!(is_loaded(t, &name), "the other's scope was stopped");
    systemctl(t, None, &["kill", "--signal=KILL", &name]).ok();
    other.wait();
}

fn a_container_that_ends_takes_its_scope_along(t: &Test) {
    need();
    let mut b = t.bundle();
    b.payload(&["ids"]).write();
    let id = t.new_id();
    systemd(t, &["run", "--bundle", b.path(), &id]).patient().ok();
    assert_eq!(t.left(), Vec::<String>::new());
    let all = systemctl(t, None, &["list-units", "--all", "--no-legend", "--plain"]).ok().stdout;
    assert!(!all.contains(&id), "{all}");
}

fn a_killed_runtime_leaves_no_scope(t: &Test) {
    need();
    t.only_brig("what delete --force promises");
    let mut b = sleeper(t);
    // The hook holds the runtime while the scope is there.
    b.set("/hooks/createRuntime", json!([{"path": "/bin/sleep", "args": ["sleep", "300"]}])).write();
    let id = t.new_id();
    let running = systemd(t, &["create", "--bundle", b.path(), &id]).spawn();
    let unit = format!("brig-{id}.scope");
    while !is_loaded(t, &unit) {}
    running.kill();
    for (pid, _) in host::processes_marked(&format!("BRIG_TEST={}", t.id())) {
        os::kill(pid, libc::SIGKILL);
    }
    systemd(t, &["delete", "--force", &id]).patient().ok();
    assert!(!is_loaded(t, &unit));
}

fn a_failed_create_leaves_no_scope(t: &Test) {
    need();
    t.only_brig("the name of the scope");
    let mut b = sleeper(t);
    b.args(&["/bin/not-there"]).write();
    let id = t.new_id();
    systemd(t, &["run", "--bundle", b.path(), &id]).patient().out().fails(&["not-there"]);
    assert!(!is_loaded(t, &format!("brig-{id}.scope")));
    assert_eq!(t.left(), Vec::<String>::new());
}

fn a_user_gets_scopes_of_its_own(t: &Test) {
    place::needs_systemd_v2();
    t.only_brig("its rootless flags");
    let user = place::user();
    let mut b = t.bundle();
    b.user_namespace(user.uid, 1).without_namespace("network").set("/linux/resources", limits());
    let sys = b.mount_at("/sys");
    let bind = ["rbind", "nosuid", "noexec", "nodev", "ro"];
    b.set(&sys, json!({"destination": "/sys", "type": "none", "source": "/sys", "options": bind}));
    let pts = b.mount_at("/dev/pts");
    b.set(&format!("{pts}/options"), json!(["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]));
    for dir in [t.dir().to_path_buf(), b.dir().to_path_buf(), b.rootfs("/"), b.rootfs("tmp"), b.rootfs("mnt")] {
        chown(dir, Some(user.uid), Some(user.gid)).unwrap();
    }
    let binary = &runtime::under_test().path;
    if !binary.ancestors().skip(1).all(|d| fs::metadata(d).is_ok_and(|m| m.permissions().mode() & 1 != 0)) {
        suite::skip(format!("other users can't reach {}", binary.display()));
    }
    let demoted = place::demotion(&user);
    let demoted: Vec<&str> = demoted.iter().map(String::as_str).collect();
    let runtime_dir = user.runtime_dir().display().to_string();
    let call = |args: &[&str]| {
        Call::through(t, &demoted, &["--systemd-cgroup"], args).patient().env("XDG_RUNTIME_DIR", &runtime_dir)
    };
    b.payload(&["sleep"]).write();
    let (id, pid_file) = (t.new_id(), t.dir().join("pid"));
    call(&["run", "--detach", "--bundle", b.path(), "--pid-file", &pid_file.display().to_string(), &id]).ok();
    let pid: i32 = fs::read_to_string(&pid_file).unwrap().parse().unwrap();
    let wanted = format!("user@{}.service/user.slice/brig-{id}.scope", user.uid);
    assert!(dir(pid).ends_with(&wanted), "{}", dir(pid).display());
    assert_eq!(host::cgroup_file(pid, "", "memory.max"), "67108864");
    systemctl(t, Some(&user), &["daemon-reload"]).ok();
    assert_eq!(host::cgroup_file(pid, "", "pids.max"), "20");
    let seen = call(&["exec", &id, "/bin/payload", "ids"]).ok().json();
    assert_eq!(seen["ids"]["uid"], json!([0, 0, 0, 0]));
    call(&["delete", "--force", &id]).ok();
    os::reap(pid);
    assert_eq!(t.left(), Vec::<String>::new());
}

fn paths_are_read_as_slice_prefix_and_name(t: &Test) {
    t.only_brig("the words of its errors");
    for path in ["/a/b", "a:b", "a.slice:b:c:d", "a:b:c", "a--b.slice:b:c", ":b:c d", ":b:c.slice"] {
        let mut b = sleeper(t);
        b.set("/linux/cgroupsPath", json!(path)).write();
        systemd(t, &["create", "--bundle", b.path(), &t.new_id()]).out().fails(&["/linux/cgroupsPath"]);
        assert_eq!(t.left(), Vec::<String>::new());
    }
}

fn the_plan_shows_the_scope(t: &Test) {
    t.only_brig("it alone has plans");
    let mut b = sleeper(t);
    b.set("/linux/resources/pids", json!({"limit": 9})).set("/linux/cgroupsPath", json!("a-b.slice:pre:x")).write();
    let text = systemd(t, &["plan", b.path()]).ok().stdout;
    for words in ["start pre-x.scope in a-b.slice", "TasksMax=9", "/a.slice/a-b.slice/pre-x.scope", "put into the scope"] {
        assert!(text.contains(words), "{words} is not in:\n{text}");
    }
}

/// A create with a bus at this place, which has to fail and to leave nothing.
fn fails_at(t: &Test, address: &str, words: &[&str]) {
    let b = sleeper(t);
    b.write();
    let call = systemd(t, &["create", "--bundle", b.path(), &t.new_id()]).env("DBUS_SYSTEM_BUS_ADDRESS", address);
    call.patient().out().fails(&[words, &["--cgroup-manager cgroupfs"]].concat());
    assert_eq!(t.left(), Vec::<String>::new());
}

fn an_absent_bus_is_named(t: &Test) {
    t.only_brig("the words of its errors");
    let path = t.dir().join("no-bus").display().to_string();
    fails_at(t, &format!("unix:path={path}"), &[&path, "no such file or directory"]);
    let _closed = UnixListener::bind(t.dir().join("closed")).map(drop);
    let path = t.dir().join("closed").display().to_string();
    fails_at(t, &format!("unix:path={path}"), &[&path, "connection refused"]);
}

fn a_bus_that_is_none_is_named(t: &Test) {
    t.only_brig("the words of its errors");
    let path = t.dir().join("bus");
    let listener = UnixListener::bind(&path).unwrap();
    let answers: [&[u8]; 4] = [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"REJECTED EXTERNAL\r\n", b"OK 1\r\nxxxxxxxxxxxxxxxxxxxxxxx", b""];
    let server = std::thread::spawn(move || {
        for answer in answers {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(answer).unwrap();
        }
    });
    let address = format!("unix:path={}", path.display());
    for words in ["does not speak D-Bus", "does not let this user in", "does not speak D-Bus", "closed the connection"] {
        fails_at(t, &address, &[&path.display().to_string(), words]);
    }
    server.join().unwrap();
}

fn a_stalled_bus_does_not_hang(t: &Test) {
    t.only_brig("the words of its errors");
    let path = t.dir().join("bus");
    // It takes the connection into its queue, and never looks at it.
    let _listener = UnixListener::bind(&path).unwrap();
    let start = std::time::Instant::now();
    let address = format!("unix:path={}", path.display());
    fails_at(t, &address, &["did not answer within 30 seconds", &path.display().to_string()]);
    assert!((29..60).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
}
