//! Every kind of target is away from the start, killed under way, cut in the middle of a message, slow, and comes and
//! goes: each message has one outcome, the books say which, and what arrived bears them out.
//!
//! ```text
//!              ┌─► Producer ──────► client ─► (proxy) ─► target, which is harmed
//!   1, 2, 3 ───┤      └─ each outcome, the counters, the dead letter file
//!              └─► another one, which gets all of them meanwhile
//! ```

#[cfg(feature = "amqp")]
mod amqp;
mod datagrams;
mod http;
#[cfg(feature = "nats")]
mod nats;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "redis")]
mod redis;
mod served;
mod sockets;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use corelay::forward::{
    BatchFuture, Client, ClientFactory, Counters, Done, DropReason, ForwardError, Message, NotTaken, Producer,
    ProducerOptions, ProducerPool, Promise, SendFuture, envelope,
};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::bridges::rig::{number, numbered};
use crate::message_broker::system::{PATIENCE, soon, until};
use crate::servers::proxy::Line;

/// From this number on, each second message is large.
const LARGE: u32 = 1_000_000;
/// Messages that may be with the client at once, so whose fate one failure leaves open.
const BATCH: usize = 16;
/// What the queue holds: some forty messages.
const QUEUE: usize = 64 << 10;

/// NATS' library goes on by itself on another connection: what is missing is noticed when no answer comes for so long.
const QUICK: Duration = Duration::from_secs(1);

/// The message with this number.
fn message(n: u32) -> Message {
    let mut message = numbered(n);
    if n >= LARGE && !n.is_multiple_of(2) {
        let mut body = message.body.to_vec();
        body.resize(30_000, b'.');
        message.body = body.into();
    }
    message
}

/// The number of a message that arrived; it is as it was sent.
#[track_caller]
fn number_of_whole(body: &[u8]) -> u32 {
    let n = number(body);
    assert!(body == message(n).body, "{n} is not what was sent: {} bytes", body.len());
    n
}

/// A target that can be harmed.
trait Victim {
    /// Whether what was in doubt may be there twice.
    const TWICE: bool;
    /// Whether it may be there behind what followed it.
    const REORDERS: bool = false;

    /// For a producer that reaches it directly.
    fn direct(&self) -> String;
    /// For one that reaches it by a line which can be harmed, and waits so long for an answer.
    fn by_line(&self, timeout: Duration) -> String;

    /// It ends without warning; nobody listens.
    async fn kill(&mut self);
    /// It is there again, with what it had.
    async fn restart(&mut self);

    /// The line is cut, and leads nowhere.
    async fn cut_off(&mut self);
    async fn reconnect(&mut self);
    /// What is to be done to it otherwise.
    fn line(&self) -> &Line;

    /// The numbers of what arrived, in order.
    async fn arrived(&mut self) -> Vec<u32>;
}

/// A target in this process that takes everything.
#[derive(Default)]
struct Other(Mutex<Vec<u32>>);

impl Client for Other {
    fn protocol_name(&self) -> &str {
        "other"
    }
    fn address(&self) -> &str {
        "here"
    }
    fn send<'a>(&'a self, message: &'a Message) -> SendFuture<'a> {
        Box::pin(async move {
            self.0.lock().unwrap().push(number(&message.body));
            Ok(())
        })
    }
    fn send_batch<'a>(&'a self, messages: &'a [Message]) -> BatchFuture<'a> {
        Box::pin(async move {
            self.0.lock().unwrap().extend(messages.iter().map(|message| number(&message.body)));
            Done { delivered: messages.len(), error: None }
        })
    }
}

type Outcome = Result<(), ForwardError>;

/// A producer for the target, another one beside it, and what was brought to both.
struct Case {
    pool: ProducerPool,
    producer: Producer,
    others: Arc<Other>,
    outcomes: Vec<(u32, JoinHandle<Outcome>)>,
    dir: tempfile::TempDir,
    next: u32,
}

impl Case {
    fn new(url: &str, change: impl FnOnce(&mut ProducerOptions)) -> Case {
        let dir = tempfile::tempdir().unwrap();
        let mut options = ProducerOptions {
            queue_bytes: QUEUE,
            max_message: 32 << 10,
            retries: 1_000_000,
            max_age: PATIENCE,
            batch_messages: BATCH,
            backoff_min: Duration::from_millis(5),
            backoff_max: Duration::from_millis(50),
            dead_letter: Some(dir.path().join("letters")),
            ..ProducerOptions::default()
        };
        change(&mut options);
        let (pool, others) = (ProducerPool::new(), Arc::<Other>::default());
        let producer = pool.add("target", ClientFactory::create(url).unwrap(), options).unwrap();
        let roomy = ProducerOptions { queue_bytes: 64 << 20, ..ProducerOptions::default() };
        pool.add("other", Arc::clone(&others) as Arc<dyn Client>, roomy).unwrap();
        Case { pool, producer, others, outcomes: Vec::new(), dir, next: 0 }
    }

