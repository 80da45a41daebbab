//! §3: stream ids, directions, terminal frames.

use super::*;
use crate::wire::*;
use corelay::protocol::{Code, FrameType, Header};

#[test]
fn a_request_and_its_answer() {
    weathers(|| {
        let w = World::one_core(Limits::default());
        let c = w.consumer("ch");
        let p = w.provider("ch", 2);
        c.send(request(7).id(*b"0123456789abcdef").timeout(5000).body("hello").end());
        p.expect(request(1).id(*b"0123456789abcdef").body("hello").end());
        p.send(response(1).body("world").end());
        c.expect(response(7).body("world").end());
        c.expect_nothing();
        p.expect_nothing();
        w.finish();
    });
}

#[test]
fn bodies_come_in_any_pieces_in_order() {
    weathers(|| {
        let w = World::one_core(Limits::default());
        let c = w.consumer("ch");
        let p = w.provider("ch", 2);
        c.send(request(1).body("a"));
        p.expect(request(1).body("a"));
        for part in ["bc", "", "def"] {
            c.send(data(1).body(part));
        }
        c.send(data(1).end());
        p.expect(data(1).body("bcdef").end());
        p.send(response(1));
        c.expect(response(1));
        p.send(data(1).body("x"));
        p.send(data(1).body("yz").end());
        c.expect(data(1).body("xyz").end());
        w.finish();
    });
}

#[test]
fn ids_are_reused_small_or_large() {
    weathers(|| {
        let w = World::one_core(Limits::default());
        let c = w.consumer("ch");
        let p = w.provider("ch", 1);
        for id in [1, 1, 1023, 1024, u32::MAX, u32::MAX, 1] {
            c.send(request(id).body("q").end());
            p.expect(request(1).body("q").end());
            p.send(response(1).end());
            c.expect(response(id).end());
        }
        w.finish();
    });
}

#[test]
fn request_on_an_id_in_use_ends_the_connection() {
    weathers(|| {
        for answered in [false, true] {
            let w = World::one_core(Limits::default());
            let c = w.consumer("ch");
            let p = w.provider("ch", 2);
            c.send(request(1).body("not ended"));
            p.expect(request(1).body("not ended"));
            if answered {
                p.send(response(1).end());
                c.expect(response(1).end());
            }
            c.send(request(1).end());
            c.expect_failed(Code::Protocol);
            w.finish();
        }
    });
}

#[test]
fn data_where_it_does_not_belong_ends_the_connection() {
    weathers(|| {
        let w = World::one_core(Limits::default());
        let c = w.consumer("ch");
        c.send(data(3).body("x"));
        c.expect_failed(Code::Protocol);
        let c = w.consumer("ch");
        let p = w.provider("ch", 2);
        c.send(request(1).end());
        p.expect(request(1).end());
        c.send(data(1).body("x"));
        c.expect_failed(Code::Protocol);
        p.expect(cancel(1, Code::ConsumerLost));
        // ... and from a provider: before RESPONSE, after END, on an id nobody gave it
        p.send(data(1).body("x"));
        p.expect_failed(Code::Protocol);
        let p = w.provider("ch", 2);
        p.send(data(1));
        p.expect_failed(Code::Protocol);
        let p = w.provider("ch", 2);
        p.send(response(1).end());
        p.expect_failed(Code::Protocol);
        let p = w.provider("ch", 2);
        p.send(error(1, Code::Application));
        p.expect_failed(Code::Protocol);
        w.finish();
    });
}

#[test]
fn credit_and_cancel_on_an_unused_id_are_races() {
    weathers(|| {
        let w = World::one_core(Limits::default());
        let c = w.consumer("ch");
        let p = w.provider("ch", 2);
        c.send(credit(9, 10));
        c.send(cancel(9, Code::Cancelled));
        p.send(credit(9, 10));
        c.expect_nothing();
        p.expect_nothing();
        w.finish();
    });
}

#[test]
fn an_answer_may_end_before_the_request() {
    weathers(|| {
        for with_end in [false, true] {
            let w = World::one_core(Limits::default());
            let c = w.consumer("ch");
            let p = w.provider("ch", 1);
            c.send(request(1).body("a"));
            p.expect(request(1).body("a"));
            p.send(response(1).body("early").end());
            c.expect(response(1).body("early").end());
            // the broker has opened the stream towards the provider and now says that no more comes
            p.expect(cancel(1, Code::Cancelled));
            c.send(data(1).body("on its way"));
            if with_end {
                c.send(data(1).body("the rest").end());
            } else {
                c.send(cancel(1, Code::Cancelled));
            }
            c.expect_nothing();
            p.expect_nothing();
            // both sides may use their id again
            c.send(request(1).body("b").end());
            p.expect(request(1).body("b").end());
            p.send(response(1).end());
            c.expect(response(1).end());
            w.finish();
        }
    });
}

#[test]
fn an_answer_may_begin_before_the_request_has_ended() {
    weathers(|| {
        let w = World::one_core(Limits::default());
        let c = w.consumer("ch");
        let p = w.provider("ch", 1);
        c.send(request(1).body("a"));
        p.expect(request(1).body("a"));
        p.send(response(1).body("1"));
        c.expect(response(1).body("1"));
        c.send(data(1).body("b").end());
        p.expect(data(1).body("b").end());
        p.send(data(1).body("2").end());
        c.expect(data(1).body("2").end());
        w.finish();
    });
}

