//! Pseudo-terminals by fd: pty(7), ioctl_tty(2).

use super::{SysResult, check};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// Lets the slave of a pty be opened (`TIOCSPTLCK`).
///
/// # Errors
/// `ENOTTY` or `EIO` when this is no master.
pub fn unlock(master: BorrowedFd) -> SysResult<()> {
    let locked: libc::c_int = 0;
    // SAFETY: the request reads one int.
    check(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, &raw const locked) }.into()).map(drop)
}

/// Opens the slave of a pty without any path (`TIOCGPTPEER`, Linux 4.13).
///
/// # Errors
/// `ENOTTY` or `EIO` when this is no master, or one that is still locked.
pub fn open_peer(master: BorrowedFd) -> SysResult<OwnedFd> {
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: the request takes the flags by value and returns a fresh fd.
    unsafe {
        let fd = check(libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, flags).into())?;
        Ok(OwnedFd::from_raw_fd(fd as i32))
    }
}

/// Sets a terminal's size, in rows and columns.
///
/// # Errors
/// `ENOTTY`.
pub fn set_size(tty: BorrowedFd, (rows, columns): (u16, u16)) -> SysResult<()> {
    let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the request reads one winsize.
    check(unsafe { libc::ioctl(tty.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) }.into()).map(drop)
}

/// A terminal's size, in rows and columns.
///
/// # Errors
/// `ENOTTY`.
pub fn size(tty: BorrowedFd) -> SysResult<(u16, u16)> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the request fills in one winsize.
    check(unsafe { libc::ioctl(tty.as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) }.into())?;
    Ok((size.ws_row, size.ws_col))
}

/// Makes a terminal the controlling one of the caller's session, which must have none and be led by the caller.
///
/// # Errors
/// `EPERM` when it is not so.
pub fn make_controlling(tty: BorrowedFd) -> SysResult<()> {
    // SAFETY: the request takes an int by value; 0 steals from nobody.
    check(unsafe { libc::ioctl(tty.as_raw_fd(), libc::TIOCSCTTY, 0) }.into()).map(drop)
}
