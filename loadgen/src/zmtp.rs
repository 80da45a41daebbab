//! ZeroMQ's wire protocol (ZMTP 3.0, RFC 23), as far as a ROUTER/DEALER proxy between DEALER sockets needs it.
//!
//! The first eight bytes of a body are the request's slot: ZeroMQ itself has nothing that tells answers apart.

use std::os::fd::OwnedFd;

use crate::dial::{Addr, Dial, DialError, Socket};
use crate::pump::Out;
use crate::size::Size;
use crate::wire::{Broken, Consumer, Done, Outcome, Provider};

const MORE: u8 = 1;
const LONG: u8 = 2;
const COMMAND: u8 = 4;
/// A body's first bytes.
const SLOT: usize = 8;
/// The front of a frame that is kept: an identity or a slot, or the name of a command.
const FRONT: usize = 256;

/// Signature, version 3.0, mechanism NULL, filler.
fn greeting() -> [u8; 64] {
    let mut bytes = [0; 64];
    bytes[..12].copy_from_slice(&[0xff, 0, 0, 0, 0, 0, 0, 0, 1, 0x7f, 3, 0]);
    bytes[12..16].copy_from_slice(b"NULL");
    bytes
}

/// The READY command of a DEALER socket.
fn ready() -> Vec<u8> {
    let mut body = b"\x05READY".to_vec();
    for (name, value) in [("Socket-Type", "DEALER"), ("Identity", "")] {
        body.push(name.len() as u8);
        body.extend_from_slice(name.as_bytes());
        body.extend_from_slice(&(value.len() as u32).to_be_bytes());
        body.extend_from_slice(value.as_bytes());
    }
    let mut frame = vec![COMMAND, body.len() as u8];
    frame.append(&mut body);
    frame
}

/// Frames out of a stream of bytes.
#[derive(Debug)]
struct Reader {
    head: [u8; 9],
    have: usize,
    flags: u8,
    len: usize,
    left: usize,
    in_frame: bool,
    front: [u8; FRONT],
    front_len: usize,
}

/// A whole frame; its front is with the reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Frame {
    flags: u8,
    len: usize,
}

impl Reader {
    fn new() -> Reader {
        let (head, front) = ([0; 9], [0; FRONT]);
        Reader { head, have: 0, flags: 0, len: 0, left: 0, in_frame: false, front, front_len: 0 }
    }

    /// The next message frame that is complete; takes what it reads off `bytes`. Commands are passed over.
    #[inline]
    fn next(&mut self, bytes: &mut &[u8]) -> Option<Frame> {
        loop {
            if !self.in_frame && !self.begin(bytes) {
                return None;
            }
            let now = self.left.min(bytes.len());
            let keep = now.min(FRONT - self.front_len);
            self.front[self.front_len..][..keep].copy_from_slice(&bytes[..keep]);
            self.front_len += keep;
            *bytes = &bytes[now..];
            self.left -= now;
            if self.left > 0 {
                return None;
            }
            self.in_frame = false;
            if self.flags & COMMAND == 0 {
                return Some(Frame { flags: self.flags, len: self.len });
            }
        }
    }

    #[inline]
    fn begin(&mut self, bytes: &mut &[u8]) -> bool {
        loop {
            let whole = if self.have > 0 && self.head[0] & LONG != 0 { 9 } else { 2 };
            if self.have == whole {
                break;
            }
            let Some((&byte, rest)) = bytes.split_first() else { return false };
            self.head[self.have] = byte;
            self.have += 1;
            *bytes = rest;
        }
        self.flags = self.head[0];
        self.len = match self.have {
            2 => usize::from(self.head[1]),
            _ => self.head[1..].iter().fold(0, |len, &byte| len << 8 | usize::from(byte)),
        };
        (self.left, self.have, self.front_len, self.in_frame) = (self.len, 0, 0, true);
        true
    }

    fn front(&self) -> &[u8] {
        &self.front[..self.front_len]
    }

    #[inline]
    fn slot(&self) -> Option<u64> {
        self.front().first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
    }
}

#[inline]
fn put_head(flags: u8, len: usize, out: &mut Out) {
    match u8::try_from(len) {
        Ok(len) => out.put(&[flags, len]),
        Err(_) => {
            out.put(&[flags | LONG]);
            out.put(&(len as u64).to_be_bytes());
        }
    }
}

/// A body of `size` bytes that begins with the slot; the slot is sent whole in any case.
#[inline]
fn put_body(slot: u64, size: u64, out: &mut Out) {
    let size = (size as usize).max(SLOT);
    put_head(0, size, out);
    out.put(&slot.to_le_bytes());
    out.put_filler(size - SLOT);
}

/// A DEALER that asks.
#[derive(Debug)]
pub struct ZmtpConsumer {
    reader: Reader,
}

impl Consumer for ZmtpConsumer {
    #[inline]
    fn request(&mut self, slot: u32, size: u64, out: &mut Out) {
        put_body(u64::from(slot), size, out);
    }