#[test]
fn error_at_any_point_of_the_answer_comes_behind_its_bytes() {
    weathers(|| {
        let w = World::one_core(Limits::default());
        let c = w.consumer_with("ch", 5);
        let p = w.provider("ch", 1);
        c.send(request(1).end());
        p.expect(request(1).end());
        p.send(response(1).body("12345678"));
        p.send(error(1, Code::Deadline).text("no luck"));
        c.expect(response(1).body("12345"));
        c.expect_nothing();
        c.send(credit(1, 10));
        c.expect(data(1).body("678"));
        c.expect(error(1, Code::Application).text("no luck").started());
        w.finish();
    });
}

#[test]
fn more_than_max_streams_is_overloaded_and_max_streams_is_not() {
    weathers(|| {
        let w = World::one_core(Limits { max_streams: 2, ..Limits::default() });
        let c = w.consumer("ch");
        let p = w.provider("ch", 10);
        c.send(request(1).body("x"));
        c.send(request(2).body("x"));
        p.expect(request(1).body("x"));
        p.expect(request(2).body("x"));
        c.send(request(3).body("whole").end());
        c.expect(error(3, Code::Overloaded));
        p.expect_nothing();
        // its id is free at once; others go on
        c.send(data(1).end());
        p.expect(data(1).end());
        p.send(response(1).end());
        c.expect(response(1).end());
        c.send(request(3).end());
        p.expect(request(1).end());
        w.finish();
    });
}

#[test]
fn a_refused_request_holds_its_id_until_it_ends() {
    weathers(|| {
        let w = World::one_core(Limits { max_streams: 1, ..Limits::default() });
        let c = w.consumer("ch");
        let _p = w.provider("ch", 10);
        c.send(request(1).body("x"));
        c.send(request(2).body("begins"));
        c.expect(error(2, Code::Overloaded));
        c.send(data(2).body("goes on"));
        c.send(data(2).body("ends").end());
        c.send(request(2).body("again"));
        c.expect(error(2, Code::Overloaded));
        c.send(cancel(2, Code::Cancelled));
        c.send(request(2).body("again"));
        c.expect(error(2, Code::Overloaded));
        c.send(request(2));
        c.expect_failed(Code::Protocol);
        w.finish();
    });
}

#[test]
fn too_many_refused_requests_are_a_flood() {
    weathers(|| {
        let w = World::one_core(Limits { max_streams: 2, ..Limits::default() });
        let c = w.consumer("ch");
        let _p = w.provider("ch", 10);
        for id in 1..=4 {
            c.send(request(id).body("x"));
        }
        c.expect(error(3, Code::Overloaded));
        c.expect(error(4, Code::Overloaded));
        // one that ends with itself is no flood
        c.send(request(5).end());
        c.expect(error(5, Code::Overloaded));
        c.send(request(5));
        c.expect_failed(Code::Flood);
        w.finish();
    });
}

#[test]
fn ids_answered_early_count_as_open() {
    weathers(|| {
        let w = World::one_core(Limits { max_streams: 2, ..Limits::default() });
        let c = w.consumer("nobody");
        for id in 1..=2 {
            c.send(request(id).body("x"));
            c.expect(error(id, Code::NoProvider));
        }
        c.send(request(3).end());
        c.expect(error(3, Code::Overloaded));
        c.send(cancel(1, Code::Cancelled));
        c.send(request(3).end());
        c.expect(error(3, Code::NoProvider));
        w.finish();
    });
}

#[test]
fn what_was_refused_is_still_bound_by_its_window() {
    weathers(|| {
        let w = World::one_core(window(10));
        let c = w.consumer("nobody");
        c.send(request(1).body("12345"));
        c.expect(error(1, Code::NoProvider));
        c.send(data(1).body("67890"));
        c.send(data(1).body("!"));
        c.expect_failed(Code::FlowControl);
        w.finish();
    });
}

#[test]
fn a_provider_cannot_answer_what_it_was_not_sent() {
    // the first request fills the connection's buffer; the second is assigned, and not sent
    let w = World::one_core(Limits { connection_buffer: 10, ..Limits::default() });
    let c = w.consumer("ch");
    let p = w.provider("ch", 2);
    p.stall(0);
    c.send(request(1).body(vec![1; 50_000]));
    c.send(request(2).body(vec![2; 500]));
    p.send(response(2).body("guessed"));
    p.resume();
    while p.next().is_some_and(|seen| seen.header.frame_type() != Some(FrameType::Error)) {}
    p.expect_closed();
    c.expect(error(1, Code::ProviderLost).started());
    // nobody had begun the other
    c.expect(error(2, Code::NoProvider));
    w.finish();
}

#[test]
fn cancel_after_the_answer_frees_the_id_silently() {
    weathers(|| {
        let w = World::one_core(Limits::default());
        let c = w.consumer("ch");
        let p = w.provider("ch", 1);
        c.send(request(1).end());
        p.expect(request(1).end());
        p.send(response(1).end());
        c.expect(response(1).end());
        c.send(cancel(1, Code::Cancelled));
        c.send(raw(Header::new(FrameType::Cancel, 1)));
        c.expect_nothing();
        w.finish();
    });
}
