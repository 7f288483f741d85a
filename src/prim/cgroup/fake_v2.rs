//! What is done on v2, file by file, in a plain directory that looks like a v2 tree. It shows which bytes go into which file;
//! what a kernel does with them it can't show.

use super::live::fresh_path;
use super::tests::{self, resources};
use super::*;
use std::fs;
use std::path::PathBuf;

/// A directory that has the files of a v2 cgroup; what brig writes stays in them as text.
struct FakeV2(PathBuf);

impl FakeV2 {
    fn new() -> FakeV2 {
        let root = std::env::temp_dir().join(format!("brig-v2{}", fresh_path().replace('/', "-")));
        let leaf = root.join("pod/web");
        fs::create_dir_all(&leaf).unwrap();
        for dir in [&root, &root.join("pod"), &leaf] {
            fs::write(dir.join("cgroup.subtree_control"), "").unwrap();
        }
        for (file, text) in [
            ("cgroup.procs", ""),
            ("cgroup.events", "populated 0\nfrozen 1\n"),
            ("cgroup.freeze", ""),
            ("cgroup.kill", ""),
            ("cgroup.controllers", "cpuset cpu io memory pids\n"),
            ("cgroup.threads", ""),
            ("cpu.max", ""),
            ("cpu.weight", ""),
            ("cpuset.cpus", ""),
            ("io.weight", ""),
            ("io.max", ""),
            ("memory.max", ""),
            ("memory.swap.max", ""),
            ("memory.current", "5000\n"),
            ("memory.events", "oom 3\noom_kill 2\n"),
            ("memory.high", ""),
            ("pids.max", ""),
        ] {
            fs::write(leaf.join(file), text).unwrap();
        }
        FakeV2(root)
    }

    fn layout(&self) -> Layout {
        let controllers = ["cpuset", "cpu", "io", "memory", "pids"].map(String::from).to_vec();
        let mount = self.0.to_str().unwrap().to_owned();
        Layout { hierarchies: vec![Hierarchy { version: Version::V2, controllers, mount, own: "/".into() }] }
    }

    fn read(&self, file: &str) -> String {
        fs::read_to_string(self.0.join("pod/web").join(file)).unwrap()
    }
}

/// Without device rules: a plain directory takes no program.
fn request<'a>(path: Option<&'a str>, resources: &'a Resources) -> Request<'a> {
    Request { rootless: true, ..tests::request(path, resources) }
}

impl Drop for FakeV2 {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn v2_file_by_file() {
    let fake = FakeV2::new();
    let json = resources(
        r#"{"memory": {"limit": 10000, "swap": 30000}, "cpu": {"shares": 1024, "quota": 1000, "cpus": "0"},
            "pids": {"limit": -1}, "blockIO": {"weight": 500, "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 7}]},
            "unified": {"memory.high": "max"}}"#,
    );
    let plan = compile(&fake.layout(), &request(Some("/pod/web"), &json)).unwrap();
    // The frozen state of the fake cgroup.events is for the freezer's test.
    fs::write(fake.0.join("pod/web/cgroup.events"), "populated 0\nfrozen 0\n").unwrap();
    let record = plan.create().unwrap();
    for (file, text) in [
        ("memory.max", "10000"),
        ("memory.swap.max", "20000"),
        ("cpu.weight", "100"),
        ("cpu.max", "1000 100000"),
        ("cpuset.cpus", "0"),
        ("pids.max", "max"),
        ("io.weight", "4950"),
        ("io.max", "8:0 rbps=7"),
        ("memory.high", "max"),
        ("cgroup.subtree_control", ""),
    ] {
        assert_eq!(fake.read(file), text, "{file}");
    }
    for ancestor in [fake.0.clone(), fake.0.join("pod")] {
        let text = fs::read_to_string(ancestor.join("cgroup.subtree_control")).unwrap();
        assert_eq!(text, "+cpuset +cpu +io +memory +pids");
    }
    assert!(record.parents.is_empty());
    assert_eq!(record.oom_kills(), Some(2));
    assert_eq!(record.paths().into_iter().collect::<Vec<_>>(), [("", record.groups[0].path.as_str())]);

    fs::write(fake.0.join("pod/web/cgroup.events"), "populated 0\nfrozen 1\n").unwrap();
    record.freeze().unwrap();
    assert_eq!(fake.read("cgroup.freeze"), "1");
    assert!(record.is_frozen().unwrap());
    record.thaw().unwrap();
    assert_eq!(fake.read("cgroup.freeze"), "0");
    record.kill(libc::SIGKILL).unwrap();
    assert_eq!(fake.read("cgroup.kill"), "1");
}

#[test]
fn v2_updates_and_checks() {
    let fake = FakeV2::new();
    let record = compile(&fake.layout(), &request(Some("/pod/web"), &Resources::default())).unwrap().record();
    fs::write(fake.0.join("pod/web/cpu.max"), "7000 100000\n").unwrap();
    let period = update(&record, &resources(r#"{"cpu": {"period": 50000}}"#)).unwrap();
    assert_eq!(period.writes()[0].value, "7000 50000", "the quota stays");
    let low = update(&record, &resources(r#"{"memory": {"limit": 5000, "checkBeforeUpdate": true}}"#)).unwrap();
    let error = low.apply().unwrap_err().to_string();
    assert!(error.contains("memory.current is already 5000"), "{error}");
    assert_eq!(fake.read("memory.max"), "");
    let enough = update(&record, &resources(r#"{"memory": {"limit": 5001, "checkBeforeUpdate": true}}"#)).unwrap();
    enough.apply().unwrap();
    assert_eq!(fake.read("memory.max"), "5001");
}

#[test]
fn a_delegated_cgroup_belongs_to_its_owner() {
    use std::os::unix::fs::MetadataExt;
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: needs root to give files away");
        return;
    }
    let fake = FakeV2::new();
    fs::write(fake.0.join("pod/web/cgroup.events"), "populated 0\nfrozen 0\n").unwrap();
    let none = Resources::default();
    let request = Request { owner: Some(65534), ..request(Some("/pod/web"), &none) };
    compile(&fake.layout(), &request).unwrap().create().unwrap();
    let uid = |path: &str| fs::metadata(fake.0.join("pod").join(path)).unwrap().uid();
    for given in ["web", "web/cgroup.procs", "web/cgroup.subtree_control", "web/cgroup.threads"] {
        assert_eq!(uid(given), 65534, "{given}");
    }
    for kept in ["", "cgroup.subtree_control", "web/memory.max", "web/cgroup.kill"] {
        assert_eq!(uid(kept), 0, "{kept}");
    }
}
