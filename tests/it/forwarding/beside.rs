//! What trouble with one producer does to the rest: nothing.

use std::io::Write;
use std::net::{TcpListener, TcpStream};

use corelay::protocol::{Flags, FrameType, HEADER_LEN, Header};
use corelay::telemetry::view::{Producer as Shown, Producerz};
use corelay::telemetry::{Admin, AdminOptions};

use super::*;
use crate::cli::run::{assert_code, corelay, finish, text};
use crate::wire::Wire;

/// What a core has counted: requests, those answered, and all that ended otherwise.
fn requests(inspector: &Inspector) -> [u64; 3] {
    let mut sum = [0; 3];
    for core in 0..inspector.cores() {
        let (tell, told) = std::sync::mpsc::channel();
        inspector.ask(core, move |view| tell.send(view.figures().core.counters).unwrap());
        let counters = told.recv().unwrap();
        let failed = counters.failed.iter().sum::<u64>() + counters.consumer_lost + counters.shed;
        sum.iter_mut().zip([counters.requests, counters.answered, failed]).for_each(|(sum, n)| *sum += n);
    }
    sum
}

#[test]
fn others_and_the_requests_notice_nothing_of_one_that_is_down() {
    const COUNT: usize = 300;
    everywhere(async |options| {
        // one that is refused, one that is accepted and read by nobody, and one whose disk is not there
        let refusing = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let hole = TcpListener::bind("127.0.0.1:0").unwrap();
        let small = |id: &str, url: String| ProducerOptions {
            queue_bytes: 1_100_000,
            retries: 1_000_000,
            max_age: Duration::from_secs(3600),
            ..ProducerOptions::new(id, url)
        };
        let producers = vec![
            small("down", format!("tcp://{refusing}")),
            small("black", format!("tcp://{}?send_timeout=1h", hole.local_addr().unwrap())),
            small("gone", "file:///nowhere/at/all".into()),
        ];
        let forward = ForwardOptions {
            // the thread that forwards may be slow
            handover_bytes: 64 << 20,
            drain_timeout: Duration::from_millis(50),
            ..ForwardOptions::default()
        };
        let gate = Gate::open();
        let good = ProducerOptions { queue_bytes: 64 << 20, what: What::Request, ..to("good") };
        let server = serve(ServerOptions { producers, forward, ..options }, good, &gate);
        let (addr, inspector) = (server.addr().to_string(), server.inspector());
        let _provider = echo(&addr, "ch").await;
        let consumer = Consumer::connect(addr.as_str(), "ch").await.unwrap();
        for n in 0..COUNT {
            let body = format!("{n} {}", "x".repeat(20_000));
            let answer = consumer.send(body.clone(), SOON).await.unwrap().bytes().await.unwrap();
            assert!(answer == body, "{n}");
        }
        assert_eq!(requests(&inspector), [COUNT as u64, COUNT as u64, 0]);
        let of = |id: &str| {
            let all = inspector.producers().iter().filter(|each| each.producer.id() == id);
            all.map(|each| each.producer.snapshot().counters).collect::<Vec<_>>()
        };
        let sum = |id: &str, of_one: fn(&corelay::forward::Counters) -> u64| of(id).iter().map(of_one).sum::<u64>();
        eventually("each to have all of them", || {
            ["down", "black", "gone", "good"].iter().all(|id| sum(id, |counters| counters.accepted) == COUNT as u64)
        })
        .await;
        eventually("all of them where nothing is wrong", || sum("good", |counters| counters.forwarded) == COUNT as u64)
            .await;
        assert_eq!(sum("good", |counters| counters.dropped.total() + counters.attempts_failed), 0);
        let got = gate.got();
        assert!(got.iter().enumerate().all(|(n, message)| message.body.starts_with(format!("{n} ").as_bytes())));
        for id in ["down", "black", "gone"] {
            let full = sum(id, |counters| counters.dropped.get(DropReason::QueueFull));
            let [done, waiting] = [sum(id, |counters| counters.forwarded), sum(id, |counters| counters.queue_messages)];
            assert_eq!(full + done + waiting, COUNT as u64, "{id}: {:?}", of(id));
            // the kernel takes some of what nobody reads
            assert!(id == "black" || full > 0 && waiting > 0 && done == 0, "{id}: {:?}", of(id));
        }
        tokio::task::spawn_blocking(|| server.stop().unwrap()).await.unwrap();
    });
}

