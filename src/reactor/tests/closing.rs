//! Closing: what still arrives, what no longer does.

use std::io::{Read, Write};

use super::harness::*;
use crate::reactor::{Event, Options, Reactor, Receive};

/// Sends until the socket takes no more; how much it took.
fn fill<R: Reactor>(reactor: &mut R, sock: crate::reactor::Sock) -> Vec<u8> {
    let bytes = pattern(3, 4 << 20);
    reactor.send(sock, staged(&bytes));
    match next(reactor) {
        Event::Sent { batch, error: None, .. } => {
            assert!(batch.remaining() > 0, "too wide a socket");
            bytes[..batch.sent].to_vec()
        }
        other => panic!("unexpected: {other:?}"),
    }
}

pub(super) fn a_blocked_send_does_not_delay_it<R: Reactor>(make: &impl Fn(Options) -> R) {
    let mut reactor = make(options());
    let (ours, peer) = still_pair();
    let sock = reactor.add(ours, 5);
    reactor.receive(sock, Receive::Stream);
    let taken = fill(&mut reactor, sock);
    reactor.notify_writable(sock);
    assert_quiet(&mut reactor);
    reactor.send(sock, staged(b"no room for this"));
    reactor.close(sock, false);
    let Event::Sent { user: 5, batch, .. } = next(&mut reactor) else { panic!("the batch is lost") };
    assert_eq!(batch.sent, 0);
    let event = next(&mut reactor);
    assert!(matches!(event, Event::Closed { user: 5 }), "{event:?}");
    assert_quiet(&mut reactor);
    assert!(read_to_end(peer).expect("an orderly end") == taken);
}

pub(super) fn what_was_sent_arrives_before_the_end<R: Reactor>(make: &impl Fn(Options) -> R) {
    let mut reactor = make(options());
    let (ours, peer) = pair();
    let sock = reactor.add(ours, 5);
    reactor.receive(sock, Receive::Stream);
    reactor.send(sock, staged(b"last words"));
    reactor.close(sock, false);
    reactor.close(sock, true);
    reactor.wait(Some(NEVER)).expect("a working reactor");
    assert!(matches!(next(&mut reactor), Event::Sent { user: 5, error: None, .. }));
    assert!(matches!(next(&mut reactor), Event::Closed { user: 5 }));
    assert_quiet(&mut reactor);
    assert_eq!(read_to_end(peer).expect("an orderly end"), b"last words");
}

pub(super) fn nothing_is_received_afterwards<R: Reactor>(make: &impl Fn(Options) -> R) {
    let mut reactor = make(options());
    let mut open = Vec::new();
    for user in 0..8 {
        let (ours, mut peer) = pair();
        let sock = reactor.add(ours, user);
        reactor.receive(sock, if user % 2 == 0 { Receive::Stream } else { Receive::Once });
        peer.write_all(b"unheard").expect("room");
        open.push((sock, peer));
    }
    // Some of it is in the queue of events by then, the rest on its way.
    reactor.wait(Some(NEVER)).expect("a working reactor");
    for (sock, peer) in &mut open {
        peer.write_all(b"unheard as well").expect("room");
        reactor.close(*sock, false);
    }
    let mut closed = 0u32;
    while closed != 0xff {
        match next(&mut reactor) {
            Event::Closed { user } => closed |= 1 << user,
            other => panic!("unexpected: {other:?}"),
        }
    }
    assert_quiet(&mut reactor);
    // No lease was lost with what nobody heard.
    let (ours, mut peer) = pair();
    let sock = reactor.add(ours, 9);
    reactor.receive(sock, Receive::Stream);
    let all = pattern(0, 64 * 4096 * 2);
    let there = all.clone();
    let writer = std::thread::spawn(move || peer.write_all(&there).map(|()| peer));
    assert!(receive_exactly(&mut reactor, 9, all.len()) == all);
    writer.join().expect("written").expect("connected");
}

/// Nothing but the send is in flight, and it is small: still nobody must sleep over the close.
pub(super) fn a_farewell_is_not_slept_over<R: Reactor>(make: &impl Fn(Options) -> R) {
    let mut reactor = make(options());
    let (ours, peer) = pair();
    let sock = reactor.add(ours, 5);
    reactor.send(sock, staged(b"farewell"));
    reactor.close(sock, false);
    reactor.wait(None).expect("a working reactor");
    assert!(matches!(reactor.next_event(), Some(Event::Sent { user: 5, error: None, .. })));
    assert!(matches!(reactor.next_event(), Some(Event::Closed { user: 5 })));
    assert_eq!(read_to_end(peer).expect("an orderly end"), b"farewell");
}

pub(super) fn an_abort_resets<R: Reactor>(make: &impl Fn(Options) -> R) {
    let mut reactor = make(options());
    let (ours, mut peer) = narrow_pair();
    let sock = reactor.add(ours, 5);
    reactor.receive(sock, Receive::Stream);
    fill(&mut reactor, sock);
    reactor.close(sock, true);
    assert!(matches!(next(&mut reactor), Event::Closed { user: 5 }));
    let mut all = Vec::new();
    let error = peer.read_to_end(&mut all).expect_err("a reset");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

pub(super) fn unread_bytes_cause_no_reset<R: Reactor>(make: &impl Fn(Options) -> R) {
    let mut reactor = make(options());
    let (ours, mut peer) = pair();
    let sock = reactor.add(ours, 5);
    peer.write_all(&pattern(0, 100_000)).expect("room");
    reactor.send(sock, staged(b"goodbye"));
    reactor.close(sock, false);
    assert!(matches!(next(&mut reactor), Event::Sent { .. }));
    assert!(matches!(next(&mut reactor), Event::Closed { .. }));
    assert_eq!(read_to_end(peer).expect("an orderly end"), b"goodbye");
}

pub(super) fn a_stale_socket_is_ignored<R: Reactor>(make: &impl Fn(Options) -> R) {
    let mut reactor = make(options());
    let (ours, _peer) = pair();
    let stale = reactor.add(ours, 5);
    reactor.close(stale, false);
    assert!(matches!(next(&mut reactor), Event::Closed { user: 5 }));
    let (ours, mut peer) = pair();
    let sock = reactor.add(ours, 6);
    assert_ne!(sock, stale);
    reactor.receive(stale, Receive::Stream);
    reactor.notify_writable(stale);
    reactor.send(stale, staged(b"to nobody"));
    reactor.close(stale, true);
    assert!(reactor.detach(stale).is_none());
    assert_quiet(&mut reactor);
    reactor.receive(sock, Receive::Stream);
    peer.write_all(b"fine").expect("room");
    assert_eq!(receive_exactly(&mut reactor, 6, 4), b"fine");
}

pub(super) fn dropping_a_reactor_ends_everything<R: Reactor>(make: &impl Fn(Options) -> R) {
    let mut reactor = make(options());
    let mut peers = Vec::new();
    for user in 0..8 {
        let (ours, peer) = still_pair();
        let sock = reactor.add(ours, user);
        if user % 2 == 0 {
            reactor.receive(sock, Receive::Stream);
        }
        fill(&mut reactor, sock);
        reactor.notify_writable(sock);
        peers.push(peer);
    }
    assert_quiet(&mut reactor);
    drop(reactor);
    for peer in peers {
        read_to_end(peer).expect("an orderly end");
    }
}
