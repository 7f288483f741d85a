//! The first process of a PID namespace: reaps what dies, passes signals on, ends with its program.

use super::{Errno, SysResult, check, files, process};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// What the init says of its program's end, as bytes over a pipe.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ending {
    /// Its exit status, or -1.
    pub code: i32,
    /// The signal that ended it, or 0.
    pub signal: i32,
    /// CPU time in user mode of it and all that was reaped, in microseconds.
    pub user_us: u64,
    /// The same in the kernel.
    pub system_us: u64,
    /// The most memory that one process of them had, in KiB.
    pub max_rss: u64,
    /// Blocks of 512 bytes read from storage.
    pub blocks_in: u64,
    /// Blocks of 512 bytes written.
    pub blocks_out: u64,
}

/// Length of [`Ending`] on the wire.
pub const ENDING_SIZE: usize = 48;

impl Ending {
    fn encode(&self) -> [u8; ENDING_SIZE] {
        let mut bytes = [0; ENDING_SIZE];
        bytes[..4].copy_from_slice(&self.code.to_ne_bytes());
        bytes[4..8].copy_from_slice(&self.signal.to_ne_bytes());
        let numbers = [self.user_us, self.system_us, self.max_rss, self.blocks_in, self.blocks_out];
        for (place, number) in bytes[8..].chunks_exact_mut(8).zip(numbers) {
            place.copy_from_slice(&number.to_ne_bytes());
        }
        bytes
    }

    /// Reads what [`run`] wrote.
    pub fn decode(bytes: &[u8; ENDING_SIZE]) -> Ending {
        let word = |at: usize| i32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let mut numbers = bytes[8..].chunks_exact(8).map(|b| b.try_into().map_or(0, u64::from_ne_bytes));
        let mut next = || numbers.next().unwrap_or(0);
        Ending {
            code: word(0),
            signal: word(4),
            user_us: next(),
            system_us: next(),
            max_rss: next(),
            blocks_in: next(),
            blocks_out: next(),
        }
    }
}

/// The signal that asks an init which is not its namespace's first process to end all that it has started.
pub fn end_signal() -> i32 {
    libc::SIGRTMAX()
}

/// Does an init's work for the program `main` until that ends, tells `report` how, and ends. Signals must be blocked since
/// before `main` was made. Allocates nothing.
///
/// The kernel ends what is left in a PID namespace with its first process. Where there is none, orphans come here, since this
/// process becomes their subreaper (prctl(2)), and are ended.
pub fn run(main: i32, report: BorrowedFd) -> ! {
    let first = std::process::id() == 1;
    // SAFETY: sigset_t is plain data that sigfillset fills in.
    let all = unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        all
    };
    loop {
        while let Some((pid, code, signal)) = reaped() {
            if pid == main {
                let mut ending = Ending { code, signal, ..Ending::default() };
                account(&mut ending);
                let _ = files::write(report, &ending.encode());
                if !first {
                    end_all();
                }
                process::exit_now(0);
            }
        }
        // SAFETY: all is a valid set; no information is asked for.
        let signal = unsafe { libc::sigwaitinfo(&raw const all, std::ptr::null_mut()) };
        if signal == end_signal() && !first {
            end_all();
            process::exit_now(0);
        }
        if signal > 0 && signal != libc::SIGCHLD {
            // SAFETY: integers only; main has not been reaped, so the number is its own.
            unsafe { libc::kill(main, signal) };
        }
    }
}

/// Kills children until there are none; those of a child that dies become children.
fn end_all() {
    let mut path = [0; 64];
    let own = std::process::id() as i32;
    let Ok(path) = process::numbered(&mut path, "/proc/self/task/", own, &["/children"]) else { return };
    loop {
        let mut text = [0; 4096];
        let length = files::open(None, path, nix::fcntl::OFlag::O_RDONLY)
            .and_then(|file| files::read(file.as_fd(), &mut text))
            .unwrap_or(0);
        // A number that the buffer cuts is read whole the next time.
        let whole = text[..length].iter().rposition(|b| *b == b' ').unwrap_or(0);
        let mut number = 0;
        for byte in &text[..=whole.min(text.len() - 1)] {
            if byte.is_ascii_digit() {
                number = number * 10 + i32::from(byte - b'0');
            } else if number > 1 {
                // SAFETY: integers only; a child that has not been reaped.
                unsafe { libc::kill(number, libc::SIGKILL) };
                number = 0;
            }
        }
        // SAFETY: siginfo_t is plain data; waits for one to die, and reaps it.
        let died = unsafe {
            let mut info: libc::siginfo_t = std::mem::zeroed();
            check(libc::waitid(libc::P_ALL, 0, &raw mut info, libc::WEXITED).into())
        };
        if died == Err(Errno::ECHILD) {
            return;
        }
    }
}

