//! From a policy and a command to an OCI spec and the few things that a spec has no words for.

mod mounts;

pub(super) use mounts::{bind, without_recursion};

use super::files::{self, Resolved};
use super::net::{HTTP_PORT, SOCKS_PORT};
use super::policy::{NetworkMode, Policy, Profile, View, Workdir};
use super::profile;
use super::report::Mode;
use crate::error::{Error, Problem, Result};
use crate::prim::capabilities;
use crate::prim::landlock::{self, Ruleset};
use crate::prim::mounts::layer;
use crate::spec::{
    Capabilities, Cpu, IdMapping, Linux, Memory, Namespace, NamespaceType, Pids, Process, Resources, Rlimit,
    RlimitType, Root, Spec, User,
};
use mounts::{mounts, writable_mounts};
use std::collections::BTreeMap;
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The walls that are to be had here.
#[derive(Debug, Clone, Copy)]
pub struct Walls {
    /// What makes the namespaces.
    pub mode: Mode,
    /// Show the procfs that is there, since a new one may not be mounted (in a container that masks parts of its own).
    pub bound_proc: bool,
    /// Make mounts read-only one by one: mount_setattr(2), which does it for a whole tree, is missing (before Linux 5.12).
    pub single_binds: bool,
    /// Enforce memory and processes by resource limits: no cgroup is to be had.
    pub by_rlimits: bool,
}

impl Walls {
    /// Those that are tried first: all that the caller's privileges promise.
    pub fn best() -> Walls {
        let mode = if capabilities::may_mount() { Mode::Privileged } else { Mode::UserNamespace };
        Walls { mode, bound_proc: false, single_binds: false, by_rlimits: false }
    }
}

/// An overlay, for who wants to know what was changed: the directory of the layer, the directory below, what the program
/// sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overlay {
    /// Its directory in the layer.
    pub name: String,
    /// The directory on the host.
    pub lower: PathBuf,
    /// Where the program sees it.
    pub target: PathBuf,
}

/// A compiled policy.
#[derive(Debug)]
pub struct Compiled {
    /// The container.
    pub spec: Spec,
    /// Overlays on the layer.
    pub overlays: Vec<Overlay>,
    /// Landlock rules.
    pub landlock: Option<Ruleset>,
    /// Ports on which proxies are served.
    pub listen: Vec<u16>,
    /// What does not exist, must not be made by the program, and is therefore made and write-protected as long as it runs.
    pub placeholders: Vec<PathBuf>,
    /// Those of them that are directories which the program writes for real, but for what is protected there.
    pub outer: Vec<PathBuf>,
    /// What is protected and there: it may be the placeholder of another sandbox. Directories before what is in them.
    pub protected: Vec<PathBuf>,
    /// Directories and files of the host that are seen elsewhere, too: what, and where.
    pub aliases: Vec<(PathBuf, PathBuf)>,
    /// Symlinks that may not be replaced.
    pub links: Vec<PathBuf>,
    /// What was left out, and why.
    pub notes: Vec<String>,
}

