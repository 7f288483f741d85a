//! Every config of `bundles/invalid` is refused with all of its problems, and nothing is made.

use crate::support::{Test, Value, cases};
use std::fs;
use std::path::Path;

cases![every_invalid_bundle_is_refused];

fn every_invalid_bundle_is_refused(t: &Test) {
    t.only_brig("they stop at the first problem, and see fewer");
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("bundles/invalid");
    let mut seen = 0;
    for bundle in fs::read_dir(&dir).expect("bundles/invalid").flatten().map(|entry| entry.path()) {
        let text = fs::read(bundle.join("expect.json")).expect("expect.json");
        let wanted: Vec<Value> = serde_json::from_slice(&text).expect("a list of problems");
        let out = t.call(&["create", "--bundle", &bundle.display().to_string(), &t.new_id()]).out().code(1);
        for problem in wanted {
            let line = |line: &&str| {
                // Control characters of a pointer are shown escaped.
                let pointer: String = problem["pointer"].as_str().unwrap_or_default().chars().map(shown).collect();
                line.contains(&format!("{pointer}: "))
                    && line.contains(problem["contains"].as_str().unwrap_or_default())
            };
            assert!(out.stderr.lines().find(line).is_some(), "{}: no {problem} in: {}", bundle.display(), out.stderr);
        }
        seen += 1;
    }
    assert!(seen > 100, "only {seen} bundles");
    assert_eq!(t.left(), Vec::<String>::new());
}

fn shown(c: char) -> String {
    if c.is_control() { c.escape_default().to_string() } else { c.to_string() }
}
