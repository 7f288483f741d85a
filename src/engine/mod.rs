//! Floor 3: plan, launch, containers.

pub mod attend;
pub mod check;
pub mod child;
pub mod container;
pub mod events;
pub mod exec;
pub mod launch;
pub mod mounts;
pub mod pause;
pub mod plan;
pub mod ps;
pub mod signal;
pub mod stats;
pub mod store;
pub mod update;
pub mod wire;
