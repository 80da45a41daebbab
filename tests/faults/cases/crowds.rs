//! Many peers that behave badly.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use corelay::protocol::{Code, Flags, FrameType, Header, Hello, Role};
use socket2::{Domain, Socket, Type};

use crate::peers::{Answer, CHANNEL, Random, answering, assert_echo, consumer_hello, echoing, request_frame};
use crate::site::Site;
use crate::wire::{Wire, hello};

pub fn byte_by_byte(site: &mut Site) -> String {
    let provider = echoing(site.addr, 1000);
    let mut writers: Vec<Wire> = (0..site.scale(100, 1000)).map(|_| Wire::raw(site.addr)).collect();
    let body = b"0123456789";
    let mut bytes = consumer_hello();
    bytes.extend(request_frame(3, body));
    let begin = Instant::now();
    for byte in bytes.chunks(1) {
        for writer in &mut writers {
            writer.write(byte);
        }
    }
    let took = begin.elapsed();
    for writer in &mut writers {
        writer.finish_hello();
        assert_echo(writer, body);
    }
    drop(provider);
    format!("{} requests whole; {} writes in {took:.1?}", writers.len(), writers.len() * bytes.len())
}

/// Half of them don't read from their socket, whose buffer is the smallest there is; the others grant no credit.
pub fn stalled_readers(site: &mut Site) -> String {
    const ANSWER: usize = 16 << 10;
    let clients = site.scale(300, 10_000);
    let provider = answering(site.addr, 1000, |_| Answer::Bytes(vec![5; ANSWER]));
    let mut readers: Vec<Wire> = Vec::new();
    for n in 0..clients {
        let window = if n % 2 == 0 { 1 << 20 } else { 4096 };
        let mut wire = Wire::open(site.addr, &Hello { window, ..hello(Role::Consumer, CHANNEL, 0) });
        if n % 2 == 0 {
            socket2::SockRef::from(&wire.socket()).set_recv_buffer_size(1).expect("a socket");
        }
        wire.request(1, n as u128, b"", Flags::NONE);
        readers.push(wire);
    }
    // another of their own channel is served, behind them all
    let mut healthy = Wire::consumer(site.addr, CHANNEL);
    healthy.request(1, 1, b"", Flags::NONE);
    assert_echo(&mut healthy, &[5; ANSWER]);
    let held = site.usage().memory;
    // the bystander has some time with it
    site.bystander.measure(site.full.then_some(Duration::from_secs(3)));
    // and those who read on get what they were promised
    for wire in readers.iter_mut().step_by(site.scale(10, 100)) {
        assert_echo(wire, &[5; ANSWER]);
    }
    drop(provider);
    format!("{clients} stalled, {} MiB in all while they were; those who read on got theirs whole", held >> 20)
}

/// Requests and their CANCELs in one write, a hundred at a time.
pub fn cancels(site: &mut Site) -> String {
    const AT_ONCE: u32 = 100;
    let provider = answering(site.addr, 1000, |_| Answer::WhenCancelled);
    let pairs = site.scale(2000, 100_000);
    let mut wire = Wire::consumer(site.addr, CHANNEL);
    let (mut cancelled, mut floods) = (0, 0);
    let begin = Instant::now();
    while cancelled < pairs {
        let mut bytes = Vec::new();
        for stream in 1..=AT_ONCE {
            let header = Header::new(FrameType::Request, stream).length(16).flags(Flags::END);
            bytes.extend_from_slice(&header.encode());
            bytes.extend_from_slice(&[stream as u8; 16]);
            bytes.extend_from_slice(&Header::new(FrameType::Cancel, stream).code(Code::Cancelled).encode());
        }
        wire.try_write(&bytes);
        // each ends once, unless the broker has had enough of this connection
        let mut ended = [false; AT_ONCE as usize];
        while ended.iter().any(|ended| !ended) {
            let frame = wire.next().expect("the broker says why it closes");
            assert_eq!(frame.kind, FrameType::Error, "{frame:?}");
            if frame.stream == 0 {
                assert_eq!(frame.code, Some(Code::Flood), "{frame:?}");
                floods += 1;
                wire = Wire::consumer(site.addr, CHANNEL);
                break;
            }
            assert_eq!(frame.code, Some(Code::Cancelled), "{frame:?}");
            let twice = std::mem::replace(&mut ended[frame.stream as usize - 1], true);
            assert!(!twice, "stream {} ended twice", frame.stream);
            cancelled += 1;
        }
    }
    let rate = f64::from(cancelled) / begin.elapsed().as_secs_f64();
    drop(provider);
    format!("{cancelled} cancelled, each ended once; {rate:.0}/s; {floods} connections ended with FLOOD")
}

pub fn rubbish(site: &mut Site) -> String {
    let provider = echoing(site.addr, 16);
    let connections = site.scale(2000, 100_000);
    let mut random = Random::new();
    let begin = Instant::now();
    // some stay open for a while, in whatever state the rubbish has left them
    let mut open = std::collections::VecDeque::new();
    for n in 0..connections {
        let mut bytes = Vec::new();
        if n % 4 > 0 {
            bytes.extend(consumer_hello());
        }
        for _ in 0..random.next() % 4 {
            let len = random.next() as usize % 64;
            let noise = random.bytes(len);
            if n % 4 == 3 {
                // frames of known types on streams that may be open
                let kind = 1 + (random.next() % 12) as u8;
                let [flags, stream] = [random.next() as u8, (random.next() % 3) as u8];
                let length = (len as u32).saturating_sub(random.next().is_multiple_of(7).into());
                let header = Header { kind, stream: stream.into(), length, ..Header::new(FrameType::Ping, 0) };
                let header = Header { flags: Flags(flags), arg: random.next() as u32 % 4, ..header };
                bytes.extend_from_slice(&header.encode());
            }
            bytes.extend(noise);
        }
        let socket = connect_from(site.addr, n);
        let _ = socket.send(&bytes);
        if n % 3 > 0 {
            // RST; the others say FIN
            let _ = socket.set_linger(Some(Duration::ZERO));
        }
        open.push_back(socket);
        if open.len() > 50 {
            open.pop_front();
        }
    }
    drop(open);
    let rate = f64::from(connections) / begin.elapsed().as_secs_f64();
    let mut good = Wire::consumer(site.addr, CHANNEL);
    good.request(1, 1, b"fine", Flags::NONE);
    assert_echo(&mut good, b"fine");
    drop(provider);
    format!("{connections} connections, {rate:.0}/s")
}

/// Connects from one of several addresses of the loopback: one has not ports enough for all that linger in TIME_WAIT.
fn connect_from(addr: SocketAddr, n: u32) -> Socket {
    let from = SocketAddr::from(([127, 0, 1, (n / 5000 % 200) as u8 + 1], 0));
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.bind(&from.into()).expect("all of 127/8 is this machine");
    socket.connect(&addr.into()).expect("the broker accepts");
    socket
}
