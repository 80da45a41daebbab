//! From received bytes to staged frames, and from sent bytes to credit.

use std::collections::VecDeque;

use super::conn::{Phase, Side};
use super::flow::{Body, Chunk, Dir};
use super::outbox::Mark;
use super::rx::Violation;
use super::{Action, Core, LinkKind, Output, link};
use crate::base::{Batch, Key, Leases, Segment, Time};
use crate::protocol::{Code, Flags, FrameType, HEADER_LEN, Header, MAX_TEXT, REQUEST_ID_LEN, clip_text};

/// Bytes a stream may send in its turn before the next one's (deficit round robin).
const QUANTUM: u32 = 16 * 1024;
/// Leased pieces leave a stream's queue within twice so many turns, and a full socket within as many, or are copied to
/// the heap. A connection takes `connection_buffer` a turn, and turns without sleep are short: with a dozen streams of
/// 64 KiB on one connection the last waits this long. When buffers run low nothing waits (`pressed`).
const LEASE_TURNS: u64 = 16;

impl Core {
    /// Passes body bytes on to the other side: staged at once where there is room and credit, else queued.
    pub(super) fn forward<L: Leases>(&mut self, key: Key, dir: Dir, body: Body<'_>, end: bool, leases: &L) {
        let request = self.requests.get_mut(key).expect("looked up by the caller");
        let target = request.target(dir);
        let flow = request.flow(dir);
        flow.received_end |= end;
        if body.bytes.is_empty() && !end && flow.opened {
            return;
        }
        let Some((target, stream)) = target else { return self.hold(key, dir, body) };
        let conn = self.conns.get_mut(target).expect("a request's target is connected");
        let limit = if conn.side.is_link() { usize::MAX } else { self.options.limits.connection_buffer };
        let mut rest = body;
        if flow.queue.is_empty() && !flow.in_ring && conn.out.ring.is_empty() && conn.out.has_room(limit) {
            let now = body.len().min(flow.credit as usize);
            if now == body.len() || now > 0 || !flow.opened {
                let (first, after) = body.split(now);
                let last = end && after.bytes.is_empty();
                let by_reference = match first.piece {
                    Some(piece) if now >= self.options.copy_below && !conn.side.is_link() && conn.out.may_lease() => {
                        leases.retain(piece);
                        true
                    }
                    _ => false,
                };
                self.stage_body(key, dir, target, stream, first, by_reference, last);
                rest = after;
                self.set_dirty(target);
                if last {
                    self.direction_ended(key, dir);
                    return;
                }
            }
        }
        if !rest.bytes.is_empty() {
            self.queue(key, dir, target, rest, leases);
        }
        self.enlist(key, dir);
    }

    /// Keeps bytes of a request that has no provider yet.
    fn hold(&mut self, key: Key, dir: Dir, body: Body<'_>) {
        assert_eq!(dir, Dir::Up, "an answer whose consumer is gone");
        let request = self.requests.get_mut(key).expect("looked up by the caller");
        let before = request.up.queue.heap();
        request.up.queue.push_copy(body.bytes);
        self.held += request.up.queue.heap() - before;
        let channel = &mut self.channels[request.channel as usize];
        channel.queued_bytes += body.len();
        if channel.queued_bytes > channel.queue_bytes {
            self.end_request(key, Code::Overloaded, "the channel's queue is full");
        }
    }

    fn queue<L: Leases>(&mut self, key: Key, dir: Dir, target: Key, body: Body<'_>, leases: &L) {
        let may_lease = self.conns.get(target).is_some_and(|conn| conn.out.may_lease());
        let flow = self.requests.get_mut(key).expect("looked up by the caller").flow(dir);
        match body.piece {
            Some(piece) if may_lease && body.len() >= self.options.copy_below => {
                leases.retain(piece);
                if flow.queue.push_lease(piece, self.turn) {
                    self.leased.push_back((self.turn, (key, dir)));
                }
            }
            _ => {
                let before = flow.queue.heap();
                flow.queue.push_copy(body.bytes);
                self.held += flow.queue.heap() - before;
            }
        }
    }

