//! What cgroup hierarchies the host has, and where this process is in each of them.

use crate::error::{Context, Result};
use nix::sys::statfs::{CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC, statfs};
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::Path;

/// Where every distribution mounts cgroups.
const ROOT: &str = "/sys/fs/cgroup";

/// The two generations of cgroups(7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Version {
    /// One hierarchy per controller (or a few together).
    V1,
    /// The unified hierarchy.
    V2,
}

/// One mounted hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchy {
    /// Its generation.
    pub version: Version,
    /// The controllers that it has, by the kernel's names (`blkio` on v1, `io` on v2); `name=systemd` for that named one.
    pub controllers: Vec<String>,
    /// Where it is mounted.
    pub mount: String,
    /// This process's own cgroup in it, below the mount point, with a leading slash.
    pub own: String,
}

/// The hierarchies of the host, the v2 one last. A plain value: tests write it by hand.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Layout {
    /// All that a container may get a cgroup in.
    pub hierarchies: Vec<Hierarchy>,
}

impl Layout {
    /// Looks at the host: /proc/self/cgroup says what there is, and statfs(2) that it is mounted where everybody mounts it;
    /// /proc/self/mountinfo is read only when it is not.
    ///
    /// # Errors
    /// When /proc/self/cgroup can't be read.
    pub fn detect() -> Result<Layout> {
        let own = match fs::read_to_string("/proc/self/cgroup") {
            // A kernel without cgroups.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Layout::default()),
            other => other.during(|| "read /proc/self/cgroup".into())?,
        };
        Ok(assemble(&own, &mut Host { mounts: None }))
    }

    /// The v2 hierarchy, if there is one.
    pub fn unified(&self) -> Option<&Hierarchy> {
        self.hierarchies.iter().find(|h| h.version == Version::V2)
    }

    /// Whether v2 is all there is.
    pub fn is_pure_v2(&self) -> bool {
        self.unified().is_some() && self.hierarchies.iter().all(|h| h.version == Version::V2)
    }
}

/// A cgroup mount as mountinfo has it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Mount {
    version: Version,
    /// The cgroup that is visible at the mount point.
    root: String,
    point: String,
    options: String,
}

/// What has to be asked of the host; tests answer from memory.
trait Facts {
    fn version_at(&mut self, path: &str) -> Option<Version>;
    fn exists(&mut self, path: &str) -> bool;
    fn mounts(&mut self) -> &[Mount];
    fn read(&mut self, path: &str) -> String;
}

struct Host {
    mounts: Option<Vec<Mount>>,
}

impl Facts for Host {
    fn version_at(&mut self, path: &str) -> Option<Version> {
        match statfs(path).ok()?.filesystem_type() {
            CGROUP_SUPER_MAGIC => Some(Version::V1),
            CGROUP2_SUPER_MAGIC => Some(Version::V2),
            _ => None,
        }
    }

    fn exists(&mut self, path: &str) -> bool {
        Path::new(path).exists()
    }

    fn mounts(&mut self) -> &[Mount] {
        self.mounts
            .get_or_insert_with(|| parse_mountinfo(&fs::read_to_string("/proc/self/mountinfo").unwrap_or_default()))
    }

    fn read(&mut self, path: &str) -> String {
        fs::read_to_string(path).unwrap_or_default()
    }
}

fn assemble(own: &str, facts: &mut impl Facts) -> Layout {
    let mut v1 = Vec::new();
    let mut v2 = None;
    for line in own.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(own)) = (fields.next(), fields.next()) else { continue };
        if controllers.is_empty() {
            v2 = unified(own, facts);
        } else if !controllers.starts_with("name=") || controllers == "name=systemd" {
            v1.extend(legacy(controllers, own, facts));
        }
    }
    // A fixed order, so that a plan reads the same on every start of the machine.
    v1.sort_by(|a: &Hierarchy, b: &Hierarchy| a.controllers.cmp(&b.controllers));
    v1.extend(v2);
    Layout { hierarchies: v1 }
}

