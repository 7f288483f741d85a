//! What a writable layer changed: the upper directory of an overlay against the lower one, by the marks that overlayfs leaves
//! (Documentation/filesystems/overlayfs.rst, "whiteouts and opaque directories"). No mount is needed, and none is made.

mod commit;
#[cfg(test)]
mod tests;

pub use commit::commit;

use super::report::{Change, ChangeKind};
use crate::error::{Context, Error, Result};
use crate::sys::path::{self, Follow};
use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstatat};
use std::collections::BTreeSet;
use std::ffi::{CStr, CString, OsStr};
use std::fs::File;
use std::io::{BufReader, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

/// The most changes that a report lists.
pub const LISTED: usize = 100_000;

/// Where the overlay's mount kept its marks. The others are any program's to set, and mean nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Marks {
    /// In `trusted.` attributes, which take CAP_SYS_ADMIN.
    Trusted,
    /// In `user.` attributes (`userxattr`), which the overlay lets nobody set.
    User,
}

/// What was changed, by path.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// The changes in the order of their paths. A deleted directory is one change, an added one is listed with all in it.
    pub list: Vec<Change>,
    /// Whether there were more than the limit.
    pub truncated: bool,
}

/// Lists what an upper directory changed. `seen_as` is the path at which the program saw the overlay, `limit` the most changes
/// that are listed ([`LISTED`]). A copy that is like its original (type, contents, mode and owner) is no change.
///
/// # Errors
/// A directory that can't be read, a mount point in the lower tree that the layer has files for, a layer made with
/// `redirect_dir` or `metacopy`, whose files are not where their names say.
pub fn changes(upper: BorrowedFd, lower: BorrowedFd, marks: Marks, seen_as: &str, limit: usize) -> Result<Changes> {
    let (mut items, truncated) = Walk { upper, lower, marks, limit, items: Vec::new() }.run()?;
    items.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(Changes { list: items.iter().map(|item| item.told(seen_as)).collect(), truncated })
}

/// A change, with what is needed to make it.
struct Item {
    /// Relative to both roots.
    path: CString,
    kind: ChangeKind,
    /// What the upper directory has there: for a deletion the whiteout or the opaque directory.
    upper: FileStat,
    /// What the lower one has there.
    lower: Option<FileStat>,
    /// Whether a directory hides the lower one's contents.
    opaque: bool,
}

impl Item {
    fn told(&self, seen_as: &str) -> Change {
        let size = match self.kind {
            ChangeKind::Deleted => 0,
            _ if path::kind(&self.upper) == SFlag::S_IFREG => self.upper.st_size as u64,
            _ => 0,
        };
        let path = format!("{}/{}", seen_as.trim_end_matches('/'), self.path.to_string_lossy());
        Change { path, kind: self.kind, size }
    }
}

/// A directory to be looked at: its path, whether the lower directory has it, and whether that one is hidden.
struct Pending {
    path: CString,
    below: bool,
    hidden: bool,
}

struct Walk<'a> {
    upper: BorrowedFd<'a>,
    lower: BorrowedFd<'a>,
    marks: Marks,
    limit: usize,
    items: Vec<Item>,
}

