//! What is copied for producers (§5, §6), and how a channel waits for them.

use super::*;
use crate::companion::Copy;
use crate::wire::*;
use corelay::base::ChannelId;
use corelay::broker::core::{Channel, Route};
use corelay::protocol::Code;

fn both() -> Route {
    Route { channels: None, requests: true, responses: true, block: false }
}

fn requests() -> Route {
    Route { responses: false, ..both() }
}

fn blocking() -> Route {
    Route { block: true, ..both() }
}

/// Kind and content of each.
fn said(copies: &[Copy]) -> Vec<(bool, String)> {
    copies.iter().map(|copy| (copy.response, String::from_utf8(copy.body.clone()).unwrap())).collect()
}

fn pairs(expected: &[(bool, &str)]) -> Vec<(bool, String)> {
    expected.iter().map(|&(response, body)| (response, body.to_owned())).collect()
}

#[test]
fn requests_and_answers_are_copied_as_they_come() {
    weathers(|| {
        let w = World::forwarding(1, Limits::default(), Vec::new(), vec![both()], 1000);
        let (c, p) = (w.consumer("ch"), w.provider("ch", 2));
        c.send(request(1).body("ab").end());
        p.expect(request(1).body("ab").end());
        p.send(response(1).body("cd").end());
        c.expect(response(1).body("cd").end());
        assert_eq!(said(&w.copies()), pairs(&[(false, "ab"), (true, "cd")]));
        // in parts, with headers
        c.send(request(1).headers(&[("k", "v")]).body("1"));
        p.expect(request(1).headers(&[("k", "v")]).body("1"));
        c.send(data(1).body("234"));
        p.expect(data(1).body("234"));
        c.send(data(1).end());
        p.expect(data(1).end());
        p.send(response(1));
        p.send(data(1).body("x").end());
        c.expect(response(1));
        c.expect(data(1).body("x").end());
        let copies = w.copies();
        assert_eq!(said(&copies[2..]), pairs(&[(false, "1234"), (true, "x")]));
        assert_eq!(copies[2].headers, b"\x01k\x01\x00v");
        assert_eq!((copies[2].channel, copies[2].producers), (ChannelId::named("ch"), 1));
        assert_eq!(w.aborted(), 0);
        w.finish();
    });
}

#[test]
fn each_producer_gets_what_it_asked_for() {
    let here = |name: &str| Some(vec![ChannelId::named(name)]);
    let routes = vec![
        Route { channels: here("a"), ..both() },
        Route { requests: false, ..both() },
        Route { channels: here("b"), ..requests() },
    ];
    let w = World::forwarding(1, Limits::default(), Vec::new(), routes, 10_000);
    for channel in ["a", "b"] {
        let (c, p) = (w.consumer(channel), w.provider(channel, 1));
        c.send(request(1).end());
        p.expect(request(1).end());
        p.send(response(1).end());
        c.expect(response(1).end());
    }
    let got: Vec<_> = w.copies().iter().map(|copy| (copy.response, copy.producers)).collect();
    assert_eq!(got, [(false, 0b001), (true, 0b011), (false, 0b100), (true, 0b010)]);
    w.finish();
}

#[test]
fn what_never_ended_is_aborted() {
    weathers(|| {
        let w = World::forwarding(1, Limits::default(), Vec::new(), vec![both()], 10_000);
        let p = w.provider("ch", 9);
        // its consumer leaves
        let c = w.consumer("ch");
        c.send(request(1).body("half"));
        p.expect(request(1).body("half"));
        c.close();
        p.expect(cancel(1, Code::ConsumerLost));
        p.send(error(1, Code::Cancelled));
        assert_eq!((w.copies().len(), w.aborted()), (0, 1));
        // its provider fails in the middle of the answer
        let c = w.consumer("ch");
        c.send(request(1).end());
        p.expect(request(1).end());
        p.send(response(1).body("half"));
        c.expect(response(1).body("half"));
        p.send(error(1, Code::Application));
        c.expect(error(1, Code::Application).started());
        assert_eq!((said(&w.copies()), w.aborted()), (pairs(&[(false, "")]), 2));
        w.finish();
    });
}

#[test]
fn what_is_refused_is_not_forwarded() {
    weathers(|| {
        let w = World::forwarding(1, Limits::default(), Vec::new(), vec![both()], 10_000);
        let c = w.consumer("ch");
        c.send(request(1).body("x").end());
        c.expect(error(1, Code::NoProvider));
        c.send(request(2).body("x"));
        c.expect(error(2, Code::NoProvider));
        c.send(cancel(2, Code::Cancelled));
        assert_eq!((w.copies().len(), w.aborted()), (0, 0));
        w.finish();
    });
}

