//! Orders to a sandbox that runs, as JSON lines: from a file descriptor of the caller's, or over a unix socket by its ID.
//!
//! `{"memory": "512M"}` and the other keys of [`Change`]; `{"kill": 15}`; `{"status": true}`; or settings in the form that
//! sandbox-runtime has them (`{"network": {"allowedDomains": [...]}}`), of which the domains may change. Each line over the socket is
//! answered by one: `{"ok": true}`, a status, or `{"error": "..."}`.

use super::ledger::{self, LEDGER, LEFT, Ledger};
use super::live::{Change, Live};
use super::policy::{Policy, Workdir};
use super::settings::{self, Base};
use super::supervise::Leftover;
use crate::error::{Context, Error, Kind, Result};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use serde_json::{Value, json};
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The longest line that is taken.
const LINE_MAX: usize = 1 << 20;

/// How long the other side may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// How many sandboxes a new one looks after, whether they still run: a start costs the same among many.
const LOOKED_AT: usize = 4;

/// How many callers may be connected at once.
const CALLERS_MAX: usize = 16;

/// Carries one order out and returns what there is to say.
///
/// # Errors
/// What is wrong with it.
pub fn order(line: &str, live: &mut Live) -> Result<Value> {
    let wrong = |e: serde_json::Error| Error::invalid(format!("the order is no JSON object of the right form: {e}"));
    let value: Value = serde_json::from_str(line).map_err(wrong)?;
    let object = value.as_object().ok_or_else(|| Error::invalid("an order is a JSON object"))?;
    if let Some(signal) = object.get("kill") {
        let signal = signal.as_i64().and_then(|n| i32::try_from(n).ok()).filter(|n| (1..=64).contains(n));
        live.kill(signal.ok_or_else(|| Error::invalid("kill takes the number of a signal, 1 to 64"))?)?;
        return Ok(json!({"ok": true}));
    }
    if object.contains_key("status") {
        return Ok(json!({"ok": true, "pid": live.program_pid(), "at_us": live.at_us()}));
    }
    if ["network", "filesystem"].iter().any(|key| object.contains_key(*key)) {
        let mut policy = Policy { network: live.network().clone(), ..Policy::default() };
        let (directory, home) = (std::env::current_dir().unwrap_or_default(), super::files::home());
        let base = Base { directory: &directory, home: Some(&home) };
        settings::update(&mut policy, line, base)?;
        let change = Change {
            allow_domains: Some(policy.network.allow),
            deny_domains: Some(policy.network.deny),
            ..Change::default()
        };
        live.update(&change)?;
    } else {
        live.update(&serde_json::from_value(value).map_err(wrong)?)?;
    }
    Ok(json!({"ok": true}))
}

/// Lines that come over a file descriptor, whole.
#[derive(Debug)]
pub struct Lines<F> {
    file: F,
    rest: Vec<u8>,
    open: bool,
}

impl<F: Read + AsFd> Lines<F> {
    /// Reads from a file descriptor, without ever waiting for it.
    ///
    /// # Errors
    /// As fcntl(2).
    pub fn new(file: F) -> Result<Lines<F>> {
        let during = || "read orders".to_owned();
        let flags = OFlag::from_bits_retain(fcntl(&file, FcntlArg::F_GETFL).during(during)?);
        fcntl(&file, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK)).during(during)?;
        Ok(Lines { file, rest: Vec::new(), open: true })
    }

    /// For poll(2), as long as something may come.
    pub fn source(&self) -> Option<BorrowedFd<'_>> {
        self.open.then(|| self.file.as_fd())
    }

    /// The lines that have come.
    pub fn read(&mut self) -> Vec<String> {
        let mut piece = [0; 8192];
        loop {
            match self.file.read(&mut piece) {
                Ok(0) => self.open = false,
                Ok(length) => {
                    self.rest.extend_from_slice(&piece[..length]);
                    if self.rest.len() < LINE_MAX {
                        continue;
                    }
                    self.open = self.rest.contains(&b'\n');
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                Err(_) => self.open = false,
            }
            break;
        }
        let end = match self.open {
            true => self.rest.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1),
            // The last line may lack its end.
            false => self.rest.len(),
        };
        let whole: Vec<u8> = self.rest.drain(..end).collect();
        let lines = whole.split(|b| *b == b'\n').map(|line| String::from_utf8_lossy(line).trim().to_owned());
        lines.filter(|line| !line.is_empty()).collect()
    }
}

