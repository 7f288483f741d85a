//! Floor 0: system calls. The only place with `unsafe`; knows no OCI word. Takes `&CStr` and borrowed fds, returns an
//! errno, opens everything close-on-exec, and allocates nothing, so that all of it may be called between clone and exec.

pub mod seccomp;

pub use nix::errno::Errno;

/// The result of a system call.
pub type SysResult<T> = std::result::Result<T, Errno>;

/// Turns the C convention (-1 and errno) into a result.
pub(crate) fn check(ret: libc::c_long) -> SysResult<libc::c_long> {
    if ret < 0 { Err(Errno::last()) } else { Ok(ret) }
}
