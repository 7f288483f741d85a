//! What it did: the report in its forms, and what is told while it runs.

use super::support::{Stream, file, needs, nothing_left, plain, plain_with, run, sh, short, tool, work};
use crate::support::{Test, Value, cases, json, os};
use std::fs;
use std::io::Write;
use std::os::fd::OwnedFd;

cases![
    a_result,
    a_signal_is_told,
    a_streaming,
    a_check_command,
    b_output_captured,
    b_verbose,
    b_html_report,
    b_peak_and_average_memory_sampled,
    changes_are_listed_and_committed,
    violations_are_told_and_ignored_by_pattern,
    a_report_to_a_file_leaves_the_streams_alone,
    the_status_comes_over_a_descriptor,
];

fn a_result(t: &Test) {
    let script =
        "n=0; while [ $n -lt 60000 ]; do n=$((n + 1)); done; head -c 16M /dev/zero | tail -n 1 > /dev/null; exit 3";
    let ran = sh(t, &[], script).exited(3);
    let wall = ran.number("wall_us");
    assert!(wall > 10_000 && u128::from(wall) < ran.took.as_micros(), "{} in {:?}", ran.report, ran.took);
    let cpus = std::thread::available_parallelism().unwrap().get() as u64;
    // The kernel may count in ticks of 10 ms.
    assert!((10_000..wall * cpus + 40_000).contains(&ran.cpu()), "{}", ran.report);
    assert!((8 << 20..128 << 20).contains(&ran.number("memory_peak")), "{}", ran.report);
    assert!(ran.number("pids_peak") >= 1, "{}", ran.report);
    assert_eq!(ran.report["command"], json!(["sh", "-c", script]));
    assert!(ran.report["id"].as_str().unwrap().starts_with(t.id()));
    let (date, time) = ran.report["started"].as_str().unwrap().split_once('T').unwrap();
    assert!(date.starts_with("20") && time.ends_with('Z'), "{}", ran.report);
}

fn a_signal_is_told(t: &Test) {
    let ran = sh(t, &[], "kill -SEGV $$");
    ran.ended(json!({"cause": "signaled", "signal": libc::SIGSEGV}), 128 + libc::SIGSEGV);
}

fn a_streaming(t: &Test) {
    let script = "echo one; echo two >&2; read line; echo $line; exit 4";
    let mut stream = Stream::start(t, &[], &["sh", "-c", script]);
    let started = stream.event("started");
    assert_eq!((&started["id"], &started["command"][2]), (&json!(stream.id), &json!(script)));
    let program = os::pidfd(started["pid"].as_i64().unwrap() as i32).unwrap();
    // The streams are two pipes, which are looked at in no order.
    let mut pieces: Vec<Value> = Vec::new();
    while pieces.len() < 2 {
        pieces.extend(stream.next().filter(|event| ["stdout", "stderr"].map(Value::from).contains(&event["event"])));
    }
    for (kind, text) in [("stdout", "one\n"), ("stderr", "two\n")] {
        let piece = pieces.iter().find(|p| p["event"] == kind).unwrap_or_else(|| panic!("{pieces:?}"));
        assert_eq!((&piece["data"], &piece["bytes"]), (&json!(text), &json!(4)));
    }
    assert!(!os::readable(&program, std::time::Duration::ZERO), "it has ended before its output came");
    stream.stdin.write_all(b"three\n").unwrap();
    assert_eq!(stream.event("stdout")["data"], "three\n");
    let exited = stream.event("exited");
    assert_eq!((&exited["outcome"], &exited["status"]), (&json!({"cause": "exited", "code": 4}), &json!(4)));
    let report = stream.event("report");
    assert_eq!((&report["status"], &report["id"]), (&json!(4), &json!(stream.id)));
    assert_eq!(stream.next(), None);
    let Stream { running, id, .. } = stream;
    assert_eq!(running.wait().code(4).stderr, "");
    nothing_left(t, &id);
}

