//! `ps`, as the engines read it and as people do.

use crate::support::{Container, Kind, Test, cases, host, json, suite};
use std::fs;

cases![
    a_list_of_numbers,
    a_table,
    a_table_with_options_of_ps,
    options_that_leave_no_pid,
    of_sub_cgroups_too,
    of_a_created_and_a_stopped_container,
    of_an_unknown_container,
];

fn running(t: &Test) -> Container<'_> {
    let mut b = t.bundle();
    b.payload(&["orphans=2", "sleep"]);
    let c = t.create(&b);
    c.start();
    c.line();
    c.line();
    c
}

/// As go-runc does: a list of integers, which are IDs on the host.
fn pids(c: &Container) -> Vec<i32> {
    let out = c.test().call(&["ps", "--format", "json", &c.id]).ok();
    serde_json::from_str(&out.stdout).unwrap_or_else(|e| panic!("{e}: {}", out.stdout))
}

fn a_list_of_numbers(t: &Test) {
    let c = running(t);
    let pids = pids(&c);
    assert_eq!(pids.len(), 3, "{pids:?}");
    assert!(pids.contains(&c.pid));
    assert!(pids.iter().all(|pid| fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap().contains("payload")));
}

fn need_ps() {
    if !std::path::Path::new("/usr/bin/ps").exists() && !std::path::Path::new("/bin/ps").exists() {
        suite::skip("ps is not installed");
    }
}

fn a_table(t: &Test) {
    t.differs(Kind::Crun, "it prints IDs alone");
    need_ps();
    let c = running(t);
    for args in [["ps", &c.id].as_slice(), &["ps", "-f", "table", &c.id]] {
        let table = t.call(args).ok().stdout;
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines.len(), 4, "{table}");
        assert_eq!(lines[0].split_whitespace().nth(1), Some("PID"), "{table}");
        assert!(lines[1..].iter().any(|line| line.split_whitespace().nth(1) == Some(&c.pid.to_string())), "{table}");
    }
}

fn a_table_with_options_of_ps(t: &Test) {
    need_ps();
    let c = running(t);
    for options in [&["-e", "-o", "pid,comm"][..], &["-eo", "pid,comm"], &["--", "-eo", "pid,comm"], &["-A", "-o", "pid,comm"]] {
        if options[0] == "--" && t.kind() != Kind::Brig {
            // They pass it on, and ps ends its options there.
            continue;
        }
        if options[0] != "--" && t.kind() == Kind::Crun {
            continue;
        }
        let table = t.call(&["ps", &c.id]).args(options).ok().stdout;
        let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[0], ["PID", "COMMAND"]);
        assert_eq!(lines.len(), 4, "{table}");
        assert!(lines[1..].iter().all(|line| line[1] == "payload"), "{table}");
    }
}

fn options_that_leave_no_pid(t: &Test) {
    need_ps();
    t.differs(Kind::Crun, "it takes no options of ps without --");
    let c = running(t);
    t.call(&["ps", &c.id, "-e", "-o", "comm"]).out().code(1).fails(&["PID"]);
    t.call(&["ps", &c.id, "--no-such-option"]).out().code(1).fails(&["ps --no-such-option"]);
    t.call(&["ps", "--format", "yaml", &c.id]).out().fails(&["--format"]);
}

fn of_sub_cgroups_too(t: &Test) {
    let c = running(t);
    let controller = if host::has_v1("freezer") { "freezer" } else { "" };
    let dir = host::cgroup_dir(c.pid, controller).expect("a cgroup");
    fs::create_dir(dir.join("below")).unwrap();
    let moved = *pids(&c).iter().find(|pid| **pid != c.pid).unwrap();
    fs::write(dir.join("below/cgroup.procs"), moved.to_string()).unwrap();
    let pids = pids(&c);
    assert!(pids.len() == 3 && pids.contains(&moved), "{pids:?}");
}

fn of_a_created_and_a_stopped_container(t: &Test) {
    let mut b = t.bundle();
    b.payload(&["sleep"]);
    let c = t.create(&b);
    assert_eq!(pids(&c), [c.pid]);
    c.start();
    c.line();
    c.kill("KILL");
    c.wait();
    let out = c.test().call(&["ps", "--format", "json", &c.id]).out();
    if t.kind() == Kind::Brig {
        assert_eq!(out.ok().json(), json!([]));
        need_ps();
        assert_eq!(t.call(&["ps", &c.id]).ok().stdout.lines().count(), 1, "the heading");
    }
}

fn of_an_unknown_container(t: &Test) {
    t.call(&["ps", "nobody"]).out().fails(&["does not exist"]);
    t.call(&["ps", "--format", "json", "nobody"]).out().fails(&["does not exist"]);
    t.call(&["ps"]).out().fails(&["ID"]);
}
