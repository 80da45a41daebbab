//! Receiving: once, as a stream, with too few buffers, to the end, and elsewhere.

use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::Duration;

use super::harness::*;
use crate::base::Leases;
use crate::reactor::{Event, Options, Reactor, Receive, sys};

pub(super) fn once_then_stream<R: Reactor>(make: &impl Fn(Options) -> R) {
    let mut reactor = make(options());
    let (ours, mut peer) = pair();
    let sock = reactor.add(ours, 5);
    peer.write_all(b"hello").expect("room");
    assert_quiet(&mut reactor);
    reactor.receive(sock, Receive::Once);
    assert_eq!(receive_exactly(&mut reactor, 5, 5), b"hello");
    peer.write_all(b"more").expect("room");
    assert_quiet(&mut reactor);
    reactor.receive(sock, Receive::Stream);
    assert_eq!(receive_exactly(&mut reactor, 5, 4), b"more");
    for round in 0..100 {
        let bytes = pattern(round, 1 + round * 100);
        peer.write_all(&bytes).expect("room");
        assert_eq!(receive_exactly(&mut reactor, 5, bytes.len()), bytes);
    }
}

pub(super) fn once_upgraded_while_armed<R: Reactor>(make: &impl Fn(Options) -> R) {
    let mut reactor = make(options());
    let (ours, mut peer) = pair();
    let sock = reactor.add(ours, 5);
    reactor.receive(sock, Receive::Once);
    assert_quiet(&mut reactor);
    reactor.receive(sock, Receive::Stream);
    for _ in 0..3 {
        peer.write_all(b"again").expect("room");
        assert_eq!(receive_exactly(&mut reactor, 5, 5), b"again");
    }
}

pub(super) fn fin_and_half_open<R: Reactor>(make: &impl Fn(Options) -> R) {
    for how in [Receive::Once, Receive::Stream] {
        let mut reactor = make(options());
        let (ours, peer) = pair();
        let sock = reactor.add(ours, 5);
        reactor.receive(sock, how);
        peer.shutdown(Shutdown::Write).expect("connected");
        let event = next(&mut reactor);
        assert!(matches!(event, Event::ReceiveEnded { user: 5, error: None }), "{event:?}");
        reactor.send(sock, staged(b"still here"));
        let event = next(&mut reactor);
        assert!(matches!(event, Event::Sent { user: 5, error: None, .. }), "{event:?}");
        reactor.close(sock, false);
        assert!(matches!(next(&mut reactor), Event::Closed { user: 5 }));
        assert_eq!(read_to_end(peer).expect("an orderly end"), b"still here");
    }
}

pub(super) fn reset<R: Reactor>(make: &impl Fn(Options) -> R) {
    let mut reactor = make(options());
    let (ours, peer) = pair();
    let sock = reactor.add(ours, 5);
    reactor.receive(sock, Receive::Stream);
    assert_quiet(&mut reactor);
    sys::close_socket(peer.into(), true);
    match next(&mut reactor) {
        Event::ReceiveEnded { user: 5, error: Some(error) } => {
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        }
        other => panic!("unexpected: {other:?}"),
    }
    reactor.close(sock, false);
    assert!(matches!(next(&mut reactor), Event::Closed { user: 5 }));
}

pub(super) fn few_buffers_serve_many<R: Reactor>(make: &impl Fn(Options) -> R) {
    const SOCKETS: usize = 16;
    const LEN: usize = 40_000;
    let mut reactor = make(Options { buffers: 4, buffer_size: 512, entries: 2, ..options() });
    let mut peers: Vec<TcpStream> = Vec::new();
    for user in 0..SOCKETS {
        let (ours, peer) = pair();
        let sock = reactor.add(ours, user as u64);
        reactor.receive(sock, Receive::Stream);
        peers.push(peer);
    }
    let writer = thread::spawn(move || {
        for at in (0..LEN).step_by(1000) {
            for (user, peer) in peers.iter_mut().enumerate() {
                peer.write_all(&pattern(user, LEN)[at..at + 1000]).expect("read by the other end");
            }
        }
    });
    let mut got = vec![Vec::new(); SOCKETS];
    let mut ended = 0;
    while ended < SOCKETS {
        match next(&mut reactor) {
            Event::Received { user, piece } => got[user as usize].extend(take(&reactor, piece)),
            Event::ReceiveEnded { error: None, .. } => ended += 1,
            other => panic!("unexpected: {other:?}"),
        }
    }
    writer.join().expect("all written");
    for (user, got) in got.iter().enumerate() {
        assert!(*got == pattern(user, LEN), "socket {user}");
    }
}

