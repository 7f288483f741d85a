//! Terminals made by tests, sockets that descriptors come over, and the agent's side of seccomp notifications.

use super::os;
use nix::pty::{OpenptyResult, openpty};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use std::io::{IoSliceMut, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};

/// A terminal of this many rows and columns: our end, and the one for the other side.
pub fn terminal(rows: u16, columns: u16) -> (OwnedFd, OwnedFd) {
    let size = nix::pty::Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    let OpenptyResult { master, slave } = openpty(&size, None).expect("a terminal");
    for fd in [&master, &slave] {
        let flag = nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC);
        nix::fcntl::fcntl(fd, flag).expect("close-on-exec");
    }
    (master, slave)
}

/// Changes a terminal's size.
pub fn resize(master: &OwnedFd, rows: u16, columns: u16) {
    let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCSWINSZ reads one winsize.
    assert_eq!(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) }, 0);
}

/// Types into a terminal.
pub fn type_in(master: &OwnedFd, text: &[u8]) {
    std::fs::File::from(master.try_clone().expect("a descriptor")).write_all(text).expect("typing");
}

/// Makes the calling process the leader of a session on the terminal that is its standard input.
pub fn lead_session() -> std::io::Result<()> {
    nix::unistd::setsid()?;
    // SAFETY: takes integers only.
    if unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) } < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
}

/// The next connection, waited for with patience.
#[track_caller]
pub fn accept(listener: &UnixListener) -> UnixStream {
    assert!(os::readable(listener, os::PATIENCE), "nobody connects");
    listener.accept().expect("a connection").0
}

/// The next message: its text and the descriptors that came with it.
#[track_caller]
pub fn receive(stream: &UnixStream) -> (String, Vec<OwnedFd>) {
    assert!(os::readable(stream, os::PATIENCE), "nothing comes over the socket");
    let mut buffer = vec![0; 65536];
    let mut space = nix::cmsg_space!([i32; 8]);
    let mut fds = Vec::new();
    let length = {
        let mut slices = [IoSliceMut::new(&mut buffer)];
        let message = recvmsg::<()>(stream.as_raw_fd(), &mut slices, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)
            .expect("a message");
        for control in message.cmsgs().expect("control messages") {
            if let ControlMessageOwned::ScmRights(received) = control {
                // SAFETY: the kernel has just made these descriptors for this process.
                fds.extend(received.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
            }
        }
        message.bytes
    };
    (String::from_utf8_lossy(&buffer[..length]).into_owned(), fds)
}

/// Waits for one seccomp notification and answers it with this error (negative).
#[track_caller]
pub fn answer_notification(listener: &OwnedFd, error: i32) {
    const RECEIVE: libc::c_ulong = 0xc050_2100;
    const SEND: libc::c_ulong = 0xc018_2101;
    assert!(os::readable(listener, os::PATIENCE), "no notification comes");
    // struct seccomp_notif is 80 bytes that begin with an id; struct seccomp_notif_resp is id, val, error, flags.
    let mut request = [0_u64; 10];
    // SAFETY: the buffer has the size that the request's number says.
    assert_eq!(unsafe { libc::ioctl(listener.as_raw_fd(), RECEIVE, request.as_mut_ptr()) }, 0, "receive");
    let mut response = [request[0], 0, u64::from(error.cast_unsigned())];
    // SAFETY: as above.
    assert_eq!(unsafe { libc::ioctl(listener.as_raw_fd(), SEND, response.as_mut_ptr()) }, 0, "send");
}
