//! The library: sandboxes of a program with many threads. The suite is one itself, and the payload's verb `library` another,
//! which has the process for itself and looks at what is left in it.

use crate::support::{Call, Test, Value, cases, json, os, suite};
use brig::error::Kind;
use brig::sandbox::policy::{LintMode, Workdir};
use brig::sandbox::report::Mode;
use brig::sandbox::{Bind, Change, Event, Input, Outcome, Profile, Running, Sandbox, Stream};
use std::fs::{self, File};
use std::io::{Read, Seek, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

cases![
    a_report,
    limits_and_files,
    a_script,
    what_is_wrong,
    what_it_comes_to,
    streams,
    events_as_they_come,
    orders,
    a_pipe_to_the_program,
    dropped,
    more_output_than_anybody_reads,
    a_program_that_can_not_start,
    many_at_once,
];

/// A shell command in the test's directory.
fn shell(t: &Test, text: &str) -> Sandbox {
    t.only_brig("the library is brig's");
    let sandbox = Sandbox::new("/bin/sh").args(["-c", text]).cwd(t.dir()).env("BRIG_TEST", t.id()).id(t.new_id());
    sandbox.timeout(bound())
}

/// How long a program may run on where something has gone wrong: then its test fails, and waits no more.
fn bound() -> Duration {
    Duration::from_secs(30) * os::slowness()
}

fn out(sandbox: Sandbox) -> String {
    sandbox.run().unwrap().stdout.unwrap().text
}

fn a_report(t: &Test) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let told = seen.clone();
    let watch = move |event: &Event| {
        let line = serde_json::to_value(event).unwrap();
        told.lock().unwrap().push(line["event"].as_str().unwrap().to_owned());
    };
    let sandbox = shell(t, "read a; echo $a $X $1; echo no >&2; exit 3").args(["0", "c"]).env("X", "b").stdin("a\n");
    let report = sandbox.on_event(watch).run().unwrap();
    assert_eq!((report.outcome, report.status), (Outcome::Exited { code: 3 }, 3));
    assert_eq!((report.stdout.unwrap().text.as_str(), report.stderr.unwrap().text.as_str()), ("a b c\n", "no\n"));
    assert_eq!(report.mode, if os::is_root() { Mode::Privileged } else { Mode::UserNamespace });
    let seen = seen.lock().unwrap();
    assert_eq!((seen.first().unwrap().as_str(), seen.last().unwrap().as_str()), ("started", "exited"), "{seen:?}");
    let bare = out(shell(t, "env").clear_env().env("Y", "z"));
    let names: Vec<_> = bare.lines().filter_map(|line| Some(line.split_once('=')?.0)).collect();
    assert!(names.contains(&"Y") && names.iter().all(|n| ["Y", "BRIG_TEST", "HOME", "PATH", "PWD"].contains(n)), "{bare}");
}

fn limits_and_files(t: &Test) {
    fs::write(t.dir().join("seen"), "here").unwrap();
    let bind = Bind { source: t.dir().join("seen"), target: Some("/tmp/seen".into()), write: false };
    let sandbox = shell(t, "cat /tmp/seen; echo new >made; cat made").memory("64M").cpu_percent(150).pids(9).bind(bind);
    let report = sandbox.profile(Profile::IoHeavy.max(Profile::Compute)).diff().run().unwrap();
    assert_eq!(report.stdout.unwrap().text, "herenew\n");
    let value = |name: &str| report.limits.iter().find(|limit| limit.name == name).unwrap().value.as_str();
    assert_eq!((value("memory"), value("cpu"), value("pids")), ("64M", "150 %", "9"));
    let changes: Vec<_> = report.changes.iter().map(|change| change.path.as_str()).collect();
    assert_eq!(changes, [t.dir().join("made").to_str().unwrap()]);
    assert!(!t.dir().join("made").exists());
    shell(t, "echo new >made").commit().run().unwrap();
    assert_eq!(fs::read_to_string(t.dir().join("made")).unwrap(), "new\n");
    let report = shell(t, "sleep 1000").timeout(Duration::from_millis(100)).run().unwrap();
    assert_eq!((report.outcome, report.status), (Outcome::TimedOut, 124));
    let private = shell(t, "ls").with(|policy| policy.files.workdir = Workdir::Temporary);
    assert_eq!(out(private), "");
}

