//! What a broker may not send, and what it may at any time.

use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use uuid::Uuid;

use super::super::{Answer, Begun, Cause, End, Limit, NewRequest, Origin, Session};
use super::{WINDOW, hello, session, welcome};
use crate::base::{Key, Time};
use crate::protocol::{Code, Flags, FrameType, HEADER_LEN, Header, Role};

fn receive(session: &mut Session, header: Header, payload: &[u8]) {
    let mut bytes = header.length(payload.len() as u32).encode().to_vec();
    bytes.extend_from_slice(payload);
    session.receive(&mut BytesMut::from(&bytes[..]), Time::ZERO);
}

fn open(session: &mut Session) -> Key {
    open_until(session, Limit::At(Time::MAX))
}

fn open_until(session: &mut Session, limit: Limit) -> Key {
    let request = NewRequest {
        id: Uuid::nil(),
        flags: Flags::NONE,
        timeout_ms: 0,
        limit,
        block: &[],
        body: &Bytes::from_static(b"x"),
        whole: true,
        waiter: None,
    };
    session.open_request(&request).unwrap()
}

/// A consumer's session with stream 1 open and its response as far as `frames` say.
fn consumer(frames: &[(Header, &[u8])]) -> Session {
    let mut session = session(Role::Consumer);
    open(&mut session);
    session.fill(&mut Vec::new());
    frames.iter().for_each(|(header, payload)| receive(&mut session, *header, payload));
    assert!(session.end().is_none());
    session
}

/// A provider's session with stream 1 open, its request not ended.
fn provider() -> Session {
    let mut session = session(Role::Provider);
    receive(&mut session, Header::new(FrameType::Request, 1), &[0; 16]);
    assert!(session.end().is_none());
    session
}

fn new(kind: FrameType, stream: u32) -> Header {
    Header::new(kind, stream)
}

fn assert_ends(mut session: Session, header: Header, payload: &[u8], code: Code) {
    receive(&mut session, header, payload);
    assert_eq!(session.end().map(|end| end.origin), Some(Origin::Found(code)), "{header:?}");
    let mut out = Vec::new();
    session.fill(&mut out);
    let told = Header::decode(out[..16].try_into().unwrap());
    assert_eq!((told.frame_type(), told.stream, told.code), (Some(FrameType::Error), 0, code.to_wire()));
}

#[test]
fn what_does_not_belong_ends_a_consumers_connection() {
    use FrameType::{Cancel, Credit, Data, Error, GoAway, Hello, Ping, Pong, Request, Response, Welcome};
    let begun: (Header, &[u8]) = (new(Response, 1), b"x");
    let long = vec![b'x'; 200];
    type Case<'a> = (&'a [(Header, &'a [u8])], Header, &'a [u8], Code);
    let cases: Vec<Case<'_>> = vec![
        (&[], new(Hello, 0), b"", Code::Protocol),
        (&[], new(Welcome, 0), b"", Code::Protocol),
        (&[], new(Request, 1), &[0; 16], Code::Protocol),
        (&[], new(Cancel, 1), b"", Code::Protocol),
        (&[], new(Response, 2), b"", Code::Protocol),
        (&[], new(Response, 0), b"", Code::Protocol),
        (&[], new(Data, 1), b"x", Code::Protocol),
        (&[], new(Data, 2), b"x", Code::Protocol),
        (&[], new(Data, 0), b"x", Code::Protocol),
        (&[], new(Error, 2), b"", Code::Protocol),
        (&[], new(Ping, 1), &[0; 8], Code::Protocol),
        (&[], new(Ping, 0), &[0; 7], Code::Protocol),
        (&[], new(Pong, 1), &[0; 8], Code::Protocol),
        (&[], new(Pong, 0), b"", Code::Protocol),
        (&[], new(GoAway, 1), b"", Code::Protocol),
        (&[], new(Credit, 1).arg(1), b"x", Code::Protocol),
        (&[], new(Credit, 0).arg(1), b"", Code::Protocol),
        (&[], new(Credit, 1), b"", Code::FlowControl),
        (&[], new(Credit, 1).arg(i32::MAX as u32), b"", Code::FlowControl),
        (&[], Header { kind: 0x0C, ..new(Data, 0) }, b"", Code::Protocol),
        (&[], Header { kind: 0, ..new(Data, 0) }, b"", Code::Protocol),
        (&[], new(Response, 1), &long, Code::FrameTooLarge),
        (&[], new(Response, 1).flags(Flags::HEADERS), b"\x02\0\x01", Code::Protocol),
        (&[], new(Response, 1).flags(Flags::HEADERS), b"\x02\0\x05a", Code::Protocol),
        (&[], new(Response, 1).flags(Flags::HEADERS), b"\0", Code::Protocol),
        (std::slice::from_ref(&begun), new(Response, 1), b"", Code::Protocol),
    ];
    for (before, header, payload, code) in cases {
        assert_ends(consumer(before), header, payload, code);
    }
    for last in [new(Response, 1).flags(Flags::END), new(Error, 1)] {
        for more in [new(Data, 1), new(Response, 1), new(Error, 1)] {
            assert_ends(consumer(&[(last, b"")]), more, b"", Code::Protocol);
        }
    }
    for legal in [new(Credit, 9).arg(1), new(Pong, 0), new(GoAway, 0), Header { kind: 0xFF, ..new(Data, 77) }] {
        let mut session = consumer(&[]);
        receive(&mut session, legal, if legal.frame_type() == Some(Pong) { &[9; 8] } else { b"" });
        assert!(session.end().is_none(), "{legal:?}: {:?}", session.end());
    }
}

