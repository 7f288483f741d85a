//! Reading config.json and process.json: one parse when all is well; when it is not, a second, slower reading finds
//! every value of a wrong type or unknown word, not just the first.

use super::{Mount, Process, Resources, Spec};
use crate::error::{Context, Error, Problem, Result};
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_path_to_error::Segment;
use std::collections::BTreeMap;
use std::path::Path;

/// A document as read: the typed value, the bytes it came from, and what could not be read. Where `problems` is not
/// empty, the value lacks what they point at, and validation adds its own findings to them.
#[derive(Debug)]
pub struct Loaded<T> {
    /// The typed value.
    pub value: T,
    /// The file's bytes, saved with the container as they are.
    pub raw: Vec<u8>,
    /// Values that have a wrong type or an unknown word.
    pub problems: Vec<Problem>,
}

/// Reads a config.json.
///
/// # Errors
/// The file can't be read, or is not JSON (with line and column).
pub fn load(path: &Path) -> Result<Loaded<Spec>> {
    let raw = std::fs::read(path).during(|| format!("read {}", path.display()))?;
    parse(raw, &path.display().to_string())
}

/// Reads a process.json, the `process` object alone, as `exec --process` takes it.
///
/// # Errors
/// As [`load`].
pub fn load_process(path: &Path) -> Result<Loaded<Process>> {
    let raw = std::fs::read(path).during(|| format!("read {}", path.display()))?;
    parse_process(raw, &path.display().to_string())
}

/// Parses config.json from bytes; `name` is what messages call it.
///
/// # Errors
/// The bytes are not JSON.
pub fn parse(raw: Vec<u8>, name: &str) -> Result<Loaded<Spec>> {
    read(raw, name)
}

/// Parses a process object from bytes; `name` is what messages call it.
///
/// # Errors
/// The bytes are not JSON.
pub fn parse_process(raw: Vec<u8>, name: &str) -> Result<Loaded<Process>> {
    read(raw, name)
}

/// Parses a `linux.resources` object from bytes, as `update` takes it; `name` is what messages call it. A key that no such
/// object has is a problem here: there is nothing else that it could be for.
///
/// # Errors
/// The bytes are not JSON.
pub fn parse_resources(raw: Vec<u8>, name: &str) -> Result<Loaded<Resources>> {
    let mut loaded = read::<Resources>(raw, name)?;
    // A list would read as an object that has its values in order.
    let keys: BTreeMap<String, serde::de::IgnoredAny> = serde_json::from_slice(&loaded.raw)
        .map_err(|_| Error::invalid(format!("{name} is no JSON object: it takes what linux.resources takes")))?;
    for key in keys.keys().filter(|key| !RESOURCES.contains(&key.as_str())) {
        let what = format!("is no part of linux.resources, which has {}", RESOURCES.join(", "));
        loaded.problems.push(Problem::new(format!("/{}", escape(key)), what));
    }
    Ok(loaded)
}

/// The keys of [`Resources`].
const RESOURCES: [&str; 9] =
    ["devices", "memory", "cpu", "pids", "blockIO", "hugepageLimits", "network", "rdma", "unified"];

/// Parses a list of mounts from bytes: a JSON array of them, or an object that holds it as `mounts`, as config.json does.
/// Returns the pointer of the list as well.
///
/// # Errors
/// The bytes are not JSON, or neither.
pub fn parse_mounts(raw: Vec<u8>, name: &str) -> Result<(Loaded<Vec<Mount>>, &'static str)> {
    match raw.iter().find(|byte| !byte.is_ascii_whitespace()) {
        Some(b'[') => Ok((read(raw, name)?, "")),
        Some(b'{') => {
            let Loaded { value: OnlyMounts { mounts }, raw, mut problems } = read::<OnlyMounts>(raw, name)?;
            if mounts.is_empty() && problems.is_empty() {
                problems.push(Problem::new("/mounts", "missing or empty; list the mounts"));
            }
            Ok((Loaded { value: mounts, raw, problems }, "/mounts"))
        }
        None => Err(Error::invalid(format!("{name} is not JSON: it is empty"))),
        Some(_) => Err(Error::invalid(format!("{name} must hold a JSON array of mounts, or an object with `mounts`"))),
    }
}

#[derive(Default, serde::Deserialize)]
struct OnlyMounts {
    #[serde(default, deserialize_with = "super::null_is_default")]
    mounts: Vec<Mount>,
}

fn read<T: DeserializeOwned + Default>(raw: Vec<u8>, name: &str) -> Result<Loaded<T>> {
    match serde_json::from_slice(&raw) {
        Ok(value) => Ok(Loaded { value, raw, problems: Vec::new() }),
        Err(first) => {
            let document = serde_json::from_slice(&raw)
                .map_err(|e| Error::invalid(format!("{name} is not JSON: {}", syntax(&e))))?;
            let (value, problems) = diagnose(document, &first);
            Ok(Loaded { value, raw, problems })
        }
    }
}

