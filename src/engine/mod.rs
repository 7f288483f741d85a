//! Floor 3: plan, launch, containers.

pub mod plan;
