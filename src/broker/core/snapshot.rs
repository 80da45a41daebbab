//! What a core looks like right now: for people, and for the simulation's checks.
//!
//! The long lists come in pages of [`PAGE`] slots, so that a look at them takes no turn for long: some 20 us.

use std::collections::HashMap;
use std::time::Duration;

use super::conn::{Conn, Phase, Side};
use super::flow::Dir;
use super::{Core, Counters, Meter, conn::Info};
use crate::base::{ChannelId, Key};

/// Slots of a table that one page covers.
pub const PAGE: u32 = 128;
/// Meters of one page: each is 12 KiB to be copied.
const METERS_PAGE: usize = 16;
/// Meters added up at once: 400 KiB to be read.
const METERS_SUM: usize = 32;

/// A part of a long list, and where the next one begins; `None` at the end. What comes and goes between two pages may
/// be in or not; all else is there once.
#[derive(Clone, Debug, Default)]
pub struct Page<T> {
    /// The entries.
    pub items: Vec<T>,
    /// What to ask for next.
    pub next: Option<u32>,
}

/// A connection, for people.
#[derive(Clone, Debug)]
pub struct ConnSnapshot {
    /// Its name in this core's table: no other connection on this core has had it.
    pub id: Key,
    /// Who it is.
    pub info: Info,
    /// `consumer`, `provider` or `handshake`.
    pub role: &'static str,
    /// `handshake`, `open`, `draining` (one side said GOAWAY) or `closing`.
    pub state: &'static str,
    /// Its channel, once known.
    pub channel: Option<ChannelId>,
    /// Requests in progress on it.
    pub in_flight: u32,
    /// A provider's bound on them.
    pub max_concurrent: u32,
    /// Bytes staged for it.
    pub pending: usize,
    /// Since it was accepted (once closing: since then).
    pub age: Duration,
    /// Since something was received from it.
    pub idle: Duration,
}

/// A channel, for people.
#[derive(Clone, Debug)]
pub struct ChannelSnapshot {
    /// Which.
    pub id: ChannelId,
    /// Connections on it on this core.
    pub connections: u32,
    /// Providers that take requests, on this core.
    pub providers: u32,
    /// Sum of their max_concurrent.
    pub capacity: u32,
    /// Requests counted against it.
    pub in_use: u32,
    /// Requests that wait.
    pub queued: u32,
    /// Body bytes of those that wait.
    pub queued_bytes: usize,
    /// Its connections may be on several cores.
    pub spread: bool,
}

/// The figures of one core.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// What happened.
    pub counters: Counters,
    /// Connections.
    pub connections: usize,
    /// Those of them in their handshake.
    pub handshakes: u32,
    /// Channels somebody is on.
    pub channels: usize,
    /// Requests of consumers here that have not ended.
    pub in_flight: usize,
    /// Bytes held in heap memory, of `core_buffer`.
    pub held: usize,
}

/// A core's state, for people.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Its connections.
    pub connections: Vec<ConnSnapshot>,
    /// Its channels.
    pub channels: Vec<ChannelSnapshot>,
    /// Requests in its table.
    pub requests: usize,
    /// Bytes held in heap memory.
    pub held: usize,
}

