//! What a broker receives, forwarded: from a client's request to the target, on both reactors, one core and two.

mod beside;
mod parts;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use corelay::Server;
use corelay::base::ChannelId;
use corelay::broker::{
    Cores, ForwardOptions, Inspector, Io, NamedChannel, ProducerOptions, ServerBuilder, ServerOptions, What,
};
use corelay::client::{Body, Consumer, ErrorKind, Provider, Request};
use corelay::forward::{
    BatchFuture, Client, Done, DropReason, Kind, Message, Part, SendFuture, Takes, WhenFull, envelope,
};
use tokio::sync::Semaphore;

const SOON: Duration = Duration::from_secs(20);

/// A target in this process, that takes as many messages as it is let.
#[derive(Clone)]
struct Gate {
    permits: Arc<Semaphore>,
    got: Arc<Mutex<Vec<Message>>>,
}

impl Gate {
    fn open() -> Gate {
        Gate { permits: Arc::new(Semaphore::new(Semaphore::MAX_PERMITS)), got: Arc::default() }
    }

    fn shut() -> Gate {
        Gate { permits: Arc::new(Semaphore::new(0)), got: Arc::default() }
    }

    fn got(&self) -> Vec<Message> {
        self.got.lock().unwrap().clone()
    }
}

impl Client for Gate {
    fn protocol_name(&self) -> &str {
        "gate"
    }
    fn address(&self) -> &str {
        "here"
    }
    fn takes(&self) -> Takes {
        Takes { max_body: None, parts: true }
    }
    fn send<'a>(&'a self, message: &'a Message) -> SendFuture<'a> {
        Box::pin(async move { self.send_batch(std::slice::from_ref(message)).await.into_result() })
    }
    fn send_batch<'a>(&'a self, messages: &'a [Message]) -> BatchFuture<'a> {
        Box::pin(async move {
            for message in messages {
                self.permits.acquire().await.unwrap().forget();
                self.got.lock().unwrap().push(message.clone());
            }
            Done { delivered: messages.len(), error: None }
        })
    }
}

fn options(io: Io, cores: usize) -> ServerOptions {
    let listen = vec!["127.0.0.1:0".parse().unwrap()];
    ServerOptions { listen, io, cores: Cores::Count(cores), pin: false, ..ServerOptions::default() }
}

/// On each reactor, and on one core and two.
fn everywhere(test: impl AsyncFn(ServerOptions)) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let start = |io, cores| Ok(options(io, cores));
    crate::everywhere::everywhere(start, |options| runtime.block_on(test(options)));
}

fn to(id: &str) -> ProducerOptions {
    ProducerOptions { what: What::Both, ..ProducerOptions::new(id, "gate://here") }
}

fn serve(options: ServerOptions, producer: ProducerOptions, gate: &Gate) -> Server {
    let gate = gate.clone();
    let build: ServerBuilder = Server::builder().options(options).producer(producer, move |_| Arc::new(gate.clone()));
    build.start().unwrap()
}

async fn echo(addr: &str, channel: &str) -> Provider {
    let provider = Provider::connect(addr, channel, 64).await.unwrap();
    let serving = provider.clone();
    tokio::spawn(async move {
        let answer = async |mut request: Request| {
            let body = request.bytes().await?;
            request.respond(body).await
        };
        serving.serve(64, move |request: Request| answer(request)).await;
    });
    provider
}

/// Counts of one producer over all cores: accepted, forwarded, dropped for this reason, dropped in all, waiting.
fn counts(inspector: &Inspector, reason: DropReason) -> [u64; 5] {
    let mut sum = [0; 5];
    for each in inspector.producers() {
        let counters = each.producer.snapshot().counters;
        let dropped = counters.dropped.total();
        assert_eq!(
            counters.accepted,
            counters.forwarded + dropped + counters.dead_lettered + counters.queue_messages,
            "the books of {:?}",
            each.producer
        );
        let one =
            [counters.accepted, counters.forwarded, counters.dropped.get(reason), dropped, counters.queue_messages];
        sum.iter_mut().zip(one).for_each(|(sum, one)| *sum += one);
    }
    sum
}

