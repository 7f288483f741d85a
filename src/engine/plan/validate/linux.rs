//! The rest of `linux`: devices, paths, personality, memory policy.

use super::{Findings, Unread, absolute, one_of, resources, sysctl};
use crate::prim::mounts::relative;
use crate::prim::{attributes, intelrdt};
use crate::spec::{Device, DeviceType, MemoryPolicy, MemoryPolicyFlag, MemoryPolicyMode, PersonalityDomain, Spec};
use std::path::Path;

/// The kernel's MINORBITS: 12 bits of major number, 20 of minor.
const MAX_NUMBERS: [(&str, i64); 2] = [("major", 0xfff), ("minor", 0xf_ffff)];
/// File type and permissions: engines take the whole st_mode of a host's device.
const MODE_BITS: u32 = 0o177_777;
const PROPAGATIONS: [&str; 8] =
    ["shared", "slave", "private", "unbindable", "rshared", "rslave", "rprivate", "runbindable"];

pub(super) fn check(spec: &Spec, unread: &Unread, found: &mut Findings) {
    let linux = spec.linux();
    for (index, entry) in linux.devices.iter().enumerate() {
        device(entry, &format!("/linux/devices/{index}"), found);
    }
    if let Some(wanted) = &linux.resources {
        found.0.extend(resources::check(wanted));
    }
    if !unread.touches("/linux/namespaces") {
        sysctl::check(linux, found);
    }
    if let Some(word) = linux.rootfs_propagation.as_deref().filter(|word| !word.is_empty())
        && !PROPAGATIONS.contains(&word)
    {
        let what = format!("{word:?} is no propagation; one of {}", PROPAGATIONS.join(", "));
        found.add("/linux/rootfsPropagation", what);
    }
    for (field, paths) in [("maskedPaths", &linux.masked_paths), ("readonlyPaths", &linux.readonly_paths)] {
        for (index, path) in paths.iter().enumerate().filter(|(_, path)| names_root(path)) {
            let what = format!("{:?} is no path below the root; for the root there is root.readonly", path.display());
            found.add(format!("/linux/{field}/{index}"), what);
        }
    }
    if let Some(rdt) = &linux.intel_rdt {
        found.0.extend(intelrdt::compile(rdt, "id").err().unwrap_or_default());
    }
    if let Some(policy) = &linux.memory_policy {
        memory_policy(policy, found);
    }
    if let Some(personality) = &linux.personality {
        if personality.domain.is_none() {
            found.add("/linux/personality/domain", format!("missing; {}", one_of!(PersonalityDomain)));
        }
        if !personality.flags.is_empty() {
            found.add("/linux/personality/flags", "no flags are defined by the specification; leave them out");
        }
    }
}

/// Whether a path leads to the root, or nowhere. One that holds a NUL byte is reported for that.
fn names_root(path: &Path) -> bool {
    relative(path).is_none() && !path.as_os_str().as_encoded_bytes().contains(&0)
}

fn device(device: &Device, at: &str, found: &mut Findings) {
    absolute(&device.path, "the device file", || format!("{at}/path"), found);
    if device.path.is_absolute() && names_root(&device.path) {
        found.add(format!("{at}/path"), "is the root; name the device file, such as /dev/fuse");
    }
    match device.typ {
        None => found.add(format!("{at}/type"), "missing; c, b, u or p"),
        Some(DeviceType::All) => found.add(format!("{at}/type"), "`a` is for rules in resources; c, b, u or p"),
        // A fifo has no numbers; Go's types write them as 0 all the same.
        Some(DeviceType::Fifo) => {}
        Some(_) => {
            for ((name, max), value) in MAX_NUMBERS.into_iter().zip([device.major, device.minor]) {
                if !(0..=max).contains(&value) {
                    found.add(format!("{at}/{name}"), format!("{value} is out of range; it goes from 0 to {max}"));
                }
            }
        }
    }
    if let Some(mode) = device.file_mode.filter(|mode| mode & !MODE_BITS != 0) {
        let what = format!("{mode} is no file mode; it goes to 4095, which is 07777 (JSON has decimal numbers only)");
        found.add(format!("{at}/fileMode"), what);
    }
}

/// set_mempolicy(2).
fn memory_policy(policy: &MemoryPolicy, found: &mut Findings) {
    use MemoryPolicyFlag::{NumaBalancing, RelativeNodes, StaticNodes};
    use MemoryPolicyMode::{Bind, Default, Interleave, Local, Preferred, PreferredMany, WeightedInterleave};
    let at = "/linux/memoryPolicy";
    if let Err(problem) = attributes::memory_policy(policy) {
        found.0.push(problem);
    }
    let Some(mode) = policy.mode else {
        return found.add(format!("{at}/mode"), format!("missing; {}", one_of!(MemoryPolicyMode)));
    };
    let word = mode.word();
    let nodes = policy.nodes.as_ref().is_some_and(|nodes| !nodes.is_empty());
    match mode {
        Default | Local if nodes => {
            found.add(format!("{at}/nodes"), format!("{word} takes no nodes; leave them out"));
        }
        Bind | Interleave | WeightedInterleave | PreferredMany if !nodes => {
            found.add(format!("{at}/nodes"), format!("missing; {word} needs a list of nodes such as 0-1"));
        }
        _ => {}
    }
    for (index, flag) in policy.flags.iter().enumerate() {
        let what = match flag {
            StaticNodes if policy.flags.contains(&RelativeNodes) => {
                "does not go with MPOL_F_RELATIVE_NODES; keep one of them".to_owned()
            }
            StaticNodes | RelativeNodes if !nodes && matches!(mode, Local | Preferred) => {
                format!("is about nodes, which {word} has none of here; leave it out")
            }
            NumaBalancing if !matches!(mode, Bind | PreferredMany) => {
                format!("goes with MPOL_BIND and MPOL_PREFERRED_MANY; leave it out with {word}")
            }
            _ => continue,
        };
        found.add(format!("{at}/flags/{index}"), format!("{} {what}", flag.word()));
    }
}
