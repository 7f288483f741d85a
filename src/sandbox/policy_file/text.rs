//! A document's text as a value, with the line and column of what is wrong, and no key given twice: of two, one would go
//! without effect.

use super::Format;
use crate::error::{Error, Result};
use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use std::fmt;

/// Reads a text in one of the forms; `name` is what messages call it.
///
/// # Errors
/// The text is not of this form, has a key twice, or a value that no document has (a date, `nan`).
pub fn read(text: &str, format: Format, name: &str) -> Result<Value> {
    // Editors of other systems put a byte order mark in front.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let (form, what) = match format {
        Format::Json if text.trim().is_empty() => ("JSON", "it is empty; write {} for the defaults".to_owned()),
        Format::Json => match serde_json::from_str::<Once>(text) {
            Ok(Once(value)) => return Ok(value),
            Err(e) => ("JSON", e.to_string()),
        },
        Format::Toml => match toml::from_str::<Once>(text) {
            Ok(Once(value)) => return Ok(value),
            Err(e) => ("TOML", position(text, e.span()) + &e.message().trim_end().replace('\n', ", ")),
        },
    };
    Err(Error::invalid(format!("{name} is no valid {form}: {what}")))
}

fn position(text: &str, span: Option<std::ops::Range<usize>>) -> String {
    let Some(before) = span.and_then(|span| text.get(..span.start)) else { return String::new() };
    let line = before.rsplit('\n').next().unwrap_or_default();
    format!("line {} column {}: ", before.matches('\n').count() + 1, line.chars().count() + 1)
}

/// A value whose objects have each key once.
struct Once(Value);

impl<'de> Deserialize<'de> for Once {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Once, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Once;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Once, E> {
        Ok(Once(Value::Null))
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Once, E> {
        Ok(Once(value.into()))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Once, E> {
        Ok(Once(value.into()))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Once, E> {
        Ok(Once(value.into()))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Once, E> {
        // JSON has neither, and as null they would mean no limit.
        let number = serde_json::Number::from_f64(value).ok_or_else(|| E::custom("nan and inf are no amounts"))?;
        Ok(Once(number.into()))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Once, E> {
        Ok(Once(value.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Once, A::Error> {
        let mut list = Vec::new();
        while let Some(Once(item)) = seq.next_element()? {
            list.push(item);
        }
        Ok(Once(list.into()))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Once, A::Error> {
        let mut map = Map::new();
        while let Some(key) = access.next_key::<String>()? {
            // How the toml crate hands on dates.
            if key.starts_with("$__toml_private") {
                return Err(de::Error::custom("dates and times of day are no values here; quote text"));
            }
            if map.contains_key(&key) {
                return Err(de::Error::custom(format!("the key {key:?} is given twice; keep one")));
            }
            let Once(value) = access.next_value()?;
            map.insert(key, value);
        }
        Ok(Once(map.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        let table = [
            (Format::Json, "{\n \"a\": }", "line 2 column 7"),
            (Format::Json, " \n", "it is empty"),
            (Format::Json, "{\"a\": 1,\n\"a\": 2}", "the key \"a\" is given twice; keep one at line 2"),
            (Format::Json, "{\"b\": {\"a\": 1,\"a\": 2}}", "the key \"a\" is given twice"),
            (Format::Json, "{} x", "line 1 column 4"),
            (Format::Json, "{\"a\": 1e999}", "number out of range"),
            (Format::Toml, "a = 1\nb = = 2", "line 2 column 5"),
            (Format::Toml, "a = 1\na = 2", "line 2 column 1: duplicate key"),
            (Format::Toml, "a = 1\nb = nan", "line 2 column 5: nan and inf"),
            (Format::Toml, "a = 2026-01-01", "dates and times"),
        ];
        for (format, text, said) in table {
            let error = read(text, format, "p").unwrap_err().to_string();
            assert!(error.starts_with("p is no valid ") && error.contains(said), "{text}: {error}");
        }
    }

    #[test]
    fn both_forms_read_alike() {
        let json = r#"{"a": {"b": [1, -2, 2.5, "x", true]}}"#;
        let toml = "[a]\nb = [1, -2, 2.5, \"x\", true]";
        let value = read(json, Format::Json, "p").unwrap();
        assert_eq!(value, read(toml, Format::Toml, "p").unwrap());
        assert_eq!(value, serde_json::from_str::<Value>(json).unwrap());
        assert_eq!(read("\u{feff}{}", Format::Json, "p").unwrap(), Value::Object(Map::new()));
        assert!(read(&"[".repeat(100_000), Format::Json, "p").is_err());
    }
}
