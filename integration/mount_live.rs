//! `mounts add` and `mounts remove`: the mounts of a container that is there already.

use crate::exec::sleeper;
use crate::mounts::{at, has};
use crate::rootless;
use crate::support::{Container, Out, Test, Value, cases, host, json, os, suite};
use std::fs;
use std::os::unix::fs::{MetadataExt, chown, symlink};
use std::path::{Path, PathBuf};

cases![
    the_container_sees_it_and_the_host_does_not,
    every_kind_of_mount,
    what_a_container_could_race_is_refused,
    files_and_trees,
    id_mapped,
    in_a_user_namespace,
    without_root,
    a_created_and_a_paused_container_take_it,
    a_stopped_or_unknown_one_does_not,
    not_without_a_mount_namespace,
    all_or_none,
    removed_all_or_none,
    only_a_mount_is_removed,
    a_symlink_does_not_lead_a_removal_astray,
    symlinks_stay_inside,
    propagation_goes_one_way,
    from_a_file_and_from_standard_input,
    every_problem_at_once,
    no_descriptor_stays,
    ends_with_the_container,
];

/// A host directory with a file in it.
fn volume(t: &Test) -> PathBuf {
    let dir = t.dir().join("volume");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("file"), "from the host").unwrap();
    dir
}

fn change(c: &Container, action: &str, flags: &[&str]) -> Out {
    c.call(&["mounts", action]).args(&flags.iter().flat_map(|mount| ["-m", mount]).collect::<Vec<_>>()).out()
}

/// The host's mounts, but those of the tests that run beside.
fn host_mounts(t: &Test) -> Vec<String> {
    let mut all = host::mounts_under(Path::new("/"));
    all.retain(|target| !Path::new(target).starts_with(suite::scratch()) || Path::new(target).starts_with(t.dir()));
    all
}

/// The mounts at or below a path in the container.
fn targets(seen: &Value, below: &str) -> Vec<String> {
    let mounts = seen["mounts"].as_array().unwrap();
    mounts.iter().filter_map(|m| m["target"].as_str()).filter(|t| t.starts_with(below)).map(str::to_owned).collect()
}

fn the_container_sees_it_and_the_host_does_not(t: &Test) {
    t.needs_call("mount_setattr");
    t.only_brig("older versions have no such command");
    let c = sleeper(t, |_| {});
    let dir = volume(t);
    let before = host_mounts(t);
    change(&c, "add", &[&format!("type=bind,src={},dst=/mnt/v,ro,nosuid", dir.display())]).ok();
    for _ in 0..2 {
        let seen = c.see(&[], &["mounts", "read=/mnt/v/file", "touch=/mnt/v/x"]);
        assert_eq!(seen["read=/mnt/v/file"]["ok"], "from the host");
        assert_eq!(seen["touch=/mnt/v/x"]["errno"], "EROFS");
        has(at(&seen, "/mnt/v"), &["ro", "nosuid"]);
    }
    // Its first process has it as well, not only what joins later.
    assert!(fs::read_to_string(format!("/proc/{}/mountinfo", c.pid)).unwrap().contains(" /mnt/v "));
    assert_eq!(host_mounts(t), before, "the host's mounts have changed");
    change(&c, "remove", &["dst=/mnt/v"]).ok();
    let seen = c.see(&[], &["mounts", "list=/mnt/v"]);
    assert_eq!((targets(&seen, "/mnt"), &seen["list=/mnt/v"]["ok"]), (vec![], &json!([])));
    assert_eq!(fs::read_to_string(dir.join("file")).unwrap(), "from the host");
}

