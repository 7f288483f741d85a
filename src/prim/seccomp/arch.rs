//! The architectures of a filter, and the numbers that a call's name has on each.
//!
//! Names are looked up in libseccomp (a perfect hash: 0.1 ms for a whole default profile on three architectures), so
//! that brig knows the calls which the library it is linked with knows. What is ours is the table below: how the kernel
//! calls the architecture, how wide its arguments are, and which calls it also offers through `socketcall` and `ipc`.

use crate::spec::SeccompArch;
use libseccomp::{ScmpArch, ScmpSyscall};

/// Set in the numbers of x32 calls, which share their audit value with x86_64.
pub(super) const X32_BIT: u32 = 0x4000_0000;

/// An architecture as seccomp(2) sees it.
#[derive(Debug)]
pub(super) struct Arch {
    /// Its name in config.json.
    pub name: SeccompArch,
    /// Its name in libseccomp.
    scmp: ScmpArch,
    /// `seccomp_data.arch`, the AUDIT_ARCH_* value.
    pub audit: u32,
    /// Arguments are compared in 64 bits; otherwise only their low word is, as libseccomp does.
    pub wide: bool,
    /// Big-endian: the high word of an argument comes first.
    pub big: bool,
    /// The calls that exist twice: by themselves and inside a multiplexer.
    mux: Option<Mux>,
}

/// `socketcall` and `ipc`, and the numbers of the same calls by themselves.
#[derive(Debug)]
struct Mux {
    /// Added to every number (4000 on mips).
    base: u32,
    /// Sub-calls 1 to 20 of `socketcall` as calls of their own; 0 where there is none.
    sockets: &'static [u16; 20],
}

/// What a name stands for on one architecture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Call {
    /// A call number.
    Number(u32),
    /// The sub-call of a multiplexer (its first argument), and the call of its own, if it has one.
    Sub { number: Option<u32>, mux: u32, sub: u32 },
}

const NR_SOCKETCALL: u32 = 102;
const NR_IPC: u32 = 117;

const SOCKETS_X86: [u16; 20] =
    [359, 361, 362, 363, 0, 367, 368, 360, 0, 0, 369, 371, 373, 366, 365, 370, 372, 364, 337, 345];
const SOCKETS_S390: [u16; 20] =
    [359, 361, 362, 363, 0, 367, 368, 360, 0, 0, 369, 371, 373, 366, 365, 370, 372, 364, 357, 358];
const SOCKETS_PPC: [u16; 20] =
    [326, 327, 328, 329, 330, 331, 332, 333, 334, 336, 335, 337, 338, 339, 340, 341, 342, 344, 343, 349];
const SOCKETS_MIPS: [u16; 20] =
    [183, 169, 170, 174, 168, 172, 171, 184, 178, 175, 180, 176, 182, 181, 173, 179, 177, 334, 335, 343];
const SOCKETS_SH: [u16; 20] =
    [340, 341, 342, 343, 344, 345, 346, 347, 348, 350, 349, 351, 352, 353, 354, 355, 356, 358, 357, 363];
const SOCKETS_M68K: [u16; 20] =
    [356, 358, 359, 360, 0, 364, 365, 357, 0, 0, 366, 368, 370, 363, 362, 367, 369, 361, 371, 372];

const WIDE: u8 = 1;
const BIG: u8 = 2;

const fn arch(name: SeccompArch, scmp: ScmpArch, audit: u32, traits: u8, mux: Option<Mux>) -> Arch {
    Arch { name, scmp, audit, wide: traits & WIDE != 0, big: traits & BIG != 0, mux }
}

const fn mux(sockets: &'static [u16; 20]) -> Option<Mux> {
    Some(Mux { base: 0, sockets })
}

const MUX_MIPS: Option<Mux> = Some(Mux { base: 4000, sockets: &SOCKETS_MIPS });

