//! The broker's state machine: events and the time go in, batches to send and connections to close come out.
//!
//! No socket, clock, thread or randomness of its own is in here, so that a seeded simulation can run thousands of
//! connections through it and replay any of its failures. A shard drives it, one turn at a time:
//!
//! ```text
//!   connected / received / sent / writable / lost / link_received ──► Core ──► next_action()   close, move, ...
//!   advance(now)  (deadlines)                                         │
//!                                                                     └──────► next_output()   one batch a connection
//! ```
//!
//! | file | what it decides |
//! |---|---|
//! | `rx` | where frames begin and end; what is malformed |
//! | `conn`, `streams` | a connection's state; which stream ids are in use |
//! | `handshake` | HELLO, home cores, WELCOME |
//! | `access`, `budget` | who is let in, and what a peer may do only so often |
//! | `consumer`, `provider`, `control` | what each frame does |
//! | `short` | the same for the small frames most traffic is made of, in one pass |
//! | `dispatch`, `channel` | which provider a request goes to, and how it waits |
//! | `flow`, `outbox`, `output` | credit, and what leaves in which order |
//! | `request`, `ending` | a request's states, and every way it can end |
//! | `tap` | what is copied for those it is forwarded to |
//! | `abandoned` | requests given up by their consumer, while their provider still works |
//! | `link` | other cores, as one more kind of connection |
//! | `timers`, `drain`, `memory` | silence, shutting down, accounted memory |
//! | `counters`, `meter`, `snapshot`, `report` | nothing: what happened, how long it took, how things stand |
//!
//! Invariants, asserted: a request is in the table until its terminal frame is staged and no longer; the targets
//! of a request in the table are connections in the table; a provider's `in_use` is the number of its counted ids.

mod abandoned;
mod access;
mod budget;
mod channel;
mod conn;
mod consumer;
mod control;
mod counters;
mod dispatch;
mod drain;
mod ending;
mod flow;
mod handshake;
mod link;
mod memory;
mod meter;
mod options;
mod outbox;
mod output;
mod provider;
mod report;
mod request;
mod rx;
mod short;
mod snapshot;
mod streams;
mod tap;
mod timers;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use foldhash::quality::FixedState;
use slab::Slab;

use self::budget::Spending;
use self::channel::Channel as ChannelState;
use self::conn::{Conn, Phase, Side};
use self::flow::{Body, Dir};
use self::meter::Meters;
use self::options::Timeouts;
use self::outbox::Spare;
use self::request::Request;
use self::rx::{Found, Violation, check_header};
use self::tap::Tap;
use crate::base::wheel::Wheel;
use crate::base::{Batch, ChannelId, Key, Leases, NoLeases, Piece, Secret, Table, Time};
use crate::protocol::{Code, FrameType, MAX_HANDSHAKE_FRAME, TraceParent};

pub use self::counters::{Counters, Refused};
pub use self::link::LinkKind;
pub use self::meter::Meter;
pub use self::options::{COPY_BELOW, Channel, Options};
pub use self::report::{Ended, Expelled, Outcome, Watch};
pub use self::snapshot::{ChannelSnapshot, ConnSnapshot, Figures, PAGE, Page, Snapshot};
pub use self::tap::{MAX_ROUTES, Record, Route, TapDrops, records};

/// What the shard is to do with its reactor.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    /// Receive once more (before HELLO is whole).
    ReceiveOnce(u64),
    /// Keep receiving.
    Receive(u64),
    /// Say when the socket takes bytes again.
    NotifyWritable(u64),
    /// Close the sending side; the peer's FIN is awaited.
    ShutdownWrite(u64),
    /// This connection's HELLO was accepted.
    Welcomed(u64),
    /// Log that this connection was not let in, or is no longer: its token, or what it may do.
    ReportUnauthorized {
        /// The peer's address.
        peer: String,
        /// The channel it wanted.
        channel: ChannelId,
        /// Why.
        why: String,
    },
    /// Log that this request was ended because `core_buffer` was full.
    ReportShed {
        /// The request's id.
        id: [u8; 16],
        /// Its channel.
        channel: ChannelId,
        /// Bytes it held.
        bytes: usize,
    },
    /// A request has ended that is watched for: see [`Core::watch`].
    Ended(Box<Ended>),
    /// Log that a connection is being ended for what its peer did.
    Expelled(Box<Expelled>),
    /// Close the connection; the core has forgotten it.
    Close {
        /// The reactor's name for it.
        handle: u64,
        /// Drop what the kernel still holds of it.
        abort: bool,
    },
    /// Hand the connection to another core, with all bytes received so far. The core has forgotten it.
    Move {
        /// The reactor's name for it.
        handle: u64,
        /// To which core.
        core: u16,
        /// The bytes, HELLO first.
        moved: Moved,
    },
}

