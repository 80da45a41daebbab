//! What is timed: the wait for a provider, the first byte, the whole answer.

use super::*;
use crate::wire::*;
use corelay::base::{ChannelId, Histogram};
use corelay::broker::core::Channel;
use corelay::protocol::Code;

/// Asserts that one time was counted, so many milliseconds: buckets end at most 3.2 % above, or 1.024 us.
#[track_caller]
fn assert_took(histogram: &Histogram, millis: u64) {
    let times: Vec<_> = histogram.iter().collect();
    let &[(time, 1)] = &times[..] else { panic!("{times:?}, expected {millis} ms once") };
    let most = ms(millis) + ms(millis).mul_f64(0.032) + Duration::from_nanos(1024);
    assert!(time >= ms(millis) && time <= most, "{time:?} for {millis} ms");
}

#[test]
fn each_stretch_of_a_request_is_timed() {
    weathers(|| {
        let w = World::one_core(Limits::default());
        let c = w.consumer("ch");
        c.send(request(1).wait().end());
        w.settle();
        w.advance(ms(20));
        let p = w.provider("ch", 1);
        p.expect(request(1).wait().end());
        w.advance(ms(40));
        p.send(response(1).body("a"));
        c.expect(response(1).body("a"));
        w.advance(ms(80));
        p.send(data(1).end());
        c.expect(data(1).end());
        let timed = w.timed();
        assert_eq!((timed.requests, timed.failed), (1, 0));
        assert_took(&timed.queue_wait, 20);
        assert_took(&timed.first_byte, 60);
        assert_took(&timed.total, 140);
        w.finish();
    });
}

#[test]
fn an_answer_in_one_frame_is_timed_alike() {
    weathers(|| {
        let w = World::one_core(Limits::default());
        let (c, p) = (w.consumer("ch"), w.provider("ch", 1));
        c.send(request(1).body("question").end());
        p.expect(request(1).body("question").end());
        w.advance(ms(30));
        p.send(response(1).body("answer").end());
        c.expect(response(1).body("answer").end());
        let timed = w.timed();
        assert_eq!((timed.requests, timed.failed), (1, 0));
        assert_eq!((timed.request_bytes, timed.response_bytes), (8, 6));
        assert_took(&timed.queue_wait, 0);
        assert_took(&timed.first_byte, 30);
        assert_took(&timed.total, 30);
        w.finish();
    });
}

#[test]
fn what_failed_is_counted_and_not_timed_to_its_end() {
    weathers(|| {
        let w = World::one_core(Limits::default());
        let c = w.consumer("ch");
        c.send(request(1).end());
        c.expect(error(1, Code::NoProvider));
        let p = w.provider("ch", 1);
        c.send(request(1).timeout(50).end());
        p.expect(request(1).end());
        w.advance(ms(50));
        c.expect(error(1, Code::Deadline).started());
        p.expect(cancel(1, Code::Deadline));
        let timed = w.timed();
        assert_eq!((timed.requests, timed.failed), (2, 2));
        assert_eq!((timed.queue_wait.len(), timed.first_byte.len(), timed.total.len()), (1, 0, 0));
        p.send(error(1, Code::Application));
        w.finish();
    });
}

#[test]
fn a_request_that_crosses_cores_is_timed_once() {
    weathers(|| {
        let ch = ChannelId::named("ch");
        let spread = Channel { id: ch, spread: 2, window: None, queue_requests: None, queue_bytes: None };
        let w = World::cores(2, Limits::default(), vec![spread]);
        // the first of each kind is dealt to a core of its own
        let (c, p) = (w.consumer("ch"), w.provider("ch", 1));
        for expected in [1, 2] {
            c.send(request(1).end());
            p.expect(request(1).end());
            w.advance(ms(30));
            p.send(response(1).end());
            c.expect(response(1).end());
            let timed = w.timed();
            assert_eq!((timed.requests, timed.failed), (expected, 0));
            for times in [&timed.queue_wait, &timed.first_byte, &timed.total] {
                assert_eq!(times.len(), expected);
            }
            assert!(timed.total.iter().all(|(time, _)| time >= ms(30) && time < ms(31)), "{:?}", timed.total);
        }
        w.finish();
    });
}

#[test]
fn a_second_attempt_is_no_second_request() {
    weathers(|| {
        let w = World::one_core(Limits::default());
        let (c, first) = (w.consumer("ch"), w.provider("ch", 1));
        c.send(request(1).retry().end());
        first.expect(request(1).retry().end());
        let second = w.provider("ch", 1);
        w.advance(ms(10));
        first.close();
        second.expect(request(1).retry().end());
        second.send(response(1).end());
        c.expect(response(1).end());
        let timed = w.timed();
        assert_eq!((timed.requests, timed.queue_wait.len(), timed.first_byte.len(), timed.total.len()), (1, 1, 1, 1));
        assert_took(&timed.total, 10);
        w.finish();
    });
}

#[test]
fn a_one_way_request_has_no_first_byte() {
    weathers(|| {
        let w = World::one_core(Limits::default());
        let (c, p) = (w.consumer("ch"), w.provider("ch", 1));
        c.send(request(1).oneway().end());
        p.expect(request(1).oneway().end());
        c.expect(response(1).end());
        p.send(response(1).end());
        let timed = w.timed();
        assert_eq!((timed.requests, timed.queue_wait.len(), timed.first_byte.len(), timed.total.len()), (1, 1, 0, 1));
        w.finish();
    });
}
