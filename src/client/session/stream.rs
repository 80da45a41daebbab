//! One request's state on one connection.
//!
//! ```text
//!   consumer                                       provider
//!   send: REQUEST, DATA*, END or CANCEL   ──────►  recv
//!   recv: RESPONSE, DATA*, END or ERROR   ◄──────  send
//! ```
//!
//! Either side's stream is over on the wire, and its id free, when both directions have ended. The entry itself
//! lives on until its handles are gone: what was received can still be read.

use std::task::Waker;

use bytes::Bytes;
use uuid::Uuid;

use super::Failure;
use super::chunks::Chunks;
use super::credit::{RecvCredit, SendCredit};
use crate::base::Time;
use crate::protocol::Flags;

/// What goes ahead of the first body byte.
#[derive(Debug, Default)]
pub(super) struct Head {
    pub(super) request_id: Uuid,
    pub(super) flags: Flags,
    /// REQUEST: timeout in ms.
    pub(super) arg: u32,
    /// A header block with its size, or nothing.
    pub(super) block: Vec<u8>,
}

/// The direction this side sends.
#[derive(Debug)]
pub(super) struct SendHalf {
    pub(super) head_sent: bool,
    pub(super) credit: SendCredit,
    /// The user has given the whole body.
    pub(super) finished: bool,
    /// The last frame of this direction has been written: END, CANCEL or ERROR.
    pub(super) ended: bool,
    /// Provider: the user has begun to answer.
    pub(super) begun: bool,
    /// In the session's ready queue.
    pub(super) queued: bool,
}

/// The direction this side receives.
#[derive(Debug)]
pub(super) struct RecvHalf {
    pub(super) begun: bool,
    pub(super) queue: Chunks,
    pub(super) credit: RecvCredit,
    /// The last frame of this direction has come: END, ERROR or CANCEL.
    pub(super) ended: bool,
    /// Nobody reads it: what comes is dropped.
    pub(super) discard: bool,
}

/// A request on a connection. In this order, two cache lines: what is sent and how long it may take, what is received.
#[derive(Debug)]
#[repr(C, align(64))]
pub(super) struct Stream {
    /// Whose slot this is: for [`Streams`](super::streams::Streams).
    pub(super) generation: u32,
    /// 0 until REQUEST has been written.
    pub(super) id: u32,
    pub(super) send: SendHalf,
    /// Handles that still refer to it.
    pub(super) handles: u8,
    pub(super) cancel_sent: bool,
    /// Consumer: when this side gives up. Provider: when the request came.
    pub(super) time: Time,
    /// Consumer: where in the bytes sent REQUEST began.
    pub(super) opened_at: u64,
    pub(super) reader: Option<Waker>,
    /// Boxed, for it is rare and large.
    pub(super) failure: Option<Box<Failure>>,
    pub(super) recv: RecvHalf,
    pub(super) more: Option<Box<More>>,
}

const _: () = assert!(size_of::<Stream>() == 128);

/// What a short request has none of: a thousand of those in flight then fit a core's cache.
#[derive(Debug, Default)]
pub(super) struct More {
    pub(super) head: Head,
    /// What is to be sent.
    pub(super) queue: Chunks,
    /// The header block received.
    pub(super) block: Option<Bytes>,
    pub(super) writer: Option<Waker>,
    /// Who waits for the request to be over.
    pub(super) watchers: Vec<Waker>,
}

impl Stream {
    pub(super) fn new(generation: u32, send_window: u32, recv_window: u32, time: Time) -> Stream {
        Stream {
            generation,
            id: 0,
            send: SendHalf {
                head_sent: false,
                credit: SendCredit::new(send_window),
                finished: false,
                ended: false,
                begun: false,
                queued: false,
            },
            recv: RecvHalf {
                begun: false,
                queue: Chunks::default(),
                credit: RecvCredit::new(recv_window),
                ended: false,
                discard: false,
            },
            handles: 0,
            time,
            opened_at: u64::MAX,
            cancel_sent: false,
            failure: None,
            reader: None,
            more: None,
        }
    }

    /// Lets go of all it holds: what is left is plain values, for [`Stream::reopen`].
    #[inline]
    pub(super) fn clear(&mut self) {
        self.recv.queue.clear();
        self.reader = None;
        // looked at first: letting go of nothing is a call, too
        if self.failure.is_some() || self.more.is_some() {
            (self.failure, self.more) = (None, None);
        }
    }

    /// Makes a cleared stream as good as new.
    pub(super) fn reopen(&mut self, generation: u32, send_window: u32, recv_window: u32, time: Time) {
        (self.generation, self.id) = (generation, 0);
        let send = &mut self.send;
        (send.head_sent, send.finished, send.ended, send.begun, send.queued) = (false, false, false, false, false);
        send.credit = SendCredit::new(send_window);
        (self.recv.begun, self.recv.ended, self.recv.discard) = (false, false, false);
        self.recv.credit = RecvCredit::new(recv_window);
        (self.handles, self.cancel_sent) = (0, false);
        (self.time, self.opened_at) = (time, u64::MAX);
    }

    pub(super) fn more(&mut self) -> &mut More {
        self.more.get_or_insert_default()
    }

    /// Bytes that wait to be sent.
    pub(super) fn waiting(&self) -> usize {
        self.more.as_ref().map_or(0, |more| more.queue.len())
    }

    pub(super) fn take_writer(&mut self) -> Option<Waker> {
        self.more.as_mut()?.writer.take()
    }

    /// Whether there is a frame to write now.
    pub(super) fn sendable(&self) -> bool {
        let send = &self.send;
        if send.ended || !send.begun {
            return false;
        }
        let body = self.waiting();
        !send.head_sent || (body > 0 && send.credit.left() > 0) || (body == 0 && send.finished)
    }

    /// Everything received, if the end is among it.
    pub(super) fn take_rest(&mut self) -> Option<Chunks> {
        let whole = self.recv.ended && self.failure.is_none();
        whole.then(|| std::mem::take(&mut self.recv.queue))
    }

    /// Consumer: whether REQUEST has been [staged](super::Session::stage_request) and is not among the bytes that have
    /// been handed out, which are so many.
    pub(super) fn is_staged(&self, encoded: u64) -> bool {
        self.id != 0 && self.opened_at >= encoded
    }

    pub(super) fn over_on_wire(&self) -> bool {
        self.send.ended && self.recv.ended
    }

    /// The user's side of this direction is done with, whatever was queued.
    pub(super) fn stop_sending(&mut self) {
        self.send.ended = true;
        if let Some(more) = &mut self.more {
            more.queue.clear();
        }
    }
}
