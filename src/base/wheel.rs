//! A hierarchical timer wheel: a core's deadlines and timeouts, in ticks of one millisecond.
//!
//! ```text
//!   level 0: 64 slots of      1 ms ┐  a timer sits in the lowest level whose slots tell its tick from the
//!   level 1: 64 slots of     64 ms │  present one; when the wheel reaches its slot it moves down, and from
//!   ...                            │  level 0 to the due list
//!   level 5: 64 slots of 2^30 ms   ┘  ──► advance(now) ──► due list ──► pop_due()
//! ```
//!
//! Invariants:
//! - No timer is popped before its time, nor later than the first [`Wheel::advance`] at least 1 ms past it.
//! - A timer is in exactly one list; a slot's bit is set exactly when its list is not empty.
//! - Every slot in use lies after the present one on its level (the top level goes round).

use std::time::Duration;

use super::Time;

/// Bits a level resolves: 64 slots, so that one u64 says which are in use.
const BITS: u32 = 6;
const SLOTS: usize = 1 << BITS;
const MASK: u64 = SLOTS as u64 - 1;
/// 2^36 ms are two years; farther timers wait in the last slot of the top level and are placed anew from there.
const LEVELS: usize = 6;
const TOP: usize = LEVELS - 1;
const TICK_NANOS: u64 = 1_000_000;

/// The list of timers that are due, after those of the slots.
const DUE: usize = LEVELS * SLOTS;
/// "In no list": the node is free.
const FREE: u16 = u16::MAX;
const NIL: u32 = u32::MAX;

/// A timer of a [`Wheel`], to cancel it by. Stale ones are harmless.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Timer {
    slot: u32,
    generation: u32,
}

#[derive(Debug)]
struct Node {
    tick: u64,
    token: u64,
    prev: u32,
    next: u32,
    generation: u32,
    list: u16,
}

#[derive(Clone, Copy, Debug)]
struct List {
    head: u32,
    tail: u32,
}

const EMPTY: List = List { head: NIL, tail: NIL };

/// Timers of one thread. Inserting, cancelling and firing cost O(1) and, once warm, no allocation.
///
/// ```
/// use corelay::base::{Time, wheel::Wheel};
/// use std::time::Duration;
/// let start = Time::from_nanos(0);
/// let mut wheel = Wheel::new(start);
/// let first = wheel.insert(start + Duration::from_millis(5), 1);
/// wheel.insert(start + Duration::from_millis(9), 2);
/// wheel.cancel(first);
/// wheel.advance(start + Duration::from_millis(10));
/// assert_eq!(wheel.pop_due(), Some(2));
/// assert_eq!(wheel.pop_due(), None);
/// ```
#[derive(Debug)]
pub struct Wheel {
    /// The tick up to which timers have been moved to the due list.
    now: u64,
    nodes: Vec<Node>,
    /// First of the free nodes, chained by `next`.
    free: u32,
    len: usize,
    occupied: [u64; LEVELS],
    lists: [List; DUE + 1],
}

impl Wheel {
    /// An empty wheel whose present is `now`.
    #[must_use]
    pub fn new(now: Time) -> Wheel {
        Wheel {
            now: now.as_nanos() / TICK_NANOS,
            nodes: Vec::new(),
            free: NIL,
            len: 0,
            occupied: [0; LEVELS],
            lists: [EMPTY; DUE + 1],
        }
    }

    /// How many timers there are, due ones not yet popped included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Sets a timer. One whose time has passed is due at once, without a further [`Wheel::advance`].
    ///
    /// # Panics
    /// With more than 2^32 - 1 timers.
    pub fn insert(&mut self, at: Time, token: u64) -> Timer {
        // Rounded up, so that it never fires early.
        let tick = at.as_nanos().div_ceil(TICK_NANOS);
        let index = self.take_node(tick, token);
        self.len += 1;
        self.link(index, self.place(tick));
        Timer { slot: index, generation: self.nodes[index as usize].generation }
    }

    /// Takes a timer out, due or not; `false` where it was popped or cancelled before.
    pub fn cancel(&mut self, timer: Timer) -> bool {
        match self.nodes.get(timer.slot as usize) {
            Some(node) if node.generation == timer.generation && node.list != FREE => {
                self.unlink(timer.slot);
                self.release(timer.slot);
                true
            }
            _ => false,
        }
    }

