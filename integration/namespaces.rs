//! Namespaces: made, shared or joined; and what is set inside them.

use crate::support::{Bundle, Call, Container, Kind, Test, Value, cases, json};
use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::Pid;
use std::fs;

cases![
    those_that_are_asked_for_are_new,
    none_at_all,
    a_joined_namespace_by_path,
    joined_pid_namespace,
    joined_user_namespace,
    joined_mount_namespace,
    a_path_that_is_no_namespace,
    a_path_to_another_kind,
    time_offsets,
    hostname_and_domainname,
    hostname_without_a_namespace_is_refused,
    sysctls,
    sysctls_of_the_host_are_refused,
    sysctls_without_their_namespace_are_refused,
    the_session_keyring_is_new,
    user_namespace_maps,
    user_namespace_with_several_ranges,
    user_namespace_and_another_user,
    user_namespace_binds_devices,
    user_namespace_without_maps_is_refused,
    init_of_a_user_namespace_is_what_the_host_says,
    supplementary_groups,
    network_loopback_is_up,
    network_on_one_processor,
];

const ALL: [&str; 6] = ["cgroup", "ipc", "mnt", "net", "pid", "uts"];

fn hosts() -> Value {
    let link = |name: &str| {
        fs::read_link(format!("/proc/self/ns/{name}")).map(|p| p.display().to_string()).unwrap_or_default()
    };
    ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"]
        .iter()
        .map(|n| (n.to_string(), json!(link(n))))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

/// A container that waits, and what it sees.
fn waiting<'t>(t: &'t Test, change: impl FnOnce(&mut Bundle)) -> (Container<'t>, Value) {
    let mut b = t.bundle();
    b.payload(&["ns", "uts", "ids", "maps", "ps", "pid", "sleep"]);
    change(&mut b);
    let c = t.create(&b);
    c.start();
    let seen = c.line();
    (c, seen)
}

fn those_that_are_asked_for_are_new(t: &Test) {
    let (_c, seen) = waiting(t, |b| {
        b.namespace("cgroup", None);
    });
    let host = hosts();
    for name in ALL {
        assert_ne!(seen["ns"][name], host[name], "{name}");
    }
    for name in ["user", "time"] {
        assert_eq!(seen["ns"][name], host[name], "{name}");
    }
}

fn none_at_all(t: &Test) {
    let (_c, seen) = waiting(t, |b| {
        for name in ["network", "ipc", "uts", "pid"] {
            b.without_namespace(name);
        }
        b.unset("/hostname");
        // What these would show is the host's.
        b.config["mounts"]
            .as_array_mut()
            .unwrap()
            .retain(|m| m["destination"] != "/dev/mqueue" && m["destination"] != "/sys");
    });
    let host = hosts();
    for name in ["cgroup", "ipc", "net", "pid", "uts", "user", "time"] {
        assert_eq!(seen["ns"][name], host[name], "{name}");
    }
    assert_ne!(seen["ns"]["mnt"], host["mnt"]);
}

fn a_joined_namespace_by_path(t: &Test) {
    let (other, theirs) = waiting(t, |b| {
        b.namespace("cgroup", None).set("/hostname", json!("shared"));
    });
    for (typ, name) in [("network", "net"), ("ipc", "ipc"), ("uts", "uts"), ("cgroup", "cgroup")] {
        let (_c, seen) = waiting(t, |b| {
            b.namespace(typ, Some(&format!("/proc/{}/ns/{name}", other.pid))).unset("/hostname");
            if typ != "uts" {
                b.set("/hostname", json!("own"));
            }
        });
        assert_eq!(seen["ns"][name], theirs["ns"][name], "{typ}");
        for rest in ALL.iter().filter(|n| **n != name && **n != "cgroup") {
            assert_ne!(seen["ns"][rest], theirs["ns"][rest], "{rest} while {typ} is joined");
        }
        assert_eq!(seen["uts"]["hostname"], if typ == "uts" { "shared" } else { "own" });
    }
}

fn joined_pid_namespace(t: &Test) {
    let (other, theirs) = waiting(t, |_| ());
    let (c, seen) = waiting(t, |b| {
        b.namespace("pid", Some(&format!("/proc/{}/ns/pid", other.pid)));
    });
    assert_eq!(seen["ns"]["pid"], theirs["ns"]["pid"]);
    assert_ne!(seen["pid"]["pid"], 1);
    assert!(seen["ps"].as_object().unwrap().len() >= 2, "{seen}");
    assert_eq!(c.status(), "running");
    c.kill("KILL");
    assert_eq!(c.wait(), 137);
    assert_eq!(other.status(), "running");
}

