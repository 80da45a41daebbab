//! The answering side: [`Provider`].

use std::fmt::Display;
use std::future::Future;
use std::time::Duration;

use super::consumer::ServerInfo;
use super::{Addrs, Channel, Error, ErrorKind, Metrics, Options, Request, Retry};

/// Answers a channel's requests. A cheap handle.
#[derive(Clone, Debug)]
pub struct Provider {
    metrics: Metrics,
}

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
    /// Connects, to hold at most `max_concurrent` requests at once.
    pub async fn connect(
        addr: impl Into<Addrs>,
        channel: impl Into<Channel>,
        max_concurrent: u32,
    ) -> Result<Provider, Error> {
        Provider::connect_with(addr, channel, max_concurrent, Options::default()).await
    }
    /// Connects.
    pub async fn connect_with(
        addr: impl Into<Addrs>,
        channel: impl Into<Channel>,
        max_concurrent: u32,
        options: Options,
    ) -> Result<Provider, Error> {
        let _ = (addr.into(), channel.into(), max_concurrent, options);
        Err(Error::new(ErrorKind::Internal, "not built yet"))
    }
    /// Connects.
    pub async fn connect_with_retry(
        addr: impl Into<Addrs>,
        channel: impl Into<Channel>,
        max_concurrent: u32,
        options: Options,
        retry: impl Into<Retry>,
    ) -> Result<Provider, Error> {
        let _ = (addr.into(), channel.into(), max_concurrent, options, retry.into());
        Err(Error::new(ErrorKind::Internal, "not built yet"))
    }
    /// The next request; `None` after close, drain or a fatal error.
    pub async fn receive(&self) -> Option<Request> {
        None
    }
    /// Runs `handler` for each request, `concurrency` at once, until the provider is closed.
    pub async fn serve<H, F>(&self, concurrency: usize, handler: H)
    where
        H: Fn(Request) -> F + Send + Sync + 'static,
        F: Future<Output: Outcome> + Send + 'static,
    {
        let _ = (concurrency, handler);
    }
    /// Why [`Provider::receive`] gave `None`, if it was a fatal error.
    pub fn error(&self) -> Option<Error> {
        None
    }
    /// Whether there is a connection that takes requests.
    pub fn is_connected(&self) -> bool {
        false
    }
    /// The broker; `None` while there is no connection.
    pub fn server(&self) -> Option<ServerInfo> {
        None
    }
    /// Requests received and not ended.
    pub fn in_flight(&self) -> usize {
        0
    }
    /// Closes at once.
    pub async fn close(&self) {}
    /// Takes no more requests and lets what is in flight finish.
    pub async fn drain(&self, deadline: Duration) -> Result<(), Error> {
        let _ = deadline;
        Ok(())
    }
    /// What this provider counts.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }
}
