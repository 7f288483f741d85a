//! A writable layer in memory, and overlays whose changes go there. The layer is a tmpfs that nobody sees: it is attached while
//! overlays are made on it, since overlayfs takes only directories of the caller's own mount namespace, and detached then.
//!
//! In config.json an overlay of this kind is a mount of type `overlay` with `lowerdir` and the option [`OPTION`]. A mount of type
//! `tmpfs` with that option and a mode is an empty directory of the layer: it has no size of its own. The annotation [`SIZE`] limits
//! the layer as a whole.

use super::{Mount, What, place, settle};
use crate::sys::mount;
use crate::sys::path;
use crate::sys::{At, Call, Errno, Failure, files, process};
use nix::fcntl::OFlag;
use nix::mount::{MntFlags, umount2};
use nix::sys::stat::{Mode, fchmod, fstat, mkdirat};
use nix::unistd::{Gid, Uid, fchown};
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// The mount option that asks for the layer in place of `upperdir` and `workdir`.
pub const OPTION: &str = "x-brig.layer";

/// The annotation with the layer's size, in bytes.
pub const SIZE: &str = "run.brig.layer.size";

/// Makes the layer and attaches it: on the root itself, where it covers nothing for who holds the root by fd, or at a place that
/// will be covered. For the child: allocates nothing.
///
/// # Errors
/// The call that failed.
pub fn make(size: Option<&CStr>, place: BorrowedFd) -> Result<OwnedFd, Failure> {
    let mode = (c"mode", Some(c"700"));
    let options = [mode, size.map_or(mode, |size| (c"size", Some(size)))];
    let attributes = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV;
    let made = mount::make(c"tmpfs", options, attributes)?;
    mount::attach(made.as_fd(), place).at(Call::Attach)?;
    Ok(made)
}

/// Detaches the layer from the tree; overlays go on using it.
///
/// # Errors
/// As umount2(2).
pub fn hide(layer: BorrowedFd) -> Result<(), Failure> {
    nix::unistd::fchdir(layer).at(Call::Fchdir)?;
    umount2(c".", MntFlags::MNT_DETACH).at(Call::Umount)
}

/// Detaches the layer, and makes a copy of it that can be attached elsewhere.
fn lift(layer: BorrowedFd) -> Result<OwnedFd, Failure> {
    let copy = mount::clone_tree(Some(layer), c"", false).at(Call::CloneTree)?;
    hide(layer).map(|()| copy)
}

