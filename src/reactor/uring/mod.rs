//! The native reactor: one io_uring a core, entered once a turn.
//!
//! ```text
//!   send, receive, close ... ──► submissions ─┐                        ┌─► sent ───┐
//!                                             ├─ one io_uring_enter ─► │           ├─► next_event()
//!   released leases ──► buffer ring ──────────┘     completions        └─► events ─┘
//! ```
//!
//! Invariants:
//! - A slot, its descriptor and what its submissions point to stay until nothing is in flight on it.
//! - Completions are looked at only in [`Reactor::wait`]: copied out first, then acted on.
//! - Nobody is left asleep over work that is known: what is queued already makes the wait a look.

#![allow(unsafe_code)]

mod accept;
mod buffers;
mod receive;
mod ring;
mod send;
mod setup;
mod socket;

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use io_uring::{opcode, squeue::Flags, types::Fd};

use self::buffers::BufferRing;
use self::ring::{Completion, MAX_SLOTS, Op, Ring};
use self::send::Stretches;
use self::socket::Socket;
use super::listener::Listener;
use super::pool::Pool;
use super::{Event, Options, Reactor, Receive, Sock, Waker, sys};
use crate::base::{Batch, Key, Leases, Table};

pub use self::send::SendMode;
pub use self::setup::SetupError;

/// A reactor on io_uring. Belongs to the thread that made it.
pub struct Uring {
    // First, for fields are dropped in this order: the ring goes before the memory it was told of.
    ring: Ring,
    buffers: BufferRing,
    pool: Pool,
    registered: bool,
    mode: SendMode,
    spin: Duration,
    sockets: Table<Socket>,
    listeners: Table<Listener>,
    waker: Waker,
    woken_armed: bool,
    /// The reactor is being dropped: nothing is armed again.
    ending: bool,
    /// Others to be woken, kept until their submissions are consumed.
    waking: Vec<Waker>,
    /// Sockets that wait for buffers, the longest waiting first.
    parked: VecDeque<Key>,
    /// Sends that are over if no completion says otherwise.
    unconfirmed: Vec<Key>,
    /// One of them must be reported before sleeping.
    prompt: bool,
    /// The last wait ended before all was handed over and taken in.
    behind: bool,
    /// A descriptor was closed since that was last looked at.
    freed: bool,
    /// Sockets to be closed when nothing is in flight on them.
    closing: Vec<Key>,
    /// Popped before `events`, so that what a received request sends finds its connection idle.
    sent: VecDeque<(Key, Event)>,
    events: VecDeque<(Key, Event)>,
    /// For reuse.
    // Boxed, for the kernel is told their address while a socket has them.
    #[allow(clippy::vec_box)]
    stretches: Vec<Box<Stretches>>,
    completions: Vec<Completion>,
}

/// Completions in one wait before the caller has his turn, give or take what one entry brings. The kernel (6.13 and
/// later) brings about 20 an entry; more in a turn makes fewer, fuller sends where many connections' bytes leave by
/// one. The CPU a message takes was the same with 20, 256 and 512, within the noise of the machine.
const MOST_COMPLETIONS: usize = 256;
/// Entries into the kernel in one wait, where it is short of memory or the completions overflow.
const MOST_ENTRIES: usize = 256;

impl Uring {
    /// A reactor for the calling thread.
    ///
    /// # Errors
    /// Why this kernel or this process can't have one, and what to do about it.
    pub fn new(options: &Options) -> Result<Uring, SetupError> {
        setup::build(options, None)
    }

    /// As [`Uring::new`], with the way of sending given instead of probed.
    ///
    /// # Errors
    /// As [`Uring::new`].
    pub fn with_send_mode(options: &Options, mode: SendMode) -> Result<Uring, SetupError> {
        setup::build(options, Some(mode))
    }

    /// How the ends of sends are learnt.
    #[must_use]
    pub fn send_mode(&self) -> SendMode {
        self.mode
    }

    /// Whether the pool is registered with the kernel; not so where the memory lock limit is too low.
    #[must_use]
    pub fn registered(&self) -> bool {
        self.registered
    }

    fn arm_waker(&mut self) {
        if self.ending {
            return;
        }
        self.woken_armed = true;
        let fd = Fd(self.waker.fd().as_raw_fd());
        let entry = opcode::PollAdd::new(fd, libc::POLLIN as u32).multi(true).build();
        // SAFETY: points to nothing; the descriptor is open as long as the reactor is.
        unsafe { self.ring.push(entry.user_data(Op::Woken.on(Key::unpack(0)))) };
    }

