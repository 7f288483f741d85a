//! Attending a process in the foreground: signals go to it, a terminal's input and output are relayed, its end is its
//! attendant's.
//!
//! The order: block all signals ([`crate::sys::process::block_signals`]) before the clone, so that none is lost or ends the
//! attendant instead; the child resets its mask; then [`attend`], in the same thread; then put the mask back. Signals are
//! blocked per thread: in a program with other threads, the ones sent to the process may be taken by those.

use super::{RawMode, end_of_input, plain_newlines};
use crate::error::{Context, Result};
use crate::sys::process::{self, Child, Ended};
use crate::sys::{Errno, SysResult, files, tty};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::sys::signal::SigSet;
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::{isatty, write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Waits for a child of the caller to end, passing on what is sent to the caller meanwhile, and reaps it.
///
/// Every signal but SIGCHLD, SIGURG, SIGWINCH and SIGPIPE is forwarded, like runc does it. With `relay` the terminal is
/// relayed and its size kept equal. With `orphans` other children that end are reaped; they arrive if the caller is a
/// subreaper ([`become_subreaper`]). All signals must be blocked, see the module.
///
/// # Errors
/// As poll(2), signalfd(2), waitid(2).
pub fn attend(child: &Child, relay: Option<Relay>, orphans: bool) -> Result<Ended> {
    let during = || "wait for the container's process".to_owned();
    let signals =
        SignalFd::with_flags(&SigSet::all(), SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).during(during)?;
    Attendant { child, signals, relay, orphans, exited: false }.run().during(during)?;
    child.wait().during(during)
}

/// Makes the orphans among the caller's descendants its children (`PR_SET_CHILD_SUBREAPER`).
///
/// # Errors
/// As prctl(2).
pub fn become_subreaper() -> Result<()> {
    process::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0).during(|| "become a subreaper".into()).map(drop)
}

/// What is still read from a terminal after its process has ended: more than the kernel holds back for one, so that others
/// who have it open can't hold the attendant.
const REST: usize = 64 << 10;

/// Bytes on their way from one side to the other.
struct Buffer {
    bytes: [u8; 4096],
    start: usize,
    end: usize,
}

impl Buffer {
    const fn new() -> Buffer {
        Buffer { bytes: [0; 4096], start: 0, end: 0 }
    }

    fn is_empty(&self) -> bool {
        self.start == self.end
    }

    fn fill(&mut self, from: BorrowedFd) -> SysResult<usize> {
        let n = files::read(from, &mut self.bytes)?;
        (self.start, self.end) = (0, n);
        Ok(n)
    }

    fn pour(&mut self, to: BorrowedFd) -> SysResult<()> {
        self.start += write(to, &self.bytes[self.start..self.end])?;
        Ok(())
    }

    fn clear(&mut self) {
        self.start = self.end;
    }
}

/// A container's terminal, connected to the caller's streams.
pub struct Relay<'f> {
    master: OwnedFd,
    input: BorrowedFd<'f>,
    output: BorrowedFd<'f>,
    /// The caller's terminal: what has a size.
    terminal: Option<BorrowedFd<'f>>,
    raw: Option<RawMode>,
    /// Watches the master for changes (edge-triggered): a master whose slaves are all closed reports a hang-up for ever, yet
    /// may be opened again by the container.
    changes: Epoll,
    readable: bool,
    writable: bool,
    input_open: bool,
    output_open: bool,
    /// How much is still read.
    rest: usize,
    to_master: Buffer,
    to_output: Buffer,
}

