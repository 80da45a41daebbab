//! §1: what every frame must look like.

use super::*;
use crate::wire::*;
use corelay::protocol::{Code, Flags, FrameType, Header};

#[test]
fn extensions_are_skipped_whatever_they_hold() {
    weathers(|| {
        let w = World::one_core(Limits::default());
        let c = w.consumer("ch");
        let p = w.provider("ch", 1);
        for kind in [0x80, 0xc0, 0xc1, 0xff] {
            c.send(raw(Header { kind, ..Header::new(FrameType::Ping, 3) }).body(vec![7; 5000]));
            p.send(raw(Header { kind, ..Header::new(FrameType::Ping, 0) }));
        }
        c.send(request(1).end());
        p.expect(request(1).end());
        w.finish();
    });
}

#[test]
fn an_extension_is_bound_by_max_frame_too() {
    let w = World::one_core(Limits::default());
    let c = w.consumer("ch");
    c.send_bytes(&Header { kind: 0x90, ..Header::new(FrameType::Ping, 0) }.length((1 << 20) + 1).encode());
    c.expect_failed(Code::FrameTooLarge);
    w.finish();
}

#[test]
fn other_unknown_types_end_the_connection() {
    weathers(|| {
        for kind in [0, 0x0c, 0x40, 0x7f] {
            let w = World::one_core(Limits::default());
            let c = w.consumer("ch");
            c.send(raw(Header { kind, ..Header::new(FrameType::Ping, 0) }));
            c.expect_failed(Code::Protocol);
            w.finish();
        }
    });
}

#[test]
fn a_frame_above_max_frame_is_refused_by_its_header_and_one_at_it_is_taken() {
    weathers(|| {
        let w = World::one_core(Limits { max_frame: 20_000, ..Limits::default() });
        let c = w.consumer("ch");
        let p = w.provider("ch", 1);
        c.send(request(1).body(vec![1; 20_000 - 16]).end());
        p.expect(request(1).body(vec![1; 20_000 - 16]).end());
        c.send_bytes(&Header::new(FrameType::Request, 2).length(20_001).encode());
        c.expect_failed(Code::FrameTooLarge);
        w.finish();
    });
}

#[test]
fn unknown_flag_bits_are_ignored() {
    weathers(|| {
        let w = World::one_core(Limits::default());
        let c = w.consumer("ch");
        let p = w.provider("ch", 1);
        c.send(request(1).flag(Flags(0xc0)).end());
        p.expect(request(1).end());
        p.send(response(1).flag(Flags(0xc0)).end());
        c.expect(response(1).end());
        w.finish();
    });
}

#[test]
fn header_blocks_travel_untouched() {
    weathers(|| {
        let w = World::one_core(Limits::default());
        let c = w.consumer("ch");
        let p = w.provider("ch", 1);
        let up = [("traceparent", "00-1-2"), ("content-type", "text/plain")];
        c.send(request(1).headers(&up).body("b").end());
        p.expect(request(1).headers(&up).body("b").end());
        let down = [("event-type", "x"), ("empty", "")];
        p.send(response(1).headers(&down).end());
        c.expect(response(1).headers(&down).end());
        // an empty block, and one at the bound
        c.send(request(1).headers(&[]).end());
        p.expect(request(1).headers(&[]).end());
        let long = "v".repeat(16 * 1024 - 3 - 1);
        p.send(response(1).headers(&[("k", &long)]).body("x"));
        c.expect(response(1).headers(&[("k", &long)]).body("x"));
        p.send(data(1).end());
        c.expect(data(1).end());
        w.finish();
    });
}

#[test]
fn a_malformed_header_block_ends_the_connection() {
    let cut: &[u8] = &[5, 0, 1, b'k', 9, 0, 1];
    let long: &[u8] = &[0x01, 0x40];
    let not_filled: &[u8] = &[1, 0, 0];
    weathers(|| {
        for block in [cut, not_filled] {
            let w = World::one_core(Limits::default());
            let c = w.consumer("ch");
            let p = w.provider("ch", 1);
            c.send(request(1).end());
            p.expect(request(1).end());
            p.send(response(1).block(block).end());
            p.expect_failed(Code::Protocol);
            c.expect(error(1, Code::ProviderLost).started());
            c.send(request(1).block(block).end());
            c.expect_failed(Code::Protocol);
            w.finish();
        }
        let w = World::one_core(Limits::default());
        let c = w.consumer("ch");
        // above 16 KiB, known from its size alone
        c.send(request(1).block(long).body(vec![0; 17_000]));
        c.expect_failed(Code::Protocol);
        // a block that says it is longer than the payload
        let c = w.consumer("ch");
        c.send(request(1).block(&[9, 0, 0, 0]));
        c.expect_failed(Code::Protocol);
        // no room for the size
        let c = w.consumer("ch");
        c.send(request(1).block(&[9]));
        c.expect_failed(Code::Protocol);
        // no room for the request id
        let c = w.consumer("ch");
        c.send_bytes(&Header::new(FrameType::Request, 1).length(15).encode());
        c.expect_failed(Code::Protocol);
        w.finish();
    });
}

