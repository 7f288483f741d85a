//! /proc/self/mountinfo as JSON, for the payload and for the tests on the host alike.

use serde_json::{Value, json};

/// Every mount of a mountinfo file's text, in order.
pub fn parse(text: &str) -> Vec<Value> {
    text.lines().filter_map(line).collect()
}

/// The mounts of this process.
pub fn own() -> Vec<Value> {
    parse(&std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default())
}

/// Fields as in proc_pid_mountinfo(5); options as lists, propagation by its word of mount_namespaces(7).
fn line(line: &str) -> Option<Value> {
    let (left, right) = line.split_once(" - ")?;
    let mut fields = left.split(' ');
    let (id, parent, device) = (fields.next()?, fields.next()?, fields.next()?);
    let (root, target, options) = (fields.next()?, fields.next()?, fields.next()?);
    let tags: Vec<&str> = fields.collect();
    let has = |tag: &str| tags.iter().any(|t| t.split(':').next() == Some(tag));
    let propagation = match (has("shared"), has("master"), has("unbindable")) {
        (true, true, _) => "shared+slave",
        (true, false, _) => "shared",
        (_, true, _) => "slave",
        (_, _, true) => "unbindable",
        _ => "private",
    };
    let mut fields = right.split(' ');
    let (typ, source) = (fields.next()?, fields.next()?);
    Some(json!({
        "id": id.parse::<u64>().ok()?, "parent": parent.parse::<u64>().ok()?, "device": device, "root": unescape(root),
        "target": unescape(target), "options": options.split(',').collect::<Vec<_>>(), "propagation": propagation,
        "type": typ, "source": unescape(source), "super": fields.next()?.split(',').collect::<Vec<_>>(),
    }))
}

/// Undoes the kernel's octal escapes of space, tab, newline and backslash.
fn unescape(field: &str) -> String {
    ["\\040", "\\011", "\\012"]
        .iter()
        .zip([" ", "\t", "\n"])
        .fold(field.to_string(), |s, (from, to)| s.replace(from, to))
        .replace("\\134", "\\")
}
