//! The mount API and mount_setattr(2) by mount(2) alone, where they are missing (see [`crate::sys::absent`]).
//!
//! What is safe about the newer calls stays so: a mount is made out of everybody's sight, dressed there, and moved to a place
//! that is held by fd. Out of sight means on top of the process' own root, in a mount namespace of its own: paths start below
//! such a mount, and only `/..` leads onto it. mount(2) takes paths; the one that names an open file, whoever moves it about,
//! is `self/fd/N` with the current directory on a procfs.

use super::{Attributes, Settings};
use crate::sys::pidfd::{PROCFS, numbered};
use crate::sys::{Errno, SysResult, check, files, filesystem, path};
use nix::fcntl::OFlag;
use nix::mount::{MntFlags, MsFlags, umount2};
use nix::sys::stat::{SFlag, fstat};
use nix::unistd::fchdir;
use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering::Relaxed};

/// Whether mounts may be made on top of the root: in a namespace of one's own that nobody sees, until the pivot.
static OWN: AtomicBool = AtomicBool::new(false);
/// A procfs that was found there.
static FOUND: AtomicI32 = AtomicI32::new(-1);
/// The tmpfs that files are staged on, while there is one.
static STAGE: AtomicI32 = AtomicI32::new(-1);

/// Says whether the calling process is in a mount namespace of its own, in the host's view, that no mount leaves.
pub fn own_namespace(own: bool) {
    OWN.store(own, Relaxed);
}

/// Whether nobody sees the calling process' mounts yet, as [`own_namespace`] was told.
pub fn is_own() -> bool {
    OWN.load(Relaxed)
}

fn allowed() -> SysResult<()> {
    if is_own() { Ok(()) } else { Err(Errno::ENOSYS) }
}

/// The procfs that `self/fd/N` is looked up in; the first time it must be the host's.
fn procfs() -> SysResult<BorrowedFd<'static>> {
    let mut number = FOUND.load(Relaxed);
    if number < 0 {
        let found = files::open(None, c"/proc", OFlag::O_PATH | OFlag::O_DIRECTORY)?;
        if filesystem(found.as_fd())? != PROCFS {
            return Err(Errno::ENOSYS);
        }
        number = found.into_raw_fd();
        FOUND.store(number, Relaxed);
    }
    // SAFETY: it stays open until the steps that close every fd, which come after all mounts.
    Ok(unsafe { BorrowedFd::borrow_raw(number) })
}

/// Does something with the current directory elsewhere.
fn from_within<T>(directory: BorrowedFd, act: impl FnOnce() -> SysResult<T>) -> SysResult<T> {
    let before = files::open(None, c".", OFlag::O_PATH | OFlag::O_DIRECTORY)?;
    fchdir(directory)?;
    let result = act();
    fchdir(&before)?;
    result
}

/// mount(2) on an open file or directory, with another one as the source or none.
fn mount_on(target: BorrowedFd, source: Option<BorrowedFd>, flags: MsFlags) -> SysResult<()> {
    if source.is_none() {
        // A directory needs no procfs.
        let here = || nix::mount::mount(None::<&CStr>, c".", None::<&CStr>, flags, None::<&CStr>);
        match from_within(target, here) {
            Err(Errno::ENOTDIR) => {}
            other => return other,
        }
    }
    let (mut from, mut to) = ([0; 32], [0; 32]);
    let from = source.map(|fd| numbered(&mut from, "self/fd/", fd.as_raw_fd(), &[])).transpose()?;
    let to = numbered(&mut to, "self/fd/", target.as_raw_fd(), &[])?;
    from_within(procfs()?, || nix::mount::mount(from, to, None::<&CStr>, flags, None::<&CStr>))
}

/// Binds an open file or directory on another one.
pub fn bind(source: BorrowedFd, target: BorrowedFd, recursive: bool) -> SysResult<()> {
    let flags = if recursive { MsFlags::MS_BIND | MsFlags::MS_REC } else { MsFlags::MS_BIND };
    mount_on(target, Some(source), flags)
}

/// What was mounted on top of the root last.
fn top() -> SysResult<OwnedFd> {
    files::open(None, c"/..", OFlag::O_PATH | OFlag::O_DIRECTORY)
}

/// As open_tree(2) with `OPEN_TREE_CLONE`: a bind on top of the root.
pub fn clone_tree(dir: Option<BorrowedFd>, path: &CStr, recursive: bool) -> SysResult<OwnedFd> {
    allowed()?;
    let opened = match dir {
        Some(dir) if path.is_empty() => dir.try_clone_to_owned().map_err(|_| Errno::EMFILE)?,
        _ => files::open(dir, path, OFlag::O_PATH)?,
    };
    if path::kind(&fstat(&opened)?) == SFlag::S_IFDIR {
        let root = files::open(None, c"/", OFlag::O_PATH | OFlag::O_DIRECTORY)?;
        bind(opened.as_fd(), root.as_fd(), recursive)?;
        return top();
    }
    // A file goes on a file.
    nix::mount::mount(Some(c"stage"), c"/", Some(c"tmpfs"), MsFlags::empty(), Some(c"size=4k"))?;
    let stage = top()?;
    drop(files::open(Some(stage.as_fd()), c"file", OFlag::O_CREAT | OFlag::O_EXCL)?);
    let place = files::open(Some(stage.as_fd()), c"file", OFlag::O_PATH)?;
    bind(opened.as_fd(), place.as_fd(), recursive)?;
    let made = files::open(Some(stage.as_fd()), c"file", OFlag::O_PATH);
    STAGE.store(stage.into_raw_fd(), Relaxed);
    made
}

