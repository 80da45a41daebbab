//! The answering side: [`Provider`].

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use super::consumer::ServerInfo;
use super::dial::{Dial, Sockets};
use super::flight::Counts;
use super::inbox::{Inbox, Next};
use super::link::{Link, Plan};
use super::{Addrs, Channel, Error, ErrorKind, Metrics, Options, Request, Retry};

/// Answers a channel's requests. A cheap handle: clones share one connection, and any number of tasks may
/// [`receive`](Provider::receive) at once.
///
/// - The broker never hands it more than `max_concurrent` requests at once (§6), and hands it fewer the more it has
///   to do compared with the channel's other providers.
/// - The connection is made again whenever it is lost. Requests received before can't be answered then: their
///   [`Request::cancelled`] resolves.
/// - When the last clone is dropped, requests received are still answered, then the connection is closed.
///
/// ```no_run
/// # async fn example() -> Result<(), corelay::client::Error> {
/// use corelay::client::Provider;
/// let provider = Provider::connect("127.0.0.1:9090", "orders", 8).await?;
/// while let Some(mut request) = provider.receive().await {
///     let order = request.bytes().await?;
///     request.respond(order).await?;
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Provider {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    link: Arc<Link>,
    inbox: Arc<Inbox>,
    counts: Arc<Counts>,
}

/// The next request somebody waits for.
pub(super) async fn receive(inbox: &Inbox) -> Option<Request> {
    // Whoever never has to wait lets the other tasks go on now and then.
    tokio::task::coop::consume_budget().await;
    loop {
        let (conn, mut arrival) = match inbox.next() {
            Next::Item(item) => item,
            Next::Nothing => inbox.wait().await?,
            Next::Closed => return None,
        };
        if conn.take_up(&mut arrival) {
            return Some(Request::new(conn, arrival));
        }
        conn.refuse(&arrival);
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.inbox.close();
        self.link.abandon();
    }
}

impl Provider {
    /// Connects, to hold at most `max_concurrent` requests at once (at least 1).
    ///
    /// # Errors
    /// As [`Provider::connect_with`].
    pub async fn connect(
        addr: impl Into<Addrs>,
        channel: impl Into<Channel>,
        max_concurrent: u32,
    ) -> Result<Provider, Error> {
        Provider::connect_with(addr, channel, max_concurrent, Options::default()).await
    }

    /// Connects to the first of `addr` that answers. Each is tried once.
    ///
    /// # Errors
    /// [`ErrorKind::Connection`] where none answers, [`ErrorKind::InvalidInput`] for an address, channel or option
    /// that can't be used, else what the broker says: [`ErrorKind::Unauthorized`], [`ErrorKind::Version`],
    /// [`ErrorKind::Draining`] ...
    pub async fn connect_with(
        addr: impl Into<Addrs>,
        channel: impl Into<Channel>,
        max_concurrent: u32,
        options: Options,
    ) -> Result<Provider, Error> {
        Provider::connect_with_retry(addr, channel, max_concurrent, options, 1).await
    }

    /// As [`Provider::connect_with`], again and again with growing waits in between: so many times, or for so long.
    ///
    /// # Errors
    /// As [`Provider::connect_with`], from the last attempt. What can't get better is not tried again.
    pub async fn connect_with_retry(
        addr: impl Into<Addrs>,
        channel: impl Into<Channel>,
        max_concurrent: u32,
        options: Options,
        retry: impl Into<Retry>,
    ) -> Result<Provider, Error> {
        let dial = Arc::new(Sockets::new(&options));
        Provider::dial(addr.into(), channel.into(), max_concurrent, options, retry.into(), dial).await
    }

    pub(super) async fn dial(
        addr: Addrs,
        channel: Channel,
        max_concurrent: u32,
        options: Options,
        retry: Retry,
        dial: Arc<dyn Dial>,
    ) -> Result<Provider, Error> {
        let counts = Counts::new(Metrics::default());
        let plan = Plan::new(addr, channel, Some(max_concurrent), options, dial, counts.clone())?;
        let inbox = plan.inbox().ok_or_else(|| Error::new(ErrorKind::Internal, "a provider without an inbox"))?;
        let link = plan.start(retry).await?;
        Ok(Provider { inner: Arc::new(Inner { link, inbox, counts }) })
    }

    /// The next request. `None` after [`close`](Provider::close) or the end of [`drain`](Provider::drain), or when
    /// connecting again is hopeless: then [`Provider::error`] says why. Requests nobody waits for any more are
    /// skipped. Dropping the future loses no request.
    pub fn receive(&self) -> impl Future<Output = Option<Request>> + Send {
        receive(&self.inner.inbox)
    }

    /// What it takes to receive, without keeping the provider alive.
    pub(super) fn desk(&self) -> (Arc<Inbox>, Arc<Counts>) {
        (self.inner.inbox.clone(), self.inner.counts.clone())
    }

    /// Why [`Provider::receive`] gave `None`, if nobody asked for the end; or why it gives nothing at the moment, where
    /// the broker let this provider in and does so no longer (UNAUTHORIZED: it asks again, after the longest backoff).
    #[must_use]
    pub fn error(&self) -> Option<Error> {
        self.inner.link.fatal().or_else(|| self.inner.link.refused())
    }

    /// Whether there is a connection on which requests come.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.inner.link.current().is_some_and(|conn| conn.takes_requests())
    }

    /// The broker; `None` while there is no connection.
    #[must_use]
    pub fn server(&self) -> Option<ServerInfo> {
        self.inner.link.current()?.server().cloned()
    }

    /// Requests received and not answered.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.inner.counts.in_flight()
    }

    /// Closes the connection at once: requests received can't be answered any more.
    pub async fn close(&self) {
        self.inner.link.close().await;
    }

    /// Takes no more requests (GOAWAY, §7), waits up to `deadline` until those received are answered, then closes.
    /// Go on receiving meanwhile: requests that were on their way still come out of [`Provider::receive`].
    ///
    /// # Errors
    /// [`ErrorKind::Deadline`] if some were not answered in time.
    pub async fn drain(&self, deadline: Duration) -> Result<(), Error> {
        self.inner.link.drain(deadline).await
    }

    /// What this provider counts.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.inner.counts.metrics
    }
}