#[test]
fn without_a_provider_one_way_requests_go_to_producers() {
    let w = World::forwarding(1, window(64), Vec::new(), vec![requests()], 10_000);
    let c = w.consumer("ch");
    c.send(request(1).oneway().body("abc").end());
    c.expect(response(1).end());
    // more than a window of it
    let long = "1".repeat(64);
    c.send(request(2).oneway().body(&long));
    c.expect(credit(2, 64));
    c.send(data(2).body("56").end());
    c.expect(response(2).end());
    assert_eq!(said(&w.copies()), pairs(&[(false, "abc"), (false, &(long + "56"))]));
    // one that never ends
    c.send(request(3).oneway());
    c.send(cancel(3, Code::Cancelled));
    c.expect(error(3, Code::Cancelled));
    assert_eq!((w.copies().len(), w.aborted()), (2, 1));
    w.finish();
}

#[test]
fn with_a_provider_it_gets_them_and_so_do_producers() {
    weathers(|| {
        let w = World::forwarding(1, Limits::default(), Vec::new(), vec![both()], 10_000);
        let (c, p) = (w.consumer("ch"), w.provider("ch", 1));
        c.send(request(1).oneway().body("abc").end());
        p.expect(request(1).oneway().body("abc").end());
        c.expect(response(1).end());
        p.send(response(1).body("goes no further").end());
        assert_eq!(said(&w.copies()), pairs(&[(false, "abc")]));
        w.finish();
    });
}

#[test]
fn what_finds_no_room_is_dropped_and_counted() {
    let w = World::forwarding(1, Limits::default(), Vec::new(), vec![requests(), requests()], 100);
    w.companion(|companion| companion.stalled = true);
    let (c, p) = (w.consumer("ch"), w.provider("ch", 9));
    let exchange = |stream, frame: Frame| {
        c.send(request(stream).body("x".repeat(60)).end());
        p.expect(frame.body("x".repeat(60)).end());
        p.send(response(1).end());
        c.expect(response(stream).end());
    };
    // the first goes beyond the bound, the second finds it passed
    exchange(1, request(1));
    exchange(2, request(1));
    assert_eq!(w.dropped(), [(1, 0), (1, 0)]);
    // one in the middle is cut
    w.companion(|companion| companion.stalled = false);
    w.settle();
    w.settle();
    c.send(request(3).body("begins"));
    p.expect(request(1).body("begins"));
    w.companion(|companion| companion.stalled = true);
    c.send(data(3).body("y".repeat(100)));
    p.expect(data(1).body("y".repeat(100)));
    c.send(data(3).end());
    p.expect(data(1).end());
    p.send(response(1).end());
    c.expect(response(3).end());
    assert_eq!(w.dropped(), [(2, 0), (2, 0)]);
    w.companion(|companion| companion.stalled = false);
    w.settle();
    assert_eq!((w.copies().len(), w.aborted()), (1, 1));
    w.finish();
}

#[test]
fn nothing_is_copied_for_a_full_queue() {
    let w = World::forwarding(1, Limits::default(), Vec::new(), vec![requests(), requests()], 10_000);
    let (c, p) = (w.consumer("ch"), w.provider("ch", 9));
    let full = |bits| {
        w.companion(|companion| companion.full = bits);
        w.settle();
    };
    let whole = || {
        c.send(request(1).body("whole").end());
        p.expect(request(1).body("whole").end());
        p.send(response(1).end());
        c.expect(response(1).end());
    };
    let in_parts = || {
        c.send(request(1).body("in "));
        p.expect(request(1).body("in "));
        c.send(data(1).body("parts").end());
        p.expect(data(1).body("parts").end());
        p.send(response(1).end());
        c.expect(response(1).end());
    };
    full(0b01);
    whole();
    // the one with room gets it, the other refuses it itself
    in_parts();
    assert_eq!(w.dropped(), [(0, 1), (0, 0)]);
    full(0b11);
    whole();
    in_parts();
    assert_eq!(w.dropped(), [(0, 3), (0, 2)]);
    full(0);
    whole();
    w.settle();
    let copied: Vec<_> = w.copies().iter().map(|copy| (copy.producers, copy.body.len())).collect();
    assert_eq!((copied, w.aborted()), (vec![(0b10, 5), (0b11, 8), (0b11, 5)], 0));
    w.finish();
}

#[test]
fn a_one_way_request_that_every_producer_refuses_is_overloaded() {
    let w = World::forwarding(1, Limits::default(), Vec::new(), vec![requests(), requests()], 10_000);
    let c = w.consumer("ch");
    w.companion(|companion| companion.full = 0b01);
    c.send(request(1).oneway().end());
    c.expect(response(1).end());
    w.companion(|companion| companion.full = 0b11);
    w.settle();
    c.send(request(1).oneway().end());
    c.expect(error(1, Code::Overloaded));
    assert_eq!(w.copies().len(), 1);
    w.finish();
}

