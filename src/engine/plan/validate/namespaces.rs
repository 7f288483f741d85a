//! `linux.namespaces` and what depends on them: maps, offsets, network devices.

use super::{Context, Findings, Unread, needs_namespace, one_of};
use crate::spec::{IdMapping, Linux, NamespaceType, Spec, escape};

/// The kernel's UID_GID_MAP_MAX_EXTENTS, since Linux 4.15.
const MAX_RANGES: usize = 340;

pub(super) fn check(spec: &Spec, context: &Context, unread: &Unread, found: &mut Findings) {
    let linux = spec.linux();
    for (index, namespace) in linux.namespaces.iter().enumerate() {
        let at = || format!("/linux/namespaces/{index}");
        let Some(typ) = namespace.typ else {
            found.add(at() + "/type", format!("missing; {}", one_of!(NamespaceType)));
            continue;
        };
        if linux.namespaces[..index].iter().any(|n| n.typ == Some(typ)) {
            found.add(at(), format!("is a second {} namespace; a container has one of each kind", typ.word()));
        }
        if let Some(path) = namespace.join_path().filter(|path| !path.is_absolute()) {
            let what = format!("{:?} is relative; it must be an absolute path", path.display());
            found.add(at() + "/path", what);
        }
    }
    for (name, list) in [("uidMappings", &linux.uid_mappings), ("gidMappings", &linux.gid_mappings)] {
        ranges(list, &format!("/linux/{name}"), found);
    }
    offsets(linux, found);
    net_devices(linux, found);
    if !unread.touches("/linux/namespaces") {
        conflicts(spec, context, found);
    }
}

/// What asks for a namespace that the container does not get.
fn conflicts(spec: &Spec, context: &Context, found: &mut Findings) {
    let linux = spec.linux();
    let has = |typ| linux.namespace(typ).is_some();
    // Engines give the maps of a user namespace that is joined, too; those are then the namespace's own.
    for (name, list) in [("uidMappings", &linux.uid_mappings), ("gidMappings", &linux.gid_mappings)] {
        if linux.creates(NamespaceType::User) && list.is_empty() {
            let what = "missing; a new user namespace needs a range, such as \
                        {\"containerID\": 0, \"hostID\": 100000, \"size\": 65536}";
            found.add(format!("/linux/{name}"), what);
        }
        if !has(NamespaceType::User) && !list.is_empty() {
            found.add(format!("/linux/{name}"), needs_namespace(NamespaceType::User, "to map in"));
        }
    }
    if context.rootless && !has(NamespaceType::User) {
        let what = needs_namespace(NamespaceType::User, "when the caller is not root");
        found.add("/linux/namespaces", what);
    }
    if !linux.time_offsets.is_empty() && !linux.creates(NamespaceType::Time) {
        let what = match has(NamespaceType::Time) {
            true => "the offsets of a time namespace that exists can't be changed; leave its path out, or these".into(),
            false => needs_namespace(NamespaceType::Time, "to be set in"),
        };
        found.add("/linux/timeOffsets", what);
    }
    if !linux.net_devices.is_empty() && !has(NamespaceType::Network) {
        found.add("/linux/netDevices", needs_namespace(NamespaceType::Network, "to be moved to"));
    }
    if has(NamespaceType::Mount) {
        return;
    }
    for (wanted, field) in [
        (!linux.masked_paths.is_empty(), "maskedPaths"),
        (!linux.readonly_paths.is_empty(), "readonlyPaths"),
        (!linux.devices.is_empty(), "devices"),
        (linux.rootfs_propagation.as_ref().is_some_and(|p| !p.is_empty()), "rootfsPropagation"),
        (linux.mount_label.as_ref().is_some_and(|l| !l.is_empty()), "mountLabel"),
    ] {
        if wanted {
            let what = needs_namespace(NamespaceType::Mount, "that keeps it from the host's mounts");
            found.add(format!("/linux/{field}"), what);
        }
    }
}

/// user_namespaces(7), "User and group ID mappings".
pub(super) fn ranges(list: &[IdMapping], at: &str, found: &mut Findings) {
    if list.len() > MAX_RANGES {
        found.add(at, format!("has {} ranges, and the kernel takes {MAX_RANGES}; join some", list.len()));
    }
    for (index, map) in list.iter().enumerate() {
        if map.size == 0 {
            found.add(format!("{at}/{index}/size"), "missing or 0; give the number of IDs that are mapped");
        }
        for (field, first) in [("containerID", map.container_id), ("hostID", map.host_id)] {
            if u64::from(first) + u64::from(map.size) > u64::from(u32::MAX) {
                let what =
                    format!("{first} and the {} IDs from there go beyond {}, the last one", map.size, u32::MAX - 1);
                found.add(format!("{at}/{index}/{field}"), what);
            }
        }
        for (other, earlier) in list[..index].iter().enumerate() {
            for (field, a, b) in
                [("containerID", map.container_id, earlier.container_id), ("hostID", map.host_id, earlier.host_id)]
            {
                let ends = |first: u32, map: &IdMapping| u64::from(first) + u64::from(map.size);
                if u64::from(a) < ends(b, earlier) && u64::from(b) < ends(a, map) {
                    let what = format!("the range overlaps that of entry {other}; an ID is mapped once");
                    found.add(format!("{at}/{index}/{field}"), what);
                }
            }
        }
    }
}

/// time_namespaces(7).
fn offsets(linux: &Linux, found: &mut Findings) {
    for (clock, offset) in &linux.time_offsets {
        let at = format!("/linux/timeOffsets/{}", escape(clock));
        if !matches!(clock.as_str(), "monotonic" | "boottime") {
            found.add(at.clone(), format!("{clock:?} is no clock of a time namespace; monotonic and boottime are"));
        }
        if offset.nanosecs > 999_999_999 {
            let what = format!("{} is out of range; it goes to 999999999, whole seconds are for secs", offset.nanosecs);
            found.add(at + "/nanosecs", what);
        }
    }
}

fn net_devices(linux: &Linux, found: &mut Findings) {
    let mut targets: Vec<&str> = Vec::new();
    for (device, wanted) in &linux.net_devices {
        let at = format!("/linux/netDevices/{}", escape(device));
        if !is_interface(device) {
            found.add(at.clone(), not_an_interface(device));
        }
        let new = wanted.name.as_deref().filter(|name| !name.is_empty());
        if let Some(name) = new.filter(|name| !is_interface(name)) {
            found.add(format!("{at}/name"), not_an_interface(name));
        }
        let target = new.unwrap_or(device);
        if targets.contains(&target) {
            let pointer = if new.is_some() { at + "/name" } else { at };
            found.add(pointer, format!("another device is called {target} in the container; give one of them a name"));
        }
        targets.push(target);
    }
}

/// What the kernel takes for a name (dev_valid_name): it becomes a file in /sys.
fn is_interface(name: &str) -> bool {
    let fits = (1..=15).contains(&name.len()) && name != "." && name != "..";
    fits && !name.contains(|c: char| matches!(c, '/' | ':' | '\0' | '\x0b') || c.is_ascii_whitespace())
}

fn not_an_interface(name: &str) -> String {
    format!("{name:?} is no name for a network interface; it takes 1 to 15 bytes without a slash, colon or space")
}
