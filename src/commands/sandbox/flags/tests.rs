use super::*;
use crate::sandbox::check::check;
use clap::Parser;
use std::time::Duration;

#[derive(Debug, Parser)]
#[command(no_binary_name = true)]
struct Line {
    #[command(flatten)]
    flags: PolicyFlags,
    #[arg(last = true)]
    program: Vec<String>,
}

fn base() -> Base<'static> {
    Base { directory: Path::new("/work"), home: Some(Path::new("/home/u")) }
}

fn flags(line: &str) -> Result<PolicyFlags, String> {
    Line::try_parse_from(line.split_whitespace()).map(|line| line.flags).map_err(|e| e.to_string())
}

fn put_on(line: &str, mut policy: Policy) -> Result<Policy, String> {
    flags(line)?.apply_at(&mut policy, base()).map_err(|e| e.to_string())?;
    Ok(policy)
}

#[test]
fn each_flag_changes_what_it_names() {
    type Change = fn(&mut Policy);
    let seconds = |n| Some(Span(Duration::from_secs(n)));
    assert_eq!(put_on("-t 90", Policy::default()).unwrap().limits.timeout, seconds(90));
    let table: &[(&str, Change)] = &[
        ("", |_| {}),
        ("--memory 256M", |p| p.limits.memory = Some(Bytes(256 << 20))),
        ("--memory none", |p| p.limits.memory = None),
        ("--swap 1G", |p| p.limits.swap = Some(Bytes(1 << 30))),
        ("--cpus 1.5", |p| p.limits.cpu = Some(Percent(150.0))),
        ("--cpu 50%", |p| p.limits.cpu = Some(Percent(50.0))),
        ("--cpu-quota 5000", |p| p.limits.cpu_quota = Some((5000, 100_000))),
        ("--cpu-quota 5000:10000", |p| p.limits.cpu_quota = Some((5000, 10_000))),
        ("--cpu-time 1m", |p| p.limits.cpu_time = Some(Span(Duration::from_secs(60)))),
        ("--pids none --open-files 9", |p| (p.limits.pids, p.limits.open_files) = (None, Some(9))),
        ("--file-size 1K --disk none", |p| (p.limits.file_size, p.limits.disk) = (Some(Bytes(1024)), None)),
        ("--root guest", |p| p.files.view = View::Root("/work/guest".into())),
        ("--root-overlay ~/guest", |p| p.files.view = View::RootOverlay("/home/u/guest".into())),
        ("--workdir-mode read-only", |p| p.files.workdir = Workdir::ReadOnly),
        ("--workdir-mode temporary", |p| p.files.workdir = Workdir::Temporary),
        ("-w", |p| p.files.workdir = Workdir::Write),
        ("--ro", |p| p.files.workdir = Workdir::ReadOnly),
        ("--allow-write a --allow-write /b", |p| p.files.allow_write = vec!["/work/a".into(), "/b".into()]),
        ("--deny-read *.pem --deny-write ~/x", |p| {
            (p.files.deny_read, p.files.deny_write) = (vec!["/work/*.pem".into()], vec!["/home/u/x".into()]);
        }),
        ("--allow-read ~/.ssh/config", |p| p.files.allow_read = vec!["/home/u/.ssh/config".into()]),
        ("--overlay .", |p| p.files.overlay = vec!["/work".into()]),
        ("-v data --volume /a:/b:rw", |p| {
            let data = Bind { source: "/work/data".into(), target: None, write: false };
            p.files.binds = vec![data, Bind { source: "/a".into(), target: Some("/b".into()), write: true }];
        }),
        ("--no-protect --no-landlock", |p| (p.files.protect, p.files.landlock) = (false, false)),
        ("--protect-depth 5 --allow-git-config", |p| {
            (p.files.protect_depth, p.files.allow_git_config) = (5, true);
        }),
        ("--layer l", |p| p.files.layer = Some("/work/l".into())),
        ("--net host", |p| p.network.mode = NetworkMode::Host),
        ("--allow-domain a.com --deny-domain b.a.com", |p| {
            p.network.mode = NetworkMode::Domains;
            (p.network.allow, p.network.deny) = (vec!["a.com".into()], vec!["b.a.com".into()]);
        }),
        ("--allow-local-binding --allow-unix-socket s", |p| {
            (p.network.allow_local_binding, p.network.allow_unix_sockets) = (true, vec!["/work/s".into()]);
        }),
        ("--allow-all-unix-sockets", |p| p.network.allow_all_unix_sockets = true),
        ("--net domains --http-proxy-port 1 --socks-proxy-port 2", |p| {
            p.network.mode = NetworkMode::Domains;
            (p.network.http_proxy_port, p.network.socks_proxy_port) = (Some(1), Some(2));
        }),
        ("--mitm-socket s --mitm-domain a.com", |p| {
            p.network.mode = NetworkMode::Domains;
            p.network.mitm = Some(Mitm { socket: "/work/s".into(), domains: vec!["a.com".into()] });
        }),
        ("--profile io-heavy --no-record", |p| {
            (p.syscalls.profile, p.syscalls.record) = (Profile::IoHeavy, false);
        }),
        ("--allow-syscall bpf --deny-syscall fork", |p| {
            (p.syscalls.allow, p.syscalls.deny) = (vec!["bpf".into()], vec!["fork".into()]);
        }),
        ("--uid 5 --gid 6", |p| (p.process.uid, p.process.gid) = (Some(5), Some(6))),
        ("--user 5:6", |p| (p.process.uid, p.process.gid) = (Some(5), Some(6))),
        ("--user 5", |p| p.process.uid = Some(5)),
        ("-C src --hostname h --tty", |p| {
            p.process.cwd = Some("/work/src".into());
            (p.process.hostname, p.process.terminal) = (Some("h".into()), true);
        }),
        ("--clear-env -e A=b=c --env E= --unset-env Z", |p| {
            p.process.clear_env = true;
            p.process.env = [("A".into(), "b=c".into()), ("E".into(), String::new())].into();
            p.process.unset_env = vec!["Z".into()];
        }),
        ("--id x --lint warn --strict", |p| {
            (p.id, p.lint) = (Some("x".into()), LintMode::Warn);
            (p.weaker_nested, p.weaker_limits) = (false, false);
        }),
        ("--ignore-violation bpf --ignore-violation npm=a=b", |p| {
            p.ignore_violations = [("*".into(), vec!["bpf".into()]), ("npm".into(), vec!["a=b".into()])].into();
        }),
    ];
    for (line, change) in table {
        let mut wanted = Policy::default();
        change(&mut wanted);
        assert_eq!(put_on(line, Policy::default()), Ok(wanted), "{line}");
    }
}