fn joined_user_namespace(t: &Test) {
    let (other, theirs) = waiting(t, |b| {
        b.user_namespace(100_000, 65536);
    });
    let (_c, seen) = waiting(t, |b| {
        b.namespace("user", Some(&format!("/proc/{}/ns/user", other.pid)));
        if t.kind() == Kind::Runc {
            // It needs to be told the maps that the namespace has already.
            b.set("/linux/uidMappings", json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]));
            b.set("/linux/gidMappings", json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]));
        }
    });
    assert_eq!(seen["ns"]["user"], theirs["ns"]["user"]);
    assert_eq!(seen["maps"]["uid"], json!([[0, 100_000, 65536]]));
    assert_eq!(seen["ids"]["uid"], json!([0, 0, 0, 0]));
}

/// The container's mounts are then made in, and pivot, a namespace that another process holds open.
fn joined_mount_namespace(t: &Test) {
    t.differs(Kind::Runc, "it pivots in the joined namespace, whose root is then no longer the host's");
    t.differs(Kind::Crun, "it pivots in the joined namespace, whose root is then no longer the host's");
    let mut holder = std::process::Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sleep", "1000"])
        .env("BRIG_TEST", t.id())
        .spawn()
        .unwrap();
    let wait = || {
        while fs::read_link(format!("/proc/{}/ns/mnt", holder.id())).ok() == fs::read_link("/proc/self/ns/mnt").ok() {}
    };
    wait();
    if t.is_taken("open_tree") || t.is_taken("fsopen") {
        let mut b = t.bundle();
        b.namespace("mount", Some(&format!("/proc/{}/ns/mnt", holder.id())));
        t.create_fails(&b, &["mount namespace that others use", "open_tree", "Linux 5.2"]);
        holder.kill().unwrap();
        holder.wait().unwrap();
        return;
    }
    let (_c, seen) = waiting(t, |b| {
        b.namespace("mount", Some(&format!("/proc/{}/ns/mnt", holder.id())));
    });
    let theirs = fs::read_link(format!("/proc/{}/ns/mnt", holder.id())).unwrap();
    assert_eq!(seen["ns"]["mnt"], theirs.display().to_string());
    holder.kill().unwrap();
    holder.wait().unwrap();
}

fn a_path_that_is_no_namespace(t: &Test) {
    let mut b = t.bundle();
    b.namespace("network", Some("/no/such/namespace"));
    t.create_fails(&b, &["/no/such/namespace"]);
    b.namespace("network", Some("/etc/hostname"));
    t.create_fails(&b, &["/etc/hostname"]);
}

fn a_path_to_another_kind(t: &Test) {
    let mut b = t.bundle();
    b.namespace("network", Some("/proc/self/ns/uts"));
    t.create_fails(&b, &["/proc/self/ns/uts"]);
}

fn time_offsets(t: &Test) {
    t.differs(Kind::Runc, "1.1 knows no time namespace");
    t.differs(Kind::Crun, "1.8.1 loses its child while it writes the offsets");
    let mut b = t.bundle();
    b.namespace("time", None).payload(&["ns", "time"]);
    b.set(
        "/linux/timeOffsets",
        json!({"monotonic": {"secs": 86400, "nanosecs": 0}, "boottime": {"secs": 172_800, "nanosecs": 0}}),
    );
    let uptime: f64 = fs::read_to_string("/proc/uptime").unwrap().split(' ').next().unwrap().parse().unwrap();
    let seen = t.run(&b).ok().json();
    assert_ne!(seen["ns"]["time"], hosts()["time"]);
    let boottime = seen["time"]["boottime"].as_f64().unwrap();
    assert!((boottime - uptime - 172_800.0).abs() < 60.0, "{boottime} against {uptime}");
    let offsets = fs::read_to_string("/proc/self/timens_offsets").unwrap();
    assert!(!offsets.contains("86400"), "the host's offsets changed: {offsets}");
}

fn hostname_and_domainname(t: &Test) {
    let mut b = t.bundle();
    b.set("/hostname", json!("a-name.example"));
    if t.kind() != Kind::Runc {
        b.set("/domainname", json!("a-domain"));
    }
    let seen = t.see(&mut b, &["uts"]);
    assert_eq!(seen["uts"]["hostname"], "a-name.example");
    if t.kind() != Kind::Runc {
        assert_eq!(seen["uts"]["domainname"], "a-domain");
    }
    assert_ne!(fs::read_to_string("/proc/sys/kernel/hostname").unwrap().trim(), "a-name.example");
}

