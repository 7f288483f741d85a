//! Scheduling, memory policy and limits of the calling process.

use super::{SysResult, check};

/// sched_attr of sched_setattr(2), as of Linux 5.3.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are those of sched_setattr(2)")]
pub struct SchedAttr {
    pub size: u32,
    pub policy: u32,
    pub flags: u64,
    pub nice: i32,
    pub priority: u32,
    pub runtime: u64,
    pub deadline: u64,
    pub period: u64,
    pub util_min: u32,
    pub util_max: u32,
}

/// sched_setattr(2).
///
/// # Errors
/// As sched_setattr(2).
pub fn set_scheduler(attr: &SchedAttr) -> SysResult<()> {
    // SAFETY: attr is a sched_attr that carries its own size.
    check(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, std::ptr::from_ref(attr), 0) })?;
    Ok(())
}

/// ioprio_set(2) for the calling process.
///
/// # Errors
/// `EPERM` for the real-time class without privilege.
pub fn set_io_priority(class: u32, level: u32) -> SysResult<()> {
    const WHO_PROCESS: i32 = 1;
    // SAFETY: plain integers.
    check(unsafe { libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, 0, class << 13 | level) })?;
    Ok(())
}

/// sched_setaffinity(2) with a mask of 64 CPUs a word.
///
/// # Errors
/// `EINVAL` when none of the CPUs is usable.
pub fn set_affinity(mask: &[u64]) -> SysResult<()> {
    // SAFETY: the kernel reads as many bytes as the length says.
    check(unsafe { libc::syscall(libc::SYS_sched_setaffinity, 0, size_of_val(mask), mask.as_ptr()) })?;
    Ok(())
}

/// set_mempolicy(2) with a mask of 64 nodes a word.
///
/// # Errors
/// `EINVAL` when the mode, its flags and the nodes do not go together.
pub fn set_memory_policy(mode: u32, nodes: &[u64]) -> SysResult<()> {
    // The kernel takes one bit less than it is told.
    let bits = if nodes.is_empty() { 0 } else { nodes.len() * 64 + 1 };
    let mask = if nodes.is_empty() { std::ptr::null() } else { nodes.as_ptr() };
    // SAFETY: the kernel reads as many bits as it is told, rounded up to words.
    check(unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, mask, bits) })?;
    Ok(())
}

/// prlimit(2) on the calling process: sets soft and hard limit.
///
/// # Errors
/// `EPERM` when the hard limit would rise without CAP_SYS_RESOURCE.
pub fn set_rlimit(resource: u32, soft: u64, hard: u64) -> SysResult<()> {
    set_rlimit_of(0, resource, soft, hard)
}

/// prlimit(2) on another process: sets soft and hard limit.
///
/// # Errors
/// As [`set_rlimit`].
pub fn set_rlimit_of(pid: i32, resource: u32, soft: u64, hard: u64) -> SysResult<()> {
    let limit = libc::rlimit64 { rlim_cur: soft, rlim_max: hard };
    // SAFETY: limit is a valid rlimit64; a null pointer asks for no answer.
    check(unsafe { libc::syscall(libc::SYS_prlimit64, pid, resource, &raw const limit, std::ptr::null::<u8>()) })?;
    Ok(())
}

/// prlimit(2) on the calling process: reads soft and hard limit.
///
/// # Errors
/// As prlimit(2).
pub fn get_rlimit(resource: u32) -> SysResult<(u64, u64)> {
    let mut limit = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: limit is a valid place for the answer.
    check(unsafe { libc::syscall(libc::SYS_prlimit64, 0, resource, std::ptr::null::<u8>(), &raw mut limit) })?;
    Ok((limit.rlim_cur, limit.rlim_max))
}

/// personality(2).
///
/// # Errors
/// As personality(2).
pub fn set_personality(persona: u64) -> SysResult<()> {
    // SAFETY: a plain integer.
    check(unsafe { libc::syscall(libc::SYS_personality, persona) })?;
    Ok(())
}

/// keyctl(2) `KEYCTL_JOIN_SESSION_KEYRING`: a fresh session keyring of this name.
///
/// # Errors
/// `ENOSYS` on a kernel without keys, `EDQUOT` when the user has too many.
pub fn join_session_keyring(name: &std::ffi::CStr) -> SysResult<()> {
    // SAFETY: a C string.
    check(unsafe { libc::syscall(libc::SYS_keyctl, libc::KEYCTL_JOIN_SESSION_KEYRING, name.as_ptr()) })?;
    Ok(())
}
