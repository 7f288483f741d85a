//! The devices and links of a container's /dev.

use super::super::Op;
use super::{List, bytes, c};
use crate::error::{Context, Error, Problem, Result};
use crate::prim::mounts::relative;
use crate::prim::rootfs::{DEFAULT_DEVICES, DEFAULT_LINKS, Node};
use crate::spec::{DeviceType, Spec};
use crate::sys::files;
use crate::sys::mount::Tree;
use nix::fcntl::OFlag;
use nix::sys::stat::{Mode, SFlag, makedev};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The devices and links of the spec are made unless the host's /dev is bound in: that one is not ours to change.
pub(super) fn needs_devices(spec: &Spec) -> bool {
    !spec.mounts.iter().any(|m| {
        relative(&m.destination).as_deref() == Some(c"dev")
            && (m.typ.as_deref() == Some("bind") || m.options.iter().any(|o| o == "bind" || o == "rbind"))
    })
}

/// Adds the steps that make the default devices, those of the config, and the links of /dev.
///
/// # Errors
/// A device of the host that is to be bound and is not there.
pub(super) fn devices(list: &mut List, spec: &Spec, in_user: bool, copy_now: bool) -> Result<()> {
    let linux = spec.linux();
    let mut nodes: Vec<(String, Node, PathBuf)> = Vec::new();
    for (path, major, minor) in DEFAULT_DEVICES {
        let wanted = |d: &crate::spec::Device| relative(&d.path).as_deref() == Some(path);
        if linux.devices.iter().any(wanted) {
            continue;
        }
        let mode = Mode::from_bits_truncate(0o666);
        let node =
            Node { path: path.into(), kind: SFlag::S_IFCHR, mode, device: makedev(major, minor), uid: 0, gid: 0 };
        nodes.push((String::new(), node, Path::new("/").join(OsStr::from_bytes(path.to_bytes()))));
    }
    for (index, device) in linux.devices.iter().enumerate() {
        let pointer = format!("/linux/devices/{index}");
        let kind = match device.typ {
            Some(DeviceType::Block) => SFlag::S_IFBLK,
            Some(DeviceType::Fifo) => SFlag::S_IFIFO,
            _ => SFlag::S_IFCHR,
        };
        let Some(path) = relative(&device.path) else {
            return Err(Error::problems("config.json", &[Problem::new(pointer + "/path", "names no file")]));
        };
        let node = Node {
            path,
            kind,
            mode: Mode::from_bits_truncate(device.file_mode.unwrap_or(0o666)),
            device: if kind == SFlag::S_IFIFO { 0 } else { makedev(device.major as u64, device.minor as u64) },
            uid: device.uid.unwrap_or(0),
            gid: device.gid.unwrap_or(0),
        };
        nodes.push((pointer, node, device.path.clone()));
    }
    for (pointer, node, host) in nodes {
        // mknod of a device is refused in a user namespace, whoever asks; the host's own node serves instead.
        if in_user && node.kind != SFlag::S_IFIFO {
            let path = c(&pointer, bytes(&host))?;
            let tree = if copy_now {
                Tree::take(None, &path, false)
            } else {
                files::open(None, &path, OFlag::O_PATH).map(|_| Tree::later(path, false))
            };
            let tree = tree.during(|| format!("{pointer}: open the host's {}", host.display()))?;
            list.add(pointer, Op::BindNode { path: node.path, tree });
        } else {
            list.add(pointer, Op::Node(node));
        }
    }
    for (name, target) in DEFAULT_LINKS {
        list.add("", Op::Link { name: name.into(), target: target.into() });
    }
    Ok(())
}
