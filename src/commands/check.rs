//! `brig check`.

use super::{Context, print};
use crate::engine::check;
use crate::error::{Error, Kind, Result};

/// Show what this host offers to containers, what is missing, and what that costs
///
/// Everything is tried, and nothing is changed. Exit status: 0 if containers can run for this user, 1 if not.
#[derive(Debug, clap::Args)]
pub struct Check {
    /// Print one JSON object: version, kernel, machine, uid, canRun, and rows of area, name, state (ok, limited, missing),
    /// found, cost, remedy, fatal; what is empty or false is left out of a row
    #[arg(long)]
    json: bool,
}

impl Check {
    pub(super) fn run(&self, context: &Context) -> Result<i32> {
        let report = check::report(context.store.root())?;
        if self.json {
            let text = serde_json::to_string_pretty(&report).map_err(|e| Error::new(Kind::Other, e.to_string()))?;
            print(&format!("{text}\n"))?;
        } else {
            print(&report.to_string())?;
        }
        Ok(i32::from(!report.can_run))
    }
}
