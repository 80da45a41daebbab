//! The reactor for where io_uring can't be had: epoll and non-blocking calls, the same behaviour.
//!
//! ```text
//!   wait ─► epoll_wait ─► who is readable ─► receive into buffers, some for each ─┐
//!                      └► who is writable, connections, wake-ups ─────────────────┴─► next_event()
//!   send ─► sendmsg at once ─► its outcome waits for next_event()
//! ```
//!
//! Invariants:
//! - Sockets are edge-triggered: one that may have bytes keeps its `readable` until a receive found nothing more,
//!   and stands in `ready` as long as somebody wants them.
//! - Nobody is left asleep over work that is known: what is ready, and can be done, makes the wait a look.

mod socket;

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::net::SocketFlags;

use self::socket::Socket;
use super::listener::{Listener, hurry, is_of_the_connection};
use super::{Event, Options, Pool, Reactor, Receive, Sock, Waker, sys};
use crate::base::{Batch, Key, Leases, Table};

/// A reactor on epoll.
pub struct Epoll {
    epoll: OwnedFd,
    pool: Pool,
    spin: Duration,
    sockets: Table<Socket>,
    listeners: Table<Listener>,
    waker: Waker,
    /// A descriptor was closed since that was last looked at.
    freed: bool,
    /// Sockets with bytes that somebody wants, in turn.
    ready: VecDeque<Key>,
    /// Popped before `events`, so that what a received request sends finds its connection idle.
    sent: VecDeque<Event>,
    events: VecDeque<(Key, Event)>,
    polled: Vec<epoll::Event>,
}

/// Descriptors looked at in one turn; the others come first in the next.
const MOST_POLLED: usize = 1024;
/// Connections accepted in one turn on one listener.
const MOST_ACCEPTED: usize = 256;
/// What the waker's events carry: no key has this slot.
const WAKER: u64 = u64::MAX;
/// Set for listeners; no table has as many slots.
const LISTENER: u64 = 1 << 31;

