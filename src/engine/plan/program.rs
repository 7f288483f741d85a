//! The program to run: argv, envp, and every place where it may be found; and the state that hooks read.

use crate::error::{Error, Result};
use crate::spec::Process;
use crate::sys::path::{self, Follow};
use crate::sys::{CArray, Errno, Letter, files, process};
use nix::fcntl::OFlag;
use std::borrow::Cow;
use std::ffi::CString;
use std::io::{BufRead, BufReader};
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;

/// What execve(2) gets.
#[derive(Debug)]
pub struct Program {
    /// Where the program may be, in the order of PATH.
    pub candidates: Vec<CString>,
    /// Its arguments.
    pub argv: CArray,
    /// Its environment.
    pub envp: CArray,
    name: String,
    /// Where all of this is read in its place: it is written only when the child waits at [`super::Sync::Ready`].
    pub later: Option<Rc<Letter>>,
}

/// Where programs are looked for when the container's environment has no PATH.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

impl Program {
    /// Compiles `process.args` and `process.env`; `home` is HOME's value where the environment has none, `extra` is put
    /// behind the config's environment.
    ///
    /// # Errors
    /// A NUL byte.
    pub fn new(process: &Process, home: Option<&str>, extra: &[String]) -> Result<Program> {
        let name = process.args.first().cloned().unwrap_or_default();
        let strings = |field: &str, values: Vec<String>| -> Result<Vec<CString>> {
            let one = |s| CString::new(s).map_err(|_| Error::invalid(format!("/process/{field}: holds a NUL byte")));
            values.into_iter().map(one).collect()
        };
        let mut env = last_of_each(process.env.iter().chain(extra));
        if let Some(home) = home
            && !env.iter().any(|e| e.starts_with("HOME="))
        {
            env.push(format!("HOME={home}"));
        }
        let candidates = if name.contains('/') {
            vec![name.clone()]
        } else {
            let path = env.iter().rev().find_map(|e| e.strip_prefix("PATH=")).unwrap_or(DEFAULT_PATH);
            // An empty or relative element would mean the working directory, which is the image's to choose.
            path.split(':').filter(|dir| dir.starts_with('/')).map(|dir| format!("{dir}/{name}")).collect()
        };
        Ok(Program {
            candidates: strings("args", candidates)?,
            argv: CArray::new(strings("args", process.args.clone())?),
            envp: CArray::new(strings("env", env)?),
            name,
            later: None,
        })
    }

    /// Runs it from such a place, or, where it was named late, from the first place that has it; returns only on failure. For
    /// the child: allocates nothing.
    pub fn run(&self, number: usize) -> Errno {
        match (&self.later, self.candidates.get(number)) {
            (Some(letter), _) => run_first(letter),
            (None, Some(path)) => process::execve(path, &self.argv, &self.envp),
            (None, None) => Errno::ENOENT,
        }
    }

    /// What the user called it.
    pub fn called(&self) -> Cow<'_, str> {
        match &self.later {
            Some(letter) => letter.name().to_string_lossy(),
            None => Cow::Borrowed(&self.name),
        }
    }

    /// Why the program can't be run, in the words that engines look for.
    pub fn not_found(&self) -> String {
        let name = self.called();
        if name.contains('/') {
            format!("exec: {name:?}: no such file or directory")
        } else {
            format!("exec: {name:?}: executable file not found in $PATH")
        }
    }
}

/// As execvp(3), by trying: behind a filter no other call may be allowed.
fn run_first(letter: &Letter) -> Errno {
    let mut worst = Errno::ENOENT;
    let mut number = 0;
    while letter.candidate(number).is_some() {
        match letter.exec(number) {
            Errno::ENOENT | Errno::ENOTDIR => {}
            Errno::EACCES => worst = Errno::EACCES,
            other => return other,
        }
        number += 1;
    }
    worst
}

/// The last value of each variable, where its first one stood: a program that looks for a name finds the first.
fn last_of_each<'e>(env: impl Iterator<Item = &'e String>) -> Vec<String> {
    let mut kept: Vec<String> = Vec::new();
    let mut places: std::collections::HashMap<&str, usize> = std::collections::HashMap::new();
    for entry in env {
        let name = entry.split_once('=').map_or(entry.as_str(), |(name, _)| name);
        match places.get(name) {
            Some(place) => kept[*place].clone_from(entry),
            None => {
                places.insert(name, kept.len());
                kept.push(entry.clone());
            }
        }
    }
    kept
}

