//! The ring that hands receive buffers to the kernel (IORING_REGISTER_PBUF_RING).

#![allow(unsafe_code)]

use std::io;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::IoUring;
use io_uring::types::BufRingEntry;

use crate::reactor::memory::Mapping;
use crate::reactor::pool::Pool;

/// The one buffer group of a ring.
pub(super) const GROUP: u16 = 0;

#[derive(Debug)]
pub(super) struct BufferRing {
    memory: Mapping,
    /// A power of two.
    entries: u16,
    /// Counts on for ever; the kernel sees it with `publish`.
    tail: u16,
    /// Buffers the kernel can still receive into.
    available: u32,
}

impl BufferRing {
    /// Registers an empty ring with room for the whole pool.
    pub(super) fn register(ring: &IoUring, count: u32) -> io::Result<BufferRing> {
        let memory = Mapping::new(count as usize * size_of::<BufRingEntry>())?;
        let entries = count as u16;
        // SAFETY: the memory is page-aligned, has room for `count` entries, and outlives the io_uring: the reactor
        // drops its ring before this one.
        unsafe { ring.submitter().register_buf_ring_with_flags(memory.base().as_ptr() as u64, entries, GROUP, 0)? };
        Ok(BufferRing { memory, entries, tail: 0, available: 0 })
    }

    /// Buffers the kernel can still receive into.
    pub(super) fn available(&self) -> u32 {
        self.available
    }

    /// Leaves the ring's memory mapped for ever.
    pub(super) fn leak(&self) {
        self.memory.leak();
    }

    /// The kernel took one out, to receive into it.
    pub(super) fn took_one(&mut self) {
        self.available -= 1;
    }

    /// Hands every free buffer of the pool to the kernel.
    pub(super) fn refill(&mut self, pool: &Pool) {
        let before = self.tail;
        while let Some(buffer) = pool.take() {
            self.add(pool, buffer);
        }
        if self.tail != before {
            self.publish();
        }
    }

    fn add(&mut self, pool: &Pool, buffer: u32) {
        let at = usize::from(self.tail & (self.entries - 1));
        // SAFETY: `at` is below the number of entries mapped, and the kernel doesn't look at entries beyond the
        // published tail. There is always room: no more buffers exist than entries. The tail itself lies in a field
        // of the first entry that these setters don't touch.
        unsafe {
            let entry = &mut *self.memory.base().as_ptr().cast::<BufRingEntry>().add(at);
            entry.set_addr(pool.address(buffer).as_ptr() as u64);
            entry.set_len(pool.buffer_size());
            entry.set_bid(buffer as u16);
        }
        self.tail = self.tail.wrapping_add(1);
        self.available += 1;
    }

    fn publish(&self) {
        // SAFETY: the tail lies in the mapped first entry, aligned to two bytes; we are the only writer, and the
        // kernel reads it with an acquire, as we read nothing of it.
        unsafe {
            let tail = BufRingEntry::tail(self.memory.base().as_ptr().cast()).cast_mut();
            AtomicU16::from_ptr(tail).store(self.tail, Ordering::Release);
        }
    }
}
