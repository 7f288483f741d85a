//! A connection to systemd: one socket, no threads, and no wait without an end.

use super::wire::{self, Kind, Message, Method, Value};
use crate::error::{Context, Error, Kind as ErrorKind, Result};
use crate::sys::socket::send;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, setsockopt, socket, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

/// How long systemd may take to start a scope; as with runc.
pub const START: Duration = Duration::from_secs(30);
/// How long it may take to stop one, in which nothing runs any more.
pub const STOP: Duration = Duration::from_secs(10);

const SERVICE: &str = "org.freedesktop.systemd1";
const OBJECT: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";

/// An address, and whether systemd itself is at the other end: then nobody has to be greeted or asked for signals.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    address: Address,
    direct: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Address {
    Path(String),
    Abstract(String),
}

/// Why a call did not do what it should.
#[derive(Debug)]
pub enum Refusal {
    /// systemd said no: the error's name, and its words.
    Said(String, String),
    /// There was no answer.
    Lost(Error),
}

impl Refusal {
    /// As an error: what was being done, and what systemd said.
    pub fn during(self, what: impl Into<String>) -> Error {
        match self {
            Refusal::Said(name, words) => {
                let short = name.rsplit('.').next().unwrap_or_default().to_owned();
                Error::new(ErrorKind::Other, format!("{}: systemd: {words} ({short})", what.into()))
            }
            Refusal::Lost(error) => error.context(what),
        }
    }

    /// Whether there was no answer.
    pub fn is_lost(&self) -> bool {
        matches!(self, Refusal::Lost(_))
    }

    /// Whether systemd said this error of its own.
    pub fn is(&self, error: &str) -> bool {
        matches!(self, Refusal::Said(name, _) if name.strip_prefix(SERVICE) == Some(error))
    }
}

/// A connection.
#[derive(Debug)]
pub struct Bus {
    socket: OwnedFd,
    place: String,
    out: Vec<u8>,
    input: Vec<u8>,
    serial: u32,
    direct: bool,
    /// The calls below this one are the connection's own.
    first_call: u32,
    authenticated: bool,
    removed: Vec<(String, String)>,
    deadline: Instant,
    limit: Duration,
}

impl Bus {
    /// Connects to the system's instance of systemd, or the user's. Nothing is waited for yet.
    ///
    /// # Errors
    /// When nobody listens; the error names every socket that was tried.
    pub fn open(user: bool, limit: Duration) -> Result<Bus> {
        let env = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let places = if user { user_places(env)? } else { system_places(env)? };
        let mut failed = Vec::new();
        for Place { address, direct } in places {
            let (name, kind) = match &address {
                Address::Path(path) => (path.clone(), UnixAddr::new(path.as_str())),
                Address::Abstract(name) => (format!("@{name}"), UnixAddr::new_abstract(name.as_bytes())),
            };
            match kind.and_then(|address| dial(&address, limit)) {
                Ok(socket) => return Ok(Bus::new(socket, name, direct, limit)),
                Err(errno) => failed.push((name, errno)),
            }
        }
        let tried: Vec<String> = failed.iter().map(|(name, e)| format!("{name}: {}", describe(*e))).collect();
        let whose = if user { "the user's systemd" } else { "systemd" };
        Err(Error::new(ErrorKind::Other, format!("connect to {whose}: {}", tried.join("; "))).hint(REMEDY))
    }

    fn new(socket: OwnedFd, place: String, direct: bool, limit: Duration) -> Bus {
        let mut bus = Bus {
            socket,
            place,
            // The kernel vouches for who this is, so no identity is sent: in a user namespace this process does not know
            // the one by which the other end knows it (D-Bus Specification, "Authentication Protocol", EXTERNAL).
            out: b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n".to_vec(),
            input: Vec::new(),
            serial: 0,
            direct,
            first_call: 0,
            authenticated: false,
            removed: Vec::new(),
            deadline: Instant::now() + limit,
            limit,
        };
        if !direct {
            let (destination, path) = ("org.freedesktop.DBus", "/org/freedesktop/DBus");
            let method = |member| Method { destination, path, interface: destination, member };
            bus.queue(&method("Hello"), &[]);
            let rule = format!("type='signal',sender='{SERVICE}',interface='{MANAGER}',member='JobRemoved'");
            bus.queue(&method("AddMatch"), &[Value::Str(rule)]);
        }
        bus.first_call = bus.serial + 1;
        bus
    }

