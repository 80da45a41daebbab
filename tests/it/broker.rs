//! The broker on real sockets: both reactors, one core and two.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use corelay::base::ChannelId;
use corelay::base::limits::Limits;
use corelay::broker::{ChannelOptions, Cores, Io, ServerOptions};
use corelay::protocol::{Code, Flags, FrameType, Header, Role};
use corelay::{Server, broker};

use crate::wire::{Wire, hello};

/// Runs a test on every kind of broker.
fn everywhere(test: impl Fn(&Broker)) {
    let start = |io, cores| Broker::start(io, cores, Limits::default());
    crate::everywhere::everywhere(start, |broker| {
        test(&broker);
        broker.server.stop().unwrap();
    });
}

struct Broker {
    server: Server,
    addr: SocketAddr,
}

impl Broker {
    fn start(io: Io, cores: usize, limits: Limits) -> Result<Broker, broker::ServerError> {
        let mut spread = ChannelOptions::new(ChannelId::named("spread"), "spread");
        spread.spread = 2;
        let server = Server::start(ServerOptions {
            listen: vec!["127.0.0.1:0".parse().unwrap()],
            cores: Cores::Count(cores),
            io,
            limits,
            channels: vec![spread],
            buffers: 64,
            ..ServerOptions::default()
        })?;
        let addr = server.addr();
        Ok(Broker { server, addr })
    }
}

#[test]
fn a_request_is_answered() {
    everywhere(|broker| {
        let mut provider = Wire::provider(broker.addr, "echo", 4);
        let mut consumer = Wire::consumer(broker.addr, "echo");
        consumer.request(1, 7, b"hello", Flags::NONE);
        let request = provider.expect(FrameType::Request);
        assert_eq!(&request.payload[..16], uuid::Uuid::from_u128(7).as_bytes());
        assert_eq!(&request.payload[16..], b"hello");
        assert!(request.arg > 29_000 && request.arg <= 30_000, "time left: {}", request.arg);
        provider.respond(request.stream, b"world");
        let answer = consumer.expect(FrameType::Response);
        assert_eq!((answer.stream, answer.payload.as_slice()), (1, &b"world"[..]));
        assert!(answer.flags.has(Flags::END));
    });
}

#[test]
fn a_large_body_streams_both_ways_under_credit() {
    everywhere(|broker| {
        let size = 8 << 20;
        let data: Vec<u8> = (0..size).map(|i: usize| (i ^ i >> 8 ^ i >> 16) as u8).collect();
        let mut provider = Wire::provider(broker.addr, "big", 1);
        let sent = data.clone();
        let consumer = Wire::consumer(broker.addr, "big");
        let consuming = thread::spawn(move || stream_out_and_in(consumer, &sent));
        let first = provider.expect(FrameType::Request);
        let stream = first.stream;
        let body = provider.body(first);
        assert!(body == data, "the request arrived changed");
        send_body(&mut provider, stream, FrameType::Response, &body);
        let answer = consuming.join().unwrap();
        assert!(answer == data, "the answer arrived changed");
    });
}

fn stream_out_and_in(mut consumer: Wire, data: &[u8]) -> Vec<u8> {
    let id = uuid::Uuid::from_u128(1);
    consumer.send(Header::new(FrameType::Request, 1), id.as_bytes());
    send_body(&mut consumer, 1, FrameType::Data, data);
    let first = consumer.next_past_credit();
    assert_eq!(first.kind, FrameType::Response);
    consumer.body(first)
}

/// Sends a body within credit; the first frame is of this type.
fn send_body(wire: &mut Wire, stream: u32, first: FrameType, data: &[u8]) {
    let mut credit = wire.window() as usize;
    let mut kind = first;
    let mut at = 0;
    while at < data.len() {
        while credit == 0 {
            let grant = wire.expect(FrameType::Credit);
            assert_eq!(grant.stream, stream);
            credit += grant.arg as usize;
        }
        // odd sizes, so that frames and receive buffers never line up
        let n = credit.min(40_001).min(data.len() - at);
        let end = Flags::END.only_if(at + n == data.len());
        wire.send(Header::new(kind, stream).flags(end), &data[at..at + n]);
        (at, credit, kind) = (at + n, credit - n, FrameType::Data);
    }
}

