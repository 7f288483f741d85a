//! Real processes on real terminals; the caller's terminal is a pty, too.

use super::*;
use crate::prim::terminal::open_slave;
use crate::prim::terminal::tests::{ONE_AT_A_TIME, new_master, spawn};
use nix::pty::openpty;
use nix::sys::pthread::{Pthread, pthread_kill, pthread_self};
use nix::sys::signal::Signal;
use nix::sys::termios::{LocalFlags, tcgetattr};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write, pipe};
use std::sync::PoisonError;
use std::sync::mpsc::channel;
use std::thread::{JoinHandle, spawn as thread};

/// Attends a script on a terminal in a thread with signals blocked; gives the thread to send signals to and the script's process.
fn attended(script: &'static str, input: OwnedFd, output: OwnedFd) -> ((Pthread, i32), JoinHandle<Ended>) {
    let (sender, receiver) = channel();
    let handle = thread(move || {
        process::block_signals();
        let master = new_master();
        let slave = open_slave(master.as_fd(), None).unwrap();
        let relay = Relay::new(master, input.as_fd(), output.as_fd()).unwrap();
        let child = spawn(script, Some(slave.as_fd()));
        drop(slave);
        sender.send((pthread_self(), child.pid)).unwrap();
        attend(&child, Some(relay), false).unwrap()
    });
    (receiver.recv().unwrap(), handle)
}

fn line(reader: &mut impl BufRead) -> String {
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    line.trim_end().to_owned()
}

#[test]
fn all_output_arrives_and_the_status_is_the_childs() {
    let (mut reader, writer) = pipe().unwrap();
    let input = File::open("/dev/null").unwrap();
    let (_, handle) =
        attended("head -c 300000 /dev/zero | tr '\\0' x; echo; echo end; exit 7", input.into(), writer.into());
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(handle.join().unwrap(), Ended::Exited(7));
    assert_eq!(text.len(), 300_000 + "\nend\n".len());
    assert!(text.ends_with("x\nend\n"), "newlines are plain when the output is no terminal");
}

#[test]
fn keys_reach_the_container_raw_and_the_callers_terminal_is_restored() {
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let outer = openpty(None, None).unwrap();
    tty::set_size(outer.slave.as_fd(), (33, 77)).unwrap();
    let echoes = || tcgetattr(&outer.slave).unwrap().local_flags.contains(LocalFlags::ECHO);
    let (input, output) = (outer.slave.try_clone().unwrap(), outer.slave.try_clone().unwrap());
    let script =
        "trap 'echo got int; exit 5' INT; stty -echo; stty size; read a; echo read $a; while :; do read b; done";
    let (attendant, handle) = attended(script, input, output);
    let mut keyboard = File::from(outer.master.try_clone().unwrap());
    let mut screen = BufReader::new(File::from(outer.master.try_clone().unwrap()));
    assert_eq!(line(&mut screen), "33 77");
    assert!(!echoes(), "raw while the container runs");
    keyboard.write_all(b"hello\r").unwrap();
    assert_eq!(line(&mut screen), "read hello");
    tty::set_size(outer.slave.as_fd(), (44, 88)).unwrap();
    pthread_kill(attendant.0, Signal::SIGWINCH).unwrap();
    // Ctrl-C is a character here, and becomes a signal in the container's terminal.
    keyboard.write_all(&[3]).unwrap();
    assert_eq!(line(&mut screen), "got int");
    assert_eq!(handle.join().unwrap(), Ended::Exited(5));
    assert!(echoes(), "restored");
}

#[test]
fn a_new_size_reaches_the_container() {
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let outer = openpty(None, None).unwrap();
    tty::set_size(outer.slave.as_fd(), (10, 20)).unwrap();
    let (input, output) = (outer.slave.try_clone().unwrap(), outer.slave.try_clone().unwrap());
    let script = "stty -echo; trap 'stty size; exit 0' WINCH; echo ready; while :; do read a; done";
    let (attendant, handle) = attended(script, input, output);
    let mut screen = BufReader::new(File::from(outer.master.try_clone().unwrap()));
    assert_eq!(line(&mut screen), "ready");
    tty::set_size(outer.slave.as_fd(), (11, 22)).unwrap();
    pthread_kill(attendant.0, Signal::SIGWINCH).unwrap();
    assert_eq!(line(&mut screen), "11 22");
    assert_eq!(handle.join().unwrap(), Ended::Exited(0));
}

#[test]
fn the_end_of_piped_input_is_the_end_of_typed_input() {
    let (input, mut typed) = pipe().unwrap();
    let (reader, writer) = pipe().unwrap();
    typed.write_all(b"one\ntwo\n").unwrap();
    drop(typed);
    let (_, handle) = attended("stty -echo; echo ready; cat; echo done", input.into(), writer.into());
    let text = std::io::read_to_string(reader).unwrap();
    assert_eq!(handle.join().unwrap(), Ended::Exited(0));
    assert!(text.contains("one\ntwo\n") && text.ends_with("done\n"), "{text:?}");
}

#[test]
fn a_terminal_that_is_closed_and_opened_again_is_still_relayed() {
    let (reader, writer) = pipe().unwrap();
    let input = File::open("/dev/null").unwrap();
    let script =
        "t=$(tty); echo one; exec </dev/null >/dev/null 2>&1; sleep 0.2; echo two > $t; sleep 0.2; echo three > $t";
    let (_, handle) = attended(script, input.into(), writer.into());
    assert_eq!(std::io::read_to_string(reader).unwrap(), "one\ntwo\nthree\n");
    assert_eq!(handle.join().unwrap(), Ended::Exited(0));
}

