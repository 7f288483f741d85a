//! The steps that give the container its terminal, or its user the streams that were handed in.

use super::State;
use crate::prim::terminal;
use crate::sys::mount;
use crate::sys::path::{self, Follow};
use crate::sys::{At, Call, Errno, Failure, files};
use nix::fcntl::OFlag;
use nix::sys::stat::{SFlag, fstat};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

/// The filesystem type of devpts, see statfs(2).
const DEVPTS: i64 = 0x1cd1;

/// Makes a pty in the container's own devpts, sends its master away, and takes its slave as terminal and standard streams.
pub(super) fn make_terminal(
    socket: BorrowedFd,
    size: Option<(u16, u16)>,
    console: bool,
    uid: u32,
    state: &State,
) -> Result<(), Failure> {
    let root = state.root()?;
    // Not /dev/ptmx, which may be a symlink of the image's: the multiplexer of the container's devpts itself.
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_NOFOLLOW;
    let master = path::open(root, c"dev/pts/ptmx", flags, Follow::InRoot).at(Call::Open)?;
    if crate::sys::filesystem(master.as_fd()).at(Call::Stat)? != DEVPTS {
        return Err(Failure::check(Errno::ENOTTY));
    }
    let slave = terminal::open_slave(master.as_fd(), size).at(Call::IoctlTty)?;
    crate::sys::own_stream(slave.as_raw_fd(), uid);
    if console {
        // A file of the image's, or a fresh one; never through a symlink (CVE-2026-88264).
        let (dev, name) = path::make_parent(root, c"dev/console").at(Call::Open)?;
        let create = OFlag::O_CREAT | OFlag::O_NOFOLLOW | OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
        match files::open(Some(dev.as_fd()), name, create | OFlag::O_EXCL) {
            Ok(_) | Err(Errno::EEXIST) => {}
            Err(errno) => return Err(Failure { call: Call::Open, errno }),
        }
        let place = files::open(Some(dev.as_fd()), name, OFlag::O_PATH | OFlag::O_NOFOLLOW).at(Call::Open)?;
        if path::kind(&fstat(&place).at(Call::Stat)?) == SFlag::S_IFLNK {
            return Err(Failure { call: Call::Open, errno: Errno::ELOOP });
        }
        mount::bind(slave.as_fd(), place.as_fd())?;
    }
    terminal::send_master(socket, master.as_fd()).at(Call::Send)?;
    terminal::take(slave.as_fd()).at(Call::IoctlTty)
}

/// Pipes and terminals handed in belong to the engine's user; the container's user must be able to reopen them through
/// /proc/self/fd. What can't be given stays as it is.
pub(super) fn own_stdio(uid: u32) -> Result<(), Failure> {
    for fd in [0, 1, 2] {
        crate::sys::own_stream(fd, uid);
    }
    Ok(())
}
