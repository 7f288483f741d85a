//! `brig sandbox run true` beside bubblewrap with the same namespaces and private directories, and from the pool.

use crate::lab::Lab;
use crate::meter::{Meter, Step};
use anyhow::{Context, Result, ensure};
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

/// What is measured: a name, and the command.
fn commands(brig: &str) -> Vec<(&'static str, Vec<String>)> {
    let words = |list: &[&str]| list.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let bwrap = "bwrap --unshare-all --die-with-parent --ro-bind / / --proc /proc --dev /dev --tmpfs /tmp --tmpfs /var/tmp \
                 --tmpfs /run --chdir / -- /bin/true";
    let same = [brig, "sandbox", "run", "--ro", "--cwd", "/", "--memory", "none", "--pids", "none", "--", "/bin/true"];
    vec![
        ("bwrap", bwrap.split_whitespace().map(str::to_owned).collect()),
        ("brig, the same walls and seccomp, Landlock, hidden secrets", words(&same)),
        (
            "brig, as it comes: limits by cgroup, an overlay, a control socket too",
            words(&[brig, "sandbox", "run", "--", "/bin/true"]),
        ),
    ]
}

/// A table of medians in milliseconds, and ratios to bwrap; nothing where bwrap is not installed.
///
/// # Errors
/// A command that fails.
pub fn race(meter: &mut Meter, lab: &Lab, brig: &str, rounds: usize) -> Result<String> {
    if std::process::Command::new("bwrap").arg("--version").output().is_err() {
        eprintln!("bench: SKIPPED the sandbox: bwrap is not there; install bubblewrap");
        return Ok(String::new());
    }
    let commands = commands(brig);
    let mut times = vec![Vec::new(); commands.len()];
    for round in 0..=rounds {
        for turn in 0..commands.len() {
            let number = (round + turn) % commands.len();
            let (name, words) = &commands[number];
            let taken = meter.perform(&[Step::run(words)]).with_context(|| (*name).to_owned())?;
            let one = taken.first().context("the meter said nothing")?;
            ensure!(one.usage.status == 0, "{name} ended with {}", one.usage.status);
            if round > 0 {
                times[number].push(one.end - one.begin);
            }
        }
    }
    let mut text = String::from(
        "\n| sandbox, run true: ms | p10 | median | p90 | ratio to bwrap |\n| --- | ---: | ---: | ---: | ---: |\n",
    );
    times.iter_mut().for_each(|list| list.sort_unstable());
    let at = |list: &[u64], percent: usize| list[(list.len() * percent / 100).min(list.len() - 1)] as f64 / 1e6;
    let base = at(&times[0], 50);
    let mut pool = from_the_pool(meter, lab, brig, rounds)?;
    pool.sort_unstable();
    times.push(pool);
    let names = commands.iter().map(|(name, _)| *name).chain(["brig, from the pool: request to report"]);
    for (name, list) in names.zip(&times) {
        let (p10, p50, p90) = (at(list, 10), at(list, 50), at(list, 90));
        let _ = writeln!(text, "| {name} | {p10:.2} | {p50:.2} | {p90:.2} | {:.2} |", p50 / base);
    }
    Ok(text)
}

/// A server that ends with this value.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let pid = nix::unistd::Pid::from_raw(self.0.id() as i32);
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let _ = self.0.wait();
    }
}

/// Nanoseconds from request to report, one request at a time; between them the pool has time to prepare the next sandbox.
fn from_the_pool(meter: &mut Meter, lab: &Lab, brig: &str, rounds: usize) -> Result<Vec<u64>> {
    let socket = lab.word("pool.sock");
    let mut server = Server(
        Command::new(brig)
            .args(["sandbox", "serve", "--pool", "4", "--socket", &socket])
            .stdout(Stdio::piped())
            .spawn()
            .context("start the server")?,
    );
    let mut said = String::new();
    let out = server.0.stdout.take().context("no output")?;
    BufReader::new(out).read_line(&mut said)?;
    ensure!(said.contains("listening"), "the server says {said:?}");
    let stream = UnixStream::connect(&socket).context("connect to the server")?;
    let mut answers = BufReader::new(stream.try_clone()?);
    let mut times = Vec::new();
    for round in 0..=rounds {
        meter.perform(&[Step::Idle(30)])?;
        let begin = Instant::now();
        (&stream).write_all(b"{\"command\": [\"/bin/true\"]}\n")?;
        let mut answer = String::new();
        answers.read_line(&mut answer)?;
        ensure!(answer.contains("\"status\":0"), "the server answers {answer:?}");
        if round > 0 {
            times.push(begin.elapsed().as_nanos() as u64);
        }
    }
    Ok(times)
}
