//! Handlers that fail, and when their messages come again.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use super::super::memory::{self, Overflow};
use super::super::{Broker, Consume, ConsumerGroup, ErrorKind, Memory, Message, Options, TopicOptions};

const SECOND: Duration = Duration::from_secs(1);

async fn broker(topics: &[&str]) -> Broker {
    let broker = Broker::new(Memory::default());
    for topic in topics {
        broker.create_topic(topic, TopicOptions::default()).await.unwrap();
    }
    broker
}

fn message(topic: &str, value: &'static str) -> Message {
    Message::builder(topic).value(value).build().unwrap()
}

#[tokio::test(start_paused = true)]
async fn failed_messages_come_again_after_growing_waits() {
    let broker = broker(&["t"]).await;
    let times = Arc::new(Mutex::new(Vec::new()));
    let (done, mut is_done) = mpsc::unbounded_channel();
    let seen = times.clone();
    let group = ConsumerGroup { retry_min: SECOND, retry_max: 4 * SECOND, ..ConsumerGroup::new("g", ["t"]) };
    let handler = move |_: Message| {
        let (seen, done) = (seen.clone(), done.clone());
        async move {
            let attempt = {
                let mut seen = seen.lock().unwrap();
                seen.push(Instant::now());
                seen.len()
            };
            match attempt {
                1 | 3 | 4 => Err("not yet"),
                2 => panic!("nor this time"),
                _ => {
                    done.send(()).unwrap();
                    Ok(())
                }
            }
        }
    };
    broker.join_group(group, handler).await.unwrap();
    broker.publish(message("t", "x")).await.unwrap();
    is_done.recv().await.unwrap();
    let times = times.lock().unwrap().clone();
    let waits: Vec<_> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    for (wait, bound) in waits.iter().zip([SECOND, 2 * SECOND, 4 * SECOND, 4 * SECOND]) {
        assert!(*wait >= bound / 2 && *wait <= bound + Duration::from_millis(1), "{waits:?}");
    }
    broker.close().await;
    let stats = broker.stats();
    assert_eq!((stats.handler_failures, stats.handler_panics), (3, 1));
    assert_eq!((stats.delivered, stats.redelivered, stats.acked, stats.nacked), (5, 4, 1, 4));
    assert_eq!(stats.in_flight, 0);
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_never_ends_is_stopped_and_counted() {
    let broker = broker(&["t"]).await;
    let attempts = AtomicU32::new(0);
    let handler = move |_: Message| {
        let is_third = attempts.fetch_add(1, Ordering::Relaxed) == 2;
        async move {
            if !is_third {
                std::future::pending::<()>().await;
            }
        }
    };
    let limit = Some(5 * SECOND);
    let group = ConsumerGroup { handler_timeout: limit, retry_max: SECOND, ..ConsumerGroup::new("g", ["t"]) };
    broker.join_group(group, handler).await.unwrap();
    let begin = Instant::now();
    broker.publish(message("t", "x")).await.unwrap();
    while broker.stats().acked < 1 {
        sleep(SECOND / 10).await;
    }
    assert!((10 * SECOND..13 * SECOND).contains(&begin.elapsed()), "{:?}", begin.elapsed());
    assert_eq!((broker.stats().handler_timeouts, broker.stats().nacked), (2, 2));
    broker.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_never_ends_holds_up_no_shutdown() {
    let broker = broker(&["t"]).await;
    let group = ConsumerGroup { ack_timeout: 20 * SECOND, ..ConsumerGroup::new("g", ["t"]) };
    broker.join_group(group, |_: Message| std::future::pending::<()>()).await.unwrap();
    broker.publish(message("t", "x")).await.unwrap();
    sleep(SECOND).await;
    let begin = Instant::now();
    broker.close().await;
    // no longer than the ack_timeout, when the message is another's
    let elapsed = begin.elapsed();
    assert!(elapsed.abs_diff(19 * SECOND) < SECOND / 10, "{elapsed:?}");
    assert_eq!(broker.stats().handler_timeouts, 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_given_up_goes_to_the_dead_letters() {
    let broker = broker(&["t", "dead"]).await;
    let mut dead = broker.consume(Consume::new("dead", "undertaker")).await.unwrap();
    let group =
        ConsumerGroup { max_attempts: Some(3), dead_letter: Some("dead".into()), ..ConsumerGroup::new("g", ["t"]) };
    broker.join_group(group, |_: Message| async { Err::<(), _>("never") }).await.unwrap();
    let sent = message("t", "x");
    broker.publish(sent.clone()).await.unwrap();
    let letter = dead.next().await.unwrap();
    let got = letter.message();
    assert_eq!((got.id(), got.value(), got.topic()), (sent.id(), sent.value(), "dead"));
    for (name, value) in [("topic", "t"), ("group", "g"), ("error", "never")] {
        assert_eq!(got.header(&format!("dead-letter-{name}")), Some(value.as_bytes()));
    }
    letter.ack().await.unwrap();
    broker.close().await;
    assert_eq!((broker.stats().dead_lettered, broker.stats().dropped, broker.stats().handler_failures), (1, 0, 3));
}

#[tokio::test(start_paused = true)]
async fn without_dead_letters_it_is_dropped_and_counted() {
    let broker = broker(&["t"]).await;
    let group = ConsumerGroup { max_attempts: Some(1), ..ConsumerGroup::new("g", ["t"]) };
    broker.join_group(group, |_: Message| async { Err::<(), _>("never") }).await.unwrap();
    broker.publish(message("t", "x")).await.unwrap();
    sleep(SECOND).await;
    assert_eq!((broker.stats().dropped, broker.stats().in_flight), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn unsubscribing_waits_for_the_handlers() {
    let broker = broker(&["t"]).await;
    let (began, mut has_begun) = mpsc::unbounded_channel();
    let handler = move |_: Message| {
        began.send(()).unwrap();
        sleep(10 * SECOND)
    };
    let subscription = broker.subscribe("t", handler).await.unwrap();
    broker.publish(message("t", "x")).await.unwrap();
    has_begun.recv().await.unwrap();
    let begin = Instant::now();
    broker.unsubscribe(subscription.id).await.unwrap();
    assert_eq!((begin.elapsed(), broker.stats().acked), (10 * SECOND, 1));
    assert_eq!(broker.unsubscribe(subscription.id).await.unwrap_err().kind(), ErrorKind::UnknownSubscription);
    assert_eq!(broker.leave_group("g").await.unwrap_err().kind(), ErrorKind::UnknownSubscription);
    broker.publish(message("t", "y")).await.unwrap();
    assert_eq!(broker.stats().delivered, 1);
}

#[tokio::test(start_paused = true)]
async fn at_most_so_many_handlers_at_once() {
    let broker = broker(&["t"]).await;
    let running = Arc::new(Mutex::new((0, 0)));
    let counting = running.clone();
    let group = ConsumerGroup { concurrency: 3, ..ConsumerGroup::new("g", ["t"]) };
    let handler = move |_: Message| {
        let counting = counting.clone();
        async move {
            {
                let mut count = counting.lock().unwrap();
                count.0 += 1;
                count.1 = count.1.max(count.0);
            }
            sleep(SECOND).await;
            counting.lock().unwrap().0 -= 1;
        }
    };
    broker.join_group(group, handler).await.unwrap();
    for _ in 0..10 {
        broker.publish(message("t", "x")).await.unwrap();
    }
    let begin = Instant::now();
    while broker.stats().acked < 10 {
        sleep(SECOND / 10).await;
    }
    assert_eq!(running.lock().unwrap().1, 3);
    assert!(begin.elapsed() >= 4 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_full_group_holds_up_or_refuses_the_publisher() {
    for overflow in [Overflow::Wait, Overflow::Refuse] {
        let memory = Memory::new(memory::Options { capacity: 2, overflow, ..memory::Options::default() }).unwrap();
        let broker = Broker::with_options(memory, Options { timeout: SECOND });
        broker.create_topic("t", TopicOptions::default()).await.unwrap();
        let mut member = broker.consume(Consume::new("t", "g")).await.unwrap();
        broker.publish(message("t", "1")).await.unwrap();
        broker.publish(message("t", "2")).await.unwrap();
        let kind = broker.publish(message("t", "3")).await.unwrap_err().kind();
        let expected = if overflow == Overflow::Wait { ErrorKind::Timeout } else { ErrorKind::Full };
        assert_eq!((kind, kind.is_retryable()), (expected, true));
        // handing out makes no room, acknowledging does
        let first = member.next().await.unwrap();
        assert!(broker.publish(message("t", "3")).await.is_err());
        let waiting = tokio::spawn({
            let broker = broker.clone();
            async move { broker.publish(message("t", "3")).await }
        });
        tokio::task::yield_now().await;
        first.ack().await.unwrap();
        let published = waiting.await.unwrap();
        assert_eq!(published.is_ok(), overflow == Overflow::Wait);
        assert_eq!(broker.stats().publish_failures, if overflow == Overflow::Wait { 2 } else { 3 });
    }
}

#[tokio::test(start_paused = true)]
async fn a_deleted_topic_ends_its_subscriptions_and_health_says_so() {
    let broker = broker(&["t"]).await;
    let subscription = broker.subscribe("t", |_: Message| async {}).await.unwrap();
    assert!(broker.health().await.is_good());
    broker.delete_topic("t").await.unwrap();
    sleep(SECOND).await;
    let health = broker.health().await;
    assert_eq!((health.is_good(), health.ended.as_slice()), (false, &[subscription.clone()][..]));
    let ended = broker.unsubscribe(subscription.id).await.unwrap_err();
    assert_eq!(ended.kind(), ErrorKind::UnknownTopic);
}

#[tokio::test(start_paused = true)]
async fn late_and_delayed_messages_come_again_in_time() {
    let broker = broker(&["t"]).await;
    let consume = Consume { ack_timeout: 10 * SECOND, ..Consume::new("t", "g") };
    let mut member = broker.consume(consume).await.unwrap();
    broker.publish(message("t", "x")).await.unwrap();
    let late = member.next().await.unwrap();
    let begin = Instant::now();
    let again = member.next().await.unwrap();
    assert_eq!((begin.elapsed(), again.attempt()), (10 * SECOND, 2));
    assert_eq!(late.ack().await.unwrap_err().kind(), ErrorKind::Expired);
    again.nack_after(3 * SECOND).await.unwrap();
    let begin = Instant::now();
    let third = member.next().await.unwrap();
    assert_eq!((begin.elapsed(), third.attempt()), (3 * SECOND, 3));
    third.ack().await.unwrap();
    assert!(timeout(100 * SECOND, member.next()).await.is_err());
    assert_eq!((broker.stats().settle_failures, broker.stats().acked), (1, 1));
}
