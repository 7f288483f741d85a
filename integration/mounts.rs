//! Mounts: order, attributes, data, propagation, and the kinds that are more than a mount.

use crate::payload::mountinfo;
use crate::support::{Kind, Test, Value, cases, host, json, suite};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;

cases![
    the_order_of_mounts_is_kept,
    the_layer_is_out_of_reach,
    options_become_attributes,
    options_of_time,
    options_can_be_cancelled,
    recursive_attributes,
    recursive_times,
    plain_attributes_are_not_recursive,
    data_goes_to_the_filesystem,
    a_tmpfs_has_the_mode_of_what_it_covers,
    binds_of_files_and_directories,
    a_bind_source_of_the_bundle_is_relative,
    a_missing_destination_is_made,
    a_relative_destination,
    a_missing_source_fails,
    tmpcopyup,
    tmpcopyup_keeps_owners_and_modes,
    idmapped_bind,
    idmapped_bind_with_the_containers_map,
    idmapped_bind_without_a_user_namespace,
    idmapped_tree,
    propagation_of_a_mount,
    a_slave_sees_the_hosts_mounts,
    a_remount,
    sysfs_and_cgroup,
    unknown_options_fail,
];
/// The container's topmost mount at a path.
#[track_caller]
pub fn at<'a>(seen: &'a Value, target: &str) -> &'a Value {
    seen["mounts"]
        .as_array()
        .unwrap()
        .iter()
        .rev()
        .find(|m| m["target"] == target)
        .unwrap_or_else(|| panic!("no mount at {target}"))
}

#[track_caller]
pub fn has(mount: &Value, options: &[&str]) {
    let list = mount["options"].as_array().unwrap();
    for option in options {
        match option.strip_prefix('!') {
            Some(absent) => assert!(!list.contains(&json!(absent)), "{absent} is set: {mount}"),
            None => assert!(list.contains(&json!(option)), "{option} is not set: {mount}"),
        }
    }
}

/// A mount over it hides it from who can't unmount that; from others it has to be taken away.
fn the_layer_is_out_of_reach(t: &Test) {
    t.only_brig("the layer is an option of brig's");
    let mut b = t.bundle();
    fs::create_dir(t.dir().join("lower")).unwrap();
    let lower = format!("lowerdir={}", t.dir().join("lower").display());
    b.mount("/second", "overlay", "overlay", &["x-brig.layer", &lower]).capabilities(&["CAP_SYS_ADMIN"]);
    let seen = t.see(&mut b, &["mounts"]);
    let mut targets: Vec<_> = seen["mounts"].as_array().unwrap().iter().map(|m| m["target"].as_str().unwrap()).collect();
    targets.sort_unstable();
    assert!(targets.contains(&"/second") && targets.windows(2).all(|pair| pair[0] != pair[1]), "{targets:?}");
}

fn the_order_of_mounts_is_kept(t: &Test) {
    let mut b = t.bundle();
    b.mount("/mnt", "tmpfs", "first", &[]).mount("/mnt/deep", "tmpfs", "second", &[]).mount(
        "/mnt",
        "tmpfs",
        "third",
        &[],
    );
    let seen = t.see(&mut b, &["mounts", "list=/mnt"]);
    let sources: Vec<_> = seen["mounts"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|m| m["target"].as_str().unwrap().starts_with("/mnt"))
        .map(|m| m["source"].clone())
        .collect();
    assert_eq!(sources, ["first", "second", "third"]);
    assert_eq!(seen["list=/mnt"]["ok"], json!([]));
}

