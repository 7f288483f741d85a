//! `brig exec`.

use super::{Context, flag_error, listen_fds};
use crate::engine::plan::Options;
use crate::engine::{attend, exec};
use crate::error::{Context as _, Error, Result};
use crate::prim::terminal::connect_console_socket;
use crate::spec::{self, Process, Spec};
use std::path::PathBuf;

/// Run one more process in a container
#[derive(Debug, clap::Args)]
#[allow(clippy::struct_excessive_bools, reason = "each is a flag")]
pub struct Exec {
    /// File with the process object of the runtime-spec
    #[arg(short, long, value_name = "FILE", conflicts_with_all = ["cwd", "env", "user", "cap"])]
    process: Option<PathBuf>,
    /// Return once the program runs
    #[arg(short, long)]
    detach: bool,
    /// Give the process a terminal
    #[arg(short, long)]
    tty: bool,
    /// Unix socket that gets the master of the terminal
    #[arg(long, value_name = "PATH")]
    console_socket: Option<PathBuf>,
    /// Unix socket that gets a pidfd of the process
    #[arg(long, value_name = "PATH")]
    pidfd_socket: Option<PathBuf>,
    /// File for the pid of the process
    #[arg(long, value_name = "FILE")]
    pid_file: Option<PathBuf>,
    /// Working directory in the container
    #[arg(long, value_name = "DIR")]
    cwd: Option<PathBuf>,
    /// Set NAME=VALUE in the environment (more than once)
    #[arg(short, long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// User, by numbers
    #[arg(short, long, value_name = "UID[:GID]", allow_hyphen_values = true)]
    user: Option<String>,
    /// Additional groups, by number (more than once)
    #[arg(short = 'g', long, value_name = "GID", value_delimiter = ',')]
    additional_gids: Vec<u32>,
    /// Add a capability (more than once)
    #[arg(short, long, value_name = "CAP")]
    cap: Vec<String>,
    /// Set no_new_privs
    #[arg(long)]
    no_new_privs: bool,
    /// AppArmor profile
    #[arg(long, value_name = "PROFILE")]
    apparmor: Option<String>,
    /// SELinux label
    #[arg(long, value_name = "LABEL")]
    process_label: Option<String>,
    /// How many fds from 3 up the program gets besides its standard streams
    #[arg(long, value_name = "N", default_value_t = 0)]
    preserve_fds: u32,
    /// A cgroup below the container's, to run in
    #[arg(long, value_name = "PATH")]
    cgroup: Vec<String>,
    /// Also in a paused container
    #[arg(long)]
    ignore_paused: bool,
    /// Accepted for callers of runc: orphans go to the caller's reaper either way
    #[arg(long, hide = true)]
    no_subreaper: bool,
    /// The container
    pub id: String,
    /// The program and its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "CMD")]
    command: Vec<String>,
}

impl Exec {
    pub(super) fn run(self, context: &Context) -> Result<i32> {
        let (saved, config) = exec::config(&context.store, &self.id, self.ignore_paused)?;
        let process = self.process(&config)?;
        self.check_terminal(&process)?;
        let (preserve_fds, extra_env) = listen_fds(self.preserve_fds)?;
        let mut console = self
            .console_socket
            .as_ref()
            .map(|path| connect_console_socket(path))
            .transpose()
            .during(|| "--console-socket".into())?;
        let mut desk = (!self.detach).then(|| attend::Desk::new(false)).transpose()?;
        if let Some(desk) = desk.as_mut().filter(|_| process.terminal) {
            desk.lend_console(&mut console)?;
        }
        let request = exec::Request {
            id: self.id,
            options: Options { preserve_fds, extra_env, ..Options::default() },
            console,
            pid_file: self.pid_file,
            pidfd_socket: self.pidfd_socket,
            cgroup: self.cgroup,
            ignore_paused: self.ignore_paused,
        };
        let (child, warnings) = exec::exec((&saved, &config), &process, request, &mut || {
            desk.as_mut().map_or(Ok(()), attend::Desk::take_terminal)
        })?;
        context.warn(&warnings);
        match desk {
            None => Ok(0),
            Some(desk) => Ok(desk.attend(&child)?.status()),
        }
    }

    fn check_terminal(&self, process: &Process) -> Result<()> {
        match (process.terminal, self.detach, self.console_socket.is_some()) {
            (true, true, false) => Err(flag_error("--detach", "a terminal without a caller needs --console-socket")),
            (false, _, true) => Err(flag_error("--console-socket", "the process has no terminal; add --tty")),
            _ => Ok(()),
        }
    }

    /// The process to run: the file's, or the container's own changed by the flags.
    fn process(&self, config: &Spec) -> Result<Process> {
        if let Some(file) = &self.process {
            if !self.command.is_empty() {
                return Err(flag_error("--process", "the file names the program; leave CMD out"));
            }
            let loaded = spec::load_process(file)?;
            if !loaded.problems.is_empty() {
                return Err(Error::problems(&file.display().to_string(), &loaded.problems));
            }
            // conmon says --tty besides what the file says.
            let terminal = loaded.value.terminal || self.tty;
            return Ok(Process { terminal, ..loaded.value });
        }
        if self.command.is_empty() {
            return Err(Error::invalid("no program: give CMD after the ID, or --process FILE"));
        }
        let mut process = config.process.clone().unwrap_or_default();
        process.args.clone_from(&self.command);
        process.terminal = self.tty;
        process.console_size = None;
        if let Some(cwd) = &self.cwd {
            process.cwd.clone_from(cwd);
        }
        process.env.extend_from_slice(&self.env);
        if let Some(user) = &self.user {
            let (uid, gid) = exec::parse_user(user).map_err(|p| Error::invalid(p.to_string()))?;
            process.user.uid = uid;
            process.user.gid = gid.unwrap_or(process.user.gid);
        }
        process.user.additional_gids.extend_from_slice(&self.additional_gids);
        if !self.cap.is_empty() {
            add_capabilities(&mut process, &self.cap)?;
        }
        process.no_new_privileges |= self.no_new_privs;
        if self.apparmor.is_some() {
            process.apparmor_profile.clone_from(&self.apparmor);
        }
        if self.process_label.is_some() {
            process.selinux_label.clone_from(&self.process_label);
        }
        Ok(process)
    }
}

/// Adds capabilities to what the process has; never to the inheritable set, which nobody asks for here (CVE-2022-29162).
fn add_capabilities(process: &mut Process, names: &[String]) -> Result<()> {
    let sets = process.capabilities.get_or_insert_default();
    for name in names {
        if crate::prim::capabilities::bit(name).is_none() {
            return Err(flag_error("--cap", format!("{name:?} is no capability, see capabilities(7)")));
        }
        for set in [&mut sets.bounding, &mut sets.effective, &mut sets.permitted] {
            if !set.contains(name) {
                set.push(name.clone());
            }
        }
    }
    Ok(())
}
