//! A listening socket of either reactor, and how it backs off when there are no descriptors to be had.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use crate::base::{Key, Table, Time};

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

    /// A descriptor was closed meanwhile, and may be had now: there is no more to wait for. That makes no more attempts
    /// than closes.
    fn hurry(&mut self, now: Time) {
        self.retry_at = self.retry_at.map(|at| at.min(now));
    }

    /// Waits 100 ms, then twice as long each time in a row, up to a second.
    pub(super) fn back_off(&mut self, now: Time) {
        self.retry_at = Some(now + self.delay);
        self.delay = (self.delay * 2).min(LONGEST_DELAY);
    }
}

/// Has the listeners that wait for descriptors look at once, for one was closed.
pub(super) fn hurry(listeners: &mut Table<Listener>, now: Time) {
    let waiting: Vec<Key> =
        listeners.iter().filter(|(_, listener)| listener.retry_at.is_some()).map(|(key, _)| key).collect();
    for key in waiting {
        if let Some(listener) = listeners.get_mut(key) {
            listener.hurry(now);
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, TcpListener};

    #[test]
    fn the_wait_grows_and_a_closed_descriptor_cuts_it_short() {
        let ms = |n: u64| Time::from_nanos(n * 1_000_000);
        let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let mut listeners = Table::new();
        let key = listeners.insert(Listener::new(socket.into(), 0));
        let retry_at = |listeners: &Table<Listener>| listeners.get(key).expect("inserted").retry_at;
        hurry(&mut listeners, ms(0));
        assert_eq!(retry_at(&listeners), None, "it does not wait");
        for (now, at) in [(0, 100), (100, 300), (300, 700), (700, 1500), (1500, 2500), (2500, 3500)] {
            listeners.get_mut(key).expect("inserted").back_off(ms(now));
            assert_eq!(retry_at(&listeners), Some(ms(at)));
        }
        hurry(&mut listeners, ms(2600));
        assert_eq!(retry_at(&listeners), Some(ms(2600)));
        // more of them don't put it off
        hurry(&mut listeners, ms(2650));
        assert_eq!(retry_at(&listeners), Some(ms(2600)));
    }
}
