//! The last steps before the program runs: its directory is entered, its file found, its filter loaded.

use super::State;
use crate::engine::plan::{Program, Sync};
use crate::engine::wire::{self, Message};
use crate::sys::cred::{self, CapMasks, SYS_ADMIN};
use crate::sys::{At, Call, Errno, Failure, path, seccomp};
use nix::sys::stat::{SFlag, stat};
use std::ffi::CStr;
use std::os::fd::AsRawFd;

/// Enters the working directory: as root first, then as the container's user, who alone may be let in (or not).
pub(super) fn enter_cwd(path: &CStr, last: bool, state: &mut State) -> Result<(), Failure> {
    match nix::unistd::chdir(path) {
        Ok(()) => state.cwd = true,
        Err(Errno::EACCES | Errno::EPERM) if !last || state.cwd => {}
        Err(errno) => return Err(Failure { call: Call::Chdir, errno }),
    }
    // A directory outside the root, reached through a leaked fd (CVE-2024-21626).
    if last && !path::cwd_is_inside() {
        return Err(Failure::check(Errno::EXDEV));
    }
    Ok(())
}

/// Finds the first candidate that exists and may be executed, with the rights of the container's user.
pub(super) fn find(exec: &Program, state: &mut State) -> Result<(), Failure> {
    let mut worst = Errno::ENOENT;
    for (number, candidate) in exec.candidates.iter().enumerate() {
        match nix::unistd::access(candidate.as_c_str(), nix::unistd::AccessFlags::X_OK) {
            Ok(()) => match stat(candidate.as_c_str()) {
                Ok(found) if path::kind(&found) == SFlag::S_IFREG => {
                    state.program = number;
                    return Ok(());
                }
                Ok(_) => worst = Errno::EACCES,
                Err(errno) => worst = errno,
            },
            Err(Errno::ENOENT | Errno::ENOTDIR) => {}
            Err(errno) => worst = errno,
        }
    }
    Err(Failure { call: Call::Exec, errno: worst })
}

/// Loads the filter; one that notifies hands its listener to the parent, which fetches it by number.
pub(super) fn load_filter(filter: &crate::prim::seccomp::Filter, raise: bool, state: &State) -> Result<(), Failure> {
    if raise {
        // Without no_new_privs a filter takes CAP_SYS_ADMIN.
        let now = cred::get_caps().at(Call::Capset)?;
        let masks = CapMasks { effective: now.effective | SYS_ADMIN & now.permitted, ..now };
        cred::set_caps(masks).at(Call::Capset)?;
    }
    let listener = seccomp::load(&filter.program, filter.flags).at(Call::Seccomp)?;
    if let Some(listener) = listener {
        wire::tell(state.wire, Message::At(Sync::Notify, listener.as_raw_fd())).at(Call::Send)?;
        wire::wait(state.wire).at(Call::Receive)?;
    }
    Ok(())
}
