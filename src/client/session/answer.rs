//! The provider's side: requests that came, and their answers.

use std::collections::VecDeque;
use std::task::{Context, Poll};

use bytes::Bytes;
use uuid::Uuid;

use super::{Chunks, End, Failure, Session, Stream, wake_all};
use crate::base::{Key, Time};
use crate::protocol::{Code, Flags, Header};

/// A request that came.
#[derive(Debug)]
pub(crate) struct Arrival {
    pub(crate) key: Key,
    pub(crate) id: Uuid,
    pub(crate) flags: Flags,
    /// Time that was left when it came, in ms.
    pub(crate) left_ms: u32,
    /// When it came.
    pub(crate) at: Time,
    /// The header block's entries. Boxed, for it is rare and large.
    pub(crate) block: Option<Box<Bytes>>,
    /// All of its body, if it came at once: nothing is left to read, and the handle that reads is gone.
    pub(crate) whole: Option<Chunks>,
    /// What [`Session::lost`] was.
    pub(crate) lost: u64,
}

/// What there is of a request when a handler takes it up.
#[derive(Debug)]
pub(crate) enum Taken {
    /// Nobody waits for its answer any more.
    Over,
    /// All of its body: nothing is left to read, and the handle that reads is gone.
    Whole(Chunks),
    /// Its body is still coming.
    Begun,
}

/// What became of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Nobody takes it.
    Closed,
    /// It waits for its turn or for credit, or for the rest of it.
    Open,
    /// It is on its way, whole; the handle that answers is gone.
    Taken,
}

impl Session {
    pub(super) fn on_request(
        &mut self,
        header: Header,
        request_id: Uuid,
        block: Option<Bytes>,
        body: Bytes,
        last: bool,
        now: Time,
    ) -> Result<(), End> {
        let window = self.welcome.as_ref().map_or(0, |welcome| welcome.window);
        let (key, stream) = self.streams.open(window, self.window, now);
        stream.id = header.stream;
        stream.recv.begun = true;
        stream.handles = 2;
        if !self.ids.claim(header.stream, key) {
            self.streams.remove(key);
            return Err(End::found(Code::Protocol, format!("REQUEST on stream {}, which is in use", header.stream)));
        }
        self.open += 1;
        let (flags, left_ms, lost, block) = (header.flags, header.arg, self.lost, block.map(Box::new));
        self.arrivals.push_back(Arrival { key, id: request_id, flags, left_ms, at: now, block, whole: None, lost });
        self.accept(key, body, last)
    }

    /// Requests that came since the last call. Each has two handles: one that reads, unless all has been read, and one
    /// that answers.
    pub(crate) fn take_arrivals(&mut self, into: &mut VecDeque<Arrival>) {
        for arrival in self.arrivals.iter_mut().filter(|arrival| arrival.whole.is_none()) {
            let Some(stream) = self.streams.get_mut(arrival.key) else { continue };
            arrival.whole = stream.take_rest();
            if arrival.whole.is_some() {
                // the handle that answers is left, so the stream stays
                stream.recv.discard = true;
                stream.handles -= 1;
            }
        }
        if into.is_empty() {
            std::mem::swap(into, &mut self.arrivals);
        } else {
            into.append(&mut self.arrivals);
        }
    }

    pub(super) fn on_cancel(&mut self, header: Header) {
        let Some(key) = self.ids.get(header.stream) else { return };
        let Some(stream) = self.streams.get_mut(key) else { return };
        stream.recv.ended = true;
        stream.recv.queue.clear();
        if !stream.send.ended {
            stream.failure.get_or_insert_with(|| Failure::cancelled(header.code).into());
            self.lost += 1;
            // The terminal frame is left to the handle that answers: until then the work goes on (§3).
            wake_all(stream, &mut self.wakes);
        }
        self.after_end(key);
    }

