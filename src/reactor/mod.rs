//! One core's sockets: accepting, receiving into leased buffers, sending batches, waking. Knows bytes, never frames.
//!
//! Two reactors stand behind the one [`Reactor`] trait: [`uring`] (io_uring, the native one) and [`epoll`] (where
//! io_uring can't be had). A shard drives its reactor in turns:
//!
//! ```text
//!   wait(timeout) ──► next_event()* ──► add / receive / send / close ... ──► wait(timeout)
//!     one kernel entry     completions, copied out        take effect with the next wait
//! ```
//!
//! Invariants:
//! - At most one send and one receive are in flight on a socket.
//! - A batch given to [`Reactor::send`] belongs to the reactor until its [`Event::Sent`] comes back.
//! - Every socket added ends with exactly one [`Event::Closed`], after which its key is stale; or it is detached.

pub mod epoll;
mod listener;
mod memory;
pub mod mesh;
mod options;
pub mod pool;
pub mod sys;
#[cfg(test)]
mod tests;
pub mod uring;
mod waker;

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use crate::base::{Batch, Leases, Piece};

pub use self::epoll::Epoll;
pub use self::options::Options;
pub use self::pool::Pool;
pub use self::uring::{SendMode, SetupError, Uring};

/// A socket of a reactor: slot and generation, as one integer. Stale ones are ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Sock(pub u64);

/// How to receive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receive {
    /// One receive, then nothing until asked again: before HELLO, so that the connection can move.
    Once,
    /// Keep receiving until the socket ends (multishot on io_uring).
    Stream,
}

/// What happened.
#[derive(Debug)]
pub enum Event {
    /// A connection came in on the listener with this tag; add it or drop it.
    Accepted {
        /// The tag given to [`Reactor::listen`].
        listener: u32,
        /// The connected socket, non-blocking, close-on-exec.
        fd: OwnedFd,
    },
    /// Accepting failed for want of descriptors or memory; the reactor backs off and tries again by itself.
    AcceptFailed {
        /// The tag given to [`Reactor::listen`].
        listener: u32,
        /// EMFILE, ENFILE, ENOBUFS or ENOMEM.
        error: io::Error,
    },
    /// Bytes arrived. The receiver of the event owns one count of the piece's lease.
    Received {
        /// The `user` of [`Reactor::add`].
        user: u64,
        /// Where they are; never empty.
        piece: Piece,
    },
    /// The peer closed its side (`error` is `None`), or the socket failed. Nothing more is received.
    ReceiveEnded {
        /// The `user` of [`Reactor::add`].
        user: u64,
        /// Why, if not an orderly FIN.
        error: Option<io::Error>,
    },
    /// A send is over; the batch comes back with [`Batch::sent`] advanced by what the kernel took.
    /// A batch not wholly sent without `error` means the socket's buffer is full: ask for
    /// [`Reactor::notify_writable`], then send the rest.
    Sent {
        /// The `user` of [`Reactor::add`].
        user: u64,
        /// The batch, to be continued or recycled.
        batch: Batch,
        /// Why the socket can't be sent on any more.
        error: Option<io::Error>,
    },
    /// The socket takes bytes again, once after each [`Reactor::notify_writable`].
    Writable {
        /// The `user` of [`Reactor::add`].
        user: u64,
    },
    /// The socket is closed and every operation on it is over.
    Closed {
        /// The `user` of [`Reactor::add`].
        user: u64,
    },
}

/// Wakes a reactor that sleeps in [`Reactor::wait`], from any thread.
#[derive(Clone, Debug)]
pub struct Waker {
    // an eventfd shared between threads
    pub(crate) fd: std::sync::Arc<OwnedFd>,
}

/// One core's I/O. See the module's page for how a turn goes.
///
/// Events of one wait come with [`Event::Sent`] first: what a received request has to send finds its connection idle.
/// Operations asked for between two waits take effect with the next one (uring) or at once (epoll); either way
/// their outcome is an [`Event`] after the next [`Reactor::wait`].
pub trait Reactor {
    /// The pool the receive buffers live in.
    type Pool: Leases;

    /// The receive buffers' pool.
    fn pool(&self) -> &Self::Pool;

    /// Starts accepting on a bound, listening socket. Several reactors may accept on duplicates of one socket. Raise
    /// the limit of descriptors ([`sys::raise_nofile`]) first: io_uring goes by the one at this time.
    ///
    /// # Errors
    /// What the kernel says.
    fn listen(&mut self, listener: OwnedFd, tag: u32) -> io::Result<()>;

    /// Stops accepting on all listeners and closes this reactor's descriptors of them.
    fn stop_listening(&mut self);

    /// Takes over a connected, non-blocking socket. Nothing is received until asked for. `user` comes back with
    /// each event of the socket.
    fn add(&mut self, fd: OwnedFd, user: u64) -> Sock;

    /// Arms receiving. A `Stream` after a `Once` that has not completed yet upgrades it.
    fn receive(&mut self, sock: Sock, how: Receive);

    /// Sends a batch; one a socket at a time.
    ///
    /// The [`Event::Sent`] of a large batch (16 KiB) or one with segments comes before [`Reactor::wait`] sleeps. That
    /// of a small one that the kernel took whole may come only with the next event, for waking up for it would cost
    /// more than it is worth. Who has to know at once, because more is to follow on that socket, gives the wait a
    /// timeout of zero. [`Reactor::close`] needs no waiting: it is in order.
    fn send(&mut self, sock: Sock, batch: Batch);

    /// Closes the sending side (FIN) behind what was sent; nothing may be in flight to be sent. Receiving goes on.
    fn shutdown_write(&mut self, sock: Sock);

    /// Asks for one [`Event::Writable`].
    fn notify_writable(&mut self, sock: Sock);

    /// Shuts the socket down, ends what is in flight, closes. [`Event::Closed`] follows, after the [`Event::Sent`]
    /// of a batch still out; no [`Event::Received`] or [`Event::ReceiveEnded`] follows this call.
    /// What the kernel has taken is still delivered to the peer: no RST unless `abort`, or unless the peer goes on
    /// sending afterwards.
    fn close(&mut self, sock: Sock, abort: bool);

    /// Gives the descriptor away, to move the connection to another core. Nothing may be in flight on it:
    /// between a `Once` receive's completion and the next ask.
    fn detach(&mut self, sock: Sock) -> Option<OwnedFd>;

    /// Wakes another core with this reactor's next wait (uring: one more submission, no system call of its own).
    fn wake(&mut self, other: &Waker);

    /// The waker of this reactor.
    fn waker(&self) -> Waker;

    /// One turn of the kernel: hands over what was asked for, waits until something happened or `timeout` passed
    /// (`None`: for ever; zero: not at all), and takes in what happened.
    ///
    /// # Errors
    /// A broken ring or epoll descriptor: the core can't go on.
    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()>;

    /// The next thing that happened, until `None`.
    fn next_event(&mut self) -> Option<Event>;
}
