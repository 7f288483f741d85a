//! clone3(2), pidfds, waiting, prctl(2).

use super::absent::Absent;
use super::pidfd::send_to;
pub use super::pidfd::{ends_within, join, numbered, pid_of, pidfd_getfd, pidfd_open, pidfd_send_signal, tells_end};
use super::{Errno, SysResult, check};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Output};

/// A process made by [`clone3`], as its parent holds it.
#[derive(Debug)]
pub struct Child {
    /// Its ID in the caller's PID namespace.
    pub pid: i32,
    /// A pidfd for it.
    pub pidfd: OwnedFd,
}

/// `CLONE_INTO_CGROUP` (Linux 5.7); libc has it only as a signed constant that does not fit on every target.
const INTO_CGROUP: u64 = 0x2_0000_0000;

static CLONE3: Absent = Absent::new();

/// Forks with clone3(2) (Linux 5.3), or clone(2): `flags` are `CLONE_*` bits for new namespaces; a pidfd is always made.
///
/// With `cgroup`, a directory of the cgroup v2 tree, the child starts inside it (Linux 5.7). With `CLONE_PARENT` among the flags the child becomes a sibling. Returns `None` in the child, which runs on a copy
/// of the caller's memory and must neither allocate nor take locks, since another thread of the caller may have held one.
///
/// # Errors
/// As clone3(2); `E2BIG` or `EINVAL` for `cgroup` on kernels that can't start a child in one.
pub fn clone3(flags: u64, cgroup: Option<BorrowedFd>) -> SysResult<Option<Child>> {
    if CLONE3.known() {
        return clone(flags, cgroup);
    }
    let mut pidfd: i32 = -1;
    // SAFETY: clone_args is plain data, and all zeroes is a valid value of it.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = flags | libc::CLONE_PIDFD as u64;
    args.pidfd = (&raw mut pidfd) as u64;
    args.exit_signal = exit_signal(flags);
    if let Some(fd) = cgroup {
        args.flags |= INTO_CGROUP;
        args.cgroup = fd.as_raw_fd() as u64;
    }
    // SAFETY: without CLONE_VM and a stack of its own the call is a fork; args outlives it.
    match check(unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<libc::clone_args>()) }) {
        Err(errno) if CLONE3.told_by(errno) => clone(flags, cgroup),
        other => other.map(|pid| born(pid, pidfd)),
    }
}

/// `CLONE_PARENT` takes the exit signal of the caller and refuses another one.
fn exit_signal(flags: u64) -> u64 {
    if flags & libc::CLONE_PARENT as u64 != 0 { 0 } else { libc::SIGCHLD as u64 }
}

fn born(pid: libc::c_long, pidfd: i32) -> Option<Child> {
    // SAFETY: in the parent the kernel stored a fresh fd there, which nothing else owns.
    (pid != 0).then(|| Child { pid: pid as i32, pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) } })
}

/// As [`clone3`], with clone(2) and `CLONE_PIDFD` (Linux 5.2), which knows no cgroup to start in.
fn clone(flags: u64, cgroup: Option<BorrowedFd>) -> SysResult<Option<Child>> {
    if cgroup.is_some() {
        return Err(Errno::E2BIG);
    }
    let mut pidfd: i32 = -1;
    let flags = flags | libc::CLONE_PIDFD as u64 | exit_signal(flags);
    let stack = std::ptr::null_mut::<u8>();
    // The order of the first arguments is the architecture's own; those that differ elsewhere are not used.
    #[cfg(not(target_arch = "s390x"))]
    // SAFETY: without CLONE_VM the null stack means a copy of the caller's: the call is a fork.
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags, stack, &raw mut pidfd, 0, 0) };
    #[cfg(target_arch = "s390x")]
    // SAFETY: as above.
    let pid = unsafe { libc::syscall(libc::SYS_clone, stack, flags, &raw mut pidfd, 0, 0) };
    check(pid).map(|pid| born(pid, pidfd))
}

