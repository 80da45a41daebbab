//! The books of a pool: which connections there are, who has them, what happened so far. No waiting in here; all of it
//! is done under one short lock, which is what makes a snapshot consistent.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::time::Instant;

use super::{CloseReason, Factory, Options, Order, Stats};

/// A connection, and what decides its fate.
#[derive(Debug)]
pub(super) struct Entry<C> {
    pub(super) conn: C,
    pub(super) created: Instant,
    pub(super) expires: Option<Instant>,
    pub(super) idle_since: Instant,
    /// When it was last known to be alive: created, validated, or given back by a user in good order.
    pub(super) alive_at: Instant,
    pub(super) used: bool,
}

impl<C> Entry<C> {
    pub(super) fn new(conn: C, now: Instant, expires: Option<Instant>) -> Entry<C> {
        Entry { conn, created: now, expires, idle_since: now, alive_at: now, used: false }
    }

    pub(super) fn is_expired(&self, now: Instant) -> bool {
        self.expires.is_some_and(|at| at <= now)
    }
}

/// What an acquisition that has its turn is to do, booked already.
#[derive(Debug)]
pub(super) enum Taken<C> {
    /// Use this one.
    Lend(Entry<C>),
    /// Reset or validate this one first.
    Check(Entry<C>),
    /// Close this one and look again.
    Close(Entry<C>, CloseReason),
    /// Open one: none is idle.
    Create,
    /// Give up: the pool is closed.
    Closed,
}

#[derive(Debug)]
pub(super) struct State<C> {
    /// In the order in which they became idle.
    pub(super) idle: VecDeque<Entry<C>>,
    pub(super) in_use: usize,
    pub(super) checking: usize,
    closing: usize,
    creating: usize,
    /// Acquisitions not served at once; counted outside.
    waiting: Arc<AtomicUsize>,
    pub(super) closed: bool,
    /// What was last alive before this is not lent without a validation: a connection was found dead since.
    suspect_before: Option<Instant>,
    /// When the upkeep wakes by itself; a connection due earlier has to wake it.
    pub(super) upkeep_at: Option<Instant>,
    pub(super) counts: Stats,
}

impl<C> State<C> {
    pub(super) fn new(options: &Options, waiting: Arc<AtomicUsize>) -> State<C> {
        State {
            idle: VecDeque::with_capacity(options.idle_limit().min(64)),
            in_use: 0,
            checking: 0,
            closing: 0,
            creating: 0,
            waiting,
            closed: false,
            suspect_before: None,
            upkeep_at: None,
            counts: Stats { max_open: options.max_open, ..Stats::default() },
        }
    }

    pub(super) fn stats(&self) -> Stats {
        Stats {
            open: self.open(),
            in_use: self.in_use,
            idle: self.idle.len(),
            checking: self.checking,
            closing: self.closing,
            creating: self.creating,
            waiting: self.waiting(),
            ..self.counts.clone()
        }
    }

    fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    pub(super) fn open(&self) -> usize {
        self.idle.len() + self.in_use + self.checking + self.closing
    }

    /// Connections there are or may be in a moment.
    pub(super) fn total(&self) -> usize {
        self.open() + self.creating
    }

    /// Takes the idle connection whose turn it is, or books a new one. The caller holds a turn.
    pub(super) fn take<F>(&mut self, factory: &F, options: &Options, now: Instant) -> Taken<C>
    where
        F: Factory<Connection = C>,
    {
        if self.closed {
            return Taken::Closed;
        }
        let next = match options.order {
            Order::Newest => self.idle.back(),
            Order::Oldest => self.idle.front(),
        };
        // judged before anything is moved: should the factory panic, the books are still right
        let (reason, check) = next.map_or((None, false), |entry| self.judge(entry, factory, options, now));
        let entry = match options.order {
            Order::Newest => self.idle.pop_back(),
            Order::Oldest => self.idle.pop_front(),
        };
        let Some(entry) = entry else {
            // every other connection is outside the idle list, so somebody else's turn stands for it
            assert!(self.begin_create(options.max_open), "more connections than turns");
            return Taken::Create;
        };
        if let Some(reason) = reason {
            self.count_closing(reason, now);
            Taken::Close(entry, reason)
        } else if check {
            self.checking += 1;
            Taken::Check(entry)
        } else {
            self.in_use += 1;
            self.counts.acquired += 1;
            Taken::Lend(entry)
        }
    }

    /// Why an idle connection can't be lent, and whether it has to be checked first.
    fn judge<F>(&self, entry: &Entry<C>, factory: &F, options: &Options, now: Instant) -> (Option<CloseReason>, bool)
    where
        F: Factory<Connection = C>,
    {
        if factory.is_broken(&entry.conn) {
            return (Some(CloseReason::Broken), false);
        }
        if entry.is_expired(now) {
            return (Some(CloseReason::Lifetime), false);
        }
        let is_stale = options.validate_after.is_some_and(|limit| now.duration_since(entry.alive_at) >= limit);
        let is_suspect = self.suspect_before.is_some_and(|at| entry.alive_at <= at);
        (None, is_stale || is_suspect || entry.used && factory.needs_reset(&entry.conn))
    }