/// Makes an overlay of `lower` (a host path) whose changes go to the directory `name` of the layer: `name/upper`. In a user
/// namespace its own marks are `user.` attributes (`userxattr`, Linux 5.11). For the child: allocates nothing. An overlay that is
/// the root itself comes with the layer as it is attached from now on, in place of the one given.
///
/// # Errors
/// The call that failed.
pub fn overlay(
    wanted: &Mount,
    (lower, name, in_user): (&CStr, &CStr, bool),
    layer: BorrowedFd,
    root: BorrowedFd,
) -> Result<(OwnedFd, Option<OwnedFd>), Failure> {
    let directory = OFlag::O_PATH | OFlag::O_DIRECTORY;
    // The layer covers the root for who goes there by path, and the root is what most likely lies below an overlay on it.
    let lifted = if wanted.target.is_empty() { Some(lift(layer)?) } else { None };
    let lower = match wanted.source_resolved {
        true => path::open_resolved(lower, OFlag::O_DIRECTORY),
        false => files::open(None, lower, directory),
    }
    .at(Call::Open)?;
    if let Some(lifted) = &lifted {
        mount::attach(lifted.as_fd(), root).at(Call::Attach)?;
    }
    let layer = lifted.as_ref().map_or(layer, AsFd::as_fd);
    let like = fstat(&lower).at(Call::Stat)?;
    let private = Mode::from_bits_truncate(0o700);
    mkdirat(layer, name, private).at(Call::MakeDir)?;
    let own = files::open(Some(layer), name, directory).at(Call::Open)?;
    mkdirat(&own, c"work", private).at(Call::MakeDir)?;
    mkdirat(&own, c"upper", private).at(Call::MakeDir)?;
    // The merged directory shows the upper one's mode and owner.
    let upper = files::open(Some(own.as_fd()), c"upper", OFlag::O_RDONLY | OFlag::O_DIRECTORY).at(Call::Open)?;
    // An owner that is not mapped can't be given.
    match fchown(&upper, Some(Uid::from_raw(like.st_uid)), Some(Gid::from_raw(like.st_gid))) {
        Err(Errno::EINVAL | Errno::EPERM) => {}
        other => other.at(Call::Chown)?,
    }
    fchmod(&upper, Mode::from_bits_truncate(like.st_mode & 0o7777)).at(Call::Chown)?;
    // By number, so that no character of a path means anything to the option's parser.
    let mut buffers = [[0; 48]; 3];
    let [a, b, c] = &mut buffers;
    let number =
        |buffer, fd: &OwnedFd, rest: &[&str]| process::numbered(buffer, "/proc/self/fd/", fd.as_raw_fd(), rest);
    let options = [
        (c"source", Some(c"overlay")),
        (c"lowerdir", Some(number(a, &lower, &[]).at(Call::Check)?)),
        (c"upperdir", Some(number(b, &own, &["/upper"]).at(Call::Check)?)),
        (c"workdir", Some(number(c, &own, &["/work"]).at(Call::Check)?)),
        (c"userxattr", None),
        // What was changed is to be found under its own name, and whole.
        (c"redirect_dir", Some(c"off")),
        (c"metacopy", Some(c"off")),
    ];
    let chosen = options
        .iter()
        .copied()
        .filter(|(key, value)| value.is_none() == in_user || options[..4].iter().any(|(k, _)| k == key));
    let made = mount::make(c"overlay", chosen, wanted.attributes.set | wanted.recursive.set)?;
    if wanted.target.is_empty() {
        // On top of the layer it would go when the layer is detached.
        let again = lift(layer)?;
        settle(made.as_fd(), root, &[], &wanted.propagation)?;
        mount::attach(again.as_fd(), made.as_fd()).at(Call::Attach)?;
        return Ok((made, Some(again)));
    }
    let target = place(wanted, root)?;
    settle(made.as_fd(), target.as_fd(), &[], &wanted.propagation)?;
    Ok((made, None))
}

/// Makes the directory `name` of the layer and attaches it. For the child: allocates nothing.
///
/// # Errors
/// The call that failed.
pub fn directory(
    wanted: &Mount,
    (name, mode): (&CStr, u32),
    layer: BorrowedFd,
    root: BorrowedFd,
) -> Result<(), Failure> {
    mkdirat(layer, name, Mode::from_bits_truncate(mode)).at(Call::MakeDir)?;
    let made = files::open(Some(layer), name, OFlag::O_PATH | OFlag::O_DIRECTORY).at(Call::Open)?;
    let tree = mount::clone_tree(Some(made.as_fd()), c"", false).at(Call::CloneTree)?;
    let target = place(wanted, root)?;
    settle(tree.as_fd(), target.as_fd(), &[(wanted.attributes, false)], &wanted.propagation)
}

/// Whether a mount's options ask for the layer.
pub fn is_wanted(options: &[String]) -> bool {
    options.iter().any(|option| option == OPTION)
}

/// Whether a mount goes to the layer.
pub fn is_on(mount: &Mount) -> bool {
    matches!(mount.what, What::Layered { .. } | What::OnLayer { .. })
}

/// Whether a mount is such an overlay; then its lower directory.
pub fn lower_of(mount: &Mount) -> Option<&CString> {
    match &mount.what {
        What::Layered { lower } => Some(lower),
        _ => None,
    }
}
