//! `brig sandbox run true` beside bubblewrap with the same namespaces and private directories.

use crate::meter::{Meter, Step};
use anyhow::{Context, Result, ensure};
use std::fmt::Write;

/// What is measured: a name, and the command.
fn commands(brig: &str) -> Vec<(&'static str, Vec<String>)> {
    let words = |list: &[&str]| list.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let bwrap = "bwrap --unshare-all --die-with-parent --ro-bind / / --proc /proc --dev /dev --tmpfs /tmp --tmpfs /var/tmp \
                 --tmpfs /run --chdir / -- /bin/true";
    let same = [
        brig,
        "sandbox",
        "run",
        "--quiet",
        "--ro",
        "--cwd",
        "/",
        "--memory",
        "none",
        "--pids",
        "none",
        "--",
        "/bin/true",
    ];
    vec![
        ("bwrap", bwrap.split_whitespace().map(str::to_owned).collect()),
        ("brig, the same walls and seccomp, Landlock, hidden secrets", words(&same)),
        (
            "brig, as it comes: limits by cgroup, an overlay, a control socket too",
            words(&[brig, "sandbox", "run", "--quiet", "--", "/bin/true"]),
        ),
    ]
}

/// A table of medians in milliseconds, and ratios to bwrap; nothing where bwrap is not installed.
///
/// # Errors
/// A command that fails.
pub fn race(meter: &mut Meter, brig: &str, rounds: usize) -> Result<String> {
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
    for ((name, _), list) in commands.iter().zip(&times) {
        let (p10, p50, p90) = (at(list, 10), at(list, 50), at(list, 90));
        let _ = writeln!(text, "| {name} | {p10:.2} | {p50:.2} | {p90:.2} | {:.2} |", p50 / base);
    }
    Ok(text)
}
