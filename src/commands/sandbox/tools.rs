//! `brig sandbox update`, `kill`, `list`, `profiles`, `check`, `lint` and `policy-schema`.

use crate::commands::{Context, flag_error, print};
use crate::error::{Error, Kind, Result};
use crate::sandbox::policy::Profile;
use crate::sandbox::units::{Bytes, Percent, Span};
use crate::sandbox::{Change, control, lint, policy_file};
use clap::Args;
use serde_json::json;
use std::path::PathBuf;

/// Change limits and domains of a sandbox that runs
#[derive(Debug, Args)]
pub struct Update {
    /// The sandbox's ID
    id: String,
    /// Memory, such as 256M
    #[arg(long, value_name = "SIZE")]
    memory: Option<Bytes>,
    /// Swap on top of memory
    #[arg(long, value_name = "SIZE")]
    swap: Option<Bytes>,
    /// Share of one CPU in percent
    #[arg(long, value_name = "PERCENT")]
    cpu: Option<Percent>,
    /// Processes and threads
    #[arg(long, value_name = "N")]
    pids: Option<u64>,
    /// Wall-clock time since its start
    #[arg(short, long, value_name = "TIME")]
    timeout: Option<Span>,
    /// Domains allowed from now on, in place of those so far
    #[arg(long, value_name = "DOMAIN")]
    allow_domain: Vec<String>,
    /// Domains denied from now on, in place of those so far
    #[arg(long, value_name = "DOMAIN")]
    deny_domain: Vec<String>,
}

impl Update {
    pub(super) fn run(self, context: &Context) -> Result<()> {
        let list = |domains: Vec<String>| (!domains.is_empty()).then_some(domains);
        let change = Change {
            memory: self.memory,
            swap: self.swap,
            cpu: self.cpu,
            pids: self.pids,
            timeout: self.timeout,
            allow_domains: list(self.allow_domain),
            deny_domains: list(self.deny_domain),
        };
        if change == Change::default() {
            return Err(flag_error("sandbox update", "nothing to change: give a limit or a domain"));
        }
        let order = serde_json::to_value(&change).map_err(|e| Error::new(Kind::Other, e.to_string()))?;
        control::send(context.store.root(), &self.id, &order).map(drop)
    }
}

/// Send a signal to the program of a sandbox that runs; KILL ends all of it
#[derive(Debug, Args)]
pub struct Kill {
    /// The sandbox's ID
    id: String,
    /// The signal, by name or number
    #[arg(default_value = "KILL")]
    signal: String,
}

impl Kill {
    pub(super) fn run(self, context: &Context) -> Result<()> {
        let signal = crate::engine::signal::parse_signal(&self.signal)?;
        control::send(context.store.root(), &self.id, &json!({"kill": signal})).map(drop)
    }
}

/// List the sandboxes that run
#[derive(Debug, Args)]
pub struct List {}

impl List {
    pub(super) fn run(self, context: &Context) -> Result<()> {
        print(&control::list(context.store.root()).iter().map(|id| format!("{id}\n")).collect::<String>())
    }
}

/// List the profiles of system calls, each a superset of the one before
#[derive(Debug, Args)]
pub struct Profiles {
    /// Print the calls, too, as JSON
    #[arg(long)]
    json: bool,
}

impl Profiles {
    pub(super) fn run(self) -> Result<()> {
        if self.json {
            let one = |p: &Profile| json!({"name": p.name(), "purpose": p.purpose(), "syscalls": p.names()});
            return print(&format!("{:#}\n", json!(Profile::ALL.iter().map(one).collect::<Vec<_>>())));
        }
        let line = |p: &Profile| format!("{:<13} {:>4} calls  {}\n", p.name(), p.names().len(), p.purpose());
        print(&Profile::ALL.iter().map(line).collect::<String>())
    }
}

/// Tell what this host offers to a sandbox, and what is lost without it
#[derive(Debug, Args)]
pub struct Check {
    /// As JSON
    #[arg(long)]
    json: bool,
}

impl Check {
    pub(super) fn run(self, context: &Context) -> Result<()> {
        let report = crate::sandbox::host::check(context.store.root())?;
        if self.json { print(&format!("{:#}\n", json!(report))) } else { print(&report.to_string()) }
    }
}

/// Analyse scripts without running them
#[derive(Debug, Args)]
pub struct Lint {
    /// Print findings as JSON
    #[arg(long)]
    json: bool,
    /// List the rules instead
    #[arg(long)]
    rules: bool,
    /// Python and JavaScript files
    files: Vec<PathBuf>,
}

impl Lint {
    pub(super) fn run(self) -> Result<i32> {
        if self.rules {
            let line = |r: &lint::Rule| format!("{:<24} {:<7} {}\n", r.name, r.severity, r.why);
            return print(&lint::rules().iter().map(line).collect::<String>()).map(|()| 0);
        }
        if self.files.is_empty() {
            return Err(Error::invalid("no file to analyse: name Python or JavaScript files"));
        }
        let mut findings = Vec::new();
        for file in &self.files {
            if !file.is_file() {
                return Err(Error::invalid(format!("{} is no file", file.display())));
            }
            findings.extend(lint::analyse_file(file)?);
        }
        match self.json {
            true => print(&format!("{:#}\n", json!(findings)))?,
            false => print(&lint::lint_text(&findings))?,
        }
        Ok(i32::from(findings.iter().any(|f| f.severity != "low")))
    }
}

/// Print the JSON Schema of policy files
#[derive(Debug, Args)]
pub struct PolicySchema {}

impl PolicySchema {
    pub(super) fn run(self) -> Result<()> {
        print(&format!("{:#}\n", policy_file::schema()))
    }
}