impl<'f> Relay<'f> {
    /// Connects a terminal's master to the caller's input and output. If the input is a terminal it is in raw mode until the
    /// relay goes; if one of them is, its size becomes the container's.
    ///
    /// # Errors
    /// As tcsetattr(3), epoll_ctl(2).
    pub fn new(master: OwnedFd, input: BorrowedFd<'f>, output: BorrowedFd<'f>) -> Result<Relay<'f>> {
        let during = || "relay the terminal".to_owned();
        let is_terminal = |fd| isatty(fd).unwrap_or(false);
        let flags = OFlag::from_bits_retain(fcntl(&master, FcntlArg::F_GETFL).during(during)?);
        fcntl(&master, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK)).during(during)?;
        let changes = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).during(during)?;
        let edges = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLET;
        changes.add(&master, EpollEvent::new(edges, 0)).during(during)?;
        if !is_terminal(output) {
            plain_newlines(master.as_fd()).during(during)?;
        }
        let raw = if is_terminal(input) { Some(RawMode::enter(input)?) } else { None };
        let relay = Relay {
            terminal: [input, output].into_iter().find(|fd| is_terminal(*fd)),
            raw,
            changes,
            readable: true,
            writable: true,
            input_open: true,
            output_open: true,
            rest: usize::MAX,
            to_master: Buffer::new(),
            to_output: Buffer::new(),
            master,
            input,
            output,
        };
        relay.resize();
        Ok(relay)
    }

    fn resize(&self) {
        // A size of 0 is that of a terminal that has none, such as a serial line.
        if let Some(size) = self.terminal.and_then(|fd| tty::size(fd).ok()).filter(|size| *size != (0, 0)) {
            let _ = tty::set_size(self.master.as_fd(), size);
        }
    }

    /// Moves what the master takes and gives without blocking.
    fn pump(&mut self) {
        while self.writable && !self.to_master.is_empty() {
            match self.to_master.pour(self.master.as_fd()) {
                Ok(()) | Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => self.writable = false,
                Err(_) => self.to_master.clear(),
            }
        }
        if self.wants_to_read() {
            match self.to_output.fill(self.master.as_fd()) {
                Ok(n @ 1..) => {
                    if self.rest < usize::MAX {
                        self.rest = self.rest.saturating_sub(n);
                    }
                    // The container must not block on an output that nobody takes any more.
                    if !self.output_open {
                        self.to_output.clear();
                    }
                }
                // EIO: all slaves are closed, for now or for good. EAGAIN: there is no more, for now.
                Ok(0) | Err(_) => self.readable = false,
            }
        }
    }

    fn wants_to_read(&self) -> bool {
        self.readable && self.rest > 0 && self.to_output.is_empty()
    }

    fn note_changes(&mut self) {
        let mut events = [EpollEvent::empty()];
        if self.changes.wait(&mut events, 0_u8) == Ok(1) {
            let flags = events[0].events();
            self.readable |= flags.intersects(EpollFlags::EPOLLIN | EpollFlags::EPOLLHUP);
            self.writable |= flags.contains(EpollFlags::EPOLLOUT);
        }
    }

    fn read_input(&mut self) {
        match self.to_master.fill(self.input) {
            Ok(1..) | Err(Errno::EAGAIN) => {}
            Ok(0) => {
                self.input_open = false;
                // What reads lines in the container sees the end, too.
                if let Some(end) = end_of_input(self.master.as_fd()) {
                    self.to_master.bytes[0] = end;
                    (self.to_master.start, self.to_master.end) = (0, 1);
                }
            }
            // EIO: the terminal hung up, or the caller is in its background.
            Err(_) => self.input_open = false,
        }
    }

    fn write_output(&mut self) {
        match self.to_output.pour(self.output) {
            Ok(()) | Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(_) => {
                self.output_open = false;
                self.to_output.clear();
            }
        }
    }
}

fn has_ended(pidfd: BorrowedFd) -> bool {
    poll(&mut [PollFd::new(pidfd, PollFlags::POLLIN)], PollTimeout::ZERO) == Ok(1)
}

struct Attendant<'f> {
    child: &'f Child,
    signals: SignalFd,
    relay: Option<Relay<'f>>,
    orphans: bool,
    exited: bool,
}

