//! Sending: whole, in part, not at all.

use std::io::{Read, Write};
use std::thread;
use std::time::{Duration, Instant};

use super::harness::*;
use crate::base::{Batch, Leases, Piece, Segment};
use crate::reactor::{Event, Options, Reactor, Receive, Sock};

pub(super) fn a_whole_send_is_reported_once<R: Reactor>(make: &impl Fn(Options) -> R) {
    let mut reactor = make(options());
    let (ours, mut peer) = pair();
    let sock = reactor.add(ours, 5);
    for round in 0..50 {
        let bytes = pattern(round, 1 + round * 50);
        reactor.send(sock, staged(&bytes));
        reactor.wait(Some(Duration::ZERO)).expect("a working reactor");
        match reactor.next_event() {
            Some(Event::Sent { user: 5, batch, error: None }) => assert_eq!(batch.remaining(), 0),
            other => panic!("unexpected: {other:?}"),
        }
        assert_quiet(&mut reactor);
        let mut got = vec![0; bytes.len()];
        peer.read_exact(&mut got).expect("what was sent");
        assert_eq!(got, bytes);
    }
}

pub(super) fn a_large_one_is_reported_before_sleeping<R: Reactor>(make: &impl Fn(Options) -> R) {
    let mut reactor = make(options());
    let (ours, peer) = pair();
    let sock = reactor.add(ours, 5);
    let start = Instant::now();
    let bytes = pattern(1, 20_000);
    let heap = Segment::Heap { chunk: bytes[..100].to_vec(), offset: 0 };
    for batch in [staged(&bytes), Batch { total: 100, segments: vec![heap], ..Batch::default() }] {
        reactor.send(sock, batch);
        reactor.wait(Some(NEVER)).expect("a working reactor");
        assert!(matches!(reactor.next_event(), Some(Event::Sent { user: 5, error: None, .. })));
    }
    assert!(start.elapsed() < NEVER);
    drop(reactor);
    assert_eq!(read_to_end(peer).expect("an orderly end").len(), 20_100);
}

/// Sends a batch to its end, waiting for room as often as it takes; how many sends were short.
fn send_all<R: Reactor>(reactor: &mut R, sock: Sock, batch: Batch) -> (Batch, usize) {
    let mut short = 0;
    reactor.send(sock, batch);
    loop {
        match next(reactor) {
            Event::Sent { batch, error: None, .. } if batch.remaining() == 0 => return (batch, short),
            Event::Sent { batch, error: None, .. } => {
                short += 1;
                reactor.notify_writable(sock);
                let event = next(reactor);
                assert!(matches!(event, Event::Writable { .. }), "{event:?}");
                reactor.send(sock, batch);
            }
            other => panic!("unexpected: {other:?}"),
        }
    }
}

/// Pieces of leased buffers, filled over a pair of their own.
fn leases<R: Reactor>(reactor: &mut R, count: usize) -> Vec<Piece> {
    let (ours, mut source) = pair();
    let sock = reactor.add(ours, 99);
    let mut pieces = Vec::new();
    for number in 0..count {
        reactor.receive(sock, Receive::Once);
        source.write_all(&pattern(number, 3000)).expect("room");
        match next(reactor) {
            Event::Received { user: 99, piece } => pieces.push(piece),
            other => panic!("unexpected: {other:?}"),
        }
    }
    reactor.close(sock, false);
    assert!(matches!(next(reactor), Event::Closed { user: 99 }));
    pieces
}

fn mixed(number: usize, piece: Piece) -> Batch {
    let control = pattern(number, number % 3 * 40);
    let staged = pattern(number + 1, 5000);
    let heap = pattern(number + 2, 70_000);
    let segments = vec![
        Segment::Staged { len: 1000 },
        Segment::Lease(piece),
        Segment::Heap { chunk: heap, offset: 10 },
        Segment::Staged { len: 4000 },
    ];
    let total = control.len() + 5000 + piece.len as usize + 69_990;
    Batch { control, staged, segments, total, sent: 0 }
}

