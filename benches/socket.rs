//! A broker in this process, its clients on loopback sockets: what a request costs from end to end, on either
//! reactor. The broker, the consumer and the provider are a thread each, all on the same few CPUs.

mod common;

use std::time::Duration;

use common::frames::CHANNEL;
use common::peers;
use corelay::Server;
use corelay::broker::{Cores, Io, ServerOptions};
use corelay::client::{Consumer, Provider};
use corelay::protocol::Flags;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tokio::task::JoinSet;

const BODY: usize = 64;
const LOADS: [u32; 2] = [1, 64];

/// `None`, said aloud, where the machine has no io_uring.
fn broker(io: Io) -> Option<Server> {
    let started = Server::start(ServerOptions {
        listen: vec!["127.0.0.1:0".parse().expect("an address")],
        cores: Cores::Count(1),
        pin: false,
        io,
        buffers: 64,
        ..ServerOptions::default()
    });
    started.inspect_err(|error| println!("SKIPPED on {io:?}: {error}")).ok()
}

fn blocking(c: &mut Criterion) {
    let mut group = c.benchmark_group("socket");
    for io in [Io::Uring, Io::Epoll] {
        for in_flight in LOADS {
            let Some(server) = broker(io) else { continue };
            let provider = peers::provider(server.addr(), 1024, BODY);
            group.throughput(Throughput::Elements(in_flight.into()));
            group.bench_function(format!("{io:?}, {in_flight} in flight"), |b| {
                let mut consumer = peers::Consumer::connect(server.addr(), in_flight, BODY, Flags::NONE);
                b.iter(|| consumer.round());
            });
            drop(server);
            provider.join().expect("the provider does not panic");
        }
    }
    group.finish();
}

fn tokio_client(c: &mut Criterion) {
    let mut group = c.benchmark_group("socket");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a runtime");
    for io in [Io::Uring, Io::Epoll] {
        let Some(server) = broker(io) else { continue };
        let addr = server.addr().to_string();
        let (provider, consumer) = runtime.block_on(async {
            let provider = Provider::connect(addr.as_str(), CHANNEL, 1024).await.expect("the broker accepts");
            (provider, Consumer::connect(addr.as_str(), CHANNEL).await.expect("the broker accepts"))
        });
        runtime.spawn(async move {
            while let Some(mut request) = provider.receive().await {
                // fails at the bench's end only
                if let Ok(body) = request.bytes().await {
                    let _ = request.respond(body).await;
                }
            }
        });
        for in_flight in LOADS {
            group.throughput(Throughput::Elements(in_flight.into()));
            group.bench_function(format!("{io:?}, {in_flight} in flight, tokio client"), |b| {
                b.iter(|| runtime.block_on(tokio_round(&consumer, in_flight)));
            });
        }
    }
    group.finish();
}

async fn tokio_round(consumer: &Consumer, in_flight: u32) {
    let mut requests = JoinSet::new();
    for _ in 0..in_flight {
        let consumer = consumer.clone();
        requests.spawn(async move {
            let answer = consumer.send(vec![1; BODY], Duration::from_secs(30)).await.expect("an answer");
            answer.bytes().await.expect("all of it")
        });
    }
    for answer in requests.join_all().await {
        assert_eq!(answer.len(), BODY);
    }
}

criterion_group!(benches, blocking, tokio_client);
criterion_main!(benches);