    /// Moves the present to `now`; what is due by then comes from [`Wheel::pop_due`]. Time never goes back.
    pub fn advance(&mut self, now: Time) {
        let target = now.as_nanos() / TICK_NANOS;
        while let Some((level, slot, start)) = self.first_slot() {
            if start > target {
                break;
            }
            self.now = start;
            self.empty_slot(level, slot);
        }
        self.now = self.now.max(target);
    }

    /// The next due timer's token, in order of time.
    pub fn pop_due(&mut self) -> Option<u64> {
        let index = self.lists[DUE].head;
        if index == NIL {
            return None;
        }
        let token = self.nodes[index as usize].token;
        self.unlink(index);
        self.release(index);
        Some(token)
    }

    /// A point not later than the earliest timer, at which to [`Wheel::advance`]; `None` without timers. It can be
    /// earlier than any timer, for the upper levels know their timers' times only roughly: advance, ask again.
    #[must_use]
    pub fn next(&self) -> Option<Time> {
        let tick = if self.lists[DUE].head != NIL { self.now } else { self.first_slot()?.2 };
        Some(Time::ZERO + Duration::from_millis(tick))
    }

    /// The first slot in use: level, slot and the tick it begins at. Lower levels lie before higher ones.
    fn first_slot(&self) -> Option<(usize, usize, u64)> {
        let level = self.occupied.iter().position(|&bits| bits != 0)?;
        let shift = BITS * level as u32;
        let present = self.now >> shift;
        let ahead = self.occupied[level].rotate_right((present & MASK) as u32).trailing_zeros();
        let start = present + u64::from(ahead);
        Some((level, (start & MASK) as usize, start << shift))
    }

    /// The list for a timer of this tick, seen from the present.
    fn place(&self, tick: u64) -> usize {
        if tick <= self.now {
            return DUE;
        }
        let level = ((self.now ^ tick).ilog2() / BITS) as usize;
        if level < TOP {
            return level * SLOTS + (tick >> (BITS * level as u32) & MASK) as usize;
        }
        let shift = BITS * TOP as u32;
        let present = self.now >> shift;
        let slot = (tick >> shift).min(present + MASK);
        TOP * SLOTS + (slot & MASK) as usize
    }

    /// Places the timers of a slot anew: further down, or on the due list.
    fn empty_slot(&mut self, level: usize, slot: usize) {
        self.occupied[level] &= !(1 << slot);
        let mut index = std::mem::replace(&mut self.lists[level * SLOTS + slot], EMPTY).head;
        while index != NIL {
            let Node { next, tick, .. } = self.nodes[index as usize];
            self.link(index, self.place(tick));
            index = next;
        }
    }

    fn link(&mut self, index: u32, list: usize) {
        let tail = std::mem::replace(&mut self.lists[list].tail, index);
        if tail == NIL {
            self.lists[list].head = index;
            if list != DUE {
                self.occupied[list / SLOTS] |= 1 << (list % SLOTS);
            }
        } else {
            self.nodes[tail as usize].next = index;
        }
        let node = &mut self.nodes[index as usize];
        node.list = list as u16;
        node.prev = tail;
        node.next = NIL;
    }

    fn unlink(&mut self, index: u32) {
        let Node { prev, next, list, .. } = self.nodes[index as usize];
        let list = list as usize;
        match prev {
            NIL => self.lists[list].head = next,
            _ => self.nodes[prev as usize].next = next,
        }
        match next {
            NIL => self.lists[list].tail = prev,
            _ => self.nodes[next as usize].prev = prev,
        }
        if list != DUE && self.lists[list].head == NIL {
            self.occupied[list / SLOTS] &= !(1 << (list % SLOTS));
        }
    }

    fn take_node(&mut self, tick: u64, token: u64) -> u32 {
        if self.free == NIL {
            let index = u32::try_from(self.nodes.len()).ok().filter(|&index| index != NIL);
            self.nodes.push(Node { tick, token, prev: NIL, next: NIL, generation: 0, list: FREE });
            return index.expect("fewer than 2^32 - 1 timers");
        }
        let index = self.free;
        let node = &mut self.nodes[index as usize];
        self.free = node.next;
        node.tick = tick;
        node.token = token;
        index
    }