fn legacy(controllers: &str, own: &str, facts: &mut impl Facts) -> Option<Hierarchy> {
    let directory = controllers.strip_prefix("name=").unwrap_or(controllers);
    let conventional = format!("{ROOT}/{directory}");
    let first = controllers.split(',').next()?;
    let mount = if facts.version_at(&conventional) == Some(Version::V1) {
        conventional
    } else {
        // Mounted as `cpu,cpuacct` where the kernel says `cpuacct,cpu`, or somewhere else, or not at all.
        let found =
            facts.mounts().iter().find(|m| m.version == Version::V1 && m.options.split(',').any(|o| o == first))?;
        found.point.clone()
    };
    let own = visible(own, &mount, facts);
    Some(Hierarchy { version: Version::V1, controllers: controllers.split(',').map(Into::into).collect(), mount, own })
}

fn unified(own: &str, facts: &mut impl Facts) -> Option<Hierarchy> {
    let mount = match [ROOT.to_owned(), format!("{ROOT}/unified")]
        .into_iter()
        .find(|path| facts.version_at(path) == Some(Version::V2))
    {
        Some(path) => path,
        None => facts.mounts().iter().find(|m| m.version == Version::V2)?.point.clone(),
    };
    let controllers = facts.read(&format!("{mount}/cgroup.controllers"));
    let own = visible(own, &mount, facts);
    Some(Hierarchy {
        version: Version::V2,
        controllers: controllers.split_whitespace().map(Into::into).collect(),
        mount,
        own,
    })
}

/// This process's cgroup as a path below the mount point. In a container without a cgroup namespace the mount shows only
/// part of the tree, while /proc/self/cgroup names the whole path.
fn visible(own: &str, mount: &str, facts: &mut impl Facts) -> String {
    if own == "/" || (!own.contains("/..") && facts.exists(&format!("{mount}{own}"))) {
        return own.to_owned();
    }
    let root = facts.mounts().iter().rev().find(|m| m.point == mount).map_or("/", |m| m.root.as_str());
    match own.strip_prefix(root) {
        Some(rest) if rest.starts_with('/') && !rest.contains("/..") => rest.to_owned(),
        _ => "/".to_owned(),
    }
}

/// Finds the cgroup mounts, see proc_pid_mountinfo(5).
fn parse_mountinfo(text: &str) -> Vec<Mount> {
    let parse = |line: &str| {
        let (left, right) = line.split_once(" - ")?;
        let mut left = left.split(' ').skip(3);
        let (root, point) = (left.next()?, left.next()?);
        let mut right = right.split(' ');
        let version = match right.next()? {
            "cgroup" => Version::V1,
            "cgroup2" => Version::V2,
            _ => return None,
        };
        Some(Mount { version, root: unescape(root), point: unescape(point), options: right.nth(1)?.to_owned() })
    };
    text.lines().filter_map(parse).collect()
}

