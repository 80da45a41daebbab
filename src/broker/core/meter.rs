//! How many requests each channel had, and how long they took: a few plain stores on a request's way.
//!
//! A channel gets a [`Meter`] with its first request, and keeps it when nobody is left on it, so that one that comes
//! and goes adds up. There are `telemetry.channels` of them at most. When all are taken, the meter of a channel that
//! nobody is on is added to `other` and let again; if there is none, the new channel is counted in `other` itself.
//!
//! A request that crosses cores is counted where its consumer is, but for the time it waited, which is measured where
//! its provider is. Times are those of turns, read once after each wait: what takes less than a turn takes no time.

use std::collections::HashMap;

use foldhash::quality::RandomState;

use super::channel::Channel;
use super::{Core, Counters};
use crate::base::{ChannelId, Histogram, Key};
use crate::protocol::Code;

/// What one channel's requests came to on one core.
#[derive(Clone, Debug, Default)]
pub struct Meter {
    /// Which channel; `None` for all that have no meter of their own.
    pub channel: Option<ChannelId>,
    /// Requests read, on consumers' connections.
    pub requests: u64,
    /// Requests ended with an ERROR to their consumer.
    pub failed: u64,
    /// Body bytes read from consumers, but those of requests that had ended.
    pub request_bytes: u64,
    /// Body bytes read from providers for them.
    pub response_bytes: u64,
    /// From REQUEST to its being staged for a provider, on the provider's core.
    pub queue_wait: Histogram,
    /// From REQUEST to RESPONSE; not for one-way requests.
    pub first_byte: Histogram,
    /// From REQUEST to the end of the answer, where there was one.
    pub total: Histogram,
    /// Somebody is on the channel.
    in_use: bool,
}

impl Meter {
    /// What one takes, in bytes.
    pub const SIZE: usize = size_of::<Meter>();

    /// Adds another one's figures.
    pub fn add(&mut self, other: &Meter) {
        self.requests += other.requests;
        self.failed += other.failed;
        self.request_bytes += other.request_bytes;
        self.response_bytes += other.response_bytes;
        self.queue_wait.add(&other.queue_wait);
        self.first_byte.add(&other.first_byte);
        self.total.add(&other.total);
    }

    /// A request that is staged for a provider as it comes.
    #[inline(always)]
    pub(super) fn short_request(&mut self, bytes: usize) {
        self.requests += 1;
        self.request_bytes += bytes as u64;
        self.queue_wait.record(0);
    }

    /// An answer that is whole as it comes.
    #[inline(always)]
    pub(super) fn short_response(&mut self, nanos: u64, bytes: usize) {
        self.response_bytes += bytes as u64;
        self.first_byte.record(nanos);
        self.total.record(nanos);
    }
}

/// A core's meters. The first one is `other`.
#[derive(Debug)]
pub(super) struct Meters {
    list: Vec<Meter>,
    of: HashMap<ChannelId, u32, RandomState>,
    /// How many there may be, `other` included.
    max: usize,
    /// Where the search for one to be let again goes on.
    hand: usize,
}

/// No meter yet: a channel's first request finds it one.
pub(super) const NO_METER: u32 = u32::MAX;

impl Meters {
    /// At most `max` channels get one of their own.
    pub(super) fn new(max: usize) -> Meters {
        // the list never moves; what isn't used of it is never touched
        let mut list = Vec::with_capacity(max + 1);
        list.push(Meter::default());
        Meters { list, of: HashMap::default(), max: max + 1, hand: 1 }
    }

    /// The channel's.
    #[inline(always)]
    pub(super) fn of(&mut self, channel: &mut Channel) -> &mut Meter {
        if channel.meter as usize >= self.list.len() {
            channel.meter = self.open(channel.id);
        }
        &mut self.list[channel.meter as usize]
    }

    #[cold]
    #[inline(never)]
    fn open(&mut self, id: ChannelId) -> u32 {
        if let Some(&index) = self.of.get(&id) {
            self.list[index as usize].in_use = true;
            return index;
        }
        let fresh = Meter { channel: Some(id), in_use: true, ..Meter::default() };
        let index = if self.list.len() < self.max {
            self.list.push(fresh);
            self.list.len() - 1
        } else {
            let Some(index) = self.next_unused() else { return 0 };
            let old = std::mem::replace(&mut self.list[index], fresh);
            self.of.retain(|_, at| *at as usize != index);
            self.list[0].add(&old);
            index
        };
        self.of.insert(id, index as u32);
        index as u32
    }

