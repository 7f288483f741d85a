//! seccomp(2).

use super::{SysResult, check};
use std::os::fd::{FromRawFd, OwnedFd};

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
