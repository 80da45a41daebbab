//! One direction of one request: credit on both sides, and what waits between them.
//!
//! ```text
//!   upstream ── granted ──►  queue  ── credit ──► downstream
//!            ◄── owed ──── bytes that have left, granted again in large steps (§4)
//! ```
//!
//! Invariants:
//! - `granted` is what upstream may still send; `queue.len() + owed + granted` never exceeds the window upstream
//!   was promised, so a direction holds at most one window.
//! - Nothing is staged beyond `credit`.

use std::collections::VecDeque;

use super::tap::Copied;
use crate::base::{Leases, Piece};
use crate::protocol::Code;

/// Which way body bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Dir {
    /// Consumer to provider: REQUEST, DATA.
    Up,
    /// Provider to consumer: RESPONSE, DATA.
    Down,
}

/// Body bytes in hand: always readable as a slice; a piece too where they lie in a leased buffer.
#[derive(Clone, Copy)]
pub(super) struct Body<'a> {
    pub bytes: &'a [u8],
    pub piece: Option<Piece>,
}

impl<'a> Body<'a> {
    pub(super) const EMPTY: Body<'static> = Body { bytes: &[], piece: None };

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn split(self, at: usize) -> (Body<'a>, Body<'a>) {
        let (head, tail) = self.bytes.split_at(at);
        let part = |from, len| self.piece.map(|piece| piece.part(from, len));
        (Body { bytes: head, piece: part(0, at) }, Body { bytes: tail, piece: part(at, tail.len()) })
    }
}

/// An error that ends a direction behind the bytes still queued.
#[derive(Debug)]
pub(super) struct Trailer {
    pub code: Code,
    pub started: bool,
    pub text: String,
}

/// One direction of a request. See the module's page.
#[derive(Debug, Default)]
pub(super) struct Flow {
    /// Bytes upstream may still send.
    pub granted: u32,
    /// Bytes that have left and were not granted again yet.
    pub owed: u32,
    /// Bytes about to leave a second time (a RETRY), whose credit was given the first time.
    pub uncredited: u32,
    /// Bytes credited so far, for `uncredited` of the next attempt. Only kept for RETRY.
    pub credited: u32,
    /// Bytes downstream still takes.
    pub credit: u32,
    /// What deficit round robin owes this stream.
    pub deficit: u32,
    /// How often its window was doubled.
    pub grown: u8,
    /// Upstream has sent its opening frame (REQUEST or RESPONSE).
    pub begun: bool,
    /// Upstream has sent END (or its ERROR).
    pub received_end: bool,
    /// The opening frame (REQUEST or RESPONSE) is staged.
    pub opened: bool,
    /// END or a terminal frame is staged.
    pub ended: bool,
    /// Waits for its turn on the connection downstream.
    pub in_ring: bool,
    /// How far it has been copied for those it is forwarded to.
    pub copied: Copied,
    /// Entries of the header block for the opening frame, with the size in front.
    pub head: Option<Box<[u8]>>,
    /// What ends the direction in place of END.
    pub trailer: Option<Box<Trailer>>,
    /// Bytes received and not staged.
    pub queue: ByteQueue,
}

impl Flow {
    /// A direction received whole in one frame, and staged whole.
    pub(super) const WHOLE: Flow = Flow {
        granted: 0,
        owed: 0,
        uncredited: 0,
        credited: 0,
        credit: 0,
        deficit: 0,
        grown: 0,
        begun: true,
        received_end: true,
        opened: true,
        ended: true,
        in_ring: false,
        copied: Copied::No,
        head: None,
        trailer: None,
        queue: ByteQueue(None),
    };

    /// Something could be staged now: bytes within credit, the opening frame, or the end.
    pub(super) fn is_ready(&self) -> bool {
        if self.ended || !self.begun {
            return false;
        }
        if self.queue.is_empty() { self.received_end || !self.opened } else { self.credit > 0 || !self.opened }
    }

