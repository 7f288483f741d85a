//! The mount API of Linux 5.2 and mount_setattr(2) of 5.12, and what does their work where they are missing. What the old API
//! does besides is taken from nix.

mod classic;

pub use classic::{is_own, own_namespace};

use super::absent::Absent;
use super::{At, Call, Errno, Failure, SysResult, check, path};
use nix::fcntl::OFlag;
use std::cell::OnceCell;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

const FSCONFIG_SET_FLAG: u32 = 0;
const FSCONFIG_SET_STRING: u32 = 1;
const FSCONFIG_CMD_CREATE: u32 = 6;

/// open_tree(2) and move_mount(2).
static TREES: Absent = Absent::new();
/// fsopen(2) and what follows it.
static FSOPEN: Absent = Absent::new();
static SETATTR: Absent = Absent::new();

/// How many mounts may lie over one that is removed.
const STACK_MAX: u32 = 16;

/// The longest value that fsconfig(2) takes, without the final NUL.
pub const FSCONFIG_VALUE_MAX: usize = 255;

fn fd(ret: libc::c_long) -> SysResult<OwnedFd> {
    // SAFETY: the callers pass the result of a system call that returns a fresh fd.
    Ok(unsafe { OwnedFd::from_raw_fd(check(ret)? as i32) })
}

/// What a missing call's elder says; if that has no way, the answer of the call itself, which may be the kernel's own.
fn elder<T>(first: Errno, result: SysResult<T>) -> SysResult<T> {
    match result {
        Err(Errno::ENOSYS) => Err(first),
        other => other,
    }
}

fn raw(dir: Option<BorrowedFd>) -> i32 {
    dir.map_or(libc::AT_FDCWD, |fd| fd.as_raw_fd())
}

/// Makes a detached copy of the mount at a path (open_tree(2) with `OPEN_TREE_CLONE`), with what is mounted below it when
/// `recursive`. An empty path means the fd itself.
///
/// Where the call is missing, the copy is made in a mount namespace of the caller's own ([`own_namespace`]), and nowhere else.
///
/// # Errors
/// As open_tree(2); `EINVAL` for a mount of another mount namespace; `ENOSYS` (or `EPERM`, of a filter) where there is no way.
pub fn clone_tree(dir: Option<BorrowedFd>, path: &CStr, recursive: bool) -> SysResult<OwnedFd> {
    if TREES.known() {
        return classic::clone_tree(dir, path, recursive);
    }
    let mut flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC | libc::AT_EMPTY_PATH as u32;
    if recursive {
        flags |= libc::AT_RECURSIVE as u32;
    }
    // SAFETY: path is a C string, the rest are integers.
    match fd(unsafe { libc::syscall(libc::SYS_open_tree, raw(dir), path.as_ptr(), flags) }) {
        Err(errno) if TREES.told_by(errno) => elder(errno, classic::clone_tree(dir, path, recursive)),
        other => other,
    }
}

/// A part of the host's tree to be mounted elsewhere: copied already, which takes CAP_SYS_ADMIN in the mount namespace that it
/// is in, or to be copied once the process is in a mount namespace of its own.
#[derive(Debug)]
pub enum Tree {
    /// A detached copy.
    Made(OwnedFd),
    /// What to copy, and how; the copy that was made before the path went out of sight.
    Later(CString, Way, OnceCell<OwnedFd>),
}

/// How a tree is copied.
#[derive(Debug, Clone, Copy, Default)]
pub struct Way {
    /// With all that is mounted below it.
    pub recursive: bool,
    /// The path was resolved before: a symlink anywhere on it is `ELOOP`.
    pub resolved: bool,
}

impl Way {
    /// The detached copy of what is at a path.
    fn copy(self, path: &CStr) -> SysResult<OwnedFd> {
        match self.resolved {
            true => clone_tree(Some(path::open_resolved(path, OFlag::empty())?.as_fd()), c"", self.recursive),
            false => clone_tree(None, path, self.recursive),
        }
    }
}

/// A tree's detached copy.
#[derive(Debug)]
pub enum Copied<'t> {
    /// Made before.
    Before(BorrowedFd<'t>),
    /// Made just now.
    Now(OwnedFd),
}

impl AsFd for Copied<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Copied::Before(fd) => *fd,
            Copied::Now(fd) => fd.as_fd(),
        }
    }
}

