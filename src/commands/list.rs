//! `brig list`.

use super::state::document;
use super::{Context, print};
use crate::error::{Error, Kind, Result};
use serde_json::Value;

/// List containers
#[derive(Debug, clap::Args)]
pub struct List {
    /// How to print them
    #[arg(short, long, value_name = "FORMAT", default_value = "table", value_parser = ["table", "json"])]
    format: String,
    /// Print IDs only
    #[arg(short, long)]
    quiet: bool,
}

/// Columns of the table: heading and key.
const COLUMNS: [(&str, &str); 6] = [
    ("ID", "id"),
    ("PID", "pid"),
    ("STATUS", "status"),
    ("BUNDLE", "bundle"),
    ("CREATED", "created"),
    ("OWNER", "owner"),
];

impl List {
    pub(super) fn run(&self, context: &Context) -> Result<()> {
        let ids = context.store.ids()?;
        if self.quiet {
            return print(&ids.iter().map(|id| format!("{id}\n")).collect::<String>());
        }
        // One that is just being created or deleted has no state to show.
        let found: Vec<Value> =
            ids.iter().filter_map(|id| Some(document(&context.store.peek(id).ok()?, &context.store.dir(id)))).collect();
        if self.format == "json" {
            let text = serde_json::to_string(&found).map_err(|e| Error::new(Kind::Other, e.to_string()))?;
            return print(&format!("{text}\n"));
        }
        let cell = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let mut rows = vec![COLUMNS.map(|(heading, _)| heading.to_owned())];
        rows.extend(found.iter().map(|one| COLUMNS.map(|(_, key)| cell(&one[key]))));
        let widths: Vec<usize> =
            (0..COLUMNS.len()).map(|n| rows.iter().map(|row| row[n].len()).max().unwrap_or(0)).collect();
        let mut table = String::new();
        for row in rows {
            let line: Vec<String> = row.iter().zip(&widths).map(|(text, width)| format!("{text:width$}")).collect();
            table += line.join("   ").trim_end();
            table.push('\n');
        }
        print(&table)
    }
}
