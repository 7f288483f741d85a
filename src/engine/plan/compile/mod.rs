//! From a validated config to a plan. The order of the steps is this file's: two flat lists, read from top to bottom.

mod devices;
mod exec;
mod idmap;
mod live;
mod namespace;
mod process;

pub use exec::{ExecInputs, exec};
pub use live::{LiveInputs, add_mounts, remove_mounts};
pub(crate) use namespace::flag_names;
pub use process::late_steps;

use super::{Extras, HookState, Op, Place, Plan, Program, Step, Sync, program};
use crate::error::{Context, Error, Problem, Result};
use crate::prim::mounts::{self, Facts, base_propagation, relative};
use crate::prim::namespaces;
use crate::prim::namespaces::ahead::Network;
use crate::prim::{attributes, capabilities, lsm};
use crate::spec::{NamespaceType, Process, Spec};
use crate::sys::cred::SYS_ADMIN;
use crate::sys::files;
use crate::sys::mount::Tree;
use devices::{devices, needs_devices};
use idmap::id_map;
use namespace::{pointer_of, setns, split_for_stage, take};
use nix::fcntl::OFlag;
use process::{Parts, attributes_of, early_filter, hook_step, is_set, late_list, terminal_step};
use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// What create and exec can be told besides the config.
#[derive(Debug, Default)]
pub struct Options {
    /// `--no-pivot`.
    pub no_pivot: bool,
    /// `--no-new-keyring`.
    pub no_new_keyring: bool,
    /// How many fds from 3 up the program gets.
    pub preserve_fds: u32,
    /// Entries for the program's environment that are the caller's (`LISTEN_FDS`).
    pub extra_env: Vec<String>,
    /// Only to be described: nothing is cloned or connected.
    pub describe: bool,
}

/// What a plan is compiled from.
pub struct Inputs<'a> {
    /// The container's ID.
    pub id: &'a str,
    /// Its bundle, absolute.
    pub bundle: &'a Path,
    /// Its config, validated.
    pub spec: &'a Spec,
    /// Flags.
    pub options: &'a Options,
    /// Whether systemd puts it into a scope.
    pub scope: bool,
    /// `tasks` files of its cgroups of v1.
    pub join: Vec<CString>,
    /// Its cgroups for mounts of type `cgroup`: hierarchy (empty for v2) and host directory.
    pub cgroups: &'a [(String, String)],
    /// The socket that gets the terminal's master.
    pub console: Option<OwnedFd>,
    /// The socket at which `start` is awaited; without it the program starts at once.
    pub gate: Option<OwnedFd>,
    /// The fd of a lock that the child must not hold.
    pub lock: Option<i32>,
    /// The state for hooks.
    pub hook_state: HookState,
    /// Its new network namespace, if that is being made already.
    pub network: Network,
    /// What a sandbox adds.
    pub extras: Extras,
}

/// A list of steps in the making.
#[derive(Default)]
struct List(Vec<Step>);

impl List {
    fn add(&mut self, at: impl Into<String>, op: Op) {
        self.0.push(Step { op, at: at.into() });
    }
}

fn c(at: &str, bytes: impl Into<Vec<u8>>) -> Result<CString> {
    CString::new(bytes).map_err(|_| Error::problems("config.json", &[Problem::new(at, "holds a NUL byte")]))
}

fn bytes(path: &Path) -> Vec<u8> {
    path.as_os_str().as_bytes().to_vec()
}

/// Where the root filesystem is.
pub fn root_path(bundle: &Path, spec: &Spec) -> PathBuf {
    bundle.join(spec.root.as_ref().map_or(Path::new("rootfs"), |root| &root.path))
}