impl Tree {
    /// A tree to be copied once the process is in a mount namespace of its own.
    pub fn later(path: CString, recursive: bool) -> Tree {
        Tree::Later(path, Way { recursive, resolved: false }, OnceCell::new())
    }

    /// As [`Tree::later`] or, with `now`, [`Tree::take`], of a path that was resolved before: a symlink anywhere on it is
    /// `ELOOP`, be it put there until now or until it is copied.
    ///
    /// # Errors
    /// As [`clone_tree`]; `ELOOP`.
    pub fn of_resolved(path: &CStr, recursive: bool, now: bool) -> SysResult<Tree> {
        let way = Way { recursive, resolved: true };
        match if now { way.copy(path) } else { Err(Errno::ENOSYS) } {
            Err(Errno::ENOSYS | Errno::EPERM) => Ok(Tree::Later(path.into(), way, OnceCell::new())),
            other => other.map(Tree::Made),
        }
    }

    /// A copy of what is at a path, made now where that is possible; `open` is the path or the open file it is taken from.
    ///
    /// # Errors
    /// As [`clone_tree`].
    pub fn take(open: Option<BorrowedFd>, path: &CStr, recursive: bool) -> SysResult<Tree> {
        match clone_tree(open, if open.is_some() { c"" } else { path }, recursive) {
            Err(Errno::ENOSYS | Errno::EPERM) => Ok(Tree::later(path.into(), recursive)),
            other => other.map(Tree::Made),
        }
    }

    /// The detached copy. Allocates nothing.
    ///
    /// # Errors
    /// As [`clone_tree`].
    pub fn copy(&self) -> SysResult<Copied<'_>> {
        Ok(match self {
            Tree::Made(fd) => Copied::Before(fd.as_fd()),
            Tree::Later(path, way, held) => match held.get() {
                Some(fd) => Copied::Before(fd.as_fd()),
                None => Copied::Now(way.copy(path)?),
            },
        })
    }

    /// Makes the copy and holds it, for a process that is about to leave the mount namespace that the path is in. Allocates
    /// nothing.
    ///
    /// # Errors
    /// As [`clone_tree`].
    pub fn hold(&self) -> SysResult<()> {
        if let Tree::Later(path, way, held) = self {
            let _ = held.set(way.copy(path)?);
        }
        Ok(())
    }
}

/// Whether an fd refers to the root of a mount (statx(2), `STATX_ATTR_MOUNT_ROOT`, Linux 5.8).
///
/// # Errors
/// As statx(2); `ENOSYS` where the kernel does not tell.
pub fn is_mount_root(fd: BorrowedFd) -> SysResult<bool> {
    const MOUNT_ROOT: u64 = 0x2000;
    // SAFETY: statx is plain data, and all zeroes is a valid value of it.
    let mut found: libc::statx = unsafe { std::mem::zeroed() };
    // SAFETY: the path is an empty static string, found a valid place for the answer.
    check(unsafe {
        libc::syscall(
            libc::SYS_statx,
            fd.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | libc::AT_NO_AUTOMOUNT,
            0,
            &raw mut found,
        )
    })?;
    if found.stx_attributes_mask & MOUNT_ROOT == 0 {
        return Err(super::Errno::ENOSYS);
    }
    Ok(found.stx_attributes & MOUNT_ROOT != 0)
}

