//! The steps of a plan. One variant is one thing that a user understands; its `Display` is the phrase that `brig plan`
//! prints and that an error starts with.

use crate::prim::attributes::{MemoryPolicy, Rlimit};
use crate::prim::capabilities::{self, Sets};
use crate::prim::hooks::Prepared;
use crate::prim::landlock::Ruleset;
use crate::prim::mounts::{CopyUp, Mount, What};
use crate::prim::namespaces::ahead::Network;
use crate::prim::rootfs::Node;
use crate::prim::seccomp::Filter;
use crate::sys::mount::Tree;
use crate::sys::path::{self, Follow};
use crate::sys::sched::SchedAttr;
use crate::sys::{At, Call, Failure};
use nix::sys::stat::Mode;
use std::cell::OnceCell;
use std::ffi::{CStr, CString};
use std::fmt;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::rc::Rc;

/// One step of the child, and the place in config.json that asked for it.
#[derive(Debug)]
pub struct Step {
    /// What is done.
    pub op: Op,
    /// JSON pointer of the cause; empty for what every container gets.
    pub at: String,
}

/// A point at which the child waits for the parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Sync {
    /// The parent writes the id maps, and maps the mounts that want them.
    Maps = 1,
    /// The parent moves network devices in and runs the prestart and createRuntime hooks.
    Runtime = 2,
    /// Everything is set up: the parent saves the state.
    Ready = 3,
    /// The filter's listener waits to be fetched and passed on.
    Notify = 4,
    /// systemd puts the process into its scope.
    Scope = 5,
    /// The writable layer, or a socket that listens, is handed over.
    Handover = 6,
}

/// A place in the root that a new filesystem is about to cover: what is attached there first is out of sight then, without being
/// unmounted, which would cost a grace period of the kernel's (namespace_unlock).
#[derive(Debug, Clone)]
pub struct Place {
    target: CString,
    follow: Follow,
}

impl Place {
    /// The place of such a mount. A filesystem that takes after the directory below it must find that one.
    pub fn below(mount: &Mount) -> Option<Place> {
        let covers =
            matches!(&mount.what, What::New { fstype, copy_up: CopyUp::No, .. } if fstype.as_c_str() == c"tmpfs");
        (covers && !mount.target.is_empty())
            .then(|| Place { target: mount.target.clone(), follow: mount.target_follow })
    }

    /// Opens it, and makes what is missing. For the child: allocates nothing.
    ///
    /// # Errors
    /// As mkdirat(2) and openat2(2).
    pub fn make(&self, root: BorrowedFd) -> Result<OwnedFd, Failure> {
        path::make_dirs_by(root, &self.target, Mode::from_bits_truncate(0o755), self.follow).at(Call::MakeDir)
    }
}

