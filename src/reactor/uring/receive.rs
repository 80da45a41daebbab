//! Receiving into buffers that the kernel takes from the ring, and waiting for these when they run out.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::AsRawFd;

use io_uring::squeue::Flags;
use io_uring::{opcode, types::Fd};

use super::Uring;
use super::buffers::GROUP;
use super::ring::{Completion, Op};
use crate::base::Key;
use crate::reactor::{Event, Receive, Sock};

impl Uring {
    pub(super) fn start_receive(&mut self, sock: Sock, how: Receive) {
        let key = Key::unpack(sock.0);
        let Some(socket) = self.sockets.get_mut(key) else { return };
        if socket.closing {
            return;
        }
        // A `Once` in flight is followed by the multishot when it completes; a stream isn't taken back.
        if socket.receive != Some(Receive::Stream) {
            socket.receive = Some(how);
        }
        self.arm_receive(key);
    }

    /// Submits the receive that is asked for, unless one is in flight or waits for buffers.
    fn arm_receive(&mut self, key: Key) {
        let Some(socket) = self.sockets.get_mut(key) else { return };
        let Some(how) = socket.receive.filter(|_| !socket.receiving && !socket.parked) else { return };
        let fd = Fd(socket.fd.as_raw_fd());
        let entry = match how {
            Receive::Stream => opcode::RecvMulti::new(fd, GROUP).build(),
            Receive::Once => opcode::Recv::new(fd, std::ptr::null_mut(), self.pool.buffer_size())
                .buf_group(GROUP)
                .build()
                .flags(Flags::BUFFER_SELECT),
        };
        socket.receiving = true;
        // SAFETY: the kernel writes to buffers it takes from the ring; those are with nobody else until it names
        // them in a completion. The slot keeps the descriptor open as long as `receiving` is set.
        unsafe { self.ring.push(entry.user_data(Op::Receive.on(key))) };
    }

    pub(super) fn receive_completed(&mut self, done: Completion) {
        let buffer = done.buffer();
        if buffer.is_some() {
            self.buffers.took_one();
        }
        let wanted = self.sockets.get_mut(done.key).is_some_and(|socket| {
            socket.receiving = done.more();
            !socket.closing
        });
        match buffer {
            Some(buffer) if done.result > 0 && wanted => self.received(done.key, buffer, done.result as u32),
            Some(buffer) => self.pool.put_back(buffer),
            None => {}
        }
        if wanted && !done.more() {
            self.receive_stopped(done.key, done.result);
        }
    }

    fn received(&mut self, key: Key, buffer: u32, len: u32) {
        let Some(socket) = self.sockets.get_mut(key) else { return };
        let piece = self.pool.lease(buffer, len);
        if socket.receive == Some(Receive::Once) {
            socket.receive = None;
        }
        self.events.push_back((key, Event::Received { user: socket.user, piece }));
    }

    /// Nothing is in flight any more: goes on, waits for buffers, or reports the end.
    fn receive_stopped(&mut self, key: Key, result: i32) {
        let Some(socket) = self.sockets.get_mut(key) else { return };
        let error = match -result {
            libc::ENOBUFS => {
                socket.parked = true;
                self.buffers.ran_out();
                self.parked.push_back(key);
                return;
            }
            code if code < 0 || [libc::EINTR, libc::EAGAIN, libc::ECANCELED].contains(&code) => {
                return self.arm_receive(key);
            }
            0 => None,
            code => Some(io::Error::from_raw_os_error(code)),
        };
        socket.receive = None;
        self.events.push_back((key, Event::ReceiveEnded { user: socket.user, error }));
    }

    /// Arms parked sockets, the longest waiting first, as many as there are buffers: a parked one has bytes to
    /// take for sure, or nearly.
    pub(super) fn unpark(&mut self) {
        let mut room = self.buffers.available();
        while room > 0
            && let Some(key) = self.parked.pop_front()
        {
            if let Some(socket) = self.sockets.get_mut(key)
                && socket.parked
            {
                socket.parked = false;
                if !socket.closing {
                    room -= 1;
                    self.arm_receive(key);
                }
            }
        }
    }
}
