//! A plain user with a part of the cgroup v2 tree of its own: delegated by hand, as systemd does it, and by a user's own
//! systemd.

use crate::rootless::{WHO, bundle};
use crate::support::{Call, Test, cases, host, json, suite};
use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::PathBuf;

cases![
    limits_in_a_delegated_tree,
    exec_joins_the_cgroup,
    a_controller_that_is_not_delegated_is_named,
    exec_from_outside_of_the_tree_is_explained,
    the_container_sees_its_own_cgroup,
    in_a_scope_of_the_users_own_systemd,
];

/// A delegated cgroup, with one inside from which the user's calls are made.
struct Delegated(PathBuf);

impl Delegated {
    fn new(t: &Test, controllers: &[&str]) -> Delegated {
        let own = fs::read_to_string("/proc/self/cgroup").unwrap();
        let Some(own) = own.trim().strip_prefix("0::/").filter(|own| !own.contains('\n')) else {
            suite::skip("cgroups are not v2 alone here");
        };
        if !fs::exists("/usr/bin/setpriv").unwrap() {
            suite::skip("there is no setpriv");
        }
        // Beside this process' own cgroup, which has processes and so can't limit what is below it.
        let own = PathBuf::from("/sys/fs/cgroup").join(own);
        let parent = if own.ends_with("cgroup") { own.clone() } else { own.parent().unwrap().to_owned() };
        for name in controllers {
            let _ = fs::write(parent.join("cgroup.subtree_control"), format!("+{name}"));
        }
        // Below one of root's, which alone says what is to be had in there.
        let above = parent.join(format!("{}-delegated", t.id()));
        let made = Delegated(above.join("user"));
        fs::create_dir(&above).unwrap();
        for name in controllers {
            if fs::write(above.join("cgroup.subtree_control"), format!("+{name}")).is_err() {
                suite::skip(format!("the {name} controller is not to be had below {}", parent.display()));
            }
        }
        let caller = made.0.join("caller");
        fs::create_dir_all(&caller).unwrap();
        for dir in [&made.0, &caller] {
            for file in ["", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads"] {
                chown(dir.join(file), Some(WHO), Some(WHO)).unwrap();
            }
        }
        made
    }

    /// A call of the user's from within.
    fn call<'t>(&self, t: &'t Test, args: &[&str]) -> Call<'t> {
        let who = format!("--reuid {WHO} --regid {WHO} --clear-groups");
        let caller = self.0.join("caller/cgroup.procs");
        let script = format!("echo $$ > {} && exec /usr/bin/setpriv {who} \"$@\"", caller.display());
        Call::through(t, &["/bin/sh", "-c", &script, "sh"], &[], args)
            .env("XDG_RUNTIME_DIR", &t.dir().display().to_string())
    }

    /// A file of a container's cgroup.
    fn read(&self, id: &str, file: &str) -> String {
        fs::read_to_string(self.0.join(id).join(file)).unwrap().trim().to_owned()
    }
}

impl Drop for Delegated {
    fn drop(&mut self) {
        let _ = fs::remove_dir(self.0.join("caller"));
        let _ = fs::remove_dir(&self.0);
        let _ = fs::remove_dir(self.0.parent().unwrap());
    }
}

fn limits_in_a_delegated_tree(t: &Test) {
    let tree = Delegated::new(t, &["memory", "pids"]);
    let mut b = bundle(t);
    b.set("/linux/resources", json!({"memory": {"limit": 100 << 20}, "pids": {"limit": 9}})).payload(&["sleep"]).write();
    let id = t.new_id();
    tree.call(t, &["run", "--detach", "--bundle", b.path(), &id]).ok();
    assert_eq!((tree.read(&id, "memory.max"), tree.read(&id, "pids.max")), ((100 << 20).to_string(), "9".into()));
    let pid = tree.call(t, &["state", &id]).ok().json()["pid"].to_string();
    assert_eq!(tree.read(&id, "cgroup.procs"), pid);
    assert_eq!(fs::metadata(tree.0.join(&id)).unwrap().uid(), WHO);
    tree.call(t, &["kill", &id, "KILL"]).ok();
    tree.call(t, &["delete", "--force", &id]).ok();
    assert!(!fs::exists(tree.0.join(&id)).unwrap());
}

fn exec_joins_the_cgroup(t: &Test) {
    let tree = Delegated::new(t, &["pids"]);
    let mut b = bundle(t);
    b.set("/linux/resources", json!({"pids": {"limit": 9}})).payload(&["sleep"]).write();
    let id = t.new_id();
    tree.call(t, &["run", "--detach", "--bundle", b.path(), &id]).ok();
    let seen = tree.call(t, &["exec", &id, "/bin/payload", "cgroup"]).ok().json();
    assert!(seen["cgroup"][0].as_str().unwrap().ends_with(&id), "{seen}");
    tree.call(t, &["delete", "--force", &id]).ok();
}