/// What a step does.
#[derive(Debug)]
#[allow(missing_docs, reason = "the fields of a step are what its phrase names")]
pub enum Op {
    /// Join a cgroup of v1 by its `tasks` file.
    JoinCgroup(CString),
    /// Wait for the parent.
    Sync(Sync),
    /// Become root of the user namespace, or the first user that it maps.
    NamespaceRoot { uid: u32, gid: u32 },
    /// Create namespaces.
    Unshare { flags: u64, names: String },
    /// Set the clocks of the time namespace that children will be born into.
    TimeOffsets(CString),
    /// Join a namespace by its open file.
    Setns { fd: OwnedFd, flag: u64, name: String },
    /// Join all namespaces of a running container.
    JoinContainer { pidfd: OwnedFd, flags: u64 },
    /// Join a running container's root and working directory where it has no mount namespace of its own.
    EnterDir(OwnedFd),
    /// Keep others of the same user from tracing this process (CVE-2016-9962).
    Undumpable,
    /// A session of its own.
    Session,
    /// Set the host name.
    Hostname(CString),
    /// Set the NIS domain name.
    Domainname(CString),
    /// Join the network namespace that was made ahead, or bring the loopback interface of the new one up.
    Network(Network),
    /// Write oom_score_adj; one that the caller may not give is left as it is.
    OomScoreAdj { value: CString, deniable: bool },
    /// Cut the mount namespace's tree off the host's propagation; `own` if nobody else is in it.
    DetachMounts { own: bool },
    /// Attach the root filesystem at its place.
    AttachRoot { tree: Tree, path: CString, propagation: u64 },
    /// Open the place of the root filesystem, for the mount that takes it.
    PlaceRoot(CString),
    /// Open the root filesystem where there is no mount namespace.
    OpenRoot(OwnedFd),
    /// Make a mount.
    Mount(Box<Mount>),
    /// Make the writable layer; with `kept` the parent gets it, to see what was changed. It is attached at `under`, where a mount
    /// that comes will cover it, or on the root, to be taken away again.
    Layer { size: Option<CString>, kept: bool, under: Option<Place> },
    /// Make an overlay whose changes go to the layer's directory `name`.
    Overlay { mount: Box<Mount>, name: CString, in_user: bool },
    /// Make a directory of the layer, and mount that.
    OnLayer { mount: Box<Mount>, name: CString },
    /// Take the layer out of sight.
    HideLayer,
    /// Put these files in place of the standard streams.
    Streams([Option<OwnedFd>; 3]),
    /// Listen on a port of the loopback interface for the parent.
    Listen(u16),
    /// Die with the parent's thread.
    DieWithParent,
    /// Become an init: the program is its child, and how that ends goes to this pipe.
    Init(OwnedFd),
    /// Take rights over files away by Landlock.
    Landlock(Ruleset),
    /// Hold this process' /proc/self/fd, by which a mount can be unmounted: mounts are held and taken back on a failure.
    HoldFds,
    /// Copy the source of the mount that this step makes, before its path goes out of sight.
    CopyTree { step: usize, source: CString },
    /// Find a mount that is to be removed.
    FindMount { destination: CString, found: Rc<OnceCell<OwnedFd>> },
    /// Remove a mount that was found.
    Unmount { destination: CString, found: Rc<OnceCell<OwnedFd>> },
    /// Hold a procfs that nothing can be mounted over.
    HoldProc,
    /// Make a device node.
    Node(Node),
    /// Bind a device of the host.
    BindNode { path: CString, tree: Tree },
    /// Make a symlink.
    Link { name: CString, target: CString },
    /// Make the terminal; its master goes to this socket.
    Terminal { socket: OwnedFd, size: Option<(u16, u16)>, console: bool, uid: u32 },
    /// Run a hook in the container's namespaces.
    Hook(Box<Prepared>),
    /// pivot_root into the root filesystem.
    Pivot,
    /// Move the root filesystem over `/`.
    MoveRoot,
    /// chroot into the root filesystem.
    Chroot,
    /// Set the root mount's propagation.
    RootPropagation { kind: u64, recursive: bool, word: String },
    /// Make the root mount read-only.
    RootReadonly,
    /// Write a sysctl.
    Sysctl { path: CString, value: CString },
    /// Make a path read-only.
    Readonly(CString),
    /// Keep a symlink from being replaced.
    HoldLink(CString),
    /// Hide a path.
    Mask(CString),
    /// Make what paths are hidden below that are watched; attached as the layer is.
    Cover { under: Option<Place> },
    /// Hide a path below the entry of this name.
    Watch { path: CString, name: CString },
    /// Close it, and hand the watch over to the parent.
    SealCover,
    /// Make the working directory.
    MakeCwd(CString),
    /// Set a resource limit.
    Rlimit(Rlimit),
    /// Set the scheduling policy.
    Scheduler(SchedAttr),
    /// Set the I/O priority.
    IoPriority { class: u32, level: u32 },
    /// Set the CPUs to run on.
    Affinity(Vec<u64>),
    /// Set the NUMA memory policy.
    MemoryPolicy(MemoryPolicy),
    /// Set the execution domain.
    Personality(u64),
    /// Join a fresh session keyring.
    Keyring(CString),
    /// Write an LSM label for the program, through the caller's procfs (`host`) or the held one.
    Label { file: &'static CStr, value: CString, host: bool },
    /// Give the standard streams to the container's user.
    OwnStdio(u32),
    /// Set no_new_privs.
    NoNewPrivileges,
    /// Drop from the bounding set.
    Bounding(u64),
    /// Close every fd from this one up.
    CloseFds(u32),
    /// Set supplementary groups; in a user namespace that an unprivileged user mapped, there are none to set.
    Groups { groups: Vec<u32>, deniable: bool },
    /// Set the group.
    Gid(u32),
    /// Set the user, keeping permitted capabilities until the end.
    Uid(u32),
    /// Change to the working directory; before the switch of user, or after it, when it must succeed.
    Cwd { path: CString, last: bool },
    /// Set the umask.
    Umask(u32),
    /// Find the program in the container.
    FindProgram,
    /// Wait for `start`.
    Gate(OwnedFd),
    /// Load the system-call filter; with `raise`, by means of CAP_SYS_ADMIN. `recorded` is the same with denials that notify, which
    /// is tried first.
    Seccomp { filter: Filter, raise: bool, recorded: Option<Filter> },
    /// Set the capability sets.
    Capabilities(Sets),
    /// Run the program.
    Exec,
}

fn text(s: &CString) -> std::borrow::Cow<'_, str> {
    s.to_string_lossy()
}

