//! `brig sandbox run`.

use super::flags::PolicyFlags;
use crate::commands::{Context, flag_error, print};
use crate::error::{Context as _, Error, Kind, Result};
use crate::sandbox::control::{self, Door};
use crate::sandbox::desk::{Desk, Told, inherited};
use crate::sandbox::event::Event;
use crate::sandbox::policy::{LintMode, Policy};
use crate::sandbox::report::{Finding, Mode};
use crate::sandbox::supervise::{self, Attendant, Job, Stream};
use crate::sandbox::{interpreter, lint, show};
use std::fs::File;
use std::io::IsTerminal;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How much of a captured stream is kept for the report.
const KEEP: usize = 1 << 20;

/// How often use is looked at.
const SAMPLE: Duration = Duration::from_millis(100);

const LOOSEN: &str = "\
With nothing but a command, it sees the host's files read-only but for keys and passwords, a private /tmp, and its working \
directory, where its changes are thrown away at the end; no network, no other processes, the compute profile of system \
calls, 2G of memory, 512 processes.

To loosen:  -w  keep changes of the working directory     --commit  ... only if the command succeeds
            --allow-write DIR                              --allow-domain example.com, --net host
            --memory 8G, --pids none                       --profile network|unrestricted
To tighten: --timeout 10s --memory 256M --cpu 50% --ro --clear-env --deny-read PATH";

/// Run a command, a shell string or a script in a sandbox: -w keeps its changes, --allow-domain opens the network
#[derive(Debug, clap::Args)]
#[command(override_usage = "brig sandbox run [OPTIONS] [--] COMMAND [ARG]...
       brig sandbox run [OPTIONS] -c STRING
       brig sandbox run [OPTIONS] FILE.py [ARG]...", after_help = LOOSEN)]
pub struct Run {
    #[command(flatten)]
    policy: PolicyFlags,
    /// Run a string by sh
    #[arg(short = 'c', long, value_name = "STRING")]
    command: Option<String>,
    /// What was changed in the working directory and other overlays: list it at the end
    #[arg(long, help_heading = "Report")]
    diff: bool,
    /// Make these changes for real if the command succeeds
    #[arg(long, help_heading = "Report")]
    commit: bool,
    /// Say at the end what it did, in full
    #[arg(long, help_heading = "Report")]
    verbose: bool,
    /// Say nothing about it
    #[arg(short, long, help_heading = "Report", conflicts_with = "verbose")]
    quiet: bool,
    /// Print the report as JSON on the standard output, the program's output in it
    #[arg(long, help_heading = "Report", conflicts_with = "json_lines")]
    json: bool,
    /// Print what happens as JSON lines on the standard output, as it happens, the program's output among it
    #[arg(long, help_heading = "Report")]
    json_lines: bool,
    /// Write the report as JSON to a file
    #[arg(long, value_name = "FILE", help_heading = "Report")]
    report: Option<PathBuf>,
    /// Write the report as a page with curves to a file
    #[arg(long, value_name = "FILE", help_heading = "Report")]
    html: Option<PathBuf>,
    /// Write what happens, but for output, as JSON lines to this file descriptor
    #[arg(long, value_name = "FD", help_heading = "Report")]
    status_fd: Option<i32>,
    /// Take orders as JSON lines from this file descriptor: limits and domains
    #[arg(long, value_name = "FD", help_heading = "Report")]
    control_fd: Option<i32>,
    /// Print the OCI config.json that the policy comes to, and run nothing
    #[arg(long, help_heading = "Report")]
    print_spec: bool,
    /// The command
    #[arg(trailing_var_arg = true, value_name = "COMMAND")]
    args: Vec<String>,
}

