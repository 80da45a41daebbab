//! The server is killed in the middle of the work, and comes back: what was acknowledged to the publisher arrives.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use corelay::toolkit::message_broker::{Broker, ConsumerGroup, Message};
use tokio::task::spawn_blocking;

use super::system::{PATIENCE, System, number_of, numbered, soon};
use crate::servers::Server;

/// What the two sides know.
#[derive(Debug, Default)]
struct Ledger {
    next: AtomicU32,
    /// Publishes that were acknowledged.
    published: Mutex<Vec<u32>>,
    failures: AtomicU32,
    last_failure: Mutex<String>,
    /// How often each was handled with success.
    handled: Mutex<BTreeMap<u32, u32>>,
    over: AtomicBool,
}

impl Ledger {
    fn published(&self) -> usize {
        self.published.lock().unwrap().len()
    }
}

/// Publishes one after the other, each until it is acknowledged.
async fn publish(broker: Broker, topic: String, ledger: Arc<Ledger>) {
    while !ledger.over.load(SeqCst) {
        let n = ledger.next.fetch_add(1, SeqCst);
        let message = numbered(&topic, n);
        loop {
            match broker.publish(message.clone()).await {
                Ok(()) => break ledger.published.lock().unwrap().push(n),
                Err(error) => {
                    assert!(error.is_retryable(), "{error}");
                    ledger.failures.fetch_add(1, SeqCst);
                    *ledger.last_failure.lock().unwrap() = error.to_string();
                    if ledger.over.load(SeqCst) {
                        return;
                    }
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        }
    }
}

async fn consume(broker: &Broker, topic: &str, ledger: &Arc<Ledger>) {
    let ledger = ledger.clone();
    let handler = move |message: Message| {
        *ledger.handled.lock().unwrap().entry(number_of(&message)).or_default() += 1;
        async {}
    };
    // what a member held when the server was killed comes again after this
    let group = ConsumerGroup { ack_timeout: Duration::from_secs(3), ..ConsumerGroup::new("g", [topic]) };
    soon("membership", broker.join_group(group, handler)).await.unwrap();
}

/// A system that can be taken down and brought back.
pub trait Victim: Send + 'static {
    /// Takes it down without warning and brings it back with its data. Blocks.
    fn go_and_come_back(&mut self);

    /// What it has to say.
    fn log(&self) -> String;
}

/// A server that is killed, and what tells whether it is up.
pub struct Killed(pub Server, pub fn(&Server) -> bool);

impl Victim for Killed {
    fn go_and_come_back(&mut self) {
        self.0.kill();
        self.0.restart(self.1);
    }

    fn log(&self) -> String {
        self.0.log()
    }
}

/// Waits until so many have been published.
async fn more(ledger: &Ledger, server: &impl Victim, brokers: [&Broker; 2], count: usize) {
    let wait = async {
        while ledger.published() < count {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    if tokio::time::timeout(PATIENCE, wait).await.is_err() {
        let last = ledger.last_failure.lock().unwrap();
        let published = ledger.published();
        panic!("{published} of {count} published; {last}; {brokers:?}; the server:\n{}", server.log());
    }
}

/// How long the server has run with its topic and group before it is first killed. RabbitMQ 3.10 saves half a second
/// after the fact that there is a quorum queue: killed before, a node on its own has a queue without a leader.
pub const WARM: Duration = Duration::from_secs(2);

/// Two members, two publishers, and the server killed `rounds` times. Returns when every acknowledged message has been
/// handled.
pub async fn survives(system: &System, mut server: impl Victim, rounds: usize) {
    const EACH: usize = 150;
    let (one, two) = (system.connect().await, system.connect().await);
    let topic = system.topic(&one).await;
    let ledger = Arc::new(Ledger::default());
    for broker in [&one, &two] {
        consume(broker, &topic, &ledger).await;
    }
    let publishers: Vec<_> =
        [&one, &two].map(|broker| tokio::spawn(publish(broker.clone(), topic.clone(), ledger.clone()))).into();
    tokio::time::sleep(WARM).await;
    for round in 0..rounds {
        let before = ledger.published();
        more(&ledger, &server, [&one, &two], before + EACH).await;
        server = spawn_blocking(move || {
            server.go_and_come_back();
            server
        })
        .await
        .unwrap();
        println!("round {round}: {} published", ledger.published());
    }
    let before = ledger.published();
    more(&ledger, &server, [&one, &two], before + EACH).await;
    ledger.over.store(true, SeqCst);
    for publisher in publishers {
        soon("the publisher's end", publisher).await.unwrap();
    }
    let published = ledger.published.lock().unwrap().clone();
    let missing = || {
        let handled = ledger.handled.lock().unwrap();
        published.iter().filter(|n| !handled.contains_key(n)).copied().collect::<Vec<_>>()
    };
    let all = async {
        while !missing().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    if tokio::time::timeout(Duration::from_secs(60), all).await.is_err() {
        panic!("acknowledged and lost: {:?}; {one:?} {two:?}", missing());
    }
    let handled = ledger.handled.lock().unwrap().clone();
    let from_nowhere: Vec<_> = handled.keys().filter(|n| **n >= ledger.next.load(SeqCst)).collect();
    assert!(from_nowhere.is_empty(), "{from_nowhere:?}");
    let twice = handled.values().filter(|count| **count > 1).count();
    println!("{} published, {} handled, {twice} of them more than once", published.len(), handled.len());
    println!("{:?}\n{:?}", one.stats(), two.stats());
    one.close().await;
    two.close().await;
}