impl Walk<'_> {
    /// All changes, in no order, and whether there are more than the limit. Directories wait in a list rather than on the stack,
    /// and are opened by their paths: a program may nest them as deep as it likes.
    fn run(mut self) -> Result<(Vec<Item>, bool)> {
        let hidden = is_opaque(self.upper, c".", self.marks)?;
        let mut pending = vec![Pending { path: CString::default(), below: true, hidden }];
        while let Some(directory) = pending.pop() {
            self.directory(&directory, &mut pending)?;
            if self.items.len() > self.limit {
                self.items.truncate(self.limit);
                return Ok((self.items, true));
            }
        }
        Ok((self.items, false))
    }

    fn directory(&mut self, directory: &Pending, pending: &mut Vec<Pending>) -> Result<()> {
        let upper = open_dir(self.upper, &directory.path, "the layer's")?;
        let lower = match directory.below {
            true => Some(open_dir(self.lower, &directory.path, "the lower")?),
            false => None,
        };
        let names = names(&upper, &directory.path)?;
        for name in &names {
            let path = join(&directory.path, name);
            let new = stat(upper.as_fd(), name).during(|| told("look at", &path))?;
            let Some(new) = new else { continue };
            let old = match &lower {
                Some(lower) => stat(lower.as_fd(), name).during(|| told("look at", &path))?,
                None => None,
            };
            self.entry(upper.as_fd(), lower.as_ref().map(AsFd::as_fd), name, path, (new, old), directory, pending)?;
        }
        if let (true, Some(lower)) = (directory.hidden, &lower) {
            let mark = nix::sys::stat::fstat(&upper).during(|| told("look at", &directory.path))?;
            for name in self::names(lower, &directory.path)?.difference(&names) {
                let path = join(&directory.path, name);
                let old = stat(lower.as_fd(), name).during(|| told("look at", &path))?;
                self.items.push(Item { path, kind: ChangeKind::Deleted, upper: mark, lower: old, opaque: false });
            }
        }
        Ok(())
    }

    #[allow(clippy::too_many_arguments)]
    fn entry(
        &mut self,
        upper: BorrowedFd,
        lower: Option<BorrowedFd>,
        name: &CStr,
        path: CString,
        (new, old): (FileStat, Option<FileStat>),
        parent: &Pending,
        pending: &mut Vec<Pending>,
    ) -> Result<()> {
        if is_whiteout(upper, name, &new, self.marks)? {
            if old.is_some() {
                self.items.push(Item { path, kind: ChangeKind::Deleted, upper: new, lower: old, opaque: false });
            }
            return Ok(());
        }
        refuse_indirect(upper, name, &path, self.marks)?;
        let is_dir = path::kind(&new) == SFlag::S_IFDIR;
        let opaque = is_dir && (parent.hidden || is_opaque(upper, name, self.marks)?);
        if is_dir {
            let below = old.is_some_and(|old| path::kind(&old) == SFlag::S_IFDIR);
            pending.push(Pending { path: path.clone(), below, hidden: opaque });
        }
        let kind = match (&old, lower) {
            (Some(old), Some(lower)) => {
                match is_like((upper, &new), (lower, old), name).during(|| told("compare", &path))? {
                    true => return Ok(()),
                    false => ChangeKind::Modified,
                }
            }
            _ => ChangeKind::Added,
        };
        self.items.push(Item { path, kind, upper: new, lower: old, opaque });
        Ok(())
    }
}

/// Opens a directory below a root. No symlink is followed and no mount point crossed: the overlay crossed none either.
fn open_dir(root: BorrowedFd, path: &CStr, whose: &str) -> Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW;
    path::open(root, path, flags, Follow::SameMount).during(|| told(&format!("open {whose} directory"), path))
}

