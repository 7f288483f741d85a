//! A program that is named only after the clone: memory that parent and child share, in which the parent writes what
//! execve(2) gets, while the child waits. A clone keeps addresses, so what is written are the pointers themselves.

use super::{CArray, Errno, SysResult};
use std::ffi::{CStr, CString, c_char};
use std::ptr::NonNull;

/// The most that a letter holds, in bytes.
const SIZE: usize = 256 << 10;

/// Such a memory. The first word is the number of places where the program may be, the next two say at which words argv and envp
/// begin; then come the three lists of pointers, each ended by a null pointer, then the strings.
#[derive(Debug)]
pub struct Letter {
    words: NonNull<usize>,
}

// SAFETY: the memory belongs to no thread; who writes has it for itself, as `write` says.
unsafe impl Send for Letter {}

impl Letter {
    /// An empty letter.
    ///
    /// # Errors
    /// As mmap(2).
    pub fn new() -> SysResult<Letter> {
        let (access, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
        // SAFETY: a fresh mapping, at an address of the kernel's choice.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), SIZE, access, flags, -1, 0) };
        if at == libc::MAP_FAILED {
            return Err(Errno::last());
        }
        NonNull::new(at.cast()).map(|words| Letter { words }).ok_or(Errno::ENOMEM)
    }

    /// Writes it. For the parent, while the child does not look: before it is let go on.
    ///
    /// # Errors
    /// `E2BIG` when it does not fit.
    pub fn write(&self, candidates: &[CString], argv: &CArray, envp: &CArray) -> SysResult<()> {
        let lists: [Vec<&CStr>; 3] =
            [candidates.iter().map(CString::as_c_str).collect(), argv.iter().collect(), envp.iter().collect()];
        let argv_at = 3 + lists[0].len() + 1;
        let envp_at = argv_at + lists[1].len() + 1;
        let end = (envp_at + lists[2].len() + 1) * size_of::<usize>();
        let all: usize = lists.iter().flatten().map(|text| text.to_bytes_with_nul().len()).sum();
        if end + all > SIZE {
            return Err(Errno::E2BIG);
        }
        let (mut word, mut byte) = (3, end);
        // SAFETY: all that is written lies within the mapping, as the sizes above say, and nobody reads it meanwhile.
        unsafe {
            for (number, value) in [lists[0].len(), argv_at, envp_at].into_iter().enumerate() {
                self.words.add(number).write(value);
            }
            for list in lists {
                for text in list {
                    let text = text.to_bytes_with_nul();
                    let place = self.words.as_ptr().cast::<u8>().add(byte);
                    place.copy_from_nonoverlapping(text.as_ptr(), text.len());
                    self.words.add(word).write(place as usize);
                    (word, byte) = (word + 1, byte + text.len());
                }
                self.words.add(word).write(0);
                word += 1;
            }
        }
        Ok(())
    }

    fn word(&self, number: usize) -> usize {
        // SAFETY: aligned and within the mapping: numbers are those that `write` has counted, or of the first three, which are
        // zero in a fresh mapping. Volatile, since another process writes.
        unsafe { self.words.add(number).read_volatile() }
    }

    /// The place of this number where the program may be. Allocates nothing.
    pub fn candidate(&self, number: usize) -> Option<&CStr> {
        // SAFETY: a pointer that `write` made, to a C string in the mapping.
        (number < self.word(0)).then(|| unsafe { CStr::from_ptr(self.word(3 + number) as *const c_char) })
    }

    /// The first word of argv; empty when there is none.
    pub fn name(&self) -> &CStr {
        match self.word(1) {
            0 => c"",
            at => match self.word(at) {
                0 => c"",
                // SAFETY: a pointer that `write` made, to a C string in the mapping.
                text => unsafe { CStr::from_ptr(text as *const c_char) },
            },
        }
    }

    /// execve(2) of such a place; returns only on failure. Allocates nothing.
    pub fn exec(&self, number: usize) -> Errno {
        let Some(path) = self.candidate(number) else { return Errno::ENOENT };
        // SAFETY: numbers that `write` has made lie within the mapping.
        let array = |at: usize| unsafe { self.words.add(self.word(at)).as_ptr() } as *const *const c_char;
        // SAFETY: both arrays end in a null pointer and lead to C strings in the mapping.
        unsafe { libc::execve(path.as_ptr(), array(1), array(2)) };
        Errno::last()
    }
}

impl Drop for Letter {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own, and nothing borrows from it any more.
        unsafe { libc::munmap(self.words.as_ptr().cast(), SIZE) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_is_read_as_it_was_written() {
        let letter = Letter::new().unwrap();
        assert_eq!((letter.candidate(0), letter.exec(0)), (None, Errno::ENOENT));
        let c = |texts: &[&str]| texts.iter().map(|t| CString::new(*t).unwrap()).collect::<Vec<_>>();
        let (argv, envp) = (CArray::new(c(&["a", "", "b c"])), CArray::new(c(&["X=1"])));
        letter.write(&c(&["/nowhere/a", "/b"]), &argv, &envp).unwrap();
        assert_eq!([0, 1, 2].map(|n| letter.candidate(n)), [Some(c"/nowhere/a"), Some(c"/b"), None]);
        assert_eq!((letter.exec(0), letter.name()), (Errno::ENOENT, c"a"));
        let strings = |at: usize, count: usize| {
            let first = letter.word(at);
            // SAFETY: as many pointers as were written there.
            (0..count).map(|n| unsafe { CStr::from_ptr(letter.word(first + n) as *const c_char) }).collect::<Vec<_>>()
        };
        assert_eq!((strings(1, 3), strings(2, 1)), (vec![c"a", c"", c"b c"], vec![c"X=1"]));
        assert_eq!((letter.word(letter.word(1) + 3), letter.word(letter.word(2) + 1)), (0, 0));
        let long = CArray::new(c(&["x".repeat(SIZE).as_str()]));
        assert_eq!(letter.write(&c(&["/a"]), &long, &envp), Err(Errno::E2BIG));
        letter.write(&c(&["/a"]), &CArray::new(Vec::new()), &envp).unwrap();
        assert_eq!([0, 1].map(|n| letter.candidate(n)), [Some(c"/a"), None]);
    }
}