impl fmt::Display for Op {
    #[allow(clippy::too_many_lines, reason = "one line a variant")]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Op::JoinCgroup(file) => write!(f, "join cgroup {}", text(file).trim_end_matches("/tasks")),
            Op::Sync(Sync::Scope) => write!(f, "wait to be put into the scope"),
            Op::Sync(Sync::Maps) => write!(f, "wait for the id maps"),
            Op::Sync(Sync::Runtime) => write!(f, "wait for network devices and the createRuntime hooks"),
            Op::Sync(Sync::Ready) => write!(f, "report that everything is set up"),
            Op::Sync(Sync::Handover) => write!(f, "hand over"),
            Op::Sync(Sync::Notify) => write!(f, "pass the filter's listener on"),
            Op::NamespaceRoot { uid, gid } => write!(f, "become user {uid} and group {gid} of the user namespace"),
            Op::Unshare { names, .. } => write!(f, "create namespaces {names}"),
            Op::TimeOffsets(text_of) => write!(f, "set clock offsets {}", text(text_of).trim().replace('\n', ", ")),
            Op::Setns { name, .. } => write!(f, "join namespace {name}"),
            Op::JoinContainer { .. } => write!(f, "join the container's namespaces"),
            Op::EnterDir(_) => write!(f, "enter the container's root filesystem"),
            Op::Undumpable => write!(f, "forbid tracing"),
            Op::Session => write!(f, "start a session"),
            Op::Hostname(name) => write!(f, "set hostname {:?}", text(name)),
            Op::Domainname(name) => write!(f, "set domainname {:?}", text(name)),
            Op::Network(_) => write!(f, "bring the loopback interface up"),
            Op::OomScoreAdj { value, .. } => write!(f, "set oom_score_adj {}", text(value)),
            Op::DetachMounts { .. } => write!(f, "cut mounts off the host's propagation"),
            Op::AttachRoot { path, .. } => write!(f, "attach root filesystem {}", text(path)),
            Op::PlaceRoot(path) => write!(f, "open the place of the root filesystem {}", text(path)),
            Op::OpenRoot(_) => write!(f, "open root filesystem"),
            Op::Mount(mount) => describe_mount(mount, f),
            Op::Layer { size: Some(size), .. } => write!(f, "make a writable layer of {} bytes", text(size)),
            Op::Layer { .. } => write!(f, "make a writable layer"),
            Op::Overlay { mount, .. } | Op::OnLayer { mount, .. } => describe_mount(mount, f),
            Op::HideLayer => write!(f, "hide the writable layer"),
            Op::Streams(_) => write!(f, "take the standard streams"),
            Op::Listen(port) => write!(f, "listen on 127.0.0.1:{port}"),
            Op::DieWithParent => write!(f, "die with the parent"),
            Op::Init(_) => write!(f, "become init"),
            Op::Landlock(ruleset) => write!(f, "restrict files by Landlock ({} rules)", ruleset.rules.len()),
            Op::HoldFds => write!(f, "open /proc/self/fd"),
            Op::CopyTree { source, .. } => write!(f, "copy {}", text(source)),
            Op::FindMount { destination, .. } => write!(f, "find the mount on /{}", text(destination)),
            Op::Unmount { destination, .. } => write!(f, "unmount /{}", text(destination)),
            Op::HoldProc => write!(f, "open a procfs of its own"),
            Op::Node(node) => {
                write!(f, "make device /{} ({}:{})", text(&node.path), major(node.device), minor(node.device))
            }
            Op::BindNode { path, .. } => write!(f, "bind device /{}", text(path)),
            Op::Link { name, target } => write!(f, "link /{} to {}", text(name), text(target)),
            Op::Terminal { console, .. } => {
                write!(f, "make the terminal{}", if *console { " and bind it on /dev/console" } else { "" })
            }
            Op::Hook(hook) => write!(f, "run {hook}"),
            Op::Pivot => write!(f, "pivot into the root filesystem"),
            Op::MoveRoot => write!(f, "move the root filesystem over /"),
            Op::Chroot => write!(f, "chroot into the root filesystem"),
            Op::RootPropagation { word, .. } => write!(f, "make the root mount {word}"),
            Op::RootReadonly => write!(f, "make the root mount read-only"),
            Op::Sysctl { path, value } => {
                write!(f, "set sysctl {} = {}", text(path).trim_start_matches("sys/").replace('/', "."), text(value))
            }
            Op::Readonly(path) => write!(f, "make /{} read-only", text(path)),
            Op::HoldLink(path) => write!(f, "keep the symlink /{}", text(path)),
            Op::Mask(path) => write!(f, "mask /{}", text(path)),
            Op::Cover { .. } => write!(f, "make a cover"),
            Op::Watch { path, .. } => write!(f, "mask and watch /{}", text(path)),
            Op::SealCover => write!(f, "seal the cover, and hand over its watch"),
            Op::MakeCwd(path) => write!(f, "make working directory /{}", text(path)),
            Op::Rlimit(limit) => write!(f, "set {} to {}:{}", rlimit_name(*limit), limit.soft, limit.hard),
            Op::Scheduler(attr) => {
                write!(f, "set scheduling policy {} (nice {}, priority {})", attr.policy, attr.nice, attr.priority)
            }
            Op::IoPriority { class, level } => write!(f, "set I/O priority class {class} level {level}"),
            Op::Affinity(mask) => write!(f, "run on CPUs {}", cpu_list(mask)),
            Op::MemoryPolicy(_) => write!(f, "set the memory policy"),
            Op::Personality(persona) => write!(f, "set execution domain {persona:#x}"),
            Op::Keyring(name) => write!(f, "join session keyring {}", text(name)),
            Op::Label { file, value, .. } => {
                let (label, file) = (text(value), file.to_string_lossy());
                write!(f, "set label {:?} ({file})", label.trim_start_matches("exec "))
            }
            Op::OwnStdio(uid) => write!(f, "give the standard streams to user {uid}"),
            Op::NoNewPrivileges => write!(f, "set no_new_privs"),
            Op::Bounding(keep) => write!(f, "limit the bounding set to {}", caps_list(*keep)),
            Op::CloseFds(first) => write!(f, "close fds from {first} up"),
            Op::Groups { groups, .. } => write!(f, "set supplementary groups {groups:?}"),
            Op::Gid(gid) => write!(f, "become group {gid}"),
            Op::Uid(uid) => write!(f, "become user {uid}"),
            Op::Cwd { path, last: false } => write!(f, "change to working directory {}", text(path)),
            Op::Cwd { path, last: true } => write!(f, "check working directory {} as the container's user", text(path)),
            Op::Umask(mask) => write!(f, "set umask {mask:04o}"),
            Op::FindProgram => write!(f, "find the program"),
            Op::Gate(_) => write!(f, "wait for start"),
            Op::Seccomp { filter, .. } => write!(f, "load the seccomp filter ({} instructions)", filter.program.len()),
            Op::Capabilities(sets) => write!(f, "set capabilities to {}", caps_list(sets.masks.permitted)),
            Op::Exec => write!(f, "exec"),
        }
    }
}

