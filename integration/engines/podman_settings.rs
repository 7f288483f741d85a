//! podman: the settings of a container, each looked at from inside it or in its cgroup.

use super::machine;
use super::podman::Podman;
use crate::support::{Test, cases, host, suite};
use std::fs;
use std::path::Path;

cases![
    read_only,
    tmpfs,
    volume,
    volume_read_only,
    user,
    capabilities,
    no_new_privileges,
    seccomp_default,
    seccomp_profile,
    seccomp_off,
    memory,
    pids_limit,
    cpus,
    hostname,
    uidmap,
    userns_auto,
    masked_paths,
    device,
    ulimit,
    sysctl,
    environment,
    host_namespaces,
    namespaces_of_another,
    private_cgroup_namespace,
    privileged,
    named_volume,
    group_add,
    oom_score_adj,
];

fn read_only(t: &Test) {
    let p = Podman::new(t);
    let out = p.shell(&["--read-only"], "touch /file 2>&1; touch /tmp/file && echo tmp is writable");
    assert_eq!(out, "touch: /file: Read-only file system\ntmp is writable\n");
}

fn tmpfs(t: &Test) {
    let p = Podman::new(t);
    let flag = ["--tmpfs", "/new:size=1m,mode=0710,noexec"];
    let look = "grep ' /new ' /proc/mounts; stat -c %a /new; dd if=/dev/zero of=/new/a bs=1M count=2 2>&1 || true";
    let out = p.shell(&flag, look);
    for wanted in ["tmpfs /new tmpfs rw,nosuid,nodev,noexec", "size=1024k,mode=710", "\n710\n", "No space left"] {
        assert!(out.contains(wanted), "no {wanted:?} in {out}");
    }
    // Over a directory of the image's it starts with what is there.
    assert_eq!(p.shell(&["--tmpfs", "/etc"], "grep -c extra /etc/group; touch /etc/new"), "1\n");
}

/// A directory of the host's with a file in it.
fn shared(t: &Test) -> String {
    let dir = t.dir().join("shared");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("file"), "from outside\n").unwrap();
    dir.display().to_string()
}

fn volume(t: &Test) {
    let p = Podman::new(t);
    let dir = shared(t);
    let out = p.shell(
        &["--volume", &format!("{dir}:/mnt/made/here")],
        "cat /mnt/made/here/file; echo in > /mnt/made/here/new",
    );
    assert_eq!(out, "from outside\n");
    assert_eq!(fs::read_to_string(Path::new(&dir).join("new")).unwrap(), "in\n");
    // Relabelling is asked for, where there is nothing to label.
    assert_eq!(p.shell(&["--volume", &format!("{dir}:/mnt:z")], "cat /mnt/file"), "from outside\n");
}

fn volume_read_only(t: &Test) {
    let p = Podman::new(t);
    let dir = shared(t);
    let out = p.shell(&["--volume", &format!("{dir}:/mnt:ro")], "cat /mnt/file; touch /mnt/new 2>&1 || true");
    assert_eq!(out, "from outside\ntouch: /mnt/new: Read-only file system\n");
    // A single file, over one of the image's.
    let flag = format!("{dir}/file:/etc/group:ro");
    assert_eq!(p.shell(&["--volume", &flag], "cat /etc/group"), "from outside\n");
}

fn user(t: &Test) {
    let p = Podman::new(t);
    let ids = "id -u; id -g; id -G; grep -E 'CapEff|CapPrm' /proc/self/status | sort -u";
    let none = "CapEff:\t0000000000000000\nCapPrm:\t0000000000000000\n";
    assert_eq!(p.shell(&["--user", "1000:1000"], ids), format!("1000\n1000\n1000\n{none}"));
    assert_eq!(p.shell(&["--user", "worker"], ids), format!("1000\n1000\n1000 2000\n{none}"));
    assert_eq!(p.shell(&["--user", "1234:5678"], ids), format!("1234\n5678\n5678\n{none}"));
    assert_eq!(p.shell(&["--user", "worker", "--workdir", "/tmp"], "pwd; touch here && echo mine"), "/tmp\nmine\n");
}

/// A line of the container's /proc/self/status as a number.
#[track_caller]
fn status(p: &Podman, flags: &[&str], line: &str) -> u64 {
    let out = p.shell(flags, &format!("grep '^{line}:' /proc/self/status"));
    let value = out.split_whitespace().nth(1).unwrap_or_else(|| panic!("{line}: {out}"));
    u64::from_str_radix(value, 16).unwrap()
}

