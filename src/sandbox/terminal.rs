//! The terminal of a sandbox's program, relayed to the caller's.

use crate::error::{Context, Result};
use crate::prim::terminal::{RawMode, end_of_input};
use crate::sys::{Errno, files, tty};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::isatty;
use std::collections::VecDeque;
use std::io::{Stdin, Stdout, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::LazyLock;

static STDIN: LazyLock<Stdin> = LazyLock::new(std::io::stdin);
static STDOUT: LazyLock<Stdout> = LazyLock::new(std::io::stdout);

/// How much waits for a reader at most before the program does, in bytes.
const WAITING_MAX: usize = 1 << 20;

/// How many pieces are read at once at most: there is more to attend to.
const PIECES: usize = 16;

/// What a writer that is ready takes without waiting, in bytes: a pipe so much (pipe(7), `PIPE_BUF`), a terminal less, some of
/// which it may write as two characters.
const PIECE_OF_PIPE: usize = 4096;
const PIECE_OF_TERMINAL: usize = 128;

/// A relay between a terminal's master and the caller's standard streams. It never waits: what a writer does not take yet is
/// kept, and not more of it read than there is room for.
pub struct Terminal {
    master: OwnedFd,
    input: bool,
    open: bool,
    /// For the caller, and for the program.
    shown: VecDeque<u8>,
    typed: VecDeque<u8>,
    piece: usize,
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
        let _ = STDOUT.lock().flush();
        let piece = if isatty(&*STDOUT).unwrap_or(false) { PIECE_OF_TERMINAL } else { PIECE_OF_PIPE };
        let (shown, typed) = Default::default();
        let terminal = Terminal { master, input: true, open: true, shown, typed, piece, _raw: raw };
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

    /// What is to be polled for `POLLIN`.
    pub fn sources(&self) -> Vec<BorrowedFd<'_>> {
        let mut sources = Vec::new();
        sources.extend((self.open && self.shown.len() < WAITING_MAX).then(|| self.master.as_fd()));
        sources.extend((self.input && self.typed.is_empty()).then(|| STDIN.as_fd()));
        sources
    }

    /// What is to be polled for `POLLOUT`.
    pub fn sinks(&self) -> Vec<BorrowedFd<'_>> {
        let mut sinks = Vec::new();
        sinks.extend((!self.shown.is_empty()).then(|| STDOUT.as_fd()));
        sinks.extend((self.open && !self.typed.is_empty()).then(|| self.master.as_fd()));
        sinks
    }

    /// Moves what there is and what there is room for.
    pub fn pump(&mut self) {
        for _ in 0..PIECES {
            if !self.open || self.shown.len() >= WAITING_MAX || !self.hear() {
                break;
            }
        }
        if self.input && self.typed.is_empty() && is(STDIN.as_fd(), PollFlags::POLLIN) {
            let mut piece = [0; 4096];
            match files::read(STDIN.as_fd(), &mut piece) {
                Ok(length @ 1..) => self.typed.extend(&piece[..length]),
                Err(Errno::EAGAIN | Errno::EINTR) => {}
                _ => {
                    self.input = false;
                    self.typed.extend(end_of_input(self.master.as_fd()));
                }
            }
        }
        self.drain();
    }

    /// Reads a piece of what the program writes; false if there was none.
    fn hear(&mut self) -> bool {
        let mut piece = [0; 4096];
        match files::read(self.master.as_fd(), &mut piece) {
            Ok(length @ 1..) => {
                self.shown.extend(&piece[..length]);
                true
            }
            Err(Errno::EAGAIN) => false,
            // All ends of the program's side are closed.
            Ok(0) | Err(_) => {
                self.open = false;
                false
            }
        }
    }

    /// Writes what can be written at once.
    pub fn drain(&mut self) {
        while !self.shown.is_empty() && is(STDOUT.as_fd(), PollFlags::POLLOUT) {
            let piece = self.shown.as_slices().0;
            match nix::unistd::write(STDOUT.as_fd(), &piece[..piece.len().min(self.piece)]) {
                Ok(length) => drop(self.shown.drain(..length)),
                Err(Errno::EAGAIN | Errno::EINTR) => break,
                // Who does not read any more misses the rest.
                Err(_) => self.shown.clear(),
            }
        }
        while !self.typed.is_empty() {
            match nix::unistd::write(self.master.as_fd(), self.typed.as_slices().0) {
                Ok(length) => drop(self.typed.drain(..length)),
                Err(Errno::EAGAIN | Errno::EINTR) => break,
                Err(_) => self.typed.clear(),
            }
        }
    }
}

impl Drop for Terminal {
    /// What the program wrote last is still shown. The sandbox is gone: that may wait for its reader now.
    fn drop(&mut self) {
        let mut out = STDOUT.lock();
        loop {
            let told = out.write_all(self.shown.make_contiguous()).and_then(|()| out.flush());
            self.shown.clear();
            if told.is_err() || !self.open || !self.hear() {
                return;
            }
        }
    }
}

/// Whether an fd is ready now, or its other side gone.
fn is(fd: BorrowedFd, flag: PollFlags) -> bool {
    poll(&mut [PollFd::new(fd, flag)], PollTimeout::ZERO).is_ok_and(|n| n > 0)
}