impl Core {
    /// What it looks like right now, whole.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            connections: self.connections_page(0, u32::MAX).items,
            channels: self.channels_page(0, u32::MAX).items,
            requests: self.requests.len(),
            held: self.held,
        }
    }

    /// The connections in some slots from this one on.
    #[must_use]
    pub fn connections_from(&self, slot: u32) -> Page<ConnSnapshot> {
        self.connections_page(slot, PAGE)
    }

    fn connections_page(&self, from: u32, n: u32) -> Page<ConnSnapshot> {
        let (slots, next) = self.conns.page(from, n);
        let sockets = slots.filter(|(_, conn)| !conn.side.is_link());
        Page { items: sockets.map(|(key, conn)| self.conn_snapshot(key, conn)).collect(), next }
    }

    fn conn_snapshot(&self, id: Key, conn: &Conn) -> ConnSnapshot {
        ConnSnapshot {
            id,
            info: (*conn.info).clone(),
            role: conn.role(),
            state: match conn.phase {
                Phase::Hello => "handshake",
                Phase::Open if conn.goes || conn.peer_goes => "draining",
                Phase::Open => "open",
                Phase::Closing | Phase::Lingering => "closing",
            },
            channel: self.channels.get(conn.channel as usize).map(|channel| channel.id),
            in_flight: conn.opened.active() + conn.in_use,
            max_concurrent: conn.max_concurrent,
            pending: conn.out.pending(),
            age: self.now - conn.since,
            idle: self.now - conn.last_received,
        }
    }

    /// The channels in some slots from this one on.
    #[must_use]
    pub fn channels_from(&self, slot: u32) -> Page<ChannelSnapshot> {
        self.channels_page(slot, PAGE)
    }

    fn channels_page(&self, from: u32, n: u32) -> Page<ChannelSnapshot> {
        let all = self.channels.capacity() as u32;
        let end = from.saturating_add(n).min(all);
        let channels = (from..end).filter_map(|at| self.channels.get(at as usize));
        let items = channels.map(|channel| ChannelSnapshot {
            id: channel.id,
            connections: channel.connections,
            providers: channel.providers,
            capacity: channel.capacity,
            in_use: channel.in_use,
            queued: channel.queued,
            queued_bytes: channel.queued_bytes,
            spread: channel.spread,
        });
        Page { items: items.collect(), next: (end < all).then_some(end) }
    }

    /// Some of the meters, from this one on; the first one is `other`.
    #[must_use]
    pub fn meters_from(&self, from: u32) -> Page<Meter> {
        let all = self.meters.all();
        let end = all.len().min(from as usize + METERS_PAGE);
        let items = all.get(from as usize..end).unwrap_or_default().to_vec();
        Page { items, next: (end < all.len()).then_some(end as u32) }
    }

    /// What some of the meters, from this one on, come to together; and where to go on.
    #[must_use]
    pub fn meters_sum_from(&self, from: u32) -> (Meter, Option<u32>) {
        let all = self.meters.all();
        let end = all.len().min(from as usize + METERS_SUM);
        let mut sum = Meter::default();
        all.get(from as usize..end).unwrap_or_default().iter().for_each(|meter| sum.add(meter));
        (sum, (end < all.len()).then_some(end as u32))
    }

    /// Its figures.
    #[must_use]
    pub fn figures(&self) -> Figures {
        let (connections, handshakes) = self.connections();
        // what was handed to another core is in both tables
        let links = self.links_out.iter().filter_map(|&link| self.conns.get(link));
        let handed_on: usize = links.map(|link| link.working as usize).sum();
        Figures {
            counters: self.counters.clone(),
            connections,
            handshakes,
            channels: self.channels.len(),
            in_flight: self.requests.len().saturating_sub(handed_on),
            held: self.held,
        }
    }

    /// How many socket connections there are, and how many of them have not said HELLO.
    #[must_use]
    pub fn connections(&self) -> (usize, u32) {
        (self.conns.len() - 2 * (usize::from(self.options.cores) - 1), self.strangers)
    }

    /// Asserts the invariants of the whole state: for simulations and fuzzing, as it takes a while.
    ///
    /// # Panics
    /// If one is broken.
    pub fn check(&self) {
        let mut held = 0;
        for (key, conn) in self.conns.iter() {
            held += conn.out.counted;
            if conn.side == Side::Provider && conn.phase == Phase::Open {
                let counted = conn.assigned.iter().filter(|(_, assigned)| assigned.counted).count();
                assert_eq!(conn.in_use as usize, counted, "in_use of {key:?}");
                assert!(conn.in_use <= conn.max_concurrent, "{key:?} was given more than max_concurrent");
                assert_eq!(conn.assigned.len() - counted, conn.overdue as usize, "overdue of {key:?}");
                assert_eq!(conn.available_at.is_some(), conn.takes_more(), "{key:?} on the list of available ones");
            }
            let working = conn.assigned.iter().filter(|(_, assigned)| assigned.request.is_some()).count();
            assert_eq!(conn.working as usize, working, "working of {key:?}");
            for request in conn.opened.requests() {
                let state = self.requests.get(request).expect("active streams have a request");
                assert_eq!(state.consumer.map(|(consumer, _)| consumer), Some(key), "consumer of {request:?}");
            }
        }
        let mut watched = HashMap::<(Key, Dir), u32>::new();
        for (since, (key, dir)) in &self.leased {
            let request = self.requests.get(*key);
            if request.is_some_and(|request| request.half(*dir).queue.is_watched_under(*since)) {
                *watched.entry((*key, *dir)).or_default() += 1;
            }
        }
        for (key, request) in self.requests.iter() {
            held += request.heap();
            let window = self.channels[request.channel as usize].window as usize;
            for dir in [Dir::Up, Dir::Down] {
                let flow = request.half(dir);
                let listed = watched.get(&(key, dir)).copied().unwrap_or(0);
                assert!(listed <= 1, "{key:?} {dir:?} is looked after {listed} times");
                assert!(listed == 1 || !flow.queue.has_leases(), "nobody looks after the leases of {key:?} {dir:?}");
                let window = window << flow.grown;
                let again = flow.uncredited as usize;
                let held = (flow.queue.len() + flow.owed as usize).saturating_sub(again);
                assert!(held <= window, "{key:?} {dir:?} holds {held} bytes, more than the window of {window}");
                if let Some((target, _)) = request.target(dir) {
                    assert!(self.conns.get(target).is_some(), "{key:?} {dir:?} has a target that is gone");
                    let waits = flow.is_ready() && !flow.in_ring;
                    assert!(!waits, "{key:?} {dir:?} is ready and not listed: {flow:?}");
                }
            }
            assert_eq!(
                request.place.is_some(),
                request.provider.is_none() && !request.provider_done && !request.only_forwarded,
                "{key:?} in the queue"
            );
        }
        assert_eq!(held, self.held, "accounted memory");
        self.check_abandoned();
        let timers = self.conns.iter().filter(|(_, conn)| conn.timer.is_some()).count()
            + self.requests.iter().filter(|(_, request)| request.timer.is_some()).count();
        assert_eq!(timers, self.wheel.len(), "timers of what is still there, and all timers");
        for (index, channel) in self.channels.iter() {
            let on_it = self.conns.iter().filter(|(_, conn)| conn.channel as usize == index);
            let in_use: u32 = on_it.filter(|(_, conn)| conn.side == Side::Provider).map(|(_, conn)| conn.in_use).sum();
            assert_eq!(channel.in_use, in_use, "in_use of channel {}", channel.id);
            let waits = channel.queued > 0 && !channel.paused;
            assert!(!waits || channel.available.is_empty(), "requests wait beside an idle provider");
        }
    }

    /// Whether nothing at all is left in progress: for simulations, at their end.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.connections().0 == 0
            && self.abandoned.is_empty()
            && self.requests.is_empty()
            && self.held == 0
            && self.channels.iter().all(|(_, channel)| channel.spread && channel.queued == 0)
            && self.conns.iter().all(|(_, conn)| conn.opened.in_use() == 0 && conn.assigned.is_empty())
    }
}
