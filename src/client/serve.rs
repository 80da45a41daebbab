//! Running a handler for each request: [`Provider::serve`].

use std::any::Any;
use std::fmt::Display;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use tokio::sync::Semaphore;

use super::reply::Watched;
use super::{Metrics, Provider, Request};

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
    /// Runs `handler` for each request, at most `concurrency` at once (at least 1), each in a task of its own.
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
        let concurrency = concurrency.clamp(1, u32::MAX as usize);
        let slots = Arc::new(Semaphore::new(concurrency));
        let handler = Arc::new(handler);
        loop {
            let Ok(slot) = slots.clone().acquire_owned().await else { return };
            let Some(request) = self.receive().await else { break };
            let (handler, metrics) = (handler.clone(), self.metrics().clone());
            tokio::spawn(async move {
                run(&*handler, request, &metrics).await;
                drop(slot);
            });
        }
        let _ = slots.acquire_many(concurrency as u32).await;
    }
}

async fn run<H, F>(handler: &H, mut request: Request, metrics: &Metrics)
where
    H: Fn(Request) -> F,
    F: Future<Output: Outcome>,
{
    let guard = Guard(request.watch());
    let called = std::panic::catch_unwind(AssertUnwindSafe(|| handler(request)));
    let result = match called {
        Ok(future) => contain(future).await,
        Err(panic) => Err(panic),
    };
    let text = match result {
        Ok(outcome) => outcome.failure().unwrap_or_else(|| "request dropped without an answer".into()),
        Err(panic) => {
            metrics.handler_panics.inc();
            let text = panic_text(&*panic);
            tracing::error!(panic = text, "a handler panicked");
            format!("the handler panicked: {text}")
        }
    };
    guard.over(&text);
}

/// Runs a future to its end, or to its panic.
async fn contain<F: Future>(future: F) -> Result<F::Output, Box<dyn Any + Send>> {
    let mut future = pin!(future);
    std::future::poll_fn(|cx| match std::panic::catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
        Ok(Poll::Pending) => Poll::Pending,
        Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
        Err(panic) => Poll::Ready(Err(panic)),
    })
    .await
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("(no text)")
}

/// Ends the request also when the task is dropped with its runtime.
struct Guard(Option<Watched>);

impl Guard {
    fn over(mut self, text: &str) {
        if let Some(watched) = self.0.take() {
            watched.over(text);
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(watched) = self.0.take() {
            watched.over("request dropped: its handler was stopped");
        }
    }
}
