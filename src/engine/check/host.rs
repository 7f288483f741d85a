//! What runs beside the kernel: cgroups, systemd, security modules, the tools for plain users, places and limits.

use super::kernel::existing;
use super::{Caller, Row, State};
use crate::error::describe;
use crate::prim::cgroup::{Hierarchy, Layout, Version};
use crate::prim::{capabilities, intelrdt, lsm, namespaces};
use crate::sys::bpf::{self, Instruction};
use crate::sys::{cred, sched, socket};
use nix::unistd::{AccessFlags, access};
use std::fs;
use std::path::{Path, PathBuf};

pub(super) fn rows(caller: &Caller, root: &Path) -> Vec<Row> {
    let mut rows = cgroups(caller);
    rows.extend([systemd(caller), apparmor(), selinux()]);
    if caller.uid != 0 {
        rows.extend(mapping(caller));
    }
    rows.extend([capabilities_row(caller), rlimits(), resctrl(), huge_pages()]);
    rows.extend([procfs(), state_directory(root)]);
    if caller.uid != 0 {
        rows.push(runtime_directory(caller));
    }
    rows.push(criu());
    rows
}

fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default()
}

fn writable(path: &str) -> bool {
    access(path, AccessFlags::W_OK).is_ok()
}

fn cgroups(caller: &Caller) -> Vec<Row> {
    const AREA: &str = "cgroups";
    let layout = Layout::detect().unwrap_or_default();
    let (v2, v1): (Vec<&Hierarchy>, Vec<&Hierarchy>) =
        layout.hierarchies.iter().partition(|hierarchy| hierarchy.version == Version::V2);
    let mode =
        match (v1.is_empty(), v2.is_empty()) {
            (true, true) => {
                return vec![Row::new(AREA, "cgroup mode", State::Missing)
            .found("no hierarchy is mounted")
            .costs("limits, statistics, pause, and an end of all processes of a container without a PID namespace")
            .remedy("mount -t cgroup2 cgroup2 /sys/fs/cgroup; until then: --cgroup-manager disabled")];
            }
            (true, false) => "v2",
            (false, true) => "v1",
            (false, false) => "hybrid",
        };
    let all = |list: &[&Hierarchy]| -> Vec<String> {
        list.iter().flat_map(|h| h.controllers.iter()).filter(|name| !name.starts_with("name=")).cloned().collect()
    };
    let mut rows = vec![Row::new(AREA, "cgroup mode", State::Ok).found(mode)];
    let mut have = all(&v1);
    have.extend(all(&v2));
    have.sort();
    let wanted = [("memory", "memory"), ("cpu", "cpu"), ("pids", "pids"), ("cpuset", "cpuset"), ("io", "blkio")];
    let lacking: Vec<&str> =
        wanted.iter().filter(|(v2, v1)| !have.iter().any(|name| name == v2 || name == v1)).map(|(v2, _)| *v2).collect();
    let state = match (have.is_empty(), lacking.is_empty()) {
        (true, _) => State::Missing,
        (_, true) => State::Ok,
        _ => State::Limited,
    };
    rows.push(
        Row::new(AREA, "cgroup controllers", state)
            .found(have.join(", "))
            .costs(format!("limits of {}", lacking.join(", ")))
            .remedy("boot with cgroup_enable=memory or the like, or a kernel that is configured with them"),
    );
    rows.push(delegation(AREA, &layout, caller));
    if let (Some(v2), true) = (v2.first(), v1.is_empty()) {
        let has = has_file(v2, "cgroup.kill");
        rows.push(
            Row::new(AREA, "cgroup.kill", if has { State::Ok } else { State::Missing })
                .costs("processes of a cgroup are frozen and killed one by one: a little time")
                .remedy("Linux 5.14 or newer"),
        );
        let psi = has_file(v2, "memory.pressure") || Path::new("/proc/pressure/memory").exists();
        rows.push(
            Row::new(AREA, "pressure statistics", if psi { State::Ok } else { State::Missing })
                .costs("the pressure values of events --stats")
                .remedy("boot with psi=1"),
        );
        rows.push(device_programs(AREA, caller));
    }
    rows
}

/// The directory of this process' own cgroup.
fn own(hierarchy: &Hierarchy) -> String {
    format!("{}{}", hierarchy.mount, hierarchy.own.trim_end_matches('/'))
}

