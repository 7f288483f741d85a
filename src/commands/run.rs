//! `brig run`.

use super::{Context, create::Create};
use crate::engine::{attend, container};
use crate::error::Result;

/// Create a container and run its program
#[derive(Debug, clap::Args)]
pub struct Run {
    #[command(flatten)]
    pub create: Create,
    /// Return once the program runs
    #[arg(short, long)]
    pub detach: bool,
    /// Keep the stopped container, for state and delete
    #[arg(long)]
    pub keep: bool,
    /// Leave orphans of the container to the caller's own reaper
    #[arg(long)]
    pub no_subreaper: bool,
}

impl Run {
    pub(super) fn run(&self, context: &Context) -> Result<i32> {
        let mut request = self.create.request(context, self.detach, false)?;
        let mut desk = (!self.detach).then(|| attend::Desk::new(!self.no_subreaper)).transpose()?;
        if let Some(desk) = &mut desk {
            desk.lend_console(&mut request.console)?;
        }
        let made = container::create(&context.store, request, &mut |spec| match &mut desk {
            Some(desk) if spec.process.as_ref().is_some_and(|p| p.terminal) => desk.take_terminal(),
            _ => Ok(()),
        })?;
        context.warn(&made.warnings);
        context.note(&made.notes);
        let started = made.after_start();
        let child = made.unlock();
        let ended = match desk {
            None => {
                // A container whose poststart hook failed must not stay.
                if started.is_err() {
                    context.warn_of(&container::delete(&context.store, &self.create.id, true)?);
                }
                return started.map(|()| 0);
            }
            Some(desk) => desk.attend(&child),
        };
        if !self.keep {
            context.warn_of(&container::delete(&context.store, &self.create.id, true)?);
        }
        started?;
        Ok(ended?.status())
    }
}
