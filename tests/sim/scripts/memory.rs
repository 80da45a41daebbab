//! §4: the bound on what the broker holds in all.

use super::*;
use crate::wire::*;
use corelay::protocol::Code;

/// A core whose buffer takes 100,000 bytes. A chunk of what waits may be up to 4 KiB larger than what is in it, and
/// each request counts with its state, so the scripts keep some distance from the bounds.
fn small() -> Limits {
    Limits { core_buffer: 100_000, window: 60_000, ..Limits::default() }
}

/// So many turns of the core that leases which wait for something have been settled.
fn some_turns(w: &World) {
    let other = w.consumer("other");
    for _ in 0..60 {
        other.send(cancel(1, Code::Cancelled));
        w.settle();
    }
}

#[test]
fn above_three_quarters_new_requests_are_refused() {
    weathers(|| {
        let w = World::one_core(small());
        let c = w.consumer("ch");
        c.send(request(1).wait().body(vec![1; 60_000]));
        c.send(request(2).wait());
        c.expect_nothing();
        c.send(data(2).body(vec![1; 18_000]));
        c.send(request(3).wait());
        c.expect(error(3, Code::Overloaded));
        c.send(cancel(1, Code::Cancelled));
        c.expect(error(1, Code::Cancelled));
        c.send(request(4).wait());
        c.expect_nothing();
        w.finish();
    });
}

#[test]
fn at_the_bound_the_stream_that_holds_most_ends() {
    weathers(|| {
        let w = World::one_core(small());
        let c = w.consumer("ch");
        c.send(request(1).wait().body(vec![1; 25_000]));
        c.send(request(2).wait().body(vec![1; 25_000]));
        c.send(data(2).body(vec![1; 30_000]));
        c.expect_nothing();
        c.send(data(1).body(vec![1; 21_000]));
        c.expect(error(2, Code::Overloaded));
        c.expect_nothing();
        assert!((46_000..60_000).contains(&w.held()), "{} bytes held", w.held());
        let shed = w.shed();
        assert_eq!((shed.len(), shed[0].0), (1, [2; 16]));
        w.finish();
    });
}

#[test]
fn a_stream_that_was_handed_over_is_shed_with_started() {
    weathers(|| {
        let w = World::one_core(small());
        let c = w.consumer("ch");
        let p = w.provider_with("ch", 2, 0);
        c.send(request(1).body(vec![1; 60_000]));
        p.expect(request(1));
        some_turns(&w);
        c.send(request(2).wait().body(vec![1; 45_000]));
        some_turns(&w);
        c.expect(error(1, Code::Overloaded).started());
        p.expect(request(2).wait());
        p.expect(cancel(1, Code::Overloaded));
        w.finish();
    });
}

#[test]
fn a_retry_s_copy_counts_and_is_let_go_with_the_answer() {
    weathers(|| {
        let w = World::one_core(Limits::default());
        let c = w.consumer("ch");
        let p = w.provider("ch", 2);
        c.send(request(1).retry().body(vec![1; 5000]).end());
        p.expect(request(1).retry().body(vec![1; 5000]).end());
        let before = w.held();
        assert!(before >= 5000);
        p.send(response(1));
        c.expect(response(1));
        assert!(w.held() <= before - 5000, "{} bytes held of {before}", w.held());
        w.finish();
    });
}

#[test]
fn stalled_readers_keep_no_receive_buffer() {
    weathers(|| {
        let w = World::one_core(Limits { connection_buffer: 100_000, ..Limits::default() });
        let p = w.provider("ch", 50);
        let stalled: Vec<_> = (0..10).map(|_| w.consumer("ch")).collect();
        for (id, c) in (1..).zip(&stalled) {
            c.send(request(1).end());
            p.expect(request(id).end());
            c.stall(10);
        }
        for id in 1..=10 {
            p.send(response(id).body(vec![1; 3000]));
            p.send(data(id).body(vec![2; 3000]));
        }
        some_turns(&w);
        assert_eq!(w.leased(), 0);
        for c in &stalled {
            c.resume();
            let mut body = vec![1; 3000];
            body.extend([2; 3000]);
            c.expect(response(1).body(body));
        }
        w.finish();
    });
}

#[test]
fn what_waits_without_credit_keeps_no_receive_buffer() {
    weathers(|| {
        let w = World::one_core(Limits::default());
        let c = w.consumer("ch");
        let p = w.provider_with("ch", 5, 1000);
        c.send(request(1).body(vec![1; 20_000]));
        p.expect(request(1).body(vec![1; 1000]));
        some_turns(&w);
        assert_eq!(w.leased(), 0);
        w.finish();
    });
}

/// What is looked after twice would be listed twice again, and so on: memory without end.
#[test]
fn leases_that_wait_in_both_directions_are_looked_after_once() {
    let w = World::one_core(Limits::default());
    let c = w.consumer_with("ch", 1000);
    let p = w.provider_with("ch", 1, 1000);
    c.send(request(1).body(vec![1; 3000]));
    p.expect(request(1).body(vec![1; 1000]));
    p.send(response(1).body(vec![2; 3000]));
    c.expect(response(1).body(vec![2; 1000]));
    for round in 0..200 {
        // every now and then the queues run empty
        let grant = if round % 10 == 9 { 4000 } else { 2000 };
        c.send_later(data(1).body(vec![1; grant as usize]));
        p.send_later(data(1).body(vec![2; grant as usize]));
        c.send_later(credit(1, grant));
        p.send_later(credit(1, grant));
        w.settle();
        assert!(w.leased() > 0, "nothing to look after in round {round}");
        if round % 10 == 9 {
            c.send_later(credit(1, 2000));
            p.send_later(credit(1, 2000));
            w.settle();
            c.send_later(data(1).body(vec![1; 2000]));
            p.send_later(data(1).body(vec![2; 2000]));
            w.settle();
        }
    }
    c.close();
    p.close();
    w.finish();
}
