//! Restricting a command on one's own machine: section D of what people use a sandbox for, a test by name for each line.

mod files;
mod nested;
mod network;
mod settings;

use crate::support::{Call, Out, Test, Value, cases, json, os, runtime, suite};
use files::*;
use nested::*;
use network::*;
use settings::*;
use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};

cases![
    d_deny_read_path_and_glob,
    d_deny_write,
    d_allow_write,
    d_writes_denied_by_default,
    d_protected_files,
    d_protected_files_stay_in_place,
    d_protected_files_when_committed,
    d_protected_directories_of_overlays,
    d_protected_git_directories,
    d_protected_directories_that_are_closed,
    d_binds_of_what_is_denied,
    d_placeholders_of_sandboxes_side_by_side,
    d_search_depth,
    d_no_directory_as_a_stream,
    d_sources_exchanged_for_symlinks,
    d_allowed_domains,
    d_wildcards,
    d_denied_first,
    d_http_connect_socks5,
    d_no_way_around_the_proxies,
    d_no_dns_leak,
    d_local_binding,
    d_external_proxy_ports,
    d_mitm_socket,
    d_unix_sockets_denied,
    d_unix_sockets_allowed,
    d_settings_file,
    d_shell_string,
    d_settings_changed_while_running,
    d_violations_recorded_listed_counted_ignored,
    d_allow_pty,
    d_ports,
    d_landlock,
    d_nested,
    d_in_a_brig_container,
    d_in_podman,
    d_no_leftovers,
];

/// A directory of the host to run sandboxes in, with a home directory and the payload in it.
struct Place<'t> {
    t: &'t Test,
    dir: PathBuf,
    ids: RefCell<Vec<String>>,
}

impl<'t> Place<'t> {
    fn new(t: &'t Test) -> Place<'t> {
        t.only_brig("others have no sandbox");
        let dir = t.dir().join("work");
        fs::create_dir_all(dir.join("home")).unwrap();
        fs::hard_link(suite::scratch().join("payload"), dir.join("payload")).unwrap();
        Place { t, dir, ids: RefCell::default() }
    }

    /// Writes a file of the host, with its directories.
    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    /// What a file of the host holds; nothing if it is not there.
    fn host(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.dir.join(name)).ok()
    }

    fn path(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }

    /// `sandbox run FLAGS`, in the directory; the command is to follow.
    fn call(&self, flags: &[&str]) -> Call<'t> {
        let id = self.t.new_id();
        self.ids.borrow_mut().push(id.clone());
        self.adjust(self.t.call(&["sandbox", "run", "--id", &id]).args(flags))
    }

    /// The ID that the last call has.
    fn last_id(&self) -> String {
        self.ids.borrow().last().unwrap().clone()
    }

    fn adjust(&self, call: Call<'t>) -> Call<'t> {
        call.cwd(&self.dir).env("HOME", &self.path("home"))
    }

    /// A shell string, run to its end.
    #[track_caller]
    fn sh(&self, flags: &[&str], script: &str) -> Out {
        self.call(flags).args(&["-c", script]).out()
    }

    /// What the payload sees in the sandbox.
    #[track_caller]
    fn see(&self, flags: &[&str], verbs: &[&str]) -> Value {
        self.call(flags).args(&["--", "./payload"]).args(verbs).ok().json()
    }

    /// The report of a run of the payload, with what the payload saw as `saw`.
    #[track_caller]
    fn report(&self, flags: &[&str], verbs: &[&str]) -> Value {
        let call = self.call(flags).args(&["--json", "--", "./payload"]).args(verbs);
        let mut report = call.out().json();
        let text = report["stdout"]["text"].as_str().unwrap_or_default().to_owned();
        report["saw"] = serde_json::from_str(&text).unwrap_or_else(|e| panic!("the payload said {text:?} ({e}): {report}"));
        report
    }

    /// Everything in the directory but the payload and the programs: name, kind, mode, and contents.
    fn tree(&self) -> Vec<String> {
        tree(&self.dir)
    }
}

impl Drop for Place<'_> {
    /// Nothing of any sandbox is left, be it on the host or on the way to it.
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        // SAFETY: takes nothing.
        let user = unsafe { libc::geteuid() };
        for id in self.ids.borrow().iter() {
            let doors = [self.t.root().join("sandbox"), PathBuf::from(format!("/tmp/brig-sandbox-{user}"))];
            for door in doors.iter().map(|dir| dir.join(format!("{id}.sock"))) {
                assert!(!door.exists(), "{} is left", door.display());
            }
        }
        let left = self.t.left();
        assert!(left.is_empty(), "left behind: {left:?}");
    }
}

fn tree(dir: &Path) -> Vec<String> {
    use std::os::unix::fs::MetadataExt;
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let (path, metadata) = (entry.path(), entry.metadata().unwrap());
        let what = match metadata.is_file() {
            true if metadata.len() < 1 << 16 => fs::read_to_string(&path).unwrap_or_default(),
            _ => String::new(),
        };
        found.push(format!("{} {:o} {what:?}", path.display(), metadata.mode()));
        if metadata.is_dir() {
            found.extend(tree(&path));
        }
    }
    found.sort();
    found
}

/// The violations of a report of one kind: what was denied.
fn denied(report: &Value, kind: &str) -> Vec<String> {
    let all = report["violations"].as_array().unwrap();
    all.iter().filter(|v| v["kind"] == kind).map(|v| v["what"].as_str().unwrap().to_owned()).collect()
}

/// A copy of the runtime under test that the sandbox of this place can run.
fn own_brig(place: &Place) {
    fs::copy(&runtime::under_test().path, place.dir.join("brig")).unwrap();
}

/// What takes an overlay in a user namespace: the default of a sandbox without root, or within another one.
fn needs_overlays_of_users() {
    let name = nix::sys::utsname::uname().unwrap();
    let mut numbers = name.release().to_str().unwrap().split(['.', '-']).map_while(|word| word.parse::<u32>().ok());
    if (numbers.next(), numbers.next()) < (Some(5), Some(11)) {
        suite::skip("an overlay in a user namespace takes Linux 5.11");
    }
}