/// Where the sockets of one user's sandboxes are: below the state directory, or, for a user who has none, in a directory of
/// their own below /tmp.
fn directories(root: &Path) -> [PathBuf; 2] {
    [root.join("sandbox"), PathBuf::from(format!("/tmp/brig-sandbox-{}", nix::unistd::geteuid()))]
}

/// A sandbox's socket, and who is connected.
#[derive(Debug)]
pub struct Door {
    path: PathBuf,
    listener: UnixListener,
    callers: Vec<(Lines<UnixStream>, UnixStream)>,
}

impl Door {
    /// Opens a sandbox's door below the state directory `root`.
    ///
    /// # Errors
    /// The ID is taken by a sandbox that runs; the directory is another user's.
    pub fn open(root: &Path, id: &str) -> Result<Door> {
        let [first, second] = directories(root);
        Door::open_in(&first, id).or_else(|error| match error.kind() {
            Kind::Exists => Err(error),
            _ => Door::open_in(&second, id),
        })
    }

    fn open_in(dir: &Path, id: &str) -> Result<Door> {
        make(dir)?;
        sweep(dir, LOOKED_AT);
        let path = dir.join(format!("{id}.sock"));
        let listener = match UnixListener::bind(&path) {
            Err(e) if e.kind() == ErrorKind::AddrInUse => {
                if answers(&path) {
                    return Err(Error::new(Kind::Exists, format!("a sandbox with the ID {id:?} runs already")));
                }
                // Of one that was killed together with its brig.
                fs::remove_file(&path).and_then(|()| UnixListener::bind(&path))
            }
            other => other,
        };
        let listener = listener.during(|| format!("listen on {}", path.display()))?;
        listener.set_nonblocking(true).during(|| "listen".into())?;
        Ok(Door { path, listener, callers: Vec::new() })
    }

    /// Keeps in writing what has to be removed should brig be killed: the next one does it.
    pub fn keep(&self, left: &Leftover) {
        if !is_private(self.path.parent().unwrap_or(&self.path)) {
            return;
        }
        let text = serde_json::to_vec(left).expect("its keys are text");
        // Without it no sandbox is the worse.
        let _ = fs::write(self.path.with_extension(LEFT), text);
    }

    /// What is to be polled: the door first, then callers in their order.
    pub fn sources(&self) -> Vec<BorrowedFd<'_>> {
        let callers = self.callers.iter().map(|(lines, _)| lines.source().unwrap_or(lines.file.as_fd()));
        std::iter::once(self.listener.as_fd()).chain(callers).collect()
    }

    /// The source with this number is ready.
    pub fn ready(&mut self, source: usize, live: &mut Live) {
        if source == 0 {
            if let Ok((stream, _)) = self.listener.accept()
                && self.callers.len() < CALLERS_MAX
                && let Ok(answers) = stream.try_clone()
                && let Ok(lines) = Lines::new(stream)
            {
                self.callers.push((lines, answers));
            }
            return;
        }
        let Some((lines, answers)) = self.callers.get_mut(source - 1) else { return };
        for line in lines.read() {
            let answer = order(&line, live).unwrap_or_else(|error| json!({"error": error.to_string()}));
            // A caller that does not read its answers loses them.
            let _ = writeln!(answers, "{answer}");
        }
        self.callers.retain(|(lines, _)| lines.open);
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        let _ = fs::remove_file(self.path.with_extension(LEFT));
        let _ = fs::remove_file(&self.path);
    }
}

/// A ledger for the sandboxes of a server, below the state directory; what killed ones left is removed before. `None` where there is
/// no place that no sandbox can write to.
pub(super) fn ledger(root: &Path) -> Option<Ledger> {
    let [dir, _] = directories(root);
    make(&dir).ok().filter(|()| is_private(&dir))?;
    sweep(&dir, usize::MAX);
    Ledger::open(&dir, &super::supervise::new_id()).ok()
}

