//! Tests of the pool as a whole. The clock is tokio's, paused: it moves on only when nothing else can.

mod faults;
mod limits;
mod metrics;
mod order;
mod shutdown;
mod sources;

use std::time::Duration;

use tokio::runtime::{Builder, Runtime};

use super::*;
use crate::toolkit::testing::{ScriptedHandler, Step};

const MINUTE: Duration = Duration::from_secs(60);

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Retries at set times: the first after 100 ms, then twice as long each time.
fn regular(times: u32) -> Retry {
    Retry::times(times).base(ms(100)).jitter(0.0)
}

fn paused() -> Runtime {
    Builder::new_current_thread().enable_time().start_paused(true).build().unwrap()
}

/// Every job has ended in one way.
fn assert_balanced(now: &Snapshot) {
    let ended = now.processed + now.failed + now.cancelled + now.abandoned;
    assert_eq!((ended, now.queued, now.running, now.waiting), (now.submitted, 0, 0, 0), "{now:?}");
}
