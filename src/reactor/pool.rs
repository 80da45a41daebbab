//! The receive buffers of a reactor, and who holds them.
//!
//! ```text
//!   free ──take()──► with the reactor (the kernel may write) ──lease()──► leased, counted
//!    ▲                             │ put_back()                              │ last release()
//!    └─────────────────────────────┴─────────────────────────────────────────┘
//! ```
//!
//! Invariants:
//! - A buffer is in exactly one of the three states; only a leased one has a count above zero.
//! - The generation changes with the end of each lease, so a piece kept too long is caught, never misread.

#![allow(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::io;
use std::ptr::NonNull;

use super::memory::Mapping;
use crate::base::{Leases, Piece};

/// One core's receive buffers: a single mapping, touched at start, leased out in counted pieces.
#[derive(Debug)]
pub struct Pool {
    memory: Mapping,
    buffers: Box<[Buffer]>,
    /// Grows to the number of buffers at most, and is that large from the start.
    free: RefCell<Vec<u32>>,
    in_use: Cell<u32>,
    size: u32,
}

#[derive(Debug, Default)]
struct Buffer {
    count: Cell<u32>,
    generation: Cell<u32>,
}

impl Pool {
    /// Bytes from one buffer's start to the next one's beyond its size. Without it, the first bytes of all buffers,
    /// where small frames are, would share a few sets of the caches: those count in 64-byte lines.
    const SKEW: usize = 64;

    /// A pool of `count` buffers of `size` bytes, all free.
    pub(super) fn new(count: u32, size: u32) -> io::Result<Pool> {
        if !count.is_power_of_two() || count > 1 << 15 {
            return Err(invalid("the number of receive buffers must be a power of two, at most 32768"));
        }
        if size == 0 || !size.is_multiple_of(64) || size > 1 << 24 {
            return Err(invalid("the size of a receive buffer must be a multiple of 64, at most 16 MiB"));
        }
        let memory = Mapping::new(count as usize * (size as usize + Pool::SKEW))?;
        Ok(Pool {
            memory,
            buffers: (0..count).map(|_| Buffer::default()).collect(),
            free: RefCell::new((0..count).rev().collect()),
            in_use: Cell::new(0),
            size,
        })
    }

    /// How many buffers there are.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.buffers.len() as u32
    }

    /// Bytes in each buffer.
    #[must_use]
    pub fn buffer_size(&self) -> u32 {
        self.size
    }

    /// Buffers leased out.
    #[must_use]
    pub fn in_use(&self) -> u32 {
        self.in_use.get()
    }

    /// Buffers not leased out: ready to be received into, at the latest from the next turn.
    #[must_use]
    pub fn free(&self) -> u32 {
        self.count() - self.in_use()
    }

    /// Takes a free buffer to receive into.
    pub(super) fn take(&self) -> Option<u32> {
        self.free.borrow_mut().pop()
    }

    /// Gives back a taken buffer that nothing was received into.
    pub(super) fn put_back(&self, buffer: u32) {
        debug_assert_eq!(self.buffers[buffer as usize].count.get(), 0);
        self.free.borrow_mut().push(buffer);
    }

    /// Turns a taken buffer, of which the first `len` bytes are filled, into a lease with one count.
    pub(super) fn lease(&self, buffer: u32, len: u32) -> Piece {
        let state = &self.buffers[buffer as usize];
        assert!(state.count.get() == 0 && len <= self.size, "buffer {buffer} is leased already, or overrun");
        state.count.set(1);
        self.in_use.set(self.in_use.get() + 1);
        Piece { buffer, generation: state.generation.get(), offset: 0, len }
    }

    /// Where a buffer begins.
    pub(super) fn address(&self, buffer: u32) -> NonNull<u8> {
        assert!(buffer < self.count());
        // SAFETY: inside the mapping, which has room for `count` buffers with their skew.
        unsafe { self.memory.base().add(buffer as usize * (self.size as usize + Pool::SKEW)) }
    }

    /// The whole mapping.
    pub(super) fn memory(&self) -> &Mapping {
        &self.memory
    }

    /// A taken buffer's bytes, to receive into.
    pub(super) fn taken_bytes(&mut self, buffer: u32) -> &mut [u8] {
        assert_eq!(self.buffers[buffer as usize].count.get(), 0, "buffer {buffer} is leased");
        // SAFETY: the bytes are mapped and initialised (zero at first). Borrowing the pool mutably excludes every
        // reference that `bytes` gave out; the kernel writes to no buffer of a reactor that uses this method.
        unsafe { std::slice::from_raw_parts_mut(self.address(buffer).as_ptr(), self.size as usize) }
    }

    fn state(&self, piece: Piece) -> &Buffer {
        let state = &self.buffers[piece.buffer as usize];
        assert!(
            state.count.get() > 0 && state.generation.get() == piece.generation,
            "the lease of buffer {} has ended",
            piece.buffer
        );
        state
    }
}

