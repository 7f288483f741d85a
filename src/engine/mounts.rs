//! The mounts of a running container: added and removed from outside.

use super::container::cgroup_mounts;
use super::exec::{gone, is_ending};
use super::launch::launch;
use super::plan::{self, LiveInputs};
use super::store::{Saved, Status, Store, wrong_status};
use crate::error::{Error, Kind, Problem, Result};
use crate::prim::mounts::{options, relative};
use crate::prim::namespaces::Joined;
use crate::spec::{Mount, NamespaceType, Spec};
use crate::sys::{Errno, files};
use nix::fcntl::OFlag;
use std::collections::BTreeMap;
use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

/// Mounts as a user lists them.
#[derive(Debug)]
pub struct List {
    /// What messages call the list: a file's name, or a flag.
    pub name: String,
    /// The pointer of the list in that file.
    pub at: &'static str,
    /// The mounts. To remove one, its destination is enough.
    pub mounts: Vec<Mount>,
}

/// Adds mounts to a container that is created, running or paused, in their order; all of them or none.
///
/// # Errors
/// Every problem of the list; a source that does not exist; the mount that failed.
pub fn add(store: &Store, id: &str, list: &List) -> Result<()> {
    let (saved, spec) = open(store, id, "add mounts to")?;
    let mut problems = plan::validate::validate_mounts(&list.mounts, &spec, list.at);
    for (index, mount) in list.mounts.iter().enumerate() {
        let at = format!("{}/{index}", list.at);
        if options::parse(&mount.options).remount {
            let what = "remount changes a mount that is there; remove it, and add it as it should be";
            problems.push(Problem::new(format!("{at}/options"), what));
        }
    }
    refuse(list, problems)?;
    let has_proc = list.mounts.iter().any(|mount| mount.typ.as_deref() == Some("proc"));
    let pid = spec.linux().namespaces.iter().position(|n| n.typ == Some(NamespaceType::Pid)).filter(|_| has_proc);
    let mapped = list.mounts.iter().any(|mount| options::parse(&mount.options).idmap.is_some());
    let cgroups = cgroup_mounts(&saved.cgroup);
    let inputs = LiveInputs {
        pid_namespace: pid
            .map(|index| {
                let fd = namespace(&saved, "pid")?;
                Ok::<_, Error>(Joined { typ: NamespaceType::Pid, fd, index, path: CString::default() })
            })
            .transpose()?,
        user_namespace: (mapped && spec.linux().namespace(NamespaceType::User).is_some())
            .then(|| namespace(&saved, "user"))
            .transpose()?,
        ..inputs(&saved, &spec, list, &cgroups)?
    };
    run(&saved, plan::add_mounts(&list.mounts, inputs))
}

/// Removes the mounts at the destinations of a list, with what is mounted below each. All are found before one is removed.
///
/// # Errors
/// Every problem of the list; a destination where nothing is mounted, or to which a symlink leads.
pub fn remove(store: &Store, id: &str, list: &List) -> Result<()> {
    let (saved, spec) = open(store, id, "remove mounts from")?;
    let mut problems = Vec::new();
    let mut seen = BTreeMap::new();
    for (index, mount) in list.mounts.iter().enumerate() {
        let at = format!("{}/{index}/destination", list.at);
        if mount.destination.as_os_str().is_empty() {
            problems.push(Problem::new(at, "missing; name a path in the container"));
        } else if mount.destination.as_os_str().as_encoded_bytes().contains(&0) {
            problems.push(Problem::new(at, "holds a NUL byte"));
        } else if let Some(path) = relative(&mount.destination) {
            if let Some(first) = seen.insert(path, index) {
                problems.push(Problem::new(at, format!("is the destination of {}/{first}, too", list.at)));
            }
        } else {
            problems.push(Problem::new(at, "the container's root can't be removed"));
        }
    }
    refuse(list, problems)?;
    run(&saved, plan::remove_mounts(&list.mounts, inputs(&saved, &spec, list, &[])?))
}

/// A container whose mounts can be changed, and its config.
fn open(store: &Store, id: &str, what: &str) -> Result<(Saved, Spec)> {
    let saved = store.peek(id)?;
    match saved.status(&store.dir(id)) {
        Status::Created | Status::Running | Status::Paused => {}
        Status::Stopped => {
            return Err(Error::new(
                Kind::Gone,
                format!("cannot {what} container {id:?}: it is stopped (container not running)"),
            ));
        }
        Status::Creating => return Err(wrong_status(what, id, Status::Creating)),
    }
    let spec = store.config(id)?;
    if spec.linux().namespace(NamespaceType::Mount).is_none() {
        return Err(Error::new(
            Kind::Invalid,
            format!("cannot {what} container {id:?}: it has no mount namespace, so they would be its host's"),
        )
        .hint("add {\"type\": \"mount\"} to linux.namespaces of its config.json"));
    }
    Ok((saved, spec))
}

