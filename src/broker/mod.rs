//! The broker: the state machine in [`core`], the loop that drives it on each core, and the server around them.

mod admission;
pub mod core;
mod cpus;
mod inspect;
mod listener;
mod machine;
mod mesh;
pub mod options;
mod reload;
mod server;
mod shard;

pub use self::inspect::{Inspector, ShardFigures, View};
#[cfg(feature = "telemetry")]
pub(crate) use self::listener::Listener;
pub use self::options::*;
pub use self::reload::Reloader;
pub use self::server::{Server, ServerError, Stopper};
