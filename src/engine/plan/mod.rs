//! The plan: validate, compile, describe.

pub mod validate;
