//! What the tests of all clients share: messages, a driver that tries again as a producer does, and the books.

#![allow(dead_code)] // what is used depends on the features

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use corelay::base::ChannelId;
use corelay::forward::{
    Client, Done, Headers, Kind, Message, Part, Producer, ProducerOptions, Promise, SendErrorKind, runtime,
};
use corelay::protocol::encode_headers;
use corelay::toolkit::message_broker::{Broker, Consume, Consumer, Message as Received, Start};

use tokio::task::spawn_blocking;
use uuid::Uuid;

use crate::message_broker::system::futures::BoxFuture;
use crate::message_broker::system::{PATIENCE, consume, soon};
use crate::servers::{Server, unique};

/// A message that says its number and is of a size of its own.
pub fn numbered(n: u32) -> Message {
    let mut body = n.to_string().into_bytes();
    body.push(b' ');
    body.resize(8 + (n as usize * 37) % 3000, (n % 251) as u8);
    let mut message = Message::new(body);
    // made again, it is the same message
    message.id = Uuid::from_u128(u128::from(n) + 1);
    message.key = message.id;
    message.channel = ChannelId::named("orders");
    message.kind = if n.is_multiple_of(2) { Kind::Request } else { Kind::Response };
    message.time = UNIX_EPOCH + Duration::from_millis(1_700_000_000_000 + u64::from(n));
    let (text, mut block) = (n.to_string(), Vec::new());
    let entries = [("number", text.as_bytes()), ("binary", &b"\x00\xff\r\n"[..]), ("odd/name", &b"x"[..])];
    encode_headers(entries, &mut block).unwrap();
    message.headers = Headers::from_block(Bytes::from(block).slice(2..));
    message
}

pub fn number(body: &[u8]) -> u32 {
    let digits = body.split(|byte| *byte == b' ').next().unwrap();
    std::str::from_utf8(digits).unwrap().parse().unwrap()
}

/// What is known of what was sent.
#[derive(Debug, Default)]
pub struct Books {
    pub sent: Vec<u32>,
    pub delivered: BTreeSet<u32>,
    /// Whose outcome was unknown at some time: these may be there twice.
    pub in_doubt: BTreeSet<u32>,
    /// Given up, by a client that must not send them again.
    pub dropped: BTreeSet<u32>,
    pub failures: BTreeMap<&'static str, u32>,
    /// What was in doubt may come behind what followed it.
    pub reorders: bool,
}

impl Books {
    /// What arrived, against what is known; `twice` is whether what was in doubt may be there twice.
    pub fn check(&self, promise: Promise, twice: bool, arrived: &[u32]) {
        let mut count = BTreeMap::<u32, u32>::new();
        arrived.iter().for_each(|n| *count.entry(*n).or_default() += 1);
        let sent: BTreeSet<u32> = self.sent.iter().copied().collect();
        assert_eq!(sent.len(), self.sent.len());
        assert_eq!(self.delivered.len() + self.dropped.len(), sent.len(), "each has one outcome: {self:?}");
        assert!(count.keys().all(|n| sent.contains(n)), "from nowhere");
        if promise == Promise::AtLeastOnce {
            let lost: Vec<_> = self.delivered.iter().filter(|n| !count.contains_key(n)).collect();
            assert!(lost.is_empty(), "acknowledged and lost: {lost:?}; {:?}", self.failures);
        }
        let doubled: Vec<_> = count.iter().filter(|(_, times)| **times > 1).map(|(n, _)| *n).collect();
        let wrongly: Vec<_> = doubled.iter().filter(|n| !twice || !self.in_doubt.contains(n)).collect();
        assert!(wrongly.is_empty(), "twice: {wrongly:?}");
        // the first time each came, they came in order
        let mut seen = BTreeSet::new();
        let mut counts = |n: &u32| seen.insert(*n) && !(self.reorders && self.in_doubt.contains(n));
        let firsts: Vec<u32> = arrived.iter().copied().filter(|n| counts(n)).collect();
        assert!(firsts.is_sorted(), "out of order: {firsts:?}");
        println!(
            "{} sent, {} delivered, {} dropped, {} arrived, {} of them twice, {} had been in doubt; {:?}",
            sent.len(),
            self.delivered.len(),
            self.dropped.len(),
            count.len(),
            doubled.len(),
            self.in_doubt.len(),
            self.failures
        );
    }

