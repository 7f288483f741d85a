//! Where an engine runs: as which user, and who manages its cgroups.

use crate::support::{Call, Test, os, suite};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use std::fs;
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};

/// Who makes an engine's cgroups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manager {
    Cgroupfs,
    Systemd,
}

impl Manager {
    /// Its name in flags and configurations.
    pub fn name(self) -> &'static str {
        match self {
            Manager::Cgroupfs => "cgroupfs",
            Manager::Systemd => "systemd",
        }
    }
}

/// An ordinary user with a systemd and with ID ranges of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
}

impl User {
    /// The directory in which its systemd and its bus have their sockets.
    pub fn runtime_dir(&self) -> PathBuf {
        format!("/run/user/{}", self.uid).into()
    }

    /// The address of its bus.
    pub fn bus(&self) -> String {
        format!("unix:path={}/bus", self.runtime_dir().display())
    }
}

/// Waits until a cgroup is gone: systemd removes one after it has said that its unit is stopped.
#[track_caller]
pub fn cgroup_goes(dir: &Path) {
    let watch = Inotify::init(InitFlags::IN_CLOEXEC).unwrap();
    // What is above it may go with it.
    if watch.add_watch(dir.parent().unwrap(), AddWatchFlags::IN_DELETE).is_err() {
        return;
    }
    while dir.exists() {
        assert!(os::readable(&watch.as_fd().as_raw_fd(), os::PATIENCE), "{} is left", dir.display());
        let _ = watch.read_events().unwrap();
    }
}

/// Skips the test unless the host has cgroup v2 alone.
pub fn needs_v2() {
    if !is_v2() {
        suite::skip("this host has cgroup v1");
    }
}

/// Skips the test unless the host has v1 hierarchies.
pub fn needs_v1() {
    if is_v2() {
        suite::skip("this host has cgroup v2 alone");
    }
}

/// Whether the host has cgroup v2 alone.
pub fn is_v2() -> bool {
    Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

/// Skips the test unless systemd is the host's init.
pub fn needs_systemd() {
    if !Path::new("/run/systemd/system").exists() {
        suite::skip("systemd does not run here");
    }
}

/// Skips the test unless the host's cgroup v2 is systemd's to manage.
pub fn needs_systemd_v2() {
    needs_v2();
    needs_systemd();
}

/// The first ordinary user with a running systemd and ranges in /etc/subuid; the test is skipped if there is none.
pub fn user() -> User {
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let ranges = fs::read_to_string("/etc/subuid").unwrap_or_default();
    let users = passwd.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let (name, _, uid, gid) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
        Some(User { name: name.into(), uid: uid.parse().ok()?, gid: gid.parse().ok()? })
    });
    users
        .filter(|user| user.uid != 0 && user.runtime_dir().join("bus").exists())
        .find(|user| ranges.lines().any(|line| line.starts_with(&format!("{}:", user.name))))
        .unwrap_or_else(|| {
            suite::skip("no user has a running systemd (loginctl enable-linger) and a range in /etc/subuid")
        })
}

/// The words before a command's own that have it run by this user. It keeps the suite's mounts and environment.
pub fn demotion(user: &User) -> Vec<String> {
    let (uid, gid) = (user.uid.to_string(), user.gid.to_string());
    ["setpriv", "--reuid", &uid, "--regid", &gid, "--init-groups"].map(ToString::to_string).into()
}

/// A call of `systemctl` on the system's manager, or on a user's.
pub fn systemctl<'t>(test: &'t Test, user: Option<&User>, args: &[&str]) -> Call<'t> {
    let Some(user) = user else { return Call::of(test, &[&["systemctl"], args].concat()).patient() };
    let demoted = demotion(user);
    let demoted: Vec<&str> = demoted.iter().map(String::as_str).collect();
    Call::of(test, &[demoted.as_slice(), &["systemctl", "--user"], args].concat())
        .patient()
        .env("XDG_RUNTIME_DIR", &user.runtime_dir().display().to_string())
        .env("DBUS_SESSION_BUS_ADDRESS", &user.bus())
}

/// A slice of a test's own. A dash in a slice's name makes it a child of another, so there is none.
pub fn slice(test: &Test) -> String {
    format!("{}.slice", test.id().replace('-', "_"))
}

/// The scopes that are loaded in a slice: when a container is gone, so has to be its scope, even one that failed.
pub fn scopes_in(test: &Test, user: Option<&User>, slice: &str) -> Vec<String> {
    // A pod's slice has the name of the one that it is in, and more.
    let stem = slice.trim_end_matches(".slice");
    let shown = systemctl(test, user, &["show", "--all", "--property=Id,Slice", "*.scope"]).out().stdout;
    shown
        .split("\n\n")
        .filter(|unit| unit.lines().any(|line| line.strip_prefix("Slice=").is_some_and(|of| of.contains(stem))))
        .filter_map(|unit| unit.lines().find_map(|line| line.strip_prefix("Id=")).map(ToString::to_string))
        .collect()
}

/// Ends a slice and all that is in it.
pub fn stop_slice(test: &Test, user: Option<&User>, slice: &str) {
    systemctl(test, user, &["stop", slice]).out();
    systemctl(test, user, &["reset-failed", slice]).out();
}

/// The cgroup of a process in the v2 hierarchy, from its root.
#[track_caller]
pub fn cgroup_of(pid: i32) -> String {
    let table = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_else(|e| panic!("no process {pid}: {e}"));
    let line = table.lines().find_map(|line| line.strip_prefix("0::"));
    line.unwrap_or_else(|| panic!("no v2 cgroup: {table}")).to_string()
}

/// A file in a directory of systemd's for units that last until the next boot; it is removed, and its unit stopped, when
/// it is dropped.
pub struct UnitFile<'t> {
    test: &'t Test,
    user: Option<User>,
    unit: String,
    path: PathBuf,
}

impl<'t> UnitFile<'t> {
    /// Writes `text` as the unit, or as a drop-in of it, and has systemd read it.
    pub fn new(test: &'t Test, user: Option<&User>, unit: &str, drop_in: bool, text: &str) -> UnitFile<'t> {
        let dir = user.map_or_else(|| "/run/systemd/system".into(), |user| user.runtime_dir().join("systemd/user"));
        let path = if drop_in { dir.join(format!("{unit}.d/test.conf")) } else { dir.join(unit) };
        let user = user.cloned();
        let file = UnitFile { test, user, unit: unit.to_string(), path };
        fs::create_dir_all(file.path.parent().expect("a directory")).expect("a directory for the unit");
        fs::write(&file.path, text).expect("the unit's file");
        file.systemctl(&["daemon-reload"]).ok();
        file
    }

    /// A call of systemctl on its manager.
    pub fn systemctl(&self, args: &[&str]) -> Call<'t> {
        systemctl(self.test, self.user.as_ref(), args)
    }

    /// A property of the unit.
    #[track_caller]
    pub fn property(&self, name: &str) -> String {
        let out = self.systemctl(&["show", "--value", "--property", name, &self.unit]).ok();
        out.stdout.trim().to_string()
    }
}

impl Drop for UnitFile<'_> {
    fn drop(&mut self) {
        self.systemctl(&["stop", &self.unit]).out();
        let _ = fs::remove_file(&self.path);
        // Only a drop-in has a directory of its own, and only such a one is empty then.
        if self.path.ends_with("test.conf") {
            let _ = self.path.parent().map(fs::remove_dir);
        }
        self.systemctl(&["daemon-reload"]).out();
        self.systemctl(&["reset-failed", &self.unit]).out();
    }
}