/// How a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It exited with this status.
    Exited(i32),
    /// This signal ended it.
    Signaled(i32),
}

impl Ended {
    /// The exit status that a shell would give: 128 + n for signal n.
    pub fn status(self) -> i32 {
        match self {
            Ended::Exited(status) => status,
            Ended::Signaled(signal) => 128 + signal,
        }
    }
}

impl Child {
    /// Waits for it to end, and reaps it.
    ///
    /// # Errors
    /// `ECHILD` when it is not the caller's child (any more).
    pub fn wait(&self) -> SysResult<Ended> {
        self.wait_counted().map(|(ended, _)| ended)
    }

    /// As [`Child::wait`]; tells, too, what it and all that it had reaped used (getrusage(2)).
    ///
    /// # Errors
    /// As [`Child::wait`].
    pub fn wait_counted(&self) -> SysResult<(Ended, libc::rusage)> {
        match wait_for(libc::P_PIDFD, self.pidfd.as_raw_fd() as u32) {
            // Nobody else reaps it, so the number is its own until then.
            Err(Errno::ENOSYS | Errno::EINVAL | Errno::EPERM) => wait_for(libc::P_PID, self.pid as u32),
            other => other,
        }
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// `ESRCH` when it has been reaped.
    pub fn signal(&self, signal: i32) -> SysResult<()> {
        match pidfd_send_signal(self.pidfd.as_fd(), signal) {
            Err(Errno::ENOENT | Errno::EPERM) => send_to(self.pid, signal),
            other => other,
        }
    }
}

/// waitid(2), by pidfd (`P_PIDFD`, Linux 5.4) or by number.
fn wait_for(kind: libc::idtype_t, number: u32) -> SysResult<(Ended, libc::rusage)> {
    // SAFETY: rusage is plain data, and all zeroes is a valid value of it.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    loop {
        // SAFETY: siginfo_t is plain data, and all zeroes is a valid value of it.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        // SAFETY: both are valid places for the answer. libc's own function leaves the last argument out.
        let waited =
            unsafe { libc::syscall(libc::SYS_waitid, kind, number, &raw mut info, libc::WEXITED, &raw mut usage) };
        match check(waited) {
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
            Ok(_) => {
                // SAFETY: waitid filled in the fields of a SIGCHLD.
                let status = unsafe { info.si_status() };
                let exited = info.si_code == libc::CLD_EXITED;
                return Ok((if exited { Ended::Exited(status) } else { Ended::Signaled(status) }, usage));
            }
        }
    }
}

/// Runs a program to its end, also under a filter that answers clone3(2) with `EPERM`: of that posix_spawn(3) makes an error.
/// A group to change to, be it the own one, has std fork instead.
///
/// # Errors
/// As [`Command::output`].
pub fn output(command: &mut Command) -> std::io::Result<Output> {
    match command.output() {
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
            command.gid(nix::unistd::getegid().as_raw()).output()
        }
        other => other,
    }
}

/// Ends the calling process at once: no destructors, no handlers.
pub fn exit_now(status: i32) -> ! {
    // SAFETY: _exit only ends the process.
    unsafe { libc::_exit(status) }
}

/// prctl(2) with plain numbers.
///
/// # Errors
/// As prctl(2).
pub fn prctl(option: i32, a: u64, b: u64) -> SysResult<i32> {
    // SAFETY: the options used take integers only.
    check(unsafe { libc::prctl(option, a, b, 0, 0) }.into()).map(|v| v as i32)
}

/// execve(2). The arrays are argv and envp as the kernel wants them; returns only on failure.
///
/// # Errors
/// As execve(2).
pub fn execve(path: &std::ffi::CStr, argv: &super::CArray, envp: &super::CArray) -> Errno {
    // SAFETY: both arrays are null-terminated and point at C strings that they own.
    unsafe { libc::execve(path.as_ptr(), argv.as_ptr(), envp.as_ptr()) };
    Errno::last()
}

