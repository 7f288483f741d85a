//! `linux.seccomp`: from the profile to a BPF program.
//!
//! The meaning is libseccomp's, which the tests prove for every call number and around every compared value; the layout
//! is our own (tree.rs), because libseccomp takes twenty milliseconds for a default profile and its program another
//! one to load. Where the profile leaves something open:
//!
//! - The native architecture is always filtered. Calls of architectures that the profile does not list kill the thread.
//! - A rule with the default action is no rule. Of several rules for a call, the first without conditions decides;
//!   rules with conditions are asked in an order of their own (see `precedence`), contradictions are an error.
//! - An entry whose conditions name an argument twice means "any of them", otherwise "all of them".
//! - ERRNO and TRACE without an errno use EPERM.
//! - Absent `flags` mean SPEC_ALLOW, as with runc and crun (without it, the kernel slows the container down to protect
//!   it from itself); an empty list means none.
//! - `SECCOMP_FILTER_FLAG_TSYNC` asks for nothing: the filter is loaded by a process with one thread. It is not passed
//!   on, since the kernel refuses it together with a listener.
//! - Where several rules for a call compare by size, libseccomp 2.5.4's program may allow what neither it lists nor the
//!   profile says (it takes a comparison to have left the argument's other word loaded). Ours does what the profile says.
//! - Calls that are newer than the profile fail with ENOSYS where the default is another errno, as with runc.

mod arch;
mod rules;
#[cfg(test)]
mod tests;
mod tree;

use crate::error::Problem;
use crate::spec::{Seccomp, SeccompAction, SeccompArch, SeccompFlag};
use crate::sys;

/// The kernel's BPF_MAXINSNS.
const MAX_INSTRUCTIONS: usize = 4096;

/// A program to load, see [`sys::seccomp::load`].
#[derive(Debug, Clone)]
pub struct Filter {
    /// The instructions.
    pub program: Vec<libc::sock_filter>,
    /// `SECCOMP_FILTER_FLAG_*`, with NEW_LISTENER if a rule notifies.
    pub flags: libc::c_ulong,
    /// A rule notifies: loading returns a listener, to be sent to `listenerPath`.
    pub notifies: bool,
    /// Names of calls that libseccomp does not know on any architecture, left out of the filter.
    pub unknown: Vec<String>,
}

impl Filter {
    /// The same filter, with a listener that is asked about every call that this one denies with EPERM.
    pub fn notifying(&self) -> Filter {
        const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
        let denied = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
        let mut filter = self.clone();
        for instruction in filter.program.iter_mut().filter(|i| i.code == RETURN && i.k == denied) {
            instruction.k = libc::SECCOMP_RET_USER_NOTIF;
        }
        filter.flags |= libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
        filter.notifies = true;
        filter
    }
}

/// Compiles `linux.seccomp` to the program and flags for seccomp(2). A section with neither a default action nor rules
/// asks for no filter.
///
/// # Errors
/// Everything that is wrong with the section, by pointer from the top of config.json.
pub fn compile(seccomp: &Seccomp) -> Result<Option<Filter>, Vec<Problem>> {
    if seccomp.default_action.is_none() && seccomp.syscalls.is_empty() {
        return Ok(None);
    }
    let tables = rules::tables(seccomp)?;
    let program = tree::program(&tables);
    if program.len() > MAX_INSTRUCTIONS {
        let len = program.len();
        let what =
            format!("makes a filter of {len} instructions, the kernel takes {MAX_INSTRUCTIONS}: use fewer rules");
        return Err(vec![Problem::new("/linux/seccomp/syscalls", what)]);
    }
    let flags = flags(seccomp, tables.notifies);
    Ok(Some(Filter { program, flags, notifies: tables.notifies, unknown: tables.unknown }))
}

fn flags(seccomp: &Seccomp, notifies: bool) -> libc::c_ulong {
    let Some(words) = &seccomp.flags else {
        return libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW
            | if notifies { libc::SECCOMP_FILTER_FLAG_NEW_LISTENER } else { 0 };
    };
    let mut flags = if notifies { libc::SECCOMP_FILTER_FLAG_NEW_LISTENER } else { 0 };
    for flag in words {
        flags |= match flag {
            SeccompFlag::Tsync => 0,
            SeccompFlag::Log => libc::SECCOMP_FILTER_FLAG_LOG,
            SeccompFlag::SpecAllow => libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW,
            // How notifications wait; the kernel refuses it where there are none.
            SeccompFlag::WaitKillableRecv if notifies => libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV,
            SeccompFlag::WaitKillableRecv => 0,
        };
    }
    flags
}

/// The architectures that a profile may list: those that the libseccomp which brig is linked with knows.
pub fn architectures() -> Vec<SeccompArch> {
    let named = SeccompArch::ALL.iter().copied().filter(|&name| name != SeccompArch::Native);
    named.filter(|&name| arch::Arch::named(name).known()).collect()
}

/// The actions that the running kernel knows.
pub fn supported_actions() -> Vec<SeccompAction> {
    let value = |action: &SeccompAction| rules::action_value(*action);
    SeccompAction::ALL.iter().copied().filter(|action| sys::seccomp::action_available(value(action))).collect()
}

/// The flags that the running kernel knows.
pub fn supported_flags() -> Vec<SeccompFlag> {
    let available = |flag: &SeccompFlag| {
        sys::seccomp::flags_available(match flag {
            SeccompFlag::Tsync => libc::SECCOMP_FILTER_FLAG_TSYNC,
            SeccompFlag::Log => libc::SECCOMP_FILTER_FLAG_LOG,
            SeccompFlag::SpecAllow => libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW,
            // Only known together.
            SeccompFlag::WaitKillableRecv => {
                libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV | libc::SECCOMP_FILTER_FLAG_NEW_LISTENER
            }
        })
    };
    SeccompFlag::ALL.iter().copied().filter(available).collect()
}

/// The name of a system call of the native architecture, or its number where it has none.
pub fn call_name(number: i32) -> String {
    libseccomp::ScmpSyscall::from(number).get_name().unwrap_or_else(|_| format!("call {number}"))
}

/// Whether this is the name of a system call of any architecture.
pub fn is_call(name: &str) -> bool {
    arch::name_known(name)
}

/// The version of the libseccomp that is linked in.
pub fn library_version() -> String {
    libseccomp::ScmpVersion::current()
        .map_or_else(|_| "unknown".into(), |v| format!("{}.{}.{}", v.major, v.minor, v.micro))
}
