//! `linux.namespaces`, id maps and time offsets.

pub mod ahead;
mod helpers;

use crate::error::{Context, Error, Problem, Result};
use crate::spec::{IdMapping, Linux, NamespaceType};
use crate::sys::files;
use crate::sys::process::{self, Child};
use nix::fcntl::OFlag;
use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

/// The `CLONE_NEW*` bit of a kind.
pub fn flag(typ: NamespaceType) -> u64 {
    let bit = match typ {
        NamespaceType::Pid => libc::CLONE_NEWPID,
        NamespaceType::Network => libc::CLONE_NEWNET,
        NamespaceType::Mount => libc::CLONE_NEWNS,
        NamespaceType::Ipc => libc::CLONE_NEWIPC,
        NamespaceType::Uts => libc::CLONE_NEWUTS,
        NamespaceType::User => libc::CLONE_NEWUSER,
        NamespaceType::Cgroup => libc::CLONE_NEWCGROUP,
        NamespaceType::Time => libc::CLONE_NEWTIME,
    };
    bit as u64
}

pub use crate::sys::inside_user_namespace;
pub use helpers::mapping_helper;

/// The bits of the namespaces that the container gets new.
pub fn created(linux: &Linux) -> u64 {
    linux.namespaces.iter().filter(|n| n.join_path().is_none()).filter_map(|n| n.typ).map(flag).fold(0, |a, b| a | b)
}

/// A namespace to join, held open.
#[derive(Debug)]
pub struct Joined {
    /// Its kind.
    pub typ: NamespaceType,
    /// The open namespace file.
    pub fd: OwnedFd,
    /// Position in `linux.namespaces`.
    pub index: usize,
    /// The path that it was found at.
    pub path: CString,
}

/// Opens every namespace that the config joins by path: the user namespace first, the mount namespace last, since it takes
/// the view of the paths with it.
///
/// # Errors
/// A path that does not exist, or is no namespace of that kind.
pub fn open_joined(linux: &Linux) -> Result<Vec<Joined>> {
    let mut joined = Vec::new();
    for (index, namespace) in linux.namespaces.iter().enumerate() {
        let (Some(path), Some(typ)) = (namespace.join_path(), namespace.typ) else { continue };
        let at = || format!("/linux/namespaces/{index}/path: {}", path.display());
        let path = CString::new(path.as_os_str().as_bytes()).map_err(|_| Error::invalid(at()))?;
        let fd = files::open(None, &path, OFlag::O_RDONLY).during(at)?;
        let found = kind(fd.as_fd());
        if found != Some(flag(typ) as i32) {
            let what = format!("{} is no {} namespace", path.to_string_lossy(), typ.word());
            return Err(Error::problems(
                "config.json",
                &[Problem::new(format!("/linux/namespaces/{index}/path"), what)],
            ));
        }
        joined.push(Joined { typ, fd, index, path });
    }
    joined.sort_by_key(|j| match j.typ {
        NamespaceType::User => 0,
        NamespaceType::Mount => 2,
        _ => 1,
    });
    Ok(joined)
}

/// `NS_GET_NSTYPE` of ioctl_ns(2): the `CLONE_NEW*` bit of an open namespace.
fn kind(fd: BorrowedFd) -> Option<i32> {
    crate::sys::namespace_kind(fd).ok()
}

/// A user namespace's maps in the form of /proc/PID/uid_map.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Maps {
    /// For uid_map.
    pub uid: String,
    /// For gid_map.
    pub gid: String,
    /// The IDs that the child takes while it sets the container up: 0 where that is mapped, else the first that is.
    pub first: (u32, u32),
}

/// Compiles a pair of mappings.
pub fn maps(uid: &[IdMapping], gid: &[IdMapping]) -> Maps {
    let text = |maps: &[IdMapping]| -> String {
        maps.iter().map(|m| format!("{} {} {}\n", m.container_id, m.host_id, m.size)).collect()
    };
    let first = |maps: &[IdMapping]| match maps.iter().any(|m| m.to_host(0).is_some()) {
        true => 0,
        false => maps.first().map_or(0, |m| m.container_id),
    };
    Maps { uid: text(uid), gid: text(gid), first: (first(uid), first(gid)) }
}

/// Writes the maps of a process that waits in its new user namespace: directly where the caller may (CAP_SETUID and
/// CAP_SETGID, which root has, and so has an engine in a user namespace of its own), or where it maps itself alone; what
/// is more goes through newuidmap(1) and newgidmap(1), which check /etc/subuid and /etc/subgid.
///
/// # Errors
/// What would be needed: a helper, a range.
pub fn write_maps(maps: &Maps, pid: i32) -> Result<()> {
    let (uid, gid) = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
    let write = |file: &str, text: &str| std::fs::write(format!("/proc/{pid}/{file}"), text);
    if !may_map() {
        if !(is_own(&maps.uid, uid) && is_own(&maps.gid, gid)) {
            let [for_uids, for_gids] = helpers::find()?;
            for_uids.run(pid, &maps.uid, uid)?;
            return for_gids.run(pid, &maps.gid, gid);
        }
        // Linux 3.19: an unprivileged gid_map needs setgroups to be given up.
        write("setgroups", "deny").during(|| format!("write /proc/{pid}/setgroups"))?;
    }
    let words = |field: &str, text: &str| format!("/linux/{field}: write `{}`", text.trim().replace('\n', "; "));
    write("uid_map", &maps.uid).during(|| words("uidMappings", &maps.uid)).map_err(with_denial)?;
    write("gid_map", &maps.gid).during(|| words("gidMappings", &maps.gid)).map_err(with_denial)
}

