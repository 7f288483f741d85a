//! What clients say and hear: a JSON object a line.
//!
//! A request is `{"command": ["ls", "-l"]}` or `{"script": {"language": "python", "source": "print(1)"}}`, and besides, if wanted:
//! `"id"` (any value, which every answer then has), `"stdin"` (a text), `"env"` (variables on top of the policy's), `"stream": true`,
//! and `"policy": {"limits": {...}}` with `memory`, `swap`, `cpu`, `pids` and `timeout`, each of which may be less than the server's
//! and never more.
//!
//! The answer is `{"report": {...}}`, the captured output in it, or `{"error": "...", "code": "..."}`. With `stream` events come
//! before it, as `{"event": {...}}`. Codes: `invalid`, `busy`, `not-found` and `denied` (the program), `gone` (the server stops),
//! `failed`.

use super::worker::{Task, Ticket};
use super::{Place, Pool};
use crate::error::{Error, Kind, Result};
use crate::sandbox::policy::{Limits, Policy};
use crate::sandbox::report::Report;
use crate::sandbox::supervise::Assignment;
use crate::sandbox::units::{Bytes, Percent, Span};
use crate::sandbox::{start, units};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Display;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

/// The longest request, in bytes.
pub(super) const REQUEST_MAX: usize = 8 << 20;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    #[serde(default)]
    id: Value,
    command: Option<Vec<String>>,
    script: Option<Script>,
    #[serde(default)]
    stdin: String,
    #[serde(default)]
    env: BTreeMap<String, String>,
    #[serde(default)]
    policy: Narrower,
    #[serde(default)]
    stream: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Script {
    language: String,
    source: String,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Narrower {
    limits: NarrowerLimits,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct NarrowerLimits {
    memory: Option<Bytes>,
    swap: Option<Bytes>,
    cpu: Option<Percent>,
    pids: Option<u64>,
    timeout: Option<Span>,
}

/// Languages, the programs that run them, and the option for a program as an argument.
const LANGUAGES: &[(&str, &[&str], &str)] = &[
    ("python", &["python3", "python"], "-c"),
    ("javascript", &["node", "nodejs", "bun"], "-e"),
    ("sh", &["sh"], "-c"),
    ("bash", &["bash"], "-c"),
    ("ruby", &["ruby"], "-e"),
    ("perl", &["perl"], "-e"),
    ("lua", &["lua", "lua5.4", "luajit"], "-e"),
    ("php", &["php"], "-r"),
    ("r", &["Rscript"], "-e"),
];

/// The longest source, in bytes: what execve(2) takes as one argument (`MAX_ARG_STRLEN`), less its end.
const SOURCE_MAX: usize = (128 << 10) - 1;

fn script(Script { language, source }: Script, policy: &Policy) -> Result<Vec<String>> {
    let Some((_, programs, option)) = LANGUAGES.iter().find(|(name, ..)| *name == language) else {
        let known: Vec<_> = LANGUAGES.iter().map(|(name, ..)| *name).collect();
        return Err(Error::invalid(format!("script.language: {language:?} is not among {}", known.join(", "))));
    };
    if source.len() > SOURCE_MAX {
        return Err(Error::invalid(format!("script.source: {} bytes, {SOURCE_MAX} are taken", source.len()))
            .hint("run the interpreter as a command, and pass the source as stdin"));
    }
    let path = policy.process.env.get("PATH").cloned().or_else(|| std::env::var("PATH").ok()).unwrap_or_default();
    let there = |name: &&&str| path.split(':').any(|dir| Path::new(dir).join(name).is_file());
    // In a root of its own it may be where this process can't see it.
    let program = programs.iter().find(there).unwrap_or(&programs[0]);
    Ok(vec![(*program).to_owned(), (*option).to_owned(), source])
}

/// The server's limits, with those that the client wants lower.
fn narrowed(server: &Limits, wanted: NarrowerLimits) -> Result<Limits> {
    fn lower<T: PartialOrd + Display>(name: &str, server: &mut Option<T>, wanted: Option<T>) -> Result<()> {
        match (&server, wanted) {
            (_, None) => {}
            (Some(most), Some(wanted)) if wanted > *most => {
                let what = format!("policy.limits.{name}: {wanted} is more than the server gives, which is {most}");
                return Err(Error::invalid(what));
            }
            (_, Some(wanted)) => *server = Some(wanted),
        }
        Ok(())
    }
    let mut limits = server.clone();
    lower("memory", &mut limits.memory, wanted.memory)?;
    lower("swap", &mut limits.swap, wanted.swap)?;
    lower("pids", &mut limits.pids, wanted.pids)?;
    lower("timeout", &mut limits.timeout, wanted.timeout)?;
    if wanted.cpu.is_some() {
        let quota = limits.cpu_quota.take().map(|(quota, period)| Percent(quota as f64 * 100.0 / period as f64));
        limits.cpu = limits.cpu.or(quota);
        lower::<units::Percent>("cpu", &mut limits.cpu, wanted.cpu)?;
    }
    Ok(limits)
}

fn read(request: &[u8], policy: &Policy) -> (Value, Result<(Assignment, Vec<u8>, bool)>) {
    let request: Request = match serde_json::from_slice(request) {
        Ok(request) => request,
        Err(e) => {
            let id = serde_json::from_slice::<Value>(request).ok().and_then(|mut all| Some(all.get_mut("id")?.take()));
            let error = Error::invalid(format!("the request is no JSON object of the right form: {e}")).hint(
                "of a prepared sandbox, policy.limits.memory, swap, cpu, pids and timeout can be lowered; the rest is the server's",
            );
            return (id.unwrap_or_default(), Err(error));
        }
    };
    let Request { id, command, script: source, stdin, env, policy: narrower, stream } = request;
    let checked = || {
        let command = match (command, source) {
            (Some(command), None) if !command.is_empty() => command,
            (None, Some(source)) => script(source, policy)?,
            _ => return Err(Error::invalid("a request has either a command, a list of words, or a script")),
        };
        if let Some(name) = env.keys().find(|name| name.is_empty() || name.contains('=')) {
            return Err(Error::invalid(format!("env: {name:?} is no name of a variable")));
        }
        let limits = narrowed(&policy.limits, narrower.limits)?;
        start::check(&Policy { limits: limits.clone(), ..policy.clone() })?;
        Ok((Assignment { command, env, limits }, stdin.into_bytes(), stream))
    };
    (id, checked())
}

fn code(error: &Error) -> &'static str {
    match error.kind() {
        Kind::Invalid => "invalid",
        Kind::Status if error.to_string().starts_with("busy") => "busy",
        Kind::ProgramNotFound => "not-found",
        Kind::ProgramDenied => "denied",
        Kind::Gone => "gone",
        _ => "failed",
    }
}

fn labelled(id: &Value, mut answer: Value) -> Value {
    if let (false, Some(object)) = (id.is_null(), answer.as_object_mut()) {
        object.insert("id".into(), id.clone());
    }
    answer
}

/// An error as an answer.
pub(super) fn refusal(id: &Value, error: &Error) -> Value {
    labelled(id, json!({"error": error.to_string(), "code": code(error)}))
}

/// A request that has been taken, or its refusal.
pub(super) struct Served<'p> {
    id: Value,
    /// Whether events come before the answer.
    pub stream: bool,
    result: Result<(Arc<Ticket>, Place<'p>)>,
}

/// Takes a request of a caller and gives it to a sandbox. `client` is watched: when it has gone, the sandbox is ended.
pub(super) fn take<'p>(
    pool: &'p Arc<Pool>,
    request: &[u8],
    caller: u32,
    client: &impl AsFd,
    gone: EpollFlags,
) -> Served<'p> {
    let begun = Instant::now();
    let (id, checked) = read(request, &pool.options.policy);
    let mut wanted = false;
    let result = checked.and_then(|(assignment, stdin, stream)| {
        wanted = stream;
        let place = pool.admit(caller)?;
        let ticket = Arc::new(Ticket::new(stream)?);
        let ready = pool.take()?;
        let client = watch(client, gone).ok();
        let task = Task { assignment, stdin, ticket: ticket.clone(), client, begun };
        ready.send(task).map_err(|_| Error::new(Kind::Gone, "the sandbox has gone"))?;
        Ok((ticket, place))
    });
    if result.is_err() {
        pool.metrics.refused();
    }
    Served { id, stream: wanted && result.is_ok(), result }
}

