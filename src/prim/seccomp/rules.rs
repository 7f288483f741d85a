//! From `linux.seccomp` to a table per architecture: which ranges of call numbers have which outcome.

use super::arch::{self, Arch, Call, X32_BIT};
use crate::error::Problem;
use crate::spec::{Seccomp, SeccompAction, SeccompArch, SeccompOp, Syscall};
use std::cmp::{Ordering, Reverse};
use std::collections::BTreeSet;

/// The errno of ERRNO and TRACE when none is named, and of calls that are newer than the profile.
const EPERM: u32 = libc::EPERM as u32;
const ENOSYS: u32 = libc::ENOSYS as u32;
/// The kernel's MAX_ERRNO; it lowers anything above to this.
const MAX_ERRNO: u32 = 4095;
/// What happens on an architecture that the filter does not list.
const BAD_ARCH: u32 = libc::SECCOMP_RET_KILL_THREAD;

/// One condition: argument `arg` `op` `value`, under a mask for `MaskedEq` (all ones otherwise).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cond {
    pub arg: u8,
    pub op: SeccompOp,
    pub mask: u64,
    pub value: u64,
}

/// An action (a `SECCOMP_RET_*` value with its data) and the conditions that must all hold for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rule {
    pub conds: Vec<Cond>,
    pub action: u32,
}

/// What happens to a call.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// This return value.
    Return(u32),
    /// The first rule whose conditions hold, else the default action. Arguments have 64 bits if `wide`.
    Rules { rules: Vec<Rule>, wide: bool, big: bool },
}

/// The calls of one `seccomp_data.arch`.
#[derive(Debug)]
pub(super) struct Table {
    pub audit: u32,
    /// The first number of each range and the index of its outcome: ascending, neighbours differ, the first is 0.
    pub ranges: Vec<(u32, usize)>,
}

/// All that the layout needs.
#[derive(Debug)]
pub(super) struct Tables {
    /// One per architecture value, the native one first.
    pub tables: Vec<Table>,
    /// Every outcome once.
    pub outcomes: Vec<Outcome>,
    pub default: u32,
    pub bad_arch: u32,
    pub unknown: Vec<String>,
    pub notifies: bool,
}

/// One entry of `syscalls` after checking.
struct Entry<'a> {
    names: &'a [String],
    /// None when it is the default action anyway: such rules are left out, as runc and crun do.
    action: Option<u32>,
    /// Alternative lists of conditions.
    args: Vec<Vec<Cond>>,
}

/// Checks the section and compiles it to tables.
///
/// # Errors
/// Everything that is wrong with it, by pointer.
pub(super) fn tables(seccomp: &Seccomp) -> Result<Tables, Vec<Problem>> {
    let mut problems = Vec::new();
    let default = default_action(seccomp, &mut problems);
    let archs = architectures(seccomp, &mut problems);
    let entries: Vec<Entry> =
        seccomp.syscalls.iter().enumerate().map(|(i, call)| entry(i, call, default, &mut problems)).collect();
    let notifies = seccomp.syscalls.iter().any(|call| call.action == Some(SeccompAction::Notify));
    listener(seccomp, notifies, &mut problems);
    if !problems.is_empty() {
        return Err(problems);
    }

    let mut builder = Builder { entries: &entries, default, outcomes: Vec::new(), unknown: BTreeSet::new(), problems };
    let groups = archs.chunk_by(|(a, _), (b, _)| a.audit == b.audit);
    let tables = groups.map(|group| builder.table(group)).collect();
    let Builder { outcomes, unknown, problems, .. } = builder;
    let unknown = unknown.into_iter().collect();
    if problems.is_empty() {
        Ok(Tables { tables, outcomes, default, bad_arch: BAD_ARCH, unknown, notifies })
    } else {
        Err(problems)
    }
}

