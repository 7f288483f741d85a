//! Local sockets: messages with fds, named sockets of any path length, and the loopback interface.

use super::{Errno, SysResult, check};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// A pair of connected `SOCK_SEQPACKET` sockets.
///
/// # Errors
/// As socketpair(2).
pub fn packet_pair() -> SysResult<(OwnedFd, OwnedFd)> {
    let mut fds = [-1; 2];
    // SAFETY: fds has room for two.
    let made =
        unsafe { libc::socketpair(libc::AF_UNIX, libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC, 0, fds.as_mut_ptr()) };
    check(made.into())?;
    // SAFETY: both are fresh and owned by nothing else.
    Ok(unsafe { (OwnedFd::from_raw_fd(fds[0]), OwnedFd::from_raw_fd(fds[1])) })
}

/// Room for the header and one fd of a control message, aligned as the kernel wants it.
#[repr(align(8))]
struct Control(#[allow(dead_code, reason = "read by the kernel alone")] [u8; 64]);

/// Sends one message, with an fd if one is given; never raises SIGPIPE.
///
/// # Errors
/// `EPIPE` when the other end is gone.
pub fn send(socket: BorrowedFd, bytes: &[u8], fd: Option<BorrowedFd>) -> SysResult<()> {
    let mut iov = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let mut control = Control([0; 64]);
    // SAFETY: msghdr is plain data, and all zeroes is a valid value of it.
    let mut message: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    message.msg_iov = &raw mut iov;
    message.msg_iovlen = 1;
    if let Some(fd) = fd {
        message.msg_control = (&raw mut control).cast();
        // SAFETY: control has room for one header with one fd; CMSG_* only compute addresses inside it.
        unsafe {
            message.msg_controllen = libc::CMSG_SPACE(4) as _;
            let header = libc::CMSG_FIRSTHDR(&raw const message);
            (*header).cmsg_level = libc::SOL_SOCKET;
            (*header).cmsg_type = libc::SCM_RIGHTS;
            (*header).cmsg_len = libc::CMSG_LEN(4) as _;
            libc::CMSG_DATA(header).cast::<i32>().write_unaligned(fd.as_raw_fd());
        }
    }
    loop {
        // SAFETY: message points at live buffers of the lengths given.
        match check(unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL) } as libc::c_long)
        {
            Err(Errno::EINTR) => {}
            other => return other.map(drop),
        }
    }
}

/// Receives one message and an fd if one came with it. A length of 0 is the end.
///
/// # Errors
/// As recvmsg(2).
pub fn receive(socket: BorrowedFd, bytes: &mut [u8]) -> SysResult<(usize, Option<OwnedFd>)> {
    let mut iov = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    let mut control = Control([0; 64]);
    // SAFETY: as in send.
    let mut message: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    message.msg_iov = &raw mut iov;
    message.msg_iovlen = 1;
    message.msg_control = (&raw mut control).cast();
    // SAFETY: only computes a size.
    message.msg_controllen = unsafe { libc::CMSG_SPACE(4) } as _;
    let len = loop {
        // SAFETY: message points at live buffers of the lengths given.
        let got = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_CMSG_CLOEXEC) };
        match check(got as libc::c_long) {
            Err(Errno::EINTR) => {}
            other => break other? as usize,
        }
    };
    // SAFETY: the kernel filled in the control buffer up to msg_controllen; an SCM_RIGHTS header is followed by a fresh fd.
    let fd = unsafe {
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        (!header.is_null() && (*header).cmsg_type == libc::SCM_RIGHTS && (*header).cmsg_level == libc::SOL_SOCKET)
            .then(|| OwnedFd::from_raw_fd(libc::CMSG_DATA(header).cast::<i32>().read_unaligned()))
    };
    Ok((len, fd))
}

fn address(path: &[u8]) -> SysResult<(libc::sockaddr_un, libc::socklen_t)> {
    // SAFETY: sockaddr_un is plain data, and all zeroes is a valid value of it.
    let mut address: libc::sockaddr_un = unsafe { std::mem::zeroed() };
    address.sun_family = libc::AF_UNIX as libc::sa_family_t;
    if path.len() >= address.sun_path.len() {
        return Err(Errno::ENAMETOOLONG);
    }
    for (to, from) in address.sun_path.iter_mut().zip(path) {
        *to = *from as libc::c_char;
    }
    Ok((address, (size_of::<libc::sa_family_t>() + path.len() + 1) as libc::socklen_t))
}

fn socket(kind: i32) -> SysResult<OwnedFd> {
    // SAFETY: integers in, a fresh fd out.
    unsafe { Ok(OwnedFd::from_raw_fd(check(libc::socket(libc::AF_UNIX, kind | libc::SOCK_CLOEXEC, 0).into())? as i32)) }
}

/// Listens on a fresh `SOCK_SEQPACKET` socket at this path (at most 107 bytes).
///
/// # Errors
/// As bind(2) and listen(2).
pub fn listen(path: &[u8]) -> SysResult<OwnedFd> {
    let fd = socket(libc::SOCK_SEQPACKET)?;
    let (address, len) = address(path)?;
    // SAFETY: address is a sockaddr_un of the length given.
    unsafe {
        check(libc::bind(fd.as_raw_fd(), (&raw const address).cast(), len).into())?;
        check(libc::listen(fd.as_raw_fd(), 1).into())?;
    }
    Ok(fd)
}

/// Connects to a socket at this path (at most 107 bytes); `packet` chooses `SOCK_SEQPACKET` over `SOCK_STREAM`.
///
/// # Errors
/// `ECONNREFUSED` when nobody listens any more.
pub fn connect(path: &[u8], packet: bool) -> SysResult<OwnedFd> {
    let fd = socket(if packet { libc::SOCK_SEQPACKET } else { libc::SOCK_STREAM })?;
    let (address, len) = address(path)?;
    // SAFETY: address is a sockaddr_un of the length given.
    check(unsafe { libc::connect(fd.as_raw_fd(), (&raw const address).cast(), len) }.into())?;
    Ok(fd)
}

/// Waits for a connection.
///
/// # Errors
/// As accept4(2).
pub fn accept(listener: BorrowedFd) -> SysResult<OwnedFd> {
    loop {
        // SAFETY: null pointers ask for no address.
        let ret = unsafe {
            libc::accept4(listener.as_raw_fd(), std::ptr::null_mut(), std::ptr::null_mut(), libc::SOCK_CLOEXEC)
        };
        match check(ret.into()) {
            Err(Errno::EINTR) => {}
            // SAFETY: a fresh fd.
            other => return other.map(|fd| unsafe { OwnedFd::from_raw_fd(fd as i32) }),
        }
    }
}

/// Brings the loopback interface of the calling thread's network namespace up.
///
/// # Errors
/// As netdevice(7).
pub fn loopback_up() -> SysResult<()> {
    // SAFETY: a datagram socket for the request alone; ifreq is plain data with the name and flags filled in.
    unsafe {
        let socket = OwnedFd::from_raw_fd(check(
            libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0).into(),
        )? as i32);
        let mut request: libc::ifreq = std::mem::zeroed();
        request.ifr_name[0] = b'l' as libc::c_char;
        request.ifr_name[1] = b'o' as libc::c_char;
        request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as i16;
        check(libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request).into())?;
    }
    Ok(())
}
