//! What this host offers to containers of this user, what is missing, and what that costs. Everything is tried, and nothing
//! is changed; no row comes of a version number.

mod host;
mod kernel;
mod namespaces;

use crate::error::{Context, Result};
use serde::Serialize;
use std::path::Path;

/// The areas, in the order in which they are shown.
const AREAS: [&str; 8] =
    ["system calls", "namespaces", "users", "cgroups", "systemd", "confinement", "limits", "places"];

/// How much of something there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// All of it.
    Ok,
    /// A part of it, or a way around it.
    Limited,
    /// Nothing.
    Missing,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Row {
    /// The group that it belongs to.
    pub area: &'static str,
    /// Its name, unique in the report.
    pub name: String,
    /// How much of it there is.
    pub state: State,
    /// What was found.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub found: String,
    /// What its lack costs.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cost: String,
    /// What can be done about it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub remedy: String,
    /// Whether no container can run as it is.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub fatal: bool,
}

impl Row {
    fn new(area: &'static str, name: impl Into<String>, state: State) -> Row {
        let text = String::new;
        Row { area, name: name.into(), state, found: text(), cost: text(), remedy: text(), fatal: false }
    }

    fn found(mut self, text: impl Into<String>) -> Row {
        self.found = text.into();
        self
    }

    /// What it costs, where it is not whole.
    fn costs(mut self, text: impl Into<String>) -> Row {
        if self.state != State::Ok {
            self.cost = text.into();
        }
        self
    }

    fn remedy(mut self, text: impl Into<String>) -> Row {
        if self.state != State::Ok {
            self.remedy = text.into();
        }
        self
    }

    /// Nothing runs without it.
    fn needed(mut self) -> Row {
        self.fatal = self.state == State::Missing;
        self
    }
}

/// The whole report. This is the shape that `brig check --json` prints.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// brig's version.
    pub version: &'static str,
    /// The kernel's release, for people; nothing follows from it.
    pub kernel: String,
    /// The machine's architecture.
    pub machine: String,
    /// The effective user.
    pub uid: u32,
    /// Whether containers (or what it is about) can run for this user.
    pub can_run: bool,
    /// What it is about: `containers`.
    #[serde(skip)]
    pub subject: &'static str,
    /// What was looked at, by area.
    pub rows: Vec<Row>,
}

/// Who asks.
struct Caller {
    uid: u32,
    /// CAP_SYS_ADMIN is in force; else everything begins with a user namespace.
    privileged: bool,
}

/// Looks at the host; `root` is the state directory that commands would use.
///
/// # Errors
/// As uname(2).
pub fn report(root: &Path) -> Result<Report> {
    let caller = Caller { uid: nix::unistd::geteuid().as_raw(), privileged: crate::prim::capabilities::may_mount() };
    let mut rows = kernel::rows(&caller, root);
    rows.extend(namespaces::rows(&caller));
    rows.extend(host::rows(&caller, root));
    rows.sort_by_key(|row| AREAS.iter().position(|area| *area == row.area));
    let name = nix::sys::utsname::uname().during(|| "uname".into())?;
    Ok(Report {
        version: env!("CARGO_PKG_VERSION"),
        kernel: name.release().to_string_lossy().into_owned(),
        machine: name.machine().to_string_lossy().into_owned(),
        uid: caller.uid,
        can_run: !rows.iter().any(|row| row.fatal),
        subject: "containers",
        rows,
    })
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "brig {} on Linux {} ({}), as user {}", self.version, self.kernel, self.machine, self.uid)?;
        let width = self.rows.iter().map(|row| row.name.len()).max().unwrap_or(0);
        let mut area = "";
        for row in &self.rows {
            if row.area != area {
                area = row.area;
                writeln!(f, "\n{area}")?;
            }
            let state = match row.state {
                State::Ok => "ok",
                State::Limited => "limited",
                State::Missing => "missing",
            };
            writeln!(f, "{}", format!("  {state:7}  {:width$}  {}", row.name, row.found).trim_end())?;
            for (what, text) in [("cost", &row.cost), ("remedy", &row.remedy)] {
                if !text.is_empty() {
                    writeln!(f, "           {what}: {text}")?;
                }
            }
        }
        let lacking: Vec<&str> = self.rows.iter().filter(|row| row.fatal).map(|row| row.name.as_str()).collect();
        match lacking.is_empty() {
            true => writeln!(f, "\n{} can run here", self.subject),
            false => writeln!(f, "\n{} can't run here: {}", self.subject, lacking.join(", ")),
        }
    }
}
