//! What in a policy can't be, or contradicts itself. Domains and the calls' names are looked at where they are used.

use super::policy::{Files, Limits, Network, NetworkMode, Policy, Profile, View, Workdir};
use crate::error::Problem;
use crate::prim::seccomp;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};
use std::time::Duration;

/// Below this no program starts: its stack and page tables alone take as much.
const MEMORY_MIN: u64 = 1 << 20;
/// Below this the writable layer has no room for its own directories.
const DISK_MIN: u64 = 64 << 10;
/// The least quota, and the bounds of a period, in microseconds (kernel: sched/core.c, `cpu.max`).
const QUOTA_MIN: u64 = 1000;
const PERIOD_MAX: u64 = 1_000_000;
/// More CPUs than any kernel is built for, and few enough for its counters.
const CPUS_MAX: u64 = 1 << 16;
/// The most that pids.max takes (kernel: threads.h, `PID_MAX_LIMIT`).
const PIDS_MAX: u64 = 1 << 22;
/// Standard input, output and error, and one to load a library by; to put up Landlock takes the rules' and each file's.
const OPEN_FILES_MIN: u64 = 4;
const OPEN_FILES_MIN_LANDLOCK: u64 = 5;
/// As sethostname(2) (`HOST_NAME_MAX`).
const HOSTNAME_MAX: usize = 64;
/// The longest ID.
const ID_MAX: usize = 64;
/// Deeper than any project keeps its files, and a search that still ends.
const DEPTH_MAX: u32 = 32;

/// Every contradiction and impossible value of a policy, with a JSON pointer into the policy file and a remedy. An empty list
/// is a policy that can be tried.
pub fn check(policy: &Policy) -> Vec<Problem> {
    let mut check = Check { problems: Vec::new() };
    check.identity(policy);
    check.limits(&policy.limits);
    check.open_files(policy);
    check.files(&policy.files);
    check.network(&policy.network);
    check.syscalls(policy);
    for (program, patterns) in &policy.ignore_violations {
        let at = format!("/ignore_violations/{}", crate::spec::escape(program));
        check.when(program.is_empty(), &at, "an empty program name; give a name, or * for every program");
        let empty = patterns.iter().any(String::is_empty);
        check.when(empty, &at, "an empty pattern, which every violation matches; give what is to be ignored");
    }
    check.problems
}

struct Check {
    problems: Vec<Problem>,
}

impl Check {
    fn when(&mut self, wrong: bool, pointer: &str, what: impl Into<String>) {
        if wrong {
            self.problems.push(Problem::new(pointer, what));
        }
    }

    fn identity(&mut self, policy: &Policy) {
        if let Some(id) = &policy.id {
            let fits = |c: char| c.is_ascii_alphanumeric() || "_+-.".contains(c);
            let wrong = match id.as_str() {
                "" => Some("is empty; leave it out, and one is made"),
                "." | ".." => Some("names a directory; give it a letter or a digit"),
                _ if id.starts_with('-') => Some("looks like a flag; begin with a letter or a digit"),
                _ if !id.chars().all(fits) => Some("may hold letters, digits and _ + - . only"),
                _ if id.len() > ID_MAX => Some("is longer than 64 characters; shorten it"),
                _ => None,
            };
            self.problems.extend(wrong.map(|what| Problem::new("/id", what)));
        }
        let process = &policy.process;
        for (pointer, number) in [("/process/uid", process.uid), ("/process/gid", process.gid)] {
            // chown(2) and setresuid(2) take it for "leave as it is".
            self.when(number == Some(u32::MAX), pointer, "stands for no ID at all; give one below 4294967295");
        }
        if let Some(cwd) = &process.cwd {
            self.path(cwd.as_os_str(), "/process/cwd");
            let relative = !cwd.as_os_str().is_empty() && cwd.is_relative();
            self.when(relative, "/process/cwd", format!("{cwd:?} is relative; give an absolute path"));
        }
        if let Some(name) = &process.hostname {
            let at = "/process/hostname";
            self.when(name.is_empty(), at, "is empty; leave it out for the default");
            self.when(name.len() > HOSTNAME_MAX, at, "is longer than 64 bytes; shorten it");
            let odd = name.chars().any(|c| c.is_control() || c.is_whitespace() || c == '/');
            self.when(odd, at, "has a blank, a slash or a control character; give letters, digits, - and .");
        }
        for (name, value) in &process.env {
            let at = format!("/process/env/{}", crate::spec::escape(name));
            self.variable(name, &at);
            self.when(value.contains('\0'), &at, "the value has a NUL byte, which ends it; take the byte out");
            let unset = process.unset_env.contains(name);
            self.when(unset, &at, "is set here and in unset_env, too; keep one of the two");
        }
        for (n, name) in process.unset_env.iter().enumerate() {
            self.variable(name, &format!("/process/unset_env/{n}"));
        }
    }

