//! Running a handler for each request: [`Provider::serve`].

use std::borrow::Cow;
use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::flight::Counts;
use super::inbox::Inbox;
use super::provider::receive;
use super::reply::Watched;
use super::{Provider, Request};
use crate::toolkit::outcome::Outcome;
use crate::toolkit::worker_pool::{self, Attempt, Cause, Failure, Handler, MAX_WORKERS, Source, SourcePool};

/// How [`Provider::serve_with`] runs handlers.
///
/// ```
/// use std::time::Duration;
/// use corelay::client::ServeOptions;
/// let options = ServeOptions::new(16).overtime(Duration::from_secs(300));
/// # let _ = options;
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServeOptions {
    concurrency: usize,
    overtime: Option<Duration>,
}

impl ServeOptions {
    /// At most `concurrency` handlers at once (at least 1), with 30 s of overtime.
    #[must_use]
    pub fn new(concurrency: usize) -> ServeOptions {
        ServeOptions { concurrency, overtime: Some(Duration::from_secs(30)) }
    }

    /// How long a handler may go on when its request's [deadline](Request::deadline) has passed, for what it does behind
    /// the answer. Default 30 s. `None`: as long as it likes; one that never ends then keeps its place for good.
    #[must_use]
    pub fn overtime(mut self, overtime: impl Into<Option<Duration>>) -> ServeOptions {
        self.overtime = overtime.into();
        self
    }
}

impl Provider {
    /// Runs `handler` for each request, at most `concurrency` at once (at least 1), on a
    /// [pool](crate::toolkit::worker_pool) whose workers fetch requests themselves.
    /// Returns when the provider is closed or drained, or has given up ([`Provider::error`]), and all handlers are
    /// over. If the future is dropped, the handlers that run go on.
    ///
    /// A request the handler drops unanswered fails with the text of the error it returns. A handler that panics
    /// fails its request and nothing else, and is counted. One that has not ended 30 s after its request's
    /// [deadline](Request::deadline) is stopped where it stands, and counted ([`Metrics::handler_timeouts`]): see
    /// [`ServeOptions::overtime`].
    ///
    /// [`Metrics::handler_timeouts`]: super::Metrics::handler_timeouts
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), corelay::client::Error> {
    /// use corelay::client::{Provider, Request};
    /// let provider = Provider::connect("127.0.0.1:9090", "orders", 16).await?;
    /// provider
    ///     .serve(16, |mut request: Request| async move {
    ///         let order = request.bytes().await?;
    ///         request.respond(order).await
    ///     })
    ///     .await;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn serve<H, F>(&self, concurrency: usize, handler: H)
    where
        H: Fn(Request) -> F + Send + Sync + 'static,
        F: Future<Output: Outcome> + Send + 'static,
    {
        self.serve_with(ServeOptions::new(concurrency), handler).await;
    }

    /// As [`Provider::serve`], with other options than its own.
    pub async fn serve_with<H, F>(&self, options: ServeOptions, handler: H)
    where
        H: Fn(Request) -> F + Send + Sync + 'static,
        F: Future<Output: Outcome> + Send + 'static,
    {
        let ServeOptions { concurrency, overtime } = options;
        // each has its own time: its request's deadline
        let pool = worker_pool::Options::new(concurrency.clamp(1, MAX_WORKERS)).without_times().timeout(None);
        let (inbox, counts) = self.desk();
        let served = Served { handler, overtime, counts };
        match SourcePool::start(pool, Requests { inbox }, served) {
            Ok(pool) => pool.finished().await,
            Err(error) => tracing::error!(%error, "nothing can be served"),
        }
    }
}

/// A provider's requests, as the jobs of a pool. Keeps nothing of the provider alive.
struct Requests {
    inbox: Arc<Inbox>,
}

impl Source for Requests {
    type Job = Serving;

    async fn next(&self) -> Option<Serving> {
        let request = receive(&self.inbox).await?;
        Some(Serving { deadline: request.deadline(), request: Some(request), watched: None })
    }
}

/// A request at its handler.
struct Serving {
    deadline: Instant,
    /// Until the handler has it.
    request: Option<Request>,
    /// From then on.
    watched: Option<Watched>,
}

impl Serving {
    /// The handler is over.
    fn over(&mut self, text: &str) {
        if let Some(watched) = self.watched.take() {
            watched.over(text);
        }
    }
}

/// Ends the request also when the worker is dropped with its runtime.
impl Drop for Serving {
    fn drop(&mut self) {
        self.over("request dropped: its handler was stopped");
    }
}

struct Served<H> {
    handler: H,
    overtime: Option<Duration>,
    counts: Arc<Counts>,
}

impl<H, F> Handler for Served<H>
where
    H: Fn(Request) -> F + Send + Sync + 'static,
    F: Future<Output: Outcome> + Send + 'static,
{
    type Job = Serving;
    type Error = Infallible;

    async fn process(&self, serving: &mut Serving, _: &Attempt<'_>) -> Result<(), Infallible> {
        if let Some(mut request) = serving.request.take() {
            serving.watched = request.watch();
            let outcome = (self.handler)(request).await;
            let text = outcome.failure().map_or(Cow::Borrowed("request dropped without an answer"), Cow::Owned);
            serving.over(&text);
        }
        Ok(())
    }

    /// The handler panicked, or never ended; it fails in no other way.
    async fn on_error(&self, mut serving: Serving, failure: Failure<Infallible>) {
        let metrics = &self.counts.metrics;
        let count = if matches!(failure.cause, Cause::Panicked(_)) {
            &metrics.handler_panics
        } else {
            tracing::warn!("a handler was stopped: its request's deadline has long passed");
            &metrics.handler_timeouts
        };
        count.inc();
        serving.over(&failure.to_string());
    }

    fn deadline(&self, serving: &Serving) -> Option<Instant> {
        serving.deadline.checked_add(self.overtime?)
    }
}
