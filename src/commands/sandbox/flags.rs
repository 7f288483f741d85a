//! The flags that a policy has on the command line. A flag wins over the policy file.

use super::values::{self, Limit};
use crate::commands::flag_error;
use crate::error::{Context as _, Result};
use crate::sandbox::policy::{Bind, LintMode, Mitm, NetworkMode, Policy, Profile, View, Workdir};
use crate::sandbox::policy_file;
use crate::sandbox::settings::{self, Base};
use crate::sandbox::units::{Bytes, Percent, Span};
use clap::Args;
use std::path::{Path, PathBuf};

/// Every flag of a policy.
#[derive(Debug, Default, Args)]
pub struct PolicyFlags {
    /// Policy file, JSON or TOML, that flags are put on top of
    #[arg(long, value_name = "FILE", help_heading = "Policy")]
    pub policy: Option<PathBuf>,
    /// Settings file of sandbox-runtime (JSON), for files and network; after --policy, before the flags
    #[arg(long, value_name = "FILE", help_heading = "Policy")]
    pub settings: Option<PathBuf>,
    /// Refuse to run where this host does not allow every wall, or no cgroup for a limit of memory, swap, processes or CPU
    /// (default: go on with fewer, and tell)
    #[arg(long, help_heading = "Policy")]
    pub strict: bool,
    /// Violations that are not reported: text that occurs in what was denied; may be repeated
    #[arg(long, value_name = "[PROGRAM=]PATTERN", value_parser = values::ignored, help_heading = "Policy")]
    pub ignore_violation: Vec<(String, String)>,
    /// What findings of static analysis in a script lead to (default: off)
    #[arg(long, value_name = "MODE", value_parser = values::word::<LintMode>(&["off", "warn", "deny"]), help_heading = "Policy")]
    pub lint: Option<LintMode>,
    /// How much.
    #[command(flatten)]
    pub limits: LimitFlags,
    /// Which files.
    #[command(flatten)]
    pub files: FileFlags,
    /// Which hosts.
    #[command(flatten)]
    pub network: NetworkFlags,
    /// Which calls.
    #[command(flatten)]
    pub syscalls: SyscallFlags,
    /// Who and where.
    #[command(flatten)]
    pub program: ProgramFlags,
}

/// `policy.limits`.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Limits (none for no limit)")]
pub struct LimitFlags {
    /// Memory, such as 256M (default: 2G)
    #[arg(long, value_name = "SIZE", value_parser = values::limit::<Bytes>)]
    pub memory: Option<Limit<Bytes>>,
    /// Swap on top of --memory (default: 0)
    #[arg(long, value_name = "SIZE", value_parser = values::limit::<Bytes>)]
    pub swap: Option<Limit<Bytes>>,
    /// Number of CPUs, such as 1.5 (default: none)
    #[arg(long, value_name = "N", value_parser = values::cpus, conflicts_with_all = ["cpu", "cpu_quota"])]
    pub cpus: Option<Limit<f64>>,
    /// The same in percent of one CPU, such as 150
    #[arg(long, value_name = "PERCENT", value_parser = values::limit::<Percent>, conflicts_with = "cpu_quota")]
    pub cpu: Option<Limit<Percent>>,
    /// The same as CPU time in a period, in microseconds (default period: 100000)
    #[arg(long, value_name = "QUOTA[:PERIOD]", value_parser = values::quota)]
    pub cpu_quota: Option<Limit<(u64, u64)>>,
    /// CPU time of each process, such as 30 or 1m30s (default: none)
    #[arg(long, value_name = "TIME", value_parser = values::limit::<Span>)]
    pub cpu_time: Option<Limit<Span>>,
    /// Number of processes and threads (default: 512)
    #[arg(long, value_name = "N", value_parser = values::count)]
    pub pids: Option<Limit<u64>>,
    /// The largest file that may be written (default: none)
    #[arg(long, value_name = "SIZE", value_parser = values::limit::<Bytes>)]
    pub file_size: Option<Limit<Bytes>>,
    /// Open files of each process (default: 1024)
    #[arg(long, value_name = "N", value_parser = values::count)]
    pub open_files: Option<Limit<u64>>,
    /// The writable layer, and each private temporary directory (default: 512M)
    #[arg(long, value_name = "SIZE", value_parser = values::limit::<Bytes>)]
    pub disk: Option<Limit<Bytes>>,
    /// Time after which everything is ended, with status 124 (default: none)
    #[arg(short, long, value_name = "TIME", value_parser = values::limit::<Span>)]
    pub timeout: Option<Limit<Span>>,
}

