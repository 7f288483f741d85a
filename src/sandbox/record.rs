//! What the filter denies: heard by the listener, refused, written down.

use super::report::Violation;
use crate::sys::{Errno, seccomp};
use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

/// The most kinds of violation that are kept apart; a program can make up more, which count as one.
pub(super) const KINDS_MAX: usize = 1000;

/// A filter's listener and what it has heard.
pub struct Recorder {
    listener: OwnedFd,
    started: Instant,
    /// By call and program.
    heard: BTreeMap<(String, String), Violation>,
}

impl Recorder {
    /// Begins to record; times count from `started`.
    pub fn new(listener: OwnedFd, started: Instant) -> Recorder {
        Recorder { listener, started, heard: BTreeMap::new() }
    }

    /// For poll(2).
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }

    /// Hears one call and lets it fail with EPERM. Returns what was denied, the first time; `Err` when there is nobody left to
    /// be heard.
    pub fn hear(&mut self) -> Result<Option<Violation>, Errno> {
        let Some(call) = seccomp::hear(self.listener.as_fd())? else { return Ok(None) };
        // Before the answer: after it the program may be gone.
        let program = std::fs::read_to_string(format!("/proc/{}/comm", call.pid)).unwrap_or_default();
        let program = program.trim_end().to_owned();
        seccomp::refuse(self.listener.as_fd(), call.id, Errno::EPERM)?;
        let (mut what, mut program) = (describe(call.number, &call.args), program);
        let at_us = self.started.elapsed().as_micros() as u64;
        if self.heard.len() >= KINDS_MAX && !self.heard.contains_key(&(what.clone(), program.clone())) {
            (what, program) = ("other calls".into(), String::new());
        }
        if let Some(known) = self.heard.get_mut(&(what.clone(), program.clone())) {
            known.count += 1;
            return Ok(None);
        }
        let violation =
            Violation { at_us, kind: "syscall", what: what.clone(), program: program.clone(), pid: call.pid, count: 1 };
        self.heard.insert((what, program), violation.clone());
        Ok(Some(violation))
    }

    /// Everything that was heard, in the order of the first time.
    pub fn violations(&self) -> Vec<Violation> {
        let mut all: Vec<_> = self.heard.values().cloned().collect();
        all.sort_by_key(|v| v.at_us);
        all
    }
}

/// A call by its name, with the argument that a filter looks at.
fn describe(number: i32, args: &[u64; 6]) -> String {
    let name = crate::prim::seccomp::call_name(number);
    let family = |n: u64| match n as i32 {
        libc::AF_UNIX => "AF_UNIX".to_owned(),
        libc::AF_INET => "AF_INET".to_owned(),
        libc::AF_INET6 => "AF_INET6".to_owned(),
        libc::AF_NETLINK => "AF_NETLINK".to_owned(),
        libc::AF_PACKET => "AF_PACKET".to_owned(),
        n => format!("family {n}"),
    };
    match name.as_str() {
        "socket" => format!("socket({})", family(args[0])),
        "socketpair" if args[1] & 0xf == libc::SOCK_DGRAM as u64 => "socketpair(SOCK_DGRAM)".into(),
        "clone" => "clone(new namespaces)".into(),
        _ => name,
    }
}
