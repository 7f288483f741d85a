//! The six hooks: order, namespaces, what they are told, and what their failures do.

use crate::support::{Bundle, Kind, Test, Value, cases, json, suite};
use std::fs;
use std::path::PathBuf;
use std::time::Instant;

cases![
    all_six_in_order,
    they_are_told_the_state,
    their_environment_and_arguments_are_exact,
    their_namespaces,
    several_of_a_kind_run_in_order,
    a_failing_hook_fails_the_create,
    a_failing_start_container_hook_fails_the_start,
    a_failing_poststart_hook_fails_the_start,
    a_failing_poststop_hook_is_told_only,
    a_hook_past_its_timeout,
    a_hook_in_time,
    a_hook_that_is_not_there,
    a_relative_path_is_refused,
    a_timeout_of_nothing_is_refused,
    hooks_inherit_no_descriptors,
    run_runs_them_too,
    a_hook_may_ignore_its_input,
];

const ALL: [&str; 6] = ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

fn host_payload() -> String {
    suite::scratch().join("payload").display().to_string()
}

/// Adds a hook that runs the payload with these verbs. startContainer hooks are the container's own program.
fn hook(t: &Test, b: &mut Bundle, kind: &str, verbs: &[&str]) {
    let path = if kind == "startContainer" { "/bin/payload".into() } else { host_payload() };
    let args: Vec<&str> = [&["payload"], verbs].concat();
    if b.config.pointer(&format!("/hooks/{kind}")).is_none() {
        b.set(&format!("/hooks/{kind}"), json!([]));
    }
    b.set(&format!("/hooks/{kind}/-"), json!({"path": path, "args": args, "env": [format!("BRIG_TEST={}", t.id())]}));
}

/// A log that hooks write to: as the host calls it, and as the container does.
fn log(b: &Bundle, kind: &str) -> String {
    if kind == "startContainer" { "/log".into() } else { b.rootfs("log").display().to_string() }
}

fn lines(b: &Bundle) -> Vec<Value> {
    let text = fs::read_to_string(b.rootfs("log")).unwrap_or_default();
    text.lines().map(|l| serde_json::from_str(l).unwrap()).collect()
}

/// What the hook of this name noted. The order is not used: poststart hooks run beside startContainer's.
#[track_caller]
fn line_of(b: &Bundle, name: &str) -> Value {
    let of = |line: &Value| line["args"].as_array().is_some_and(|args| args.last().is_some_and(|a| a == name));
    lines(b).into_iter().find(of).unwrap_or_else(|| panic!("the {name} hook did not run"))
}

fn said(b: &Bundle) -> Vec<String> {
    lines(b).iter().map(|l| l["args"].as_array().unwrap().last().unwrap().as_str().unwrap().to_string()).collect()
}

/// Each hook notes its own name, which is its last argument, and the state that it was told.
fn named(t: &Test, b: &mut Bundle, kind: &str, name: &str, more: &[&str]) {
    let note = format!("note={}", log(b, kind));
    hook(t, b, kind, &[&["stdin"], more, &["args", &note, name]].concat());
}

const EARLY: &str = "it runs poststart hooks at the end of create";

fn all_six_in_order(t: &Test) {
    t.differs(Kind::Runc, EARLY);
    let mut b = t.bundle();
    for kind in ALL {
        named(t, &mut b, kind, kind, &[]);
    }
    b.payload(&["args", "note=/log", "process"]);
    let c = t.create(&b);
    assert_eq!(said(&b), ["prestart", "createRuntime", "createContainer"]);
    c.start();
    assert_eq!(c.wait(), 0);
    let mut begun = said(&b)[3..].to_vec();
    if t.kind() == Kind::Crun {
        // Its poststart hooks do not wait for the process to get that far.
        begun.sort();
        assert_eq!(begun, ["poststart", "process", "startContainer"]);
    } else {
        begun[1..].sort();
        assert_eq!(begun, ["startContainer", "poststart", "process"], "the process and poststart are side by side");
    }
    c.delete();
    assert_eq!(said(&b)[6..], ["poststop"]);
}

fn they_are_told_the_state(t: &Test) {
    t.differs(Kind::Runc, EARLY);
    let mut b = t.bundle();
    b.set("/annotations", json!({"a": "b"}));
    for kind in ALL {
        named(t, &mut b, kind, kind, &[]);
    }
    b.payload(&["sleep"]);
    let c = t.create(&b);
    c.start();
    c.line();
    c.kill("KILL");
    c.wait();
    c.delete();
    let statuses = ["creating", "creating", "creating", "created", "running", "stopped"];
    for (kind, status) in ALL.iter().zip(statuses) {
        let line = line_of(&b, kind);
        let state: Value =
            serde_json::from_str(line["stdin"]["ok"].as_str().unwrap()).unwrap_or_else(|e| panic!("{kind}: {e}"));
        assert_eq!(state["id"], json!(c.id), "{kind}");
        if t.kind() == Kind::Brig {
            assert_eq!(state["bundle"], b.path(), "{kind}");
        }
        assert!(state["ociVersion"].is_string(), "{kind}: {state}");
        assert_eq!(state["annotations"]["a"], "b", "{kind}");
        // The older runtimes name some of these otherwise.
        if t.kind() == Kind::Brig {
            assert_eq!(state["status"], status, "{kind}");
        }
        let pid = state["pid"].as_i64().unwrap_or(0);
        match *kind {
            "poststop" => assert_eq!(pid, 0, "{kind}: {state}"),
            "startContainer" | "createContainer" => {}
            _ => assert_eq!(pid, i64::from(c.pid), "{kind}"),
        }
    }
}

