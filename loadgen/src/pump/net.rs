//! The connections of one load thread: multishot receive, one send in flight each.

use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use io_uring::opcode::{RecvMulti, Send, SendMsg};
use io_uring::types::Fixed;

use super::buffers::{Buffers, GROUP, Piece};
use super::out::Out;
use super::ring::{Cqe, Ring};

/// Receive buffers of a thread. 256 of 64 KiB: a 64 KiB body in one or two pieces, and all of it fits a server's L3.
const BUFFERS: u16 = 256;
const BUFFER_SIZE: u32 = 64 << 10;
/// Slices one send may gather.
const MAX_SLICES: usize = 64;
/// How long operations under way are waited for at the end.
const CLOSING: Duration = Duration::from_secs(2);
/// The bit of `user_data` that tells a send from a receive.
const SEND: u64 = 1 << 32;
const SEND_FLAGS: i32 = libc::MSG_WAITALL | libc::MSG_NOSIGNAL;

/// What happened on a connection.
#[derive(Debug)]
pub enum Completion {
    /// Bytes came; give the piece to [`Net::release`] when they are read.
    Received {
        /// Which connection: its place among those given to [`Net::new`].
        conn: u32,
        /// The bytes, for [`Net::bytes`].
        piece: Piece,
    },
    /// All that was given to [`Net::send`] is with the kernel.
    Sent {
        /// Which connection.
        conn: u32,
    },
    /// It is over: closed by the other side, or by an error.
    Ended {
        /// Which connection.
        conn: u32,
        /// What went wrong, if anything.
        error: Option<io::Error>,
    },
}

/// A connection's sending half, in a box of its own: the kernel holds pointers into it.
struct Sending {
    out: Out,
    sent: usize,
    message: libc::msghdr,
    slices: [libc::iovec; MAX_SLICES],
}

struct Conn {
    fd: OwnedFd,
    sending: Box<Sending>,
    busy: bool,
    open: bool,
}

/// The connections of one thread, on a ring of their own.
pub struct Net {
    // dropped in this order: the ring first, then what it points into
    ring: ManuallyDrop<Ring>,
    buffers: ManuallyDrop<Buffers>,
    conns: ManuallyDrop<Vec<Conn>>,
    ready: Vec<Cqe>,
    next: usize,
    rearm: Vec<u32>,
}

impl std::fmt::Debug for Net {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Net({} connections)", self.conns.len())
    }
}

impl Net {
    /// Takes these connected sockets over and begins to receive on all of them. Call it on the thread that will use
    /// it.
    ///
    /// # Errors
    /// If io_uring can't be had or the files can't be registered.
    pub fn new(sockets: Vec<OwnedFd>) -> io::Result<Net> {
        let ring = Ring::new()?;
        let buffers = Buffers::new(BUFFERS, BUFFER_SIZE);
        let fds: Vec<_> = sockets.iter().map(AsRawFd::as_raw_fd).collect();
        buffers.register(&ring.submitter())?;
        if !fds.is_empty() {
            ring.submitter().register_files(&fds)?;
        }
        let rearm = (0..fds.len() as u32).collect();
        let conns = sockets.into_iter().map(Conn::new).collect();
        Ok(Net {
            ring: ManuallyDrop::new(ring),
            buffers: ManuallyDrop::new(buffers),
            conns: ManuallyDrop::new(conns),
            ready: Vec::with_capacity(16 << 10),
            next: 0,
            rearm,
        })
    }

    /// Whether a send is under way.
    #[must_use]
    #[inline]
    pub fn is_sending(&self, conn: u32) -> bool {
        self.conns[conn as usize].busy
    }

    /// Sends all of `out`, which is left empty. Nothing else may be under way on that connection.
    ///
    /// # Errors
    /// If the kernel takes no operations.
    pub fn send(&mut self, conn: u32, out: &mut Out) -> io::Result<()> {
        let state = &mut self.conns[conn as usize];
        assert!(!state.busy, "one send at a time");
        if !state.open {
            out.clear();
            return Ok(());
        }
        std::mem::swap(&mut state.sending.out, out);
        state.sending.sent = 0;
        state.busy = true;
        self.submit_send(conn)
    }

    fn submit_send(&mut self, conn: u32) -> io::Result<()> {
        let sending = &mut *self.conns[conn as usize].sending;
        let user = SEND | u64::from(conn);
        let file = Fixed(conn);
        let entry = match sending.out.plain() {
            Some(bytes) => {
                let left = &bytes[sending.sent..];
                Send::new(file, left.as_ptr(), left.len() as u32).flags(SEND_FLAGS).build()
            }
            None => SendMsg::new(file, sending.gather()).flags(SEND_FLAGS as u32).build(),
        };
        // SAFETY: `sending` is boxed, and neither it nor its bytes change until the completion clears `busy`; `Drop`
        // waits for that, or leaks it.
        unsafe { self.ring.push(&entry.user_data(user)) }
    }

