//! `brig create`.

use super::{Context, listen_fds};
use crate::engine::container::{self, Request};
use crate::engine::plan::Options;
use crate::error::{Context as _, Result};
use crate::prim::terminal::connect_console_socket;
use std::path::PathBuf;

/// Create a container from a bundle; its program waits for start
#[derive(Debug, clap::Args)]
pub struct Create {
    /// The bundle: the directory that holds config.json
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    pub bundle: PathBuf,
    /// Another config than the bundle's config.json
    #[arg(short = 'f', long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Unix socket that gets the master of the container's terminal
    #[arg(long, value_name = "PATH")]
    pub console_socket: Option<PathBuf>,
    /// Unix socket that gets a pidfd of the container's first process
    #[arg(long, value_name = "PATH")]
    pub pidfd_socket: Option<PathBuf>,
    /// File for the pid of the container's first process
    #[arg(long, value_name = "FILE")]
    pub pid_file: Option<PathBuf>,
    /// Move the root filesystem over / instead of pivoting into it (for hosts that run from an initramfs)
    #[arg(long)]
    pub no_pivot: bool,
    /// Keep the caller's session keyring
    #[arg(long)]
    pub no_new_keyring: bool,
    /// How many fds from 3 up the program gets besides its standard streams
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub preserve_fds: u32,
    /// The container's name: letters, digits and _ + - .
    pub id: String,
}

impl Create {
    pub(super) fn request(&self, context: &Context, detached: bool, gated: bool) -> Result<Request> {
        let (preserve_fds, extra_env) = listen_fds(self.preserve_fds)?;
        let console = self.console_socket.as_ref().map(|path| connect_console_socket(path)).transpose();
        Ok(Request {
            id: self.id.clone(),
            bundle: self.bundle.clone(),
            config: self.config.clone(),
            options: Options {
                no_pivot: self.no_pivot,
                no_new_keyring: self.no_new_keyring,
                preserve_fds,
                extra_env,
                describe: false,
            },
            manager: context.manager,
            console: console.during(|| "--console-socket".into())?,
            console_socket: self.console_socket.is_some(),
            detached,
            pid_file: self.pid_file.clone(),
            pidfd_socket: self.pidfd_socket.clone(),
            gated,
        })
    }

    pub(super) fn run(&self, context: &Context) -> Result<()> {
        let made = container::create(&context.store, self.request(context, true, true)?, &mut |_| Ok(()))?;
        context.warn(&made.warnings);
        context.note(&made.notes);
        Ok(())
    }
}
