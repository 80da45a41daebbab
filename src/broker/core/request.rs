//! One request on one core, from REQUEST to its terminal frame.
//!
//! ```text
//!              ┌───────────── RETRY, its provider lost ─────────────┐
//!              ▼                                                    │
//!  REQUEST ─► waiting ── provider found ─► assigned ── RESPONSE ─► answering ── END ─► gone
//!              │ deadline, cancel, loss,      │ the same: CANCEL       │ the same
//!              ▼ limit, drain: ERROR          ▼ to the provider        ▼
//!             gone                           gone                     gone
//! ```
//!
//! A request leaves the table with the staging of its one terminal frame towards the consumer, so a second one has
//! nothing to be sent from. What is still due from either side then lives in the connections' stream tables.

use super::channel::Place;
use super::flow::{Dir, Flow};
use crate::base::wheel::Timer;
use crate::base::{Key, Time};
use crate::protocol::{Code, Flags};

/// One request. See the module's page.
#[derive(Debug)]
pub(super) struct Request {
    pub id: [u8; 16],
    /// Index of the channel.
    pub channel: u32,
    /// ONEWAY, WAIT, RETRY as the consumer set them.
    pub flags: Flags,
    /// The consumer's connection (or a link from another core) and its stream id. `None` once a one-way request
    /// is answered.
    pub consumer: Option<(Key, u32)>,
    /// The provider's connection (or a link to another core) and its stream id. `None` while waiting, and once
    /// the provider has sent its terminal frame.
    pub provider: Option<(Key, u32)>,
    /// The provider has sent its terminal frame.
    pub provider_done: bool,
    /// Some of it was handed to a provider that was lost (RETRY).
    pub handed: bool,
    /// Another core has it, and was told to end it for this reason.
    pub ending_there: Option<Code>,
    /// RESPONSE has come: there is no second attempt.
    pub answering: bool,
    /// No provider is to get it: it is done when it has been forwarded.
    pub only_forwarded: bool,
    pub deadline: Time,
    /// How long before that its REQUEST began to come, in milliseconds.
    pub timeout: u32,
    pub timer: Option<Timer>,
    /// Consumer to provider.
    pub up: Flow,
    /// Provider to consumer.
    pub down: Flow,
    /// The body so far, kept for a second attempt (RETRY); `None` when not asked for, or grown past a window.
    pub replay: Option<Box<Replay>>,
    /// Its place in the channel's queue.
    pub place: Option<Place>,
    /// Which connection of another core it comes from, for fairness between them.
    pub origin: u32,
    /// How many links it has crossed.
    pub hops: u8,
    /// What it takes besides its body, in bytes: its state and its header blocks.
    pub fixed: u32,
}

/// What a second attempt starts from.
#[derive(Debug, Default)]
pub(super) struct Replay {
    pub head: Option<Box<[u8]>>,
    pub body: Vec<u8>,
}

impl Request {
    #[inline]
    pub(super) fn flow(&mut self, dir: Dir) -> &mut Flow {
        match dir {
            Dir::Up => &mut self.up,
            Dir::Down => &mut self.down,
        }
    }

    /// As [`Request::flow`], to look at.
    pub(super) fn half(&self, dir: Dir) -> &Flow {
        match dir {
            Dir::Up => &self.up,
            Dir::Down => &self.down,
        }
    }

    /// Where bytes of this direction go.
    #[inline]
    pub(super) fn target(&self, dir: Dir) -> Option<(Key, u32)> {
        match dir {
            Dir::Up => self.provider,
            Dir::Down => self.consumer,
        }
    }

    /// Where bytes of this direction come from.
    #[inline]
    pub(super) fn source(&self, dir: Dir) -> Option<(Key, u32)> {
        match dir {
            Dir::Up => self.consumer,
            Dir::Down => self.provider,
        }
    }

    /// Nanoseconds since its REQUEST began to come.
    #[inline]
    pub(super) fn age(&self, now: Time) -> u64 {
        (now.as_nanos() + u64::from(self.timeout) * 1_000_000).saturating_sub(self.deadline.as_nanos())
    }

    pub(super) fn is_oneway(&self) -> bool {
        self.flags.has(Flags::ONEWAY)
    }

    /// Some of it was handed to a provider: its work may have begun.
    pub(super) fn is_started(&self) -> bool {
        self.up.opened || self.handed
    }

    /// Bytes of memory held for it: what `core_buffer` counts.
    pub(super) fn heap(&self) -> usize {
        self.fixed as usize
            + self.up.queue.heap()
            + self.down.queue.heap()
            + self.replay.as_ref().map_or(0, |replay| replay.body.capacity())
    }
}

// a request is touched half a dozen times on its way, with thousands of others in between; and above 256 bytes the C
// library's copy takes a loop, which cost 70 instructions a request
const _: () = assert!(size_of::<Request>() <= 256);