    /// Stages one frame with these body bytes; the opening frame first, where it is due.
    #[inline]
    #[allow(clippy::too_many_arguments)]
    fn stage_body(
        &mut self,
        key: Key,
        dir: Dir,
        target: Key,
        stream: u32,
        body: Body<'_>,
        by_reference: bool,
        last: bool,
    ) {
        let chunk = match body.piece {
            Some(piece) if by_reference => Some(Chunk::Lease(piece, self.turn)),
            _ => None,
        };
        let copied = if chunk.is_some() { &[][..] } else { body.bytes };
        self.stage_frame_with(key, dir, (target, stream), copied, chunk, body.len(), last);
    }

    /// Stages a frame's header and head, then `copied`, then `chunk`: `len` body bytes in all.
    #[inline]
    #[allow(clippy::too_many_arguments)]
    fn stage_frame_with(
        &mut self,
        key: Key,
        dir: Dir,
        (target, stream): (Key, u32),
        copied: &[u8],
        chunk: Option<Chunk>,
        len: usize,
        last: bool,
    ) {
        let request = self.requests.get_mut(key).expect("looked up by the caller");
        let conn = self.conns.get_mut(target).expect("a request's target is connected");
        let channel = &mut self.channels[request.channel as usize];
        let (id, flags, hops, origin) = (request.id, request.flags, request.hops, request.origin);
        let left = request.deadline.millis_since(self.now);
        let waited = (!request.handed).then(|| request.age(self.now));
        let flow = request.flow(dir);
        let end = Flags::END.only_if(last);
        if flow.opened {
            let header = Header::new(FrameType::Data, stream).length(len as u32).flags(end);
            conn.out.stage(&mut self.spare, [&header.encode(), copied, &[], &[]]);
        } else {
            flow.opened = true;
            let head = flow.head.take().unwrap_or_default();
            let end = end | Flags::HEADERS.only_if(!head.is_empty());
            let length = (len + head.len()) as u32;
            match dir {
                Dir::Down => {
                    let header = Header::new(FrameType::Response, stream).length(length).flags(end);
                    conn.out.stage(&mut self.spare, [&header.encode(), &head, copied, &[]]);
                }
                Dir::Up => {
                    // what is left, rounded up: 0 would mean the default
                    let ms = left.max(1) as u32;
                    let keep = Flags::ONEWAY.0 | Flags::RETRY.0 | Flags::WAIT.0;
                    let header = Header::new(FrameType::Request, stream).arg(ms).flags(end | Flags(flags.0 & keep));
                    if conn.side.is_link() {
                        let link_head = link::encode_head(channel.id, origin, hops + 1);
                        let length = length + (id.len() + link_head.len()) as u32;
                        let header = Header { kind: link::REQUEST, ..header }.length(length).encode();
                        conn.out.stage(&mut self.spare, [&header, &link_head, &id, &head]);
                        conn.out.stage(&mut self.spare, [copied, &[], &[], &[]]);
                    } else {
                        if let Some(nanos) = waited {
                            self.meters.of(channel).queue_wait.record(nanos);
                        }
                        let header = header.length(length + id.len() as u32).encode();
                        conn.out.stage(&mut self.spare, [&header, &id, &head, copied]);
                    }
                }
            }
        }
        match chunk {
            None => {}
            Some(Chunk::Lease(piece, _)) => conn.out.lease(&mut self.spare, piece),
            Some(Chunk::Heap { bytes, offset }) => conn.out.heap(&mut self.spare, bytes, offset),
        }
        flow.credit -= len as u32;
        flow.ended |= last;
        if conn.side.is_link() {
            return;
        }
        // the source is told of what has left only while it may still send
        let more_to_come = !flow.received_end && len > 0;
        let whole = last && dir == Dir::Up && flags.has(Flags::ONEWAY);
        if more_to_come || whole {
            conn.out.mark(key, dir, len as u32, whole);
        }
    }

