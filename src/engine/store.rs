//! Where containers are remembered: `<root>/<id>/`, a directory of mode 0700 whose making reserves the ID and whose lock is
//! held while a command changes the container.

use crate::error::{Context, Error, Kind, Result};
use crate::prim::cgroup::Record;
use crate::prim::namespaces;
use crate::sys::process::pidfd_open;
use crate::sys::{Errno, files, socket};
use nix::fcntl::{Flock, FlockArg, OFlag};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The longest ID; it has to be a file's name.
const ID_MAX: usize = 255;

/// The next state, before it is in force.
const STAGED: &str = "state.json.new";

/// A container as it is saved. What can be derived (its status) is not.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Saved {
    /// Version of this format.
    pub version: u32,
    /// The container's ID.
    pub id: String,
    /// `ociVersion` of its config.
    pub oci_version: String,
    /// Its bundle, absolute.
    pub bundle: PathBuf,
    /// Its root filesystem, absolute.
    pub rootfs: PathBuf,
    /// Its first process, 0 while it is being created.
    pub pid: i32,
    /// When that process started, in clock ticks since boot (proc_pid_stat(5)): a recycled pid has another.
    pub start_time: u64,
    /// When it was created, RFC 3339.
    pub created: String,
    /// Who created it.
    pub owner: u32,
    /// `annotations` of its config.
    pub annotations: BTreeMap<String, String>,
    /// Its cgroups; saved before they are made.
    pub cgroup: Record,
    /// Whether it was made to wait for `start`.
    pub gated: bool,
    /// What intelRdt made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub intel_rdt: Option<crate::prim::intelrdt::Record>,
    /// `linux.resources` as updates have left it; that of the config as long as there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<crate::spec::Resources>,
}

/// What a container is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Being created, or left so by a runtime that was killed.
    Creating,
    /// Waiting for `start`.
    Created,
    /// Running.
    Running,
    /// Frozen.
    Paused,
    /// Its first process is gone.
    Stopped,
}

impl Status {
    /// The spec's word for it (and the field's, for `paused`).
    pub fn word(self) -> &'static str {
        match self {
            Status::Creating => "creating",
            Status::Created => "created",
            Status::Running => "running",
            Status::Paused => "paused",
            Status::Stopped => "stopped",
        }
    }
}

/// All containers below one directory.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
}

/// One container's directory, locked.
#[derive(Debug)]
pub struct Entry {
    path: PathBuf,
    dir: Flock<OwnedFd>,
}

/// The effective user and group of this process.
pub fn caller() -> (u32, u32) {
    (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw())
}

/// Checks an ID before it becomes a path.
///
/// # Errors
/// What an ID may be.
pub fn check_id(id: &str) -> Result<()> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "_+-.".contains(c);
    let wrong = match id {
        "" => "it is empty",
        "." | ".." => "it names a directory",
        _ if id.starts_with('-') => "it looks like a flag",
        _ if id.len() > ID_MAX => "it is longer than 255 characters",
        _ if !id.chars().all(fits) => "it may hold letters, digits and _ + - . only",
        _ => return Ok(()),
    };
    let shown: String = id.chars().take(40).collect();
    Err(Error::invalid(format!("invalid container ID {shown:?}: {wrong}")))
}

impl Store {
    /// The store at `root`, made when it is first written to.
    pub fn new(root: impl Into<PathBuf>) -> Store {
        Store { root: root.into() }
    }