async fn eventually(what: &str, is_so: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < SOON, "not within {SOON:?}: {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Whole messages, by request id and kind; parts are put together, and must be in order.
fn whole(messages: &[Message]) -> BTreeMap<(u128, bool), Vec<u8>> {
    let mut open: BTreeMap<u128, (u32, Vec<u8>)> = BTreeMap::new();
    let mut done = BTreeMap::new();
    for message in messages {
        let name = (message.id.as_u128(), message.kind == Kind::Response);
        let body = match message.part {
            Part::Whole => message.body.to_vec(),
            Part::Chunk { sequence, last } => {
                let (next, body) = open.entry(message.key.as_u128()).or_default();
                assert_eq!(sequence, *next, "a part out of turn");
                *next += 1;
                body.extend_from_slice(&message.body);
                if !last {
                    continue;
                }
                open.remove(&message.key.as_u128()).unwrap().1
            }
            Part::Aborted { .. } => panic!("aborted: {message:?}"),
        };
        assert!(done.insert(name, body).is_none(), "{name:?} came twice");
    }
    assert!(open.is_empty(), "parts without an end");
    done
}

#[test]
fn requests_and_answers_arrive_whole_once_and_in_order() {
    everywhere(async |options| {
        // slow threads are to lose nothing here
        let roomy = 64 << 20;
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("out.jsonl");
        let url = format!("file://{}?framing=lines&envelope=json", file.display());
        let to_file = ProducerOptions { what: What::Both, queue_bytes: roomy, ..ProducerOptions::new("file", url) };
        let forward = ForwardOptions { max_message: 100_000, handover_bytes: roomy, ..ForwardOptions::default() };
        let options = ServerOptions { producers: vec![to_file], forward, ..options };
        let gate = Gate::open();
        let server = serve(options, ProducerOptions { queue_bytes: roomy, ..to("gate") }, &gate);
        let addr = server.addr().to_string();
        let inspector = server.inspector();
        let mut sent = BTreeMap::new();
        let mut order = Vec::new();
        for channel in ["a", "b", "c"] {
            let _provider = echo(&addr, channel).await;
            let consumer = Consumer::connect(addr.as_str(), channel).await.unwrap();
            for n in 0..40_usize {
                // some are longer than a window, some than a message may be
                let len = [0, 1, 70, 3000, 90_000, 100_000, 100_001, 700_000][n % 8];
                let body: Vec<u8> = (0..len).map(|at| (at * 7 + n) as u8).collect();
                let id = uuid::Uuid::new_v4();
                let request = consumer.request(body.clone()).request_id(id).header("n", n.to_string()).timeout(SOON);
                assert_eq!(request.send().await.unwrap().bytes().await.unwrap(), body);
                sent.insert((id.as_u128(), false), body.clone());
                sent.insert((id.as_u128(), true), body);
                order.push((ChannelId::named(channel), id));
            }
        }
        tokio::task::spawn_blocking(|| server.stop().unwrap()).await.unwrap();
        let got = gate.got();
        assert!(whole(&got) == sent, "what the program got");
        // in order on each channel: on each core, that is
        for channel in ["a", "b", "c"].map(ChannelId::named) {
            let mut requests: Vec<_> = got.iter().filter(|m| m.channel == channel && m.kind == Kind::Request).collect();
            requests.dedup_by_key(|message| message.key);
            let ids: Vec<_> = requests.iter().map(|message| (channel, message.id)).collect();
            let expected: Vec<_> = order.iter().filter(|(at, _)| *at == channel).copied().collect();
            assert_eq!(ids, expected);
            assert_eq!(requests[1].headers.get("n"), Some(&b"1"[..]));
        }
        let text = std::fs::read_to_string(&file).unwrap();
        let lines: Vec<_> = text.lines().map(|line| envelope::decode(line.as_bytes()).unwrap()).collect();
        assert!(whole(&lines) == sent, "what stands in the file");
        assert_eq!(counts(&inspector, DropReason::QueueFull), [480, 480, 0, 0, 0]);
    });
}

#[test]
fn one_way_requests_need_no_provider() {
    everywhere(async |options| {
        let gate = Gate::open();
        let only_here = vec!["here".parse::<NamedChannel>().unwrap()];
        let server = serve(options, ProducerOptions { channels: only_here, ..to("gate") }, &gate);
        let addr = server.addr().to_string();
        let here = Consumer::connect(addr.as_str(), "here").await.unwrap();
        here.publish("hello", SOON).await.unwrap();
        let error = here.send("anybody?", SOON).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::NoProvider);
        let there = Consumer::connect(addr.as_str(), "there").await.unwrap();
        assert_eq!(there.publish("hello", SOON).await.unwrap_err().kind, ErrorKind::NoProvider);
        tokio::task::spawn_blocking(|| server.stop().unwrap()).await.unwrap();
        let bodies: Vec<_> = gate.got().iter().map(|message| message.body.clone()).collect();
        assert_eq!(bodies, ["hello"]);
    });
}

