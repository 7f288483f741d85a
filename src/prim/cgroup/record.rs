//! What a container's state keeps of its cgroups, and the questions and orders that come after the start.

use super::systemd::Unit;
use super::{Group, Version, join_files, members, v2_dir};
use crate::error::{Context, Error, Kind, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;

/// The cgroups of a container, as state.json has them. An empty one is a container without cgroups.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// One per hierarchy.
    pub groups: Vec<Group>,
    /// The parents that had to be made, each after its own parent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parents: Vec<String>,
    /// Whether processes move into the v2 cgroup after their clone, since none can be cloned into it: its limit is 0.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub moves: bool,
    /// The scope that has the cgroups, with the systemd driver.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<Unit>,
}

impl Record {
    /// Whether any of the cgroups is there.
    pub fn exists(&self) -> bool {
        self.groups.iter().any(|g| Path::new(&g.path).exists())
    }

    /// The group that answers for the container as a whole: the one that can be frozen, so that v1's has its processes even
    /// if some were moved between the cgroups of another controller.
    pub(super) fn main(&self) -> Option<&Group> {
        let v1 = |name: &str| self.groups.iter().find(|g| g.version == Version::V1 && g.has(name));
        let v2 = || self.groups.iter().find(|g| g.version == Version::V2);
        v1("freezer").or_else(|| v1("devices")).or_else(v2).or_else(|| self.groups.first())
    }

    /// Every process in the container's cgroup and those below it, in order; none when the cgroup is gone.
    ///
    /// # Errors
    /// When the cgroup can't be read.
    pub fn pids(&self) -> Result<Vec<i32>> {
        self.main().map_or(Ok(Vec::new()), |group| members::pids(&group.path))
    }

    /// The directory of the hierarchy that has a controller, by its v1 name.
    pub fn path_for(&self, controller: &str) -> Option<&str> {
        self.groups.iter().find(|g| g.has(controller)).map(|g| g.path.as_str())
    }

    /// `cgroup_paths` as runc's state prints it: by controller on v1, under `""` for v2.
    pub fn paths(&self) -> BTreeMap<&str, &str> {
        let v2 = self.groups.iter().filter(|g| g.version == Version::V2).map(|g| ("", g.path.as_str()));
        let v1 = self.groups.iter().filter(|g| g.version == Version::V1);
        v1.flat_map(|g| g.controllers.iter().map(|c| (c.as_str(), g.path.as_str()))).chain(v2).collect()
    }

    /// The files through which a child joins, see [`super::join`]; the v2 cgroup is entered by [`Record::v2_dir`], if that
    /// gives one.
    pub fn join_files(&self) -> Vec<CString> {
        join_files(&self.groups, !self.moves)
    }

    /// The v2 directory to clone a child into (`CLONE_INTO_CGROUP`, Linux 5.7); `None` when the container has no v2 cgroup,
    /// or when [`Record::join_files`] leads into it.
    ///
    /// # Errors
    /// When it can't be opened.
    pub fn v2_dir(&self) -> Result<Option<OwnedFd>> {
        if self.moves { Ok(None) } else { v2_dir(&self.groups) }
    }

    /// The cgroups in which another process of the container starts. A container that manages cgroups itself has moved its
    /// processes into sub-cgroups, and on v2 none can be added beside these: there it starts where `init` is.
    pub fn beside(&self, init: i32) -> Record {
        let mut record = self.clone();
        let Some(group) = record.groups.iter_mut().find(|g| g.version == Version::V2) else { return record };
        let limited = fs::read_to_string(format!("{}/cgroup.subtree_control", group.path));
        if limited.is_ok_and(|text| text.trim().is_empty()) {
            return record;
        }
        let text = fs::read_to_string(format!("/proc/{init}/cgroup")).unwrap_or_default();
        if let Some(path) = text.lines().find_map(|line| line.strip_prefix("0::")) {
            let path = format!("{}{path}", group.mount);
            if path.strip_prefix(&group.path).is_some_and(|rest| rest.starts_with('/') && !rest.contains("/..")) {
                group.path = path;
            }
        }
        record
    }

