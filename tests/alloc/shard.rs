//! A whole shard on real sockets: reactor, core and the loop around them.

use std::time::{Duration, Instant};

use corelay::Server;
use corelay::broker::{Cores, Io, ServerOptions};
use corelay::protocol::Flags;

use crate::common::peers::{Consumer, provider};
use crate::counter::Watch;

/// The id of the shard's thread, which is the one of this process with that name.
fn shard_thread() -> i32 {
    let started = Instant::now();
    loop {
        let threads = std::fs::read_dir("/proc/self/task").expect("/proc is there");
        for thread in threads.map(|thread| thread.expect("a thread").path()) {
            // it may have ended meanwhile
            if std::fs::read_to_string(thread.join("comm")).is_ok_and(|name| name.trim() == "corelay-0") {
                return thread.file_name().and_then(|id| id.to_str()?.parse().ok()).expect("a number");
            }
        }
        assert!(started.elapsed() < Duration::from_secs(20), "no thread is called corelay-0");
    }
}

/// Brokers run one at a time, for their threads are found by name.
static ONE: std::sync::Mutex<()> = std::sync::Mutex::new(());

fn allocates_nothing(io: Io, in_flight: u32, flags: Flags) {
    let _one = ONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let server = Server::start(ServerOptions {
        listen: vec!["127.0.0.1:0".parse().expect("an address")],
        cores: Cores::Count(1),
        pin: false,
        io,
        buffers: 64,
        ..ServerOptions::default()
    });
    let server = match server {
        Ok(server) => server,
        Err(error) if std::env::var_os("CI").is_none() && io == Io::Uring => {
            return println!("SKIPPED on io_uring: {error}");
        }
        Err(error) => panic!("{io:?}: {error}"),
    };
    let provider = provider(server.addr(), 1024, 64);
    let mut consumer = Consumer::connect(server.addr(), in_flight, 64, flags);
    // behind one-way requests a plain one: when it is answered, the provider has ended them all, too
    let mut last = Consumer::connect(server.addr(), 1, 64, Flags::NONE);
    let mut round = || {
        consumer.round();
        if flags.has(Flags::ONEWAY) {
            last.round();
        }
    };
    let rounds = 10_000 / in_flight;
    let mut counted = Vec::new();
    // the scheduler may come up with a new way to cut the rounds into turns, and a buffer has to grow once more: that
    // ends, while what requests allocate is seen each time
    for _ in 0..5 {
        (0..rounds).for_each(|_| round());
        let watch = Watch::thread(shard_thread());
        (0..rounds).for_each(|_| round());
        counted.push(watch.count());
        if counted.last().is_some_and(|&(count, _)| count == 0) {
            break;
        }
    }
    drop(server);
    provider.join().expect("the provider does not panic");
    let warm = counted.last().is_some_and(|&(count, _)| count == 0);
    assert!(
        warm,
        "{rounds} rounds of {in_flight} on {io:?} allocate, again and again (count, first sizes): {counted:?}"
    );
}

#[test]
fn one_in_flight_on_uring() {
    allocates_nothing(Io::Uring, 1, Flags::NONE);
}

#[test]
fn one_in_flight_on_epoll() {
    allocates_nothing(Io::Epoll, 1, Flags::NONE);
}

#[test]
fn pipelined_on_uring() {
    allocates_nothing(Io::Uring, 64, Flags::NONE);
}

#[test]
fn pipelined_on_epoll() {
    allocates_nothing(Io::Epoll, 64, Flags::NONE);
}

#[test]
fn one_way_on_uring() {
    allocates_nothing(Io::Uring, 64, Flags::ONEWAY);
}

#[test]
fn one_way_on_epoll() {
    allocates_nothing(Io::Epoll, 64, Flags::ONEWAY);
}
