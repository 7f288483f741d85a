//! The suite as a plain user: what every bundle gets so that such a user may run it, and the tests that stay root's.

use super::{Bundle, json, os, suite};
use std::fs;

/// What only root can do or set up, and the tests that need it: the whole of a file as `file::`, or single ones.
const ROOT: &[(&str, &[&str])] = &[
    ("as root it becomes other users itself", &["rootless::", "rootless_cgroup::", "check::as_a_plain_user"]),
    ("root's run tests the engines of plain users, too", &["engines::"]),
    ("root's run tests this for plain users, too", &["mount_live::", "systemd::"]),
    ("profiles are root's to load", &["lsm::"]),
    ("a filter takes root or no_new_privs, under which newuidmap can't help", &["filtered::"]),
    ("these bundles are root's: they have no user namespace", &["bundles::", "plan::every_bundle_has_a_plan"]),
    ("the plan is root's", &["plan::a_plan_names_what_asks_for_a_step", "bad_input::every_problem_at_once"]),
    ("spec without --rootless is root's", &["lifecycle::spec_makes_a_bundle_that_runs"]),
    (
        "joining a namespace takes rights in the user namespace that owns it",
        &[
            "namespaces::a_joined_namespace_by_path",
            "namespaces::joined_pid_namespace",
            "namespaces::joined_mount_namespace",
            "hardening::a_process_of_a_joined_pid_namespace_is_known_by_its_host_pid",
            "hardening::a_user_namespace_beside_a_joined_network",
        ],
    ),
    (
        "ID-mapped mounts take CAP_SYS_ADMIN on the host",
        &[
            "mounts::idmapped_bind",
            "mounts::idmapped_tree",
            "mounts::idmapped_bind_with_the_containers_map",
            "mounts::idmapped_bind_without_a_user_namespace",
            "hardening::an_id_mapped_mount_in_a_joined_user_namespace",
        ],
    ),
    (
        "it mounts on the host",
        &[
            "mounts::recursive_attributes",
            "mounts::recursive_times",
            "mounts::plain_attributes_are_not_recursive",
            "mounts::a_slave_sees_the_hosts_mounts",
            "devices::a_bound_dev_is_left_alone",
            "bad_input::a_full_disk",
        ],
    ),
    ("a mount's propagation depends on the host's", &["rootfs::propagation_of_the_root"]),
    ("it gives files to other users", &["mounts::tmpcopyup_keeps_owners_and_modes"]),
    (
        "a procfs of the host's pid namespace is root's to mount",
        &[
            "lifecycle::orphans_die_with_init",
            "namespaces::none_at_all",
            "signals::a_signal_is_128_and_its_number",
            "signals::kill_all_after_init",
            "signals::kill_all_reaches_every_process",
            "terminal::a_hang_up_ends_the_session",
        ],
    ),
    (
        "it takes CAP_SYS_NICE on the host",
        &[
            "process::io_priority",
            "process::scheduler_deadline",
            "process::scheduler_nice",
            "process::scheduler_policies",
        ],
    ),
    (
        "nobody but root may look into an init that has not come to its program",
        &[
            "exec::a_created_container_takes_it",
            "hardening::the_own_binary_is_out_of_reach",
            "process::dumpable_and_ptraceable_only_from_inside",
            "seccomp::notify_with_an_agent",
        ],
    ),
    (
        "a plain user's device nodes are the host's, bound",
        &["devices::default_devices", "devices::devices_of_the_config"],
    ),
    (
        "device programs and network devices are root's",
        &["update::as_the_engines_write_it", "sockets::a_network_device_that_is_not_there"],
    ),
    (
        "every container of a plain user has a user namespace, of the user's range",
        &[
            "namespaces::those_that_are_asked_for_are_new",
            "namespaces::user_namespace_with_several_ranges",
            "namespaces::user_namespace_without_maps_is_refused",
        ],
    ),
    ("sysctls of the host's are barred by owner before they are by mount", &["rootfs::readonly_paths"]),
    ("a cgroup at the root of the tree is root's", &["cgroups::two_containers_in_one_cgroup_are_refused"]),
    (
        "what is checked is what root is offered",
        &[
            "check::the_document_has_its_shape",
            "check::cgroups_are_as_mounted",
            "check::modules_and_filesystems_are_as_the_kernel_says",
        ],
    ),
];

/// Skips a test that a plain user can't run.
pub(super) fn skip_what_is_roots(name: &str) {
    if os::is_root() {
        return;
    }
    let roots = |test: &&str| name == *test || (test.ends_with("::") && name.starts_with(*test));
    if let Some((reason, _)) = ROOT.iter().find(|(_, tests)| tests.iter().any(roots)) {
        suite::skip(format!("needs root: {reason}"));
    }
    // A sandbox makes do with the user's own IDs.
    let in_a_container = name == "restrict::d_in_a_brig_container";
    if !in_a_container && ["sandbox::", "restrict::", "library::", "pool::"].iter().any(|file| name.starts_with(file)) {
        return;
    }
    if range("/etc/subuid").is_none() || range("/etc/subgid").is_none() {
        suite::skip("this user has no ID ranges in /etc/subuid and /etc/subgid");
    }
}

/// Puts the container into a user namespace: its root is the plain user, its other IDs are those of the user's range.
pub(super) fn adapt(bundle: &mut Bundle) {
    if os::is_root() {
        return;
    }
    let (uid, gid) = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
    bundle.namespace("user", None);
    for (list, file, own) in [("uidMappings", "/etc/subuid", uid), ("gidMappings", "/etc/subgid", gid)] {
        let (first, size) = range(file).unwrap_or((own, 0));
        let own = json!({"containerID": 0, "hostID": own, "size": 1});
        bundle.set(&format!("/linux/{list}"), json!([own, {"containerID": 1, "hostID": first, "size": size}]));
    }
}

/// The first ID of this user's range in such a file, and how many there are.
fn range(file: &str) -> Option<(u32, u32)> {
    let (uid, name) = (nix::unistd::geteuid(), os::user_name());
    let text = fs::read_to_string(file).ok()?;
    text.lines().find_map(|line| {
        let (who, range) = line.split_once(':')?;
        let (first, size) = range.split_once(':')?;
        (who == name || who == uid.to_string()).then_some((first.parse().ok()?, size.trim().parse().ok()?))
    })
}
