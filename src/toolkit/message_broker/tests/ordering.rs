//! Whatever members do: each key's messages are acknowledged in order, each exactly once.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use tokio::time::{advance, timeout};

use super::super::{Broker, Consume, Consumer, Delivery, Memory, Message, Order, TopicOptions};

const KEYS: u8 = 4;

#[derive(Clone, Copy, Debug)]
enum Step {
    Publish(u8),
    /// A member takes a message.
    Take(usize),
    /// What was taken, counted from the oldest, is settled.
    Ack(usize),
    Nack(usize),
    NackLater(usize),
    /// A member leaves with what it holds, and a new one joins.
    Replace(usize),
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..=KEYS).prop_map(Step::Publish),
        6 => (0..3_usize).prop_map(Step::Take),
        4 => (0..8_usize).prop_map(Step::Ack),
        2 => (0..8_usize).prop_map(Step::Nack),
        1 => (0..8_usize).prop_map(Step::NackLater),
        1 => (0..3_usize).prop_map(Step::Replace),
        1 => (0..1500_u64).prop_map(Step::Pass),
    ]
}

/// What was acknowledged, by key.
#[derive(Default)]
struct Ledger {
    published: HashMap<Option<Bytes>, u32>,
    acked: HashMap<Option<Bytes>, Vec<u32>>,
}

impl Ledger {
    fn message(&mut self, key: u8) -> Message {
        // one of the "keys" is none
        let key = (key < KEYS).then(|| Bytes::from(vec![key]));
        let count = self.published.entry(key.clone()).or_default();
        *count += 1;
        let builder = Message::builder("t").value(count.to_be_bytes().to_vec());
        match key {
            Some(key) => builder.key(key).build().unwrap(),
            None => builder.build().unwrap(),
        }
    }

    async fn ack(&mut self, delivery: Delivery) {
        let message = delivery.message().clone();
        // one that was late is somebody else's by now
        if delivery.ack().await.is_ok() {
            let number = u32::from_be_bytes(message.value()[..].try_into().unwrap());
            self.acked.entry(message.key().cloned()).or_default().push(number);
        }
    }
}

async fn take(member: &mut Consumer) -> Option<Delivery> {
    timeout(Duration::ZERO, member.next()).await.ok().map(Result::unwrap)
}

async fn run(steps: Vec<Step>) {
    let broker = Broker::new(Memory::default());
    broker.create_topic("t", TopicOptions::default()).await.unwrap();
    let consume =
        Consume { order: Order::PerKey, ack_timeout: Duration::from_secs(1), in_flight: 5, ..Consume::new("t", "g") };
    let mut members = Vec::new();
    for _ in 0..3 {
        members.push(broker.consume(consume.clone()).await.unwrap());
    }
    let mut ledger = Ledger::default();
    let mut held: Vec<Delivery> = Vec::new();
    for step in steps {
        let some = |n: usize| (!held.is_empty()).then(|| n % held.len());
        match step {
            Step::Publish(key) => broker.publish(ledger.message(key)).await.unwrap(),
            Step::Take(n) => held.extend(take(&mut members[n]).await),
            Step::Ack(n) => {
                if let Some(n) = some(n) {
                    ledger.ack(held.remove(n)).await;
                }
            }
            Step::Nack(n) => {
                if let Some(n) = some(n) {
                    let _ = held.remove(n).nack().await;
                }
            }
            Step::NackLater(n) => {
                if let Some(n) = some(n) {
                    let _ = held.remove(n).nack_after(Duration::from_millis(300)).await;
                }
            }
            Step::Replace(n) => members[n] = broker.consume(consume.clone()).await.unwrap(),
            Step::Pass(ms) => advance(Duration::from_millis(ms)).await,
        }
    }
    // then everything is taken and acknowledged
    drop(held);
    advance(Duration::from_secs(2)).await;
    while let Some(delivery) = take(&mut members[0]).await {
        ledger.ack(delivery).await;
    }
    for (key, count) in ledger.published {
        let mut acked = ledger.acked.remove(&key).unwrap_or_default();
        if key.is_none() {
            acked.sort_unstable();
        }
        assert_eq!(acked, (1..=count).collect::<Vec<_>>(), "of key {key:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn a_key_is_acknowledged_in_order_and_once(steps in prop::collection::vec(step(), 1..120)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(run(steps));
    }
}