fn every_kind_of_mount(t: &Test) {
    t.needs_call("fsopen");
    t.only_brig("older versions have no such command");
    let c = sleeper(t, |b| {
        b.namespace("cgroup", None);
    });
    let list = json!([
        {"destination": "/mnt/t", "type": "tmpfs", "source": "own", "options": ["size=64k", "mode=700", "noexec"]},
        {"destination": "/mnt/p", "type": "proc", "source": "proc", "options": ["ro"]},
        {"destination": "/mnt/s", "type": "sysfs", "source": "sysfs", "options": ["ro", "nosuid"]},
        {"destination": "/mnt/q", "type": "mqueue", "source": "mqueue"},
        {"destination": "/mnt/d", "type": "devpts", "source": "devpts", "options": ["newinstance", "mode=620"]},
        {"destination": "/mnt/i", "type": "tmpfs", "source": "own", "options": ["nodev"]},
    ]);
    let file = t.dir().join("mounts.json");
    fs::write(&file, list.to_string()).unwrap();
    c.call(&["mounts", "add"]).args(&[&file.display().to_string()]).ok();
    let seen = c.see(&[], &["mounts", "pid", "ps", "list=/mnt/s/class/net", "stat=/mnt/t", "read=/mnt/p/1/comm"]);
    for (target, typ) in [("t", "tmpfs"), ("p", "proc"), ("s", "sysfs"), ("q", "mqueue"), ("d", "devpts"), ("i", "tmpfs")] {
        assert_eq!(at(&seen, &format!("/mnt/{target}"))["type"], typ);
    }
    has(at(&seen, "/mnt/t"), &["noexec"]);
    has(at(&seen, "/mnt/i"), &["nodev"]);
    assert_eq!(seen["stat=/mnt/t"]["ok"]["mode"], "40700");
    assert_eq!(seen["read=/mnt/p/1/comm"]["ok"], "payload\n", "not the container's processes");
    assert_eq!(seen["list=/mnt/s/class/net"]["ok"], json!(["lo"]), "not the container's network");
    c.call(&["mounts", "remove"]).args(&[&file.display().to_string()]).ok();
    let seen = c.see(&[], &["mounts"]);
    assert_eq!(targets(&seen, "/mnt"), Vec::<String>::new());
}

/// What goes by a path twice is not done where the container may exchange what it leads to in between.
fn what_a_container_could_race_is_refused(t: &Test) {
    t.only_brig("older versions have no such command");
    let c = sleeper(t, |_| {});
    let long = format!("type=tmpfs,src={},dst=/mnt/t", "x".repeat(256));
    for (mount, words) in [
        ("type=tmpfs,dst=/mnt/t,silent", ["/1/options", "silent"]),
        ("type=tmpfs,dst=/mnt/t,ro,iversion", ["/1/options", "iversion"]),
        (&long, ["/1/options", "255 bytes"]),
        ("type=tmpfs,dst=/home,tmpcopyup", ["/1/options", "tmpcopyup"]),
        ("type=tmpfs,dst=/home,tmpcopyup,mode=700", ["config.json", "tmpcopyup"]),
    ] {
        change(&c, "add", &["type=tmpfs,dst=/mnt/first", mount]).fails(&words);
    }
    let seen = c.see(&[], &["mounts"]);
    assert_eq!((targets(&seen, "/mnt"), targets(&seen, "/home")), (vec![], vec![]));
}

fn files_and_trees(t: &Test) {
    t.needs_call("mount_setattr");
    t.only_brig("older versions have no such command");
    let c = sleeper(t, |_| {});
    let dir = volume(t);
    fs::create_dir(dir.join("inner")).unwrap();
    let inner = dir.join("inner");
    nix::mount::mount(Some("host"), &inner, Some("tmpfs"), nix::mount::MsFlags::empty(), None::<&str>).unwrap();
    fs::write(inner.join("deep"), "deep").unwrap();
    let source = dir.display();
    change(&c, "add", &[
        &format!("type=bind,src={source}/file,dst=/etc/hostname"),
        &format!("type=bind,src={source},dst=/mnt/tree,rro"),
        &format!("type=bind,src={source},dst=/mnt/one,bind"),
    ])
    .ok();
    let seen = c.see(&[], &["mounts", "read=/etc/hostname", "read=/mnt/tree/inner/deep", "list=/mnt/one/inner"]);
    assert_eq!(seen["read=/etc/hostname"]["ok"], "from the host");
    assert_eq!(seen["read=/mnt/tree/inner/deep"]["ok"], "deep");
    has(at(&seen, "/mnt/tree/inner"), &["ro"]);
    assert_eq!(seen["list=/mnt/one/inner"]["ok"], json!([]));
    // A tree goes whole.
    change(&c, "remove", &["dst=/mnt/tree", "dst=/etc/hostname", "dst=/mnt/one"]).ok();
    let seen = c.see(&[], &["mounts", "read=/etc/hostname"]);
    assert_eq!((targets(&seen, "/mnt"), &seen["read=/etc/hostname"]["ok"]), (vec![], &json!("image\n")));
    assert_eq!(fs::read_to_string(inner.join("deep")).unwrap(), "deep", "the host has lost its own");
    nix::mount::umount2(&inner, nix::mount::MntFlags::MNT_DETACH).unwrap();
}