    fn queue(&mut self, method: &Method, args: &[Value]) -> u32 {
        self.serial += 1;
        self.out.extend(wire::call(self.serial, method, args));
        self.serial
    }

    /// Calls a method of systemd's manager, and returns the words that it answers.
    ///
    /// # Errors
    /// What systemd refuses, and when it does not answer in time.
    pub fn call(&mut self, member: &str, args: &[Value]) -> Result<Vec<String>, Refusal> {
        let method = Method { destination: SERVICE, path: OBJECT, interface: MANAGER, member };
        self.ask(&method, args, member)
    }

    /// A property of systemd's manager, a string.
    ///
    /// # Errors
    /// As [`Bus::call`].
    pub fn property(&mut self, name: &str) -> Result<String, Refusal> {
        let interface = "org.freedesktop.DBus.Properties";
        let method = Method { destination: SERVICE, path: OBJECT, interface, member: "Get" };
        let words = self.ask(&method, &[Value::str(MANAGER), Value::str(name)], name)?;
        words.into_iter().next().ok_or_else(|| Refusal::Lost(self.garbled()))
    }

    fn ask(&mut self, method: &Method, args: &[Value], what: &str) -> Result<Vec<String>, Refusal> {
        self.deadline = Instant::now() + self.limit;
        if self.direct {
            // systemd's own end would not look at what comes in one piece with BEGIN before something follows.
            self.get_in().map_err(Refusal::Lost)?;
        }
        let serial = self.queue(method, args);
        let bytes = std::mem::take(&mut self.out);
        let sent = send_all(&self.socket, &bytes).during(|| format!("write to {}", self.place));
        sent.map_err(Refusal::Lost)?;
        loop {
            let message = self.next(what).map_err(Refusal::Lost)?;
            let words = || message.words();
            match &message.kind {
                Kind::Return(to) if *to == serial => return words().map_err(|_| Refusal::Lost(self.garbled())),
                Kind::Error(to, name) if *to == serial || *to < self.first_call => {
                    let words = words().unwrap_or_default();
                    return Err(Refusal::Said(name.clone(), words.into_iter().next().unwrap_or_default()));
                }
                _ => self.note(&message),
            }
        }
    }

    /// Waits until a job has ended, and returns its result: `done`, or another word of systemd's.
    ///
    /// # Errors
    /// When it does not end in time.
    pub fn wait_for_job(&mut self, job: &str, what: &str) -> Result<String> {
        loop {
            if let Some(at) = self.removed.iter().position(|(path, _)| path == job) {
                return Ok(self.removed.swap_remove(at).1);
            }
            let message = self.next(what)?;
            self.note(&message);
        }
    }

    /// Remembers the end of a job, which may be told before the answer to the call that asked for it.
    fn note(&mut self, message: &Message) {
        if let Kind::Signal(interface, member) = &message.kind
            && interface == MANAGER
            && member == "JobRemoved"
            && let Ok(words) = message.words()
            && let [_, job, _, result] = words.as_slice()
        {
            self.removed.push((job.clone(), result.clone()));
        }
    }

    fn next(&mut self, what: &str) -> Result<Message> {
        loop {
            if !self.authenticated {
                self.authenticate()?;
            }
            if self.authenticated
                && let Some(message) = Message::take(&mut self.input).map_err(|_| self.garbled())?
            {
                return Ok(message);
            }
            self.read(what)?;
        }
    }

