//! docker: a daemon of the test's own under each cgroup driver and in each cgroup mode, with the runtime under test as its
//! default.

use super::containerd;
use super::machine;
use super::place::{self, Manager};
use crate::support::{Call, Test, cases, os};
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

cases![rootful_cgroupfs_v1, rootful_cgroupfs_v2, rootful_systemd_v2];

const IMAGE: &str = "tools";

/// dockerd with data and sockets of its own, over a containerd of its own: the one that it would start itself has to be up
/// in 15 seconds. Dropping it ends both, and fails the test if the runtime left anything.
struct Docker<'t> {
    test: &'t Test,
    manager: Manager,
    daemon: Child,
    containerd: Child,
    client: String,
    home: PathBuf,
    address: String,
}

impl<'t> Docker<'t> {
    fn new(test: &'t Test, manager: Manager) -> Docker<'t> {
        let (program, client) = (machine::program("dockerd"), machine::program("docker"));
        let containerd = machine::program("containerd");
        let home = test.dir().join("docker");
        fs::create_dir(&home).expect("docker's directory");
        let address = format!("unix://{}", home.join("socket").display());
        let containerd = containerd::serve(test, &containerd, &home.join("containerd"));
        let daemon = serve(test, &program, manager, &home, &address);
        let docker = Docker { test, manager, daemon, containerd, client, home, address };
        let image = machine::image(test).display().to_string();
        docker.call(&["import", &image, IMAGE]).ok();
        docker
    }

    fn call(&self, args: &[&str]) -> Call<'t> {
        let words = [&[self.client.as_str(), "--host", &self.address], args].concat();
        Call::of(self.test, &words).env("HOME", &self.home.display().to_string()).patient()
    }

    #[track_caller]
    fn inspect(&self, name: &str, format: &str) -> String {
        self.call(&["inspect", "--format", format, name]).ok().stdout.trim().to_string()
    }
}

/// Starts the daemon without any network of its own, and waits until it says that it serves.
fn serve(test: &Test, program: &str, manager: Manager, home: &std::path::Path, address: &str) -> Child {
    let at = |name: &str| home.join(name).display().to_string();
    let parent = match manager {
        Manager::Cgroupfs => format!("/{}", test.id()),
        Manager::Systemd => place::slice(test),
    };
    let runtime = machine::runtime_for_all().display().to_string();
    let config = serde_json::json!({
        "data-root": at("data"), "exec-root": at("run"), "pidfile": at("pid"), "hosts": [address],
        "containerd": at("containerd/socket"),
        "bridge": "none", "iptables": false, "ip6tables": false, "ip-forward": false, "ip-masq": false,
        "storage-driver": machine::driver(home, "overlay2", "vfs"), "cgroup-parent": parent,
        "exec-opts": [format!("native.cgroupdriver={}", manager.name())],
        "runtimes": {"tested": {"path": runtime}}, "default-runtime": "tested",
    });
    fs::write(home.join("daemon.json"), config.to_string()).expect("daemon.json");
    let (read, write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).expect("a pipe");
    let mut daemon = Command::new(program)
        .args(["--config-file", &at("daemon.json")])
        .env("BRIG_TEST", test.id())
        .env("TMPDIR", home)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(write)
        .spawn()
        .expect("dockerd");
    let mut log = BufReader::new(File::from(read));
    let mut said = String::new();
    while !said.contains("API listen on") {
        let more = !log.buffer().is_empty() || os::readable(log.get_ref(), 4 * os::PATIENCE);
        if !more || log.read_line(&mut said).unwrap_or(0) == 0 {
            os::kill(daemon.id().cast_signed(), libc::SIGTERM);
            let _ = daemon.wait();
            panic!("dockerd does not start: {said}");
        }
    }
    // Somebody has to go on reading, or it stops at a full pipe.
    let file = home.join("log");
    std::thread::spawn(move || File::create(file).and_then(|mut file| std::io::copy(&mut log, &mut file)));
    daemon
}

