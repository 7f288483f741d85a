//! Tests in the cgroup hierarchies of the machine, each under a name of its own, which is removed even when the test fails.

mod limits;

use super::tests::{request, resources};
use super::*;
use crate::sys::process::{Child, clone3, exit_now};
use std::fs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// A path below each hierarchy's root that no other test has.
pub(super) fn fresh_path() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("/brig-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// The machine's layout, if it is one with v1 freezer, memory, cpu, cpuset and pids that may be written.
fn v1_machine() -> Option<Layout> {
    let layout = Layout::detect().unwrap();
    let all = ["freezer", "memory", "cpu", "cpuset", "pids", "devices"];
    let has =
        |c: &&str| layout.hierarchies.iter().any(|h| h.version == Version::V1 && h.controllers.iter().any(|x| x == c));
    let there = all.iter().all(has) && nix::unistd::geteuid().is_root();
    if !there {
        eprintln!("skipped: needs root and cgroup v1 with {}", all.join(", "));
    }
    there.then_some(layout)
}

/// Only the v2 hierarchy of the machine.
fn v2_machine() -> Option<Layout> {
    let layout = Layout::detect().unwrap();
    let v2 = layout.unified().filter(|_| nix::unistd::geteuid().is_root()).cloned();
    if v2.is_none() {
        eprintln!("skipped: needs root and a cgroup v2 mount");
    }
    v2.map(|h| Layout { hierarchies: vec![h] })
}

/// A container's cgroups, gone at the end whatever happens.
struct Made(Record);

impl Drop for Made {
    fn drop(&mut self) {
        let _ = self.0.kill(libc::SIGKILL);
        let removed = self.0.remove();
        if !std::thread::panicking() {
            removed.unwrap();
        }
    }
}

fn make(layout: &Layout, path: &str, json: &str) -> Made {
    let resources = resources(json);
    let plan = compile(layout, &request(Some(path), &resources)).unwrap();
    let planned = plan.record();
    let made = Made(plan.create().unwrap());
    assert_eq!(made.0, planned);
    made
}

fn content(record: &Record, controller: &str, file: &str) -> String {
    fs::read_to_string(format!("{}/{file}", record.path_for(controller).unwrap())).unwrap().trim().to_owned()
}

/// A child in the cgroups that does nothing until it is killed.
fn sleeper(record: &Record) -> Child {
    inside(record, || {
        nix::unistd::pause();
    })
}

/// A child in the cgroups that forks as fast as it can, as do its children.
fn bomb(record: &Record, size: usize) -> Child {
    let child = inside(record, || drop(clone3(0, None)));
    let start = Instant::now();
    while record.pids().unwrap().len() < size {
        assert!(start.elapsed() < Duration::from_secs(20), "the bomb does not go off");
        std::thread::yield_now();
    }
    child
}

/// A child in the cgroups that does one thing again and again.
fn inside(record: &Record, again: fn()) -> Child {
    let (files, dir) = (record.join_files(), record.v2_dir().unwrap());
    match clone3(0, dir.as_ref().map(AsFd::as_fd)).unwrap() {
        Some(child) => {
            // The last file is the last one it joins.
            let last = record.groups.iter().rfind(|g| g.version == Version::V1).unwrap_or(&record.groups[0]);
            let start = Instant::now();
            while !members::pids(&last.path).unwrap().contains(&child.pid) {
                assert!(start.elapsed() < Duration::from_secs(10), "the child does not join");
                std::thread::yield_now();
            }
            child
        }
        None => {
            if join(&files).is_err() {
                exit_now(1);
            }
            loop {
                again();
            }
        }
    }
}

/// A shell script run in the cgroups.
fn script(record: &Record, text: &str) -> std::process::Child {
    let files = record.join_files();
    let files = files.iter().map(|f| f.to_str().unwrap());
    let join = "for f; do echo 0 >\"$f\" || exit 99; done; ";
    let mut command = Command::new("/bin/sh");
    command.args(["-c", &format!("{join}{text}"), "sh"]).args(files);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

#[test]
fn create_join_kill_remove() {
    let Some(layout) = v1_machine() else { return };
    let parent = fresh_path();
    let json = r#"{"memory": {"limit": 33554432, "swap": 67108864, "reservation": 16777216, "swappiness": 10,
            "disableOOMKiller": true, "useHierarchy": true},
        "cpu": {"shares": 512, "quota": 50000, "period": 100000, "burst": 1000, "cpus": "0"}, "pids": {"limit": 20},
        "devices": [{"allow": false, "access": "rwm"}, {"allow": true, "type": "c", "major": 10, "minor": 229, "access": "rw"}]}"#;
    let made = make(&layout, &format!("{parent}/web"), json);
    let record = &made.0;
    assert!(record.exists());
    for (controller, file, value) in [
        ("memory", "memory.limit_in_bytes", "33554432"),
        ("memory", "memory.soft_limit_in_bytes", "16777216"),
        ("memory", "memory.swappiness", "10"),
        ("memory", "memory.use_hierarchy", "1"),
        ("cpu", "cpu.shares", "512"),
        ("cpu", "cpu.cfs_quota_us", "50000"),
        ("cpu", "cpu.cfs_burst_us", "1000"),
        ("cpuset", "cpuset.cpus", "0"),
        ("pids", "pids.max", "20"),
    ] {
        assert_eq!(content(record, controller, file), value, "{file}");
    }
    assert!(!content(record, "cpuset", "cpuset.mems").is_empty(), "inherited");
    assert!(content(record, "memory", "memory.oom_control").contains("oom_kill_disable 1"));
    let devices = content(record, "devices", "devices.list");
    assert!(
        devices.contains("c 10:229 rw") && devices.contains("c 1:3 rwm") && !devices.contains("a *:*"),
        "{devices}"
    );

    let child = sleeper(record);
    assert_eq!(record.pids().unwrap(), [child.pid]);
    let cgroups = fs::read_to_string(format!("/proc/{}/cgroup", child.pid)).unwrap();
    let inside = cgroups.lines().filter(|line| line.ends_with(&format!(":{parent}/web"))).count();
    assert_eq!(inside, layout.hierarchies.iter().filter(|h| h.version == Version::V1).count(), "{cgroups}");

    record.kill(libc::SIGKILL).unwrap();
    assert_eq!(child.wait().unwrap().status(), 128 + libc::SIGKILL);
    record.remove().unwrap();
    assert!(!record.exists());
    for h in layout.hierarchies.iter().filter(|h| h.version == Version::V1) {
        assert!(!Path::new(&format!("{}{parent}", h.mount)).exists(), "the parent in {} was ours, too", h.mount);
    }
    record.remove().unwrap();
    assert_eq!(record.pids().unwrap(), [0; 0]);
}

