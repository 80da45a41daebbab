//! §6: balancing, and waiting for a provider.

use super::*;
use crate::wire::*;
use corelay::protocol::{Code, FrameType};

#[test]
fn none_is_given_more_than_max_concurrent() {
    weathers(|| {
        let w = World::one_core(Limits::default());
        let c = w.consumer("ch");
        let p = w.provider("ch", 2);
        for id in 1..=3 {
            c.send(request(id).end());
        }
        p.expect(request(1).end());
        p.expect(request(2).end());
        p.expect_nothing();
        p.send(response(2).end());
        p.expect(request(2).id([3; 16]).end());
        w.finish();
    });
}

#[test]
fn the_smaller_share_in_use_is_taken() {
    let w = World::one_core(Limits::default());
    let c = w.consumer("ch");
    let small = w.provider("ch", 10);
    let large = w.provider("ch", 90);
    // of two there are only these two: the smaller share wins each time, so they fill alike
    for id in 1..=50 {
        c.send(request(id).end());
    }
    let count = |p: &Client| std::iter::from_fn(|| p.next()).count();
    let (few, many) = (count(&small), count(&large));
    assert_eq!(few + many, 50);
    assert!((4..=6).contains(&few), "{few} of 50 went to the provider with a tenth of the room");
    w.finish();
}

#[test]
fn many_providers_share_evenly() {
    let w = World::one_core(Limits::default());
    let c = w.consumer("ch");
    let providers: Vec<_> = (0..8).map(|_| w.provider("ch", 100)).collect();
    for id in 1..=400 {
        c.send(request(id).end());
    }
    for p in &providers {
        let count = std::iter::from_fn(|| p.next()).count();
        assert!((40..=60).contains(&count), "{count} of 400 went to one of eight");
    }
    w.finish();
}

#[test]
fn requests_that_wait_are_served_in_order_and_round_robin_between_consumers() {
    weathers(|| {
        let w = World::one_core(Limits::default());
        let a = w.consumer("ch");
        let b = w.consumer("ch");
        for id in 1..=4 {
            a.send(request(id).id([10 + id as u8; 16]).wait().end());
        }
        for id in 1..=2 {
            b.send(request(id).id([20 + id as u8; 16]).wait().end());
        }
        let p = w.provider("ch", 1);
        for expected in [11, 21, 12, 22, 13, 14] {
            p.expect(request(1).id([expected; 16]).wait().end());
            p.send(response(1).end());
        }
        w.finish();
    });
}

#[test]
fn a_request_waits_for_its_provider_and_its_body_grows_meanwhile() {
    weathers(|| {
        let w = World::one_core(window(10));
        let c = w.consumer("ch");
        c.send(request(1).wait().headers(&[("k", "v")]).body("123"));
        c.send(data(1).body("456"));
        c.expect_nothing();
        let p = w.provider_with("ch", 1, 4);
        p.expect(request(1).wait().headers(&[("k", "v")]).body("1234"));
        p.send(credit(1, 4));
        p.expect(data(1).body("56"));
        c.send(data(1).end());
        p.expect(data(1).end());
        w.finish();
    });
}

#[test]
fn without_wait_a_request_queues_only_while_somebody_serves() {
    weathers(|| {
        let w = World::one_core(Limits::default());
        let c = w.consumer("ch");
        let p = w.provider("ch", 1);
        for id in 1..=2 {
            c.send(request(id).end());
        }
        c.send(request(3).wait().end());
        p.expect(request(1).end());
        c.expect_nothing();
        p.close();
        let mut codes = std::collections::BTreeMap::new();
        for _ in 0..2 {
            let seen = c.next().unwrap();
            codes.insert(seen.header.stream, Code::from_wire(seen.header.code).unwrap());
        }
        assert_eq!((codes[&1], codes[&2]), (Code::ProviderLost, Code::NoProvider));
        c.expect_nothing();
        let p = w.provider("ch", 1);
        p.expect(request(1).id([3; 16]).wait().end());
        w.finish();
    });
}

#[test]
fn the_queue_is_bounded_in_number() {
    weathers(|| {
        let w = World::one_core(Limits { queue_requests: 2, ..Limits::default() });
        let c = w.consumer("ch");
        for id in 1..=3 {
            c.send(request(id).wait().end());
        }
        c.expect(error(3, Code::Overloaded));
        c.expect_nothing();
        let p = w.provider("ch", 2);
        p.expect(request(1).wait().end());
        p.expect(request(2).wait().end());
        w.finish();
    });
}

