//! The file that the calling program runs from: what is mapped of it, and where /proc/self/exe leads.

use super::{Errno, SysResult, check, files};
use nix::fcntl::OFlag;
use std::os::fd::{AsRawFd, BorrowedFd};

/// `struct prctl_mm_map` of linux/prctl.h.
#[repr(C)]
#[derive(Default)]
struct Map {
    start_code: u64,
    end_code: u64,
    start_data: u64,
    end_data: u64,
    start_brk: u64,
    brk: u64,
    start_stack: u64,
    arg_start: u64,
    arg_end: u64,
    env_start: u64,
    env_end: u64,
    auxv: u64,
    auxv_size: u32,
    exe_fd: u32,
}

const PR_SET_MM_MAP: libc::c_ulong = 14;

/// Puts another view of the same file in the place of the one that the calling program was started from: every mapping of the
/// file, and what /proc/self/exe leads to (prctl(2), `PR_SET_MM_MAP`, Linux 3.18 with `CONFIG_CHECKPOINT_RESTORE`). For a
/// program of one thread.
///
/// # Arguments
/// `view`: the file itself, open in the other mount; it must be executable there.
///
/// # Errors
/// `EPERM` without `CAP_CHECKPOINT_RESTORE` or `CAP_SYS_ADMIN`; `EINVAL` where the kernel has no such call; `EBUSY` when something
/// else maps the file. The program runs on as before then.
pub fn run_from(view: BorrowedFd) -> SysResult<()> {
    let mut map = read_map().ok_or(Errno::EINVAL)?;
    map.exe_fd = view.as_raw_fd() as u32;
    // While the file is mapped the answer is EBUSY, but only to who may: nothing is mapped anew for who may not.
    match set_map(&map) {
        Err(Errno::EBUSY) => {}
        other => return other,
    }
    let segments = segments().ok_or(Errno::EINVAL)?;
    for segment in segments.iter().flatten() {
        remap(segment, view)?;
    }
    set_map(&map)
}

fn set_map(map: &Map) -> SysResult<()> {
    // SAFETY: the kernel reads one structure of this size.
    let done = unsafe { libc::prctl(libc::PR_SET_MM, PR_SET_MM_MAP, std::ptr::from_ref(map), size_of::<Map>(), 0) };
    check(done.into()).map(drop)
}

/// What the kernel has to be told again, unchanged: from /proc/self/stat, see proc_pid_stat(5).
fn read_map() -> Option<Map> {
    let mut text = [0; 1024];
    let file = files::open(None, c"/proc/self/stat", OFlag::O_RDONLY).ok()?;
    let length = nix::unistd::read(&file, &mut text).ok()?;
    let text = std::str::from_utf8(&text[..length]).ok()?;
    // The name, second of all, may hold anything.
    let mut fields = text.rsplit_once(')')?.1.split_ascii_whitespace();
    let mut number = 3;
    let mut field = |wanted: usize| {
        let value = fields.nth(wanted - number)?.parse().ok();
        number = wanted + 1;
        value
    };
    let [start_code, end_code, start_stack] = [field(26)?, field(27)?, field(28)?];
    let [start_data, end_data, start_brk] = [field(45)?, field(46)?, field(47)?];
    let [arg_start, arg_end, env_start, env_end] = [field(48)?, field(49)?, field(50)?, field(51)?];
    // SAFETY: brk(0) changes nothing and returns the end of the heap.
    let brk = unsafe { libc::syscall(libc::SYS_brk, 0) } as u64;
    Some(Map {
        start_code,
        end_code,
        start_data,
        end_data,
        start_brk,
        brk,
        start_stack,
        arg_start,
        arg_end,
        env_start,
        env_end,
        ..Map::default()
    })
}

/// A loaded part of the program's file, in whole pages, and how much of its start is read-only once the program runs.
struct Segment {
    start: usize,
    length: usize,
    offset: usize,
    protection: i32,
    relocated: usize,
}

const NONE: Option<Segment> = None;

