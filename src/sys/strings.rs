//! Arrays of C strings, as execve(2) takes them.

use std::ffi::{CStr, CString, c_char};

/// A null-terminated array of C strings that owns them; built before a clone, only read after it.
pub struct CArray {
    strings: Vec<CString>,
    pointers: Vec<*const c_char>,
}

// SAFETY: the pointers lead into the heap blocks of `strings`, which move with the value and are never changed.
unsafe impl Send for CArray {}
// SAFETY: as above; shared references only read.
unsafe impl Sync for CArray {}

impl CArray {
    /// Takes the strings over.
    pub fn new(strings: Vec<CString>) -> CArray {
        let mut pointers: Vec<_> = strings.iter().map(|s| s.as_ptr()).collect();
        pointers.push(std::ptr::null());
        CArray { strings, pointers }
    }

    /// The array for the kernel.
    pub fn as_ptr(&self) -> *const *const c_char {
        self.pointers.as_ptr()
    }

    /// The strings in order.
    pub fn iter(&self) -> impl Iterator<Item = &CStr> {
        self.strings.iter().map(CString::as_c_str)
    }
}

impl std::fmt::Debug for CArray {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(&self.strings).finish()
    }
}