#[test]
fn a_blocking_producer_holds_its_channel_back_and_no_other() {
    weathers(|| {
        let routes = vec![Route { channels: Some(vec![ChannelId::named("ch")]), ..blocking() }];
        let w = World::forwarding(1, window(4), Vec::new(), routes, 10_000);
        let (c, p) = (w.consumer("ch"), w.provider("ch", 9));
        c.send(request(1).body("1234"));
        p.expect(request(1).body("1234"));
        c.expect(credit(1, 4));
        w.companion(|companion| companion.full = 1);
        w.settle();
        // what runs is not granted more, what comes waits
        c.send(data(1).body("5678"));
        p.expect(data(1).body("5678"));
        c.expect_nothing();
        c.send(request(2).body("ab").end());
        c.send(request(3).oneway().body("cd").end());
        p.expect_nothing();
        // others don't
        let (other, there) = (w.consumer("other"), w.provider("other", 1));
        other.send(request(1).end());
        there.expect(request(1).end());
        there.send(response(1).end());
        other.expect(response(1).end());
        w.companion(|companion| companion.full = 0);
        w.settle();
        c.expect(credit(1, 4));
        p.expect(request(2).body("ab").end());
        p.expect(request(3).oneway().body("cd").end());
        c.expect(response(3).end());
        c.send(data(1).end());
        p.expect(data(1).end());
        for stream in 1..=3 {
            p.send(response(stream).end());
        }
        c.expect(response(1).end());
        c.expect(response(2).end());
        assert_eq!((w.dropped(), w.aborted()), (vec![(0, 0)], 0));
        w.finish();
    });
}

#[test]
fn a_one_way_request_waits_for_a_blocking_producer() {
    weathers(|| {
        let w = World::forwarding(1, Limits::default(), Vec::new(), vec![blocking()], 10_000);
        w.companion(|companion| companion.full = 1);
        let c = w.consumer("ch");
        c.send(request(1).oneway().body("x").end());
        c.expect_nothing();
        w.companion(|companion| companion.full = 0);
        w.settle();
        c.expect(response(1).end());
        assert_eq!(said(&w.copies()), pairs(&[(false, "x")]));
        w.finish();
    });
}

#[test]
fn a_blocking_producer_loses_nothing_when_its_companion_is_slow() {
    let w = World::forwarding(1, Limits::default(), Vec::new(), vec![blocking()], 100);
    w.companion(|companion| companion.stalled = true);
    let (c, p) = (w.consumer("ch"), w.provider("ch", 99));
    for stream in 1..=20 {
        c.send(request(stream).body("0123456789").end());
    }
    w.companion(|companion| companion.stalled = false);
    w.settle();
    for stream in 1..=20 {
        p.expect(request(stream).body("0123456789").end());
    }
    assert_eq!((w.copies().len(), w.dropped()), (20, vec![(0, 0)]));
    w.finish();
}

#[test]
fn what_crosses_cores_is_copied_once() {
    weathers(|| {
        let channel =
            Channel { id: ChannelId::named("ch"), spread: 2, window: None, queue_requests: None, queue_bytes: None };
        let w = World::forwarding(2, Limits::default(), vec![channel], vec![both()], 100_000);
        let consumers = [w.consumer("ch"), w.consumer("ch")];
        let p = w.provider("ch", 100);
        for c in &consumers {
            c.send(request(1).body("up").end());
            p.expect(request(1).body("up").end());
            p.send(response(1).body("down").end());
            c.expect(response(1).body("down").end());
            c.send(request(2).oneway().body("one way").end());
            p.expect(request(1).oneway().body("one way").end());
            c.expect(response(2).end());
            p.send(error(1, Code::Application));
        }
        let mut said = said(&w.copies());
        said.sort();
        let expected =
            [(false, "one way"), (false, "one way"), (false, "up"), (false, "up"), (true, "down"), (true, "down")];
        assert_eq!(said, pairs(&expected));
        w.finish();
    });
}

#[test]
fn a_second_attempt_is_not_a_second_message() {
    weathers(|| {
        let w = World::forwarding(1, Limits::default(), Vec::new(), vec![both()], 100_000);
        let (c, p) = (w.consumer("ch"), w.provider("ch", 1));
        c.send(request(1).retry().body("x").end());
        p.expect(request(1).retry().body("x").end());
        let second = w.provider("ch", 1);
        p.close();
        second.expect(request(1).retry().body("x").end());
        second.send(response(1).body("y").end());
        c.expect(response(1).body("y").end());
        assert_eq!(said(&w.copies()), pairs(&[(false, "x"), (true, "y")]));
        w.finish();
    });
}
