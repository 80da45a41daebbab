//! What waits to be sent, and the books of everything that ever came: one plain structure, under its producer's lock.
//!
//! ```text
//!   admit ──► waiting ──► take ──► (the client) ──► delivered
//!     │          ▲  │                  │ ├────────► give_up      counted once, by its reason
//!     │          │  └─ expired ────────┤ └─ put_back ─┐
//!     └─ refused └─────────────────────────────────────┘
//! ```
//!
//! Invariants, whatever happens:
//! - each message is counted once as accepted and, when its fate is known, once as forwarded, dropped or dead-lettered;
//! - what comes in parts is one message: when one part is given up, so is the rest, and if any part may have left, the
//!   target is told by [`Part::Aborted`];
//! - messages are taken in the order they came.

use std::collections::{HashMap, VecDeque};

use tokio::sync::oneshot;
use tokio::time::Instant;
use uuid::Uuid;

use super::stats::Counters;
use super::{DropReason, ForwardError, Headers, Message, NotTaken, Part, ProducerOptions, SendError, Takes, WhenFull};
use crate::base::Histogram;

/// Messages in parts open at a time: each costs some 200 bytes here. The broker has fewer streams a core.
const MAX_OPEN: usize = 65_536;

/// Whom to tell what became of a message.
pub(super) type Responder = oneshot::Sender<Result<(), ForwardError>>;

/// What goes with a message on its way through.
#[derive(Debug)]
pub(super) struct Ticket {
    pub(super) accepted: Instant,
    /// Attempts that failed.
    pub(super) attempts: u32,
    done: Option<Responder>,
    /// A note that a message has no end: itself no message.
    is_mark: bool,
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) message: Message,
    pub(super) ticket: Ticket,
}

impl Entry {
    /// A chunk, or the note that there will be none: nothing that stands for itself.
    pub(super) fn is_partial(&self) -> bool {
        self.ticket.is_mark || self.message.part != Part::Whole
    }

    fn respond(self, result: Result<(), ForwardError>) {
        if let Some(done) = self.ticket.done {
            let _ = done.send(result); // whoever asked may have gone
        }
    }
}

/// A message in parts whose last one has not been delivered.
#[derive(Debug)]
struct Open {
    next: u32,
    ended: bool,
    /// A part is with the client, or may have arrived.
    left: bool,
    /// Its first part has been in doubt.
    doubted: bool,
    /// Its identity, for the mark.
    blank: Message,
}

#[derive(Debug)]
pub(super) struct Queue {
    options: ProducerOptions,
    takes: Takes,
    waiting: VecDeque<Entry>,
    open: HashMap<Uuid, Open>,
    over: bool,
    /// Something was refused for want of room since the level was looked at.
    refused: bool,
    closing: bool,
    pub(super) counters: Counters,
    pub(super) latency: Histogram,
}

impl Queue {
    pub(super) fn new(options: ProducerOptions, takes: Takes) -> Queue {
        Queue {
            options,
            takes,
            waiting: VecDeque::new(),
            open: HashMap::new(),
            over: false,
            refused: false,
            closing: false,
            counters: Counters::default(),
            latency: Histogram::new(),
        }
    }