    /// Sends these until each has an outcome, as a producer does: what is in doubt again, where the client promises
    /// to deliver at least once.
    pub async fn send(&mut self, client: &dyn Client, numbers: std::ops::Range<u32>) {
        let messages: Vec<Message> = numbers.clone().map(numbered).collect();
        let numbers: Vec<u32> = numbers.collect();
        self.sent.extend(&numbers);
        let mut next = 0;
        while next < messages.len() {
            let Done { delivered, error } = client.send_batch(&messages[next..]).await;
            assert!(next + delivered <= messages.len());
            self.delivered.extend(&numbers[next..next + delivered]);
            next += delivered;
            let Some(error) = error else {
                assert_eq!(next, messages.len(), "no error, and not all delivered");
                break;
            };
            assert!(error.kind().is_worth_another_attempt(), "{error}");
            *self.failures.entry(error.kind().as_str()).or_default() += 1;
            if error.is_in_doubt() {
                self.in_doubt.extend(&numbers[next..]);
                if client.promise() == Promise::AtMostOnce {
                    self.dropped.extend(&numbers[next..]);
                    break;
                }
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// The reading end: a group of the toolkit's interface that was there before anything was sent.
pub struct Reader {
    pub consumer: Consumer,
}

impl Reader {
    pub async fn join(broker: &Broker, topic: &str) -> Reader {
        let consume = Consume { in_flight: 256, ..consume(topic, "g") };
        Reader { consumer: soon("membership", broker.consume(consume)).await.unwrap() }
    }

    /// One that begins with the earliest message, when everything is over.
    pub async fn late(broker: &Broker, topic: &str) -> Reader {
        let consume = Consume { in_flight: 256, start: Start::Earliest, ..consume(topic, &unique("late")) };
        Reader { consumer: soon("membership", broker.consume(consume)).await.unwrap() }
    }

    pub async fn next(&mut self) -> Received {
        let delivery = soon("message", self.consumer.next()).await.unwrap();
        let message = delivery.message().clone();
        soon("acknowledgement", delivery.ack()).await.unwrap();
        message
    }

    /// Everything up to the message with this number.
    pub async fn up_to(&mut self, last: u32) -> Vec<Received> {
        let mut all = Vec::new();
        loop {
            all.push(self.next().await);
            if number(all.last().unwrap().value()) == last {
                return all;
            }
        }
    }

    pub async fn numbers_up_to(&mut self, last: u32) -> Vec<u32> {
        self.up_to(last).await.iter().map(|message| number(message.value())).collect()
    }
}

/// A message came through as it was.
pub fn check_whole(received: &Received) {
    let n = number(received.value());
    let sent = numbered(n);
    assert_eq!(received.value(), &sent.body);
    assert_eq!(received.timestamp(), sent.time);
    let header = |name: &str| received.header(name).map(|value| String::from_utf8_lossy(value).into_owned());
    assert_eq!(header("number").unwrap(), n.to_string());
    assert_eq!(received.header("binary").unwrap(), b"\x00\xff\r\n");
    assert_eq!(header("corelay-headers").unwrap(), r#"[["odd/name","x"]]"#);
    assert_eq!(header("corelay-kind").unwrap(), sent.kind.as_str());
    assert_eq!(header("corelay-channel").unwrap(), sent.channel.to_string());
    assert_eq!(header("corelay-request-id").unwrap(), received.id().to_string(), "ids of messages made by hand");
    assert_eq!((header("corelay-part"), header("corelay-end")), (None, None));
}

/// Many messages, some in parts, arrive whole and in order.
pub async fn arrives_whole_and_in_order(client: &dyn Client, reader: &mut Reader) {
    const COUNT: u32 = 300;
    soon("probe", client.probe()).await.unwrap();
    let mut books = Books::default();
    for first in (0..COUNT).step_by(50) {
        soon("batch", books.send(client, first..first + 50)).await;
    }
    assert_eq!((books.delivered.len(), books.failures.len()), (COUNT as usize, 0));
    soon("message", client.send(&numbered(COUNT))).await.unwrap();
    let received = reader.up_to(COUNT).await;
    received.iter().for_each(check_whole);
    let numbers: Vec<u32> = received.iter().map(|message| number(message.value())).collect();
    assert_eq!(numbers, (0..=COUNT).collect::<Vec<_>>());

    assert!(client.takes().parts);
    let mut part = numbered(COUNT + 1);
    let parts = [
        (Part::Chunk { sequence: 0, last: false }, "first "),
        (Part::Chunk { sequence: 1, last: true }, "second"),
        (Part::Aborted { sequence: 2 }, ""),
    ];
    let parts: Vec<Message> = parts
        .map(|(which, body)| {
            (part.part, part.body) = (which, Bytes::from_static(body.as_bytes()));
            part.clone()
        })
        .into();
    let done = soon("parts", client.send_batch(&parts)).await;
    assert_eq!((done.delivered, done.error), (3, None));
    let marks = [("0", None, "first "), ("1", Some("true"), "second"), ("2", Some("aborted"), "")];
    for (sequence, end, body) in marks {
        let received = reader.next().await;
        let header = |name: &str| received.header(name).map(|value| std::str::from_utf8(value).unwrap());
        assert_eq!((header("corelay-part"), header("corelay-end")), (Some(sequence), end));
        assert_eq!(
            (&received.value()[..], header("corelay-request-id").unwrap()),
            (body.as_bytes(), &*part.id.to_string())
        );
    }
    let nothing = client.send_batch(&[]).await;
    assert_eq!((nothing.delivered, nothing.error), (0, None));
}

/// Nobody there is an error that says so, soon, and leaves no doubt.
pub async fn nobody_there_is_said(client: &dyn Client) {
    for _ in 0..2 {
        let begin = std::time::Instant::now();
        let error = soon("answer", client.send(&numbered(1))).await.unwrap_err();
        assert_eq!((error.kind(), error.is_in_doubt()), (SendErrorKind::Connect, false), "{error}");
        let error = soon("answer", client.probe()).await.unwrap_err();
        assert_eq!(error.kind(), SendErrorKind::Connect, "{error}");
        assert!(begin.elapsed() < PATIENCE / 2);
        assert!(!error.to_string().contains("secret"), "{error}");
    }
}

/// A server that doesn't answer is given up after the timeout, and works again when it answers.
pub async fn slowness_is_bounded(client: &dyn Client, freeze: impl FnOnce(), thaw: impl FnOnce()) -> Books {
    let mut books = Books::default();
    soon("batch", books.send(client, 0..5)).await;
    freeze();
    let messages: Vec<Message> = (5..10).map(numbered).collect();
    let done = soon("answer", client.send_batch(&messages)).await;
    let error = done.error.expect("nobody answers");
    assert_eq!((done.delivered, error.kind(), error.is_in_doubt()), (0, SendErrorKind::Timeout, true), "{error}");
    books.in_doubt.extend(5..10);
    thaw();
    soon("batch", books.send(client, 5..20)).await;
    assert_eq!(books.delivered.len(), 20);
    books
}

/// Sends while the server comes and goes. `outage` is told so many times to take it down and bring it back.
pub async fn survives<F: Future<Output = ()>>(
    client: &dyn Client,
    rounds: u32,
    mut outage: impl FnMut() -> F,
) -> Books {
    const EACH: u32 = 200;
    let mut books = Books::default();
    let mut next = 0;
    let begin = SystemTime::now();
    for round in 0..=rounds {
        let mut down = std::pin::pin!(async {
            if round > 0 {
                outage().await;
            }
        });
        let (mut is_back, end) = (false, next + EACH);
        // at least so many, and for as long as the outage lasts
        while next < end || !is_back {
            let batch = next..next + 10;
            next += 10;
            {
                let mut sending = std::pin::pin!(books.send(client, batch));
                loop {
                    tokio::select! {
                        () = &mut sending => break,
                        () = &mut down, if !is_back => is_back = true,
                    }
                }
            }
            assert!(begin.elapsed().unwrap() < PATIENCE * 3, "{books:?}");
        }
    }
    // one that ends it
    soon("batch", books.send(client, next..next + 1)).await;
    books
}

/// The same behind a producer, on the runtime that producers live on: each message has one outcome in its books.
pub async fn survives_behind_a_producer<F: Future<Output = ()>>(
    client: Arc<dyn Client>,
    mut outage: impl FnMut() -> F,
) -> Books {
    const FIRST: u32 = 10_000;
    const HALF: u32 = 300;
    let options = ProducerOptions {
        retries: 1000,
        max_age: PATIENCE,
        backoff_max: Duration::from_millis(500),
        ..ProducerOptions::default()
    };
    let (producer, runner) = Producer::new("target", client, options).unwrap();
    let thread = std::thread::spawn(move || runtime::run(async move { runner.run().await }));
    let mut books = Books::default();
    for half in 0..2 {
        for n in FIRST + half * HALF..FIRST + (half + 1) * HALF {
            producer.offer(numbered(n)).unwrap();
            books.sent.push(n);
        }
        if half == 0 {
            outage().await;
        }
    }
    let report = soon("end", producer.drain(PATIENCE / 2)).await;
    spawn_blocking(move || thread.join()).await.unwrap().unwrap().unwrap();
    let counters = producer.snapshot().counters;
    assert_eq!((counters.accepted, report.left), (u64::from(2 * HALF), 0), "{counters:?}");
    assert_eq!(counters.forwarded + counters.dropped.total() + counters.dead_lettered, counters.accepted);
    assert_eq!(counters.forwarded, counters.accepted, "{counters:?}");
    println!("{} forwarded, {} sent again", counters.forwarded, counters.retried);
    books.delivered = books.sent.iter().copied().collect();
    // what was is the producer's secret
    books.in_doubt = books.delivered.clone();
    books
}

/// An outage: the server is killed and started again on its data.
pub fn killing(server: Server, is_up: fn(&Server) -> bool) -> impl FnMut() -> BoxFuture<()> {
    let server = Arc::new(Mutex::new(server));
    move || {
        let server = server.clone();
        let restart = move || {
            let mut server = server.lock().unwrap();
            server.kill();
            server.restart(is_up);
        };
        Box::pin(async move { spawn_blocking(restart).await.unwrap() })
    }
}

/// The number of the last message.
pub fn last(books: &Books) -> u32 {
    *books.sent.last().unwrap()
}
