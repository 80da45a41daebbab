//! A session under any bytes from its broker and any acts of its user, in any order: nothing panics, nothing it says
//! breaks the protocol, and nothing is left when all handles are gone.
//!
//! The input is a [script](script::Script).

/// Shared with the targets that need no more than what the crate shows.
#[path = "../../../tests/fuzz/targets/script.rs"]
mod script;

use std::collections::{HashMap, VecDeque};
use std::task::{Context, Waker};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use uuid::Uuid;

use self::script::Script;
use super::{Answer, Arrival, Begun, End, Failure, Limit, NewRequest, Session, Taken};
use crate::base::{ChannelId, Key, Time};
use crate::protocol::{
    Code, Flags, FrameType, HEADER_LEN, Header, Hello, MAX_HANDSHAKE_FRAME, Role, VERSION, Welcome, encode_headers,
};

/// Streams the broker of the script allows.
const MAX_STREAMS: u32 = 6;
const MAX_FRAME: u32 = 300;

/// Runs the script `data`.
///
/// # Panics
/// If the session breaks a rule.
#[allow(unreachable_pub)] // with the feature `fuzzing` it is reached
pub fn session(data: &[u8]) {
    let mut script = Script { left: data };
    let role = if script.byte().is_multiple_of(2) { Role::Consumer } else { Role::Provider };
    let mut play = Play::new(role, script.byte());
    if !script.byte().is_multiple_of(4) {
        play.welcome(&mut script);
    }
    while !script.left.is_empty() {
        play.step(&mut script);
    }
    play.end();
}

/// The handles of a stream.
#[derive(Clone, Copy, Debug)]
struct Handle {
    key: Key,
    reads: bool,
    writes: bool,
    begun: bool,
}

struct Play {
    session: Session,
    role: Role,
    now: Time,
    input: BytesMut,
    handles: Vec<Handle>,
    pings: Vec<u64>,
    /// Filled, not taken by the transport.
    unwritten: usize,
    said: Said,
}

impl Play {
    fn new(role: Role, window: u8) -> Play {
        let hello = Hello {
            version: VERSION,
            role,
            features: 0,
            channel: ChannelId::NIL,
            client: Uuid::nil(),
            window: 1 + u32::from(window) * 4,
            max_concurrent: u32::from(role == Role::Provider) * MAX_STREAMS,
            token: Default::default(),
            name: String::new(),
        };
        let session = Session::new(&hello).expect("nothing in it is too long");
        let said = Said {
            role,
            max_frame: MAX_HANDSHAKE_FRAME,
            sending: HashMap::new(),
            goodbye: false,
            leaves: false,
            first: true,
        };
        let (input, handles, pings) = (BytesMut::new(), Vec::new(), Vec::new());
        Play { session, role, now: Time::ZERO, input, handles, pings, unwritten: 0, said }
    }

    fn receive(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
        self.session.receive(&mut self.input, self.now);
    }

    fn welcome(&mut self, script: &mut Script<'_>) {
        let welcome = Welcome {
            version: VERSION,
            core: 0,
            cores: 1,
            features: 0,
            server: Uuid::nil(),
            window: u32::from(script.byte()) * 2,
            max_frame: MAX_FRAME,
            max_streams: MAX_STREAMS,
            keepalive_ms: 1000,
            default_timeout_ms: 0,
        };
        let mut frame = Vec::new();
        welcome.encode(&mut frame);
        self.receive(&frame);
    }

    fn step(&mut self, script: &mut Script<'_>) {
        match script.byte() % 16 {
            0..=3 => self.frame(script),
            4 => {
                let bytes = script.bytes(60);
                self.receive(bytes);
            }
            5 => self.welcome(script),
            6 | 7 => {
                self.session.date(self.now);
                self.write(script.byte());
            }
            8 => {
                self.now = self.now + Duration::from_millis(u64::from(script.byte()) * 20);
                let due = self.session.next_time();
                self.session.on_time(self.now);
                assert!(due > self.now || self.session.next_time() != due, "due at {due:?} for ever");
            }
            9 => self.open(script),
            10 => self.read(script.byte()),
            11 => self.send(script),
            12 => self.let_go(script),
            13 => self.ping(script.byte()),
            14 => {
                if script.byte().is_multiple_of(8) {
                    self.session.leave();
                }
                self.session.end_if_done();
            }
            _ => self.answer(script),
        }
        self.take();
        assert!(self.session.open() <= self.handles.len() + self.session.streams.iter().count());
    }

