//! The terminal of a sandbox's program, relayed to the caller's.

use crate::error::{Context, Result};
use crate::prim::terminal::RawMode;
use crate::sys::{Errno, files, tty};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::isatty;
use std::io::{Stdin, Stdout, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::LazyLock;

static STDIN: LazyLock<Stdin> = LazyLock::new(std::io::stdin);
static STDOUT: LazyLock<Stdout> = LazyLock::new(std::io::stdout);

/// A relay between a terminal's master and the caller's standard streams. Each direction waits for its writer, as the
/// streams of a terminal do.
pub struct Terminal {
    master: OwnedFd,
    input: bool,
    open: bool,
    _raw: Option<RawMode>,
}

impl Terminal {
    /// Connects; the caller's terminal, if it has one, is in raw mode until the relay goes.
    ///
    /// # Errors
    /// As tcsetattr(3).
    pub fn new(master: OwnedFd) -> Result<Terminal> {
        let during = || "relay the terminal".to_owned();
        let flags = OFlag::from_bits_retain(fcntl(&master, FcntlArg::F_GETFL).during(during)?);
        fcntl(&master, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK)).during(during)?;
        let raw = if isatty(&*STDIN).unwrap_or(false) { Some(RawMode::enter(STDIN.as_fd())?) } else { None };
        let terminal = Terminal { master, input: true, open: true, _raw: raw };
        terminal.resize();
        Ok(terminal)
    }

    /// Gives the program's terminal the size of the caller's.
    pub fn resize(&self) {
        if let Ok(size) = tty::size(STDIN.as_fd())
            && size != (0, 0)
        {
            let _ = tty::set_size(self.master.as_fd(), size);
        }
    }

    /// What is to be polled.
    pub fn sources(&self) -> Vec<BorrowedFd<'_>> {
        let mut sources = Vec::new();
        sources.extend(self.open.then(|| self.master.as_fd()));
        sources.extend(self.input.then(|| STDIN.as_fd()));
        sources
    }

    /// Moves what there is.
    pub fn pump(&mut self) {
        let mut piece = [0; 4096];
        loop {
            match files::read(self.master.as_fd(), &mut piece) {
                Ok(length @ 1..) => {
                    let mut out = STDOUT.lock();
                    let _ = out.write_all(&piece[..length]).and_then(|()| out.flush());
                }
                Err(Errno::EAGAIN) => break,
                // All ends of the program's side are closed.
                Ok(0) | Err(_) => {
                    self.open = false;
                    break;
                }
            }
        }
        if self.input && ready(STDIN.as_fd()) {
            match files::read(STDIN.as_fd(), &mut piece) {
                Ok(length @ 1..) => {
                    let _ = files::write(self.master.as_fd(), &piece[..length]);
                }
                _ => {
                    self.input = false;
                    if let Some(end) = crate::prim::terminal::end_of_input(self.master.as_fd()) {
                        let _ = files::write(self.master.as_fd(), &[end]);
                    }
                }
            }
        }
    }
}

impl Drop for Terminal {
    /// What the program wrote last is still shown.
    fn drop(&mut self) {
        self.input = false;
        self.pump();
    }
}

fn ready(fd: BorrowedFd) -> bool {
    use nix::poll::{PollFd, PollFlags, poll};
    poll(&mut [PollFd::new(fd, PollFlags::POLLIN)], 0_u8).is_ok_and(|n| n > 0)
}
