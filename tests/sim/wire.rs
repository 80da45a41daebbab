//! Tests as scripts of frames: clients on a virtual wire, a broker core behind it, and a clock that the script turns.
//!
//! ```text
//! let w = World::one_core(Limits::default());
//! let c = w.consumer("ch");
//! let p = w.provider("ch", 2);
//! c.send(request(1).timeout(5).body("hi").end());
//! p.expect(request(1).body("hi").end());
//! p.send(response(1).body("ho").end());
//! c.expect(response(1).body("ho").end());
//! ```
//!
//! Each script runs in several weathers (see [`weathers`]): bytes arrive whole, one by one, or cut at random. After
//! each step the core's invariants are checked; at the end everybody leaves and nothing may be left behind.

mod access;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use corelay::base::ChannelId;
use corelay::base::limits::Limits;
use corelay::broker::core::{Action, Channel, Options, Refused, Route};
use corelay::protocol::{Code, Flags, FrameType, HEADER_LEN, Header, Hello, Role, VERSION, Welcome, encode_headers};

use crate::companion::{Companion, Copy};
use crate::rng::Rng;
use crate::world;

/// A frame to be sent, or to be expected.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub(crate) header: Header,
    id: Option<[u8; 16]>,
    block: Vec<u8>,
    body: Vec<u8>,
    /// Of an expected frame: `arg` and text are looked at only where they are given.
    arg_given: bool,
    body_given: bool,
}

fn frame(kind: FrameType, stream: u32) -> Frame {
    Frame {
        header: Header::new(kind, stream),
        id: None,
        block: Vec::new(),
        body: Vec::new(),
        arg_given: false,
        body_given: false,
    }
}

/// REQUEST on this stream; its request id is made of the stream's number where none is given.
pub(crate) fn request(stream: u32) -> Frame {
    frame(FrameType::Request, stream)
}

pub(crate) fn response(stream: u32) -> Frame {
    frame(FrameType::Response, stream)
}

pub(crate) fn data(stream: u32) -> Frame {
    frame(FrameType::Data, stream)
}

pub(crate) fn error(stream: u32, code: Code) -> Frame {
    frame(FrameType::Error, stream).code(code)
}

pub(crate) fn cancel(stream: u32, code: Code) -> Frame {
    frame(FrameType::Cancel, stream).code(code)
}

pub(crate) fn credit(stream: u32, n: u32) -> Frame {
    frame(FrameType::Credit, stream).arg(n)
}

pub(crate) fn ping(bytes: &[u8; 8]) -> Frame {
    frame(FrameType::Ping, 0).body(bytes)
}

pub(crate) fn pong(bytes: &[u8; 8]) -> Frame {
    frame(FrameType::Pong, 0).body(bytes)
}

pub(crate) fn goaway() -> Frame {
    frame(FrameType::GoAway, 0)
}

/// HELLO, as a frame.
pub(crate) fn hello_frame(hello: Hello) -> Frame {
    let mut bytes = Vec::new();
    hello.encode(&mut bytes).unwrap();
    frame(FrameType::Hello, 0).body(&bytes[HEADER_LEN..])
}

/// Any header, for what must not be sent.
pub(crate) fn raw(header: Header) -> Frame {
    Frame { header, ..frame(FrameType::Hello, 0) }
}

impl Frame {
    pub(crate) fn end(self) -> Frame {
        self.flag(Flags::END)
    }

    pub(crate) fn oneway(self) -> Frame {
        self.flag(Flags::ONEWAY)
    }

    pub(crate) fn wait(self) -> Frame {
        self.flag(Flags::WAIT)
    }

    pub(crate) fn retry(self) -> Frame {
        self.flag(Flags::RETRY)
    }

    pub(crate) fn started(self) -> Frame {
        self.flag(Flags::STARTED)
    }

    pub(crate) fn flag(mut self, flag: Flags) -> Frame {
        self.header.flags = self.header.flags | flag;
        self
    }

    pub(crate) fn body(mut self, body: impl AsRef<[u8]>) -> Frame {
        self.body = body.as_ref().to_vec();
        self.body_given = true;
        self
    }

    /// ERROR, GOAWAY: the text.
    pub(crate) fn text(self, text: &str) -> Frame {
        self.body(text)
    }

    pub(crate) fn code(mut self, code: Code) -> Frame {
        self.header.code = code.to_wire();
        self
    }

    pub(crate) fn arg(mut self, arg: u32) -> Frame {
        self.header.arg = arg;
        self.arg_given = true;
        self
    }

    /// REQUEST: the timeout in ms.
    pub(crate) fn timeout(self, ms: u32) -> Frame {
        self.arg(ms)
    }

