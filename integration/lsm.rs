//! AppArmor profiles that are seen to enforce, SELinux contexts, and the ways by which a container might redirect what is
//! written to /proc on its behalf. What needs a module skips where the host has not enabled it.

use crate::support::{Bundle, Call, Container, Test, Value, cases, host, json, suite};
use std::fs;
use std::path::Path;

cases![
    a_profile_is_enforced,
    exec_is_confined_like_its_container,
    exec_may_be_confined_otherwise,
    an_unknown_profile_is_named,
    with_and_without_new_privileges,
    unconfined_and_stacked,
    in_a_user_namespace,
    a_profile_without_a_procfs_of_the_config,
    selinux_contexts,
    an_unknown_context_is_named,
    a_mount_over_the_label_gets_nothing,
    a_mount_over_a_sysctl_gets_nothing,
    a_mount_over_null_masks_nothing,
];

const CURRENT: &str = "read=/proc/self/attr/apparmor/current";

/// Two profiles of the test's own, loaded as long as this lives: the first allows all but writing below /tmp/denied.
struct Profiles<'t> {
    test: &'t Test,
    file: String,
    first: String,
    second: String,
}

impl<'t> Profiles<'t> {
    fn load(test: &'t Test) -> Profiles<'t> {
        test.only_brig("their words and their way with exec differ");
        if !fs::read_to_string("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text.trim() == "Y") {
            suite::skip("AppArmor is not enabled on this host");
        }
        if !Path::new("/usr/sbin/apparmor_parser").exists() {
            suite::skip("there is no apparmor_parser to load a profile with");
        }
        let (first, second) = (format!("{}-first", test.id()), format!("{}-second", test.id()));
        let file = test.dir().join("profiles").display().to_string();
        let rules = "file, capability, network, signal, ptrace, mount, umount, unix,";
        let flags = "flags=(attach_disconnected,mediate_deleted)";
        let text = format!(
            "profile {first} {flags} {{ {rules} deny /tmp/denied/** w, }}\nprofile {second} {flags} {{ {rules} }}\n"
        );
        fs::write(&file, text).unwrap();
        Call::of(test, &["/usr/sbin/apparmor_parser", "--replace", "--skip-cache", &file]).ok();
        Profiles { test, file, first, second }
    }

    /// A bundle whose process has the first profile.
    fn bundle(&self) -> Bundle {
        let mut b = plain(self.test);
        b.set("/process/apparmorProfile", json!(self.first));
        b
    }

    /// One that sleeps, started.
    fn sleeper(&self) -> Container<'t> {
        let mut b = self.bundle();
        b.payload(&["sleep"]);
        let c = self.test.create(&b);
        c.start();
        c.line();
        c
    }
}

impl Drop for Profiles<'_> {
    fn drop(&mut self) {
        let _ = Call::of(self.test, &["/usr/sbin/apparmor_parser", "--remove", &self.file]).out();
    }
}

/// Without the device rules that are the cgroups' matter.
fn plain(t: &Test) -> Bundle {
    let mut b = t.bundle();
    b.unset("/linux/resources");
    fs::create_dir(b.rootfs("tmp/denied")).unwrap();
    b
}

fn confined(seen: &Value) -> &str {
    seen[CURRENT]["ok"].as_str().unwrap_or_default().trim_end_matches(['\n', '\0'])
}

fn enforcing(profile: &str) -> String {
    format!("{profile} (enforce)")
}

fn a_profile_is_enforced(t: &Test) {
    let p = Profiles::load(t);
    let seen = t.see(&mut p.bundle(), &[CURRENT, "touch=/tmp/denied/file", "touch=/tmp/file"]);
    assert_eq!(confined(&seen), enforcing(&p.first));
    assert_eq!(seen["touch=/tmp/denied/file"]["errno"], "EACCES");
    assert_eq!(seen["touch=/tmp/file"]["ok"], true);
}

fn exec_is_confined_like_its_container(t: &Test) {
    let p = Profiles::load(t);
    let c = p.sleeper();
    let seen = c.see(&[], &[CURRENT, "touch=/tmp/denied/file"]);
    assert_eq!((confined(&seen), &seen["touch=/tmp/denied/file"]["errno"]), (&*enforcing(&p.first), &json!("EACCES")));
}

