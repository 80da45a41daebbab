//! What a producer has counted.

use std::time::SystemTime;

use super::{DropReason, Promise, State};
use crate::base::Histogram;

/// Messages given up, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropped([u64; DropReason::ALL.len()]);

impl Dropped {
    /// How many for this reason.
    #[must_use]
    pub fn get(&self, reason: DropReason) -> u64 {
        self.0[reason.index()]
    }

    /// Each reason with its count.
    pub fn iter(&self) -> impl Iterator<Item = (DropReason, u64)> {
        DropReason::ALL.into_iter().zip(self.0)
    }

    /// For all reasons.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    pub(super) fn add(&mut self, reason: DropReason, messages: u64) {
        self.0[reason.index()] += messages;
    }

    pub(super) fn count(&mut self, reason: DropReason) {
        self.0[reason.index()] += 1;
    }

    pub(super) fn since(&self, earlier: &Dropped) -> Dropped {
        let mut more = *self;
        more.0.iter_mut().zip(earlier.0).for_each(|(now, before)| *now -= before);
        more
    }
}

/// Counts of one producer since it was made. A message in parts counts as one, when its first part comes and when its
/// fate is known.
///
/// At every moment `accepted = forwarded + dropped.total() + dead_lettered + queue_messages`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Messages brought to this producer, whatever came of them.
    pub accepted: u64,
    /// Messages delivered, as far as the client's [`Promise`] goes.
    pub forwarded: u64,
    /// Body bytes delivered, those of parts included.
    pub forwarded_bytes: u64,
    /// Messages given up and gone.
    pub dropped: Dropped,
    /// Messages given up and written to the dead letter file.
    pub dead_lettered: u64,
    /// Messages that could not be written to the dead letter file; they are in `dropped`.
    pub dead_letters_failed: u64,
    /// Times a message was sent again.
    pub retried: u64,
    /// Attempts to send, or to reach the target, that failed.
    pub attempts_failed: u64,
    /// Parts of messages already given up, thrown away as they came.
    pub stray_parts: u64,
    /// Notes to the target that a message in parts has no end, which could not be delivered.
    pub aborts_lost: u64,
    /// Messages waiting or being sent, and those in parts whose end has not come.
    pub queue_messages: u64,
    /// What those waiting or being sent cost.
    pub queue_bytes: u64,
}

/// What went wrong last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastError {
    /// In words; never with a password.
    pub text: String,
    /// When.
    pub when: SystemTime,
}

/// A producer, as it is now.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Its id.
    pub id: String,
    /// Its client's protocol.
    pub protocol: String,
    /// Its client's target.
    pub address: String,
    /// What success means there.
    pub promise: Promise,
    /// Whether it sends.
    pub state: State,
    /// Whether its queue is above its bound; see [`Producer::is_over`](super::Producer::is_over).
    pub is_over: bool,
    /// Bytes the queue may hold.
    pub queue_limit: u64,
    /// What it has counted, consistent in itself.
    pub counters: Counters,
    /// The last failure, if there was one.
    pub last_error: Option<LastError>,
    /// Time from accepting a message, or a part, to having delivered it.
    pub latency: Histogram,
}

/// What a shutdown came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Messages delivered while shutting down.
    pub forwarded: u64,
    /// Messages that were still there when the time was up. Each is in `dead_lettered`, `dropped` or `unsettled`.
    pub left: u64,
    /// Messages that a runner still held which did not end: a client that blocks its thread, a runtime that stands
    /// still. They stay in [`Counters::queue_messages`] until it does. 0 of a runner that runs, and of one that was never
    /// started.
    pub unsettled: u64,
    /// Messages written to the dead letter file while shutting down.
    pub dead_lettered: u64,
    /// Messages given up and gone while shutting down.
    pub dropped: Dropped,
}
