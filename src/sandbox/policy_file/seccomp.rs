//! A system-call profile of the caller's own: `linux.seccomp` of config.json, or the file that docker and podman take, which
//! has an `archMap` and conditions on top; here they are decided for this host, and the plain form is what remains.

use super::shape::{Form, Key, Shape};
use super::text;
use crate::error::{Context, Error, Problem, Result};
use crate::spec::Seccomp;
use serde_json::{Map, Value, json};
use std::path::Path;

const TEXTS: Shape = Shape::List(&Shape::Text);
const NUMBER: Shape = Shape::Whole(u64::MAX);
const ERRNO: Shape = Shape::Whole(u32::MAX as u64);

/// Both forms' keys (runtime-spec config-linux.md, "Seccomp"; moby profiles/seccomp, containers-common pkg/seccomp).
const PROFILE: Form = Form(&[
    Key::required("defaultAction", Shape::Text, ""),
    Key::nullable("defaultErrnoRet", ERRNO, ""),
    Key::nullable("defaultErrno", Shape::Text, ""),
    Key::nullable("architectures", TEXTS, ""),
    Key::nullable("archMap", Shape::List(&Shape::Object(ARCH)), ""),
    Key::nullable("flags", TEXTS, ""),
    Key::nullable("listenerPath", Shape::Text, ""),
    Key::nullable("listenerMetadata", Shape::Text, ""),
    Key::nullable("syscalls", Shape::List(&Shape::Object(CALLS)), ""),
]);

const ARCH: &[Key] = &[Key::required("architecture", Shape::Text, ""), Key::nullable("subArchitectures", TEXTS, "")];

const CALLS: &[Key] = &[
    Key::nullable("names", TEXTS, ""),
    Key::nullable("name", Shape::Text, ""),
    Key::required("action", Shape::Text, ""),
    Key::nullable("errnoRet", ERRNO, ""),
    Key::nullable("errno", Shape::Text, ""),
    Key::nullable("args", Shape::List(&Shape::Object(ARG)), ""),
    Key::nullable("comment", Shape::Text, ""),
    Key::nullable("includes", Shape::Object(CONDITION), ""),
    Key::nullable("excludes", Shape::Object(CONDITION), ""),
];

const ARG: &[Key] = &[
    Key::required("index", ERRNO, ""),
    Key::required("value", NUMBER, ""),
    Key::nullable("valueTwo", NUMBER, ""),
    Key::required("op", Shape::Text, ""),
];

const CONDITION: &[Key] = &[
    Key::nullable("caps", TEXTS, ""),
    Key::nullable("arches", TEXTS, ""),
    Key::nullable("minKernel", Shape::Text, ""),
];

/// Reads a profile from a file: the object itself, or a config.json that has one at `linux.seccomp`.
///
/// # Errors
/// The file can't be read, is no JSON, or is no such profile; every problem is named.
pub fn load(path: &Path) -> Result<Seccomp> {
    let name = path.display().to_string();
    let raw = std::fs::read_to_string(path).during(|| format!("read {name}"))?;
    let mut value = text::read(&raw, super::Format::Json, &name)?;
    let mut at = "";
    if value.get("linux").is_some() {
        at = "/linux/seccomp";
        value = value.pointer_mut(at).map(Value::take).ok_or_else(|| {
            Error::invalid(format!("{name} has no linux.seccomp, so there is no profile to take from it"))
        })?;
    }
    let mut problems = Vec::new();
    normalise(&mut value, at, &mut problems);
    if problems.is_empty() {
        match serde_path_to_error::deserialize(&value) {
            Ok(profile) => return Ok(profile),
            Err(e) => problems.push(super::problem_of(&e, at)),
        }
    }
    Err(Error::problems(&name, &problems))
}

/// Checks a profile in either form and puts it into the plain one. A condition on capabilities holds for a program without
/// any, as a sandboxed one is.
pub fn normalise(value: &mut Value, pointer: &str, problems: &mut Vec<Problem>) {
    let mut found = Vec::new();
    PROFILE.check(value, &mut found);
    let object = value.as_object_mut().filter(|_| found.is_empty());
    if let Some(profile) = object {
        numbered(profile, "defaultErrno", "defaultErrnoRet", "", &mut found);
        architectures(profile, &mut found);
        if let Some(Value::Array(calls)) = profile.get_mut("syscalls") {
            for (n, call) in calls.iter_mut().enumerate() {
                plain(call, &format!("/syscalls/{n}"), &mut found);
            }
            calls.retain(|call| !call.is_null());
        }
    }
    problems.extend(found.into_iter().map(|p| Problem::new(format!("{pointer}{}", p.pointer), p.what)));
}

