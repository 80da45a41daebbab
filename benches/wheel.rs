//! The timer wheel beside a heap and a tree. A turn of the clock is 1 ms, and sees 64 new timers; 10,000 others
//! stand by, as the keepalives of idle connections do.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;

use corelay::base::wheel::{Timer, Wheel};
use corelay::base::{Key, Table, Time};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

const NEW: u64 = 64;
const IDLE: u64 = 10_000;
/// A request's deadline, as a rule.
const TIMEOUT: Duration = Duration::from_secs(30);

trait Timers {
    const NAME: &str;
    type Id;
    fn new() -> Self;
    fn insert(&mut self, at: Time, token: u64) -> Self::Id;
    fn cancel(&mut self, id: Self::Id);
    /// Takes out what is due; how many that were.
    fn fire(&mut self, now: Time) -> u64;
}

impl Timers for Wheel {
    const NAME: &str = "wheel";
    type Id = Timer;
    fn new() -> Wheel {
        Wheel::new(Time::ZERO)
    }
    fn insert(&mut self, at: Time, token: u64) -> Timer {
        Wheel::insert(self, at, token)
    }
    fn cancel(&mut self, timer: Timer) {
        Wheel::cancel(self, timer);
    }
    fn fire(&mut self, now: Time) -> u64 {
        self.advance(now);
        std::iter::from_fn(|| self.pop_due()).count() as u64
    }
}

/// Timers in the order of their times.
struct Tree {
    timers: BTreeMap<(Time, u64), u64>,
    next: u64,
}

impl Timers for Tree {
    const NAME: &str = "BTreeMap";
    type Id = (Time, u64);
    fn new() -> Tree {
        Tree { timers: BTreeMap::new(), next: 0 }
    }
    fn insert(&mut self, at: Time, token: u64) -> (Time, u64) {
        self.next += 1;
        self.timers.insert((at, self.next), token);
        (at, self.next)
    }
    fn cancel(&mut self, id: (Time, u64)) {
        self.timers.remove(&id);
    }
    fn fire(&mut self, now: Time) -> u64 {
        let mut fired = 0;
        while self.timers.first_key_value().is_some_and(|(&(at, _), _)| at <= now) {
            self.timers.pop_first();
            fired += 1;
        }
        fired
    }
}

/// A heap can't cancel: what was, stays in it until its time has come.
struct Heap {
    timers: BinaryHeap<Reverse<(Time, Key)>>,
    tokens: Table<u64>,
}

impl Timers for Heap {
    const NAME: &str = "BinaryHeap";
    type Id = Key;
    fn new() -> Heap {
        Heap { timers: BinaryHeap::new(), tokens: Table::new() }
    }
    fn insert(&mut self, at: Time, token: u64) -> Key {
        let key = self.tokens.insert(token);
        self.timers.push(Reverse((at, key)));
        key
    }
    fn cancel(&mut self, key: Key) {
        self.tokens.remove(key);
    }
    fn fire(&mut self, now: Time) -> u64 {
        let mut fired = 0;
        while let Some(&Reverse((at, key))) = self.timers.peek()
            && at <= now
        {
            self.timers.pop();
            fired += u64::from(self.tokens.remove(key).is_some());
        }
        fired
    }
}

/// The idle timers in place, and half a minute of turns behind it: a heap then carries what it always will.
fn warm<T: Timers>(mut turn: impl FnMut(&mut T, Time)) -> impl FnMut() {
    let mut timers = T::new();
    for token in 0..IDLE {
        timers.insert(Time::ZERO + Duration::from_secs(1 << 30), token);
    }
    let mut now = Time::ZERO;
    let mut next = move || {
        now = now + Duration::from_millis(1);
        turn(&mut timers, now);
    };
    (0..TIMEOUT.as_millis()).for_each(|_| next());
    next
}

fn bench<T: Timers>(c: &mut Criterion) {
    let mut group = c.benchmark_group("wheel");
    group.throughput(Throughput::Elements(NEW));
    group.bench_function(format!("insert, cancel: {}", T::NAME), |b| {
        let mut ids = Vec::new();
        b.iter(warm(|timers: &mut T, now| {
            ids.extend((0..NEW).map(|token| timers.insert(now + TIMEOUT, token)));
            ids.drain(..).for_each(|id| timers.cancel(id));
            assert_eq!(timers.fire(now), 0);
        }));
    });
    group.bench_function(format!("insert, fire: {}", T::NAME), |b| {
        b.iter(warm(|timers: &mut T, now| {
            for token in 0..NEW {
                timers.insert(now + Duration::from_millis(1 + token), token);
            }
            assert!(timers.fire(now) <= NEW);
        }));
    });
    group.finish();
}

criterion_group!(benches, bench::<Wheel>, bench::<Tree>, bench::<Heap>);
criterion_main!(benches);
