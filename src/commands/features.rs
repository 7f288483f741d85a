//! `brig features`.

use crate::error::Result;

/// Print what this runtime offers, as the JSON document of the runtime-spec
#[derive(Debug, clap::Args)]
pub struct Features {}

impl Features {
    pub(super) fn run(&self) -> Result<()> {
        println!("{{}}");
        Ok(())
    }
}
