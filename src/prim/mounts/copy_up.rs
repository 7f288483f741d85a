//! `tmpcopyup`: a tmpfs starts with a copy of the directory that it covers. Runs between clone and exec, so the walk keeps
//! its few buffers on the stack.

use crate::sys::{At, Call, Errno, Failure, files, path};
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{FileStat, Mode, SFlag, fchmod, fstat, fstatat, futimens, mkdirat, mknodat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchownat};
use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd};

/// Directories deeper than this are refused rather than let the stack run out.
const MAX_DEPTH: u32 = 64;

/// Copies what `from` holds into `to`: directories, files, symlinks, devices and FIFOs with owner, mode and times. The
/// directory's own owner and mode are copied when the tmpfs was not told any.
///
/// # Errors
/// The first call that fails; `ENAMETOOLONG` for a tree that is too deep.
pub fn apply(from: BorrowedFd, to: BorrowedFd) -> Result<(), Failure> {
    let from = files::open(Some(from), c".", OFlag::O_RDONLY | OFlag::O_DIRECTORY).at(Call::CopyUp)?;
    let to = files::open(Some(to), c".", OFlag::O_RDONLY | OFlag::O_DIRECTORY).at(Call::CopyUp)?;
    directory(from.as_fd(), to.as_fd(), MAX_DEPTH).at(Call::CopyUp)
}

fn directory(from: BorrowedFd, to: BorrowedFd, depth: u32) -> Result<(), Errno> {
    if depth == 0 {
        return Err(Errno::ENAMETOOLONG);
    }
    let mut buffer = [0; 4096];
    loop {
        let filled = files::entries(from, &mut buffer)?;
        if filled == 0 {
            return Ok(());
        }
        files::for_each(&buffer[..filled], |name| entry(from, to, name, depth))?;
    }
}

fn entry(from: BorrowedFd, to: BorrowedFd, name: &CStr, depth: u32) -> Result<(), Errno> {
    let stat = fstatat(from, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
    let mode = Mode::from_bits_truncate(stat.st_mode);
    let kind = path::kind(&stat);
    match kind {
        SFlag::S_IFDIR => {
            mkdirat(to, name, mode)?;
            let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW;
            let below = files::open(Some(to), name, flags)?;
            directory(files::open(Some(from), name, flags)?.as_fd(), below.as_fd(), depth - 1)?;
            owner(to, name, &stat)?;
            fchmod(&below, mode)?;
            times(below.as_fd(), &stat)
        }
        SFlag::S_IFREG => {
            let source = files::open(Some(from), name, OFlag::O_RDONLY | OFlag::O_NOFOLLOW)?;
            let copy = files::open(Some(to), name, OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL)?;
            files::copy(source.as_fd(), copy.as_fd())?;
            owner(to, name, &stat)?;
            fchmod(&copy, mode)?;
            times(copy.as_fd(), &stat)
        }
        SFlag::S_IFLNK => {
            let mut text = [0; 4096];
            nix::unistd::symlinkat(files::read_link(from, name, &mut text)?, to, name)?;
            owner(to, name, &stat)
        }
        // Sockets are of no use without their listener.
        SFlag::S_IFSOCK => Ok(()),
        _ => {
            mknodat(to, name, kind, mode, stat.st_rdev)?;
            owner(to, name, &stat)
        }
    }
}

fn owner(dir: BorrowedFd, name: &CStr, stat: &FileStat) -> Result<(), Errno> {
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    match fchownat(dir, name, Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW) {
        // An owner that the user namespace does not map can't be given; the file stays the container root's.
        Err(Errno::EINVAL | Errno::EPERM) => Ok(()),
        other => other,
    }
}

fn times(fd: BorrowedFd, stat: &FileStat) -> Result<(), Errno> {
    futimens(fd, &TimeSpec::new(stat.st_atime, stat.st_atime_nsec), &TimeSpec::new(stat.st_mtime, stat.st_mtime_nsec))
}

/// Gives the root of the new tmpfs the mode, and the owner if it is wanted, of the directory below, as it looked before.
///
/// # Errors
/// As fstat(2) and fchmod(2).
pub fn like_below(from: BorrowedFd, to: BorrowedFd, with_owner: bool) -> Result<(), Failure> {
    let stat = fstat(from).at(Call::CopyUp)?;
    let to = files::open(Some(to), c".", OFlag::O_RDONLY | OFlag::O_DIRECTORY).at(Call::CopyUp)?;
    fchmod(&to, Mode::from_bits_truncate(stat.st_mode)).at(Call::CopyUp)?;
    if with_owner { owner(to.as_fd(), c".", &stat).at(Call::CopyUp) } else { Ok(()) }
}
