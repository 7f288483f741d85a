//! The start of a sandbox: checks, pipes, cgroups, the launch; and what is tried where this host allows less.

use super::cgroups::Cgroups;
use super::compile::{self, Walls};
use super::files;
use super::live::Live;
pub(super) use super::placeholders::Placeholders;
use super::policy::{Limits, NetworkMode, Policy, Profile};
use super::profile;
use super::record::Recorder;
use super::report::{Mode, Violation};
use super::supervise::{Assignment, Attendant, Job, Started, Stream, cgroups};
use super::watch::Watch;
use crate::engine::launch::{Event, launch};
use crate::engine::plan::{self, Extras, HookState, Inputs, Options};
use crate::error::{Context, Error, Kind, Result};
use crate::prim::cgroup::Record;
use crate::prim::namespaces::ahead::{self, Network};
use crate::spec::{Loaded, Process, SeccompAction};
use crate::sys::probe::{Question, ask};
use crate::sys::{Errno, Letter, init};
use serde::{Deserialize, Serialize};
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

/// Fills in what one part of a policy says for another: lists of domains are for a network by domain.
pub(super) fn complete(policy: &mut Policy) {
    let network = &mut policy.network;
    if network.mode == NetworkMode::None && !(network.allow.is_empty() && network.deny.is_empty()) {
        network.mode = NetworkMode::Domains;
    }
}

/// Everything that is wrong with a policy, at once.
///
/// # Errors
/// The problems, by pointer.
pub(super) fn check(policy: &Policy) -> Result<()> {
    let mut problems = super::check::check(policy);
    problems.extend(super::net::check(&policy.network));
    problems.sort();
    problems.dedup();
    if problems.is_empty() { Ok(()) } else { Err(Error::problems("the policy", &problems)) }
}

/// An ID that no other sandbox of this machine has.
pub fn new_id() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let time = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    format!("{:x}-{}-{count}", time.as_micros() & 0xff_ffff_ffff, std::process::id())
}

/// The next best walls after a failure, and what is lost by them.
pub(super) fn weaker(error: &Error, walls: Walls) -> Option<(Walls, &'static str)> {
    let text = error.to_string();
    let denied =
        matches!(error.kind(), Kind::Os(Errno::EPERM | Errno::EACCES | Errno::ENOSPC | Errno::EUSERS | Errno::EINVAL));
    let confined = Walls { mode: Mode::Confined, ..walls };
    // What can't be mounted for its own sake is no reason to go without walls: a program could bring that about for the next.
    // Nor are there more threads without walls.
    if text.contains("/source: ") || text.contains("start the proxies") {
        return None;
    }
    let missing = match error.kind() {
        Kind::Os(Errno::ENOSYS) => true,
        Kind::Os(Errno::EPERM) => !ask(Question::MountSetattr).is_there(),
        _ => false,
    };
    if text.contains("mount_setattr") && missing && !walls.single_binds {
        let why = "mounts are made read-only one by one: this kernel has no mount_setattr, or a filter bars it";
        return Some((Walls { single_binds: true, ..walls }, why));
    }
    match walls.mode {
        Mode::Confined => None,
        _ if !denied => None,
        _ if text.contains("mount proc on /proc") && !walls.bound_proc => Some((
            Walls { bound_proc: true, ..walls },
            "no new procfs may be mounted here: the processes around are seen",
        )),
        // Some of root's rights are not all of them: in a user namespace of its own, it has them.
        Mode::Privileged => {
            Some((Walls { mode: Mode::UserNamespace, ..walls }, "namespaces are made in a user namespace"))
        }
        Mode::UserNamespace if text.contains("/linux/rootfsPropagation") => Some((
            confined,
            "no mounts are to be made here, as Landlock or AppArmor around forbids them (a sandbox lets another one in with --profile unrestricted --no-landlock): Landlock, seccomp and resource limits do what they can; the network and other processes are not out of reach",
        )),
        Mode::UserNamespace if text.contains("/linux/uidMappings") && nix::unistd::geteuid().is_root() => Some((
            confined,
            "no namespaces are to be had here, as root has no CAP_SETFCAP: Landlock, seccomp and resource limits do what they can; the network and other processes are not out of reach",
        )),
        _ => Some((
            confined,
            "no namespaces are to be had here: Landlock, seccomp and resource limits do what they can; the network and other processes are not out of reach",
        )),
    }
}

