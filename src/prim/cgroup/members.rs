//! The processes and sub-cgroups inside of a cgroup: finding, waiting, removing. A container that may write its cgroups can
//! nest them as deep as it likes, so everything walks by directory fds and without recursion.

use super::write::errno;
use crate::error::{Context, Error, Kind, Result};
use crate::sys::process::{pidfd_open, tells_end};
use nix::dir::{Dir, Type};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::{Mode, fstat};
use nix::unistd::{UnlinkatFlags, unlinkat};
use std::ffi::{CStr, CString};
use std::fs::{self, File};
use std::io::Read as _;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::time::{Duration, Instant};

/// How long processes that should be ending may take.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// How many processes are waited for at a time; more would only need more fds than a process may have.
const BATCH: usize = 256;

const DIRECTORY: OFlag = OFlag::O_DIRECTORY.union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

pub(super) fn deadline() -> Instant {
    Instant::now() + PATIENCE
}

/// Every process in a cgroup and below it, in order; none when it is gone.
pub(super) fn pids(path: &str) -> Result<Vec<i32>> {
    let mut found = match open(path, DIRECTORY, Mode::empty()).and_then(pids_at_and_below) {
        Err(Errno::ENOENT | Errno::ENODEV) => return Ok(Vec::new()),
        other => other.during(|| format!("read {path}/cgroup.procs"))?,
    };
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

fn own_pids(dir: BorrowedFd) -> Result<Vec<i32>, Errno> {
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
    parse_pids(File::from(openat(dir, "cgroup.procs", flags, Mode::empty())?))
}

/// The threads of a threaded v2 cgroup; empty for any other.
fn threads(dir: BorrowedFd) -> Vec<i32> {
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
    let is_threaded = || {
        let mut kind = String::new();
        let file = openat(dir, "cgroup.type", flags, Mode::empty()).map(File::from);
        file.is_ok_and(|mut file| file.read_to_string(&mut kind).is_ok()) && kind.trim() == "threaded"
    };
    match openat(dir, "cgroup.threads", flags, Mode::empty()) {
        Ok(file) if is_threaded() => parse_pids(File::from(file)).unwrap_or_default(),
        _ => Vec::new(),
    }
}

/// Waits for a change in a v2 cgroup's `populated` or `frozen`, after having looked at it: the descriptor tells of changes
/// since it was last read.
pub(super) struct Events(File);

impl Events {
    /// `None` on v1, and where the cgroup is gone.
    pub fn open(dir: BorrowedFd) -> Option<Events> {
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
        openat(dir, "cgroup.events", flags, Mode::empty()).ok().map(|fd| Events(File::from(fd)))
    }

    /// Whether cgroup.events has this line, or the cgroup is gone.
    fn is(&self, line: &str) -> bool {
        let mut buffer = [0; 256];
        let Ok(n) = self.0.read_at(&mut buffer, 0) else { return true };
        buffer[..n].split(|b| *b == b'\n').any(|found| found == line.as_bytes())
    }

    /// Waits until cgroup.events has this line or the cgroup is gone; false when the time is up first.
    pub fn wait_for(&self, line: &str, deadline: Instant) -> bool {
        loop {
            if self.is(line) {
                return true;
            }
            let Some(left) = time_left(deadline) else { return false };
            if !matches!(poll(&mut [PollFd::new(self.0.as_fd(), PollFlags::POLLPRI)], left), Ok(_) | Err(Errno::EINTR))
            {
                return false;
            }
        }
    }
}

fn parse_pids(mut file: File) -> Result<Vec<i32>, Errno> {
    let mut text = String::new();
    match file.read_to_string(&mut text).map_err(|e| errno(&e)) {
        // Threaded v2 cgroups have no processes: these show in the domain above.
        Err(Errno::EOPNOTSUPP) => return Ok(Vec::new()),
        other => other?,
    };
    // A process of a PID namespace beyond ours reads as 0.
    Ok(text.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid > 0).collect())
}

