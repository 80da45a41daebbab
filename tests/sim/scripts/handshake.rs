//! §2: HELLO, WELCOME, and what may come before and between.

use super::*;
use crate::wire::*;
use corelay::broker::core::Refused;
use corelay::protocol::{Code, FrameType, Header, Role};

fn hello_bytes() -> Vec<u8> {
    let mut bytes = Vec::new();
    hello(Role::Provider, "ch", 1000, 3).encode(&mut bytes).unwrap();
    bytes
}

#[test]
fn welcome_states_the_limits() {
    weathers(|| {
        let w = World::one_core(Limits { max_streams: 17, window: 1234, ..Limits::default() });
        let welcome = w.connect().hello(hello(Role::Consumer, "ch", 5, 0));
        assert_eq!((welcome.version, welcome.core, welcome.cores, welcome.features), (1, 0, 1, 0));
        assert_eq!((welcome.max_streams, welcome.window), (17, 1234));
        assert_eq!((welcome.max_frame, welcome.keepalive_ms, welcome.default_timeout_ms), (1 << 20, 20_000, 30_000));
        w.finish();
    });
}

#[test]
fn a_later_version_and_a_longer_hello_are_taken() {
    weathers(|| {
        let w = World::one_core(Limits::default());
        let mut bytes = hello_bytes();
        bytes[16 + 4] = 9;
        bytes.extend(b"from a later version");
        bytes[0] += 20;
        let c = w.connect();
        c.send_bytes(&bytes);
        assert_eq!(c.welcome().version, 1);
        w.finish();
    });
}

#[test]
fn a_malformed_hello_is_answered_and_closed() {
    // where, what, and the code it ends with
    let cases: [(usize, &[u8], Code); 9] = [
        (0, b"HTTP", Code::Protocol),
        (4, &[0], Code::Version),
        (5, &[0], Code::Protocol),
        (5, &[3], Code::Protocol),
        (5, &[1], Code::Protocol),           // a consumer with max_concurrent
        (40, &[0xff; 4], Code::FlowControl), // window beyond 2^31-1
        (44, &[0; 4], Code::Protocol),       // a provider that takes nothing
        (48, &[0xff, 0xff], Code::Protocol), // token longer than the payload
        (52, &[0xff], Code::Protocol),       // name not UTF-8
    ];
    weathers(|| {
        for (at, with, code) in cases {
            let w = World::one_core(Limits::default());
            let mut bytes = hello_bytes();
            bytes[16 + at..][..with.len()].copy_from_slice(with);
            let c = w.connect();
            c.send_bytes(&bytes);
            let seen = c.expect(error(0, code));
            assert!(seen.payload.len() + 16 <= 1024, "at most 1 KiB before WELCOME");
            c.expect_closed();
            w.finish();
        }
    });
}

#[test]
fn a_cut_hello_is_malformed() {
    let w = World::one_core(Limits::default());
    let mut bytes = hello_bytes();
    bytes[0] -= 1;
    bytes.pop();
    let c = w.connect();
    c.send_bytes(&bytes);
    c.expect_failed(Code::Protocol);
    w.finish();
}

#[test]
fn a_hello_above_4_kib_is_refused_by_its_header_and_one_of_4_kib_is_not() {
    weathers(|| {
        let w = World::one_core(Limits::default());
        let c = w.connect();
        c.send_bytes(&Header::new(FrameType::Hello, 0).length(4097).encode());
        c.expect_failed(Code::FrameTooLarge);
        let c = w.connect();
        let mut bytes = hello_bytes();
        let payload = bytes.len() - 16;
        bytes[..4].copy_from_slice(&4096u32.to_le_bytes());
        bytes.resize(16 + payload + (4096 - payload), 0);
        c.send_bytes(&bytes);
        c.welcome();
        w.finish();
    });
}

