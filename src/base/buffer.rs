//! Bytes on their way through the broker: pieces of leased receive buffers, and batches ready to be sent.
//!
//! A receive buffer belongs to a reactor's pool. What arrives in it is passed on by reference: a [`Piece`] names
//! a part of the buffer, and each holder of a piece owns one count of the buffer's lease. When the last count is
//! released, the reactor gives the buffer back to the kernel.

/// A part of a leased receive buffer.
///
/// Copying the struct copies no lease: whoever keeps a piece beyond the call that showed it to him calls
/// [`Leases::retain`] once, and [`Leases::release`] once when done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Which buffer of the pool.
    pub buffer: u32,
    /// Which lease of that buffer; a stale one is caught.
    pub generation: u32,
    /// Where in the buffer the piece starts, in bytes.
    pub offset: u32,
    /// Its length in bytes.
    pub len: u32,
}

impl Piece {
    /// The part of this piece from `from` on, `len` bytes long.
    ///
    /// # Panics
    /// If that is not inside the piece.
    #[must_use]
    #[inline]
    pub fn part(self, from: usize, len: usize) -> Piece {
        assert!(from + len <= self.len as usize, "part {from}+{len} of a piece of {}", self.len);
        Piece { offset: self.offset + from as u32, len: len as u32, ..self }
    }
}

/// The pool of receive buffers, as the broker core sees it. One thread's own: nothing here is synchronised.
pub trait Leases {
    /// The bytes of a piece.
    ///
    /// # Panics
    /// If the piece's lease has ended.
    fn bytes(&self, piece: Piece) -> &[u8];
    /// Takes one more count of the piece's lease.
    fn retain(&self, piece: Piece);
    /// Gives one count back; with the last, the buffer returns to the kernel at the end of the turn.
    fn release(&self, piece: Piece);
}

/// One stretch of a [`Batch`], in the order it is sent.
#[derive(Debug, PartialEq, Eq)]
pub enum Segment {
    /// The next `len` bytes of [`Batch::staged`].
    Staged {
        /// Length in bytes.
        len: u32,
    },
    /// A leased piece of which this segment owns one count.
    Lease(Piece),
    /// Bytes of `chunk` from `offset` to its end.
    Heap {
        /// The bytes, owned.
        chunk: Vec<u8>,
        /// Where the unsent part begins.
        offset: u32,
    },
}

/// What leaves for one connection in one send: at most one batch a connection is with the reactor at a time.
///
/// Sent in this order: `control`, then the segments; with no segments at all, `staged` whole.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// Control frames: they overtake bodies.
    pub control: Vec<u8>,
    /// Copied bytes: frame headers and small bodies.
    pub staged: Vec<u8>,
    /// The order of staged, leased and heap stretches. Empty: `staged` is all there is (the common case).
    pub segments: Vec<Segment>,
    /// Bytes in all.
    pub total: usize,
    /// Bytes the kernel has taken already, from the front.
    pub sent: usize,
}

impl Batch {
    /// Bytes still to be sent.
    #[must_use]
    #[inline]
    pub fn remaining(&self) -> usize {
        self.total - self.sent
    }

    /// Calls `each` with the stretches still to be sent, in order.
    pub fn for_each_unsent<'a>(&'a self, leases: &'a impl Leases, mut each: impl FnMut(&'a [u8])) {
        let mut skip = self.sent;
        let mut show = |bytes: &'a [u8]| {
            if skip >= bytes.len() {
                skip -= bytes.len();
            } else {
                each(&bytes[skip..]);
                skip = 0;
            }
        };
        if !self.control.is_empty() {
            show(&self.control);
        }
        if self.segments.is_empty() {
            if !self.staged.is_empty() {
                show(&self.staged);
            }
            return;
        }
        let mut at = 0;
        for segment in &self.segments {
            match segment {
                Segment::Staged { len } => {
                    show(&self.staged[at..at + *len as usize]);
                    at += *len as usize;
                }
                Segment::Lease(piece) => show(leases.bytes(*piece)),
                Segment::Heap { chunk, offset } => show(&chunk[*offset as usize..]),
            }
        }
    }
}

/// For bytes of which none lies in a leased buffer.
#[derive(Clone, Copy, Debug)]
pub struct NoLeases;

impl Leases for NoLeases {
    fn bytes(&self, piece: Piece) -> &[u8] {
        unreachable!("{piece:?} outside a pool")
    }
    fn retain(&self, piece: Piece) {
        unreachable!("{piece:?} outside a pool")
    }
    fn release(&self, piece: Piece) {
        unreachable!("{piece:?} outside a pool")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct None_;
    impl Leases for None_ {
        fn bytes(&self, _: Piece) -> &[u8] {
            b"lease"
        }
        fn retain(&self, _: Piece) {}
        fn release(&self, _: Piece) {}
    }

    #[test]
    fn stretches_come_in_order_from_every_offset() {
        let whole = b"ctlableasecdheap".to_vec();
        for sent in 0..=whole.len() {
            let batch = Batch {
                control: b"ctl".to_vec(),
                staged: b"abcd".to_vec(),
                segments: vec![
                    Segment::Staged { len: 2 },
                    Segment::Lease(Piece { buffer: 0, generation: 0, offset: 0, len: 5 }),
                    Segment::Staged { len: 2 },
                    Segment::Heap { chunk: b"xxheap".to_vec(), offset: 2 },
                ],
                total: whole.len(),
                sent,
            };
            let mut seen = Vec::new();
            batch.for_each_unsent(&None_, |bytes| seen.extend_from_slice(bytes));
            assert_eq!(seen, whole[sent..]);
        }
    }
}