fn pids_at_and_below(top: OwnedFd) -> Result<Vec<i32>, Errno> {
    let mut found = match own_pids(top.as_fd())? {
        // All of a threaded cgroup's processes show in the domain above it, but its threads show here.
        none if none.is_empty() => threads(top.as_fd()),
        found => found,
    };
    let mut pending = vec![children(top.as_fd())?];
    let mut dir = top;
    while let Some(names) = pending.last_mut() {
        match names.pop() {
            Some(name) => match openat(dir.as_fd(), name.as_c_str(), DIRECTORY, Mode::empty()) {
                Err(Errno::ENOENT) => {}
                Err(errno) => return Err(errno),
                Ok(child) => {
                    // It may be removed while it is read.
                    match own_pids(child.as_fd()) {
                        Err(Errno::ENOENT | Errno::ENODEV) => continue,
                        other => found.extend(other?),
                    }
                    pending.push(children(child.as_fd())?);
                    dir = child;
                }
            },
            None => {
                pending.pop();
                if !pending.is_empty() {
                    dir = openat(dir.as_fd(), "..", DIRECTORY, Mode::empty())?;
                }
            }
        }
    }
    Ok(found)
}

fn children(dir: BorrowedFd) -> Result<Vec<CString>, Errno> {
    // A directory's own two links, and one from each child: most cgroups need no listing.
    if fstat(dir)?.st_nlink == 2 {
        return Ok(Vec::new());
    }
    let mut listing = Dir::openat(dir, ".", DIRECTORY, Mode::empty())?;
    let is_child = |e: &nix::dir::Entry| e.file_type() == Some(Type::Directory) && !is_dots(e.file_name());
    Ok(listing.iter().filter_map(Result::ok).filter(is_child).map(|e| e.file_name().to_owned()).collect())
}

fn is_dots(name: &CStr) -> bool {
    name == c"." || name == c".."
}

/// Removes a cgroup and all below it, from the bottom up.
pub(super) fn remove_tree(path: &str, deadline: Instant) -> Result<()> {
    let Some((parent, name)) = path.rsplit_once('/') else { return Ok(()) };
    let what = || format!("remove cgroup {path}");
    let parent = match open(parent, DIRECTORY, Mode::empty()) {
        Err(Errno::ENOENT) => return Ok(()),
        other => other.during(what)?,
    };
    let name = CString::new(name).map_err(|_| Error::invalid(format!("{path:?} has a zero byte in it")))?;
    let mut dir = match openat(parent.as_fd(), name.as_c_str(), DIRECTORY, Mode::empty()) {
        Err(Errno::ENOENT) => return Ok(()),
        other => other.during(what)?,
    };
    // The names from the top to `dir`, and what is still to be removed in each.
    let mut names = vec![name];
    let mut pending = vec![children(dir.as_fd()).during(what)?];
    while let Some(name) = names.last() {
        if let Some(child) = pending.last_mut().and_then(Vec::pop) {
            match openat(dir.as_fd(), child.as_c_str(), DIRECTORY, Mode::empty()) {
                Err(Errno::ENOENT) => continue,
                other => dir = other.during(what)?,
            }
            pending.push(children(dir.as_fd()).during(what)?);
            names.push(child);
            continue;
        }
        let above = if names.len() == 1 {
            parent.as_fd().try_clone_to_owned().during(what)?
        } else {
            openat(dir.as_fd(), "..", DIRECTORY, Mode::empty()).during(what)?
        };
        remove_one(above.as_fd(), name, dir.as_fd(), path, deadline)?;
        names.pop();
        pending.pop();
        dir = above;
    }
    Ok(())
}