#[test]
fn a_flag_wins_over_the_policy() {
    let policy = || -> Policy {
        let text = r#"{"limits": {"cpu_quota": [5000, 10000], "memory": "1M"}, "lint": "deny",
            "files": {"allow_write": ["/a", "/b"], "deny_write": ["/c"], "binds": [{"source": "/a"}]},
            "network": {"allow": ["a.com"], "deny": ["b.com"], "http_proxy_port": 1},
            "syscalls": {"allow": ["bpf"], "deny": ["fork"]}, "process": {"env": {"A": "a"}, "unset_env": ["B"]}}"#;
        policy_file::parse(text, policy_file::Format::Json, "p").unwrap()
    };
    // Each is without contradictions, too: what the flag goes against is gone.
    type Holds = fn(&Policy) -> bool;
    let table: &[(&str, Holds)] = &[
        ("--cpu 50", |p| (p.limits.cpu, p.limits.cpu_quota) == (Some(Percent(50.0)), None)),
        ("--cpus none", |p| (p.limits.cpu, p.limits.cpu_quota) == (None, None)),
        ("--memory 2M", |p| p.limits.memory == Some(Bytes(2 << 20)) && p.limits.cpu_quota.is_some()),
        ("--lint off", |p| p.lint == LintMode::Off),
        ("--deny-write /a", |p| p.files.allow_write == ["/b"] && p.files.deny_write == ["/c", "/a"]),
        ("--allow-write /c", |p| p.files.allow_write == ["/a", "/b", "/c"] && p.files.deny_write.is_empty()),
        ("--deny-read /b", |p| p.files.allow_write == ["/a"]),
        ("-v /x:/a", |p| p.files.binds.len() == 1 && p.files.binds[0].source == Path::new("/x")),
        ("--net none", |p| p.network == crate::sandbox::policy::Network::default()),
        ("--allow-domain b.com", |p| p.network.allow == ["a.com", "b.com"] && p.network.deny.is_empty()),
        ("--deny-domain a.com", |p| p.network.mode == NetworkMode::Domains && p.network.allow.is_empty()),
        ("--deny-syscall bpf", |p| p.syscalls.allow.is_empty() && p.syscalls.deny == ["fork", "bpf"]),
        ("--allow-syscall fork", |p| p.syscalls.deny.is_empty()),
        ("-e B=b --unset-env A", |p| p.process.env["B"] == "b" && p.process.unset_env == ["A"]),
    ];
    for (line, holds) in table {
        let policy = put_on(line, policy()).unwrap();
        assert!(holds(&policy), "{line}: {policy:?}");
        assert_eq!(check(&policy), [], "{line}");
    }
    let both = put_on("--deny-write /a --allow-write /a", policy()).unwrap();
    assert_eq!(check(&both).len(), 1);
    let both = put_on("--net host --allow-domain x.com", policy()).unwrap();
    assert_eq!(check(&both)[0].pointer, "/network/allow");
}