fn syntax(e: &serde_json::Error) -> String {
    if e.is_eof() && e.line() <= 1 && e.column() == 0 { "it is empty".into() } else { e.to_string() }
}

/// Reads what can be read: takes out each value that does not fit, notes why, and tries again.
fn diagnose<T: DeserializeOwned + Default>(mut document: Value, first: &serde_json::Error) -> (T, Vec<Problem>) {
    // null reads as the default nearly everywhere; an element of a list needs a value of its own type.
    let stand_ins = [Value::Null, "".into(), 0.into(), false.into(), Value::Object(Default::default())];
    let mut problems: Vec<Problem> = Vec::new();
    let mut rung = 0;
    // Each round replaces one value, so this ends; the bound is for a document made to be slow.
    for _ in 0..1000 {
        let error = match serde_path_to_error::deserialize::<_, T>(&document) {
            Ok(value) => {
                problems.sort();
                return (value, problems);
            }
            Err(error) => error,
        };
        let pointer: String = error
            .path()
            .iter()
            .map_while(|segment| match segment {
                Segment::Seq { index } => Some(format!("/{index}")),
                Segment::Map { key } => Some(format!("/{}", escape(key))),
                Segment::Enum { .. } | Segment::Unknown => None,
            })
            .collect();
        if problems.last().is_some_and(|p| p.pointer == pointer) {
            rung += 1;
        } else {
            rung = 0;
            problems.push(Problem::new(pointer.clone(), error.inner().to_string()));
        }
        match (document.pointer_mut(&pointer), stand_ins.get(rung)) {
            (Some(value), Some(stand_in)) if !pointer.is_empty() => *value = stand_in.clone(),
            _ => return (T::default(), problems),
        }
    }
    problems.push(Problem::new("", first.to_string()));
    (T::default(), problems)
}

/// Escapes one step of a JSON pointer (RFC 6901, section 3).
pub fn escape(step: &str) -> String {
    step.replace('~', "~0").replace('/', "~1")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(json: &str) -> Vec<String> {
        parse(json.as_bytes().to_vec(), "config.json").unwrap().problems.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_wrong_value_is_named_by_its_pointer() {
        let found = problems(
            r#"{"process":{"user":{"uid":4294967296},"args":["a",1]},"linux":{"namespaces":[{"type":"ipx"},{"type":"pid"},{"type":7}]}}"#,
        );
        assert_eq!(found.len(), 4, "{found:?}");
        assert!(
            found[0].starts_with("/linux/namespaces/0/type: unknown variant `ipx`, expected one of `pid`"),
            "{found:?}"
        );
        assert!(found[1].starts_with("/linux/namespaces/2/type"), "{found:?}");
        assert!(found[2].starts_with("/process/args/1: invalid type: integer `1`"), "{found:?}");
        assert!(found[3].starts_with("/process/user/uid: invalid value: integer `4294967296`"), "{found:?}");
    }

    #[test]
    fn resources_alone() {
        let read = |json: &str| parse_resources(json.into(), "r.json").map(|l| (l.value, l.problems));
        let (value, problems) = read(r#"{"pids":{"limit":5},"devices":null,"hugepageLimits":[]}"#).unwrap();
        assert_eq!((value.pids.unwrap().limit, problems.len()), (Some(5), 0));
        let (_, problems) = read(r#"{"linux":{},"memory":{"limit":"5"}}"#).unwrap();
        let said: Vec<_> = problems.iter().map(|p| p.pointer.as_str()).collect();
        assert_eq!(said, ["/memory/limit", "/linux"]);
        for wrong in ["", "[]", "5", "null"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
        // Every key is known: a full object has no other ones.
        let all = r#"{"devices":[{"allow":true}],"memory":{"limit":1},"cpu":{"shares":1},"pids":{"limit":1},"blockIO":{"weight":1},
            "hugepageLimits":[{"pageSize":"2MB"}],"network":{"classID":1},"rdma":{"a":{"hcaHandles":1}},"unified":{"a":"b"}}"#;
        let text = serde_json::to_value(read(all).unwrap().0).unwrap();
        let mut keys: Vec<_> = text.as_object().unwrap().keys().map(String::as_str).collect();
        keys.sort_unstable();
        let mut known = RESOURCES.to_vec();
        known.sort_unstable();
        assert_eq!(keys, known);
    }

    #[test]
    fn null_reads_as_absent() {
        let loaded =
            parse(br#"{"mounts":null,"process":{"env":null,"capabilities":null},"linux":null}"#.to_vec(), "c").unwrap();
        assert!(loaded.problems.is_empty(), "{:?}", loaded.problems);
        assert!(loaded.value.mounts.is_empty());
    }

    #[test]
    fn text_that_is_not_json_has_line_and_column() {
        let error = parse(b"{\n \"a\": }".to_vec(), "config.json").unwrap_err().to_string();
        assert!(error.contains("config.json is not JSON") && error.contains("line 2 column 7"), "{error}");
        let error = parse(Vec::new(), "config.json").unwrap_err().to_string();
        assert!(error.contains("is not JSON"), "{error}");
    }
}
