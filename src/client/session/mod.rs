//! One connection's protocol state, for either role. Pure: bytes and the time go in, bytes to write and wakers to
//! wake come out. No socket, no clock, no task.
//!
//! ```text
//!   received bytes ─► parser ─► receive ─► streams ◄─ user (open, read, cancel) / answer (respond, fail)
//!                                 │           │
//!                              control      ready          control frames leave first, then bodies in turn
//!                                 └─► fill ◄──┘ ─► bytes to write
//! ```
//!
//! Invariants:
//! - A stream id is in use from its REQUEST until both directions have ended on the wire (§3).
//! - Nothing is written on a stream after this side's last frame there: END, CANCEL or ERROR; no CREDIT either.
//! - Body bytes written never exceed the credit granted; bytes held for a reader never exceed one window.
//! - `receive` never refuses bytes: what holds a sender back is credit alone.

mod answer;
mod chunks;
mod clock;
mod credit;
mod end;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod ids;
mod outgoing;
mod parser;
mod receive;
mod short;
mod stream;
mod streams;
#[cfg(test)]
mod tests;
mod user;

use std::collections::VecDeque;
use std::task::Waker;

pub(crate) use answer::{Answer, Arrival, Taken};
pub(crate) use chunks::Chunks;
use clock::{Keepalive, Ping};
pub(crate) use end::{Cause, End, Failure, Origin, Source};
use ids::StreamIds;
use parser::{Bodies, Parser};
use stream::Stream;
use streams::Streams;
pub(crate) use user::{Begun, Flow, Limit, NewRequest};

use crate::base::{Key, Time};
use crate::protocol::{BadHandshake, Code, FrameType, Header, Hello, Role, Welcome};

/// Whether this side has said that it leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leaving {
    No,
    /// GOAWAY goes out when every REQUEST before it has.
    Wanted,
    Said,
}

/// The state of one connection.
#[derive(Debug)]
pub(crate) struct Session {
    role: Role,
    window: u32,
    parser: Parser,
    bodies: Bodies,
    welcome: Option<Welcome>,
    ids: StreamIds,
    streams: Streams,
    /// Streams with a frame to write, in turn.
    ready: VecDeque<Key>,
    control: Vec<u8>,
    /// Consumer: whole REQUESTs, to leave behind the control frames.
    staged: Vec<u8>,
    /// PONGs in `control`.
    pongs: usize,
    /// Bytes handed out to be written, bytes the transport took, and bytes it may have taken by now.
    encoded: u64,
    written: u64,
    may_have_left: u64,
    /// Consumer: requests whose REQUEST has not been written.
    unopened: usize,
    /// Consumer: requests not over on the wire. Provider: requests without a terminal frame.
    open: usize,
    /// Consumer: requests over on the wire since [`Session::take_freed`].
    freed: usize,
    /// Provider: requests nobody has been told of yet.
    arrivals: VecDeque<Arrival>,
    /// Provider: when requests came that have been answered since.
    spans: Vec<Time>,
    lost: u64,
    wakes: Vec<Waker>,
    leaving: Leaving,
    broker_leaves: bool,
    keepalive: Keepalive,
    pings: Vec<Ping>,
    last_ping: u64,
    /// Requests whose limit counts from the next turn.
    undated: Vec<Key>,
    /// No stream's deadline is earlier.
    next_deadline: Time,
    /// The bound has moved, and whoever keeps the timer doesn't know.
    earlier: bool,
    end: Option<End>,
}

impl Session {
    /// A session that begins with this HELLO.
    ///
    /// # Errors
    /// Where token and name don't fit.
    pub(crate) fn new(hello: &Hello) -> Result<Session, BadHandshake> {
        let mut control = Vec::new();
        hello.encode(&mut control)?;
        Ok(Session {
            role: hello.role,
            window: hello.window,
            parser: Parser::new(hello.role),
            bodies: Bodies::default(),
            welcome: None,
            ids: StreamIds::default(),
            streams: Streams::default(),
            ready: VecDeque::new(),
            control,
            staged: Vec::new(),
            pongs: 0,
            encoded: 0,
            written: 0,
            may_have_left: 0,
            unopened: 0,
            open: 0,
            freed: 0,
            arrivals: VecDeque::new(),
            spans: Vec::new(),
            lost: 0,
            wakes: Vec::new(),
            leaving: Leaving::No,
            broker_leaves: false,
            keepalive: Keepalive::new(),
            pings: Vec::new(),
            last_ping: 0,
            undated: Vec::new(),
            next_deadline: Time::MAX,
            earlier: false,
            end: None,
        })
    }

    /// What the broker said to HELLO, once it has.
    pub(crate) fn welcome(&self) -> Option<&Welcome> {
        self.welcome.as_ref()
    }

    /// Why the connection ended, once it has.
    pub(crate) fn end(&self) -> Option<&End> {
        self.end.as_ref()
    }

    /// Whether the broker has said GOAWAY.
    pub(crate) fn broker_leaves(&self) -> bool {
        self.broker_leaves
    }

