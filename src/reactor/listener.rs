//! A listening socket of either reactor, and how it backs off when there are no descriptors to be had.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use crate::base::Time;

/// Long enough for descriptors to be closed meanwhile, short enough not to be noticed by who connects.
const FIRST_DELAY: Duration = Duration::from_millis(100);
/// The kernel's own SYN retry is a second, too.
const LONGEST_DELAY: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Listener {
    pub(super) fd: OwnedFd,
    pub(super) tag: u32,
    /// Whether the kernel accepts for us at present.
    pub(super) armed: bool,
    pub(super) stopping: bool,
    /// When to try again after a failure.
    pub(super) retry_at: Option<Time>,
    delay: Duration,
}

impl Listener {
    pub(super) fn new(fd: OwnedFd, tag: u32) -> Listener {
        Listener { fd, tag, armed: false, stopping: false, retry_at: None, delay: FIRST_DELAY }
    }

    /// A connection came in: the next failure is a first one again.
    pub(super) fn accepted(&mut self) {
        self.delay = FIRST_DELAY;
    }

    /// Waits 100 ms, then twice as long each time in a row, up to a second.
    pub(super) fn back_off(&mut self, now: Time) {
        self.retry_at = Some(now + self.delay);
        self.delay = (self.delay * 2).min(LONGEST_DELAY);
    }
}

/// Whether only the connection being accepted failed (accept(2), "Error handling"), so that accepting goes on.
pub(super) fn is_of_the_connection(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::ECONNABORTED
                | libc::EINTR
                | libc::EAGAIN
                | libc::EPERM
                | libc::EPROTO
                | libc::ENETDOWN
                | libc::ENOPROTOOPT
                | libc::EHOSTDOWN
                | libc::ENONET
                | libc::EHOSTUNREACH
                | libc::EOPNOTSUPP
                | libc::ENETUNREACH
        )
    )
}
