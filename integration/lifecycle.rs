//! From create to delete: what each command does to a container's status, and what it prints.

use crate::support::{Container, Kind, Test, cases, json, os};
use std::fs;
use std::os::unix::fs::PermissionsExt;

cases![
    create_start_state_kill_delete,
    run_passes_on_the_exit_status,
    run_removes_its_container,
    run_keep_leaves_it_stopped,
    run_detached_leaves_it_running,
    a_container_that_ends_is_stopped,
    the_bundle_is_the_current_directory,
    config_takes_another_file,
    state_shows_annotations_and_no_pid_when_stopped,
    a_created_container_has_not_run_yet,
    start_is_for_created_containers,
    delete_is_for_created_and_stopped_ones,
    delete_force_takes_every_status,
    delete_force_of_nothing_succeeds,
    delete_by_pattern,
    list_as_table_and_json,
    the_pid_file_is_exact,
    the_state_directory_is_private,
    containers_of_one_root_are_apart,
    ids_of_every_legal_character,
    spec_makes_a_bundle_that_runs,
    spec_rootless_maps_the_caller,
    features_tell_what_is_there,
    version_tells_the_spec,
    log_file_in_json,
    debug_notes_go_to_the_log,
    orphans_die_with_init,
];

fn create_start_state_kill_delete(t: &Test) {
    let mut b = t.bundle();
    b.payload(&["pid", "sleep"]);
    let c = t.create(&b);
    let state = c.state();
    assert_eq!(state["id"], json!(c.id));
    assert_eq!(state["status"], "created");
    assert_eq!(state["pid"], c.pid);
    assert_eq!(state["bundle"], b.path());
    assert!(state["ociVersion"].as_str().is_some_and(|v| v.starts_with("1.")), "{state}");
    c.start();
    assert_eq!(c.line()["pid"]["pid"], 1);
    assert_eq!(c.line()["ready"], true);
    assert_eq!(c.status(), "running");
    c.kill("KILL");
    c.wait_unreaped();
    assert_eq!(c.status(), "stopped");
    assert_eq!(c.wait(), 137);
    assert_eq!(c.status(), "stopped");
    c.delete();
    assert_eq!(t.left(), Vec::<String>::new());
    c.call(&["state"]).out().code(1).fails(&["does not exist"]);
}

fn run_passes_on_the_exit_status(t: &Test) {
    for code in [0, 1, 7, 255] {
        let mut b = t.bundle();
        b.payload(&[&format!("exit={code}")]);
        t.run(&b).code(code);
    }
}

fn run_removes_its_container(t: &Test) {
    let mut b = t.bundle();
    b.payload(&["out=hello", "err=oh"]);
    let out = t.run(&b).ok();
    assert!(out.stdout.starts_with("hello\n"), "{out:?}");
    assert_eq!(out.stderr, "oh\n");
    assert_eq!(t.left(), Vec::<String>::new());
}

fn run_keep_leaves_it_stopped(t: &Test) {
    t.differs(Kind::Crun, "1.8.1 has no --keep");
    let mut b = t.bundle();
    b.payload(&["exit=3"]).write();
    let id = t.new_id();
    t.call(&["run", "--keep", "--bundle", b.path(), &id]).out().code(3);
    assert_eq!(t.call(&["state", &id]).ok().json()["status"], "stopped");
    t.call(&["delete", &id]).ok();
}

fn run_detached_leaves_it_running(t: &Test) {
    let mut b = t.bundle();
    b.payload(&["sleep"]);
    let c = Container::make(t, &b, "run", &["--detach"], |call| call);
    assert_eq!(c.line()["ready"], true);
    assert_eq!(c.status(), "running");
    c.kill("9");
    assert_eq!(c.wait(), 137);
    c.delete();
}

fn a_container_that_ends_is_stopped(t: &Test) {
    let mut b = t.bundle();
    b.payload(&["exit=5"]);
    let c = t.create(&b);
    c.start();
    assert_eq!(c.wait(), 5);
    assert_eq!(c.status(), "stopped");
    c.delete();
}

fn the_bundle_is_the_current_directory(t: &Test) {
    let mut b = t.bundle();
    b.payload(&["out=here"]).write();
    let out = t.call(&["run", &t.new_id()]).cwd(b.dir()).ok();
    assert!(out.stdout.starts_with("here\n"));
}