    fn get_in(&mut self) -> Result<()> {
        if !self.authenticated {
            let bytes = std::mem::take(&mut self.out);
            send_all(&self.socket, &bytes).during(|| format!("write to {}", self.place))?;
        }
        while !self.authenticated {
            self.read("to let brig in")?;
            self.authenticate()?;
        }
        Ok(())
    }

    fn authenticate(&mut self) -> Result<()> {
        while let Some(end) = self.input.windows(2).position(|two| two == b"\r\n") {
            let line = String::from_utf8_lossy(&self.input[..end]).into_owned();
            self.input.drain(..end + 2);
            match line.split(' ').next() {
                Some("DATA") => {}
                Some("OK") => {
                    self.authenticated = true;
                    return Ok(());
                }
                Some("REJECTED") => {
                    let what = format!("{} does not let this user in", self.place);
                    return Err(Error::os(what, Errno::EACCES).hint(REMEDY));
                }
                _ => return Err(self.garbled()),
            }
        }
        // No line of this protocol is long.
        if self.input.len() > 4096 { Err(self.garbled()) } else { Ok(()) }
    }

    fn read(&mut self, what: &str) -> Result<()> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        let late = || {
            let what = format!("systemd did not answer within {} seconds: {what}", self.limit.as_secs());
            Error::new(ErrorKind::Other, format!("{what} (at {})", self.place)).hint(REMEDY)
        };
        if left.is_zero() {
            return Err(late());
        }
        let timeout = PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(0) | Err(Errno::EINTR) => return Ok(()),
            other => drop(other.during(|| "poll".into())?),
        }
        let mut buffer = [0; 4096];
        match nix::unistd::read(&self.socket, &mut buffer) {
            Ok(0) | Err(Errno::ECONNRESET) => {
                let what = format!("{} closed the connection before the answer to {what}", self.place);
                Err(Error::new(ErrorKind::Os(Errno::ECONNRESET), what).hint(REMEDY))
            }
            Ok(n) => {
                self.input.extend_from_slice(&buffer[..n]);
                Ok(())
            }
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(()),
            Err(errno) => Err(Error::os(format!("read from {}", self.place), errno)),
        }
    }

    fn garbled(&self) -> Error {
        Error::new(ErrorKind::Other, format!("{} does not speak D-Bus", self.place)).hint(REMEDY)
    }
}

const REMEDY: &str = "the systemd cgroup manager needs a systemd that answers; where there is none, run with \
                      --cgroup-manager cgroupfs and give linux.cgroupsPath as a path";

fn describe(errno: Errno) -> String {
    match errno {
        Errno::EAGAIN | Errno::EINPROGRESS => "it takes no connections".into(),
        errno => crate::error::describe(errno),
    }
}

/// connect(2), which for a listener whose queue is full would wait for ever.
fn dial(address: &UnixAddr, limit: Duration) -> Result<OwnedFd, Errno> {
    let fd = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&fd, sockopt::SendTimeout, &TimeVal::seconds(limit.as_secs() as i64))?;
    connect(fd.as_raw_fd(), address)?;
    Ok(fd)
}

fn send_all(socket: &OwnedFd, bytes: &[u8]) -> Result<(), Errno> {
    // What is said is a few kilobytes, far below any socket's buffer, and the socket has a time-out for the rest.
    match send(socket.as_fd(), bytes, None) {
        // What it said before it closed says more.
        Err(Errno::EPIPE | Errno::ECONNRESET) => Ok(()),
        other => other,
    }
}

/// Where the system's systemd can be reached. Its private socket spares the way through the bus, and is there before it.
fn system_places(env: impl Fn(&str) -> Option<String>) -> Result<Vec<Place>> {
    if let Some(given) = env("DBUS_SYSTEM_BUS_ADDRESS") {
        return addresses("DBUS_SYSTEM_BUS_ADDRESS", &given);
    }
    Ok(vec![at("/run/systemd/private", true), at("/run/dbus/system_bus_socket", false)])
}

