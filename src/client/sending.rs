//! A request on its way: built, opened on a connection, its body fed, its response awaited.

use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout_at};
use uuid::Uuid;

use super::body::Kind;
use super::connection::{Begun, Conn};
use super::flight::Flight;
use super::link::Link;
use super::pump::pump;
use super::session::{Limit, NewRequest};
use super::{Body, Consumer, Error, ErrorKind, Response};
use crate::base::Key;
use crate::protocol::{Flags, Headers, REQUEST_ID_LEN, encode_headers};

/// How long to wait for a connection where the request states no timeout and no broker has said its own.
const DEFAULT_WAIT: Duration = Duration::from_secs(30);
/// The longest timeout kept on this side; longer ones are as good as none.
const FOREVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// A request being built: see [`Consumer::request`].
#[derive(Debug)]
#[must_use = "a request is sent by `send` or `publish`"]
pub struct RequestBuilder<'a> {
    consumer: &'a Consumer,
    body: Body,
    timeout: Option<Duration>,
    headers: Headers,
    flags: Flags,
    id: Option<Uuid>,
}

impl<'a> RequestBuilder<'a> {
    #[inline]
    pub(super) fn new(consumer: &'a Consumer, body: Body) -> RequestBuilder<'a> {
        RequestBuilder { consumer, body, timeout: None, headers: Headers::new(), flags: Flags::NONE, id: None }
    }

    /// Bounds the whole request, to the response's last byte. Without it, the broker's default holds.
    #[inline]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Adds a header. Keys are lower-case ASCII of 1 to 255 bytes; all headers together take at most 16 KiB (§1).
    /// What can't be sent is told by `send`, as [`ErrorKind::InvalidInput`].
    pub fn header(mut self, key: impl Into<String>, value: impl Into<Vec<u8>>) -> Self {
        self.headers.push((key.into(), value.into()));
        self
    }

    /// Adds these headers.
    pub fn headers(mut self, headers: Headers) -> Self {
        self.headers.extend(headers);
        self
    }

    /// With no provider: wait until one comes or the timeout passes (WAIT, §1), instead of failing at once.
    pub fn wait(mut self, on: bool) -> Self {
        self.set(Flags::WAIT, on);
        self
    }

    /// The work may safely run twice: when a provider is lost before it answered, the broker may hand the request to
    /// another (RETRY, §6).
    pub fn retry(mut self, on: bool) -> Self {
        self.set(Flags::RETRY, on);
        self
    }

    /// The id the request goes under; without it, a random one.
    pub fn request_id(mut self, id: Uuid) -> Self {
        self.id = Some(id);
        self
    }

    /// Sends, and resolves when the response begins. Dropping the future cancels the request.
    ///
    /// # Errors
    /// As [`Consumer::send`].
    #[expect(clippy::manual_async_fn, reason = "an `async fn` keeps its arguments twice, as given and as worked on")]
    pub fn send(mut self) -> impl Future<Output = Result<Response, Error>> + Send + use<'a> {
        async move { self.run().await }
    }

    /// Sends one-way (§5), and resolves when all of the request has been handed to a provider.
    ///
    /// # Errors
    /// As [`Consumer::send`].
    pub fn publish(mut self) -> impl Future<Output = Result<(), Error>> + Send + use<'a> {
        self.set(Flags::ONEWAY, true);
        async move {
            let mut response = self.run().await?;
            while response.chunk().await?.is_some() {}
            Ok(())
        }
    }

    fn set(&mut self, flag: Flags, on: bool) {
        self.flags = Flags(if on { self.flags.0 | flag.0 } else { self.flags.0 & !flag.0 });
    }

    async fn run(&mut self) -> Result<Response, Error> {
        let flight = Flight::begin(&self.consumer.inner.counts);
        let mut block = Vec::new();
        if !self.headers.is_empty() {
            encode_headers(std::mem::take(&mut self.headers), &mut block)
                .map_err(|bad| Error::new(ErrorKind::InvalidInput, bad.to_string()).source(Some(Arc::new(bad))))
                .inspect_err(|error| flight.failed(error))?;
        }
        let id = *self.id.get_or_insert_with(random_id);
        let mut limits = Limits::new(self.timeout, self.consumer.inner.grace);
        loop {
            let conn = limits.connection(self.consumer).await.inspect_err(|error| flight.failed(error))?;
            let mut opened = Opened { conn, key: None, pump: None };
            let begun = poll_fn(|cx| match opened.key {
                Some(key) => opened.conn.poll_begin(key, cx).map_ok(Some),
                None => self.open(&mut opened, &block, &limits, cx),
            })
            .await;
            match begun {
                Ok(None) => limits.moved(&opened),
                Ok(Some(begun)) => return Ok(Response::new(id, begun, opened, flight)),
                Err(error) if self.can_move(&opened.conn, &error) => limits.moved(&opened),
                Err(error) => {
                    flight.failed(&error);
                    return Err(error);
                }
            }
        }
    }

    /// Opens it on a connection on which the caller has a stream, and waits there for the response; `None` if that
    /// connection takes no requests any more.
    fn open(
        &mut self,
        on: &mut Opened,
        block: &[u8],
        limits: &Limits,
        cx: &Context<'_>,
    ) -> Poll<Result<Option<Begun>, Error>> {
        let (timeout_ms, limit) = limits.on(&on.conn, block).inspect_err(|_| on.conn.give_back())?;
        let (body, whole) = match &self.body.0 {
            Kind::Bytes(bytes) => (bytes.clone(), true),
            Kind::Reader(_) => (Bytes::new(), false),
        };
        on.key = on.conn.open(NewRequest {
            id: self.id.unwrap_or_default(),
            flags: self.flags,
            timeout_ms,
            limit,
            block: block.to_vec(),
            body,
            whole,
            waiter: Some(cx.waker().clone()),
        });
        let Some(key) = on.key else { return Poll::Ready(Ok(None)) };
        if let Kind::Reader(reader) = &mut self.body.0 {
            let reader = std::mem::replace(reader, Box::new(tokio::io::empty()));
            on.pump = Some(tokio::spawn(pump(on.conn.clone(), key, reader)).abort_handle());
        }
        Poll::Pending
    }

    /// Whether it can go to another broker: this one is leaving and has begun nothing, and all bytes are still here.
    fn can_move(&self, conn: &Conn, error: &Error) -> bool {
        let whole = matches!(self.body.0, Kind::Bytes(_));
        whole && error.kind == ErrorKind::Draining && !error.may_have_started() && conn.broker_leaves()
    }
}

