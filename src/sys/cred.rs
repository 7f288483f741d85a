//! Credentials of the calling thread. Raw system calls: glibc's wrappers signal every thread of the process to keep them
//! in step, which a forked child must not do.

use super::{SysResult, check};

/// setgroups(2).
///
/// # Errors
/// As setgroups(2); `EPERM` in a user namespace that denies it.
pub fn set_groups(groups: &[libc::gid_t]) -> SysResult<()> {
    // SAFETY: the kernel reads as many IDs as the length says.
    check(unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) })?;
    Ok(())
}

/// setresgid(2) with all three the same.
///
/// # Errors
/// As setresgid(2); `EINVAL` for an ID that the user namespace does not map.
pub fn set_gid(gid: libc::gid_t) -> SysResult<()> {
    // SAFETY: plain integers.
    check(unsafe { libc::syscall(libc::SYS_setresgid, gid, gid, gid) })?;
    Ok(())
}

/// setresuid(2) with all three the same.
///
/// # Errors
/// As setresuid(2); `EINVAL` for an ID that the user namespace does not map.
pub fn set_uid(uid: libc::uid_t) -> SysResult<()> {
    // SAFETY: plain integers.
    check(unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) })?;
    Ok(())
}

/// Sets of capabilities as bit masks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CapMasks {
    /// Effective.
    pub effective: u64,
    /// Permitted.
    pub permitted: u64,
    /// Inheritable.
    pub inheritable: u64,
}

const VERSION_3: u32 = 0x2008_0522;

#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

/// CAP_SYS_ADMIN, as a bit of a set (capabilities(7)).
pub const SYS_ADMIN: u64 = 1 << 21;

/// One half of the three sets, see capset(2).
#[repr(C)]
#[derive(Default, Clone, Copy)]
struct Half {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// capget(2) for the calling thread.
///
/// # Errors
/// As capget(2).
pub fn get_caps() -> SysResult<CapMasks> {
    let mut header = Header { version: VERSION_3, pid: 0 };
    let mut data = [Half::default(); 2];
    // SAFETY: version 3 fills in two halves.
    check(unsafe { libc::syscall(libc::SYS_capget, &raw mut header, data.as_mut_ptr()) })?;
    let join = |f: fn(&Half) -> u32| u64::from(f(&data[0])) | u64::from(f(&data[1])) << 32;
    Ok(CapMasks {
        effective: join(|h| h.effective),
        permitted: join(|h| h.permitted),
        inheritable: join(|h| h.inheritable),
    })
}

/// Whether the calling thread has CAP_SYS_ADMIN: mounts, and namespaces without a user namespace, take it.
pub fn is_admin() -> bool {
    get_caps().is_ok_and(|caps| caps.effective & SYS_ADMIN != 0)
}

/// capset(2) for the calling thread.
///
/// # Errors
/// `EPERM` when a set grows beyond what is permitted.
pub fn set_caps(masks: CapMasks) -> SysResult<()> {
    let header = Header { version: VERSION_3, pid: 0 };
    let half = |shift: u32| Half {
        effective: (masks.effective >> shift) as u32,
        permitted: (masks.permitted >> shift) as u32,
        inheritable: (masks.inheritable >> shift) as u32,
    };
    let data = [half(0), half(32)];
    // SAFETY: version 3 reads two halves.
    check(unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) })?;
    Ok(())
}