    fn variable(&mut self, name: &str, pointer: &str) {
        self.when(name.is_empty(), pointer, "a variable without a name; name it");
        self.when(name.contains('='), pointer, format!("{name:?} has a = in its name; the name ends before it"));
        self.when(name.contains('\0'), pointer, "the name has a NUL byte; take it out");
    }

    fn limits(&mut self, limits: &Limits) {
        let memory = limits.memory.map(|m| m.0);
        self.when(
            memory.is_some_and(|m| m < MEMORY_MIN),
            "/limits/memory",
            "is below what can start a program; give 1M or more, or none (--memory)",
        );
        let swap = limits.swap.map_or(0, |s| s.0);
        let alone = swap > 0 && memory.is_none();
        self.when(alone, "/limits/swap", "counts on top of limits.memory, which is none; set memory, or swap to none");
        let sum = memory.unwrap_or(0).checked_add(swap).filter(|sum| i64::try_from(*sum).is_ok());
        self.when(sum.is_none(), "/limits/memory", "is, with swap, more than the kernel can count; give none");
        self.when(
            limits.pids == Some(0),
            "/limits/pids",
            "is 0, but the program is one process; give 1 or more (--pids)",
        );
        let many = limits.pids.is_some_and(|n| n > PIDS_MAX);
        self.when(many, "/limits/pids", "is more than the kernel's 4194304; give fewer, or none");
        if let Some(share) = limits.cpu {
            let at = "/limits/cpu";
            self.when(
                limits.cpu_quota.is_some(),
                at,
                "stands beside cpu_quota, which says the same; keep one of the two",
            );
            // The least quota in the longest period.
            let least = QUOTA_MIN as f64 / PERIOD_MAX as f64 * 100.0;
            self.when(
                share.0 < least || share.0.is_nan(),
                at,
                format!("{share} is below the kernel's least of {least} %; give more, or none"),
            );
            let beyond = share.0 > CPUS_MAX as f64 * 100.0;
            self.when(beyond, at, format!("{share} is more than any machine has; give less, or none"));
        }
        if let Some((quota, period)) = limits.cpu_quota {
            let at = "/limits/cpu_quota";
            self.when(
                quota < QUOTA_MIN,
                at,
                format!("the quota of {quota} us is below the kernel's least of 1000 us; raise it"),
            );
            let beyond = quota > CPUS_MAX.saturating_mul(period.max(QUOTA_MIN));
            self.when(
                beyond,
                at,
                format!("the quota of {quota} us is more than any machine has; lower it, or give none"),
            );
            let fits = (QUOTA_MIN..=PERIOD_MAX).contains(&period);
            self.when(
                !fits,
                at,
                format!("the period of {period} us is not within 1000 to 1000000 us; 100000 is usual"),
            );
        }
        let short = limits.cpu_time.is_some_and(|t| t.0 < Duration::from_secs(1));
        self.when(short, "/limits/cpu_time", "is less than a second, and it counts in seconds; give 1 or more");
        let small = limits.disk.is_some_and(|d| d.0 < DISK_MIN);
        self.when(small, "/limits/disk", "is below what the writable layer itself takes; give 64K or more (--disk)");
        let at_once = limits.timeout.is_some_and(|t| t.0.is_zero());
        self.when(at_once, "/limits/timeout", "is 0, so that nothing could run; give a time, or none");
    }

