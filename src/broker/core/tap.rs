//! A copy of what is received, for those it is forwarded to: records in batches, read by a companion beside the core.
//!
//! ```text
//!   consumer ── body ──┬──► provider            BEGIN  producers, id, channel, header block, first bytes
//!                      └──► batch ──► companion  DATA   more bytes                             each maybe the END
//!                                                ABORT  it will never end
//! ```
//!
//! A message is copied once, however many producers want it, as it arrives. The core never waits: what finds more than
//! `limit` bytes on their way is cut or not begun, and counted for each producer. Only where a producer is to hold its
//! channels back ([`Route::block`]) nothing is cut: such a channel is *paused* instead, which means that no request
//! of it is dispatched and nothing more is granted to its senders, until there is room again.

use std::collections::VecDeque;

use super::Core;
use super::channel::Channel;
use super::flow::{Body, Dir};
use crate::base::{ChannelId, Key};
use crate::protocol::Code;

/// The most producers there can be: each is a bit of a word.
pub const MAX_ROUTES: usize = 64;
/// A batch takes no more records once it has so many bytes: what one record adds comes on top.
const BATCH: usize = 64 * 1024;
/// Read batches kept for output, and the most bytes of each.
const SPARE: usize = 16;
const SPARE_BYTES: usize = 256 * 1024;

/// What one producer is to get.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Route {
    /// From these channels; `None`: from all.
    pub channels: Option<Vec<ChannelId>>,
    /// What consumers send.
    pub requests: bool,
    /// What providers answer.
    pub responses: bool,
    /// Where it can't keep up, its channels are held back rather than a message dropped.
    pub block: bool,
}

/// The producers that want something of a channel, as bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Taps {
    pub requests: u64,
    pub responses: u64,
    /// Those of them that hold it back.
    pub block: u64,
}

/// How far one direction of a request has been copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Copied {
    /// Nobody wants it, or it has all been copied.
    #[default]
    No,
    /// Begun, and not ended.
    Begun,
    /// There was no room for it; an ABORT has been written if it had begun.
    Cut,
}

/// What one core has copied and not handed over, and what is on its way.
#[derive(Debug, Default)]
pub(super) struct Tap {
    routes: Vec<Route>,
    open: Vec<u8>,
    ready: VecDeque<Vec<u8>>,
    spare: Vec<Vec<u8>>,
    /// Bytes copied since the start, and of those, read by the companion.
    copied: u64,
    read: u64,
    limit: u64,
    /// Producers whose own queue is full, as of this turn.
    full: u64,
    /// Some channel is paused.
    paused: bool,
    /// More than `limit` was on its way in some turn, and not yet less than three quarters of it.
    over: bool,
    /// By producer.
    dropped: Vec<TapDrops>,
}

/// Messages of one producer that a core did not copy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TapDrops {
    /// Not begun, or cut: too much was on its way to the companion.
    pub no_room: u64,
    /// Not begun: the producer's own queue was full.
    pub queue_full: u64,
}

/// What a batch consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record<'a> {
    /// A message begins.
    Begin {
        /// Names it in the records that follow: unique on this core among the messages that have not ended.
        message: (u64, bool),
        /// Who is to get it: a bit for each route.
        producers: u64,
        /// The request's id.
        id: [u8; 16],
        /// Its channel.
        channel: ChannelId,
        /// The entries of its header block, without the size.
        headers: &'a [u8],
        /// Its first bytes.
        body: &'a [u8],
        /// And that was all.
        end: bool,
    },
    /// It goes on.
    Data {
        /// As in `Begin`.
        message: (u64, bool),
        /// The next bytes.
        body: &'a [u8],
        /// They were the last.
        end: bool,
    },
    /// It will never end.
    Abort {
        /// As in `Begin`.
        message: (u64, bool),
    },
}

const BEGIN: u8 = 1;
const DATA: u8 = 2;
const ABORT: u8 = 3;
const KIND: u8 = 0x0f;
const RESPONSE: u8 = 0x10;
const END: u8 = 0x20;
/// Length, kind and message.
const HEAD: usize = 4 + 1 + 8;

