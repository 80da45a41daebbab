//! One script a rule of `docs/PROTOCOL.md`; the files follow its sections.

mod access;
mod budgets;
mod cores;
mod credit;
mod drain;
mod failures;
mod forwarding;
mod frames;
mod handshake;
mod latency;
mod memory;
mod oneway;
mod queue;
mod reports;
mod retry;
mod streams;
mod timeouts;

use std::time::Duration;

use corelay::base::limits::Limits;

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// The default limits, with a small window.
fn window(bytes: u32) -> Limits {
    Limits { window: bytes, max_window: bytes, ..Limits::default() }
}
