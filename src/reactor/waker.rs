//! Waking a reactor from any thread: an eventfd that its [`Reactor::wait`](super::Reactor::wait) listens to.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;

use rustix::event::EventfdFlags;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::Waker;

impl Waker {
    /// One that wakes whatever watches [`Waker::readable`].
    ///
    /// # Errors
    /// Out of descriptors.
    pub fn new() -> io::Result<Waker> {
        let fd: OwnedFd = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Waker { fd: Arc::new(fd) })
    }

    /// Ends the reactor's present wait, or else its next one. From any thread; one system call.
    pub fn wake(&self) {
        // Can only fail with EAGAIN, where 2^64 - 2 wake-ups are pending already.
        let _ = rustix::io::write(&*self.fd, &1u64.to_ne_bytes());
    }

    /// For a tokio task that is to be woken.
    ///
    /// # Errors
    /// Not within a tokio runtime with I/O.
    pub fn readable(&self) -> io::Result<AsyncFd<Waker>> {
        // SAFETY: the AsyncFd owns a clone of this waker, and with it a share of the descriptor: it stays open, and the
        // same, as long as it is registered.
        Ok(unsafe { AsyncFd::register_with_interest(self.clone(), Interest::READABLE) }?)
    }

    /// Takes the wake-ups so far.
    ///
    /// # Errors
    /// `WouldBlock` if there were none.
    pub fn clear(&self) -> io::Result<()> {
        rustix::io::read(&*self.fd, &mut [0; 8])?;
        Ok(())
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for Waker {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}
