//! podman: a container's life: run, exec, logs, stop, kill, rm, cp, pods, and how each of these ends.

use super::podman::{IMAGE, Podman};
use super::{machine, place};
use crate::support::{Test, cases, os, pty, suite};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::os::fd::OwnedFd;

cases![
    run_rm,
    run_reads_standard_input,
    run_on_a_terminal,
    run_passes_on_the_exit_status,
    run_of_what_cannot_run,
    errors_from_the_log,
    run_detached_and_logs,
    exec,
    exec_of_what_cannot_run,
    exec_on_a_terminal,
    stop,
    stop_of_one_that_ignores_it,
    restart,
    kill,
    rm,
    cp,
    init,
    pod,
    oom,
];

/// A script whose end is a signal: it says that it is ready, so that a test can wait for its traps to be set.
const TRAPS: &str =
    "trap 'echo usr1' USR1; trap 'echo term; exit 3' TERM; echo ready; while :; do sleep 100 & wait; done";

/// Waits until a container has said this.
#[track_caller]
fn says(p: &Podman, name: &str, word: &str) {
    let (read, write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).expect("a pipe");
    let follow = p.call(&["logs", "--follow", name]).stdout(write).spawn();
    let mut log = BufReader::new(File::from(read));
    let mut line = String::new();
    while line.trim() != word {
        line.clear();
        let more = !log.buffer().is_empty() || os::readable(log.get_ref(), os::PATIENCE);
        assert!(more && log.read_line(&mut line).expect("the log") > 0, "{name} does not say {word}");
    }
    follow.kill();
}

fn run_rm(t: &Test) {
    let p = Podman::new(t);
    let out = p.run(&[], &["echo", "hello"]).ok();
    assert_eq!((out.stdout.as_str(), out.stderr.as_str()), ("hello\n", ""));
    assert_eq!(p.call(&["ps", "--all", "--quiet"]).ok().stdout, "");
}

fn run_reads_standard_input(t: &Test) {
    let p = Podman::new(t);
    let input = t.dir().join("input");
    fs::write(&input, "one\ntwo\n").unwrap();
    let out = p.call(&p.run_args(&["--rm", "--interactive"], &["wc", "-l"])).stdin(File::open(&input).unwrap()).ok();
    assert_eq!(out.stdout.trim(), "2");
}

/// Runs a call of podman on a terminal of 31 rows and 77 columns, types a line, and gives all that is shown.
fn on_a_terminal(p: &Podman, args: &[&str], typed: &str) -> String {
    let (master, slave) = pty::terminal(31, 77);
    let call = p.call(args).stdin(slave.try_clone().unwrap()).stdout(slave);
    // SAFETY: two system calls.
    let running = unsafe { call.before(pty::lead_session) }.spawn();
    pty::type_in(&master, typed.as_bytes());
    let shown = until_hung_up(master);
    running.wait().ok();
    shown
}

/// What is shown on a terminal until nobody has its other end open, which reading reports as an error.
fn until_hung_up(master: OwnedFd) -> String {
    let mut shown = Vec::new();
    let _ = File::from(master).read_to_end(&mut shown);
    String::from_utf8_lossy(&shown).into_owned()
}

fn run_on_a_terminal(t: &Test) {
    let p = Podman::new(t);
    let script = "read line; echo got $line; tty; stty size; echo end";
    let shown = on_a_terminal(&p, &p.run_args(&["--rm", "-it"], &["sh", "-c", script]), "typed\n");
    for wanted in ["got typed\r\n", "/dev/pts/0\r\n", "31 77\r\n", "end\r\n"] {
        assert!(shown.contains(wanted), "no {wanted:?} in {shown:?}");
    }
}

fn run_passes_on_the_exit_status(t: &Test) {
    let p = Podman::new(t);
    for code in [0, 1, 42, 255] {
        p.run(&[], &["sh", "-c", &format!("exit {code}")]).code(code);
    }
    // A signal that the container's init sends to itself: 128 and its number.
    p.run(&["--init"], &["sh", "-c", "kill -9 $$"]).code(137);
}

