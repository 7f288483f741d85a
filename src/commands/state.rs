//! `brig state`, and the document that `list` shares.

use super::Context;
use crate::engine::store::{Saved, Status};
use crate::error::{Error, Kind, Result};
use serde_json::{Value, json};
use std::path::Path;

/// Print the state of a container as JSON
#[derive(Debug, clap::Args)]
pub struct State {
    /// The container
    pub id: String,
}

impl State {
    pub(super) fn run(&self, context: &Context) -> Result<()> {
        let saved = context.store.peek(&self.id)?;
        let document = document(&saved, &context.store.dir(&self.id));
        let text = serde_json::to_string_pretty(&document).map_err(|e| Error::new(Kind::Other, e.to_string()))?;
        super::print(&format!("{text}\n"))
    }
}

/// The spec's state (runtime-spec, runtime.md, "State"), with what runc adds: rootfs, created, owner.
pub(super) fn document(saved: &Saved, dir: &Path) -> Value {
    let status = saved.status(dir);
    let mut document = json!({
        "ociVersion": saved.oci_version,
        "id": saved.id,
        "pid": if status == Status::Stopped { 0 } else { saved.pid },
        "status": status.word(),
        "bundle": saved.bundle,
        "rootfs": saved.rootfs,
        "created": saved.created,
        "owner": owner_name(saved.owner),
    });
    if !saved.annotations.is_empty() {
        document["annotations"] = json!(saved.annotations);
    }
    document
}

/// A user's name for people to read; the number where /etc/passwd has none.
pub(super) fn owner_name(uid: u32) -> String {
    let name = |text: String| {
        text.lines().find_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
        })
    };
    if uid == 0 {
        "root".into()
    } else {
        std::fs::read_to_string("/etc/passwd").ok().and_then(name).unwrap_or_else(|| uid.to_string())
    }
}