fn config_takes_another_file(t: &Test) {
    t.differs(Kind::Runc, "it has no --config");
    let mut b = t.bundle();
    b.payload(&["out=other"]).write();
    fs::rename(b.dir().join("config.json"), t.dir().join("other.json")).unwrap();
    let other = t.dir().join("other.json").display().to_string();
    let out = t.call(&["run", "--bundle", b.path(), "--config", &other, &t.new_id()]).ok();
    assert!(out.stdout.starts_with("other\n"));
}

fn state_shows_annotations_and_no_pid_when_stopped(t: &Test) {
    let mut b = t.bundle();
    b.payload(&["exit=0"]).set("/annotations", json!({"org.example.key": "a value"}));
    let c = t.create(&b);
    assert_eq!(c.state()["annotations"]["org.example.key"], "a value");
    c.start();
    c.wait();
    let state = c.state();
    assert!(state["pid"].is_null() || state["pid"] == 0, "{state}");
    assert_eq!(state["annotations"]["org.example.key"], "a value");
}

fn a_created_container_has_not_run_yet(t: &Test) {
    let mut b = t.bundle();
    b.payload(&["touch=/ran"]);
    let c = t.create(&b);
    assert!(!b.rootfs("ran").exists());
    c.start();
    assert_eq!(c.wait(), 0);
    assert!(b.rootfs("ran").exists());
}

fn start_is_for_created_containers(t: &Test) {
    let mut b = t.bundle();
    b.payload(&["sleep"]);
    let c = t.create(&b);
    c.start();
    c.line();
    c.call(&["start"]).out().fails(&[]);
    assert_eq!(c.status(), "running");
    c.kill("KILL");
    c.wait();
    c.call(&["start"]).out().fails(&[]);
    c.delete();
    c.call(&["start"]).out().fails(&["does not exist"]);
}

fn delete_is_for_created_and_stopped_ones(t: &Test) {
    let mut b = t.bundle();
    b.payload(&["sleep"]);
    let c = t.create(&b);
    c.start();
    c.line();
    c.call(&["delete"]).out().fails(&["stopped"]);
    assert_eq!(c.status(), "running");
    c.kill("KILL");
    c.wait();
    c.delete();
    c.call(&["delete"]).out().fails(&["does not exist"]);
}

fn delete_force_takes_every_status(t: &Test) {
    let mut b = t.bundle();
    b.payload(&["stubborn"]);
    let created = t.create(&b);
    created.call(&["delete", "--force"]).ok();
    assert_eq!(created.wait(), 137);
    let running = t.create(&b);
    running.start();
    running.line();
    running.call(&["delete", "-f"]).ok();
    assert!(running.ended(), "delete --force came back before init had ended");
    assert_eq!(running.wait(), 137);
    let stopped = t.create(&b);
    stopped.start();
    stopped.line();
    stopped.kill("KILL");
    stopped.wait();
    stopped.call(&["delete", "-f"]).ok();
    assert_eq!(t.left(), Vec::<String>::new());
}

fn delete_force_of_nothing_succeeds(t: &Test) {
    t.call(&["delete", "--force", &t.new_id()]).ok();
}

fn delete_by_pattern(t: &Test) {
    t.differs(Kind::Runc, "it has no --regex");
    let mut b = t.bundle();
    b.payload(&["sleep"]);
    let (one, two) = (t.create(&b), t.create(&b));
    t.call(&["delete", "--force", "--regex", &format!("^{}$", one.id)]).ok();
    one.call(&["state"]).out().fails(&["does not exist"]);
    assert_eq!(two.status(), "created");
}

