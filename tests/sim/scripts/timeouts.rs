//! §7: silence, unfinished frames, peers that take nothing.

use super::*;
use crate::wire::*;
use corelay::protocol::{Code, FrameType, Header};

#[test]
fn a_silent_peer_is_pinged_then_closed() {
    weathers(|| {
        let w = World::one_core(Limits { keepalive: ms(100), ..Limits::default() });
        let c = w.consumer("ch");
        w.advance(ms(99));
        c.expect_nothing();
        w.advance(ms(1));
        let ping = c.next().unwrap();
        assert_eq!(ping.header.frame_type(), Some(FrameType::Ping));
        w.advance(ms(199));
        c.expect_nothing();
        w.advance(ms(1));
        c.expect_failed(Code::Timeout);
        w.finish();
    });
}

#[test]
fn a_pong_or_any_byte_keeps_it_alive() {
    weathers(|| {
        let w = World::one_core(Limits { keepalive: ms(100), ..Limits::default() });
        let c = w.consumer("ch");
        for round in 0..5 {
            w.advance(ms(100));
            let ping = c.next().unwrap();
            assert_eq!(ping.header.frame_type(), Some(FrameType::Ping));
            w.advance(ms(150));
            let bytes: [u8; 8] = ping.payload.try_into().unwrap();
            c.send(if round % 2 == 0 { pong(&bytes) } else { credit(9, 1) });
        }
        c.expect_nothing();
        w.finish();
    });
}

#[test]
fn pings_are_answered_and_an_unasked_pong_is_ignored() {
    weathers(|| {
        let w = World::one_core(Limits::default());
        let p = w.provider("ch", 1);
        p.send(ping(b"12345678"));
        p.expect(pong(b"12345678"));
        p.send(pong(b"unasked!"));
        p.expect_nothing();
        w.finish();
    });
}

#[test]
fn a_burst_of_20_pings_is_taken_and_one_more_is_a_flood() {
    weathers(|| {
        let w = World::one_core(Limits::default());
        let c = w.consumer("ch");
        for _ in 0..20 {
            c.send(ping(b"12345678"));
            c.expect(pong(b"12345678"));
        }
        w.advance(ms(100));
        c.send(ping(b"12345678"));
        c.expect(pong(b"12345678"));
        c.send(ping(b"12345678"));
        c.expect_failed(Code::Flood);
        w.finish();
    });
}

#[test]
fn a_head_must_be_whole_within_frame_timeout() {
    let whole = request(1).headers(&[("k", "v")]).body("body").encode();
    let head = whole.len() - 4;
    weathers(|| {
        // in the header, in the request id, in the header block
        for cut in [1, 15, 16, 20, 33, head - 1] {
            let w = World::one_core(Limits { frame_timeout: ms(300), ..Limits::default() });
            let c = w.consumer("ch");
            c.send_bytes(&whole[..cut]);
            w.advance(ms(200));
            c.send_bytes(&whole[cut..cut + 1]);
            if cut + 1 < head {
                w.advance(ms(99));
                c.expect_nothing();
                w.advance(ms(1));
                c.expect_failed(Code::Timeout);
            }
            w.finish();
        }
    });
}

#[test]
fn a_body_may_take_its_time() {
    weathers(|| {
        let w = World::one_core(Limits { frame_timeout: ms(300), ..Limits::default() });
        let c = w.consumer("ch");
        let p = w.provider("ch", 1);
        let whole = request(1).body("body").end().encode();
        let (head, body) = whole.split_at(whole.len() - 4);
        c.send_bytes(head);
        p.expect(request(1));
        for byte in body {
            w.advance(ms(1000));
            c.send_bytes(&[*byte]);
        }
        p.expect(data(1).body("body").end());
        w.finish();
    });
}

#[test]
fn an_extension_s_payload_may_take_its_time() {
    weathers(|| {
        let w = World::one_core(Limits { frame_timeout: ms(300), ..Limits::default() });
        let c = w.consumer("ch");
        c.send_bytes(&Header { kind: 0x80, ..Header::new(FrameType::Ping, 0) }.length(4).encode());
        for _ in 0..4 {
            w.advance(ms(1000));
            c.send_bytes(b"x");
        }
        c.send(ping(b"12345678"));
        c.expect(pong(b"12345678"));
        w.finish();
    });
}

#[test]
fn a_peer_that_takes_nothing_is_closed_after_write_timeout() {
    let w = World::one_core(Limits { write_timeout: ms(500), ..Limits::default() });
    let c = w.consumer("ch");
    let p = w.provider("ch", 1);
    c.send(request(1).end());
    p.expect(request(1).end());
    c.stall(0);
    p.send(response(1).body("x"));
    w.advance(ms(499));
    assert!(c.is_open());
    w.advance(ms(1));
    c.expect_aborted();
    p.expect(cancel(1, Code::ConsumerLost));
    assert_eq!(w.counters().connections_failed[usize::from(Code::Timeout.to_wire())], 1);
    w.finish();
}

#[test]
fn a_peer_that_takes_a_byte_now_and_then_is_not() {
    let w = World::one_core(Limits { write_timeout: ms(500), ..Limits::default() });
    let c = w.consumer("ch");
    let p = w.provider("ch", 1);
    c.send(request(1).end());
    p.expect(request(1).end());
    c.stall(5);
    p.send(response(1).body("a longer answer"));
    for _ in 0..10 {
        w.advance(ms(400));
        c.sip(1);
    }
    assert!(c.is_open());
    w.advance(ms(500));
    c.expect_aborted();
    w.finish();
}
