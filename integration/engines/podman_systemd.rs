//! podman and systemd: units that podman writes, containers in their caller's unit, systemd's way of being an init, and
//! the timers of health checks.

use super::place::{self, UnitFile, User};
use super::podman::{IMAGE, Podman};
use crate::support::{Call, Test, cases, suite};
use std::fs;
use std::path::Path;

cases![
    generated_unit,
    generated_unit_of_a_user,
    container_that_notifies,
    split_cgroups,
    container_of_systemds,
    container_of_systemds_rootless,
    health_check,
];

/// The lines of a unit that give podman the test's configuration in place of the host's.
fn environment(t: &Test, p: &Podman) -> String {
    let own = p.environment().iter().map(|(key, value)| format!("Environment={key}={value}\n"));
    format!("[Service]\n{}Environment=BRIG_TEST={}\n", own.collect::<String>(), t.id())
}

/// The name of a unit of this test's.
fn unit(t: &Test, kind: &str) -> String {
    format!("{}.{kind}", t.id())
}

/// The unit of `podman generate systemd --new` is started, restarted and stopped: the container comes and goes with it.
fn generated(t: &Test, user: Option<&User>) {
    let p = Podman::under_systemd(t, user);
    let flags = ["create", "--name", "web", "--cgroup-parent", &p.parent, "--memory", "64m"];
    let script = "trap 'exit 0' TERM; while :; do sleep 100 & wait; done";
    p.call(&[flags.as_slice(), &[IMAGE, "sh", "-c", script]].concat()).ok();
    let text = p.call(&["generate", "systemd", "--new", "--name", "web"]).ok().stdout;
    p.call(&["rm", "web"]).ok();
    let text = text.replace("[Service]\n", &environment(t, &p));
    let unit = unit(t, "service");
    let file = UnitFile::new(t, user, &unit, false, &text);

    file.systemctl(&["start", &unit]).ok();
    assert_eq!(file.property("ActiveState"), "active");
    let look = |p: &Podman| p.inspect("web", "State.Status}} {{.State.ConmonPid}} {{.State.Pid}} {{.Id");
    let first = look(&p);
    let words: Vec<&str> = first.split(' ').collect();
    assert_eq!((words[0], words[1]), ("running", file.property("MainPID").as_str()));
    let cgroup = place::cgroup_of(words[2].parse().expect("a pid"));
    assert!(cgroup.contains(&format!("/{}/libpod-{}.scope", p.parent, words[3])), "{cgroup}");

    file.systemctl(&["restart", &unit]).ok();
    let second = look(&p);
    assert!(second.starts_with("running ") && second != first, "{second}");
    file.systemctl(&["stop", &unit]).ok();
    assert_eq!(file.property("ActiveState"), "inactive");
    p.call(&["container", "exists", "web"]).out().code(1);
    assert_eq!(place::scopes_in(t, user, &p.parent), Vec::<String>::new(), "scopes are left");
}

fn generated_unit(t: &Test) {
    generated(t, None);
}

fn generated_unit_of_a_user(t: &Test) {
    generated(t, Some(&place::user()));
}

/// `podman run` as a unit of systemd's own making, which with `--sdnotify=container` is not up before the container has
/// said so, over the socket that the runtime passed on.
fn container_that_notifies(t: &Test) {
    let p = Podman::under_systemd(t, None);
    let payload = format!("{}:/tools/payload:ro", suite::scratch().join("payload").display());
    let data = t.dir().join("data");
    fs::create_dir(&data).unwrap();
    let (volume, fifo) = (format!("{}:/data", data.display()), data.join("fifo"));
    Call::of(t, &["mkfifo", fifo.to_str().expect("a path")]).ok();
    let unit = unit(t, "service");
    let by = ["systemd-run", "--collect", "--quiet", "--unit", &unit, "--property", "Type=notify"];
    let by = [by.as_slice(), &["--property", "NotifyAccess=all", "--property", "Delegate=yes"]].concat();
    let flags = ["--name", "web", "--sdnotify", "container", "--volume", &payload, "--volume", &volume];
    let command = ["/tools/payload", "read=/data/fifo", "notify=READY=1", "sleep"];
    let start = in_unit(&p, t, &by, &p.run_args(&flags, &command)).spawn();
    let state = || {
        let show = ["show", "--value", "--property", "ActiveState", &unit];
        place::systemctl(t, None, &show).ok().stdout.trim().to_string()
    };
    // Who opens this end of the FIFO knows that the container has the other.
    let gate = fs::OpenOptions::new().write(true).open(&fifo).expect("the FIFO");
    assert_eq!(state(), "activating");
    drop(gate);
    start.wait().ok();
    assert_eq!(state(), "active");
    assert_eq!(p.inspect("web", "State.Status"), "running");
    p.call(&["rm", "--force", "--time", "0", "web"]).ok();
    place::systemctl(t, None, &["stop", &unit]).out();
}

