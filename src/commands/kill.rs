//! `brig kill`.

use super::{Context, flag_error};
use crate::engine::container;
use crate::engine::signal::parse_signal;
use crate::error::Result;

/// Send a signal to a container's first process
#[derive(Debug, clap::Args)]
pub struct Kill {
    /// Signal every process of the container
    #[arg(short, long)]
    all: bool,
    /// Take ID as a regular expression, and signal all containers that it matches
    #[arg(long)]
    regex: bool,
    /// The container
    pub id: String,
    /// The signal: a number, or a name with or without SIG
    #[arg(default_value = "SIGTERM")]
    signal: String,
}

impl Kill {
    pub(super) fn run(&self, context: &Context) -> Result<()> {
        let signal = parse_signal(&self.signal)?;
        for_ids(context, &self.id, self.regex, |id| container::kill(&context.store, id, signal, self.all))
    }
}

/// Does something to one container, or to all whose IDs match; goes on after a failure and tells the first.
pub(super) fn for_ids(context: &Context, id: &str, regex: bool, each: impl Fn(&str) -> Result<()>) -> Result<()> {
    if !regex {
        return each(id);
    }
    let pattern = regex_lite::Regex::new(id).map_err(|e| flag_error("--regex", e))?;
    let mut result = Ok(());
    for id in context.store.ids()?.iter().filter(|id| pattern.is_match(id)) {
        let one = each(id).map_err(|e| e.context(id.as_str()));
        if result.is_ok() {
            result = one;
        }
    }
    result
}
