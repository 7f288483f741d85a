//! Made-up reports for the tests.

use crate::sandbox::policy::Profile;
use crate::sandbox::report::*;

fn limit(name: &'static str, value: &str, by: &str, hit: impl Into<Option<bool>>) -> LimitUsed {
    LimitUsed { name, value: value.into(), by: by.into(), hit: hit.into() }
}

/// A connection at a moment in milliseconds.
pub fn connection(ms: u64, host: &str, port: u16, allowed: bool, reason: &str) -> Connection {
    let (host, reason) = (host.to_owned(), reason.to_owned());
    let (sent, received) = if allowed { (1830, 482_113) } else { (0, 0) };
    Connection { at_us: ms * 1000, via: "https", host, port, allowed, reason, sent, received }
}

/// A violation at a moment in milliseconds.
pub fn violation(ms: u64, kind: &'static str, what: &str, program: &str, count: u64) -> Violation {
    Violation { at_us: ms * 1000, kind, what: what.into(), program: program.into(), pid: 4711, count }
}

/// A plain exit with nothing to tell.
pub fn quiet() -> Report {
    Report {
        id: "calm-otter".into(),
        command: vec!["true".into()],
        mode: Mode::UserNamespace,
        profile: Some(Profile::Compute),
        started: "2026-11-21T09:30:00.000000000Z".into(),
        outcome: Outcome::Exited { code: 0 },
        status: 0,
        wall_us: 2_350,
        cpu_user_us: 700,
        cpu_system_us: 400,
        memory_peak: 900 << 10,
        memory_average: None,
        io_read: 0,
        io_written: 0,
        pids_peak: 1,
        limits: vec![limit("memory", "2G", "cgroup v2 memory.max", false)],
        changes: vec![],
        connections: vec![],
        violations: vec![],
        findings: vec![],
        samples: vec![],
        stdout: None,
        stderr: None,
        notes: vec![],
    }
}

/// A run with something of everything, which needed more memory than it had.
pub fn busy() -> Report {
    let changes = (0..26).map(|n| Change {
        path: format!("/home/ada/project/target/debug/deps/module_{n:02}.o"),
        kind: [ChangeKind::Added, ChangeKind::Modified, ChangeKind::Deleted][n % 3],
        size: if n % 3 == 2 { 0 } else { 1000 << (n % 12) },
    });
    let samples = (0..118_u64).map(|n| Sample {
        at_us: n * 40_000,
        memory: (6 << 20) + n * n * 4200 + (n % 7) * 300_000,
        cpu_us: n * 31_000 + if n > 60 { (n - 60) * 24_000 } else { 0 } + (n % 5) * 4000,
        pids: 1 + n / 30,
    });
    Report {
        id: "brisk-heron".into(),
        command: ["python3", "train.py", "--epochs", "10 or so"].map(String::from).to_vec(),
        mode: Mode::Privileged,
        outcome: Outcome::OutOfMemory,
        status: 137,
        wall_us: 4_731_000,
        cpu_user_us: 4_100_000,
        cpu_system_us: 812_000,
        memory_peak: 64 << 20,
        memory_average: Some(29 << 20),
        io_read: 18_300_000,
        io_written: 912_000,
        pids_peak: 4,
        limits: vec![
            limit("memory", "64M", "cgroup v2 memory.max", true),
            limit("cpu", "200 %", "cgroup v2 cpu.max", false),
            limit("pids", "512", "cgroup v2 pids.max", false),
            limit("open_files", "1024", "RLIMIT_NOFILE", None),
            limit("disk", "512M", "tmpfs", None),
            limit("timeout", "30 s", "timer", false),
        ],
        changes: changes.collect(),
        connections: vec![
            connection(210, "pypi.org", 443, true, "allowed by pypi.org"),
            connection(460, "files.pythonhosted.org", 443, true, "allowed by *.pythonhosted.org"),
            connection(1900, "evil.example", 443, false, "no rule allows it"),
            connection(2400, "evil.example", 443, false, "no rule allows it"),
            connection(2500, "telemetry.example", 443, false, "denied by telemetry.example"),
        ],
        violations: vec![
            violation(900, "syscall", "ptrace", "python3", 3),
            violation(1900, "network", "evil.example", "python3", 2),
            violation(3100, "file", "/home/ada/.ssh/id_ed25519", "cat", 1),
            violation(3900, "syscall", "socket", "curl", 1),
        ],
        findings: vec![Finding {
            rule: "python-eval",
            severity: "high",
            file: "train.py".into(),
            line: 41,
            column: 9,
            code: "eval(config[\"lr\"])".into(),
            why: "it runs whatever text it is given",
        }],
        samples: samples.collect(),
        stdout: Some(Captured { text: "epoch 1: loss 0.71\nepoch 2: loss 0.48\n".into(), bytes: 38, truncated: false }),
        stderr: Some(Captured { text: "Killed\n".into(), bytes: 90_112, truncated: true }),
        notes: vec!["Landlock is not in this kernel; files are kept by mounts alone".into()],
        ..quiet()
    }
}
