//! The load generator of corelay: open-loop load, latency histograms, and the machine's limit beside it.
//!
//! ```text
//!   cli ─► run ─► dial ─► engine (one thread each) ─► pump (io_uring)
//!            │               └─ frames, nats, zmtp: the protocols, on byte slices
//!            └─► report: table, JSON, .hgrm, interval log, HTML
//!   limit, compare: start brokers as child processes, run the same engine against each
//! ```
//!
//! | module | what it is |
//! |---|---|
//! | [`schedule`], [`size`] | when requests are intended to be sent, and how large they are |
//! | [`engine`] | one thread, many connections, consumers and providers both |
//! | [`proc`], [`admin`] | what a broker uses of its machine |
//! | [`pump`] | the bytes: io_uring, and the relay that is the limit |

pub mod admin;
pub mod children;
pub mod cli;
pub mod compare;
pub mod dial;
pub mod engine;
pub mod frames;
#[cfg(feature = "tokio")]
pub mod library;
pub mod measure;
pub mod nats;
pub mod proc;
pub mod pump;
pub mod report;
pub mod run;
pub mod schedule;
pub mod size;
pub mod wire;
pub mod zmtp;
