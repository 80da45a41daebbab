//! A worker's clock: when its attempts begin, when they end, and when they have to.

use std::time::Duration;

use tokio::time::Instant;

use crate::toolkit::alarm::Alarm;

/// Asking for the time costs more than all else around a short job: where one follows the other at once, it begins when
/// that has ended. Nor is a timer set for each job.
#[derive(Debug)]
pub(super) struct Clock {
    /// Nobody wants to know how long attempts take.
    is_off: bool,
    last: Option<Instant>,
    /// One for all jobs of the worker.
    alarm: Alarm,
}

impl Clock {
    pub(super) fn new(times: bool) -> Clock {
        Clock { is_off: !times, last: None, alarm: Alarm::default() }
    }

    /// Something came in between that took time.
    pub(super) fn stale(&mut self) {
        self.last = None;
    }

    /// When an attempt begins.
    pub(super) fn begin(&mut self) -> Option<Instant> {
        if self.is_off {
            return None;
        }
        Some(*self.last.get_or_insert_with(Instant::now))
    }

    /// How long it took, from `began` to now.
    pub(super) fn end(&mut self, began: Option<Instant>) -> Option<Duration> {
        let now = began.map(|_| Instant::now());
        self.last = now;
        Some(now? - began?)
    }

    /// Resolves at `at`; never without one.
    pub(super) async fn rings(&mut self, at: Option<Instant>) {
        self.alarm.rings(at).await;
    }
}
