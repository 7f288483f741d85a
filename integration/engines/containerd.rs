//! containerd: started by the test, driven by its own `ctr`, with the runtime under test behind its shim.

use super::machine;
use super::place::{self, Manager};
use crate::support::{Call, Out, Test, cases, os, pty, runtime};
use std::fs::{self, File};
use std::io::Read;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

cases![run, run_of_what_cannot_run, run_on_a_terminal, settings, run_detached, exec, kill_and_delete, oom];

const IMAGE: &str = "localhost/tools:latest";

/// A containerd with root, state and sockets of its own; dropping it ends it and removes all that it held, and fails
/// the test if the runtime left anything.
pub struct Containerd<'t> {
    test: &'t Test,
    manager: Manager,
    daemon: Child,
    ctr: String,
    home: PathBuf,
    socket: String,
    snapshotter: &'static str,
}

impl<'t> Containerd<'t> {
    /// Starts it and imports the image.
    pub fn new(test: &'t Test) -> Containerd<'t> {
        Containerd::under(test, Manager::Cgroupfs)
    }

    /// As `new`, with this manager for the cgroups.
    pub fn under(test: &'t Test, manager: Manager) -> Containerd<'t> {
        let (program, ctr) = (machine::program("containerd"), machine::program("ctr"));
        let home = test.dir().join("containerd");
        let socket = home.join("socket").display().to_string();
        let daemon = serve(test, &program, &home);
        let snapshotter = machine::driver(&home, "overlayfs", "native");
        let containerd = Containerd { test, manager, daemon, ctr, home, socket, snapshotter };
        let image = archive(test);
        let flags = ["images", "import", "--snapshotter", snapshotter, image.to_str().expect("a path")];
        containerd.ctr(&flags).ok();
        containerd
    }

    /// A call of `ctr`.
    pub fn ctr(&self, args: &[&str]) -> Call<'t> {
        Call::of(self.test, &[&[self.ctr.as_str(), "--address", &self.socket], args].concat()).patient()
    }

    /// `ctr run` of a container with these flags.
    pub fn run(&self, flags: &[&str], name: &str, command: &[&str]) -> Call<'t> {
        let runtime = runtime::under_test().path.display().to_string();
        let root = self.test.root().display().to_string();
        let (cgroup, manager) = match self.manager {
            Manager::Cgroupfs => (format!("/{}/container-{name}", self.test.id()), [].as_slice()),
            Manager::Systemd => {
                (format!("{}:ctr:{name}", place::slice(self.test)), ["--runc-systemd-cgroup"].as_slice())
            }
        };
        let ours = ["--runc-binary", &runtime, "--runc-root", &root, "--cgroup", &cgroup];
        let ours = [ours.as_slice(), manager, &["--snapshotter", self.snapshotter]].concat();
        self.ctr(&[&["run"], ours.as_slice(), flags, &[IMAGE, name], command].concat())
    }

    /// Runs a command in the foreground to its end.
    pub fn foreground(&self, flags: &[&str], command: &[&str]) -> Out {
        self.run(&[&["--rm"], flags].concat(), "web", command).out()
    }

    /// Starts a container that lives until it is killed.
    #[track_caller]
    pub fn detached(&self, command: &[&str]) {
        self.run(&["--detach"], "web", command).ok();
    }

    /// `ctr task exec`.
    pub fn exec(&self, number: &str, flags: &[&str], command: &[&str]) -> Call<'t> {
        self.ctr(&[&["task", "exec", "--exec-id", number], flags, &["web"], command].concat())
    }

    /// A task's line in `ctr task ls`: its pid and its status.
    #[track_caller]
    pub fn task(&self) -> (i32, String) {
        let list = self.ctr(&["task", "ls"]).ok().stdout;
        let line = list.lines().find(|line| line.starts_with("web ")).unwrap_or_else(|| panic!("no task: {list}"));
        let words: Vec<&str> = line.split_whitespace().collect();
        (words[1].parse().expect("a pid"), words[2].to_string())
    }

    /// Kills the container, and waits for its end, which containerd hears of from the shim.
    #[track_caller]
    pub fn kill(&self) {
        let (pid, _) = self.task();
        let init = os::pidfd(pid).expect("a pidfd");
        self.ctr(&["task", "kill", "--signal", "KILL", "web"]).ok();
        assert!(os::readable(&init, os::PATIENCE), "the container does not end");
    }
}

/// Only what the tests need: no CRI, no snapshotter that looks for devices.
fn configuration(home: &std::path::Path) -> String {
    let at = |name: &str| home.join(name).display().to_string();
    let off =
        ["grpc.v1.cri", "snapshotter.v1.btrfs", "snapshotter.v1.zfs", "snapshotter.v1.devmapper", "internal.v1.opt"];
    let off: Vec<String> = off.iter().map(|name| format!("\"io.containerd.{name}\"")).collect();
    format!(
        "version = 2\nroot = \"{}\"\nstate = \"{}\"\ndisabled_plugins = [{}]\n\
        [grpc]\naddress = \"{}\"\n[ttrpc]\naddress = \"{}\"\n",
        at("root"),
        at("state"),
        off.join(", "),
        at("socket"),
        at("socket.ttrpc")
    )
}