    /// The last frame of a direction is staged.
    fn direction_ended(&mut self, key: Key, dir: Dir) {
        if dir == Dir::Down {
            self.answered(key);
        }
    }

    /// Stages what streams have queued on this connection, in turn, while there is room.
    fn fill<L: Leases>(&mut self, target: Key, leases: &L) {
        let limit = self.options.limits.connection_buffer;
        loop {
            let Some(conn) = self.conns.get_mut(target) else { return };
            if conn.out.is_blocked() || !conn.out.has_room(limit) && !conn.side.is_link() {
                return;
            }
            let Some((key, dir)) = conn.out.ring.pop_front() else { return };
            let Some(request) = self.requests.get_mut(key) else { continue };
            let Some((at, stream)) = request.target(dir) else { continue };
            let flow = request.flow(dir);
            if at != target || !flow.in_ring {
                continue;
            }
            flow.deficit = flow.deficit.saturating_add(QUANTUM).min(4 * QUANTUM);
            self.fill_from(key, dir, (target, stream), limit, leases);
        }
    }

    /// One stream's turn.
    fn fill_from<L: Leases>(&mut self, key: Key, dir: Dir, to: (Key, u32), limit: usize, leases: &L) {
        loop {
            let Some(request) = self.requests.get_mut(key) else { return };
            let flow = request.flow(dir);
            if !flow.is_ready() {
                break;
            }
            let conn = self.conns.get_mut(to.0).expect("a request's target is connected");
            if !conn.out.has_room(limit) && !conn.side.is_link() || flow.deficit == 0 {
                conn.out.ring.push_back((key, dir));
                return;
            }
            if flow.queue.is_empty() && flow.trailer.is_some() {
                return self.stage_trailer(key, dir);
            }
            let head = flow.head.as_ref().map_or(0, |head| head.len()) + REQUEST_ID_LEN;
            let frame = self.options.limits.max_frame as usize;
            // pieces of several frames may have joined in the queue
            let frame = if flow.opened { frame } else { frame.saturating_sub(head) };
            let max = (flow.credit.min(flow.deficit) as usize).min(frame);
            let before = flow.queue.heap();
            let chunk = flow.queue.pop(max, |piece| leases.retain(piece));
            self.held -= before - flow.queue.heap();
            let len = chunk.as_ref().map_or(0, Chunk::len);
            flow.deficit -= len as u32;
            let last = flow.received_end && flow.queue.is_empty() && flow.trailer.is_none();
            self.stage_chunk(key, dir, to, chunk, len, last, leases);
            if last {
                if let Some(request) = self.requests.get_mut(key) {
                    request.flow(dir).in_ring = false;
                }
                return self.direction_ended(key, dir);
            }
        }
        if let Some(request) = self.requests.get_mut(key) {
            let flow = request.flow(dir);
            flow.in_ring = false;
            flow.deficit = 0;
        }
    }

    /// Stages a chunk out of a queue: small or for another core, copied; large, as it is.
    #[allow(clippy::too_many_arguments)]
    fn stage_chunk<L: Leases>(
        &mut self,
        key: Key,
        dir: Dir,
        to: (Key, u32),
        chunk: Option<Chunk>,
        len: usize,
        last: bool,
        leases: &L,
    ) {
        let is_link = self.conns.get(to.0).is_some_and(|conn| conn.side.is_link());
        match chunk {
            Some(chunk) if len >= self.options.copy_below && !(is_link && matches!(chunk, Chunk::Lease(..))) => {
                self.stage_frame_with(key, dir, to, &[], Some(chunk), len, last);
            }
            Some(Chunk::Lease(piece, _)) => {
                self.stage_frame_with(key, dir, to, leases.bytes(piece), None, len, last);
                self.released.push(piece);
            }
            Some(Chunk::Heap { bytes, offset }) => {
                self.stage_frame_with(key, dir, to, &bytes[offset..], None, len, last);
            }
            None => self.stage_frame_with(key, dir, to, &[], None, 0, last),
        }
    }

