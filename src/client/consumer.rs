//! The sending side: [`Consumer`].

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use uuid::Uuid;

use super::dial::{Dial, Sockets};
use super::flight::Counts;
use super::link::{Link, Plan};
use super::ping::PingPace;
use super::{Addrs, Body, Channel, Error, ErrorKind, Metrics, Options, RequestBuilder, Response, Retry};

/// How long a PING may take.
const PING_TIMEOUT: Duration = Duration::from_secs(5);

/// Sends requests to a channel. A cheap handle: clones share one connection, which any number of tasks may use at
/// once.
///
/// - The connection is made again whenever it is lost; requests in flight then fail with
///   [`ErrorKind::Connection`], new ones wait for the next connection up to their timeout.
/// - When the broker is leaving (GOAWAY, §7), new requests go to the next address at once, and what is in flight
///   finishes where it is.
/// - More requests than the broker allows on a connection wait for a free stream, in turn.
/// - When the last clone and the last [`Response`] are gone, the connection is closed.
///
/// ```no_run
/// # async fn example() -> Result<(), corelay::client::Error> {
/// use std::time::Duration;
/// use corelay::client::{Body, Consumer};
///
/// let consumer = Consumer::connect("broker-a:9090,broker-b:9090", "thumbnails").await?;
/// let image = tokio::fs::File::open("photo.jpg").await.expect("a photo");
/// let mut response = consumer.send(Body::reader(image), Duration::from_secs(30)).await?;
/// while let Some(piece) = response.chunk().await? {
///     println!("{} bytes", piece.len());
/// }
/// consumer.drain(Duration::from_secs(5)).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Consumer {
    pub(super) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) link: Arc<Link>,
    pub(super) counts: Arc<Counts>,
    pub(super) grace: Duration,
    pings: PingPace,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.link.abandon();
    }
}

/// The broker a client is connected to, as its WELCOME says (§2).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerInfo {
    /// The broker's id, new with each start.
    pub id: Uuid,
    /// The address the connection was made to.
    pub addr: super::Addr,
    /// Which core owns the connection.
    pub core: u16,
    /// How many cores there are.
    pub cores: u16,
    /// Body bytes the broker takes on a new stream before it grants more.
    pub window: u32,
    /// Longest payload of a frame, in bytes.
    pub max_frame: u32,
    /// Open streams allowed on the connection.
    pub max_streams: u32,
    /// Silence after which a PING is sent.
    pub keepalive: Duration,
    /// Timeout of a request that states none.
    pub default_timeout: Duration,
}

impl Consumer {
    /// Connects to the first of `addr` that answers, with [`Options::default`].
    ///
    /// # Errors
    /// As [`Consumer::connect_with`].
    pub async fn connect(addr: impl Into<Addrs>, channel: impl Into<Channel>) -> Result<Consumer, Error> {
        Consumer::connect_with(addr, channel, Options::default()).await
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
        options: Options,
    ) -> Result<Consumer, Error> {
        Consumer::connect_with_retry(addr, channel, options, 1).await
    }

    /// As [`Consumer::connect_with`], again and again with growing waits in between: so many times, or for so long.
    ///
    /// # Errors
    /// As [`Consumer::connect_with`], from the last attempt. What can't get better is not tried again.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), corelay::client::Error> {
    /// use std::time::Duration;
    /// use corelay::client::{Consumer, Options};
    /// let options = Options::default().name("checkout");
    /// let consumer =
    ///     Consumer::connect_with_retry("127.0.0.1:9090", "orders", options, Duration::from_secs(30)).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn connect_with_retry(
        addr: impl Into<Addrs>,
        channel: impl Into<Channel>,
        options: Options,
        retry: impl Into<Retry>,
    ) -> Result<Consumer, Error> {
        let (addr, channel, dial) = (addr.into(), channel.into(), Arc::new(Sockets::new(&options)));
        Consumer::dial(addr, channel, options, retry.into(), Metrics::default(), dial).await
    }

    pub(super) async fn dial(
        addr: Addrs,
        channel: Channel,
        options: Options,
        retry: Retry,
        metrics: Metrics,
        dial: Arc<dyn Dial>,
    ) -> Result<Consumer, Error> {
        let grace = options.grace;
        let counts = Counts::new(metrics);
        let link = Plan::new(addr, channel, None, options, dial, counts.clone())?.start(retry).await?;
        Ok(Consumer { inner: Arc::new(Inner { link, counts, grace, pings: PingPace::default() }) })
    }

    /// Sends a request and resolves when the response begins. `timeout` bounds the whole of it, to the response's
    /// last byte. Dropping the future, or the response before its end, cancels the request at the provider.
    ///
    /// # Errors
    /// The [`Error`]'s kind says what happened, [`Error::may_have_started`] whether a provider may have begun.
    pub fn send(
        &self,
        body: impl Into<Body>,
        timeout: Duration,
    ) -> impl Future<Output = Result<Response, Error>> + Send {
        self.request(body).timeout(timeout).send()
    }

    /// Sends a one-way request (§5): resolves when all of it has been handed to a provider.
    ///
    /// # Errors
    /// As [`Consumer::send`].
    pub fn publish(&self, body: impl Into<Body>, timeout: Duration) -> impl Future<Output = Result<(), Error>> + Send {
        self.request(body).timeout(timeout).publish()
    }

    /// A request with more to say than body and timeout.
    ///
    /// ```no_run
    /// # async fn example(consumer: corelay::client::Consumer) -> Result<(), corelay::client::Error> {
    /// use std::time::Duration;
    /// let response = consumer
    ///     .request("two apples")
    ///     .header("content-type", "text/plain")
    ///     .timeout(Duration::from_secs(5))
    ///     .wait(true)
    ///     .retry(true)
    ///     .send()
    ///     .await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn request(&self, body: impl Into<Body>) -> RequestBuilder<'_> {
        RequestBuilder::new(self, body.into())
    }

    /// The round trip of a PING to the broker. Calls beyond the broker's bound on PINGs (§7) wait.
    ///
    /// # Errors
    /// [`ErrorKind::Connection`] without a connection or an answer within 5 s.
    pub async fn ping(&self) -> Result<Duration, Error> {
        let limit = Instant::now() + PING_TIMEOUT;
        self.inner.pings.turn().await;
        let conn = self.inner.link.connected(limit).await?;
        timeout_at(limit, conn.ping()).await.unwrap_or_else(|_| {
            Err(Error::new(ErrorKind::Connection, format!("no PONG within {} s", PING_TIMEOUT.as_secs())))
        })
    }

    /// Requests begun and not ended: from `send` to the response's last byte.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.inner.counts.in_flight()
    }

    /// Whether there is a connection that takes requests.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.inner.link.current().is_some_and(|conn| conn.takes_requests())
    }

    /// The broker; `None` while there is no connection.
    #[must_use]
    pub fn server(&self) -> Option<ServerInfo> {
        self.inner.link.current()?.server().cloned()
    }

    /// Closes the connection at once: what is in flight fails with [`ErrorKind::Closed`].
    pub async fn close(&self) {
        self.inner.link.close().await;
    }

    /// Takes no new requests, lets those in flight finish for up to `deadline`, then closes.
    ///
    /// # Errors
    /// [`ErrorKind::Deadline`] if some were still in flight and were cut off.
    pub async fn drain(&self, deadline: Duration) -> Result<(), Error> {
        self.inner.link.drain(deadline).await
    }

    /// What this consumer counts.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.inner.counts.metrics
    }
}
