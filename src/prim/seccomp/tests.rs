//! What the filters mean, measured against libseccomp's.

mod bpf;
mod names;
mod reference;
mod validation;

use super::*;
use crate::spec::{SeccompArg, SeccompOp, Syscall};
use reference::{Random, Tally, compare_all};

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

/// A profile like the engines' default ones: 491 names in 20 entries, for three architectures.
fn typical() -> Seccomp {
    serde_json::from_str(include_str!("testdata/profile.json")).unwrap()
}

#[test]
fn default_profiles_mean_what_libseccomp_makes_of_them() {
    let podman = podman();
    if podman.is_none() {
        eprintln!("skipped: podman's default profile is not installed");
    }
    for profile in podman.into_iter().chain([typical()]) {
        let mut tally = Tally::default();
        compare_all(&profile, &mut Random(1), true, &mut tally);
        assert_eq!((tally.contradictory, tally.refused), (0, 0), "{tally:?}");
        assert!(tally.compared > 10_000, "{tally:?}");
        let ours = compile(&profile).unwrap().unwrap();
        assert!(ours.program.len() < 350, "{} instructions", ours.program.len());
    }
}

#[test]
fn a_tree_is_as_deep_as_its_ranges_need() {
    let program = compile(&typical()).unwrap().unwrap().program;
    let steps = |nr| bpf::run(&program, &bpf::Data { nr, arch: 0xc000_003e, args: [0; 6] }).1;
    // Two loads, the architecture, the return, and a comparison per halving of some 130 ranges.
    let deepest = (0..470).map(steps).max().unwrap();
    assert!(deepest <= 20, "{deepest}");
}

const NAMES: &[&str] = &[
    "read",
    "write",
    "openat",
    "clone",
    "ioctl",
    "personality",
    "statx",
    "exit_group",
    "rt_sigreturn",
    "restart_syscall",
    "socket",
    "socketcall",
    "accept",
    "sendmmsg",
    "ipc",
    "semget",
    "semtimedop",
    "shmctl",
    "io_pgetevents",
    "arm_fadvise64_64",
    "s390_runtime_instr",
    "no_such_call",
];
const VALUES: &[u64] = &[
    0,
    1,
    2,
    5,
    7,
    0xff,
    0x0e02_0000,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    1 << 32,
    (1 << 32) + 5,
    (7 << 32) + 2,
    1 << 63,
    u64::MAX - 1,
    u64::MAX,
];
const ACTIONS: &[SeccompAction] = &[
    SeccompAction::Allow,
    SeccompAction::Errno,
    SeccompAction::Trap,
    SeccompAction::Log,
    SeccompAction::KillProcess,
    SeccompAction::Kill,
    SeccompAction::Trace,
];
const ARCHS: &[SeccompArch] = &[
    SeccompArch::Native,
    SeccompArch::X86_64,
    SeccompArch::X86,
    SeccompArch::X32,
    SeccompArch::Aarch64,
    SeccompArch::Arm,
    SeccompArch::Riscv64,
    SeccompArch::Mipsel,
    SeccompArch::Mipsel64,
    SeccompArch::Mipsel64n32,
    SeccompArch::Ppc64le,
];

/// How the rules of a random profile may be related.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    /// One rule per call, one architecture.
    Plain,
    /// Several rules for a call, of the same action.
    Agreeing,
    /// Rules of one call may have different actions.
    Contrary,
}

fn random_profile(random: &mut Random, kind: Kind) -> Seccomp {
    let mut profile = Seccomp { default_action: Some(random.pick(ACTIONS)), ..Seccomp::default() };
    if kind != Kind::Plain {
        profile.architectures = (0..random.below(4)).map(|_| random.pick(ARCHS)).collect();
    }
    let action = random.pick(ACTIONS);
    for _ in 0..random.below(12) {
        let mut call = rule(&[random.pick(NAMES)], if kind == Kind::Agreeing { action } else { random.pick(ACTIONS) });
        if call.action == Some(SeccompAction::Errno) && kind != Kind::Agreeing {
            call.errno_ret = Some(random.below(3) as u32 + 1);
        }
        for _ in 0..random.pick(&[0, 1, 1, 1, 2, 2, 3]) {
            let op = random.pick(SeccompOp::ALL);
            call.args.push(arg(random.below(3) as u32, op, random.pick(VALUES), random.pick(VALUES)));
        }
        if kind == Kind::Plain {
            call.args.sort_by_key(|arg| arg.index);
            call.args.dedup_by_key(|arg| arg.index);
            if profile.syscalls.iter().any(|earlier| earlier.names == call.names) {
                continue;
            }
        }
        profile.syscalls.push(call);
    }
    profile
}

fn compare_random(kind: Kind) -> Tally {
    let mut tally = Tally::default();
    for seed in 1..=300 {
        let mut random = Random(seed);
        compare_all(&random_profile(&mut random, kind), &mut random, kind == Kind::Plain, &mut tally);
    }
    tally
}

#[test]
fn plain_rules_mean_what_libseccomp_makes_of_them() {
    let tally = compare_random(Kind::Plain);
    assert_eq!((tally.contradictory, tally.refused), (0, 0), "{tally:?}");
    assert!(tally.compared > 1_000_000, "{tally:?}");
}

