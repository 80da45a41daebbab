//! Running a handler for each request: [`Provider::serve`].

use std::borrow::Cow;
use std::convert::Infallible;
use std::fmt::Display;
use std::future::Future;
use std::sync::Arc;

use super::flight::Counts;
use super::inbox::Inbox;
use super::provider::receive;
use super::reply::Watched;
use super::{Provider, Request};
use crate::toolkit::worker_pool::{self, Attempt, Failure, Handler, MAX_WORKERS, Source, SourcePool};

/// What a handler of [`Provider::serve`] may return: nothing, or a `Result` whose error fails the request.
pub trait Outcome: Send + 'static {
    /// The text the request fails with, if it was not answered.
    fn failure(self) -> Option<String>;
}

impl Outcome for () {
    fn failure(self) -> Option<String> {
        None
    }
}

impl<E: Display + Send + 'static> Outcome for Result<(), E> {
    fn failure(self) -> Option<String> {
        self.err().map(|error| error.to_string())
    }
}

impl Provider {
    /// Runs `handler` for each request, at most `concurrency` at once (at least 1), on a
    /// [pool](crate::toolkit::worker_pool) whose workers fetch requests themselves.
    /// Returns when the provider is closed or drained, or has given up ([`Provider::error`]), and all handlers are
    /// over. If the future is dropped, the handlers that run go on.
    ///
    /// A request the handler drops unanswered fails with the text of the error it returns. A handler that panics
    /// fails its request and nothing else, and is counted.
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
        let options = worker_pool::Options::new(concurrency.clamp(1, MAX_WORKERS)).without_times();
        let (inbox, counts) = self.desk();
        let served = Served { handler, counts };
        match SourcePool::start(options, Requests { inbox }, served) {
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
        Some(Serving { request: Some(request), watched: None })
    }
}

/// A request at its handler.
struct Serving {
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

    /// The handler panicked; it fails in no other way.
    async fn on_error(&self, mut serving: Serving, failure: Failure<Infallible>) {
        self.counts.metrics.handler_panics.inc();
        serving.over(&failure.to_string());
    }
}