/// Where the user's systemd can be reached.
fn user_places(env: impl Fn(&str) -> Option<String>) -> Result<Vec<Place>> {
    let runtime = env("XDG_RUNTIME_DIR");
    let mut places: Vec<Place> = runtime.iter().map(|dir| at(&format!("{dir}/systemd/private"), true)).collect();
    match env("DBUS_SESSION_BUS_ADDRESS") {
        Some(given) => places.extend(addresses("DBUS_SESSION_BUS_ADDRESS", &given)?),
        None => places.extend(runtime.iter().map(|dir| at(&format!("{dir}/bus"), false))),
    }
    if places.is_empty() {
        let what = "neither XDG_RUNTIME_DIR nor DBUS_SESSION_BUS_ADDRESS says where this user's systemd is";
        let hint = "log in as the user (su and sudo make no session; machinectl shell or ssh do), or run with \
                    --cgroup-manager cgroupfs";
        return Err(Error::new(ErrorKind::Other, what).hint(hint));
    }
    Ok(places)
}

fn at(path: &str, direct: bool) -> Place {
    Place { address: Address::Path(path.to_owned()), direct }
}

/// The Unix sockets of a D-Bus address (D-Bus Specification, "Server Addresses").
fn addresses(variable: &str, text: &str) -> Result<Vec<Place>> {
    let one = |entry: &str| {
        let fields = entry.strip_prefix("unix:")?;
        let field =
            |name: &str| fields.split(',').find_map(|f| f.strip_prefix(name)?.strip_prefix('=').and_then(unescape));
        let address = field("path").map(Address::Path).or_else(|| field("abstract").map(Address::Abstract))?;
        // systemd's own socket needs no bus, whoever names it.
        let direct = matches!(&address, Address::Path(path) if path.ends_with("/systemd/private"));
        Some(Place { address, direct })
    };
    let places: Vec<Place> = text.split(';').filter_map(one).collect();
    if places.is_empty() {
        let what = format!("{variable}: {text:?} names no socket that can be used; it reads as unix:path=/run/…");
        return Err(Error::invalid(what));
    }
    Ok(places)
}

fn unescape(text: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digits = [rest.next()?, rest.next()?];
                u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok().filter(|path| !path.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(set: &'static [(&str, &str)]) -> impl Fn(&str) -> Option<String> {
        move |name| set.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned())
    }

    fn shown(places: Vec<Place>) -> Vec<String> {
        let word = |p: Place| match p.address {
            Address::Path(path) => format!("{path} {}", p.direct),
            Address::Abstract(name) => format!("@{name} {}", p.direct),
        };
        places.into_iter().map(word).collect()
    }

    #[test]
    fn where_systemd_is() {
        assert_eq!(
            shown(system_places(env(&[])).unwrap()),
            ["/run/systemd/private true", "/run/dbus/system_bus_socket false"]
        );
        let given = env(&[("DBUS_SYSTEM_BUS_ADDRESS", "tcp:host=x;unix:path=/a%20b,guid=1;unix:abstract=c")]);
        assert_eq!(shown(system_places(given).unwrap()), ["/a b false", "@c false"]);
        assert_eq!(
            shown(user_places(env(&[("XDG_RUNTIME_DIR", "/run/user/7")])).unwrap()),
            ["/run/user/7/systemd/private true", "/run/user/7/bus false"]
        );
        let both = env(&[("XDG_RUNTIME_DIR", "/r"), ("DBUS_SESSION_BUS_ADDRESS", "unix:path=/s/bus")]);
        assert_eq!(shown(user_places(both).unwrap()), ["/r/systemd/private true", "/s/bus false"]);
        assert!(user_places(env(&[])).unwrap_err().to_string().contains("XDG_RUNTIME_DIR"));
        let wrong = system_places(env(&[("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=%zz")])).unwrap_err();
        assert!(wrong.to_string().contains("DBUS_SYSTEM_BUS_ADDRESS"));
    }
}
