//! `kill`, by every name of a signal, and signals that reach `run`.

use crate::support::{Kind, Test, cases, container::Lines, json, os};

cases![
    signals_by_name_and_number,
    the_default_signal_is_term,
    unknown_signals_are_refused,
    a_created_container_can_be_killed,
    a_stopped_container_cannot,
    an_unknown_container_cannot,
    kill_all_reaches_every_process,
    kill_all_after_init,
    kill_by_pattern,
    a_signal_is_128_and_its_number,
    run_forwards_signals,
    init_inherits_no_blocked_or_ignored_signals,
];

fn signals_by_name_and_number(t: &Test) {
    let mut b = t.bundle();
    b.payload(&["trap"]);
    let c = t.create(&b);
    c.start();
    c.line();
    for (name, number) in [("HUP", 1), ("SIGINT", 2), ("10", 10), ("SIGWINCH", 28), ("CONT", 18), ("64", 64)] {
        c.kill(name);
        assert_eq!(c.line()["signal"], number, "{name}");
    }
    c.kill("USR2");
    assert_eq!(c.wait(), 0);
}

fn the_default_signal_is_term(t: &Test) {
    let mut b = t.bundle();
    b.payload(&["trap"]);
    let c = t.create(&b);
    c.start();
    c.line();
    c.call(&["kill"]).ok();
    assert_eq!(c.line()["signal"], 15);
    assert_eq!(c.wait(), 0);
}

fn unknown_signals_are_refused(t: &Test) {
    let mut b = t.bundle();
    b.payload(&["trap"]);
    let c = t.create(&b);
    c.start();
    c.line();
    for name in ["SIGNOT", "-1", "65", "9x"] {
        if t.kind() == Kind::Crun && name != "SIGNOT" {
            continue;
        }
        c.call(&["kill"]).args(&["--", name]).out().fails(&["signal"]);
    }
    assert_eq!(c.status(), "running");
}

fn a_created_container_can_be_killed(t: &Test) {
    let c = t.create(t.bundle().payload(&["sleep"]));
    c.kill("KILL");
    assert_eq!(c.wait(), 137);
    assert_eq!(c.status(), "stopped");
    c.delete();
}

fn a_stopped_container_cannot(t: &Test) {
    let c = t.create(t.bundle().payload(&["exit=0"]));
    c.start();
    c.wait_unreaped();
    for _ in 0..2 {
        let out = c.call(&["kill"]).args(&["TERM"]).out();
        if t.kind() != Kind::Crun {
            out.code(1).fails(&["not running"]);
        }
        c.wait_unreaped();
    }
    c.wait();
    c.call(&["kill"]).args(&["KILL"]).out().fails(&["not running"]);
}

fn an_unknown_container_cannot(t: &Test) {
    t.call(&["kill", &t.new_id(), "KILL"]).out().code(1).fails(&["does not exist"]);
}

fn kill_all_reaches_every_process(t: &Test) {
    let mut b = t.bundle();
    b.without_namespace("pid").payload(&["orphans=3", "sleep"]);
    let c = t.create(&b);
    c.start();
    let made = c.line();
    c.line();
    c.call(&["kill", "--all"]).args(&["KILL"]).ok();
    assert_eq!(c.wait(), 137);
    for pid in made["orphans=3"].as_array().unwrap() {
        assert_eq!(os::reap(pid.as_i64().unwrap() as i32), Some(137));
    }
}

/// Engines clean up in this way after an init that shared its pid namespace.
fn kill_all_after_init(t: &Test) {
    let mut b = t.bundle();
    b.without_namespace("pid").payload(&["orphans=2", "exit=0"]);
    let c = t.create(&b);
    c.start();
    let made = c.line();
    assert_eq!(c.wait(), 0);
    c.call(&["kill", "--all"]).args(&["KILL"]).ok();
    for pid in made["orphans=2"].as_array().unwrap() {
        assert_eq!(os::reap(pid.as_i64().unwrap() as i32), Some(137));
    }
    c.delete();
}

fn kill_by_pattern(t: &Test) {
    t.differs(Kind::Runc, "it has no --regex");
    let mut b = t.bundle();
    b.payload(&["trap"]);
    let (one, two) = (t.create(&b), t.create(&b));
    for c in [&one, &two] {
        c.start();
        c.line();
    }
    t.call(&["kill", "--regex", &format!("^{}$", one.id), "TERM"]).ok();
    assert_eq!(one.wait(), 0);
    assert_eq!(two.status(), "running");
}

fn a_signal_is_128_and_its_number(t: &Test) {
    for (signal, code) in [("KILL", 137), ("TERM", 143), ("QUIT", 131)] {
        let mut b = t.bundle();
        // Init of a pid namespace gets no signal but KILL and STOP that it has no handler for, not even from outside.
        b.without_namespace("pid").payload(&["sleep"]).write();
        let id = t.new_id();
        let (read, write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap();
        let running = t.call(&["run", "--bundle", b.path(), &id]).stdout(write).spawn();
        assert_eq!(Lines::new(read).next(), Some(json!({"ready": true}).to_string()));
        t.call(&["kill", &id, signal]).ok();
        running.wait().code(code);
    }
}

fn run_forwards_signals(t: &Test) {
    let mut b = t.bundle();
    b.payload(&["trap"]).write();
    let (read, write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap();
    let running = t.call(&["run", "--bundle", b.path(), &t.new_id()]).stdout(write).spawn();
    let mut lines = Lines::new(read);
    lines.next();
    for signal in [libc::SIGHUP, libc::SIGUSR1, libc::SIGTERM] {
        os::kill(running.pid(), signal);
        assert_eq!(lines.next(), Some(json!({"signal": signal}).to_string()));
    }
    running.wait().code(0);
}

fn init_inherits_no_blocked_or_ignored_signals(t: &Test) {
    t.only_brig("they pass on what they were given");
    let mut b = t.bundle();
    b.payload(&["signals"]).write();
    let call = t.call(&["run", "--bundle", b.path(), &t.new_id()]);
    let block = || {
        let all = nix::sys::signal::SigSet::all();
        all.thread_block()?;
        Ok(())
    };
    // SAFETY: blocks signals, and does nothing else.
    let seen = unsafe { call.before(block) }.ok().json();
    assert_eq!(seen["signals"]["blocked"].to_string().trim_matches('"').trim_start_matches('0'), "", "{seen}");
}