#[rustfmt::skip]
static ARCHS: &[Arch] = &[
    arch(SeccompArch::X86, ScmpArch::X86, 0x4000_0003, 0, mux(&SOCKETS_X86)),
    arch(SeccompArch::X86_64, ScmpArch::X8664, 0xc000_003e, WIDE, None),
    arch(SeccompArch::X32, ScmpArch::X32, 0xc000_003e, 0, None),
    arch(SeccompArch::Arm, ScmpArch::Arm, 0x4000_0028, 0, None),
    arch(SeccompArch::Aarch64, ScmpArch::Aarch64, 0xc000_00b7, WIDE, None),
    arch(SeccompArch::Loongarch64, ScmpArch::Loongarch64, 0xc000_0102, WIDE, None),
    arch(SeccompArch::M68k, ScmpArch::M68k, 0x0000_0004, BIG, mux(&SOCKETS_M68K)),
    arch(SeccompArch::Mips, ScmpArch::Mips, 0x0000_0008, BIG, MUX_MIPS),
    arch(SeccompArch::Mips64, ScmpArch::Mips64, 0x8000_0008, WIDE | BIG, None),
    arch(SeccompArch::Mips64n32, ScmpArch::Mips64N32, 0xa000_0008, BIG, None),
    arch(SeccompArch::Mipsel, ScmpArch::Mipsel, 0x4000_0008, 0, MUX_MIPS),
    arch(SeccompArch::Mipsel64, ScmpArch::Mipsel64, 0xc000_0008, WIDE, None),
    arch(SeccompArch::Mipsel64n32, ScmpArch::Mipsel64N32, 0xe000_0008, 0, None),
    arch(SeccompArch::Ppc, ScmpArch::Ppc, 0x0000_0014, BIG, mux(&SOCKETS_PPC)),
    arch(SeccompArch::Ppc64, ScmpArch::Ppc64, 0x8000_0015, WIDE | BIG, mux(&SOCKETS_PPC)),
    arch(SeccompArch::Ppc64le, ScmpArch::Ppc64Le, 0xc000_0015, WIDE, mux(&SOCKETS_PPC)),
    arch(SeccompArch::S390, ScmpArch::S390, 0x0000_0016, BIG, mux(&SOCKETS_S390)),
    arch(SeccompArch::S390x, ScmpArch::S390X, 0x8000_0016, WIDE | BIG, mux(&SOCKETS_S390)),
    arch(SeccompArch::Parisc, ScmpArch::Parisc, 0x0000_000f, BIG, None),
    arch(SeccompArch::Parisc64, ScmpArch::Parisc64, 0x8000_000f, WIDE | BIG, None),
    arch(SeccompArch::Riscv64, ScmpArch::Riscv64, 0xc000_00f3, WIDE, None),
    arch(SeccompArch::Sh, ScmpArch::Sh, 0x4000_002a, 0, mux(&SOCKETS_SH)),
    arch(SeccompArch::Sheb, ScmpArch::Sheb, 0x0000_002a, BIG, mux(&SOCKETS_SH)),
];

/// The architecture that brig was built for.
pub(super) const NATIVE: SeccompArch = if cfg!(target_arch = "x86_64") {
    SeccompArch::X86_64
} else if cfg!(target_arch = "aarch64") {
    SeccompArch::Aarch64
} else if cfg!(target_arch = "riscv64") {
    SeccompArch::Riscv64
} else if cfg!(target_arch = "s390x") {
    SeccompArch::S390x
} else if cfg!(target_arch = "powerpc64") {
    if cfg!(target_endian = "little") { SeccompArch::Ppc64le } else { SeccompArch::Ppc64 }
} else if cfg!(target_arch = "loongarch64") {
    SeccompArch::Loongarch64
} else if cfg!(target_arch = "arm") {
    SeccompArch::Arm
} else if cfg!(target_arch = "x86") {
    SeccompArch::X86
} else {
    panic!("the seccomp filter does not know this architecture")
};

impl Arch {
    /// The architecture of this name; `SCMP_ARCH_NATIVE` is the one that brig was built for.
    pub fn named(name: SeccompArch) -> &'static Arch {
        let name = if name == SeccompArch::Native { NATIVE } else { name };
        ARCHS.iter().find(|arch| arch.name == name).expect("every word of the spec has its line in the table")
    }

    /// Whether the libseccomp that brig is linked with knows it.
    pub fn known(&self) -> bool {
        ScmpSyscall::from_name_by_arch("read", self.scmp).is_ok()
    }

    /// What a name stands for here; nothing if this architecture has no such call.
    pub fn resolve(&self, name: &str) -> Option<Call> {
        // Negative: a call of other architectures, or of a multiplexer's sub-call (-100 - sub, -200 - sub).
        let number = ScmpSyscall::from_name_by_arch(name, self.scmp).ok()?.as_raw_syscall();
        match (u32::try_from(number), &self.mux) {
            (Ok(number), _) => Some(Call::Number(number)),
            (Err(_), Some(mux)) => mux.call(number.unsigned_abs(), self.wide),
            (Err(_), None) => None,
        }
    }
}

impl Mux {
    fn call(&self, pseudo: u32, wide: bool) -> Option<Call> {
        let (mux, sub, number) = match pseudo {
            101..=120 => (NR_SOCKETCALL, pseudo - 100, u32::from(self.sockets[pseudo as usize - 101])),
            201..=224 => (NR_IPC, pseudo - 200, ipc(pseudo - 200, wide)),
            _ => return None,
        };
        let number = (number != 0).then_some(number + self.base);
        Some(Call::Sub { number, mux: mux + self.base, sub })
    }
}

/// The sub-calls of `ipc` as calls of their own, the same everywhere since Linux 5.1.
fn ipc(sub: u32, wide: bool) -> u32 {
    match sub {
        2 | 3 => 391 + sub,   // semget, semctl
        4 if wide => 392,     // semtimedop; narrow architectures only have semtimedop_time64
        11 => 400,            // msgsnd
        12 => 401,            // msgrcv
        13 => 399,            // msgget
        14 => 402,            // msgctl
        21 | 22 => 376 + sub, // shmat, shmdt
        23 | 24 => 372 + sub, // shmget, shmctl
        _ => 0,
    }
}

/// Whether libseccomp knows the name on any architecture.
pub(super) fn name_known(name: &str) -> bool {
    ScmpSyscall::from_name_by_arch(name, ScmpArch::Native).is_ok()
}
