//! Timers as fds (timerfd_create(2)).

use super::{Errno, SysResult, check, files};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

/// A timer that can be read at every interval from now on; close-on-exec, and reading it does not block.
///
/// # Errors
/// `EINVAL` for an interval that the kernel can't hold; zero would never fire.
pub fn every(interval: Duration) -> SysResult<OwnedFd> {
    let seconds = libc::time_t::try_from(interval.as_secs()).map_err(|_| Errno::EINVAL)?;
    let time = libc::timespec { tv_sec: seconds, tv_nsec: interval.subsec_nanos().into() };
    let spec = libc::itimerspec { it_interval: time, it_value: time };
    // SAFETY: integers in, a fresh fd out.
    let fd = unsafe {
        let flags = libc::TFD_CLOEXEC | libc::TFD_NONBLOCK;
        OwnedFd::from_raw_fd(check(libc::timerfd_create(libc::CLOCK_MONOTONIC, flags).into())? as i32)
    };
    // SAFETY: spec outlives the call, and a null pointer asks for no old value.
    check(unsafe { libc::timerfd_settime(fd.as_raw_fd(), 0, &raw const spec, std::ptr::null_mut()) }.into())?;
    Ok(fd)
}

/// How many intervals have passed since the last call; 0 if none has.
///
/// # Errors
/// As read(2).
pub fn passed(timer: BorrowedFd) -> SysResult<u64> {
    let mut count = [0; 8];
    match files::read(timer, &mut count) {
        Err(Errno::EAGAIN) => Ok(0),
        other => other.map(|_| u64::from_ne_bytes(count)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::poll::{PollFd, PollFlags, poll};
    use std::os::fd::AsFd;

    #[test]
    fn it_fires_again_and_again() {
        let timer = every(Duration::from_millis(5)).unwrap();
        assert_eq!(passed(timer.as_fd()), Ok(0));
        for _ in 0..2 {
            assert_eq!(poll(&mut [PollFd::new(timer.as_fd(), PollFlags::POLLIN)], 5000_u16), Ok(1));
            assert!(passed(timer.as_fd()).unwrap() > 0);
        }
        assert!(every(Duration::MAX).is_err());
    }
}
