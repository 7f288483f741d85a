//! The server: who connects to the socket is answered line by line, until it is asked to stop.

use super::http::{self, Http};
use super::protocol::{self, REQUEST_MAX};
use super::{Options, Pool, busy};
use crate::error::{Context, Error, Kind, Result};
use crate::sys::process;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::EpollFlags;
use nix::sys::signal::SigSet;
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use serde_json::Value;
use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// How many clients may be connected to the socket at once, and how many over HTTP besides, who say only later who they are.
const CLIENTS_MAX: usize = 256;
const HTTP_CLIENTS_MAX: usize = 64;

/// How long to wait when no file can be opened, in milliseconds.
const FULL: u16 = 100;

/// How long a client may take to read a piece of an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// The clients that are connected, each with a copy of its socket.
struct Clients {
    most: usize,
    sockets: Mutex<(u64, HashMap<u64, OwnedFd>)>,
    fewer: Condvar,
}

impl Clients {
    fn new(most: usize) -> Arc<Clients> {
        Arc::new(Clients { most, sockets: Mutex::default(), fewer: Condvar::new() })
    }

    fn with<T>(&self, act: impl FnOnce(&mut (u64, HashMap<u64, OwnedFd>)) -> T) -> T {
        act(&mut self.sockets.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Serves a client on a thread of its own; `false` when there are too many.
    fn serve(self: &Arc<Clients>, socket: &impl AsFd, serve: impl FnOnce() + Send + 'static) -> bool {
        let Ok(copy) = socket.as_fd().try_clone_to_owned() else { return false };
        let number = self.with(|(next, sockets)| {
            *next += 1;
            (sockets.len() < self.most).then(|| sockets.insert(*next, copy))?;
            Some(*next)
        });
        let Some(number) = number else { return false };
        let place = ClientPlace { clients: self.clone(), number };
        let thread = std::thread::Builder::new().name("brig-client".into());
        thread
            .spawn(move || {
                let _place = place;
                serve();
            })
            .is_ok()
    }

    /// Reads no more requests, and waits until the last one is answered.
    fn leave(&self) {
        let guard = self.sockets.lock().unwrap_or_else(PoisonError::into_inner);
        for socket in guard.1.values() {
            let _ =
                nix::sys::socket::shutdown(std::os::fd::AsRawFd::as_raw_fd(socket), nix::sys::socket::Shutdown::Read);
        }
        drop(self.fewer.wait_while(guard, |(_, sockets)| !sockets.is_empty()));
    }
}

struct ClientPlace {
    clients: Arc<Clients>,
    number: u64,
}

impl Drop for ClientPlace {
    fn drop(&mut self) {
        self.clients.with(|(_, sockets)| sockets.remove(&self.number));
        self.clients.fewer.notify_all();
    }
}

/// The socket, which goes with the server.
struct Door {
    path: PathBuf,
    listener: UnixListener,
}

impl Door {
    fn open(path: &Path) -> Result<Door> {
        if let Some(dir) = path.parent() {
            let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
            made.during(|| format!("make {}", dir.display()))?;
        }
        let listener = match UnixListener::bind(path) {
            Err(e) if e.kind() == ErrorKind::AddrInUse => {
                if !is_socket(path) {
                    let error = Error::new(Kind::Exists, format!("--socket: {} is no socket", path.display()));
                    return Err(error.hint("remove it, or name another file"));
                }
                if UnixStream::connect(path).is_ok() {
                    return Err(Error::new(Kind::Exists, format!("a server listens on {} already", path.display())));
                }
                // Of one that was killed.
                fs::remove_file(path).and_then(|()| UnixListener::bind(path))
            }
            other => other,
        };
        let listener = listener.during(|| format!("listen on {}", path.display()))?;
        let door = Door { path: path.into(), listener };
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).during(|| format!("chmod {}", path.display()))?;
        door.listener.set_nonblocking(true).during(|| "listen".into())?;
        Ok(door)
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        if is_socket(&self.path) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Whether there is a socket, and no link to one.
fn is_socket(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket())
}

/// Serves a pool on a unix socket (mode 0600; of this user and root, who is connected is looked at: `SO_PEERCRED`, unix(7)), and over
/// HTTP if wanted, until a signal comes: SIGTERM, SIGINT or SIGHUP. What runs then may end, until a second one comes. `up` is called
/// when requests are taken.
///
/// # Errors
/// What keeps sandboxes from being made, or the sockets from being listened on.
pub fn serve(options: Options, socket: &Path, http: Option<Http>, up: impl FnOnce()) -> Result<()> {
    // Before there is any thread, each of which inherits it.
    let mask = process::block_signals();
    let served = serve_until_told(options, socket, http, up);
    process::restore_signals(&mask);
    served
}

fn serve_until_told(options: Options, socket: &Path, http: Option<Http>, up: impl FnOnce()) -> Result<()> {
    let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
    let signals = SignalFd::with_flags(&SigSet::all(), flags).during(|| "take signals".into())?;
    let door = Door::open(socket)?;
    let pool = Pool::start(options)?;
    let clients = [CLIENTS_MAX, HTTP_CLIENTS_MAX].map(Clients::new);
    let http = http.map(Arc::new);
    up();
    let result = accept(&pool, &door, http.as_ref(), &signals, &clients);
    drop(door);
    pool.stop();
    if result.is_err() {
        pool.end();
    }
    // A second signal may come while the last requests are answered.
    std::thread::scope(|threads| {
        threads.spawn(|| {
            clients.iter().for_each(|clients| clients.leave());
            pool.wait();
            let _ = pool.done.write(1);
        });
        loop {
            let mut sources = [&signals.as_fd(), &pool.done.as_fd()].map(|fd| PollFd::new(*fd, PollFlags::POLLIN));
            let _ = poll(&mut sources, PollTimeout::NONE);
            if sources[1].any() == Some(true) {
                break;
            }
            if asked(&signals) {
                pool.end();
            }
        }
    });
    result
}

/// Whether a signal has come that asks for an end.
fn asked(signals: &SignalFd) -> bool {
    let mut asked = false;
    while let Ok(Some(info)) = signals.read_signal() {
        asked |= matches!(info.ssi_signo as i32, libc::SIGTERM | libc::SIGINT | libc::SIGHUP | libc::SIGQUIT);
    }
    asked
}

fn accept(
    pool: &Arc<Pool>,
    door: &Door,
    http: Option<&Arc<Http>>,
    signals: &SignalFd,
    [clients, http_clients]: &[Arc<Clients>; 2],
) -> Result<()> {
    loop {
        let mut sources = vec![signals.as_fd(), door.listener.as_fd()];
        sources.extend(http.map(|http| http.listener.as_fd()));
        let mut polled: Vec<_> = sources.into_iter().map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
        match poll(&mut polled, PollTimeout::NONE) {
            Err(nix::errno::Errno::EINTR) => continue,
            other => other.during(|| "poll".into())?,
        };
        if asked(signals) {
            return Ok(());
        }
        match door.listener.accept() {
            Ok((stream, _)) => {
                let (pool, copy) = (pool.clone(), stream.as_fd().try_clone_to_owned());
                let begun = clients.serve(&stream, move || copy.into_iter().for_each(|fd| talk(&pool, fd.into())));
                if !begun {
                    refuse(stream);
                }
            }
            Err(e) if matches!(e.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) => {
                // Whoever knocks waits until a client has left.
                let _ = poll(&mut [PollFd::new(signals.as_fd(), PollFlags::POLLIN)], FULL);
            }
            // Nobody, or somebody who has gone.
            Err(_) => {}
        }
        if let Some(http) = http
            && let Ok((stream, _)) = http.listener.accept()
        {
            let (pool, http, copy) = (pool.clone(), http.clone(), stream.try_clone());
            // Over the limit, the connection is closed without a word.
            let talk = move || copy.into_iter().for_each(|stream| http::talk(&pool, &http, stream));
            let _ = http_clients.serve(&stream, talk);
        }
    }
}

fn refuse(mut stream: UnixStream) {
    let error = busy(format!("{CLIENTS_MAX} clients are connected"));
    let _ = writeln!(stream, "{}", protocol::refusal(&Value::Null, &error));
}

/// Who is connected, if it may be.
fn caller(stream: &UnixStream) -> Result<u32> {
    let peer = getsockopt(stream, PeerCredentials).during(|| "ask who is connected".into())?.uid();
    if peer != 0 && peer != nix::unistd::geteuid().as_raw() {
        return Err(Error::new(Kind::ProgramDenied, format!("this server is not for user {peer}")));
    }
    Ok(peer)
}

/// Answers a client's requests, one after the other.
fn talk(pool: &Arc<Pool>, mut stream: UnixStream) {
    let _ = stream.set_nonblocking(false);
    let _ = stream.set_write_timeout(Some(PATIENCE));
    let (Ok(copy), caller) = (stream.try_clone(), caller(&stream)) else { return };
    let caller = match caller {
        Ok(caller) => caller,
        Err(error) => {
            let _ = writeln!(stream, "{}", protocol::refusal(&Value::Null, &error));
            return;
        }
    };
    let mut lines = BufReader::new(copy);
    let mut line = Vec::new();
    loop {
        line.clear();
        match (&mut lines).take(REQUEST_MAX as u64 + 1).read_until(b'\n', &mut line) {
            Ok(1..) => {}
            _ => return,
        }
        if line.len() > REQUEST_MAX {
            let error = Error::invalid(format!("the request is longer than {REQUEST_MAX} bytes"));
            let _ = writeln!(stream, "{}", protocol::refusal(&Value::Null, &error));
            let _ = stream.shutdown(Shutdown::Both);
            return;
        }
        if line.trim_ascii().is_empty() {
            continue;
        }
        // Its writing half may be closed: it still reads.
        let served = protocol::take(pool, &line, caller, &stream, EpollFlags::EPOLLHUP);
        let said = send(&mut stream, served);
        if said.is_err() {
            return;
        }
    }
}

fn send(stream: &mut UnixStream, served: protocol::Served) -> std::io::Result<()> {
    if served.stream {
        while let Some(event) = served.event() {
            if let Err(error) = stream.write_all(format!("{event}\n").as_bytes()) {
                served.ignore();
                return Err(error);
            }
        }
    }
    stream.write_all(format!("{}\n", served.answer().0).as_bytes())
}
