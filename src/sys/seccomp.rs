//! seccomp(2).

use super::{Errno, SysResult, check};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// Installs a filter on the calling thread.
///
/// Needs no_new_privs or CAP_SYS_ADMIN. Returns the listener's fd when `flags` has `SECCOMP_FILTER_FLAG_NEW_LISTENER`
/// (the kernel makes it close-on-exec).
///
/// # Errors
/// As seccomp(2).
pub fn load(program: &[libc::sock_filter], flags: libc::c_ulong) -> SysResult<Option<OwnedFd>> {
    let fprog = libc::sock_fprog { len: program.len() as u16, filter: program.as_ptr().cast_mut() };
    // SAFETY: fprog points at `len` instructions that the kernel only reads.
    let ret =
        check(unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const fprog) })?;
    if flags & libc::SECCOMP_FILTER_FLAG_NEW_LISTENER != 0 {
        // SAFETY: with NEW_LISTENER the return value is a fresh fd that nothing else owns.
        return Ok(Some(unsafe { OwnedFd::from_raw_fd(ret as i32) }));
    }
    Ok(None)
}

/// Whether the kernel knows a `SECCOMP_RET_*` action (Linux 4.14).
pub fn action_available(action: u32) -> bool {
    // SAFETY: the kernel reads the four bytes that the pointer leads to.
    check(unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_GET_ACTION_AVAIL, 0, &raw const action) }).is_ok()
}

/// Whether the kernel knows all of these `SECCOMP_FILTER_FLAG_*` flags together.
///
/// Asked with no filter: the kernel looks at the flags first (EINVAL) and at the missing filter after that (EFAULT), so
/// nothing is installed either way.
pub fn flags_available(flags: libc::c_ulong) -> bool {
    let null = std::ptr::null::<libc::sock_fprog>();
    // SAFETY: a null filter is refused, never read.
    let ret = check(unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, null) });
    ret == Err(Errno::EFAULT)
}

/// A call that a filter wants to be asked about (seccomp_unotify(2)).
#[derive(Debug, Clone, Copy)]
pub struct Notification {
    /// For the answer.
    pub id: u64,
    /// The thread that makes the call.
    pub pid: i32,
    /// The call's number.
    pub number: i32,
    /// Its arguments.
    pub args: [u64; 6],
}

/// The next call that waits for an answer. To be called when the listener is readable; `None` when the thread died meanwhile.
///
/// # Errors
/// As ioctl(2).
pub fn hear(listener: BorrowedFd) -> SysResult<Option<Notification>> {
    const RECEIVE: libc::Ioctl = 0xc050_2100_u32 as libc::Ioctl;
    // SAFETY: plain data, and all zeroes is what the kernel wants to be given.
    let mut heard: libc::seccomp_notif = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel fills in a structure of the size that the request says.
    match check(unsafe { libc::ioctl(listener.as_raw_fd(), RECEIVE, &raw mut heard) }.into()) {
        Err(Errno::ENOENT | Errno::EINTR) => Ok(None),
        Err(errno) => Err(errno),
        Ok(_) => {
            Ok(Some(Notification { id: heard.id, pid: heard.pid as i32, number: heard.data.nr, args: heard.data.args }))
        }
    }
}

/// Lets a call fail with an errno. A thread that has died meanwhile is no error.
///
/// # Errors
/// As ioctl(2).
pub fn refuse(listener: BorrowedFd, id: u64, errno: Errno) -> SysResult<()> {
    const SEND: libc::Ioctl = 0xc018_2101_u32 as libc::Ioctl;
    let answer = libc::seccomp_notif_resp { id, val: 0, error: -(errno as i32), flags: 0 };
    // SAFETY: the kernel reads a structure of the size that the request says.
    match check(unsafe { libc::ioctl(listener.as_raw_fd(), SEND, &raw const answer) }.into()) {
        Err(Errno::ENOENT) => Ok(()),
        other => other.map(drop),
    }
}
