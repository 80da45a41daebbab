//! What every room may use: identifiers, time, generation-tagged tables, byte pieces, the timer wheel and
//! the limits. Nothing here does I/O.

pub mod buffer;
pub mod channel;
pub mod keys;
pub mod limits;
pub mod time;
pub mod wheel;

pub use buffer::{Batch, Leases, Piece, Segment};
pub use channel::ChannelId;
pub use keys::{Key, Table};
pub use time::Time;
