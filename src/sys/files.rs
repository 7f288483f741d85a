//! Small file work for a child that may not allocate: whole writes and reads, directory listings.

use super::{Errno, SysResult, check};
use nix::fcntl::OFlag;
use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// openat(2), always close-on-exec.
///
/// # Errors
/// As openat(2).
pub fn open(dir: Option<BorrowedFd>, path: &CStr, flags: OFlag) -> SysResult<OwnedFd> {
    let dir = dir.map_or(libc::AT_FDCWD, |fd| fd.as_raw_fd());
    let flags = (flags | OFlag::O_CLOEXEC).bits();
    loop {
        // SAFETY: a C string and integers in, a fresh fd out.
        match check(unsafe { libc::openat(dir, path.as_ptr(), flags, 0o644) }.into()) {
            Err(Errno::EINTR) => {}
            // SAFETY: the kernel returned a fresh fd.
            other => return other.map(|fd| unsafe { OwnedFd::from_raw_fd(fd as i32) }),
        }
    }
}

/// Writes all of `bytes` in one call, as control files want it; a short write is `EIO`.
///
/// # Errors
/// As write(2).
pub fn write(fd: BorrowedFd, bytes: &[u8]) -> SysResult<()> {
    loop {
        // SAFETY: the buffer has the length given.
        match check(unsafe { libc::write(fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len()) } as libc::c_long) {
            Err(Errno::EINTR) => {}
            Ok(n) if n as usize == bytes.len() => return Ok(()),
            Ok(_) => return Err(Errno::EIO),
            Err(errno) => return Err(errno),
        }
    }
}

/// read(2) into a buffer.
///
/// # Errors
/// As read(2).
pub fn read(fd: BorrowedFd, buffer: &mut [u8]) -> SysResult<usize> {
    loop {
        // SAFETY: the buffer has the length given.
        match check(unsafe { libc::read(fd.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len()) } as libc::c_long) {
            Err(Errno::EINTR) => {}
            other => return other.map(|n| n as usize),
        }
    }
}

/// Opens a file, writes all of `bytes` in one call, closes it.
///
/// # Errors
/// As openat(2) and write(2).
pub fn write_to(dir: Option<BorrowedFd>, path: &CStr, bytes: &[u8]) -> SysResult<()> {
    use std::os::fd::AsFd;
    write(open(dir, path, OFlag::O_WRONLY)?.as_fd(), bytes)
}

/// Whether a file has an extended attribute (getxattr(2)).
pub fn has_attribute(path: &CStr, name: &CStr) -> bool {
    // SAFETY: two C strings, and no buffer to be filled.
    unsafe { libc::getxattr(path.as_ptr(), name.as_ptr(), std::ptr::null_mut(), 0) >= 0 }
}

/// Fills a buffer with directory entries (getdents64(2)); the length is 0 at the end.
///
/// # Errors
/// As getdents64(2).
pub fn entries(dir: BorrowedFd, buffer: &mut [u8]) -> SysResult<usize> {
    // SAFETY: the buffer has the length given.
    check(unsafe { libc::syscall(libc::SYS_getdents64, dir.as_raw_fd(), buffer.as_mut_ptr(), buffer.len()) })
        .map(|n| n as usize)
}

/// Goes through a buffer that [`entries`] filled: the name of each entry but `.` and `..`.
///
/// # Errors
/// Those of `each`.
pub fn for_each<E>(filled: &[u8], mut each: impl FnMut(&CStr) -> Result<(), E>) -> Result<(), E> {
    let mut at = 0;
    // struct linux_dirent64: inode (8), offset (8), record length (2), type (1), name.
    while let Some(record) = filled.get(at..).filter(|r| r.len() > 19) {
        let length = usize::from(u16::from_ne_bytes([record[16], record[17]]));
        if let Ok(name) = CStr::from_bytes_until_nul(&record[19..length.clamp(19, record.len())])
            && !matches!(name.to_bytes(), b"." | b"..")
        {
            each(name)?;
        }
        if length == 0 {
            break;
        }
        at += length;
    }
    Ok(())
}

/// Copies a file's bytes from one fd to another within the kernel, with sendfile(2).
///
/// # Errors
/// As sendfile(2).
pub fn copy(from: BorrowedFd, to: BorrowedFd) -> SysResult<()> {
    loop {
        // SAFETY: a null offset means the file's own.
        let n =
            check(unsafe { libc::sendfile(to.as_raw_fd(), from.as_raw_fd(), std::ptr::null_mut(), 1 << 30) }
                as libc::c_long)?;
        if n == 0 {
            return Ok(());
        }
    }
}

/// Reads a symlink's text into a buffer; a text that fills it is `ENAMETOOLONG`. Leaves room for a final NUL.
///
/// # Errors
/// As readlinkat(2).
pub fn read_link<'b>(dir: BorrowedFd, name: &CStr, buffer: &'b mut [u8]) -> SysResult<&'b CStr> {
    let room = buffer.len() - 1;
    // SAFETY: name is a C string, the buffer is longer than the length given.
    let len =
        check(unsafe { libc::readlinkat(dir.as_raw_fd(), name.as_ptr(), buffer.as_mut_ptr().cast(), room) }
            as libc::c_long)? as usize;
    if len == room {
        return Err(Errno::ENAMETOOLONG);
    }
    buffer[len] = 0;
    CStr::from_bytes_until_nul(&buffer[..=len]).map_err(|_| Errno::EINVAL)
}

/// Takes a lock on an open file (flock(2)), exclusive or shared, without waiting for it: `false` if others are in the way. It goes
/// with the last copy of the fd.
///
/// # Errors
/// As flock(2).
pub fn try_lock(file: BorrowedFd, exclusive: bool) -> SysResult<bool> {
    let kind = if exclusive { libc::LOCK_EX } else { libc::LOCK_SH };
    // SAFETY: integers only.
    match check(unsafe { libc::flock(file.as_raw_fd(), kind | libc::LOCK_NB) }.into()) {
        Err(Errno::EWOULDBLOCK) => Ok(false),
        other => other.map(|_| true),
    }
}
