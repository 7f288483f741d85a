//! podman without root: it maps its user's ranges into a user namespace, and calls the runtime from in there.

use super::machine;
use super::podman::IMAGE;
use crate::support::{Call, Kind, Test, cases, suite};
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

cases![run, keep_id, life, volume];

/// Nobody, who is in every /etc/passwd.
const USER: u32 = 65534;

static COUNT: AtomicU32 = AtomicU32::new(0);

/// A podman of an ordinary user's, with storage and state of its own. Without the right to make cgroups (they are root's
/// where they are v1) its containers stay in its caller's.
pub struct Rootless<'t> {
    test: &'t Test,
    words: Vec<String>,
    environment: Vec<(&'static str, String)>,
    home: PathBuf,
    runtime_dir: PathBuf,
}

impl<'t> Rootless<'t> {
    pub fn new(test: &'t Test) -> Rootless<'t> {
        test.differs(Kind::Runc, "podman tells the runtime --cgroup-manager=disabled, a flag that runc has not");
        let (unshare, setpriv) = (machine::program("unshare"), machine::program("setpriv"));
        let podman = machine::program("podman");
        machine::program("newuidmap");
        machine::program("catatonit");
        if !fs::exists("/etc/subuid").unwrap() || !fs::exists("/etc/subgid").unwrap() {
            suite::skip("there is no /etc/subuid and /etc/subgid to put others over");
        }
        let image = machine::image(test);
        let home = test.dir().join("home");
        // Of the user's own, and short: podman refuses a path of more than 50 characters for its sockets.
        let runtime_dir = suite::scratch().join(format!("u{}", COUNT.fetch_add(1, Ordering::Relaxed)));
        for dir in [&home, &runtime_dir] {
            fs::create_dir(dir).expect("a user's directory");
            chown(dir, Some(USER), Some(USER)).expect("a user's directory");
            fs::set_permissions(dir, Permissions::from_mode(0o700)).expect("a user's directory");
        }
        let runtime = machine::runtime_for_all().display().to_string();
        fs::write(test.dir().join("ranges"), format!("nobody:{}:65536\n", 300_000)).expect("ID ranges");
        fs::write(test.dir().join("containers.conf"), CONFIGURATION).expect("containers.conf");
        let script = "mount --bind $0 /etc/subuid && mount --bind $0 /etc/subgid && exec \"$@\"";
        let at = |dir: &Path, name: &str| dir.join(name).display().to_string();
        let (ranges, root, runroot) = (at(test.dir(), "ranges"), at(&home, "root"), at(&runtime_dir, "containers"));
        let user = USER.to_string();
        let namespace = [&unshare, "--mount", "sh", "-c", script, &ranges];
        let demoted = [&setpriv, "--reuid", &user, "--regid", &user, "--clear-groups"];
        let engine =
            [&podman, "--root", &root, "--runroot", &runroot, "--storage-driver", "vfs", "--runtime", &runtime];
        let words = [namespace.as_slice(), &demoted, &engine].concat().iter().map(ToString::to_string).collect();
        let environment = vec![
            ("CONTAINERS_CONF", at(test.dir(), "containers.conf")),
            ("HOME", home.display().to_string()),
            ("TMPDIR", home.display().to_string()),
            ("XDG_RUNTIME_DIR", runtime_dir.display().to_string()),
        ];
        let rootless = Rootless { test, words, environment, home, runtime_dir };
        rootless.call(&["import", "--quiet", image.to_str().expect("a path"), IMAGE]).ok();
        rootless
    }

    pub fn call(&self, args: &[&str]) -> Call<'t> {
        let words: Vec<&str> = self.words.iter().map(String::as_str).chain(args.iter().copied()).collect();
        let call = Call::of(self.test, &words).patient().cwd(&self.home);
        self.environment.iter().fold(call, |call, (key, value)| call.env(key, value))
    }

