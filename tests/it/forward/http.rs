//! HTTP, with a server that does as it's told.

use std::sync::{Arc, Mutex};

use corelay::forward::{DropReason, Part, SendErrorKind};

use super::target::{DRAIN, Peer, Target};
use super::*;

/// What a request said.
#[derive(Clone, Debug)]
struct Asked {
    head: String,
    body: Vec<u8>,
}

impl Asked {
    fn header(&self, name: &str) -> Option<&str> {
        let name = format!("{name}: ");
        self.head.lines().find_map(|line| {
            line.get(..name.len()).filter(|start| start.eq_ignore_ascii_case(&name)).map(|_| &line[name.len()..])
        })
    }
}

fn read_request(peer: &mut dyn Peer) -> Option<Asked> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        peer.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let mut asked = Asked { head: String::from_utf8(head).unwrap(), body: Vec::new() };
    asked.body = vec![0; asked.header("content-length").unwrap_or("0").parse().unwrap()];
    peer.read_exact(&mut asked.body).ok()?;
    Some(asked)
}

#[derive(Clone, Copy, Debug)]
enum Say {
    Status(u16),
    /// 200, and the end of the connection.
    AndClose,
    /// Half of an answer, and the end.
    Half,
    /// Nothing, and the end.
    Hangup,
    /// Nothing.
    Stall,
}

/// A server that answers by the script, then always 200; and all it was asked.
fn server(script: impl IntoIterator<Item = Say>) -> (Target, Arc<Mutex<Vec<Asked>>>) {
    let asked = Arc::<Mutex<Vec<Asked>>>::default();
    let (all, script) = (Arc::clone(&asked), Mutex::new(script.into_iter().collect::<std::collections::VecDeque<_>>()));
    let target = Target::tcp(move |_, peer, _| {
        while let Some(request) = read_request(peer) {
            all.lock().unwrap().push(request);
            let say = script.lock().unwrap().pop_front().unwrap_or(Say::Status(200));
            let answer = match say {
                Say::Status(status) => format!("HTTP/1.1 {status} Indeed\r\ncontent-length: 5\r\n\r\nwell\n"),
                Say::AndClose => "HTTP/1.1 204 Bye\r\nconnection: close\r\n\r\n".to_owned(),
                Say::Half => "HTTP/1.1 20".to_owned(),
                Say::Hangup => String::new(),
                Say::Stall => {
                    let _ = peer.read(&mut [0]);
                    return;
                }
            };
            if peer.write_all(answer.as_bytes()).is_err() || !matches!(say, Say::Status(_)) {
                return;
            }
        }
    });
    (target, asked)
}

#[test]
fn each_message_is_posted_once_with_all_that_is_known_of_it() {
    for io in runtimes() {
        let (target, asked) = server([]);
        let pool = ProducerPool::on(io);
        let producer = producer(&pool, &format!("http://me:secret@{}/hook%20s?query=a%3D1", target.address));
        let mut first = Message::from("Hello!");
        let mut block = Vec::new();
        let headers = [("content-type", &b"text/plain"[..]), ("x", b"1"), ("x", b"2"), ("bad", b"\n")];
        corelay::protocol::encode_headers(headers, &mut block).unwrap();
        first.headers = corelay::forward::Headers::from_block(bytes::Bytes::from(block).slice(2..));
        producer.forward_blocking(first.clone()).unwrap();
        let sent = bodies(300, 10_000, 9);
        for body in &sent {
            producer.offer(body.clone()).unwrap();
        }
        assert_eq!(producer.drain_blocking(DRAIN).left, 0);
        let asked = asked.lock().unwrap();
        assert!(asked[1..].iter().map(|request| &request.body).eq(&sent));
        assert_eq!(target.connections(), 1, "kept alive");
        let request = &asked[0];
        assert!(request.head.starts_with("POST /hook%20s?a=1 HTTP/1.1\r\n"), "{}", request.head);
        for (name, value) in [
            ("host", target.address.as_str()),
            ("authorization", "Basic bWU6c2VjcmV0"),
            ("content-type", "text/plain"),
            ("x-corelay-request-id", &first.id.to_string()),
            ("x-corelay-key", &first.key.to_string()),
            ("x-corelay-channel", &first.channel.to_string()),
            ("x-corelay-kind", "request"),
            ("x-corelay-header-x", "1"),
        ] {
            assert_eq!(request.header(name), Some(value), "{name}");
        }
        assert!(request.header("x-corelay-time").unwrap().ends_with('Z'));
        assert_eq!((request.header("x-corelay-sequence"), request.header("x-corelay-header-bad")), (None, None));
        assert_eq!(producer.snapshot().counters.forwarded, 301);
        assert_balanced(&producer.snapshot());
    }
}