/// Whether the network is as closed behind these walls as the policy has it: without a network namespace only a profile
/// that has no sockets closes it.
pub(super) fn network_holds(policy: &Policy, walls: Walls) -> bool {
    let calls = &policy.syscalls;
    let sockets = calls.custom.is_some() || calls.allow.iter().any(|name| name == "socket");
    walls.mode != Mode::Confined
        || policy.network.mode == NetworkMode::Host
        || (!sockets && profile::effective(policy) < Profile::Network)
}

/// Whether the policy asks not to be told of a violation.
pub(super) fn ignored(policy: &Policy, violation: &Violation) -> bool {
    let by = |name: &str| {
        policy.ignore_violations.get(name).is_some_and(|list| list.iter().any(|p| violation.what.contains(p.as_str())))
    };
    by("*") || by(&violation.program)
}

/// What is on the host as long as a sandbox runs, and stays there should brig be killed.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Leftover {
    cgroups: Record,
    placeholders: Placeholders,
}

impl Leftover {
    /// Where its cgroups are.
    pub(super) fn parents(&self) -> impl Iterator<Item = PathBuf> {
        self.cgroups.groups.iter().filter_map(|group| Some(Path::new(&group.path).parent()?.to_path_buf()))
    }

    /// Removes it; the sandbox has ended. Says whether nothing of it is left.
    pub(super) fn remove(self, id: &str) -> bool {
        self.placeholders.remove();
        // Nothing but what such a sandbox has is believed to be its own.
        let name = format!("brig-sandbox-{id}");
        let own =
            |path: &str| path.rsplit('/').next().is_some_and(|last| last == name || last == format!("{name}.scope"));
        if self.cgroups.groups.iter().all(|group| own(&group.path))
            && self.cgroups.unit.as_ref().is_none_or(|unit| own(&unit.name))
        {
            return self.cgroups.remove().is_ok();
        }
        true
    }
}

/// Whether a filter lets the child tell of its listener and go on to the program; else nobody would answer it.
fn can_record(seccomp: &crate::spec::Seccomp) -> bool {
    let allows = |action| action == Some(SeccompAction::Allow) || action == Some(SeccompAction::Log);
    ["read", "write", "execve", "close", "exit_group"].iter().all(|name| {
        let rules = seccomp.syscalls.iter().filter(|rule| rule.names.iter().any(|n| n == name));
        let mut actions = rules.map(|rule| allows(rule.action) && rule.args.is_empty()).peekable();
        match actions.peek() {
            Some(_) => actions.all(|allowed| allowed),
            None => allows(seccomp.default_action),
        }
    })
}

/// Opens what the stream `number` is to be; the other end of a pipe is the supervisor's.
fn open(stream: &mut Stream, number: u32) -> Result<(Option<OwnedFd>, Option<OwnedFd>)> {
    let is_directory = |file: BorrowedFd| crate::prim::mounts::is_directory(file).unwrap_or(false);
    // From a directory of the host's, `..` leads everywhere.
    let open_to_all = match stream {
        Stream::Inherit => std::fs::metadata(format!("/proc/self/fd/{number}")).is_ok_and(|found| found.is_dir()),
        Stream::File(file) => is_directory(file.as_fd()),
        _ => false,
    };
    if open_to_all {
        let what = format!("standard stream {number} is a directory, by which the program would get out of its view");
        return Err(Error::invalid(what).hint("give it a file, a pipe, or /dev/null"));
    }
    Ok(match stream {
        Stream::Inherit => (None, None),
        Stream::Null => {
            let null = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null");
            (Some(null.during(|| "open /dev/null".into())?.into()), None)
        }
        Stream::Capture => {
            let (ours, theirs) = init::pipe().during(|| "make a pipe".into())?;
            (Some(theirs), Some(ours))
        }
        Stream::File(file) => (Some(file.try_clone().during(|| "copy a stream's fd".into())?), None),
    })
}

