//! Attending to a process in the foreground: its terminal, the caller's signals, its end.

use crate::error::{Context, Result};
use crate::prim::terminal::attend::{Relay, attend, become_subreaper};
use crate::prim::terminal::receive_master;
use crate::sys::process::{self, Child, Ended};
use crate::sys::socket;
use std::io::{Stdin, Stdout};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::LazyLock;

static STDIN: LazyLock<Stdin> = LazyLock::new(std::io::stdin);
static STDOUT: LazyLock<Stdout> = LazyLock::new(std::io::stdout);

/// Where a foreground process is attended from. Made before the clone, with all signals blocked: those that come meanwhile
/// are kept until somebody looks.
pub struct Desk {
    ours: Option<OwnedFd>,
    relay: Option<Relay<'static>>,
    mask: libc::sigset_t,
    subreaper: bool,
}

impl Desk {
    /// Sets up; as a subreaper the caller gets the container's orphans, and reaps them.
    ///
    /// # Errors
    /// As prctl(2).
    pub fn new(subreaper: bool) -> Result<Desk> {
        if subreaper {
            become_subreaper()?;
        }
        Ok(Desk { ours: None, relay: None, mask: process::block_signals(), subreaper })
    }

    /// Lends a socket for the terminal's master, should the process want a terminal and nobody else take it.
    ///
    /// # Errors
    /// As socketpair(2).
    pub fn lend_console(&mut self, console: &mut Option<OwnedFd>) -> Result<()> {
        if console.is_none() {
            let (ours, theirs) = socket::packet_pair().during(|| "make a socket pair".into())?;
            *console = Some(theirs);
            self.ours = Some(ours);
        }
        Ok(())
    }

    /// Takes the terminal that was sent meanwhile and connects it, before the program runs: from its first moment it sees the
    /// caller's size and modes.
    ///
    /// # Errors
    /// The caller's terminal does not want to be raw.
    pub fn take_terminal(&mut self) -> Result<()> {
        if let Some(ours) = self.ours.take() {
            self.relay = Some(Relay::new(receive_master(ours.as_fd())?, STDIN.as_fd(), STDOUT.as_fd())?);
        }
        Ok(())
    }

    /// Stays with the process until it ends: relays its terminal, forwards signals.
    ///
    /// # Errors
    /// As waitid(2).
    pub fn attend(mut self, child: &Child) -> Result<Ended> {
        attend(child, self.relay.take(), self.subreaper)
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        process::restore_signals(&self.mask);
    }
}
