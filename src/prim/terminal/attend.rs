//! Attending a process in the foreground: signals go to it, a terminal's input and output are relayed, its end is its
//! attendant's.
//!
//! The order: block all signals ([`crate::sys::process::block_signals`]) before the clone, so that none is lost or ends the
//! attendant instead; the child resets its mask; then [`attend`], in the same thread; then put the mask back. Signals are
//! blocked per thread: in a program with other threads, the ones sent to the process may be taken by those.

use super::{RawMode, end_of_input, plain_newlines};
use crate::error::{Context, Result};
use crate::sys::process::{self, Ended};
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
/// relayed and its size kept equal. With `orphans_of`, the child's process ID, other children that end are reaped; they
/// arrive if the caller is a subreaper ([`become_subreaper`]). All signals must be blocked, see the module.
///
/// # Errors
/// As poll(2), signalfd(2), waitid(2).
pub fn attend(pidfd: BorrowedFd, relay: Option<Relay>, orphans_of: Option<i32>) -> Result<Ended> {
    let during = || "wait for the container's process".to_owned();
    let signals =
        SignalFd::with_flags(&SigSet::all(), SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).during(during)?;
    Attendant { pidfd, signals, relay, orphans_of, exited: false }.run().during(during)?;
    process::wait(pidfd).during(during)
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

struct Attendant<'f> {
    pidfd: BorrowedFd<'f>,
    signals: SignalFd,
    relay: Option<Relay<'f>>,
    orphans_of: Option<i32>,
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
        fds[1] = (!self.exited).then(|| PollFd::new(self.pidfd, PollFlags::POLLIN));
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
                _ if self.exited => {
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
                    let _ = process::pidfd_send_signal(self.pidfd, signal);
                }
            }
        }
        false
    }

    fn reap_orphans(&self) {
        let Some(main) = self.orphans_of else { return };
        let look = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        while let Ok(status) = waitid(Id::All, look) {
            match status {
                WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, ..) if pid.as_raw() != main => {
                    let _ = waitpid(pid, None);
                }
                // No more, or the main process, which is reaped last.
                _ => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{ONE_AT_A_TIME, new_master, spawn};
    use super::super::{open_slave, tests};
    use super::*;
    use crate::sys::process::Child;
    use nix::pty::openpty;
    use nix::sys::pthread::{Pthread, pthread_kill, pthread_self};
    use nix::sys::signal::Signal;
    use nix::sys::termios::{LocalFlags, tcgetattr};
    use std::fs::File;
    use std::io::{BufRead, BufReader, Read, Write, pipe};
    use std::sync::PoisonError;
    use std::sync::mpsc::channel;
    use std::thread::{JoinHandle, spawn as thread};

    /// Attends a script on a terminal in a thread with signals blocked; gives the thread to send signals to and the script's process.
    fn attended(script: &'static str, input: OwnedFd, output: OwnedFd) -> ((Pthread, i32), JoinHandle<Ended>) {
        let (sender, receiver) = channel();
        let handle = thread(move || {
            process::block_signals();
            let master = new_master();
            let slave = open_slave(master.as_fd(), None).unwrap();
            let relay = Relay::new(master, input.as_fd(), output.as_fd()).unwrap();
            let child = spawn(script, Some(slave.as_fd()));
            drop(slave);
            sender.send((pthread_self(), child.pid)).unwrap();
            attend(child.pidfd.as_fd(), Some(relay), None).unwrap()
        });
        (receiver.recv().unwrap(), handle)
    }

    fn line(reader: &mut impl BufRead) -> String {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    #[test]
    fn all_output_arrives_and_the_status_is_the_childs() {
        let (mut reader, writer) = pipe().unwrap();
        let input = File::open("/dev/null").unwrap();
        let (_, handle) =
            attended("head -c 300000 /dev/zero | tr '\\0' x; echo; echo end; exit 7", input.into(), writer.into());
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(handle.join().unwrap(), Ended::Exited(7));
        assert_eq!(text.len(), 300_000 + "\nend\n".len());
        assert!(text.ends_with("x\nend\n"), "newlines are plain when the output is no terminal");
    }

    #[test]
    fn keys_reach_the_container_raw_and_the_callers_terminal_is_restored() {
        let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let outer = openpty(None, None).unwrap();
        tty::set_size(outer.slave.as_fd(), (33, 77)).unwrap();
        let echoes = || tcgetattr(&outer.slave).unwrap().local_flags.contains(LocalFlags::ECHO);
        let (input, output) = (outer.slave.try_clone().unwrap(), outer.slave.try_clone().unwrap());
        let script =
            "trap 'echo got int; exit 5' INT; stty -echo; stty size; read a; echo read $a; while :; do read b; done";
        let (attendant, handle) = attended(script, input, output);
        let mut keyboard = File::from(outer.master.try_clone().unwrap());
        let mut screen = BufReader::new(File::from(outer.master.try_clone().unwrap()));
        assert_eq!(line(&mut screen), "33 77");
        assert!(!echoes(), "raw while the container runs");
        keyboard.write_all(b"hello\r").unwrap();
        assert_eq!(line(&mut screen), "read hello");
        tty::set_size(outer.slave.as_fd(), (44, 88)).unwrap();
        pthread_kill(attendant.0, Signal::SIGWINCH).unwrap();
        // Ctrl-C is a character here, and becomes a signal in the container's terminal.
        keyboard.write_all(&[3]).unwrap();
        assert_eq!(line(&mut screen), "got int");
        assert_eq!(handle.join().unwrap(), Ended::Exited(5));
        assert!(echoes(), "restored");
    }

    #[test]
    fn a_new_size_reaches_the_container() {
        let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let outer = openpty(None, None).unwrap();
        tty::set_size(outer.slave.as_fd(), (10, 20)).unwrap();
        let (input, output) = (outer.slave.try_clone().unwrap(), outer.slave.try_clone().unwrap());
        let script = "stty -echo; trap 'stty size; exit 0' WINCH; echo ready; while :; do read a; done";
        let (attendant, handle) = attended(script, input, output);
        let mut screen = BufReader::new(File::from(outer.master.try_clone().unwrap()));
        assert_eq!(line(&mut screen), "ready");
        tty::set_size(outer.slave.as_fd(), (11, 22)).unwrap();
        pthread_kill(attendant.0, Signal::SIGWINCH).unwrap();
        assert_eq!(line(&mut screen), "11 22");
        assert_eq!(handle.join().unwrap(), Ended::Exited(0));
    }

    #[test]
    fn the_end_of_piped_input_is_the_end_of_typed_input() {
        let (input, mut typed) = pipe().unwrap();
        let (reader, writer) = pipe().unwrap();
        typed.write_all(b"one\ntwo\n").unwrap();
        drop(typed);
        let (_, handle) = attended("stty -echo; echo ready; cat; echo done", input.into(), writer.into());
        let text = std::io::read_to_string(reader).unwrap();
        assert_eq!(handle.join().unwrap(), Ended::Exited(0));
        assert!(text.contains("one\ntwo\n") && text.ends_with("done\n"), "{text:?}");
    }

    #[test]
    fn a_terminal_that_is_closed_and_opened_again_is_still_relayed() {
        let (reader, writer) = pipe().unwrap();
        let input = File::open("/dev/null").unwrap();
        let script =
            "t=$(tty); echo one; exec </dev/null >/dev/null 2>&1; sleep 0.2; echo two > $t; sleep 0.2; echo three > $t";
        let (_, handle) = attended(script, input.into(), writer.into());
        assert_eq!(std::io::read_to_string(reader).unwrap(), "one\ntwo\nthree\n");
        assert_eq!(handle.join().unwrap(), Ended::Exited(0));
    }

    #[test]
    fn an_output_that_nobody_takes_does_not_block_the_container() {
        let (reader, writer) = pipe().unwrap();
        drop(reader);
        let input = File::open("/dev/null").unwrap();
        let (_, handle) = attended("head -c 1000000 /dev/zero; exit 3", input.into(), writer.into());
        assert_eq!(handle.join().unwrap(), Ended::Exited(3));
    }

    #[test]
    fn others_on_the_terminal_do_not_hold_the_attendant() {
        let (reader, writer) = pipe().unwrap();
        let input = File::open("/dev/null").unwrap();
        let drain = thread(move || std::io::copy(&mut BufReader::new(reader), &mut std::io::sink()));
        // The background job ignores the hang-up and floods the terminal until it is gone.
        let (_, handle) = attended("trap '' HUP; yes & exit 4", input.into(), writer.into());
        assert_eq!(handle.join().unwrap(), Ended::Exited(4));
        drain.join().unwrap().unwrap();
    }

    #[test]
    fn a_tired_user_can_leave_when_the_rest_is_not_taken() {
        // A pipe that is full and never read, but open.
        let (_reader, writer) = pipe().unwrap();
        let (input, stays_open) = pipe().unwrap();
        let (attendant, handle) = attended("head -c 200000 /dev/zero; exec sleep 1000", input.into(), writer.into());
        let pid = attendant.1;
        let child = process::pidfd_open(pid).unwrap();
        pthread_kill(attendant.0, Signal::SIGTERM).unwrap();
        poll(&mut [PollFd::new(child.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE).unwrap();
        // Again and again: one that comes in the instant of the end still counts as sent to the process.
        while !handle.is_finished() {
            let _ = pthread_kill(attendant.0, Signal::SIGTERM);
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        assert_eq!(handle.join().unwrap(), Ended::Signaled(15));
        drop(stays_open);
    }

    fn attended_plainly(script: &'static str) -> (Pthread, JoinHandle<Ended>, BufReader<std::io::PipeReader>) {
        let (reader, writer) = pipe().unwrap();
        let (sender, receiver) = channel();
        let handle = thread(move || {
            process::block_signals();
            let path = format!("/proc/{}/fd/{}", std::process::id(), std::os::fd::AsRawFd::as_raw_fd(&writer));
            let script = format!("exec > {path}; {script}");
            let Child { pidfd, .. } = tests::spawn(&script, None);
            sender.send(pthread_self()).unwrap();
            let ended = attend(pidfd.as_fd(), None, None).unwrap();
            drop(writer);
            ended
        });
        (receiver.recv().unwrap(), handle, BufReader::new(reader))
    }

    #[test]
    fn signals_are_forwarded_but_for_those_of_the_attendant() {
        let script = "for s in HUP USR1 TERM URG WINCH CHLD PIPE; do trap \"echo $s\" $s; done; \
             trap 'echo INT; kill $!; exit 9' INT; echo ready; while :; do sleep 1000 & wait $!; kill $!; done";
        let (attendant, handle, mut reader) = attended_plainly(script);
        assert_eq!(line(&mut reader), "ready");
        for signal in [Signal::SIGURG, Signal::SIGWINCH, Signal::SIGPIPE, Signal::SIGHUP] {
            pthread_kill(attendant, signal).unwrap();
        }
        // The shell's own children raise SIGCHLD in it.
        let mut next = || std::iter::repeat_with(|| line(&mut reader)).find(|line| line != "CHLD").unwrap();
        assert_eq!(next(), "HUP");
        for (signal, name) in [(Signal::SIGUSR1, "USR1"), (Signal::SIGTERM, "TERM"), (Signal::SIGINT, "INT")] {
            pthread_kill(attendant, signal).unwrap();
            assert_eq!(next(), name);
        }
        assert_eq!(handle.join().unwrap(), Ended::Exited(9));
    }

    #[test]
    fn a_death_by_signal_is_told() {
        let (_, handle, _) = attended_plainly("kill -KILL $$");
        assert_eq!(handle.join().unwrap().status(), 137);
    }

    #[test]
    fn orphans_are_reaped_but_the_process_last() {
        const HELPER: &str = "BRIG_TEST_REAPER";
        if std::env::var_os(HELPER).is_some() {
            // A process of its own, since it reaps whatever child it has; one of a single thread, which gets all signals.
            if let Some(helper) = process::clone3(0, None).unwrap() {
                assert_eq!(process::wait(helper.pidfd.as_fd()), Ok(Ended::Exited(0)));
                return;
            }
            process::block_signals();
            become_subreaper().unwrap();
            let child = spawn("(sleep 0.1 &); (sh -c 'exit 3' &); (sleep 0.2 &); sleep 0.4; exit 6", None);
            let right = attend(child.pidfd.as_fd(), None, Some(child.pid)).unwrap() == Ended::Exited(6);
            // ECHILD: neither running ones nor zombies are left.
            let none_left = waitpid(None, Some(WaitPidFlag::WNOHANG)) == Err(Errno::ECHILD);
            process::exit_now(i32::from(!right) + 2 * i32::from(!none_left));
        }
        let name = "prim::terminal::attend::tests::orphans_are_reaped_but_the_process_last";
        let status = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name, "--test-threads=1"])
            .env(HELPER, "1")
            .stdout(std::process::Stdio::null())
            .status();
        assert!(status.unwrap().success());
    }
}