#[test]
fn a_relative_path_stays_below_our_own_cgroup() {
    let Some(layout) = v1_machine() else { return };
    let name = fresh_path();
    let made = make(&layout, &name[1..], "{}");
    let memory = layout.hierarchies.iter().find(|h| h.controllers == ["memory"]).unwrap();
    let own = memory.own.trim_end_matches('/');
    assert_eq!(made.0.path_for("memory").unwrap(), format!("{}{own}{name}", memory.mount));
    assert!(Path::new(made.0.path_for("memory").unwrap()).is_dir());
}

#[test]
fn a_parent_stays_as_long_as_another_container_is_in_it() {
    let Some(layout) = v1_machine() else { return };
    let parent = fresh_path();
    let first = make(&layout, &format!("{parent}/a/1"), "{}");
    let second = make(&layout, &format!("{parent}/a/2"), "{}");
    assert!(!first.0.parents.is_empty() && second.0.parents.is_empty());
    first.0.remove().unwrap();
    assert!(second.0.exists() && !first.0.exists());
    second.0.remove().unwrap();
    // Whose parent it was is gone, so it is left to whoever looks after the machine; here that is the test.
    first.0.remove().unwrap();
    assert!(!Path::new(&format!("/sys/fs/cgroup/pids{parent}")).exists());
}

