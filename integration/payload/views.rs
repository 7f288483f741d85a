//! Verbs that only look.

use super::{mountinfo, outcome, tty};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::ffi::CStr;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

/// Answers a verb of this kind; None if it is not one.
pub fn view(verb: &str, arg: &str) -> Option<Value> {
    Some(match verb {
        "ns" => namespaces(),
        "mounts" => mountinfo::own().into(),
        "caps" => capabilities(),
        "limits" => limits(),
        "seccomp" => {
            json!({"mode": status("Seccomp"), "filters": status("Seccomp_filters"), "nnp": status("NoNewPrivs")})
        }
        "cgroup" => lines("/proc/self/cgroup"),
        "cgfile" => outcome(fs::read_to_string(Path::new("/sys/fs/cgroup").join(arg))),
        "fds" => descriptors(),
        "env" => environment(),
        "args" => std::env::args().collect::<Vec<_>>().into(),
        "cwd" => outcome(std::env::current_dir().map(|p| p.display().to_string())),
        "ids" => ids(),
        "maps" => json!({"uid": table("/proc/self/uid_map"), "gid": table("/proc/self/gid_map"),
            "setgroups": text("/proc/self/setgroups")}),
        "sched" => scheduling(),
        "time" => times(),
        "sysctl" => {
            outcome(fs::read_to_string(format!("/proc/sys/{}", arg.replace('.', "/"))).map(|s| s.trim().to_string()))
        }
        "devices" => devices(),
        "uts" => uts(),
        "tty" => tty::view(),
        "pid" => json!({"pid": std::process::id(), "ppid": std::os::unix::process::parent_id(),
            "nspid": status("NSpid"), "sid": nix::unistd::getsid(None).map(|p| p.as_raw()).unwrap_or(-1),
            "pgid": nix::unistd::getpgrp().as_raw()}),
        "ps" => processes(),
        "links" => links(),
        "keyring" => keyring(),
        "signals" => json!({"blocked": status("SigBlk"), "ignored": status("SigIgn")}),
        "status" => json!(status(arg)),
        _ => return None,
    })
}

fn text(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_string()
}

fn lines(path: &str) -> Value {
    text(path).lines().map(str::to_string).collect::<Vec<_>>().into()
}

/// Lines of numbers, as lists of numbers.
fn table(path: &str) -> Value {
    text(path)
        .lines()
        .map(|l| l.split_whitespace().filter_map(|n| n.parse::<u64>().ok()).collect::<Vec<_>>())
        .collect::<Vec<_>>()
        .into()
}

/// One field of /proc/self/status; a number where it is one.
fn status(field: &str) -> Value {
    let all = text("/proc/self/status");
    let value = all.lines().find_map(|l| l.strip_prefix(field)?.strip_prefix(':')).map(|v| v.trim().replace('\t', " "));
    match value {
        Some(v) => v.parse::<i64>().map_or_else(|_| json!(v), |n| json!(n)),
        None => Value::Null,
    }
}

fn namespaces() -> Value {
    let names = ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"];
    names.iter().map(|n| (n.to_string(), link(&format!("/proc/self/ns/{n}")).into())).collect::<Map<_, _>>().into()
}

fn link(path: &str) -> String {
    fs::read_link(path).map(|p| p.display().to_string()).unwrap_or_default()
}

fn capabilities() -> Value {
    use caps::CapSet::{Ambient, Bounding, Effective, Inheritable, Permitted};
    let sets = [
        ("bounding", Bounding),
        ("effective", Effective),
        ("inheritable", Inheritable),
        ("permitted", Permitted),
        ("ambient", Ambient),
    ];
    let names = |set| {
        let mut names: Vec<String> =
            caps::read(None, set).unwrap_or_default().iter().map(ToString::to_string).collect();
        names.sort();
        names
    };
    sets.into_iter().map(|(name, set)| (name.to_string(), names(set).into())).collect::<Map<_, _>>().into()
}

