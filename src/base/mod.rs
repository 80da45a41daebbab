//! What every room may use: identifiers, time, generation-tagged tables, byte pieces, the timer wheel,
//! histograms and the limits. Nothing here does I/O.

mod backoff;
pub mod buffer;
pub mod channel;
pub mod histogram;
pub mod keys;
pub mod limits;
pub mod secret;
pub mod time;
pub mod wheel;

pub use backoff::backoff;
pub use buffer::{Batch, Leases, NoLeases, Piece, Segment};
pub use channel::ChannelId;
pub use histogram::Histogram;
pub use keys::{Key, Table};
pub use secret::Secret;
pub use time::Time;
