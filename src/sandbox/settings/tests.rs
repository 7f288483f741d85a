use super::*;
use serde_json::json;

fn base() -> Base<'static> {
    Base { directory: Path::new("/work"), home: Some(Path::new("/home/u")) }
}

fn applied(settings: &Value) -> (Policy, Vec<String>) {
    let mut policy = Policy::default();
    let notes = apply(&mut policy, &settings.to_string(), base()).unwrap();
    (policy, notes)
}

#[test]
fn everything_is_read() {
    let (policy, notes) = applied(&json!({
        "network": {"allowedDomains": ["a.com", "*.b.com"], "deniedDomains": ["x.b.com"], "allowUnixSockets": ["/run/s", "s"],
            "allowLocalBinding": true, "httpProxyPort": 3128, "socksProxyPort": 1080,
            "mitmProxy": {"socketPath": "~/m", "domains": ["c.com"]}},
        "filesystem": {"denyRead": ["~/.ssh", "*.pem"], "allowWrite": [".", "/data/**", "~"], "denyWrite": ["./.env"],
            "allowGitConfig": true},
        "ignoreViolations": {"*": ["/proc"], "npm": ["x"], "/usr/bin/npm install": ["y"]},
        "enableWeakerNestedSandbox": false, "mandatoryDenySearchDepth": 5, "allowPty": true,
        "seccomp": {"bpfPath": "/a", "applyPath": "/b"}, "ripgrep": {"command": "rg", "args": ["-u"]}
    }));
    let network = super::super::policy::Network {
        mode: NetworkMode::Domains,
        allow: vec!["a.com".into(), "*.b.com".into()],
        deny: vec!["x.b.com".into()],
        allow_local_binding: true,
        allow_unix_sockets: vec!["/run/s".into(), "/work/s".into()],
        allow_all_unix_sockets: false,
        http_proxy_port: Some(3128),
        socks_proxy_port: Some(1080),
        mitm: Some(Mitm { socket: "/home/u/m".into(), domains: vec!["c.com".into()] }),
    };
    assert_eq!(policy.network, network);
    let files = &policy.files;
    assert_eq!(files.deny_read, ["/home/u/.ssh", "/work/*.pem"]);
    assert_eq!(files.allow_write, ["/work", "/data", "/home/u"]);
    assert_eq!(files.deny_write, ["/work/.env"]);
    assert_eq!((files.allow_git_config, files.protect_depth, files.protect), (true, 5, true));
    assert_eq!((&files.view, files.workdir), (&View::Host, Workdir::Write));
    assert_eq!((policy.syscalls.profile, policy.weaker_nested), (Profile::Network, false));
    assert_eq!(policy.ignore_violations["npm"], ["y", "x"]);
    assert_eq!(policy.ignore_violations.len(), 2);
    assert_eq!(notes.len(), 4, "{notes:?}");
}

#[test]
fn the_working_directory_is_writable_only_if_it_is_named() {
    let table = [
        (json!([]), None, Workdir::ReadOnly),
        (json!(["."]), None, Workdir::Write),
        (json!(["/work/"]), None, Workdir::Write),
        (json!(["/"]), None, Workdir::Write),
        (json!(["/workshop", "/work/a"]), None, Workdir::ReadOnly),
        (json!(["/work/a"]), Some("/work/a"), Workdir::Write),
        (json!(["/work/a"]), Some("/work"), Workdir::ReadOnly),
    ];
    for (allow, cwd, workdir) in table {
        let mut policy = Policy::default();
        policy.process.cwd = cwd.map(PathBuf::from);
        policy.files.allow_write = vec!["/elsewhere".into()];
        apply(&mut policy, &json!({"filesystem": {"allowWrite": allow}}).to_string(), base()).unwrap();
        assert_eq!(policy.files.workdir, workdir, "{allow} {cwd:?}");
        assert_eq!(policy.files.allow_write.len(), allow.as_array().unwrap().len());
    }
    let (policy, notes) = applied(&json!({}));
    assert_eq!((policy.files.workdir, policy.network.mode, notes.len()), (Workdir::ReadOnly, NetworkMode::Domains, 0));
    assert!(policy.network.allow.is_empty() && policy.weaker_nested);
}

#[test]
fn globs_of_allow_write_stand_for_what_is_there() {
    let directory = std::env::temp_dir().join(format!("brig-settings-{}", std::process::id()));
    std::fs::create_dir_all(directory.join("a1")).unwrap();
    std::fs::create_dir_all(directory.join("a2")).unwrap();
    let base = Base { directory: &directory, home: None };
    let mut policy = Policy::default();
    let text = r#"{"filesystem": {"allowWrite": ["a*", "b*"]}}"#;
    let notes = apply(&mut policy, text, base).unwrap();
    std::fs::remove_dir_all(&directory).unwrap();
    assert_eq!(policy.files.allow_write, ["a1", "a2"].map(|name| directory.join(name).display().to_string()));
    assert!(notes[0].contains("2 paths") && notes[1].contains("finds nothing"), "{notes:?}");
}

