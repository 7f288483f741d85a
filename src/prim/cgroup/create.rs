//! Making a container's cgroups, all of them or none.

use super::write::{self, read};
use super::{CgroupPlan, Group, Record, Version, members};
use crate::error::{Context, Error, Kind, Result};
use nix::errno::Errno;
use nix::sys::stat::Mode;
use nix::unistd::mkdir;
use std::path::Path;

/// How often a parent may vanish between its making and its use: another container that leaves removes what it made.
const RACES: usize = 16;

/// The control files that belong to the one to whom a v2 cgroup is delegated, see the kernel's cgroup-v2.rst.
const DELEGATED: [&str; 3] = ["cgroup.procs", "cgroup.subtree_control", "cgroup.threads"];

impl CgroupPlan {
    /// What is going to be made, for the state directory, before anything is: a runtime that is killed half-way leaves
    /// nothing that [`Record::remove`] does not find.
    pub fn record(&self) -> Record {
        let missing = |g: &Group| ancestors(g).into_iter().filter(|p| !Path::new(p).exists()).collect::<Vec<_>>();
        let parents = self.groups.iter().flat_map(missing).collect();
        Record { groups: self.groups.clone(), parents, moves: self.moves }
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
        write::write_all(&self.groups, &self.writes)?;
        if let Some(owner) = self.owner {
            record.groups.iter().filter(|g| g.version == Version::V2).try_for_each(|g| delegate(g, owner))?;
        }
        Ok(record)
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
        let mut first_failure = None;
        for dir in std::iter::once(group.mount.clone()).chain(ancestors(group)) {
            let file = format!("{dir}/cgroup.subtree_control");
            if let Err(errno) = write::put(&file, all.trim_end()) {
                // One that can't be had (cpu beside real-time tasks, cpuset in a threaded subtree) must not cost the others.
                for controller in &group.controllers {
                    let _ = write::put(&file, &format!("+{controller}"));
                }
                first_failure.get_or_insert((file, errno));
            }
        }
        let Some((file, errno)) = first_failure else { return Ok(()) };
        let needed = self.writes.iter().filter(|w| self.groups[w.group] == *group);
        let available = read(&format!("{}/cgroup.controllers", group.path))?;
        for write in needed {
            let controller = write.file.split('.').next().unwrap_or_default();
            if controller != "cgroup" && !available.split(' ').any(|c| c == controller) {
                let what = format!("{}: turn on the {controller} controller in {file}", write.pointer);
                return Err(Error::os(what, errno).hint(subtree_hint(errno)));
            }
        }
        Ok(())
    }
}

fn subtree_hint(errno: Errno) -> &'static str {
    match errno {
        Errno::EBUSY => {
            "this cgroup has processes of its own, so it can't limit its children; give a linux.cgroupsPath \
                         elsewhere, or move its processes into a cgroup below it"
        }
        Errno::EOPNOTSUPP => "this cgroup is threaded; give a linux.cgroupsPath elsewhere",
        Errno::ENOENT => "the parent cgroup does not have the controller; it has to be turned on from the top down",
        _ => "this user may not: run brig as root, or have the controller delegated to this user's cgroup",
    }
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
    let give =
        |path: &str| std::os::unix::fs::chown(path, Some(owner), None).during(|| format!("give {path} to uid {owner}"));
    give(&group.path)?;
    DELEGATED.iter().try_for_each(|file| give(&format!("{}/{file}", group.path)))
}
