//! The life of a container: create, start, kill, delete, and what run needs on top.

mod cgroups;
mod delete;

pub(super) use cgroups::cgroup_mounts;
pub use delete::delete;

use super::launch::{self, Event, launch};
use super::plan::{self, Extras, HookState, Inputs, Options, Plan};
use super::store::{Entry, Saved, Status, Store, oci_state, start_time, wrong_status};
use super::wire::{self, LATE, Message};
use crate::error::{Context, Error, Kind, Result};
use crate::prim::cgroup::systemd::Session;
use crate::prim::cgroup::{CgroupPlan, Manager};
use crate::prim::namespaces::ahead::Network;
use crate::prim::terminal::connect_console_socket;
use crate::prim::{hooks, intelrdt, namespaces, netdev};
use crate::spec::{Hook, Loaded, NamespaceType, Spec};
use crate::sys::process::{self, Child};
use crate::sys::{files, socket};
use cgroups::compile_cgroup;
use nix::fcntl::OFlag;
use std::ffi::CString;
use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// What `create` and `run` are asked for.
#[derive(Debug, Default)]
pub struct Request {
    /// The container's ID.
    pub id: String,
    /// Its bundle.
    pub bundle: PathBuf,
    /// Another place for config.json.
    pub config: Option<PathBuf>,
    /// Flags of the plan.
    pub options: Options,
    /// Who makes cgroups.
    pub manager: Manager,
    /// `--console-socket`, connected; or one end of a pair for a terminal of our own.
    pub console: Option<OwnedFd>,
    /// Whether `--console-socket` was given.
    pub console_socket: bool,
    /// Whether nobody stays for the terminal (create, run --detach).
    pub detached: bool,
    /// `--pid-file`.
    pub pid_file: Option<PathBuf>,
    /// `--pidfd-socket`.
    pub pidfd_socket: Option<PathBuf>,
    /// Whether the program waits for `start`.
    pub gated: bool,
}

/// A container that has just been made.
#[derive(Debug)]
pub struct Made {
    /// Its first process.
    pub child: Child,
    /// Its state.
    pub saved: Saved,
    /// Its config.
    pub spec: Spec,
    /// What was left out, and why.
    pub warnings: Vec<String>,
    /// For who looks for a fault.
    pub notes: Vec<String>,
    /// Held for its lock.
    _lock: Entry,
}

/// Reads and validates the config of a bundle.
///
/// # Errors
/// Everything that is wrong with it, at once.
pub fn load(request: &Request) -> Result<(PathBuf, Loaded<Spec>)> {
    let bundle = fs::canonicalize(&request.bundle).during(|| format!("open bundle {}", request.bundle.display()))?;
    let config = request.config.clone().unwrap_or_else(|| bundle.join("config.json"));
    let loaded = crate::spec::load(&config)?;
    let context = plan::validate::Context {
        rootless: !nix::unistd::geteuid().is_root(),
        bundle: Some(&bundle),
        console_socket: request.console_socket,
        detached: request.detached,
    };
    if let Err(problems) = plan::validate::validate(&loaded, &context) {
        return Err(Error::problems(&config.display().to_string(), &problems));
    }
    Ok((bundle, loaded))
}

/// Compiles a bundle without doing anything, for `brig plan`: the cgroups' steps and the container's.
///
/// # Errors
/// As [`create`], up to the point where something would be made.
pub fn describe(request: &Request) -> Result<(Vec<(String, String)>, Plan)> {
    let (bundle, loaded) = load(request)?;
    let spec = &loaded.value;
    let cgroups = compile_cgroup(request, spec)?;
    let options = Options { describe: true, ..Options::default() };
    let pair = socket::packet_pair().during(|| "make a socket pair".into())?;
    let plan = plan::create(Inputs {
        id: &request.id,
        bundle: &bundle,
        spec,
        options: &options,
        scope: request.manager == Manager::Systemd,
        join: cgroups.join_files(),
        cgroups: &cgroup_mounts(&cgroups.record()),
        console: Some(pair.0),
        gate: Some(pair.1),
        lock: None,
        hook_state: HookState::default(),
        network: Network::Missing,
        extras: Extras::default(),
    })?;
    let steps = cgroups.steps().map(|(phrase, pointer)| (phrase, pointer.to_owned())).collect();
    Ok((steps, plan))
}

