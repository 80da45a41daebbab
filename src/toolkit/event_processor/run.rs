//! One handler and one event: attempts, their time, their failures.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use tokio::time::{Instant, sleep, timeout};

use super::error::{Cause, HandlerFailure};
use super::event::RawEvent;
use super::metrics::HandlerCounts;
use super::registry::Entry;
use crate::toolkit::contain::contain;

/// Counts an event as in the handler's hands, until dropped.
struct Running<'a>(&'a AtomicU64);

impl<'a> Running<'a> {
    fn begin(counts: &'a HandlerCounts) -> Running<'a> {
        counts.running.fetch_add(1, Relaxed);
        Running(&counts.running)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl Entry {
    /// Has the handler deal with an event, trying again as its options say.
    pub(super) async fn run(&self, event: &RawEvent) -> Result<(), HandlerFailure> {
        let (counts, retry) = (&*self.counts, &self.options.retry);
        let _running = Running::begin(counts);
        let mut attempts = 1;
        loop {
            let (cause, again) = match self.attempt(event).await {
                Ok(()) => {
                    counts.processed.fetch_add(1, Relaxed);
                    return Ok(());
                }
                Err(failed) => failed,
            };
            if !again || attempts > retry.max_retries() {
                counts.failed.fetch_add(1, Relaxed);
                return Err(HandlerFailure { handler: self.name.clone(), cause, attempts });
            }
            counts.retried.fetch_add(1, Relaxed);
            sleep(retry.draw(attempts)).await;
            attempts += 1;
        }
    }

    /// One attempt; why it failed, and whether it may be tried again.
    async fn attempt(&self, event: &RawEvent) -> Result<(), (Cause, bool)> {
        let counts = &*self.counts;
        let began = Instant::now();
        let handled = contain(async { self.handler.handle(event).await });
        let result = match self.options.timeout {
            None => Ok(handled.await),
            Some(limit) => timeout(limit, handled).await.map_err(|_| limit),
        };
        counts.attempts.record(began.elapsed());
        match result {
            Ok(Ok(Ok(()))) => Ok(()),
            Ok(Ok(Err(error))) => {
                if error.malformed {
                    counts.malformed.fetch_add(1, Relaxed);
                }
                let again = error.retryable;
                Err((Cause::Failed(Arc::new(error)), again))
            }
            Ok(Err(text)) => {
                counts.panics.fetch_add(1, Relaxed);
                tracing::error!(handler = &*self.name, panic = text, "an event handler panicked");
                Err((Cause::Panicked(text), false))
            }
            Err(limit) => {
                counts.timeouts.fetch_add(1, Relaxed);
                Err((Cause::TimedOut(limit), true))
            }
        }
    }
}