    fn next_unused(&mut self) -> Option<usize> {
        let ahead = (self.hand..self.list.len()).chain(1..self.hand);
        let found = ahead.into_iter().find(|&index| !self.list[index].in_use)?;
        self.hand = found + 1;
        Some(found)
    }

    /// Nobody is on the channel any more.
    pub(super) fn leave(&mut self, channel: &Channel) {
        if let Some(meter) = self.list.get_mut(channel.meter as usize) {
            meter.in_use = false;
        }
    }

    /// All there are.
    pub(super) fn all(&self) -> &[Meter] {
        &self.list
    }
}

impl Core {
    /// A request was read, and its stream id is free.
    pub(super) fn note_request(&mut self, channel: u32, hops: u8) {
        let meter = self.meters.of(&mut self.channels[channel as usize]);
        if hops == 0 {
            self.counters.requests += 1;
            meter.requests += 1;
        }
    }

    /// An ERROR to the request's consumer is about to be staged. The next core's consumer is another core's provider:
    /// it counts what becomes of it.
    pub(super) fn note_failed(&mut self, channel: u32, hops: u8, code: Code) {
        if hops == 0 {
            self.counters.failed[usize::from(code.to_wire())] += 1;
            self.meters.of(&mut self.channels[channel as usize]).failed += 1;
        }
    }

    /// RESPONSE was read.
    pub(super) fn note_first_byte(&mut self, request: Key) {
        let state = self.requests.get(request).expect("looked up by the caller");
        if state.hops == 0 && !state.is_oneway() {
            let nanos = state.age(self.now);
            self.meters.of(&mut self.channels[state.channel as usize]).first_byte.record(nanos);
        }
    }

    /// The end of the answer is about to be staged.
    pub(super) fn note_answered(&mut self, request: Key) {
        let state = self.requests.get(request).expect("looked up by the caller");
        if state.hops > 0 {
            return;
        }
        let Counters { answered, oneway_answered, .. } = &mut self.counters;
        *(if state.is_oneway() { oneway_answered } else { answered }) += 1;
        let nanos = state.age(self.now);
        self.meters.of(&mut self.channels[state.channel as usize]).total.record(nanos);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn channel(name: &str) -> Channel {
        Channel::new(ChannelId::named(name), 1, 1, 1, 0)
    }

    fn requests(meters: &Meters) -> Vec<(Option<ChannelId>, u64)> {
        meters.all().iter().map(|meter| (meter.channel, meter.requests)).collect()
    }

    #[test]
    fn those_beyond_the_bound_are_counted_together() {
        let mut meters = Meters::new(1);
        let (mut a, mut b) = (channel("a"), channel("b"));
        meters.of(&mut a).requests += 1;
        meters.of(&mut b).requests += 2;
        assert_eq!(requests(&meters), [(None, 2), (Some(a.id), 1)]);
    }

    #[test]
    fn a_channel_that_comes_back_adds_up() {
        let mut meters = Meters::new(2);
        for _ in 0..3 {
            let mut a = channel("a");
            meters.of(&mut a).short_request(5);
            meters.leave(&a);
        }
        assert_eq!(requests(&meters), [(None, 0), (Some(ChannelId::named("a")), 3)]);
        assert_eq!((meters.all()[1].queue_wait.len(), meters.all()[1].request_bytes), (3, 15));
    }

    #[test]
    fn an_abandoned_one_is_let_again_and_nothing_is_lost() {
        let mut meters = Meters::new(2);
        let mut stays = channel("stays");
        meters.of(&mut stays).requests += 1;
        for round in 0..5 {
            let mut passing = channel(&format!("passing {round}"));
            meters.of(&mut passing).short_response(round, 7);
            meters.of(&mut passing).requests += 1;
            meters.leave(&passing);
        }
        assert_eq!(requests(&meters), [(None, 4), (Some(stays.id), 1), (Some(ChannelId::named("passing 4")), 1)]);
        assert_eq!((meters.all()[0].total.len(), meters.all()[0].response_bytes), (4, 28));
        // and the one that stayed is still its own
        meters.of(&mut stays).requests += 1;
        assert_eq!(meters.all()[1].requests, 2);
        assert_eq!(meters.of.len(), 2);
    }
}
