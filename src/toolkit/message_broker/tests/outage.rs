//! A system that goes down and comes back, in no time.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use super::super::{Broker, Consume, ConsumerGroup, ErrorKind, Message, Options, TopicOptions};
use crate::toolkit::testing::FakeSystem;

const SECOND: Duration = Duration::from_secs(1);

async fn broker() -> (Broker, FakeSystem) {
    let system = FakeSystem::default();
    let broker = Broker::with_options(system.clone(), Options { timeout: SECOND });
    broker.create_topic("t", TopicOptions::default()).await.unwrap();
    (broker, system)
}

fn message(n: u32) -> Message {
    Message::builder("t").value(n.to_string()).build().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_member_joins_again_after_growing_waits() {
    let (broker, system) = broker().await;
    let mut member = broker.consume(Consume::new("t", "g")).await.unwrap();
    system.set_down(true);
    // down for a minute: nothing is heard, and nothing spins
    assert!(timeout(60 * SECOND, member.next()).await.is_err());
    assert_eq!(broker.stats().rejoined, 0);
    let health = broker.health().await;
    assert_eq!(health.round_trip.unwrap_err().kind(), ErrorKind::Connection);
    system.set_down(false);
    broker.publish(message(1)).await.unwrap();
    let begin = Instant::now();
    let delivery = member.next().await.unwrap();
    // no longer than the longest wait, jitter included
    assert!(begin.elapsed() <= 4 * SECOND, "{:?}", begin.elapsed());
    assert_eq!((&delivery.message().value()[..], broker.stats().rejoined), (&b"1"[..], 1));
    delivery.ack().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn handlers_go_on_after_an_outage_and_nothing_is_lost() {
    let (broker, system) = broker().await;
    let (seen, mut sees) = mpsc::unbounded_channel();
    let handler = move |message: Message| {
        let seen = seen.clone();
        async move { seen.send(String::from_utf8_lossy(message.value()).into_owned()) }
    };
    broker.join_group(ConsumerGroup::new("g", ["t"]), handler).await.unwrap();
    let mut refused = 0;
    for n in 0..100 {
        system.set_down(n % 10 == 5);
        while let Err(error) = broker.publish(message(n)).await {
            assert!(error.is_retryable(), "{error}");
            refused += 1;
            sleep(SECOND).await;
            system.set_down(false);
        }
        if n % 10 == 0 {
            sleep(SECOND / 100).await;
        }
    }
    let mut numbers = Vec::new();
    while numbers.len() < 100 {
        numbers.push(timeout(60 * SECOND, sees.recv()).await.unwrap().unwrap());
    }
    numbers.sort_by_key(|n| n.parse::<u32>().unwrap());
    assert_eq!(numbers, (0..100).map(|n| n.to_string()).collect::<Vec<_>>());
    assert_eq!((refused, broker.stats().publish_failures, system.published().len()), (10, 10, 100));
    assert!(broker.stats().rejoined > 0 && broker.health().await.is_good());
    broker.close().await;
}
