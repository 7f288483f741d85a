//! The systemd driver: the container's cgroup is a transient scope unit, so that systemd knows of it, keeps it when it
//! reloads, and shows it in systemctl(1).
//!
//! A scope is made around a process that is there. So the container's process is born first and waits; the scope is started
//! with it and the limits as properties, in one call; then brig adds through the cgroup filesystem what systemd has no
//! property for, and on v1 the hierarchies that it does not manage. Interfaces: org.freedesktop.systemd1(5),
//! systemd.resource-control(5), systemd.scope(5).

mod bus;
mod gvariant;
mod path;
mod properties;
mod wire;

use super::undo::Way;
use super::write::{self, Write, read};
use super::{CgroupPlan, Group, Hierarchy, Layout, Record, Request, Version, devices};
use crate::error::{Context, Error, Kind, Problem, Result};
use crate::spec::Resources;
use bus::{Bus, Refusal};
use properties::{Property, put};
use serde::{Deserialize, Serialize};
use std::fs;
use wire::Value;

/// A container's scope, as its state keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unit {
    /// Its name, `brig-ID.scope`.
    pub name: String,
    /// Whether it is the user's systemd that has it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub user: bool,
}

/// A scope that is to be started.
#[derive(Debug, Clone)]
pub struct Scope {
    pub(super) unit: Unit,
    slice: String,
    /// The slice's path below the manager's own cgroup.
    slice_path: String,
    properties: Vec<Property>,
}

/// A connection to the systemd that starts a scope.
#[derive(Debug)]
pub struct Session {
    bus: Bus,
    /// Whether the scope has been started: from then on it is this container's.
    started: bool,
}

impl Session {
    /// Whether there is a scope that has to go should the creation fail.
    pub fn started(&self) -> bool {
        self.started
    }
}

impl Scope {
    /// Reads the path and the annotations.
    ///
    /// # Errors
    /// What systemd would not take, and a host where it can't be asked.
    pub(super) fn compile(layout: &Layout, request: &Request) -> Result<Scope, Vec<Problem>> {
        let user = is_user_instance(request.rootless);
        let mut problems = Vec::new();
        if user && !layout.is_pure_v2() {
            let what =
                "systemd can't give a part of cgroup v1 to a user; run with --cgroup-manager cgroupfs or disabled";
            problems.push(Problem::new(super::PATH, what));
        }
        let asked = properties::from_annotations(request.annotations).unwrap_or_else(|found| {
            problems.extend(found);
            Vec::new()
        });
        let names = path::names(request.path, request.id, user).and_then(|names| {
            let path = path::expand(&names.slice).map_err(|what| Problem::new(super::PATH, what))?;
            Ok((names, path))
        });
        match names {
            Ok((names, slice_path)) if problems.is_empty() => {
                let unit = Unit { name: names.unit, user };
                Ok(Scope { unit, slice: names.slice, slice_path, properties: asked })
            }
            Ok(_) => Err(problems),
            Err(problem) => {
                problems.insert(0, problem);
                Err(problems)
            }
        }
    }

    /// The container's cgroup in one hierarchy, below the cgroup of the systemd that makes it.
    pub(super) fn group(&self, hierarchy: &Hierarchy, manager: &str) -> Group {
        let Hierarchy { version, controllers, mount, .. } = hierarchy;
        let path = self.path_below(mount, manager);
        Group { version: *version, controllers: controllers.clone(), mount: mount.clone(), path }
    }

    fn path_below(&self, mount: &str, manager: &str) -> String {
        format!("{mount}{}{}/{}", manager.trim_end_matches('/'), self.slice_path, self.unit.name)
    }

    /// Where that systemd is as a rule; what it says itself is found when it is asked.
    pub(super) fn usual_manager(&self) -> String {
        match nix::unistd::geteuid().as_raw() {
            uid if self.unit.user => format!("/user.slice/user-{uid}.slice/user@{uid}.service"),
            _ => String::new(),
        }
    }

