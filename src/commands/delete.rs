//! `brig delete`.

use super::{Context, kill::for_ids};
use crate::engine::container;
use crate::error::Result;

/// Remove a stopped container
#[derive(Debug, clap::Args)]
pub struct Delete {
    /// Kill it first if it runs; one that does not exist is no error
    #[arg(short, long)]
    force: bool,
    /// Take ID as a regular expression, and remove all containers that it matches
    #[arg(long)]
    regex: bool,
    /// The container
    pub id: String,
}

impl Delete {
    pub(super) fn run(&self, context: &Context) -> Result<()> {
        for_ids(context, &self.id, self.regex, |id| {
            let failed_hooks = container::delete(&context.store, id, self.force)?;
            context.warn_of(&failed_hooks);
            Ok(())
        })
    }
}
