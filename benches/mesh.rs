//! The ring between two cores, beside the standard library's channel.

use std::hint::{black_box, spin_loop};
use std::sync::mpsc::{TryRecvError, TrySendError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use corelay::reactor::mesh::{Consumer, Producer, ring};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

/// As between the shards.
const CAPACITY: usize = 256;
/// Items published at once.
const BATCH: u64 = 16;

/// Calls `step` until it has something. A core of the broker would sleep; here both threads spin, and give way where
/// they may share one CPU.
fn wait<T>(mut step: impl FnMut() -> Option<T>) -> T {
    for spins in 1_u32.. {
        if let Some(value) = step() {
            return value;
        }
        if spins.is_multiple_of(256) { thread::yield_now() } else { spin_loop() }
    }
    unreachable!()
}

fn send(to: &mut Producer<u64>, item: u64) {
    to.push(item).expect("never more than one is out");
    to.flush();
}

/// So many items from this thread to another.
fn one_way(items: u64) -> Duration {
    let (mut to, mut from) = ring(CAPACITY);
    let reader = thread::spawn(move || {
        for expected in 0..items {
            assert_eq!(wait(|| from.pop()), expected);
        }
    });
    let start = Instant::now();
    for item in 0..items {
        wait(|| to.push(item).ok());
        if item % BATCH == BATCH - 1 {
            to.flush();
        }
    }
    to.flush();
    reader.join().expect("all items came");
    start.elapsed()
}

fn one_way_std(items: u64) -> Duration {
    let (to, from) = sync_channel(CAPACITY);
    let reader = thread::spawn(move || {
        let receive = || match from.try_recv() {
            Err(TryRecvError::Empty) => None,
            item => Some(item),
        };
        for expected in 0..items {
            assert_eq!(wait(receive), Ok(expected));
        }
    });
    let start = Instant::now();
    for item in 0..items {
        wait(|| (to.try_send(item) != Err(TrySendError::Full(item))).then_some(()));
    }
    reader.join().expect("all items came");
    start.elapsed()
}

/// One item there and back, again and again.
fn ping_pong(rounds: u64) -> Duration {
    let (mut to, mut from_here): (_, Consumer<u64>) = ring(CAPACITY);
    let (mut back, mut from) = ring(CAPACITY);
    let echo = thread::spawn(move || (0..rounds).for_each(|_| send(&mut back, wait(|| from_here.pop()))));
    let start = Instant::now();
    for round in 0..rounds {
        send(&mut to, round);
        assert_eq!(wait(|| from.pop()), round);
    }
    let elapsed = start.elapsed();
    echo.join().expect("all items came");
    elapsed
}

fn mesh(c: &mut Criterion) {
    let mut group = c.benchmark_group("mesh");
    group.throughput(Throughput::Elements(BATCH));
    group.bench_function("push, flush and pop 16 in one thread", |b| {
        let (mut to, mut from) = ring(CAPACITY);
        b.iter(|| {
            (0..BATCH).for_each(|item| to.push(black_box(item)).expect("room"));
            to.flush();
            while let Some(item) = from.pop() {
                black_box(item);
            }
        });
    });
    group.throughput(Throughput::Elements(1));
    group.bench_function("one way to another thread", |b| b.iter_custom(one_way));
    group.bench_function("one way to another thread: std::sync::mpsc", |b| b.iter_custom(one_way_std));
    group.bench_function("there and back", |b| b.iter_custom(ping_pong));
    group.finish();
}

criterion_group!(benches, mesh);
criterion_main!(benches);
