//! Processes held by fd: pidfds, and where their system calls are missing (see [`super::absent`]), the process' directory
//! in /proc, which stands for one process as well and can't come to mean another one. What a directory can't do is to tell
//! when the process ends, and a signal through it leaves a gap of a few instructions in which the number could be reused.

use super::absent::Absent;
use super::{Errno, SysResult, check, files};
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// The filesystem type of procfs, see statfs(2).
pub(crate) const PROCFS: i64 = 0x9fa0;

static OPEN: Absent = Absent::new();
static SEND: Absent = Absent::new();
/// Whether this process ever held one by its directory: else nobody has to look.
static DIRECTORIES: AtomicBool = AtomicBool::new(false);

/// Holds a process: pidfd_open(2) (Linux 5.3), or its directory in /proc.
///
/// # Errors
/// `ESRCH` when there is no such process.
pub fn pidfd_open(pid: i32) -> SysResult<OwnedFd> {
    if !OPEN.known() {
        // SAFETY: plain integers in, a fresh fd (close-on-exec by definition) out.
        match check(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) }) {
            Err(errno) if OPEN.told_by(errno) => {}
            // SAFETY: the kernel returned a fresh fd.
            other => return other.map(|fd| unsafe { OwnedFd::from_raw_fd(fd as i32) }),
        }
    }
    let mut path = [0; 32];
    let path = numbered(&mut path, "/proc/", pid, &[])?;
    match files::open(None, path, OFlag::O_RDONLY | OFlag::O_DIRECTORY) {
        Err(Errno::ENOENT) => Err(Errno::ESRCH),
        other => {
            DIRECTORIES.store(true, Relaxed);
            other
        }
    }
}

/// Sends a signal to a held process: pidfd_send_signal(2) (Linux 5.1), or kill(2).
///
/// # Errors
/// `ESRCH` when the process is gone, `EINVAL` for a signal number that does not exist.
pub fn pidfd_send_signal(process: BorrowedFd, signal: i32) -> SysResult<()> {
    if !SEND.known() {
        let none = std::ptr::null::<libc::siginfo_t>();
        // SAFETY: plain integers; a null siginfo is allowed.
        match check(unsafe { libc::syscall(libc::SYS_pidfd_send_signal, process.as_raw_fd(), signal, none, 0) }) {
            Err(errno) if SEND.told_by(errno) => {}
            other => return other.map(drop),
        }
    }
    send_to(pid_of(process)?, signal)
}

/// kill(2) by number.
pub(crate) fn send_to(pid: i32, signal: i32) -> SysResult<()> {
    // SAFETY: plain integers.
    check(unsafe { libc::kill(pid, signal) }.into()).map(drop)
}

/// pidfd_getfd(2) (Linux 5.6): a copy of another process' fd.
///
/// # Errors
/// `EPERM` when the process may not be traced; `ENOSYS` where the call is missing.
pub fn pidfd_getfd(pidfd: BorrowedFd, number: i32) -> SysResult<OwnedFd> {
    // SAFETY: plain integers in, a fresh fd (close-on-exec by definition) out.
    unsafe {
        Ok(OwnedFd::from_raw_fd(check(libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_raw_fd(), number, 0))? as i32))
    }
}

/// Whether a held process is held by its directory.
fn is_directory(process: BorrowedFd) -> bool {
    DIRECTORIES.load(Relaxed) && super::filesystem(process) == Ok(PROCFS)
}

/// Whether poll(2) on a held process waits for its end: not on a directory, which is always ready.
pub fn tells_end(process: BorrowedFd) -> bool {
    !is_directory(process)
}

