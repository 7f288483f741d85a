//! One more process in a running container.

use super::container::{pass_listener, send_pidfd, write_pid_file};
use super::launch::{Event, launch};
use super::plan::{self, ExecInputs, Options};
use super::store::{Status, Store, wrong_status};
use crate::error::{Error, Kind, Problem, Result};
use crate::prim::namespaces::Joined;
use crate::spec::{NamespaceType, Process, Spec};
use crate::sys::process::{self, Child};
use crate::sys::{Errno, files};
use nix::fcntl::OFlag;
use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

/// What `exec` is asked for.
#[derive(Debug, Default)]
pub struct Request {
    /// The container's ID.
    pub id: String,
    /// Flags of the plan.
    pub options: Options,
    /// `--console-socket`, connected; or one end of a pair for a terminal of our own.
    pub console: Option<OwnedFd>,
    /// `--pid-file`.
    pub pid_file: Option<PathBuf>,
    /// `--pidfd-socket`.
    pub pidfd_socket: Option<PathBuf>,
    /// `--cgroup`: cgroups below the container's.
    pub cgroup: Vec<String>,
    /// `--ignore-paused`.
    pub ignore_paused: bool,
}

/// The config of a container that is to be exec'd into.
///
/// # Errors
/// [`Kind::NotFound`], [`Kind::Gone`] for a stopped one, [`Kind::Status`] for a paused one.
pub fn config(store: &Store, id: &str, ignore_paused: bool) -> Result<(super::store::Saved, Spec)> {
    let saved = store.peek(id)?;
    match saved.status(&store.dir(id)) {
        Status::Running | Status::Created => {}
        Status::Paused if ignore_paused => {}
        Status::Paused => {
            return Err(wrong_status("exec in", id, Status::Paused).hint("resume it first, or use --ignore-paused"));
        }
        Status::Stopped => {
            return Err(gone(id));
        }
        Status::Creating => return Err(wrong_status("exec in", id, Status::Creating)),
    }
    let spec = store.config(id)?;
    Ok((saved, spec))
}

/// How long a container that has been killed may take until it is seen to end.
const ENDING: Duration = Duration::from_millis(500);

/// Whether the container has ended or does so now: its namespace goes before its first process does.
pub(super) fn is_ending(saved: &super::store::Saved) -> bool {
    saved.process().map_or(true, |process| process::ends_within(process.as_fd(), ENDING) == Ok(true))
}

pub(super) fn gone(id: &str) -> Error {
    Error::new(Kind::Gone, format!("cannot exec in a stopped container: {id:?}: container not running"))
}

/// Runs a process in a container; returns when its program runs. `ready` is called just before that.
///
/// # Errors
/// What was wrong; nothing is left of it then.
pub fn exec(
    (saved, spec): (&super::store::Saved, &Spec),
    process: &Process,
    request: Request,
    ready: &mut dyn FnMut() -> Result<()>,
) -> Result<(Child, Vec<String>)> {
    let problems = plan::validate::validate_process(process, spec, "/process");
    if !problems.is_empty() {
        return Err(Error::problems("the process", &problems));
    }
    let target = saved.process().map_err(|_| gone(&request.id))?;
    let open = |what: &str, flags: OFlag| {
        let path = CString::new(format!("/proc/{}/{what}", saved.pid)).unwrap_or_default();
        files::open(None, &path, flags).map_err(|errno| match errno {
            // It was there a moment ago.
            Errno::ENOENT | Errno::ESRCH => gone(&request.id),
            errno => Error::os(format!("open the container's {what}"), errno),
        })
    };
    let record = match request.cgroup.as_slice() {
        [] => saved.cgroup.beside(saved.pid),
        values => saved.cgroup.sub(values)?,
    };
    let attach = record.needs_systemd();
    let linux = spec.linux();
    let index = linux.namespaces.iter().position(|n| n.typ == Some(NamespaceType::Pid));
    let pid_namespace = match index {
        Some(index) => {
            let fd = open("ns/pid", OFlag::O_RDONLY)?;
            Some(Joined { typ: NamespaceType::Pid, fd, index, path: CString::default() })
        }
        None => None,
    };
    let mut plan = plan::exec(
        process,
        ExecInputs {
            spec,
            options: &request.options,
            scope: attach,
            join: if attach { Vec::new() } else { record.join_files() },
            root: open("root", OFlag::O_PATH | OFlag::O_DIRECTORY)?,
            target,
            pid_namespace,
            console: request.console,
            id: &request.id,
        },
    )?;
    let v2 = if attach { None } else { record.v2_dir()? };
    let mut on = |event: Event| match event {
        Event::Born(child) if attach => record.attach(&saved.cgroup, child.pid),
        Event::Born(_) | Event::Runtime(_) | Event::Handed(..) | Event::Program(_) => Ok(()),
        Event::Notify(child, listener) => {
            let mut state = saved.clone();
            state.pid = child.pid;
            pass_listener(spec, &state, &listener)
        }
        Event::Ready(child) => {
            if let Some(group) = &saved.intel_rdt {
                group.join(child.pid)?;
            }
            if let Some(path) = &request.pid_file {
                write_pid_file(path, child.pid)?;
            }
            if let Some(path) = &request.pidfd_socket {
                send_pidfd(path, child.pidfd.as_fd())?;
            }
            ready()
        }
    };
    let launched = launch(&mut plan, v2.as_ref().map(AsFd::as_fd), false, &mut on);
    // A container that ends meanwhile fails one step or another: no process is born into its namespace any more (ENOMEM).
    let child = launched.map_err(|e| match e.kind() {
        Kind::Os(Errno::ENOMEM | Errno::ESRCH) | Kind::Other if is_ending(saved) => gone(&request.id),
        Kind::Os(_) if saved.process().is_err() => gone(&request.id),
        _ => e,
    })?;
    Ok((child, std::mem::take(&mut plan.warnings)))
}

/// A user as `exec --user` takes it: `UID` or `UID:GID`, numbers alone (CVE-2026-30892).
///
/// # Errors
/// What it should look like.
pub fn parse_user(text: &str) -> Result<(u32, Option<u32>), Problem> {
    let number = |part: &str| {
        let digits = !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        digits.then(|| part.parse::<u32>().ok()).flatten().filter(|id| *id != u32::MAX)
    };
    let wrong = || Problem::new("--user", format!("{text:?} is not UID or UID:GID in numbers from 0 to 4294967294"));
    match text.split_once(':') {
        None => Ok((number(text).ok_or_else(wrong)?, None)),
        Some((uid, gid)) => Ok((number(uid).ok_or_else(wrong)?, Some(number(gid).ok_or_else(wrong)?))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_numbers() {
        assert_eq!(parse_user("1"), Ok((1, None)));
        assert_eq!(parse_user("1:2"), Ok((1, Some(2))));
        for wrong in ["", ":", ":2", "1:", "+1", "-1", " 1", "1 ", "0x1", "root", "1:2:3", "4294967295", "4294967296"] {
            assert!(parse_user(wrong).is_err(), "{wrong}");
        }
    }
}
