//! The cgroups that a config asks for, and those that a container sees.

use super::Request;
use crate::error::{Error, Result};
use crate::prim::cgroup::{self, CgroupPlan, Layout, Record};
use crate::prim::namespaces;
use crate::spec::{NamespaceType, Resources, Spec};

/// Compiles the cgroups of a config.
pub(super) fn compile_cgroup(request: &Request, spec: &Spec) -> Result<CgroupPlan> {
    static NONE: std::sync::LazyLock<Resources> = std::sync::LazyLock::new(Resources::default);
    let layout = Layout::detect()?;
    let wanted = cgroup::Request {
        path: spec.linux().cgroups_path.as_deref().filter(|path| !path.is_empty()),
        id: &request.id,
        resources: spec.linux().resources.as_ref().unwrap_or(&NONE),
        manager: request.manager,
        annotations: &spec.annotations,
        default_devices: true,
        // Root of a user namespace has no more rights over the host's cgroups than the user who made it.
        rootless: !nix::unistd::geteuid().is_root() || namespaces::inside_user_namespace(),
        owner: delegate(spec),
    };
    cgroup::compile(&layout, &wanted).map_err(|problems| Error::problems("config.json", &problems))
}

/// The host user to whom a v2 cgroup is delegated: the container's root, if it sees its cgroup as a tree of its own that it may
/// write (runtime-spec, config-linux.md, "Cgroup ownership").
fn delegate(spec: &Spec) -> Option<u32> {
    let linux = spec.linux();
    let writable = |m: &crate::spec::Mount| {
        m.destination.as_os_str() == "/sys/fs/cgroup" && !m.options.iter().any(|o| o == "ro" || o == "rro")
    };
    if !linux.creates(NamespaceType::Cgroup) || !spec.mounts.iter().any(writable) {
        return None;
    }
    linux.uid_mappings.iter().find_map(|map| map.to_host(0)).filter(|uid| *uid != 0)
}

/// The container's cgroups for mounts of type `cgroup`: the hierarchy's name (empty for v2) and the host directory. A
/// container without any of its own stays in its caller's.
pub fn cgroup_mounts(record: &Record) -> Vec<(String, String)> {
    let name = |version, mount: &str| match version {
        cgroup::Version::V2 => String::new(),
        cgroup::Version::V1 => mount.rsplit('/').next().unwrap_or_default().to_owned(),
    };
    if record.groups.is_empty() {
        let layout = cgroup::Layout::detect().unwrap_or_default();
        return layout
            .hierarchies
            .iter()
            .map(|h| (name(h.version, &h.mount), format!("{}{}", h.mount, h.own)))
            .collect();
    }
    record.groups.iter().map(|g| (name(g.version, &g.mount), g.path.clone())).collect()
}
