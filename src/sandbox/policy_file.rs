//! The policy file, JSON or TOML: read with every problem at once, and described by a JSON Schema.

mod keys;
mod nearest;
mod seccomp;
pub(super) mod shape;
pub(super) mod text;

pub use nearest::nearest;
pub use seccomp::load as load_seccomp;

use super::policy::{NetworkMode, Policy};
use crate::error::{Context, Error, Problem, Result};
use crate::spec::escape;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use serde_path_to_error::Segment;
use std::path::Path;

/// The form of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// RFC 8259.
    Json,
    /// [TOML 1.0](https://toml.io/en/v1.0.0).
    Toml,
}

impl Format {
    /// The form of a file, by the end of its name; otherwise by its text: only an object in JSON starts with a brace.
    pub fn of(path: &Path, text: &str) -> Format {
        let extension = path.extension().and_then(|e| e.to_str()).map(str::to_ascii_lowercase);
        match extension.as_deref() {
            Some("json") => Format::Json,
            Some("toml") => Format::Toml,
            _ if text.trim_start_matches('\u{feff}').trim_start().starts_with('{') => Format::Json,
            _ => Format::Toml,
        }
    }
}

/// Reads a policy file. What it does not say is as in [`Policy::default`].
///
/// # Errors
/// The file can't be read, or as [`parse`].
pub fn load(path: &Path) -> Result<Policy> {
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path).during(|| format!("read the policy {name}"))?;
    parse(&text, Format::of(path, &text), &name)
}

/// Parses a policy; `name` is what messages call it. A list of domains without a `mode` makes the mode `domains`.
///
/// # Errors
/// The text is not of this form (with line and column); or keys and values that don't fit, all of them, each with its JSON
/// pointer. Contradictions are another matter: see [`check`](super::check::check).
pub fn parse(text: &str, format: Format, name: &str) -> Result<Policy> {
    let document = text::read(text, format, name)?;
    let says_mode = document.pointer("/network/mode").is_some();
    let mut policy: Policy = typed(document, &keys::POLICY, name)?;
    let network = &mut policy.network;
    let lists = !network.allow.is_empty() || !network.deny.is_empty() || network.mitm.is_some();
    if lists && !says_mode {
        network.mode = NetworkMode::Domains;
    }
    Ok(policy)
}

/// A document checked by its form, then read as its type. What says where its schema is has no effect where the form has it.
pub(super) fn typed<T: DeserializeOwned>(mut document: Value, form: &shape::Form, name: &str) -> Result<T> {
    let mut problems = Vec::new();
    form.check(&mut document, &mut problems);
    if problems.is_empty() {
        document.as_object_mut().map(|map| map.remove(keys::SCHEMA));
        match serde_path_to_error::deserialize(&document) {
            Ok(value) => return Ok(value),
            Err(e) => problems.push(problem_of(&e, "")),
        }
    }
    Err(Error::problems(name, &problems))
}

/// What a type could not read, with the pointer to it below `above`.
fn problem_of(error: &serde_path_to_error::Error<serde_json::Error>, above: &str) -> Problem {
    let steps = error.path().iter().map_while(|segment| match segment {
        Segment::Seq { index } => Some(format!("/{index}")),
        Segment::Map { key } => Some(format!("/{}", escape(key))),
        Segment::Enum { .. } | Segment::Unknown => None,
    });
    Problem::new(above.to_owned() + &steps.collect::<String>(), error.inner().to_string())
}