    /// The default place: /run/brig for root, $XDG_RUNTIME_DIR/brig for others, /run/user/UID/brig where they have a
    /// session but not the variable (su, cron).
    ///
    /// Under podman without root, brig has the user ID 0 in a user namespace that only borrows the host's /run, and a
    /// nearly empty environment. Where somebody is called root in a user namespace, it is a system with a /run of its own.
    pub fn default_root() -> PathBuf {
        let root =
            || !namespaces::inside_user_namespace() || std::env::var_os("USER").is_some_and(|name| name == "root");
        match std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty()) {
            Some(dir) if !nix::unistd::geteuid().is_root() || !root() => Path::new(&dir).join("brig"),
            None if !nix::unistd::geteuid().is_root() => {
                let own = PathBuf::from(format!("/run/user/{}", nix::unistd::geteuid()));
                if own.is_dir() { own.join("brig") } else { PathBuf::from("/run/brig") }
            }
            _ => PathBuf::from("/run/brig"),
        }
    }

    /// Makes the directory of all containers.
    fn make_root(&self) -> Result<()> {
        let plain = !nix::unistd::geteuid().is_root() || namespaces::inside_user_namespace();
        // Sticky, which keeps those who clean $XDG_RUNTIME_DIR from it (XDG Base Directory Specification).
        let mode = if plain { 0o1700 } else { 0o700 };
        fs::DirBuilder::new()
            .recursive(true)
            .mode(mode)
            .create(&self.root)
            .during(|| format!("make the state directory {}", self.root.display()))
            .map_err(elsewhere)
    }

    /// Takes an ID for a new container.
    ///
    /// # Errors
    /// [`Kind::Exists`] when it is taken.
    pub fn reserve(&self, id: &str) -> Result<Entry> {
        check_id(id)?;
        let path = self.root.join(id);
        let mut builder = fs::DirBuilder::new();
        builder.mode(0o700);
        let made = match builder.create(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                self.make_root()?;
                builder.create(&path)
            }
            other => other,
        };
        match made {
            Ok(()) => Entry::open(path),
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
                let what = format!("container with id exists: {id:?} already exists in {}", self.root.display());
                Err(Error::new(Kind::Exists, what)
                    .hint(format!("choose another ID, or remove it with: brig delete --force {id}")))
            }
            Err(e) => Err(e).during(|| format!("make the state directory {}", path.display())).map_err(elsewhere),
        }
    }

    /// Opens and locks a container.
    ///
    /// # Errors
    /// [`Kind::NotFound`].
    pub fn open(&self, id: &str) -> Result<Entry> {
        check_id(id)?;
        Entry::open(self.root.join(id)).map_err(|e| match e.kind() {
            Kind::Os(Errno::ENOENT) => Error::new(Kind::NotFound, format!("container {id:?} does not exist")),
            _ => e,
        })
    }

    /// Reads a container's state without its lock; a state file is replaced whole, so what is read is whole.
    ///
    /// # Errors
    /// [`Kind::NotFound`], also for one that is just being created.
    pub fn peek(&self, id: &str) -> Result<Saved> {
        check_id(id)?;
        read_state(&self.root.join(id)).map_err(|e| match e.kind() {
            Kind::Os(Errno::ENOENT) => Error::new(Kind::NotFound, format!("container {id:?} does not exist")),
            _ => e,
        })
    }

    /// A container's config as it was validated.
    ///
    /// # Errors
    /// As [`crate::spec::load`].
    pub fn config(&self, id: &str) -> Result<crate::spec::Spec> {
        crate::spec::load(&self.dir(id).join("config.json")).map(|loaded| loaded.value)
    }

    /// The path of a container's directory.
    pub fn dir(&self, id: &str) -> PathBuf {
        self.root.join(id)
    }

    /// The state directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The IDs of all containers, sorted.
    ///
    /// # Errors
    /// The store can't be read; that there is none yet is no error.
    pub fn ids(&self) -> Result<Vec<String>> {
        let entries = match fs::read_dir(&self.root) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.during(|| format!("read {}", self.root.display()))?,
        };
        let name = |e: std::io::Result<fs::DirEntry>| e.ok()?.file_name().into_string().ok();
        let mut ids: Vec<_> = entries.filter_map(name).filter(|id| check_id(id).is_ok()).collect();
        ids.sort();
        Ok(ids)
    }
}

fn elsewhere(error: Error) -> Error {
    match error.kind() {
        Kind::Os(Errno::EACCES | Errno::EPERM | Errno::EROFS) => {
            error.hint("set XDG_RUNTIME_DIR to a directory of your own, or name one with --root")
        }
        _ => error,
    }
}

