//! The device program of cgroup v2: device rules as eBPF, and its place on a cgroup.
//!
//! Each kind of access (read, write, mknod) is decided by the last rule that matches the device and that kind; what no rule
//! matches is denied. So rules are looked at from the last to the first: one that allows takes what it allows off the
//! request and ends when nothing is left; one that denies ends when it hits anything. The order among neighbours that all
//! allow, or all deny, means nothing, so they are sorted to compare type and major number once.

use super::devices::{Kind, Rule};
use crate::error::{Context, Error, Kind as Failure, Result};
use crate::sys::{Errno, bpf, sched};
use bpf::Instruction;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// By which brig's programs are known among those of systemd and others.
const NAME: &CStr = c"brig_devices";

const READ: i32 = 2;
const WRITE: i32 = 4;
const MKNOD: i32 = 1;
const ALL: i32 = READ | WRITE | MKNOD;

const BLOCK: i32 = 1;
const CHAR: i32 = 2;

// Registers: the result, the context, and what the context holds.
const RESULT: u8 = 0;
const CONTEXT: u8 = 1;
const TYPE: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

// Instruction codes: loads of 32 bits, 32-bit arithmetic and 32-bit jumps (Linux 5.1) with a constant.
const LOAD: u8 = 0x61;
const MOVE: u8 = 0xbc;
const SET: u8 = 0xb4;
const AND: u8 = 0x54;
const SHIFT_RIGHT: u8 = 0x74;
const JUMP: u8 = 0x05;
const JUMP_IF: u8 = 0x16;
const JUMP_UNLESS: u8 = 0x56;
const JUMP_IF_ANY: u8 = 0x46;
const EXIT: u8 = 0x95;

/// A compiled program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Program(pub Vec<Instruction>);

/// Where a jump leads, until the length of the program is known.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Label {
    Allow,
    Deny,
    /// The end of this many-th block.
    Block(usize),
}

#[derive(Default)]
struct Assembler {
    code: Vec<Instruction>,
    jumps: Vec<(usize, Label)>,
    /// Where each block ends.
    ends: Vec<usize>,
}

impl Assembler {
    fn put(&mut self, code: u8, target: u8, source: u8, offset: i16, immediate: i32) {
        self.code.push(Instruction::new(code, target, source, offset, immediate));
    }

    fn jump(&mut self, code: u8, register: u8, immediate: i32, to: Label) {
        self.jumps.push((self.code.len(), to));
        self.put(code, register, 0, 0, immediate);
    }

    /// Code that is left out unless `register` has this value; no condition without one.
    fn block(&mut self, register: u8, value: Option<i32>, inside: impl FnOnce(&mut Assembler)) {
        let Some(value) = value else { return inside(self) };
        let block = self.ends.len();
        self.ends.push(0);
        self.jump(JUMP_UNLESS, register, value, Label::Block(block));
        inside(self);
        self.ends[block] = self.code.len();
    }
}

