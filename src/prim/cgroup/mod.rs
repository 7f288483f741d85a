//! The container's cgroup: `linux.cgroupsPath` and `linux.resources`, on cgroup v1, v2, and both side by side.
//!
//! [`compile`] turns the request into a [`CgroupPlan`]: which directories, and which file gets which bytes, in order.
//! [`CgroupPlan::create`] carries it out in the parent. The child gets in by [`join`] (v1) or by being cloned into
//! [`CgroupPlan::v2_dir`]. A [`Record`] is what outlives the start: it finds, freezes, kills and removes.
//!
//! On a host that has both generations the container gets a cgroup in every v1 hierarchy, and one in the v2 tree only if
//! something needs it there (huge page limits, `unified`).

mod convert;
mod create;
mod device_list;
pub mod devices;
#[cfg(test)]
mod fake_v2;
mod freezer;
mod io;
mod layout;
mod limits;
#[cfg(test)]
mod live;
mod members;
mod oom;
mod program;
mod record;
pub mod stats;
pub mod systemd;
#[cfg(test)]
mod tests;
mod undo;
mod write;

pub use layout::{Hierarchy, Layout, Version};
pub use oom::OomWatch;
pub use record::Record;
pub use write::{Set, Write};

use crate::error::{Context, Kind, Problem, Result};
use crate::spec::Resources;
use crate::sys::{Errno, files};
use limits::Limits;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode as FileMode;
use program::Program;
use serde::{Deserialize, Serialize};
use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::os::fd::OwnedFd;

/// Who makes cgroups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Manager {
    /// brig itself, in the cgroup filesystem.
    #[default]
    Cgroupfs,
    /// systemd.
    Systemd,
    /// Nobody: the container stays in the caller's cgroup.
    Disabled,
}

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// `linux.cgroupsPath`.
    pub path: Option<&'a str>,
    /// The container's ID, which names the cgroup if there is no path.
    pub id: &'a str,
    /// `linux.resources`.
    pub resources: &'a Resources,
    /// `--cgroup-manager`.
    pub manager: Manager,
    /// `annotations`, for the systemd driver.
    pub annotations: &'a BTreeMap<String, String>,
    /// Whether the devices that every container may use are added to the rules.
    pub default_devices: bool,
    /// Whether the caller is not the host's root: a hierarchy that it may not write is left out, as long as no limit needs
    /// it, and so are device rules, which a user namespace does not need (it makes no device nodes).
    pub rootless: bool,
    /// The host user to whom a v2 cgroup is delegated, see "Cgroup ownership" in the specification's config-linux. The
    /// caller decides (v2, a new cgroup namespace, and a writable mount of it).
    pub owner: Option<u32>,
}

/// One cgroup of a container: a directory in one hierarchy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// The hierarchy's generation.
    pub version: Version,
    /// The controllers that it has, by the kernel's names.
    pub controllers: Vec<String>,
    /// Where the hierarchy is mounted.
    pub mount: String,
    /// The directory, an absolute path below `mount`.
    pub path: String,
}

impl Group {
    /// Whether it has a controller, by its v1 name.
    pub fn has(&self, controller: &str) -> bool {
        let name = match (self.version, controller) {
            (Version::V2, "blkio") => "io",
            _ => controller,
        };
        self.controllers.iter().any(|c| c == name)
    }
}

/// Whether limits are for a new container or for one that runs.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Mode {
    Create,
    /// With the CPU quota in force, as `cpu.max` gives it, and devices.list of v1.
    Update {
        cpu_quota: Option<String>,
        devices: Option<String>,
    },
}

/// The compiled request.
#[derive(Debug, Clone)]
pub struct CgroupPlan {
    groups: Vec<Group>,
    writes: Vec<Write>,
    warnings: Vec<Problem>,
    device_program: Option<DeviceProgram>,
    /// Found out only when the program is loaded.
    unenforced: OnceCell<Problem>,
    rootless: bool,
    owner: Option<u32>,
    moves: bool,
    /// With the systemd driver: what is to be started.
    scope: Option<systemd::Scope>,
    /// In an update: the scope that runs.
    unit: Option<systemd::Change>,
}

