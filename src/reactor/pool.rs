//! Receive buffers (temporary).
use crate::base::{Leases, Piece};
use std::cell::{Cell, RefCell};
/// Pool.
#[derive(Debug)]
#[allow(missing_docs)]
pub struct Pool {
    pub(crate) mem: Vec<Box<[u8]>>,
    counts: Vec<Cell<u32>>,
    gens: Vec<Cell<u32>>,
    pub(crate) free: RefCell<Vec<u32>>,
}
#[allow(missing_docs)]
impl Pool {
    pub fn new(n: usize, size: usize) -> Pool {
        Pool {
            mem: (0..n).map(|_| vec![1u8; size].into_boxed_slice()).collect(),
            counts: vec![Cell::new(0); n],
            gens: vec![Cell::new(0); n],
            free: RefCell::new((0..n as u32).collect()),
        }
    }
    pub fn capacity(&self) -> usize {
        self.mem.len()
    }
    pub fn free(&self) -> usize {
        self.free.borrow().len()
    }
    pub(crate) fn lease(&mut self, buffer: u32, len: u32) -> Piece {
        let b = buffer as usize;
        self.counts[b].set(1);
        self.gens[b].set(self.gens[b].get() + 1);
        Piece { buffer, generation: self.gens[b].get(), offset: 0, len }
    }
}
impl Leases for Pool {
    fn bytes(&self, p: Piece) -> &[u8] {
        assert!(self.counts[p.buffer as usize].get() > 0 && self.gens[p.buffer as usize].get() == p.generation);
        &self.mem[p.buffer as usize][p.offset as usize..][..p.len as usize]
    }
    fn retain(&self, p: Piece) {
        let c = &self.counts[p.buffer as usize];
        assert!(c.get() > 0);
        c.set(c.get() + 1)
    }
    fn release(&self, p: Piece) {
        let c = &self.counts[p.buffer as usize];
        assert!(c.get() > 0);
        c.set(c.get() - 1);
        if c.get() == 0 {
            self.free.borrow_mut().push(p.buffer)
        }
    }
}
