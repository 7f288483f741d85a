//! The features document of the runtime-spec (features.md, features-linux.md): what brig implements, whatever the host has.

use crate::spec::{
    MemoryPolicyFlag, MemoryPolicyMode, NamespaceType, SeccompAction, SeccompArch, SeccompFlag, SeccompOp, VERSION_MAX,
    VERSION_MIN,
};
use serde_json::{Value, json};

/// What the other floors know about themselves.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// Every mount option that is understood, but those which are passed on to a filesystem.
    pub mount_options: &'a [&'a str],
    /// Every capability that is understood, as `CAP_*`.
    pub capabilities: &'a [String],
    /// The flags of the filter that this kernel takes, of those that are understood.
    pub seccomp_flags: &'a [SeccompFlag],
    /// The version of libseccomp that is linked in, as `2.5.4`.
    pub libseccomp: &'a str,
    /// The annotations of a config.json that change what the runtime does; a final `.` stands for any ending.
    pub annotations: &'a [&'a str],
}

/// The words of an enumeration of the spec.
macro_rules! words {
    ($name:ident) => {
        $name::ALL.iter().map(|value| value.word()).collect::<Vec<_>>()
    };
}

/// The document that `brig features` prints.
pub fn document(facts: &Facts) -> Value {
    let mut mount_options = facts.mount_options.to_vec();
    mount_options.sort_unstable();
    mount_options.dedup();
    // An alias for the machine's own architecture, not one by itself.
    let native = SeccompArch::Native.word();
    let archs: Vec<_> = words!(SeccompArch).into_iter().filter(|word| *word != native).collect();
    let supported: Vec<_> = facts.seccomp_flags.iter().map(|flag| flag.word()).collect();
    json!({
        "ociVersionMin": VERSION_MIN,
        "ociVersionMax": VERSION_MAX,
        "hooks": ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"],
        "mountOptions": mount_options,
        "linux": {
            "namespaces": words!(NamespaceType),
            "capabilities": facts.capabilities,
            "cgroup": { "v1": true, "v2": true, "systemd": true, "systemdUser": true, "rdma": true },
            "seccomp": {
                "enabled": true,
                "actions": words!(SeccompAction),
                "operators": words!(SeccompOp),
                "archs": archs,
                "knownFlags": words!(SeccompFlag),
                "supportedFlags": supported,
            },
            "apparmor": { "enabled": true },
            "selinux": { "enabled": true },
            "intelRdt": { "enabled": true, "schemata": true, "monitoring": true },
            "memoryPolicy": { "modes": words!(MemoryPolicyMode), "flags": words!(MemoryPolicyFlag) },
            "mountExtensions": { "idmap": { "enabled": true } },
            "netDevices": { "enabled": true },
        },
        "annotations": {
            "io.github.seccomp.libseccomp.version": facts.libseccomp,
            "brig.version": env!("CARGO_PKG_VERSION"),
        },
        "potentiallyUnsafeConfigAnnotations": facts.annotations,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Value {
        document(&Facts {
            mount_options: &["rw", "ro", "ro", "bind"],
            capabilities: &["CAP_CHOWN".to_owned(), "CAP_KILL".to_owned()],
            seccomp_flags: &[SeccompFlag::Log],
            libseccomp: "2.5.4",
            annotations: &["org.example.unsafe."],
        })
    }

    #[test]
    fn every_property_of_the_spec_is_there() {
        let document = example();
        for pointer in [
            "/ociVersionMin",
            "/ociVersionMax",
            "/hooks/5",
            "/mountOptions/2",
            "/linux/namespaces/7",
            "/linux/capabilities/1",
            "/linux/cgroup/v1",
            "/linux/cgroup/v2",
            "/linux/cgroup/systemd",
            "/linux/cgroup/systemdUser",
            "/linux/cgroup/rdma",
            "/linux/seccomp/enabled",
            "/linux/seccomp/actions/8",
            "/linux/seccomp/operators/6",
            "/linux/seccomp/archs/0",
            "/linux/seccomp/knownFlags/3",
            "/linux/seccomp/supportedFlags/0",
            "/linux/apparmor/enabled",
            "/linux/selinux/enabled",
            "/linux/intelRdt/enabled",
            "/linux/intelRdt/schemata",
            "/linux/intelRdt/monitoring",
            "/linux/memoryPolicy/modes/6",
            "/linux/memoryPolicy/flags/2",
            "/linux/mountExtensions/idmap/enabled",
            "/linux/netDevices/enabled",
            "/annotations/io.github.seccomp.libseccomp.version",
            "/potentiallyUnsafeConfigAnnotations/0",
        ] {
            assert!(document.pointer(pointer).is_some_and(|value| !value.is_null()), "{pointer}");
        }
        assert_eq!(document["mountOptions"], json!(["bind", "ro", "rw"]), "sorted, each once");
        assert_eq!(document["linux"]["seccomp"]["supportedFlags"], json!(["SECCOMP_FILTER_FLAG_LOG"]));
    }

    #[test]
    fn the_oci_crate_reads_it_and_writes_the_same() {
        let mut document = example();
        // Architectures that the crate does not know would fail it.
        let archs = document["linux"]["seccomp"]["archs"].as_array_mut().unwrap();
        let all = archs.len();
        archs.retain(|arch| serde_json::from_value::<oci_spec::runtime::Arch>(arch.clone()).is_ok());
        assert!(archs.len() >= all - 6, "{archs:?}");
        let features: oci_spec::runtime::Features = serde_json::from_value(document.clone()).unwrap();
        assert_eq!(serde_json::to_value(&features).unwrap(), document);
    }
}