fn a_check_command(t: &Test) {
    let report = tool(t, &["check", "--json"]).ok().json();
    let rows = report["rows"].as_array().unwrap();
    let row = |name: &str| rows.iter().find(|row| row["name"] == name).unwrap_or_else(|| panic!("{name}: {report}"));
    for name in [
        "Landlock",
        "seccomp actions",
        "user",
        "mount",
        "pid",
        "cgroup controllers",
        "walls: namespaces",
        "limit: memory",
    ] {
        let row = row(name);
        let lost = row["cost"].as_str();
        assert_eq!(row["state"] == "ok", lost.is_none(), "what is lost without it is said, and only then: {row}");
    }
    assert_eq!(rows.iter().filter(|row| row["name"] == "Landlock").count(), 1, "{report}");
    assert_eq!(report["canRun"], true);
    // It is what a run comes to.
    let by = sh(t, &[], ":").limit("memory")["by"].as_str().unwrap().to_owned();
    assert_eq!(row("limit: memory")["found"], format!("by {by}"));
    let text = tool(t, &["check"]).ok().stdout;
    assert!(text.contains("Landlock") && text.contains("limit: memory"), "{text}");
    assert!(text.trim_end().ends_with("sandboxes can run here") && !text.contains("containers can"), "{text}");
    assert!(text.matches("no cgroup is to be had").count() <= 1, "a note is told once: {text}");
}

fn b_output_captured(t: &Test) {
    let ran = sh(t, &[], "printf 'a\\nb'; printf 'c\\000\\377' >&2").exited(0);
    assert_eq!(ran.report["stdout"], json!({"text": "a\nb", "bytes": 3, "truncated": false}));
    assert_eq!(ran.report["stderr"], json!({"text": "c\0\u{fffd}", "bytes": 3, "truncated": false}));
    let ran = sh(t, &[], "yes | head -c 3M").exited(0);
    assert_eq!((&ran.report["stdout"]["bytes"], &ran.report["stdout"]["truncated"]), (&json!(3 << 20), &json!(true)));
    assert_eq!(ran.stdout().len(), 1 << 20);
}

fn b_verbose(t: &Test) {
    let out = plain(t, &["--verbose", "--memory", "64M"], &["sh", "-c", "echo out; exit 3"]).code(3);
    assert_eq!(out.stdout, "out\n");
    for words in ["exited with status 3", "command ", "time ", "memory ", "64M", "RLIMIT_NOFILE"] {
        assert!(out.stderr.contains(words), "{words}: {}", out.stderr);
    }
    let out = plain(t, &["--quiet"], &["sh", "-c", "exit 3"]).code(3);
    assert_eq!((out.stdout.as_str(), out.stderr.as_str()), ("", ""));
}

fn b_html_report(t: &Test) {
    let script = "echo '<script>alert(1)</script>' > '<b>'; n=0; while [ $n -lt 20000 ]; do n=$((n + 1)); done";
    plain(t, &["--html", "report.html"], &["sh", "-c", script]).ok();
    let page = fs::read_to_string(work(t).join("report.html")).unwrap();
    assert!(page.starts_with("<!DOCTYPE html>") && page.trim_end().ends_with("</html>"), "{page}");
    assert!(page.contains("&lt;b&gt;") && !page.contains("<script>alert"), "{page}");
    assert!(!page.contains("src=\"http") && !page.contains("href=\"http"), "it takes nothing from elsewhere: {page}");
}

fn b_peak_and_average_memory_sampled(t: &Test) {
    let ran = sh(t, &["--timeout", &short(1500)], "head -c 16M /dev/zero | tail > /dev/null; while :; do :; done");
    let peak = ran.number("memory_peak");
    if !ran.by_cgroup("memory") {
        assert!(peak > 0 && ran.report["memory_average"].is_null(), "{}", ran.report);
        return;
    }
    let samples = ran.report["samples"].as_array().unwrap();
    assert!(samples.len() >= 3, "{}", ran.report);
    let column = |key: &str| samples.iter().map(|s| s[key].as_u64().unwrap()).collect::<Vec<_>>();
    assert!(column("at_us").is_sorted() && column("cpu_us").is_sorted(), "{}", ran.report);
    assert!(*column("cpu_us").last().unwrap() > 50_000, "{}", ran.report);
    let memory = column("memory");
    let average = ran.number("memory_average");
    assert_eq!(average, memory.iter().sum::<u64>() / memory.len() as u64);
    assert!(average > 0 && average <= peak, "{}", ran.report);
}

