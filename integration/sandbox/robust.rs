//! Programs that misbehave, readers that do not read, and a brig that is killed.

use super::support::{Stream, call, file, left, new_id, nothing_left, plain, sh, short, soon, tool, work};
use crate::support::{Test, Value, cases, json, os};
use std::fs;
use std::io::{Read, pipe};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::time::{Duration, Instant};

cases![
    output_of_gigabytes_is_not_kept,
    a_program_that_closes_its_pipes,
    a_daemon_that_keeps_the_pipes,
    a_reader_that_stops_does_not_stop_the_timeout,
    a_reader_that_goes_away,
    killed_together_with_brig,
    killed_brig,
    a_limit_is_changed_while_it_runs,
    many_at_once,
];

/// The most memory that a process has had, in bytes.
fn most_memory(pid: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

fn output_of_gigabytes_is_not_kept(t: &Test) {
    let fifo = work(t).join("done");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    let end = fs::File::options().read(true).custom_flags(libc::O_NONBLOCK).open(&fifo).unwrap();
    let (input, stdin) = pipe().unwrap();
    let id = new_id(t);
    // More than the memory that is allowed for below.
    let all: u64 = if os::slowness() > 1 { 128 << 20 } else { 1 << 30 };
    let script = format!("head -c {all} /dev/zero; echo > done; read line");
    let running = call(t, &id, &["--json", "-w"], &["sh", "-c", &script]).stdin(OwnedFd::from(input)).patient().spawn();
    // All of it but what is in the pipe has been read when the program gets to this.
    assert!(os::readable(&end, 4 * os::PATIENCE), "it gets no further");
    let most = most_memory(running.pid());
    assert!(most < 64 << 20, "{most} bytes");
    drop(stdin);
    let out = running.wait();
    nothing_left(t, &id);
    let report = out.json();
    assert_eq!((&report["stdout"]["bytes"], &report["stdout"]["truncated"]), (&json!(all), &json!(true)));
    // A NUL takes six characters in JSON.
    assert!(out.stdout.len() < 8 << 20, "a report of {} bytes", out.stdout.len());
}

fn a_program_that_closes_its_pipes(t: &Test) {
    let ran = sh(t, &[], "echo last; exec >&- 2>&- <&-; n=0; while [ $n -lt 10000 ]; do n=$((n + 1)); done; exit 5");
    assert_eq!(ran.stdout(), "last\n");
    ran.exited(5);
}

fn a_daemon_that_keeps_the_pipes(t: &Test) {
    // It ends with the program, which is the sandbox's.
    let ran = sh(t, &[], "setsid sh -c 'trap \"\" TERM; echo daemon; sleep 1000' & read line; echo end; exit 5");
    assert!(ran.took < soon(10_000), "{:?}", ran.took);
    assert!(ran.stdout().contains("end\n"), "{}", ran.report);
    ran.exited(5);
}

fn a_reader_that_stops_does_not_stop_the_timeout(t: &Test) {
    for flag in ["--json-lines", "--quiet", "--tty"] {
        let id = new_id(t);
        let (ours, theirs) = pipe().unwrap();
        let (status, told) = pipe().unwrap();
        let flags = [flag, "--timeout", &short(300), "--status-fd", "71"];
        let call = call(t, &id, &flags, &["yes"]).stdout(theirs.into());
        let running = call.pass(vec![(OwnedFd::from(told), 71)]).spawn();
        let mut events = crate::support::container::Lines::new(status.into());
        let started: Value = serde_json::from_str(&events.next().unwrap()).unwrap();
        let program = os::pidfd(started["pid"].as_i64().unwrap() as i32).unwrap();
        assert!(os::readable(&program, Duration::from_secs(5)), "{flag}: it runs on, as nobody reads its output");
        drop(ours);
        drop(events);
        running.wait().code(124);
        nothing_left(t, &id);
    }
}

fn a_reader_that_goes_away(t: &Test) {
    let id = new_id(t);
    let (mut ours, theirs) = pipe().unwrap();
    let running = call(t, &id, &["-q"], &["yes"]).stdout(theirs.into()).spawn();
    ours.read_exact(&mut [0; 100]).unwrap();
    drop(ours);
    running.wait().code(128 + libc::SIGPIPE);
    nothing_left(t, &id);
}

/// Starts a stubborn tree of processes, and kills brig as soon as it runs.
fn kill_brig(t: &Test, flags: &[&str]) -> String {
    let deaf = "trap '' TERM INT HUP QUIT";
    let script = format!("{deaf}; (setsid sh -c \"{deaf}; sleep 1000; :\" &); echo begun; sleep 1000; :");
    let mut stream = Stream::start(t, flags, &["sh", "-c", &script]);
    let program = stream.event("started")["pid"].as_i64().unwrap() as i32;
    stream.event("stdout");
    let program = os::pidfd(program).unwrap();
    let begun = Instant::now();
    let Stream { running, id, .. } = stream;
    running.kill();
    assert!(os::readable(&program, Duration::from_secs(10)), "the program lives on");
    let mark = format!("BRIG_TEST={}", t.id());
    // The kernel ends the rest of the namespace before init is seen to have ended; they are this process's to reap.
    while !crate::support::host::processes_marked(&mark).is_empty() {
        assert!(begun.elapsed() < soon(10_000), "{:?}", left(t, &id));
    }
    id
}

fn killed_together_with_brig(t: &Test) {
    let id = kill_brig(t, &[]);
    // Its socket leads nowhere, and is no sandbox's.
    let list = tool(t, &["list"]).ok().stdout;
    assert!(!list.contains(&id), "{list}");
    // The next one under its ID takes over what is left of it.
    let out = call(t, &id, &["--json"], &["sh", "-c", "exit 3"]).out().code(3);
    assert!(out.json()["notes"].to_string().find("cgroup").is_none() || !os::is_root(), "{}", out.stdout);
    nothing_left(t, &id);
}

fn killed_brig(t: &Test) {
    file(t, ".zshrc", "old");
    let id = kill_brig(t, &["-w"]);
    assert!(left(t, &id).len() > 3, "start-up files could be made: {:?}", left(t, &id));
    // The next one removes it, whatever its ID.
    plain(t, &[], &["true"]).ok();
    nothing_left(t, &id);
    assert_eq!(fs::read_to_string(work(t).join(".zshrc")).unwrap(), "old");
}

fn a_limit_is_changed_while_it_runs(t: &Test) {
    let mut stream = Stream::start(t, &[], &["sh", "-c", "echo begun; sleep 1000"]);
    stream.event("stdout");
    let id = stream.id.clone();
    tool(t, &["update", &id, "--timeout", "x"]).out().code(125);
    tool(t, &["update", &id, "--allow-domain", "a.com"]).out().code(125).fails(&["--net domains"]);
    tool(t, &["update", &id, "--timeout", "100ms"]).ok();
    let told = stream.event("limit-updated");
    assert_eq!((&told["name"], &told["value"]), (&json!("timeout"), &json!("100 ms")));
    assert_eq!(stream.event("exited")["outcome"], json!({"cause": "timed_out"}));
    stream.running.wait().code(124);
    nothing_left(t, &id);
}

fn many_at_once(t: &Test) {
    let ids: Vec<String> = (0..if os::slowness() > 1 { 4 } else { 12 }).map(|_| new_id(t)).collect();
    let all: Vec<_> = ids.iter().map(|id| call(t, id, &["--json"], &["sh", "-c", "echo $0", id]).spawn()).collect();
    for (running, id) in all.into_iter().zip(&ids) {
        let report = running.wait().code(0).json();
        assert_eq!((&report["id"], &report["stdout"]["text"]), (&json!(id), &json!(format!("{id}\n"))));
    }
    ids.iter().for_each(|id| nothing_left(t, id));
}
