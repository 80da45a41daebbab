//! Everything that moves bytes: a thin io_uring layer, the connections of the load engine on it, and the relay that
//! is the machine's limit. The only place of this crate with `unsafe`.
//!
//! ```text
//!   Ring      one io_uring of one thread: push, enter once a turn, completions copied out
//!   Buffers   the receive buffers the kernel picks from
//!   Net       the load engine's connections: multishot receive, one send in flight each
//!   Relay     the limit: what comes from one connection goes out of its pair
//! ```
//!
//! Invariants: memory handed to the kernel stays where it is until the operation's last completion; at the end the
//! operations under way are waited for before anything is freed.

#![allow(unsafe_code)]

mod buffers;
mod net;
mod out;
mod relay;
mod ring;

pub use buffers::Piece;
pub use net::{Completion, Net};
pub use out::{FILLER, Out};
pub use relay::{Relay, RelayOptions};
