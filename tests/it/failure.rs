//! Peers that stall, vanish or come in crowds: outcomes and bounds on the real binary. Times are printed, never judged.

use std::net::{SocketAddr, TcpListener};
use std::thread;
use std::time::Instant;

use corelay::protocol::{Code, Flags, FrameType, Header, Role};

use crate::cli::run::{Broker, corelay, eventually};
use crate::wire::{Wire, hello};

fn addr(broker: &Broker) -> SocketAddr {
    broker.addr.parse().unwrap()
}

/// Resident memory of the broker, in bytes.
fn resident(broker: &Broker) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", broker.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().trim().parse::<usize>().unwrap() * 1024
}

fn descriptors(broker: &Broker) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", broker.id())).unwrap().count()
}

#[test]
fn a_thousand_stalled_streams_harm_no_other() {
    const STALLED: u32 = 1000;
    const BODY: usize = 128 * 1024;
    const WINDOW: usize = 64 * 1024;
    let broker = Broker::start();
    let before = resident(&broker);
    let mut provider = Wire::provider(addr(&broker), "stall", STALLED + 1);
    // a consumer that takes one window of each answer, and grants nothing more
    let mut stalled = Wire::consumer(addr(&broker), "stall");
    let mut healthy = Wire::consumer(addr(&broker), "stall");
    let reading = thread::spawn(move || {
        let mut received = 0;
        for stream in 1..=STALLED {
            stalled.request(stream, u128::from(stream), b"stall", Flags::NONE);
        }
        while received < STALLED as usize * WINDOW {
            received += stalled.next().expect("the broker serves").payload.len();
        }
        (stalled, received)
    });
    for _ in 0..STALLED {
        let request = next_request(&mut provider);
        provider.respond(request.stream, &vec![7; BODY]);
    }
    let (stalled, received) = reading.join().unwrap();
    assert_eq!(received, STALLED as usize * WINDOW, "not a byte beyond the credit");
    let mut times = Vec::new();
    for n in 0..500 {
        let start = Instant::now();
        healthy.request(1, 1 << 64 | n, b"quick", Flags::NONE);
        let request = next_request(&mut provider);
        provider.respond(request.stream, b"quick");
        assert_eq!(healthy.expect(FrameType::Response).payload, b"quick");
        times.push(start.elapsed());
    }
    times.sort();
    let held = resident(&broker) - before;
    // what the provider could send at once: within the window it was granted
    let bound = STALLED as usize * BODY;
    println!("{STALLED} stalled streams: the healthy one's p50 {:?}, p99 {:?}", times[250], times[495]);
    println!("the broker grew by {} MiB; its windows bound it to {} MiB", held >> 20, bound >> 20);
    assert!(held < bound + bound / 8, "{held} bytes held for {bound}");
    drop((stalled, provider));
    healthy.request(1, 1, b"", Flags::NONE);
    healthy.expect_error(1, Code::NoProvider);
}

#[test]
fn a_killed_provider_is_noticed_in_the_middle_of_an_answer() {
    let broker = Broker::start();
    let mut provider = broker.reply(&["killed", "--exec", "echo some; sleep 60"]);
    let mut consumer = Wire::consumer(addr(&broker), "killed");
    consumer.request(1, 1, b"", Flags::WAIT);
    let first = consumer.expect(FrameType::Response);
    assert!(!first.flags.has(Flags::END));
    let killed = Instant::now();
    provider.0.kill().unwrap();
    let error = loop {
        let frame = consumer.next().expect("the broker serves");
        if frame.kind == FrameType::Error {
            break frame;
        }
    };
    println!("kill -9 of the provider: {:?} after {:?}", error.code, killed.elapsed());
    assert_eq!((error.stream, error.code), (1, Some(Code::ProviderLost)));
    assert!(error.flags.has(Flags::STARTED));
}

#[test]
fn connections_that_come_and_go_leave_nothing() {
    let broker = Broker::start();
    let round = |n: usize| {
        for _ in 0..n / 50 {
            drop((0..50).map(|_| Wire::consumer(addr(&broker), "churn")).collect::<Vec<_>>());
        }
    };
    let idle = descriptors(&broker);
    round(1000);
    eventually("descriptors of a warm broker", || descriptors(&broker) == idle);
    let warm = resident(&broker);
    round(4000);
    eventually("all descriptors to come back", || descriptors(&broker) == idle);
    let grown = resident(&broker).saturating_sub(warm);
    println!("4,000 connections grew the broker by {} KiB", grown >> 10);
    assert!(grown < 5 << 20, "{grown} bytes");
}

