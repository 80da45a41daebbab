//! TCP, TLS and Unix streams.

use corelay::forward::{ClientFactory, WhenFull};

use super::target::{DRAIN, Target, free_port, len32, read, reader};
use super::*;

#[test]
fn messages_arrive_whole_and_in_order() {
    for io in runtimes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("target.sock");
        for (url, target) in [("tcp://", Target::tcp(reader)), ("unix://", Target::unix(&path, reader))] {
            let pool = ProducerPool::on(io);
            let producer = producer(&pool, &format!("{url}{}", target.address));
            let sent = bodies(2_000, 4_000, 1);
            for body in &sent {
                producer.offer(body.clone()).unwrap();
            }
            assert_eq!(drain(&producer), 2_000);
            eventually("all of it", || target.messages().len() == 2_000);
            assert!(target.messages() == sent, "{io:?} {url}");
            assert_eq!(target.connections(), 1);
            assert_balanced(&producer.snapshot());
        }
    }
}

#[test]
fn lines_and_envelopes_are_what_they_say() {
    let target = Target::tcp(reader);
    let pool = ProducerPool::new();
    let url = format!("tcp://{}?framing=lines", target.address);
    let lines = producer(&pool, &url);
    lines.forward_blocking("one").unwrap();
    assert!(lines.forward_blocking("no\nline").is_err());
    lines.forward_blocking("two").unwrap();
    eventually("both", || target.received().first().is_some_and(|stream| stream == b"one\ntwo\n"));
    assert_balanced(&lines.snapshot());
    pool.remove_blocking("test", DRAIN);

    let envelopes = producer(&pool, &format!("{url}&envelope=json"));
    let mut first = Message::from("a\nb");
    first.part = corelay::forward::Part::Chunk { sequence: 0, last: false };
    let mut last = first.clone();
    last.part = corelay::forward::Part::Chunk { sequence: 1, last: true };
    for message in [&first, &last] {
        envelopes.forward_blocking(message.clone()).unwrap();
    }
    eventually("both", || {
        target.received().get(1).is_some_and(|stream| stream.ends_with(b"\"last\":true,\"body\":\"a\\nb\"}\n"))
    });
    let stream = target.received().remove(1);
    let decoded: Vec<_> =
        stream.split_inclusive(|b| *b == b'\n').map(|line| corelay::forward::envelope::decode(line).unwrap()).collect();
    assert_eq!(decoded, [first, last]);
}

#[test]
fn a_target_that_comes_up_late_gets_everything() {
    for io in runtimes() {
        let address = free_port();
        let pool = ProducerPool::on(io);
        let producer = producer(&pool, &format!("tcp://{address}"));
        let sent = bodies(200, 100, 2);
        for body in &sent {
            producer.offer(body.clone()).unwrap();
        }
        eventually("attempts", || producer.snapshot().counters.attempts_failed >= 7);
        let snapshot = producer.snapshot();
        assert_ne!(snapshot.state, corelay::forward::State::Closed);
        assert!(snapshot.last_error.unwrap().text.starts_with("connect: "));
        let target = Target::tcp_at(address, reader);
        assert_eq!(drain(&producer), 200);
        eventually("all of it", || target.messages().len() == 200);
        assert!(target.messages() == sent);
        assert_balanced(&producer.snapshot());
    }
}

/// Of a size and content of its own, known by its number.
fn lump(n: usize) -> Vec<u8> {
    let mut body = format!("{n:08} ").into_bytes();
    body.resize(9 + n * 7919 % 50_000, (n % 251) as u8);
    body
}

#[test]
fn nothing_goes_on_in_the_middle_after_a_connection_was_killed() {
    const KILLED: usize = 8;
    for io in runtimes() {
        // each connection reads so much, whatever message that ends in, and closes with more unread: the client is
        // in the middle of a write, for it has more to send than both sides' buffers take
        let target = Target::tcp(|number, peer, log| {
            read(peer, log, if number < KILLED { 500_000 + 77_777 * number } else { usize::MAX });
        });
        let pool = ProducerPool::on(io);
        let options = ProducerOptions { when_full: WhenFull::Block, queue_bytes: 4 << 20, ..options() };
        let client = ClientFactory::create(&format!("tcp://{}", target.address)).unwrap();
        let producer = pool.add("test", client, options).unwrap();
        let mut sent = 0;
        // for as long as it takes, so each connection is sent enough to end
        while target.ended() < KILLED {
            eventually("room", || !producer.is_over());
            producer.offer(lump(sent)).unwrap();
            sent += 1;
        }
        assert_eq!(drain(&producer), sent as u64);
        eventually("the ends of all connections", || target.is_quiet());
        let received = target.messages();
        let mut last = None;
        for body in &received {
            let n = number(body);
            assert!(last < Some(n), "{n} after {last:?}");
            assert!(*body == lump(n), "{n} is not what was sent");
            last = Some(n);
        }
        // after the last one was killed there may have been nothing left to send
        assert!((KILLED..=KILLED + 1).contains(&target.connections()), "{} connections", target.connections());
        let is_cut =
            |stream: &&Vec<u8>| len32(stream).iter().map(|message| message.len() + 4).sum::<usize>() < stream.len();
        let cut = target.received().iter().filter(is_cut).count();
        assert!(cut > KILLED / 2, "{cut} cut in the middle of a message: this test shows little");
        assert_balanced(&producer.snapshot());
    }
}

