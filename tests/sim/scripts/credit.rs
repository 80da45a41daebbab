//! §4: flow control.

use super::*;
use crate::wire::*;
use corelay::base::limits::REQUEST_STATE;
use corelay::protocol::{Code, FrameType, MAX_CREDIT};

#[test]
fn the_broker_sends_a_provider_no_more_than_it_granted() {
    weathers(|| {
        let w = World::one_core(Limits::default());
        let c = w.consumer("ch");
        let p = w.provider_with("ch", 1, 3);
        c.send(request(1).body("1234567").end());
        p.expect(request(1).body("123"));
        p.expect_nothing();
        p.send(credit(1, 2));
        p.expect(data(1).body("45"));
        p.expect_nothing();
        p.send(credit(1, 100));
        p.expect(data(1).body("67").end());
        w.finish();
    });
}

#[test]
fn an_end_at_the_window_s_edge_is_not_swallowed() {
    weathers(|| {
        let w = World::one_core(Limits::default());
        let c = w.consumer("ch");
        let p = w.provider_with("ch", 1, 3);
        c.send(request(1).body("123").end());
        p.expect(request(1).body("123").end());
        p.send(response(1).end());
        c.expect(response(1).end());
        c.send(request(1).body("123"));
        c.send(data(1).end());
        p.expect(request(1).body("123"));
        p.expect(data(1).end());
        w.finish();
    });
}

#[test]
fn a_window_of_0_opens_the_stream_and_no_more() {
    weathers(|| {
        let w = World::one_core(Limits::default());
        let c = w.consumer_with("ch", 0);
        let p = w.provider_with("ch", 1, 0);
        c.send(request(1).body("up").end());
        p.expect(request(1));
        p.expect_nothing();
        p.send(credit(1, 1));
        p.expect(data(1).body("u"));
        p.send(credit(1, 1));
        p.expect(data(1).body("p").end());
        p.send(response(1).body("d").end());
        c.expect(response(1));
        c.expect_nothing();
        c.send(credit(1, 1));
        c.expect(data(1).body("d").end());
        w.finish();
    });
}

#[test]
fn credit_comes_back_as_bytes_leave() {
    weathers(|| {
        let w = World::one_core(window(8));
        let c = w.consumer("ch");
        let p = w.provider_with("ch", 1, 1000);
        c.send(request(1).body("12345678"));
        p.expect(request(1).body("12345678"));
        c.expect_credits(1, 8);
        c.send(data(1).body("abcdefgh"));
        p.expect(data(1).body("abcdefgh"));
        w.finish();
    });
}

#[test]
fn credit_is_withheld_while_the_reader_grants_none() {
    weathers(|| {
        let w = World::one_core(window(8));
        let c = w.consumer("ch");
        let p = w.provider_with("ch", 1, 3);
        c.send(request(1).body("12345678"));
        p.expect(request(1).body("123"));
        let mut granted = 0;
        while let Some(seen) = c.next() {
            granted += seen.header.arg;
        }
        assert!(granted <= 3, "{granted} granted, 3 have left");
        w.finish();
    });
}

#[test]
fn beyond_credit_is_a_flow_control_error_for_either_client() {
    weathers(|| {
        let w = World::one_core(window(8));
        let c = w.consumer("ch");
        let p = w.provider_with("ch", 1, 0);
        c.send(request(1).body("12345678"));
        c.send(data(1).body("9"));
        c.expect_failed(Code::FlowControl);
        p.expect(request(1));
        p.expect(cancel(1, Code::ConsumerLost));
        p.send(response(1).body("12345678"));
        p.send(data(1).body("9"));
        p.expect_failed(Code::FlowControl);

        let c = w.consumer_with("ch", 0);
        let p = w.provider("ch", 1);
        c.send(request(1).end());
        p.expect(request(1).end());
        p.send(response(1).body("123456789"));
        p.expect_failed(Code::FlowControl);
        // the answer may have been opened by the bytes before the one too many
        let seen = c.next().unwrap();
        if seen.header.frame_type() == Some(FrameType::Error) {
            c.put_back(&seen);
        }
        c.expect(error(1, Code::ProviderLost).started());
        w.finish();
    });
}

#[test]
fn a_credit_of_0_and_too_much_of_it_are_flow_control_errors() {
    weathers(|| {
        let w = World::one_core(Limits::default());
        let c = w.consumer_with("ch", 10);
        let p = w.provider("ch", 1);
        c.send(request(1).end());
        p.expect(request(1).end());
        c.send(credit(1, MAX_CREDIT - 10));
        c.expect_nothing();
        c.send(credit(1, 1));
        c.expect_failed(Code::FlowControl);
        p.expect(cancel(1, Code::ConsumerLost));
        p.send(credit(1, 0));
        p.expect_failed(Code::FlowControl);
        let c = w.consumer("ch");
        c.send(credit(77, 0));
        c.expect_failed(Code::FlowControl);
        w.finish();
    });
}

#[test]
fn header_blocks_and_request_ids_cost_no_credit() {
    weathers(|| {
        let w = World::one_core(window(2));
        let c = w.consumer_with("ch", 2);
        let p = w.provider_with("ch", 1, 2);
        c.send(request(1).headers(&[("key", "a long value")]).body("12").end());
        p.expect(request(1).headers(&[("key", "a long value")]).body("12").end());
        p.send(response(1).headers(&[("key", "a long value")]).body("34").end());
        c.expect(response(1).headers(&[("key", "a long value")]).body("34").end());
        w.finish();
    });
}

