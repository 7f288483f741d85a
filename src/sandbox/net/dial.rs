//! From what was asked for to a connection: the decision, the look-up, the checked addresses.

use super::domain::Host;
use super::io::{Stop, Tally, Wire};
use super::proxy::Options;
use super::rules::{Decision, Rules, Shared};
use crate::sandbox::report::Connection;
use nix::poll::PollFlags;
use std::io::{self, Error, ErrorKind};
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

/// What has become of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// It was denied; nothing else follows.
    Denied,
    /// It was allowed and begins.
    Begun,
    /// It has ended, or could not be made although it was allowed: the reason then says why.
    Ended,
}

/// A connection that begins, ends or is denied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The same for the beginning and the end of one connection.
    pub id: u64,
    /// What has become of it.
    pub stage: Stage,
    /// When it was asked for.
    pub at: Instant,
    /// `http`, `https` (a CONNECT tunnel), `socks5` or `mitm`.
    pub via: &'static str,
    /// Domain or address that was asked for.
    pub host: String,
    /// Port.
    pub port: u16,
    /// The rule that decided, or the reason.
    pub reason: String,
    /// Bytes sent by the program.
    pub sent: u64,
    /// Bytes received by it.
    pub received: u64,
}

impl Event {
    /// The report's entry; its time is counted from `start`.
    pub fn connection(&self, start: Instant) -> Connection {
        Connection {
            at_us: self.at.saturating_duration_since(start).as_micros().try_into().unwrap_or(u64::MAX),
            via: self.via,
            host: self.host.clone(),
            port: self.port,
            allowed: self.stage != Stage::Denied,
            reason: self.reason.clone(),
            sent: self.sent,
            received: self.received,
        }
    }
}

/// Finds the addresses of a name, with the port put in.
pub type Resolver = fn(&str, u16) -> io::Result<Vec<SocketAddr>>;

/// The host's resolver (getaddrinfo(3)).
///
/// # Errors
/// If the name has no address, or nobody could be asked.
pub fn resolve(name: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    Ok((name, port).to_socket_addrs()?.collect())
}

/// What every connection needs.
pub(super) struct Context {
    pub(super) rules: Shared,
    pub(super) sink: Box<dyn Fn(Event) + Send + Sync>,
    pub(super) options: Options,
    pub(super) stop: Arc<Stop>,
    pub(super) next: AtomicU64,
}

/// Why there is no connection.
pub(super) enum Failure {
    Denied(Decision),
    /// It was allowed, and can't be made.
    Unreached(Error),
}

/// A connection to a server, or to the mitm proxy for one.
pub(super) struct Dialed<'a> {
    pub(super) wire: Wire,
    /// What came behind the mitm proxy's answer to CONNECT.
    pub(super) back: Vec<u8>,
    log: Log<'a>,
}

impl Dialed<'_> {
    /// Whether it leads to the mitm proxy.
    pub(super) fn mitm(&self) -> bool {
        self.log.event.via == "mitm"
    }

    /// The host as it was understood.
    pub(super) fn host(&self) -> &str {
        &self.log.event.host
    }

    /// Tells how it ended.
    pub(super) fn ended(self, tally: Tally) {
        let mut log = self.log;
        (log.event.sent, log.event.received) = (tally.sent, tally.received);
        log.tell(Stage::Ended);
    }
}

/// The event of one connection, as far as it is known.
struct Log<'a> {
    context: &'a Context,
    event: Event,
}

impl Log<'_> {
    fn tell(&mut self, stage: Stage) {
        self.event.stage = stage;
        (self.context.sink)(self.event.clone());
    }

    fn denied(mut self, decision: Decision) -> Failure {
        self.event.reason.clone_from(&decision.reason);
        self.tell(Stage::Denied);
        Failure::Denied(decision)
    }

    fn unreached(mut self, error: Error) -> Failure {
        self.event.reason = format!("{}; not reached: {error}", self.event.reason);
        self.tell(Stage::Ended);
        Failure::Unreached(error)
    }
}

