//! Making a container's cgroups, all of them or none.

use super::write::{self, read};
use super::{CgroupPlan, DeviceProgram, Group, Record, Version, members};
use crate::error::{Context, Error, Kind, Result};
use nix::errno::Errno;
use nix::sys::stat::Mode;
use nix::unistd::mkdir;
use std::path::Path;

/// How often a parent may vanish between its making and its use: another container that leaves removes what it made.
const RACES: usize = 16;

/// The control files that belong to the one to whom a v2 cgroup is delegated, see the kernel's cgroup-v2.rst. The kernel
/// lists those that it has in /sys/kernel/cgroup/delegate (Linux 4.15); these have always been among them.
const DELEGATED: &str = "cgroup.procs\ncgroup.subtree_control\ncgroup.threads";

/// The controllers that limit single threads, which a threaded cgroup can have; all others need a whole domain.
const THREADED: [&str; 4] = ["cpu", "cpuset", "perf_event", "pids"];

impl CgroupPlan {
    /// What is going to be made, for the state directory, before anything is: a runtime that is killed half-way leaves
    /// nothing that [`Record::remove`] does not find.
    pub fn record(&self) -> Record {
        let missing = |g: &Group| ancestors(g).into_iter().filter(|p| !Path::new(p).exists()).collect::<Vec<_>>();
        // With systemd the parents are slices, its own to remove.
        let own = self.groups.iter().filter(|_| self.scope.is_none());
        let parents = own.flat_map(missing).collect();
        let unit = self.scope.as_ref().map(|scope| scope.unit.clone());
        Record { groups: self.groups.clone(), parents, moves: self.moves, unit }
    }

    /// Looks whether every cgroup is free to be taken: not there yet, or without processes.
    ///
    /// # Errors
    /// The processes that are in the way.
    pub fn check_free(&self) -> Result<()> {
        self.groups.iter().filter(|g| Path::new(&g.path).exists()).try_for_each(check_unused)
    }

    /// Makes the cgroups and writes the limits. Returns what there is now: a rootless caller may have fewer cgroups than
    /// [`CgroupPlan::record`] said, so save this one and join by its files.
    ///
    /// # Errors
    /// The first step that failed, in words; everything that was made is removed again.
    pub fn create(&self) -> Result<Record> {
        if self.scope.is_some() {
            // systemd makes them around the container's process, see `enter`.
            return Ok(self.record());
        }
        let mut made = Vec::new();
        let result = self.make(&mut made);
        if result.is_err() {
            // Nothing has run in there yet.
            for path in made.iter().rev() {
                let _ = std::fs::remove_dir(path);
            }
        }
        result
    }

    fn make(&self, made: &mut Vec<String>) -> Result<Record> {
        let mut record = Record { moves: self.moves, ..Record::default() };
        let mut left_out = Vec::new();
        for (i, group) in self.groups.iter().enumerate() {
            let before = made.len();
            match self.make_group(group, made) {
                Ok(()) => {
                    record.parents.extend(made[before..].iter().filter(|p| **p != group.path).cloned());
                    record.groups.push(group.clone());
                }
                Err(error) if self.may_leave_out(i, &error) => left_out.push(i),
                Err(error) => return Err(self.for_a_limit(i, error)),
            }
        }
        debug_assert!(
            self.writes.iter().all(|w| !left_out.contains(&w.group)),
            "only groups without writes are left out"
        );
        let fresh = |program: &DeviceProgram| made.contains(&self.groups[program.group].path);
        self.write_limits(&record.groups, self.device_program.as_ref().is_some_and(fresh))?;
        Ok(record)
    }

    /// Writes the limits, and gives the cgroup to whom it is delegated. A `fresh` one has no device program of brig's yet.
    pub(super) fn write_limits(&self, made: &[Group], fresh: bool) -> Result<()> {
        write::write_all(&self.groups, &self.writes)?;
        self.install_program(fresh)?;
        match self.owner {
            Some(owner) => made.iter().filter(|g| g.version == Version::V2).try_for_each(|g| delegate(g, owner)),
            None => Ok(()),
        }
    }

    /// Prepares a cgroup that systemd made, or has no hand in: makes it where it is missing.
    pub(super) fn settle(&self, group: &Group, made: &mut Vec<String>) -> Result<()> {
        if !Path::new(&group.path).exists() {
            make_directory(group, made)?;
        }
        self.prepare(group)
    }

    /// A user without rights on a hierarchy does without it, unless a limit has to be set there.
    fn may_leave_out(&self, at: usize, error: &Error) -> bool {
        let denied = matches!(error.kind(), Kind::Os(Errno::EACCES | Errno::EPERM | Errno::EROFS));
        self.rootless && denied && self.writes.iter().all(|w| w.group != at)
    }