    /// The provider's ERROR, behind the bytes it had sent before.
    fn stage_trailer(&mut self, key: Key, dir: Dir) {
        let flow = self.requests.get_mut(key).expect("looked up by the caller").flow(dir);
        let trailer = flow.trailer.take().expect("looked up by the caller");
        let started = Some(trailer.started);
        self.end(key, super::ending::Ending { code: trailer.code, text: &trailer.text, started, to_provider: None });
    }

    /// Stages an ERROR.
    pub(super) fn stage_error(&mut self, target: Key, stream: u32, code: Code, flags: Flags, text: &str) {
        let text = clip_text(text).as_bytes();
        let header = Header::new(FrameType::Error, stream).code(code).flags(flags).length(text.len() as u32);
        let Some(conn) = self.conns.get_mut(target) else { return };
        if conn.phase == Phase::Closing || conn.phase == Phase::Lingering {
            return;
        }
        conn.out.stage(&mut self.spare, [&header.encode(), text, &[], &[]]);
        self.staged_unasked(target);
    }

    /// Stages a frame without payload, behind what is staged.
    pub(super) fn stage_frame(&mut self, target: Key, frame: &[u8]) {
        let Some(conn) = self.conns.get_mut(target) else { return };
        conn.out.stage(&mut self.spare, [frame, &[], &[], &[]]);
        self.staged_unasked(target);
    }

    /// Frames that no credit bounds were staged: a peer that provokes them and does not read is cut off.
    fn staged_unasked(&mut self, target: Key) {
        let limits = &self.options.limits;
        let conn = self.conns.get_mut(target).expect("looked up by the caller");
        // what leaves at the end of the turn is no flood, however much it is; of what stays, each stream may owe one
        // ERROR with a full text, or one CANCEL
        let owed = match conn.side {
            Side::Provider => 2 * HEADER_LEN * (conn.assigned.len() + conn.max_concurrent.min(1 << 16) as usize),
            _ => limits.max_streams as usize * (HEADER_LEN + MAX_TEXT),
        };
        let bound = limits.connection_buffer + owed + 64 * 1024;
        if conn.out.is_blocked() && conn.out.unbounded() > bound && !conn.side.is_link() && !conn.flooded {
            conn.flooded = true;
            self.flooded.push(target);
        }
        self.set_dirty(target);
    }

    /// Grants the source of this direction what has left, once it is worth a frame (§4).
    #[inline]
    pub(super) fn credit_source(&mut self, key: Key, dir: Dir) {
        let Some(request) = self.requests.get_mut(key) else { return };
        let channel = &self.channels[request.channel as usize];
        if channel.paused {
            return;
        }
        let (window, may_grow) = (channel.window, !channel.spread && self.held < self.options.limits.core_buffer / 4);
        let (Some((source, stream)), target) = (request.source(dir), request.target(dir)) else { return };
        let flow = request.flow(dir);
        let window = window << flow.grown;
        // a quarter of the window: few frames, and the source never runs dry waiting for the last of it
        if flow.received_end || flow.owed == 0 || flow.owed < window / 4 {
            return;
        }
        let mut n = std::mem::take(&mut flow.owed);
        // the source waits for us, and nothing of what it sent is left here: the window is what holds it up
        if may_grow
            && window <= self.options.limits.max_window / 2
            && flow.granted < window / 4
            && flow.queue.is_empty()
        {
            let target = target.and_then(|(target, _)| self.conns.get(target));
            if target.is_some_and(|target| target.out.pending() == 0) {
                flow.grown += 1;
                n += window;
            }
        }
        flow.granted += n;
        let conn = self.conns.get_mut(source).expect("a request's source is connected");
        conn.out.control(&mut self.spare, &Header::new(FrameType::Credit, stream).arg(n).encode());
        self.set_dirty(source);
    }