/// Compiles rules to a program; `None` when everything is allowed.
///
/// # Errors
/// How many instructions it would have, when a jump can't reach over them.
pub(super) fn compile(rules: &[Rule]) -> Result<Option<Program>, usize> {
    // What comes before a rule for every device does not matter.
    let last = rules.iter().rposition(|rule| rule.kind == Kind::All);
    let default = last.is_some_and(|at| rules[at].allow);
    let mut live: Vec<&Rule> = Vec::with_capacity(rules.len());
    for rule in &rules[last.map_or(0, |at| at + 1)..] {
        // Nor does one that a later one covers.
        live.retain(|earlier| !covers(rule, earlier));
        let mut neighbours = live.iter().rev().take_while(|earlier| earlier.allow == rule.allow);
        let adds = !neighbours.any(|earlier| covers(earlier, rule));
        if adds && !(live.is_empty() && rule.allow == default) {
            live.push(rule);
        }
    }
    if live.is_empty() && default {
        return Ok(None);
    }
    let mut assembler = Assembler::default();
    if !live.is_empty() {
        // struct bpf_cgroup_dev_ctx: access << 16 | type, major, minor.
        assembler.put(LOAD, TYPE, CONTEXT, 0, 0);
        assembler.put(LOAD, MAJOR, CONTEXT, 4, 0);
        assembler.put(LOAD, MINOR, CONTEXT, 8, 0);
        assembler.put(MOVE, ACCESS, TYPE, 0, 0);
        assembler.put(SHIFT_RIGHT, ACCESS, 0, 0, 16);
        assembler.put(AND, TYPE, 0, 0, 0xffff);
    }
    for run in live.chunk_by(|a, b| a.allow == b.allow).rev() {
        // A rule of the other kind that once stood between two of these may be gone: none may stand behind one that covers
        // it, since the verifier refuses code that is never reached.
        let beaten = |at: usize| {
            run.iter()
                .enumerate()
                .any(|(i, other)| i != at && covers(other, run[at]) && (i < at || !covers(run[at], other)))
        };
        let mut run: Vec<&Rule> = (0..run.len()).filter(|at| !beaten(*at)).map(|at| run[at]).collect();
        run.sort_by_key(|rule| (rule.kind == Kind::Char, rule.major, rule.minor));
        for same_kind in run.chunk_by(|a, b| a.kind == b.kind) {
            let kind = if same_kind[0].kind == Kind::Block { BLOCK } else { CHAR };
            assembler.block(TYPE, Some(kind), |assembler| {
                for same_major in same_kind.chunk_by(|a, b| a.major == b.major) {
                    let major = same_major[0].major.map(|n| n as i32);
                    assembler
                        .block(MAJOR, major, |assembler| same_major.iter().for_each(|rule| decide(assembler, rule)));
                }
            });
        }
    }
    // The two ends; what no rule decides runs into the default.
    let (first, second) = if default { (1, 0) } else { (0, 1) };
    let ends = [assembler.code.len(), assembler.code.len() + 2];
    assembler.put(SET, RESULT, 0, 0, first);
    assembler.put(EXIT, 0, 0, 0, 0);
    if assembler.jumps.iter().any(|(_, to)| *to == if default { Label::Deny } else { Label::Allow }) {
        assembler.put(SET, RESULT, 0, 0, second);
        assembler.put(EXIT, 0, 0, 0, 0);
    }
    let (allow, deny) = if default { (ends[0], ends[1]) } else { (ends[1], ends[0]) };
    let Assembler { mut code, jumps, ends } = assembler;
    for (at, label) in jumps {
        let to = match label {
            Label::Allow => allow,
            Label::Deny => deny,
            Label::Block(block) => ends[block],
        };
        code[at].offset = i16::try_from(to - at - 1).map_err(|_| code.len())?;
    }
    Ok(Some(Program(code)))
}

/// What a rule does to a device of its type and major number.
fn decide(assembler: &mut Assembler, rule: &Rule) {
    let access = bits(&rule.access);
    let minor = rule.minor.map(|n| n as i32);
    let end = if rule.allow { Label::Allow } else { Label::Deny };
    match (access, minor) {
        (ALL, Some(minor)) => assembler.jump(JUMP_IF, MINOR, minor, end),
        (ALL, None) => assembler.jump(JUMP, 0, 0, end),
        _ => assembler.block(MINOR, minor, |assembler| {
            if rule.allow {
                assembler.put(AND, ACCESS, 0, 0, !access);
                assembler.jump(JUMP_IF, ACCESS, 0, end);
            } else {
                assembler.jump(JUMP_IF_ANY, ACCESS, access, end);
            }
        }),
    }
}

fn bits(access: &str) -> i32 {
    access.chars().fold(0, |bits, c| {
        bits | match c {
            'r' => READ,
            'w' => WRITE,
            _ => MKNOD,
        }
    })
}

/// Whether a rule is about all that another one is about.
fn covers(rule: &Rule, other: &Rule) -> bool {
    let number = |mine: Option<u32>, theirs: Option<u32>| mine.is_none() || mine == theirs;
    rule.kind == other.kind
        && number(rule.major, other.major)
        && number(rule.minor, other.minor)
        && bits(&other.access) & !bits(&rule.access) == 0
}

/// Puts a program (or none) on a cgroup in the place of what brig has put there before; nothing is ever open meanwhile.
/// `fresh` says that the cgroup is new, so that nothing has to be looked for. Programs of others stay.
///
/// # Errors
/// In words; [`Errno::EPERM`] without privilege.
pub(super) fn install(path: &str, program: Option<&Program>, fresh: bool) -> Result<()> {
    let what = || format!("/linux/resources/devices: attach a device program to {path}");
    let flags = OFlag::O_DIRECTORY | OFlag::O_RDONLY | OFlag::O_CLOEXEC;
    let cgroup = open(path, flags, Mode::empty()).during(what)?;
    let cgroup = cgroup.as_fd();
    let loaded = program.map(load).transpose()?;
    let old = if fresh { Vec::new() } else { own_programs(cgroup).during(what)? };
    let Some(new) = loaded else {
        return old.iter().try_for_each(|old| detach(cgroup, old)).during(what);
    };
    if let [old] = old.as_slice() {
        match bpf::attach(cgroup, new.as_fd(), Some(old.as_fd())) {
            Ok(()) => return Ok(()),
            // Linux before 5.6, or somebody was faster.
            Err(Errno::EINVAL | Errno::ENOENT) => {}
            Err(errno) => return Err(refused(what(), errno)),
        }
    }
    // For a moment both have to agree.
    bpf::attach(cgroup, new.as_fd(), None).map_err(|errno| refused(what(), errno))?;
    old.iter().try_for_each(|old| detach(cgroup, old)).during(what)
}

