//! §6: each way a request fails, and what both sides are told.

use super::*;
use crate::wire::*;
use corelay::protocol::{Code, Header};

#[test]
fn nobody_serves_the_channel() {
    weathers(|| {
        let w = World::one_core(Limits::default());
        let _other = w.provider("other", 5);
        let c = w.consumer("ch");
        c.send(request(1).body("x").end());
        c.expect(error(1, Code::NoProvider));
        c.send(request(1).body("x"));
        c.expect(error(1, Code::NoProvider));
        c.send(data(1).end());
        c.expect_nothing();
        w.finish();
    });
}

#[test]
fn a_deadline_in_flight_and_what_is_left_of_it() {
    weathers(|| {
        let w = World::one_core(Limits::default());
        let c = w.consumer("ch");
        let p = w.provider("ch", 5);
        c.send(request(1).timeout(100).body("x"));
        p.expect(request(1).timeout(100).body("x"));
        w.advance(ms(99));
        c.expect_nothing();
        w.advance(ms(1));
        c.expect(error(1, Code::Deadline).started());
        p.expect(cancel(1, Code::Deadline));
        c.send(data(1).body("on its way"));
        c.send(cancel(1, Code::Cancelled));
        p.send(error(1, Code::Cancelled));
        c.expect_nothing();
        p.expect_nothing();
        w.finish();
    });
}

#[test]
fn a_deadline_in_the_queue() {
    weathers(|| {
        let w = World::one_core(Limits::default());
        let c = w.consumer("ch");
        let p = w.provider("ch", 1);
        c.send(request(1).end());
        c.send(request(2).timeout(70).end());
        c.send(request(3).timeout(200).end());
        p.expect(request(1).end());
        w.advance(ms(70));
        c.expect(error(2, Code::Deadline));
        p.send(response(1).end());
        c.expect(response(1).end());
        // the clock has run since the broker read its header
        p.expect(request(1).timeout(130).end());
        w.finish();
    });
}

#[test]
fn no_timeout_means_the_default_and_none_exceeds_the_maximum() {
    weathers(|| {
        let limits = Limits { default_timeout: ms(300), max_timeout: ms(1000), ..Limits::default() };
        let w = World::one_core(limits);
        let c = w.consumer("ch");
        let p = w.provider("ch", 5);
        c.send(request(1).end());
        p.expect(request(1).timeout(300).end());
        c.send(request(2).timeout(u32::MAX).end());
        p.expect(request(2).timeout(1000).end());
        w.advance(ms(300));
        c.expect(error(1, Code::Deadline).started());
        w.finish();
    });
}

#[test]
fn a_cancel_in_flight() {
    weathers(|| {
        let w = World::one_core(Limits::default());
        let c = w.consumer("ch");
        let p = w.provider("ch", 5);
        c.send(request(1).body("x"));
        p.expect(request(1).body("x"));
        c.send(cancel(1, Code::Cancelled));
        c.expect(error(1, Code::Cancelled).started());
        p.expect(cancel(1, Code::Cancelled));
        // its id is free for the consumer; the provider still owes a terminal frame, and may send what was granted
        c.send(request(1).end());
        p.expect(request(2).end());
        p.send(response(1).body("late"));
        p.send(data(1).end());
        p.send(response(2).end());
        c.expect(response(1).end());
        c.expect_nothing();
        w.finish();
    });
}

#[test]
fn a_cancel_in_the_queue() {
    weathers(|| {
        let w = World::one_core(Limits::default());
        let c = w.consumer("ch");
        let p = w.provider("ch", 1);
        c.send(request(1).end());
        p.expect(request(1).end());
        c.send(request(2).end());
        c.send(request(3).end());
        c.send(cancel(2, Code::Cancelled));
        c.expect(error(2, Code::Cancelled));
        p.send(response(1).end());
        c.expect(response(1).end());
        p.expect(request(1).end());
        p.expect_nothing();
        w.finish();
    });
}

