//! Amounts as people write them: `256M`, `50%`, `1m30s`.

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A number of bytes: `1048576`, `256M`, `1.5G`, `64KiB` (all powers of 1024).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bytes(pub u64);

/// A share in percent: `50`, `50%`, `12.5%`.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Percent(pub f64);

/// A span of time: `30` (seconds), `500ms`, `1m30s`, `2h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(pub Duration);

impl FromStr for Bytes {
    type Err = String;

    fn from_str(text: &str) -> Result<Bytes, String> {
        let wrong = || format!("{text:?} is no size: give bytes, or a number with K, M, G or T (256M, 1.5G)");
        let text = text.trim();
        let at = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, unit) = text.split_at(at);
        let unit = unit.trim().to_ascii_lowercase();
        let shift = match unit.strip_suffix("ib").or_else(|| unit.strip_suffix('b')).unwrap_or(&unit) {
            "" => 0,
            "k" => 10,
            "m" => 20,
            "g" => 30,
            "t" => 40,
            _ => return Err(wrong()),
        };
        if let Ok(whole) = number.parse::<u64>() {
            return whole.checked_mul(1 << shift).map(Bytes).ok_or_else(wrong);
        }
        let value = number.parse::<f64>().map_err(|_| wrong())? * (1_u64 << shift) as f64;
        if value < u64::MAX as f64 { Ok(Bytes(value as u64)) } else { Err(wrong()) }
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (shift, unit) in [(40, "T"), (30, "G"), (20, "M"), (10, "K")] {
            if self.0 >= 1 << shift {
                let tenths = (u128::from(self.0) * 10) >> shift;
                return match tenths % 10 {
                    0 => write!(f, "{}{unit}", tenths / 10),
                    rest => write!(f, "{}.{rest}{unit}", tenths / 10),
                };
            }
        }
        write!(f, "{}", self.0)
    }
}

impl FromStr for Percent {
    type Err = String;

    fn from_str(text: &str) -> Result<Percent, String> {
        let number = text.trim().trim_end_matches('%').trim_end();
        match number.parse::<f64>() {
            Ok(value) if value.is_finite() && value > 0.0 => Ok(Percent(value)),
            _ => Err(format!("{text:?} is no share of a CPU: give percent of one (50, 150%)")),
        }
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} %", self.0)
    }
}

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Span, String> {
        let wrong = || format!("{text:?} is no time: give seconds, or a number with ms, s, m or h (500ms, 1m30s)");
        let mut rest = text.trim();
        if rest.is_empty() {
            return Err(wrong());
        }
        let mut total = Duration::ZERO;
        while !rest.is_empty() {
            let at = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
            let (number, more) = rest.split_at(at);
            let end = more.find(|c: char| c.is_ascii_digit()).unwrap_or(more.len());
            let (unit, more) = more.split_at(end);
            let scale = match unit.trim() {
                "ms" => 0.001,
                "" | "s" | "sec" => 1.0,
                "m" | "min" => 60.0,
                "h" => 3600.0,
                _ => return Err(wrong()),
            };
            let seconds = number.parse::<f64>().map_err(|_| wrong())? * scale;
            total += Duration::try_from_secs_f64(seconds).map_err(|_| wrong())?;
            rest = more;
        }
        Ok(Span(total))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs_f64();
        if seconds < 1.0 { write!(f, "{} ms", self.0.as_millis()) } else { write!(f, "{seconds} s") }
    }
}

/// Reads a number or a text in one of these forms; writes a number.
macro_rules! amounts {
    ($($name:ident, $unit:literal, $from:expr, $to:expr;)*) => {$(
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<$name, D::Error> {
                struct Reader;
                impl Visitor<'_> for Reader {
                    type Value = $name;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($unit)
                    }
                    fn visit_u64<E: de::Error>(self, n: u64) -> Result<$name, E> {
                        self.visit_f64(n as f64)
                    }
                    fn visit_i64<E: de::Error>(self, n: i64) -> Result<$name, E> {
                        self.visit_f64(n as f64)
                    }
                    fn visit_f64<E: de::Error>(self, n: f64) -> Result<$name, E> {
                        if !(0.0..=1e18).contains(&n) {
                            return Err(E::custom(format!("{n} is out of range: {}", $unit)));
                        }
                        Ok($from(n))
                    }
                    fn visit_str<E: de::Error>(self, text: &str) -> Result<$name, E> {
                        text.parse().map_err(E::custom)
                    }
                }
                deserializer.deserialize_any(Reader)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                $to(self, serializer)
            }
        }
    )*};
}

amounts! {
    Bytes, "a size: bytes, or text such as \"256M\"", |n: f64| Bytes(n as u64), |b: &Bytes, s: S| s.serialize_u64(b.0);
    Percent, "a share of a CPU in percent", Percent, |p: &Percent, s: S| s.serialize_f64(p.0);
    Span, "a time: seconds, or text such as \"1m30s\"", |n: f64| Span(Duration::from_secs_f64(n)),
        |t: &Span, s: S| s.serialize_f64(t.0.as_secs_f64());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        let table =
            [("0", 0), ("4096", 4096), ("256M", 256 << 20), ("1.5G", 3 << 29), ("64KiB", 65536), ("2 mb", 2 << 20)];
        for (text, bytes) in table {
            assert_eq!(text.parse(), Ok(Bytes(bytes)), "{text}");
        }
        for text in ["", "M", "-1", "12Q", "1e30", "99999999999T"] {
            assert!(text.parse::<Bytes>().is_err(), "{text}");
        }
        assert_eq!([Bytes(256 << 20), Bytes(3 << 29), Bytes(12)].map(|b| b.to_string()), ["256M", "1.5G", "12"]);
    }

    #[test]
    fn times_and_shares() {
        let table = [("30", 30_000), ("500ms", 500), ("1m30s", 90_000), ("2h", 7_200_000), ("0.5", 500)];
        for (text, ms) in table {
            assert_eq!(text.parse(), Ok(Span(Duration::from_millis(ms))), "{text}");
        }
        for text in ["", "s", "1x", "-3", "1e99h"] {
            assert!(text.parse::<Span>().is_err(), "{text}");
        }
        assert_eq!("12.5%".parse(), Ok(Percent(12.5)));
        assert!("0".parse::<Percent>().is_err() && "NaN".parse::<Percent>().is_err());
    }

    #[test]
    fn numbers_and_text_in_json() {
        assert_eq!(serde_json::from_str::<Bytes>("4096").unwrap(), Bytes(4096));
        assert_eq!(serde_json::from_str::<Bytes>("\"4K\"").unwrap(), Bytes(4096));
        assert_eq!(serde_json::from_str::<Span>("1.5").unwrap(), Span(Duration::from_millis(1500)));
        assert!(serde_json::from_str::<Bytes>("-4").is_err());
    }
}
