//! §2: who is let in, what a session may do, and what becomes of it when that changes.

use super::*;
use crate::wire::*;
use corelay::auth::{AccessList, Digest, Entry};
use corelay::protocol::{Code, Hello, Role};

/// An entry whose token is its name.
fn entry(name: &str, allow: &[&str], deny: &[&str]) -> Entry {
    let rules = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
    Entry { token: Some(Digest::of(name.as_bytes())), allow: rules(allow), deny: rules(deny), ..Entry::new(name) }
}

fn list(entries: Vec<Entry>) -> AccessList {
    AccessList::new(entries, []).unwrap()
}

fn saying(token: &str, role: Role, channel: &str) -> Hello {
    let max_concurrent = if role == Role::Provider { 4 } else { 0 };
    Hello { token: token.into(), ..hello(role, channel, 1000, max_concurrent) }
}

impl World {
    fn session(&self, token: &str, role: Role, channel: &str) -> Client {
        let client = self.connect();
        client.hello(saying(token, role, channel));
        client
    }

    fn refused(&self, token: &str, role: Role, channel: &str) {
        let client = self.connect();
        client.send_hello(saying(token, role, channel));
        client.expect_failed(Code::Unauthorized);
    }
}

#[test]
fn who_may_is_let_in_and_nobody_else() {
    weathers(|| {
        for cores in [1, 3] {
            let entries =
                vec![entry("shop", &["consume:a", "consume:b"], &["consume:b"]), entry("desk", &["provide:*"], &[])];
            let w = World::guarded(cores, list(entries));
            for (token, role, channel) in [
                ("", Role::Consumer, "a"),
                ("shopp", Role::Consumer, "a"),
                ("shop", Role::Consumer, "c"),
                ("shop", Role::Consumer, "b"),
                ("shop", Role::Provider, "a"),
                ("desk", Role::Consumer, "a"),
            ] {
                w.refused(token, role, channel);
            }
            let counted: u64 = w.all_counters().iter().map(|c| c.connections_failed[Code::Unauthorized as usize]).sum();
            assert_eq!(counted, 6);
            let c = w.session("shop", Role::Consumer, "a");
            let p = w.session("desk", Role::Provider, "a");
            c.send(request(1).body("hi").end());
            p.expect(request(1).body("hi").end());
            p.send(response(1).body("ho").end());
            c.expect(response(1).body("ho").end());
            w.finish();
        }
    });
}

#[test]
fn who_may_publish_may_not_ask() {
    weathers(|| {
        let w = World::guarded(1, list(vec![entry("log", &["publish:a"], &[]), entry("desk", &["provide:a"], &[])]));
        let p = w.session("desk", Role::Provider, "a");
        let c = w.session("log", Role::Consumer, "a");
        c.send(request(1).body("an answer, please").end());
        c.expect(error(1, Code::Unauthorized));
        p.expect_nothing();
        c.send(request(1).oneway().body("news").end());
        p.expect(request(1).oneway().body("news").end());
        c.expect(response(1).end());
        p.send(response(1).end());
        // refused in the middle of its body, it holds its id until its end
        c.send(request(2).body("an answer"));
        c.expect(error(2, Code::Unauthorized));
        c.send(data(2).body(", please").end());
        p.expect_nothing();
        w.finish();
    });
}

#[test]
fn who_may_only_ask_may_not_publish() {
    let w = World::guarded(1, list(vec![entry("shop", &["consume:a"], &["publish:a"])]));
    let c = w.session("shop", Role::Consumer, "a");
    c.send(request(1).oneway().end());
    c.expect(error(1, Code::Unauthorized));
    c.send(request(1).end());
    c.expect(error(1, Code::NoProvider));
    w.finish();
}

#[test]
fn an_identity_is_asked_for_like_a_token_and_goes_where_the_connection_goes() {
    let desk = Entry { token: None, identity: Some("desk.example".into()), ..entry("desk", &["provide:a"], &[]) };
    for cores in [1, 3] {
        let w = World::guarded(cores, list(vec![desk.clone()]));
        let p = w.connect_as("desk.example");
        p.hello(hello(Role::Provider, "a", 10, 1));
        let other = w.connect_as("desk");
        other.send_hello(hello(Role::Provider, "a", 10, 1));
        other.expect_failed(Code::Unauthorized);
        w.finish();
    }
}

