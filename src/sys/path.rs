//! Paths resolved inside a root that is not trusted: every step stays below the root's fd, whatever symlinks the tree
//! holds and whoever swaps them meanwhile (CVE-2021-30465, CVE-2024-45310, CVE-2019-19921). openat2(2) (Linux 5.6) does it in
//! the kernel; where it is missing or filtered, a walk over `O_PATH` fds does the same by hand.

use super::pidfd::PROCFS;
use super::{Errno, SysResult, check, files, filesystem};
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, mkdirat};
use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// How symlinks and mount points on the way are treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Follow {
    /// Symlinks are followed, as if the root's fd were `/`.
    InRoot,
    /// A symlink anywhere on the way is `ELOOP`.
    NoSymlinks,
    /// As `NoSymlinks`, and a mount point on the way is `EXDEV`: for procfs and sysfs, where a mount can stand in for a file
    /// (CVE-2025-52881).
    SameMount,
}

const RESOLVE_NO_XDEV: u64 = 0x01;
const RESOLVE_NO_MAGICLINKS: u64 = 0x02;
const RESOLVE_NO_SYMLINKS: u64 = 0x04;
const RESOLVE_IN_ROOT: u64 = 0x10;

/// Longest path that is handled, as the kernel has it, with the NUL.
pub(super) const PATH_MAX: usize = 4096;
/// The kernel's own limit on symlinks in one resolution.
const MAX_LINKS: u32 = 40;
/// How deep the fall-back walk goes.
const MAX_DEPTH: usize = 128;

/// Opens a path below `root`. A leading `/` means the root, an empty path the root itself.
///
/// # Errors
/// As openat2(2): `ELOOP` and `EXDEV` as [`Follow`] says.
pub fn open(root: BorrowedFd, path: &CStr, flags: OFlag, follow: Follow) -> SysResult<OwnedFd> {
    let path = if path.is_empty() { c"." } else { path };
    // SAFETY: open_how is plain data, and all zeroes is a valid value of it.
    let mut how: libc::open_how = unsafe { std::mem::zeroed() };
    how.flags = (flags | OFlag::O_CLOEXEC).bits() as u64;
    how.resolve = RESOLVE_IN_ROOT
        | RESOLVE_NO_MAGICLINKS
        | match follow {
            Follow::InRoot => 0,
            Follow::NoSymlinks => RESOLVE_NO_SYMLINKS,
            Follow::SameMount => RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV,
        };
    // A rename anywhere on the system can make a resolution with ".." fail with EAGAIN; it is not the tree's doing.
    for _ in 0..64 {
        // SAFETY: path is a C string, how a valid open_how of the size given.
        let ret = check(unsafe {
            libc::syscall(
                libc::SYS_openat2,
                root.as_raw_fd(),
                path.as_ptr(),
                &raw const how,
                size_of::<libc::open_how>(),
            )
        });
        match ret {
            // SAFETY: the kernel returned a fresh fd.
            Ok(fd) => return Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) }),
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            // Filters of old container engines answer EPERM to calls that they do not know.
            Err(Errno::ENOSYS | Errno::EPERM) => return walk(root, path, flags, follow, Make::Nothing),
            Err(errno) => return Err(errno),
        }
    }
    Err(Errno::EAGAIN)
}

/// A path that is being resolved: what is left of it, with symlinks spliced in.
struct Pending {
    bytes: [u8; PATH_MAX],
    at: usize,
    end: usize,
}

impl Pending {
    fn new(path: &[u8]) -> SysResult<Pending> {
        let mut pending = Pending { bytes: [0; PATH_MAX], at: 0, end: 0 };
        pending.prepend(path)?;
        Ok(pending)
    }

    /// Puts a path in front of what is left.
    fn prepend(&mut self, path: &[u8]) -> SysResult<()> {
        let rest = self.end - self.at;
        if path.len() + 1 + rest >= PATH_MAX {
            return Err(Errno::ENAMETOOLONG);
        }
        self.bytes.copy_within(self.at..self.end, path.len() + 1);
        self.bytes[..path.len()].copy_from_slice(path);
        self.bytes[path.len()] = b'/';
        (self.at, self.end) = (0, path.len() + 1 + rest);
        Ok(())
    }

