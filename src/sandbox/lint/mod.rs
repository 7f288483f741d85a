//! Static analysis of scripts before they run: a script is parsed, its names are followed through imports and simple
//! assignments, and what it calls is looked up in a table of rules. Words in texts and comments do not count.
//!
//! It tells what a script means to do, and keeps nothing from happening: whoever wants to can hide a call from it. The
//! walls of the sandbox do not depend on it.

mod check;
mod javascript;
mod python;
mod rules;
mod scope;
#[cfg(test)]
mod tests;
mod values;

use super::report::Finding;
use crate::error::{Context, Result};
use check::{Check, Found};
pub use rules::Rule;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use tree_sitter::Parser;

/// Scripts larger than this are not analysed, in bytes.
const SIZE: usize = 10 << 20;
/// More findings of one script are not listed.
const FINDINGS: usize = 1000;

/// A language that can be analysed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    /// Python 3, and most of Python 2.
    Python,
    /// JavaScript, with JSX.
    JavaScript,
}

impl Language {
    /// The language of a file, by the extension of its path, or else by its first line if that starts with `#!`.
    pub fn of(path: &Path, first_line: &[u8]) -> Option<Language> {
        let extension = path.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
        match extension.as_str() {
            "py" | "pyw" => return Some(Language::Python),
            "js" | "mjs" | "cjs" | "jsx" => return Some(Language::JavaScript),
            _ => {}
        }
        let line = String::from_utf8_lossy(first_line.strip_prefix(b"#!")?).into_owned();
        // `env` takes options and variables before the program's name.
        let mut words = line.lines().next()?.split_whitespace().map(|word| word.rsplit('/').next().unwrap_or(word));
        let program = words.find(|word| *word != "env" && !word.starts_with('-') && !word.contains('='))?;
        let bare = program.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.');
        match bare {
            "python" | "pypy" => Some(Language::Python),
            "node" | "nodejs" | "bun" | "deno" => Some(Language::JavaScript),
            _ => None,
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Language::Python => "Python",
            Language::JavaScript => "JavaScript",
        }
    }
}

/// Every rule, sorted by name.
pub fn rules() -> &'static [Rule] {
    rules::RULES
}

/// Analyses a script. `file_name` is what findings call it; bytes that are not UTF-8 count as one character each.
/// The findings are sorted by their place.
pub fn analyse(language: Language, file_name: &str, source: &[u8]) -> Vec<Finding> {
    if source.len() > SIZE {
        let code = format!("{} bytes", source.len());
        return placed(file_name, "", vec![Found { at: 0, rule: "too-large", code }]);
    }
    let text = String::from_utf8_lossy(source);
    // The parser frees its own stack by recursion where brackets are never closed, so it gets room for one call a byte.
    let room = (4 << 20) + 192 * text.len();
    let found = std::thread::scope(|threads| {
        let thread = std::thread::Builder::new().stack_size(room).spawn_scoped(threads, || find(language, &text));
        thread.ok().and_then(|thread| thread.join().ok())
    });
    let none = || vec![Found { at: 0, rule: "not-analysed", code: format!("{} bytes", source.len()) }];
    placed(file_name, &text, found.unwrap_or_else(none))
}

/// What static analysis finds in a file; nothing in one whose language it does not know, or that is no regular file.
///
/// # Errors
/// The file can't be read.
pub fn analyse_file(file: &Path) -> Result<Vec<Finding>> {
    if !file.is_file() {
        return Ok(Vec::new());
    }
    let mut first = Vec::new();
    let during = || format!("read {}", file.display());
    BufReader::new(File::open(file).during(during)?).read_until(b'\n', &mut first).during(during)?;
    let Some(language) = Language::of(file, &first) else { return Ok(Vec::new()) };
    Ok(analyse(language, &file.display().to_string(), &std::fs::read(file).during(during)?))
}

fn find(language: Language, text: &str) -> Vec<Found> {
    let grammar = match language {
        Language::Python => tree_sitter_python::LANGUAGE.into(),
        Language::JavaScript => tree_sitter_javascript::LANGUAGE.into(),
    };
    let mut parser = Parser::new();
    parser.set_language(&grammar).expect("the grammar fits the parser");
    let tree = parser.parse(text.as_bytes(), None).expect("a parser with a language and no time limit parses");
    let script = scope::Script::new(text, language, tree.root_node());
    let mut check = Check { script: &script, found: Vec::new(), erroneous: false };
    script.walk(tree.root_node(), &mut |place| check.visit(&place));
    check.found
}

/// Findings with their lines and columns, sorted and each one once.
fn placed(file: &str, text: &str, mut found: Vec<Found>) -> Vec<Finding> {
    found.sort_by(|a, b| (a.at, a.rule).cmp(&(b.at, b.rule)));
    found.dedup_by(|a, b| (a.at, a.rule) == (b.at, b.rule));
    if found.len() > FINDINGS {
        found.truncate(FINDINGS);
        let at = found.last().map_or(0, |last| last.at);
        found.push(Found { at, rule: "too-many-findings", code: String::new() });
    }
    let (mut from, mut line, mut column) = (0, 1, 1);
    let place = |found: Found| {
        for c in text[from..found.at].chars() {
            (line, column) = if c == '\n' { (line + 1, 1) } else { (line, column + 1) };
        }
        from = found.at;
        let rule = rules::RULES.iter().find(|rule| rule.name == found.rule).expect("every finding has a rule");
        let (severity, why) = (rule.severity, rule.why);
        Finding { rule: rule.name, severity, file: file.to_owned(), line, column, code: found.code, why }
    };
    found.into_iter().map(place).collect()
}

/// Findings as text, one a line: file, line, column, severity, rule, and why.
pub fn lint_text(findings: &[Finding]) -> String {
    let line = |f: &Finding| {
        // A file's name may hold anything.
        let file: String =
            f.file.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect();
        format!("{file}:{}:{}: {}: {}: {}\n", f.line, f.column, f.severity, f.rule, f.why)
    };
    findings.iter().map(line).collect()
}
