//! The sandbox: each of its features by name, what it leaves, and what it says of bad input.

mod bad_input;
mod layer;
mod limits;
mod report;
mod robust;
mod script;
mod spec;
mod support;
mod view;

use crate::support::Case;

/// Every test of the sandbox.
pub fn cases() -> Vec<Case> {
    let first = [layer::CASES, limits::CASES, report::CASES, script::CASES, view::CASES];
    [first.concat(), [robust::CASES, spec::CASES, bad_input::CASES].concat()].concat()
}
