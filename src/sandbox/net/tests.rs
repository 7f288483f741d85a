//! The proxies against real servers on the loopback interface.

use super::*;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::sync::mpsc::{Receiver, channel};
use std::thread::spawn;
use std::time::{Duration, Instant};

struct Rig {
    http: SocketAddr,
    socks: SocketAddr,
    rules: Shared,
    events: Receiver<Event>,
    proxies: Proxies,
}

fn rules(allow: &[String], deny: &[&str]) -> Rules {
    let allow = allow.iter().map(|text| text.parse().unwrap()).collect();
    Rules { allow, deny: deny.iter().map(|text| text.parse().unwrap()).collect(), ..Rules::default() }
}

/// Names of the tests: `two.test` is public and private at once, `gone.test` has no address, `never.test` must not be
/// asked for.
fn resolver(name: &str, port: u16) -> std::io::Result<Vec<SocketAddr>> {
    match name {
        "two.test" => {
            Ok(vec![SocketAddr::from(([169, 254, 169, 254], port)), SocketAddr::from(([127, 0, 0, 1], port))])
        }
        "gone.test" => Err(ErrorKind::NotFound.into()),
        "never.test" => panic!("a denied name was resolved"),
        _ => Ok(vec![SocketAddr::from(([127, 0, 0, 1], port))]),
    }
}

fn rig_with(rules: Rules, options: Options) -> Rig {
    let listener = || TcpListener::bind("127.0.0.1:0").unwrap();
    let (http, socks) = (listener(), listener());
    let (addresses, rules) = ((http.local_addr().unwrap(), socks.local_addr().unwrap()), Shared::new(rules));
    let (sink, events) = channel();
    let listeners = Listeners { http: Some(http), socks: Some(socks) };
    let proxies = Proxies::start(listeners, rules.clone(), move |event| drop(sink.send(event)), options).unwrap();
    Rig { http: addresses.0, socks: addresses.1, rules, events, proxies }
}

fn rig(rules: Rules) -> Rig {
    rig_with(rules, Options { resolver, ..Options::default() })
}

fn dial(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
}

fn all(mut stream: TcpStream) -> String {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Sends bytes, and returns the whole answer.
fn ask(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = dial(address);
    stream.write_all(bytes).unwrap();
    all(stream)
}

/// Gives back what it gets, to the client's end, and then says how many bytes that were.
fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            spawn(move || {
                let count = std::io::copy(&mut stream.try_clone().unwrap(), &mut stream).unwrap_or(0);
                let _ = stream.write_all(format!("[{count}]").as_bytes());
            });
        }
    });
    address
}

/// Answers one request with what it got: the head and as much more as is told.
fn mirror(more: usize) -> (SocketAddr, std::thread::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let thread = spawn(move || {
        let mut stream = dial_back(&listener);
        let got = read_head(&mut stream, more);
        stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nfine").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        // Nothing may come behind the body.
        got + &all(stream)
    });
    (address, thread)
}

fn dial_back(listener: &TcpListener) -> TcpStream {
    let stream = listener.accept().unwrap().0;
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
}

fn read_head(stream: &mut impl Read, more: usize) -> String {
    let (mut got, mut byte) = (Vec::new(), [0]);
    while !got.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).unwrap();
        got.push(byte[0]);
    }
    let mut rest = vec![0; more];
    stream.read_exact(&mut rest).unwrap();
    String::from_utf8([got, rest].concat()).unwrap()
}

/// A tunnel through CONNECT, after the proxy's answer.
fn tunnel(rig: &Rig, target: &str) -> TcpStream {
    let mut stream = dial(rig.http);
    stream.write_all(format!("CONNECT {target} HTTP/1.1\r\nHost: other.test\r\n\r\n").as_bytes()).unwrap();
    assert!(read_head(&mut stream, 0).starts_with("HTTP/1.1 200 "));
    stream
}

fn event(rig: &Rig) -> Event {
    rig.events.recv_timeout(Duration::from_secs(20)).unwrap()
}

fn localhost(port: u16) -> Vec<String> {
    vec![format!("localhost:{port}")]
}

#[test]
fn a_tunnel_carries_bytes_and_the_end_of_one_side() {
    let port = echo().port();
    let rig = rig(rules(&localhost(port), &[]));
    let mut stream = tunnel(&rig, &format!("LocalHost.:{port}"));
    stream.write_all(b"hello").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(all(stream), "hello[5]");
    let (begun, ended) = (event(&rig), event(&rig));
    assert_eq!((begun.stage, ended.stage, begun.id), (Stage::Begun, Stage::Ended, ended.id));
    assert_eq!((ended.via, ended.host.as_str(), ended.sent, ended.received), ("https", "localhost", 5, 8));
    assert_eq!(ended.reason, format!("allowed by the rule localhost:{port}"));
    assert!(ended.connection(begun.at).allowed);
}

