//! Several commands at once on one container.

use crate::support::{Bundle, Kind, Out, Running, Test, cases, os};
use std::fs;

cases![one_of_many_gets_an_id, one_of_many_starts, many_delete, many_ask_while_it_ends, many_containers_at_once];

fn sleeper(t: &Test) -> Bundle {
    let mut b = t.bundle();
    b.payload(&["sleep"]).write();
    b
}

fn outs(calls: Vec<Running>) -> Vec<Out> {
    calls.into_iter().map(Running::wait).collect()
}

fn codes(calls: Vec<Running>) -> Vec<i32> {
    outs(calls).iter().map(|out| out.code).collect()
}

fn one_of_many_gets_an_id(t: &Test) {
    t.differs(Kind::Runc, "1.1 may let the loser take away the winner's cgroup");
    let b = sleeper(t);
    let id = t.new_id();
    let calls: Vec<Running> = (0..8)
        .map(|n| t.call(&["create", "--bundle", b.path(), "--pid-file", &t.dir().join(format!("pid{n}")).display().to_string(), &id]).spawn())
        .collect();
    let codes = codes(calls);
    assert_eq!(codes.iter().filter(|c| **c == 0).count(), 1, "{codes:?}");
    assert_eq!(t.call(&["state", &id]).ok().json()["status"], "created");
    t.call(&["delete", "--force", &id]).ok();
    let winner = codes.iter().position(|c| *c == 0).unwrap();
    os::reap(fs::read_to_string(t.dir().join(format!("pid{winner}"))).unwrap().parse().unwrap());
    assert_eq!(t.left(), Vec::<String>::new());
}

fn one_of_many_starts(t: &Test) {
    t.differs(Kind::Runc, "1.1 lets several of them report success");
    t.differs(Kind::Crun, "1.8.1 lets several of them report success");
    let c = t.create(&sleeper(t));
    let codes = codes((0..6).map(|_| c.call(&["start"]).spawn()).collect());
    assert_eq!(codes.iter().filter(|c| **c == 0).count(), 1, "{codes:?}");
    c.line();
    assert_eq!(c.status(), "running");
}

fn many_delete(t: &Test) {
    t.only_brig("those that come late fail in the middle");
    let c = t.create(&sleeper(t));
    c.start();
    c.line();
    for out in outs((0..6).map(|_| c.call(&["delete", "--force"]).spawn()).collect()) {
        out.ok();
    }
    assert_eq!(t.left(), Vec::<String>::new());
}

/// What commands say of a container that is just going must be one of the right answers.
fn many_ask_while_it_ends(t: &Test) {
    t.only_brig("they may say that a file of theirs is missing");
    let c = t.create(&sleeper(t));
    c.start();
    c.line();
    let states: Vec<Running> = (0..6).map(|_| c.call(&["state"]).spawn()).collect();
    let execs: Vec<Running> = (0..3).map(|_| c.exec_call(&[], &["/bin/payload"]).spawn()).collect();
    let delete = c.call(&["delete", "--force"]).spawn();
    let more: Vec<Running> = (0..6).map(|_| c.call(&["state"]).spawn()).collect();
    for state in states.into_iter().chain(more) {
        let out = state.wait();
        if out.code == 0 {
            let status = out.json()["status"].clone();
            assert!(status == "running" || status == "stopped", "{status}");
        } else {
            assert!(out.stderr.contains("does not exist"), "{}", out.stderr);
        }
    }
    for exec in execs {
        let out = exec.wait();
        let known = ["does not exist", "not running", "no such process"];
        assert!([0, 137].contains(&out.code) || known.iter().any(|k| out.stderr.contains(k)), "{}: {}", out.code, out.stderr);
    }
    delete.wait().ok();
}

fn many_containers_at_once(t: &Test) {
    let mut b = t.bundle();
    b.payload(&["exit=5"]).write();
    let calls = (0..10).map(|_| t.call(&["run", "--bundle", b.path(), &t.new_id()]).spawn()).collect();
    assert_eq!(codes(calls), [5; 10]);
}
