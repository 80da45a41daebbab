//! The task that looks after a pool: closes what is due, validates what is idle, keeps `min_idle` ready.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::lease::{Checking, Creating, Turn};
use super::shared::Shared;
use super::{CloseReason, Factory};

/// Validations at once in the background: a quarter of the connections, this many at most, so that users always
/// find turns.
const MOST_CHECKS: usize = 8;

/// Runs until the pool is closed.
pub(super) async fn run<F: Factory>(shared: Arc<Shared<F>>) {
    let mut health_at = shared.options.health_interval.map(|interval| Instant::now() + interval);
    let mut refill = Refill::new();
    loop {
        if shared.state().closed {
            return;
        }
        reap(&shared).await;
        if let (Some(at), Some(interval)) = (health_at, shared.options.health_interval)
            && at <= Instant::now()
        {
            check_idle(&shared).await;
            health_at = Some(Instant::now() + interval);
        }
        let refill_at = refill.run(&shared).await;
        let next = {
            let mut state = shared.state();
            let next = [state.next_due(&shared.options), health_at, refill_at].into_iter().flatten().min();
            state.upkeep_at = next;
            next
        };
        tokio::select! {
            () = shared.upkeep.notified() => {}
            () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {}
        }
    }
}

/// Closes the idle connections that are due.
async fn reap<F: Factory>(shared: &Arc<Shared<F>>) {
    while shared.state().find_due(&shared.options, Instant::now()).is_some() {
        let Ok(turn) = Turn::wait(shared).await else { return };
        let due = shared.state().take_due(&shared.options, Instant::now());
        if let Some((entry, reason)) = due {
            shared.close(entry.conn, reason, Some(turn));
        }
    }
}

/// Validates what was idle at the beginning, several at once, and closes what doesn't answer.
async fn check_idle<F: Factory>(shared: &Arc<Shared<F>>) {
    let begin = Instant::now();
    let mut workers = JoinSet::new();
    for _ in 0..(shared.options.max_open / 4).clamp(1, MOST_CHECKS) {
        workers.spawn(check_each(shared.clone(), begin));
    }
    while workers.join_next().await.is_some() {}
}

async fn check_each<F: Factory>(shared: Arc<Shared<F>>, begin: Instant) {
    loop {
        let Ok(turn) = Turn::wait(&shared).await else { return };
        let Some(entry) = shared.state().take_unchecked(begin) else { return };
        let mut checking = Checking::new(turn, entry);
        match checking.validate().await {
            Ok(()) => checking.keep(),
            Err(error) => {
                tracing::debug!(%error, "an idle connection is dead");
                checking.close(CloseReason::Invalid);
            }
        }
    }
}

/// Opens connections up to `min_idle`, with growing pauses while that fails.
struct Refill {
    backoff: Option<backon::ExponentialBackoff>,
    not_before: Option<Instant>,
}

impl Refill {
    const fn new() -> Refill {
        Refill { backoff: None, not_before: None }
    }

    /// Opens what is missing; when to try again if that failed.
    async fn run<F: Factory>(&mut self, shared: &Arc<Shared<F>>) -> Option<Instant> {
        if self.not_before.is_some_and(|at| at > Instant::now()) {
            return self.not_before;
        }
        self.not_before = None;
        while shared.state().lacks_idle(&shared.options) {
            // none free: all are in use, and whoever changes that wakes the upkeep
            let turn = Turn::take_free(shared)?;
            let creating = Creating::begin(shared)?;
            match shared.create(creating, 1).await {
                Ok(entry) => {
                    Checking::new(turn, entry).keep();
                    self.backoff = None;
                }
                Err(error) => {
                    let backoff = self.backoff.get_or_insert_with(|| shared.options.backoff());
                    let pause: Duration = backoff.next().unwrap_or(shared.options.backoff_max);
                    tracing::warn!(%error, ?pause, "could not open a connection to keep ready");
                    self.not_before = Some(Instant::now() + pause);
                    return self.not_before;
                }
            }
        }
        None
    }
}
