//! Settings, orders while it runs, violations, terminals.

use super::network::{Server, short};
use super::*;
use crate::support::container::Lines;
use crate::support::pty;
use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;

fn pipe() -> (OwnedFd, OwnedFd) {
    nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap()
}

pub(super) fn d_settings_file(t: &Test) {
    t.needs_threads();
    let p = Place::new(t);
    for name in ["secret", "keys/a.pem", "locked", "there", "a/b/.bashrc", "a/.bashrc", ".git/config", ".git/hooks/x"] {
        p.file(name, "mine");
    }
    let (mitm, unix) = (short(t, "x"), short(t, "y"));
    let (proxy, service) = (Server::at(&mitm), Server::at(&unix));
    let (open, shut) = (Server::tcp("127.0.0.1:0"), Server::tcp("127.0.0.1:0"));
    let out = t.dir().join("out");
    fs::create_dir(&out).unwrap();
    let settings = json!({
        "network": {
            "allowedDomains": ["127.0.0.0/8", "*.brig.test"],
            "deniedDomains": [format!("127.0.0.1:{}", shut.port)],
            "allowUnixSockets": [unix],
            "allowAllUnixSockets": false,
            "allowLocalBinding": true,
            "mitmProxy": {"socketPath": mitm, "domains": ["*.brig.test"]},
        },
        "filesystem": {
            "denyRead": ["secret", "keys/*.pem"],
            "allowWrite": [".", out],
            "denyWrite": ["locked"],
            "allowGitConfig": true,
        },
        "ignoreViolations": {"*": ["ptrace"], "payload": ["bpf"]},
        "enableWeakerNestedSandbox": true,
        "mandatoryDenySearchDepth": 1,
        "allowPty": true,
        "seccomp": {"bpfPath": "/x.bpf"},
    });
    let file = p.file("settings.json", &settings.to_string()).display().to_string();
    let get = [format!("get=3128:http://127.0.0.1:{}/", open.port), format!("get=3128:http://127.0.0.1:{}/", shut.port)];
    let (unix, new) = (format!("unix={}", unix.display()), format!("touch={}", out.join("new").display()));
    let verbs = [get[0].as_str(), &get[1], "get=3128:http://a.brig.test/", &unix, "loopback", "read=secret", "read=keys/a.pem",
        "touch=made", &new, "touch=locked", "touch=/etc/x", "touch=a/.bashrc", "touch=a/b/.bashrc", "touch=.git/config",
        "touch=.git/hooks/x", "syscall=ptrace:0", "syscall=bpf:0", "syscall=swapoff:0"];
    let report = p.report(&["--settings", &file], &verbs);
    let seen = &report["saw"];
    let text = |verb: &str| seen[verb]["ok"].as_str().unwrap_or_default().to_owned();
    assert!(text(&get[0]).ends_with("page") && text(&get[1]).contains(" 403 "), "{seen}");
    assert!(text("get=3128:http://a.brig.test/").ends_with("page") && proxy.heard().len() == 1, "{seen}");
    assert!(text(&unix) == "pong" && service.heard().len() == 1 && seen["loopback"] == json!({"ok": true}), "{seen}");
    for hidden in ["read=secret", "read=keys/a.pem"] {
        assert!(!text(hidden).contains("mine"), "{hidden}: {seen}");
    }
    for (verb, may) in [("touch=made", true), (&*new, true), ("touch=locked", false), ("touch=/etc/x", false),
        ("touch=a/.bashrc", false), ("touch=a/b/.bashrc", true), ("touch=.git/config", true), ("touch=.git/hooks/x", false)]
    {
        assert_eq!(seen[verb] == json!({"ok": true}), may, "{verb}: {seen}");
    }
    assert!(p.dir.join("made").exists() && out.join("new").exists());
    let recorded: &[&str] = if t.is_taken("pidfd") { &[] } else { &["swapoff"] };
    assert_eq!(denied(&report, "syscall"), recorded, "{report}");
    for told in ["allowPty has no effect", "seccomp has no effect"] {
        assert!(p.sh(&["--settings", &file], "true").ok().stderr.contains(told), "{told}");
    }
    // The rest of the keys; and the nothing that an empty file allows.
    let other = json!({"network": {"allowAllUnixSockets": true, "httpProxyPort": open.port, "socksProxyPort": shut.port}});
    let file = p.file("other.json", &other.to_string()).display().to_string();
    let seen = p.see(&["--settings", &file], &["get=3128:http://z.test/", "tcp=127.0.0.1:1080", "unixlistener=/tmp/own", "touch=no"]);
    assert!(seen["get=3128:http://z.test/"]["ok"].as_str().unwrap().ends_with("page"), "{seen}");
    assert!(seen["tcp=127.0.0.1:1080"] == json!({"ok": "pong"}) && seen["unixlistener=/tmp/own"] == json!({"ok": true}), "{seen}");
    assert_eq!(seen["touch=no"], json!({"errno": "EROFS"}), "{seen}");
    let file = p.file("wrong.json", r#"{"network": {"allowedDomain": []}, "filesystem": {"denyRead": "x"}}"#).display().to_string();
    p.sh(&["--settings", &file], "true").code(125).fails(&["/network/allowedDomain", "/filesystem/denyRead"]);
}

pub(super) fn d_shell_string(t: &Test) {
    let p = Place::new(t);
    let out = p.sh(&[], "echo \"one  two\" | tr a-z A-Z; exit 7").code(7);
    assert_eq!(out.stdout, "ONE  TWO\n");
    let out = p.call(&[]).args(&["-c", "echo $0 $1 \"$2\"; kill -9 $$", "name", "a", "b  c"]).out().code(137);
    assert_eq!(out.stdout, "name a b  c\n");
    p.call(&[]).out().code(125).fails(&["no command"]);
}

pub(super) fn d_settings_changed_while_running(t: &Test) {
    t.needs_threads();
    let p = Place::new(t);
    let server = Server::tcp("127.0.0.1:0");
    let (rule, get) = (format!("127.0.0.1:{}", server.port), format!("get=3128:http://127.0.0.1:{}/", server.port));
    let ((orders, order), (events, event), (input, answer), (stdout, output)) = (pipe(), pipe(), pipe(), pipe());
    let verbs = [&*get, "say=1", "line", &get, "say=2", "line", &get, "say=3", "line", &get];
    let call = p.call(&["--net", "domains", "--control-fd", "300", "--status-fd", "301", "--", "./payload"]).args(&verbs);
    let running = call.pass(vec![(orders, 300), (event, 301)]).stdin(input).stdout(output).spawn();
    let (mut said, mut events) = (Lines::new(stdout), Lines::new(events));
    let (mut order, mut answer) = (File::from(order), File::from(answer));
    let mut reached = || {
        let seen: Value = serde_json::from_str(&said.next().unwrap()).unwrap();
        let text = seen[&get]["ok"].as_str().unwrap_or_else(|| panic!("{seen}")).to_owned();
        assert!(text.ends_with("page") || text.contains(" 403 "), "{text}");
        let _ = said.next();
        text.ends_with("page")
    };
    assert!(!reached());
    // Orders are carried out in their order; the last of these is none, and that is told.
    let settings = json!({"network": {"allowedDomains": [&rule]}});
    write!(order, "{settings}\nnonsense\n").unwrap();
    while !events.next().expect("an event").contains("the order is no JSON object") {}
    writeln!(answer).unwrap();
    assert!(reached());
    let update = |flags: &[&str]| t.call(&["sandbox", "update", &p.last_id()]).args(flags).out();
    update(&["--allow-domain", "other.test", "--timeout", "1h"]).ok();
    writeln!(answer).unwrap();
    assert!(!reached());
    update(&["--allow-domain", &rule, "--deny-domain", "bad.test"]).ok();
    update(&["--allow-domain", "no domain"]).fails(&["no domain"]);
    // What can't be changed any more is refused by name, and what holds already passes.
    writeln!(order, "{}", json!({"filesystem": {"denyRead": ["/etc"]}, "network": {"deniedDomains": []}})).unwrap();
    while !events.next().expect("an event").contains("/filesystem/denyRead") {}
    writeln!(answer).unwrap();
    let last: Value = serde_json::from_str(&said.next().unwrap()).unwrap();
    assert!(last[&get]["ok"].as_str().unwrap().ends_with("page"), "{last}");
    drop((order, answer));
    running.wait().ok();
    assert_eq!(server.heard().len(), 2);
    update(&["--timeout", "1h"]).fails(&["no sandbox with the ID"]);
}

pub(super) fn d_violations_recorded_listed_counted_ignored(t: &Test) {
    t.needs_call("pidfd");
    let p = Place::new(t);
    p.file("secret", "HIDDEN");
    let secret = p.path("secret");
    let hide = ["--deny-read", "secret"];
    let verbs = ["syscall=ptrace:0", "syscall=ptrace:1", "syscall=bpf:0", "get=3128:http://evil.test/", "connect=3128:evil.test:80", "read=secret"];
    let flags = [&hide[..], &["--net", "domains"]].concat();
    let report = p.report(&flags, &verbs);
    let all = report["violations"].as_array().unwrap();
    let one = |kind: &str, what: &str| {
        all.iter().find(|v| v["kind"] == kind && v["what"] == what).unwrap_or_else(|| panic!("no {what}: {report}")).clone()
    };
    // What, by which program, when, how often.
    let ptrace = one("syscall", "ptrace");
    assert_eq!((&ptrace["program"], &ptrace["count"]), (&json!("payload"), &json!(2)), "{ptrace}");
    assert!(ptrace["at_us"].as_u64().unwrap() > 0 && ptrace["pid"].as_i64().unwrap() > 1, "{ptrace}");
    assert!(ptrace["at_us"].as_u64() < report["wall_us"].as_u64());
    assert_eq!(one("syscall", "bpf")["count"], 1);
    one("network", "evil.test:80");
    assert!(one("file", &format!("read {secret}"))["count"].as_u64().unwrap() > 0, "{report}");
    assert!(!report["saw"].to_string().contains("HIDDEN"));
    // In words, with what would allow it.
    let said = p.call(&flags).args(&["--", "./payload"]).args(&verbs).ok().stderr;
    for line in ["denied: system call ptrace by payload (2 times): allow with --allow-syscall ptrace or --profile unrestricted",
        "denied: connect to evil.test:80", &format!("denied: read {secret}")]
    {
        assert!(said.contains(line), "{line}: {said}");
    }
    // What glibc tries in every `id` and `ls -l` is no news; it is told to who wants all of it, with flags that there are.
    let try_it = ["--", "./payload", "unix=/none", "syscall=clone:0x10000000"];
    let said = p.call(&[]).args(&try_it).ok().stderr;
    assert!(!said.contains("AF_UNIX") && said.contains("clone(new namespaces)"), "{said}");
    let said = p.call(&["--verbose"]).args(&try_it).ok().stderr;
    for hint in ["--allow-unix-socket PATH or --allow-all-unix-sockets", "--allow-syscall clone or --profile unrestricted"] {
        assert!(said.contains(hint), "{hint}: {said}");
    }
    assert_eq!(p.call(&[]).args(&["--", "./payload", "unix=/none"]).ok().stderr, "");
    // As they come.
    let (events, event) = pipe();
    let call = p.call(&[&flags[..], &["--status-fd", "301", "--", "./payload"]].concat()).args(&verbs);
    call.pass(vec![(event, 301)]).ok();
    let mut events = Lines::new(events);
    let events: Vec<Value> = std::iter::from_fn(|| events.next()).map(|line| serde_json::from_str(&line).unwrap()).collect();
    for kind in ["syscall", "network", "file"] {
        assert!(events.iter().any(|e| e["event"] == "violation" && e["kind"] == kind), "{kind}: {events:?}");
    }
    // Ignored by pattern, for one program or all of them.
    let left = |ignore: &[&str]| {
        let mut flags = flags.clone();
        ignore.iter().for_each(|pattern| flags.extend(["--ignore-violation", pattern]));
        let report = p.report(&flags, &verbs);
        let mut left: Vec<String> = ["syscall", "network", "file"].iter().flat_map(|kind| denied(&report, kind)).collect();
        left.sort();
        left
    };
    assert_eq!(left(&["ptrace", "other=bpf", "evil"]), ["bpf".to_owned(), format!("read {secret}")]);
    assert_eq!(left(&["payload=ptrace", "payload=bpf", "*=evil.test", "secret"]), Vec::<String>::new());
    // Not recorded at all, and denied all the same.
    let report = p.report(&["--no-record"], &verbs[..3]);
    assert_eq!((denied(&report, "syscall"), &report["saw"][verbs[0]]), (vec![], &json!({"errno": "EPERM"})), "{report}");
}

pub(super) fn d_allow_pty(t: &Test) {
    let p = Place::new(t);
    let (master, slave) = pty::terminal(33, 77);
    let copy = || slave.try_clone().unwrap();
    let script = "tty; stty size; read x; echo got $x; test -t 0 -a -t 1 && echo both";
    let running = p.call(&["--tty", "-c", script]).stdin(copy()).stdout(copy()).spawn();
    drop(slave);
    let mut lines = Lines::new(master.try_clone().unwrap());
    assert_eq!(lines.next().as_deref(), Some("/dev/pts/0"));
    assert_eq!(lines.next().as_deref(), Some("33 77"));
    pty::type_in(&master, b"word\r");
    let rest: Vec<String> = std::iter::from_fn(|| lines.next().filter(|line| line != "both")).collect();
    assert!(rest.iter().any(|line| line == "got word"), "{rest:?}");
    running.wait().ok();
    // Without it there is none, but a program may make its own: the sandbox's, not the host's.
    let out = p.sh(&[], "test -t 0 || echo none; : <>/dev/ptmx && echo made; ls /dev/pts").ok();
    assert_eq!(out.stdout, "none\nmade\nptmx\n");
}
