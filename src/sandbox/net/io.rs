//! Sockets that are waited for together with the order to stop, and the copying between two of them.

use super::body::Body;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, Shutdown, SockFlag, SockType, SockaddrLike, SockaddrStorage, UnixAddr, connect,
    getsockopt, recv, send, setsockopt, shutdown, socket, sockopt,
};
use std::io::{Error, ErrorKind, Result};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How much is read at once.
const PIECE: usize = 16 << 10;

/// One end of a pair of sockets: when the other end is closed, every wait ends.
pub(super) struct Stop(pub(super) OwnedFd);

impl Stop {
    /// Waits until one of the descriptors is ready, and returns what each is ready for.
    ///
    /// # Errors
    /// `TimedOut` at the deadline, `ConnectionAborted` at the order to stop.
    pub(super) fn wait(&self, fds: &[(BorrowedFd, PollFlags)], deadline: Instant) -> Result<Vec<PollFlags>> {
        let mut all: Vec<_> = fds.iter().map(|&(fd, events)| PollFd::new(fd, events)).collect();
        all.push(PollFd::new(self.0.as_fd(), PollFlags::POLLIN));
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            // Rounded up, lest the last millisecond be spent going round.
            let timeout = PollTimeout::try_from(left.as_nanos().div_ceil(1_000_000)).unwrap_or(PollTimeout::MAX);
            match poll(&mut all, timeout) {
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
                Ok(0) if Instant::now() >= deadline => return Err(ErrorKind::TimedOut.into()),
                Ok(0) => {}
                Ok(_) if all.last().and_then(PollFd::any) == Some(true) => {
                    return Err(ErrorKind::ConnectionAborted.into());
                }
                Ok(_) => return Ok(all.iter().map(|fd| fd.revents().unwrap_or(PollFlags::POLLERR)).collect()),
            }
        }
    }
}

/// A connected stream socket.
pub(super) struct Wire {
    fd: OwnedFd,
    stop: Arc<Stop>,
    idle: Duration,
}

impl Wire {
    /// A connected socket; each wait for it ends after `idle`.
    pub(super) fn new(fd: OwnedFd, stop: &Arc<Stop>, idle: Duration) -> Wire {
        // Small messages must not wait for more. A unix socket has no such option, and no such wait.
        let _ = setsockopt(&fd, sockopt::TcpNoDelay, &true);
        Wire { fd, stop: stop.clone(), idle }
    }

    /// Connects to an address.
    pub(super) fn tcp(address: SocketAddr, stop: &Arc<Stop>, idle: Duration, deadline: Instant) -> Result<Wire> {
        let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        Wire::connect(family, &SockaddrStorage::from(address), stop, idle, deadline)
    }

    /// Connects to a unix socket.
    pub(super) fn unix(path: &Path, stop: &Arc<Stop>, idle: Duration, deadline: Instant) -> Result<Wire> {
        Wire::connect(AddressFamily::Unix, &UnixAddr::new(path)?, stop, idle, deadline)
    }

