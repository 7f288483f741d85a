//! The plan of one more process in a running container.

use super::super::{HookState, Op, Plan, Program, Sync, program};
use super::process::{Parts, attributes_of, early_filter, labels, late_list, terminal_step};
use super::{List, Options, c, oom_score_adj};
use crate::error::{Context, Error, Problem, Result};
use crate::prim::namespaces::{self, Joined};
use crate::prim::{attributes, capabilities};
use crate::spec::{NamespaceType, Process, Spec};
use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};

/// What an exec is compiled from, besides its process.
pub struct ExecInputs<'a> {
    /// The container's config.
    pub spec: &'a Spec,
    /// Flags.
    pub options: &'a Options,
    /// Whether systemd puts it into the container's scope.
    pub scope: bool,
    /// `tasks` files of the cgroups to join.
    pub join: Vec<CString>,
    /// The container's first process.
    pub target: OwnedFd,
    /// Its root directory.
    pub root: OwnedFd,
    /// Its PID namespace, to be born into.
    pub pid_namespace: Option<Joined>,
    /// The socket that gets the terminal's master.
    pub console: Option<OwnedFd>,
    /// The container's ID.
    pub id: &'a str,
}

/// Compiles the plan of one more process in a running container.
///
/// # Errors
/// As [`create`].
pub fn exec(process: &Process, inputs: ExecInputs) -> Result<Plan> {
    let ExecInputs { spec, options, scope, join, target, root, pid_namespace, console, id } = inputs;
    let linux = spec.linux();
    let prefix = "/process";
    let mut list = List::default();
    let mut warnings = Vec::new();
    let affinity = |text: &Option<String>, at: &str| -> Result<Option<Vec<u64>>> {
        let list = text.as_deref().filter(|t| !t.is_empty()).map(attributes::list).transpose();
        list.map_err(|what| Error::problems("config.json", &[Problem::new(at, what)]))
    };
    let cpus = process.exec_cpu_affinity.as_ref();
    let at = "/process/execCPUAffinity/initial";
    if let Some(mask) = cpus.map(|a| affinity(&a.initial, at)).transpose()?.flatten() {
        list.add(at, Op::Affinity(mask));
    }
    if scope {
        list.add("/linux/cgroupsPath", Op::Sync(Sync::Scope));
    }
    for file in join {
        list.add("/linux/cgroupsPath", Op::JoinCgroup(file));
    }
    let at = "/process/execCPUAffinity/final";
    if let Some(mask) = cpus.map(|a| affinity(&a.last, at)).transpose()?.flatten() {
        list.add(at, Op::Affinity(mask));
    }
    // Before it is undumpable: the files of such a process are root's.
    if let Some(adj) = process.oom_score_adj {
        list.add("/process/oomScoreAdj", oom_score_adj(adj)?);
    }
    list.add("", Op::Undumpable);
    let all = linux.namespaces.iter().filter_map(|n| n.typ).map(namespaces::flag).fold(0, |a, b| a | b);
    let flags = all & !(libc::CLONE_NEWPID as u64);
    let home = program::home_of(process.user.uid, root.as_fd());
    // Without CAP_SYS_ADMIN here the user namespace comes first: in it the PID namespace may be joined, for a child.
    let user = libc::CLONE_NEWUSER as u64;
    let stage = if flags & user != 0 && !capabilities::may_mount() {
        let pidfd = target.try_clone().during(|| "copy a pidfd".into())?;
        let first = user | all & libc::CLONE_NEWPID as u64;
        list.add("/linux/namespaces", Op::JoinContainer { pidfd, flags: first });
        Some((std::mem::take(&mut list.0), 0))
    } else {
        None
    };
    let flags = if stage.is_some() { flags & !user } else { flags };
    let parts = Parts { spec, process, options, new_user: false, prefix };
    // By the process itself, while the caller's procfs is in sight: one of the container's would have to be mounted anew,
    // which a user namespace with a masked one does not allow.
    labels(&parts, &mut list, true)?;
    if flags != 0 {
        list.add("/linux/namespaces", Op::JoinContainer { pidfd: target, flags });
    }
    if flags & libc::CLONE_NEWNS as u64 == 0 {
        list.add("/root/path", Op::EnterDir(root));
    }
    if linux.namespace(NamespaceType::User).is_some() {
        let (uid, gid) = namespaces::maps(&linux.uid_mappings, &linux.gid_mappings).first;
        list.add("/linux/uidMappings", Op::NamespaceRoot { uid, gid });
    }
    list.add("", Op::Session);
    if let Some(socket) = console.filter(|_| process.terminal) {
        list.add("/process/terminal", terminal_step(process, socket, false));
    }
    if !options.no_new_keyring {
        list.add("", Op::Keyring(c("", format!("_ses.{id}"))?));
    }
    let mut by_parent = List::default();
    attributes_of(&parts, &mut list, &mut by_parent, &mut warnings)?;
    let mut late = late_list(&parts)?;
    // The hooks are the container's own start's.
    late.0.retain(|step| !matches!(step.op, Op::Hook(_)));
    early_filter(&mut list, &mut late);
    list.add("", Op::Sync(Sync::Ready));
    Ok(Plan {
        has_init: false,
        clone_flags: 0,
        pid_namespace: pid_namespace.filter(|_| stage.is_none()),
        stage,
        maps: None,
        idmaps: Vec::new(),
        by_parent: Vec::new(),
        lock: None,
        setup: list.0,
        late: late.0,
        exec: Program::new(process, Some(&home), &options.extra_env)?,
        hook_state: HookState::default(),
        warnings,
    })
}