/// Removes one cgroup, `name` in `parent` and open as `dir`, as soon as what runs in it has ended.
fn remove_one(parent: BorrowedFd, name: &CStr, dir: BorrowedFd, path: &str, deadline: Instant) -> Result<()> {
    let start = Instant::now();
    let mut events = None;
    loop {
        match unlinkat(parent, name, UnlinkatFlags::RemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => return Ok(()),
            Err(Errno::EBUSY) => {}
            Err(errno) => return Err(Error::os(format!("remove cgroup {path}"), errno)),
        }
        let pids = own_pids(dir).unwrap_or_default();
        if Instant::now() >= deadline {
            return Err(still_there(path, &pids));
        }
        if pids.is_empty() {
            // The last process has ended, but its cgroup does not know yet. v2 tells when it does, though up to ten
            // milliseconds late, so it gets a moment first; v1 tells nothing.
            if start.elapsed() < STEP_ASIDE {
                std::thread::yield_now();
                continue;
            }
            match events.get_or_insert_with(|| Events::open(dir)) {
                Some(events) if !events.is("populated 0") => drop(events.wait_for("populated 0", deadline)),
                _ => brief_wait(start),
            }
        } else {
            wait_for_end(&pids, deadline);
        }
    }
}

fn still_there(path: &str, pids: &[i32]) -> Error {
    if pids.is_empty() {
        return Error::os(format!("remove cgroup {path}"), Errno::EBUSY)
            .hint("something keeps making cgroups or processes in it");
    }
    let what = format!("remove cgroup {path}: processes are still running in it: {}", names(pids));
    Error::new(Kind::Os(Errno::EBUSY), what)
        .hint("kill them first (brig kill --all ID KILL); a process in state D waits for its device or filesystem")
}

/// Process IDs with their names and states, for messages.
pub(super) fn names(pids: &[i32]) -> String {
    const SHOWN: usize = 10;
    let name = |pid: &i32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // "12 (name) S ...", where the name may have blanks and parentheses itself.
        let comm = stat.find('(').zip(stat.rfind(')')).and_then(|(from, to)| stat.get(from..to + 3));
        comm.map_or_else(|| pid.to_string(), |comm| format!("{pid} {comm}"))
    };
    let mut list = pids.iter().take(SHOWN).map(name).collect::<Vec<_>>().join(", ");
    if pids.len() > SHOWN {
        list += &format!(" and {} more", pids.len() - SHOWN);
    }
    list
}

/// Waits until all of these processes have ended (by pidfd), or the time is up.
pub(super) fn wait_for_end(pids: &[i32], deadline: Instant) {
    for batch in pids.chunks(BATCH) {
        // One that is gone has no pidfd any more.
        let mut open: Vec<OwnedFd> = batch.iter().filter_map(|pid| pidfd_open(*pid).ok()).collect();
        if open.iter().any(|fd| !tells_end(fd.as_fd())) {
            // Held by what tells of no end: the caller looks again soon.
            let _ = poll(&mut [], PollTimeout::from(1_u8));
            return;
        }
        while !open.is_empty() {
            let Some(left) = time_left(deadline) else { return };
            let mut polled: Vec<PollFd> = open.iter().map(|fd| PollFd::new(fd.as_fd(), PollFlags::POLLIN)).collect();
            match poll(&mut polled, left) {
                Err(Errno::EINTR) => continue,
                Err(_) | Ok(0) => return,
                Ok(_) => {}
            }
            let mut ended = polled.iter().map(|p| p.any().unwrap_or(true)).collect::<Vec<_>>().into_iter();
            open.retain(|_| !ended.next().unwrap_or(false));
        }
    }
}

/// What poll(2) may wait until a deadline; `None` once it has passed.
pub(super) fn time_left(deadline: Instant) -> Option<PollTimeout> {
    let left = deadline.saturating_duration_since(Instant::now());
    // Rounded up, so that the last round does not spin.
    (!left.is_zero()).then(|| PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX))
}

/// How long it is worth to step aside for what takes microseconds as a rule.
const STEP_ASIDE: Duration = Duration::from_millis(1);

/// Lets others run for a moment, for the two things of which the kernel gives no event: a v1 freezer that is still freezing,
/// and a v1 cgroup whose last process has just ended. Both take microseconds as a rule, so it only steps aside until `since`
/// is a millisecond ago, and waits for one at a time after that.
pub(super) fn brief_wait(since: Instant) {
    if since.elapsed() < STEP_ASIDE {
        std::thread::yield_now();
    } else {
        let _ = poll(&mut [], PollTimeout::from(1u8));
    }
}
