//! Runs of the sandbox with their reports; after each of them nothing may be left.

use crate::support::container::Lines;
use crate::support::{Call, Out, Running, Test, Value, json, os, suite};
use std::fs;
use std::io::pipe;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A run that has ended.
#[derive(Debug)]
pub struct Ran {
    pub out: Out,
    pub report: Value,
    /// How long the call took as a whole.
    pub took: Duration,
}

impl Ran {
    /// What the program wrote to its standard output.
    #[track_caller]
    pub fn stdout(&self) -> &str {
        self.report["stdout"]["text"].as_str().unwrap_or_else(|| panic!("nothing captured: {}", self.report))
    }

    /// What the program wrote to its standard error.
    #[track_caller]
    pub fn stderr(&self) -> &str {
        self.report["stderr"]["text"].as_str().unwrap_or_else(|| panic!("nothing captured: {}", self.report))
    }

    /// It ended like this.
    #[track_caller]
    pub fn ended(self, outcome: Value, status: i32) -> Ran {
        let found = (&self.report["outcome"], self.out.code);
        assert_eq!(found, (&outcome, status), "{}\n{}", self.report, self.out.stderr);
        self
    }

    /// It exited with this status.
    #[track_caller]
    pub fn exited(self, code: i32) -> Ran {
        self.ended(json!({"cause": "exited", "code": code}), code)
    }

    /// A number of the report.
    #[track_caller]
    pub fn number(&self, key: &str) -> u64 {
        self.report[key].as_u64().unwrap_or_else(|| panic!("{key} is no number: {}", self.report))
    }

    /// User and system CPU time in microseconds.
    pub fn cpu(&self) -> u64 {
        self.number("cpu_user_us") + self.number("cpu_system_us")
    }

    /// A limit of the report.
    #[track_caller]
    pub fn limit(&self, name: &str) -> &Value {
        let limits = self.report["limits"].as_array().unwrap();
        limits.iter().find(|limit| limit["name"] == name).unwrap_or_else(|| panic!("no {name}: {}", self.report))
    }

    /// Whether a cgroup holds a limit; where not, something else that is named does, and a note says why.
    #[track_caller]
    pub fn by_cgroup(&self, name: &str) -> bool {
        let by = self.limit(name)["by"].as_str().unwrap();
        let held = by.starts_with("cgroup v");
        let notes = self.report["notes"].to_string();
        assert!(held || notes.contains("no cgroup is to be had"), "{name} is held by {by}: {notes}");
        held
    }
}

/// An ID for a sandbox. What brig makes of it on the host has the test's ID in its name.
pub fn new_id(t: &Test) -> String {
    format!("{}-s{}", t.id(), t.next_number())
}

/// The directory that the test's programs start in.
pub fn work(t: &Test) -> PathBuf {
    let dir = t.dir().join("work");
    fs::create_dir_all(&dir).unwrap();
    dir
}

/// Writes a file into [`work`].
pub fn file(t: &Test, name: &str, text: &str) -> PathBuf {
    let path = work(t).join(name);
    fs::write(&path, text).unwrap();
    path
}

/// `brig sandbox run` under this ID.
pub fn call<'t>(t: &'t Test, id: &str, flags: &[&str], command: &[&str]) -> Call<'t> {
    t.only_brig("others have no sandbox");
    t.call(&["sandbox", "run", "--id", id]).args(flags).args(command).cwd(&work(t))
}

/// Another command of the sandbox's.
pub fn tool<'t>(t: &'t Test, args: &[&str]) -> Call<'t> {
    t.only_brig("others have no sandbox");
    t.call(&["sandbox"]).args(args).cwd(&work(t))
}

/// To its end, with a say in how it is called; the program's streams are brig's own.
#[track_caller]
pub fn plain_with<'t>(t: &'t Test, flags: &[&str], command: &[&str], adjust: impl FnOnce(Call<'t>) -> Call<'t>) -> Out {
    let id = new_id(t);
    let out = adjust(call(t, &id, flags, command)).out();
    nothing_left(t, &id);
    out
}

/// As [`plain_with`], called in the usual way.
#[track_caller]
pub fn plain(t: &Test, flags: &[&str], command: &[&str]) -> Out {
    plain_with(t, flags, command, |call| call)
}

