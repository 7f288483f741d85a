//! bpf(2): programs that a cgroup asks before it gives access to a device (`BPF_PROG_TYPE_CGROUP_DEVICE`, Linux 4.15).

use super::{SysResult, check};
use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

const PROG_LOAD: i32 = 5;
const PROG_ATTACH: i32 = 8;
const PROG_DETACH: i32 = 9;
const PROG_GET_FD_BY_ID: i32 = 13;
const OBJ_GET_INFO_BY_FD: i32 = 15;
const PROG_QUERY: i32 = 16;

const TYPE_CGROUP_DEVICE: u32 = 15;
const ATTACH_CGROUP_DEVICE: u32 = 6;
const ALLOW_MULTI: u32 = 1 << 1;
/// Linux 5.6.
const REPLACE: u32 = 1 << 2;

/// The longest name of a program, with its final zero.
pub const NAME_LENGTH: usize = 16;

/// How many programs a cgroup can have (`BPF_CGROUP_MAX_PROGS`).
pub const MAX_PROGRAMS: usize = 64;

/// One instruction, see the kernel's Documentation/bpf/standardization/instruction-set.rst.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instruction {
    /// Class and operation.
    pub code: u8,
    registers: u8,
    /// Bytes from a pointer, or instructions to jump over.
    pub offset: i16,
    /// The constant.
    pub immediate: i32,
}

impl Instruction {
    /// An instruction with its target and source registers.
    pub fn new(code: u8, target: u8, source: u8, offset: i16, immediate: i32) -> Instruction {
        // Two bit fields, which C lays out by the machine's byte order.
        let registers = if cfg!(target_endian = "little") { source << 4 | target } else { target << 4 | source };
        Instruction { code, registers, offset, immediate }
    }

    /// The target register.
    pub fn target(self) -> u8 {
        if cfg!(target_endian = "little") { self.registers & 15 } else { self.registers >> 4 }
    }

    /// The source register.
    pub fn source(self) -> u8 {
        if cfg!(target_endian = "little") { self.registers >> 4 } else { self.registers & 15 }
    }
}

/// union bpf_attr in its size of Linux 6.18, always all of it and zero but for what a command takes: a kernel that knows less
/// takes the rest as long as it is zero, and one that knows more takes what is missing for zero.
#[repr(C, align(8))]
struct Attr([u8; 168]);

impl Attr {
    fn new() -> Attr {
        Attr([0; 168])
    }

    fn u32(mut self, at: usize, value: u32) -> Attr {
        self.0[at..at + 4].copy_from_slice(&value.to_ne_bytes());
        self
    }

    fn fd(self, at: usize, fd: BorrowedFd) -> Attr {
        self.u32(at, fd.as_raw_fd() as u32)
    }

    fn pointer<T: ?Sized>(mut self, at: usize, to: *const T) -> Attr {
        self.0[at..at + 8].copy_from_slice(&(to.cast::<u8>() as u64).to_ne_bytes());
        self
    }

    /// # Safety
    /// Every pointer in the attribute leads to memory as the command uses it.
    unsafe fn call(&mut self, command: i32) -> SysResult<libc::c_long> {
        // SAFETY: the attribute has the size given; its pointers are the caller's promise.
        check(unsafe { libc::syscall(libc::SYS_bpf, command, self.0.as_mut_ptr(), size_of::<Attr>()) })
    }

    /// # Safety
    /// As [`Attr::call`], and the command returns a fresh fd (always close-on-exec).
    unsafe fn open(&mut self, command: i32) -> SysResult<OwnedFd> {
        // SAFETY: by the caller's promise.
        unsafe { self.call(command).map(|fd| OwnedFd::from_raw_fd(fd as i32)) }
    }
}

