//! What is done with a job: [`Handler`].

use std::fmt::{self, Display};
use std::future::Future;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Works on jobs; one for all workers of a pool.
///
/// ```
/// use corelay::toolkit::worker_pool::{Attempt, Failure, Handler};
///
/// struct Mailer;
///
/// impl Handler for Mailer {
///     type Job = String;
///     type Error = std::io::Error;
///
///     async fn process(&self, address: &mut String, _: &Attempt<'_>) -> Result<(), std::io::Error> {
///         println!("mail to {address}");
///         Ok(())
///     }
///
///     async fn on_error(&self, address: String, failure: Failure<std::io::Error>) {
///         eprintln!("no mail to {address}: {failure}");
///     }
/// }
/// ```
pub trait Handler: Send + Sync + 'static {
    /// What there is to do.
    type Job: Send + 'static;
    /// Why it was not done.
    type Error: Display + Send + 'static;

    /// Works on `job`. What an attempt that failed leaves in it, the next one finds.
    ///
    /// The future is dropped where it stands when the job's timeout or deadline passes, when its [`Ticket`](super::Ticket) is
    /// cancelled, and when a shutdown's deadline passes. A panic is contained: the job fails with [`Cause::Panicked`].
    fn process(
        &self,
        job: &mut Self::Job,
        attempt: &Attempt<'_>,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// A job failed for good: its retries are spent, its error is none to retry, or it panicked. Logs it, unless
    /// implemented. A panic in here is contained and counted.
    fn on_error(&self, job: Self::Job, failure: Failure<Self::Error>) -> impl Future<Output = ()> + Send {
        async move {
            drop(job);
            tracing::warn!(%failure, "a job failed");
        }
    }

    /// Whether trying again may help. It may, unless implemented. Panics are never retried, timeouts always, up to the
    /// job's [deadline](Handler::deadline).
    fn is_retryable(&self, error: &Self::Error) -> bool {
        let _ = error;
        true
    }

    /// How long each attempt at this job may take, instead of the pool's [timeout](super::Options::timeout).
    fn timeout(&self, job: &Self::Job) -> Option<Duration> {
        let _ = job;
        None
    }

    /// When this job is of no use any more: what runs then is stopped with [`Cause::TooLate`], and nothing is begun
    /// behind it. Beside the timeout of each attempt, not instead of it. Never, unless implemented.
    fn deadline(&self, job: &Self::Job) -> Option<Instant> {
        let _ = job;
        None
    }
}

/// One attempt at a job.
#[derive(Clone, Copy, Debug)]
pub struct Attempt<'a> {
    pub(super) number: u32,
    pub(super) worker: usize,
    pub(super) deadline: Option<Instant>,
    pub(super) closing: &'a CancellationToken,
}

impl Attempt<'_> {
    /// Which attempt at this job it is; the first is 1.
    #[must_use]
    pub fn number(&self) -> u32 {
        self.number
    }

    /// The worker's number, from 0 and below [`Options::new`](super::Options::new)'s.
    #[must_use]
    pub fn worker(&self) -> usize {
        self.worker
    }

    /// When this attempt is stopped.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Cancelled when the pool begins to shut down: a long job may put itself aside then. It need not; it has until
    /// the shutdown's deadline.
    #[must_use]
    pub fn closing(&self) -> &CancellationToken {
        self.closing
    }
}

/// A job that failed for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure<E> {
    /// Why the last attempt failed.
    pub cause: Cause<E>,
    /// Attempts that were made, at least 1.
    pub attempts: u32,
}

/// Why an attempt failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause<E> {
    /// The handler said so.
    Failed(E),
    /// It took longer than it may.
    TimedOut(Duration),
    /// The job's [deadline](Handler::deadline) passed.
    TooLate,
    /// The handler panicked, with this text.
    Panicked(String),
}

impl<E: Display> Display for Cause<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cause::Failed(error) => error.fmt(f),
            Cause::TooLate => f.write_str("not done by its deadline"),
            Cause::TimedOut(after) => write!(f, "not done within {after:?}"),
            Cause::Panicked(text) => write!(f, "the handler panicked: {text}"),
        }
    }
}

impl<E: Display> Display for Failure<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.attempts {
            1 => self.cause.fmt(f),
            n => write!(f, "{} (after {n} attempts)", self.cause),
        }
    }
}

impl<E: Display + fmt::Debug> std::error::Error for Failure<E> {}

/// A [`Handler`] from a function of the job. Each attempt gets a clone of it: put what is large behind an
/// [`Arc`](std::sync::Arc).
///
/// ```
/// # #[tokio::main] async fn main() {
/// use std::time::Duration;
/// use corelay::toolkit::worker_pool::{Options, WorkerPool, handler_fn};
/// let handler = handler_fn(|n: u64| async move { if n < 10 { Ok(()) } else { Err("too large") } });
/// let pool = WorkerPool::start(Options::new(2), handler).unwrap();
/// pool.submit(1).await.unwrap();
/// pool.submit(10).await.unwrap();
/// let report = pool.shutdown(Duration::from_secs(1)).await;
/// assert_eq!((report.metrics.processed, report.metrics.failed), (1, 1));
/// # }
/// ```
pub fn handler_fn<J, F, R, E>(function: F) -> HandlerFn<F, J>
where
    F: Fn(J) -> R + Send + Sync + 'static,
    R: Future<Output = Result<(), E>> + Send,
    J: Clone + Send + 'static,
    E: Display + Send + 'static,
{
    HandlerFn { function, job: std::marker::PhantomData }
}

/// What [`handler_fn`] gives.
pub struct HandlerFn<F, J> {
    function: F,
    job: std::marker::PhantomData<fn(J)>,
}

impl<F, J> fmt::Debug for HandlerFn<F, J> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HandlerFn").finish_non_exhaustive()
    }
}

impl<J, F, R, E> Handler for HandlerFn<F, J>
where
    F: Fn(J) -> R + Send + Sync + 'static,
    R: Future<Output = Result<(), E>> + Send,
    J: Clone + Send + 'static,
    E: Display + Send + 'static,
{
    type Job = J;
    type Error = E;

    async fn process(&self, job: &mut J, _: &Attempt<'_>) -> Result<(), E> {
        (self.function)(job.clone()).await
    }
}
