//! The library's one error type: what kind of failure it was, in the user's words, with a remedy where there is one.

use nix::errno::Errno;
use std::fmt;

/// A finding in config.json (or in flags and files of the same standing): where it is and what would be right.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// JSON pointer (RFC 6901) into the document, such as `/mounts/3/destination`; empty for the whole document.
    pub pointer: String,
    /// What is wrong and what would be right, in one sentence without a full stop.
    pub what: String,
}

impl Problem {
    /// A problem at a JSON pointer.
    pub fn new(pointer: impl Into<String>, what: impl Into<String>) -> Problem {
        Problem { pointer: pointer.into(), what: what.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Both can hold text of the config's author, who must not get to write control characters to a terminal.
        for c in
            self.pointer.chars().chain(if self.pointer.is_empty() { "" } else { ": " }.chars()).chain(self.what.chars())
        {
            if c.is_control() { write!(f, "{}", c.escape_default())? } else { write!(f, "{c}")? }
        }
        Ok(())
    }
}

/// What a caller may want to tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// No container has this ID.
    NotFound,
    /// The ID is taken.
    Exists,
    /// The request itself is wrong: config.json, a flag, an ID.
    Invalid,
    /// The container's status does not allow the operation.
    Status,
    /// The container's process is gone.
    Gone,
    /// The program to run does not exist.
    ProgramNotFound,
    /// The program to run may not be executed.
    ProgramDenied,
    /// The kernel refused something; the errno says why.
    Os(Errno),
    /// Anything else.
    Other,
}

/// An error with its kind, a phrase per layer (outermost first), and a remedy.
#[derive(Debug, Clone)]
pub struct Error {
    kind: Kind,
    phrases: Vec<String>,
    hint: Option<String>,
}

/// The library's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of a kind, in words.
    pub fn new(kind: Kind, message: impl Into<String>) -> Error {
        Error { kind, phrases: vec![message.into()], hint: None }
    }

    /// A wrong request.
    pub fn invalid(message: impl Into<String>) -> Error {
        Error::new(Kind::Invalid, message)
    }

    /// A failed system call: what was being done, and the errno in the C library's words.
    pub fn os(what: impl Into<String>, errno: Errno) -> Error {
        Error::new(Kind::Os(errno), format!("{}: {}", what.into(), describe(errno)))
    }

    /// A failed file operation or call of the standard library: what was being done, and what it says.
    fn io(what: impl Into<String>, error: &std::io::Error) -> Error {
        match error.raw_os_error() {
            Some(raw) => Error::os(what, Errno::from_raw(raw)),
            None => Error::new(Kind::Other, format!("{}: {error}", what.into())),
        }
    }

    /// A thread that could not be started; `what` is what takes it.
    pub fn no_thread(what: &str, error: &std::io::Error) -> Error {
        let told = Error::io(what, error);
        match told.kind {
            Kind::Os(Errno::EPERM) => told.hint(
                "a filter around brig answers clone3(2) with EPERM, and then the C library makes no threads: have it \
                 answer ENOSYS, or allow the call",
            ),
            _ => told,
        }
    }

    /// Every problem of a document, one a line.
    pub fn problems(document: &str, problems: &[Problem]) -> Error {
        let mut text = match problems.len() {
            1 => format!("{document} is not valid: "),
            n => format!("{document} is not valid, {n} problems:"),
        };
        for problem in problems {
            text += &if problems.len() == 1 { problem.to_string() } else { format!("\n  {problem}") };
        }
        Error::invalid(text)
    }

    /// Puts a phrase in front: what was being done when this happened.
    #[must_use]
    pub fn context(mut self, phrase: impl Into<String>) -> Error {
        self.phrases.insert(0, phrase.into());
        self
    }

    /// Adds the remedy.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Error {
        self.hint = Some(hint.into());
        self
    }

    /// What kind of failure this is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The remedy, if one is known.
    pub fn remedy(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.phrases.join(": "))?;
        match &self.hint {
            Some(hint) => write!(f, "\n  hint: {hint}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {}

/// Says what was being done when a system call or file operation failed.
pub trait Context<T> {
    /// Turns an errno or an I/O error into an [`Error`] that starts with this phrase.
    fn during(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T> Context<T> for std::result::Result<T, Errno> {
    fn during(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|errno| Error::os(what(), errno))
    }
}

impl<T> Context<T> for std::io::Result<T> {
    fn during(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|e| Error::io(what(), &e))
    }
}

impl<T> Context<T> for Result<T> {
    fn during(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|e| e.context(what()))
    }
}

/// The errno in words, lower case, as the callers match on them (`permission denied`, `no such file or directory`).
pub fn describe(errno: Errno) -> String {
    let text = errno.desc();
    let mut chars = text.chars();
    match chars.next() {
        // "I/O error" and the like keep their capitals.
        Some(first) if chars.as_str().starts_with(|c: char| c.is_lowercase()) => {
            first.to_lowercase().chain(chars).collect()
        }
        _ => text.to_owned(),
    }
}