    /// Names what a user asks for who has no cgroup to set it in.
    fn for_a_limit(&self, at: usize, error: Error) -> Error {
        match self.writes.iter().find(|w| self.rootless && w.group == at) {
            Some(write) => error.context(format!("{} takes a cgroup", write.pointer)).hint(
                "leave the limits out, or run in a delegated cgroup: systemd-run --user --scope -p Delegate=yes brig …",
            ),
            None => error,
        }
    }

    fn make_group(&self, group: &Group, made: &mut Vec<String>) -> Result<()> {
        make_directory(group, made)?;
        self.prepare(group)
    }

    fn prepare(&self, group: &Group) -> Result<()> {
        match group.version {
            Version::V1 if group.has("cpuset") => self.fill_cpuset(group),
            Version::V1 => Ok(()),
            Version::V2 => self.enable_controllers(group),
        }
    }

    /// No process can join a v1 cpuset without CPUs or memory nodes, and a new one has none: it takes those of the nearest
    /// ancestor that has some, and so do the empty ones between.
    fn fill_cpuset(&self, group: &Group) -> Result<()> {
        for name in ["cpus", "mems"] {
            let configured = self.writes.iter().any(|w| w.file.strip_prefix("cpuset.") == Some(name));
            let mut empty = Vec::new();
            let mut above = ancestors(group);
            // The root always has all, and what the config sets needs no reading but of the parents.
            if !configured {
                empty.push(group.path.clone());
            } else if above.is_empty() {
                continue;
            }
            let value = loop {
                let path = above.pop().unwrap_or_else(|| group.mount.clone());
                let value = read_cpuset(&path, name)?;
                if !value.is_empty() || path == group.mount {
                    break value;
                }
                empty.push(path);
            };
            for path in empty.iter().rev() {
                write_cpuset(path, name, &value)?;
            }
        }
        Ok(())
    }

    /// Turns on every controller that the hierarchy has in all ancestors, as the peers do: `events` and podman's stats read
    /// memory and pids of containers that have no limits, too.
    fn enable_controllers(&self, group: &Group) -> Result<()> {
        if group.controllers.is_empty() {
            return Ok(());
        }
        let all: String = group.controllers.iter().map(|c| format!("+{c} ")).collect();
        let mut failed = false;
        for dir in std::iter::once(group.mount.clone()).chain(ancestors(group)) {
            let file = format!("{dir}/cgroup.subtree_control");
            let Err(errno) = write::put(&file, all.trim_end()) else { continue };
            failed = true;
            // Who may not write one may not write another. And where there are processes (EBUSY), the controllers that can be
            // had one by one would make this cgroup and all below it threaded, to the cost of those who live there.
            if !matches!(errno, Errno::EACCES | Errno::EPERM | Errno::EROFS | Errno::EBUSY) {
                // One that can't be had (cpu beside real-time tasks, cpuset in a threaded subtree) must not cost the others.
                for controller in &group.controllers {
                    let _ = write::put(&file, &format!("+{controller}"));
                }
            }
        }
        if !failed {
            return Ok(());
        }
        self.become_threaded(group)?;
        let available = read(&format!("{}/cgroup.controllers", group.path))?;
        for write in self.writes.iter().filter(|w| self.groups[w.group] == *group) {
            let controller = write.file.split('.').next().unwrap_or_default();
            if controller != "cgroup" && !available.split(' ').any(|c| c == controller) {
                return Err(not_enabled(group, controller, &write.pointer));
            }
        }
        Ok(())
    }

    /// Below a threaded cgroup a new one is neither a domain nor threaded, and takes no process. It becomes threaded, which is
    /// as good as long as no controller is needed that counts by domains.
    fn become_threaded(&self, group: &Group) -> Result<()> {
        let file = format!("{}/cgroup.type", group.path);
        if !read(&file).is_ok_and(|kind| kind == "domain invalid") {
            return Ok(());
        }
        let mut own = self.writes.iter().filter(|w| self.groups[w.group] == *group);
        let domain = own.find(|w| {
            let controller = w.file.split('.').next().unwrap_or_default();
            controller != "cgroup" && !THREADED.contains(&controller)
        });
        if let Some(write) = domain {
            let what =
                format!("{}: {} is below a threaded cgroup, which can't have this limit", write.pointer, group.path);
            return Err(Error::os(what, Errno::EOPNOTSUPP)
                .hint("give a linux.cgroupsPath elsewhere; threaded cgroups have cpu, cpuset and pids alone"));
        }
        write::put(&file, "threaded").during(|| format!("write threaded to {file}"))
    }
}

