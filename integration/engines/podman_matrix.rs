//! podman under each cgroup manager, in each cgroup mode, as root and as an ordinary user: one container's life in each,
//! with its limits seen to hold. A cell that this host can't have is skipped.

use super::place::{self, Manager};
use super::podman::{IMAGE, Podman, Setup};
use super::rootless::Rootless;
use crate::support::{Call, Kind, Test, cases, host};

cases![
    rootful_systemd_v2,
    rootful_cgroupfs_v2,
    rootful_cgroupfs_v1,
    rootless_systemd_v2,
    rootless_cgroupfs_v2,
    rootless_nocgroup_v2,
    rootless_nocgroup_v1,
];

/// The limits of the container, and what its cgroup says of them.
const LIMITS: [&str; 4] = ["--memory", "64m", "--pids-limit", "50"];
const LIMITS_SEEN: &str = "67108864\n50\n";

/// Ends with 3 when it is asked to end; says in a file that it can be asked.
const SERVICE: &str = "trap 'exit 3' TERM; touch /ready; while :; do sleep 100 & wait; done";

/// A container that runs and what podman and the host know of it.
struct Running {
    id: String,
    pid: i32,
}

/// A container's life by calls of podman: run, its exit status, exec, inspect, stop, start, kill, rm. In the middle of
/// it `look` looks at the host, with the container running.
fn life<'t>(call: &dyn Fn(&[&str]) -> Call<'t>, flags: &[&str], look: &dyn Fn(&Running)) {
    let run = |own: &[&str], script: &str| call(&[&["run"], own, flags, &[IMAGE, "sh", "-c", script]].concat());
    let inspect = |format: &str| call(&["inspect", "--format", format, "web"]).ok().stdout.trim().to_string();

    assert_eq!(run(&["--rm"], "echo hello; exit 42").out().code(42).stdout, "hello\n");
    let missing = call(&[&["run", "--rm"], flags, &[IMAGE, "no-such-program"]].concat()).out().code(127);
    assert!(missing.stderr.contains("no-such-program"), "{}", missing.stderr);

    let id = run(&["--detach", "--name", "web"], SERVICE).ok().stdout.trim().to_string();
    let out = call(&["exec", "web", "sh", "-c", "until [ -e /ready ]; do sleep 0.1; done; echo inside; exit 9"]).out();
    assert_eq!(out.code(9).stdout, "inside\n");
    let state = inspect("{{.State.Status}} {{.State.Pid}}");
    let pid = state.strip_prefix("running ").unwrap_or_else(|| panic!("{state}")).parse().expect("a pid");
    look(&Running { id, pid });
    call(&["stop", "web"]).ok();
    assert_eq!(inspect("{{.State.Status}} {{.State.ExitCode}}"), "exited 3");

    call(&["start", "web"]).ok();
    let refused = call(&["rm", "web"]).out().code(2);
    assert!(refused.stderr.contains("running"), "{}", refused.stderr);
    call(&["kill", "web"]).ok();
    assert_eq!(call(&["wait", "web"]).ok().stdout.trim(), "137");
    call(&["rm", "web"]).ok();
    call(&["container", "exists", "web"]).out().code(1);
}

/// The same in a v2 cell that has cgroups.
fn life_in_v2(t: &Test, setup: Setup) {
    let p = Podman::on(t, setup);
    let flags = [&["--cgroup-parent", &p.parent], LIMITS.as_slice()].concat();
    life(&|args| p.call(args), &flags, &|running| {
        let cgroup = place::cgroup_of(running.pid);
        let (slice, unit) = (&p.parent, format!("libpod-{}.scope", running.id));
        match setup.manager {
            Manager::Systemd => {
                assert!(cgroup.contains(&format!("/{slice}/{unit}")), "{cgroup}");
                let show = ["show", "--property=ActiveState,Slice", &unit];
                let shown = place::systemctl(t, setup.user, &show).ok().stdout;
                assert!(shown.contains("ActiveState=active") && shown.contains(slice.as_str()), "{shown}");
            }
            Manager::Cgroupfs => {
                assert!(cgroup.starts_with(&format!("{}/libpod-{}", p.parent, running.id)), "{cgroup}");
            }
        }
        let look = "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max; cat /proc/self/cgroup";
        assert_eq!(p.exec("web", look), format!("{LIMITS_SEEN}0::/\n"), "what exec joins");
    });
}

fn rootful_systemd_v2(t: &Test) {
    place::needs_systemd_v2();
    life_in_v2(t, Setup { manager: Manager::Systemd, user: None, lines: "" });
}

fn rootful_cgroupfs_v2(t: &Test) {
    place::needs_v2();
    life_in_v2(t, Setup { manager: Manager::Cgroupfs, user: None, lines: "" });
}

fn rootful_cgroupfs_v1(t: &Test) {
    place::needs_v1();
    let p = Podman::new(t);
    let flags = [&["--cgroup-parent", &p.parent], LIMITS.as_slice()].concat();
    life(&|args| p.call(args), &flags, &|running| {
        let limit = host::cgroup_file(running.pid, "memory", "memory.limit_in_bytes");
        assert_eq!(format!("{limit}\n{}\n", host::cgroup_file(running.pid, "pids", "pids.max")), LIMITS_SEEN);
        let dir = host::cgroup_dir(running.pid, "pids").expect("a cgroup").display().to_string();
        assert!(dir.ends_with(&format!("{}/libpod-{}", p.parent, running.id)), "{dir}");
    });
}

fn rootless_systemd_v2(t: &Test) {
    place::needs_systemd_v2();
    let user = place::user();
    life_in_v2(t, Setup { manager: Manager::Systemd, user: Some(&user), lines: "" });
}

fn rootless_cgroupfs_v2(t: &Test) {
    place::needs_systemd_v2();
    let user = place::user();
    life_in_v2(t, Setup { manager: Manager::Cgroupfs, user: Some(&user), lines: "" });
}

/// Without a cgroup, the container stays where podman is.
fn life_without_cgroups(t: &Test) {
    t.differs(Kind::Runc, "podman tells the runtime --cgroup-manager=disabled, a flag that runc has not");
    let p = Rootless::new(t);
    life(&|args| p.call(args), &[], &|running| {
        let table = std::fs::read_to_string(format!("/proc/{}/cgroup", running.pid)).expect("a process");
        assert!(!table.contains(&running.id), "no cgroup of its own: {table}");
        assert!(host::cgroups_named(&running.id).is_empty());
    });
}

fn rootless_nocgroup_v2(t: &Test) {
    place::needs_v2();
    life_without_cgroups(t);
}

fn rootless_nocgroup_v1(t: &Test) {
    place::needs_v1();
    life_without_cgroups(t);
}
