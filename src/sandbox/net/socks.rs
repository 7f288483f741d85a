//! The SOCKS5 proxy (RFC 1928): no authentication, CONNECT only. Early data of a client that does not wait is kept.

use super::body::Body;
use super::dial::{Context, Failure};
use super::io::{Wire, relay};
use std::io::{ErrorKind, Result};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const VERSION: u8 = 5;
const NO_METHOD: u8 = 0xff;

/// Serves one connection.
pub(super) fn serve(context: &Context, client: &Wire) {
    // A client that goes, or that does not speak SOCKS5, gets no answer.
    let _ = negotiate(context, client);
}

fn negotiate(context: &Context, client: &Wire) -> Result<()> {
    let mut input = Input { wire: client, bytes: Vec::new() };
    let greeting = input.take(2)?;
    if greeting[0] != VERSION {
        return Err(ErrorKind::InvalidData.into());
    }
    if !input.take(greeting[1].into())?.contains(&0) {
        client.farewell(&[VERSION, NO_METHOD]);
        return Ok(());
    }
    client.write_all(&[VERSION, 0])?;
    let request = input.take(4)?;
    if request[0] != VERSION {
        return Err(ErrorKind::InvalidData.into());
    }
    let host = match request[3] {
        1 => {
            let mut octets = [0; 4];
            octets.copy_from_slice(&input.take(4)?);
            IpAddr::V4(Ipv4Addr::from(octets)).to_string()
        }
        4 => {
            let mut octets = [0; 16];
            octets.copy_from_slice(&input.take(16)?);
            IpAddr::V6(Ipv6Addr::from(octets)).to_string()
        }
        3 => {
            let length = input.take(1)?[0];
            String::from_utf8_lossy(&input.take(length.into())?).into_owned()
        }
        _ => {
            client.farewell(&reply(8));
            return Ok(());
        }
    };
    let port = input.take(2)?;
    let port = u16::from_be_bytes([port[0], port[1]]);
    if request[1] != 1 {
        client.farewell(&reply(7));
        return Ok(());
    }
    match context.dial("socks5", &host, port, false) {
        Ok(mut dialed) => {
            let mut back = reply(0).to_vec();
            back.append(&mut dialed.back);
            let mut tally = relay(client, &dialed.wire, Vec::new(), &input.bytes, Body::Open, back);
            // The reply is not the server's.
            tally.received = tally.received.saturating_sub(reply(0).len() as u64);
            dialed.ended(tally);
        }
        Err(failure) => client.farewell(&reply(code(&failure))),
    }
    Ok(())
}

/// The reply code for a failure (RFC 1928 section 6).
fn code(failure: &Failure) -> u8 {
    let Failure::Unreached(error) = failure else { return 2 };
    match error.kind() {
        ErrorKind::NetworkUnreachable => 3,
        ErrorKind::HostUnreachable | ErrorKind::TimedOut | ErrorKind::NotFound => 4,
        ErrorKind::ConnectionRefused => 5,
        _ => 1,
    }
}

/// A reply, with no bound address: the host's is none of the sandbox's business.
fn reply(code: u8) -> [u8; 10] {
    [VERSION, code, 0, 1, 0, 0, 0, 0, 0, 0]
}

/// What has been read and not yet used.
struct Input<'a> {
    wire: &'a Wire,
    bytes: Vec<u8>,
}

impl Input<'_> {
    /// The next so many bytes.
    fn take(&mut self, count: usize) -> Result<Vec<u8>> {
        while self.bytes.len() < count {
            if self.wire.read_more(&mut self.bytes)? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
        let rest = self.bytes.split_off(count);
        Ok(std::mem::replace(&mut self.bytes, rest))
    }
}
