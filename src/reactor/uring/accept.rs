//! Accepting, multishot, with a back-off where there are no descriptors.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

use io_uring::{opcode, types::Fd};

use super::Uring;
use super::ring::{Completion, Op};
use crate::base::Key;
use crate::reactor::listener::{Listener, hurry, is_of_the_connection};
use crate::reactor::{Event, sys};

impl Uring {
    pub(super) fn start_listening(&mut self, fd: OwnedFd, tag: u32) {
        let key = self.listeners.insert(Listener::new(fd, tag));
        self.arm_accept(key);
    }

    fn arm_accept(&mut self, key: Key) {
        let Some(listener) = self.listeners.get_mut(key) else { return };
        listener.armed = true;
        listener.retry_at = None;
        let fd = Fd(listener.fd.as_raw_fd());
        let entry = opcode::AcceptMulti::new(fd).flags(libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK).build();
        // SAFETY: points to nothing; the slot keeps the descriptor open as long as `armed` is set.
        unsafe { self.ring.push(entry.user_data(Op::Accept.on(key))) };
    }

    pub(super) fn accept_completed(&mut self, done: Completion) {
        let fd = (done.result >= 0).then(|| {
            // SAFETY: the kernel made this descriptor for us; nobody else knows it.
            unsafe { OwnedFd::from_raw_fd(done.result) }
        });
        let Some(listener) = self.listeners.get_mut(done.key) else { return };
        listener.armed = done.more();
        if listener.stopping {
            if !listener.armed {
                self.listeners.remove(done.key);
            }
            return;
        }
        let tag = listener.tag;
        match fd {
            Some(fd) => {
                listener.accepted();
                self.events.push_back((done.key, Event::Accepted { listener: tag, fd }));
            }
            None => {
                let error = io::Error::from_raw_os_error(-done.result);
                if !is_of_the_connection(&error) {
                    listener.back_off(sys::now());
                    self.events.push_back((done.key, Event::AcceptFailed { listener: tag, error }));
                }
            }
        }
        if !listener.armed && listener.retry_at.is_none() {
            self.arm_accept(done.key);
        }
    }

    /// Arms the listeners whose back-off is over; says when the next one's is.
    pub(super) fn retry_accepts(&mut self) -> Option<Duration> {
        if self.listeners.iter().all(|(_, listener)| listener.retry_at.is_none()) {
            return None;
        }
        let now = sys::now();
        if std::mem::take(&mut self.freed) {
            hurry(&mut self.listeners, now);
        }
        let due: Vec<Key> = (self.listeners.iter())
            .filter(|(_, listener)| !listener.armed && listener.retry_at.is_some_and(|at| at <= now))
            .map(|(key, _)| key)
            .collect();
        due.into_iter().for_each(|key| self.arm_accept(key));
        self.listeners.iter().filter_map(|(_, listener)| listener.retry_at).min().map(|at| at - now)
    }

    pub(super) fn end_listening(&mut self) {
        let all: Vec<(Key, bool)> = self.listeners.iter().map(|(key, listener)| (key, listener.armed)).collect();
        for (key, armed) in all {
            if !armed {
                self.listeners.remove(key);
            } else if let Some(listener) = self.listeners.get_mut(key)
                && !std::mem::replace(&mut listener.stopping, true)
            {
                listener.retry_at = None;
                self.ring.cancel(Op::Accept.on(key));
            }
        }
    }
}