#[test]
fn a_server_may_end_its_side_first() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let rig = rig(rules(&localhost(server.local_addr().unwrap().port()), &[]));
    let mut client = tunnel(&rig, &format!("localhost:{}", server.local_addr().unwrap().port()));
    let peer = dial_back(&server);
    peer.shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
    client.write_all(b"still here").unwrap();
    drop(client);
    assert_eq!(all(peer), "still here");
}

#[test]
fn a_large_transfer_to_a_slow_reader_arrives_whole() {
    let port = echo().port();
    let rig = rig(rules(&localhost(port), &[]));
    let mut stream = tunnel(&rig, &format!("localhost:{port}"));
    let mut writer = stream.try_clone().unwrap();
    // Nothing is read until far more than every buffer on the way holds has been offered.
    let (offered, started) = channel();
    let data: Vec<u8> = (0..32u32 << 20).map(|i| ((i * 7) >> 3) as u8).collect();
    let sent = data.clone();
    let thread = spawn(move || {
        writer.write_all(&sent[..1 << 16]).unwrap();
        offered.send(()).unwrap();
        writer.write_all(&sent[1 << 16..]).unwrap();
        writer.shutdown(Shutdown::Write).unwrap();
    });
    started.recv().unwrap();
    let mut got = Vec::new();
    stream.read_to_end(&mut got).unwrap();
    thread.join().unwrap();
    assert!(got.len() > data.len() && got[..data.len()] == data, "{} bytes", got.len());
}

#[test]
fn denials_say_why_and_what_would_help() {
    let rig = rig(rules(&["good.test:1".into(), "*.all.test".into(), "two.test".into()], &["bad.all.test"]));
    let denied = |target: &str, wanted: &str| {
        let said = ask(rig.http, format!("CONNECT {target} HTTP/1.1\r\n\r\n").as_bytes());
        assert!(said.starts_with("HTTP/1.1 403 Forbidden\r\n") && said.ends_with(wanted), "{target}: {said}");
        let told = event(&rig);
        assert!(told.stage == Stage::Denied && !told.connection(told.at).allowed, "{told:?}");
    };
    denied(
        "never.test:443",
        "brig: never.test:443 is not allowed, no rule allows it: add it with --allow-domain never.test\n",
    );
    denied("good.test:2", "add it with --allow-domain good.test\n");
    denied(
        "bad.all.test:1",
        "denied by the rule bad.all.test: take bad.all.test off the denied domains, or make it narrower\n",
    );
    denied(
        "x.all.test:1",
        "127.0.0.1 is private, and x.all.test resolves to it: allow the address itself with --allow-domain 127.0.0.1\n",
    );
    for odd in ["127.1:80", "0x7f.1:80", "2130706433:80", "[::ffff:127.0.0.1]:80", "127.0.0.1:80"] {
        denied(odd, "\n");
    }
    let said = ask(rig.http, b"GET http://never.test/x HTTP/1.1\r\nHost: good.test:1\r\n\r\n");
    assert!(said.starts_with("HTTP/1.1 403 "), "{said}");
}

#[test]
fn of_many_addresses_only_the_allowed_are_tried() {
    let port = echo().port();
    let rig = rig(rules(&["two.test".into(), "127.0.0.1".into(), "gone.test".into()], &[]));
    let mut stream = tunnel(&rig, &format!("two.test:{port}"));
    stream.write_all(b"x").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(all(stream), "x[1]");
    let said = ask(rig.http, b"CONNECT gone.test:443 HTTP/1.1\r\n\r\n");
    assert!(said.starts_with("HTTP/1.1 502 ") && said.contains("gone.test can't be resolved"), "{said}");
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    assert!(ask(rig.http, format!("CONNECT {closed} HTTP/1.1\r\n\r\n").as_bytes()).starts_with("HTTP/1.1 502 "));
    // The first one's end may be told after the next one's beginning.
    let told: Vec<_> = (0..6).map(|_| event(&rig)).collect();
    for id in 0..3 {
        let stages: Vec<_> = told.iter().filter(|event| event.id == id).map(|event| event.stage).collect();
        assert_eq!(stages, [Stage::Begun, Stage::Ended]);
    }
}