fn id_mapped(t: &Test) {
    t.needs_call("mount_setattr");
    t.only_brig("older versions have no such command");
    let c = sleeper(t, |b| {
        b.user_namespace(100_000, 65536);
        chown(b.rootfs("mnt"), Some(100_000), Some(100_000)).unwrap();
    });
    let dir = volume(t);
    chown(dir.join("file"), Some(7), Some(8)).unwrap();
    let ids = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
    let one = |target: &str, ids: Value| {
        json!({"destination": target, "type": "bind", "source": dir, "options": ["rbind", "idmap"], "uidMappings": ids, "gidMappings": ids})
    };
    let file = t.dir().join("mounts.json");
    fs::write(&file, json!({"mounts": [one("/mnt/own", ids), one("/mnt/its", json!([]))]}).to_string()).unwrap();
    c.call(&["mounts", "add"]).args(&[&file.display().to_string()]).ok();
    let seen = c.see(&[], &["mounts", "stat=/mnt/own/file", "stat=/mnt/its/file", "touch=/mnt/its/made"]);
    for target in ["own", "its"] {
        has(at(&seen, &format!("/mnt/{target}")), &["idmapped"]);
        let stat = &seen[format!("stat=/mnt/{target}/file")]["ok"];
        assert_eq!((&stat["uid"], &stat["gid"]), (&json!(7), &json!(8)));
    }
    assert_eq!(seen["touch=/mnt/its/made"]["ok"], true);
    assert_eq!(fs::metadata(dir.join("made")).unwrap().uid(), 0);
}

fn in_a_user_namespace(t: &Test) {
    t.needs_call("fsopen");
    t.needs_call("mount_setattr");
    t.only_brig("older versions have no such command");
    let c = sleeper(t, |b| {
        b.user_namespace(100_000, 65536);
        chown(b.rootfs("mnt"), Some(100_000), Some(100_000)).unwrap();
    });
    let dir = volume(t);
    change(&c, "add", &[&format!("type=bind,src={},dst=/mnt/v", dir.display()), "type=tmpfs,dst=/mnt/t", "type=proc,dst=/mnt/p"]).ok();
    let seen = c.see(&[], &["mounts", "read=/mnt/v/file", "stat=/mnt/t", "read=/mnt/p/1/comm"]);
    assert_eq!(seen["read=/mnt/v/file"]["ok"], "from the host");
    assert_eq!(seen["stat=/mnt/t"]["ok"]["uid"], 0, "the tmpfs is not the container root's");
    assert_eq!(seen["read=/mnt/p/1/comm"]["ok"], "payload\n");
    change(&c, "remove", &["dst=/mnt/v", "dst=/mnt/t", "dst=/mnt/p"]).ok();
    assert_eq!(targets(&c.see(&[], &["mounts"]), "/mnt"), Vec::<String>::new());
}

