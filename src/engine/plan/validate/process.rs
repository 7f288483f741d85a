//! `process`.

use super::{Context, Findings, Unread, absolute, one_of};
use crate::prim::attributes;
use crate::spec::{
    IdMapping, IoPriorityClass, NamespaceType, Process, RlimitType, Scheduler, SchedulerPolicy, Spec, User,
};

/// Checks a process of a container with this config.
pub(super) fn check(process: &Process, spec: &Spec, at: &str, unread: &Unread, found: &mut Findings) {
    match process.args.first() {
        None => found.add(format!("{at}/args"), "empty; name the program to run, and its arguments"),
        Some(program) if program.is_empty() => found.add(format!("{at}/args/0"), "empty; name the program to run"),
        Some(_) => {}
    }
    absolute(&process.cwd, "the directory to start in", || format!("{at}/cwd"), found);
    for (index, entry) in process.env.iter().enumerate() {
        if !matches!(entry.find('='), Some(1..)) {
            found.add(format!("{at}/env/{index}"), "is not a variable; write it as NAME=value");
        }
    }
    user(&process.user, spec, at, unread, found);
    rlimits(process, at, found);
    if let Some(adj) = process.oom_score_adj.filter(|adj| !(-1000..=1000).contains(adj)) {
        found.add(format!("{at}/oomScoreAdj"), format!("{adj} is out of range; it goes from -1000 to 1000"));
    }
    if let Some(schedule) = &process.scheduler {
        scheduler(schedule, &format!("{at}/scheduler"), found);
    }
    if let Some(priority) = &process.io_priority {
        if priority.class.is_none() {
            found.add(format!("{at}/ioPriority/class"), format!("missing; {}", one_of!(IoPriorityClass)));
        }
        if !(0..=7).contains(&priority.priority) {
            let what = format!("{} is out of range; it goes from 0 (first) to 7", priority.priority);
            found.add(format!("{at}/ioPriority/priority"), what);
        }
    }
    if let Some(affinity) = &process.exec_cpu_affinity {
        for (name, list) in [("initial", &affinity.initial), ("final", &affinity.last)] {
            if let Some(Err(what)) = list.as_deref().filter(|l| !l.is_empty()).map(attributes::list) {
                found.add(format!("{at}/execCPUAffinity/{name}"), what);
            }
        }
    }
}

/// Checks the terminal against what the caller brings for it.
pub(super) fn terminal(process: &Process, context: &Context, found: &mut Findings) {
    let what = match (process.terminal, context.console_socket) {
        (true, false) if context.detached => {
            "a terminal needs someone at its other end: give --console-socket, or run in the foreground"
        }
        (false, true) => {
            "the process has no terminal to send to --console-socket: set it to true, or leave the flag out"
        }
        _ => return,
    };
    found.add("/process/terminal", what);
}

fn user(user: &User, spec: &Spec, at: &str, unread: &Unread, found: &mut Findings) {
    if let Some(umask) = user.umask.filter(|umask| *umask > 0o777) {
        let what = format!("{umask} is out of range; it goes to 511, which is 0777 (JSON has decimal numbers only)");
        found.add(format!("{at}/user/umask"), what);
    }
    let linux = spec.linux();
    // The maps of a namespace that is joined are its own.
    if !linux.creates(NamespaceType::User) || unread.touches("/linux/namespaces") {
        return;
    }
    let mut mapped = |id: u32, maps: &[IdMapping], list: &str, field: &str| {
        let known = !maps.is_empty() && !unread.touches(&format!("/linux/{list}"));
        if known && !maps.iter().any(|map| map.to_host(id).is_some()) {
            let what = format!("{id} does not exist in the container's user namespace; add it to linux.{list}");
            found.add(format!("{at}/user/{field}"), what);
        }
    };
    mapped(user.uid, &linux.uid_mappings, "uidMappings", "uid");
    mapped(user.gid, &linux.gid_mappings, "gidMappings", "gid");
    for (index, gid) in user.additional_gids.iter().enumerate() {
        mapped(*gid, &linux.gid_mappings, "gidMappings", &format!("additionalGids/{index}"));
    }
}

fn rlimits(process: &Process, at: &str, found: &mut Findings) {
    for (index, limit) in process.rlimits.iter().enumerate() {
        let at = || format!("{at}/rlimits/{index}");
        let Some(typ) = limit.typ else {
            found.add(at() + "/type", format!("missing; {}", one_of!(RlimitType)));
            continue;
        };
        if let Some(first) = process.rlimits[..index].iter().position(|l| l.typ == Some(typ)) {
            found.add(at() + "/type", format!("{} is set by rlimits/{first} already; keep one of them", typ.word()));
        }
        if limit.soft > limit.hard {
            let what = format!("{} is above the hard limit, {}", limit.soft, limit.hard);
            found.add(at() + "/soft", what);
        }
    }
}

/// sched_setattr(2) and the kernel's checks of deadlines.
fn scheduler(scheduler: &Scheduler, at: &str, found: &mut Findings) {
    let Scheduler { policy, nice, priority, runtime, deadline, period, .. } = *scheduler;
    if !(-20..=19).contains(&nice) {
        found.add(format!("{at}/nice"), format!("{nice} is out of range; it goes from -20 (first) to 19"));
    }
    let Some(policy) = policy else {
        return found.add(format!("{at}/policy"), format!("missing; {}", one_of!(SchedulerPolicy)));
    };
    let word = policy.word();
    match policy {
        SchedulerPolicy::Fifo | SchedulerPolicy::Rr if (1..=99).contains(&priority) => {}
        SchedulerPolicy::Fifo | SchedulerPolicy::Rr => {
            found.add(format!("{at}/priority"), format!("{priority} is out of range; {word} takes 1 to 99"));
        }
        _ if priority != 0 => {
            found.add(format!("{at}/priority"), format!("is for SCHED_FIFO and SCHED_RR; leave it out with {word}"));
        }
        _ => {}
    }
    let times = [("runtime", runtime), ("deadline", deadline), ("period", period)];
    if policy != SchedulerPolicy::Deadline {
        for (name, _) in times.into_iter().filter(|(_, time)| *time != 0) {
            found.add(format!("{at}/{name}"), format!("is for SCHED_DEADLINE; leave it out with {word}"));
        }
        return;
    }
    for (name, time) in times.into_iter().filter(|(_, time)| *time > i64::MAX as u64) {
        found.add(format!("{at}/{name}"), format!("{time} nanoseconds are too many; the kernel takes {}", i64::MAX));
    }
    if runtime < 1024 {
        found.add(format!("{at}/runtime"), format!("{runtime} nanoseconds are too few; the kernel takes 1024 or more"));
    }
    if deadline < runtime.max(1) {
        found.add(format!("{at}/deadline"), format!("{deadline} is below the runtime, {runtime}; it must not be"));
    }
    if period != 0 && period < deadline {
        found.add(format!("{at}/period"), format!("{period} is below the deadline, {deadline}; it must not be"));
    }
}
