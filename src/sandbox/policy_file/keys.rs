//! The keys of a policy file: those of [`Policy`](crate::sandbox::policy::Policy), with the sentences that stand there.

use super::shape::{Form, Key, Shape, Word};

const TEXTS: Shape = Shape::List(&Shape::Text);

/// What editors write into a document; no field of a policy.
pub const SCHEMA: &str = "$schema";

/// The policy file.
pub const POLICY: Form = Form(&[
    Key::nullable("id", Shape::Text, "The sandbox's ID: one is made where none is given."),
    Key::new("limits", Shape::Object(LIMITS), "How much it may use."),
    Key::new("files", Shape::Object(FILES), "Which files it sees and may change."),
    Key::new("network", Shape::Object(NETWORK), "Whom it may talk to."),
    Key::new("syscalls", Shape::Object(SYSCALLS), "Which system calls it may make."),
    Key::new("process", Shape::Object(PROCESS), "Who and where it is."),
    Key::new("lint", Shape::Word(LINT), "What to do about what static analysis finds in a script."),
    Key::new(
        "ignore_violations",
        Shape::Map(&TEXTS),
        "Violations that are not reported: program name (or `*`) to patterns, of which one has to occur in what was denied.",
    ),
    Key::new(
        "weaker_nested",
        Shape::Flag,
        "Go on with fewer walls where this host, or a container around the sandbox, does not allow all of them.",
    ),
    Key::new(
        "weaker_limits",
        Shape::Flag,
        "Go on with limits of each process, or none, where no cgroup is to be had that holds a limit for all of them together.",
    ),
    Key::new(SCHEMA, Shape::Text, "Where editors find the schema of this file; nothing follows from it."),
]);

const LIMITS: &[Key] = &[
    Key::nullable("memory", Shape::Size, "Memory, in bytes."),
    Key::nullable("swap", Shape::Size, "Swap on top of memory, in bytes."),
    Key::nullable("cpu", Shape::Share, "Share of one CPU, in percent: 150 is one and a half."),
    Key::nullable("cpu_quota", Shape::Quota, "The same as quota and period, both in microseconds; instead of `cpu`."),
    Key::nullable("cpu_time", Shape::Time, "CPU time of one process, in seconds (`RLIMIT_CPU`)."),
    Key::nullable("pids", Shape::Whole(u64::MAX), "Processes and threads."),
    Key::nullable("file_size", Shape::Size, "The largest file that may be written, in bytes (`RLIMIT_FSIZE`)."),
    Key::nullable("open_files", Shape::Whole(u64::MAX), "Open files of one process (`RLIMIT_NOFILE`)."),
    Key::nullable("disk", Shape::Size, "The writable layer and each private temporary directory, in bytes."),
    Key::nullable("timeout", Shape::Time, "Wall-clock time; then every process is ended and the status is 124."),
];

const VIEWS: &[Word] = &[("host", "The host's files, read-only.")];
const VIEW_OF: &[Key] = &[
    Key::new("root", Shape::Text, "A directory, read-only."),
    Key::new("root_overlay", Shape::Text, "A directory; changes go to the writable layer."),
];

const WORKDIRS: &[Word] = &[
    ("overlay", "Writable; changes go to the writable layer and are gone afterwards, unless they are committed."),
    ("read_only", "As the rest of the view: read-only."),
    ("write", "Writable, and changes are for real."),
    ("temporary", "A fresh, empty directory."),
];

const FILES: &[Key] = &[
    Key::new("view", Shape::Choice(VIEWS, VIEW_OF), "What is seen as `/`."),
    Key::new("workdir", Shape::Word(WORKDIRS), "What the working directory is."),
    Key::new("allow_write", TEXTS, "Paths that may be written, for real."),
    Key::new("deny_read", TEXTS, "Paths and globs that may not be read, nor written."),
    Key::new("deny_write", TEXTS, "Paths and globs that may not be written, whatever `allow_write` says."),
    Key::new("allow_read", TEXTS, "Paths that may be read although a built-in rule hides them (keys and passwords)."),
    Key::new("overlay", TEXTS, "Directories that may be written by copy-on-write."),
    Key::new("binds", Shape::List(&Shape::Object(BIND)), "Other paths of the host put into the view."),
    Key::new(
        "protect",
        Shape::Flag,
        "Keep the files that start-up scripts and tools run or trust from being written (`.bashrc`, `.git/hooks`, ...).",
    ),
    Key::new(
        "protect_depth",
        Shape::Whole(u32::MAX as u64),
        "How deep below each writable directory such files are looked for.",
    ),
    Key::new("allow_git_config", Shape::Flag, "Let `.git/config` be written all the same."),
    Key::nullable(
        "layer",
        Shape::Text,
        "A directory of the host for the writable layer, in place of memory; `limits.disk` does not hold there.",
    ),
    Key::new("landlock", Shape::Flag, "Use Landlock besides mounts where the kernel has it."),
];

