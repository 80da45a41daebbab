//! A socket on epoll: receiving while there are bytes and buffers, sending at once.

use std::io::{self, IoSlice};
use std::os::fd::OwnedFd;

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags};

use super::Epoll;
use crate::base::{Batch, Key, Leases, Segment};
use crate::reactor::{Event, Pool, Receive, Sock};

#[derive(Debug)]
pub(super) struct Socket {
    pub(super) fd: OwnedFd,
    pub(super) user: u64,
    /// The receiving that was asked for and has not ended.
    pub(super) receive: Option<Receive>,
    /// There may be bytes.
    readable: bool,
    /// The peer has closed its side, or the socket failed: the end is yet to be read, even after a short receive.
    hung_up: bool,
    /// Stands in `ready`.
    queued: bool,
    /// Room to send was asked for.
    pub(super) polling: bool,
}

/// Buffers filled from one socket before the next has its turn.
const MOST_RECEIVED: usize = 4;
/// Stretches in one sendmsg(2); a batch of more takes several.
const STRETCHES: usize = 64;

impl Epoll {
    pub(super) fn add_socket(&mut self, fd: OwnedFd, user: u64) -> Sock {
        let socket = Socket { fd, user, receive: None, readable: false, hung_up: false, queued: false, polling: false };
        let key = self.sockets.insert(socket);
        assert!(key.index() < 1 << 31, "more sockets than slots");
        let socket = self.sockets.get(key).expect("just inserted");
        if let Err(error) = epoll::add(&self.epoll, &socket.fd, EventData::new_u64(key.pack()), flags(false)) {
            // Out of memory, or of the limit of watches: the socket is of no use.
            self.events.push_back((key, Event::ReceiveEnded { user, error: Some(error.into()) }));
        }
        Sock(key.pack())
    }

    /// Takes a socket out of the table and of the epoll set.
    pub(super) fn forget(&mut self, key: Key) -> Option<Socket> {
        let socket = self.sockets.remove(key)?;
        // Fails where adding did.
        let _ = epoll::delete(&self.epoll, &socket.fd);
        Some(socket)
    }

    /// Tells the kernel what the socket waits for. What is true already is reported again.
    pub(super) fn watch(&mut self, key: Key) {
        let Some(socket) = self.sockets.get(key) else { return };
        let data = EventData::new_u64(key.pack());
        if epoll::modify(&self.epoll, &socket.fd, data, flags(socket.polling)).is_err() {
            self.writable(key);
        }
    }

    pub(super) fn socket_polled(&mut self, key: Key, now: EventFlags) {
        let Some(socket) = self.sockets.get_mut(key) else { return };
        let over = EventFlags::HUP | EventFlags::ERR;
        if now.intersects(EventFlags::IN | EventFlags::RDHUP | over) {
            socket.readable = true;
            socket.hung_up |= now.intersects(EventFlags::RDHUP | over);
            self.queue(key);
        }
        if now.intersects(EventFlags::OUT | over) {
            self.writable(key);
        }
    }

    fn writable(&mut self, key: Key) {
        let Some(socket) = self.sockets.get_mut(key) else { return };
        if std::mem::take(&mut socket.polling) {
            self.events.push_back((key, Event::Writable { user: socket.user }));
        }
    }

    pub(super) fn want(&mut self, key: Key, how: Receive) {
        let Some(socket) = self.sockets.get_mut(key) else { return };
        if socket.receive != Some(Receive::Stream) {
            socket.receive = Some(how);
        }
        self.queue(key);
    }

    /// Puts a socket in line if it has bytes and they are wanted.
    fn queue(&mut self, key: Key) {
        let Some(socket) = self.sockets.get_mut(key) else { return };
        if socket.readable && socket.receive.is_some() && !socket.queued {
            socket.queued = true;
            self.ready.push_back(key);
        }
    }

    /// Receives from everybody in line once, as far as the buffers last.
    pub(super) fn receive_ready(&mut self) {
        for _ in 0..self.ready.len() {
            if self.pool.free() == 0 {
                return;
            }
            let Some(key) = self.ready.pop_front() else { return };
            let Some(socket) = self.sockets.get_mut(key) else { continue };
            socket.queued = false;
            for _ in 0..MOST_RECEIVED {
                if !self.receive_one(key) {
                    break;
                }
            }
            self.queue(key);
        }
    }

    /// Fills one buffer; whether there may be more.
    fn receive_one(&mut self, key: Key) -> bool {
        let Some(socket) = self.sockets.get_mut(key).filter(|socket| socket.readable) else { return false };
        let Some(how) = socket.receive else { return false };
        let Some(buffer) = self.pool.take() else { return false };
        let bytes = self.pool.taken_bytes(buffer);
        let size = bytes.len();
        let user = socket.user;
        let error = match rustix::net::recv(&socket.fd, bytes, RecvFlags::DONTWAIT) {
            Ok((n, _)) if n > 0 => {
                if how == Receive::Once {
                    socket.receive = None;
                }
                // A short receive has emptied the socket; what comes later is a new edge.
                socket.readable = n == size || socket.hung_up;
                let (again, piece) = (socket.readable, self.pool.lease(buffer, n as u32));
                self.events.push_back((key, Event::Received { user, piece }));
                return again;
            }
            Ok(_) => None,
            Err(Errno::AGAIN) => {
                socket.readable = false;
                self.pool.put_back(buffer);
                return false;
            }
            Err(Errno::INTR) => {
                self.pool.put_back(buffer);
                return true;
            }
            Err(error) => Some(error.into()),
        };
        self.pool.put_back(buffer);
        (socket.receive, socket.readable) = (None, false);
        self.events.push_back((key, Event::ReceiveEnded { user, error }));
        false
    }

    pub(super) fn send_now(&mut self, key: Key, mut batch: Batch) {
        let Some(socket) = self.sockets.get(key) else {
            for segment in &batch.segments {
                if let Segment::Lease(piece) = segment {
                    self.pool.release(*piece);
                }
            }
            return;
        };
        let error = send_all(&socket.fd, &mut batch, &self.pool).err();
        self.sent.push_back(Event::Sent { user: socket.user, batch, error });
    }
}

fn flags(writable: bool) -> EventFlags {
    let receiving = EventFlags::IN | EventFlags::RDHUP | EventFlags::ET;
    if writable { receiving | EventFlags::OUT } else { receiving }
}

/// Sends until all is sent or the socket takes no more.
fn send_all(fd: &OwnedFd, batch: &mut Batch, pool: &Pool) -> io::Result<()> {
    while batch.remaining() > 0 {
        let mut stretches = [IoSlice::new(&[]); STRETCHES];
        let (mut count, mut len) = (0, 0);
        batch.for_each_unsent(pool, |bytes| {
            if count < STRETCHES {
                stretches[count] = IoSlice::new(bytes);
                count += 1;
                len += bytes.len();
            }
        });
        let (flags, mut nothing) = (SendFlags::NOSIGNAL | SendFlags::DONTWAIT, SendAncillaryBuffer::default());
        match rustix::net::sendmsg(fd, &stretches[..count], &mut nothing, flags) {
            Ok(taken) => {
                batch.sent += taken;
                if taken < len {
                    return Ok(());
                }
            }
            Err(Errno::AGAIN) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
