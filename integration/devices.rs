//! Device nodes, default and asked for, and which of them may be used.

use crate::support::{Kind, Test, Value, cases, host, json, suite};
use std::fs;
use std::os::unix::fs::symlink;

cases![
    default_devices,
    default_links,
    devices_of_the_config,
    a_device_over_a_default_one,
    a_fifo,
    a_device_in_a_new_directory,
    device_numbers_are_checked,
    the_devices_cgroup_denies,
    the_devices_cgroup_allows,
    devices_without_a_dev_mount,
    a_bound_dev_is_left_alone,
    a_link_in_the_image_is_not_followed,
    dev_ptmx_is_the_instances_own,
];

fn assert_device(seen: &Value, path: &str, kind: &str, major: u64, minor: u64) {
    let device = &seen["devices"][path];
    assert_eq!(
        (&device["type"], &device["major"], &device["minor"]),
        (&json!(kind), &json!(major), &json!(minor)),
        "{path}: {device}"
    );
}

fn default_devices(t: &Test) {
    let seen = t.see(&mut t.bundle(), &["devices", "write=/dev/null:x"]);
    for (path, major, minor) in [
        ("/dev/null", 1, 3),
        ("/dev/zero", 1, 5),
        ("/dev/full", 1, 7),
        ("/dev/random", 1, 8),
        ("/dev/urandom", 1, 9),
        ("/dev/tty", 5, 0),
    ] {
        assert_device(&seen, path, "c", major, minor);
        let device = &seen["devices"][path];
        assert_eq!((&device["mode"], &device["uid"], &device["gid"]), (&json!("666"), &json!(0), &json!(0)), "{path}");
    }
    assert_eq!(seen["write=/dev/null:x"]["ok"], true);
    assert!(seen["devices"]["/dev/console"].is_null(), "there is no terminal: {seen}");
}

fn default_links(t: &Test) {
    let seen = t.see(&mut t.bundle(), &["devices"]);
    for (path, to) in [
        ("/dev/fd", "/proc/self/fd"),
        ("/dev/stdin", "/proc/self/fd/0"),
        ("/dev/stdout", "/proc/self/fd/1"),
        ("/dev/stderr", "/proc/self/fd/2"),
        ("/dev/ptmx", "pts/ptmx"),
    ] {
        assert_eq!(seen["devices"][path]["to"], to, "{path}");
    }
    // The spec has no link to the kernel's memory; runc makes it.
    if fs::exists("/proc/kcore").unwrap() && t.kind() == Kind::Runc {
        assert_eq!(seen["devices"]["/dev/core"]["to"], "/proc/kcore");
    }
}