#[test]
fn failures_are_told_at_once() {
    everywhere(|broker| {
        let mut consumer = Wire::consumer(broker.addr, "fail");
        consumer.request(1, 1, b"", Flags::NONE);
        assert!(!consumer.expect_error(1, Code::NoProvider).flags.has(Flags::STARTED));

        let mut provider = Wire::provider(broker.addr, "fail", 4);
        consumer.request(1, 2, b"", Flags::NONE);
        let request = provider.expect(FrameType::Request);
        provider.send(Header::new(FrameType::Error, request.stream).code(Code::Internal), b"no such order");
        let error = consumer.expect_error(1, Code::Application);
        assert_eq!(error.payload, b"no such order");

        consumer.request(1, 3, b"", Flags::NONE);
        provider.expect(FrameType::Request);
        let before = Instant::now();
        drop(provider);
        assert!(consumer.expect_error(1, Code::ProviderLost).flags.has(Flags::STARTED));
        println!("PROVIDER_LOST after {:?}", before.elapsed());

        let mut provider = Wire::provider(broker.addr, "fail", 4);
        consumer.request(1, 4, b"", Flags::NONE);
        let request = provider.expect(FrameType::Request);
        drop(consumer);
        let cancel = provider.expect(FrameType::Cancel);
        assert_eq!((cancel.stream, cancel.code), (request.stream, Some(Code::ConsumerLost)));
    });
}

#[test]
fn cancel_and_deadline_reach_the_provider() {
    everywhere(|broker| {
        let mut provider = Wire::provider(broker.addr, "cancel", 4);
        let mut consumer = Wire::consumer(broker.addr, "cancel");
        consumer.request(1, 1, b"", Flags::NONE);
        let request = provider.expect(FrameType::Request);
        consumer.send(Header::new(FrameType::Cancel, 1).code(Code::Cancelled), &[]);
        consumer.expect_error(1, Code::Cancelled);
        assert_eq!(provider.expect(FrameType::Cancel).code, Some(Code::Cancelled));
        provider.send(Header::new(FrameType::Error, request.stream).code(Code::Cancelled), &[]);

        let id = uuid::Uuid::from_u128(2);
        consumer.send(Header::new(FrameType::Request, 1).flags(Flags::END).arg(30), id.as_bytes());
        let request = provider.expect(FrameType::Request);
        assert!((1..=30).contains(&request.arg));
        assert!(consumer.expect_error(1, Code::Deadline).flags.has(Flags::STARTED));
        assert_eq!(provider.expect(FrameType::Cancel).code, Some(Code::Deadline));
    });
}

#[test]
fn a_retried_request_goes_to_another_provider() {
    everywhere(|broker| {
        let mut first = Wire::provider(broker.addr, "retry", 1);
        let mut consumer = Wire::consumer(broker.addr, "retry");
        consumer.request(1, 9, b"again", Flags::RETRY);
        first.expect(FrameType::Request);
        let mut second = Wire::provider(broker.addr, "retry", 1);
        drop(first);
        let request = second.expect(FrameType::Request);
        assert_eq!(&request.payload[16..], b"again");
        second.respond(request.stream, b"done");
        assert_eq!(consumer.expect(FrameType::Response).payload, b"done");
    });
}

#[test]
fn waiting_and_oneway_requests_find_their_provider() {
    everywhere(|broker| {
        for channel in ["late", "spread"] {
            let mut consumer = Wire::consumer(broker.addr, channel);
            consumer.request(1, 1, b"patient", Flags::WAIT);
            consumer.request(2, 2, b"note", Flags::WAIT | Flags::ONEWAY);
            let mut provider = Wire::provider(broker.addr, channel, 2);
            for _ in 0..2 {
                let request = provider.expect(FrameType::Request);
                provider.respond(request.stream, &request.payload[16..]);
            }
            let mut answers = [consumer.expect(FrameType::Response), consumer.expect(FrameType::Response)];
            answers.sort_by_key(|answer| answer.stream);
            assert_eq!(answers[0].payload, b"patient");
            assert_eq!(answers[1].payload, b"", "a one-way request is answered by the broker");
        }
    });
}

