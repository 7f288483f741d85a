//! The same profile through libseccomp, as runc and crun do it, and the comparison of both programs.

use super::bpf::{self, Data};
use crate::prim::seccomp::arch::{Arch, Call, NATIVE, X32_BIT};
use crate::prim::seccomp::{Filter, compile};
use crate::spec::{Seccomp, SeccompAction, SeccompArch, SeccompOp};
use libc::sock_filter;
use libseccomp::error::SeccompError;
use libseccomp::{ScmpAction, ScmpArch, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

fn action(action: SeccompAction, errno: Option<u32>) -> ScmpAction {
    let errno = errno.unwrap_or(libc::EPERM as u32);
    match action {
        SeccompAction::Kill | SeccompAction::KillThread => ScmpAction::KillThread,
        SeccompAction::KillProcess => ScmpAction::KillProcess,
        SeccompAction::Trap => ScmpAction::Trap,
        SeccompAction::Errno => ScmpAction::Errno(errno as i32),
        SeccompAction::Trace => ScmpAction::Trace(errno as u16),
        SeccompAction::Allow => ScmpAction::Allow,
        SeccompAction::Log => ScmpAction::Log,
        SeccompAction::Notify => ScmpAction::Notify,
    }
}

fn compare(index: u32, op: SeccompOp, value: u64, two: u64) -> ScmpArgCompare {
    let (op, datum) = match op {
        SeccompOp::Ne => (ScmpCompareOp::NotEqual, value),
        SeccompOp::Lt => (ScmpCompareOp::Less, value),
        SeccompOp::Le => (ScmpCompareOp::LessOrEqual, value),
        SeccompOp::Eq => (ScmpCompareOp::Equal, value),
        SeccompOp::Ge => (ScmpCompareOp::GreaterEqual, value),
        SeccompOp::Gt => (ScmpCompareOp::Greater, value),
        SeccompOp::MaskedEq => (ScmpCompareOp::MaskedEqual(value), two),
    };
    ScmpArgCompare::new(index, op, datum)
}

pub fn scmp(name: SeccompArch) -> ScmpArch {
    name.word().parse().unwrap()
}

/// A filter built by libseccomp; `optimize` is its CTL_OPTIMIZE attribute (1 linear, 2 tree).
pub fn context(seccomp: &Seccomp, optimize: u32) -> Result<ScmpFilterContext, SeccompError> {
    let default = action(seccomp.default_action.unwrap(), seccomp.default_errno_ret);
    let mut ctx = ScmpFilterContext::new(default)?;
    ctx.set_ctl_optimize(optimize)?;
    for &arch in &seccomp.architectures {
        ctx.add_arch(scmp(arch))?;
    }
    for call in &seccomp.syscalls {
        let action = action(call.action.unwrap(), call.errno_ret);
        if action == default {
            continue;
        }
        let args: Vec<_> =
            call.args.iter().map(|arg| compare(arg.index, arg.op.unwrap(), arg.value, arg.value_two)).collect();
        let mut indices: Vec<_> = call.args.iter().map(|arg| arg.index).collect();
        indices.sort_unstable();
        let twice = indices.windows(2).any(|pair| pair[0] == pair[1]);
        for name in &call.names {
            let Ok(number) = ScmpSyscall::from_name(name) else { continue };
            if twice {
                for arg in &args {
                    ctx.add_rule_conditional(action, number, &[*arg])?;
                }
            } else {
                ctx.add_rule_conditional(action, number, &args)?;
            }
        }
    }
    Ok(ctx)
}

pub fn export(ctx: &ScmpFilterContext) -> Vec<sock_filter> {
    let (mut from, to) = std::io::pipe().unwrap();
    ctx.export_bpf(&to).unwrap();
    drop(to);
    let mut bytes = Vec::new();
    from.read_to_end(&mut bytes).unwrap();
    let parse = |insn: &[u8]| sock_filter {
        code: u16::from_ne_bytes([insn[0], insn[1]]),
        jt: insn[2],
        jf: insn[3],
        k: u32::from_ne_bytes([insn[4], insn[5], insn[6], insn[7]]),
    };
    bytes.chunks_exact(8).map(parse).collect()
}

/// A small generator of pseudo-random numbers (xorshift64*), the same in every run.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.next() >> 33) as usize % n
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}