    /// Takes the completions in that are there; their effects wait in the queues of events.
    fn reap(&mut self) -> usize {
        let mut completions = std::mem::take(&mut self.completions);
        self.ring.take(&mut completions);
        for &done in &completions {
            self.complete(done);
        }
        let taken = completions.len();
        self.completions = completions;
        taken
    }

    fn complete(&mut self, done: Completion) {
        match done.op {
            Op::Receive => self.receive_completed(done),
            Op::Send => self.send_completed(done),
            Op::Accept => self.accept_completed(done),
            Op::Writable => self.writable_completed(done.key),
            Op::Woken => {
                self.woken_armed = done.more();
                if !self.woken_armed {
                    self.arm_waker();
                }
            }
            Op::Ignore => {}
        }
    }

    fn writable_completed(&mut self, key: Key) {
        let Some(socket) = self.sockets.get_mut(key) else { return };
        socket.polling = false;
        // An error shows itself with the next send.
        self.events.push_back((key, Event::Writable { user: socket.user }));
    }

    /// Hands everything over, waits, takes everything in.
    fn turn(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        let (mut timeout, mut taken) = (timeout, 0);
        self.behind = true;
        for _ in 0..MOST_ENTRIES {
            let all_submitted = self.ring.enter(timeout)?;
            timeout = Some(Duration::ZERO);
            taken += self.reap();
            if !all_submitted || self.ring.has_overflowed() {
                continue;
            }
            self.waking.clear();
            self.confirm_sends();
            self.behind = false;
            // The kernel runs what it deferred in portions of about 20 completions. Taking them all first makes
            // fewer, fuller sends of them.
            if !self.ring.has_deferred() || taken >= MOST_COMPLETIONS {
                break;
            }
        }
        Ok(())
    }

    fn close_idle(&mut self) {
        let mut closing = std::mem::take(&mut self.closing);
        closing.retain(|&key| {
            if self.sockets.get(key).is_some_and(Socket::in_flight) {
                return true;
            }
            if let Some(socket) = self.sockets.remove(key) {
                sys::close_socket(socket.fd, socket.abort);
                self.freed = true;
                self.events.push_back((key, Event::Closed { user: socket.user }));
            }
            false
        });
        self.closing = closing;
    }

    fn in_flight(&self) -> bool {
        self.behind
            || self.woken_armed
            || self.listeners.iter().any(|(_, listener)| listener.armed)
            || self.sockets.iter().any(|(_, socket)| socket.in_flight())
    }

    fn has_news(&self) -> bool {
        !self.events.is_empty() || !self.sent.is_empty()
    }
}

impl Drop for Uring {
    /// Ends what is in flight: the kernel must not write to memory that is somebody else's by then.
    fn drop(&mut self) {
        self.ending = true;
        let all: Vec<Key> = self.sockets.iter().map(|(key, _)| key).collect();
        for key in all {
            self.close(Sock(key.pack()), false);
        }
        self.end_listening();
        self.ring.cancel(Op::Woken.on(Key::unpack(0)));
        // All of it ends at once; the bound is for what nobody foresaw.
        for _ in 0..100 {
            if self.turn(Some(Duration::from_millis(10))).is_err() || !self.in_flight() {
                break;
            }
        }
        if self.in_flight() {
            self.pool.memory().leak();
            self.buffers.leak();
            std::mem::forget(std::mem::take(&mut self.sockets));
        }
    }
}

impl Reactor for Uring {
    type Pool = Pool;

    fn pool(&self) -> &Pool {
        &self.pool
    }

    fn listen(&mut self, listener: OwnedFd, tag: u32) -> io::Result<()> {
        self.start_listening(listener, tag);
        Ok(())
    }

    fn stop_listening(&mut self) {
        self.end_listening();
    }

    fn add(&mut self, fd: OwnedFd, user: u64) -> Sock {
        let key = self.sockets.insert(Socket::new(fd, user));
        assert!(key.index() < MAX_SLOTS, "more sockets than slots");
        Sock(key.pack())
    }

    fn receive(&mut self, sock: Sock, how: Receive) {
        self.start_receive(sock, how);
    }