/// Waits until a held process has ended, be it reaped or not; `false` when the time is up before that.
///
/// # Errors
/// As poll(2).
pub fn ends_within(process: BorrowedFd, limit: Duration) -> SysResult<bool> {
    let deadline = Instant::now() + limit;
    let by_event = tells_end(process);
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        // Rounded up, so that the last round does not spin.
        let whole = PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
        let answer = if by_event {
            poll(&mut [PollFd::new(process, PollFlags::POLLIN)], whole)
        } else if has_ended(process) {
            return Ok(true);
        } else {
            // Nothing tells of the end of a process that is neither a child nor held by a pidfd.
            poll(&mut [], PollTimeout::from(2_u8))
        };
        match answer {
            Ok(1..) => return Ok(true),
            Ok(_) | Err(Errno::EINTR) if left.is_zero() => return Ok(false),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// Whether the process of a directory is gone, or a zombie.
fn has_ended(directory: BorrowedFd) -> bool {
    let mut text = [0; 512];
    let read = files::open(Some(directory), c"stat", OFlag::O_RDONLY)
        .and_then(|file| files::read(file.as_fd(), &mut text))
        .unwrap_or(0);
    // "12 (name) S ...", where the name may hold anything.
    match text[..read].iter().rposition(|b| *b == b')') {
        Some(at) => matches!(text.get(at + 2), Some(b'Z' | b'X' | b'x')),
        None => true,
    }
}

/// The number of a held process, in the PID namespace of /proc.
///
/// # Errors
/// `ESRCH` when it is gone.
pub fn pid_of(process: BorrowedFd) -> SysResult<i32> {
    let mut text = [0; 512];
    let read = if is_directory(process) {
        let stat = files::open(Some(process), c"stat", OFlag::O_RDONLY)?;
        files::read(stat.as_fd(), &mut text)?
    } else {
        let mut path = [0; 48];
        let path = numbered(&mut path, "/proc/self/fdinfo/", process.as_raw_fd(), &[])?;
        let info = files::open(None, path, OFlag::O_RDONLY)?;
        let read = files::read(info.as_fd(), &mut text)?;
        // proc_pid_fdinfo(5): -1 for a process that has been reaped, 0 for one of another namespace.
        let at = text[..read].windows(4).position(|w| w == b"Pid:").ok_or(Errno::ESRCH)?;
        text.copy_within(at + 4..read, 0);
        read - at - 4
    };
    let text = text[..read].trim_ascii_start();
    let digits = text.iter().take_while(|b| b.is_ascii_digit());
    let pid = digits.fold(0_i32, |all, b| all.wrapping_mul(10).wrapping_add(i32::from(b - b'0')));
    if pid > 0 { Ok(pid) } else { Err(Errno::ESRCH) }
}

/// The kinds of namespaces and their files in /proc/PID/ns; the user namespace first, since it grants the rest, the mount
/// namespace last, since it takes the paths.
const KINDS: [(i32, &CStr); 8] = [
    (libc::CLONE_NEWUSER, c"ns/user"),
    (libc::CLONE_NEWPID, c"ns/pid"),
    (libc::CLONE_NEWNET, c"ns/net"),
    (libc::CLONE_NEWIPC, c"ns/ipc"),
    (libc::CLONE_NEWUTS, c"ns/uts"),
    (libc::CLONE_NEWCGROUP, c"ns/cgroup"),
    (libc::CLONE_NEWTIME, c"ns/time"),
    (libc::CLONE_NEWNS, c"ns/mnt"),
];

/// Joins namespaces of a held process, `CLONE_NEW*` bits; or, with an open namespace, that one.
///
/// # Errors
/// As setns(2).
pub fn join(held: BorrowedFd, flags: i32) -> SysResult<()> {
    // SAFETY: plain integers.
    let joined = |fd: BorrowedFd, kind| check(unsafe { libc::setns(fd.as_raw_fd(), kind) }.into()).map(drop);
    match joined(held, flags) {
        // A directory of /proc is neither of what setns takes.
        Err(Errno::EINVAL) if !tells_end(held) => {}
        other => return other,
    }
    let mut open = [const { None }; KINDS.len()];
    for (place, (kind, file)) in open.iter_mut().zip(KINDS) {
        if flags & kind != 0 {
            *place = Some((files::open(Some(held), file, OFlag::O_RDONLY)?, kind));
        }
    }
    open.iter().flatten().try_for_each(|(fd, kind)| joined(fd.as_fd(), *kind))
}

/// A path with a number in it, as a C string in the buffer given. Allocates nothing.
///
/// # Errors
/// `ENAMETOOLONG` when the buffer is too short.
pub fn numbered<'b>(buffer: &'b mut [u8], before: &str, number: i32, after: &[&str]) -> SysResult<&'b CStr> {
    let mut digits = [0; 10];
    let (mut at, mut rest) = (digits.len(), number.unsigned_abs());
    while rest > 0 || at == digits.len() {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    let parts =
        before.bytes().chain(digits[at..].iter().copied()).chain(after.iter().flat_map(|part| part.bytes())).chain([0]);
    buffer.iter_mut().zip(parts).for_each(|(to, from)| *to = from);
    CStr::from_bytes_until_nul(buffer).map_err(|_| Errno::ENAMETOOLONG)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sleeper() -> std::process::Child {
        std::process::Command::new("sleep").arg("100").spawn().unwrap()
    }

    fn directory(pid: u32) -> OwnedFd {
        DIRECTORIES.store(true, Relaxed);
        files::open(None, &std::ffi::CString::new(format!("/proc/{pid}")).unwrap(), OFlag::O_RDONLY).unwrap()
    }

    #[test]
    fn pidfds_and_directories_name_the_same_process() {
        let mut child = sleeper();
        let pid = child.id() as i32;
        let (pidfd, directory) = (pidfd_open(pid).unwrap(), directory(child.id()));
        assert_eq!((pid_of(pidfd.as_fd()), pid_of(directory.as_fd())), (Ok(pid), Ok(pid)));
        assert!(!has_ended(directory.as_fd()));
        assert_eq!(ends_within(pidfd.as_fd(), Duration::ZERO), Ok(false));
        send_to(pid_of(directory.as_fd()).unwrap(), libc::SIGKILL).unwrap();
        assert_eq!(ends_within(pidfd.as_fd(), Duration::from_secs(5)), Ok(true));
        assert!(has_ended(directory.as_fd()), "a zombie has ended");
        child.wait().unwrap();
        assert!(has_ended(directory.as_fd()));
        assert_eq!(pid_of(directory.as_fd()), Err(Errno::ESRCH), "and its number means nobody");
        assert_eq!(pid_of(pidfd.as_fd()), Err(Errno::ESRCH));
    }
}
