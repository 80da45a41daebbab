//! Producers with the clients of this crate, and real sockets and files at the other end.

mod datagrams;
mod file;
mod http;
mod pool;
mod streams;
pub mod target;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use corelay::forward::runtime::Io;
use corelay::forward::{Client, Message, Producer, ProducerOptions, ProducerPool, Snapshot};

/// The runtimes that can be had here.
fn runtimes() -> Vec<Io> {
    let uring = std::thread::spawn(|| corelay::forward::runtime::run_on(Io::Uring, async {}));
    match uring.join().unwrap() {
        Ok(()) => vec![Io::Uring, Io::Tokio],
        Err(error) => {
            assert!(std::env::var("CI").as_deref() != Ok("true"), "no io_uring: {error}");
            eprintln!("SKIPPED on tokio-uring: {error}");
            vec![Io::Tokio]
        }
    }
}

/// Waits shortly between attempts, so that tests are short.
fn options() -> ProducerOptions {
    ProducerOptions {
        backoff_min: Duration::from_millis(2),
        backoff_max: Duration::from_millis(20),
        retries: 1_000_000,
        queue_bytes: 64 << 20,
        ..ProducerOptions::default()
    }
}

fn producer(pool: &ProducerPool, url: &str) -> Producer {
    pool.add("test", corelay::forward::ClientFactory::create(url).unwrap(), options()).unwrap()
}

/// Delivers everything: how many messages that were in all.
#[track_caller]
fn drain(producer: &Producer) -> u64 {
    let report = producer.drain_blocking(target::DRAIN);
    assert_eq!(report.left, 0, "{report:?}");
    producer.snapshot().counters.forwarded
}

/// Waits for something another thread does.
#[track_caller]
fn eventually(what: &str, is_so: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < Duration::from_secs(30), "not within 30 s: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Every message has been counted once.
#[track_caller]
fn assert_balanced(snapshot: &Snapshot) {
    let counters = &snapshot.counters;
    let known = counters.forwarded + counters.dropped.total() + counters.dead_lettered;
    assert_eq!(counters.accepted, known + counters.queue_messages, "{counters:?}");
}

/// Numbered bodies of all sorts of sizes, the same for the same seed.
fn bodies(count: usize, most: usize, seed: u64) -> Vec<Vec<u8>> {
    let mut dice = fastrand::Rng::with_seed(seed);
    let body = |n: usize| {
        let mut body = format!("{n:08} ").into_bytes();
        let len = dice.usize(0..=most);
        body.extend(std::iter::repeat_with(|| dice.alphanumeric() as u8).take(len));
        body
    };
    (0..count).map(body).collect()
}

/// The number at the front of one.
fn number(body: &[u8]) -> usize {
    std::str::from_utf8(&body[..8]).unwrap().parse().unwrap()
}

/// None twice, none out of order, none changed.
#[track_caller]
fn assert_in_order(received: &[Vec<u8>], sent: &[Vec<u8>]) {
    let mut seen = BTreeMap::new();
    let mut last = None;
    for body in received {
        let n = number(body);
        assert!(last < Some(n), "{n} after {last:?}");
        assert_eq!(seen.insert(n, ()), None, "{n} came twice");
        assert!(*body == sent[n], "{n} is not what was sent");
        last = Some(n);
    }
}

/// Drives a client alone, on a runtime.
fn with_client<T>(io: Io, url: &str, act: impl AsyncFnOnce(&dyn Client) -> T) -> T {
    let client = corelay::forward::ClientFactory::create(url).unwrap();
    corelay::forward::runtime::run_on(io, async { act(&*client).await }).unwrap()
}

fn message(body: &[u8]) -> Message {
    Message::from(body.to_vec())
}