    fn send(&mut self, sock: Sock, batch: Batch) {
        self.start_send(sock, batch);
    }

    fn shutdown_write(&mut self, sock: Sock) {
        if let Some(socket) = self.sockets.get(Key::unpack(sock.0)) {
            // once a connection, at its end: not worth a submission. Fails where the peer is gone already
            let _ = rustix::net::shutdown(&socket.fd, rustix::net::Shutdown::Write);
        }
    }

    fn notify_writable(&mut self, sock: Sock) {
        let key = Key::unpack(sock.0);
        let Some(socket) = self.sockets.get_mut(key).filter(|socket| !socket.closing && !socket.polling) else {
            return;
        };
        socket.polling = true;
        let entry = opcode::PollAdd::new(Fd(socket.fd.as_raw_fd()), libc::POLLOUT as u32).build();
        // SAFETY: points to nothing; the slot keeps the descriptor open as long as `polling` is set.
        unsafe { self.ring.push(entry.user_data(Op::Writable.on(key))) };
    }

    fn close(&mut self, sock: Sock, abort: bool) {
        let key = Key::unpack(sock.0);
        let Some(socket) = self.sockets.get_mut(key).filter(|socket| !socket.closing) else { return };
        socket.closing = true;
        socket.abort = abort;
        let parked_send = socket.sending.is_some() && self.mode == SendMode::Completions;
        let in_flight = [(socket.receiving, Op::Receive), (socket.polling, Op::Writable), (parked_send, Op::Send)];
        for (_, op) in in_flight.iter().filter(|(is, _)| *is) {
            self.ring.cancel(op.on(key));
        }
        self.closing.push(key);
    }

    fn detach(&mut self, sock: Sock) -> Option<OwnedFd> {
        let key = Key::unpack(sock.0);
        let socket = self.sockets.get(key)?;
        if socket.in_flight() || socket.closing || socket.receive.is_some() {
            return None;
        }
        self.sockets.remove(key).map(|socket| socket.fd)
    }

    fn wake(&mut self, other: &Waker) {
        static ONE: [u8; 8] = 1u64.to_ne_bytes();
        let entry = opcode::Write::new(Fd(other.fd().as_raw_fd()), ONE.as_ptr(), 8).build();
        self.waking.push(other.clone());
        // SAFETY: points to a constant; `waking` keeps the descriptor open until the submission is consumed, and
        // with it the write, for an eventfd that is O_NONBLOCK is written to at once or not at all.
        unsafe { self.ring.push(entry.flags(Flags::SKIP_SUCCESS).user_data(Op::Ignore as u64)) };
    }

    fn waker(&self) -> Waker {
        self.waker.clone()
    }

    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        let retry = self.retry_accepts();
        self.buffers.refill(&self.pool);
        self.unpark();
        self.close_idle();
        let mut timeout = match (timeout, retry) {
            (Some(timeout), Some(retry)) => Some(timeout.min(retry)),
            (timeout, retry) => timeout.or(retry),
        };
        let starving = !self.parked.is_empty() && self.buffers.available() > 0;
        // A close may wait for a send that only the end of an entry tells of.
        let ending = !self.closing.is_empty();
        if self.has_news() || self.prompt || self.behind || starving || ending {
            timeout = Some(Duration::ZERO);
        }
        if !self.spin.is_zero() && timeout != Some(Duration::ZERO) {
            let start = Instant::now();
            self.turn(Some(Duration::ZERO))?;
            if !self.has_news() {
                self.ring.spin(timeout.map_or(self.spin, |timeout| timeout.min(self.spin)));
                timeout = timeout.map(|timeout| timeout.saturating_sub(start.elapsed()));
                self.turn(timeout)?;
            }
        } else {
            self.turn(timeout)?;
        }
        self.close_idle();
        Ok(())
    }

    fn next_event(&mut self) -> Option<Event> {
        if let Some((_, event)) = self.sent.pop_front() {
            return Some(event);
        }
        while let Some((key, event)) = self.events.pop_front() {
            let is_open = self.sockets.get(key).is_some_and(|socket| !socket.closing);
            match event {
                Event::Received { piece, .. } if !is_open => self.pool.release(piece),
                Event::ReceiveEnded { .. } | Event::Writable { .. } if !is_open => {}
                event => return Some(event),
            }
        }
        None
    }
}
