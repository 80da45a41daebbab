//! Running a handler for each request: [`Provider::serve`].

use std::any::Any;
use std::borrow::Cow;
use std::fmt::Display;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::Poll;

use tokio::sync::Notify;
use tokio::sync::mpsc::{self, Sender};

use super::flight::Counts;
use super::inbox::Inbox;
use super::provider::receive;
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
    /// Runs `handler` for each request, at most `concurrency` at once (at least 1), in as many tasks as that takes.
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
        let (inbox, counts) = self.desk();
        let crew = Arc::new(Crew {
            inbox,
            counts,
            handler,
            limit: concurrency.max(1),
            tasks: AtomicUsize::new(0),
            free: AtomicUsize::new(0),
            stopped: AtomicBool::new(false),
            stop: Notify::new(),
        });
        let _dismiss = Dismiss(crew.clone());
        let (working, mut over) = mpsc::channel(1);
        crew.grow(&working);
        drop(working);
        let _ = over.recv().await; // which is when the last task has dropped its end
    }
}

/// The tasks of one [`Provider::serve`]: as many as were ever needed at once. Each runs one handler after the other,
/// so that a request costs no task of its own. They keep nothing of the provider alive.
struct Crew<H> {
    inbox: Arc<Inbox>,
    counts: Arc<Counts>,
    handler: H,
    limit: usize,
    tasks: AtomicUsize,
    /// Tasks without a request. While there may be more, there is one.
    free: AtomicUsize,
    stopped: AtomicBool,
    stop: Notify,
}

impl<H, F> Crew<H>
where
    H: Fn(Request) -> F + Send + Sync + 'static,
    F: Future<Output: Outcome> + Send + 'static,
{
    /// Adds a task, if there may be one more.
    fn grow(self: &Arc<Self>, working: &Sender<()>) {
        let more = |tasks: usize| (tasks < self.limit).then_some(tasks + 1);
        if self.tasks.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok() {
            self.free.fetch_add(1, Ordering::Relaxed);
            tokio::spawn(self.clone().work(working.clone()));
        }
    }

    async fn work(self: Arc<Self>, working: Sender<()>) {
        while let Some(request) = self.next().await {
            if self.free.fetch_sub(1, Ordering::Relaxed) == 1 {
                self.grow(&working);
            }
            run(&self.handler, request, &self.counts.metrics).await;
            self.free.fetch_add(1, Ordering::Relaxed);
        }
    }

    async fn next(&self) -> Option<Request> {
        let stop = self.stop.notified(); // before the look at `stopped`: or it could be missed
        if self.stopped.load(Ordering::Acquire) {
            return None;
        }
        tokio::select! {
            biased;
            request = receive(&self.inbox, &self.counts) => request,
            () = stop => None,
        }
    }
}

/// Lets the tasks end when they have finished what they have.
struct Dismiss<H>(Arc<Crew<H>>);

impl<H> Drop for Dismiss<H> {
    fn drop(&mut self) {
        self.0.stopped.store(true, Ordering::Release);
        self.0.stop.notify_waiters();
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
        Ok(outcome) => outcome.failure().map_or(Cow::Borrowed("request dropped without an answer"), Cow::Owned),
        Err(panic) => {
            metrics.handler_panics.inc();
            let text = panic_text(&*panic);
            tracing::error!(panic = text, "a handler panicked");
            Cow::Owned(format!("the handler panicked: {text}"))
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
