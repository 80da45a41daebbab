//! Clients that know what they may expect: every byte, every grant, every outcome is held against a model.
//!
//! The content of a body is a function of request, direction and offset, so that a byte lost, doubled or crossed
//! with another's shows where it is read.

use std::collections::BTreeMap;

use corelay::base::{ChannelId, Time};
use corelay::protocol::{
    Code, Flags, FrameType, HEADER_LEN, Header, Hello, MAX_CREDIT, Role, VERSION, Welcome, encode_headers,
};

use crate::rng::Rng;
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
    pub(crate) answered: u64,
    /// A provider read two requests of one consumer in the wrong order: only a lost or leaving provider, whose
    /// requests were handed on, excuses that.
    pub(crate) disorder: Option<String>,
    pub(crate) providers_leaving: u32,
    /// A consumer was told PROVIDER_LOST.
    pub(crate) told_lost: bool,
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

    fn frame(&mut self, world: &mut World, shared: &mut Shared, header: &Header, payload: &[u8]) {
        let kind = header.frame_type().unwrap_or_else(|| panic!("{self}: unknown frame {header:?}"));
        assert!(!self.error_seen, "{self}: a frame behind the ERROR that ends the connection");
        if kind == FrameType::Error && header.stream == 0 {
            return self.connection_error(shared, header, payload);
        }
        if self.welcome.is_none() {
            assert_eq!(kind, FrameType::Welcome, "{self}: the first frame");
            let welcome = Welcome::decode(payload).unwrap();
            self.welcome = Some(welcome);
            return;
        }
        match kind {
            FrameType::Ping => {
                assert_eq!((header.stream, payload.len()), (0, 8), "{self}: PING");
                self.send(world, Header::new(FrameType::Pong, 0), &[payload]);
            }
            FrameType::Pong => assert_eq!(payload, b"12345678", "{self}: PONG"),
            FrameType::GoAway => self.goaway_seen = true,
            _ if self.is_consumer() => self.consumer_frame(world, shared, kind, header, payload),
            _ => self.provider_frame(shared, kind, header, payload),
        }
    }

    fn connection_error(&mut self, shared: &Shared, header: &Header, payload: &[u8]) {
        let code = Code::from_wire(header.code).unwrap_or_else(|| panic!("{self}: ERROR without a code"));
        let text = std::str::from_utf8(payload).unwrap();
        let fair = match code {
            Code::Timeout => true,
            Code::Draining => shared.drained,
            _ => false,
        };
        assert!(fair, "{self}: a client that kept to the protocol was told {code}: {text}");
        self.error_seen = true;
    }

    fn consumer_frame(
        &mut self,
        world: &mut World,
        shared: &mut Shared,
        kind: FrameType,
        header: &Header,
        payload: &[u8],
    ) {
        let name = self.to_string();
        let window = self.welcome.map_or(0, |welcome| welcome.window);
        let stream = self.streams.get_mut(&header.stream);
        let stream = stream.unwrap_or_else(|| panic!("{name}: {kind:?} on stream {}, not in use", header.stream));
        let number = stream.number;
        assert!(!stream.terminal, "{name}: {kind:?} behind the terminal frame of request {number}");
        let spec = &mut shared.specs[number as usize];
        let strict = !shared.tainted[spec.channel];
        let end = header.flags.has(Flags::END);
        match kind {
            FrameType::Response | FrameType::Data => {
                assert_eq!(stream.recv.begun, kind == FrameType::Data, "{name}: {kind:?} of request {number}");
                stream.recv.begun = true;
                let mut bytes = payload;
                if kind == FrameType::Response && header.flags.has(Flags::HEADERS) {
                    let len = 2 + usize::from(u16::from_le_bytes([bytes[0], bytes[1]]));
                    if strict {
                        assert_eq!(bytes[..len], header_block(number, false), "{name}: header block of {number}");
                    }
                    bytes = &bytes[len..];
                } else if kind == FrameType::Response && strict && !spec.flags.has(Flags::ONEWAY) {
                    assert!(!spec.headers, "{name}: the answer's header block of {number} is lost");
                }
                take(&name, number, &mut stream.recv, bytes, false, strict);
                if end {
                    stream.terminal = true;
                    assert_eq!(spec.outcome, None, "{name}: a second outcome of {number}");
                    spec.outcome = Some(Outcome::Answered);
                    shared.answered += 1;
                    if spec.flags.has(Flags::ONEWAY) {
                        assert_eq!((kind, stream.recv.at), (FrameType::Response, 0), "{name}: a one-way answer");
                        let whole = stream.send.ended || spec.answered || spec.error.is_some();
                        assert!(whole || !strict, "{name}: one-way {number} answered before it was handed over");
                    } else if strict {
                        assert!(spec.answered, "{name}: request {number} is answered, but no provider has ended it");
                        assert_eq!(stream.recv.at, spec.down_len, "{name}: length of the answer to {number}");
                    }
                }
            }
            FrameType::Error => {
                stream.terminal = true;
                assert_eq!(spec.outcome, None, "{name}: a second outcome of {number}");
                let code = Code::from_wire(header.code).expect("a known code");
                spec.outcome = Some(Outcome::Failed(code));
                let started = header.flags.has(Flags::STARTED);
                let text = std::str::from_utf8(payload).unwrap();
                if strict {
                    justify(&name, world, number, spec, stream, (code, started, text));
                    shared.told_lost |= code == Code::ProviderLost;
                    assert!(code != Code::Draining || shared.drained, "{name}: nobody drains");
                    assert!(code != Code::Overloaded || shared.may_overload, "{name}: {number}: OVERLOADED: {text}");
                }
            }
            FrameType::Credit => {
                assert!(header.arg > 0, "{name}: CREDIT 0");
                stream.send.credit += u64::from(header.arg);
                let credit = stream.send.credit;
                assert!(credit <= u64::from(window), "{name}: {number}: {credit} bytes granted, beyond the window");
            }
            _ => panic!("{name}: {kind:?} towards a consumer"),
        }
        self.drop_if_free(header.stream);
    }

    fn drop_if_free(&mut self, id: u32) {
        let stream = &self.streams[&id];
        let opener_done = if self.is_consumer() { stream.send.ended } else { stream.recv.ended } || stream.cancelled;
        if stream.terminal && opener_done {
            self.streams.remove(&id);
        }
    }

    fn provider_frame(&mut self, shared: &mut Shared, kind: FrameType, header: &Header, payload: &[u8]) {
        let name = self.to_string();
        let id = header.stream;
        let end = header.flags.has(Flags::END);
        if kind == FrameType::Request {
            return self.provider_request(shared, header, payload);
        }
        let window = self.welcome.map_or(0, |welcome| welcome.window);
        let Some(stream) = self.streams.get_mut(&id) else {
            let race = matches!(kind, FrameType::Cancel | FrameType::Credit);
            return assert!(race, "{name}: {kind:?} on stream {id}, not in use");
        };
        match kind {
            FrameType::Data => {
                assert!(!stream.recv.ended && !stream.cancelled, "{name}: DATA behind END or CANCEL");
                let strict = stream.number != FOREIGN && !shared.specs[stream.number as usize].hostile;
                take(&name, stream.number, &mut stream.recv, payload, true, strict);
                stream.recv.ended = end;
                self.check_request_end(shared, id);
            }
            FrameType::Cancel => {
                assert!(!stream.cancelled, "{name}: CANCEL twice");
                let code = Code::from_wire(header.code);
                let known = [
                    Code::Cancelled,
                    Code::Deadline,
                    Code::ConsumerLost,
                    Code::Overloaded,
                    Code::Draining,
                    Code::ProviderLost,
                ];
                assert!(code.is_some_and(|code| known.contains(&code)), "{name}: CANCEL with code {}", header.code);
                stream.cancelled = true;
            }
            FrameType::Credit => {
                assert!(header.arg > 0, "{name}: CREDIT 0");
                stream.send.credit += u64::from(header.arg);
                let credit = stream.send.credit;
                assert!(credit <= u64::from(window), "{name}: {credit} bytes granted, beyond the window");
            }
            _ => panic!("{name}: {kind:?} towards a provider"),
        }
        self.drop_if_free(id);
    }

    fn check_request_end(&self, shared: &Shared, id: u32) {
        let stream = &self.streams[&id];
        if stream.recv.ended && stream.number != FOREIGN && !shared.specs[stream.number as usize].hostile {
            let len = shared.specs[stream.number as usize].up_len;
            assert_eq!(stream.recv.at, len, "{self}: length of request {}", stream.number);
        }
    }

    fn provider_request(&mut self, shared: &mut Shared, header: &Header, payload: &[u8]) {
        let (id, name) = (header.stream, self.to_string());
        assert!(!self.streams.contains_key(&id), "{self}: REQUEST on stream {id}, which is in use");
        let number = number_of(&payload[..16]);
        let mut bytes = &payload[16..];
        let mut head = &[][..];
        if header.flags.has(Flags::HEADERS) {
            (head, bytes) = bytes.split_at(2 + usize::from(u16::from_le_bytes([bytes[0], bytes[1]])));
        }
        let mut hangs = self.habits.hangs;
        if number != FOREIGN {
            let spec = &mut shared.specs[number as usize];
            assert_eq!(spec.channel, self.channel, "{self}: a request of another channel");
            let block = header_block(number, true);
            assert!(!spec.headers || head == block, "{self}: the header block of {number} is lost");
            assert!(spec.headers || head.is_empty(), "{self}: a header block that {number} did not have");
            let again = !spec.seen_by.is_empty();
            assert!(!again || spec.flags.has(Flags::RETRY), "{self}: request {number} is delivered twice");
            spec.seen_by.push(self.index);
            let before = self.last_of.insert(spec.consumer, number);
            if let Some(before) = before.filter(|&before| before > number) {
                shared.disorder = Some(format!("{self} read request {before} before {number} of the same consumer"));
            }
            let timeout = if spec.timeout_ms == 0 { shared.default_timeout_ms } else { spec.timeout_ms };
            assert!((1..=timeout).contains(&header.arg), "{self}: {} ms left of {timeout}", header.arg);
            hangs |= number.is_multiple_of(13) && !shared.finishing;
        }
        let window = u64::from(self.window);
        let welcome = self.welcome.expect("welcomed");
        let mut stream = Stream {
            number,
            send: Sending { credit: u64::from(welcome.window), ..Sending::default() },
            recv: Receiving { granted: window, begun: true, ..Receiving::default() },
            cancelled: false,
            terminal: false,
            hangs,
        };
        let strict = number != FOREIGN && !shared.specs[number as usize].hostile;
        take(&name, number, &mut stream.recv, bytes, true, strict);
        stream.recv.ended = header.flags.has(Flags::END);
        self.streams.insert(id, stream);
        self.check_request_end(shared, id);
        let live = self.streams.values().filter(|stream| !stream.terminal && !stream.cancelled).count();
        let all = self.streams.values().filter(|stream| !stream.terminal).count();
        let max = self.max_concurrent as usize;
        assert!(live <= max, "{self}: {live} requests, more than max_concurrent {max}");
        assert!(all < 2 * max, "{self}: {all} requests with cancelled ones, max_concurrent is {max}");
    }

    /// Does one thing of its choice.
    pub(crate) fn act(&mut self, world: &mut World, shared: &mut Shared, rng: &mut Rng) {
        if self.dead {
            return;
        }
        if rng.one_in(self.habits.laziness) {
            let n = rng.range(1, self.habits.read);
            self.read(world, shared, n);
        }
        if self.dead {
            return;
        }
        if !self.hello_sent {
            return self.hello(world);
        }
        if self.hostile || self.habits.hostile && rng.one_in(60) {
            return self.misbehave(world, shared, rng);
        }
        if self.habits.leaves && rng.one_in(400) {
            return self.leave(world, shared, rng.one_in(2));
        }
        if self.welcome.is_none() || self.error_seen {
            return;
        }
        if rng.one_in(40) {
            return self.chatter(world, rng);
        }
        if rng.one_in(600) && self.habits.leaves && !self.goaway_sent {
            self.goaway_sent = true;
            shared.providers_leaving += u32::from(self.role == Role::Provider);
            return self.send(world, Header::new(FrameType::GoAway, 0), &[b"bye"]);
        }
        if self.is_consumer() && rng.one_in(10) && !self.goaway_sent {
            return self.open(world, shared, rng);
        }
        let ids: Vec<u32> = self.streams.keys().copied().collect();
        if ids.is_empty() {
            return;
        }
        let id = rng.pick(&ids);
        if rng.one_in(self.habits.stinginess) {
            let all = rng.one_in(2);
            self.grant(world, id, rng, all);
        } else if self.is_consumer() {
            self.consumer_act(world, id, shared, rng);
        } else {
            self.provider_act(world, id, shared, rng);
        }
    }

    fn hello(&mut self, world: &mut World) {
        self.hello_sent = true;
        let hello = Hello {
            version: VERSION,
            role: self.role,
            features: 0,
            channel: self.channel_id,
            client: uuid::Uuid::from_u128(self.index as u128 + 1),
            window: self.window,
            max_concurrent: self.max_concurrent,
            token: Vec::new(),
            name: format!("client {}", self.index),
        };
        let mut frame = Vec::new();
        hello.encode(&mut frame).unwrap();
        trace!(world, "{self} says HELLO, window {}, max_concurrent {}", self.window, self.max_concurrent);
        world.socks[self.sock].up.extend(frame);
    }

    /// Frames that change nothing.
    fn chatter(&mut self, world: &mut World, rng: &mut Rng) {
        match rng.below(5) {
            0 if world.now - self.last_ping > std::time::Duration::from_millis(150) => {
                self.last_ping = world.now;
                self.send(world, Header::new(FrameType::Ping, 0), &[b"12345678"]);
            }
            1 => self.send(world, Header::new(FrameType::Pong, 0), &[b"nobodyas"]),
            2 => {
                let extension = Header { kind: 0x80 + rng.below(128) as u8, ..Header::new(FrameType::Ping, 7) };
                let payload = vec![1; rng.below(50)];
                self.send(world, extension, &[&payload]);
            }
            3 if self.is_consumer() => {
                let id = 5000 + rng.below(100) as u32;
                self.send(world, Header::new(FrameType::Cancel, id).code(Code::Cancelled), &[]);
            }
            4 => {
                let id = 5000 + rng.below(100) as u32;
                self.send(world, Header::new(FrameType::Credit, id).arg(5), &[]);
            }
            _ => {}
        }
    }

    fn open(&mut self, world: &mut World, shared: &mut Shared, rng: &mut Rng) {
        let welcome = self.welcome.expect("welcomed");
        // now and then one more than is allowed
        let most = welcome.max_streams as usize + usize::from(rng.one_in(20));
        if self.streams.len() >= most || self.streams.len() > 40 {
            return;
        }
        let mut id = if self.habits.sparse { rng.range(1, 3000) as u32 } else { 1 };
        while self.streams.contains_key(&id) {
            id += 1;
        }
        let number = shared.specs.len() as u64;
        let mut flags = Flags::NONE;
        for (flag, odds) in [(Flags::WAIT, 3), (Flags::RETRY, 2), (Flags::ONEWAY, 4)] {
            flags = flags | flag.only_if(rng.one_in(odds));
        }
        let headers = rng.one_in(4);
        let timeout_ms = rng.pick(&[0, 0, 5, 50, 1000, 60_000]);
        // refused, it must not hold its id: more than max_streams of those are a flood
        let surplus = self.streams.len() >= welcome.max_streams as usize;
        let spec = Spec {
            channel: self.channel,
            consumer: self.index,
            up_len: if surplus { 0 } else { rng.length(shared.max_body) },
            down_len: rng.length(shared.max_body),
            flags,
            timeout_ms,
            sent_at: world.now,
            headers,
            seen_by: Vec::new(),
            answered: false,
            error: None,
            outcome: None,
            hostile: false,
        };
        let mut stream = Stream {
            number,
            send: Sending { credit: u64::from(welcome.window), begun: true, ..Sending::default() },
            recv: Receiving { granted: u64::from(self.window), ..Receiving::default() },
            cancelled: false,
            terminal: false,
            hangs: false,
        };
        let n = rng.length(self.habits.chunk.min(welcome.window as usize).min(spec.up_len));
        let bytes: Vec<u8> = body(number, true, 0, n).collect();
        stream.send.at = n;
        stream.send.credit -= n as u64;
        stream.send.ended = n == spec.up_len && (surplus || !rng.one_in(4));
        let block = if headers { header_block(number, true) } else { Vec::new() };
        let flags = flags | Flags::HEADERS.only_if(headers) | Flags::END.only_if(stream.send.ended);
        let header = Header::new(FrameType::Request, id).flags(flags).arg(timeout_ms);
        trace!(world, "{self} opens {number}: {} up, {} down", spec.up_len, spec.down_len);
        self.send(world, header, &[&request_id(number), &block, &bytes]);
        shared.specs.push(spec);
        self.streams.insert(id, stream);
    }

    /// Sends more of its direction of this stream; `false` where there is nothing to send, or no credit for it.
    fn more(&mut self, world: &mut World, id: u32, len: usize, chunk: usize, lone_end: bool) -> bool {
        let up = self.is_consumer();
        let stream = self.streams.get_mut(&id).expect("in use");
        let (number, send) = (stream.number, &mut stream.send);
        let n = (len - send.at).min(chunk).min(usize::try_from(send.credit).unwrap());
        let end = send.at + n == len && !(lone_end && n > 0);
        if n == 0 && !end && send.begun {
            return false;
        }
        let bytes: Vec<u8> = body(number, up, send.at, n).collect();
        let kind = if send.begun { FrameType::Data } else { FrameType::Response };
        send.begun = true;
        send.at += n;
        send.credit -= n as u64;
        send.ended = end;
        let header = Header::new(kind, id).flags(Flags::END.only_if(end));
        self.send(world, header, &[&bytes]);
        true
    }

    fn consumer_act(&mut self, world: &mut World, id: u32, shared: &mut Shared, rng: &mut Rng) {
        let stream = self.streams.get_mut(&id).expect("in use");
        let spec = &shared.specs[stream.number as usize];
        let cancel = if stream.terminal { rng.one_in(3) } else { self.habits.cancels && rng.one_in(40) };
        if cancel && !stream.cancelled {
            stream.cancelled = true;
            self.send(world, Header::new(FrameType::Cancel, id).code(Code::Cancelled), &[]);
            return self.drop_if_free(id);
        }
        if stream.send.ended || stream.cancelled {
            return;
        }
        let n = rng.range(1, self.habits.chunk);
        let (len, lone_end) = (spec.up_len, rng.one_in(5));
        if stream.terminal && rng.one_in(4) {
            // answered early: END in place of the rest
            stream.send.ended = true;
            self.send(world, Header::new(FrameType::Data, id).flags(Flags::END), &[]);
        } else {
            self.more(world, id, len, n, lone_end);
        }
        self.drop_if_free(id);
    }

    fn provider_act(&mut self, world: &mut World, id: u32, shared: &mut Shared, rng: &mut Rng) {
        let stream = &self.streams[&id];
        if stream.terminal {
            return;
        }
        if stream.hangs && !shared.finishing {
            return;
        }
        if stream.cancelled && rng.one_in(3) || stream.number == FOREIGN {
            return self.fail(world, id, shared, "cancelled");
        }
        if !stream.recv.ended && !rng.one_in(20) && !stream.send.begun {
            return;
        }
        if rng.one_in(30) {
            let text = format!("failure {}", rng.below(1000));
            return self.fail(world, id, shared, &text);
        }
        let n = rng.range(1, self.habits.chunk);
        let lone_end = rng.one_in(5);
        self.answer(world, id, shared, n, lone_end);
    }

    fn fail(&mut self, world: &mut World, id: u32, shared: &mut Shared, text: &str) {
        let stream = self.streams.get_mut(&id).expect("in use");
        stream.terminal = true;
        if stream.number != FOREIGN {
            shared.specs[stream.number as usize].error = Some(text.to_owned());
        }
        let header = Header { code: (id % 40) as u16, ..Header::new(FrameType::Error, id) };
        self.send(world, header, &[text.as_bytes()]);
        self.drop_if_free(id);
    }

    fn answer(&mut self, world: &mut World, id: u32, shared: &mut Shared, chunk: usize, lone_end: bool) -> bool {
        let stream = self.streams.get_mut(&id).expect("in use");
        let number = stream.number;
        let spec = &mut shared.specs[number as usize];
        let len = spec.down_len;
        if !stream.send.begun && spec.headers {
            stream.send.begun = true;
            stream.send.ended = len == 0 && !lone_end;
            let header =
                Header::new(FrameType::Response, id).flags(Flags::HEADERS | Flags::END.only_if(stream.send.ended));
            let (terminal, block) = (stream.send.ended, header_block(number, false));
            stream.terminal = terminal;
            spec.answered |= terminal;
            self.send(world, header, &[&block]);
            self.drop_if_free(id);
            return true;
        }
        let moved = self.more(world, id, len, chunk, lone_end);
        let stream = self.streams.get_mut(&id).expect("in use");
        stream.terminal = stream.send.ended;
        spec.answered |= stream.send.ended;
        self.drop_if_free(id);
        moved
    }

    /// Grants some or all of what it has read; now and then more.
    fn grant(&mut self, world: &mut World, id: u32, rng: &mut Rng, all: bool) -> bool {
        let consumer = self.is_consumer();
        let stream = self.streams.get_mut(&id).expect("in use");
        let wanted = if consumer { !stream.terminal } else { !stream.recv.ended && !stream.terminal };
        let extra = if rng.one_in(10) { rng.length(5000) as u64 } else { u64::from(self.window == 0) * 3 };
        let recv = &mut stream.recv;
        let n = if all { recv.owed + extra } else { rng.length(recv.owed as usize) as u64 };
        if n == 0 || !wanted || stream.cancelled || recv.granted + n > u64::from(MAX_CREDIT) {
            return false;
        }
        recv.granted += n;
        recv.owed = recv.owed.saturating_sub(n);
        self.send(world, Header::new(FrameType::Credit, id).arg(n as u32), &[]);
        true
    }

    /// Does everything that ends what is open. Says whether it did anything.
    pub(crate) fn wind_up(&mut self, world: &mut World, shared: &mut Shared) -> bool {
        let mut moved = self.read(world, shared, usize::MAX);
        if self.dead || self.error_seen {
            return moved;
        }
        if self.hostile {
            self.leave(world, shared, true);
            return true;
        }
        if !self.hello_sent {
            self.hello(world);
            return true;
        }
        let ids: Vec<u32> = self.streams.keys().copied().collect();
        for id in ids {
            moved |= self.wind_up_stream(world, shared, id);
        }
        moved
    }

    fn wind_up_stream(&mut self, world: &mut World, shared: &mut Shared, id: u32) -> bool {
        let stream = self.streams.get_mut(&id).expect("in use");
        stream.hangs = false;
        let need = stream.recv.owed > 0 || stream.recv.granted == 0;
        if need && self.grant_all(world, id) {
            return true;
        }
        let consumer = self.is_consumer();
        let stream = self.streams.get_mut(&id).expect("in use");
        if consumer {
            if stream.send.ended || stream.cancelled {
                return false;
            }
            if stream.terminal {
                stream.cancelled = true;
                self.send(world, Header::new(FrameType::Cancel, id).code(Code::Cancelled), &[]);
                self.drop_if_free(id);
                return true;
            }
            let len = shared.specs[stream.number as usize].up_len;
            return self.more(world, id, len, self.habits.chunk.max(4000), false);
        }
        if stream.terminal {
            return false;
        }
        if stream.number == FOREIGN || stream.cancelled {
            self.fail(world, id, shared, "cancelled");
            return true;
        }
        if !stream.recv.ended && !stream.send.begun {
            return false;
        }
        self.answer(world, id, shared, self.habits.chunk.max(4000), false)
    }

    fn grant_all(&mut self, world: &mut World, id: u32) -> bool {
        let consumer = self.is_consumer();
        let stream = self.streams.get_mut(&id).expect("in use");
        let wanted = if consumer { !stream.terminal } else { !stream.recv.ended && !stream.terminal };
        let n = stream.recv.owed.max(if stream.recv.granted == 0 { 1000 } else { 0 });
        if n == 0 || !wanted || stream.cancelled {
            return false;
        }
        stream.recv.granted += n;
        stream.recv.owed = 0;
        self.send(world, Header::new(FrameType::Credit, id).arg(n as u32), &[]);
        true
    }

    /// Requests on its connection without an outcome.
    pub(crate) fn open_requests(&self) -> Vec<u64> {
        self.streams.values().filter(|stream| !stream.terminal).map(|stream| stream.number).collect()
    }

    /// Having read all there is, a provider knows of every request that has ended without it.
    pub(crate) fn check_cancels(&self, shared: &Shared, cores: usize) {
        if self.role != Role::Provider || self.dead || self.hostile || self.error_seen {
            return;
        }
        for stream in self.streams.values().filter(|stream| !stream.terminal && stream.number != FOREIGN) {
            let spec = &shared.specs[stream.number as usize];
            let ended = match spec.outcome {
                // another core may have answered a one-way request when its deadline passed here
                Some(Outcome::Failed(_)) => cores == 1 || !spec.flags.has(Flags::ONEWAY),
                // a one-way request may have been answered without its consumer having read so
                Some(Outcome::Lost) => !spec.flags.has(Flags::ONEWAY) && !spec.hostile,
                _ => false,
            };
            let number = stream.number;
            assert!(stream.cancelled || !ended, "{self}: request {number} has ended, and no CANCEL came: {spec:?}");
        }
    }

    /// Breaks the protocol.
    fn misbehave(&mut self, world: &mut World, shared: &mut Shared, rng: &mut Rng) {
        self.hostile = true;
        shared.dead[self.index] = true;
        if self.role == Role::Provider {
            shared.tainted[self.channel] = true;
            shared.providers_lost += 1;
        } else {
            for stream in self.streams.values().filter(|stream| !stream.terminal) {
                let spec = &mut shared.specs[stream.number as usize];
                spec.outcome = Some(Outcome::Lost);
                spec.hostile = true;
            }
        }
        let id = rng.pick(&[0, 1, 1, 2, 3, 7, 5000, u32::MAX]);
        let kind = rng.pick(&FrameType::ALL);
        let (header, payload) = match rng.below(8) {
            0 => (Header::new(FrameType::Credit, id).arg(rng.pick(&[0, 1, MAX_CREDIT, u32::MAX])), Vec::new()),
            1 => (Header::new(FrameType::Data, id), vec![7; rng.length(100_000)]),
            2 => (Header::new(FrameType::Response, id).flags(Flags(rng.next() as u8)), vec![7; rng.length(5000)]),
            3 => (Header { kind: rng.next() as u8, ..Header::new(kind, id) }, vec![0; rng.length(100)]),
            4 => (Header::new(FrameType::Error, id).code(Code::Internal), vec![0xff; rng.length(2000)]),
            5 => (Header::new(FrameType::Request, id).flags(Flags(rng.next() as u8)), vec![3; rng.length(500)]),
            6 => (Header::new(FrameType::Cancel, id), Vec::new()),
            _ => (Header::new(kind, id).flags(Flags(rng.next() as u8)), vec![0; rng.length(40)]),
        };
        let mut bytes = header.length(payload.len() as u32).encode().to_vec();
        bytes.extend(payload);
        if rng.one_in(8) {
            let at = rng.below(bytes.len());
            bytes[at] ^= 1 << rng.below(8);
        }
        if rng.one_in(10) {
            bytes.truncate(rng.below(bytes.len()));
        }
        trace!(world, "{self} misbehaves with {}", show(&header));
        world.socks[self.sock].up.extend(bytes);
    }
}

