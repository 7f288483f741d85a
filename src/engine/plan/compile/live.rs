//! The plans that change the mounts of a running container. A child joins the container's namespaces, does it, and ends;
//! what it can't do whole it takes back.

use super::super::{HookState, IdMap, Op, Plan, Program, Step, Sync};
use super::{List, id_map};
use crate::error::{Error, Result};
use crate::prim::mounts::{self, CopyUp, Facts, What, base_propagation, relative};
use crate::prim::namespaces::{self, Joined};
use crate::prim::{capabilities, lsm};
use crate::spec::{Mount, NamespaceType, Process, Spec};
use std::cell::OnceCell;
use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::rc::Rc;

/// As in [`Plan::stage`].
type Stage = Option<(Vec<Step>, u64)>;

/// What such a plan is compiled from, besides the mounts.
pub struct LiveInputs<'a> {
    /// The container's config.
    pub spec: &'a Spec,
    /// Its bundle, absolute.
    pub bundle: &'a Path,
    /// Its cgroups for mounts of type `cgroup`: hierarchy (empty for v2) and host directory.
    pub cgroups: &'a [(String, String)],
    /// The container's first process.
    pub target: OwnedFd,
    /// Its PID namespace, which a new procfs is to show.
    pub pid_namespace: Option<Joined>,
    /// Its user namespace, which maps the IDs of an ID-mapped mount.
    pub user_namespace: Option<OwnedFd>,
    /// The pointer of the list of mounts.
    pub at: &'a str,
}

/// Compiles the plan that adds mounts, in their order.
///
/// # Errors
/// As [`super::create`]: a missing source, an ID-mapped mount without the privilege.
pub fn add_mounts(entries: &[Mount], inputs: LiveInputs) -> Result<Plan> {
    let linux = inputs.spec.linux();
    let copy = capabilities::may_mount();
    let label = linux.mount_label.as_deref().filter(|label| !label.is_empty());
    if let Some(label) = label {
        lsm::check(label, "/linux/mountLabel", "SELinux", lsm::selinux())
            .map_err(|p| Error::problems("config.json", &[p]))?;
    }
    let facts = Facts {
        bundle: inputs.bundle,
        base_propagation: base_propagation(linux.rootfs_propagation.as_deref().unwrap_or("")),
        new_cgroup2: linux.creates(NamespaceType::Cgroup),
        cgroup2: inputs.cgroups.iter().all(|(name, _)| name.is_empty()),
        cgroups: inputs.cgroups,
        label,
        copy,
    };
    let mut made = Vec::new();
    for (index, entry) in entries.iter().enumerate() {
        let pointer = format!("{}/{index}", inputs.at);
        let mount = mounts::compile(entry, &pointer, &facts)?;
        if matches!(mount.what, What::Cgroups { .. } | What::Cgroup2(_)) {
            let what = "a cgroup mount can be added later on cgroup v2 alone, to a container with a cgroup namespace of its own";
            return Err(Error::invalid(format!("{pointer}/type: {what}")).hint("list it in config.json"));
        }
        // mount(2) names its place by a path alone, and what a copy is taken from is looked at and opened one after the
        // other: a running container can exchange either in between.
        let live = match mount.what {
            What::Classic { .. } => {
                Some("silent, iversion and options or sources of more than 255 bytes take mount(2)")
            }
            What::New { copy_up: CopyUp::Contents | CopyUp::All, .. } => {
                Some("tmpcopyup reads what the container may be changing")
            }
            _ => None,
        };
        if let Some(what) = live {
            let what = format!("{pointer}/options: {what}, which is not safe in a container that is there already");
            return Err(Error::invalid(what).hint("leave the option out, or list the mount in config.json"));
        }
        made.push((mount, pointer));
    }
    // Before the join, whatever the privilege: after it the same path would be the container's own.
    let sources: Vec<_> =
        made.iter().enumerate().filter_map(|(n, (mount, _))| Some((n, mount.source_to_copy()?.to_owned()))).collect();
    let mut idmaps = Vec::new();
    let user_namespace = inputs.user_namespace.as_ref();
    let at = inputs.at;
    // Where the mounts' steps start depends on how many steps join the container.
    let (mut list, stage) = {
        let (before, join, stage) =
            joining(inputs.spec, &inputs.target, inputs.pid_namespace.is_some(), !sources.is_empty())?;
        let first = before.0.len() + sources.len() + join.0.len();
        let mut list = before;
        for (n, source) in sources {
            list.add(format!("{at}/{n}/source"), Op::CopyTree { step: first + n, source });
        }
        list.0.extend(join.0);
        (list, stage)
    };
    for ((mount, pointer), entry) in made.into_iter().zip(entries) {
        idmaps.extend(id_map(entry, &pointer, list.0.len(), (copy, user_namespace))?);
        list.add(pointer, Op::Mount(Box::new(mount)));
    }
    finish(list, stage, inputs.pid_namespace, idmaps)
}