fn a_controller_that_is_not_delegated_is_named(t: &Test) {
    t.only_brig("the others differ in words");
    let tree = Delegated::new(t, &["pids"]);
    let mut b = bundle(t);
    b.set("/linux/resources", json!({"memory": {"limit": 100 << 20}})).payload(&["sleep"]).write();
    let create = tree.call(t, &["create", "--bundle", b.path(), &t.new_id()]);
    create.out().code(1).fails(&["/linux/resources/memory/limit", "memory controller"]);
    let mut left = t.left();
    left.retain(|what| !what.contains("-delegated"));
    assert_eq!((left, fs::exists(tree.0.join(t.id())).unwrap()), (Vec::<String>::new(), false));
    assert_eq!(fs::read_dir(&tree.0).unwrap().flatten().filter(|e| e.path().is_dir()).count(), 1, "but for the caller's");
}

/// Nobody may move a process into a tree from outside of it but who owns the ancestor of both.
fn exec_from_outside_of_the_tree_is_explained(t: &Test) {
    t.only_brig("runc leaves the process where it is, without a word");
    let tree = Delegated::new(t, &["pids"]);
    let mut b = bundle(t);
    b.set("/linux/resources", json!({"pids": {"limit": 9}})).payload(&["sleep"]).write();
    let id = t.new_id();
    tree.call(t, &["run", "--detach", "--bundle", b.path(), &id]).ok();
    crate::rootless::call(t, &["exec", &id, "/bin/payload", "ids"]).out().code(255).fails(&["cgroup.procs", "delegated"]);
    tree.call(t, &["delete", "--force", &id]).ok();
}

fn the_container_sees_its_own_cgroup(t: &Test) {
    let tree = Delegated::new(t, &["pids"]);
    let mut b = bundle(t);
    b.namespace("cgroup", None).mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "ro"]);
    b.set("/linux/resources", json!({"pids": {"limit": 9}}));
    b.payload(&["cgroup", "cgfile=pids.max", "write=/sys/fs/cgroup/pids.max:max"]).write();
    let seen = tree.call(t, &["run", "--bundle", b.path(), &t.new_id()]).ok().json();
    assert_eq!((&seen["cgroup"], &seen["cgfile=pids.max"]["ok"]), (&json!(["0::/"]), &json!("9\n")));
    assert_eq!(seen["write=/sys/fs/cgroup/pids.max:max"]["errno"], "EROFS");
}

/// The first user whose systemd runs: its number.
fn user_with_systemd() -> u32 {
    let users = fs::read_dir("/run/user").into_iter().flatten().flatten();
    let mut numbers = users.filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok());
    numbers
        .find(|uid| *uid != 0 && fs::exists(format!("/run/user/{uid}/bus")).unwrap())
        .unwrap_or_else(|| suite::skip("no user's own systemd runs here"))
}

/// `systemd-run --user --scope -p Delegate=yes brig …`: limits bite where no privilege was given to anybody.
fn in_a_scope_of_the_users_own_systemd(t: &Test) {
    let uid = user_with_systemd();
    let mut b = t.bundle();
    b.user_namespace(uid, 1).without_namespace("network");
    b.set("/linux/resources", json!({"pids": {"limit": 9}, "memory": {"limit": 100 << 20}}));
    let sys = b.mount_at("/sys");
    b.set(&sys, json!({"destination": "/sys", "type": "none", "source": "/sys", "options": ["rbind", "ro"]}));
    let pts = b.mount_at("/dev/pts");
    b.set(&format!("{pts}/options"), json!(["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]));
    b.payload(&["sleep"]).write();
    for dir in [t.dir().to_path_buf(), b.dir().to_path_buf(), b.rootfs("/"), b.rootfs("tmp"), b.rootfs("mnt")] {
        chown(dir, Some(uid), Some(uid)).unwrap();
    }
    let (id, run) = (t.new_id(), format!("/run/user/{uid}"));
    let who = uid.to_string();
    let call = |args: &[&str]| {
        let demoted = ["/usr/bin/setpriv", "--reuid", &who, "--regid", &who, "--clear-groups"];
        let scope = ["/usr/bin/systemd-run", "--user", "--scope", "--quiet", "-p", "Delegate=yes"];
        Call::through(t, &[&demoted[..], &scope].concat(), &[], args)
            .env("XDG_RUNTIME_DIR", &run)
            .env("DBUS_SESSION_BUS_ADDRESS", &format!("unix:path={run}/bus"))
    };
    call(&["run", "--detach", "--bundle", b.path(), &id]).ok();
    let state = call(&["state", &id]).ok().json();
    let pid = i32::try_from(state["pid"].as_i64().unwrap()).unwrap();
    assert_eq!(host::cgroup_file(pid, "", "pids.max"), "9");
    assert_eq!(host::cgroup_file(pid, "", "memory.max"), (100 << 20).to_string());
    assert!(fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap().contains(&format!("user@{uid}.service")));
    let seen = call(&["exec", &id, "/bin/payload", "cgroup", "ids"]).ok().json();
    assert!(seen["cgroup"][0].as_str().unwrap().contains(&id), "{seen}");
    call(&["delete", "--force", &id]).ok();
    assert_eq!(t.left(), Vec::<String>::new());
}