impl Entry {
    fn open(path: PathBuf) -> Result<Entry> {
        let c_path = std::ffi::CString::new(path.as_os_str().as_encoded_bytes()).unwrap_or_default();
        let dir = files::open(None, &c_path, OFlag::O_RDONLY | OFlag::O_DIRECTORY)
            .during(|| format!("open {}", path.display()))?;
        let dir = Flock::lock(dir, FlockArg::LockExclusive)
            .map_err(|(_, errno)| Error::os(format!("lock {}", path.display()), errno))?;
        // Whoever held the lock may have removed the directory meanwhile.
        if nix::sys::stat::fstat(&*dir).is_ok_and(|stat| stat.st_nlink == 0) {
            return Err(Error::os(format!("open {}", path.display()), Errno::ENOENT));
        }
        Ok(Entry { path, dir })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Saves the state: the first time in place (nobody reads a directory without one), then by rename.
    ///
    /// # Errors
    /// As the writes.
    pub fn save(&self, saved: &Saved, first: bool) -> Result<()> {
        if first {
            return self.write("state.json", &text(saved)?);
        }
        self.stage(saved)?;
        self.commit()
    }

    /// Writes the state beside the one in force, which needs nothing but a [`Entry::commit`] then: a full disk is found
    /// before anything else is done.
    ///
    /// # Errors
    /// As the writes.
    pub fn stage(&self, saved: &Saved) -> Result<()> {
        self.write(STAGED, &text(saved)?)
    }

    /// Puts the staged state in force.
    ///
    /// # Errors
    /// As rename(2).
    pub fn commit(&self) -> Result<()> {
        let target = self.path.join("state.json");
        fs::rename(self.path.join(STAGED), &target).during(|| format!("rename to {}", target.display()))
    }

    /// Takes the staged state away again.
    pub fn unstage(&self) {
        let _ = fs::remove_file(self.path.join(STAGED));
    }

    /// Writes a file of the entry.
    ///
    /// # Errors
    /// As open(2) and write(2): a full disk, above all.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let path = self.path.join(name);
        let mut options = fs::OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        options.open(&path).and_then(|mut f: File| f.write_all(bytes)).during(|| format!("write {}", path.display()))
    }

    /// Reads the state; `None` for a container whose creation was cut short before it was first saved.
    ///
    /// # Errors
    /// A state that can't be read or understood.
    pub fn load(&self) -> Result<Option<Saved>> {
        match read_state(&self.path) {
            Err(e) if e.kind() == Kind::Os(Errno::ENOENT) => Ok(None),
            other => other.map(Some),
        }
    }

    /// The container's config as it was validated.
    ///
    /// # Errors
    /// As [`crate::spec::load`].
    pub fn config(&self) -> Result<crate::spec::Spec> {
        crate::spec::load(&self.path.join("config.json")).map(|loaded| loaded.value)
    }

    /// The number of the fd that holds the lock. A child must close its copy, which would hold the lock, too.
    pub fn lock_number(&self) -> i32 {
        self.dir.as_raw_fd()
    }

    fn gate_path(&self) -> String {
        // By fd, since a socket's path is short and a state directory's may be long.
        format!("/proc/self/fd/{}/gate", self.dir.as_raw_fd())
    }

    /// Makes the gate at which the container waits for `start`.
    ///
    /// # Errors
    /// As bind(2).
    pub fn make_gate(&self) -> Result<OwnedFd> {
        socket::listen(self.gate_path().as_bytes()).during(|| format!("make {}/gate", self.path.display()))
    }

    /// Knocks at the gate.
    ///
    /// # Errors
    /// `ECONNREFUSED` and `ENOENT` when the container waits no more.
    pub fn knock(&self) -> Result<OwnedFd, Errno> {
        socket::connect(self.gate_path().as_bytes(), true)
    }

    /// Takes the gate away after the container has passed it.
    pub fn remove_gate(&self) {
        let _ = fs::remove_file(self.path.join("gate"));
    }

