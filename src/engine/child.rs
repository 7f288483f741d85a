//! The child between clone and exec: walks the steps with system calls. Nothing here allocates, formats, locks or panics;
//! debug builds end a child that does (see [`crate::sys::alloc`]).

mod program;
mod terminal;

use super::plan::{HookState, Op, Plan, Program, Step, Sync};
use super::wire::{self, LATE, Message, STAGE};
use crate::prim::{attributes, capabilities, cover, hooks, landlock, mounts, rootfs};
use crate::sys::cred;
use crate::sys::hook::Tail;
use crate::sys::mount::{self, Attributes, Copied};
use crate::sys::probe::{Question, ask};
use crate::sys::process::{self, exit_now, prctl};
use crate::sys::{At, Call, Errno, Failure, alloc, files, init, sched, socket};
use nix::fcntl::OFlag;
use nix::mount::MsFlags;
use nix::sched::CloneFlags;
use nix::sys::stat::Mode;
use program::{enter_cwd, find, load_filter};
use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use terminal::{make_terminal, own_stdio};

/// Exit status of a child that could not set the container up; nobody but its parent sees it.
pub(super) const SETUP_FAILED: i32 = 255;

/// What the child carries from step to step.
struct State<'w> {
    wire: BorrowedFd<'w>,
    /// The root filesystem, before and after the pivot.
    root: Option<OwnedFd>,
    /// A procfs of the container that nothing is mounted over.
    procfs: Option<OwnedFd>,
    /// This process' /proc/self/fd, where mounts are held to be taken back.
    fds: Option<OwnedFd>,
    /// The tmpfs that covers masked directories.
    cover: Option<OwnedFd>,
    /// The tmpfs that covers watched paths, and whether it is covered itself.
    watched: Option<(OwnedFd, bool)>,
    /// An fd of the engine's own that later steps need: the gate, or an init's report.
    kept: Option<i32>,
    /// The writable layer, as long as it is in sight.
    layer: Option<OwnedFd>,
    /// The connection of `start`, which hears of failures after the gate.
    starter: Option<OwnedFd>,
    /// The candidate that FindProgram found.
    program: usize,
    /// Whether the working directory has been entered.
    cwd: bool,
    /// What a failed hook said besides its errno.
    detail: i32,
    /// Its last words.
    said: Tail,
}

impl State<'_> {
    fn root(&self) -> Result<BorrowedFd<'_>, Failure> {
        self.root.as_ref().map(AsFd::as_fd).ok_or(Failure::check(Errno::EBADF))
    }

    fn reports_to(&self) -> BorrowedFd<'_> {
        self.starter.as_ref().map_or(self.wire, AsFd::as_fd)
    }
}

/// Ends the process should a defect unwind it, before it can return into the parent's code.
struct NoReturn;

impl Drop for NoReturn {
    fn drop(&mut self) {
        exit_now(SETUP_FAILED);
    }
}

/// Runs the plan in a fresh clone; never returns.
pub fn run(plan: &mut Plan, wire: BorrowedFd) -> ! {
    let _guard = NoReturn;
    alloc::forbid();
    process::reset_signals();
    nix::sys::stat::umask(Mode::empty());
    if let Some(lock) = plan.lock {
        crate::sys::close_number(lock);
    }
    let mut state = State {
        wire,
        root: None,
        procfs: None,
        fds: None,
        cover: None,
        watched: None,
        kept: plan.setup.iter().chain(&plan.late).find_map(|step| match &step.op {
            Op::Gate(fd) | Op::Init(fd) => Some(fd.as_raw_fd()),
            _ => None,
        }),
        layer: None,
        starter: None,
        program: 0,
        cwd: false,
        detail: 0,
        said: Tail::new(),
    };
    let Plan { stage, setup, late, exec, hook_state, .. } = plan;
    if let Some((steps, flags)) = stage {
        walk(STAGE, steps, exec, hook_state, &mut state);
        bear(*flags, steps.len(), wire);
    }
    hook_state.set_pid(std::process::id());
    walk(0, setup, exec, hook_state, &mut state);
    if late.is_empty() {
        exit_now(0);
    }
    walk(LATE, late, exec, hook_state, &mut state);
    exit_now(SETUP_FAILED)
}

