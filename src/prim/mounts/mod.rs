//! `mounts`: each entry compiled to one mount that the child makes detached, dresses with its attributes, and attaches to a
//! target held by fd, so that no path is resolved twice (CVE-2021-30465, CVE-2026-115521).

mod compile;
mod copy_up;
pub mod layer;
pub mod options;

pub(crate) use compile::relative;
pub use compile::{Facts, base_propagation, compile};

use crate::sys::mount::{self, Attributes, Copied, Tree};
use crate::sys::path::{self, Follow};
use crate::sys::{At, Call, Errno, Failure, process};
use nix::fcntl::OFlag;
use nix::mount::{MntFlags, MsFlags};
use nix::sys::stat::{Mode, SFlag, fstat};
use std::cell::OnceCell;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// One mount, ready to be made.
#[derive(Debug)]
pub struct Mount {
    /// Where, below the root and without a leading slash.
    pub target: CString,
    /// What is mounted there.
    pub what: What,
    /// Attributes for the mount itself.
    pub attributes: Attributes,
    /// Attributes for the mount and all below it.
    pub recursive: Attributes,
    /// Propagation types in order, each for the mount alone or for all below it, too.
    pub propagation: Vec<(u64, bool)>,
    /// The options as the config has them, for messages.
    pub shown: String,
    /// How symlinks on the way to the target are treated.
    pub target_follow: Follow,
    /// Whether the source was resolved before, and no symlink is to lead there.
    pub source_resolved: bool,
    /// The mount once it is there, for one that may have to be taken back.
    pub attached: OnceCell<OwnedFd>,
}

/// What is mounted.
#[derive(Debug)]
pub enum What {
    /// A new filesystem, made with fsopen(2).
    New {
        /// Its type.
        fstype: CString,
        /// Its options in order; the source is one of them.
        options: Vec<(CString, Option<CString>)>,
        /// Whether it starts with what is below it.
        copy_up: CopyUp,
    },
    /// A new filesystem, made with mount(2), for options that fsconfig(2) can't carry.
    Classic {
        /// Its type.
        fstype: CString,
        /// Its source.
        source: CString,
        /// `MS_*` flags.
        flags: u64,
        /// Its data.
        data: CString,
    },
    /// A copy of a part of the host's tree.
    Bind {
        /// The tree.
        tree: Tree,
        /// Whether its root is a directory.
        directory: bool,
        /// Its source, for messages.
        source: CString,
    },
    /// The mount that is at the target already.
    Remount,
    /// The container's cgroups, one directory per hierarchy of cgroup v1.
    Cgroups {
        /// Name and host directory of each.
        hierarchies: Vec<(CString, CString)>,
        /// Symlinks for controllers that share a hierarchy: name and target.
        links: Vec<(CString, CString)>,
    },
    /// An overlay whose changes go to a layer in memory: its lower directory on the host. See [`layer`].
    Layered {
        /// The lower directory.
        lower: CString,
    },
    /// A directory of that layer, empty, with this mode.
    OnLayer {
        /// Its mode.
        mode: u32,
    },
    /// The container's cgroup in the v2 tree, by its host directory, where the v2 tree can't be mounted anew.
    Cgroup2(CString),
}

/// How a tmpfs takes over what it covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CopyUp {
    /// Not at all.
    No,
    /// The contents.
    Contents,
    /// The contents, and the directory's own mode and owner.
    All,
    /// The directory's mode alone: what every tmpfs does that is not told one.
    Mode,
}

impl Mount {
    /// Whether this is a new procfs.
    pub fn is_proc(&self) -> bool {
        self.is_type(c"proc")
    }

    /// Whether nothing can be written by way of this mount.
    pub fn is_read_only(&self) -> bool {
        (self.attributes.set | self.recursive.set) & libc::MOUNT_ATTR_RDONLY != 0
    }

    /// The source of a bind mount.
    pub fn source(&self) -> Option<&CStr> {
        match &self.what {
            What::Bind { source, .. } => Some(source),
            _ => None,
        }
    }

