//! Counting a request while it is in flight.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::time::Instant;

use super::{Error, Metrics};

/// One client's figures.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) metrics: Metrics,
    in_flight: AtomicUsize,
}

impl Counts {
    pub(super) fn new(metrics: Metrics) -> Arc<Counts> {
        Arc::new(Counts { metrics, in_flight: AtomicUsize::new(0) })
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }
}

/// A request in flight: counted from its making to its drop.
#[derive(Debug)]
pub(super) struct Flight {
    counts: Arc<Counts>,
    /// Provider: when the request came.
    began: Option<Instant>,
}

impl Flight {
    pub(super) fn begin(counts: &Arc<Counts>, began: Option<Instant>) -> Flight {
        counts.metrics.requests.inc();
        counts.metrics.in_flight.inc();
        counts.in_flight.fetch_add(1, Ordering::Relaxed);
        Flight { counts: counts.clone(), began }
    }

    pub(super) fn counts(&self) -> &Arc<Counts> {
        &self.counts
    }

    pub(super) fn failed(&self, error: &Error) {
        self.counts.metrics.count_error(error.kind);
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.counts.metrics.in_flight.dec();
        self.counts.in_flight.fetch_sub(1, Ordering::Relaxed);
        if let Some(began) = self.began {
            self.counts.metrics.handler_seconds.observe(began.elapsed().as_secs_f64());
        }
    }
}
