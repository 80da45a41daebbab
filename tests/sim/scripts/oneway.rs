//! §5: one-way requests.

use super::*;
use crate::wire::*;
use corelay::protocol::{Code, Flags};

#[test]
fn it_is_answered_when_the_whole_was_handed_over() {
    weathers(|| {
        let w = World::one_core(Limits::default());
        let c = w.consumer("ch");
        let p = w.provider_with("ch", 1, 4);
        c.send(request(1).oneway().body("123456").end());
        p.expect(request(1).oneway().body("1234"));
        c.expect_nothing();
        p.send(credit(1, 10));
        p.expect(data(1).body("56").end());
        c.expect(response(1).end());
        c.send(request(1).end());
        // the provider's own answer goes no further
        p.send(response(1).body("ignored"));
        p.send(data(1).end());
        c.expect_nothing();
        p.expect(request(1).end());
        w.finish();
    });
}

#[test]
fn it_waits_for_the_kernel_to_take_it() {
    let w = World::one_core(Limits::default());
    let c = w.consumer("ch");
    let p = w.provider("ch", 1);
    p.stall(10);
    c.send(request(1).oneway().body("x").end());
    c.expect_nothing();
    p.resume();
    c.expect(response(1).end());
    w.finish();
}

#[test]
fn a_provider_that_ends_it_early_answers_it() {
    weathers(|| {
        for failed in [false, true] {
            let w = World::one_core(Limits::default());
            let c = w.consumer("ch");
            let p = w.provider("ch", 1);
            c.send(request(1).oneway().body("not all"));
            p.expect(request(1).oneway().body("not all"));
            p.send(if failed { error(1, Code::Application) } else { response(1).end() });
            c.expect(response(1).end());
            p.expect(cancel(1, Code::Cancelled));
            c.send(cancel(1, Code::Cancelled));
            c.send(request(1).oneway().end());
            p.expect(request(1).oneway().end());
            c.expect(response(1).end());
            w.finish();
        }
    });
}

#[test]
fn an_answered_one_outlives_its_consumer() {
    weathers(|| {
        let w = World::one_core(Limits::default());
        let c = w.consumer("ch");
        let p = w.provider("ch", 1);
        c.send(request(1).oneway().end());
        p.expect(request(1).oneway().end());
        c.expect(response(1).end());
        c.close();
        p.expect_nothing();
        p.send(response(1).end());
        p.expect_nothing();
        assert_eq!(w.counters().oneway_lost, 0);
        w.finish();
    });
}

#[test]
fn an_unanswered_one_ends_with_its_consumer() {
    weathers(|| {
        let w = World::one_core(Limits::default());
        let c = w.consumer("ch");
        let p = w.provider("ch", 1);
        c.send(request(1).oneway().body("not all"));
        p.expect(request(1).oneway().body("not all"));
        c.close();
        p.expect(cancel(1, Code::ConsumerLost));
        w.finish();
    });
}

#[test]
fn its_provider_lost_after_the_answer_is_counted() {
    weathers(|| {
        let w = World::one_core(Limits::default());
        let c = w.consumer("ch");
        let p = w.provider("ch", 1);
        c.send(request(1).oneway().end());
        p.expect(request(1).oneway().end());
        c.expect(response(1).end());
        p.close();
        c.expect_nothing();
        assert_eq!(w.counters().oneway_lost, 1);
        w.finish();
    });
}

#[test]
fn its_provider_lost_before_it_was_handed_over_fails_it() {
    weathers(|| {
        let w = World::one_core(Limits::default());
        let c = w.consumer("ch");
        let p = w.provider("ch", 1);
        c.send(request(1).oneway().body("not all"));
        p.expect(request(1).oneway().body("not all"));
        p.close();
        c.expect(error(1, Code::ProviderLost).started());
        w.finish();
    });
}

#[test]
fn with_retry_it_goes_to_another_though_its_consumer_is_gone() {
    weathers(|| {
        let w = World::one_core(Limits::default());
        let c = w.consumer("ch");
        let p = w.provider("ch", 1);
        c.send(request(1).oneway().retry().body("job").end());
        p.expect(request(1).oneway().retry().body("job").end());
        c.expect(response(1).end());
        c.close();
        let second = w.provider("ch", 1);
        p.close();
        second.expect(request(1).flag(Flags::ONEWAY | Flags::RETRY).body("job").end());
        second.send(response(1).end());
        assert_eq!(w.counters().oneway_lost, 0);
        w.finish();
    });
}

#[test]
fn with_retry_and_wait_it_waits_for_another() {
    weathers(|| {
        let w = World::one_core(Limits::default());
        let c = w.consumer("ch");
        let p = w.provider("ch", 1);
        c.send(request(1).oneway().retry().wait().body("job").end());
        p.expect(request(1).oneway().retry().wait().body("job").end());
        c.expect(response(1).end());
        p.close();
        c.close();
        let second = w.provider("ch", 1);
        second.expect(request(1).oneway().retry().wait().body("job").end());
        second.send(error(1, Code::Application));
        w.finish();
    });
}

#[test]
fn a_long_one_way_answer_is_drained_not_stalled() {
    weathers(|| {
        let w = World::one_core(window(8));
        let c = w.consumer("ch");
        let p = w.provider("ch", 1);
        c.send(request(1).oneway().end());
        p.expect(request(1).oneway().end());
        c.expect(response(1).end());
        p.send(response(1).body("12345678"));
        p.expect_credits(1, 8);
        p.send(data(1).body("12345678").end());
        w.finish();
    });
}

#[test]
fn without_a_provider_it_fails_as_others_do() {
    weathers(|| {
        let w = World::one_core(Limits::default());
        let c = w.consumer("ch");
        c.send(request(1).oneway().end());
        c.expect(error(1, Code::NoProvider));
        w.finish();
    });
}

#[test]
fn its_deadline_ends_it_before_and_after_the_answer() {
    weathers(|| {
        let w = World::one_core(Limits::default());
        let c = w.consumer("ch");
        let p = w.provider("ch", 2);
        c.send(request(1).oneway().timeout(50).end());
        c.send(request(2).oneway().timeout(50).body("x"));
        p.expect(request(1).oneway().end());
        p.expect(request(2).oneway().body("x"));
        c.expect(response(1).end());
        w.advance(ms(50));
        p.expect(cancel(1, Code::Deadline));
        p.expect(cancel(2, Code::Deadline));
        c.expect(error(2, Code::Deadline).started());
        c.expect_nothing();
        assert_eq!(w.counters().oneway_lost, 1);
        w.finish();
    });
}
