//! System calls, counted in a pass of its own under strace(1): nothing here is timed.

use crate::lab::Lab;
use crate::meter::{Meter, Step, Taken};
use crate::peers::Peer;
use crate::probes::{Probe, Work, perform};
use anyhow::{Context, Result, ensure};
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

/// Whether strace is there and may trace.
pub fn available() -> bool {
    let run = Command::new("strace").args(["-qq", "-o", "/dev/null", "true"]).stderr(Stdio::null()).status();
    run.is_ok_and(|status| status.success())
}

/// For each row of the probe, the system calls of the command and of every process that it started.
pub fn count(lab: &Lab, peer: &Peer, probe: &Probe) -> Result<Vec<u64>> {
    let dir = lab.path("trace");
    let prefix = ["strace", "-ff", "-qq", "-s0", "-esignal=none", "-o", &lab.word("trace/t"), "--"];
    let mut meter = Meter::start(&prefix.map(str::to_owned), &lab.path("stderr"))?;
    let steps = probe.steps(peer, lab);
    let taken = perform(&mut meter, lab, &steps, 0)?;
    drop(meter);
    let runs: Vec<&Taken> =
        steps.iter().zip(&taken).filter(|(step, _)| matches!(step, Step::Run(_))).map(|(_, taken)| taken).collect();
    ensure!(runs.is_sorted_by_key(|taken| taken.pid), "process IDs began again from 1 meanwhile: once more, please");
    let mut calls = vec![0; runs.len()];
    for entry in fs::read_dir(&dir)? {
        let path = entry?.path();
        let pid: i32 = path.extension().and_then(|end| end.to_str()).context("a trace without a pid")?.parse()?;
        // A process belongs to the last command spawned before it; what came before the first one is the meter.
        if let Some(owner) = runs.iter().rposition(|taken| taken.pid <= pid) {
            let lines = BufReader::new(fs::File::open(&path)?).lines().map_while(Result::ok);
            // what the command does itself begins with its execve; before that it is the spawning of it
            let spawned = runs[owner].pid == pid;
            let own = lines.skip_while(|line| spawned && !line.starts_with("execve("));
            calls[owner] += own.filter(|line| !line.starts_with(['+', '-'])).count() as u64;
        }
        fs::remove_file(path)?;
    }
    if probe.work == Work::Lifecycle {
        calls.push(calls.iter().sum());
    }
    Ok(calls)
}