impl Run {
    pub(super) fn run(self, context: &Context) -> Result<i32> {
        let mut policy = Policy::default();
        let notes = self.policy.apply(&mut policy)?;
        if policy.process.terminal && (self.json || self.json_lines) {
            return Err(flag_error(
                "--tty",
                "a terminal shows output, --json and --json-lines keep it: give one of them",
            ));
        }
        let (command, findings) = self.command(&policy)?;
        if self.print_spec {
            let spec = supervise::spec(&policy, &command)?;
            let text = serde_json::to_string_pretty(&spec).map_err(|e| Error::new(Kind::Other, e.to_string()))?;
            return print(&format!("{text}\n")).map(|()| 0);
        }
        let verbose = self.verbose;
        if !self.quiet {
            context.warn(&notes);
            if !findings.is_empty() {
                eprint!("{}", lint::lint_text(&findings));
            }
        }
        let serious = findings.iter().filter(|f| f.severity != "low").count();
        if policy.lint == LintMode::Deny && serious > 0 {
            let what =
                format!("{serious} findings of static analysis of severity medium or high: the script does not run");
            return Err(flag_error("--lint deny", what).hint("read them above; --lint warn runs it all the same"));
        }
        let id = policy.id.get_or_insert_with(supervise::new_id).clone();
        let mut desk = Desk::new()?;
        match Door::open(context.store.root(), &id) {
            Ok(door) => desk.door(door),
            Err(error) if error.kind() == Kind::Exists => return Err(error),
            Err(error) => context.warn(&[format!("no orders can be given by ID: {error}")]),
        }
        control::guard(context.store.root(), &mut policy);
        if let Some(fd) = self.control_fd {
            desk.orders(inherited(fd).ok_or_else(|| flag_error("--control-fd", format!("fd {fd} is not open")))?)?;
        }
        if let Some(fd) = self.status_fd {
            let file = inherited(fd).ok_or_else(|| flag_error("--status-fd", format!("fd {fd} is not open")))?;
            desk.writer(file, Told::Status);
        }
        if self.json_lines {
            let out = std::io::stdout().as_fd().try_clone_to_owned().during(|| "copy the standard output".into())?;
            desk.writer(File::from(out), Told::All);
        }
        let captured = self.json || self.json_lines;
        let stream = || if captured { Stream::Capture } else { Stream::Inherit };
        let detailed = verbose || captured || self.report.is_some() || self.html.is_some() || self.status_fd.is_some();
        let job = Job {
            policy,
            command,
            later: false,
            streams: [Stream::Inherit, stream(), stream()],
            keep_output: if self.json { KEEP } else { 0 },
            measure: detailed,
            sample: detailed.then_some(SAMPLE),
            list_changes: self.diff || self.report.is_some() || self.html.is_some() || captured,
            commit: self.commit,
            findings,
        };
        let outputs = [("--report", &self.report), ("--html", &self.html)].map(|(flag, path)| {
            // Found out now rather than at the end.
            path.as_ref()
                .map(|path| File::create(path).during(|| format!("{flag}: make {}", path.display())))
                .transpose()
        });
        let [mut to_report, mut to_html] = {
            let [a, b] = outputs;
            [a?, b?]
        };
        let report = supervise::run(job, &mut desk)?;
        desk.event(&Event::Report { at_us: report.wall_us, report: Box::new(report.clone()) });
        drop(desk);
        let put = |file: &mut Option<File>, text: &dyn Fn() -> String| match file {
            Some(file) => std::io::Write::write_all(file, text().as_bytes()).during(|| "write the report".into()),
            None => Ok(()),
        };
        put(&mut to_report, &|| show::json(&report))?;
        put(&mut to_html, &|| show::html::html(&report))?;
        if self.json {
            print(&format!("{}\n", show::json(&report)))?;
        } else if !self.quiet && !self.json_lines {
            eprint!("{}", show::text::text(&report, verbose, std::io::stderr().is_terminal()));
            // That walls are missing is not for those alone who ask.
            if !verbose && report.mode == Mode::Confined {
                report.notes.iter().for_each(|note| eprintln!("brig: {note}"));
            }
            if self.diff && !verbose {
                eprint!("{}", show::text::changes(&report));
            }
        }
        Ok(report.status)
    }

    /// The command as it is run, and what static analysis says about a script.
    fn command(&self, policy: &Policy) -> Result<(Vec<String>, Vec<Finding>)> {
        if let Some(text) = &self.command {
            let mut command = vec!["/bin/sh".to_owned(), "-c".into(), text.clone()];
            // What follows is $0, $1, ... as with sh -c.
            command.extend(self.args.iter().cloned());
            return Ok((command, Vec::new()));
        }
        let Some((first, rest)) = self.args.split_first() else {
            return Err(Error::invalid("no command: give one, or a script, or a shell string with -c"));
        };
        let findings = match policy.lint {
            LintMode::Off => Vec::new(),
            _ => lint::analyse_file(Path::new(first))?,
        };
        if !interpreter::is_script(first) {
            return Ok((self.args.clone(), findings));
        }
        let path = policy.process.env.get("PATH").cloned().or_else(|| std::env::var("PATH").ok()).unwrap_or_default();
        let command = interpreter::resolve(Path::new(first), rest, &path, &|p| p.is_file())?;
        Ok((command, findings))
    }
}