/// A connection on its way to another core.
#[derive(Debug, PartialEq, Eq)]
pub struct Moved {
    /// All bytes received so far: a token is among them.
    pub received: Secret,
    /// The peer's address, for people.
    pub peer: String,
    /// Who the transport has verified it to be.
    pub identity: Option<Arc<str>>,
    /// When it was accepted.
    pub since: Time,
    /// The home core has dealt it to the receiver (spread channels).
    pub dealt: bool,
}

/// One core's broker. See the module's page.
#[derive(Debug)]
pub struct Core {
    options: Options,
    now: Time,
    conns: Table<Conn>,
    requests: Table<Request>,
    channels: Slab<ChannelState>,
    channel_of: HashMap<ChannelId, u32, FixedState>,
    /// Keys of the links from and to each core, by core; own entries unused.
    links_in: Vec<Key>,
    links_out: Vec<Key>,
    wheel: Wheel,
    /// Cancelled requests whose provider has not answered, oldest first (`cancel_grace`).
    grace: VecDeque<timers::Grace>,
    spare: Spare,
    /// Who gave up which requests that their providers still work on: the consumer, by provider and slot.
    abandoned: HashMap<(Key, usize), Key, FixedState>,
    /// Leases to be given back at the end of the turn.
    released: Vec<Piece>,
    /// Directions of requests with leased bytes in their queue, each once, and the turn since which it is listed.
    leased: VecDeque<(u64, (Key, Dir))>,
    /// Connections whose socket is full while leased bytes wait for it, and the turn it was seen full.
    stuck: VecDeque<(u64, Key)>,
    /// Channels whose capacity or use is to be told to the other cores.
    news: Vec<u32>,
    dirty: Vec<Key>,
    flooded: Vec<Key>,
    backlog: bool,
    actions: VecDeque<Action>,
    /// Body and output bytes held in heap memory.
    held: usize,
    strangers: u32,
    draining: Option<Time>,
    turn: u64,
    rng: u64,
    counters: Counters,
    meters: Meters,
    /// Somebody wants to hear of requests' ends.
    watching: bool,
    watch: Watch,
    /// Of requests of consumers here, while somebody watches.
    traces: HashMap<Key, TraceParent, FixedState>,
    timeouts: Timeouts,
    tap: Tap,
    /// What is read now was sent before WELCOME could be.
    early: bool,
    /// A head that came in parts, while it is looked at.
    scratch: Vec<u8>,
}

impl Core {
    /// A core with nothing connected.
    ///
    /// # Panics
    /// If there are no cores, or this one is not among them.
    #[must_use]
    pub fn new(options: Options, now: Time) -> Core {
        assert!(options.core < options.cores, "core {} of {}", options.core, options.cores);
        let mut core = Core {
            now,
            conns: Table::new(),
            requests: Table::new(),
            channels: Slab::new(),
            channel_of: HashMap::with_capacity_and_hasher(1024, FixedState::with_seed(options.secret)),
            links_in: Vec::new(),
            links_out: Vec::new(),
            wheel: Wheel::new(now),
            grace: VecDeque::new(),
            abandoned: HashMap::with_hasher(FixedState::with_seed(options.secret)),
            spare: Spare::default(),
            released: Vec::new(),
            leased: VecDeque::new(),
            stuck: VecDeque::new(),
            news: Vec::new(),
            dirty: Vec::new(),
            flooded: Vec::new(),
            backlog: false,
            actions: VecDeque::new(),
            held: 0,
            strangers: 0,
            draining: None,
            turn: 0,
            rng: options.seed | 1,
            counters: Counters::default(),
            meters: Meters::new(options.meters),
            watching: false,
            watch: Watch::default(),
            traces: HashMap::with_hasher(FixedState::with_seed(options.secret)),
            timeouts: Timeouts::new(&options.limits),
            tap: Tap::new(options.routes.clone(), options.tap_bytes),
            early: false,
            scratch: Vec::new(),
            options,
        };
        core.open_links();
        core
    }

    /// A connection was accepted. Tell its handle with [`Core::attach`].
    pub fn connected(&mut self, now: Time, peer: String) -> Key {
        self.now = now;
        self.counters.connections_accepted += 1;
        self.stranger(now, peer)
    }

    fn stranger(&mut self, since: Time, peer: String) -> Key {
        self.strangers += 1;
        let key = self.conns.insert(Conn::new(Side::Stranger, Phase::Hello, since, peer));
        self.arm(key);
        key
    }

