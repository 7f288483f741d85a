//! System calls that may be missing: from the kernel (`ENOSYS`), or taken away by a filter, which answers `ENOSYS` or, with
//! engines of old, `EPERM`. Each is tried first and its elder only after that; where it is there, nothing is asked twice.

use super::Errno;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// What is known about one call, or a family of them that came and goes together.
pub(crate) struct Absent(AtomicBool);

impl Absent {
    pub(crate) const fn new() -> Absent {
        Absent(AtomicBool::new(false))
    }

    /// Whether the call is known to be missing: then there is no need to try it.
    pub(crate) fn known(&self) -> bool {
        self.0.load(Relaxed)
    }

    /// Whether this answer may mean that the call is missing. `EPERM` can as well be the kernel's own: then the elder call
    /// says the same.
    pub(crate) fn told_by(&self, errno: Errno) -> bool {
        if errno == Errno::ENOSYS {
            self.0.store(true, Relaxed);
        }
        matches!(errno, Errno::ENOSYS | Errno::EPERM)
    }
}