fn exec_may_be_confined_otherwise(t: &Test) {
    let p = Profiles::load(t);
    let c = p.sleeper();
    let seen = c.see(&["--apparmor", &p.second], &[CURRENT, "touch=/tmp/denied/file"]);
    assert_eq!((confined(&seen), &seen["touch=/tmp/denied/file"]["ok"]), (&*enforcing(&p.second), &json!(true)));
    let process = t.dir().join("process.json");
    let args = json!({"args": ["/bin/payload", CURRENT], "cwd": "/", "env": [], "apparmorProfile": p.second});
    fs::write(&process, args.to_string()).unwrap();
    let seen = t.call(&["exec", "--process", &process.display().to_string(), &c.id]).ok().json();
    assert_eq!(confined(&seen), enforcing(&p.second));
    let words = ["/process/apparmorProfile", "no-such-profile", "apparmor_parser"];
    c.exec(&["--apparmor", "no-such-profile"], &["/bin/payload"]).code(255).fails(&words);
    assert_eq!(c.status(), "running");
}

fn an_unknown_profile_is_named(t: &Test) {
    let _p = Profiles::load(t);
    let mut b = plain(t);
    b.set("/process/apparmorProfile", json!("no-such-profile"));
    t.create_fails(&b, &["/process/apparmorProfile", "no-such-profile", "apparmor_parser"]);
    // Without a terminal or a start in between, run does not get further either.
    t.run(&b).code(1).fails(&["no-such-profile"]);
}

fn with_and_without_new_privileges(t: &Test) {
    let p = Profiles::load(t);
    for denied in [true, false] {
        let mut b = p.bundle();
        b.set("/process/noNewPrivileges", json!(denied));
        let seen = t.see(&mut b, &[CURRENT, "seccomp"]);
        assert_eq!((confined(&seen), &seen["seccomp"]["nnp"]), (&*enforcing(&p.first), &json!(i32::from(denied))));
    }
}

fn unconfined_and_stacked(t: &Test) {
    let p = Profiles::load(t);
    let mut b = plain(t);
    b.set("/process/apparmorProfile", json!("unconfined"));
    assert_eq!(confined(&t.see(&mut b, &[CURRENT])), "unconfined");
    b.set("/process/apparmorProfile", json!(format!("{}//&{}", p.first, p.second)));
    let seen = t.see(&mut b, &[CURRENT, "touch=/tmp/denied/file"]);
    assert!([&p.first, &p.second].iter().all(|profile| confined(&seen).contains(*profile)), "{seen}");
    assert_eq!(seen["touch=/tmp/denied/file"]["errno"], "EACCES");
}

/// Whose procfs is masked, so that no second one could be mounted for a label.
fn in_a_user_namespace(t: &Test) {
    let p = Profiles::load(t);
    let mut b = p.bundle();
    b.user_namespace(100_000, 65536).set("/linux/maskedPaths", json!(["/proc/kcore", "/proc/scsi", "/proc/acpi"]));
    b.payload(&["sleep"]);
    let c = t.create(&b);
    c.start();
    c.line();
    assert_eq!(confined(&c.see(&[], &[CURRENT])), enforcing(&p.first));
    assert_eq!(confined(&c.see(&["--apparmor", &p.second], &[CURRENT])), enforcing(&p.second));
}

fn a_profile_without_a_procfs_of_the_config(t: &Test) {
    let p = Profiles::load(t);
    let mut b = p.bundle();
    let proc = b.mount_at("/proc");
    b.unset(&proc);
    let seen = t.see(&mut b, &["touch=/tmp/denied/file", "list=/proc"]);
    assert_eq!((&seen["touch=/tmp/denied/file"]["errno"], &seen["list=/proc"]["ok"]), (&json!("EACCES"), &json!([])));
    // One that can't be written to is of no use for the label, and is left as it is wanted.
    let mut b = p.bundle();
    b.set(&format!("{proc}/options"), json!(["ro"]));
    assert_eq!(confined(&t.see(&mut b, &[CURRENT])), enforcing(&p.first));
}

