//! The ring that hands receive buffers to the kernel (IORING_REGISTER_PBUF_RING).
//!
//! The kernel takes buffers in the order they were handed over. Were they all in the ring, each receive would go to
//! the memory used longest ago, which no cache holds any more: with 16 MiB going round, echoing 64 KiB messages took
//! 1.5 to 2 times the CPU that it takes with 1 MiB (on an otherwise quiet machine; on a loaded one both took as
//! much). So the ring holds few, the ones released last, and more only while receives find it empty.

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
    /// How many the kernel shall have.
    level: u32,
    /// The level without need for more.
    base_level: u32,
    /// The fewest it had since the level was last considered, and how many turns ago that was.
    low_water: u32,
    turns: u32,
    ran_out: bool,
}

/// Bytes the kernel has to receive into when little is going on: about a core's second-level cache.
const BASE_BYTES: u32 = 1 << 20;
/// However large the buffers, some are there.
const LEAST: u32 = 16;
/// Turns after which a level that was not needed is halved: some 10 ms at full load.
const TURNS: u32 = 1024;

impl BufferRing {
    /// Registers an empty ring with room for the whole pool.
    pub(super) fn register(ring: &IoUring, pool: &Pool) -> io::Result<BufferRing> {
        let count = pool.count();
        let memory = Mapping::new(count as usize * size_of::<BufRingEntry>())?;
        let entries = count as u16;
        // SAFETY: the memory is page-aligned, has room for `count` entries, and outlives the io_uring: the reactor
        // drops its ring before this one.
        unsafe { ring.submitter().register_buf_ring_with_flags(memory.base().as_ptr() as u64, entries, GROUP, 0)? };
        let level = (BASE_BYTES / pool.buffer_size()).max(LEAST).min(count);
        Ok(BufferRing {
            memory,
            entries,
            tail: 0,
            available: 0,
            level,
            base_level: level,
            low_water: level,
            turns: 0,
            ran_out: false,
        })
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
        self.low_water = self.low_water.min(self.available);
    }

    /// A receive found the ring empty.
    pub(super) fn ran_out(&mut self) {
        self.ran_out = true;
    }

    /// Hands free buffers of the pool to the kernel, up to the level. Once a turn.
    pub(super) fn refill(&mut self, pool: &Pool) {
        self.adjust();
        let before = self.tail;
        while self.available < self.level
            && let Some(buffer) = pool.take()
        {
            self.add(pool, buffer);
        }
        if self.tail != before {
            self.publish();
        }
    }

    /// Doubles the level where it was too low, halves it where half was enough for long.
    fn adjust(&mut self) {
        self.turns += 1;
        if std::mem::take(&mut self.ran_out) {
            self.level = (self.level * 2).min(u32::from(self.entries));
        } else if self.turns < TURNS {
            return;
        } else if self.low_water > self.level / 2 {
            self.level = (self.level / 2).max(self.base_level);
        }
        (self.turns, self.low_water) = (0, self.level);
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
