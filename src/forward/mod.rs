//! Forwarding to outside systems: a pool of producers, each with a client for one target.
//!
//! ```text
//!   message ──► ProducerPool ──► Producer  queue, policy, health ──► Client  one target ──► tcp, http, nats, ...
//!                          └───► Producer  ...                                      one failing holds up no other
//! ```
//!
//! A [`Client`] knows one target and how to put a [`Message`] there; bring your own by implementing it. What a target
//! promises is its client's [`Promise`]. A [`Producer`] is the queue before it; its [`Runner`] sends, waits and tries
//! again, on one thread's [`runtime`]. `docs/FORWARDING.md` has the table of clients and what they promise.

mod breaker;
#[cfg(any(feature = "nats", feature = "redis", feature = "amqp", feature = "kafka"))]
pub mod bridges;
mod client;
mod clients;
mod dead_letter;
mod drain;
pub mod envelope;
mod error;
mod factory;
pub mod framing;
#[cfg(any(feature = "nats", feature = "redis", feature = "amqp", feature = "kafka", feature = "postgres"))]
mod headers;
mod message;
mod one_file;
mod options;
mod outcome;
mod pool;
#[cfg(feature = "postgres")]
mod postgres;
mod producer;
mod queue;
mod redact;
mod runner;
pub mod runtime;
mod stats;
#[cfg(any(feature = "nats", feature = "redis", feature = "amqp", feature = "kafka", feature = "postgres"))]
mod target;
mod trouble;
mod url;
mod wait;

pub use breaker::State;
#[cfg(feature = "amqp")]
pub use bridges::AmqpClient;
#[cfg(feature = "kafka")]
pub use bridges::KafkaClient;
#[cfg(feature = "nats")]
pub use bridges::NatsClient;
#[cfg(feature = "redis")]
pub use bridges::RedisClient;
pub use client::{BatchFuture, Client, Done, Promise, SendFuture, Takes};
pub use clients::*;
pub use error::{SendError, SendErrorKind};
pub use factory::{ClientFactory, EnvError, RegisterError, producer_id, producers_from_env};
pub use framing::{Format, Framing};
pub use message::{Headers, Kind, Message, Part};
pub use options::{OptionsError, ProducerOptions, WhenFull};
pub use outcome::{DropReason, ForwardError, NotTaken};
pub use pool::{
    PoolError, ProducerPool, Results, add_tcp_producer, add_tcp_producer_with_timeout, forward_to_all_producers,
    forward_to_all_producers_blocking, forward_to_producer, forward_to_producer_blocking, get_producer_pool,
};
#[cfg(feature = "postgres")]
pub use postgres::PostgresClient;
pub use producer::Producer;
pub use redact::redact;
pub use runner::Runner;
pub use stats::{Counters, Dropped, LastError, Report, Snapshot};
pub use url::UrlError;

#[cfg(test)]
#[path = "tests/mod.rs"]
mod tests;