/// `policy.files`.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Files")]
pub struct FileFlags {
    /// A directory that is seen as /, read-only (default: the host's files)
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,
    /// The same, with changes in the writable layer
    #[arg(long, value_name = "DIR", conflicts_with = "root")]
    pub root_overlay: Option<PathBuf>,
    /// What the working directory is: changes go to the writable layer, to nowhere, to the directory itself, or to an
    /// empty one (default: overlay)
    #[arg(long, value_name = "MODE", value_parser = values::word::<Workdir>(&["overlay", "read-only", "write", "temporary"]))]
    pub workdir_mode: Option<Workdir>,
    /// Short for --workdir-mode write
    #[arg(short, long, conflicts_with_all = ["workdir_mode", "ro"])]
    pub write_cwd: bool,
    /// Short for --workdir-mode read-only
    #[arg(long, conflicts_with = "workdir_mode")]
    pub ro: bool,
    /// A path that may be written, for real; may be repeated, as all of this kind
    #[arg(long, value_name = "PATH")]
    pub allow_write: Vec<String>,
    /// A path or glob that may not be read
    #[arg(long, value_name = "PATH|GLOB")]
    pub deny_read: Vec<String>,
    /// A path or glob that may not be written
    #[arg(long, value_name = "PATH|GLOB")]
    pub deny_write: Vec<String>,
    /// A path that may be read although keys and passwords are hidden
    #[arg(long, value_name = "PATH")]
    pub allow_read: Vec<String>,
    /// A directory that may be written, with changes in the writable layer
    #[arg(long, value_name = "DIR")]
    pub overlay: Vec<String>,
    /// A path of the host put into the view (default: in the same place, read-only)
    #[arg(short = 'v', long, visible_alias = "volume", value_name = "SRC[:DST][:ro|rw]", value_parser = values::bind)]
    pub bind: Vec<Bind>,
    /// Let start-up scripts and the like be written where writing is allowed (.bashrc, .git/hooks)
    #[arg(long)]
    pub no_protect: bool,
    /// How deep such files are looked for (default: 3)
    #[arg(long, value_name = "N")]
    pub protect_depth: Option<u32>,
    /// Let .git/config be written all the same
    #[arg(long)]
    pub allow_git_config: bool,
    /// A directory for the writable layer, which --disk does not limit (default: memory)
    #[arg(long, value_name = "DIR")]
    pub layer: Option<PathBuf>,
    /// Do without Landlock
    #[arg(long)]
    pub no_landlock: bool,
}

/// `policy.network`.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Network")]
pub struct NetworkFlags {
    /// Who can be reached: nobody, everybody, or the domains allowed (default: none, or domains if any are named)
    #[arg(long, value_name = "MODE", value_parser = values::word::<NetworkMode>(&["none", "host", "domains"]))]
    pub net: Option<NetworkMode>,
    /// A domain that may be reached: example.com, *.example.com, example.com:443; may be repeated
    #[arg(long, value_name = "DOMAIN")]
    pub allow_domain: Vec<String>,
    /// A domain that may not, whatever is allowed; may be repeated
    #[arg(long, value_name = "DOMAIN")]
    pub deny_domain: Vec<String>,
    /// Let programs listen on and connect to the sandbox's own loopback interface
    #[arg(long)]
    pub allow_local_binding: bool,
    /// A unix socket that may be used; may be repeated. Others of the host's are covered; not those that are made later, or in a
    /// container, where the program sees their directory
    #[arg(long, value_name = "PATH")]
    pub allow_unix_socket: Vec<String>,
    /// Let any unix socket be used
    #[arg(long, conflicts_with = "allow_unix_socket")]
    pub allow_all_unix_sockets: bool,
    /// Port of an HTTP proxy on the host's loopback (default: brig's own proxy)
    #[arg(long, value_name = "PORT")]
    pub http_proxy_port: Option<u16>,
    /// The same for SOCKS5
    #[arg(long, value_name = "PORT")]
    pub socks_proxy_port: Option<u16>,
    /// Unix socket of a proxy that may look inside, for the domains of --mitm-domain
    #[arg(long, value_name = "PATH")]
    pub mitm_socket: Option<String>,
    /// A domain for --mitm-socket; may be repeated
    #[arg(long, value_name = "DOMAIN")]
    pub mitm_domain: Vec<String>,
}

