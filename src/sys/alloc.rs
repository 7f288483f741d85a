//! The allocation guard of debug builds: after [`forbid`], which a child calls first thing after its clone, any allocation
//! ends the process with a message. So every integration run proves that the child allocates nothing.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicBool, Ordering};

static FORBIDDEN: AtomicBool = AtomicBool::new(false);

/// The system allocator behind the guard.
pub struct Guarded;

/// Exit status of a child that allocated.
pub const ALLOCATED: i32 = 121;

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
