//! `brig resume`.

use super::Context;
use crate::engine::pause;
use crate::error::Result;

/// Let a paused container run again
#[derive(Debug, clap::Args)]
pub struct Resume {
    /// The container
    pub id: String,
}

impl Resume {
    pub(super) fn run(&self, context: &Context) -> Result<()> {
        pause::resume(&context.store, &self.id)
    }
}