#[test]
fn a_session_whose_right_is_taken_back_is_closed_and_no_other() {
    weathers(|| {
        for cores in [1, 2] {
            let shop = entry("shop", &["consume:a"], &[]);
            let desk = entry("desk", &["provide:a"], &[]);
            let till = entry("till", &["consume:a"], &[]);
            let w = World::guarded(cores, list(vec![shop.clone(), desk.clone(), till.clone()]));
            let p = w.session("desk", Role::Provider, "a");
            let (lost, kept) = (w.session("shop", Role::Consumer, "a"), w.session("till", Role::Consumer, "a"));
            lost.send(request(1).end());
            kept.send(request(1).body("kept"));
            p.expect(request(1).end());
            p.expect(request(2).body("kept"));
            // what waits in the socket was not read in time
            lost.send_later(request(2).body("too late").end());
            w.set_access(list(vec![desk.clone(), till.clone()]));
            lost.expect_failed(Code::Unauthorized);
            p.expect(cancel(1, Code::ConsumerLost));
            p.expect_nothing();
            w.refused("shop", Role::Consumer, "a");
            kept.send(data(1).body(" on").end());
            p.expect(data(2).body(" on").end());
            w.set_access(list(vec![till, shop]));
            p.expect_failed(Code::Unauthorized);
            kept.expect(error(1, Code::ProviderLost).started());
            w.session("shop", Role::Consumer, "a");
            w.finish();
        }
    });
}

#[test]
fn a_session_that_may_do_less_is_closed_and_one_that_may_do_more_does() {
    let w = World::guarded(1, list(vec![entry("shop", &["consume:a"], &[]), entry("log", &["publish:a"], &[])]));
    let (shop, log) = (w.session("shop", Role::Consumer, "a"), w.session("log", Role::Consumer, "a"));
    log.send(request(1).end());
    log.expect(error(1, Code::Unauthorized));
    w.set_access(list(vec![entry("shop", &["publish:a"], &[]), entry("log", &["consume:a"], &[])]));
    shop.expect_failed(Code::Unauthorized);
    log.send(request(1).end());
    log.expect(error(1, Code::NoProvider));
    w.finish();
}

#[test]
fn the_first_rules_close_who_has_no_token_and_the_last_ones_gone_let_all_in() {
    let w = World::one_core(Limits::default());
    let (stranger, known) = (w.consumer("a"), w.session("shop", Role::Consumer, "a"));
    w.set_access(list(vec![entry("shop", &["consume:*"], &[])]));
    stranger.expect_failed(Code::Unauthorized);
    known.expect_nothing();
    w.set_access(AccessList::default());
    w.consumer("a").expect_nothing();
    known.send(request(1).end());
    known.expect(error(1, Code::NoProvider));
    w.finish();
}

#[test]
fn a_request_that_waits_for_a_provider_ends_with_its_right() {
    let w = World::guarded(1, list(vec![entry("shop", &["consume:a"], &[]), entry("desk", &["provide:a"], &[])]));
    let c = w.session("shop", Role::Consumer, "a");
    c.send(request(1).wait().end());
    w.set_access(list(vec![entry("desk", &["provide:a"], &[])]));
    c.expect_failed(Code::Unauthorized);
    w.session("desk", Role::Provider, "a").expect_nothing();
    w.finish();
}

#[test]
fn a_connection_on_its_way_between_cores_is_judged_where_it_arrives() {
    let w = World::guarded(2, list(vec![entry("shop", &["consume:*"], &[])]));
    for channel in ["a", "b", "c", "d"] {
        let c = w.connect();
        c.send_later(hello_frame(saying("shop", Role::Consumer, channel)));
        w.turn_of(0);
        w.set_access(list(vec![entry("till", &["consume:*"], &[])]));
        if c.next().is_some_and(|seen| seen.header.frame_type() == Some(corelay::protocol::FrameType::Welcome)) {
            c.expect_failed(Code::Unauthorized);
        }
        w.set_access(list(vec![entry("shop", &["consume:*"], &[])]));
    }
    w.finish();
}
