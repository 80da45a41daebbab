//! The requests of one connection, in slots that are used again in place.
//!
//! A stream is 128 bytes, of which a short request changes a few: it is neither built on the stack and moved
//! into its slot nor moved out and dropped, but cleared where it lies, and opened again there.

use super::stream::Stream;
use crate::base::keys::next_generation;
use crate::base::{Key, Time};

/// Once this many slots were in use, their memory is given back when the last one is free again.
const LARGE: usize = 4096;

/// The generation of a stream whose slot is free: the last, which no key has.
const FREE: u32 = u32::MAX;

/// A connection's streams. Keys carry a generation, counted over the whole table: a key kept too long finds nothing.
#[derive(Debug, Default)]
pub(super) struct Streams {
    slots: Vec<Stream>,
    free: Vec<u32>,
    next_generation: u32,
}

impl Streams {
    /// A stream in a free slot, as good as new.
    #[inline]
    pub(super) fn open(&mut self, send_window: u32, recv_window: u32, time: Time) -> (Key, &mut Stream) {
        let generation = next_generation(&mut self.next_generation);
        let index = match self.free.pop() {
            Some(index) => {
                self.slots[index as usize].reopen(generation, send_window, recv_window, time);
                index
            }
            None => {
                let index = u32::try_from(self.slots.len()).expect("fewer than 2^32 streams");
                self.slots.push(Stream::new(generation, send_window, recv_window, time));
                index
            }
        };
        let key = Key::new(index, generation);
        (key, &mut self.slots[index as usize])
    }

    #[inline]
    pub(super) fn get(&self, key: Key) -> Option<&Stream> {
        self.slots.get(key.index() as usize).filter(|stream| stream.generation == key.generation())
    }

    #[inline]
    pub(super) fn get_mut(&mut self, key: Key) -> Option<&mut Stream> {
        self.slots.get_mut(key.index() as usize).filter(|stream| stream.generation == key.generation())
    }

    /// Lets go of a stream and of all it holds.
    #[inline]
    pub(super) fn remove(&mut self, key: Key) {
        let Some(stream) = self.get_mut(key) else { return };
        stream.clear();
        stream.generation = FREE;
        self.free.push(key.index());
        if self.slots.len() >= LARGE && self.is_empty() {
            (self.slots, self.free) = (Vec::new(), Vec::new());
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.free.len() == self.slots.len()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Stream> {
        self.slots.iter_mut().filter(|stream| stream.generation != FREE)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Key, &Stream)> {
        let used = (0..).zip(&self.slots).filter(|(_, stream)| stream.generation != FREE);
        used.map(|(index, stream)| (Key::new(index, stream.generation), stream))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn a_slot_is_used_again_as_new_and_old_keys_find_nothing() {
        let mut streams = Streams::default();
        let (old, stream) = streams.open(1, 2, Time::ZERO);
        let new = format!("{stream:?}");
        stream.id = 7;
        let more = stream.more();
        more.queue.push(Bytes::from_static(b"x"));
        more.head.block = vec![1];
        more.block = Some(Bytes::from_static(b"z"));
        more.writer = Some(std::task::Waker::noop().clone());
        more.watchers.push(std::task::Waker::noop().clone());
        (stream.send.head_sent, stream.send.finished, stream.send.ended) = (true, true, true);
        (stream.send.begun, stream.send.queued) = (true, true);
        stream.recv.queue.push(Bytes::from_static(b"y"));
        (stream.recv.begun, stream.recv.ended, stream.recv.discard) = (true, true, true);
        (stream.handles, stream.cancel_sent, stream.opened_at) = (2, true, 9);
        stream.failure = Some(Box::new(super::super::Failure::connection(true)));
        stream.reader = Some(std::task::Waker::noop().clone());
        streams.remove(old);
        assert!(streams.is_empty() && streams.get(old).is_none());
        let (key, stream) = streams.open(1, 2, Time::ZERO);
        stream.generation = old.generation();
        assert_eq!(format!("{stream:?}"), new);
        stream.generation = key.generation();
        assert_eq!(key.index(), old.index());
        assert!(streams.get(old).is_none() && streams.get_mut(old).is_none());
        streams.remove(old);
        assert_eq!(streams.iter().map(|(key, _)| key).collect::<Vec<_>>(), [key]);
    }

    #[test]
    fn memory_of_a_crowd_is_given_back() {
        let mut streams = Streams::default();
        let keys: Vec<Key> = (0..LARGE).map(|_| streams.open(1, 1, Time::ZERO).0).collect();
        keys.iter().for_each(|&key| streams.remove(key));
        assert_eq!(streams.slots.capacity(), 0);
        let (key, _) = streams.open(1, 1, Time::ZERO);
        assert!(keys.iter().all(|&old| old != key && streams.get(old).is_none()));
    }
}