pub(super) fn held_buffers_park_and_resume<R: Reactor>(make: &impl Fn(Options) -> R) {
    let mut reactor = make(Options { buffers: 2, buffer_size: 64, ..options() });
    let mut peers = Vec::new();
    for user in 0..8 {
        let (ours, mut peer) = pair();
        let sock = reactor.add(ours, user);
        reactor.receive(sock, Receive::Stream);
        peer.write_all(&[user as u8; 64]).expect("room");
        peers.push(peer);
    }
    let mut seen = Vec::new();
    for _ in 0..4 {
        let mut held = Vec::new();
        while held.len() < 2 {
            let Event::Received { user, piece } = next(&mut reactor) else { panic!("no bytes") };
            assert_eq!(reactor.pool().bytes(piece), [user as u8; 64]);
            seen.push(user);
            held.push(piece);
        }
        // Everything is held: nothing can come, however often one asks.
        assert_quiet(&mut reactor);
        held.into_iter().for_each(|piece| reactor.pool().release(piece));
        // One long wait must do: whoever has bytes must not sleep parked.
        reactor.wait(Some(NEVER)).expect("a working reactor");
        while seen.len() < 8
            && let Some(event) = reactor.next_event()
        {
            let Event::Received { user, piece } = event else { panic!("unexpected: {event:?}") };
            assert_eq!(take(&reactor, piece), [user as u8; 64]);
            seen.push(user);
        }
        if seen.len() >= 8 {
            break;
        }
    }
    seen.sort_unstable();
    assert_eq!(seen, [0, 1, 2, 3, 4, 5, 6, 7]);
}

pub(super) fn moving_to_another_reactor<R: Reactor>(make: &impl Fn(Options) -> R) {
    let (ours, mut peer) = pair();
    let mut first = make(options());
    let sock = first.add(ours, 1);
    first.receive(sock, Receive::Once);
    assert_quiet(&mut first);
    assert!(first.detach(sock).is_none(), "a receive is in flight");
    peer.write_all(b"hello").expect("room");
    assert_eq!(receive_exactly(&mut first, 1, 5), b"hello");
    peer.write_all(b"there").expect("room");
    let ours = first.detach(sock).expect("nothing in flight");
    assert!(first.detach(sock).is_none());
    let home = thread::spawn(move || peer.write_all(b", again").map(|()| peer));
    let mut second = make(options());
    let sock = second.add(ours, 2);
    second.receive(sock, Receive::Stream);
    assert_eq!(receive_exactly(&mut second, 2, 12), b"there, again");
    let peer = home.join().expect("written").expect("room");
    assert_quiet(&mut first);
    second.close(sock, false);
    assert!(matches!(next(&mut second), Event::Closed { user: 2 }));
    assert_eq!(read_to_end(peer).expect("an orderly end"), b"");
    first.wait(Some(Duration::ZERO)).expect("a working reactor");
}

/// The io_uring reactor hands the kernel 16 of these buffers at first, more when they run out, fewer again later.
pub(super) fn many_at_once_again_and_again<R: Reactor>(make: &impl Fn(Options) -> R) {
    let mut reactor = make(Options { buffers: 64, buffer_size: 64 << 10, ..options() });
    let mut peers = Vec::new();
    for user in 0..48 {
        let (ours, peer) = pair();
        let sock = reactor.add(ours, user);
        reactor.receive(sock, Receive::Stream);
        peers.push(peer);
    }
    for _ in 0..3 {
        peers.iter_mut().for_each(|peer| peer.write_all(b"all at once").expect("room"));
        let mut held = Vec::new();
        while held.len() < peers.len() {
            match next(&mut reactor) {
                Event::Received { piece, .. } => held.push(piece),
                other => panic!("unexpected: {other:?}"),
            }
        }
        held.into_iter().for_each(|piece| assert_eq!(take(&reactor, piece), b"all at once"));
        for _ in 0..500 {
            assert_quiet(&mut reactor);
        }
    }
}
