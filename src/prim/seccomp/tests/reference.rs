//! The same profile through libseccomp, as runc and crun do it, and the comparison of both programs.

use super::bpf::{self, Data};
use crate::prim::seccomp::arch::{Arch, Call, NATIVE, X32_BIT};
use crate::prim::seccomp::compile;
use crate::spec::{Seccomp, SeccompAction, SeccompArch, SeccompArg, SeccompOp};
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

/// The program that libseccomp makes of it, through a pipe (which takes 64 KiB, twice the largest program).
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

/// The value that a program returns for an action.
fn value(action: SeccompAction, errno: Option<u32>) -> u32 {
    let errno = errno.unwrap_or(libc::EPERM as u32);
    match action {
        SeccompAction::Errno => libc::SECCOMP_RET_ERRNO | errno,
        SeccompAction::Trace => libc::SECCOMP_RET_TRACE | errno,
        other => crate::prim::seccomp::rules::action_value(other),
    }
}

/// A profile on one architecture, read naively.
struct Reading {
    arch: &'static Arch,
    default: u32,
    /// Per number the rules that concern it: the action and what must hold.
    calls: BTreeMap<u32, Vec<(u32, Vec<SeccompArg>)>>,
    /// The highest number that the profile names, where calls above it fail with ENOSYS.
    newest: Option<u32>,
}

impl Reading {
    fn new(seccomp: &Seccomp, arch: &'static Arch) -> Reading {
        let default = value(seccomp.default_action.unwrap(), seccomp.default_errno_ret);
        let mut calls: BTreeMap<u32, Vec<_>> = BTreeMap::new();
        for call in &seccomp.syscalls {
            let action = value(call.action.unwrap(), call.errno_ret);
            let indices: BTreeSet<u32> = call.args.iter().map(|arg| arg.index).collect();
            let any = indices.len() < call.args.len();
            let rules: Vec<Vec<SeccompArg>> =
                if any { call.args.iter().map(|arg| vec![arg.clone()]).collect() } else { vec![call.args.clone()] };
            for found in call.names.iter().filter_map(|name| arch.resolve(name)) {
                let mut add = |number: u32, rules: Vec<Vec<SeccompArg>>| {
                    let here = calls.entry(number).or_default();
                    here.extend(rules.into_iter().filter(|_| action != default).map(|rule| (action, rule)));
                };
                match found {
                    Call::Number(number) => add(number, rules.clone()),
                    Call::Sub { number, mux, sub } => {
                        // What the multiplexer is asked for takes the place of conditions on its first argument.
                        let sub = SeccompArg { index: 0, value: sub.into(), value_two: 0, op: Some(SeccompOp::Eq) };
                        let mut rules_of_mux = rules.clone();
                        for rule in &mut rules_of_mux {
                            rule.retain(|arg| arg.index != 0);
                            rule.push(sub.clone());
                        }
                        add(mux, rules_of_mux);
                        if let Some(number) = number {
                            add(number, rules.clone());
                        }
                    }
                }
            }
        }
        let listed = seccomp.architectures.iter().any(|&name| Arch::named(name).name == arch.name);
        let denies = listed && seccomp.default_action == Some(SeccompAction::Errno);
        let newest = calls.keys().next_back().copied().filter(|_| denies);
        Reading { arch, default, calls, newest }
    }

    /// Whether a condition holds, as the spec and libseccomp have it: on low words where arguments have 32 bits. None
    /// if it asks for nothing.
    fn holds(&self, arg: &SeccompArg, args: &[u64; 6]) -> Option<bool> {
        let word = if self.arch.wide { u64::MAX } else { u64::from(u32::MAX) };
        let (seen, value, two) = (args[arg.index as usize] & word, arg.value & word, arg.value_two & word);
        Some(match arg.op.unwrap() {
            SeccompOp::Ne => seen != value,
            SeccompOp::Lt => seen < value,
            SeccompOp::Le => seen <= value,
            SeccompOp::Eq => seen == value,
            SeccompOp::Ge => seen >= value,
            SeccompOp::Gt => seen > value,
            SeccompOp::MaskedEq if value == 0 => return None,
            SeccompOp::MaskedEq => seen & value == two & value,
        })
    }

