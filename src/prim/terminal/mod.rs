//! The container's terminal: a pty made inside (runtime-spec `process.terminal`, `process.consoleSize`), its master sent
//! out over a socket, and the caller's own terminal in raw mode.

pub mod attend;

use crate::error::{Context, Error, Kind, Result};
use crate::sys::{Errno, SysResult, socket, tty};
use nix::fcntl::{OFlag, open};
use nix::sys::stat::{Mode, SFlag, fstat, major, makedev};
use nix::sys::termios::{self, LocalFlags, OutputFlags, SetArg, SpecialCharacterIndices, Termios};
use nix::unistd::{dup2_stderr, dup2_stdin, dup2_stdout, setsid};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Mutex, Once, PoisonError};

/// What goes along with a master: receivers want a name, and everyone sends this one.
const MASTER_NAME: &[u8] = b"/dev/ptmx";

/// The longest path that fits into a socket's address together with its NUL.
const ADDRESS_PATH: usize = 107;

/// Opens the slave of a freshly opened pty multiplexer, `size` being rows and columns. Safe between clone and exec.
///
/// The slave is opened by the master itself, so that no path can lead it elsewhere (CVE-2025-52565); both are checked to
/// be the devices that they should be.
///
/// # Errors
/// `ENOTTY` when this is not the master of a Unix98 pty; as ioctl_tty(2).
pub fn open_slave(master: BorrowedFd, size: Option<(u16, u16)>) -> SysResult<OwnedFd> {
    let stat = fstat(master)?;
    if stat.st_mode & SFlag::S_IFMT.bits() != SFlag::S_IFCHR.bits() || stat.st_rdev != makedev(5, 2) {
        return Err(Errno::ENOTTY);
    }
    tty::unlock(master)?;
    let slave = tty::open_peer(master)?;
    // 136 to 143 are the majors of Unix98 slaves, see the kernel's devices.txt.
    if !(136..=143).contains(&major(fstat(&slave)?.st_rdev)) {
        return Err(Errno::ENOTTY);
    }
    if let Some(size) = size {
        tty::set_size(slave.as_fd(), size)?;
    }
    Ok(slave)
}

/// Sends a master over a connected socket, as console receivers expect it: one fd and a name. Safe between clone and exec.
///
/// # Errors
/// `EPIPE` when nobody receives.
pub fn send_master(receiver: BorrowedFd, master: BorrowedFd) -> SysResult<()> {
    socket::send(receiver, MASTER_NAME, Some(master))
}

/// Takes a slave as controlling terminal, in a new session if the caller does not lead one, and as standard streams. Safe
/// between clone and exec.
///
/// # Errors
/// `EPERM` when the session has a terminal already.
pub fn take(slave: BorrowedFd) -> SysResult<()> {
    match setsid() {
        // The caller leads a session already.
        Ok(_) | Err(Errno::EPERM) => {}
        Err(errno) => return Err(errno),
    }
    tty::make_controlling(slave)?;
    dup2_stdin(slave)?;
    dup2_stdout(slave)?;
    dup2_stderr(slave)
}

/// Connects to the socket on which an engine waits for the terminal's master (`--console-socket`), whatever the length
/// of its path.
///
/// # Errors
/// No such socket, or nobody listens on it.
pub fn connect_console_socket(path: &Path) -> Result<OwnedFd> {
    let during = || format!("connect to console socket {}", path.display());
    let result = match path.as_os_str().as_bytes() {
        short if short.len() <= ADDRESS_PATH => socket::connect(short, false),
        // The kernel follows the link to the very socket, however it was reached.
        _ => open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())
            .and_then(|fd| socket::connect(format!("/proc/self/fd/{}", fd.as_raw_fd()).as_bytes(), false)),
    };
    result.during(during).map_err(|error| match error.kind() {
        Kind::Os(Errno::ECONNREFUSED) => error.hint("nobody listens on it"),
        Kind::Os(Errno::EPROTOTYPE) => error.hint("it must be a stream socket"),
        _ => error,
    })
}

/// Receives a master that [`send_master`] sent.
///
/// # Errors
/// The other end closed without sending one, or sent something else.
pub fn receive_master(socket: BorrowedFd) -> Result<OwnedFd> {
    let (len, fd) = socket::receive(socket, &mut [0; 4096]).during(|| "receive the terminal".into())?;
    match fd {
        Some(fd) if nix::unistd::isatty(&fd).unwrap_or(false) => Ok(fd),
        Some(_) => Err(Error::new(Kind::Other, "receive the terminal: what came is no terminal")),
        None if len == 0 => {
            Err(Error::new(Kind::Gone, "receive the terminal: the container's process closed the socket"))
        }
        None => Err(Error::new(Kind::Other, "receive the terminal: a message without one")),
    }
}