fn describe_mount(mount: &Mount, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let target = text(&mount.target);
    match &mount.what {
        What::New { fstype, .. } | What::Classic { fstype, .. } => write!(f, "mount {} on /{target}", text(fstype))?,
        What::Bind { source, .. } => write!(f, "bind {} on /{target}", text(source))?,
        What::Layered { lower } => write!(f, "overlay {} on /{target}", text(lower))?,
        What::OnLayer { .. } => write!(f, "mount a directory of the layer on /{target}")?,
        What::Remount => write!(f, "remount /{target}")?,
        What::Cgroups { .. } | What::Cgroup2(_) => write!(f, "mount the container's cgroups on /{target}")?,
    }
    if mount.shown.is_empty() { Ok(()) } else { write!(f, " ({})", mount.shown) }
}

fn major(device: u64) -> u64 {
    nix::sys::stat::major(device)
}

fn minor(device: u64) -> u64 {
    nix::sys::stat::minor(device)
}

fn rlimit_name(limit: Rlimit) -> String {
    use crate::prim::attributes::rlimit_number;
    let word = crate::spec::RlimitType::ALL.iter().find(|t| rlimit_number(**t) == limit.resource);
    word.map_or_else(|| format!("limit {}", limit.resource), |t| t.word().to_owned())
}

fn cpu_list(mask: &[u64]) -> String {
    let set = (0..mask.len() * 64).filter(|n| mask[n / 64] >> (n % 64) & 1 == 1);
    set.map(|n| n.to_string()).collect::<Vec<_>>().join(",")
}

fn caps_list(mask: u64) -> String {
    match capabilities::names(mask & capabilities::known()) {
        names if names.is_empty() => "none".into(),
        _ if mask & capabilities::known() == capabilities::known() => "all".into(),
        names => names.join(","),
    }
}
