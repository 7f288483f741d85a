//! Values of `org.systemd.property.*` annotations: GVariant's text format, as glib's "GVariant Text Format" has it, but for
//! dictionaries and maybe types, which no unit property has.

use super::wire::Value;

/// Reads one value.
///
/// # Errors
/// What is wrong, and where.
pub fn parse(text: &str) -> Result<Value, String> {
    let mut parser = Parser { text, at: 0, depth: 0 };
    let value = parser.value(None)?;
    parser.blank();
    match parser.rest() {
        "" => Ok(value),
        rest => Err(format!("has {rest:?} after the value")),
    }
}

/// How deep values may nest; D-Bus allows 32.
const DEEPEST: usize = 32;

/// The keywords that stand for a type.
const WORDS: [(&str, &str); 13] = [
    ("boolean", "b"),
    ("byte", "y"),
    ("int16", "n"),
    ("uint16", "q"),
    ("int32", "i"),
    ("uint32", "u"),
    ("handle", "h"),
    ("int64", "x"),
    ("uint64", "t"),
    ("double", "d"),
    ("string", "s"),
    ("objectpath", "o"),
    ("signature", "g"),
];

struct Parser<'t> {
    text: &'t str,
    at: usize,
    depth: usize,
}

impl<'t> Parser<'t> {
    fn rest(&self) -> &'t str {
        &self.text[self.at..]
    }

    fn blank(&mut self) {
        self.at += self.rest().len() - self.rest().trim_start().len();
    }

    fn eat(&mut self, token: char) -> bool {
        self.blank();
        let found = self.rest().starts_with(token);
        if found {
            self.at += token.len_utf8();
        }
        found
    }

    /// A run of characters that make up a number, a keyword or a type.
    fn word(&mut self, fits: impl Fn(char) -> bool) -> &'t str {
        self.blank();
        let rest = self.rest();
        let word = &rest[..rest.find(|c| !fits(c)).unwrap_or(rest.len())];
        self.at += word.len();
        word
    }

    fn value(&mut self, wanted: Option<&str>) -> Result<Value, String> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(format!("nests deeper than {DEEPEST} levels"));
        }
        self.blank();
        let value = match self.rest().chars().next() {
            None => Err("ends where a value should be".into()),
            Some('@') => {
                self.at += 1;
                let signature = self.word(|c| c.is_ascii_alphabetic() || c == '(' || c == ')');
                if signature.len() > 255 || split(signature).is_none_or(|(_, rest)| !rest.is_empty()) {
                    return Err(format!("has {signature:?} for a type, which is none"));
                }
                self.value(Some(signature))
            }
            Some('[') => self.array(wanted),
            Some('(') => self.tuple(wanted),
            Some('<') => self.variant(),
            Some('\'' | '"') => self.string().and_then(|text| string_as(text, wanted.unwrap_or("s"))),
            Some('b') if self.rest().starts_with("b'") || self.rest().starts_with("b\"") => {
                self.at += 1;
                let mut bytes: Vec<Value> = self.string()?.into_bytes().into_iter().map(Value::Byte).collect();
                bytes.push(Value::Byte(0));
                Ok(Value::Array("y".into(), bytes))
            }
            Some(c) if c.is_ascii_alphabetic() => self.keyword(wanted),
            Some(_) => self.number(wanted),
        }?;
        self.depth -= 1;
        match wanted {
            Some(wanted) if value.signature() != wanted => {
                Err(format!("has a value of type {:?} where the type is {wanted:?}", value.signature()))
            }
            _ => Ok(value),
        }
    }

    fn keyword(&mut self, wanted: Option<&str>) -> Result<Value, String> {
        match self.word(|c| c.is_ascii_alphanumeric()) {
            "true" => Ok(Value::Bool(true)),
            "false" => Ok(Value::Bool(false)),
            word if ["inf", "nan"].contains(&word) => Err("has a number that is none".into()),
            word => match WORDS.iter().find(|(name, _)| *name == word) {
                Some((_, signature)) if wanted.is_none_or(|wanted| wanted == *signature) => self.value(Some(signature)),
                Some(_) => Err(format!("has {word} where another type was said before")),
                None => Err(format!("has {word:?}, which is no value; put strings in quotes")),
            },
        }
    }

    fn number(&mut self, wanted: Option<&str>) -> Result<Value, String> {
        let word = self.word(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
        if word.is_empty() {
            return Err(format!("has {:?} where a value should be", self.rest()));
        }
        let real = word.contains(['.']) || (word.contains(['e', 'E']) && !word.contains(['x', 'X']));
        let signature = wanted.unwrap_or(if real { "d" } else { "i" });
        if signature == "d" {
            let number = word.parse::<f64>().ok().filter(|n| n.is_finite());
            return number.map(Value::F64).ok_or_else(|| format!("has {word:?}, which is no number"));
        }
        let (minus, digits) = match word.strip_prefix('-') {
            Some(digits) => (true, digits),
            None => (false, word.strip_prefix('+').unwrap_or(word)),
        };
        if !digits.starts_with(|c: char| c.is_ascii_digit()) {
            return Err(format!("has {word:?}, which is no whole number"));
        }
        let parsed = match digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
            Some(hex) => i128::from_str_radix(hex, 16),
            None if digits.len() > 1 && digits.starts_with('0') => i128::from_str_radix(digits, 8),
            None => digits.parse(),
        };
        let number = parsed.map_err(|_| format!("has {word:?}, which is no whole number"))?;
        let number = if minus { -number } else { number };
        let fits = match signature {
            "y" => number.try_into().map(Value::Byte).ok(),
            "n" => number.try_into().map(Value::I16).ok(),
            "q" => number.try_into().map(Value::U16).ok(),
            "i" => number.try_into().map(Value::I32).ok(),
            "u" => number.try_into().map(Value::U32).ok(),
            "x" => number.try_into().map(Value::I64).ok(),
            "t" => number.try_into().map(Value::U64).ok(),
            other => return Err(format!("has the number {word} where the type is {other:?}")),
        };
        let say = if wanted.is_none() { "; say a larger type before it, as in \"uint64 5\"" } else { "" };
        fits.ok_or_else(|| format!("has {word}, which does not fit its type, {signature:?}{say}"))
    }

    fn string(&mut self) -> Result<String, String> {
        let mut chars = self.rest().char_indices();
        let quote = chars.next().map_or('\'', |(_, c)| c);
        let mut text = String::new();
        while let Some((at, c)) = chars.next() {
            match c {
                c if c == quote => {
                    self.at += at + c.len_utf8();
                    if text.contains('\0') {
                        return Err("has a zero byte in a string".into());
                    }
                    return Ok(text);
                }
                '\\' => text.push(match chars.next().map(|(_, c)| c) {
                    Some('a') => '\u{7}',
                    Some('b') => '\u{8}',
                    Some('f') => '\u{c}',
                    Some('n') => '\n',
                    Some('r') => '\r',
                    Some('t') => '\t',
                    Some('v') => '\u{b}',
                    Some(kind @ ('u' | 'U')) => {
                        let count = if kind == 'u' { 4 } else { 8 };
                        let digits: String = chars.by_ref().take(count).map(|(_, c)| c).collect();
                        let code = u32::from_str_radix(&digits, 16).ok().and_then(char::from_u32);
                        code.ok_or_else(|| format!("has \\{kind}{digits}, which is no character"))?
                    }
                    Some(other) => other,
                    None => break,
                }),
                c => text.push(c),
            }
        }
        Err("has a string without an end".into())
    }

    fn array(&mut self, wanted: Option<&str>) -> Result<Value, String> {
        let mut element = match wanted.map(|w| w.strip_prefix('a')) {
            Some(None) => return Err("has an array where another type was said".into()),
            Some(Some(element)) => Some(element.to_owned()),
            None => None,
        };
        let values = self.list('[', ']', |parser, _| {
            let value = parser.value(element.as_deref())?;
            element.get_or_insert_with(|| value.signature());
            Ok(value)
        })?;
        let element = element.ok_or("has an empty array of no type; say it, as in \"@as []\"")?;
        Ok(Value::Array(element, values))
    }

    fn tuple(&mut self, wanted: Option<&str>) -> Result<Value, String> {
        let mut left = match wanted.map(|w| w.strip_prefix('(').and_then(|w| w.strip_suffix(')'))) {
            Some(None) => return Err("has a tuple where another type was said".into()),
            Some(fields) => fields.map(ToOwned::to_owned),
            None => None,
        };
        let values = self.list('(', ')', |parser, _| {
            let Some(fields) = &mut left else { return parser.value(None) };
            let Some((first, rest)) = split(fields) else { return Err("has a tuple with too many fields".into()) };
            let (first, rest) = (first.to_owned(), rest.to_owned());
            *fields = rest;
            parser.value(Some(&first))
        })?;
        if values.is_empty() {
            return Err("has an empty tuple, which D-Bus knows not".into());
        }
        Ok(Value::Struct(values))
    }

    fn variant(&mut self) -> Result<Value, String> {
        self.eat('<');
        let value = self.value(None)?;
        if !self.eat('>') {
            return Err("has a variant without an end".into());
        }
        Ok(Value::Variant(Box::new(value)))
    }

    /// What stands between an opening and a closing sign, with commas; one may follow the last.
    fn list(
        &mut self,
        open: char,
        close: char,
        mut one: impl FnMut(&mut Self, usize) -> Result<Value, String>,
    ) -> Result<Vec<Value>, String> {
        self.eat(open);
        let mut values = Vec::new();
        while !self.eat(close) {
            values.push(one(self, values.len())?);
            if !self.eat(',') {
                if self.eat(close) {
                    break;
                }
                return Err(format!("has {:?} where a comma or {close} should be", self.rest()));
            }
        }
        Ok(values)
    }
}

