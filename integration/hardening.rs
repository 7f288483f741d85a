//! What once went wrong, or could: each a way for a container to get at more than it should, or to get less than it asked for.

use crate::exec::sleeper;
use crate::support::{Kind, Test, cases, json};
use std::fs;
use std::os::unix::fs::PermissionsExt;

cases![
    a_process_of_a_joined_pid_namespace_is_known_by_its_host_pid,
    a_user_namespace_beside_a_joined_network,
    an_id_mapped_mount_in_a_joined_user_namespace,
    programs_are_not_found_through_open_directories,
    the_last_value_of_a_variable_counts,
    a_remount_changes_no_data,
    a_tmpfs_keeps_the_mode_of_what_it_covers,
    labels_that_nobody_enforces_are_refused,
    the_own_binary_is_out_of_reach,
];

/// The process in between is born in the joined namespace and knows its child by that namespace's number.
fn a_process_of_a_joined_pid_namespace_is_known_by_its_host_pid(t: &Test) {
    t.only_brig("the peers of Debian know no time namespaces");
    let other = sleeper(t, |_| ());
    let c = sleeper(t, |b| {
        b.namespace("pid", Some(&format!("/proc/{}/ns/pid", other.pid))).namespace("time", None);
    });
    let pid = c.state()["pid"].as_i64().unwrap();
    let cgroup = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    assert!(cgroup.contains(&c.id), "{pid} is another process: {cgroup}");
    assert_eq!(fs::read_to_string(format!("/proc/{pid}/comm")).unwrap().trim(), "payload");
}

/// The network namespace is the host's to give; the container's root may not join it by itself.
fn a_user_namespace_beside_a_joined_network(t: &Test) {
    t.differs(Kind::Crun, "it joins after the user namespace, which may not");
    let other = sleeper(t, |_| ());
    let net = format!("/proc/{}/ns/net", other.pid);
    let mut b = t.bundle();
    b.user_namespace(100_000, 65536).namespace("network", Some(&net));
    let sys = b.mount_at("/sys");
    b.set(&sys, json!({"destination": "/sys", "type": "none", "source": "/sys", "options": ["rbind", "ro"]}));
    // Often, as the process in between and the container's own once raced to speak first.
    for _ in 0..10 {
        let seen = t.see(&mut b, &["ns", "ids"]);
        assert_eq!(seen["ns"]["net"], json!(fs::read_link(&net).unwrap().to_string_lossy()));
        assert_eq!(seen["ids"]["uid"], json!([0, 0, 0, 0]));
    }
}

fn an_id_mapped_mount_in_a_joined_user_namespace(t: &Test) {
    t.needs_call("mount_setattr");
    t.only_brig("the peers of Debian know ID-mapped mounts otherwise or not at all");
    let other = sleeper(t, |b| {
        b.user_namespace(100_000, 65536);
    });
    let volume = t.dir().join("volume");
    fs::create_dir(&volume).unwrap();
    fs::write(volume.join("file"), "").unwrap();
    let mut b = t.bundle();
    b.namespace("user", Some(&format!("/proc/{}/ns/user", other.pid))).bind(&volume, "/mnt", &["rbind", "idmap"]);
    assert_eq!(t.see(&mut b, &["stat=/mnt/file"])["stat=/mnt/file"]["ok"]["uid"], 0);
}

/// A directory that the caller left open is not a way out of the root filesystem (CVE-2024-21626).
fn programs_are_not_found_through_open_directories(t: &Test) {
    t.only_brig("the peers of Debian let the program through");
    for fd in 3..24 {
        let mut b = t.bundle();
        let program = format!("/proc/self/fd/{fd}{}", b.rootfs("bin/payload").display());
        b.args(&[&program, "ids"]).write();
        let open = || fs::File::open("/").unwrap().into();
        t.call(&["run", "--bundle", b.path(), &t.new_id()]).pass(vec![(open(), 9)]).out().fails(&["no such file"]);
    }
}

fn the_last_value_of_a_variable_counts(t: &Test) {
    let c = sleeper(t, |b| {
        b.set("/process/env/-", json!("A=0"));
    });
    let seen = c.see(&["--env", "A=1", "--env", "A=2"], &["env"]);
    let of_a: Vec<_> = seen["env"].as_array().unwrap().iter().filter(|e| e.as_str().unwrap().starts_with("A=")).collect();
    assert_eq!(of_a, [&json!("A=2")]);
}

fn a_remount_changes_no_data(t: &Test) {
    t.only_brig("the peers change it");
    let mut b = t.bundle();
    b.mount("/mnt", "tmpfs", "tmpfs", &["size=1m"]).mount("/mnt", "tmpfs", "tmpfs", &["remount", "size=2m", "nosuid"]);
    t.create_fails(&b, &["/options", "size=2m"]);
}

fn a_tmpfs_keeps_the_mode_of_what_it_covers(t: &Test) {
    t.differs(Kind::Crun, "1.8.1 makes it open to all");
    let mut b = t.bundle();
    fs::create_dir(b.rootfs("private")).unwrap();
    fs::set_permissions(b.rootfs("private"), fs::Permissions::from_mode(0o700)).unwrap();
    b.mount("/private", "tmpfs", "tmpfs", &[]).mount("/fresh", "tmpfs", "tmpfs", &[]);
    let seen = t.see(&mut b, &["stat=/private", "stat=/fresh"]);
    assert_eq!(seen["stat=/private"]["ok"]["mode"], "40700", "{seen}");
    assert_eq!(seen["stat=/fresh"]["ok"]["mode"], "41777", "{seen}");
}

/// A label on a host without its security module would be taken for a confinement.
fn labels_that_nobody_enforces_are_refused(t: &Test) {
    t.only_brig("crun passes over an AppArmor profile");
    let enabled = |path: &str| fs::exists(path).unwrap();
    for (module, pointer, path) in [
        ("AppArmor", "/process/apparmorProfile", "/sys/kernel/security/apparmor"),
        ("SELinux", "/process/selinuxLabel", "/sys/fs/selinux/enforce"),
        ("SELinux", "/linux/mountLabel", "/sys/fs/selinux/enforce"),
    ] {
        if enabled(path) {
            continue;
        }
        let mut b = t.bundle();
        b.set(pointer, json!("some:label"));
        t.create_fails(&b, &[pointer, module]);
    }
}

/// Who gets hold of /proc/PID/exe of a process on its way into the container must not be able to write to the binary once it
/// is no longer busy (CVE-2019-5736).
fn the_own_binary_is_out_of_reach(t: &Test) {
    t.only_brig("runc and crun copy their binary into a memfd");
    // Brig does so, too, without these.
    t.needs_call("mountapi");
    let mut b = t.bundle();
    b.payload(&["sleep"]);
    let c = t.create(&b);
    let exe = fs::OpenOptions::new().read(true).open(format!("/proc/{}/exe", c.pid)).unwrap();
    let flags = nix::sys::statvfs::fstatvfs(&exe).unwrap().flags();
    assert!(flags.contains(nix::sys::statvfs::FsFlags::ST_RDONLY), "{flags:?}");
}
