//! What parent and child say to each other: fixed-size messages over a close-on-exec `SOCK_SEQPACKET` pair. Its end after
//! the last message means that exec worked.

use super::plan::Sync;
use crate::sys::{Call, Errno, Failure, SysResult, files};
use std::os::fd::{BorrowedFd, OwnedFd};

/// Length of every message.
const SIZE: usize = 16;

/// A message of the child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Message {
    /// It waits at a sync point; the number depends on which.
    At(Sync, i32),
    /// The stage made the container's process; its pidfd comes with the message.
    Born,
    /// A step failed.
    Failed {
        /// Its number.
        step: u16,
        /// What failed.
        failure: Failure,
        /// More, where the call has more to say (a hook's exit status or signal).
        detail: i32,
    },
}

/// Added to the number of a step that runs after the gate.
pub const LATE: u16 = 0x8000;
/// In the place of a step's number: the child's way into its v2 cgroup, before the first step.
pub const JOIN: u16 = 0x3fff;
/// Added to the number of a step of the stage.
pub const STAGE: u16 = 0x4000;

fn encode(message: Message) -> [u8; SIZE] {
    let mut bytes = [0; SIZE];
    let (kind, call, step, errno, detail) = match message {
        Message::At(sync, number) => (sync as u8, 0, 0, 0, number),
        Message::Born => (0xfe, 0, 0, 0, 0),
        Message::Failed { step, failure, detail } => (0xff, failure.call as u8, step, failure.errno as i32, detail),
    };
    bytes[0] = kind;
    bytes[1] = call;
    bytes[2..4].copy_from_slice(&step.to_ne_bytes());
    bytes[4..8].copy_from_slice(&errno.to_ne_bytes());
    bytes[8..12].copy_from_slice(&detail.to_ne_bytes());
    bytes
}

fn decode(bytes: [u8; SIZE]) -> Option<Message> {
    let number = |at: usize| i32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    Some(match bytes[0] {
        1 => Message::At(Sync::Maps, number(8)),
        2 => Message::At(Sync::Runtime, number(8)),
        3 => Message::At(Sync::Ready, number(8)),
        4 => Message::At(Sync::Notify, number(8)),
        5 => Message::At(Sync::Scope, number(8)),
        6 => Message::At(Sync::Handover, number(8)),
        0xfe => Message::Born,
        0xff => Message::Failed {
            step: u16::from_ne_bytes([bytes[2], bytes[3]]),
            failure: Failure { call: Call::from_number(bytes[1])?, errno: Errno::from_raw(number(4)) },
            detail: number(8),
        },
        _ => return None,
    })
}

/// Sends a message. For the child: allocates nothing.
///
/// # Errors
/// `EPIPE` when the parent is gone.
pub fn tell(socket: BorrowedFd, message: Message) -> SysResult<()> {
    // write(2), not sendmsg(2): of the two it is the one that any filter allows. SIGPIPE may end a child that nobody hears.
    files::write(socket, &encode(message))
}

/// Sends the last words of a program that failed, behind [`Message::Failed`]. For the child: allocates nothing.
pub fn tell_said(socket: BorrowedFd, (older, newer): (&[u8], &[u8])) {
    for piece in [older, newer] {
        if !piece.is_empty() {
            let _ = files::write(socket, piece);
        }
    }
}

/// What came behind a failure, up to the end.
pub fn hear_said(socket: BorrowedFd) -> Vec<u8> {
    let mut said = Vec::new();
    let mut piece = [0; 8192];
    while let Ok(n @ 1..) = files::read(socket, &mut piece) {
        said.extend_from_slice(&piece[..n]);
    }
    said
}

/// Waits for the other end's leave to go on. For the child: allocates nothing.
///
/// # Errors
/// `EPIPE` when the parent is gone: then nobody waits for this container.
pub fn wait(socket: BorrowedFd) -> SysResult<()> {
    match files::read(socket, &mut [0; SIZE])? {
        0 => Err(Errno::EPIPE),
        _ => Ok(()),
    }
}

/// Lets the child go on.
///
/// # Errors
/// `EPIPE` when the child is gone.
pub fn go(socket: BorrowedFd) -> SysResult<()> {
    crate::sys::socket::send(socket, &[1], None)
}

/// The next message of the child; `None` at the end.
///
/// # Errors
/// As read(2); `EBADMSG` for what is no message.
pub fn hear(socket: BorrowedFd) -> SysResult<Option<Message>> {
    let mut bytes = [0; SIZE];
    match files::read(socket, &mut bytes) {
        Ok(0) | Err(Errno::ECONNRESET) => Ok(None),
        Ok(SIZE) => decode(bytes).map(Some).ok_or(Errno::EBADMSG),
        Ok(_) => Err(Errno::EBADMSG),
        Err(errno) => Err(errno),
    }
}

/// Announces the container's process with its pidfd. For the child: allocates nothing.
///
/// # Errors
/// `EPIPE` when the parent is gone.
pub fn tell_born(socket: BorrowedFd, pidfd: BorrowedFd) -> SysResult<()> {
    crate::sys::socket::send(socket, &encode(Message::Born), Some(pidfd))
}

/// Hands an fd over at a sync point; the number says which it is. For the child: allocates nothing.
///
/// # Errors
/// `EPIPE` when the parent is gone.
pub fn hand_over(socket: BorrowedFd, number: i32, fd: BorrowedFd) -> SysResult<()> {
    crate::sys::socket::send(socket, &encode(Message::At(Sync::Handover, number)), Some(fd))
}

/// As [`hear`], with the fd that came with the message: the pidfd of a process that was born, or what is handed over.
///
/// # Errors
/// As [`hear`].
pub fn hear_born(socket: BorrowedFd) -> SysResult<(Option<Message>, Option<OwnedFd>)> {
    let mut bytes = [0; SIZE];
    match crate::sys::socket::receive(socket, &mut bytes) {
        Ok((0, _)) | Err(Errno::ECONNRESET) => Ok((None, None)),
        Ok((SIZE, fd)) => Ok((Some(decode(bytes).ok_or(Errno::EBADMSG)?), fd)),
        Ok(_) => Err(Errno::EBADMSG),
        Err(errno) => Err(errno),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_survives_the_wire() {
        let failure = Failure { call: Call::PivotRoot, errno: Errno::EINVAL };
        for message in [
            Message::At(Sync::Notify, 7),
            Message::At(Sync::Scope, 0),
            Message::Failed { step: LATE | 3, failure, detail: -1 },
        ] {
            assert_eq!(decode(encode(message)), Some(message));
        }
        assert_eq!(decode([9; SIZE]), None);
    }
}