    /// The reactor's name for a new connection; it is used in every [`Action`] on it. Receiving begins.
    pub fn attach(&mut self, key: Key, handle: u64) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        conn.handle = handle;
        match conn.phase {
            // until HELLO is read the connection may move, so nothing may be in flight on it between two receives
            Phase::Hello if self.options.cores > 1 => self.actions.push_back(Action::ReceiveOnce(handle)),
            _ => self.keep_receiving(key),
        }
    }

    /// Has the reactor receive on this connection from now on.
    fn keep_receiving(&mut self, key: Key) {
        let conn = self.conns.get_mut(key).expect("looked up by the caller");
        if !std::mem::replace(&mut conn.receiving, true) {
            self.actions.push_back(Action::Receive(conn.handle));
        }
    }

    /// A connection that another core's [`Action::Move`] sent here. Tell its handle with [`Core::attach_moved`].
    pub fn moved_in(&mut self, now: Time, moved: &Moved) -> Key {
        self.now = now;
        let key = self.stranger(moved.since, moved.peer.clone());
        if let Some(identity) = &moved.identity {
            self.identified(key, identity);
        }
        key
    }

    /// The reactor's name for a moved connection. The bytes it brought with it are looked at, and may move it on:
    /// nothing is received before.
    pub fn attach_moved(&mut self, now: Time, key: Key, handle: u64, moved: &Moved) {
        self.now = now;
        let Some(conn) = self.conns.get_mut(key) else { return };
        conn.handle = handle;
        self.input(key, moved.received.expose(), None, &NoLeases, moved.dealt);
    }

    /// Refuses a connection just accepted: it is told why and closed.
    pub fn refuse(&mut self, key: Key, why: Refused) {
        self.counters.connections_refused[why as usize] += 1;
        let text = format!("too many {} ({})", why.of_what(), why.name());
        self.violation(key, &Violation::new(Code::Overloaded, text));
    }

    /// Bytes arrived. The caller keeps its count of the piece's lease.
    pub fn received<L: Leases>(&mut self, now: Time, key: Key, piece: Piece, leases: &L) {
        self.now = now;
        self.counters.bytes_received += u64::from(piece.len);
        self.input(key, leases.bytes(piece), Some(piece), leases, false);
    }

    /// Bytes arrived that lie in no leased buffer, such as those of a TLS record.
    pub fn received_bytes<L: Leases>(&mut self, now: Time, key: Key, bytes: &[u8], leases: &L) {
        self.now = now;
        self.counters.bytes_received += bytes.len() as u64;
        self.input(key, bytes, None, leases, false);
    }

    /// The peer's address, for people; empty where it is gone.
    #[must_use]
    pub fn peer(&self, key: Key) -> &str {
        self.conns.get(key).map_or("", |conn| &conn.info.peer)
    }

    /// The transport has verified who the peer is (mutual TLS); before any bytes of it.
    pub fn identified(&mut self, key: Key, identity: &str) {
        if let Some(conn) = self.conns.get_mut(key) {
            conn.info.identity = Some(identity.into());
        }
    }

    /// Bytes from another core, on the link of this kind.
    pub fn link_received(&mut self, now: Time, from: u16, kind: LinkKind, bytes: &[u8]) {
        self.now = now;
        // a request link is the sender's way out and this core's way in
        let links = if kind == LinkKind::Requests { &self.links_in } else { &self.links_out };
        let key = links[usize::from(from)];
        self.counters.bytes_received += bytes.len() as u64;
        self.input(key, bytes, None, &NoLeases, false);
    }

    fn input<L: Leases>(&mut self, key: Key, bytes: &[u8], piece: Option<Piece>, leases: &L, dealt: bool) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        conn.last_received = self.now;
        conn.pinged = None;
        let (side, phase) = (conn.side, conn.phase);
        match phase {
            Phase::Closing | Phase::Lingering => return,
            Phase::Hello => return self.hello_input(key, bytes, dealt),
            Phase::Open => {}
        }
        let mut store = std::mem::take(&mut self.scratch);
        if let Err(violation) = self.frames(key, side, bytes, piece, leases, &mut store) {
            assert!(!side.is_link(), "a core broke the protocol towards another: {violation:?}");
            self.violation(key, &violation);
        }
        self.scratch = store;
    }

    /// Takes all frames out of `bytes`.
    fn frames<L: Leases>(
        &mut self,
        key: Key,
        side: Side,
        bytes: &[u8],
        piece: Option<Piece>,
        leases: &L,
        store: &mut Vec<u8>,
    ) -> Result<(), Violation> {
        let max_frame = if side.is_link() { u32::MAX } else { self.options.limits.max_frame };
        let mut at = 0;
        // the stream whose REQUEST or RESPONSE is open with no body byte of it in hand yet
        let mut unopened = None;
        loop {
            at += self.short_frames(key, side, &bytes[at..]);
            if at == bytes.len() {
                break;
            }
            let Some(conn) = self.conns.get_mut(key) else { return Ok(()) };
            if conn.phase != Phase::Open {
                return Ok(());
            }
            let check = |header: &crate::protocol::Header| check_header(header, side, Phase::Open, max_frame);
            let (used, found) = conn.rx.next(&bytes[at..], store, check, side)?;
            at += used;
            match found {
                Found::More | Found::Skipped => {}
                Found::Empty => self.spend(key, Spending::EmptyFrames)?,
                Found::Frame { header, head, body } => {
                    self.counters.frames_received += 1;
                    unopened = None;
                    if self.head(key, side, &header, head)? {
                        let body = self.body_at(body, at - body.len(), piece);
                        self.body(key, side, &header, body, true, leases)?;
                    }
                }
                Found::Head { header, head } => {
                    self.counters.frames_received += 1;
                    unopened = None;
                    if self.head(key, side, &header, head)? {
                        if header.length as usize == head.len() {
                            self.body(key, side, &header, Body::EMPTY, true, leases)?;
                        } else {
                            unopened = Some(header);
                        }
                    }
                }
                Found::Body { header, bytes: body, last } => {
                    unopened = None;
                    let body = self.body_at(body, at - body.len(), piece);
                    self.body(key, side, &header, body, last, leases)?;
                }
            }
        }
        if let Some(header) = unopened {
            // the head must not wait for its body: the provider may begin to answer
            self.body(key, side, &header, Body::EMPTY, false, leases)?;
        }
        self.note_partial(key);
        Ok(())
    }

    /// Body bytes found at this offset of the input: a piece of its buffer, where they are worth a reference.
    #[inline]
    fn body_at<'a>(&self, bytes: &'a [u8], at: usize, input: Option<Piece>) -> Body<'a> {
        let worth = input.filter(|_| bytes.len() >= self.options.copy_below);
        Body { bytes, piece: worth.map(|piece| piece.part(at, bytes.len())) }
    }

    /// A frame's head is whole. Says whether a body follows (perhaps empty).
    #[inline]
    fn head(&mut self, key: Key, side: Side, header: &crate::protocol::Header, head: &[u8]) -> Result<bool, Violation> {
        match header.frame_type() {
            Some(FrameType::Request) => self.request(key, header, head).map(|()| true),
            Some(FrameType::Response) => self.response(key, header, head).map(|()| true),
            Some(FrameType::Data) if side.opens() => self.request_data(key, header).map(|()| true),
            Some(FrameType::Data) => self.response_data(key, header).map(|()| true),
            None => self.link_frame(key, header, head),
            Some(kind) => self.control_frame(key, side, kind, header, head).map(|()| false),
        }
    }

    /// Body bytes of a frame whose head was accepted.
    #[inline]
    fn body<L: Leases>(
        &mut self,
        key: Key,
        side: Side,
        header: &crate::protocol::Header,
        body: Body<'_>,
        last: bool,
        leases: &L,
    ) -> Result<(), Violation> {
        let end = last && header.flags.has(crate::protocol::Flags::END);
        if side.opens() {
            self.request_body(key, header.stream, body, end, leases)
        } else {
            self.response_body(key, header.stream, body, end, leases)
        }
    }

    /// The peer closed, or its socket failed.
    pub fn lost(&mut self, now: Time, key: Key) {
        self.now = now;
        if self.conns.get(key).is_some() {
            self.close(key, false);
        }
    }

    /// The peer broke the protocol, or ran into a limit: it is told why, then closed.
    fn violation(&mut self, key: Key, violation: &Violation) {
        self.counters.connections_failed[usize::from(violation.code.to_wire())] += 1;
        self.note_expelled(key, violation.code, &violation.text);
        self.goodbye(key, violation.code, &violation.text);
    }

    fn random(&mut self) -> u64 {
        // xorshift64*: Vigna, "An experimental exploration of Marsaglia's xorshift generators, scrambled" (2016)
        self.rng ^= self.rng >> 12;
        self.rng ^= self.rng << 25;
        self.rng ^= self.rng >> 27;
        self.rng.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// What the shard is to do, until `None`.
    pub fn next_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Which core this is.
    #[must_use]
    pub fn number(&self) -> u16 {
        self.options.core
    }

    /// What happened so far.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Bytes held in heap memory for bodies and output, as `core_buffer` counts them.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held
    }
}

/// One batch for the reactor, or for a link.
#[derive(Debug)]
pub enum Output {
    /// Send it on this socket.
    Socket {
        /// The reactor's name for it.
        handle: u64,
        /// What to send.
        batch: Batch,
    },
    /// Pass it to another core, and say so here ([`Core::link_sent`]). When that has read it, its buffers serve again
    /// ([`Core::recycle`]): here, if they come back, or there.
    Link {
        /// To which core.
        core: u16,
        /// On which of the two links.
        kind: LinkKind,
        /// What to pass on.
        batch: Batch,
    },
}

const _: () = assert!(MAX_HANDSHAKE_FRAME as usize <= 4096);