    pub(crate) fn id(mut self, id: [u8; 16]) -> Frame {
        self.id = Some(id);
        self
    }

    pub(crate) fn headers(mut self, entries: &[(&str, &str)]) -> Frame {
        encode_headers(entries.iter().copied(), &mut self.block).unwrap();
        self.flag(Flags::HEADERS)
    }

    /// A header block as given, right or wrong.
    pub(crate) fn block(mut self, block: &[u8]) -> Frame {
        self.block = block.to_vec();
        self.flag(Flags::HEADERS)
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut payload = Vec::new();
        if self.header.frame_type() == Some(FrameType::Request) {
            payload.extend(self.id.unwrap_or([self.header.stream as u8; 16]));
        }
        payload.extend(&self.block);
        payload.extend(&self.body);
        let mut bytes = self.header.length(payload.len() as u32).encode().to_vec();
        bytes.extend(payload);
        bytes
    }
}

/// A frame that was read.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) header: Header,
    pub(crate) payload: Vec<u8>,
}

impl Seen {
    /// Where the body begins in the payload.
    fn head(&self) -> usize {
        let fixed = if self.header.frame_type() == Some(FrameType::Request) { 16 } else { 0 };
        if !self.header.flags.has(Flags::HEADERS) {
            return fixed;
        }
        fixed + 2 + usize::from(u16::from_le_bytes([self.payload[fixed], self.payload[fixed + 1]]))
    }

    pub(crate) fn body(&self) -> &[u8] {
        &self.payload[self.head()..]
    }

    pub(crate) fn id(&self) -> &[u8] {
        &self.payload[..16]
    }
}

/// How bytes are cut on their way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Weather {
    Whole,
    ByteByByte,
    Random(u64),
}

thread_local! {
    static WEATHER: RefCell<Weather> = const { RefCell::new(Weather::Whole) };
}

/// Runs a script in each weather.
pub(crate) fn weathers(script: impl Fn()) {
    for weather in [Weather::Whole, Weather::ByteByByte, Weather::Random(1), Weather::Random(2)] {
        WEATHER.set(weather);
        eprintln!("in weather {weather:?}");
        script();
    }
}

/// A broker and its clients.
#[derive(Clone)]
pub(crate) struct World {
    inner: Rc<RefCell<world::World>>,
    rng: Rc<RefCell<Rng>>,
    weather: Weather,
}

impl World {
    pub(crate) fn one_core(limits: Limits) -> World {
        World::cores(1, limits, Vec::new())
    }

    pub(crate) fn cores(cores: u16, limits: Limits, channels: Vec<Channel>) -> World {
        World::forwarding(cores, limits, channels, Vec::new(), 0)
    }

    pub(crate) fn forwarding(
        cores: u16,
        limits: Limits,
        channels: Vec<Channel>,
        routes: Vec<Route>,
        tap_bytes: usize,
    ) -> World {
        let options = Options {
            core: 0,
            cores,
            server: uuid::Uuid::from_u128(9),
            seed: 7,
            secret: 11,
            limits,
            channels,
            copy_below: 64,
            routes,
            tap_bytes,
            access: Default::default(),
            meters: 8,
        };
        let weather = WEATHER.with_borrow(|weather| *weather);
        let seed = if let Weather::Random(seed) = weather { seed } else { 0 };
        World {
            inner: Rc::new(RefCell::new(world::World::new(&options))),
            rng: Rc::new(RefCell::new(Rng::new(seed))),
            weather,
        }
    }

    /// Lets everything happen that can happen now.
    pub(crate) fn settle(&self) {
        let mut world = self.inner.borrow_mut();
        match self.weather {
            Weather::Whole => {
                world.settle(usize::MAX);
            }
            Weather::ByteByByte => {
                world.settle(1);
            }
            Weather::Random(_) => {
                for _ in 0..20 {
                    let piece = self.rng.borrow_mut().range(1, 60);
                    world.settle_once(piece);
                    world.check();
                }
                let piece = self.rng.borrow_mut().range(20, 2000);
                world.settle(piece);
            }
        }
        world.check();
    }

    /// The clock goes on; what is due happens on the way.
    pub(crate) fn advance(&self, duration: Duration) {
        let until = self.inner.borrow().now + duration;
        loop {
            let next = self.inner.borrow().next_deadline();
            let now = self.inner.borrow().now;
            match next {
                Some(at) if at <= until => self.inner.borrow_mut().now = at.max(now),
                _ => break,
            }
            self.settle();
            let stuck = self.inner.borrow().next_deadline();
            assert!(stuck.is_none_or(|at| at > next.unwrap()) || next.unwrap() > now, "a deadline that stays due");
        }
        self.inner.borrow_mut().now = until;
        self.settle();
    }