    /// The cgroups of `exec --cgroup`: each value is a path below the container's cgroup, or `controller[,controller]:path`
    /// for some of the v1 hierarchies only.
    ///
    /// # Errors
    /// A path that leaves the container's cgroup or does not exist, and a controller that the container does not have.
    pub fn sub(&self, values: &[impl AsRef<str>]) -> Result<Record> {
        let mut record = Record { parents: Vec::new(), ..self.clone() };
        for value in values.iter().map(AsRef::as_ref) {
            let (controllers, path) = match value.split_once(':') {
                Some((controllers, path)) => (Some(controllers.split(',').collect::<Vec<_>>()), path),
                None => (None, value),
            };
            if path.split('/').any(|name| name == "..") {
                return Err(Error::invalid(format!("--cgroup {value}: the path may not go up by \"..\"")));
            }
            let wanted = |g: &Group| controllers.as_ref().is_none_or(|names| names.iter().any(|n| g.has(n)));
            if let Some(unknown) = controllers.iter().flatten().find(|n| !self.groups.iter().any(|g| g.has(n))) {
                let what = format!("--cgroup {value}: the container has no cgroup with a {unknown} controller");
                return Err(Error::invalid(what));
            }
            let path = path.trim_matches('/');
            for group in record.groups.iter_mut().filter(|g| wanted(g)).filter(|_| !path.is_empty()) {
                group.path = format!("{}/{path}", group.path);
                if !Path::new(&group.path).is_dir() {
                    let what = format!("--cgroup {value}: {} does not exist", group.path);
                    return Err(Error::new(Kind::NotFound, what).hint("make the sub-cgroup first"));
                }
            }
        }
        Ok(record)
    }

    /// How many of the container's processes the kernel has killed for want of memory; `None` when nobody counts.
    pub fn oom_kills(&self) -> Option<u64> {
        self.groups.iter().find(|g| g.has("memory"))?.oom_kills()
    }

    /// Removes the container's cgroups with all below them, and the parents that were made for them if they are empty.
    /// Processes that are about to end are waited for. No error if there is nothing (left) to remove.
    ///
    /// # Errors
    /// When something is still running in there after ten seconds; the error says what.
    pub fn remove(&self) -> Result<()> {
        let mut failed = None;
        let stopped = self.unit.as_ref().map_or(Ok(()), Unit::stop);
        // All in one go first: this is how nearly every container ends.
        let busy: Vec<&Group> = self.groups.iter().filter(|g| fs::remove_dir(&g.path).is_err()).collect();
        let deadline = members::deadline();
        for group in busy {
            debug_assert_ne!(group.path, group.mount, "compile gives no container the root");
            if let Err(error) = members::remove_tree(&group.path, deadline) {
                failed.get_or_insert(error);
            }
        }
        for parent in self.parents.iter().rev() {
            // Another container may live there by now; whoever leaves last takes it along if it made it.
            let _ = fs::remove_dir(parent);
        }
        // A scope that systemd still believes in would come back with its next reload.
        stopped.and(failed.map_or(Ok(()), Err))
    }
}

impl Group {
    /// Whether the group is frozen, by itself or with an ancestor; not if it is gone.
    pub(super) fn frozen(&self) -> Result<bool> {
        let (file, thawed) = match self.version {
            Version::V1 if !self.has("freezer") => return Ok(false),
            Version::V1 => ("freezer.state", "THAWED"),
            Version::V2 => ("cgroup.events", ""),
        };
        let path = format!("{}/{file}", self.path);
        match fs::read_to_string(&path) {
            Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ENODEV)) => Ok(false),
            // FREEZING counts: it takes a thaw to get out of it.
            Ok(text) if self.version == Version::V1 => Ok(text.trim() != thawed),
            Ok(text) => Ok(text.lines().any(|line| line == "frozen 1")),
            Err(e) => Err(e).during(|| format!("read {path}")),
        }
    }
}
