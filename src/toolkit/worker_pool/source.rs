//! Where a worker gets new jobs: from its pool's queue, or by fetching them itself.

use std::future::Future;
use std::sync::Arc;

use super::crew::Envelope;
use super::queue::Queue;

/// Jobs that workers fetch themselves, with no queue between: see [`SourcePool`](super::SourcePool).
///
/// ```
/// use corelay::toolkit::worker_pool::Source;
/// use tokio::sync::{Mutex, mpsc};
///
/// /// Jobs from a channel.
/// struct Mailbox(Mutex<mpsc::Receiver<String>>);
///
/// impl Source for Mailbox {
///     type Job = String;
///
///     async fn next(&self) -> Option<String> {
///         self.0.lock().await.recv().await
///     }
/// }
/// ```
pub trait Source: Send + Sync + 'static {
    /// What there is to do.
    type Job: Send + 'static;

    /// The next job; `None` when there are no more. Many workers ask at once, and a worker may drop the future and ask
    /// again: that must lose no job.
    fn next(&self) -> impl Future<Output = Option<Self::Job>> + Send;
}

/// Where the workers of a lane get new jobs.
pub(super) trait Feed<J>: Send + Sync + 'static {
    fn next(&self) -> impl Future<Output = Option<Envelope<J>>> + Send;
}

impl<J: Send + 'static> Feed<J> for Arc<Queue<Envelope<J>>> {
    async fn next(&self) -> Option<Envelope<J>> {
        self.pop().await
    }
}

/// Jobs that come with no queue between. They count as submitted when they are begun.
#[derive(Debug)]
pub(super) struct Fetch<S>(pub(super) S);

impl<S: Source> Feed<S::Job> for Fetch<S> {
    async fn next(&self) -> Option<Envelope<S::Job>> {
        let job = self.0.next().await?;
        Some(Envelope::new(job, 0, None, None))
    }
}
