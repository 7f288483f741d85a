//! `brig sandbox serve`: prepared sandboxes over a socket and over HTTP.

use crate::support::{Running, Test, Value, cases, host, json, os};
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

cases![
    commands_and_scripts,
    limits_are_lowered_and_never_raised,
    requests_that_are_wrong,
    events_before_the_report,
    a_client_that_goes,
    each_sandbox_is_used_once,
    too_many_at_once,
    so_many_a_minute,
    a_policy_that_can_not_be,
    over_http,
    clients_that_say_nothing,
    a_stop_lets_what_runs_end,
    a_second_signal_ends_what_runs,
    killed_servers,
    the_own_binary_is_out_of_reach,
    what_is_left_is_not_for_sandboxes_to_write,
    under_load,
];

/// A server, and what it is reached by.
struct Server {
    running: Running,
    socket: PathBuf,
}

/// A connection.
struct Client(BufReader<UnixStream>);

/// How long anything may take before its test fails.
fn patience() -> Duration {
    os::PATIENCE * os::slowness()
}

fn serve(t: &Test, flags: &[&str]) -> Server {
    t.only_brig("a pool of sandboxes is brig's");
    let socket = t.dir().join(format!("pool-{}.sock", t.next_number()));
    let call = t.call(&["sandbox", "serve", "--socket", socket.to_str().unwrap()]).args(flags);
    let (reader, writer) = std::io::pipe().unwrap();
    let running = call.stdout(writer.into()).spawn();
    let mut line = String::new();
    assert!(os::readable(&reader, os::PATIENCE), "the server does not come up");
    BufReader::new(reader).read_line(&mut line).unwrap();
    if line.is_empty() {
        panic!("no server: {}", running.wait().stderr);
    }
    assert_eq!(line.trim(), format!("listening on {}", socket.display()));
    Server { running, socket }
}

impl Server {
    fn client(&self) -> Client {
        let stream = UnixStream::connect(&self.socket).unwrap();
        stream.set_read_timeout(Some(patience())).unwrap();
        Client(BufReader::new(stream))
    }

    fn ask(&self, request: Value) -> Value {
        self.client().ask(request)
    }

    /// Asks it to stop; nothing may be left.
    #[track_caller]
    fn stop(self) {
        os::kill(self.running.pid(), 15);
        let pid = self.running.pid();
        self.running.wait().ok();
        assert!(!self.socket.exists());
        // Of an ID that this process gave.
        assert_eq!(host::cgroups_named(&format!("-{pid}-")), Vec::<PathBuf>::new());
    }
}

impl Client {
    fn say(&mut self, request: &Value) {
        self.0.get_mut().write_all(format!("{request}\n").as_bytes()).unwrap();
    }

    fn hear(&mut self) -> Value {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|e| panic!("{line:?}: {e}"))
    }

    fn ask(&mut self, request: Value) -> Value {
        self.say(&request);
        self.hear()
    }
}

fn shell(text: &str) -> Value {
    json!({"command": ["/bin/sh", "-c", text]})
}

/// A request with more keys.
fn with(mut request: Value, more: Value) -> Value {
    request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    request
}

#[track_caller]
fn stdout(answer: &Value) -> &str {
    answer["report"]["stdout"]["text"].as_str().unwrap_or_else(|| panic!("{answer:#}"))
}

