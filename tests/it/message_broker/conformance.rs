//! What every adapter has to do. A check that needs what a system can't do makes sure that it says so.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, UNIX_EPOCH};

use corelay::toolkit::message_broker::{
    Broker, Consume, Consumer, ConsumerGroup, ErrorKind, Message, Order, Start, TopicOptions,
};
use tokio::sync::mpsc;

use super::system::{System, consume, number, number_of, numbered, soon, until};
use crate::servers::unique;

/// The suite as tests of a module, over the system that `$system` gives, if it is there.
macro_rules! conformance {
    ($system:expr) => {
        conformance! { $system =>
            messages_arrive_as_they_were_sent
            a_group_shares_and_every_group_gets_all
            what_is_refused_comes_again
            what_a_lost_member_held_goes_to_another
            what_is_late_comes_again
            what_was_acknowledged_does_not_come_again
            a_key_is_kept_in_order_by_all_members
            topics_come_and_go
            a_new_group_begins_where_it_says
            handlers_share_fail_and_are_called_again
            subscriptions_come_and_go
            no_more_than_so_many_at_once
            health_and_figures_tell_the_truth
            bad_input_is_refused_at_once
        }
    };
    ($system:expr => $($check:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $check() {
                if let Some(system) = $system.await {
                    $crate::message_broker::conformance::$check(&system).await;
                }
            }
        )*
    };
}
pub(super) use conformance;

async fn member(broker: &Broker, consume: Consume) -> Consumer {
    soon("membership", broker.consume(consume)).await.unwrap()
}

/// Takes and acknowledges so many.
async fn take(member: &mut Consumer, count: usize) -> Vec<Message> {
    let mut taken = Vec::new();
    for _ in 0..count {
        let delivery = soon("message", member.next()).await.unwrap();
        taken.push(delivery.message().clone());
        delivery.ack().await.unwrap();
    }
    taken
}

/// Where the system doesn't store, publishing ends with the handling: it goes on in the background then, and may find
/// the handle closed before the acknowledgement came.
async fn publish(broker: &Broker, message: Message) {
    if broker.capabilities().stores {
        return soon("publish", broker.publish(message)).await.unwrap();
    }
    let broker = broker.clone();
    tokio::spawn(async move {
        if let Err(error) = soon("publish", broker.publish(message)).await {
            assert!(matches!(error.kind(), ErrorKind::Closed | ErrorKind::Connection), "{error}");
        }
    });
}

pub async fn messages_arrive_as_they_were_sent(system: &System) {
    let broker = system.connect().await;
    let topic = system.topic(&broker).await;
    let mut one = member(&broker, consume(&topic, "g")).await;
    let all_bytes: Vec<u8> = (0..=255).collect();
    let full = Message::builder(&topic)
        .key(all_bytes.clone())
        .value(all_bytes.repeat(400))
        .header("event_type", "user.created")
        .header("Case.Kept-as_is", "")
        .header("binary", all_bytes.clone())
        .timestamp(UNIX_EPOCH + Duration::from_millis(1_700_000_000_123))
        .build()
        .unwrap();
    let empty = Message::builder(&topic).build().unwrap();
    let empty_key = Message::builder(&topic).key("").value("ä\r\n\0").build().unwrap();
    for message in [&full, &empty, &empty_key] {
        publish(&broker, message.clone()).await;
        let delivery = soon("message", one.next()).await.unwrap();
        assert_eq!((delivery.message(), delivery.attempt()), (message, 1));
        delivery.ack().await.unwrap();
    }
    broker.close().await;
}

pub async fn a_group_shares_and_every_group_gets_all(system: &System) {
    const COUNT: u32 = 60;
    let (broker, other) = (system.connect().await, system.connect().await);
    let topic = system.topic(&broker).await;
    let (seen, mut sees) = mpsc::unbounded_channel();
    let mut groups = vec!["g"];
    groups.extend(broker.capabilities().fan_out.then_some("h"));
    for group in &groups {
        for (name, handle) in [("one", &broker), ("two", &other)] {
            let who = format!("{group}.{name}");
            let seen = seen.clone();
            let handler = move |message: Message| {
                let (who, seen) = (who.clone(), seen.clone());
                async move { seen.send((who, number_of(&message))) }
            };
            let group = ConsumerGroup { concurrency: 2, ..ConsumerGroup::new(*group, [topic.clone()]) };
            handle.join_group(group, handler).await.unwrap();
        }
    }
    for n in 0..COUNT {
        publish(&broker, numbered(&topic, n)).await;
    }
    let mut got: BTreeMap<String, Vec<u32>> = BTreeMap::new();
    for _ in 0..COUNT as usize * groups.len() {
        let (who, n) = soon("message", sees.recv()).await.unwrap();
        got.entry(who[..1].into()).or_default().push(n);
    }
    for group in groups {
        let mut numbers = got.remove(group).unwrap();
        numbers.sort_unstable();
        assert_eq!(numbers, (0..COUNT).collect::<Vec<_>>(), "group {group}");
    }
    broker.close().await;
    other.close().await;
    assert!(sees.try_recv().is_err(), "nothing twice");
}

