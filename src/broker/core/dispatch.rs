//! Which provider a request goes to, and how it waits for one (§6).

use super::Core;
use super::channel::{Channel, Place};
use super::flow::{Dir, Flow};
use super::streams::Assigned;
use crate::base::Key;
use crate::protocol::{Code, Flags};

impl Core {
    /// Sends a request on its way: to a provider here, to another core, into the queue, or back with NO_PROVIDER.
    pub(super) fn dispatch(&mut self, request: Key) {
        let state = self.requests.get(request).expect("looked up by the caller");
        let channel = state.channel;
        let wait = state.flags.has(Flags::WAIT);
        let Channel { spread, paused, providers, .. } = self.channels[channel as usize];
        let elsewhere = if spread { self.choose_core(request) } else { None };
        debug_assert!(elsewhere.is_none() || !self.stays_here(channel), "the short way would have kept it here");
        if paused && (wait || providers > 0 || elsewhere.is_some() || self.may_only_be_forwarded(request)) {
            self.enqueue(request);
        } else if let Some(core) = elsewhere {
            self.assign_link(request, core);
        } else if let Some(provider) = self.pick(channel) {
            self.assign(request, provider);
        } else if wait || providers > 0 {
            self.enqueue(request);
        } else if self.may_only_be_forwarded(request) {
            self.only_forward(request);
        } else {
            self.end_request(request, Code::NoProvider, "nobody serves the channel");
        }
    }

    /// Of two available providers picked at random, the one with the smaller share in use.
    #[inline]
    pub(super) fn pick(&mut self, channel: u32) -> Option<Key> {
        let Channel { paused, available, .. } = &self.channels[channel as usize];
        let n = available.len();
        if *paused {
            return None;
        }
        if n <= 1 {
            return available.first().copied();
        }
        let random = self.random();
        // a fixed-point product instead of a modulo: Lemire, "Fast random integer generation" (2019)
        let first = (((random >> 32) * n as u64) >> 32) as usize;
        let second = (((random & 0xffff_ffff) * (n as u64 - 1)) >> 32) as usize;
        let available = &self.channels[channel as usize].available;
        let (first, second) = (available[first], available[if second >= first { second + 1 } else { second }]);
        let share = |key| {
            let conn = self.conns.get(key).expect("listed providers are connected");
            (u64::from(conn.in_use), u64::from(conn.max_concurrent))
        };
        let ((in_use_1, max_1), (in_use_2, max_2)) = (share(first), share(second));
        Some(if in_use_2 * max_1 < in_use_1 * max_2 { second } else { first })
    }

    /// Gives a request to a provider. Nothing is staged yet.
    pub(super) fn assign(&mut self, request: Key, provider: Key) {
        let conn = self.conns.get_mut(provider).expect("looked up by the caller");
        let (channel, window) = (conn.channel, conn.window);
        let stream = self.open_stream(provider, request, true);
        let conn = self.conns.get_mut(provider).expect("as above");
        conn.in_use += 1;
        if !conn.takes_more() {
            self.update_available(provider);
        }
        let state = &mut self.channels[channel as usize];
        state.in_use += 1;
        let granted = state.window;
        if state.spread {
            self.note_news(channel);
        }
        let state = self.requests.get_mut(request).expect("looked up by the caller");
        state.provider = Some((provider, stream));
        state.up.credit = window;
        state.down.granted = granted;
    }

    /// Picks a free stream id towards a provider or another core.
    pub(super) fn open_stream(&mut self, target: Key, request: Key, counted: bool) -> u32 {
        let conn = self.conns.get_mut(target).expect("looked up by the caller");
        conn.tenancies = conn.tenancies.wrapping_add(1);
        let tenancy = conn.tenancies;
        let assigned = Assigned { request: Some(request), granted: 0, begun: false, counted, tenancy };
        conn.working += 1;
        conn.assigned.insert(assigned) as u32 + 1
    }

    /// Lets a request wait for a provider, within the channel's bounds.
    fn enqueue(&mut self, request: Key) {
        let state = self.requests.get(request).expect("looked up by the caller");
        let channel = &mut self.channels[state.channel as usize];
        let bytes = state.up.queue.len();
        if self.draining.is_some() {
            return self.end_request(request, Code::Draining, "the broker is shutting down");
        }
        if channel.queued >= channel.queue_requests || channel.queued_bytes + bytes > channel.queue_bytes {
            return self.end_request(request, Code::Overloaded, "the channel's queue is full");
        }
        channel.queued += 1;
        channel.queued_bytes += bytes;
        // an answered one-way request queues by itself: its consumer may be gone
        let lane_key = (state.consumer.map_or(request, |(consumer, _)| consumer), state.origin);
        let place = match channel.lane(lane_key) {
            Some((lane, last)) => {
                channel.set_last(lane, request);
                let before = self.requests.get_mut(last).expect("queued requests are in the table");
                before.place.as_mut().expect("it is queued").after = Some(request);
                Place { lane, before: Some(last), after: None }
            }
            None => Place { lane: channel.open_lane(lane_key, request), before: None, after: None },
        };
        self.requests.get_mut(request).expect("looked up by the caller").place = Some(place);
        self.counters.queued += 1;
    }

