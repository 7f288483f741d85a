//! The library: a sandbox is described by a builder, and run to its end, or started and attended to while it runs.
//!
//! ```no_run
//! use brig::sandbox::Sandbox;
//! use std::time::Duration;
//!
//! let report = Sandbox::new("python3")
//!     .args(["-c", "print(6 * 7)"])
//!     .memory("256M")
//!     .timeout(Duration::from_secs(10))
//!     .run()?;
//! assert_eq!(report.stdout.unwrap().text, "42\n");
//! # Ok::<(), brig::error::Error>(())
//! ```
//!
//! Namespaces and cgroups are made by the caller where it has the privilege, in a user namespace of its own where not; the
//! report's `mode`, `limits` and `notes` say what came of it. A program may have many threads and run many sandboxes at once.

mod running;

pub use running::Running;

use super::event::Event;
use super::interpreter;
use super::lint;
use super::policy::{Bind, LintMode, NetworkMode, Policy, Profile, View};
use super::report::{Finding, Report};
use super::start;
use super::supervise::{self, Attendant, Job, Stream};
use super::units::{Bytes, Percent, Span};
use crate::error::{Context, Error, Result};
use crate::spec::{Seccomp, Spec};
use crate::sys::init;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use std::fmt::{self, Display};
use std::fs::File;
use std::io::{Seek, Write};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

/// How much of each captured stream is kept where nothing else is said.
const KEEP: usize = 1 << 20;

/// What the program reads.
#[derive(Debug)]
pub enum Input {
    /// The caller's own standard input.
    Inherit,
    /// Nothing: `/dev/null`.
    Null,
    /// This file.
    File(OwnedFd),
    /// These bytes.
    Bytes(Vec<u8>),
    /// What is written to [`Running::stdin`].
    Pipe,
}

macro_rules! inputs {
    ($($from:ty: $name:ident => $make:expr;)*) => {$(
        impl From<$from> for Input {
            fn from($name: $from) -> Input {
                $make
            }
        }
    )*};
}

inputs! {
    &str: text => Input::Bytes(text.into());
    String: text => Input::Bytes(text.into_bytes());
    &[u8]: bytes => Input::Bytes(bytes.into());
    Vec<u8>: bytes => Input::Bytes(bytes);
    OwnedFd: file => Input::File(file);
    File: file => Input::File(file.into());
}

/// Amounts from what a caller has at hand; texts are as in policy files.
macro_rules! amounts {
    ($($amount:ty: $($from:ty),+;)*) => {$($(
        impl TryFrom<$from> for $amount {
            type Error = String;
            fn try_from(value: $from) -> std::result::Result<$amount, String> {
                value.to_string().parse()
            }
        }
    )+)*};
}

amounts! {
    Bytes: &str, String, i32, u32, u64, usize;
    Percent: &str, String, i32, u32, f64;
}

/// What is run: a program by its name or path, or a script by its file.
#[derive(Debug)]
enum Program {
    Command(String),
    Script(PathBuf),
}

type Callback = Box<dyn FnMut(&Event) + Send>;

/// A sandbox that is to be: a program, what it may do, and what becomes of its streams. What is not said is as in
/// [`Policy::default`]; standard input is empty, standard output and error are captured, the first MiB of each is kept.
///
/// A value that can't be (a size that is none) is told by [`run`](Sandbox::run), [`spawn`](Sandbox::spawn) or
/// [`spec`](Sandbox::spec): the first one that there was.
pub struct Sandbox {
    program: Program,
    args: Vec<String>,
    policy: Policy,
    input: Input,
    outputs: [Stream; 2],
    keep_output: usize,
    sample: Option<Duration>,
    diff: bool,
    commit: bool,
    callback: Option<Callback>,
    wrong: Option<Error>,
}

impl fmt::Debug for Sandbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sandbox")
            .field("program", &self.program)
            .field("args", &self.args)
            .field("policy", &self.policy)
            .finish_non_exhaustive()
    }
}

