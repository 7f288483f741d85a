//! What a sandbox without a PID namespace leaves when its program has killed its init, as it may where Landlock can't keep signals
//! in.

use crate::sys::{Errno, process};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, waitid, waitpid};
use nix::unistd::Pid;
use std::fs;

/// This process as the subreaper (prctl(2), `PR_SET_CHILD_SUBREAPER`) of what it starts, until this goes.
pub(super) struct Orphans {
    /// Children that were there before.
    before: Vec<i32>,
}

impl Orphans {
    /// Orphans come to this process from now on; `None` where they can't.
    pub fn catch() -> Option<Orphans> {
        process::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0).ok()?;
        Some(Orphans { before: children() })
    }

    /// Once `init` has ended, which is left to be reaped, kills and reaps all other children that came since, until no more come: those of a child that dies become children.
    pub fn end(&self, init: i32) {
        // Its files are closed before its children become this process's.
        while waitid(Id::Pid(Pid::from_raw(init)), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT) == Err(Errno::EINTR) {}
        loop {
            let all = children().into_iter().filter(|pid| *pid != init && !self.before.contains(pid));
            let ended = all.map(Pid::from_raw).filter(|pid| {
                let _ = kill(*pid, Signal::SIGKILL);
                waitpid(*pid, None).is_ok()
            });
            if ended.count() == 0 {
                return;
            }
        }
    }
}

impl Drop for Orphans {
    fn drop(&mut self) {
        let _ = process::prctl(libc::PR_SET_CHILD_SUBREAPER, 0, 0);
    }
}

/// The children of all threads of this process (proc_pid_task_children(5)).
fn children() -> Vec<i32> {
    let threads = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let texts = threads.map(|thread| fs::read_to_string(thread.path().join("children")).unwrap_or_default());
    texts.flat_map(|text| text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>()).collect()
}
