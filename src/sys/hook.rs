//! Runs a helper program to its end: input on its standard input, the last of its output kept, a limit in time. For
//! callers that may not allocate, and for any thread of a program that has others: nothing global is changed.

use super::process::{self, Ended};
use super::{CArray, Errno, SysResult, alloc, check};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::{Signal, killpg};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Pid, Whence, chdir, dup2_stderr, dup2_stdin, dup2_stdout, lseek, pipe2, setpgid};
use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

/// What to run.
#[derive(Debug, Clone, Copy)]
pub struct Program<'a> {
    /// The file to execute.
    pub path: &'a CStr,
    /// Its whole argv.
    pub argv: &'a CArray,
    /// Its whole environment.
    pub envp: &'a CArray,
    /// Where it runs; the caller's working directory if `None`.
    pub cwd: Option<&'a CStr>,
}

/// The call that kept a program from running.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Site {
    /// Making the file for its input.
    Input = 1,
    /// Making the pipes for its output and its failure.
    Pipe,
    /// Forking.
    Fork,
    /// Arranging its standard streams and descriptors.
    Streams,
    /// Changing to its working directory.
    Chdir,
    /// Executing it.
    Exec,
    /// Waiting for it.
    Wait,
}

impl Site {
    const ALL: [Site; 7] = [Site::Input, Site::Pipe, Site::Fork, Site::Streams, Site::Chdir, Site::Exec, Site::Wait];

    /// The site of this number.
    pub fn from_number(number: u8) -> Option<Site> {
        Site::ALL.into_iter().find(|site| *site as u8 == number)
    }
}

/// Why a program did not run to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broken {
    /// It could not be run, or not be waited for.
    Call(Site, Errno),
    /// It took longer than allowed and was killed with its process group.
    TimedOut,
}

/// How much output is kept.
const KEPT: usize = 4096;

/// The last 4 KiB that a program wrote to its standard output and error.
#[derive(Clone, Copy)]
pub struct Tail {
    ring: [u8; KEPT],
    written: usize,
}

impl Tail {
    /// Nothing yet.
    pub const fn new() -> Tail {
        Tail { ring: [0; KEPT], written: 0 }
    }

    fn push(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.ring[self.written % KEPT] = *byte;
            self.written = self.written.wrapping_add(1);
        }
    }

    /// What was kept, in two pieces: the older one first.
    pub fn pieces(&self) -> (&[u8], &[u8]) {
        match self.written {
            n if n <= KEPT => (&self.ring[..n], &[]),
            n => (&self.ring[n % KEPT..], &self.ring[..n % KEPT]),
        }
    }
}

impl Default for Tail {
    fn default() -> Tail {
        Tail::new()
    }
}

/// Runs a program and waits until it ends; `limit` bounds that.
///
/// `input` is a file already, whole and at its start: a program that never reads it blocks nobody, there is no SIGPIPE, and
/// it may be opened again as /dev/stdin. The program leads a process group of its own, which a time-out kills; it gets
/// fresh signal dispositions and an empty mask, only the standard streams, and SIGKILL when the calling thread ends.
/// What it leaves running when it exits is left alone.
///
/// # Errors
/// The call that failed, `ENOENT` at [`Site::Exec`] and the like, or [`Broken::TimedOut`]. `ECHILD` at [`Site::Wait`]
/// when the calling process ignores SIGCHLD.
pub fn run(program: &Program, input: &[u8], limit: Option<Duration>, tail: &mut Tail) -> Result<Ended, Broken> {
    let deadline = limit.and_then(|limit| Instant::now().checked_add(limit));
    let file = input_file(input).map_err(|errno| Broken::Call(Site::Input, errno))?;
    let (said, output) = pipe().map_err(|errno| Broken::Call(Site::Pipe, errno))?;
    let (heard, report) = pipe().map_err(|errno| Broken::Call(Site::Pipe, errno))?;
    let mask = process::block_signals();
    let forked = process::clone3(0, None);
    if let Ok(None) = forked {
        become_program(program, &file, &output, heard, &report);
    }
    process::restore_signals(&mask);
    let Some(child) = forked.map_err(|errno| Broken::Call(Site::Fork, errno))? else { process::exit_now(127) };
    drop((file, output, report));
    // Here as well as in the child, so that the group exists before anybody kills it. EACCES: it has executed already.
    let _ = setpgid(Pid::from_raw(child.pid), Pid::from_raw(child.pid));
    let outcome = listen(child.pidfd.as_fd(), said.as_fd(), deadline, tail);
    if outcome != Ok(true) {
        let _ = killpg(Pid::from_raw(child.pid), Signal::SIGKILL);
        let _ = child.signal(libc::SIGKILL);
    }
    let ended = child.wait().map_err(|errno| Broken::Call(Site::Wait, errno));
    // At most what the pipe holds: something left behind may write for ever.
    let mut chunks = 0;
    while chunks < 16 && matches!(take(said.as_fd(), tail), Ok(n) if n > 0) {
        chunks += 1;
    }
    match outcome {
        Err(errno) => Err(Broken::Call(Site::Wait, errno)),
        Ok(false) => Err(Broken::TimedOut),
        Ok(true) => match reported(heard.as_fd()) {
            Some(broken) => Err(broken),
            None => ended,
        },
    }
}

