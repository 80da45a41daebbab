//! §7: what may be done only so often, and half of it.

use super::*;
use crate::wire::*;
use corelay::base::limits::{Budget, CANCELS, EMPTY_FRAMES, ERRORS};
use corelay::protocol::{Code, FrameType, Header};

/// So many of these at once, whatever comes back, and whether the connection is then closed for it.
fn floods(client: &Client, frames: u32, each: impl Fn(u32) -> Frame) -> bool {
    let bytes: Vec<u8> = (0..frames).flat_map(|n| each(n).encode()).collect();
    client.send_bytes(&bytes);
    while let Some(seen) = client.next() {
        if seen.header.frame_type() == Some(FrameType::Error) && seen.header.stream == 0 {
            assert_eq!(seen.header.code, Code::Flood.to_wire(), "{}", String::from_utf8_lossy(&seen.payload));
            client.expect_closed();
            return true;
        }
    }
    assert!(client.is_open());
    false
}

/// Half of the burst does no harm and comes back; all of it does none; one more is FLOOD.
fn is_bounded(budget: Budget, open: impl Fn(&World) -> Client, each: impl Fn(u32) -> Frame) {
    let w = World::one_core(Limits { max_streams: 1, ..Limits::default() });
    let c = open(&w);
    assert!(!floods(&c, budget.burst / 2, &each));
    w.advance(ms(1000 * u64::from(budget.burst) / u64::from(budget.rate)));
    // a burst of them, and then at their rate
    assert!(!floods(&c, budget.burst, &each));
    for _ in 0..10 {
        w.advance(ms(100));
        assert!(!floods(&c, budget.rate / 10, &each));
    }
    assert!(floods(&c, 1, &each));
    assert_eq!(w.counters().connections_failed[Code::Flood as usize], 1);
    w.finish();
}

#[test]
fn data_with_nothing_in_it_is_bounded() {
    weathers(|| {
        let uploading = |w: &World| {
            let c = w.consumer("ch");
            c.send(request(1).wait().timeout(60_000));
            c
        };
        is_bounded(EMPTY_FRAMES, uploading, |_| data(1));
        let answering = |w: &World| {
            let p = w.provider("ch", 1);
            w.consumer("ch").send(request(1).timeout(60_000).end());
            p.expect(request(1).end());
            p.send(response(1));
            p
        };
        is_bounded(EMPTY_FRAMES, answering, |_| data(1));
    });
}

#[test]
fn other_frames_that_say_nothing_are_bounded() {
    weathers(|| {
        let consumer = |w: &World| w.consumer("ch");
        is_bounded(EMPTY_FRAMES, consumer, |_| raw(Header { kind: 0x91, ..Header::new(FrameType::Ping, 3) }));
        is_bounded(EMPTY_FRAMES, consumer, |_| pong(b"nobodyas"));
        let leaving = |w: &World| {
            let c = w.consumer("ch");
            c.send(request(1).wait().timeout(60_000).end());
            c.send(goaway());
            c
        };
        is_bounded(EMPTY_FRAMES, leaving, |_| goaway());
    });
}

#[test]
fn cancels_of_nothing_are_bounded() {
    is_bounded(CANCELS, |w| w.consumer("ch"), |n| cancel(1 + n, Code::Cancelled));
}

#[test]
fn requests_that_had_to_be_refused_are_bounded() {
    let busy = |w: &World| {
        let c = w.consumer("ch");
        c.send(request(1).wait().timeout(60_000).end());
        c
    };
    // max_streams is 1
    is_bounded(ERRORS, busy, |_| request(2).end());
}

/// What is nobody's fault is no flood: a client may go on asking while no provider is there.
#[test]
fn requests_that_find_no_provider_are_not_bounded() {
    let w = World::one_core(Limits::default());
    let c = w.consumer("ch");
    assert!(!floods(&c, 20 * ERRORS.burst, |_| request(1).end()));
    w.finish();
}

