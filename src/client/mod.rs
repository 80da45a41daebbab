//! The client library, for tokio programs: [`Consumer`] sends requests, [`Provider`] answers them.
//!
//! ```text
//!   Consumer ─┐                 ┌─ Response          one tokio task a connection reads and writes it;
//!             ├─ link ─ connection ─ session         handles work on the same session, under its lock
//!   Provider ─┘   │             └─ Request
//!                 └ reconnects, moves on at GOAWAY
//! ```
//!
//! - `session` is one connection's protocol state: pure, no I/O and no clock.
//! - `connection` drives a session over a socket; `link` keeps a connection there, whatever happens.
//! - [`Consumer`], [`Provider`], [`ConsumerPool`], [`Request`] and [`Response`] are the handles of users.
//!
//! ```no_run
//! use std::time::Duration;
//! use corelay::client::Consumer;
//!
//! # async fn example() -> Result<(), corelay::client::Error> {
//! let consumer = Consumer::connect("127.0.0.1:9090", "orders").await?;
//! let response = consumer.send("two apples", Duration::from_secs(5)).await?;
//! println!("{:?}", response.bytes().await?);
//! # Ok(())
//! # }
//! ```

mod addrs;
mod backoff;
mod body;
mod connection;
mod consumer;
mod dial;
mod driver;
mod error;
#[cfg(feature = "toolkit")]
mod events;
mod flight;
mod inbox;
mod keeper;
mod link;
mod metrics;
mod options;
mod ping;
mod pool;
mod provider;
mod pump;
mod reply;
mod request;
mod response;
mod sending;
mod serve;
mod session;
#[cfg(test)]
mod tests;
#[cfg(feature = "tls")]
mod tls;

pub use crate::toolkit::outcome::Outcome;
pub use addrs::{Addr, Addrs, Channel};
pub use body::Body;
pub use consumer::{Consumer, ServerInfo};
pub use error::{Error, ErrorKind};
pub use metrics::Metrics;
pub use options::{Options, Retry, Token};
pub use pool::ConsumerPool;
pub use provider::Provider;
pub use reply::Responder;
pub use request::{Cancellation, Request, RequestReader};
pub use response::{Response, ResponseReader};
pub use sending::RequestBuilder;
pub use serve::ServeOptions;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub use session::fuzzing::session as fuzz_session;
#[cfg(feature = "tls")]
pub use tls::{Connector, Tls};

pub use crate::base::ChannelId;
pub use crate::protocol::{Code, Headers};
