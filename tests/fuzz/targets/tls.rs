//! TLS: what a stranger sends in place of a handshake, and an honest client whose bytes are cut, changed, lost or added
//! to on their way.
//!
//! The first byte is the setting. With its lowest two bits 0, all behind the second is a stranger's, in pieces as the
//! second says; else it is a [`Script`] of what client, broker and network do. Keys are new in each run, so one input is
//! the same course of events, not the same bytes.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use corelay::base::{Batch, NoLeases};
use corelay::tls::{
    ALPN, Acceptor, Bench, Fault, MAX_HANDSHAKE, News, Session, TlsOptions, certificates, feed, key, roots,
};
use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, ServerConfig};

use super::script::Script;
use crate::pki::Pki;

/// Runs the script `data`.
///
/// # Panics
/// If a peer's bytes are taken for what they are not, or any are lost, held without bound or counted wrongly.
pub fn tls(data: &[u8]) {
    let [setting, rest @ ..] = data else { return };
    let side = &sides()[usize::from(setting >> 2) % SIDES];
    if setting & 3 == 0 {
        let [cut, bytes @ ..] = rest else { return };
        let pieces = bytes.chunks(1 + usize::from(*cut));
        let _ = feed(Arc::clone(&side.broker), pieces, |news| panic!("{news:?} of nobody who has proven anything"));
        return;
    }
    let mut script = Script { left: rest };
    let mut play = Play::new(side);
    while !script.left.is_empty() {
        play.step(&mut script);
        play.check();
    }
    play.end();
}

/// What a client sends before the handshake is over: as much as a HELLO may have, in bytes.
const EARLY: usize = corelay::protocol::MAX_HANDSHAKE_FRAME as usize;

/// Configurations of both ends.
struct Side {
    broker: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

/// TLS 1.3 or 1.2, each with and without a certificate of the client's.
const SIDES: usize = 4;

fn sides() -> &'static [Side; SIDES] {
    static MADE: OnceLock<[Side; SIDES]> = OnceLock::new();
    MADE.get_or_init(|| {
        let pki = Pki::new();
        let (server, own) = (pki.server("server"), pki.client("client"));
        [(false, false), (false, true), (true, false), (true, true)]
            .map(|(old, mutual)| side(&pki, &server, &own, old, mutual))
    })
}

fn side(pki: &Pki, server: &(PathBuf, PathBuf), own: &(PathBuf, PathBuf), old: bool, mutual: bool) -> Side {
    let options = TlsOptions {
        cert: Some(server.0.clone()),
        key: Some(server.1.clone()),
        client_ca: mutual.then(|| pki.ca()),
        tls12: old,
    };
    let broker = Acceptor::new(&options, &[ALPN]).expect("good files").config();
    let ring = Arc::new(rustls::crypto::ring::default_provider());
    let version = if old { &TLS12 } else { &TLS13 };
    let builder = ClientConfig::builder_with_provider(ring).with_protocol_versions(&[version]).expect("it has both");
    let builder = builder.with_root_certificates(roots(&pki.ca()).expect("a CA"));
    let mut client = if mutual {
        let (chain, secret) = (certificates(&own.0).expect("a certificate"), key(&own.1).expect("a key"));
        builder.with_client_auth_cert(chain, secret).expect("they are a pair")
    } else {
        builder.with_no_client_auth()
    };
    client.alpn_protocols = vec![ALPN.to_vec()];
    // no run may depend on the ones before it
    client.resumption = Resumption::disabled();
    Side { broker, client: Arc::new(client) }
}

/// A direction's bytes are a function of where they stand, so that any that are lost, twice there or changed show.
fn byte_at(offset: usize) -> u8 {
    (offset ^ offset >> 8 ^ offset >> 16) as u8
}

fn bytes_from(offset: usize, len: usize) -> Vec<u8> {
    (offset..offset + len).map(byte_at).collect()
}

/// How much was said in a direction, and how much has come through.
#[derive(Default)]
struct Course {
    said: usize,
    seen: usize,
}

impl Course {
    fn saw(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            assert!(self.seen < self.said, "bytes that nobody said");
            assert_eq!(byte, byte_at(self.seen), "byte {} is another", self.seen);
            self.seen += 1;
        }
    }
}