fn hostname_without_a_namespace_is_refused(t: &Test) {
    let mut b = t.bundle();
    b.without_namespace("uts");
    t.create_fails(&b, &["hostname", "uts"]);
}

fn sysctls(t: &Test) {
    let mut b = t.bundle();
    b.set("/linux/sysctl", json!({"net.ipv4.ip_forward": "1", "kernel.msgmax": "4096", "net.ipv4.ping_group_range": "5 6", "fs.mqueue.msg_max": "7"}));
    let seen = t.see(
        &mut b,
        &[
            "sysctl=net.ipv4.ip_forward",
            "sysctl=kernel.msgmax",
            "sysctl=net.ipv4.ping_group_range",
            "sysctl=fs.mqueue.msg_max",
        ],
    );
    assert_eq!(seen["sysctl=net.ipv4.ip_forward"]["ok"], "1");
    assert_eq!(seen["sysctl=kernel.msgmax"]["ok"], "4096");
    assert_eq!(seen["sysctl=net.ipv4.ping_group_range"]["ok"], "5\t6");
    assert_eq!(seen["sysctl=fs.mqueue.msg_max"]["ok"], "7");
    assert_ne!(fs::read_to_string("/proc/sys/kernel/msgmax").unwrap().trim(), "4096");
}

fn sysctls_of_the_host_are_refused(t: &Test) {
    for name in ["kernel.panic", "vm.swappiness", "fs.file-max", "kernel.domainname.x", "net.ipv4.no_such_thing"] {
        let mut b = t.bundle();
        // The value that it has: a runtime that fails this test should not change the machine.
        let value = fs::read_to_string(format!("/proc/sys/{}", name.replace('.', "/"))).unwrap_or_else(|_| "1".into());
        b.set("/linux/sysctl", json!({name: value.trim()}));
        t.create_fails(&b, &[name]);
    }
}

fn sysctls_without_their_namespace_are_refused(t: &Test) {
    for (typ, name) in [("network", "net.ipv4.ip_forward"), ("ipc", "kernel.msgmax"), ("uts", "kernel.domainname")] {
        let mut b = t.bundle();
        let value = fs::read_to_string(format!("/proc/sys/{}", name.replace('.', "/"))).unwrap();
        b.without_namespace(typ).unset("/hostname").set("/linux/sysctl", json!({name: value.trim()}));
        b.config["mounts"].as_array_mut().unwrap().retain(|m| m["destination"] != "/dev/mqueue");
        if t.kind() == Kind::Brig || typ != "uts" {
            t.create_fails(&b, &[name]);
        }
    }
}

fn the_session_keyring_is_new(t: &Test) {
    let mut b = t.bundle();
    b.payload(&["keyring"]).write();
    let id = t.new_id();
    let keyring = t.call(&["run", "--bundle", b.path(), &id]).ok().json()["keyring"]["ok"].to_string();
    if keyring == "null" {
        return;
    }
    assert!(keyring.contains(&id), "{keyring}");
    let id = t.new_id();
    let keyring =
        t.call(&["run", "--no-new-keyring", "--bundle", b.path(), &id]).ok().json()["keyring"]["ok"].to_string();
    assert!(!keyring.contains(&id), "{keyring}");
}

