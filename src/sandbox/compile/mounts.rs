//! The mounts that make the view, in their order, and what of the host is seen through them.

use super::{Overlay, Walls, absolute};
use crate::error::Result;
use crate::prim::mounts::{layer, options};
use crate::sandbox::files::Resolved;
use crate::sandbox::policy::{NetworkMode, Policy, View, Workdir};
use crate::sandbox::report::Mode;
use crate::spec::Mount;
use std::path::{Path, PathBuf};

/// The mounts of a policy, in the order in which they are made; none in mode `confined`. Overlays on the layer are added to
/// `overlays`, too.
///
/// # Errors
/// A path of the policy that is not there.
#[allow(clippy::too_many_lines, reason = "the order of mounts in one list")]
pub(super) fn mounts(
    policy: &Policy,
    cwd: &Path,
    walls: Walls,
    resolved: &Resolved,
    overlays: &mut Vec<Overlay>,
) -> Result<Vec<Mount>> {
    let files = &policy.files;
    let mut list = Vec::new();
    if walls.mode == Mode::Confined {
        return Ok(list);
    }
    let mut overlay = |lower: &Path, target: &Path| {
        let mut made = mount("", "overlay", &["nosuid", "nodev", options::NOFOLLOW]);
        made.destination = target.into();
        made.options.push(format!("lowerdir={}", lower.display()));
        let name = overlays.len().to_string();
        match &files.layer {
            None => made.options.push(layer::OPTION.into()),
            Some(dir) => {
                let part = |end: &str| dir.join(&name).join(end).display().to_string();
                made.options.push(format!("upperdir={}", part("upper")));
                made.options.push(format!("workdir={}", part("work")));
                if walls.mode == Mode::UserNamespace {
                    made.options.push("userxattr".into());
                }
            }
        }
        overlays.push(Overlay { name, lower: lower.into(), target: target.into() });
        made
    };
    // 1. The view.
    let host = match &files.view {
        View::Host => true,
        View::Root(dir) => {
            list.push(bind(&absolute(dir, "/files/view/root")?, Path::new("/"), false));
            false
        }
        View::RootOverlay(dir) => {
            list.push(overlay(&absolute(dir, "/files/view/root_overlay")?, Path::new("/")));
            false
        }
    };
    if host {
        list.push(bind(Path::new("/"), Path::new("/"), false));
    }
    // 2. What every program expects, private.
    match walls.bound_proc {
        true => list.push(bind(Path::new("/proc"), Path::new("/proc"), false)),
        false => list.push(mount("/proc", "proc", &["nosuid", "noexec", "nodev"])),
    }
    list.push(mount("/dev", "tmpfs", &["nosuid", "noexec", "mode=755", "size=64k"]));
    let devpts = ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"];
    list.push(mount("/dev/pts", "devpts", &devpts));
    // On the layer, so that one limit holds for all of it.
    let size = policy.limits.disk.map(|bytes| format!("size={}", bytes.0));
    let size = if files.layer.is_some() { size.as_deref() } else { Some(layer::OPTION) };
    let mut private = |target: &str, mode: &str, size: Option<&str>| {
        let options: Vec<_> = ["nosuid", "nodev", mode].into_iter().chain(size).collect();
        list.push(mount(target, "tmpfs", &options));
    };
    private("/dev/shm", "mode=1777", size);
    let exists = |path: &str| match &files.view {
        View::Host => Path::new(path).is_dir(),
        View::Root(dir) | View::RootOverlay(dir) => dir.join(&path[1..]).is_dir(),
    };
    for path in ["/tmp", "/var/tmp"].into_iter().filter(|path| exists(path)) {
        private(path, "mode=1777", size);
    }
    // Sockets and secrets of the host's services.
    if host && exists("/run") {
        private("/run", "mode=755", Some("size=1m"));
        let resolver = Path::new("/run/systemd/resolve");
        if policy.network.mode == NetworkMode::Host && resolver.is_dir() {
            list.push(bind(&absolute(resolver, "/network/mode")?, resolver, false));
        }
    }
    // 3. What may be written.
    if host {
        let usable = cwd != Path::new("/") && !["/proc", "/sys", "/dev"].iter().any(|d| cwd.starts_with(d));
        match files.workdir {
            Workdir::Overlay if usable => list.push(overlay(cwd, cwd)),
            Workdir::Write if usable => list.push(bind(cwd, cwd, true)),
            Workdir::Temporary => {
                let options = ["nosuid", "nodev", "mode=700"].into_iter().chain(size).collect::<Vec<_>>();
                list.push(mount(&cwd.display().to_string(), "tmpfs", &options));
            }
            // Below the private directories it would not be there at all.
            _ if is_covered(cwd) => list.push(bind(cwd, cwd, false)),
            _ => {}
        }
    }
    // A directory that is a mount can't be renamed, to be made anew without what is protected in it. Each follows what it is in,
    // as it would cover what else is mounted there.
    let (later, pinned): (Vec<_>, Vec<_>) =
        resolved.pinned.iter().partition(|path| resolved.writable.iter().any(|dir| path.starts_with(dir)));
    list.extend(pinned.into_iter().map(|path| bind(path, path, true)));
    for dir in &files.overlay {
        let dir = absolute(dir, "/files/overlay")?;
        list.push(overlay(&dir, &dir));
    }
    for entry in &files.binds {
        let source = absolute(&entry.source, "/files/binds")?;
        list.push(bind(&source, entry.target.as_deref().unwrap_or(&entry.source), entry.write));
    }
    for path in &resolved.writable {
        list.push(bind(path, path, true));
    }
    list.extend(later.into_iter().map(|path| bind(path, path, true)));
    for path in resolved.readable.iter().filter(|path| is_covered(path)) {
        list.push(bind(path, path, false));
    }
    for socket in &policy.network.allow_unix_sockets {
        let path = absolute(socket, "/network/allow_unix_sockets")?;
        list.push(bind(&path, &path, true));
    }
    Ok(list)
}