fn run_of_what_cannot_run(t: &Test) {
    let p = Podman::new(t);
    p.run(&["--no-such-flag"], &["true"]).code(125);
    let refused = p.run(&[], &["/etc/passwd"]).code(126);
    assert!(refused.stderr.contains("permission denied"), "{}", refused.stderr);
    let missing = p.run(&[], &["no-such-program"]).code(127);
    assert!(missing.stderr.contains("no-such-program"), "{}", missing.stderr);
    p.run(&[], &["/no/such/program"]).code(127);
    // Any other failure of the runtime is 126, and its reason has to reach the user.
    let setting = p.run(&["--sysctl", "kernel.shm_rmid_forced=nonsense"], &["true"]).code(126);
    assert!(setting.stderr.contains("shm_rmid_forced"), "{}", setting.stderr);
}

/// podman asks a runtime for a log in JSON only if its configuration has the runtime's name; then its messages are read
/// from there, not from standard error.
fn errors_from_the_log(t: &Test) {
    let p = Podman::with(t, "runtime_supports_json = [\"brig\", \"crun\", \"runc\"]");
    assert!(p.run(&[], &["/etc/passwd"]).code(126).stderr.contains("permission denied"));
    assert!(p.run(&[], &["no-such-program"]).code(127).stderr.contains("no-such-program"));
    let setting = p.run(&["--sysctl", "kernel.shm_rmid_forced=nonsense"], &["true"]).code(126);
    assert!(setting.stderr.contains("shm_rmid_forced"), "{}", setting.stderr);
    assert!(!setting.stderr.contains("{\""), "the message, not the line: {}", setting.stderr);
    p.start("web", &[], &["sleep", "1000"]);
    p.call(&["exec", "web", "/etc/passwd"]).out().code(126);
    p.call(&["exec", "web", "no-such-program"]).out().code(127);
}

fn run_detached_and_logs(t: &Test) {
    let p = Podman::new(t);
    p.start("web", &[], &["sh", "-c", "echo out; echo err >&2; echo ready; sleep 1000; true"]);
    says(&p, "web", "ready");
    assert_eq!(p.inspect("web", "State.Status"), "running");
    assert_eq!(p.inspect("web", "OCIRuntime"), machine::runtime_for_all().display().to_string());
    let logs = p.call(&["logs", "web"]).ok();
    assert_eq!(logs.stdout, "out\nready\n");
    assert_eq!(logs.stderr, "err\n");
    assert!(p.call(&["ps"]).ok().stdout.contains("Up "));
    let pid = p.pid("web");
    assert_eq!(fs::read_to_string(format!("/proc/{pid}/comm")).unwrap(), "sh\n");
}

fn exec(t: &Test) {
    let p = Podman::new(t);
    p.start("web", &["--env", "FROM_RUN=1"], &["sleep", "1000"]);
    assert_eq!(p.exec("web", "echo $FROM_RUN"), "1\n");
    let flags = ["exec", "--env", "A=b c", "--workdir", "/tmp", "--user", "1000:2000"];
    let out = p.call(&[flags.as_slice(), &["web", "sh", "-c", "echo $A; pwd; id -u; id -g"]].concat()).ok();
    assert_eq!(out.stdout, "b c\n/tmp\n1000\n2000\n");
    p.call(&["exec", "web", "sh", "-c", "exit 9"]).out().code(9);
    p.call(&["exec", "web", "sh", "-c", "kill -9 $$"]).out().code(137);

    let input = t.dir().join("input");
    fs::write(&input, "one\ntwo\n").unwrap();
    let out = p.call(&["exec", "--interactive", "web", "wc", "-l"]).stdin(File::open(&input).unwrap()).ok();
    assert_eq!(out.stdout.trim(), "2");

    // The detached process makes a FIFO's other end, and so says when it is there.
    p.exec("web", "mkfifo /tmp/fifo");
    p.call(&["exec", "--detach", "web", "sh", "-c", "echo detached > /tmp/fifo"]).ok();
    assert_eq!(p.exec("web", "cat /tmp/fifo"), "detached\n");

    // It joins every namespace and cgroup of the container.
    let namespaces = "for n in cgroup ipc mnt net pid uts; do readlink /proc/$P/ns/$n; done; cat /proc/$P/cgroup";
    let of = |pid: &str| p.exec("web", &format!("P={pid}; {namespaces}"));
    assert_eq!(of("self"), of("1"));
}

