//! Floor 4: the sandbox. A policy compiles to an OCI spec in memory and a few steps more; the engine runs that.

mod api;
mod cgroups;
pub mod check;
mod compile;
pub mod control;
pub mod desk;
pub mod diff;
pub mod event;
mod files;
pub mod host;
pub mod interpreter;
pub mod lint;
mod live;
pub mod net;
mod orphans;
mod placeholders;
pub mod policy;
pub mod policy_file;
pub mod pool;
pub mod profile;
mod queue;
mod record;
pub mod report;
pub mod settings;
pub mod show;
mod start;
pub mod supervise;
mod terminal;
pub mod units;
mod watch;

pub use api::{Input, Running, Sandbox};
pub use event::Event;
pub use live::{Change, Live};
pub use policy::{Bind, Policy, Profile};
pub use report::{Outcome, Report};
pub use supervise::Stream;
