//! Old kernels and the filters of old engines: what a container gets must not depend on which of the newer system calls are
//! there. The tests that say most about that run once per group of calls that is taken away; `make test-filtered` runs the
//! whole suite so.

use crate::exec::sleeper;
use crate::support::suite::Body;
use crate::support::{Case, Test, cases, json};

cases![
    idmapped_mounts_say_what_they_need,
    recursive_attributes_say_what_they_need,
    mounts_that_others_may_see_say_what_they_need,
    a_sandbox_says_what_is_not_recorded,
    what_takes_threads_says_what_it_needs,
    the_hosts_root_is_out_of_reach,
];

/// What is taken away. EPERM is how engines' filters of old answer calls that they do not know.
const FILTERS: [&str; 8] =
    ["openat2", "mountapi", "fsopen", "mount_setattr", "clone3", "pidfd,close_range", "all", "all:EPERM"];

/// The tests that run under each of them.
const CORE: [&str; 29] = [
    "lifecycle::create_start_state_kill_delete",
    "lifecycle::delete_force_takes_every_status",
    "lifecycle::run_detached_leaves_it_running",
    "exec::joins_every_namespace",
    "exec::joins_a_user_namespace",
    "exec::no_descriptor_leaks",
    "exec::ends_with_the_container",
    "hooks::their_namespaces",
    "namespaces::those_that_are_asked_for_are_new",
    "namespaces::time_offsets",
    "namespaces::user_namespace_maps",
    "mounts::the_order_of_mounts_is_kept",
    "mounts::options_become_attributes",
    "mounts::data_goes_to_the_filesystem",
    "mounts::binds_of_files_and_directories",
    "mounts::tmpcopyup",
    "mounts::propagation_of_a_mount",
    "mounts::sysfs_and_cgroup",
    "rootfs::masked_paths",
    "rootfs::readonly_paths",
    "rootfs::links_lead_inside",
    "rootfs::a_readonly_root",
    "terminal::dev_console",
    "terminal::foreground",
    "events::a_line_at_every_interval_until_the_end",
    "check::cgroups_are_as_mounted",
    "restrict::d_shell_string",
    "restrict::d_writes_denied_by_default",
    "restrict::d_settings_changed_while_running",
];

/// The core once per filter; nothing where the whole suite runs under one already.
pub fn tests(cases: &[Case]) -> Vec<(String, Body)> {
    if std::env::var_os("BRIG_TEST_FILTER").is_some_and(|calls| !calls.is_empty()) {
        return Vec::new();
    }
    let core: Vec<&Case> = CORE
        .iter()
        .map(|name| cases.iter().find(|case| case.path() == *name).unwrap_or_else(|| panic!("{name} is no test any more")))
        .collect();
    let pairs = FILTERS.iter().flat_map(|filter| core.iter().map(move |case| (*filter, **case)));
    pairs
        .map(|(filter, case)| {
            let body: Body = Box::new(move |t: &Test| {
                t.only_brig("what the others do on old kernels is theirs");
                t.set_filter(filter);
                (case.run)(t);
            });
            (format!("filtered::{filter}::{}", case.path()), body)
        })
        .collect()
}

fn idmapped_mounts_say_what_they_need(t: &Test) {
    t.only_brig("the words are brig's");
    t.set_filter("mount_setattr");
    let mut b = t.bundle();
    let source = b.dir().to_path_buf();
    b.bind(&source, "/mnt", &["idmap"]);
    let mount = b.mount_at("/mnt");
    for field in ["uidMappings", "gidMappings"] {
        b.set(&format!("{mount}/{field}"), json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]));
    }
    t.create_fails(&b, &["/mounts/", "uidMappings", "mount_setattr", "Linux 5.12"]);
}

fn recursive_attributes_say_what_they_need(t: &Test) {
    t.only_brig("the words are brig's");
    t.set_filter("mount_setattr");
    let mut b = t.bundle();
    let source = b.dir().to_path_buf();
    b.bind(&source, "/mnt", &["rbind", "rro"]);
    t.create_fails(&b, &["/mounts/", "rro", "mount_setattr", "Linux 5.12"]);
}

fn mounts_that_others_may_see_say_what_they_need(t: &Test) {
    t.only_brig("the words are brig's");
    let c = sleeper(t, |_| {});
    let bind = format!("type=bind,src={},dst=/mnt", t.dir().display());
    for filter in ["fsopen", "mountapi", "all", "all:EPERM"] {
        t.set_filter(filter);
        let add = |mount: &str| c.call(&["mounts", "add", "-m", mount]).out();
        add("type=tmpfs,dst=/mnt").fails(&["/0", "fsopen", "open_tree", "Linux 5.2", "filter"]);
        if filter != "fsopen" {
            add(&bind).fails(&["/0", "open_tree", "Linux 5.2", "filter"]);
        }
    }
}

fn a_sandbox_says_what_is_not_recorded(t: &Test) {
    t.only_brig("the others have no sandbox");
    t.set_filter("pidfd");
    let denied = "mkdir /etc/x 2>/dev/null; unshare -U true 2>/dev/null || echo denied";
    let report = t.call(&["sandbox", "run", "--json", "-c", denied]).ok().json();
    assert_eq!((&report["stdout"]["text"], &report["violations"]), (&json!("denied\n"), &json!([])), "{report}");
    assert!(report["notes"].to_string().contains("pidfd_getfd (Linux 5.6)"), "{report}");
}

fn what_takes_threads_says_what_it_needs(t: &Test) {
    t.only_brig("the others have no sandbox");
    t.set_filter("clone3:EPERM");
    let words = ["operation not permitted", "clone3", "ENOSYS"];
    let run = t.call(&["sandbox", "run", "--allow-domain", "example.com", "--", "true"]).out();
    run.code(125).fails(&["start the proxies"]).fails(&words);
    let socket = t.dir().join("socket").display().to_string();
    t.call(&["sandbox", "serve", "--socket", &socket]).out().code(125).fails(&["start a thread"]).fails(&words);
}

/// What was made on top of the root on the way must not be what is let go of in the old root's stead.
fn the_hosts_root_is_out_of_reach(t: &Test) {
    t.only_brig("what the others do on old kernels is theirs");
    for filter in ["fsopen", "fsopen:EPERM", "mountapi", "open_tree", "open_tree:EPERM", "all:EPERM"] {
        t.set_filter(filter);
        let mut b = t.bundle();
        let file = b.dir().join("config.json");
        b.bind(&file, "/mnt/file", &["bind"]).bind(&file, "/mnt/other", &["rbind", "ro"]);
        // Without one in the config, the procfs to write the sysctl through is brig's own.
        let proc = b.mount_at("/proc");
        b.unset(&proc).unset("/linux/maskedPaths").unset("/linux/readonlyPaths");
        b.set("/linux/sysctl", json!({"kernel.msgmax": "4096"}));
        let seen = t.see(&mut b, &["list=/", "list=/..", "list=/../.."]);
        assert!(seen["list=/"]["ok"].as_array().is_some_and(|names| names.contains(&json!("bin"))), "{seen}");
        for above in ["list=/..", "list=/../.."] {
            assert_eq!(seen[above], seen["list=/"], "without {filter}");
        }
    }
}