fn their_environment_and_arguments_are_exact(t: &Test) {
    let mut b = t.bundle();
    let note = format!("note={}", log(&b, ""));
    b.set(
        "/hooks/createRuntime",
        json!([
            {"path": host_payload(), "args": ["payload", "env", "args", note, "one two", ""], "env": ["A=1", "B=x y"]},
        ]),
    );
    b.set("/hooks/createContainer", json!([{"path": host_payload(), "args": ["payload", "env", note]}]));
    let _c = t.create(b.payload(&["sleep"]));
    let lines = lines(&b);
    assert_eq!(lines[0]["env"], json!(["A=1", "B=x y"]));
    assert_eq!(lines[0]["args"], json!(["payload", "env", "args", note, "one two", ""]));
    if t.kind() == Kind::Brig {
        assert_eq!(lines[1]["env"], json!([]), "a hook without env has none");
    }
}

fn their_namespaces(t: &Test) {
    t.differs(Kind::Runc, EARLY);
    let mut b = t.bundle();
    for kind in ALL {
        named(t, &mut b, kind, kind, &["ns"]);
    }
    let c = t.create(b.payload(&["ns", "sleep"]));
    c.start();
    let inside = c.line()["ns"].clone();
    c.line();
    c.kill("KILL");
    c.wait();
    c.delete();
    let own = |name: &str| fs::read_link(format!("/proc/thread-self/ns/{name}")).unwrap().display().to_string();
    for kind in ALL {
        let line = line_of(&b, kind);
        for name in ["mnt", "net", "uts", "ipc"] {
            let wanted = if ["createContainer", "startContainer"].contains(&kind) {
                inside[name].clone()
            } else {
                json!(own(name))
            };
            assert_eq!(line["ns"][name], wanted, "{kind}: {name}");
        }
    }
}

fn several_of_a_kind_run_in_order(t: &Test) {
    let mut b = t.bundle();
    for name in ["first", "second", "third"] {
        named(t, &mut b, "createRuntime", name, &[]);
    }
    named(t, &mut b, "prestart", "before", &[]);
    let _c = t.create(b.payload(&["sleep"]));
    assert_eq!(said(&b), ["before", "first", "second", "third"]);
}

fn a_failing_hook_fails_the_create(t: &Test) {
    for kind in ["prestart", "createRuntime", "createContainer"] {
        let mut b = t.bundle();
        hook(t, &mut b, kind, &["err=no luck", "exit=7"]);
        named(t, &mut b, kind, "after", &[]);
        if t.kind() == Kind::Brig {
            named(t, &mut b, "poststop", "poststop", &[]);
        }
        b.payload(&["touch=/ran"]);
        let out = t.create_fails(&b, &[&format!("/hooks/{kind}/0"), "status 7"]);
        if t.kind() == Kind::Brig {
            assert!(out.stderr.contains("no luck"), "a hook's last words are the best clue: {}", out.stderr);
            assert_eq!(said(&b), ["poststop"], "{kind}: the lifecycle goes on at poststop");
        }
        assert!(!said(&b).contains(&"after".to_string()), "{kind}");
        assert!(!b.rootfs("ran").exists());
    }
}

fn a_failing_start_container_hook_fails_the_start(t: &Test) {
    t.differs(Kind::Crun, "1.8.1 does not wait for what init does after the start");
    let mut b = t.bundle();
    hook(t, &mut b, "startContainer", &["exit=3"]);
    let c = t.create(b.payload(&["touch=/ran"]));
    let out = c.call(&["start"]).out();
    if t.kind() == Kind::Brig {
        out.fails(&["/hooks/startContainer/0"]);
    }
    c.wait();
    assert_eq!(c.status(), "stopped");
    assert!(!b.rootfs("ran").exists());
    c.delete();
}

fn a_failing_poststart_hook_fails_the_start(t: &Test) {
    t.differs(Kind::Runc, EARLY);
    t.differs(Kind::Crun, "to 1.8.1 it is a warning, as in spec 1.0");
    let mut b = t.bundle();
    hook(t, &mut b, "poststart", &["exit=3"]);
    let c = t.create(b.payload(&["sleep"]));
    c.call(&["start"]).out().fails(&["/hooks/poststart/0"]);
    assert_eq!(c.wait(), 137, "the process may not go on");
    c.call(&["delete", "--force"]).ok();
}

