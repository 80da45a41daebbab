//! One connection's cryptographic state: ciphertext in, bytes out, and back. No socket and no clock.
//!
//! ```text
//!              receive(ciphertext) ──► partial ──► rustls ──► News: who it is, bytes of a record
//!   seal(batch), close_notify() ──► rustls ──► out ──► next_batch() ──► reactor ──► returned(batch)
//!                                                         └─ parked, while the socket is full ─┘
//! ```
//!
//! The bytes of a batch count as gone when the kernel has taken the whole record they are in: `marks` says where each
//! record ends. So credit is given for ciphertext that has left, never for what was merely encrypted.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus};

use super::identity;
use crate::base::{Batch, Leases};

/// Bytes in a full record (RFC 8446, 5.1).
const RECORD: usize = 16 << 10;
/// The longest a record can be with all its framing, in bytes: that of TLS 1.2 (RFC 5246, 6.2.3).
pub const MAX_RECORD: usize = 5 + RECORD + 2048;
/// Bytes of a client's handshake messages that are waited for: a chain of some twenty certificates. rustls itself
/// would take 64 KiB.
pub const MAX_HANDSHAKE: usize = 32 << 10;
/// What a session takes besides the part of a record it holds, in bytes: measured, see `docs/PERFORMANCE.md`.
pub const SESSION: usize = 8 << 10;
/// Room for a record's header, type, nonce and tag, whatever the cipher; asked for first, and more if that is not it.
const OVERHEAD: usize = 64;
/// Room for a message of the handshake; asked for first, and more if that is not it.
const FLIGHT: usize = 2048;
/// Bytes of output buffers a [`Bench`] keeps: what a core's busy connections send in a turn.
pub const SPARE: usize = 2 << 20;

/// Why a session ends.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Fault {
    /// What the peer sent is not genuine, or breaks the protocol; or a certificate is missing or not accepted.
    #[error("{0}")]
    Peer(#[from] rustls::Error),
    /// It sends more than a handshake takes.
    #[error("more than {MAX_HANDSHAKE} bytes of a handshake, or a record longer than TLS allows")]
    TooLong,
    /// Something was to be sent before the handshake was over, or under keys that are used up.
    #[error("nothing can be encrypted now")]
    CannotEncrypt,
}

/// What a peer's bytes turn out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News<'a> {
    /// The handshake is over; before any bytes. With the name in the client's certificate, if it showed one.
    Open {
        /// See [`identity`](super::identity()).
        identity: Option<&'a str>,
        /// It went on with an earlier session.
        resumed: bool,
    },
    /// Bytes of one record, decrypted.
    Bytes(&'a [u8]),
    /// The peer says in due form that no more will come.
    Closed,
}

/// Where the sessions of one core do their work: memory that none of them needs between two calls.
#[derive(Debug, Default)]
pub struct Bench {
    input: Vec<u8>,
    gather: Vec<u8>,
    spare: Vec<Vec<u8>>,
    /// Bytes in `spare`.
    kept: usize,
}

impl Bench {
    fn keep(&mut self, mut buffer: Vec<u8>) {
        let capacity = buffer.capacity();
        if capacity > 0 && self.kept + capacity <= SPARE {
            buffer.clear();
            self.kept += capacity;
            self.spare.push(buffer);
        }
    }

    fn take(&mut self) -> Vec<u8> {
        let buffer = self.spare.pop().unwrap_or_default();
        self.kept -= buffer.capacity();
        buffer
    }
}

/// A record that is to leave.
#[derive(Clone, Copy, Debug)]
struct Mark {
    /// Where it ends, in bytes of ciphertext since the session began.
    end: u64,
    /// Bytes of a batch in it.
    plain: usize,
}

/// One connection's TLS, on the broker's side. See the module's page.
pub struct Session {
    tls: UnbufferedServerConnection,
    /// Ciphertext that is not understood yet: part of a record, or of a message in several.
    partial: Vec<u8>,
    /// Ciphertext for the next batch.
    out: Vec<u8>,
    /// A batch the socket did not take whole.
    parked: Option<Batch>,
    blocked: bool,
    /// A batch is with the reactor, of which so many bytes had left before.
    sending: Option<usize>,
    marks: VecDeque<Mark>,
    made: u64,
    taken: u64,
    open: bool,
    heard_close: bool,
    said_close: bool,
    /// What ended it.
    fault: Option<Fault>,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut session = f.debug_struct("Session");
        session.field("open", &self.open).field("partial", &self.partial.len()).field("out", &self.out.len());
        session.finish_non_exhaustive()
    }
}

