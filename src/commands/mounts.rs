//! `brig mounts`.

use super::Context;
use crate::engine::mounts::{self, List};
use crate::error::{Context as _, Error, Result};
use crate::spec;
use std::io::Read;
use std::path::PathBuf;

/// Change the mounts of a running container
///
/// Works on created, running and paused containers; what a mount is, and what is said of a wrong one, is as in config.json.
#[derive(Debug, clap::Args)]
pub struct Mounts {
    #[command(subcommand)]
    pub action: Action,
}

/// What is to be done.
#[derive(Debug, clap::Subcommand)]
pub enum Action {
    Add(Add),
    Remove(Remove),
}

/// Add mounts, in their order; all of them or none
#[derive(Debug, clap::Args)]
pub struct Add {
    #[command(flatten)]
    pub which: Which,
}

/// Remove the mounts at these destinations, with what is mounted below them
///
/// Of each mount only the destination counts, so that the file that added mounts removes them, too. No symlink is followed on
/// the way to a destination: the container may have made it.
#[derive(Debug, clap::Args)]
pub struct Remove {
    #[command(flatten)]
    pub which: Which,
}

#[derive(Debug, clap::Args)]
pub struct Which {
    /// A mount, as type=TYPE,src=PATH,dst=PATH and options; more than once
    #[arg(short, long, value_name = "MOUNT", value_parser = mounts::parse_flag)]
    mount: Vec<spec::Mount>,
    /// The container
    pub id: String,
    /// JSON: an array of mounts as in config.json, or an object with it as mounts; - is the standard input
    #[arg(required_unless_present = "mount", conflicts_with = "mount")]
    file: Option<PathBuf>,
}

impl Which {
    fn list(&self) -> Result<List> {
        let Some(file) = &self.file else {
            return Ok(List { name: "--mount".into(), at: "", mounts: self.mount.clone() });
        };
        let stdin = file.as_os_str() == "-";
        let name = if stdin { "the standard input".to_owned() } else { file.display().to_string() };
        let mut raw = Vec::new();
        match stdin {
            true => std::io::stdin().lock().read_to_end(&mut raw).map(drop),
            false => std::fs::read(file).map(|bytes| raw = bytes),
        }
        .during(|| format!("read {name}"))?;
        let (loaded, at) = spec::parse_mounts(raw, &name)?;
        match loaded.problems.is_empty() {
            true => Ok(List { name, at, mounts: loaded.value }),
            false => Err(Error::problems(&name, &loaded.problems)),
        }
    }
}

impl Mounts {
    /// The container that it is about.
    pub(super) fn id(&self) -> &str {
        match &self.action {
            Action::Add(Add { which }) | Action::Remove(Remove { which }) => &which.id,
        }
    }

    pub(super) fn run(&self, context: &Context) -> Result<()> {
        match &self.action {
            Action::Add(Add { which }) => mounts::add(&context.store, &which.id, &which.list()?),
            Action::Remove(Remove { which }) => mounts::remove(&context.store, &which.id, &which.list()?),
        }
    }
}
