//! Waking a reactor from any thread: an eventfd that its [`Reactor::wait`](super::Reactor::wait) listens to.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::event::EventfdFlags;

use super::Waker;

impl Waker {
    pub(super) fn new() -> io::Result<Waker> {
        let fd: OwnedFd = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Waker { fd: Arc::new(fd) })
    }

    /// Ends the reactor's present wait, or else its next one. From any thread; one system call.
    pub fn wake(&self) {
        // Can only fail with EAGAIN, where 2^64 - 2 wake-ups are pending already.
        let _ = rustix::io::write(&*self.fd, &1u64.to_ne_bytes());
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
