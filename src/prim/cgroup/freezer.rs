//! Freezing, thawing and killing everything in a container's cgroup.

use super::members::{self, Events, brief_wait};
use super::write;
use super::{Group, Record, Version};
use crate::error::{Context, Error, Kind, Result};
use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use std::collections::BTreeSet;
use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long a fork bomb may resist being frozen before it is killed unfrozen.
const FREEZE_TO_KILL: Duration = Duration::from_secs(2);

impl Record {
    /// Whether the container is frozen (paused). FREEZING counts as frozen: only a thaw ends it.
    ///
    /// # Errors
    /// When the state can't be read.
    pub fn is_frozen(&self) -> Result<bool> {
        self.freezer().map_or(Ok(false), Group::frozen)
    }

    /// Freezes every process of the container and waits until all of them stand still.
    ///
    /// # Errors
    /// When it does not happen within ten seconds (it is thawed again then), and when nothing can freeze.
    pub fn freeze(&self) -> Result<()> {
        self.needs_freezer()?.freeze(members::deadline())
    }

    /// Lets the container run again.
    ///
    /// # Errors
    /// When it stays frozen because an ancestor is, and when nothing can freeze.
    pub fn thaw(&self) -> Result<()> {
        self.needs_freezer()?.thaw()
    }

    fn freezer(&self) -> Option<&Group> {
        self.main().filter(|g| g.version == Version::V2 || g.has("freezer"))
    }

    fn needs_freezer(&self) -> Result<&Group> {
        self.freezer().ok_or_else(|| {
            Error::new(Kind::Other, "the container has no cgroup that can be frozen")
                .hint("mount the freezer hierarchy or cgroup v2, and do not disable cgroups")
        })
    }

    /// Sends a signal to every process of the container; none escapes by forking. A container that is frozen stays so,
    /// except for SIGKILL. Returns when the signals are sent, for SIGKILL when the processes have ended. No error if
    /// nothing runs.
    ///
    /// # Errors
    /// A signal that does not exist, no permission, and processes that do not die of SIGKILL within ten seconds.
    pub fn kill(&self, signal: i32) -> Result<()> {
        if !(0..=64).contains(&signal) {
            return Err(Error::invalid(format!("{signal} is no signal; they are 1 to 64")));
        }
        if signal == libc::SIGKILL {
            return self.kill_all();
        }
        let freezer = self.freezer();
        let frozen = self.is_frozen()?;
        if !frozen && let Some(freezer) = freezer {
            // One that can't be stopped still gets its signal.
            let _ = freezer.freeze(Instant::now() + FREEZE_TO_KILL);
        }
        let result = self.signal_until_stable(signal, members::deadline());
        if !frozen && let Some(freezer) = freezer {
            freezer.thaw()?;
        }
        result.map(drop)
    }

    fn kill_all(&self) -> Result<()> {
        let deadline = members::deadline();
        if let Some(group) = self.main().filter(|g| g.version == Version::V2) {
            // Linux 5.14; it reaches the frozen ones and all below.
            match write::put(&format!("{}/cgroup.kill", group.path), "1") {
                Ok(()) => {
                    // Nobody escapes it by forking, so those who are there now are all that have to end.
                    members::wait_for_end(&self.everyone()?, deadline);
                    let events = File::open(&group.path).ok().and_then(|dir| Events::open(dir.as_fd()));
                    if events.is_some_and(|events| !events.wait_for("populated 0", deadline)) {
                        return Err(survivors(&self.everyone()?));
                    }
                    return if self.groups.len() > 1 { self.wait_until_empty(deadline) } else { Ok(()) };
                }
                Err(Errno::ENOENT | Errno::ENODEV | Errno::EOPNOTSUPP) => {}
                Err(errno) => return Err(Error::os(format!("write 1 to {}/cgroup.kill", group.path), errno)),
            }
        }
        let freezer = self.freezer();
        let frozen = freezer.is_some_and(|freezer| freezer.freeze(Instant::now() + FREEZE_TO_KILL).is_ok());
        // Without a freezer, or with one that waits for a process in state D, nobody may fork any more instead.
        let pids_max = if frozen { None } else { self.stop_forks() };
        let result = match frozen {
            true => self.signal_once(libc::SIGKILL),
            false => self.signal_until_stable(libc::SIGKILL, deadline),
        };
        if let Some(freezer) = freezer.filter(|_| frozen) {
            freezer.thaw()?;
        }
        members::wait_for_end(&result?, deadline);
        let result = self.wait_until_empty(deadline);
        if let Some((file, value)) = pids_max {
            let _ = write::put(&file, &value);
        }
        result
    }

    /// Sets the limit of processes to none; returns the file and what was in it.
    fn stop_forks(&self) -> Option<(String, String)> {
        let file = format!("{}/pids.max", self.path_for("pids")?);
        let value = write::read(&file).ok()?;
        write::put(&file, "0").ok()?;
        Some((file, value))
    }

