//! What leaves on one connection, in which order.
//!
//! ```text
//!   control frames ─────────────► control ┐
//!   small bodies, frame headers ─► staged  ├─► one Batch a turn ─► reactor
//!   large pieces, by reference ─► segments ┘
//!   streams that found no room ─► ring (deficit round robin) ─► staged, as room comes
//! ```
//!
//! Staged bytes keep their order. Control frames overtake them, so only frames that are true at any time go there:
//! CREDIT, PING, PONG, GOAWAY. What ends a stream (ERROR, CANCEL) is staged, behind that stream's bytes.

use std::collections::VecDeque;

use super::flow::Dir;
use crate::base::{Batch, Key, Piece, Segment, Time};
use crate::protocol::HEADER_LEN;

/// Something to be done when the kernel has taken the bytes up to `at`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    pub at: u64,
    pub request: Key,
    pub dir: Dir,
    /// Body bytes that then have left.
    pub bytes: u32,
    /// With them, a one-way request has been handed over whole (§5).
    pub whole: bool,
}

/// One connection's output. See the module's page.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    control: Vec<u8>,
    staged: Vec<u8>,
    segments: Vec<Segment>,
    /// Bytes in `staged` and `segments`.
    waiting: usize,
    /// Unsent bytes of the batch that is with the reactor, or parked.
    in_flight: usize,
    /// A batch the socket did not take whole.
    parked: Option<Batch>,
    /// With the reactor now.
    sending: bool,
    /// Since when the socket takes nothing.
    blocked_since: Option<Time>,
    /// The turn in which the socket became full, while leases may still wait for it.
    lent_since: Option<u64>,
    /// Listed among those whose leases are watched.
    watched: bool,
    marks: VecDeque<Mark>,
    staged_to: u64,
    sent_to: u64,
    /// Streams with bytes to send, in turn.
    pub ring: VecDeque<(Key, Dir)>,
    /// Listed for the end of the turn.
    pub dirty: bool,
    /// Bytes of the batch that is out or parked, as the core has counted them against `core_buffer`.
    pub counted: usize,
}

impl Outbox {
    /// Whether another body may be staged.
    #[inline]
    pub(super) fn has_room(&self, limit: usize) -> bool {
        self.waiting + self.in_flight < limit
    }

    /// Bytes staged or with the reactor.
    pub(super) fn pending(&self) -> usize {
        self.waiting + self.in_flight + self.control.len()
    }

    /// Nothing is left to send, and nothing is with the reactor (a batch may be all control frames).
    pub(super) fn is_empty(&self) -> bool {
        self.pending() == 0 && self.ring.is_empty() && !self.sending && self.parked.is_none()
    }

    /// Bytes waiting that no credit and no window bounds.
    pub(super) fn unbounded(&self) -> usize {
        self.control.len() + self.staged.len()
    }

    pub(super) fn is_blocked(&self) -> bool {
        self.blocked_since.is_some()
    }

    /// Whether leased pieces may wait here: not for a socket that takes nothing for long.
    #[inline]
    pub(super) fn may_lease(&self) -> bool {
        self.blocked_since.is_none() || self.lent_since.is_some()
    }

    /// The socket is full in this turn. Says whether its leases must be watched from now on.
    pub(super) fn lend(&mut self, turn: u64) -> bool {
        self.lent_since.get_or_insert(turn);
        !std::mem::replace(&mut self.watched, true)
    }

    /// Ends the watch, unless leases wait here since a later turn: that one.
    pub(super) fn unwatch(&mut self, up_to: u64) -> Option<u64> {
        let later = self.lent_since.filter(|&since| since > up_to);
        self.watched = later.is_some();
        later
    }

    pub(super) fn blocked_since(&self) -> Option<Time> {
        self.blocked_since
    }

    /// Bytes sent so far, control frames not counted.
    pub(super) fn sent_bytes(&self) -> u64 {
        self.sent_to
    }

