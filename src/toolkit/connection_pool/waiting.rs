//! Acquisitions that are not served at once: counted while they last, and bounded in time.
//!
//! Under contention every turn of a connection goes through here, so it takes the books' lock once, together with what
//! is taken from them, looks at the clock twice, and sets no timer of its own.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Mutex, PoisonError};

use tokio::runtime::{Handle, Id};
use tokio::time::Instant;

use super::Factory;
use super::shared::Shared;
use super::state::State;
use crate::toolkit::alarm::Alarm;

/// An acquisition not served at once.
pub(super) struct Waiting<'a, F: Factory> {
    shared: &'a Arc<Shared<F>>,
    begin: Instant,
    served: bool,
}

impl<'a, F: Factory> Waiting<'a, F> {
    pub(super) fn begin(shared: &'a Arc<Shared<F>>, begin: Instant) -> Waiting<'a, F> {
        shared.waiting.fetch_add(1, Relaxed);
        Waiting { shared, begin, served: false }
    }

    /// It gets an idle connection: counted under the lock that was taken for that.
    pub(super) fn served(&mut self, state: &mut State<F::Connection>, now: Instant) {
        self.served = true;
        state.counts.waits.observe(now.saturating_duration_since(self.begin));
        self.shared.waiting.fetch_sub(1, Relaxed);
    }

    /// Counts how it ended; how many waited, this one included.
    pub(super) fn end(self, timed_out: bool) -> usize {
        if !self.served {
            let mut state = self.shared.state();
            state.counts.waits.observe(self.begin.elapsed());
            state.counts.timeouts += u64::from(timed_out);
        }
        self.shared.waiting.load(Relaxed)
    }
}

impl<F: Factory> Drop for Waiting<'_, F> {
    fn drop(&mut self) {
        if self.served {
            return;
        }
        let waiting = self.shared.waiting.fetch_sub(1, Relaxed) - 1;
        let limit = self.shared.options.idle_limit();
        // kept for somebody who gave up
        if limit < self.shared.options.max_open && self.shared.state().idle.len() > limit + waiting {
            self.shared.upkeep.notify_one();
        }
    }
}

/// Alarms kept for the next who wait. Each may keep the memory of a task that waited until it rings, so not too many.
const KEPT: usize = 64;

/// Timers that bound acquisitions, used again and again.
#[derive(Debug)]
pub(super) struct Alarms {
    kept: Mutex<Vec<Alarm>>,
    /// Timers are this runtime's, which may end before another one that uses the pool.
    runtime: Id,
}

impl Alarms {
    pub(super) fn new(runtime: &Handle) -> Alarms {
        Alarms { kept: Mutex::default(), runtime: runtime.id() }
    }

    /// Resolves at `at`; never without one.
    pub(super) async fn ring(&self, at: Option<Instant>) {
        let at_home = Handle::try_current().is_ok_and(|here| here.id() == self.runtime);
        let mut borrowed = Borrowed { alarms: self, alarm: Alarm::default(), at_home };
        if at_home {
            borrowed.alarm = self.kept.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default();
        }
        borrowed.alarm.rings(at).await;
    }
}

/// Goes back however the wait ends.
struct Borrowed<'a> {
    alarms: &'a Alarms,
    alarm: Alarm,
    at_home: bool,
}

impl Drop for Borrowed<'_> {
    fn drop(&mut self) {
        let mut kept = self.alarms.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if self.at_home && kept.len() < KEPT {
            kept.push(std::mem::take(&mut self.alarm));
        }
    }
}
