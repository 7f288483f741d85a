//! Being told when the kernel runs a container out of memory: by eventfd on v1, by inotify on v2.

use super::{Group, Record, Version};
use crate::error::{Context, Error, Kind, Result};
use nix::errno::Errno;
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::Path;

/// A watch on a container's memory cgroup: poll it for `POLLIN` and call [`OomWatch::read`] when it is ready.
#[derive(Debug)]
pub struct OomWatch {
    source: Source,
    dir: String,
    counted: u64,
}

#[derive(Debug)]
enum Source {
    /// v1 counts in an eventfd; the kernel lets go of it with the cgroup.
    Event(EventFd),
    /// v2 says that memory.events has changed.
    Inotify(Inotify),
}

impl Record {
    /// Starts to watch for the OOM killer.
    ///
    /// # Errors
    /// [`Kind::Status`] when the container has no memory cgroup, [`Kind::Gone`] when that is gone already.
    pub fn oom_watch(&self) -> Result<OomWatch> {
        let Some(group) = self.groups.iter().find(|g| g.has("memory")) else {
            return Err(Error::new(
                Kind::Status,
                "the container has no memory cgroup, so the OOM killer can't be watched",
            )
            .hint("have the memory controller delegated to this user, or mount the memory hierarchy"));
        };
        let dir = group.path.clone();
        let source = watch(group).map_err(|error| match error.kind() {
            Kind::Os(Errno::ENOENT | Errno::ENODEV) if !Path::new(&dir).exists() => {
                Error::new(Kind::Gone, format!("cgroup {dir} is gone: the container has ended"))
            }
            _ => error,
        })?;
        // Read after the watch is there: what happens between is told, and not counted as old.
        let counted = group.oom_kills().unwrap_or_default();
        Ok(OomWatch { source, dir, counted })
    }
}

fn watch(group: &Group) -> Result<Source> {
    let dir = &group.path;
    match group.version {
        Version::V1 => {
            let event = EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
                .during(|| "make an eventfd".into())?;
            let path = format!("{dir}/memory.oom_control");
            let control = File::open(&path).during(|| format!("open {path}"))?;
            let path = format!("{dir}/cgroup.event_control");
            let line = format!("{} {}", event.as_fd().as_raw_fd(), control.as_raw_fd());
            super::write::put(&path, &line).during(|| format!("watch {dir}/memory.oom_control by {path}"))?;
            Ok(Source::Event(event))
        }
        Version::V2 => {
            let inotify =
                Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).during(|| "start inotify".into())?;
            let path = format!("{dir}/memory.events");
            inotify.add_watch(path.as_str(), AddWatchFlags::IN_MODIFY).during(|| format!("watch {path}"))?;
            Ok(Source::Inotify(inotify))
        }
    }
}

impl OomWatch {
    /// How often the container has run out of memory since the last call: processes killed on v2, times that the OOM killer
    /// was called on v1. Never waits; 0 when it was woken for something else (v2 tells of every limit that is hit), and when
    /// the cgroup is gone.
    ///
    /// # Errors
    /// As read(2).
    pub fn read(&mut self) -> Result<u64> {
        match &self.source {
            Source::Event(event) => {
                let times = match event.read() {
                    Err(Errno::EAGAIN) => return Ok(0),
                    other => other.during(|| "read the OOM events".into())?,
                };
                // The end of a cgroup is told in the same way.
                Ok(if Path::new(&self.dir).exists() { times } else { 0 })
            }
            Source::Inotify(inotify) => {
                match inotify.read_events() {
                    Ok(_) | Err(Errno::EAGAIN) => {}
                    Err(errno) => return Err(Error::os("read the OOM events", errno)),
                }
                let Some(now) = oom_kills(&format!("{}/memory.events", self.dir)) else { return Ok(0) };
                let fresh = now.saturating_sub(self.counted);
                self.counted = now;
                Ok(fresh)
            }
        }
    }
}

impl AsFd for OomWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.source {
            Source::Event(event) => event.as_fd(),
            Source::Inotify(inotify) => inotify.as_fd(),
        }
    }
}

impl Group {
    /// How many of its processes the kernel has killed for want of memory; `None` when nobody counts.
    pub(super) fn oom_kills(&self) -> Option<u64> {
        let file = if self.version == Version::V1 { "memory.oom_control" } else { "memory.events" };
        oom_kills(&format!("{}/{file}", self.path))
    }
}

fn oom_kills(path: &str) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    text.lines().find_map(|line| line.strip_prefix("oom_kill "))?.trim().parse().ok()
}
