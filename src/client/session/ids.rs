//! Which stream ids are in use, and by whom.

use std::collections::HashMap;

use crate::base::Key;

/// Ids below this are looked up in an array: ids are meant to be small and dense (§3).
const DENSE: u32 = 1 << 16;

/// Stream ids in use on one connection.
#[derive(Debug, Default)]
pub(super) struct StreamIds {
    dense: Vec<Option<Key>>,
    sparse: HashMap<u32, Key>,
    free: Vec<u32>,
    top: u32,
}

impl StreamIds {
    #[inline]
    pub(super) fn get(&self, id: u32) -> Option<Key> {
        match self.dense.get(id as usize) {
            Some(key) => *key,
            None => self.sparse.get(&id).copied(),
        }
    }

    /// Puts an id of the other side's choice into use; `false` if it was already.
    #[inline]
    #[must_use]
    pub(super) fn claim(&mut self, id: u32, key: Key) -> bool {
        if self.get(id).is_some() {
            return false;
        }
        self.set(id, key);
        true
    }

    /// Puts an id of this side's choice into use: the one freed last, else the lowest that was never used.
    #[inline]
    pub(super) fn pick(&mut self, key: Key) -> u32 {
        let id = self.free.pop().unwrap_or_else(|| {
            self.top += 1;
            self.top
        });
        self.set(id, key);
        id
    }

    /// Ends the use of an id this side picked or the other side claimed.
    #[inline]
    pub(super) fn release(&mut self, id: u32) {
        let was = match self.dense.get_mut(id as usize) {
            Some(key) => key.take(),
            None => self.sparse.remove(&id),
        };
        assert!(was.is_some(), "stream {id} was not in use");
        if id <= self.top {
            self.free.push(id);
        }
    }

    #[inline]
    fn set(&mut self, id: u32, key: Key) {
        match self.dense.get_mut(id as usize) {
            Some(entry) => *entry = Some(key),
            None => self.set_new(id, key),
        }
    }

    #[cold]
    fn set_new(&mut self, id: u32, key: Key) {
        if id < DENSE {
            self.dense.resize(id as usize, None);
            self.dense.push(Some(key));
        } else {
            self.sparse.insert(id, key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_dense_and_reused() {
        let (mut ids, key) = (StreamIds::default(), Key::unpack(7));
        assert_eq!([ids.pick(key), ids.pick(key), ids.pick(key)], [1, 2, 3]);
        ids.release(2);
        assert_eq!(ids.get(2), None);
        assert_eq!([ids.pick(key), ids.pick(key)], [2, 4]);
    }

    #[test]
    fn any_id_may_be_claimed_once() {
        let (mut ids, key) = (StreamIds::default(), Key::unpack(7));
        for id in [1, DENSE - 1, DENSE, u32::MAX] {
            assert!(ids.claim(id, key));
            assert!(!ids.claim(id, key));
            assert_eq!(ids.get(id), Some(key));
            ids.release(id);
            assert_eq!(ids.get(id), None);
        }
    }
}