pub async fn what_is_refused_comes_again(system: &System) {
    let broker = system.connect().await;
    let topic = system.topic(&broker).await;
    let mut one = member(&broker, consume(&topic, "g")).await;
    publish(&broker, numbered(&topic, 1)).await;
    let first = soon("message", one.next()).await.unwrap();
    assert_eq!(first.attempt(), 1);
    let id = first.message().id();
    first.nack().await.unwrap();
    let second = soon("redelivery", one.next()).await.unwrap();
    assert_eq!((second.message().id(), second.attempt() > 1), (id, true));
    second.nack_after(Duration::from_millis(30)).await.unwrap();
    // dropped is refused
    drop(soon("redelivery", one.next()).await.unwrap());
    let last = soon("redelivery", one.next()).await.unwrap();
    assert_eq!(last.message().id(), id);
    last.ack().await.unwrap();
    broker.close().await;
    assert_eq!((broker.stats().acked, broker.stats().nacked, broker.stats().delivered), (1, 3, 4));
}

pub async fn what_a_lost_member_held_goes_to_another(system: &System) {
    const COUNT: u32 = 8;
    let (broker, other) = (system.connect().await, system.connect().await);
    let topic = system.topic(&broker).await;
    let quick = |topic: &str| Consume { ack_timeout: Duration::from_millis(1500), ..consume(topic, "g") };
    let mut lost = member(&broker, quick(&topic)).await;
    for n in 0..COUNT {
        publish(&other, numbered(&topic, n)).await;
    }
    let mut held = Vec::new();
    for _ in 0..COUNT / 2 {
        held.push(soon("message", lost.next()).await.unwrap());
    }
    // as if its process had ended: nothing is settled
    held.into_iter().for_each(std::mem::forget);
    drop(lost);
    broker.close().await;
    let mut heir = member(&other, quick(&topic)).await;
    let mut numbers = BTreeSet::new();
    while numbers.len() < COUNT as usize {
        let delivery = soon("message", heir.next()).await.unwrap();
        let n = number(&delivery);
        if delivery.ack().await.is_ok() {
            numbers.insert(n);
        }
    }
    assert_eq!(numbers, (0..COUNT).collect());
    other.close().await;
}

pub async fn what_is_late_comes_again(system: &System) {
    let broker = system.connect().await;
    if !broker.capabilities().ack_timeout {
        return;
    }
    let topic = system.topic(&broker).await;
    let quick = Consume { ack_timeout: Duration::from_millis(300), ..consume(&topic, "g") };
    let mut one = member(&broker, quick).await;
    publish(&broker, numbered(&topic, 1)).await;
    let late = soon("message", one.next()).await.unwrap();
    let again = soon("redelivery", one.next()).await.unwrap();
    assert_eq!((again.message(), again.attempt() > 1), (late.message(), true));
    // some systems take a late acknowledgement, the others say that it is late
    if let Err(error) = late.ack().await {
        assert_eq!(error.kind(), ErrorKind::Expired);
    }
    again.ack().await.unwrap();
    broker.close().await;
}

pub async fn what_was_acknowledged_does_not_come_again(system: &System) {
    let broker = system.connect().await;
    let topic = system.topic(&broker).await;
    let mut one = member(&broker, consume(&topic, "g")).await;
    for n in 0..10 {
        publish(&broker, numbered(&topic, n)).await;
    }
    take(&mut one, 10).await;
    one.leave().await.unwrap();
    let mut next = member(&broker, consume(&topic, "g")).await;
    publish(&broker, numbered(&topic, 10)).await;
    assert_eq!(number_of(&take(&mut next, 1).await[0]), 10, "the first it sees is the new one");
    broker.close().await;
}