    pub(crate) fn drain(&self) {
        let mut world = self.inner.borrow_mut();
        let now = world.now;
        for shard in &mut world.shards {
            shard.core.drain(now);
        }
        drop(world);
        self.settle();
    }

    pub(crate) fn is_drained(&self) -> bool {
        self.inner.borrow().shards.iter().all(|shard| shard.core.is_drained())
    }

    /// Ends everything at once.
    pub(crate) fn abort(&self) {
        let mut world = self.inner.borrow_mut();
        let now = world.now;
        for shard in &mut world.shards {
            shard.core.abort(now);
        }
        drop(world);
        self.settle();
    }

    /// A connection the listener refuses.
    pub(crate) fn refuse(&self, why: Refused) -> Client {
        let mut world = self.inner.borrow_mut();
        let sock = world.connect(0);
        let key = world.socks[sock].key;
        world.shards[0].core.refuse(key, why);
        drop(world);
        self.settle();
        Client { world: self.clone(), sock, rx: Rc::default() }
    }

    /// Changes how each core's companion behaves.
    pub(crate) fn companion(&self, change: impl Fn(&mut Companion)) {
        self.inner.borrow_mut().shards.iter_mut().for_each(|shard| change(&mut shard.companion));
    }

    /// What was copied whole, core by core.
    pub(crate) fn copies(&self) -> Vec<Copy> {
        self.inner.borrow().shards.iter().flat_map(|shard| shard.companion.whole.clone()).collect()
    }

    /// Copies that ended in ABORT.
    pub(crate) fn aborted(&self) -> u64 {
        self.inner.borrow().shards.iter().map(|shard| shard.companion.aborted).sum()
    }

    /// By producer: messages not copied for want of room, and because its queue was full, on the first core.
    pub(crate) fn dropped(&self) -> Vec<(u64, u64)> {
        let shards = &self.inner.borrow().shards;
        shards[0].core.tap_dropped().iter().map(|drops| (drops.no_room, drops.queue_full)).collect()
    }

    /// Receive buffers that are leased.
    pub(crate) fn leased(&self) -> usize {
        self.inner.borrow().shards.iter().map(|shard| shard.pool.leased()).sum()
    }

    pub(crate) fn held(&self) -> usize {
        self.inner.borrow().shards.iter().map(|shard| shard.core.held()).sum()
    }

    /// Requests that were shed so far, as reported to the log.
    pub(crate) fn shed(&self) -> Vec<([u8; 16], usize)> {
        let world = self.inner.borrow();
        let reports = world.shards.iter().flat_map(|shard| &shard.reports);
        let report = |action: &Action| match action {
            Action::ReportShed { id, bytes, .. } => Some((*id, *bytes)),
            _ => None,
        };
        reports.filter_map(report).collect()
    }

    /// Has all cores report requests' ends from now on.
    pub(crate) fn watch(&self, watch: corelay::broker::core::Watch) {
        self.inner.borrow_mut().shards.iter_mut().for_each(|shard| shard.core.watch(watch));
    }

    /// Requests whose end was reported so far.
    pub(crate) fn ended(&self) -> Vec<corelay::broker::core::Ended> {
        let world = self.inner.borrow();
        let reports = world.shards.iter().flat_map(|shard| &shard.reports);
        let ended = |action: &Action| if let Action::Ended(ended) = action { Some((**ended).clone()) } else { None };
        reports.filter_map(ended).collect()
    }

    /// Connections the broker was reported to have ended so far: role, code and text.
    pub(crate) fn expelled(&self) -> Vec<(&'static str, Code, String)> {
        let world = self.inner.borrow();
        let reports = world.shards.iter().flat_map(|shard| &shard.reports);
        let expelled = |action: &Action| match action {
            Action::Expelled(expelled) => Some((expelled.role, expelled.code, expelled.text.clone())),
            _ => None,
        };
        reports.filter_map(expelled).collect()
    }

    /// What was timed on all cores and channels.
    pub(crate) fn timed(&self) -> corelay::broker::core::Meter {
        let mut sum = corelay::broker::core::Meter::default();
        self.inner.borrow().shards.iter().for_each(|shard| sum.add(&shard.core.meters_sum_from(0).0));
        sum
    }

    pub(crate) fn counters(&self) -> corelay::broker::core::Counters {
        self.inner.borrow().shards[0].core.counters().clone()
    }

    /// A connection that has said nothing.
    pub(crate) fn connect(&self) -> Client {
        self.connect_to(0)
    }