#[test]
fn a_peer_that_resets_or_sends_rubbish_harms_nobody() {
    let broker = Broker::start();
    let mut provider = Wire::provider(addr(&broker), "rubbish", 4);
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    println!("seed {seed:#x}");
    let mut random = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    for n in 0..300 {
        let len = (random() % 400) as usize;
        let bytes: Vec<u8> = (0..len).map(|_| random() as u8).collect();
        let mut wire = if n % 2 == 0 {
            Wire::raw(addr(&broker))
        } else {
            Wire::open(addr(&broker), &hello(Role::Consumer, "rubbish", 0))
        };
        wire.try_write(&bytes);
        if n % 3 == 0 {
            wire.reset();
        }
    }
    let mut good = Wire::consumer(addr(&broker), "rubbish");
    good.request(1, 1, b"fine", Flags::NONE);
    let request = loop {
        // rubbish on an open connection may happen to be a REQUEST
        let frame = provider.next().expect("the broker serves");
        if frame.kind == FrameType::Request && frame.payload[16..] == *b"fine" {
            break frame;
        }
    };
    provider.respond(request.stream, b"fine");
    assert_eq!(good.expect(FrameType::Response).payload, b"fine");
}

#[test]
fn few_receive_buffers_serve_many_stalled_readers() {
    let mut command = corelay(&["serve", "--listen", "127.0.0.1:0", "--cores", "1", "--no-pin", "--log", "warn"]);
    command.args(["--set", "io.buffers=16", "--set", "io.buffer_size=4096"]);
    let broker = Broker::spawn(&mut command);
    let mut provider = Wire::provider(addr(&broker), "few", 300);
    let mut stalled: Vec<Wire> = (0..200).map(|_| Wire::consumer(addr(&broker), "few")).collect();
    for (n, wire) in stalled.iter_mut().enumerate() {
        wire.request(1, n as u128, b"stall", Flags::NONE);
    }
    for _ in 0..stalled.len() {
        let request = provider.expect(FrameType::Request);
        // more than these consumers ever take
        provider.respond(request.stream, &vec![1; 200 * 1024]);
    }
    let mut healthy = Wire::consumer(addr(&broker), "few");
    let body = vec![9; 100_000];
    for n in 0..50 {
        healthy.request(1, 1 << 64 | n, &body, Flags::NONE);
        let first = next_request(&mut provider);
        let stream = first.stream;
        assert_eq!(collect(&mut provider, first), body);
        provider.respond(stream, b"done");
        assert_eq!(healthy.next_past_credit().payload, b"done");
    }
}

#[test]
fn a_listener_is_free_for_a_successor_while_the_broker_drains() {
    let mut broker = Broker::start();
    let at = addr(&broker);
    let mut provider = Wire::provider(at, "successor", 1);
    let mut consumer = Wire::consumer(at, "successor");
    consumer.request(1, 1, b"", Flags::NONE);
    let request = provider.expect(FrameType::Request);
    broker.process.signal(rustix::process::Signal::TERM);
    consumer.expect(FrameType::GoAway);
    eventually("the port to be free", || TcpListener::bind(at).is_ok());
    provider.expect(FrameType::GoAway);
    provider.respond(request.stream, b"finished");
    assert_eq!(consumer.expect(FrameType::Response).payload, b"finished");
    drop((provider, consumer));
    assert_eq!(broker.process.code(), Some(0));
}

#[test]
fn bodies_sent_byte_by_byte_arrive_whole() {
    let broker = Broker::start();
    let mut provider = Wire::provider(addr(&broker), "slow", 100);
    let mut writers: Vec<Wire> = (0..50).map(|_| Wire::consumer(addr(&broker), "slow")).collect();
    let mut frame = Header::new(FrameType::Request, 1).length(16 + 10).flags(Flags::END).encode().to_vec();
    frame.extend_from_slice(&[3; 16]);
    frame.extend_from_slice(b"0123456789");
    for byte in frame.chunks(1) {
        for writer in &mut writers {
            writer.write(byte);
        }
    }
    for _ in 0..writers.len() {
        let first = next_request(&mut provider);
        let stream = first.stream;
        let body = collect(&mut provider, first);
        assert_eq!(body, b"0123456789");
        provider.respond(stream, b"ok");
    }
    for writer in &mut writers {
        assert_eq!(writer.expect(FrameType::Response).payload, b"ok");
    }
}

fn next_request(provider: &mut Wire) -> crate::wire::Frame {
    provider.take(|frame| frame.kind == FrameType::Request)
}

/// The rest of a body whose frames lie between those of others.
fn collect(provider: &mut Wire, first: crate::wire::Frame) -> Vec<u8> {
    let mut body = first.payload[16..].to_vec();
    let mut ended = first.flags.has(Flags::END);
    while !ended {
        let more = provider.take(|frame| frame.kind == FrameType::Data && frame.stream == first.stream);
        body.extend_from_slice(&more.payload);
        provider.send(Header::new(FrameType::Credit, first.stream).arg(more.payload.len() as u32), &[]);
        ended = more.flags.has(Flags::END);
    }
    body
}