fn string_as(text: String, signature: &str) -> Result<Value, String> {
    match signature {
        "s" => Ok(Value::Str(text)),
        "o" if text.starts_with('/') => Ok(Value::Path(text)),
        "g" if text.len() < 256 && text.is_ascii() => Ok(Value::Signature(text)),
        other => Err(format!("has the string {text:?} where the type is {other:?}")),
    }
}

/// The first complete type of a signature, and what follows it.
fn split(signature: &str) -> Option<(&str, &str)> {
    let end = match signature.as_bytes().first()? {
        b'a' => 1 + split(&signature[1..])?.0.len(),
        b'(' => {
            let mut at = 1;
            while !signature[at..].starts_with(')') {
                at += split(&signature[at..])?.0.len();
            }
            at + 1
        }
        b'y' | b'b' | b'n' | b'q' | b'i' | b'u' | b'x' | b't' | b'd' | b's' | b'o' | b'g' | b'v' => 1,
        _ => return None,
    };
    Some(signature.split_at(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_unit_properties_take() {
        let strings = |words: &[&str]| Value::Array("s".into(), words.iter().map(|w| Value::str(*w)).collect());
        for (text, wanted) in [
            ("uint64 123456789", Value::U64(123_456_789)),
            ("@t 5", Value::U64(5)),
            (" 'inactive-or-failed' ", Value::str("inactive-or-failed")),
            (r#""it's""#, Value::str("it's")),
            (r"'a\'b\\c\nd\u00e9'", Value::str("a'b\\c\ndé")),
            ("true", Value::Bool(true)),
            ("boolean false", Value::Bool(false)),
            ("7", Value::I32(7)),
            ("-0x10", Value::I32(-16)),
            ("010", Value::I32(8)),
            ("int64 -1", Value::I64(-1)),
            ("byte 255", Value::Byte(255)),
            ("1.5", Value::F64(1.5)),
            ("double 2", Value::F64(2.0)),
            ("2e3", Value::F64(2000.0)),
            ("['a']", strings(&["a"])),
            ("[ 'a.service' , \"b\" , ]", strings(&["a.service", "b"])),
            ("@as []", strings(&[])),
            ("[uint64 1, 2]", Value::Array("t".into(), vec![Value::U64(1), Value::U64(2)])),
            ("@au [1]", Value::Array("u".into(), vec![Value::U32(1)])),
            ("@ay [0x01, 2]", Value::Array("y".into(), vec![Value::Byte(1), Value::Byte(2)])),
            ("b'a'", Value::Array("y".into(), vec![Value::Byte(97), Value::Byte(0)])),
            ("('a', uint32 1)", Value::Struct(vec![Value::str("a"), Value::U32(1)])),
            ("<'a'>", Value::Variant(Box::new(Value::str("a")))),
            ("objectpath '/a'", Value::Path("/a".into())),
            (
                "@a(st) [('/dev/sda', 5)]",
                Value::Array("(st)".into(), vec![Value::Struct(vec![Value::str("/dev/sda"), Value::U64(5)])]),
            ),
        ] {
            assert_eq!(parse(text), Ok(wanted), "{text}");
        }
    }

    #[test]
    fn what_is_no_value() {
        for text in [
            "",
            " ",
            "inactive",
            "'a",
            "'a' 'b'",
            "[1, 'a']",
            "[]",
            "()",
            "['a'",
            "['a' 'b']",
            "uint64",
            "uint64 -1",
            "uint64 'a'",
            "uint16 65536",
            "5000000000",
            "byte 256",
            "1.5.5",
            "@z 1",
            "@a 1",
            "@as 1",
            "@(s 1",
            "@(ss) ('a')",
            "@s ['a']",
            "int32 uint64 5",
            "{'a': 1}",
            "<'a'",
            "nan",
            "'\\u12'",
            "1e999",
            "--1",
            "objectpath 'a'",
        ] {
            assert!(parse(text).is_err(), "{text:?}: {:?}", parse(text));
        }
        assert!(parse(&"[".repeat(5000)).is_err());
        assert!(parse(&"<".repeat(40)).unwrap_err().contains("deeper"));
    }
}