#[test]
fn a_hundred_consumers_with_ten_requests_each() {
    everywhere(|broker| {
        let mut serving = Vec::new();
        for channel in ["crowd", "spread"] {
            let providers: Vec<_> = (0..4).map(|_| Wire::provider(broker.addr, channel, 8)).collect();
            serving.extend(providers.into_iter().map(|provider| thread::spawn(|| echo(provider))));
            thread::scope(|scope| {
                for n in 0..100 {
                    let addr = broker.addr;
                    scope.spawn(move || ten_requests(Wire::consumer(addr, channel), n));
                }
            });
        }
        broker.server.drain();
        for provider in serving {
            provider.join().unwrap();
        }
    });
}

fn ten_requests(mut consumer: Wire, n: u128) {
    for i in 0..10 {
        let body = format!("request {i} of {n}");
        consumer.request(i as u32 + 1, n << 64 | i, body.as_bytes(), Flags::NONE);
    }
    for _ in 0..10 {
        let answer = consumer.expect(FrameType::Response);
        assert_eq!(answer.payload, format!("request {} of {n}", answer.stream - 1).as_bytes());
    }
}

/// Answers each request with its body, until the broker says GOAWAY or closes.
fn echo(mut provider: Wire) {
    while let Some(frame) = provider.next() {
        match frame.kind {
            FrameType::Request => {
                assert!(frame.flags.has(Flags::END), "small requests come in one frame");
                provider.respond(frame.stream, &frame.payload[16..]);
            }
            FrameType::GoAway => {}
            other => panic!("{other:?} for an echo"),
        }
    }
}

#[test]
fn a_drain_finishes_what_is_in_flight() {
    everywhere(|broker| {
        let mut provider = Wire::provider(broker.addr, "drain", 1);
        let mut consumer = Wire::consumer(broker.addr, "drain");
        consumer.request(1, 1, b"slow", Flags::NONE);
        let request = provider.expect(FrameType::Request);
        consumer.request(2, 2, b"queued", Flags::NONE);
        // the second is queued behind the provider's one place before the drain begins
        let mut probe = Wire::consumer(broker.addr, "drain");
        probe.send(Header::new(FrameType::Ping, 0), &[0; 8]);
        probe.expect(FrameType::Pong);
        consumer.send(Header::new(FrameType::Ping, 0), &[0; 8]);
        consumer.expect(FrameType::Pong);
        broker.server.drain();
        assert_eq!(provider.expect(FrameType::GoAway).code, Some(Code::Draining));
        let mut seen = [consumer.next().unwrap(), consumer.next().unwrap()];
        seen.sort_by_key(|frame| frame.stream);
        assert_eq!(seen[0].kind, FrameType::GoAway);
        assert_eq!((seen[1].stream, seen[1].code), (2, Some(Code::Draining)));
        consumer.request(3, 3, b"late", Flags::NONE);
        assert!(!consumer.expect_error(3, Code::Draining).flags.has(Flags::STARTED));
        provider.respond(request.stream, b"finished");
        assert_eq!(consumer.expect(FrameType::Response).payload, b"finished");
        consumer.expect_closed();
        provider.expect_closed();
    });
}

#[test]
fn a_drain_ends_on_all_cores_however_long_one_of_them_takes() {
    everywhere(|broker| {
        let mut provider = Wire::provider(broker.addr, "spread", 400);
        let mut consumer = Wire::consumer(broker.addr, "spread");
        for n in 1..=400 {
            consumer.request(n, u128::from(n), b"", Flags::NONE);
        }
        let streams: Vec<u32> = (0..400).map(|_| provider.expect(FrameType::Request).stream).collect();
        broker.server.drain();
        provider.expect(FrameType::GoAway);
        consumer.expect(FrameType::GoAway);
        // one at a time: each takes turns of both cores, and the links must be served to the last
        for stream in streams {
            provider.respond(stream, b"late");
            assert_eq!(consumer.expect(FrameType::Response).payload, b"late");
        }
        provider.expect_closed();
        consumer.expect_closed();
    });
}

