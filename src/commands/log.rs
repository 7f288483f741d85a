//! `--log`: one line a message, as text or as JSON objects with `level`, `msg` and `time`, which engines read.

use super::Global;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;

/// How grave a message is, gravest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// The command failed.
    Error,
    /// Something was left out.
    Warn,
    /// For those who look for a fault.
    Debug,
}

#[derive(Debug)]
enum Destination {
    Nowhere,
    File(File),
    /// systemd's native protocol, with the identifier.
    Journal(UnixDatagram, String),
    /// RFC 3164 lines to /dev/log, with the tag.
    Syslog(UnixDatagram, String),
}

/// The log, as the global flags want it.
#[derive(Debug, Clone)]
pub struct Log {
    destination: Arc<Destination>,
    json: bool,
    least: Level,
}

impl Log {
    pub(super) fn open(global: &Global) -> io::Result<Log> {
        let level = if global.debug { Some("debug") } else { global.log_level.as_deref() };
        let least = match level {
            Some("error") => Level::Error,
            Some("debug" | "trace") => Level::Debug,
            _ => Level::Warn,
        };
        let named = |name: &str| if name.is_empty() { "brig".to_owned() } else { name.to_owned() };
        let destination = match global.log.as_deref() {
            None | Some("") => Destination::Nowhere,
            Some(text) => match text.split_once(':') {
                Some(("journald", name)) => Destination::Journal(datagram("/run/systemd/journal/socket")?, named(name)),
                Some(("syslog", name)) => Destination::Syslog(datagram("/dev/log")?, named(name)),
                Some(("file", path)) => Destination::File(append(path)?),
                _ => Destination::File(append(text)?),
            },
        };
        Ok(Log { destination: Arc::new(destination), json: global.log_format == "json", least })
    }

    /// Writes a message; a log that can't be written to must not stop a container.
    pub fn write(&self, level: Level, message: &str) {
        if level > self.least {
            return;
        }
        let (word, priority) = match level {
            Level::Error => ("error", 3),
            Level::Warn => ("warning", 4),
            Level::Debug => ("debug", 7),
        };
        let flat = message.replace('\n', " ");
        let _ = match &*self.destination {
            Destination::Nowhere if level == Level::Warn || level == Level::Debug => {
                writeln!(io::stderr(), "brig: {word}: {message}")
            }
            Destination::Nowhere => Ok(()),
            Destination::File(file) => {
                let time = crate::clock::now();
                let line = if self.json {
                    serde_json::json!({"level": word, "msg": message, "time": time}).to_string()
                } else {
                    format!("time={time} level={word} msg={flat:?}")
                };
                // One write a line: several commands append to one log.
                let mut file = file;
                file.write_all(format!("{line}\n").as_bytes())
            }
            Destination::Journal(socket, name) => {
                let entry = format!("MESSAGE={flat}\nPRIORITY={priority}\nSYSLOG_IDENTIFIER={name}\n");
                socket.send(entry.as_bytes()).map(drop)
            }
            Destination::Syslog(socket, name) => {
                // Facility 1, user-level messages.
                socket.send(format!("<{}>{name}: {flat}", 8 + priority).as_bytes()).map(drop)
            }
        };
    }
}

fn append(path: &str) -> io::Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o644)
        .open(path)
        .map_err(|e| io::Error::new(e.kind(), format!("{path}: {e}")))
}

fn datagram(path: &str) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.connect(path).map_err(|e| io::Error::new(e.kind(), format!("{path}: {e}")))?;
    Ok(socket)
}
