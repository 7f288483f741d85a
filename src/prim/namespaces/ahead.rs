//! A network namespace that is made while the plan is compiled: it is by far the most expensive of the namespaces (about a
//! millisecond of sysctl tables and devices), and a second processor is idle then.

use crate::spec::{Linux, NamespaceType};
use crate::sys::{SysResult, cred, files, socket};
use nix::fcntl::OFlag;
use nix::sched::{CloneFlags, sched_getaffinity, unshare};
use nix::sys::signal::SigSet;
use nix::unistd::Pid;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::thread::{Builder, JoinHandle};

/// A network namespace with its loopback interface up, or on its way.
#[derive(Debug)]
pub enum Network {
    /// A thread makes it.
    Making(Maker),
    /// It is there.
    Made(OwnedFd),
    /// It is to be made with the others.
    Missing,
}

/// The thread that makes one. It is waited for, also where the container comes to nothing: a thread that is left over would keep
/// the caller from what only a program of one thread may do (unshare(2), setns(2)).
#[derive(Debug)]
pub struct Maker(Option<JoinHandle<SysResult<OwnedFd>>>);

impl Maker {
    fn join(&mut self) -> Option<OwnedFd> {
        self.0.take()?.join().ok()?.ok()
    }
}

impl Drop for Maker {
    fn drop(&mut self) {
        self.join();
    }
}

/// Starts to make the network namespace of a container, if that can be done without the container: a namespace belongs to the
/// user namespace that it is made in. With one processor there is nothing to gain.
pub fn network(linux: &Linux) -> Network {
    // With a time namespace there is one more process, which makes it.
    let wanted = linux.creates(NamespaceType::Network) && !linux.creates(NamespaceType::Time);
    start(wanted && linux.namespace(NamespaceType::User).is_none())
}

/// As [`network`], for who knows whether it is `wanted`.
pub fn start(wanted: bool) -> Network {
    if !wanted || !several_processors() || !cred::is_admin() {
        return Network::Missing;
    }
    let thread = Builder::new().name("brig-network".into()).stack_size(64 << 10);
    thread.spawn(make).map_or(Network::Missing, |thread| Network::Making(Maker(Some(thread))))
}

impl Network {
    /// Waits until it is there; `false` if it is to be made with the others, where a failure is told.
    pub fn is_made(&mut self) -> bool {
        *self = match std::mem::replace(self, Network::Missing) {
            Network::Making(mut maker) => maker.join().map_or(Network::Missing, Network::Made),
            settled => settled,
        };
        matches!(self, Network::Made(_))
    }

    /// The namespace, once [`Network::is_made`].
    pub fn made(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Network::Made(fd) => Some(fd.as_fd()),
            _ => None,
        }
    }
}

fn several_processors() -> bool {
    let allowed = sched_getaffinity(Pid::from_raw(0));
    allowed.is_ok_and(|set| (0..nix::sched::CpuSet::count()).filter(|n| set.is_set(*n) == Ok(true)).nth(1).is_some())
}

/// In a thread of its own: the namespace of the others stays what it is. A handler of the caller's is not to run in there, nor on
/// so small a stack.
fn make() -> SysResult<OwnedFd> {
    SigSet::all().thread_block()?;
    unshare(CloneFlags::CLONE_NEWNET)?;
    socket::loopback_up()?;
    files::open(None, c"/proc/thread-self/ns/net", OFlag::O_RDONLY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_thread_outlives_a_network_that_is_not_used() {
        let makers = || {
            let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
            let names = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
            names.filter(|name| name.trim() == "brig-network").count()
        };
        for _ in 0..20 {
            drop(start(true));
            // The kernel tells of the end of a thread a moment before it takes it off the list.
            let gone = (0..100_000).any(|_| makers() == 0);
            assert!(gone);
        }
        let mut network = start(true);
        assert_eq!(network.is_made(), network.made().is_some());
    }
}