    /// The source of a bind mount, where it is still to be copied.
    pub fn source_to_copy(&self) -> Option<&CStr> {
        match &self.what {
            What::Bind { tree: Tree::Later(..), source, .. } => Some(source),
            _ => None,
        }
    }

    /// Copies the source of a bind mount, where that is still to be done. For the child: allocates nothing.
    ///
    /// # Errors
    /// As open_tree(2).
    pub fn hold_source(&self) -> Result<(), Errno> {
        match &self.what {
            What::Bind { tree, .. } => tree.hold(),
            _ => Ok(()),
        }
    }

    /// Whether this is a new filesystem of a type.
    pub fn is_type(&self, name: &CStr) -> bool {
        matches!(&self.what, What::New { fstype, .. } if fstype.as_c_str() == name)
    }
}

/// Makes one mount below `root` and returns it. For the child: allocates nothing.
///
/// # Errors
/// The call that failed; nothing is mounted then.
pub fn apply<'m>(mount: &'m Mount, root: BorrowedFd) -> Result<Copied<'m>, Failure> {
    // A directory that was there before passes its mode on with its contents; one made for the mount has none to pass on.
    let there = !matches!(mount.what, What::New { copy_up: CopyUp::All | CopyUp::Mode, .. })
        || path::open(root, &mount.target, OFlag::O_PATH, Follow::InRoot).is_ok();
    let target = place(mount, root)?;
    match &mount.what {
        What::New { fstype, options, copy_up } => {
            let copy_up = if there { *copy_up } else { CopyUp::No };
            let (made, rest) = new(fstype, options, mount, (copy_up, target.as_fd()))?;
            settle(made.as_fd(), target.as_fd(), &[(rest, false)], &mount.propagation)?;
            Ok(Copied::Now(made))
        }
        What::Classic { fstype, source, flags, data } => {
            // The current directory pins the place, as a path could not.
            nix::unistd::fchdir(&target).at(Call::Fchdir)?;
            let flags = MsFlags::from_bits_retain(*flags);
            nix::mount::mount(Some(source.as_c_str()), c".", Some(fstype.as_c_str()), flags, Some(data.as_c_str()))
                .at(Call::Mount)?;
            let made = path::open(root, &mount.target, OFlag::O_PATH, Follow::InRoot).at(Call::Open)?;
            if let Err(failure) = dress(made.as_fd(), mount) {
                let _ = nix::unistd::fchdir(&made).and_then(|()| nix::mount::umount2(c".", MntFlags::MNT_DETACH));
                return Err(failure);
            }
            Ok(Copied::Now(made))
        }
        What::Bind { tree, .. } => {
            let tree = tree.copy().at(Call::CloneTree)?;
            dress_and_attach(tree.as_fd(), target.as_fd(), mount)?;
            Ok(tree)
        }
        What::Remount => {
            dress(target.as_fd(), mount)?;
            Ok(Copied::Now(target))
        }
        What::Cgroups { hierarchies, links } => {
            let tmpfs = empty_tmpfs()?;
            mount::attach(tmpfs.as_fd(), target.as_fd()).at(Call::Attach)?;
            for (name, source) in hierarchies {
                let tree = mount::clone_tree(None, source, false).at(Call::CloneTree)?;
                let place = path::make_dirs(tmpfs.as_fd(), name, Mode::from_bits_truncate(0o755)).at(Call::MakeDir)?;
                dress_and_attach(tree.as_fd(), place.as_fd(), mount)?;
            }
            for (name, to) in links {
                nix::unistd::symlinkat(to.as_c_str(), &tmpfs, name.as_c_str()).at(Call::Symlink)?;
            }
            dress(tmpfs.as_fd(), mount)?;
            Ok(Copied::Now(tmpfs))
        }
        // Needs the layer, which the caller holds.
        What::Layered { .. } | What::OnLayer { .. } => Err(Failure::check(Errno::EBADF)),
        What::Cgroup2(source) => {
            let tree = mount::clone_tree(None, source, false).at(Call::CloneTree)?;
            dress_and_attach(tree.as_fd(), target.as_fd(), mount)?;
            Ok(Copied::Now(tree))
        }
    }
}

