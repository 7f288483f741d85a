//! What a sandbox did: the result of a run, as data that serialises to JSON.

use super::policy::Profile;
use serde::Serialize;

/// How the program ended, or why it was ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(tag = "cause", rename_all = "snake_case")]
pub enum Outcome {
    /// It exited.
    Exited {
        /// With this status.
        code: i32,
    },
    /// A signal ended it.
    Signaled {
        /// This one.
        signal: i32,
    },
    /// The time-out passed.
    TimedOut,
    /// It needed more memory than its limit, and the kernel ended it.
    OutOfMemory,
    /// The caller ended it (`kill`, a signal to brig).
    Killed {
        /// By this signal.
        signal: i32,
    },
    /// Its CPU time was used up.
    CpuTime,
}

impl Outcome {
    /// The exit status for it: the program's own, 124 for the time-out, 128 + n for signal n.
    pub fn status(self) -> i32 {
        match self {
            Outcome::Exited { code } => code,
            Outcome::Signaled { signal } | Outcome::Killed { signal } => 128 + signal,
            Outcome::TimedOut => 124,
            Outcome::OutOfMemory => 137,
            Outcome::CpuTime => 128 + 24,
        }
    }
}

/// By what walls the sandbox was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Namespaces made by a privileged caller.
    Privileged,
    /// Namespaces in a user namespace of the caller's own.
    UserNamespace,
    /// No namespaces: Landlock, seccomp and resource limits.
    Confined,
}

/// A limit and what enforced it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LimitUsed {
    /// Its name in the policy.
    pub name: &'static str,
    /// Its value in words (`256M`, `50 %`).
    pub value: String,
    /// What enforced it: `cgroup v2 memory.max`, `RLIMIT_DATA`, `timer`, `tmpfs`.
    pub by: String,
    /// Whether it was run into; `None` (`null`) if nobody tells: the kernel counts what a cgroup refuses, and not what resource
    /// limits and filesystems do.
    pub hit: Option<bool>,
}

/// What was changed in the writable layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeKind {
    /// New.
    Added,
    /// Other contents, mode or owner.
    Modified,
    /// Gone.
    Deleted,
}

/// A change of the writable layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    /// The path that the program saw.
    pub path: String,
    /// What became of it.
    pub kind: ChangeKind,
    /// Its size now, in bytes.
    pub size: u64,
}

/// A connection through the proxies, or one that was denied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Connection {
    /// Microseconds since the start.
    pub at_us: u64,
    /// `http`, `https`, `socks5`, or `mitm`.
    pub via: &'static str,
    /// Domain or address that was asked for.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Whether it was allowed.
    pub allowed: bool,
    /// The rule that decided, or the reason.
    pub reason: String,
    /// Bytes sent by the program.
    pub sent: u64,
    /// Bytes received by it.
    pub received: u64,
}

/// Something that was denied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// Microseconds since the start; of the first one.
    pub at_us: u64,
    /// `syscall`, `network` or `file`.
    pub kind: &'static str,
    /// What was denied: a call's name, a domain, a path.
    pub what: String,
    /// The program's name (comm). Of kind `network` the proxy's (`http`, `https`, `socks5`), as a TCP connection does not tell
    /// whose it is; of kind `file` empty.
    pub program: String,
    /// Its process ID on the host; 0 where the program is not known.
    pub pid: i32,
    /// How often.
    pub count: u64,
}

/// What was in use at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Sample {
    /// Microseconds since the start.
    pub at_us: u64,
    /// Memory in bytes.
    pub memory: u64,
    /// CPU time so far, in microseconds.
    pub cpu_us: u64,
    /// Processes and threads.
    pub pids: u64,
}

/// Captured output of one stream.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Captured {
    /// What came, lossily as text.
    pub text: String,
    /// Bytes that came in all.
    pub bytes: u64,
    /// Whether more came than was kept.
    pub truncated: bool,
}

/// A finding of static analysis.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The rule's name.
    pub rule: &'static str,
    /// `high`, `medium` or `low`.
    pub severity: &'static str,
    /// File.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// The code, cut to one short line.
    pub code: String,
    /// Why it matters.
    pub why: &'static str,
}

/// What a sandbox did.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The sandbox's ID.
    pub id: String,
    /// The program and its arguments.
    pub command: Vec<String>,
    /// The walls.
    pub mode: Mode,
    /// The system-call profile; `None` for a custom one.
    pub profile: Option<Profile>,
    /// When it was started, RFC 3339.
    pub started: String,
    /// How it ended.
    pub outcome: Outcome,
    /// The exit status that stands for it.
    pub status: i32,
    /// Wall-clock time in microseconds.
    pub wall_us: u64,
    /// CPU time in user mode, in microseconds.
    pub cpu_user_us: u64,
    /// CPU time in the kernel, in microseconds.
    pub cpu_system_us: u64,
    /// The most memory in use at once, in bytes.
    pub memory_peak: u64,
    /// Memory in use on average, in bytes; `None` if it ended before it was looked at.
    pub memory_average: Option<u64>,
    /// Bytes read from storage.
    pub io_read: u64,
    /// Bytes written to storage.
    pub io_written: u64,
    /// The most processes and threads at once.
    pub pids_peak: u64,
    /// Limits, and what enforced each.
    pub limits: Vec<LimitUsed>,
    /// What was changed in the writable layer.
    pub changes: Vec<Change>,
    /// Connections, allowed and denied.
    pub connections: Vec<Connection>,
    /// What was denied.
    pub violations: Vec<Violation>,
    /// What static analysis found.
    pub findings: Vec<Finding>,
    /// Use over time.
    pub samples: Vec<Sample>,
    /// Standard output, where it was captured.
    pub stdout: Option<Captured>,
    /// Standard error, where it was captured.
    pub stderr: Option<Captured>,
    /// What this host did not allow, and what was done instead.
    pub notes: Vec<String>,
}