/// Request ids need to be unique, not secret: a system call each would cost more than the rest of sending.
fn random_id() -> Uuid {
    uuid::Builder::from_random_bytes(fastrand::u128(..).to_ne_bytes()).into_uuid()
}

/// The bounds of a request in time. While it has not waited for anything, all of its time is left, and the clock need
/// not be read: its connection's task tells it the time with its next turn.
struct Limits {
    timeout: Option<Duration>,
    grace: Duration,
    /// Until when to wait for a connection and a stream, and what time it is, once it has waited.
    waited: Option<(Instant, Instant)>,
}

impl Limits {
    fn new(timeout: Option<Duration>, grace: Duration) -> Limits {
        Limits { timeout: timeout.map(|timeout| timeout.min(FOREVER)), grace, waited: None }
    }

    /// A connection with a free stream, which is the caller's.
    async fn connection(&mut self, consumer: &Consumer) -> Result<Arc<Conn>, Error> {
        let link = &consumer.inner.link;
        if let Some(conn) = link.current().filter(|conn| conn.try_acquire()) {
            return Ok(conn);
        }
        // Boxed, so that a request that needn't wait doesn't carry what waiting takes.
        Box::pin(self.wait(link)).await
    }

    async fn wait(&mut self, link: &Link) -> Result<Arc<Conn>, Error> {
        let until = match self.waited {
            Some((until, _)) => until,
            None => Instant::now() + self.timeout.unwrap_or(DEFAULT_WAIT),
        };
        loop {
            let conn = link.connected(until).await?;
            match timeout_at(until, conn.acquire()).await {
                Ok(true) => {
                    self.waited = Some((until, Instant::now()));
                    return Ok(conn);
                }
                Ok(false) => {}
                Err(_) => {
                    return Err(Error::new(ErrorKind::Deadline, "the timeout passed before a stream was free"));
                }
            }
        }
    }

    /// It was opened where nothing can become of it, and goes on elsewhere with the time it has left.
    fn moved(&mut self, from: &Opened) {
        let now = Instant::now();
        let until = self.waited.map(|(until, _)| until).unwrap_or_else(|| {
            let total = self.local(&from.conn, self.timeout);
            let began = from.key.and_then(|key| from.conn.limit_of(key)).and_then(|limit| limit.checked_sub(total));
            began.unwrap_or(now) + self.timeout.unwrap_or(DEFAULT_WAIT)
        });
        self.waited = Some((until, now));
    }

    /// How long it takes this side to give up on a request that has so much time left.
    fn local(&self, conn: &Conn, left: Option<Duration>) -> Duration {
        let default = || conn.server().map_or(DEFAULT_WAIT, |server| server.default_timeout);
        left.unwrap_or_else(default).saturating_add(self.grace)
    }

    /// The timeout on the wire, in ms, and when this side gives up.
    ///
    /// # Errors
    /// Where the time is over already, or the broker takes no header block as long as this.
    fn on(&self, conn: &Conn, block: &[u8]) -> Result<(u32, Limit), Error> {
        let max_frame = conn.server().map_or(u32::MAX, |server| server.max_frame);
        if REQUEST_ID_LEN + block.len() > max_frame as usize {
            let text = format!("headers don't fit the broker's frames of at most {max_frame} bytes");
            return Err(Error::new(ErrorKind::InvalidInput, text));
        }
        let left = match (self.timeout, self.waited) {
            (Some(_), Some((until, now))) => Some(until.saturating_duration_since(now)),
            (timeout, _) => timeout,
        };
        let span = self.local(conn, left);
        let limit = match self.waited {
            None => Limit::After(span),
            Some((_, now)) => Limit::At(conn.time_of(now + span)),
        };
        let Some(left) = left else { return Ok((0, limit)) };
        if left.is_zero() {
            return Err(Error::new(ErrorKind::Deadline, "the timeout passed before the request was sent"));
        }
        // Rounded up; not by `as_nanos`, whose 128 bits are slow to divide.
        let ms = left.as_secs().saturating_mul(1000) + u64::from(left.subsec_nanos().div_ceil(1_000_000));
        Ok((ms.min(u32::MAX.into()) as u32, limit))
    }
}

/// A request on a connection. Its drop cancels it there, if it has not ended.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) conn: Arc<Conn>,
    /// `None` once the connection keeps nothing of it.
    pub(super) key: Option<Key>,
    pump: Option<AbortHandle>,
}

impl Drop for Opened {
    fn drop(&mut self) {
        if let Some(pump) = self.pump.take() {
            pump.abort();
        }
        if let Some(key) = self.key.take() {
            self.conn.release(key);
        }
    }
}