    /// Above the bound, or full; see [`Producer::is_over`](super::Producer::is_over).
    pub(super) fn is_over(&self) -> bool {
        self.over
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Nothing new is taken from here on, but the rest of what has begun.
    pub(super) fn close(&mut self) {
        self.closing = true;
    }

    pub(super) fn is_closing(&self) -> bool {
        self.closing
    }

    /// Nothing waits, and nothing more will come.
    pub(super) fn is_finished(&self) -> bool {
        self.closing && self.waiting.is_empty() && self.open.is_empty()
    }

    /// Brings the level up to date: whether it changed.
    pub(super) fn level(&mut self) -> bool {
        let (bytes, limit) = (self.counters.queue_bytes, self.options.queue_bytes as u64);
        let refused = std::mem::take(&mut self.refused);
        let over = if self.options.when_full == WhenFull::Block {
            bytes > if self.over { limit - limit / 4 } else { limit }
        } else {
            (self.over || refused) && bytes > limit - limit / 16
        };
        std::mem::replace(&mut self.over, over) != over
    }

    /// Takes a message in, or says why not; either way it's counted.
    pub(super) fn admit(&mut self, message: Message, done: Option<Responder>, now: Instant) -> Result<(), NotTaken> {
        let ticket = Ticket { accepted: now, attempts: 0, done, is_mark: false };
        let entry = Entry { message, ticket };
        match entry.message.part {
            Part::Whole => self.admit_whole(entry),
            Part::Chunk { sequence: 0, last } => self.admit_first(entry, last),
            Part::Chunk { sequence, last } => self.admit_next(entry, sequence, last),
            Part::Aborted { .. } => self.admit_abort(entry),
        }
    }

    fn admit_whole(&mut self, entry: Entry) -> Result<(), NotTaken> {
        self.counters.accepted += 1;
        self.counters.queue_messages += 1;
        let is_too_large = self.is_too_large(&entry.message) && self.options.dead_letter.is_none();
        let reason = if self.closing {
            DropReason::Shutdown
        } else if is_too_large {
            DropReason::TooLarge
        } else if !self.make_room(entry.message.cost()) {
            DropReason::QueueFull
        } else {
            self.push(entry);
            return Ok(());
        };
        Err(self.refuse(reason))
    }

    fn admit_first(&mut self, entry: Entry, last: bool) -> Result<(), NotTaken> {
        let key = entry.message.key;
        // begun anew, so what came before has no end
        self.fail(key, DropReason::Incomplete, None);
        self.counters.accepted += 1;
        self.counters.queue_messages += 1;
        let reason = if self.closing {
            DropReason::Shutdown
        } else if !self.takes.parts {
            DropReason::Skipped
        } else if self.is_too_large(&entry.message) {
            DropReason::TooLarge
        } else if self.open.len() >= MAX_OPEN || !self.make_room(entry.message.cost()) {
            DropReason::QueueFull
        } else {
            let mut blank = entry.message.clone();
            blank.body = bytes::Bytes::new();
            blank.headers = Headers::default();
            self.open.insert(key, Open { next: 1, ended: last, left: false, doubted: false, blank });
            self.push(entry);
            return Ok(());
        };
        Err(self.refuse(reason))
    }

    fn admit_next(&mut self, entry: Entry, sequence: u32, last: bool) -> Result<(), NotTaken> {
        let key = entry.message.key;
        let Some(open) = self.open.get(&key).filter(|open| !open.ended) else { return Err(self.stray()) };
        let reason = if open.next != sequence {
            DropReason::Incomplete
        } else if self.is_too_large(&entry.message) {
            DropReason::TooLarge
        } else if !self.make_room(entry.message.cost()) {
            DropReason::QueueFull
        } else if let Some(open) = self.open.get_mut(&key) {
            open.next += 1;
            open.ended = last;
            self.push(entry);
            return Ok(());
        } else {
            // room was made by giving up this very message
            return Err(NotTaken::Dropped(DropReason::QueueFull));
        };
        self.fail(key, reason, None);
        Err(NotTaken::Dropped(reason))
    }

    fn admit_abort(&mut self, entry: Entry) -> Result<(), NotTaken> {
        let key = entry.message.key;
        if entry.message.part == (Part::Aborted { sequence: 0 }) && !self.open.contains_key(&key) {
            // nothing of it ever came, and nothing will
            self.counters.accepted += 1;
            self.counters.queue_messages += 1;
            self.settle_as_dropped(DropReason::Aborted);
            entry.respond(Ok(()));
            return Ok(());
        }
        if self.open.get(&key).is_none_or(|open| open.ended) {
            return Err(self.stray());
        }
        self.fail(key, DropReason::Aborted, None);
        entry.respond(Ok(()));
        Ok(())
    }

    fn stray(&mut self) -> NotTaken {
        self.counters.stray_parts += 1;
        NotTaken::StrayPart
    }

    fn refuse(&mut self, reason: DropReason) -> NotTaken {
        self.settle_as_dropped(reason);
        NotTaken::Dropped(reason)
    }

    fn settle_as_dropped(&mut self, reason: DropReason) {
        self.counters.dropped.count(reason);
        self.counters.queue_messages -= 1;
    }

    /// Larger than this producer or its target takes.
    pub(super) fn is_too_large(&self, message: &Message) -> bool {
        let limit = self.takes.max_body.map_or(self.options.max_message, |most| most.min(self.options.max_message));
        message.body.len() > limit
    }

    /// Whether there is room for so much, made if the policy says so.
    fn make_room(&mut self, cost: usize) -> bool {
        let limit = self.options.queue_bytes as u64;
        let fits = |queue: &Queue| queue.counters.queue_bytes + cost as u64 <= limit;
        match self.options.when_full {
            WhenFull::Block => true,
            WhenFull::DropNewest => {
                let fits = fits(self);
                self.refused |= !fits;
                fits
            }
            WhenFull::DropOldest => {
                while !fits(self) {
                    let Some(oldest) = self.waiting.iter().position(|entry| !entry.ticket.is_mark) else {
                        return false;
                    };
                    if let Some(entry) = self.waiting.remove(oldest) {
                        self.give_up(entry, DropReason::QueueFull, None);
                    }
                }
                true
            }
        }
    }

    fn push(&mut self, entry: Entry) {
        self.counters.queue_bytes += entry.message.cost() as u64;
        self.waiting.push_back(entry);
    }

    /// Gives up a message in parts, if it's open: what waits of it goes, and the target is told if it may know of it.
    fn fail(&mut self, key: Uuid, reason: DropReason, error: Option<&SendError>) {
        let Some(open) = self.open.remove(&key) else { return };
        self.settle_as_dropped(reason);
        let (gone, kept) = std::mem::take(&mut self.waiting)
            .into_iter()
            .partition::<VecDeque<_>, _>(|entry| entry.message.key == key && !entry.ticket.is_mark);
        self.waiting = kept;
        for entry in gone {
            self.counters.queue_bytes -= entry.message.cost() as u64;
            entry.respond(Err(ForwardError::Dropped { reason, error: error.cloned() }));
        }
        if open.left {
            let mut message = open.blank;
            message.part = Part::Aborted { sequence: open.next };
            let ticket = Ticket { accepted: Instant::now(), attempts: 0, done: None, is_mark: true };
            self.push(Entry { message, ticket });
        }
    }

    /// When the oldest one waiting is too old.
    pub(super) fn next_expiry(&self) -> Option<Instant> {
        self.waiting.front().map(|entry| entry.ticket.accepted + self.options.max_age)
    }

    /// Those waiting that are too old. They count as waiting until they are settled.
    pub(super) fn expired(&mut self, now: Instant) -> Vec<Entry> {
        let max_age = self.options.max_age;
        let fresh = self.waiting.iter().position(|entry| now < entry.ticket.accepted + max_age);
        self.waiting.drain(..fresh.unwrap_or(self.waiting.len())).collect()
    }

    /// All that wait.
    pub(super) fn take_all(&mut self) -> Vec<Entry> {
        self.waiting.drain(..).collect()
    }

    /// Gives up what came in parts and has no end yet.
    pub(super) fn fail_all_open(&mut self, reason: DropReason) {
        for key in self.open.keys().copied().collect::<Vec<_>>() {
            self.fail(key, reason, None);
        }
    }

    /// The next ones for the client: at most so many, and within the batch's bytes, but at least one if there is any.
    /// Those that are too large for it, and were let in for the dead letter file, are returned.
    pub(super) fn take(&mut self, most: usize, messages: &mut Vec<Message>, tickets: &mut Vec<Ticket>) -> Vec<Entry> {
        let (mut bytes, mut too_large) = (0, Vec::new());
        while messages.len() < most {
            let Some(next) = self.waiting.front() else { break };
            let is_too_large = self.is_too_large(&next.message);
            bytes += next.message.cost();
            if !messages.is_empty() && bytes > self.options.batch_bytes {
                break;
            }
            let Some(entry) = self.waiting.pop_front() else { break };
            if is_too_large {
                bytes -= entry.message.cost();
                too_large.push(entry);
                continue;
            }
            let Entry { message, ticket } = entry;
            self.counters.retried += u64::from(ticket.attempts > 0);
            if message.part != Part::Whole
                && let Some(open) = self.open.get_mut(&message.key)
            {
                open.left = true;
            }
            messages.push(message);
            tickets.push(ticket);
        }
        too_large
    }

    /// The client has delivered it.
    pub(super) fn delivered(&mut self, entry: Entry, now: Instant) {
        self.counters.queue_bytes -= entry.message.cost() as u64;
        if entry.ticket.is_mark {
            return;
        }
        self.counters.forwarded_bytes += entry.message.body.len() as u64;
        let took = now.saturating_duration_since(entry.ticket.accepted);
        self.latency.record(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
        let is_complete = match entry.message.part {
            Part::Chunk { last, .. } => last && self.open.remove(&entry.message.key).is_some(),
            Part::Whole | Part::Aborted { .. } => true,
        };
        if is_complete {
            self.counters.forwarded += 1;
            self.counters.queue_messages -= 1;
        }
        entry.respond(Ok(()));
    }

    /// It is to be sent later, before all others. `unsent`: nothing of it has left.
    pub(super) fn put_back(&mut self, entry: Entry, unsent: bool) {
        if let Part::Chunk { sequence, .. } = entry.message.part {
            let Some(open) = self.open.get_mut(&entry.message.key) else {
                // given up while it was with the client
                self.counters.queue_bytes -= entry.message.cost() as u64;
                let error = ForwardError::Dropped { reason: DropReason::Incomplete, error: None };
                return entry.respond(Err(error));
            };
            // the later ones of a batch come back first, so the first one's word is the last
            open.doubted |= !unsent;
            open.left = sequence > 0 || open.doubted;
        }
        self.waiting.push_front(entry);
    }

    /// It is gone, and so is the message it is a part of.
    pub(super) fn give_up(&mut self, entry: Entry, reason: DropReason, error: Option<SendError>) {
        self.counters.queue_bytes -= entry.message.cost() as u64;
        if entry.ticket.is_mark {
            self.counters.aborts_lost += 1;
            return;
        }
        if entry.is_partial() {
            self.fail(entry.message.key, reason, error.as_ref());
        } else {
            self.settle_as_dropped(reason);
        }
        entry.respond(Err(ForwardError::Dropped { reason, error }));
    }

    /// It stands in the dead letter file.
    pub(super) fn dead_lettered(&mut self, entry: Entry, reason: DropReason, error: Option<SendError>) {
        self.counters.queue_bytes -= entry.message.cost() as u64;
        self.counters.dead_lettered += 1;
        self.counters.queue_messages -= 1;
        entry.respond(Err(ForwardError::DeadLettered { reason, error }));
    }
}

#[cfg(test)]
#[path = "tests/queue.rs"]
mod tests;
