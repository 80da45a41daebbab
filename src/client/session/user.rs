//! What handles do with a session: open, read, write, give up, let go.

use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use uuid::Uuid;

use super::{Chunks, Failure, Session, park, wake_all};
use crate::base::{Key, Time};
use crate::protocol::{Code, Flags, FrameType, Header, Role};

/// A request to open.
#[derive(Debug)]
pub(crate) struct NewRequest<'a> {
    pub(crate) id: Uuid,
    pub(crate) flags: Flags,
    /// On the wire, in ms; 0 for the broker's default.
    pub(crate) timeout_ms: u32,
    /// When this side gives up.
    pub(crate) limit: Limit,
    /// A header block with its size, or nothing.
    pub(crate) block: &'a [u8],
    pub(crate) body: &'a Bytes,
    /// Whether `body` is all of it.
    pub(crate) whole: bool,
    /// Who waits for the answer: as if it had called [`Session::poll_begin`] at once.
    pub(crate) waiter: Option<&'a Waker>,
}

/// What a response begins with. Filled in place, for it is large and moved no more often than it must be.
#[derive(Debug, Default)]
pub(crate) struct Begun {
    pub(crate) block: Option<Bytes>,
    /// The body, where all of it has come.
    pub(crate) rest: Option<Chunks>,
}

/// When this side gives up on a request.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Limit {
    At(Time),
    /// So many ns after the time [`Session::date`] is told next. It is asked for a turn that would not come soon.
    After(u64),
}

/// Whether a body is still wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flow {
    /// Go on.
    Open,
    /// The stream has ended without the rest of it.
    Closed,
}

impl Session {
    /// Opens a request. The caller sees to it that no more than `max_streams` are open.
    ///
    /// `None` where none can be opened here.
    pub(crate) fn open_request(&mut self, request: &NewRequest<'_>) -> Option<Key> {
        let welcome = self.welcome.as_ref().filter(|_| self.takes_requests())?;
        // a time to come is counted from zero until it is dated
        let time = match request.limit {
            Limit::At(time) => time,
            Limit::After(span) => Time::from_nanos(span),
        };
        let window = welcome.window;
        let key = if self.is_short(request, window) {
            self.stage_request(request, window, time)
        } else {
            self.queue_request(request, window, time)
        };
        match request.limit {
            Limit::At(time) => self.watch_deadline(time),
            Limit::After(_) => {
                self.earlier |= self.undated.is_empty();
                self.undated.push(key);
            }
        }
        self.open += 1;
        Some(key)
    }

    /// Opens a request that leaves when it is its turn.
    fn queue_request(&mut self, request: &NewRequest<'_>, send_window: u32, time: Time) -> Key {
        let (key, stream) = self.streams.open(send_window, self.window, time);
        let more = stream.more();
        more.queue.push(request.body.clone());
        let head = &mut more.head;
        (head.request_id, head.flags, head.arg) = (request.id, request.flags, request.timeout_ms);
        head.block = request.block.to_vec();
        stream.send.begun = true;
        stream.send.finished = request.whole;
        stream.handles = 1;
        stream.reader = request.waiter.cloned();
        stream.send.queued = true;
        self.unopened += 1;
        self.ready.push_back(key);
        key
    }

    /// Ready once the response has begun: `begun` then has what there is of it. Where that is all, the handle is done
    /// with, as if it had been released.
    pub(crate) fn poll_begin(
        &mut self,
        key: Key,
        cx: &Context<'_>,
        begun: &mut Begun,
    ) -> Poll<Result<(), Box<Failure>>> {
        let Some(stream) = self.streams.get_mut(key) else { return Poll::Ready(Err(gone().into())) };
        if let Some(failure) = &stream.failure {
            return Poll::Ready(Err(failure.clone()));
        }
        if !stream.recv.begun {
            park(&mut stream.reader, cx);
            return Poll::Pending;
        }
        begun.block = stream.more.as_mut().and_then(|more| more.block.take());
        begun.rest = stream.take_rest();
        if begun.rest.is_some() {
            self.release(key);
        }
        Poll::Ready(Ok(()))
    }

    /// The next piece of what is received; `None` at its end. The bytes count as taken: credit is granted for them.
    pub(crate) fn poll_chunk(&mut self, key: Key, cx: &Context<'_>) -> Poll<Result<Option<Bytes>, Failure>> {
        let Some(stream) = self.streams.get_mut(key) else { return Poll::Ready(Err(gone())) };
        if let Some(bytes) = stream.recv.queue.pop() {
            self.took(key, bytes.len());
            return Poll::Ready(Ok(Some(bytes)));
        }
        if let Some(failure) = &stream.failure {
            return Poll::Ready(Err((**failure).clone()));
        }
        if stream.recv.ended {
            return Poll::Ready(Ok(None));
        }
        park(&mut stream.reader, cx);
        Poll::Pending
    }