    /// Takes the next component; says whether it is the last one.
    fn next<'b>(&mut self, name: &'b mut [u8; 256]) -> SysResult<Option<(&'b CStr, bool)>> {
        while self.at < self.end && self.bytes[self.at] == b'/' {
            self.at += 1;
        }
        let rest = &self.bytes[self.at..self.end];
        let len = rest.iter().position(|b| *b == b'/').unwrap_or(rest.len());
        if len == 0 {
            return Ok(None);
        }
        if len > 255 {
            return Err(Errno::ENAMETOOLONG);
        }
        name[..len].copy_from_slice(&rest[..len]);
        name[len] = 0;
        let last = rest[len..].iter().all(|b| *b == b'/');
        self.at += len;
        Ok(Some((CStr::from_bytes_until_nul(name).map_err(|_| Errno::EINVAL)?, last)))
    }
}

/// What a walk does where a component is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Make {
    /// It fails.
    Nothing,
    /// It makes a directory of this mode.
    Directories(Mode),
    /// It makes an empty file as the last component, directories before it.
    File,
}

/// The walk: one component at a time with `O_NOFOLLOW`, symlinks read as text, `..` taken from the fds passed on the way.
fn walk(root: BorrowedFd, path: &CStr, flags: OFlag, follow: Follow, make: Make) -> SysResult<OwnedFd> {
    let mut pending = Pending::new(path.to_bytes())?;
    let mut trail: [Option<OwnedFd>; MAX_DEPTH] = [const { None }; MAX_DEPTH];
    let (mut depth, mut links) = (0, 0);
    let device = fstat(root)?.st_dev;
    let mut name = [0; 256];
    while let Some((component, last)) = pending.next(&mut name)? {
        match component.to_bytes() {
            b"." => continue,
            b".." => {
                if depth > 0 {
                    depth -= 1;
                    trail[depth] = None;
                }
                continue;
            }
            _ => {}
        }
        let here = if depth == 0 { root } else { trail[depth - 1].as_ref().map_or(root, AsFd::as_fd) };
        let look = || openat(here, component, OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty());
        let next = match look() {
            Err(Errno::ENOENT) if make != Make::Nothing => {
                make_one(here, component, last, make)?;
                look()?
            }
            other => other?,
        };
        let stat = fstat(&next)?;
        let is_link = kind(&stat) == SFlag::S_IFLNK;
        // The device alone is not enough: a file of the same procfs can be bound over another one.
        if follow == Follow::SameMount && (stat.st_dev != device || mount_id(next.as_fd())? != mount_id(root)?) {
            return Err(Errno::EXDEV);
        }
        if is_link && !(last && flags.contains(OFlag::O_NOFOLLOW)) {
            links += 1;
            // Below procfs' root, which is its inode 1, links are magic: what they lead to is not what they read as.
            let magic = filesystem(next.as_fd())? == PROCFS && fstat(here)?.st_ino != 1;
            if follow != Follow::InRoot || links > MAX_LINKS || magic {
                return Err(Errno::ELOOP);
            }
            let mut target = [0; PATH_MAX];
            let target = files::read_link(next.as_fd(), c"", &mut target)?.to_bytes();
            if target.first() == Some(&b'/') {
                trail[..depth].iter_mut().for_each(|fd| *fd = None);
                depth = 0;
            }
            pending.prepend(target)?;
            continue;
        }
        if last {
            if flags.contains(OFlag::O_PATH) {
                if flags.contains(OFlag::O_DIRECTORY) && kind(&stat) != SFlag::S_IFDIR {
                    return Err(Errno::ENOTDIR);
                }
                return Ok(next);
            }
            // The kernel checks once more that it is no symlink, should it have been swapped.
            return openat(here, component, flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty());
        }
        if depth == MAX_DEPTH {
            return Err(Errno::ENAMETOOLONG);
        }
        trail[depth] = Some(next);
        depth += 1;
    }
    let here = if depth == 0 { root } else { trail[depth - 1].as_ref().map_or(root, AsFd::as_fd) };
    openat(here, c".", flags | OFlag::O_CLOEXEC, Mode::empty())
}