/// `policy.syscalls`.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "System calls")]
pub struct SyscallFlags {
    /// Built-in profile, each with more than the one before (default: compute)
    #[arg(long, value_name = "NAME", conflicts_with = "seccomp",
        value_parser = values::word::<Profile>(&["minimal", "io-heavy", "compute", "network", "unrestricted"]))]
    pub profile: Option<Profile>,
    /// Profile of your own: linux.seccomp as JSON, or docker's and podman's form of it
    #[arg(long, value_name = "FILE", conflicts_with_all = ["allow_syscall", "deny_syscall"])]
    pub seccomp: Option<PathBuf>,
    /// A call that is allowed besides; may be repeated
    #[arg(long, value_name = "NAME", value_parser = values::call)]
    pub allow_syscall: Vec<String>,
    /// A call that is denied all the same; may be repeated
    #[arg(long, value_name = "NAME", value_parser = values::call)]
    pub deny_syscall: Vec<String>,
    /// Don't record what is denied
    #[arg(long)]
    pub no_record: bool,
}

/// `policy.process`, and the ID.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Program")]
pub struct ProgramFlags {
    /// The sandbox's ID (default: a new one)
    #[arg(long, value_name = "ID")]
    pub id: Option<String>,
    /// User ID (default: yours)
    #[arg(long, value_name = "UID")]
    pub uid: Option<u32>,
    /// Group ID (default: yours)
    #[arg(long, value_name = "GID")]
    pub gid: Option<u32>,
    /// Both at once
    #[arg(long, value_name = "UID[:GID]", value_parser = values::user, conflicts_with_all = ["uid", "gid"])]
    pub user: Option<(u32, Option<u32>)>,
    /// Working directory (default: yours)
    #[arg(short = 'C', long, value_name = "DIR")]
    pub cwd: Option<String>,
    /// Host name (default: the sandbox's own)
    #[arg(long, value_name = "NAME")]
    pub hostname: Option<String>,
    /// Begin with an empty environment (default: yours)
    #[arg(long)]
    pub clear_env: bool,
    /// A variable, with your value if none is given; may be repeated
    #[arg(short, long, value_name = "NAME[=VALUE]", value_parser = values::variable)]
    pub env: Vec<(String, String)>,
    /// A variable that is not inherited; may be repeated
    #[arg(long, value_name = "NAME")]
    pub unset_env: Vec<String>,
    /// Give the program a terminal of its own
    #[arg(long)]
    pub tty: bool,
}

impl PolicyFlags {
    /// Puts --policy, --settings and then the flags into a policy. Relative paths are taken from the current directory, `~`
    /// is $HOME. Returns notes: what in the settings has no effect, and how it was read.
    ///
    /// # Errors
    /// A file can't be read or is wrong; a path can't be made absolute. The policy may be changed by half then.
    pub fn apply(&self, policy: &mut Policy) -> Result<Vec<String>> {
        let directory = std::env::current_dir().during(|| "find the current directory".into())?;
        let home = std::env::var_os("HOME").map(PathBuf::from).filter(|home| home.is_absolute());
        self.apply_at(policy, Base { directory: &directory, home: home.as_deref() })
    }

    fn apply_at(&self, policy: &mut Policy, base: Base<'_>) -> Result<Vec<String>> {
        if let Some(path) = &self.policy {
            *policy = policy_file::load(path).map_err(|e| e.context("--policy"))?;
        }
        // The settings ask for it: whether the working directory may be written depends on where it is.
        if let Some(cwd) = &self.program.cwd {
            policy.process.cwd = Some(base.resolve(cwd).map_err(|e| flag_error("--cwd", e))?.into());
        }
        let mut notes = Vec::new();
        if let Some(path) = &self.settings {
            let text = std::fs::read_to_string(path).during(|| format!("--settings: read {}", path.display()))?;
            notes = settings::apply(policy, &text, base).map_err(|e| e.context("--settings"))?;
        }
        policy.weaker_nested &= !self.strict;
        policy.weaker_limits &= !self.strict;
        for (program, pattern) in &self.ignore_violation {
            policy.ignore_violations.entry(program.clone()).or_default().push(pattern.clone());
        }
        set(&mut policy.lint, self.lint);
        self.limits.apply(policy);
        self.files.apply(policy, base)?;
        self.network.apply(policy, base)?;
        self.syscalls.apply(policy)?;
        self.program.apply(policy);
        Ok(notes)
    }
}