/// Values around everything that a profile compares with, for one argument: below, at and above; other high words;
/// single bits of masks changed.
fn around(seccomp: &Seccomp, index: u32) -> Vec<u64> {
    let mut values = BTreeSet::from([0, 1, u64::MAX, 1 << 31, u64::from(u32::MAX), 1 << 32, 1 << 63]);
    for arg in seccomp.syscalls.iter().flat_map(|call| &call.args).filter(|arg| arg.index == index) {
        for value in [arg.value, arg.value_two, arg.value & arg.value_two, !arg.value] {
            values.extend([value.wrapping_sub(1), value, value.wrapping_add(1), value << 32, value >> 32]);
            values.extend([
                value ^ (1 << 32),
                value ^ (1 << 63),
                value.wrapping_add(1 << 32),
                value.wrapping_sub(1 << 32),
            ]);
            values.extend([value & u64::from(u32::MAX), value | !u64::from(u32::MAX)]);
            values.extend(
                (0..64)
                    .filter(|bit| arg.op == Some(SeccompOp::MaskedEq) && arg.value >> bit & 1 == 1)
                    .map(|bit| value ^ (1 << bit)),
            );
        }
    }
    values.into_iter().collect()
}

/// Numbers that a profile has conditions for, per architecture: they get many arguments.
fn conditional(seccomp: &Seccomp, arch: &Arch) -> BTreeSet<u32> {
    let names = seccomp.syscalls.iter().filter(|call| !call.args.is_empty()).flat_map(|call| &call.names);
    let numbers = names.filter_map(|name| arch.resolve(name)).flat_map(|call| match call {
        Call::Number(number) => vec![number],
        Call::Sub { number, mux, .. } => [Some(mux), number].into_iter().flatten().collect(),
    });
    numbers.collect()
}

/// The highest number that a listed architecture's names have: calls above it fail with ENOSYS, not with another errno.
fn newest(seccomp: &Seccomp) -> BTreeMap<SeccompArch, u32> {
    let mut newest = BTreeMap::new();
    if seccomp.default_action != Some(SeccompAction::Errno) {
        return newest;
    }
    for &name in &seccomp.architectures {
        let arch = Arch::named(name);
        for call in seccomp.syscalls.iter().flat_map(|call| &call.names).filter_map(|name| arch.resolve(name)) {
            let number = match call {
                Call::Number(number) => number,
                Call::Sub { number, mux, .. } => number.unwrap_or(0).max(mux),
            };
            let highest = newest.entry(arch.name).or_insert(0);
            *highest = number.max(*highest);
        }
    }
    newest
}

/// Every architecture of a filter, and one that is none.
fn audits(seccomp: &Seccomp) -> Vec<&'static Arch> {
    let mut archs = vec![Arch::named(NATIVE)];
    archs.extend(seccomp.architectures.iter().map(|&name| Arch::named(name)));
    archs.push(Arch::named(SeccompArch::Parisc));
    archs.dedup_by_key(|arch| arch.name);
    archs
}

/// Compares both programs over every number and around every value. Returns how many calls were compared.
pub fn compare_all(seccomp: &Seccomp, random: &mut Random) -> Result<usize, String> {
    let ours = compile(seccomp);
    let theirs = context(seccomp, 1);
    let (Filter { program, .. }, theirs) = match (ours, theirs) {
        (Ok(Some(ours)), Ok(theirs)) => (ours, export(&theirs)),
        (Err(_), Err(_)) => return Ok(0),
        (ours, theirs) => {
            return Err(format!("ours: {:?}, theirs: {:?}", ours.err(), theirs.err().map(|e| e.to_string())));
        }
    };
    bpf::check(&program);
    let values: Vec<Vec<u64>> = (0..6).map(|index| around(seccomp, index)).collect();
    let newest = newest(seccomp);
    let mut count = 0;
    for arch in audits(seccomp) {
        let conditional = conditional(seccomp, arch);
        let mut numbers: BTreeSet<u32> = (0..600).chain(X32_BIT..X32_BIT + 600).chain(4000..4500).collect();
        numbers.extend([X32_BIT - 1, 1 << 31, (1 << 31) - 1, (1 << 31) + 1, u32::MAX - 1, u32::MAX, 70000, 0xf0002]);
        for nr in numbers {
            for _ in 0..if conditional.contains(&nr) { 400 } else { 3 } {
                let args = std::array::from_fn(|n| random.pick(&values[n]));
                let data = Data { nr, arch: arch.audit, args };
                let (ours, _) = bpf::run(&program, &data);
                let (mut expected, _) = bpf::run(&theirs, &data);
                // The part of the number's range that this architecture has.
                let here = match (arch.name, nr & X32_BIT != 0 || nr >> 31 == 1) {
                    (SeccompArch::X86_64, x32) => !x32,
                    (SeccompArch::X32, x32) => x32,
                    _ => true,
                };
                if newest.get(&arch.name).is_some_and(|&newest| here && nr > newest && nr != u32::MAX) {
                    expected = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;
                } else if arch.name == SeccompArch::X86_64 && !here || arch.name == SeccompArch::X32 && !here {
                    // Compared under the name of the other.
                    continue;
                }
                if ours != expected {
                    let call = format!("{} {nr} {args:x?}", arch.name.word());
                    return Err(format!("{call}: ours {ours:#x}, libseccomp {expected:#x}"));
                }
                count += 1;
            }
        }
    }
    Ok(count)
}
