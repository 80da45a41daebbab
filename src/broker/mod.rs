//! The broker: the state machine in [`core`], the loop that drives it on each core, and the server around them.

mod admission;
mod builder;
mod companion;
pub mod core;
mod cpus;
mod inspect;
mod listener;
mod machine;
mod mesh;
mod noise;
pub mod options;
mod reload;
mod server;
mod shard;
mod tell;

pub use self::builder::ServerBuilder;
pub use self::companion::CoreProducer;
pub use self::inspect::{Inspector, ShardFigures, View};
#[cfg(feature = "telemetry")]
pub(crate) use self::listener::Listener;
pub use self::options::*;
pub use self::reload::Reloader;
pub use self::server::{Server, ServerError, Stopper};
pub use self::shard::TlsFigures;
pub use self::tell::{Span, SpanSink, Told, spans};
