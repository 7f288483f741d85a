//! Each problem is told once, at its place; what is just possible is none.

use super::*;
use crate::sandbox::policy::{Bind, Mitm};
use crate::sandbox::units::{Bytes, Percent, Span};

type Change = fn(&mut Policy);

fn problems(change: Change) -> Vec<Problem> {
    let mut policy = Policy::default();
    change(&mut policy);
    check(&policy)
}

fn bind(source: &str, target: Option<&str>) -> Bind {
    Bind { source: source.into(), target: target.map(Into::into), write: false }
}

#[test]
fn each_is_told_once_at_its_place() {
    let table: &[(&str, &str, Change)] = &[
        ("/id", "is empty", |p| p.id = Some(String::new())),
        ("/id", "names a directory", |p| p.id = Some("..".into())),
        ("/id", "letters, digits", |p| p.id = Some("a/b".into())),
        ("/id", "letters, digits", |p| p.id = Some("ä".into())),
        ("/id", "longer", |p| p.id = Some("a".repeat(65))),
        ("/id", "like a flag", |p| p.id = Some("-a".into())),
        ("/limits/memory", "give 1M", |p| p.limits.memory = Some(Bytes((1 << 20) - 1))),
        ("/limits/memory", "can count", |p| p.limits.memory = Some(Bytes(u64::MAX))),
        ("/limits/swap", "on top of", |p| (p.limits.memory, p.limits.swap) = (None, Some(Bytes(1)))),
        ("/limits/pids", "give 1", |p| p.limits.pids = Some(0)),
        ("/limits/pids", "4194304", |p| p.limits.pids = Some((1 << 22) + 1)),
        ("/limits/cpu", "keep one", |p| {
            (p.limits.cpu, p.limits.cpu_quota) = (Some(Percent(50.0)), Some((1000, 1000)));
        }),
        ("/limits/cpu", "least of 0.1 %", |p| p.limits.cpu = Some(Percent(0.0))),
        ("/limits/cpu", "least of 0.1 %", |p| p.limits.cpu = Some(Percent(f64::NAN))),
        ("/limits/cpu", "than any machine", |p| p.limits.cpu = Some(Percent(f64::INFINITY))),
        ("/limits/cpu_quota", "than any machine", |p| p.limits.cpu_quota = Some((u64::MAX, 100_000))),
        ("/limits/cpu_quota", "quota of 999", |p| p.limits.cpu_quota = Some((999, 1000))),
        ("/limits/cpu_quota", "period of 999", |p| p.limits.cpu_quota = Some((1000, 999))),
        ("/limits/cpu_quota", "period of 1000001", |p| p.limits.cpu_quota = Some((1000, 1_000_001))),
        ("/limits/cpu_time", "seconds", |p| p.limits.cpu_time = Some(Span(Duration::from_millis(999)))),
        ("/limits/open_files", "give 5", |p| p.limits.open_files = Some(4)),
        ("/limits/open_files", "give 4", |p| (p.limits.open_files, p.files.landlock) = (Some(3), false)),
        ("/limits/disk", "64K", |p| p.limits.disk = Some(Bytes(65535))),
        ("/limits/timeout", "is 0", |p| p.limits.timeout = Some(Span(Duration::ZERO))),
        ("/files/workdir", "root_overlay", |p| {
            (p.files.view, p.files.workdir) = (View::RootOverlay("/srv".into()), Workdir::Write);
        }),
        ("/files/view/root", "empty", |p| p.files.view = View::Root("".into())),
        ("/files/view/root_overlay", "NUL", |p| p.files.view = View::RootOverlay("/a\0".into())),
        ("/files/allow_write/1", "deny_write", |p| {
            (p.files.allow_write, p.files.deny_write) = (vec!["/a".into(), "/b/".into()], vec!["/b".into()]);
        }),
        ("/files/allow_write/0", "deny_read", |p| {
            (p.files.allow_write, p.files.deny_read) = (vec!["/a".into()], vec!["/a".into()]);
        }),
        ("/files/allow_write/0", "overlay", |p| {
            (p.files.allow_write, p.files.overlay) = (vec!["/a".into()], vec!["/a".into()]);
        }),
        ("/files/allow_read/0", "deny_read", |p| {
            (p.files.allow_read, p.files.deny_read) = (vec!["/a".into()], vec!["/a".into()]);
        }),
        ("/files/overlay/0", "deny_write", |p| {
            (p.files.overlay, p.files.deny_write) = (vec!["/a".into()], vec!["/a".into()]);
        }),
        ("/files/allow_read/0", "empty", |p| p.files.allow_read = vec![String::new()]),
        ("/files/deny_read/1", "NUL", |p| p.files.deny_read = vec!["/a".into(), "\0".into()]),
        ("/files/overlay/0", "NUL", |p| p.files.overlay = vec!["/\0".into()]),
        ("/files/layer", "NUL", |p| p.files.layer = Some("/\0".into())),
        ("/files/protect_depth", "32", |p| p.files.protect_depth = 33),
        ("/files/binds/0/source", "empty", |p| p.files.binds = vec![bind("", Some("/a"))]),
        ("/files/binds/0/source", "relative", |p| p.files.binds = vec![bind("a", None)]),
        ("/files/binds/0/target", "relative", |p| p.files.binds = vec![bind("/a", Some("b"))]),
        ("/files/binds/0/target", "NUL", |p| p.files.binds = vec![bind("/a", Some("/b\0"))]),
        ("/files/binds/0/target", "..", |p| p.files.binds = vec![bind("/a", Some("/b/../.."))]),
        ("/files/binds/0/target", "whole view", |p| p.files.binds = vec![bind("/a", Some("//"))]),
        ("/files/binds/0/source", "whole view", |p| p.files.binds = vec![bind("/", None)]),
        ("/files/binds/1/target", "two binds", |p| p.files.binds = vec![bind("/a", None), bind("/b", Some("/a/"))]),
        ("/network/allow", "mode none", |p| p.network.allow = vec!["a".into()]),
        ("/network/deny", "mode host", |p| {
            (p.network.mode, p.network.deny) = (NetworkMode::Host, vec!["a".into()]);
        }),
        ("/network/socks_proxy_port", "mode none", |p| p.network.socks_proxy_port = Some(1)),
        ("/network/http_proxy_port", "is 0", |p| {
            (p.network.mode, p.network.http_proxy_port) = (NetworkMode::Domains, Some(0));
        }),
        ("/network/mitm", "mode none", |p| {
            p.network.mitm = Some(Mitm { socket: "/s".into(), domains: vec!["a".into()] });
        }),
        ("/network/mitm/domains", "is empty", |p| {
            p.network.mode = NetworkMode::Domains;
            p.network.mitm = Some(Mitm { socket: "/s".into(), domains: Vec::new() });
        }),
        ("/network/allow_unix_sockets", "keep one", |p| {
            (p.network.allow_all_unix_sockets, p.network.allow_unix_sockets) = (true, vec!["/s".into()]);
        }),
        ("/network/allow_unix_sockets/0", "NUL", |p| p.network.allow_unix_sockets = vec!["/\0".into()]),
        ("/syscalls/profile", "custom", |p| {
            (p.syscalls.custom, p.syscalls.profile) = (custom(), Profile::Minimal);
        }),
        ("/syscalls/deny", "custom", |p| (p.syscalls.custom, p.syscalls.deny) = (custom(), vec!["bpf".into()])),
        ("/syscalls/custom/defaultAction", "missing", |p| p.syscalls.custom = Some(Default::default())),
        ("/syscalls/allow/0", "deny", |p| {
            (p.syscalls.allow, p.syscalls.deny) = (vec!["bpf".into()], vec!["bpf".into()]);
        }),
        ("/process/uid", "no ID", |p| p.process.uid = Some(u32::MAX)),
        ("/process/gid", "no ID", |p| p.process.gid = Some(u32::MAX)),
        ("/process/cwd", "relative", |p| p.process.cwd = Some("a".into())),
        ("/process/hostname", "64 bytes", |p| p.process.hostname = Some("a".repeat(65))),
        ("/process/hostname", "is empty", |p| p.process.hostname = Some(String::new())),
        ("/process/hostname", "blank", |p| p.process.hostname = Some("a b".into())),
        ("/process/env/", "without a name", |p| drop(p.process.env.insert(String::new(), "b".into()))),
        ("/process/env/A=B", "has a =", |p| drop(p.process.env.insert("A=B".into(), "b".into()))),
        ("/process/env/A", "NUL", |p| drop(p.process.env.insert("A".into(), "\0".into()))),
        ("/process/env/A", "unset_env", |p| {
            p.process.env.insert("A".into(), "b".into());
            p.process.unset_env.push("A".into());
        }),
        ("/process/unset_env/0", "has a =", |p| p.process.unset_env.push("A=".into())),
        ("/ignore_violations/", "program", |p| drop(p.ignore_violations.insert(String::new(), Vec::new()))),
        ("/ignore_violations/*", "pattern", |p| drop(p.ignore_violations.insert("*".into(), vec![String::new()]))),
    ];
    for (n, (pointer, said, change)) in table.iter().enumerate() {
        let found = problems(*change);
        assert_eq!(found.len(), 1, "{n} {pointer} {said}: {found:?}");
        assert!(found[0].pointer == *pointer && found[0].what.contains(said), "{n} {pointer} {said}: {found:?}");
    }
}