fn needs_selinux(t: &Test) {
    t.only_brig("their words differ");
    if !Path::new("/sys/fs/selinux/enforce").exists() {
        suite::skip("SELinux is not enabled on this host");
    }
    if !own_context().contains(':') {
        let mut b = plain(t);
        b.set("/process/selinuxLabel", json!("system_u:system_r:any_t:s0"));
        t.create_fails(&b, &["/process/selinuxLabel", "SELinux"]);
        suite::skip("SELinux has no policy on this host");
    }
}

/// A context that any policy has: the caller's own.
fn own_context() -> String {
    fs::read_to_string("/proc/self/attr/current").unwrap().trim_end_matches(['\n', '\0']).to_owned()
}

fn selinux_contexts(t: &Test) {
    needs_selinux(t);
    let context = own_context();
    let mut b = plain(t);
    b.set("/process/selinuxLabel", json!(context));
    let verb = "read=/proc/self/attr/current";
    let seen = t.see(&mut b, &[verb]);
    assert_eq!(seen[verb]["ok"].as_str().unwrap().trim_end_matches(['\n', '\0']), context);
}

fn an_unknown_context_is_named(t: &Test) {
    needs_selinux(t);
    let mut b = plain(t);
    b.set("/process/selinuxLabel", json!("no_u:no_r:no_t:s0"));
    t.create_fails(&b, &["/process/selinuxLabel", "no_u:no_r:no_t:s0"]);
}

/// A file that a config puts where something is written on the container's behalf.
fn bait(t: &Test) -> std::path::PathBuf {
    let bait = t.dir().join("bait");
    fs::write(&bait, "untouched").unwrap();
    bait
}

/// CVE-2019-16884 and CVE-2025-52881: the label goes to the kernel, or the container does not start.
fn a_mount_over_the_label_gets_nothing(t: &Test) {
    let p = Profiles::load(t);
    for place in ["/proc/self/attr/apparmor/exec", "/proc/1/attr/apparmor/exec", "/proc/thread-self/attr/apparmor/exec"] {
        let mut b = p.bundle();
        let bait = bait(t);
        b.bind(&bait, place, &[]).payload(&[CURRENT]);
        let out = t.run(&b);
        assert_eq!(fs::read_to_string(&bait).unwrap(), "untouched", "{place}");
        if out.code == 0 {
            assert_eq!(confined(&out.json()), enforcing(&p.first), "{place}");
        }
    }
}

/// CVE-2025-52881: a sysctl is the namespace's, whatever a config mounts over its file or the directories above.
fn a_mount_over_a_sysctl_gets_nothing(t: &Test) {
    t.only_brig("the runtimes of Debian are older than the fix");
    let tree = t.dir().join("tree");
    fs::create_dir_all(tree.join("kernel")).unwrap();
    fs::write(tree.join("kernel/msgmax"), "untouched").unwrap();
    let bait = bait(t);
    let parts = [(bait.as_path(), "/proc/sys/kernel/msgmax"), (&tree, "/proc/sys"), (&tree.join("kernel"), "/proc/sys/kernel")];
    for (source, place) in parts {
        let mut b = plain(t);
        b.bind(source, place, &[]).set("/linux/sysctl", json!({"kernel.msgmax": "4096"}));
        t.create_fails(&b, &["/linux/sysctl/kernel.msgmax"]);
        assert_eq!(fs::read_to_string(&bait).unwrap(), "untouched", "{place}");
        assert_eq!(fs::read_to_string(tree.join("kernel/msgmax")).unwrap(), "untouched", "{place}");
    }
    assert_eq!(host::mounts_under(t.dir()), Vec::<String>::new());
}

/// CVE-2025-31133: what stands on /dev/null is what a masked file would show.
fn a_mount_over_null_masks_nothing(t: &Test) {
    t.only_brig("the runtimes of Debian are older than the fix");
    let secret = bait(t);
    let mut b = plain(t);
    b.bind(&secret, "/dev/null", &[]).set("/linux/maskedPaths", json!(["/etc/hostname"]));
    let out = t.create_fails(&b, &["/dev/null"]);
    assert!(!out.stderr.contains("untouched"));
    assert_eq!(fs::read_to_string(&secret).unwrap(), "untouched");
}