#[test]
fn what_does_not_belong_ends_a_providers_connection() {
    use FrameType::{Data, Error, Request, Response, Welcome};
    for (header, payload, code) in [
        (new(Request, 1), &[0; 16][..], Code::Protocol),
        (new(Request, 0), &[0; 16], Code::Protocol),
        (new(Request, 2), &[0; 15], Code::Protocol),
        (new(Response, 1), b"", Code::Protocol),
        (new(Error, 1), b"", Code::Protocol),
        (new(Data, 2), b"", Code::Protocol),
        (new(Welcome, 0), b"", Code::Protocol),
    ] {
        assert_ends(provider(), header, payload, code);
    }
    let mut ended = provider();
    receive(&mut ended, new(Data, 1).flags(Flags::END), b"");
    assert_ends(ended, new(Data, 1), b"", Code::Protocol);
    for legal in [new(FrameType::Cancel, 9), new(FrameType::Credit, 9).arg(1)] {
        let mut session = provider();
        receive(&mut session, legal, b"");
        assert!(session.end().is_none());
    }
}

#[test]
fn one_byte_beyond_the_window_is_too_much() {
    for (over, fits) in [(0, true), (1, false)] {
        let mut session = provider();
        let mut left = WINDOW as usize + over;
        while left > 0 {
            let n = left.min(100);
            receive(&mut session, new(FrameType::Data, 1), &vec![0; n]);
            left -= n;
        }
        assert_eq!(session.end().is_none(), fits);
    }
}

#[test]
fn only_welcome_or_an_error_opens_a_connection() {
    let fresh = || {
        let mut session = Session::new(&hello(Role::Consumer)).unwrap();
        session.fill(&mut Vec::new());
        session
    };
    assert_ends(fresh(), new(FrameType::Ping, 0), &[0; 8], Code::Protocol);
    assert_ends(fresh(), new(FrameType::Response, 1), b"", Code::Protocol);
    assert_ends(fresh(), new(FrameType::Welcome, 0), &[1, 0], Code::Protocol);
    assert_ends(fresh(), new(FrameType::Welcome, 0), &[9; 40], Code::Version);
    assert_ends(fresh(), new(FrameType::Welcome, 0), &[0; 4097], Code::FrameTooLarge);
    let mut elsewhere = fresh();
    elsewhere.receive(&mut bytes::BytesMut::from(&b"HTTP/1.1 400 Bad Request\r\n"[..]), Time::ZERO);
    let told = elsewhere.end().expect("no broker").text.clone();
    assert_eq!(told, "no corelay broker: it began with \"HTTP/1.1 400 Bad\", which is no corelay frame");
    let mut refused = fresh();
    receive(&mut refused, new(FrameType::Error, 0).code(Code::Unauthorized), b"no");
    assert_eq!(refused.end().map(|end| end.origin), Some(Origin::Peer(8)));
    let mut out = Vec::new();
    refused.fill(&mut out);
    assert!(out.is_empty(), "an ERROR is not answered");
}

