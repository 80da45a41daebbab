//! Accepting.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::Duration;

use rustix::fs::OFlags;
use rustix::io::FdFlags;

use super::harness::*;
use crate::reactor::{Event, Options, Reactor};

pub(super) fn connections_come_in<R: Reactor>(make: &impl Fn(Options) -> R) {
    let mut reactor = make(options());
    let listeners = [0, 1].map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port"));
    let addresses = listeners.each_ref().map(|listener| listener.local_addr().expect("bound"));
    for (tag, listener) in listeners.into_iter().enumerate() {
        listener.set_nonblocking(true).expect("a socket");
        reactor.listen(listener.into(), tag as u32).expect("listening");
    }
    for round in 0..6 {
        let which = round % 2;
        let mut peer = TcpStream::connect(addresses[which]).expect("listening");
        let Event::Accepted { listener, fd } = next(&mut reactor) else { panic!("no connection") };
        assert_eq!(listener, which as u32);
        assert!(rustix::io::fcntl_getfd(&fd).expect("open").contains(FdFlags::CLOEXEC));
        assert!(rustix::fs::fcntl_getfl(&fd).expect("open").contains(OFlags::NONBLOCK));
        TcpStream::from(fd).write_all(b"hi").expect("room");
        let mut greeting = [0; 2];
        peer.read_exact(&mut greeting).expect("what was sent");
    }
    assert_quiet(&mut reactor);
}

pub(super) fn stopping_frees_the_port<R: Reactor>(make: &impl Fn(Options) -> R) {
    let mut reactor = make(options());
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    listener.set_nonblocking(true).expect("a socket");
    let address = listener.local_addr().expect("bound");
    reactor.listen(listener.into(), 7).expect("listening");
    reactor.wait(Some(Duration::ZERO)).expect("a working reactor");
    assert!(TcpListener::bind(address).is_err());
    reactor.stop_listening();
    reactor.stop_listening();
    assert_quiet(&mut reactor);
    TcpListener::bind(address).expect("a free port");
}