#[test]
fn a_frame_too_short_for_its_block_is_not_judged_by_the_next_ones_bytes() {
    weathers(|| {
        for kind in [FrameType::Request, FrameType::Response] {
            let w = World::one_core(Limits::default());
            let (c, head) = match kind {
                FrameType::Request => (w.consumer("ch"), 16),
                _ => (w.provider("ch", 1), 0),
            };
            let mut bytes = Header::new(kind, 1).flags(Flags::HEADERS).length(head).encode().to_vec();
            bytes.extend([0xff; 40]);
            c.send_bytes(&bytes);
            let text = format!("payload of {head} bytes is too short: its head takes {}", head + 2);
            c.expect(error(0, Code::Protocol).text(&text));
            c.expect_closed();
        }
    });
}

#[test]
fn texts_are_utf8_and_at_most_1024_bytes() {
    weathers(|| {
        let w = World::one_core(Limits::default());
        let c = w.consumer("ch");
        let p = w.provider("ch", 2);
        let long = "ä".repeat(512);
        c.send(request(1).end());
        p.expect(request(1).end());
        p.send(error(1, Code::Application).text(&long));
        c.expect(error(1, Code::Application).text(&long).started());
        c.send(goaway().body([0xff]));
        c.expect_failed(Code::Protocol);
        let c = w.consumer("ch");
        c.send(goaway().body([b'x'; 1025]));
        c.expect_failed(Code::Protocol);
        let c = w.consumer("ch");
        c.send(error(0, Code::Internal).body([0xff, 0xfe]));
        c.expect_failed(Code::Protocol);
        let c = w.consumer("ch");
        c.send(request(1).end());
        p.expect(request(1).end());
        p.send(error(1, Code::Application).body([0xc3]));
        p.expect_failed(Code::Protocol);
        c.expect(error(1, Code::ProviderLost).started());
        w.finish();
    });
}

#[test]
fn an_error_on_stream_0_from_a_client_ends_its_connection() {
    weathers(|| {
        let w = World::one_core(Limits::default());
        let c = w.consumer("ch");
        let p = w.provider("ch", 1);
        c.send(request(1).end());
        p.expect(request(1).end());
        p.send(error(0, Code::Internal).text("my fault"));
        c.expect(error(1, Code::ProviderLost).started());
        w.finish();
    });
}

#[test]
fn control_payloads_have_their_lengths() {
    weathers(|| {
        for frame in [
            cancel(1, Code::Cancelled).body("x"),
            credit(1, 5).body("x"),
            raw(Header::new(FrameType::Ping, 0)).body("1234567"),
            raw(Header::new(FrameType::Ping, 0)).body("123456789"),
            raw(Header::new(FrameType::Pong, 0)).body("1"),
            raw(Header::new(FrameType::Ping, 1)).body("12345678"),
            raw(Header::new(FrameType::Pong, 1)).body("12345678"),
            raw(Header::new(FrameType::GoAway, 1)),
        ] {
            let w = World::one_core(Limits::default());
            let c = w.consumer("ch");
            c.send(frame);
            c.expect_failed(Code::Protocol);
            w.finish();
        }
    });
}

#[test]
fn control_frames_overtake_bodies() {
    let w = World::one_core(Limits { connection_buffer: 100, ..Limits::default() });
    let c = w.consumer("ch");
    let p = w.provider("ch", 1);
    c.send(request(1).end());
    p.expect(request(1).end());
    c.stall(0);
    p.send(response(1).body(vec![1; 60]));
    p.send(data(1).body(vec![2; 2000]));
    // the first batch is out; the PONG leaves before the rest of the body
    c.send(ping(b"overtake"));
    c.resume();
    c.expect(response(1).body(vec![1; 60]));
    let next = c.next().unwrap();
    let position = if next.header.frame_type() == Some(FrameType::Pong) { 0 } else { 1 };
    assert!(position == 0 || c.next().unwrap().header.frame_type() == Some(FrameType::Pong), "PONG came late");
    w.finish();
}
