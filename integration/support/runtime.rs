//! The runtime under test, and calls of it.

use super::{Test, Value, host, os, suite};
use crate::payload::filter;
use std::fs::{self, File};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

/// Which runtime it is, as far as its behaviour is known to differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Brig,
    Runc,
    Crun,
}

/// A runtime's program.
pub struct Runtime {
    pub path: PathBuf,
    pub kind: Kind,
    version: String,
    note: &'static str,
}

/// The runtime that `BRIG` names, else the brig that was just built.
pub fn under_test() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        let wanted = std::env::var_os("BRIG").map_or_else(|| env!("CARGO_BIN_EXE_brig").into(), PathBuf::from);
        let path = find(&wanted).unwrap_or_else(|| panic!("BRIG={} is not a program", wanted.display()));
        let version = Command::new(&path)
            .arg("--version")
            .output()
            .map(|o| String::from_utf8_lossy(&o.stdout).into_owned())
            .unwrap_or_default();
        let kind = match version.split_whitespace().next() {
            Some("runc") => Kind::Runc,
            Some("crun") => Kind::Crun,
            _ => Kind::Brig,
        };
        let note = if kind == Kind::Crun && host::hide_unified() {
            ", with the v2 half of hybrid cgroups hidden: crun knows no hybrid"
        } else {
            ""
        };
        Runtime { path, kind, version: version.lines().next().unwrap_or_default().to_string(), note }
    })
}

fn find(wanted: &Path) -> Option<PathBuf> {
    if wanted.components().count() > 1 {
        return fs::canonicalize(wanted).ok();
    }
    std::env::split_paths(&std::env::var_os("PATH")?).map(|dir| dir.join(wanted)).find(|path| path.is_file())
}

impl Runtime {
    /// The path, what it says of its version, and what was arranged for it.
    pub fn describe(&self) -> String {
        format!("{} ({}{})", self.path.display(), self.version, self.note)
    }
}

/// A call of the runtime that is being put together.
pub struct Call<'t> {
    test: &'t Test,
    command: Command,
    stdout: Option<OwnedFd>,
    shown: Vec<String>,
    limit: Duration,
}

impl<'t> Call<'t> {
    /// `globals` go before the command. The environment is as bare as podman's, but for PATH and the mark by which the
    /// test finds processes of its own.
    pub fn new(test: &'t Test, globals: &[&str], args: &[&str]) -> Call<'t> {
        Call::through(test, &[], globals, args)
    }

    /// As [`Call::new`], started by another program, which gets the runtime's path and arguments after its own.
    pub fn through(test: &'t Test, program: &[&str], globals: &[&str], args: &[&str]) -> Call<'t> {
        let path = under_test().path.display().to_string();
        let root = test.root().display().to_string();
        let words = [program, &[&path, "--root", &root], globals, args].concat();
        let mut call = Call::of(test, &words);
        call.shown = globals.iter().chain(args).map(ToString::to_string).collect();
        if let Some(calls) = test.filter() {
            let program = filter::compile(&calls);
            // SAFETY: one system call.
            unsafe { call.command.pre_exec(move || filter::load(&program)) };
        }
        call
    }

    /// A call of any program, in the same environment.
    pub fn of(test: &'t Test, words: &[&str]) -> Call<'t> {
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).current_dir(test.dir()).stdin(Stdio::null());
        command
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("BRIG_TEST", test.id());
        // A plain user's session: where its state goes, and the bus of its systemd.
        if let Some(dir) = std::env::var_os("XDG_RUNTIME_DIR").filter(|_| !os::is_root()) {
            command.env("XDG_RUNTIME_DIR", dir);
        }
        let shown = words.iter().map(ToString::to_string).collect();
        Call { test, command, stdout: None, shown, limit: os::PATIENCE }
    }

    pub fn args(mut self, args: &[&str]) -> Self {
        self.command.args(args);
        self.shown.extend(args.iter().map(ToString::to_string));
        self
    }

    pub fn env(self, key: &str, value: &str) -> Self {
        self.env_os(key, value.as_ref())
    }

    pub fn env_os(mut self, key: &str, value: &std::ffi::OsStr) -> Self {
        self.command.env(key, value);
        self
    }

    pub fn stdin(mut self, stdin: impl Into<Stdio>) -> Self {
        self.command.stdin(stdin);
        self
    }

    /// Standard output goes here instead of to a file that `Out` is read from.
    pub fn stdout(mut self, stdout: OwnedFd) -> Self {
        self.stdout = Some(stdout);
        self
    }

    /// Has longer to end: an engine does more than a runtime, and in an emulated guest all of it takes ten times as long.
    pub fn patient(mut self) -> Self {
        self.limit = 4 * os::PATIENCE;
        self
    }

    /// Runs in this directory.
    pub fn cwd(mut self, dir: &Path) -> Self {
        self.command.current_dir(dir);
        self
    }

    /// Gives the runtime these descriptors under these numbers, which should be ones that nobody else uses.
    pub fn pass(mut self, fds: Vec<(OwnedFd, i32)>) -> Self {
        let mut high: Vec<i32> = fds.iter().map(|_| 0).collect();
        let install = move || {
            // Out of each other's way first: a descriptor may have the number that another one is wanted under.
            for (at, (fd, _)) in high.iter_mut().zip(&fds) {
                // SAFETY: takes integers; fcntl is async-signal-safe.
                *at = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 500) };
            }
            for (at, (_, number)) in high.iter().zip(&fds) {
                // SAFETY: both are integers; dup2 is async-signal-safe.
                if unsafe { libc::dup2(*at, *number) } < 0 {
                    return Err(std::io::Error::last_os_error());
                }
            }
            Ok(())
        };
        // SAFETY: the closure only calls fcntl and dup2.
        unsafe { self.command.pre_exec(install) };
        self
    }