/// A bind of a path without symlinks. Another sandbox may exchange a part of it for a symlink before it is mounted, which must
/// lead nowhere then.
pub fn bind(source: &Path, target: &Path, write: bool) -> Mount {
    let change = if write { "rw" } else { "rro" };
    let options = ["rbind", change, "rnosuid", "rnodev", options::NOFOLLOW];
    Mount {
        destination: target.into(),
        typ: Some("bind".into()),
        source: Some(source.into()),
        options: options.iter().map(|o| (*o).to_owned()).collect(),
        ..Mount::default()
    }
}

fn mount(target: &str, typ: &str, options: &[&str]) -> Mount {
    Mount {
        destination: target.into(),
        typ: Some(typ.into()),
        source: Some(typ.into()),
        options: options.iter().map(|o| (*o).to_owned()).collect(),
        ..Mount::default()
    }
}

/// Asks of each bind what can be had without mount_setattr(2): attributes for the one mount, not for all below it.
pub fn without_recursion(mounts: &mut [Mount]) {
    for option in mounts.iter_mut().filter(|m| m.typ.as_deref() == Some("bind")).flat_map(|m| &mut m.options) {
        if let Some(plain) = option.strip_prefix('r').filter(|rest| ["ro", "nosuid", "nodev"].contains(rest)) {
            *option = plain.to_owned();
        }
    }
}

/// The mount points of the host that can be written and are seen in the view (proc_pid_mountinfo(5)).
pub(super) fn writable_mounts(resolved: &Resolved) -> Vec<PathBuf> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let point = |line: &str| {
        let mut fields = line.split(' ').skip(4);
        let (path, options) = (fields.next()?, fields.next()?);
        let path = path.replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\");
        (options.split(',').any(|o| o == "rw")).then(|| PathBuf::from(path))
    };
    let private = |path: &Path| is_covered(path) || ["/proc", "/dev"].iter().any(|dir| path.starts_with(dir));
    let meant = |path: &PathBuf| resolved.writable.iter().any(|open| path.starts_with(open));
    table.lines().filter_map(point).filter(|p| p != Path::new("/") && !private(p) && !meant(p)).collect()
}

/// Whether a path of the host is below a directory that is private in the view.
fn is_covered(path: &Path) -> bool {
    ["/tmp", "/var/tmp", "/run", "/dev/shm"].iter().any(|dir| path.starts_with(dir))
}
