//! What this host offers to a sandbox: looked up, and tried by running one.

use super::policy::Policy;
use super::report::{Mode, Report};
use super::supervise::{Job, Nobody, Stream, run};
use crate::engine::check::{self, Row, State};
use crate::error::Result;
use std::path::Path;

/// Areas of `brig check` that a sandbox depends on.
const AREAS: [&str; 5] = ["system calls", "namespaces", "users", "cgroups", "confinement"];

/// Looks and tries. `root` is the state directory.
///
/// # Errors
/// As [`crate::engine::check::report`].
pub fn check(root: &Path) -> Result<check::Report> {
    let mut host = check::report(root)?;
    let rows = &mut host.rows;
    rows.retain(|row| AREAS.contains(&row.area));
    let row = |name: &str, state, found: String, cost: &str| Row {
        area: "sandbox",
        name: name.into(),
        state,
        found,
        cost: if state == State::Ok { String::new() } else { cost.into() },
        remedy: String::new(),
        fatal: false,
    };
    for landlock in rows.iter_mut().filter(|row| row.name == "Landlock" && row.state != State::Ok) {
        landlock.cost = "mounts alone keep files; without namespaces nothing does".into();
    }
    let job = Job {
        policy: Policy { id: None, ..Policy::default() },
        command: vec!["/bin/sh".into(), "-c".into(), ":".into()],
        measure: true,
        streams: [Stream::Null, Stream::Null, Stream::Null],
        ..Job::default()
    };
    match run(job, &mut Nobody) {
        Ok(report) => {
            // What it takes to run containers is not all that it takes here.
            rows.iter_mut().for_each(|row| row.fatal = false);
            rows.extend(tried(&report, row));
        }
        Err(error) => {
            rows.push(Row { fatal: true, ..row("a sandbox", State::Missing, error.to_string(), "none can run") })
        }
    }
    host.subject = "sandboxes";
    host.can_run = !rows.iter().any(|row| row.fatal && row.area == "sandbox");
    Ok(host)
}

fn tried(report: &Report, row: impl Fn(&str, State, String, &str) -> Row) -> Vec<Row> {
    let (mode, state, lost) = match report.mode {
        Mode::Privileged => ("by a privileged caller", State::Ok, ""),
        Mode::UserNamespace => ("in a user namespace", State::Ok, ""),
        Mode::Confined => (
            "none",
            State::Limited,
            "processes, network and mounts are the caller's; Landlock, seccomp and resource limits remain",
        ),
    };
    let mut rows = vec![row("walls: namespaces", state, mode.into(), lost)];
    for limit in &report.limits {
        let (state, lost) = match limit.by.as_str() {
            "RLIMIT_DATA" => (State::Limited, "counts private writable memory of each process, not memory of all"),
            "RLIMIT_NPROC" => (State::Limited, "counts all processes of the user in the user namespace"),
            "nothing here" => (State::Missing, "is not enforced"),
            _ => (State::Ok, ""),
        };
        rows.push(row(&format!("limit: {}", limit.name), state, format!("by {}", limit.by), lost));
    }
    rows.extend(report.notes.iter().map(|note| {
        let (what, remedy) = note.split_once("\n  hint: ").unwrap_or((note, ""));
        Row { remedy: remedy.replace("\n  hint: ", "; "), ..row("note", State::Limited, what.into(), "") }
    }));
    rows
}