fn commands_and_scripts(t: &Test) {
    t.needs_threads();
    let server = serve(t, &["--pool", "1", "--env", "X=server"]);
    assert_eq!(fs::metadata(&server.socket).unwrap().permissions().mode() & 0o777, 0o600);
    let mut client = server.client();
    let answer = client.ask(with(shell("cat; echo $X $Y; echo no >&2; exit 3"), json!({"stdin": "in\n", "env": {"Y": "z"}, "id": [1]})));
    let report = &answer["report"];
    assert_eq!((stdout(&answer), &report["stderr"]["text"]), ("in\nserver z\n", &json!("no\n")), "{report:#}");
    assert_eq!((&answer["id"], &report["status"]), (&json!([1]), &json!(3)));
    assert_eq!(report["command"][0], "/bin/sh");
    let answer = client.ask(json!({"script": {"language": "sh", "source": "echo $X; pwd"}, "env": {"X": "client"}}));
    assert_eq!(stdout(&answer), format!("client\n{}\n", t.dir().display()));
    let answer = client.ask(json!({"command": ["no-such-program"]}));
    assert_eq!(answer["code"], "not-found", "{answer}");
    assert!(answer["error"].as_str().unwrap().contains("\"no-such-program\""), "{answer}");
    // Its input ends, and it still hears.
    client.say(&shell("echo last"));
    client.0.get_ref().shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(stdout(&client.hear()), "last\n");
    server.stop();
}

fn limits_are_lowered_and_never_raised(t: &Test) {
    t.needs_threads();
    let server = serve(t, &["--pool", "1", "--timeout", "1000s", "--memory", "256M"]);
    let limits = |limits: Value| json!({"policy": {"limits": limits}});
    let answer = server.ask(with(shell("sleep 1000"), limits(json!({"timeout": "200ms"}))));
    assert_eq!(answer["report"]["status"], 124, "{answer}");
    if os::is_root() {
        let answer = server.ask(with(shell("true"), limits(json!({"memory": "64M", "pids": 9}))));
        let listed = answer["report"]["limits"].as_array().unwrap();
        let value = |name: &str| &listed.iter().find(|limit| limit["name"] == name).unwrap()["value"];
        assert_eq!((value("memory"), value("pids")), (&json!("64M"), &json!("9")));
        let grow = "x=xxxxxxxxxxxxxxxx; while :; do x=$x$x; done";
        let answer = server.ask(with(shell(grow), limits(json!({"memory": "32M"}))));
        assert_eq!(answer["report"]["outcome"]["cause"], "out_of_memory", "{answer:#}");
        // Maybe too little for a program; that is no reason to run it behind weaker walls.
        let answer = server.ask(with(shell("echo ran"), limits(json!({"memory": "1M"}))));
        assert_ne!(answer["report"]["mode"], "confined", "{answer:#}");
    }
    for more in [json!({"memory": "257M"}), json!({"timeout": "1001s"}), json!({"pids": 1_000_000})] {
        let answer = server.ask(with(shell("true"), limits(more)));
        assert_eq!(answer["code"], "invalid");
        assert!(answer["error"].as_str().unwrap().contains("more than the server gives"), "{answer}");
    }
    server.stop();
}

fn requests_that_are_wrong(t: &Test) {
    t.needs_threads();
    let server = serve(t, &["--pool", "1"]);
    let mut client = server.client();
    let command = || json!({"command": ["true"]});
    for (request, words) in [
        (json!([]), "no JSON object"),
        (json!({}), "either a command"),
        (json!({"command": []}), "either a command"),
        (with(command(), json!({"script": {"language": "sh", "source": ""}})), "either a command"),
        (json!({"script": {"language": "cobol", "source": ""}}), "not among python"),
        (json!({"script": {"language": "sh", "source": "#".repeat(200_000)}}), "pass the source as stdin"),
        (with(command(), json!({"policy": {"network": {"mode": "host"}}})), "the rest is the server's"),
        (with(command(), json!({"policy": {"limits": {"memory": "1"}}})), "/limits/memory"),
        (with(command(), json!({"env": {"a=b": ""}})), "no name of a variable"),
        (with(command(), json!({"sdtin": ""})), "sdtin"),
        (json!({"command": ["true", "x".repeat(300_000)]}), "too long"),
        (json!({"command": ["true\u{0}"]}), "NUL"),
    ] {
        let answer = client.ask(with_id(request));
        assert!(answer["error"].as_str().unwrap().contains(words), "{words}: {answer}");
        assert_eq!(answer["code"], "invalid", "{answer}");
    }
    assert_eq!(client.ask(shell("exit 4"))["report"]["status"], 4);
    server.stop();
}