/// The stage's last act: makes the container's process, which alone returns, and announces it. The process waits until it
/// has been announced, or its first message could come before, and the parent take it for the stage's.
fn bear(flags: u64, steps: usize, wire: BorrowedFd) {
    let made = init::pipe()
        .at(Call::Pipe)
        .and_then(|pipe| Ok((pipe, process::clone3(flags | libc::CLONE_PARENT as u64, None).at(Call::Fork)?)));
    match made {
        Ok(((announced, end), None)) => {
            drop(end);
            if !matches!(files::read(announced.as_fd(), &mut [0]), Ok(1)) {
                exit_now(SETUP_FAILED)
            }
        }
        Ok(((_, end), Some(born))) => {
            let told = wire::tell_born(wire, born.pidfd.as_fd()).and_then(|()| files::write(end.as_fd(), b"1"));
            exit_now(if told.is_ok() { 0 } else { SETUP_FAILED })
        }
        Err(failure) => {
            let step = STAGE | (steps as u16).saturating_sub(1);
            let _ = wire::tell(wire, Message::Failed { step, failure, detail: 0 });
            exit_now(SETUP_FAILED)
        }
    }
}

/// Does the steps in order; one that fails is reported and ends the process.
fn walk(base: u16, steps: &[Step], exec: &Program, hook_state: &HookState, state: &mut State) {
    for (number, Step { op, .. }) in steps.iter().enumerate() {
        let done = match op {
            Op::CopyTree { step, .. } => copy_tree(steps.get(*step)),
            op => step(op, exec, hook_state.bytes(base == LATE), state),
        };
        if let Err(failure) = done {
            take_back(&steps[..number], state);
            let step = base | number as u16;
            let _ = wire::tell(state.reports_to(), Message::Failed { step, failure, detail: state.detail });
            wire::tell_said(state.reports_to(), state.said.pieces());
            exit_now(SETUP_FAILED);
        }
    }
}

/// Copies the source of the bind mount that a step makes.
fn copy_tree(step: Option<&Step>) -> Result<(), Failure> {
    match step {
        Some(Step { op: Op::Mount(made), .. }) => made.hold_source().at(Call::CloneTree),
        _ => Err(Failure::check(Errno::EBADF)),
    }
}

/// Takes the mounts back that these steps have made and hold, last first.
fn take_back(steps: &[Step], state: &State) {
    let Some(fds) = &state.fds else { return };
    for Step { op, .. } in steps.iter().rev() {
        if let Op::Mount(made) = op
            && let Some(attached) = made.attached.get()
        {
            let _ = mount::unmount(fds.as_fd(), attached.as_fd());
        }
    }
}