#[test]
fn a_cgroup_in_use_is_refused_and_an_empty_one_is_used() {
    let Some(layout) = v1_machine() else { return };
    let made = make(&layout, &fresh_path(), "{}");
    let none = Resources::default();
    let path = made.0.path_for("freezer").unwrap().trim_start_matches("/sys/fs/cgroup/freezer").to_owned();
    let again = compile(&layout, &request(Some(&path), &none)).unwrap();
    assert!(again.create().unwrap().parents.is_empty(), "empty, so it can be used");
    made.0.freeze().unwrap();
    assert!(again.create().unwrap_err().to_string().contains("is frozen"));
    made.0.thaw().unwrap();
    let child = sleeper(&made.0);
    let error = again.create().unwrap_err();
    assert_eq!(error.kind(), crate::error::Kind::Exists);
    assert!(error.to_string().contains(&format!("already: {} (", child.pid)), "{error}");
    assert!(made.0.exists(), "what was there before is not removed");
    made.0.kill(libc::SIGKILL).unwrap();
    child.wait().unwrap();
}

#[test]
fn freeze_and_thaw() {
    let Some(layout) = v1_machine() else { return };
    let made = make(&layout, &fresh_path(), "{}");
    let child = sleeper(&made.0);
    assert!(!made.0.is_frozen().unwrap());
    made.0.freeze().unwrap();
    assert!(made.0.is_frozen().unwrap());
    made.0.kill(libc::SIGTERM).unwrap();
    assert!(made.0.is_frozen().unwrap(), "a signal does not wake a frozen container");
    assert_eq!(made.0.pids().unwrap(), [child.pid]);
    made.0.thaw().unwrap();
    assert!(!made.0.is_frozen().unwrap());
    assert_eq!(child.wait().unwrap().status(), 128 + libc::SIGTERM);
    let second = sleeper(&made.0);
    made.0.freeze().unwrap();
    made.0.kill(libc::SIGKILL).unwrap();
    assert_eq!(second.wait().unwrap().status(), 128 + libc::SIGKILL, "SIGKILL reaches a frozen one");
}

const BOMB: &str = r#"{"pids": {"limit": 40}, "memory": {"limit": 134217728}, "cpu": {"quota": 50000}}"#;

#[test]
fn a_fork_bomb_does_not_escape() {
    let Some(layout) = v1_machine() else { return };
    let made = make(&layout, &fresh_path(), BOMB);
    let first = bomb(&made.0, 40);
    made.0.freeze().unwrap();
    assert_eq!(made.0.pids().unwrap().len(), 40);
    made.0.thaw().unwrap();
    made.0.kill(libc::SIGKILL).unwrap();
    assert_eq!(made.0.pids().unwrap(), [0; 0]);
    first.wait().unwrap();
    made.0.remove().unwrap();
}

#[test]
fn without_a_freezer_a_fork_bomb_is_kept_from_forking() {
    let Some(mut layout) = v1_machine() else { return };
    layout.hierarchies.retain(|h| ["pids", "memory", "cpu", "devices"].contains(&h.controllers[0].as_str()));
    let made = make(&layout, &fresh_path(), BOMB);
    assert!(made.0.freeze().is_err());
    let first = bomb(&made.0, 40);
    made.0.kill(libc::SIGKILL).unwrap();
    assert_eq!(made.0.pids().unwrap(), [0; 0]);
    assert_eq!(content(&made.0, "pids", "pids.max"), "40", "what was set is set again");
    first.wait().unwrap();
}