/// The records of a batch, in order.
///
/// # Panics
/// On bytes that are no batch of a core's.
pub fn records(mut batch: &[u8]) -> impl Iterator<Item = Record<'_>> {
    std::iter::from_fn(move || {
        let (len, rest) = batch.split_first_chunk::<4>()?;
        let (record, rest) = rest.split_at(u32::from_le_bytes(*len) as usize);
        batch = rest;
        Some(record_of(record))
    })
}

fn record_of(record: &[u8]) -> Record<'_> {
    fn take<'a, const N: usize>(from: &mut &'a [u8]) -> &'a [u8; N] {
        let (taken, rest) = from.split_first_chunk::<N>().expect("a whole record");
        *from = rest;
        taken
    }
    let mut rest = record;
    let [kind] = *take(&mut rest);
    let message = (u64::from_le_bytes(*take(&mut rest)), kind & RESPONSE != 0);
    let end = kind & END != 0;
    match kind & KIND {
        BEGIN => {
            let producers = u64::from_le_bytes(*take(&mut rest));
            let id = *take(&mut rest);
            let channel = ChannelId::from_bytes(*take(&mut rest));
            let size = usize::from(u16::from_le_bytes(*take(&mut rest)));
            let (headers, body) = rest.split_at(size);
            Record::Begin { message, producers, id, channel, headers, body, end }
        }
        DATA => Record::Data { message, body: rest, end },
        ABORT => Record::Abort { message },
        other => unreachable!("record of kind {other}"),
    }
}

impl Tap {
    pub(super) fn new(routes: Vec<Route>, limit: usize) -> Tap {
        assert!(routes.len() <= MAX_ROUTES, "{} routes", routes.len());
        Tap { dropped: vec![TapDrops::default(); routes.len()], routes, limit: limit as u64, ..Tap::default() }
    }

    /// What is wanted of a channel.
    pub(super) fn of(&self, channel: ChannelId) -> Taps {
        let mut taps = Taps::default();
        for (bit, route) in self.routes.iter().enumerate() {
            if route.channels.as_ref().is_none_or(|channels| channels.contains(&channel)) {
                let bit = 1 << bit;
                taps.requests |= if route.requests { bit } else { 0 };
                taps.responses |= if route.responses { bit } else { 0 };
                taps.block |= if route.block { bit } else { 0 };
            }
        }
        taps
    }

    fn on_its_way(&self) -> u64 {
        self.copied - self.read
    }

    fn drop_for(&mut self, mut producers: u64, count: impl Fn(&mut TapDrops)) {
        while producers != 0 {
            count(&mut self.dropped[producers.trailing_zeros() as usize]);
            producers &= producers - 1;
        }
    }

    /// Writes one record, in parts.
    fn write(&mut self, kind: u8, message: u64, parts: [&[u8]; 3]) {
        if self.open.len() >= BATCH {
            let next = self.spare.pop().unwrap_or_default();
            self.ready.push_back(std::mem::replace(&mut self.open, next));
        }
        let len = HEAD + parts.iter().map(|part| part.len()).sum::<usize>();
        self.copied += len as u64;
        self.open.reserve(len);
        self.open.extend_from_slice(&(len as u32 - 4).to_le_bytes());
        self.open.push(kind);
        self.open.extend_from_slice(&message.to_le_bytes());
        parts.iter().for_each(|part| self.open.extend_from_slice(part));
    }

    /// A message begins, and maybe ends. Says how far it was copied.
    #[inline]
    pub(super) fn begin(
        &mut self,
        request: Key,
        dir: Dir,
        taps: Taps,
        head: Head<'_>,
        body: &[u8],
        end: bool,
    ) -> Copied {
        let mut producers = taps.wanted(dir);
        let full = producers & self.full & !taps.block;
        // one of several that get a message in parts refuses it itself
        if end || full == producers {
            self.drop_for(full, |drops| drops.queue_full += 1);
            producers &= !full;
            if producers == 0 {
                return Copied::Cut;
            }
        }
        if self.on_its_way() > self.limit && taps.block & producers == 0 {
            self.drop_for(producers, |drops| drops.no_room += 1);
            return Copied::Cut;
        }
        let Head { id, channel, headers } = head;
        let mut fixed = [0; 42];
        fixed[..8].copy_from_slice(&producers.to_le_bytes());
        fixed[8..24].copy_from_slice(id);
        fixed[24..40].copy_from_slice(channel.as_bytes());
        // a header block is at most 16 KiB
        fixed[40..].copy_from_slice(&(headers.len() as u16).to_le_bytes());
        self.write(BEGIN | flags(dir, end), request.pack(), [&fixed, headers, body]);
        if end { Copied::No } else { Copied::Begun }
    }

