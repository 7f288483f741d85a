//! The network: what may be reached, by which ways, and that there are no others.

use super::*;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixDatagram, UnixListener, UnixStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// A server of the host: hears one line (and the rest of a request's head), answers, closes. It ends with the test.
pub(super) struct Server {
    heard: Arc<Mutex<Vec<String>>>,
    stop: Arc<AtomicBool>,
    wake: Box<dyn Fn()>,
    thread: Option<JoinHandle<()>>,
    pub port: u16,
}

impl Server {
    pub(super) fn tcp(address: &str) -> Server {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let accept = move || listener.accept().map(|(stream, _)| stream);
        let wake = move || drop(TcpStream::connect(address));
        Server::new(accept, wake, |s| s.try_clone().unwrap(), address.port())
    }

    pub(super) fn unix(address: UnixAddr) -> Server {
        let listener = UnixListener::bind_addr(&address).unwrap();
        let accept = move || listener.accept().map(|(stream, _)| stream);
        let wake = move || drop(UnixStream::connect_addr(&address));
        Server::new(accept, wake, |s| s.try_clone().unwrap(), 0)
    }

    pub(super) fn at(path: &Path) -> Server {
        Server::unix(UnixAddr::from_pathname(path).unwrap())
    }

    fn new<S: Read + Write + Send + 'static>(
        accept: impl Fn() -> std::io::Result<S> + Send + 'static,
        wake: impl Fn() + 'static,
        copy: fn(&S) -> S,
        port: u16,
    ) -> Server {
        let (heard, stop) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (hears, stops) = (heard.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            while let Ok(stream) = accept() {
                if stops.load(Ordering::SeqCst) {
                    return;
                }
                let _ = answer(copy(&stream), stream, &hears);
            }
        });
        Server { heard, stop, wake: Box::new(wake), thread: Some(thread), port }
    }

    /// The first lines of what came, so far.
    pub(super) fn heard(&self) -> Vec<String> {
        self.heard.lock().unwrap().clone()
    }
}