fn exec_of_what_cannot_run(t: &Test) {
    let p = Podman::new(t);
    p.start("web", &[], &["sleep", "1000"]);
    p.call(&["exec", "web", "/etc/passwd"]).out().code(126);
    p.call(&["exec", "web", "no-such-program"]).out().code(127);
    p.call(&["exec", "--no-such-flag", "web", "true"]).out().code(125);
    p.call(&["stop", "--time", "0", "web"]).ok();
    let stopped = p.call(&["exec", "web", "true"]).out().code(255);
    assert!(stopped.stderr.contains("container state improper"), "{}", stopped.stderr);
}

fn exec_on_a_terminal(t: &Test) {
    let p = Podman::new(t);
    p.start("web", &[], &["sleep", "1000"]);
    let script = "read line; echo got $line; tty; stty size; echo end";
    let shown = on_a_terminal(&p, &["exec", "-it", "web", "sh", "-c", script], "typed\n");
    for wanted in ["got typed\r\n", "/dev/pts/0\r\n", "31 77\r\n", "end\r\n"] {
        assert!(shown.contains(wanted), "no {wanted:?} in {shown:?}");
    }
}

fn stop(t: &Test) {
    let p = Podman::new(t);
    p.start("web", &[], &["sh", "-c", TRAPS]);
    says(&p, "web", "ready");
    p.call(&["stop", "web"]).ok();
    assert_eq!(p.inspect("web", "State.Status"), "exited");
    assert_eq!(p.inspect("web", "State.ExitCode"), "3");
    assert_eq!(p.call(&["logs", "web"]).ok().stdout, "ready\nterm\n");

    assert_eq!(p.wait("web"), 3);
}

fn stop_of_one_that_ignores_it(t: &Test) {
    let p = Podman::new(t);
    p.start("web", &[], &["sleep", "1000"]);
    p.call(&["stop", "--time", "1", "web"]).ok();
    assert_eq!(p.inspect("web", "State.ExitCode"), "137");
}

fn restart(t: &Test) {
    let p = Podman::new(t);
    p.start("web", &[], &["sleep", "1000"]);
    let first = p.pid("web");
    p.exec("web", "echo kept > /root/file");
    p.call(&["restart", "--time", "0", "web"]).ok();
    assert_ne!(p.pid("web"), first);
    p.call(&["stop", "--time", "0", "web"]).ok();
    p.call(&["start", "web"]).ok();
    assert_eq!(p.exec("web", "cat /root/file"), "kept\n");
}

fn kill(t: &Test) {
    let p = Podman::new(t);
    p.start("web", &[], &["sh", "-c", TRAPS]);
    says(&p, "web", "ready");
    p.call(&["kill", "--signal", "USR1", "web"]).ok();
    says(&p, "web", "usr1");
    assert_eq!(p.inspect("web", "State.Status"), "running");
    p.call(&["kill", "web"]).ok();
    assert_eq!(p.wait("web"), 137);
    let gone = p.call(&["kill", "web"]).out();
    assert_ne!(gone.code, 0);
    assert!(gone.stderr.contains("running"), "{}", gone.stderr);
}

fn rm(t: &Test) {
    let p = Podman::new(t);
    let id = p.start("web", &[], &["sleep", "1000"]);
    let state = machine::default_root(t).join(&id);
    assert!(state.exists(), "{}", state.display());
    let refused = p.call(&["rm", "web"]).out().code(2);
    assert!(refused.stderr.contains("running"), "{}", refused.stderr);
    p.call(&["rm", "--force", "--time", "0", "web"]).ok();
    p.call(&["container", "exists", "web"]).out().code(1);
    assert!(!state.exists(), "{}", state.display());
    assert_eq!(machine::cgroups_left(t.id(), |name| name.contains(&id)), Vec::<String>::new());

    p.call(&["create", "--cgroup-parent", &p.parent, "--name", "web", IMAGE, "true"]).ok();
    p.call(&["rm", "web"]).ok();
}

