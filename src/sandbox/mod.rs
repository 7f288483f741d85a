//! Floor 4: the sandbox. A policy compiles to an OCI spec in memory and a few steps more; the engine runs that.

pub mod policy;
pub mod report;
pub mod units;