#[test]
fn after_drain_timeout_what_is_left_ends_as_started() {
    for io in [Io::Epoll, Io::Uring] {
        let limits = Limits { drain_timeout: Duration::from_millis(50), ..Limits::default() };
        let Ok(broker) = Broker::start(io, 1, limits) else { continue };
        let mut provider = Wire::provider(broker.addr, "stuck", 1);
        let mut consumer = Wire::consumer(broker.addr, "stuck");
        consumer.request(1, 1, b"", Flags::NONE);
        provider.expect(FrameType::Request);
        broker.server.drain();
        consumer.expect(FrameType::GoAway);
        assert!(consumer.expect_error(1, Code::Draining).flags.has(Flags::STARTED));
        drop((provider, consumer));
        broker.server.join().unwrap();
    }
}

#[test]
fn breaking_the_protocol_ends_that_connection_only() {
    everywhere(|broker| {
        let mut provider = Wire::provider(broker.addr, "strict", 4);
        let mut good = Wire::consumer(broker.addr, "strict");
        type Break<'a> = (&'a str, Code, &'a dyn Fn(&mut Wire));
        let breaks: [Break<'_>; 6] = [
            ("DATA on no stream", Code::Protocol, &|wire| wire.send(Header::new(FrameType::Data, 5), b"x")),
            ("RESPONSE from a consumer", Code::Protocol, &|wire| wire.send(Header::new(FrameType::Response, 5), b"x")),
            ("unknown type", Code::Protocol, &|wire| {
                wire.send(Header { kind: 0x33, ..Header::new(FrameType::Ping, 0) }, &[]);
            }),
            ("CREDIT of 0", Code::FlowControl, &|wire| wire.send(Header::new(FrameType::Credit, 1), &[])),
            ("too large", Code::FrameTooLarge, &|wire| {
                wire.write(&Header::new(FrameType::Data, 1).length(u32::MAX).encode());
            }),
            ("short PING", Code::Protocol, &|wire| wire.send(Header::new(FrameType::Ping, 0), &[1, 2])),
        ];
        for (what, code, act) in breaks {
            let mut bad = Wire::consumer(broker.addr, "strict");
            act(&mut bad);
            println!("{what}: {}", String::from_utf8_lossy(&bad.expect_error(0, code).payload));
            bad.expect_closed();
        }
        good.request(1, 1, b"fine", Flags::NONE);
        let request = provider.expect(FrameType::Request);
        provider.respond(request.stream, b"fine");
        good.expect(FrameType::Response);
    });
}

#[test]
fn strangers_that_speak_something_else_are_told() {
    everywhere(|broker| {
        let mut http = Wire::raw(broker.addr);
        http.write(b"GET / HTTP/1.1\r\nHost: corelay\r\n\r\n");
        http.expect_error(0, Code::FrameTooLarge);
        http.expect_closed();
        let mut old = Wire::raw(broker.addr);
        let mut frame = Vec::new();
        hello(Role::Consumer, "x", 0).encode(&mut frame).unwrap();
        frame[16 + 4] = 0;
        old.write(&frame);
        old.expect_error(0, Code::Version);
    });
}

#[test]
fn connections_come_and_go_without_a_trace() {
    everywhere(|broker| {
        for round in 0..20 {
            let wires: Vec<Wire> = (0..20).map(|n| Wire::consumer(broker.addr, &format!("c{}", n + round))).collect();
            drop(wires);
        }
        // still serving
        let mut consumer = Wire::consumer(broker.addr, "after");
        consumer.request(1, 1, b"", Flags::NONE);
        consumer.expect_error(1, Code::NoProvider);
    });
}

#[test]
fn a_taken_port_is_named_with_what_to_do() {
    let first = Server::bind("127.0.0.1:0").unwrap();
    let error = Server::bind(&first.addr().to_string()).unwrap_err().to_string();
    assert!(error.contains(&first.addr().to_string()) && error.contains("--listen"), "{error}");
    first.stop().unwrap();
}
