//! The runtime as a user who is nobody special.

use crate::support::{Bundle, Call, Test, cases, host, json, runtime, suite};
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};

cases![
    runs_and_sees_itself_as_root,
    create_exec_and_delete,
    the_host_is_out_of_reach,
    more_than_itself_is_refused,
    the_config_that_spec_writes_runs,
    ranges_are_mapped_by_newuidmap,
    a_range_that_is_not_given_is_named,
    a_helper_that_can_not_help_is_named,
    who_may_map_needs_no_helper,
    the_state_is_kept_in_the_runtime_directory,
    an_oom_score_out_of_reach_is_left,
    groups_that_can_not_be_set_are_refused,
    flags_of_the_hosts_mounts_stay,
    a_masked_procfs_is_explained,
    forbidden_user_namespaces_are_explained,
    limits_without_a_cgroup_are_refused,
    exec_as_another_mapped_user,
];

pub const WHO: u32 = 31000;

/// A bundle that one user may run: one ID, no network namespace, no limits.
pub fn bundle(t: &Test) -> Bundle {
    let mut b = t.bundle();
    b.user_namespace(WHO, 1).without_namespace("network").unset("/linux/resources");
    // A user namespace without a network namespace of its own may mount no sysfs.
    let sys = b.mount_at("/sys");
    b.set(&sys, json!({"destination": "/sys", "type": "none", "source": "/sys", "options": ["rbind", "nosuid", "noexec", "nodev", "ro"]}));
    let pts = b.mount_at("/dev/pts");
    b.set(&format!("{pts}/options"), json!(["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]));
    for dir in [t.dir().to_path_buf(), b.dir().to_path_buf(), b.rootfs("/"), b.rootfs("tmp"), b.rootfs("mnt")] {
        chown(dir, Some(WHO), Some(WHO)).unwrap();
    }
    b
}

/// Skips where a plain user can't run the runtime at all.
fn reachable() {
    let path = &runtime::under_test().path;
    let reachable = path.ancestors().skip(1).all(|d| fs::metadata(d).is_ok_and(|m| m.permissions().mode() & 1 != 0));
    if !reachable {
        suite::skip(format!("other users can't reach {}", path.display()));
    }
    if fs::read_to_string("/proc/sys/kernel/unprivileged_userns_clone").is_ok_and(|s| s.trim() == "0") {
        suite::skip("user namespaces are root's here");
    }
}

/// A call as that user.
pub fn call<'t>(t: &'t Test, args: &[&str]) -> Call<'t> {
    demoted(t.call(args), t)
}

/// Gives a call to that user.
pub fn demoted<'t>(call: Call<'t>, t: &'t Test) -> Call<'t> {
    reachable();
    let become_user = || {
        nix::unistd::setgroups(&[])?;
        nix::unistd::setgid(WHO.into())?;
        nix::unistd::setuid(WHO.into())?;
        Ok(())
    };
    // SAFETY: three system calls.
    unsafe { call.env("XDG_RUNTIME_DIR", &t.dir().display().to_string()).before(become_user) }
}

/// A call as that user on a host that a script, run by root, has changed: in mounts that are gone with the call. The user has
/// a name there, and `ranges` in /etc/subuid and /etc/subgid; `user` are more arguments of setpriv(1).
fn elsewhere<'t>(t: &'t Test, ranges: &str, script: &str, user: &[&str], args: &[&str]) -> Call<'t> {
    reachable();
    for program in ["/usr/bin/setpriv", "/usr/bin/unshare", "/bin/sh", "/usr/bin/newuidmap", "/usr/bin/newgidmap"] {
        if !fs::exists(program).unwrap() {
            suite::skip(format!("{program} is missing"));
        }
    }
    for file in ["/etc/subuid", "/etc/subgid"] {
        if !fs::exists(file).unwrap() {
            suite::skip(format!("there is no {file} to put another over"));
        }
    }
    let passwd = fs::read_to_string("/etc/passwd").unwrap();
    fs::write(t.dir().join("passwd"), format!("{passwd}brigtest:x:{WHO}:{WHO}::/:/bin/sh\n")).unwrap();
    fs::write(t.dir().join("ranges"), ranges).unwrap();
    let script = format!(
        "cd {} && mount --bind passwd /etc/passwd && mount --bind ranges /etc/subuid && mount --bind ranges /etc/subgid && \
         {script} exec \"$@\"",
        t.dir().display()
    );
    let who = WHO.to_string();
    let before = ["/usr/bin/unshare", "--mount", "/bin/sh", "-c", &script, "sh"];
    let setpriv = ["/usr/bin/setpriv", "--reuid", &who, "--regid", &who, "--clear-groups"];
    Call::through(t, &[&before, setpriv.as_slice(), user].concat(), &[], args)
        .env("XDG_RUNTIME_DIR", &t.dir().display().to_string())
}

