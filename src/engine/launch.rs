//! The parent's half: clones, answers each sync point, and turns a failure's number into words.

use super::child;
use super::plan::{Op, Plan, Program, Step, Sync};
use super::wire::{self, LATE, Message};
use crate::error::{Context, Error, Kind, Result, describe};
use crate::prim::mounts::What;
use crate::prim::{attributes, namespaces};
use crate::sys::mount::{self, Attributes, Tree};
use crate::sys::probe::{Question, ask};
use crate::sys::process::{self, Child, Ended};
use crate::sys::{Call, Errno, Failure, files, socket};
use nix::fcntl::OFlag;
use nix::sched::CloneFlags;
use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// What the caller of [`launch`] is asked to do.
pub enum Event<'a> {
    /// There is a process; from here on the container has a life to end. It waits for its scope, if it gets one.
    Born(&'a Child),
    /// Namespaces and mounts are there: run the runtime's hooks, move network devices.
    Runtime(&'a Child),
    /// A filter's listener, to be passed on.
    Notify(&'a Child, OwnedFd),
    /// Everything is set up: save the state.
    Ready(&'a Child),
    /// What the child hands over: its writable layer (0), the watch on what is hidden (-1), or a listening socket by its port.
    Handed(i32, OwnedFd),
    /// The init has made the program's own process.
    Program(&'a Child),
}

/// Launches a plan. With `gated` it returns when the child waits for `start`, else when the program runs.
///
/// # Errors
/// A failed step in the plan's words; nothing of the child is left then.
pub fn launch(
    plan: &mut Plan,
    cgroup: Option<BorrowedFd>,
    gated: bool,
    on: &mut dyn FnMut(Event) -> Result<()>,
) -> Result<Child> {
    map_mounts(plan, |idmap| match (&idmap.maps, &idmap.namespace) {
        (Some(maps), _) => Some(namespaces::idmap_namespace(maps)),
        (None, Some(joined)) => Some(joined.try_clone().during(|| "copy the user namespace's fd".into())),
        (None, None) => None,
    })?;
    let (ours, theirs) = socket::packet_pair().during(|| "make a socket pair".into())?;
    let own_pid_namespace = enter_pid_namespace(plan)?;
    let ahead = plan.setup.iter_mut().any(|step| match &mut step.op {
        Op::Network(network) => network.is_made(),
        _ => false,
    });
    let flags = if ahead { plan.clone_flags & !(libc::CLONE_NEWNET as u64) } else { plan.clone_flags };
    let mut cloned = process::clone3(flags, cgroup);
    let mut procs = None;
    if let (Err(errno), Some(cgroup)) = (&cloned, cgroup)
        && may_join_instead(*errno)
    {
        procs = Some(files::open(Some(cgroup), c"cgroup.procs", OFlag::O_WRONLY).map_err(not_joined)?);
        cloned = process::clone3(flags, None);
    }
    if let Ok(None) = cloned {
        // The parent's end must not live on in the child, or its death would go unnoticed.
        drop(ours);
        if let Some(Err(errno)) = procs.as_ref().map(|procs| files::write(procs.as_fd(), b"0")) {
            let failure = crate::sys::Failure { call: Call::Write, errno };
            let _ = wire::tell(theirs.as_fd(), Message::Failed { step: wire::JOIN, failure, detail: 0 });
            process::exit_now(child::SETUP_FAILED);
        }
        child::run(plan, theirs.as_fd());
    }
    drop(procs);
    if let Some(own) = own_pid_namespace {
        match nix::sched::setns(own, CloneFlags::CLONE_NEWPID) {
            // Who has no privilege over the own one, as under podman without root, can't go back: what this process
            // starts from here on, hooks that is, is born in the container's.
            Ok(()) | Err(nix::errno::Errno::EPERM) => {}
            Err(errno) => return Err(Error::os("return to the own pid namespace", errno)),
        }
    }
    let first = match cloned {
        Ok(Some(child)) => child,
        Ok(None) => child::run(plan, ours.as_fd()),
        Err(errno) => {
            let names = super::plan::flag_names(flags);
            return Err(Error::os(format!("/linux/namespaces: clone3 ({names})"), errno).hint(clone_hint(errno)));
        }
    };
    drop(theirs);
    let mut parent = Parent { plan, wire: ours, child: first, program: None };
    let result = on(Event::Born(&parent.child)).and_then(|()| parent.serve(gated, on));
    if result.is_err() {
        let _ = parent.child.signal(libc::SIGKILL);
        let _ = parent.child.wait();
    }
    result.map(|()| parent.child)
}

/// Whether a child that can't be born in its v2 cgroup may still get in by itself: kernels before 5.7 and filters of system
/// calls don't let it (`E2BIG`, `EINVAL`, `EPERM`), and a threaded cgroup takes only who is in its domain (`EOPNOTSUPP`). If
/// the clone failed for another reason, it fails again.
fn may_join_instead(errno: Errno) -> bool {
    matches!(errno, Errno::E2BIG | Errno::EINVAL | Errno::EPERM | Errno::EACCES | Errno::EOPNOTSUPP)
}

fn not_joined(errno: Errno) -> Error {
    let error = Error::os("/linux/cgroupsPath: join the container's cgroup by its cgroup.procs", errno);
    match errno {
        Errno::EACCES | Errno::EPERM => error.hint(
            "moving a process takes the right to write cgroup.procs of both cgroups and of the nearest one above both: \
             start brig within the part of the tree that is delegated to this user",
        ),
        Errno::EOPNOTSUPP => error.hint("it is a threaded cgroup, or below one; give a linux.cgroupsPath elsewhere"),
        Errno::EBUSY => error.hint(clone_hint(errno)),
        _ => error,
    }
}

/// Makes the next child be born in the PID namespace that the plan joins; returns the own one to come back to.
fn enter_pid_namespace(plan: &Plan) -> Result<Option<OwnedFd>> {
    let Some(joined) = &plan.pid_namespace else { return Ok(None) };
    let own = files::open(None, c"/proc/self/ns/pid", OFlag::O_RDONLY).during(|| "open /proc/self/ns/pid".into())?;
    nix::sched::setns(&joined.fd, CloneFlags::CLONE_NEWPID)
        .during(|| format!("/linux/namespaces/{}: join the pid namespace", joined.index))?;
    Ok(Some(own))
}

/// Gives ID-mapped mounts their maps, by the namespace that `pick` opens for each that it means. The detached mounts are
/// shared with the child, so it is enough to do it here, where it is allowed.
fn map_mounts(plan: &Plan, pick: impl Fn(&super::plan::IdMap) -> Option<Result<OwnedFd>>) -> Result<()> {
    for idmap in &plan.idmaps {
        let Some(namespace) = pick(idmap) else { continue };
        let Some(Step { op: Op::Mount(made), at }) = plan.setup.get(idmap.step) else { continue };
        let What::Bind { tree, .. } = &made.what else { continue };
        let namespace = namespace.during(|| format!("{at}/uidMappings"))?;
        let mapped = match tree {
            Tree::Made(tree) => {
                let plain = Attributes::default();
                mount::set_attributes(tree.as_fd(), plain, idmap.recursive, Some(namespace.as_fd()))
            }
            // Only a detached mount can be mapped, and there are none here.
            Tree::Later(..) => Err(Errno::ENOSYS),
        };
        mapped.during(|| format!("{at}/uidMappings: mount_setattr(MOUNT_ATTR_IDMAP)")).map_err(|e| match e.kind() {
            Kind::Os(Errno::ENOSYS) => e.hint(
                "ID-mapped mounts take open_tree(2) and mount_setattr(2): Linux 5.12, and no filter around brig that bars them",
            ),
            _ => e.hint("the source's filesystem must support ID-mapped mounts, and must not be one already"),
        })?;
    }
    Ok(())
}

struct Parent<'p> {
    plan: &'p mut Plan,
    wire: OwnedFd,
    child: Child,
    /// The program's process, where the child is its init.
    program: Option<Child>,
}

impl Parent<'_> {
    fn serve(&mut self, gated: bool, on: &mut dyn FnMut(Event) -> Result<()>) -> Result<()> {
        let mut ready = false;
        loop {
            let (message, fd) = if self.plan.stage.is_some() || self.plan.has_init {
                wire::hear_born(self.wire.as_fd()).during(|| "read from the child".into())?
            } else {
                (wire::hear(self.wire.as_fd()).during(|| "read from the child".into())?, None)
            };
            let message = match (message, fd) {
                (Some(Message::Born), Some(pidfd)) => {
                    // By the pidfd: the number that its maker knows may be of another PID namespace.
                    let pid = match process::pid_of(pidfd.as_fd()) {
                        Ok(pid) => pid,
                        // A program that has run to its end already has none any more.
                        Err(_) if ready => 0,
                        Err(_) => {
                            let what = "the container's process has ended while it was set up";
                            return Err(Error::new(Kind::Gone, what));
                        }
                    };
                    let born = Child { pid, pidfd };
                    // An init makes its program behind all else, or before the program waits to be named.
                    if ready || (self.plan.exec.later.is_some() && self.plan.stage.is_none()) {
                        on(Event::Program(&born))?;
                        self.program = Some(born);
                    } else {
                        // The stage has done its work; its sibling goes on.
                        let stage = std::mem::replace(&mut self.child, born);
                        let _ = stage.wait();
                    }
                    continue;
                }
                (Some(Message::At(Sync::Handover, number)), Some(fd)) => {
                    on(Event::Handed(number, fd))?;
                    continue;
                }
                (message, _) => message,
            };
            match message {
                Some(Message::At(sync, number)) => {
                    self.answer(sync, number, on)?;
                    // A child that died meanwhile is found at the next message.
                    let _ = wire::go(self.wire.as_fd());
                    if sync == Sync::Ready {
                        self.look_at_oom_score();
                        ready = true;
                    }
                    if ready && gated {
                        return Ok(());
                    }
                }
                Some(Message::Failed { step, failure, detail }) => {
                    let said = wire::hear_said(self.wire.as_fd());
                    return Err(explain(self.plan, step, failure, detail, &said));
                }
                Some(Message::Born) => return Err(Error::new(Kind::Other, "the child broke the protocol")),
                None if ready => return Ok(()),
                None => return Err(self.died()),
            }
        }
    }

    fn answer(&self, sync: Sync, number: i32, on: &mut dyn FnMut(Event) -> Result<()>) -> Result<()> {
        match sync {
            // What is to be done was done at the birth.
            Sync::Scope => Ok(()),
            Sync::Handover => Err(Error::new(Kind::Other, "the child broke the protocol")),
            Sync::Maps => self.maps(),
            Sync::Runtime => on(Event::Runtime(&self.child)),
            Sync::Ready => on(Event::Ready(&self.child)),
            Sync::Notify => {
                let owner = self.program.as_ref().unwrap_or(&self.child);
                let listener = process::pidfd_getfd(owner.pidfd.as_fd(), number)
                    .during(|| "/linux/seccomp: fetch the filter's listener: pidfd_getfd".into())
                    .map_err(|e| match e.kind() {
                        Kind::Os(Errno::ENOSYS | Errno::EPERM) => {
                            e.hint("a filter that notifies takes pidfd_getfd(2), Linux 5.6, which a filter around brig may bar")
                        }
                        _ => e,
                    })?;
                on(Event::Notify(&self.child, listener))
            }
        }
    }

    fn maps(&self) -> Result<()> {
        let pid = self.child.pid;
        if let Some(maps) = &self.plan.maps {
            namespaces::write_maps(maps, pid)?;
        }
        for Step { op, at } in &self.plan.by_parent {
            match op {
                Op::OomScoreAdj { value, deniable } => {
                    match std::fs::write(format!("/proc/{pid}/oom_score_adj"), value.as_bytes()) {
                        Err(e) if *deniable && e.kind() == std::io::ErrorKind::PermissionDenied => {}
                        other => other.during(|| format!("{op} [{at}]"))?,
                    }
                }
                Op::Rlimit(limit) => crate::sys::sched::set_rlimit_of(pid, limit.resource, limit.soft, limit.hard)
                    .map_err(|errno| with_rlimit_hint(Error::os(format!("{op} [{at}]"), errno), *limit, errno))?,
                _ => {}
            }
        }
        map_mounts(self.plan, |idmap| {
            (idmap.maps.is_none() && idmap.namespace.is_none()).then(|| {
                let path = CString::new(format!("/proc/{pid}/ns/user")).unwrap_or_default();
                files::open(None, &path, OFlag::O_RDONLY).during(|| "open the user namespace".into())
            })
        })
    }

    /// Says what became of an oom_score_adj that the kernel may have refused: podman and runc go on as well.
    fn look_at_oom_score(&mut self) {
        let Plan { by_parent, setup, stage, .. } = &*self.plan;
        let steps = by_parent.iter().chain(setup).chain(stage.iter().flat_map(|(steps, _)| steps));
        let mut wanted = steps.filter_map(|step| match &step.op {
            Op::OomScoreAdj { value, deniable: true } => Some(value.to_string_lossy().into_owned()),
            _ => None,
        });
        let Some(wanted) = wanted.next() else { return };
        let now = std::fs::read_to_string(format!("/proc/{}/oom_score_adj", self.child.pid)).unwrap_or_default();
        if now.trim() != wanted && !now.is_empty() {
            let what = format!("{wanted} takes CAP_SYS_RESOURCE on the host, so it stays at {}", now.trim());
            self.plan.warnings.push(format!("/process/oomScoreAdj: {what}"));
        }
    }

    /// The child went without a word.
    fn died(&self) -> Error {
        let how = match self.child.wait() {
            Ok(Ended::Signaled(libc::SIGKILL)) => {
                return Error::new(Kind::Other, "the container's process was killed while it was set up").hint(
                    "out of memory is the usual cause: /linux/resources/memory/limit may be too small to start in",
                );
            }
            Ok(Ended::Signaled(signal)) => format!("died of signal {signal}"),
            Ok(Ended::Exited(crate::sys::alloc::ALLOCATED)) => "allocated between clone and exec".into(),
            Ok(Ended::Exited(status)) => format!("exited with status {status}"),
            Err(errno) => describe(errno),
        };
        Error::new(Kind::Other, format!("the container's process {how} while it was set up"))
    }
}

fn with_rlimit_hint(error: Error, limit: attributes::Rlimit, errno: Errno) -> Error {
    match attributes::rlimit_hint(limit, errno) {
        Some(hint) => error.hint(hint),
        None => error,
    }
}

/// A child's failure in the plan's words.
pub fn explain(plan: &Plan, step: u16, failure: Failure, detail: i32, said: &[u8]) -> Error {
    if step == wire::JOIN {
        return not_joined(failure.errno);
    }
    let steps = match &plan.stage {
        _ if step & LATE != 0 => &plan.late,
        Some((stage, _)) if step & wire::STAGE != 0 => stage,
        _ => &plan.setup,
    };
    match steps.get(usize::from(step & !(LATE | wire::STAGE))) {
        Some(step) => explain_step(step, &plan.exec, failure, (detail, said)),
        None => Error::os(failure.call.name(), failure.errno),
    }
}

/// A failure of one step in words.
pub fn explain_step(step: &Step, exec: &Program, failure: Failure, (detail, said): (i32, &[u8])) -> Error {
    let program = exec.called();
    let Failure { call, errno } = failure;
    let place = if step.at.is_empty() { String::new() } else { format!(" [{}]", step.at) };
    match (&step.op, errno) {
        (Op::FindProgram | Op::Exec, Errno::ENOENT | Errno::ENOTDIR) if matches!(step.op, Op::FindProgram) => {
            return Error::new(Kind::ProgramNotFound, exec.not_found());
        }
        (Op::Exec, Errno::ENOENT) if exec.later.is_some() => {
            return Error::new(Kind::ProgramNotFound, exec.not_found());
        }
        (Op::Exec, Errno::ENOENT) => {
            return Error::new(Kind::ProgramNotFound, format!("exec: {program:?}: no such file or directory"))
                .hint("the file is there, but the interpreter or loader that it names is not");
        }
        (Op::FindProgram | Op::Exec, Errno::EACCES | Errno::EPERM) => {
            return Error::new(Kind::ProgramDenied, format!("exec: {program:?}: permission denied"));
        }
        (Op::FindProgram | Op::Exec, _) => {
            let error = Error::new(Kind::ProgramDenied, format!("exec: {program:?}: {}", describe(errno)));
            return match errno {
                Errno::ENOEXEC => error.hint("it is built for another architecture, or is a script without a #! line"),
                _ => error,
            };
        }
        (Op::Hook(hook), _) => {
            return crate::prim::hooks::explain(hook, errno, detail, said);
        }
        _ => {}
    }
    let call = match call {
        Call::Check | Call::None => String::new(),
        call => format!("{}: ", call.name()),
    };
    let error = Error::new(Kind::Os(errno), format!("{}{place}: {call}{}", step.op, describe(errno)));
    if let Op::Rlimit(limit) = &step.op {
        return with_rlimit_hint(error, *limit, errno);
    }
    match hint(&step.op, failure) {
        Some(hint) => error.hint(hint),
        None if matches!(errno, Errno::EPERM | Errno::EACCES) => match namespaces::denial() {
            Some(hint) => error.hint(hint),
            None => error,
        },
        None => error,
    }
}

/// Remedies for failures that are known to puzzle.
fn hint(op: &Op, failure: Failure) -> Option<&'static str> {
    Some(match (op, failure.call, failure.errno) {
        (Op::Mount(_), Call::MountSetattr, Errno::ENOSYS) => {
            "options for a whole tree, such as rro, take mount_setattr(2): Linux 5.12, and no filter around brig that bars it"
        }
        (Op::Mount(m), _, Errno::EPERM) if m.is_proc() => {
            "a new procfs in a user namespace needs a new pid namespace, and a host procfs that nothing masks"
        }
        (Op::Mount(m), _, Errno::EPERM) if m.is_type(c"sysfs") => {
            "sysfs in a user namespace needs a network namespace of its own; bind /sys instead"
        }
        (
            Op::Mount(_) | Op::AttachRoot { .. } | Op::CopyTree { .. },
            Call::FsOpen | Call::CloneTree,
            Errno::ENOSYS | Errno::EPERM,
        ) if failure.errno == Errno::ENOSYS || !ask(Question::OpenTree).is_there() => {
            "mounts in a mount namespace that others use, too (of a running container, or a joined one), take fsopen(2), \
             open_tree(2) and move_mount(2): Linux 5.2, and no filter around brig that bars them"
        }
        (Op::Mount(_), Call::MountSetattr, Errno::EPERM) => {
            "in a user namespace the flags that the source's mount has on the host stay: leave suid, dev, exec and the \
             atime options out; options for a whole tree, such as rro, take mount_setattr(2): Linux 5.12, and no filter around \
             brig that bars it"
        }
        (Op::Mount(m), Call::CloneTree, Errno::EINVAL) if matches!(m.what, What::Bind { .. }) => {
            "in a user namespace a directory can't be had without what is mounted below it: use rbind"
        }
        (Op::Mount(_), Call::Open, Errno::ELOOP) => {
            "the target of proc or sysfs must be a directory of the root filesystem, not a symlink"
        }
        (Op::Mount(_), Call::FsOpen, Errno::ENODEV) => "this kernel does not know that type of filesystem",
        (Op::Mount(_), Call::FsConfig, Errno::EINVAL) => "the filesystem does not take one of the options",
        (Op::Mount(_), Call::Open | Call::MakeDir, Errno::EROFS) => {
            "the place to mount on does not exist, and can't be made in a read-only filesystem"
        }
        (Op::FindMount { .. }, Call::Check, Errno::EINVAL) => "nothing is mounted at just that place",
        (Op::FindMount { .. }, Call::Open, Errno::ELOOP) => {
            "a symlink leads there, which the container may have made; name the place without it"
        }
        (Op::Unmount { .. }, Call::Umount, Errno::EINVAL) => "it is part of a mount that can only be removed whole",
        (Op::Mask(_), Call::Check, Errno::ENODEV) => "the container's /dev/null is not the null device (1:3)",
        (Op::Cwd { .. }, Call::Check, _) => "the working directory lies outside the container's root",
        (Op::Cwd { .. }, Call::Chdir, Errno::ENOENT) => "the working directory does not exist and could not be made",
        (Op::Pivot, Call::PivotRoot, Errno::EINVAL) => "on a host that runs from its initramfs, use --no-pivot",
        (Op::Pivot, Call::Check, _) => "something still lies over the container's root that would lead out of it",
        (Op::Terminal { .. }, Call::Open, Errno::ENOENT) => "a terminal needs a devpts mounted on /dev/pts",
        (Op::Node(_), Call::Mknod, Errno::EEXIST) => "another file has that name in the root filesystem",
        (Op::Node(_), Call::Mknod, Errno::EPERM) => "making devices takes CAP_MKNOD and leave of the devices cgroup",
        (Op::Groups { .. }, _, Errno::EPERM) => {
            "a user namespace that a plain user maps alone has no supplementary groups: leave additionalGids out, or map \
             a range of /etc/subgid"
        }
        (Op::Gid(_) | Op::Uid(_) | Op::Groups { .. }, _, Errno::EINVAL) => "the ID is not mapped in the user namespace",
        (Op::Label { file, .. }, Call::Write, Errno::ENOENT) if *file == c"attr/apparmor/exec" => {
            "no such AppArmor profile is loaded: load its file with apparmor_parser --replace, or leave apparmorProfile out"
        }
        (Op::Label { file, .. }, Call::Write, Errno::EACCES | Errno::EPERM) if *file == c"attr/apparmor/exec" => {
            "this process is confined by a profile that does not let it change to that one"
        }
        (Op::Label { .. }, Call::Write, Errno::EINVAL) => "the loaded SELinux policy has no such context",
        (Op::Label { .. }, Call::Check, _) => "/proc is not a procfs here",
        (Op::HoldProc, _, Errno::EPERM) => {
            "in a user namespace that takes a new pid namespace, and a host procfs that nothing masks"
        }
        (Op::Sysctl { .. }, Call::Open, Errno::ENOENT) => "this kernel has no such sysctl, or not per namespace",
        (Op::Seccomp { .. }, _, Errno::EINVAL) => "this kernel does not know one of the filter's flags or actions",
        (Op::JoinCgroup(_), _, Errno::EPERM | Errno::EACCES) => "the cgroup is not this user's to join",
        (Op::Scheduler(_), _, Errno::EPERM) => {
            "real-time policies take CAP_SYS_NICE and, on cgroup v1, a share of cpu.rt_runtime_us"
        }
        _ => return None,
    })
}

fn clone_hint(errno: Errno) -> String {
    if let (Errno::EPERM | Errno::ENOSPC, Some(denial)) = (errno, namespaces::denial()) {
        return denial;
    }
    let text = match errno {
        Errno::ENOSPC => "a limit in /proc/sys/user/max_*_namespaces is reached",
        Errno::EPERM => "creating namespaces takes CAP_SYS_ADMIN or a user namespace, which this host may forbid",
        Errno::EAGAIN => {
            "the limit of processes is reached: /linux/resources/pids/limit of the container or of a cgroup above it, or \
             RLIMIT_NPROC of this user"
        }
        Errno::EBUSY => {
            "the cgroup has controllers turned on for its children, so it takes no processes itself; name one below it"
        }
        _ => "see clone(2)",
    };
    text.into()
}
