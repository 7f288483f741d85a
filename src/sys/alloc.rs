//! The allocation guard of debug builds: after [`forbid`], which a child calls first thing after its clone, any allocation
//! ends the process with a message. So every integration run proves that the child allocates nothing.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicBool, Ordering};

static FORBIDDEN: AtomicBool = AtomicBool::new(false);

/// The system allocator behind the guard.
pub struct Guarded;

/// Exit status of a child that allocated.
pub const ALLOCATED: i32 = 121;

/// Makes room on the heap at once, its pages at hand: for a short-lived program that is known to take as much, one call (madvise(2),
/// `MADV_POPULATE_WRITE`, Linux 5.14) costs a fraction of a fault for each page. Only a hint: failures are passed over.
#[cfg(target_env = "gnu")]
pub fn expect(bytes: usize) {
    // Less than malloc(3) would map on its own.
    const PIECE: usize = 96 << 10;
    // SAFETY: mallopt(3) and sbrk(0) change nothing that is in use; what is populated lies between a piece of the heap that was
    // just there and its end, and populating it leaves its contents.
    unsafe {
        libc::mallopt(libc::M_TOP_PAD, bytes as libc::c_int);
        let piece = [libc::malloc(PIECE), libc::malloc(PIECE)];
        let start = piece[0].addr().min(piece[1].addr()).next_multiple_of(4096);
        let _ = piece.map(|piece| libc::free(piece));
        let end = libc::sbrk(0);
        if end.addr() > start && end.addr() - start < 2 * (bytes + 2 * PIECE) {
            libc::madvise(end.with_addr(start), end.addr() - start, libc::MADV_POPULATE_WRITE);
        }
    }
}

/// Elsewhere the allocator is left alone.
#[cfg(not(target_env = "gnu"))]
pub fn expect(_: usize) {}

fn permit() {
    if FORBIDDEN.load(Ordering::Relaxed) {
        let text = "brig: defect: allocation between clone and exec\n";
        // SAFETY: writes a static string and ends the process.
        unsafe {
            libc::write(2, text.as_ptr().cast(), text.len());
            libc::_exit(ALLOCATED)
        }
    }
}

/// No allocation from here on; for a child between clone and exec. Without the guard installed it does nothing.
pub fn forbid() {
    FORBIDDEN.store(true, Ordering::Relaxed);
}

// SAFETY: everything is passed on to the system allocator as it came.
unsafe impl GlobalAlloc for Guarded {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        permit();
        // SAFETY: the caller keeps GlobalAlloc's contract.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        permit();
        // SAFETY: the caller keeps GlobalAlloc's contract.
        unsafe { System.dealloc(pointer, layout) }
    }
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        permit();
        // SAFETY: the caller keeps GlobalAlloc's contract.
        unsafe { System.realloc(pointer, layout, size) }
    }
}