/// Makes a pty pass newlines as they are, as runc does: for output that goes to a file or a pipe.
///
/// # Errors
/// As tcsetattr(3).
pub fn plain_newlines(master: BorrowedFd) -> SysResult<()> {
    let mut settings = termios::tcgetattr(master)?;
    settings.output_flags.remove(OutputFlags::ONLCR);
    termios::tcsetattr(master, SetArg::TCSANOW, &settings)
}

/// The character that ends input typed on a terminal, if it is in the mode that has one.
pub fn end_of_input(master: BorrowedFd) -> Option<u8> {
    let settings = termios::tcgetattr(master).ok()?;
    let canonical = settings.local_flags.contains(LocalFlags::ICANON);
    canonical.then_some(settings.control_chars[SpecialCharacterIndices::VEOF as usize])
}

/// The one terminal that is in raw mode, and how it was before.
static RAW: Mutex<Option<(OwnedFd, Termios)>> = Mutex::new(None);

/// The caller's terminal in raw mode, until this value goes.
#[derive(Debug)]
pub struct RawMode(());

impl RawMode {
    /// Puts a terminal into raw mode. A panic puts it back, too, even where panics abort; one terminal at a time.
    ///
    /// # Errors
    /// As tcgetattr(3) and tcsetattr(3).
    pub fn enter(terminal: BorrowedFd) -> Result<RawMode> {
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            let next = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |info| {
                restore();
                next(info);
            }));
        });
        let during = || "put the terminal into raw mode".to_owned();
        let terminal = terminal.try_clone_to_owned().during(during)?;
        let before = termios::tcgetattr(&terminal).during(during)?;
        let mut saved = RAW.lock().unwrap_or_else(PoisonError::into_inner);
        if saved.is_some() {
            return Err(Error::new(Kind::Other, "put the terminal into raw mode: another one is already"));
        }
        let mut raw = before.clone();
        termios::cfmakeraw(&mut raw);
        termios::tcsetattr(&terminal, SetArg::TCSADRAIN, &raw).during(during)?;
        *saved = Some((terminal, before));
        Ok(RawMode(()))
    }

    /// Enters raw mode again, after a stop during which the shell had the terminal.
    pub fn again(&self) {
        if let Some((terminal, before)) = &*RAW.lock().unwrap_or_else(PoisonError::into_inner) {
            let mut raw = before.clone();
            termios::cfmakeraw(&mut raw);
            let _ = termios::tcsetattr(terminal, SetArg::TCSADRAIN, &raw);
        }
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        restore();
    }
}