/// As move_mount(2).
pub fn attach(made: BorrowedFd, target: BorrowedFd) -> SysResult<()> {
    match mount_on(target, Some(made), MsFlags::MS_MOVE) {
        // It has been detached by a call that is there, unlike the one that attaches it.
        Err(Errno::EINVAL) => return Err(Errno::ENOSYS),
        Err(Errno::ELOOP) if is_there(made, target) => {}
        other => other?,
    }
    drop_stage()
}

/// Whether a mount that can't be moved to a place, since one of them is in the other (`ELOOP`), lies on top there already:
/// where it was made, or with what it was made on. Mounts that lie on one another have one path.
pub fn is_there(made: BorrowedFd, target: BorrowedFd) -> bool {
    let mut buffers = [[0; path::PATH_MAX]; 2];
    let [first, second] = &mut buffers;
    let place = from_within(made, || Ok(path::cwd(first)));
    place.is_ok_and(|place| place.starts_with(b"/") && from_within(target, || Ok(path::cwd(second))) == Ok(place))
}

/// Lets go of the tmpfs that a file was staged on, once the file has left it.
pub fn drop_stage() -> SysResult<()> {
    let number = STAGE.swap(-1, Relaxed);
    if number >= 0 {
        // SAFETY: the number was stored by who opened it, and has no owner any more.
        let stage = unsafe { OwnedFd::from_raw_fd(number) };
        from_within(stage.as_fd(), || umount2(c".", MntFlags::MNT_DETACH))?;
    }
    Ok(())
}

/// A new filesystem on top of the root, with the options of fsconfig(2).
pub fn make<'o>(fstype: &CStr, options: impl Settings<'o>, attributes: u64) -> SysResult<OwnedFd> {
    allowed()?;
    let read_only = mount_new(c"/", fstype, options, attributes)?;
    let made = top()?;
    if !read_only && attributes & libc::MOUNT_ATTR_RDONLY != 0 {
        set_attributes(made.as_fd(), Attributes { set: libc::MOUNT_ATTR_RDONLY, ..Attributes::default() }, false)?;
    }
    Ok(made)
}

/// As [`make`], and out of the mount namespace again: the fd alone holds it.
pub fn make_unattached<'o>(fstype: &CStr, options: impl Settings<'o>, attributes: u64) -> SysResult<OwnedFd> {
    let made = make(fstype, options, attributes)?;
    umount2(c"/..", MntFlags::MNT_DETACH)?;
    Ok(made)
}

/// A new filesystem right on an open directory.
pub fn make_at<'o>(fstype: &CStr, options: impl Settings<'o>, attributes: u64, target: BorrowedFd) -> SysResult<()> {
    from_within(target, || {
        let flags = mount_flags(attributes);
        let mut data = Data::new(options)?;
        nix::mount::mount(data.source, c".", Some(fstype), flags | data.flags, Some(data.text()?))
    })
}

/// Returns whether the mount is read-only already.
fn mount_new<'o>(target: &CStr, fstype: &CStr, options: impl Settings<'o>, attributes: u64) -> SysResult<bool> {
    let mut data = Data::new(options)?;
    let (source, flags) = (data.source, data.flags);
    let data = data.text()?;
    let flags = |attributes| flags | mount_flags(attributes);
    let mount = |flags| nix::mount::mount(source, target, Some(fstype), flags, Some(data));
    // mount(2) would make the superblock read-only as well, which others may share.
    match mount(flags(attributes & !libc::MOUNT_ATTR_RDONLY)) {
        // In a user namespace a procfs or sysfs must not be freer than the one that is visible already.
        Err(Errno::EPERM) if attributes & libc::MOUNT_ATTR_RDONLY != 0 => mount(flags(attributes)).map(|()| true),
        other => other.map(|()| false),
    }
}

/// Options as mount(2) takes them.
struct Data<'o> {
    source: Option<&'o CStr>,
    flags: MsFlags,
    bytes: [u8; 4096],
    len: usize,
}