/// Whether cgroups have a file. The root cgroup has fewer than all others.
fn has_file(hierarchy: &Hierarchy, file: &str) -> bool {
    let own = PathBuf::from(own(hierarchy));
    let below = |dir: &Path| fs::read_dir(dir).into_iter().flatten().flatten().any(|e| e.path().join(file).exists());
    own.join(file).exists() || below(&own) || below(Path::new(&hierarchy.mount))
}

fn delegation(area: &'static str, layout: &Layout, caller: &Caller) -> Row {
    let row = |state| Row::new(area, "cgroups of this user", state);
    let cost = "limits, statistics and pause of this user's containers; they stay in their caller's cgroup";
    match layout.unified().filter(|_| layout.is_pure_v2()) {
        Some(v2) => {
            let dir = own(v2);
            // systemd delegates the user's service manager, not the session that a login is in.
            let manager = format!("{}/user.slice/user-{uid}.slice/user@{uid}.service", v2.mount, uid = caller.uid);
            let here = writable(&format!("{dir}/cgroup.procs")) && writable(&dir);
            let dir = if here { dir } else { manager };
            let controllers = read(format!("{dir}/cgroup.controllers"));
            if !here && !writable(&dir) {
                return row(State::Missing)
                    .found("no cgroup is this user's to write")
                    .costs(cost)
                    .remedy("log in through systemd, or run under: systemd-run --user --scope -p Delegate=yes");
            }
            let lacking: Vec<&str> = v2
                .controllers
                .iter()
                .map(String::as_str)
                .filter(|c| !controllers.split(' ').any(|d| d == *c))
                .collect();
            let lacks_main = lacking.iter().any(|c| matches!(*c, "cpu" | "cpuset" | "io" | "memory" | "pids"));
            row(if lacks_main { State::Limited } else { State::Ok })
                .found(format!("{dir}: {}", controllers.replace(' ', ", ")))
                .costs(format!("limits of {}", lacking.join(", ")))
                .remedy("Delegate=cpu cpuset io memory pids in a drop-in of user@.service")
        }
        None => {
            let (mine, others): (Vec<&Hierarchy>, Vec<&Hierarchy>) =
                layout.hierarchies.iter().filter(|h| h.version == Version::V1).partition(|h| writable(&own(h)));
            let names =
                |list: &[&Hierarchy]| list.iter().map(|h| h.controllers.join(",")).collect::<Vec<_>>().join(", ");
            match (mine.is_empty(), others.is_empty()) {
                (false, true) => row(State::Ok).found("every hierarchy"),
                (false, false) => row(State::Limited).found(names(&mine)),
                _ => row(State::Missing).found("no hierarchy is this user's to write"),
            }
            .costs(if mine.is_empty() { cost.to_owned() } else { format!("limits of {}", names(&others)) })
            .remedy("cgroup v1 is not made for delegation: use cgroup v2, or run brig as root")
        }
    }
}

/// Loads a program that allows everything, and lets it go again: it is attached nowhere.
fn device_programs(area: &'static str, caller: &Caller) -> Row {
    const MOV_R0: u8 = 0xb7;
    const EXIT: u8 = 0x95;
    let allow = [Instruction::new(MOV_R0, 0, 0, 0, 1), Instruction::new(EXIT, 0, 0, 0, 0)];
    match bpf::load_device_program(&allow, c"brig_check", None) {
        Ok(_) => Row::new(area, "device programs (eBPF)", State::Ok),
        Err(errno) => Row::new(area, "device programs (eBPF)", State::Missing)
            .found(describe(errno))
            .costs("rules of linux.resources.devices")
            .remedy(if caller.privileged {
                "a kernel with CONFIG_CGROUP_BPF, and CAP_BPF"
            } else {
                "root's alone; in a user namespace no device can be made, and what is bound in can be used"
            }),
    }
}