impl LimitFlags {
    fn apply(&self, policy: &mut Policy) {
        let limits = &mut policy.limits;
        put(&mut limits.memory, self.memory);
        put(&mut limits.swap, self.swap);
        // Three ways to say one thing: the one on the command line is the one that holds.
        if self.cpus.is_some() || self.cpu.is_some() || self.cpu_quota.is_some() {
            (limits.cpu, limits.cpu_quota) = (None, None);
        }
        put(&mut limits.cpu, self.cpu);
        put(&mut limits.cpu, self.cpus.map(|cpus| Limit(cpus.0.map(Percent))));
        put(&mut limits.cpu_quota, self.cpu_quota);
        put(&mut limits.cpu_time, self.cpu_time);
        put(&mut limits.pids, self.pids);
        put(&mut limits.file_size, self.file_size);
        put(&mut limits.open_files, self.open_files);
        put(&mut limits.disk, self.disk);
        put(&mut limits.timeout, self.timeout);
    }
}

impl FileFlags {
    fn apply(&self, policy: &mut Policy, base: Base<'_>) -> Result<()> {
        let files = &mut policy.files;
        let directory = |flag, path: &Path| Ok::<_, crate::error::Error>(PathBuf::from(one(flag, path, base)?));
        if let Some(root) = &self.root {
            files.view = View::Root(directory("--root", root)?);
        }
        if let Some(root) = &self.root_overlay {
            files.view = View::RootOverlay(directory("--root-overlay", root)?);
        }
        set(&mut files.workdir, self.workdir_mode);
        set(&mut files.workdir, self.write_cwd.then_some(Workdir::Write));
        set(&mut files.workdir, self.ro.then_some(Workdir::ReadOnly));
        let allow_write = all("--allow-write", &self.allow_write, base)?;
        let allow_read = all("--allow-read", &self.allow_read, base)?;
        let deny_read = all("--deny-read", &self.deny_read, base)?;
        let deny_write = all("--deny-write", &self.deny_write, base)?;
        either(&mut files.allow_write, &allow_write, &mut files.deny_write, &deny_write);
        either(&mut files.allow_write, &allow_write, &mut files.deny_read, &deny_read);
        either(&mut files.allow_read, &allow_read, &mut files.deny_read, &deny_read);
        files.overlay.extend(all("--overlay", &self.overlay, base)?.into_iter().map(PathBuf::from));
        for bind in &self.bind {
            let bind = Bind { source: directory("--bind", &bind.source)?, ..bind.clone() };
            // One of the policy file in the same place is what this one stands for.
            files.binds.retain(|old| place(old) != place(&bind));
            files.binds.push(bind);
        }
        files.protect &= !self.no_protect;
        set(&mut files.protect_depth, self.protect_depth);
        files.allow_git_config |= self.allow_git_config;
        if let Some(layer) = &self.layer {
            files.layer = Some(directory("--layer", layer)?);
        }
        files.landlock &= !self.no_landlock;
        Ok(())
    }
}

fn place(bind: &Bind) -> &Path {
    bind.target.as_deref().unwrap_or(&bind.source)
}