fn a_script(t: &Test) {
    let file = t.dir().join("a.sh");
    fs::write(&file, "echo $1 from a script\n").unwrap();
    let report = Sandbox::script(&file).arg("hello").cwd(t.dir()).timeout(bound()).run().unwrap();
    assert_eq!(report.stdout.unwrap().text, "hello from a script\n");
    let file = t.dir().join("a.js");
    fs::write(&file, "eval(process.argv[2]);\n").unwrap();
    let strict = Sandbox::script(&file).with(|policy| {
        policy.lint = LintMode::Deny;
        // What there is serves as the interpreter: nothing is to run.
        policy.process.env.insert("PATH".into(), t.dir().display().to_string());
    });
    fs::write(t.dir().join("node"), "").unwrap();
    let error = strict.run().unwrap_err().to_string();
    assert!(error.contains("lint is deny"), "{error}");
}

fn what_is_wrong(t: &Test) {
    let wrong = [
        shell(t, "").memory("much").cpu_percent(-1),
        shell(t, "").cpu_percent(f64::NAN),
        shell(t, "").memory(1),
        shell(t, "").allow_domain("not a domain"),
        Sandbox::new("").cwd("/nowhere/at/all"),
        shell(t, "").stdin(Input::Pipe),
    ];
    for (sandbox, words) in wrong.into_iter().zip(["memory: ", "cpu_percent: ", "/limits/memory", "/network", "", "spawn"]) {
        let error = sandbox.run().unwrap_err();
        assert!(error.to_string().contains(words), "{words}: {error}");
    }
    let error = shell(t, "").memory("much").spawn().unwrap_err();
    assert_eq!(error.kind(), Kind::Invalid);
}

fn what_it_comes_to(t: &Test) {
    let spec = serde_json::to_value(shell(t, "true").memory("64M").uid(7).net_host().spec().unwrap()).unwrap();
    assert_eq!(spec.pointer("/linux/resources/memory/limit"), Some(&json!(64 << 20)));
    assert_eq!(spec.pointer("/process/user/uid"), Some(&json!(7)));
    assert_eq!(spec.pointer("/process/args/2"), Some(&json!("true")));
    assert!(!spec.pointer("/linux/namespaces").unwrap().to_string().contains("network"));
}

fn streams(t: &Test) {
    let mut file = File::options().read(true).write(true).create(true).truncate(true).open(t.dir().join("out")).unwrap();
    let copy = file.try_clone().unwrap();
    let report = shell(t, "cat; echo no >&2")
        .stdin(File::open("/etc/hostname").unwrap())
        .stdout(Stream::File(copy.into()))
        .stderr(Stream::Null)
        .run()
        .unwrap();
    assert!(report.stdout.is_none() && report.stderr.is_none());
    let mut text = String::new();
    file.rewind().unwrap();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, fs::read_to_string("/etc/hostname").unwrap());
    let captured = shell(t, "echo 123456").keep_output(3).run().unwrap().stdout.unwrap();
    assert_eq!((captured.text.as_str(), captured.bytes, captured.truncated), ("123", 7, true));
    let bytes = vec![b'x'; 1 << 20];
    assert_eq!(out(shell(t, "wc -c; echo more >&0 || echo refused").stdin(bytes)).split_whitespace().next(), Some("1048576"));
}

fn events_as_they_come(t: &Test) {
    let sandbox = shell(t, "echo one; read go; echo two >&2").stdin(Input::Pipe).sample(Duration::from_millis(5));
    let mut running = sandbox.spawn().unwrap();
    let pid = running.pid().unwrap();
    let mut stdin = running.stdin().unwrap();
    let mut told = Vec::new();
    while !told.iter().any(|event: &Value| event["event"] == "stdout") {
        assert!(os::readable(&running.as_fd().as_raw_fd(), os::PATIENCE));
        while let Some(event) = running.try_event() {
            told.push(serde_json::to_value(event).unwrap());
        }
    }
    assert_eq!((&told[0]["event"], &told[0]["pid"]), (&json!("started"), &json!(pid)));
    assert_eq!(told[0]["id"], running.id());
    assert!(!running.is_over());
    stdin.write_all(b"\n").unwrap();
    told.extend((&mut running).map(|event| serde_json::to_value(event).unwrap()));
    assert!(running.is_over() && running.try_event().is_none());
    assert!(os::readable(&running.as_fd().as_raw_fd(), Duration::ZERO), "the end can be polled for");
    let of = |kind: &str| told.iter().find(|event| event["event"] == kind).unwrap_or_else(|| panic!("no {kind}: {told:?}"));
    assert_eq!((&of("stdout")["data"], &of("stderr")["data"]), (&json!("one\n"), &json!("two\n")));
    assert_eq!(of("exited")["status"], 0);
    assert_eq!(running.wait().unwrap().stdout.unwrap().text, "one\n");
}

