//! The HTTP proxy (RFC 9110, RFC 9112): CONNECT tunnels, and `http://` requests of which one is served a connection. A
//! request is read, and written anew: what a server gets is what was understood here.

use super::body::Body;
use super::dial::{Context, Failure};
use super::io::{Wire, relay};
use std::io::{Error, ErrorKind, Result as IoResult};

/// The longest head, in bytes.
const HEAD: usize = 64 << 10;
/// The most fields in a head.
const FIELDS: usize = 256;
/// Fields that are for this hop alone (RFC 9110 section 7.6.1), and `Host`, which is written anew.
const DROPPED: [&str; 9] = [
    "connection",
    "host",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "upgrade",
];

/// Why a request is not served.
enum Refusal {
    /// The client has gone, or everything is to stop.
    Gone,
    /// The status code, and a text for the reader.
    Answer(u16, String),
}

/// A request's head.
#[derive(Debug)]
struct Head {
    method: String,
    target: String,
    version: u8,
    fields: Vec<(String, Vec<u8>)>,
}

/// Serves one connection.
pub(super) fn serve(context: &Context, client: &Wire) {
    let Err(Refusal::Answer(status, text)) = request(context, client) else { return };
    let phrase = match status {
        400 => "Bad Request",
        403 => "Forbidden",
        431 => "Request Header Fields Too Large",
        _ => "Bad Gateway",
    };
    let body = format!("brig: {text}\n");
    client.farewell(
        format!(
            "HTTP/1.1 {status} {phrase}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n\
             Connection: close\r\n\r\n{body}",
            body.len()
        )
        .as_bytes(),
    );
}

fn bad(text: impl Into<String>) -> Refusal {
    Refusal::Answer(400, text.into())
}

fn request(context: &Context, client: &Wire) -> Result<(), Refusal> {
    let (head, early) = read_head(client)?;
    if head.method == "CONNECT" {
        let (host, port) = authority(&head.target)?;
        let port = port.ok_or_else(|| bad(format!("CONNECT {} lacks a port: ask for {host}:443", head.target)))?;
        let mut dialed = context.dial("https", &host, port, false).map_err(|f| refusal(f, &host, port))?;
        let established = b"HTTP/1.1 200 Connection established\r\n\r\n";
        let mut back = established.to_vec();
        back.append(&mut dialed.back);
        let mut tally = relay(client, &dialed.wire, Vec::new(), &early, Body::Open, back);
        tally.received = tally.received.saturating_sub(established.len() as u64);
        dialed.ended(tally);
        return Ok(());
    }
    let Some((scheme, rest)) = head.target.split_once("://") else {
        return Err(bad("this is a proxy: ask for a whole URL, http://example.com/"));
    };
    if !scheme.eq_ignore_ascii_case("http") {
        return Err(bad(format!("{scheme}:// is not for a plain request: use CONNECT")));
    }
    let (place, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let (host, port) = authority(place)?;
    let port = port.unwrap_or(80);
    let body = body(&head)?;
    let dialed = context.dial("http", &host, port, true).map_err(|f| refusal(f, &host, port))?;
    let line = if port == 80 { dialed.host().to_owned() } else { format!("{}:{port}", dialed.host()) };
    let path = match path {
        "" if head.method == "OPTIONS" => "*".to_owned(),
        _ if path.starts_with('/') => path.to_owned(),
        _ => format!("/{path}"),
    };
    let target = if dialed.mitm() && path != "*" {
        format!("http://{line}{path}")
    } else if dialed.mitm() {
        format!("http://{line}")
    } else {
        path
    };
    let tally = relay(client, &dialed.wire, rewrite(&head, &target, &line), &early, body, Vec::new());
    dialed.ended(tally);
    Ok(())
}

/// What the client is told.
fn refusal(failure: Failure, host: &str, port: u16) -> Refusal {
    let host = host.escape_default();
    match failure {
        Failure::Denied(decision) => {
            Refusal::Answer(403, format!("{host}:{port} is not allowed, {}: {}", decision.reason, decision.remedy))
        }
        Failure::Unreached(error) => Refusal::Answer(502, format!("{host}:{port} can't be reached: {error}")),
    }
}

/// Reads up to the end of the head; what came behind it is returned too.
fn read_head(client: &Wire) -> Result<(Head, Vec<u8>), Refusal> {
    let mut bytes = Vec::new();
    loop {
        let old = bytes.len();
        if client.read_more(&mut bytes).map_err(|_| Refusal::Gone)? == 0 {
            return Err(if bytes.is_empty() { Refusal::Gone } else { bad("the request ends within its head") });
        }
        // Only an end of line can complete a head.
        if bytes[old..].contains(&b'\n')
            && let Some((head, length)) = parse(&bytes)?
        {
            return Ok((head, bytes.split_off(length)));
        }
        if bytes.len() > HEAD {
            return Err(Refusal::Answer(431, format!("the request's head is longer than {HEAD} bytes")));
        }
    }
}

/// The head and its length; `None` while it is not complete.
fn parse(bytes: &[u8]) -> Result<Option<(Head, usize)>, Refusal> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS];
    let mut request = httparse::Request::new(&mut fields);
    let length = match request.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => {
            return Err(Refusal::Answer(431, format!("the request has more than {FIELDS} fields")));
        }
        Err(e) => return Err(bad(format!("this is no HTTP/1.1 request: {e}"))),
    };
    if length > HEAD {
        return Err(Refusal::Answer(431, format!("the request's head is longer than {HEAD} bytes")));
    }
    if bytes[..length].contains(&0) {
        return Err(bad("the request's head has a NUL byte"));
    }
    let head = Head {
        method: request.method.unwrap_or_default().to_owned(),
        target: request.path.unwrap_or_default().to_owned(),
        version: request.version.unwrap_or(1),
        fields: request.headers.iter().map(|f| (f.name.to_ascii_lowercase(), f.value.to_vec())).collect(),
    };
    Ok(Some((head, length)))
}

