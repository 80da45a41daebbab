//! §6: a second attempt, where it is allowed.

use super::*;
use crate::wire::*;
use corelay::protocol::Code;

#[test]
fn a_lost_provider_s_request_goes_to_another() {
    weathers(|| {
        let w = World::one_core(Limits::default());
        let c = w.consumer("ch");
        let first = w.provider("ch", 1);
        c.send(request(1).retry().headers(&[("k", "v")]).body("again").end());
        first.expect(request(1).retry().headers(&[("k", "v")]).body("again").end());
        let second = w.provider("ch", 1);
        first.close();
        second.expect(request(1).retry().headers(&[("k", "v")]).body("again").end());
        second.send(response(1).body("done").end());
        c.expect(response(1).body("done").end());
        w.finish();
    });
}

#[test]
fn without_retry_it_is_never_delivered_twice() {
    weathers(|| {
        let w = World::one_core(Limits::default());
        let c = w.consumer("ch");
        let first = w.provider("ch", 1);
        c.send(request(1).wait().body("once").end());
        first.expect(request(1).wait().body("once").end());
        let second = w.provider("ch", 1);
        first.close();
        c.expect(error(1, Code::ProviderLost).started());
        second.expect_nothing();
        w.finish();
    });
}

#[test]
fn not_after_the_first_response_byte() {
    weathers(|| {
        let w = World::one_core(Limits::default());
        let c = w.consumer("ch");
        let first = w.provider("ch", 1);
        c.send(request(1).retry().end());
        first.expect(request(1).retry().end());
        first.send(response(1));
        c.expect(response(1));
        let second = w.provider("ch", 1);
        first.close();
        c.expect(error(1, Code::ProviderLost).started());
        second.expect_nothing();
        w.finish();
    });
}

#[test]
fn not_for_a_body_beyond_a_window() {
    weathers(|| {
        let w = World::one_core(window(8));
        let c = w.consumer("ch");
        let first = w.provider("ch", 1);
        let second = w.provider("nowhere", 1);
        c.send(request(1).retry().body("12345678"));
        first.expect(request(1).retry().body("12345678"));
        c.expect_credits(1, 8);
        c.send(data(1).body("9"));
        first.expect(data(1).body("9"));
        first.close();
        c.expect(error(1, Code::ProviderLost).started());
        second.expect_nothing();
        w.finish();
    });
}

#[test]
fn a_provider_lost_in_the_middle_of_the_body() {
    weathers(|| {
        let w = World::one_core(window(8));
        let c = w.consumer("ch");
        let first = w.provider("ch", 1);
        c.send(request(1).retry().body("1234"));
        first.expect(request(1).retry().body("1234"));
        let second = w.provider("ch", 1);
        first.close();
        second.expect(request(1).retry().body("1234"));
        c.send(data(1).body("5678").end());
        second.expect(data(1).body("5678").end());
        second.send(response(1).end());
        // what left twice was granted once
        let mut granted = 0;
        loop {
            let seen = c.next().unwrap();
            if seen.header.arg == 0 {
                break;
            }
            granted += seen.header.arg;
        }
        assert!(granted <= 8, "{granted} bytes granted for 8 that left");
        w.finish();
    });
}

#[test]
fn with_wait_it_queues_for_the_next_provider() {
    weathers(|| {
        let w = World::one_core(Limits::default());
        let c = w.consumer("ch");
        let first = w.provider("ch", 1);
        c.send(request(1).retry().wait().body("b").end());
        first.expect(request(1).retry().wait().body("b").end());
        first.close();
        c.expect_nothing();
        let second = w.provider("ch", 1);
        second.expect(request(1).retry().wait().body("b").end());
        second.close();
        // STARTED stays, whatever ends it now
        w.advance(ms(30_000));
        c.expect(ping_of(&c));
        c.expect(error(1, Code::Deadline).started());
        w.finish();
    });
}

/// The PING that a silent client has been sent.
fn ping_of(c: &Client) -> Frame {
    let seen = c.next().unwrap();
    assert_eq!(seen.header.frame_type(), Some(corelay::protocol::FrameType::Ping));
    let rest = raw(seen.header).body(&seen.payload);
    c.put_back(&seen);
    rest
}

#[test]
fn without_another_provider_it_is_lost() {
    weathers(|| {
        let w = World::one_core(Limits::default());
        let c = w.consumer("ch");
        let first = w.provider("ch", 1);
        c.send(request(1).retry().end());
        first.expect(request(1).retry().end());
        first.close();
        c.expect(error(1, Code::ProviderLost).started());
        w.finish();
    });
}

#[test]
fn bytes_still_leaving_for_a_provider_being_closed_are_not_granted_twice() {
    let w = World::one_core(window(1000));
    let c = w.consumer("ch");
    let first = w.provider("ch", 1);
    first.stall(100);
    c.send(request(1).retry().body(vec![1; 1000]));
    let second = w.provider("ch", 1);
    // it breaks the protocol; its ERROR waits behind the body
    first.send(credit(1, 0));
    second.expect(request(1).retry().body(vec![1; 1000]));
    first.resume();
    let mut granted = 0;
    while let Some(seen) = c.next() {
        granted += seen.header.arg;
    }
    assert_eq!(granted, 1000, "1000 bytes have left");
    w.finish();
}