/// Compiles the plan that removes the mounts at these destinations. All are found before one is removed; the deepest goes
/// first.
///
/// # Errors
/// A destination that is the root.
pub fn remove_mounts(entries: &[Mount], inputs: LiveInputs) -> Result<Plan> {
    let (mut list, join, stage) = joining(inputs.spec, &inputs.target, false, false)?;
    list.0.extend(join.0);
    let mut found: Vec<(usize, String, CString, Rc<OnceCell<OwnedFd>>)> = Vec::new();
    for (index, entry) in entries.iter().enumerate() {
        let Some(destination) = relative(&entry.destination) else { continue };
        let depth = destination.as_bytes().iter().filter(|byte| **byte == b'/').count();
        found.push((depth, format!("{}/{index}", inputs.at), destination, Rc::default()));
    }
    for (_, at, destination, cell) in &found {
        list.add(at, Op::FindMount { destination: destination.clone(), found: Rc::clone(cell) });
    }
    found.sort_by_key(|(depth, ..)| std::cmp::Reverse(*depth));
    for (_, at, destination, cell) in found {
        list.add(at, Op::Unmount { destination, found: cell });
    }
    finish(list, stage, None, Vec::new())
}

/// The steps that join a container: those before its mount namespace, those that join it, and those of a stage.
/// `copies`: whether trees are still to be copied before that.
fn joining(spec: &Spec, target: &OwnedFd, pid: bool, copies: bool) -> Result<(List, List, Stage)> {
    use crate::error::Context;
    let linux = spec.linux();
    let (mut before, mut join) = (List::default(), List::default());
    let copy_of = |target: &OwnedFd| target.try_clone().during(|| "copy a pidfd".into());
    let (user, pids) = (libc::CLONE_NEWUSER as u64, libc::CLONE_NEWPID as u64);
    let all = linux.namespaces.iter().filter_map(|n| n.typ).map(namespaces::flag).fold(0, |a, b| a | b) & !pids;
    before.add("", Op::Undumpable);
    let mut stage = None;
    let mut rest = all;
    if all & user != 0 && !capabilities::may_mount() {
        // In the container's user namespace there is the privilege for all else.
        rest &= !user;
        let first = if pid { user | pids } else { user };
        before.add("/linux/namespaces", Op::JoinContainer { pidfd: copy_of(target)?, flags: first });
        if pid {
            stage = Some((std::mem::take(&mut before.0), 0));
        }
    }
    if copies {
        // A copy of the host's mounts that is the user namespace's own: there its trees may be copied.
        before.add("", Op::Unshare { flags: libc::CLONE_NEWNS as u64, names: "mount".into() });
    }
    before.add("", Op::HoldFds);
    join.add("/linux/namespaces", Op::JoinContainer { pidfd: copy_of(target)?, flags: rest });
    if linux.namespace(NamespaceType::User).is_some() {
        let (uid, gid) = namespaces::maps(&linux.uid_mappings, &linux.gid_mappings).first;
        join.add("/linux/uidMappings", Op::NamespaceRoot { uid, gid });
    }
    Ok((before, join, stage))
}

fn finish(mut list: List, stage: Stage, pid_namespace: Option<Joined>, idmaps: Vec<IdMap>) -> Result<Plan> {
    list.add("", Op::Sync(Sync::Ready));
    Ok(Plan {
        has_init: false,
        clone_flags: 0,
        pid_namespace: pid_namespace.filter(|_| stage.is_none()),
        stage,
        maps: None,
        idmaps,
        by_parent: Vec::new(),
        lock: None,
        setup: list.0,
        late: Vec::new(),
        exec: Program::new(&Process::default(), None, &[])?,
        hook_state: HookState::default(),
        warnings: Vec::new(),
    })
}