    fn open_files(&mut self, policy: &Policy) {
        let few = |least| policy.limits.open_files.is_some_and(|n| n < least);
        let what = match policy.files.landlock {
            true if few(OPEN_FILES_MIN_LANDLOCK) => {
                "is too few to start with: the standard streams are three, and Landlock is put up by two; give 5 or more (--open-files), or --no-landlock"
            }
            false if few(OPEN_FILES_MIN) => {
                "is too few to start with: the standard streams are three, and a library is loaded by one; give 4 or more (--open-files)"
            }
            _ => return,
        };
        self.when(true, "/limits/open_files", what);
    }

    fn path(&mut self, path: &OsStr, pointer: &str) {
        self.when(path.is_empty(), pointer, "is an empty path; name a file or directory");
        self.when(path.as_bytes().contains(&0), pointer, "has a NUL byte, which no path has; take it out");
    }

    fn files(&mut self, files: &Files) {
        match &files.view {
            View::Host => {}
            View::Root(root) => self.path(root.as_os_str(), "/files/view/root"),
            View::RootOverlay(root) => {
                self.path(root.as_os_str(), "/files/view/root_overlay");
                self.when(
                    files.workdir == Workdir::Write,
                    "/files/workdir",
                    "is write, but what is written in a root_overlay goes to the writable layer; use overlay, or the view root",
                );
            }
        }
        let lists = [
            ("allow_write", &files.allow_write),
            ("deny_read", &files.deny_read),
            ("deny_write", &files.deny_write),
            ("allow_read", &files.allow_read),
        ];
        for (name, list) in lists {
            for (n, path) in list.iter().enumerate() {
                self.path(path.as_ref(), &format!("/files/{name}/{n}"));
            }
        }
        for (n, path) in files.overlay.iter().enumerate() {
            self.path(path.as_os_str(), &format!("/files/overlay/{n}"));
        }
        if let Some(layer) = &files.layer {
            self.path(layer.as_os_str(), "/files/layer");
        }
        let overlay: Vec<_> = files.overlay.iter().map(|path| path.to_string_lossy().into_owned()).collect();
        for (a, allowed, b, denied) in [
            ("allow_write", &files.allow_write, "deny_write", &files.deny_write),
            ("allow_write", &files.allow_write, "deny_read", &files.deny_read),
            ("allow_write", &files.allow_write, "overlay", &overlay),
            ("allow_read", &files.allow_read, "deny_read", &files.deny_read),
            ("overlay", &overlay, "deny_write", &files.deny_write),
        ] {
            for (n, path) in allowed.iter().enumerate() {
                // Components: a slash at the end is no other path.
                let both = denied.iter().any(|other| Path::new(other) == Path::new(path));
                let what = format!("{path:?} is in {b}, too, which contradicts it; keep one of the two");
                self.when(both, &format!("/files/{a}/{n}"), what);
            }
        }
        let deep = files.protect_depth > DEPTH_MAX;
        self.when(deep, "/files/protect_depth", "is more than 32, a search without end; 3 is usual");
        self.binds(files);
    }

