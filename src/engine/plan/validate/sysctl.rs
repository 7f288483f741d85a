//! `linux.sysctl`: only what a namespace of the container's holds; anything else would be the host's.

use super::{Findings, needs_namespace};
use crate::engine::plan::compile::sysctl_path;
use crate::spec::{Linux, NamespaceType, escape};
use std::os::linux::fs::MetadataExt;
use std::path::Path;

/// Settings in `/proc/sys/kernel` that ipc_namespaces(7) lists, of those that runc and crun let through.
const IPC: [&str; 8] = ["msgmax", "msgmnb", "msgmni", "sem", "shmall", "shmmax", "shmmni", "shm_rmid_forced"];

pub(super) fn check(linux: &Linux, found: &mut Findings) {
    for name in linux.sysctl.keys() {
        if let Err(what) = namespaced(&sysctl_path(name), linux) {
            found.add(format!("/linux/sysctl/{}", escape(name)), what);
        }
    }
}

/// Decides by the path below /proc/sys.
fn namespaced(path: &str, linux: &Linux) -> Result<(), String> {
    if path.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err("is no name of a sysctl; write it as net.ipv4.ip_forward or net/ipv4/ip_forward".into());
    }
    let (top, rest) = path.split_once('/').unwrap_or((path, ""));
    let typ = match top {
        "net" => NamespaceType::Network,
        "fs" if rest.starts_with("mqueue/") => NamespaceType::Ipc,
        "kernel" if IPC.contains(&rest) => NamespaceType::Ipc,
        "kernel" if rest == "domainname" => NamespaceType::Uts,
        "kernel" if rest == "hostname" => return Err("is set by the field hostname; use that".into()),
        _ => return Err("belongs to no namespace, so it would change the host; set it there".into()),
    };
    let Some(namespace) = linux.namespace(typ) else {
        return Err(needs_namespace(typ, "to be set without changing the host's"));
    };
    match namespace.join_path() {
        Some(joined) if typ == NamespaceType::Network && is_own_network(joined) => {
            Err(format!("{} is the host's network namespace, which it would change; set it there", joined.display()))
        }
        _ => Ok(()),
    }
}

/// Whether a namespace file is that of brig's own network namespace, which is the host's to a container.
fn is_own_network(path: &Path) -> bool {
    let id = |path: &Path| path.metadata().map(|data| (data.st_dev(), data.st_ino())).ok();
    id(path).is_some_and(|joined| Some(joined) == id(Path::new("/proc/self/ns/net")))
}