fn capabilities(t: &Test) {
    const NET_BIND_SERVICE: u64 = 1 << 10;
    const CHOWN: u64 = 1;
    const SYS_TIME: u64 = 1 << 25;
    let p = Podman::new(t);
    let usual = status(&p, &[], "CapEff");
    assert_eq!(usual & (CHOWN | SYS_TIME), CHOWN);
    assert_eq!(status(&p, &["--cap-add", "sys_time"], "CapEff"), usual | SYS_TIME);
    assert_eq!(status(&p, &["--cap-drop", "chown"], "CapBnd"), usual & !CHOWN);
    let one = ["--cap-drop", "all", "--cap-add", "net_bind_service"];
    for set in ["CapEff", "CapPrm", "CapBnd"] {
        assert_eq!(status(&p, &one, set), NET_BIND_SERVICE, "{set}");
    }
    // Of a user who is not root only the bounding set has it, unless it was asked for.
    let user = ["--user", "1000", "--cap-add", "net_bind_service"];
    assert_eq!(status(&p, &user, "CapEff"), NET_BIND_SERVICE);
    assert_eq!(status(&p, &user, "CapAmb"), NET_BIND_SERVICE);
    p.run(&["--cap-drop", "chown"], &["chown", "1000", "/tmp"]).code(1);
}

fn no_new_privileges(t: &Test) {
    let p = Podman::new(t);
    assert_eq!(status(&p, &[], "NoNewPrivs"), 0);
    assert_eq!(status(&p, &["--security-opt", "no-new-privileges"], "NoNewPrivs"), 1);
}

fn seccomp_default(t: &Test) {
    let p = Podman::new(t);
    assert_eq!(status(&p, &[], "Seccomp"), 2);
    // In a user namespace anyone may name a host; the usual profile forbids it to who was not given CAP_SYS_ADMIN.
    let plain = ["unshare", "-r", "-u", "hostname", "renamed"];
    let refused = p.run(&[], &plain).code(1);
    assert!(refused.stderr.contains("Operation not permitted"), "{}", refused.stderr);
    p.run(&["--security-opt", "seccomp=unconfined"], &plain).ok();
}

