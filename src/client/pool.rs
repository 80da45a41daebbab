//! Several consumers of one channel: [`ConsumerPool`].

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::dial::{Dial, Sockets};
use super::{Addrs, Body, Channel, Consumer, Error, ErrorKind, Metrics, Options, RequestBuilder, Response, Retry};

/// Several consumers of one channel, each with a connection of its own: for more throughput than one connection
/// gives. Each request goes to the member with the fewest in flight, of those that are connected.
///
/// ```no_run
/// # async fn example() -> Result<(), corelay::client::Error> {
/// use std::time::Duration;
/// use corelay::client::ConsumerPool;
/// let pool = ConsumerPool::connect("127.0.0.1:9090", "orders", 4).await?;
/// let response = pool.send("two apples", Duration::from_secs(5)).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct ConsumerPool {
    members: Arc<[Consumer]>,
    metrics: Metrics,
    /// Where the next search begins, so that equals take turns.
    turn: Arc<AtomicUsize>,
}

impl ConsumerPool {
    /// Connects `n` consumers, with [`Options::default`].
    ///
    /// # Errors
    /// As [`Consumer::connect_with`]; [`ErrorKind::InvalidInput`] for `n` of 0.
    pub async fn connect(addr: impl Into<Addrs>, channel: impl Into<Channel>, n: usize) -> Result<ConsumerPool, Error> {
        ConsumerPool::connect_with(addr, channel, n, Options::default()).await
    }

    /// Connects `n` consumers.
    ///
    /// # Errors
    /// As [`ConsumerPool::connect`].
    pub async fn connect_with(
        addr: impl Into<Addrs>,
        channel: impl Into<Channel>,
        n: usize,
        options: Options,
    ) -> Result<ConsumerPool, Error> {
        let dial = Arc::new(Sockets::new(&options));
        ConsumerPool::dial(addr.into(), channel.into(), n, options, dial).await
    }

    pub(super) async fn dial(
        addr: Addrs,
        channel: Channel,
        n: usize,
        options: Options,
        dial: Arc<dyn Dial>,
    ) -> Result<ConsumerPool, Error> {
        if n == 0 {
            return Err(Error::new(ErrorKind::InvalidInput, "a pool needs at least 1 member"));
        }
        let metrics = Metrics::default();
        let mut members = Vec::with_capacity(n);
        for _ in 0..n {
            let (addr, channel, options) = (addr.clone(), channel.clone(), options.clone());
            let retry = Retry::Attempts(1);
            members.push(Consumer::dial(addr, channel, options, retry, metrics.clone(), dial.clone()).await?);
        }
        Ok(ConsumerPool { members: members.into(), metrics, turn: Arc::default() })
    }

    /// The connected member with the fewest requests in flight; if none is connected, of all.
    #[must_use]
    pub fn get(&self) -> &Consumer {
        let n = self.members.len();
        let start = self.turn.fetch_add(1, Ordering::Relaxed) % n;
        let rank = |at: &usize| {
            let member = &self.members[(start + at) % n];
            (!member.is_connected(), member.in_flight())
        };
        let best = (0..n).min_by_key(rank).unwrap_or(0);
        &self.members[(start + best) % n]
    }

    /// As [`Consumer::send`].
    ///
    /// # Errors
    /// As [`Consumer::send`].
    pub async fn send(&self, body: impl Into<Body>, timeout: Duration) -> Result<Response, Error> {
        self.get().send(body, timeout).await
    }

    /// As [`Consumer::publish`].
    ///
    /// # Errors
    /// As [`Consumer::publish`].
    pub async fn publish(&self, body: impl Into<Body>, timeout: Duration) -> Result<(), Error> {
        self.get().publish(body, timeout).await
    }

    /// As [`Consumer::request`].
    pub fn request(&self, body: impl Into<Body>) -> RequestBuilder<'_> {
        self.get().request(body)
    }

    /// All members.
    #[must_use]
    pub fn members(&self) -> &[Consumer] {
        &self.members
    }

    /// Requests begun and not ended, of all members.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.members.iter().map(Consumer::in_flight).sum()
    }

    /// Closes all members at once.
    pub async fn close(&self) {
        for member in &*self.members {
            member.close().await;
        }
    }

    /// As [`Consumer::drain`], all members at the same time.
    ///
    /// # Errors
    /// As [`Consumer::drain`], the first.
    pub async fn drain(&self, deadline: Duration) -> Result<(), Error> {
        let mut draining = tokio::task::JoinSet::new();
        for member in &*self.members {
            let member = member.clone();
            draining.spawn(async move { member.drain(deadline).await });
        }
        let mut result = Ok(());
        while let Some(drained) = draining.join_next().await {
            result = result.and(drained.unwrap_or(Ok(())));
        }
        result
    }

    /// What the members count together.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }
}
