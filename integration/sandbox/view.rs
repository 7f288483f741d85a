//! What the program sees and may do: files, IDs, environment, system calls, init.

use super::support::{Stream, call, file, needs, new_id, nothing_left, plain, run, run_with, sh, short, tool, work};
use crate::rootless;
use crate::support::{Test, Value, cases, json, os, suite};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, chown, symlink};

cases![
    a_seccomp_profiles_each_a_superset,
    a_profiles_command,
    a_root_directory_with_overlay,
    a_root_directory_without,
    a_volumes,
    a_uid_gid,
    a_cwd,
    a_env_inherited_overridden_clean,
    a_init_reaps_zombies,
    a_init_passes_signals_on,
    a_without_root,
    only_what_is_granted_is_written,
    secrets_are_hidden,
    start_up_files_are_protected,
    nested,
];

fn a_seccomp_profiles_each_a_superset(t: &Test) {
    needs("perl");
    let script = "use Socket; $| = 1;
        print open(my $f, '>', '/tmp/f') ? 'file ' : '';
        my $p = fork; exit if defined $p && !$p; print defined $p ? 'process ' : '';
        print socket(my $s, AF_INET, SOCK_STREAM, 0) ? 'socket ' : '';
        print socket(my $u, AF_UNIX, SOCK_STREAM, 0) ? 'unix ' : '';";
    let all = ["file", "process", "socket", "unix"];
    for (profile, granted) in [("minimal", 0), ("io-heavy", 1), ("compute", 2), ("network", 3), ("unrestricted", 4)] {
        let ran = run(t, &["--profile", profile], &["perl", "-e", script]).exited(0);
        let found: Vec<&str> = ran.stdout().split_whitespace().collect();
        assert_eq!(found, all[..granted], "{profile}: {}", ran.report);
        assert_eq!(ran.report["profile"], profile);
        // What is denied is told, where the runtime can listen, and nothing else.
        let denied = ran.report["violations"].as_array().unwrap().len();
        assert_eq!(denied > 0, granted < 4 && !t.is_taken("pidfd"), "{profile}: {}", ran.report);
    }
}