    fn counters(&self) -> Counters {
        self.producer.snapshot().counters
    }

    /// Brings a message to both producers, without waiting for what becomes of it.
    async fn bring_next(&mut self) {
        let n = self.next;
        self.next += 1;
        let (producer, message) = (self.producer.clone(), message(n));
        self.pool.get("other").unwrap().offer(message.clone()).unwrap();
        let mut outcome = Box::pin(async move { producer.forward(message).await });
        // it is in the queue, or refused, when it has been polled once
        let first = std::future::poll_fn(|cx| Poll::Ready(outcome.as_mut().poll(cx))).await;
        let outcome = async move {
            match first {
                Poll::Ready(outcome) => outcome,
                Poll::Pending => outcome.await,
            }
        };
        self.outcomes.push((n, tokio::spawn(outcome)));
    }

    /// Brings one message after the other, a thousand a second, until that is so.
    async fn bring_until(&mut self, what: &str, is_so: impl Fn(&Counters) -> bool) {
        let bringing = async {
            while !is_so(&self.counters()) {
                self.bring_next().await;
                sleep(Duration::from_millis(1)).await;
            }
        };
        if tokio::time::timeout(PATIENCE, bringing).await.is_err() {
            panic!("not within {PATIENCE:?}: {what}; {:?}", self.producer.snapshot());
        }
    }

    /// Delivers what is left, and closes the books.
    async fn close(mut self) -> Books {
        let report = soon("end", self.pool.drain(PATIENCE / 2)).await;
        assert_eq!((report["target"].left, report["other"].left), (0, 0), "{:?}", self.counters());
        let mut books = Books {
            sent: self.outcomes.iter().map(|(n, _)| *n).collect(),
            promise: self.producer.client().promise(),
            ..Books::default()
        };
        for (n, outcome) in std::mem::take(&mut self.outcomes) {
            match soon("outcome", outcome).await.unwrap() {
                Ok(()) => drop(books.delivered.insert(n)),
                Err(ForwardError::DeadLettered { reason, .. }) => drop(books.dead.insert(n, reason)),
                Err(ForwardError::Dropped { reason, .. } | ForwardError::NotTaken(NotTaken::Dropped(reason))) => {
                    books.dropped.insert(n, reason);
                }
                Err(error) => panic!("{n}: {error}"),
            }
        }
        books.check_counters(&self.counters());
        books.check_letters(&std::fs::read_to_string(self.dir.path().join("letters")).unwrap_or_default());
        assert_eq!(*self.others.0.lock().unwrap(), books.sent, "the other producer got all of it, in order");
        books
    }
}

/// What became of each message.
#[derive(Debug)]
struct Books {
    promise: Promise,
    sent: Vec<u32>,
    delivered: BTreeSet<u32>,
    dropped: BTreeMap<u32, DropReason>,
    dead: BTreeMap<u32, DropReason>,
}

impl Default for Books {
    fn default() -> Books {
        Books {
            promise: Promise::AtMostOnce,
            sent: Vec::new(),
            delivered: BTreeSet::new(),
            dropped: BTreeMap::new(),
            dead: BTreeMap::new(),
        }
    }
}

impl Books {
    /// sent = delivered + dropped + dead-lettered, and the producer says the same.
    fn check_counters(&self, counters: &Counters) {
        let (delivered, dropped, dead) = (self.delivered.len(), self.dropped.len(), self.dead.len());
        assert_eq!(self.sent.len(), delivered + dropped + dead);
        let counted = [counters.accepted, counters.forwarded, counters.dropped.total(), counters.dead_lettered];
        assert_eq!(counted, [self.sent.len(), delivered, dropped, dead].map(|count| count as u64), "{counters:?}");
        assert_eq!((counters.queue_messages, counters.queue_bytes, counters.dead_letters_failed), (0, 0, 0));
        for (reason, count) in counters.dropped.iter() {
            assert_eq!(self.dropped.values().filter(|other| **other == reason).count() as u64, count, "{reason}");
        }
    }