/// The user alone as root, and the range from `first` behind it.
fn with_range(b: &mut Bundle, first: u32) {
    let maps = json!([{"containerID": 0, "hostID": WHO, "size": 1}, {"containerID": 1, "hostID": first, "size": 65536}]);
    b.set("/linux/uidMappings", maps.clone()).set("/linux/gidMappings", maps);
}

const RANGES: &str = "brigtest:300000:65536\n";

/// A create that has to fail, and to leave nothing.
#[track_caller]
fn refused(t: &Test, call: Call, words: &[&str]) {
    call.out().code(1).fails(words);
    assert_eq!(t.left(), Vec::<String>::new());
    assert_eq!(host::mounts_under(t.dir()), Vec::<String>::new());
}

fn runs_and_sees_itself_as_root(t: &Test) {
    let mut b = bundle(t);
    b.payload(&["ids", "maps", "touch=/tmp/x", "stat=/tmp/x", "write=/dev/null:x"]).write();
    let seen = call(t, &["run", "--bundle", b.path(), &t.new_id()]).ok().json();
    assert_eq!(seen["ids"]["uid"], json!([0, 0, 0, 0]));
    assert_eq!(seen["maps"]["uid"], json!([[0, WHO, 1]]));
    assert_eq!(seen["maps"]["setgroups"], "deny");
    assert_eq!(seen["stat=/tmp/x"]["ok"]["uid"], 0);
    assert_eq!(seen["write=/dev/null:x"]["ok"], true);
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&fs::metadata(b.rootfs("tmp/x")).unwrap()), WHO);
}