fn seccomp_profile(t: &Test) {
    let p = Podman::new(t);
    let profile = t.dir().join("profile.json");
    let rule = r#"{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 31}"#;
    fs::write(&profile, format!(r#"{{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{rule}]}}"#)).unwrap();
    let flag = format!("seccomp={}", profile.display());
    let out = p.run(&["--security-opt", &flag], &["mkdir", "/tmp/new"]);
    assert_ne!(out.code, 0);
    assert!(out.stderr.contains("Too many links"), "errno 31 is what the profile asks for: {}", out.stderr);
}

fn seccomp_off(t: &Test) {
    let p = Podman::new(t);
    assert_eq!(status(&p, &["--security-opt", "seccomp=unconfined"], "Seccomp"), 0);
}

/// A file of the cgroup of a container that runs with these flags: the name of the v1 controller and of its file, and
/// of the v2 file.
#[track_caller]
fn limit(p: &Podman, name: &str, flags: &[&str], v1: (&str, &str), v2: &str) -> String {
    p.start(name, flags, &["sleep", "1000"]);
    let pid = p.pid(name);
    if host::has_v1(v1.0) { host::cgroup_file(pid, v1.0, v1.1) } else { host::cgroup_file(pid, "", v2) }
}

fn memory(t: &Test) {
    let p = Podman::new(t);
    let flags = ["--memory", "64m", "--memory-reservation", "32m"];
    assert_eq!(limit(&p, "a", &flags, ("memory", "memory.limit_in_bytes"), "memory.max"), "67108864");
    assert_eq!(limit(&p, "b", &flags, ("memory", "memory.soft_limit_in_bytes"), "memory.low"), "33554432");
}

fn pids_limit(t: &Test) {
    let p = Podman::new(t);
    assert_eq!(limit(&p, "a", &["--pids-limit", "20"], ("pids", "pids.max"), "pids.max"), "20");
    let out = p.run(&["--pids-limit", "20"], &["sh", "-c", "for i in $(seq 30); do sleep 1000 & done"]);
    assert!(out.stderr.contains("can't fork"), "{}", out.stderr);
}

fn cpus(t: &Test) {
    let p = Podman::new(t);
    let quota = limit(&p, "a", &["--cpus", "0.5"], ("cpu", "cpu.cfs_quota_us"), "cpu.max");
    assert!(quota == "50000" || quota == "50000 100000", "{quota}");
    let shares = limit(&p, "b", &["--cpu-shares", "512"], ("cpu", "cpu.shares"), "cpu.weight");
    // v2: the weight of 512 shares by the first conversion, and by the one that takes 1024 shares for a weight of 100.
    assert!(["512", "20", "59"].contains(&&*shares), "{shares}");
    let set = limit(&p, "c", &["--cpuset-cpus", "0"], ("cpuset", "cpuset.cpus"), "cpuset.cpus");
    assert_eq!(set, "0");
}

fn hostname(t: &Test) {
    let p = Podman::new(t);
    let look = "hostname; cat /etc/hostname; echo; grep -c web.example /etc/hosts";
    let out = p.shell(&["--hostname", "web.example"], look);
    assert_eq!(out.split_whitespace().collect::<Vec<_>>(), ["web.example", "web.example", "1"]);
}

/// What a container in a user namespace sees of itself, and what its root may do.
const MAPPED: &str =
    "cat /proc/self/uid_map; id -u; touch /root/file; stat -c %u /root/file; hostname renamed; hostname";

fn uidmap(t: &Test) {
    let p = Podman::new(t);
    let flags = ["--uidmap", "0:100000:65536", "--gidmap", "0:100000:65536", "--cap-add", "sys_admin"];
    let out = p.shell(&flags, MAPPED);
    assert_eq!(out.split_whitespace().collect::<Vec<_>>(), ["0", "100000", "65536", "0", "0", "renamed"]);
}

/// podman takes the range for `auto` from what /etc/subuid and /etc/subgid give to the user "containers". In a mount
/// namespace of its own it gets to see files that have one. (keep-id is for podman without root.)
fn userns_auto(t: &Test) {
    let unshare = machine::program("unshare");
    if !fs::exists("/etc/subuid").unwrap() || !fs::exists("/etc/subgid").unwrap() {
        suite::skip("there is no /etc/subuid and /etc/subgid to put others over");
    }
    let p = Podman::new(t);
    let ranges = t.dir().join("ranges");
    fs::write(&ranges, "containers:200000:131072\n").unwrap();
    let script = "mount --bind $0 /etc/subuid && mount --bind $0 /etc/subgid && exec \"$@\"";
    let before = [unshare.as_str(), "--mount", "sh", "-c", script, ranges.to_str().unwrap()];
    let args = p.run_args(&["--rm", "--userns", "auto:size=4096", "--cap-add", "sys_admin"], &["sh", "-c", MAPPED]);
    let out = p.under(&before, &args).ok().stdout;
    let words: Vec<&str> = out.split_whitespace().collect();
    let first: u32 = words[1].parse().unwrap();
    assert!((200_000..331_072).contains(&first), "{out}");
    assert_eq!((words[0], &words[2..]), ("0", ["4096", "0", "0", "renamed"].as_slice()));
}

fn masked_paths(t: &Test) {
    let p = Podman::new(t);
    // Which of them there are depends on the kernel; those that are not there are not to be made, and no failure.
    let files = "for f in kcore keys timer_list sched_debug; do [ ! -e /proc/$f ] || cat /proc/$f; done";
    let dirs = "ls /proc/scsi /sys/firmware 2>/dev/null | grep -v : | grep . || true";
    assert_eq!(p.shell(&[], &format!("{files}; {dirs}")), "");
    let out = p.run(&[], &["sh", "-c", "echo x > /proc/sys/kernel/domainname"]);
    assert!(out.stderr.contains("Read-only file system"), "{}", out.stderr);
    let plain = p.shell(&["--security-opt", "unmask=ALL"], "grep -c ' /proc/' /proc/mounts || true");
    assert_eq!(plain, "0\n");
}

fn device(t: &Test) {
    let p = Podman::new(t);
    let out =
        p.shell(&["--device", "/dev/null:/dev/nothing:rw"], "stat -c '%F %t %T' /dev/nothing; echo x > /dev/nothing");
    assert_eq!(out, "character special file 1 3\n");
    // The device cgroup: what was not given can be made, but not opened.
    let made = p.run(&[], &["sh", "-c", "mknod /tmp/kmsg c 1 11 && head -c 1 /tmp/kmsg"]);
    assert!(made.stderr.contains("Operation not permitted"), "{}", made.stderr);
}

fn ulimit(t: &Test) {
    let p = Podman::new(t);
    assert_eq!(
        p.shell(&["--ulimit", "nofile=100:200", "--ulimit", "nproc=1000:1000"], "ulimit -Sn; ulimit -Hn"),
        "100\n200\n"
    );
}

fn sysctl(t: &Test) {
    let p = Podman::new(t);
    assert_eq!(p.shell(&["--sysctl", "kernel.msgmax=4321"], "cat /proc/sys/kernel/msgmax"), "4321\n");
}

fn environment(t: &Test) {
    let p = Podman::new(t);
    let flags = ["--env", "A=b c", "--workdir", "/mnt", "--entrypoint", "[\"sh\", \"-c\"]"];
    let out = p.run(&flags, &["echo $A $container; pwd; umask"]).ok().stdout;
    assert_eq!(out, "b c podman\n/mnt\n0022\n");
    assert_eq!(p.shell(&["--umask", "0077"], "umask"), "0077\n");
}

/// The container's namespaces of these types, as links.
const NAMESPACES: &str = "for n in ipc net pid uts cgroup; do readlink /proc/self/ns/$n; done";

fn host_namespaces(t: &Test) {
    let p = Podman::new(t);
    let flags = ["--ipc", "host", "--network", "host", "--pid", "host", "--uts", "host", "--cgroupns", "host"];
    let own = |name| fs::read_link(format!("/proc/self/ns/{name}")).unwrap().display().to_string();
    let out = p.shell(&flags, NAMESPACES);
    assert_eq!(out.lines().collect::<Vec<_>>(), ["ipc", "net", "pid", "uts", "cgroup"].map(own));
}

fn namespaces_of_another(t: &Test) {
    let p = Podman::new(t);
    p.start("web", &["--hostname", "web.example", "--ipc", "shareable"], &["sleep", "1000"]);
    let of = "container:web";
    let other = p.shell(&["--network", of, "--pid", of, "--ipc", of], NAMESPACES);
    let web = p.exec("web", NAMESPACES);
    assert_eq!(other.lines().take(3).collect::<Vec<_>>(), web.lines().take(3).collect::<Vec<_>>());
    assert_ne!(other.lines().nth(3), web.lines().nth(3), "the host name stays its own");
}

fn private_cgroup_namespace(t: &Test) {
    let p = Podman::new(t);
    let out = p.shell(&["--cgroupns", "private"], "cut -d: -f3 /proc/self/cgroup | sort -u");
    assert_eq!(out, "/\n");
}

fn privileged(t: &Test) {
    let p = Podman::new(t);
    let flags = ["--privileged"];
    let own = fs::read_to_string("/proc/self/status").unwrap();
    let own = own.lines().find_map(|line| line.strip_prefix("CapBnd:")).unwrap().trim();
    assert_eq!(format!("{:016x}", status(&p, &flags, "CapEff")), own, "all that this machine has");
    assert_eq!(status(&p, &flags, "Seccomp"), 0);
    let look = "mkdir /new && mount -t tmpfs none /new && echo mounted; [ -c /dev/kmsg ] && echo devices";
    assert_eq!(p.shell(&flags, look), "mounted\ndevices\n");
}

fn named_volume(t: &Test) {
    let p = Podman::new(t);
    p.shell(&["--volume", "data:/data"], "echo kept > /data/file");
    assert_eq!(p.shell(&["--volume", "data:/elsewhere:ro"], "cat /elsewhere/file"), "kept\n");
    // A new volume over a directory of the image's takes over what is in it.
    assert_eq!(p.shell(&["--volume", "etc:/etc"], "grep -c extra /etc/group"), "1\n");
    p.call(&["volume", "rm", "data", "etc"]).ok();
}

fn group_add(t: &Test) {
    let p = Podman::new(t);
    assert_eq!(p.shell(&["--user", "1000:1000", "--group-add", "4321"], "id -G"), "1000 4321\n");
}

fn oom_score_adj(t: &Test) {
    let p = Podman::new(t);
    assert_eq!(p.shell(&["--oom-score-adj", "500"], "cat /proc/self/oom_score_adj"), "500\n");
}
