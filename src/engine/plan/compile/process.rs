//! The part of a plan that makes a process what the config says; create and exec share it.

use super::super::{Op, Step};
use super::{List, Options, bytes, c};
use crate::error::{Error, Result};
use crate::prim::landlock::Ruleset;
use crate::prim::{attributes, capabilities, hooks, lsm, seccomp};
use crate::spec::{NamespaceType, Process, Spec};
use crate::sys::sched;
use std::ffi::CStr;
use std::os::fd::OwnedFd;
use std::path::Path;

/// What the process-related part of a plan is compiled from.
pub(super) struct Parts<'a> {
    pub(super) spec: &'a Spec,
    pub(super) process: &'a Process,
    pub(super) options: &'a Options,
    pub(super) new_user: bool,
    /// JSON pointer of the process.
    pub(super) prefix: &'a str,
}

/// Steps that give the program its labels: both are for the next execve(2), so that nothing may be executed after them but
/// the program (and, as with runc, its startContainer hooks). With `host` they are written through the caller's procfs, as
/// long as it is in sight; else through one of the container's own.
pub(super) fn labels(parts: &Parts, list: &mut List, host: bool) -> Result<()> {
    let Parts { process, options, prefix, .. } = parts;
    let mut add =
        |label: Option<&String>, field: &str, module: &str, enabled: fn() -> bool, files: &[&'static CStr]| {
            let Some(label) = label.filter(|label| !label.is_empty()) else { return Ok(()) };
            // To be unconfined is no wish where nobody confines.
            if label == "unconfined" && !enabled() {
                return Ok(());
            }
            let pointer = format!("{prefix}/{field}");
            lsm::check(label, &pointer, module, enabled()).map_err(|p| Error::problems("config.json", &[p]))?;
            for file in files {
                let value = if module == "AppArmor" { format!("exec {label}") } else { label.clone() };
                list.add(pointer.clone(), Op::Label { file, value: c(&pointer, value)?, host });
            }
            Ok(())
        };
    let keyring: &[_] = if options.no_new_keyring { &[c"attr/exec"] } else { &[c"attr/keycreate", c"attr/exec"] };
    add(process.apparmor_profile.as_ref(), "apparmorProfile", "AppArmor", lsm::apparmor, &[c"attr/apparmor/exec"])?;
    add(process.selinux_label.as_ref(), "selinuxLabel", "SELinux", lsm::selinux, keyring)
}

/// Steps between the container's set-up and the gate that make the process what the config says.
pub(super) fn attributes_of(
    parts: &Parts,
    list: &mut List,
    by_parent: &mut List,
    warnings: &mut Vec<String>,
) -> Result<()> {
    let Parts { process, options, prefix, .. } = parts;
    let at = |field: &str| format!("{prefix}/{field}");
    if let Some(scheduler) = &process.scheduler {
        list.add(at("scheduler"), Op::Scheduler(attributes::scheduler(scheduler)));
    }
    if let Some(priority) = &process.io_priority {
        let (class, level) = attributes::io_priority(priority);
        list.add(at("ioPriority"), Op::IoPriority { class, level });
    }
    if process.user.uid != 0 && !process.terminal {
        list.add(at("user/uid"), Op::OwnStdio(process.user.uid));
    }
    list.add("", Op::CloseFds(3 + options.preserve_fds));
    for (index, limit) in attributes::rlimits(&process.rlimits).into_iter().enumerate() {
        // Raising a hard limit takes CAP_SYS_RESOURCE on the host; lowering one early could starve the set-up.
        let raises = sched::get_rlimit(limit.resource).is_ok_and(|(_, hard)| limit.hard > hard);
        let to = if raises && parts.new_user { &mut *by_parent } else { &mut *list };
        to.add(at(&format!("rlimits/{index}")), Op::Rlimit(limit));
    }
    if process.no_new_privileges {
        list.add(at("noNewPrivileges"), Op::NoNewPrivileges);
    }
    if let Some(cwd) = process.cwd.to_str() {
        list.add(at("cwd"), Op::Cwd { path: c(&at("cwd"), cwd)?, last: false });
    }
    let (sets, unknown) = match &process.capabilities {
        Some(capabilities) => capabilities::compile(capabilities),
        None => Default::default(),
    };
    warnings.extend(
        unknown.iter().map(|name| format!("{prefix}/capabilities: {name} is not known to this kernel and is left out")),
    );
    list.add(at("capabilities/bounding"), Op::Bounding(sets.bounding));
    let user = &process.user;
    let deniable = user.additional_gids.is_empty() && parts.spec.linux().namespace(NamespaceType::User).is_some();
    list.add(at("user/additionalGids"), Op::Groups { groups: user.additional_gids.clone(), deniable });
    list.add(at("user/gid"), Op::Gid(user.gid));
    list.add(at("user/uid"), Op::Uid(user.uid));
    list.add(at("cwd"), Op::Cwd { path: c(&at("cwd"), bytes(&process.cwd))?, last: true });
    list.add(at("user/umask"), Op::Umask(user.umask.unwrap_or(0o022)));
    list.add(at("args/0"), Op::FindProgram);
    Ok(())
}