fn orders(t: &Test) {
    let running = shell(t, "trap 'exit 7' TERM; echo up; while :; do sleep 0.2; done").memory("128M").spawn().unwrap();
    let mut running = running;
    assert!(running.by_ref().any(|event| matches!(event, Event::Stdout(_))));
    match running.update(Change { memory: Some("96M".parse().unwrap()), ..Change::default() }) {
        Ok(()) => {
            let updated = running.by_ref().find_map(|event| match event {
                Event::LimitUpdated { limit, .. } => Some(limit.value),
                _ => None,
            });
            assert_eq!(updated.as_deref(), Some("96M"));
        }
        // Without a cgroup.
        Err(error) => assert_eq!(error.kind(), Kind::Status, "{error}"),
    }
    let error = running.update(Change { allow_domains: Some(vec!["a.example".into()]), ..Change::default() }).unwrap_err();
    assert!(error.to_string().contains("without a network by domain"), "{error}");
    running.kill(15).unwrap();
    for _ in running.by_ref() {}
    assert_eq!(running.kill(15).unwrap_err().kind(), Kind::Gone);
    assert_eq!(running.wait().unwrap().outcome, Outcome::Exited { code: 7 });
    let running = shell(t, "sleep 1000").spawn().unwrap();
    running.kill(9).unwrap();
    assert_eq!(running.wait().unwrap().outcome, Outcome::Killed { signal: 9 });
}

fn a_pipe_to_the_program(t: &Test) {
    let mut running = shell(t, "cat").stdin(Input::Pipe).spawn().unwrap();
    let mut stdin = running.stdin().unwrap();
    assert!(running.stdin().is_none());
    stdin.write_all(b"word").unwrap();
    drop(stdin);
    assert_eq!(running.wait().unwrap().stdout.unwrap().text, "word");
    // Nobody takes it: the program reads the end.
    assert_eq!(shell(t, "cat; echo end").stdin(Input::Pipe).spawn().unwrap().wait().unwrap().stdout.unwrap().text, "end\n");
}

fn dropped(t: &Test) {
    let running = shell(t, "trap '' TERM; sleep 1000 & sleep 1000").spawn().unwrap();
    let pid = os::pidfd(running.pid().unwrap()).unwrap();
    drop(running);
    assert!(os::readable(&pid, Duration::ZERO), "it is ended when the handle is gone");
    drop(shell(t, "sleep 1000").spawn().unwrap());
    // With output that nobody has read.
    let running = shell(t, "cat /dev/zero").spawn().unwrap();
    running.pid().unwrap();
    drop(running);
}

fn more_output_than_anybody_reads(t: &Test) {
    const ALL: u64 = 8 << 20;
    let text = format!("head -c {ALL} /dev/zero; echo done >&2");
    let mut running = shell(t, &text).spawn().unwrap();
    assert!(running.by_ref().any(|event| matches!(event, Event::Stdout(_))));
    // What is neither read nor waited for waits in the program: an order is heard all the same.
    running.kill(18).unwrap();
    let mut got = 0;
    while !running.is_over() {
        assert!(os::readable(&running.as_fd().as_raw_fd(), os::PATIENCE));
        while let Some(event) = running.try_event() {
            if let Event::Stdout(output) = event {
                got += output.data.len() as u64;
            }
        }
    }
    // All but the piece that was read before.
    assert!((ALL - (1 << 20)..ALL).contains(&got), "{got}");
    let report = running.wait().unwrap();
    let stdout = report.stdout.unwrap();
    assert_eq!((stdout.bytes, stdout.truncated, stdout.text.len()), (ALL, true, 1 << 20));
    let report = shell(t, &text).spawn().unwrap().wait().unwrap();
    assert_eq!((report.stdout.unwrap().bytes, report.stderr.unwrap().text.as_str()), (ALL, "done\n"));
}

fn a_program_that_can_not_start(t: &Test) {
    let mut running = Sandbox::new("no-such-program").env("PATH", "/usr/bin:/bin").id(t.new_id()).spawn().unwrap();
    assert_eq!((running.pid(), running.next().is_none(), running.is_over()), (None, true, true));
    assert_eq!(running.kill(9).unwrap_err().kind(), Kind::Gone);
    assert_eq!(running.wait().unwrap_err().kind(), Kind::ProgramNotFound);
    assert_eq!(Sandbox::new("no-such-program").env("PATH", "/usr/bin:/bin").id(t.new_id()).run().unwrap_err().kind(), Kind::ProgramNotFound);
}