/// A call of podman by systemd-run, which has to be told of podman's environment.
fn in_unit<'t>(p: &Podman<'t>, t: &Test, by: &[&str], args: &[&str]) -> Call<'t> {
    let own = p.environment().iter().map(|(key, value)| format!("--setenv={key}={value}"));
    let own: Vec<String> = own.chain([format!("--setenv=BRIG_TEST={}", t.id())]).collect();
    let own: Vec<&str> = own.iter().map(String::as_str).collect();
    p.under(&[by, &own].concat(), args)
}

/// With `--cgroups=split` the container and its monitor are both in the unit that podman was called in.
fn split_cgroups(t: &Test) {
    let p = Podman::under_systemd(t, None);
    let unit = unit(t, "service");
    let by = ["systemd-run", "--collect", "--quiet", "--pipe", "--wait", "--unit", &unit, "--property", "Delegate=yes"];
    let flags = ["run", "--rm", "--cgroups", "split", "--cgroupns", "host", "--memory", "64m", IMAGE];
    let look = ["sh", "-c", "cat /proc/self/cgroup; cat /sys/fs/cgroup/$(cut -d: -f3 /proc/self/cgroup)/memory.max"];
    let out = in_unit(&p, t, &by, &[flags.as_slice(), &look].concat()).ok().stdout;
    let (cgroup, limit) = out.split_once('\n').expect("two lines");
    assert!(cgroup.starts_with(&format!("0::/system.slice/{unit}/libpod-payload-")), "{out}");
    assert_eq!(limit, "67108864\n");
    place::cgroup_goes(&Path::new("/sys/fs/cgroup/system.slice").join(&unit));
}

/// What systemd does as a container's init: it moves itself into a child of its cgroup, hands out controllers, and makes
/// cgroups for services.
const INIT: &str = "set -e; trap 'exit 7' 37; cd /sys/fs/cgroup; mkdir init.scope; echo $$ > init.scope/cgroup.procs; \
    echo '+memory +pids' > cgroup.subtree_control; mkdir web.service; echo 32 > web.service/pids.max; \
    rmdir web.service; echo $container > /run/made; mount | grep -c ' /run \\| /tmp ' >> /run/made; touch /run/ready; \
    while :; do sleep 100 & wait; done";

fn systemds(t: &Test, user: Option<&User>) {
    let p = Podman::under_systemd(t, user);
    p.start("web", &["--systemd", "always", "--memory", "64m"], &["sh", "-c", INIT]);
    let look = "until [ -e /run/ready ]; do sleep 0.1; done; cat /run/made /proc/1/cgroup; echo $(cat /sys/fs/cgroup/cgroup.controllers)";
    let out = p.exec("web", look);
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines[..3], ["podman", "2", "0::/init.scope"], "{out}");
    assert!(lines[3].contains("memory") && lines[3].contains("pids"), "{out}");
    // Its stop signal is systemd's, SIGRTMIN+3.
    p.call(&["stop", "web"]).ok();
    assert_eq!(p.inspect("web", "State.ExitCode"), "7");
    assert_eq!(place::scopes_in(t, user, &p.parent), Vec::<String>::new(), "scopes are left");
}

fn container_of_systemds(t: &Test) {
    systemds(t, None);
}

fn container_of_systemds_rootless(t: &Test) {
    systemds(t, Some(&place::user()));
}

/// A timer of systemd's calls podman, which calls the runtime for an exec. The check counts itself.
fn health_check(t: &Test) {
    let p = Podman::under_systemd(t, None);
    let check = "echo >> /checks; [ ! -e /sick ]";
    let flags = ["--name", "web", "--cgroup-parent", &p.parent, "--health-cmd", check, "--health-interval", "2s"];
    let flags = [&["create", "--health-retries", "1"], flags.as_slice()].concat();
    let id = p.call(&[&flags, [IMAGE, "sleep", "1000"].as_slice()].concat()).ok().stdout.trim().to_string();
    // The timer's unit has podman's name and the container's ID only, and not the test's configuration.
    let globals = p.globals().collect::<Vec<_>>().join(" ");
    let exec = format!("ExecStart=\nExecStart=/usr/bin/podman {globals} healthcheck run {id}\n");
    let service = format!("{id}.service");
    let _drop_in = UnitFile::new(t, None, &service, true, &(environment(t, &p) + &exec));
    p.call(&["start", "web"]).ok();
    let timer = format!("{id}.timer");
    let active = || place::systemctl(t, None, &["is-active", &timer]).out().stdout.trim().to_string();
    assert_eq!(active(), "active");
    p.exec("web", "until [ -e /checks ] && [ $(wc -l < /checks) -ge 3 ]; do sleep 0.2; done");
    p.call(&["healthcheck", "run", "web"]).ok();
    assert_eq!(p.inspect("web", "State.Health.Status"), "healthy");
    p.exec("web", "touch /sick");
    p.call(&["healthcheck", "run", "web"]).out().code(1);
    assert_eq!(p.inspect("web", "State.Health.Status"), "unhealthy");
    p.call(&["rm", "--force", "--time", "0", "web"]).ok();
    assert_eq!(active(), "inactive", "the timer is left");
}