/// Body bytes arrive: within what was granted, and the right ones.
fn take(name: &str, number: u64, recv: &mut Receiving, bytes: &[u8], up: bool, strict: bool) {
    let n = bytes.len() as u64;
    assert!(recv.granted >= n, "{name}: request {number}: {n} bytes, {} were granted", recv.granted);
    recv.granted -= n;
    recv.owed += n;
    if strict {
        for (i, &byte) in bytes.iter().enumerate() {
            let at = recv.at + i;
            assert_eq!(byte, content(number, up, at), "{name}: request {number}: wrong byte at {at}");
        }
    }
    recv.at += bytes.len();
}

/// Whether a request had a right to fail like this.
fn justify(
    name: &str,
    world: &World,
    number: u64,
    spec: &Spec,
    stream: &Stream,
    (code, started, text): (Code, bool, &str),
) {
    let seen = !spec.seen_by.is_empty();
    assert!(started || !seen, "{name}: request {number} ended with {code} without STARTED, but a provider had it");
    match code {
        Code::NoProvider => {
            assert!(!spec.flags.has(Flags::WAIT), "{name}: request {number} said WAIT");
            assert!(!seen || spec.flags.has(Flags::RETRY), "{name}: request {number} had a provider");
        }
        Code::Deadline => {
            let timeout = if spec.timeout_ms == 0 { 0 } else { spec.timeout_ms };
            let passed = world.now - spec.sent_at;
            let early = passed.as_millis() < u128::from(timeout);
            assert!(!early, "{name}: request {number}: DEADLINE after {passed:?} of {timeout} ms");
        }
        Code::Cancelled => assert!(stream.cancelled, "{name}: request {number} was not cancelled"),
        Code::Application => {
            assert_eq!(spec.error.as_deref(), Some(text), "{name}: the provider's error on {number}");
            assert!(started, "{name}: the provider answered {number}, so it was started");
        }
        Code::ProviderLost | Code::Overloaded | Code::Draining => {}
        _ => panic!("{name}: request {number} ended with {code}: {text}"),
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