/// Errnos have a name besides their number with podman: the number is what counts.
fn numbered(object: &mut Map<String, Value>, name: &str, number: &str, pointer: &str, found: &mut Vec<Problem>) {
    if object.remove(name).is_some_and(|name| name.is_string()) && object.get(number).is_none_or(Value::is_null) {
        found.push(Problem::new(format!("{pointer}/{name}"), format!("a name alone; give the number as {number}")));
    }
}

fn architectures(profile: &mut Map<String, Value>, found: &mut Vec<Problem>) {
    let Some(Value::Array(map)) = profile.remove("archMap") else { return };
    if profile.get("architectures").and_then(Value::as_array).is_some_and(|list| !list.is_empty()) {
        return found.push(Problem::new("/archMap", "stands beside architectures; keep one of the two"));
    }
    let native = format!("SCMP_ARCH_{}", std::env::consts::ARCH.to_ascii_uppercase());
    let Some(entry) = map.into_iter().find(|entry| entry["architecture"] == native.as_str()) else { return };
    let mut all = vec![entry["architecture"].clone()];
    all.extend(entry["subArchitectures"].as_array().into_iter().flatten().cloned());
    profile.insert("architectures".into(), all.into());
}

/// One entry in the plain form; null if its conditions don't hold.
fn plain(call: &mut Value, pointer: &str, found: &mut Vec<Problem>) {
    let Some(entry) = call.as_object_mut() else { return };
    entry.remove("comment");
    numbered(entry, "errno", "errnoRet", pointer, found);
    if let Some(Value::String(name)) = entry.remove("name") {
        match entry.get_mut("names") {
            Some(Value::Array(names)) => names.push(name.into()),
            _ => drop(entry.insert("names".into(), json!([name]))),
        }
    }
    let (includes, excludes) = (entry.remove("includes"), entry.remove("excludes"));
    for (key, condition) in [("includes", &includes), ("excludes", &excludes)] {
        let least = condition.as_ref().and_then(|c| c["minKernel"].as_str());
        if let Some(least) = least.filter(|least| version(least).is_none()) {
            let what = format!("{least:?} is no kernel version such as 4.8");
            found.push(Problem::new(format!("{pointer}/{key}/minKernel"), what));
        }
    }
    let left_out =
        includes.is_some_and(|c| Condition(&c).all() == Some(false)) || excludes.is_some_and(|c| Condition(&c).any());
    if left_out {
        *call = Value::Null;
    }
}

struct Condition<'a>(&'a Value);

impl Condition<'_> {
    fn list(&self, key: &str) -> Option<&Vec<Value>> {
        self.0[key].as_array().filter(|list| !list.is_empty())
    }

    /// Capabilities, architecture and kernel, where each is asked for.
    fn parts(&self) -> [Option<bool>; 3] {
        // As Go names them.
        let arch = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "x86" => "386",
            "aarch64" => "arm64",
            "loongarch64" => "loong64",
            "powerpc64" => "ppc64le",
            other => other,
        };
        let kernel = self.0["minKernel"].as_str().and_then(version).map(|least| running() >= least);
        [self.list("caps").map(|_| false), self.list("arches").map(|l| l.iter().any(|a| a == arch)), kernel]
    }

    /// Whether everything asked for holds; `None` if nothing is.
    fn all(&self) -> Option<bool> {
        self.parts().into_iter().flatten().reduce(|a, b| a && b)
    }

    /// Whether one of the things asked for holds.
    fn any(&self) -> bool {
        self.parts().contains(&Some(true))
    }
}

/// Major and minor number of a kernel version.
fn version(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.split('.');
    let major = parts.next()?.parse().ok()?;
    let minor: String = parts.next()?.chars().take_while(char::is_ascii_digit).collect();
    Some((major, minor.parse().ok()?))
}