/// As [`apply`], and holds the mount, so that it can be taken back with [`mount::unmount`].
///
/// # Errors
/// As [`apply`].
pub fn apply_and_hold(mount: &Mount, root: BorrowedFd) -> Result<(), Failure> {
    let made = match apply(mount, root)? {
        Copied::Now(fd) => fd,
        Copied::Before(fd) => {
            fd.try_clone_to_owned().map_err(|_| Failure { call: Call::Open, errno: Errno::EMFILE })?
        }
    };
    let _ = mount.attached.set(made);
    Ok(())
}

/// Opens the mount at a destination below `root`. No symlink leads there: the container may have put it on the way, to have a
/// mount removed that hides something from it. For the child: allocates nothing.
///
/// # Errors
/// `EINVAL` from the check when there is no mount at just that place.
pub fn find(destination: &CStr, root: BorrowedFd) -> Result<OwnedFd, Failure> {
    let found = path::open(root, destination, OFlag::O_PATH, Follow::NoSymlinks).at(Call::Open)?;
    match mount::is_mount_root(found.as_fd()).at(Call::Stat)? {
        true => Ok(found),
        false => Err(Failure::check(Errno::EINVAL)),
    }
}

/// Finds or makes the place: a file for a file, a directory for all else. procfs and sysfs want real directories on the way,
/// lest an image redirect them (CVE-2019-19921, CVE-2023-27561).
fn place(mount: &Mount, root: BorrowedFd) -> Result<OwnedFd, Failure> {
    if mount.target.is_empty() {
        return path::open(root, c"", OFlag::O_PATH | OFlag::O_DIRECTORY, Follow::InRoot).at(Call::Open);
    }
    match &mount.what {
        What::Bind { directory: false, .. } => path::make_file(root, &mount.target, mount.target_follow).at(Call::Open),
        What::Remount => path::open(root, &mount.target, OFlag::O_PATH, Follow::InRoot).at(Call::Open),
        What::New { fstype, .. } if fstype.as_c_str() == c"proc" || fstype.as_c_str() == c"sysfs" => {
            let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
            match path::open(root, &mount.target, flags, Follow::NoSymlinks) {
                Err(Errno::ENOENT) => {
                    path::make_dirs(root, &mount.target, Mode::from_bits_truncate(0o755)).at(Call::MakeDir)?;
                    path::open(root, &mount.target, flags, Follow::NoSymlinks).at(Call::Open)
                }
                other => other.at(Call::Open),
            }
        }
        _ => path::make_dirs_by(root, &mount.target, Mode::from_bits_truncate(0o755), mount.target_follow)
            .at(Call::MakeDir),
    }
}

/// A new filesystem, detached, and the attributes that it still lacks.
fn new(
    fstype: &CStr,
    options: &[(CString, Option<CString>)],
    mount: &Mount,
    (copy_up, below): (CopyUp, BorrowedFd),
) -> Result<(OwnedFd, Attributes), Failure> {
    // There is nothing below a new mount: what is meant for all is meant for it.
    let set = mount.attributes.set | mount.recursive.set;
    let mut late = if copy_up == CopyUp::No { 0 } else { libc::MOUNT_ATTR_RDONLY };
    // An overlay's lower directory that was resolved before is named by its fd, which is held until the mount is made.
    let given = options.iter().find(|(key, _)| mount.source_resolved && key.as_c_str() == c"lowerdir");
    let lower = match given.and_then(|(_, value)| value.as_deref()) {
        Some(lower) => Some(path::open_resolved(lower, OFlag::O_DIRECTORY).at(Call::Open)?),
        None => None,
    };
    let mut buffer = [0; 48];
    let number = match &lower {
        Some(lower) => Some(process::numbered(&mut buffer, "/proc/self/fd/", lower.as_raw_fd(), &[]).at(Call::Check)?),
        None => None,
    };
    let settings = options.iter().map(|(key, value)| match number {
        Some(_) if key.as_c_str() == c"lowerdir" => (key.as_c_str(), number),
        _ => (key.as_c_str(), value.as_deref()),
    });
    let made = match mount::make(fstype, settings.clone(), set & !late) {
        // fsmount(2) knows nosymfollow since Linux 5.14; mount(2), which may be what sets it later, since 5.10.
        Err(Failure { call: Call::FsMount, errno: Errno::EINVAL }) if set & libc::MOUNT_ATTR_NOSYMFOLLOW != 0 => {
            late |= libc::MOUNT_ATTR_NOSYMFOLLOW;
            mount::make(fstype, settings, set & !late)?
        }
        other => other?,
    };
    if copy_up != CopyUp::No {
        if copy_up != CopyUp::Mode {
            copy_up::apply(below, made.as_fd())?;
        }
        if copy_up != CopyUp::Contents {
            copy_up::like_below(below, made.as_fd(), copy_up == CopyUp::All)?;
        }
    }
    Ok((made, Attributes { set: set & late, ..Attributes::default() }))
}