    /// A frame that may belong there, cut in two.
    fn frame(&mut self, script: &mut Script<'_>) {
        let kind = script.byte();
        let kind = if kind < 250 { kind % 12 } else { kind };
        let [flags, code, stream, arg] = [(); 4].map(|()| script.byte());
        let payload = script.bytes(80);
        let prefix = if kind == FrameType::Request as u8 && arg % 8 != 0 { 16 } else { 0 };
        // a PING's or a REQUEST's head is whole most of the time
        let payload = [&[7; 16][..prefix], payload].concat();
        let header = Header {
            length: payload.len() as u32,
            kind,
            flags: Flags(flags),
            code: u16::from(code % 20),
            stream: u32::from(stream % 8),
            arg: if arg == 255 { u32::MAX } else { u32::from(arg) },
        };
        let bytes = [&header.encode()[..], &payload].concat();
        let cut = usize::from(script.byte()).min(bytes.len());
        self.receive(&bytes[..cut]);
        self.receive(&bytes[cut..]);
    }

    /// Looks at all that is to be written, and has the transport take some of it.
    fn write(&mut self, share: u8) {
        let mut out = Vec::new();
        self.session.fill(&mut out);
        self.said.check(&out, self.session.welcome().is_some());
        self.unwritten += out.len();
        self.session.write_begins();
        let taken = self.unwritten * usize::from(share) / 255;
        self.unwritten -= taken;
        self.session.wrote(taken, self.unwritten > 0, self.now);
    }

    fn handle(&mut self, choice: u8) -> Option<&mut Handle> {
        let n = self.handles.len();
        self.handles.get_mut(usize::from(choice).checked_rem(n)?)
    }

    fn open(&mut self, script: &mut Script<'_>) {
        let most = self.session.welcome().map_or(0, |welcome| welcome.max_streams) as usize;
        if self.role == Role::Provider || self.session.open() >= most {
            return;
        }
        let [flags, timeout] = [script.byte(), script.byte()];
        let mut block = Vec::new();
        if flags & Flags::HEADERS.0 != 0 {
            encode_headers([("a", "b")], &mut block).expect("short enough");
        }
        let span = Duration::from_millis(u64::from(timeout) * 30);
        let request = NewRequest {
            id: Uuid::from_u128(flags.into()),
            flags: Flags(flags & (Flags::WAIT.0 | Flags::ONEWAY.0 | Flags::RETRY.0)),
            timeout_ms: timeout.into(),
            limit: if timeout % 2 == 0 { Limit::At(self.now + span) } else { Limit::After(span.as_nanos() as u64) },
            block: &block,
            body: &Bytes::copy_from_slice(script.bytes(200)),
            whole: flags & Flags::END.0 != 0,
            waiter: Some(Waker::noop()),
        };
        let whole = request.whole;
        if let Some(key) = self.session.open_request(&request) {
            self.handles.push(Handle { key, reads: true, writes: !whole, begun: true });
        }
    }

    fn read(&mut self, choice: u8) {
        let cx = Context::from_waker(Waker::noop());
        let Some(&mut Handle { key, reads, .. }) = self.handle(choice) else { return };
        if !reads {
            return;
        }
        if self.role == Role::Consumer && self.session.poll_begin(key, &cx, &mut Begun::default()).is_pending() {
            return;
        }
        let _ = self.session.poll_chunk(key, &cx);
    }

    fn send(&mut self, script: &mut Script<'_>) {
        let cx = Context::from_waker(Waker::noop());
        let choice = script.byte();
        let Some(&mut Handle { key, writes, begun, .. }) = self.handle(choice) else { return };
        if !writes || !begun {
            return;
        }
        let _ = match script.byte() % 4 {
            0 => {
                self.handle(choice).expect("it was there").writes = self.role == Role::Provider;
                self.session.finish_body(key)
            }
            _ => self.session.push_body(key, Bytes::copy_from_slice(script.bytes(250))),
        };
        let _ = self.session.poll_room(key, 10, &cx);
        let _ = self.session.poll_unwanted(key, &cx);
    }

    /// Handles are dropped, as they are by a user who has had enough.
    fn let_go(&mut self, script: &mut Script<'_>) {
        let n = self.handles.len();
        let Some(at) = usize::from(script.byte()).checked_rem(n) else { return };
        let handle = self.handles.swap_remove(at);
        if self.role == Role::Consumer && script.byte().is_multiple_of(2) {
            self.session.give_up(handle.key, Failure::local(Code::Deadline, "given up"));
        }
        self.drop_handle(handle);
    }

    fn drop_handle(&mut self, handle: Handle) {
        if self.role == Role::Consumer {
            return self.session.release(handle.key);
        }
        if handle.reads {
            self.session.release_reader(handle.key);
        }
        if handle.writes {
            self.session.fail_request(handle.key, Code::Application, "dropped");
            self.session.release_writer(handle.key);
        }
    }

    fn ping(&mut self, choice: u8) {
        match choice % 3 {
            0 if self.pings.len() < 8 => self.pings.push(self.session.ping(self.now)),
            1 => {
                let pong = self.pings.pop();
                pong.into_iter().for_each(|id| self.session.forget_ping(id));
            }
            _ => {
                let cx = Context::from_waker(Waker::noop());
                for &id in &self.pings {
                    let _ = self.session.poll_pong(id, &cx);
                }
            }
        }
    }

