//! Anonymous, page-aligned memory that never moves: what the kernel may be told the address of.

#![allow(unsafe_code)]

use std::cell::Cell;
use std::io;
use std::ptr::NonNull;

/// A private anonymous mapping, zeroed and touched: its pages are there, on the node of the thread that made it.
#[derive(Debug)]
pub(super) struct Mapping {
    base: NonNull<u8>,
    len: usize,
    leaked: Cell<bool>,
}

impl Mapping {
    /// Maps at least `len` bytes.
    pub(super) fn new(len: usize) -> io::Result<Mapping> {
        let (protection, flags) =
            (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_POPULATE);
        // SAFETY: a new anonymous mapping at an address of the kernel's choice overlaps nothing of ours.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), len, protection, flags, -1, 0) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Mapping { base, len, leaked: Cell::new(false) })
    }

    /// Where it begins; page-aligned.
    pub(super) fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// Its length in bytes.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Leaves the memory mapped for ever, for the kernel may still write to it.
    pub(super) fn leak(&self) {
        self.leaked.set(true);
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if self.leaked.get() {
            return;
        }
        // SAFETY: this is the mapping made in `new`, and nobody refers to it after its owner is gone: references
        // into it borrow the owner, and a reactor ends what the kernel has in flight before it drops its memory.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
    }
}
