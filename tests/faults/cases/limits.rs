//! What the kernel has too little of: descriptors, receive buffers, room in the submission queue.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use corelay::protocol::{Flags, FrameType, HEADER_LEN, Header};

use crate::log::Log;
use crate::peers::{CHANNEL, assert_echo, consumer_hello, echoes, echoing};
use crate::run::{eventually, without_settings};
use crate::site::Site;
use crate::wire::Wire;

const FILES: usize = 128;

pub fn launch_with_few_files(line: &[String], _: &Path) -> Option<Command> {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("ulimit -n {FILES} && exec \"$0\" \"$@\"")]).args(line);
    without_settings(&mut command);
    command.stderr(Stdio::piped());
    Some(command)
}

/// What a client that has sent HELLO has got so far.
fn answer(socket: &mut TcpStream) -> Option<FrameType> {
    let mut header = [0; HEADER_LEN];
    match socket.read(&mut header) {
        Ok(HEADER_LEN) => Header::decode(&header).frame_type(),
        Err(error) if error.kind() == ErrorKind::WouldBlock => None,
        other => panic!("{other:?} in place of a frame"),
    }
}

/// Connects more clients than there are descriptors, sees that the broker sleeps meanwhile, lets most of them go, and
/// sees that it accepts again.
pub fn no_descriptors(site: &mut Site) -> String {
    let log = Log::of(&mut site.broker);
    // the bystander's own CPU time must not hide the broker's idling
    site.bystander.pace(Some(Duration::from_millis(50)));
    let hello = consumer_hello();
    let connect = |_| {
        let mut socket = TcpStream::connect(site.addr).expect("the kernel's queue has room");
        socket.write_all(&hello).expect("a new socket has room");
        socket.set_nonblocking(true).expect("a socket");
        socket
    };
    let mut crowd: Vec<TcpStream> = (0..1000).map(connect).collect();
    // a rejected client is given time to close, and keeps its descriptor until it has
    eventually("the descriptors to run out", || site.usage().descriptors >= FILES - 2);
    let (cpu, begin) = (site.cpu(), Instant::now());
    thread::sleep(Duration::from_millis(site.scale(500, 3000)));
    let share = (site.cpu() - cpu).as_secs_f64() / begin.elapsed().as_secs_f64();
    assert!(share < site.scale(0.5, 0.1), "{:.0} % CPU while there is nothing to do", share * 100.0);

    log.find("accepting pauses");
    assert!(log.count("accepting pauses") < 10, "so many lines of one kind in a while are enough");

    let answers: Vec<_> = crowd.iter_mut().map(answer).collect();
    let count = |kind| answers.iter().filter(|&&answer| answer == kind).count();
    let (welcome, refused) = (count(Some(FrameType::Welcome)), count(Some(FrameType::Error)));
    assert!((10..FILES).contains(&welcome), "{welcome} were let in");
    assert_eq!(welcome + refused + count(None), crowd.len(), "{answers:?}");
    // those who were let in stay, but for a few
    let mut leaving = 10;
    let mut stays = answers.iter().map(|&answer| {
        let is_in = answer == Some(FrameType::Welcome);
        leaving -= i32::from(is_in);
        is_in && leaving < 0
    });
    crowd.retain(|_| stays.next().expect("as many answers"));
    let begin = Instant::now();
    let mut newcomer = come_in(site);
    let took = begin.elapsed();
    if site.full {
        assert!(took < Duration::from_secs(1), "accepted again after {took:?} only");
    }
    let _provider = echoing(site.addr, 1);
    echoes(&mut newcomer, 1, b"served");
    format!(
        "{welcome} let in, {refused} refused, the others wait; {:.1} % CPU meanwhile; accepts {} ms after some left",
        share * 100.0,
        took.as_millis()
    )
}

/// Connects, again and again where it is refused: before it in the kernel's queue are those who have left meanwhile.
fn come_in(site: &Site) -> Wire {
    for _ in 0..1000 {
        let mut wire = Wire::raw(site.addr);
        wire.write(&consumer_hello());
        if wire.is_welcomed() {
            return wire;
        }
    }
    panic!("refused a thousand times");
}

/// A crowd of consumers, each with a request of so many bytes under way at the same time, again and again.
fn rounds(site: &Site, clients: usize, rounds: usize, bytes: usize) -> Duration {
    let _provider = echoing(site.addr, clients as u32);
    let mut crowd: Vec<Wire> = (0..clients).map(|_| Wire::consumer(site.addr, CHANNEL)).collect();
    let begin = Instant::now();
    for round in 0..rounds {
        let body = |n: usize| vec![(n + round) as u8; bytes];
        for (n, wire) in crowd.iter_mut().enumerate() {
            wire.request(1, n as u128, &body(n), Flags::NONE);
        }
        for (n, wire) in crowd.iter_mut().enumerate() {
            assert_echo(wire, &body(n));
        }
    }
    begin.elapsed()
}

pub fn few_buffers(site: &mut Site) -> String {
    let (clients, times) = site.scale((60, 2), (1000, 5));
    let took = rounds(site, clients, times, 64 << 10);
    format!("{} bodies each way, all whole, in {took:.1?}", clients * times)
}

pub fn short_queue(site: &mut Site) -> String {
    let (clients, times) = site.scale((200, 3), (1000, 50));
    let took = rounds(site, clients, times, 64);
    format!("{} requests, all answered, in {took:.1?}", clients * times)
}
