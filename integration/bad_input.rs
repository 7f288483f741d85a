//! What goes wrong says so clearly, and leaves nothing.

use crate::support::{Bundle, Kind, Test, cases, host, json};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

cases![
    no_config,
    no_bundle,
    an_empty_config,
    a_config_that_is_not_json,
    a_config_of_the_wrong_types,
    every_problem_at_once,
    a_wrong_version,
    no_root,
    a_missing_rootfs,
    a_rootfs_that_is_a_file,
    no_process,
    no_args,
    a_relative_cwd,
    an_id_that_is_taken,
    illegal_ids,
    a_missing_id,
    unknown_commands_and_flags,
    unknown_containers,
    a_program_that_is_missing,
    a_program_that_is_not_executable,
    a_program_that_is_a_directory,
    a_program_of_another_architecture,
    a_script_whose_interpreter_is_missing,
    a_cwd_that_is_a_file,
    a_mount_that_fails_half_way,
    a_state_directory_that_cannot_be_written,
    a_full_disk,
    a_pid_file_that_cannot_be_written,
    broken_state,
    errors_are_one_line_without_debris,
];

fn sleeper(t: &Test) -> Bundle {
    let mut b = t.bundle();
    b.payload(&["sleep"]);
    b
}

fn no_config(t: &Test) {
    let b = t.bundle();
    let out = t.call(&["create", "--bundle", b.path(), &t.new_id()]).out().fails(&["config.json", "no such file or directory"]);
    assert_ne!(out.code, 0);
    assert_eq!(t.left(), Vec::<String>::new());
}

fn no_bundle(t: &Test) {
    t.call(&["create", "--bundle", "/no/such/bundle", &t.new_id()]).out().fails(&["/no/such/bundle", "no such file or directory"]);
    assert_eq!(t.left(), Vec::<String>::new());
}

/// `create` of a config.json that may be anything.
fn refused(t: &Test, text: &str, words: &[&str]) {
    let b = t.bundle();
    b.write_text(text);
    t.call(&["create", "--bundle", b.path(), &t.new_id()]).out().code(1).fails(words);
    assert_eq!(t.left(), Vec::<String>::new());
}

fn an_empty_config(t: &Test) {
    refused(t, "", &["config.json"]);
    refused(t, "{}", &["ociVersion"]);
}

fn a_config_that_is_not_json(t: &Test) {
    refused(t, "{\"ociVersion\": \"1.0.2\",\n  oops}", &["config.json", "line 2"]);
    refused(t, "[1, 2]", &["config.json"]);
    refused(t, "\u{1}\u{2}binary\u{0}", &["config.json"]);
    refused(t, &"[".repeat(100_000), &["config.json"]);
}

