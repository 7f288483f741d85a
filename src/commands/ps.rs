//! `brig ps`.

use super::{Context, print};
use crate::engine::ps;
use crate::error::Result;

/// List the processes of a container
///
/// The processes are those in the container's cgroup and the cgroups below it, by their IDs on the host. Without a cgroup
/// there is no such list. The table is what the host's ps(1) prints, less what is not in the container.
#[derive(Debug, clap::Args)]
pub struct Ps {
    /// How to print them; json is a list of numbers
    #[arg(short, long, value_name = "FORMAT", default_value = "table", value_parser = ["table", "json"])]
    format: String,
    /// The container, and options of ps(1) (default: -ef) that leave the column PID in its output
    // One argument, so that whatever comes after the ID is ps's, even what looks like a flag.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_names = ["ID", "PS OPTIONS"])]
    words: Vec<String>,
}

impl Ps {
    pub(super) fn id(&self) -> &str {
        self.words.first().map_or("", String::as_str)
    }

    pub(super) fn run(&self, context: &Context) -> Result<()> {
        let pids = ps::pids(&context.store, self.id())?;
        if self.format == "json" {
            let list: Vec<String> = pids.iter().map(ToString::to_string).collect();
            return print(&format!("[{}]\n", list.join(",")));
        }
        let options = self.words.get(1..).unwrap_or_default();
        let options = options.strip_prefix(&["--".to_owned()]).unwrap_or(options);
        print(&ps::table(&pids, options)?)
    }
}