impl Epoll {
    /// A reactor for one thread.
    ///
    /// # Errors
    /// No descriptors or memory to be had, or buffers of an impossible number or size.
    pub fn new(options: &Options) -> io::Result<Epoll> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let waker = Waker::new()?;
        // Edge-triggered, each wake-up is an event, and nothing needs to be read.
        epoll::add(&epoll, waker.fd(), EventData::new_u64(WAKER), EventFlags::IN | EventFlags::ET)?;
        Ok(Epoll {
            epoll,
            pool: Pool::new(options.buffers, options.buffer_size)?,
            spin: options.spin,
            sockets: Table::new(),
            listeners: Table::new(),
            waker,
            freed: false,
            ready: VecDeque::new(),
            sent: VecDeque::new(),
            events: VecDeque::new(),
            polled: Vec::with_capacity(MOST_POLLED),
        })
    }

    fn poll(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        let timespec = timeout.map(|timeout| Timespec {
            // A timeout beyond the type is one for ever.
            tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: timeout.subsec_nanos().into(),
        });
        self.polled.clear();
        match epoll::wait(&self.epoll, spare_capacity(&mut self.polled), timespec.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// As [`Epoll::poll`], but looks again and again for a while before it sleeps.
    fn spin_then_poll(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        if self.spin.is_zero() || timeout == Some(Duration::ZERO) {
            return self.poll(timeout);
        }
        let start = Instant::now();
        let spin = timeout.map_or(self.spin, |timeout| timeout.min(self.spin));
        loop {
            self.poll(Some(Duration::ZERO))?;
            if !self.polled.is_empty() {
                return Ok(());
            }
            if start.elapsed() >= spin {
                return self.poll(timeout.map(|timeout| timeout.saturating_sub(start.elapsed())));
            }
        }
    }

    fn handle_polled(&mut self) {
        let polled = std::mem::take(&mut self.polled);
        for event in &polled {
            let (data, flags) = (event.data.u64(), event.flags);
            if data == WAKER {
                continue;
            }
            if data & LISTENER != 0 {
                self.accept(Key::unpack(data & !LISTENER));
            } else {
                self.socket_polled(Key::unpack(data), flags);
            }
        }
        self.polled = polled;
    }

    fn accept(&mut self, key: Key) {
        for _ in 0..MOST_ACCEPTED {
            let Some(listener) = self.listeners.get_mut(key) else { return };
            let tag = listener.tag;
            match rustix::net::accept_with(&listener.fd, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
                Ok(fd) => {
                    listener.accepted();
                    self.events.push_back((key, Event::Accepted { listener: tag, fd }));
                }
                Err(rustix::io::Errno::AGAIN) => return,
                Err(error) if is_of_the_connection(&error.into()) => {}
                Err(error) => {
                    listener.back_off(sys::now());
                    self.disarm_accept(key);
                    self.events.push_back((key, Event::AcceptFailed { listener: tag, error: error.into() }));
                    return;
                }
            }
        }
    }

    fn arm_accept(&mut self, key: Key) -> io::Result<()> {
        let Some(listener) = self.listeners.get_mut(key) else { return Ok(()) };
        listener.retry_at = None;
        // Level-triggered, for the accepting is bounded; exclusive, for several cores listen on one socket.
        let flags = EventFlags::IN | EventFlags::EXCLUSIVE;
        epoll::add(&self.epoll, &listener.fd, EventData::new_u64(key.pack() | LISTENER), flags)?;
        listener.armed = true;
        Ok(())
    }

    fn disarm_accept(&mut self, key: Key) {
        if let Some(listener) = self.listeners.get_mut(key)
            && std::mem::take(&mut listener.armed)
        {
            epoll::delete(&self.epoll, &listener.fd).expect("what was added can be deleted");
        }
    }

    /// Arms the listeners whose back-off is over; says when the next one's is.
    fn retry_accepts(&mut self) -> io::Result<Option<Duration>> {
        if self.listeners.iter().all(|(_, listener)| listener.retry_at.is_none()) {
            return Ok(None);
        }
        let now = sys::now();
        if std::mem::take(&mut self.freed) {
            hurry(&mut self.listeners, now);
        }
        let due: Vec<Key> = (self.listeners.iter())
            .filter(|(_, listener)| listener.retry_at.is_some_and(|at| at <= now))
            .map(|(key, _)| key)
            .collect();
        for key in due {
            self.arm_accept(key)?;
        }
        Ok(self.listeners.iter().filter_map(|(_, listener)| listener.retry_at).min().map(|at| at - now))
    }

    fn has_news(&self) -> bool {
        !self.events.is_empty() || !self.sent.is_empty()
    }
}

impl Reactor for Epoll {
    type Pool = Pool;

    fn pool(&self) -> &Pool {
        &self.pool
    }

    fn listen(&mut self, listener: OwnedFd, tag: u32) -> io::Result<()> {
        rustix::io::ioctl_fionbio(&listener, true)?;
        let key = self.listeners.insert(Listener::new(listener, tag));
        let armed = self.arm_accept(key);
        if armed.is_err() {
            self.listeners.remove(key);
        }
        armed
    }

    fn stop_listening(&mut self) {
        let all: Vec<Key> = self.listeners.iter().map(|(key, _)| key).collect();
        for key in all {
            self.disarm_accept(key);
            self.listeners.remove(key);
        }
    }

    fn add(&mut self, fd: OwnedFd, user: u64) -> Sock {
        self.add_socket(fd, user)
    }

    fn receive(&mut self, sock: Sock, how: Receive) {
        self.want(Key::unpack(sock.0), how);
    }

    fn send(&mut self, sock: Sock, batch: Batch) {
        self.send_now(Key::unpack(sock.0), batch);
    }

    fn shutdown_write(&mut self, sock: Sock) {
        if let Some(socket) = self.sockets.get(Key::unpack(sock.0)) {
            // fails where the peer is gone already
            let _ = rustix::net::shutdown(&socket.fd, rustix::net::Shutdown::Write);
        }
    }

    fn notify_writable(&mut self, sock: Sock) {
        let key = Key::unpack(sock.0);
        if self.sockets.get_mut(key).is_some_and(|socket| !std::mem::replace(&mut socket.polling, true)) {
            self.watch(key);
        }
    }

    fn close(&mut self, sock: Sock, abort: bool) {
        let key = Key::unpack(sock.0);
        if let Some(socket) = self.forget(key) {
            sys::close_socket(socket.fd, abort);
            self.freed = true;
            self.events.push_back((key, Event::Closed { user: socket.user }));
        }
    }

    fn detach(&mut self, sock: Sock) -> Option<OwnedFd> {
        let key = Key::unpack(sock.0);
        self.sockets.get(key).filter(|socket| socket.receive.is_none() && !socket.polling)?;
        self.forget(key).map(|socket| socket.fd)
    }

    fn wake(&mut self, other: &Waker) {
        other.wake();
    }

    fn waker(&self) -> Waker {
        self.waker.clone()
    }

    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        let retry = self.retry_accepts()?;
        let mut timeout = match (timeout, retry) {
            (Some(timeout), Some(retry)) => Some(timeout.min(retry)),
            (timeout, retry) => timeout.or(retry),
        };
        let can_receive = !self.ready.is_empty() && self.pool.free() > 0;
        if self.has_news() || can_receive {
            timeout = Some(Duration::ZERO);
        }
        self.spin_then_poll(timeout)?;
        self.handle_polled();
        self.receive_ready();
        Ok(())
    }

    fn next_event(&mut self) -> Option<Event> {
        if let Some(event) = self.sent.pop_front() {
            return Some(event);
        }
        while let Some((key, event)) = self.events.pop_front() {
            let is_open = self.sockets.get(key).is_some();
            match event {
                Event::Received { piece, .. } if !is_open => self.pool.release(piece),
                Event::ReceiveEnded { .. } | Event::Writable { .. } if !is_open => {}
                event => return Some(event),
            }
        }
        None
    }
}
