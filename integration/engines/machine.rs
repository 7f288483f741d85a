//! What the tests of all engines need of the machine: programs, an image, and a way to end what an engine left.

use crate::support::{Call, Kind, Test, host, os, runtime, suite};
use nix::mount::{MntFlags, umount2};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

/// An engine's helpers end soon after the container does; what is still there then was left.
const GRACE: Duration = Duration::from_secs(20);

/// The path of a program of the host's; the test is skipped where it is not installed.
pub fn program(name: &str) -> String {
    let dirs = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    std::env::split_paths(dirs)
        .map(|dir| dir.join(name))
        .find(|path| path.is_file())
        .map(|path| path.display().to_string())
        .unwrap_or_else(|| suite::skip(format!("{name} is not installed")))
}

/// A tar archive of a root filesystem as `hack/rootfs` makes it, with a group more for one of its users.
pub fn image(test: &Test) -> &'static Path {
    static IMAGE: OnceLock<PathBuf> = OnceLock::new();
    program("busybox");
    IMAGE.get_or_init(|| {
        let root = suite::scratch().join("image");
        let (from, to) = (root.display().to_string(), format!("{}.tar", root.display()));
        Call::of(test, &[concat!(env!("CARGO_MANIFEST_DIR"), "/hack/rootfs"), &from]).ok();
        fs::write(root.join("etc/group"), "root:x:0:\nworker:x:1000:\nextra:x:2000:worker\n").expect("groups");
        Call::of(test, &["tar", "-C", &from, "-cf", &to, "."]).ok();
        to.into()
    })
}

/// Waits until every process that names this test on its command line or in its environment has ended, and gives those
/// that have not.
pub fn processes_left(id: &str) -> Vec<String> {
    let mut left = Vec::new();
    for (pid, what) in processes_of(id) {
        if os::pidfd(pid).is_ok_and(|fd| !os::readable(&fd, GRACE)) {
            left.push(format!("process {pid} ({what})"));
        }
    }
    left
}

/// Ends them.
pub fn end_processes(id: &str) {
    for (pid, _) in processes_of(id) {
        if let Ok(fd) = os::pidfd(pid) {
            os::kill(pid, libc::SIGKILL);
            os::readable(&fd, GRACE);
        }
    }
}

/// Ends the processes with which podman keeps a user's namespace open: they are the engine's, which leaves them.
pub fn end_pauses(id: &str) {
    for (pid, _) in processes_of(id).into_iter().filter(|(_, command)| command.starts_with("catatonit -P")) {
        os::kill(pid, libc::SIGKILL);
    }
}

fn processes_of(id: &str) -> Vec<(i32, String)> {
    let own = std::process::id().cast_signed();
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
    pids.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| *pid != own)
        .filter_map(|pid| {
            let read = |file: &str| fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
            let command = String::from_utf8_lossy(&read("cmdline")).replace('\0', " ");
            let named = command.contains(id) || String::from_utf8_lossy(&read("environ")).contains(id);
            named.then_some((pid, command))
        })
        .collect()
}

/// The engines' monitors become this process's children when their parent ends: takes the end of those that ended.
pub fn reap_monitors() {
    let own = std::process::id();
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
    for pid in pids.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok()) {
        // "pid (name) state parent ..."; the name may hold spaces, but not these.
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let monitor = stat.contains("(conmon) Z ") || stat.contains("(containerd-shim) Z ");
        if monitor && stat.contains(&format!(" Z {own} ")) {
            os::reap(pid);
        }
    }
}

/// The cgroups under a test's own parent that a container was in: the runtime has to have removed them. The others (the
/// parent, a pod's, conmon's) are the engine's, which leaves them.
pub fn cgroups_left(id: &str, container: impl Fn(&str) -> bool) -> Vec<String> {
    let cgroups = host::cgroups_named(id);
    let held = cgroups.iter().filter(|dir| dir.file_name().is_some_and(|name| container(&name.to_string_lossy())));
    held.map(|dir| format!("cgroup {}", dir.display())).collect()
}

/// Removes the engine's own cgroups, which are empty once its processes are gone.
pub fn remove_cgroups(id: &str) {
    for dir in host::cgroups_named(id) {
        let _ = fs::remove_dir(dir);
    }
}

/// Where the runtime under test keeps its state if nobody says otherwise.
pub fn default_root(test: &Test) -> &'static Path {
    Path::new(match test.kind() {
        Kind::Brig => "/run/brig",
        Kind::Runc => "/run/runc",
        Kind::Crun => "/run/crun",
    })
}

/// Containers of this test that the runtime still knows: each runtime notes the bundle, whose path has the test's ID.
pub fn states_left(test: &Test) -> Vec<String> {
    let states = fs::read_dir(default_root(test)).into_iter().flatten().flatten().map(|entry| entry.path());
    // Regular files only: runc's state has a FIFO in it, whose opening waits for the container's start.
    let ours = states.filter(|state| {
        let files = fs::read_dir(state).into_iter().flatten().flatten();
        let mut files = files.filter(|file| file.file_type().is_ok_and(|kind| kind.is_file()));
        files.any(|file| fs::read_to_string(file.path()).is_ok_and(|text| text.contains(test.id())))
    });
    ours.map(|state| format!("state {}", state.display())).collect()
}

/// What is in a directory, as states that are left there.
pub fn entries(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| format!("state {}", entry.path().display())).collect()
}

/// The runtime under test where any user may run it; it may have been built where only root may look.
pub fn runtime_for_all() -> &'static Path {
    static COPY: OnceLock<PathBuf> = OnceLock::new();
    COPY.get_or_init(|| {
        let path = &runtime::under_test().path;
        let parents = path.ancestors().skip(1);
        let open = |dir: &Path| fs::metadata(dir).is_ok_and(|data| data.permissions().mode() & 0o001 != 0);
        if parents.into_iter().all(open) {
            return path.clone();
        }
        let dir = suite::scratch().join("bin");
        fs::create_dir_all(&dir).expect("a directory for the runtime");
        let copy = dir.join(path.file_name().expect("a name"));
        fs::copy(path, &copy).expect("a copy of the runtime");
        copy
    })
}

/// The mounts under an engine's storage that are a container's. An overlay driver keeps its own directory as a mount.
pub fn mounts_left(home: &Path) -> Vec<String> {
    let storage = home.join("root/overlay").display().to_string();
    host::mounts_under(home).into_iter().filter(|t| *t != storage).map(|target| format!("mount {target}")).collect()
}

/// Takes away every mount under an engine's directory.
pub fn remove_mounts(home: &Path) {
    for target in host::mounts_under(home).iter().rev() {
        let _ = umount2(target.as_str(), MntFlags::MNT_DETACH);
    }
}

/// The name of a driver for images that works on this directory: overlay, but on an overlay.
pub fn driver<'d>(dir: &Path, overlay: &'d str, plain: &'d str) -> &'d str {
    const OVERLAYFS: i64 = 0x794c_7630;
    let kind = nix::sys::statfs::statfs(dir).map(|s| s.filesystem_type().0).unwrap_or_default();
    if kind == OVERLAYFS { plain } else { overlay }
}
