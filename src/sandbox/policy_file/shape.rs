//! What a document may hold, as a table: a document is checked against it, all problems at once, and a JSON Schema is made
//! of it.

use super::nearest::nearest;
use super::seccomp;
use crate::error::Problem;
use crate::sandbox::units::{Bytes, Percent, Span};
use crate::spec::escape;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use std::fmt::Display;
use std::str::FromStr;

/// A word and what it stands for.
pub type Word = (&'static str, &'static str);

/// What a value may be.
pub enum Shape {
    /// Any text.
    Text,
    /// true or false.
    Flag,
    /// A whole number from 0 to this one.
    Whole(u64),
    /// [`Bytes`].
    Size,
    /// [`Percent`].
    Share,
    /// [`Span`].
    Time,
    /// Two whole numbers: quota and period.
    Quota,
    /// One of these words.
    Word(&'static [Word]),
    /// A list of such values.
    List(&'static Shape),
    /// An object with any keys and such values.
    Map(&'static Shape),
    /// An object with these keys.
    Object(&'static [Key]),
    /// One of these words, or an object with exactly one of these keys.
    Choice(&'static [Word], &'static [Key]),
    /// `linux.seccomp` of config.json.
    Seccomp,
}

/// Whether a key has to be there, and what its absence is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// A default takes its place.
    Default,
    /// A default takes its place; `null` (or, for an amount, the text `none`) is none at all.
    Nullable,
    /// Always.
    Required,
}

/// A key of an object.
pub struct Key {
    /// Its name.
    pub name: &'static str,
    /// What it takes.
    pub shape: Shape,
    /// One or two sentences for the reader.
    pub doc: &'static str,
    /// Whether it has to be there.
    pub need: Need,
}

impl Key {
    /// A key with a default.
    pub const fn new(name: &'static str, shape: Shape, doc: &'static str) -> Key {
        Key { name, shape, doc, need: Need::Default }
    }

    /// The same, and null is none at all.
    pub const fn nullable(name: &'static str, shape: Shape, doc: &'static str) -> Key {
        Key { name, shape, doc, need: Need::Nullable }
    }

    /// The same, always to be given.
    pub const fn required(name: &'static str, shape: Shape, doc: &'static str) -> Key {
        Key { name, shape, doc, need: Need::Required }
    }
}

/// A document's whole form, for hints at where a key belongs.
pub struct Form(pub &'static [Key]);

impl Form {
    /// Checks a document; what has two spellings (`none` for null, a docker seccomp profile) is put into the one that the
    /// types read. Every problem is pushed with its JSON pointer.
    pub fn check(&self, document: &mut Value, problems: &mut Vec<Problem>) {
        Walk { root: self.0, problems }.object(document, self.0, "");
    }
}

struct Walk<'a> {
    root: &'static [Key],
    problems: &'a mut Vec<Problem>,
}

impl Walk<'_> {
    fn wrong(&mut self, pointer: &str, what: impl Into<String>) {
        self.problems.push(Problem::new(pointer, what));
    }

    fn value(&mut self, value: &mut Value, shape: &'static Shape, pointer: &str) {
        let fits = match (shape, &*value) {
            (Shape::Object(keys), _) => return self.object(value, keys, pointer),
            (Shape::Choice(words, keys), Value::Object(_)) => return self.choice(value, words, keys, pointer),
            (Shape::Choice(words, _) | Shape::Word(words), Value::String(word)) => {
                if !words.iter().any(|(known, _)| known == word) {
                    let known = words.iter().map(|(known, _)| *known);
                    let what = format!("unknown word {word:?}; {}", suggest(word, known));
                    self.wrong(pointer, what);
                }
                return;
            }
            (Shape::Size, _) => return self.amount::<Bytes>(value, shape, pointer),
            (Shape::Share, _) => return self.amount::<Percent>(value, shape, pointer),
            (Shape::Time, _) => return self.amount::<Span>(value, shape, pointer),
            (Shape::Seccomp, Value::Object(_)) => return seccomp::normalise(value, pointer, self.problems),
            (Shape::List(of), Value::Array(_)) => {
                for (n, item) in value.as_array_mut().into_iter().flatten().enumerate() {
                    self.value(item, of, &format!("{pointer}/{n}"));
                }
                return;
            }
            (Shape::Map(of), Value::Object(_)) => {
                for (key, item) in value.as_object_mut().into_iter().flatten() {
                    self.value(item, of, &format!("{pointer}/{}", escape(key)));
                }
                return;
            }
            (Shape::Text, Value::String(_)) | (Shape::Flag, Value::Bool(_)) => true,
            (Shape::Whole(most), Value::Number(n)) => n.as_u64().is_some_and(|n| n <= *most),
            (Shape::Quota, Value::Array(pair)) => pair.len() == 2 && pair.iter().all(Value::is_u64),
            _ => false,
        };
        if !fits {
            self.wrong(pointer, format!("must be {}; this is {}", words(shape), kind(value)));
        }
    }

    fn amount<T: FromStr<Err: Display> + DeserializeOwned>(
        &mut self,
        value: &Value,
        shape: &'static Shape,
        pointer: &str,
    ) {
        let wrong = match value {
            Value::String(text) => text.parse::<T>().err().map(|e| e.to_string()),
            Value::Number(_) => serde_json::from_value::<T>(value.clone()).err().map(|e| e.to_string()),
            _ => Some(format!("must be {}; this is {}", words(shape), kind(value))),
        };
        if let Some(what) = wrong {
            self.wrong(pointer, what);
        }
    }

    fn object(&mut self, value: &mut Value, keys: &'static [Key], pointer: &str) {
        let Value::Object(map) = value else {
            let what = format!("must be an object with keys such as {}; this is {}", keys[0].name, kind(value));
            return self.wrong(pointer, what);
        };
        for (name, item) in map.iter_mut() {
            let at = format!("{pointer}/{}", escape(name));
            let Some(key) = keys.iter().find(|key| key.name == name) else {
                let what = self.unknown(name, keys);
                self.wrong(&at, what);
                continue;
            };
            if key.need == Need::Nullable {
                let amount = matches!(key.shape, Shape::Size | Shape::Share | Shape::Time | Shape::Whole(_));
                if amount && item.as_str() == Some("none") {
                    *item = Value::Null;
                }
                if item.is_null() {
                    continue;
                }
            }
            self.value(item, &key.shape, &at);
        }
        for key in keys.iter().filter(|key| key.need == Need::Required && !map.contains_key(key.name)) {
            self.wrong(&format!("{pointer}/{}", key.name), format!("missing; give {}", words(&key.shape)));
        }
    }

    fn choice(&mut self, value: &mut Value, words: &'static [Word], keys: &'static [Key], pointer: &str) {
        let count = value.as_object().map_or(0, Map::len);
        self.object(value, keys, pointer);
        if count != 1 {
            let names: Vec<_> = keys.iter().map(|key| key.name).collect();
            let what = format!("must have one key of {}, or be the word {:?}", names.join(", "), words[0].0);
            self.wrong(pointer, what);
        }
    }

    fn unknown(&self, name: &str, keys: &[Key]) -> String {
        let near = nearest(name, keys.iter().map(|key| key.name));
        let place = if near.is_none() { place(self.root, name, "") } else { None };
        match place {
            Some(place) => format!("unknown key; did you mean {place}?"),
            None => format!("unknown key; {}", suggest(name, keys.iter().map(|key| key.name))),
        }
    }
}

/// Where in a form a key of this name is.
fn place(keys: &[Key], name: &str, above: &str) -> Option<String> {
    keys.iter().find_map(|key| {
        let here = format!("{above}/{}", key.name);
        match &key.shape {
            _ if key.name == name => Some(here),
            Shape::Object(inner) => place(inner, name, &here),
            _ => None,
        }
    })
}

/// The nearest of the known words as a question, or all of them.
pub fn suggest<'a>(word: &str, known: impl Iterator<Item = &'a str> + Clone) -> String {
    match nearest(word, known.clone()) {
        Some(near) => format!("did you mean {near}?"),
        None => format!("known here: {}", known.collect::<Vec<_>>().join(", ")),
    }
}

/// What a value is, in words.
fn kind(value: &Value) -> String {
    match value {
        Value::Null => "null; leave the key out for its default".into(),
        Value::Bool(flag) => flag.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => format!("the text {:?}", text.chars().take(40).collect::<String>()),
        Value::Array(_) => "a list".into(),
        Value::Object(_) => "an object".into(),
    }
}

/// What a shape takes, in words.
fn words(shape: &Shape) -> String {
    match shape {
        Shape::Text => "a text".into(),
        Shape::Flag => "true or false".into(),
        Shape::Whole(u64::MAX) => "a whole number".into(),
        Shape::Whole(most) => format!("a whole number from 0 to {most}"),
        Shape::Size => "a size: bytes, or text such as \"256M\"".into(),
        Shape::Share => "a share of one CPU in percent, such as 50 or \"150%\"".into(),
        Shape::Time => "a time: seconds, or text such as \"1m30s\"".into(),
        Shape::Quota => "a list of two whole numbers, quota and period in microseconds".into(),
        Shape::Word(known) => format!("one of the words {}", names(known)),
        Shape::List(of) => format!("a list, each item {}", words(of)),
        Shape::Map(of) => format!("an object, each value {}", words(of)),
        Shape::Object(_) => "an object".into(),
        Shape::Choice(known, keys) => {
            format!("the word {}, or an object such as {{\"{}\": ...}}", names(known), keys[0].name)
        }
        Shape::Seccomp => "an object as linux.seccomp of config.json".into(),
    }
}

fn names(known: &[Word]) -> String {
    known.iter().map(|(word, _)| *word).collect::<Vec<_>>().join(", ")
}

impl Shape {
    /// This shape as a JSON Schema.
    pub fn schema(&self) -> Value {
        let amount = |doc: &str| json!({ "type": ["number", "string"], "minimum": 0, "description": doc });
        match self {
            Shape::Text => json!({ "type": "string" }),
            Shape::Flag => json!({ "type": "boolean" }),
            Shape::Whole(most) => json!({ "type": "integer", "minimum": 0, "maximum": most }),
            Shape::Size => amount("Bytes, or text such as \"256M\"."),
            Shape::Share => amount("Percent of one CPU: 50 or \"150%\"."),
            Shape::Time => amount("Seconds, or text such as \"1m30s\"."),
            Shape::Quota => json!({
                "type": "array", "items": { "type": "integer", "minimum": 0 }, "minItems": 2, "maxItems": 2,
            }),
            Shape::Word(known) => json!({ "oneOf": constants(known) }),
            Shape::List(of) => json!({ "type": "array", "items": of.schema() }),
            Shape::Map(of) => json!({ "type": "object", "additionalProperties": of.schema() }),
            Shape::Object(keys) => object(keys, &Value::Null),
            Shape::Choice(known, keys) => {
                let mut one = object(keys, &Value::Null);
                (one["minProperties"], one["maxProperties"]) = (1.into(), 1.into());
                let mut all = constants(known);
                all.push(one);
                json!({ "oneOf": all })
            }
            Shape::Seccomp => json!({ "type": "object", "required": ["defaultAction"] }),
        }
    }
}

fn constants(known: &[Word]) -> Vec<Value> {
    known.iter().map(|(word, doc)| json!({ "const": word, "description": doc })).collect()
}

/// The schema of an object with these keys; the defaults of its keys are taken from an object that has them.
pub fn object(keys: &[Key], defaults: &Value) -> Value {
    let mut properties = Map::new();
    for key in keys {
        let default = &defaults[key.name];
        let mut schema = match &key.shape {
            Shape::Object(inner) => object(inner, default),
            shape => shape.schema(),
        };
        if key.need == Need::Nullable {
            let mut forms = vec![schema, json!({ "type": "null" })];
            // The other amounts take any text.
            forms.extend(matches!(key.shape, Shape::Whole(_)).then(|| json!({ "const": "none" })));
            schema = json!({ "anyOf": forms });
        }
        schema["description"] = key.doc.into();
        if !default.is_null() && !matches!(key.shape, Shape::Object(_)) {
            schema["default"] = default.clone();
        }
        properties.insert(key.name.into(), schema);
    }
    let mut schema = json!({ "type": "object", "additionalProperties": false, "properties": properties });
    let required: Vec<_> = keys.iter().filter(|key| key.need == Need::Required).map(|key| key.name).collect();
    if !required.is_empty() {
        schema["required"] = required.into();
    }
    schema
}