/// Compiles the plan of a new container.
///
/// # Errors
/// What only shows when things are opened: a missing source, a namespace path of another kind.
#[allow(clippy::too_many_lines, reason = "the order of steps in one flat list")]
pub fn create(inputs: Inputs) -> Result<Plan> {
    let Inputs {
        id,
        bundle,
        spec,
        options,
        scope,
        join,
        cgroups,
        console,
        gate,
        lock,
        hook_state,
        network,
        mut extras,
    } = inputs;
    let linux = spec.linux();
    let process = spec.process.as_ref();
    let created = namespaces::created(linux);
    let has = |typ| linux.namespace(typ).is_some();
    let new_user = linux.creates(NamespaceType::User);
    let (own_mounts, in_user) = (has(NamespaceType::Mount), has(NamespaceType::User));
    let mut joined = namespaces::open_joined(linux)?;
    let mut warnings: Vec<String> = super::validate::warnings(spec).iter().map(ToString::to_string).collect();
    let mut list = List::default();
    let mut stage = List::default();
    let mut by_parent = List::default();
    // Without CAP_SYS_ADMIN here, the copies of the host's tree are made in the container's own mount namespace.
    let mut copy_now = !options.describe && capabilities::may_mount();
    let maps = new_user.then(|| namespaces::maps(&linux.uid_mappings, &linux.gid_mappings));
    let first_ids = match (&maps, in_user) {
        (Some(maps), _) => Some(maps.first),
        (None, true) => Some((0, 0)),
        _ => None,
    };

    // Namespaces that the container's processes must be born into.
    let pid_namespace = take(&mut joined, |j| j.typ == NamespaceType::Pid);
    let joined_user = joined.iter().find(|j| j.typ == NamespaceType::User);
    let idmap_namespace =
        joined_user.map(|j| j.fd.try_clone().during(|| "copy a namespace's fd".into())).transpose()?;
    // Joining a namespace takes CAP_SYS_ADMIN over it, which a process in the container's user namespace need not have.
    let joins_first = in_user && capabilities::may_mount() && joined.iter().any(|j| j.typ != NamespaceType::User);
    let staged = linux.creates(NamespaceType::Time) || joined_user.is_some() || joins_first;
    let born = (libc::CLONE_NEWUSER | libc::CLONE_NEWPID) as u64;
    let late_flags = libc::CLONE_NEWCGROUP as u64;
    let time = libc::CLONE_NEWTIME as u64;
    // Without a user namespace clone3 makes all at once; the cgroup namespace must wait until the cgroup is joined. With
    // one, the others wait for its maps, so that their objects belong to the container's root.
    let clone_flags = if in_user { created & born } else { created & !late_flags & !time };

    // 1. While the process is still the host's root, single-threaded and in the host's view.
    if extras.streams.iter().any(Option::is_some) {
        list.add("", Op::Streams(std::mem::take(&mut extras.streams)));
    }
    if scope {
        list.add("/linux/cgroupsPath", Op::Sync(Sync::Scope));
    }
    for file in join {
        list.add("/linux/cgroupsPath", Op::JoinCgroup(file));
    }
    if let Some(process) = process
        && let Some(adj) = process.oom_score_adj
    {
        // Lowering takes CAP_SYS_RESOURCE on the host, which a child in a user namespace has not.
        let to = if new_user { &mut by_parent } else { &mut list };
        to.add("/process/oomScoreAdj", oom_score_adj(adj)?);
    }
    if new_user && !joins_first {
        list.add("/linux/uidMappings", Op::Sync(Sync::Maps));
    }
    // After the maps: the files of an undumpable process are root's, and an unprivileged caller could not write them.
    list.add("", Op::Undumpable);
    // 2. Namespaces. The mount namespace comes before the switch of user: the way to the root filesystem may be barred to
    // the container's root.
    let stage_flags = if staged {
        stage.0 = split_for_stage(&mut list, &mut joined, created, linux, joins_first)?;
        if new_user && joins_first {
            list.add("/linux/uidMappings", Op::Sync(Sync::Maps));
        }
        list.add("", Op::Undumpable);
        if joins_first { clone_flags } else { clone_flags & !(libc::CLONE_NEWUSER as u64) }
    } else {
        0
    };
    let mounts_first = libc::CLONE_NEWNS as u64;
    let rest = created & !clone_flags & !time;
    if rest & mounts_first != 0 {
        list.add(pointer_of(spec, NamespaceType::Mount), Op::Unshare { flags: mounts_first, names: "mount".into() });
    }
    let mount_ns = take(&mut joined, |j| j.typ == NamespaceType::Mount);
    if let Some(joined) = mount_ns {
        list.add(format!("/linux/namespaces/{}", joined.index), setns(joined));
    }
    // 3. The root filesystem.
    let root = root_path(bundle, spec);
    let c_root = c("/root/path", bytes(&root))?;
    let propagation = linux.rootfs_propagation.as_deref().unwrap_or("");
    let base = base_propagation(propagation);
    let root_dir = program::open_root(&root)?;
    if own_mounts {
        list.add("/linux/rootfsPropagation", Op::DetachMounts { own: linux.creates(NamespaceType::Mount) });
    }
    if own_mounts && takes_place(spec) {
        list.add("/root/path", Op::PlaceRoot(c_root));
    } else if own_mounts {
        // Where it can't be made now: root of a user namespace, in mounts that are not that one's; no open_tree(2).
        let tree = match copy_now {
            true => Tree::take(Some(root_dir.as_fd()), &c_root, true).during(|| "/root/path: open_tree".into())?,
            false => Tree::later(c_root.clone(), true),
        };
        copy_now &= matches!(tree, Tree::Made(_));
        // pivot_root refuses a root that is shared; if it is to be shared it becomes so afterwards.
        let propagation = base.unwrap_or(libc::MS_SLAVE);
        list.add("/root/path", Op::AttachRoot { tree, path: c_root, propagation });
    } else {
        list.add("/root/path", Op::OpenRoot(open_dir(&root_dir)?));
    }
    if let Some((uid, gid)) = first_ids {
        list.add("/linux/uidMappings", Op::NamespaceRoot { uid, gid });
    }
    for joined in joined {
        list.add(format!("/linux/namespaces/{}", joined.index), setns(joined));
    }
    let others = rest & !mounts_first;
    if others != 0 {
        list.add("/linux/namespaces", Op::Unshare { flags: others, names: flag_names(others) });
    }
    list.add("", Op::Session);
    if let Some(name) = spec.hostname.as_deref().filter(|name| !name.is_empty()) {
        list.add("/hostname", Op::Hostname(c("/hostname", name)?));
    }
    if let Some(name) = spec.domainname.as_deref().filter(|name| !name.is_empty()) {
        list.add("/domainname", Op::Domainname(c("/domainname", name)?));
    }
    if linux.creates(NamespaceType::Network) {
        list.add("", Op::Network(network));
    }
    for port in extras.listen {
        list.add("", Op::Listen(port));
    }
    let label = linux.mount_label.as_deref().filter(|label| !label.is_empty());
    if let Some(label) = label {
        lsm::check(label, "/linux/mountLabel", "SELinux", lsm::selinux())
            .map_err(|p| Error::problems("config.json", &[p]))?;
    }
    // 4. Mounts, in the config's order; then what goes on top of them.
    let mut idmaps = Vec::new();
    let (mut layers, mut in_sight, mut covered) = (0, false, false);
    let watched = extras.watch && own_mounts && !linux.masked_paths.is_empty();
    if own_mounts {
        let facts = Facts {
            bundle,
            base_propagation: base,
            new_cgroup2: linux.creates(NamespaceType::Cgroup) || !(in_user || namespaces::inside_user_namespace()),
            cgroup2: cgroups.iter().all(|(name, _)| name.is_empty()),
            cgroups,
            label,
            copy: copy_now,
        };
        let layered = spec.mounts.iter().position(|entry| mounts::layer::is_wanted(&entry.options));
        let size =
            spec.annotations.get(mounts::layer::SIZE).map(|size| c("/annotations", size.as_str())).transpose()?;
        // Who may unmount there would bring to light again what is covered.
        let may_cover = !process.is_some_and(may_unmount);
        let mut below = false;
        for (index, entry) in spec.mounts.iter().enumerate() {
            let pointer = format!("/mounts/{index}");
            let made = mounts::compile(entry, &pointer, &facts)?;
            if let (false, true, Some(place)) = (below, may_cover, Place::below(&made)) {
                below = true;
                if layered.is_some_and(|first| first > index) {
                    let under = Some(place.clone());
                    list.add("/annotations", Op::Layer { size: size.clone(), kept: extras.keep_layer, under });
                }
                if watched {
                    list.add("/linux/maskedPaths", Op::Cover { under: Some(place) });
                    covered = true;
                }
            }
            let maps = (copy_now || options.describe, idmap_namespace.as_ref());
            idmaps.extend(id_map(entry, &pointer, list.0.len(), maps)?);
            if !mounts::layer::is_on(&made) {
                list.add(pointer, Op::Mount(Box::new(made)));
                continue;
            }
            if layered == Some(index) && !below {
                in_sight = true;
                list.add(&pointer, Op::Layer { size: size.clone(), kept: extras.keep_layer, under: None });
            }
            if mounts::layer::lower_of(&made).is_none() {
                let name = c("", format!("mount{index}"))?;
                list.add(pointer, Op::OnLayer { mount: Box::new(made), name });
                continue;
            }
            let name = c("", layers.to_string())?;
            list.add(pointer, Op::Overlay { mount: Box::new(made), name, in_user });
            layers += 1;
        }
        if in_sight {
            list.add("", Op::HideLayer);
        }
        if needs_devices(spec) {
            devices(&mut list, spec, in_user || namespaces::inside_user_namespace(), copy_now)?;
        }
    }
    let sysctls = !linux.sysctl.is_empty();
    let labels = process.is_some_and(|p| is_set(p.apparmor_profile.as_ref()) || is_set(p.selinux_label.as_ref()));
    if sysctls || labels {
        list.add("", Op::HoldProc);
    }
    if let (Some(process), Some(socket)) = (process.filter(|p| p.terminal), console) {
        list.add("/process/terminal", terminal_step(process, socket, own_mounts && needs_devices(spec)));
    }
    if let Some(process) = process
        && let Some(cwd) = relative(&process.cwd)
    {
        list.add("/process/cwd", Op::MakeCwd(cwd));
    }
    // 5. Hooks, between the mounts and the pivot (runtime-spec, config.md, "POSIX-platform Hooks").
    let hooks = spec.hooks();
    if !hooks.prestart.is_empty() || !hooks.create_runtime.is_empty() || !linux.net_devices.is_empty() {
        list.add("/hooks/createRuntime", Op::Sync(Sync::Runtime));
    }
    for (index, hook) in hooks.create_container.iter().enumerate() {
        let pointer = format!("/hooks/createContainer/{index}");
        list.add(pointer.clone(), hook_step(hook, &pointer, Some(bundle))?);
    }
    // 6. The pivot, and what is done in the new root only.
    match (own_mounts, options.no_pivot) {
        (true, false) => list.add("/root/path", Op::Pivot),
        (true, true) => list.add("/root/path", Op::MoveRoot),
        (false, _) => list.add("/root/path", Op::Chroot),
    }
    if own_mounts {
        if let Some((kind, recursive)) = propagation_of(propagation) {
            let word = propagation.to_owned();
            list.add("/linux/rootfsPropagation", Op::RootPropagation { kind, recursive, word });
        }
        if spec.root.as_ref().is_some_and(|root| root.readonly) {
            list.add("/root/readonly", Op::RootReadonly);
        }
    }
    for (name, value) in &linux.sysctl {
        let pointer = format!("/linux/sysctl/{}", crate::spec::escape(name));
        let path = c(&pointer, format!("sys/{}", sysctl_path(name)))?;
        let value = c(&pointer, value.as_str())?;
        list.add(pointer, Op::Sysctl { path, value });
    }
    // After the sysctls, which lie below /proc/sys.
    if own_mounts {
        for (index, path) in linux.readonly_paths.iter().enumerate() {
            if let Some(path) = relative(path) {
                list.add(format!("/linux/readonlyPaths/{index}"), Op::Readonly(path));
            }
        }
        for link in extras.links.iter().filter_map(|link| relative(link)) {
            list.add("", Op::HoldLink(link));
        }
        if watched && !covered {
            list.add("/linux/maskedPaths", Op::Cover { under: None });
        }
        for (index, path) in linux.masked_paths.iter().enumerate() {
            let pointer = format!("/linux/maskedPaths/{index}");
            match relative(path) {
                Some(path) if watched => list.add(pointer, Op::Watch { path, name: c("", index.to_string())? }),
                Some(path) => list.add(pointer, Op::Mask(path)),
                None => {}
            }
        }
        if watched {
            list.add("/linux/maskedPaths", Op::SealCover);
        }
    }
    // 7. The process itself.
    let mut late = List::default();
    let exec = match process {
        Some(process) => {
            let parts = Parts { spec, process, options, new_user, prefix: "/process" };
            process::labels(&parts, &mut list, false)?;
            if !options.no_new_keyring {
                list.add("", Op::Keyring(c("", format!("_ses.{id}"))?));
            }
            if let Some(personality) = &linux.personality {
                list.add("/linux/personality", Op::Personality(attributes::personality(personality)));
            }
            if let Some(policy) = &linux.memory_policy {
                let policy = attributes::memory_policy(policy).map_err(|p| Error::problems("config.json", &[p]))?;
                list.add("/linux/memoryPolicy", Op::MemoryPolicy(policy));
            }
            let home = program::home_of(process.user.uid, root_dir.as_fd());
            let mut program = Program::new(process, Some(&home), &options.extra_env)?;
            attributes_of(&parts, &mut list, &mut by_parent, &mut warnings)?;
            late = late_list(&parts)?;
            early_filter(&mut list, &mut late);
            if extras.die_with_parent {
                list.add("", Op::DieWithParent);
            }
            match extras.letter.take() {
                Some(letter) => {
                    program.later = Some(letter);
                    list.0.retain(|step| !matches!(step.op, Op::FindProgram));
                }
                None => list.add("", Op::Sync(Sync::Ready)),
            }
            if let Some(gate) = gate {
                list.add("", Op::Gate(gate));
            }
            if extras.confined {
                list.0.retain(process::may_stay);
            }
            process::confine(&mut late, extras.init.take(), extras.landlock.take(), extras.record);
            if program.later.is_some() {
                process::wait_late(&mut late, extras.filter_first);
            }
            program
        }
        None => {
            list.add("", Op::Sync(Sync::Ready));
            Program::new(&Process::default(), None, &[])?
        }
    };
    Ok(Plan {
        clone_flags: match (staged, joins_first) {
            (true, true) => 0,
            (true, false) => clone_flags & libc::CLONE_NEWUSER as u64,
            (false, _) => clone_flags,
        },
        pid_namespace,
        stage: staged.then_some((stage.0, stage_flags)),
        maps,
        idmaps,
        by_parent: by_parent.0,
        lock,
        has_init: late.0.iter().any(|step| matches!(step.op, Op::Init(_))),
        setup: list.0,
        late: late.0,
        exec,
        hook_state,
        warnings,
    })
}

