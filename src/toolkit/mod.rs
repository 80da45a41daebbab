//! Building blocks for programs around a broker, each usable on its own, with or without it.
//!
//! | part | what it is | feature |
//! |---|---|---|
//! | [`worker_pool`] | jobs on at most N workers: retries, timeouts, order by key, an orderly end | `client` or `toolkit` |
//! | `event_processor` | events to the handlers of their type | `toolkit` |
//! | `connection_pool` | connections of any kind, lent first come first served | `toolkit` |
//! | `message_broker` | one interface over systems that carry messages | `toolkit`; adapters: `client`, `nats`, `redis`, `amqp`, `kafka` |
//! | `testing` | doubles of handlers, servers and systems that do as a test tells them | `toolkit` |

mod alarm;
#[cfg(feature = "toolkit")]
pub mod connection_pool;
mod contain;
#[cfg(feature = "toolkit")]
pub mod event_processor;
#[cfg(feature = "toolkit")]
pub mod message_broker;
pub(crate) mod outcome;
#[cfg(feature = "toolkit")]
pub mod testing;
pub mod worker_pool;