/// execveat(2) on an open file itself (`AT_EMPTY_PATH`); returns only on failure.
///
/// # Errors
/// As execveat(2).
pub fn fexecve(file: BorrowedFd, argv: &super::CArray, envp: &super::CArray) -> Errno {
    // SAFETY: as for execve; the empty path is static.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            file.as_raw_fd(),
            c"".as_ptr(),
            argv.as_ptr(),
            envp.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    Errno::last()
}

/// Sets close-on-exec on every fd from `first` up (close_range(2), `CLOSE_RANGE_CLOEXEC`, Linux 5.11).
///
/// # Errors
/// `ENOSYS` or `EINVAL` on older kernels.
pub fn cloexec_from(first: u32) -> SysResult<()> {
    // SAFETY: plain integers; no fd is closed, so no owner loses one.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) })?;
    Ok(())
}

/// Closes every fd from `first` up but those given (close_range(2), Linux 5.9; one by one where it is missing). For a child
/// that will end by exec or exit: owners of the fds must not be used any more.
///
/// # Errors
/// As close_range(2).
pub fn close_except(first: u32, keep: [Option<i32>; 2]) -> SysResult<()> {
    let mut from = first;
    loop {
        let kept = keep.iter().flatten().filter_map(|fd| u32::try_from(*fd).ok()).filter(|fd| *fd >= from).min();
        let to = kept.map_or(u32::MAX, |fd| fd.wrapping_sub(1));
        if kept != Some(from) {
            // SAFETY: plain integers; the caller's promise covers the owners.
            match check(unsafe { libc::syscall(libc::SYS_close_range, from, to, 0) }) {
                Err(Errno::ENOSYS | Errno::EPERM) => {
                    let (_, most) = super::sched::get_rlimit(libc::RLIMIT_NOFILE)?;
                    let end = most.clamp(1 << 16, 1 << 20) as u32;
                    (from..=to.min(end)).for_each(|fd| super::close_number(fd as i32));
                }
                other => drop(other?),
            }
        }
        match kept {
            Some(fd) => from = fd + 1,
            None => return Ok(()),
        }
    }
}

/// Blocks every signal in the calling thread and returns the mask that was in force.
pub fn block_signals() -> libc::sigset_t {
    // SAFETY: sigset_t is plain data that sigfillset and sigprocmask fill in; neither can fail with valid arguments.
    unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        let mut old: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut old);
        old
    }
}

/// Puts a signal mask back.
pub fn restore_signals(mask: &libc::sigset_t) {
    // SAFETY: mask is a valid set.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, mask, std::ptr::null_mut()) };
}

/// Gives every signal its default disposition and empties the mask, as a fresh program expects.
pub fn reset_signals() {
    // SAFETY: sigaction with SIG_DFL runs no code of ours; the two signals that can't be changed answer EINVAL.
    unsafe {
        // The kernel's own structure: handler, flags, restorer, mask. glibc's wrapper refuses 32 and 33, which may be ignored
        // by inheritance like any other.
        let default = [0_u64; 4];
        for signal in 1..=64 {
            let mut old = [0_u64; 4];
            let none = std::ptr::null::<u64>();
            if libc::syscall(libc::SYS_rt_sigaction, signal, none, old.as_mut_ptr(), 8) == 0 && old[0] != 0 {
                libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), none, 8);
            }
        }
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
    }
}

/// Puts an open file in place of one of the standard streams. For a child that will end by exec or exit.
///
/// # Errors
/// As dup2(2) and fcntl(2).
pub fn put_stream(file: BorrowedFd, number: i32) -> SysResult<()> {
    if file.as_raw_fd() == number {
        // It is there already, and is not to be closed by exec.
        // SAFETY: integers only.
        return check(unsafe { libc::fcntl(number, libc::F_SETFD, 0) }.into()).map(drop);
    }
    // SAFETY: integers only; what was open there is a standard stream of this process, which nothing here owns.
    check(unsafe { libc::dup3(file.as_raw_fd(), number, 0) }.into()).map(drop)
}
