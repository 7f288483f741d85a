//! Reading control files in the few formats that they have.

use super::{Psi, PsiLine};
use crate::error::{Context, Error, Kind, Result};
use std::collections::BTreeMap;
use std::fs;

/// The `key=value` fields of one line; `None` stands for `max`.
type Fields = Vec<(String, Option<u64>)>;

/// The files of one cgroup.
pub(super) struct Files<'a> {
    pub dir: &'a str,
}

impl Files<'_> {
    /// The whole text; `None` when this kernel or cgroup does not have the file, or has it turned off (PSI: `EOPNOTSUPP`).
    pub fn text(&self, file: &str) -> Result<Option<String>> {
        let path = format!("{}/{file}", self.dir);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text)),
            Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ENODEV | libc::EOPNOTSUPP)) => Ok(None),
            Err(e) => Err(e).during(|| format!("read {path}")),
        }
    }

    /// One number, where `max` is the highest of all.
    pub fn number(&self, file: &str) -> Result<Option<u64>> {
        let Some(text) = self.text(file)? else { return Ok(None) };
        number(text.trim()).map(Some).ok_or_else(|| self.broken(file, &text))
    }

    /// One number that may be negative.
    pub fn signed(&self, file: &str) -> Result<Option<i64>> {
        let Some(text) = self.text(file)? else { return Ok(None) };
        text.trim().parse().map(Some).map_err(|_| self.broken(file, &text))
    }

    /// `key value` lines.
    pub fn map(&self, file: &str) -> Result<BTreeMap<String, u64>> {
        let text = self.text(file)?.unwrap_or_default();
        let line = |line: &str| {
            let (key, value) = line.split_once(' ')?;
            Some((key.to_owned(), number(value.trim())?))
        };
        Ok(text.lines().filter_map(line).collect())
    }

    /// Numbers with blanks between.
    pub fn list(&self, file: &str) -> Result<Vec<u64>> {
        Ok(self.text(file)?.unwrap_or_default().split_whitespace().filter_map(number).collect())
    }

    /// A list of CPUs or memory nodes: `0-3,8`.
    pub fn set(&self, file: &str) -> Result<Vec<u16>> {
        let text = self.text(file)?.unwrap_or_default();
        set(text.trim()).ok_or_else(|| self.broken(file, &text))
    }

    /// A pressure file.
    pub fn psi(&self, file: &str) -> Result<Option<Psi>> {
        Ok(self.text(file)?.map(|text| psi(&text)))
    }

    /// `name key=value key=value` lines.
    pub fn keyed(&self, file: &str) -> Result<Vec<(String, Fields)>> {
        let text = self.text(file)?.unwrap_or_default();
        let pair = |field: &str| {
            let (key, value) = field.split_once('=')?;
            Some((key.to_owned(), value.parse().ok()))
        };
        let line = |line: &str| {
            let mut fields = line.split_whitespace();
            Some((fields.next()?.to_owned(), fields.filter_map(pair).collect()))
        };
        Ok(text.lines().filter_map(line).collect())
    }

    fn broken(&self, file: &str, text: &str) -> Error {
        Error::new(
            Kind::Other,
            format!("{}/{file} reads {:?}, which is no value that it can have", self.dir, text.trim()),
        )
    }
}

fn number(text: &str) -> Option<u64> {
    if text == "max" { Some(u64::MAX) } else { text.parse().ok() }
}

fn set(text: &str) -> Option<Vec<u16>> {
    let mut all = Vec::new();
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        all.extend(from.parse::<u16>().ok()?..=to.parse().ok()?);
    }
    Some(all)
}

fn psi(text: &str) -> Psi {
    let mut psi = Psi::default();
    for line in text.lines() {
        let mut fields = line.split_whitespace();
        let at = match fields.next() {
            Some("some") => &mut psi.some,
            Some("full") => &mut psi.full,
            _ => continue,
        };
        let mut read = PsiLine::default();
        for (key, value) in fields.filter_map(|field| field.split_once('=')) {
            let average = || value.parse().unwrap_or_default();
            match key {
                "avg10" => read.avg10 = average(),
                "avg60" => read.avg60 = average(),
                "avg300" => read.avg300 = average(),
                "total" => read.total = value.parse().unwrap_or_default(),
                _ => {}
            }
        }
        *at = read;
    }
    psi
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_of_cpus() {
        assert_eq!(set("0-3,8"), Some(vec![0, 1, 2, 3, 8]));
        assert_eq!(set(""), Some(vec![]));
        assert_eq!(set("x"), None);
    }

    #[test]
    fn pressure() {
        let text =
            "some avg10=1.50 avg60=0.00 avg300=0.25 total=1234\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=5\n";
        let read = psi(text);
        assert_eq!((read.some.avg10, read.some.avg300, read.some.total, read.full.total), (1.5, 0.25, 1234, 5));
    }
}