/// What happens to the device program of a v2 group.
#[derive(Debug, Clone)]
struct DeviceProgram {
    group: usize,
    /// `None` takes away what is there: everything is allowed.
    program: Option<Program>,
    /// Whether somebody may count on what it denies.
    matters: bool,
}

const PATH: &str = "/linux/cgroupsPath";

/// Decides which cgroups the container gets, and what is written into them. Pure.
///
/// # Errors
/// Everything in the request that can't be applied on a host of this layout, each with its JSON pointer.
pub fn compile(layout: &Layout, request: &Request) -> Result<CgroupPlan, Vec<Problem>> {
    let mut plan = CgroupPlan {
        groups: Vec::new(),
        writes: Vec::new(),
        warnings: Vec::new(),
        device_program: None,
        unenforced: OnceCell::new(),
        rootless: request.rootless,
        owner: request.owner,
        moves: false,
        scope: None,
        unit: None,
    };
    match request.manager {
        Manager::Cgroupfs => {}
        Manager::Systemd => plan.scope = Some(systemd::Scope::compile(layout, request)?),
        Manager::Disabled => {
            if *request.resources != Resources::default() {
                let what =
                    "is not applied, since --cgroup-manager disabled leaves the container in its caller's cgroup";
                plan.warnings.push(Problem::new("/linux/resources", what));
            }
            return Ok(plan);
        }
    }
    if layout.hierarchies.is_empty() {
        let what = "is not made, since no cgroup hierarchy is mounted here: the container can't be limited or frozen";
        plan.warnings.push(Problem::new(PATH, what));
    }
    plan.groups = match &plan.scope {
        Some(scope) => layout.hierarchies.iter().map(|h| scope.group(h, &scope.usual_manager())).collect(),
        None => {
            let (path, absolute) = clean(request.path.filter(|p| !p.is_empty()), request.id)?;
            layout.hierarchies.iter().map(|h| group(h, &path, absolute)).collect()
        }
    };
    let mut limits = Limits {
        groups: &plan.groups,
        mode: &Mode::Create,
        writes: Vec::new(),
        device_program: None,
        problems: Vec::new(),
        warnings: Vec::new(),
    };
    if !request.rootless {
        limits.devices(request.resources, request.default_devices);
    } else if devices::denies(&request.resources.devices) {
        plan.warnings.push(unenforced());
    }
    limits.all(request.resources);
    if !limits.problems.is_empty() {
        return Err(limits.problems);
    }
    let Limits { writes, device_program, warnings, .. } = limits;
    plan.writes = writes;
    plan.device_program = device_program;
    plan.warnings.extend(warnings);
    if let Some(scope) = &mut plan.scope {
        // systemd has a cgroup in every hierarchy that it knows, and looks for the end of the scope in the v2 one.
        scope.fill(request, &plan.groups, &plan.writes);
    } else if !layout.is_pure_v2() {
        // The v2 group is the last one, so no index moves.
        let used = |i: usize| {
            plan.writes.iter().any(|w| w.group == i) || plan.device_program.as_ref().is_some_and(|p| p.group == i)
        };
        let keep: Vec<bool> =
            plan.groups.iter().enumerate().map(|(i, g)| g.version == Version::V1 || used(i)).collect();
        let mut keep = keep.iter();
        plan.groups.retain(|_| *keep.next().unwrap_or(&true));
    }
    // No process can be cloned into a cgroup that may have none; it has to move there. So has one that is to be kept to some
    // processors: one that was cloned into such a cgroup runs on all of them before Linux 6.3, where no update mended it.
    let moves = |w: &Write| w.file == "pids.max" && w.value == "0" || w.file.starts_with("cpuset.");
    plan.moves = plan.writes.iter().any(|w| plan.groups[w.group].version == Version::V2 && moves(w));
    Ok(plan)
}

