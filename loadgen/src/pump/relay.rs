//! The limit: what comes from one connection goes out of its pair, and nothing else is done.
//!
//! Connections are paired in the order they are accepted: the first with the second, the third with the fourth. What
//! was received is sent from the buffer it came in; nothing is copied or looked at in user space.

use std::collections::VecDeque;
use std::io;
use std::mem::ManuallyDrop;
use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use io_uring::opcode::{AcceptMulti, Close, RecvMulti, Send, SendMsg, Shutdown};
use io_uring::types::{Fd, Fixed};

use super::buffers::{Buffers, GROUP, Piece};
use super::ring::{Cqe, Ring};

/// Connections at a time: the kernel's table of registered files has this many places.
const MAX_CONNECTIONS: u32 = 16_384;
/// Slices one send may gather.
const MAX_SLICES: usize = 16;
const ACCEPT: u64 = 1 << 32;
const SEND: u64 = 2 << 32;
const SHUTDOWN: u64 = 3 << 32;
const CLOSE: u64 = 4 << 32;
const SEND_FLAGS: i32 = libc::MSG_WAITALL | libc::MSG_NOSIGNAL;
/// How often the stop flag is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// How a relay runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelayOptions {
    /// Receive buffers; a power of two up to 32,768.
    pub buffers: u16,
    /// Size of each, in bytes.
    pub buffer_size: u32,
    /// How long it looks for work before it sleeps.
    pub spin: Duration,
}

impl Default for RelayOptions {
    /// 256 buffers of 64 KiB, as the load engine's own; no spinning.
    fn default() -> RelayOptions {
        RelayOptions { buffers: 256, buffer_size: 64 << 10, spin: Duration::ZERO }
    }
}

/// A connection, at the place the kernel gave it in the table of registered files.
struct Conn {
    pair: Option<u32>,
    /// Received from the pair, not sent yet; the first `under_way` of them are with the kernel.
    queue: VecDeque<Piece>,
    under_way: usize,
    /// Bytes of the first piece that are sent.
    sent: usize,
    dirty: bool,
    receiving: bool,
    ended: bool,
    message: libc::msghdr,
    slices: [libc::iovec; MAX_SLICES],
}

/// The relay, on one thread.
pub struct Relay {
    ring: ManuallyDrop<Ring>,
    buffers: ManuallyDrop<Buffers>,
    conns: ManuallyDrop<Vec<Option<Box<Conn>>>>,
    listener: TcpListener,
    options: RelayOptions,
    unpaired: Option<u32>,
    dirty: Vec<u32>,
    starved: Vec<u32>,
}

impl std::fmt::Debug for Relay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Relay({:?}, {:?})", self.listener, self.options)
    }
}

impl Relay {
    /// A relay that accepts on `listener`, to be run on this thread. Connections inherit the listener's TCP_NODELAY.
    ///
    /// # Errors
    /// If io_uring can't be had.
    pub fn new(listener: TcpListener, options: RelayOptions) -> io::Result<Relay> {
        let ring = Ring::new()?;
        let buffers = Buffers::new(options.buffers, options.buffer_size);
        buffers.register(&ring.submitter())?;
        ring.submitter().register_files_sparse(MAX_CONNECTIONS)?;
        let mut conns = Vec::new();
        conns.resize_with(MAX_CONNECTIONS as usize, || None);
        Ok(Relay {
            ring: ManuallyDrop::new(ring),
            buffers: ManuallyDrop::new(buffers),
            conns: ManuallyDrop::new(conns),
            listener,
            options,
            unpaired: None,
            dirty: Vec::with_capacity(1024),
            starved: Vec::new(),
        })
    }

    /// Pumps until `stop` is set.
    ///
    /// # Errors
    /// What the kernel said, if the ring can't go on.
    pub fn run(&mut self, stop: &AtomicBool) -> io::Result<()> {
        let mut ready = Vec::with_capacity(16 << 10);
        self.accept()?;
        while !stop.load(Ordering::Relaxed) {
            self.turn(&mut ready)?;
            for cqe in ready.drain(..) {
                self.complete(cqe)?;
            }
            self.flush()?;
        }
        Ok(())
    }

