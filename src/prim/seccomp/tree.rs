//! The layout of the program: per architecture a balanced tree of comparisons over ranges of call numbers.
//!
//! The kernel walks a new filter once per call number to learn which calls it always allows (Linux 5.11), and at run
//! time for each call that it does not; so depth is what costs, both when loading and in the container's life.
//! Classic BPF only jumps forwards, so the program is built from its end: whatever a jump leads to is there already.
//! Conditional jumps reach 255 instructions; beyond that a return is repeated, and anything else reached through `ja`.

use super::rules::{Cond, Outcome, Rule, Table, Tables};
use crate::spec::SeccompOp;

const LOAD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
const AND: u32 = libc::BPF_ALU | libc::BPF_AND | libc::BPF_K;
const JUMP: u32 = libc::BPF_JMP | libc::BPF_JA;
const JEQ: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
const JGT: u32 = libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K;
const JGE: u32 = libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K;
const JSET: u32 = libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K;
const RETURN: u32 = libc::BPF_RET | libc::BPF_K;

/// Offsets in `seccomp_data`.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const ARGS: u32 = 16;

/// Where to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Goto {
    /// This return value.
    Return(u32),
    /// An instruction, counted from the end of the program.
    At(usize),
}

/// Lays out the program.
pub(super) fn program(tables: &Tables) -> Vec<libc::sock_filter> {
    let mut asm = Assembler { code: Vec::with_capacity(512), returns: Vec::new(), blocks: Vec::new(), tables };
    asm.blocks.resize(tables.outcomes.len(), None);
    // The native architecture comes last here, first in the program, so that what it uses is near.
    let entries: Vec<(u32, Goto)> = tables.tables.iter().rev().map(|table| (table.audit, asm.table(table))).collect();
    let mut next = Goto::Return(tables.bad_arch);
    for (audit, entry) in entries {
        next = asm.branch(JEQ, audit, entry, next);
    }
    match next {
        Goto::At(_) => asm.load(ARCH),
        Goto::Return(value) => asm.push(RETURN, value, 0, 0),
    };
    asm.code.reverse();
    asm.code
}

/// The program from its end.
struct Assembler<'a> {
    code: Vec<libc::sock_filter>,
    /// The latest instruction that returns a value.
    returns: Vec<(u32, usize)>,
    /// Where an outcome's rules begin, once they are there.
    blocks: Vec<Option<usize>>,
    tables: &'a Tables,
}

