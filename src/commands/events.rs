//! `brig events`.

use super::{Context, flag_error, log::Level, print};
use crate::engine::events;
use crate::error::{Context as _, Result};
use std::io::{ErrorKind, Write};
use std::os::fd::AsFd;
use std::time::Duration;

/// Print what a container uses and when it runs out of memory, as lines of JSON, until it ends
///
/// A line of type "stats" comes at every interval, one of type "oom" whenever the OOM killer was called in the container.
#[derive(Debug, clap::Args)]
pub struct Events {
    /// Time between two lines of statistics, such as 500ms, 5s or 1m30s
    #[arg(long, value_name = "DURATION", default_value = "5s", allow_hyphen_values = true)]
    interval: String,
    /// Print what it uses now, once
    #[arg(long)]
    stats: bool,
    /// The container
    pub id: String,
}

impl Events {
    pub(super) fn run(&self, context: &Context) -> Result<()> {
        let interval = duration(&self.interval).map_err(|what| flag_error("--interval", what))?;
        let watched = events::find(&context.store, &self.id)?;
        if self.stats {
            return print(&watched.stats()?);
        }
        let stdout = std::io::stdout();
        let warn = |error: &crate::error::Error| context.log.write(Level::Warn, &error.to_string());
        watched.follow(interval, stdout.as_fd(), warn, &mut |line| {
            let mut out = stdout.lock();
            match out.write_all(line.as_bytes()).and_then(|()| out.flush()) {
                Err(e) if e.kind() == ErrorKind::BrokenPipe => Ok(false),
                other => other.during(|| "write to the standard output".into()).map(|()| true),
            }
        })
    }
}

/// The units of a duration, in nanoseconds. The longer names first where one begins with another.
const UNITS: [(&str, f64); 8] =
    [("ns", 1.0), ("us", 1e3), ("µs", 1e3), ("μs", 1e3), ("ms", 1e6), ("s", 1e9), ("m", 6e10), ("h", 3.6e12)];

/// A duration as Go's time.ParseDuration reads it: numbers with units (`1h2m3.5s`).
fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no duration; write it as 500ms, 5s or 1m30s");
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let mut rest = unsigned;
    let mut nanoseconds = 0.0;
    while !rest.is_empty() && rest != "0" {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
        let number: f64 = rest[..digits].parse().map_err(|_| wrong())?;
        let after = &rest[digits..];
        let (unit, factor) = UNITS.iter().find(|(unit, _)| after.starts_with(unit)).ok_or_else(wrong)?;
        nanoseconds += number * factor;
        rest = &after[unit.len()..];
        if rest == "0" {
            return Err(wrong());
        }
    }
    if unsigned.is_empty() {
        return Err(wrong());
    }
    // Go's durations end there, at 292 years.
    if nanoseconds >= i64::MAX as f64 {
        return Err(format!("{text} is too long"));
    }
    if text.starts_with('-') || nanoseconds < 1.0 {
        return Err(format!("{text} must be greater than 0"));
    }
    Ok(Duration::from_nanos(nanoseconds.round() as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, milliseconds) in [
            ("5s", 5000),
            ("500ms", 500),
            ("1m30s", 90_000),
            ("1h", 3_600_000),
            ("+1.5s", 1500),
            ("2000us", 2),
            ("2000µs", 2),
            (".5s", 500),
            ("1000000ns", 1),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        for wrong in ["", "5", "s", "5x", "5s5", "1s0", "5 s", "1e3s", "1..5s", "-", "+"] {
            assert!(duration(wrong).unwrap_err().contains("no duration"), "{wrong}");
        }
        for none in ["0", "0s", "-5s", "0.1ns", "-0"] {
            assert!(duration(none).unwrap_err().contains("greater than 0"), "{none}");
        }
        assert!(duration("9999999h").unwrap_err().contains("too long"));
    }
}
