//! Runs every bundle of a directory and holds it to the `expect.json` beside its config.json: this repository's own, or
//! those of the directory that `BRIG_BUNDLES` names, so that anyone can keep bundles in a CI of their own.
//!
//! A bundle is run from a scratch copy. Where it brings no `rootfs` it gets one of busybox and the payload. What can be
//! expected, all of it optional (a bundle without expect.json has to end with status 0):
//!
//! - `about`: what it shows. `flags`: more flags for `run`. `needs`: `cgroup1:CONTROLLER`, `program:NAME` or `call:NAME`,
//!   without which it is skipped. `differs`: reasons to skip other runtimes, by their names.
//! - `status`: the exit status. `stdout`: lines that have to come in this order, with others between them or not.
//!   `stderr`: words that it has to say there. `json`: what the payload's object has to contain, see [`difference`].
//! - `files`: files of the bundle by path, and their text afterwards. `absent`: paths of the bundle that may not exist
//!   afterwards. That no process, mount, cgroup or state is left is always expected.

use crate::support::suite::{self, Body};
use crate::support::{Kind, Test, Value, host, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Every bundle as a test.
pub fn tests() -> Vec<(String, Body)> {
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let bundles = std::env::var_os("BRIG_BUNDLES").map_or_else(own, |dir| of(Path::new(&dir)));
    bundles
        .into_iter()
        .map(|path| (format!("bundles::{}", name(&path)), Box::new(move |t: &Test| run(t, &path)) as Body))
        .collect()
}

/// This repository's bundles.
pub fn own() -> Vec<PathBuf> {
    of(&Path::new(env!("CARGO_MANIFEST_DIR")).join("bundles"))
}

fn of(dir: &Path) -> Vec<PathBuf> {
    let mut bundles: Vec<PathBuf> = fs::read_dir(dir)
        .unwrap_or_else(|e| panic!("{}: {e}", dir.display()))
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.join("config.json").exists())
        .collect();
    bundles.sort();
    bundles
}

fn run(t: &Test, source: &Path) {
    let mut expect = match fs::read(source.join("expect.json")) {
        Ok(text) => serde_json::from_slice(&text).unwrap_or_else(|e| panic!("expect.json: {e}")),
        Err(_) => json!({}),
    };
    if let Some(filters) = expect.pointer_mut("/json/seccomp/filters") {
        *filters = json!(filters.as_i64().expect("expect.json: a number of filters") + t.filters_around());
    }
    skip_if_it_cannot_run(t, &expect);
    let bundle = t.dir().join("bundle");
    prepare(source, &bundle);
    let id = t.new_id();
    let flags = strings(&expect["flags"]);
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let out = t.call(&["run", "--bundle", &bundle.display().to_string()]).args(&flags).args(&[&id]).out();
    let mut wrong = Vec::new();
    let status = expect["status"].as_i64().unwrap_or(0);
    if i64::from(out.code) != status {
        wrong.push(format!("status {}, not {status}", out.code));
    }
    let mut lines = out.stdout.lines();
    for wanted in strings(&expect["stdout"]) {
        if !lines.any(|line| line == wanted) {
            wrong.push(format!("no line {wanted:?} where it should be in stdout"));
        }
    }
    for words in strings(&expect["stderr"]) {
        if !out.stderr.contains(&words) {
            wrong.push(format!("stderr does not say {words:?}"));
        }
    }
    if !expect["json"].is_null() {
        match serde_json::from_str(&out.stdout) {
            Ok(seen) => wrong.extend(difference(&seen, &expect["json"], "")),
            Err(e) => wrong.push(format!("stdout is not JSON: {e}")),
        }
    }
    for (path, text) in expect["files"].as_object().into_iter().flatten() {
        let found = fs::read_to_string(bundle.join(path)).unwrap_or_else(|e| e.to_string());
        if found != *text {
            wrong.push(format!("{path} holds {found:?}, not {text}"));
        }
    }
    for path in strings(&expect["absent"]) {
        if fs::symlink_metadata(bundle.join(&path)).is_ok() {
            wrong.push(format!("{path} is there"));
        }
    }
    assert!(wrong.is_empty(), "{}\nstdout: {}\nstderr: {}", wrong.join("\n"), out.stdout, out.stderr);
}

