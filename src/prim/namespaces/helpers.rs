//! newuidmap(1) and newgidmap(1): the privileged programs by which a plain user maps the ranges that /etc/subuid and
//! /etc/subgid give to it.

use crate::error::{Context, Error, Kind, Result};
use crate::sys::{files, process};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// One of the two helpers, and what it is for.
#[derive(Debug)]
pub(super) struct Helper {
    /// Its name.
    name: &'static str,
    /// The field of `linux` that it writes.
    field: &'static str,
    /// Where the ranges are given.
    ranges: &'static str,
    /// The option of usermod(8) that gives one.
    option: &'static str,
    path: PathBuf,
}

/// Finds both, before either has written anything.
///
/// # Errors
/// The one that is not installed.
pub(super) fn find() -> Result<[Helper; 2]> {
    let one = |name, field, ranges, option| {
        let path = look_up(name, std::env::var_os("PATH").as_deref()).ok_or_else(|| {
            Error::new(
                Kind::Other,
                format!("/linux/{field}: mapping more than the own ID takes {name}, which is not installed"),
            )
            .hint("install newuidmap and newgidmap: the package uidmap of Debian and Ubuntu, shadow-utils of Fedora")
        })?;
        Ok(Helper { name, field, ranges, option, path })
    };
    Ok([
        one("newuidmap", "uidMappings", "/etc/subuid", "--add-subuids")?,
        one("newgidmap", "gidMappings", "/etc/subgid", "--add-subgids")?,
    ])
}

/// One of the two by its name: where it is, and whether it has the privilege that it needs. Nothing is run.
pub fn mapping_helper(name: &str) -> Option<(PathBuf, bool)> {
    let path = look_up(name, std::env::var_os("PATH").as_deref())?;
    let privileged = is_privileged(&path);
    Some((path, privileged))
}

/// The usual places first, then the caller's own PATH, of which only absolute directories count; never a container's
/// (CVE-2026-84042).
fn look_up(name: &str, path: Option<&std::ffi::OsStr>) -> Option<PathBuf> {
    let usual = ["/usr/bin", "/bin", "/usr/local/bin"].map(PathBuf::from);
    let own = path.map(std::env::split_paths).into_iter().flatten().filter(|dir| dir.is_absolute());
    usual.into_iter().chain(own).map(|dir| dir.join(name)).find(|path| path.is_file())
}

impl Helper {
    /// Maps the user namespace of a process; `map` is in the form of /proc/PID/uid_map, `own` the caller's ID.
    ///
    /// # Errors
    /// What the helper says, with the line that /etc/subuid or /etc/subgid misses.
    pub(super) fn run(&self, pid: i32, map: &str, own: u32) -> Result<()> {
        let Helper { name, field, ranges, path, .. } = self;
        let mut command = Command::new(path);
        command.arg(pid.to_string()).args(map.split_whitespace()).env_clear();
        let output = process::output(&mut command).during(|| format!("/linux/{field}: run {}", path.display()))?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let said = match said.trim() {
            "" => format!("{name}: {}", output.status),
            text => text.replace('\n', "; "),
        };
        let error = Error::new(Kind::Other, format!("/linux/{field}: {said}"));
        Err(error.hint(if process::prctl(libc::PR_GET_NO_NEW_PRIVS, 0, 0) == Ok(1) {
            format!("this process has no_new_privs, under which {} has no privileges", path.display())
        } else if !is_privileged(path) {
            format!("{} has neither the setuid bit nor file capabilities: chmod u+s {0} (as root)", path.display())
        } else {
            format!("{ranges} must give this user the ranges that the config maps: {}", self.remedy(map, own))
        }))
    }

    /// The command that gives a user what a map takes.
    fn remedy(&self, map: &str, own: u32) -> String {
        let numbers: Vec<u64> = map.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        let foreign = numbers.chunks_exact(3).filter(|range| (range[1], range[2]) != (own.into(), 1));
        let options: Vec<String> = foreign
            .map(|range| format!("{} {}-{}", self.option, range[1], (range[1] + range[2]).saturating_sub(1)))
            .collect();
        format!("usermod {} \"$(id -un {})\" (as root)", options.join(" "), nix::unistd::getuid())
    }
}

/// Whether a program runs with more rights than its caller has.
fn is_privileged(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|found| found.mode() & libc::S_ISUID != 0)
        || std::ffi::CString::new(path.as_os_str().as_encoded_bytes())
            .is_ok_and(|path| files::has_attribute(&path, c"security.capability"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_remedy_names_what_is_not_the_callers_own() {
        let helper = Helper {
            name: "newuidmap",
            field: "uidMappings",
            ranges: "/etc/subuid",
            option: "--add-subuids",
            path: PathBuf::new(),
        };
        let remedy = helper.remedy("0 1000 1\n1 200000 65536\n70000 500 1\n", 1000);
        assert!(remedy.starts_with("usermod --add-subuids 200000-265535 --add-subuids 500-500 "), "{remedy}");
    }

    #[test]
    fn only_absolute_directories_are_searched() {
        let dir = std::env::temp_dir().join(format!("brig-helpers-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("newmap-of-a-test"), "").unwrap();
        let search = |path: &str| look_up("newmap-of-a-test", Some(path.as_ref()));
        let found = search(&format!("::relative:{}", dir.display()));
        assert_eq!(search("tmp:."), None);
        std::fs::remove_dir_all(&dir).unwrap();
        assert_eq!(found, Some(dir.join("newmap-of-a-test")));
    }

    #[test]
    fn a_program_without_privileges_is_known() {
        assert!(!is_privileged(Path::new("/proc/self/exe")));
    }
}
