//! The handles of a pool: [`WorkerPool`], [`SourcePool`].

use std::fmt;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::time::Instant;

use super::crew::{Crew, Envelope, Leftover};
use super::handler::Handler;
use super::metrics::{Metrics, Snapshot};
use super::options::{ConfigError, Options};
use super::queue::{Queue, Refused};
use super::source::{Feed, Fetch, Source};
use super::ticket::{Stub, Ticket};
use super::worker::Work;

/// A job that was not accepted; it is in here, unharmed.
#[derive(Clone, PartialEq, Eq)]
pub enum SubmitError<J> {
    /// The queue is full. Only [`WorkerPool::try_submit`] says so, the others wait.
    Full(J),
    /// The pool is shutting down.
    Closed(J),
}

impl<J> SubmitError<J> {
    /// The job.
    pub fn into_job(self) -> J {
        match self {
            SubmitError::Full(job) | SubmitError::Closed(job) => job,
        }
    }
}

impl<J> fmt::Display for SubmitError<J> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SubmitError::Full(_) => "the pool's queue is full",
            SubmitError::Closed(_) => "the pool is shutting down",
        })
    }
}

impl<J> fmt::Debug for SubmitError<J> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SubmitError::Full(_) => "Full(..)",
            SubmitError::Closed(_) => "Closed(..)",
        })
    }
}

impl<J> std::error::Error for SubmitError<J> {}

/// A job a shutdown left over.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Abandoned<J> {
    /// The job, as its last attempt left it.
    pub job: J,
    /// Attempts begun; 0 for one that never came to a worker.
    pub attempts: u32,
}

/// How a shutdown went.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Report<J> {
    /// Jobs that were not done by the deadline: queued, waiting for their next attempt, or stopped in the middle of one.
    pub abandoned: Vec<Abandoned<J>>,
    /// Workers whose handler blocks its thread, so that they can't be stopped. They end by themselves, or with the
    /// process; their jobs are not in `abandoned`.
    pub stuck_workers: usize,
    /// The pool's figures in the end.
    pub metrics: Snapshot,
}

impl<J> Report<J> {
    /// Whether every job was done or failed in its own right.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.abandoned.is_empty() && self.stuck_workers == 0
    }
}

impl<J: Send + 'static> Report<J> {
    fn new(crew: &Crew<J>, left: Leftover<J>) -> Report<J> {
        let abandon = |mut envelope: Envelope<J>| {
            crew.write_off(&mut envelope);
            Abandoned { job: envelope.job, attempts: envelope.attempts }
        };
        let abandoned = left.jobs.into_iter().map(abandon).collect();
        let metrics = Metrics { counts: crew.counts.clone() }.snapshot();
        Report { abandoned, stuck_workers: left.stuck, metrics }
    }
}

/// Works on jobs, at most N at once; see the [module](super). A cheap handle: clones submit to the same pool.
///
/// When the last clone is dropped, the pool takes no more jobs; those it has are done, in the background.
/// [`shutdown`](WorkerPool::shutdown) waits for that, and sets it a limit.
///
/// ```
/// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// use corelay::toolkit::worker_pool::{Options, Retry, WorkerPool, handler_fn};
///
/// let handler = handler_fn(|name: String| async move {
///     println!("hello {name}");
///     Ok::<_, std::io::Error>(())
/// });
/// let pool = WorkerPool::start(Options::new(10).queue(1000).retry(Retry::times(3)), handler)?;
/// pool.submit("job-1".into()).await?;
/// let report = pool.shutdown(Duration::from_secs(5)).await;
/// assert!(report.is_complete());
/// assert_eq!(report.metrics.processed, 1);
/// # Ok(())
/// # }
/// ```
pub struct WorkerPool<J: Send + 'static> {
    inner: Arc<Inner<J>>,
}

struct Inner<J: Send + 'static> {
    /// One a lane.
    queues: Box<[Arc<Queue<Envelope<J>>>]>,
    /// The hash of a job's key, in an ordered pool.
    key: Option<KeyHash<J>>,
    times: bool,
    crew: Arc<Crew<J>>,
}

type KeyHash<J> = Box<dyn Fn(&J) -> u64 + Send + Sync>;

impl<J: Send + 'static> Drop for Inner<J> {
    fn drop(&mut self) {
        self.close();
    }
}

impl<J: Send + 'static> Inner<J> {
    fn close(&self) {
        self.queues.iter().for_each(|queue| queue.close());
    }

    fn queue(&self, key: u64) -> &Queue<Envelope<J>> {
        // there are as many lanes as the pool has workers, so they fit
        &self.queues[(key % self.queues.len() as u64) as usize]
    }

    fn envelope(&self, job: J, stub: Option<Box<Stub>>) -> Envelope<J> {
        let key = self.key.as_ref().map_or(0, |key| key(&job));
        Envelope::new(job, key, self.times.then(Instant::now), stub)
    }

    fn refused(&self, refused: Refused<Envelope<J>>) -> SubmitError<J> {
        match refused {
            Refused::Closed(envelope) => SubmitError::Closed(envelope.job),
            Refused::Full(envelope) => {
                self.crew.counts.rejected.fetch_add(1, Relaxed);
                SubmitError::Full(envelope.job)
            }
        }
    }
}

