//! What the program opens although it is hidden from it, told by inotify; see [`crate::prim::cover`] for what is not told.

use super::report::Violation;
use super::supervise::micros;
use crate::sys::inotify;
use nix::sys::inotify::Inotify;
use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::Instant;

/// How many times is read at once at most: as much as the kernel keeps (inotify(7), `max_queued_events`) is less.
const READS_MAX: usize = 256;

/// The number of an inotify's first watch.
const FIRST: i32 = 1;

/// A watch over hidden paths and what it has heard.
pub struct Watch {
    inotify: Inotify,
    /// By the number that is each one's name in the cover.
    paths: Vec<PathBuf>,
    started: Instant,
    heard: BTreeMap<usize, Violation>,
}

impl Watch {
    /// Takes the watch over from the child; times count from `started`.
    pub fn new(fd: OwnedFd, paths: Vec<PathBuf>, started: Instant) -> Watch {
        Watch { inotify: inotify(fd), paths, started, heard: BTreeMap::new() }
    }

    /// For poll(2).
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }

    /// Hears what there is, up to a limit, and returns what was denied for the first time. Never waits. The kernel takes several openings
    /// of one path in a row for one, so that a count is the least that there were.
    pub fn hear(&mut self) -> Vec<Violation> {
        let mut fresh = Vec::new();
        for _ in 0..READS_MAX {
            let Ok(events) = self.inotify.read_events() else { break };
            for name in events.into_iter().filter_map(|event| event.name) {
                let number = name.to_str().and_then(|name| name.parse::<usize>().ok());
                let Some((number, path)) = number.and_then(|n| Some((n, self.paths.get(n)?))) else { continue };
                if let Some(known) = self.heard.get_mut(&number) {
                    known.count += 1;
                    continue;
                }
                let violation = Violation {
                    at_us: micros(self.started),
                    kind: "file",
                    what: format!("read {}", path.display()),
                    program: String::new(),
                    pid: 0,
                    count: 1,
                };
                self.heard.insert(number, violation.clone());
                fresh.push(violation);
            }
        }
        fresh
    }

    /// Hears no more, and returns everything that was heard.
    ///
    /// Removing a watch takes the kernel two grace periods, of the watch and of its list. It waits for the first when the inotify is
    /// closed (fsnotify_destroy_group), and for jiffies instead of microseconds if it finds the second on its way. So the watch is
    /// removed here, and whoever is in a hurry closes the inotify some time later.
    pub fn stop(&mut self) -> Vec<Violation> {
        let _ = crate::sys::inotify_unwatch(self.as_fd(), FIRST);
        std::mem::take(&mut self.heard).into_values().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::inotify::{AddWatchFlags, InitFlags};
    use std::fs;

    #[test]
    fn openings_are_told_by_path_once_and_counted() {
        let dir = std::env::temp_dir().join(format!("brig-watch-{}", std::process::id()));
        fs::create_dir_all(dir.join("1")).unwrap();
        fs::write(dir.join("0"), "").unwrap();
        let own = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).unwrap();
        own.add_watch(&dir, AddWatchFlags::IN_OPEN).unwrap();
        let paths = ["/etc/shadow", "/root/.ssh"].map(PathBuf::from).to_vec();
        let mut watch = Watch::new(own.into(), paths, Instant::now());
        assert!(watch.hear().is_empty());
        let open = |name: &str| drop(fs::File::open(dir.join(name)).unwrap());
        open("1");
        open("0");
        let fresh: Vec<_> = watch.hear().into_iter().map(|v| (v.kind, v.what)).collect();
        assert_eq!(fresh, [("file", "read /root/.ssh".into()), ("file", "read /etc/shadow".to_owned())]);
        open("1");
        assert!(watch.hear().is_empty());
        fs::remove_dir_all(dir).unwrap();
        assert_eq!(watch.stop().iter().map(|v| v.count).collect::<Vec<_>>(), [1, 2]);
    }
}
