//! Attending to a process in the foreground: its terminal, the caller's signals, its end.

use crate::error::{Context, Result};
use crate::sys::process::{self, Child, Ended};
use crate::sys::socket;
use std::os::fd::{AsFd, OwnedFd};

/// Where a foreground process is attended from. Made before the clone: signals that come between are kept until somebody
/// looks.
#[derive(Debug)]
pub struct Desk {
    ours: Option<OwnedFd>,
}

impl Desk {
    /// Sets up: a subreaper takes the container's orphans.
    ///
    /// # Errors
    /// As prctl(2).
    pub fn new(subreaper: bool) -> Result<Desk> {
        if subreaper {
            process::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0).during(|| "become a subreaper".into())?;
        }
        Ok(Desk { ours: None })
    }

    /// Lends a socket for the terminal's master, should the process want a terminal and nobody else takes it.
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

    /// Stays with the process until it ends.
    ///
    /// # Errors
    /// As waitid(2).
    pub fn attend(self, child: &Child, _terminal: bool) -> Result<Ended> {
        process::wait(child.pidfd.as_fd()).during(|| "wait for the process".into())
    }
}
