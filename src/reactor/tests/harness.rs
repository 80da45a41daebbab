//! Pairs of sockets, and turning a reactor until something happens.

use std::io::Read;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use crate::base::{Batch, Leases, Piece};
use crate::reactor::{Event, Options, Reactor};

/// Far more than anything here takes: what isn't there by then never comes.
pub(super) const NEVER: Duration = Duration::from_secs(20);

/// A small pool, for tests run many at a time.
pub(super) fn options() -> Options {
    Options { buffers: 64, buffer_size: 4096, entries: 64, spin: Duration::ZERO }
}

/// A connected pair: one end for a reactor, the other for the test.
pub(super) fn pair() -> (OwnedFd, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let peer = TcpStream::connect(listener.local_addr().expect("bound")).expect("listening");
    peer.set_read_timeout(Some(NEVER)).expect("a socket");
    peer.set_nodelay(true).expect("a socket");
    let (ours, _) = listener.accept().expect("a connection");
    ours.set_nonblocking(true).expect("a socket");
    (ours.into(), peer)
}

/// A pair whose send buffer is as small as the kernel allows, so that sends block soon.
pub(super) fn narrow_pair() -> (OwnedFd, TcpStream) {
    let (ours, peer) = pair();
    rustix::net::sockopt::set_socket_send_buffer_size(&ours, 1).expect("a socket");
    (ours, peer)
}

/// A pair of Unix sockets: once full it stays so until the peer reads, whereas TCP moves bytes on by itself.
pub(super) fn still_pair() -> (OwnedFd, UnixStream) {
    let (ours, peer) = UnixStream::pair().expect("a pair");
    peer.set_read_timeout(Some(NEVER)).expect("a socket");
    ours.set_nonblocking(true).expect("a socket");
    (ours.into(), peer)
}

pub(super) fn staged(bytes: &[u8]) -> Batch {
    Batch { staged: bytes.to_vec(), total: bytes.len(), ..Batch::default() }
}

/// Bytes in which each position can be told.
pub(super) fn pattern(seed: usize, len: usize) -> Vec<u8> {
    (0..len).map(|at| (seed.wrapping_mul(31) + at.wrapping_mul(7) + (at >> 8)) as u8).collect()
}

/// The next event. Turns briefly at a time, for a small whole send may be reported as late as a timeout.
pub(super) fn next<R: Reactor>(reactor: &mut R) -> Event {
    let start = Instant::now();
    loop {
        if let Some(event) = reactor.next_event() {
            return event;
        }
        assert!(start.elapsed() < NEVER, "nothing happened");
        reactor.wait(Some(Duration::from_millis(10))).expect("a working reactor");
    }
}

/// Turns a few times; nothing must come of it.
pub(super) fn assert_quiet<R: Reactor>(reactor: &mut R) {
    for _ in 0..5 {
        reactor.wait(Some(Duration::ZERO)).expect("a working reactor");
        let event = reactor.next_event();
        assert!(event.is_none(), "unexpected: {event:?}");
    }
}

pub(super) fn take<R: Reactor>(reactor: &R, piece: Piece) -> Vec<u8> {
    let bytes = reactor.pool().bytes(piece).to_vec();
    reactor.pool().release(piece);
    bytes
}

/// Receives on any socket until `len` bytes came for `user`.
pub(super) fn receive_exactly<R: Reactor>(reactor: &mut R, from: u64, len: usize) -> Vec<u8> {
    let mut all = Vec::new();
    while all.len() < len {
        match next(reactor) {
            Event::Received { user, piece } if user == from => all.extend(take(reactor, piece)),
            other => panic!("unexpected: {other:?}"),
        }
    }
    assert_eq!(all.len(), len);
    all
}

/// Everything up to the end of the stream.
pub(super) fn read_to_end(mut peer: impl Read) -> std::io::Result<Vec<u8>> {
    let mut all = Vec::new();
    peer.read_to_end(&mut all).map(|_| all)
}