fn default_action(seccomp: &Seccomp, problems: &mut Vec<Problem>) -> u32 {
    let at = "/linux/seccomp/defaultAction";
    match seccomp.default_action {
        None => problems.push(Problem::new(at, "is missing: name the action for calls that no rule names")),
        Some(SeccompAction::Notify) => {
            problems.push(Problem::new(
                at,
                "SCMP_ACT_NOTIFY cannot be used as default action: the listener could not be handed over",
            ));
        }
        Some(action) => {
            let at = "/linux/seccomp/defaultErrnoRet";
            return self::action(action, seccomp.default_errno_ret, at, problems);
        }
    }
    BAD_ARCH
}

/// The kernel's value of an action, without data.
pub(super) fn action_value(action: SeccompAction) -> u32 {
    match action {
        SeccompAction::Kill | SeccompAction::KillThread => libc::SECCOMP_RET_KILL_THREAD,
        SeccompAction::KillProcess => libc::SECCOMP_RET_KILL_PROCESS,
        SeccompAction::Trap => libc::SECCOMP_RET_TRAP,
        SeccompAction::Errno => libc::SECCOMP_RET_ERRNO,
        SeccompAction::Trace => libc::SECCOMP_RET_TRACE,
        SeccompAction::Allow => libc::SECCOMP_RET_ALLOW,
        SeccompAction::Log => libc::SECCOMP_RET_LOG,
        SeccompAction::Notify => libc::SECCOMP_RET_USER_NOTIF,
    }
}

/// The kernel's value of an action with its errno, whose pointer is `at`.
fn action(action: SeccompAction, errno: Option<u32>, at: &str, problems: &mut Vec<Problem>) -> u32 {
    let max = match action {
        SeccompAction::Errno => MAX_ERRNO,
        SeccompAction::Trace => libc::SECCOMP_RET_DATA,
        _ => {
            if errno.is_some() {
                let what = format!("{} returns no errno: only SCMP_ACT_ERRNO and SCMP_ACT_TRACE do", action.word());
                problems.push(Problem::new(at, what));
            }
            return action_value(action);
        }
    };
    let errno = errno.unwrap_or(EPERM);
    if errno > max {
        problems.push(Problem::new(at, format!("{errno} is too large: at most {max}")));
    }
    action_value(action) | errno.min(max)
}

/// The architectures to filter, and whether the profile lists them: the native one always, those that share an audit
/// value next to each other.
fn architectures(seccomp: &Seccomp, problems: &mut Vec<Problem>) -> Vec<(&'static Arch, bool)> {
    let mut archs = vec![(Arch::named(arch::NATIVE), false)];
    for (i, &name) in seccomp.architectures.iter().enumerate() {
        let arch = Arch::named(name);
        let what = if !arch.known() {
            "is not known to the libseccomp that brig is linked with: leave it out"
        } else if arch.big != cfg!(target_endian = "big") {
            "cannot run here, it has the other byte order: leave it out"
        } else {
            match archs.iter_mut().find(|(other, _)| other.name == arch.name) {
                Some((_, listed)) => *listed = true,
                None => archs.push((arch, true)),
            }
            continue;
        };
        problems.push(Problem::new(format!("/linux/seccomp/architectures/{i}"), format!("{} {what}", name.word())));
    }
    archs[1..].sort_by_key(|(arch, _)| arch.audit);
    let native = archs[0].0.audit;
    archs.sort_by_key(|(arch, _)| arch.audit != native);
    archs
}

/// The rules about who hears of notifications.
fn listener(seccomp: &Seccomp, notifies: bool, problems: &mut Vec<Problem>) {
    let path = seccomp.listener_path.as_ref().filter(|path| !path.as_os_str().is_empty());
    if notifies && path.is_none() {
        problems.push(Problem::new(
            "/linux/seccomp/listenerPath",
            "is missing: a rule uses SCMP_ACT_NOTIFY, name the socket that its listener is sent to",
        ));
    } else if path.is_none() && seccomp.listener_metadata.as_ref().is_some_and(|text| !text.is_empty()) {
        problems.push(Problem::new("/linux/seccomp/listenerMetadata", "needs a listenerPath to be sent to"));
    }
}

