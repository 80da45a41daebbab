//! What is told of single events, for logs and traces: requests that ended, connections that were ended.
//!
//! The core only says what happened; whoever drives it decides what becomes of that. While nobody watches, an ending
//! request costs one look at a flag here, and no header block is looked into.

use std::fmt;

use super::conn::{Conn, Side};
use super::{Action, Core};
use crate::base::{ChannelId, Key};
use crate::protocol::{Code, TraceParent};

/// Which requests' ends are reported ([`Action::Ended`]). By default none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Watch {
    /// Those that took so many nanoseconds or more.
    pub slower: Option<u64>,
    /// Those whose `traceparent` says that their trace is recorded.
    pub sampled: bool,
}

impl Watch {
    fn is_on(self) -> bool {
        self.slower.is_some() || self.sampled
    }
}

/// A request has ended, as its consumer's core saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// The request's id.
    pub id: [u8; 16],
    /// Its channel.
    pub channel: ChannelId,
    /// How it ended.
    pub outcome: Outcome,
    /// Nanoseconds from REQUEST to its end.
    pub nanos: u64,
    /// Its `traceparent`, where it had one.
    pub trace: Option<TraceParent>,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Its answer was staged whole.
    Answered,
    /// It was one-way, and was confirmed.
    Oneway,
    /// With this ERROR.
    Failed(Code),
    /// Its consumer's connection ended first.
    ConsumerLost,
}

impl Outcome {
    /// In one word: `answered`, `oneway`, `CONSUMER_LOST`, or the code's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Outcome::Answered => "answered",
            Outcome::Oneway => "oneway",
            Outcome::Failed(code) => code.name(),
            Outcome::ConsumerLost => Code::ConsumerLost.name(),
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The broker ended a connection with an ERROR, for what its peer did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expelled {
    /// The peer's address.
    pub peer: String,
    /// What the client calls itself; empty before HELLO.
    pub name: String,
    /// Its role, as [`ConnSnapshot::role`](super::ConnSnapshot::role) has it.
    pub role: &'static str,
    /// The ERROR's code.
    pub code: Code,
    /// The ERROR's text.
    pub text: String,
}

impl Core {
    /// Says which requests' ends to report from now on. Those under way are reported without their trace, where
    /// nothing was watched when they came.
    pub fn watch(&mut self, watch: Watch) {
        if !watch.is_on() {
            self.traces.clear();
        }
        self.watching = watch.is_on();
        self.watch = watch;
    }

    /// Keeps the `traceparent` of a request just entered, if somebody watches.
    pub(super) fn note_trace(&mut self, request: Key, block: &[u8], hops: u8) {
        // its entry is within REQUEST_STATE
        if self.watching && hops == 0 && !block.is_empty() {
            self.keep_trace(request, block);
        }
    }

    #[cold]
    fn keep_trace(&mut self, request: Key, block: &[u8]) {
        if let Some(trace) = TraceParent::find(&block[2..]) {
            self.traces.insert(request, trace);
        }
    }

    /// A request of a consumer here is about to end; it is still in the table.
    #[inline]
    pub(super) fn note_end(&mut self, request: Key, outcome: Outcome) {
        if self.watching {
            self.report_end(request, outcome);
        }
    }

    #[cold]
    fn report_end(&mut self, request: Key, outcome: Outcome) {
        let trace = self.traces.remove(&request);
        let state = self.requests.get(request).expect("looked up by the caller");
        // what crossed cores is reported where its consumer is; a confirmed one-way request was reported then
        if state.hops == 0 && state.consumer.is_some() {
            let (id, channel, nanos) = (state.id, state.channel, state.age(self.now));
            self.report(Ended { id, channel: self.channels[channel as usize].id, outcome, nanos, trace });
        }
    }

    /// A request was refused before it was entered.
    #[inline]
    pub(super) fn note_refused(&mut self, id: [u8; 16], block: &[u8], channel: u32, hops: u8, code: Code) {
        if self.watching && hops == 0 {
            let trace = block.get(2..).and_then(TraceParent::find);
            let channel = self.channels[channel as usize].id;
            self.report(Ended { id, channel, outcome: Outcome::Failed(code), nanos: 0, trace });
        }
    }

    fn report(&mut self, ended: Ended) {
        let slow = self.watch.slower.is_some_and(|least| ended.nanos >= least);
        let sampled = self.watch.sampled && ended.trace.is_some_and(|trace| trace.is_sampled());
        if slow || sampled {
            self.actions.push_back(Action::Ended(Box::new(ended)));
        }
    }

    /// A request leaves the table, reported or not.
    #[inline]
    pub(super) fn forget_trace(&mut self, request: Key) {
        if !self.traces.is_empty() {
            self.traces.remove(&request);
        }
    }

    /// The broker ends this connection for what its peer did.
    pub(super) fn note_expelled(&mut self, conn: Key, code: Code, text: &str) {
        let Some(conn) = self.conns.get(conn) else { return };
        let expelled = Expelled {
            peer: conn.info.peer.clone(),
            name: conn.info.name.clone(),
            role: conn.role(),
            code,
            text: text.to_owned(),
        };
        self.actions.push_back(Action::Expelled(Box::new(expelled)));
    }
}

impl Conn {
    /// What it is, for people.
    pub(super) fn role(&self) -> &'static str {
        match self.side {
            Side::Consumer => "consumer",
            Side::Provider => "provider",
            _ => "handshake",
        }
    }
}