fn systemd(caller: &Caller) -> Row {
    const AREA: &str = "systemd";
    let name = if caller.uid == 0 { "systemd" } else { "systemd of this user" };
    let cost = "--systemd-cgroup, and engines' systemd cgroup manager";
    if !Path::new("/run/systemd/system").is_dir() {
        return Row::new(AREA, name, State::Missing)
            .found("the machine was not started by systemd")
            .costs(cost)
            .remedy("none is needed: cgroupfs is the default manager");
    }
    let paths = match caller.uid {
        0 => vec!["/run/systemd/private".to_owned(), "/run/dbus/system_bus_socket".to_owned()],
        uid => {
            let dir = std::env::var("XDG_RUNTIME_DIR").unwrap_or_else(|_| format!("/run/user/{uid}"));
            vec![format!("{dir}/systemd/private"), format!("{dir}/bus")]
        }
    };
    match paths.iter().find(|path| socket::connect(path.as_bytes(), false).is_ok()) {
        Some(path) => Row::new(AREA, name, State::Ok).found(format!("reached at {path}")),
        None => Row::new(AREA, name, State::Limited)
            .found(format!("nobody answers at {}", paths.join(" or ")))
            .costs(cost)
            .remedy(match caller.uid {
                0 => "start D-Bus: systemctl start dbus.socket".to_owned(),
                uid => format!(
                    "start the user's service manager: loginctl enable-linger {uid} (as root), and set XDG_RUNTIME_DIR"
                ),
            }),
    }
}

fn apparmor() -> Row {
    const AREA: &str = "confinement";
    match lsm::apparmor() {
        true => Row::new(AREA, "AppArmor", State::Ok).found("enabled"),
        false => Row::new(AREA, "AppArmor", State::Missing)
            .found("not enabled")
            .costs("process.apparmorProfile is refused")
            .remedy("boot with apparmor=1 security=apparmor"),
    }
}

fn selinux() -> Row {
    const AREA: &str = "confinement";
    if !lsm::selinux() {
        return Row::new(AREA, "SELinux", State::Missing)
            .found("not enabled")
            .costs("process.selinuxLabel and linux.mountLabel are refused")
            .remedy("boot with selinux=1 security=selinux, and a policy");
    }
    match read("/sys/fs/selinux/enforce").as_str() {
        "1" => Row::new(AREA, "SELinux", State::Ok).found("enforcing"),
        _ => Row::new(AREA, "SELinux", State::Limited)
            .found("permissive")
            .costs("labels are set, and what they forbid is only logged")
            .remedy("setenforce 1"),
    }
}

fn mapping(caller: &Caller) -> Vec<Row> {
    const AREA: &str = "users";
    let user = user_name(&read("/etc/passwd"), caller.uid);
    [("newuidmap", "/etc/subuid", "--add-subuids"), ("newgidmap", "/etc/subgid", "--add-subgids")]
        .into_iter()
        .flat_map(|(helper, file, option)| {
            let cost = "maps of more than this user's own ID";
            let tool = match namespaces::mapping_helper(helper) {
                None => Row::new(AREA, helper, State::Missing)
                    .costs(cost)
                    .remedy("install it: the package uidmap of Debian and Ubuntu, shadow-utils of Fedora"),
                Some((path, false)) => Row::new(AREA, helper, State::Missing)
                    .found(format!("{} has neither the setuid bit nor file capabilities", path.display()))
                    .costs(cost)
                    .remedy(format!("chmod u+s {}", path.display())),
                Some((path, true)) => Row::new(AREA, helper, State::Ok).found(path.display().to_string()),
            };
            let ranges: Vec<(u64, u64)> = ranges(&read(file), &user, caller.uid);
            let count: u64 = ranges.iter().map(|(_, count)| count).sum();
            let state = match count {
                0 => State::Missing,
                1..=65535 => State::Limited,
                _ => State::Ok,
            };
            let shown: Vec<String> = ranges.iter().map(|(from, count)| format!("{count} from {from}")).collect();
            let who = if user.is_empty() { caller.uid.to_string() } else { user.clone() };
            let given = Row::new(AREA, format!("ranges in {file}"), state)
                .found(if shown.is_empty() { "none".to_owned() } else { shown.join(", ") })
                .costs(if count == 0 { cost } else { "images with more owners than that" })
                .remedy(format!("usermod {option} 100000-165535 {who} (as root), with a range that nobody else has"));
            [tool, given]
        })
        .collect()
}

/// The name of a user; empty where /etc/passwd has none. The C library's own look-up would load modules.
fn user_name(passwd: &str, uid: u32) -> String {
    let name = |line: &str| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    };
    passwd.lines().find_map(name).unwrap_or_default()
}