impl Assembler<'_> {
    fn push(&mut self, code: u32, k: u32, jt: u8, jf: u8) -> Goto {
        self.code.push(libc::sock_filter { code: code as u16, jt, jf, k });
        Goto::At(self.code.len() - 1)
    }

    fn load(&mut self, offset: u32) -> Goto {
        self.push(LOAD, offset, 0, 0)
    }

    /// The distance from the instruction to be pushed next to one that is there.
    fn distance(&self, at: usize) -> usize {
        self.code.len() - 1 - at
    }

    /// Makes sure that a jump reaches, also if `more` further instructions are pushed before it is.
    fn reach(&mut self, to: Goto, more: usize) -> usize {
        let at = match to {
            Goto::At(at) => Some(at),
            Goto::Return(value) => self.returns.iter().find(|(known, _)| *known == value).map(|&(_, at)| at),
        };
        match (at, to) {
            (Some(at), _) if self.distance(at) + more <= usize::from(u8::MAX) => return at,
            (_, Goto::At(at)) => self.push(JUMP, self.distance(at) as u32, 0, 0),
            (_, Goto::Return(value)) => {
                self.returns.retain(|(known, _)| *known != value);
                self.returns.push((value, self.code.len()));
                self.push(RETURN, value, 0, 0)
            }
        };
        self.code.len() - 1
    }

    /// A conditional jump; none where both ways are the same.
    fn branch(&mut self, op: u32, k: u32, yes: Goto, no: Goto) -> Goto {
        if yes == no {
            return yes;
        }
        let yes = self.reach(yes, 1);
        let no = self.reach(no, 0);
        // A jump that wrapped would be a hole in the filter: rather no filter at all.
        let short = |distance| u8::try_from(distance).expect("reach() brings jumps into reach");
        self.push(op, k, short(self.distance(yes)), short(self.distance(no)))
    }

    fn table(&mut self, table: &Table) -> Goto {
        match self.tree(&table.ranges) {
            Goto::At(at) if self.distance(at) == 0 => self.load(NUMBER),
            only => only,
        }
    }

    /// The tree over some ranges: comparisons of the number in the accumulator.
    fn tree(&mut self, ranges: &[(u32, usize)]) -> Goto {
        match ranges {
            [(_, only)] => self.outcome(*only),
            // A lone number amid a range: one comparison instead of two.
            [(_, around), (lone, inner), (after, same)] if around == same && *lone + 1 == *after => {
                let (inner, around) = (self.outcome(*inner), self.outcome(*around));
                self.branch(JEQ, *lone, inner, around)
            }
            _ => {
                let (low, high) = ranges.split_at(ranges.len() / 2);
                let first = high[0].0;
                let (high, low) = (self.tree(high), self.tree(low));
                self.branch(JGE, first, high, low)
            }
        }
    }

    fn outcome(&mut self, index: usize) -> Goto {
        match &self.tables.outcomes[index] {
            Outcome::Return(value) => Goto::Return(*value),
            Outcome::Rules { rules, wide, big } => match self.blocks[index] {
                Some(at) => Goto::At(at),
                None => {
                    let entry = self.rules(rules, *wide, *big);
                    if let Goto::At(at) = entry {
                        self.blocks[index] = Some(at);
                    }
                    entry
                }
            },
        }
    }

    /// Rules in their order; where none holds, the default action.
    fn rules(&mut self, rules: &[Rule], wide: bool, big: bool) -> Goto {
        let mut next = Goto::Return(self.tables.default);
        // Equalities of one argument that agree in its high word share the look at it, and one load of its low word.
        let family = |rule: &Rule| match rule.conds[..] {
            [Cond { arg, op: SeccompOp::Eq, value, .. }] => Some((arg, value >> 32)),
            _ => None,
        };
        for rules in rules.chunk_by(|a, b| family(a).is_some() && family(a) == family(b)).rev() {
            if let (Some((arg, high)), 2..) = (family(&rules[0]), rules.len()) {
                let words = Words::new(arg, wide, big);
                let mut low = next;
                for rule in rules.iter().rev() {
                    low = self.branch(JEQ, rule.conds[0].value as u32, Goto::Return(rule.action), low);
                }
                let low = self.load(words.low);
                next = self.high(words, |asm| asm.branch(JEQ, high as u32, low, next)).unwrap_or(low);
                continue;
            }
            for rule in rules.iter().rev() {
                let mut holds = Goto::Return(rule.action);
                for cond in rule.conds.iter().rev() {
                    holds = self.cond(cond, Words::new(cond.arg, wide, big), holds, next);
                }
                next = holds;
            }
        }
        next
    }

    /// One condition. It ends with the load of the word that it begins with.
    fn cond(&mut self, cond: &Cond, words: Words, yes: Goto, no: Goto) -> Goto {
        if yes == no {
            return yes;
        }
        let (high, low) = ((cond.value >> 32) as u32, cond.value as u32);
        // Of the seven, four are the others turned round.
        let (op, yes, no) = match cond.op {
            SeccompOp::Ne => (SeccompOp::Eq, no, yes),
            SeccompOp::Lt => (SeccompOp::Ge, no, yes),
            SeccompOp::Le => (SeccompOp::Gt, no, yes),
            op => (op, yes, no),
        };
        match op {
            SeccompOp::Gt | SeccompOp::Ge => {
                self.branch(if op == SeccompOp::Gt { JGT } else { JGE }, low, yes, no);
                let low = self.load(words.low);
                self.high(words, |asm| {
                    if high == 0 {
                        return asm.branch(JEQ, 0, low, yes);
                    }
                    let equal = asm.branch(JEQ, high, low, no);
                    asm.branch(JGT, high, yes, equal)
                })
                .unwrap_or(low)
            }
            _ => {
                let low = self.masked(words.low, cond.mask as u32, low, yes, no);
                match words.high {
                    Some(offset) => self.masked(offset, (cond.mask >> 32) as u32, high, low, no),
                    None => low,
                }
            }
        }
    }

    /// Looks at the high word of an argument, where it has one.
    fn high(&mut self, words: Words, compare: impl FnOnce(&mut Self) -> Goto) -> Option<Goto> {
        let offset = words.high?;
        compare(self);
        Some(self.load(offset))
    }

    /// Whether a word under a mask has this value.
    fn masked(&mut self, offset: u32, mask: u32, value: u32, yes: Goto, no: Goto) -> Goto {
        match (mask, value) {
            (0, _) => return yes,
            (u32::MAX, _) => self.branch(JEQ, value, yes, no),
            (_, 0) => self.branch(JSET, mask, no, yes),
            _ => {
                self.branch(JEQ, value, yes, no);
                self.push(AND, mask, 0, 0)
            }
        };
        self.load(offset)
    }
}

/// The offsets of an argument's words.
#[derive(Clone, Copy)]
struct Words {
    high: Option<u32>,
    low: u32,
}

impl Words {
    fn new(arg: u8, wide: bool, big: bool) -> Words {
        let first = ARGS + 8 * u32::from(arg);
        let (high, low) = if big { (first, first + 4) } else { (first + 4, first) };
        Words { high: wide.then_some(high), low }
    }
}
