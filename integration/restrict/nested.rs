//! Ports, Landlock, sandboxes in sandboxes and in containers, and what is left of one that is killed.

use super::network::Server;
use super::*;
use crate::support::container::Lines;

pub(super) fn d_ports(t: &Test) {
    t.needs_threads();
    let p = Place::new(t);
    let mut servers = [(); 3].map(|()| Server::tcp("127.0.0.1:0"));
    servers.sort_by_key(|server| server.port);
    let [a, b, c] = [0, 1, 2].map(|n| servers[n].port);
    let verbs = [a, b, c].map(|port| format!("socks=1080:127.0.0.1:{port}"));
    let words = [0, 1, 2].map(|n| verbs[n].as_str());
    for (rule, open) in [
        (format!("127.0.0.1:{b}"), [false, true, false]),
        (format!("127.0.0.1:{a}-{b}"), [true, true, false]),
        (format!("localhost:{b}-65535"), [false, true, true]),
        ("127.0.0.1".into(), [true, true, true]),
    ] {
        let seen = p.see(&["--allow-domain", &rule], &words);
        assert_eq!(words.map(|verb| seen[verb] == json!({"ok": "pong"})), open, "{rule}: {seen}");
    }
    let deny = format!("127.0.0.1:{c}");
    let seen = p.see(&["--allow-domain", "127.0.0.1", "--deny-domain", &deny], &words);
    assert_eq!(words.map(|verb| seen[verb] == json!({"ok": "pong"})), [true, true, false], "{seen}");
    p.sh(&["--allow-domain", "127.0.0.1:70000"], "true").code(125).fails(&["no port"]);
}

/// Where there is Landlock, it alone keeps files when no namespace is to be had.
pub(super) fn d_landlock(t: &Test) {
    let p = Place::new(t);
    // SAFETY: LANDLOCK_CREATE_RULESET_VERSION takes no ruleset.
    let version = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, 0, 0, 1) };
    if version < 1 {
        suite::skip("this kernel has no Landlock");
    }
    let notes = |flags: &[&str]| p.report(flags, &["syscall=getppid"])["notes"].to_string();
    assert!(!notes(&[]).contains("Landlock"), "{}", notes(&[]));
    p.file("secret", "HIDDEN");
    p.file("free/x", "mine");
    let free = p.path("free");
    p.file("free/locked", "mine");
    p.file("free/sub/x", "mine");
    let flags = ["--profile", "unrestricted", "--net", "host", "--deny-read", "secret", "--allow-write", &free, "--deny-write", "free/locked"];
    // In the sandbox of an outer one that forbids namespaces, which is what a filter around does.
    own_brig(&p);
    let outer = ["--", "./brig", "--root", "/tmp/s", "sandbox", "run", "--json"];
    let verbs = ["--", "./payload", "read=secret", "read=free/x", "touch=free/x", "touch=free/sub/new", "touch=free/locked", "touch=z", "touch=/var/tmp/y"];
    let out = p.call(&outer).args(&flags).args(&verbs).out();
    let report = out.json();
    assert_eq!(report["mode"], "confined", "{report}");
    let seen: Value = serde_json::from_str(report["stdout"]["text"].as_str().unwrap()).unwrap();
    assert_eq!(seen["read=secret"], json!({"errno": "EACCES"}), "{seen}");
    assert_eq!(seen["read=free/x"], json!({"ok": "mine"}), "{seen}");
    for verb in ["touch=free/x", "touch=free/sub/new", "touch=/var/tmp/y"] {
        assert_eq!(seen[verb], json!({"ok": true}), "{verb}: {seen}");
    }
    for verb in ["touch=free/locked", "touch=z"] {
        assert_eq!(seen[verb], json!({"errno": "EACCES"}), "{verb}: {seen}");
    }
    // Which costs new files beside it, and that is told.
    assert!(report["notes"].to_string().contains(&format!("{free} gets no new files")), "{report}");
}

/// A sandbox in a sandbox: the report of the inner one.
fn inner(p: &Place, outer: &[&str], flags: &[&str], verbs: &[&str]) -> Value {
    let words = ["--", "./brig", "--root", "/tmp/state", "sandbox", "run", "--json"];
    let out = p.call(outer).args(&words).args(flags).args(&["--", "./payload"]).args(verbs).out();
    let mut report = out.json();
    let text = report["stdout"]["text"].as_str().unwrap_or_default().to_owned();
    report["saw"] = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {report}{}", out.stderr));
    report
}

