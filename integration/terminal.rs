//! Terminals: over a console socket, and in the foreground with the caller's own.

use crate::support::container::Lines;
use crate::support::{Bundle, Kind, Test, Value, cases, json, os, pty};
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

cases![
    create_sends_the_terminal,
    run_detached_sends_the_terminal,
    the_size_of_the_config,
    resize_reaches_the_container,
    the_terminal_belongs_to_the_user,
    dev_console,
    in_a_user_namespace,
    foreground,
    foreground_resize,
    foreground_keys_are_the_containers,
    foreground_restores_the_callers_terminal,
    exec_in_the_foreground,
    exec_detached_sends_the_terminal,
    exec_process_file_with_a_terminal,
    a_hang_up_ends_the_session,
    without_a_socket_it_is_refused,
    a_socket_without_a_terminal_is_refused,
    a_socket_nobody_listens_on,
];

/// A console socket as an engine offers it.
fn socket(t: &Test) -> (UnixListener, String) {
    let path: PathBuf = t.dir().join(format!("console{}", t.next_number()));
    (UnixListener::bind(&path).expect("a socket"), path.display().to_string())
}

fn bundle(t: &Test, verbs: &[&str]) -> Bundle {
    let mut b = t.bundle();
    b.set("/process/terminal", json!(true)).payload(verbs);
    b
}

#[track_caller]
fn master(listener: &UnixListener) -> OwnedFd {
    let (_, mut fds) = pty::receive(&pty::accept(listener));
    assert_eq!(fds.len(), 1, "one descriptor comes over the console socket");
    fds.remove(0)
}

#[track_caller]
fn object(lines: &mut Lines) -> Value {
    let line = lines.next().expect("a line from the terminal");
    serde_json::from_str(&line).unwrap_or_else(|e| panic!("not JSON ({e}): {line}"))
}

fn create_sends_the_terminal(t: &Test) {
    let (listener, path) = socket(t);
    let b = bundle(t, &["tty", "pid", "line", "exit=3"]);
    let c = t.create_with(&b, &["--console-socket", &path], |call| call);
    let master = master(&listener);
    let mut lines = Lines::new(master.try_clone().unwrap());
    c.start();
    pty::type_in(&master, b"typed\n");
    assert_eq!(lines.next().unwrap(), "typed", "the terminal echoes");
    let seen = object(&mut lines);
    for fd in ["0", "1", "2"] {
        assert_eq!(seen["tty"][fd]["name"], "/dev/pts/0", "{seen}");
    }
    assert_eq!(seen["tty"]["controlling"], true);
    assert_eq!((&seen["tty"]["sid"], &seen["tty"]["foreground"]), (&json!(1), &json!(1)));
    assert_eq!(seen["line"]["ok"], "typed");
    assert_eq!(c.wait(), 3);
}

fn run_detached_sends_the_terminal(t: &Test) {
    let (listener, path) = socket(t);
    let b = bundle(t, &["tty", "sleep"]);
    let c = crate::support::Container::make(t, &b, "run", &["--detach", "--console-socket", &path], |call| call);
    let mut lines = Lines::new(master(&listener));
    assert_eq!(object(&mut lines)["tty"]["0"]["name"], "/dev/pts/0");
    c.kill("KILL");
    c.wait();
}

fn the_size_of_the_config(t: &Test) {
    let (listener, path) = socket(t);
    let mut b = bundle(t, &["tty", "sleep"]);
    b.set("/process/consoleSize", json!({"height": 33, "width": 111}));
    let c = t.create_with(&b, &["--console-socket", &path], |call| call);
    let mut lines = Lines::new(master(&listener));
    c.start();
    let seen = object(&mut lines);
    assert_eq!((&seen["tty"]["0"]["height"], &seen["tty"]["0"]["width"]), (&json!(33), &json!(111)));
}

fn resize_reaches_the_container(t: &Test) {
    let (listener, path) = socket(t);
    let b = bundle(t, &["resized"]);
    let c = t.create_with(&b, &["--console-socket", &path], |call| call);
    let master = master(&listener);
    let mut lines = Lines::new(master.try_clone().unwrap());
    c.start();
    object(&mut lines);
    pty::resize(&master, 17, 70);
    assert_eq!(object(&mut lines)["resized"], json!([17, 70]));
    assert_eq!(c.wait(), 0);
}

fn the_terminal_belongs_to_the_user(t: &Test) {
    let (listener, path) = socket(t);
    let mut b = bundle(t, &["stat=/dev/pts/0", "sleep"]);
    b.set("/process/user", json!({"uid": 1000, "gid": 1000}));
    let c = t.create_with(&b, &["--console-socket", &path], |call| call);
    let mut lines = Lines::new(master(&listener));
    c.start();
    let stat = object(&mut lines)["stat=/dev/pts/0"]["ok"].clone();
    assert_eq!((&stat["uid"], &stat["gid"], &stat["mode"]), (&json!(1000), &json!(5), &json!("20620")));
}

