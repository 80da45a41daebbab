//! Clients of the channel at fault.

use std::collections::HashMap;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread::{self, JoinHandle};

use corelay::protocol::{Code, Flags, FrameType, Header, Hello, Role};

use crate::wire::{Frame, Wire, hello};

/// The channel at fault.
pub const CHANNEL: &str = "fault";

/// A provider on a thread of its own, which ends when this is dropped.
pub struct Answering {
    socket: TcpStream,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Answering {
    fn drop(&mut self) {
        let _ = self.socket.shutdown(Shutdown::Both);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
            && !thread::panicking()
        {
            panic!("the provider at fault panicked");
        }
    }
}

/// What to do with a whole request.
pub enum Answer {
    Bytes(Vec<u8>),
    /// None until it is cancelled.
    WhenCancelled,
}

/// Answers each whole request with what `answer` makes of its body, holding so many at once.
pub fn answering(
    addr: SocketAddr,
    max_concurrent: u32,
    answer: impl Fn(Vec<u8>) -> Answer + Send + 'static,
) -> Answering {
    let wire = Wire::provider(addr, CHANNEL, max_concurrent).patient();
    let socket = wire.socket();
    let thread = thread::spawn(move || serve(wire, answer));
    Answering { socket, thread: Some(thread) }
}

fn serve(mut wire: Wire, answer: impl Fn(Vec<u8>) -> Answer) {
    let mut bodies: HashMap<u32, Vec<u8>> = HashMap::new();
    while let Some(frame) = wire.next() {
        let stream = frame.stream;
        match frame.kind {
            FrameType::Request => {
                bodies.insert(stream, frame.payload[16..].to_vec());
            }
            FrameType::Data => {
                let body = bodies.get_mut(&stream).expect("DATA behind its REQUEST");
                body.extend_from_slice(&frame.payload);
                if !frame.flags.has(Flags::END) && !frame.payload.is_empty() {
                    let credit = Header::new(FrameType::Credit, stream).arg(frame.payload.len() as u32);
                    wire.try_send(credit, &[]);
                }
            }
            FrameType::Cancel => {
                bodies.remove(&stream);
                wire.try_send(Header::new(FrameType::Error, stream).code(Code::Cancelled), &[]);
                continue;
            }
            _ => continue,
        }
        if !frame.flags.has(Flags::END) {
            continue;
        }
        let body = bodies.remove(&stream).expect("put there");
        if let Answer::Bytes(bytes) = answer(body) {
            wire.try_send(Header::new(FrameType::Response, stream).flags(Flags::END), &bytes);
        }
    }
}

/// A provider that answers with the very body.
pub fn echoing(addr: SocketAddr, max_concurrent: u32) -> Answering {
    answering(addr, max_concurrent, Answer::Bytes)
}

/// HELLO's frame.
pub fn hello_frame(hello: &Hello) -> Vec<u8> {
    let mut frame = Vec::new();
    hello.encode(&mut frame).expect("token and name fit");
    frame
}

/// A consumer's HELLO for the channel at fault.
pub fn consumer_hello() -> Vec<u8> {
    hello_frame(&hello(Role::Consumer, CHANNEL, 0))
}

/// A whole request's frame on stream 1.
pub fn request_frame(n: u128, body: &[u8]) -> Vec<u8> {
    let header = Header::new(FrameType::Request, 1).length(16 + body.len() as u32).flags(Flags::END);
    let mut frame = header.encode().to_vec();
    frame.extend_from_slice(&n.to_le_bytes());
    frame.extend_from_slice(body);
    frame
}

/// A request with this body is answered with the same.
pub fn echoes(wire: &mut Wire, n: u128, body: &[u8]) {
    wire.request(1, n, body, Flags::NONE);
    assert_echo(wire, body);
}

/// The next frames are the answer on stream 1, with this body.
pub fn assert_echo(wire: &mut Wire, body: &[u8]) {
    let first = wire.next_past_credit();
    assert_eq!(first.kind, FrameType::Response, "{:?} {}", first.code, text(&first));
    assert!(wire.body(first) == body, "not the body that was sent");
}

/// What an ERROR says.
pub fn text(frame: &Frame) -> String {
    String::from_utf8_lossy(&frame.payload).into_owned()
}

/// Random numbers of which the seed is printed with a failure's output. xorshift64: Marsaglia, "Xorshift RNGs" (2003).
pub struct Random(u64);

impl Random {
    pub fn new() -> Random {
        let seed = 0x9e37_79b9_7f4a_7c15;
        println!("seed {seed:#x}");
        Random(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        std::iter::repeat_with(|| self.next() as u8).take(len).collect()
    }
}