/// Starts the daemon in a new directory, where its socket is, and waits until it says that it serves.
pub fn serve(test: &Test, program: &str, home: &std::path::Path) -> Child {
    fs::create_dir(home).expect("containerd's directory");
    fs::write(home.join("config.toml"), configuration(home)).expect("config.toml");
    let (read, write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).expect("a pipe");
    let mut daemon = Command::new(program)
        .arg("--config")
        .arg(home.join("config.toml"))
        .env("BRIG_TEST", test.id())
        .env("TMPDIR", home)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(write)
        .spawn()
        .expect("containerd");
    let mut log = File::from(read);
    let mut said = Vec::new();
    while !String::from_utf8_lossy(&said).contains("successfully booted") {
        let mut piece = [0; 4096];
        let length = if os::readable(&log, os::PATIENCE) { log.read(&mut piece).unwrap_or(0) } else { 0 };
        if length == 0 {
            let _ = daemon.kill();
            let _ = daemon.wait();
            panic!("containerd does not start: {}", String::from_utf8_lossy(&said));
        }
        said.extend(&piece[..length]);
    }
    // Somebody has to go on reading, or it stops at a full pipe.
    let file = home.join("log");
    std::thread::spawn(move || File::create(file).and_then(|mut file| std::io::copy(&mut log, &mut file)));
    daemon
}

/// The image as an archive that docker would write: one layer, a configuration, a manifest.
fn archive(test: &Test) -> PathBuf {
    let dir = test.dir().join("archive");
    fs::create_dir(&dir).expect("a directory for the archive");
    fs::copy(machine::image(test), dir.join("layer.tar")).expect("the layer");
    let sum = Call::of(test, &["sha256sum", dir.join("layer.tar").to_str().expect("a path")]).ok();
    let sum = sum.stdout.split_whitespace().next().expect("a checksum").to_string();
    let machine = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let config = format!(
        r#"{{"architecture":"{machine}","os":"linux","config":{{"Env":["PATH=/bin"],"Cmd":["sh"]}},
        "rootfs":{{"type":"layers","diff_ids":["sha256:{sum}"]}}}}"#
    );
    fs::write(dir.join("config.json"), config).expect("the configuration");
    let manifest = format!(r#"[{{"Config":"config.json","RepoTags":["{IMAGE}"],"Layers":["layer.tar"]}}]"#);
    fs::write(dir.join("manifest.json"), manifest).expect("the manifest");
    let archive = test.dir().join("archive.tar");
    let (from, to) = (dir.display().to_string(), archive.display().to_string());
    Call::of(test, &["tar", "-C", &from, "-cf", &to, "."]).ok();
    archive
}

impl Drop for Containerd<'_> {
    fn drop(&mut self) {
        let mut left = Vec::new();
        let tasks = self.ctr(&["task", "ls", "--quiet"]).out().stdout;
        for task in tasks.lines() {
            self.ctr(&["task", "delete", "--force", task]).out();
        }
        let containers = self.ctr(&["container", "ls", "--quiet"]).out().stdout;
        for container in containers.lines() {
            let out = self.ctr(&["container", "delete", container]).out();
            if out.code != 0 {
                left.push(format!("container {container}: {}", out.stderr.trim()));
            }
        }
        os::kill(self.daemon.id().cast_signed(), libc::SIGTERM);
        let _ = self.daemon.wait();
        left.extend(machine::processes_left(self.test.id()));
        machine::end_processes(self.test.id());
        machine::reap_monitors();
        left.extend(match self.manager {
            Manager::Cgroupfs => machine::cgroups_left(self.test.id(), |name| name.starts_with("container-")),
            Manager::Systemd => place::scopes_in(self.test, None, &place::slice(self.test)),
        });
        if self.manager == Manager::Systemd {
            place::stop_slice(self.test, None, &place::slice(self.test));
        }
        left.extend(machine::mounts_left(&self.home));
        for namespace in fs::read_dir(self.test.root()).into_iter().flatten().flatten() {
            let states = fs::read_dir(namespace.path()).into_iter().flatten().flatten();
            left.extend(states.map(|entry| format!("state {}", entry.path().display())));
        }
        machine::remove_cgroups(self.test.id());
        machine::remove_mounts(&self.home);
        if !std::thread::panicking() {
            assert!(left.is_empty(), "left behind: {}", left.join("; "));
        }
    }
}

fn run(t: &Test) {
    let c = Containerd::new(t);
    assert_eq!(c.foreground(&[], &["echo", "hello"]).ok().stdout, "hello\n");
    c.foreground(&[], &["sh", "-c", "exit 42"]).code(42);
    assert_eq!(c.ctr(&["container", "ls", "--quiet"]).ok().stdout, "");
}

