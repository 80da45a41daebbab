//! A socket's slot: what is asked for, and what the kernel has in flight.

use std::os::fd::OwnedFd;

use super::send::Stretches;
use crate::base::Batch;
use crate::reactor::Receive;

/// The slot lives until the kernel has nothing in flight on it, so that no late completion meets another tenant.
pub(super) struct Socket {
    pub(super) fd: OwnedFd,
    pub(super) user: u64,
    /// The receiving that was asked for and has not ended.
    pub(super) receive: Option<Receive>,
    /// A receive is in flight.
    pub(super) receiving: bool,
    /// The receive waits for buffers.
    pub(super) parked: bool,
    /// A poll for room to send is in flight.
    pub(super) polling: bool,
    /// Bytes of the batch that are in flight.
    pub(super) sending: Option<usize>,
    pub(super) batch: Option<Batch>,
    /// Where the kernel finds the batch's stretches, if they are several.
    pub(super) stretches: Option<Box<Stretches>>,
    pub(super) closing: bool,
    pub(super) abort: bool,
}

impl Socket {
    pub(super) fn new(fd: OwnedFd, user: u64) -> Socket {
        Socket {
            fd,
            user,
            receive: None,
            receiving: false,
            parked: false,
            polling: false,
            sending: None,
            batch: None,
            stretches: None,
            closing: false,
            abort: false,
        }
    }

    /// Whether the kernel has something in flight on the socket, or will with the next entry.
    pub(super) fn in_flight(&self) -> bool {
        self.receiving || self.polling || self.sending.is_some()
    }
}