    /// It goes on, and maybe ends.
    fn data(&mut self, request: Key, dir: Dir, taps: Taps, body: &[u8], end: bool) -> Copied {
        let producers = taps.wanted(dir);
        if self.on_its_way() > self.limit && taps.block & producers == 0 {
            self.drop_for(producers, |drops| drops.no_room += 1);
            self.abort(request, dir);
            return Copied::Cut;
        }
        self.write(DATA | flags(dir, end), request.pack(), [body, &[], &[]]);
        if end { Copied::No } else { Copied::Begun }
    }

    /// It will never end. There is always room to say so: at most once for each that had begun.
    fn abort(&mut self, request: Key, dir: Dir) {
        self.write(ABORT | flags(dir, false), request.pack(), [&[], &[], &[]]);
    }
}

impl Taps {
    #[inline]
    pub(super) fn wanted(self, dir: Dir) -> u64 {
        if dir == Dir::Up { self.requests } else { self.responses }
    }
}

fn flags(dir: Dir, end: bool) -> u8 {
    (if dir == Dir::Down { RESPONSE } else { 0 }) | (if end { END } else { 0 })
}

/// What a message says of itself.
pub(super) struct Head<'a> {
    pub id: &'a [u8; 16],
    pub channel: ChannelId,
    /// Entries of its header block, without the size.
    pub headers: &'a [u8],
}

impl Core {
    /// A direction of a request has begun: its first record, if anybody wants it. A request is copied where its
    /// consumer is, and the broker's own answer to a one-way request nowhere.
    pub(super) fn tap_begin(&mut self, request: Key, dir: Dir, block: &[u8]) {
        let Some(state) = self.requests.get_mut(request) else { return };
        let channel = &self.channels[state.channel as usize];
        if channel.taps.wanted(dir) == 0 || state.hops > 0 || dir == Dir::Down && state.is_oneway() {
            return;
        }
        let head = Head { id: &state.id, channel: channel.id, headers: block.get(2..).unwrap_or_default() };
        let copied = self.tap.begin(request, dir, channel.taps, head, &[], false);
        state.flow(dir).copied = copied;
    }

    /// Body bytes of a direction.
    #[inline]
    pub(super) fn tap_body(&mut self, request: Key, dir: Dir, body: Body<'_>, end: bool) {
        let Some(state) = self.requests.get_mut(request) else { return };
        if state.flow(dir).copied == Copied::Begun && (!body.bytes.is_empty() || end) {
            let taps = self.channels[state.channel as usize].taps;
            state.flow(dir).copied = self.tap.data(request, dir, taps, body.bytes, end);
        }
    }

    /// A request leaves the table: what has not ended by now never will.
    pub(super) fn tap_released(&mut self, request: Key, copied: [Copied; 2]) {
        for (dir, copied) in [Dir::Up, Dir::Down].into_iter().zip(copied) {
            if copied == Copied::Begun {
                self.tap.abort(request, dir);
            }
        }
    }

    /// Whether a request that no provider can take has done its work once it is forwarded (§5): a one-way request on
    /// a channel with producers.
    pub(super) fn may_only_be_forwarded(&self, request: Key) -> bool {
        let state = self.requests.get(request).expect("looked up by the caller");
        let wanted = self.channels[state.channel as usize].taps.requests;
        state.is_oneway() && state.hops == 0 && wanted != 0
    }