fn options_become_attributes(t: &Test) {
    let mut b = t.bundle();
    b.mount("/mnt/a", "tmpfs", "tmpfs", &["ro", "nosuid", "nodev", "noexec"]);
    b.mount("/mnt/b", "tmpfs", "tmpfs", &[]);
    b.bind(&b.rootfs("etc"), "/mnt/c", &["ro", "nosuid", "nodev", "noexec"]);
    b.mount("/mnt/d", "tmpfs", "tmpfs", &["rw", "suid", "dev", "exec", "sync", "dirsync"]);
    let seen = t.see(&mut b, &["mounts", "touch=/mnt/a/x", "touch=/mnt/b/x", "touch=/mnt/c/x"]);
    for target in ["/mnt/a", "/mnt/c"] {
        has(at(&seen, target), &["ro", "nosuid", "nodev", "noexec"]);
        assert_eq!(seen[format!("touch={target}/x")]["errno"], "EROFS");
    }
    for target in ["/mnt/b", "/mnt/d"] {
        has(at(&seen, target), &["rw", "!nosuid", "!nodev", "!noexec"]);
    }
    assert!(at(&seen, "/mnt/d")["super"].as_array().unwrap().contains(&json!("sync")));
    assert_eq!(seen["touch=/mnt/b/x"]["ok"], true);
}

fn options_of_time(t: &Test) {
    let mut b = t.bundle();
    for option in ["noatime", "relatime", "strictatime", "nodiratime"] {
        b.mount(&format!("/mnt/{option}"), "tmpfs", "tmpfs", &[option]);
    }
    if t.kind() == Kind::Brig {
        b.mount("/mnt/nosymfollow", "tmpfs", "tmpfs", &["nosymfollow"]);
    }
    let seen = t.see(&mut b, &["mounts"]);
    has(at(&seen, "/mnt/noatime"), &["noatime", "!relatime"]);
    has(at(&seen, "/mnt/relatime"), &["relatime"]);
    has(at(&seen, "/mnt/strictatime"), &["!relatime", "!noatime"]);
    has(at(&seen, "/mnt/nodiratime"), &["nodiratime"]);
    if t.kind() == Kind::Brig {
        has(at(&seen, "/mnt/nosymfollow"), &["nosymfollow"]);
    }
}

fn options_can_be_cancelled(t: &Test) {
    t.differs(Kind::Runc, "1.1 passes `defaults` on to the filesystem");
    t.differs(Kind::Crun, "1.8.1 does not let rw undo ro");
    let mut b = t.bundle();
    b.mount("/mnt/a", "tmpfs", "tmpfs", &["nosuid", "ro", "suid", "rw", "noexec"]);
    b.mount("/mnt/b", "tmpfs", "tmpfs", &["defaults", "noatime", "atime"]);
    let seen = t.see(&mut b, &["mounts"]);
    has(at(&seen, "/mnt/a"), &["rw", "!nosuid", "noexec"]);
    has(at(&seen, "/mnt/b"), &["rw", "!noatime"]);
}

/// A tmpfs with another in it, on the host.
fn nested(t: &Test) -> std::path::PathBuf {
    let outer = t.dir().join("outer");
    for dir in [outer.clone(), outer.join("inner")] {
        fs::create_dir(&dir).unwrap();
        nix::mount::mount(Some("host"), &dir, Some("tmpfs"), nix::mount::MsFlags::empty(), None::<&str>).unwrap();
    }
    fs::write(outer.join("inner/file"), "x").unwrap();
    outer
}

fn unmount(dir: &Path) {
    for target in host::mounts_under(dir).iter().rev() {
        nix::mount::umount2(target.as_str(), nix::mount::MntFlags::MNT_DETACH).unwrap();
    }
}

fn recursive_attributes(t: &Test) {
    t.needs_call("mount_setattr");
    let mut b = t.bundle();
    let outer = nested(t);
    b.bind(&outer, "/mnt/a", &["rro", "rnosuid", "rnodev", "rnoexec"]);
    b.bind(&outer, "/mnt/b", &["ro", "rnosymfollow"]);
    let seen = t.see(&mut b, &["mounts", "touch=/mnt/a/inner/file"]);
    for target in ["/mnt/a", "/mnt/a/inner"] {
        has(at(&seen, target), &["ro", "nosuid", "nodev", "noexec"]);
    }
    assert_eq!(seen["touch=/mnt/a/inner/file"]["errno"], "EROFS");
    has(at(&seen, "/mnt/b/inner"), if t.kind() == Kind::Crun { &["rw"] } else { &["rw", "nosymfollow"] });
    let host = mountinfo::own();
    let inner = host.iter().find(|m| m["target"] == outer.join("inner").display().to_string()).unwrap();
    has(inner, &["rw", "!nosuid", "!noexec"]);
    unmount(&outer);
}