/// Keeps a sandbox from writing to the state directory, should that lie in what it may write: what is written there about sandboxes
/// that were killed is believed, and removed.
pub fn guard(root: &Path, policy: &mut Policy) {
    let own = root.join("sandbox");
    let Ok(own) = make(&own).and_then(|()| fs::canonicalize(&own).during(|| "find the state directory".into())) else {
        return;
    };
    let files = &policy.files;
    let here = std::env::current_dir().unwrap_or_default();
    let here = here.join(policy.process.cwd.as_deref().unwrap_or(Path::new("")));
    let binds = files.binds.iter().filter(|bind| bind.write).map(|bind| &bind.source).chain(&files.overlay);
    let patterns = files.allow_write.iter().map(|pattern| here.join(super::files::before_glob(pattern)));
    let workdir = matches!(files.workdir, Workdir::Write | Workdir::Overlay).then(|| here.clone());
    let all = binds.map(|path| here.join(path)).chain(patterns).chain(workdir);
    let open: Vec<PathBuf> = all.filter_map(|path| fs::canonicalize(path).ok()).collect();
    if !open.iter().any(|path| own.starts_with(path)) {
        return;
    }
    // The records of containers, too, unless there is nothing else that may be written.
    let whole = own.parent().filter(|whole| open.iter().all(|path| !path.starts_with(whole)));
    let path = whole.unwrap_or(&own).to_string_lossy().into_owned();
    policy.files.deny_write.push(glob::Pattern::escape(&path));
}

/// Makes the directory of one user's sandboxes, if it is not there.
fn make(dir: &Path) -> Result<()> {
    let during = || format!("make {}", dir.display());
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).during(during)?;
    if is_own(dir) { Ok(()) } else { Err(Error::invalid(format!("{} is another user's", dir.display()))) }
}

/// Whether a directory is this user's, and no symlink to one: what others put there is not to be believed, nor removed.
fn is_own(dir: &Path) -> bool {
    let own = |found: fs::Metadata| {
        found.is_dir() && found.uid() == nix::unistd::geteuid().as_raw() && found.mode() & 0o022 == 0
    };
    fs::symlink_metadata(dir).is_ok_and(own)
}

/// Whether no sandbox can write there: below /tmp one without namespaces may.
fn is_private(dir: &Path) -> bool {
    !dir.to_string_lossy().starts_with("/tmp/brig-sandbox-")
}

/// Whether somebody listens at a socket, without ever waiting for it.
fn answers(path: &Path) -> bool {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let Ok(address) = UnixAddr::new(path) else { return false };
    let Ok(caller) = socket(AddressFamily::Unix, SockType::Stream, flags, None) else { return true };
    // EAGAIN: it has more callers than it has come to.
    matches!(connect(std::os::fd::AsRawFd::as_raw_fd(&caller), &address), Ok(()) | Err(nix::errno::Errno::EAGAIN))
}

/// Removes what sandboxes left whose brig was killed: nobody listens at their doors. Looks at so many at `most`.
fn sweep(dir: &Path, most: usize) {
    if !is_own(dir) || !is_private(dir) {
        return;
    }
    let entries = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    let is = |path: &PathBuf, kind| path.extension().is_some_and(|own| own == kind);
    for path in entries.filter(|path| is(path, LEFT) || is(path, LEDGER)).take(most) {
        if is(&path, LEDGER) {
            ledger::sweep(&path);
            continue;
        }
        let door = path.with_extension("sock");
        if !answers(&door) {
            ledger::settle(&path);
            let _ = fs::remove_file(&door);
        }
    }
}

/// Sends an order to a sandbox that runs, by its ID.
///
/// # Errors
/// [`Kind::NotFound`] when none runs by that ID; what the sandbox says against it.
pub fn send(root: &Path, id: &str, order: &Value) -> Result<Value> {
    let gone = || {
        Error::new(Kind::NotFound, format!("no sandbox with the ID {id:?} runs"))
            .hint("brig sandbox list shows those that do")
    };
    let connect = |dir: &PathBuf| UnixStream::connect(dir.join(format!("{id}.sock"))).ok();
    let own = directories(root).into_iter().filter(|dir| is_own(dir));
    let mut stream = own.into_iter().find_map(|dir| connect(&dir)).ok_or_else(gone)?;
    let _ = stream.set_read_timeout(Some(PATIENCE));
    writeln!(stream, "{order}").map_err(|_| gone())?;
    stream.shutdown(std::net::Shutdown::Write).map_err(|_| gone())?;
    let mut text = String::new();
    stream.read_to_string(&mut text).during(|| format!("hear from sandbox {id}"))?;
    let answer: Value = serde_json::from_str(text.trim()).map_err(|_| gone())?;
    match answer.get("error").and_then(Value::as_str) {
        Some(error) => Err(Error::invalid(error.to_owned())),
        None => Ok(answer),
    }
}