    fn binds(&mut self, files: &Files) {
        let target = |n: usize| files.binds[n].target.as_deref().unwrap_or(&files.binds[n].source);
        for (n, bind) in files.binds.iter().enumerate() {
            let source = format!("/files/binds/{n}/source");
            self.path(bind.source.as_os_str(), &source);
            let at = if bind.target.is_some() { format!("/files/binds/{n}/target") } else { source };
            let seen = target(n);
            if bind.target.is_some() {
                self.path(seen.as_os_str(), &at);
            }
            let relative = !seen.as_os_str().is_empty() && seen.is_relative();
            self.when(relative, &at, format!("{seen:?} is relative; give the absolute path where it is seen"));
            let climbs = seen.components().any(|part| part == Component::ParentDir);
            self.when(climbs, &at, format!("{seen:?} has a .. in it; write the path out"));
            let hides = seen.has_root() && !seen.components().any(|part| matches!(part, Component::Normal(_)));
            self.when(hides && !climbs, &at, "would hide the whole view; for another root set files.view");
            let twice = (0..n).any(|other| target(other) == seen);
            self.when(twice, &at, format!("{seen:?} is the place of two binds; keep one"));
        }
    }

    fn network(&mut self, network: &Network) {
        let mode = match network.mode {
            NetworkMode::None => Some("none"),
            NetworkMode::Host => Some("host"),
            NetworkMode::Domains => None,
        };
        let given = [
            ("allow", !network.allow.is_empty()),
            ("deny", !network.deny.is_empty()),
            // Of a port that is none, that is enough to say.
            ("http_proxy_port", network.http_proxy_port.is_some_and(|port| port > 0)),
            ("socks_proxy_port", network.socks_proxy_port.is_some_and(|port| port > 0)),
            ("mitm", network.mitm.is_some()),
        ];
        for (key, _) in given.iter().filter(|(_, given)| *given) {
            if let Some(mode) = mode {
                let what = format!("has no effect with mode {mode}; set network.mode to domains, or leave {key} out");
                self.when(true, &format!("/network/{key}"), what);
            }
        }
        for (key, port) in
            [("http_proxy_port", network.http_proxy_port), ("socks_proxy_port", network.socks_proxy_port)]
        {
            self.when(port == Some(0), &format!("/network/{key}"), "is 0, where no proxy listens; give its port");
        }
        if let Some(mitm) = &network.mitm {
            self.path(mitm.socket.as_os_str(), "/network/mitm/socket");
            let idle = mitm.domains.is_empty();
            self.when(
                idle,
                "/network/mitm/domains",
                "is empty, so that nothing goes there; list domains, or leave mitm out",
            );
        }
        let both = network.allow_all_unix_sockets && !network.allow_unix_sockets.is_empty();
        let what = "lists some sockets, but allow_all_unix_sockets allows every one; keep one of the two";
        self.when(both, "/network/allow_unix_sockets", what);
        for (n, path) in network.allow_unix_sockets.iter().enumerate() {
            self.path(path.as_os_str(), &format!("/network/allow_unix_sockets/{n}"));
        }
    }

    fn syscalls(&mut self, policy: &Policy) {
        let calls = &policy.syscalls;
        if let Some(custom) = &calls.custom {
            let beside = [
                ("profile", calls.profile != Profile::default()),
                ("allow", !calls.allow.is_empty()),
                ("deny", !calls.deny.is_empty()),
            ];
            for (key, _) in beside.iter().filter(|(_, given)| *given) {
                let what =
                    format!("has no effect beside syscalls.custom, which says it all; leave {key} or custom out");
                self.when(true, &format!("/syscalls/{key}"), what);
            }
            let silent = custom.default_action.is_none();
            self.when(silent, "/syscalls/custom/defaultAction", "missing; SCMP_ACT_ERRNO denies what is not listed");
        }
        for (n, name) in calls.allow.iter().enumerate() {
            let what = format!("{name:?} is in deny, too, which contradicts it; keep one of the two");
            self.when(calls.deny.contains(name), &format!("/syscalls/allow/{n}"), what);
        }
        for (list, names) in [("allow", &calls.allow), ("deny", &calls.deny)] {
            for (n, name) in names.iter().enumerate().filter(|(_, name)| !seccomp::is_call(name)) {
                let what = format!("{name:?} is no system call; look for its name in syscalls(2)");
                self.when(true, &format!("/syscalls/{list}/{n}"), what);
            }
        }
    }
}

#[cfg(test)]
mod tests;