impl<J: Send + 'static> Clone for WorkerPool<J> {
    fn clone(&self) -> WorkerPool<J> {
        WorkerPool { inner: self.inner.clone() }
    }
}

impl<J: Send + 'static> fmt::Debug for WorkerPool<J> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerPool").field("metrics", &self.metrics().snapshot()).finish_non_exhaustive()
    }
}

impl<J: Send + 'static> WorkerPool<J> {
    /// Starts a pool whose workers take jobs in the order they were submitted, whoever is free.
    ///
    /// # Errors
    /// [`ConfigError`] for options no pool can be built on, or outside of a tokio runtime.
    pub fn start<H: Handler<Job = J>>(options: Options, handler: H) -> Result<WorkerPool<J>, ConfigError> {
        WorkerPool::launch(options, handler, None)
    }

    /// Starts a pool that keeps order by key: jobs with the same `key` are worked on by the same worker, one after the
    /// other as they were submitted, also when some have to wait for another attempt. Jobs of other keys don't wait for
    /// those. Keys are hashed with a secret seed, so nobody can choose them to end up at one worker.
    ///
    /// ```
    /// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use std::time::Duration;
    /// use corelay::toolkit::worker_pool::{Options, WorkerPool, handler_fn};
    /// let handler = handler_fn(|(account, amount): (u32, i64)| async move {
    ///     println!("{account}: {amount:+}");
    ///     Ok::<_, String>(())
    /// });
    /// let pool = WorkerPool::start_ordered(Options::new(4), handler, |(account, _)| *account)?;
    /// for amount in [100, -30, -70] {
    ///     pool.submit((1, amount)).await?; // in this order
    /// }
    /// assert!(pool.shutdown(Duration::from_secs(5)).await.is_complete());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`WorkerPool::start`]; the queue must have room for a job a worker.
    pub fn start_ordered<H, K>(
        options: Options,
        handler: H,
        key: impl Fn(&J) -> K + Send + Sync + 'static,
    ) -> Result<WorkerPool<J>, ConfigError>
    where
        H: Handler<Job = J>,
        K: Hash,
    {
        let seed = RandomState::new();
        WorkerPool::launch(options, handler, Some(Box::new(move |job| seed.hash_one(key(job)))))
    }

    fn launch<H: Handler<Job = J>>(
        options: Options,
        handler: H,
        key: Option<KeyHash<J>>,
    ) -> Result<WorkerPool<J>, ConfigError> {
        let ordered = key.is_some();
        let crew = crew_for(&options, ordered)?;
        let room = options.queue / crew.lanes.len();
        let queues =
            crew.lanes.iter().map(|_| Arc::new(Queue::new(room, crew.counts.clone()))).collect::<Box<[Arc<_>]>>();
        let times = options.times;
        start(options, handler, queues.clone(), crew.clone());
        Ok(WorkerPool { inner: Arc::new(Inner { queues, key, times, crew }) })
    }

    /// Submits a job; waits while the queue is full. If the future is dropped meanwhile, the job is not submitted.
    ///
    /// # Errors
    /// [`SubmitError::Closed`] when the pool is shutting down, also while waiting.
    pub async fn submit(&self, job: J) -> Result<(), SubmitError<J>> {
        self.push(job, None).await
    }

    /// Submits a job if there is room for it.
    ///
    /// # Errors
    /// [`SubmitError::Full`] (counted as rejected) or [`SubmitError::Closed`].
    pub fn try_submit(&self, job: J) -> Result<(), SubmitError<J>> {
        self.try_push(job, None)
    }

    /// As [`WorkerPool::submit`], for a job to be followed or cancelled.
    ///
    /// # Errors
    /// As [`WorkerPool::submit`].
    pub async fn submit_tracked(&self, job: J) -> Result<Ticket, SubmitError<J>> {
        let (ticket, stub) = Stub::new();
        self.push(job, Some(Box::new(stub))).await?;
        Ok(ticket)
    }

    /// As [`WorkerPool::try_submit`], for a job to be followed or cancelled.
    ///
    /// # Errors
    /// As [`WorkerPool::try_submit`].
    pub fn try_submit_tracked(&self, job: J) -> Result<Ticket, SubmitError<J>> {
        let (ticket, stub) = Stub::new();
        self.try_push(job, Some(Box::new(stub)))?;
        Ok(ticket)
    }

    async fn push(&self, job: J, stub: Option<Box<Stub>>) -> Result<(), SubmitError<J>> {
        let envelope = self.inner.envelope(job, stub);
        let pushed = self.inner.queue(envelope.key).push(envelope).await;
        pushed.map_err(|refused| self.inner.refused(refused))
    }

    fn try_push(&self, job: J, stub: Option<Box<Stub>>) -> Result<(), SubmitError<J>> {
        let envelope = self.inner.envelope(job, stub);
        let pushed = self.inner.queue(envelope.key).try_push(envelope);
        pushed.map_err(|refused| self.inner.refused(refused))
    }

    /// Shuts down: takes no more jobs, does those it has, retries included, and gives up on what is not done after
    /// `deadline`. What was being worked on then is dropped where it stands, and reported with the rest.
    pub async fn shutdown(&self, deadline: Duration) -> Report<J> {
        self.inner.close();
        let mut left = self.inner.crew.end(deadline).await;
        left.jobs.extend(self.inner.queues.iter().flat_map(|queue| queue.drain()));
        Report::new(&self.inner.crew, left)
    }

    /// Whether the pool takes no more jobs.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.inner.crew.closing.is_cancelled()
    }

    /// What the pool counts.
    #[must_use]
    pub fn metrics(&self) -> Metrics {
        Metrics { counts: self.inner.crew.counts.clone() }
    }
}

