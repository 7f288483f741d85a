//! Floor 4: the command line. One file a command; flags in, engine calls, exit status out.

mod check;
mod create;
mod delete;
mod events;
mod exec;
mod features;
mod kill;
mod list;
mod log;
mod mounts;
mod pause;
mod plan;
mod ps;
mod resume;
mod run;
mod sandbox;
mod spec;
mod start;
mod state;
mod update;

pub use crate::sys::alloc::Guarded;

use crate::engine::store::Store;
use crate::error::{Error, Kind, Result};
use crate::prim::cgroup::Manager;
use clap::{Args, CommandFactory, Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

/// brig, an OCI container runtime
#[derive(Debug, Parser)]
#[command(name = "brig", disable_version_flag = true, max_term_width = 100, arg_required_else_help = true)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Args)]
struct Global {
    /// Directory for the state of containers (default: /run/brig, or $XDG_RUNTIME_DIR/brig for other users than root)
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// Where messages go besides stderr: PATH, file:PATH, journald:NAME, syslog:NAME
    #[arg(long, value_name = "DESTINATION")]
    log: Option<String>,
    /// Form of the lines in --log
    #[arg(long, value_name = "FORMAT", default_value = "text", value_parser = ["text", "json"])]
    log_format: String,
    /// Least level that is logged
    #[arg(long, value_name = "LEVEL", value_parser = ["error", "warn", "warning", "info", "debug", "trace"])]
    log_level: Option<String>,
    /// Log at level debug
    #[arg(long)]
    debug: bool,
    /// Short for --cgroup-manager systemd
    #[arg(long)]
    systemd_cgroup: bool,
    /// Who makes cgroups
    #[arg(long, value_name = "MANAGER", value_parser = ["cgroupfs", "systemd", "disabled"])]
    cgroup_manager: Option<String>,
    /// Accepted for callers of runc; brig sees for itself
    #[arg(long, value_name = "BOOL", hide = true)]
    rootless: Option<String>,
    /// Accepted for callers of runc
    #[arg(long, value_name = "PATH", hide = true)]
    criu: Option<PathBuf>,
    /// Print the version
    #[arg(short = 'v', long)]
    version: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show what this host offers to containers, what is missing, and what that costs
    Check(Lazy<check::Check>),
    /// Create a container from a bundle; its program waits for start
    Create(Lazy<create::Create>),
    /// Remove a stopped container
    Delete(Lazy<delete::Delete>),
    /// Print what a container uses and when it runs out of memory, as lines of JSON, until it ends
    Events(Lazy<events::Events>),
    /// Run one more process in a container
    Exec(Lazy<exec::Exec>),
    /// Print what this runtime offers, as the JSON document of the runtime-spec
    Features(Lazy<features::Features>),
    /// Send a signal to a container's first process
    Kill(Lazy<kill::Kill>),
    /// List containers
    List(Lazy<list::List>),
    /// Change the mounts of a running container
    Mounts(Lazy<mounts::Mounts>),
    /// Freeze all processes of a container, until resume
    Pause(Lazy<pause::Pause>),
    /// Print the steps that a bundle compiles to, each with the place in config.json that asks for it; do nothing
    Plan(Lazy<plan::Plan>),
    /// List the processes of a container
    Ps(Lazy<ps::Ps>),
    /// Let a paused container run again
    Resume(Lazy<resume::Resume>),
    /// Create a container and run its program
    Run(Lazy<run::Run>),
    /// Run a program without a bundle: limits, files, network and system calls by policy, and a report of what it did
    Sandbox(Lazy<sandbox::Sandbox>),
    /// Write a config.json to start from
    Spec(Lazy<spec::Spec>),
    /// Run the program of a created container
    Start(Lazy<start::Start>),
    /// Print the state of a container as JSON
    State(Lazy<state::State>),
    /// Change the limits of a container that runs
    Update(Lazy<update::Update>),
}

impl Command {
    fn name(&self) -> &'static str {
        match self {
            Command::Check(_) => "check",
            Command::Create(_) => "create",
            Command::Delete(_) => "delete",
            Command::Events(_) => "events",
            Command::Exec(_) => "exec",
            Command::Features(_) => "features",
            Command::Kill(_) => "kill",
            Command::List(_) => "list",
            Command::Mounts(_) => "mounts",
            Command::Pause(_) => "pause",
            Command::Plan(_) => "plan",
            Command::Ps(_) => "ps",
            Command::Resume(_) => "resume",
            Command::Run(_) => "run",
            Command::Sandbox(_) => "sandbox",
            Command::Spec(_) => "spec",
            Command::Start(_) => "start",
            Command::State(_) => "state",
            Command::Update(_) => "update",
        }
    }

    /// The container that the command is about, for messages.
    fn id(&self) -> &str {
        match self {
            Command::Create(c) => &c.id,
            Command::Delete(c) => &c.id,
            Command::Events(c) => &c.id,
            Command::Exec(c) => &c.id,
            Command::Kill(c) => &c.id,
            Command::Pause(c) => &c.id,
            Command::Ps(c) => c.id(),
            Command::Resume(c) => &c.id,
            Command::Mounts(c) => c.id(),
            Command::Run(c) => &c.create.id,
            Command::Start(c) => &c.id,
            Command::State(c) => &c.id,
            Command::Update(c) => &c.id,
            Command::Check(_)
            | Command::Features(_)
            | Command::List(_)
            | Command::Plan(_)
            | Command::Sandbox(_)
            | Command::Spec(_) => "",
        }
    }

    fn run(self, context: &Context) -> Result<i32> {
        match self {
            Command::Check(c) => c.0.run(context),
            Command::Create(c) => c.0.run(context).map(|()| 0),
            Command::Delete(c) => c.0.run(context).map(|()| 0),
            Command::Events(c) => c.0.run(context).map(|()| 0),
            Command::Exec(c) => c.0.run(context),
            Command::Features(c) => c.0.run().map(|()| 0),
            Command::Kill(c) => c.0.run(context).map(|()| 0),
            Command::List(c) => c.0.run(context).map(|()| 0),
            Command::Pause(c) => c.0.run(context).map(|()| 0),
            Command::Mounts(c) => c.0.run(context).map(|()| 0),
            Command::Plan(c) => c.0.run(context).map(|()| 0),
            Command::Ps(c) => c.0.run(context).map(|()| 0),
            Command::Resume(c) => c.0.run(context).map(|()| 0),
            Command::Run(c) => c.0.run(context),
            Command::Sandbox(c) => c.0.run(context),
            Command::Spec(c) => c.0.run().map(|()| 0),
            Command::Start(c) => c.0.run(context).map(|()| 0),
            Command::State(c) => c.0.run(context).map(|()| 0),
            Command::Update(c) => c.0.run(context).map(|()| 0),
        }
    }
}

