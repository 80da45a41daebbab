//! NATS' text protocol, as far as request and reply need it: queue groups, inboxes, PING.
//!
//! ```text
//!   consumer   SUB _INBOX.7.* 1          PUB loadgen _INBOX.7.SLOT 64 ... ─►   ◄─ MSG _INBOX.7.SLOT 1 64 ...
//!   provider   SUB loadgen workers 1     ◄─ MSG loadgen 1 _INBOX.7.SLOT 64 ...    PUB _INBOX.7.SLOT 64 ... ─►
//! ```

use std::os::fd::OwnedFd;

use crate::dial::{Addr, Dial, DialError, Socket};
use crate::pump::Out;
use crate::size::Size;
use crate::wire::{Broken, Consumer, Done, Outcome, Provider};

/// The subject the providers share.
const SUBJECT: &str = "loadgen";
/// No line of the protocol is longer (the server's own default).
const MAX_LINE: usize = 4096;

/// Lines and payloads out of a stream of bytes. Payloads are counted, not kept.
#[derive(Debug, Default)]
struct Reader {
    line: Vec<u8>,
    /// Payload bytes, its line end among them, that have not come.
    left: usize,
    /// The current message.
    message: Option<Message>,
}

/// A MSG: where in its line the reply subject stands, the last token of its subject, and its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Message {
    slot: u32,
    reply: (usize, usize),
    len: usize,
}

impl Reader {
    /// The next message that is complete; takes what it reads off `bytes`.
    #[inline]
    fn next(&mut self, bytes: &mut &[u8], out: &mut Out) -> Result<Option<Message>, Broken> {
        loop {
            if self.left > 0 {
                let now = self.left.min(bytes.len());
                *bytes = &bytes[now..];
                self.left -= now;
                if self.left > 0 {
                    return Ok(None);
                }
            }
            if let Some(message) = self.message.take() {
                return Ok(Some(message));
            }
            if self.line.ends_with(b"\n") {
                self.line.clear();
            }
            let Some(end) = memchr::memchr(b'\n', bytes) else {
                self.line.extend_from_slice(bytes);
                *bytes = &[];
                let long = self.line.len() > MAX_LINE * 16;
                return if long { Err(Broken("a line without end".into())) } else { Ok(None) };
            };
            self.line.extend_from_slice(&bytes[..=end]);
            *bytes = &bytes[end + 1..];
            self.operation(out)?;
        }
    }

    #[inline]
    fn operation(&mut self, out: &mut Out) -> Result<(), Broken> {
        match self.line.first() {
            Some(b'M' | b'm') => {
                let message = parse(&self.line).ok_or_else(|| self.broken())?;
                self.left = message.len + 2;
                self.message = Some(message);
                Ok(())
            }
            Some(b'P' | b'p') => {
                if self.line.get(1).is_some_and(|b| b.eq_ignore_ascii_case(&b'i')) {
                    out.put(b"PONG\r\n");
                }
                Ok(())
            }
            Some(b'I' | b'i' | b'+') => Ok(()),
            _ => Err(self.broken()),
        }
    }

    #[cold]
    fn broken(&self) -> Broken {
        Broken(format!("NATS said {}", String::from_utf8_lossy(&self.line).trim_end()))
    }

    fn reply(&self, message: &Message) -> &[u8] {
        &self.line[message.reply.0..message.reply.1]
    }
}

/// `MSG subject sid [reply] length\r\n`
#[inline]
fn parse(line: &[u8]) -> Option<Message> {
    let mut ends = [0_usize; 6];
    let mut fields = 0;
    for (at, &byte) in line.iter().enumerate() {
        if byte == b' ' || byte == b'\r' {
            *ends.get_mut(fields)? = at;
            fields += 1;
        }
    }
    let field = |n: usize| (if n == 0 { 0 } else { ends[n - 1] + 1 }, ends[n]);
    let text = |n: usize| &line[field(n).0..field(n).1];
    let reply = match fields {
        4 => (0, 0),
        5 => field(3),
        _ => return None,
    };
    let subject = text(1);
    let dot = memchr::memrchr(b'.', subject).map_or(0, |dot| dot + 1);
    let slot = number(&subject[dot..]).unwrap_or(0) as u32;
    Some(Message { slot, reply, len: number(text(fields - 1))? })
}

#[inline]
fn number(digits: &[u8]) -> Option<usize> {
    if digits.is_empty() || digits.len() > 12 {
        return None;
    }
    digits.iter().try_fold(0, |sum, &digit| {
        let digit = digit.wrapping_sub(b'0');
        (digit < 10).then_some(sum * 10 + usize::from(digit))
    })
}

/// Appends a number in decimal, without allocation.
#[inline]
fn put_number(mut number: u64, out: &mut Out) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.put(&digits[at..]);
}

#[inline]
fn put_payload(size: u64, out: &mut Out) {
    put_number(size, out);
    out.put(b"\r\n");
    out.put_filler(size as usize);
    out.put(b"\r\n");
}

/// A requester with an inbox of its own.
#[derive(Debug)]
pub struct NatsConsumer {
    reader: Reader,
    /// `PUB loadgen _INBOX.7.`
    publish: Vec<u8>,
}

impl Consumer for NatsConsumer {
    #[inline]
    fn request(&mut self, slot: u32, size: u64, out: &mut Out) {
        out.put(&self.publish);
        put_number(u64::from(slot), out);
        out.put(b" ");
        put_payload(size, out);
    }

    #[inline]
    fn receive(&mut self, mut bytes: &[u8], out: &mut Out, done: &mut Done) -> Result<(), Broken> {
        while let Some(message) = self.reader.next(&mut bytes, out)? {
            done.push((message.slot, Outcome::Answered(message.len as u64)));
        }
        Ok(())
    }

