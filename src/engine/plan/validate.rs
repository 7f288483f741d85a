//! stand-in
use crate::error::Problem;
use crate::spec::*;
use std::path::Path;
/// x
pub struct Context<'a> {
    /// x
    pub rootless: bool,
    /// x
    pub bundle: Option<&'a Path>,
    /// x
    pub console_socket: bool,
    /// x
    pub detached: bool,
}
/// x
pub fn validate(l: &Loaded<Spec>, _c: &Context) -> Result<(), Vec<Problem>> {
    if l.problems.is_empty() { Ok(()) } else { Err(l.problems.clone()) }
}
/// x
pub fn validate_process(_p: &Process, _s: &Spec, _x: &str) -> Vec<Problem> {
    vec![]
}