impl NetworkFlags {
    fn apply(&self, policy: &mut Policy, base: Base<'_>) -> Result<()> {
        let network = &mut policy.network;
        let named = !(self.allow_domain.is_empty() && self.deny_domain.is_empty() && self.mitm_domain.is_empty());
        set(&mut network.mode, self.net.or(named.then_some(NetworkMode::Domains)));
        if self.net.is_some_and(|mode| mode != NetworkMode::Domains) {
            // What the policy file says of domains has no place in another mode; what flags say still contradicts it.
            (network.http_proxy_port, network.socks_proxy_port, network.mitm) = (None, None, None);
            network.allow.clear();
            network.deny.clear();
        }
        either(&mut network.allow, &self.allow_domain, &mut network.deny, &self.deny_domain);
        network.allow_local_binding |= self.allow_local_binding;
        let sockets = all("--allow-unix-socket", &self.allow_unix_socket, base)?;
        if !sockets.is_empty() {
            network.allow_all_unix_sockets = false;
            network.allow_unix_sockets.extend(sockets.into_iter().map(PathBuf::from));
        }
        if self.allow_all_unix_sockets {
            network.allow_all_unix_sockets = true;
            network.allow_unix_sockets.clear();
        }
        network.http_proxy_port = self.http_proxy_port.or(network.http_proxy_port);
        network.socks_proxy_port = self.socks_proxy_port.or(network.socks_proxy_port);
        if let Some(socket) = &self.mitm_socket {
            let socket = one("--mitm-socket", Path::new(socket), base)?.into();
            network.mitm.get_or_insert_with(Mitm::default).socket = socket;
        }
        match &mut network.mitm {
            Some(mitm) => add(&mut mitm.domains, &self.mitm_domain),
            None if self.mitm_domain.is_empty() => {}
            None => return Err(flag_error("--mitm-domain", "no proxy to send it to; give --mitm-socket, too")),
        }
        Ok(())
    }
}

impl SyscallFlags {
    fn apply(&self, policy: &mut Policy) -> Result<()> {
        let calls = &mut policy.syscalls;
        if let Some(path) = &self.seccomp {
            calls.custom = Some(policy_file::load_seccomp(path).map_err(|e| e.context("--seccomp"))?);
            calls.profile = Profile::default();
            calls.allow.clear();
            calls.deny.clear();
        }
        if let Some(profile) = self.profile {
            (calls.profile, calls.custom) = (profile, None);
        }
        either(&mut calls.allow, &self.allow_syscall, &mut calls.deny, &self.deny_syscall);
        calls.record &= !self.no_record;
        Ok(())
    }
}

impl ProgramFlags {
    fn apply(&self, policy: &mut Policy) {
        let process = &mut policy.process;
        policy.id = self.id.clone().or(policy.id.take());
        process.uid = self.user.map(|(uid, _)| uid).or(self.uid).or(process.uid);
        process.gid = self.user.and_then(|(_, gid)| gid).or(self.gid).or(process.gid);
        process.hostname = self.hostname.clone().or(process.hostname.take());
        process.clear_env |= self.clear_env;
        for (name, value) in &self.env {
            process.env.insert(name.clone(), value.clone());
            process.unset_env.retain(|other| other != name);
        }
        // A variable that both flags name is left in both places, and told as a contradiction.
        process.env.retain(|name, _| !self.unset_env.contains(name) || self.env.iter().any(|(given, _)| given == name));
        add(&mut process.unset_env, &self.unset_env);
        process.terminal |= self.tty;
    }
}

fn set<T>(place: &mut T, given: Option<T>) {
    if let Some(value) = given {
        *place = value;
    }
}

fn put<T>(place: &mut Option<T>, given: Option<Limit<T>>) {
    set(place, given.map(|limit| limit.0));
}

fn add(list: &mut Vec<String>, given: &[String]) {
    for name in given {
        if !list.contains(name) {
            list.push(name.clone());
        }
    }
}

/// Adds what flags name to two lists that say the contrary, and takes it out of the other one, where a policy file has it.
/// What both flags name stays in both: that is for the check to tell.
fn either(allow: &mut Vec<String>, allowed: &[String], deny: &mut Vec<String>, denied: &[String]) {
    allow.retain(|name| !denied.contains(name));
    deny.retain(|name| !allowed.contains(name));
    add(allow, allowed);
    add(deny, denied);
}

fn all(flag: &str, paths: &[String], base: Base<'_>) -> Result<Vec<String>> {
    paths.iter().map(|path| one(flag, Path::new(path), base)).collect()
}

fn one(flag: &str, path: &Path, base: Base<'_>) -> Result<String> {
    let text = path.to_str().ok_or_else(|| flag_error(flag, format!("{}: not UTF-8", path.display())))?;
    base.resolve(text).map_err(|e| flag_error(flag, e))
}

#[cfg(test)]
mod tests;
