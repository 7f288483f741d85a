//! `--print-spec`: what it prints is what runs.

use super::support::{file, run, tool, work};
use crate::support::{Test, Value, cases, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;

cases![a_bundle_of_it_is_the_same_sandbox, nothing_runs];

/// Everything that the walls are made of, as the program sees it.
const PROBE: &str = "id -u; id -g; hostname 2>/dev/null || cat /proc/sys/kernel/hostname; pwd
    grep -E '^(Cap|NoNewPrivs|Seccomp:|Groups)' /proc/self/status
    for r in c d f n s t u v; do echo \"$r $(ulimit -S$r 2>/dev/null) $(ulimit -H$r 2>/dev/null)\"; done
    for n in user mnt pid net ipc uts cgroup; do
        [ \"$(readlink /proc/self/ns/$n)\" = \"$(sed -n \"s/^$n //p\" namespaces)\" ] && echo $n host || echo $n own
    done
    cut -d ' ' -f 5,6 /proc/self/mountinfo";

fn probe(t: &Test, flags: &[&str]) {
    let id = super::support::new_id(t);
    let probe = ["sh", "-c", PROBE];
    let ran = run(t, flags, &probe).exited(0);
    let spec = tool(t, &["run", "--print-spec", "--id", &id]).args(flags).args(&probe).ok();
    let bundle = t.dir().join("bundle");
    fs::create_dir_all(&bundle).unwrap();
    fs::write(bundle.join("config.json"), &spec.stdout).unwrap();
    let id = t.new_id();
    let out = t.call(&["run", "--bundle", bundle.to_str().unwrap(), &id]).ok();
    // With what a path is masked is up to the run.
    let masked = spec.json()["linux"]["maskedPaths"].clone();
    let masked = |line: &str| masked.as_array().unwrap().iter().any(|path| line.split(' ').next() == path.as_str());
    let cut = |line: &str| if masked(line) { line.split(' ').next().unwrap_or_default() } else { line }.to_owned();
    // Of several mounts in one place the last is what is seen; what lies below is up to the run as well.
    let key =
        |line: &str| if line.starts_with('/') { line.split(' ').next().unwrap_or_default() } else { line }.to_owned();
    let seen = |text: &str| text.lines().map(|line| (key(line), cut(line))).collect::<BTreeMap<_, _>>();
    let lines = |text: &str| seen(text).into_values().collect::<BTreeSet<_>>();
    let (here, there) = (lines(ran.stdout()), lines(&out.stdout));
    let only = |a: &BTreeSet<String>, b: &BTreeSet<String>| a.difference(b).cloned().collect::<Vec<_>>();
    let differ = (only(&here, &there), only(&there, &here));
    assert_eq!(differ, (vec![], vec![]), "{flags:?}: on the left the sandbox, on the right the bundle");
    assert!(here.len() > 20 && here.contains("net own"), "{here:?}");
}

fn a_bundle_of_it_is_the_same_sandbox(t: &Test) {
    t.needs_call("mount_setattr");
    let kinds = ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup"];
    let namespaces = kinds.map(|kind| {
        let link = fs::read_link(format!("/proc/self/ns/{kind}")).unwrap();
        format!("{kind} {}\n", link.display())
    });
    file(t, "namespaces", &namespaces.concat());
    fs::create_dir(work(t).join("out")).unwrap();
    // A plain user has no cgroup here, and a bundle takes one where it has a limit.
    let none = ["--memory", "none", "--swap", "none", "--pids", "none"];
    probe(t, &none);
    let more = [
        "--uid",
        "1000",
        "--ro",
        "--allow-write",
        "out",
        "--file-size",
        "1M",
        "--open-files",
        "64",
        "--profile",
        "network",
    ];
    probe(t, &[&none[..], &more[..], &["--hostname", "probe", "--no-landlock", "--no-protect"]].concat());
}

fn nothing_runs(t: &Test) {
    let out = tool(t, &["run", "--print-spec", "-w", "--", "touch", "ran"]).ok();
    let spec: Value = out.json();
    assert_eq!(spec["process"]["args"], json!(["touch", "ran"]));
    // A small share is one of a longer period, as the kernel takes no quota below 1000 us.
    for (cpus, quota, period) in [("0.001", 1000, 1_000_000), ("0.5", 50_000, 100_000)] {
        let spec: Value = tool(t, &["run", "--print-spec", "--cpus", cpus, "--", "true"]).ok().json();
        assert_eq!(spec["linux"]["resources"]["cpu"], json!({"quota": quota, "period": period}), "{cpus}");
    }
    assert!(!work(t).join("ran").exists() && fs::read_dir(work(t)).unwrap().next().is_none());
}