/// Steps after the gate: as few as can be, since from the filter on each must be one that the filter allows.
pub(super) fn late_list(parts: &Parts) -> Result<List> {
    let Parts { spec, process, prefix, .. } = parts;
    let at = |field: &str| format!("{prefix}/{field}");
    let mut late = List::default();
    let filter = match &spec.linux().seccomp {
        Some(seccomp) => seccomp::compile(seccomp).map_err(|p| Error::problems("config.json", &p))?,
        None => None,
    };
    let sets = process.capabilities.as_ref().map(|c| capabilities::compile(c).0).unwrap_or_default();
    // Without no_new_privs, loading takes a capability that the next step drops.
    let raise = !process.no_new_privileges;
    let mut filter =
        filter.map(|filter| Step { op: Op::Seccomp { filter, raise, recorded: None }, at: "/linux/seccomp".into() });
    if raise {
        late.0.extend(filter.take());
    }
    late.add(at("capabilities"), Op::Capabilities(sets));
    for (index, hook) in spec.hooks().start_container.iter().enumerate().filter(|_| *prefix == "/process") {
        let pointer = format!("/hooks/startContainer/{index}");
        late.add(pointer.clone(), hook_step(hook, &pointer, None)?);
    }
    late.0.extend(filter);
    late.add(at("args"), Op::Exec);
    Ok(late)
}

/// A filter that notifies is loaded before the gate, while the parent is there to pass the listener on.
pub(super) fn early_filter(list: &mut List, late: &mut List) {
    let notifies = |step: &Step| matches!(&step.op, Op::Seccomp { filter, .. } if filter.notifies);
    if let Some(position) = late.0.iter().position(notifies) {
        list.0.push(late.0.remove(position));
    }
}

/// Whether a step has a place where there are no namespaces, and may be no privilege.
pub(super) fn may_stay(step: &Step) -> bool {
    match &step.op {
        Op::Chroot | Op::MakeCwd(_) => false,
        // Without the capability there is nothing to be dropped, either.
        Op::Bounding(_) | Op::Groups { .. } => capabilities::may_drop(),
        _ => true,
    }
}

/// Puts a sandbox's own steps in front of the filter, or of the program where there is none.
pub(super) fn confine(late: &mut List, init: Option<OwnedFd>, landlock: Option<Ruleset>, record: bool) {
    let at = late.0.iter().position(|step| matches!(step.op, Op::Seccomp { .. } | Op::Exec)).unwrap_or(0);
    if record && let Some(Op::Seccomp { filter, recorded, .. }) = late.0.get_mut(at).map(|step| &mut step.op) {
        *recorded = Some(filter.notifying());
    }
    let steps = [init.map(Op::Init), landlock.map(Op::Landlock)].into_iter().flatten();
    late.0.splice(at..at, steps.map(|op| Step { op, at: String::new() }));
}

/// Has the child wait for its program's name as late as can be: behind all that takes time.
pub(super) fn wait_late(late: &mut List, filter_first: bool) {
    let last = |step: &Step| matches!(step.op, Op::Exec) || !filter_first && matches!(step.op, Op::Seccomp { .. });
    let at = late.0.iter().position(last).unwrap_or(late.0.len());
    late.0.insert(at, Step { op: Op::Sync(crate::engine::plan::Sync::Ready), at: String::new() });
}

/// The steps after the gate of a container's own process, for `start` to find words for a failure.
///
/// # Errors
/// As [`create`].
pub fn late_steps(spec: &Spec) -> Result<Vec<Step>> {
    let Some(process) = &spec.process else { return Ok(Vec::new()) };
    let options = Options::default();
    let parts = Parts { spec, process, options: &options, new_user: false, prefix: "/process" };
    let mut late = late_list(&parts)?;
    early_filter(&mut List::default(), &mut late);
    Ok(late.0)
}

pub(super) fn is_set(label: Option<&String>) -> bool {
    label.is_some_and(|label| !label.is_empty())
}

pub(super) fn hook_step(hook: &crate::spec::Hook, pointer: &str, cwd: Option<&Path>) -> Result<Op> {
    let prepared = hooks::compile(hook, pointer, cwd).map_err(|problem| Error::problems("config.json", &[problem]))?;
    Ok(Op::Hook(Box::new(prepared)))
}

pub(super) fn terminal_step(process: &Process, socket: OwnedFd, console: bool) -> Op {
    let size = process.console_size.as_ref().map(|s| (s.height, s.width)).filter(|s| *s != (0, 0));
    Op::Terminal { socket, size, console, uid: process.user.uid }
}