fn recursive_times(t: &Test) {
    t.needs_call("mount_setattr");
    t.differs(Kind::Crun, "1.8.1 sets a time attribute without clearing the old one, which the kernel refuses");
    let mut b = t.bundle();
    let outer = nested(t);
    b.bind(&outer, "/mnt/a", &["rnoatime"]).bind(&outer, "/mnt/b", &["rstrictatime"]);
    let seen = t.see(&mut b, &["mounts"]);
    for inner in ["", "/inner"] {
        has(at(&seen, &format!("/mnt/a{inner}")), &["noatime", "!relatime"]);
        has(at(&seen, &format!("/mnt/b{inner}")), &["!noatime", "!relatime"]);
    }
    unmount(&outer);
}

fn plain_attributes_are_not_recursive(t: &Test) {
    let mut b = t.bundle();
    let outer = nested(t);
    b.bind(&outer, "/mnt/a", &["ro"]);
    b.mount("/mnt/b", "bind", &outer.display().to_string(), &["bind"]);
    let seen = t.see(&mut b, &["mounts", "list=/mnt/b/inner"]);
    has(at(&seen, "/mnt/a"), &["ro"]);
    has(at(&seen, "/mnt/a/inner"), &["rw"]);
    assert_eq!(seen["list=/mnt/b/inner"]["ok"], json!([]), "bind is not rbind");
    unmount(&outer);
}

fn data_goes_to_the_filesystem(t: &Test) {
    let mut b = t.bundle();
    b.mount("/mnt/a", "tmpfs", "tmpfs", &["nosuid", "size=64k", "mode=1750", "uid=5", "gid=6", "nr_inodes=100"]);
    let seen = t.see(&mut b, &["mounts", "stat=/mnt/a"]);
    assert_eq!(seen["stat=/mnt/a"]["ok"]["mode"], "41750");
    assert_eq!((&seen["stat=/mnt/a"]["ok"]["uid"], &seen["stat=/mnt/a"]["ok"]["gid"]), (&json!(5), &json!(6)));
    let options = at(&seen, "/mnt/a")["super"].to_string();
    assert!(options.contains("size=64k") && options.contains("nr_inodes=100"), "{options}");
    let mut b = t.bundle();
    b.mount("/mnt", "tmpfs", "tmpfs", &["no-such-option=1"]);
    t.create_fails(&b, &["/mnt"]);
}