fn dev_console(t: &Test) {
    let (listener, path) = socket(t);
    let b = bundle(t, &["devices", "mounts", "out=before", "sleep"]);
    let c = t.create_with(&b, &["--console-socket", &path], |call| call);
    let mut lines = Lines::new(master(&listener));
    c.start();
    assert_eq!(lines.next().unwrap(), "before");
    let seen = object(&mut lines);
    assert_eq!(seen["devices"]["/dev/console"]["major"], 136, "it is the terminal: {}", seen["devices"]["/dev/console"]);
    assert!(seen["mounts"].as_array().unwrap().iter().any(|m| m["target"] == "/dev/console" && m["type"] == "devpts"));
}

fn in_a_user_namespace(t: &Test) {
    let (listener, path) = socket(t);
    let mut b = bundle(t, &["tty", "stat=/dev/pts/0", "write=/dev/console:hello", "sleep"]);
    b.user_namespace(100_000, 65536);
    let c = t.create_with(&b, &["--console-socket", &path], |call| call);
    let mut lines = Lines::new(master(&listener));
    c.start();
    let text = lines.next().unwrap();
    let seen: Value = serde_json::from_str(text.trim_start_matches("hello")).unwrap();
    assert_eq!(seen["tty"]["0"]["name"], "/dev/pts/0");
    assert_eq!(seen["stat=/dev/pts/0"]["ok"]["uid"], 0);
    assert_eq!(seen["write=/dev/console:hello"]["ok"], true);
}

/// Starts the runtime on a terminal of its own, in the foreground.
fn on_a_terminal(call: crate::support::Call, rows: u16, columns: u16) -> (crate::support::Running, OwnedFd, Lines) {
    let (master, slave) = pty::terminal(rows, columns);
    let lines = Lines::new(master.try_clone().unwrap());
    // SAFETY: setsid and one ioctl.
    let call = unsafe { call.stdin(slave.try_clone().unwrap()).stdout(slave).before(pty::lead_session) };
    (call.spawn(), master, lines)
}

const LATE: &str = "they set the size when the process has begun already";

fn foreground(t: &Test) {
    t.only_brig(LATE);
    let b = bundle(t, &["tty", "line", "exit=9"]);
    b.write();
    let (running, master, mut lines) = on_a_terminal(t.call(&["run", "--bundle", b.path(), &t.new_id()]), 31, 99);
    pty::type_in(&master, b"typed\r");
    let mut all = Vec::new();
    while let Some(line) = lines.next() {
        if line.starts_with('{') {
            all.push(line);
            break;
        }
    }
    let seen: Value = serde_json::from_str(&all[0]).unwrap();
    assert_eq!(seen["tty"]["0"]["name"], "/dev/pts/0", "the container's own terminal, not the caller's");
    assert_eq!((&seen["tty"]["0"]["height"], &seen["tty"]["0"]["width"]), (&json!(31), &json!(99)));
    assert_eq!(seen["line"]["ok"], "typed");
    running.wait().code(9);
}

fn foreground_resize(t: &Test) {
    t.only_brig(LATE);
    let b = bundle(t, &["resized"]);
    b.write();
    let (running, master, mut lines) = on_a_terminal(t.call(&["run", "--bundle", b.path(), &t.new_id()]), 31, 99);
    assert_eq!(object(&mut lines)["ready"], json!([31, 99]));
    pty::resize(&master, 20, 60);
    assert_eq!(object(&mut lines)["resized"], json!([20, 60]));
    running.wait().code(0);
}

/// Ctrl-C is a byte to the caller's terminal and a signal to the container's.
fn foreground_keys_are_the_containers(t: &Test) {
    let b = bundle(t, &["trap"]);
    b.write();
    let (running, master, mut lines) = on_a_terminal(t.call(&["run", "--bundle", b.path(), &t.new_id()]), 24, 80);
    object(&mut lines);
    pty::type_in(&master, b"\x03");
    // The terminal's first size may come as a signal, too.
    let line = std::iter::from_fn(|| lines.next()).find(|line| !line.contains("28")).unwrap();
    assert!(line.ends_with(&json!({"signal": 2}).to_string()), "{line}");
    os::kill(running.pid(), libc::SIGTERM);
    running.wait().code(0);
}

fn foreground_restores_the_callers_terminal(t: &Test) {
    let b = bundle(t, &["sleep"]);
    b.write();
    let id = t.new_id();
    let (master, slave) = pty::terminal(24, 80);
    let before = nix::sys::termios::tcgetattr(&slave).unwrap();
    // SAFETY: setsid and one ioctl.
    let call = unsafe { t.call(&["run", "--bundle", b.path(), &id]).stdin(slave.try_clone().unwrap()).stdout(slave.try_clone().unwrap()).before(pty::lead_session) };
    let running = call.spawn();
    let mut lines = Lines::new(master.try_clone().unwrap());
    object(&mut lines);
    let during = nix::sys::termios::tcgetattr(&slave).unwrap();
    assert!(!during.local_flags.contains(nix::sys::termios::LocalFlags::ICANON), "the caller's terminal is raw meanwhile");
    t.call(&["kill", &id, "KILL"]).ok();
    running.wait().code(137);
    let after = nix::sys::termios::tcgetattr(&slave).unwrap();
    assert_eq!((before.local_flags, before.input_flags, before.output_flags), (after.local_flags, after.input_flags, after.output_flags));
}

