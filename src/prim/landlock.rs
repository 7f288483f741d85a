//! Landlock rules for a program: everything may be read, and only some places written, whatever mounts say.

use crate::sys::landlock::{self, access};
use crate::sys::{At, Call, Errno, Failure, files};
use nix::fcntl::OFlag;
use nix::sys::stat::{SFlag, fstat};
use std::ffi::CString;
use std::os::fd::AsFd;

/// A ruleset, ready to be made in the child, where its paths are opened.
#[derive(Debug, Clone)]
pub struct Ruleset {
    /// Rights that are taken away where no rule gives them back.
    pub handled: u64,
    /// `LANDLOCK_SCOPE_*`.
    pub scoped: u64,
    /// Paths and what may be done below them; one that is not there is passed over.
    pub rules: Vec<(CString, u64)>,
}

/// Compiles a ruleset for this kernel, or `None` where it has no Landlock. `read` lists what may be read and executed,
/// `write` what may be changed as well. Processes outside get no signals; with `scope`, abstract unix sockets outside are out of
/// reach, too.
pub fn compile(read: &[CString], write: &[CString], scope: bool) -> Option<Ruleset> {
    let version = landlock::version();
    let handled = match version {
        0 => return None,
        1 => access::VERSION_1,
        2 => access::VERSION_1 | access::REFER,
        3 | 4 => access::VERSION_1 | access::REFER | access::TRUNCATE,
        _ => access::VERSION_1 | access::REFER | access::TRUNCATE | access::IOCTL_DEV,
    };
    let look = (access::EXECUTE | access::READ_FILE | access::READ_DIR | access::IOCTL_DEV) & handled;
    let rules = read.iter().map(|p| (p.clone(), look)).chain(write.iter().map(|p| (p.clone(), handled))).collect();
    let scoped = match (version, scope) {
        (..6, _) => 0,
        (_, false) => landlock::SCOPE_SIGNAL,
        (_, true) => landlock::SCOPE_SIGNAL | landlock::SCOPE_ABSTRACT_UNIX_SOCKET,
    };
    Some(Ruleset { handled, scoped, rules })
}

/// Puts a ruleset in force. For the child: allocates nothing.
///
/// # Errors
/// The call that failed.
pub fn apply(wanted: &Ruleset) -> Result<(), Failure> {
    let ruleset = landlock::ruleset(wanted.handled, wanted.scoped).at(Call::Landlock)?;
    for (path, allowed) in &wanted.rules {
        let place = match files::open(None, path, OFlag::O_PATH) {
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::EACCES) => continue,
            other => other.at(Call::Open)?,
        };
        let stat = fstat(&place).at(Call::Stat)?;
        let directory = stat.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFDIR.bits();
        let allowed = if directory { *allowed } else { allowed & access::OF_FILES };
        landlock::allow(ruleset.as_fd(), place.as_fd(), allowed).at(Call::Landlock)?;
    }
    landlock::restrict(ruleset.as_fd()).at(Call::Landlock)
}