/// A subcommand whose flags are defined only when it is the one that is called: the others do not pay for them.
#[derive(Debug)]
struct Lazy<T>(Box<T>);

impl<T> std::ops::Deref for Lazy<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: clap::FromArgMatches> clap::FromArgMatches for Lazy<T> {
    fn from_arg_matches(matches: &clap::ArgMatches) -> Result<Self, clap::Error> {
        T::from_arg_matches(matches).map(|parsed| Lazy(Box::new(parsed)))
    }
    fn update_from_arg_matches(&mut self, matches: &clap::ArgMatches) -> Result<(), clap::Error> {
        self.0.update_from_arg_matches(matches)
    }
}

impl<T: Args> Args for Lazy<T> {
    fn augment_args(command: clap::Command) -> clap::Command {
        command.defer(T::augment_args)
    }
    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        command.defer(T::augment_args_for_update)
    }
}

/// What every command gets.
struct Context {
    store: Store,
    manager: Manager,
    log: log::Log,
}

impl Context {
    fn warn(&self, warnings: &[String]) {
        warnings.iter().for_each(|warning| self.log.write(log::Level::Warn, warning));
    }

    fn note(&self, notes: &[String]) {
        notes.iter().for_each(|note| self.log.write(log::Level::Debug, note));
    }

    /// Hooks that failed where the spec says to go on.
    fn warn_of(&self, errors: &[Error]) {
        errors.iter().for_each(|error| self.log.write(log::Level::Warn, &error.to_string()));
    }
}

/// The definition of the command line, for what is made of it when brig is built: man pages and completions.
pub fn definition() -> clap::Command {
    Cli::command()
}