pub async fn a_key_is_kept_in_order_by_all_members(system: &System) {
    const KEYS: u32 = 4;
    const EACH: u32 = 8;
    let (broker, other) = (system.connect().await, system.connect().await);
    let topic = system.topic(&broker).await;
    let order = Order::PerKey;
    if !broker.capabilities().order_per_key {
        let error = broker.consume(Consume { order, ..consume(&topic, "g") }).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        return;
    }
    let seen = Arc::new(Mutex::new(BTreeMap::<u32, Vec<u32>>::new()));
    let refused = Arc::new(Mutex::new(BTreeSet::new()));
    for handle in [&broker, &other] {
        let (seen, refused) = (seen.clone(), refused.clone());
        let handler = move |message: Message| {
            let n = number_of(&message);
            // each third is refused once
            let outcome = if n.is_multiple_of(3) && refused.lock().unwrap().insert(n) {
                Err("once")
            } else {
                seen.lock().unwrap().entry(n % KEYS).or_default().push(n / KEYS);
                Ok(())
            };
            async move { outcome }
        };
        let quick = Duration::from_millis(1);
        let group = ConsumerGroup { order, retry_min: quick, retry_max: quick, ..ConsumerGroup::new("g", [&topic]) };
        handle.join_group(group, handler).await.unwrap();
    }
    for n in 0..KEYS * EACH {
        let message = Message::builder(&topic).key(vec![(n % KEYS) as u8]).value(n.to_string()).build().unwrap();
        publish(&broker, message).await;
    }
    let count = || seen.lock().unwrap().values().map(Vec::len).sum::<usize>();
    until("all messages", || count() >= (KEYS * EACH) as usize).await;
    broker.close().await;
    other.close().await;
    for (key, numbers) in &*seen.lock().unwrap() {
        assert_eq!(*numbers, (0..EACH).collect::<Vec<_>>(), "key {key}");
    }
}

pub async fn topics_come_and_go(system: &System) {
    let broker = system.connect().await;
    let topic = unique("come.and-go_");
    let options = TopicOptions::default();
    if !broker.capabilities().topics {
        let results = [
            broker.create_topic(&topic, options).await.unwrap_err(),
            broker.delete_topic(&topic).await.unwrap_err(),
            broker.topic_exists(&topic).await.unwrap_err(),
            broker.topics().await.unwrap_err(),
        ];
        assert!(results.iter().all(|error| error.kind() == ErrorKind::Unsupported), "{results:?}");
        return;
    }
    let unknown = |error: corelay::toolkit::message_broker::Error| assert_eq!(error.kind(), ErrorKind::UnknownTopic);
    for _ in 0..2 {
        assert!(!broker.topic_exists(&topic).await.unwrap());
        unknown(soon("answer", broker.publish(numbered(&topic, 1))).await.unwrap_err());
        unknown(soon("answer", broker.consume(consume(&topic, "g"))).await.unwrap_err());
        unknown(soon("answer", broker.delete_topic(&topic)).await.unwrap_err());
        broker.create_topic(&topic, options).await.unwrap();
        assert!(broker.topic_exists(&topic).await.unwrap());
        let error = broker.create_topic(&topic, options).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TopicExists);
        match broker.topics().await {
            Ok(topics) => assert!(topics.contains(&topic), "{topics:?}"),
            Err(error) => {
                assert_eq!((error.kind(), broker.capabilities().list_topics), (ErrorKind::Unsupported, false));
            }
        }
        // a topic of that name is not the one before
        let mut one = member(&broker, consume(&topic, "g")).await;
        publish(&broker, numbered(&topic, 1)).await;
        assert_eq!(number_of(&take(&mut one, 1).await[0]), 1, "nothing is left of the one before");
        publish(&broker, numbered(&topic, 2)).await;
        drop(one);
        broker.delete_topic(&topic).await.unwrap();
    }
    let can = broker.capabilities();
    let bounded = [
        (TopicOptions { max_messages: Some(1000), ..options }, can.max_messages),
        (TopicOptions { max_age: Some(Duration::from_secs(3600)), ..options }, can.max_age),
    ];
    for (options, can) in bounded {
        let topic = unique("bounded.");
        match broker.create_topic(&topic, options).await {
            Ok(()) => broker.delete_topic(&topic).await.unwrap(),
            Err(error) => assert_eq!((error.kind(), can), (ErrorKind::Unsupported, false), "{options:?}"),
        }
    }
    broker.close().await;
}