#[test]
fn no_credit_for_a_direction_that_has_ended() {
    weathers(|| {
        let w = World::one_core(window(8));
        let c = w.consumer("ch");
        let p = w.provider("ch", 1);
        c.send(request(1).body("12345678").end());
        p.expect(request(1).body("12345678").end());
        c.expect_nothing();
        p.send(response(1).body("12345678").end());
        c.expect(response(1).body("12345678").end());
        p.expect_nothing();
        w.finish();
    });
}

#[test]
fn a_slow_reader_slows_its_own_sender_and_nobody_else() {
    weathers(|| {
        let w = World::one_core(Limits { window: 1000, connection_buffer: 500, ..Limits::default() });
        let slow = w.consumer_with("ch", 100_000);
        let quick = w.consumer_with("ch", 100_000);
        let p = w.provider("ch", 2);
        slow.send(request(1).end());
        p.expect(request(1).end());
        quick.send(request(1).end());
        p.expect(request(2).end());
        slow.stall(0);
        p.send(response(1).body(vec![1; 1000]));
        p.expect_nothing();
        let mut sent = 0;
        for _ in 0..20 {
            p.send(if sent == 0 { response(2) } else { data(2) }.body(vec![2; 500]));
            sent += 500;
            quick.next().unwrap();
            while quick.next().is_some() {}
            let mut granted = 0;
            while let Some(seen) = p.next() {
                assert_eq!(seen.header.stream, 2, "credit for the slow one");
                granted += seen.header.arg;
            }
            assert!(granted > 0 || sent == 500);
        }
        assert!(w.held() <= 2500 + 2 * REQUEST_STATE, "{} bytes held for one slow reader", w.held());
        slow.resume();
        slow.expect(response(1).body(vec![1; 1000]));
        w.finish();
    });
}

#[test]
fn one_stream_that_nobody_grants_does_not_hold_up_the_next_on_its_connection() {
    weathers(|| {
        let w = World::one_core(Limits::default());
        let c = w.consumer_with("ch", 2);
        let p = w.provider("ch", 2);
        c.send(request(1).end());
        c.send(request(2).end());
        p.expect(request(1).end());
        p.expect(request(2).end());
        p.send(response(1).body("12345"));
        c.expect(response(1).body("12"));
        p.send(response(2).body("ab").end());
        c.expect(response(2).body("ab").end());
        c.send(credit(1, 3));
        c.expect(data(1).body("345"));
        w.finish();
    });
}

#[test]
fn a_busy_stream_is_granted_more_while_it_is_being_sent() {
    // the socket always has a batch out: credit must not wait for it to fall idle
    let w = World::one_core(Limits { connection_buffer: 4000, ..window(40_000) });
    let c = w.consumer("ch");
    let p = w.provider_with("ch", 1, 1 << 30);
    c.send(request(1).body(""));
    p.expect(request(1));
    p.stall(1000);
    c.send(data(1).body(vec![1; 20_000]));
    c.send(data(1).body(vec![1; 20_000]));
    c.expect_nothing();
    let mut granted = 0;
    for _ in 0..30 {
        p.sip(1000);
        while let Some(seen) = c.next() {
            granted += seen.header.arg;
        }
    }
    assert!(granted >= 20_000, "30,000 bytes were taken, {granted} granted again");
    w.finish();
}

/// A stream that sends all it may, to a provider that takes `taken` at first: what it may send in all, round by round.
fn rounds(limits: Limits, taken: u32) -> Vec<u32> {
    let w = World::one_core(limits);
    let c = w.consumer("ch");
    let p = w.provider_with("ch", 1, taken);
    c.send(request(1));
    p.expect(request(1));
    let (mut may, mut seen) = (1000, Vec::new());
    for _ in 0..5 {
        seen.push(may);
        c.send(data(1).body(vec![1; may as usize]));
        while p.next().is_some() {}
        may = 0;
        while let Some(credit) = c.next() {
            may += credit.header.arg;
        }
    }
    w.finish();
    seen
}

#[test]
fn the_window_grows_while_it_holds_the_sender_up() {
    let grows = Limits { max_window: 4500, ..window(1000) };
    assert_eq!(rounds(grows, MAX_CREDIT), [1000, 2000, 4000, 4000, 4000]);
}

#[test]
fn the_window_does_not_grow_where_the_receiver_holds_the_sender_up() {
    let grows = Limits { max_window: 4500, ..window(1000) };
    let seen = rounds(grows, 1500);
    assert_eq!(seen[..2], [1000, 2000]);
    assert_eq!(seen[2..].iter().sum::<u32>(), 500, "{seen:?}");
}

#[test]
fn the_window_does_not_grow_beside_much_that_is_held() {
    let w = World::one_core(Limits { max_window: 4500, core_buffer: 40_000, ..window(1000) });
    let waiting = w.consumer("nobody");
    for id in 1..=10 {
        waiting.send(request(id).wait().body(vec![1; 1000]));
    }
    let (c, p) = (w.consumer("ch"), w.provider("ch", 1));
    c.send(request(1).body(vec![1; 1000]));
    p.expect(request(1).body(vec![1; 1000]));
    c.expect_credits(1, 1000);
    c.expect_nothing();
    w.finish();
}