fn refuse(list: &List, problems: Vec<Problem>) -> Result<()> {
    if list.mounts.is_empty() {
        return Err(Error::invalid(format!("{} lists no mounts", list.name)));
    }
    match problems.is_empty() {
        true => Ok(()),
        false => Err(Error::problems(&list.name, &problems)),
    }
}

fn inputs<'a>(
    saved: &'a Saved,
    spec: &'a Spec,
    list: &'a List,
    cgroups: &'a [(String, String)],
) -> Result<LiveInputs<'a>> {
    Ok(LiveInputs {
        spec,
        bundle: &saved.bundle,
        cgroups,
        target: saved.process().map_err(|_| gone(&saved.id))?,
        pid_namespace: None,
        user_namespace: None,
        at: list.at,
    })
}

/// A namespace of the container's first process.
fn namespace(saved: &Saved, name: &str) -> Result<OwnedFd> {
    let path = CString::new(format!("/proc/{}/ns/{name}", saved.pid)).unwrap_or_default();
    files::open(None, &path, OFlag::O_RDONLY).map_err(|errno| match errno {
        Errno::ENOENT | Errno::ESRCH => gone(&saved.id),
        errno => Error::os(format!("open the container's {name} namespace"), errno),
    })
}

/// Runs the plan to its child's end. The child joins no cgroup: a paused container's would hold it.
fn run(saved: &Saved, plan: Result<plan::Plan>) -> Result<()> {
    match launch(&mut plan?, None, false, &mut |_| Ok(())) {
        Ok(child) => {
            let _ = child.wait();
            Ok(())
        }
        Err(error) => Err(match error.kind() {
            Kind::Os(Errno::ENOMEM | Errno::ESRCH) | Kind::Other if is_ending(saved) => gone(&saved.id),
            Kind::Os(_) if saved.process().is_err() => gone(&saved.id),
            _ => error,
        }),
    }
}

/// Reads a mount as a flag gives it: `type=bind,src=/a,dst=/b,ro`. What is no key of its own is an option. A bind mount
/// takes what is mounted below its source with it, unless it says `bind`.
///
/// # Errors
/// What is missing or has no value.
pub fn parse_flag(text: &str) -> Result<Mount, String> {
    let mut mount = Mount::default();
    for word in text.split(',').filter(|word| !word.is_empty()) {
        match word.split_once('=') {
            Some(("type", value)) => mount.typ = Some(value.to_owned()),
            Some(("src" | "source", value)) => mount.source = Some(PathBuf::from(value)),
            Some(("dst" | "destination" | "target", value)) => mount.destination = PathBuf::from(value),
            Some(("bind-propagation", value)) => mount.options.push(value.to_owned()),
            Some(("tmpfs-size", value)) => mount.options.push(format!("size={value}")),
            Some(("tmpfs-mode", value)) => mount.options.push(format!("mode={value}")),
            Some(("ro" | "readonly", "true" | "1")) => mount.options.push("ro".into()),
            Some(("ro" | "readonly", "false" | "0")) => mount.options.push("rw".into()),
            None if word == "readonly" => mount.options.push("ro".into()),
            _ => mount.options.push(word.to_owned()),
        }
    }
    if mount.destination.as_os_str().is_empty() {
        return Err(format!("{text:?} names no destination; add dst=PATH"));
    }
    if mount.typ.as_deref() == Some("bind") {
        if let Some(source) = mount.source.take().filter(|source| !source.as_os_str().is_empty()) {
            mount.source = Some(std::path::absolute(&source).unwrap_or(source));
        }
        if !mount.options.iter().any(|option| option == "bind" || option == "rbind") {
            mount.options.push("rbind".into());
        }
    }
    Ok(mount)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_is_a_mount() {
        let mount = parse_flag("type=bind,src=/a,dst=/b,readonly,bind-propagation=rslave").unwrap();
        assert_eq!((mount.typ.as_deref(), mount.destination.to_str()), (Some("bind"), Some("/b")));
        assert_eq!(mount.options, ["ro", "rslave", "rbind"]);
        let mount = parse_flag("type=tmpfs,target=/t,tmpfs-size=1m,noexec").unwrap();
        assert_eq!((mount.source, mount.options.as_slice()), (None, ["size=1m".into(), "noexec".into()].as_slice()));
        let here = parse_flag("type=bind,source=x,destination=/b,bind").unwrap();
        assert_eq!(here.source, Some(std::env::current_dir().unwrap().join("x")));
        assert_eq!(here.options, ["bind"]);
        assert!(parse_flag("type=tmpfs").unwrap_err().contains("dst="));
    }
}