type State<'c, 'i> = ConnectionState<'c, 'i, ServerConnectionData>;

impl Session {
    /// A session that waits for its client's first message.
    ///
    /// # Errors
    /// The configuration is one rustls can't serve with.
    pub fn new(config: Arc<ServerConfig>) -> Result<Session, Fault> {
        Ok(Session {
            tls: UnbufferedServerConnection::new(config)?,
            partial: Vec::new(),
            out: Vec::new(),
            parked: None,
            blocked: false,
            sending: None,
            marks: VecDeque::new(),
            made: 0,
            taken: 0,
            open: false,
            heard_close: false,
            said_close: false,
            fault: None,
        })
    }

    /// Whether the handshake is over.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.open
    }

    /// Whether the end comes unsaid if it comes now: neither side has sent its close_notify.
    #[must_use]
    pub fn is_cut_short(&self) -> bool {
        self.open && !self.heard_close && !self.said_close
    }

    /// Takes ciphertext and leaves it for the next [`Session::receive`]: what a handshake costs is so spent when there
    /// is time for it.
    ///
    /// # Errors
    /// [`Fault::TooLong`].
    pub fn hold(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        if self.partial.len() + bytes.len() > MAX_HANDSHAKE {
            return Err(Fault::TooLong);
        }
        self.partial.extend_from_slice(bytes);
        Ok(())
    }

    /// Takes ciphertext, and tells what is in it. There may be something to be sent afterwards, also after a fault:
    /// the alert that tells the peer of it.
    ///
    /// # Errors
    /// [`Fault`]: nothing more can be received. What `each` was shown before is genuine.
    pub fn receive(&mut self, bytes: &[u8], bench: &mut Bench, mut each: impl FnMut(News<'_>)) -> Result<(), Fault> {
        if let Some(fault) = &self.fault {
            return Err(fault.clone());
        }
        // nobody waits for what comes behind our own close, and rustls takes offence at a bad record there
        if self.said_close {
            return Ok(());
        }
        let mut input = std::mem::take(&mut bench.input);
        input.clear();
        input.extend_from_slice(&self.partial);
        input.extend_from_slice(bytes);
        let (used, result) = self.process(&mut input, &mut each);
        self.partial.clear();
        let rest = &input[used.min(input.len())..];
        let result = if rest.len() > MAX_HANDSHAKE { result.and(Err(Fault::TooLong)) } else { result };
        if result.is_ok() && !self.heard_close {
            self.partial.extend_from_slice(rest);
        }
        bench.input = input;
        self.fault = result.as_ref().err().cloned();
        result
    }

    /// Works through the input; says how much of it is done with.
    fn process(&mut self, input: &mut [u8], each: &mut impl FnMut(News<'_>)) -> (usize, Result<(), Fault>) {
        let mut at = 0;
        loop {
            let UnbufferedStatus { discard, state } = self.tls.process_tls_records(&mut input[at..]);
            // the state's borrow ends with this match, and only then may the input be looked at again
            let mut extra = 0;
            let step = match state {
                // who it is comes before what it says: the records stay with rustls until the next look
                Ok(ConnectionState::ReadTraffic(_)) if !self.open => Step::Open,
                Ok(ConnectionState::ReadTraffic(mut records)) => {
                    let mut step = Step::Again;
                    while let Some(record) = records.next_record() {
                        match record {
                            Ok(record) => {
                                extra += record.discard;
                                each(News::Bytes(record.payload));
                            }
                            Err(error) => step = Step::Failed(error),
                        }
                    }
                    step
                }
                Ok(state) => own(state, &mut self.out, &mut self.made),
                Err(error) => Step::Failed(error),
            };
            at += discard + extra;
            match step {
                Step::Again => {}
                Step::Open => self.opened(each),
                Step::Write => {
                    if !self.open && !self.tls.is_handshaking() {
                        self.opened(each);
                    }
                    return (at, Ok(()));
                }
                Step::Wait => return (at, Ok(())),
                Step::PeerClosed => {
                    self.heard_close = true;
                    each(News::Closed);
                }
                Step::Failed(error) => {
                    // the alert that says why
                    if let Ok(state @ ConnectionState::EncodeTlsData(_)) =
                        self.tls.process_tls_records(&mut input[at..]).state
                    {
                        own(state, &mut self.out, &mut self.made);
                    }
                    return (at, Err(error.into()));
                }
            }
        }
    }

    fn opened(&mut self, each: &mut impl FnMut(News<'_>)) {
        self.open = true;
        let own = self.tls.peer_certificates().and_then(|chain| chain.first());
        let identity = own.and_then(|certificate| identity(certificate));
        let resumed = self.tls.handshake_kind() == Some(rustls::HandshakeKind::Resumed);
        each(News::Open { identity: identity.as_deref(), resumed });
    }

    /// Encrypts all that is unsent of a batch, behind what waits to be sent already.
    ///
    /// # Errors
    /// [`Fault`]: nothing more can be sent.
    pub fn seal(&mut self, batch: &Batch, leases: &impl Leases, bench: &mut Bench) -> Result<(), Fault> {
        // not looked into for this: a handshake that was held is worked off when there is time for it
        if !self.open && batch.remaining() > 0 {
            return Err(Fault::CannotEncrypt);
        }
        let mut gather = std::mem::take(&mut bench.gather);
        gather.clear();
        self.make_room(batch.remaining(), bench);
        let mut result = Ok(());
        batch.for_each_unsent(leases, |mut bytes| {
            while !bytes.is_empty() && result.is_ok() {
                if gather.is_empty() && bytes.len() >= RECORD {
                    let (record, rest) = bytes.split_at(RECORD);
                    result = self.seal_record(record);
                    bytes = rest;
                    continue;
                }
                let (more, rest) = bytes.split_at(bytes.len().min(RECORD - gather.len()));
                gather.extend_from_slice(more);
                bytes = rest;
                if gather.len() == RECORD {
                    result = self.seal_record(&gather);
                    gather.clear();
                }
            }
        });
        if !gather.is_empty() && result.is_ok() {
            result = self.seal_record(&gather);
        }
        bench.gather = gather;
        result
    }

    fn make_room(&mut self, plain: usize, bench: &mut Bench) {
        if self.out.capacity() == 0 {
            self.out = bench.take();
        }
        self.out.reserve(plain + plain.div_ceil(RECORD) * OVERHEAD);
    }

    /// Encrypts one record.
    fn seal_record(&mut self, plain: &[u8]) -> Result<(), Fault> {
        let mut room = plain.len() + OVERHEAD;
        loop {
            let UnbufferedStatus { discard, state } = self.tls.process_tls_records(&mut self.partial);
            let done = match state? {
                ConnectionState::WriteTraffic(mut traffic) if self.open => {
                    let before = self.out.len();
                    self.out.resize(before + room, 0);
                    let written = traffic.encrypt(plain, &mut self.out[before..]);
                    self.out.truncate(before + *written.as_ref().unwrap_or(&0));
                    match written {
                        Ok(written) => {
                            self.made += written as u64;
                            true
                        }
                        Err(EncryptError::InsufficientSize(needed)) if needed.required_size > room => {
                            room = needed.required_size;
                            false
                        }
                        Err(_) => return Err(Fault::CannotEncrypt),
                    }
                }
                ConnectionState::PeerClosed => {
                    self.heard_close = true;
                    false
                }
                state => match own(state, &mut self.out, &mut self.made) {
                    Step::Again => false,
                    _ => return Err(Fault::CannotEncrypt),
                },
            };
            self.partial.drain(..discard);
            if done {
                self.marks.push_back(Mark { end: self.made, plain: plain.len() });
                return Ok(());
            }
        }
    }

    /// Says that nothing more will be sent, behind what waits already; nothing that comes is read any more either. Before the handshake is over there is no way to.
    pub fn close_notify(&mut self) {
        if !self.open || std::mem::replace(&mut self.said_close, true) {
            return;
        }
        if let Ok(ConnectionState::WriteTraffic(mut traffic)) = self.tls.process_tls_records(&mut self.partial).state {
            let before = self.out.len();
            self.out.resize(before + OVERHEAD, 0);
            // there is nothing else that it could be told then
            let written = traffic.queue_close_notify(&mut self.out[before..]).unwrap_or(0);
            self.out.truncate(before + written);
            self.made += written as u64;
        }
    }

    /// What to send now: nothing while a batch is out, or the socket is full.
    pub fn next_batch(&mut self, bench: &mut Bench) -> Option<Batch> {
        if self.sending.is_some() || self.blocked {
            return None;
        }
        if let Some(batch) = self.parked.take() {
            self.sending = Some(batch.sent);
            return Some(batch);
        }
        if self.out.is_empty() {
            let empty = std::mem::take(&mut self.out);
            bench.keep(empty);
            return None;
        }
        self.sending = Some(0);
        let staged = std::mem::take(&mut self.out);
        let total = staged.len();
        Some(Batch { control: Vec::new(), staged, segments: Vec::new(), total, sent: 0 })
    }

    /// A batch of [`Session::next_batch`] came back from the reactor. Says how many bytes of what was
    /// [sealed](Session::seal) have left since the last time. Where it was not taken whole, [`Session::is_blocked`].
    pub fn returned(&mut self, batch: Batch, bench: &mut Bench) -> usize {
        let before = self.sending.take().unwrap_or(batch.sent);
        self.taken += (batch.sent - before) as u64;
        if batch.remaining() > 0 {
            self.blocked = true;
            self.parked = Some(batch);
        } else {
            bench.keep(batch.staged);
        }
        let mut left = 0;
        while let Some(mark) = self.marks.front().filter(|mark| mark.end <= self.taken) {
            left += mark.plain;
            self.marks.pop_front();
        }
        left
    }

    /// The socket takes bytes again.
    pub fn unblock(&mut self) {
        self.blocked = false;
    }

    /// Whether the socket is full.
    #[must_use]
    pub fn is_blocked(&self) -> bool {
        self.blocked
    }

    /// Whether a batch is with the reactor.
    #[must_use]
    pub fn is_sending(&self) -> bool {
        self.sending.is_some()
    }

    /// Whether there is something to send behind what is on its way.
    #[must_use]
    pub fn has_more(&self) -> bool {
        !self.out.is_empty()
    }

    /// Whether anything is still to be sent, or on its way.
    #[must_use]
    pub fn has_output(&self) -> bool {
        self.sending.is_some() || self.parked.is_some() || !self.out.is_empty()
    }

    /// Bytes of ciphertext that wait for more: part of a record, or of a message in several. At most [`MAX_HANDSHAKE`].
    #[must_use]
    pub fn held(&self) -> usize {
        self.partial.len()
    }

    /// Bytes of ciphertext made and not taken by the kernel.
    #[must_use]
    pub fn unsent(&self) -> usize {
        (self.made - self.taken) as usize
    }
}

/// What a state of rustls asks for.
enum Step {
    Again,
    Open,
    Write,
    Wait,
    PeerClosed,
    Failed(rustls::Error),
}

/// What TLS has to do for itself: its own messages are encoded, to be sent.
fn own(state: State<'_, '_>, out: &mut Vec<u8>, made: &mut u64) -> Step {
    match state {
        ConnectionState::EncodeTlsData(mut message) => {
            let (before, mut room) = (out.len(), FLIGHT);
            loop {
                out.resize(before + room, 0);
                match message.encode(&mut out[before..]) {
                    Ok(written) => {
                        out.truncate(before + written);
                        *made += written as u64;
                        return Step::Again;
                    }
                    Err(EncodeError::InsufficientSize(needed)) if needed.required_size > room => {
                        room = needed.required_size;
                    }
                    Err(_) => {
                        out.truncate(before);
                        return Step::Again;
                    }
                }
            }
        }
        ConnectionState::TransmitTlsData(sent) => {
            sent.done();
            Step::Again
        }
        ConnectionState::PeerClosed => Step::PeerClosed,
        ConnectionState::WriteTraffic(_) => Step::Write,
        // BlockedHandshake and Closed; no early data is accepted
        _ => Step::Wait,
    }
}

/// Feeds a peer's bytes, in these pieces, to a session of its own: for tests and fuzzing. Nothing a peer sends may
/// panic, grow beyond [`MAX_HANDSHAKE`], or be shown after a fault.
///
/// # Errors
/// The [`Fault`] that ended it.
///
/// ```
/// # use std::sync::Arc;
/// use corelay::tls::feed;
/// use rustls::server::ResolvesServerCertUsingSni;
/// let ring = Arc::new(rustls::crypto::ring::default_provider());
/// let versions = rustls::ServerConfig::builder_with_provider(ring).with_safe_default_protocol_versions().unwrap();
/// let nobody = Arc::new(ResolvesServerCertUsingSni::new());
/// let config = Arc::new(versions.with_no_client_auth().with_cert_resolver(nobody));
/// assert!(feed(config, [&b"GET / HT"[..], b"TP/1.1"], |_| panic!("no TLS")).is_err());
/// ```
pub fn feed<'a>(
    config: Arc<ServerConfig>,
    pieces: impl IntoIterator<Item = &'a [u8]>,
    mut each: impl FnMut(News<'_>),
) -> Result<(), Fault> {
    let (mut session, mut bench) = (Session::new(config)?, Bench::default());
    for piece in pieces {
        session.receive(piece, &mut bench, &mut each)?;
        assert!(session.partial.len() <= MAX_HANDSHAKE);
    }
    Ok(())
}