/// The ranges of a user, by name or number (subuid(5)): the first ID and how many.
fn ranges(text: &str, user: &str, uid: u32) -> Vec<(u64, u64)> {
    let number = uid.to_string();
    let line = |line: &str| {
        let mut fields = line.trim().split(':');
        let who = fields.next()?;
        let mine = (who == user && !user.is_empty()) || who == number;
        mine.then(|| Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?)))?
    };
    text.lines().filter_map(line).collect()
}

fn capabilities_row(caller: &Caller) -> Row {
    const AREA: &str = "limits";
    let row = |state| Row::new(AREA, "capabilities", state);
    let have = cred::get_caps().map(|caps| caps.effective).unwrap_or_default();
    let lacking = capabilities::names(capabilities::known() & !have);
    if lacking.is_empty() {
        return row(State::Ok).found("all");
    }
    if caller.uid != 0 {
        return row(State::Limited)
            .found("none on the host; in a user namespace all over what it owns")
            .costs("devices, network devices, sysctls of the host's namespaces, raising hard limits, oom_score_adj below the own")
            .remedy("run brig as root for these");
    }
    row(State::Limited)
        .found(format!("without {}", lacking.join(", ")))
        .costs("containers that are to have these, and what brig does by them")
        .remedy("allow them where this root is confined: a container's capabilities, a unit's CapabilityBoundingSet=")
}

fn rlimits() -> Row {
    const RESOURCE: u64 = 1 << 24;
    let row = |state| Row::new("limits", "resource limits", state);
    let may_raise = cred::get_caps().is_ok_and(|caps| caps.effective & RESOURCE != 0);
    let shown = |(name, resource): (&str, u32)| {
        let (_, hard) = sched::get_rlimit(resource).unwrap_or_default();
        let hard = if hard == u64::MAX { "unlimited".to_owned() } else { hard.to_string() };
        format!("{name} up to {hard}")
    };
    let found = [("open files", libc::RLIMIT_NOFILE), ("processes", libc::RLIMIT_NPROC)].map(shown).join(", ");
    match may_raise {
        true => row(State::Ok).found("any (CAP_SYS_RESOURCE)"),
        false => row(State::Limited)
            .found(found)
            .costs("a process.rlimits above the hard limit is refused")
            .remedy("raise the limits where this process comes from, or give it CAP_SYS_RESOURCE"),
    }
}

fn resctrl() -> Row {
    let row = |state| Row::new("limits", "resctrl", state);
    match intelrdt::find_root() {
        Ok(path) => row(State::Ok).found(path.display().to_string()),
        Err(_)
            if read("/proc/filesystems").lines().any(|line| line.trim_start_matches("nodev").trim() == "resctrl") =>
        {
            row(State::Limited)
                .found("not mounted")
                .costs("linux.intelRdt")
                .remedy("mount -t resctrl resctrl /sys/fs/resctrl")
        }
        Err(_) => row(State::Missing)
            .found("not known to this kernel, or not on this processor")
            .costs("linux.intelRdt")
            .remedy("hardware with cache allocation, and CONFIG_X86_CPU_RESCTRL"),
    }
}

fn huge_pages() -> Row {
    let row = |state| Row::new("limits", "huge pages", state);
    let entries = fs::read_dir("/sys/kernel/mm/hugepages").into_iter().flatten().flatten();
    let mut sizes: Vec<u64> = entries
        .filter_map(|entry| entry.file_name().to_str()?.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok())
        .collect();
    sizes.sort_unstable();
    let shown: Vec<String> = sizes
        .iter()
        .map(|kb| if kb % (1 << 20) == 0 { format!("{}GB", kb >> 20) } else { format!("{}MB", kb >> 10) })
        .collect();
    match shown.is_empty() {
        true => row(State::Missing)
            .found("none")
            .costs("linux.resources.hugepageLimits")
            .remedy("a kernel with CONFIG_HUGETLBFS"),
        false => row(State::Ok).found(shown.join(", ")),
    }
}

