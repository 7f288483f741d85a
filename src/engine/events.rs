//! What happens to a container, as it happens: what it uses at every interval, and the OOM killer.

use super::pause::needs_cgroup;
use super::stats::Event;
use super::store::{Saved, Status, Store, wrong_status};
use crate::error::{Context, Error, Kind, Result};
use crate::prim::cgroup::OomWatch;
use crate::prim::intelrdt;
use crate::sys::process::{ends_within, tells_end};
use crate::sys::{Errno, timer};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

/// A container that runs.
pub struct Watched {
    saved: Saved,
    process: OwnedFd,
    resctrl: Option<PathBuf>,
}

/// Finds a container to be watched.
///
/// # Errors
/// [`Kind::Gone`] when it does not run; one without a cgroup.
pub fn find(store: &Store, id: &str) -> Result<Watched> {
    let saved = store.peek(id)?;
    if saved.pid == 0 {
        return Err(wrong_status("watch", id, Status::Creating));
    }
    let process = saved.process().map_err(|_| gone(id))?;
    needs_cgroup(&saved, "watched")?;
    let resctrl = saved.intel_rdt.as_ref().and_then(|_| intelrdt::find_root().ok());
    Ok(Watched { saved, process, resctrl })
}

fn gone(id: &str) -> Error {
    Error::new(Kind::Gone, format!("container {id:?} is not running"))
}

impl Watched {
    /// What it uses, as an event's line.
    ///
    /// # Errors
    /// [`Kind::Gone`] when it has ended meanwhile.
    pub fn stats(&self) -> Result<String> {
        let stats = self.saved.cgroup.stats().map_err(|error| match error.kind() {
            Kind::Gone => gone(&self.saved.id),
            _ => error,
        })?;
        let rdt = self.saved.intel_rdt.as_ref().zip(self.resctrl.as_ref()).map(|(record, root)| record.stats(root));
        Ok(Event::stats(&self.saved.id, &stats, rdt).line())
    }

    /// Gives a line for what it uses at every interval, and one for each time that it runs out of memory, until it ends or
    /// `line` says that nobody reads any more. `reader` is where the lines go: it is watched for being left.
    ///
    /// # Errors
    /// As poll(2); what can't be read. That the container ends is none.
    pub fn follow(
        &self,
        interval: Duration,
        reader: BorrowedFd,
        warn: impl FnOnce(&Error),
        line: &mut dyn FnMut(&str) -> Result<bool>,
    ) -> Result<()> {
        let mut oom = match self.saved.cgroup.oom_watch() {
            Ok(oom) => Some(oom),
            Err(error) if error.kind() == Kind::Gone => return Ok(()),
            Err(error) => {
                warn(&error);
                None
            }
        };
        let timer = timer::every(interval).during(|| format!("set a timer for every {interval:?}"))?;
        // Without pidfds the end shows when the next statistics are due.
        let by_event = tells_end(self.process.as_fd());
        let end = if by_event { PollFlags::POLLIN } else { PollFlags::empty() };
        loop {
            let mut fds = vec![
                PollFd::new(self.process.as_fd(), end),
                PollFd::new(reader, PollFlags::empty()),
                PollFd::new(timer.as_fd(), PollFlags::POLLIN),
            ];
            fds.extend(oom.as_ref().map(|oom| PollFd::new(oom.as_fd(), PollFlags::POLLIN)));
            match poll(&mut fds, PollTimeout::NONE) {
                Err(Errno::EINTR) => continue,
                other => other.during(|| "wait for events".into())?,
            };
            let [mut ended, left] = [0, 1].map(|at: usize| fds[at].any().unwrap_or(true));
            if !by_event {
                ended = ends_within(self.process.as_fd(), Duration::ZERO) != Ok(false);
            }
            // What ended it comes before its end.
            if left || !self.tell_of_oom(oom.as_mut(), line)? || ended {
                return Ok(());
            }
            if timer::passed(timer.as_fd()).during(|| "read the timer".into())? == 0 {
                continue;
            }
            match self.stats() {
                Ok(text) if line(&text)? => {}
                Err(error) if error.kind() != Kind::Gone => return Err(error),
                _ => return Ok(()),
            }
        }
    }

    fn tell_of_oom(&self, oom: Option<&mut OomWatch>, line: &mut dyn FnMut(&str) -> Result<bool>) -> Result<bool> {
        let Some(oom) = oom else { return Ok(true) };
        let text = Event::oom(&self.saved.id).line();
        for _ in 0..oom.read()? {
            if !line(&text)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