/// Creates a container; it waits for `start` when the request is gated, else its program runs. `ready` is called when all is
/// set up, before the program runs.
///
/// # Errors
/// What was wrong; nothing is left then.
pub fn create(store: &Store, mut request: Request, ready: &mut dyn FnMut(&Spec) -> Result<()>) -> Result<Made> {
    let (bundle, loaded) = load(&request)?;
    let Loaded { value: spec, raw, .. } = loaded;
    let mut cgroups = compile_cgroup(&request, &spec)?;
    if let Some(rdt) = &spec.linux().intel_rdt {
        intelrdt::find_root()?;
        intelrdt::compile(rdt, &request.id).map_err(|problems| Error::problems("config.json", &problems))?;
    }
    // A systemd that does not answer is to be known before anything is made.
    let session = cgroups.connect()?;
    let entry = store.reserve(&request.id)?;
    let mut saved = Saved {
        version: 1,
        id: request.id.clone(),
        oci_version: spec.oci_version.clone(),
        rootfs: plan::root_path(&bundle, &spec),
        bundle,
        created: crate::clock::now(),
        owner: nix::unistd::geteuid().as_raw(),
        annotations: spec.annotations.clone(),
        cgroup: cgroups.record(),
        gated: request.gated,
        ..Saved::default()
    };
    let mut undo = Undo { spec: &spec, cgroups: false, devices: None, born: false };
    match build(&entry, &mut request, (&spec, &raw), (&cgroups, session), &mut saved, &mut undo, ready) {
        Ok((child, warnings, notes)) => Ok(Made { child, saved, spec, warnings, notes, _lock: entry }),
        Err(error) => {
            undo.all(entry, &saved);
            Err(error)
        }
    }
}

/// What a failed creation leaves to be undone.
struct Undo<'a> {
    spec: &'a Spec,
    /// Whether the cgroups are this container's: until then they may be another one's.
    cgroups: bool,
    devices: Option<netdev::Moved>,
    /// Whether there was a process: then the poststop hooks are due.
    born: bool,
}

impl Undo<'_> {
    /// Undoes in reverse. The first error is the one to tell; what fails here is left for `delete --force`.
    fn all(self, entry: Entry, saved: &Saved) {
        if let Some(devices) = self.devices {
            let _ = devices.undo();
        }
        let removed = match self.cgroups {
            true => saved.cgroup.kill(libc::SIGKILL).and_then(|()| saved.cgroup.remove()),
            false => Ok(()),
        };
        let _ = remove_intel_rdt(saved);
        if self.born {
            let _ = run_hooks(&self.spec.hooks().poststop, "poststop", saved, "stopped");
        }
        if removed.is_ok() {
            let _ = entry.remove();
        }
    }
}

#[allow(clippy::too_many_arguments, reason = "the parts of one creation, used nowhere else")]
fn build(
    entry: &Entry,
    request: &mut Request,
    (spec, raw): (&Spec, &[u8]),
    (cgroups, mut session): (&CgroupPlan, Option<Session>),
    saved: &mut Saved,
    undo: &mut Undo,
    ready: &mut dyn FnMut(&Spec) -> Result<()>,
) -> Result<(Child, Vec<String>, Vec<String>)> {
    let network = namespaces::ahead::network(spec.linux());
    // A cgroup of somebody else's must not get into the record or the config, by which delete kills.
    cgroups.check_free()?;
    entry.write("config.json", raw)?;
    // Before anything is made that delete has to find, should brig be killed from here on.
    entry.save(saved, true)?;
    saved.cgroup = cgroups.create()?;
    undo.cgroups = session.is_none();
    let (join, v2) = match session {
        Some(_) => (cgroups.join_files(), None),
        None => (saved.cgroup.join_files(), saved.cgroup.v2_dir()?),
    };
    let gate = request.gated.then(|| entry.make_gate()).transpose()?;
    let state = saved.clone();
    let mut plan = plan::create(Inputs {
        id: &request.id,
        bundle: &saved.bundle,
        spec,
        options: &request.options,
        scope: session.is_some(),
        join,
        cgroups: &cgroup_mounts(&saved.cgroup),
        console: request.console.take(),
        gate,
        lock: Some(entry.lock_number()),
        hook_state: HookState::new(move |status, pid| oci_state(&state, status, pid)),
        network,
        extras: Extras::default(),
    })?;
    let mut on = |event: Event| match event {
        Event::Born(child) => {
            undo.born = true;
            let Some(session) = &mut session else { return Ok(()) };
            let entered = cgroups.enter(session, child.pid, &mut saved.cgroup);
            undo.cgroups = session.started();
            entered
        }
        Event::Runtime(child) => {
            saved.pid = child.pid;
            undo.devices = move_devices(spec, child)?;
            let hooks = spec.hooks();
            run_hooks(&hooks.prestart, "prestart", saved, "creating")?;
            run_hooks(&hooks.create_runtime, "createRuntime", saved, "creating")
        }
        Event::Notify(child, listener) => {
            saved.pid = child.pid;
            pass_listener(spec, saved, &listener)
        }
        Event::Ready(child) => {
            saved.pid = child.pid;
            saved.start_time = start_time(child.pid).map_or(0, |(time, _)| time);
            join_intel_rdt(spec, saved)?;
            entry.save(saved, false)?;
            if let Some(path) = &request.pid_file {
                write_pid_file(path, child.pid)?;
            }
            if let Some(path) = &request.pidfd_socket {
                send_pidfd(path, child.pidfd.as_fd())?;
            }
            ready(spec)
        }
        Event::Handed(..) | Event::Program(_) => Ok(()),
    };
    let launched = launch(&mut plan, v2.as_ref().map(AsFd::as_fd), request.gated, &mut on);
    let mut warnings = std::mem::take(&mut plan.warnings);
    if saved.cgroup.groups.is_empty() && !cgroups.is_empty() {
        warnings.push("/linux/cgroupsPath: this user may make no cgroup: the container stays in its caller's".into());
    }
    warnings.extend(cgroups.warnings().map(ToString::to_string));
    match launched {
        Ok(child) => Ok((child, warnings, plan.notes())),
        Err(error) => Err(with_oom(error, saved)),
    }
}