/// Works on jobs that its workers fetch from a [`Source`] themselves, at most N at once: with no queue between, a job
/// waits where it comes from, and what holds it back there knows. [`Options::queue`] bounds those that wait for their
/// next attempt.
///
/// When it is dropped, no more jobs are fetched; those in hand are done, in the background.
///
/// ```
/// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use corelay::toolkit::worker_pool::{Options, Source, SourcePool, handler_fn};
/// use std::sync::atomic::{AtomicU32, Ordering};
///
/// struct Countdown(AtomicU32);
///
/// impl Source for Countdown {
///     type Job = u32;
///
///     async fn next(&self) -> Option<u32> {
///         let left = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
///         left.ok()
///     }
/// }
///
/// let handler = handler_fn(|n: u32| async move { if n == 5 { Err("five") } else { Ok(()) } });
/// let pool = SourcePool::start(Options::new(2), Countdown(10.into()), handler)?;
/// pool.finished().await;
/// let done = pool.metrics().snapshot();
/// assert_eq!((done.processed, done.failed), (9, 1));
/// # Ok(())
/// # }
/// ```
pub struct SourcePool<J: Send + 'static> {
    crew: Arc<Crew<J>>,
}

impl<J: Send + 'static> Drop for SourcePool<J> {
    fn drop(&mut self) {
        self.close();
    }
}

impl<J: Send + 'static> fmt::Debug for SourcePool<J> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SourcePool").field("metrics", &self.metrics().snapshot()).finish_non_exhaustive()
    }
}

impl<J: Send + 'static> SourcePool<J> {
    /// Starts the workers.
    ///
    /// # Errors
    /// As [`WorkerPool::start`].
    pub fn start<S, H>(options: Options, source: S, handler: H) -> Result<SourcePool<J>, ConfigError>
    where
        S: Source<Job = J>,
        H: Handler<Job = J>,
    {
        let crew = crew_for(&options, false)?;
        start(options, handler, Box::new([Fetch(source)]), crew.clone());
        Ok(SourcePool { crew })
    }

    /// Resolves when the source has no more jobs and all it had are over.
    pub async fn finished(&self) {
        self.crew.gone().await;
    }

    /// Fetches no more jobs; those in hand are done.
    pub fn close(&self) {
        self.crew.lanes.iter().for_each(|lane| lane.end());
    }

    /// As [`WorkerPool::shutdown`].
    pub async fn shutdown(&self, deadline: Duration) -> Report<J> {
        self.close();
        let left = self.crew.end(deadline).await;
        Report::new(&self.crew, left)
    }

    /// What the pool counts.
    #[must_use]
    pub fn metrics(&self) -> Metrics {
        Metrics { counts: self.crew.counts.clone() }
    }
}

/// Nobody's crew yet, for options that are sound.
fn crew_for<J: Send + 'static>(options: &Options, ordered: bool) -> Result<Arc<Crew<J>>, ConfigError> {
    options.validate(ordered)?;
    if tokio::runtime::Handle::try_current().is_err() {
        return Err(ConfigError::NoRuntime);
    }
    let parked = if ordered { options.queue / options.workers } else { options.queue };
    Ok(Crew::new(options.workers, ordered, parked))
}

fn start<H: Handler, F: Feed<H::Job>>(options: Options, handler: H, feeds: Box<[F]>, crew: Arc<Crew<H::Job>>) {
    let Options { retry, timeout, times, .. } = options;
    Arc::new(Work { handler, retry, timeout, times, feeds, crew }).start();
}
