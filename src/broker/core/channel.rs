//! A channel on one core: its providers, and the requests that wait for one.
//!
//! Requests wait in lanes, one for each consumer connection (behind a link: one for each origin), in order within
//! a lane and round robin between lanes (§6).

use std::collections::HashMap;

use foldhash::quality::RandomState;
use slab::Slab;

use super::tap::Taps;
use crate::base::{ChannelId, Key};

/// Who queues: a connection, and behind a link which connection of the other core.
pub(super) type LaneKey = (Key, u32);

/// Providers of the channel on one core: on another one, as that core last said.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Remote {
    /// Sum of max_concurrent.
    pub capacity: u32,
    /// Requests in progress, with those sent there since.
    pub in_use: u32,
}

/// A channel's state on one core.
#[derive(Debug)]
pub(super) struct Channel {
    pub id: ChannelId,
    /// Window granted on new streams of this channel, in bytes.
    pub window: u32,
    pub queue_requests: u32,
    pub queue_bytes: usize,
    /// Where the next consumer and the next provider are dealt to, on the home core of a spread channel. Counted each
    /// for itself, so that neither kind heaps up on one core, and begun apart.
    pub dealt: [u16; 2],
    /// Its connections may be on several cores.
    pub spread: bool,
    /// Nothing is dispatched nor granted, for a producer can't keep up.
    pub paused: bool,
    /// Who is to get a copy of what.
    pub taps: Taps,
    /// Connections on it here.
    pub connections: u32,
    /// Requests on it here.
    pub requests: u32,
    /// Providers that take requests (no GOAWAY sent).
    pub providers: u32,
    /// Providers with room for one more.
    pub available: Vec<Key>,
    /// Sum of the providers' max_concurrent.
    pub capacity: u32,
    /// Requests counted against it.
    pub in_use: u32,
    /// By core; empty unless spread.
    pub remotes: Vec<Remote>,
    /// Capacity or use changed since the other cores were told.
    pub has_news: bool,
    /// Index of its meter, once a request has come.
    pub meter: u32,
    /// Capacity and use as the other cores were told last.
    pub told: (u32, u32),
    pub queued: u32,
    pub queued_bytes: usize,
    lanes: Slab<Lane>,
    lane_of: HashMap<LaneKey, u32, RandomState>,
    /// First and last lane in the line: each leads to the next.
    line: Option<(u32, u32)>,
}

/// The requests of one connection that wait, oldest first: a list through [`super::request::Request::place`].
#[derive(Debug)]
pub(super) struct Lane {
    pub key: LaneKey,
    pub first: Key,
    pub last: Key,
    before: u32,
    after: u32,
}

/// No lane.
const NIL: u32 = u32::MAX;

/// A waiting request's place in its lane.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub lane: u32,
    pub before: Option<Key>,
    pub after: Option<Key>,
}

impl Channel {
    pub(super) fn new(id: ChannelId, window: u32, queue_requests: u32, queue_bytes: usize, remotes: usize) -> Channel {
        Channel {
            id,
            window,
            queue_requests,
            queue_bytes,
            dealt: [0, 1],
            spread: remotes > 0,
            paused: false,
            taps: Taps::default(),
            connections: 0,
            requests: 0,
            providers: 0,
            available: Vec::new(),
            capacity: 0,
            in_use: 0,
            remotes: vec![Remote::default(); remotes],
            has_news: false,
            meter: super::meter::NO_METER,
            told: (0, 0),
            queued: 0,
            queued_bytes: 0,
            lanes: Slab::new(),
            lane_of: HashMap::default(),
            line: None,
        }
    }

    /// The providers here, as other cores see them; what waits for one is in use.
    #[inline]
    pub(super) fn load(&self) -> Remote {
        let capacity = if self.providers > 0 { self.capacity } else { 0 };
        Remote { capacity, in_use: self.in_use + self.queued }
    }

    /// Nobody is on it and nothing is known of it elsewhere.
    pub(super) fn is_unused(&self) -> bool {
        self.connections == 0 && self.requests == 0 && self.remotes.iter().all(|remote| remote.capacity == 0)
    }

    /// Whether another core has providers of it.
    pub(super) fn has_remote(&self) -> bool {
        self.remotes.iter().any(|remote| remote.capacity > 0)
    }

    /// The last request of this lane, behind which the next one is queued.
    pub(super) fn lane(&mut self, key: LaneKey) -> Option<(u32, Key)> {
        let lane = *self.lane_of.get(&key)?;
        Some((lane, self.lanes[lane as usize].last))
    }

    /// Opens a lane with its first request, at the end of the line.
    pub(super) fn open_lane(&mut self, key: LaneKey, request: Key) -> u32 {
        let lane = self.lanes.insert(Lane { key, first: request, last: request, before: NIL, after: NIL }) as u32;
        self.lane_of.insert(key, lane);
        self.line_up(lane);
        lane
    }

    /// Puts a lane that is not in the line at its end.
    fn line_up(&mut self, lane: u32) {
        let last = self.line.map_or(NIL, |(_, last)| last);
        let state = &mut self.lanes[lane as usize];
        (state.before, state.after) = (last, NIL);
        if last != NIL {
            self.lanes[last as usize].after = lane;
        }
        self.line = Some((self.line.map_or(lane, |(first, _)| first), lane));
    }

    /// Takes a lane out of the line.
    fn step_out(&mut self, lane: u32) {
        let Lane { before, after, .. } = self.lanes[lane as usize];
        let (first, last) = self.line.expect("the lane is in the line");
        if before != NIL {
            self.lanes[before as usize].after = after;
        }
        if after != NIL {
            self.lanes[after as usize].before = before;
        }
        let first = if first == lane { after } else { first };
        let last = if last == lane { before } else { last };
        self.line = (first != NIL).then_some((first, last));
    }

    pub(super) fn set_last(&mut self, lane: u32, last: Key) {
        self.lanes[lane as usize].last = last;
    }

    pub(super) fn set_first(&mut self, lane: u32, first: Key) {
        self.lanes[lane as usize].first = first;
    }

    /// Closes a lane that has become empty.
    pub(super) fn close_lane(&mut self, lane: u32) {
        self.step_out(lane);
        let lane_key = self.lanes.remove(lane as usize).key;
        self.lane_of.remove(&lane_key);
    }

    /// The oldest request of the lane whose turn it is; the lane goes to the end of the line.
    pub(super) fn next_in_turn(&mut self) -> Option<Key> {
        let (lane, _) = self.line?;
        self.step_out(lane);
        self.line_up(lane);
        Some(self.lanes[lane as usize].first)
    }
}