/// What `brig update` writes into the cgroups of a running container. Device rules, if there are any, replace those in force,
/// with the default devices; without any those in force stay.
///
/// # Errors
/// Everything that can't be applied, each with its JSON pointer.
pub fn update(record: &Record, resources: &Resources) -> Result<CgroupPlan, Vec<Problem>> {
    let groups = record.groups.clone();
    let v2 = groups.iter().find(|g| g.version == Version::V2 && g.has("cpu"));
    let cpu_quota = v2.and_then(|g| write::read(&format!("{}/cpu.max", g.path)).ok());
    let cpu_quota = cpu_quota.and_then(|max| max.split(' ').next().map(Into::into));
    let v1 = groups.iter().find(|g| g.version == Version::V1 && g.has("devices") && !resources.devices.is_empty());
    // Longer than one read of a control file, if there are many.
    let devices = v1.and_then(|g| std::fs::read_to_string(format!("{}/devices.list", g.path)).ok());
    let mode = Mode::Update { cpu_quota, devices };
    let mut limits = Limits {
        groups: &groups,
        mode: &mode,
        writes: Vec::new(),
        device_program: None,
        problems: Vec::new(),
        warnings: Vec::new(),
    };
    limits.all(resources);
    // Last, so that nothing can fail after them: devices.list of v1 tells too little to put back what was.
    if !resources.devices.is_empty() {
        limits.devices(resources, true);
    }
    let Limits { writes, device_program, mut problems, warnings, .. } = limits;
    if record.unit.is_some() && v1.is_some() {
        let what = "device rules can't be changed where systemd has a hand in them on cgroup v1: it opens every device, or \
                    none, before it sets its own list; use the cgroupfs manager or cgroup v2, or start the container anew";
        problems.push(Problem::new("/linux/resources/devices", what));
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    let (unenforced, unit) = (OnceCell::new(), record.unit.as_ref().map(|unit| systemd::Change::new(unit, resources)));
    Ok(CgroupPlan {
        groups,
        writes,
        warnings,
        device_program,
        unenforced,
        rootless: false,
        owner: None,
        moves: false,
        scope: None,
        unit,
    })
}

fn unenforced() -> Problem {
    let what = "is not enforced: without privilege over the host no device can be denied; what the user of this \
                container may open, it may open there";
    Problem::new("/linux/resources/devices", what)
}

/// The path to the cgroup as plain names, and whether it starts at the root of each hierarchy. `..` never leaves that root
/// (runc cleans paths the same way; crun lets the kernel resolve them).
fn clean(path: Option<&str>, id: &str) -> Result<(String, bool), Vec<Problem>> {
    let given = path.unwrap_or(id);
    let mut names: Vec<&str> = Vec::new();
    for name in given.split('/') {
        match name {
            "" | "." => {}
            ".." => drop(names.pop()),
            name => names.push(name),
        }
    }
    let problem = |what: &str| Err(vec![Problem::new(PATH, what)]);
    if names.is_empty() {
        // runc would take over, and at the end try to remove, every cgroup of the machine.
        return problem("is the root of the hierarchy, which no container can have; give it a name of its own");
    }
    if names.iter().any(|n| n.len() > 255) {
        return problem("has a name of more than 255 bytes, which is the limit");
    }
    if given.contains(['\n', '\0']) {
        return problem("has a newline or a zero byte in it, which a cgroup's name can't have");
    }
    Ok((names.join("/"), given.starts_with('/')))
}

/// Where the container's cgroup is in one hierarchy. A relative path (and the default, the ID) is below this process's own
/// cgroup on v1, so that its limits hold for the container too, and beside it on v2, where a cgroup with processes can't
/// have limited children. runc does the same; crun starts every path at the root.
fn group(hierarchy: &Hierarchy, path: &str, absolute: bool) -> Group {
    let Hierarchy { version, controllers, mount, own } = hierarchy;
    let base = match (absolute, version) {
        (true, _) => "",
        (false, Version::V1) => own.trim_end_matches('/'),
        (false, Version::V2) => own.rsplit_once('/').map_or("", |(parent, _)| parent),
    };
    Group {
        version: *version,
        controllers: controllers.clone(),
        mount: mount.clone(),
        path: format!("{mount}{base}/{path}"),
    }
}

impl CgroupPlan {
    /// What will be done, in words, each step with the JSON pointer that caused it.
    pub fn steps(&self) -> impl Iterator<Item = (String, &str)> {
        let verb = if self.scope.is_some() { "use" } else { "make" };
        let make = move |g: &Group| (format!("{verb} cgroup {}", g.path), PATH);
        let scope = self.scope.iter().flat_map(systemd::Scope::steps);
        let program = self.device_program.iter().map(|p| {
            let path = &self.groups[p.group].path;
            let phrase = match &p.program {
                Some(Program(code)) => format!("attach a device program of {} instructions to {path}", code.len()),
                None => format!("detach the device program from {path}"),
            };
            (phrase, "/linux/resources/devices")
        });
        let writes = self.writes.iter().map(|w| (w.phrase(), w.pointer.as_ref()));
        scope.chain(self.groups.iter().map(make)).chain(writes).chain(program)
    }

    /// What is accepted but not applied, and why; to be shown as warnings. All of it is known after [`CgroupPlan::create`]
    /// or [`CgroupPlan::apply`].
    pub fn warnings(&self) -> impl Iterator<Item = &Problem> {
        self.warnings.iter().chain(self.unenforced.get())
    }

    /// The writes, for tests and for `brig plan`.
    pub fn writes(&self) -> &[Write] {
        &self.writes
    }

    /// Whether there is a cgroup to make at all (not with [`Manager::Disabled`], nor on a host without cgroups).
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// Writes the limits into cgroups that exist ([`update`]), after systemd was told of them where it made these.
    ///
    /// # Errors
    /// What systemd refuses, and the first write that the kernel refuses; what was written before it is undone.
    pub fn apply(&self) -> Result<()> {
        let tell = |writes: &[Write], way| match &self.unit {
            Some(unit) => unit.apply(&self.groups, writes, way),
            None => Ok(()),
        };
        undo::write_all_or_none(&self.groups, &self.writes, tell, || self.install_program(false))
    }

    /// Puts the device program in place, if there is one.
    fn install_program(&self, fresh: bool) -> Result<()> {
        let Some(DeviceProgram { group, program, matters }) = &self.device_program else { return Ok(()) };
        match program::install(&self.groups[*group].path, program.as_ref(), fresh) {
            Err(e) if matches!(e.kind(), Kind::Os(Errno::EPERM)) && program::in_user_namespace() => {
                if *matters {
                    let _ = self.unenforced.set(unenforced());
                }
                Ok(())
            }
            other => other,
        }
    }

    /// The files through which a child joins, see [`join`].
    pub fn join_files(&self) -> Vec<CString> {
        join_files(&self.groups, self.scope.is_some() || !self.moves)
    }

    /// The v2 directory to clone the child into (`CLONE_INTO_CGROUP`, Linux 5.7), after [`CgroupPlan::create`]; `None`
    /// when the container has no v2 cgroup, or may only join it afterwards, through [`CgroupPlan::join_files`].
    ///
    /// # Errors
    /// When the directory can't be opened.
    pub fn v2_dir(&self) -> Result<Option<OwnedFd>> {
        if self.moves || self.scope.is_some() { Ok(None) } else { v2_dir(&self.groups) }
    }
}

/// The file by which a process gets into each group. v1 takes single threads in `tasks`: a child with one thread writes
/// there, since a write to `cgroup.procs` waits for an RCU grace period (about 6 ms after the machine has been idle, 0.3
/// ms by `tasks`). The v2 group is left out when the child is cloned into it.
fn join_files(groups: &[Group], clone_into: bool) -> Vec<CString> {
    let file = |g: &Group| match g.version {
        Version::V1 => CString::new(format!("{}/tasks", g.path)).ok(),
        Version::V2 => (!clone_into).then(|| CString::new(format!("{}/cgroup.procs", g.path)).ok()).flatten(),
    };
    groups.iter().filter_map(file).collect()
}

fn v2_dir(groups: &[Group]) -> Result<Option<OwnedFd>> {
    let Some(group) = groups.iter().find(|g| g.version == Version::V2) else { return Ok(None) };
    let flags = OFlag::O_DIRECTORY | OFlag::O_RDONLY | OFlag::O_CLOEXEC;
    open(group.path.as_str(), flags, FileMode::empty()).map(Some).during(|| format!("open {}", group.path))
}

/// Moves the calling thread, the only one of its process, into cgroups. Safe between clone and exec.
///
/// # Errors
/// Which file failed, and why: `EACCES` or `EPERM` without the right to move, `EBUSY` or `EOPNOTSUPP` on v2 cgroups that
/// have limited children.
pub fn join<S: AsRef<CStr>>(files: &[S]) -> Result<(), (usize, Errno)> {
    files.iter().enumerate().try_for_each(|(i, file)| files::write_to(None, file.as_ref(), b"0").map_err(|e| (i, e)))
}