fn cp(t: &Test) {
    let p = Podman::new(t);
    p.start("web", &["--tmpfs", "/mnt"], &["sleep", "1000"]);
    let (to, from) = (t.dir().join("to"), t.dir().join("from"));
    fs::write(&to, "in\n").unwrap();
    let paths = (to.to_str().unwrap(), from.to_str().unwrap());
    p.call(&["cp", paths.0, "web:/tmp/file"]).ok();
    assert_eq!(p.exec("web", "cat /tmp/file; echo out >> /tmp/file"), "in\n");
    p.call(&["cp", "web:/tmp/file", paths.1]).ok();
    assert_eq!(fs::read_to_string(&from).unwrap(), "in\nout\n");
    // Into a mount that only the container has: podman enters its namespaces.
    p.call(&["cp", paths.0, "web:/mnt/file"]).ok();
    assert_eq!(p.exec("web", "cat /mnt/file"), "in\n");
}

fn init(t: &Test) {
    machine::program("catatonit");
    let p = Podman::new(t);
    let script = "cat /proc/1/comm; (sh -c 'exit 0' & ); (sleep 0 &); exit 6";
    let out = p.run(&["--init"], &["sh", "-c", script]).code(6);
    assert_ne!(out.stdout, "sh\n", "pid 1 is the init that podman brings");
}

fn pod(t: &Test) {
    if place::is_v2() {
        suite::skip(
            "on cgroup v2, podman's cgroupfs manager denies a pod's containers every device, whatever the runtime",
        );
    }
    let p = Podman::new(t);
    machine::program("catatonit");
    let share = ["--share", "net,ipc,uts,pid", "--network", "none"];
    p.call(&[["pod", "create", "--name", "pod", "--cgroup-parent", &p.parent].as_slice(), &share].concat()).ok();
    let join = ["run", "--detach", "--pod", "pod", "--name", "web", IMAGE, "sh", "-c", "hostname; sleep 1000"];
    p.call(&join).ok();
    let namespaces = "for n in net ipc uts pid; do readlink /proc/self/ns/$n; done; readlink /proc/self/ns/mnt";
    let web = p.exec("web", namespaces);
    let look = format!("hostname; {namespaces}; ps");
    let out = p.call(&["run", "--rm", "--pod", "pod", IMAGE, "sh", "-c", &look]).ok().stdout;
    let lines: Vec<&str> = out.lines().collect();
    let other: Vec<&str> = web.lines().collect();
    assert_eq!(lines[0], "pod", "the pod's name is the host name that all share");
    assert_eq!(lines[1..5], other[..4], "the namespaces that the pod shares");
    assert_ne!(lines[5], other[4], "mounts are not among them");
    assert!(out.contains("sleep 1000"), "the other's processes are seen: {out}");
    p.call(&["pod", "stop", "--time", "1", "pod"]).ok();
    assert_eq!(p.inspect("web", "State.Status"), "exited");
    p.call(&["pod", "rm", "pod"]).ok();
}

/// podman 4.3 looks for conmon's note of an OOM kill in the container's directory, while conmon 2.1.6 leaves it in its
/// working directory, which is podman's. Started from the container's directory, they agree, and what is tested is
/// whether conmon finds the container's memory cgroup.
fn oom(t: &Test) {
    let p = Podman::new(t);
    let hungry = ["dd", "if=/dev/zero", "of=/dev/null", "bs=200M", "count=1"];
    let flags = ["--name", "web", "--memory", "24m", "--memory-swap", "24m"];
    let create = [["create", "--cgroup-parent", &p.parent].as_slice(), &flags, &[IMAGE], &hungry].concat();
    p.call(&create).ok();
    let home = p.inspect("web", "StaticDir");
    p.call(&["start", "--attach", "web"]).cwd(home.as_ref()).out().code(137);
    assert_eq!(p.inspect("web", "State.ExitCode"), "137");
    assert_eq!(p.inspect("web", "State.OOMKilled"), "true");
}
