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
mod client;
mod dead_letter;
pub mod envelope;
mod error;
mod message;
mod options;
mod outcome;
mod producer;
mod queue;
mod runner;
pub mod runtime;
mod stats;
mod trouble;
mod wait;

pub use breaker::State;
pub use client::{BatchFuture, Client, Done, Promise, SendFuture, Takes};
pub use error::{SendError, SendErrorKind};
pub use message::{Headers, Kind, Message, Part};
pub use options::{OptionsError, ProducerOptions, WhenFull};
pub use outcome::{DropReason, ForwardError, NotTaken};
pub use producer::Producer;
pub use runner::Runner;
pub use stats::{Counters, Dropped, LastError, Report, Snapshot};

#[cfg(test)]
#[path = "tests/mod.rs"]
mod tests;