#[test]
fn a_flood_of_pings_ends_the_connection_and_an_answered_one_does_not() {
    let mut session = session(Role::Consumer);
    for _ in 0..64 {
        receive(&mut session, new(FrameType::Ping, 0), &[0; 8]);
    }
    let mut out = Vec::new();
    session.fill(&mut out);
    assert_eq!(out.len(), 64 * 24);
    for _ in 0..64 {
        receive(&mut session, new(FrameType::Ping, 0), &[0; 8]);
    }
    assert!(session.end().is_none());
    receive(&mut session, new(FrameType::Ping, 0), &[0; 8]);
    assert_eq!(session.end().map(|end| end.origin), Some(Origin::Found(Code::Flood)));
}

#[test]
fn nothing_follows_a_connections_error() {
    let mut session = consumer(&[]);
    receive(&mut session, new(FrameType::Response, 2), b"");
    let ping = session.ping(Time::ZERO);
    let cx = Context::from_waker(Waker::noop());
    assert!(session.poll_pong(ping, &cx).is_ready(), "no PONG will come");
    let mut out = Vec::new();
    session.fill(&mut out);
    let error = Header::decode(out[..16].try_into().unwrap());
    assert_eq!((error.frame_type(), out.len()), (Some(FrameType::Error), 16 + error.length as usize));
}

#[test]
fn a_broker_that_takes_nothing_is_given_up_after_thirty_seconds() {
    let at = |ms: u64| Time::from_nanos(ms * 1_000_000);
    let mut session = consumer(&[]);
    session.wrote(10, true, at(0));
    session.wrote(0, true, at(10_000));
    // It is not silent, it only takes nothing.
    for ms in (500..30_000).step_by(500) {
        receive_at(&mut session, at(ms));
        session.on_time(at(ms));
        session.wrote(0, true, at(ms));
    }
    assert!(session.end().is_none());
    session.on_time(at(30_000));
    assert_eq!(session.end().map(|end| end.origin), Some(Origin::Found(Code::Timeout)));
    let mut taking = consumer(&[]);
    taking.wrote(10, true, at(0));
    taking.wrote(1, true, at(20_000));
    receive_at(&mut taking, at(30_000));
    taking.on_time(at(30_000));
    assert!(taking.end().is_none());
}

fn receive_at(session: &mut Session, now: Time) {
    let bytes = [&Header::new(FrameType::Pong, 0).length(8).encode()[..], &[9; 8]].concat();
    session.receive(&mut BytesMut::from(&bytes[..]), now);
}

#[test]
fn what_follows_the_end_is_not_looked_at() {
    let mut session = consumer(&[]);
    session.shut(End::closed());
    receive(&mut session, new(FrameType::Hello, 7), b"whatever");
    assert_eq!(session.end().map(|end| end.origin), Some(Origin::Closed));
    assert_eq!(welcome().max_frame, 128);
}

#[test]
fn at_goaway_what_was_not_sent_fails_as_not_started_and_the_rest_goes_on() {
    let mut session = consumer(&[]);
    let unsent = open(&mut session);
    receive(&mut session, new(FrameType::GoAway, 0), b"");
    let cx = Context::from_waker(Waker::noop());
    let Poll::Ready(Err(failure)) = session.poll_begin(unsent, &cx, &mut Begun::default()) else { panic!("it waits") };
    assert_eq!((failure.cause, failure.flags), (Cause::Local(Code::Draining), Flags::NONE));
    session.release(unsent);
    let mut out = Vec::new();
    session.fill(&mut out);
    assert!(out.is_empty(), "nothing of it leaves");
    assert_eq!(session.open(), 1);
    receive(&mut session, new(FrameType::Response, 1).flags(Flags::END), b"x");
    session.end_if_done();
    assert_eq!(session.end().map(|end| end.origin), Some(Origin::Lost));
}