#[test]
fn several_rules_for_a_call_are_alternatives() {
    let tally = compare_random(Kind::Agreeing);
    assert_eq!((tally.contradictory, tally.refused), (0, 0), "{tally:?}");
    assert!(tally.compared > 1_000_000, "{tally:?}");
}

#[test]
fn contradictory_rules_do_what_one_of_them_says() {
    let tally = compare_random(Kind::Contrary);
    assert!(tally.contradictory > 1000 && tally.refused < 10, "{tally:?}");
}

/// Calls with conditions of their own, so many that jumps to the returns and between the subtrees are far.
fn far(calls: u32, actions: &[SeccompAction]) -> Seccomp {
    let names = (0..).filter_map(|nr| libseccomp::ScmpSyscall::from(nr).get_name().ok()).take(calls as usize);
    let conditional = |(n, name): (usize, String)| {
        let mut call = rule(&[&name], actions[n % actions.len()]);
        call.args =
            vec![arg(n as u32 % 6, SeccompOp::Gt, (n as u64) << 30, 0), arg((n as u32 + 1) % 6, SeccompOp::Ne, 5, 0)];
        call
    };
    let syscalls = names.enumerate().map(conditional).collect();
    Seccomp { default_action: Some(SeccompAction::Allow), syscalls, ..Seccomp::default() }
}

#[test]
fn far_jumps_arrive() {
    let profile = far(280, &ACTIONS[1..]);
    let mut tally = Tally::default();
    compare_all(&profile, &mut Random(1), true, &mut tally);
    assert_eq!((tally.contradictory, tally.refused), (0, 0), "{tally:?}");
    let program = compile(&profile).unwrap().unwrap().program;
    assert!(program.iter().any(|insn| insn.code == 0x05), "no far jump in {} instructions", program.len());
    // All the distances around the 255 that a conditional jump reaches.
    for (calls, actions) in (1..320).flat_map(|calls| (2..7).map(move |actions| (calls, &ACTIONS[1..actions]))) {
        bpf::check(&compile(&far(calls, actions)).unwrap().unwrap().program);
    }
}

#[test]
fn a_profile_too_large_for_the_kernel_is_refused() {
    let mut profile = far(300, &ACTIONS[1..]);
    profile.architectures = vec![SeccompArch::Aarch64, SeccompArch::Riscv64, SeccompArch::X32];
    let problems = compile(&profile).unwrap_err();
    assert_eq!(problems[0].pointer, "/linux/seccomp/syscalls");
    assert!(problems[0].what.contains("the kernel takes 4096"), "{problems:?}");
}

#[test]
fn the_kernel_takes_the_programs() {
    for profile in [typical(), far(280, &[SeccompAction::Log])] {
        let filter = compile(&profile).unwrap().unwrap();
        // The filter is the thread's alone and goes with it.
        match std::thread::spawn(move || sys::seccomp::load(&filter.program, filter.flags)).join().unwrap() {
            Err(sys::Errno::EACCES) => eprintln!("skipped: loading a filter needs CAP_SYS_ADMIN"),
            loaded => assert!(loaded.unwrap().is_none()),
        }
    }
}

/// Median of repeated timings in microseconds.
fn median(mut timings: Vec<f64>) -> f64 {
    timings.sort_by(f64::total_cmp);
    timings[timings.len() / 2]
}

fn timed(work: impl FnOnce()) -> f64 {
    let start = std::time::Instant::now();
    work();
    start.elapsed().as_secs_f64() * 1e6
}

#[test]
#[ignore = "prints timings; run alone, with --release"]
fn timings() {
    let profile = podman().unwrap_or_else(typical);
    let linear = reference::export(&reference::context(&profile, 1).unwrap());
    let tree = reference::export(&reference::context(&profile, 2).unwrap());
    let ours = compile(&profile).unwrap().unwrap().program;
    let compiling = |optimize| {
        median(
            (0..15)
                .map(|_| timed(|| drop(reference::export(&reference::context(&profile, optimize).unwrap()))))
                .collect(),
        )
    };
    let compile = median((0..101).map(|_| timed(|| drop(compile(&profile)))).collect());
    eprintln!("compile: libseccomp linear {:.0} us, tree {:.0}, ours {compile:.0}", compiling(1), compiling(2));
    let programs = [("linear", linear), ("tree", tree), ("ours", ours)];
    let mut loads = [const { Vec::new() }; 3];
    for _ in 0..60 {
        for (times, (_, program)) in loads.iter_mut().zip(&programs) {
            let program = program.clone();
            let load =
                move || timed(|| drop(sys::seccomp::load(&program, libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW).unwrap()));
            times.push(std::thread::spawn(load).join().unwrap());
        }
    }
    for (times, (name, program)) in loads.into_iter().zip(&programs) {
        let steps = |nrs: std::ops::Range<u32>| {
            nrs.map(|nr| bpf::run(program, &bpf::Data { nr, arch: 0xc000_003e, args: [0; 6] }).1).sum::<usize>()
        };
        eprintln!(
            "{name}: {} instructions, load {:.0} us, {} steps for 470 calls",
            program.len(),
            median(times),
            steps(0..470)
        );
    }
}