    /// The dead letter file has what is said to be there, whole, once, and nothing else.
    fn check_letters(&self, letters: &str) {
        let found: Vec<(u32, String)> = letters
            .lines()
            .map(|line| {
                let letter = envelope::decode(line.as_bytes()).unwrap();
                let reason: serde_json::Value = serde_json::from_str(line).unwrap();
                (number_of_whole(&letter.body), reason["reason"].as_str().unwrap().to_owned())
            })
            .collect();
        let found_once: BTreeMap<u32, String> = found.iter().cloned().collect();
        assert_eq!(found_once.len(), found.len(), "a letter twice");
        let dead: BTreeMap<u32, String> = self.dead.iter().map(|(n, reason)| (*n, reason.to_string())).collect();
        assert_eq!(found_once, dead);
    }

    /// Against what arrived, whose parts have been seen to be whole. `in_doubt` is how many messages may have been
    /// with the client when something failed.
    fn check<V: Victim>(&self, _: &V, in_doubt: usize, arrived: &[u32]) {
        let mut times = BTreeMap::<u32, usize>::new();
        arrived.iter().for_each(|n| *times.entry(*n).or_default() += 1);
        let sent: BTreeSet<u32> = self.sent.iter().copied().collect();
        assert!(times.keys().all(|n| sent.contains(n)), "something arrived that was never sent");
        let (mut seen, mut last) = (BTreeSet::new(), 0);
        let mut is_late = |n: u32| {
            let next = last.max(n);
            seen.insert(n) && std::mem::replace(&mut last, next) > n
        };
        let late: Vec<_> = arrived.iter().filter(|n| is_late(**n)).collect();
        assert!(late.len() <= if V::REORDERS { in_doubt } else { 0 }, "out of order: {late:?} in {arrived:?}");
        let doubled: Vec<_> = times.iter().filter(|(_, count)| **count > 1).collect();
        assert!(doubled.len() <= if V::TWICE { in_doubt } else { 0 }, "twice: {doubled:?}");
        let lost: Vec<_> = self.delivered.iter().filter(|n| !times.contains_key(n)).collect();
        let given_up = || self.dropped.iter().chain(&self.dead).filter(|(n, _)| times.contains_key(n));
        match self.promise {
            Promise::AtLeastOnce => {
                assert!(lost.is_empty(), "delivered, they say, and not there: {lost:?}");
                // an acknowledgement that was lost
                assert!(given_up().count() <= in_doubt, "given up, and there: {:?}", given_up().collect::<Vec<_>>());
            }
            Promise::AtMostOnce => {
                let wrong: Vec<_> = given_up().filter(|(_, reason)| **reason != DropReason::InDoubt).collect();
                assert!(wrong.is_empty(), "certainly not there, they say: {wrong:?}");
            }
        }
        let full: Vec<_> = given_up().filter(|(_, reason)| **reason == DropReason::QueueFull).collect();
        assert!(full.is_empty(), "never taken, and there: {full:?}");
        println!(
            "{} sent = {} delivered + {} dropped + {} dead-lettered; {} arrived, {} of them twice; {} delivered and \
             lost, {} given up and there",
            sent.len(),
            self.delivered.len(),
            self.dropped.len(),
            self.dead.len(),
            times.len(),
            doubled.len(),
            lost.len(),
            given_up().count()
        );
    }
}

/// What the queue has room for is delivered when the target comes up, and the rest was dropped.
async fn down_from_the_start(mut victim: impl Victim) {
    victim.cut_off().await;
    let mut case = Case::new(&victim.by_line(PATIENCE), |_| {});
    let (mut taken, mut held) = (Vec::new(), 0);
    for n in 0..100 {
        case.bring_next().await;
        let cost = message(n).cost();
        if held + cost <= QUEUE {
            held += cost;
            taken.push(n);
        }
    }
    let producer = case.producer.clone();
    until("attempts", || producer.snapshot().counters.attempts_failed >= 3).await;
    let error = producer.last_error().unwrap();
    assert!(error.text.starts_with("connect: "), "{error:?}");
    victim.reconnect().await;
    let books = case.close().await;
    assert_eq!(books.delivered.iter().copied().collect::<Vec<_>>(), taken);
    assert!(!books.dropped.is_empty() && books.dropped.values().all(|reason| *reason == DropReason::QueueFull));
    let arrived = victim.arrived().await;
    books.check(&victim, 0, &arrived);
    assert_eq!(arrived, taken);
}