/// The JSON Schema (draft 2020-12) of the policy file, with each key's meaning and default.
pub fn schema() -> Value {
    // Every default is of plain types.
    let defaults = serde_json::to_value(Policy::default()).unwrap_or_default();
    let mut schema = shape::object(keys::POLICY.0, &defaults);
    schema["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    schema["title"] = json!("Policy of a brig sandbox");
    schema["description"] = json!("What a sandbox may do and how much of it. An amount's text may be none: no limit.");
    schema
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::policy::{Bind, Mitm, Profile, View, Workdir};
    use crate::sandbox::units::{Bytes, Percent, Span};
    use std::collections::BTreeSet;
    use std::time::Duration;

    #[test]
    fn both_forms_and_both_ways_of_writing_amounts() {
        let toml = r#"
            id = "a"
            [limits]
            memory = "256M"
            cpu = 150
            cpu_time = "none"
            pids = "none"
            timeout = "1m30s"
            [files]
            view = { root_overlay = "/srv/root" }
            workdir = "read_only"
            binds = [{ source = "/data", write = true }]
            [network]
            allow = ["example.com"]
            [syscalls]
            profile = "io-heavy"
            custom = { defaultAction = "SCMP_ACT_ALLOW" }
            [ignore_violations]
            "*" = ["getrandom"]
        "#;
        let json = r#"{"id": "a", "limits": {"memory": 268435456, "cpu": "150%", "cpu_time": null, "pids": null, "timeout": 90},
            "files": {"view": {"root_overlay": "/srv/root"}, "workdir": "read_only", "binds": [{"source": "/data", "write": true}]},
            "network": {"allow": ["example.com"]},
            "syscalls": {"profile": "io-heavy", "custom": {"defaultAction": "SCMP_ACT_ALLOW"}},
            "ignore_violations": {"*": ["getrandom"]}}"#;
        let policy = parse(toml, Format::Toml, "p").unwrap();
        assert_eq!(policy, parse(json, Format::Json, "p").unwrap());
        assert_eq!(policy.limits.memory, Some(Bytes(256 << 20)));
        assert_eq!((policy.limits.cpu, policy.limits.pids), (Some(Percent(150.0)), None));
        assert_eq!(policy.limits.timeout, Some(Span(Duration::from_secs(90))));
        assert_eq!(policy.limits.open_files, Policy::default().limits.open_files);
        assert_eq!(
            (policy.files.view, policy.files.workdir),
            (View::RootOverlay("/srv/root".into()), Workdir::ReadOnly)
        );
        assert_eq!((policy.network.mode, policy.syscalls.profile), (NetworkMode::Domains, Profile::IoHeavy));
        let said = parse(r#"{"network": {"mode": "none", "allow": ["a"]}}"#, Format::Json, "p").unwrap();
        assert_eq!(said.network.mode, NetworkMode::None);
    }

    #[test]
    fn what_a_policy_is_written_as_reads_back() {
        for text in ["{}", "{\"files\": {\"view\": \"host\"}}"] {
            assert_eq!(parse(text, Format::Json, "p").unwrap(), Policy::default(), "{text}");
        }
        assert_eq!(parse("", Format::Toml, "p").unwrap(), Policy::default());
        let (json, toml) = (r#"{"$schema": "./policy.json"}"#, "\"$schema\" = \"./policy.json\"");
        assert_eq!(parse(json, Format::Json, "p").unwrap(), Policy::default());
        assert_eq!(parse(toml, Format::Toml, "p").unwrap(), Policy::default());
        let policy = full();
        assert_eq!(parse(&serde_json::to_string(&policy).unwrap(), Format::Json, "p").unwrap(), policy);
    }

    #[test]
    fn problems_are_told_in_words() {
        let table = [
            (r#"{"limits": {"memroy": 1}}"#, "/limits/memroy: unknown key; did you mean memory?"),
            (r#"{"memory": 1}"#, "/memory: unknown key; did you mean /limits/memory?"),
            (r#"{"limits": {"profile": 1}}"#, "/limits/profile: unknown key; did you mean /syscalls/profile?"),
            (r#"{"a/b": 1}"#, "/a~1b: unknown key; known here: id, limits"),
            (r#"{"limits": {"memory": "12Q"}}"#, "/limits/memory: \"12Q\" is no size: give bytes"),
            (
                r#"{"limits": {"memory": true}}"#,
                "/limits/memory: must be a size: bytes, or text such as \"256M\"; this is true",
            ),
            (r#"{"limits": {"memory": -1}}"#, "/limits/memory: -1 is out of range"),
            (r#"{"limits": {"pids": 1.5}}"#, "/limits/pids: must be a whole number; this is 1.5"),
            (r#"{"limits": {"cpu": "0"}}"#, "/limits/cpu: \"0\" is no share"),
            (
                r#"{"limits": {"timeout": []}}"#,
                "/limits/timeout: must be a time: seconds, or text such as \"1m30s\"; this is a list",
            ),
            (r#"{"limits": {"cpu_quota": [1]}}"#, "/limits/cpu_quota: must be a list of two whole numbers"),
            (r#"{"limits": []}"#, "/limits: must be an object with keys such as memory; this is a list"),
            (
                r#"{"files": {"allow_write": "/a"}}"#,
                "/files/allow_write: must be a list, each item a text; this is the text \"/a\"",
            ),
            (r#"{"files": {"allow_write": ["/a", 7]}}"#, "/files/allow_write/1: must be a text; this is 7"),
            (r#"{"files": {"protect": null}}"#, "/files/protect: must be true or false; this is null; leave"),
            (
                r#"{"files": {"workdir": "readonly"}}"#,
                "/files/workdir: unknown word \"readonly\"; did you mean read_only?",
            ),
            (r#"{"files": {"view": "guest"}}"#, "/files/view: unknown word \"guest\"; known here: host"),
            (r#"{"files": {"view": {}}}"#, "/files/view: must have one key of root, root_overlay"),
            (r#"{"files": {"view": {"root": "/a", "root_overlay": "/b"}}}"#, "/files/view: must have one key"),
            (r#"{"files": {"view": 7}}"#, "/files/view: must be the word host, or an object such as {\"root\": ...}"),
            (r#"{"files": {"binds": [{"target": "/a"}]}}"#, "/files/binds/0/source: missing; give a text"),
            (
                r#"{"network": {"http_proxy_port": 65536}}"#,
                "/network/http_proxy_port: must be a whole number from 0 to 65535; this is 65536",
            ),
            (r#"{"network": {"mitm": {"socket": "/s"}}}"#, "/network/mitm/domains: missing"),
            (
                r#"{"syscalls": {"profile": "netwrok"}}"#,
                "/syscalls/profile: unknown word \"netwrok\"; did you mean network?",
            ),
            (
                r#"{"syscalls": {"custom": {"defaultAction": "X"}}}"#,
                "/syscalls/custom/defaultAction: unknown variant `X`",
            ),
            (r#"{"process": {"env": {"A": 1}}}"#, "/process/env/A: must be a text; this is 1"),
            (r#"{"$schema": 1}"#, "/$schema: must be a text; this is 1"),
            (r#"{"limits": {"$schema": "a"}}"#, "/limits/$schema: unknown key; did you mean /$schema?"),
            ("[]", "must be an object with keys such as id; this is a list"),
        ];
        for (text, said) in table {
            let error = parse(text, Format::Json, "p").unwrap_err().to_string();
            assert!(error.starts_with(&format!("p is not valid: {said}")), "{text}: {error}");
        }
    }

    #[test]
    fn all_problems_come_at_once() {
        let text = "lint = 1\n[limits]\nmemroy = 1\npids = \"x\"\n[files]\nworkdir = \"rw\"";
        let error = parse(text, Format::Toml, "p.toml").unwrap_err().to_string();
        assert_eq!(error.lines().count(), 5, "{error}");
        assert!(error.starts_with("p.toml is not valid, 4 problems:\n  /"), "{error}");
    }

    #[test]
    fn the_form_of_a_file() {
        let directory = std::env::temp_dir().join(format!("brig-policy-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let table = [
            ("a.json", r#"{"lint": "warn"}"#, true),
            ("a.toml", "lint = \"warn\"", true),
            ("a", " {\"lint\": \"warn\"}", true),
            ("b", "lint = \"warn\"", true),
            ("b.json", "lint = \"warn\"", false),
            ("b.TOML", "{\"lint\": \"warn\"}", false),
        ];
        for (name, text, fits) in table {
            let path = directory.join(name);
            std::fs::write(&path, text).unwrap();
            let loaded = load(&path);
            assert_eq!(loaded.is_ok(), fits, "{name} {text}: {loaded:?}");
            assert!(loaded.is_ok() || loaded.unwrap_err().to_string().contains("line 1 column"), "{name}");
        }
        let error = load(&directory.join("none")).unwrap_err().to_string();
        assert!(error.contains("read the policy") && error.contains("no such file"), "{error}");
        std::fs::remove_dir_all(&directory).unwrap();
    }

    /// A policy in which every object that can be absent is there.
    fn full() -> Policy {
        let mut policy = Policy::default();
        policy.files.view = View::Root("/".into());
        policy.files.binds = vec![Bind::default()];
        policy.network.mitm = Some(Mitm::default());
        policy.network.mode = NetworkMode::Domains;
        policy
    }

    fn keys_of(value: &Value, at: &str, keys: &mut BTreeSet<String>) {
        for (name, value) in value.as_object().into_iter().flatten() {
            keys.insert(format!("{at}/{name}"));
            keys_of(value, &format!("{at}/{name}"), keys);
        }
        value.as_array().into_iter().flatten().for_each(|item| keys_of(item, at, keys));
    }

    fn keys_of_schema(schema: &Value, at: &str, keys: &mut BTreeSet<String>) {
        for (name, schema) in schema["properties"].as_object().into_iter().flatten() {
            keys.insert(format!("{at}/{name}"));
            keys_of_schema(schema, &format!("{at}/{name}"), keys);
        }
        let inner = ["anyOf", "oneOf"].iter().filter_map(|key| schema[key].as_array()).flatten();
        inner.chain(schema.get("items")).for_each(|schema| keys_of_schema(schema, at, keys));
    }

    #[test]
    fn the_schema_has_the_keys_of_a_policy_and_no_others() {
        let (mut known, mut described) = (BTreeSet::new(), BTreeSet::new());
        let mut policy = serde_json::to_value(full()).unwrap();
        policy["files"]["view"]["root_overlay"] = "/".into();
        keys_of(&policy, "", &mut known);
        keys_of_schema(&schema(), "", &mut described);
        assert!(described.remove("/$schema"));
        assert!(known.contains("/network/mitm/socket") && known.contains("/files/binds/write"));
        assert_eq!(known, described);
        let nullable = &schema()["properties"]["limits"]["properties"]["pids"]["anyOf"];
        assert_eq!((&nullable[0]["type"], &nullable[2]["const"]), (&json!("integer"), &json!("none")));
        let memory = &schema()["properties"]["limits"]["properties"]["memory"];
        assert_eq!((&memory["default"], &memory["description"]), (&json!(2048_u64 << 20), &json!("Memory, in bytes.")));
    }

    #[test]
    fn sentences_and_words_are_those_of_the_types() {
        let source: Vec<_> =
            include_str!("policy.rs").lines().filter_map(|line| line.trim().strip_prefix("/// ")).collect();
        let source = source.join(" ");
        fn visit(schema: &Value, path: &str, source: &str) {
            let words = schema["oneOf"].as_array().into_iter().flatten().filter(|word| word.get("const").is_some());
            for (name, own) in schema["properties"]
                .as_object()
                .into_iter()
                .flatten()
                .map(|(k, v)| (k.as_str(), v))
                .chain(words.map(|w| ("", w)))
            {
                let doc = own["description"].as_str().unwrap();
                let typed = name == keys::SCHEMA || source.contains(doc);
                assert!(!doc.is_empty() && typed, "{path}/{name}: {doc}");
            }
            let inner = schema
                .as_object()
                .into_iter()
                .flat_map(|map| map.values())
                .chain(schema.as_array().into_iter().flatten());
            inner.for_each(|inner| visit(inner, path, source));
        }
        visit(&schema(), "", &source);
        // Each word of the tables is one that the types read, in a policy with that word alone.
        for (section, key) in [("files", "workdir"), ("network", "mode"), ("syscalls", "profile"), ("", "lint")] {
            let all = schema();
            let at = if section.is_empty() { String::new() } else { format!("/properties/{section}") };
            for word in all.pointer(&format!("{at}/properties/{key}/oneOf")).unwrap().as_array().unwrap() {
                let inner = json!({ key: word["const"] });
                let policy = if section.is_empty() { inner } else { json!({ section: inner }) };
                assert!(parse(&policy.to_string(), Format::Json, "p").is_ok(), "{policy}");
            }
        }
    }
}