/// Starts the program behind these walls.
///
/// # Errors
/// What kept it from starting; nothing is left then.
pub(super) fn start(
    job: &mut Job,
    id: &str,
    mut walls: Walls,
    notes: &mut Vec<String>,
    attendant: &mut dyn Attendant,
) -> Result<Started> {
    let closed = job.policy.network.mode != NetworkMode::Host;
    let network = ahead::start(walls.mode == Mode::Privileged && closed);
    let mut compiled = compile::compile(&job.policy, &job.command, id, walls, job.commit)?;
    let groups = match cgroups(&compiled, id, job.measure) {
        Ok(groups) => groups,
        Err(error) if !job.policy.weaker_limits && compiled.spec.linux().resources.is_some() => {
            return Err(unlimited(&error, &job.policy.limits));
        }
        Err(error) => {
            let note = format!("no cgroup is to be had, resource limits serve: {error}");
            if !notes.contains(&note) {
                notes.push(note);
            }
            walls.by_rlimits = true;
            compiled = compile::compile(&job.policy, &job.command, id, walls, job.commit)?;
            Cgroups::default()
        }
    };
    if let Some(layer) = &job.policy.files.layer {
        for overlay in &compiled.overlays {
            for part in ["upper", "work"] {
                let dir = layer.join(&overlay.name).join(part);
                std::fs::create_dir_all(&dir).during(|| format!("/files/layer: make {}", dir.display()))?;
            }
        }
    }
    let (placeholders, kept) = match walls.mode {
        Mode::Confined => Default::default(),
        _ => Placeholders::make(&compiled.placeholders, &compiled.protected)?,
    };
    if let Some(linux) = &mut compiled.spec.linux {
        let (outer, inner): (Vec<_>, Vec<_>) = kept.paths.into_iter().partition(|path| files::is_outer(path));
        let inner: Vec<_> = inner.into_iter().chain(kept.closed).collect();
        let also: Vec<_> = inner.iter().flat_map(|path| compile::also_at(path, &compiled.aliases)).collect();
        let more: Vec<_> = also.into_iter().chain(inner).filter(|path| !linux.readonly_paths.contains(path)).collect();
        linux.readonly_paths.extend(more);
        let outer = outer.iter().filter(|path| compiled.outer.contains(path));
        compiled.spec.mounts.extend(outer.map(|path| compile::bind(path, path, true)));
    }
    if walls.single_binds {
        compile::without_recursion(&mut compiled.spec.mounts);
    }
    let record = groups.record.clone();
    attendant.made(&Leftover { cgroups: record.clone(), placeholders: placeholders.clone() });
    match go(job, id, walls, (compiled, network), groups, notes, attendant) {
        Ok((compiled, live, recorder, layer, ending, outputs)) => {
            Ok(Started { compiled, live, recorder, layer, ending, outputs, placeholders })
        }
        Err(error) => {
            placeholders.remove();
            let _ = record.remove();
            Err(error)
        }
    }
}

/// Names the program of a child that waits, and holds it to its own limits.
fn assign(
    assignment: &Assignment,
    letter: &Letter,
    environment: &[String],
    policy: &Policy,
    record: &Record,
) -> Result<()> {
    let extra: Vec<String> = assignment.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let process = Process { args: assignment.command.clone(), env: environment.to_vec(), ..Process::default() };
    let program = plan::Program::new(&process, None, &extra)?;
    letter.write(&program.candidates, &program.argv, &program.envp).map_err(|_| {
        Error::invalid("the command and its environment are too long").hint("pass what is long on the standard input")
    })?;
    let (now, wanted) = (&policy.limits, &assignment.limits);
    let of_groups = |limits: &Limits| (limits.memory, limits.swap, limits.cpu, limits.cpu_quota, limits.pids);
    if of_groups(now) == of_groups(wanted) {
        return Ok(());
    }
    super::cgroups::update(record, &Policy { limits: wanted.clone(), ..policy.clone() })
}

/// Limits that take a cgroup, and there is none.
fn unlimited(error: &Error, limits: &Limits) -> Error {
    let given = [
        ("memory", limits.memory.is_some()),
        ("swap", limits.memory.and(limits.swap).is_some()),
        ("cpu", limits.cpu.is_some()),
        ("cpu_quota", limits.cpu_quota.is_some()),
        ("pids", limits.pids.is_some()),
    ];
    let names: Vec<_> = given.iter().filter(|(_, given)| *given).map(|(name, _)| format!("limits.{name}")).collect();
    let what = format!("no cgroup is to be had here that holds {} for all processes together", names.join(", "));
    let without = error.to_string().replace("\n  hint: ", "; ");
    Error::new(Kind::Status, format!("{what}: {without}")).hint(
        "leave --strict (weaker_limits: false) out for limits of each process, or give them as none: --memory none --pids none",
    )
}