#[test]
fn paths() {
    let table = [
        (".", Ok("/work")),
        ("./a//b/", Ok("/work/a/b")),
        ("../a", Ok("/work/../a")),
        ("/a/./b", Ok("/a/b")),
        ("~", Ok("/home/u")),
        ("~/a", Ok("/home/u/a")),
        ("~//etc", Ok("/home/u/etc")),
        ("~other/a", Ok("/work/~other/a")),
        ("**/*.key", Ok("/work/**/*.key")),
        ("", Err(())),
    ];
    for (text, path) in table {
        assert_eq!(base().resolve(text).map_err(drop), path.map(str::to_owned), "{text}");
    }
    let homeless = Base { home: None, ..base() };
    assert!(homeless.resolve("~/a").unwrap_err().contains("set HOME"));
}

#[test]
fn wrong_settings_change_nothing() {
    let table = [
        (r#"{"network": {"allowedDomain": []}}"#, "/network/allowedDomain: unknown key; did you mean allowedDomains?"),
        (r#"{"allowedDomains": []}"#, "/allowedDomains: unknown key; did you mean /network/allowedDomains?"),
        (r#"{"filesystem": {"allowWrite": "."}}"#, "/filesystem/allowWrite: must be a list"),
        (r#"{"filesystem": {"denyRead": ["a", ""]}}"#, "/filesystem/denyRead/1: an empty path"),
        (r#"{"filesystem": {"allowWrite": ["a***"]}}"#, "/filesystem/allowWrite: \"/work/a***\" is no glob"),
        (r#"{"network": {"mitmProxy": {"domains": []}}}"#, "/network/mitmProxy/socketPath: missing"),
        (r#"{"ignoreViolations": {" ": []}}"#, "/ignoreViolations/ : names no program"),
        (r#"{"seccomp": {"path": "/a"}}"#, "/seccomp/path: unknown key"),
        ("{\"network\": {}\n \"x\"}", "line 2"),
    ];
    for (text, said) in table {
        let mut policy = Policy::default();
        let error = apply(&mut policy, text, base()).unwrap_err().to_string();
        assert!(error.contains(said), "{text}: {error}");
        assert_eq!(policy, Policy::default());
    }
}

#[test]
fn only_the_lists_of_domains_change_while_it_runs() {
    let (start, _) = applied(&json!({"network": {"allowedDomains": ["a.com"], "allowLocalBinding": true},
        "filesystem": {"allowWrite": ["."]}}));
    let table = [
        (json!({}), Ok(vec!["a.com"])),
        (json!({"network": {"allowedDomains": ["b.com"]}}), Ok(vec!["b.com"])),
        (
            json!({"network": {"allowedDomains": [], "allowLocalBinding": true}, "filesystem": {"allowWrite": ["/work"]}}),
            Ok(vec![]),
        ),
        (json!({"network": {"deniedDomains": ["x.com"]}, "ripgrep": {"command": "rg"}}), Ok(vec!["a.com"])),
        (json!({"network": {"allowLocalBinding": false}}), Err("/network/allowLocalBinding: can't change")),
        (json!({"filesystem": {"allowWrite": ["."], "denyRead": ["/a"]}}), Err("/filesystem/denyRead: can't change")),
        (
            json!({"network": {"allowedDomains": ["b.com"]}, "enableWeakerNestedSandbox": false}),
            Err("/enableWeakerNestedSandbox: can't"),
        ),
        (
            json!({"network": {"mitmProxy": {"socketPath": "/s", "domains": []}}}),
            Err("/network/mitmProxy: can't change"),
        ),
        (json!({"netwrok": {}}), Err("/netwrok: unknown key; did you mean network?")),
    ];
    for (line, wanted) in table {
        let mut policy = start.clone();
        match (update(&mut policy, &line.to_string(), base()), wanted) {
            (Ok(_), Ok(allow)) => {
                assert_eq!(policy.network.allow, allow, "{line}");
                let denied = line.pointer("/network/deniedDomains").is_some();
                assert_eq!(policy.network.deny.len(), usize::from(denied), "{line}");
                policy.network.allow.clone_from(&start.network.allow);
                policy.network.deny.clear();
            }
            (Err(error), Err(said)) => assert!(error.to_string().contains(said), "{line}: {error}"),
            (result, _) => panic!("{line}: {result:?}"),
        }
        assert_eq!(policy, start, "{line}");
    }
}