/// Unmounts, lazily, the very mount whose root an fd refers to, whatever leads there by name. umount2(2) takes a path: the fd's
/// own in `fds`, the caller's /proc/self/fd, which becomes the current directory. What is stacked on the mount's root is in the
/// way and goes before it.
///
/// # Errors
/// As umount2(2); `EINVAL` for what is no mount's root, or came from a mount namespace with more privilege; `EBUSY` when more
/// is stacked on it than anybody would by accident.
pub fn unmount(fds: BorrowedFd, mount: BorrowedFd) -> SysResult<()> {
    nix::unistd::fchdir(fds)?;
    let mut text = [0_u8; 12];
    let (mut at, mut rest) = (text.len() - 1, mount.as_raw_fd().unsigned_abs());
    while at > 0 && (rest > 0 || at == text.len() - 1) {
        at -= 1;
        text[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    let name = CStr::from_bytes_with_nul(&text[at..]).map_err(|_| super::Errno::EINVAL)?;
    // The path ends at what was stacked there last; the mount itself is gone when it is a mount of this namespace no more.
    for removed in 0..STACK_MAX {
        match nix::mount::umount2(name, nix::mount::MntFlags::MNT_DETACH) {
            Err(Errno::EINVAL) if removed > 0 => return Ok(()),
            other => other?,
        }
    }
    Err(Errno::EBUSY)
}

/// Attaches a detached mount at an open place.
///
/// # Errors
/// As move_mount(2).
pub fn attach(mount: BorrowedFd, target: BorrowedFd) -> SysResult<()> {
    if TREES.known() {
        return classic::attach(mount, target);
    }
    let flags = libc::MOVE_MOUNT_F_EMPTY_PATH | libc::MOVE_MOUNT_T_EMPTY_PATH;
    // SAFETY: the paths are empty static strings, the rest are integers.
    match check(unsafe {
        libc::syscall(libc::SYS_move_mount, mount.as_raw_fd(), c"".as_ptr(), target.as_raw_fd(), c"".as_ptr(), flags)
    }) {
        Err(errno) if TREES.told_by(errno) => elder(errno, classic::attach(mount, target)),
        Err(Errno::ELOOP) if classic::is_there(mount, target) => classic::drop_stage(),
        // What is attached may have been made without open_tree(2).
        other => other.and_then(|_| classic::drop_stage()),
    }
}

/// Binds one open file on another one, without what is mounted below it.
///
/// # Errors
/// As open_tree(2) and move_mount(2).
pub fn bind(source: BorrowedFd, target: BorrowedFd) -> Result<(), Failure> {
    match clone_tree(Some(source), c"", false) {
        Err(Errno::ENOSYS | Errno::EPERM) => classic::bind(source, target, false).at(Call::Mount),
        other => attach(other.at(Call::CloneTree)?.as_fd(), target).at(Call::Attach),
    }
}

/// Binds an open file or directory on itself, with all that is mounted below it, for who has no [`clone_tree`].
///
/// # Errors
/// As mount(2).
pub fn bind_on_itself(place: BorrowedFd) -> SysResult<()> {
    classic::bind(place, place, true)
}

/// The options of a filesystem in order; one without a value is a flag.
pub trait Settings<'o>: IntoIterator<Item = (&'o CStr, Option<&'o CStr>)> + Clone {}

impl<'o, T: IntoIterator<Item = (&'o CStr, Option<&'o CStr>)> + Clone> Settings<'o> for T {}

/// A new filesystem, detached: its options, the source among them, and `MOUNT_ATTR_*` bits.
///
/// # Errors
/// The call that failed: `ENODEV` for an unknown type, `EINVAL` for an option that the filesystem does not know or a value
/// that it does not take.
pub fn make<'o>(fstype: &CStr, options: impl Settings<'o>, attributes: u64) -> Result<OwnedFd, Failure> {
    match make_detached(fstype, options.clone(), attributes) {
        Err(Failure { call, errno }) if FSOPEN.told_by(errno) => classic::make(fstype, options, attributes).at(call),
        other => other,
    }
}

/// As [`make`], for a filesystem that is used by its fd and never attached: it is nowhere in the mount namespace.
///
/// # Errors
/// As [`make`].
pub fn make_unattached<'o>(fstype: &CStr, options: impl Settings<'o>, attributes: u64) -> Result<OwnedFd, Failure> {
    match make_detached(fstype, options.clone(), attributes) {
        Err(Failure { call, errno }) if FSOPEN.told_by(errno) => {
            classic::make_unattached(fstype, options, attributes).at(call)
        }
        other => other,
    }
}

/// As [`make`], attached at an open directory at once; returned where it may be copied.
///
/// # Errors
/// As [`make`] and [`attach`].
pub fn make_at<'o>(
    fstype: &CStr,
    options: impl Settings<'o>,
    attributes: u64,
    target: BorrowedFd,
) -> Result<Option<OwnedFd>, Failure> {
    let made = match make_detached(fstype, options.clone(), attributes) {
        Ok(made) => made,
        Err(Failure { call, errno }) if FSOPEN.told_by(errno) => {
            return classic::make_at(fstype, options, attributes, target).at(call).map(|()| None);
        }
        Err(failure) => return Err(failure),
    };
    attach(made.as_fd(), target).at(Call::Attach)?;
    Ok((!TREES.known()).then_some(made))
}

