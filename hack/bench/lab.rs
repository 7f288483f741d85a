//! The place where it is measured: a temporary tree that only this process and its children see, one root file system for
//! all, a bundle per use, and a cgroup to hold the containers' cgroups.

use crate::filter;
use anyhow::{Context, Result, bail, ensure};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

const HIERARCHIES: &str = "/sys/fs/cgroup";

/// What is in a bundle.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bundle {
    /// What `spec` writes, without masked paths and limits.
    Minimal,
    /// What podman 4.3 hands to its runtime: default seccomp profile, masked paths, limits, binds.
    Podman,
}

/// Both, in the order of the table.
pub const BUNDLES: [Bundle; 2] = [Bundle::Minimal, Bundle::Podman];

impl Bundle {
    /// Its name in paths and keys.
    pub fn name(self) -> &'static str {
        match self {
            Bundle::Minimal => "minimal",
            Bundle::Podman => "podman",
        }
    }

    fn config(self) -> &'static str {
        match self {
            Bundle::Minimal => include_str!("minimal.json"),
            Bundle::Podman => include_str!("podman.json"),
        }
    }
}

/// The place; dropping it removes it.
pub struct Lab {
    dir: PathBuf,
    cgroup: String,
    hierarchies: Vec<PathBuf>,
    /// Whether the v2 tree of a hybrid machine is hidden, see [`Lab::new`].
    pub without_v2: bool,
}

impl Lab {
    /// Makes the place: mounts in a mount namespace of its own, so that whatever happens here ends with the processes.
    /// On a hybrid machine whose v2 tree has controllers, that tree is hidden there: crun refuses to work beside it.
    pub fn new() -> Result<Lab> {
        ensure!(nix::unistd::geteuid().is_root(), "the benchmark makes namespaces and cgroups: run it as root");
        let name = format!("brig-bench-{}", std::process::id());
        let dir = std::env::temp_dir().join(&name);
        let mut lab = Lab { dir, cgroup: name, hierarchies: hierarchies()?, without_v2: false };
        unshare(CloneFlags::CLONE_NEWNS).context("unshare the mount namespace")?;
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
        let unified = Path::new(HIERARCHIES).join("unified");
        if fs::read_to_string(unified.join("cgroup.controllers")).is_ok_and(|names| !names.trim().is_empty()) {
            eprintln!("bench: {} has controllers, which crun refuses: hidden for this run", unified.display());
            umount2(&unified, MntFlags::MNT_DETACH).context("hide the v2 cgroup tree")?;
            // crun still makes directories there, which would stay on the machine's own tmpfs
            tmpfs(&unified, "mode=755")?;
            lab.without_v2 = true;
            lab.hierarchies.retain(|hierarchy| *hierarchy != unified);
        }
        fs::create_dir(&lab.dir)?;
        tmpfs(&lab.dir, "mode=755")?;
        lab.make_files().context("make the root file system")?;
        lab.make_cgroups().context("make the cgroups")?;
        Ok(lab)
    }

    /// A path in the place.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The same, as a word for a command line.
    pub fn word(&self, name: &str) -> String {
        self.path(name).to_str().expect("a temporary directory is named in UTF-8").to_owned()
    }

    /// A container's cgroup, relative to each hierarchy's root.
    pub fn cgroup(&self, name: &str) -> String {
        format!("{}/{name}", self.cgroup)
    }

    /// Writes the bundle `name`, whose container runs `args`, and returns its directory.
    pub fn bundle(&self, bundle: Bundle, name: &str, args: &[&str]) -> Result<String> {
        let cgroup = format!("/{}", self.cgroup(name));
        let text = bundle.config().replace("@BENCH@", &self.dir.to_string_lossy()).replace("@CGROUP@", &cgroup);
        let mut config: Value = serde_json::from_str(&text)?;
        config["process"]["args"] = json!(args);
        let dir = self.word(&format!("bundles/{name}"));
        fs::create_dir_all(&dir)?;
        fs::write(format!("{dir}/config.json"), serde_json::to_vec_pretty(&config)?)?;
        Ok(dir)
    }

    /// Compiles the floor program, to the file `floor`, and its filter.
    pub fn build_floor(&self, floor: &Path) -> Result<()> {
        let mut cc = Command::new(std::env::var_os("CC").unwrap_or("cc".into()))
            .args(["-O2", "-static", "-x", "c", "-", "-o"])
            .arg(floor)
            .stdin(Stdio::piped())
            .spawn()
            .context("start the C compiler (cc, or $CC)")?;
        cc.stdin.take().expect("piped").write_all(include_bytes!("floor.c"))?;
        ensure!(cc.wait()?.success(), "the C compiler refuses hack/bench/floor.c");
        let config: Value = serde_json::from_str(Bundle::Podman.config())?;
        filter::compile(&config["linux"]["seccomp"], &fs::File::create(self.path("filter"))?)
    }