    /// Removes the container from the store.
    ///
    /// # Errors
    /// As unlink(2) and rmdir(2).
    pub fn remove(self) -> Result<()> {
        fs::remove_dir_all(&self.path).during(|| format!("remove {}", self.path.display()))
    }
}

fn text(saved: &Saved) -> Result<Vec<u8>> {
    serde_json::to_vec(saved).map_err(|e| Error::new(Kind::Other, e.to_string()))
}

fn read_state(dir: &Path) -> Result<Saved> {
    let path = dir.join("state.json");
    let bytes = fs::read(&path).during(|| format!("read {}", path.display()))?;
    if bytes.is_empty() {
        // Just being written, for the first time; or never, if its writer was killed.
        return Err(Error::os(format!("read {}", path.display()), Errno::ENOENT));
    }
    serde_json::from_slice(&bytes).map_err(|e| {
        Error::new(Kind::Other, format!("{} is damaged: {e}", path.display()))
            .hint("what the container left can be removed with: brig delete --force")
    })
}

impl Saved {
    /// The container's first process, if it still runs.
    ///
    /// # Errors
    /// [`Kind::Gone`] when it does not.
    pub fn process(&self) -> Result<OwnedFd> {
        let gone = |_| Error::new(Kind::Gone, format!("container {:?} is not running: no such process", self.id));
        if self.pid <= 0 {
            return Err(gone(Errno::ESRCH));
        }
        let pidfd = pidfd_open(self.pid).map_err(gone)?;
        // The pidfd first, then the start time: from here on the number can't be recycled unnoticed.
        match start_time(self.pid) {
            Some((time, false)) if time == self.start_time => Ok(pidfd),
            _ => Err(gone(Errno::ESRCH)),
        }
    }

    /// The status, derived: by the process, the gate in `dir`, the freezer.
    pub fn status(&self, dir: &Path) -> Status {
        if self.pid == 0 {
            return Status::Creating;
        }
        match start_time(self.pid) {
            Some((time, false)) if time == self.start_time => {}
            _ => return Status::Stopped,
        }
        // Frozen first: one that is paused before its start can't answer at its gate.
        if self.cgroup.is_frozen().unwrap_or(false) {
            Status::Paused
        } else if self.gated && dir.join("gate").exists() {
            Status::Created
        } else {
            Status::Running
        }
    }
}

/// When a process started, in clock ticks since boot, and whether it is a zombie; `None` when there is none.
pub fn start_time(pid: i32) -> Option<(u64, bool)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything: the fields are counted from the last one.
    let mut fields = stat.get(stat.rfind(')')? + 2..)?.split(' ');
    let zombie = matches!(fields.next()?, "Z" | "X" | "x");
    Some((fields.nth(18)?.parse().ok()?, zombie))
}

/// The state document of runtime-spec (runtime.md, "State").
pub fn oci_state(saved: &Saved, status: &str, pid: &str) -> String {
    let annotations = serde_json::to_string(&saved.annotations).unwrap_or_default();
    let text = |s: &str| serde_json::Value::from(s).to_string();
    format!(
        r#"{{"ociVersion":{},"id":{},"status":"{status}","pid":{pid},"bundle":{},"annotations":{annotations}}}"#,
        text(&saved.oci_version),
        text(&saved.id),
        text(&saved.bundle.to_string_lossy()),
    )
}

/// That a container's status does not allow something.
pub fn wrong_status(what: &str, id: &str, status: Status) -> Error {
    Error::new(Kind::Status, format!("cannot {what} container {id:?}: it is {}", status.word()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_that_are_no_path() {
        for good in ["a", "web.1", "a_b+c-d", &"x".repeat(255)] {
            assert!(check_id(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "../x", "a/b", "a b", "é", "a\n", "-x", &"x".repeat(2000)] {
            assert!(check_id(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_own_process_has_a_start_time() {
        let (time, zombie) = start_time(std::process::id() as i32).unwrap();
        assert!(time > 0 && !zombie);
        assert_eq!(start_time(-1), None);
    }
}