fn without_root(t: &Test) {
    t.needs_call("fsopen");
    t.needs_call("mount_setattr");
    t.only_brig("older versions have no such command");
    let mut b = rootless::bundle(t);
    b.payload(&["sleep"]).write();
    let dir = volume(t);
    let id = t.new_id();
    let (read, write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap();
    let pid_file = t.dir().join("pid");
    rootless::call(t, &["create", "--bundle", b.path(), "--pid-file", &pid_file.display().to_string(), &id]).stdout(write).ok();
    rootless::call(t, &["start", &id]).ok();
    crate::support::container::Lines::new(read).next();
    let bind = format!("type=bind,src={},dst=/mnt/v,ro", dir.display());
    rootless::call(t, &["mounts", "add", "-m", &bind, "-m", "type=tmpfs,dst=/mnt/t", "-m", "type=proc,dst=/mnt/p", &id]).ok();
    let seen = rootless::call(t, &["exec", &id, "/bin/payload", "mounts", "read=/mnt/v/file", "touch=/mnt/v/x", "read=/mnt/p/1/comm"]).ok().json();
    assert_eq!(seen["read=/mnt/v/file"]["ok"], "from the host");
    assert_eq!(seen["touch=/mnt/v/x"]["errno"], "EROFS");
    assert_eq!(seen["read=/mnt/p/1/comm"]["ok"], "payload\n");
    assert_eq!(at(&seen, "/mnt/t")["type"], "tmpfs");
    let mapped = format!("type=bind,src={},dst=/mnt/m,idmap", dir.display());
    rootless::call(t, &["mounts", "add", "-m", &mapped, &id]).out().fails(&["CAP_SYS_ADMIN"]);
    let out = rootless::call(t, &["mounts", "remove", "-m", "dst=/mnt/v", "-m", "dst=/mnt/t", "-m", "dst=/mnt/p", &id]);
    out.ok();
    let seen = rootless::call(t, &["exec", &id, "/bin/payload", "mounts"]).ok().json();
    assert_eq!(targets(&seen, "/mnt"), Vec::<String>::new());
    rootless::call(t, &["kill", &id, "KILL"]).ok();
    os::reap(fs::read_to_string(pid_file).unwrap().parse().unwrap());
    rootless::call(t, &["delete", &id]).ok();
}

fn a_created_and_a_paused_container_take_it(t: &Test) {
    t.needs_call("fsopen");
    t.only_brig("older versions have no such command");
    let mut b = t.bundle();
    b.payload(&["read=/mnt/v/file", "sleep"]);
    let c = t.create(&b);
    let bind = format!("type=bind,src={},dst=/mnt/v", volume(t).display());
    change(&c, "add", &[&bind]).ok();
    c.start();
    assert_eq!(c.line()["read=/mnt/v/file"]["ok"], "from the host");
    c.line();
    let freezer = host::cgroup_dir(c.pid, "freezer").map(|dir| (dir.join("freezer.state"), "FROZEN", "THAWED"));
    let unified = host::cgroup_dir(c.pid, "").map(|dir| (dir.join("cgroup.freeze"), "1", "0"));
    let (file, frozen, thawed) = freezer.or(unified).expect("a freezer");
    fs::write(&file, frozen).unwrap();
    let added = change(&c, "add", &["type=tmpfs,dst=/mnt/t"]);
    let status = c.status();
    let removed = change(&c, "remove", &["dst=/mnt/v"]);
    fs::write(&file, thawed).unwrap();
    assert_eq!(status, "paused");
    added.ok();
    removed.ok();
    assert_eq!(targets(&c.see(&[], &["mounts"]), "/mnt"), ["/mnt/t"]);
}

fn a_stopped_or_unknown_one_does_not(t: &Test) {
    t.only_brig("older versions have no such command");
    let c = sleeper(t, |_| {});
    c.kill("KILL");
    c.wait();
    change(&c, "add", &["type=tmpfs,dst=/mnt/t"]).fails(&["cannot add mounts to container", "container not running"]).code(1);
    change(&c, "remove", &["dst=/mnt/t"]).fails(&["stopped"]);
    t.call(&["mounts", "add", "-m", "type=tmpfs,dst=/mnt", "nobody"]).out().fails(&["does not exist"]);
}

fn not_without_a_mount_namespace(t: &Test) {
    t.only_brig("older versions have no such command");
    let c = sleeper(t, |b| {
        b.without_namespace("mount").set("/mounts", json!([])).unset("/linux/maskedPaths");
    });
    change(&c, "add", &["type=tmpfs,dst=/mnt"]).fails(&["no mount namespace", "linux.namespaces"]);
    change(&c, "remove", &["dst=/proc"]).fails(&["no mount namespace"]);
}

fn all_or_none(t: &Test) {
    t.needs_call("fsopen");
    t.needs_call("mount_setattr");
    t.only_brig("older versions have no such command");
    let c = sleeper(t, |b| {
        fs::write(b.rootfs("etc/plain"), "").unwrap();
    });
    let dir = volume(t);
    let source = dir.display();
    let before = c.see(&[], &["mounts"])["mounts"].clone();
    let good = [
        format!("type=bind,src={source},dst=/mnt/a"),
        format!("type=bind,src={source}/file,dst=/mnt/file"),
        "type=tmpfs,dst=/mnt/a/inner".to_owned(),
        "type=tmpfs,dst=/mnt/i,nodev".to_owned(),
    ];
    for (bad, words) in [
        ("type=tmpfs,dst=/mnt/b,size=many", ["mount tmpfs on /mnt/b", "fsconfig"]),
        ("type=tmpfs,dst=/etc/plain", ["mount tmpfs on /etc/plain", "not a directory"]),
        ("type=nosuchfs,dst=/mnt/b", ["nosuchfs", "does not know that type"]),
        ("type=bind,src=/no/such,dst=/mnt/b", ["/no/such", "no such file"]),
    ] {
        let mut flags: Vec<&str> = good.iter().map(String::as_str).collect();
        flags.push(bad);
        change(&c, "add", &flags).fails(&words);
        assert_eq!(c.see(&[], &["mounts"])["mounts"], before, "something stays of the mounts before {bad}");
    }
}

fn removed_all_or_none(t: &Test) {
    t.needs_call("fsopen");
    t.only_brig("older versions have no such command");
    let c = sleeper(t, |_| {});
    change(&c, "add", &["type=tmpfs,dst=/mnt/a", "type=tmpfs,dst=/mnt/a/b"]).ok();
    change(&c, "remove", &["dst=/mnt/a", "dst=/tmp"]).fails(&["find the mount on /tmp", "nothing is mounted"]);
    assert_eq!(targets(&c.see(&[], &["mounts"]), "/mnt"), ["/mnt/a", "/mnt/a/b"]);
    // In the order in which they were added, the outer one first.
    change(&c, "remove", &["dst=/mnt/a", "dst=/mnt/a/b"]).ok();
    assert_eq!(targets(&c.see(&[], &["mounts"]), "/mnt"), Vec::<String>::new());
}

fn only_a_mount_is_removed(t: &Test) {
    t.only_brig("older versions have no such command");
    let c = sleeper(t, |_| {});
    for destination in ["/", "/..", "/mnt/.."] {
        change(&c, "remove", &[&format!("dst={destination}")]).fails(&["root"]);
    }
    change(&c, "remove", &["dst=/mnt"]).fails(&["nothing is mounted at just that place"]);
    change(&c, "remove", &["dst=/no/such"]).fails(&["no such file"]);
    change(&c, "remove", &["dst=/mnt/a", "dst=/mnt/./a"]).fails(&["the destination of"]);
    let seen = c.see(&[], &["mounts"]);
    at(&seen, "/");
    at(&seen, "/proc");
}

/// The mask of a path must not go because the image, or a process in the container, has a symlink to it where the mount to
/// be removed should be.
fn a_symlink_does_not_lead_a_removal_astray(t: &Test) {
    t.only_brig("older versions have no such command");
    let c = sleeper(t, |b| {
        b.set("/linux/maskedPaths", json!(["/proc/version", "/etc/secret"]));
        fs::create_dir(b.rootfs("etc/secret")).unwrap();
        symlink("/proc", b.rootfs("var")).unwrap();
        symlink("/etc/secret", b.rootfs("srv")).unwrap();
    });
    for destination in ["/var/version", "/srv", "/srv/../etc/../srv"] {
        change(&c, "remove", &[&format!("dst={destination}")]).fails(&["symlink"]);
    }
    let seen = c.see(&[], &["mounts"]);
    at(&seen, "/proc/version");
    at(&seen, "/etc/secret");
}

/// What an image has on the way to a destination must not lead out of it.
fn symlinks_stay_inside(t: &Test) {
    t.needs_call("fsopen");
    t.only_brig("older versions have no such command");
    let outside = t.dir().join("outside");
    fs::create_dir(&outside).unwrap();
    let c = sleeper(t, |b| {
        symlink(&outside, b.rootfs("mnt/absolute")).unwrap();
        symlink("../../../../../../../../tmp", b.rootfs("mnt/relative")).unwrap();
        symlink("/proc/1/root", b.rootfs("mnt/magic")).unwrap();
        fs::create_dir_all(b.rootfs("real")).unwrap();
        symlink("real", b.rootfs("sysfs")).unwrap();
    });
    let before = (host_mounts(t), fs::read_dir(&outside).unwrap().count());
    change(&c, "add", &["type=tmpfs,dst=/mnt/absolute", "type=tmpfs,dst=/mnt/relative/deep"]).ok();
    change(&c, "add", &["type=tmpfs,dst=/mnt/magic/x"]).fails(&["mount tmpfs on /mnt/magic/x"]);
    change(&c, "add", &["type=proc,dst=/sysfs"]).fails(&["not a symlink"]);
    assert_eq!((host_mounts(t), fs::read_dir(&outside).unwrap().count()), before);
    let seen = c.see(&[], &["mounts"]);
    at(&seen, outside.to_str().unwrap());
    at(&seen, "/tmp/deep");
}

fn propagation_goes_one_way(t: &Test) {
    t.needs_call("fsopen");
    t.only_brig("older versions have no such command");
    use nix::mount::{MsFlags, mount};
    let dir = t.dir().join("shared");
    fs::create_dir(&dir).unwrap();
    mount(Some("host"), &dir, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
    mount(None::<&str>, &dir, None::<&str>, MsFlags::MS_SHARED, None::<&str>).unwrap();
    fs::create_dir(dir.join("later")).unwrap();
    fs::create_dir(dir.join("inner")).unwrap();
    let c = sleeper(t, |_| {});
    let source = dir.display();
    change(&c, "add", &[&format!("type=bind,src={source},dst=/mnt/p"), &format!("type=bind,src={source},dst=/mnt/s,rslave")]).ok();
    mount(Some("late"), &dir.join("later"), Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
    // A mount in the container does not come back to the host.
    let before = host::mounts_under(t.dir());
    change(&c, "add", &["type=tmpfs,dst=/mnt/s/inner"]).ok();
    assert_eq!(host::mounts_under(t.dir()), before);
    let seen = c.see(&[], &["mounts"]);
    assert!(targets(&seen, "/mnt/s").contains(&"/mnt/s/later".to_owned()), "{:?}", targets(&seen, "/mnt"));
    change(&c, "remove", &["dst=/mnt/s", "dst=/mnt/p"]).ok();
    assert_eq!(host::mounts_under(t.dir()), before, "a removal has reached the host");
    drop(c);
    for target in host::mounts_under(&dir).iter().rev() {
        nix::mount::umount2(target.as_str(), nix::mount::MntFlags::MNT_DETACH).unwrap();
    }
}

fn from_a_file_and_from_standard_input(t: &Test) {
    t.needs_call("fsopen");
    t.only_brig("older versions have no such command");
    let c = sleeper(t, |_| {});
    let file = t.dir().join("m.json");
    for document in [
        json!([{"destination": "/mnt/a", "type": "tmpfs"}]),
        json!({"mounts": [{"destination": "/mnt/a", "type": "tmpfs", "options": null}], "ociVersion": "1.0.0"}),
    ] {
        fs::write(&file, format!("\n {document}")).unwrap();
        let path = file.display().to_string();
        c.call(&["mounts", "add"]).args(&["-"]).stdin(fs::File::open(&file).unwrap()).ok();
        assert_eq!(targets(&c.see(&[], &["mounts"]), "/mnt"), ["/mnt/a"]);
        c.call(&["mounts", "remove"]).args(&[&path]).ok();
        assert_eq!(targets(&c.see(&[], &["mounts"]), "/mnt"), Vec::<String>::new());
    }
    for (text, words) in [
        ("", ["is not JSON", "empty"]),
        ("[", ["is not JSON", "EOF"]),
        ("7", ["JSON array of mounts", "`mounts`"]),
        ("[]", ["m.json", "lists no mounts"]),
        ("{}", ["/mounts", "missing or empty"]),
    ] {
        fs::write(&file, text).unwrap();
        c.call(&["mounts", "add"]).args(&[&file.display().to_string()]).out().fails(&words);
    }
    c.call(&["mounts", "add"]).out().fails(&["FILE"]);
    c.call(&["mounts", "add"]).args(&["/no/such.json"]).out().fails(&["/no/such.json", "no such file"]);
}

fn every_problem_at_once(t: &Test) {
    t.only_brig("older versions have no such command");
    let c = sleeper(t, |_| {});
    let file = t.dir().join("m.json");
    let list = json!([
        {"destination": "/", "type": "tmpfs"},
        {"destination": "/mnt/a", "type": "bind", "options": ["size=3"]},
        {"destination": "/mnt/b", "options": ["remount", "ro"]},
        {"destination": "/mnt/c", "type": "tmpfs", "options": ["idmap"]},
        {"type": "tmpfs"},
        {"destination": "/mnt/\u{0}", "type": "tmpfs"},
    ]);
    fs::write(&file, list.to_string()).unwrap();
    let out = c.call(&["mounts", "add"]).args(&[&file.display().to_string()]).out();
    let out = out.fails(&["m.json is not valid", "/0/destination", "/1/source", "/1/options/0", "/2/options", "/3/options"]);
    out.fails(&["/4/destination: missing", "/5/destination", "NUL"]);
    fs::write(&file, r#"[{"destination": 7}, {"destination": "/mnt", "options": "ro"}]"#).unwrap();
    let out = c.call(&["mounts", "add"]).args(&[&file.display().to_string()]).out();
    out.fails(&["/0/destination: invalid type", "/1/options: invalid type"]);
    change(&c, "add", &["type=tmpfs"]).fails(&["dst="]);
    assert_eq!(targets(&c.see(&[], &["mounts"]), "/mnt"), Vec::<String>::new());
}

fn no_descriptor_stays(t: &Test) {
    t.needs_call("fsopen");
    t.only_brig("older versions have no such command");
    let c = sleeper(t, |_| {});
    let open = || fs::read_dir(format!("/proc/{}/fd", c.pid)).unwrap().count();
    let before = open();
    change(&c, "add", &[&format!("type=bind,src={},dst=/mnt/v", volume(t).display())]).ok();
    assert_eq!(open(), before);
    // Nothing of the command is left in the container, and nothing holds the mount when it is removed.
    assert_eq!(c.see(&[], &["ps"])["ps"].as_object().unwrap().len(), 2);
    change(&c, "remove", &["dst=/mnt/v"]).ok();
}

fn ends_with_the_container(t: &Test) {
    t.needs_call("fsopen");
    t.only_brig("older versions have no such command");
    for _ in 0..5 {
        let c = sleeper(t, |_| {});
        c.line();
        let dir = t.dir().display();
        let many: Vec<String> = (0..40).map(|n| format!("type=bind,src={dir},dst=/mnt/{n}")).collect();
        let flags: Vec<&str> = many.iter().flat_map(|mount| ["-m", mount]).collect();
        let running = c.call(&["mounts", "add"]).args(&flags).spawn();
        c.kill("KILL");
        let out = running.wait();
        assert!(out.code == 0 || out.stderr.contains("container not running"), "{}", out.stderr);
        c.wait();
        c.delete();
    }
}
