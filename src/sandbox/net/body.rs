//! Where a request's body ends (RFC 9112 sections 6 and 7.1), so that nothing behind it goes to the same server.

use std::io;

/// What a client may send after what was read first.
pub(super) enum Body {
    /// Anything, until it ends its side: a tunnel.
    Open,
    /// So many bytes more.
    Length(u64),
    /// Chunks.
    Chunked(Chunk),
}

/// What is expected next of a chunked body.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Chunk {
    /// The size so far, and how many digits it has.
    Size(u64, u8),
    Extension(u64),
    SizeEnd(u64),
    Data(u64),
    DataReturn,
    DataEnd,
    TrailerStart,
    Trailer,
    TrailerEnd,
    LastEnd,
    Done,
}

impl Body {
    pub(super) fn chunked() -> Body {
        Body::Chunked(Chunk::Size(0, 0))
    }

    /// Whether all of it has been taken.
    pub(super) fn done(&self) -> bool {
        matches!(self, Body::Length(0) | Body::Chunked(Chunk::Done))
    }

    /// How many of these bytes, from the first on, are of the body.
    ///
    /// # Errors
    /// If they can't be: chunks that are framed in another way than the standard's could be read differently by the
    /// server.
    pub(super) fn take(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Body::Open => Ok(bytes.len()),
            Body::Length(left) => {
                let taken = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= taken as u64;
                Ok(taken)
            }
            Body::Chunked(chunk) => {
                let mut at = 0;
                while at < bytes.len() && *chunk != Chunk::Done {
                    if let Chunk::Data(left) = *chunk {
                        let step = (bytes.len() - at).min(usize::try_from(left).unwrap_or(usize::MAX));
                        at += step;
                        let left = left - step as u64;
                        *chunk = if left == 0 { Chunk::DataReturn } else { Chunk::Data(left) };
                    } else {
                        *chunk = chunk.after(bytes[at]).ok_or(io::ErrorKind::InvalidData)?;
                        at += 1;
                    }
                }
                Ok(at)
            }
        }
    }
}

impl Chunk {
    /// What comes after this byte; `None` if it may not be there.
    fn after(self, byte: u8) -> Option<Chunk> {
        Some(match (self, byte) {
            (Chunk::Size(size, digits), b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') if digits < 15 => {
                Chunk::Size(size << 4 | u64::from(char::from(byte).to_digit(16)?), digits + 1)
            }
            (Chunk::Size(size, 1..), b'\r') | (Chunk::Extension(size), b'\r') => Chunk::SizeEnd(size),
            (Chunk::Size(size, 1..), b';' | b' ' | b'\t') => Chunk::Extension(size),
            (Chunk::Extension(size), byte) if byte != b'\n' && byte != 0 => Chunk::Extension(size),
            (Chunk::SizeEnd(0), b'\n') => Chunk::TrailerStart,
            (Chunk::SizeEnd(size), b'\n') => Chunk::Data(size),
            (Chunk::DataReturn, b'\r') => Chunk::DataEnd,
            (Chunk::DataEnd, b'\n') => Chunk::Size(0, 0),
            (Chunk::TrailerStart, b'\r') => Chunk::LastEnd,
            (Chunk::Trailer, b'\r') => Chunk::TrailerEnd,
            (Chunk::TrailerStart | Chunk::Trailer, byte) if byte != b'\n' && byte != 0 => Chunk::Trailer,
            (Chunk::TrailerEnd, b'\n') => Chunk::TrailerStart,
            (Chunk::LastEnd, b'\n') => Chunk::Done,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_ends_where_it_says() {
        let text = b"5;x=1\r\nhello\r\nA\r\n0123456789\r\n0\r\nT: v\r\n\r\nGET / HTTP/1.1";
        let end = text.len() - "GET / HTTP/1.1".len();
        for step in [1, 3, text.len()] {
            let (mut body, mut taken) = (Body::chunked(), 0);
            for part in text.chunks(step) {
                taken += body.take(part).unwrap();
            }
            assert!(taken == end && body.done(), "{step}: {taken}");
        }
        let mut body = Body::Length(3);
        assert!(body.take(b"ab").unwrap() == 2 && !body.done() && body.take(b"cd").unwrap() == 1 && body.done());
    }

    #[test]
    fn doubtful_chunks_are_refused() {
        for text in ["\r\n", "5\nhello", "5\r\nhelloX", "-1\r\n", "0x5\r\n", "1111111111111111\r\n", "0\r\nA\n\r\n"] {
            assert!(Body::chunked().take(text.as_bytes()).is_err(), "{text:?}");
        }
    }
}