/// Loads a device program. `name` is cut to 15 bytes; what the verifier has to say goes to `log`, if there is one.
///
/// # Errors
/// `EPERM` without CAP_BPF (CAP_SYS_ADMIN before Linux 5.8) in the first user namespace, and before Linux 5.11 when
/// `RLIMIT_MEMLOCK` is used up; `EINVAL` or `EACCES` for a program that the verifier refuses, or a kernel without
/// CONFIG_CGROUP_BPF; `ENOSPC` when the log is too small.
pub fn load_device_program(program: &[Instruction], name: &CStr, log: Option<&mut [u8]>) -> SysResult<OwnedFd> {
    let mut attr = Attr::new()
        .u32(0, TYPE_CGROUP_DEVICE)
        .u32(4, program.len() as u32)
        .pointer(8, program.as_ptr())
        // No helper is called, so any licence does.
        .pointer(16, c"Apache-2.0".as_ptr());
    if let Some(log) = log {
        attr = attr.u32(24, 1).u32(28, log.len() as u32).pointer(32, log.as_mut_ptr());
    }
    let length = name.to_bytes().len().min(NAME_LENGTH - 1);
    attr.0[48..48 + length].copy_from_slice(&name.to_bytes()[..length]);
    // SAFETY: instructions and licence outlive the call and are only read; the log has the length given.
    unsafe { attr.open(PROG_LOAD) }
}

/// Attaches a device program to a cgroup beside those it has, or in the place of one of them, with nothing between (Linux
/// 5.6). Every attached program has to agree to an access.
///
/// # Errors
/// `EINVAL` for `replace` on older kernels, `ENOENT` when it is not attached (any more), `E2BIG` when there are 64 programs
/// already, `EPERM` without privilege or when an ancestor's program does not allow more.
pub fn attach(cgroup: BorrowedFd, program: BorrowedFd, replace: Option<BorrowedFd>) -> SysResult<()> {
    let mut attr = Attr::new().fd(0, cgroup).fd(4, program).u32(8, ATTACH_CGROUP_DEVICE);
    attr = match replace {
        Some(old) => attr.u32(12, ALLOW_MULTI | REPLACE).fd(16, old),
        None => attr.u32(12, ALLOW_MULTI),
    };
    // SAFETY: no pointers.
    unsafe { attr.call(PROG_ATTACH) }.map(drop)
}

/// Detaches a device program from a cgroup.
///
/// # Errors
/// `ENOENT` when it is not attached.
pub fn detach(cgroup: BorrowedFd, program: BorrowedFd) -> SysResult<()> {
    let mut attr = Attr::new().fd(0, cgroup).fd(4, program).u32(8, ATTACH_CGROUP_DEVICE);
    // SAFETY: no pointers.
    unsafe { attr.call(PROG_DETACH) }.map(drop)
}

/// The IDs of the device programs attached to this very cgroup; returns how many of `ids` are filled.
///
/// # Errors
/// `ENOSPC` when there are more than fit.
pub fn attached(cgroup: BorrowedFd, ids: &mut [u32]) -> SysResult<usize> {
    let mut attr =
        Attr::new().fd(0, cgroup).u32(4, ATTACH_CGROUP_DEVICE).pointer(16, ids.as_mut_ptr()).u32(24, ids.len() as u32);
    // SAFETY: ids has the length given.
    unsafe { attr.call(PROG_QUERY) }?;
    let count = u32::from_ne_bytes([attr.0[24], attr.0[25], attr.0[26], attr.0[27]]);
    Ok((count as usize).min(ids.len()))
}

/// Opens a program by its ID.
///
/// # Errors
/// `ENOENT` when it is gone.
pub fn open_by_id(id: u32) -> SysResult<OwnedFd> {
    // SAFETY: no pointers; the answer is a fresh fd.
    unsafe { Attr::new().u32(0, id).open(PROG_GET_FD_BY_ID) }
}

/// The name of a program, filled up with zeroes.
///
/// # Errors
/// As bpf(2).
pub fn name(program: BorrowedFd) -> SysResult<[u8; NAME_LENGTH]> {
    // struct bpf_prog_info up to its name.
    const NAME_AT: usize = 64;
    let mut info = [0_u8; NAME_AT + NAME_LENGTH];
    let mut attr = Attr::new().fd(0, program).u32(4, info.len() as u32).pointer(8, info.as_mut_ptr());
    // SAFETY: info has the length given, and asks for no further buffers, since it is zero.
    unsafe { attr.call(OBJ_GET_INFO_BY_FD) }?;
    let mut name = [0; NAME_LENGTH];
    name.copy_from_slice(&info[NAME_AT..]);
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_are_kept_apart() {
        let instruction = Instruction::new(0xbf, 3, 2, -1, 7);
        assert_eq!((instruction.target(), instruction.source()), (3, 2));
        assert_eq!(size_of::<Instruction>(), 8);
    }
}