#[test]
fn a_plain_request_is_written_anew() {
    let (server, thread) = mirror(5);
    let port = server.port();
    let rig = rig(rules(&localhost(port), &[]));
    let said = ask(
        rig.http,
        format!(
            "POST http://localhost:{port}/a?b HTTP/1.1\r\nHost: evil.test\r\nProxy-Authorization: x\r\nX-Kept: 1\r\n\
             Connection: keep-alive, X-Dropped, Content-Length\r\nX-Dropped: 1\r\nContent-Length: 5\r\n\r\nhelloGET / HTTP/1.1\r\n\r\n"
        )
        .as_bytes(),
    );
    assert!(said.ends_with("\r\n\r\nfine"), "{said}");
    assert_eq!(
        thread.join().unwrap(),
        format!(
            "POST /a?b HTTP/1.1\r\nHost: localhost:{port}\r\nx-kept: 1\r\ncontent-length: 5\r\nConnection: close\r\n\r\nhello"
        )
    );
    let ended = [event(&rig), event(&rig)].map(|event| (event.via, event.stage));
    assert_eq!(ended, [("http", Stage::Begun), ("http", Stage::Ended)]);
}

#[test]
fn a_chunked_body_goes_through() {
    let chunks = "3\r\nabc\r\n0\r\n\r\n";
    let (server, thread) = mirror(chunks.len());
    let rig = rig(rules(&localhost(server.port()), &[]));
    let mut stream = dial(rig.http);
    let head = format!("PUT http://localhost:{} HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\na", server.port());
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(b"bc\r\n0\r\n\r\n").unwrap();
    assert!(all(stream).ends_with("fine"));
    let got = thread.join().unwrap();
    assert!(got.starts_with("PUT / HTTP/1.1\r\n") && got.ends_with(chunks), "{got}");
}

#[test]
fn garbage_is_refused() {
    let rig = rig(rules(&["*".into()], &[]));
    let get = |fields: &str| format!("GET http://never.test/ HTTP/1.1\r\n{fields}\r\n");
    let table = [
        ("\x16\x03\x01\x02garbage\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/1.1\r\n\r\n".into(), 400),
        ("GET https://never.test/ HTTP/1.1\r\n\r\n".into(), 400),
        ("GET http://user@never.test/ HTTP/1.1\r\n\r\n".into(), 400),
        ("GET http://127.0.0.1\\@never.test/ HTTP/1.1\r\n\r\n".into(), 400),
        ("CONNECT never.test HTTP/1.1\r\n\r\n".into(), 400),
        ("CONNECT never.test:99999 HTTP/1.1\r\n\r\n".into(), 400),
        ("CONNECT ::1:80 HTTP/1.1\r\n\r\n".into(), 400),
        (get("Content-Length: 1\r\nTransfer-Encoding: chunked\r\n"), 400),
        (get("Content-Length: 1\r\nContent-Length: 1\r\n"), 400),
        (get("Content-Length: +1\r\n"), 400),
        (get("Transfer-Encoding: gzip, chunked\r\n"), 400),
        (get("Host: a.test\r\nHost: b.test\r\n"), 400),
        (get("X: a\r\n b\r\n"), 400),
        (get("X: a\0b\r\n"), 400),
        (get("Content-Length : 1\r\n"), 400),
        (get(&"X: a\r\n".repeat(300)), 431),
        (get(&format!("X: {}\r\n", "a".repeat(70_000))), 431),
        ("a".repeat(70_000), 431),
    ];
    for (text, status) in table {
        let said = ask(rig.http, text.as_bytes());
        assert!(said.starts_with(&format!("HTTP/1.1 {status} ")), "{:.80}: {said}", text);
    }
    let mut half = dial(rig.http);
    half.write_all(b"GET http://x").unwrap();
    half.shutdown(Shutdown::Write).unwrap();
    assert!(all(half).starts_with("HTTP/1.1 400 "));
    assert_eq!(ask(rig.socks, b"GET / HTTP/1.1\r\n\r\n"), "");
    assert!(rig.events.try_recv().is_err());
}

/// The reply code of a SOCKS request of this address, and the tunnel.
fn socks(rig: &Rig, command: u8, address: &[u8], port: u16) -> (u8, TcpStream) {
    let mut stream = dial(rig.socks);
    stream.write_all(&[5, 2, 0, 2]).unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer[..2]).unwrap();
    assert_eq!(answer[..2], [5, 0]);
    stream.write_all(&[&[5, command, 0], address, &port.to_be_bytes()].concat()).unwrap();
    stream.read_exact(&mut answer[..10]).unwrap();
    (answer[1], stream)
}