    fn resume(&mut self, _out: &mut Out) {}
}

/// A responder in the queue group.
#[derive(Debug)]
pub struct NatsProvider {
    reader: Reader,
    size: Size,
    random: fastrand::Rng,
}

impl Provider for NatsProvider {
    #[inline]
    fn receive(&mut self, mut bytes: &[u8], out: &mut Out) -> Result<u64, Broken> {
        let mut answered = 0;
        while let Some(message) = self.reader.next(&mut bytes, out)? {
            out.put(b"PUB ");
            out.put(self.reader.reply(&message));
            out.put(b" ");
            put_payload(self.size.draw(&mut self.random), out);
            answered += 1;
        }
        Ok(answered)
    }

    fn resume(&mut self, _out: &mut Out) {}
}

/// Connects to a NATS server.
#[derive(Clone, Debug)]
pub struct Nats {
    /// Where.
    pub addr: Addr,
    /// Requests a consumer may have in flight.
    pub slots: u32,
    /// Sizes of the answers.
    pub response: Size,
}

impl Nats {
    /// Connects and subscribes; when it returns the server knows the subscription.
    fn dial(&self, subscribe: &str) -> Result<OwnedFd, DialError> {
        let socket = Socket::connect(&self.addr)?;
        let info = socket.read_until(b"\r\n", 64 << 10)?;
        if !info.starts_with(b"INFO ") {
            return Err(socket.refused("its greeting is not NATS'"));
        }
        let options = r#"{"verbose":false,"pedantic":false,"tls_required":false,"name":"loadgen","lang":"rust","version":"1","protocol":1}"#;
        socket.write(format!("CONNECT {options}\r\n{subscribe}\r\nPING\r\n").as_bytes())?;
        loop {
            let line = socket.read_until(b"\r\n", 64 << 10)?;
            match line.as_slice() {
                b"PONG\r\n" => return socket.into_fd(),
                line if line.starts_with(b"-ERR") => return Err(socket.refused(String::from_utf8_lossy(line).trim())),
                _ => {}
            }
        }
    }
}

impl Dial for Nats {
    type Consumer = NatsConsumer;
    type Provider = NatsProvider;

    fn consumer(&mut self, number: usize) -> Result<(OwnedFd, NatsConsumer, u32), DialError> {
        let fd = self.dial(&format!("SUB _INBOX.{number}.* 1"))?;
        let publish = format!("PUB {SUBJECT} _INBOX.{number}.").into_bytes();
        Ok((fd, NatsConsumer { reader: Reader::default(), publish }, self.slots))
    }

    fn provider(&mut self, number: usize) -> Result<(OwnedFd, NatsProvider), DialError> {
        let fd = self.dial(&format!("SUB {SUBJECT} workers 1"))?;
        let random = fastrand::Rng::with_seed(number as u64);
        Ok((fd, NatsProvider { reader: Reader::default(), size: self.response.clone(), random }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_goes_round_whatever_the_pieces() {
        let mut consumer = NatsConsumer { reader: Reader::default(), publish: b"PUB loadgen _INBOX.7.".to_vec() };
        let mut out = Out::default();
        consumer.request(12, 5, &mut out);
        assert_eq!(out.staged().as_slice(), b"PUB loadgen _INBOX.7.12 5\r\nxxxxx\r\n");
        let asked = b"INFO {}\r\nMSG loadgen 1 _INBOX.7.12 5\r\nx\r\nx\n\r\nPING\r\nMSG loadgen 1 _INBOX.7.3 0\r\n\r\n";
        let told = b"+OK\r\nMSG _INBOX.7.12 1 3\r\nyyy\r\nMSG _INBOX.7.3 1 0\r\n\r\n";
        for piece in 1..asked.len() {
            let random = fastrand::Rng::with_seed(1);
            let mut provider = NatsProvider { reader: Reader::default(), size: Size::Fixed(2), random };
            out.clear();
            let answered: u64 = asked.chunks(piece).map(|part| provider.receive(part, &mut out).unwrap()).sum();
            assert_eq!(answered, 2, "in pieces of {piece}");
            let expected = b"PUB _INBOX.7.12 2\r\nxx\r\nPONG\r\nPUB _INBOX.7.3 2\r\nxx\r\n";
            assert_eq!(out.staged().as_slice(), expected, "in pieces of {piece}");
            let mut done = Done::new();
            for part in told.chunks(piece) {
                consumer.receive(part, &mut out, &mut done).unwrap();
            }
            assert_eq!(done, [(12, Outcome::Answered(3)), (3, Outcome::Answered(0))]);
        }
    }

    #[test]
    fn an_error_ends_the_connection_with_its_text() {
        let mut reader = Reader::default();
        let told = reader.next(&mut &b"-ERR 'Maximum Payload Violation'\r\n"[..], &mut Out::default()).unwrap_err();
        assert_eq!(told.0, "NATS said -ERR 'Maximum Payload Violation'");
        assert!(reader.next(&mut &b"MSG a 1 b c d\r\n"[..], &mut Out::default()).is_err());
    }

    #[test]
    fn numbers_are_read_and_written() {
        for n in [0, 7, 10, 65_536, u64::MAX] {
            let mut out = Out::default();
            put_number(n, &mut out);
            assert_eq!(out.staged().as_slice(), n.to_string().as_bytes());
        }
        assert_eq!(
            (number(b"123"), number(b""), number(b"1x"), number(b"9999999999999")),
            (Some(123), None, None, None)
        );
    }
}