    pub(crate) fn connect_to(&self, core: usize) -> Client {
        let sock = self.inner.borrow_mut().connect(core);
        self.settle();
        Client { world: self.clone(), sock, rx: Rc::default() }
    }

    pub(crate) fn consumer(&self, channel: &str) -> Client {
        self.consumer_with(channel, 65_536)
    }

    pub(crate) fn consumer_with(&self, channel: &str, window: u32) -> Client {
        let client = self.connect();
        client.hello(hello(Role::Consumer, channel, window, 0));
        client
    }

    pub(crate) fn provider(&self, channel: &str, max_concurrent: u32) -> Client {
        self.provider_with(channel, max_concurrent, 65_536)
    }

    pub(crate) fn provider_with(&self, channel: &str, max_concurrent: u32, window: u32) -> Client {
        let client = self.connect();
        client.hello(hello(Role::Provider, channel, window, max_concurrent));
        client
    }

    /// Everybody leaves, and nothing may be left behind.
    pub(crate) fn finish(&self) {
        for sock in &mut self.inner.borrow_mut().socks {
            sock.fin = true;
            sock.room = usize::MAX;
        }
        for _ in 0..4 {
            self.settle();
            self.advance(Duration::from_secs(40));
        }
        self.inner.borrow().check_empty();
    }
}

/// A HELLO.
pub(crate) fn hello(role: Role, channel: &str, window: u32, max_concurrent: u32) -> Hello {
    Hello {
        version: VERSION,
        role,
        features: 0,
        channel: ChannelId::named(channel),
        client: uuid::Uuid::from_u128(5),
        window,
        max_concurrent,
        token: Default::default(),
        name: "script".into(),
    }
}

/// One end of a connection.
pub(crate) struct Client {
    world: World,
    pub(crate) sock: usize,
    rx: Rc<RefCell<Vec<u8>>>,
}

impl Client {
    fn with<T>(&self, what: impl FnOnce(&mut world::Sock) -> T) -> T {
        what(&mut self.world.inner.borrow_mut().socks[self.sock])
    }

    pub(crate) fn send(&self, frame: Frame) {
        self.send_bytes(&frame.encode());
    }

    pub(crate) fn send_bytes(&self, bytes: &[u8]) {
        self.with(|sock| sock.up.extend(bytes));
        self.world.settle();
    }

    /// Puts a frame into the socket, and no more.
    pub(crate) fn send_later(&self, frame: Frame) {
        self.with(|sock| sock.up.extend(frame.encode()));
    }

    pub(crate) fn send_hello(&self, hello: Hello) {
        self.send(hello_frame(hello));
    }

    /// Sends HELLO and reads WELCOME.
    pub(crate) fn hello(&self, hello: Hello) -> Welcome {
        self.send_hello(hello);
        self.welcome()
    }

    pub(crate) fn welcome(&self) -> Welcome {
        let seen = self.next().expect("WELCOME");
        assert_eq!((seen.header.frame_type(), seen.header.stream), (Some(FrameType::Welcome), 0), "{seen:?}");
        Welcome::decode(&seen.payload).unwrap()
    }

    /// The next frame, if one has come whole.
    pub(crate) fn next(&self) -> Option<Seen> {
        self.world.settle();
        let mut rx = self.rx.borrow_mut();
        self.with(|sock| rx.extend(sock.down.drain(..)));
        let header = Header::decode(rx.first_chunk::<HEADER_LEN>()?);
        let end = HEADER_LEN + header.length as usize;
        let payload = rx.get(HEADER_LEN..end)?.to_vec();
        rx.drain(..end);
        drop(rx);
        self.world.settle();
        Some(Seen { header, payload })
    }

    /// Makes a frame that was read the next one again.
    pub(crate) fn put_back(&self, seen: &Seen) {
        let mut rx = self.rx.borrow_mut();
        let mut bytes = seen.header.encode().to_vec();
        bytes.extend(&seen.payload);
        bytes.extend(rx.iter());
        *rx = bytes;
    }

