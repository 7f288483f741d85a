//! `brig plan`: what create would do, in words.

use super::Context;
use crate::engine::container::{self, Request};
use crate::error::Result;
use std::path::PathBuf;

/// Print the steps that a bundle compiles to, each with the place in config.json that asks for it; do nothing
#[derive(Debug, clap::Args)]
pub struct Plan {
    /// Another config than the bundle's config.json
    #[arg(short = 'f', long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The name that the container would get
    #[arg(long, default_value = "ID")]
    id: String,
    /// The bundle
    #[arg(default_value = ".")]
    bundle: PathBuf,
}

impl Plan {
    pub(super) fn run(&self, context: &Context) -> Result<()> {
        let request = Request {
            id: self.id.clone(),
            bundle: self.bundle.clone(),
            config: self.config.clone(),
            manager: context.manager,
            ..Request::default()
        };
        let (cgroups, plan) = container::describe(&request)?;
        context.warn(&plan.warnings);
        let mut text = String::from("cgroups:\n");
        for (number, (phrase, pointer)) in cgroups.iter().enumerate() {
            let place = if pointer.is_empty() { String::new() } else { format!("  [{pointer}]") };
            text += &format!("{:>5}  {phrase}{place}\n", format!("c{number}"));
        }
        super::print(&format!("{text}{plan}"))
    }
}