pub async fn a_new_group_begins_where_it_says(system: &System) {
    let broker = system.connect().await;
    let topic = system.topic(&broker).await;
    let earliest = |group: &str| Consume { start: Start::Earliest, ..consume(&topic, group) };
    if !broker.capabilities().start_earliest {
        let error = broker.consume(earliest("g")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        return;
    }
    for n in 0..5 {
        publish(&broker, numbered(&topic, n)).await;
    }
    let mut from_first = member(&broker, earliest("first")).await;
    let mut from_now = member(&broker, consume(&topic, "now")).await;
    publish(&broker, numbered(&topic, 5)).await;
    let numbers: Vec<_> = take(&mut from_first, 6).await.iter().map(number_of).collect();
    assert_eq!(numbers, [0, 1, 2, 3, 4, 5]);
    assert_eq!(number_of(&take(&mut from_now, 1).await[0]), 5);
    // a group that was there goes on where it was, whatever a later member says
    from_now.leave().await.unwrap();
    publish(&broker, numbered(&topic, 6)).await;
    let mut again = member(&broker, earliest("now")).await;
    assert_eq!(number_of(&take(&mut again, 1).await[0]), 6);
    broker.close().await;
}

pub async fn handlers_share_fail_and_are_called_again(system: &System) {
    const COUNT: u32 = 30;
    let broker = system.connect().await;
    let topic = system.topic(&broker).await;
    let done = Arc::new(Mutex::new(Vec::new()));
    let failed = Arc::new(Mutex::new(BTreeSet::new()));
    let handler = {
        let (done, failed) = (done.clone(), failed.clone());
        move |message: Message| {
            let (done, failed) = (done.clone(), failed.clone());
            async move {
                let n = number_of(&message);
                let is_first = failed.lock().unwrap().insert(n);
                assert!(!(is_first && n % 5 == 1), "a panic, as planned");
                if is_first && n % 5 == 2 {
                    return Err("an error, as planned");
                }
                done.lock().unwrap().push(n);
                Ok(())
            }
        }
    };
    let quick = Duration::from_millis(5);
    let group = ConsumerGroup { retry_min: quick, retry_max: quick, ..ConsumerGroup::new("g", [&topic]) };
    broker.join_group(group, handler).await.unwrap();
    for n in 0..COUNT {
        publish(&broker, numbered(&topic, n)).await;
    }
    until("all messages", || done.lock().unwrap().len() >= COUNT as usize).await;
    broker.leave_group("g").await.unwrap();
    let mut numbers = done.lock().unwrap().clone();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..COUNT).collect::<Vec<_>>());
    let stats = broker.stats();
    assert_eq!((stats.handler_panics, stats.handler_failures), (u64::from(COUNT) / 5, u64::from(COUNT) / 5));
    assert_eq!((stats.acked, stats.in_flight), (COUNT.into(), 0));
    broker.close().await;
}

pub async fn subscriptions_come_and_go(system: &System) {
    let broker = system.connect().await;
    let topic = system.topic(&broker).await;
    let (seen, mut sees) = mpsc::unbounded_channel();
    let subscribe = async |name: &'static str| {
        let seen = seen.clone();
        let handler = move |message: Message| {
            let seen = seen.clone();
            async move { seen.send((name, number_of(&message))) }
        };
        broker.subscribe(&topic, handler).await
    };
    if !broker.capabilities().fan_out {
        let error = subscribe("one").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        return;
    }
    let (one, two) = (subscribe("one").await.unwrap(), subscribe("two").await.unwrap());
    assert_eq!(broker.subscriptions().len(), 2);
    publish(&broker, numbered(&topic, 1)).await;
    let both = [soon("message", sees.recv()).await.unwrap(), soon("message", sees.recv()).await.unwrap()];
    assert_eq!(both.into_iter().collect::<BTreeSet<_>>(), BTreeSet::from([("one", 1), ("two", 1)]));
    broker.unsubscribe(one.id).await.unwrap();
    publish(&broker, numbered(&topic, 2)).await;
    assert_eq!(soon("message", sees.recv()).await.unwrap(), ("two", 2));
    broker.unsubscribe(two.id).await.unwrap();
    publish(&broker, numbered(&topic, 3)).await;
    assert_eq!(broker.subscriptions(), []);
    assert_eq!(broker.unsubscribe(two.id).await.unwrap_err().kind(), ErrorKind::UnknownSubscription);
    broker.close().await;
    assert!(sees.try_recv().is_err());
}