/// The kernel that runs: the oldest there is if it does not tell, so that a condition on it does not hold.
fn running() -> (u32, u32) {
    std::fs::read_to_string("/proc/sys/kernel/osrelease").ok().and_then(|text| version(text.trim())).unwrap_or((0, 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(profile: &Value) -> (Value, Vec<String>) {
        let (mut value, mut problems) = (profile.clone(), Vec::new());
        normalise(&mut value, "/c", &mut problems);
        (value, problems.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn conditions_are_decided() {
        let entry = |name: &str, more: Value| {
            let mut entry = json!({"names": [name], "action": "SCMP_ACT_ALLOW", "args": null});
            entry.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            entry
        };
        let here = Condition(&json!({"arches": ["amd64", "arm64", "riscv64", "ppc64le", "s390x"]})).any();
        assert!(here, "the test knows this architecture's name");
        let arches = json!(["amd64", "arm64", "riscv64", "ppc64le", "s390x"]);
        let table = [
            (json!({}), true),
            (json!({"comment": "x", "includes": {}, "excludes": null}), true),
            (json!({"includes": {"caps": ["CAP_SYS_ADMIN"]}}), false),
            (json!({"excludes": {"caps": ["CAP_SYS_ADMIN"]}}), true),
            (json!({"includes": {"arches": arches}}), true),
            (json!({"excludes": {"arches": arches}}), false),
            (json!({"includes": {"arches": ["vax"]}}), false),
            (json!({"includes": {"minKernel": "2.6"}}), true),
            (json!({"includes": {"minKernel": "999.0"}}), false),
            (json!({"includes": {"minKernel": "2.6", "caps": ["CAP_BPF"]}}), false),
        ];
        for (more, kept) in table {
            let (value, problems) =
                read(&json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [entry("bpf", more.clone())]}));
            assert_eq!((value["syscalls"].as_array().unwrap().len(), problems.len()), (usize::from(kept), 0), "{more}");
            let profile: Seccomp = serde_json::from_value(value).unwrap();
            assert!(profile.syscalls.iter().all(|call| call.names == ["bpf"]));
        }
    }

    #[test]
    fn problems_have_their_place() {
        let table = [
            (json!({}), "/c/defaultAction: missing"),
            (json!({"defaultAction": "A", "sycalls": []}), "/c/sycalls: unknown key; did you mean syscalls?"),
            (json!({"defaultAction": "A", "defaultErrno": "EPERM"}), "/c/defaultErrno: a name alone"),
            (
                json!({"defaultAction": "A", "syscalls": [{"action": "A", "includes": {"minKernel": "new"}}]}),
                "/c/syscalls/0/includes/minKernel: \"new\" is no kernel version",
            ),
            (
                json!({"defaultAction": "A", "architectures": ["B"], "archMap": [{"architecture": "B"}]}),
                "/c/archMap: stands beside",
            ),
        ];
        for (profile, said) in table {
            let (_, problems) = read(&profile);
            assert!(problems.len() == 1 && problems[0].starts_with(said), "{profile}: {problems:?}");
        }
    }

    #[test]
    fn files_of_each_form() {
        let native = format!("SCMP_ARCH_{}", std::env::consts::ARCH.to_ascii_uppercase());
        let docker = json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1, "archMap": [
            {"architecture": "SCMP_ARCH_VAX"}, {"architecture": native, "subArchitectures": ["SCMP_ARCH_X86"]}],
            "syscalls": [{"name": "read", "action": "SCMP_ACT_ALLOW", "errno": "EPERM", "errnoRet": 1}]});
        let oci = json!({"linux": {"seccomp": {"defaultAction": "SCMP_ACT_ALLOW"}}});
        let path = std::env::temp_dir().join(format!("brig-seccomp-{}", std::process::id()));
        let load = |value: &Value| {
            std::fs::write(&path, value.to_string()).unwrap();
            load(&path)
        };
        let profile = load(&docker).unwrap();
        assert_eq!((profile.architectures.len(), profile.syscalls[0].names.as_slice()), (2, &["read".to_owned()][..]));
        assert_eq!(load(&oci).unwrap().default_action.unwrap().word(), "SCMP_ACT_ALLOW");
        let table = [
            (json!({"linux": {}}), "has no linux.seccomp"),
            (json!([]), "must be an object"),
            (json!({"defaultAction": "SCMP_ACT_ALOW"}), "/defaultAction: unknown variant"),
        ];
        for (value, said) in table {
            let error = load(&value).unwrap_err().to_string();
            assert!(error.contains(said), "{value}: {error}");
        }
        std::fs::remove_file(&path).unwrap();
    }
}
