//! What the filters mean, measured against libseccomp's.

mod bpf;
mod reference;

use super::*;
use crate::spec::{SeccompArg, SeccompOp, Syscall};
use reference::{Random, compare_all};

fn rule(names: &[&str], action: SeccompAction) -> Syscall {
    Syscall { names: names.iter().map(|&name| name.to_owned()).collect(), action: Some(action), ..Syscall::default() }
}

fn arg(index: u32, op: SeccompOp, value: u64, value_two: u64) -> SeccompArg {
    SeccompArg { index, op: Some(op), value, value_two }
}

/// A profile as `podman` makes it of its default one, for a container with podman's default capabilities.
fn podman() -> Option<Seccomp> {
    let text = std::fs::read_to_string("/usr/share/containers/seccomp.json").ok()?;
    let profile: serde_json::Value = serde_json::from_str(&text).unwrap();
    let caps = ["CAP_CHOWN", "CAP_SYS_CHROOT"];
    let applies = |call: &&serde_json::Value| {
        let list = |path: &str| call.pointer(path).and_then(|list| list.as_array()).cloned().unwrap_or_default();
        let has = |cap: &serde_json::Value| caps.contains(&cap.as_str().unwrap());
        let arches = list("/includes/arches");
        (arches.is_empty() || arches.contains(&"amd64".into()))
            && list("/includes/caps").iter().all(has)
            && !list("/excludes/caps").iter().any(has)
    };
    let syscalls: Vec<_> = profile["syscalls"].as_array().unwrap().iter().filter(applies).collect();
    let section = serde_json::json!({
        "defaultAction": profile["defaultAction"],
        "defaultErrnoRet": profile["defaultErrnoRet"],
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": syscalls,
    });
    Some(serde_json::from_value(section).unwrap())
}

#[test]
fn the_default_profile_means_what_libseccomp_makes_of_it() {
    let Some(profile) = podman() else {
        eprintln!("skipped: podman's default profile is not installed");
        return;
    };
    let count = compare_all(&profile, &mut Random(1)).unwrap();
    assert!(count > 15_000, "{count}");
    let ours = compile(&profile).unwrap().unwrap();
    let theirs = reference::export(&reference::context(&profile, 1).unwrap());
    eprintln!("{} instructions, libseccomp {}", ours.program.len(), theirs.len());
}

const NAMES: &[&str] = &[
    "read", "write", "openat", "clone", "ioctl", "personality", "statx", "exit_group", "rt_sigreturn", "restart_syscall",
    "socket", "socketcall", "accept", "sendmmsg", "ipc", "semget", "semtimedop", "shmctl", "io_pgetevents",
    "arm_fadvise64_64", "s390_runtime_instr", "no_such_call",
];
const VALUES: &[u64] = &[
    0, 1, 2, 5, 7, 0xff, 0x0e02_0000, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff, 1 << 32, (1 << 32) + 5, (7 << 32) + 2,
    1 << 63, u64::MAX - 1, u64::MAX,
];
const ACTIONS: &[SeccompAction] = &[
    SeccompAction::Allow, SeccompAction::Errno, SeccompAction::Trap, SeccompAction::Log, SeccompAction::KillProcess,
    SeccompAction::Kill, SeccompAction::Trace,
];
const ARCHS: &[SeccompArch] = &[
    SeccompArch::Native, SeccompArch::X86_64, SeccompArch::X86, SeccompArch::X32, SeccompArch::Aarch64, SeccompArch::Arm,
    SeccompArch::Riscv64, SeccompArch::Mipsel, SeccompArch::Mipsel64, SeccompArch::Mipsel64n32, SeccompArch::Ppc64le,
];

/// A profile of random rules. `contrary`: rules of one call may have different actions.
fn random_profile(random: &mut Random, contrary: bool) -> Seccomp {
    let mut profile = Seccomp { default_action: Some(random.pick(ACTIONS)), ..Seccomp::default() };
    for _ in 0..random.below(4) {
        profile.architectures.push(random.pick(ARCHS));
    }
    let action = random.pick(ACTIONS);
    for _ in 0..random.below(12) {
        let mut call = rule(&[random.pick(NAMES)], if contrary { random.pick(ACTIONS) } else { action });
        if contrary && call.action == Some(SeccompAction::Errno) {
            call.errno_ret = Some(random.below(3) as u32 + 1);
        }
        for _ in 0..random.pick(&[0, 1, 1, 1, 2, 2, 3]) {
            call.args.push(arg(random.below(3) as u32, random.pick(SeccompOp::ALL), random.pick(VALUES), random.pick(VALUES)));
        }
        profile.syscalls.push(call);
    }
    profile
}

#[test]
fn random_profiles_mean_what_libseccomp_makes_of_them() {
    let n: u64 = std::env::var("N").map_or(300, |n| n.parse().unwrap());
    let mut bad = 0;
    for contrary in [false, true] {
    for seed in 1..=n {
        let mut random = Random(seed);
        let profile = random_profile(&mut random, contrary);
        if let Err(e) = compare_all(&profile, &mut random) {
            bad += 1;
            if bad < 8 { eprintln!("contrary {contrary} seed {seed}: {e}\n{}", serde_json::to_string(&profile).unwrap()); }
        }
    }
    eprintln!("contrary {contrary}: bad {bad}");
    }
}