    fn connect(
        family: AddressFamily,
        address: &dyn SockaddrLike,
        stop: &Arc<Stop>,
        idle: Duration,
        deadline: Instant,
    ) -> Result<Wire> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let fd = socket(family, SockType::Stream, flags, None)?;
        match connect(fd.as_raw_fd(), address) {
            Ok(()) => {}
            // connect(2): interrupted or not, it goes on by itself.
            Err(Errno::EINPROGRESS | Errno::EINTR) => {
                stop.wait(&[(fd.as_fd(), PollFlags::POLLOUT)], deadline)?;
                match getsockopt(&fd, sockopt::SocketError)? {
                    0 => {}
                    raw => return Err(Error::from_raw_os_error(raw)),
                }
            }
            Err(errno) => return Err(errno.into()),
        }
        Ok(Wire::new(fd, stop, idle))
    }

    fn ready(&self, events: PollFlags) -> Result<()> {
        self.stop.wait(&[(self.fd.as_fd(), events)], Instant::now() + self.idle).map(drop)
    }

    /// What is there, without waiting; `None` if there is nothing yet, 0 at the end.
    fn receive(&self, buffer: &mut [u8]) -> Result<Option<usize>> {
        match recv(self.fd.as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT) {
            Ok(n) => Ok(Some(n)),
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    /// How much could be sent without waiting.
    fn send(&self, bytes: &[u8]) -> Result<usize> {
        match send(self.fd.as_raw_fd(), bytes, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL) {
            Ok(n) => Ok(n),
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(0),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Waits for more bytes, puts them behind those in the buffer and says how many they are: 0 at the end.
    pub(super) fn read_more(&self, buffer: &mut Vec<u8>) -> Result<usize> {
        let mut piece = [0; 4096];
        loop {
            self.ready(PollFlags::POLLIN)?;
            if let Some(n) = self.receive(&mut piece)? {
                buffer.extend_from_slice(&piece[..n]);
                return Ok(n);
            }
        }
    }

    /// Sends all of it.
    pub(super) fn write_all(&self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            self.ready(PollFlags::POLLOUT)?;
            bytes = &bytes[self.send(bytes)?..];
        }
        Ok(())
    }

    /// Sends a last answer, and reads on for a moment: closing a socket with unread input would reset the connection,
    /// and the answer could be lost.
    pub(super) fn farewell(&self, answer: &[u8]) {
        if self.write_all(answer).is_err() || shutdown(self.fd.as_raw_fd(), Shutdown::Write).is_err() {
            return;
        }
        let deadline = Instant::now() + Duration::from_secs(1);
        let mut piece = [0; PIECE];
        while self.stop.wait(&[(self.fd.as_fd(), PollFlags::POLLIN)], deadline).is_ok() {
            if matches!(self.receive(&mut piece), Ok(Some(0)) | Err(_)) || Instant::now() >= deadline {
                break;
            }
        }
    }
}

/// Bytes that were passed on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// From the client to the server.
    pub(super) sent: u64,
    /// From the server to the client.
    pub(super) received: u64,
}

/// One direction.
struct Flow {
    data: Vec<u8>,
    at: usize,
    /// Nothing more will be read.
    over: bool,
    /// And all that was read is passed on, or can't be.
    finished: bool,
}

impl Flow {
    fn new(data: Vec<u8>) -> Flow {
        Flow { data, at: 0, over: false, finished: false }
    }

    fn pending(&self) -> bool {
        self.at < self.data.len()
    }

    /// Reads once; of what came, the body says how much counts.
    fn fill(&mut self, from: &Wire, body: &mut Body) -> Result<()> {
        self.data.resize(PIECE, 0);
        let got = from.receive(&mut self.data);
        self.at = 0;
        self.data.truncate(got.as_ref().map_or(0, |n| n.unwrap_or(0)));
        match got? {
            None => {}
            Some(0) => self.over = true,
            Some(n) => {
                self.data.truncate(body.take(&self.data[..n])?);
                self.over = body.done();
            }
        }
        Ok(())
    }

    fn flush(&mut self, to: &Wire, count: &mut u64) -> Result<()> {
        let n = to.send(&self.data[self.at..])?;
        self.at += n;
        *count += n as u64;
        Ok(())
    }
}

/// What to wait for at an endpoint with a flow in from it and a flow out to it. Nothing at all where neither can go on:
/// a hang-up, which poll(2) always tells, would else wake it again and again.
fn wanted(inward: &Flow, outward: &Flow) -> Option<PollFlags> {
    let mut events = PollFlags::empty();
    events.set(PollFlags::POLLIN, !inward.over && !inward.pending());
    events.set(PollFlags::POLLOUT, outward.pending());
    (!events.is_empty() || inward.over && !outward.finished).then_some(events)
}

/// Copies both ways until both sides have ended, one has gone, nothing has moved for as long as the client may be idle,
/// or the order to stop comes. The end of one side is passed on, and the other goes on.
///
/// `head` goes to the server first, `back` to the client; `early` is what the client has sent already, and `body` says
/// where its part ends.
pub(super) fn relay(client: &Wire, server: &Wire, head: Vec<u8>, early: &[u8], mut body: Body, back: Vec<u8>) -> Tally {
    let (mut up, mut down, mut tally) = (Flow::new(head), Flow::new(back), Tally::default());
    match body.take(early) {
        Ok(n) => up.data.extend_from_slice(&early[..n]),
        Err(_) => return tally,
    }
    up.over = body.done();
    loop {
        if up.over && !up.pending() && !up.finished {
            up.finished = true;
            // A body that is complete leaves the connection open for the answer; some servers take an end for a break.
            if !body.done() {
                let _ = shutdown(server.fd.as_raw_fd(), Shutdown::Write);
            }
        }
        if down.over && !down.pending() && !down.finished {
            down.finished = true;
            let _ = shutdown(client.fd.as_raw_fd(), Shutdown::Write);
        }
        if down.finished && (up.finished || !matches!(body, Body::Open)) {
            return tally;
        }
        let ends = [wanted(&up, &down), wanted(&down, &up)];
        let fds: Vec<_> = [client, server].iter().zip(ends).filter_map(|(w, e)| Some((w.fd.as_fd(), e?))).collect();
        let Ok(ready) = client.stop.wait(&fds, Instant::now() + client.idle) else { return tally };
        let mut ready = ready.into_iter();
        for (from_client, events) in [true, false].into_iter().zip(ends) {
            let Some(events) = events else { continue };
            if ready.next().is_none_or(|flags| flags.is_empty()) {
                continue;
            }
            // A hang-up of a side that is only to be written to: nobody is there to read.
            if events.is_empty() {
                return tally;
            }
            if events.contains(PollFlags::POLLIN) {
                let filled = if from_client { up.fill(client, &mut body) } else { down.fill(server, &mut Body::Open) };
                if filled.is_err() {
                    return tally;
                }
            }
            if !events.contains(PollFlags::POLLOUT) {
                continue;
            }
            if from_client {
                if down.flush(client, &mut tally.received).is_err() {
                    return tally;
                }
            } else if up.flush(server, &mut tally.sent).is_err() {
                // A server may answer and close before it has read everything; the answer is still passed on.
                (up.over, up.finished) = (true, true);
                up.data.clear();
                up.at = 0;
            }
        }
    }
}