fn user_namespace_maps(t: &Test) {
    let mut b = t.bundle();
    b.user_namespace(100_000, 65536);
    let seen = t.see(&mut b, &["ns", "maps", "ids", "touch=/dev/shm/x", "stat=/dev/shm/x", "caps"]);
    assert_ne!(seen["ns"]["user"], hosts()["user"]);
    assert_eq!(seen["maps"]["uid"], json!([[0, 100_000, 65536]]));
    assert_eq!(seen["maps"]["gid"], json!([[0, 100_000, 65536]]));
    assert_eq!(seen["ids"]["uid"], json!([0, 0, 0, 0]));
    assert_eq!(seen["stat=/dev/shm/x"]["ok"]["uid"], 0);
    assert_eq!(seen["caps"]["effective"], json!(["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]));
}

fn user_namespace_with_several_ranges(t: &Test) {
    let mut b = t.bundle();
    b.namespace("user", None);
    b.set(
        "/linux/uidMappings",
        json!([{"containerID": 0, "hostID": 200_000, "size": 10}, {"containerID": 10, "hostID": 300_000, "size": 5}]),
    );
    b.set(
        "/linux/gidMappings",
        json!([{"containerID": 0, "hostID": 200_000, "size": 1}, {"containerID": 5, "hostID": 300_005, "size": 1}]),
    );
    let seen = t.see(&mut b, &["maps"]);
    assert_eq!(seen["maps"]["uid"], json!([[0, 200_000, 10], [10, 300_000, 5]]));
    assert_eq!(seen["maps"]["gid"], json!([[0, 200_000, 1], [5, 300_005, 1]]));
}

fn user_namespace_and_another_user(t: &Test) {
    let mut b = t.bundle();
    b.user_namespace(100_000, 65536).set("/process/user", json!({"uid": 1000, "gid": 1001, "additionalGids": [5, 6]}));
    let (c, seen) = {
        b.payload(&["ids", "caps", "sleep"]);
        let c = t.create(&b);
        c.start();
        let seen = c.line();
        (c, seen)
    };
    assert_eq!(seen["ids"]["uid"], json!([1000, 1000, 1000, 1000]));
    assert_eq!(seen["ids"]["gid"], json!([1001, 1001, 1001, 1001]));
    assert_eq!(seen["ids"]["groups"], json!([5, 6]));
    let status = fs::read_to_string(format!("/proc/{}/status", c.pid)).unwrap();
    assert!(status.contains("Uid:\t101000\t101000"), "{status}");
}

/// A user namespace's root may not make device nodes, so the host's are bound.
fn user_namespace_binds_devices(t: &Test) {
    let mut b = t.bundle();
    b.user_namespace(100_000, 65536);
    let seen = t.see(&mut b, &["devices", "write=/dev/null:x", "read=/dev/zero=0"]);
    for (path, major, minor) in [
        ("/dev/null", 1, 3),
        ("/dev/zero", 1, 5),
        ("/dev/full", 1, 7),
        ("/dev/random", 1, 8),
        ("/dev/urandom", 1, 9),
        ("/dev/tty", 5, 0),
    ] {
        let device = &seen["devices"][path];
        assert_eq!(
            (&device["type"], &device["major"], &device["minor"]),
            (&json!("c"), &json!(major), &json!(minor)),
            "{path}: {device}"
        );
    }
    assert_eq!(seen["write=/dev/null:x"]["ok"], true);
}

fn user_namespace_without_maps_is_refused(t: &Test) {
    t.differs(Kind::Crun, "it makes up a map");
    let mut b = t.bundle();
    b.namespace("user", None);
    t.create_fails(&b, &["Mappings"]);
    let mut b = t.bundle();
    b.set("/linux/uidMappings", json!([{"containerID": 0, "hostID": 100_000, "size": 1}]));
    if t.kind() == Kind::Brig {
        t.create_fails(&b, &["uidMappings", "user"]);
    }
}

fn init_of_a_user_namespace_is_what_the_host_says(t: &Test) {
    let (c, _) = waiting(t, |b| {
        b.user_namespace(100_000, 65536);
    });
    let status = fs::read_to_string(format!("/proc/{}/status", c.pid)).unwrap();
    assert!(status.contains("Uid:\t100000\t100000"), "{status}");
}

fn supplementary_groups(t: &Test) {
    let mut b = t.bundle();
    b.set("/process/user", json!({"uid": 7, "gid": 8, "additionalGids": [100, 9]}));
    let seen = t.see(&mut b, &["ids"]);
    assert_eq!(seen["ids"]["groups"], json!([9, 100]));
    let mut b = t.bundle();
    assert_eq!(t.see(&mut b, &["ids"])["ids"]["groups"], json!([]));
}

fn network_loopback_is_up(t: &Test) {
    let mut b = t.bundle();
    let seen = t.see(&mut b, &["links", "listener=127.0.0.1:1234"]);
    assert_eq!(seen["links"].as_object().unwrap().len(), 1, "{seen}");
    assert_eq!(seen["links"]["lo"]["up"], true);
    assert_eq!(seen["listener=127.0.0.1:1234"]["ok"], true);
}

/// Where there is a second processor, brig makes the namespace on it, ahead of the others.
fn network_on_one_processor(t: &Test) {
    let mut b = t.bundle();
    b.payload(&["links", "ns"]);
    b.write();
    let allowed = sched_getaffinity(Pid::from_raw(0)).unwrap();
    let one = (0..CpuSet::count()).find(|n| allowed.is_set(*n).unwrap()).unwrap().to_string();
    let on_one = Call::through(t, &["taskset", "-c", &one], &[], &["run", "--bundle", b.path(), &t.new_id()]).ok().json();
    for seen in [on_one, t.run(&b).ok().json()] {
        assert_eq!(seen["links"]["lo"]["up"], true, "{seen}");
        assert_ne!(seen["ns"]["net"], hosts()["net"]);
    }
}