/// Compiles. Looks at files of the host (which exist, what globs match), and makes nothing. `commit` says that what goes to
/// the writable layer is meant to be made real.
///
/// # Errors
/// A working directory or root that is not there; a glob that is none.
pub fn compile(policy: &Policy, command: &[String], id: &str, walls: Walls, commit: bool) -> Result<Compiled> {
    let cwd = working_directory(policy)?;
    let mut notes = Vec::new();
    let mut resolved = files::resolve(policy, &cwd, commit)?;
    notes.append(&mut resolved.notes);
    let there = resolved.protected.clone();
    let sockets = &policy.network.allow_unix_sockets;
    if !sockets.is_empty() && walls.mode != Mode::Confined && matches!(policy.files.view, View::Host) {
        resolved.hidden.extend(super::sockets::others(sockets));
    }
    let aliases = if walls.mode == Mode::Confined { Vec::new() } else { aliases(policy)? };
    for list in [&mut resolved.hidden, &mut resolved.protected, &mut resolved.links] {
        let more: Vec<_> = list.iter().flat_map(|path| also_at(path, &aliases)).collect();
        list.extend(more);
    }
    let mut overlays = Vec::new();
    let mounts = mounts(policy, &cwd, walls, &resolved, &mut overlays)?;
    let (uid, gid) = crate::engine::store::caller();
    let ids = (policy.process.uid.unwrap_or(uid), policy.process.gid.unwrap_or(gid));
    let mut annotations = BTreeMap::new();
    let layered = mounts.iter().any(|mount| layer::is_wanted(&mount.options));
    if let (true, Some(size)) = (layered, policy.limits.disk) {
        annotations.insert(layer::SIZE.to_owned(), size.0.to_string());
    }
    let root = match &policy.files.view {
        View::Host => PathBuf::from("/"),
        View::Root(dir) | View::RootOverlay(dir) => absolute(dir, "/files/view")?,
    };
    let proxied = policy.network.mode == NetworkMode::Domains;
    let spec = Spec {
        oci_version: crate::spec::VERSION_MAX.into(),
        process: Some(process(policy, command, &cwd, ids, walls)),
        root: Some(Root { path: root, readonly: false }),
        hostname: (walls.mode != Mode::Confined)
            .then(|| policy.process.hostname.clone().unwrap_or_else(|| "sandbox".into())),
        mounts,
        annotations,
        linux: Some(linux(policy, walls, ids, (uid, gid), &resolved, id)),
        ..Spec::default()
    };
    let landlock = policy.files.landlock.then(|| rules(policy, &cwd, &resolved, walls, &mut notes)).flatten();
    if policy.files.landlock && landlock.is_none() {
        notes.push("this kernel has no Landlock: mounts alone keep files".into());
    }
    if !sockets.is_empty() {
        let others = match (walls.mode, &policy.files.view) {
            (Mode::Confined, _) => "every other unix socket",
            (_, View::Host) => "a unix socket that is made from now on, or in a container,",
            _ => "every other unix socket in that root",
        };
        notes.push(format!("/network/allow_unix_sockets: {others} can be connected to as well where the view shows it, as a filter sees no path; hide its directory with deny_read"));
    }
    Ok(Compiled {
        spec,
        overlays,
        landlock,
        listen: if proxied { vec![HTTP_PORT, SOCKS_PORT] } else { Vec::new() },
        placeholders: resolved.placeholders,
        outer: resolved.outer,
        protected: resolved.pinned.into_iter().chain(there).collect(),
        aliases,
        links: if walls.mode == Mode::Confined { Vec::new() } else { resolved.links },
        notes,
    })
}

/// What is bound elsewhere than where the host has it.
fn aliases(policy: &Policy) -> Result<Vec<(PathBuf, PathBuf)>> {
    if !matches!(policy.files.view, View::Host) {
        return Ok(Vec::new());
    }
    let pair = |bind: &super::policy::Bind| {
        let target = bind.target.as_deref().unwrap_or(&bind.source);
        Ok((absolute(&bind.source, "/files/binds")?, target.to_owned()))
    };
    policy
        .files
        .binds
        .iter()
        .map(pair)
        .filter(|pair| !matches!(pair, Ok((source, target)) if source == target))
        .collect()
}

/// Where else a path of the host is seen: what is not to be had there, is not to be had here either.
pub(super) fn also_at(path: &Path, aliases: &[(PathBuf, PathBuf)]) -> Vec<PathBuf> {
    let at = |(source, target): &(PathBuf, PathBuf)| {
        let rest = path.strip_prefix(source).ok()?;
        Some(if rest.as_os_str().is_empty() { target.clone() } else { target.join(rest) })
    };
    aliases.iter().filter_map(at).collect()
}

/// The working directory as the program sees it, absolute.
fn working_directory(policy: &Policy) -> Result<PathBuf> {
    match &policy.process.cwd {
        Some(cwd) if matches!(policy.files.view, View::Host) => absolute(cwd, "/process/cwd"),
        Some(cwd) => Ok(Path::new("/").join(cwd)),
        None if matches!(policy.files.view, View::Host) => std::env::current_dir().map_err(|e| {
            Error::invalid(format!("/process/cwd: the current directory can't be named: {e}"))
                .hint("give one with --cwd")
        }),
        None => Ok("/".into()),
    }
}

/// A directory or file of the host without symlinks: what is bound and what is seen are then the same.
pub(super) fn absolute(path: &Path, pointer: &str) -> Result<PathBuf> {
    std::fs::canonicalize(path)
        .map_err(|e| Error::problems("the policy", &[Problem::new(pointer, format!("{}: {e}", path.display()))]))
}

/// The caller's environment, but for what is no UTF-8: JSON can't carry it.
fn inherited() -> BTreeMap<String, String> {
    let text = |word: std::ffi::OsString| word.into_string().ok();
    std::env::vars_os().filter_map(|(name, value)| Some((text(name)?, text(value)?))).collect()
}

