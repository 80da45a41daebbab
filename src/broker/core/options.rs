//! What one core's broker is told at its start.

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::tap::Route;
use crate::auth::AccessList;
use crate::base::ChannelId;
use crate::base::limits::Limits;

/// Options of one core. All cores of a broker are given the same, but for `core` and `seed`.
#[derive(Clone, Debug)]
pub struct Options {
    /// Which core this is.
    pub core: u16,
    /// How many there are.
    pub cores: u16,
    /// The broker's id, stated in WELCOME.
    pub server: Uuid,
    /// Seed of this core's choices between providers.
    pub seed: u64,
    /// Secret key of the hashes of channel and request ids, the same on all cores.
    pub secret: u64,
    /// The limits in force.
    pub limits: Limits,
    /// Channels that depart from them.
    pub channels: Vec<Channel>,
    /// Bodies shorter than this are copied, longer ones passed on by reference, in bytes.
    pub copy_below: usize,
    /// Who is to get a copy of what: one entry a producer, at most [`MAX_ROUTES`](super::MAX_ROUTES).
    pub routes: Vec<Route>,
    /// Copied bytes that may be on their way to the companion at once.
    pub tap_bytes: usize,
    /// Who may do what, at the start; [`Core::set_access`](super::Core::set_access) changes it.
    pub access: Arc<AccessList>,
    /// Channels that get a [`Meter`](super::Meter) of their own.
    pub meters: usize,
}

/// The limits on a request's timeout, as its frame states it: in milliseconds, rounded up.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timeouts {
    default: u32,
    max: u32,
}

impl Timeouts {
    pub(super) fn new(limits: &Limits) -> Timeouts {
        let millis = |time: Duration| u32::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(u32::MAX);
        Timeouts { default: millis(limits.default_timeout), max: millis(limits.max_timeout) }
    }

    /// How long a request may take that states `arg`.
    #[inline]
    pub(super) fn of(self, arg: u32) -> u32 {
        if arg == 0 { self.default } else { arg.min(self.max) }
    }
}

/// What one channel has of its own.
#[derive(Clone, Debug)]
pub struct Channel {
    /// Which channel.
    pub id: ChannelId,
    /// Over how many cores its connections are dealt; 1 for all on its home core.
    pub spread: u16,
    /// Window on new streams, in bytes.
    pub window: Option<u32>,
    /// Requests that may wait.
    pub queue_requests: Option<u32>,
    /// Body bytes that may wait.
    pub queue_bytes: Option<usize>,
}

/// Where a piece by reference begins to beat a copy into the staging buffer, in bytes. A copy of 2 KiB costs about
/// as much as one more iovec with its lease; measured with `loadgen`, see the README's performance section.
pub const COPY_BELOW: usize = 2048;
