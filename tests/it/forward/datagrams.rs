//! UDP and Unix datagrams.

use std::net::UdpSocket;
use std::os::unix::net::UnixDatagram;

use corelay::forward::{ClientFactory, DropReason, SendErrorKind};

use super::target::DRAIN;
use super::*;

#[test]
fn each_message_is_one_datagram() {
    for io in runtimes() {
        let target = UdpSocket::bind("127.0.0.1:0").unwrap();
        target.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let pool = ProducerPool::on(io);
        let producer = producer(&pool, &format!("udp://{}", target.local_addr().unwrap()));
        let mut buffer = vec![0; 1 << 16];
        let mut sent = bodies(200, 2_000, 7);
        sent.extend([vec![b'x'; 65_507], vec![]]);
        for body in &sent {
            producer.forward_blocking(body.clone()).unwrap();
            let len = target.recv(&mut buffer).unwrap();
            assert!(buffer[..len] == body[..], "{io:?}");
        }
        let error = producer.forward_blocking(vec![0; 65_508]).unwrap_err();
        assert_eq!(error.reason(), Some(DropReason::TooLarge));
        assert_eq!(producer.drain_blocking(DRAIN).left, 0);
        assert_balanced(&producer.snapshot());
    }
}

#[test]
fn more_than_the_mtu_is_too_large_and_never_cut() {
    let target = UdpSocket::bind("127.0.0.1:0").unwrap();
    let url = format!("udp://{}?mtu=300&envelope=json", target.local_addr().unwrap());
    with_client(runtimes()[0], &url, async |client| {
        let error = client.send(&message(&[b'x'; 200])).await.unwrap_err();
        assert_eq!(error.kind(), SendErrorKind::TooLarge, "the envelope counts, too");
        let small = message(b"x");
        client.send(&small).await.unwrap();
        let mut buffer = [0; 400];
        let len = target.recv(&mut buffer).unwrap();
        assert_eq!(corelay::forward::envelope::decode(&buffer[..len]), Ok(small));
    });
}

#[test]
fn each_that_was_refused_is_counted() {
    const COUNT: u64 = 50;
    for io in runtimes() {
        let dir = tempfile::tempdir().unwrap();
        let letters = dir.path().join("letters");
        let address = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let pool = ProducerPool::on(io);
        let client = ClientFactory::create(&format!("udp://{address}")).unwrap();
        let options = ProducerOptions { dead_letter: Some(letters.clone()), ..options() };
        let producer = pool.add("test", client, options).unwrap();
        for n in 0..COUNT {
            producer.offer(n.to_string()).unwrap();
        }
        eventually("an end for each", || producer.snapshot().counters.queue_messages == 0);
        let counters = producer.snapshot().counters;
        assert_eq!(counters.forwarded + counters.dead_lettered, COUNT, "{counters:?}");
        // nearly always: the kernel may put the answer off
        assert!(counters.forwarded <= COUNT / 10, "{io:?}: {counters:?}");
        assert!(producer.snapshot().last_error.unwrap().text.contains("refused"));
        let letters = std::fs::read_to_string(letters).unwrap();
        assert_eq!(
            letters.lines().filter(|line| line.ends_with(r#""reason":"in_doubt"}"#)).count() as u64,
            counters.dead_lettered
        );

        let target = UdpSocket::bind(address).unwrap();
        target.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        producer.forward_blocking("you!").unwrap();
        let mut buffer = [0; 100];
        assert_eq!(target.recv(&mut buffer).unwrap(), 4);
        assert_balanced(&producer.snapshot());
    }
}

#[test]
fn unix_datagrams_wait_for_the_target() {
    for io in runtimes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("target.sock");
        let pool = ProducerPool::on(io);
        let producer = producer(&pool, &format!("unix://{}?type=datagram", path.display()));
        let sent = bodies(300, 5_000, 8);
        for body in &sent {
            producer.offer(body.clone()).unwrap();
        }
        eventually("attempts", || producer.snapshot().counters.attempts_failed > 3);
        let target = UnixDatagram::bind(&path).unwrap();
        let mut buffer = vec![0; 1 << 16];
        for body in &sent {
            let len = target.recv(&mut buffer).unwrap();
            assert!(buffer[..len] == body[..], "in order, and none lost: its queue pushes back");
        }
        assert_eq!(producer.drain_blocking(DRAIN).left, 0);
        assert_eq!(producer.snapshot().counters.forwarded, 300);
    }
}
