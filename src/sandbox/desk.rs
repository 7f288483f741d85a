//! Attending to a sandbox from the command line: the caller's signals, orders, and events written as JSON lines.

use super::control::{self, Door, Lines};
use super::event::Event;
use super::live::Live;
use super::show;
use super::supervise::{Attendant, Leftover};
use crate::error::{Context, Result};
use crate::prim::terminal::receive_master;
use crate::sys::{process, socket};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::SigSet;
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::{MsgFlags, send};
use std::collections::VecDeque;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use super::terminal::Terminal;

/// Which events are written to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// All.
    All,
    /// All but output.
    Status,
}

/// How much waits for a reader at most before the program does, in bytes; of events other than output, as much again.
const WAITING_MAX: usize = 1 << 20;

/// A file that gets events. Nobody may read it, and brig has more to do than to wait for that.
struct Writer {
    file: File,
    told: Told,
    waiting: VecDeque<u8>,
    /// Events that were left out.
    lost: u64,
}

impl Writer {
    fn put(&mut self, line: &str, at_us: u64) {
        if self.waiting.len() > 2 * WAITING_MAX {
            self.lost += 1;
            return;
        }
        if self.lost > 0 {
            let text = format!("{} events are missing here: what came before was not read in time", self.lost);
            self.waiting.extend(show::lines::line(&Event::Note { at_us, text }).bytes());
            self.lost = 0;
        }
        self.waiting.extend(line.bytes());
        self.drain();
    }

    /// Writes what can be written at once.
    fn drain(&mut self) {
        while !self.waiting.is_empty() {
            let mut polled = [PollFd::new(self.file.as_fd(), PollFlags::POLLOUT)];
            if !poll(&mut polled, PollTimeout::ZERO).is_ok_and(|ready| ready > 0) {
                return;
            }
            // A pipe that is ready takes so much without waiting (pipe(7), PIPE_BUF).
            let piece = self.waiting.as_slices().0;
            let piece = &piece[..piece.len().min(4096)];
            let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
            let written = match send(self.file.as_raw_fd(), piece, flags) {
                Err(Errno::ENOTSOCK) => nix::unistd::write(&self.file, piece),
                other => other,
            };
            match written {
                Ok(length) => drop(self.waiting.drain(..length)),
                Err(Errno::EAGAIN | Errno::EINTR) => return,
                // Who does not read any more misses the rest.
                Err(_) => self.waiting.clear(),
            }
        }
    }
}

/// The command line's attendant.
pub struct Desk {
    signals: SignalFd,
    mask: libc::sigset_t,
    orders: Option<Lines<File>>,
    door: Option<Door>,
    writers: Vec<Writer>,
    /// The end of the pair that gets the terminal's master.
    console: Option<OwnedFd>,
    terminal: Option<Terminal>,
    /// Signals that ask for an end.
    asked: u32,
}

impl Desk {
    /// Takes all signals of this thread from now on: the program gets them.
    ///
    /// # Errors
    /// As signalfd(2).
    pub fn new() -> Result<Desk> {
        let mask = process::block_signals();
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        let signals = SignalFd::with_flags(&SigSet::all(), flags).during(|| "take signals".into())?;
        Ok(Desk {
            signals,
            mask,
            orders: None,
            door: None,
            writers: Vec::new(),
            console: None,
            terminal: None,
            asked: 0,
        })
    }

    /// Takes orders from a file descriptor.
    ///
    /// # Errors
    /// As fcntl(2).
    pub fn orders(&mut self, file: File) -> Result<()> {
        self.orders = Some(Lines::new(file)?);
        Ok(())
    }

    /// Takes orders by the sandbox's ID.
    pub fn door(&mut self, door: Door) {
        self.door = Some(door);
    }

    /// Writes events to a file as JSON lines.
    pub fn writer(&mut self, file: File, told: Told) {
        self.writers.push(Writer { file, told, waiting: VecDeque::new(), lost: 0 });
    }