    /// Lists a connection for output at the end of the turn.
    #[inline]
    pub(super) fn set_dirty(&mut self, key: Key) {
        if let Some(conn) = self.conns.get_mut(key)
            && !conn.out.dirty
        {
            conn.out.dirty = true;
            self.dirty.push(key);
        }
    }

    /// The next batch to be sent, until `None`. Call when all events of the turn are in.
    pub fn next_output<L: Leases>(&mut self, leases: &L) -> Option<Output> {
        if !self.news.is_empty() {
            self.publish_news();
        }
        while let Some(key) = self.dirty.pop() {
            let Some(conn) = self.conns.get_mut(key) else { continue };
            conn.out.dirty = false;
            if !conn.out.ring.is_empty() {
                self.fill(key, leases);
            }
            let Some(conn) = self.conns.get_mut(key) else { continue };
            let batch = conn.out.take();
            // all that is staged counts, sent or not: a peer that reads nothing holds it for long
            self.held = self.held - conn.out.counted + conn.out.pending();
            conn.out.counted = conn.out.pending();
            let Some(batch) = batch else {
                self.finish_closing(key);
                continue;
            };
            // whatever waits for the end of this send must not be slept over
            self.backlog |= !conn.out.ring.is_empty() || conn.out.has_marks() || conn.phase != Phase::Open;
            return Some(match conn.side {
                Side::LinkIn(core) => Output::Link { core, kind: LinkKind::Answers, batch },
                Side::LinkOut(core) => Output::Link { core, kind: LinkKind::Requests, batch },
                _ => Output::Socket { handle: conn.handle, batch },
            });
        }
        None
    }

    /// Whether something waits that could leave at once: the shard is not to sleep on it.
    #[must_use]
    pub fn has_backlog(&self) -> bool {
        !self.dirty.is_empty() || !self.news.is_empty() || !self.actions.is_empty()
    }

    /// A batch came back from the reactor. `lost`: the socket can't be sent on.
    pub fn sent(&mut self, now: Time, key: Key, batch: Batch, lost: bool) {
        self.now = now;
        let Some(conn) = self.conns.get_mut(key) else {
            return self.spare.recycle(batch, &mut self.released);
        };
        self.held -= std::mem::take(&mut conn.out.counted);
        let before = conn.out.sent_bytes();
        let done = conn.out.returned(batch, now);
        self.counters.bytes_sent += conn.out.sent_bytes() - before;
        if lost {
            if let Some(batch) = done {
                self.spare.recycle(batch, &mut self.released);
            }
            return self.close(key, true);
        }
        match done {
            Some(batch) => {
                self.spare.recycle(batch, &mut self.released);
                if conn.out.pending() > 0 || !conn.out.ring.is_empty() || conn.phase != Phase::Open {
                    self.set_dirty(key);
                }
            }
            None => self.blocked(key),
        }
        while let Some(mark) = self.conns.get_mut(key).and_then(|conn| conn.out.passed_mark()) {
            self.passed(mark);
        }
    }

    /// The batch that was out on this link is now the other core's.
    pub fn link_sent(&mut self, now: Time, to: u16, kind: LinkKind) {
        self.now = now;
        let links = if kind == LinkKind::Requests { &self.links_out } else { &self.links_in };
        let key = links[usize::from(to)];
        let conn = self.conns.get_mut(key).expect("links stay open");
        self.held -= std::mem::take(&mut conn.out.counted);
        let before = conn.out.sent_bytes();
        conn.out.delivered();
        self.counters.bytes_sent += conn.out.sent_bytes() - before;
        if conn.out.pending() > 0 || !conn.out.ring.is_empty() {
            self.set_dirty(key);
        }
    }

    /// Keeps the buffers of a link's batch that has been read, for output of this core.
    pub fn recycle(&mut self, batch: Batch) {
        self.spare.recycle(batch, &mut self.released);
    }