/// Every rlimit as [soft, hard], with null for no limit.
fn limits() -> Value {
    use nix::sys::resource::{RLIM_INFINITY, Resource as R, getrlimit};
    let number = |n| if n == RLIM_INFINITY { Value::Null } else { json!(n) };
    let all = [
        R::RLIMIT_AS,
        R::RLIMIT_CORE,
        R::RLIMIT_CPU,
        R::RLIMIT_DATA,
        R::RLIMIT_FSIZE,
        R::RLIMIT_LOCKS,
        R::RLIMIT_MEMLOCK,
        R::RLIMIT_MSGQUEUE,
        R::RLIMIT_NICE,
        R::RLIMIT_NOFILE,
        R::RLIMIT_NPROC,
        R::RLIMIT_RSS,
        R::RLIMIT_RTPRIO,
        R::RLIMIT_RTTIME,
        R::RLIMIT_SIGPENDING,
        R::RLIMIT_STACK,
    ];
    let entry =
        |r: R| Some((format!("{r:?}"), getrlimit(r).map(|(soft, hard)| json!([number(soft), number(hard)])).ok()?));
    all.into_iter().filter_map(entry).collect::<Map<_, _>>().into()
}

/// Open descriptors by number, without the one that lists them.
fn descriptors() -> Value {
    let Ok(dir) = fs::read_dir("/proc/self/fd") else { return Value::Null };
    let numbers: Vec<String> = dir.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect();
    let entry = |n: &String| {
        fs::read_link(format!("/proc/self/fd/{n}")).ok().map(|t| (n.clone(), json!(t.display().to_string())))
    };
    numbers.iter().filter_map(entry).collect::<Map<_, _>>().into()
}

/// The environment as it was passed, in order, with what is not UTF-8 replaced.
fn environment() -> Value {
    let raw = fs::read("/proc/self/environ").unwrap_or_default();
    raw.split(|b| *b == 0)
        .filter(|e| !e.is_empty())
        .map(|e| String::from_utf8_lossy(e).into_owned())
        .collect::<Vec<_>>()
        .into()
}

fn ids() -> Value {
    let all = |field: &str| {
        status(field).to_string().trim_matches('"').split(' ').filter_map(|n| n.parse::<u64>().ok()).collect::<Vec<_>>()
    };
    let umask = status("Umask").to_string();
    json!({"uid": all("Uid"), "gid": all("Gid"), "groups": all("Groups"), "umask": format!("{:0>4}", umask.trim_matches('"'))})
}

fn scheduling() -> Value {
    let mut attr = SchedAttr { size: size_of::<SchedAttr>() as u32, ..SchedAttr::default() };
    // SAFETY: the kernel writes at most the size that is passed into a structure of that size.
    unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attr, attr.size, 0) };
    let policies = BTreeMap::from([(0, "OTHER"), (1, "FIFO"), (2, "RR"), (3, "BATCH"), (5, "IDLE"), (6, "DEADLINE")]);
    // SAFETY: both calls take integers only; 1 is IOPRIO_WHO_PROCESS, 0xffffffff asks for the personality.
    let (ioprio, personality) = unsafe { (libc::syscall(libc::SYS_ioprio_get, 1, 0), libc::personality(0xffff_ffff)) };
    let mut mode: libc::c_int = 0;
    let mut nodes = [0u64; 16];
    // SAFETY: both pointers are valid for writing, and the mask is as long as is said.
    unsafe { libc::syscall(libc::SYS_get_mempolicy, &raw mut mode, nodes.as_mut_ptr(), 1024, 0, 0) };
    json!({
        "policy": policies.get(&attr.policy), "nice": attr.nice, "priority": attr.priority, "flags": attr.flags,
        "runtime": attr.runtime, "deadline": attr.deadline, "period": attr.period,
        "ioprio": {"class": ioprio >> 13, "level": ioprio & 0x1fff}, "personality": personality,
        "cpus": status("Cpus_allowed_list").to_string().trim_matches('"'), "mems": status("Mems_allowed_list").to_string().trim_matches('"'),
        "mempolicy": {"mode": mode, "nodes": nodes[0]}, "oom_score_adj": text("/proc/self/oom_score_adj").parse::<i64>().ok(),
    })
}

/// struct sched_attr of sched_getattr(2), with the fields of Linux 5.3.
#[repr(C)]
#[derive(Default)]
struct SchedAttr {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
    util_min: u32,
    util_max: u32,
}