#[allow(clippy::too_many_lines, reason = "one arm a step")]
fn step(op: &Op, exec: &Program, hook_state: &[u8], state: &mut State) -> Result<(), Failure> {
    match op {
        Op::JoinCgroup(file) => files::write_to(None, file, b"0").at(Call::Write),
        Op::Sync(sync) => meet(*sync, state),
        Op::NamespaceRoot { uid, gid } => {
            // Denied in a namespace that an unprivileged user made; then there are no groups to drop, either.
            let _ = cred::set_groups(&[]);
            cred::set_gid(*gid).at(Call::SetGid)?;
            cred::set_uid(*uid).at(Call::SetUid)?;
            // The switch makes the process dumpable anew.
            prctl(libc::PR_SET_DUMPABLE, 0, 0).at(Call::Prctl).map(drop)
        }
        Op::Unshare { flags, .. } => nix::sched::unshare(CloneFlags::from_bits_retain(*flags as i32)).at(Call::Unshare),
        Op::TimeOffsets(text) => files::write_to(None, c"/proc/self/timens_offsets", text.to_bytes()).at(Call::Write),
        Op::Setns { fd, flag, .. } => setns(fd.as_fd(), *flag),
        Op::JoinContainer { pidfd, flags } => {
            setns(pidfd.as_fd(), *flags)?;
            if flags & libc::CLONE_NEWNS as u64 != 0 {
                state.root = Some(files::open(None, c"/", OFlag::O_PATH | OFlag::O_DIRECTORY).at(Call::Open)?);
            }
            Ok(())
        }
        Op::EnterDir(root) => {
            rootfs::enter(root.as_fd())?;
            state.root = Some(files::open(None, c"/", OFlag::O_PATH | OFlag::O_DIRECTORY).at(Call::Open)?);
            Ok(())
        }
        Op::Undumpable => prctl(libc::PR_SET_DUMPABLE, 0, 0).at(Call::Prctl).map(drop),
        Op::Session => match nix::unistd::setsid() {
            // Already a leader: a session of its own it has.
            Ok(_) | Err(Errno::EPERM) => Ok(()),
            Err(errno) => Err(Failure { call: Call::Setsid, errno }),
        },
        Op::Hostname(name) => crate::sys::set_hostname(name).at(Call::SetHostname),
        Op::Domainname(name) => crate::sys::set_domainname(name).at(Call::SetDomainname),
        Op::Network(network) => match network.made() {
            Some(made) => setns(made, libc::CLONE_NEWNET as u64),
            None => socket::loopback_up().at(Call::Loopback),
        },
        Op::OomScoreAdj { value, deniable } => {
            match files::write_to(None, c"/proc/self/oom_score_adj", value.to_bytes()) {
                Err(Errno::EACCES | Errno::EPERM) if *deniable => Ok(()),
                other => other.at(Call::Write),
            }
        }
        Op::DetachMounts { own } => {
            let flags = MsFlags::MS_REC | MsFlags::MS_SLAVE;
            nix::mount::mount(None::<&CStr>, c"/", None::<&CStr>, flags, None::<&CStr>).at(Call::Mount)?;
            mount::own_namespace(*own);
            Ok(())
        }
        Op::AttachRoot { tree, path, propagation } => {
            let place = files::open(None, path, OFlag::O_PATH | OFlag::O_DIRECTORY).at(Call::Open)?;
            let tree = tree.copy().at(Call::CloneTree)?;
            mounts::settle(tree.as_fd(), place.as_fd(), &[], &[(*propagation, true)])?;
            hold_root(tree.as_fd(), state)
        }
        Op::PlaceRoot(path) => {
            state.root = Some(files::open(None, path, OFlag::O_PATH | OFlag::O_DIRECTORY).at(Call::Open)?);
            Ok(())
        }
        Op::OpenRoot(root) => hold_root(root.as_fd(), state),
        Op::Mount(mount) if state.fds.is_some() => mounts::apply_and_hold(mount, state.root()?),
        Op::Mount(mount) => {
            let made = mounts::apply(mount, state.root()?)?;
            if mount.target.is_empty() {
                return hold_root(made.as_fd(), state);
            }
            if let (true, Copied::Now(made)) = (mount.is_proc() && !mount.is_read_only(), made) {
                state.procfs = Some(made);
            }
            Ok(())
        }
        Op::Layer { size, kept, under } => {
            let place = under.as_ref().map(|place| place.make(state.root()?)).transpose()?;
            let layer = mounts::layer::make(size.as_deref(), place.as_ref().map_or(state.root()?, AsFd::as_fd))?;
            if *kept {
                let readable = files::open(Some(layer.as_fd()), c".", OFlag::O_RDONLY | OFlag::O_DIRECTORY);
                hand_over(0, readable.at(Call::Open)?.as_fd(), state)?;
            }
            state.layer = Some(layer);
            Ok(())
        }
        Op::Overlay { mount, name, in_user } => {
            let layer = state.layer.as_ref().ok_or(Failure::check(Errno::EBADF))?;
            let lower = mounts::layer::lower_of(mount).ok_or(Failure::check(Errno::EBADF))?;
            let (made, again) = mounts::layer::overlay(mount, (lower, name, *in_user), layer.as_fd(), state.root()?)?;
            if again.is_none() {
                return Ok(());
            }
            state.layer = again;
            hold_root(made.as_fd(), state)
        }
        Op::OnLayer { mount, name } => {
            let layer = state.layer.as_ref().ok_or(Failure::check(Errno::EBADF))?;
            let mounts::What::OnLayer { mode } = mount.what else { return Err(Failure::check(Errno::EBADF)) };
            mounts::layer::directory(mount, (name, mode), layer.as_fd(), state.root()?)
        }
        Op::HideLayer => match state.layer.take() {
            Some(layer) => mounts::layer::hide(layer.as_fd()),
            None => Ok(()),
        },
        Op::Streams(files) => {
            for (number, file) in files.iter().enumerate() {
                if let Some(file) = file {
                    process::put_stream(file.as_fd(), number as i32).at(Call::Open)?;
                }
            }
            Ok(())
        }
        Op::Listen(port) => {
            let socket = init::listen_tcp(*port).at(Call::Listen)?;
            hand_over(i32::from(*port), socket.as_fd(), state)
        }
        Op::DieWithParent => init::die_with_parent().at(Call::Prctl),
        Op::Init(report) => become_init(report.as_fd(), state),
        Op::Landlock(ruleset) => landlock::apply(ruleset),
        Op::HoldFds => {
            let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
            state.fds = Some(files::open(None, c"/proc/self/fd", flags).at(Call::Open)?);
            Ok(())
        }
        // Needs the other steps; done where they are walked.
        Op::CopyTree { .. } => Ok(()),
        Op::FindMount { destination, found } => {
            let _ = found.set(mounts::find(destination, state.root()?)?);
            Ok(())
        }
        Op::Unmount { found, .. } => match (&state.fds, found.get()) {
            (Some(fds), Some(mount)) => mount::unmount(fds.as_fd(), mount.as_fd()).at(Call::Umount),
            _ => Err(Failure::check(Errno::EBADF)),
        },
        Op::HoldProc => {
            if state.procfs.is_none() {
                state.procfs = Some(rootfs::private_proc(state.root()?)?);
            }
            Ok(())
        }
        Op::Node(node) => rootfs::make_node(node, state.root()?),
        Op::BindNode { path, tree } => {
            let tree = tree.copy().at(Call::CloneTree)?;
            rootfs::bind_node(path, tree.as_fd(), state.root()?)
        }
        Op::Link { name, target } => rootfs::make_link(name, target, state.root()?),
        Op::Terminal { socket, size, console, uid } => make_terminal(socket.as_fd(), *size, *console, *uid, state),
        Op::Hook(hook) => hooks::apply_and_keep(hook, hook_state, &mut state.said).map_err(|failed| {
            state.detail = failed.detail();
            Failure { call: Call::Hook, errno: failed.errno() }
        }),
        Op::Pivot => rootfs::pivot(state.root()?),
        Op::MoveRoot => rootfs::move_root(state.root()?),
        Op::Chroot => rootfs::enter(state.root()?),
        Op::RootPropagation { kind, recursive, .. } => {
            let change = Attributes { propagation: *kind, ..Attributes::default() };
            mount::set_attributes(state.root()?, change, *recursive, None).at(Call::MountSetattr)
        }
        Op::RootReadonly => {
            let change = Attributes { set: libc::MOUNT_ATTR_RDONLY, ..Attributes::default() };
            mount::set_attributes(state.root()?, change, false, None).at(Call::MountSetattr)
        }
        Op::Sysctl { path, value } => {
            let procfs = state.procfs.as_ref().ok_or(Failure::check(Errno::EBADF))?;
            rootfs::write_proc(procfs.as_fd(), path, value.to_bytes())
        }
        Op::Readonly(path) => rootfs::make_readonly(path, state.root()?),
        Op::HoldLink(path) => rootfs::hold_link(path, state.root()?),
        Op::Mask(path) => mask(path, state),
        Op::Cover { under } => {
            let place = under.as_ref().map(|place| place.make(state.root()?)).transpose()?;
            match cover::make(place.as_ref().map_or(state.root()?, AsFd::as_fd)) {
                Ok(made) => {
                    state.watched = Some((made, place.is_some()));
                    Ok(())
                }
                // Where no mounts are to be made at all, they are hidden all the same.
                Err(Failure { errno: Errno::ENOSYS | Errno::EPERM, .. }) => match cover::make_on_root(state.root()?) {
                    Ok(made) => {
                        state.watched = Some((made, false));
                        Ok(())
                    }
                    Err(Failure { errno: Errno::EPERM, .. }) => Ok(()),
                    Err(failure) => Err(failure),
                },
                Err(failure) => Err(failure),
            }
        }
        Op::Watch { path, name } => match &state.watched {
            Some((watched, _)) => cover::hide(path, name, state.root()?, watched.as_fd()),
            None => mask(path, state),
        },
        Op::SealCover => {
            let Some((watched, covered)) = state.watched.take() else { return Ok(()) };
            match cover::seal(watched.as_fd(), covered)? {
                Some(watch) => hand_over(-1, watch.as_fd(), state),
                None => Ok(()),
            }
        }
        Op::MakeCwd(path) => rootfs::make_cwd(path, state.root()?),
        Op::Rlimit(limit) => sched::set_rlimit(limit.resource, limit.soft, limit.hard).at(Call::Rlimit),
        Op::Scheduler(attr) => sched::set_scheduler(attr).at(Call::SchedSetattr),
        Op::IoPriority { class, level } => sched::set_io_priority(*class, *level).at(Call::Ioprio),
        Op::Affinity(mask) => sched::set_affinity(mask).at(Call::SchedAffinity),
        Op::MemoryPolicy(policy) => attributes::apply_memory_policy(policy),
        Op::Personality(persona) => sched::set_personality(*persona).at(Call::Personality),
        Op::Keyring(name) => match sched::join_session_keyring(name) {
            // A kernel without keys has no session keyring to share; and what a filter around denies, it denies the program, too.
            Ok(()) | Err(Errno::ENOSYS | Errno::EPERM) => Ok(()),
            Err(errno) => Err(Failure { call: Call::Keyctl, errno }),
        },
        Op::Label { file, value, host: true } => rootfs::label_by_host(file, value),
        Op::Label { file, value, host: false } => label(file, value, state),
        Op::OwnStdio(uid) => own_stdio(*uid),
        Op::NoNewPrivileges => prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0).at(Call::Prctl).map(drop),
        Op::Bounding(keep) => capabilities::apply_bounding(*keep),
        Op::CloseFds(first) => {
            // Closed, not just close-on-exec: until then a path such as /proc/self/fd/N/../bin/sh would lead out through a
            // directory of the host (CVE-2024-21626).
            process::close_except(*first, [Some(state.wire.as_raw_fd()), state.kept]).at(Call::CloseRange)
        }
        Op::Groups { groups, deniable } => match cred::set_groups(groups) {
            Err(Errno::EPERM) if *deniable => Ok(()),
            other => other.at(Call::SetGroups),
        },
        Op::Gid(gid) => cred::set_gid(*gid).at(Call::SetGid),
        Op::Uid(uid) => {
            prctl(libc::PR_SET_KEEPCAPS, 1, 0).at(Call::Prctl)?;
            cred::set_uid(*uid).at(Call::SetUid)?;
            prctl(libc::PR_SET_DUMPABLE, 0, 0).at(Call::Prctl).map(drop)
        }
        Op::Cwd { path, last } => enter_cwd(path, *last, state),
        Op::Umask(mask) => {
            nix::sys::stat::umask(Mode::from_bits_truncate(*mask));
            Ok(())
        }
        Op::FindProgram => find(exec, state),
        Op::Gate(listener) => {
            state.starter = Some(socket::accept(listener.as_fd()).at(Call::Accept)?);
            Ok(())
        }
        Op::Seccomp { filter, raise, recorded } => {
            if let Some(recorded) = recorded {
                match load_filter(recorded, *raise, state) {
                    // Where a sandbox around this one listens already, or the kernel has no listeners.
                    Err(Failure { call: Call::Seccomp, errno: Errno::EBUSY | Errno::EINVAL | Errno::ENOSYS }) => {}
                    other => return other,
                }
            }
            load_filter(filter, *raise, state)
        }
        Op::Capabilities(sets) => capabilities::apply(sets),
        Op::Exec => Err(Failure { call: Call::Exec, errno: exec.run(state.program) }),
    }
}