fn with_id(request: Value) -> Value {
    if request.is_object() { with(request, json!({"id": "one"})) } else { request }
}

fn events_before_the_report(t: &Test) {
    t.needs_threads();
    // More than waits for a reader at most.
    let many = if os::slowness() > 1 { 1_200_000 } else { 5_000_000 };
    let server = serve(t, &["--pool", "1"]);
    let mut client = server.client();
    client.say(&with(shell(&format!("echo a; head -c {many} /dev/zero >&2")), json!({"stream": true, "id": 5})));
    let (mut kinds, mut bytes) = (Vec::new(), 0);
    let report = loop {
        let mut said = client.hear();
        assert_eq!(said["id"], 5);
        if !said["report"].is_null() {
            break said["report"].take();
        }
        bytes += said["event"]["bytes"].as_u64().unwrap_or(0);
        kinds.push(said["event"]["event"].as_str().unwrap().to_owned());
    };
    assert_eq!((kinds.first().unwrap().as_str(), kinds.last().unwrap().as_str()), ("started", "exited"));
    assert_eq!((bytes, &report["stderr"]["bytes"]), (many + 2, &json!(many)));
    server.stop();
}

fn a_client_that_goes(t: &Test) {
    t.needs_threads();
    let server = serve(t, &["--pool", "1", "--max-running", "1"]);
    let mut client = server.client();
    client.say(&with(shell("echo up; sleep 1000"), json!({"stream": true})));
    client.hear();
    drop(client);
    // There is but one sandbox: it has been ended, or this would wait.
    assert_eq!(stdout(&server.ask(shell("echo next"))), "next\n");
    server.stop();
}

fn each_sandbox_is_used_once(t: &Test) {
    t.needs_threads();
    let server = serve(t, &["--pool", "2"]);
    for _ in 0..6 {
        let answer = server.ask(shell("ls /tmp/mark 2>/dev/null; touch /tmp/mark here; echo $$"));
        assert_eq!(stdout(&answer), "2\n");
    }
    assert!(!t.dir().join("here").exists());
    server.stop();
}

fn too_many_at_once(t: &Test) {
    t.needs_threads();
    let server = serve(t, &["--pool", "1", "--max-running", "1", "--max-waiting", "1", "--per-user", "3"]);
    let long = || {
        let mut client = server.client();
        client.say(&with(shell("echo up; read a; sleep 1000"), json!({"stream": true})));
        client
    };
    let mut first = long();
    first.hear();
    let mut second = server.client();
    second.say(&shell("echo second"));
    // It waits before it could be seen to: whoever comes third is refused, or is what waits, and the second is refused.
    let mut third = server.client();
    third.say(&shell("echo third"));
    // Whichever comes last is refused, while the other one waits for the first to end.
    let mut two = [second, third];
    let end = Instant::now() + patience();
    let refused = loop {
        assert!(Instant::now() < end, "one of them is refused");
        let told = |client: &Client| os::readable(client.0.get_ref(), Duration::from_millis(10));
        if let Some(refused) = two.iter().position(told) {
            break refused;
        }
    };
    let busy = two[refused].hear();
    assert_eq!(busy["code"], "busy", "{busy}");
    drop(first);
    assert_eq!(two[1 - refused].hear()["report"]["status"], 0);
    server.stop();
}

fn so_many_a_minute(t: &Test) {
    t.needs_threads();
    let server = serve(t, &["--pool", "1", "--per-minute", "2"]);
    for _ in 0..2 {
        assert_eq!(server.ask(shell("true"))["report"]["status"], 0);
    }
    let answer = server.ask(shell("true"));
    assert_eq!(answer["code"], "busy");
    assert!(answer["error"].as_str().unwrap().contains("2 requests a minute"), "{answer}");
    server.stop();
}