    fn answer(&mut self, script: &mut Script<'_>) {
        let [choice, how] = [script.byte(), script.byte()];
        if self.role == Role::Consumer {
            return;
        }
        let Some(&mut Handle { key, reads, writes, begun }) = self.handle(choice) else { return };
        if !writes || begun {
            return;
        }
        if how % 5 == 0 && reads {
            if matches!(self.session.take_up(key), Taken::Whole(_)) {
                self.handle(choice).expect("it was there").reads = false;
            }
            return;
        }
        if how % 5 == 1 {
            self.session.fail_request(key, Code::Application, "no");
            self.session.release_writer(key);
            self.handle(choice).expect("it was there").writes = false;
        } else {
            let body = Bytes::copy_from_slice(script.bytes(250));
            let answer = self.session.respond(key, Vec::new(), body, how % 2 == 0);
            let handle = self.handle(choice).expect("it was there");
            handle.begun = true;
            handle.writes = answer != Answer::Taken;
        }
        self.handles.retain(|handle| handle.reads || handle.writes);
    }

    /// What a connection's task takes from its session after each event.
    fn take(&mut self) {
        drop(self.session.take_wakes());
        self.session.take_freed();
        self.session.take_earlier();
        let mut arrivals: VecDeque<Arrival> = VecDeque::new();
        self.session.take_arrivals(&mut arrivals);
        let handle = |arrival: Arrival| {
            let reads = arrival.whole.is_none();
            Handle { key: arrival.key, reads, writes: true, begun: false }
        };
        self.handles.extend(arrivals.into_iter().map(handle));
        self.session.take_spans(&mut Vec::new());
    }

    /// The connection ends, the last words are written, all handles go.
    fn end(&mut self) {
        self.session.shut(End::closed());
        self.take();
        self.write(255);
        for handle in std::mem::take(&mut self.handles) {
            self.drop_handle(handle);
        }
        assert_eq!(self.session.streams.iter().count(), 0, "streams outlive their handles and the connection");
        assert!(!self.session.wants_write() || self.session.ready.is_empty(), "a stream has something to say");
    }
}

/// What the session has said so far, held against the protocol.
struct Said {
    role: Role,
    max_frame: u32,
    /// Streams this side has opened or answers on, and whether it may send more on them.
    sending: HashMap<u32, bool>,
    goodbye: bool,
    leaves: bool,
    first: bool,
}

impl Said {
    fn check(&mut self, mut bytes: &[u8], welcomed: bool) {
        if welcomed {
            self.max_frame = MAX_FRAME;
        }
        while let Some((header, rest)) = bytes.split_first_chunk::<HEADER_LEN>() {
            let header = Header::decode(header);
            let (payload, rest) = rest.split_at_checked(header.length as usize).expect("frames are written whole");
            self.frame(&header, payload);
            bytes = rest;
        }
        assert!(bytes.is_empty(), "a header is written whole");
    }

    fn frame(&mut self, header: &Header, payload: &[u8]) {
        use FrameType::{Cancel, Credit, Data, Error, GoAway, Hello, Ping, Pong, Request, Response};
        let kind = header.frame_type().expect("a known type");
        assert_eq!(kind == Hello, std::mem::take(&mut self.first), "HELLO is the first frame, once: {header:?}");
        assert!(!self.goodbye, "{header:?} behind the connection's ERROR");
        let bodied = matches!(kind, Request | Response | Data);
        assert!(!bodied || header.length <= self.max_frame, "{header:?} is too long");
        let end = header.flags.has(Flags::END);
        match (kind, self.role) {
            (Hello | Ping | Pong | GoAway, _) => {
                assert_eq!(header.stream, 0, "{header:?}");
                self.leaves |= kind == GoAway;
            }
            (Error, _) if header.stream == 0 => self.goodbye = true,
            (Request, Role::Consumer) => {
                assert!(payload.len() >= 16, "{header:?} without a request id");
                assert!(!self.leaves, "{header:?} behind GOAWAY");
                let before = self.sending.insert(header.stream, !end);
                assert!(header.stream != 0 && before != Some(true), "{header:?} on a stream that is still sent on");
            }
            (Response, Role::Provider) => {
                self.sending.insert(header.stream, !end);
            }
            (Data, _) => {
                let open = self.sending.insert(header.stream, !end);
                assert_eq!(open, Some(true), "{header:?} on a stream that has ended");
            }
            (Cancel, Role::Consumer) | (Error, Role::Provider) => {
                let before = self.sending.insert(header.stream, false);
                assert!(self.role == Role::Provider || before.is_some(), "{header:?} ahead of its REQUEST");
            }
            (Credit, _) => assert!(header.arg > 0 && header.stream != 0, "{header:?}"),
            _ => panic!("{header:?} does not belong to a {:?}", self.role),
        }
    }
}