fn mask(path: &CStr, state: &mut State) -> Result<(), Failure> {
    let State { root, cover, .. } = state;
    rootfs::mask(path, root.as_ref().ok_or(Failure::check(Errno::EBADF))?.as_fd(), cover)
}

/// Hands an fd over to the parent.
fn hand_over(number: i32, fd: BorrowedFd, state: &State) -> Result<(), Failure> {
    wire::hand_over(state.wire, number, fd).at(Call::Send)
}

/// Forks: the new process goes on to the program and announces itself, this one stays as its init.
fn become_init(report: BorrowedFd, state: &State) -> Result<(), Failure> {
    // Before there is a child whose end could be missed.
    let mask = process::block_signals();
    // Without pidfd_open(2) the program has no name for itself that holds outside; its parent has one, and announces it.
    let announced = match ask(Question::PidfdOpen).is_there() {
        true => None,
        false => Some(init::pipe().at(Call::Pipe)?),
    };
    let Some(program) = process::clone3(0, None).at(Call::Fork)? else {
        process::restore_signals(&mask);
        // Nobody is in here yet who could trace it, and a parent without privilege has to fetch the filter's listener.
        prctl(libc::PR_SET_DUMPABLE, 1, 0).at(Call::Prctl)?;
        if let Some((announced, end)) = announced {
            drop(end);
            return match files::read(announced.as_fd(), &mut [0]).at(Call::Receive)? {
                0 => exit_now(SETUP_FAILED),
                _ => Ok(()),
            };
        }
        let own = process::pidfd_open(std::process::id() as i32).at(Call::Fork)?;
        return wire::tell_born(state.wire, own.as_fd()).at(Call::Send);
    };
    if let Some((_, end)) = announced {
        // If it can't be told, the program ends with the pipe.
        let _ = wire::tell_born(state.wire, program.pidfd.as_fd()).and_then(|()| files::write(end.as_fd(), b"1"));
    }
    // The wire and the standard streams end with the program.
    let _ = process::close_except(0, [Some(report.as_raw_fd()), None]);
    init::run(program.pid, report)
}

/// Tells the parent that a sync point is reached, and waits for its leave.
fn meet(sync: Sync, state: &State) -> Result<(), Failure> {
    wire::tell(state.wire, Message::At(sync, 0)).at(Call::Send)?;
    wire::wait(state.wire).at(Call::Receive)
}

fn setns(fd: BorrowedFd, flags: u64) -> Result<(), Failure> {
    process::join(fd, flags as i32).at(Call::Setns)
}

fn hold_root(root: BorrowedFd, state: &mut State) -> Result<(), Failure> {
    state.root = Some(files::open(Some(root), c".", OFlag::O_PATH | OFlag::O_DIRECTORY).at(Call::Open)?);
    Ok(())
}

/// Writes a label to a file of this process in the held procfs. The directory is reached by number: `self` is a symlink.
fn label(file: &CStr, value: &CStr, state: &State) -> Result<(), Failure> {
    let procfs = state.procfs.as_ref().ok_or(Failure::check(Errno::EBADF))?;
    let mut path = [0_u8; 64];
    let name = process::numbered(&mut path, "", std::process::id() as i32, &["/", file.to_str().unwrap_or_default()])
        .at(Call::Check)?;
    rootfs::write_proc(procfs.as_fd(), name, value.to_bytes())
}