#[test]
fn what_stalls_is_given_up_and_nothing_comes_twice() {
    for io in runtimes() {
        // the first connection is not read until the client has given it up; then it is, to its end
        let given_up = std::sync::Arc::new(std::sync::Barrier::new(2));
        let wait = std::sync::Arc::clone(&given_up);
        let target = Target::tcp(move |number, peer, log| {
            if number == 0 {
                wait.wait();
            }
            read(peer, log, usize::MAX);
        });
        let pool = ProducerPool::on(io);
        let producer = producer(&pool, &format!("tcp://{}?send_timeout=200ms", target.address));
        let sent = bodies(400, 200_000, 4);
        for body in &sent {
            producer.offer(body.clone()).unwrap();
        }
        eventually("a failure", || producer.snapshot().counters.attempts_failed > 0);
        assert!(producer.snapshot().last_error.unwrap().text.starts_with("timeout"));
        given_up.wait();
        let report = producer.drain_blocking(DRAIN);
        assert_eq!(
            (report.left, producer.snapshot().counters.forwarded),
            (0, 400),
            "a message cut short is sent again"
        );
        eventually("all of it", || target.messages().len() == 400);
        assert!(target.messages() == sent);
        let first = &target.received()[0];
        let whole: usize = len32(first).iter().map(|message| message.len() + 4).sum();
        assert!(whole < first.len(), "it was cut in the middle of a message, or this test shows nothing");
    }
}

#[test]
fn a_slow_target_is_no_failure() {
    for io in runtimes() {
        let target = Target::tcp(|_, peer, log| {
            while read(peer, log, 64 << 10) > 0 {
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        let pool = ProducerPool::on(io);
        let producer = producer(&pool, &format!("tcp://{}?send_timeout=2s", target.address));
        // larger than a batch and than the socket's buffers: it goes out as the target reads
        let sent: Vec<_> = (0..10).map(|n| format!("{n:08} {}", "x".repeat(1_000_000)).into_bytes()).collect();
        for body in &sent {
            producer.offer(body.clone()).unwrap();
        }
        assert_eq!(drain(&producer), 10);
        eventually("all of it", || target.messages().len() == 10);
        assert!(target.messages() == sent);
        assert_eq!(producer.snapshot().counters.attempts_failed, 0);
    }
}

#[test]
fn a_connection_closed_while_idle_is_noticed_before_the_next_message() {
    for io in runtimes() {
        let target = Target::tcp(|number, peer, log| {
            read(peer, log, if number == 0 { 4 + 3 } else { usize::MAX });
        });
        with_client(io, &format!("tcp://{}", target.address), async |client| {
            client.send(&message(b"one")).await.unwrap();
            // as idle producers do
            while target.connections() < 2 {
                client.probe().await.unwrap();
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            client.send(&message(b"two")).await.unwrap();
            client.close().await;
        });
        eventually("both", || target.messages() == [b"one", b"two"]);
    }
}

#[test]
fn a_target_that_talks_back_without_listening_is_heard_out() {
    for io in runtimes() {
        let target = Target::tcp(|_, peer, log| {
            // more than the buffers of both sides: this ends only if the client reads
            peer.write_all(&vec![b'!'; 32 << 20]).unwrap();
            read(peer, log, usize::MAX);
        });
        let pool = ProducerPool::on(io);
        let producer = producer(&pool, &format!("tcp://{}", target.address));
        let sent = bodies(300, 100_000, 5);
        for body in &sent {
            producer.offer(body.clone()).unwrap();
        }
        assert_eq!(drain(&producer), 300);
        eventually("all of it", || target.messages().len() == 300);
        assert!(target.messages() == sent);
    }
}

#[cfg(feature = "https")]
#[test]
fn tls_says_whom_it_believes() {
    use std::sync::Arc;

    let certified = rcgen::generate_simple_self_signed(vec!["target.test".to_owned()]).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let ca = dir.path().join("ca.pem");
    std::fs::write(&ca, certified.cert.pem()).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(certified.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key)
        .unwrap();
    let config = Arc::new(config);
    let target = Target::tcp(move |_, peer, log| {
        let connection = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
        let mut stream = rustls::StreamOwned::new(connection, peer);
        let mut buffer = vec![0; 64 << 10];
        while let Ok(count @ 1..) = std::io::Read::read(&mut stream, &mut buffer) {
            log.lock().unwrap().extend_from_slice(&buffer[..count]);
        }
    });
    for io in runtimes() {
        let before = target.connections();
        let url = format!("tls://{}?ca={}", target.address, ca.display());
        let pool = ProducerPool::on(io);
        let good = producer(&pool, &format!("{url}&server_name=target.test"));
        let sent = bodies(200, 50_000, 6);
        for body in &sent {
            good.offer(body.clone()).unwrap();
        }
        assert_eq!(drain(&good), 200);
        eventually("all of it", || len32(&target.received()[before]).len() == 200);
        assert!(len32(&target.received()[before]) == sent);
        let error = with_client(io, &url, async |client| client.probe().await.unwrap_err());
        assert!(error.to_string().contains("certificate"), "{error}");
    }
}