    fn turn(&mut self, ready: &mut Vec<Cqe>) -> io::Result<()> {
        if !self.options.spin.is_zero() {
            let until = Instant::now() + self.options.spin;
            loop {
                self.ring.turn(&mut self.buffers, Some(Duration::ZERO), ready)?;
                if !ready.is_empty() {
                    return Ok(());
                }
                if Instant::now() >= until {
                    break;
                }
            }
        }
        self.ring.turn(&mut self.buffers, Some(LOOK), ready)
    }

    fn accept(&mut self) -> io::Result<()> {
        let entry = AcceptMulti::new(Fd(self.listener.as_raw_fd())).allocate_file_index(true);
        // SAFETY: it points to no memory; the listener lives as long as the ring.
        unsafe { self.ring.push(&entry.build().user_data(ACCEPT)) }
    }

    fn receive(&mut self, at: u32) -> io::Result<()> {
        let entry = RecvMulti::new(Fixed(at), GROUP).build().user_data(u64::from(at));
        // SAFETY: it points to no memory; the buffers of the group live until the ring is gone.
        unsafe { self.ring.push(&entry)? };
        self.conn(at).receiving = true;
        Ok(())
    }

    fn conn(&mut self, at: u32) -> &mut Conn {
        self.conns[at as usize].as_mut().expect("a completion of a connection that isn't there")
    }

    fn complete(&mut self, cqe: Cqe) -> io::Result<()> {
        let at = cqe.user as u32;
        match cqe.user & !u64::from(u32::MAX) {
            0 => self.received(at, cqe),
            SEND => self.sent(at, cqe.result),
            ACCEPT => self.accepted(cqe),
            _ => Ok(()),
        }
    }

    fn accepted(&mut self, cqe: Cqe) -> io::Result<()> {
        if !cqe.more() {
            self.accept()?;
        }
        let Ok(at) = u32::try_from(cqe.result) else { return Ok(()) };
        let mut conn = Conn::new();
        match self.unpaired.take() {
            None => self.unpaired = Some(at),
            Some(other) => {
                conn.pair = Some(other);
                self.conn(other).pair = Some(at);
            }
        }
        let pair = conn.pair;
        self.conns[at as usize] = Some(conn);
        if let Some(other) = pair {
            // nothing is read before there is somewhere to put it
            self.receive(other)?;
            self.receive(at)?;
        }
        Ok(())
    }

    #[inline]
    fn received(&mut self, at: u32, cqe: Cqe) -> io::Result<()> {
        let pair = {
            let conn = self.conn(at);
            conn.receiving = cqe.more();
            conn.pair
        };
        if let (len @ 1.., Some(buffer)) = (cqe.result, cqe.buffer()) {
            let piece = self.buffers.take(buffer, len as u32);
            let to = pair.and_then(|pair| self.conns[pair as usize].as_mut().map(|conn| (pair, conn)));
            match to.filter(|(_, conn)| !conn.ended) {
                None => self.buffers.release(piece),
                Some((pair, conn)) => {
                    conn.queue.push_back(piece);
                    if !std::mem::replace(&mut conn.dirty, true) {
                        self.dirty.push(pair);
                    }
                }
            }
        } else if cqe.result == -libc::ENOBUFS {
            self.starved.push(at);
            return Ok(());
        } else {
            return self.end(at);
        }
        if cqe.more() { Ok(()) } else { self.receive(at) }
    }

    fn sent(&mut self, at: u32, result: i32) -> io::Result<()> {
        let Ok(mut sent) = usize::try_from(result) else {
            self.conn(at).under_way = 0;
            return self.end(at);
        };
        let conn = self.conns[at as usize].as_mut().expect("a send keeps its connection");
        conn.under_way = 0;
        sent += conn.sent;
        while let Some(piece) = conn.queue.front().filter(|piece| piece.len() <= sent) {
            sent -= piece.len();
            self.buffers.release(*piece);
            conn.queue.pop_front();
        }
        conn.sent = sent;
        if conn.ended {
            return self.free(at);
        }
        if !conn.queue.is_empty() && !std::mem::replace(&mut conn.dirty, true) {
            self.dirty.push(at);
        }
        Ok(())
    }

