//! `brig start`.

use super::Context;
use crate::engine::container;
use crate::error::Result;

/// Run the program of a created container
#[derive(Debug, clap::Args)]
pub struct Start {
    /// The container
    pub id: String,
}

impl Start {
    pub(super) fn run(&self, context: &Context) -> Result<()> {
        container::start(&context.store, &self.id)
    }
}
