//! System calls, filters, mounts.

use super::{Caller, Row, State};
use crate::error::describe;
use crate::prim::{namespaces, seccomp};
use crate::spec::{IdMapping, SeccompAction, SeccompFlag};
use crate::sys::mount::{self, Attributes};
use crate::sys::probe::{Answer, Question, ask, in_child, landlock};
use crate::sys::{Errno, SysResult};
use nix::sched::{CloneFlags, unshare};
use std::ffi::CString;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

const AREA: &str = "system calls";

/// What goes where mounts can't be made detached.
const MOUNT_API: &str = "mounts of a running container and in a joined mount namespace; others are made by mount(2)";

/// The calls that brig asks for first, and the cost of the way around each where it is missing.
const CALLS: [(&str, Question, &str); 13] = [
    ("clone3", Question::Clone3, "clone(2) serves instead; on cgroup v2 processes move into their cgroup later"),
    ("clone3 into a cgroup", Question::CloneIntoCgroup, "on cgroup v2 processes are moved into their cgroup later"),
    (
        "pidfd_open",
        Question::PidfdOpen,
        "processes are held by their directories in /proc; the end of one is waited for by looking",
    ),
    ("pidfd_send_signal", Question::PidfdSendSignal, "signals go by number, with a moment in which it could be reused"),
    (
        "pidfd_getfd",
        Question::PidfdGetfd,
        "seccomp filters that notify an agent, and the record of what a sandbox's filter denies",
    ),
    ("openat2", Question::Openat2, "paths in a root filesystem are walked one name at a time: a little time"),
    ("fsopen", Question::Fsopen, MOUNT_API),
    ("open_tree", Question::OpenTree, MOUNT_API),
    ("move_mount", Question::MoveMount, MOUNT_API),
    (
        "mount_setattr",
        Question::MountSetattr,
        "ID-mapped mounts, recursive attributes (rro), attributes of mounts added to a running container; readonlyPaths \
         cover the one mount",
    ),
    ("statx of mount roots", Question::StatxMountRoot, "mounts remove"),
    ("close_range", Question::CloseRange, "fds are closed one by one: a little time"),
    ("close_range with CLOEXEC", Question::CloseRangeCloexec, "fds are marked one by one: a little time"),
];

pub(super) fn rows(caller: &Caller, root: &Path) -> Vec<Row> {
    let mut rows: Vec<Row> = CALLS
        .iter()
        .map(|(name, question, cost)| call(name, privileged_answer(*question, caller)).costs(*cost))
        .collect();
    rows.push(id_mapped(caller, root));
    rows.extend(filters());
    rows
}

fn call(name: &str, answer: Answer) -> Row {
    match answer {
        Answer::There => Row::new(AREA, name, State::Ok),
        Answer::Missing => Row::new(AREA, name, State::Missing)
            .remedy("a newer kernel; or, where brig runs in a container, a seccomp profile that allows the call"),
        Answer::Denied(errno) => Row::new(AREA, name, State::Missing)
            .found(describe(errno))
            .remedy("a seccomp filter forbids the call: allow it in the profile that brig runs under"),
    }
}

/// Asks where the privilege is that some calls look at first: a user namespace, for a plain user.
fn privileged_answer(question: Question, caller: &Caller) -> Answer {
    let answer = ask(question);
    if caller.privileged || !matches!(answer, Answer::Denied(_)) {
        return answer;
    }
    let asked = in_child(|| {
        // Where there is none to be had, that is said of the namespace, not of this.
        if unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS).is_err() {
            return Err(Errno::EUSERS);
        }
        match ask(question) {
            Answer::There => Ok(()),
            Answer::Missing => Err(Errno::ENOSYS),
            Answer::Denied(errno) => Err(errno),
        }
    });
    match asked {
        Ok(Ok(()) | Err(Errno::EUSERS)) => Answer::There,
        Ok(Err(Errno::ENOSYS)) => Answer::Missing,
        Ok(Err(errno)) | Err(errno) => Answer::Denied(errno),
    }
}