fn many_at_once(t: &Test) {
    t.only_brig("the library is brig's");
    let payload = suite::scratch().join("payload");
    let count = if os::slowness() > 1 { 4 } else { 20 };
    let verb = format!("library={}:{count}", t.id());
    let call = Call::of(t, &[payload.to_str().unwrap(), &verb]).env("BRIG_TEST_SLOWNESS", &os::slowness().to_string());
    let seen = call.patient().ok().json();
    let seen = &seen[verb];
    assert_eq!(seen["left"], json!([]), "{seen:#}");
    assert_eq!(seen["statuses"], json!(vec![0; count]));
    // The others run on until they are told: waiting for them, it would not have ended at all.
    assert!(seen["short_ms"].as_u64().unwrap() < 10_000 * u64::from(os::slowness()), "{seen:#}");
    assert_eq!(seen["panicked"], json!("as planned"));
}

/// The verb `library`, in a process of its own, with a mark and a count: so many sandboxes at once, one of them short; then one whose callback panics. Says
/// what this process has in the end that it had not before.
pub fn in_a_process_of_its_own(words: &str) -> Value {
    let (mark, count) = words.split_once(':').unwrap();
    let count: usize = count.parse().unwrap();
    let named = |text: &str| Sandbox::new("/bin/sh").args(["-c", text]).cwd("/").env("BRIG_TEST", mark).timeout(bound());
    // What the first one makes for good, such as what is known of the kernel.
    named("true").run().unwrap();
    let before = had();
    let mut long: Vec<Running> =
        (1..count).map(|_| named("read word; echo $word").stdin(Input::Pipe).spawn().unwrap()).collect();
    let begun = Instant::now();
    let short = named("echo short").spawn().unwrap().wait().unwrap();
    let short_ms = begun.elapsed().as_millis() as u64;
    let mut ends: Vec<_> = long.iter_mut().map(|running| running.stdin().unwrap()).collect();
    ends.iter_mut().for_each(|end| end.write_all(b"word\n").unwrap());
    let mut statuses = vec![short.status];
    for running in long {
        let report = running.wait().unwrap();
        assert_eq!(report.stdout.unwrap().text, "word\n");
        statuses.push(report.status);
    }
    drop(ends);
    std::panic::set_hook(Box::new(|_| {}));
    let panics = || named("sleep 1000").on_event(|_| panic!("as planned"));
    let spawned = std::panic::catch_unwind(|| panics().spawn().unwrap().wait().map(|report| report.status));
    let panicked = spawned.unwrap_err().downcast_ref::<&str>().map(ToString::to_string);
    std::panic::catch_unwind(|| panics().run().map(|report| report.status)).unwrap_err();
    let domains = named("true").allow_domain("example.com").spawn().unwrap().wait().unwrap();
    assert_eq!(domains.status, 0, "{:?}", domains.notes);
    let left = || had().into_iter().filter(|one| !before.contains(one)).collect::<Vec<_>>();
    // A thread that was joined is in the list until the kernel has done with it, a moment later.
    let since = Instant::now();
    while !left().is_empty() && since.elapsed() < os::PATIENCE {
        std::thread::yield_now();
    }
    json!({"left": left(), "statuses": statuses, "short_ms": short_ms, "panicked": panicked})
}

/// Open files, threads and children of this process.
fn had() -> Vec<String> {
    let names = |dir: &str| {
        let entries = fs::read_dir(dir).unwrap().flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect::<Vec<_>>()
    };
    let files = names("/proc/self/fd").into_iter().filter_map(|fd| {
        let leads_to = fs::read_link(format!("/proc/self/fd/{fd}")).ok()?;
        Some(format!("fd {fd} {}", leads_to.display()))
    });
    let threads = names("/proc/self/task");
    let children = threads.iter().flat_map(|thread| {
        let children = fs::read_to_string(format!("/proc/self/task/{thread}/children")).unwrap_or_default();
        children.split_whitespace().map(|pid| format!("child {pid}")).collect::<Vec<_>>()
    });
    let children: Vec<_> = children.collect();
    files.chain(threads.iter().map(|thread| format!("thread {thread}"))).chain(children).collect()
}
