//! Validation: every problem of a config.json at once, each at its JSON pointer with what would be right. Nothing is made
//! before it has passed.
//!
//! A rule is here when the specification, the kernel or brig itself would refuse the value for certain. Where engines and
//! the other runtimes live with something (a relative destination, maps beside a joined user namespace), so does brig.
//! What only this host can tell (a path of a namespace, a controller) is found later, when it is opened.

mod linux;
mod mounts;
mod namespaces;
mod process;
mod resources;
mod sysctl;
#[cfg(test)]
mod tests;

pub use resources::check as validate_resources;

use crate::error::{Problem, describe};
use crate::prim::seccomp;
use crate::spec::{Hook, Loaded, NamespaceType, Process, Spec, VERSION_MAX, escape};
use crate::sys::Errno;
use serde_json::Value;
use std::cmp::Ordering;
use std::ops::Deref;
use std::path::Path;

/// What validation is to know besides the config.
#[derive(Debug, Clone, Copy, Default)]
pub struct Context<'a> {
    /// The caller is not root.
    pub rootless: bool,
    /// Where to look whether `root.path` exists; without it that is not checked.
    pub bundle: Option<&'a Path>,
    /// `--console-socket` is given.
    pub console_socket: bool,
    /// The caller does not stay with the container: `create`, or `run --detach`.
    pub detached: bool,
}

/// A config without problems. Only [`validate`] makes one.
#[derive(Debug, Clone, Copy)]
pub struct Checked<'a> {
    spec: &'a Spec,
}

impl Deref for Checked<'_> {
    type Target = Spec;

    fn deref(&self) -> &Spec {
        self.spec
    }
}

/// Validates a config.json.
///
/// # Errors
/// Every problem, those of reading it among them, in the order of their pointers.
pub fn validate<'a>(loaded: &'a Loaded<Spec>, context: &Context) -> Result<Checked<'a>, Vec<Problem>> {
    let spec = &loaded.value;
    let unread = Unread(&loaded.problems);
    // When nothing could be read, everything would seem to be missing.
    if !unread.0.is_empty() && *spec == Spec::default() {
        return Err(unread.0.to_vec());
    }
    let mut found = Findings::default();
    document(spec, context, &unread, &mut found);
    match &spec.process {
        Some(process) => {
            process::check(process, spec, "/process", &unread, &mut found);
            process::terminal(process, context, &mut found);
        }
        None => {
            found.add("/process", "missing; name at least what to run and where: {\"args\": [\"sh\"], \"cwd\": \"/\"}")
        }
    }
    mounts::check(spec, &unread, &mut found);
    namespaces::check(spec, context, &unread, &mut found);
    linux::check(spec, &unread, &mut found);
    nul_bytes(&loaded.raw, &mut found);
    if found.0.is_empty() && unread.0.is_empty() {
        return Ok(Checked { spec });
    }
    // Compiling the filter finds its problems, and is done next when there are no others: not twice.
    if let Some(Err(problems)) = spec.linux().seccomp.as_ref().map(seccomp::compile) {
        found.0.extend(problems);
    }
    found.0.retain(|problem| !unread.covers(&problem.pointer));
    found.0.extend_from_slice(unread.0);
    found.0.sort_by(|a, b| by_pointer(&a.pointer, &b.pointer).then_with(|| a.what.cmp(&b.what)));
    Err(found.0)
}

/// Validates a process that is to run in a container of this config; `at` is the pointer that it is called by.
pub fn validate_process(process: &Process, spec: &Spec, at: &str) -> Vec<Problem> {
    let mut found = Findings::default();
    process::check(process, spec, at, &Unread(&[]), &mut found);
    found.0.sort_by(|a, b| by_pointer(&a.pointer, &b.pointer));
    found.0
}

/// Validates mounts that a running container of this config is to get; `at` is the pointer of their list.
pub fn validate_mounts(mounts: &[crate::spec::Mount], spec: &Spec, at: &str) -> Vec<Problem> {
    let mut found = Findings::default();
    let spec = Spec { mounts: mounts.to_vec(), linux: spec.linux.clone(), ..Spec::default() };
    mounts::check(&spec, &Unread(&[]), &mut found);
    if let Ok(list) = serde_json::to_value(mounts) {
        walk(&list, "/mounts", &mut found);
    }
    for problem in &mut found.0 {
        problem.pointer = format!("{at}{}", problem.pointer.trim_start_matches("/mounts"));
    }
    found.0.sort_by(|a, b| by_pointer(&a.pointer, &b.pointer));
    found.0
}

