//! `linux.seccomp`: the system-call filter.

use std::path::PathBuf;

spec_objects! {
    /// `linux.seccomp`.
    struct Seccomp {
        default_action: Option<SeccompAction>,
        default_errno_ret: Option<u32>,
        architectures: Vec<SeccompArch>,
        /// None (not even an empty list) stands for the runtime's default.
        flags: Option<Vec<SeccompFlag>>,
        listener_path: Option<PathBuf>,
        listener_metadata: Option<String>,
        syscalls: Vec<Syscall>,
    }

    /// One entry of `syscalls`.
    struct Syscall {
        names: Vec<String>,
        action: Option<SeccompAction>,
        errno_ret: Option<u32>,
        args: Vec<SeccompArg>,
    }

    /// One condition on an argument of a call, by its position (0 to 5).
    struct SeccompArg {
        index: u32,
        value: u64,
        value_two: u64,
        op: Option<SeccompOp>,
    }
}

spec_words! {
    /// What happens to a call, see seccomp(2). `SCMP_ACT_KILL` is the old name of `SCMP_ACT_KILL_THREAD`.
    enum SeccompAction {
        Kill = "SCMP_ACT_KILL",
        KillProcess = "SCMP_ACT_KILL_PROCESS",
        KillThread = "SCMP_ACT_KILL_THREAD",
        Trap = "SCMP_ACT_TRAP",
        Errno = "SCMP_ACT_ERRNO",
        Trace = "SCMP_ACT_TRACE",
        Allow = "SCMP_ACT_ALLOW",
        Log = "SCMP_ACT_LOG",
        Notify = "SCMP_ACT_NOTIFY",
    }

    /// Comparison of an argument with a value. `SCMP_CMP_MASKED_EQ` takes the mask from `value`, the datum from `valueTwo`.
    enum SeccompOp {
        Ne = "SCMP_CMP_NE",
        Lt = "SCMP_CMP_LT",
        Le = "SCMP_CMP_LE",
        Eq = "SCMP_CMP_EQ",
        Ge = "SCMP_CMP_GE",
        Gt = "SCMP_CMP_GT",
        MaskedEq = "SCMP_CMP_MASKED_EQ",
    }

    /// Flags of seccomp(2) that the spec knows.
    enum SeccompFlag {
        Tsync = "SECCOMP_FILTER_FLAG_TSYNC",
        Log = "SECCOMP_FILTER_FLAG_LOG",
        SpecAllow = "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
        WaitKillableRecv = "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
    }

    /// Architectures whose calls the filter knows.
    enum SeccompArch {
        Native = "SCMP_ARCH_NATIVE",
        X86 = "SCMP_ARCH_X86",
        X86_64 = "SCMP_ARCH_X86_64",
        X32 = "SCMP_ARCH_X32",
        Arm = "SCMP_ARCH_ARM",
        Aarch64 = "SCMP_ARCH_AARCH64",
        Loongarch64 = "SCMP_ARCH_LOONGARCH64",
        M68k = "SCMP_ARCH_M68K",
        Mips = "SCMP_ARCH_MIPS",
        Mips64 = "SCMP_ARCH_MIPS64",
        Mips64n32 = "SCMP_ARCH_MIPS64N32",
        Mipsel = "SCMP_ARCH_MIPSEL",
        Mipsel64 = "SCMP_ARCH_MIPSEL64",
        Mipsel64n32 = "SCMP_ARCH_MIPSEL64N32",
        Ppc = "SCMP_ARCH_PPC",
        Ppc64 = "SCMP_ARCH_PPC64",
        Ppc64le = "SCMP_ARCH_PPC64LE",
        S390 = "SCMP_ARCH_S390",
        S390x = "SCMP_ARCH_S390X",
        Parisc = "SCMP_ARCH_PARISC",
        Parisc64 = "SCMP_ARCH_PARISC64",
        Riscv64 = "SCMP_ARCH_RISCV64",
        Sh = "SCMP_ARCH_SH",
        Sheb = "SCMP_ARCH_SHEB",
    }
}
