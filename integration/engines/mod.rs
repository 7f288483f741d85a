//! The engines that people run a runtime under, with the runtime under test in its place: podman, buildah, containerd.
//! Each test has an engine of its own: storage, state, sockets, a parent cgroup. An engine that is not installed skips
//! its tests.

mod buildah;
mod containerd;
mod containerd_matrix;
mod control;
mod docker;
mod machine;
pub mod place;
mod podman;
mod podman_lifecycle;
mod podman_limits;
mod podman_matrix;
mod podman_pods;
mod podman_settings;
mod podman_systemd;
mod podman_v2;
mod rootless;

use crate::support::Case;

/// Every test of the engines.
pub fn cases() -> Vec<Case> {
    [
        podman_lifecycle::CASES,
        podman_settings::CASES,
        podman_matrix::CASES,
        podman_limits::CASES,
        podman_pods::CASES,
        podman_systemd::CASES,
        podman_v2::CASES,
        rootless::CASES,
        buildah::CASES,
        containerd::CASES,
        containerd_matrix::CASES,
        control::CASES,
        docker::CASES,
    ]
    .concat()
}
