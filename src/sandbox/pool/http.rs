//! The HTTP front of a pool (RFC 9110, RFC 9112), one request a connection: `POST /run` takes what the socket takes, `GET /metrics`
//! gives numbers for Prometheus, `GET /health` says that the server is there. All but the last take the token: `Authorization:
//! Bearer TOKEN` (RFC 6750).

use super::Pool;
use super::protocol::{self, REQUEST_MAX};
use crate::error::{Context, Error, Result};
use nix::sys::epoll::EpollFlags;
use serde_json::Value;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The longest head of a request, in bytes, and the most fields in it.
const HEAD_MAX: usize = 16 << 10;
const FIELDS_MAX: usize = 64;

/// How long a client may take to say who it is, and then to say or hear a piece.
const PATIENCE: Duration = Duration::from_secs(10);

/// The shortest token, in bytes.
const TOKEN_MIN: usize = 16;

/// Where HTTP is served, and with which token.
pub struct Http {
    pub(super) listener: TcpListener,
    token: Vec<u8>,
}

impl Http {
    /// Listens.
    ///
    /// # Errors
    /// An address that is not the loopback's; a token that is short, missing, or not its owner's alone to read.
    pub fn new(address: SocketAddr, token_file: &Path) -> Result<Http> {
        if !address.ip().is_loopback() {
            return Err(Error::invalid(format!(
                "{address} is reached from other hosts, and this server speaks no TLS"
            ))
            .hint("listen on 127.0.0.1 or [::1], and put a proxy with TLS in front of it"));
        }
        let shown = token_file.display();
        let mut text = String::new();
        let mut file = File::open(token_file).during(|| format!("the token file {shown}"))?;
        let mode = file.metadata().during(|| format!("the token file {shown}"))?.mode();
        if mode & 0o077 != 0 {
            return Err(Error::invalid(format!("the token file {shown} can be read by others"))
                .hint(format!("chmod 600 {shown}")));
        }
        file.read_to_string(&mut text).during(|| format!("the token file {shown}"))?;
        let token = text.trim().as_bytes().to_vec();
        if token.len() < TOKEN_MIN || !token.iter().all(u8::is_ascii_graphic) {
            let what = format!("the token in {shown} is to have {TOKEN_MIN} characters or more, and no blanks");
            return Err(Error::invalid(what).hint(format!("openssl rand -hex 32 >{shown}")));
        }
        let listener = TcpListener::bind(address).during(|| format!("listen on {address}"))?;
        listener.set_nonblocking(true).during(|| "listen".into())?;
        Ok(Http { listener, token })
    }

    /// Whether a token is the right one; it takes as long whatever is wrong with it.
    fn knows(&self, token: &[u8]) -> bool {
        let mut differ = u8::from(token.len() != self.token.len());
        for (at, byte) in self.token.iter().enumerate() {
            differ |= byte ^ token.get(at).copied().unwrap_or(!byte);
        }
        std::hint::black_box(differ) == 0
    }
}

/// What a client asks for.
struct Asked {
    method: String,
    path: String,
    token: Option<Vec<u8>>,
    length: Option<usize>,
    /// It waits for leave to send the body.
    expects: bool,
}

/// Why a request is not answered as wanted: status and words.
type Wrong = (u16, String);

fn wrong<T>(status: u16, what: impl Into<String>) -> Result<T, Wrong> {
    Err((status, what.into()))
}

/// The head of a request; `None` as long as there is more to come.
fn head(bytes: &[u8]) -> Result<Option<(Asked, usize)>, Wrong> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut request = httparse::Request::new(&mut fields);
    let length = match request.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) if bytes.len() < HEAD_MAX => return Ok(None),
        Ok(httparse::Status::Partial) => return wrong(431, format!("the head is longer than {HEAD_MAX} bytes")),
        Err(httparse::Error::TooManyHeaders) => return wrong(431, format!("more than {FIELDS_MAX} fields")),
        Err(error) => return wrong(400, error.to_string()),
    };
    let (method, path) = (request.method.unwrap_or_default().to_owned(), request.path.unwrap_or_default().to_owned());
    let mut asked = Asked { method, path, token: None, length: None, expects: false };
    for field in request.headers.iter() {
        if field.name.eq_ignore_ascii_case("authorization") {
            let scheme = field.value.get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"bearer "));
            asked.token = scheme.then(|| field.value[7..].trim_ascii().to_vec());
        } else if field.name.eq_ignore_ascii_case("content-length") {
            let text = std::str::from_utf8(field.value).ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
            match text.and_then(|text| text.parse().ok()) {
                Some(length) if asked.length.is_none_or(|before| before == length) => asked.length = Some(length),
                _ => return wrong(400, "Content-Length is no number, or two of them"),
            }
        } else if field.name.eq_ignore_ascii_case("transfer-encoding") {
            return wrong(501, "send the body with a Content-Length");
        } else if field.name.eq_ignore_ascii_case("expect") {
            asked.expects = field.value.eq_ignore_ascii_case(b"100-continue");
        }
    }
    Ok(Some((asked, length)))
}