#[test]
fn the_first_frame_must_be_hello() {
    weathers(|| {
        for kind in FrameType::ALL.into_iter().filter(|&kind| kind != FrameType::Hello) {
            let w = World::one_core(Limits::default());
            let c = w.connect();
            c.send_bytes(&Header::new(kind, 0).encode());
            c.expect_failed(Code::Protocol);
            w.finish();
        }
        for kind in [0, 0x0c, 0x7f, 0x80, 0xc0, 0xff] {
            let w = World::one_core(Limits::default());
            let c = w.connect();
            c.send(raw(Header { kind, ..Header::new(FrameType::Ping, 0) }));
            c.expect_failed(Code::Protocol);
            w.finish();
        }
    });
}

#[test]
fn hello_on_a_stream_is_refused() {
    let w = World::one_core(Limits::default());
    let mut bytes = hello_bytes();
    bytes[8] = 1;
    let c = w.connect();
    c.send_bytes(&bytes);
    c.expect_failed(Code::Protocol);
    w.finish();
}

#[test]
fn hello_and_welcome_come_once() {
    weathers(|| {
        let w = World::one_core(Limits::default());
        let p = w.provider("ch", 1);
        p.send_bytes(&hello_bytes());
        p.expect_failed(Code::Protocol);
        let c = w.consumer("ch");
        c.send(raw(Header::new(FrameType::Welcome, 0)));
        c.expect_failed(Code::Protocol);
        w.finish();
    });
}

#[test]
fn a_request_that_came_with_hello_was_sent_before_welcome() {
    let w = World::one_core(Limits::default());
    let c = w.connect();
    let mut bytes = Vec::new();
    hello(Role::Consumer, "ch", 100, 0).encode(&mut bytes).unwrap();
    bytes.extend(request(1).end().encode());
    c.send_bytes(&bytes);
    if c.is_open() || c.next().is_some_and(|seen| seen.header.frame_type() == Some(FrameType::Welcome)) {
        c.expect_failed(Code::Protocol);
    }
    w.finish();
}

#[test]
fn other_frames_may_come_with_hello() {
    weathers(|| {
        let w = World::one_core(Limits::default());
        let c = w.connect();
        let mut bytes = hello_bytes();
        bytes.extend(ping(b"together").encode());
        c.send_bytes(&bytes);
        c.welcome();
        c.expect(pong(b"together"));
        w.finish();
    });
}

#[test]
fn the_handshake_has_its_timeout_in_all() {
    weathers(|| {
        let w = World::one_core(Limits::default());
        let silent = w.connect();
        let slow = w.connect();
        for byte in &hello_bytes()[..40] {
            slow.send_bytes(&[*byte]);
            w.advance(ms(100));
        }
        w.advance(ms(999));
        assert!(silent.is_open() && slow.is_open());
        w.advance(ms(1));
        silent.expect_failed(Code::Timeout);
        slow.expect_failed(Code::Timeout);
        w.finish();
    });
}

#[test]
fn a_refused_connection_lingers_for_its_fin_then_goes() {
    weathers(|| {
        let w = World::one_core(Limits::default());
        let c = w.connect();
        c.send_bytes(b"GET / HTTP/1.1\r\n\r\n and so on");
        c.expect(error(0, Code::FrameTooLarge));
        w.advance(ms(1999));
        c.expect_held();
        w.advance(ms(1));
        c.expect_gone();
        w.finish();
    });
}

#[test]
fn half_closed_is_closed() {
    weathers(|| {
        let w = World::one_core(Limits::default());
        let c = w.consumer("ch");
        let p = w.provider("ch", 1);
        c.send(request(1).end());
        p.expect(request(1).end());
        c.close();
        p.expect(cancel(1, Code::ConsumerLost));
        assert!(!c.is_open());
        w.finish();
    });
}

#[test]
fn a_connection_the_listener_refuses_is_told_why() {
    weathers(|| {
        let w = World::one_core(Limits::default());
        let c = w.refuse(Refused::MaxConnections);
        c.expect(error(0, Code::Overloaded).text("too many connections are open (max_connections)"));
        c.expect_closed();
        let w = World::cores(2, Limits::default(), Vec::new());
        w.refuse(Refused::MaxUnauthenticatedPerIp).expect_failed(Code::Overloaded);
        w.finish();
    });
}