/// As engines rely on for a tmpfs over /tmp.
fn a_tmpfs_has_the_mode_of_what_it_covers(t: &Test) {
    let mut b = t.bundle();
    fs::set_permissions(b.rootfs("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
    b.mount("/tmp", "tmpfs", "tmpfs", &["nosuid"]);
    assert_eq!(t.see(&mut b, &["stat=/tmp"])["stat=/tmp"]["ok"]["mode"], "41777");
    if t.kind() != Kind::Runc {
        b.set(&format!("{}/options", b.mount_at("/tmp")), json!(["mode=700"]));
        assert_eq!(t.see(&mut b, &["stat=/tmp"])["stat=/tmp"]["ok"]["mode"], "40700");
    }
}

fn binds_of_files_and_directories(t: &Test) {
    let mut b = t.bundle();
    let dir = t.dir().join("volume");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("file"), "from the host").unwrap();
    b.bind(&dir, "/mnt/dir", &[]).bind(&dir.join("file"), "/etc/hostname", &[]).bind(
        &dir.join("file"),
        "/new/deep/file",
        &["ro"],
    );
    let seen = t.see(
        &mut b,
        &[
            "read=/mnt/dir/file",
            "read=/etc/hostname",
            "read=/new/deep/file",
            "touch=/mnt/dir/made",
            "touch=/new/deep/file",
        ],
    );
    for path in ["/mnt/dir/file", "/etc/hostname", "/new/deep/file"] {
        assert_eq!(seen[format!("read={path}")]["ok"], "from the host", "{path}");
    }
    assert_eq!(seen["touch=/new/deep/file"]["errno"], "EROFS");
    assert!(dir.join("made").exists());
    assert_eq!(fs::read_to_string(b.rootfs("etc/hostname")).unwrap(), "image\n");
}

fn a_bind_source_of_the_bundle_is_relative(t: &Test) {
    let mut b = t.bundle();
    fs::write(b.dir().join("file"), "beside config.json").unwrap();
    b.mount("/mnt/file", "bind", "file", &["bind"]);
    let seen = t.see(&mut b, &["read=/mnt/file"]);
    assert_eq!(seen["read=/mnt/file"]["ok"], "beside config.json");
}

fn a_missing_destination_is_made(t: &Test) {
    let mut b = t.bundle();
    b.mount("/made/by/mount", "tmpfs", "tmpfs", &[]);
    let seen = t.see(&mut b, &["stat=/made/by", "mounts"]);
    if t.kind() != Kind::Crun {
        assert_eq!(seen["stat=/made/by"]["ok"]["mode"], "40755");
    }
    at(&seen, "/made/by/mount");
}

fn a_relative_destination(t: &Test) {
    let mut b = t.bundle();
    b.mount("mnt/relative", "tmpfs", "tmpfs", &[]);
    at(&t.see(&mut b, &["mounts"]), "/mnt/relative");
}

fn a_missing_source_fails(t: &Test) {
    let mut b = t.bundle();
    b.bind(Path::new("/no/such/source"), "/mnt", &[]);
    t.create_fails(&b, &["/no/such/source", "no such file or directory"]);
    let mut b = t.bundle();
    b.mount("/mnt", "nosuchfs", "none", &[]);
    t.create_fails(&b, &["/mnt", "nosuchfs"]);
}

fn tmpcopyup(t: &Test) {
    let mut b = t.bundle();
    fs::create_dir_all(b.rootfs("data/sub")).unwrap();
    fs::write(b.rootfs("data/file"), "from the image").unwrap();
    fs::write(b.rootfs("data/sub/deep"), "deep").unwrap();
    symlink("file", b.rootfs("data/link")).unwrap();
    b.mount("/data", "tmpfs", "tmpfs", &["tmpcopyup", "nosuid"]);
    let seen = t.see(
        &mut b,
        &["list=/data", "read=/data/file", "read=/data/sub/deep", "link=/data/link", "touch=/data/new", "mounts"],
    );
    assert_eq!(seen["list=/data"]["ok"], json!(["file", "link", "sub"]));
    assert_eq!(seen["read=/data/file"]["ok"], "from the image");
    assert_eq!(seen["read=/data/sub/deep"]["ok"], "deep");
    assert_eq!(seen["link=/data/link"]["ok"], "file");
    has(at(&seen, "/data"), &["nosuid"]);
    assert!(!b.rootfs("data/new").exists());
    assert_eq!(at(&seen, "/data")["type"], "tmpfs");
}

fn tmpcopyup_keeps_owners_and_modes(t: &Test) {
    t.differs(Kind::Runc, "it loses the owners of what it copies");
    let mut b = t.bundle();
    fs::create_dir(b.rootfs("data")).unwrap();
    fs::write(b.rootfs("data/file"), "x").unwrap();
    chown(b.rootfs("data/file"), Some(5), Some(6)).unwrap();
    fs::set_permissions(b.rootfs("data/file"), fs::Permissions::from_mode(0o640)).unwrap();
    b.mount("/data", "tmpfs", "tmpfs", &["tmpcopyup"]);
    let seen = t.see(&mut b, &["stat=/data/file"]);
    let stat = &seen["stat=/data/file"]["ok"];
    assert_eq!((&stat["mode"], &stat["uid"], &stat["gid"]), (&json!("100640"), &json!(5), &json!(6)));
}

fn idmapped_bind(t: &Test) {
    t.needs_call("mount_setattr");
    t.differs(Kind::Runc, "1.1 has no idmapped mounts");
    let mut b = t.bundle();
    let dir = t.dir().join("volume");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("file"), "x").unwrap();
    chown(dir.join("file"), Some(7), Some(8)).unwrap();
    b.user_namespace(100_000, 65536).bind(&dir, "/mnt", &["idmap"]);
    let mount = b.mount_at("/mnt");
    b.set(&format!("{mount}/uidMappings"), json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]));
    b.set(&format!("{mount}/gidMappings"), json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]));
    let seen = t.see(&mut b, &["stat=/mnt/file", "touch=/mnt/made", "mounts"]);
    assert_eq!((&seen["stat=/mnt/file"]["ok"]["uid"], &seen["stat=/mnt/file"]["ok"]["gid"]), (&json!(7), &json!(8)));
    has(at(&seen, "/mnt"), &["idmapped"]);
    assert_eq!(fs::metadata(dir.join("made")).map(|m| m.uid()).unwrap(), 0);
}