/// The home directory of a user by the container's own /etc/passwd, `/` without an entry. Read in root, as data: it names
/// HOME and nothing else.
pub fn home_of(uid: u32, root: BorrowedFd) -> String {
    let find = || {
        let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK;
        let file = path::open(root, c"etc/passwd", flags, Follow::InRoot).ok()?;
        let stat = nix::sys::stat::fstat(file.as_fd()).ok()?;
        (path::kind(&stat) == nix::sys::stat::SFlag::S_IFREG).then_some(())?;
        let uid = uid.to_string();
        BufReader::new(std::fs::File::from(file)).lines().map_while(Result::ok).find_map(|line| {
            let mut fields = line.split(':');
            (fields.nth(2)? == uid).then(|| fields.nth(2).map(str::to_owned))?
        })
    };
    find().filter(|home| home.starts_with('/')).unwrap_or_else(|| "/".into())
}

/// The state (runtime-spec, runtime.md, "State") as hooks in the container read it: prebuilt but for the pid, which only the
/// child knows, being its own.
#[derive(Debug, Default)]
pub struct HookState {
    texts: [Vec<u8>; 2],
    pids: [usize; 2],
}

/// What stands for the pid until it is known; JSON allows white space around a number.
const BLANK: &str = "         0";

impl HookState {
    /// Takes the state as `creating` and as `created`, by a function that puts the pid's text into it.
    pub fn new(text: impl Fn(&str, &str) -> String) -> HookState {
        let make = |status: &str| {
            let text = text(status, BLANK);
            let at = text.find(BLANK).unwrap_or(text.len());
            (text.into_bytes(), at)
        };
        let ((creating, a), (created, b)) = (make("creating"), make("created"));
        HookState { texts: [creating, created], pids: [a, b] }
    }

    /// Fills the pid in. For the child: allocates nothing.
    pub fn set_pid(&mut self, pid: u32) {
        for (text, at) in self.texts.iter_mut().zip(self.pids) {
            let Some(place) = text.get_mut(at..at + BLANK.len()) else { continue };
            let mut rest = pid;
            for byte in place.iter_mut().rev() {
                *byte = if rest == 0 { b' ' } else { b'0' + (rest % 10) as u8 };
                rest /= 10;
            }
        }
    }

    /// The state before (`creating`) or after (`created`) the gate.
    pub fn bytes(&self, after_gate: bool) -> &[u8] {
        &self.texts[usize::from(after_gate)]
    }
}

/// The container's root directory, for reading data in it.
///
/// # Errors
/// As openat(2).
pub fn open_root(root: &std::path::Path) -> Result<std::os::fd::OwnedFd> {
    use crate::error::Context;
    let path =
        CString::new(root.as_os_str().as_encoded_bytes()).map_err(|_| Error::invalid("root.path holds a NUL byte"))?;
    files::open(None, &path, OFlag::O_PATH | OFlag::O_DIRECTORY)
        .during(|| format!("/root/path: open {}", root.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pid_is_filled_in() {
        let mut state = HookState::new(|status, pid| format!("{{\"status\":\"{status}\",\"pid\":{pid}}}"));
        state.set_pid(4711);
        let read = |after| serde_json::from_slice::<serde_json::Value>(state.bytes(after)).unwrap();
        assert_eq!(read(false), serde_json::json!({"status": "creating", "pid": 4711}));
        assert_eq!(read(true), serde_json::json!({"status": "created", "pid": 4711}));
    }

    #[test]
    fn candidates_come_from_the_containers_own_path() {
        let process = |args: &[&str], env: &[&str]| Process {
            args: args.iter().map(ToString::to_string).collect(),
            env: env.iter().map(ToString::to_string).collect(),
            ..Process::default()
        };
        let found = |p: &Process| {
            let made = Program::new(p, Some("/root"), &[]).unwrap();
            made.candidates.iter().map(|c| c.to_string_lossy().into_owned()).collect::<Vec<_>>()
        };
        assert_eq!(found(&process(&["sh"], &["PATH=/a:b::/c"])), ["/a/sh", "/c/sh"]);
        assert_eq!(found(&process(&["./sh"], &["PATH=/a"])), ["./sh"]);
        assert_eq!(found(&process(&["sh"], &[])).len(), 6);
        let env = Program::new(&process(&["sh"], &["A=0", "B=1", "A=1"]), Some("/root"), &["B=2".into()]).unwrap().envp;
        assert_eq!(
            env.iter().map(|e| e.to_str().unwrap().to_owned()).collect::<Vec<_>>(),
            ["A=1", "B=2", "HOME=/root"]
        );
    }
}
