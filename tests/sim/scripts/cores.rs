//! Several cores: to the client, one broker.

use super::*;
use crate::wire::*;
use corelay::base::ChannelId;
use corelay::broker::core::Channel;
use corelay::protocol::{Code, Role};

fn spread(channel: &str, cores: u16) -> Channel {
    Channel { id: ChannelId::named(channel), spread: cores, window: None, queue_requests: None, queue_bytes: None }
}

fn join(w: &World, role: Role, core: usize, window: u32, max_concurrent: u32) -> (Client, u16) {
    let client = w.connect_to(core);
    let welcome = client.hello(hello(role, "ch", window, max_concurrent));
    (client, welcome.core)
}

/// A consumer and a provider on different cores of a channel spread over two.
fn apart(w: &World, window: u32) -> (Client, Client) {
    let (c, at) = join(w, Role::Consumer, 0, window, 0);
    let (p, other) = join(w, Role::Provider, 0, window, 2);
    assert_ne!(at, other, "dealt to different cores");
    (c, p)
}

#[test]
fn consumers_and_providers_of_a_channel_meet_on_its_home_core() {
    weathers(|| {
        let w = World::cores(3, Limits::default(), Vec::new());
        let (c, at) = join(&w, Role::Consumer, 0, 100, 0);
        for core in 0..3 {
            let (p, other) = join(&w, Role::Provider, core, 100, 1);
            assert_eq!(at, other);
            c.send(request(1).end());
            p.expect(request(1).end());
            p.close();
            c.expect(error(1, Code::ProviderLost).started());
        }
        w.finish();
    });
}

#[test]
fn a_request_crosses_and_its_answer_comes_back() {
    weathers(|| {
        let w = World::cores(2, Limits::default(), vec![spread("ch", 2)]);
        let (c, p) = apart(&w, 5);
        c.send(request(3).id([8; 16]).timeout(700).headers(&[("k", "v")]).body("12345678").end());
        p.expect(request(1).id([8; 16]).timeout(700).headers(&[("k", "v")]).body("12345"));
        p.send(credit(1, 5));
        p.expect(data(1).body("678").end());
        p.send(response(1).headers(&[("a", "b")]).body("abcdefgh").end());
        c.expect(response(3).headers(&[("a", "b")]).body("abcde"));
        c.send(credit(3, 9));
        c.expect(data(3).body("fgh").end());
        w.finish();
    });
}

#[test]
fn across_cores_a_direction_holds_one_window_in_all() {
    weathers(|| {
        let w = World::cores(2, window(100), vec![spread("ch", 2)]);
        let (c, p) = apart(&w, 10);
        c.send(request(1).body(vec![1; 100]));
        p.expect(request(1).body(vec![1; 10]));
        c.expect_nothing();
        p.send(credit(1, 50));
        p.expect(data(1).body(vec![1; 50]));
        let granted = c.expect_credit(1);
        assert!((25..=60).contains(&granted), "{granted} bytes granted, 60 have left");
        w.finish();
    });
}

#[test]
fn failures_cross_with_their_codes() {
    weathers(|| {
        let w = World::cores(2, Limits::default(), vec![spread("ch", 2)]);
        let (c, p) = apart(&w, 100);
        c.send(request(1).body("x"));
        p.expect(request(1).body("x"));
        p.send(error(1, Code::Protocol).text("mine"));
        c.expect(error(1, Code::Application).text("mine").started());
        p.expect(cancel(1, Code::Cancelled));
        c.send(cancel(1, Code::Cancelled));

        c.send(request(1).body("x"));
        p.expect(request(1).body("x"));
        c.send(cancel(1, Code::Cancelled));
        c.expect(error(1, Code::Cancelled).started());
        p.expect(cancel(1, Code::Cancelled));
        p.send(error(1, Code::Cancelled));

        c.send(request(1).timeout(50).end());
        p.expect(request(1).end());
        w.advance(ms(50));
        c.expect(error(1, Code::Deadline).started());
        p.expect(cancel(1, Code::Deadline));

        c.send(request(1).end());
        p.expect(request(2).end());
        p.close();
        c.expect(error(1, Code::ProviderLost).started());
        c.send(request(1).end());
        c.expect(error(1, Code::NoProvider));
        w.finish();
    });
}

#[test]
fn a_consumer_lost_is_told_across() {
    weathers(|| {
        let w = World::cores(2, Limits::default(), vec![spread("ch", 2)]);
        let (c, p) = apart(&w, 100);
        c.send(request(1).body("x"));
        p.expect(request(1).body("x"));
        c.close();
        p.expect(cancel(1, Code::ConsumerLost));
        w.finish();
    });
}

#[test]
fn one_way_across() {
    weathers(|| {
        let w = World::cores(2, Limits::default(), vec![spread("ch", 2)]);
        let (c, p) = apart(&w, 100);
        c.send(request(1).oneway().body("x").end());
        p.expect(request(1).oneway().body("x").end());
        c.expect(response(1).end());
        c.close();
        p.send(response(1).body("ignored").end());
        p.expect_nothing();
        w.finish();
    });
}

#[test]
fn a_retry_across() {
    weathers(|| {
        let w = World::cores(2, Limits::default(), vec![spread("ch", 2)]);
        let (c, p) = apart(&w, 100);
        c.send(request(1).retry().wait().body("x").end());
        p.expect(request(1).retry().wait().body("x").end());
        p.close();
        c.expect_nothing();
        let (second, _) = join(&w, Role::Provider, 0, 100, 1);
        second.expect(request(1).retry().wait().body("x").end());
        second.send(response(1).end());
        c.expect(response(1).end());
        w.finish();
    });
}

#[test]
fn what_waits_goes_to_the_core_where_a_provider_joins() {
    weathers(|| {
        let w = World::cores(2, Limits::default(), vec![spread("ch", 2)]);
        let (c, at) = join(&w, Role::Consumer, 0, 100, 0);
        c.send(request(1).wait().body("abc"));
        let (p, other) = join(&w, Role::Provider, 0, 100, 1);
        assert_ne!(at, other);
        p.expect(request(1).wait().body("abc"));
        c.send(data(1).body("d").end());
        p.expect(data(1).body("d").end());
        w.finish();
    });
}

#[test]
fn a_connection_refused_on_another_core_is_told_and_goes_with_its_fin() {
    weathers(|| {
        let w = World::cores(2, Limits::default(), Vec::new());
        for core in 0..2 {
            let c = w.connect_to(core);
            c.send_bytes(b"not a HELLO at all");
            c.expect_failed(Code::FrameTooLarge);
        }
        w.finish();
    });
}

#[test]
fn a_request_stays_on_its_core_unless_that_is_the_busier_one_by_a_quarter() {
    weathers(|| {
        let w = World::cores(2, Limits::default(), vec![spread("ch", 2)]);
        let (c, at) = join(&w, Role::Consumer, 0, 100, 0);
        let providers: Vec<_> = (0..2).map(|_| join(&w, Role::Provider, 0, 100, 8)).collect();
        let taken = |core_is_own: bool| {
            let (p, _) = providers.iter().find(|(_, core)| (*core == at) == core_is_own).expect("one on each core");
            std::iter::from_fn(|| p.next()).count()
        };
        w.settle();
        for stream in 1..=3 {
            c.send(request(stream).end());
            w.settle();
        }
        assert_eq!((taken(true), taken(false)), (3, 0), "three of eight are one more than a quarter");
        for stream in 4..=16 {
            c.send(request(stream).end());
            w.settle();
        }
        assert_eq!((taken(true), taken(false)), (5, 8), "the other core had room");
        w.finish();
    });
}