/// A set-up that the OOM killer ended says so.
fn with_oom(error: Error, saved: &Saved) -> Error {
    match saved.cgroup.oom_kills() {
        Some(kills) if kills > 0 => error.context("out of memory"),
        _ => error,
    }
}

impl Made {
    /// Lets go of the container's lock; for a runtime that stays to attend to its first process.
    pub fn unlock(self) -> Child {
        self.child
    }

    /// Runs the poststart hooks of a container that was started at once.
    ///
    /// # Errors
    /// The first hook that fails; the container is stopped and removed then (runtime-spec 1.3, lifecycle, step 9).
    pub fn after_start(&self) -> Result<()> {
        after_start(&self.saved, &self.spec)
    }
}

fn after_start(saved: &Saved, spec: &Spec) -> Result<()> {
    let result = run_hooks(&spec.hooks().poststart, "poststart", saved, "running");
    if result.is_err() {
        let _ = saved.process().map(|pidfd| process::pidfd_send_signal(pidfd.as_fd(), libc::SIGKILL));
        let _ = saved.cgroup.kill(libc::SIGKILL);
    }
    result
}

/// Starts a created container.
///
/// # Errors
/// A wrong status; what kept the program from running.
pub fn start(store: &Store, id: &str) -> Result<()> {
    let entry = store.open(id)?;
    let saved = entry.load()?.ok_or_else(|| wrong_status("start", id, Status::Creating))?;
    match saved.status(entry.path()) {
        Status::Created => {}
        Status::Stopped => {
            return Err(Error::new(
                Kind::Gone,
                format!("cannot start container {id:?}: it is stopped (process already finished)"),
            ));
        }
        Status::Paused => return Err(wrong_status("start", id, Status::Paused).hint("resume it first")),
        other => return Err(wrong_status("start", id, other)),
    }
    let spec = entry.config()?;
    if spec.process.is_none() {
        return Err(Error::invalid(format!("cannot start container {id:?}: /process: config.json has none")));
    }
    let gate = match entry.knock() {
        Ok(gate) => gate,
        Err(errno) => {
            // A start that was killed half-way: the container has passed its gate.
            entry.remove_gate();
            return Err(wrong_status("start", id, saved.status(entry.path())).context(crate::error::describe(errno)));
        }
    };
    let heard = wire::hear(gate.as_fd()).during(|| "read from the container".into())?;
    entry.remove_gate();
    match heard {
        None => {}
        Some(Message::Failed { step, failure, detail }) => {
            let late = plan::late_steps(&spec)?;
            let process = spec.process.unwrap_or_default();
            let program = plan::Program::new(&process, None, &[])?;
            return Err(match late.get(usize::from(step & !LATE)) {
                Some(step) => {
                    let said = wire::hear_said(gate.as_fd());
                    launch::explain_step(step, &program, failure, (detail, &said))
                }
                None => Error::os(failure.call.name(), failure.errno),
            });
        }
        Some(_) => return Err(Error::new(Kind::Other, "the container broke the protocol")),
    }
    after_start(&saved, &spec)
}