fn entry<'a>(i: usize, call: &'a Syscall, default: u32, problems: &mut Vec<Problem>) -> Entry<'a> {
    let at = |rest: &str| format!("/linux/seccomp/syscalls/{i}{rest}");
    if call.names.is_empty() {
        problems.push(Problem::new(at("/names"), "names no call: name at least one"));
    }
    for (n, name) in call.names.iter().enumerate() {
        if name.is_empty() {
            problems.push(Problem::new(at(&format!("/names/{n}")), "is empty: name a call"));
        } else if name == "write" && call.action == Some(SeccompAction::Notify) {
            problems.push(Problem::new(
                at(&format!("/names/{n}")),
                "SCMP_ACT_NOTIFY cannot be used for the write syscall: the listener could not be handed over",
            ));
        }
    }
    let action = match call.action {
        Some(word) => Some(self::action(word, call.errno_ret, &at("/errnoRet"), problems)),
        None => {
            problems.push(Problem::new(at("/action"), "is missing: name the action of this rule"));
            None
        }
    };
    Entry { names: &call.names, action: action.filter(|&a| a != default), args: args(i, call, problems) }
}

/// The conditions of an entry. All must hold, unless two of them look at the same argument: then each is a rule of its
/// own (any may hold), which is how runc has read such entries from the start and crun after it.
fn args(i: usize, call: &Syscall, problems: &mut Vec<Problem>) -> Vec<Vec<Cond>> {
    let mut seen = [0u32; 6];
    let mut conds = Vec::new();
    for (n, arg) in call.args.iter().enumerate() {
        let at = |field: &str| format!("/linux/seccomp/syscalls/{i}/args/{n}/{field}");
        match seen.get_mut(arg.index as usize) {
            Some(count) => *count += 1,
            None => {
                let what = format!("{} is not an argument: a call has arguments 0 to 5", arg.index);
                problems.push(Problem::new(at("index"), what));
                continue;
            }
        }
        let Some(op) = arg.op else {
            problems.push(Problem::new(at("op"), "is missing: name the comparison"));
            continue;
        };
        let (mask, value) =
            if op == SeccompOp::MaskedEq { (arg.value, arg.value_two & arg.value) } else { (u64::MAX, arg.value) };
        conds.push(Cond { arg: arg.index as u8, op, mask, value });
    }
    if seen.iter().any(|&count| count > 1) {
        return conds.into_iter().map(|cond| vec![cond]).collect();
    }
    conds.sort_by_key(|cond| cond.arg);
    vec![conds]
}

/// A rule for one call number of one architecture, and where it came from.
struct Hit<'a> {
    number: u32,
    rule: Rule,
    entry: usize,
    name: &'a str,
}

struct Builder<'a> {
    entries: &'a [Entry<'a>],
    default: u32,
    outcomes: Vec<Outcome>,
    /// Names that libseccomp does not know.
    unknown: BTreeSet<String>,
    problems: Vec<Problem>,
}

impl<'a> Builder<'a> {
    /// The table of the architectures that share one audit value.
    fn table(&mut self, archs: &[(&Arch, bool)]) -> Table {
        let default = self.intern(Outcome::Return(self.default));
        let bad = self.intern(Outcome::Return(BAD_ARCH));
        let mut ranges = Ranges(Vec::new());
        // x86_64 and x32 are told apart by a bit of the number. Where only one of the two is filtered, the other is a
        // foreign architecture; but -1 is what a tracer sets to skip a call, and is nobody's.
        let find = |name| archs.iter().find(|(arch, _)| arch.name == name);
        match (find(SeccompArch::X86_64), find(SeccompArch::X32)) {
            (None, None) => self.arch(archs[0], 0, &mut ranges),
            (low, x32) => {
                match low {
                    Some(&low) => self.arch(low, 0, &mut ranges),
                    None => ranges.from(0, bad),
                }
                match x32 {
                    Some(&x32) => self.arch(x32, X32_BIT, &mut ranges),
                    None => ranges.from(X32_BIT, bad),
                }
            }
        }
        ranges.from(u32::MAX, default);
        Table { audit: archs[0].0.audit, ranges: ranges.0 }
    }

