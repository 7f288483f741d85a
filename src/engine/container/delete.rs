//! The end of a container: what still runs in it is killed, and what it leaves is removed.

use super::{Request, compile_cgroup, remove_intel_rdt, run_hook};
use crate::engine::store::{Entry, Saved, Status, Store, wrong_status};
use crate::error::{Error, Kind, Result};
use crate::prim::cgroup::Manager;
use crate::sys::process;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

/// Removes a container. One that still runs is refused, or killed with `force`; with `force` one that does not exist is no
/// error. Returns what went wrong with poststop hooks, which stop nothing.
///
/// # Errors
/// What could not be removed; calling it again goes on from there.
pub fn delete(store: &Store, id: &str, force: bool) -> Result<Vec<Error>> {
    let entry = match store.open(id) {
        Err(e) if force && e.kind() == Kind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let saved = match entry.load() {
        Ok(Some(saved)) => saved,
        Ok(None) if force => return salvage(entry, id),
        Ok(None) => {
            return Err(
                wrong_status("delete", id, Status::Creating).hint("brig delete --force removes what is left of it")
            );
        }
        Err(_) if force => return salvage(entry, id),
        Err(e) => return Err(e),
    };
    match saved.status(entry.path()) {
        Status::Stopped | Status::Created => {}
        _ if force => {}
        status => {
            return Err(wrong_status("delete", id, status)
                .context("container is not stopped")
                .hint(format!("kill it first, or use: brig delete --force {id}")));
        }
    }
    end(&saved)?;
    dispose(entry, &saved)
}

/// Removes a container whose state is lost or damaged: what its config names as its cgroups, with all that runs in them.
fn salvage(entry: Entry, id: &str) -> Result<Vec<Error>> {
    for manager in [Manager::Cgroupfs, Manager::Systemd] {
        let request = Request { id: id.to_owned(), manager, ..Request::default() };
        let Ok(cgroups) = entry.config().and_then(|spec| compile_cgroup(&request, &spec)) else { continue };
        let record = cgroups.record();
        if record.exists() {
            record.kill(libc::SIGKILL)?;
            record.remove()?;
        }
    }
    entry.remove().map(|()| Vec::new())
}

/// Ends every process of a container and waits until they are gone.
fn end(saved: &Saved) -> Result<()> {
    if let Ok(pidfd) = saved.process() {
        let _ = process::pidfd_send_signal(pidfd.as_fd(), libc::SIGKILL);
        if saved.cgroup.is_frozen()? {
            saved.cgroup.thaw()?;
        }
        wait_gone(pidfd.as_fd())?;
    }
    // What the first process left behind: all of it where there is no PID namespace.
    if saved.cgroup.pids().is_ok_and(|pids| !pids.is_empty()) {
        saved.cgroup.kill(libc::SIGKILL)?;
    }
    Ok(())
}

/// How long a killed process may take to go; one stuck in the kernel would hold the command for ever.
const GONE_TIMEOUT: Duration = Duration::from_secs(10);

fn wait_gone(pidfd: BorrowedFd) -> Result<()> {
    match process::ends_within(pidfd, GONE_TIMEOUT) {
        Ok(false) => Err(Error::new(Kind::Other, "the container's process does not end, 10 seconds after SIGKILL")
            .hint("it may be stuck in the kernel; try again later")),
        Ok(true) => Ok(()),
        Err(errno) => Err(Error::os("poll", errno)),
    }
}

/// Removes what a stopped container leaves: cgroups, resctrl groups, the state; then runs the poststop hooks.
fn dispose(entry: Entry, saved: &Saved) -> Result<Vec<Error>> {
    saved.cgroup.remove()?;
    remove_intel_rdt(saved)?;
    let hooks = entry.config().map(|spec| spec.hooks().poststop.clone()).unwrap_or_default();
    entry.remove()?;
    Ok(hooks
        .iter()
        .enumerate()
        .filter_map(|(index, hook)| run_hook(hook, "poststop", index, saved, "stopped").err())
        .collect())
}