#[test]
fn a_cancelled_slot_counts_until_its_end_or_the_grace_is_over() {
    weathers(|| {
        let w = World::one_core(Limits { cancel_grace: ms(500), ..Limits::default() });
        let c = w.consumer("ch");
        let p = w.provider("ch", 2);
        c.send(request(1).end());
        c.send(request(2).end());
        p.expect(request(1).end());
        p.expect(request(2).end());
        c.send(request(3).end());
        c.send(cancel(1, Code::Cancelled));
        c.expect(error(1, Code::Cancelled).started());
        p.expect(cancel(1, Code::Cancelled));
        p.expect_nothing();
        w.advance(ms(499));
        p.expect_nothing();
        w.advance(ms(1));
        // the slot is free, the id is not
        p.expect(request(3).end());
        // a second overdue id: with max_concurrent of them nothing more is given
        c.send(cancel(2, Code::Cancelled));
        c.expect(error(2, Code::Cancelled).started());
        p.expect(cancel(2, Code::Cancelled));
        c.send(request(4).end());
        w.advance(ms(500));
        p.expect_nothing();
        // ... until one ends
        p.send(error(1, Code::Cancelled));
        p.expect(request(1).end());
        w.finish();
    });
}

#[test]
fn a_consumer_lost_cancels_its_requests() {
    weathers(|| {
        let w = World::one_core(Limits::default());
        let c = w.consumer("ch");
        let other = w.consumer("ch");
        let p = w.provider("ch", 1);
        c.send(request(1).body("x"));
        p.expect(request(1).body("x"));
        c.send(request(2).end());
        other.send(request(1).end());
        c.close();
        p.expect(cancel(1, Code::ConsumerLost));
        p.send(error(1, Code::Cancelled));
        p.expect(request(1).id([1; 16]).end());
        p.send(response(1).end());
        other.expect(response(1).end());
        w.finish();
    });
}

#[test]
fn a_provider_lost_fails_what_it_had_with_started() {
    weathers(|| {
        let w = World::one_core(Limits::default());
        let c = w.consumer("ch");
        let p = w.provider("ch", 2);
        c.send(request(1).body("x"));
        p.expect(request(1).body("x"));
        c.send(request(2).end());
        p.expect(request(2).end());
        p.send(response(2).body("half"));
        c.expect(response(2).body("half"));
        c.send(request(3).end());
        p.close();
        let mut codes = std::collections::BTreeMap::new();
        for _ in 0..3 {
            let seen = c.next().unwrap();
            codes.insert(seen.header.stream, (Code::from_wire(seen.header.code).unwrap(), seen.header.flags.0));
        }
        assert_eq!(codes[&1], (Code::ProviderLost, 0x20));
        assert_eq!(codes[&2], (Code::ProviderLost, 0x20));
        assert_eq!(codes[&3], (Code::NoProvider, 0));
        w.finish();
    });
}

#[test]
fn the_provider_s_own_error_is_application_whatever_its_code() {
    weathers(|| {
        let w = World::one_core(Limits::default());
        let c = w.consumer("ch");
        let p = w.provider("ch", 2);
        for code in [0, 1, 3, 6, 13, 999] {
            c.send(request(1).end());
            p.expect(request(1).end());
            p.send(raw(Header { code, ..error(1, Code::Internal).header }).text("disk full"));
            c.expect(error(1, Code::Application).text("disk full").started());
        }
        w.finish();
    });
}

#[test]
fn an_error_before_the_request_has_ended_stops_it() {
    weathers(|| {
        let w = World::one_core(Limits::default());
        let c = w.consumer("ch");
        let p = w.provider("ch", 1);
        c.send(request(1).body("x"));
        p.expect(request(1).body("x"));
        p.send(error(1, Code::Application).text("no"));
        c.expect(error(1, Code::Application).text("no").started());
        p.expect(cancel(1, Code::Cancelled));
        c.send(data(1).body("more"));
        c.send(data(1).end());
        p.expect_nothing();
        w.finish();
    });
}

#[test]
fn a_peer_that_reads_nothing_and_provokes_errors_is_a_flood() {
    let limits = Limits { max_streams: 4, connection_buffer: 100, ..Limits::default() };
    let w = World::one_core(limits);
    let c = w.consumer("nobody");
    c.stall(0);
    for _ in 0..3000 {
        if !c.is_open() {
            break;
        }
        c.send(request(1).end());
    }
    assert_eq!(w.counters().connections_failed[usize::from(Code::Flood.to_wire())], 1);
    w.advance(ms(10_000));
    c.expect_aborted();
    w.finish();
}