    /// Adds the calls of one architecture; what is left from `first` on is the default action's.
    fn arch(&mut self, (arch, listed): (&Arch, bool), first: u32, ranges: &mut Ranges) {
        let default = self.intern(Outcome::Return(self.default));
        let mut newest = None;
        let mut hits = self.hits(arch, &mut newest);
        hits.sort_by_key(|hit| hit.number);
        ranges.from(first, default);
        for hits in hits.chunk_by(|a, b| a.number == b.number) {
            let outcome = self.outcome(arch, hits);
            ranges.from(hits[0].number, outcome);
            ranges.from(hits[0].number + 1, default);
        }
        // Calls that are newer than the profile, as far as can be told: above all that it names. runc lets them fail
        // with ENOSYS where the profile says EPERM, because C libraries fall back to an older call on ENOSYS only, and
        // Docker's profile counts on that; it does so for listed architectures. Where the default is to kill or trap,
        // it stays what the profile says.
        let action = self.default & libc::SECCOMP_RET_ACTION_FULL;
        if let (Some(newest), true, libc::SECCOMP_RET_ERRNO) = (newest, listed, action) {
            let enosys = self.intern(Outcome::Return(libc::SECCOMP_RET_ERRNO | ENOSYS));
            ranges.from(newest + 1, enosys);
        }
    }

    /// The rules that apply on one architecture, in the profile's order, and the highest number that it names.
    fn hits(&mut self, arch: &Arch, newest: &mut Option<u32>) -> Vec<Hit<'a>> {
        let mut hits = Vec::with_capacity(512);
        for (i, entry) in self.entries.iter().enumerate() {
            let args: Vec<Vec<Cond>> = entry.args.iter().map(|conds| narrowed(conds, arch.wide)).collect();
            for name in entry.names {
                let mut add = |number: u32, conds: &[Cond]| {
                    *newest = (*newest).max(Some(number));
                    if let Some(action) = entry.action {
                        hits.push(Hit { number, rule: Rule { conds: conds.to_vec(), action }, entry: i, name });
                    }
                };
                match arch.resolve(name) {
                    None if arch.name == arch::NATIVE => self.unknown(name),
                    None => {}
                    Some(Call::Number(number)) => args.iter().for_each(|conds| add(number, conds)),
                    Some(Call::Sub { number, mux, sub }) => {
                        for conds in &args {
                            add(mux, &with_sub_call(conds, sub, arch.wide));
                            if let Some(number) = number {
                                add(number, conds);
                            }
                        }
                    }
                }
            }
        }
        hits
    }

    /// Takes note of a name if libseccomp knows it on no architecture.
    fn unknown(&mut self, name: &str) {
        if !arch::name_known(name) {
            self.unknown.insert(name.to_owned());
        }
    }

    /// What the rules for one call come to. As with libseccomp, the first rule without conditions decides alone, and
    /// rules that contradict each other are refused.
    fn outcome(&mut self, arch: &Arch, hits: &[Hit]) -> usize {
        let mut rules: Vec<(&Rule, usize)> = Vec::new();
        for hit in hits {
            if hit.rule.conds.is_empty() {
                return self.intern(Outcome::Return(hit.rule.action));
            }
            let redundant = rules.iter().any(|(earlier, _)| hit.rule.conds.starts_with(&earlier.conds));
            let contradicts = |(earlier, _): &&(&Rule, usize)| {
                earlier.action != hit.rule.action && earlier.conds.starts_with(&hit.rule.conds)
            };
            if let Some(&(_, earlier)) = rules.iter().find(contradicts) {
                self.contradiction(hit, earlier, arch);
            }
            if !redundant {
                rules.push((&hit.rule, hit.entry));
            }
        }
        rules.sort_by(|(a, _), (b, _)| precedence(a, b));
        let rules = rules.into_iter().map(|(rule, _)| rule.clone()).collect();
        self.intern(Outcome::Rules { rules, wide: arch.wide, big: arch.big })
    }

    /// Reports a rule with another action than an earlier one for the same calls, once.
    fn contradiction(&mut self, hit: &Hit, earlier: usize, arch: &Arch) {
        let at = format!("/linux/seccomp/syscalls/{}", hit.entry);
        if self.problems.iter().all(|problem| problem.pointer != at) {
            let (name, arch) = (hit.name, arch.name.word());
            let what = format!(
                "gives {name} another action than /linux/seccomp/syscalls/{earlier} does under the same conditions (on \
                 {arch}): keep one of the two"
            );
            self.problems.push(Problem::new(at, what));
        }
    }

    fn intern(&mut self, outcome: Outcome) -> usize {
        match self.outcomes.iter().position(|known| *known == outcome) {
            Some(index) => index,
            None => {
                self.outcomes.push(outcome);
                self.outcomes.len() - 1
            }
        }
    }
}

