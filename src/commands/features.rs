//! `brig features`.

use crate::error::{Error, Kind, Result};
use crate::features::{Facts, document};
use crate::prim::{capabilities, mounts, seccomp};

/// Print what this runtime offers, as the JSON document of the runtime-spec
#[derive(Debug, clap::Args)]
pub struct Features {}

impl Features {
    pub(super) fn run(&self) -> Result<()> {
        let mount_options: Vec<_> = mounts::options::names().collect();
        let document = document(&Facts {
            mount_options: &mount_options,
            capabilities: &capabilities::names(u64::MAX),
            seccomp_flags: &seccomp::supported_flags(),
            libseccomp: &seccomp::library_version(),
            annotations: &["org.systemd.property."],
        });
        let text = serde_json::to_string_pretty(&document).map_err(|e| Error::new(Kind::Other, e.to_string()))?;
        super::print(&format!("{text}\n"))
    }
}
