//! seccomp(2).

use super::{Errno, SysResult, check};
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