    /// `podman run --rm` of a shell script that has to succeed: what it prints.
    #[track_caller]
    fn shell(&self, flags: &[&str], script: &str) -> String {
        self.call(&[&["run", "--rm"], flags, &[IMAGE, "sh", "-c", script]].concat()).ok().stdout
    }
}

/// What differs from an ordinary user's configuration: no network, and none of the limits that need CAP_SYS_RESOURCE.
/// podman has to be told that a runtime of this name can do without cgroups.
const CONFIGURATION: &str = r#"[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1000:1000"]
log_driver = "k8s-file"
netns = "none"
cgroups = "disabled"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
lock_type = "file"
runtime_supports_nocgroup = ["brig", "crun"]
runtime_supports_json = ["brig", "crun"]
"#;

impl Drop for Rootless<'_> {
    fn drop(&mut self) {
        let mut left = Vec::new();
        // The last of these ends the process that keeps the user namespace open.
        for args in [
            ["pod", "rm", "--all", "--force", "--time", "0"].as_slice(),
            &["rm", "--all", "--force", "--time", "0"],
            &["system", "migrate"],
        ] {
            let out = self.call(args).out();
            if out.code != 0 {
                left.push(format!("podman {} ended with {}: {}", args.join(" "), out.code, out.stderr.trim()));
            }
        }
        left.extend(machine::processes_left(self.test.id()));
        machine::end_processes(self.test.id());
        machine::reap_monitors();
        left.extend(["brig", "crun"].iter().flat_map(|name| machine::entries(&self.runtime_dir.join(name))));
        let _ = fs::remove_dir_all(&self.runtime_dir);
        if !std::thread::panicking() {
            assert!(left.is_empty(), "left behind: {}", left.join("; "));
        }
    }
}

fn run(t: &Test) {
    let p = Rootless::new(t);
    let out = p.shell(&[], "id -u; cat /proc/self/uid_map; echo > /dev/null && echo x > /new && stat -c %u /new");
    let words: Vec<&str> = out.split_whitespace().collect();
    assert_eq!(words, ["0", "0", "65534", "1", "1", "300000", "65536", "0"]);
    p.call(&["run", "--rm", IMAGE, "sh", "-c", "exit 42"]).out().code(42);
    p.call(&["run", "--rm", IMAGE, "no-such-program"]).out().code(127);
    p.call(&["run", "--rm", IMAGE, "/etc/passwd"]).out().code(126);
}

fn keep_id(t: &Test) {
    let p = Rootless::new(t);
    let out = p.shell(&["--userns", "keep-id"], "id -u; touch /tmp/new && stat -c %u /tmp/new");
    assert_eq!(out, "65534\n65534\n");
}

fn life(t: &Test) {
    let p = Rootless::new(t);
    p.call(&["run", "--detach", "--name", "web", IMAGE, "sleep", "1000"]).ok();
    assert_eq!(p.call(&["exec", "web", "id", "-u"]).ok().stdout, "0\n");
    assert_eq!(p.call(&["exec", "--user", "1000", "web", "id", "-u"]).ok().stdout, "1000\n");
    p.call(&["exec", "web", "no-such-program"]).out().code(127);
    p.call(&["kill", "--signal", "KILL", "web"]).ok();
    assert_eq!(p.call(&["wait", "web"]).ok().stdout.trim(), "137");
    p.call(&["rm", "web"]).ok();
}

fn volume(t: &Test) {
    let p = Rootless::new(t);
    let dir = p.home.join("shared");
    fs::create_dir(&dir).unwrap();
    chown(&dir, Some(USER), Some(USER)).unwrap();
    p.shell(&["--volume", &format!("{}:/mnt", dir.display()), "--read-only"], "echo in > /mnt/file");
    assert_eq!(fs::read_to_string(dir.join("file")).unwrap(), "in\n");
    let out = p.shell(&["--volume", &format!("{}:/mnt:ro", dir.display())], "touch /mnt/new 2>&1 || true");
    assert_eq!(out, "touch: /mnt/new: Read-only file system\n");
}