    /// Which part of the desk a source is.
    fn parts(&self) -> (usize, usize, usize) {
        let orders = usize::from(self.orders.as_ref().is_some_and(|o| o.source().is_some()));
        let terminal = self.terminal.as_ref().map_or(0, |t| t.sources().len());
        (1, 1 + orders, 1 + orders + terminal)
    }
}

impl Attendant for Desk {
    fn sources(&self) -> Vec<BorrowedFd<'_>> {
        let mut sources = vec![self.signals.as_fd()];
        sources.extend(self.orders.as_ref().and_then(Lines::source));
        sources.extend(self.terminal.iter().flat_map(Terminal::sources));
        sources.extend(self.door.iter().flat_map(Door::sources));
        sources
    }

    fn ready(&mut self, source: usize, live: &mut Live) -> Result<()> {
        let (orders, terminal, door) = self.parts();
        if source == 0 {
            while let Ok(Some(info)) = self.signals.read_signal() {
                let signal = info.ssi_signo as i32;
                match signal {
                    libc::SIGCHLD | libc::SIGURG | libc::SIGPIPE => {}
                    libc::SIGWINCH => self.terminal.iter().for_each(Terminal::resize),
                    libc::SIGTERM | libc::SIGINT | libc::SIGHUP | libc::SIGQUIT => {
                        // Who asks a second time means it.
                        self.asked += 1;
                        let signal = if self.asked > 1 { libc::SIGKILL } else { signal };
                        live.kill(signal)?;
                    }
                    _ => live.kill(signal)?,
                }
            }
        } else if source < terminal && source >= orders && self.orders.as_ref().is_some_and(|o| o.source().is_some()) {
            for line in self.orders.as_mut().map(Lines::read).unwrap_or_default() {
                control::order(&line, live)?;
            }
        } else if source < door {
            self.terminal.iter_mut().for_each(Terminal::pump);
        } else if let Some(open) = &mut self.door {
            open.ready(source - door, live);
        }
        Ok(())
    }

    fn made(&mut self, left: &Leftover) {
        if let Some(door) = &self.door {
            door.keep(left);
        }
    }

    fn sinks(&self) -> Vec<BorrowedFd<'_>> {
        let writers = self.writers.iter().filter(|w| !w.waiting.is_empty()).map(|w| w.file.as_fd());
        writers.chain(self.terminal.iter().flat_map(Terminal::sinks)).collect()
    }

    fn drain(&mut self) {
        self.writers.iter_mut().for_each(Writer::drain);
        self.terminal.iter_mut().for_each(Terminal::drain);
    }

    fn takes_output(&self) -> bool {
        self.writers.iter().all(|writer| writer.told == Told::Status || writer.waiting.len() < WAITING_MAX)
    }

    fn event(&mut self, event: &Event) {
        let output = matches!(event, Event::Stdout(_) | Event::Stderr(_));
        let mut line = None;
        for writer in self.writers.iter_mut().filter(|w| w.told == Told::All || !output) {
            writer.put(line.get_or_insert_with(|| show::lines::line(event)), event.at_us());
        }
    }

    fn is_alone(&self) -> bool {
        true
    }

    fn console(&mut self) -> Result<Option<OwnedFd>> {
        let (ours, theirs) = socket::packet_pair().during(|| "make a socket pair".into())?;
        self.console = Some(ours);
        Ok(Some(theirs))
    }

    fn about_to_run(&mut self) -> Result<()> {
        if let Some(console) = self.console.take() {
            self.terminal = Some(Terminal::new(receive_master(console.as_fd())?)?);
        }
        Ok(())
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        process::restore_signals(&self.mask);
        // The sandbox is gone; what is left to tell may wait for its reader now.
        for writer in &mut self.writers {
            let _ = writer.file.write_all(writer.waiting.make_contiguous());
        }
    }
}

/// A file descriptor that the caller left open for brig, by its number; from now on no program gets it. `None` if it is not
/// open, or brig's own.
pub fn inherited(number: i32) -> Option<File> {
    let number = u32::try_from(number).ok().filter(|n| crate::sys::is_inherited(*n))?;
    crate::sys::take_inherited(number).map(File::from)
}