#[test]
fn a_fork_bomb_dies_on_v2() {
    let (Some(v2), Some(v1)) = (v2_machine(), v1_machine()) else { return };
    // Limited by the machine's v1 pids controller, killed by way of v2.
    let fence = make(&v1, &fresh_path(), BOMB);
    let made = make(&v2, &fresh_path(), "{}");
    let both = Record { groups: fence.0.groups.iter().chain(&made.0.groups).cloned().collect(), ..Record::default() };
    let first = bomb(&both, 40);
    made.0.freeze().unwrap();
    made.0.kill(libc::SIGKILL).unwrap();
    assert_eq!(both.pids().unwrap(), [0; 0]);
    first.wait().unwrap();
}

#[test]
fn removal_waits_for_processes_that_are_ending() {
    let Some(layout) = v1_machine() else { return };
    for _ in 0..20 {
        let made = make(&layout, &fresh_path(), "{}");
        let child = sleeper(&made.0);
        crate::sys::process::pidfd_send_signal(child.pidfd.as_fd(), libc::SIGKILL).unwrap();
        made.0.remove().unwrap();
        assert!(!made.0.exists());
        child.wait().unwrap();
    }
}

#[test]
fn sub_cgroups_are_found_and_removed_however_deep() {
    let Some(layout) = v1_machine() else { return };
    let made = make(&layout, &fresh_path(), "{}");
    let top = made.0.path_for("freezer").unwrap().to_owned();
    // Deeper than any path can be written in one piece (4096 bytes).
    let mut dir = open(top.as_str(), OFlag::O_DIRECTORY, FileMode::empty()).unwrap();
    for _ in 0..20 {
        let name = "d".repeat(250);
        nix::sys::stat::mkdirat(dir.as_fd(), name.as_str(), FileMode::S_IRWXU).unwrap();
        dir = nix::fcntl::openat(dir.as_fd(), name.as_str(), OFlag::O_DIRECTORY, FileMode::empty()).unwrap();
    }
    drop(dir);
    for i in 0..50 {
        fs::create_dir(format!("{top}/wide{i}")).unwrap();
    }
    let sleeping = made.0.sub(&["freezer:wide7"]).unwrap();
    let child = sleeper(&sleeping);
    assert_eq!(made.0.pids().unwrap(), [child.pid]);
    made.0.kill(libc::SIGKILL).unwrap();
    made.0.remove().unwrap();
    assert!(!made.0.exists());
    child.wait().unwrap();
}

#[test]
fn exec_into_a_sub_cgroup() {
    let Some(layout) = v1_machine() else { return };
    let made = make(&layout, &fresh_path(), "{}");
    let memory = made.0.path_for("memory").unwrap().to_owned();
    fs::create_dir(format!("{memory}/sub")).unwrap();
    let sub = made.0.sub(&["memory:sub"]).unwrap();
    assert_eq!(sub.path_for("memory").unwrap(), format!("{memory}/sub"));
    assert_eq!(sub.path_for("cpu"), made.0.path_for("cpu"));
    assert_eq!(made.0.sub(&["/"]).unwrap().groups, made.0.groups);
    for wrong in ["missing", "memory:missing", "nothing:sub", "memory:../x", ".."] {
        assert!(made.0.sub(&[wrong]).is_err(), "{wrong}");
    }
}

#[test]
fn the_record_survives_json() {
    let Some(layout) = v1_machine() else { return };
    let made = make(&layout, &format!("{}/x", fresh_path()), "{}");
    let text = serde_json::to_string(&made.0).unwrap();
    assert_eq!(serde_json::from_str::<Record>(&text).unwrap(), made.0);
    assert_eq!(made.0.paths()["name=systemd"], made.0.path_for("name=systemd").unwrap());
}

