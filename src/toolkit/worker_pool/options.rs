//! How a pool is set up: [`Options`].

use std::time::Duration;

use tokio::sync::Semaphore;

use super::retry::{Retry, RetryError};

/// The most workers a pool may have: a guard against a figure that is none (a negative one, cast).
pub const MAX_WORKERS: usize = 1 << 20;

/// How long an attempt may take in a pool that is told nothing else: 5 min. That is ten times what the toolkit gives
/// where somebody waits for an outcome (an event's handler, a message's: 30 s), as jobs are what nobody waits for: they
/// convert, upload, report. And it is short enough for workers that all hang on a peer which went away to be back before
/// anybody has been called out of bed.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(300);

/// A pool's workers, queue, retries and timeout.
///
/// ```
/// use std::time::Duration;
/// use corelay::toolkit::worker_pool::{Options, Retry};
/// let options = Options::new(10).queue(1000).retry(Retry::times(3)).timeout(Duration::from_secs(30));
/// # let _ = options;
/// ```
#[derive(Clone, Debug)]
pub struct Options {
    pub(super) workers: usize,
    pub(super) queue: usize,
    pub(super) retry: Retry,
    pub(super) timeout: Option<Duration>,
    pub(super) times: bool,
}

/// [`Options`] no pool can be built on.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// Nobody would work.
    #[error("a pool of no workers; expected at least 1")]
    NoWorkers,
    /// More than [`MAX_WORKERS`].
    #[error("{0} workers; expected at most {MAX_WORKERS}")]
    TooManyWorkers(usize),
    /// Nothing could be submitted.
    #[error("a queue for no jobs; expected room for at least 1")]
    NoQueue,
    /// More than can be counted.
    #[error("a queue for {0} jobs; expected at most {max}", max = Semaphore::MAX_PERMITS)]
    QueueTooLarge(usize),
    /// An ordered pool has a queue a worker, and this is not enough for each to have one.
    #[error(
        "a queue for {queue} jobs can't be shared out to {workers} workers that keep order; expected at least {workers}"
    )]
    QueueBelowWorkers {
        /// As given.
        queue: usize,
        /// As given.
        workers: usize,
    },
    /// Every job would time out.
    #[error("a timeout of zero; expected more, or none")]
    ZeroTimeout,
    /// Workers are tasks of a tokio runtime.
    #[error("no tokio runtime here to start workers on")]
    NoRuntime,
    /// The retries contradict themselves.
    #[error("retries: {0}")]
    Retry(#[from] RetryError),
}

impl Options {
    /// At most `workers` jobs at once (1 to [`MAX_WORKERS`]), a queue for 1,000, no retries, and [`DEFAULT_TIMEOUT`].
    #[must_use]
    pub fn new(workers: usize) -> Options {
        Options { workers, queue: 1000, retry: Retry::never(), timeout: Some(DEFAULT_TIMEOUT), times: true }
    }

    /// Jobs that may wait for a worker, at least 1. An ordered pool shares it out evenly to its workers. As many again,
    /// and one a worker, may wait for their next attempt.
    #[must_use]
    pub fn queue(mut self, jobs: usize) -> Options {
        self.queue = jobs;
        self
    }

    /// When a job that failed or timed out is tried again.
    #[must_use]
    pub fn retry(mut self, retry: Retry) -> Options {
        self.retry = retry;
        self
    }

    /// How long each attempt at a job may take, [`Handler::on_error`](super::Handler::on_error) too. A job may have
    /// [its own](super::Handler::timeout). Default [`DEFAULT_TIMEOUT`]. With `None` a job that never ends keeps its
    /// worker until the pool is shut down.
    #[must_use]
    pub fn timeout(mut self, timeout: impl Into<Option<Duration>>) -> Options {
        self.timeout = timeout.into();
        self
    }

    /// Leaves [`Snapshot::queue_time`](super::Snapshot::queue_time) and
    /// [`Snapshot::attempt_time`](super::Snapshot::attempt_time) empty: looking at the clock, two or three times a job,
    /// is most of what the pool costs a short one.
    #[must_use]
    pub fn without_times(mut self) -> Options {
        self.times = false;
        self
    }

    /// # Errors
    /// What no pool can be built on.
    pub(super) fn validate(&self, ordered: bool) -> Result<(), ConfigError> {
        let (queue, workers) = (self.queue, self.workers);
        if workers == 0 {
            return Err(ConfigError::NoWorkers);
        }
        if workers > MAX_WORKERS {
            return Err(ConfigError::TooManyWorkers(workers));
        }
        if queue == 0 {
            return Err(ConfigError::NoQueue);
        }
        if queue > Semaphore::MAX_PERMITS {
            return Err(ConfigError::QueueTooLarge(queue));
        }
        if ordered && queue < workers {
            return Err(ConfigError::QueueBelowWorkers { queue, workers });
        }
        if self.timeout.is_some_and(|timeout| timeout.is_zero()) {
            return Err(ConfigError::ZeroTimeout);
        }
        Ok(self.retry.validate()?)
    }
}
