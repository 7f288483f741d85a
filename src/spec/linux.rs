//! `linux`: namespaces, id maps, devices and everything else that only Linux has.

use super::{Resources, Seccomp};
use std::collections::BTreeMap;
use std::path::PathBuf;

spec_objects! {
    /// `linux`.
    struct Linux {
        devices: Vec<Device>,
        net_devices: BTreeMap<String, NetDevice>,
        uid_mappings: Vec<IdMapping>,
        gid_mappings: Vec<IdMapping>,
        sysctl: BTreeMap<String, String>,
        resources: Option<Resources>,
        cgroups_path: Option<String>,
        namespaces: Vec<Namespace>,
        time_offsets: BTreeMap<String, TimeOffset>,
        seccomp: Option<Seccomp>,
        rootfs_propagation: Option<String>,
        masked_paths: Vec<PathBuf>,
        readonly_paths: Vec<PathBuf>,
        mount_label: Option<String>,
        intel_rdt: Option<IntelRdt>,
        memory_policy: Option<MemoryPolicy>,
        personality: Option<Personality>,
    }

    /// One range of `uidMappings` or `gidMappings`, see user_namespaces(7).
    struct IdMapping {
        #[serde(rename = "containerID")]
        container_id: u32,
        #[serde(rename = "hostID")]
        host_id: u32,
        size: u32,
    }

    /// One entry of `linux.namespaces`: created when it has no path, joined when it has one.
    struct Namespace {
        #[serde(rename = "type")]
        typ: Option<NamespaceType>,
        path: Option<PathBuf>,
    }

    /// One entry of `linux.devices`.
    struct Device {
        path: PathBuf,
        #[serde(rename = "type")]
        typ: Option<DeviceType>,
        major: i64,
        minor: i64,
        file_mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
    }

    /// One entry of `linux.netDevices` (1.3): a host interface moved into the container, by another name if one is given.
    struct NetDevice {
        name: Option<String>,
    }

    /// One entry of `linux.timeOffsets`, see time_namespaces(7).
    struct TimeOffset {
        secs: i64,
        nanosecs: u32,
    }

    /// `linux.intelRdt`.
    struct IntelRdt {
        #[serde(rename = "closID")]
        clos_id: Option<String>,
        schemata: Vec<String>,
        l3_cache_schema: Option<String>,
        mem_bw_schema: Option<String>,
        enable_monitoring: bool,
        #[serde(rename = "enableCMT")]
        enable_cmt: bool,
        #[serde(rename = "enableMBM")]
        enable_mbm: bool,
    }

    /// `linux.memoryPolicy` (1.3), see set_mempolicy(2).
    struct MemoryPolicy {
        mode: Option<MemoryPolicyMode>,
        nodes: Option<String>,
        flags: Vec<MemoryPolicyFlag>,
    }

    /// `linux.personality`, see personality(2).
    struct Personality {
        domain: Option<PersonalityDomain>,
        flags: Vec<String>,
    }
}

spec_words! {
    /// The eight kinds of namespaces(7).
    enum NamespaceType {
        Pid = "pid",
        Network = "network",
        Mount = "mount",
        Ipc = "ipc",
        Uts = "uts",
        User = "user",
        Cgroup = "cgroup",
        Time = "time",
    }

    /// Kinds of device; `u` is `c` without buffering, and `a` (all) is for cgroup rules only.
    enum DeviceType {
        All = "a",
        Block = "b",
        Char = "c",
        Unbuffered = "u",
        Fifo = "p",
    }

    /// Modes of set_mempolicy(2).
    enum MemoryPolicyMode {
        Default = "MPOL_DEFAULT",
        Bind = "MPOL_BIND",
        Interleave = "MPOL_INTERLEAVE",
        WeightedInterleave = "MPOL_WEIGHTED_INTERLEAVE",
        Preferred = "MPOL_PREFERRED",
        PreferredMany = "MPOL_PREFERRED_MANY",
        Local = "MPOL_LOCAL",
    }

    /// Flags of set_mempolicy(2).
    enum MemoryPolicyFlag {
        NumaBalancing = "MPOL_F_NUMA_BALANCING",
        RelativeNodes = "MPOL_F_RELATIVE_NODES",
        StaticNodes = "MPOL_F_STATIC_NODES",
    }

    /// Execution domains that the spec allows.
    enum PersonalityDomain {
        Linux = "LINUX",
        Linux32 = "LINUX32",
    }
}

impl Linux {
    /// The entry for one kind of namespace, if the config has one.
    pub fn namespace(&self, typ: NamespaceType) -> Option<&Namespace> {
        self.namespaces.iter().find(|n| n.typ == Some(typ))
    }

    /// Whether the container gets a new namespace of this kind (rather than joining one or keeping the runtime's).
    pub fn creates(&self, typ: NamespaceType) -> bool {
        self.namespace(typ).is_some_and(|n| n.join_path().is_none())
    }
}

impl Namespace {
    /// The path to join; engines write `""` for none.
    pub fn join_path(&self) -> Option<&std::path::Path> {
        self.path.as_deref().filter(|p| !p.as_os_str().is_empty())
    }
}
