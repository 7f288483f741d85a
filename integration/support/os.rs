//! The few system calls that std and nix do not offer.

use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::io::{Error, Result};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

/// No single wait is longer than this; on a loaded machine of two cores nothing good takes so long.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Whether the tests can make containers of every kind.
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// The name of the user who runs the tests.
pub fn user_name() -> String {
    let user = nix::unistd::User::from_uid(nix::unistd::geteuid()).expect("/etc/passwd");
    user.expect("an entry in /etc/passwd").name
}

/// Containers outlive the runtime that made them; as a subreaper this process becomes their parent, as an engine's
/// monitor does, and can wait for them.
pub fn become_subreaper() {
    // SAFETY: takes integers only.
    unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) };
}

/// Gives this process mounts of its own, so that what a test mounts is gone with it.
pub fn own_mount_namespace() {
    use nix::mount::{MsFlags, mount};
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).expect("a mount namespace");
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
        .expect("private mounts");
}

/// A descriptor for a process, to wait on.
pub fn pidfd(pid: i32) -> Result<OwnedFd> {
    // SAFETY: takes integers, returns a new descriptor that nothing else owns.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    // SAFETY: as above.
    if fd < 0 { Err(Error::last_os_error()) } else { Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) }) }
}

/// How many times slower than usual this machine is, as the environment says: an emulated one is several times.
pub fn slowness() -> u32 {
    std::env::var("BRIG_TEST_SLOWNESS").ok().and_then(|times| times.parse().ok()).unwrap_or(1)
}

/// Waits until a descriptor can be read (for a pidfd: until the process has ended); false after `limit`, which is meant
/// for a machine of usual speed.
pub fn readable(fd: &impl AsRawFd, limit: Duration) -> bool {
    let end = Instant::now() + limit * slowness();
    let mut set = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    loop {
        let left = end.saturating_duration_since(Instant::now());
        // SAFETY: one valid pollfd.
        let n = unsafe { libc::poll(&raw mut set, 1, left.as_millis() as i32) };
        if n > 0 {
            return true;
        }
        if n == 0 || Error::last_os_error().raw_os_error() != Some(libc::EINTR) {
            return false;
        }
    }
}

/// Waits for the end of a child, with patience, and takes it: its exit status, or 128 and the signal.
pub fn reap(pid: i32) -> Option<i32> {
    if !pidfd(pid).is_ok_and(|fd| readable(&fd, PATIENCE)) {
        return None;
    }
    match waitpid(Pid::from_raw(pid), Some(WaitPidFlag::empty())) {
        Ok(WaitStatus::Exited(_, code)) => Some(code),
        Ok(WaitStatus::Signaled(_, signal, _)) => Some(128 + signal as i32),
        _ => None,
    }
}

/// Sends a signal to a process.
pub fn kill(pid: i32, signal: i32) {
    // SAFETY: takes integers only.
    unsafe { libc::kill(pid, signal) };
}