    /// One direction failed or was closed: both connections of the pair are done for.
    fn end(&mut self, at: u32) -> io::Result<()> {
        let pair = self.conn(at).pair;
        for side in [Some(at), pair].into_iter().flatten() {
            let Some(conn) = self.conns[side as usize].as_mut() else { continue };
            if !std::mem::replace(&mut conn.ended, true) {
                let entry = Shutdown::new(Fixed(side), libc::SHUT_RDWR).build().user_data(SHUTDOWN);
                // SAFETY: it points to no memory.
                unsafe { self.ring.push(&entry)? };
            }
            self.free(side)?;
        }
        Ok(())
    }

    /// Frees a connection's place once nothing of it is under way.
    fn free(&mut self, at: u32) -> io::Result<()> {
        let conn = self.conn(at);
        if !conn.ended || conn.receiving || conn.under_way > 0 {
            return Ok(());
        }
        let conn = self.conns[at as usize].take().expect("just looked at");
        conn.queue.into_iter().for_each(|piece| self.buffers.release(piece));
        if let Some(other) = conn.pair.and_then(|pair| self.conns[pair as usize].as_mut()) {
            other.pair = None;
        }
        self.starved.retain(|&starved| starved != at);
        // SAFETY: it points to no memory.
        unsafe { self.ring.push(&Close::new(Fixed(at)).build().user_data(CLOSE)) }
    }

    fn flush(&mut self) -> io::Result<()> {
        let mut dirty = std::mem::take(&mut self.dirty);
        for at in dirty.drain(..) {
            self.send(at)?;
        }
        self.dirty = dirty;
        if !self.starved.is_empty() && self.buffers.free() > 0 {
            for at in std::mem::take(&mut self.starved) {
                self.receive(at)?;
            }
        }
        Ok(())
    }

    #[inline]
    fn send(&mut self, at: u32) -> io::Result<()> {
        let Some(conn) = self.conns[at as usize].as_mut() else { return Ok(()) };
        conn.dirty = false;
        if conn.under_way > 0 || conn.ended || conn.queue.is_empty() {
            return Ok(());
        }
        conn.under_way = conn.queue.len().min(MAX_SLICES);
        let (user, file) = (SEND | u64::from(at), Fixed(at));
        let entry = if conn.under_way == 1 {
            let bytes = &self.buffers.bytes(conn.queue[0])[conn.sent..];
            Send::new(file, bytes.as_ptr(), bytes.len() as u32).flags(SEND_FLAGS).build()
        } else {
            let mut skip = conn.sent;
            for (slice, &piece) in conn.slices.iter_mut().zip(&conn.queue) {
                let bytes = &self.buffers.bytes(piece)[std::mem::take(&mut skip)..];
                *slice = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
            }
            conn.message.msg_iov = conn.slices.as_mut_ptr();
            conn.message.msg_iovlen = conn.under_way;
            SendMsg::new(file, &raw const conn.message).flags(SEND_FLAGS as u32).build()
        };
        // SAFETY: the connection is boxed and kept, and its pieces unreleased, until the completion clears
        // `under_way`; `Drop` waits for that, or leaks them.
        unsafe { self.ring.push(&entry.user_data(user)) }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        // SAFETY: each is dropped once, here, and not used again. With the ring's file closed the kernel cancels what
        // is under way, but not at once: what it may still touch is leaked. It happens once, at the process's end.
        unsafe { ManuallyDrop::drop(&mut self.ring) };
    }
}

impl Conn {
    fn new() -> Box<Conn> {
        Box::new(Conn {
            pair: None,
            queue: VecDeque::with_capacity(MAX_SLICES),
            under_way: 0,
            sent: 0,
            dirty: false,
            receiving: false,
            ended: false,
            // SAFETY: a msghdr of zeros is a valid one without name, slices or control data.
            message: unsafe { std::mem::zeroed() },
            slices: [libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; MAX_SLICES],
        })
    }
}
