//! What happens in a sandbox while it runs, told one by one.

use super::report::{Connection, Finding, LimitUsed, Mode, Outcome, Report, Sample, Violation};
use serde::ser::{Serialize, SerializeStruct, Serializer};

/// One thing that happened. As JSON it is an object with the kind as `event` and microseconds since the start as `at_us`.
#[derive(Debug, Clone, serde::Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// The program runs.
    Started {
        /// Microseconds since the start.
        at_us: u64,
        /// The sandbox's ID.
        id: String,
        /// The program's process ID on the host.
        pid: i32,
        /// The program and its arguments.
        command: Vec<String>,
        /// The walls.
        mode: Mode,
    },
    /// It wrote to its standard output.
    Stdout(Output),
    /// It wrote to its standard error.
    Stderr(Output),
    /// What was in use at one moment.
    Sample(Sample),
    /// A connection ended, or was denied.
    Connection(Connection),
    /// Something was denied.
    Violation(Violation),
    /// A limit was changed while it ran.
    LimitUpdated {
        /// Microseconds since the start.
        at_us: u64,
        /// The limit as it is now.
        #[serde(flatten)]
        limit: LimitUsed,
    },
    /// Static analysis found something.
    Finding {
        /// Microseconds since the start; 0 for what was found before it.
        at_us: u64,
        /// What was found.
        #[serde(flatten)]
        finding: Finding,
    },
    /// This host did not allow something; what was done instead.
    Note {
        /// Microseconds since the start.
        at_us: u64,
        /// In words.
        text: String,
    },
    /// The program ended.
    Exited {
        /// Microseconds since the start.
        at_us: u64,
        /// How.
        outcome: Outcome,
        /// The exit status that stands for it.
        status: i32,
    },
    /// All of it; the last event.
    Report {
        /// Microseconds since the start.
        at_us: u64,
        /// The same keys as in the report's own JSON.
        #[serde(flatten)]
        report: Box<Report>,
    },
}

impl Event {
    /// Microseconds since the start.
    pub fn at_us(&self) -> u64 {
        match self {
            Event::Started { at_us, .. }
            | Event::LimitUpdated { at_us, .. }
            | Event::Finding { at_us, .. }
            | Event::Note { at_us, .. }
            | Event::Exited { at_us, .. }
            | Event::Report { at_us, .. } => *at_us,
            Event::Stdout(output) | Event::Stderr(output) => output.at_us,
            Event::Sample(sample) => sample.at_us,
            Event::Connection(connection) => connection.at_us,
            Event::Violation(violation) => violation.at_us,
        }
    }
}

/// A piece of what the program wrote. As JSON, `data` is text and `bytes` how many bytes it was: bytes that are no UTF-8, a
/// character cut by the piece's end among them, become U+FFFD there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Microseconds since the start.
    pub at_us: u64,
    /// The bytes themselves.
    pub data: Vec<u8>,
}

impl Serialize for Output {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_struct("Output", 3)?;
        object.serialize_field("at_us", &self.at_us)?;
        object.serialize_field("data", &String::from_utf8_lossy(&self.data))?;
        object.serialize_field("bytes", &self.data.len())?;
        object.end()
    }
}