/// A connection that is read until a time, however little comes at once.
struct Until<'s>(&'s TcpStream, Instant);

impl Read for Until<'_> {
    fn read(&mut self, piece: &mut [u8]) -> std::io::Result<usize> {
        let left = self.1.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        self.0.set_read_timeout(Some(left))?;
        self.0.read(piece)
    }
}

/// Reads a request; `None` when there is none.
fn read(stream: &mut TcpStream, http: &Http) -> Result<Option<(Asked, Vec<u8>)>, Wrong> {
    let mut bytes = Vec::new();
    let more = |bytes: &mut Vec<u8>, stream: &mut dyn Read| {
        let mut piece = [0; 16 << 10];
        let read = stream.read(&mut piece).unwrap_or(0);
        bytes.extend_from_slice(&piece[..read]);
        read > 0
    };
    let mut unknown = Until(stream, Instant::now() + PATIENCE);
    let (asked, length) = loop {
        if !bytes.is_empty()
            && let Some(found) = head(&bytes)?
        {
            break found;
        }
        if !more(&mut bytes, &mut unknown) {
            return Ok(None);
        }
    };
    // Before a body of somebody unknown is read.
    if asked.path != "/health" && !asked.token.as_ref().is_some_and(|token| http.knows(token)) {
        return wrong(401, "a token is needed: Authorization: Bearer TOKEN");
    }
    let _ = stream.set_read_timeout(Some(PATIENCE));
    let mut body = bytes.split_off(length);
    let wanted = asked.length.unwrap_or(0);
    if wanted > REQUEST_MAX {
        return wrong(413, format!("the body is longer than {REQUEST_MAX} bytes"));
    }
    if asked.expects && body.len() < wanted {
        let _ = stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n");
    }
    while body.len() < wanted {
        if !more(&mut body, stream) {
            return wrong(400, "the body is shorter than its Content-Length");
        }
    }
    body.truncate(wanted);
    Ok(Some((asked, body)))
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        401 => "Unauthorized",
        404 => "Not Found",
        405 => "Method Not Allowed",
        413 => "Content Too Large",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        _ => "Bad Request",
    }
}

/// The head of an answer; without a length the body ends with the connection.
fn head_of(status: u16, kind: &str, length: Option<usize>) -> String {
    let mut head = format!("HTTP/1.1 {status} {}\r\nContent-Type: {kind}\r\nConnection: close\r\n", reason(status));
    if let Some(length) = length {
        head += &format!("Content-Length: {length}\r\n");
    }
    match status {
        401 => head += "WWW-Authenticate: Bearer\r\n",
        429 => head += "Retry-After: 1\r\n",
        _ => {}
    }
    head + "\r\n"
}

fn say(stream: &mut TcpStream, status: u16, kind: &str, body: &str) -> std::io::Result<()> {
    stream.write_all((head_of(status, kind, Some(body.len())) + body).as_bytes())
}

const JSON: &str = "application/json";

/// Answers one request.
pub(super) fn talk(pool: &Arc<Pool>, http: &Http, mut stream: TcpStream) {
    let _ = stream.set_nonblocking(false);
    let _ = stream.set_nodelay(true);
    let _ = stream.set_write_timeout(Some(PATIENCE));
    // Who does not hear the answer has gone.
    let _ = match read(&mut stream, http) {
        Ok(None) => Ok(()),
        Ok(Some((asked, body))) => answer(pool, &mut stream, &asked, &body),
        Err((status, what)) => {
            let error = protocol::refusal(&Value::Null, &Error::invalid(what));
            say(&mut stream, status, JSON, &format!("{error}\n")).and_then(|()| drain(&mut stream))
        }
    };
}

/// Reads what is still on its way, up to limits of length and time: a connection that is closed before would take the answer with it (RFC 9112,
/// section 9.6).
fn drain(stream: &mut TcpStream) -> std::io::Result<()> {
    stream.shutdown(Shutdown::Write)?;
    let rest = Until(stream, Instant::now() + PATIENCE);
    std::io::copy(&mut rest.take(REQUEST_MAX as u64), &mut std::io::sink()).map(drop)
}

