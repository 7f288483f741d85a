//! `brig sandbox`.

pub mod flags;
mod run;
mod serve;
mod tools;
mod values;

use super::{Context, Lazy};
use crate::error::Result;

/// Run a program without a bundle: limits, files, network and system calls by policy, and a report of what it did
#[derive(Debug, clap::Args)]
pub struct Sandbox {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Run a command, a shell string or a script in a sandbox: -w keeps its changes, --allow-domain opens the network
    Run(Lazy<run::Run>),
    /// Serve prepared sandboxes on a unix socket, and over HTTP if wanted: the fastest way to run many commands
    Serve(Lazy<serve::Serve>),
    Update(tools::Update),
    Kill(tools::Kill),
    List(tools::List),
    Profiles(tools::Profiles),
    Check(tools::Check),
    Lint(tools::Lint),
    PolicySchema(tools::PolicySchema),
}

impl Sandbox {
    /// Exit status of brig's own failures, so that they are told from the program's.
    pub(super) const FAILED: u8 = 125;

    pub(super) fn run(self, context: &Context) -> Result<i32> {
        match self.command {
            Command::Run(c) => c.0.run(context),
            Command::Serve(c) => c.0.run(context).map(|()| 0),
            Command::Update(c) => c.run(context).map(|()| 0),
            Command::Kill(c) => c.run(context).map(|()| 0),
            Command::List(c) => c.run(context).map(|()| 0),
            Command::Profiles(c) => c.run().map(|()| 0),
            Command::Check(c) => c.run(context).map(|()| 0),
            Command::Lint(c) => c.run(),
            Command::PolicySchema(c) => c.run().map(|()| 0),
        }
    }
}
