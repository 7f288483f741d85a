//! Scripts: their interpreter is found, and what static analysis says is told or refused.

use super::support::{file, needs, plain, plain_with, run, sh, tool, work};
use crate::support::{Test, cases, json};
use std::fs;
use std::io::Write;
use std::io::pipe;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;

cases![
    b_python,
    b_javascript,
    b_shell,
    b_shebang,
    b_temporary_directory,
    b_static_analysis_report,
    b_static_analysis_refusal,
    a_string_with_arguments,
    the_standard_input_is_passed_through,
    exit_statuses,
];

fn b_python(t: &Test) {
    needs("python3");
    file(
        t,
        "p.py",
        "import sys, threading\nt = threading.Thread(target=lambda: print(sys.argv[1:]))\nt.start()\nt.join()\nsys.exit(7)\n",
    );
    let ran = run(t, &[], &["p.py", "a", "-b"]).exited(7);
    assert_eq!(ran.stdout(), "['a', '-b']\n");
    assert_eq!(ran.report["command"], json!(["python3", "./p.py", "a", "-b"]));
}

fn b_javascript(t: &Test) {
    needs("node");
    file(t, "j.js", "console.log(process.argv.slice(2)); process.exit(8)");
    // Its heap is reserved in one piece, which resource limits would count.
    let ran = run(t, &["--memory", "none"], &["j.js", "a", "-b"]).exited(8);
    assert_eq!(ran.stdout(), "[ 'a', '-b' ]\n");
}

fn b_shell(t: &Test) {
    file(t, "s.sh", "echo \"$0 $*\"; exit 9");
    assert_eq!(run(t, &[], &["s.sh", "a", "-b"]).exited(9).stdout(), "./s.sh a -b\n");
}

fn b_shebang(t: &Test) {
    // The line decides where the file may be executed, and where nothing is known of its extension.
    let path = file(t, "tool.py", "#!/bin/sh -e\necho shell; false; echo not reached\n");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(run(t, &[], &["./tool.py"]).exited(1).stdout(), "shell\n");
    let path = file(t, "tool", "#!/bin/cat\nitself\n");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(run(t, &[], &["./tool"]).exited(0).stdout(), "#!/bin/cat\nitself\n");
}

fn b_temporary_directory(t: &Test) {
    file(t, "secret", "secret");
    let ran = sh(t, &["--workdir-mode", "temporary"], "ls -A; pwd; echo new > file && cat file").exited(0);
    assert_eq!(ran.stdout(), format!("{}\nnew\n", work(t).display()));
    let names: Vec<_> = fs::read_dir(work(t)).unwrap().flatten().map(|e| e.file_name()).collect();
    assert_eq!(names, ["secret"]);
}

const DANGEROUS: &str = "import os\nx = 1\nos.system('echo ' + 'ran')\n";

fn b_static_analysis_report(t: &Test) {
    t.needs_threads();
    needs("python3");
    file(t, "d.py", DANGEROUS);
    let ran = run(t, &["--lint", "warn"], &["d.py"]).exited(0);
    assert_eq!(ran.stdout(), "ran\n");
    let finding = &ran.report["findings"][1];
    assert_eq!((&finding["line"], &finding["column"], &finding["file"]), (&json!(3), &json!(1), &json!("d.py")));
    assert!(["high", "medium"].contains(&finding["severity"].as_str().unwrap()), "{finding}");
    assert!(ran.out.stderr.contains("d.py:3:1"), "{}", ran.out.stderr);
    let out = tool(t, &["lint", "--json", "d.py"]).out().code(1);
    assert_eq!(out.json(), ran.report["findings"]);
    // Strings and comments are none.
    file(t, "harmless.py", "# os.system('x')\nprint('os.system()')\n");
    assert_eq!(tool(t, &["lint", "--json", "harmless.py"]).ok().json(), json!([]));
    let rules = tool(t, &["lint", "--rules"]).ok().stdout;
    assert!(rules.contains(finding["rule"].as_str().unwrap()), "{rules}");
}

fn b_static_analysis_refusal(t: &Test) {
    t.needs_threads();
    file(t, "d.py", &format!("{DANGEROUS}open('ran', 'w')\n"));
    let out = plain(t, &["-w", "--lint", "deny"], &["d.py"]).code(125).fails(&["--lint deny", "d.py:3:1"]);
    assert_eq!(out.stdout, "");
    assert!(!work(t).join("ran").exists(), "it ran");
}

fn a_string_with_arguments(t: &Test) {
    let ran = run(t, &["-c", "echo $0, $2 $1; exit 3"], &["name", "-a", "b c"]).exited(3);
    assert_eq!(ran.stdout(), "name, b c -a\n");
}

fn the_standard_input_is_passed_through(t: &Test) {
    let (input, mut ours) = pipe().unwrap();
    ours.write_all(b"some\0bytes\n").unwrap();
    drop(ours);
    let out = plain_with(t, &[], &["cat"], |call| call.stdin(OwnedFd::from(input))).ok();
    assert_eq!((out.stdout.as_str(), out.stderr.as_str()), ("some\0bytes\n", ""));
}

fn exit_statuses(t: &Test) {
    let none: Vec<&str> = Vec::new();
    for (flags, command, status) in [
        (none.clone(), vec!["true"], 0),
        (none.clone(), vec!["sh", "-c", "exit 3"], 3),
        (none.clone(), vec!["sh", "-c", "exit 255"], 255),
        (vec!["--timeout", "50ms"], vec!["sleep", "1000"], 124),
        (vec!["--memory", "x"], vec!["true"], 125),
        (vec!["-C", "/nowhere"], vec!["true"], 125),
        (none.clone(), vec!["/etc/passwd"], 126),
        (none.clone(), vec!["/etc"], 126),
        (none.clone(), vec!["brig-no-such-program"], 127),
        (none.clone(), vec!["/no/such/program"], 127),
        (none.clone(), vec!["sh", "-c", "kill -TERM $$"], 143),
    ] {
        let out = plain(t, &flags, &command);
        assert_eq!(out.code, status, "{flags:?} {command:?}: {}", out.stderr);
        let told = ["brig: sandbox: ", "error: "].iter().any(|start| out.stderr.starts_with(start));
        assert_eq!(told, (125..128).contains(&status), "{}", out.stderr);
    }
}
