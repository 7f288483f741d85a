//! Placeholders: what does not exist, must not be made by the program, and is therefore there as long as it runs.

use super::files;
use crate::error::{Error, Kind, Result};
use crate::sys::files::try_lock;
use serde::{Deserialize, Serialize};
use std::fs::{File, Metadata, OpenOptions, Permissions};
use std::io::{ErrorKind, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Files that are there so that the program can't make them. Each is locked (flock(2), shared) by every sandbox that it serves,
/// as unlinking it takes the mounts on it away in all of them: the last one removes it.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Placeholders {
    made: Vec<(PathBuf, u64)>,
    #[serde(skip)]
    locked: Arc<Vec<File>>,
}

/// What has to be protected because of placeholders.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// Placeholders, and what somebody else has made in their place meanwhile.
    pub paths: Vec<PathBuf>,
    /// Directories in which none can be made, though the program could open them.
    pub closed: Vec<PathBuf>,
}

/// How often a placeholder is looked for that another sandbox is about to remove.
const ATTEMPTS: u32 = 1000;

impl Placeholders {
    /// Makes those that can be made, takes part in those of other sandboxes, which may be among what is there, too; and gives
    /// what has to be protected.
    ///
    /// # Errors
    /// A placeholder that another sandbox does not let go of.
    pub(super) fn make(paths: &[PathBuf], there: &[PathBuf]) -> Result<(Placeholders, Kept)> {
        let (mut made, mut locked, mut kept) = (Vec::new(), Vec::new(), Kept::default());
        let others = there.iter().filter(|path| match std::fs::symlink_metadata(path) {
            Ok(now) => is_placeholder(path, &now),
            Err(error) => error.kind() == ErrorKind::NotFound && files::is_protected_name(path),
        });
        for path in others.chain(paths) {
            match hold(path) {
                Ok(None) => kept.paths.push(path.clone()),
                Ok(Some((file, inode))) => {
                    kept.paths.push(path.clone());
                    made.push((path.clone(), inode));
                    locked.push(file);
                }
                Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                    let own = |dir: &&Path| dir.metadata().is_ok_and(|m| m.uid() == nix::unistd::geteuid().as_raw());
                    kept.closed.extend(path.parent().filter(own).map(Path::to_owned));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    Placeholders { made, locked: Arc::new(locked) }.remove();
                    let what = format!("{}: another sandbox is about to remove its placeholder", path.display());
                    return Err(Error::new(Kind::Other, what).hint("try again"));
                }
                // Where nothing can be made, the program makes nothing, either.
                Err(_) => {}
            }
        }
        kept.closed.dedup();
        Ok((Placeholders { made, locked: Arc::new(locked) }, kept))
    }

    /// Removes those that are still as they were made, and serve no other sandbox; the rest is somebody's by now, and told.
    pub(super) fn remove(self) -> Vec<String> {
        let mut notes = Vec::new();
        for (index, (path, inode)) in self.made.iter().enumerate().rev() {
            let Ok(now) = std::fs::symlink_metadata(path) else { continue };
            let opened = self.locked.get(index).is_none().then(|| open_placeholder(path).ok()).flatten();
            let file = self.locked.get(index).or(opened.as_ref());
            if file.is_some_and(|file| try_lock(file.as_fd(), true) == Ok(false)) {
                continue;
            }
            let same = now.ino() == *inode;
            let removed = match same && now.is_dir() {
                true => std::fs::remove_dir(path),
                false if same && is_placeholder(path, &now) => std::fs::remove_file(path),
                false => Err(ErrorKind::Other.into()),
            };
            if removed.is_err() {
                notes.push(format!("{} has been written meanwhile, and stays", path.display()));
                // As a directory of the user's.
                let plain = file.filter(|_| same && now.is_dir());
                plain.map(|dir| dir.set_permissions(Permissions::from_mode(0o700)));
            }
        }
        notes
    }
}

/// Whether this is a placeholder, of this user's and this or another sandbox's: as empty as it was made, and with the sticky
/// bit, which nobody else sets on such a file.
fn is_placeholder(path: &Path, now: &Metadata) -> bool {
    let own = now.uid() == nix::unistd::geteuid().as_raw() && files::is_protected_name(path);
    match now.mode() & 0o1777 {
        0o1700 => own && now.is_dir(),
        0o1600 => own && now.is_file() && now.len() <= files::content(path).len() as u64,
        _ => false,
    }
}

fn open_placeholder(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path)
}

/// Makes a placeholder, or finds that of another sandbox, and locks it; `None` for what is somebody's own.
fn hold(path: &Path) -> std::io::Result<Option<(File, u64)>> {
    for _ in 0..ATTEMPTS {
        let made = match files::is_directory(path) {
            true => std::fs::DirBuilder::new().mode(0o1700).create(path),
            false => OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o1600)
                .open(path)
                .and_then(|mut file| file.write_all(files::content(path).as_bytes())),
        };
        let ours = match made {
            Ok(()) => true,
            Err(error) if error.kind() == ErrorKind::AlreadyExists => false,
            Err(error) => return Err(error),
        };
        let file = match open_placeholder(path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(_) => return Ok(None),
        };
        let now = file.metadata()?;
        if !ours && !is_placeholder(path, &now) {
            return Ok(None);
        }
        // Where there are no locks, it is as if there were no other sandbox.
        let locked = try_lock(file.as_fd(), false) != Ok(false);
        if locked && std::fs::symlink_metadata(path).is_ok_and(|there| there.ino() == now.ino()) {
            return Ok(Some((file, now.ino())));
        }
        std::thread::yield_now();
    }
    Err(ErrorKind::WouldBlock.into())
}
