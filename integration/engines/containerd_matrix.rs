//! containerd's shim under each cgroup manager and in each cgroup mode: one container's life in each.

use super::containerd::Containerd;
use super::place::{self, Manager};
use crate::support::{Kind, Test, cases, host};

cases![rootful_cgroupfs_v1, rootful_cgroupfs_v2, rootful_systemd_v2];

fn life(t: &Test, manager: Manager, look: &dyn Fn(i32)) {
    let c = Containerd::under(t, manager);
    let out = c.foreground(&[], &["sh", "-c", "echo hello; exit 42"]).code(42);
    assert_eq!(out.stdout, "hello\n");
    c.run(&["--detach", "--memory-limit", "67108864", "--cpus", "0.5"], "web", &["sleep", "1000"]).ok();
    let (pid, status) = c.task();
    assert_eq!(status, "RUNNING");
    look(pid);
    c.exec("one", &[], &["sh", "-c", "exit 5"]).out().code(5);
    c.ctr(&["task", "pause", "web"]).ok();
    assert_eq!(c.task().1, "PAUSED");
    c.ctr(&["task", "resume", "web"]).ok();
    assert_eq!(c.task().1, "RUNNING");
    let metrics = c.ctr(&["task", "metrics", "web"]).ok().stdout;
    assert!(metrics.contains("67108864"), "{metrics}");
    c.kill();
    let deleted = c.ctr(&["task", "delete", "web"]).ok();
    assert!(deleted.stderr.contains("exit code 137"), "{}", deleted.stderr);
    c.ctr(&["container", "delete", "web"]).ok();
    c.foreground(&["--memory-limit", "25165824"], &["dd", "if=/dev/zero", "of=/dev/null", "bs=200M", "count=1"])
        .code(137);
}

/// Where the container is on v2, and its limits there.
fn limited(pid: i32, cgroup: &str) {
    let own = place::cgroup_of(pid);
    assert!(own.contains(cgroup), "{own}");
    assert_eq!(host::cgroup_file(pid, "", "memory.max"), "67108864");
    assert_eq!(host::cgroup_file(pid, "", "cpu.max"), "50000 100000");
}

fn rootful_cgroupfs_v1(t: &Test) {
    place::needs_v1();
    life(t, Manager::Cgroupfs, &|pid| {
        let dir = host::cgroup_dir(pid, "memory").expect("a memory cgroup").display().to_string();
        assert!(dir.ends_with(&format!("/{}/container-web", t.id())), "{dir}");
        assert_eq!(host::cgroup_file(pid, "memory", "memory.limit_in_bytes"), "67108864");
        assert_eq!(host::cgroup_file(pid, "cpu", "cpu.cfs_quota_us"), "50000");
    });
}

fn rootful_cgroupfs_v2(t: &Test) {
    place::needs_v2();
    life(t, Manager::Cgroupfs, &|pid| limited(pid, &format!("/{}/container-web", t.id())));
}

fn rootful_systemd_v2(t: &Test) {
    place::needs_systemd_v2();
    life(t, Manager::Systemd, &|pid| {
        limited(pid, &format!("/{}/ctr-web.scope", place::slice(t)));
        if t.kind() == Kind::Crun {
            // Its limits are in a child of the scope, and the unit has none.
            return;
        }
        let show = ["show", "--value", "--property", "MemoryMax", "ctr-web.scope"];
        assert_eq!(place::systemctl(t, None, &show).ok().stdout.trim(), "67108864", "the unit has the limit");
    });
}