#[test]
fn v2_freeze_kill_remove() {
    let Some(layout) = v2_machine() else { return };
    let made = make(&layout, &format!("{}/web", fresh_path()), r#"{"unified": {"cgroup.max.depth": "3"}}"#);
    let top = made.0.groups[0].path.clone();
    assert_eq!(fs::read_to_string(format!("{top}/cgroup.max.depth")).unwrap(), "3\n");
    let child = sleeper(&made.0);
    made.0.freeze().unwrap();
    assert!(made.0.is_frozen().unwrap());
    made.0.thaw().unwrap();
    fs::create_dir_all(format!("{top}/a/b")).unwrap();
    let below =
        Record { groups: vec![Group { path: format!("{top}/a/b"), ..made.0.groups[0].clone() }], ..Record::default() };
    let second = sleeper(&below);
    let mut both = [child.pid, second.pid];
    both.sort_unstable();
    assert_eq!(made.0.pids().unwrap(), both);
    made.0.kill(libc::SIGKILL).unwrap();
    assert_eq!(made.0.pids().unwrap(), [0; 0]);
    made.0.remove().unwrap();
    assert!(!Path::new(&top).exists() && !Path::new(&top).parent().unwrap().exists());
    child.wait().unwrap();
    second.wait().unwrap();
}

#[test]
fn a_rootless_caller_does_without_what_it_may_not_write() {
    let Some(mut layout) = v1_machine() else { return };
    layout.hierarchies.retain(|h| ["pids", "freezer"].contains(&h.controllers[0].as_str()));
    // Nobody, not even root, makes a directory in sysfs.
    let at = layout.hierarchies.iter().position(|h| h.controllers == ["freezer"]).unwrap();
    layout.hierarchies[at].mount = "/sys/kernel".into();
    let (none, limited) = (Resources::default(), resources(r#"{"unified": {}, "pids": {"limit": 5}}"#));
    let path = fresh_path();
    let plan = |resources| compile(&layout, &Request { rootless: true, ..request(Some(&path), resources) }).unwrap();
    let made = Made(plan(&none).create().unwrap());
    assert_eq!(made.0.groups.len(), 1);
    assert!(made.0.path_for("pids").is_some() && made.0.path_for("freezer").is_none());
    made.0.remove().unwrap();
    layout.hierarchies[at].mount.clone_from(&"/sys/fs/cgroup/freezer".to_owned());
    let pids = layout.hierarchies.iter().position(|h| h.controllers == ["pids"]).unwrap();
    layout.hierarchies[pids].mount = "/sys/kernel".into();
    let plan = compile(&layout, &Request { rootless: true, ..request(Some(&path), &limited) }).unwrap();
    let error = plan.create().unwrap_err().to_string();
    assert!(error.contains("make cgroup /sys/kernel/brig-test-") && error.contains("hint: "), "{error}");
    assert!(!plan.record().exists(), "what was made before is gone again");
}

#[test]
fn another_process_starts_beside_init() {
    let Some(layout) = v2_machine() else { return };
    if layout.hierarchies[0].controllers.is_empty() {
        eprintln!("skipped: the v2 tree has no controller");
        return;
    }
    let controller = layout.hierarchies[0].controllers[0].clone();
    let made = make(&layout, &fresh_path(), "{}");
    let top = made.0.groups[0].path.clone();
    fs::create_dir(format!("{top}/init")).unwrap();
    let inner =
        Record { groups: vec![Group { path: format!("{top}/init"), ..made.0.groups[0].clone() }], ..Record::default() };
    let init = sleeper(&inner);
    assert_eq!(made.0.beside(init.pid), made.0, "as long as the top may have processes");
    fs::write(format!("{top}/cgroup.subtree_control"), format!("+{controller}")).unwrap();
    assert_eq!(made.0.beside(init.pid).groups, inner.groups);
    assert_eq!(made.0.beside(std::process::id() as i32), made.0, "a process elsewhere leads nowhere");
    made.0.kill(libc::SIGKILL).unwrap();
    init.wait().unwrap();
}