    /// The socket is full: unless it takes bytes soon, what it did not take leaves the receive buffers.
    fn blocked(&mut self, key: Key) {
        let conn = self.conns.get_mut(key).expect("looked up by the caller");
        conn.out.counted = conn.out.pending();
        self.held += conn.out.counted;
        if conn.out.lend(self.turn) {
            self.stuck.push_back((self.turn, key));
        }
        let handle = conn.handle;
        self.actions.push_back(Action::NotifyWritable(handle));
        self.arm(key);
    }

    /// Copies what has waited since this turn or longer out of the receive buffers.
    fn settle<L: Leases>(&mut self, up_to: u64, leases: &L) {
        while let Some((since, (key, dir))) = due(&mut self.leased, up_to) {
            let Some(request) = self.requests.get_mut(key) else { continue };
            let queue = &mut request.flow(dir).queue;
            if !queue.is_watched_under(since) {
                continue;
            }
            let before = queue.heap();
            queue.settle(up_to, leases);
            self.held += queue.heap() - before;
            self.counters.bytes_settled += (queue.heap() - before) as u64;
            if queue.watch_again(self.turn) {
                self.leased.push_back((self.turn, (key, dir)));
            }
        }
        while let Some((_, key)) = due(&mut self.stuck, up_to) {
            self.settle_stuck(key, up_to, leases);
        }
    }

    /// A socket that has been full since this turn or longer: its leases go back, and it gets no others until it takes
    /// bytes.
    fn settle_stuck<L: Leases>(&mut self, key: Key, up_to: u64, leases: &L) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        if let Some(later) = conn.out.unwatch(up_to) {
            return self.stuck.push_back((later, key));
        }
        for segment in conn.out.stuck_segments() {
            if let Segment::Lease(piece) = *segment {
                let chunk = leases.bytes(piece).to_vec();
                self.counters.bytes_settled += chunk.len() as u64;
                leases.release(piece);
                *segment = Segment::Heap { chunk, offset: 0 };
            }
        }
    }

    /// The socket takes bytes again.
    pub fn writable(&mut self, now: Time, key: Key) {
        self.now = now;
        if let Some(conn) = self.conns.get_mut(key) {
            conn.out.unblock();
            self.set_dirty(key);
        }
    }

    fn passed(&mut self, mark: Mark) {
        let Some(request) = self.requests.get_mut(mark.request) else { return };
        if mark.bytes > 0 {
            request.flow(mark.dir).left(mark.bytes);
            self.credit_source(mark.request, mark.dir);
        }
        if mark.whole {
            self.answer_oneway(mark.request);
        }
    }

    /// Ends a turn: leases whose bytes could not leave are given back, and the other cores are told the news.
    /// `pressed`: the pool runs low, so nothing stays leased. Says whether the end of a send that was begun is awaited
    /// by something: the shard is to take it in before it sleeps.
    pub fn end_turn<L: Leases>(&mut self, pressed: bool, leases: &L) -> bool {
        self.settle(if pressed { self.turn } else { self.turn.saturating_sub(LEASE_TURNS) }, leases);
        // once a turn: it is a look at all requests
        if self.held > self.options.limits.core_buffer {
            self.shed();
        }
        for piece in self.released.drain(..) {
            leases.release(piece);
        }
        for key in std::mem::take(&mut self.flooded) {
            if !self.conns.get(key).is_some_and(|conn| conn.phase == Phase::Open) {
                continue;
            }
            self.violation(key, &Violation::new(Code::Flood, "provoked more frames than it reads"));
        }
        self.turn += 1;
        std::mem::take(&mut self.backlog)
    }
}

/// The next of a list that has been there since this turn or longer.
fn due<T>(list: &mut VecDeque<(u64, T)>, up_to: u64) -> Option<(u64, T)> {
    let due = list.front().is_some_and(|(since, _)| *since <= up_to);
    due.then(|| list.pop_front()).flatten()
}

impl Chunk {
    fn len(&self) -> usize {
        match self {
            Chunk::Heap { bytes, offset } => bytes.len() - offset,
            Chunk::Lease(piece, _) => piece.len as usize,
        }
    }
}