pub async fn no_more_than_so_many_at_once(system: &System) {
    let broker = system.connect().await;
    let topic = system.topic(&broker).await;
    let mut one = member(&broker, Consume { in_flight: 3, ..consume(&topic, "g") }).await;
    for n in 0..6 {
        publish(&broker, numbered(&topic, n)).await;
    }
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(soon("message", one.next()).await.unwrap());
    }
    let more = tokio::time::timeout(Duration::from_millis(200), one.next()).await;
    assert!(more.is_err(), "a fourth at once");
    held.pop().unwrap().ack().await.unwrap();
    held.push(soon("message", one.next()).await.unwrap());
    for delivery in held {
        delivery.ack().await.unwrap();
    }
    let rest = take(&mut one, 2).await;
    assert_eq!(rest.len(), 2);
    assert_eq!(broker.stats().delivered, 6);
    broker.close().await;
}

pub async fn health_and_figures_tell_the_truth(system: &System) {
    let broker = system.connect().await;
    let topic = system.topic(&broker).await;
    let health = broker.health().await;
    assert!(health.is_good() && health.subscriptions == 0, "{health:?}");
    broker.join_group(ConsumerGroup::new("g", [&topic]), |_: Message| async {}).await.unwrap();
    for n in 0..5 {
        publish(&broker, numbered(&topic, n)).await;
    }
    until("acknowledgements", || broker.stats().acked == 5 && broker.stats().published == 5).await;
    let mut registry = prometheus_client::registry::Registry::default();
    broker.register(&mut registry);
    let mut page = String::new();
    prometheus_client::encoding::text::encode(&mut page, &registry).unwrap();
    for line in ["published_total 5", "delivered_total 5", "acked_total 5", "in_flight 0", "publish_seconds_count 5"] {
        assert!(page.contains(&format!("message_broker_{line}\n")), "{line} in {page}");
    }
    let health = broker.health().await;
    assert_eq!((health.system, health.subscriptions, health.ended.len()), (broker.system(), 1, 0));
    broker.close().await;
    let closed = [
        broker.health().await.round_trip.unwrap_err(),
        broker.publish(numbered(&topic, 1)).await.unwrap_err(),
        broker.consume(consume(&topic, "g")).await.unwrap_err(),
    ];
    assert!(closed.iter().all(|error| error.kind() == ErrorKind::Closed), "{closed:?}");
}

pub async fn bad_input_is_refused_at_once(system: &System) {
    let broker = system.connect().await;
    let nothing = |_: Message| async {};
    let consumes = [
        Consume { in_flight: 0, ..consume("t", "g") },
        Consume { in_flight: 1 << 20, ..consume("t", "g") },
        Consume { ack_timeout: Duration::ZERO, ..consume("t", "g") },
        consume("no topic", "g"),
        consume("t", "no*group"),
    ];
    for wrong in consumes {
        assert_eq!(broker.consume(wrong).await.unwrap_err().kind(), ErrorKind::Invalid);
    }
    let attempts = ConsumerGroup { max_attempts: Some(2), ..ConsumerGroup::new("g", ["t"]) };
    let groups = [
        ConsumerGroup::new("g", Vec::<String>::new()),
        ConsumerGroup::new("g", ["t", "t"]),
        ConsumerGroup { concurrency: 0, ..ConsumerGroup::new("g", ["t"]) },
        ConsumerGroup { max_attempts: Some(0), ..attempts.clone() },
        ConsumerGroup { handler_timeout: Some(Duration::ZERO), ..attempts.clone() },
        ConsumerGroup { handler_timeout: Some(Duration::from_secs(31)), ..attempts.clone() },
        ConsumerGroup { dead_letter: Some("t".into()), ..attempts.clone() },
        ConsumerGroup { dead_letter: Some("d".into()), max_attempts: None, ..attempts.clone() },
        ConsumerGroup { retry_min: Duration::from_secs(60), ..attempts },
    ];
    for wrong in groups {
        assert_eq!(broker.join_group(wrong, nothing).await.unwrap_err().kind(), ErrorKind::Invalid);
    }
    for name in ["", "a/b", "a..b", &"x".repeat(300)] {
        assert_eq!(broker.create_topic(name, TopicOptions::default()).await.unwrap_err().kind(), ErrorKind::Invalid);
        assert_eq!(Message::builder(name).build().unwrap_err().kind(), ErrorKind::Invalid);
    }
    let zero = TopicOptions { max_messages: Some(0), ..TopicOptions::default() };
    assert_eq!(broker.create_topic("t", zero).await.unwrap_err().kind(), ErrorKind::Invalid);
    broker.close().await;
}
