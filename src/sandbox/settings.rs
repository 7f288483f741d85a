//! The settings file of sandbox-runtime, read as it is: the whole host is visible, nothing may be written but what
//! `allowWrite` names and the private /tmp, and the network is what the lists of domains allow.

use super::policy::{Mitm, NetworkMode, Policy, Profile, View, Workdir};
use super::policy_file::shape::{Form, Key, Shape};
use super::policy_file::{Format, text, typed};
use crate::error::{Error, Problem, Result};
use crate::spec::escape;
use serde::Deserialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

const TEXTS: Shape = Shape::List(&Shape::Text);

const FORM: Form = Form(&[
    Key::new("network", Shape::Object(NETWORK), ""),
    Key::new("filesystem", Shape::Object(FILESYSTEM), ""),
    Key::new("ignoreViolations", Shape::Map(&TEXTS), ""),
    Key::new("enableWeakerNestedSandbox", Shape::Flag, ""),
    Key::new("mandatoryDenySearchDepth", Shape::Whole(u32::MAX as u64), ""),
    Key::new("allowPty", Shape::Flag, ""),
    Key::new("seccomp", Shape::Object(SECCOMP), ""),
    Key::new("ripgrep", Shape::Object(RIPGREP), ""),
]);

const NETWORK: &[Key] = &[
    Key::new("allowedDomains", TEXTS, ""),
    Key::new("deniedDomains", TEXTS, ""),
    Key::new("allowUnixSockets", TEXTS, ""),
    Key::new("allowAllUnixSockets", Shape::Flag, ""),
    Key::new("allowLocalBinding", Shape::Flag, ""),
    Key::new("httpProxyPort", Shape::Whole(65535), ""),
    Key::new("socksProxyPort", Shape::Whole(65535), ""),
    Key::new("mitmProxy", Shape::Object(MITM), ""),
];

const MITM: &[Key] = &[Key::required("socketPath", Shape::Text, ""), Key::required("domains", TEXTS, "")];

const FILESYSTEM: &[Key] = &[
    Key::new("denyRead", TEXTS, ""),
    Key::new("allowWrite", TEXTS, ""),
    Key::new("denyWrite", TEXTS, ""),
    Key::new("allowGitConfig", Shape::Flag, ""),
];

const SECCOMP: &[Key] = &[Key::new("bpfPath", Shape::Text, ""), Key::new("applyPath", Shape::Text, "")];