fn list_as_table_and_json(t: &Test) {
    let empty = t.call(&["list", "--format", "json"]).ok();
    assert!(empty.json().as_array().is_none_or(Vec::is_empty), "{empty:?}");
    let mut b = t.bundle();
    b.payload(&["sleep"]);
    let (created, running) = (t.create(&b), t.create(&b));
    running.start();
    running.line();
    let list = t.call(&["list", "--format", "json"]).ok().json();
    let entry = |id: &str| list.as_array().unwrap().iter().find(|e| e["id"] == *id).cloned().unwrap_or_default();
    assert_eq!(list.as_array().unwrap().len(), 2);
    assert_eq!(entry(&created.id)["status"], "created");
    let entry = entry(&running.id);
    assert_eq!(
        (&entry["status"], &entry["pid"], &entry["bundle"]),
        (&json!("running"), &json!(running.pid), &json!(b.path()))
    );
    assert_eq!(entry["owner"], json!(os::user_name()));
    assert!(entry["created"].as_str().is_some_and(|s| s.starts_with("20") && s.contains('T')), "{entry}");
    let quiet = t.call(&["list", "--quiet"]).ok();
    let mut ids: Vec<&str> = quiet.stdout.lines().collect();
    ids.sort_unstable();
    let mut wanted = [created.id.as_str(), running.id.as_str()];
    wanted.sort_unstable();
    assert_eq!(ids, wanted);
    let table = t.call(&["list"]).ok();
    let mut lines = table.stdout.lines();
    let head: Vec<&str> = lines.next().unwrap().split_whitespace().collect();
    assert_eq!(
        (head[0], head[1], head[2]),
        if t.kind() == Kind::Crun { ("NAME", "PID", "STATUS") } else { ("ID", "PID", "STATUS") }
    );
    let row: Vec<&str> = lines.find(|l| l.starts_with(&running.id)).unwrap().split_whitespace().collect();
    assert_eq!(row[1..3], [running.pid.to_string().as_str(), "running"]);
}

fn the_pid_file_is_exact(t: &Test) {
    let mut b = t.bundle();
    b.payload(&["sleep"]);
    let c = t.create(&b);
    let path = t.dir().join(format!("{}.pid", c.id));
    assert_eq!(fs::read_to_string(path).unwrap(), c.pid.to_string());
    assert!(fs::read_to_string(format!("/proc/{}/status", c.pid)).unwrap().contains("NSpid"));
}

fn the_state_directory_is_private(t: &Test) {
    let c = t.create(t.bundle().payload(&["sleep"]));
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o077;
    assert!(mode(&t.root().join(&c.id)) & 0o066 == 0 || mode(&t.root()) == 0, "others can read the container's state");
}

fn containers_of_one_root_are_apart(t: &Test) {
    let mut b = t.bundle();
    b.payload(&["ns", "ps", "sleep"]);
    let (one, two) = (t.create(&b), t.create(&b));
    one.start();
    two.start();
    let (a, b) = (one.line(), two.line());
    for name in ["pid", "net", "ipc", "uts", "mnt"] {
        assert_ne!(a["ns"][name], b["ns"][name], "{name}");
    }
    assert_eq!(a["ps"].as_object().unwrap().len(), 1, "{a}");
    one.kill("KILL");
    one.wait();
    assert_eq!(two.status(), "running");
}

fn ids_of_every_legal_character(t: &Test) {
    let mut b = t.bundle();
    b.payload(&["exit=0"]).write();
    for suffix in ["a_b.c-d", "x+y", "Z9"] {
        let id = format!("{}{suffix}", t.new_id());
        t.call(&["run", "--bundle", b.path(), &id]).ok();
    }
}

