//! Integration tests: the broker on real sockets, the client library against it, the command as a process, and the
//! rules the source tree keeps.

#![allow(unreachable_pub)] // one binary: what its modules share is public to each other

mod admin;
mod auth;
#[cfg(all(feature = "forward", feature = "toolkit"))]
mod books;
#[cfg(all(feature = "forward", feature = "toolkit"))]
mod bridges;
mod broker;
mod cli;
#[path = "../../benches/common/mod.rs"]
mod common;
#[cfg(feature = "postgres")]
mod connection_pool;
mod everywhere;
mod examples;
mod failure;
mod fallback;
mod forward;
mod forwarding;
#[cfg(feature = "toolkit")]
mod message_broker;
#[cfg(feature = "otel")]
mod otlp;
mod packaging;
mod pki;
mod producers;
#[cfg(feature = "toolkit")]
mod servers;
mod serving;
mod syscalls;
mod tidy;
mod tls;
mod wire;
