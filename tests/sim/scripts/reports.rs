//! What is reported of single events: requests' ends with their traces, connections that were ended; bytes by channel.

use super::*;
use crate::wire::*;
use corelay::base::ChannelId;
use corelay::broker::core::{Channel, Ended, Outcome, Refused, Watch};
use corelay::protocol::{Code, TraceParent};

const SAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const UNSAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";

const ALL: Watch = Watch { slower: Some(0), sampled: false };
const TRACED: Watch = Watch { slower: None, sampled: true };

fn trace(text: &str) -> Option<TraceParent> {
    TraceParent::parse(text.as_bytes())
}

fn outcomes(w: &World) -> Vec<Outcome> {
    w.ended().iter().map(|ended| ended.outcome).collect()
}

fn on_two_cores() -> World {
    let spread =
        Channel { id: ChannelId::named("ch"), spread: 2, window: None, queue_requests: None, queue_bytes: None };
    World::cores(2, Limits::default(), vec![spread])
}

#[test]
fn nothing_is_reported_unasked() {
    weathers(|| {
        let w = World::one_core(Limits::default());
        let (c, p) = (w.consumer("ch"), w.provider("ch", 1));
        let traced = request(1).headers(&[("traceparent", SAMPLED)]).body("a").end();
        c.send(traced.clone());
        p.expect(traced);
        p.send(response(1).end());
        c.expect(response(1).end());
        assert_eq!(w.ended(), []);
        w.finish();
    });
}

/// The trace goes through untouched and is reported, on one core and over two, by the short way and the long one.
#[test]
fn a_recorded_trace_is_reported_with_its_request() {
    weathers(|| {
        for w in [World::one_core(Limits::default()), on_two_cores()] {
            w.watch(TRACED);
            let (c, p) = (w.consumer("ch"), w.provider("ch", 1));
            for (n, block) in [
                vec![("content-type", "text/plain"), ("traceparent", SAMPLED)],
                vec![("traceparent", UNSAMPLED)],
                vec![("traceparent", "00-1-2")],
                vec![],
            ]
            .into_iter()
            .enumerate()
            {
                let sent = request(1).id([n as u8 + 1; 16]).headers(&block).body("question").end();
                c.send(sent.clone());
                p.expect(sent);
                w.advance(ms(10));
                p.send(response(1).body("answer").end());
                c.expect(response(1).body("answer").end());
            }
            let [ended] = &w.ended()[..] else { panic!("{:?}", w.ended()) };
            let Ended { id, channel, outcome, nanos, trace: of } = ended.clone();
            assert_eq!((id, channel, outcome), ([1; 16], ChannelId::named("ch"), Outcome::Answered));
            assert_eq!(of, trace(SAMPLED));
            assert!((10_000_000..11_000_000).contains(&nanos), "{nanos} ns");
            w.finish();
        }
    });
}

#[test]
fn each_way_to_end_is_reported_once() {
    weathers(|| {
        let w = World::one_core(Limits::default());
        w.watch(ALL);
        let c = w.consumer("ch");
        let headers = [("traceparent", UNSAMPLED)];
        c.send(request(1).headers(&headers).end());
        c.expect(error(1, Code::NoProvider));
        assert_eq!(w.ended()[0].trace, trace(UNSAMPLED));
        let p = w.provider("ch", 1);
        c.send(request(1).end());
        p.expect(request(1).end());
        p.send(error(1, Code::Application));
        c.expect(error(1, Code::Application).started());
        c.send(request(1).timeout(50).end());
        p.expect(request(1).end());
        w.advance(ms(50));
        c.expect(error(1, Code::Deadline).started());
        p.expect(cancel(1, Code::Deadline));
        p.send(error(1, Code::Application));
        c.send(request(1).oneway().end());
        p.expect(request(1).oneway().end());
        c.expect(response(1).end());
        p.send(response(1).end());
        c.send(request(1).body("a").end());
        p.expect(request(1).body("a").end());
        c.close();
        p.expect(cancel(1, Code::ConsumerLost));
        p.send(error(1, Code::Application));
        w.drain();
        let failed = Outcome::Failed;
        let expected = [
            failed(Code::NoProvider),
            failed(Code::Application),
            failed(Code::Deadline),
            Outcome::Oneway,
            Outcome::ConsumerLost,
        ];
        assert_eq!(outcomes(&w), expected);
    });
}

