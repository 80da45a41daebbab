//! Leased receive buffers that notice every misuse: stale generations, counts gone wrong, leases never returned.

use std::cell::{Cell, RefCell};

use corelay::base::{Leases, Piece};

#[derive(Debug, Default)]
struct Slot {
    bytes: Vec<u8>,
    generation: u32,
    count: Cell<u32>,
    /// The turn it was leased in.
    since: u64,
}

/// See the module's page.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    slots: Vec<Slot>,
    free: RefCell<Vec<u32>>,
}

impl Pool {
    /// Puts `bytes` into a free buffer. The caller owns one count.
    pub(crate) fn lease(&mut self, bytes: Vec<u8>, turn: u64) -> Piece {
        let index = self.free.get_mut().pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            self.slots.len() as u32 - 1
        });
        let slot = &mut self.slots[index as usize];
        assert_eq!(slot.count.get(), 0, "a leased buffer was on the free list");
        slot.generation += 1;
        slot.count.set(1);
        slot.since = turn;
        let len = bytes.len() as u32;
        slot.bytes = bytes;
        Piece { buffer: index, generation: slot.generation, offset: 0, len }
    }

    /// How many buffers are leased.
    pub(crate) fn leased(&self) -> usize {
        self.slots.iter().filter(|slot| slot.count.get() > 0).count()
    }

    /// The turn in which the oldest lease began.
    pub(crate) fn oldest(&self) -> Option<u64> {
        self.slots.iter().filter(|slot| slot.count.get() > 0).map(|slot| slot.since).min()
    }

    fn slot(&self, piece: Piece) -> &Slot {
        let slot = &self.slots[piece.buffer as usize];
        assert_eq!(slot.generation, piece.generation, "stale lease: {piece:?} was let again");
        assert!(slot.count.get() > 0, "stale lease: {piece:?} was given back");
        slot
    }
}

impl Leases for Pool {
    fn bytes(&self, piece: Piece) -> &[u8] {
        &self.slot(piece).bytes[piece.offset as usize..][..piece.len as usize]
    }

    fn retain(&self, piece: Piece) {
        let count = &self.slot(piece).count;
        count.set(count.get() + 1);
    }

    fn release(&self, piece: Piece) {
        let count = &self.slot(piece).count;
        count.set(count.get() - 1);
        if count.get() == 0 {
            self.free.borrow_mut().push(piece.buffer);
        }
    }
}