impl Sandbox {
    fn with_program(program: Program) -> Sandbox {
        Sandbox {
            program,
            args: Vec::new(),
            policy: Policy::default(),
            input: Input::Null,
            outputs: [Stream::Capture, Stream::Capture],
            keep_output: KEEP,
            sample: None,
            diff: false,
            commit: false,
            callback: None,
            wrong: None,
        }
    }

    /// A sandbox for a program: a path, or a name that is looked for in the PATH that the program gets.
    pub fn new(program: impl Into<String>) -> Sandbox {
        Sandbox::with_program(Program::Command(program.into()))
    }

    /// A sandbox for a script, run by the interpreter of its extension or of its `#!` line (see [`interpreter::resolve`]).
    /// [`LintMode`] of the policy says whether it is analysed before.
    pub fn script(file: impl Into<PathBuf>) -> Sandbox {
        Sandbox::with_program(Program::Script(file.into()))
    }

    /// One more argument.
    pub fn arg(mut self, arg: impl Into<String>) -> Sandbox {
        self.args.push(arg.into());
        self
    }

    /// More arguments.
    pub fn args<S: Into<String>>(mut self, args: impl IntoIterator<Item = S>) -> Sandbox {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// A whole policy, in place of what was said so far.
    pub fn policy(mut self, policy: Policy) -> Sandbox {
        self.policy = policy;
        self
    }

    /// Changes what the other methods have no word for.
    pub fn with(mut self, change: impl FnOnce(&mut Policy)) -> Sandbox {
        change(&mut self.policy);
        self
    }

    /// Its ID, which no other sandbox that runs may have; one is made without.
    pub fn id(self, id: impl Into<String>) -> Sandbox {
        self.with(|policy| policy.id = Some(id.into()))
    }

    fn amount<T, V: TryInto<T>>(mut self, name: &str, value: V, set: impl FnOnce(&mut Policy, T)) -> Sandbox
    where
        V::Error: Display,
    {
        match value.try_into() {
            Ok(value) => set(&mut self.policy, value),
            Err(why) => {
                self.wrong.get_or_insert(Error::invalid(format!("{name}: {why}")));
            }
        }
        self
    }

    /// Memory: bytes, or a text such as `"256M"`.
    pub fn memory(self, most: impl TryInto<Bytes, Error: Display>) -> Sandbox {
        self.amount("memory", most, |policy, most| policy.limits.memory = Some(most))
    }

    /// Share of one CPU in percent: `50`, `"150%"`.
    pub fn cpu_percent(self, share: impl TryInto<Percent, Error: Display>) -> Sandbox {
        self.amount("cpu_percent", share, |policy, share| {
            (policy.limits.cpu, policy.limits.cpu_quota) = (Some(share), None);
        })
    }

    /// CPU time in each period, both in microseconds, in place of a share.
    pub fn cpu_quota(self, quota: u64, period: u64) -> Sandbox {
        self.with(|policy| (policy.limits.cpu, policy.limits.cpu_quota) = (None, Some((quota, period))))
    }

    /// Processes and threads.
    pub fn pids(self, most: u64) -> Sandbox {
        self.with(|policy| policy.limits.pids = Some(most))
    }

    /// Wall-clock time; then all of it is ended, and the status is 124.
    pub fn timeout(self, most: Duration) -> Sandbox {
        self.with(|policy| policy.limits.timeout = Some(Span(most)))
    }

    /// A built-in profile of system calls.
    pub fn profile(self, profile: Profile) -> Sandbox {
        self.with(|policy| policy.syscalls.profile = profile)
    }

    /// A profile of one's own in OCI's form (runtime-spec, config-linux.md, "Seccomp"), in place of a built-in one.
    pub fn seccomp(self, profile: Seccomp) -> Sandbox {
        self.with(|policy| policy.syscalls.custom = Some(profile))
    }

    /// A directory as the root, read-only, in place of the host's files.
    pub fn root(self, directory: impl Into<PathBuf>) -> Sandbox {
        self.with(|policy| policy.files.view = View::Root(directory.into()))
    }

    /// A directory as the root; changes go to the writable layer.
    pub fn root_overlay(self, directory: impl Into<PathBuf>) -> Sandbox {
        self.with(|policy| policy.files.view = View::RootOverlay(directory.into()))
    }

    /// One more path of the host.
    pub fn bind(self, bind: Bind) -> Sandbox {
        self.with(|policy| policy.files.binds.push(bind))
    }

    /// The program's user ID.
    pub fn uid(self, uid: u32) -> Sandbox {
        self.with(|policy| policy.process.uid = Some(uid))
    }

    /// The program's group ID.
    pub fn gid(self, gid: u32) -> Sandbox {
        self.with(|policy| policy.process.gid = Some(gid))
    }

    /// Its working directory.
    pub fn cwd(self, directory: impl Into<PathBuf>) -> Sandbox {
        self.with(|policy| policy.process.cwd = Some(directory.into()))
    }

    /// A variable of its environment.
    pub fn env(self, name: impl Into<String>, value: impl Into<String>) -> Sandbox {
        self.with(|policy| drop(policy.process.env.insert(name.into(), value.into())))
    }

    /// Nothing of the caller's environment.
    pub fn clear_env(self) -> Sandbox {
        self.with(|policy| policy.process.clear_env = true)
    }

    /// A domain that may be reached (`example.com`, `*.example.com`, `example.com:443`), through brig's proxies.
    pub fn allow_domain(self, domain: impl Into<String>) -> Sandbox {
        self.with(|policy| policy.network.allow.push(domain.into()))
    }

    /// A domain that may not, whatever else allows it.
    pub fn deny_domain(self, domain: impl Into<String>) -> Sandbox {
        self.with(|policy| policy.network.deny.push(domain.into()))
    }

    /// The host's network as it is.
    pub fn net_host(self) -> Sandbox {
        self.with(|policy| policy.network.mode = NetworkMode::Host)
    }

    /// What it reads: bytes, a file, or an [`Input`].
    pub fn stdin(mut self, input: impl Into<Input>) -> Sandbox {
        self.input = input.into();
        self
    }

    /// What becomes of its standard output.
    pub fn stdout(mut self, stream: Stream) -> Sandbox {
        self.outputs[0] = stream;
        self
    }

    /// What becomes of its standard error.
    pub fn stderr(mut self, stream: Stream) -> Sandbox {
        self.outputs[1] = stream;
        self
    }

    /// How many bytes of each captured stream the report keeps.
    pub fn keep_output(mut self, bytes: usize) -> Sandbox {
        self.keep_output = bytes;
        self
    }

    /// How often use is looked at while it runs: the report has the curve, events tell it at once.
    pub fn sample(mut self, every: Duration) -> Sandbox {
        self.sample = Some(every);
        self
    }

    /// Have the report list what was changed in the writable layer.
    pub fn diff(mut self) -> Sandbox {
        self.diff = true;
        self
    }

    /// Make these changes for real when the program exits with status 0.
    pub fn commit(mut self) -> Sandbox {
        self.commit = true;
        self
    }

    /// Watches: called with each event as it happens, by the thread that attends to the sandbox, which waits meanwhile. With
    /// [`spawn`](Sandbox::spawn), events that are told here do not wait in the [`Running`].
    pub fn on_event(mut self, watch: impl FnMut(&Event) + Send + 'static) -> Sandbox {
        self.callback = Some(Box::new(watch));
        self
    }

    /// Runs it to its end, attended to by the calling thread.
    ///
    /// # Errors
    /// What is wrong with what was said, or what kept the program from starting; nothing is left then. A program that fails
    /// or is ended is no error: the report's `outcome` tells.
    pub fn run(self) -> Result<Report> {
        if matches!(self.input, Input::Pipe) {
            return Err(Error::invalid("stdin: Input::Pipe is written through Running::stdin")
                .hint("use spawn, or give the bytes at once"));
        }
        let (job, callback, _) = self.job()?;
        supervise::run(job, &mut Told(callback))
    }

    /// Starts it, attended to by a thread of its own.
    ///
    /// # Errors
    /// What is wrong with what was said. What keeps the program from starting is told by [`Running::wait`].
    pub fn spawn(self) -> Result<Running> {
        let (job, callback, stdin) = self.job()?;
        Running::start(job, callback, stdin)
    }

    /// The OCI configuration that it comes to, without running anything.
    ///
    /// # Errors
    /// As [`run`](Sandbox::run).
    pub fn spec(&self) -> Result<Spec> {
        self.wrong.clone().map_or(Ok(()), Err)?;
        supervise::spec(&self.policy, &self.command()?)
    }

    /// The program and its arguments as they are run.
    fn command(&self) -> Result<Vec<String>> {
        match &self.program {
            Program::Command(program) => Ok([program].into_iter().chain(&self.args).cloned().collect()),
            Program::Script(file) => {
                let own = self.policy.process.env.get("PATH").cloned();
                let path = own.or_else(|| std::env::var("PATH").ok()).unwrap_or_default();
                interpreter::resolve(file, &self.args, &path, &|program| program.is_file())
            }
        }
    }

    /// What is found in a script, as far as the policy asks.
    fn findings(&self) -> Result<Vec<Finding>> {
        let Program::Script(file) = &self.program else { return Ok(Vec::new()) };
        if self.policy.lint == LintMode::Off {
            return Ok(Vec::new());
        }
        let findings = lint::analyse_file(file)?;
        let serious = findings.iter().filter(|finding| finding.severity != "low").count();
        if self.policy.lint == LintMode::Deny && serious > 0 {
            let shown = file.display();
            return Err(Error::invalid(format!(
                "{shown}: {serious} findings of severity medium or high, and lint is deny"
            ))
            .hint("sandbox::lint::analyse_file has them; with LintMode::Warn they are in the report"));
        }
        Ok(findings)
    }

    fn job(mut self) -> Result<(Job, Option<Callback>, Option<File>)> {
        self.wrong.take().map_or(Ok(()), Err)?;
        let (command, findings) = (self.command()?, self.findings()?);
        start::complete(&mut self.policy);
        start::check(&self.policy)?;
        let (stdin, writer) = match self.input {
            Input::Inherit => (Stream::Inherit, None),
            Input::Null => (Stream::Null, None),
            Input::File(file) => (Stream::File(file), None),
            Input::Bytes(bytes) => (Stream::File(file_of(&bytes).during(|| "stdin".into())?), None),
            Input::Pipe => {
                let (reader, writer) = init::pipe().during(|| "stdin: make a pipe".into())?;
                (Stream::File(reader), Some(File::from(writer)))
            }
        };
        let [stdout, stderr] = self.outputs;
        let job = Job {
            measure: true,
            policy: self.policy,
            command,
            later: false,
            streams: [stdin, stdout, stderr],
            keep_output: self.keep_output,
            sample: self.sample,
            list_changes: self.diff,
            commit: self.commit,
            findings,
        };
        Ok((job, self.callback, writer))
    }
}

/// A file in memory that holds these bytes and can't be changed (memfd_create(2)).
fn file_of(bytes: &[u8]) -> std::io::Result<OwnedFd> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let mut file = File::from(memfd_create(c"brig-stdin", flags)?);
    file.write_all(bytes)?;
    file.rewind()?;
    fcntl(&file, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SHRINK))?;
    Ok(file.into())
}

/// Tells events to a callback.
struct Told(Option<Callback>);

impl Attendant for Told {
    fn event(&mut self, event: &Event) {
        if let Some(callback) = &mut self.0 {
            callback(event);
        }
    }
}
