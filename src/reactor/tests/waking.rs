//! Waking a reactor that sleeps.

use std::io::Write;
use std::thread;
use std::time::{Duration, Instant};

use super::harness::*;
use crate::reactor::{Event, Options, Reactor, Receive};

pub(super) fn from_another_thread<R: Reactor>(make: &impl Fn(Options) -> R) {
    let mut reactor = make(options());
    for _ in 0..100 {
        let waker = reactor.waker();
        let other = thread::spawn(move || waker.wake());
        reactor.wait(None).expect("a working reactor");
        assert!(reactor.next_event().is_none());
        other.join().expect("woken");
    }
}

pub(super) fn before_the_wait<R: Reactor>(make: &impl Fn(Options) -> R) {
    let mut reactor = make(options());
    for _ in 0..3 {
        reactor.waker().wake();
        reactor.waker().wake();
        reactor.wait(None).expect("a working reactor");
    }
}

pub(super) fn from_another_reactor<R: Reactor>(make: &impl Fn(Options) -> R) {
    let mut sleeper = make(options());
    let mut other = make(options());
    let waker = sleeper.waker();
    for _ in 0..100 {
        other.wake(&waker);
        other.wait(Some(Duration::ZERO)).expect("a working reactor");
        sleeper.wait(None).expect("a working reactor");
        assert!(sleeper.next_event().is_none());
    }
    // The descriptor may be closed as soon as it was asked for.
    other.wake(&waker);
    drop((sleeper, waker));
    other.wait(Some(Duration::ZERO)).expect("a working reactor");
}

pub(super) fn a_timeout_passes<R: Reactor>(make: &impl Fn(Options) -> R) {
    let mut reactor = make(options());
    reactor.wait(Some(Duration::ZERO)).expect("a working reactor");
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(5) {
        reactor.wait(Some(Duration::from_millis(5))).expect("a working reactor");
    }
    assert!(reactor.next_event().is_none());
}

pub(super) fn spinning_hears_as_well<R: Reactor>(make: &impl Fn(Options) -> R) {
    let mut reactor = make(Options { spin: Duration::from_micros(200), ..options() });
    let (ours, mut peer) = pair();
    let sock = reactor.add(ours, 5);
    reactor.receive(sock, Receive::Stream);
    for round in 0..50 {
        let bytes = pattern(round, 2000);
        let there = bytes.clone();
        let mut copy = peer.try_clone().expect("a socket");
        let writer = thread::spawn(move || copy.write_all(&there).expect("room"));
        assert_eq!(receive_exactly(&mut reactor, 5, 2000), bytes);
        writer.join().expect("written");
    }
    reactor.send(sock, staged(b"small"));
    reactor.wait(Some(NEVER)).expect("a working reactor");
    assert!(matches!(reactor.next_event(), Some(Event::Sent { user: 5, .. })));
    peer.write_all(b"x").expect("room");
    reactor.wait(None).expect("a working reactor");
    assert!(matches!(reactor.next_event(), Some(Event::Received { .. })));
}