fn changes_are_listed_and_committed(t: &Test) {
    for name in ["kept", "changed", "gone"] {
        file(t, name, "old");
    }
    let script = "echo new > added; echo longer > changed; rm gone; exit $1";
    let changed = |ran: &super::support::Ran| {
        let list = ran.report["changes"].as_array().unwrap();
        let mut list: Vec<_> = list
            .iter()
            .map(|c| (c["path"].as_str().unwrap().rsplit('/').next().unwrap().to_owned(), c["kind"].clone()))
            .collect();
        list.sort_by(|a, b| a.0.cmp(&b.0));
        json!(list)
    };
    let expected = json!([["added", "added"], ["changed", "modified"], ["gone", "deleted"]]);
    let text = |name: &str| fs::read_to_string(work(t).join(name)).ok();
    for (flags, status) in [(&[][..], "0"), (&["--commit"], "1"), (&["--commit"], "0")] {
        assert_eq!((text("added"), text("changed"), text("gone")), (None, Some("old".into()), Some("old".into())));
        let ran = run(t, flags, &["sh", "-c", script, "sh", status]);
        assert_eq!(changed(&ran), expected, "{}", ran.report);
    }
    assert_eq!((text("added"), text("changed"), text("gone")), (Some("new\n".into()), Some("longer\n".into()), None));
    assert_eq!(text("kept"), Some("old".into()));
}

fn violations_are_told_and_ignored_by_pattern(t: &Test) {
    t.needs_call("pidfd");
    needs("perl");
    let perl = ["perl", "-e", "use Socket; socket(my $s, AF_INET, SOCK_STREAM, 0); print $! + 0"];
    let ran = run(t, &[], &perl).exited(0);
    assert_eq!(ran.stdout(), libc::EPERM.to_string());
    let violations = ran.report["violations"].as_array().unwrap();
    let socket = violations.iter().find(|v| v["what"].as_str().unwrap().contains("socket"));
    let socket = socket.unwrap_or_else(|| panic!("{}", ran.report));
    assert_eq!((&socket["kind"], &socket["program"], &socket["count"]), (&json!("syscall"), &json!("perl"), &json!(1)));
    let ignored = run(t, &["--ignore-violation", "perl=socket"], &perl).exited(0);
    assert_eq!(ignored.report["violations"], json!([]));
}

fn a_report_to_a_file_leaves_the_streams_alone(t: &Test) {
    let out = plain(t, &["--report", "report.json"], &["sh", "-c", "echo out; echo err >&2; exit 2"]).code(2);
    assert_eq!(out.stdout, "out\n");
    assert!(out.stderr.starts_with("err\n"), "{}", out.stderr);
    let report: Value = serde_json::from_str(&fs::read_to_string(work(t).join("report.json")).unwrap()).unwrap();
    assert_eq!((&report["status"], &report["stdout"]), (&json!(2), &Value::Null));
    // A file that can't be made is told before anything runs.
    let out = plain(t, &["--report", "none/report.json"], &["touch", "ran"]).code(125);
    assert!(out.stderr.contains("--report"), "{}", out.stderr);
}

fn the_status_comes_over_a_descriptor(t: &Test) {
    let (ours, theirs) = std::io::pipe().unwrap();
    let out = plain_with(t, &["--status-fd", "71"], &["sh", "-c", "echo out; ls /proc/self/fd; exit 6"], |call| {
        call.pass(vec![(OwnedFd::from(theirs), 71)])
    })
    .code(6);
    let mut fds: Vec<&str> = out.stdout.lines().collect();
    fds.retain(|line| *line == "71");
    assert!(fds.is_empty(), "the program got it: {}", out.stdout);
    let mut lines = crate::support::container::Lines::new(ours.into());
    let events: Vec<Value> = std::iter::from_fn(|| lines.next()).map(|l| serde_json::from_str(&l).unwrap()).collect();
    assert_eq!(events[0]["event"], "started");
    assert!(events.iter().all(|event| event["event"] != "stdout"), "{events:?}");
    assert!(events.iter().any(|event| event["event"] == "exited" && event["status"] == 6), "{events:?}");
}
