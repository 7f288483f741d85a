//! `mounts`.

use super::namespaces::ranges;
use super::{Findings, Unread};
use crate::prim::mounts::options::{self, Options};
use crate::prim::mounts::relative;
use crate::spec::{IdMapping, Mount, NamespaceType, Spec};

pub(super) fn check(spec: &Spec, unread: &Unread, found: &mut Findings) {
    for (index, mount) in spec.mounts.iter().enumerate() {
        let at = format!("/mounts/{index}");
        let parsed = options::parse(&mount.options);
        let typ = mount.typ.as_deref().unwrap_or_default();
        let bind = parsed.bind.is_some() || typ == "bind";
        let destination = mount.destination.as_os_str();
        if destination.is_empty() {
            found.add(format!("{at}/destination"), "missing; name a path in the container");
        } else if !has_nul(destination)
            && relative(&mount.destination).is_none()
            && !(index == 0 && takes_the_roots_place(mount, bind))
        {
            let what = "a mount on / would hide the root filesystem; make it root.path instead, or bind or overlay it first of all";
            found.add(format!("{at}/destination"), what);
        }
        if parsed.remount {
            continue;
        }
        if bind && mount.source.as_ref().is_none_or(|source| source.as_os_str().is_empty()) {
            found.add(format!("{at}/source"), "missing; a bind mount needs a file or directory of the host");
        }
        if !bind && matches!(typ, "" | "none") {
            let what = "missing; a type of filesystem such as tmpfs, or the option bind, is needed";
            found.add(format!("{at}/type"), what);
        }
        if bind && !parsed.data.is_empty() {
            each_data(mount, |index, option| {
                let what = format!("{option:?} is no mount option, and a bind mount has no filesystem to give it to");
                found.add(format!("{at}/options/{index}"), what);
            });
        }
        if parsed.copy_up && typ != "tmpfs" {
            found.add(format!("{at}/options"), "tmpcopyup is for mounts of type tmpfs alone");
        }
        id_mapped(mount, &parsed, bind, spec, unread, &at, found);
        if !bind && matches!(typ, "tmpfs" | "devpts") {
            owners(mount, spec, unread, &at, found);
        }
    }
}

/// A directory bound on /, or an overlay, is a root filesystem as good as root.path.
fn takes_the_roots_place(mount: &Mount, bind: bool) -> bool {
    bind || mount.typ.as_deref() == Some("overlay")
}

fn has_nul(text: &std::ffi::OsStr) -> bool {
    text.as_encoded_bytes().contains(&0)
}

/// Calls back for each option that is data for the filesystem, with its position.
fn each_data(mount: &Mount, mut call: impl FnMut(usize, &str)) {
    for (index, option) in mount.options.iter().enumerate() {
        for data in options::parse(std::slice::from_ref(option)).data {
            call(index, &data);
        }
    }
}

/// ID-mapped mounts (runtime-spec, config.md, "Mounts"; mount_setattr(2)).
fn id_mapped(
    mount: &Mount,
    parsed: &Options,
    bind: bool,
    spec: &Spec,
    unread: &Unread,
    at: &str,
    found: &mut Findings,
) {
    let lists = [("uidMappings", &mount.uid_mappings), ("gidMappings", &mount.gid_mappings)];
    for ((name, list), (other, others)) in [(lists[0], lists[1]), (lists[1], lists[0])] {
        if list.is_empty() && !others.is_empty() {
            found.add(format!("{at}/{name}"), format!("missing; {other} needs it beside"));
        }
        ranges(list, &format!("{at}/{name}"), found);
    }
    let mapped = lists.iter().any(|(_, list)| !list.is_empty());
    if !mapped && parsed.idmap.is_none() {
        return;
    }
    let pointer = if mapped { format!("{at}/uidMappings") } else { format!("{at}/options") };
    if !bind {
        found.add(pointer, "an ID-mapped mount is a bind mount; add the option bind");
    } else if !mapped && spec.linux().namespace(NamespaceType::User).is_none() && !unread.touches("/linux/namespaces") {
        let what = "idmap needs uidMappings and gidMappings here, since there is no user namespace to take them from";
        found.add(pointer, what);
    }
}

/// A filesystem that is mounted in a user namespace takes no owner that does not exist there.
fn owners(mount: &Mount, spec: &Spec, unread: &Unread, at: &str, found: &mut Findings) {
    let linux = spec.linux();
    let known = !["namespaces", "uidMappings", "gidMappings"].iter().any(|f| unread.touches(&format!("/linux/{f}")));
    if !linux.creates(NamespaceType::User) || !known {
        return;
    }
    each_data(mount, |index, option| {
        let (list, maps): (_, &[IdMapping]) = match option.split_once('=') {
            Some(("uid", _)) => ("uidMappings", &linux.uid_mappings),
            Some(("gid", _)) => ("gidMappings", &linux.gid_mappings),
            _ => return,
        };
        let Some(id) = option.split_once('=').and_then(|(_, id)| id.parse().ok()) else { return };
        if !maps.is_empty() && !maps.iter().any(|map| map.to_host(id).is_some()) {
            let what =
                format!("{option}: no such ID in the container's user namespace; remove it, or add it to linux.{list}");
            found.add(format!("{at}/options/{index}"), what);
        }
    });
}