impl Leases for Pool {
    #[inline]
    fn bytes(&self, piece: Piece) -> &[u8] {
        self.state(piece);
        assert!(piece.offset.checked_add(piece.len).is_some_and(|end| end <= self.size), "beyond the buffer");
        // SAFETY: in bounds by the line above, initialised (the mapping is zeroed), and not written to while the
        // reference lives: a leased buffer is with nobody else, and one released meanwhile goes back to the kernel
        // only in methods that borrow the reactor, and the pool in it, mutably.
        unsafe {
            std::slice::from_raw_parts(
                self.address(piece.buffer).as_ptr().add(piece.offset as usize),
                piece.len as usize,
            )
        }
    }

    #[inline]
    fn retain(&self, piece: Piece) {
        let count = &self.state(piece).count;
        count.set(count.get().checked_add(1).expect("fewer than 2^32 counts of one lease"));
    }

    #[inline]
    fn release(&self, piece: Piece) {
        let state = self.state(piece);
        state.count.set(state.count.get() - 1);
        if state.count.get() == 0 {
            state.generation.set(state.generation.get().wrapping_add(1));
            self.in_use.set(self.in_use.get() - 1);
            self.free.borrow_mut().push(piece.buffer);
        }
    }
}

fn invalid(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_go_up_and_down() {
        let mut pool = Pool::new(4, 128).expect("memory");
        let taken = pool.take().expect("a buffer");
        pool.taken_bytes(taken)[..3].copy_from_slice(b"abc");
        let piece = pool.lease(taken, 3);
        assert_eq!((pool.in_use(), pool.free()), (1, 3));
        pool.retain(piece.part(1, 2));
        pool.release(piece);
        assert_eq!(pool.bytes(piece.part(1, 2)), b"bc");
        pool.release(piece);
        assert_eq!((pool.in_use(), pool.free()), (0, 4));
        let all: Vec<u32> = std::iter::from_fn(|| pool.take()).collect();
        assert_eq!(all.len(), 4);
    }

    #[test]
    #[should_panic(expected = "has ended")]
    fn a_stale_piece_is_caught() {
        let pool = Pool::new(1, 64).expect("memory");
        let buffer = pool.take().expect("a buffer");
        let old = pool.lease(buffer, 1);
        pool.release(old);
        let buffer = pool.take().expect("the same buffer");
        pool.lease(buffer, 1);
        let _ = pool.bytes(old);
    }

    #[test]
    fn buffers_do_not_overlap() {
        let mut pool = Pool::new(8, 192).expect("memory");
        let all: Vec<u32> = std::iter::from_fn(|| pool.take()).collect();
        for &buffer in &all {
            pool.taken_bytes(buffer).fill(buffer as u8);
        }
        for &buffer in &all {
            let piece = pool.lease(buffer, 192);
            assert!(pool.bytes(piece).iter().all(|&byte| byte == buffer as u8));
        }
    }

    #[test]
    fn odd_sizes_are_refused() {
        for (count, size) in [(3, 64), (0, 64), (1 << 16, 64), (4, 0), (4, 100), (4, 1 << 25)] {
            assert!(Pool::new(count, size).is_err(), "{count} x {size}");
        }
    }
}