/// The names in a directory but `.` and `..`.
fn names(dir: &OwnedFd, path: &CStr) -> Result<BTreeSet<CString>> {
    let read = || -> nix::Result<BTreeSet<CString>> {
        let all = Dir::openat(dir, ".", OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
        let names = all.into_iter().map(|entry| entry.map(|entry| entry.file_name().to_owned()));
        names.filter(|name| !matches!(name.as_deref().map(CStr::to_bytes), Ok(b"." | b".."))).collect()
    };
    read().during(|| told("list", path))
}

/// What a name is, itself; `None` where there is nothing.
fn stat(dir: BorrowedFd, name: &CStr) -> nix::Result<Option<FileStat>> {
    match fstatat(dir, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(found) => Ok(Some(found)),
        Err(Errno::ENOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

fn join(parent: &CStr, name: &CStr) -> CString {
    let mut path = parent.to_bytes().to_vec();
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend(name.to_bytes());
    // Neither part had a NUL.
    CString::new(path).unwrap_or_default()
}

/// A phrase with a path of the program's, which may hold anything.
fn told(doing: &str, path: &CStr) -> String {
    match path.to_bytes() {
        b"" => format!("{doing} the layer's root"),
        _ => format!("{doing} {:?}", path.to_string_lossy()),
    }
}

/// The path by which a name's own extended attributes are reached: their calls take no directory (path_resolution(7)).
fn by_fd(dir: BorrowedFd, name: &CStr) -> std::path::PathBuf {
    std::path::Path::new("/proc/self/fd").join(dir.as_raw_fd().to_string()).join(OsStr::from_bytes(name.to_bytes()))
}

/// One of overlayfs' marks on a file.
fn mark(dir: BorrowedFd, name: &CStr, which: &str, marks: Marks) -> Result<Option<Vec<u8>>> {
    let space = match marks {
        Marks::Trusted => "trusted",
        Marks::User => "user",
    };
    match xattr::get(by_fd(dir, name), format!("{space}.overlay.{which}")) {
        Ok(found) => Ok(found),
        // A filesystem without such attributes, a kind of file that can't have them, or one that its owner made unreadable.
        Err(e) if matches!(e.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EPERM | libc::EACCES)) => Ok(None),
        Err(e) => Err(e).during(|| told("read the overlay's marks of", name)),
    }
}

fn is_opaque(dir: BorrowedFd, name: &CStr, marks: Marks) -> Result<bool> {
    Ok(mark(dir, name, "opaque", marks)?.as_deref() == Some(b"y"))
}

/// A character device 0:0, or an empty file that is marked so.
fn is_whiteout(dir: BorrowedFd, name: &CStr, stat: &FileStat, marks: Marks) -> Result<bool> {
    match path::kind(stat) {
        SFlag::S_IFCHR => Ok(stat.st_rdev == 0),
        SFlag::S_IFREG if stat.st_size == 0 => Ok(mark(dir, name, "whiteout", marks)?.is_some()),
        _ => Ok(false),
    }
}

/// Refuses what is not where its name says: its contents would be taken for empty.
fn refuse_indirect(dir: BorrowedFd, name: &CStr, path: &CStr, marks: Marks) -> Result<()> {
    for (which, option) in [("redirect", "redirect_dir"), ("metacopy", "metacopy")] {
        if mark(dir, name, which, marks)?.is_some() {
            let what = told("the layer was made with an overlay feature that is not understood at", path);
            return Err(Error::invalid(what).hint(format!("mount the overlay with {option}=off")));
        }
    }
    Ok(())
}

/// Whether two files of one name are of one type, mode, owner and contents.
fn is_like(
    (upper, new): (BorrowedFd, &FileStat),
    (lower, old): (BorrowedFd, &FileStat),
    name: &CStr,
) -> nix::Result<bool> {
    if (new.st_mode, new.st_uid, new.st_gid) != (old.st_mode, old.st_uid, old.st_gid) {
        return Ok(false);
    }
    match path::kind(new) {
        SFlag::S_IFREG if new.st_size != old.st_size => Ok(false),
        SFlag::S_IFREG => match same_contents(upper, lower, name) {
            // What can't be read can't be said to be the same.
            Err(Errno::EACCES) => Ok(false),
            other => other,
        },
        SFlag::S_IFLNK => Ok(readlinkat(upper, name)? == readlinkat(lower, name)?),
        SFlag::S_IFCHR | SFlag::S_IFBLK => Ok(new.st_rdev == old.st_rdev),
        _ => Ok(true),
    }
}

fn same_contents(upper: BorrowedFd, lower: BorrowedFd, name: &CStr) -> nix::Result<bool> {
    let (mut one, mut other) = (open_file(upper, name)?, open_file(lower, name)?);
    let (mut a, mut b) = (Vec::new(), Vec::new());
    loop {
        for (file, piece) in [(&mut one, &mut a), (&mut other, &mut b)] {
            piece.clear();
            let read = file.by_ref().take(1 << 16).read_to_end(piece);
            read.map_err(|e| e.raw_os_error().map_or(Errno::EIO, Errno::from_raw))?;
        }
        if a != b || a.is_empty() {
            return Ok(a == b);
        }
    }
}

/// Opens a regular file for reading; one that became something else meanwhile neither blocks nor is followed.
fn open_file(dir: BorrowedFd, name: &CStr) -> nix::Result<BufReader<File>> {
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    Ok(BufReader::new(File::from(openat(dir, name, flags, Mode::empty())?)))
}