fn make_detached<'o>(fstype: &CStr, options: impl Settings<'o>, attributes: u64) -> Result<OwnedFd, Failure> {
    if FSOPEN.known() {
        return Err(Failure { call: Call::FsOpen, errno: Errno::ENOSYS });
    }
    // SAFETY: a C string and a flag.
    let context = fd(unsafe { libc::syscall(libc::SYS_fsopen, fstype.as_ptr(), libc::FSOPEN_CLOEXEC) });
    let context = context.at(Call::FsOpen)?;
    for (key, value) in options {
        let command = if value.is_some() { FSCONFIG_SET_STRING } else { FSCONFIG_SET_FLAG };
        fsconfig(context.as_fd(), command, Some(key), value).at(Call::FsConfig)?;
    }
    fsconfig(context.as_fd(), FSCONFIG_CMD_CREATE, None, None).at(Call::FsCreate)?;
    // SAFETY: integers only.
    fd(unsafe { libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), libc::FSMOUNT_CLOEXEC, attributes as u32) })
        .at(Call::FsMount)
}

fn fsconfig(context: BorrowedFd, command: u32, key: Option<&CStr>, value: Option<&CStr>) -> SysResult<()> {
    let pointer = |s: Option<&CStr>| s.map_or(std::ptr::null(), CStr::as_ptr);
    // SAFETY: key and value are C strings or null, as the command wants them.
    check(unsafe { libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), command, pointer(key), pointer(value), 0) })?;
    Ok(())
}

/// What mount_setattr(2) changes: bits to set and to clear, a propagation type (`MS_SHARED` and the like, 0 for none).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Attributes {
    /// `MOUNT_ATTR_*` bits to set.
    pub set: u64,
    /// `MOUNT_ATTR_*` bits to clear.
    pub clear: u64,
    /// Propagation type, 0 to leave it.
    pub propagation: u64,
}

impl Attributes {
    /// Whether there is anything to change.
    pub fn is_empty(&self) -> bool {
        *self == Attributes::default()
    }
}

/// Changes the attributes of the mount that an fd refers to, and of all below it when `recursive`; `idmap` is a user
/// namespace for `MOUNT_ATTR_IDMAP`.
///
/// # Errors
/// As mount_setattr(2) (Linux 5.12); `ENOSYS` (or `EPERM`, of a filter) where that is missing and the mount is detached, or the attributes but the
/// propagation are for all below it, or `idmap` is given.
pub fn set_attributes(
    mount: BorrowedFd,
    attributes: Attributes,
    recursive: bool,
    idmap: Option<BorrowedFd>,
) -> SysResult<()> {
    if SETATTR.known() && idmap.is_none() {
        return classic::set_attributes(mount, attributes, recursive);
    }
    let mut attr = libc::mount_attr {
        attr_set: attributes.set,
        attr_clr: attributes.clear,
        propagation: attributes.propagation,
        userns_fd: 0,
    };
    if let Some(userns) = idmap {
        attr.attr_set |= libc::MOUNT_ATTR_IDMAP;
        attr.userns_fd = userns.as_raw_fd() as u64;
    }
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: attr is a mount_attr of the size given, the path is an empty static string.
    match check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attr,
            size_of::<libc::mount_attr>(),
        )
    }) {
        Err(errno) if SETATTR.told_by(errno) && idmap.is_none() => {
            elder(errno, classic::set_attributes(mount, attributes, recursive))
        }
        // Not known to the call before Linux 5.14.
        Err(Errno::EINVAL) if attributes.set & libc::MOUNT_ATTR_NOSYMFOLLOW != 0 && idmap.is_none() => {
            classic::set_attributes(mount, attributes, recursive)
        }
        other => other.map(drop),
    }
}

/// pivot_root(2) of the current directory onto itself: the old root ends up on top of the new one.
///
/// # Errors
/// As pivot_root(2); `EINVAL` on a rootfs in RAM (initramfs), which can't be pivoted.
pub fn pivot_here() -> SysResult<()> {
    // SAFETY: static strings.
    check(unsafe { libc::syscall(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr()) })?;
    Ok(())
}
