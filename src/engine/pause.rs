//! Freezing a container and letting it go on.

use super::store::{Saved, Status, Store, wrong_status};
use crate::error::{Error, Kind, Result};

/// Freezes every process of a container that is created or running.
///
/// # Errors
/// [`Kind::Status`] for a container in another status, [`Kind::Gone`] for one that has ended; a container without a cgroup;
/// processes that do not stand still within ten seconds (they are let go again then).
pub fn pause(store: &Store, id: &str) -> Result<()> {
    // With the lock: a delete must not meet a container that freezes after it was killed.
    let entry = store.open(id)?;
    let saved = entry.load()?.ok_or_else(|| wrong_status("pause", id, Status::Creating))?;
    match saved.status(entry.path()) {
        Status::Running | Status::Created => {}
        Status::Stopped => return Err(gone("pause", id)),
        other => return Err(wrong_status("pause", id, other).context("container not running")),
    }
    needs_cgroup(&saved, "paused")?;
    let frozen = saved.cgroup.freeze();
    if saved.process().is_err() {
        // It has ended meanwhile; nothing that it left may stay frozen.
        let _ = saved.cgroup.thaw();
        return Err(gone("pause", id));
    }
    frozen
}

/// Lets a paused container run again.
///
/// # Errors
/// [`Kind::Status`] for a container that is not paused, [`Kind::Gone`] for one that has ended; an ancestor's cgroup that is
/// frozen itself.
pub fn resume(store: &Store, id: &str) -> Result<()> {
    // Without the lock, as with kill: it is the way out for a command that waits for a frozen process.
    let saved = store.peek(id)?;
    match saved.status(&store.dir(id)) {
        Status::Paused => saved.cgroup.thaw(),
        Status::Stopped => Err(gone("resume", id)),
        other => Err(wrong_status("resume", id, other).context("container not paused")),
    }
}

/// Refuses what needs a cgroup to a container that has none; `done` is the participle.
pub(super) fn needs_cgroup(saved: &Saved, done: &str) -> Result<()> {
    if !saved.cgroup.groups.is_empty() {
        return Ok(());
    }
    let what = format!("container {:?} can't be {done}: it has no cgroup", saved.id);
    Err(Error::new(Kind::Other, what).hint(
        "it was created with --cgroup-manager disabled, or by a user to whom no part of the cgroup tree is delegated",
    ))
}

pub(super) fn gone(what: &str, id: &str) -> Error {
    Error::new(Kind::Gone, format!("cannot {what} container {id:?}: container not running (process already finished)"))
}