#[test]
fn files_come_first() {
    let directory = std::env::temp_dir().join(format!("brig-flags-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let file = |name: &str, text: &str| {
        let path = directory.join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let policy = file("p.toml", "lint = \"warn\"\n[limits]\npids = 5\n[syscalls]\nallow = [\"bpf\"]");
    let settings = file("s.json", r#"{"filesystem": {"allowWrite": ["/work/src"]}, "allowPty": true}"#);
    let seccomp = file("c.json", r#"{"defaultAction": "SCMP_ACT_ERRNO"}"#);
    let wrong = file("w.json", "{\"lint\": \"of\"}");

    let line = format!("--pids 6 -C src --policy {policy} --settings {settings} --seccomp {seccomp}");
    let mut read = Policy::default();
    let notes = flags(&line).unwrap().apply_at(&mut read, base()).unwrap();
    assert_eq!((read.limits.pids, read.lint, read.files.workdir), (Some(6), LintMode::Warn, Workdir::Write));
    assert!(notes.len() == 1 && notes[0].starts_with("allowPty"), "{notes:?}");
    assert!(read.syscalls.custom.is_some() && read.syscalls.allow.is_empty());
    assert_eq!(check(&read), []);
    for (line, said) in [
        (format!("--policy {wrong}"), "--policy: "),
        (format!("--settings {wrong}"), "--settings: the settings file is not valid: /lint: unknown key"),
        (format!("--seccomp {wrong}"), "--seccomp: "),
        ("--settings /nowhere/s".into(), "--settings: read /nowhere/s: no such file"),
    ] {
        let error = put_on(&line, Policy::default()).unwrap_err();
        assert!(error.starts_with(said), "{line}: {error}");
    }
    std::fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn wrong_values_name_their_flag() {
    let table = [
        ("--memory 12Q", "--memory", "is no size"),
        ("--timeout x", "--timeout", "is no time"),
        ("--pids -1", "-1", "unexpected"),
        ("--pids x", "--pids", "is no whole number; give one, or none"),
        ("--cpus 0", "--cpus", "is no number of CPUs"),
        ("--cpus 1e308", "--cpus", "is no number of CPUs"),
        ("--cpu-quota 5:", "--cpu-quota", "is no quota"),
        ("--cpu 5 --cpus 1", "--cpus", "cannot be used with"),
        ("--root a --root-overlay b", "--root-overlay", "cannot be used with"),
        ("-w --ro", "--ro", "cannot be used with"),
        ("--workdir-mode readonly", "--workdir-mode", "read-only"),
        ("--profile netwrok", "--profile", "network"),
        ("--profile minimal --seccomp f", "--seccomp", "cannot be used with"),
        ("--bind a:b", "--bind", "is no bind"),
        ("--bind a:/b:/c:ro", "--bind", "colon"),
        ("--bind :/b", "--bind", "is no bind"),
        ("--user root", "--user", "give numbers"),
        ("--user 1:2:3", "--user", "give numbers"),
        ("--user 1 --gid 2", "--user", "cannot be used with"),
        ("-e BRIG_NO_SUCH_VARIABLE", "--env", "give BRIG_NO_SUCH_VARIABLE=VALUE"),
        ("-e =a", "--env", "no name"),
        ("--ignore-violation =a", "--ignore-violation", "lacks a part"),
        ("--allow-syscall read,write", "--allow-syscall", "the flag again for more"),
        ("--http-proxy-port 65536", "--http-proxy-port", "65536"),
        ("--mitm-domain a.com", "--mitm-domain", "give --mitm-socket"),
    ];
    for (line, flag, said) in table {
        let error = put_on(line, Policy::default()).unwrap_err();
        assert!(error.contains(flag) && error.contains(said), "{line}: {error}");
    }
}

#[test]
fn a_variable_without_a_value_takes_its_own() {
    let path = std::env::var("PATH").unwrap();
    assert_eq!(put_on("-e PATH", Policy::default()).unwrap().process.env["PATH"], path);
}

#[test]
fn help_has_each_flag_below_its_heading() {
    let help = <Line as clap::CommandFactory>::command().render_long_help().to_string();
    let at = |text: &str| help.find(text).unwrap_or_else(|| panic!("{text} is not in\n{help}"));
    let order = [
        ("Policy:", "--lint"),
        ("Limits (none for no limit):", "--timeout"),
        ("Files:", "--no-landlock"),
        ("Network:", "--mitm-domain"),
        ("System calls:", "--no-record"),
        ("Program:", "--tty"),
    ];
    let mut last = 0;
    for (heading, flag) in order {
        let (heading, flag) = (at(heading), at(flag));
        assert!(last < heading && heading < flag, "{help}");
        last = flag;
    }
    let defaults = Policy::default();
    let said = [
        format!("(default: {})", defaults.limits.memory.unwrap()),
        format!("(default: {})", defaults.limits.pids.unwrap()),
        format!("(default: {})", defaults.limits.open_files.unwrap()),
        format!("(default: {})", defaults.limits.disk.unwrap()),
        format!("(default: {})", defaults.files.protect_depth),
    ];
    assert!(said.iter().all(|default| at(default) > 0));
}