fn a_profiles_command(t: &Test) {
    let list = tool(t, &["profiles", "--json"]).ok().json();
    let list = list.as_array().unwrap();
    let names: Vec<&str> = list.iter().map(|p| p["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["minimal", "io-heavy", "compute", "network", "unrestricted"]);
    let calls = |p: &Value| -> BTreeSet<String> {
        p["syscalls"].as_array().unwrap().iter().map(|c| c.as_str().unwrap().to_owned()).collect()
    };
    for pair in list.windows(2) {
        let (less, more) = (calls(&pair[0]), calls(&pair[1]));
        assert!(less.is_subset(&more), "{}: {:?}", pair[1]["name"], less.difference(&more));
    }
    let minimal = calls(&list[0]);
    assert!(["read", "write", "exit_group"].iter().all(|c| minimal.contains(*c)), "{minimal:?}");
    let text = tool(t, &["profiles"]).ok().stdout;
    assert!(names.iter().all(|name| text.lines().any(|line| line.starts_with(name))), "{text}");
}

/// A root directory with a shell in it.
fn root(t: &Test) -> String {
    let busybox = needs("busybox");
    let linked = |name: &[u8]| fs::read(&busybox).unwrap().windows(name.len()).any(|part| part == name);
    if linked(b"/ld-linux") || linked(b"/ld-musl") {
        suite::skip("busybox takes libraries, which the root directory lacks");
    }
    let dir = t.dir().join("guest");
    for name in ["bin", "dev", "etc", "proc", "tmp"] {
        fs::create_dir_all(dir.join(name)).unwrap();
    }
    fs::copy(&busybox, dir.join("bin/busybox")).unwrap();
    for name in ["sh", "cat", "rm", "ls", "echo"] {
        symlink("busybox", dir.join("bin").join(name)).unwrap();
    }
    fs::write(dir.join("etc/name"), "guest\n").unwrap();
    dir.display().to_string()
}

fn a_root_directory_with_overlay(t: &Test) {
    let root = root(t);
    let script = "cat /etc/name; echo new > /etc/name; echo more > /added; rm /bin/echo; cat /etc/name; ls /; pwd";
    let ran = run(t, &["--root-overlay", &root], &["/bin/sh", "-c", script]).exited(0);
    assert_eq!(ran.stdout(), "guest\nnew\nadded\nbin\ndev\netc\nproc\ntmp\n/\n", "{}", ran.report);
    let list = ran.report["changes"].as_array().unwrap();
    let mut changes: Vec<Value> = list.iter().map(|c| json!([c["path"], c["kind"]])).collect();
    changes.sort_by_key(ToString::to_string);
    assert_eq!(json!(changes), json!([["/added", "added"], ["/bin/echo", "deleted"], ["/etc/name", "modified"]]));
    let host = |path: &str| fs::read_to_string(format!("{root}/{path}")).ok();
    assert_eq!((host("etc/name"), host("added")), (Some("guest\n".into()), None));
    assert!(fs::symlink_metadata(format!("{root}/bin/echo")).is_ok());
}

fn a_root_directory_without(t: &Test) {
    let root = root(t);
    let ran = run(t, &["--root", &root], &["/bin/sh", "-c", "cat /etc/name; echo new > /tmp/a; echo new > /etc/name"]);
    assert_eq!(ran.stdout(), "guest\n");
    assert!(ran.stderr().contains("/etc/name"), "{}", ran.report);
    assert_ne!(ran.out.code, 0);
    assert_eq!(fs::read_to_string(format!("{root}/etc/name")).unwrap(), "guest\n");
}

fn a_volumes(t: &Test) {
    for name in ["ro", "rw"] {
        fs::create_dir(t.dir().join(name)).unwrap();
        fs::write(t.dir().join(name).join("file"), format!("{name}\n")).unwrap();
    }
    let (ro, rw) = (t.dir().join("ro").display().to_string(), t.dir().join("rw").display().to_string());
    let script = "cat /mnt/file \"$1/file\"; echo new > \"$1/new\"; echo new > /mnt/new";
    let ran =
        run(t, &["-v", &format!("{ro}:/mnt:ro"), "--bind", &format!("{rw}:{rw}:rw")], &["sh", "-c", script, "sh", &rw]);
    assert_eq!(ran.stdout(), "ro\nrw\n", "{}", ran.report);
    assert!(ran.stderr().contains("/mnt/new"), "{}", ran.report);
    assert_eq!(fs::read_to_string(format!("{rw}/new")).unwrap(), "new\n");
    assert!(fs::metadata(format!("{ro}/new")).is_err());
    // A relative source is taken from here, and seen in the same place.
    file(t, "here", "here\n");
    assert_eq!(sh(t, &["-v", "here:/etc/hostname"], "cat /etc/hostname").exited(0).stdout(), "here\n");
}

fn a_uid_gid(t: &Test) {
    let script = "id -u; id -g; id -G; grep -h '^Cap\\(Eff\\|Prm\\|Bnd\\)' /proc/self/status";
    let ran = sh(t, &["--uid", "1234", "--gid", "1235"], script).exited(0);
    let lines: Vec<&str> = ran.stdout().lines().collect();
    assert_eq!(lines[..2], ["1234", "1235"]);
    let none = |lines: &[&str]| lines[3..].iter().all(|line| line.ends_with("0000000000000000"));
    assert!(lines.len() == 6 && none(&lines), "{lines:?}");
    let own = sh(t, &[], script).exited(0);
    let lines: Vec<&str> = own.stdout().lines().collect();
    assert_eq!(lines[0], nix::unistd::geteuid().to_string());
    assert!(none(&lines), "root has no capabilities in there either: {lines:?}");
    assert_eq!(sh(t, &["--user", "7:8"], "id -u; id -g").exited(0).stdout(), "7\n8\n");
}

fn a_cwd(t: &Test) {
    let here = work(t);
    fs::create_dir(here.join("sub")).unwrap();
    let pwd = |flags: &[&str]| sh(t, flags, "pwd; echo new > file && cat file").exited(0).stdout().to_owned();
    assert_eq!(pwd(&[]), format!("{}\nnew\n", here.display()));
    assert_eq!(pwd(&["-C", "sub"]), format!("{}/sub\nnew\n", here.display()));
    assert!(!here.join("file").exists() && !here.join("sub/file").exists());
}

fn a_env_inherited_overridden_clean(t: &Test) {
    let env = |flags: &[&str]| -> Vec<String> {
        let ran = run_with(t, flags, &["env"], |call| call.env("OWN", "own").env("SECRET", "s")).exited(0);
        let shell = ["PWD=", "_=", "SHLVL=", "HOME=", "BRIG_TEST=", "XDG_", "PATH="];
        let mut lines: Vec<String> = ran.stdout().lines().map(str::to_owned).collect();
        assert!(lines.iter().any(|line| line.starts_with("PATH=")), "{lines:?}");
        lines.retain(|line| !shell.iter().any(|name| line.starts_with(name)));
        lines.sort();
        lines
    };
    assert_eq!(env(&[]), ["OWN=own", "SECRET=s"]);
    assert_eq!(env(&["-e", "OWN=other", "--env", "MORE=a=b"]), ["MORE=a=b", "OWN=other", "SECRET=s"]);
    assert_eq!(env(&["--unset-env", "SECRET"]), ["OWN=own"]);
    // JSON has no place for what is no UTF-8: it is left out.
    let odd = std::ffi::OsStr::from_bytes(b"\xff");
    let ran = run_with(t, &[], &["env"], |call| call.env_os("ODD", odd)).exited(0);
    assert!(!ran.stdout().contains("ODD"), "{}", ran.stdout());
    assert_eq!(env(&["--clear-env"]), [""; 0]);
    assert_eq!(env(&["--clear-env", "-e", "SECRET"]), ["SECRET=s"]);
}

fn a_init_reaps_zombies(t: &Test) {
    // Thirty orphans; their last trace is gone as soon as init has been told.
    // Nothing is forked while that is waited for, so that init has no more to do.
    let script = "n=0; while [ $n -lt 30 ]; do (: &); n=$((n + 1)); done
        while set -- /proc/[0-9]*; [ $# -gt 2 ]; do :; done
        echo $$ $#; while read -r line; do case $line in PPid:*) echo $line; esac; done < /proc/$$/status";
    let ran = sh(t, &["--timeout", &short(20_000)], script).exited(0);
    let words: Vec<&str> = ran.stdout().split_whitespace().collect();
    // Init and the shell.
    assert_eq!(words, ["2", "2", "PPid:", "1"], "{}", ran.report);
}

fn a_init_passes_signals_on(t: &Test) {
    let script = "trap 'echo got; exit 7' USR1; sleep 1000 & echo ready; wait";
    let mut stream = Stream::start(t, &[], &["sh", "-c", script]);
    assert_eq!(stream.event("stdout")["data"], "ready\n");
    os::kill(stream.running.pid(), libc::SIGUSR1);
    assert_eq!(stream.event("stdout")["data"], "got\n");
    assert_eq!(stream.event("exited")["status"], 7);
    stream.running.wait().code(7);
    nothing_left(t, &stream.id);

    // By the sandbox's ID, and what is not caught.
    let mut stream = Stream::start(t, &[], &["sh", "-c", "sleep 1000 & echo ready; wait"]);
    stream.event("stdout");
    let list = tool(t, &["list"]).ok().stdout;
    assert!(list.lines().any(|id| id == stream.id), "{list}");
    tool(t, &["kill", &stream.id, "TERM"]).ok();
    assert_eq!(stream.event("exited")["outcome"], json!({"cause": "signaled", "signal": libc::SIGTERM}));
    stream.running.wait().code(143);
    nothing_left(t, &stream.id);
    tool(t, &["kill", &stream.id]).out().code(125).fails(&[&stream.id, "list"]);
}

fn a_without_root(t: &Test) {
    let id = new_id(t);
    let command = ["sh", "-c", "id -u; cat /proc/self/uid_map; ls -d /proc/[0-9]* | wc -l"];
    let call = call(t, &id, &["--json"], &command);
    let (call, user) = if os::is_root() {
        for dir in [t.dir().to_path_buf(), work(t)] {
            chown(dir, Some(rootless::WHO), Some(rootless::WHO)).unwrap();
        }
        (rootless::demoted(call, t), rootless::WHO)
    } else {
        (call, nix::unistd::geteuid().as_raw())
    };
    let report = call.ok().json();
    nothing_left(t, &id);
    let told = report["mode"].as_str().unwrap();
    assert!(["user_namespace", "confined"].contains(&told), "{report}");
    let words: Vec<&str> = report["stdout"]["text"].as_str().unwrap().split_whitespace().collect();
    assert_eq!(words[0], user.to_string());
    let own = words[3] == "1";
    assert_eq!(told == "user_namespace", own, "{report}");
    // What is not as it should be is said.
    let weak = report["limits"].as_array().unwrap().iter().any(|l| l["by"].as_str().unwrap().starts_with("RLIMIT_D"));
    let notes = report["notes"].to_string();
    assert_eq!(notes.contains("cgroup"), weak, "{report}");
    assert_eq!(notes.contains("no namespaces"), told == "confined", "{report}");
}

fn only_what_is_granted_is_written(t: &Test) {
    let out = t.dir().join("out");
    fs::create_dir(&out).unwrap();
    file(t, "file", "old");
    let script = "for f in file \"$1/new\" /etc/brig-new; do echo new 2>/dev/null > $f && echo $f; done; :";
    let out = out.display().to_string();
    let wrote = |flags: &[&str]| {
        let ran = run(t, flags, &["sh", "-c", script, "sh", &out]).exited(0);
        ran.stdout().split_whitespace().map(|f| f.rsplit_once('/').map_or(f, |(d, _)| d).to_owned()).collect::<Vec<_>>()
    };
    let content = || fs::read_to_string(work(t).join("file")).unwrap();
    assert_eq!(wrote(&["--ro"]), [""; 0]);
    assert_eq!((wrote(&[]), content()), (vec!["file".into()], "old".into()));
    assert_eq!(wrote(&["--ro", "--allow-write", &out]), [out.as_str()]);
    assert!(fs::metadata(format!("{out}/new")).is_ok());
    assert_eq!((wrote(&["-w"]), content()), (vec!["file".into()], "new\n".into()));
    assert_eq!(wrote(&["-w", "--deny-write", "file"]), [""; 0]);
    assert!(fs::metadata("/etc/brig-new").is_err());
}

fn secrets_are_hidden(t: &Test) {
    file(t, "key.pem", "secret");
    fs::create_dir(work(t).join("deep")).unwrap();
    file(t, "deep/key.pem", "secret");
    let script = "cat key.pem deep/key.pem other 2>/dev/null; cat deep/* 2>/dev/null; :";
    file(t, "other", "other");
    assert_eq!(sh(t, &[], script).exited(0).stdout(), "secretsecretothersecret");
    assert_eq!(sh(t, &["--deny-read", "**/*.pem"], script).exited(0).stdout(), "other");
    assert_eq!(sh(t, &["--deny-read", "deep"], script).exited(0).stdout(), "secretother");
    let home = t.dir().join("home");
    fs::create_dir_all(home.join(".ssh")).unwrap();
    fs::write(home.join(".ssh/id_ed25519"), "secret").unwrap();
    let read = |flags: &[&str]| {
        let flags = [&["-v", home.to_str().unwrap()], flags].concat();
        let ran = run_with(t, &flags, &["sh", "-c", "cat $HOME/.ssh/* 2>/dev/null; :"], |call| {
            call.env("HOME", home.to_str().unwrap())
        });
        ran.exited(0).stdout().to_owned()
    };
    assert_eq!(read(&[]), "");
    assert_eq!(read(&["--allow-read", "~/.ssh"]), "secret");
}

fn start_up_files_are_protected(t: &Test) {
    file(t, ".zshrc", "old");
    fs::create_dir_all(work(t).join(".git/hooks")).unwrap();
    let script =
        "for f in .zshrc .bashrc .git/hooks/pre-commit plain; do echo new 2>/dev/null > $f && echo $f; done; :";
    assert_eq!(sh(t, &["-w"], script).exited(0).stdout(), "plain\n");
    assert_eq!(fs::read_to_string(work(t).join(".zshrc")).unwrap(), "old");
    // Nothing that kept them from being made is left (see `nothing_left`), not even the directory's.
    let all = sh(t, &["-w", "--no-protect"], script).exited(0);
    assert_eq!(all.stdout().lines().count(), 4, "{}", all.report);
    for name in [".zshrc", ".bashrc", ".git/hooks/pre-commit"] {
        fs::remove_file(work(t).join(name)).unwrap();
    }
}

fn nested(t: &Test) {
    let brig = crate::support::runtime::under_test().path.display().to_string();
    let copy = file(t, "brig", "");
    fs::copy(&brig, &copy).unwrap();
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).unwrap();
    let inner = ["./brig", "--root", "/tmp/state", "sandbox", "run", "-q", "--", "sh", "-c", "echo in; exit 3"];
    // A filter of the outer one stands in the way of namespaces; the inner one does with what is left.
    for profile in ["compute", "unrestricted"] {
        let ran = run(t, &["--profile", profile], &inner);
        assert_eq!(ran.stdout(), "in\n", "{profile}: {}", ran.report);
        ran.exited(3);
    }
    // Whoever kills its init, the program does not live on: the outer init and shell are alone again.
    let run = format!("./brig --root /tmp/state sandbox run -q --timeout {} -- sh -c", short(3000));
    let killed = format!(
        "{run} 'kill -9 $PPID; sleep 1000 & exec sleep 0.1'
        {run} 'echo $PPID; sleep 1000 & sleep 1000' | {{ read -r init; kill -9 $init; cat; }}
        set -- /proc/[0-9]*; echo $#"
    );
    for profile in ["compute", "unrestricted"] {
        let ran = sh(t, &["--profile", profile, "--timeout", &short(10_000)], &killed);
        assert_eq!(ran.stdout(), "2\n", "{profile}: {}", ran.report);
    }
    let out = plain(t, &["-q"], &[&inner[..5], &["--strict"], &inner[5..]].concat());
    assert_eq!(out.code, 125, "{}", out.stderr);
}
