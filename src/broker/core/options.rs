//! What one core's broker is told at its start.

use uuid::Uuid;

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
    /// Channels that get a [`Meter`](super::Meter) of their own.
    pub meters: usize,
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