/// The limit that a sandbox could not even start within, and the remedy.
fn too_little(error: &Error, policy: &Policy, walls: Walls, ooms: u64) -> Option<String> {
    let limits = &policy.limits;
    let memory = || Some(format!("limits.memory (--memory {}) is below what can start: give more", limits.memory?));
    match error.kind() {
        _ if ooms > 0 => memory().map(|why| format!("out of memory: {why}")),
        Kind::Os(Errno::ENOMEM) if walls.by_rlimits => memory(),
        Kind::Os(Errno::EAGAIN) if walls.by_rlimits => limits.pids.map(|pids| {
            format!("limits.pids (--pids {pids}) leaves no room for a process: without a cgroup it counts all processes of this user; give more than there are")
        }),
        Kind::Os(Errno::EMFILE) => limits.open_files.map(|n| {
            format!("limits.open_files (--open-files {n}) may be below what can start: give more")
        }),
        _ => None,
    }
}

type Gone = (compile::Compiled, Live, Option<Recorder>, Option<OwnedFd>, OwnedFd, [Option<OwnedFd>; 2]);

fn go(
    job: &mut Job,
    id: &str,
    walls: Walls,
    (mut compiled, network): (compile::Compiled, Network),
    groups: Cgroups,
    notes: &mut Vec<String>,
    attendant: &mut dyn Attendant,
) -> Result<Gone> {
    let Cgroups { scope, mut record } = groups;
    let (later, policy) = (job.later, &job.policy);
    let confined = walls.mode == Mode::Confined;
    let loaded = Loaded { value: std::mem::take(&mut compiled.spec), raw: Vec::new(), problems: Vec::new() };
    let context = plan::validate::Context {
        rootless: !confined && !nix::unistd::geteuid().is_root(),
        bundle: None,
        console_socket: policy.process.terminal,
        detached: false,
    };
    plan::validate::validate(&loaded, &context).map_err(|p| Error::problems("the sandbox's spec", &p))?;
    let spec = loaded.value;
    let recordable = spec.linux().seccomp.as_ref().is_some_and(can_record);
    if policy.syscalls.record && !recordable && spec.linux().seccomp.is_some() {
        notes.push(
            "what the profile denies is not recorded: it would have to allow read, write, execve, close and exit_group"
                .into(),
        );
    }
    let record_calls = policy.syscalls.record && recordable && ask(Question::PidfdGetfd).is_there();
    if policy.syscalls.record && recordable && !record_calls {
        let note =
            "what the profile denies is not recorded: this kernel has no pidfd_getfd (Linux 5.6), or a filter bars it";
        if !notes.iter().any(|known| known == note) {
            notes.push(note.into());
        }
    }
    let (ending, report) = init::pipe().during(|| "make a pipe".into())?;
    let [stdin, stdout, stderr] = &mut job.streams;
    let (stdin, _) = open(stdin, 0)?;
    let (stdout, out) = open(stdout, 1)?;
    let (stderr, err) = open(stderr, 2)?;
    let letter = later.then(Letter::new).transpose().during(|| "make room for the command".into())?.map(Rc::new);
    let console = if policy.process.terminal { attendant.console()? } else { None };
    let extras = Extras {
        init: Some(report),
        die_with_parent: true,
        listen: if confined { Vec::new() } else { compiled.listen.clone() },
        landlock: compiled.landlock.take(),
        record: record_calls,
        links: std::mem::take(&mut compiled.links),
        watch: policy.syscalls.record,
        // To see at the end whether it is full, too.
        keep_layer: true,
        streams: [stdin, stdout, stderr],
        confined,
        letter: letter.clone(),
        filter_first: recordable,
    };
    // A filter around this one, for which there are no namespaces, most often denies keyctl, too.
    let options = Options { no_new_keyring: confined, ..Options::default() };
    let (join, v2) = match &scope {
        Some((plan, _)) => (plan.join_files(), None),
        None => (record.join_files(), record.v2_dir()?),
    };
    let mut plan = plan::create(Inputs {
        id,
        bundle: Path::new("/"),
        spec: &spec,
        options: &options,
        scope: scope.is_some(),
        join,
        cgroups: &[],
        console,
        gate: None,
        lock: None,
        hook_state: HookState::default(),
        network,
        extras,
    })?;
    // A layer on a disk is in sight already.
    let on_disk = policy.files.layer.as_ref().filter(|_| !compiled.overlays.is_empty());
    let on_disk =
        on_disk.map(|dir| std::fs::File::open(dir).during(|| format!("/files/layer: open {}", dir.display())));
    let (mut layer, mut listeners, mut listener, mut program, mut watch) =
        (on_disk.transpose()?.map(OwnedFd::from), Vec::new(), None, None, None);
    let mut scope = scope;
    let mut started = Instant::now();
    let mut assigned = None;
    let environment: Vec<String> = match later {
        true => plan.exec.envp.iter().map(|entry| entry.to_string_lossy().into_owned()).collect(),
        false => Vec::new(),
    };
    let mut on = |event: Event| match event {
        Event::Born(child) => match &mut scope {
            Some((plan, session)) => plan.enter(session, child.pid, &mut record),
            None => Ok(()),
        },
        Event::Runtime(_) => Ok(()),
        Event::Notify(_, fd) => {
            listener = Some(fd);
            Ok(())
        }
        Event::Ready(_) => {
            if let Some(letter) = &letter {
                let assignment = attendant.assignment()?;
                started = Instant::now();
                let assignment = assigned.insert(assignment);
                assign(assignment, letter, &environment, policy, &record)?;
            }
            attendant.about_to_run()
        }
        Event::Handed(0, fd) => {
            layer = Some(fd);
            Ok(())
        }
        Event::Handed(-1, fd) => {
            watch = Some(fd);
            Ok(())
        }
        Event::Handed(port, fd) => {
            listeners.push((port as u16, TcpListener::from(fd)));
            Ok(())
        }
        Event::Program(child) => {
            let pidfd = child.pidfd.try_clone().during(|| "copy a pidfd".into())?;
            program = Some(crate::sys::process::Child { pid: child.pid, pidfd });
            Ok(())
        }
    };
    let launched = launch(&mut plan, v2.as_ref().map(AsFd::as_fd), false, &mut on);
    let child = launched.map_err(|error| {
        let error = match (error.kind(), &assigned) {
            // What a client asks for must not lead to weaker walls.
            (Kind::Os(_), Some(_)) => Error::new(Kind::Other, error.to_string()),
            _ => error,
        };
        match too_little(&error, policy, walls, record.oom_kills().unwrap_or(0)) {
            Some(why) => error.context(why),
            None => error,
        }
    })?;
    // The child's ends of the pipes are in the plan, and an output ends only when the last of them is closed.
    notes.append(&mut plan.warnings);
    drop(plan);
    compiled.spec = spec;
    if let Some(assignment) = assigned {
        (job.command, job.policy.limits) = (assignment.command, assignment.limits);
    }
    let policy = &job.policy;
    let limits = super::cgroups::limits(policy, &record, !compiled.overlays.is_empty());
    let recorder = listener.map(|fd| Recorder::new(fd, started));
    if record_calls && recorder.is_none() {
        notes.push("what is denied is not recorded: a filter around this sandbox listens already".into());
    }
    let mut live = Live::new(policy.clone(), walls.mode, child, program, record, limits, started);
    live.watch = watch.map(|fd| Watch::new(fd, compiled.spec.linux().masked_paths.clone(), started));
    live.serve(listeners)?;
    Ok((compiled, live, recorder, layer, ending, [out, err]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_that_can_not_be_closed() {
        let confined = Walls { mode: Mode::Confined, bound_proc: false, single_binds: false, by_rlimits: true };
        let holds = |change: fn(&mut Policy)| {
            let mut policy = Policy::default();
            change(&mut policy);
            assert!(network_holds(&policy, Walls { mode: Mode::UserNamespace, ..confined }));
            network_holds(&policy, confined)
        };
        assert!(holds(|_| {}) && holds(|p| p.network.mode = NetworkMode::Host));
        assert!(!holds(|p| p.network.mode = NetworkMode::Domains));
        assert!(!holds(|p| p.network.allow_local_binding = true));
        assert!(!holds(|p| p.syscalls.profile = Profile::Network));
        assert!(!holds(|p| p.syscalls.allow.push("socket".into())));
        assert!(!holds(|p| p.syscalls.custom = Some(crate::spec::Seccomp::default())));
    }
}
