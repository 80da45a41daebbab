//! Whole shards on real sockets: reactor, core, mesh and the loop around them.

use std::time::{Duration, Instant};

use corelay::Server;
use corelay::base::ChannelId;
use corelay::broker::{ChannelOptions, Cores, Io, ServerOptions};
use corelay::protocol::Flags;

use crate::common::frames::CHANNEL;
use crate::common::peers::{Consumer, provider};
use crate::counter::Watch;

/// The id of a core's thread, which is the one of this process with its name.
fn shard_thread(core: u16) -> i32 {
    let name = format!("corelay-{core}");
    let started = Instant::now();
    loop {
        let threads = std::fs::read_dir("/proc/self/task").expect("/proc is there");
        for thread in threads.map(|thread| thread.expect("a thread").path()) {
            // it may have ended meanwhile
            if std::fs::read_to_string(thread.join("comm")).is_ok_and(|comm| comm.trim() == name) {
                return thread.file_name().and_then(|id| id.to_str()?.parse().ok()).expect("a number");
            }
        }
        assert!(started.elapsed() < Duration::from_secs(20), "no thread is called {name}");
    }
}

/// Brokers run one at a time, for their threads are found by name.
static ONE: std::sync::Mutex<()> = std::sync::Mutex::new(());

/// Some ten thousand requests through a broker of so many cores, its channel spread over all; `in_flight` at a time
/// on a connection. None may allocate.
fn allocates_nothing(io: Io, cores: u16, in_flight: u32, flags: Flags) {
    let _one = ONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut channel = ChannelOptions::new(ChannelId::named(CHANNEL), CHANNEL);
    channel.spread = cores;
    let server = Server::start(ServerOptions {
        listen: vec!["127.0.0.1:0".parse().expect("an address")],
        cores: Cores::Count(cores.into()),
        pin: false,
        io,
        buffers: 64,
        channels: vec![channel],
        ..ServerOptions::default()
    });
    let server = match server {
        Ok(server) => server,
        Err(error) if std::env::var_os("CI").is_none() && io == Io::Uring => {
            return println!("SKIPPED on io_uring: {error}");
        }
        Err(error) => panic!("{io:?}: {error}"),
    };
    // connections are dealt out: each core has a consumer, whose requests all go to the first core's provider
    let provider = provider(server.addr(), 1024, 64);
    let mut consumers: Vec<_> = (0..cores).map(|_| Consumer::connect(server.addr(), in_flight, 64, flags)).collect();
    // behind one-way requests a plain one: when it is answered, the provider has ended them all, too
    let mut last = Consumer::connect(server.addr(), 1, 64, Flags::NONE);
    let mut round = || {
        consumers.iter_mut().for_each(Consumer::round);
        if flags.has(Flags::ONEWAY) {
            last.round();
        }
    };
    let rounds = 10_000 / (in_flight * u32::from(cores));
    let mut counted = Vec::new();
    for core in 0..cores {
        // the scheduler may come up with a new way to cut the rounds into turns, and a buffer has to grow once more:
        // that ends, while what requests allocate is seen each time
        let quiet = (0..5).any(|_| {
            (0..rounds).for_each(|_| round());
            let watch = Watch::thread(shard_thread(core));
            (0..rounds).for_each(|_| round());
            counted.push(watch.count());
            counted.last().is_some_and(|&(count, _)| count == 0)
        });
        assert!(quiet, "core {core} allocates, again and again in {rounds} rounds (count, first sizes): {counted:?}");
    }
    drop(server);
    provider.join().expect("the provider does not panic");
}

#[test]
fn one_in_flight_on_uring() {
    allocates_nothing(Io::Uring, 1, 1, Flags::NONE);
}

#[test]
fn one_in_flight_on_epoll() {
    allocates_nothing(Io::Epoll, 1, 1, Flags::NONE);
}

#[test]
fn pipelined_on_uring() {
    allocates_nothing(Io::Uring, 1, 64, Flags::NONE);
}

#[test]
fn pipelined_on_epoll() {
    allocates_nothing(Io::Epoll, 1, 64, Flags::NONE);
}

#[test]
fn one_way_on_uring() {
    allocates_nothing(Io::Uring, 1, 64, Flags::ONEWAY);
}

#[test]
fn one_way_on_epoll() {
    allocates_nothing(Io::Epoll, 1, 64, Flags::ONEWAY);
}

#[test]
fn between_two_cores_on_uring() {
    allocates_nothing(Io::Uring, 2, 64, Flags::NONE);
}

#[test]
fn between_two_cores_on_epoll() {
    allocates_nothing(Io::Epoll, 2, 64, Flags::NONE);
}
