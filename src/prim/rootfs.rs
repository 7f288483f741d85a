//! The root filesystem from within: devices, masks, read-only paths, the pivot. Every path is resolved in root by fd, and
//! every mount is attached to an fd.

use crate::sys::mount::{self, Attributes};
use crate::sys::path::{self, Follow};
use crate::sys::{At, Call, Errno, Failure, files};
use nix::fcntl::{AtFlags, OFlag};
use nix::mount::{MntFlags, MsFlags, umount2};
use nix::sys::stat::{Mode, SFlag, fstat, fstatat, makedev, mknodat};
use nix::unistd::{Gid, Uid};
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// A device node or FIFO to be made.
#[derive(Debug, PartialEq, Eq)]
pub struct Node {
    /// Where, below the root and without a leading slash.
    pub path: CString,
    /// `S_IFCHR`, `S_IFBLK` or `S_IFIFO`.
    pub kind: SFlag,
    /// Permission bits.
    pub mode: Mode,
    /// Device number, 0 for a FIFO.
    pub device: u64,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// The devices that every container has (runtime-spec, config-linux.md, "Default Devices"): name, major, minor.
pub const DEFAULT_DEVICES: [(&CStr, u64, u64); 6] = [
    (c"dev/null", 1, 3),
    (c"dev/zero", 1, 5),
    (c"dev/full", 1, 7),
    (c"dev/random", 1, 8),
    (c"dev/urandom", 1, 9),
    (c"dev/tty", 5, 0),
];

/// The symlinks that every container has: name and target.
pub const DEFAULT_LINKS: [(&CStr, &CStr); 5] = [
    (c"dev/fd", c"/proc/self/fd"),
    (c"dev/stdin", c"/proc/self/fd/0"),
    (c"dev/stdout", c"/proc/self/fd/1"),
    (c"dev/stderr", c"/proc/self/fd/2"),
    (c"dev/ptmx", c"pts/ptmx"),
];

/// Makes a node; one that is there already must be the same device. The umask must be 0.
///
/// # Errors
/// `EEXIST` when something else has the name.
pub fn make_node(node: &Node, root: BorrowedFd) -> Result<(), Failure> {
    let (parent, name) = path::make_parent(root, &node.path).at(Call::Open)?;
    match mknodat(&parent, name, node.kind, node.mode, node.device) {
        Ok(()) => {}
        Err(Errno::EEXIST) => {
            let found = fstatat(&parent, name, AtFlags::AT_SYMLINK_NOFOLLOW).at(Call::Stat)?;
            if path::kind(&found) != node.kind || found.st_rdev != node.device {
                return Err(Failure { call: Call::Mknod, errno: Errno::EEXIST });
            }
        }
        Err(errno) => return Err(Failure { call: Call::Mknod, errno }),
    }
    if (node.uid, node.gid) != (0, 0) {
        let (uid, gid) = (Uid::from_raw(node.uid), Gid::from_raw(node.gid));
        nix::unistd::fchownat(&parent, name, Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW).at(Call::Chown)?;
    }
    Ok(())
}

/// Binds a device of the host, as a detached copy of its mount, where mknod is not allowed (in a user namespace).
///
/// # Errors
/// The call that failed.
pub fn bind_node(path: &CStr, tree: BorrowedFd, root: BorrowedFd) -> Result<(), Failure> {
    let target = path::make_file(root, path, Follow::InRoot).at(Call::Open)?;
    mount::attach(tree, target.as_fd()).at(Call::Attach)
}

/// Makes a symlink; whatever has the name already stays if it is a symlink to the same place or no symlink at all, and
/// gives way otherwise.
///
/// # Errors
/// The call that failed.
pub fn make_link(name: &CStr, target: &CStr, root: BorrowedFd) -> Result<(), Failure> {
    let (parent, name) = path::make_parent(root, name).at(Call::Open)?;
    match nix::unistd::symlinkat(target, &parent, name) {
        Err(Errno::EEXIST) if path::link_is(parent.as_fd(), name, target) => Ok(()),
        Err(Errno::EEXIST) => {
            let found = fstatat(&parent, name, AtFlags::AT_SYMLINK_NOFOLLOW).at(Call::Stat)?;
            if path::kind(&found) != SFlag::S_IFLNK {
                return Ok(());
            }
            nix::unistd::unlinkat(&parent, name, nix::unistd::UnlinkatFlags::NoRemoveDir).at(Call::Symlink)?;
            nix::unistd::symlinkat(target, &parent, name).at(Call::Symlink)
        }
        other => other.at(Call::Symlink),
    }
}

/// Makes a path read-only, with a mount of itself on itself; a path that does not exist is passed over, as the spec's
/// callers expect.
///
/// # Errors
/// The call that failed.
pub fn make_readonly(target: &CStr, root: BorrowedFd) -> Result<(), Failure> {
    let place = match path::open(root, target, OFlag::O_PATH, Follow::InRoot) {
        Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP | Errno::EACCES) => return Ok(()),
        other => other.at(Call::Open)?,
    };
    let read_only = Attributes { set: libc::MOUNT_ATTR_RDONLY, ..Attributes::default() };
    let tree = match mount::clone_tree(Some(place.as_fd()), c"", true) {
        Ok(tree) => tree,
        Err(Errno::ENOSYS | Errno::EPERM) => {
            mount::bind_on_itself(place.as_fd()).at(Call::Mount)?;
            let made = path::open(root, target, OFlag::O_PATH, Follow::InRoot).at(Call::Open)?;
            if !path::is_mounted_over(place.as_fd(), made.as_fd()).at(Call::Stat)? {
                return Err(Failure::check(Errno::EBUSY));
            }
            return mount::set_attributes(made.as_fd(), read_only, false, None).at(Call::MountSetattr);
        }
        Err(errno) => return Err(Failure { call: Call::CloneTree, errno }),
    };
    attach_readonly(tree.as_fd(), place.as_fd())
}