fn spec_makes_a_bundle_that_runs(t: &Test) {
    let mut b = t.bundle();
    t.call(&["spec"]).cwd(b.dir()).ok();
    let text = fs::read_to_string(b.dir().join("config.json")).unwrap();
    let made: crate::support::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(made["process"]["args"], json!(["sh"]));
    assert_eq!(made["process"]["terminal"], true);
    t.call(&["spec"]).cwd(b.dir()).out().fails(&["exist"]);
    b.config = made;
    b.set("/process/terminal", json!(false)).payload(&["caps", "limits"]);
    let seen = t.run(&b).ok().json();
    assert_eq!(seen["limits"]["RLIMIT_NOFILE"], json!([1024, 1024]));
    assert_eq!(seen["caps"]["effective"], json!(["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]));
}

fn spec_rootless_maps_the_caller(t: &Test) {
    t.differs(Kind::Crun, "its rootless spec has a user namespace without maps, and a network namespace");
    let dir = t.bundle();
    t.call(&["spec", "--rootless", "--bundle", dir.path()]).ok();
    let made: crate::support::Value =
        serde_json::from_slice(&fs::read(dir.dir().join("config.json")).unwrap()).unwrap();
    assert_eq!(made["linux"]["uidMappings"][0]["size"], 1, "{made}");
    assert!(made["linux"]["namespaces"].as_array().unwrap().contains(&json!({"type": "user"})));
    assert!(!made["linux"]["namespaces"].as_array().unwrap().contains(&json!({"type": "network"})));
}

fn features_tell_what_is_there(t: &Test) {
    t.differs(Kind::Crun, "1.8.1 has no features command");
    let f = t.call(&["features"]).ok().json();
    assert!(f["ociVersionMin"].is_string() && f["ociVersionMax"].is_string());
    let has = |pointer: &str, word: &str| {
        f.pointer(pointer).and_then(|l| l.as_array()).is_some_and(|l| l.iter().any(|w| w == word))
    };
    for hook in ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"] {
        assert!(has("/hooks", hook), "{hook}");
    }
    for option in ["rbind", "rro", "tmpcopyup", "nosuid", "private"] {
        assert!(has("/mountOptions", option), "{option}");
    }
    for namespace in ["cgroup", "ipc", "mount", "network", "pid", "user", "uts"] {
        assert!(has("/linux/namespaces", namespace), "{namespace}");
    }
    assert!(has("/linux/capabilities", "CAP_SYS_ADMIN"));
    assert_eq!(f["linux"]["seccomp"]["enabled"], true);
    assert!(has("/linux/seccomp/actions", "SCMP_ACT_NOTIFY") && has("/linux/seccomp/operators", "SCMP_CMP_MASKED_EQ"));
    assert_eq!(f["linux"]["cgroup"]["v1"], true);
    if t.kind() == Kind::Brig {
        assert!(has("/linux/namespaces", "time"));
        assert_eq!(f["linux"]["mountExtensions"]["idmap"]["enabled"], true);
        assert_eq!(f["linux"]["netDevices"]["enabled"], true);
        assert!(has("/linux/memoryPolicy/modes", "MPOL_INTERLEAVE"), "{f}");
    }
}

fn version_tells_the_spec(t: &Test) {
    let out = t.call(&["--version"]).ok();
    assert!(out.stdout.contains("version") && out.stdout.contains("spec"), "{out:?}");
}

fn log_file_in_json(t: &Test) {
    let log = t.dir().join("log");
    let log_path = log.display().to_string();
    let call = crate::support::Call::new(t, &["--log", &log_path, "--log-format", "json"], &["state", "nobody"]);
    call.out().code(1).fails(&[]);
    let text = fs::read_to_string(&log).unwrap();
    let last: crate::support::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!(last["level"], "error");
    assert!(last["time"].as_str().is_some_and(|s| s.contains('T')), "{last}");
    if t.kind() != Kind::Crun {
        assert!(last["msg"].as_str().is_some_and(|s| s.contains("does not exist")), "{last}");
    }
}

fn debug_notes_go_to_the_log(t: &Test) {
    let log = t.dir().join("log").display().to_string();
    let mut b = t.bundle();
    b.set("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["no_such_call"], "action": "SCMP_ACT_ERRNO"}]}));
    b.payload(&["exit=0"]).write();
    let globals = ["--debug", "--log", &log, "--log-format", "json"];
    let out = crate::support::Call::new(t, &globals, &["run", "--bundle", b.path(), &t.new_id()]).ok();
    assert_eq!(out.stdout, "");
    let text = fs::read_to_string(&log).unwrap();
    for line in text.lines() {
        let line: crate::support::Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        assert!(line["level"].is_string() && line["msg"].is_string() && line["time"].is_string(), "{line}");
        assert_ne!(line["level"], "error", "{line}");
    }
    if t.kind() == Kind::Brig {
        assert!(text.contains("\"debug\"") && text.contains("no_such_call"), "what is skipped is noted: {text}");
    }
}

/// Without a pid namespace of its own a container's processes outlive init; the runtime has to find them.
fn orphans_die_with_init(t: &Test) {
    for namespace in [true, false] {
        let mut b = t.bundle();
        if !namespace {
            b.without_namespace("pid");
        }
        b.payload(&["orphans=2", "say=made"]);
        let c = t.create(&b);
        c.start();
        let made = c.line();
        assert_eq!(made["orphans=2"].as_array().unwrap().len(), 2);
        assert_eq!(c.wait(), 0);
        c.call(&["delete", "--force"]).ok();
        if !namespace {
            for pid in made["orphans=2"].as_array().unwrap() {
                os::reap(pid.as_i64().unwrap() as i32);
            }
        }
        assert_eq!(t.left(), Vec::<String>::new(), "with a pid namespace: {namespace}");
    }
}
