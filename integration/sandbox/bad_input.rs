//! What is wrong is told, with what to do instead, before anything runs.

use super::support::{Stream, file, nothing_left, plain, plain_with, sh, tool, work};
use crate::support::{Test, cases};
use std::fs;
use std::os::unix::fs::PermissionsExt;

cases![
    flags,
    each_problem_once,
    policies,
    scripts,
    a_glob_that_matches_nothing,
    limits_below_what_can_start,
    a_taken_id,
    other_commands,
];

/// It fails with brig's own status and these words, and leaves no trace of having run.
#[track_caller]
fn refused(t: &Test, flags: &[&str], words: &[&str]) {
    let out = plain(t, &[flags, &["-w", "--", "touch", "ran"]].concat(), &[]).code(125).fails(words);
    assert!(!work(t).join("ran").exists(), "{flags:?}: it ran");
    assert!(out.stderr.lines().count() < 12 && !out.stderr.contains("panicked"), "{}", out.stderr);
}

fn flags(t: &Test) {
    for (flags, words) in [
        (&["--memory", "12Q"][..], &["--memory", "256M"][..]),
        (&["--memory", "1K"], &["/limits/memory", "1M"]),
        (&["--pids", "0"], &["/limits/pids", "1 or more", "--pids"]),
        (&["--open-files", "4"], &["/limits/open_files", "Landlock", "5 or more", "--open-files"]),
        (&["--open-files", "3", "--no-landlock"], &["/limits/open_files", "4 or more", "--open-files"]),
        (&["--disk", "4K"], &["/limits/disk", "64K or more", "--disk"]),
        (&["--timeout", "0"], &["/limits/timeout", "is 0"]),
        (&["--profile", "netwrok"], &["netwrok", "network"]),
        (&["--alow-domain", "a.com"], &["--alow-domain", "--allow-domain"]),
        (&["--allow-domain", "not a domain"], &["/network/allow/0", "not a domain"]),
        (&["--allow-domain", "http://a.com/"], &["/network/allow/0", "a.com"]),
        (&["--net", "none", "--allow-domain", "a.com", "--deny-domain", "a.com:0"], &["/network/"]),
        (&["--deny-read", "[a"], &["/files/deny_read/0", "[a"]),
        (&["--allow-write", "no-such-file"], &["no-such-file"]),
        (&["--allow-write", "x", "--deny-write", "x"], &["/files/allow_write/0", "contradicts"]),
        (&["-v", "no-such-file:/mnt"], &["no-such-file"]),
        (&["-C", "/nowhere"], &["/nowhere"]),
        (&["--root", "/nowhere"], &["/nowhere"]),
        (&["--allow-syscall", "no_such_call"], &["no_such_call"]),
        (&["--status-fd", "77"], &["--status-fd", "77", "not open"]),
        (&["--control-fd", "78"], &["--control-fd", "78", "not open"]),
        (&["--id", "a/b"], &["/id", "letters, digits"]),
        (&["--uid", "4294967295"], &["/process/uid"]),
        (&["--policy", "/nowhere/policy.json"], &["--policy", "/nowhere/policy.json"]),
        (&["--tty", "--json"], &["--tty", "--json"]),
    ] {
        if flags[0] == "--id" {
            // It is given twice otherwise.
            tool(t, &[&["run"], flags, &["true"]].concat()).out().code(125).fails(words);
        } else {
            refused(t, flags, words);
        }
    }
    plain(t, &[], &[]).code(125).fails(&["no command", "-c"]);
    plain(t, &[""], &[]).code(125).fails(&["/process/args/0", "empty"]);
    // Everything that is wrong at once.
    refused(
        t,
        &["--pids", "0", "--memory", "1K", "--timeout", "0"],
        &["/limits/pids", "/limits/memory", "/limits/timeout"],
    );
}

/// Nothing is told twice, by whichever part of brig.
fn each_problem_once(t: &Test) {
    for (flags, pointer) in [
        (&["--http-proxy-port", "0"][..], "/network/http_proxy_port"),
        (&["--net", "host", "--socks-proxy-port", "3"], "/network/socks_proxy_port"),
    ] {
        let out = plain(t, &[flags, &["true"]].concat(), &[]).code(125).fails(&[pointer]);
        assert_eq!(out.stderr.matches("/network/").count(), 1, "{flags:?}: {}", out.stderr);
    }
}