pub(super) fn mixed_segments_arrive_in_order<R: Reactor>(make: &impl Fn(Options) -> R) {
    let mut reactor = make(options());
    let pieces = leases(&mut reactor, 20);
    let (ours, mut peer) = narrow_pair();
    let sock = reactor.add(ours, 5);
    let reader = thread::spawn(move || {
        let (mut all, mut some) = (Vec::new(), [0; 7777]);
        loop {
            match peer.read(&mut some).expect("an orderly end") {
                0 => return all,
                n => all.extend_from_slice(&some[..n]),
            }
        }
    });
    let (mut expected, mut short) = (Vec::new(), 0);
    for (number, &piece) in pieces.iter().enumerate() {
        let batch = mixed(number, piece);
        batch.for_each_unsent(reactor.pool(), |bytes| expected.extend_from_slice(bytes));
        let (batch, times) = send_all(&mut reactor, sock, batch);
        assert_eq!(batch.sent, batch.total);
        short += times;
        reactor.pool().release(piece);
    }
    reactor.close(sock, false);
    assert!(matches!(next(&mut reactor), Event::Closed { user: 5 }));
    let got = reader.join().expect("all read");
    assert!(got == expected, "{} bytes of {}", got.len(), expected.len());
    assert!(short > 0, "the pair was to be too narrow for one send");
}

/// Many refusals in one turn, more than completions fit the queue: each must be heard of.
pub(super) fn refused_sends_are_never_taken_for_whole<R: Reactor>(make: &impl Fn(Options) -> R) {
    let mut reactor = make(Options { entries: 2, ..options() });
    let mut full = Vec::new();
    for user in 0..64 {
        let (ours, peer) = still_pair();
        let sock = reactor.add(ours, user);
        reactor.send(sock, staged(&pattern(0, 4 << 20)));
        match next(&mut reactor) {
            Event::Sent { batch, error: None, .. } => assert!(batch.sent > 0 && batch.remaining() > 0),
            other => panic!("unexpected: {other:?}"),
        }
        full.push((sock, peer));
    }
    for _ in 0..3 {
        for (sock, _) in &full {
            reactor.send(*sock, staged(&pattern(0, 100_000)));
        }
        let (mut seen, mut refused) = (0u64, 0);
        for _ in 0..64 {
            match next(&mut reactor) {
                Event::Sent { user, batch, error: None } => {
                    seen |= 1 << user;
                    assert_eq!(batch.sent, 0);
                    refused += 1;
                }
                other => panic!("unexpected: {other:?}"),
            }
        }
        assert_eq!(seen, u64::MAX);
        assert_eq!(refused, 64);
    }
}

pub(super) fn to_a_peer_that_is_gone<R: Reactor>(make: &impl Fn(Options) -> R) {
    let mut reactor = make(options());
    let (ours, peer) = pair();
    let sock = reactor.add(ours, 5);
    crate::reactor::sys::close_socket(peer.into(), true);
    let mut failed = false;
    for _ in 0..2 {
        reactor.send(sock, staged(b"anyone?"));
        let Event::Sent { user: 5, batch, error } = next(&mut reactor) else { panic!("no outcome") };
        assert!(error.is_none() || batch.sent == 0);
        failed |= error.is_some();
    }
    assert!(failed);
    reactor.notify_writable(sock);
    assert!(matches!(next(&mut reactor), Event::Writable { user: 5 }));
    reactor.close(sock, false);
    assert!(matches!(next(&mut reactor), Event::Closed { user: 5 }));
}

pub(super) fn nothing_at_all<R: Reactor>(make: &impl Fn(Options) -> R) {
    let mut reactor = make(options());
    let (ours, _peer) = pair();
    let sock = reactor.add(ours, 5);
    reactor.send(sock, Batch::default());
    assert!(matches!(next(&mut reactor), Event::Sent { user: 5, error: None, .. }));
}

pub(super) fn more_stretches_than_one_send_takes<R: Reactor>(make: &impl Fn(Options) -> R) {
    let mut reactor = make(options());
    let (ours, mut peer) = pair();
    let sock = reactor.add(ours, 5);
    let bytes = pattern(0, 2500);
    let segments = bytes.iter().map(|_| Segment::Staged { len: 1 }).collect();
    send_all(&mut reactor, sock, Batch { segments, ..staged(&bytes) });
    let mut got = vec![0; bytes.len()];
    peer.read_exact(&mut got).expect("what was sent");
    assert_eq!(got, bytes);
}