/// As fast as can be, with the clock standing still.
#[test]
fn a_client_that_cancels_all_it_asks_for_and_waits_for_the_terminal_frames_is_no_flood() {
    let w = World::one_core(Limits::default());
    let c = w.consumer("ch");
    let p = w.provider("ch", 4);
    let at_once = 1000;
    for _ in 0..100 {
        let bytes: Vec<u8> = (1..=at_once)
            .flat_map(|stream| [request(stream).end().encode(), cancel(stream, Code::Cancelled).encode()].concat())
            .collect();
        c.send_bytes(&bytes);
        for stream in 1..=at_once {
            let seen = c.next().expect("a terminal frame for each");
            assert_eq!((seen.header.stream, seen.header.code), (stream, Code::Cancelled.to_wire()));
        }
        // the provider ends what it was given, as it should
        while let Some(seen) = p.next() {
            if seen.header.frame_type() == Some(FrameType::Request) {
                p.send(error(seen.header.stream, Code::Cancelled));
            }
        }
    }
    c.expect_nothing();
    assert_eq!((w.counters().requests, w.counters().failed[Code::Cancelled as usize]), (100_000, 100_000));
    w.finish();
}

/// Each CANCEL comes when its request is over: it crossed the terminal frame.
#[test]
fn a_client_whose_every_cancel_crosses_the_answer_is_no_flood() {
    for max_streams in [1024, 5000] {
        let w = World::one_core(Limits { max_streams, ..Limits::default() });
        let c = w.consumer("ch");
        for _ in 0..100_000 / max_streams {
            let requests = (1..=max_streams).flat_map(|stream| request(stream).end().encode());
            c.send_bytes(&requests.collect::<Vec<u8>>());
            let cancels = (1..=max_streams).flat_map(|stream| cancel(stream, Code::Cancelled).encode());
            c.send_bytes(&cancels.collect::<Vec<u8>>());
            for stream in 1..=max_streams {
                c.expect(error(stream, Code::NoProvider));
            }
        }
        c.expect_nothing();
        w.finish();
    }
}

/// What HTTP/2 calls rapid reset: streams are free again, the provider's places are not.
#[test]
fn requests_given_up_count_until_their_provider_has_ended_them() {
    let w = World::one_core(Limits { max_streams: 200, cancel_grace: ms(5000), ..Limits::default() });
    let (c, p) = (w.consumer("ch"), w.provider("ch", 5000));
    let give_up = |n: u32| {
        for _ in 0..n {
            c.send(request(1).end());
            c.send(cancel(1, Code::Cancelled));
            c.expect(error(1, Code::Cancelled).started());
        }
    };
    give_up(100);
    c.send(request(1).end());
    c.send(cancel(1, Code::Cancelled));
    c.expect(error(1, Code::Cancelled).started());
    give_up(99);
    c.send(request(1).end());
    c.expect(error(1, Code::Overloaded));
    w.consumer("ch").send(request(1).end());
    // one is ended, so there is room for one
    p.send(error(1, Code::Cancelled));
    give_up(1);
    c.send(request(1).end());
    c.expect(error(1, Code::Overloaded));
    // after cancel_grace they are the provider's own affair
    w.advance(ms(5000));
    give_up(200);
    c.send(request(1).end());
    c.expect(error(1, Code::Overloaded));
    // and with their provider they are gone
    p.close();
    c.send(request(1).end());
    c.expect(error(1, Code::NoProvider));
    w.finish();
}

#[test]
fn requests_whose_timeout_passed_are_given_up_too() {
    let w = World::one_core(Limits { max_streams: 100, ..Limits::default() });
    let (c, _p) = (w.consumer("ch"), w.provider("ch", 5000));
    for _ in 0..100 {
        c.send(request(1).timeout(1).end());
        w.advance(ms(1));
        c.expect(error(1, Code::Deadline).started());
    }
    c.send(request(1).end());
    c.expect(error(1, Code::Overloaded));
    w.finish();
}
