//! What a sandbox may do and how much of it: plain data, with the defaults that a command gets when nothing is said.

use super::units::{Bytes, Percent, Span};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// A whole policy. The keys of a policy file (JSON or TOML, `--policy`) are these fields' names.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Policy {
    /// The sandbox's ID: one is made where none is given.
    pub id: Option<String>,
    /// How much it may use.
    pub limits: Limits,
    /// Which files it sees and may change.
    pub files: Files,
    /// Whom it may talk to.
    pub network: Network,
    /// Which system calls it may make.
    pub syscalls: Syscalls,
    /// Who and where it is.
    pub process: Identity,
    /// What to do about what static analysis finds in a script.
    pub lint: LintMode,
    /// Violations that are not reported: program name (or `*`) to patterns, of which one has to occur in what was denied.
    pub ignore_violations: BTreeMap<String, Vec<String>>,
    /// Go on with fewer walls where this host, or a container around the sandbox, does not allow all of them.
    pub weaker_nested: bool,
    /// Go on with limits of each process, or none, where no cgroup is to be had that holds a limit for all of them together.
    pub weaker_limits: bool,
}

/// Limits; `None` is none. Each is enforced by a cgroup where one can be had, by a resource limit where not, and the
/// report says which.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Memory, in bytes.
    pub memory: Option<Bytes>,
    /// Swap on top of memory, in bytes.
    pub swap: Option<Bytes>,
    /// Share of one CPU, in percent: 150 is one and a half.
    pub cpu: Option<Percent>,
    /// The same as quota and period, both in microseconds; instead of `cpu`.
    pub cpu_quota: Option<(u64, u64)>,
    /// CPU time of one process, in seconds (`RLIMIT_CPU`).
    pub cpu_time: Option<Span>,
    /// Processes and threads.
    pub pids: Option<u64>,
    /// The largest file that may be written, in bytes (`RLIMIT_FSIZE`).
    pub file_size: Option<Bytes>,
    /// Open files of one process (`RLIMIT_NOFILE`).
    pub open_files: Option<u64>,
    /// The writable layer and each private temporary directory, in bytes.
    pub disk: Option<Bytes>,
    /// Wall-clock time; then every process is ended and the status is 124.
    pub timeout: Option<Span>,
}

/// The root that a sandbox sees.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum View {
    /// The host's files, read-only.
    #[default]
    Host,
    /// A directory, read-only.
    Root(PathBuf),
    /// A directory; changes go to the writable layer.
    RootOverlay(PathBuf),
}

/// What becomes of the working directory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Workdir {
    /// Writable; changes go to the writable layer and are gone afterwards, unless they are committed.
    #[default]
    Overlay,
    /// As the rest of the view: read-only.
    ReadOnly,
    /// Writable, and changes are for real.
    Write,
    /// A fresh, empty directory.
    Temporary,
}

/// Files.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Files {
    /// What is seen as `/`.
    pub view: View,
    /// What the working directory is.
    pub workdir: Workdir,
    /// Paths that may be written, for real.
    pub allow_write: Vec<String>,
    /// Paths and globs that may not be read, nor written.
    pub deny_read: Vec<String>,
    /// Paths and globs that may not be written, whatever `allow_write` says.
    pub deny_write: Vec<String>,
    /// Paths that may be read although a built-in rule hides them (keys and passwords).
    pub allow_read: Vec<String>,
    /// Directories that may be written by copy-on-write.
    pub overlay: Vec<PathBuf>,
    /// Other paths of the host put into the view.
    pub binds: Vec<Bind>,
    /// Keep the files that start-up scripts and tools run or trust from being written (`.bashrc`, `.git/hooks`, ...).
    pub protect: bool,
    /// How deep below each writable directory such files are looked for.
    pub protect_depth: u32,
    /// Let `.git/config` be written all the same.
    pub allow_git_config: bool,
    /// A directory of the host for the writable layer, in place of memory; `limits.disk` does not hold there.
    pub layer: Option<PathBuf>,
    /// Use Landlock besides mounts where the kernel has it.
    pub landlock: bool,
}

/// A path of the host in the view.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bind {
    /// Where it is on the host.
    pub source: PathBuf,
    /// Where it is seen; the same place without.
    #[serde(default)]
    pub target: Option<PathBuf>,
    /// Whether it may be written.
    #[serde(default)]
    pub write: bool,
}

/// Who can be reached.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NetworkMode {
    /// Nobody: a loopback interface of its own.
    #[default]
    None,
    /// Everybody: the host's network.
    Host,
    /// The domains of the lists, through brig's proxies.
    Domains,
}