    /// Takes `n` received bytes off what upstream was granted; `false` where it had not been granted so much.
    #[must_use]
    pub(super) fn take_granted(&mut self, n: usize) -> bool {
        match u32::try_from(n).ok().and_then(|n| self.granted.checked_sub(n)) {
            Some(left) => {
                self.granted = left;
                true
            }
            None => false,
        }
    }

    /// `n` bytes have left: they will be owed to upstream, except those of a second attempt.
    pub(super) fn left(&mut self, n: u32) {
        let again = n.min(self.uncredited);
        self.uncredited -= again;
        self.owed += n - again;
        self.credited = self.credited.saturating_add(n - again);
    }
}

/// Bytes in order, as chunks on the heap or as leased pieces. Takes one word until something is queued: most requests
/// never queue a byte, and the table of requests is what the caches hold.
#[derive(Debug, Default)]
pub(super) struct ByteQueue(Option<Box<Chunks>>);

#[derive(Debug, Default)]
struct Chunks {
    list: VecDeque<Chunk>,
    len: usize,
    heap: usize,
    leased: usize,
    /// Under which turn the core has listed it, to look after its leases.
    watched: Option<u64>,
}

/// One stretch of a [`ByteQueue`].
#[derive(Debug)]
pub(super) enum Chunk {
    /// `bytes` from `offset` on.
    Heap { bytes: Vec<u8>, offset: usize },
    /// A piece of which the queue owns one count, and the turn it was received in.
    Lease(Piece, u64),
}

/// Smallest heap chunk allocated: a peer that sends byte by byte fills these, rather than one allocation a byte.
const MIN_CHUNK: usize = 512;
/// Up to this size each chunk of a stream is twice the one before. Larger pieces get chunks of their very size, so
/// that what is held is what was received.
const MAX_CHUNK: usize = 4 * 1024;

impl ByteQueue {
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |chunks| chunks.len)
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of heap memory held, allocated but unused ones included: what `core_buffer` counts.
    #[inline]
    pub(super) fn heap(&self) -> usize {
        self.0.as_ref().map_or(0, |chunks| chunks.heap)
    }

    pub(super) fn has_leases(&self) -> bool {
        self.0.as_ref().is_some_and(|chunks| chunks.leased > 0)
    }

    pub(super) fn push_copy(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.0.get_or_insert_default().push_copy(bytes);
        }
    }

    /// Appends a piece received in this turn; the queue now owns one count of its lease. Says whether the queue is to
    /// be listed under this turn.
    #[must_use]
    pub(super) fn push_lease(&mut self, piece: Piece, turn: u64) -> bool {
        let chunks = self.0.get_or_insert_default();
        chunks.len += piece.len as usize;
        chunks.leased += 1;
        chunks.list.push_back(Chunk::Lease(piece, turn));
        let is_new = chunks.watched.is_none();
        chunks.watched.get_or_insert(turn);
        is_new
    }

    /// Whether the entry under this turn stands for it: one that outlived a cleared queue does not.
    pub(super) fn is_watched_under(&self, turn: u64) -> bool {
        self.0.as_ref().is_some_and(|chunks| chunks.watched == Some(turn))
    }

    /// Its entry has been taken off the list: whether it is to be listed again, under this turn.
    pub(super) fn watch_again(&mut self, turn: u64) -> bool {
        let Some(chunks) = &mut self.0 else { return false };
        chunks.watched = (chunks.leased > 0).then_some(turn);
        chunks.watched.is_some()
    }

    /// Takes up to `max` bytes from the front, as one stretch. `retain` is called where a piece is split in two.
    pub(super) fn pop(&mut self, max: usize, retain: impl FnOnce(Piece)) -> Option<Chunk> {
        if max == 0 {
            return None;
        }
        self.0.as_mut()?.pop(max, retain)
    }

    /// Copies the leased pieces received up to this turn to the heap, and gives their leases back.
    pub(super) fn settle(&mut self, up_to: u64, leases: &impl Leases) {
        let Some(chunks) = &mut self.0 else { return };
        for chunk in &mut chunks.list {
            match *chunk {
                Chunk::Lease(piece, since) if since <= up_to => {
                    let bytes = leases.bytes(piece).to_vec();
                    chunks.heap += bytes.capacity();
                    leases.release(piece);
                    chunks.leased -= 1;
                    *chunk = Chunk::Heap { bytes, offset: 0 };
                }
                Chunk::Lease(..) => return,
                Chunk::Heap { .. } => {}
            }
        }
    }

    /// Empties the queue; leases go to `released`.
    #[inline]
    pub(super) fn clear(&mut self, released: &mut Vec<Piece>) {
        let Some(chunks) = self.0.take() else { return };
        for chunk in chunks.list {
            if let Chunk::Lease(piece, _) = chunk {
                released.push(piece);
            }
        }
    }
}