    /// Adds the limits and what every scope gets; the annotations have the last word.
    pub(super) fn fill(&mut self, request: &Request, groups: &[Group], writes: &[Write]) {
        let asked = std::mem::take(&mut self.properties);
        let mut list = Vec::new();
        let mut add = |name: &str, value: Value| list.push(Property::new(name, value, ""));
        add("Description", Value::Str(format!("brig container {}", request.id)));
        add("Slice", Value::str(&self.slice));
        add("Delegate", Value::Bool(true));
        // systemd must not stop it early in a shutdown, before what manages it.
        add("DefaultDependencies", Value::Bool(false));
        // Gone when nothing runs in it any more, however that came about.
        add("CollectMode", Value::str("inactive-or-failed"));
        let v2 = groups.iter().any(|g| g.version == Version::V2 && g.has("memory"));
        let io = if v2 { "IOAccounting" } else { "BlockIOAccounting" };
        for name in ["CPUAccounting", "MemoryAccounting", "TasksAccounting", io] {
            list.push(Property { optional: true, ..Property::new(name, Value::Bool(true), "") });
        }
        if !self.unit.user
            && let Ok(rules) = devices::rules(&request.resources.devices, request.default_devices)
            && let Some(found) =
                properties::from_devices(&rules, &fs::read_to_string("/proc/devices").unwrap_or_default())
        {
            list.extend(found);
        }
        // Nothing runs in it yet, so there is no value in force.
        list.extend(properties::from_writes(groups, writes, &|_, _| None));
        asked.into_iter().for_each(|property| put(&mut list, property));
        self.properties = list;
    }

    /// What will be done, in words, with the JSON pointer of the cause.
    pub(super) fn steps(&self) -> Vec<(String, &str)> {
        let whose = if self.unit.user { "the user's systemd" } else { "systemd" };
        let start = format!("start {} in {} by {whose}", self.unit.name, self.slice);
        let set = |p: &'_ Property| format!("with {}={}", p.name, p.value);
        let properties = self.properties.iter().filter(|p| p.name != "Slice");
        std::iter::once((start, super::PATH)).chain(properties.map(|p| (set(p), p.pointer.as_str()))).collect()
    }

    /// Starts the scope around a process. systemd is told everything at once, and what it is too old for is left to the
    /// control files.
    fn start(&self, session: &mut Session, pid: i32) -> Result<()> {
        let name = &self.unit.name;
        let pids = Value::Array("u".into(), vec![Value::U32(pid.unsigned_abs())]);
        let mut list = self.properties.clone();
        list.push(Property::new("PIDs", pids, ""));
        let mut retried = false;
        let job = loop {
            let args = [
                Value::str(name),
                Value::str("fail"),
                Value::Array("(sv)".into(), list.iter().map(Property::pair).collect()),
                Value::Array("(sa(sv))".into(), Vec::new()),
            ];
            match session.bus.call("StartTransientUnit", &args) {
                Ok(words) => break words.into_iter().next().unwrap_or_default(),
                Err(refusal) if !retried && refusal.is(".UnitExists") => {
                    // One that failed stays until somebody has looked at it.
                    retried = true;
                    let _ = session.bus.call("ResetFailedUnit", &[Value::str(name)]);
                }
                Err(refusal) => match unsupported(&refusal, &list) {
                    Some(at) if list[at].optional => drop(list.remove(at)),
                    Some(at) => {
                        let what = format!("{}: set {} of {name}", list[at].pointer, list[at].name);
                        return Err(refusal.during(what));
                    }
                    None if refusal.is(".UnitExists") => {
                        let what = format!("unit {name} already exists in systemd, and it is not this container's");
                        let hint = "give the container another linux.cgroupsPath (slice:prefix:name) or ID";
                        return Err(Error::new(Kind::Exists, what).hint(hint));
                    }
                    None => {
                        let error = refusal.during(format!("start {name}"));
                        let asked = list.iter().map(|p| p.pointer.as_str()).filter(|p| p.starts_with("/annotations"));
                        return Err(match asked.collect::<Vec<_>>().join(", ") {
                            pointers if pointers.is_empty() => error,
                            pointers => error.hint(format!("a value of another type than systemd's? see {pointers}")),
                        });
                    }
                },
            }
        };
        // The job is ours: whatever comes of it has to be taken back.
        session.started = true;
        match session.bus.wait_for_job(&job, &format!("start {name}"))?.as_str() {
            "done" => Ok(()),
            result => {
                let what = format!("start {name}: systemd's job ended with {result:?}");
                Err(Error::new(Kind::Other, what).hint(format!("the journal may say more: journalctl -u {name}")))
            }
        }
    }
}

/// Which property systemd does not know, or not with this value, by its words: `Cannot set property X, or unknown property.`
/// and `Value specified in X is out of range`.
fn unsupported(refusal: &Refusal, list: &[Property]) -> Option<usize> {
    let Refusal::Said(_, words) = refusal else { return None };
    let mut words = words.split(|c: char| !c.is_ascii_alphanumeric());
    words.find_map(|word| list.iter().position(|p| p.name == word))
}

