//! Makes a writable layer's changes for real.

use super::{Item, Marks, Walk, by_fd, join, names, open_dir, open_file, stat, told};
use crate::error::{Context, Error, Result};
use crate::sandbox::report::{Change, ChangeKind};
use crate::sys::path::kind;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, readlinkat, renameat};
use nix::sys::stat::{FchmodatFlags, FileStat, Mode, SFlag, UtimensatFlags, fchmodat, mkdirat, mknodat, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchownat, symlinkat, unlinkat};
use std::ffi::{CStr, CString, OsStr};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

/// Applies what an upper directory changed to the lower one and tells what that was, as [`super::changes`] does with `seen_as`.
///
/// Directories are made first, from the top; then each other file is written beside its place and renamed to it; deletions
/// follow, each by one rename to a hidden name before anything below it goes; directories get their owner, mode and time at
/// the end, from the bottom. So a file is always the old or the new one, and a commit that was interrupted (killed; a power cut may lose
/// what was not yet on the disk) can be done again. Set-user-ID and set-group-ID bits and file capabilities are dropped; owner
/// and extended attributes are kept where the caller may set them. No symlink is followed, no mount point crossed.
///
/// # Errors
/// Before anything is changed: as for [`super::changes`]; devices; a path that was changed in the lower tree after the program
/// changed it, or is a directory there and no longer one in the layer, or the other way round. Later, what the kernel refuses.
pub fn commit(upper: BorrowedFd, lower: BorrowedFd, marks: Marks, seen_as: &str) -> Result<Vec<Change>> {
    let (mut items, _) = Walk { upper, lower, marks, limit: usize::MAX, items: Vec::new() }.run()?;
    items.sort_by(|a, b| a.path.cmp(&b.path));
    items.iter().try_for_each(refuse)?;
    let tree = Trees { upper, lower };
    let is_dir = |item: &&Item| kind(&item.upper) == SFlag::S_IFDIR && item.kind != ChangeKind::Deleted;
    for item in items.iter().filter(is_dir) {
        tree.directory(item).during(|| told("commit", &item.path))?;
    }
    for item in items.iter().filter(|item| !is_dir(item) && item.kind != ChangeKind::Deleted) {
        tree.file(item).during(|| told("commit", &item.path))?;
    }
    for item in items.iter().filter(|item| item.kind == ChangeKind::Deleted) {
        tree.delete(item).during(|| told("delete", &item.path))?;
    }
    for item in items.iter().rev().filter(is_dir) {
        let (from, to, name) = tree.parents(&item.path)?;
        dress((from.as_fd(), name), (to.as_fd(), name), &item.upper).during(|| told("commit", &item.path))?;
    }
    Ok(items.iter().map(|item| item.told(seen_as)).collect())
}

/// Refuses what can't be committed without losing something that the program never saw.
pub(super) fn refuse(item: &Item) -> Result<()> {
    let clash = |what: &str| {
        let path = item.path.to_string_lossy();
        let hint = "nothing was committed; move the one or the other away, and commit again";
        Err(Error::invalid(format!("commit {path:?}: {what}")).hint(hint))
    };
    let (deleted, new) = (item.kind == ChangeKind::Deleted, kind(&item.upper));
    if !deleted && matches!(new, SFlag::S_IFCHR | SFlag::S_IFBLK) {
        return clash("it is a device, and devices are not committed");
    }
    let Some(old) = &item.lower else { return Ok(()) };
    let both = (new == SFlag::S_IFDIR, kind(old) == SFlag::S_IFDIR);
    match both {
        (false, true) if !deleted => return clash("it is a file in the layer and a directory outside"),
        // A directory that took the place of a file is opaque; one that is not was a directory outside as well.
        (true, false) if !deleted && !item.opaque => {
            return clash("it is a directory in the layer, and outside it became a file meanwhile");
        }
        _ => {}
    }
    // Directories change with every name in them, and are merged.
    let changed = |stat: &FileStat| (stat.st_ctime, stat.st_ctime_nsec);
    if (deleted || both == (false, false)) && changed(old) > changed(&item.upper) {
        return clash("it was changed outside after the program changed it");
    }
    Ok(())
}