    /// The actions of the rules that match. Several: the rules contradict each other.
    fn actions(&self, nr: u32, args: &[u64; 6]) -> BTreeSet<u32> {
        let mut actions = BTreeSet::new();
        for (action, rule) in self.calls.get(&nr).into_iter().flatten() {
            let conds: Vec<bool> = rule.iter().filter_map(|arg| self.holds(arg, args)).collect();
            if conds.is_empty() {
                return BTreeSet::from([*action]);
            }
            if conds.iter().all(|&holds| holds) {
                actions.insert(*action);
            }
        }
        if actions.is_empty() {
            actions.insert(if self.newer(nr) { ENOSYS } else { self.default });
        }
        actions
    }

    /// Whether a call is newer than the profile, where that makes a difference.
    fn newer(&self, nr: u32) -> bool {
        nr != u32::MAX && self.newest.is_some_and(|newest| nr > newest)
    }
}

const ENOSYS: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;

/// What a comparison found.
#[derive(Debug, Default)]
pub struct Tally {
    /// Calls whose outcome was what the profile says.
    pub compared: usize,
    /// Among them those for which rules with different actions match.
    pub contradictory: usize,
    /// Profiles that were refused.
    pub refused: usize,
}

/// Compares our program with the profile as written, over every number and around every value; and with the program of
/// libseccomp, unless the profile is one that libseccomp 2.5.4 gets wrong. That is so where rules or architectures
/// share a part of its program: it may compare with what the accumulator no longer holds, extend the shared part for
/// one of them only, or never come to an end.
pub fn compare_all(seccomp: &Seccomp, random: &mut Random, with_libseccomp: bool, tally: &mut Tally) {
    let ours = match compile(seccomp) {
        Ok(filter) => filter.unwrap().program,
        Err(_) => {
            tally.refused += 1;
            return;
        }
    };
    bpf::check(&ours);
    let theirs = with_libseccomp.then(|| export(&context(seccomp, 1).unwrap()));
    let values: Vec<Vec<u64>> = (0..6).map(|index| around(seccomp, index)).collect();
    let mut archs = vec![Arch::named(NATIVE)];
    archs.extend(seccomp.architectures.iter().map(|&name| Arch::named(name)));
    let readings: Vec<Reading> = archs.iter().map(|arch| Reading::new(seccomp, arch)).collect();
    let foreign = [SeccompArch::X86_64, SeccompArch::Aarch64, SeccompArch::Parisc].map(Arch::named);
    for audit in archs.iter().chain(&foreign).map(|arch| arch.audit).collect::<BTreeSet<_>>() {
        let mut numbers: BTreeSet<u32> = (0..600).chain(X32_BIT..X32_BIT + 600).chain(4000..4450).collect();
        numbers.extend([X32_BIT - 1, 1 << 31, (1 << 31) - 1, (1 << 31) + 1, u32::MAX - 1, u32::MAX, 70000, 0xf0002]);
        for nr in numbers {
            // x86_64 and x32 have one value; which of them a call is of, its number says.
            let mut here = readings.iter().filter(|reading| reading.arch.audit == audit);
            let reading = if audit == Arch::named(SeccompArch::X32).audit {
                let x32 = nr >= X32_BIT && nr != u32::MAX;
                here.find(|reading| x32 == (reading.arch.name == SeccompArch::X32))
            } else {
                here.next()
            };
            let rules = reading.and_then(|reading| reading.calls.get(&nr)).map_or(0, |rules| rules.len());
            for _ in 0..if rules > 0 { 200 } else { 2 } {
                let data = Data { nr, arch: audit, args: std::array::from_fn(|n| random.pick(&values[n])) };
                let actions = match reading {
                    Some(reading) => reading.actions(nr, &data.args),
                    None => BTreeSet::from([libc::SECCOMP_RET_KILL_THREAD]),
                };
                let ours = bpf::run(&ours, &data).0;
                let theirs = theirs.as_ref().map(|theirs| bpf::run(theirs, &data).0);
                let newer = reading.is_some_and(|reading| reading.newer(nr));
                if !actions.contains(&ours) || theirs.is_some_and(|theirs| theirs != ours && !newer) {
                    let profile = serde_json::to_string(seccomp).unwrap();
                    panic!("{data:x?}: ours {ours:#x}, libseccomp's {theirs:#x?}, in {actions:x?}\n{profile}");
                }
                tally.compared += 1;
                tally.contradictory += usize::from(actions.len() > 1);
            }
        }
    }
}