const RIPGREP: &[Key] = &[Key::new("command", Shape::Text, ""), Key::new("args", TEXTS, "")];

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Settings {
    network: Network,
    filesystem: Filesystem,
    ignore_violations: Option<BTreeMap<String, Vec<String>>>,
    enable_weaker_nested_sandbox: Option<bool>,
    mandatory_deny_search_depth: Option<u32>,
    allow_pty: Option<bool>,
    seccomp: Option<Value>,
    ripgrep: Option<Value>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Network {
    allowed_domains: Option<Vec<String>>,
    denied_domains: Option<Vec<String>>,
    allow_unix_sockets: Option<Vec<String>>,
    allow_all_unix_sockets: Option<bool>,
    allow_local_binding: Option<bool>,
    http_proxy_port: Option<u16>,
    socks_proxy_port: Option<u16>,
    mitm_proxy: Option<MitmProxy>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct MitmProxy {
    socket_path: String,
    domains: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Filesystem {
    deny_read: Option<Vec<String>>,
    allow_write: Option<Vec<String>>,
    deny_write: Option<Vec<String>>,
    allow_git_config: Option<bool>,
}

/// Where paths are taken from that are not absolute.
#[derive(Debug, Clone, Copy)]
pub struct Base<'a> {
    /// For relative ones; absolute itself.
    pub directory: &'a Path,
    /// For `~`, if it is known.
    pub home: Option<&'a Path>,
}

impl Base<'_> {
    /// A path or glob as an absolute one; `.` and doubled slashes are dropped, `..` stays, as links may come before it.
    ///
    /// # Errors
    /// In words: it is empty, or has a `~` that is not known.
    pub fn resolve(&self, text: &str) -> Result<String, String> {
        let below = match text.strip_prefix('~') {
            _ if text.is_empty() => return Err("an empty path; name a file or directory".into()),
            Some("") => Some(""),
            Some(rest) => rest.strip_prefix('/'),
            None => None,
        };
        let joined = match (below, self.home) {
            (Some(rest), Some(home)) => home.join(rest.trim_start_matches('/')),
            (Some(_), None) => {
                return Err(format!("{text:?}: the home directory is not known; set HOME, or write it out"));
            }
            (None, _) => self.directory.join(text),
        };
        let plain: PathBuf = joined.components().filter(|part| *part != Component::CurDir).collect();
        plain.into_os_string().into_string().map_err(|path| format!("{}: not UTF-8", path.display()))
    }
}

/// Puts settings into a policy: network and files become what the settings say, the rest stays unless it is named there.
/// `text` is the file's text. Returns notes: what was accepted although it has no effect here, and how things were read.
///
/// # Errors
/// The text is no JSON (line and column), or has unknown keys or wrong values: all of them, each with its JSON pointer.
pub fn apply(policy: &mut Policy, text: &str, base: Base<'_>) -> Result<Vec<String>> {
    let settings: Settings = typed(text::read(text, Format::Json, NAME)?, &FORM, NAME)?;
    let mut changed = policy.clone();
    changed.files.view = View::Host;
    changed.files.workdir = Workdir::ReadOnly;
    changed.files.overlay.clear();
    changed.files.binds.clear();
    for list in [&mut changed.files.allow_write, &mut changed.files.deny_read, &mut changed.files.deny_write] {
        list.clear();
    }
    changed.network = super::policy::Network { mode: NetworkMode::Domains, ..Default::default() };
    changed.syscalls.profile = Profile::Network;
    let notes = Put { policy: &mut changed, base, problems: Vec::new(), notes: Vec::new() }.all(settings)?;
    *policy = changed;
    Ok(notes)
}

/// Changes a policy while its sandbox runs, by one line of JSON in the settings' form. `allowedDomains` and `deniedDomains`
/// can change; any other key may be there as long as it says what holds already.
///
/// # Errors
/// As [`apply`]; or a key that can't change any more, by name. The policy is as before then.
pub fn update(policy: &mut Policy, line: &str, base: Base<'_>) -> Result<Vec<String>> {
    const NAME: &str = "the change of the settings";
    let document = text::read(line, Format::Json, NAME)?;
    let settings: Settings = typed(document.clone(), &FORM, NAME)?;
    let mut problems = Vec::new();
    for (pointer, alone) in parts(&document) {
        if pointer == "/network/allowedDomains" || pointer == "/network/deniedDomains" {
            continue;
        }
        let mut other = policy.clone();
        let put = Put { policy: &mut other, base, problems: Vec::new(), notes: Vec::new() };
        put.all(typed(alone, &FORM, NAME)?)?;
        if other != *policy {
            let what = "can't change while the sandbox runs; only network.allowedDomains and network.deniedDomains can";
            problems.push(Problem::new(pointer, what));
        }
    }
    if !problems.is_empty() {
        return Err(Error::problems(NAME, &problems).hint("start the sandbox anew with these settings"));
    }
    let mut changed = policy.clone();
    let notes = Put { policy: &mut changed, base, problems: Vec::new(), notes: Vec::new() }.all(settings)?;
    *policy = changed;
    Ok(notes)
}

const NAME: &str = "the settings file";

/// Each setting of a document by itself: its JSON pointer, and a document with nothing else.
fn parts(document: &Value) -> Vec<(String, Value)> {
    let object = |key: &str, value: Value| Value::Object(Map::from_iter([(key.to_owned(), value)]));
    let mut all = Vec::new();
    for (key, value) in document.as_object().into_iter().flatten() {
        match value {
            Value::Object(inner) if key == "network" || key == "filesystem" => {
                for (name, value) in inner {
                    let pointer = format!("/{}/{}", escape(key), escape(name));
                    all.push((pointer, object(key, object(name, value.clone()))));
                }
            }
            _ => all.push((format!("/{}", escape(key)), object(key, value.clone()))),
        }
    }
    all
}

struct Put<'a> {
    policy: &'a mut Policy,
    base: Base<'a>,
    problems: Vec<Problem>,
    notes: Vec<String>,
}