#[test]
fn one_that_wants_answers_gets_nothing_else() {
    everywhere(async |options| {
        let gate = Gate::open();
        let server = serve(options, ProducerOptions { what: What::Response, ..to("gate") }, &gate);
        let addr = server.addr().to_string();
        let provider = Provider::connect(addr.as_str(), "ch", 1).await.unwrap();
        let consumer = Consumer::connect(addr.as_str(), "ch").await.unwrap();
        for n in 0..3 {
            let asked = consumer.send(format!("request {n}"), SOON);
            let answer = async {
                let request = provider.receive().await.unwrap();
                request.respond(format!("answer {n}")).await.unwrap();
            };
            let (answered, ()) = tokio::join!(asked, answer);
            answered.unwrap().bytes().await.unwrap();
        }
        tokio::task::spawn_blocking(|| server.stop().unwrap()).await.unwrap();
        let got: Vec<_> = gate.got().iter().map(|message| (message.kind, message.body.clone())).collect();
        assert_eq!(got, ["answer 0", "answer 1", "answer 2"].map(|body| (Kind::Response, body.into())));
    });
}

#[test]
fn a_request_that_never_ended_is_dropped_and_counted() {
    everywhere(async |options| {
        let gate = Gate::open();
        let server = serve(options, to("gate"), &gate);
        let addr = server.addr().to_string();
        let inspector = server.inspector();
        let provider = Provider::connect(addr.as_str(), "ch", 4).await.unwrap();
        let consumer = Consumer::connect(addr.as_str(), "ch").await.unwrap();
        let (mut writer, body) = tokio::io::duplex(1000);
        let sending = tokio::spawn({
            let consumer = consumer.clone();
            async move { consumer.send(Body::reader(body), SOON).await.map(|_| ()) }
        });
        tokio::io::AsyncWriteExt::write_all(&mut writer, b"half").await.unwrap();
        let mut request = provider.receive().await.unwrap();
        assert_eq!(request.chunk().await.unwrap().unwrap(), "half");
        sending.abort();
        consumer.close().await;
        drop(request);
        eventually("the abort to be counted", || counts(&inspector, DropReason::Aborted)[2] == 1).await;
        tokio::task::spawn_blocking(move || drop(server)).await.unwrap();
        assert!(gate.got().is_empty());
    });
}

#[test]
fn a_target_that_takes_nothing_holds_up_nobody() {
    everywhere(async |options| {
        let gate = Gate::shut();
        let few = ProducerOptions { queue_bytes: 1_100_000, ..to("gate") };
        let forward = ForwardOptions { drain_timeout: Duration::from_millis(50), ..ForwardOptions::default() };
        let server = serve(ServerOptions { forward, ..options }, few, &gate);
        let addr = server.addr().to_string();
        let inspector = server.inspector();
        let _provider = echo(&addr, "ch").await;
        let consumer = Consumer::connect(addr.as_str(), "ch").await.unwrap();
        for _ in 0..200 {
            let response = consumer.send(vec![7; 20_000], SOON).await.unwrap();
            assert_eq!(response.bytes().await.unwrap().len(), 20_000);
        }
        eventually("every message to be accounted for", || counts(&inspector, DropReason::QueueFull)[0] == 400).await;
        let [accepted, forwarded, full, dropped, waiting] = counts(&inspector, DropReason::QueueFull);
        assert_eq!((accepted, forwarded, dropped), (400, 0, full));
        // 1,100,000 bytes hold 54 of them
        assert_eq!(waiting, 54);
        tokio::task::spawn_blocking(|| server.stop().unwrap()).await.unwrap();
        // what was being sent is in doubt, the rest was left
        let [accepted, forwarded, left, dropped, waiting] = counts(&inspector, DropReason::Shutdown);
        let in_doubt = counts(&inspector, DropReason::InDoubt)[2];
        assert_eq!((accepted, forwarded, left + in_doubt, dropped, waiting), (400, 0, 54, 400, 0));
    });
}

