//! The sending side: [`Consumer`].

use std::net::SocketAddr;
use std::time::Duration;

use uuid::Uuid;

use super::{Addrs, Body, Channel, Error, ErrorKind, Metrics, Options, Response, Retry};

/// Sends requests to a channel. A cheap handle: clones share one connection, which any number of tasks may use at
/// once. When the last clone and the last [`Response`] are gone, the connection is closed.
#[derive(Clone, Debug)]
pub struct Consumer {
    metrics: Metrics,
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

fn not_built() -> Error {
    Error::new(ErrorKind::Internal, "not built yet")
}

impl Consumer {
    /// Connects.
    pub async fn connect(addr: impl Into<Addrs>, channel: impl Into<Channel>) -> Result<Consumer, Error> {
        Consumer::connect_with(addr, channel, Options::default()).await
    }
    /// Connects.
    pub async fn connect_with(
        addr: impl Into<Addrs>,
        channel: impl Into<Channel>,
        options: Options,
    ) -> Result<Consumer, Error> {
        let _ = (addr.into(), channel.into(), options);
        Err(not_built())
    }
    /// Connects.
    pub async fn connect_with_retry(
        addr: impl Into<Addrs>,
        channel: impl Into<Channel>,
        options: Options,
        retry: impl Into<Retry>,
    ) -> Result<Consumer, Error> {
        let _ = (addr.into(), channel.into(), options, retry.into());
        Err(not_built())
    }
    /// Sends; resolves when the response begins.
    pub async fn send(&self, body: impl Into<Body>, timeout: Duration) -> Result<Response, Error> {
        self.request(body).timeout(timeout).send().await
    }
    /// One-way.
    pub async fn publish(&self, body: impl Into<Body>, timeout: Duration) -> Result<(), Error> {
        self.request(body).timeout(timeout).publish().await
    }
    /// A request to build.
    pub fn request(&self, body: impl Into<Body>) -> RequestBuilder<'_> {
        RequestBuilder { consumer: self, _body: body.into() }
    }
    /// Round trip of a PING.
    pub async fn ping(&self) -> Result<Duration, Error> {
        Err(not_built())
    }
    /// Requests begun and not ended.
    pub fn in_flight(&self) -> usize {
        0
    }
    /// Whether there is a connection that takes requests.
    pub fn is_connected(&self) -> bool {
        false
    }
    /// The broker; `None` while there is no connection.
    pub fn server(&self) -> Option<ServerInfo> {
        None
    }
    /// Closes at once.
    pub async fn close(&self) {}
    /// Lets what is in flight finish.
    pub async fn drain(&self, deadline: Duration) -> Result<(), Error> {
        let _ = deadline;
        Ok(())
    }
    /// What this consumer counts.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }
}

/// A request being built.
#[derive(Debug)]
pub struct RequestBuilder<'a> {
    consumer: &'a Consumer,
    _body: Body,
}

impl RequestBuilder<'_> {
    /// Timeout.
    pub fn timeout(self, _timeout: Duration) -> Self {
        self
    }
    /// Header.
    pub fn header(self, _key: impl Into<String>, _value: impl Into<Vec<u8>>) -> Self {
        self
    }
    /// WAIT.
    pub fn wait(self, _on: bool) -> Self {
        self
    }
    /// RETRY.
    pub fn retry(self, _on: bool) -> Self {
        self
    }
    /// Its id.
    pub fn request_id(self, _id: Uuid) -> Self {
        self
    }
    /// Sends; resolves when the response begins.
    pub async fn send(self) -> Result<Response, Error> {
        let _ = self.consumer;
        Err(not_built())
    }
    /// Sends one-way.
    pub async fn publish(self) -> Result<(), Error> {
        Err(not_built())
    }
}

/// Several consumers of one channel.
#[derive(Clone, Debug)]
pub struct ConsumerPool {
    members: Vec<Consumer>,
}

impl ConsumerPool {
    /// Connects `n` consumers.
    pub async fn connect(addr: impl Into<Addrs>, channel: impl Into<Channel>, n: usize) -> Result<ConsumerPool, Error> {
        ConsumerPool::connect_with(addr, channel, n, Options::default()).await
    }
    /// Connects `n` consumers.
    pub async fn connect_with(
        addr: impl Into<Addrs>,
        channel: impl Into<Channel>,
        n: usize,
        options: Options,
    ) -> Result<ConsumerPool, Error> {
        let _ = (addr.into(), channel.into(), n, options);
        Err(not_built())
    }
    /// The member with the fewest requests in flight.
    pub fn get(&self) -> &Consumer {
        &self.members[0]
    }
    /// Sends on the member with the fewest requests in flight.
    pub async fn send(&self, body: impl Into<Body>, timeout: Duration) -> Result<Response, Error> {
        self.get().send(body, timeout).await
    }
    /// One-way.
    pub async fn publish(&self, body: impl Into<Body>, timeout: Duration) -> Result<(), Error> {
        self.get().publish(body, timeout).await
    }
    /// A request to build.
    pub fn request(&self, body: impl Into<Body>) -> RequestBuilder<'_> {
        self.get().request(body)
    }
    /// All members.
    pub fn members(&self) -> &[Consumer] {
        &self.members
    }
    /// Requests begun and not ended.
    pub fn in_flight(&self) -> usize {
        self.members.iter().map(Consumer::in_flight).sum()
    }
    /// Closes all members at once.
    pub async fn close(&self) {}
    /// Lets what is in flight finish.
    pub async fn drain(&self, deadline: Duration) -> Result<(), Error> {
        let _ = deadline;
        Ok(())
    }
    /// What the members count together.
    pub fn metrics(&self) -> &Metrics {
        self.members[0].metrics()
    }
}

#[allow(dead_code)]
fn _later(_: SocketAddr) {}