#[test]
fn refused_requests_are_reported_too() {
    weathers(|| {
        let w = World::one_core(Limits::default());
        w.watch(TRACED);
        let (c, p) = (w.consumer("ch"), w.provider("ch", 1));
        // one in flight holds the drain up
        c.send(request(1).end());
        p.expect(request(1).end());
        w.drain();
        c.expect(goaway().code(Code::Draining));
        p.expect(goaway().code(Code::Draining));
        c.send(request(2).headers(&[("traceparent", SAMPLED)]).end());
        c.expect(error(2, Code::Draining));
        assert_eq!(outcomes(&w), [Outcome::Failed(Code::Draining)]);
        assert_eq!(w.ended()[0].trace, trace(SAMPLED));
        w.abort();
    });
}

#[test]
fn only_slow_ones_are_reported_where_only_they_are_asked_for() {
    weathers(|| {
        let w = World::one_core(Limits::default());
        w.watch(Watch { slower: Some(30_000_000), sampled: false });
        let (c, p) = (w.consumer("ch"), w.provider("ch", 1));
        for wait in [10, 40] {
            let traced = request(1).headers(&[("traceparent", SAMPLED)]).end();
            c.send(traced.clone());
            p.expect(traced);
            w.advance(ms(wait));
            p.send(response(1).end());
            c.expect(response(1).end());
        }
        let [ended] = &w.ended()[..] else { panic!("{:?}", w.ended()) };
        assert!(ended.nanos >= 40_000_000 && ended.trace == trace(SAMPLED), "{ended:?}");
        // nobody watches any more
        w.watch(Watch::default());
        c.send(request(1).end());
        p.expect(request(1).end());
        w.advance(ms(40));
        p.send(response(1).end());
        c.expect(response(1).end());
        assert_eq!(w.ended().len(), 1);
        w.finish();
    });
}

#[test]
fn who_is_expelled_is_reported_with_the_reason() {
    weathers(|| {
        let w = World::one_core(Limits::default());
        let c = w.consumer("ch");
        c.send(data(7).end());
        c.expect_failed(Code::Protocol);
        let refused = w.refuse(Refused::MaxConnections);
        refused.expect_failed(Code::Overloaded);
        let [(role, code, text), (stranger, overloaded, full)] = &w.expelled()[..] else {
            panic!("{:?}", w.expelled())
        };
        assert_eq!((*role, *code, *stranger, *overloaded), ("consumer", Code::Protocol, "handshake", Code::Overloaded));
        assert!(text.contains("stream 7") && full.contains("(max_connections)"), "{text} {full}");
        w.finish();
    });
}

/// Each body byte once, where its consumer is, however the bodies come and whatever way they take.
#[test]
fn body_bytes_are_counted_once_by_channel() {
    weathers(|| {
        for w in [World::one_core(Limits::default()), on_two_cores()] {
            let (c, p) = (w.consumer("ch"), w.provider("ch", 1));
            c.send(request(1).body([1; 100]));
            p.expect(request(1).body([1; 100]));
            c.send(data(1).body([2; 5000]).end());
            p.expect(data(1).body([2; 5000]).end());
            p.send(response(1).body([3; 7000]).end());
            c.expect(response(1).body([3; 7000]).end());
            c.send(request(1).body("short").end());
            p.expect(request(1).body("short").end());
            p.send(response(1).body("x").end());
            c.expect(response(1).body("x").end());
            let timed = w.timed();
            assert_eq!((timed.request_bytes, timed.response_bytes), (5105, 7001));
            w.finish();
        }
    });
}

#[test]
fn a_second_attempts_bytes_are_not_counted_again() {
    weathers(|| {
        let w = World::one_core(Limits::default());
        let (c, first) = (w.consumer("ch"), w.provider("ch", 1));
        c.send(request(1).retry().body("work").end());
        first.expect(request(1).retry().body("work").end());
        let second = w.provider("ch", 1);
        first.close();
        second.expect(request(1).retry().body("work").end());
        second.send(response(1).body("done").end());
        c.expect(response(1).body("done").end());
        assert_eq!((w.timed().request_bytes, w.timed().response_bytes), (4, 4));
        w.finish();
    });
}
