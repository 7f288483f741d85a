//! What failed between clone and exec: a system call by name, and its errno. Copied as numbers; the parent finds words.

use super::Errno;

macro_rules! calls {
    ($($variant:ident = $name:literal,)*) => {
        /// The system calls (and the few checks of brig's own) that can fail in a child.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u8)]
        #[allow(missing_docs, reason = "each is the system call of that name")]
        pub enum Call { $($variant,)* }

        impl Call {
            /// The call as messages write it.
            pub fn name(self) -> &'static str {
                match self { $(Call::$variant => $name,)* }
            }

            /// The call of this number, as sent by a child.
            pub fn from_number(number: u8) -> Option<Call> {
                const ALL: &[Call] = &[$(Call::$variant,)*];
                ALL.get(number as usize).copied()
            }
        }
    };
}

calls! {
    None = "",
    Accept = "accept4",
    Attach = "move_mount",
    Capset = "capset",
    Chdir = "chdir",
    Check = "check",
    Chown = "fchownat",
    Chroot = "chroot",
    CloneTree = "open_tree",
    CloseRange = "close_range",
    CopyUp = "copy up",
    Exec = "execve",
    Fchdir = "fchdir",
    Fork = "clone3",
    FsConfig = "fsconfig",
    FsCreate = "fsconfig(create)",
    FsMount = "fsmount",
    FsOpen = "fsopen",
    Hook = "hook",
    IoctlTty = "ioctl",
    Ioprio = "ioprio_set",
    Keyctl = "keyctl",
    Landlock = "landlock",
    Listen = "listen",
    Loopback = "ioctl(SIOCSIFFLAGS)",
    MakeDir = "mkdirat",
    MemPolicy = "set_mempolicy",
    Mknod = "mknodat",
    Mount = "mount",
    MountSetattr = "mount_setattr",
    Open = "openat2",
    Personality = "personality",
    Pipe = "pipe2",
    PivotRoot = "pivot_root",
    Prctl = "prctl",
    Read = "read",
    Receive = "recvmsg",
    Rlimit = "prlimit",
    SchedSetattr = "sched_setattr",
    SchedAffinity = "sched_setaffinity",
    Seccomp = "seccomp",
    Send = "sendmsg",
    SetDomainname = "setdomainname",
    SetGid = "setresgid",
    SetGroups = "setgroups",
    SetHostname = "sethostname",
    SetUid = "setresuid",
    Setns = "setns",
    Setsid = "setsid",
    Stat = "fstat",
    Symlink = "symlinkat",
    Umount = "umount2",
    Unshare = "unshare",
    Write = "write",
}

/// A failed call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failure {
    /// Which call.
    pub call: Call,
    /// Why.
    pub errno: Errno,
}

impl Failure {
    /// A failure of a check of brig's own, for which an errno stands.
    pub fn check(errno: Errno) -> Failure {
        Failure { call: Call::Check, errno }
    }
}

/// Says which call an errno came from.
pub trait At<T> {
    /// The result with the call's name.
    ///
    /// # Errors
    /// Those of the call.
    fn at(self, call: Call) -> Result<T, Failure>;
}

impl<T> At<T> for Result<T, Errno> {
    fn at(self, call: Call) -> Result<T, Failure> {
        self.map_err(|errno| Failure { call, errno })
    }
}