    /// Takes a one-way request for its producers alone: what was queued of it has been copied already.
    pub(super) fn only_forward(&mut self, request: Key) {
        let state = self.requests.get_mut(request).expect("looked up by the caller");
        let taps = self.channels[state.channel as usize].taps;
        if taps.requests & (taps.block | !self.tap.full) == 0 {
            return self.end_request(request, Code::Overloaded, "every producer's queue is full");
        }
        state.only_forwarded = true;
        let queued = state.up.queue.len() as u32;
        self.held -= state.up.queue.heap();
        state.up.queue.clear(&mut self.released);
        state.up.left(queued);
        self.forwarded_only(request);
    }

    /// Goes on with such a request: grants more of it, or answers it.
    pub(super) fn forwarded_only(&mut self, request: Key) {
        let state = self.requests.get(request).expect("looked up by the caller");
        if !state.up.received_end {
            self.credit_source(request, Dir::Up);
        } else if state.up.copied == Copied::Cut {
            self.end_request(request, Code::Overloaded, "no room to forward it");
        } else {
            self.end_oneway(request);
        }
    }

    /// Once a turn, where there are producers: how many bytes the companion has read since the start, and whose queue
    /// is full. Pauses channels, and lets them go on.
    pub fn tap_turn(&mut self, read: u64, full: u64) {
        self.tap.read = read;
        let limit = if self.tap.over { self.tap.limit / 4 * 3 } else { self.tap.limit };
        let over = self.tap.on_its_way() > limit;
        if (self.tap.full, self.tap.over) == (full, over) {
            return;
        }
        (self.tap.full, self.tap.over) = (full, over);
        // of channels to come, too
        self.tap.paused =
            self.tap.routes.iter().enumerate().any(|(bit, route)| route.block && (over || full >> bit & 1 == 1));
        let paused: Vec<(u32, bool)> =
            self.channels.iter().map(|(at, state)| (at as u32, self.is_to_pause(state))).collect();
        for (channel, paused) in paused {
            let Some(state) = self.channels.get_mut(channel as usize) else { continue };
            if std::mem::replace(&mut state.paused, paused) && !paused {
                self.resume(channel);
            }
        }
    }

    /// Whether a channel is to be paused, by what is known in this turn.
    pub(super) fn is_to_pause(&self, channel: &Channel) -> bool {
        channel.taps.block & self.tap.full != 0 || channel.taps.block != 0 && self.tap.over
    }

    /// A channel goes on: its senders are granted what has left meanwhile, and what waits is dispatched.
    fn resume(&mut self, channel: u32) {
        let on_it = self.requests.iter().filter(|(_, state)| state.channel == channel);
        let requests: Vec<Key> = on_it.map(|(key, _)| key).collect();
        for request in requests {
            self.credit_source(request, Dir::Up);
            self.credit_source(request, Dir::Down);
        }
        self.serve_queue(channel);
        if self.channels.get(channel as usize).is_some_and(|state| state.providers == 0 && state.queued > 0) {
            self.no_provider_left(channel);
        }
    }

    /// The next batch of records, until `None`. At the end of a turn: all that was copied in it.
    pub fn next_tapped(&mut self) -> Option<Vec<u8>> {
        if let Some(batch) = self.tap.ready.pop_front() {
            return Some(batch);
        }
        if self.tap.open.is_empty() {
            return None;
        }
        let next = self.tap.spare.pop().unwrap_or_default();
        Some(std::mem::replace(&mut self.tap.open, next))
    }

    /// Keeps a batch that has been read, for what is copied next.
    pub fn recycle_tapped(&mut self, mut batch: Vec<u8>) {
        if self.tap.spare.len() < SPARE && batch.capacity() <= SPARE_BYTES {
            batch.clear();
            self.tap.spare.push(batch);
        }
    }

    /// By producer: messages that were not copied, or not to their end.
    #[must_use]
    pub fn tap_dropped(&self) -> &[TapDrops] {
        &self.tap.dropped
    }

    /// What [`Core::tap_turn`] was told last.
    #[must_use]
    pub fn tap_known(&self) -> (u64, u64) {
        (self.tap.read, self.tap.full)
    }

    /// Whether a channel waits for the companion: it is to wake this core when it has read something.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.tap.paused
    }
}