/// The child's half: never returns.
fn become_program(program: &Program, input: &OwnedFd, output: &OwnedFd, heard: OwnedFd, report: &OwnedFd) -> ! {
    alloc::forbid();
    process::reset_signals();
    let _ = setpgid(Pid::from_raw(0), Pid::from_raw(0));
    let _ = process::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as u64, 0);
    // The caller may have died before that: then nobody has the other end of its pipe.
    drop(heard);
    let mut orphaned = [PollFd::new(report.as_fd(), PollFlags::empty())];
    let _ = poll(&mut orphaned, PollTimeout::ZERO);
    if orphaned[0].revents().is_some_and(|events| events.contains(PollFlags::POLLERR)) {
        process::exit_now(127);
    }
    // A zero mask is that of a caller which is making files for others; a program wants the usual one.
    let mask = umask(Mode::from_bits_retain(0o022));
    if !mask.is_empty() {
        umask(mask);
    }
    let (site, errno) = execute(program, input.as_fd(), output.as_fd());
    let _ = super::files::write(report.as_fd(), &[site as u8, errno as i32 as u8]);
    process::exit_now(127)
}

fn execute(program: &Program, input: BorrowedFd, output: BorrowedFd) -> (Site, Errno) {
    let streams = dup2_stdin(input).and_then(|()| dup2_stdout(output)).and_then(|()| dup2_stderr(output));
    if let Err(errno) = streams.and_then(|()| close_at_exec()) {
        return (Site::Streams, errno);
    }
    if let Some(cwd) = program.cwd
        && let Err(errno) = chdir(cwd)
    {
        return (Site::Chdir, errno);
    }
    (Site::Exec, process::execve(program.path, program.argv, program.envp))
}

/// Leaves only the standard streams to the program; kernels before 5.11 and filters older than the call need the loop.
fn close_at_exec() -> SysResult<()> {
    if process::cloexec_from(3).is_ok() {
        return Ok(());
    }
    let (soft, _) = super::sched::get_rlimit(libc::RLIMIT_NOFILE)?;
    for fd in 3..soft.min(1 << 20) as i32 {
        // SAFETY: sets a flag of an fd, if there is one; nothing is closed.
        unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
    }
    Ok(())
}

/// Reads output until the program has ended (`true`) or its time is up (`false`).
fn listen(pidfd: BorrowedFd, said: BorrowedFd, deadline: Option<Instant>, tail: &mut Tail) -> SysResult<bool> {
    let mut open = true;
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        // Rounded up, so that the last wait does not turn into a busy loop of waits for 0 ms.
        let timeout = left.map_or(PollTimeout::NONE, |left| {
            let whole = left.as_millis().saturating_add(1).min(i32::MAX as u128) as i32;
            PollTimeout::try_from(whole).unwrap_or(PollTimeout::MAX)
        });
        let mut fds = [PollFd::new(pidfd, PollFlags::POLLIN), PollFd::new(said, PollFlags::POLLIN)];
        let watched = if open { &mut fds[..] } else { &mut fds[..1] };
        match poll(watched, timeout) {
            Err(Errno::EINTR) => continue,
            Err(errno) => return Err(errno),
            Ok(_) => {}
        }
        let ready = |fd: &PollFd| fd.revents().is_some_and(|events| !events.is_empty());
        if ready(&fds[0]) {
            return Ok(true);
        }
        if left.is_some_and(|left| left.is_zero()) {
            return Ok(false);
        }
        if open && ready(&fds[1]) {
            open = !matches!(take(said, tail), Ok(0) | Err(Errno::EIO));
        }
    }
}

fn take(said: BorrowedFd, tail: &mut Tail) -> SysResult<usize> {
    let mut chunk = [0; KEPT];
    let n = super::files::read(said, &mut chunk)?;
    tail.push(chunk.get(..n).unwrap_or_default());
    Ok(n)
}

/// What kept the child from executing, if anything did: the pipe closes at exec.
fn reported(heard: BorrowedFd) -> Option<Broken> {
    let mut message = [0; 2];
    match super::files::read(heard, &mut message) {
        Ok(2) => {
            let site = Site::from_number(message[0]).unwrap_or(Site::Exec);
            Some(Broken::Call(site, Errno::from_raw(message[1].into())))
        }
        _ => None,
    }
}

/// A file in memory with these bytes, at its start.
fn input_file(bytes: &[u8]) -> SysResult<OwnedFd> {
    /// `MFD_NOEXEC_SEAL` (Linux 6.3): wanted where sysctl vm.memfd_noexec is set, unknown to older kernels.
    const NOEXEC_SEAL: MFdFlags = MFdFlags::from_bits_retain(0x8);
    let file = match memfd_create(c"input", MFdFlags::MFD_CLOEXEC | NOEXEC_SEAL) {
        Err(Errno::EINVAL) => memfd_create(c"input", MFdFlags::MFD_CLOEXEC)?,
        other => other?,
    };
    super::files::write(file.as_fd(), bytes)?;
    lseek(&file, 0, Whence::SeekSet)?;
    off_streams(file)
}

/// A pipe: (end to read, which does not block, end to write).
fn pipe() -> SysResult<(OwnedFd, OwnedFd)> {
    let (read, write) = pipe2(OFlag::O_CLOEXEC)?;
    fcntl(&read, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok((off_streams(read)?, off_streams(write)?))
}

/// Moves an fd off the numbers of the standard streams, which a caller may have had closed.
fn off_streams(fd: OwnedFd) -> SysResult<OwnedFd> {
    use std::os::fd::FromRawFd;
    if fd.as_raw_fd() > 2 {
        return Ok(fd);
    }
    let moved = fcntl(&fd, FcntlArg::F_DUPFD_CLOEXEC(3))?;
    check(moved.into())?;
    // SAFETY: a fresh fd, which nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(moved) })
}
