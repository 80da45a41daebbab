//! Jobs that wait for their next attempt, and those that must not overtake them.
//!
//! ```text
//!   failed ──► due (by time) ───────────────► its time has come ──► a worker
//!                 │ same key                                           │ over
//!   queued ──► behind it, in order ◄───────── next of the key ◄────────┘
//! ```
//!
//! Invariant of an ordered lane: a key is in `keys` from the moment a job of it is parked until one ends with nobody
//! behind it; as long as it is there, jobs of that key come out in the order they came in, one at a time.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};

use tokio::time::Instant;

/// A lane's parked jobs. Knows no clock: the time is an argument.
#[derive(Debug)]
pub(super) struct Parked<T> {
    due: BinaryHeap<Reverse<Due<T>>>,
    /// Held behind a job that is over: their turn has come.
    ready: VecDeque<T>,
    /// `None` where order is of no importance.
    keys: Option<HashMap<u64, VecDeque<T>>>,
    seq: u64,
    len: usize,
}

#[derive(Debug)]
struct Due<T> {
    at: Instant,
    seq: u64,
    item: T,
}

impl<T> PartialEq for Due<T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl<T> Eq for Due<T> {}

impl<T> PartialOrd for Due<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Due<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.seq).cmp(&(other.at, other.seq))
    }
}

impl<T> Parked<T> {
    pub(super) fn new(ordered: bool) -> Parked<T> {
        Parked { due: BinaryHeap::new(), ready: VecDeque::new(), keys: ordered.then(HashMap::new), seq: 0, len: 0 }
    }

    /// Keeps a job until `at`, and those of its key behind it.
    pub(super) fn park(&mut self, at: Instant, key: u64, item: T) {
        if let Some(keys) = &mut self.keys {
            keys.entry(key).or_default();
        }
        self.due.push(Reverse(Due { at, seq: self.seq, item }));
        self.seq += 1;
        self.len += 1;
    }

    /// A job from the queue: given back, unless it must wait behind another of its key.
    pub(super) fn pass(&mut self, key: u64, item: T) -> Option<T> {
        match self.keys.as_mut().and_then(|keys| keys.get_mut(&key)) {
            Some(behind) => {
                behind.push_back(item);
                self.len += 1;
                None
            }
            None => Some(item),
        }
    }

    /// A job whose turn it is.
    pub(super) fn take(&mut self, now: Instant) -> Option<T> {
        let item = self.ready.pop_front().or_else(|| {
            let is_due = self.due.peek().is_some_and(|Reverse(first)| first.at <= now);
            if is_due { self.due.pop().map(|Reverse(first)| first.item) } else { None }
        })?;
        self.len -= 1;
        Some(item)
    }

    /// A job of this key is over: the next one's turn.
    pub(super) fn over(&mut self, key: u64) {
        let Some(keys) = &mut self.keys else { return };
        let Some(behind) = keys.get_mut(&key) else { return };
        match behind.pop_front() {
            Some(next) => self.ready.push_back(next),
            None => drop(keys.remove(&key)),
        }
    }

    /// When the next job is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.due.peek().map(|Reverse(first)| first.at)
    }

    /// Jobs parked, and held behind those.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing is kept and no key is.
    pub(super) fn is_idle(&self) -> bool {
        self.len == 0 && self.keys.as_ref().is_none_or(HashMap::is_empty)
    }

    /// Takes out everything.
    pub(super) fn drain(&mut self) -> Vec<T> {
        self.len = 0;
        let due = std::mem::take(&mut self.due).into_sorted_vec().into_iter().rev().map(|Reverse(due)| due.item);
        let held = self.keys.iter_mut().flat_map(|keys| keys.drain()).flat_map(|(_, behind)| behind);
        self.ready.drain(..).chain(due).chain(held).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use proptest::prelude::*;

    #[test]
    fn jobs_come_out_when_due_first_the_earliest() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut parked = Parked::new(false);
        for ms in [30, 10, 20, 10] {
            parked.park(at(ms), 0, ms);
        }
        assert_eq!(parked.next(), Some(at(10)));
        assert_eq!(parked.take(at(9)), None);
        assert_eq!((parked.take(at(20)), parked.take(at(20)), parked.take(at(20))), (Some(10), Some(10), Some(20)));
        assert_eq!(parked.take(at(20)), None);
        assert_eq!(parked.drain(), [30]);
        assert!(parked.is_idle());
    }

    proptest! {
        /// A worker that fails some jobs, again and again: no job overtakes another of its key, and none is lost.
        #[test]
        fn a_keys_jobs_keep_their_order(
            jobs in proptest::collection::vec((0_u64..4, 0_u32..4), 1..60),
            delays in proptest::collection::vec(1_u64..20, 1..40),
        ) {
            let start = Instant::now();
            let mut now = start;
            let mut delays = delays.iter().cycle();
            let mut queue = jobs.iter().copied().enumerate().collect::<VecDeque<_>>();
            let mut parked = Parked::new(true);
            let mut done: HashMap<u64, Vec<usize>> = HashMap::new();
            loop {
                let job = match parked.take(now) {
                    Some(job) => job,
                    None => match queue.pop_front() {
                        Some((id, (key, failures))) => match parked.pass(key, (id, key, failures)) {
                            Some(job) => job,
                            None => continue,
                        },
                        None => match parked.next() {
                            Some(at) => { now = at; continue }
                            None => break,
                        },
                    },
                };
                now += Duration::from_millis(1);
                let (id, key, failures) = job;
                if failures > 0 {
                    parked.park(now + Duration::from_millis(*delays.next().unwrap()), key, (id, key, failures - 1));
                } else {
                    done.entry(key).or_default().push(id);
                    parked.over(key);
                }
            }
            prop_assert!(parked.is_idle());
            prop_assert_eq!(done.values().map(Vec::len).sum::<usize>(), jobs.len());
            for ids in done.values() {
                prop_assert!(ids.is_sorted(), "{ids:?}");
            }
        }
    }
}