    fn release(&mut self, index: u32) {
        let node = &mut self.nodes[index as usize];
        node.generation = node.generation.wrapping_add(1);
        node.list = FREE;
        node.next = self.free;
        self.free = index;
        self.len -= 1;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn at(millis: u64) -> Time {
        Time::ZERO + Duration::from_millis(millis)
    }

    fn drain(wheel: &mut Wheel) -> Vec<u64> {
        std::iter::from_fn(|| wheel.pop_due()).collect()
    }

    #[test]
    fn fires_neither_early_nor_twice() {
        let mut wheel = Wheel::new(Time::ZERO);
        wheel.insert(Time::from_nanos(1_000_001), 7);
        wheel.advance(Time::from_nanos(1_999_999));
        assert_eq!(wheel.pop_due(), None);
        wheel.advance(Time::from_nanos(2_000_000));
        assert_eq!(drain(&mut wheel), [7]);
        wheel.advance(at(100));
        assert!(drain(&mut wheel).is_empty());
        assert!(wheel.is_empty());
    }

    #[test]
    fn a_due_timer_can_still_be_cancelled() {
        let mut wheel = Wheel::new(Time::ZERO);
        let first = wheel.insert(at(1), 1);
        let second = wheel.insert(at(1), 2);
        wheel.advance(at(1));
        assert_eq!(wheel.pop_due(), Some(1));
        assert!(wheel.cancel(second));
        assert!(!wheel.cancel(first) && !wheel.cancel(second));
        assert_eq!(wheel.pop_due(), None);
    }

    #[test]
    fn the_past_is_due_at_once() {
        let mut wheel = Wheel::new(at(50));
        wheel.insert(at(10), 1);
        assert_eq!(wheel.next(), Some(at(50)));
        assert_eq!(drain(&mut wheel), [1]);
    }

    #[test]
    fn beyond_the_horizon_and_never() {
        let mut wheel = Wheel::new(at((1 << 36) - 3));
        wheel.insert(at((1 << 36) + 5), 1);
        wheel.insert(at(3 << 36), 2);
        wheel.insert(Time::MAX, 3);
        wheel.advance(at((1 << 36) + 4));
        assert!(drain(&mut wheel).is_empty());
        wheel.advance(at((1 << 36) + 5));
        assert_eq!(drain(&mut wheel), [1]);
        wheel.advance(at((3 << 36) - 1));
        assert!(drain(&mut wheel).is_empty());
        wheel.advance(at(3 << 36));
        assert_eq!(drain(&mut wheel), [2]);
        assert_eq!(wheel.len(), 1);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Insert(u64),
        Cancel(usize),
        Advance(u64),
    }

    /// Nanoseconds of every magnitude, from one to a hundred days.
    fn nanos() -> impl Strategy<Value = u64> {
        (0u32..53, any::<u64>()).prop_map(|(bits, random)| random & ((1 << bits) - 1))
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => nanos().prop_map(Step::Insert),
            1 => any::<usize>().prop_map(Step::Cancel),
            2 => nanos().prop_map(Step::Advance),
        ]
    }

    proptest! {
        #[test]
        fn as_a_sorted_map(start in nanos(), steps in prop::collection::vec(step(), 1..200)) {
            let mut now = start + (1 << 36) * TICK_NANOS - (1 << 45);
            let mut wheel = Wheel::new(Time::from_nanos(now));
            let mut model: BTreeMap<(u64, u64), Timer> = BTreeMap::new();
            let mut stale = Vec::new();
            for (token, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Insert(after) => {
                        let timer = wheel.insert(Time::from_nanos(now + after), token as u64);
                        model.insert(((now + after).div_ceil(TICK_NANOS), token as u64), timer);
                    }
                    Step::Cancel(which) if !model.is_empty() => {
                        let key = *model.keys().nth(which % model.len()).expect("in range");
                        let timer = model.remove(&key).expect("just seen");
                        prop_assert!(wheel.cancel(timer));
                        stale.push(timer);
                    }
                    Step::Cancel(_) => {}
                    Step::Advance(by) => {
                        now += by;
                        wheel.advance(Time::from_nanos(now));
                        let later = model.split_off(&(now / TICK_NANOS + 1, 0));
                        let mut due = drain(&mut wheel);
                        due.sort_unstable();
                        let mut expected: Vec<u64> = model.keys().map(|key| key.1).collect();
                        expected.sort_unstable();
                        prop_assert_eq!(due, expected);
                        stale.extend(model.values());
                        model = later;
                    }
                }
                prop_assert_eq!(wheel.len(), model.len());
                for &timer in &stale {
                    prop_assert!(!wheel.cancel(timer));
                }
                match model.keys().next() {
                    None => prop_assert_eq!(wheel.next(), None),
                    Some(&(tick, _)) => prop_assert!(wheel.next().expect("a timer") <= at(tick.max(now / TICK_NANOS))),
                }
            }
        }
    }
}