#[test]
fn socks_by_every_kind_of_address() {
    let port = echo().port();
    let rig = rig(rules(&["localhost".into(), "gone.test".into()], &[]));
    let named = |name: &str| [&[3, name.len() as u8], name.as_bytes()].concat();
    let mapped = [&[4][..], &Ipv4Addr::LOCALHOST.to_ipv6_mapped().octets()].concat();
    for address in [vec![1, 127, 0, 0, 1], mapped, named("localhost"), named("127.0.0.1")] {
        let (code, mut stream) = socks(&rig, 1, &address, port);
        assert_eq!(code, 0, "{address:?}");
        stream.write_all(b"abc").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(all(stream), "abc[3]");
        let ended = [event(&rig), event(&rig)][1].clone();
        assert_eq!((ended.via, ended.sent, ended.received), ("socks5", 3, 6));
    }
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    for (command, address, port, code) in [
        (1, named("never.test"), 443, 2),
        (1, vec![1, 10, 0, 0, 1], 443, 2),
        (1, named("0x7f.1"), 443, 2),
        (1, named(""), 443, 2),
        (1, named("localhost"), 0, 2),
        (1, named("gone.test"), 443, 4),
        (1, named("localhost"), closed, 5),
        (2, named("localhost"), port, 7),
    ] {
        assert_eq!(socks(&rig, command, &address, port).0, code, "{address:?}:{port}");
    }
    let bell = socks(&rig, 1, &named("a..\x07\u{202e}"), 80);
    assert_eq!(bell.0, 2);
    let told = rig.events.try_iter().last().unwrap();
    assert!(!format!("{}{}", told.host, told.reason).contains(['\x07', '\u{202e}']), "{told:?}");
    assert_eq!(ask(rig.socks, &[5, 1, 0, 5, 1, 0, 9]).as_bytes()[3], 8);
    // No method that is known: 0xff.
    assert_eq!(ask(rig.socks, &[5, 1, 2]), "\x05\u{fffd}");
}

#[test]
fn rules_are_replaced_while_it_runs() {
    let port = echo().port();
    let rig = rig(rules(&[], &[]));
    let target = format!("localhost:{port}");
    let head = format!("CONNECT {target} HTTP/1.1\r\n\r\n");
    assert!(ask(rig.http, head.as_bytes()).starts_with("HTTP/1.1 403 "));
    rig.rules.replace(rules(&localhost(port), &[]));
    let mut open = tunnel(&rig, &target);
    rig.rules.replace(Rules::default());
    assert!(ask(rig.http, head.as_bytes()).starts_with("HTTP/1.1 403 "));
    open.write_all(b"x").unwrap();
    open.shutdown(Shutdown::Write).unwrap();
    assert_eq!(all(open), "x[1]");
}