pub(super) fn d_nested(t: &Test) {
    super::needs_overlays_of_users();
    let p = Place::new(t);
    own_brig(&p);
    p.file("secret", "HIDDEN");
    let host = Server::tcp("127.0.0.1:0");
    let rule = format!("127.0.0.1:{}", host.port);
    let own = format!("tcp={rule}");
    let verbs = ["read=secret", "touch=made", "touch=/etc/x", "syscall=ptrace:0", &own, "syscall=getppid"];
    // Walls within walls.
    let report = inner(&p, &["--profile", "unrestricted", "--no-landlock"], &["--deny-read", "secret"], &verbs);
    let seen = &report["saw"];
    assert_eq!(report["mode"], "user_namespace", "{report}");
    assert!(!seen.to_string().contains("HIDDEN") && seen["touch=made"] == json!({"ok": true}), "{seen}");
    assert!(seen["touch=/etc/x"]["ok"].is_null() && seen["syscall=ptrace:0"] == json!({"errno": "EPERM"}), "{seen}");
    assert!(seen[&own]["ok"].is_null() && host.heard().is_empty(), "{seen}");
    // By default no namespaces are to be had inside: what can be done is done, and what is lost is told.
    let report = inner(&p, &[], &[], &verbs);
    assert_eq!(report["mode"], "confined", "{report}");
    assert!(report["notes"].to_string().contains("no namespaces are to be had here"), "{report}");
    assert_eq!(report["saw"]["syscall=ptrace:0"], json!({"errno": "EPERM"}), "{report}");
    assert!(report["saw"]["touch=/etc/x"]["ok"].is_null() && host.heard().is_empty(), "{report}");
    // Who does not want that is told why.
    let words = ["--", "./brig", "--root", "/tmp/state", "sandbox", "run", "--strict", "--", "./payload", "out=x"];
    let out = p.call(&[]).args(&words).out().code(125);
    assert!(out.stdout.is_empty(), "{}", out.stdout);
    assert!(!p.dir.join("made").exists());
}

pub(super) fn d_in_a_brig_container(t: &Test) {
    super::needs_overlays_of_users();
    t.only_brig("others have no sandbox");
    let mut b = t.bundle();
    fs::copy(&runtime::under_test().path, b.rootfs("bin/brig")).unwrap();
    fs::write(b.rootfs("home/secret"), "HIDDEN").unwrap();
    fs::write(b.rootfs("home/mine"), "mine").unwrap();
    b.set("/process/cwd", json!("/home"));
    // What root has to have to make a user namespace that it is root in.
    b.capabilities(&["CAP_SETFCAP"]);
    let verbs = ["read=secret", "read=mine", "touch=made", "touch=/etc/x", "tcp=192.0.2.1:80", "list=/home"];
    let words = ["/bin/brig", "--root", "/tmp/s", "sandbox", "run", "--json", "--deny-read", "secret", "--", "/bin/payload"];
    b.args(&[&words[..], &verbs].concat());
    let out = t.run(&b);
    let report = out.json();
    let seen: Value = serde_json::from_str(report["stdout"]["text"].as_str().unwrap()).unwrap_or_else(|e| panic!("{e}: {report}"));
    assert_eq!(report["mode"], "user_namespace", "{report}");
    assert!(!seen.to_string().contains("HIDDEN") && seen["read=mine"] == json!({"ok": "mine"}), "{seen}");
    assert!(seen["touch=made"] == json!({"ok": true}) && seen["touch=/etc/x"]["ok"].is_null(), "{seen}");
    assert!(seen["tcp=192.0.2.1:80"]["ok"].is_null(), "{seen}");
    let left: Vec<_> = fs::read_dir(b.rootfs("home")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "{left:?}");
    assert!(fs::read_dir(b.rootfs("tmp/s/sandbox")).is_ok_and(|mut dir| dir.next().is_none()), "an entrance is left");
}