/// Network.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Network {
    /// Who can be reached. Lists imply `domains`.
    pub mode: NetworkMode,
    /// Domains that may be reached: `example.com`, `*.example.com`, `example.com:443`, an address.
    pub allow: Vec<String>,
    /// Domains that may not, looked at first.
    pub deny: Vec<String>,
    /// Let programs of the sandbox listen on and connect to its own loopback interface.
    pub allow_local_binding: bool,
    /// Unix sockets that may be used, by path.
    pub allow_unix_sockets: Vec<PathBuf>,
    /// Let any unix socket be used that the view shows.
    pub allow_all_unix_sockets: bool,
    /// An HTTP proxy of the caller's own on this port of the host's loopback, in place of brig's.
    pub http_proxy_port: Option<u16>,
    /// The same for SOCKS5.
    pub socks_proxy_port: Option<u16>,
    /// Connections to these domains go to a proxy that may look inside.
    pub mitm: Option<Mitm>,
}

/// A proxy on a unix socket for some domains.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mitm {
    /// Its socket.
    pub socket: PathBuf,
    /// Its domains, in the form of `allow`.
    pub domains: Vec<String>,
}

/// The built-in system-call profiles, each a superset of the one before.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Profile {
    /// What a program needs to start, read, write and exit.
    Minimal,
    /// And files.
    IoHeavy,
    /// And memory, threads and processes: most programs.
    #[default]
    Compute,
    /// And sockets.
    Network,
    /// Everything: for debugging.
    Unrestricted,
}

/// System calls.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Syscalls {
    /// A built-in profile.
    pub profile: Profile,
    /// A profile of the caller's own, in OCI's form (`linux.seccomp`), in place of a built-in one.
    pub custom: Option<crate::spec::Seccomp>,
    /// Calls allowed besides.
    pub allow: Vec<String>,
    /// Calls denied all the same.
    pub deny: Vec<String>,
    /// Record what is denied: which call, which program, when.
    pub record: bool,
}

/// Who and where the program is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Identity {
    /// Its user ID; the caller's without.
    pub uid: Option<u32>,
    /// Its group ID; the caller's without.
    pub gid: Option<u32>,
    /// Its working directory; the caller's without.
    pub cwd: Option<PathBuf>,
    /// Its host name.
    pub hostname: Option<String>,
    /// Begin with an empty environment.
    pub clear_env: bool,
    /// Variables set on top of the inherited ones.
    pub env: BTreeMap<String, String>,
    /// Variables not inherited.
    pub unset_env: Vec<String>,
    /// A terminal of its own.
    pub terminal: bool,
}

/// What static analysis leads to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LintMode {
    /// Nothing is analysed.
    #[default]
    Off,
    /// Findings are told, and the script runs.
    Warn,
    /// A script with findings does not run.
    Deny,
}

const MIB: u64 = 1 << 20;

impl Default for Policy {
    fn default() -> Policy {
        Policy {
            id: None,
            limits: Limits::default(),
            files: Files::default(),
            network: Network::default(),
            syscalls: Syscalls::default(),
            process: Identity::default(),
            lint: LintMode::Off,
            ignore_violations: BTreeMap::new(),
            weaker_nested: true,
            weaker_limits: true,
        }
    }
}

impl Default for Limits {
    /// What no honest command misses, and what a runaway one can't grow beyond.
    fn default() -> Limits {
        Limits {
            memory: Some(Bytes(2048 * MIB)),
            swap: Some(Bytes(0)),
            cpu: None,
            cpu_quota: None,
            cpu_time: None,
            pids: Some(512),
            file_size: None,
            open_files: Some(1024),
            disk: Some(Bytes(512 * MIB)),
            timeout: None,
        }
    }
}

impl Default for Files {
    fn default() -> Files {
        Files {
            view: View::Host,
            workdir: Workdir::Overlay,
            allow_write: Vec::new(),
            deny_read: Vec::new(),
            deny_write: Vec::new(),
            allow_read: Vec::new(),
            overlay: Vec::new(),
            binds: Vec::new(),
            protect: true,
            protect_depth: 3,
            allow_git_config: false,
            layer: None,
            landlock: true,
        }
    }
}

impl Default for Syscalls {
    fn default() -> Syscalls {
        Syscalls { profile: Profile::Compute, custom: None, allow: Vec::new(), deny: Vec::new(), record: true }
    }
}