/// The `brig` command: reads the arguments, runs the command, prints an error in one place.
pub fn main() -> ExitCode {
    if is_version(std::env::args_os().skip(1)) {
        return print_version();
    }
    // First of all: what comes before it is done twice.
    if enters_a_container(std::env::args_os().skip(1))
        && let Err(error) = crate::prim::own_binary::protect()
    {
        eprintln!("brig: {error}");
        return ExitCode::FAILURE;
    }
    // The definition of its flags, most of all.
    if std::env::args_os().skip(1).any(|arg| arg == "sandbox") {
        crate::sys::alloc::expect(256 << 10);
    }
    let Cli { global, command } = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { failed(meant().as_deref()) } else { 0 });
        }
    };
    let Some(command) = command else {
        if global.version {
            return print_version();
        }
        let _ = Cli::command().print_help();
        return ExitCode::FAILURE;
    };
    let (name, id) = (command.name(), command.id().to_owned());
    let failed = failed(Some(name));
    let log = match log::Log::open(&global) {
        Ok(log) => log,
        Err(error) => {
            eprintln!("brig: --log: {error}");
            return ExitCode::from(failed);
        }
    };
    let result = command.run(&context(&global, log.clone()));
    match result {
        Ok(status) => ExitCode::from(u8::try_from(status).unwrap_or(255)),
        Err(error) => {
            let shown: String = id.chars().take(64).collect();
            let place = if shown.is_empty() { name.to_owned() } else { format!("{name} {shown}") };
            log.write(log::Level::Error, &format!("{place}: {error}"));
            eprintln!("brig: {place}: {error}");
            // As a shell has it.
            ExitCode::from(match error.kind() {
                Kind::ProgramNotFound if name == "sandbox" => 127,
                Kind::ProgramDenied if name == "sandbox" => 126,
                _ => failed,
            })
        }
    }
}

/// The exit status of a command's own failure.
fn failed(command: Option<&str>) -> u8 {
    match command {
        Some("exec") => 255,
        Some("sandbox") => sandbox::Sandbox::FAILED,
        _ => 1,
    }
}

/// The command that a command line with a mistake in it is for, as far as that can be told.
fn meant() -> Option<String> {
    Cli::command().ignore_errors(true).try_get_matches().ok()?.subcommand_name().map(str::to_owned)
}

fn context(global: &Global, log: log::Log) -> Context {
    let manager = match global.cgroup_manager.as_deref() {
        Some("systemd") => Manager::Systemd,
        Some("disabled") => Manager::Disabled,
        None if global.systemd_cgroup => Manager::Systemd,
        _ => Manager::Cgroupfs,
    };
    let store = Store::new(global.root.clone().unwrap_or_else(Store::default_root));
    Context { store, manager, log }
}

/// Whether one of the commands is meant that put a child of brig into a container. A word that only looks like one costs the
/// time that the protection takes.
fn enters_a_container(mut args: impl Iterator<Item = std::ffi::OsString>) -> bool {
    args.any(|arg| ["create", "run", "exec", "mounts", "serve"].iter().any(|command| arg == *command))
}

/// `brig --version`, the one flag that is a command; engines ask it often.
fn is_version(mut args: impl Iterator<Item = std::ffi::OsString>) -> bool {
    args.next().is_some_and(|first| first == "--version" || first == "-v")
}

fn print_version() -> ExitCode {
    let text = format!(
        "brig version {}\nspec: {}\nlibseccomp: {}\n",
        env!("CARGO_PKG_VERSION"),
        crate::spec::VERSION_MAX,
        crate::prim::seccomp::library_version()
    );
    ExitCode::from(u8::from(print(&text).is_err()))
}

/// How many fds from 3 up a program gets, and what it is told of them: those of `--preserve-fds`, and those of socket
/// activation (sd_listen_fds(3)), which come first and are passed on as the container's first process' own.
///
/// # Errors
/// An fd that was promised and is not open.
fn listen_fds(preserve: u32) -> Result<(u32, Vec<String>)> {
    let listen = std::env::var("LISTEN_FDS").ok().and_then(|n| n.parse::<u32>().ok()).unwrap_or(0);
    let count = preserve.saturating_add(listen);
    for fd in (3..3_u32.saturating_add(count)).take(1 << 20) {
        // What is open and close-on-exec is brig's own.
        if !crate::sys::is_inherited(fd) {
            let flag = if fd < 3_u32.saturating_add(listen) { "LISTEN_FDS" } else { "--preserve-fds" };
            return Err(flag_error(flag, format!("{count} fds from 3 up were promised, but fd {fd} is not open")));
        }
    }
    let mut environment = Vec::new();
    if listen > 0 {
        environment.extend([format!("LISTEN_FDS={listen}"), "LISTEN_PID=1".into()]);
        environment.extend(std::env::var("LISTEN_FDNAMES").ok().map(|names| format!("LISTEN_FDNAMES={names}")));
    }
    Ok((count, environment))
}

/// Prints to the standard output. A reader that has seen enough (`brig plan | head`) is no error.
///
/// # Errors
/// As write(2).
fn print(text: &str) -> Result<()> {
    use crate::error::Context as _;
    use std::io::{ErrorKind, Write};
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() == ErrorKind::BrokenPipe => Ok(()),
        other => other.during(|| "write to the standard output".into()),
    }
}

/// An error of a flag.
fn flag_error(flag: &str, what: impl std::fmt::Display) -> Error {
    Error::new(Kind::Invalid, format!("{flag}: {what}"))
}
