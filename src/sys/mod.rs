//! Floor 0: system calls. The only place with `unsafe`; knows no OCI word. Takes `&CStr` and borrowed fds, returns an
//! errno, opens everything close-on-exec, and allocates nothing, so that all of it may be called between clone and exec.

pub mod alloc;
pub mod cred;
mod failure;
pub mod files;
pub mod mount;
pub mod path;
pub mod process;
pub mod sched;
pub mod seccomp;
pub mod socket;
mod strings;

pub use failure::{At, Call, Failure};
pub use nix::errno::Errno;
pub use strings::CArray;

/// The result of a system call.
pub type SysResult<T> = std::result::Result<T, Errno>;

/// Turns the C convention (-1 and errno) into a result.
pub(crate) fn check(ret: libc::c_long) -> SysResult<libc::c_long> {
    if ret < 0 { Err(Errno::last()) } else { Ok(ret) }
}

/// The kind of an open namespace (`NS_GET_NSTYPE`, ioctl_ns(2)), as a `CLONE_NEW*` bit.
///
/// # Errors
/// `ENOTTY` when it is no namespace.
pub fn namespace_kind(namespace: std::os::fd::BorrowedFd) -> SysResult<i32> {
    const NS_GET_NSTYPE: libc::Ioctl = 0xb703;
    use std::os::fd::AsRawFd;
    // SAFETY: the request takes no argument.
    check(unsafe { libc::ioctl(namespace.as_raw_fd(), NS_GET_NSTYPE) }.into()).map(|kind| kind as i32)
}

/// Closes an fd whose owner has to go on in a child: dropping a borrowed copy of the parent's value.
pub fn close(fd: std::os::fd::OwnedFd) {
    drop(fd);
}
