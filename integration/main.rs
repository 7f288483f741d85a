//! Drives the real binary on real bundles, and asserts what a container sees and what the host keeps.
//!
//! `BRIG=/path/to/runtime` puts another runtime in brig's place; `BRIG_BUNDLES=/path` adds a directory of bundles.

mod lifecycle;
mod payload;
mod support;

use std::process::ExitCode;

fn main() -> ExitCode {
    payload::run_if_called();
    let cases = [lifecycle::CASES].concat();
    support::suite::run(&cases, Vec::new())
}
