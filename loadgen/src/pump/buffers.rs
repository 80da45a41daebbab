//! Receive buffers the kernel picks from (a provided-buffer ring, io_uring_register_buf_ring(3)).

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::Submitter;
use io_uring::types::BufRingEntry;

/// The only buffer group of a ring.
pub(super) const GROUP: u16 = 0;
const PAGE: usize = 4096;
/// What lies between two buffers, in bytes. With none, the first bytes of all buffers would share a few sets of the
/// caches, and small messages use no more than the first bytes. 17 lines spread them over all sets.
const STAGGER: usize = 17 * 64;

/// Received bytes, lying in a buffer until it is released.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    pub(super) buffer: u16,
    pub(super) len: u32,
}

impl Piece {
    /// How many bytes it holds.
    #[must_use]
    pub fn len(self) -> usize {
        self.len as usize
    }

    /// Whether it holds none; the engine never hands out such a piece.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.len == 0
    }
}

/// `count` buffers of `size` bytes each, and the ring that tells the kernel which are free.
#[derive(Debug)]
pub(super) struct Buffers {
    entries: NonNull<BufRingEntry>,
    memory: NonNull<u8>,
    count: u16,
    size: u32,
    tail: u16,
    free: u16,
}

impl Buffers {
    /// All buffers free, not yet known to the kernel. `count` is a power of two up to 32,768.
    pub(super) fn new(count: u16, size: u32) -> Buffers {
        assert!(count.is_power_of_two(), "the kernel takes powers of two");
        let entries = allocate(entries_layout(count)).cast();
        let memory = allocate(memory_layout(count, size));
        let mut buffers = Buffers { entries, memory, count, size, tail: 0, free: 0 };
        (0..count).for_each(|buffer| buffers.release_index(buffer));
        buffers.publish();
        buffers
    }

    /// Tells the kernel of them, on the ring of `submitter`.
    pub(super) fn register(&self, submitter: &Submitter<'_>) -> io::Result<()> {
        // SAFETY: the entries are page-aligned, `count` of them, and are freed after the ring only (see `Ring`'s owners).
        unsafe { submitter.register_buf_ring_with_flags(self.entries.as_ptr() as u64, self.count, GROUP, 0) }
    }

    /// The bytes of a piece that was received and not released.
    #[inline]
    pub(super) fn bytes(&self, piece: Piece) -> &[u8] {
        // SAFETY: the kernel filled `len` bytes of this buffer and does not touch it until it is released, which
        // needs `&mut self`.
        unsafe { std::slice::from_raw_parts(self.address(piece.buffer), piece.len as usize) }
    }

    /// Where a buffer begins.
    #[inline]
    pub(super) fn address(&self, buffer: u16) -> *const u8 {
        // SAFETY: the index came from the kernel, which knows `count` buffers only; the sum stays inside the memory.
        unsafe { self.memory.as_ptr().add(usize::from(buffer) * (self.size as usize + STAGGER)) }
    }

    /// A buffer came back from the kernel, filled.
    #[inline]
    pub(super) fn take(&mut self, buffer: u16, len: u32) -> Piece {
        assert!(buffer < self.count && len <= self.size, "the kernel names a buffer that isn't there");
        self.free -= 1;
        Piece { buffer, len }
    }

    /// Gives a piece's buffer back; the kernel sees it after [`Buffers::publish`].
    #[inline]
    pub(super) fn release(&mut self, piece: Piece) {
        self.release_index(piece.buffer);
    }

    #[inline]
    fn release_index(&mut self, buffer: u16) {
        let at = usize::from(self.tail & (self.count - 1));
        // SAFETY: `at` is below `count`, and the kernel reads no entry from the tail on.
        let entry = unsafe { &mut *self.entries.as_ptr().add(at) };
        entry.set_addr(self.address(buffer) as u64);
        entry.set_len(self.size);
        entry.set_bid(buffer);
        self.tail = self.tail.wrapping_add(1);
        self.free += 1;
    }

    /// Buffers that are the kernel's.
    pub(super) fn free(&self) -> u16 {
        self.free
    }

    /// Shows the kernel what was released.
    #[inline]
    pub(super) fn publish(&mut self) {
        // SAFETY: the first entry's reserved field is the ring's tail (io_uring_register_buf_ring(3)); it is
        // aligned, and only ever accessed as an atomic once registered.
        let tail = unsafe { &*BufRingEntry::tail(self.entries.as_ptr()).cast::<AtomicU16>() };
        tail.store(self.tail, Ordering::Release);
    }
}

impl Drop for Buffers {
    fn drop(&mut self) {
        // SAFETY: both were allocated with these layouts; the owners drop the ring before (see `Net`, `Relay`).
        unsafe {
            dealloc(self.entries.as_ptr().cast(), entries_layout(self.count));
            dealloc(self.memory.as_ptr(), memory_layout(self.count, self.size));
        }
    }
}

fn entries_layout(count: u16) -> Layout {
    Layout::from_size_align(usize::from(count) * size_of::<BufRingEntry>(), PAGE).expect("a small size")
}

fn memory_layout(count: u16, size: u32) -> Layout {
    Layout::from_size_align(usize::from(count) * (size as usize + STAGGER), PAGE)
        .expect("at most 32,768 buffers of 4 GiB")
}

fn allocate(layout: Layout) -> NonNull<u8> {
    // SAFETY: neither layout is empty: a power of two is at least one, and sizes are set by the callers' constants.
    let pointer = unsafe { alloc_zeroed(layout) };
    NonNull::new(pointer).unwrap_or_else(|| handle_alloc_error(layout))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_go_round() {
        let mut buffers = Buffers::new(4, 64);
        assert_eq!(buffers.free(), 4);
        let piece = buffers.take(2, 5);
        assert_eq!((buffers.free(), piece.len(), buffers.bytes(piece)), (3, 5, &[0; 5][..]));
        buffers.release(piece);
        assert_eq!(buffers.free(), 4);
    }

    #[test]
    #[should_panic(expected = "a buffer that isn't there")]
    fn a_foreign_index_is_refused() {
        let _ = Buffers::new(4, 64).take(4, 1);
    }
}