fn policies(t: &Test) {
    for (name, text, words) in [
        ("a.json", r#"{"limits": {"memroy": "1G"}}"#, &["a.json", "/limits/memroy", "memory"][..]),
        ("b.toml", "[files]\nallow-write = ['x']\n", &["b.toml", "allow-write", "allow_write"]),
        ("c.json", r#"{"limits": {"cpu": 50, "cpu_quota": [1000, 5000]}}"#, &["/limits/cpu", "keep one"]),
        ("d.json", r#"{"limits": {"pids": "many"}}"#, &["d.json", "/limits/pids"]),
        ("e.json", r#"{"limits": "#, &["e.json"]),
        ("f.json", r#"{"network": {"mode": "host", "allow": ["a.com"]}}"#, &["/network/allow", "no effect"]),
        ("g.json", r#"{"syscalls": {"allow": ["bpf"], "deny": ["bpf"]}}"#, &["/syscalls/allow/0", "keep one"]),
        ("h.json", r#"{"limits": {"pids": 1}, "limits": {"pids": 2}}"#, &["h.json", "limits"]),
    ] {
        file(t, name, text);
        refused(t, &["--policy", name], words);
    }
    file(t, "marked.json", r#"{"$schema": "./policy.schema.json", "limits": {"open_files": 23}}"#);
    assert_eq!(sh(t, &["--policy", "marked.json"], "ulimit -n").exited(0).stdout(), "23\n");
    file(t, "s.json", r#"{"network": {"allowedDomain": ["a.com"]}}"#);
    refused(t, &["--settings", "s.json"], &["--settings", "allowedDomain", "allowedDomains"]);
    file(t, "p.json", r#"{"defaultAction": "SCMP_ACT_NONE"}"#);
    refused(t, &["--seccomp", "p.json"], &["--seccomp"]);
    // One that is right is taken, and the schema knows its keys.
    file(t, "right.toml", "[limits]\nopen_files = 21\n");
    assert_eq!(sh(t, &["--policy", "right.toml"], "ulimit -n").exited(0).stdout(), "21\n");
    let schema = tool(t, &["policy-schema"]).ok().json();
    assert!(schema["properties"]["limits"].is_object(), "{schema}");
}

fn scripts(t: &Test) {
    file(t, "a.py", "print(1)\n");
    let out = plain_with(t, &[], &["a.py"], |call| call.env("PATH", "/nowhere"));
    out.code(127).fails(&["a.py", "python3", "apt-get install"]);
    let path = file(t, "b", "#!/no/such/interpreter\n");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    plain(t, &[], &["./b"]).code(127).fails(&["./b"]);
    plain(t, &[], &["missing.py"]).code(127).fails(&["missing.py"]);
    plain(t, &["--lint", "deny"], &["missing.py"]).code(127);
    tool(t, &["lint"]).out().code(125).fails(&["no file"]);
    tool(t, &["lint", "missing.py"]).out().code(125).fails(&["missing.py"]);
}

fn a_glob_that_matches_nothing(t: &Test) {
    let ran = sh(t, &["--deny-read", "*.nothing"], ":").exited(0);
    assert!(ran.report["notes"].to_string().contains("*.nothing"), "{}", ran.report);
}

fn limits_below_what_can_start(t: &Test) {
    t.needs_call("pidfd");
    let out = plain(t, &["--memory", "1M"], &["sh", "-c", "exit 3"]);
    // It starts with so little where the kernel lets it.
    if out.code == 125 {
        out.fails(&["memory"]);
    } else {
        assert!([3, 137, 139, 127].contains(&out.code), "{}: {}", out.code, out.stderr);
    }
    for flags in
        [&["--open-files", "5"][..], &["--open-files", "4", "--no-landlock"], &["--file-size", "0"], &["--disk", "64K"]]
    {
        sh(t, flags, "exit 3").exited(3);
    }
    let ran = sh(t, &["--pids", "1"], "echo one; (echo two); :");
    assert!(ran.stdout().starts_with("one\n") && !ran.stdout().contains("two"), "{}", ran.report);
}

fn a_taken_id(t: &Test) {
    let mut stream = Stream::start(t, &[], &["sh", "-c", "echo begun; read line; exit 3"]);
    stream.event("stdout");
    let id = stream.id.clone();
    let out = tool(t, &["run", "--id", &id, "-w", "--", "touch", "ran"]).out().code(125).fails(&[&id, "runs already"]);
    assert!(!work(t).join("ran").exists(), "{}", out.stderr);
    // The first one is none the worse.
    let list = tool(t, &["list"]).ok().stdout;
    assert!(list.lines().any(|line| line == id), "{list}");
    let Stream { running, stdin, mut lines, .. } = stream;
    drop(stdin);
    while lines.next().is_some() {}
    running.wait().code(3);
    nothing_left(t, &id);
}

fn other_commands(t: &Test) {
    tool(t, &["kill", "no-such-sandbox"]).out().code(125).fails(&["no-such-sandbox", "list"]);
    tool(t, &["update", "no-such-sandbox"]).out().code(125).fails(&["nothing to change"]);
    tool(t, &["update", "no-such-sandbox", "--memory", "1G"]).out().code(125).fails(&["no-such-sandbox"]);
    tool(t, &["rnu", "true"]).out().code(125).fails(&["rnu"]);
}
