//! The meter: a small process that starts the measured programs and holds the clock.
//!
//! It is a process of its own for three reasons. A child's peak memory, as wait4(2) tells it, begins at that of the process
//! that spawned it, so the spawner has to be smaller than all it measures. Containers outlive the `create` that made them:
//! the meter, as their subreaper, can wait for their end like conmon does, instead of asking for it again and again. And it
//! can be put under strace without the rest of the benchmark.
//!
//! Requests come as lines, one step each with its fields separated by tabs, ended by an empty line; then the steps are
//! done, nothing else between them, and answered by one line each and an empty line.

use crate::sys::{Usage, wait4};
use anyhow::{Context, Result, bail};
use std::fmt;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

/// The argument that makes this program the meter.
pub const ARGUMENT: &str = "--meter";

/// One thing for the meter to do.
pub enum Step {
    /// Sleep for so many milliseconds.
    Idle(u64),
    /// Spawn a program and wait for its end.
    Run(Vec<String>),
    /// Wait for the end of the orphan whose pid this file holds.
    Reap(String),
}

/// What a step took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Taken {
    /// The program's pid.
    pub pid: i32,
    /// Begin and end, in nanoseconds since the meter's start.
    pub begin: u64,
    /// See `begin`.
    pub end: u64,
    /// What the process cost; nothing for `Idle`.
    pub usage: Usage,
}

/// The meter's process: does what standard input asks for until it ends. `stderr` of the measured programs goes to the file
/// named on the command line.
pub fn serve(stderr: &Path) -> Result<()> {
    nix::sys::prctl::set_child_subreaper(true)?;
    let clock = Instant::now();
    let stderr = File::options().append(true).create(true).open(stderr)?;
    let mut input = std::io::stdin().lock();
    let mut output = std::io::stdout().lock();
    let mut steps = Vec::new();
    let mut line = String::new();
    while input.read_line(&mut line)? > 0 {
        if line == "\n" {
            for step in steps.drain(..) {
                let taken = perform(step, &clock, &stderr)?;
                let Usage { status, peak_kib, faults } = taken.usage;
                writeln!(output, "{} {} {} {status} {peak_kib} {faults}", taken.pid, taken.begin, taken.end)?;
            }
            writeln!(output)?;
            while wait4(-1, false).is_some() {}
        } else {
            steps.push(Step::parse(line.trim_end_matches('\n'))?);
        }
        line.clear();
    }
    Ok(())
}

#[allow(clippy::disallowed_methods, reason = "an idle time is what is asked for")]
fn perform(step: Step, clock: &Instant, stderr: &File) -> Result<Taken> {
    let now = || clock.elapsed().as_nanos() as u64;
    match step {
        Step::Idle(milliseconds) => {
            std::thread::sleep(Duration::from_millis(milliseconds));
            Ok(Taken { begin: now(), end: now(), ..Taken::default() })
        }
        Step::Run(argv) => {
            let mut command = Command::new(&argv[0]);
            command.args(&argv[1..]).env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr.try_clone()?);
            let begin = now();
            let pid = command.spawn().with_context(|| format!("start {}", argv[0]))?.id() as i32;
            let usage = wait4(pid, true).context("a spawned process is not a child")?;
            Ok(Taken { pid, begin, end: now(), usage })
        }
        Step::Reap(file) => {
            let begin = now();
            let pid = std::fs::read_to_string(&file).with_context(|| format!("read {file}"))?.trim().parse()?;
            let usage = wait4(pid, true).with_context(|| format!("the container's process {pid} is not a child"))?;
            Ok(Taken { pid, begin, end: now(), usage })
        }
    }
}

impl Step {
    /// A program's run.
    pub fn run<S: AsRef<str>>(argv: &[S]) -> Step {
        Step::Run(argv.iter().map(|word| word.as_ref().to_owned()).collect())
    }

    fn parse(line: &str) -> Result<Step> {
        let (kind, rest) = line.split_once('\t').context("a step without arguments")?;
        Ok(match kind {
            "idle" => Step::Idle(rest.parse()?),
            "run" => Step::Run(rest.split('\t').map(str::to_owned).collect()),
            "reap" => Step::Reap(rest.to_owned()),
            _ => bail!("unknown step {kind:?}"),
        })
    }

    fn line(&self) -> String {
        match self {
            Step::Idle(milliseconds) => format!("idle\t{milliseconds}\n"),
            Step::Run(argv) => format!("run\t{}\n", argv.join("\t")),
            Step::Reap(file) => format!("reap\t{file}\n"),
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.line().trim_end().replace('\t', " "))
    }
}

/// The benchmark's end of a meter.
pub struct Meter {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Meter {
    /// Starts a meter behind `prefix` (empty, or the words of a tracer), whose programs write their stderr to `stderr`.
    pub fn start(prefix: &[String], stderr: &Path) -> Result<Meter> {
        let own = std::env::current_exe()?;
        let mut words = prefix.iter().map(|word| word.as_ref()).chain([own.as_os_str()]);
        let mut child = Command::new(words.next().expect("own path at least"))
            .args(words)
            .arg(ARGUMENT)
            .arg(stderr)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0) // an interrupt from the terminal is the benchmark's to handle
            .spawn()
            .context("start the meter")?;
        let (input, output) = (child.stdin.take(), child.stdout.take().expect("piped"));
        Ok(Meter { child, input, output: BufReader::new(output) })
    }

    /// Has the steps done in one go.
    pub fn perform(&mut self, steps: &[Step]) -> Result<Vec<Taken>> {
        let request: String = steps.iter().map(Step::line).chain(["\n".to_owned()]).collect();
        self.input.as_mut().expect("open until finish").write_all(request.as_bytes()).context("ask the meter")?;
        let mut taken = Vec::with_capacity(steps.len());
        loop {
            let mut line = String::new();
            if self.output.read_line(&mut line)? == 0 {
                bail!("the meter ended early");
            }
            if line == "\n" {
                return Ok(taken);
            }
            let numbers: Vec<i64> = line.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
            let [pid, begin, end, status, peak_kib, faults] = numbers[..] else { bail!("the meter said {line:?}") };
            let usage = Usage { status: status as i32, peak_kib, faults };
            taken.push(Taken { pid: pid as i32, begin: begin as u64, end: end as u64, usage });
        }
    }

    /// The largest resident set of the meter itself so far, in KiB.
    pub fn peak_kib(&self) -> Result<i64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM in status")?;
        Ok(line.trim_end_matches("kB").trim().parse()?)
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.input = None;
        let _ = self.child.wait();
    }
}