impl Chunks {
    fn push_copy(&mut self, bytes: &[u8]) {
        self.len += bytes.len();
        let mut size = MIN_CHUNK;
        if let Some(Chunk::Heap { bytes: last, .. }) = self.list.back_mut() {
            if last.capacity() - last.len() >= bytes.len() {
                return last.extend_from_slice(bytes);
            }
            size = (2 * last.capacity()).min(MAX_CHUNK);
        }
        let mut chunk = Vec::with_capacity(bytes.len().max(size));
        chunk.extend_from_slice(bytes);
        self.heap += chunk.capacity();
        self.list.push_back(Chunk::Heap { bytes: chunk, offset: 0 });
    }

    fn pop(&mut self, max: usize, retain: impl FnOnce(Piece)) -> Option<Chunk> {
        let front = self.list.pop_front()?;
        match front {
            Chunk::Lease(piece, since) if piece.len as usize > max => {
                retain(piece);
                self.list.push_front(Chunk::Lease(piece.part(max, piece.len as usize - max), since));
                self.len -= max;
                Some(Chunk::Lease(piece.part(0, max), since))
            }
            Chunk::Lease(piece, since) => {
                self.len -= piece.len as usize;
                self.leased -= 1;
                Some(Chunk::Lease(piece, since))
            }
            Chunk::Heap { bytes, offset } if bytes.len() - offset > max => {
                let part = bytes[offset..offset + max].to_vec();
                self.list.push_front(Chunk::Heap { bytes, offset: offset + max });
                self.len -= max;
                Some(Chunk::Heap { bytes: part, offset: 0 })
            }
            Chunk::Heap { bytes, offset } => {
                self.len -= bytes.len() - offset;
                self.heap -= bytes.capacity();
                Some(Chunk::Heap { bytes, offset })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn bytes_come_out_as_they_went_in(steps in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..3000), 0usize..4000), 1..60)) {
            let mut queue = ByteQueue::default();
            let (mut put, mut got) = (Vec::new(), Vec::new());
            for (bytes, take) in steps {
                queue.push_copy(&bytes);
                put.extend_from_slice(&bytes);
                if let Some(Chunk::Heap { bytes, offset }) = queue.pop(take, |_| ()) {
                    prop_assert!(bytes.len() - offset <= take);
                    got.extend_from_slice(&bytes[offset..]);
                }
                prop_assert_eq!(queue.len(), put.len() - got.len());
                prop_assert!(queue.heap() >= queue.len());
            }
            while let Some(Chunk::Heap { bytes, offset }) = queue.pop(usize::MAX, |_| ()) {
                got.extend_from_slice(&bytes[offset..]);
            }
            prop_assert_eq!(put, got);
            prop_assert_eq!(queue.heap(), 0);
        }
    }

    #[test]
    fn credit_of_a_second_attempt_is_not_given_twice() {
        let mut flow = Flow { uncredited: 10, ..Flow::default() };
        flow.left(4);
        assert_eq!((flow.owed, flow.uncredited), (0, 6));
        flow.left(10);
        assert_eq!((flow.owed, flow.uncredited, flow.credited), (4, 0, 4));
    }
}