/// Whether the user's instance of systemd is meant. root's processes under podman without root are no root's to systemd;
/// in a system container they are, and there the directory of the system's instance is root's, too.
fn is_user_instance(rootless: bool) -> bool {
    use std::os::unix::fs::MetadataExt;
    rootless || fs::metadata("/run/systemd").is_ok_and(|dir| dir.uid() != 0)
}

impl CgroupPlan {
    /// Connects to the systemd that is to start the container's scope, and learns where its cgroups are; `None` with another
    /// manager.
    ///
    /// # Errors
    /// When there is none, or when it does not answer.
    pub fn connect(&mut self) -> Result<Option<Session>> {
        let Some(scope) = &self.scope else { return Ok(None) };
        let mut session = Session { bus: Bus::open(scope.unit.user, bus::START)?, started: false };
        let manager = session.bus.property("ControlGroup").map_err(|e| e.during("ask systemd for its cgroup"))?;
        for group in &mut self.groups {
            group.path = scope.path_below(&group.mount, &manager);
        }
        Ok(Some(session))
    }

    /// Starts the scope around a process that waits, makes what is missing and writes the limits. The record gets what is
    /// there by then, also in failure.
    ///
    /// # Errors
    /// The first step that failed, in words.
    pub fn enter(&self, session: &mut Session, pid: i32, record: &mut Record) -> Result<()> {
        let Some(scope) = &self.scope else { return Ok(()) };
        scope.start(session, pid)?;
        let tracked = self.groups.iter().find(|g| g.version == Version::V2 || g.has("name=systemd"));
        if let Some(group) = tracked {
            // Should systemd have read the number in another PID namespace, then what runs there is nobody's to kill.
            check_place(group, pid).inspect_err(|_| session.started = false)?;
        }
        let mut made = Vec::new();
        let result = self.groups.iter().try_for_each(|group| self.settle(group, &mut made));
        made.retain(|path| self.groups.iter().all(|g| g.path != *path));
        record.parents = made;
        result?;
        self.write_limits(&self.groups, true)
    }
}

/// systemd has said that it is done; the kernel says whether the process is where it is looked for.
fn check_place(group: &Group, pid: i32) -> Result<()> {
    let file = format!("/proc/{pid}/cgroup");
    let text = fs::read_to_string(&file).during(|| format!("read {file}"))?;
    let found = text.lines().find_map(|line| match group.version {
        Version::V2 => line.strip_prefix("0::"),
        Version::V1 => line.split_once(":name=systemd:").map(|(_, path)| path),
    });
    let wanted = &group.path[group.mount.len()..];
    match found {
        Some(found) if found == wanted => Ok(()),
        found => {
            let what = format!("systemd has put the container into cgroup {}, not {wanted}", found.unwrap_or("(none)"));
            Err(Error::new(Kind::Other, what).hint("run brig in the cgroup namespace of the systemd that it talks to"))
        }
    }
}

impl Record {
    /// Whether systemd has to move a process into these cgroups: a user may do so only within a part of the tree that is
    /// this user's, and a session is in another one (cgroup-v2, "Delegation Containment").
    pub fn needs_systemd(&self) -> bool {
        let (Some(Unit { user: true, .. }), Some(group)) = (&self.unit, self.groups.first()) else { return false };
        let own = Layout::detect().ok().and_then(|layout| layout.unified().map(|h| format!("{}{}", h.mount, h.own)));
        let Some(own) = own else { return false };
        let common = own.split('/').zip(group.path.split('/')).take_while(|(a, b)| a == b).map(|(name, _)| name);
        let file = format!("{}/cgroup.procs", common.collect::<Vec<_>>().join("/"));
        nix::unistd::access(file.as_str(), nix::unistd::AccessFlags::W_OK).is_err()
    }

    /// Has systemd move a process into these cgroups, which are `whole`'s or some below them.
    ///
    /// # Errors
    /// What systemd refuses.
    pub fn attach(&self, whole: &Record, pid: i32) -> Result<()> {
        let (Some(unit), Some(own), Some(top)) = (&self.unit, self.groups.first(), whole.groups.first()) else {
            return Ok(());
        };
        unit.attach(own.path.strip_prefix(&top.path).unwrap_or_default(), pid)
    }
}

/// An update of a scope that runs.
#[derive(Debug, Clone)]
pub struct Change {
    unit: Unit,
    devices: Vec<Property>,
}

