//! The host, as the tests look at it: mounts, cgroups, processes.

use super::{Value, os};
use crate::payload::mountinfo;
use std::fs;
use std::path::{Path, PathBuf};

/// Every hierarchy's mount: (its mount as of mountinfo, whether it is v2).
fn hierarchies() -> Vec<(Value, bool)> {
    mountinfo::own()
        .into_iter()
        .filter(|m| m["type"] == "cgroup" || m["type"] == "cgroup2")
        .map(|m| (m.clone(), m["type"] == "cgroup2"))
        .collect()
}

fn target(mount: &Value) -> PathBuf {
    mount["target"].as_str().unwrap_or_default().into()
}

/// Whether this controller has a v1 hierarchy.
pub fn has_v1(controller: &str) -> bool {
    hierarchies()
        .iter()
        .any(|(m, v2)| !v2 && m["super"].as_array().is_some_and(|o| o.iter().any(|o| *o == *controller)))
}

/// The directory of a process's cgroup: of a v1 controller (or `name=systemd`), or of v2 where the name is empty.
pub fn cgroup_dir(pid: i32, controller: &str) -> Option<PathBuf> {
    let table = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let path = table.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (names, path) = (parts.next()?, parts.next()?);
        names.split(',').any(|n| n == controller).then(|| path.to_string())
    })?;
    let hierarchies = hierarchies();
    let (mount, _) = hierarchies.iter().find(|(m, v2)| {
        if controller.is_empty() {
            *v2
        } else {
            !v2 && m["super"].as_array().is_some_and(|o| o.iter().any(|o| *o == *controller))
        }
    })?;
    let inside = Path::new(&path).strip_prefix(mount["root"].as_str()?).ok()?.to_path_buf();
    Some(target(mount).join(inside))
}

/// A file of a process's cgroup, without the newline at its end.
#[track_caller]
pub fn cgroup_file(pid: i32, controller: &str, file: &str) -> String {
    let dir = cgroup_dir(pid, controller).unwrap_or_else(|| panic!("no {controller} cgroup of {pid}"));
    fs::read_to_string(dir.join(file))
        .unwrap_or_else(|e| panic!("{}: {e}", dir.join(file).display()))
        .trim_end()
        .to_string()
}

/// Cgroups, of any hierarchy, with this in their name; children before parents.
pub fn cgroups_named(part: &str) -> Vec<PathBuf> {
    fn walk(dir: &Path, part: &str, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|t| t.is_dir()) {
                walk(&entry.path(), part, found);
                if entry.path().to_string_lossy().contains(part) {
                    found.push(entry.path());
                }
            }
        }
    }
    let mut found = Vec::new();
    for (mount, _) in hierarchies() {
        walk(&target(&mount), part, &mut found);
    }
    found
}

/// Processes with this in their environment, and what they are called. Only those that have not ended have one.
pub fn processes_marked(mark: &str) -> Vec<(i32, String)> {
    let pids = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|e| e.file_name().to_str()?.parse::<i32>().ok());
    pids.filter_map(|pid| {
        let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
        environment.split(|b| *b == 0).any(|e| e == mark.as_bytes()).then(|| (pid, command(pid)))
    })
    .collect()
}

fn command(pid: i32) -> String {
    fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default().replace('\0', " ").trim().to_string()
}

/// Mounts at or below a directory.
pub fn mounts_under(dir: &Path) -> Vec<String> {
    mountinfo::own().iter().map(target).filter(|t| t.starts_with(dir)).map(|t| t.display().to_string()).collect()
}

/// Removes by force what a failed test left.
pub fn clear(id: &str, dir: &Path) {
    for (pid, _) in processes_marked(&format!("BRIG_TEST={id}")) {
        end(pid);
    }
    for cgroup in cgroups_named(id) {
        for pid in
            fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default().lines().filter_map(|l| l.parse().ok())
        {
            end(pid);
        }
        let _ = fs::write(cgroup.join("freezer.state"), "THAWED");
        let _ = fs::remove_dir(cgroup);
    }
    for mount in mounts_under(dir).iter().rev() {
        let _ = nix::mount::umount2(mount.as_str(), nix::mount::MntFlags::MNT_DETACH);
    }
}

fn end(pid: i32) {
    if let Ok(fd) = os::pidfd(pid) {
        os::kill(pid, libc::SIGKILL);
        os::readable(&fd, os::PATIENCE);
    }
}

/// Takes the v2 tree of a hybrid host out of sight, in this process's own mount namespace. True if there was one.
pub fn hide_unified() -> bool {
    let hybrid = hierarchies().iter().any(|(_, v2)| !v2);
    let unified = hierarchies().into_iter().find(|(_, v2)| *v2);
    match unified {
        Some((mount, _)) if hybrid && os::is_root() => {
            nix::mount::umount2(&target(&mount), nix::mount::MntFlags::MNT_DETACH).is_ok()
        }
        _ => false,
    }
}
