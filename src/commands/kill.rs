//! `brig kill`.

use super::{Context, flag_error};
use crate::engine::container;
use crate::error::{Error, Result};
use std::str::FromStr;

/// Send a signal to a container's first process
#[derive(Debug, clap::Args)]
pub struct Kill {
    /// Signal every process of the container
    #[arg(short, long)]
    all: bool,
    /// Take ID as a regular expression, and signal all containers that it matches
    #[arg(long)]
    regex: bool,
    /// The container
    pub id: String,
    /// The signal: a number, or a name with or without SIG
    #[arg(default_value = "SIGTERM")]
    signal: String,
}

impl Kill {
    pub(super) fn run(&self, context: &Context) -> Result<()> {
        let signal = parse_signal(&self.signal)?;
        for_ids(context, &self.id, self.regex, |id| container::kill(&context.store, id, signal, self.all))
    }
}

/// Does something to one container, or to all whose IDs match; goes on after a failure and tells the first.
pub(super) fn for_ids(context: &Context, id: &str, regex: bool, each: impl Fn(&str) -> Result<()>) -> Result<()> {
    if !regex {
        return each(id);
    }
    let pattern = regex_lite::Regex::new(id).map_err(|e| flag_error("--regex", e))?;
    let mut result = Ok(());
    for id in context.store.ids()?.iter().filter(|id| pattern.is_match(id)) {
        let one = each(id).map_err(|e| e.context(id.as_str()));
        if result.is_ok() {
            result = one;
        }
    }
    result
}

/// A signal by number or name; real-time signals as `RTMIN+1`.
fn parse_signal(text: &str) -> Result<i32> {
    let wrong = || {
        Error::invalid(format!("unknown signal {text:?}: use a number from 0 to 64, or a name such as TERM or SIGTERM"))
    };
    if let Ok(number) = text.parse::<i32>() {
        return if (0..=64).contains(&number) { Ok(number) } else { Err(wrong()) };
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    // 34 and 64 are what programs see as the first and last: glibc keeps 32 and 33 to itself.
    for (prefix, base, sign) in [("RTMIN", 34, 1), ("RTMAX", 64, -1)] {
        if let Some(rest) = name.strip_prefix(prefix) {
            let offset = rest.trim_start_matches(['+', '-']);
            let offset: i32 = if rest.is_empty() { 0 } else { offset.parse().map_err(|_| wrong())? };
            return Some(base + sign * offset).filter(|n| (34..=64).contains(n)).ok_or_else(wrong);
        }
    }
    let name = match name {
        "POLL" => "IO",
        "CLD" => "CHLD",
        "IOT" => "ABRT",
        other => other,
    };
    nix::sys::signal::Signal::from_str(&format!("SIG{name}")).map(|signal| signal as i32).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::parse_signal;

    #[test]
    fn signals_in_every_writing() {
        let cases = [
            ("9", 9),
            ("TERM", 15),
            ("SIGTERM", 15),
            ("sigkill", 9),
            ("RTMIN", 34),
            ("SIGRTMIN+3", 37),
            ("RTMAX-1", 63),
            ("0", 0),
            ("POLL", 29),
        ];
        for (text, number) in cases {
            assert_eq!(parse_signal(text).unwrap(), number, "{text}");
        }
        for wrong in ["", "65", "-1", "SIG", "FOO", "RTMIN+40", "RTMINx"] {
            assert!(parse_signal(wrong).is_err(), "{wrong}");
        }
    }
}