/// With `--json`, to its end: the report must have come.
#[track_caller]
pub fn run_with<'t>(t: &'t Test, flags: &[&str], command: &[&str], adjust: impl FnOnce(Call<'t>) -> Call<'t>) -> Ran {
    let begun = Instant::now();
    let mut took = Duration::ZERO;
    let out = plain_with(t, &[&["--json"], flags].concat(), command, |call| {
        took = begun.elapsed();
        adjust(call)
    });
    let took = begun.elapsed().saturating_sub(took);
    let report = out.json();
    assert_eq!(report["status"], out.code, "{report}");
    Ran { out, report, took }
}

/// As [`run_with`], called in the usual way.
#[track_caller]
pub fn run(t: &Test, flags: &[&str], command: &[&str]) -> Ran {
    run_with(t, flags, command, |call| call)
}

/// A shell script with `--json`, to its end.
#[track_caller]
pub fn sh(t: &Test, flags: &[&str], script: &str) -> Ran {
    run(t, flags, &["--", "sh", "-c", script])
}

/// What is left on the host of a sandbox that has ended.
pub fn left(t: &Test, id: &str) -> Vec<String> {
    let mut left = t.left();
    let user = nix::unistd::geteuid();
    let entries = |dir: &Path| fs::read_dir(dir).into_iter().flatten().flatten().collect::<Vec<_>>();
    for dir in [t.root().join("sandbox"), format!("/tmp/brig-sandbox-{user}").into()] {
        let named = entries(&dir).into_iter().filter(|e| e.file_name().to_string_lossy().contains(id));
        left.extend(named.map(|entry| format!("socket {}", entry.path().display())));
    }
    // They keep start-up files from being made, and are empty.
    let placeholder = |entry: &fs::DirEntry| {
        entry.file_name().to_string_lossy().starts_with('.')
            && (entry.metadata().is_ok_and(|m| m.is_file() && m.len() == 0)
                || fs::read_dir(entry.path()).is_ok_and(|mut inside| inside.next().is_none()))
    };
    let placeholders = entries(&work(t)).into_iter().filter(placeholder);
    left.extend(placeholders.map(|entry| format!("placeholder {}", entry.path().display())));
    left
}

#[track_caller]
pub fn nothing_left(t: &Test, id: &str) {
    let left = left(t, id);
    assert!(left.is_empty(), "the sandbox left {}", left.join("; "));
}

/// A run under way whose events are read as they come.
pub struct Stream {
    pub running: Running,
    pub id: String,
    pub lines: Lines,
    pub stdin: std::io::PipeWriter,
}

impl Stream {
    /// Starts it with `--json-lines`, the standard input a pipe.
    pub fn start(t: &Test, flags: &[&str], command: &[&str]) -> Stream {
        let id = new_id(t);
        let (output, theirs) = pipe().unwrap();
        let (input, stdin) = pipe().unwrap();
        let call = call(t, &id, &[&["--json-lines"], flags].concat(), command);
        let running = call.stdin(OwnedFd::from(input)).stdout(theirs.into()).spawn();
        Stream { running, id, lines: Lines::new(output.into()), stdin }
    }

    /// The next event of this kind; others are passed over.
    #[track_caller]
    pub fn event(&mut self, kind: &str) -> Value {
        while let Some(event) = self.next() {
            if event["event"] == kind {
                return event;
            }
        }
        panic!("no event {kind}")
    }

    /// The next event; None at the end.
    #[track_caller]
    pub fn next(&mut self) -> Option<Value> {
        let line = self.lines.next()?;
        Some(serde_json::from_str(&line).unwrap_or_else(|e| panic!("not JSON ({e}): {line}")))
    }
}

/// A program on the host, without which the test is skipped.
pub fn needs(program: &str) -> PathBuf {
    let places = ["/usr/local/bin", "/usr/bin", "/bin"].map(|dir| Path::new(dir).join(program));
    let found = places.into_iter().find(|path| path.is_file());
    found.unwrap_or_else(|| suite::skip(format!("{program} is not installed")))
}

/// A time on a machine of usual speed.
pub fn soon(millis: u64) -> Duration {
    Duration::from_millis(millis) * os::slowness()
}

/// So many milliseconds, more where everything takes longer, as `--timeout` takes them.
pub fn short(millis: u64) -> String {
    format!("{}ms", soon(millis).as_millis())
}