    /// Waits for the end of all processes, killing again whatever is still found: one that forked unfrozen.
    fn wait_until_empty(&self, deadline: Instant) -> Result<()> {
        loop {
            let pids = self.everyone()?;
            if pids.is_empty() {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(survivors(&pids));
            }
            pids.iter().try_for_each(|pid| send(*pid, libc::SIGKILL))?;
            // Not for all of them: while the slowest one dies, a bomb that is not frozen would grow back.
            members::wait_for_end(&pids[..1], deadline.min(Instant::now() + Duration::from_millis(100)));
        }
    }

    /// Signals everybody, and returns who that was.
    fn signal_once(&self, signal: i32) -> Result<Vec<i32>> {
        let pids = self.everyone()?;
        pids.iter().try_for_each(|pid| send(*pid, signal))?;
        Ok(pids)
    }

    /// Signals everybody, and then those who have come in meanwhile, until there is nobody new, or the time is up: what
    /// can't be frozen may fork for ever.
    fn signal_until_stable(&self, signal: i32, deadline: Instant) -> Result<Vec<i32>> {
        let mut done = BTreeSet::new();
        loop {
            let fresh: Vec<i32> = self.everyone()?.into_iter().filter(|pid| done.insert(*pid)).collect();
            if fresh.is_empty() || Instant::now() >= deadline {
                return Ok(done.into_iter().collect());
            }
            fresh.iter().try_for_each(|pid| send(*pid, signal))?;
        }
    }

    /// The processes of every hierarchy: one that was moved out of the freezer's cgroup is still in the others.
    fn everyone(&self) -> Result<Vec<i32>> {
        let mut all = Vec::new();
        for group in &self.groups {
            all.extend(members::pids(&group.path)?);
        }
        all.sort_unstable();
        all.dedup();
        Ok(all)
    }
}

fn survivors(pids: &[i32]) -> Error {
    Error::new(Kind::Other, format!("processes survive SIGKILL: {}", members::names(pids)))
        .hint("a process in state D dies once its device or filesystem answers")
}

fn send(pid: i32, signal: i32) -> Result<()> {
    // A raw number: real-time signals are not among nix's. While the cgroup is frozen no process in it can end, so the
    // number can't have been given to another one.
    let sent = match nix::sys::signal::Signal::try_from(signal) {
        Ok(signal) => kill(Pid::from_raw(pid), signal),
        Err(_) => crate::sys::process::pidfd_open(pid)
            .and_then(|fd| crate::sys::process::pidfd_send_signal(fd.as_fd(), signal)),
    };
    match sent {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(errno) => Err(Error::os(format!("send signal {signal} to process {pid}"), errno)),
    }
}

impl Group {
    fn freeze(&self, deadline: Instant) -> Result<()> {
        let done = match self.version {
            Version::V1 => self.freeze_v1(deadline)?,
            Version::V2 => self.freeze_v2(deadline)?,
        };
        if done {
            return Ok(());
        }
        let _ = self.thaw();
        let pids = members::pids(&self.path).unwrap_or_default();
        let what = format!("cgroup {} does not freeze; in it are {}", self.path, members::names(&pids));
        Err(Error::new(Kind::Other, what)
            .hint("a process in state D can't be frozen until its device or filesystem answers"))
    }

    fn freeze_v1(&self, deadline: Instant) -> Result<bool> {
        let path = format!("{}/freezer.state", self.path);
        let start = Instant::now();
        loop {
            // Written again each time: that is how a task which has left a vfork or an uninterruptible wait is found.
            write::put(&path, "FROZEN").during(|| format!("write FROZEN to {path}"))?;
            if write::read(&path)? == "FROZEN" {
                return Ok(true);
            }
            if Instant::now() >= deadline {
                return Ok(false);
            }
            brief_wait(start);
        }
    }

    fn freeze_v2(&self, deadline: Instant) -> Result<bool> {
        let path = format!("{}/cgroup.freeze", self.path);
        write::put(&path, "1").during(|| format!("write 1 to {path}"))?;
        let dir = File::open(&self.path).during(|| format!("open {}", self.path))?;
        let events = Events::open(dir.as_fd());
        Ok(events.is_some_and(|events| events.wait_for("frozen 1", deadline)))
    }

    fn thaw(&self) -> Result<()> {
        let (file, value) = match self.version {
            Version::V1 => ("freezer.state", "THAWED"),
            Version::V2 => ("cgroup.freeze", "0"),
        };
        let path = format!("{}/{file}", self.path);
        match write::put(&path, value) {
            // Gone with its last process.
            Err(Errno::ENOENT | Errno::ENODEV) => return Ok(()),
            other => other.during(|| format!("write {value} to {path}"))?,
        }
        let above = || {
            let inside = |path: &&Path| path.starts_with(&self.mount) && *path != Path::new(&self.mount);
            let mut ancestors = Path::new(&self.path).ancestors().skip(1).take_while(inside);
            ancestors.any(|path| std::fs::read(path.join("cgroup.freeze")).is_ok_and(|text| text.starts_with(b"1")))
        };
        if self.frozen()? && (self.version == Version::V1 || above()) {
            return Err(Error::new(
                Kind::Status,
                format!("cgroup {} stays frozen, because one above it is", self.path),
            )
            .hint("thaw the ancestor (a paused pod) first"));
        }
        Ok(())
    }
}
