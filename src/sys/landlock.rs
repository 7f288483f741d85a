//! Landlock (landlock(7), Linux 5.13): a process takes rights over files away from itself.

use super::{SysResult, check};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// Rights over files, in the order in which versions of the interface brought them.
pub mod access {
    /// Execute a file.
    pub const EXECUTE: u64 = 1;
    /// Open a file to write.
    pub const WRITE_FILE: u64 = 1 << 1;
    /// Open a file to read.
    pub const READ_FILE: u64 = 1 << 2;
    /// List a directory.
    pub const READ_DIR: u64 = 1 << 3;
    /// All of version 1: those above, and to remove and make files of every kind.
    pub const VERSION_1: u64 = (1 << 13) - 1;
    /// Link or rename across directories (version 2).
    pub const REFER: u64 = 1 << 13;
    /// Truncate a file (version 3).
    pub const TRUNCATE: u64 = 1 << 14;
    /// Use ioctl(2) on a device (version 5).
    pub const IOCTL_DEV: u64 = 1 << 15;
    /// What of these can be said of a file that is no directory.
    pub const OF_FILES: u64 = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV;
}

/// Reach of abstract unix sockets ends at the sandbox (version 6).
pub const SCOPE_ABSTRACT_UNIX_SOCKET: u64 = 1;
/// Reach of signals does (version 6).
pub const SCOPE_SIGNAL: u64 = 2;

/// `struct landlock_ruleset_attr` of linux/landlock.h.
#[repr(C)]
struct Attributes {
    fs: u64,
    net: u64,
    scoped: u64,
}

/// `struct landlock_path_beneath_attr`, which is packed.
#[repr(C, packed)]
struct PathBeneath {
    allowed: u64,
    parent: i32,
}

const PATH_BENEATH: u32 = 1;
const VERSION: u32 = 1;

/// The version of the interface; 0 where there is none, or Landlock is off.
pub fn version() -> u32 {
    let none = std::ptr::null::<Attributes>();
    // SAFETY: with this flag the kernel reads no attributes.
    let found = check(unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, none, 0, VERSION) });
    found.map_or(0, |version| version as u32)
}

/// A ruleset that takes away `fs` but for what its rules give back; `scoped` is 0 before version 6.
///
/// # Errors
/// As landlock_create_ruleset(2).
pub fn ruleset(fs: u64, scoped: u64) -> SysResult<OwnedFd> {
    let attributes = Attributes { fs, net: 0, scoped };
    // Older kernels know a shorter structure, and take a longer one only if the rest is zero, since version 1.
    let size = size_of::<Attributes>();
    // SAFETY: the kernel reads `size` bytes of attributes.
    let fd = check(unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, &raw const attributes, size, 0) })?;
    // SAFETY: a fresh fd that nothing else owns; the kernel makes it close-on-exec.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Gives rights back below an open path.
///
/// # Errors
/// As landlock_add_rule(2).
pub fn allow(ruleset: BorrowedFd, parent: BorrowedFd, allowed: u64) -> SysResult<()> {
    let rule = PathBeneath { allowed, parent: parent.as_raw_fd() };
    // SAFETY: the kernel reads one rule.
    check(unsafe {
        libc::syscall(libc::SYS_landlock_add_rule, ruleset.as_raw_fd(), PATH_BENEATH, &raw const rule, 0)
    })?;
    Ok(())
}

/// Puts the ruleset in force for the calling thread and what it starts. Takes no_new_privs.
///
/// # Errors
/// As landlock_restrict_self(2).
pub fn restrict(ruleset: BorrowedFd) -> SysResult<()> {
    // SAFETY: integers only.
    check(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), 0) })?;
    Ok(())
}
