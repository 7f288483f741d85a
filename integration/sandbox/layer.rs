//! The writable layer in a directory: it outlives the sandbox, and its changes are listed and committed like those in memory.

use super::support::{file, sh, work};
use crate::support::{Test, cases, json};
use std::fs;

cases![a_layer_on_a_disk];

fn a_layer_on_a_disk(t: &Test) {
    file(t, "old", "old");
    let dir = t.dir().join("layer");
    fs::create_dir_all(&dir).unwrap();
    let dir = dir.to_str().unwrap();
    let ran = sh(t, &["--layer", dir], "echo new > file && rm old").exited(0);
    let paths: Vec<_> = ran.report["changes"].as_array().unwrap().iter().map(|c| (&c["path"], &c["kind"])).collect();
    let at = |name: &str| json!(work(t).join(name));
    assert_eq!(paths, [(&at("file"), &json!("added")), (&at("old"), &json!("deleted"))], "{}", ran.report);
    assert!(work(t).join("old").exists() && !work(t).join("file").exists());
    // The next one finds what this one left, and makes it real.
    let ran = sh(t, &["--layer", dir, "--commit"], "cat file").exited(0);
    assert_eq!(ran.stdout(), "new\n");
    assert!(!work(t).join("old").exists() && work(t).join("file").exists(), "{}", ran.report);
}