/// Gives a mount its attributes and propagation.
fn dress(made: BorrowedFd, mount: &Mount) -> Result<(), Failure> {
    dress_in(made, &[(mount.attributes, false), (mount.recursive, true)], &mount.propagation, true)
}

/// `last`: whether what is refused now stays so.
fn dress_in(
    made: BorrowedFd,
    attributes: &[(Attributes, bool)],
    propagation: &[(u64, bool)],
    last: bool,
) -> Result<(), Failure> {
    let kinds =
        propagation.iter().map(|(kind, below)| (Attributes { propagation: *kind, ..Attributes::default() }, *below));
    for (attributes, recursive) in attributes.iter().copied().chain(kinds) {
        if attributes.is_empty() {
            continue;
        }
        match mount::set_attributes(made, attributes, recursive, None) {
            // `rw` is the engines' word for nothing in particular; in a user namespace what is read-only stays so.
            Err(Errno::EPERM) if last && attributes.clear & libc::MOUNT_ATTR_RDONLY != 0 => {
                let rest = Attributes { clear: attributes.clear & !libc::MOUNT_ATTR_RDONLY, ..attributes };
                mount::set_attributes(made, rest, recursive, None)
            }
            other => other,
        }
        .at(Call::MountSetattr)?;
    }
    Ok(())
}

fn dress_and_attach(made: BorrowedFd, target: BorrowedFd, mount: &Mount) -> Result<(), Failure> {
    settle(made, target, &[(mount.attributes, false), (mount.recursive, true)], &mount.propagation)
}

/// Gives a detached mount its attributes and propagation, each for itself or all below it, too, and attaches it. Without
/// mount_setattr(2) it has to be attached first, which is done only where nobody else sees it in between.
///
/// # Errors
/// The call that failed.
pub fn settle(
    made: BorrowedFd,
    target: BorrowedFd,
    attributes: &[(Attributes, bool)],
    propagation: &[(u64, bool)],
) -> Result<(), Failure> {
    match dress_in(made, attributes, propagation, !mount::is_own()) {
        // EPERM: newer kernels want rights over the namespace that the detached tree was taken from.
        Err(Failure { call: Call::MountSetattr, errno: Errno::ENOSYS | Errno::EPERM }) if mount::is_own() => {
            mount::attach(made, target).at(Call::Attach)?;
            dress_in(made, attributes, propagation, true)
        }
        other => other.and_then(|()| mount::attach(made, target).at(Call::Attach)),
    }
}

/// The options of a tmpfs of mode 0755.
pub const SMALL: [(&CStr, Option<&CStr>); 1] = [(c"mode", Some(c"755"))];

/// A small tmpfs, detached.
fn empty_tmpfs() -> Result<OwnedFd, Failure> {
    mount::make(c"tmpfs", SMALL, 0)
}

/// Whether an fd is a directory's.
///
/// # Errors
/// As fstat(2).
pub fn is_directory(fd: BorrowedFd) -> Result<bool, Errno> {
    Ok(path::kind(&fstat(fd)?) == SFlag::S_IFDIR)
}