/// Whether the kernel lets this process map any ID of its own user namespace (user_namespaces(7), "Defining user and group
/// ID mappings").
fn may_map() -> bool {
    const SETGID: u64 = 1 << 6;
    const SETUID: u64 = 1 << 7;
    crate::sys::cred::get_caps().is_ok_and(|caps| caps.effective & (SETUID | SETGID) == SETUID | SETGID)
}

/// Whether a map is of one ID, this one.
fn is_own(map: &str, id: u32) -> bool {
    let mut fields = map.split_whitespace().skip(1);
    fields.next().is_some_and(|host| host.parse() == Ok(id)) && fields.next() == Some("1") && fields.next().is_none()
}

/// Settings by which a host keeps plain users from user namespaces: the file below /proc/sys, the value that forbids, and
/// what it means.
const DENIALS: [(&str, &str, &str); 3] = [
    ("kernel/unprivileged_userns_clone", "0", "user namespaces are root's alone here"),
    ("user/max_user_namespaces", "0", "no user namespaces are allowed here"),
    (
        "kernel/apparmor_restrict_unprivileged_userns",
        "1",
        "AppArmor gives plain users' namespaces no rights here, but to programs with a profile that has `userns,`",
    ),
];

/// The setting by which this host keeps plain users from user namespaces, and the remedy.
pub fn denial() -> Option<String> {
    DENIALS.iter().find_map(|(file, value, meaning)| {
        let now = std::fs::read_to_string(format!("/proc/sys/{file}")).ok()?;
        let other = match *value {
            "1" => "0",
            _ if file.contains("max") => "15000",
            _ => "1",
        };
        (now.trim() == *value)
            .then(|| format!("{meaning}; root can change that: sysctl {}={other}", file.replace('/', ".")))
    })
}

fn with_denial(error: Error) -> Error {
    match denial() {
        Some(hint) => error.hint(hint),
        None if inside_user_namespace() => {
            error.hint("only what this user namespace maps itself can be mapped on: see /proc/self/uid_map and gid_map")
        }
        None => error,
    }
}

/// A user namespace with these maps and nothing in it, for an ID-mapped mount: made by a child that lives just long enough
/// for its namespace file to be opened.
///
/// # Errors
/// As clone3(2) and [`write_maps`].
pub fn idmap_namespace(maps: &Maps) -> Result<OwnedFd> {
    let (ours, theirs) = crate::sys::socket::packet_pair().during(|| "make a socket pair".into())?;
    let Some(child @ Child { pid, .. }) =
        process::clone3(libc::CLONE_NEWUSER as u64, None).during(|| "clone3 for a user namespace".into())?
    else {
        crate::sys::alloc::forbid();
        // Its own copy of the other end must go, so that the parent's end is the last: then read returns at its death, too.
        drop(ours);
        let _ = files::read(theirs.as_fd(), &mut [0]);
        process::exit_now(0)
    };
    let made = write_maps(maps, pid).and_then(|()| {
        let path = CString::new(format!("/proc/{pid}/ns/user")).unwrap_or_default();
        files::open(None, &path, OFlag::O_RDONLY).during(|| format!("open /proc/{pid}/ns/user"))
    });
    drop(ours);
    drop(theirs);
    let _ = child.signal(libc::SIGKILL);
    let _ = child.wait();
    made
}

/// `linux.timeOffsets` in the form of /proc/self/timens_offsets (time_namespaces(7)).
pub fn time_offsets(linux: &Linux) -> String {
    let line =
        |(clock, offset): (&String, &crate::spec::TimeOffset)| format!("{clock} {} {}\n", offset.secs, offset.nanosecs);
    linux.time_offsets.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn maps_in_the_kernels_form() {
        let map = |container_id, host_id, size| IdMapping { container_id, host_id, size };
        let made = maps(&[map(0, 1000, 1), map(1, 100_000, 65536)], &[map(5, 5, 1)]);
        assert_eq!(made, Maps { uid: "0 1000 1\n1 100000 65536\n".into(), gid: "5 5 1\n".into(), first: (0, 5) });
    }

    #[test]
    fn an_idmap_namespace_holds_its_maps() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: needs root to map another user");
            return;
        }
        let map = IdMapping { container_id: 0, host_id: 4711, size: 3 };
        let fd = idmap_namespace(&maps(std::slice::from_ref(&map), std::slice::from_ref(&map))).unwrap();
        assert_eq!(kind(fd.as_fd()), Some(libc::CLONE_NEWUSER));
        let mut text = String::new();
        std::fs::File::open("/proc/self/uid_map").unwrap().read_to_string(&mut text).unwrap();
        assert!(!text.contains("4711"));
    }
}