    #[inline]
    fn receive(&mut self, mut bytes: &[u8], _out: &mut Out, done: &mut Done) -> Result<(), Broken> {
        while let Some(frame) = self.reader.next(&mut bytes) {
            let slot = self.reader.slot().filter(|_| frame.flags & MORE == 0);
            let slot = slot.ok_or_else(|| Broken("an answer that is none".into()))?;
            done.push((slot as u32, Outcome::Answered(frame.len as u64)));
        }
        Ok(())
    }

    fn resume(&mut self, _out: &mut Out) {}
}

/// A DEALER that answers: what comes is an identity and a body.
#[derive(Debug)]
pub struct ZmtpProvider {
    reader: Reader,
    identity: Vec<u8>,
    size: Size,
    random: fastrand::Rng,
}

impl Provider for ZmtpProvider {
    #[inline]
    fn receive(&mut self, mut bytes: &[u8], out: &mut Out) -> Result<u64, Broken> {
        let mut answered = 0;
        while let Some(frame) = self.reader.next(&mut bytes) {
            if frame.flags & MORE != 0 {
                self.identity.clear();
                self.identity.extend_from_slice(self.reader.front());
                continue;
            }
            let slot = self.reader.slot().ok_or_else(|| Broken("a request that is none".into()))?;
            put_head(MORE, self.identity.len(), out);
            out.put(&self.identity);
            put_body(slot, self.size.draw(&mut self.random), out);
            answered += 1;
        }
        Ok(answered)
    }

    fn resume(&mut self, _out: &mut Out) {}
}

/// Connects to a ROUTER/DEALER proxy.
#[derive(Clone, Debug)]
pub struct Zmtp {
    /// Its ROUTER: for consumers.
    pub front: Addr,
    /// Its DEALER: for providers.
    pub back: Addr,
    /// Requests a consumer may have in flight.
    pub slots: u32,
    /// Sizes of the answers.
    pub response: Size,
}

fn dial(addr: &Addr) -> Result<OwnedFd, DialError> {
    let socket = Socket::connect(addr)?;
    socket.write(&greeting())?;
    let mut theirs = [0; 64];
    socket.read_exact(&mut theirs)?;
    if theirs[0] != 0xff || theirs[9] != 0x7f || theirs[10] < 3 || !theirs[12..].starts_with(b"NULL\0") {
        return Err(socket.refused("its greeting is not that of ZMTP 3 without security"));
    }
    socket.write(&ready())?;
    let mut head = [0; 2];
    socket.read_exact(&mut head)?;
    if head[0] != COMMAND {
        return Err(socket.refused("something else in place of READY"));
    }
    let mut body = vec![0; usize::from(head[1])];
    socket.read_exact(&mut body)?;
    if !body.starts_with(b"\x05READY") {
        return Err(socket.refused(String::from_utf8_lossy(&body)));
    }
    socket.into_fd()
}

impl Dial for Zmtp {
    type Consumer = ZmtpConsumer;
    type Provider = ZmtpProvider;

    fn consumer(&mut self, _number: usize) -> Result<(OwnedFd, ZmtpConsumer, u32), DialError> {
        Ok((dial(&self.front)?, ZmtpConsumer { reader: Reader::new() }, self.slots))
    }

    fn provider(&mut self, number: usize) -> Result<(OwnedFd, ZmtpProvider), DialError> {
        let (size, random) = (self.response.clone(), fastrand::Rng::with_seed(number as u64));
        Ok((dial(&self.back)?, ZmtpProvider { reader: Reader::new(), identity: Vec::new(), size, random }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_goes_round_whatever_the_pieces() {
        for size in [0_u64, 64, 255, 256, 2000] {
            let mut consumer = ZmtpConsumer { reader: Reader::new() };
            let mut out = Out::default();
            consumer.request(9, size, &mut out);
            // the proxy's ROUTER puts the identity in front
            let mut asked = vec![MORE, 5, 0, 1, 2, 3, 4];
            asked.extend_from_slice(out.staged());
            asked.extend_from_slice(&ready());
            for piece in [1, 2, 3, 7, 100, 5000] {
                let random = fastrand::Rng::with_seed(1);
                let (reader, identity) = (Reader::new(), Vec::new());
                let mut provider = ZmtpProvider { reader, identity, size: Size::Fixed(size), random };
                out.clear();
                let answered: u64 = asked.chunks(piece).map(|part| provider.receive(part, &mut out).unwrap()).sum();
                assert_eq!(answered, 1);
                assert_eq!(out.staged()[..7], asked[..7]);
                let mut done = Done::new();
                let told = out.staged()[7..].to_vec();
                told.chunks(piece).for_each(|part| consumer.receive(part, &mut Out::default(), &mut done).unwrap());
                assert_eq!(done, [(9, Outcome::Answered(size.max(8)))], "{size} in pieces of {piece}");
            }
        }
    }

    #[test]
    fn the_greeting_is_that_of_the_specification() {
        let bytes = greeting();
        assert_eq!((bytes[0], bytes[9], bytes[10], &bytes[12..16], bytes[32]), (0xff, 0x7f, 3, &b"NULL"[..], 0));
        assert!(ready().windows(17).any(|part| part == b"Socket-Type\0\0\0\x06DE"));
    }
}