fn a_failing_poststop_hook_is_told_only(t: &Test) {
    t.differs(Kind::Crun, "SIGPIPE ends it when a hook does not read its input");
    let mut b = t.bundle();
    hook(t, &mut b, "poststop", &["exit=3"]);
    named(t, &mut b, "poststop", "second", &[]);
    let c = t.create(b.payload(&["exit=0"]));
    c.start();
    c.wait();
    let out = c.call(&["delete"]).ok();
    if t.kind() == Kind::Brig {
        assert!(out.stderr.contains("/hooks/poststop/0"), "{}", out.stderr);
    }
    if t.kind() == Kind::Brig {
        assert_eq!(said(&b), ["second"]);
    }
    assert_eq!(t.left(), Vec::<String>::new());
}

fn a_hook_past_its_timeout(t: &Test) {
    for kind in ["prestart", "createRuntime", "createContainer"] {
        let mut b = t.bundle();
        hook(t, &mut b, kind, &["orphans=1", "stubborn"]);
        b.set(&format!("/hooks/{kind}/0/timeout"), json!(1)).payload(&["touch=/ran"]);
        if t.kind() != Kind::Brig {
            // The others leave what a hook has started.
            b.set(&format!("/hooks/{kind}/0/args"), json!(["payload", "stubborn"]));
        }
        let begun = Instant::now();
        t.create_fails(&b, &[&format!("/hooks/{kind}/0"), "1 s"]);
        assert!((0.9..20.0).contains(&begun.elapsed().as_secs_f64()), "{kind}: {:?}", begun.elapsed());
        assert!(!b.rootfs("ran").exists());
    }
}

fn a_hook_in_time(t: &Test) {
    let mut b = t.bundle();
    named(t, &mut b, "createRuntime", "done", &[]);
    b.set("/hooks/createRuntime/0/timeout", json!(30));
    let _c = t.create(b.payload(&["sleep"]));
    assert_eq!(said(&b), ["done"]);
}

fn a_hook_that_is_not_there(t: &Test) {
    for kind in ["prestart", "createRuntime", "createContainer"] {
        let mut b = t.bundle();
        b.set(&format!("/hooks/{kind}"), json!([{"path": "/no/such/hook"}]));
        t.create_fails(&b, &[&format!("/hooks/{kind}/0"), "/no/such/hook", "no such file or directory"]);
    }
}

fn a_relative_path_is_refused(t: &Test) {
    t.only_brig("they look for it in the current directory");
    let mut b = t.bundle();
    b.set("/hooks/poststop", json!([{"path": "hook"}]));
    t.create_fails(&b, &["/hooks/poststop/0/path", "absolute"]);
}

fn a_timeout_of_nothing_is_refused(t: &Test) {
    t.only_brig("to them it is no timeout, or one that is over at once");
    let mut b = t.bundle();
    b.set("/hooks/prestart", json!([{"path": host_payload(), "timeout": 0}]));
    t.create_fails(&b, &["/hooks/prestart/0/timeout"]);
}

fn hooks_inherit_no_descriptors(t: &Test) {
    t.differs(Kind::Runc, "its createContainer hooks have its own pipes open");
    let mut b = t.bundle();
    for kind in ALL {
        named(t, &mut b, kind, kind, &["fds"]);
    }
    let c = t.create(b.payload(&["sleep"]));
    c.start();
    c.line();
    c.kill("KILL");
    c.wait();
    c.delete();
    for kind in ALL {
        let line = line_of(&b, kind);
        let fds: Vec<_> = line["fds"].as_object().unwrap().keys().cloned().collect();
        assert!(fds.len() <= 3, "{kind} has {}", line["fds"]);
    }
}

fn run_runs_them_too(t: &Test) {
    let mut b = t.bundle();
    for kind in ALL {
        named(t, &mut b, kind, kind, &[]);
    }
    t.run(b.payload(&["exit=4"])).code(4);
    let mut all = said(&b);
    let mut wanted: Vec<String> = ALL.iter().map(ToString::to_string).collect();
    assert_eq!(all.last(), wanted.last());
    all.sort();
    wanted.sort();
    assert_eq!(all, wanted);
}

/// A hook that ends without reading the state must not be taken for one that failed.
fn a_hook_may_ignore_its_input(t: &Test) {
    t.differs(Kind::Crun, "SIGPIPE ends it when a hook does not read its input");
    let mut b = t.bundle();
    let huge = "x".repeat(200_000);
    b.set("/annotations", json!({"huge": huge}));
    let path: PathBuf = ["/bin/true", "/usr/bin/true"].iter().map(PathBuf::from).find(|p| p.exists()).unwrap();
    b.set("/hooks/createRuntime", json!([{"path": path}]));
    let _c = t.create(b.payload(&["sleep"]));
}