fn a_config_of_the_wrong_types(t: &Test) {
    t.differs(Kind::Crun, "it reads what it can");
    refused(t, r#"{"ociVersion": "1.0.2", "process": {"args": "sh"}}"#, &["/process/args"]);
    refused(t, r#"{"ociVersion": "1.0.2", "process": {"user": {"uid": -1}}}"#, &["/process/user/uid"]);
    refused(t, r#"{"ociVersion": "1.0.2", "process": {"user": {"uid": 4294967296}}}"#, &["/process/user/uid"]);
    refused(t, r#"{"ociVersion": "1.0.2", "mounts": {}}"#, &["/mounts"]);
}

fn every_problem_at_once(t: &Test) {
    t.only_brig("they stop at the first");
    let mut b = sleeper(t);
    b.set("/process/cwd", json!("relative")).set("/process/args", json!([])).unset("/root");
    b.set("/linux/namespaces/-", json!({"type": "nonsense"})).set("/hooks", json!({"prestart": [{"path": "x"}]}));
    t.create_fails(&b, &["/process/cwd", "/process/args", "/root", "/linux/namespaces/5/type", "/hooks/prestart/0/path"]);
}

fn a_wrong_version(t: &Test) {
    for version in ["2.0.0", "0.9", "one", "", "1"] {
        if t.kind() == Kind::Brig {
            let mut b = sleeper(t);
            b.set("/ociVersion", json!(version));
            t.create_fails(&b, &["/ociVersion"]);
        }
    }
    for version in ["1.0.0", "1.0.2-dev", "1.1.0+dev", "1.2.0"] {
        if t.kind() == Kind::Crun && version > "1.1" {
            continue;
        }
        let mut b = t.bundle();
        b.set("/ociVersion", json!(version)).payload(&["exit=0"]);
        t.run(&b).ok();
    }
}

fn no_root(t: &Test) {
    let mut b = sleeper(t);
    b.unset("/root");
    t.create_fails(&b, &["/root"]);
}

fn a_missing_rootfs(t: &Test) {
    let mut b = sleeper(t);
    b.set("/root/path", json!("nowhere"));
    t.create_fails(&b, &["nowhere", "no such file or directory"]);
    b.set("/root/path", json!("/no/such/root"));
    t.create_fails(&b, &["/no/such/root"]);
    b.set("/root/path", json!(""));
    if t.kind() == Kind::Brig {
        t.create_fails(&b, &["/root/path"]);
    }
}

fn a_rootfs_that_is_a_file(t: &Test) {
    let mut b = sleeper(t);
    b.set("/root/path", json!("config.json"));
    t.create_fails(&b, &["config.json"]);
}

fn no_process(t: &Test) {
    let mut b = t.bundle();
    b.unset("/process");
    t.create_fails(&b, &["/process"]);
}

fn no_args(t: &Test) {
    let mut b = t.bundle();
    b.args(&[]);
    t.create_fails(&b, &["/process/args"]);
    b.args(&[""]);
    let out = t.run(&b);
    assert_ne!(out.code, 0);
}

fn a_relative_cwd(t: &Test) {
    t.differs(Kind::Crun, "1.8.1 takes it from the root");
    let mut b = sleeper(t);
    b.set("/process/cwd", json!("tmp"));
    t.create_fails(&b, &["/process/cwd", "absolute"]);
}

fn an_id_that_is_taken(t: &Test) {
    let b = sleeper(t);
    let c = t.create(&b);
    let again = |command: &str| t.call(&[command, "--bundle", b.path(), &c.id]).out().fails(&["already exists"]);
    again("create");
    again("run");
    assert_eq!(c.status(), "created", "the one that has the ID is not touched");
    c.start();
    c.line();
    again("create");
    c.kill("KILL");
    c.wait();
    again("create");
    c.delete();
    let pid_file = t.dir().join("pid").display().to_string();
    let c2 = t.call(&["run", "--detach", "--pid-file", &pid_file, "--bundle", b.path(), &c.id]).out();
    assert_eq!(c2.code, 0, "a deleted ID is free again");
    t.call(&["delete", "--force", &c.id]).ok();
    crate::support::os::reap(fs::read_to_string(t.dir().join("pid")).unwrap().parse().unwrap());
}

fn illegal_ids(t: &Test) {
    let b = sleeper(t);
    b.write();
    let long = "x".repeat(2000);
    for id in ["../x", "", ".", "..", "a/b", "/etc", "a b", "a\nb", "ü", "a*b", &long] {
        // The others allow some of these, and crun even makes what they lead to.
        let known = t.kind() == Kind::Brig || (t.kind() == Kind::Runc && id != ".");
        if known {
            let out = t.call(&["create", "--bundle", b.path(), "--", id]).out();
            assert_ne!(out.code, 0, "{id:?} was taken");
            assert!(out.stderr.len() < 6000, "an error of {} bytes", out.stderr.len());
        }
        for command in ["state", "delete", "kill", "start"] {
            if t.kind() == Kind::Brig {
                t.call(&[command, "--", id]).out().code(1);
            }
        }
    }
    assert!(!t.dir().join("x").exists());
    let names: Vec<_> = fs::read_dir(t.root()).map(|d| d.flatten().map(|e| e.file_name()).collect()).unwrap_or_default();
    assert_eq!(names, Vec::<std::ffi::OsString>::new());
}

fn a_missing_id(t: &Test) {
    for command in ["create", "start", "state", "kill", "delete", "run", "exec"] {
        let out = t.call(&[command]).out();
        assert_ne!(out.code, 0, "{command}");
    }
}

fn unknown_commands_and_flags(t: &Test) {
    if t.kind() != Kind::Runc {
        t.call(&["no-such-command"]).out().fails(&["no-such-command"]);
    }
    t.call(&["state", "--no-such-flag", "x"]).out().fails(&["--no-such-flag"]);
    let b = sleeper(t);
    t.call(&["create", "--no-such-flag", "--bundle", b.path(), &t.new_id()]).out().fails(&["--no-such-flag"]);
    assert_eq!(t.left(), Vec::<String>::new());
}

fn unknown_containers(t: &Test) {
    for command in ["start", "state", "kill", "delete"] {
        t.call(&[command, &t.new_id()]).out().code(1).fails(&["does not exist"]);
    }
}

/// What engines turn into 127: they look for these words.
fn a_program_that_is_missing(t: &Test) {
    let mut b = t.bundle();
    for (args, words) in [("no-such-program", "executable file not found in $PATH"), ("/no/such/program", "no such file or directory")] {
        b.args(&[args]);
        let out = t.run(&b).fails(&[args, words]);
        assert_ne!(out.code, 0);
        assert_eq!(t.left(), Vec::<String>::new());
    }
    if t.kind() != Kind::Crun {
        b.args(&["no-such-program"]);
        t.create_fails(&b, &["executable file not found in $PATH"]);
    }
}

/// What engines turn into 126.
fn a_program_that_is_not_executable(t: &Test) {
    let mut b = t.bundle();
    b.args(&["/etc/hostname"]);
    t.run(&b).fails(&["/etc/hostname", "permission denied"]);
    assert_eq!(t.left(), Vec::<String>::new());
}

fn a_program_that_is_a_directory(t: &Test) {
    let mut b = t.bundle();
    b.args(&["/etc"]);
    t.run(&b).fails(&["/etc"]);
    assert_eq!(t.left(), Vec::<String>::new());
}

/// execve's ENOEXEC comes after everything else has worked.
fn a_program_of_another_architecture(t: &Test) {
    let mut b = t.bundle();
    let mut elf = fs::read("/proc/self/exe").unwrap()[..4096].to_vec();
    elf[18] = 0x2b; // e_machine: SPARC V9
    elf[19] = 0;
    fs::write(b.rootfs("bin/foreign"), elf).unwrap();
    fs::set_permissions(b.rootfs("bin/foreign"), fs::Permissions::from_mode(0o755)).unwrap();
    b.args(&["/bin/foreign"]);
    t.run(&b).fails(&["/bin/foreign", "exec format error"]);
    assert_eq!(t.left(), Vec::<String>::new());
    if t.kind() == Kind::Brig {
        let c = t.create(&b);
        c.call(&["start"]).out().fails(&["/bin/foreign", "exec format error"]);
        c.wait();
        assert_eq!(c.status(), "stopped");
    }
}

fn a_script_whose_interpreter_is_missing(t: &Test) {
    let mut b = t.bundle();
    fs::write(b.rootfs("bin/script"), "#!/no/such/interpreter\n").unwrap();
    fs::set_permissions(b.rootfs("bin/script"), fs::Permissions::from_mode(0o755)).unwrap();
    b.args(&["/bin/script"]);
    t.run(&b).fails(&["/bin/script", "no such file or directory"]);
    assert_eq!(t.left(), Vec::<String>::new());
}

fn a_cwd_that_is_a_file(t: &Test) {
    let mut b = sleeper(t);
    b.set("/process/cwd", json!("/etc/hostname"));
    t.create_fails(&b, &["/etc/hostname"]);
}

fn a_mount_that_fails_half_way(t: &Test) {
    let mut b = sleeper(t);
    let volume = t.dir().join("volume");
    fs::create_dir(&volume).unwrap();
    b.bind(&volume, "/mnt/a", &[]).mount("/mnt/b", "tmpfs", "tmpfs", &[]).mount("/mnt/c", "tmpfs", "tmpfs", &["size=nonsense"]).mount("/mnt/d", "tmpfs", "tmpfs", &[]);
    let index = b.config["mounts"].as_array().unwrap().len() - 2;
    t.create_fails(&b, &[&format!("/mounts/{index}"), "/mnt/c", "invalid argument"]);
    assert_eq!(host::mounts_under(t.dir()), Vec::<String>::new());
    b.unset(&format!("/mounts/{index}"));
    t.create(&b);
}

fn a_state_directory_that_cannot_be_written(t: &Test) {
    let b = sleeper(t);
    b.write();
    fs::write(t.root(), "a file").unwrap();
    t.call(&["create", "--bundle", b.path(), "never"]).out().fails(&["state"]);
    assert_eq!(t.left(), Vec::<String>::new());
    fs::remove_file(t.root()).unwrap();
}

fn mount_tmpfs(dir: &Path, options: &str) {
    fs::create_dir_all(dir).unwrap();
    nix::mount::mount(Some("state"), dir, Some("tmpfs"), nix::mount::MsFlags::empty(), Some(options)).unwrap();
}

/// With room for a few pages and inodes more each time, something else is the first not to fit.
fn a_full_disk(t: &Test) {
    let b = sleeper(t);
    b.write();
    let mut worked = 0;
    let sizes = (1..=8).map(|n| format!("size=1m,nr_inodes={n}")).chain((1..=8).map(|n| format!("size={}k", 4 * n)));
    let pid_file = t.dir().join("pid").display().to_string();
    for options in sizes {
        mount_tmpfs(&t.root(), &options);
        let id = t.new_id();
        let out = t.call(&["create", "--pid-file", &pid_file, "--bundle", b.path(), &id]).out();
        if out.code == 0 {
            worked += 1;
            t.call(&["delete", "--force", &id]).ok();
            crate::support::os::reap(fs::read_to_string(t.dir().join("pid")).unwrap().parse().unwrap());
        } else if t.kind() == Kind::Brig {
            assert!(out.stderr.to_lowercase().contains("no space left on device"), "{options}: {}", out.stderr);
        } else {
            t.call(&["delete", "--force", &id]).out();
        }
        assert_eq!(t.left(), Vec::<String>::new(), "{options}: {}", out.stderr);
        nix::mount::umount2(&t.root(), nix::mount::MntFlags::MNT_DETACH).unwrap();
    }
    assert!(worked > 0, "even 8 pages are too few");
}

fn a_pid_file_that_cannot_be_written(t: &Test) {
    let b = sleeper(t);
    b.write();
    t.call(&["create", "--pid-file", "/no/such/dir/pid", "--bundle", b.path(), &t.new_id()]).out().fails(&["/no/such/dir/pid"]);
    if t.kind() != Kind::Crun {
        assert_eq!(t.left(), Vec::<String>::new());
    }
}

/// A state file that was cut off must not keep a container from being deleted.
fn broken_state(t: &Test) {
    t.only_brig("it is about brig's own files");
    for text in ["", "{", "{}", "null"] {
        let c = t.create(&sleeper(t));
        let dir = t.root().join(&c.id);
        for entry in fs::read_dir(&dir).unwrap().flatten() {
            if entry.file_name() == "state.json" {
                fs::write(entry.path(), text).unwrap();
            }
        }
        c.call(&["state"]).out().fails(&[]);
        c.call(&["delete", "--force"]).ok();
        assert_eq!(t.left(), Vec::<String>::new(), "with state {text:?}");
    }
}

fn errors_are_one_line_without_debris(t: &Test) {
    t.only_brig("their words are their own");
    let mut b = sleeper(t);
    b.mount("/mnt", "nosuchfs", "none", &[]);
    let out = t.create_fails(&b, &["brig: ", "hint: "]);
    for debris in ["Error {", "Os {", "panicked", "backtrace", "\u{1b}["] {
        assert!(!out.stderr.contains(debris), "{}", out.stderr);
    }
    assert!(out.stderr.starts_with("brig: "), "{}", out.stderr);
}