/// Ranges of call numbers under construction, in ascending order.
struct Ranges(Vec<(u32, usize)>);

impl Ranges {
    /// From this number on, until a later call says otherwise, there is this outcome.
    fn from(&mut self, first: u32, outcome: usize) {
        self.0.pop_if(|(last, _)| *last >= first);
        if self.0.last().is_none_or(|&(_, last)| last != outcome) {
            self.0.push((first, outcome));
        }
    }
}

/// The conditions as an architecture can check them: where arguments have 32 bits, only the low word of the profile's
/// values counts (so that -1 in 64 bits matches -1 in 32), and a mask of nothing asks for nothing.
fn narrowed(conds: &[Cond], wide: bool) -> Vec<Cond> {
    let word = if wide { u64::MAX } else { u64::from(u32::MAX) };
    let narrow = |cond: &Cond| Cond { mask: cond.mask & word, value: cond.value & word, ..*cond };
    conds.iter().map(narrow).filter(|cond| cond.mask != 0).collect()
}

/// The conditions inside a multiplexer. Its first argument is the sub-call; the others' conditions stay, although the
/// sub-call's arguments are behind a pointer: that is what libseccomp makes of such a rule.
fn with_sub_call(conds: &[Cond], sub: u32, wide: bool) -> Vec<Cond> {
    let first = Cond { arg: 0, op: SeccompOp::Eq, mask: u64::MAX, value: u64::from(sub) };
    let rest = conds.iter().filter(|cond| cond.arg != 0).copied();
    narrowed(&std::iter::once(first).chain(rest).collect::<Vec<_>>(), wide)
}

/// Which of several rules is asked first. The spec gives no order; libseccomp's is by the conditions, not by the order
/// of the profile: later arguments first, then equalities, upper bounds (the lowest first), lower bounds (the highest
/// first), so that of two nested ranges the narrower one wins.
fn precedence(a: &Rule, b: &Rule) -> Ordering {
    let class = |op| match op {
        SeccompOp::Eq | SeccompOp::Ne | SeccompOp::MaskedEq => 0,
        SeccompOp::Lt | SeccompOp::Le => 1,
        SeccompOp::Gt | SeccompOp::Ge => 2,
    };
    let key = |cond: &Cond| {
        let value = if class(cond.op) == 1 { cond.value } else { u64::MAX - cond.value };
        (Reverse(cond.arg), class(cond.op), value)
    };
    let firsts = a.conds.iter().zip(&b.conds).map(|(a, b)| key(a).cmp(&key(b)));
    firsts.fold(Ordering::Equal, Ordering::then).then(a.conds.len().cmp(&b.conds.len()))
}