/// One page of the admin endpoint.
fn get(addr: &str, path: &str) -> String {
    let mut socket = TcpStream::connect(addr).unwrap();
    socket.write_all(format!("GET {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n").as_bytes()).unwrap();
    let mut answer = String::new();
    std::io::Read::read_to_string(&mut socket, &mut answer).unwrap();
    answer.split_once("\r\n\r\n").unwrap().1.to_owned()
}

#[test]
fn what_finds_no_room_on_its_way_is_counted_and_shown() {
    const COUNT: u64 = 20;
    for io in [Io::Uring, Io::Epoll] {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str| dir.path().join(name);
        let producers =
            ["one", "two"].map(|id| ProducerOptions::new(id, format!("file://{}", file(id).display()))).to_vec();
        // whatever comes while something is on its way is too much
        let forward = ForwardOptions { handover_bytes: 1, ..ForwardOptions::default() };
        let server = Server::start(ServerOptions { producers, forward, ..options(io, 1) }).unwrap();
        let admin_options = AdminOptions { listen: Some("127.0.0.1:0".parse().unwrap()), ..AdminOptions::default() };
        let admin = Admin::start(&admin_options, server.inspector()).unwrap().unwrap();
        let admin_addr = admin.addr().to_string();

        let mut provider = Wire::provider(server.addr(), "ch", COUNT as u32);
        let mut consumer = Wire::consumer(server.addr(), "ch");
        // in one write, so that the core reads them in one turn, and hands over when it is done
        let mut all = Vec::new();
        for n in 0..COUNT as u32 {
            let payload = [&[n as u8; 16][..], format!("body {n}").as_bytes()].concat();
            let header = Header::new(FrameType::Request, n + 1).flags(Flags::END).length(payload.len() as u32);
            all.extend_from_slice(&header.encode()[..HEADER_LEN]);
            all.extend_from_slice(&payload);
        }
        consumer.write(&all);
        for _ in 0..COUNT {
            let request = provider.expect(FrameType::Request);
            provider.respond(request.stream, b"answer");
        }
        for _ in 0..COUNT {
            assert_eq!(consumer.next_past_credit().kind, FrameType::Response);
        }
        assert_eq!(requests(&server.inspector()), [COUNT, COUNT, 0]);

        let shown = || serde_json::from_str::<Producerz>(&get(&admin_addr, "/producerz")).unwrap().producers;
        let known = |producer: &Shown| producer.counts.forwarded + producer.counts.dropped["handover"];
        crate::cli::run::eventually("an end for each", || shown().iter().all(|producer| known(producer) == COUNT));
        for producer in shown() {
            let (id, counts) = (&producer.id, &producer.counts);
            let dropped = counts.dropped["handover"];
            assert!(dropped > 0 && counts.forwarded > 0, "{io:?} {id}: {counts:?}");
            assert_eq!((counts.accepted, counts.dropped_total()), (counts.forwarded, dropped), "{id}: {counts:?}");
            let lines = std::fs::read_to_string(file(id)).unwrap();
            assert_eq!(lines.lines().count() as u64, counts.forwarded);
            assert!(lines.starts_with("body 0\n"), "{lines}");
            let metric =
                format!("corelay_producer_dropped_total{{producer=\"{id}\",core=\"0\",reason=\"handover\"}} {dropped}");
            let page = get(&admin_addr, "/metrics");
            assert!(page.lines().any(|line| line == metric), "{metric} in\n{page}");
            let output = finish(&mut corelay(&["producers", "--admin", &admin_addr]), b"");
            assert_code(&output, 0);
            let said = text(&output.stdout);
            assert!(said.contains(&format!("{id}: dropped {dropped} handover\n")), "{said}");
        }
        server.stop().unwrap();
    }
}