/// The parts that the program's headers name (getauxval(3), `AT_PHDR`).
fn segments() -> Option<[Option<Segment>; 8]> {
    // SAFETY: plain reads of the auxiliary vector.
    let [at, count, page] =
        [libc::AT_PHDR, libc::AT_PHNUM, libc::AT_PAGESZ].map(|kind| unsafe { libc::getauxval(kind) });
    let page = page as usize;
    if at == 0 || page == 0 {
        return None;
    }
    // SAFETY: the kernel gives the address and the number of the headers that it loaded.
    let headers = unsafe { std::slice::from_raw_parts(at as *const libc::Elf64_Phdr, count as usize) };
    let own = headers.iter().find(|header| header.p_type == libc::PT_PHDR)?;
    let base = at - own.p_vaddr;
    let sealed = headers.iter().find(|header| header.p_type == libc::PT_GNU_RELRO);
    let mut found = [NONE; 8];
    let loaded = headers.iter().filter(|header| header.p_type == libc::PT_LOAD && header.p_filesz > 0);
    for (slot, header) in loaded.enumerate() {
        let start = (base + header.p_vaddr) as usize;
        let end = (start + header.p_filesz as usize).next_multiple_of(page);
        let before = start % page;
        let mut protection = 0;
        for (flag, bit) in
            [(libc::PF_R, libc::PROT_READ), (libc::PF_W, libc::PROT_WRITE), (libc::PF_X, libc::PROT_EXEC)]
        {
            protection |= if header.p_flags & flag != 0 { bit } else { 0 };
        }
        // What is relocated before it is sealed, to the last whole page.
        let relocated = sealed.filter(|sealed| sealed.p_vaddr == header.p_vaddr).map_or(0, |sealed| {
            ((start + sealed.p_memsz as usize) / page * page).saturating_sub(start - before).min(end - (start - before))
        });
        *found.get_mut(slot)? = Some(Segment {
            start: start - before,
            length: end - (start - before),
            offset: header.p_offset as usize - before,
            protection,
            relocated,
        });
    }
    Some(found)
}

fn remap(segment: &Segment, view: BorrowedFd) -> SysResult<()> {
    let address = segment.start as *mut libc::c_void;
    if segment.protection & libc::PROT_WRITE == 0 {
        // SAFETY: the same bytes of the same file, at the same place, with the same rights: whoever reads or runs them sees no
        // difference.
        let mapped = unsafe {
            libc::mmap(
                address,
                segment.length,
                segment.protection,
                libc::MAP_PRIVATE | libc::MAP_FIXED,
                view.as_raw_fd(),
                segment.offset as libc::off_t,
            )
        };
        return if mapped == libc::MAP_FAILED { Err(Errno::last()) } else { Ok(()) };
    }
    // What was written to differs from the file: a copy takes its place, in one step.
    // SAFETY: the copy is new memory, as long as the segment, which is readable all through; nothing else runs that could write to
    // the segment between the copy and the move, and these calls write to none of it but errno, which is not in it.
    unsafe {
        let copy = libc::mmap(
            std::ptr::null_mut(),
            segment.length,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        );
        if copy == libc::MAP_FAILED {
            return Err(Errno::last());
        }
        std::ptr::copy_nonoverlapping(address.cast::<u8>(), copy.cast::<u8>(), segment.length);
        if segment.relocated > 0 && libc::mprotect(copy, segment.relocated, libc::PROT_READ) != 0 {
            return Err(Errno::last());
        }
        move_over(copy, segment, address)
    }
}

/// mremap(2) of the copy to its place. A mapping moves whole, and the sealed part is one of its own.
///
/// # Safety
/// As [`remap`] says.
unsafe fn move_over(copy: *mut libc::c_void, segment: &Segment, address: *mut libc::c_void) -> SysResult<()> {
    for (from, length) in [(0, segment.relocated), (segment.relocated, segment.length - segment.relocated)] {
        if length == 0 {
            continue;
        }
        // SAFETY: both ranges are whole pages of the copy and of the segment.
        let moved = unsafe {
            libc::mremap(copy.add(from), length, length, libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED, address.add(from))
        };
        if moved == libc::MAP_FAILED {
            return Err(Errno::last());
        }
    }
    Ok(())
}
