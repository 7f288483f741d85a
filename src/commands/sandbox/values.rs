//! What the flags of a policy take as values.

use crate::sandbox::policy::Bind;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use serde::de::DeserializeOwned;
use std::path::Path;
use std::str::FromStr;

/// A limit, or `none`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limit<T>(pub Option<T>);

/// Reads a limit by what reads its amount.
pub fn limit<T: FromStr<Err = String>>(text: &str) -> Result<Limit<T>, String> {
    if text == "none" { Ok(Limit(None)) } else { text.parse().map(|amount| Limit(Some(amount))) }
}

/// Reads a limit that is a count.
pub fn count(text: &str) -> Result<Limit<u64>, String> {
    match text {
        "none" => Ok(Limit(None)),
        _ => {
            text.parse().map(|n| Limit(Some(n))).map_err(|_| format!("{text:?} is no whole number; give one, or none"))
        }
    }
}

/// Reads a number of CPUs as percent of one.
pub fn cpus(text: &str) -> Result<Limit<f64>, String> {
    match text.parse::<f64>() {
        _ if text == "none" => Ok(Limit(None)),
        Ok(n) if (n * 100.0).is_finite() && n > 0.0 => Ok(Limit(Some(n * 100.0))),
        _ => Err(format!("{text:?} is no number of CPUs; give one such as 1.5, or none")),
    }
}

/// Reads `QUOTA[:PERIOD]` in microseconds; the kernel's usual period is 100000.
pub fn quota(text: &str) -> Result<Limit<(u64, u64)>, String> {
    let (quota, period) = text.split_once(':').unwrap_or((text, "100000"));
    match (quota.parse(), period.parse()) {
        _ if text == "none" => Ok(Limit(None)),
        (Ok(quota), Ok(period)) => Ok(Limit(Some((quota, period)))),
        _ => Err(format!("{text:?} is no quota; give microseconds in a period, such as 50000:100000, or none")),
    }
}

/// A user and perhaps a group by their numbers.
pub fn user(text: &str) -> Result<(u32, Option<u32>), String> {
    let wrong = |_| format!("{text:?} is no user; give numbers: UID or UID:GID");
    match text.split_once(':') {
        Some((uid, gid)) => Ok((uid.parse().map_err(wrong)?, Some(gid.parse().map_err(wrong)?))),
        None => Ok((text.parse().map_err(wrong)?, None)),
    }
}

/// `SRC[:DST][:ro|rw]`; the paths of the host and of the view, and whether it may be written.
pub fn bind(text: &str) -> Result<Bind, String> {
    let wrong = || {
        let form = "SRC, SRC:DST, SRC:ro or SRC:DST:rw; a path with a colon in it goes into a policy file";
        format!("{text:?} is no bind; give {form}")
    };
    let mut parts: Vec<_> = text.split(':').collect();
    let write = match parts.last() {
        Some(&"rw") if parts.len() > 1 => parts.pop().is_some(),
        Some(&"ro") if parts.len() > 1 => parts.pop().is_none(),
        _ => false,
    };
    let (source, target) = match parts[..] {
        [source] => (source, None),
        [source, target] => (source, Some(target)),
        _ => return Err(wrong()),
    };
    if source.is_empty() || target.is_some_and(|target| !Path::new(target).is_absolute()) {
        return Err(wrong());
    }
    Ok(Bind { source: source.into(), target: target.map(Into::into), write })
}

/// `NAME[=VALUE]`: the value is taken from brig's own environment if it is left out.
pub fn variable(text: &str) -> Result<(String, String), String> {
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name, value.to_owned()),
        None if text.is_empty() => (text, String::new()),
        None => match std::env::var(text) {
            Ok(value) => (text, value),
            Err(e) => return Err(format!("{text} has no value to take over ({e}); give {text}=VALUE")),
        },
    };
    if name.is_empty() { Err("no name; give NAME or NAME=VALUE".into()) } else { Ok((name.to_owned(), value)) }
}

/// `[PROGRAM=]PATTERN`; for every program without.
pub fn ignored(text: &str) -> Result<(String, String), String> {
    let (program, pattern) = text.split_once('=').unwrap_or(("*", text));
    if program.is_empty() || pattern.is_empty() {
        return Err(format!("{text:?} lacks a part; give PATTERN, or PROGRAM=PATTERN"));
    }
    Ok((program.to_owned(), pattern.to_owned()))
}

/// One of the words by which a policy file names the values of a type.
pub fn word<T: DeserializeOwned + Clone + Send + Sync + 'static>(
    words: &'static [&'static str],
) -> impl TypedValueParser<Value = T> {
    let known: PossibleValuesParser = words.into();
    known.try_map(|text| {
        // A flag's words have dashes.
        let file = text.replace('-', "_");
        let read = |text: &str| serde_json::from_value::<T>(text.into());
        read(&text).or_else(|_| read(&file))
    })
}

/// A system call's name: what it is not is told before it is looked up.
pub fn call(text: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    if !text.is_empty() && text.chars().all(fits) {
        Ok(text.to_owned())
    } else {
        Err(format!("{text:?} is no system call's name, such as io_uring_setup; give one, and the flag again for more"))
    }
}
