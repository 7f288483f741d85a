//! The runtime as a user who is nobody special.

use crate::support::{Bundle, Call, Test, cases, host, json, runtime, suite};
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};

cases![runs_and_sees_itself_as_root, create_exec_and_delete, the_host_is_out_of_reach, more_than_itself_is_refused];

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

/// A call as that user.
pub fn call<'t>(t: &'t Test, args: &[&str]) -> Call<'t> {
    let path = &runtime::under_test().path;
    let reachable = path.ancestors().skip(1).all(|d| fs::metadata(d).is_ok_and(|m| m.permissions().mode() & 1 != 0));
    if !reachable {
        suite::skip(format!("other users can't reach {}", path.display()));
    }
    if fs::read_to_string("/proc/sys/kernel/unprivileged_userns_clone").is_ok_and(|s| s.trim() == "0") {
        suite::skip("user namespaces are root's here");
    }
    let become_user = || {
        nix::unistd::setgroups(&[])?;
        nix::unistd::setgid(WHO.into())?;
        nix::unistd::setuid(WHO.into())?;
        Ok(())
    };
    // SAFETY: three system calls.
    unsafe { t.call(args).env("XDG_RUNTIME_DIR", &t.dir().display().to_string()).before(become_user) }
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