fn create_exec_and_delete(t: &Test) {
    let mut b = bundle(t);
    b.payload(&["sleep"]).set("/process/oomScoreAdj", json!(200)).write();
    let id = t.new_id();
    let (read, write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap();
    let pid_file = t.dir().join("pid");
    call(t, &["create", "--bundle", b.path(), "--pid-file", &pid_file.display().to_string(), &id]).stdout(write).ok();
    assert_eq!(call(t, &["state", &id]).ok().json()["status"], "created");
    call(t, &["start", &id]).ok();
    crate::support::container::Lines::new(read).next();
    let seen = call(t, &["exec", &id, "/bin/payload", "ids", "uts"]).ok().json();
    assert_eq!((&seen["ids"]["uid"], &seen["uts"]["hostname"]), (&json!([0, 0, 0, 0]), &json!("inside")));
    call(t, &["kill", &id, "KILL"]).ok();
    assert_eq!(crate::support::os::reap(fs::read_to_string(pid_file).unwrap().parse().unwrap()), Some(137));
    call(t, &["delete", &id]).ok();
    assert_eq!(t.left(), Vec::<String>::new());
}

fn the_host_is_out_of_reach(t: &Test) {
    let secret = t.dir().join("secret");
    fs::write(&secret, "root's").unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    let mut b = bundle(t);
    b.bind(&secret, "/mnt/secret", &[]).payload(&["read=/mnt/secret", "sysctl=kernel.hostname", "write=/proc/sys/kernel/panic:1"]).write();
    let seen = call(t, &["run", "--bundle", b.path(), &t.new_id()]).ok().json();
    assert_eq!(seen["read=/mnt/secret"]["errno"], "EACCES");
    assert_eq!(seen["write=/proc/sys/kernel/panic:1"]["errno"], "EACCES");
}

fn more_than_itself_is_refused(t: &Test) {
    let mut b = bundle(t);
    b.set("/linux/uidMappings", json!([{"containerID": 0, "hostID": 0, "size": 65536}])).payload(&["sleep"]).write();
    let out = call(t, &["create", "--bundle", b.path(), &t.new_id()]).out();
    assert_ne!(out.code, 0);
    assert_eq!(t.left(), Vec::<String>::new());
    assert_eq!(host::mounts_under(t.dir()), Vec::<String>::new());
}

/// `spec --rootless`, with but the program changed.
fn the_config_that_spec_writes_runs(t: &Test) {
    t.only_brig("the others write configs for other hosts than this may be");
    let b = bundle(t);
    call(t, &["spec", "--rootless", "--bundle", b.path()]).ok();
    let file = b.dir().join("config.json");
    let mut config: crate::support::Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    config["process"]["args"] = json!(["/bin/payload", "ids", "ns", "list=/sys/class", "stat=/dev/null", "keyring"]);
    config["process"]["terminal"] = json!(false);
    config["process"]["env"] = json!([format!("BRIG_TEST={}", t.id())]);
    fs::write(&file, config.to_string()).unwrap();
    let seen = call(t, &["run", "--bundle", b.path(), &t.new_id()]).ok().json();
    assert_eq!(seen["ids"]["uid"], json!([0, 0, 0, 0]));
    assert!(!seen["list=/sys/class"]["ok"].as_array().unwrap().is_empty());
    // The host's own node, by a bind mount: no user may make one.
    assert_eq!(seen["stat=/dev/null"]["ok"]["rdev"], libc::makedev(1, 3));
    assert_eq!(seen["ns"]["net"], json!(fs::read_link("/proc/self/ns/net").unwrap().to_string_lossy()));
}

fn ranges_are_mapped_by_newuidmap(t: &Test) {
    let mut b = bundle(t);
    with_range(&mut b, 300_000);
    b.payload(&["ids", "maps", "touch=/tmp/x", "chown=5:/tmp/x"]);
    b.set("/process/user/additionalGids", json!([7])).capabilities(&["CAP_CHOWN"]);
    b.write();
    let seen = elsewhere(t, RANGES, "", &[], &["run", "--bundle", b.path(), &t.new_id()]).ok().json();
    let map = json!([[0, WHO, 1], [1, 300_000, 65536]]);
    assert_eq!((&seen["maps"]["uid"], &seen["maps"]["gid"]), (&map, &map));
    assert_eq!((&seen["ids"]["groups"], &seen["maps"]["setgroups"]), (&json!([7]), &json!("allow")));
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&fs::metadata(b.rootfs("tmp/x")).unwrap()), 300_004);
}

fn a_range_that_is_not_given_is_named(t: &Test) {
    t.only_brig("the others pass on what newuidmap says");
    let mut b = bundle(t);
    with_range(&mut b, 400_000);
    b.payload(&["ids"]).write();
    let create = elsewhere(t, RANGES, "", &[], &["create", "--bundle", b.path(), &t.new_id()]);
    let remedy = "usermod --add-subuids 400000-465535";
    refused(t, create, &["/linux/uidMappings", "[400000-465536) not allowed", "/etc/subuid", remedy]);
}

fn a_helper_that_can_not_help_is_named(t: &Test) {
    t.only_brig("the others pass on what newuidmap says");
    let mut b = bundle(t);
    with_range(&mut b, 300_000);
    b.payload(&["ids"]).write();
    let create = |script: &str, user: &[&str], words: &[&str]| {
        let call = elsewhere(t, RANGES, script, user, &["create", "--bundle", b.path(), &t.new_id()]);
        refused(t, call, words);
    };
    create("mount --bind /dev/null /usr/bin/newgidmap &&", &[], &["/linux/gidMappings", "newgidmap", "uidmap"]);
    let plain = "cp /usr/bin/newuidmap weak && chmod 755 weak && mount --bind weak /usr/bin/newuidmap &&";
    create(plain, &[], &["/linux/uidMappings", "setuid", "chmod u+s /usr/bin/newuidmap"]);
    create("", &["--no-new-privs"], &["/linux/uidMappings", "no_new_privs"]);
}

