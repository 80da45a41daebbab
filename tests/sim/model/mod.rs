//! Clients that know what they may expect: every byte, every grant, every outcome is held against a model.
//!
//! The content of a body is a function of request, direction and offset, so that a byte lost, doubled or crossed
//! with another's shows where it is read.

mod acting;
mod copies;
mod reading;
mod winding;

use std::collections::BTreeMap;

use corelay::base::{ChannelId, Time};
use corelay::protocol::{
    Code, Flags, FrameType, HEADER_LEN, Header, Hello, MAX_CREDIT, Role, VERSION, Welcome, encode_headers,
};

use crate::guard::Guard;
use crate::world::{World, trace};

/// What one request is to be, and what became of it.
#[derive(Debug)]
pub(crate) struct Spec {
    pub(crate) channel: usize,
    /// By client.
    pub(crate) consumer: usize,
    pub(crate) up_len: usize,
    pub(crate) down_len: usize,
    pub(crate) flags: Flags,
    pub(crate) timeout_ms: u32,
    pub(crate) sent_at: Time,
    pub(crate) headers: bool,
    /// Providers that read its REQUEST, by client.
    pub(crate) seen_by: Vec<usize>,
    /// A provider sent the last byte of its answer.
    pub(crate) answered: bool,
    /// A provider ended it with this text.
    pub(crate) error: Option<String>,
    pub(crate) outcome: Option<Outcome>,
    /// Its consumer has broken the protocol: its bytes may be anything.
    pub(crate) hostile: bool,
}

/// How a request ended for its consumer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Answered,
    Failed(Code),
    /// Its own connection ended.
    Lost,
}

/// What all clients of a run share.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    pub(crate) specs: Vec<Spec>,
    pub(crate) drained: bool,
    /// Provider connections that ended, whoever ended them.
    pub(crate) providers_lost: u32,
    /// By client: its connection has ended, or is about to.
    pub(crate) dead: Vec<bool>,
    /// By channel: a provider there breaks the protocol, so answers may be anything.
    pub(crate) tainted: Vec<bool>,
    /// Everybody now ends what is open.
    pub(crate) finishing: bool,
    pub(crate) max_body: usize,
    pub(crate) default_timeout_ms: u32,
    pub(crate) may_overload: bool,
    pub(crate) hostility: bool,
    pub(crate) max_frame: u32,
    pub(crate) max_window: u32,
    pub(crate) answered: u64,
    /// A provider read two requests of one consumer in the wrong order: only a lost or leaving provider, whose
    /// requests were handed on, excuses that.
    pub(crate) disorder: Option<String>,
    pub(crate) providers_leaving: u32,
    /// A consumer was told PROVIDER_LOST.
    pub(crate) told_lost: bool,
    pub(crate) guard: Guard,
}

const FOREIGN: u64 = u64::MAX;

fn content(number: u64, up: bool, at: usize) -> u8 {
    let seed = (number as u32).wrapping_mul(0x85eb_ca6b) ^ if up { 0 } else { 0x5555_aaaa };
    ((seed.wrapping_add(at as u32)).wrapping_mul(0x9e37_79b1) >> 24) as u8
}

fn body(number: u64, up: bool, from: usize, len: usize) -> impl Iterator<Item = u8> {
    (from..from + len).map(move |at| content(number, up, at))
}

fn request_id(number: u64) -> [u8; 16] {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&number.to_le_bytes());
    id[8..].copy_from_slice(&(!number ^ 0x5a5a).to_le_bytes());
    id
}

fn number_of(id: &[u8]) -> u64 {
    let number = u64::from_le_bytes(id[..8].try_into().unwrap());
    if request_id(number) == id { number } else { FOREIGN }
}

fn header_block(number: u64, up: bool) -> Vec<u8> {
    let mut block = Vec::new();
    let value = vec![number as u8; (number as usize * 7 + usize::from(up)) % 300];
    encode_headers([("traceparent", value), ("k", vec![up as u8])], &mut block).unwrap();
    block
}

/// The sending half of a stream's direction.
#[derive(Debug, Default)]
struct Sending {
    at: usize,
    credit: u64,
    begun: bool,
    ended: bool,
}

/// The receiving half.
#[derive(Debug, Default)]
struct Receiving {
    at: usize,
    granted: u64,
    owed: u64,
    begun: bool,
    ended: bool,
}

#[derive(Debug)]
struct Stream {
    number: u64,
    send: Sending,
    recv: Receiving,
    cancelled: bool,
    /// Consumer: the terminal frame has come. Provider: it was sent.
    terminal: bool,
    /// Provider: never answers while the run lasts.
    hangs: bool,
}

/// How a client goes about things.
#[derive(Clone, Debug)]
pub(crate) struct Habits {
    /// Bytes read at once.
    pub(crate) read: usize,
    /// Reads one time in so many.
    pub(crate) laziness: usize,
    /// Grants one time in so many.
    pub(crate) stinginess: usize,
    pub(crate) chunk: usize,
    pub(crate) leaves: bool,
    pub(crate) hangs: bool,
    pub(crate) cancels: bool,
    pub(crate) sparse: bool,
    pub(crate) hostile: bool,
}

