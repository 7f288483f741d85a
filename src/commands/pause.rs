//! `brig pause`.

use super::Context;
use crate::engine::pause;
use crate::error::Result;

/// Freeze all processes of a container, until resume
#[derive(Debug, clap::Args)]
pub struct Pause {
    /// The container, created or running
    pub id: String,
}

impl Pause {
    pub(super) fn run(&self, context: &Context) -> Result<()> {
        pause::pause(&context.store, &self.id)
    }
}