/// Makes a scratch copy of a bundle that can be run.
pub fn prepare(source: &Path, bundle: &Path) {
    copy(source, bundle);
    if !bundle.join("rootfs").exists() {
        copy(rootfs(), &bundle.join("rootfs"));
        fs::hard_link(suite::scratch().join("payload"), bundle.join("rootfs/bin/payload")).expect("the payload");
    }
}

fn skip_if_it_cannot_run(t: &Test, expect: &Value) {
    for (kind, name) in [(Kind::Runc, "runc"), (Kind::Crun, "crun")] {
        if let Some(reason) = expect["differs"][name].as_str() {
            t.differs(kind, reason);
        }
    }
    for need in strings(&expect["needs"]) {
        match need.split_once(':') {
            Some(("cgroup1", controller)) if host::has_v1(controller) => {}
            Some(("call", group)) => t.needs_call(group),
            Some(("program", name)) if Command::new(name).arg("--version").output().is_ok() => {}
            Some(("cgroup1" | "program", _)) => suite::skip(format!("there is no {need}")),
            _ => panic!("expect.json: unknown need {need:?}"),
        }
    }
}

/// Where `seen` is not as `wanted`, each place with its pointer. Objects are compared by the keys that are wanted (null:
/// absent or null), lists as wholes. An object `{"has": […]}` stands for a list that has these elements, with `"lacks"`
/// for elements that it has not; `{"at_least": n}` and `{"at_most": n}` stand for numbers, `{"starts": s}` for a string.
fn difference(seen: &Value, wanted: &Value, at: &str) -> Vec<String> {
    let one = |ok: bool| if ok { vec![] } else { vec![format!("{at}: {seen} is not {wanted}")] };
    let Some(object) = wanted.as_object() else {
        return match (seen, wanted) {
            (Value::Array(a), Value::Array(b)) => {
                one(a.len() == b.len() && a.iter().zip(b).all(|(a, b)| difference(a, b, at).is_empty()))
            }
            _ => one(seen == wanted),
        };
    };
    let is_in =
        |element: &Value| seen.as_array().is_some_and(|l| l.iter().any(|s| difference(s, element, at).is_empty()));
    let mut wrong = Vec::new();
    for (key, wanted) in object {
        match key.as_str() {
            "has" => wrong.extend(
                wanted
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter(|e| !is_in(e))
                    .map(|e| format!("{at}: no {e} in {seen}")),
            ),
            "lacks" => wrong.extend(
                wanted.as_array().into_iter().flatten().filter(|e| is_in(e)).map(|e| format!("{at}: {e} is in {seen}")),
            ),
            "at_least" => wrong.extend(one(seen.as_i64() >= wanted.as_i64() && seen.is_i64())),
            "at_most" => wrong.extend(one(seen.as_i64() <= wanted.as_i64() && seen.is_i64())),
            "starts" => wrong.extend(one(seen.as_str().zip(wanted.as_str()).is_some_and(|(s, w)| s.starts_with(w)))),
            _ => wrong.extend(difference(&seen[key], wanted, &format!("{at}/{}", key.replace('/', "~1")))),
        }
    }
    wrong
}

fn strings(list: &Value) -> Vec<String> {
    list.as_array().into_iter().flatten().filter_map(|v| v.as_str().map(str::to_string)).collect()
}

/// The root filesystem that bundles get, made once by the script that `make run` uses.
fn rootfs() -> &'static Path {
    static ROOTFS: OnceLock<PathBuf> = OnceLock::new();
    ROOTFS.get_or_init(|| {
        let dir = suite::scratch().join("rootfs");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("hack/rootfs");
        let out = Command::new(&script).arg(&dir).output().expect("hack/rootfs runs");
        assert!(out.status.success(), "hack/rootfs: {}", String::from_utf8_lossy(&out.stderr));
        dir
    })
}

fn copy(from: &Path, to: &Path) {
    let out = Command::new("cp").arg("-a").arg(from).arg(to).output().expect("cp runs");
    assert!(out.status.success(), "cp: {}", String::from_utf8_lossy(&out.stderr));
}