fn restore() {
    if let Some((terminal, before)) = RAW.lock().unwrap_or_else(PoisonError::into_inner).take() {
        let _ = termios::tcsetattr(&terminal, SetArg::TCSADRAIN, &before);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::sys::CArray;
    use crate::sys::process::{self, Child};
    use std::ffi::CString;
    use std::io::{Read, Write};

    /// Tests that enter raw mode or count ptys take turns.
    pub(crate) static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

    pub(crate) fn new_master() -> OwnedFd {
        open("/dev/ptmx", OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC, Mode::empty()).unwrap()
    }

    /// Runs a shell script on a pty, or on the caller's streams.
    pub(crate) fn spawn(script: &str, slave: Option<BorrowedFd>) -> Child {
        let strings = ["sh", "-c", script].map(|s| CString::new(s).unwrap()).to_vec();
        let (argv, envp) = (CArray::new(strings), CArray::new(vec![c"PATH=/usr/bin:/bin".into()]));
        match process::clone3(0, None).unwrap() {
            Some(child) => child,
            None => {
                process::reset_signals();
                if slave.is_none_or(|slave| take(slave).is_ok()) {
                    process::execve(c"/bin/sh", &argv, &envp);
                }
                process::exit_now(99)
            }
        }
    }

    /// Everything that comes out of a master until its slaves are closed.
    fn output(master: OwnedFd) -> String {
        let (mut file, mut all) = (std::fs::File::from(master), Vec::new());
        let mut chunk = [0; 4096];
        // EIO is the end.
        while let Ok(n @ 1..) = file.read(&mut chunk) {
            all.extend_from_slice(&chunk[..n]);
        }
        String::from_utf8(all).unwrap()
    }

    #[test]
    fn a_process_takes_the_slave_as_its_terminal() {
        let master = new_master();
        let slave = open_slave(master.as_fd(), Some((30, 100))).unwrap();
        let child = spawn(
            "stty size; tty; echo $(ps -o sid= -p $$) $$; echo to-tty > /dev/tty; ls -1 /proc/self/fd",
            Some(slave.as_fd()),
        );
        drop(slave);
        let text = output(master);
        assert_eq!(child.wait().unwrap().status(), 0, "{text}");
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "30 100");
        assert!(lines[1].starts_with("/dev/pts/"), "{text}");
        assert_eq!(lines[2], format!("{0} {0}", child.pid), "the session is led by the process");
        assert_eq!(lines[3], "to-tty");
    }

    #[test]
    fn only_a_multiplexer_will_do() {
        let null = std::fs::File::open("/dev/null").unwrap();
        assert_eq!(open_slave(null.as_fd(), None).unwrap_err(), Errno::ENOTTY);
        let file = std::fs::File::open("/etc/passwd").unwrap();
        assert_eq!(open_slave(file.as_fd(), None).unwrap_err(), Errno::ENOTTY);
        let master = new_master();
        let slave = open_slave(master.as_fd(), None).unwrap();
        assert_eq!(open_slave(slave.as_fd(), None).unwrap_err(), Errno::ENOTTY, "a slave is no master");
    }

    #[test]
    fn a_master_goes_over_a_console_socket_of_any_path_length() {
        let top = std::env::temp_dir().join(format!("brig-console-{}", std::process::id()));
        for dir in [top.clone(), top.join("d".repeat(120))] {
            std::fs::create_dir_all(&dir).unwrap();
            // Bound under a short name: only the client has to reach it by a long one.
            let short = top.join("s");
            let listener = std::os::unix::net::UnixListener::bind(&short).unwrap();
            std::fs::rename(&short, dir.join("console.sock")).unwrap();
            let client = connect_console_socket(&dir.join("console.sock")).unwrap();
            let (server, _) = listener.accept().unwrap();
            let master = new_master();
            let mut slave = std::fs::File::from(open_slave(master.as_fd(), None).unwrap());
            send_master(client.as_fd(), master.as_fd()).unwrap();
            drop(master);
            let received = receive_master(server.as_fd()).unwrap();
            slave.write_all(b"hello").unwrap();
            drop(slave);
            assert_eq!(output(received), "hello");
            drop(client);
            assert!(receive_master(server.as_fd()).unwrap_err().to_string().contains("closed the socket"));
        }
        let file = top.join("file");
        std::fs::write(&file, "").unwrap();
        assert!(connect_console_socket(&file).unwrap_err().to_string().contains("connection refused"));
        assert!(connect_console_socket(&top.join("none")).unwrap_err().to_string().contains("no such file"));
        std::fs::remove_dir_all(&top).unwrap();
    }

    #[test]
    fn the_message_is_one_fd_and_a_name() {
        let (ours, theirs) = socket::packet_pair().unwrap();
        let master = new_master();
        send_master(ours.as_fd(), master.as_fd()).unwrap();
        let mut name = [0; 64];
        let (len, fd) = socket::receive(theirs.as_fd(), &mut name).unwrap();
        assert_eq!((&name[..len], fd.is_some()), (MASTER_NAME, true));
        let null = std::fs::File::open("/dev/null").unwrap();
        socket::send(ours.as_fd(), b"x", Some(null.as_fd())).unwrap();
        assert!(receive_master(theirs.as_fd()).unwrap_err().to_string().contains("no terminal"));
    }

    #[test]
    fn raw_mode_ends_with_its_guard_and_with_a_panic() {
        let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let master = new_master();
        let slave = open_slave(master.as_fd(), None).unwrap();
        let echoes = || termios::tcgetattr(&slave).unwrap().local_flags.contains(LocalFlags::ECHO);
        let guard = RawMode::enter(slave.as_fd()).unwrap();
        assert!(!echoes());
        let mut cooked = termios::tcgetattr(&slave).unwrap();
        cooked.local_flags.insert(LocalFlags::ECHO);
        termios::tcsetattr(&slave, SetArg::TCSANOW, &cooked).unwrap();
        guard.again();
        assert!(!echoes());
        assert!(RawMode::enter(slave.as_fd()).is_err(), "one at a time");
        drop(guard);
        assert!(echoes());
        let guard = RawMode::enter(slave.as_fd()).unwrap();
        let panicked = std::panic::catch_unwind(|| panic!("on purpose"));
        assert!(panicked.is_err() && echoes(), "the panic hook restores before anything unwinds");
        drop(guard);
    }

    #[test]
    fn newlines_and_end_of_input_follow_the_settings() {
        let master = new_master();
        let slave = open_slave(master.as_fd(), None).unwrap();
        assert_eq!(end_of_input(master.as_fd()), Some(4));
        plain_newlines(master.as_fd()).unwrap();
        let mut file = std::fs::File::from(slave);
        file.write_all(b"a\nb\n").unwrap();
        let mut raw = termios::tcgetattr(&file).unwrap();
        termios::cfmakeraw(&mut raw);
        termios::tcsetattr(&file, SetArg::TCSANOW, &raw).unwrap();
        assert_eq!(end_of_input(master.as_fd()), None);
        drop(file);
        assert_eq!(output(master), "a\nb\n");
    }
}