#[test]
fn an_output_that_nobody_takes_does_not_block_the_container() {
    let (reader, writer) = pipe().unwrap();
    drop(reader);
    let input = File::open("/dev/null").unwrap();
    let (_, handle) = attended("head -c 1000000 /dev/zero; exit 3", input.into(), writer.into());
    assert_eq!(handle.join().unwrap(), Ended::Exited(3));
}

#[test]
fn others_on_the_terminal_do_not_hold_the_attendant() {
    let (reader, writer) = pipe().unwrap();
    let input = File::open("/dev/null").unwrap();
    let drain = thread(move || std::io::copy(&mut BufReader::new(reader), &mut std::io::sink()));
    // The background job ignores the hang-up and floods the terminal until it is gone.
    let (_, handle) = attended("trap '' HUP; yes & exit 4", input.into(), writer.into());
    assert_eq!(handle.join().unwrap(), Ended::Exited(4));
    drain.join().unwrap().unwrap();
}

#[test]
fn a_tired_user_can_leave_when_the_rest_is_not_taken() {
    // A pipe that is full and never read, but open.
    let (_reader, writer) = pipe().unwrap();
    let (input, stays_open) = pipe().unwrap();
    let (attendant, handle) = attended("head -c 200000 /dev/zero; exec sleep 1000", input.into(), writer.into());
    let pid = attendant.1;
    let child = process::pidfd_open(pid).unwrap();
    pthread_kill(attendant.0, Signal::SIGTERM).unwrap();
    poll(&mut [PollFd::new(child.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE).unwrap();
    pthread_kill(attendant.0, Signal::SIGTERM).unwrap();
    assert_eq!(handle.join().unwrap(), Ended::Signaled(15));
    drop(stays_open);
}

fn attended_plainly(script: &'static str) -> (Pthread, JoinHandle<Ended>, BufReader<std::io::PipeReader>) {
    let (reader, writer) = pipe().unwrap();
    let (sender, receiver) = channel();
    let handle = thread(move || {
        process::block_signals();
        let path = format!("/proc/{}/fd/{}", std::process::id(), std::os::fd::AsRawFd::as_raw_fd(&writer));
        let script = format!("exec > {path}; {script}");
        let child = spawn(&script, None);
        sender.send(pthread_self()).unwrap();
        let ended = attend(&child, None, false).unwrap();
        drop(writer);
        ended
    });
    (receiver.recv().unwrap(), handle, BufReader::new(reader))
}

#[test]
fn signals_are_forwarded_but_for_those_of_the_attendant() {
    let script = "for s in HUP USR1 TERM URG WINCH CHLD PIPE; do trap \"echo $s\" $s; done; \
         trap 'echo INT; kill -9 $!; exit 9' INT; echo ready; while :; do sleep 1000 & wait $!; kill -9 $!; done";
    let (attendant, handle, mut reader) = attended_plainly(script);
    assert_eq!(line(&mut reader), "ready");
    for signal in [Signal::SIGURG, Signal::SIGWINCH, Signal::SIGPIPE, Signal::SIGHUP] {
        pthread_kill(attendant, signal).unwrap();
    }
    // The shell's own children raise SIGCHLD in it.
    let mut next = || std::iter::repeat_with(|| line(&mut reader)).find(|line| line != "CHLD").unwrap();
    assert_eq!(next(), "HUP");
    for (signal, name) in [(Signal::SIGUSR1, "USR1"), (Signal::SIGTERM, "TERM"), (Signal::SIGINT, "INT")] {
        pthread_kill(attendant, signal).unwrap();
        assert_eq!(next(), name);
    }
    assert_eq!(handle.join().unwrap(), Ended::Exited(9));
}

#[test]
fn a_death_by_signal_is_told() {
    let (_, handle, _) = attended_plainly("kill -KILL $$");
    assert_eq!(handle.join().unwrap().status(), 137);
}

#[test]
fn orphans_are_reaped_but_the_process_last() {
    const HELPER: &str = "BRIG_TEST_REAPER";
    if std::env::var_os(HELPER).is_some() {
        // A process of its own, since it reaps whatever child it has; one of a single thread, which gets all signals.
        if let Some(helper) = process::clone3(0, None).unwrap() {
            assert_eq!(helper.wait(), Ok(Ended::Exited(0)));
            return;
        }
        process::block_signals();
        become_subreaper().unwrap();
        let child = spawn("(sleep 0.1 &); (sh -c 'exit 3' &); (sleep 0.2 &); sleep 0.4; exit 6", None);
        let right = attend(&child, None, true).unwrap() == Ended::Exited(6);
        // ECHILD: neither running ones nor zombies are left.
        let none_left = waitpid(None, Some(WaitPidFlag::WNOHANG)) == Err(Errno::ECHILD);
        process::exit_now(i32::from(!right) + 2 * i32::from(!none_left));
    }
    let name = "prim::terminal::attend::tests::orphans_are_reaped_but_the_process_last";
    let status = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--test-threads=1"])
        .env(HELPER, "1")
        .stdout(std::process::Stdio::null())
        .status();
    assert!(status.unwrap().success());
}