struct Play {
    session: Session,
    bench: Bench,
    client: ClientConnection,
    /// Ciphertext on its way to the broker, and to the client.
    up: VecDeque<u8>,
    down: VecDeque<u8>,
    to_broker: Course,
    to_client: Course,
    /// Of what the broker said, so much is with the kernel.
    left: usize,
    /// The network has changed something on the way up.
    tampered: bool,
    /// How often the client has renewed its keys.
    renewed: usize,
    fault: Option<Fault>,
    opened: bool,
    heard_close: bool,
    client_closed: bool,
    broker_closed: bool,
}

impl Play {
    fn new(side: &Side) -> Play {
        let name = ServerName::try_from("localhost").expect("a name");
        Play {
            session: Session::new(Arc::clone(&side.broker)).expect("rustls can serve with it"),
            bench: Bench::default(),
            client: ClientConnection::new(Arc::clone(&side.client), name).expect("a good configuration"),
            up: VecDeque::new(),
            down: VecDeque::new(),
            to_broker: Course::default(),
            to_client: Course::default(),
            left: 0,
            tampered: false,
            renewed: 0,
            fault: None,
            opened: false,
            heard_close: false,
            client_closed: false,
            broker_closed: false,
        }
    }

    fn step(&mut self, script: &mut Script<'_>) {
        match script.byte() % 16 {
            0..=3 => {
                let n = usize::from(script.byte());
                self.carry_up(n * n, false);
            }
            4 => {
                let n = usize::from(script.byte());
                self.carry_up(n * n, true);
            }
            5..=7 => {
                let n = usize::from(script.byte());
                self.send(n * n);
                self.carry_down(n * n);
            }
            8 | 9 => self.client_says(usize::from(script.byte()) * 150),
            10 | 11 => self.broker_says(usize::from(script.byte()) * 150),
            12 => self.tamper(script),
            13 => {
                // TLS 1.2 has nothing of the kind, and before the handshake is over there is nothing to renew
                self.renewed += usize::from(self.client.refresh_traffic_keys().is_ok());
            }
            14 => self.talk(),
            _ => self.close(script.byte()),
        }
    }

    /// The network changes what is on its way to the broker.
    fn tamper(&mut self, script: &mut Script<'_>) {
        let [how, at, bit] = [(); 3].map(|()| script.byte());
        self.collect();
        let at = (usize::from(at) * 7) % (self.up.len() + 1);
        self.tampered = true;
        match (how % 3, self.up.get_mut(at)) {
            (0, Some(byte)) => *byte ^= 1 << (bit % 8),
            (1, Some(_)) => drop(self.up.drain(at..(at + usize::from(bit)).min(self.up.len()))),
            _ => {
                let tail = self.up.split_off(at);
                self.up.extend(script.bytes(40));
                self.up.extend(tail);
            }
        }
    }

    fn close(&mut self, who: u8) {
        // a client whose handshake goes on would say so before what it has yet to send
        if who & 1 == 0 && self.opened && !self.client.is_handshaking() {
            self.client.send_close_notify();
            self.client_closed = true;
        } else if who & 1 == 1 && self.opened && self.fault.is_none() {
            self.session.close_notify();
            self.broker_closed = true;
        }
    }

    fn client_says(&mut self, len: usize) {
        if self.client_closed {
            return;
        }
        // with the handshake goes a HELLO at most
        let early = if self.opened { usize::MAX } else { EARLY.saturating_sub(self.to_broker.said) };
        let len = len.min(early);
        // what is not taken is not said; nothing is, of who was told that he is not believed
        let taken = self.client.writer().write(&bytes_from(self.to_broker.said, len));
        assert!(taken.is_ok() || self.tampered, "{taken:?}");
        self.to_broker.said += taken.unwrap_or(0);
    }

    fn broker_says(&mut self, len: usize) {
        if self.broker_closed || self.fault.is_some() {
            return;
        }
        let batch = Batch { staged: bytes_from(self.to_client.said, len), total: len, ..Batch::default() };
        let sealed = self.session.seal(&batch, &NoLeases, &mut self.bench);
        if self.session.is_open() {
            match sealed {
                Ok(()) => self.to_client.said += len,
                // what waited was not genuine
                Err(fault) => self.failed(fault),
            }
        } else {
            assert!(len == 0 || sealed == Err(Fault::CannotEncrypt), "{sealed:?} before the handshake is over");
        }
    }

    /// Takes what the client has to send.
    fn collect(&mut self) {
        while self.client.wants_write() {
            let mut bytes = Vec::new();
            self.client.write_tls(&mut bytes).expect("a vector takes all");
            self.up.extend(bytes);
        }
    }