    /// Submits what was given and waits: until something happened, or `timeout` has passed (`None`: for ever).
    ///
    /// # Errors
    /// What the kernel said, if the ring can't go on.
    pub fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        for conn in self.rearm.drain(..) {
            if self.conns[conn as usize].open {
                let entry = RecvMulti::new(Fixed(conn), GROUP).build().user_data(u64::from(conn));
                // SAFETY: it points to no memory; the buffers of the group live until the ring is gone.
                unsafe { self.ring.push(&entry)? };
            }
        }
        debug_assert!(self.next == self.ready.len(), "completions left unread");
        self.ready.clear();
        self.next = 0;
        self.ring.turn(&mut self.buffers, timeout, &mut self.ready)
    }

    /// Submits what was given, without waiting: in the middle of a turn.
    ///
    /// # Errors
    /// As [`Net::wait`].
    pub fn submit(&mut self) -> io::Result<()> {
        self.ring.submit(&mut self.buffers)
    }

    /// The next thing that happened in this turn.
    ///
    /// # Errors
    /// As [`Net::send`].
    pub fn next_completion(&mut self) -> io::Result<Option<Completion>> {
        while let Some(&cqe) = self.ready.get(self.next) {
            self.next += 1;
            let found = if cqe.user & SEND == 0 { self.received(cqe) } else { self.sent(cqe)? };
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    #[inline]
    fn received(&mut self, cqe: Cqe) -> Option<Completion> {
        let conn = cqe.user as u32;
        if !cqe.more() {
            self.rearm.push(conn);
        }
        match (cqe.result, cqe.buffer()) {
            (len @ 1.., Some(buffer)) => {
                Some(Completion::Received { conn, piece: self.buffers.take(buffer, len as u32) })
            }
            // buffers come back within this turn: armed again in the next
            (result, _) if result == -libc::ENOBUFS => None,
            (result, _) => self.ended(conn, result),
        }
    }

    fn sent(&mut self, cqe: Cqe) -> io::Result<Option<Completion>> {
        let conn = cqe.user as u32;
        let state = &mut self.conns[conn as usize];
        if cqe.result < 0 {
            state.busy = false;
            state.sending.out.clear();
            return Ok(self.ended(conn, cqe.result));
        }
        state.sending.sent += cqe.result as usize;
        if state.sending.sent < state.sending.out.len() {
            self.submit_send(conn)?;
            return Ok(None);
        }
        state.busy = false;
        state.sending.out.clear();
        Ok(Some(Completion::Sent { conn }))
    }

    fn ended(&mut self, conn: u32, result: i32) -> Option<Completion> {
        let state = &mut self.conns[conn as usize];
        if !std::mem::take(&mut state.open) {
            return None;
        }
        // ends the operation of the other direction, too
        let _ = rustix::net::shutdown(&state.fd, rustix::net::Shutdown::Both);
        let error = (result < 0).then(|| io::Error::from_raw_os_error(-result));
        Some(Completion::Ended { conn, error })
    }

    /// Whether this turn's completions are not all taken yet.
    #[must_use]
    #[inline]
    pub fn has_completions(&self) -> bool {
        self.next < self.ready.len()
    }

    /// Gives a connection up: nothing is sent on it any more, and [`Completion::Ended`] follows no more.
    pub fn shutdown(&mut self, conn: u32) {
        let _ = self.ended(conn, 0);
    }

    /// The bytes of a piece.
    #[must_use]
    #[inline]
    pub fn bytes(&self, piece: Piece) -> &[u8] {
        self.buffers.bytes(piece)
    }

    /// Gives a piece's buffer back to the kernel.
    #[inline]
    pub fn release(&mut self, piece: Piece) {
        self.buffers.release(piece);
    }

    /// Ends all operations and waits for their completions.
    fn close(&mut self) -> bool {
        for conn in self.conns.iter_mut() {
            conn.open = false;
            let _ = rustix::net::shutdown(&conn.fd, rustix::net::Shutdown::Both);
        }
        let until = Instant::now() + CLOSING;
        while self.ring.outstanding() > 0 && Instant::now() < until {
            self.ready.clear();
            if self.ring.turn(&mut self.buffers, Some(Duration::from_millis(10)), &mut self.ready).is_err() {
                break;
            }
            for cqe in &self.ready {
                if let Some(buffer) = cqe.buffer() {
                    let piece = self.buffers.take(buffer, 0);
                    self.buffers.release(piece);
                }
            }
        }
        self.ring.outstanding() == 0
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        let quiet = self.close();
        // SAFETY: each is dropped once, here, and not used again. What the kernel may still write to is leaked.
        unsafe {
            ManuallyDrop::drop(&mut self.ring);
            if quiet {
                ManuallyDrop::drop(&mut self.buffers);
                ManuallyDrop::drop(&mut self.conns);
            }
        }
    }
}

impl Conn {
    fn new(fd: OwnedFd) -> Conn {
        // SAFETY: a msghdr of zeros is a valid one without name, slices or control data.
        let message = unsafe { std::mem::zeroed() };
        let slices = [libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; MAX_SLICES];
        let sending = Sending { out: Out::with_capacity(4096), sent: 0, message, slices };
        Conn { fd, sending: Box::new(sending), busy: false, open: true }
    }
}

impl Sending {
    /// Points the message at what is not sent yet, as far as the slices reach.
    fn gather(&mut self) -> *const libc::msghdr {
        let mut used = 0;
        let slices = &mut self.slices;
        self.out.slices(self.sent, |bytes| {
            slices[used] = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
            used += 1;
            used < MAX_SLICES
        });
        self.message.msg_iov = self.slices.as_mut_ptr();
        self.message.msg_iovlen = used;
        &raw const self.message
    }
}
