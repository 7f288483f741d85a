//! Signals by the names that people and engines give them.

use crate::error::{Error, Result};
use std::str::FromStr;

/// A signal by number or name, with or without `SIG`; real-time signals as `RTMIN+1`.
///
/// # Errors
/// What would be right.
pub fn parse_signal(text: &str) -> Result<i32> {
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
