//! `brig plan`: the compiled steps in words, without doing any of them.

use crate::bundles;
use crate::support::{Test, Value, cases, json};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

cases![every_bundle_has_a_plan, a_plan_touches_nothing, a_plan_names_what_asks_for_a_step, a_failure_uses_the_words_of_the_plan, a_plan_of_a_bad_config_lists_its_problems];

const NONE: &str = "it has no plan command";

fn every_bundle_has_a_plan(t: &Test) {
    t.only_brig(NONE);
    for source in bundles::own() {
        let name = source.file_name().unwrap().to_string_lossy().into_owned();
        let bundle = t.dir().join(&name);
        bundles::prepare(&source, &bundle);
        let before = tree(&bundle);
        let out = t.call(&["plan", &bundle.display().to_string()]).ok();
        assert!(out.stdout.lines().count() > 3, "{name}: {}", out.stdout);
        assert!(out.stdout.contains("/process"), "{name}: no step names its pointer: {}", out.stdout);
        assert_eq!(tree(&bundle), before, "{name}: the plan changed the bundle");
    }
    assert_eq!(t.left(), Vec::<String>::new());
}

/// Every path below a directory.
fn tree(dir: &Path) -> BTreeSet<PathBuf> {
    let mut all = BTreeSet::new();
    let mut todo = vec![dir.to_path_buf()];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(dir).unwrap().flatten() {
            if entry.file_type().unwrap().is_dir() {
                todo.push(entry.path());
            }
            all.insert(entry.path());
        }
    }
    all
}

fn a_plan_touches_nothing(t: &Test) {
    t.only_brig(NONE);
    let mut b = t.bundle();
    b.set("/process/cwd", json!("/made")).mount("/made/too", "tmpfs", "tmpfs", &[]).set("/hooks", json!({"createRuntime": [{"path": "/bin/false"}]}));
    b.payload(&["sleep"]).write();
    let before = tree(b.dir());
    t.call(&["plan", b.path()]).ok();
    assert_eq!(tree(b.dir()), before);
    assert!(!t.root().exists(), "a plan needs no state directory");
}

fn a_plan_names_what_asks_for_a_step(t: &Test) {
    t.only_brig(NONE);
    let mut b = t.bundle();
    b.set("/process/rlimits", json!([{"type": "RLIMIT_CORE", "soft": 0, "hard": 0}])).set("/linux/maskedPaths", json!(["/proc/keys"]));
    b.set("/linux/sysctl", json!({"net.ipv4.ip_forward": "1"})).set("/process/oomScoreAdj", json!(5)).mount("/mnt", "tmpfs", "tmpfs", &["nosuid"]);
    b.write();
    let plan = t.call(&["plan", b.path()]).ok().stdout;
    for pointer in ["/root", "/mounts/0", "/mounts/6", "/linux/maskedPaths", "/linux/sysctl", "/process/oomScoreAdj", "/process/rlimits", "/process/capabilities", "/process/args", "/hostname"] {
        assert!(plan.contains(pointer), "no step names {pointer}:\n{plan}");
    }
}

fn a_failure_uses_the_words_of_the_plan(t: &Test) {
    t.only_brig(NONE);
    let table: [(&str, Value); 3] = [
        ("/mounts/-", json!({"destination": "/mnt", "type": "tmpfs", "source": "tmpfs", "options": ["size=nonsense"]})),
        ("/mounts/-", json!({"destination": "/mnt", "type": "nosuchfs", "source": "none"})),
        ("/process/cwd", json!("/etc/hostname")),
    ];
    for (pointer, value) in table {
        let mut b = t.bundle();
        b.set(pointer, value);
        let error = t.create_fails(&b, &[]).stderr;
        let plan = t.call(&["plan", b.path()]).ok().stdout;
        let id_and_rest = error.trim_start_matches("brig: create ").split_once(": ").expect("who and what").1;
        let step = id_and_rest.split(" [").next().expect("the step");
        assert!(plan.contains(step), "the error's {step:?} is not in the plan:\n{plan}");
    }
}

fn a_plan_of_a_bad_config_lists_its_problems(t: &Test) {
    t.only_brig(NONE);
    let mut b = t.bundle();
    b.set("/process/cwd", json!("relative")).set("/process/args", json!([])).write();
    t.call(&["plan", b.path()]).out().code(1).fails(&["/process/cwd", "/process/args"]);
}