impl Put<'_> {
    fn all(mut self, settings: Settings) -> Result<Vec<String>> {
        self.network(settings.network);
        self.files(settings.filesystem);
        if let Some(ignored) = settings.ignore_violations {
            self.policy.ignore_violations = self.programs(ignored);
        }
        set(&mut self.policy.weaker_nested, settings.enable_weaker_nested_sandbox);
        set(&mut self.policy.files.protect_depth, settings.mandatory_deny_search_depth);
        let without_effect = [
            (settings.allow_pty.is_some(), "allowPty has no effect: it is about macOS"),
            (
                settings.seccomp.is_some(),
                "seccomp has no effect: brig makes its filters itself, files with them are not used",
            ),
            (settings.ripgrep.is_some(), "ripgrep has no effect: brig looks for protected files itself"),
        ];
        self.notes.extend(without_effect.iter().filter(|(given, _)| *given).map(|(_, note)| (*note).to_owned()));
        if self.problems.is_empty() { Ok(self.notes) } else { Err(Error::problems(NAME, &self.problems)) }
    }

    fn network(&mut self, given: Network) {
        let sockets = given.allow_unix_sockets.map(|list| self.paths(list, "/network/allowUnixSockets"));
        let mitm = given.mitm_proxy.map(|mitm| {
            let socket = self.paths(vec![mitm.socket_path], "/network/mitmProxy/socketPath").pop().unwrap_or_default();
            Mitm { socket: socket.into(), domains: mitm.domains }
        });
        let network = &mut self.policy.network;
        set(&mut network.allow, given.allowed_domains);
        set(&mut network.deny, given.denied_domains);
        set(&mut network.allow_all_unix_sockets, given.allow_all_unix_sockets);
        set(&mut network.allow_local_binding, given.allow_local_binding);
        if let Some(sockets) = sockets {
            // What is allowed altogether needs no list; here a list beside it would be a contradiction.
            if network.allow_all_unix_sockets && !sockets.is_empty() {
                self.notes.push("allowUnixSockets has no effect beside allowAllUnixSockets".into());
            } else {
                network.allow_unix_sockets = sockets.into_iter().map(PathBuf::from).collect();
            }
        }
        network.http_proxy_port = given.http_proxy_port.or(network.http_proxy_port);
        network.socks_proxy_port = given.socks_proxy_port.or(network.socks_proxy_port);
        network.mitm = mitm.or(network.mitm.take());
    }

    fn files(&mut self, given: Filesystem) {
        if let Some(list) = given.allow_write {
            let list = self.paths(list, "/filesystem/allowWrite");
            self.policy.files.allow_write = list.into_iter().flat_map(|path| self.writable(path)).collect();
            let cwd = self.policy.process.cwd.as_deref().unwrap_or(self.base.directory);
            let within = self.policy.files.allow_write.iter().any(|path| cwd.starts_with(path));
            self.policy.files.workdir = if within { Workdir::Write } else { Workdir::ReadOnly };
        }
        for (list, pointer, put) in [
            (given.deny_read, "/filesystem/denyRead", &mut self.policy.files.deny_read),
            (given.deny_write, "/filesystem/denyWrite", &mut self.policy.files.deny_write),
        ] {
            set(put, list.map(|list| resolved(self.base, list, pointer, &mut self.problems)));
        }
        set(&mut self.policy.files.allow_git_config, given.allow_git_config);
    }

    /// A directory's whole contents are the directory; another glob stands for what it finds now.
    fn writable(&mut self, path: String) -> Vec<String> {
        let whole = path.strip_suffix("/**").map(|path| if path.is_empty() { "/" } else { path });
        let path = whole.map_or(path.clone(), str::to_owned);
        if !path.contains(['*', '?', '[']) || Path::new(&path).exists() {
            return vec![path];
        }
        match glob::glob(&path) {
            Ok(found) => {
                let found: Vec<_> =
                    found.flatten().filter_map(|path| path.into_os_string().into_string().ok()).collect();
                let note = match found.len() {
                    0 => "finds nothing now, so it allows nothing".to_owned(),
                    n => format!("stands for the {n} paths that are there now"),
                };
                self.notes.push(format!("allowWrite: {path} {note}"));
                found
            }
            Err(e) => {
                let what = format!("{path:?} is no glob: {e}");
                self.problems.push(Problem::new("/filesystem/allowWrite", what));
                Vec::new()
            }
        }
    }

    fn paths(&mut self, list: Vec<String>, pointer: &str) -> Vec<String> {
        resolved(self.base, list, pointer, &mut self.problems)
    }

    /// Command patterns as programs' names: a violation tells the program, not its arguments.
    fn programs(&mut self, ignored: BTreeMap<String, Vec<String>>) -> BTreeMap<String, Vec<String>> {
        let mut programs: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (command, patterns) in ignored {
            let word = command.split_whitespace().next().unwrap_or_default();
            let program = word.rsplit('/').next().unwrap_or_default();
            if program.is_empty() {
                let pointer = format!("/ignoreViolations/{}", escape(&command));
                self.problems.push(Problem::new(pointer, "names no program; give its name, or * for every one"));
                continue;
            }
            if program != command {
                self.notes.push(format!("ignoreViolations: {command:?} is read as every run of {program}"));
            }
            programs.entry(program.to_owned()).or_default().extend(patterns);
        }
        programs
    }
}

fn resolved(base: Base<'_>, list: Vec<String>, pointer: &str, problems: &mut Vec<Problem>) -> Vec<String> {
    let read = |(n, text): (usize, String)| match base.resolve(&text) {
        Ok(path) => Some(path),
        Err(what) => {
            problems.push(Problem::new(format!("{pointer}/{n}"), what));
            None
        }
    };
    list.into_iter().enumerate().filter_map(read).collect()
}

fn set<T>(place: &mut T, given: Option<T>) {
    if let Some(value) = given {
        *place = value;
    }
}

#[cfg(test)]
mod tests;