struct Trees<'a> {
    upper: BorrowedFd<'a>,
    lower: BorrowedFd<'a>,
}

impl Trees<'_> {
    /// The directories that hold a path in either tree, and its name there.
    fn parents<'p>(&self, path: &'p CStr) -> Result<(OwnedFd, OwnedFd, &'p CStr)> {
        let (parent, name) = split(path);
        Ok((open_dir(self.upper, &parent, "the layer's")?, open_dir(self.lower, &parent, "the lower")?, name))
    }

    /// Makes a directory that is missing; its mode is that of a private one until all is in it.
    fn directory(&self, item: &Item) -> Result<()> {
        let (parent, name) = split(&item.path);
        let parent = open_dir(self.lower, &parent, "the lower")?;
        if item.lower.is_some_and(|old| kind(&old) != SFlag::S_IFDIR) {
            unlinkat(&parent, name, UnlinkatFlags::NoRemoveDir).during(|| "remove the file there".into())?;
        }
        match mkdirat(&parent, name, Mode::S_IRWXU) {
            Ok(()) => Ok(()),
            // One that could not be written so far may be full of new files.
            Err(Errno::EEXIST) => {
                open_dir(parent.as_fd(), name, "the lower")?;
                set_mode((parent.as_fd(), name), Mode::from_bits_truncate(item.upper.st_mode & 0o1777) | Mode::S_IRWXU)
            }
            Err(errno) => Err(Error::os("make the directory", errno)),
        }
    }

    /// Makes a file under a name of its own and renames it.
    fn file(&self, item: &Item) -> Result<()> {
        let (from, to, name) = self.parents(&item.path)?;
        let spare = spare(to.as_fd())?;
        let made = create((from.as_fd(), name), (to.as_fd(), &spare), &item.upper)
            .and_then(|()| dress((from.as_fd(), name), (to.as_fd(), &spare), &item.upper))
            .and_then(|()| renameat(&to, spare.as_c_str(), &to, name).during(|| "rename".into()));
        if made.is_err() {
            // The error is that of the work; a file left over is told by its name.
            let _ = unlinkat(&to, spare.as_c_str(), UnlinkatFlags::NoRemoveDir);
        }
        made
    }

    /// Deletes a file, or a directory with all that is in it.
    fn delete(&self, item: &Item) -> Result<()> {
        let (parent, name) = split(&item.path);
        let parent = open_dir(self.lower, &parent, "the lower")?;
        let spare = spare(parent.as_fd())?;
        match renameat(&parent, name, &parent, spare.as_c_str()) {
            Ok(()) => remove(parent.as_fd(), &spare),
            Err(Errno::ENOENT) => Ok(()),
            Err(errno) => Err(Error::os("rename", errno)),
        }
    }
}

/// A path's directory and last component.
fn split(path: &CStr) -> (CString, &CStr) {
    let bytes = path.to_bytes_with_nul();
    let start = bytes.iter().rposition(|b| *b == b'/').map_or(0, |slash| slash + 1);
    let parent = CString::new(&bytes[..start.saturating_sub(1)]).unwrap_or_default();
    (parent, CStr::from_bytes_with_nul(&bytes[start..]).unwrap_or(c""))
}

/// A name that a directory does not have yet.
fn spare(dir: BorrowedFd) -> Result<CString> {
    for n in 0_u32.. {
        let name = CString::new(format!(".brig-commit-{}-{n}", std::process::id())).unwrap_or_default();
        if stat(dir, &name).during(|| "look for a free name".into())?.is_none() {
            return Ok(name);
        }
    }
    Err(Error::invalid("no free name for a temporary file"))
}

/// A place: a directory and a name in it.
type Place<'a> = (BorrowedFd<'a>, &'a CStr);