fn watch(client: &impl AsFd, gone: EpollFlags) -> nix::Result<Epoll> {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    epoll.add(client, EpollEvent::new(gone, 0))?;
    Ok(epoll)
}

impl Served<'_> {
    /// The next event to be sent, in a stream.
    pub fn event(&self) -> Option<Value> {
        let event = self.result.as_ref().ok()?.0.queue.next()?;
        Some(labelled(&self.id, json!({ "event": event })))
    }

    /// The client does not hear any more: the rest is for nobody.
    pub fn ignore(&self) {
        if let Ok((ticket, _)) = &self.result {
            ticket.give_up();
        }
    }

    /// The answer, waited for; an error comes with its code.
    pub fn answer(self) -> (Value, Option<&'static str>) {
        let report: Result<Report> = self.result.and_then(|(ticket, place)| {
            while ticket.queue.next().is_some() {}
            // One that has its answer counts no more.
            drop(place);
            ticket.result()
        });
        match report {
            Ok(report) => (labelled(&self.id, json!({ "report": report })), None),
            Err(error) => (refusal(&self.id, &error), Some(code(&error))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(request: &str, policy: &Policy) -> Result<Assignment> {
        read(request.as_bytes(), policy).1.map(|(assignment, ..)| assignment)
    }

    #[test]
    fn limits_are_only_lowered() {
        let mut policy = Policy::default();
        policy.limits.cpu_quota = Some((50_000, 100_000));
        let lower = |limits: &str| asked(&format!(r#"{{"command":["a"],"policy":{{"limits":{limits}}}}}"#), &policy);
        let lowered = lower(r#"{"cpu": 25, "memory": "1G", "timeout": "5s"}"#).unwrap().limits;
        assert_eq!((lowered.cpu, lowered.cpu_quota), (Some(Percent(25.0)), None));
        assert_eq!((lowered.memory, lowered.pids), (Some(Bytes(1 << 30)), policy.limits.pids));
        assert_eq!(lowered.timeout.map(|span| span.0.as_secs()), Some(5));
        assert_eq!(lower("{}").unwrap().limits, policy.limits);
        for more in [r#"{"cpu": 51}"#, r#"{"memory": "2049M"}"#, r#"{"swap": 1}"#, r#"{"pids": 513}"#] {
            assert!(lower(more).unwrap_err().to_string().contains("more than the server gives"), "{more}");
        }
    }

    #[test]
    fn an_id_comes_back_with_whatever_is_wrong() {
        let (id, wrong) = read(br#"{"id": {"a": 1}, "comand": []}"#, &Policy::default());
        assert_eq!((id, wrong.is_err()), (json!({"a": 1}), true));
        assert_eq!(read(b"nonsense", &Policy::default()).0, Value::Null);
        let busy = super::super::busy("all run".into());
        let answer = refusal(&json!(7), &busy);
        assert_eq!((&answer["id"], &answer["code"]), (&json!(7), &json!("busy")));
    }

    #[test]
    fn a_script_is_an_argument_of_its_interpreter() {
        let mut policy = Policy::default();
        policy.process.env.insert("PATH".into(), "/nowhere".into());
        let command = |language: &str| {
            let request = json!({"script": {"language": language, "source": "x y"}}).to_string();
            asked(&request, &policy).map(|assignment| assignment.command)
        };
        assert_eq!(command("python").unwrap(), ["python3", "-c", "x y"]);
        assert_eq!(command("javascript").unwrap(), ["node", "-e", "x y"]);
        assert!(command("perl6").unwrap_err().to_string().contains("perl, lua"));
    }
}
