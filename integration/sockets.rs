//! What comes over sockets besides terminals, and network devices that are moved in.

use crate::support::{Call, Kind, Test, Value, cases, json, os, pty, suite};
use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixListener;
use std::process::Command;

cases![
    pidfd_of_create,
    pidfd_of_exec,
    a_network_device_is_moved,
    a_network_device_is_renamed_and_keeps_its_addresses,
    a_network_device_that_is_not_there,
    network_devices_need_a_namespace,
];

/// The process that a pidfd stands for.
fn pid_of(fd: &std::os::fd::OwnedFd) -> i32 {
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd())).unwrap();
    info.lines().find_map(|l| l.strip_prefix("Pid:")?.trim().parse().ok()).unwrap_or_else(|| panic!("no pidfd: {info}"))
}

fn pidfd_of_create(t: &Test) {
    t.differs(Kind::Runc, "1.1 has no --pidfd-socket");
    t.differs(Kind::Crun, "it has no --pidfd-socket");
    let path = t.dir().join("pidfd");
    let listener = UnixListener::bind(&path).unwrap();
    let mut b = t.bundle();
    b.payload(&["exit=0"]);
    let c = t.create_with(&b, &["--pidfd-socket", &path.display().to_string()], |call| call);
    let (_, fds) = pty::receive(&pty::accept(&listener));
    assert_eq!(fds.len(), 1);
    assert_eq!(pid_of(&fds[0]), c.pid);
    c.start();
    assert!(os::readable(&fds[0], os::PATIENCE), "it tells of the end");
}

fn pidfd_of_exec(t: &Test) {
    t.differs(Kind::Runc, "1.1 has no --pidfd-socket");
    t.differs(Kind::Crun, "it has no --pidfd-socket");
    let path = t.dir().join("pidfd");
    let listener = UnixListener::bind(&path).unwrap();
    let c = t.create(t.bundle().payload(&["sleep"]));
    c.start();
    c.line();
    let pid_file = t.dir().join("exec.pid");
    let flags = ["--detach", "--pidfd-socket", &path.display().to_string(), "--pid-file", &pid_file.display().to_string()];
    c.exec(&flags, &["/bin/payload", "sleep"]).ok();
    let (_, fds) = pty::receive(&pty::accept(&listener));
    let pid: i32 = fs::read_to_string(&pid_file).unwrap().parse().unwrap();
    assert_eq!(pid_of(&fds[0]), pid);
    os::kill(pid, libc::SIGKILL);
    assert_eq!(os::reap(pid), Some(137));
}

/// `run` in a network namespace of the test's own, in which `prepare` (a shell script) has made devices. Gives what the
/// container saw and the links that were left afterwards.
fn run_with_links(t: &Test, prepare: &str, devices: Value) -> (Value, String) {
    t.differs(Kind::Runc, "netDevices came with 1.4");
    t.differs(Kind::Crun, "1.8.1 knows no netDevices");
    let probe = Command::new("unshare").args(["--net", "sh", "-c", prepare]).output();
    if !probe.is_ok_and(|o| o.status.success()) {
        suite::skip(format!("`{prepare}` does not work here"));
    }
    let mut b = t.bundle();
    b.set("/linux/netDevices", devices).payload(&["links"]).write();
    let script = format!(r#"{prepare} && "$0" "$@" && ip -o link >left"#);
    let id = t.new_id();
    let out = Call::through(t, &["unshare", "--net", "sh", "-c", &script], &[], &["run", "--bundle", b.path(), &id]).ok();
    (out.json()["links"].clone(), fs::read_to_string(t.dir().join("left")).unwrap())
}

fn a_network_device_is_moved(t: &Test) {
    let (links, left) = run_with_links(t, "ip link add one type veth peer name two", json!({"one": {}}));
    assert!(links["one"].is_object(), "{links}");
    assert!(links["two"].is_null() && !left.contains("one@"), "{left}");
}

fn a_network_device_is_renamed_and_keeps_its_addresses(t: &Test) {
    let prepare = "ip link add one type veth peer name two && ip link set two up && ip link set one up && ip address add 10.9.8.7/24 dev one && ip address add fd00:9::7/64 dev one nodad";
    let (links, _) = run_with_links(t, prepare, json!({"one": {"name": "eth0"}}));
    assert!(links["one"].is_null(), "{links}");
    let addresses = links["eth0"]["addresses"].as_array().unwrap();
    assert!(addresses.contains(&json!("10.9.8.7/24")) && addresses.contains(&json!("fd00:9::7/64")), "{links}");
    assert_eq!(links["eth0"]["up"], true, "{links}");
}

fn a_network_device_that_is_not_there(t: &Test) {
    t.differs(Kind::Runc, "netDevices came with 1.4");
    t.differs(Kind::Crun, "1.8.1 knows no netDevices");
    let mut b = t.bundle();
    b.set("/linux/netDevices", json!({"nosuchlink": {}}));
    t.create_fails(&b, &["nosuchlink"]);
}

fn network_devices_need_a_namespace(t: &Test) {
    t.differs(Kind::Runc, "netDevices came with 1.4");
    t.differs(Kind::Crun, "1.8.1 knows no netDevices");
    let mut b = t.bundle();
    b.without_namespace("network").set("/linux/netDevices", json!({"lo": {}}));
    t.create_fails(&b, &["/linux/netDevices", "network"]);
    let mut b = t.bundle();
    b.set("/linux/netDevices", json!({"eth0": {"name": "a-name-that-is-too-long"}}));
    t.create_fails(&b, &["/linux/netDevices/eth0/name"]);
}