impl Attendant<'_> {
    fn run(&mut self) -> SysResult<()> {
        loop {
            if let Some(relay) = &mut self.relay {
                relay.pump();
            }
            let drained = self.relay.as_ref().is_none_or(|relay| !relay.wants_to_read() && relay.to_output.is_empty());
            if self.exited && drained {
                return Ok(());
            }
            let [signal, exited, input, output, changed] = self.wait()?;
            if let Some(relay) = &mut self.relay {
                if changed {
                    relay.note_changes();
                }
                if input {
                    relay.read_input();
                }
                if output {
                    relay.write_output();
                }
            }
            if exited {
                self.exited = true;
                // One more look: reading flushes what the kernel still holds back for the master.
                if let Some(relay) = &mut self.relay {
                    (relay.readable, relay.rest, relay.input_open) = (true, REST, false);
                    relay.to_master.clear();
                }
            }
            if signal && self.take_signals() {
                return Ok(());
            }
        }
    }

    /// Sleeps until something happens: a signal, the end, input, room for output, a change of the master.
    fn wait(&self) -> SysResult<[bool; 5]> {
        let mut fds = [const { None }; 5];
        fds[0] = Some(PollFd::new(self.signals.as_fd(), PollFlags::POLLIN));
        fds[1] = (!self.exited).then(|| PollFd::new(self.child.pidfd.as_fd(), PollFlags::POLLIN));
        if let Some(relay) = &self.relay {
            let hungry = relay.input_open && relay.to_master.is_empty();
            fds[2] = hungry.then(|| PollFd::new(relay.input, PollFlags::POLLIN));
            fds[3] = (!relay.to_output.is_empty()).then(|| PollFd::new(relay.output, PollFlags::POLLOUT));
            fds[4] = Some(PollFd::new(relay.changes.0.as_fd(), PollFlags::POLLIN));
        }
        let mut watched: Vec<PollFd> = fds.iter().flatten().cloned().collect();
        let at_once = self.relay.as_ref().is_some_and(Relay::wants_to_read);
        match poll(&mut watched, if at_once { PollTimeout::ZERO } else { PollTimeout::NONE }) {
            Ok(_) => {}
            Err(Errno::EINTR) => return Ok([false; 5]),
            Err(errno) => return Err(errno),
        }
        let mut events = watched.iter().map(|fd| fd.revents().is_some_and(|events| !events.is_empty()));
        Ok(fds.map(|fd| fd.is_some() && events.next().unwrap_or(false)))
    }

    /// Passes signals on. `true` when one that ends programs came after the process had ended: then somebody is tired of
    /// waiting for the rest of its output to be taken.
    fn take_signals(&mut self) -> bool {
        while let Ok(Some(info)) = self.signals.read_signal() {
            let signal = info.ssi_signo as i32;
            match signal {
                libc::SIGCHLD => self.reap_orphans(),
                // SIGURG means nothing to a process that did not ask for it; SIGPIPE is about the attendant's own output.
                libc::SIGURG | libc::SIGPIPE => {}
                libc::SIGWINCH => {
                    if let Some(relay) = &self.relay {
                        relay.resize();
                    }
                }
                // Looked at anew: what is sent after the end must not count as sent to the process.
                _ if self.exited || has_ended(self.child.pidfd.as_fd()) => {
                    if [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM].contains(&signal) {
                        return true;
                    }
                }
                _ => {
                    if signal == libc::SIGCONT
                        && let Some(relay) = &self.relay
                    {
                        // Stopped and continued: the shell had the terminal in between.
                        relay.raw.iter().for_each(RawMode::again);
                        relay.resize();
                    }
                    // ESRCH: it has ended, which the next turn finds out.
                    let _ = self.child.signal(signal);
                }
            }
        }
        false
    }

    fn reap_orphans(&self) {
        if !self.orphans {
            return;
        }
        let look = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        while let Ok(status) = waitid(Id::All, look) {
            match status {
                WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, ..) if pid.as_raw() != self.child.pid => {
                    let _ = waitpid(pid, None);
                }
                // No more, or the main process, which is reaped last.
                _ => return,
            }
        }
    }
}

#[cfg(test)]
mod tests;