impl<'o> Data<'o> {
    fn new(options: impl Settings<'o>) -> SysResult<Data<'o>> {
        let mut data = Data { source: None, flags: MsFlags::empty(), bytes: [0; 4096], len: 0 };
        for (key, value) in options {
            match (key.to_bytes(), value) {
                (b"source", Some(value)) => data.source = Some(value),
                (b"ro", None) => data.flags |= MsFlags::MS_RDONLY,
                (b"sync", None) => data.flags |= MsFlags::MS_SYNCHRONOUS,
                (b"dirsync", None) => data.flags |= MsFlags::MS_DIRSYNC,
                (b"mand", None) => data.flags |= MsFlags::MS_MANDLOCK,
                (b"lazytime", None) => data.flags |= MsFlags::MS_LAZYTIME,
                (b"rw" | b"async" | b"nomand" | b"nolazytime", None) => {}
                (key, value) => {
                    let pieces = [key, if value.is_some() { b"=" } else { b"" }, value.map_or(b"", CStr::to_bytes)];
                    if data.len > 0 {
                        data.push(b",")?;
                    }
                    pieces.iter().try_for_each(|piece| data.push(piece))?;
                }
            }
        }
        Ok(data)
    }

    fn push(&mut self, piece: &[u8]) -> SysResult<()> {
        let end = self.len + piece.len();
        self.bytes.get_mut(self.len..end).ok_or(Errno::ENAMETOOLONG)?.copy_from_slice(piece);
        self.len = end;
        Ok(())
    }

    fn text(&mut self) -> SysResult<&CStr> {
        CStr::from_bytes_until_nul(&self.bytes).map_err(|_| Errno::ENAMETOOLONG)
    }
}

/// `MOUNT_ATTR_*` bits and what mount(2) calls them; the modes of access times are apart.
const FLAGS: [(u64, MsFlags); 6] = [
    (libc::MOUNT_ATTR_RDONLY, MsFlags::MS_RDONLY),
    (libc::MOUNT_ATTR_NOSUID, MsFlags::MS_NOSUID),
    (libc::MOUNT_ATTR_NODEV, MsFlags::MS_NODEV),
    (libc::MOUNT_ATTR_NOEXEC, MsFlags::MS_NOEXEC),
    (libc::MOUNT_ATTR_NODIRATIME, MsFlags::MS_NODIRATIME),
    // MS_NOSYMFOLLOW (Linux 5.10).
    (libc::MOUNT_ATTR_NOSYMFOLLOW, MsFlags::from_bits_retain(0x100)),
];

fn mount_flags(attributes: u64) -> MsFlags {
    let time = match attributes & libc::MOUNT_ATTR__ATIME {
        libc::MOUNT_ATTR_NOATIME => MsFlags::MS_NOATIME,
        libc::MOUNT_ATTR_STRICTATIME => MsFlags::MS_STRICTATIME,
        _ => MsFlags::MS_RELATIME,
    };
    let set = FLAGS.iter().filter(|(bit, _)| attributes & bit != 0);
    set.fold(time, |all, (_, flag)| all | *flag)
}

/// The `MOUNT_ATTR_*` bits that a mount has, from statvfs(3).
fn current(mount: BorrowedFd) -> SysResult<u64> {
    // SAFETY: statvfs is plain data that the call fills in.
    let shown = unsafe {
        let mut found: libc::statvfs = std::mem::zeroed();
        check(libc::fstatvfs(mount.as_raw_fd(), &raw mut found).into())?;
        found.f_flag
    };
    // The ST_* bits of statvfs are those of mount(2) but for these.
    const NOATIME: u64 = 0x400;
    const RELATIME: u64 = 0x1000;
    const NOSYMFOLLOW: u64 = 0x2000;
    let same = FLAGS.iter().filter(|(_, flag)| shown & flag.bits() != 0 && flag.bits() != 0x100);
    let time = match (shown & NOATIME != 0, shown & RELATIME != 0) {
        (true, _) => libc::MOUNT_ATTR_NOATIME,
        (_, true) => libc::MOUNT_ATTR_RELATIME,
        _ => libc::MOUNT_ATTR_STRICTATIME,
    };
    let links = if shown & NOSYMFOLLOW != 0 { libc::MOUNT_ATTR_NOSYMFOLLOW } else { 0 };
    Ok(same.fold(time | links, |all, (bit, _)| all | bit))
}

/// As mount_setattr(2), on a mount that is attached: `ENOSYS` on one that is not, and for attributes of a whole tree.
pub fn set_attributes(mount: BorrowedFd, attributes: Attributes, recursive: bool) -> SysResult<()> {
    let Attributes { set, clear, propagation } = attributes;
    let told = |result| match result {
        Err(Errno::EINVAL) => Err(Errno::ENOSYS),
        other => other,
    };
    if set | clear != 0 {
        if recursive {
            return Err(Errno::ENOSYS);
        }
        let clear = if clear & libc::MOUNT_ATTR__ATIME != 0 { clear | libc::MOUNT_ATTR__ATIME } else { clear };
        let flags = mount_flags(current(mount)? & !clear | set);
        told(mount_on(mount, None, flags | MsFlags::MS_REMOUNT | MsFlags::MS_BIND))?;
    }
    if propagation != 0 {
        let flags = MsFlags::from_bits_retain(propagation as libc::c_ulong);
        told(mount_on(mount, None, if recursive { flags | MsFlags::MS_REC } else { flags }))?;
    }
    Ok(())
}