    /// A handler takes a request up.
    pub(crate) fn take_up(&mut self, key: Key) -> Taken {
        if self.is_over(key) {
            return Taken::Over;
        }
        match self.streams.get_mut(key).and_then(Stream::take_rest) {
            Some(body) => {
                self.release_reader(key);
                Taken::Whole(body)
            }
            None => Taken::Begun,
        }
    }

    /// Begins the answer.
    pub(crate) fn respond(&mut self, key: Key, block: Vec<u8>, body: Bytes, whole: bool) -> Answer {
        let Some(stream) = self.streams.get_mut(key) else { return Answer::Closed };
        if stream.send.ended || stream.failure.is_some() {
            return Answer::Closed;
        }
        stream.send.begun = true;
        stream.send.finished = whole;
        if whole && self.stage_answer(key, &block, &body) {
            return Answer::Taken;
        }
        let Some(stream) = self.streams.get_mut(key) else { return Answer::Closed };
        let more = stream.more();
        more.head.block = block;
        more.queue.push(body);
        self.make_ready(key);
        Answer::Open
    }

    /// When requests came whose answers have been [taken](Answer::Taken) since the last call.
    pub(crate) fn take_spans(&mut self, into: &mut Vec<Time>) {
        into.append(&mut self.spans);
    }

    /// How often a request that had come was cancelled, or all of them lost, so far: while it stays the same, nothing
    /// that was there is over but what has been answered.
    pub(crate) fn lost(&self) -> u64 {
        self.lost
    }

    /// Ends the request with ERROR, where its last frame has not been written. `false` where it has.
    pub(crate) fn fail_request(&mut self, key: Key, code: Code, text: &str) -> bool {
        let Some(stream) = self.streams.get_mut(key) else { return false };
        if stream.send.ended {
            return false;
        }
        stream.stop_sending();
        let (id, cancelled) = (stream.id, stream.failure.is_some());
        self.wakes.extend(stream.take_writer());
        let (code, text) = if cancelled { (Code::Cancelled, "") } else { (code, text) };
        self.push_error(id, code, text);
        self.answered(key);
        true
    }

    /// The terminal frame of a request is on its way.
    #[inline]
    pub(super) fn answered(&mut self, key: Key) {
        self.open -= 1;
        if let Some(more) = self.streams.get_mut(key).and_then(|stream| stream.more.as_mut()) {
            self.wakes.append(&mut more.watchers);
        }
        self.after_end(key);
    }

    /// Why a request was cancelled, once it was.
    pub(crate) fn failure(&self, key: Key) -> Option<&Failure> {
        self.streams.get(key)?.failure.as_deref()
    }

    /// Whether nobody waits for the answer any more: cancelled, lost or answered.
    pub(crate) fn is_over(&self, key: Key) -> bool {
        self.streams.get(key).is_none_or(|stream| stream.failure.is_some() || stream.send.ended)
    }

    /// Ready when that is so.
    pub(crate) fn poll_over(&mut self, key: Key, cx: &Context<'_>) -> Poll<()> {
        if self.is_over(key) {
            return Poll::Ready(());
        }
        let Some(stream) = self.streams.get_mut(key) else { return Poll::Ready(()) };
        let watchers = &mut stream.more().watchers;
        if !watchers.iter().any(|waker| waker.will_wake(cx.waker())) {
            watchers.push(cx.waker().clone());
        }
        Poll::Pending
    }

    /// The handle that reads is gone: what comes is dropped, and no more is granted.
    pub(crate) fn release_reader(&mut self, key: Key) {
        let Some(stream) = self.streams.get_mut(key) else { return };
        stream.recv.discard = true;
        stream.recv.queue.clear();
        self.release_one(key);
    }

    /// The handle that answers is gone, having answered.
    pub(crate) fn release_writer(&mut self, key: Key) {
        self.release_one(key);
    }

    fn release_one(&mut self, key: Key) {
        let Some(stream) = self.streams.get_mut(key) else { return };
        stream.handles -= 1;
        if stream.handles == 0 && stream.over_on_wire() {
            self.streams.remove(key);
        }
    }
}
