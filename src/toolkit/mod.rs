//! Parts for programs around a broker, each usable on its own: they import nothing of the rest of the crate.
//!
//! | part | what it is | feature |
//! |---|---|---|
//! | [`worker_pool`] | jobs on at most N workers: retries, timeouts, order by key, an orderly end | `client` or `toolkit` |
//! | `event_processor` | events to the handlers of their type | `toolkit` |
//! | `testing` | handlers that do as a test tells them | `toolkit` |

#[cfg(feature = "toolkit")]
pub mod event_processor;
#[cfg(feature = "toolkit")]
pub mod testing;
pub mod worker_pool;
