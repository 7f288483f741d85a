//! podman under systemd on cgroup v2: what is left of its flags that a runtime has a part in.

use super::machine;
use super::place::{self, Manager};
use super::podman::{Podman, Setup};
use crate::support::{Call, Test, cases, suite};
use std::fs;
use std::path::Path;

cases![cgroup_namespaces, restart_policy, secrets_and_volumes, published_port, rootless_users];

fn under_systemd(t: &Test) -> Podman<'_> {
    place::needs_systemd_v2();
    Podman::on(t, Setup { manager: Manager::Systemd, user: None, lines: "" })
}

fn cgroup_namespaces(t: &Test) {
    let p = under_systemd(t);
    let look =
        "cat /proc/self/cgroup; ls -d /sys/fs/cgroup/system.slice 2>/dev/null; touch /sys/fs/cgroup/x 2>&1; true";
    let private = p.shell(&["--cgroupns", "private"], look);
    assert_eq!(private, "0::/\ntouch: /sys/fs/cgroup/x: Read-only file system\n");
    let host = p.shell(&["--cgroupns", "host"], look);
    assert!(
        host.contains(&format!("/{}/libpod-", p.parent)) && host.contains("/sys/fs/cgroup/system.slice\n"),
        "{host}"
    );
    assert!(host.contains("Read-only file system"), "{host}");
}

/// conmon calls podman when the container has ended, and podman starts it again.
fn restart_policy(t: &Test) {
    let p = under_systemd(t);
    let data = t.dir().join("data");
    fs::create_dir(&data).unwrap();
    let volume = format!("{}:/data", data.display());
    let script =
        "echo x >> /data/starts; [ $(wc -l < /data/starts) -lt 3 ] && exit 1; echo up > /data/fifo; exec sleep 1000";
    Call::of(t, &["mkfifo", data.join("fifo").to_str().expect("a path")]).ok();
    p.start("web", &["--restart", "on-failure:5", "--volume", &volume], &["sh", "-c", script]);
    let said = Call::of(t, &["cat", data.join("fifo").to_str().expect("a path")]).patient().ok().stdout;
    assert_eq!(said, "up\n");
    assert_eq!(p.inspect("web", "State.Status}} {{.RestartCount"), "running 2");
    p.call(&["rm", "--force", "--time", "0", "web"]).ok();
}

fn secrets_and_volumes(t: &Test) {
    let p = under_systemd(t);
    let file = p.home().join("secret");
    fs::write(&file, "hush\n").unwrap();
    p.call(&["secret", "create", "word", file.to_str().expect("a path")]).ok();
    let flags =
        ["--secret", "word,mode=0400,uid=1000", "--secret", "word,type=env,target=WORD", "--volume", "kept:/kept"];
    let out = p
        .shell(&flags, "cat /run/secrets/word; stat -c '%a %u' /run/secrets/word; echo $WORD; echo $WORD > /kept/file");
    assert_eq!(out, "hush\n400 1000\nhush\n");
    assert_eq!(p.shell(&["--volume", "kept:/kept:ro", "--read-only"], "cat /kept/file"), "hush\n");
    p.call(&["volume", "rm", "kept"]).ok();
    p.call(&["secret", "rm", "word"]).ok();
}

/// A bridge, and a port of the host's that leads to the container; netavark enters the namespace that the runtime uses.
fn published_port(t: &Test) {
    place::needs_systemd_v2();
    if !Path::new("/usr/lib/podman/netavark").exists() {
        suite::skip("netavark is not installed");
    }
    machine::program("iptables");
    let p = under_systemd(t);
    let port = 20_000 + std::process::id() % 10_000;
    let flags = ["--network", "podman", "--publish", &format!("127.0.0.1:{port}:80")];
    let serve = "mkdir /www; echo served > /www/index.html; touch /ready; exec httpd -f -p 80 -h /www";
    p.start("web", &flags, &["sh", "-c", serve]);
    p.exec("web", "until wget -qO- http://127.0.0.1/; do sleep 0.2; done");
    let url = format!("http://127.0.0.1:{port}/");
    let got = Call::of(t, &["busybox", "wget", "-qO-", &url]).patient().ok().stdout;
    assert_eq!(got, "served\n");
    p.call(&["rm", "--force", "--time", "0", "web"]).ok();
}

/// Without root, under systemd: the user's own ID kept, a range picked, and a directory of the user's.
fn rootless_users(t: &Test) {
    place::needs_systemd_v2();
    let user = place::user();
    let p = Podman::on(t, Setup { manager: Manager::Systemd, user: Some(&user), lines: "" });
    let shared = format!("{}:/mnt", p.home().join("tmp").display());
    let script = "id -u; id -g; touch /mnt/kept; stat -c %u /mnt/kept; cat /proc/self/cgroup";
    let ids = format!("{}\n{}\n{}\n0::/\n", user.uid, user.gid, user.uid);
    assert_eq!(p.shell(&["--userns", "keep-id", "--volume", &shared], script), ids);
    let map = p.shell(&["--userns", "auto:size=1000"], "cat /proc/self/uid_map");
    assert_eq!(map.split_whitespace().last(), Some("1000"), "{map}");
    let out =
        p.call(&p.run_args(&["--rm", "--user", "1000:1000", "--read-only"], &["sh", "-c", "id -u; touch /x"])).out();
    assert!(
        out.code == 1 && out.stdout == "1000\n" && out.stderr.contains("Read-only"),
        "{} {}",
        out.stdout,
        out.stderr
    );
}