#[test]
fn with_block_the_requester_waits_and_nothing_is_lost() {
    everywhere(async |options| {
        let gate = Gate::shut();
        let block = ProducerOptions { queue_bytes: 1_100_000, when_full: WhenFull::Block, ..to("gate") };
        let forward = ForwardOptions { handover_bytes: 200_000, ..ForwardOptions::default() };
        // what a turn takes in comes on top: 256 KiB
        let server = serve(ServerOptions { forward, buffers: 16, buffer_size: 16 << 10, ..options }, block, &gate);
        let addr = server.addr().to_string();
        let inspector = server.inspector();
        let consumer = Consumer::connect(addr.as_str(), "ch").await.unwrap();
        let mut all = tokio::task::JoinSet::new();
        for n in 0..400_u32 {
            let consumer = consumer.clone();
            let body = [&n.to_be_bytes()[..], &[0; 10_000]].concat();
            all.spawn(async move { consumer.publish(body, SOON).await });
        }
        eventually("the producer's queue to be full", || {
            inspector.producers().iter().any(|each| each.producer.is_over())
        })
        .await;
        // those that were let through before it was known are answered, and no more, however long the broker goes on
        let mut answered = 0;
        for _ in 0..2 {
            let mut before = usize::MAX;
            while std::mem::replace(&mut before, answered) != answered {
                consumer.ping().await.unwrap();
                while let Some(done) = all.try_join_next() {
                    done.unwrap().unwrap();
                    answered += 1;
                }
            }
        }
        gate.permits.add_permits(Semaphore::MAX_PERMITS);
        while let Some(done) = all.join_next().await {
            done.unwrap().unwrap();
        }
        assert!(answered < 250, "{answered} of 400 were answered, and there is room for 130 and what a turn takes in");
        tokio::task::spawn_blocking(|| server.stop().unwrap()).await.unwrap();
        assert_eq!(whole(&gate.got()).len(), 400);
        assert_eq!(counts(&inspector, DropReason::QueueFull), [400, 400, 0, 0, 0]);
    });
}

#[test]
fn messages_are_processed_here_and_a_panic_is_counted() {
    everywhere(async |options| {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let server = Server::builder()
            .options(options)
            .on_message({
                let seen = seen.clone();
                move |message| {
                    assert_ne!(message.body, "bad", "on purpose");
                    seen.lock().unwrap().push(message.body.clone());
                }
            })
            .start()
            .unwrap();
        let addr = server.addr().to_string();
        let inspector = server.inspector();
        let consumer = Consumer::connect(addr.as_str(), "ch").await.unwrap();
        for body in ["one", "bad", "two"] {
            consumer.publish(body, SOON).await.unwrap();
        }
        tokio::task::spawn_blocking(|| server.stop().unwrap()).await.unwrap();
        assert_eq!(*seen.lock().unwrap(), ["one", "two"]);
        assert_eq!(counts(&inspector, DropReason::Rejected), [3, 2, 1, 1, 0]);
    });
}

#[test]
fn what_can_not_be_delivered_at_the_end_is_in_the_dead_letter_file() {
    everywhere(async |options| {
        let dir = tempfile::tempdir().unwrap();
        let letters = dir.path().join("dead.jsonl");
        // nobody listens there: the port is bound, and not listened on
        let bound = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        bound.bind(&"127.0.0.1:0".parse::<std::net::SocketAddr>().unwrap().into()).unwrap();
        let port = bound.local_addr().unwrap().as_socket().unwrap().port();
        let down = ProducerOptions {
            dead_letter: Some(letters.clone()),
            ..ProducerOptions::new("down", format!("tcp://127.0.0.1:{port}"))
        };
        let forward = ForwardOptions { drain_timeout: Duration::from_millis(50), ..ForwardOptions::default() };
        let server = Server::start(ServerOptions { producers: vec![down], forward, ..options }).unwrap();
        let addr = server.addr().to_string();
        let inspector = server.inspector();
        let consumer = Consumer::connect(addr.as_str(), "ch").await.unwrap();
        for n in 0..50 {
            consumer.publish(n.to_string(), SOON).await.unwrap();
        }
        tokio::task::spawn_blocking(|| server.stop().unwrap()).await.unwrap();
        let text = std::fs::read_to_string(&letters).unwrap();
        let letters: Vec<_> = text.lines().map(|line| envelope::decode(line.as_bytes()).unwrap().body).collect();
        assert_eq!(letters, (0..50).map(|n: i32| n.to_string()).collect::<Vec<_>>());
        assert_eq!(counts(&inspector, DropReason::Shutdown), [50, 0, 0, 0, 0]);
    });
}

#[test]
fn a_producer_that_can_not_be_made_stops_the_start() {
    let refusal = |url: &str| {
        let producers = vec![ProducerOptions::new("bad", url)];
        let options = ServerOptions { producers, ..options(Io::Epoll, 1) };
        Server::start(options).err().unwrap().to_string()
    };
    assert!(refusal("gopher://127.0.0.1:70").starts_with("producer bad: "), "{}", refusal("gopher://127.0.0.1:70"));
    let refused = refusal("http://me:secret@127.0.0.1:1/?bogus=1");
    assert!(refused.contains("bogus") && !refused.contains("secret"), "{refused}");
    assert_eq!(refusal(""), "producer.bad.url = nothing: expected where to forward to, such as tcp://127.0.0.1:9000");
}
