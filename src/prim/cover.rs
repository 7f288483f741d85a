//! Hiding paths so that it is told when one of them is opened: each lies below an empty file or directory of one small
//! tmpfs, which inotify(7) watches as a whole.
//!
//! A program that opens a hidden file reads nothing from it, and the opening is told. A file of mode 000 would make
//! open(2) fail instead, but inotify tells of no open that fails, and a denial that nobody hears of helps nobody to find
//! out why a program does not work. Only fanotify(7) could do both, and that takes privilege.
//!
//! What is not told: which program it was; a file that is asked for by name in a hidden directory (it is not there, and
//! only the opening of the directory itself is told); and whatever a read-only mount denies (`EROFS`).

use crate::sys::mount;
use crate::sys::path::{self, Follow};
use crate::sys::{At, Call, Errno, Failure, files};
use nix::fcntl::OFlag;
use nix::mount::{MntFlags, MsFlags, umount2};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::sys::stat::{Mode, SFlag, fstat, mkdirat};
use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

const ATTRIBUTES: u64 = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC;

/// Makes the tmpfs and attaches it: on the root itself, where it covers nothing for who holds the root by fd, or at a place that
/// will be covered. Before Linux 6.15 only what is attached can be bound elsewhere. For the child: allocates nothing.
///
/// # Errors
/// The call that failed; `ENOSYS` or `EPERM` where fsopen(2) is not to be had.
pub fn make(place: BorrowedFd) -> Result<OwnedFd, Failure> {
    let made = mount::make(c"tmpfs", super::mounts::SMALL, ATTRIBUTES)?;
    mount::attach(made.as_fd(), place).at(Call::Attach)?;
    Ok(made)
}

/// As [`make`], right on the root, which is the process' own, where no mount can be had by fd: `/..` leads to what lies on top
/// there. For the child: allocates nothing.
///
/// # Errors
/// The call that failed; `EPERM` where no mounts are to be made.
pub fn make_on_root(root: BorrowedFd) -> Result<OwnedFd, Failure> {
    mount::make_at(c"tmpfs", super::mounts::SMALL, ATTRIBUTES, root)?;
    let made = files::open(None, c"/..", OFlag::O_PATH | OFlag::O_DIRECTORY).at(Call::Open)?;
    match fstat(&made).at(Call::Stat)?.st_dev == fstat(root).at(Call::Stat)?.st_dev {
        true => Err(Failure::check(Errno::EBUSY)),
        false => Ok(made),
    }
}

/// Hides a path of the root below an entry of the cover, by which it is told; a path that does not exist is passed over. The
/// umask must be 0. For the child: allocates nothing.
///
/// # Errors
/// The call that failed.
pub fn hide(target: &CStr, name: &CStr, root: BorrowedFd, cover: BorrowedFd) -> Result<(), Failure> {
    let place = match path::open(root, target, OFlag::O_PATH, Follow::InRoot) {
        Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP | Errno::EACCES) => return Ok(()),
        other => other.at(Call::Open)?,
    };
    let entry = if path::kind(&fstat(&place).at(Call::Stat)?) == SFlag::S_IFDIR {
        mkdirat(cover, name, Mode::from_bits_truncate(0o555)).at(Call::MakeDir)?;
        files::open(Some(cover), name, OFlag::O_PATH | OFlag::O_DIRECTORY).at(Call::Open)?
    } else {
        // Readable, as only an open that works is told; nobody can write it once the cover is sealed.
        files::open(Some(cover), name, OFlag::O_RDONLY | OFlag::O_CREAT | OFlag::O_EXCL).at(Call::Open)?
    };
    mount::bind(entry.as_fd(), place.as_fd())
}

/// Makes everything that the cover hides with read-only, takes the cover out of sight unless it is `covered` itself (which spares
/// the grace period of an unmount), and begins to watch: `None` where this user has no watch left
/// (`fs.inotify.max_user_instances`). The current directory is `/` afterwards. For the child: allocates nothing.
///
/// # Errors
/// The call that failed.
pub fn seal(cover: BorrowedFd, covered: bool) -> Result<Option<Inotify>, Failure> {
    nix::unistd::fchdir(cover).at(Call::Fchdir)?;
    let watch = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)
        .and_then(|watch| watch.add_watch(c".", AddWatchFlags::IN_OPEN).map(|_| watch))
        .ok();
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    nix::mount::mount(None::<&CStr>, c".", None::<&CStr>, flags, None::<&CStr>).at(Call::Mount)?;
    if !covered {
        umount2(c".", MntFlags::MNT_DETACH).at(Call::Umount)?;
    }
    nix::unistd::chdir(c"/").at(Call::Chdir)?;
    Ok(watch)
}
