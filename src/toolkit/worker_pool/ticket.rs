//! Following one job: [`Ticket`].

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

/// How a job ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The handler did it.
    Done,
    /// It failed for good, with this text.
    Failed(String),
    /// Its ticket was cancelled.
    Cancelled,
    /// A shutdown left it over.
    Abandoned,
}

/// Follows one job, from [`WorkerPool::submit_tracked`](super::WorkerPool::submit_tracked). Dropping it changes
/// nothing for the job.
///
/// ```
/// # #[tokio::main] async fn main() {
/// use corelay::toolkit::worker_pool::{Options, Outcome, WorkerPool, handler_fn};
/// let handler = handler_fn(|_: u32| std::future::pending::<Result<(), String>>());
/// let pool = WorkerPool::start(Options::new(1), handler).unwrap();
/// let ticket = pool.submit_tracked(7).await.unwrap();
/// ticket.cancel();
/// assert_eq!(ticket.outcome().await, Outcome::Cancelled);
/// # }
/// ```
#[derive(Debug)]
pub struct Ticket {
    token: CancellationToken,
    outcome: oneshot::Receiver<Outcome>,
}

impl Ticket {
    /// Stops the job where it stands, by dropping the handler's future. One that is queued or waits for its next attempt
    /// isn't begun, but keeps its place until its turn comes.
    pub fn cancel(&self) {
        self.token.cancel();
    }

    /// The same, to hand to others.
    #[must_use]
    pub fn token(&self) -> &CancellationToken {
        &self.token
    }

    /// How the job ended, once it has.
    pub async fn outcome(self) -> Outcome {
        self.outcome.await.unwrap_or(Outcome::Abandoned)
    }
}

/// The worker's end of a ticket.
#[derive(Debug)]
pub(super) struct Stub {
    pub(super) token: CancellationToken,
    outcome: oneshot::Sender<Outcome>,
}

impl Stub {
    pub(super) fn new() -> (Ticket, Stub) {
        let (sender, receiver) = oneshot::channel();
        let token = CancellationToken::new();
        (Ticket { token: token.clone(), outcome: receiver }, Stub { token, outcome: sender })
    }

    pub(super) fn end(self, outcome: Outcome) {
        // nobody need wait for it
        let _ = self.outcome.send(outcome);
    }
}
