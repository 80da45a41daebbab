//! Forwarding to outside systems: a pool of producers, each with a client for one target.
//!
//! ```text
//!   message ──► ProducerPool ──► Producer  queue, policy, health ──► Client  one target ──► tcp, http, nats, ...
//!                          └───► Producer  ...                                      one failing holds up no other
//! ```
//!
//! A [`Client`] knows one target and how to put a [`Message`] there; bring your own by implementing it. What a target
//! promises is its client's [`Promise`].

mod client;
mod error;
mod message;

pub use client::{BatchFuture, Client, Done, Promise, SendFuture, Takes};
pub use error::{SendError, SendErrorKind};
pub use message::{Headers, Kind, Message, Part};
