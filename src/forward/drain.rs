//! The end of a producer: its runner's, or without it.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::producer::Shared;
use super::wait;
use super::{Counters, Report};

/// How long a runner may take to end when the time is up: it writes dead letters, and its client says goodbye.
const GRACE: Duration = Duration::from_secs(5);

/// A shutdown under way.
pub(super) struct Drain<'a> {
    shared: &'a Shared,
    before: Counters,
    deadline: Instant,
}

impl Drain<'_> {
    /// From here on nothing new is taken.
    pub(super) fn begin(shared: &Shared, within: Duration) -> Drain<'_> {
        let before = shared.queue(|queue| queue.counters.clone());
        let deadline = Instant::now() + within;
        shared.close(deadline);
        Drain { shared, before, deadline }
    }

    /// Waits for the runner's end, as long as there is use in it; on an executor that is not tokio's, which has no
    /// clock, in any case.
    pub(super) async fn finish(self) -> Report {
        if tokio::runtime::Handle::try_current().is_err() {
            self.ended().await;
        } else if timeout_at(self.deadline, self.ended()).await.is_err()
            && (self.is_never_run() || timeout_at(self.deadline + GRACE, self.ended()).await.is_err())
        {
            self.settle();
        }
        self.report()
    }

    /// The same on a thread that has no runtime.
    pub(super) fn finish_blocking(self) -> Report {
        let is_late = |deadline: Instant| wait::block_on_until(self.ended(), deadline.into_std()).is_none();
        if is_late(self.deadline) && (self.is_never_run() || is_late(self.deadline + GRACE)) {
            self.settle();
        }
        self.report()
    }

    async fn ended(&self) {
        let _ = self.shared.finished.subscribe().wait_for(|finished| *finished).await;
    }

    fn is_never_run(&self) -> bool {
        !self.shared.started.load(Ordering::Acquire)
    }

    /// Gives up, in the runner's place, what is not in its hands.
    fn settle(&self) {
        self.shared.note_left();
        self.shared.give_up_waiting();
    }

    fn report(self) -> Report {
        let after = self.shared.queue(|queue| queue.counters.clone());
        Report {
            forwarded: after.forwarded - self.before.forwarded,
            left: self.shared.left(),
            unsettled: after.queue_messages,
            dead_lettered: after.dead_lettered - self.before.dead_lettered,
            dropped: after.dropped.since(&self.before.dropped),
        }
    }
}