#[test]
fn more_connections_than_places_wait() {
    let port = echo().port();
    let rig = rig(rules(&localhost(port), &[]));
    let target = format!("localhost:{port}");
    let mut open: Vec<_> = (0..256).map(|_| tunnel(&rig, &target)).collect();
    let mut waiting: Vec<_> = (0..44).map(|_| dial(rig.http)).collect();
    for stream in &mut waiting {
        stream.write_all(format!("CONNECT {target} HTTP/1.1\r\n\r\n").as_bytes()).unwrap();
    }
    waiting[0].set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    assert_eq!(waiting[0].read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
    waiting[0].set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    open.clear();
    for stream in &mut waiting {
        assert!(read_head(stream, 0).starts_with("HTTP/1.1 200 "));
    }
}

#[test]
fn an_idle_connection_is_ended() {
    let port = echo().port();
    let options = Options { resolver, idle_timeout: Duration::from_millis(50), ..Options::default() };
    let rig = rig_with(rules(&localhost(port), &[]), options);
    assert_eq!(all(tunnel(&rig, &format!("localhost:{port}"))), "");
    assert_eq!(ask(rig.http, b"GET"), "");
}

#[test]
fn a_mitm_proxy_gets_what_is_its() {
    let dir = std::env::temp_dir().join(format!("brig-net-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let listener = UnixListener::bind(dir.join("mitm")).unwrap();
    let thread = spawn(move || {
        for answer in ["HTTP/1.1 200 Fine\r\n\r\nearly", "HTTP/1.1 200 OK\r\n\r\nplain", "HTTP/1.1 407 No\r\n\r\n"] {
            let mut stream = listener.accept().unwrap().0;
            let head = read_head(&mut stream, 0);
            let wanted =
                if answer.ends_with("plain") { "GET http://a.test/x HTTP/1.1\r\n" } else { "CONNECT a.test:443 " };
            assert!(head.starts_with(wanted), "{head}");
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    let mut lists = rules(&["a.test".into()], &[]);
    (lists.mitm, lists.mitm_socket) = (vec!["*".parse().unwrap()], Some(dir.join("mitm")));
    let rig = rig_with(lists, Options { resolver: |_, _| panic!("not for brig to resolve"), ..Options::default() });
    assert_eq!(all(tunnel(&rig, "a.test:443")), "early");
    assert!(ask(rig.http, b"GET http://a.test/x HTTP/1.1\r\n\r\n").ends_with("plain"));
    assert!(ask(rig.http, b"CONNECT a.test:443 HTTP/1.1\r\n\r\n").contains("answered 407"));
    assert!(ask(rig.http, b"CONNECT b.test:443 HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 403 "));
    thread.join().unwrap();
    std::fs::remove_dir_all(dir).unwrap();
    assert_eq!(event(&rig).via, "mitm");
}

#[test]
fn the_callers_own_proxy_gets_every_byte() {
    let port = echo().port();
    let options = Options { http_proxy_port: Some(port), ..Options::default() };
    let rig = rig_with(Rules::default(), options);
    let mut stream = dial(rig.http);
    stream.write_all(b"anything").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(all(stream), "anything[8]");
    assert_eq!(event(&rig).reason, "the caller's own proxy");
}

#[test]
fn the_environment_names_what_there_is() {
    let of =
        |variables: Vec<(String, String)>, name: &str| variables.into_iter().find(|(n, _)| n == name).map(|(_, v)| v);
    let both = || environment(Some(3128), Some(1080));
    assert_eq!(of(both(), "HTTPS_PROXY").as_deref(), Some("http://127.0.0.1:3128"));
    assert_eq!(of(both(), "all_proxy").as_deref(), Some("socks5h://127.0.0.1:1080"));
    assert_eq!(of(both(), "no_proxy").as_deref(), Some("localhost,127.0.0.1,::1"));
    assert_eq!(of(environment(None, Some(1)), "http_proxy"), None);
    assert_eq!(of(environment(Some(2), None), "ALL_PROXY").as_deref(), Some("http://127.0.0.1:2"));
    assert_eq!(environment(None, None), []);
}

/// Counted in a process of its own, since other tests open and close at the same time.
#[test]
fn stop_leaves_nothing() {
    const ALONE: &str = "BRIG_TEST_NET_ALONE";
    if std::env::var_os(ALONE).is_none() {
        let name = format!("{}::stop_leaves_nothing", module_path!().split_once("::").unwrap().1);
        let out = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", &name, "--nocapture"])
            .env(ALONE, "1")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&out.stdout);
        assert!(out.status.success() && said.contains("1 passed"), "{said}{}", String::from_utf8_lossy(&out.stderr));
        return;
    }
    let count = |what: &str| std::fs::read_dir(format!("/proc/self/{what}")).unwrap().count();
    let before = (count("fd"), count("task"));
    // A server that never answers: its queue takes the connections.
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = server.local_addr().unwrap().port();
    let rig = rig(rules(&localhost(port), &[]));
    let tunnels: Vec<_> = (0..20).map(|_| tunnel(&rig, &format!("localhost:{port}"))).collect();
    let silent = [dial(rig.http), dial(rig.socks)];
    // A pipe that is full both ways at the moment of the stop.
    let full = &tunnels[0];
    full.set_nonblocking(true).unwrap();
    while (&*full).write(&[0; 4096]).is_ok() {}
    let Rig { proxies, events, .. } = rig;
    let start = Instant::now();
    proxies.stop();
    assert!(start.elapsed() < Duration::from_secs(5));
    let stages: Vec<_> = events.try_iter().map(|event| event.stage).collect();
    assert_eq!(stages.iter().filter(|&&stage| stage == Stage::Ended).count(), 20);
    for mut stream in tunnels.into_iter().skip(1).chain(silent) {
        assert!(matches!(stream.read(&mut [0]), Ok(0) | Err(_)));
    }
    drop((server, events));
    // A joined thread may take the kernel a moment more to unlist.
    let deadline = Instant::now() + Duration::from_secs(5);
    while (count("fd"), count("task")) != before && Instant::now() < deadline {
        std::thread::yield_now();
    }
    assert_eq!((count("fd"), count("task")), before);
    assert!(TcpStream::connect((IpAddr::V4(Ipv4Addr::LOCALHOST), port)).is_err());
}