impl Change {
    /// Takes what can't be read off the writes: the device rules, if there are new ones.
    pub(super) fn new(unit: &Unit, resources: &Resources) -> Change {
        let mut devices = Vec::new();
        if !unit.user
            && !resources.devices.is_empty()
            && let Ok(rules) = devices::rules(&resources.devices, true)
        {
            // A list is appended to the one before, unless an empty one comes first. Without a list systemd denies nothing,
            // and brig's own rules decide.
            let pointer = "/linux/resources/devices";
            let none = Value::Array("(ss)".into(), Vec::new());
            let text = fs::read_to_string("/proc/devices").unwrap_or_default();
            devices.push(Property::new("DeviceAllow", none, pointer));
            let auto = || vec![Property::new("DevicePolicy", Value::str("auto"), pointer)];
            devices.extend(properties::from_devices(&rules, &text).unwrap_or_else(auto));
        }
        Change { unit: unit.clone(), devices }
    }

    /// Sets limits of a running container, as runtime properties: they hold until it ends. On the way back it is the limits
    /// alone.
    ///
    /// # Errors
    /// What systemd refuses.
    pub(super) fn apply(&self, groups: &[Group], writes: &[Write], way: Way) -> Result<()> {
        self.unit.set(if way == Way::There { &self.devices } else { &[] }, groups, writes)
    }
}

impl Unit {
    /// Stops the scope, and waits until systemd has let go of it; no error if it knows none.
    ///
    /// # Errors
    /// When systemd does not answer, or refuses.
    pub(super) fn stop(&self) -> Result<()> {
        // A systemd that reloads or starts anew in between loses connections and jobs, but no units.
        match self.stop_once() {
            Err(refusal) if refusal.is_lost() => self.stop_once(),
            other => other,
        }
        .map_err(|refusal| refusal.during(format!("stop {}", self.name)))
    }

    fn stop_once(&self) -> Result<(), Refusal> {
        // Where nobody listens there is nobody who believes in the scope.
        let Ok(mut bus) = Bus::open(self.user, bus::STOP) else { return Ok(()) };
        let name = Value::str(&self.name);
        match bus.call("StopUnit", &[name.clone(), Value::str("replace")]) {
            Ok(words) => {
                let job = words.into_iter().next().unwrap_or_default();
                bus.wait_for_job(&job, "the end of the scope").map_err(Refusal::Lost)?;
            }
            Err(refusal) if refusal.is(".NoSuchUnit") => return Ok(()),
            Err(refusal) => return Err(refusal),
        }
        // One that failed goes when it is forgotten; as a rule it is gone by now.
        let _ = bus.call("ResetFailedUnit", &[name]);
        Ok(())
    }

    fn set(&self, devices: &[Property], groups: &[Group], writes: &[Write]) -> Result<()> {
        let current = |w: &Write, file: &str| read(&format!("{}/{file}", groups[w.group].path)).ok();
        let mut list = properties::from_writes(groups, writes, &current);
        // After it has lowered a limit below what is in use, there would be no container to refuse it for.
        writes.iter().try_for_each(|w| write::check_above(&groups[w.group].path, w))?;
        // systemd takes this one at the start alone.
        list.retain(|p| p.name != "OOMPolicy");
        list.extend_from_slice(devices);
        if list.is_empty() {
            return Ok(());
        }
        let mut bus = Bus::open(self.user, bus::START)?;
        loop {
            let pairs = Value::Array("(sv)".into(), list.iter().map(Property::pair).collect());
            match bus.call("SetUnitProperties", &[Value::str(&self.name), Value::Bool(true), pairs]) {
                Ok(_) => return Ok(()),
                Err(refusal) => match unsupported(&refusal, &list) {
                    Some(at) => drop(list.remove(at)),
                    None => return Err(refusal.during(format!("set properties of {}", self.name))),
                },
            }
            if list.is_empty() {
                return Ok(());
            }
        }
    }

    /// Moves a process into the scope, or a cgroup below it, where this user may not do that itself: from a session of its
    /// own, which is another branch of the tree.
    ///
    /// # Errors
    /// What systemd refuses.
    pub(super) fn attach(&self, below: &str, pid: i32) -> Result<()> {
        let mut bus = Bus::open(self.user, bus::START)?;
        let pids = Value::Array("u".into(), vec![Value::U32(pid.unsigned_abs())]);
        let args = [Value::str(&self.name), Value::str(below), pids];
        let said = bus.call("AttachProcessesToUnit", &args);
        said.map(drop).map_err(|refusal| refusal.during(format!("move a process into {}", self.name)))
    }
}