/// How /proc is mounted. What is mounted below it keeps a user namespace from a procfs of its own (mount_too_revealing).
fn procfs() -> Row {
    let row = |state| Row::new("places", "/proc", state);
    let mounts = read("/proc/self/mountinfo");
    let at = |line: &&str| line.split(' ').nth(4) == Some("/proc");
    let line = mounts.lines().rfind(at).unwrap_or_default();
    let hidden =
        line.split([' ', ',']).find_map(|word| word.strip_prefix("hidepid=")).filter(|v| !matches!(*v, "0" | "off"));
    let covered = mounts
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .filter(|path| path.starts_with("/proc/") && *path != "/proc/sys/fs/binfmt_misc")
        .count();
    match (line.is_empty(), hidden, covered) {
        (true, ..) => row(State::Missing)
            .found("not mounted")
            .costs("everything that is read of processes")
            .remedy("mount -t proc proc /proc")
            .needed(),
        (_, Some(value), _) => row(State::Limited)
            .found(format!("hidepid={value}"))
            .costs("plain users can't see the processes of others, nor mount a procfs in a container of theirs")
            .remedy("mount -o remount,hidepid=0 /proc"),
        (.., 1..) => row(State::Limited)
            .found(format!("{covered} places below it are covered"))
            .costs("containers in a user namespace can't mount a procfs of their own")
            .remedy("run brig where /proc is whole; in a container: with its /proc unmasked"),
        _ => row(State::Ok),
    }
}

fn state_directory(root: &Path) -> Row {
    use nix::sys::statvfs::{FsFlags, statvfs};
    let row = |state| Row::new("places", "state directory", state);
    let dir = existing(root).unwrap_or_else(|| PathBuf::from("/"));
    let shown = match dir == root {
        true => root.display().to_string(),
        false => format!("{} (to be made)", root.display()),
    };
    let flags = statvfs(&dir).map(|found| found.flags()).unwrap_or(FsFlags::empty());
    if access(&dir, AccessFlags::W_OK | AccessFlags::X_OK).is_err() || flags.contains(FsFlags::ST_RDONLY) {
        return row(State::Missing)
            .found(format!("{shown}: {} can't be written to", dir.display()))
            .costs("all containers")
            .remedy("set XDG_RUNTIME_DIR, or choose another directory: --root DIR")
            .needed();
    }
    let words: Vec<&str> = [(FsFlags::ST_NOEXEC, "noexec"), (FsFlags::ST_NODEV, "nodev")]
        .into_iter()
        .filter(|(flag, _)| flags.contains(*flag))
        .map(|(_, word)| word)
        .collect();
    // Nothing in it is executed, and no device made.
    let flags = if words.is_empty() { String::new() } else { format!(" ({}, which does no harm)", words.join(", ")) };
    row(State::Ok).found(format!("{shown}{flags}"))
}

fn runtime_directory(caller: &Caller) -> Row {
    use std::os::unix::fs::MetadataExt;
    let row = |state| Row::new("places", "XDG_RUNTIME_DIR", state);
    let cost = "--root may have to be given, and the user's systemd is not found";
    let remedy = "log in through pam_systemd, or set it to a directory of this user with mode 0700";
    match std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty()) {
        None => row(State::Limited).found("not set").costs(cost).remedy(remedy),
        Some(dir) => match fs::metadata(&dir) {
            Ok(data) if data.is_dir() && data.uid() == caller.uid => row(State::Ok).found(dir.to_string_lossy()),
            Ok(_) => row(State::Limited)
                .found(format!("{} is not this user's", dir.to_string_lossy()))
                .costs(cost)
                .remedy(remedy),
            Err(e) => row(State::Limited).found(format!("{}: {e}", dir.to_string_lossy())).costs(cost).remedy(remedy),
        },
    }
}

fn criu() -> Row {
    let row = |state| Row::new("places", "criu", state);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = std::env::split_paths(&path).filter(|dir| dir.is_absolute()).collect::<Vec<_>>();
    let usual = ["/usr/sbin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin"].map(PathBuf::from);
    let runs = |path: &PathBuf| path.is_file() && access(path, AccessFlags::X_OK).is_ok();
    match dirs.iter().chain(&usual).map(|dir| dir.join("criu")).find(runs) {
        Some(path) => row(State::Ok).found(path.display().to_string()),
        None => row(State::Missing).costs("checkpoint and restore").remedy("install the package criu"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_have_names() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nweb:x:1000:100::/:";
        assert_eq!((user_name(passwd, 1000).as_str(), user_name(passwd, 100).as_str()), ("web", ""));
    }

    #[test]
    fn ranges_are_given_by_name_or_number() {
        let text = "web:100000:65536\n1000:200000:10\n# comment\nother:1:1\nweb:oops\n:5:5";
        assert_eq!(ranges(text, "web", 1000), [(100_000, 65536), (200_000, 10)]);
        assert_eq!(ranges(text, "", 7), []);
    }
}
