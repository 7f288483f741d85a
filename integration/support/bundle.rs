//! Bundles that tests make: a plain configuration, changed by pointer, beside a root filesystem of a few files.

use super::{Test, Value, json, plain, suite};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// A bundle in the test's directory. Its config.json is written when a container is made of it.
pub struct Bundle {
    dir: PathBuf,
    path: String,
    pub config: Value,
}

impl Bundle {
    pub(super) fn new(test: &Test) -> Bundle {
        let dir = test.dir().join(format!("bundle{}", test.next_number()));
        let root = dir.join("rootfs");
        for name in ["bin", "dev", "etc", "proc", "sys", "tmp", "mnt", "home"] {
            fs::create_dir_all(root.join(name)).expect("the rootfs");
        }
        let payload = suite::scratch().join("payload");
        fs::hard_link(&payload, root.join("bin/payload")).expect("the payload in the rootfs");
        symlink("payload", root.join("bin/linked")).expect("a link in the rootfs");
        fs::write(root.join("etc/hostname"), "image\n").expect("a file in the rootfs");
        let mut bundle = Bundle { path: dir.display().to_string(), dir, config: base(test.id()) };
        plain::adapt(&mut bundle);
        bundle
    }

    /// The bundle's directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The bundle's directory, for a command line.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// A path in the root filesystem, as the host sees it.
    pub fn rootfs(&self, inside: &str) -> PathBuf {
        self.dir.join("rootfs").join(inside.trim_start_matches('/'))
    }

    /// What the container runs.
    pub fn args(&mut self, args: &[&str]) -> &mut Self {
        self.set("/process/args", json!(args))
    }

    /// The container runs the payload with these verbs.
    pub fn payload(&mut self, verbs: &[&str]) -> &mut Self {
        self.args(&[&["/bin/payload"], verbs].concat())
    }

    /// Sets what is at a JSON pointer, making objects on the way; `-` at the end of a list appends.
    #[track_caller]
    pub fn set(&mut self, pointer: &str, value: Value) -> &mut Self {
        let mut at = &mut self.config;
        for step in pointer.split('/').skip(1) {
            let step = step.replace("~1", "/").replace("~0", "~");
            if step == "-" {
                if at.is_null() {
                    *at = json!([]);
                }
                let list = at.as_array_mut().expect("a list");
                list.push(Value::Null);
                at = list.last_mut().expect("just pushed");
            } else if at.is_array() {
                at = &mut at[step.parse::<usize>().expect("an index")];
            } else {
                at = &mut at[step];
            }
        }
        *at = value;
        self
    }

    /// Takes away what is at a JSON pointer.
    pub fn unset(&mut self, pointer: &str) -> &mut Self {
        let (parent, key) = pointer.rsplit_once('/').expect("a pointer");
        match self.config.pointer_mut(parent) {
            Some(Value::Object(map)) => drop(map.remove(key)),
            Some(Value::Array(list)) => drop(list.remove(key.parse().expect("an index"))),
            _ => {}
        }
        self
    }

    /// Adds a mount.
    pub fn mount(&mut self, destination: &str, typ: &str, source: &str, options: &[&str]) -> &mut Self {
        self.set("/mounts/-", json!({"destination": destination, "type": typ, "source": source, "options": options}))
    }

    /// Binds a host path.
    pub fn bind(&mut self, source: &Path, destination: &str, options: &[&str]) -> &mut Self {
        self.mount(destination, "bind", &source.display().to_string(), &[&["rbind"], options].concat())
    }

    /// The pointer to the mount at this destination.
    #[track_caller]
    pub fn mount_at(&self, destination: &str) -> String {
        let mounts = self.config["mounts"].as_array().expect("mounts");
        let index = mounts.iter().position(|m| m["destination"] == destination).expect("a mount there");
        format!("/mounts/{index}")
    }

    /// Adds a namespace, or replaces the one of this type; with a path it is joined.
    pub fn namespace(&mut self, typ: &str, path: Option<&str>) -> &mut Self {
        self.without_namespace(typ);
        let namespace = path.map_or_else(|| json!({"type": typ}), |path| json!({"type": typ, "path": path}));
        self.set("/linux/namespaces/-", namespace)
    }

    pub fn without_namespace(&mut self, typ: &str) -> &mut Self {
        self.config["linux"]["namespaces"].as_array_mut().expect("namespaces").retain(|n| n["type"] != typ);
        self
    }

    /// A new user namespace in which container IDs from 0 are the host's from `host`.
    pub fn user_namespace(&mut self, host: u32, size: u32) -> &mut Self {
        self.namespace("user", None);
        self.set("/linux/uidMappings", json!([{"containerID": 0, "hostID": host, "size": size}]));
        self.set("/linux/gidMappings", json!([{"containerID": 0, "hostID": host, "size": size}]))
    }

    /// Every capability set but the inheritable one.
    pub fn capabilities(&mut self, names: &[&str]) -> &mut Self {
        self.set("/process/capabilities", json!({"bounding": names, "effective": names, "permitted": names}))
    }

    /// Writes config.json.
    pub fn write(&self) {
        self.write_text(&serde_json::to_string_pretty(&self.config).expect("JSON"));
    }

    /// Writes a config.json that may be anything.
    pub fn write_text(&self, text: &str) {
        fs::write(self.dir.join("config.json"), text).expect("config.json");
    }
}

/// A container as `spec` would set it up, less its terminal and its read-only root. It has no cgroupsPath, so that each
/// container of a bundle has cgroups under its own ID.
fn base(id: &str) -> Value {
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": ["/bin/payload"],
            "env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin", format!("BRIG_TEST={id}")],
            "cwd": "/",
            "capabilities": {
                "bounding": ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"],
                "effective": ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"],
                "permitted": ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"],
            },
            "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 1024, "hard": 1024}],
            "noNewPrivileges": true,
        },
        "root": {"path": "rootfs"},
        "hostname": "inside",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
                "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]},
            {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]},
            {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"]},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
        ],
        "linux": {
            "namespaces": [{"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}],
            "resources": {"devices": [{"allow": false, "access": "rwm"}]},
        },
    })
}
