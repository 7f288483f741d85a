//! The engines that people run a runtime under, with the runtime under test in its place: podman, buildah, containerd.
//! Each test has an engine of its own: storage, state, sockets, a parent cgroup. An engine that is not installed skips
//! its tests.

mod buildah;
mod containerd;
mod machine;
mod podman;
mod podman_lifecycle;
mod podman_settings;
mod rootless;

use crate::support::Case;

/// Every test of the engines.
pub fn cases() -> Vec<Case> {
    [podman_lifecycle::CASES, podman_settings::CASES, rootless::CASES, buildah::CASES, containerd::CASES].concat()
}