/// The target itself ends without warning while messages go to it, and comes back, so many times. Meanwhile the queue
/// fills, and what is in it gets too old.
async fn killed_under_way(mut victim: impl Victim, times: usize) {
    let mut case = Case::new(&victim.direct(), |options| options.max_age = Duration::from_millis(700));
    for _ in 0..times {
        let before = case.counters().forwarded;
        case.bring_until("messages delivered", |counters| counters.forwarded >= before + 100).await;
        let before = case.counters();
        victim.kill().await;
        let both = |counters: &Counters| {
            counters.dropped.get(DropReason::QueueFull) >= before.dropped.get(DropReason::QueueFull) + 5
                && counters.dead_lettered >= before.dead_lettered + 5
        };
        case.bring_until("messages dropped, and dead letters", both).await;
        victim.restart().await;
    }
    let before = case.counters().forwarded;
    case.bring_until("messages delivered", |counters| counters.forwarded >= before + 100).await;
    let books = case.close().await;
    let arrived = victim.arrived().await;
    books.check(&victim, times * BATCH, &arrived);
}

/// The line is cut at every sort of place within a message.
async fn cut_in_the_middle_of_a_message(mut victim: impl Victim) {
    let places = [1, 3, 10, 100, 1_000, 10_000, 29_000];
    let mut case = Case::new(&victim.by_line(QUICK), |_| {});
    case.next = LARGE;
    let producer = case.producer.clone();
    let is_idle = || producer.snapshot().counters.queue_messages == 0;
    for place in places {
        case.bring_next().await;
        until("an empty queue", is_idle).await;
        let cuts = victim.line().cuts();
        victim.line().cut_after(place);
        case.bring_next().await;
        until("a cut", || victim.line().cuts() > cuts).await;
        until("an empty queue", is_idle).await;
    }
    case.bring_next().await;
    let books = case.close().await;
    assert!(books.promise == Promise::AtMostOnce || books.delivered.len() == books.sent.len(), "{books:?}");
    let arrived = victim.arrived().await;
    books.check(&victim, places.len(), &arrived);
}

/// Nothing fails at 1 KB/s: it takes its time, and a queue that is full in the meantime drops.
async fn slow(mut victim: impl Victim) {
    let mut case = Case::new(&victim.by_line(PATIENCE), |_| {});
    case.bring_next().await;
    let producer = case.producer.clone();
    until("the first one", || producer.snapshot().counters.forwarded == 1).await;
    victim.line().slow(true);
    let before = victim.line().moved();
    for _ in 0..100 {
        case.bring_next().await;
    }
    until("two seconds' worth", || victim.line().moved() >= before + 2048).await;
    assert!(victim.line().moved() < before + 32_768, "that was not slow");
    victim.line().slow(false);
    until("an empty queue", || producer.snapshot().counters.queue_messages == 0).await;
    assert_eq!(case.counters().attempts_failed, 0, "{:?}", producer.last_error());
    let books = case.close().await;
    assert!(books.dropped.values().all(|reason| *reason == DropReason::QueueFull));
    let arrived = victim.arrived().await;
    books.check(&victim, 0, &arrived);
    assert!(books.delivered.iter().eq(&arrived), "all that was delivered is there");
}

/// The line comes and goes.
async fn flapping(mut victim: impl Victim) {
    const TIMES: usize = 8;
    let mut case = Case::new(&victim.by_line(QUICK), |_| {});
    for _ in 0..TIMES {
        let forwarded = case.counters().forwarded;
        case.bring_until("messages delivered", |counters| counters.forwarded >= forwarded + 20).await;
        victim.cut_off().await;
        let failed = case.counters().attempts_failed;
        case.bring_until("failures", |counters| counters.attempts_failed >= failed + 2).await;
        victim.reconnect().await;
    }
    let books = case.close().await;
    let arrived = victim.arrived().await;
    books.check(&victim, TIMES * BATCH, &arrived);
}

/// A test for each way to go wrong: with a target whose line can be harmed, and with one that is killed so many times.
macro_rules! goes_wrong {
    ($target:expr, $killed:expr, $times:literal) => {
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn down_from_the_start() {
            let Some(victim) = $target.await else { return };
            crate::books::down_from_the_start(victim).await;
        }

        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn killed_under_way() {
            let Some(victim) = $killed.await else { return };
            crate::books::killed_under_way(victim, $times).await;
        }

        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn cut_in_the_middle_of_a_message() {
            let Some(victim) = $target.await else { return };
            crate::books::cut_in_the_middle_of_a_message(victim).await;
        }

        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn slow() {
            let Some(victim) = $target.await else { return };
            crate::books::slow(victim).await;
        }

        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn flapping() {
            let Some(victim) = $target.await else { return };
            crate::books::flapping(victim).await;
        }
    };
}

use goes_wrong;