/// The mount that an open file was reached through (`STATX_MNT_ID` of statx(2), Linux 5.8).
fn mount_id(fd: BorrowedFd) -> SysResult<u64> {
    // SAFETY: statx is plain data that the call fills in; the path is an empty static string.
    let found = unsafe {
        let mut found: libc::statx = std::mem::zeroed();
        let empty = c"".as_ptr();
        check(libc::statx(fd.as_raw_fd(), empty, libc::AT_EMPTY_PATH, libc::STATX_MNT_ID, &raw mut found).into())?;
        found
    };
    if found.stx_mask & libc::STATX_MNT_ID == 0 { Err(Errno::ENOSYS) } else { Ok(found.stx_mnt_id) }
}

/// Whether one open file is the same file as another, reached through another mount.
///
/// # Errors
/// As fstat(2) and statx(2).
pub fn is_mounted_over(before: BorrowedFd, after: BorrowedFd) -> SysResult<bool> {
    let (old, new) = (fstat(before)?, fstat(after)?);
    Ok((old.st_dev, old.st_ino) == (new.st_dev, new.st_ino) && mount_id(before)? != mount_id(after)?)
}

/// Whether two paths lead to the same file by the same mount, as far as the kernel tells mounts apart (`STATX_MNT_ID`, Linux
/// 5.8); the file itself is compared everywhere.
///
/// # Errors
/// As statx(2) and stat(2).
pub fn is_same_mount(one: &CStr, other: &CStr) -> SysResult<bool> {
    let (one, other) = (identity(one)?, identity(other)?);
    Ok(one == other)
}

/// Device, inode and, where it is told, the mount.
fn identity(path: &CStr) -> SysResult<([u64; 3], Option<u64>)> {
    let wanted = libc::STATX_INO | libc::STATX_MNT_ID;
    // SAFETY: statx is plain data that the call fills in; the path is a C string.
    let (found, answer) = unsafe {
        let mut found: libc::statx = std::mem::zeroed();
        let at = libc::AT_FDCWD;
        let answer = libc::syscall(libc::SYS_statx, at, path.as_ptr(), libc::AT_NO_AUTOMOUNT, wanted, &raw mut found);
        (found, check(answer))
    };
    match answer {
        Ok(_) => {
            let file = [found.stx_dev_major.into(), found.stx_dev_minor.into(), found.stx_ino];
            Ok((file, (found.stx_mask & libc::STATX_MNT_ID != 0).then_some(found.stx_mnt_id)))
        }
        // Missing before Linux 4.11, or filtered.
        Err(Errno::ENOSYS | Errno::EPERM) => {
            let found = nix::sys::stat::stat(path)?;
            Ok(([0, found.st_dev, found.st_ino], None))
        }
        Err(errno) => Err(errno),
    }
}

/// The type bits of a file's mode.
pub fn kind(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode & libc::S_IFMT)
}

/// Makes the one component that a walk misses; somebody else may just have done it.
fn make_one(here: BorrowedFd, name: &CStr, last: bool, make: Make) -> SysResult<()> {
    let made = match make {
        Make::File if last => {
            let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            openat(here, name, flags, Mode::from_bits_truncate(0o644)).map(drop)
        }
        Make::Directories(mode) => mkdirat(here, name, mode),
        _ => mkdirat(here, name, Mode::from_bits_truncate(0o755)),
    };
    match made {
        Err(Errno::EEXIST) => Ok(()),
        other => other,
    }
}

/// Opens a path of the process' own root as `O_PATH`, with no symlink anywhere on the way: for a path that was resolved
/// before, and may have been exchanged since.
///
/// # Errors
/// As [`open`]; `ELOOP` for a symlink.
pub fn open_resolved(path: &CStr, flags: OFlag) -> SysResult<OwnedFd> {
    let root = files::open(None, c"/", OFlag::O_PATH | OFlag::O_DIRECTORY)?;
    open(root.as_fd(), path, flags | OFlag::O_PATH, Follow::NoSymlinks)
}

