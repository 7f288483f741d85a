//! Verbs that talk to somebody: directly, or through a proxy.

use super::{checked, outcome};
use serde_json::Value;
use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::{TcpListener, TcpStream, ToSocketAddrs, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixDatagram, UnixListener, UnixStream};
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

/// The name server's process.
static SERVER: AtomicI32 = AtomicI32::new(0);

/// No answer takes longer on a loopback interface.
const PATIENCE: Duration = Duration::from_secs(20);

/// Answers a verb of this kind; None if it is not one.
pub fn talk(verb: &str, arg: &str) -> Option<Value> {
    // PORT:HOST:PORT, the first of which is the proxy's.
    let by = |arg: &str| {
        let (proxy, place) = arg.split_once(':').unwrap_or((arg, ""));
        (proxy.to_owned(), place.to_owned())
    };
    Some(match verb {
        "tcp" => outcome(tcp(arg).and_then(ask)),
        "get" => outcome(get(&by(arg).0, &by(arg).1)),
        "connect" => outcome(connect(&by(arg).0, &by(arg).1)),
        "socks" => outcome(socks(&by(arg).0, &by(arg).1)),
        "udp" => outcome(UdpSocket::bind("0.0.0.0:0").and_then(|s| s.send_to(b"ping", arg))),
        "unix" => outcome(UnixStream::connect(arg).and_then(ask)),
        "abstract" => {
            outcome(UnixAddr::from_abstract_name(arg).and_then(|a| UnixStream::connect_addr(&a)).and_then(ask))
        }
        "resolve" => outcome((arg, 80).to_socket_addrs().map(|found| found.count())),
        "loopback" => outcome(loopback()),
        "pair" => outcome(UnixStream::pair().map(|_| true)),
        // Connected to each other, and yet a message can name another place.
        "datagrampair" => outcome(UnixDatagram::pair().and_then(|(socket, _)| socket.send_to(b"ping", arg))),
        "unixlistener" => outcome(UnixListener::bind(arg).map(|_| true)),
        "setns" => outcome(setns(arg)),
        "dns" => outcome(dns(arg)),
        "run" => run(),
        _ => return None,
    })
}

fn tcp(place: &str) -> Result<TcpStream> {
    let address = place.to_socket_addrs()?.next().ok_or(ErrorKind::NotFound)?;
    TcpStream::connect_timeout(&address, PATIENCE)
}

/// Says "ping" and reads to the end.
fn ask(mut stream: impl Read + Write) -> Result<String> {
    stream.write_all(b"ping\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

fn proxy(port: &str) -> Result<TcpStream> {
    let stream = tcp(&format!("127.0.0.1:{port}"))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// The whole answer to a request for a URL.
fn get(port: &str, url: &str) -> Result<String> {
    let mut stream = proxy(port)?;
    let place = url.split('/').nth(2).unwrap_or_default();
    write!(stream, "GET {url} HTTP/1.1\r\nHost: {place}\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

/// CONNECT; then "ping", if there is a tunnel. Tells the first line and what came through.
fn connect(port: &str, place: &str) -> Result<String> {
    let mut stream = proxy(port)?;
    write!(stream, "CONNECT {place} HTTP/1.1\r\nHost: {place}\r\n\r\n")?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let line = String::from_utf8_lossy(&head).lines().next().unwrap_or_default().to_owned();
    if line.split(' ').nth(1) == Some("200") { Ok(format!("{line}|{}", ask(stream)?)) } else { Ok(line) }
}

/// SOCKS5 (RFC 1928) by name; then "ping". An answer other than 0 is told as such.
fn socks(port: &str, place: &str) -> Result<String> {
    let mut stream = proxy(port)?;
    let (host, port) = place.rsplit_once(':').ok_or(ErrorKind::InvalidInput)?;
    let port: u16 = port.parse().map_err(Error::other)?;
    stream.write_all(&[5, 1, 0])?;
    stream.read_exact(&mut [0; 2])?;
    let name = [&[5, 1, 0, 3, host.len() as u8], host.as_bytes(), &port.to_be_bytes()].concat();
    stream.write_all(&name)?;
    let mut head = [0; 4];
    stream.read_exact(&mut head)?;
    if head[1] != 0 {
        return Ok(format!("refused {}", head[1]));
    }
    let mut rest = vec![0; if head[3] == 4 { 18 } else { 6 }];
    stream.read_exact(&mut rest)?;
    ask(stream)
}

/// Listens on the loopback interface, and connects to that.
fn loopback() -> Result<bool> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    TcpStream::connect(listener.local_addr()?)?;
    Ok(true)
}

/// Enters the network namespace of this file.
fn setns(path: &str) -> Result<bool> {
    use std::os::fd::AsRawFd;
    let file = std::fs::File::open(path)?;
    // SAFETY: takes integers only.
    checked(unsafe { libc::setns(file.as_raw_fd(), libc::CLONE_NEWNET) }.into()).map(|_| true)
}

/// Runs what the rest of the arguments say, and ends with its status.
fn run() -> Value {
    let words: Vec<_> = std::env::args_os().skip_while(|word| word != "run=").skip(1).collect();
    let status = words.split_first().map(|(program, args)| std::process::Command::new(program).args(args).status());
    // The name server goes first, so that nothing is left when this is over.
    let server = SERVER.load(Ordering::Relaxed);
    if server > 0 {
        // SAFETY: ends and reaps this process's own child.
        unsafe {
            libc::kill(server, libc::SIGKILL);
            libc::waitpid(server, std::ptr::null_mut(), 0);
        }
    }
    std::process::exit(status.and_then(|s| s.ok()?.code()).unwrap_or(255))
}

/// Forks a name server on port 53 that knows no name, and appends each one that it is asked for to a file. It ends with
/// the process that started it.
fn dns(path: &str) -> Result<bool> {
    let socket = UdpSocket::bind("127.0.0.1:53")?;
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path)?;
    // SAFETY: this program has one thread.
    let child = unsafe { libc::fork() };
    if child != 0 {
        SERVER.store(child, Ordering::Relaxed);
        return Ok(true);
    }
    // SAFETY: takes integers only.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    let mut query = [0; 512];
    while let Ok((length, from)) = socket.recv_from(&mut query) {
        let (mut at, mut name) = (12, String::new());
        while at < length && query[at] != 0 {
            let end = (at + 1 + usize::from(query[at])).min(length);
            name += &format!("{}.", String::from_utf8_lossy(&query[at + 1..end]));
            at = end;
        }
        let _ = writeln!(file, "{name}");
        // A response (RFC 1035 section 4.1.1) with the code "name error".
        query[2] |= 0x80;
        query[3] = 0x83;
        let _ = socket.send_to(&query[..length], from);
    }
    std::process::exit(0)
}
