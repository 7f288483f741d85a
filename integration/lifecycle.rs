//! From create to delete: what each command does to a container's status, and what it prints.

use crate::support::{Test, cases, json};

cases![create_start_state_kill_delete, run_passes_on_the_exit_status];

fn create_start_state_kill_delete(t: &Test) {
    let mut b = t.bundle();
    b.payload(&["pid", "sleep"]);
    let c = t.create(&b);
    let state = c.state();
    assert_eq!(state["id"], json!(c.id));
    assert_eq!(state["status"], "created");
    assert_eq!(state["pid"], c.pid);
    assert_eq!(state["bundle"], b.path());
    c.start();
    assert_eq!(c.line()["pid"]["pid"], 1);
    assert_eq!(c.line()["ready"], true);
    assert_eq!(c.status(), "running");
    c.kill("KILL");
    c.wait_unreaped();
    assert_eq!(c.status(), "stopped");
    assert_eq!(c.wait(), 137);
    assert_eq!(c.status(), "stopped");
    c.delete();
    assert_eq!(t.left(), Vec::<String>::new());
    c.call("state").out().fails(&["does not exist"]);
}

fn run_passes_on_the_exit_status(t: &Test) {
    for code in [0, 1, 7, 255] {
        let mut b = t.bundle();
        b.payload(&[&format!("exit={code}")]);
        t.run(&b).code(code);
    }
}
