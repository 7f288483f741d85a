//! `make bench`: brig beside crun, runc and the floor program, in strict alternation in one run.
//!
//! Each round does every piece of work once with every program, and the next round begins with the next program, so that
//! whatever else the machine does meets all of them alike. Only ratios within one run mean something. See the modules for
//! what is measured ([`probes`]), by whom ([`meter`]), and where ([`lab`]).

mod filter;
mod lab;
mod meter;
mod peers;
mod probes;
mod report;
mod sandbox;
mod sys;
mod trace;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use lab::Lab;
use meter::Meter;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use peers::Peer;
use probes::Probe;
use report::{Cell, Setting, Table};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Measures brig beside crun, runc and the least that the kernel has to do.
#[derive(Parser)]
#[command(after_help = "\
Environment:
  BRIG, CRUN, RUNC  paths of the runtimes (default: the release build; crun and runc of the PATH)
  BENCH_PEERS       more runtimes, paths separated by commas
  BUSYBOX           a static busybox (default: /bin/busybox)
  CC                the C compiler for the floor program (default: cc)")]
struct Options {
    /// About a minute instead of four
    #[arg(long)]
    quick: bool,
    /// Rounds of the back-to-back rows
    #[arg(long, value_name = "N")]
    rounds: Option<usize>,
    /// Rounds of the rows that idle before each start
    #[arg(long, value_name = "N")]
    spaced: Option<usize>,
    /// Only the rows whose key contains TEXT, such as "podman/run" or "exec"
    #[arg(long, value_name = "TEXT", default_value = "")]
    only: String,
    /// Where the figures go as JSON
    #[arg(long, value_name = "FILE", default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/target/bench.json"))]
    json: PathBuf,
}

/// What a run of the benchmark needs everywhere.
struct Bench {
    meter: Meter,
    interrupts: SignalFd,
    peers: Vec<Peer>,
    lab: Lab, // last, so that all that works in it ends before it
}

fn main() -> ExitCode {
    match bench() {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            eprintln!("bench: {err:#}");
            ExitCode::FAILURE
        }
    }
}

fn bench() -> Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    if arguments.get(1).is_some_and(|word| word == meter::ARGUMENT) {
        return meter::serve(Path::new(arguments.get(2).context("the meter needs a file for stderr")?));
    }
    let options = Options::parse();
    let mut signals = SigSet::empty();
    signals.extend([Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]);
    signals.thread_block()?;
    let interrupts = SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
    let lab = Lab::new()?;
    let meter = Meter::start(&[], &lab.path("stderr"))?;
    let mut bench = Bench { meter, interrupts, peers: peers::find(&lab)?, lab };
    let result = bench.run(&options);
    let cleaned = bench.clean_up();
    result.and(cleaned)
}

impl Bench {
    fn run(&mut self, options: &Options) -> Result<()> {
        let rounds = options.rounds.unwrap_or(if options.quick { 30 } else { 120 });
        let spaced = options.spaced.unwrap_or(if options.quick { 20 } else { 60 });
        let mut reference = None;
        for peer in &mut self.peers {
            let proofs = probes::prepare(&mut self.meter, &self.lab, peer).with_context(|| peer.name.clone())?;
            match &reference {
                None => reference = Some(proofs), // the floor's
                Some(floor) => peer.differences = probes::compare(floor, &proofs),
            }
            for difference in &peer.differences {
                eprintln!("bench: {} makes another container than the floor: {difference}", peer.name);
            }
        }
        let wanted = |probe: &Probe| probe.rows().iter().any(|row| row.key.contains(&options.only));
        let plain: Vec<Probe> = probes::all().into_iter().filter(wanted).collect();
        let idle: Vec<Probe> = probes::spaced().into_iter().filter(wanted).collect();
        ensure!(
            !plain.is_empty() || !idle.is_empty() || options.only == "sandbox",
            "no row's key contains {:?}",
            options.only
        );
        let mut table = self.race(&plain, rounds)?;
        if plain.is_empty() {
            // nothing to count
        } else if trace::available() {
            self.count(&plain, &mut table)?;
        } else {
            eprintln!("bench: SKIPPED counting system calls: strace is not there or may not trace");
        }
        let after_idling = self.race(&idle, spaced)?;
        table.rows.extend(after_idling.rows);
        table.cells.extend(after_idling.cells);

        let meter_kib = self.meter.peak_kib()?;
        let setting = Setting { rounds, spaced, meter_kib, without_v2: self.lab.without_v2 };
        print!("{}", report::markdown(&table, &self.peers, &setting));
        if let Some(brig) = self.peers.iter().find(|peer| peer.name == "brig")
            && "sandbox".contains(&options.only)
        {
            let path = brig.path.clone();
            print!("{}", sandbox::race(&mut self.meter, &self.lab, &path, rounds)?);
        }
        let json = serde_json::to_string(&report::json(&table, &self.peers, &setting))?;
        std::fs::write(&options.json, json).with_context(|| format!("write {}", options.json.display()))?;
        eprintln!("bench: every sample is in {}", options.json.display());
        Ok(())
    }

    /// The rounds, after one that is not counted.
    fn race(&mut self, probes: &[Probe], rounds: usize) -> Result<Table> {
        let rows: Vec<_> = probes.iter().flat_map(Probe::rows).collect();
        let mut cells = vec![vec![Cell::default(); self.peers.len()]; rows.len()];
        for round in 0..=rounds {
            let mut row = 0;
            for probe in probes {
                for turn in 0..self.peers.len() {
                    let number = (round + turn) % self.peers.len();
                    let peer = &self.peers[number];
                    if !probe.suits(peer) || rounds == 0 {
                        continue;
                    }
                    ensure!(self.interrupts.read_signal()?.is_none(), "interrupted");
                    let steps = probe.steps(peer, &self.lab);
                    let taken = probes::perform(&mut self.meter, &self.lab, &steps, 0)
                        .with_context(|| format!("{}, round {round}", peer.name))?;
                    for (offset, sample) in probe.samples(&taken).into_iter().enumerate().filter(|_| round > 0) {
                        cells[row + offset][number].samples.push(sample);
                    }
                }
                row += probe.rows().len();
            }
            if round % 20 == 0 && rounds > 0 && !probes.is_empty() {
                eprintln!(
                    "bench: round {round} of {rounds}{}",
                    if probes[0].idle > 0 { ", with idle times" } else { "" }
                );
            }
        }
        Ok(Table { rows, cells })
    }

    fn count(&mut self, probes: &[Probe], table: &mut Table) -> Result<()> {
        eprintln!("bench: counting system calls");
        for (number, peer) in self.peers.iter().enumerate() {
            let mut row = 0;
            for probe in probes {
                ensure!(self.interrupts.read_signal()?.is_none(), "interrupted");
                if probe.suits(peer) {
                    let calls = trace::count(&self.lab, peer, probe).with_context(|| format!("trace {}", peer.name))?;
                    for (offset, calls) in calls.into_iter().enumerate() {
                        table.cells[row + offset][number].calls = Some(calls);
                    }
                }
                row += probe.rows().len();
            }
        }
        Ok(())
    }

    fn clean_up(mut self) -> Result<()> {
        for peer in &self.peers {
            probes::clean_up(&mut self.meter, &self.lab, peer)?;
        }
        Ok(())
    }
}