/// Sends a signal to a container: its first process, or, with `all`, every process in its cgroups.
///
/// # Errors
/// [`Kind::Gone`] when it does not run any more.
pub fn kill(store: &Store, id: &str, signal: i32, all: bool) -> Result<()> {
    // Without the lock: a start that hangs in a hook holds it, and killing is the way out.
    let saved = store.peek(id)?;
    if saved.pid == 0 {
        return Err(wrong_status("kill", id, Status::Creating));
    }
    if all && !saved.cgroup.pids().unwrap_or_default().is_empty() {
        return saved.cgroup.kill(signal);
    }
    let pidfd = saved.process().map_err(|_| {
        Error::new(
            Kind::Gone,
            format!("cannot kill container {id:?}: container not running (process already finished)"),
        )
    })?;
    let sent = process::pidfd_send_signal(pidfd.as_fd(), signal).during(|| format!("kill container {id:?}"));
    // Without a PID namespace of its own nothing but the cgroup holds the container's processes together.
    if signal == libc::SIGKILL && !store.config(id).is_ok_and(|spec| spec.linux().creates(NamespaceType::Pid)) {
        saved.cgroup.kill(signal)?;
    }
    // A frozen process takes the signal only once it runs again; for SIGKILL that is what is wanted.
    if signal == libc::SIGKILL && saved.cgroup.is_frozen()? {
        saved.cgroup.thaw()?;
    }
    sent
}

fn move_devices(spec: &Spec, child: &Child) -> Result<Option<netdev::Moved>> {
    let devices = &spec.linux().net_devices;
    if devices.is_empty() {
        return Ok(None);
    }
    let path = CString::new(format!("/proc/{}/ns/net", child.pid)).unwrap_or_default();
    let netns =
        files::open(None, &path, OFlag::O_RDONLY).during(|| "/linux/netDevices: open the network namespace".into())?;
    netdev::apply(devices, netns.as_fd()).map(Some)
}

fn run_hooks(hooks: &[Hook], point: &str, saved: &Saved, status: &str) -> Result<()> {
    hooks.iter().enumerate().try_for_each(|(index, hook)| run_hook(hook, point, index, saved, status))
}

fn run_hook(hook: &Hook, point: &str, index: usize, saved: &Saved, status: &str) -> Result<()> {
    let state = oci_state(saved, status, &if status == "stopped" { 0 } else { saved.pid }.to_string());
    hooks::run(hook, state.as_bytes(), &format!("/hooks/{point}/{index}"), Some(&saved.bundle))
}

/// Sends a filter's listener to the agent at `listenerPath`, with the state of runtime-spec's "Container Process State".
pub(super) fn pass_listener(spec: &Spec, saved: &Saved, listener: &OwnedFd) -> Result<()> {
    let pointer = "/linux/seccomp/listenerPath";
    let Some(seccomp) = &spec.linux().seccomp else { return Ok(()) };
    let path = seccomp.listener_path.as_deref().unwrap_or(Path::new(""));
    let socket = connect_console_socket(path).during(|| pointer.into())?;
    let state: serde_json::Value = serde_json::from_str(&oci_state(saved, "creating", &saved.pid.to_string()))
        .map_err(|e| Error::new(Kind::Other, e.to_string()))?;
    let message = serde_json::json!({
        "ociVersion": saved.oci_version,
        "fds": ["seccompFd"],
        "pid": saved.pid,
        "metadata": seccomp.listener_metadata.clone().unwrap_or_default(),
        "state": state,
    });
    socket::send(socket.as_fd(), message.to_string().as_bytes(), Some(listener.as_fd()))
        .during(|| format!("{pointer}: send to {}", path.display()))
}

/// Writes a pid file whole: who finds it finds a number in it.
pub(super) fn write_pid_file(path: &Path, pid: i32) -> Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = path.with_file_name(format!(".{name}.{}", std::process::id()));
    let context = || format!("--pid-file: write {}", path.display());
    fs::write(&temporary, pid.to_string()).during(context)?;
    fs::rename(&temporary, path).during(context)
}

pub(super) fn send_pidfd(path: &Path, pidfd: BorrowedFd) -> Result<()> {
    let socket = connect_console_socket(path).during(|| "--pidfd-socket".into())?;
    socket::send(socket.as_fd(), b"pidfd", Some(pidfd)).during(|| format!("--pidfd-socket: send to {}", path.display()))
}

/// Puts the container into its class of `linux.intelRdt`, on the host that has one.
fn join_intel_rdt(spec: &Spec, saved: &mut Saved) -> Result<()> {
    let Some(rdt) = &spec.linux().intel_rdt else { return Ok(()) };
    let wanted = intelrdt::compile(rdt, &saved.id).map_err(|problems| Error::problems("config.json", &problems))?;
    saved.intel_rdt = Some(intelrdt::apply(&wanted, &intelrdt::find_root()?, saved.pid)?);
    Ok(())
}

fn remove_intel_rdt(saved: &Saved) -> Result<()> {
    saved.intel_rdt.as_ref().map_or(Ok(()), intelrdt::Record::remove)
}