/// Makes a directory and all those above it that are missing, in root; returns it as an `O_PATH` fd. Directories that exist
/// are left as they are; a symlink that leads nowhere yet leads to a new directory then, in root as well.
///
/// # Errors
/// As mkdirat(2) and [`open`]; `ENOTDIR` when something on the way is no directory.
pub fn make_dirs(root: BorrowedFd, path: &CStr, mode: Mode) -> SysResult<OwnedFd> {
    make_dirs_by(root, path, mode, Follow::InRoot)
}

/// As [`make_dirs`], with symlinks and mount points on the way treated as told.
///
/// # Errors
/// As [`make_dirs`].
pub fn make_dirs_by(root: BorrowedFd, path: &CStr, mode: Mode, follow: Follow) -> SysResult<OwnedFd> {
    let whole = OFlag::O_PATH | OFlag::O_DIRECTORY;
    match open(root, path, whole, follow) {
        Err(Errno::ENOENT) => walk(root, path, whole, follow, Make::Directories(mode)),
        other => other,
    }
}

/// Opens, in root, the directory that holds a path's last component (made if missing, with mode 0755), and gives that
/// component's name.
///
/// # Errors
/// As [`make_dirs`]; `EINVAL` when the path names no file.
pub fn make_parent<'p>(root: BorrowedFd, path: &'p CStr) -> SysResult<(OwnedFd, &'p CStr)> {
    let bytes = path.to_bytes();
    let start = bytes.iter().rposition(|b| *b == b'/').map_or(0, |slash| slash + 1);
    let name = CStr::from_bytes_with_nul(&path.to_bytes_with_nul()[start..]).map_err(|_| Errno::EINVAL)?;
    if matches!(name.to_bytes(), b"" | b"." | b"..") {
        return Err(Errno::EINVAL);
    }
    let mut parent = [0; PATH_MAX];
    if start >= PATH_MAX {
        return Err(Errno::ENAMETOOLONG);
    }
    parent[..start].copy_from_slice(&bytes[..start]);
    let parent = CStr::from_bytes_until_nul(&parent).map_err(|_| Errno::EINVAL)?;
    Ok((make_dirs(root, parent, Mode::from_bits_truncate(0o755))?, name))
}

/// Opens a place to mount a file on, as `O_PATH`; an empty file is made where there is none.
///
/// # Errors
/// As [`make_dirs`].
pub fn make_file(root: BorrowedFd, path: &CStr, follow: Follow) -> SysResult<OwnedFd> {
    match open(root, path, OFlag::O_PATH, follow) {
        Err(Errno::ENOENT) => walk(root, path, OFlag::O_PATH, follow, Make::File),
        other => other,
    }
}

/// Whether a link's text is this one, without following it.
pub fn link_is(dir: BorrowedFd, name: &CStr, target: &CStr) -> bool {
    files::read_link(dir, name, &mut [0; PATH_MAX]).is_ok_and(|text| text == target)
}

/// Whether the calling process' current directory lies below its root: getcwd(2) answers `(unreachable)` when it does not
/// (CVE-2024-21626).
pub fn cwd_is_inside() -> bool {
    let mut buffer = [0; PATH_MAX];
    cwd(&mut buffer).starts_with(b"/")
}