#[test]
fn parts_say_which_they_are() {
    let (target, asked) = server([]);
    with_client(runtimes()[0], &format!("http://{}", target.address), async |client| {
        let mut part = message(b"x");
        part.part = Part::Chunk { sequence: 3, last: true };
        client.send(&part).await.unwrap();
        part.part = Part::Aborted { sequence: 4 };
        client.send(&part).await.unwrap();
    });
    let asked = asked.lock().unwrap();
    let said = |n: usize, name| asked[n].header(&format!("x-corelay-{name}")).map(str::to_owned);
    assert_eq!(
        (said(0, "sequence"), said(0, "last"), said(0, "aborted")),
        (Some("3".into()), Some("true".into()), None)
    );
    assert_eq!(
        (said(1, "sequence"), said(1, "last"), said(1, "aborted")),
        (Some("4".into()), None, Some("true".into()))
    );
}

#[test]
fn nothing_is_lost_to_a_server_in_trouble() {
    for io in runtimes() {
        let script = [
            Say::Status(503),
            Say::Status(200),
            Say::AndClose,
            Say::Half,
            Say::Hangup,
            Say::Status(429),
            Say::Stall,
            Say::AndClose,
        ];
        let (target, asked) = server(script);
        let pool = ProducerPool::on(io);
        let producer = producer(&pool, &format!("http://{}?send_timeout=100ms", target.address));
        let sent = bodies(50, 100, 10);
        for body in &sent {
            producer.offer(body.clone()).unwrap();
        }
        assert_eq!(producer.drain_blocking(DRAIN).left, 0);
        let asked = asked.lock().unwrap();
        let mut received: Vec<_> =
            asked.iter().map(|request| (request.header("x-corelay-key").unwrap(), &request.body)).collect();
        received.dedup();
        assert!(received.iter().map(|(_, body)| *body).eq(&sent), "in order; again with the same key, if at all");
        assert_eq!(asked.len(), 50 + 5);
        let counters = producer.snapshot().counters;
        assert_eq!(
            (counters.forwarded, counters.attempts_failed),
            (50, 5),
            "a connection closed between is no failure"
        );
        assert_balanced(&producer.snapshot());
    }
}

#[test]
fn what_is_refused_is_not_repeated() {
    let (target, asked) = server([Say::Status(400), Say::Status(302), Say::Status(413)]);
    let pool = ProducerPool::new();
    let producer = producer(&pool, &format!("http://{}", target.address));
    for reason in [DropReason::Rejected, DropReason::Rejected, DropReason::TooLarge] {
        assert_eq!(producer.forward_blocking("x").unwrap_err().reason(), Some(reason));
    }
    producer.forward_blocking("x").unwrap();
    assert_eq!(asked.lock().unwrap().len(), 4);
    assert!(producer.snapshot().last_error.unwrap().text.contains("HTTP 413"));
    assert_balanced(&producer.snapshot());
}

#[test]
fn nobody_there_is_said_without_the_password() {
    let url = format!("http://me:secret@{}/?query=secret", super::target::free_port());
    with_client(runtimes()[0], &url, async |client| {
        for error in [client.probe().await.unwrap_err(), client.send(&message(b"x")).await.unwrap_err()] {
            assert_eq!(error.kind(), SendErrorKind::Connect);
            assert!(!error.to_string().contains("secret") && !error.is_in_doubt());
        }
        assert!(!client.address().contains("secret"));
    });
}