fn answer(pool: &Arc<Pool>, stream: &mut TcpStream, asked: &Asked, body: &[u8]) -> std::io::Result<()> {
    match (asked.method.as_str(), asked.path.as_str()) {
        ("GET", "/health") => say(stream, 200, "text/plain; charset=utf-8", "ok\n"),
        ("GET", "/metrics") => say(stream, 200, "text/plain; version=0.0.4; charset=utf-8", &pool.numbers()),
        ("POST", "/run") => {
            // All who have the token are one caller: this user.
            let caller = nix::unistd::geteuid().as_raw();
            let served = protocol::take(pool, body, caller, stream, EpollFlags::EPOLLHUP | EpollFlags::EPOLLRDHUP);
            if served.stream {
                return stream_out(stream, served);
            }
            let (answer, code) = served.answer();
            let status = match code {
                None => 200,
                Some("invalid" | "not-found" | "denied") => 400,
                Some("busy") => 429,
                Some("gone") => 503,
                Some(_) => 500,
            };
            say(stream, status, JSON, &format!("{answer}\n"))
        }
        (_, "/health" | "/metrics" | "/run") => say(stream, 405, JSON, "{\"error\":\"GET for this, POST for /run\"}\n"),
        _ => say(stream, 404, JSON, "{\"error\":\"there are /run, /metrics and /health\"}\n"),
    }
}

fn stream_out(stream: &mut TcpStream, served: protocol::Served) -> std::io::Result<()> {
    let told = stream.write_all(head_of(200, "application/x-ndjson", None).as_bytes()).and_then(|()| {
        while let Some(event) = served.event() {
            stream.write_all(format!("{event}\n").as_bytes())?;
        }
        Ok(())
    });
    if told.is_err() {
        served.ignore();
        return told;
    }
    stream.write_all(format!("{}\n", served.answer().0).as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn tokens() {
        let file = std::env::temp_dir().join(format!("brig-token-{}", std::process::id()));
        std::fs::write(&file, "0123456789abcdef\n").unwrap();
        let open = |mode| {
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
            Http::new("[::1]:0".parse().unwrap(), &file).or_else(|_| Http::new("127.0.0.1:0".parse().unwrap(), &file))
        };
        assert!(open(0o640).is_err());
        let http = open(0o600).unwrap();
        std::fs::remove_file(&file).unwrap();
        assert!(http.knows(b"0123456789abcdef"));
        for wrong in
            [b"".as_slice(), b"0123456789abcde", b"0123456789abcdef0", b"1123456789abcdef", b"0123456789abcdee"]
        {
            assert!(!http.knows(wrong), "{wrong:?}");
        }
    }

    #[test]
    fn a_client_that_drips_has_as_long_as_one_that_is_silent() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (stream, _) = listener.accept().unwrap();
        let begun = Instant::now();
        let mut until = Until(&stream, begun + Duration::from_millis(50));
        let mut pieces = 0;
        // One byte whenever one has been read.
        while client.write_all(b"x").is_ok() && until.read(&mut [0; 16]).is_ok() {
            pieces += 1;
        }
        assert!(pieces > 0 && begun.elapsed() >= Duration::from_millis(50));
        let mut until = Until(&stream, Instant::now() + Duration::from_millis(50));
        assert_eq!(until.read(&mut [0; 16]).unwrap(), 1);
        assert!(until.read(&mut [0; 16]).is_err());
    }

    #[test]
    fn heads() {
        let of = |text: &str| head(text.as_bytes()).map(|found| found.map(|(asked, _)| asked));
        let asked = of(
            "POST /run HTTP/1.1\r\nCONTENT-LENGTH: 12\r\nAuthorization: BEARER  abc \r\nExpect: 100-continue\r\n\r\n",
        );
        let asked = asked.unwrap().unwrap();
        assert_eq!((asked.method.as_str(), asked.path.as_str(), asked.length), ("POST", "/run", Some(12)));
        assert_eq!((asked.token.as_deref(), asked.expects), (Some(b"abc".as_slice()), true));
        assert!(of("GET / HTTP/1.1\r\n").unwrap().is_none());
        assert!(of("GET / HTTP/1.1\r\nAuthorization: Basic abcdefgh\r\n\r\n").unwrap().unwrap().token.is_none());
        for (text, status) in [
            ("GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nContent-Length: +1\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", 501),
            ("\0", 400),
        ] {
            assert_eq!(of(text).err().map(|(status, _)| status), Some(status), "{text:?}");
        }
        let many = format!("GET / HTTP/1.1\r\n{}", "A: b\r\n".repeat(100));
        assert_eq!(of(&many).err().map(|(status, _)| status), Some(431));
    }
}
