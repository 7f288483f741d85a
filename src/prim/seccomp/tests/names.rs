//! The table of architectures, line by line against libseccomp.

use super::reference::{export, scmp};
use crate::prim::seccomp::arch::{Arch, Call, NATIVE, X32_BIT};
use crate::prim::seccomp::architectures;
use libseccomp::{ScmpAction, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall};
use std::collections::BTreeMap;

#[test]
fn the_audit_values_and_widths_are_libseccomps() {
    for name in architectures() {
        let arch = Arch::named(name);
        let mut ctx = ScmpFilterContext::new(ScmpAction::Allow).unwrap();
        if name != NATIVE {
            ctx.remove_arch(scmp(NATIVE)).unwrap();
            ctx.add_arch(scmp(name)).unwrap();
        }
        let read = ScmpSyscall::from_name("read").unwrap();
        ctx.add_rule_conditional(ScmpAction::Trap, read, &[ScmpArgCompare::new(1, ScmpCompareOp::Equal, 5)]).unwrap();
        let mut program = export(&ctx);
        if arch.big != cfg!(target_endian = "big") {
            for insn in &mut program {
                (insn.code, insn.k) = (insn.code.swap_bytes(), insn.k.swap_bytes());
            }
        }
        let mut loads: Vec<u32> =
            program.iter().filter(|insn| insn.code == 0x20 && insn.k >= 16).map(|insn| insn.k).collect();
        loads.sort_unstable();
        let low = if arch.big { 28 } else { 24 };
        assert_eq!(loads, if arch.wide { vec![24, 28] } else { vec![low] }, "{name:?}");
        assert_eq!(program[1].k, arch.audit, "{name:?}");
    }
}

/// The number that a name has by itself on an architecture. They begin at 4000 to 6000 on mips, at a bit on x32; where
/// libseccomp takes a number with and without that, the greater one is right.
fn numbers(arch: libseccomp::ScmpArch) -> BTreeMap<String, u32> {
    let named = |nr: u32| Some((ScmpSyscall::from(nr as i32).get_name_by_arch(arch).ok()?, nr));
    [0, 4000, 5000, 6000, X32_BIT].into_iter().flat_map(|base| (base..base + 520).filter_map(named)).collect()
}

#[test]
fn every_name_has_libseccomps_number() {
    // Names of other architectures have negative numbers here.
    let pseudo = |nr: i32| ScmpSyscall::from(nr).get_name_by_arch(scmp(NATIVE)).ok();
    let mut names: Vec<String> = (-11_000..-99).filter_map(pseudo).collect();
    names.extend(numbers(scmp(NATIVE)).into_keys());
    assert!(names.len() > 450, "{}", names.len());
    let mut subs = 0;
    for name in architectures() {
        let arch = Arch::named(name);
        let known = numbers(scmp(name));
        for call in &names {
            let rewritten =
                ScmpSyscall::from_name_by_arch_rewrite(call, scmp(name)).ok().map(ScmpSyscall::as_raw_syscall);
            match arch.resolve(call) {
                Some(Call::Number(number)) => assert_eq!(Some(number as i32), rewritten, "{call} on {name:?}"),
                Some(Call::Sub { number, mux, sub }) => {
                    subs += 1;
                    assert_eq!(Some(mux as i32), rewritten, "{call} on {name:?}");
                    assert_eq!(number, known.get(call).copied(), "{call} on {name:?}");
                    let pseudo = ScmpSyscall::from_name_by_arch(call, scmp(name)).unwrap().as_raw_syscall();
                    assert_eq!(sub as i32, -pseudo % 100, "{call} on {name:?}");
                }
                None => assert!(!known.contains_key(call), "{call} on {name:?}"),
            }
        }
    }
    assert!(subs >= 8 * 32, "{subs}");
}
