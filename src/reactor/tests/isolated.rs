//! What concerns the whole process, its descriptors: each test runs alone, in a process of its own.

use std::fs::File;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::harness::*;
use crate::reactor::{Epoll, Event, Reactor, Receive, SendMode, Uring};

/// Runs an ignored test of this module alone.
fn alone(test: &str) {
    let output = Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", &format!("reactor::tests::isolated::{test}"), "--ignored", "--nocapture"])
        .output()
        .expect("a process");
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

#[test]
fn without_descriptors_accepting_backs_off() {
    alone("without_descriptors_uring");
    alone("without_descriptors_epoll");
}

#[test]
fn descriptors_all_come_back() {
    alone("descriptors_of_uring");
    alone("descriptors_of_epoll");
}

#[test]
#[ignore = "run by without_descriptors_accepting_backs_off"]
fn without_descriptors_uring() {
    without_descriptors(Uring::new(&options()).expect("io_uring"));
}

#[test]
#[ignore = "run by without_descriptors_accepting_backs_off"]
fn without_descriptors_epoll() {
    without_descriptors(Epoll::new(&options()).expect("epoll"));
}

fn without_descriptors(mut reactor: impl Reactor) {
    // First, for a multishot accept goes by the limit that it was armed under.
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(100), ..limit }).expect("below the hard limit");
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let address = listener.local_addr().expect("bound");
    reactor.listen(listener.into(), 7).expect("listening");
    reactor.wait(Some(Duration::ZERO)).expect("a working reactor");

    let _first = TcpStream::connect(address).expect("listening");
    assert!(matches!(next(&mut reactor), Event::Accepted { listener: 7, .. }));
    let mut all = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        all.push(file);
    }
    drop(all.pop());
    let _second = TcpStream::connect(address).expect("one descriptor is left");
    let start = Instant::now();
    let mut turns = 0;
    for failure in 0..3 {
        while reactor.wait(Some(NEVER)).is_ok() {
            turns += 1;
            match reactor.next_event() {
                Some(Event::AcceptFailed { listener: 7, error }) => {
                    assert_eq!(error.raw_os_error(), Some(libc::EMFILE));
                    break;
                }
                Some(other) => panic!("unexpected: {other:?}"),
                None => {}
            }
        }
        // 100 ms lie between the first two failures, 200 ms more before the third.
        let least = Duration::from_millis([0, 100, 300][failure]);
        assert!(start.elapsed() >= least, "{failure}: {:?}", start.elapsed());
    }
    assert!(turns < 20, "{turns} turns while there was nothing to do");
    all.clear();
    assert!(matches!(next(&mut reactor), Event::Accepted { listener: 7, .. }));
}

#[test]
#[ignore = "run by descriptors_all_come_back"]
fn descriptors_of_uring() {
    let before = descriptors();
    for mode in [SendMode::Silent, SendMode::Completions] {
        busy_then_gone(Uring::with_send_mode(&options(), mode).expect("io_uring"));
    }
    assert_same(before);
}

#[test]
#[ignore = "run by descriptors_all_come_back"]
fn descriptors_of_epoll() {
    let before = descriptors();
    busy_then_gone(Epoll::new(&options()).expect("epoll"));
    assert_same(before);
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("procfs").count()
}

/// The kernel takes an io_uring down after its descriptor is closed, and with it its hold on others.
fn assert_same(before: usize) {
    let start = Instant::now();
    while descriptors() != before {
        assert!(start.elapsed() < NEVER, "{} descriptors, {before} before", descriptors());
        std::thread::yield_now();
    }
}

fn busy_then_gone(mut reactor: impl Reactor) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let address = listener.local_addr().expect("bound");
    reactor.listen(listener.into(), 0).expect("listening");
    let mut peers = Vec::new();
    for user in 0..20 {
        peers.push(TcpStream::connect(address).expect("listening"));
        let Event::Accepted { fd, .. } = next(&mut reactor) else { panic!("no connection") };
        match user % 4 {
            0 => drop(fd),
            1 => {
                let sock = reactor.add(fd, user);
                reactor.receive(sock, Receive::Stream);
                reactor.close(sock, user % 8 == 1);
                assert!(matches!(next(&mut reactor), Event::Closed { .. }));
            }
            2 => {
                let sock = reactor.add(fd, user);
                assert!(reactor.detach(sock).is_some());
            }
            // Left open, listening and receiving, to the end of the reactor. The last is a connection never asked for.
            _ => {
                let sock = reactor.add(fd, user);
                reactor.receive(sock, Receive::Stream);
            }
        }
    }
    peers.push(TcpStream::connect(address).expect("listening"));
    reactor.wait(Some(NEVER)).expect("a working reactor");
}