    /// Books a connection that is going to be opened, if there may be one more.
    pub(super) fn begin_create(&mut self, max_open: usize) -> bool {
        let may = !self.closed && self.total() < max_open;
        self.creating += usize::from(may);
        may
    }

    /// Opening ended, well or not.
    pub(super) fn end_create(&mut self) {
        self.creating -= 1;
    }

    pub(super) fn count_created(&mut self) {
        self.counts.created += 1;
        self.checking += 1;
    }

    /// A checked connection is lent.
    pub(super) fn lend_checked(&mut self) {
        self.checking -= 1;
        self.in_use += 1;
        self.counts.acquired += 1;
    }

    /// A connection that is no longer idle, checked or in use begins to close.
    pub(super) fn count_closing(&mut self, reason: CloseReason, now: Instant) {
        self.closing += 1;
        self.counts.closed.count(reason);
        if matches!(reason, CloseReason::Broken | CloseReason::Invalid) {
            self.suspect_before = Some(now);
        }
    }

    pub(super) fn end_closing(&mut self) {
        self.closing -= 1;
    }

    /// A connection left for good without being closed by the pool.
    pub(super) fn detach(&mut self) {
        self.in_use -= 1;
        self.counts.closed.count(CloseReason::Detached);
    }

    /// Why a connection that nobody uses any more can't be kept, or `None`.
    pub(super) fn why_close(&self, entry: &Entry<C>, options: &Options, now: Instant) -> Option<CloseReason> {
        if self.closed {
            Some(CloseReason::Shutdown)
        } else if entry.is_expired(now) {
            Some(CloseReason::Lifetime)
        } else {
            (self.idle.len() >= options.idle_limit() + self.waiting()).then_some(CloseReason::Surplus)
        }
    }

    /// Puts a connection among the idle ones, by the time it became so. Whether the upkeep has to be woken for it.
    pub(super) fn put(&mut self, entry: Entry<C>, options: &Options) -> bool {
        let idle_due = options.idle_timeout.map(|limit| entry.idle_since + limit);
        let due = [idle_due, entry.expires].into_iter().flatten().min();
        let place = match self.idle.back() {
            Some(last) if last.idle_since > entry.idle_since => {
                self.idle.partition_point(|other| other.idle_since <= entry.idle_since)
            }
            _ => self.idle.len(),
        };
        self.idle.insert(place, entry);
        due.is_some_and(|due| self.upkeep_at.is_none_or(|at| due < at))
    }

    /// The first idle connection that is to go, and why.
    pub(super) fn find_due(&self, options: &Options, now: Instant) -> Option<(usize, CloseReason)> {
        let is_over = |entry: &Entry<C>| options.idle_timeout.is_some_and(|limit| entry.idle_since + limit <= now);
        if let Some(place) = self.idle.iter().position(|entry| entry.is_expired(now)) {
            return Some((place, CloseReason::Lifetime));
        }
        if self.idle.len() > options.idle_limit() + self.waiting() {
            return Some((0, CloseReason::Surplus));
        }
        let above_min = self.idle.len() > options.min_idle;
        (above_min && self.idle.front().is_some_and(is_over)).then_some((0, CloseReason::Idle))
    }

    /// Takes it out, to be closed.
    pub(super) fn take_due(&mut self, options: &Options, now: Instant) -> Option<(Entry<C>, CloseReason)> {
        let (place, reason) = self.find_due(options, now)?;
        let entry = self.idle.remove(place)?;
        self.count_closing(reason, now);
        Some((entry, reason))
    }

    /// Takes out an idle connection last known to be alive before `since`, to validate it.
    pub(super) fn take_unchecked(&mut self, since: Instant) -> Option<Entry<C>> {
        let place = self.idle.iter().position(|entry| entry.alive_at < since)?;
        self.checking += 1;
        self.idle.remove(place)
    }

    /// When the next idle connection is due to be closed.
    pub(super) fn next_due(&self, options: &Options) -> Option<Instant> {
        let above_min = self.idle.len() > options.min_idle;
        let oldest = self.idle.front().filter(|_| above_min);
        let idle = oldest.and_then(|entry| options.idle_timeout.map(|limit| entry.idle_since + limit));
        self.idle.iter().filter_map(|entry| entry.expires).chain(idle).min()
    }

    /// Whether the upkeep has to open connections.
    pub(super) fn lacks_idle(&self, options: &Options) -> bool {
        !self.closed && self.idle.len() < options.min_idle && self.total() < options.max_open
    }
}