    /// Does this in the child just before the runtime starts; it may only make system calls.
    ///
    /// # Safety
    /// As [`CommandExt::pre_exec`].
    pub unsafe fn before(mut self, act: impl FnMut() -> std::io::Result<()> + Send + Sync + 'static) -> Self {
        // SAFETY: the caller's promise.
        unsafe { self.command.pre_exec(act) };
        self
    }

    /// Starts it without waiting.
    pub fn spawn(mut self) -> Running {
        let number = self.test.next_number();
        let (out, err) = (self.test.dir().join(format!("{number}.out")), self.test.dir().join(format!("{number}.err")));
        match self.stdout.take() {
            Some(fd) => self.command.stdout(fd),
            None => self.command.stdout(File::create(&out).expect("a file for stdout")),
        };
        self.command.stderr(File::create(&err).expect("a file for stderr"));
        let shown = self.shown.join(" ");
        let child = self.command.spawn().unwrap_or_else(|e| panic!("can't start the runtime for `{shown}`: {e}"));
        Running { child, out, err, shown, limit: self.limit }
    }

    /// Runs it to its end.
    pub fn out(self) -> Out {
        self.spawn().wait()
    }

    /// Runs it to its end, which has to be a success.
    #[track_caller]
    pub fn ok(self) -> Out {
        self.out().ok()
    }
}

/// A call under way.
pub struct Running {
    pub child: Child,
    out: PathBuf,
    err: PathBuf,
    shown: String,
    limit: Duration,
}

impl Running {
    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// Waits for the end. A runtime that does not end is killed, and the test fails.
    #[track_caller]
    pub fn wait(mut self) -> Out {
        let ended = os::pidfd(self.pid()).is_ok_and(|fd| os::readable(&fd, self.limit));
        if !ended {
            let _ = self.child.kill();
        }
        let status = self.child.wait().expect("a status");
        let read = |path: &Path| String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned();
        let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
        let out = Out { code, stdout: read(&self.out), stderr: read(&self.err), shown: self.shown.clone() };
        assert!(ended, "`{}` did not end within {:?}\nstderr: {}", out.shown, self.limit, out.stderr);
        out
    }

    /// Ends the runtime itself, as an OOM kill would.
    pub fn kill(mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Running {
    /// A test that fails leaves no runtime behind.
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// How a call ended. The code is the exit status, or 128 and the signal.
#[derive(Debug)]
pub struct Out {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
    shown: String,
}

impl Out {
    /// It succeeded.
    #[track_caller]
    pub fn ok(self) -> Out {
        self.code(0)
    }

    /// It ended with this status.
    #[track_caller]
    pub fn code(self, code: i32) -> Out {
        assert!(
            self.code == code,
            "`{}` ended with {}, not {code}\nstdout: {}\nstderr: {}",
            self.shown,
            self.code,
            self.stdout,
            self.stderr
        );
        self
    }

    /// It failed, and said all of these words (letter case aside). The words are brig's contract: the others fail in
    /// words of their own.
    #[track_caller]
    pub fn fails(self, words: &[&str]) -> Out {
        assert!(self.code != 0, "`{}` succeeded\nstdout: {}\nstderr: {}", self.shown, self.stdout, self.stderr);
        let said = self.stderr.to_lowercase();
        for word in words.iter().filter(|_| under_test().kind == Kind::Brig) {
            assert!(
                said.contains(&word.to_lowercase()),
                "`{}` does not say {word:?}\nstderr: {}",
                self.shown,
                self.stderr
            );
        }
        self
    }

    /// Its output as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| {
            panic!("`{}` printed no JSON ({e}): {}\nstderr: {}", self.shown, self.stdout, self.stderr)
        })
    }
}

impl Test {
    /// Skips the test if the runtime under test is this one, which differs for this reason. brig needs no excuse: what
    /// it does is what the test asserts.
    pub fn differs(&self, kind: Kind, reason: &str) {
        if self.kind() == kind {
            suite::skip(format!("{kind:?} differs: {reason}"));
        }
    }

    /// As [`Test::differs`], for both of the others.
    pub fn only_brig(&self, reason: &str) {
        self.differs(Kind::Runc, reason);
        self.differs(Kind::Crun, reason);
    }

    pub fn kind(&self) -> Kind {
        under_test().kind
    }
}
