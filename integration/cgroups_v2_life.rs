//! Cgroups on a host that has v2 alone: exec, freezing, killing, and the places in the tree where no container can live.

use super::cgroups_v2::{dir, need, read, until, with};
use crate::support::{Bundle, Call, Kind, Test, cases, host, json};
use std::fs;
use std::path::PathBuf;

cases![
    frozen_and_killed,
    all_processes_are_killed,
    exec_is_born_in_the_cgroup,
    exec_goes_where_init_went,
    exec_in_a_cgroup_below,
    exec_where_no_process_may_be_says_so,
    no_process_can_be_born_but_one_can_move,
    a_taken_or_frozen_cgroup_is_refused,
    a_parent_with_processes_says_so,
    a_read_only_tree_says_so,
    below_a_threaded_cgroup,
    a_delegated_cgroup_can_be_managed_inside,
    nothing_is_left,
];

fn frozen_and_killed(t: &Test) {
    need();
    let c = with(t, json!({}));
    c.start();
    c.line();
    let dir = dir(&c);
    fs::write(dir.join("cgroup.freeze"), "1").unwrap();
    until(&dir, "frozen 1");
    assert_eq!(c.status(), "paused");
    c.call(&["delete", "--force"]).ok();
    assert!(!dir.exists());
}

fn all_processes_are_killed(t: &Test) {
    need();
    let mut b = t.bundle();
    b.without_namespace("pid").payload(&["orphans=5", "sleep"]);
    let c = t.create(&b);
    c.start();
    c.line();
    let dir = dir(&c);
    assert_eq!(read(&dir, "cgroup.procs").lines().count(), 6);
    fs::create_dir(dir.join("below")).unwrap();
    c.call(&["kill", "--all"]).args(&["KILL"]).ok();
    c.wait_unreaped();
    until(&dir, "populated 0");
    c.call(&["delete"]).ok();
    assert!(!dir.exists());
}

fn exec_is_born_in_the_cgroup(t: &Test) {
    need();
    let c = with(t, json!({}));
    c.start();
    c.line();
    let seen = c.see(&[], &["cgroup"]);
    let own = fs::read_to_string(format!("/proc/{}/cgroup", c.pid)).unwrap();
    assert_eq!(seen["cgroup"][0], own.trim(), "{seen}");
}

/// As with systemd in the container: its own cgroup has controllers turned on for those below, and takes no process.
fn exec_goes_where_init_went(t: &Test) {
    need();
    let c = with(t, json!({}));
    c.start();
    c.line();
    let top = dir(&c);
    fs::create_dir(top.join("init.scope")).unwrap();
    fs::write(top.join("init.scope/cgroup.procs"), c.pid.to_string()).unwrap();
    fs::write(top.join("cgroup.subtree_control"), "+memory +pids").unwrap();
    let seen = c.see(&[], &["cgroup"]);
    assert!(seen["cgroup"][0].as_str().unwrap().ends_with("/init.scope"), "{seen}");
    c.call(&["delete", "--force"]).ok();
    assert!(!top.exists());
}

fn exec_in_a_cgroup_below(t: &Test) {
    need();
    let c = with(t, json!({}));
    c.start();
    c.line();
    fs::create_dir(dir(&c).join("below")).unwrap();
    let seen = c.see(&["--cgroup", "below"], &["cgroup"]);
    assert!(seen["cgroup"][0].as_str().unwrap().ends_with("/below"), "{seen}");
    c.exec(&["--cgroup", "nowhere"], &["/bin/payload"]).fails(&["nowhere"]);
    c.exec(&["--cgroup", "../.."], &["/bin/payload"]).fails(&[]);
}

fn exec_where_no_process_may_be_says_so(t: &Test) {
    need();
    t.only_brig("they say less");
    let c = with(t, json!({}));
    c.start();
    c.line();
    let top = dir(&c);
    fs::create_dir_all(top.join("inner/leaf")).unwrap();
    // A cgroup with processes passes no memory controller on, so they go below first.
    fs::create_dir(top.join("init")).unwrap();
    fs::write(top.join("init/cgroup.procs"), c.pid.to_string()).unwrap();
    fs::write(top.join("cgroup.subtree_control"), "+memory").unwrap();
    fs::write(top.join("inner/cgroup.subtree_control"), "+memory").unwrap();
    c.exec(&["--cgroup", "inner"], &["/bin/payload"]).fails(&["controllers turned on for its children"]);
    assert!(c.see(&["--cgroup", "inner/leaf"], &["cgroup"])["cgroup"][0].as_str().unwrap().ends_with("/inner/leaf"));
}

/// With pids.max at 0 the kernel clones nobody into the cgroup, but lets a process move there.
fn no_process_can_be_born_but_one_can_move(t: &Test) {
    need();
    t.only_brig("to their releases of then, 0 is no limit");
    let mut b = t.bundle();
    b.set("/linux/resources/pids", json!({"limit": 0}));
    let seen = t.see(&mut b, &["forks=3", "cgroup"]);
    assert_eq!((&seen["forks=3"]["errno"], &seen["forks=3"]["made"]), (&json!("EAGAIN"), &json!(0)));
}