    /// Whether new requests can be opened here.
    pub(crate) fn takes_requests(&self) -> bool {
        self.end.is_none() && !self.broker_leaves && self.leaving == Leaving::No && self.welcome.is_some()
    }

    /// Consumer: requests not over on the wire. Provider: requests not answered.
    pub(crate) fn open(&self) -> usize {
        self.open
    }

    /// Consumer: how many requests were over on the wire since the last call.
    pub(crate) fn take_freed(&mut self) -> usize {
        std::mem::take(&mut self.freed)
    }

    /// Whether nobody is to be told of anything: no handle waits for what has happened, and the connection goes on.
    #[inline]
    pub(crate) fn is_quiet(&self) -> bool {
        self.wakes.is_empty() && self.freed == 0 && self.takes_requests()
    }

    /// Whom to wake: what they wait for has happened.
    #[inline]
    pub(crate) fn take_wakes(&mut self) -> Vec<Waker> {
        std::mem::take(&mut self.wakes)
    }

    /// An empty buffer for the next wakers, so that each burst needs no new one.
    pub(crate) fn keep_buffer(&mut self, empty: Vec<Waker>) {
        if self.wakes.capacity() < empty.capacity() && self.wakes.is_empty() {
            self.wakes = empty;
        }
    }

    /// How many handles have something to do since [`Session::take_wakes`] and [`Session::take_arrivals`].
    pub(crate) fn news(&self) -> usize {
        self.wakes.len() + self.arrivals.len()
    }

    /// Says GOAWAY, behind every REQUEST opened before.
    pub(crate) fn leave(&mut self) {
        if self.leaving == Leaving::No {
            self.leaving = Leaving::Wanted;
            self.say_goaway();
        }
    }

    /// Says GOAWAY, if that is wanted and no REQUEST is still to come before it.
    fn say_goaway(&mut self) {
        let all_left = self.unopened == 0 && self.staged.is_empty();
        if self.leaving == Leaving::Wanted && all_left && self.end.is_none() {
            self.leaving = Leaving::Said;
            self.control.extend_from_slice(&Header::new(FrameType::GoAway, 0).code(Code::Draining).encode());
        }
    }

    /// Ends the connection: every request fails, and only what is in `control` is still written. Returns at once
    /// where it has ended already.
    pub(crate) fn shut(&mut self, end: End) {
        if self.end.is_some() {
            return;
        }
        if let Origin::Found(code) = end.origin {
            self.push_error(0, code, &end.text);
        }
        self.end = Some(end);
        self.lost += 1;
        self.ready.clear();
        self.staged.clear();
        self.undated.clear();
        let keys: Vec<Key> = self.streams.iter().map(|(key, _)| key).collect();
        for key in keys {
            self.fail_with_connection(key);
        }
        self.unopened = 0;
        self.open = 0;
        self.pings.iter_mut().for_each(|ping| self.wakes.extend(ping.waker.take()));
        self.next_deadline = Time::MAX;
    }

    fn fail_with_connection(&mut self, key: Key) {
        let (consumer, left) = (self.role == Role::Consumer, self.may_have_left);
        let Some(stream) = self.streams.get_mut(key) else { return };
        let left_here = stream.id != 0 && stream.opened_at < left;
        if !stream.over_on_wire() && stream.failure.is_none() && !(consumer && stream.recv.ended) {
            stream.failure = Some(Box::new(Failure::connection(consumer && left_here)));
        }
        stream.recv.ended = true;
        stream.stop_sending();
        wake_all(stream, &mut self.wakes);
        if stream.handles == 0 {
            self.streams.remove(key);
        }
    }

    /// To be called when either direction of a stream has ended.
    fn after_end(&mut self, key: Key) {
        let Some(stream) = self.streams.get_mut(key) else { return };
        if !stream.over_on_wire() {
            return;
        }
        let id = std::mem::take(&mut stream.id);
        if id != 0 {
            self.ids.release(id);
        }
        if self.role == Role::Consumer {
            self.open -= 1;
            self.freed += 1;
        }
        if stream.handles == 0 {
            self.streams.remove(key);
        }
    }

    fn push_error(&mut self, stream: u32, code: Code, text: &str) {
        let text = crate::protocol::clip_text(text);
        let header = Header::new(FrameType::Error, stream).code(code).length(text.len() as u32);
        self.control.extend_from_slice(&header.encode());
        self.control.extend_from_slice(text.as_bytes());
    }
}

/// Everyone who waits for something on this stream.
fn wake_all(stream: &mut Stream, wakes: &mut Vec<Waker>) {
    wakes.extend(stream.reader.take());
    if let Some(more) = &mut stream.more {
        wakes.extend(more.writer.take());
        wakes.append(&mut more.watchers);
    }
}

/// Keeps the waker of `cx` in `slot`.
fn park(slot: &mut Option<Waker>, cx: &std::task::Context<'_>) {
    match slot {
        Some(waker) => waker.clone_from(cx.waker()),
        None => *slot = Some(cx.waker().clone()),
    }
}