#[test]
fn the_queue_is_bounded_in_bytes() {
    weathers(|| {
        let w = World::one_core(Limits { queue_bytes: 10, ..Limits::default() });
        let c = w.consumer("ch");
        c.send(request(1).wait().body("12345"));
        c.send(data(1).body("67890"));
        c.send(request(2).wait());
        c.expect_nothing();
        c.send(data(2).body("x"));
        c.expect(error(2, Code::Overloaded));
        let p = w.provider("ch", 2);
        p.expect(request(1).wait().body("1234567890"));
        w.finish();
    });
}

#[test]
fn a_joining_provider_takes_what_waits() {
    weathers(|| {
        let w = World::one_core(Limits::default());
        let c = w.consumer("ch");
        let p = w.provider("ch", 1);
        for id in 1..=4 {
            c.send(request(id).end());
        }
        p.expect(request(1).end());
        let second = w.provider("ch", 2);
        second.expect(request(1).id([2; 16]).end());
        second.expect(request(2).id([3; 16]).end());
        second.expect_nothing();
        w.finish();
    });
}

#[test]
fn a_provider_that_says_goaway_gets_nothing_more_and_closes_when_it_has_finished() {
    weathers(|| {
        let w = World::one_core(Limits::default());
        let c = w.consumer("ch");
        let p = w.provider("ch", 5);
        c.send(request(1).body("x"));
        p.expect(request(1).body("x"));
        p.send(goaway().text("restarting"));
        p.expect_nothing();
        c.send(request(2).end());
        c.expect(error(2, Code::NoProvider));
        c.send(data(1).end());
        p.expect(data(1).end());
        p.send(response(1).body("last").end());
        c.expect(response(1).body("last").end());
        p.expect_closed();
        w.finish();
    });
}

#[test]
fn an_idle_provider_s_goaway_closes_it_at_once() {
    weathers(|| {
        let w = World::one_core(Limits::default());
        let p = w.provider("ch", 5);
        p.send(goaway());
        p.expect_closed();
        w.finish();
    });
}

#[test]
fn what_was_assigned_and_not_sent_when_goaway_came_goes_to_another() {
    let w = World::one_core(Limits { connection_buffer: 10, ..Limits::default() });
    let c = w.consumer("ch");
    let p = w.provider("ch", 2);
    p.stall(0);
    c.send(request(1).body(vec![1; 50_000]).end());
    c.send(request(2).body("second").end());
    let second = w.provider("ch", 1);
    second.expect_nothing();
    p.send(goaway());
    second.expect(request(1).id([2; 16]).body("second").end());
    p.resume();
    p.expect(request(1).body(vec![1; 50_000]).end());
    p.send(response(1).end());
    c.expect(response(1).end());
    p.expect_closed();
    w.finish();
}

#[test]
fn a_consumer_that_says_goaway_opens_no_more_and_is_closed_when_all_is_finished() {
    weathers(|| {
        let w = World::one_core(Limits::default());
        let c = w.consumer("ch");
        let p = w.provider("ch", 5);
        c.send(request(1).body("x"));
        p.expect(request(1).body("x"));
        c.send(goaway());
        c.send(data(1).body("y").end());
        p.expect(data(1).body("y").end());
        p.send(response(1).end());
        c.expect(response(1).end());
        c.expect_closed();
        let c = w.consumer("ch");
        c.send(request(1).end());
        p.expect(request(1).end());
        c.send(goaway());
        c.send(request(2).end());
        assert_eq!(c.next().unwrap().header.frame_type(), Some(FrameType::Error));
        c.expect_closed();
        p.expect(cancel(1, Code::ConsumerLost));
        w.finish();
    });
}

#[test]
fn channels_do_not_mix() {
    weathers(|| {
        let w = World::one_core(Limits::default());
        let (a, b) = (w.consumer("a"), w.consumer("b"));
        let (pa, pb) = (w.provider("a", 1), w.provider("b", 1));
        a.send(request(1).body("a").end());
        b.send(request(1).body("b").end());
        pa.expect(request(1).body("a").end());
        pb.expect(request(1).body("b").end());
        w.finish();
    });
}

#[test]
fn what_a_lost_provider_was_never_sent_goes_to_another_without_retry() {
    let w = World::one_core(Limits { connection_buffer: 10, ..Limits::default() });
    let c = w.consumer("ch");
    let p = w.provider("ch", 2);
    p.stall(0);
    c.send(request(1).body(vec![1; 50_000]).end());
    c.send(request(2).body("second").end());
    let second = w.provider("ch", 1);
    p.close();
    c.expect(error(1, Code::ProviderLost).started());
    second.expect(request(1).id([2; 16]).body("second").end());
    second.send(response(1).end());
    c.expect(response(2).end());
    w.finish();
}
