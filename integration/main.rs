//! Drives the real binary on real bundles, and asserts what a container sees and what the host keeps.
//!
//! `BRIG=/path/to/runtime` puts another runtime in brig's place: where runc, crun and brig agree, brig is right, and
//! where they differ, the test says why. `BRIG_BUNDLES=/path` puts other bundles in the place of this repository's.

mod bundles;
mod engines;
mod payload;
mod sandbox;
mod support;

/// A file per feature, each with its list of tests.
macro_rules! features {
    ($($file:ident),* $(,)?) => {
        $(mod $file;)*

        fn cases() -> Vec<support::Case> {
            [$($file::CASES),*].concat()
        }
    };
}

features![
    lifecycle,
    signals,
    exec,
    namespaces,
    mounts,
    rootfs,
    process,
    devices,
    cgroups,
    cgroups_v2,
    cgroups_v2_life,
    hooks,
    seccomp,
    terminal,
    sockets,
    rootless,
    rootless_cgroup,
    races,
    plan,
    bad_input,
    invalid,
    killed,
    hardening,
    output,
    ps,
    pause,
    update,
    events,
    mount_live,
    check,
    lsm,
    resctrl,
    systemd,
    filtered,
    library,
    restrict,
    pool,
];

/// Sandboxes are made by this program itself, too: their children may not allocate between clone and exec.
#[cfg(debug_assertions)]
#[global_allocator]
static GUARD: brig::commands::Guarded = brig::commands::Guarded;

fn main() -> std::process::ExitCode {
    payload::run_if_called();
    let dynamic = [bundles::tests(), filtered::tests(&cases())].into_iter().flatten().collect();
    support::suite::run(&[cases(), sandbox::cases(), engines::cases()].concat(), dynamic)
}
