//! Blocking clients on real sockets, as cheap as they come: what is to be seen is the broker.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use corelay::protocol::{Flags, FrameType, HEADER_LEN, Header, Role};

use super::frames::{hello, requests, response};

/// Long enough for any machine: who runs into it waits for something that never comes.
const PATIENCE: Duration = Duration::from_secs(20);

/// One connection.
struct Peer {
    socket: TcpStream,
    received: Vec<u8>,
    /// Bytes received and not looked at.
    filled: usize,
}

impl Peer {
    fn connect(addr: SocketAddr, role: Role, max_concurrent: u32) -> Peer {
        let socket = TcpStream::connect(addr).expect("the broker accepts");
        socket.set_nodelay(true).expect("a TCP socket");
        socket.set_write_timeout(Some(PATIENCE)).expect("a socket");
        let mut peer = Peer { socket, received: vec![0; 256 * 1024], filled: 0 };
        peer.send(&hello(role, 64 * 1024, max_concurrent));
        let mut welcomed = false;
        peer.receive(|header, _| welcomed = header.frame_type() == Some(FrameType::Welcome));
        assert!(welcomed, "the broker refused a client");
        peer
    }

    fn send(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).expect("the broker reads");
    }

    /// Receives once, and calls `each` with all frames that are whole then. `false`: the broker has closed.
    fn receive(&mut self, mut each: impl FnMut(&Header, &[u8])) -> bool {
        let n = loop {
            match self.socket.read(&mut self.received[self.filled..]) {
                Ok(n) => break n,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::ConnectionReset => break 0,
                Err(error) => panic!("nothing came: {error}"),
            }
        };
        if n == 0 {
            return false;
        }
        self.filled += n;
        let mut bytes = &self.received[..self.filled];
        while let Some((header, rest)) = bytes.split_first_chunk::<HEADER_LEN>() {
            let header = Header::decode(header);
            let Some((payload, rest)) = rest.split_at_checked(header.length as usize) else { break };
            each(&header, payload);
            bytes = rest;
        }
        let left = bytes.len();
        self.received.copy_within(self.filled - left..self.filled, 0);
        self.filled = left;
        true
    }
}

/// A provider on a thread of its own: answers every request with so many bytes, until the broker closes.
pub fn provider(addr: SocketAddr, max_concurrent: u32, body: usize) -> JoinHandle<()> {
    let mut peer = Peer::connect(addr, Role::Provider, max_concurrent);
    thread::spawn(move || {
        let mut answers = Vec::new();
        while peer.receive(|header, _| {
            if header.frame_type() == Some(FrameType::Request) {
                response(header.stream, body, &mut answers);
            }
        }) {
            if !answers.is_empty() {
                peer.send(&answers);
                answers.clear();
            }
        }
    })
}

/// A consumer that has the same requests to send, again and again.
pub struct Consumer {
    peer: Peer,
    asked: Vec<u8>,
    in_flight: u32,
}

impl Consumer {
    pub fn connect(addr: SocketAddr, in_flight: u32, body: usize, flags: Flags) -> Consumer {
        let peer = Peer::connect(addr, Role::Consumer, 0);
        peer.socket.set_read_timeout(Some(PATIENCE)).expect("a socket");
        Consumer { peer, asked: requests(in_flight, body, flags), in_flight }
    }

    /// Sends all requests at once and waits for their answers.
    pub fn round(&mut self) {
        self.peer.send(&self.asked);
        let mut unanswered = self.in_flight;
        while unanswered > 0 {
            let open = self.peer.receive(|header, text| match header.frame_type() {
                Some(FrameType::Response) => unanswered -= 1,
                kind => panic!("{kind:?} {}", String::from_utf8_lossy(text)),
            });
            assert!(open, "the broker closed");
        }
    }
}