    /// So many bytes reach the broker: at once, or to be looked at with the next, as a core does with handshakes.
    fn carry_up(&mut self, most: usize, hold: bool) {
        self.collect();
        let bytes: Vec<u8> = self.up.drain(..most.min(self.up.len())).collect();
        if hold && !self.session.is_open() && self.fault.is_none() {
            if let Err(fault) = self.session.hold(&bytes) {
                self.failed(fault);
            }
            return;
        }
        let (mut opened, mut closed) = (self.opened, self.heard_close);
        let (ended, leaves) = (self.fault.is_some(), self.broker_closed);
        let course = &mut self.to_broker;
        let result = self.session.receive(&bytes, &mut self.bench, |news| {
            assert!(!ended && !leaves, "{news:?} behind a fault, or the broker's own close");
            match news {
                News::Open { .. } => assert!(!std::mem::replace(&mut opened, true), "it opened twice"),
                News::Bytes(bytes) => {
                    assert!(opened && !closed, "bytes before the handshake, or behind the close");
                    course.saw(bytes);
                }
                News::Closed => closed = true,
            }
        });
        (self.opened, self.heard_close) = (opened, closed);
        assert!(!ended || result.is_err(), "it goes on behind a fault");
        if let Err(fault) = result {
            self.failed(fault);
        }
    }

    fn failed(&mut self, fault: Fault) {
        // rustls takes so many renewed keys only with nothing said between them
        let renews_too_often = self.renewed > MOST_RENEWED;
        assert!(self.tampered || renews_too_often, "{fault} of an honest client");
        self.tampered = true;
        self.fault = Some(fault);
    }

    /// The kernel takes so many bytes of what the broker has to send.
    fn send(&mut self, most: usize) {
        self.session.unblock();
        let Some(mut batch) = self.session.next_batch(&mut self.bench) else { return };
        assert!(self.session.next_batch(&mut self.bench).is_none(), "two batches at a time");
        let taken = most.min(batch.remaining());
        let mut all = Vec::new();
        batch.for_each_unsent(&NoLeases, |part| all.extend_from_slice(part));
        self.down.extend(&all[..taken]);
        batch.sent += taken;
        self.left += self.session.returned(batch, &mut self.bench);
    }

    /// So many bytes reach the client.
    fn carry_down(&mut self, most: usize) {
        let bytes: Vec<u8> = self.down.drain(..most.min(self.down.len())).collect();
        let mut bytes = bytes.as_slice();
        while !bytes.is_empty() {
            // 0 bytes: it has heard the close, and reads no more
            if self.client.read_tls(&mut bytes).expect("it has room") == 0 {
                return;
            }
            let heard = self.client.process_new_packets();
            assert!(heard.is_ok() || self.tampered, "the client was told {heard:?}");
            let mut plain = Vec::new();
            // ends with WouldBlock, or where the broker has closed
            let _ = self.client.reader().read_to_end(&mut plain);
            self.to_client.saw(&plain);
            if heard.is_err() {
                return;
            }
        }
    }

    /// All that is said reaches the other side.
    fn talk(&mut self) {
        loop {
            let before = (self.to_broker.seen, self.to_client.seen);
            self.carry_up(usize::MAX, false);
            while self.session.has_output() {
                self.send(usize::MAX);
            }
            self.carry_down(usize::MAX);
            let quiet = !self.client.wants_write() && self.up.is_empty();
            if self.fault.is_some() || quiet && before == (self.to_broker.seen, self.to_client.seen) {
                return;
            }
        }
    }

    fn check(&self) {
        assert!(self.session.held() <= MAX_HANDSHAKE, "{} bytes are held", self.session.held());
        assert!(self.left <= self.to_client.said);
        assert!(!self.opened || self.session.is_open());
        if !self.session.has_output() {
            assert_eq!(self.session.unsent(), 0);
            // all that was encrypted has left, and was counted once
            assert!(
                self.left == self.to_client.said || self.fault.is_some(),
                "{} of {}",
                self.left,
                self.to_client.said
            );
        }
    }

    /// What was said and not changed arrives.
    fn end(&mut self) {
        self.talk();
        self.check();
        if !self.tampered {
            assert!(self.opened);
            assert_eq!(self.to_client.seen, self.to_client.said, "of the broker's bytes");
            if !self.broker_closed {
                assert_eq!(self.to_broker.seen, self.to_broker.said, "of the client's bytes");
                assert_eq!((self.heard_close, self.session.held()), (self.client_closed, 0));
            }
        }
    }
}

/// More than so many renewals of a client's keys with nothing between them are a fault of its own (rustls).
const MOST_RENEWED: usize = 32;