    /// Appends to the control frames.
    #[inline]
    pub(super) fn control(&mut self, spare: &mut Spare, frame: &[u8]) {
        if self.control.capacity() == 0 {
            self.control = spare.take();
        }
        self.control.extend_from_slice(frame);
    }

    /// Appends copied bytes.
    #[inline]
    pub(super) fn stage(&mut self, spare: &mut Spare, parts: [&[u8]; 4]) {
        if self.staged.capacity() == 0 {
            self.staged = spare.take();
        }
        let before = self.staged.len();
        for part in parts {
            self.staged.extend_from_slice(part);
        }
        let len = self.staged.len() - before;
        self.staged_more(len);
    }

    /// Notes that `staged` has grown by so much.
    #[inline]
    fn staged_more(&mut self, len: usize) {
        self.waiting += len;
        self.staged_to += len as u64;
        match self.segments.last_mut() {
            None => {}
            Some(Segment::Staged { len: last }) => *last += len as u32,
            Some(_) => self.segments.push(Segment::Staged { len: len as u32 }),
        }
    }

    /// Appends a small frame: its header, for a REQUEST the id, and a copied body.
    #[inline]
    pub(super) fn stage_small<const N: usize>(
        &mut self,
        spare: &mut Spare,
        header: [u8; HEADER_LEN],
        id: &[u8; N],
        body: &[u8],
    ) {
        if self.staged.capacity() == 0 {
            self.staged = spare.take();
        }
        let len = HEADER_LEN + N + body.len();
        self.staged.reserve(len);
        self.staged.extend_from_slice(&header);
        self.staged.extend_from_slice(id);
        self.staged.extend_from_slice(body);
        self.staged_more(len);
    }

    /// Appends a leased piece; the outbox now owns one count of it.
    pub(super) fn lease(&mut self, spare: &mut Spare, piece: Piece) {
        self.segment(spare, Segment::Lease(piece), piece.len as usize);
    }

    /// Appends a heap chunk without copying it.
    pub(super) fn heap(&mut self, spare: &mut Spare, chunk: Vec<u8>, offset: usize) {
        let len = chunk.len() - offset;
        self.segment(spare, Segment::Heap { chunk, offset: offset as u32 }, len);
    }

    fn segment(&mut self, spare: &mut Spare, segment: Segment, len: usize) {
        if self.segments.capacity() == 0 {
            self.segments = spare.segments.pop().unwrap_or_default();
        }
        if self.segments.is_empty() && !self.staged.is_empty() {
            self.segments.push(Segment::Staged { len: self.staged.len() as u32 });
        }
        self.segments.push(segment);
        self.waiting += len;
        self.staged_to += len as u64;
    }

    /// Asks to be told when all that is staged so far has left.
    #[inline]
    pub(super) fn mark(&mut self, request: Key, dir: Dir, bytes: u32, whole: bool) {
        // never into a mark whose batch is out: a stream that keeps the socket busy would be credited at its end only
        let taken_to = self.staged_to - self.waiting as u64;
        if let Some(last) = self.marks.back_mut()
            && last.request == request
            && last.dir == dir
            && last.at > taken_to
        {
            last.at = self.staged_to;
            last.bytes += bytes;
            last.whole |= whole;
            return;
        }
        self.marks.push_back(Mark { at: self.staged_to, request, dir, bytes, whole });
    }

    /// Nobody is to be told of what leaves from now on.
    pub(super) fn forget_marks(&mut self) {
        self.marks.clear();
    }

    /// Whether somebody is to be told of bytes that leave.
    pub(super) fn has_marks(&self) -> bool {
        !self.marks.is_empty()
    }

    /// The next mark whose bytes have all left.
    pub(super) fn passed_mark(&mut self) -> Option<Mark> {
        let first = self.marks.front()?;
        if first.at <= self.sent_to { self.marks.pop_front() } else { None }
    }