/// Where on the way down a controller is not passed on, and why.
fn not_enabled(group: &Group, controller: &str, pointer: &str) -> Error {
    let has = |file: String| read(&file).is_ok_and(|list| list.split(' ').any(|c| c == controller));
    let mut way = std::iter::once(group.mount.clone()).chain(ancestors(group));
    let dir = way.find(|dir| !has(format!("{dir}/cgroup.subtree_control"))).unwrap_or_else(|| group.mount.clone());
    let file = format!("{dir}/cgroup.subtree_control");
    let errno = write::put(&file, &format!("+{controller}")).err().unwrap_or(Errno::ENOENT);
    let what = format!("{pointer}: turn on the {controller} controller for {} in {file}", group.path);
    let hint = match errno {
        Errno::EBUSY => {
            "this cgroup has processes of its own, so it can't limit its children; give a linux.cgroupsPath \
                         elsewhere, or move its processes into a cgroup below it"
                .to_owned()
        }
        Errno::EOPNOTSUPP => "this cgroup is threaded; give a linux.cgroupsPath elsewhere".to_owned(),
        Errno::EROFS => "the cgroup filesystem is mounted read-only here; mount it read-write".to_owned(),
        Errno::EINVAL => format!("the kernel can't limit {controller} here; remove what asks for it"),
        _ => {
            let is_unit = |name: &&str| [".service", ".scope", ".slice"].iter().any(|end| name.ends_with(end));
            let unit = group.path.split('/').rfind(is_unit);
            let unit = unit.map_or(String::new(), |unit| format!(", by Delegate={controller} in systemd's {unit}"));
            format!("run brig as root, or have the controller delegated to this user{unit}")
        }
    };
    Error::os(what, errno).hint(hint)
}

/// The directories between the hierarchy's root and a group, from the top down.
fn ancestors(group: &Group) -> Vec<String> {
    let below = &group.path[group.mount.len() + 1..];
    below.match_indices('/').map(|(at, _)| group.path[..group.mount.len() + 1 + at].to_owned()).collect()
}

fn make_directory(group: &Group, made: &mut Vec<String>) -> Result<()> {
    for _ in 0..RACES {
        match mkdir(group.path.as_str(), Mode::from_bits_truncate(0o755)) {
            Ok(()) => {
                made.push(group.path.clone());
                return Ok(());
            }
            Err(Errno::EEXIST) => return check_unused(group),
            Err(Errno::ENOENT) => {
                for parent in ancestors(group) {
                    match mkdir(parent.as_str(), Mode::from_bits_truncate(0o755)) {
                        Ok(()) => made.push(parent),
                        Err(Errno::EEXIST | Errno::ENOENT) => {}
                        Err(errno) => return Err(refused(&parent, errno)),
                    }
                }
            }
            Err(errno) => return Err(refused(&group.path, errno)),
        }
    }
    Err(refused(&group.path, Errno::ENOENT))
}

fn refused(path: &str, errno: Errno) -> Error {
    let error = Error::os(format!("make cgroup {path}"), errno);
    match errno {
        Errno::EACCES | Errno::EPERM => {
            error.hint("run brig as root, or have a part of the cgroup tree delegated and name it in linux.cgroupsPath")
        }
        Errno::EROFS => error.hint("the cgroup filesystem is mounted read-only here; mount it read-write"),
        Errno::EAGAIN => error.hint("an ancestor's cgroup.max.descendants or cgroup.max.depth is reached"),
        Errno::ENOENT => error.hint("its parent vanishes as fast as it is made: something else removes cgroups there"),
        _ => error,
    }
}

/// A cgroup that is there already may be used if nobody is in it: a container among strangers would be limited, frozen and
/// killed together with them.
fn check_unused(group: &Group) -> Result<()> {
    let path = &group.path;
    let pids = members::pids(path)?;
    if !pids.is_empty() {
        let what = format!("cgroup {path} has processes in it already: {}", members::names(&pids));
        return Err(Error::new(Kind::Exists, what).hint("give the container a linux.cgroupsPath of its own"));
    }
    if group.frozen()? {
        let what = format!("cgroup {path} is frozen, so nothing could start in it");
        return Err(Error::new(Kind::Exists, what).hint("thaw or remove it, or give another linux.cgroupsPath"));
    }
    Ok(())
}

/// A cpuset file by its usual name, or by the short one of a hierarchy mounted with noprefix.
fn read_cpuset(dir: &str, name: &str) -> Result<String> {
    read(&format!("{dir}/cpuset.{name}")).or_else(|_| read(&format!("{dir}/{name}")))
}

fn write_cpuset(dir: &str, name: &str, value: &str) -> Result<()> {
    match write::put(&format!("{dir}/cpuset.{name}"), value) {
        Err(Errno::ENOENT) => write::put(&format!("{dir}/{name}"), value),
        other => other,
    }
    .during(|| format!("write the parent's {value} to {dir}/cpuset.{name}"))
}

fn delegate(group: &Group, owner: u32) -> Result<()> {
    let give = |path: &str| std::os::unix::fs::chown(path, Some(owner), None);
    let what = |path: &str| format!("give {path} to uid {owner}");
    give(&group.path).during(|| what(&group.path))?;
    let files = std::fs::read_to_string("/sys/kernel/cgroup/delegate").unwrap_or_else(|_| DELEGATED.to_owned());
    for path in files.lines().map(|file| format!("{}/{file}", group.path)) {
        match give(&path) {
            // That of a controller which is not turned on.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            other => other.during(|| what(&path))?,
        }
    }
    Ok(())
}
