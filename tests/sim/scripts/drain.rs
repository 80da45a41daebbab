//! §7: GOAWAY from the broker.

use super::*;
use crate::wire::*;
use corelay::protocol::{Code, FrameType};

fn expect_goaway(c: &Client) {
    let seen = c.next().expect("GOAWAY");
    assert_eq!(seen.header.frame_type(), Some(FrameType::GoAway), "{seen:?}");
    assert_eq!(seen.header.code, Code::Draining.to_wire());
}

#[test]
fn idle_connections_are_told_and_closed() {
    weathers(|| {
        let w = World::one_core(Limits::default());
        let (c, p, stranger) = (w.consumer("ch"), w.provider("ch", 1), w.connect());
        w.drain();
        expect_goaway(&c);
        c.expect_closed();
        expect_goaway(&p);
        p.expect_closed();
        stranger.expect_failed(Code::Draining);
        assert!(w.is_drained());
        w.finish();
    });
}

#[test]
fn what_is_in_flight_finishes_what_waits_does_not() {
    weathers(|| {
        let w = World::one_core(Limits::default());
        let c = w.consumer("ch");
        let p = w.provider("ch", 1);
        c.send(request(1).body("a"));
        p.expect(request(1).body("a"));
        c.send(request(2).wait().end());
        w.drain();
        expect_goaway(&p);
        let mut kinds = [c.next().unwrap(), c.next().unwrap()];
        kinds.sort_by_key(|seen| seen.header.kind);
        assert_eq!(kinds[0].header.frame_type(), Some(FrameType::Error));
        assert_eq!((kinds[0].header.stream, kinds[0].header.flags.0), (2, 0));
        assert_eq!(kinds[0].header.code, Code::Draining.to_wire());
        assert_eq!(kinds[1].header.frame_type(), Some(FrameType::GoAway));
        c.send(request(3).end());
        c.expect(error(3, Code::Draining));
        c.send(data(1).body("b").end());
        p.expect(data(1).body("b").end());
        p.send(response(1).body("done").end());
        c.expect(response(1).body("done").end());
        c.expect_closed();
        p.expect_closed();
        assert!(w.is_drained());
        w.finish();
    });
}

#[test]
fn at_drain_timeout_what_is_left_ends_with_started() {
    weathers(|| {
        let w = World::one_core(Limits { drain_timeout: ms(700), ..Limits::default() });
        let c = w.consumer("ch");
        let p = w.provider("ch", 1);
        c.send(request(1).body("a"));
        p.expect(request(1).body("a"));
        w.drain();
        expect_goaway(&c);
        expect_goaway(&p);
        w.advance(ms(699));
        c.expect_nothing();
        w.advance(ms(1));
        c.expect(error(1, Code::Draining).started());
        c.expect_closed();
        p.expect(cancel(1, Code::Draining));
        p.expect_closed();
        assert!(w.is_drained());
        w.finish();
    });
}

#[test]
fn a_retry_is_not_tried_again_while_draining() {
    weathers(|| {
        let w = World::one_core(Limits::default());
        let c = w.consumer("ch");
        let p = w.provider("ch", 1);
        let _second = w.provider("ch", 1);
        c.send(request(1).retry().wait().end());
        w.drain();
        p.close();
        _second.close();
        expect_goaway(&c);
        c.expect(error(1, Code::ProviderLost).started());
        c.expect_closed();
        w.finish();
    });
}

#[test]
fn a_connection_made_while_draining_is_refused() {
    weathers(|| {
        let w = World::one_core(Limits::default());
        w.drain();
        let c = w.connect();
        let mut bytes = Vec::new();
        hello(corelay::protocol::Role::Consumer, "ch", 1, 0).encode(&mut bytes).unwrap();
        c.send_bytes(&bytes);
        c.expect_failed(Code::Draining);
        w.finish();
    });
}

#[test]
fn abort_ends_everything_at_once() {
    weathers(|| {
        let w = World::one_core(Limits::default());
        let (c, p, stranger) = (w.consumer("ch"), w.provider("ch", 1), w.connect());
        c.send(request(1).body("x"));
        c.send(request(2).wait().body("x"));
        p.stall(0);
        w.abort();
        for client in [&c, &p, &stranger] {
            client.expect_aborted();
        }
        assert!(w.is_drained());
        w.finish();
    });
}
