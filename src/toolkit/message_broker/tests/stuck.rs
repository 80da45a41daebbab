//! Handlers and systems that never come back hold up nobody for good.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::super::{Broker, Consume, ConsumerGroup, ErrorKind, Memory, Message, Options, TopicOptions};
use crate::toolkit::testing::FakeSystem;

const SECOND: Duration = Duration::from_secs(1);

fn message() -> Message {
    Message::builder("t").value("x").build().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_system_that_falls_silent_is_waited_for_no_longer_than_a_call_may_take() {
    let system = FakeSystem::default();
    let broker = Broker::with_options(system.clone(), Options { timeout: 5 * SECOND });
    broker.create_topic("t", TopicOptions::default()).await.unwrap();
    let mut member = broker.consume(Consume::new("t", "g")).await.unwrap();
    let mut held = Vec::new();
    for _ in 0..2 {
        broker.publish(message()).await.unwrap();
        held.push(member.next().await.unwrap());
    }
    broker.join_group(ConsumerGroup::new("handled", ["t"]), |_: Message| async {}).await.unwrap();
    system.set_silent(true);
    let begin = Instant::now();
    let errors = [
        broker.publish(message()).await.unwrap_err(),
        broker.consume(Consume::new("t", "g")).await.unwrap_err(),
        broker.create_topic("u", TopicOptions::default()).await.unwrap_err(),
        broker.topics().await.unwrap_err(),
        broker.health().await.round_trip.unwrap_err(),
        held.pop().unwrap().ack().await.unwrap_err(),
        held.pop().unwrap().nack().await.unwrap_err(),
        member.leave().await.unwrap_err(),
        broker.leave_group("handled").await.unwrap_err(),
    ];
    assert!(errors.iter().all(|error| error.kind() == ErrorKind::Timeout), "{errors:?}");
    assert_eq!(errors[5].to_string(), "timeout: acknowledging: not within 5s");
    broker.close().await;
    assert_eq!(begin.elapsed(), 5 * SECOND * (errors.len() as u32 + 1));
    let stats = broker.stats();
    assert_eq!((stats.publish_failures, stats.settle_failures, stats.in_flight), (1, 2, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_that_blocks_its_thread_holds_up_no_shutdown() {
    let broker = Broker::with_options(Memory::default(), Options { timeout: SECOND / 20 });
    broker.create_topic("t", TopicOptions::default()).await.unwrap();
    let quick = SECOND / 100;
    let group =
        ConsumerGroup { ack_timeout: quick, retry_min: quick, retry_max: quick, ..ConsumerGroup::new("g", ["t"]) };
    let (began, mut begins) = mpsc::unbounded_channel();
    // blocked until the test lets go
    let (let_go, blocked) = std::sync::mpsc::channel::<()>();
    let blocked = std::sync::Mutex::new(Some(blocked));
    let handler = move |_: Message| {
        let (began, blocked) = (began.clone(), blocked.lock().unwrap().take());
        async move {
            began.send(()).unwrap();
            if let Some(blocked) = blocked {
                let _ = blocked.recv();
            }
        }
    };
    let subscription = broker.join_group(group, handler).await.unwrap();
    broker.publish(message()).await.unwrap();
    begins.recv().await.unwrap();
    let error = broker.unsubscribe(subscription.id).await.unwrap_err();
    assert_eq!(error.to_string(), "timeout: 1 handlers block their threads: not waited for");
    assert_eq!(broker.stats().handler_timeouts, 1);
    drop(let_go);
    broker.close().await;
}

#[tokio::test(start_paused = true)]
async fn what_the_system_lost_is_counted_at_once() {
    let system = FakeSystem::default();
    let broker = Broker::new(system.clone());
    broker.create_topic("t", TopicOptions::default()).await.unwrap();
    let (seen, mut sees) = mpsc::unbounded_channel();
    let handler = move |_: Message| {
        let seen = seen.clone();
        async move { seen.send(()) }
    };
    broker.join_group(ConsumerGroup::new("g", ["t"]), handler).await.unwrap();
    system.lose(3);
    tokio::time::sleep(SECOND).await;
    assert_eq!(broker.stats().lost, 3);
    system.lose(1);
    broker.publish(message()).await.unwrap();
    sees.recv().await.unwrap();
    broker.close().await;
    let mut registry = prometheus_client::registry::Registry::default();
    broker.register(&mut registry);
    let mut page = String::new();
    prometheus_client::encoding::text::encode(&mut page, &registry).unwrap();
    assert!(page.contains("message_broker_lost_total 4\n"), "{page}");
}

#[tokio::test]
async fn a_timeout_of_zero_is_refused() {
    let broker = Broker::with_options(Memory::default(), Options { timeout: Duration::ZERO });
    let error = broker.create_topic("t", TopicOptions::default()).await.unwrap_err();
    assert_eq!((error.kind(), error.to_string()), (ErrorKind::Invalid, "invalid: timeout is 0: expected more".into()));
    assert_eq!(broker.publish(message()).await.unwrap_err().kind(), ErrorKind::Invalid);
}