/// What a valid config asks for and does not get. Without a mount namespace of its own a container has its caller's
/// mounts, and a mount would be the machine's; conformance suites start such containers with the usual mounts in their
/// config, which runc leaves out.
pub fn warnings(spec: &Spec) -> Vec<Problem> {
    if spec.linux().namespace(NamespaceType::Mount).is_some() {
        return Vec::new();
    }
    let what = "is left out: the container has no mount namespace of its own";
    let readonly = spec.root.as_ref().is_some_and(|root| root.readonly);
    [(!spec.mounts.is_empty(), "/mounts"), (readonly, "/root/readonly")]
        .into_iter()
        .filter(|(wanted, _)| *wanted)
        .map(|(_, pointer)| Problem::new(pointer, what))
        .collect()
}

/// The problems so far.
#[derive(Debug, Default)]
struct Findings(Vec<Problem>);

impl Findings {
    fn add(&mut self, pointer: impl Into<String>, what: impl Into<String>) {
        self.0.push(Problem::new(pointer, what));
    }
}

/// What could not be read; its place in the spec holds a default, of which nothing follows.
struct Unread<'a>(&'a [Problem]);

impl Unread<'_> {
    /// Whether the value at a pointer is one that could not be read, or lies inside one.
    fn covers(&self, pointer: &str) -> bool {
        self.0.iter().any(|unread| is_in(pointer, &unread.pointer))
    }

    /// Whether the value at a pointer is not wholly known.
    fn touches(&self, pointer: &str) -> bool {
        self.0.iter().any(|unread| is_in(pointer, &unread.pointer) || is_in(&unread.pointer, pointer))
    }
}