impl Context {
    fn log(&self, via: &'static str, host: String, port: u16, reason: String) -> Log<'_> {
        let (id, at) = (self.next.fetch_add(1, Ordering::Relaxed), Instant::now());
        Log {
            context: self,
            event: Event { id, stage: Stage::Begun, at, via, host, port, reason, sent: 0, received: 0 },
        }
    }

    /// Decides, and connects to what was asked for. To a mitm proxy a tunnel is made with CONNECT, unless the request
    /// is `plain`: that goes to it as it is.
    pub(super) fn dial(&self, via: &'static str, asked: &str, port: u16, plain: bool) -> Result<Dialed<'_>, Failure> {
        let mut log = self.log(via, asked.escape_debug().take(255).collect(), port, String::new());
        let host: Host = match asked.parse() {
            Ok(host) if port > 0 => host,
            Ok(_) => return Err(log.denied(Decision::denied("0 is no port", "give a port from 1 to 65535"))),
            Err(why) => {
                let why: String = why.chars().take(400).collect();
                return Err(log.denied(Decision::denied(why, "ask for a domain name or an address")));
            }
        };
        log.event.host = host.to_string();
        let rules = self.rules.get();
        let decision = rules.decide(&host, port);
        if !decision.allowed {
            return Err(log.denied(decision));
        }
        log.event.reason = decision.reason;
        let deadline = Instant::now() + self.options.connect_timeout;
        if let Some(socket) = rules.mitm_for(&host, port) {
            log.event.via = "mitm";
            log.tell(Stage::Begun);
            return match self.mitm(socket, &host, port, plain, deadline) {
                Ok((wire, back)) => Ok(Dialed { wire, back, log }),
                Err(e) => Err(log.unreached(e)),
            };
        }
        let addresses = match self.addresses(&rules, &host, port, deadline) {
            Ok(Ok(addresses)) => addresses,
            Ok(Err(decision)) => return Err(log.denied(decision)),
            Err(e) => {
                log.tell(Stage::Begun);
                return Err(log.unreached(e));
            }
        };
        log.tell(Stage::Begun);
        match self.first(&addresses, deadline) {
            Ok(wire) => Ok(Dialed { wire, back: Vec::new(), log }),
            Err(e) => Err(log.unreached(e)),
        }
    }

    /// Connects to a proxy of the caller's own on the host's loopback interface; no rules apply.
    pub(super) fn dial_own(&self, via: &'static str, port: u16) -> Result<Dialed<'_>, Failure> {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let mut log = self.log(via, address.ip().to_string(), port, "the caller's own proxy".into());
        log.tell(Stage::Begun);
        match self.first(&[address], Instant::now() + self.options.connect_timeout) {
            Ok(wire) => Ok(Dialed { wire, back: Vec::new(), log }),
            Err(e) => Err(log.unreached(e)),
        }
    }

    /// The addresses that may be connected to, or why none may.
    fn addresses(
        &self,
        rules: &Rules,
        host: &Host,
        port: u16,
        deadline: Instant,
    ) -> io::Result<Result<Vec<SocketAddr>, Decision>> {
        let name = match host {
            Host::Address(address) => return Ok(Ok(vec![SocketAddr::new(*address, port)])),
            Host::Name(name) => name,
        };
        let (mut fit, mut denial) = (Vec::new(), None);
        for found in self.look_up(name, port, deadline)? {
            let decision = rules.decide_resolved(name, found.ip(), port);
            if decision.allowed {
                // The port that was decided on, whatever a resolver puts in.
                fit.push(SocketAddr::new(found.ip().to_canonical(), port));
            } else {
                denial.get_or_insert(decision);
            }
        }
        match denial {
            Some(decision) if fit.is_empty() => Ok(Err(decision)),
            None if fit.is_empty() => Err(Error::new(ErrorKind::NotFound, format!("{name} has no address"))),
            _ => Ok(Ok(fit)),
        }
    }

    /// Asks the resolver in a thread of its own, since nothing can interrupt it: where it takes too long, it is left to
    /// end by itself (resolv.conf(5), `timeout`).
    fn look_up(&self, name: &str, port: u16, deadline: Instant) -> io::Result<Vec<SocketAddr>> {
        let (here, there) = UnixStream::pair()?;
        let (answer, answered) = mpsc::channel();
        let (resolver, owned) = (self.options.resolver, name.to_owned());
        let thread = std::thread::Builder::new().name("brig-resolve".into()).spawn(move || {
            // Dropped last, which ends the wait.
            let _there = there;
            let _ = answer.send(resolver(&owned, port));
        })?;
        self.stop.wait(&[(here.as_fd(), PollFlags::POLLIN)], deadline).map_err(|e| match e.kind() {
            ErrorKind::TimedOut => Error::new(e.kind(), format!("{name} was not resolved in time")),
            _ => e,
        })?;
        let _ = thread.join();
        let answer = answered.recv().map_err(Error::other)?;
        answer.map_err(|e| Error::new(ErrorKind::NotFound, format!("{name} can't be resolved: {e}")))
    }

    /// Connects to the first address that answers; each gets its share of the time that is left.
    fn first(&self, addresses: &[SocketAddr], deadline: Instant) -> io::Result<Wire> {
        let mut last = Error::from(ErrorKind::NotFound);
        for (i, &address) in addresses.iter().enumerate() {
            let left = deadline.saturating_duration_since(Instant::now());
            let share: Duration = left / u32::try_from(addresses.len() - i).unwrap_or(u32::MAX);
            match Wire::tcp(address, &self.stop, self.options.idle_timeout, Instant::now() + share) {
                Ok(wire) => return Ok(wire),
                Err(e) if e.kind() == ErrorKind::ConnectionAborted => return Err(e),
                Err(e) => last = e,
            }
        }
        Err(last)
    }

    /// Connects to the mitm proxy, and through it. It resolves names itself.
    fn mitm(
        &self,
        socket: &Path,
        host: &Host,
        port: u16,
        plain: bool,
        deadline: Instant,
    ) -> io::Result<(Wire, Vec<u8>)> {
        let wire = Wire::unix(socket, &self.stop, self.options.idle_timeout, deadline)?;
        if plain {
            return Ok((wire, Vec::new()));
        }
        wire.write_all(format!("CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n").as_bytes())?;
        let back = super::http::connect_answer(&wire)?;
        Ok((wire, back))
    }
}