fn a_policy_that_can_not_be(t: &Test) {
    t.needs_threads();
    t.only_brig("a pool of sandboxes is brig's");
    let socket = t.dir().join("none.sock");
    let fails = |flags: &[&str], words: &str| {
        let out = t.call(&["sandbox", "serve", "--socket", socket.to_str().unwrap()]).args(flags).out();
        out.fails(&[words]);
        assert!(!socket.exists());
    };
    fails(&["--pool", "0"], "--pool");
    let file = t.dir().join("file");
    fs::write(&file, "kept").unwrap();
    t.call(&["sandbox", "serve", "--socket", file.to_str().unwrap()]).out().fails(&["--socket", "is no socket"]);
    assert_eq!(fs::read_to_string(&file).unwrap(), "kept");
    fails(&["--tty"], "no terminal");
    fails(&["--root", "/no/such/root"], "/files/view");
    let (open, short) = (t.dir().join("open"), t.dir().join("short"));
    fs::write(&open, "x".repeat(32)).unwrap();
    fs::set_permissions(&open, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(&short, "x").unwrap();
    fs::set_permissions(&short, fs::Permissions::from_mode(0o600)).unwrap();
    fails(&["--http", "127.0.0.1:0", "--token-file", open.to_str().unwrap()], "read by others");
    fails(&["--http", "127.0.0.1:0", "--token-file", short.to_str().unwrap()], "16 characters");
    fails(&["--http", "0.0.0.0:0", "--token-file", short.to_str().unwrap()], "reached from other hosts");
    fails(&["--http", "127.0.0.1:0"], "--token-file");
}

fn over_http(t: &Test) {
    t.needs_threads();
    const TOKEN: &str = "0123456789abcdef0123";
    let file = t.dir().join("token");
    fs::write(&file, format!("{TOKEN}\n")).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    // A port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let address = format!("127.0.0.1:{port}");
    let server = serve(t, &["--pool", "1", "--http", &address, "--token-file", file.to_str().unwrap()]);
    let raw = |text: &str| {
        let mut stream = TcpStream::connect(&address).unwrap();
        stream.set_read_timeout(Some(patience())).unwrap();
        stream.write_all(text.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        let status: u16 = head.split_whitespace().nth(1).unwrap_or_default().parse().unwrap();
        (status, body.to_owned())
    };
    let run = |token: &str, body: &str| {
        let length = body.len();
        raw(&format!("POST /run HTTP/1.1\r\nhost: x\r\nauthorization: bearer {token}\r\ncontent-length: {length}\r\n\r\n{body}"))
    };
    let get = |path: &str| raw(&format!("GET {path} HTTP/1.1\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"));
    assert_eq!(raw("GET /health HTTP/1.1\r\n\r\n"), (200, "ok\n".into()));
    let (status, body) = run(TOKEN, &shell("echo hello").to_string());
    let answer: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, stdout(&answer)), (200, "hello\n"));
    let (status, body) = run(TOKEN, &with(shell("echo hello"), json!({"stream": true})).to_string());
    let lines: Vec<Value> = body.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((status, lines.len() >= 4, stdout(lines.last().unwrap())), (200, true, "hello\n"), "{body}");
    for token in ["", "0123456789abcdef0124", "0123456789abcdef01234", "0123456789abcdef012"] {
        assert_eq!(run(token, "{}").0, 401, "{token}");
    }
    assert_eq!(raw("GET /metrics HTTP/1.1\r\n\r\n").0, 401);
    assert_eq!(run(TOKEN, "{}").0, 400);
    assert_eq!(run(TOKEN, r#"{"command":["no-such-program"]}"#).0, 400);
    assert_eq!(get("/run").0, 405);
    assert_eq!(get("/else").0, 404);
    assert_eq!(raw("nonsense\r\n\r\n").0, 400);
    let head = format!("POST /run HTTP/1.1\r\nAuthorization: Bearer {TOKEN}\r\n");
    assert_eq!(raw(&format!("{head}Content-Length: 99999999\r\n\r\n")).0, 413);
    assert_eq!(raw(&format!("{head}Content-Length: -1\r\n\r\n")).0, 400);
    assert_eq!(raw(&format!("{head}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n")).0, 501);
    assert_eq!(raw(&format!("{head}X: {}\r\n\r\n", "x".repeat(17 << 10))).0, 431);
    let (status, text) = get("/metrics");
    assert_eq!(status, 200);
    for line in [
        "brig_pool_starts_total 2",
        "brig_pool_ends_total{outcome=\"success\"} 2",
        "brig_pool_ends_total{outcome=\"not_started\"} 1",
        "brig_pool_ends_total{outcome=\"refused\"} 1",
        "brig_pool_duration_seconds_count 2",
    ] {
        assert!(text.lines().any(|l| l == line), "{line}: {text}");
    }
    server.stop();
}

fn clients_that_say_nothing(t: &Test) {
    t.needs_threads();
    let file = t.dir().join("token");
    fs::write(&file, "0123456789abcdef0123").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    // A port that was free a moment ago.
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let server = serve(t, &["--pool", "1", "--http", &address.to_string(), "--token-file", file.to_str().unwrap()]);
    let mut silent: Vec<_> = (0..260).map(|_| TcpStream::connect(address).unwrap()).collect();
    // Over the limit, a connection is closed; those before it have been seen to by then.
    let last = silent.last_mut().unwrap();
    last.set_read_timeout(Some(patience())).unwrap();
    assert_eq!(last.read(&mut [0]).unwrap_or(0), 0);
    assert_eq!(stdout(&server.ask(shell("echo heard"))), "heard\n");
    drop(silent);
    server.stop();
}

fn a_stop_lets_what_runs_end(t: &Test) {
    t.needs_threads();
    let server = serve(t, &["--pool", "2"]);
    let mut client = server.client();
    client.say(&with(shell("echo up; sleep 0.3; echo done"), json!({"stream": true})));
    client.hear();
    let idle = server.client();
    let signalled = Instant::now();
    server.stop();
    assert!(signalled.elapsed() < patience());
    let last = std::iter::from_fn(|| Some(client.hear())).find(|said| !said["report"].is_null()).unwrap();
    assert_eq!(stdout(&last), "up\ndone\n");
    drop(idle);
}

fn a_second_signal_ends_what_runs(t: &Test) {
    t.needs_threads();
    let server = serve(t, &["--pool", "1"]);
    let mut client = server.client();
    client.say(&with(shell("trap '' TERM; echo up; sleep 1000"), json!({"stream": true})));
    while client.hear()["event"]["event"] != "stdout" {}
    os::kill(server.running.pid(), 15);
    // Once the socket is gone, the first signal has been seen to.
    let end = Instant::now() + patience();
    while UnixStream::connect(&server.socket).is_ok() {
        assert!(Instant::now() < end, "it takes no heed of the signal");
    }
    server.stop();
    let last = std::iter::from_fn(|| Some(client.hear())).find(|said| !said["report"].is_null()).unwrap();
    assert_eq!(last["report"]["outcome"], json!({"cause": "killed", "signal": 9}));
}

/// Four clients, a hundred requests each (two and twenty where that takes long); says how fast it was.
/// What a server that was killed has left is removed by the next command, whichever it is; that of one that lives stays.
fn killed_servers(t: &Test) {
    t.needs_threads();
    let names = |dir: &Path| -> BTreeSet<_> { fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name()).collect() };
    let work = t.dir().join("work");
    fs::create_dir(&work).unwrap();
    let cwd = work.to_str().unwrap();
    let living = serve(t, &["--pool", "1"]);
    let marked = || host::processes_marked(&format!("BRIG_TEST={}", t.id()));
    let alone = marked().len();
    for next in [&["list"][..], &["run", "--", "true"], &["serve"]] {
        let server = serve(t, &["--pool", "2", "-w", "--cwd", cwd]);
        let mut client = server.client();
        client.say(&with(shell("echo up; sleep 1000"), json!({"stream": true})));
        client.hear();
        let pid = server.running.pid();
        assert!(names(&work).contains(OsStr::new(".zshrc")), "start-up files could be made");
        let had_cgroups = !host::cgroups_named(&format!("-{pid}-")).is_empty();
        assert!(had_cgroups || !os::is_root());
        server.running.kill();
        let begun = Instant::now();
        while marked().len() > alone {
            assert!(begun.elapsed() < patience(), "{:?}", marked());
        }
        assert_eq!(!host::cgroups_named(&format!("-{pid}-")).is_empty(), had_cgroups, "it is left until somebody comes by");
        match next {
            ["serve"] => serve(t, &["--pool", "1"]).stop(),
            words => drop(t.call(&[&["sandbox"], words].concat()).ok()),
        }
        assert_eq!(host::cgroups_named(&format!("-{pid}-")), Vec::<PathBuf>::new(), "{next:?}");
        assert_eq!(names(&work), BTreeSet::new(), "{next:?}");
    }
    assert_eq!(stdout(&living.ask(shell("echo still"))), "still\n");
    living.stop();
}

/// As of containers (CVE-2019-5736).
fn the_own_binary_is_out_of_reach(t: &Test) {
    t.needs_threads();
    t.needs_call("mountapi");
    let server = serve(t, &["--pool", "1"]);
    let exe = fs::File::open(format!("/proc/{}/exe", server.running.pid())).unwrap();
    let flags = nix::sys::statvfs::fstatvfs(&exe).unwrap().flags();
    assert!(flags.contains(nix::sys::statvfs::FsFlags::ST_RDONLY) || !os::is_root(), "{flags:?}");
    server.stop();
}

/// A state directory in what may be written: who could write what a killed sandbox left could have anything empty removed.
fn what_is_left_is_not_for_sandboxes_to_write(t: &Test) {
    t.needs_threads();
    let state = t.root();
    let server = serve(t, &["--pool", "1", "--allow-write", state.parent().unwrap().to_str().unwrap()]);
    let ask = |what: &str| stdout(&server.ask(shell(&format!("{what} && echo done")))).to_owned();
    let (within, beside) = (state.join("sandbox/x.ledger"), state.parent().unwrap().join("beside"));
    assert_eq!(ask(&format!("mkdir {}", beside.display())), "done\n");
    assert_eq!(ask(&format!("mkdir {}", within.display())), "");
    assert_eq!(ask(&format!("mv {} {}", state.display(), beside.display())), "");
    assert!(!within.exists());
    server.stop();
}

fn under_load(t: &Test) {
    t.needs_threads();
    let (clients, each) = if os::slowness() > 1 { (2, 20) } else { (4, 100) };
    let server = serve(t, &["--pool", &clients.to_string()]);
    let begun = Instant::now();
    let mut took: Vec<Duration> = std::thread::scope(|threads| {
        let one = || {
            let mut client = server.client();
            let request = json!({"command": ["/bin/true"]});
            let ask = |_| {
                let begun = Instant::now();
                let answer = client.ask(request.clone());
                assert_eq!(answer["report"]["status"], 0, "{answer}");
                begun.elapsed()
            };
            (0..each).map(ask).collect::<Vec<_>>()
        };
        let clients: Vec<_> = (0..clients).map(|_| threads.spawn(one)).collect();
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
    });
    let all = begun.elapsed();
    took.sort();
    let at = |part: usize| took[took.len() * part / 100].as_micros();
    let rate = took.len() as f64 / all.as_secs_f64();
    println!("pool: {} requests of {clients} clients, {rate:.0} a second, p50 {} us, p99 {} us", took.len(), at(50), at(99));
    server.stop();
}
