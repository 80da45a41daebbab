//! The same program on any system: `cargo run --example user_events -- memory`, or
//! `nats://127.0.0.1:4222`, `redis://127.0.0.1:6379`, `amqp://127.0.0.1:5672/%2f` instead of `memory`. The two that
//! were created may come in either order: handlers run side by side.
//!
//! ```text
//! on memory: the topic user-events
//! user-service: user.created of user-123: {"user_id": "123"}
//! user-service: user.created of user-124: {"user_id": "124"}
//! user-service: user.deleted of user-123: {"user_id": "123"} (second attempt)
//! published 3, delivered 4, acknowledged 3, refused 1
//! ```

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use corelay::toolkit::message_broker::{
    Broker, Capabilities, ConsumerGroup, ErrorKind, Memory, Message, TopicOptions, amqp, nats, redis,
};
use tokio::sync::mpsc;

type Failure = Box<dyn std::error::Error>;

async fn connect(target: &str) -> Result<Broker, Failure> {
    let url = target.to_string();
    Ok(match target.split(':').next() {
        Some("memory") => Broker::new(Memory::default()),
        Some("nats") => Broker::new(nats::Nats::connect(nats::Options { url, ..Default::default() }).await?),
        Some("redis") => Broker::new(redis::Redis::connect(redis::Options { url, ..Default::default() }).await?),
        Some("amqp") => Broker::new(amqp::Amqp::connect(amqp::Options { url, ..Default::default() }).await?),
        _ => return Err(format!("{target}: expected memory, nats://, redis:// or amqp://").into()),
    })
}

fn event(user: &str, kind: &str) -> Result<Message, Failure> {
    let message = Message::builder("user-events")
        .key(format!("user-{user}"))
        .value(format!("{{\"user_id\": \"{user}\"}}"))
        .header("event_type", kind.to_string())
        .build()?;
    Ok(message)
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let target = std::env::args().nth(1).unwrap_or_else(|| "memory".into());
    let broker = connect(&target).await?;
    match broker.create_topic("user-events", TopicOptions::default()).await {
        Err(error) if error.kind() != ErrorKind::TopicExists => return Err(error.into()),
        _ => println!("on {}: the topic user-events", broker.system()),
    }

    let (done, mut is_done) = mpsc::unbounded_channel();
    let failed_once = AtomicBool::new(false);
    let handler = move |message: Message| {
        let kind = String::from_utf8_lossy(message.header("event_type").unwrap_or_default()).into_owned();
        let first_deletion = kind == "user.deleted" && !failed_once.swap(true, Ordering::Relaxed);
        let again = if kind == "user.deleted" { " (second attempt)" } else { "" };
        let done = done.clone();
        async move {
            if first_deletion {
                return Err("the database was away"); // delivered again, after a growing wait
            }
            let (key, value) = (message.key().cloned().unwrap_or_default(), message.value());
            let (key, value) = (String::from_utf8_lossy(&key), String::from_utf8_lossy(value));
            println!("user-service: {kind} of {key}: {value}{again}");
            done.send(()).map_err(|_| "nobody waits")
        }
    };
    let group =
        ConsumerGroup { retry_max: Duration::from_secs(1), ..ConsumerGroup::new("user-service", ["user-events"]) };
    let subscription = broker.join_group(group, handler).await?;

    for (user, kind) in [("123", "user.created"), ("124", "user.created"), ("123", "user.deleted")] {
        broker.publish(event(user, kind)?).await?;
    }
    for _ in 0..3 {
        is_done.recv().await.ok_or("the handler is gone")?;
    }
    broker.unsubscribe(subscription.id).await?;
    let stats = broker.stats();
    println!(
        "published {}, delivered {}, acknowledged {}, refused {}",
        stats.published, stats.delivered, stats.acked, stats.nacked
    );
    let Capabilities { durable, .. } = broker.capabilities();
    if durable {
        broker.delete_topic("user-events").await?;
    }
    broker.close().await;
    Ok(())
}
