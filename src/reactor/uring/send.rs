//! Sending: one submission a batch, and for a send that the kernel takes whole, no completion at all.
//!
//! **How a send without a completion is known to be over.** The submissions carry MSG_DONTWAIT, MSG_WAITALL and
//! IOSQE_CQE_SKIP_SUCCESS.
//! - MSG_DONTWAIT marks the request as one that must not wait: it is tried within io_uring_enter(2), by the thread
//!   that enters, and when the socket has no (more) room it fails there, instead of being parked on a poll or given
//!   to a worker. So once the call has consumed the submission, the kernel no longer reads our memory.
//! - MSG_WAITALL makes a short count a failure. Every failure posts a completion in spite of SKIP_SUCCESS, with the
//!   bytes taken, if any, or else the error.
//! - Completions of that call are in the queue when it returns, or the overflow flag says that more are to come.
//!
//! Therefore: when all submissions are consumed, all completions taken and nothing has overflowed, each send that
//! has not completed was wholly taken. A probe at start-up checks just this of the running kernel; where it fails,
//! sends complete one by one ([`SendMode::Completions`]).

#![allow(unsafe_code)]

use std::io;
use std::os::fd::AsRawFd;
use std::ptr;

use io_uring::squeue::{Entry, Flags};
use io_uring::{opcode, types::Fd};

use super::Uring;
use super::ring::{Completion, Op};
use crate::base::{Batch, Key, Leases, Segment};
use crate::reactor::{Event, Sock, pool::Pool};

/// How the end of a send is learnt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendMode {
    /// From the absence of a completion: one less a send, and sleeping isn't cut short by them.
    Silent,
    /// From a completion each.
    Completions,
}

pub(super) const FLAGS: i32 = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT | libc::MSG_WAITALL;

/// Stretches in one send: the kernel's UIO_MAXIOV. What lies beyond counts as not taken, for there is room to send.
const MOST_STRETCHES: usize = 1024;
/// Bytes in one send: below the kernel's MAX_RW_COUNT, which would make it a short one.
const MOST_BYTES: usize = 1 << 30;
/// A batch as large as a stream's turn (16 KiB, "Leaving in turn" in the design) may have more behind it, and one
/// with segments holds leases, without which nobody may be able to receive: both are reported before sleeping.
const PROMPT_BYTES: usize = 16 << 10;

/// The message header and stretches of a send, at an address that doesn't change.
pub(super) struct Stretches {
    header: libc::msghdr,
    list: Vec<libc::iovec>,
    bytes: usize,
}

impl Stretches {
    pub(super) fn new() -> Box<Stretches> {
        // SAFETY: a message header of zeros is an empty one.
        let header = unsafe { std::mem::zeroed() };
        Box::new(Stretches { header, list: Vec::with_capacity(8), bytes: 0 })
    }

    /// Notes where the unsent bytes of a batch are.
    fn fill(&mut self, batch: &Batch, pool: &Pool) {
        self.list.clear();
        self.bytes = 0;
        batch.for_each_unsent(pool, |bytes| {
            let len = bytes.len().min(MOST_BYTES - self.bytes);
            if self.list.len() < MOST_STRETCHES && len > 0 {
                self.list.push(libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: len });
                self.bytes += len;
            }
        });
        self.header.msg_iov = self.list.as_mut_ptr();
        self.header.msg_iovlen = self.list.len();
    }
}

impl Uring {
    pub(super) fn start_send(&mut self, sock: Sock, batch: Batch) {
        let key = Key::unpack(sock.0);
        let Some(socket) = self.sockets.get_mut(key) else {
            release(&self.pool, &batch);
            return;
        };
        assert!(socket.batch.is_none(), "a second batch for a socket whose first is not back");
        if batch.remaining() == 0 || socket.closing {
            let error = socket.closing.then(|| io::ErrorKind::NotConnected.into());
            self.sent.push_back((key, Event::Sent { user: socket.user, batch, error }));
            return;
        }
        let mut stretches = self.stretches.pop().unwrap_or_else(Stretches::new);
        stretches.fill(&batch, &self.pool);
        let fd = Fd(socket.fd.as_raw_fd());
        socket.sending = Some(stretches.bytes);
        let entry = if let [only] = stretches.list[..] {
            let entry = opcode::Send::new(fd, only.iov_base.cast(), only.iov_len as u32).flags(FLAGS).build();
            self.stretches.push(stretches);
            entry
        } else {
            let header = ptr::from_ref(&stretches.header);
            socket.stretches = Some(stretches);
            opcode::SendMsg::new(fd, header).flags(FLAGS as u32).build()
        };
        self.prompt |= batch.total >= PROMPT_BYTES || !batch.segments.is_empty();
        socket.batch = Some(batch);
        let entry = self.in_send_mode(entry, key);
        // SAFETY: the bytes belong to the batch (its vectors, or leases it holds counts of), the header to the
        // socket, and both stay until the send is over: `end_send` alone takes them out. The slot keeps the
        // descriptor open as long as `sending` is set.
        unsafe { self.ring.push(entry) };
    }

    fn in_send_mode(&mut self, entry: Entry, key: Key) -> Entry {
        let entry = entry.user_data(Op::Send.on(key));
        match self.mode {
            SendMode::Completions => entry,
            SendMode::Silent => {
                self.unconfirmed.push(key);
                entry.flags(Flags::SKIP_SUCCESS)
            }
        }
    }

    pub(super) fn send_completed(&mut self, done: Completion) {
        match done.result {
            taken @ 0.. => self.end_send(done.key, taken as usize, None),
            // Nothing taken: to be sent again when there is room. ECANCELED is our own doing, in `close`.
            code if [libc::EAGAIN, libc::EINTR, libc::ECANCELED].contains(&-code) => self.end_send(done.key, 0, None),
            code => self.end_send(done.key, 0, Some(io::Error::from_raw_os_error(-code))),
        }
    }

    /// Every send that has not completed was wholly taken. Only to be called when all submissions are consumed and
    /// all completions taken; see the module's page.
    pub(super) fn confirm_sends(&mut self) {
        let mut keys = std::mem::take(&mut self.unconfirmed);
        for key in keys.drain(..) {
            if let Some(all) = self.sockets.get(key).and_then(|socket| socket.sending) {
                self.end_send(key, all, None);
            }
        }
        self.unconfirmed = keys;
        self.prompt = false;
    }

    fn end_send(&mut self, key: Key, taken: usize, error: Option<io::Error>) {
        let Some(socket) = self.sockets.get_mut(key) else { return };
        socket.sending = None;
        self.stretches.extend(socket.stretches.take());
        if let Some(mut batch) = socket.batch.take() {
            batch.sent += taken;
            self.sent.push_back((key, Event::Sent { user: socket.user, batch, error }));
        }
    }
}

/// Gives the leases of a batch back that nobody waits for.
fn release(pool: &Pool, batch: &Batch) {
    for segment in &batch.segments {
        if let Segment::Lease(piece) = segment {
            pool.release(*piece);
        }
    }
}