/// A child that has died: its ID, status and signal.
fn reaped() -> Option<(i32, i32, i32)> {
    // SAFETY: siginfo_t is plain data, and all zeroes is a valid value of it.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    // SAFETY: info is a valid place for the answer.
    check(unsafe { libc::waitid(libc::P_ALL, 0, &raw mut info, libc::WEXITED | libc::WNOHANG) }.into()).ok()?;
    // SAFETY: waitid filled in the fields of a SIGCHLD, or left zeroes.
    let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
    let exited = info.si_code == libc::CLD_EXITED;
    (pid != 0).then_some((pid, if exited { status } else { -1 }, if exited { 0 } else { status }))
}

fn account(ending: &mut Ending) {
    // SAFETY: rusage is plain data that getrusage fills in.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_CHILDREN, &raw mut usage);
        usage
    };
    *ending = Ending { code: ending.code, signal: ending.signal, ..counted(&usage) };
}

/// What the kernel counted, of an init that could not tell any more: it was killed with all that was in there.
pub fn counted(usage: &libc::rusage) -> Ending {
    let time = |t: libc::timeval| t.tv_sec as u64 * 1_000_000 + t.tv_usec as u64;
    Ending {
        code: -1,
        signal: 0,
        user_us: time(usage.ru_utime),
        system_us: time(usage.ru_stime),
        max_rss: usage.ru_maxrss as u64,
        blocks_in: usage.ru_inblock as u64,
        blocks_out: usage.ru_oublock as u64,
    }
}

/// A TCP socket that listens on a port of the loopback interface (IPv4).
///
/// # Errors
/// As socket(2), bind(2) and listen(2).
pub fn listen_tcp(port: u16) -> SysResult<OwnedFd> {
    // SAFETY: integers in, a fresh fd out.
    let fd = unsafe {
        OwnedFd::from_raw_fd(
            check(libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0).into())? as i32
        )
    };
    // SAFETY: sockaddr_in is plain data, and all zeroes is a valid value of it.
    let mut address: libc::sockaddr_in = unsafe { std::mem::zeroed() };
    address.sin_family = libc::AF_INET as libc::sa_family_t;
    address.sin_port = port.to_be();
    address.sin_addr.s_addr = u32::from_ne_bytes([127, 0, 0, 1]);
    // SAFETY: address is a sockaddr_in of the length given.
    unsafe {
        check(libc::bind(fd.as_raw_fd(), (&raw const address).cast(), size_of_val(&address) as u32).into())?;
        check(libc::listen(fd.as_raw_fd(), 128).into())?;
    }
    Ok(fd)
}

/// A pipe, both ends close-on-exec: reader and writer.
///
/// # Errors
/// As pipe2(2).
pub fn pipe() -> SysResult<(OwnedFd, OwnedFd)> {
    nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)
}

/// Makes the calling process die with the thread that made it (prctl(2), `PR_SET_PDEATHSIG`); one that is not the first of a
/// PID namespace becomes the subreaper of what it starts, and is asked to end all that instead.
///
/// # Errors
/// As prctl(2).
pub fn die_with_parent() -> SysResult<()> {
    let signal = if std::process::id() == 1 { libc::SIGKILL } else { end_signal() };
    process::prctl(libc::PR_SET_PDEATHSIG, signal as u64, 0)?;
    if signal != libc::SIGKILL {
        process::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0)?;
    }
    Ok(())
}

/// `EINTR` is no end; anything else is.
///
/// # Errors
/// As read(2); `EBADMSG` for a message that was cut.
pub fn ending(report: BorrowedFd) -> SysResult<Option<Ending>> {
    let mut bytes = [0; ENDING_SIZE];
    match files::read(report, &mut bytes) {
        Ok(0) => Ok(None),
        Ok(ENDING_SIZE) => Ok(Some(Ending::decode(&bytes))),
        Ok(_) => Err(Errno::EBADMSG),
        Err(errno) => Err(errno),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ending_survives_the_pipe() {
        let ending =
            Ending { code: -1, signal: 9, user_us: 1 << 40, system_us: 2, max_rss: 3, blocks_in: 4, blocks_out: 5 };
        assert_eq!(Ending::decode(&ending.encode()), ending);
    }
}