    /// What to send now: the rest of the parked batch, or all that is staged. `None` while a send is out, the
    /// socket is full, or nothing waits.
    pub(super) fn take(&mut self) -> Option<Batch> {
        if self.sending || self.blocked_since.is_some() {
            return None;
        }
        if let Some(batch) = self.parked.take() {
            self.sending = true;
            return Some(batch);
        }
        let total = self.waiting + self.control.len();
        if total == 0 {
            return None;
        }
        self.sending = true;
        self.in_flight = self.waiting;
        self.waiting = 0;
        Some(Batch {
            control: std::mem::take(&mut self.control),
            staged: std::mem::take(&mut self.staged),
            segments: std::mem::take(&mut self.segments),
            total,
            sent: 0,
        })
    }

    /// A batch came back. Returns it if it is done with; keeps it if the socket is full.
    pub(super) fn returned(&mut self, batch: Batch, now: Time) -> Option<Batch> {
        self.sending = false;
        let left = batch.remaining().min(batch.total - batch.control.len());
        let moved = self.in_flight - left;
        self.in_flight = left;
        self.sent_to += moved as u64;
        if batch.remaining() == 0 {
            self.lent_since = None;
            return Some(batch);
        }
        self.blocked_since = Some(now);
        self.parked = Some(batch);
        None
    }

    /// Another core took the batch that was out.
    pub(super) fn delivered(&mut self) {
        self.sending = false;
        self.sent_to += self.in_flight as u64;
        self.in_flight = 0;
    }

    /// The socket takes bytes again.
    pub(super) fn unblock(&mut self) {
        self.blocked_since = None;
    }

    /// Everything that waits for a full socket, to move its leases off the receive buffers: the batch it did not
    /// take whole, and what was staged behind it meanwhile. No other leases will wait there.
    pub(super) fn stuck_segments(&mut self) -> impl Iterator<Item = &mut Segment> {
        self.lent_since = None;
        let parked = self.parked.as_mut().map(|batch| &mut batch.segments);
        parked.into_iter().flatten().chain(&mut self.segments)
    }

    /// Takes everything apart at the connection's end.
    pub(super) fn dismantle(&mut self) -> Vec<Batch> {
        self.sending = false;
        self.blocked_since = None;
        let parked = self.parked.take();
        self.in_flight = 0;
        parked.into_iter().chain(self.take()).collect()
    }
}

/// Spare output buffers of one core, so that a warm broker allocates none.
#[derive(Debug, Default)]
pub(super) struct Spare {
    bytes: Vec<Vec<u8>>,
    segments: Vec<Vec<Segment>>,
    kept: usize,
}

/// Bytes of spare capacity kept a core: a full round of small sends for a thousand busy connections. With more, a
/// stream of large bodies would leave its chunks here.
const KEEP: usize = 3 * 1024 * 1024;
/// First size of a buffer: a few small frames; it grows with use and stays grown.
const FIRST: usize = 1024;

impl Spare {
    fn take(&mut self) -> Vec<u8> {
        match self.bytes.pop() {
            Some(buffer) => {
                self.kept -= buffer.capacity();
                buffer
            }
            None => Vec::with_capacity(FIRST),
        }
    }

    pub(super) fn put(&mut self, mut buffer: Vec<u8>) {
        let capacity = buffer.capacity();
        if capacity > 0 && self.kept + capacity <= KEEP {
            buffer.clear();
            self.kept += capacity;
            self.bytes.push(buffer);
        }
    }

    /// Takes a batch apart; leases go to `released`.
    pub(super) fn recycle(&mut self, mut batch: Batch, released: &mut Vec<Piece>) {
        for segment in batch.segments.drain(..) {
            match segment {
                Segment::Staged { .. } => {}
                Segment::Lease(piece) => released.push(piece),
                Segment::Heap { chunk, .. } => self.put(chunk),
            }
        }
        self.put(batch.control);
        self.put(batch.staged);
        // kept small in number: a segment list is only used for large bodies
        if self.segments.len() < 64 && batch.segments.capacity() > 0 {
            self.segments.push(batch.segments);
        }
    }
}
