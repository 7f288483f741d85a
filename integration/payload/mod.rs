//! What the tests run inside a container: a list of verbs, each of which reports something that a container sees, or
//! does something and reports how that went, as one JSON object with a key per verb.
//!
//! The program is the test binary itself under the name `payload`: it is static already, it needs no second build, and
//! it cannot be out of step with the tests. A verb is a word, with an argument after `=` where it takes one:
//! `payload ns caps read=/etc/hostname exit=3`. The object is printed before the first verb that waits or ends.

mod acts;
pub mod filter;
pub mod mountinfo;
mod net;
mod tty;
mod views;

use serde_json::{Map, Value, json};
use std::io::Write;
use std::path::Path;

/// Runs the verbs if this process was started as the payload; returns if it was not.
pub fn run_if_called() {
    let mut args = std::env::args_os();
    if args.next().is_some_and(|name| Path::new(&name).file_name().is_some_and(|n| n == "payload" || n == "linked")) {
        let words: Vec<String> = args.map(|a| a.to_string_lossy().into_owned()).collect();
        let mut said = Said::default();
        for word in &words {
            let (verb, arg) = word.split_once('=').unwrap_or((word, ""));
            let result =
                views::view(verb, arg).or_else(|| net::talk(verb, arg)).or_else(|| acts::act(verb, arg, &mut said));
            match result {
                Some(value) => said.add(word, value),
                None => said.add(word, json!({"error": "no such verb"})),
            }
        }
        said.flush();
        std::process::exit(0);
    }
}

/// What there is to print, and has not been printed yet.
#[derive(Default)]
pub struct Said(Map<String, Value>);

impl Said {
    fn add(&mut self, word: &str, value: Value) {
        if !value.is_null() {
            self.0.insert(word.to_string(), value);
        }
    }

    /// Prints the object on one line, if there is anything in it. A reader that has gone is no concern of ours.
    fn flush(&mut self) {
        if !self.0.is_empty() {
            let line = Value::Object(std::mem::take(&mut self.0)).to_string() + "\n";
            let _ = std::io::stdout().write_all(line.as_bytes());
        }
    }

    /// Appends the object to a file instead, for hooks, whose output goes nowhere.
    fn note(&mut self, path: &str) -> std::io::Result<()> {
        let line = Value::Object(std::mem::take(&mut self.0)).to_string() + "\n";
        std::fs::OpenOptions::new().create(true).append(true).open(path)?.write_all(line.as_bytes())
    }

    /// Prints one object of its own at once.
    fn line(&mut self, key: &str, value: Value) {
        self.flush();
        self.add(key, value);
        self.flush();
    }
}

/// A result as the tests read it: `{"ok": value}` or `{"errno": "EACCES"}`.
fn outcome<T: Into<Value>>(result: std::io::Result<T>) -> Value {
    match result {
        Ok(value) => json!({"ok": value.into()}),
        Err(e) => match e.raw_os_error() {
            Some(n) => json!({"errno": format!("{:?}", nix::errno::Errno::from_raw(n))}),
            None => json!({"error": e.to_string()}),
        },
    }
}

fn checked(n: i64) -> std::io::Result<i64> {
    if n < 0 { Err(std::io::Error::last_os_error()) } else { Ok(n) }
}