fn idmapped_bind_with_the_containers_map(t: &Test) {
    t.needs_call("mount_setattr");
    t.differs(Kind::Runc, "1.1 has no idmapped mounts");
    let mut b = t.bundle();
    let dir = t.dir().join("volume");
    fs::create_dir(&dir).unwrap();
    b.user_namespace(100_000, 65536).bind(&dir, "/mnt", &["idmap"]);
    let seen = t.see(&mut b, &["stat=/mnt", "touch=/mnt/made"]);
    assert_eq!(seen["stat=/mnt"]["ok"]["uid"], 0);
    assert_eq!(seen["touch=/mnt/made"]["ok"], true);
    assert_eq!(fs::metadata(dir.join("made")).unwrap().uid(), 0);
}

/// The mount's own map need not be that of a user namespace of the container's.
fn idmapped_bind_without_a_user_namespace(t: &Test) {
    t.needs_call("mount_setattr");
    t.differs(Kind::Runc, "1.1 has no idmapped mounts");
    t.differs(Kind::Crun, "1.8.1 maps the other way round here");
    let mut b = t.bundle();
    let dir = t.dir().join("volume");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("file"), "x").unwrap();
    chown(dir.join("file"), Some(7), Some(8)).unwrap();
    b.bind(&dir, "/mnt", &["idmap"]);
    let mount = b.mount_at("/mnt");
    b.set(&format!("{mount}/uidMappings"), json!([{"containerID": 0, "hostID": 1000, "size": 100}]));
    b.set(&format!("{mount}/gidMappings"), json!([{"containerID": 0, "hostID": 2000, "size": 100}]));
    let seen = t.see(&mut b, &["stat=/mnt/file"]);
    let stat = &seen["stat=/mnt/file"]["ok"];
    assert_eq!((&stat["uid"], &stat["gid"]), (&json!(1007), &json!(2008)));
    b.unset(&format!("{mount}/gidMappings"));
    t.create_fails(&b, &["gidMappings"]);
}

fn idmapped_tree(t: &Test) {
    t.needs_call("mount_setattr");
    t.differs(Kind::Runc, "1.1 has no idmapped mounts");
    t.differs(Kind::Crun, "1.8.1 makes a mapped bind of one mount only");
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split('.').map(|n| n.parse::<u32>().unwrap_or(0));
    if (numbers.next(), numbers.next()) < (Some(6), Some(3)) {
        suite::skip("a tmpfs takes ID-mapped mounts since Linux 6.3");
    }
    let mut b = t.bundle();
    let outer = nested(t);
    for dir in ["mnt/a", "mnt/b"] {
        fs::create_dir(b.rootfs(dir)).unwrap();
    }
    b.user_namespace(100_000, 65536).bind(&outer, "/mnt/a", &["ridmap"]).bind(&outer, "/mnt/b", &["idmap"]);
    let seen = t.see(&mut b, &["mounts", "stat=/mnt/a/inner/file", "stat=/mnt/b/inner/file"]);
    has(at(&seen, "/mnt/a/inner"), &["idmapped"]);
    has(at(&seen, "/mnt/b"), &["idmapped"]);
    has(at(&seen, "/mnt/b/inner"), &["!idmapped"]);
    assert_eq!(seen["stat=/mnt/a/inner/file"]["ok"]["uid"], 0);
    assert_eq!(seen["stat=/mnt/b/inner/file"]["ok"]["uid"], 65534);
    unmount(&outer);
}