/// Maps the IDs of a copy of each filesystem that containers are likely to live on. The copies are attached nowhere.
fn id_mapped(caller: &Caller, root: &Path) -> Row {
    const NAME: &str = "ID-mapped mounts";
    let cost = "mounts with idmap, and volumes shared by user namespaces";
    if !caller.privileged {
        return Row::new(AREA, NAME, State::Missing)
            .found("takes CAP_SYS_ADMIN on the host")
            .costs(cost)
            .remedy("run brig as root for such mounts");
    }
    let map = [IdMapping { container_id: 0, host_id: 100_000, size: 1000 }];
    let namespace = match namespaces::idmap_namespace(&namespaces::maps(&map, &map)) {
        Ok(namespace) => namespace,
        Err(error) => return Row::new(AREA, NAME, State::Missing).found(error.to_string()).costs(cost),
    };
    let try_on = |path: &Path| -> SysResult<()> {
        let path = CString::new(path.as_os_str().as_encoded_bytes()).map_err(|_| Errno::EINVAL)?;
        let tree = mount::clone_tree(None, &path, false)?;
        mount::set_attributes(tree.as_fd(), Attributes::default(), false, Some(namespace.as_fd()))
    };
    let mut devices = Vec::new();
    let (mut works, mut fails) = (Vec::new(), Vec::new());
    for path in ["/", "/var/lib", "/var/lib/containers", "/home", "/tmp", "/run"]
        .map(PathBuf::from)
        .iter()
        .chain(existing(root).as_ref())
    {
        let Ok(data) = path.metadata() else { continue };
        if devices.contains(&data.dev()) {
            continue;
        }
        devices.push(data.dev());
        match try_on(path) {
            Ok(()) => works.push(path.display().to_string()),
            Err(errno) => fails.push(format!("{} ({})", path.display(), describe(errno))),
        }
    }
    let state = match (works.is_empty(), fails.is_empty()) {
        (true, _) => State::Missing,
        (false, true) => State::Ok,
        (false, false) => State::Limited,
    };
    let mut found = match works.is_empty() {
        true => String::new(),
        false => format!("on the filesystems of {}", works.join(", ")),
    };
    if !fails.is_empty() {
        found += &format!("{}not of {}", if found.is_empty() { "" } else { "; " }, fails.join(", "));
    }
    Row::new(AREA, NAME, state).found(found).costs(cost).remedy("keep such volumes on a filesystem that supports it")
}

/// The nearest directory above a path, or itself, that is there.
pub(super) fn existing(path: &Path) -> Option<PathBuf> {
    path.ancestors().find(|path| path.is_dir()).map(Path::to_owned)
}

fn filters() -> Vec<Row> {
    const AREA: &str = "confinement";
    let (actions, flags) = (seccomp::supported_actions(), seccomp::supported_flags());
    let words = |all: Vec<&str>| {
        all.iter()
            .map(|word| word.trim_start_matches("SCMP_ACT_").trim_start_matches("SECCOMP_FILTER_FLAG_"))
            .collect::<Vec<_>>()
            .join(", ")
            .to_lowercase()
    };
    let lacking: Vec<_> = SeccompAction::ALL.iter().filter(|a| !actions.contains(a)).map(|a| a.word()).collect();
    let unknown: Vec<_> = SeccompFlag::ALL.iter().filter(|f| !flags.contains(f)).map(|f| f.word()).collect();
    let state = |lacking: &[&str], none: bool| match (lacking.is_empty(), none) {
        (true, _) => State::Ok,
        (false, false) => State::Limited,
        (false, true) => State::Missing,
    };
    let mut rows = vec![
        Row::new(AREA, "seccomp actions", state(&lacking, actions.is_empty()))
            .found(words(actions.iter().map(|a| a.word()).collect()))
            .costs(format!("filters with {}", words(lacking)))
            .remedy("a kernel with CONFIG_SECCOMP_FILTER, 5.0 or newer"),
        Row::new(AREA, "seccomp flags", state(&unknown, flags.is_empty()))
            .found(words(flags.iter().map(|f| f.word()).collect()))
            .costs(format!("filters with {}", words(unknown)))
            .remedy("a newer kernel"),
    ];
    rows.push(match landlock() {
        Ok(abi) => Row::new(AREA, "Landlock", State::Ok).found(format!("ABI {abi}")),
        Err(errno) => Row::new(AREA, "Landlock", State::Missing)
            .found(if errno == Errno::EOPNOTSUPP { "not enabled at boot".into() } else { describe(errno) })
            .costs("nothing of an OCI config; programs that confine themselves by it")
            .remedy("add landlock to lsm= on the kernel's command line"),
    });
    rows
}