fn process(policy: &Policy, command: &[String], cwd: &Path, (uid, gid): (u32, u32), walls: Walls) -> Process {
    let wanted = &policy.process;
    let mut env: BTreeMap<String, String> = if wanted.clear_env { BTreeMap::new() } else { inherited() };
    wanted.unset_env.iter().for_each(|name| drop(env.remove(name)));
    if policy.network.mode == NetworkMode::Domains {
        env.extend(super::net::environment(Some(HTTP_PORT), Some(SOCKS_PORT)));
    }
    env.extend(wanted.env.clone());
    env.entry("PATH".into()).or_insert_with(|| "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into());
    let limits = &policy.limits;
    let mut rlimits = Vec::new();
    let mut limit = |typ, value: Option<u64>| {
        // Not above what is there already: raising it is not the sandbox's to do.
        if let Some(value) = value {
            let hard = crate::sys::sched::get_rlimit(crate::prim::attributes::rlimit_number(typ))
                .map_or(value, |(_, hard)| hard);
            let soft = value.min(hard);
            // At the hard limit the kernel sends SIGKILL, which tells nobody why; a second earlier it is SIGXCPU.
            let hard = if typ == RlimitType::Cpu { soft.saturating_add(1).min(hard) } else { soft };
            rlimits.push(Rlimit { typ: Some(typ), soft, hard });
        }
    };
    limit(RlimitType::Core, Some(0));
    limit(RlimitType::Cpu, limits.cpu_time.map(|t| t.0.as_secs_f64().ceil() as u64));
    limit(RlimitType::Fsize, limits.file_size.map(|b| b.0));
    limit(RlimitType::Nofile, limits.open_files);
    if walls.by_rlimits {
        limit(RlimitType::Data, limits.memory.map(|b| b.0));
        limit(RlimitType::Nproc, limits.pids.map(with_init));
    }
    Process {
        terminal: wanted.terminal,
        user: User { uid, gid, umask: Some(0o022), ..User::default() },
        args: command.to_vec(),
        env: env.into_iter().map(|(name, value)| format!("{name}={value}")).collect(),
        cwd: cwd.into(),
        capabilities: Some(capabilities(policy, uid, walls)),
        rlimits,
        no_new_privileges: true,
        ..Process::default()
    }
}

fn linux(
    policy: &Policy,
    walls: Walls,
    (uid, gid): (u32, u32),
    (own_uid, own_gid): (u32, u32),
    resolved: &Resolved,
    id: &str,
) -> Linux {
    let confined = walls.mode == Mode::Confined;
    let in_user = walls.mode == Mode::UserNamespace;
    let mut kinds = Vec::new();
    if !confined {
        use NamespaceType::{Cgroup, Ipc, Mount, Network, Pid, User, Uts};
        kinds.extend([Pid, Mount, Ipc, Uts, Cgroup]);
        kinds.extend((policy.network.mode != NetworkMode::Host).then_some(Network));
        kinds.extend(in_user.then_some(User));
    }
    let map = |inside, outside| vec![IdMapping { container_id: inside, host_id: outside, size: 1 }];
    let paths = |list: &[&str]| list.iter().map(PathBuf::from).collect::<Vec<_>>();
    // The files of /proc are root's, and a sandbox of root's in no user namespace of its own could write them.
    let (mut masked, mut readonly) = match walls.mode {
        Mode::Privileged => (
            paths(&["/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/sched_debug", "/proc/scsi", "/proc/acpi"]),
            paths(&["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]),
        ),
        _ => (Vec::new(), Vec::new()),
    };
    if !confined {
        masked.extend(resolved.hidden.iter().cloned());
        readonly.extend(resolved.protected.iter().cloned());
        if walls.single_binds && matches!(policy.files.view, View::Host) {
            readonly.extend(writable_mounts(resolved));
        }
    }
    Linux {
        namespaces: kinds.into_iter().map(|typ| Namespace { typ: Some(typ), path: None }).collect(),
        uid_mappings: if in_user { map(uid, own_uid) } else { Vec::new() },
        gid_mappings: if in_user { map(gid, own_gid) } else { Vec::new() },
        resources: resources(policy),
        // Relative: below the caller's own cgroup, whose limits hold for the sandbox, too.
        cgroups_path: Some(format!("brig-sandbox-{id}")),
        seccomp: profile::compile(policy),
        masked_paths: masked,
        readonly_paths: readonly,
        ..Linux::default()
    }
}

/// None; but where nothing is to stand in the way of a sandbox in the sandbox, root has what it takes to map itself into a
/// user namespace of its own (user_namespaces(7), since Linux 5.12).
fn capabilities(policy: &Policy, uid: u32, walls: Walls) -> Capabilities {
    let open = profile::effective(policy) == Profile::Unrestricted && !policy.files.landlock;
    let nests = open && walls.mode == Mode::Privileged && uid == 0;
    let names: Vec<_> = nests.then(|| "CAP_SETFCAP".to_owned()).into_iter().collect();
    Capabilities { bounding: names.clone(), effective: names.clone(), permitted: names, ..Capabilities::default() }
}

/// The sandbox's own init is a process, too, and not one of the program's.
fn with_init(pids: u64) -> u64 {
    pids.saturating_add(1)
}

/// The policy's limits as far as cgroups can hold them.
pub fn resources(policy: &Policy) -> Option<Resources> {
    let limits = &policy.limits;
    let signed = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    let memory = limits.memory.map(|memory| Memory {
        limit: Some(signed(memory.0)),
        swap: limits.swap.map(|swap| signed(memory.0.saturating_add(swap.0))),
        ..Memory::default()
    });
    // The kernel takes no quota below 1000 us: a small share needs a long period.
    let period = |cpu: f64| if cpu < 1.0 { 1_000_000 } else { 100_000 };
    let share = |cpu: f64| ((cpu * period(cpu) as f64 / 100.0).round() as u64, period(cpu));
    let quota = limits.cpu_quota.or_else(|| limits.cpu.map(|cpu| share(cpu.0)));
    let cpu = quota.map(|(quota, period)| Cpu { quota: Some(signed(quota)), period: Some(period), ..Cpu::default() });
    let pids = limits.pids.map(|pids| Pids { limit: Some(signed(with_init(pids))) });
    let wanted = Resources { memory, cpu, pids, ..Resources::default() };
    (wanted != Resources::default()).then_some(wanted)
}

/// What may be read and what may be written, once more, for Landlock.
fn rules(policy: &Policy, cwd: &Path, resolved: &Resolved, walls: Walls, notes: &mut Vec<String>) -> Option<Ruleset> {
    let c = |path: &Path| CString::new(path.as_os_str().as_bytes()).ok();
    let files = &policy.files;
    let mut write: Vec<PathBuf> = ["/tmp", "/var/tmp", "/dev"].map(PathBuf::from).into();
    // Without a procfs of its own nothing in there is the program's alone.
    if walls.mode != Mode::Confined {
        write.push("/proc".into());
        write.extend(["/run", "/dev/shm", "/dev/pts"].map(PathBuf::from));
    }
    match (files.workdir, &files.view) {
        (_, View::RootOverlay(_)) => write.push("/".into()),
        (Workdir::ReadOnly, _) | (_, View::Root(_)) => {}
        // Without an overlay it would be for real.
        (Workdir::Overlay | Workdir::Temporary, _) if walls.mode == Mode::Confined => {}
        _ => write.push(cwd.into()),
    }
    write.extend(files.overlay.iter().filter(|_| walls.mode != Mode::Confined).cloned());
    write.extend(files.binds.iter().filter(|b| b.write).map(|b| b.target.clone().unwrap_or_else(|| b.source.clone())));
    write.extend(resolved.writable.iter().cloned());
    write.extend(policy.network.allow_unix_sockets.iter().cloned());
    // In mode `confined` nothing else hides what may not be read: rights are given to all that is beside it.
    let read = match walls.mode {
        Mode::Confined => files::beside(Path::new("/"), &resolved.hidden),
        _ => vec!["/".into()],
    };
    // Nor keeps anything else what may not be written, and rights to a directory are rights to all that is in it.
    if walls.mode == Mode::Confined {
        let kept: Vec<_> = resolved.hidden.iter().chain(&resolved.protected).cloned().collect();
        for dir in write.iter().filter(|dir| kept.iter().any(|k| k.starts_with(dir))) {
            notes.push(format!(
                "{} gets no new files, and some of its directories neither: without mounts, nothing else keeps what is denied in it",
                dir.display()
            ));
        }
        write = write.iter().flat_map(|dir| files::beside(dir, &kept)).collect();
    }
    let strings = |paths: &[PathBuf]| paths.iter().filter_map(|p| c(p)).collect::<Vec<_>>();
    landlock::compile(&strings(&read), &strings(&write), policy.network.mode != NetworkMode::Host)
}
