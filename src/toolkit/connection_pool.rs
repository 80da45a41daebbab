//! A pool of connections of any kind: databases, sockets, whatever is dear to open and cheap to keep.
//!
//! ```text
//!   get ──► turn (first come, first served) ──► idle connection? ──► fit? ──► Guard ──► back on drop
//!             at most max_open                     │ none             │ no
//!                                                  ▼                  ▼
//!   upkeep: health checks, idle and life      Factory::create      Factory::close
//!   times, min_idle                           retried, jittered    counted by reason
//! ```
//!
//! - A [`Factory`] says how to create and validate a connection; [`TcpFactory`] and (feature `postgres`)
//!   `PostgresFactory` are ready to use.
//! - [`Options`] has the sizes and times; contradictory ones are refused when the pool is made.
//! - [`Pool::get`] lends a [`Guard`], which gives the connection back when dropped, or [discards](Guard::discard) it.
//! - [`Pool::stats`] is one consistent snapshot; [`Pool::register`] shows the same on a metrics page.
//!
//! Invariants: whoever holds a connection outside the idle list (a user, a check, a closing) holds one of `max_open`
//! turns, so that there are never more connections than that; and every connection created is, in every snapshot,
//! idle, in use, checked, closing, or closed for exactly one [`CloseReason`].
//!
//! ```
//! use corelay::toolkit::connection_pool::{Options, Pool, TcpFactory};
//! use tokio::io::AsyncWriteExt;
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let server = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
//! let options = Options { max_open: 25, max_idle: Some(5), ..Options::default() };
//! let pool = Pool::new(TcpFactory::new(server.local_addr()?.to_string()), options)?;
//! {
//!     let mut conn = pool.get().await?;
//!     conn.write_all(b"hello").await?;
//! } // back in the pool
//! assert_eq!(pool.stats().idle, 1);
//! pool.close().await;
//! # Ok(())
//! # }
//! ```

mod error;
mod factory;
mod guard;
mod lease;
mod metrics;
mod options;
mod pool;
#[cfg(feature = "postgres")]
mod postgres;
mod shared;
mod state;
mod stats;
mod tcp;
#[cfg(test)]
mod tests;
mod upkeep;
mod waiting;

pub use error::{Error, Stage};
pub use factory::{Closing, Factory};
pub use guard::Guard;
pub use options::{InvalidOptions, Options, Order};
pub use pool::Pool;
#[cfg(feature = "postgres")]
pub use postgres::{PostgresConnection, PostgresError, PostgresFactory};
pub use stats::{CloseReason, Closed, Stats, WaitTimes};
pub use tcp::TcpFactory;