#[test]
fn a_request_that_has_not_left_is_taken_back_from_between_others() {
    let one = HEADER_LEN + 17;
    for (taken, last) in [(one, Flags::NONE), (2 * one, Flags::STARTED)] {
        let mut session = session(Role::Consumer);
        let handshake = session.encoded as usize;
        session.wrote(handshake, false, Time::ZERO);
        let [first, second, third] = [(); 3].map(|()| open(&mut session));
        session.release(second);
        assert_eq!((session.open(), session.take_freed()), (2, 1));
        let mut out = Vec::new();
        session.fill(&mut out);
        let ids = [0, one].map(|at| Header::decode(out[at..].first_chunk().unwrap()).stream);
        assert_eq!((ids, out.len()), ([1, 3], 2 * one), "nothing of it leaves");
        session.write_begins();
        session.wrote(taken, taken == one, Time::ZERO);
        session.shut(End::lost("gone", None));
        let cx = Context::from_waker(Waker::noop());
        let flags = [first, third].map(|key| match session.poll_begin(key, &cx, &mut Begun::default()) {
            Poll::Ready(Err(failure)) => failure.flags,
            other => panic!("{other:?}"),
        });
        assert_eq!(flags, [Flags::STARTED, last], "what has left may have begun");
    }
}

#[test]
fn a_limit_counts_from_the_next_turn() {
    let (mut session, ms) = (session(Role::Consumer), Duration::from_millis);
    let key = open_until(&mut session, Limit::After(500_000_000));
    assert!(session.take_earlier(), "who keeps the time is told");
    let other = open_until(&mut session, Limit::After(900_000_000));
    assert!(!session.take_earlier(), "once");
    let began = Time::ZERO + ms(100);
    session.date(began);
    session.date(began + ms(50));
    assert_eq!(session.limit_of(key), Some(began + ms(500)));
    assert_eq!(session.next_time(), began + ms(500));
    session.fill(&mut Vec::new());
    let cx = Context::from_waker(Waker::noop());
    session.on_time(began + ms(499));
    assert!(session.poll_begin(key, &cx, &mut Begun::default()).is_pending());
    session.on_time(began + ms(500));
    let Poll::Ready(Err(failure)) = session.poll_begin(key, &cx, &mut Begun::default()) else { panic!("it waits") };
    assert_eq!(failure.cause, Cause::Local(Code::Deadline));
    assert!(session.poll_begin(other, &cx, &mut Begun::default()).is_pending());
}

#[test]
fn a_request_that_came_whole_is_known_to_be_cancelled_before_it_is_taken_up() {
    let mut session = session(Role::Provider);
    let request = |stream| new(FrameType::Request, stream).flags(Flags::END);
    receive(&mut session, request(1), &[7; 20]);
    receive(&mut session, request(2), &[7; 20]);
    let mut arrivals = VecDeque::new();
    session.take_arrivals(&mut arrivals);
    assert!(arrivals.iter().all(|arrival| arrival.whole.as_ref().is_some_and(|body| body.len() == 4)));
    assert!(arrivals.iter().all(|arrival| arrival.lost == session.lost()));
    receive(&mut session, new(FrameType::Cancel, 2), b"");
    assert_ne!(arrivals[1].lost, session.lost());
    assert_eq!([0, 1].map(|at: usize| session.is_over(arrivals[at].key)), [false, true]);
    let answer = session.respond(arrivals[0].key, Vec::new(), Bytes::from_static(b"y"), true);
    assert_eq!(answer, Answer::Taken);
    let mut spans = Vec::new();
    session.take_spans(&mut spans);
    assert_eq!(spans, [Time::ZERO]);
    assert!(session.fail_request(arrivals[1].key, Code::Application, ""));
    session.release_writer(arrivals[1].key);
    assert!(session.streams.is_empty());
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..400), at in 0usize..400, provider_side in any::<bool>()) {
        let mut session = if provider_side { provider() } else { consumer(&[]) };
        let (one, two) = bytes.split_at(at.min(bytes.len()));
        let mut input = BytesMut::from(one);
        session.receive(&mut input, Time::ZERO);
        input.extend_from_slice(two);
        session.receive(&mut input, Time::ZERO);
        session.fill(&mut Vec::new());
    }

    #[test]
    fn no_frames_panic(frames in prop::collection::vec((0u8..14, any::<u8>(), 0u32..4, 0u32..3, 0usize..40), 0..30), provider_side in any::<bool>()) {
        let mut session = if provider_side { provider() } else { consumer(&[]) };
        for (kind, flags, stream, arg, len) in frames {
            let header = Header { length: 0, kind, flags: Flags(flags), code: 4, stream, arg };
            receive(&mut session, header, &vec![0; len]);
            session.fill(&mut Vec::new());
        }
    }
}