    fn took(&mut self, key: Key, n: usize) {
        let Some(stream) = self.streams.get_mut(key) else { return };
        // None for a direction that has ended, nor after this side's last frame (§3, §4).
        let quiet = stream.recv.ended
            || stream.cancel_sent
            || stream.id == 0
            || (self.role == Role::Provider && stream.send.ended);
        if quiet {
            return;
        }
        if let Some(grant) = stream.recv.credit.take(n) {
            let header = Header::new(FrameType::Credit, stream.id).arg(grant);
            self.control.extend_from_slice(&header.encode());
        }
    }

    /// More of the body this side sends.
    pub(crate) fn push_body(&mut self, key: Key, bytes: Bytes) -> Flow {
        let Some(stream) = self.streams.get_mut(key) else { return Flow::Closed };
        if stream.send.ended || stream.failure.is_some() {
            return Flow::Closed;
        }
        stream.more().queue.push(bytes);
        self.make_ready(key);
        Flow::Open
    }

    /// The body this side sends is complete.
    pub(crate) fn finish_body(&mut self, key: Key) -> Flow {
        let Some(stream) = self.streams.get_mut(key) else { return Flow::Closed };
        if stream.send.ended || stream.failure.is_some() {
            return Flow::Closed;
        }
        stream.send.finished = true;
        self.make_ready(key);
        Flow::Open
    }

    /// Ready when at most `low` bytes given wait to be written, or no more are wanted.
    pub(crate) fn poll_room(&mut self, key: Key, low: usize, cx: &Context<'_>) -> Poll<Flow> {
        let Some(stream) = self.streams.get_mut(key) else { return Poll::Ready(Flow::Closed) };
        let complete = stream.send.finished && stream.send.ended && stream.failure.is_none();
        if stream.failure.is_some() || (stream.send.ended && !complete) {
            return Poll::Ready(Flow::Closed);
        }
        let waits = stream.waiting();
        let unfinished = stream.send.finished && !stream.send.ended && low == 0;
        if waits <= low && !unfinished {
            return Poll::Ready(Flow::Open);
        }
        park(&mut stream.more().writer, cx);
        Poll::Pending
    }

    /// Ready when no more of the body is wanted.
    pub(crate) fn poll_unwanted(&mut self, key: Key, cx: &Context<'_>) -> Poll<()> {
        match self.streams.get_mut(key) {
            Some(stream) if !stream.send.ended && stream.failure.is_none() => {
                park(&mut stream.more().writer, cx);
                Poll::Pending
            }
            _ => Poll::Ready(()),
        }
    }

    /// Consumer: the request fails here and now, and the broker is told.
    pub(crate) fn give_up(&mut self, key: Key, mut failure: Failure) {
        let encoded = self.encoded;
        let Some(stream) = self.streams.get_mut(key) else { return };
        if stream.recv.ended {
            return;
        }
        if stream.id != 0 && !stream.is_staged(encoded) {
            failure.flags = failure.flags | Flags::STARTED;
        }
        stream.failure.get_or_insert(failure.into());
        wake_all(stream, &mut self.wakes);
        self.stop(key);
    }

    /// Consumer: the handle is gone.
    pub(crate) fn release(&mut self, key: Key) {
        let Some(stream) = self.streams.get_mut(key) else { return };
        stream.handles = 0;
        stream.recv.discard = true;
        stream.recv.queue.clear();
        if stream.over_on_wire() {
            self.streams.remove(key);
        } else {
            self.stop(key);
        }
    }

    /// Consumer: no answer is wanted any more.
    fn stop(&mut self, key: Key) {
        self.unstage(key);
        let Some(stream) = self.streams.get_mut(key) else { return };
        stream.stop_sending();
        self.wakes.extend(stream.take_writer());
        if stream.id == 0 {
            stream.recv.ended = true;
            self.unopened -= 1;
            self.say_goaway();
            self.after_end(key);
        } else if !stream.recv.ended {
            self.push_cancel(key);
        }
    }

    pub(super) fn push_cancel(&mut self, key: Key) {
        let Some(stream) = self.streams.get_mut(key) else { return };
        if !std::mem::replace(&mut stream.cancel_sent, true) {
            let header = Header::new(FrameType::Cancel, stream.id).code(Code::Cancelled);
            self.control.extend_from_slice(&header.encode());
        }
    }
}

/// The handle outlived its stream: the session let it go with the connection.
pub(super) fn gone() -> Failure {
    Failure::connection(true)
}
