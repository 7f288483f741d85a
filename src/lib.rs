//! brig: an OCI container runtime. A bundle is read, validated and compiled to a plan; the engine runs the plan.
//!
//! The floors, lowest first: [`sys`] (system calls), [`spec`] and [`error`] (vocabulary), [`prim`] (one OCI
//! concept each), [`engine`] (plan, launch, containers), [`sandbox`] (a program without a bundle), [`commands`] (the command
//! line). See docs/architecture.md.

#![warn(missing_docs)]
#![deny(unsafe_code)]

pub mod clock;
pub mod commands;
pub mod engine;
pub mod error;
pub mod features;
pub mod prim;
pub mod sandbox;
pub mod spec;
#[allow(unsafe_code)]
pub mod sys;