/// Keeps a symlink from being replaced: what it leads to is mounted on the link itself, read-only, and the root's /dev/null
/// where that is no file. Anything but a symlink is passed over.
///
/// # Errors
/// The call that failed.
pub fn hold_link(link: &CStr, root: BorrowedFd) -> Result<(), Failure> {
    let place = match path::open(root, link, OFlag::O_PATH | OFlag::O_NOFOLLOW, Follow::InRoot) {
        Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP | Errno::EACCES) => return Ok(()),
        other => other.at(Call::Open)?,
    };
    if path::kind(&fstat(&place).at(Call::Stat)?) != SFlag::S_IFLNK {
        return Ok(());
    }
    let led_to = path::open(root, link, OFlag::O_PATH, Follow::InRoot).ok();
    let is_file = |fd: &OwnedFd| fstat(fd).is_ok_and(|stat| path::kind(&stat) != SFlag::S_IFDIR);
    let source = match led_to.filter(is_file) {
        Some(file) => file,
        None => path::open(root, c"dev/null", OFlag::O_PATH, Follow::InRoot).at(Call::Open)?,
    };
    match mount::clone_tree(Some(source.as_fd()), c"", false) {
        Err(Errno::ENOSYS | Errno::EPERM) => {
            mount::bind(source.as_fd(), place.as_fd())?;
            let made = path::open(root, link, OFlag::O_PATH | OFlag::O_NOFOLLOW, Follow::InRoot).at(Call::Open)?;
            if !path::is_mounted_over(source.as_fd(), made.as_fd()).at(Call::Stat)? {
                return Err(Failure::check(Errno::EBUSY));
            }
            let read_only = Attributes { set: libc::MOUNT_ATTR_RDONLY, ..Attributes::default() };
            mount::set_attributes(made.as_fd(), read_only, false, None).at(Call::MountSetattr)
        }
        tree => attach_readonly(tree.at(Call::CloneTree)?.as_fd(), place.as_fd()),
    }
}

fn attach_readonly(tree: BorrowedFd, place: BorrowedFd) -> Result<(), Failure> {
    let read_only = Attributes { set: libc::MOUNT_ATTR_RDONLY, ..Attributes::default() };
    match mount::set_attributes(tree, read_only, true, None) {
        // Attached first, and the one mount alone, like other runtimes do it.
        Err(Errno::ENOSYS | Errno::EPERM) => {
            mount::attach(tree, place).at(Call::Attach)?;
            mount::set_attributes(tree, read_only, false, None).at(Call::MountSetattr)
        }
        other => {
            other.at(Call::MountSetattr)?;
            mount::attach(tree, place).at(Call::Attach)
        }
    }
}

/// Hides a path: a directory below an empty read-only tmpfs (one for all, kept in `cover`), a file below the container's
/// `/dev/null`, which must be the real one (CVE-2025-31133). A path that does not exist is passed over.
///
/// # Errors
/// The call that failed; a check when /dev/null is not the null device.
pub fn mask(target: &CStr, root: BorrowedFd, cover: &mut Option<OwnedFd>) -> Result<(), Failure> {
    let place = match path::open(root, target, OFlag::O_PATH, Follow::InRoot) {
        Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP | Errno::EACCES) => return Ok(()),
        other => other.at(Call::Open)?,
    };
    let directory = path::kind(&fstat(&place).at(Call::Stat)?) == SFlag::S_IFDIR;
    if directory {
        if let Some(cover) = cover {
            return mount::bind(cover.as_fd(), place.as_fd());
        }
        let attributes =
            libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC;
        // Only an attached mount can be copied (before Linux 6.15).
        *cover = mount::make_at(c"tmpfs", super::mounts::SMALL, attributes, place.as_fd())?;
        return Ok(());
    }
    let null = path::open(root, c"dev/null", OFlag::O_PATH | OFlag::O_NOFOLLOW, Follow::InRoot).at(Call::Open)?;
    let stat = fstat(&null).at(Call::Stat)?;
    if path::kind(&stat) != SFlag::S_IFCHR || stat.st_rdev != makedev(1, 3) {
        return Err(Failure::check(Errno::ENODEV));
    }
    mount::bind(null.as_fd(), place.as_fd())
}