/// Whether the first mount takes the root filesystem's place, so that root.path is not mounted for nothing.
fn takes_place(spec: &Spec) -> bool {
    spec.mounts.first().is_some_and(|mount| relative(&mount.destination).is_none())
}

fn oom_score_adj(value: i32) -> Result<Op> {
    let value = c("/process/oomScoreAdj", value.to_string())?;
    Ok(Op::OomScoreAdj { value, deniable: !capabilities::may_lower_oom_score() })
}

/// Whether a program has CAP_SYS_ADMIN, or can come by it.
fn may_unmount(process: &Process) -> bool {
    let sets = process.capabilities.as_ref().map(|sets| capabilities::compile(sets).0);
    sets.is_some_and(|sets| (sets.bounding | sets.masks.permitted) & SYS_ADMIN != 0)
}

fn open_dir(root: &OwnedFd) -> Result<OwnedFd> {
    files::open(Some(root.as_fd()), c".", OFlag::O_PATH | OFlag::O_DIRECTORY).during(|| "/root/path: open".into())
}

/// The propagation that the root mount is given after the pivot, where it is not what it has by then.
fn propagation_of(word: &str) -> Option<(u64, bool)> {
    let recursive = word.starts_with('r');
    let kind = match word.strip_prefix('r').unwrap_or(word) {
        "shared" => libc::MS_SHARED,
        "slave" => libc::MS_SLAVE,
        "private" => libc::MS_PRIVATE,
        "unbindable" => libc::MS_UNBINDABLE,
        _ => return None,
    };
    Some((kind, recursive))
}

/// A sysctl's file: dots between, unless slashes are (sysctl(8): then a dot is part of a name).
pub(super) fn sysctl_path(name: &str) -> String {
    match name.find(['.', '/']) {
        Some(at) if name.as_bytes()[at] == b'/' => name.to_owned(),
        _ => name.replace('.', "\0").replace('/', ".").replace('\0', "/"),
    }
}
