//! A double for a worker pool's handler.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::{Step, StepError};
use crate::toolkit::worker_pool::{Attempt, Failure, Handler};

/// A [`Handler`] for jobs of any kind: a function of the job and the attempt's number (from 1) says what it does.
/// Clones share what they remember. See the [module](super) for an example.
pub struct ScriptedHandler<J> {
    script: Arc<Script<J>>,
    seen: Arc<Mutex<Seen<J>>>,
    start: Instant,
}

type Script<J> = dyn Fn(&J, u32) -> Step + Send + Sync;

/// One attempt at a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobAttempt<J> {
    /// The job.
    pub job: J,
    /// The attempt's number, from 1.
    pub number: u32,
    /// The worker's number.
    pub worker: usize,
    /// When it began, since the handler was made.
    pub began: Duration,
    /// When it ended, however it did; `None` while it runs.
    pub ended: Option<Duration>,
}

struct Seen<J> {
    attempts: Vec<JobAttempt<J>>,
    failures: Vec<(J, Failure<StepError>)>,
    running: usize,
    most: usize,
}

impl<J: Clone> ScriptedHandler<J> {
    /// A handler that does what `script` says.
    pub fn new(script: impl Fn(&J, u32) -> Step + Send + Sync + 'static) -> ScriptedHandler<J> {
        let seen = Seen { attempts: Vec::new(), failures: Vec::new(), running: 0, most: 0 };
        ScriptedHandler { script: Arc::new(script), seen: Arc::new(Mutex::new(seen)), start: Instant::now() }
    }

    /// A handler that does every job at once.
    #[must_use]
    pub fn willing() -> ScriptedHandler<J> {
        ScriptedHandler::new(|_, _| Step::done())
    }

    /// All attempts so far, in the order they began.
    #[must_use]
    pub fn attempts(&self) -> Vec<JobAttempt<J>> {
        self.seen().attempts.clone()
    }

    /// The jobs that failed for good, in that order, and why.
    #[must_use]
    pub fn failures(&self) -> Vec<(J, Failure<StepError>)> {
        self.seen().failures.clone()
    }

    /// The most attempts that ever ran at once.
    #[must_use]
    pub fn most_at_once(&self) -> usize {
        self.seen().most
    }

    fn seen(&self) -> MutexGuard<'_, Seen<J>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<J> Clone for ScriptedHandler<J> {
    fn clone(&self) -> ScriptedHandler<J> {
        ScriptedHandler { script: self.script.clone(), seen: self.seen.clone(), start: self.start }
    }
}

impl<J> fmt::Debug for ScriptedHandler<J> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScriptedHandler").finish_non_exhaustive()
    }
}

/// An attempt that runs: over when this is dropped, whichever way that comes.
struct Running<'a, J: Clone> {
    handler: &'a ScriptedHandler<J>,
    index: usize,
}

impl<J: Clone> Drop for Running<'_, J> {
    fn drop(&mut self) {
        let mut seen = self.handler.seen();
        seen.attempts[self.index].ended = Some(self.handler.start.elapsed());
        seen.running -= 1;
    }
}

impl<J: Clone + Send + 'static> Handler for ScriptedHandler<J> {
    type Job = J;
    type Error = StepError;

    async fn process(&self, job: &mut J, attempt: &Attempt<'_>) -> Result<(), StepError> {
        let running = {
            let mut seen = self.seen();
            seen.running += 1;
            seen.most = seen.most.max(seen.running);
            let (number, worker, began) = (attempt.number(), attempt.worker(), self.start.elapsed());
            seen.attempts.push(JobAttempt { job: job.clone(), number, worker, began, ended: None });
            Running { handler: self, index: seen.attempts.len() - 1 }
        };
        let result = (self.script)(job, attempt.number()).run().await;
        drop(running);
        result
    }

    fn is_retryable(&self, error: &StepError) -> bool {
        error.retryable
    }

    async fn on_error(&self, job: J, failure: Failure<StepError>) {
        self.seen().failures.push((job, failure));
    }
}