/// Undoes the octal escapes of mountinfo (blank, tab, newline, backslash).
fn unescape(field: &str) -> String {
    let escapes = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    escapes.iter().fold(field.to_owned(), |text, (from, to)| text.replace(from, to))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[derive(Default)]
    struct Fake {
        at: BTreeMap<String, Version>,
        dirs: Vec<String>,
        mountinfo: &'static str,
        parsed: Vec<Mount>,
        mounts_read: usize,
        controllers: &'static str,
    }

    impl Facts for Fake {
        fn version_at(&mut self, path: &str) -> Option<Version> {
            self.at.get(path).copied()
        }
        fn exists(&mut self, path: &str) -> bool {
            self.dirs.iter().any(|d| d == path)
        }
        fn mounts(&mut self) -> &[Mount] {
            self.mounts_read += 1;
            self.parsed = parse_mountinfo(self.mountinfo);
            &self.parsed
        }
        fn read(&mut self, _: &str) -> String {
            self.controllers.to_owned()
        }
    }

    fn at(paths: &[(&str, Version)]) -> BTreeMap<String, Version> {
        paths.iter().map(|(p, v)| ((*p).to_owned(), *v)).collect()
    }

    fn lines(layout: &Layout) -> Vec<String> {
        let one = |h: &Hierarchy| format!("{:?} {} {} {}", h.version, h.controllers.join(","), h.mount, h.own);
        layout.hierarchies.iter().map(one).collect()
    }

    #[test]
    fn hybrid_needs_no_mountinfo() {
        let mut fake = Fake {
            at: at(&[
                ("/sys/fs/cgroup/memory", Version::V1),
                ("/sys/fs/cgroup/cpu,cpuacct", Version::V1),
                ("/sys/fs/cgroup/systemd", Version::V1),
                ("/sys/fs/cgroup/unified", Version::V2),
            ]),
            dirs: vec!["/sys/fs/cgroup/memory/a/b".into()],
            controllers: "hugetlb\n",
            ..Fake::default()
        };
        let layout = assemble("9:name=systemd:/\n7:name=other:/\n4:memory:/a/b\n3:cpu,cpuacct:/\n0::/\n", &mut fake);
        assert_eq!(
            lines(&layout),
            [
                "V1 cpu,cpuacct /sys/fs/cgroup/cpu,cpuacct /",
                "V1 memory /sys/fs/cgroup/memory /a/b",
                "V1 name=systemd /sys/fs/cgroup/systemd /",
                "V2 hugetlb /sys/fs/cgroup/unified /",
            ]
        );
        assert_eq!(fake.mounts_read, 0);
        assert!(!layout.is_pure_v2());
    }

    #[test]
    fn pure_v2() {
        let mut fake = Fake {
            at: at(&[("/sys/fs/cgroup", Version::V2)]),
            dirs: vec!["/sys/fs/cgroup/user.slice/x".into()],
            controllers: "cpuset cpu io memory pids\n",
            ..Fake::default()
        };
        let layout = assemble("0::/user.slice/x\n", &mut fake);
        assert_eq!(lines(&layout), ["V2 cpuset,cpu,io,memory,pids /sys/fs/cgroup /user.slice/x"]);
        assert!(layout.is_pure_v2());
    }

    #[test]
    fn unusual_mounts_come_from_mountinfo() {
        let mut fake = Fake {
            mountinfo: "32 31 0:29 /docker/abc /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct\n\
                        33 31 0:30 / /my\\040groups/mem ro - cgroup cgroup rw,memory\n\
                        34 31 0:31 / /mnt/two rw shared:1 - cgroup2 none rw,nsdelegate\n\
                        35 31 0:32 / /tmp rw - tmpfs tmpfs rw\n",
            ..Fake::default()
        };
        let layout = assemble("4:memory:/\n3:cpuacct,cpu:/docker/abc/in\n2:freezer:/\n0::/\n", &mut fake);
        assert_eq!(
            lines(&layout),
            ["V1 cpuacct,cpu /sys/fs/cgroup/cpu,cpuacct /in", "V1 memory /my groups/mem /", "V2  /mnt/two /",],
            "freezer is not mounted, so it is left out"
        );
    }

    #[test]
    fn a_cgroup_outside_of_the_view_reads_as_its_root() {
        let mut fake = Fake { at: at(&[("/sys/fs/cgroup", Version::V2)]), ..Fake::default() };
        assert_eq!(lines(&assemble("0::/../../other\n", &mut fake)), ["V2  /sys/fs/cgroup /"]);
        assert_eq!(lines(&assemble("0::/hidden\n", &mut fake)), ["V2  /sys/fs/cgroup /"]);
        assert_eq!(lines(&assemble("garbage\n", &mut fake)), [""; 0]);
    }

    #[test]
    fn this_machine() {
        let layout = Layout::detect().unwrap();
        if layout.hierarchies.is_empty() {
            println!("skipped: no cgroup hierarchy is mounted here");
            return;
        }
        for h in &layout.hierarchies {
            assert!(Path::new(&format!("{}{}/cgroup.procs", h.mount, h.own)).exists(), "{h:?}");
        }
    }
}