fn custom() -> Option<crate::spec::Seccomp> {
    let default_action = Some(crate::spec::SeccompAction::Errno);
    Some(crate::spec::Seccomp { default_action, ..Default::default() })
}

#[test]
fn what_is_just_possible_is_no_problem() {
    let table: &[Change] = &[
        |_| {},
        |p| p.id = Some("a".repeat(64)),
        |p| p.id = Some("_a+b-c.d9".into()),
        |p| p.limits.memory = Some(Bytes(1 << 20)),
        |p| p.limits.memory = None,
        |p| p.limits.cpu = Some(Percent(0.1)),
        |p| p.limits.cpu_quota = Some((1000, 1_000_000)),
        |p| p.limits.cpu_quota = Some((1 << 26, 1024)),
        |p| (p.limits.pids, p.limits.open_files) = (Some(1), Some(5)),
        |p| (p.files.landlock, p.limits.open_files) = (false, Some(4)),
        |p| p.limits.disk = Some(Bytes(65536)),
        |p| p.limits.timeout = Some(Span(Duration::from_nanos(1))),
        |p| (p.files.view, p.files.workdir) = (View::Root("/srv".into()), Workdir::Write),
        |p| (p.files.allow_write, p.files.deny_write) = (vec!["/a".into()], vec!["/a/b".into()]),
        |p| p.files.binds = vec![bind("a", Some("/a")), bind("/b", None)],
        |p| p.files.protect_depth = 32,
        |p| p.network.mode = NetworkMode::Domains,
        |p| p.syscalls.custom = custom(),
        |p| p.process.hostname = Some("a".repeat(64)),
        |p| (p.process.uid, p.process.cwd) = (Some(u32::MAX - 1), Some("/".into())),
    ];
    for (n, change) in table.iter().enumerate() {
        assert_eq!(problems(*change), [], "{n}");
    }
}

#[test]
fn all_come_at_once() {
    let found = problems(|p| {
        p.limits.pids = Some(0);
        p.network.allow = vec!["a".into()];
        p.files.protect_depth = 99;
    });
    assert_eq!(found.len(), 3, "{found:?}");
}
