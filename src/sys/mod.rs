//! Floor 0: system calls. The only place with `unsafe`; knows no OCI word. Takes `&CStr` and borrowed fds, returns an
//! errno, opens everything close-on-exec, and allocates nothing, so that all of it may be called between clone and exec.

mod absent;
pub mod alloc;
pub mod bpf;
pub mod cred;
mod failure;
pub mod files;
pub mod hook;
pub mod init;
pub mod landlock;
mod letter;
pub mod mount;
pub mod own_file;
pub mod path;
mod pidfd;
pub mod probe;
pub mod process;
pub mod sched;
pub mod seccomp;
pub mod socket;
mod strings;
pub mod timer;
pub mod tty;

pub use failure::{At, Call, Failure};
pub use letter::Letter;
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

/// Whether this process is in another user namespace than the kernel's first, which always has the same inode
/// (`PROC_USER_INIT_INO` of linux/proc_ns.h, since Linux 3.8).
pub fn inside_user_namespace() -> bool {
    const FIRST: u64 = 0xefff_fffd;
    nix::sys::stat::stat(c"/proc/self/ns/user").is_ok_and(|stat| stat.st_ino != FIRST)
}

/// sethostname(2).
///
/// # Errors
/// `EINVAL` for a name of more than 64 bytes.
pub fn set_hostname(name: &std::ffi::CStr) -> SysResult<()> {
    // SAFETY: the kernel reads as many bytes as the length says.
    check(unsafe { libc::sethostname(name.as_ptr(), name.to_bytes().len()) }.into()).map(drop)
}

/// setdomainname(2).
///
/// # Errors
/// `EINVAL` for a name of more than 64 bytes.
pub fn set_domainname(name: &std::ffi::CStr) -> SysResult<()> {
    // SAFETY: the kernel reads as many bytes as the length says.
    check(unsafe { libc::setdomainname(name.as_ptr(), name.to_bytes().len()) }.into()).map(drop)
}

/// The magic number of the filesystem that an open file is on, see statfs(2).
///
/// # Errors
/// As fstatfs(2).
pub fn filesystem(fd: std::os::fd::BorrowedFd) -> SysResult<i64> {
    nix::sys::statfs::fstatfs(fd).map(|found| found.filesystem_type().0)
}

/// Gives an inherited stream to a user, unless it is the null device or is that user's already; whether it works or not.
pub fn own_stream(fd: i32, uid: u32) {
    // SAFETY: stat is plain data; a number that is no open fd answers EBADF to each call.
    unsafe {
        let mut found: libc::stat = std::mem::zeroed();
        if libc::fstat(fd, &raw mut found) == 0 && found.st_uid != uid && found.st_rdev != libc::makedev(1, 3) {
            libc::fchown(fd, uid, u32::MAX);
        }
    }
}

/// Whether a number is an open fd that is not close-on-exec: one that the caller of the program passed on.
pub fn is_inherited(fd: u32) -> bool {
    // SAFETY: F_GETFD only looks; a number that is no open fd answers EBADF.
    let flags = unsafe { libc::fcntl(fd as i32, libc::F_GETFD) };
    flags >= 0 && flags & libc::FD_CLOEXEC == 0
}

/// Takes an fd over that the caller left open, as a close-on-exec copy; the original is closed, but for the standard streams.
pub fn take_inherited(number: u32) -> Option<std::os::fd::OwnedFd> {
    use std::os::fd::FromRawFd;
    // SAFETY: integers in, a fresh fd out; the original is nobody's in this process, as the check by `is_inherited` says.
    unsafe {
        let copy = check(libc::fcntl(number as i32, libc::F_DUPFD_CLOEXEC, 3).into()).ok()?;
        if number > 2 {
            libc::close(number as i32);
        }
        Some(std::os::fd::OwnedFd::from_raw_fd(copy as i32))
    }
}

/// The inotify(7) instance that a child has made and handed over.
pub fn inotify(fd: std::os::fd::OwnedFd) -> nix::sys::inotify::Inotify {
    use std::os::fd::{FromRawFd, IntoRawFd};
    // SAFETY: the fd is owned here, and given away whole.
    unsafe { nix::sys::inotify::Inotify::from_raw_fd(fd.into_raw_fd()) }
}

/// inotify_rm_watch(2).
///
/// # Errors
/// `EINVAL` when there is no such watch any more.
pub fn inotify_unwatch(inotify: std::os::fd::BorrowedFd, watch: i32) -> SysResult<()> {
    use std::os::fd::AsRawFd;
    // SAFETY: plain numbers.
    check(unsafe { libc::inotify_rm_watch(inotify.as_raw_fd(), watch) }.into()).map(drop)
}

/// Closes an fd by its number: in a child, a copy of one that its parent keeps.
pub fn close_number(fd: i32) {
    // SAFETY: the child's copy of the table only; its copy of the owner never runs.
    unsafe { libc::close(fd) };
}