    fn make_files(&self) -> Result<()> {
        let root = self.path("rootfs");
        for name in ["bin", "proc", "sys", "dev", "etc", "run"] {
            fs::create_dir_all(root.join(name))?;
        }
        let busybox = std::env::var("BUSYBOX").unwrap_or("/bin/busybox".to_owned());
        fs::copy(&busybox, root.join("bin/busybox"))
            .with_context(|| format!("copy {busybox} (of package busybox-static, or $BUSYBOX)"))?;
        for name in ["cat", "cut", "grep", "hostname", "sh", "sleep", "sort", "true"] {
            symlink("busybox", root.join("bin").join(name))?;
        }
        fs::create_dir_all(self.path("files/shm"))?;
        fs::create_dir_all(self.path("trace"))?;
        tmpfs(&self.path("files/shm"), "mode=1777,size=64000k")?;
        for (target, text) in [
            ("etc/hosts", "127.0.0.1 localhost\n127.0.1.1 bench\n"),
            ("etc/hostname", "bench\n"),
            ("run/.containerenv", "engine=\"bench\"\n"),
        ] {
            let name = target.rsplit('/').next().expect("a path");
            fs::write(self.path("files").join(name), text)?;
            fs::write(root.join(target), "")?;
        }
        Ok(())
    }

    fn make_cgroups(&self) -> Result<()> {
        for hierarchy in &self.hierarchies {
            let own = hierarchy.join(&self.cgroup);
            fs::create_dir(&own).with_context(|| own.display().to_string())?;
            for file in ["cpuset.cpus", "cpuset.mems"] {
                if let (true, Ok(value)) = (hierarchy.ends_with("cpuset"), fs::read(hierarchy.join(file))) {
                    fs::write(own.join(file), value)?;
                }
            }
            if hierarchy == Path::new(HIERARCHIES) {
                for controller in ["+cpu", "+memory", "+pids", "+cpuset", "+io"] {
                    let _ = fs::write(hierarchy.join("cgroup.subtree_control"), controller);
                    let _ = fs::write(own.join("cgroup.subtree_control"), controller);
                }
            }
        }
        Ok(())
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for hierarchy in &self.hierarchies {
            if let Err(err) = remove_cgroup(&hierarchy.join(&self.cgroup)) {
                eprintln!("bench: left behind: {err:#}");
            }
        }
        let _ = umount2(&self.path("files/shm"), MntFlags::MNT_DETACH);
        let _ = umount2(&self.dir, MntFlags::MNT_DETACH);
        if let Err(err) = fs::remove_dir(&self.dir) {
            eprintln!("bench: left behind: {}: {err}", self.dir.display());
        }
    }
}

fn tmpfs(path: &Path, options: &str) -> Result<()> {
    mount(Some("bench"), path, Some("tmpfs"), MsFlags::empty(), Some(options))
        .with_context(|| format!("mount a tmpfs on {}", path.display()))
}

/// The roots of the machine's cgroup hierarchies: one on v2, several on v1 and on a hybrid of both.
fn hierarchies() -> Result<Vec<PathBuf>> {
    let root = Path::new(HIERARCHIES);
    if root.join("cgroup.procs").exists() {
        return Ok(vec![root.to_owned()]);
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(root).context(HIERARCHIES)? {
        let entry = entry?;
        // "cpu,cpuacct" and the like have links beside them, one per controller
        if entry.file_type()?.is_dir() && entry.path().join("cgroup.procs").exists() {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// Removes a cgroup and all below it, with a SIGKILL to what still runs there.
#[allow(clippy::disallowed_methods, reason = "v1 has no event for an empty cgroup")]
fn remove_cgroup(path: &Path) -> Result<()> {
    let Ok(entries) = fs::read_dir(path) else { return Ok(()) };
    for entry in entries.flatten().filter(|entry| entry.path().is_dir()) {
        remove_cgroup(&entry.path())?;
    }
    for attempt in 1.. {
        let Err(err) = fs::remove_dir(path) else { break };
        if attempt == 200 {
            bail!("{}: {err}", path.display());
        }
        for pid in fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default().lines() {
            let _ = kill(Pid::from_raw(pid.parse()?), Signal::SIGKILL);
        }
        // This is the way out, not what is measured.
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}
