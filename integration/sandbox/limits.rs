//! How much: each limit holds, and the report says by what.

use super::support::{plain, run, sh, short, soon, work};
use crate::support::{Test, cases, json, os, suite};
use std::fs;
use std::time::Duration;

cases![
    a_memory_limit,
    a_cpu_percent,
    a_cpu_quota_and_period,
    a_pids_limit,
    a_timeout_kills_the_whole_tree,
    b_cpu_seconds,
    b_file_size,
    b_open_files,
    b_disk_is_limited,
    no_limit_is_none,
    strict_about_limits,
];

/// Keeps one CPU busy for ever.
const BUSY: &str = "while :; do :; done";

fn a_memory_limit(t: &Test) {
    // One line without an end, all of which has to be kept.
    let ran = run(t, &["--memory", "32M", "--timeout", &short(20_000)], &["tail", "/dev/zero"]);
    if ran.by_cgroup("memory") {
        assert!((8 << 20..48 << 20).contains(&ran.number("memory_peak")), "{}", ran.report);
        assert_eq!(ran.limit("memory")["hit"], true);
        ran.ended(json!({"cause": "out_of_memory"}), 137);
    } else {
        // Its program and libraries are not counted.
        assert!(ran.number("memory_peak") < 48 << 20, "{}", ran.report);
        assert!(ran.stderr().contains("memory"), "{}", ran.report);
        ran.exited(1);
    }
}

/// A busy program gets this share of a CPU.
fn share(t: &Test, flags: &[&str], limit: &str, value: &str, percent: u64) {
    let ran = sh(t, &[&["--timeout", &short(800)], flags].concat(), BUSY);
    assert_eq!(ran.limit(limit)["value"], value);
    if !ran.by_cgroup(limit) {
        suite::skip("this user has no cgroup to hold a share of a CPU");
    }
    // A period more than it should have, and the kernel's own ticks.
    let most = ran.number("wall_us") * percent / 100 + 60_000;
    assert!((20_000..most).contains(&ran.cpu()), "more than {most}, or nothing: {}", ran.report);
    assert_eq!(ran.limit(limit)["hit"], true);
    ran.ended(json!({"cause": "timed_out"}), 124);
}

fn a_cpu_percent(t: &Test) {
    share(t, &["--cpu", "20%"], "cpu", "20 %", 20);
}

fn a_cpu_quota_and_period(t: &Test) {
    share(t, &["--cpu-quota", "5000:25000"], "cpu_quota", "5000 us of 25000 us", 20);
}

fn a_pids_limit(t: &Test) {
    let ran = sh(t, &["--pids", "40", "--timeout", &short(600)], "b() { b | b & }; (b) & wait; exec sleep 1000");
    assert!(ran.took < soon(10_000), "{:?}", ran.took);
    assert!((1..=40).contains(&ran.number("pids_peak")), "{}", ran.report);
    if ran.by_cgroup("pids") {
        assert_eq!(ran.limit("pids")["hit"], true);
    } else {
        assert!(ran.limit("pids")["hit"].is_null(), "nobody tells: {}", ran.report);
    }
    assert!(ran.stderr().to_lowercase().contains("fork"), "{}", ran.report);
    ran.ended(json!({"cause": "timed_out"}), 124);
}

fn a_timeout_kills_the_whole_tree(t: &Test) {
    let deaf = "trap '' TERM INT HUP QUIT";
    let script = format!("{deaf}; for n in 1 2 3; do (setsid sh -c \"{deaf}; {BUSY}\" &); done; echo begun; {BUSY}");
    let ran = sh(t, &["--timeout", &short(1000)], &script);
    assert_eq!(ran.stdout(), "begun\n");
    let wall = Duration::from_micros(ran.number("wall_us"));
    assert!(wall >= Duration::from_millis(1000), "{wall:?}");
    assert!(ran.took < soon(5000), "{:?}, of which the sandbox {wall:?}", ran.took);
    assert_eq!(ran.limit("timeout")["hit"], true);
    ran.ended(json!({"cause": "timed_out"}), 124);
}

fn b_cpu_seconds(t: &Test) {
    let ran = sh(t, &["--cpu-time", "1", "--timeout", &short(20_000)], BUSY);
    // The kernel looks at the limit at its ticks, which an emulated processor has fewer of; on a busy one they count more
    // than was used.
    let late = |usual: u64| usual * u64::from(os::slowness());
    assert!((500_000..late(1_500_000)).contains(&ran.cpu()), "{}", ran.report);
    assert_eq!(ran.limit("cpu_time")["by"], "RLIMIT_CPU");
    assert_eq!(ran.limit("cpu_time")["hit"], true);
    ran.ended(json!({"cause": "cpu_time"}), 152);
    let deaf = sh(t, &["--cpu-time", "1", "--timeout", &short(20_000)], &format!("trap '' XCPU; {BUSY}"));
    assert!((1_100_000..late(2_500_000)).contains(&deaf.cpu()), "{}", deaf.report);
    deaf.ended(json!({"cause": "cpu_time"}), 152);
}