pub(super) fn d_in_podman(t: &Test) {
    super::needs_overlays_of_users();
    t.only_brig("others have no sandbox");
    if !os::is_root() {
        suite::skip("needs root: podman's containers of plain users are the engines' tests'");
    }
    if !Path::new("/usr/bin/podman").exists() {
        suite::skip("podman is not installed");
    }
    // A root filesystem and no image; podman's own settings, its own runtime.
    let b = t.bundle();
    fs::copy(&runtime::under_test().path, b.rootfs("bin/brig")).unwrap();
    fs::write(b.rootfs("home/mine"), "mine").unwrap();
    // podman takes no long one.
    let dir = super::network::short(t, "p");
    let dirs = ["root", "run", "tmp"].map(|name| dir.join(name).display().to_string());
    let program = runtime::under_test().path.display().to_string();
    let name = t.new_id();
    let rootfs = b.rootfs("/").display().to_string();
    let globals = ["podman", "--root", &dirs[0], "--runroot", &dirs[1], "--tmpdir", &dirs[2], "--cgroup-manager=cgroupfs", "--events-backend=none", "--runtime", &program];
    let run = ["run", "--rm", "--name", &name, "--network=none", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1000:1000",
        "--workdir", "/home", "--log-driver=none"];
    let inside = ["/bin/brig", "--root", "/tmp/s", "sandbox", "run", "--json", "--", "/bin/payload", "read=mine", "touch=made", "touch=/etc/x",
        "tcp=192.0.2.1:80"];
    let podman = |flags: &[&str]| {
        let words = [&globals[..], &run, flags, &["--rootfs", &rootfs], &inside].concat();
        Call::of(t, &words).patient().out()
    };
    let report = |out: Out| {
        let report = out.json();
        let text = report["stdout"]["text"].as_str().unwrap().to_owned();
        let seen: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {report}"));
        assert_eq!(seen["read=mine"], json!({"ok": "mine"}), "{seen}");
        assert!(seen["touch=/etc/x"]["ok"].is_null() && seen["tcp=192.0.2.1:80"]["ok"].is_null(), "{seen}");
        (report, seen)
    };
    // As podman runs anything: its filter allows no namespaces. With more rights, all of the walls.
    let (told, _) = report(podman(&[]));
    assert!(told["mode"] != "confined" || told["notes"].to_string().contains("are to be"), "{told}");
    let (told, seen) = report(podman(&["--security-opt", "seccomp=unconfined", "--security-opt", "apparmor=unconfined", "--security-opt", "unmask=all", "--cap-add", "sys_admin"]));
    assert!(told["mode"] != "confined" && seen["touch=made"] == json!({"ok": true}), "{told}");
    assert!(!b.rootfs("home/made").exists(), "it was to be thrown away");
    Call::of(t, &[&globals[..], &["rm", "--all", "--force"]].concat()).patient().out();
}

pub(super) fn d_no_leftovers(t: &Test) {
    t.needs_threads();
    let p = Place::new(t);
    let before = p.tree();
    let server = Server::tcp("127.0.0.1:0");
    let rule = format!("127.0.0.1:{}", server.port);
    let flags = ["-w", "--allow-domain", &rule, "--deny-read", "home", "--disk", "1M"];
    // It ends, it fails, it is out of time, it is refused, it is no program.
    p.sh(&flags, "sleep 1000 & setsid sleep 1000 & exit 0").ok();
    p.sh(&flags, "exit 9").code(9);
    p.sh(&[&flags[..], &["--timeout", "300ms"]].concat(), "trap '' TERM; sleep 1000 & wait").code(124);
    p.sh(&[&flags[..], &["--allow-write", "/nowhere"]].concat(), "true").code(125);
    p.call(&flags).args(&["--", "./none"]).out().fails(&["none"]);
    assert_eq!((p.tree(), t.left()), (before.clone(), vec![]));
    // brig itself is ended: by a signal that it passes on, and by one that nobody can.
    for (signal, code) in [(libc::SIGTERM, 143), (libc::SIGKILL, 137)] {
        let (read, write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap();
        let running = p.call(&["--deny-read", "home", "--allow-domain", &rule]).args(&["--", "./payload", "orphans=2", "sleep"]).stdout(write).spawn();
        let mut lines = Lines::new(read);
        while !lines.next().expect("it is ready").contains("ready") {}
        os::kill(running.pid(), signal);
        running.wait().code(code);
        // The end of its output is the end of the last process.
        assert!(lines.next().is_none());
    }
    assert_eq!(p.tree(), before);
    // A killed brig can't tidy up; whoever lists what runs does.
    let id = p.last_id();
    assert!(!t.call(&["sandbox", "list"]).ok().stdout.contains(&id));
    let cgroups = crate::support::host::cgroups_named(&id);
    for dir in &cgroups {
        // What was in there has been told to end, and is this process's to reap if its own parent is gone.
        for pid in fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default().lines() {
            let _ = os::reap(pid.parse().unwrap());
        }
        let left = fs::read_to_string(dir.join("cgroup.procs")).unwrap();
        assert!(left.is_empty(), "{}: {left}", dir.display());
        fs::remove_dir(dir).unwrap();
    }
}
