//! Drives the real binary on real bundles, and asserts what a container sees and what the host keeps.
//!
//! `BRIG=/path/to/runtime` puts another runtime in brig's place: where runc, crun and brig agree, brig is right, and
//! where they differ, the test says why. `BRIG_BUNDLES=/path` puts other bundles in the place of this repository's.

mod bundles;
mod cgroups;
mod devices;
mod exec;
mod lifecycle;
mod mounts;
mod namespaces;
mod payload;
mod process;
mod signals;
mod support;

use std::process::ExitCode;

fn main() -> ExitCode {
    payload::run_if_called();
    let cases = [
        lifecycle::CASES,
        signals::CASES,
        exec::CASES,
        namespaces::CASES,
        mounts::CASES,
        process::CASES,
        devices::CASES,
        cgroups::CASES,
    ]
    .concat();
    support::suite::run(&cases, bundles::tests())
}
