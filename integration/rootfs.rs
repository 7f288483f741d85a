//! The root filesystem: what is masked or read-only in it, what is out of it, and where its paths may lead.

use crate::mounts::{at, has};
use crate::support::{Kind, Test, cases, host, json};
use std::fs;
use std::os::unix::fs::symlink;

cases![
    propagation_of_the_root,
    links_lead_inside,
    proc_and_sys_are_real_directories,
    masked_paths,
    readonly_paths,
    masked_and_readonly_paths_may_be_missing,
    a_readonly_root,
    the_hosts_mounts_stay_as_they_are,
    the_old_root_is_gone,
    no_pivot,
    cwd_is_made,
];
/// Links in an image are followed as they would be inside.
fn links_lead_inside(t: &Test) {
    t.differs(Kind::Crun, "it makes nothing behind a link that leads nowhere yet");
    let mut b = t.bundle();
    let outside = t.dir().join("outside");
    fs::create_dir(&outside).unwrap();
    symlink(&outside, b.rootfs("absolute")).unwrap();
    symlink("../../../../../../../../../../mnt", b.rootfs("up")).unwrap();
    symlink("mnt/over/there", b.rootfs("dangling")).unwrap();
    b.mount("/absolute/x", "tmpfs", "one", &[]).mount("/up", "tmpfs", "two", &[]).mount(
        "/dangling",
        "tmpfs",
        "three",
        &[],
    );
    let seen = t.see(&mut b, &["mounts"]);
    at(&seen, &format!("{}/x", outside.display()));
    at(&seen, "/mnt");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0, "something was made outside of the root");
}

/// CVE-2019-16884 and its kin: a fake /proc would let a container write labels and limits of its own.
fn proc_and_sys_are_real_directories(t: &Test) {
    for (name, destination) in [("proc", "/proc"), ("sys", "/sys")] {
        let b = t.bundle();
        fs::remove_dir(b.rootfs(name)).unwrap();
        symlink("mnt", b.rootfs(name)).unwrap();
        t.create_fails(&b, &[destination]);
    }
}

fn propagation_of_the_root(t: &Test) {
    t.differs(Kind::Runc, "1.1 leaves the root private whatever is asked for");
    for (word, wanted) in [("shared", "shared"), ("private", "private"), ("unbindable", "unbindable")] {
        let mut b = t.bundle();
        b.set("/linux/rootfsPropagation", json!(word));
        assert_eq!(at(&t.see(&mut b, &["mounts"]), "/")["propagation"], wanted);
    }
}

fn masked_paths(t: &Test) {
    let mut b = t.bundle();
    fs::create_dir(b.rootfs("secret")).unwrap();
    fs::write(b.rootfs("secret/key"), "key").unwrap();
    fs::write(b.rootfs("etc/secret"), "key").unwrap();
    b.set("/linux/maskedPaths", json!(["/secret", "/etc/secret", "/proc/kcore", "/sys/firmware"]));
    let seen = t.see(
        &mut b,
        &["list=/secret", "read=/etc/secret", "touch=/secret/x", "stat=/etc/secret", "mounts", "list=/sys/firmware"],
    );
    assert_eq!(seen["list=/secret"]["ok"], json!([]));
    assert_eq!(seen["read=/etc/secret"]["ok"], "");
    assert_eq!(seen["touch=/secret/x"]["errno"], "EROFS");
    assert_eq!(seen["stat=/etc/secret"]["ok"]["rdev"], 259, "not /dev/null: {seen}");
    assert_eq!(seen["list=/sys/firmware"]["ok"], json!([]));
    has(at(&seen, "/secret"), &["ro"]);
}

fn readonly_paths(t: &Test) {
    let mut b = t.bundle();
    fs::write(b.rootfs("home/file"), "").unwrap();
    b.set("/linux/readonlyPaths", json!(["/etc", "/proc/sys", "/home/file"]));
    b.capabilities(&["CAP_SYS_ADMIN", "CAP_DAC_OVERRIDE"]);
    let seen = t.see(
        &mut b,
        &["touch=/etc/x", "touch=/home/file", "write=/proc/sys/kernel/hostname:x", "touch=/home/other", "mounts"],
    );
    for verb in ["touch=/etc/x", "touch=/home/file", "write=/proc/sys/kernel/hostname:x"] {
        assert_eq!(seen[verb]["errno"], "EROFS", "{verb}");
    }
    assert_eq!(seen["touch=/home/other"]["ok"], true);
    has(at(&seen, "/proc/sys"), &["ro"]);
    has(at(&seen, "/proc"), &["rw"]);
}

fn masked_and_readonly_paths_may_be_missing(t: &Test) {
    let mut b = t.bundle();
    b.set("/linux/maskedPaths", json!(["/no/such/path"])).set("/linux/readonlyPaths", json!(["/no/such/other"]));
    t.see(&mut b, &["cwd"]);
    assert!(!b.rootfs("no").exists());
}

fn a_readonly_root(t: &Test) {
    let mut b = t.bundle();
    b.set("/root/readonly", json!(true)).mount("/made/up", "tmpfs", "tmpfs", &[]);
    let seen = t.see(&mut b, &["touch=/x", "touch=/made/up/x", "touch=/dev/shm/x", "mounts"]);
    assert_eq!(seen["touch=/x"]["errno"], "EROFS");
    assert_eq!(seen["touch=/made/up/x"]["ok"], true);
    assert_eq!(seen["touch=/dev/shm/x"]["ok"], true);
    has(at(&seen, "/"), &["ro"]);
}

fn the_hosts_mounts_stay_as_they_are(t: &Test) {
    let c = t.create(t.bundle().payload(&["sleep"]));
    c.start();
    c.line();
    assert_eq!(host::mounts_under(t.dir()), Vec::<String>::new());
}

fn the_old_root_is_gone(t: &Test) {
    let mut b = t.bundle();
    let seen = t.see(&mut b, &["mounts", "list=/"]);
    assert_eq!(seen["list=/"]["ok"], json!(["bin", "dev", "etc", "home", "mnt", "proc", "sys", "tmp"]));
    let host: Vec<&str> = seen["mounts"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|m| m["target"].as_str())
        .filter(|t| !["/", "/proc", "/sys"].contains(t) && !t.starts_with("/dev"))
        .collect();
    assert_eq!(host, Vec::<&str>::new());
}

fn no_pivot(t: &Test) {
    let mut b = t.bundle();
    b.payload(&["list=/", "cwd"]);
    let seen = t.run_with(&b, &["--no-pivot"]).ok().json();
    assert_eq!(seen["list=/"]["ok"], json!(["bin", "dev", "etc", "home", "mnt", "proc", "sys", "tmp"]));
}

fn cwd_is_made(t: &Test) {
    let mut b = t.bundle();
    b.set("/process/cwd", json!("/not/yet/there"));
    let seen = t.see(&mut b, &["cwd", "stat=/not/yet/there"]);
    assert_eq!(seen["cwd"]["ok"], "/not/yet/there");
    assert_eq!(seen["stat=/not/yet/there"]["ok"]["mode"], "40755");
}
