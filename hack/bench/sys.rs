//! The one system call of the benchmark that the standard library and nix lack: wait4(2), for the usage of one child.

/// What one child (with the descendants it waited for) cost.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// As a shell gives it: the exit status, or 128 and the signal.
    pub status: i32,
    /// The largest resident set of any one process, in KiB.
    pub peak_kib: i64,
    /// Page faults that needed no disk.
    pub faults: i64,
}

/// Waits for the child `pid` to end (-1: for any) and reaps it. `None` when there is no such child, or when `block` is
/// false and none has ended.
pub fn wait4(pid: i32, block: bool) -> Option<Usage> {
    let mut status = 0;
    // SAFETY: rusage is plain integers, for which zeroes are a value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    let flags = if block { 0 } else { libc::WNOHANG };
    loop {
        // SAFETY: both pointers are to live, exclusively borrowed values of the types that wait4(2) writes.
        let done = unsafe { libc::wait4(pid, &mut status, flags, &mut usage) };
        if done > 0 {
            break;
        }
        if done == 0 || std::io::Error::last_os_error().kind() != std::io::ErrorKind::Interrupted {
            return None;
        }
    }
    let status = if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { 128 + libc::WTERMSIG(status) };
    Some(Usage { status, peak_kib: usage.ru_maxrss, faults: usage.ru_minflt })
}