fn run_of_what_cannot_run(t: &Test) {
    let c = Containerd::new(t);
    let missing = c.foreground(&[], &["no-such-program"]);
    assert_ne!(missing.code, 0);
    assert!(missing.stderr.contains("OCI runtime create failed"), "{}", missing.stderr);
    assert!(missing.stderr.contains("no-such-program"), "{}", missing.stderr);
    let refused = c.foreground(&[], &["/etc/passwd"]);
    assert_ne!(refused.code, 0);
    assert!(refused.stderr.to_lowercase().contains("permission denied"), "{}", refused.stderr);
}

/// A call of ctr on a terminal: types a line, and gives all that is shown.
fn on_a_terminal(call: Call<'_>) -> String {
    let (master, slave) = pty::terminal(31, 77);
    let call = call.stdin(slave.try_clone().expect("a descriptor")).stdout(slave);
    // SAFETY: two system calls.
    let running = unsafe { call.before(pty::lead_session) }.spawn();
    pty::type_in(&master, b"typed\n");
    let mut shown = Vec::new();
    // When nobody has the other end open any more, reading fails.
    let _ = File::from(master).read_to_end(&mut shown);
    running.wait().ok();
    // ctr's raw mode leaves output processing on, and so a line ends in two carriage returns.
    String::from_utf8_lossy(&shown).replace('\r', "")
}

/// What a terminal is used for.
const ON_A_TERMINAL: &str = "read line; echo got $line; tty; echo end";

fn run_on_a_terminal(t: &Test) {
    let c = Containerd::new(t);
    let shown = on_a_terminal(c.run(&["--rm", "--tty"], "web", &["sh", "-c", ON_A_TERMINAL]));
    for wanted in ["got typed\n", "/dev/pts/0\n", "end\n"] {
        assert!(shown.contains(wanted), "no {wanted:?} in {shown:?}");
    }
}

fn settings(t: &Test) {
    let c = Containerd::new(t);
    let limits = ["--memory-limit", "67108864", "--read-only", "--seccomp", "--env", "A=b", "--cwd", "/tmp"];
    let look =
        "cat /proc/self/cgroup | grep -c /container-web; echo $A; pwd; touch /file; grep Seccomp: /proc/self/status";
    let out = c.foreground(&limits, &["sh", "-c", look]).ok();
    let lines: Vec<&str> = out.stdout.lines().collect();
    assert_ne!(lines[0], "0", "the cgroup has the name that was asked for");
    assert_eq!(lines[1..], ["b", "/tmp", "Seccomp:\t2"]);
    assert!(out.stderr.contains("Read-only file system"), "{}", out.stderr);
}

fn run_detached(t: &Test) {
    let c = Containerd::new(t);
    c.detached(&["sleep", "1000"]);
    let (pid, status) = c.task();
    assert_eq!(status, "RUNNING");
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    assert!(status.contains(&format!("NSpid:\t{pid}\t1\n")), "{status}");
    c.kill();
}

fn exec(t: &Test) {
    let c = Containerd::new(t);
    c.detached(&["sleep", "1000"]);
    let namespaces = "for n in ipc mnt net pid uts; do readlink /proc/$P/ns/$n; done; cat /proc/$P/cgroup";
    let of = |number: &str, pid: &str| {
        let script = format!("P={pid}; {namespaces}");
        c.exec(number, &[], &["sh", "-c", &script]).ok().stdout
    };
    assert_eq!(of("zero", "1"), of("one", "self"));
    c.exec("two", &[], &["sh", "-c", "exit 5"]).out().code(5);
    let out = c.exec("three", &["--cwd", "/tmp", "--user", "1000:2000"], &["sh", "-c", "pwd; id -u; id -g"]).ok();
    assert_eq!(out.stdout, "/tmp\n1000\n2000\n");
    let missing = c.exec("four", &[], &["no-such-program"]).out();
    assert_ne!(missing.code, 0);
    assert!(missing.stderr.contains("no-such-program"), "{}", missing.stderr);
    let shown = on_a_terminal(c.exec("five", &["--tty"], &["sh", "-c", ON_A_TERMINAL]));
    for wanted in ["got typed\n", "/dev/pts/0\n", "end\n"] {
        assert!(shown.contains(wanted), "no {wanted:?} in {shown:?}");
    }
}

fn kill_and_delete(t: &Test) {
    let c = Containerd::new(t);
    c.detached(&["sleep", "1000"]);
    let refused = c.ctr(&["task", "delete", "web"]).out();
    assert_ne!(refused.code, 0, "what runs is not deleted");
    c.kill();
    let deleted = c.ctr(&["task", "delete", "web"]).ok();
    assert!(deleted.stderr.contains("exit code 137"), "{}", deleted.stderr);
    c.ctr(&["container", "delete", "web"]).ok();
    assert_eq!(c.ctr(&["task", "ls", "--quiet"]).ok().stdout, "");
}

fn oom(t: &Test) {
    let c = Containerd::new(t);
    let hungry = ["dd", "if=/dev/zero", "of=/dev/null", "bs=200M", "count=1"];
    c.foreground(&["--memory-limit", "25165824"], &hungry).code(137);
}