fn exec_in_the_foreground(t: &Test) {
    t.only_brig(LATE);
    let c = t.create(t.bundle().payload(&["sleep"]));
    c.start();
    c.line();
    let (running, master, mut lines) = on_a_terminal(c.exec_call(&["--tty"], &["/bin/payload", "tty", "resized", "exit=6"]), 25, 81);
    let seen = object(&mut lines);
    assert!(seen["tty"]["0"]["name"].as_str().unwrap().starts_with("/dev/pts/"), "{seen}");
    assert_eq!((&seen["tty"]["0"]["height"], &seen["tty"]["0"]["width"]), (&json!(25), &json!(81)));
    assert_eq!(seen["tty"]["controlling"], true);
    object(&mut lines);
    pty::resize(&master, 26, 82);
    assert_eq!(object(&mut lines)["resized"], json!([26, 82]));
    running.wait().code(6);
}

fn exec_detached_sends_the_terminal(t: &Test) {
    let c = t.create(t.bundle().payload(&["sleep"]));
    c.start();
    c.line();
    let (listener, path) = socket(t);
    let pid_file = t.dir().join("exec.pid");
    let flags = ["--tty", "--detach", "--console-socket", &path, "--pid-file", &pid_file.display().to_string()];
    c.exec(&flags, &["/bin/payload", "tty", "line", "exit=8"]).ok();
    let master = master(&listener);
    let mut lines = Lines::new(master.try_clone().unwrap());
    pty::type_in(&master, b"go\n");
    lines.next();
    let seen = object(&mut lines);
    assert_eq!(seen["tty"]["controlling"], true);
    assert_eq!(seen["line"]["ok"], "go");
    assert_eq!(os::reap(fs::read_to_string(&pid_file).unwrap().parse().unwrap()), Some(8));
}

fn exec_process_file_with_a_terminal(t: &Test) {
    t.differs(Kind::Crun, "1.8.1 heeds no consoleSize there");
    let c = t.create(t.bundle().payload(&["sleep"]));
    c.start();
    c.line();
    let (listener, path) = socket(t);
    let process = json!({"terminal": true, "consoleSize": {"height": 12, "width": 34}, "args": ["/bin/payload", "tty"], "cwd": "/", "env": ["PATH=/bin"]});
    fs::write(t.dir().join("process.json"), process.to_string()).unwrap();
    let flags = ["exec", "--detach", "--pid-file", "exec.pid", "--process", "process.json", "--console-socket", &path];
    t.call(&flags).args(&[&c.id]).ok();
    let mut lines = Lines::new(master(&listener));
    let seen = object(&mut lines);
    assert_eq!((&seen["tty"]["0"]["height"], &seen["tty"]["0"]["width"]), (&json!(12), &json!(34)));
    assert_eq!(os::reap(fs::read_to_string(t.dir().join("exec.pid")).unwrap().parse().unwrap()), Some(0));
}

fn a_hang_up_ends_the_session(t: &Test) {
    let (listener, path) = socket(t);
    // Init of a pid namespace gets no SIGHUP that it has no handler for.
    let mut b = bundle(t, &["sleep"]);
    b.without_namespace("pid");
    let c = t.create_with(&b, &["--console-socket", &path], |call| call);
    let mut lines = Lines::new(master(&listener));
    c.start();
    object(&mut lines);
    drop(lines);
    assert_eq!(c.wait(), 129);
}

fn without_a_socket_it_is_refused(t: &Test) {
    let b = bundle(t, &["sleep"]);
    t.create_fails(&b, &["--console-socket"]);
    b.write();
    t.call(&["run", "--detach", "--bundle", b.path(), &t.new_id()]).out().fails(&["--console-socket"]);
}

fn a_socket_without_a_terminal_is_refused(t: &Test) {
    t.differs(Kind::Crun, "it leaves the socket aside");
    let (_listener, path) = socket(t);
    let mut b = t.bundle();
    b.payload(&["sleep"]).write();
    t.call(&["create", "--console-socket", &path, "--bundle", b.path(), &t.new_id()]).out().fails(&["/process/terminal"]);
    assert_eq!(t.left(), Vec::<String>::new());
}

fn a_socket_nobody_listens_on(t: &Test) {
    let b = bundle(t, &["sleep"]);
    b.write();
    let path = t.dir().join("nobody");
    let call = |path: &str| t.call(&["create", "--console-socket", path, "--bundle", b.path(), &t.new_id()]).out();
    call(&path.display().to_string()).fails(&["nobody"]);
    fs::write(&path, "").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    call(&path.display().to_string()).fails(&["nobody"]);
    assert_eq!(t.left(), Vec::<String>::new());
}
