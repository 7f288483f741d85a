//! What many sandboxes of one process leave on the host should it be killed: in writing, in a directory of its own that is locked
//! as long as the process lives (flock(2)). Who comes by later removes what is written there.

use super::start::Leftover;
use crate::error::{Context, Error, Kind, Result};
use crate::sys::files::try_lock;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// The extension of a ledger's directory.
pub(super) const LEDGER: &str = "ledger";

/// The extension of what is written down about a sandbox.
pub(super) const LEFT: &str = "left";

/// A ledger of this process.
#[derive(Debug)]
pub struct Ledger {
    dir: PathBuf,
    _lock: File,
}

impl Ledger {
    /// Begins one in a directory, which has to be this user's alone.
    ///
    /// # Errors
    /// As mkdir(2) and flock(2).
    pub(super) fn open(within: &Path, id: &str) -> Result<Ledger> {
        let (new, dir) = (within.join(format!("{id}.new")), within.join(format!("{id}.{LEDGER}")));
        let during = || format!("make {}", dir.display());
        fs::DirBuilder::new().mode(0o700).create(&new).during(during)?;
        let lock = File::create(new.join("lock")).during(during)?;
        if !try_lock(lock.as_fd(), true).during(during)? {
            return Err(Error::new(Kind::Exists, during()));
        }
        // Nobody is to see it without its lock.
        fs::rename(&new, &dir).during(during)?;
        Ok(Ledger { dir, _lock: lock })
    }

    /// A sandbox has this on the host from now on. Without a note of it no sandbox is the worse.
    pub(super) fn enter(&self, id: &str, left: &Leftover) {
        let _ = fs::write(self.dir.join(format!("{id}.{LEFT}")), serde_json::to_vec(left).expect("its keys are text"));
    }

    /// It has nothing any more.
    pub(super) fn strike(&self, id: &str) {
        let _ = fs::remove_file(self.dir.join(format!("{id}.{LEFT}")));
    }

    /// Ends it.
    pub(super) fn close(&self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Removes what one sandbox left, by the file in which that is written; the file stays as long as something is left. Says where
/// the cgroups were.
pub(super) fn settle(file: &Path) -> Vec<PathBuf> {
    let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let left = fs::read(file).ok().and_then(|text| serde_json::from_slice::<Leftover>(&text).ok()).unwrap_or_default();
    let parents = left.parents().collect();
    if left.remove(&name) {
        let _ = fs::remove_file(file);
    }
    parents
}

/// Removes what is written in a ledger whose process is gone.
pub(super) fn sweep(ledger: &Path) {
    let gone = File::open(ledger.join("lock")).ok().filter(|lock| try_lock(lock.as_fd(), true) == Ok(true));
    if gone.is_none() {
        return;
    }
    let entered = || {
        let entries = fs::read_dir(ledger).into_iter().flatten().flatten().map(|entry| entry.path());
        entries.filter(|path| path.extension().is_some_and(|kind| kind == LEFT))
    };
    let parents: BTreeSet<PathBuf> = entered().flat_map(|path| settle(&path)).collect();
    // What it had made and not yet entered, beside the others.
    let owner = ledger.file_stem().and_then(|id| id.to_str()?.split('-').nth(1)?.parse::<u32>().ok());
    if let Some(pid) = owner.filter(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
        let all = parents.iter().filter_map(|parent| fs::read_dir(parent).ok()).flatten().flatten();
        let names = all.filter(|entry| {
            // As new_id makes them.
            let name = entry.file_name().to_string_lossy().into_owned();
            let parts: Vec<_> = name.strip_prefix("brig-sandbox-").unwrap_or_default().split('-').collect();
            matches!(parts[..], [_, owner, _] if owner == pid.to_string())
        });
        // One that has a process in it is not removed by this.
        names.for_each(|entry| drop(fs::remove_dir(entry.path())));
    }
    if entered().next().is_none() {
        let _ = fs::remove_dir_all(ledger);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_of_the_dead_is_removed() {
        let dir = std::env::temp_dir().join(format!("brig-ledger-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let ledger = Ledger::open(&dir, "a").unwrap();
        let (path, entry) = (dir.join("a.ledger"), dir.join("a.ledger/x.left"));
        ledger.enter("x", &Leftover::default());
        sweep(&path);
        assert!(entry.exists());
        ledger.strike("x");
        assert!(!entry.exists() && path.exists());
        ledger.enter("y", &Leftover::default());
        drop(ledger);
        sweep(&path);
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
        // Without a lock it is nobody's that is known.
        fs::create_dir(&path).unwrap();
        sweep(&path);
        assert!(path.exists());
        Ledger::open(&dir, "b").unwrap().close();
        assert!(!dir.join("b.ledger").exists() && !dir.join("b.new").exists());
        fs::remove_dir_all(dir).unwrap();
    }
}
