//! Requests that their consumer gave up, by CANCEL or by their timeout, while their provider still works on them (§3).
//!
//! They take up the provider's places, until it ends them or `cancel_grace` has passed, though the consumer's streams
//! are free again. Were they counted nowhere else, one connection could fill every place of a channel, whatever
//! max_streams says: REQUEST and CANCEL, again and again (what HTTP/2 calls rapid reset).

use super::Core;
use super::conn::{Phase, Side};
use crate::base::Key;

impl Core {
    /// A request of this consumer has ended, and its provider may still work on it.
    pub(super) fn note_abandoned(&mut self, consumer: Key, provider: Key, slot: usize) {
        let Some(conn) = self.conns.get(provider).filter(|conn| conn.side == Side::Provider) else { return };
        // gone, or never told of the request
        if conn.assigned.get(slot).is_none_or(|assigned| assigned.request.is_some() || !assigned.counted) {
            return;
        }
        let Some(conn) = self.conns.get_mut(consumer) else { return };
        if conn.side == Side::Consumer && conn.phase == Phase::Open {
            conn.abandoned += 1;
            conn.note_special(&self.options.limits);
            self.abandoned.insert((provider, slot), consumer);
        }
    }

    /// The provider has ended what was in this slot, or is gone, or `cancel_grace` has passed.
    pub(super) fn no_longer_abandoned(&mut self, provider: Key, slot: usize) {
        let Some(consumer) = self.abandoned.remove(&(provider, slot)) else { return };
        if let Some(conn) = self.conns.get_mut(consumer) {
            conn.abandoned -= 1;
            conn.note_special(&self.options.limits);
        }
    }

    /// Asserts that the books are right.
    pub(super) fn check_abandoned(&self) {
        for (&(provider, slot), consumer) in &self.abandoned {
            let provider = self.conns.get(provider).expect("a provider that goes takes its slots with it");
            let assigned = provider.assigned.get(slot).expect("a slot that was ended is no longer abandoned");
            assert!(
                assigned.request.is_none() && assigned.counted,
                "slot {slot} of {provider:?} given up by {consumer:?}"
            );
        }
        for (key, conn) in self.conns.iter() {
            let all = self.abandoned.values().filter(|&&consumer| consumer == key).count();
            assert_eq!(conn.abandoned as usize, all, "abandoned of {key:?}");
        }
    }
}