fn b_file_size(t: &Test) {
    let ran = sh(t, &["--file-size", "64K"], "head -c 65536 /dev/zero > a && exec head -c 65537 /dev/zero > b");
    assert_eq!(
        ran.limit("file_size"),
        &json!({"name": "file_size", "value": "64K", "by": "RLIMIT_FSIZE", "hit": true})
    );
    let sizes = json!([["/a", 65536], ["/b", 65536]]);
    let changes: Vec<_> = ran.report["changes"].as_array().unwrap().iter().collect();
    let name = |path: &str| format!("/{}", path.rsplit('/').next().unwrap());
    let found: Vec<_> = changes.iter().map(|c| json!([name(c["path"].as_str().unwrap()), c["size"]])).collect();
    assert_eq!(json!(found), sizes);
    ran.ended(json!({"cause": "signaled", "signal": libc::SIGXFSZ}), 128 + libc::SIGXFSZ);
}

fn b_open_files(t: &Test) {
    let all = "for n in 3 4 5 6 7; do eval \"exec $n</dev/null\"; done";
    let ran = sh(
        t,
        &["--open-files", "8"],
        &format!("ulimit -n; ulimit -Hn; cat /dev/null && echo some; {all}; cat /dev/null"),
    );
    assert_eq!(ran.stdout(), "8\n8\nsome\n");
    assert!(ran.stderr().contains("open"), "{}", ran.report);
    assert_eq!(ran.limit("open_files")["by"], "RLIMIT_NOFILE");
    assert_ne!(ran.out.code, 0);
}

fn b_disk_is_limited(t: &Test) {
    for dir in [".", "/tmp", "/dev/shm"] {
        let ran = sh(t, &["--disk", "1M"], &format!("exec head -c 4M /dev/zero > {dir}/full"));
        assert!(ran.stderr().contains("space"), "{dir}: {}", ran.report);
        assert_eq!(ran.limit("disk")["value"], "1M");
        assert_eq!(ran.limit("disk")["hit"], true, "{dir}: {}", ran.report);
        ran.exited(1);
    }
    // One limit for all of them.
    let ran =
        sh(t, &["--disk", "1M"], "head -c 600K /dev/zero > /tmp/some && exec head -c 600K /dev/zero > /dev/shm/more");
    assert!(ran.stderr().contains("space"), "{}", ran.report);
    ran.exited(1);
}

fn no_limit_is_none(t: &Test) {
    let none = ["--memory", "none", "--swap", "none", "--pids", "none", "--open-files", "none", "--disk", "none"];
    let ran = sh(t, &none, "ulimit -n").exited(0);
    assert_eq!(ran.report["limits"], json!([]));
    let (_, hard) = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).unwrap();
    assert!(ran.stdout().trim().parse::<u64>().unwrap() <= hard);
}

/// With `--strict`, limits of each process do not stand in for those of all of them.
fn strict_about_limits(t: &Test) {
    t.needs_call("mount_setattr");
    let ran = sh(t, &[], ":");
    let held = ran.by_cgroup("memory");
    assert_eq!(ran.limit("memory")["hit"], if held { json!(false) } else { json!(null) });
    assert!(ran.limit("open_files")["hit"].is_null() && ran.limit("disk")["hit"].is_null(), "{}", ran.report);
    let without = ["--strict", "--memory", "none", "--pids", "none"];
    let with_cpu = [&without[..], &["--cpu", "50%"]].concat();
    for (flags, named) in
        [(&["--strict"][..], &["limits.memory, limits.swap, limits.pids"][..]), (&with_cpu, &["limits.cpu"])]
    {
        let out = plain(t, &[flags, &["-w"]].concat(), &["sh", "-c", "touch ran; exit 3"]);
        if held {
            out.code(3);
            fs::remove_file(work(t).join("ran")).unwrap();
        } else {
            out.code(125).fails(&[&["no cgroup is to be had", "--strict"], named].concat());
            assert!(!work(t).join("ran").exists(), "it ran");
        }
    }
    plain(t, &without, &["sh", "-c", "exit 3"]).code(3);
}