/// Makes `root` the root of the mount namespace and lets go of the old one. The current directory is `/` afterwards.
///
/// # Errors
/// The call that failed; a check, `EBUSY`, when something still lies over the new root.
pub fn pivot(root: BorrowedFd) -> Result<(), Failure> {
    mount::own_namespace(false);
    nix::unistd::fchdir(root).at(Call::Fchdir)?;
    mount::pivot_here().at(Call::PivotRoot)?;
    // The old root now lies over the new one at the same place; as it is a slave, letting go of it stays here.
    umount2(c".", MntFlags::MNT_DETACH).at(Call::Umount)?;
    // Had anything been mounted on the old root, that would have gone, and `/..` still be the host's.
    if !path::is_same_mount(c"/", c"/..").at(Call::Stat)? {
        return Err(Failure::check(Errno::EBUSY));
    }
    nix::unistd::chdir(c"/").at(Call::Chdir)
}

/// Moves `root` over the root of the mount namespace and changes into it, where pivot_root is not possible (`--no-pivot`).
///
/// # Errors
/// The call that failed.
pub fn move_root(root: BorrowedFd) -> Result<(), Failure> {
    mount::own_namespace(false);
    nix::unistd::fchdir(root).at(Call::Fchdir)?;
    nix::mount::mount(Some(c"."), c"/", None::<&CStr>, MsFlags::MS_MOVE, None::<&CStr>).at(Call::Mount)?;
    enter(root)
}

/// chroot(2) into `root`, for a container without a mount namespace.
///
/// # Errors
/// The call that failed.
pub fn enter(root: BorrowedFd) -> Result<(), Failure> {
    nix::unistd::fchdir(root).at(Call::Fchdir)?;
    nix::unistd::chroot(c".").at(Call::Chroot)?;
    nix::unistd::chdir(c"/").at(Call::Chdir)
}

/// Makes the process' working directory where it is missing, with the owner that will use it.
///
/// # Errors
/// The call that failed.
pub fn make_cwd(cwd: &CStr, root: BorrowedFd) -> Result<(), Failure> {
    match path::make_dirs(root, cwd, Mode::from_bits_truncate(0o755)) {
        // A read-only root or a file in the way: entering the directory will say so, in the user's words.
        Ok(_) | Err(Errno::EROFS | Errno::EACCES | Errno::ENOTDIR | Errno::EPERM) => Ok(()),
        Err(errno) => Err(Failure { call: Call::MakeDir, errno }),
    }
}

/// Writes a sysctl below a procfs of the container's own (`sys/net/ipv4/ip_forward`); no symlink and no other mount on the
/// way is accepted (CVE-2025-52881).
///
/// # Errors
/// The call that failed.
pub fn write_proc(procfs: BorrowedFd, name: &CStr, value: &[u8]) -> Result<(), Failure> {
    let file = path::open(procfs, name, OFlag::O_WRONLY, Follow::SameMount).at(Call::Open)?;
    files::write(file.as_fd(), value).at(Call::Write)
}

/// The filesystem type of procfs, see statfs(2).
const PROC: i64 = 0x9fa0;

/// Writes a label of the calling process (`attr/exec`) by way of the procfs on /proc, which must be one (CVE-2019-16884), and
/// through nothing that is mounted over it (CVE-2025-52881). For a process that sees its caller's mounts.
///
/// # Errors
/// The call that failed; a check when /proc is no procfs.
pub fn label_by_host(file: &CStr, value: &CStr) -> Result<(), Failure> {
    let procfs = files::open(None, c"/proc", OFlag::O_PATH | OFlag::O_DIRECTORY).at(Call::Open)?;
    if crate::sys::filesystem(procfs.as_fd()).at(Call::Stat)? != PROC {
        return Err(Failure::check(Errno::ENOTDIR));
    }
    // The number that this process has there; in its own PID namespace it may have another.
    let mut number = [0; 16];
    let number = files::read_link(procfs.as_fd(), c"self", &mut number).at(Call::Open)?;
    let own =
        path::open(procfs.as_fd(), number, OFlag::O_PATH | OFlag::O_DIRECTORY, Follow::SameMount).at(Call::Open)?;
    write_proc(own.as_fd(), file, value.to_bytes())
}

/// A procfs that nothing is mounted over, detached; without fsopen(2), the one at the root's /proc: what is written through it
/// accepts no mount on the way.
///
/// # Errors
/// `EPERM` in a user namespace on a host that masks parts of its own procfs.
pub fn private_proc(root: BorrowedFd) -> Result<OwnedFd, Failure> {
    const PROCFS: i64 = 0x9fa0;
    match mount::make_unattached(c"proc", [], 0) {
        Err(failure) if matches!(failure.errno, Errno::ENOSYS | Errno::EPERM) => {
            let found = path::open(root, c"proc", OFlag::O_PATH | OFlag::O_DIRECTORY, Follow::NoSymlinks);
            match found.and_then(|found| Ok((crate::sys::filesystem(found.as_fd())?, found))) {
                Ok((PROCFS, found)) => Ok(found),
                _ => Err(failure),
            }
        }
        other => other,
    }
}
