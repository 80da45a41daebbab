//! Stream ids on a connection: which request each stands for, and which are still in use after it ended (§3).

use std::collections::HashMap;

use foldhash::quality::RandomState;

use crate::base::Key;

/// An id the opener picked: on a consumer's connection, or on a link from another core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opened {
    /// Stands for this request.
    Active(Key),
    /// The terminal frame is out, END or CANCEL has not come: what still arrives is discarded, within this credit.
    Discard { granted: u32, refused: bool },
}

/// Ids below this are kept in a vector (16 KiB at most), the others in a map: ids are meant to be small and dense.
const DENSE: u32 = 1024;

/// The ids in use that the other side picked.
#[derive(Debug, Default)]
pub(super) struct OpenedStreams {
    dense: Vec<Option<Opened>>,
    sparse: HashMap<u32, Opened, RandomState>,
    /// Ids that have stood for a request, and those of them that no longer do; both wrap.
    begun: u32,
    over: u32,
    discarding: u32,
    refused: u32,
}

impl OpenedStreams {
    #[inline]
    pub(super) fn get(&self, id: u32) -> Option<Opened> {
        if id < DENSE { self.dense.get(id as usize).copied().flatten() } else { self.sparse.get(&id).copied() }
    }

    /// As [`OpenedStreams::set`], for an id not in use.
    #[inline]
    pub(super) fn set_active(&mut self, id: u32, request: Key) {
        match self.dense.get_mut(id as usize) {
            Some(slot) => {
                *slot = Some(Opened::Active(request));
                self.begun = self.begun.wrapping_add(1);
            }
            None => self.set(id, Opened::Active(request)),
        }
    }

    pub(super) fn set(&mut self, id: u32, state: Opened) {
        self.remove(id);
        match state {
            Opened::Active(_) => self.begun = self.begun.wrapping_add(1),
            Opened::Discard { refused, .. } => {
                self.discarding += 1;
                self.refused += u32::from(refused);
            }
        }
        if id >= DENSE {
            self.sparse.insert(id, state);
            return;
        }
        let index = id as usize;
        if index >= self.dense.len() {
            self.dense.resize(index + 1, None);
        }
        self.dense[index] = Some(state);
    }

    #[inline]
    pub(super) fn remove(&mut self, id: u32) -> Option<Opened> {
        let was =
            if id < DENSE { self.dense.get_mut(id as usize).and_then(Option::take) } else { self.sparse.remove(&id) };
        match was {
            None => {}
            Some(Opened::Active(_)) => self.over = self.over.wrapping_add(1),
            Some(Opened::Discard { refused, .. }) => {
                self.discarding -= 1;
                self.refused -= u32::from(refused);
            }
        }
        was
    }

    /// Ids that stand for a request.
    #[inline]
    pub(super) fn active(&self) -> u32 {
        self.begun.wrapping_sub(self.over)
    }

    /// How many ids have stood for a request so far; wraps.
    pub(super) fn begun(&self) -> u32 {
        self.begun
    }

    /// Ids in use but for those of refused requests, which have a bound of their own.
    pub(super) fn open(&self) -> u32 {
        self.active() + self.discarding - self.refused
    }

    /// All ids in use.
    pub(super) fn in_use(&self) -> u32 {
        self.active() + self.discarding
    }

    /// Refused requests whose END or CANCEL has not come.
    pub(super) fn refused(&self) -> u32 {
        self.refused
    }

    /// The requests the active ids stand for.
    pub(super) fn requests(&self) -> Vec<Key> {
        // in the order of their ids: the map's own is another one in each process, and a seed is to replay
        let mut sparse: Vec<(&u32, &Opened)> = self.sparse.iter().collect();
        sparse.sort_unstable_by_key(|&(id, _)| id);
        let all = self.dense.iter().flatten().chain(sparse.into_iter().map(|(_, state)| state));
        all.filter_map(|state| if let Opened::Active(key) = state { Some(*key) } else { None }).collect()
    }
}

/// An id the broker picked, towards a provider or on a link to another core.
#[derive(Clone, Copy, Debug)]
pub(super) struct Assigned {
    /// The request; `None` when it ended here and the provider's terminal frame is still due.
    pub request: Option<Key>,
    /// Response bytes the provider may still send to an ended request.
    pub granted: u32,
    /// RESPONSE has come.
    pub begun: bool,
    /// Counts against max_concurrent: until the terminal frame, or `cancel_grace` after the CANCEL.
    pub counted: bool,
    /// Which use of the slot this is.
    pub tenancy: u32,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Table;

    #[test]
    fn dense_and_sparse_ids_count_alike() {
        let key = Table::new().insert(());
        for id in [1, DENSE - 1, DENSE, u32::MAX] {
            let mut streams = OpenedStreams::default();
            streams.set(id, Opened::Active(key));
            assert_eq!((streams.get(id), streams.active(), streams.in_use()), (Some(Opened::Active(key)), 1, 1));
            assert_eq!(streams.requests(), [key]);
            streams.set(id, Opened::Discard { granted: 5, refused: true });
            assert_eq!((streams.active(), streams.in_use(), streams.refused()), (0, 1, 1));
            assert!(streams.remove(id).is_some());
            assert!(streams.remove(id).is_none());
            assert_eq!((streams.in_use(), streams.refused()), (0, 0));
        }
    }
}