impl Drop for Docker<'_> {
    fn drop(&mut self) {
        let mut left = Vec::new();
        for container in self.call(&["ps", "--all", "--quiet"]).out().stdout.lines() {
            let out = self.call(&["rm", "--force", container]).out();
            if out.code != 0 {
                left.push(format!("container {container}: {}", out.stderr.trim()));
            }
        }
        for daemon in [&mut self.daemon, &mut self.containerd] {
            os::kill(daemon.id().cast_signed(), libc::SIGTERM);
            let _ = daemon.wait();
        }
        left.extend(machine::processes_left(self.test.id()));
        machine::end_processes(self.test.id());
        machine::reap_monitors();
        left.extend(match self.manager {
            Manager::Cgroupfs => machine::cgroups_left(self.test.id(), |name| name.len() == 64),
            Manager::Systemd => place::scopes_in(self.test, None, &place::slice(self.test)),
        });
        left.extend(machine::entries(&self.home.join("run/runtime-runc/moby")));
        match self.manager {
            Manager::Cgroupfs => machine::remove_cgroups(self.test.id()),
            Manager::Systemd => place::stop_slice(self.test, None, &place::slice(self.test)),
        }
        machine::remove_mounts(&self.home);
        if !std::thread::panicking() {
            assert!(left.is_empty(), "left behind: {}", left.join("; "));
        }
    }
}

/// One container's life: run, limits, exec, inspect, pause, update, stats, top, stop, start, kill, rm.
fn life(t: &Test, manager: Manager) {
    let d = Docker::new(t, manager);
    let run = |flags: &[&str], script: &str| d.call(&[&["run"], flags, &[IMAGE, "sh", "-c", script]].concat());
    assert_eq!(run(&["--rm"], "echo hello; exit 42").out().code(42).stdout, "hello\n");
    let missing = d.call(&["run", "--rm", IMAGE, "no-such-program"]).out().code(127);
    assert!(missing.stderr.contains("no-such-program"), "{}", missing.stderr);
    d.call(&["run", "--rm", IMAGE, "/etc/passwd"]).out().code(126);

    let limits = ["--detach", "--name", "web", "--memory", "64m", "--memory-swap", "64m", "--pids-limit", "50"];
    let service = "trap 'exit 3' TERM; touch /ready; while :; do sleep 100 & wait; done";
    let id = run(&limits, service).ok().stdout.trim().to_string();
    let exec = |script: &str| d.call(&["exec", "web", "sh", "-c", script]).out();
    assert_eq!(exec("until [ -e /ready ]; do sleep 0.1; done; echo inside; exit 9").code(9).stdout, "inside\n");
    let pid: i32 = d.inspect("web", "{{.State.Pid}}").parse().expect("a pid");
    let table = fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("a process");
    let own = match manager {
        Manager::Systemd => format!("/{}/docker-{id}.scope", place::slice(t)),
        Manager::Cgroupfs => format!("/{}/{id}", t.id()),
    };
    assert!(table.contains(&own), "{table}");

    d.call(&["pause", "web"]).ok();
    assert_eq!(d.inspect("web", "{{.State.Status}}"), "paused");
    assert_ne!(exec("true").code, 0, "what is paused runs nothing");
    d.call(&["unpause", "web"]).ok();
    d.call(&["update", "--memory", "100m", "--memory-swap", "100m", "--cpus", "0.25", "web"]).ok();
    if place::is_v2() {
        let limits = "cd /sys/fs/cgroup; cat memory.max pids.max cpu.max";
        assert_eq!(exec(limits).ok().stdout, "104857600\n50\n25000 100000\n");
    }
    let stats = d.call(&["stats", "--no-stream", "--format", "{{.PIDs}} {{.MemUsage}}", "web"]).ok().stdout;
    assert!(stats.starts_with("2 ") && stats.trim_end().ends_with("/ 100MiB"), "{stats}");
    assert!(d.call(&["top", "web"]).ok().stdout.contains("sleep 100"));

    d.call(&["stop", "web"]).ok();
    assert_eq!(d.inspect("web", "{{.State.Status}} {{.State.ExitCode}}"), "exited 3");
    d.call(&["start", "web"]).ok();
    d.call(&["kill", "web"]).ok();
    assert_eq!(d.call(&["wait", "web"]).ok().stdout.trim(), "137");
    d.call(&["rm", "web"]).ok();

    let limits = ["--name", "hungry", "--memory", "24m", "--memory-swap", "24m"];
    // What is killed is not the last process: docker looks into memory.events when it is told of the kill, and systemd takes
    // an empty scope away.
    run(&limits, "dd if=/dev/zero of=/dev/null bs=200M count=1; code=$?; sleep 1; exit $code").out().code(137);
    assert_eq!(d.inspect("hungry", "{{.State.OOMKilled}}"), "true");
    d.call(&["rm", "hungry"]).ok();
}

fn rootful_cgroupfs_v1(t: &Test) {
    place::needs_v1();
    life(t, Manager::Cgroupfs);
}

fn rootful_cgroupfs_v2(t: &Test) {
    place::needs_v2();
    life(t, Manager::Cgroupfs);
}

fn rootful_systemd_v2(t: &Test) {
    place::needs_systemd_v2();
    life(t, Manager::Systemd);
}