/// What getcwd(2) answers, with the NUL; nothing when it fails.
pub(super) fn cwd(buffer: &mut [u8; PATH_MAX]) -> &[u8] {
    // SAFETY: the raw call fills at most the length given; glibc's wrapper would fall back to a walk of its own.
    let len = unsafe { libc::syscall(libc::SYS_getcwd, buffer.as_mut_ptr(), PATH_MAX) };
    &buffer[..usize::try_from(len).unwrap_or(0)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use std::path::PathBuf;

    struct Tree(PathBuf);

    impl Tree {
        fn new(name: &str) -> Tree {
            let dir = std::env::temp_dir().join(format!("brig-path-{}-{name}", std::process::id()));
            std::fs::create_dir_all(dir.join("root/etc/sub")).unwrap();
            std::fs::write(dir.join("root/etc/file"), "in").unwrap();
            std::fs::write(dir.join("secret"), "out").unwrap();
            symlink("/etc", dir.join("root/abs")).unwrap();
            symlink("../../../secret", dir.join("root/etc/escape")).unwrap();
            symlink("/secret", dir.join("root/absescape")).unwrap();
            symlink("loop", dir.join("root/loop")).unwrap();
            symlink("/nowhere/file", dir.join("root/dangling")).unwrap();
            Tree(dir)
        }
        fn root(&self) -> OwnedFd {
            openat(nix::fcntl::AT_FDCWD, &self.0.join("root"), OFlag::O_PATH, Mode::empty()).unwrap()
        }
    }

    impl Drop for Tree {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn by_walk(root: BorrowedFd, path: &CStr, flags: OFlag, follow: Follow) -> SysResult<OwnedFd> {
        walk(root, path, flags, follow, Make::Nothing)
    }

    type Open = fn(BorrowedFd, &CStr, OFlag, Follow) -> SysResult<OwnedFd>;

    #[test]
    fn the_walk_and_openat2_agree_and_stay_inside() {
        let tree = Tree::new("agree");
        let root = tree.root();
        let cases: &[(&CStr, Follow, Result<&str, Errno>)] = &[
            (c"/etc/file", Follow::InRoot, Ok("etc/file")),
            (c"abs/file", Follow::InRoot, Ok("etc/file")),
            (c"abs/../../../etc/./file", Follow::InRoot, Ok("etc/file")),
            (c"abs/file", Follow::NoSymlinks, Err(Errno::ELOOP)),
            (c"etc/escape", Follow::InRoot, Err(Errno::ENOENT)),
            (c"absescape", Follow::InRoot, Err(Errno::ENOENT)),
            (c"loop", Follow::InRoot, Err(Errno::ELOOP)),
            (c"dangling", Follow::InRoot, Err(Errno::ENOENT)),
            (c"etc/file/x", Follow::InRoot, Err(Errno::ENOTDIR)),
            (c".", Follow::InRoot, Ok("")),
            (c"../..", Follow::InRoot, Ok("")),
        ];
        for (path, follow, expected) in cases {
            for (name, open) in [("openat2", open as Open), ("walk", by_walk as Open)] {
                let got = open(root.as_fd(), path, OFlag::O_PATH, *follow)
                    .map(|fd| std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).unwrap());
                let expected = expected.map(|p| tree.0.join("root").join(p).components().collect::<PathBuf>());
                assert_eq!(got, expected, "{name} {path:?} {follow:?}");
            }
        }
    }

    #[test]
    fn magic_links_are_refused_and_others_of_procfs_are_not() {
        let root = files::open(None, c"/", OFlag::O_PATH).unwrap();
        for open in [open as Open, by_walk as Open] {
            let found = |path| open(root.as_fd(), path, OFlag::O_PATH, Follow::InRoot).map(drop);
            assert_eq!(found(c"proc/self/root/etc"), Err(Errno::ELOOP));
            assert_eq!(found(c"proc/self/status"), Ok(()));
        }
    }

    #[test]
    fn directories_and_files_are_made_inside() {
        let tree = Tree::new("make");
        let root = tree.root();
        make_dirs(root.as_fd(), c"/abs/new/deep", Mode::from_bits_truncate(0o755)).unwrap();
        assert!(tree.0.join("root/etc/new/deep").is_dir());
        make_file(root.as_fd(), c"abs/new/mount-point", Follow::InRoot).unwrap();
        assert!(tree.0.join("root/etc/new/mount-point").is_file());
        make_file(root.as_fd(), c"dangling", Follow::InRoot).unwrap();
        assert_eq!(make_file(root.as_fd(), c"abs/other", Follow::NoSymlinks).unwrap_err(), Errno::ELOOP);
        assert!(tree.0.join("root/nowhere/file").is_file());
        make_dirs(root.as_fd(), c"absescape/x", Mode::from_bits_truncate(0o755)).unwrap();
        assert!(tree.0.join("root/secret/x").is_dir());
        assert_eq!(make_dirs(root.as_fd(), c"etc/file/x", Mode::empty()).unwrap_err(), Errno::ENOTDIR);
        assert!(!std::path::Path::new("/nowhere").exists());
        assert_eq!(std::fs::read_to_string(tree.0.join("secret")).unwrap(), "out");
    }
}