/// A consumer or a provider.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) index: usize,
    pub(crate) sock: usize,
    pub(crate) role: Role,
    pub(crate) channel: usize,
    channel_id: ChannelId,
    window: u32,
    max_concurrent: u32,
    pub(crate) habits: Habits,
    hello_sent: bool,
    pub(crate) welcome: Option<Welcome>,
    rx: Vec<u8>,
    streams: BTreeMap<u32, Stream>,
    pub(crate) goaway_sent: bool,
    goaway_seen: bool,
    /// Has broken the protocol: nothing it sees is checked any more.
    pub(crate) hostile: bool,
    /// Has sent more than its budgets allow.
    flooded: bool,
    pub(crate) dead: bool,
    error_seen: bool,
    last_ping: Time,
    /// Provider: the last request it read of each consumer.
    last_of: BTreeMap<usize, u64>,
}

impl Client {
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn new(
        index: usize,
        sock: usize,
        role: Role,
        channel: (usize, ChannelId),
        window: u32,
        max_concurrent: u32,
        habits: Habits,
    ) -> Client {
        Client {
            index,
            sock,
            role,
            channel: channel.0,
            channel_id: channel.1,
            window,
            max_concurrent,
            habits,
            hello_sent: false,
            welcome: None,
            rx: Vec::new(),
            streams: BTreeMap::new(),
            goaway_sent: false,
            goaway_seen: false,
            hostile: false,
            flooded: false,
            dead: false,
            error_seen: false,
            last_ping: Time::ZERO,
            last_of: BTreeMap::new(),
        }
    }

    fn is_consumer(&self) -> bool {
        self.role == Role::Consumer
    }

    /// Counts as a provider its channel's requests can go to.
    pub(crate) fn serves(&self) -> bool {
        self.role == Role::Provider && self.welcome.is_some() && !self.dead && !self.goaway_sent && !self.hostile
    }

    fn send(&self, world: &mut World, header: Header, parts: &[&[u8]]) {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        let header = header.length(length as u32);
        trace!(world, "{self} sends {}", show(&header));
        let up = &mut world.socks[self.sock].up;
        up.extend(header.encode());
        for part in parts {
            up.extend(*part);
        }
    }

    /// Its connection has ended, or it ends it.
    fn die(&mut self, world: &mut World, shared: &mut Shared, why: &str) {
        if self.dead {
            return;
        }
        trace!(world, "{self} is gone: {why}");
        self.dead = true;
        shared.dead[self.index] = true;
        world.socks[self.sock].fin = true;
        if self.role == Role::Provider {
            shared.providers_lost += 1;
        } else {
            for stream in self.streams.values().filter(|stream| !stream.terminal) {
                shared.specs[stream.number as usize].outcome = Some(Outcome::Lost);
            }
        }
        self.streams.clear();
    }

    /// Closes its connection, at any point.
    pub(crate) fn leave(&mut self, world: &mut World, shared: &mut Shared, abrupt: bool) {
        if abrupt {
            world.socks[self.sock].up.clear();
        }
        self.die(world, shared, "it leaves");
    }

    /// Reads up to `n` bytes. Says whether there was anything.
    pub(crate) fn read(&mut self, world: &mut World, shared: &mut Shared, n: usize) -> bool {
        let sock = &mut world.socks[self.sock];
        let n = n.min(sock.down.len());
        if self.dead {
            sock.down.clear();
            return n > 0;
        }
        self.rx.extend(sock.down.drain(..n));
        let over = sock.is_over() && sock.down.is_empty();
        let aborted = sock.aborted;
        let mut at = 0;
        while let Some(bytes) = self.rx[at..].first_chunk::<HEADER_LEN>() {
            let header = Header::decode(bytes);
            if !self.hostile {
                assert!(header.length <= shared.max_frame, "{self}: frame above max_frame: {}", show(&header));
            }
            let Some(payload) = self.rx.get(at + HEADER_LEN..at + HEADER_LEN + header.length as usize) else { break };
            let payload = payload.to_vec();
            at += HEADER_LEN + header.length as usize;
            if !self.hostile && !self.dead {
                trace!(world, "{self} reads {}", show(&header));
                self.frame(world, shared, &header, &payload);
            }
        }
        self.rx.drain(..at);
        if over && !self.dead {
            if !self.hostile {
                let explained = self.error_seen || self.goaway_seen || self.goaway_sent || aborted;
                assert!(explained, "{self}: the broker closed without a word");
                assert!(self.rx.is_empty() || aborted, "{self}: the broker closed in the middle of a frame");
            }
            self.die(world, shared, "the broker closed");
            return true;
        }
        n > 0
    }
}

fn show(header: &Header) -> String {
    let kind = header.frame_type().map_or(format!("{:#04x}", header.kind), |kind| format!("{kind:?}"));
    let mut text = format!("{kind} on {}", header.stream);
    for (flag, name) in [
        (Flags::END, "END"),
        (Flags::HEADERS, "HEADERS"),
        (Flags::ONEWAY, "ONEWAY"),
        (Flags::WAIT, "WAIT"),
        (Flags::RETRY, "RETRY"),
        (Flags::STARTED, "STARTED"),
    ] {
        if header.flags.has(flag) {
            text += " ";
            text += name;
        }
    }
    if header.length > 0 {
        text += &format!(", {} bytes", header.length);
    }
    if header.arg > 0 {
        text += &format!(", arg {}", header.arg);
    }
    if header.code > 0 {
        text += &format!(", {}", Code::from_wire(header.code).map_or(header.code.to_string(), |code| code.to_string()));
    }
    text
}

impl std::fmt::Display for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let role = if self.role == Role::Consumer { "consumer" } else { "provider" };
        write!(f, "{role} {}", self.index)
    }
}