/// As under podman, which calls the runtime in a user namespace of its own.
fn who_may_map_needs_no_helper(t: &Test) {
    t.only_brig("the others ask the helpers whenever they are not root");
    let mut b = bundle(t);
    with_range(&mut b, 500_000);
    b.payload(&["maps"]).write();
    let hide = "mount --bind /dev/null /usr/bin/newuidmap && mount --bind /dev/null /usr/bin/newgidmap &&";
    let caps = ["--inh-caps", "+setuid,+setgid", "--ambient-caps", "+setuid,+setgid"];
    let seen = elsewhere(t, RANGES, hide, &caps, &["run", "--bundle", b.path(), &t.new_id()]).ok().json();
    assert_eq!(seen["maps"]["uid"], json!([[0, WHO, 1], [1, 500_000, 65536]]));
}

fn the_state_is_kept_in_the_runtime_directory(t: &Test) {
    t.only_brig("the others have directories of their own");
    let mut b = bundle(t);
    b.payload(&["sleep"]).write();
    let program = runtime::under_test().path.display().to_string();
    let id = t.new_id();
    // The directory of the test itself stands for /run/user/UID.
    let home = |args: &[&str]| demoted(Call::of(t, &[&[program.as_str()], args].concat()), t);
    home(&["create", "--bundle", b.path(), &id]).ok();
    let state = t.dir().join("brig");
    assert_eq!(fs::metadata(&state).unwrap().permissions().mode() & 0o7777, 0o1700, "sticky, and the user's alone");
    assert!(fs::exists(state.join(&id)).unwrap());
    assert_eq!(home(&["list", "--quiet"]).ok().stdout, format!("{id}\n"));
    home(&["delete", "--force", &id]).ok();
    assert_eq!(fs::read_dir(&state).unwrap().count(), 0);
    let nowhere = home(&["create", "--bundle", b.path(), &id]).env("XDG_RUNTIME_DIR", "").out().code(1);
    nowhere.fails(&["/run/brig", "XDG_RUNTIME_DIR", "--root"]);
}

fn an_oom_score_out_of_reach_is_left(t: &Test) {
    t.only_brig("crun refuses, and runc leaves it without a word");
    let mut b = bundle(t);
    b.set("/process/oomScoreAdj", json!(-500)).payload(&["sched"]).write();
    let out = call(t, &["run", "--bundle", b.path(), &t.new_id()]).ok();
    let own: i64 = fs::read_to_string("/proc/self/oom_score_adj").unwrap().trim().parse().unwrap();
    assert_eq!(out.json()["sched"]["oom_score_adj"], own);
    assert!(out.stderr.contains("/process/oomScoreAdj: -500"), "{}", out.stderr);
}

fn groups_that_can_not_be_set_are_refused(t: &Test) {
    t.only_brig("the others differ in words");
    let mut b = bundle(t);
    b.set("/process/user/additionalGids", json!([0])).payload(&["sleep"]).write();
    let create = call(t, &["create", "--bundle", b.path(), &t.new_id()]);
    refused(t, create, &["/process/user/additionalGids", "/etc/subgid"]);
    b.unset("/process/user/additionalGids").write();
    let id = t.new_id();
    call(t, &["run", "--detach", "--bundle", b.path(), &id]).ok();
    call(t, &["exec", "--additional-gids", "0", &id, "/bin/payload", "ids"]).out().code(255).fails(&["additionalGids"]);
    call(t, &["delete", "--force", &id]).ok();
}

