//! The embedded message broker: publish, take, acknowledge. One group; with and without keys; the handles' counting
//! included.

use std::time::{Duration, Instant};

use corelay::toolkit::message_broker::{Broker, Consume, Memory, Message, TopicOptions};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tokio::runtime::Builder;

/// Messages on their way at a time: far below the group's capacity, so that nobody waits for room.
const BATCH: u64 = 256;

async fn in_turn(broker: &Broker, keys: u64, iterations: u64) -> Duration {
    let consume = Consume { in_flight: BATCH as usize, ..Consume::new("t", "g") };
    let mut member = broker.consume(consume).await.unwrap();
    let message = |n: u64| {
        let builder =
            Message::builder("t").value(&b"sixty-four bytes of a message that nobody is ever going to read.."[..64]);
        if keys > 0 { builder.key((n % keys).to_be_bytes().to_vec()).build() } else { builder.build() }.unwrap()
    };
    let begin = Instant::now();
    let mut left = iterations;
    while left > 0 {
        let batch = left.min(BATCH);
        for n in 0..batch {
            broker.publish(message(n)).await.unwrap();
        }
        for _ in 0..batch {
            member.next().await.unwrap().ack().await.unwrap();
        }
        left -= batch;
    }
    begin.elapsed()
}

/// A publisher and a consumer, each a task of its own.
async fn side_by_side(broker: &Broker, iterations: u64) -> Duration {
    let consume = Consume { in_flight: BATCH as usize, ..Consume::new("t", "g") };
    let mut member = broker.consume(consume).await.unwrap();
    let publisher = broker.clone();
    let begin = Instant::now();
    let publishing = tokio::spawn(async move {
        for _ in 0..iterations {
            publisher.publish(Message::builder("t").value("x").build().unwrap()).await.unwrap();
        }
    });
    for _ in 0..iterations {
        member.next().await.unwrap().ack().await.unwrap();
    }
    publishing.await.unwrap();
    begin.elapsed()
}

fn memory(c: &mut Criterion) {
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let broker = Broker::new(Memory::default());
    runtime.block_on(broker.create_topic("t", TopicOptions::default())).unwrap();
    let mut group = c.benchmark_group("memory broker, publish, take and acknowledge");
    group.throughput(Throughput::Elements(1));
    group.bench_function("without keys", |b| b.iter_custom(|n| runtime.block_on(in_turn(&broker, 0, n))));
    group.bench_function("of 16 keys", |b| b.iter_custom(|n| runtime.block_on(in_turn(&broker, 16, n))));
    group
        .bench_function("publisher beside consumer", |b| b.iter_custom(|n| runtime.block_on(side_by_side(&broker, n))));
    group.finish();
}

criterion_group!(benches, memory);
criterion_main!(benches);
