//! Which system calls this kernel has, asked without doing anything: each is called with arguments that it must refuse, and
//! how it refuses them tells a call that is there from one that is missing or filtered.

use super::process::{self, Ended};
use super::{Errno, SysResult, check};
use std::os::fd::AsFd;

/// What came of a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// It is there.
    There,
    /// The kernel does not have it, or a filter says so.
    Missing,
    /// Somebody forbids it: a filter, or the lack of a privilege.
    Denied(Errno),
}

impl Answer {
    /// Whether it can be used.
    pub fn is_there(self) -> bool {
        self == Answer::There
    }

    /// Reads the result of a call that was to be refused in one of these ways.
    fn of(result: SysResult<libc::c_long>, refusals: &[Errno]) -> Answer {
        match result {
            Ok(_) => Answer::There,
            Err(errno) if refusals.contains(&errno) => Answer::There,
            Err(Errno::ENOSYS | Errno::EOPNOTSUPP) => Answer::Missing,
            Err(errno @ (Errno::EPERM | Errno::EACCES)) => Answer::Denied(errno),
            Err(_) => Answer::Missing,
        }
    }
}

/// A system call that brig uses, or does without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is the system call, or its flag, of that name")]
pub enum Question {
    Openat2,
    Fsopen,
    OpenTree,
    MoveMount,
    MountSetattr,
    Clone3,
    CloneIntoCgroup,
    PidfdOpen,
    PidfdSendSignal,
    PidfdGetfd,
    CloseRange,
    CloseRangeCloexec,
    StatxMountRoot,
}

/// Asks. Some of the calls of the mount API look at the privilege first: ask those where it is to be had.
pub fn ask(question: Question) -> Answer {
    let null = std::ptr::null::<u8>();
    let bad: libc::c_long = -1;
    let (number, a, refusals): (_, [libc::c_long; 5], &[Errno]) = match question {
        // No size of `open_how` is 0.
        Question::Openat2 => (libc::SYS_openat2, [bad, c"".as_ptr() as i64, null as i64, 0, 0], &[Errno::EINVAL]),
        // All other questions are asked with flags that nothing has, or fds that nobody has.
        Question::Fsopen => (libc::SYS_fsopen, [c"".as_ptr() as i64, 0x7fff_fff0, 0, 0, 0], &[Errno::EINVAL]),
        Question::OpenTree => (libc::SYS_open_tree, [bad, c"".as_ptr() as i64, 0x7fff_fff0, 0, 0], &[Errno::EINVAL]),
        Question::MoveMount => {
            let empty = c"".as_ptr() as i64;
            (libc::SYS_move_mount, [bad, empty, bad, empty, 0x7fff_fff0], &[Errno::EINVAL])
        }
        Question::MountSetattr => {
            (libc::SYS_mount_setattr, [bad, c"".as_ptr() as i64, 0x7fff_fff0, null as i64, 0], &[Errno::EINVAL])
        }
        Question::Clone3 => (libc::SYS_clone3, [null as i64, 0, 0, 0, 0], &[Errno::EINVAL]),
        Question::CloneIntoCgroup => return clone_into_cgroup(),
        Question::PidfdOpen => (libc::SYS_pidfd_open, [bad, 0, 0, 0, 0], &[Errno::EINVAL]),
        Question::PidfdSendSignal => {
            (libc::SYS_pidfd_send_signal, [bad, 0, null as i64, 0x7fff_fff0, 0], &[Errno::EINVAL, Errno::EBADF])
        }
        Question::PidfdGetfd => (libc::SYS_pidfd_getfd, [bad, bad, 1, 0, 0], &[Errno::EINVAL]),
        Question::CloseRange => (libc::SYS_close_range, [2, 1, 0, 0, 0], &[Errno::EINVAL]),
        Question::CloseRangeCloexec => {
            let last = i64::from(u32::MAX);
            // An empty place of the table; a kernel without the flag says EINVAL.
            (libc::SYS_close_range, [last, last, libc::CLOSE_RANGE_CLOEXEC as i64, 0, 0], &[])
        }
        Question::StatxMountRoot => {
            let root = super::files::open(None, c"/", nix::fcntl::OFlag::O_PATH);
            let found = root.and_then(|root| super::mount::is_mount_root(root.as_fd()));
            return Answer::of(found.map(i64::from), &[]);
        }
    };
    // SAFETY: the arguments are integers and pointers to static strings or null; each call refuses them before it acts.
    Answer::of(check(unsafe { libc::syscall(number, a[0], a[1], a[2], a[3], a[4]) }), refusals)
}

/// Clones into a cgroup that is none: a kernel that knows the flag says that the fd is bad, one that does not, that the flag
/// is. Either way nothing is cloned.
fn clone_into_cgroup() -> Answer {
    // SAFETY: clone_args is plain data, and all zeroes is a valid value of it.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = 0x2_0000_0000;
    args.exit_signal = libc::SIGCHLD as u64;
    args.cgroup = i32::MAX as u64;
    // SAFETY: args is a clone_args of the size given.
    let result = check(unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<libc::clone_args>()) });
    if result == Ok(0) {
        process::exit_now(0);
    }
    Answer::of(result, &[Errno::EBADF])
}

/// The version of Landlock's interface (landlock_create_ruleset(2), Linux 5.13).
///
/// # Errors
/// `ENOSYS` without it, `EOPNOTSUPP` where it is not enabled at boot.
pub fn landlock() -> SysResult<i64> {
    // SAFETY: a null pointer and no size ask for the version.
    check(unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<u8>(), 0, 1) })
}

/// Does something in a child, which ends then; `act` runs on a copy of the caller's memory and must not allocate.
///
/// # Errors
/// The outer result is the fork's, the inner one that of `act`.
pub fn in_child(act: impl FnOnce() -> SysResult<()>) -> SysResult<SysResult<()>> {
    let Some(child) = process::clone3(0, None)? else {
        super::alloc::forbid();
        // An errno fits an exit status.
        process::exit_now(act().map_or_else(|errno| errno as i32, |()| 0))
    };
    match child.wait()? {
        Ended::Exited(0) => Ok(Ok(())),
        Ended::Exited(errno) => Ok(Err(Errno::from_raw(errno))),
        Ended::Signaled(_) => Err(Errno::EINTR),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_every_supported_kernel_has_is_found() {
        for question in [Question::Openat2, Question::OpenTree, Question::Clone3, Question::PidfdOpen] {
            assert_eq!(ask(question), Answer::There, "{question:?}");
        }
    }

    #[test]
    fn how_a_call_is_refused_tells_what_it_is() {
        let of = |errno| Answer::of(Err(errno), &[Errno::EINVAL]);
        assert_eq!(of(Errno::EINVAL), Answer::There);
        assert_eq!(of(Errno::ENOSYS), Answer::Missing);
        assert_eq!(of(Errno::EPERM), Answer::Denied(Errno::EPERM));
    }

    #[test]
    fn a_child_tells_its_errno() {
        assert_eq!(in_child(|| Ok(())), Ok(Ok(())));
        assert_eq!(in_child(|| Err(Errno::EXDEV)), Ok(Err(Errno::EXDEV)));
    }
}