fn flags_of_the_hosts_mounts_stay(t: &Test) {
    use nix::mount::{MsFlags, mount, umount};
    t.only_brig("crun passes over what can't be had");
    let volume = t.dir().join("volume");
    fs::create_dir(&volume).unwrap();
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC | MsFlags::MS_NOATIME;
    mount(Some("tmpfs"), &volume, Some("tmpfs"), flags, Some("mode=755")).unwrap();
    fs::create_dir(volume.join("below")).unwrap();
    mount(Some("tmpfs"), &volume.join("below"), Some("tmpfs"), flags | MsFlags::MS_RDONLY, Some("mode=755")).unwrap();
    let see = |volume: &std::path::Path, options: &[&str]| {
        let mut b = bundle(t);
        let at = b.mount("/mnt", "none", &volume.display().to_string(), options).mount_at("/mnt");
        b.payload(&["mounts"]).write();
        (at, call(t, &["run", "--bundle", b.path(), &t.new_id()]).out())
    };
    let ok = |volume: &std::path::Path, options: &[&str]| -> String {
        let mounts = see(volume, options).1.ok().json()["mounts"].clone();
        let mount = mounts.as_array().unwrap().iter().find(|m| m["target"] == "/mnt").unwrap().clone();
        mount["options"].to_string()
    };
    // What engines write by themselves asks for nothing that is locked.
    for options in [&["rbind", "rw", "rprivate"][..], &["rbind", "ro"], &["rbind", "nosuid", "nodev"]] {
        let has = ok(&volume, options);
        assert!(["nosuid", "nodev", "noexec", "noatime"].iter().all(|flag| has.contains(flag)), "{options:?}: {has}");
        assert_eq!(has.contains("\"ro\""), options.contains(&"ro"), "{options:?}: {has}");
    }
    assert!(ok(&volume.join("below"), &["bind", "rw"]).contains("\"ro\""));
    for (options, word) in [(&["rbind", "exec"][..], "exec"), (&["rbind", "suid"], "suid"), (&["bind"], "rbind")] {
        let (at, out) = see(&volume, options);
        out.code(1).fails(&[&at, word]);
    }
    umount(&volume.join("below")).unwrap();
    umount(&volume).unwrap();
}

fn a_masked_procfs_is_explained(t: &Test) {
    t.only_brig("the others differ in words");
    let mut b = bundle(t);
    b.payload(&["ids"]).write();
    let mask = "mount -t tmpfs tmpfs /proc/sys &&";
    let create = elsewhere(t, RANGES, mask, &[], &["create", "--bundle", b.path(), &t.new_id()]);
    refused(t, create, &["mount proc on /proc", &b.mount_at("/proc"), "nothing masks"]);
}

/// In a user namespace of the test's own, which has a limit of its own.
fn forbidden_user_namespaces_are_explained(t: &Test) {
    t.only_brig("the others differ in words");
    let mut b = bundle(t);
    b.payload(&["ids"]).write();
    let script = "echo 0 > /proc/sys/user/max_user_namespaces && exec \"$@\"";
    let nested = ["/usr/bin/unshare", "--user", "--map-root-user", "/bin/sh", "-c", script, "sh"];
    let create = Call::through(t, &nested, &[], &["create", "--bundle", b.path(), &t.new_id()]);
    refused(t, demoted(create, t), &["user", "clone3", "sysctl user.max_user_namespaces="]);
}

fn limits_without_a_cgroup_are_refused(t: &Test) {
    t.only_brig("the others differ in words");
    let mut b = bundle(t);
    b.set("/linux/resources", json!({"memory": {"limit": 100 << 20}})).payload(&["sleep"]).write();
    let create = call(t, &["create", "--bundle", b.path(), &t.new_id()]);
    refused(t, create, &["/linux/resources/memory/limit", "permission denied", "Delegate=yes"]);
    // What asks for nothing gets nothing, and says so.
    b.unset("/linux/resources").set("/linux/cgroupsPath", json!(format!("/{}", t.id()))).payload(&["ids"]).write();
    let out = call(t, &["run", "--bundle", b.path(), &t.new_id()]).ok();
    assert!(out.stderr.contains("/linux/cgroupsPath"), "{}", out.stderr);
}

fn exec_as_another_mapped_user(t: &Test) {
    let mut b = bundle(t);
    with_range(&mut b, 300_000);
    b.payload(&["sleep"]).write();
    let id = t.new_id();
    elsewhere(t, RANGES, "", &[], &["run", "--detach", "--bundle", b.path(), &id]).ok();
    let seen = call(t, &["exec", "--user", "5:6", "--additional-gids", "7", &id, "/bin/payload", "ids"]).ok().json();
    assert_eq!((&seen["ids"]["uid"], &seen["ids"]["gid"]), (&json!([5, 5, 5, 5]), &json!([6, 6, 6, 6])));
    assert_eq!(seen["ids"]["groups"], json!([7]));
    call(t, &["delete", "--force", &id]).ok();
}