    /// The next frame must be this one: type, stream, flags, code and body; `arg`, request id and the text of an
    /// ERROR where given. A body may come in parts.
    pub(crate) fn expect(&self, expected: Frame) -> Seen {
        let Some(mut seen) = self.next() else { panic!("nothing came, expected {expected:?}") };
        let kind = seen.header.frame_type();
        let what = || format!("\n     got {seen:?}\nexpected {expected:?}");
        assert_eq!(kind, expected.header.frame_type(), "type: {}", what());
        assert_eq!(seen.header.stream, expected.header.stream, "stream: {}", what());
        assert_eq!(seen.header.code, expected.header.code, "code: {}", what());
        assert!(!expected.arg_given || seen.header.arg == expected.header.arg, "arg: {}", what());
        let has_body = matches!(kind, Some(FrameType::Request | FrameType::Response | FrameType::Data));
        if let (Some(id), Some(FrameType::Request)) = (expected.id, kind) {
            assert_eq!(seen.id(), id, "request id: {}", what());
        }
        if !expected.block.is_empty() {
            let at = seen.head() - expected.block.len();
            assert_eq!(seen.payload[at..seen.head()], expected.block, "header block: {}", what());
        }
        if has_body {
            // frame boundaries are not preserved: the rest may follow in DATA
            let mut body = seen.body().to_vec();
            let mut flags = seen.header.flags;
            while body.len() < expected.body.len()
                || expected.header.flags.has(Flags::END) && !flags.has(Flags::END) && body == expected.body
            {
                let Some(more) = self.next() else { break };
                assert_eq!(more.header.frame_type(), Some(FrameType::Data), "in parts: {more:?}, {}", what());
                assert_eq!(more.header.stream, seen.header.stream, "in parts: {more:?}, {}", what());
                body.extend(&more.payload);
                flags = flags | more.header.flags;
            }
            assert_eq!(body, expected.body, "body: {}", what());
            assert_eq!(flags, expected.header.flags, "flags: {}", what());
            seen.header.flags = flags;
        } else {
            assert_eq!(seen.header.flags, expected.header.flags, "flags: {}", what());
            assert!(!expected.body_given || seen.payload == expected.body, "text: {}", what());
        }
        seen
    }

    /// The next frame is CREDIT on this stream; says how much it grants.
    pub(crate) fn expect_credit(&self, stream: u32) -> u32 {
        self.expect(frame(FrameType::Credit, stream)).header.arg
    }

    /// CREDIT on this stream, as often as it takes to make `n` bytes.
    pub(crate) fn expect_credits(&self, stream: u32, n: u32) {
        let mut granted = 0;
        while granted < n {
            granted += self.expect_credit(stream);
        }
        assert_eq!(granted, n, "granted in all");
    }

    /// Nothing has come, and the connection is open.
    pub(crate) fn expect_nothing(&self) {
        let next = self.next();
        assert!(next.is_none(), "expected nothing, got {next:?}");
        assert!(self.rx.borrow().is_empty(), "a frame came in part");
        assert!(!self.with(|sock| sock.is_over()), "the broker closed");
    }

    /// The broker closes, with nothing more to read.
    pub(crate) fn expect_closed(&self) {
        let next = self.next();
        assert!(next.is_none(), "expected the end, got {next:?}");
        assert!(self.rx.borrow().is_empty(), "closed in the middle of a frame");
        assert!(self.with(|sock| sock.is_over()), "the connection is open");
        self.close();
        assert!(self.with(|sock| sock.gone), "the broker keeps the connection after both sides are shut");
    }

    /// ERROR on stream 0, then the end.
    pub(crate) fn expect_failed(&self, code: Code) {
        self.expect(error(0, code));
        self.expect_closed();
    }

    pub(crate) fn is_open(&self) -> bool {
        !self.with(|sock| sock.is_over())
    }

    /// The broker has shut its side, and waits for this one.
    pub(crate) fn expect_held(&self) {
        assert!(self.with(|sock| sock.shut && !sock.gone), "the connection is not being closed");
    }

    /// The broker has closed for good; what it sent before may still arrive.
    pub(crate) fn expect_gone(&self) {
        assert!(self.with(|sock| sock.gone && !sock.aborted), "the connection was kept, or aborted");
    }

    /// The broker has dropped the connection without a word.
    pub(crate) fn expect_aborted(&self) {
        assert!(self.with(|sock| sock.gone && sock.aborted), "the connection was not aborted");
    }

    /// Closes this end.
    pub(crate) fn close(&self) {
        self.with(|sock| sock.fin = true);
        self.world.settle();
    }

    /// Reads no more: the broker's kernel takes `room` bytes beyond what was read so far.
    pub(crate) fn stall(&self, room: usize) {
        self.with(|sock| sock.room = sock.down.len() + room);
    }

    /// Reads again.
    pub(crate) fn resume(&self) {
        self.with(|sock| sock.room = usize::MAX);
        self.world.settle();
    }

    /// Reads up to `n` bytes off a stalled socket.
    pub(crate) fn sip(&self, n: usize) {
        let mut rx = self.rx.borrow_mut();
        self.with(|sock| {
            let n = n.min(sock.down.len());
            rx.extend(sock.down.drain(..n));
        });
        drop(rx);
        self.world.settle();
    }
}