/// `pong` for `ping`, a page for a request, and for CONNECT what a proxy says, and then one of them.
fn answer(from: impl Read, mut to: impl Write, heard: &Mutex<Vec<String>>) -> std::io::Result<()> {
    let mut from = BufReader::new(from);
    loop {
        let mut first = String::new();
        from.read_line(&mut first)?;
        let first = first.trim_end().to_owned();
        heard.lock().unwrap().push(first.clone());
        if first == "ping" {
            return to.write_all(b"pong");
        }
        let mut line = String::from("x");
        while !line.trim_end().is_empty() {
            line.clear();
            from.read_line(&mut line)?;
        }
        if !first.starts_with("CONNECT ") {
            return write!(to, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\npage");
        }
        to.write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        (self.wake)();
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// The answer to one verb, as text.
fn said(seen: &Value, verb: &str) -> String {
    seen[verb]["ok"].as_str().unwrap_or_else(|| panic!("{verb}: {seen}")).to_owned()
}

pub(super) fn d_allowed_domains(t: &Test) {
    t.needs_threads();
    let p = Place::new(t);
    let (open, shut) = (Server::tcp("127.0.0.1:0"), Server::tcp("127.0.0.1:0"));
    let get = |host: &str, port: u16| format!("get=3128:http://{host}:{port}/x");
    let verbs = [get("127.0.0.1", open.port), get("localhost", open.port), get("127.0.0.1", shut.port), get("localhost", shut.port)];
    let words: Vec<&str> = verbs.iter().map(String::as_str).collect();
    let address = format!("127.0.0.1:{}", open.port);
    let report = p.report(&["--allow-domain", &address], &words);
    assert!(said(&report["saw"], words[0]).ends_with("\r\n\r\npage"), "{report}");
    for denied in &words[1..] {
        assert!(said(&report["saw"], denied).starts_with("HTTP/1.1 403 "), "{denied}: {report}");
    }
    assert!(said(&report["saw"], words[2]).contains("--allow-domain 127.0.0.1"), "{report}");
    assert_eq!((open.heard(), shut.heard()), (vec!["GET /x HTTP/1.1".into()], vec![]));
    let name = format!("localhost:{}", open.port);
    let seen = p.see(&["--allow-domain", &name], &words);
    assert!(said(&seen, words[1]).ends_with("page") && said(&seen, words[2]).contains(" 403 "), "{seen}");
    // The report names each, allowed and denied.
    let connections = report["connections"].as_array().unwrap();
    let told: Vec<(&Value, &Value)> = connections.iter().map(|c| (&c["port"], &c["allowed"])).collect();
    assert_eq!(told.iter().filter(|(_, allowed)| **allowed == json!(true)).count(), 1, "{report}");
    assert_eq!((told.len(), connections[0]["via"].as_str()), (4, Some("http")), "{report}");
    // No list is nobody; and what programs do that heed the variables.
    let seen = p.see(&["--net", "domains"], &words[..1]);
    assert!(said(&seen, words[0]).contains(" 403 "), "{seen}");
    if Path::new("/usr/bin/curl").exists() {
        let script = format!("curl -s --noproxy '' http://{address}/y");
        assert_eq!(p.sh(&["--allow-domain", &address], &script).ok().stdout, "page");
    }
}

/// With a proxy on a unix socket for it, no name has to be resolved.
fn by_name(p: &Place, server: &Path, allow: &[&str], deny: &[&str], hosts: &[&str]) -> Vec<bool> {
    let server = server.display().to_string();
    let mut flags = vec!["--mitm-socket", &server];
    allow.iter().for_each(|rule| flags.extend(["--allow-domain", rule, "--mitm-domain", rule]));
    deny.iter().for_each(|rule| flags.extend(["--deny-domain", rule]));
    let verbs: Vec<String> = hosts.iter().map(|host| format!("get=3128:http://{host}/")).collect();
    let seen = p.see(&flags, &verbs.iter().map(String::as_str).collect::<Vec<_>>());
    let reached = |verb: &String| {
        let text = said(&seen, verb);
        assert!(text.ends_with("page") || text.starts_with("HTTP/1.1 403 "), "{verb}: {text}");
        text.ends_with("page")
    };
    verbs.iter().map(reached).collect()
}

pub(super) fn d_wildcards(t: &Test) {
    t.needs_threads();
    let p = Place::new(t);
    let socket = short(t, "w");
    let server = Server::at(&socket);
    let hosts = ["a.brig.test", "A.b.BRIG.test.", "brig.test", "evilbrig.test", "a.brig.test.evil.test", "127.0.0.1", "a.brig.test:81"];
    assert_eq!(by_name(&p, &socket, &["*.brig.test"], &[], &hosts), [true, true, false, false, false, false, true]);
    assert_eq!(by_name(&p, &socket, &["*.brig.test:80"], &[], &hosts), [true, true, false, false, false, false, false]);
    assert_eq!(by_name(&p, &socket, &["brig.test"], &[], &hosts), [false, false, true, false, false, false, false]);
    assert_eq!(server.heard().len(), 6, "{:?}", server.heard());
    p.sh(&["--allow-domain", "a.*.test"], "true").code(125).fails(&["a.*.test"]);
}

pub(super) fn d_denied_first(t: &Test) {
    t.needs_threads();
    let p = Place::new(t);
    let socket = short(t, "d");
    let server = Server::at(&socket);
    let hosts = ["a.brig.test", "bad.brig.test", "x.bad.brig.test", "b.brig.test:81"];
    let deny = ["bad.brig.test", "*.bad.brig.test", "b.brig.test:81"];
    assert_eq!(by_name(&p, &socket, &["*.brig.test"], &deny, &hosts), [true, false, false, false]);
    assert_eq!(server.heard().len(), 1);
    drop(server);
    let host = Server::tcp("127.0.0.1:0");
    let (rule, url) = (format!("127.0.0.1:{}", host.port), format!("get=3128:http://127.0.0.1:{}/", host.port));
    let seen = p.see(&["--allow-domain", "127.0.0.0/8", "--deny-domain", &rule], &[&url]);
    assert!(said(&seen, &url).contains(" 403 ") && said(&seen, &url).contains("denied by"), "{seen}");
    assert!(host.heard().is_empty());
    // What can never be reached is a mistake.
    p.sh(&["--allow-domain", &rule, "--deny-domain", "127.0.0.0/8"], "true").code(125).fails(&["never be allowed"]);
}

pub(super) fn d_http_connect_socks5(t: &Test) {
    t.needs_threads();
    let p = Place::new(t);
    let (open, shut) = (Server::tcp("127.0.0.1:0"), Server::tcp("127.0.0.1:0"));
    let rule = format!("127.0.0.1:{}", open.port);
    let verbs = |port: u16| {
        [format!("get=3128:http://127.0.0.1:{port}/"), format!("connect=3128:127.0.0.1:{port}"), format!("socks=1080:127.0.0.1:{port}")]
    };
    let (good, bad) = (verbs(open.port), verbs(shut.port));
    let words: Vec<&str> = good.iter().chain(&bad).map(String::as_str).collect();
    let report = p.report(&["--allow-domain", &rule], &words);
    let seen = &report["saw"];
    assert!(said(seen, &good[0]).ends_with("page"), "{seen}");
    assert!(said(seen, &good[1]).ends_with("|pong") && said(seen, &good[2]) == "pong", "{seen}");
    assert!(said(seen, &bad[0]).contains(" 403 ") && said(seen, &bad[1]).contains(" 403 "), "{seen}");
    // "Connection not allowed by ruleset" (RFC 1928 section 6).
    assert_eq!(said(seen, &bad[2]), "refused 2");
    assert!(shut.heard().is_empty());
    let mut ways: Vec<&str> =
        report["connections"].as_array().unwrap().iter().filter(|c| c["allowed"] == true).map(|c| c["via"].as_str().unwrap()).collect();
    ways.sort_unstable();
    assert_eq!(ways, ["http", "https", "socks5"]);
    // Variables lead there.
    let script = "env | grep -ic '^https\\?_proxy=http://127.0.0.1:3128'; echo $ALL_PROXY $all_proxy";
    let out = p.sh(&["--allow-domain", &rule], script).ok();
    assert_eq!(out.stdout, "4\nsocks5h://127.0.0.1:1080 socks5h://127.0.0.1:1080\n");
}

/// An address of this host's besides the loopback's, if it has one. Nothing is sent.
fn routable() -> Option<String> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    Some(socket.local_addr().ok()?.ip().to_string())
}

pub(super) fn d_no_way_around_the_proxies(t: &Test) {
    t.needs_threads();
    let p = Place::new(t);
    let (host, proxied) = (Server::tcp("0.0.0.0:0"), Server::tcp("127.0.0.1:0"));
    let udp = UdpSocket::bind("0.0.0.0:0").unwrap();
    udp.set_nonblocking(true).unwrap();
    let name = format!("brig-{}", t.id());
    let hidden = Server::unix(UnixAddr::from_abstract_name(&name).unwrap());
    let rule = format!("127.0.0.1:{}", proxied.port);
    let mut direct = vec!["127.0.0.1".to_owned(), "192.0.2.1".into(), "169.254.169.254".into(), "[2001:db8::1]".into()];
    direct.extend(routable());
    let udp_port = udp.local_addr().unwrap().port();
    let mut verbs: Vec<String> = direct.iter().map(|to| format!("tcp={to}:{}", host.port)).collect();
    verbs.extend(direct.iter().filter(|to| !to.starts_with('[')).map(|to| format!("udp={to}:{udp_port}")));
    verbs.push(format!("abstract={name}"));
    // AF_PACKET, raw IPv4 and IPv6, vsock, io_uring; the host's namespace by way of init and of the mounts.
    verbs.extend(["socket:17:3:768", "socket:2:3:1", "socket:10:3:58", "socket:40:1:0", "io_uring_setup:1:0"].map(|call| format!("syscall={call}")));
    verbs.extend(["setns=/proc/1/ns/net", "list=/proc/1/root/proc/1/fd", "setns=/proc/2/ns/net"].map(String::from));
    let nothing = |flags: &[&str], verbs: &[&str]| {
        let seen = p.see(flags, verbs);
        // What a UDP socket sends to its own loopback is sent, and heard by nobody.
        let sent = format!("udp=127.0.0.1:{udp_port}");
        for verb in verbs.iter().filter(|verb| **verb != sent && !verb.starts_with("list=")) {
            assert!(seen[*verb]["ok"].is_null(), "{flags:?}: {verb}: {seen}");
        }
        assert_eq!((host.heard(), hidden.heard()), (vec![], vec![]), "{flags:?}");
        assert!(udp.recv(&mut [0; 16]).is_err(), "{flags:?}: a datagram came out");
    };
    let words: Vec<&str> = verbs.iter().map(String::as_str).collect();
    for flags in [&["--allow-domain", &rule][..], &["--allow-domain", &rule, "--allow-all-unix-sockets"], &[], &["--allow-local-binding"]] {
        nothing(flags, &words);
    }
    // Without a filter the namespace alone has to do; vsock is no part of it.
    let words: Vec<&str> = words.into_iter().filter(|verb| !verb.starts_with("syscall=")).collect();
    let open = ["--allow-domain", &rule, "--profile", "unrestricted", "--allow-all-unix-sockets"];
    nothing(&open, &words);
    // There is but one interface.
    let devices = p.sh(&open, "tail -n +3 /proc/net/dev | cut -d : -f 1 | tr -d ' '").ok().stdout;
    assert!(devices.lines().all(|name| name == "lo" || name.ends_with("tnl0") || name.ends_with("0")), "{devices}");
    assert!(!p.sh(&open, "cat /proc/net/route | tail -n +2").ok().stdout.contains("00000000"), "a default route");
}

pub(super) fn d_no_dns_leak(t: &Test) {
    t.needs_threads();
    super::needs_overlays_of_users();
    let p = Place::new(t);
    if !Path::new("/usr/bin/unshare").exists() || !Path::new("/usr/sbin/ip").exists() {
        suite::skip("unshare and ip are needed for a network with a name server of the test's own");
    }
    let log = p.path("asked");
    p.file("resolv.conf", "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n");
    // In a network of the test's own, whose name server writes down who is asked for.
    let script = "mount --bind resolv.conf \"$(readlink -f /etc/resolv.conf)\" && ip link set lo up && exec ./payload dns=asked run= \"$@\"";
    let id = t.new_id();
    let unshare = ["/usr/bin/unshare", "--user", "--map-root-user", "--mount", "--net", "/bin/sh", "-c", script, "sh"];
    let verbs = ["get=3128:http://denied.brig.test/", "socks=1080:denied.brig.test:80", "connect=3128:x.denied.brig.test:80",
        "resolve=direct.brig.test", "get=3128:http://open.brig.test/"];
    let args = ["sandbox", "run", "--id", &id, "--allow-domain", "open.brig.test", "--", "./payload"];
    let call = Call::through(t, &unshare, &[], &args).args(&verbs);
    let out = p.adjust(call).out();
    let asked = fs::read_to_string(&log).unwrap_or_else(|e| panic!("{e}: {}", out.stderr));
    assert!(asked.contains("open.brig.test"), "{asked}{}", out.stderr);
    assert!(asked.lines().all(|name| name.starts_with("open.brig.test")), "{asked}");
    let seen = out.stdout.lines().last().unwrap_or_default();
    assert!(seen.contains(" 403 ") && seen.contains("refused 2") && seen.contains(" 502 "), "{seen}{}", out.stderr);
}

pub(super) fn d_local_binding(t: &Test) {
    t.needs_threads();
    let p = Place::new(t);
    let host = Server::tcp("127.0.0.1:0");
    let rule = format!("127.0.0.1:{}", host.port);
    for (flags, may) in [
        (&["--allow-domain", rule.as_str(), "--allow-local-binding"][..], true),
        (&["--allow-local-binding"], true),
        (&["--allow-domain", &rule], false),
        (&[], false),
    ] {
        let seen = p.see(flags, &["loopback"]);
        assert_eq!(seen["loopback"] == json!({"ok": true}), may, "{flags:?}: {seen}");
    }
}

pub(super) fn d_external_proxy_ports(t: &Test) {
    t.needs_threads();
    let p = Place::new(t);
    let (http, socks) = (Server::tcp("127.0.0.1:0"), Server::tcp("127.0.0.1:0"));
    let (a, b) = (http.port.to_string(), socks.port.to_string());
    let verbs = ["get=3128:http://whatever.test/", "tcp=127.0.0.1:1080"];
    let seen = p.see(&["--net", "domains", "--http-proxy-port", &a, "--socks-proxy-port", &b], &verbs);
    assert!(said(&seen, verbs[0]).ends_with("page") && said(&seen, verbs[1]) == "pong", "{seen}");
    // They see what the program sent, as it sent it.
    assert_eq!(http.heard(), ["GET http://whatever.test/ HTTP/1.1"]);
    assert_eq!(socks.heard(), ["ping"]);
    // One of them alone: the other is brig's, with its lists.
    let seen = p.see(&["--net", "domains", "--socks-proxy-port", &b], &verbs);
    assert!(said(&seen, verbs[0]).contains(" 403 ") && said(&seen, verbs[1]) == "pong", "{seen}");
    p.sh(&["--http-proxy-port", &a], "true").code(125).fails(&["http_proxy_port"]);
}

/// A place for a socket: its path has to be short.
pub(super) fn short(t: &Test, name: &str) -> PathBuf {
    t.dir().parent().unwrap().join(format!("{name}{}", t.id().split('-').nth(1).unwrap()))
}

pub(super) fn d_mitm_socket(t: &Test) {
    t.needs_threads();
    let p = Place::new(t);
    let socket = short(t, "m");
    let (proxy, direct) = (Server::at(&socket), Server::tcp("127.0.0.1:0"));
    let (path, rule) = (socket.display().to_string(), format!("127.0.0.1:{}", direct.port));
    let flags = ["--mitm-socket", &path, "--mitm-domain", "*.brig.test", "--allow-domain", "*.brig.test", "--allow-domain", &rule];
    let own = format!("get=3128:http://{rule}/");
    let verbs = ["get=3128:http://a.brig.test/x", "connect=3128:b.brig.test:443", "socks=1080:c.brig.test:80", &own, "get=3128:http://other.test/"];
    let report = p.report(&flags, &verbs);
    let seen = &report["saw"];
    assert!(said(seen, verbs[0]).ends_with("page") && said(seen, verbs[1]).ends_with("|pong"), "{seen}");
    assert!(said(seen, verbs[2]) == "pong" && said(seen, &own).ends_with("page"), "{seen}");
    assert!(said(seen, verbs[4]).contains(" 403 "), "{seen}");
    let heard = proxy.heard();
    assert_eq!(heard[..3], ["GET http://a.brig.test/x HTTP/1.1", "CONNECT b.brig.test:443 HTTP/1.1", "ping"], "{heard:?}");
    assert_eq!(direct.heard().len(), 1);
    let ways = report["connections"].as_array().unwrap().iter().filter(|c| c["via"] == "mitm").count();
    assert_eq!(ways, 3, "{report}");
    // The program itself does not get at it.
    let verb = format!("unix={path}");
    assert!(p.see(&flags, &[&verb])[&verb]["ok"].is_null());
    p.sh(&["--mitm-socket", "/dev/null", "--allow-domain", "a.test", "--mitm-domain", "a.test"], "true").code(125).fails(&["no unix socket"]);
}

pub(super) fn d_unix_sockets_denied(t: &Test) {
    t.needs_threads();
    let p = Place::new(t);
    let socket = short(t, "u");
    let server = Server::at(&socket);
    // In plain sight, by a bind.
    let bind = format!("{}:/mnt", socket.parent().unwrap().display());
    let verb = format!("unix=/mnt/{}", socket.file_name().unwrap().to_str().unwrap());
    let host = Server::tcp("127.0.0.1:0");
    let rule = format!("127.0.0.1:{}", host.port);
    let datagrams = short(t, "d");
    let letters = UnixDatagram::bind(&datagrams).unwrap();
    letters.set_nonblocking(true).unwrap();
    let pair = format!("datagrampair=/mnt/{}", datagrams.file_name().unwrap().to_str().unwrap());
    // A stream's socketpair is no way to anybody else. io_uring has its own way to make one.
    let verbs = [&verb, "unixlistener=own", "syscall=io_uring_setup:1:0", &pair, "pair"];
    for flags in [&["-v", bind.as_str()][..], &["-v", &bind, "--allow-domain", &rule], &["-v", &bind, "--profile", "network"]] {
        let seen = p.see(flags, &verbs);
        assert_eq!(seen[&verb], json!({"errno": "EPERM"}), "{flags:?}: {seen}");
        assert_eq!(seen["pair"], json!({"ok": true}), "{flags:?}: {seen}");
        assert_eq!(seen[&pair], json!({"errno": "EPERM"}), "{flags:?}: {seen}");
        for verb in &verbs[1..3] {
            assert!(seen[*verb]["ok"].is_null(), "{flags:?}: {verb}: {seen}");
        }
        // A program that takes another way into the kernel is ended, or fails.
        let out = p.call(flags).args(&["--", "./payload", "syscall=1073741865:1:1:0"]).out();
        assert!(out.code == 159 || out.stdout.contains("errno"), "{flags:?}: {out:?}");
    }
    assert!(server.heard().is_empty());
    assert_eq!(letters.recv(&mut [0; 9]).unwrap_err().kind(), ErrorKind::WouldBlock);
    // It is told, and allowed like any unix socket.
    let report = p.report(&["-v", &bind], &[&pair]);
    let told = report["violations"].to_string().contains("socketpair(SOCK_DGRAM)");
    assert_eq!(told, !t.is_taken("pidfd"), "{report}");
    assert_eq!(p.see(&["-v", &bind, "--allow-all-unix-sockets"], &[&pair])[&pair], json!({"ok": 4}));
    fs::remove_file(datagrams).unwrap();
}

pub(super) fn d_unix_sockets_allowed(t: &Test) {
    t.needs_threads();
    let p = Place::new(t);
    let (one, other) = (short(t, "a"), short(t, "b"));
    let (first, second) = (Server::at(&one), Server::at(&other));
    let (a, b) = (format!("unix={}", one.display()), format!("unix={}", other.display()));
    let path = one.display().to_string();
    let seen = p.see(&["--allow-unix-socket", &path], &[&a, &b, "unixlistener=/tmp/own"]);
    assert_eq!(said(&seen, &a), "pong", "{seen}");
    assert!(seen[&b]["ok"].is_null() && seen["unixlistener=/tmp/own"] == json!({"ok": true}), "{seen}");
    assert_eq!((first.heard().len(), second.heard().len()), (1, 0));
    // One that the view shows besides is covered, and what can't be is told.
    let third = short(t, "c");
    let server = Server::at(&third);
    let (bind, c) = (third.parent().unwrap().display().to_string(), third.display().to_string());
    let (verb, mnt) = (format!("unix={c}"), format!("unix=/mnt/{}", third.file_name().unwrap().to_str().unwrap()));
    let report = p.report(&["--allow-unix-socket", &path, "-v", &bind, "-v", &format!("{bind}:/mnt")], &[&verb, &mnt, &a]);
    assert!(report["saw"][&verb]["ok"].is_null() && report["saw"][&mnt]["ok"].is_null(), "{report}");
    assert!(server.heard().is_empty() && said(&report["saw"], &a) == "pong", "{report}");
    assert!(report["notes"].to_string().contains("made from now on"), "{report}");
    drop(server);
    // All that the view shows.
    let bind = one.parent().unwrap().display().to_string();
    let seen = p.see(&["--allow-all-unix-sockets", "-v", &bind], &[&a, &b]);
    assert_eq!((said(&seen, &a), said(&seen, &b)), ("pong".into(), "pong".into()), "{seen}");
    // By a network of domains, too.
    let seen = p.see(&["--allow-unix-socket", &path, "--net", "domains"], &[&a, &b]);
    assert!(said(&seen, &a) == "pong" && seen[&b]["ok"].is_null(), "{seen}");
    p.sh(&["--allow-unix-socket", "/nowhere/at/all"], "true").code(125).fails(&["/nowhere/at/all"]);
}