    /// Takes a request out of its channel's queue, if it is there.
    pub(super) fn unqueue(&mut self, request: Key) {
        let state = self.requests.get_mut(request).expect("looked up by the caller");
        let Some(Place { lane, before, after }) = state.place.take() else { return };
        let (channel, bytes) = (state.channel, state.up.queue.len());
        let mut link = |key: Key, change: &dyn Fn(&mut Place)| {
            let state = self.requests.get_mut(key).expect("queued requests are in the table");
            change(state.place.as_mut().expect("it is queued"));
        };
        if let Some(before) = before {
            link(before, &|place| place.after = after);
        }
        if let Some(after) = after {
            link(after, &|place| place.before = before);
        }
        let channel = &mut self.channels[channel as usize];
        channel.queued -= 1;
        channel.queued_bytes -= bytes;
        match (before, after) {
            (None, None) => channel.close_lane(lane),
            (None, Some(after)) => channel.set_first(lane, after),
            (Some(before), None) => channel.set_last(lane, before),
            (Some(_), Some(_)) => {}
        }
    }

    /// Gives waiting requests to the providers that have room.
    pub(super) fn serve_queue(&mut self, channel: u32) {
        while self.channels[channel as usize].queued > 0 {
            let Some(provider) = self.pick(channel) else { return };
            let request = self.channels[channel as usize].next_in_turn().expect("a queued request has a lane");
            self.unqueue(request);
            self.assign(request, provider);
            self.enlist(request, Dir::Up);
        }
    }

    /// The channel's last provider here has left: those that wait go to another core, or end unless they said WAIT.
    pub(super) fn no_provider_left(&mut self, channel: u32) {
        let elsewhere = self.channels[channel as usize].has_remote();
        let mut keep = Vec::new();
        while self.channels[channel as usize].queued > 0 {
            let request = self.channels[channel as usize].next_in_turn().expect("a queued request has a lane");
            self.unqueue(request);
            if elsewhere && let Some(core) = self.choose_core(request) {
                self.assign_link(request, core);
                self.enlist(request, Dir::Up);
            } else if self.requests.get(request).is_some_and(|state| state.flags.has(Flags::WAIT)) {
                keep.push(request);
            } else if self.may_only_be_forwarded(request) {
                self.only_forward(request);
            } else {
                self.end_request(request, Code::NoProvider, "the channel's last provider left");
            }
        }
        for request in keep {
            self.enqueue(request);
        }
    }

    /// Hands a request whose provider was lost to another one, where that is allowed (§6): it carries RETRY, no
    /// response byte came back, and its body is still held whole.
    pub(super) fn try_again(&mut self, request: Key) -> bool {
        let state = self.requests.get_mut(request).expect("looked up by the caller");
        let channel = &self.channels[state.channel as usize];
        let somebody = channel.providers > 0 || channel.has_remote() || state.flags.has(Flags::WAIT);
        if state.answering || !somebody || self.draining.is_some() {
            return false;
        }
        let Some(replay) = &state.replay else { return false };
        let old = std::mem::take(&mut state.up);
        state.handed |= old.opened;
        let mut up = Flow {
            granted: old.granted,
            owed: old.owed,
            credited: old.credited,
            uncredited: old.credited,
            grown: old.grown,
            copied: old.copied,
            begun: true,
            received_end: old.received_end,
            head: replay.head.clone(),
            ..Flow::default()
        };
        up.queue.push_copy(&replay.body);
        self.held = self.held - old.queue.heap() + up.queue.heap();
        let mut queue = old.queue;
        queue.clear(&mut self.released);
        state.up = up;
        state.down.received_end = false;
        (state.provider, state.provider_done) = (None, false);
        self.counters.retried += 1;
        self.dispatch(request);
        self.enlist(request, Dir::Up);
        true
    }

    /// Finds another way for a request that was assigned but of which nothing has been staged: its provider has heard
    /// nothing of it, so this is no second attempt. It is off that provider already.
    pub(super) fn hand_on(&mut self, request: Key) {
        let state = self.requests.get_mut(request).expect("looked up by the caller");
        state.provider = None;
        state.up.in_ring = false;
        if self.draining.is_some() {
            return self.end_request(request, Code::Draining, "the broker is shutting down");
        }
        self.dispatch(request);
        self.enlist(request, Dir::Up);
    }

    /// No second attempt will be made of it any more.
    pub(super) fn drop_replay(&mut self, request: Key) {
        let state = self.requests.get_mut(request).expect("looked up by the caller");
        if let Some(replay) = state.replay.take() {
            self.held -= replay.body.capacity();
        }
    }
}