fn detach(cgroup: BorrowedFd, program: &OwnedFd) -> Result<(), Errno> {
    match bpf::detach(cgroup, program.as_fd()) {
        Err(Errno::ENOENT) => Ok(()),
        other => other,
    }
}

fn refused(what: String, errno: Errno) -> Error {
    let error = Error::os(what, errno);
    match errno {
        Errno::EPERM => {
            error.hint("a program on a cgroup above may allow no others below it, or brig lacks CAP_NET_ADMIN")
        }
        Errno::E2BIG => error.hint("64 device programs are attached there already"),
        _ => error,
    }
}

/// What brig has attached to this very cgroup.
fn own_programs(cgroup: BorrowedFd) -> Result<Vec<OwnedFd>, Errno> {
    let mut ids = [0; bpf::MAX_PROGRAMS];
    let count = bpf::attached(cgroup, &mut ids)?;
    let mut own = Vec::new();
    for id in &ids[..count] {
        match bpf::open_by_id(*id) {
            Ok(program) => {
                if bpf::name(program.as_fd())?.starts_with(NAME.to_bytes_with_nul()) {
                    own.push(program);
                }
            }
            // Gone, or kept from us by an LSM: then it is not ours.
            Err(Errno::ENOENT | Errno::EACCES | Errno::EPERM) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(own)
}

fn load(Program(code): &Program) -> Result<OwnedFd> {
    let what = "/linux/resources/devices: load the device program";
    let mut result = bpf::load_device_program(code, NAME, None);
    if matches!(result, Err(Errno::EPERM)) {
        // Before Linux 5.11 programs count as locked memory.
        result = with_locked_memory(|| bpf::load_device_program(code, NAME, None));
    }
    match result {
        Ok(program) => Ok(program),
        Err(Errno::EPERM) => Err(Error::os(what, Errno::EPERM).hint(
            "it takes CAP_BPF (CAP_SYS_ADMIN before Linux 5.8) in the first user namespace, and before Linux 5.11 some \
             RLIMIT_MEMLOCK (ulimit -l)",
        )),
        Err(errno @ (Errno::ENOSYS | Errno::EINVAL | Errno::EACCES | Errno::E2BIG)) => {
            let mut log = vec![0; 1 << 16];
            // ENOSPC means that the log is cut off: its end is what counts, but then only its beginning is there.
            match bpf::load_device_program(code, NAME, Some(&mut log)) {
                Ok(program) => Ok(program),
                Err(_) => Err(explain(what, errno, &log)),
            }
        }
        Err(errno) => Err(Error::os(what, errno)),
    }
}

fn explain(what: &str, errno: Errno, log: &[u8]) -> Error {
    let end = log.iter().position(|b| *b == 0).unwrap_or(log.len());
    let text = String::from_utf8_lossy(&log[..end]);
    let said: Vec<&str> = text.lines().rev().take(3).collect();
    if said.is_empty() {
        return Error::os(what, errno)
            .hint("cgroup v2 needs a kernel with CONFIG_BPF_SYSCALL and CONFIG_CGROUP_BPF for it");
    }
    let said = said.into_iter().rev().collect::<Vec<_>>().join("; ");
    Error::new(Failure::Os(errno), format!("{what}: {}: the verifier says: {said}", crate::error::describe(errno)))
}

/// Runs something with as much locked memory allowed as can be; the container must not inherit that.
fn with_locked_memory<T>(run: impl FnOnce() -> Result<T, Errno>) -> Result<T, Errno> {
    let resource = libc::RLIMIT_MEMLOCK;
    let Ok((soft, hard)) = sched::get_rlimit(resource) else { return Err(Errno::EPERM) };
    let unlimited = libc::RLIM64_INFINITY;
    if sched::set_rlimit(resource, unlimited, unlimited).is_err() && sched::set_rlimit(resource, hard, hard).is_err() {
        return Err(Errno::EPERM);
    }
    let result = run();
    // Lowering a limit again is always allowed.
    let _ = sched::set_rlimit(resource, soft, hard);
    result
}

/// Whether this process is in a user namespace below the first: there nobody may load device programs.
pub(super) fn in_user_namespace() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let mut numbers = map.split_whitespace();
    !map.is_empty() && (numbers.next(), numbers.next(), numbers.next()) != (Some("0"), Some("0"), Some("4294967295"))
}

#[cfg(test)]
#[path = "program_tests.rs"]
mod tests;