/// The IDs of the sandboxes that run, of this user's.
pub fn list(root: &Path) -> Vec<String> {
    directories(root).iter().for_each(|dir| sweep(dir, usize::MAX));
    let own = directories(root).into_iter().filter(|dir| is_own(dir));
    let entries = own.filter_map(|dir| fs::read_dir(dir).ok()).flatten().flatten();
    let sockets = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_socket()));
    let mut ids: Vec<String> = sockets
        .filter_map(|entry| Some((entry.file_name().to_str()?.strip_suffix(".sock")?.to_owned(), entry.path())))
        .filter(|(_, path)| {
            let alive = answers(path);
            if !alive {
                let _ = fs::remove_file(path);
            }
            alive
        })
        .map(|(id, _)| id)
        .collect();
    ids.sort();
    ids
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sockets_of_ones_own_are_removed() {
        let root = std::env::temp_dir().join(format!("brig-control-{}", std::process::id()));
        let (own, other) = (root.join("sandbox"), root.join("documents"));
        for dir in [&own, &other] {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).unwrap();
        }
        let dead = own.join("dead.sock");
        drop(UnixListener::bind(&dead).unwrap());
        for file in [own.join("file.sock"), own.join("notes"), other.join("letter.sock")] {
            fs::write(file, "mine").unwrap();
        }
        let living = UnixListener::bind(own.join("living.sock")).unwrap();
        // Sandboxes of others on this machine are listed, too.
        let listed = || {
            list(&root)
                .into_iter()
                .filter(|id| ["dead", "file", "letter", "living"].contains(&id.as_str()))
                .collect::<Vec<_>>()
        };
        assert_eq!(listed(), ["living"]);
        assert!(!dead.exists() && own.join("file.sock").exists() && own.join("notes").exists());
        drop(living);
        // A symlink is another place, whoever made it.
        fs::remove_dir_all(&own).unwrap();
        let dead = other.join("dead.sock");
        drop(UnixListener::bind(&dead).unwrap());
        std::os::unix::fs::symlink(&other, &own).unwrap();
        assert_eq!(listed(), [""; 0]);
        assert!(dead.exists() && other.join("letter.sock").exists());
        assert!(send(&root, "dead", &json!({"status": true})).is_err() && Door::open_in(&own, "x").is_err());
        fs::remove_dir_all(&root).unwrap();
    }

    #[test]
    fn the_state_directory_is_not_among_what_may_be_written() {
        let top = std::env::temp_dir().join(format!("brig-guard-{}", std::process::id()));
        fs::create_dir_all(&top).unwrap();
        let top = fs::canonicalize(top).unwrap();
        let (root, path) = (top.join("state"), top.to_string_lossy().into_owned());
        let denied = |change: &dyn Fn(&mut Policy)| {
            let mut policy = Policy::default();
            policy.files.workdir = Workdir::ReadOnly;
            change(&mut policy);
            guard(&root, &mut policy);
            policy.files.deny_write
        };
        let whole = [root.to_string_lossy().into_owned()];
        assert_eq!(denied(&|_| {}), [""; 0]);
        assert_eq!(denied(&|p| p.process.cwd = Some(top.clone())), [""; 0]);
        assert_eq!(denied(&|p| p.files.allow_write.push(path.clone())), whole);
        assert_eq!(denied(&|p| p.files.allow_write.push(format!("{path}/st*"))), whole);
        assert_eq!(denied(&|p| p.files.overlay.push(top.clone())), whole);
        assert_eq!(
            denied(&|p| {
                p.process.cwd = Some(root.clone());
                p.files.workdir = Workdir::Write;
            }),
            [format!("{}/sandbox", whole[0])]
        );
        fs::remove_dir_all(top).unwrap();
    }
}
