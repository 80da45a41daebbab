//! corelay: a request/reply broker for Linux on io_uring, one pinned thread per core.
//!
//! Consumers stream requests of any size to a *channel*; the broker balances them over the channel's
//! *providers* and streams the answers back. `docs/ARCHITECTURE.md` has the map of the rooms below and
//! who may import whom; `docs/PROTOCOL.md` fixes what is on the wire.
//!
//! | room | what it is | feature |
//! |---|---|---|
//! | [`protocol`] | frames, encode and decode on slices, error codes | always |
//! | `client` | `Consumer`, `Provider`, `ConsumerPool` for tokio programs | `client` |
//! | `forward` | the producer pool: messages to outside systems | `forward`, with `server` |
//! | `toolkit` | worker pool, event processor, connection pool, message broker interface | `toolkit`; of it `worker_pool` in `client` too |
//! | `telemetry` | the admin endpoint: health, metrics, a dashboard | `telemetry` |
//! | `auth` | tokens, the rules on them, and what a session may do | `server` |
//! | `tls` | TLS between reactor and broker core; what the client library's TLS shares with it | `server`, `tls` |
//! | `broker`, `Server` | the broker, embedded or run by `corelay serve` | `server` |

#[cfg(feature = "server")]
pub mod auth;
pub mod base;
pub mod protocol;

#[cfg(feature = "server")]
pub mod broker;
#[cfg(feature = "client")]
pub mod client;
#[cfg(feature = "forward")]
pub mod forward;
#[cfg(feature = "server")]
pub mod reactor;
#[cfg(feature = "telemetry")]
pub mod telemetry;
#[cfg(any(feature = "server", feature = "tls"))]
pub mod tls;
#[cfg(any(feature = "client", feature = "toolkit"))]
pub mod toolkit;

#[cfg(feature = "server")]
pub use broker::Server;

/// The programs of `docs/FORWARDING.md`.
#[cfg(all(doctest, feature = "forward"))]
#[doc = include_str!("../docs/FORWARDING.md")]
pub struct ForwardingDoctests;

/// The README's programs, compiled with the documentation's examples.
#[cfg(all(doctest, feature = "client", feature = "server"))]
#[doc = include_str!("../README.md")]
pub struct ReadmeDoctests;