fn a_taken_or_frozen_cgroup_is_refused(t: &Test) {
    need();
    t.only_brig("they share it");
    let mut b = t.bundle();
    b.set("/linux/cgroupsPath", json!(format!("/{}-shared", t.id()))).payload(&["sleep"]);
    let first = t.create(&b);
    b.write();
    t.call(&["create", "--bundle", b.path(), &t.new_id()]).out().fails(&["cgroup", "already"]);
    assert_eq!(first.status(), "created");
    let frozen = format!("/{}-frozen", t.id());
    let path = PathBuf::from(format!("/sys/fs/cgroup{frozen}"));
    fs::create_dir(&path).unwrap();
    fs::write(path.join("cgroup.freeze"), "1").unwrap();
    b.set("/linux/cgroupsPath", json!(frozen)).write();
    let out = t.call(&["create", "--bundle", b.path(), &t.new_id()]).out();
    fs::remove_dir(&path).unwrap();
    out.fails(&["frozen"]);
}

fn a_parent_with_processes_says_so(t: &Test) {
    need();
    t.only_brig("they say less");
    let parent = PathBuf::from(format!("/sys/fs/cgroup/{}-busy", t.id()));
    fs::create_dir(&parent).unwrap();
    let mut sleeper = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
    fs::write(parent.join("cgroup.procs"), sleeper.id().to_string()).unwrap();
    let mut b = t.bundle();
    b.set("/linux/cgroupsPath", json!(format!("/{}-busy/web", t.id())));
    b.set("/linux/resources/memory", json!({"limit": 64 << 20})).write();
    let out = t.call(&["create", "--bundle", b.path(), &t.new_id()]).out();
    let left = parent.join("web").exists();
    let kind = read(&parent, "cgroup.type");
    sleeper.kill().unwrap();
    sleeper.wait().unwrap();
    until(&parent, "populated 0");
    fs::remove_dir(&parent).unwrap();
    out.fails(&["memory controller", "has processes of its own"]);
    assert!(!left);
    assert_eq!(kind, "domain", "nobody else's cgroup may become threaded for a container");
}

fn a_read_only_tree_says_so(t: &Test) {
    need();
    t.only_brig("they say less");
    let mut b = t.bundle();
    b.write();
    let script = "mount -o remount,ro,bind /sys/fs/cgroup && exec \"$@\"";
    let own = ["unshare", "--mount", "sh", "-c", script, "sh"];
    let call = |b: &Bundle| Call::through(t, &own, &[], &["run", "--bundle", b.path(), &t.new_id()]).out();
    call(&b).fails(&["read-only"]);
    b.set("/linux/resources/pids", json!({"limit": 5})).write();
    call(&b).fails(&["read-only"]);
}

fn below_a_threaded_cgroup(t: &Test) {
    need();
    t.only_brig("crun 1.8 can't");
    let top = PathBuf::from(format!("/sys/fs/cgroup/{}-threaded", t.id()));
    let thread = top.join("threaded");
    fs::create_dir_all(&thread).unwrap();
    fs::write(thread.join("cgroup.type"), "threaded").unwrap();
    let mut b = t.bundle();
    b.unset("/linux/resources").set("/linux/cgroupsPath", json!(format!("/{}-threaded/threaded/web", t.id())));
    b.set("/linux/resources/pids", json!({"limit": 9})).payload(&["sleep"]);
    let c = t.create(&b);
    let kind = read(&thread.join("web"), "cgroup.type");
    let threads = read(&thread.join("web"), "cgroup.threads");
    let deleted = c.call(&["delete", "--force"]).out();
    b.set("/linux/resources/memory", json!({"limit": 64 << 20})).write();
    let refused = t.call(&["create", "--bundle", b.path(), &t.new_id()]).out();
    let left = thread.join("web").exists();
    for dir in [&thread.join("web"), &thread, &top] {
        let _ = fs::remove_dir(dir);
    }
    assert_eq!(kind, "threaded");
    assert!(!threads.is_empty());
    deleted.code(0);
    refused.fails(&["/linux/resources/memory/limit", "threaded"]);
    assert!(!left);
}

fn a_delegated_cgroup_can_be_managed_inside(t: &Test) {
    need();
    let mut b = t.bundle();
    b.user_namespace(100_000, 65_536).namespace("cgroup", None);
    b.mount("/sys/fs/cgroup", "cgroup", "cgroup", &["rw"]);
    let verbs = ["mkdir=/sys/fs/cgroup/inner", "write=/sys/fs/cgroup/inner/cgroup.procs:0", "cgroup"];
    let seen = t.see(&mut b, &[&verbs[..], &["touch=/sys/fs/cgroup/memory.max"]].concat());
    for verb in &verbs[..2] {
        assert_eq!(seen[verb]["ok"], true, "{verb}: {seen}");
    }
    assert_eq!(seen["cgroup"][0], "0::/inner", "{seen}");
    assert_eq!(seen["touch=/sys/fs/cgroup/memory.max"]["errno"], "EACCES", "its limits are not its own: {seen}");
}

fn nothing_is_left(t: &Test) {
    need();
    let mut b = t.bundle();
    b.set("/linux/cgroupsPath", json!(format!("/{0}-outer/{0}-inner", t.id()))).payload(&["sleep"]);
    let c = t.create(&b);
    fs::create_dir_all(dir(&c).join("a/b")).unwrap();
    c.call(&["delete", "--force"]).ok();
    if t.kind() == Kind::Brig {
        assert_eq!(host::cgroups_named(&format!("{}-outer", t.id())), Vec::<PathBuf>::new());
    }
}
