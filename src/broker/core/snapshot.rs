//! What a core looks like right now: for people, and for the simulation's checks.

use super::conn::{Phase, Side};
use super::flow::Dir;
use super::{Core, conn::Info};
use crate::base::ChannelId;

/// A connection, for people.
#[derive(Clone, Debug)]
pub struct ConnSnapshot {
    /// Who it is.
    pub info: Info,
    /// `consumer`, `provider` or `handshake`.
    pub role: &'static str,
    /// Its channel, once known.
    pub channel: Option<ChannelId>,
    /// Requests in progress on it.
    pub in_flight: u32,
    /// Bytes staged for it.
    pub pending: usize,
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
    /// What it looks like right now.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let connections = self.conns.iter().filter(|(_, conn)| !conn.side.is_link()).map(|(_, conn)| ConnSnapshot {
            info: (*conn.info).clone(),
            role: match conn.side {
                Side::Consumer => "consumer",
                Side::Provider => "provider",
                _ => "handshake",
            },
            channel: self.channels.get(conn.channel as usize).map(|channel| channel.id),
            in_flight: conn.opened.active() + conn.in_use,
            pending: conn.out.pending(),
        });
        let channels = self.channels.iter().map(|(_, channel)| ChannelSnapshot {
            id: channel.id,
            connections: channel.connections,
            providers: channel.providers,
            capacity: channel.capacity,
            in_use: channel.in_use,
            queued: channel.queued,
        });
        Snapshot {
            connections: connections.collect(),
            channels: channels.collect(),
            requests: self.requests.len(),
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
        for (key, request) in self.requests.iter() {
            held += request.heap();
            let window = self.channels[request.channel as usize].window as usize;
            for dir in [Dir::Up, Dir::Down] {
                let flow = if dir == Dir::Up { &request.up } else { &request.down };
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
                request.provider.is_none() && !request.provider_done,
                "{key:?} in the queue"
            );
        }
        assert_eq!(held, self.held, "accounted memory");
        let timers = self.conns.iter().filter(|(_, conn)| conn.timer.is_some()).count()
            + self.requests.iter().filter(|(_, request)| request.timer.is_some()).count();
        assert_eq!(timers, self.wheel.len(), "timers of what is still there, and all timers");
        for (index, channel) in self.channels.iter() {
            let on_it = self.conns.iter().filter(|(_, conn)| conn.channel as usize == index);
            let in_use: u32 = on_it.filter(|(_, conn)| conn.side == Side::Provider).map(|(_, conn)| conn.in_use).sum();
            assert_eq!(channel.in_use, in_use, "in_use of channel {}", channel.id);
            assert!(channel.queued == 0 || channel.available.is_empty(), "requests wait beside an idle provider");
        }
    }

    /// Whether nothing at all is left in progress: for simulations, at their end.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.connections().0 == 0
            && self.requests.is_empty()
            && self.held == 0
            && self.channels.iter().all(|(_, channel)| channel.spread && channel.queued == 0)
            && self.conns.iter().all(|(_, conn)| conn.opened.in_use() == 0 && conn.assigned.is_empty())
    }
}