/// Makes a file with the contents of another one; readable by its owner alone until it is dressed.
fn create(from: Place, to: Place, like: &FileStat) -> Result<()> {
    match kind(like) {
        SFlag::S_IFREG => {
            let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            let mut source = open_file(from.0, from.1).during(|| "open the layer's file".into())?.into_inner();
            let new = openat(to.0, to.1, flags, Mode::S_IRUSR | Mode::S_IWUSR).during(|| "make the file".into())?;
            std::io::copy(&mut source, &mut File::from(new)).map(drop).during(|| "copy".into())
        }
        SFlag::S_IFLNK => {
            let target = readlinkat(from.0, from.1).during(|| "read the symlink".into())?;
            symlinkat(target.as_os_str(), to.0, to.1).during(|| "make the symlink".into())
        }
        special @ (SFlag::S_IFIFO | SFlag::S_IFSOCK) => {
            mknodat(to.0, to.1, special, Mode::S_IRUSR | Mode::S_IWUSR, 0).during(|| "make the fifo or socket".into())
        }
        _ => Err(Error::invalid("it is neither file, symlink, fifo nor socket")),
    }
}

/// Gives a file owner, mode, extended attributes and times of another one: the owner first, which clears bits of the mode.
fn dress(from: Place, to: Place, like: &FileStat) -> Result<()> {
    let owner = (Some(Uid::from_raw(like.st_uid)), Some(Gid::from_raw(like.st_gid)));
    match fchownat(to.0, to.1, owner.0, owner.1, AtFlags::AT_SYMLINK_NOFOLLOW) {
        // Not permitted, or an ID that this user namespace does not know.
        Ok(()) | Err(Errno::EPERM | Errno::EINVAL) => {}
        Err(errno) => return Err(Error::os("set the owner", errno)),
    }
    attributes(from, to)?;
    if kind(like) != SFlag::S_IFLNK {
        let mode = Mode::from_bits_truncate(like.st_mode & 0o1777);
        set_mode(to, mode)?;
    }
    let times =
        [(like.st_atime, like.st_atime_nsec), (like.st_mtime, like.st_mtime_nsec)].map(|t| TimeSpec::new(t.0, t.1));
    utimensat(to.0, to.1, &times[0], &times[1], UtimensatFlags::NoFollowSymlink).during(|| "set the times".into())
}

/// fchmodat(2) that never follows a symlink. Before Linux 6.6 the C library does it by way of `/proc`.
fn set_mode(to: Place, mode: Mode) -> Result<()> {
    fchmodat(to.0, to.1, mode, FchmodatFlags::NoFollowSymlink).during(|| "set the mode".into())
}

/// Copies extended attributes, but overlayfs' own and file capabilities, as far as the caller may set them.
fn attributes(from: Place, to: Place) -> Result<()> {
    let (source, target) = (by_fd(from.0, from.1), by_fd(to.0, to.1));
    let not_here = |e: &std::io::Error| matches!(e.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EPERM | libc::EACCES));
    let all = match xattr::list(&source) {
        Err(e) if not_here(&e) => return Ok(()),
        other => other.during(|| "list extended attributes".into())?,
    };
    for name in all {
        let bytes = name.as_bytes();
        let overlay = [&b"trusted.overlay."[..], b"user.overlay."].iter().any(|own| bytes.starts_with(own));
        if overlay || name == OsStr::new("security.capability") {
            continue;
        }
        let copied =
            xattr::get(&source, &name).and_then(|value| xattr::set(&target, &name, &value.unwrap_or_default()));
        match copied {
            Err(e) if not_here(&e) => {}
            other => other.during(|| format!("set extended attribute {name:?}"))?,
        }
    }
    Ok(())
}

/// Removes a file, or a directory with all that is in it. A mount point below is an error.
fn remove(dir: BorrowedFd, name: &CStr) -> Result<()> {
    let mut pending = vec![name.to_owned()];
    while let Some(path) = pending.last().cloned() {
        let (parent, last) = split(&path);
        let parent = open_dir(dir, &parent, "the deleted")?;
        match unlinkat(&parent, last, UnlinkatFlags::NoRemoveDir) {
            // EPERM: what POSIX has for a directory, and some filesystems say.
            Err(Errno::EISDIR | Errno::EPERM) => match unlinkat(&parent, last, UnlinkatFlags::RemoveDir) {
                Err(Errno::ENOTEMPTY | Errno::EEXIST) => {
                    let inside = open_dir(dir, &path, "the deleted")?;
                    pending.extend(names(&inside, &path)?.iter().map(|name| join(&path, name)));
                    continue;
                }
                other => other,
            },
            other => other,
        }
        .during(|| told("remove", &path))?;
        pending.pop();
    }
    Ok(())
}