fn propagation_of_a_mount(t: &Test) {
    t.differs(Kind::Crun, "1.8.1 makes every new mount private");
    let mut b = t.bundle();
    for word in ["private", "slave", "shared", "unbindable"] {
        b.mount(&format!("/mnt/{word}"), "tmpfs", "tmpfs", &[word]);
    }
    let seen = t.see(&mut b, &["mounts"]);
    assert_eq!(at(&seen, "/mnt/private")["propagation"], "private");
    assert_eq!(at(&seen, "/mnt/shared")["propagation"], "shared");
    assert_eq!(at(&seen, "/mnt/unbindable")["propagation"], "unbindable");
    assert_eq!(at(&seen, "/mnt/slave")["propagation"], "private", "a slave of nobody is private");
}

fn a_slave_sees_the_hosts_mounts(t: &Test) {
    let volume = t.dir().join("volume");
    fs::create_dir(&volume).unwrap();
    let mount =
        |source, target: &Path, typ, flags| nix::mount::mount(source, target, typ, flags, None::<&str>).unwrap();
    mount(Some("volume"), &volume, Some("tmpfs"), nix::mount::MsFlags::empty());
    mount(None::<&str>, &volume, None::<&str>, nix::mount::MsFlags::MS_SHARED);
    fs::create_dir(volume.join("later")).unwrap();
    let mut b = t.bundle();
    b.set("/linux/rootfsPropagation", json!("rslave"));
    b.bind(&volume, "/mnt/slave", &["rslave"]).bind(&volume, "/mnt/private", &["rprivate"]);
    b.payload(&["sleep"]);
    let c = t.create(&b);
    c.start();
    c.line();
    mount(Some("later"), &volume.join("later"), Some("tmpfs"), nix::mount::MsFlags::empty());
    let seen = c.see(&[], &["mounts"]);
    let targets: Vec<&str> = seen["mounts"].as_array().unwrap().iter().filter_map(|m| m["target"].as_str()).collect();
    assert!(targets.contains(&"/mnt/slave/later"), "{targets:?}");
    assert!(!targets.contains(&"/mnt/private/later"), "{targets:?}");
    assert_eq!(at(&seen, "/mnt/slave")["propagation"], "slave");
    drop(c);
    unmount(&volume);
}

fn a_remount(t: &Test) {
    let mut b = t.bundle();
    b.mount("/mnt", "tmpfs", "tmpfs", &["nosuid"]).mount("/mnt", "none", "/", &["remount", "bind", "ro", "nosuid"]);
    has(at(&t.see(&mut b, &["mounts"]), "/mnt"), &["ro", "nosuid"]);
}

fn sysfs_and_cgroup(t: &Test) {
    let mut b = t.bundle();
    b.namespace("cgroup", None);
    b.mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"]);
    let seen = t.see(&mut b, &["mounts", "cgroup", "list=/sys/fs/cgroup"]);
    has(at(&seen, "/sys"), &["ro", "nosuid"]);
    if host::has_v1("pids") {
        has(at(&seen, "/sys/fs/cgroup/pids"), &["ro", "nosuid", "nodev", "noexec"]);
        assert_eq!(at(&seen, "/sys/fs/cgroup/pids")["root"], "/");
        let names = seen["list=/sys/fs/cgroup"]["ok"].to_string();
        assert!(names.contains("memory") && names.contains("cpu"), "{names}");
    } else {
        has(at(&seen, "/sys/fs/cgroup"), &["ro", "nosuid", "nodev", "noexec"]);
        assert_eq!(at(&seen, "/sys/fs/cgroup")["root"], "/");
        let names = seen["list=/sys/fs/cgroup"]["ok"].to_string();
        assert!(names.contains("cgroup.controllers") && names.contains("cgroup.procs"), "{names}");
    }
    let own = if host::has_v1("pids") { ":pids:/" } else { "0::/" };
    let lines = seen["cgroup"].as_array().unwrap().iter().map(|line| line.as_str().unwrap());
    assert!(lines.into_iter().any(|line| line.ends_with(own)), "{seen}");
}

fn unknown_options_fail(t: &Test) {
    let mut b = t.bundle();
    b.bind(&b.rootfs("etc"), "/mnt", &["no-such-option"]);
    if t.kind() == Kind::Brig {
        t.create_fails(&b, &["no-such-option"]);
    }
}
