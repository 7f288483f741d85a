//! `check`: what it says of the host must be what the host says.

use crate::rootless;
use crate::support::{Test, Value, cases, json, runtime};
use std::fs;
use std::path::Path;

cases![
    the_document_has_its_shape,
    the_text_says_the_same,
    cgroups_are_as_mounted,
    modules_and_filesystems_are_as_the_kernel_says,
    places_are_as_they_are,
    as_a_plain_user,
    a_filtered_call_is_missing,
    without_namespaces_nothing_runs,
    nothing_is_changed,
];

fn report(t: &Test) -> Value {
    t.only_brig("others have no such command");
    t.call(&["check", "--json"]).ok().json()
}

#[track_caller]
fn row<'r>(report: &'r Value, name: &str) -> &'r Value {
    let rows = report["rows"].as_array().unwrap();
    rows.iter().find(|row| row["name"] == name).unwrap_or_else(|| panic!("no row {name}: {report}"))
}

#[track_caller]
fn state(report: &Value, name: &str) -> String {
    row(report, name)["state"].as_str().unwrap().to_owned()
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

fn the_document_has_its_shape(t: &Test) {
    let report = report(t);
    assert_eq!(report["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(report["kernel"], read("/proc/sys/kernel/osrelease").as_str());
    assert_eq!((&report["uid"], &report["canRun"]), (&json!(0), &json!(true)));
    let rows = report["rows"].as_array().unwrap();
    let mut names: Vec<&str> = rows.iter().map(|row| row["name"].as_str().unwrap()).collect();
    names.sort_unstable();
    let all = names.len();
    names.dedup();
    assert_eq!((names.len(), all > 30), (all, true), "a name twice, or few rows: {names:?}");
    for row in rows {
        assert!(row["area"].is_string(), "{row}");
        match row["state"].as_str().unwrap() {
            "ok" => assert!(row["cost"].is_null() && row["remedy"].is_null(), "{row}"),
            "limited" | "missing" => assert!(row["cost"].is_string() && row["remedy"].is_string(), "{row}"),
            other => panic!("{other}"),
        }
        assert!(row.as_object().unwrap().values().all(|value| *value != ""), "{row}");
    }
}

fn the_text_says_the_same(t: &Test) {
    let report = report(t);
    let text = t.call(&["check"]).ok().stdout;
    for row in report["rows"].as_array().unwrap() {
        let (state, name) = (row["state"].as_str().unwrap(), row["name"].as_str().unwrap());
        let mut lines = text.lines().map(str::trim);
        assert!(lines.any(|line| line.starts_with(state) && line.contains(name)), "{name} is not in: {text}");
        for key in ["found", "cost", "remedy"] {
            assert!(row[key].as_str().is_none_or(|words| text.contains(words)), "{row} in {text}");
        }
    }
    assert!(text.trim_end().ends_with("containers can run here"), "{text}");
}

fn cgroups_are_as_mounted(t: &Test) {
    let report = report(t);
    // stat -f: cgroup2fs, or the tmpfs over v1 hierarchies.
    let kind = |path: &str| nix::sys::statfs::statfs(path).map(|found| found.filesystem_type()).ok();
    let v2 = Some(nix::sys::statfs::CGROUP2_SUPER_MAGIC);
    let mode = match (kind("/sys/fs/cgroup") == v2, kind("/sys/fs/cgroup/unified") == v2) {
        (true, _) => "v2",
        (_, true) => "hybrid",
        _ => "v1",
    };
    assert_eq!(row(&report, "cgroup mode")["found"], mode);
    let controllers = row(&report, "cgroup controllers")["found"].as_str().unwrap();
    if mode == "v2" {
        let mut told: Vec<String> = read("/sys/fs/cgroup/cgroup.controllers").split(' ').map(str::to_owned).collect();
        told.sort();
        assert_eq!(controllers, told.join(", "));
        assert_eq!(state(&report, "device programs (eBPF)"), "ok");
        let kill = fs::read_dir("/sys/fs/cgroup").unwrap().flatten().any(|e| e.path().join("cgroup.kill").exists());
        assert_eq!(state(&report, "cgroup.kill") == "ok", kill);
    } else {
        let table = read("/proc/cgroups");
        let unified = read("/sys/fs/cgroup/unified/cgroup.controllers");
        for line in table.lines().skip(1) {
            let mut fields = line.split_whitespace();
            let (name, hierarchy) = (fields.next().unwrap(), fields.next().unwrap());
            let there = controllers.split(", ").any(|controller| controller == name);
            let in_v2 = unified.split(' ').any(|controller| controller == name);
            assert!(!there || in_v2 || hierarchy != "0", "{name} is not mounted, {controllers}");
        }
        assert!(controllers.contains("memory") && controllers.contains("pids"), "{controllers}");
    }
    assert_eq!(state(&report, "cgroups of this user"), "ok", "root may write all of them");
}

fn modules_and_filesystems_are_as_the_kernel_says(t: &Test) {
    let report = report(t);
    let enabled = read("/sys/module/apparmor/parameters/enabled") == "Y";
    assert_eq!(state(&report, "AppArmor") == "ok", enabled);
    assert_eq!(state(&report, "SELinux") == "missing", !Path::new("/sys/fs/selinux/enforce").exists());
    let known = read("/proc/filesystems").lines().any(|line| line.ends_with("resctrl"));
    let mounted = read("/proc/mounts").lines().any(|line| line.split(' ').nth(2) == Some("resctrl"));
    let expected = if mounted { "ok" } else if known { "limited" } else { "missing" };
    assert_eq!(state(&report, "resctrl"), expected);
    assert_eq!(state(&report, "systemd") == "missing", !Path::new("/run/systemd/system").exists());
    for (name, file) in [("time", "time"), ("user", "user"), ("cgroup", "cgroup"), ("network", "net"), ("mount", "mnt")] {
        let there = Path::new(&format!("/proc/self/ns/{file}")).exists();
        assert_eq!(state(&report, name) == "ok", there, "{name}");
    }
    let actions = read("/proc/sys/kernel/seccomp/actions_avail");
    let found = row(&report, "seccomp actions")["found"].as_str().unwrap();
    assert_eq!(found.contains("notify"), actions.split(' ').any(|action| action == "user_notif"));
    let sizes = fs::read_dir("/sys/kernel/mm/hugepages").map_or(0, Iterator::count);
    let told = row(&report, "huge pages")["found"].as_str().unwrap();
    assert_eq!(if told == "none" { 0 } else { told.split(", ").count() }, sizes);
    let caps = read("/proc/self/status");
    let resource = caps.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap().trim();
    let resource = u64::from_str_radix(resource, 16).unwrap() >> 24 & 1 == 1;
    assert_eq!(state(&report, "resource limits") == "ok", resource);
}

fn places_are_as_they_are(t: &Test) {
    let report = report(t);
    let found = row(&report, "state directory")["found"].as_str().unwrap();
    assert!(found.starts_with(&t.root().display().to_string()), "{found}");
    let (code, report) = inside(t, |b| {
        b.set("/root/readonly", json!(true));
    });
    assert_eq!((code, &row(&report, "state directory")["fatal"]), (1, &json!(true)), "it can't be made: {report}");
    // A criu that is only a name on the PATH of the caller.
    let bin = t.dir().join("bin");
    fs::create_dir(&bin).unwrap();
    std::os::unix::fs::symlink("/proc/self/exe", bin.join("criu")).unwrap();
    let report: Value = t.call(&["check", "--json"]).env("PATH", &bin.display().to_string()).ok().json();
    assert_eq!(row(&report, "criu")["found"], bin.join("criu").display().to_string());
}

fn as_a_plain_user(t: &Test) {
    t.only_brig("others have no such command");
    std::os::unix::fs::chown(t.dir(), Some(rootless::WHO), Some(rootless::WHO)).unwrap();
    let out = rootless::call(t, &["check", "--json"]).out();
    let report = out.json();
    assert_eq!(report["uid"], rootless::WHO);
    assert_eq!(report["canRun"], out.code == 0);
    assert_eq!(state(&report, "ID-mapped mounts"), "missing");
    assert_eq!(state(&report, "XDG_RUNTIME_DIR"), "ok");
    for file in ["/etc/subuid", "/etc/subgid"] {
        let given = read(file).lines().any(|line| line.starts_with(&format!("{}:", rootless::WHO)));
        assert_eq!(state(&report, &format!("ranges in {file}")) == "missing", !given);
    }
    assert_eq!(state(&report, "newuidmap") == "ok", Path::new("/usr/bin/newuidmap").exists());
    // What it says is so: a container runs, or does not.
    let mut b = rootless::bundle(t);
    b.payload(&["ids"]).write();
    let ran = rootless::call(t, &["run", "--bundle", b.path(), &t.new_id()]).out();
    assert_eq!(ran.code == 0, report["canRun"] == true, "{report}\n{}", ran.stderr);
}

/// `check` run in a container.
fn inside(t: &Test, change: impl FnOnce(&mut crate::support::Bundle)) -> (i32, Value) {
    t.only_brig("others have no such command");
    let mut b = t.bundle();
    fs::write(b.rootfs("bin/brig"), "").unwrap();
    b.bind(&runtime::under_test().path, "/bin/brig", &["ro"]);
    b.args(&["/bin/brig", "--root", "/tmp/state", "check", "--json"]);
    change(&mut b);
    let out = t.run(&b);
    (out.code, out.json())
}

fn a_filtered_call_is_missing(t: &Test) {
    let (_, whole) = inside(t, |_| {});
    let around = |group: &str| if t.is_taken(group) { "missing" } else { "ok" };
    for name in ["openat2", "close_range"] {
        assert_eq!(state(&whole, name), around(name), "{name}");
    }
    let refuse = |names: Value, errno: i32| {
        let errno = errno as u32;
        json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": names, "action": "SCMP_ACT_ERRNO", "errnoRet": errno}]})
    };
    let (_, filtered) = inside(t, |b| {
        b.set("/linux/seccomp", refuse(json!(["openat2", "pidfd_getfd", "statx"]), libc::ENOSYS));
    });
    for name in ["openat2", "pidfd_getfd", "statx of mount roots"] {
        assert_eq!(state(&filtered, name), "missing", "{name}");
    }
    assert_eq!(state(&filtered, "close_range"), around("close_range"));
    let (_, filtered) = inside(t, |b| {
        b.set("/linux/seccomp", refuse(json!(["openat2"]), libc::EPERM));
    });
    assert_eq!(row(&filtered, "openat2")["found"], "operation not permitted");
    assert!(row(&filtered, "openat2")["remedy"].as_str().unwrap().contains("filter"));
}

fn without_namespaces_nothing_runs(t: &Test) {
    let (code, report) = inside(t, |b| {
        b.set(
            "/linux/seccomp",
            json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["unshare"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}]}),
        );
    });
    assert_eq!((code, &report["canRun"]), (1, &json!(false)));
    assert_eq!((&row(&report, "mount")["fatal"], state(&report, "pid")), (&json!(true), "missing".into()));
}

fn nothing_is_changed(t: &Test) {
    t.only_brig("others have no such command");
    let mounts = || fs::read_to_string("/proc/self/mountinfo").unwrap().lines().filter(|l| l.contains(t.id())).count();
    let before = (mounts(), fs::read_dir(t.dir()).unwrap().count());
    let out = t.call(&["check"]).spawn();
    out.wait().ok();
    assert!(!t.root().exists(), "the state directory was made");
    // The call's own two files.
    assert_eq!((mounts(), fs::read_dir(t.dir()).unwrap().count()), (before.0, before.1 + 2));
}