const BIND: &[Key] = &[
    Key::required("source", Shape::Text, "Where it is on the host."),
    Key::nullable("target", Shape::Text, "Where it is seen; the same place without."),
    Key::new("write", Shape::Flag, "Whether it may be written."),
];

const MODES: &[Word] = &[
    ("none", "Nobody: a loopback interface of its own."),
    ("host", "Everybody: the host's network."),
    ("domains", "The domains of the lists, through brig's proxies."),
];

const NETWORK: &[Key] = &[
    Key::new("mode", Shape::Word(MODES), "Who can be reached. Lists imply `domains`."),
    Key::new(
        "allow",
        TEXTS,
        "Domains that may be reached: `example.com`, `*.example.com`, `example.com:443`, an address.",
    ),
    Key::new("deny", TEXTS, "Domains that may not, looked at first."),
    Key::new(
        "allow_local_binding",
        Shape::Flag,
        "Let programs of the sandbox listen on and connect to its own loopback interface.",
    ),
    Key::new("allow_unix_sockets", TEXTS, "Unix sockets that may be used, by path."),
    Key::new("allow_all_unix_sockets", Shape::Flag, "Let any unix socket be used that the view shows."),
    Key::nullable(
        "http_proxy_port",
        Shape::Whole(65535),
        "An HTTP proxy of the caller's own on this port of the host's loopback, in place of brig's.",
    ),
    Key::nullable("socks_proxy_port", Shape::Whole(65535), "The same for SOCKS5."),
    Key::nullable("mitm", Shape::Object(MITM), "Connections to these domains go to a proxy that may look inside."),
];

const MITM: &[Key] = &[
    Key::required("socket", Shape::Text, "Its socket."),
    Key::required("domains", TEXTS, "Its domains, in the form of `allow`."),
];

const PROFILES: &[Word] = &[
    ("minimal", "What a program needs to start, read, write and exit."),
    ("io-heavy", "And files."),
    ("compute", "And memory, threads and processes: most programs."),
    ("network", "And sockets."),
    ("unrestricted", "Everything: for debugging."),
];

const SYSCALLS: &[Key] = &[
    Key::new("profile", Shape::Word(PROFILES), "A built-in profile."),
    Key::nullable(
        "custom",
        Shape::Seccomp,
        "A profile of the caller's own, in OCI's form (`linux.seccomp`), in place of a built-in one.",
    ),
    Key::new("allow", TEXTS, "Calls allowed besides."),
    Key::new("deny", TEXTS, "Calls denied all the same."),
    Key::new("record", Shape::Flag, "Record what is denied: which call, which program, when."),
];

const PROCESS: &[Key] = &[
    Key::nullable("uid", Shape::Whole(u32::MAX as u64), "Its user ID; the caller's without."),
    Key::nullable("gid", Shape::Whole(u32::MAX as u64), "Its group ID; the caller's without."),
    Key::nullable("cwd", Shape::Text, "Its working directory; the caller's without."),
    Key::nullable("hostname", Shape::Text, "Its host name."),
    Key::new("clear_env", Shape::Flag, "Begin with an empty environment."),
    Key::new("env", Shape::Map(&Shape::Text), "Variables set on top of the inherited ones."),
    Key::new("unset_env", TEXTS, "Variables not inherited."),
    Key::new("terminal", Shape::Flag, "A terminal of its own."),
];

const LINT: &[Word] = &[
    ("off", "Nothing is analysed."),
    ("warn", "Findings are told, and the script runs."),
    ("deny", "A script with findings does not run."),
];