fn devices_of_the_config(t: &Test) {
    let mut b = t.bundle();
    b.set(
        "/linux/devices",
        json!([
            {"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 0o640, "uid": 5, "gid": 6},
            {"path": "/dev/loop-of-mine", "type": "b", "major": 7, "minor": 3, "fileMode": 0o600},
            {"path": "/dev/unbuffered", "type": "u", "major": 1, "minor": 3},
        ]),
    );
    let seen = t.see(&mut b, &["devices"]);
    assert_device(&seen, "/dev/fuse", "c", 10, 229);
    assert_device(&seen, "/dev/loop-of-mine", "b", 7, 3);
    assert_device(&seen, "/dev/unbuffered", "c", 1, 3);
    let device = &seen["devices"]["/dev/fuse"];
    assert_eq!((&device["mode"], &device["uid"], &device["gid"]), (&json!("640"), &json!(5), &json!(6)));
}

fn a_device_over_a_default_one(t: &Test) {
    let mut b = t.bundle();
    b.set("/linux/devices", json!([{"path": "/dev/null", "type": "c", "major": 1, "minor": 5, "fileMode": 0o600}]));
    if t.kind() == Kind::Runc {
        b.set("/linux/devices/0/minor", json!(3));
    }
    let out = t.run(b.payload(&["devices"]));
    // It may be honoured or refused, but not half of either.
    if out.code == 0 {
        let device = &out.json()["devices"]["/dev/null"];
        assert_eq!(device["type"], "c", "{device}");
    }
}

fn a_fifo(t: &Test) {
    let mut b = t.bundle();
    b.set("/linux/devices", json!([{"path": "/dev/fifo", "type": "p", "fileMode": 0o622}]));
    let seen = t.see(&mut b, &["devices"]);
    assert_eq!(
        (&seen["devices"]["/dev/fifo"]["type"], &seen["devices"]["/dev/fifo"]["mode"]),
        (&json!("p"), &json!("622"))
    );
}

fn a_device_in_a_new_directory(t: &Test) {
    let mut b = t.bundle();
    b.set(
        "/linux/devices",
        json!([{"path": "/dev/net/tun", "type": "c", "major": 10, "minor": 200, "fileMode": 0o666}]),
    );
    assert_device(&t.see(&mut b, &["devices"]), "/dev/net/tun", "c", 10, 200);
}

fn device_numbers_are_checked(t: &Test) {
    t.differs(Kind::Crun, "1.8.1 takes an unknown type for a character device");
    let mut b = t.bundle();
    b.set("/linux/devices", json!([{"path": "/dev/x", "type": "q", "major": 1, "minor": 1}]));
    t.create_fails(&b, &["/linux/devices/0/type"]);
    if t.kind() == Kind::Brig {
        b.set("/linux/devices", json!([{"path": "/dev/x", "type": "c", "major": -1, "minor": 1}]));
        t.create_fails(&b, &["/linux/devices/0/major"]);
        b.set("/linux/devices", json!([{"type": "c", "major": 1, "minor": 1}]));
        t.create_fails(&b, &["/linux/devices/0/path"]);
    }
}

fn the_devices_cgroup_denies(t: &Test) {
    if !host::has_v1("devices") {
        suite::skip("there is no v1 devices controller");
    }
    let mut b = t.bundle();
    b.capabilities(&["CAP_MKNOD"]).payload(&[
        "mknod=c:1:11:/tmp/kmsg",
        "mknod=c:1:3:/tmp/null",
        "write=/tmp/null:x",
        "mknod=b:7:0:/tmp/loop",
        "touch=/tmp/loop",
        "touch=/tmp/kmsg",
        "sleep",
    ]);
    let c = t.create(&b);
    c.start();
    let seen = c.line();
    assert_eq!(seen["mknod=c:1:3:/tmp/null"]["ok"], true);
    assert_eq!(seen["write=/tmp/null:x"]["ok"], true);
    // Making a node is allowed, and using it is not.
    for verb in ["touch=/tmp/loop", "touch=/tmp/kmsg"] {
        assert_eq!(seen[verb]["errno"], "EPERM", "{verb}: {seen}");
    }
    let list = host::cgroup_file(c.pid, "devices", "devices.list");
    assert!(list.contains("c 1:3 rwm") && !list.contains("a *:* rwm"), "{list}");
}

fn the_devices_cgroup_allows(t: &Test) {
    if !host::has_v1("devices") {
        suite::skip("there is no v1 devices controller");
    }
    let mut b = t.bundle();
    b.capabilities(&["CAP_MKNOD"]).set(
        "/linux/resources/devices",
        json!([
            {"allow": false, "access": "rwm"},
            {"allow": true, "type": "c", "major": 1, "minor": 11, "access": "w"},
            {"allow": true, "type": "b", "major": 7, "access": "rm"},
        ]),
    );
    b.payload(&["sleep"]);
    let c = t.create(&b);
    let list = host::cgroup_file(c.pid, "devices", "devices.list");
    assert!(list.lines().any(|l| l == "c 1:11 w"), "{list}");
    assert!(list.lines().any(|l| l == "b 7:* rm"), "{list}");
    assert!(list.lines().any(|l| l == "c 5:2 rwm") && list.lines().any(|l| l == "c 136:* rwm"), "{list}");
}

fn devices_without_a_dev_mount(t: &Test) {
    let mut b = t.bundle();
    b.config["mounts"].as_array_mut().unwrap().retain(|m| !m["destination"].as_str().unwrap().starts_with("/dev"));
    let seen = t.see(&mut b, &["devices"]);
    assert_device(&seen, "/dev/null", "c", 1, 3);
}

/// Who binds the host's /dev wants its nodes, and no others made in it.
fn a_bound_dev_is_left_alone(t: &Test) {
    let mut b = t.bundle();
    let dev = t.dir().join("dev");
    fs::create_dir(&dev).unwrap();
    let mode = nix::sys::stat::Mode::from_bits_truncate(0o666);
    nix::sys::stat::mknod(&dev.join("null"), nix::sys::stat::SFlag::S_IFCHR, mode, nix::sys::stat::makedev(1, 3))
        .unwrap();
    b.config["mounts"].as_array_mut().unwrap().retain(|m| !m["destination"].as_str().unwrap().starts_with("/dev"));
    b.bind(&dev, "/dev", &[]);
    let seen = t.see(&mut b, &["list=/dev"]);
    assert_eq!(seen["list=/dev"]["ok"], json!(["null"]));
    assert_eq!(fs::read_dir(&dev).unwrap().count(), 1);
}

/// CVE-2026-88264 and its kin: a link where a node goes may not lead the runtime to the host.
fn a_link_in_the_image_is_not_followed(t: &Test) {
    t.only_brig("old releases follow it");
    let target = t.dir().join("victim");
    fs::write(&target, "host").unwrap();
    let mut b = t.bundle();
    b.config["mounts"].as_array_mut().unwrap().retain(|m| !m["destination"].as_str().unwrap().starts_with("/dev"));
    symlink(&target, b.rootfs("dev/null")).unwrap();
    symlink(&target, b.rootfs("dev/ptmx")).unwrap();
    let _ = t.run(b.payload(&["write=/dev/null:x"]));
    assert_eq!(fs::read_to_string(&target).unwrap(), "host");
    fs::remove_dir_all(b.rootfs("dev")).unwrap();
    let outside = t.dir().join("outside");
    fs::create_dir(&outside).unwrap();
    symlink(&outside, b.rootfs("dev")).unwrap();
    let _ = t.run(&b);
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0, "nodes were made outside of the root");
}

fn dev_ptmx_is_the_instances_own(t: &Test) {
    let seen = t.see(&mut t.bundle(), &["touch=/dev/ptmx", "list=/dev/pts"]);
    assert_eq!(seen["touch=/dev/ptmx"]["ok"], true, "{seen}");
    assert_eq!(seen["list=/dev/pts"]["ok"], json!(["ptmx"]));
}