/// The host, as a rule could name it or not, and the port of `host:port`.
fn authority(text: &str) -> Result<(String, Option<u16>), Refusal> {
    if text.contains('@') {
        return Err(bad("a user name in front of the host is not allowed: give the host alone"));
    }
    let (host, port) = match text.rfind(':') {
        Some(at) if !text[at..].contains(']') => (&text[..at], Some(&text[at + 1..])),
        _ => (text, None),
    };
    if host.is_empty() || (host.contains(':') && !host.starts_with('[')) {
        return Err(bad(format!("{text:?} is no host: write it as example.com:443 or [2001:db8::1]:443")));
    }
    let port = port.map(|port| match port.parse::<u16>() {
        Ok(number) if number > 0 && port.bytes().all(|b| b.is_ascii_digit()) => Ok(number),
        _ => Err(bad(format!("{port:?} is no port: give a number from 1 to 65535"))),
    });
    Ok((host.to_owned(), port.transpose()?))
}

/// Where the request's body ends. Every way to say it twice is refused, as another reader could heed the other one
/// (RFC 9112 section 6.3).
fn body(head: &Head) -> Result<Body, Refusal> {
    let all =
        |wanted: &'static str| head.fields.iter().filter(move |(name, _)| name == wanted).map(|(_, v)| v.as_slice());
    let (mut lengths, mut codings) = (all("content-length"), all("transfer-encoding"));
    let (length, coding) = (lengths.next(), codings.next());
    if lengths.next().is_some() || codings.next().is_some() || all("host").count() > 1 {
        return Err(bad("Content-Length, Transfer-Encoding or Host is given twice"));
    }
    match (length, coding) {
        (None, None) => Ok(Body::Length(0)),
        (Some(_), Some(_)) => Err(bad("both Content-Length and Transfer-Encoding are given")),
        (None, Some(coding)) if head.version == 1 && coding.eq_ignore_ascii_case(b"chunked") => Ok(Body::chunked()),
        (None, Some(_)) => Err(bad("the Transfer-Encoding is not chunked, in HTTP/1.1")),
        (Some(length), None) => std::str::from_utf8(length)
            .ok()
            .filter(|text| text.bytes().all(|b| b.is_ascii_digit()))
            .and_then(|text| text.parse().ok())
            .map(Body::Length)
            .ok_or_else(|| bad("the Content-Length is no number")),
    }
}

/// The head for the server: its host from the request line, and nothing that was for this hop alone.
fn rewrite(head: &Head, target: &str, host: &str) -> Vec<u8> {
    let mut named: Vec<String> = Vec::new();
    for (_, value) in head.fields.iter().filter(|(name, _)| name == "connection") {
        named.extend(String::from_utf8_lossy(value).split(',').map(|name| name.trim().to_ascii_lowercase()));
    }
    // Whoever names these would change where the body ends.
    named.retain(|name| name != "content-length" && name != "transfer-encoding");
    let mut text = format!("{} {target} HTTP/1.{}\r\nHost: {host}\r\n", head.method, head.version).into_bytes();
    for (name, value) in &head.fields {
        if !DROPPED.contains(&name.as_str()) && !named.contains(name) {
            text.extend_from_slice(name.as_bytes());
            text.extend_from_slice(b": ");
            text.extend_from_slice(value);
            text.extend_from_slice(b"\r\n");
        }
    }
    text.extend_from_slice(b"Connection: close\r\n\r\n");
    text
}

/// Reads a proxy's answer to CONNECT, and returns what came behind it.
pub(super) fn connect_answer(wire: &Wire) -> IoResult<Vec<u8>> {
    let mut bytes = Vec::new();
    loop {
        if wire.read_more(&mut bytes)? == 0 {
            return Err(Error::new(ErrorKind::UnexpectedEof, "the mitm proxy gave no answer"));
        }
        let mut fields = [httparse::EMPTY_HEADER; FIELDS];
        let mut answer = httparse::Response::new(&mut fields);
        match answer.parse(&bytes) {
            Ok(httparse::Status::Complete(length)) => {
                return match answer.code {
                    Some(200) => Ok(bytes.split_off(length)),
                    code => {
                        let code = code.unwrap_or_default();
                        Err(Error::other(format!("the mitm proxy answered {code}, where 200 was expected")))
                    }
                };
            }
            Ok(httparse::Status::Partial) if bytes.len() <= HEAD => {}
            _ => return Err(Error::new(ErrorKind::InvalidData, "the mitm proxy's answer is no HTTP")),
        }
    }
}