/// Whether a pointer leads to a value or to something inside it.
fn is_in(pointer: &str, outer: &str) -> bool {
    pointer.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The order of pointers: step by step, list positions as numbers.
fn by_pointer(a: &str, b: &str) -> Ordering {
    let step = |(a, b): (&str, &str)| match (a.parse::<u64>(), b.parse::<u64>()) {
        (Ok(a), Ok(b)) => a.cmp(&b),
        _ => a.cmp(b),
    };
    let depth = a.split('/').count().cmp(&b.split('/').count());
    a.split('/').zip(b.split('/')).map(step).find(|o| o.is_ne()).unwrap_or(depth)
}

/// Enumerations that list their words.
macro_rules! one_of {
    ($typ:ty) => {
        format!("one of {}", <$typ>::ALL.iter().map(|v| v.word()).collect::<Vec<_>>().join(", "))
    };
}
use one_of;

/// The top level.
fn document(spec: &Spec, context: &Context, unread: &Unread, found: &mut Findings) {
    if let Some(what) = version(&spec.oci_version) {
        found.add("/ociVersion", what);
    }
    match &spec.root {
        None => found.add("/root", "missing; name the root filesystem: {\"path\": \"rootfs\"}"),
        Some(root) if root.path.as_os_str().is_empty() => {
            found.add("/root/path", "missing; name the directory that is to be the container's root");
        }
        Some(root) => {
            if let Some(what) = context.bundle.and_then(|bundle| not_a_directory(&bundle.join(&root.path))) {
                found.add("/root/path", what);
            }
        }
    }
    for (name, value) in [("hostname", &spec.hostname), ("domainname", &spec.domainname)] {
        let Some(value) = value.as_deref().filter(|value| !value.is_empty()) else { continue };
        if spec.linux().namespace(NamespaceType::Uts).is_none() && !unread.touches("/linux/namespaces") {
            found.add(format!("/{name}"), needs_namespace(NamespaceType::Uts, "to be set without changing the host's"));
        }
        if value.len() > 64 {
            found.add(format!("/{name}"), format!("is {} bytes long, and the kernel takes 64", value.len()));
        }
    }
    if spec.annotations.contains_key("") {
        found.add("/annotations/", "a key must not be empty; name the annotation, such as com.example.key");
    }
    let hooks = spec.hooks();
    for (kind, list) in [
        ("prestart", &hooks.prestart),
        ("createRuntime", &hooks.create_runtime),
        ("createContainer", &hooks.create_container),
        ("startContainer", &hooks.start_container),
        ("poststart", &hooks.poststart),
        ("poststop", &hooks.poststop),
    ] {
        for (index, hook) in list.iter().enumerate() {
            hook_problems(hook, &format!("/hooks/{kind}/{index}"), found);
        }
    }
}

fn hook_problems(hook: &Hook, at: &str, found: &mut Findings) {
    absolute(&hook.path, "the program to run", || format!("{at}/path"), found);
    if let Some(seconds @ ..=0) = hook.timeout {
        found.add(format!("{at}/timeout"), format!("{seconds} is no time; give seconds above 0, or leave it out"));
    }
}

/// What is wrong with `ociVersion`. A newer 1.x is taken: what it adds is either known or an unknown field.
fn version(text: &str) -> Option<String> {
    let core = text.split(['-', '+']).next().unwrap_or_default();
    let numbers: Vec<Option<u64>> = core.split('.').map(|part| part.parse().ok()).collect();
    match numbers[..] {
        _ if text.is_empty() => {
            Some(format!("missing; name the version of the runtime specification, such as {VERSION_MAX}"))
        }
        [Some(1), Some(_), Some(_)] => None,
        [Some(_), Some(_), Some(_)] => {
            Some(format!("{text} is not supported; 1.x is, such as 1.0.0 up to {VERSION_MAX}"))
        }
        _ => Some(format!("{text:?} is not a version of three numbers such as {VERSION_MAX}")),
    }
}

fn not_a_directory(path: &Path) -> Option<String> {
    match path.metadata() {
        Ok(data) if data.is_dir() => None,
        Ok(_) => Some(format!("{} is not a directory", path.display())),
        // A NUL byte, which is reported as such.
        Err(error) => error.raw_os_error().map(|e| format!("{}: {}", path.display(), describe(Errno::from_raw(e)))),
    }
}

/// Finds a path that is missing or relative.
fn absolute(path: &Path, means: &str, at: impl FnOnce() -> String, found: &mut Findings) {
    if path.as_os_str().is_empty() {
        found.add(at(), format!("missing; name {means} by an absolute path"));
    } else if !path.is_absolute() {
        found.add(at(), format!("{:?} is relative; it must be an absolute path", path.display()));
    }
}

/// "needs a uts namespace …; add it".
fn needs_namespace(typ: NamespaceType, why: &str) -> String {
    let word = typ.word();
    let article = if word.starts_with('i') { "an" } else { "a" };
    format!("needs {article} {word} namespace {why}; add {{\"type\": \"{word}\"}} to linux.namespaces")
}

/// Finds NUL bytes, which no string of the kernel's can hold. In JSON they are written one way only, so that the
/// document is walked only where there is one.
fn nul_bytes(raw: &[u8], found: &mut Findings) {
    const PARTS: [&str; 7] = ["process", "root", "hostname", "domainname", "mounts", "hooks", "linux"];
    if !raw.split(|byte| *byte == b'\\').skip(1).any(|rest| rest.starts_with(b"u0000")) {
        return;
    }
    let document: Value = serde_json::from_slice(raw).unwrap_or_default();
    for part in PARTS {
        walk(&document[part], &format!("/{part}"), found);
    }
}

fn walk(value: &Value, at: &str, found: &mut Findings) {
    const WHAT: &str = "holds a NUL byte, which ends a string for the kernel; remove it";
    match value {
        Value::String(text) if text.contains('\0') => found.add(at, WHAT),
        Value::Array(list) => {
            list.iter().enumerate().for_each(|(index, value)| walk(value, &format!("{at}/{index}"), found));
        }
        Value::Object(map) => {
            for (key, value) in map {
                let at = format!("{at}/{}", escape(key));
                if key.contains('\0') {
                    found.add(at.clone(), WHAT);
                }
                walk(value, &at, found);
            }
        }
        _ => {}
    }
}