fn times() -> Value {
    let clock = |id| {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: writes one timespec.
        unsafe { libc::clock_gettime(id, &raw mut time) };
        time.tv_sec
    };
    json!({"offsets": table("/proc/self/timens_offsets"), "boottime": clock(libc::CLOCK_BOOTTIME),
        "monotonic": clock(libc::CLOCK_MONOTONIC)})
}

/// What lies under /dev, by path: its kind, numbers, mode and owner, and where links point.
fn devices() -> Value {
    let mut found = Map::new();
    let mut todo = vec![Path::new("/dev").to_path_buf()];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            let (path, Ok(meta)) = (entry.path(), entry.metadata()) else { continue };
            let kind = meta.file_type();
            let letter = if kind.is_char_device() {
                "c"
            } else if kind.is_block_device() {
                "b"
            } else if kind.is_fifo() {
                "p"
            } else if kind.is_symlink() {
                "l"
            } else if kind.is_dir() {
                "d"
            } else {
                "f"
            };
            let mut about = json!({"type": letter, "mode": format!("{:o}", meta.mode() & 0o7777), "uid": meta.uid(), "gid": meta.gid()});
            if kind.is_char_device() || kind.is_block_device() {
                about["major"] = libc::major(meta.rdev()).into();
                about["minor"] = libc::minor(meta.rdev()).into();
            }
            if kind.is_symlink() {
                about["to"] = link(&path.to_string_lossy()).into();
            }
            if kind.is_dir() {
                todo.push(path.clone());
            }
            found.insert(path.display().to_string(), about);
        }
    }
    found.into()
}

fn uts() -> Value {
    json!({"hostname": text("/proc/sys/kernel/hostname"), "domainname": text("/proc/sys/kernel/domainname")})
}

/// Every process that /proc shows, by its pid: name, parent, user.
fn processes() -> Value {
    let mut found = Map::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let pid = entry.file_name().to_string_lossy().into_owned();
        if pid.parse::<u32>().is_ok()
            && let Ok(comm) = fs::read_to_string(entry.path().join("comm"))
        {
            found.insert(pid, comm.trim().into());
        }
    }
    found.into()
}

/// Network links by name, with their addresses and whether they are up.
fn links() -> Value {
    let mut found: BTreeMap<String, (bool, Vec<String>)> = BTreeMap::new();
    for line in text("/proc/net/dev").lines().skip(2) {
        if let Some((name, _)) = line.split_once(':') {
            found.insert(name.trim().to_string(), (false, Vec::new()));
        }
    }
    for a in nix::ifaddrs::getifaddrs().into_iter().flatten() {
        let entry = found.entry(a.interface_name.clone()).or_default();
        entry.0 |= a.flags.contains(nix::net::if_::InterfaceFlags::IFF_UP);
        let address = a.address.and_then(|s| {
            s.as_sockaddr_in().map(|i| i.ip().to_string()).or_else(|| s.as_sockaddr_in6().map(|i| i.ip().to_string()))
        });
        let bits = a.netmask.and_then(|s| {
            s.as_sockaddr_in()
                .map(|i| u32::from(i.ip()).count_ones())
                .or_else(|| s.as_sockaddr_in6().map(|i| u128::from(i.ip()).count_ones()))
        });
        if let Some(address) = address {
            entry.1.push(format!("{address}/{}", bits.unwrap_or(0)));
        }
    }
    found
        .into_iter()
        .map(|(name, (up, addresses))| (name, json!({"up": up, "addresses": addresses})))
        .collect::<Map<_, _>>()
        .into()
}

/// The session keyring as keyctl(2) describes it.
fn keyring() -> Value {
    let mut buffer = [0u8; 256];
    // SAFETY: 6 is KEYCTL_DESCRIBE, -3 the session keyring; the kernel writes no more than the buffer's length.
    let n = unsafe { libc::syscall(libc::SYS_keyctl, 6, -3, buffer.as_mut_ptr(), buffer.len()) };
    let text = CStr::from_bytes_until_nul(&buffer).map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
    outcome(super::checked(n).map(|_| text))
}
