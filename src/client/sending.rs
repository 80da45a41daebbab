//! A request on its way: built, opened on a connection, its body fed, its response awaited.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout_at};
use uuid::Uuid;

use super::body::Kind;
use super::connection::Conn;
use super::flight::Flight;
use super::pump::pump;
use super::session::NewRequest;
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
    pub(super) fn new(consumer: &'a Consumer, body: Body) -> RequestBuilder<'a> {
        RequestBuilder { consumer, body, timeout: None, headers: Headers::new(), flags: Flags::NONE, id: None }
    }

    /// Bounds the whole request, to the response's last byte. Without it, the broker's default holds.
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
    pub async fn send(self) -> Result<Response, Error> {
        let flight = Flight::begin(&self.consumer.inner.counts, None);
        let result = self.run().await;
        match result {
            Ok(mut response) => {
                response.fly(flight);
                Ok(response)
            }
            Err(error) => {
                flight.failed(&error);
                Err(error)
            }
        }
    }

    /// Sends one-way (§5), and resolves when all of the request has been handed to a provider.
    ///
    /// # Errors
    /// As [`Consumer::send`].
    pub async fn publish(mut self) -> Result<(), Error> {
        self.set(Flags::ONEWAY, true);
        let mut response = self.send().await?;
        while response.chunk().await?.is_some() {}
        Ok(())
    }

    fn set(&mut self, flag: Flags, on: bool) {
        self.flags = Flags(if on { self.flags.0 | flag.0 } else { self.flags.0 & !flag.0 });
    }

    async fn run(self) -> Result<Response, Error> {
        let inner = &self.consumer.inner;
        let mut block = Vec::new();
        if !self.headers.is_empty() {
            encode_headers(self.headers, &mut block)
                .map_err(|bad| Error::new(ErrorKind::InvalidInput, bad.to_string()).source(Some(Arc::new(bad))))?;
        }
        let now = Instant::now();
        let mut limits = Limits {
            timeout: self.timeout,
            until: now + self.timeout.unwrap_or(DEFAULT_WAIT).min(FOREVER),
            grace: inner.grace,
            now,
        };
        let id = self.id.unwrap_or_else(random_id);
        let mut draft = Draft { id, flags: self.flags, block, body: self.body.0 };
        loop {
            let conn = limits.connection(self.consumer).await?;
            let opened = poll_fn(|cx| Poll::Ready(draft.open(&conn, &limits, cx))).await?;
            let Some(opened) = opened else { continue };
            match opened.begin(id).await {
                Err(error) if draft.can_move(&conn, &error) => {}
                result => return result,
            }
        }
    }
}

/// Request ids need to be unique, not secret: a system call each would cost more than the rest of sending.
fn random_id() -> Uuid {
    uuid::Builder::from_random_bytes(fastrand::u128(..).to_ne_bytes()).into_uuid()
}

/// The bounds of a request in time.
struct Limits {
    timeout: Option<Duration>,
    /// Until when to wait for a connection and a stream.
    until: Instant,
    grace: Duration,
    /// The time, as it was after the last wait.
    now: Instant,
}

impl Limits {
    /// A connection with a free stream, which is the caller's.
    async fn connection(&mut self, consumer: &Consumer) -> Result<Arc<Conn>, Error> {
        let link = &consumer.inner.link;
        if let Some(conn) = link.current().filter(|conn| conn.try_acquire()) {
            return Ok(conn);
        }
        loop {
            let conn = link.connected(self.until).await?;
            match timeout_at(self.until, conn.acquire()).await {
                Ok(true) => {
                    self.now = Instant::now();
                    return Ok(conn);
                }
                Ok(false) => {}
                Err(_) => {
                    return Err(Error::new(ErrorKind::Deadline, "the timeout passed before a stream was free"));
                }
            }
        }
    }

    /// The timeout on the wire, in ms, and when this side gives up.
    fn on(&self, conn: &Conn) -> Result<(u32, Instant), Error> {
        let now = self.now;
        if self.timeout.is_none() {
            let default = conn.server().map_or(DEFAULT_WAIT, |server| server.default_timeout);
            return Ok((0, now + default + self.grace));
        }
        let left = self.until.saturating_duration_since(now);
        if left.is_zero() {
            return Err(Error::new(ErrorKind::Deadline, "the timeout passed before the request was sent"));
        }
        // Rounded up; not by `as_nanos`, whose 128 bits are slow to divide.
        let ms = left.as_secs().saturating_mul(1000) + u64::from(left.subsec_nanos().div_ceil(1_000_000));
        Ok((ms.min(u32::MAX.into()) as u32, self.until + self.grace))
    }
}

/// A request that can be opened, and again where it was only bytes.
struct Draft {
    id: Uuid,
    flags: Flags,
    block: Vec<u8>,
    body: Kind,
}

impl Draft {
    /// Whether it can go to another broker: this one is leaving and has begun nothing, and all bytes are still here.
    fn can_move(&self, conn: &Conn, error: &Error) -> bool {
        let whole = matches!(self.body, Kind::Bytes(_));
        whole && error.kind == ErrorKind::Draining && !error.may_have_started() && conn.broker_leaves()
    }

    /// Opens it on a connection on which the caller has a stream; `None` if that takes no requests any more.
    /// The caller is woken when the response begins, as if it had polled for that.
    fn open(&mut self, conn: &Arc<Conn>, limits: &Limits, cx: &Context<'_>) -> Result<Option<Opened>, Error> {
        let (timeout_ms, deadline) = limits.on(conn)?;
        let max_frame = conn.server().map_or(u32::MAX, |server| server.max_frame);
        if REQUEST_ID_LEN + self.block.len() > max_frame as usize {
            let text = format!("headers don't fit the broker's frames of at most {max_frame} bytes");
            return Err(Error::new(ErrorKind::InvalidInput, text));
        }
        let (body, whole) = match &self.body {
            Kind::Bytes(bytes) => (bytes.clone(), true),
            Kind::Reader(_) => (Bytes::new(), false),
        };
        let request = NewRequest {
            id: self.id,
            flags: self.flags,
            timeout_ms,
            deadline: conn.time_of(deadline),
            block: self.block.clone(),
            body,
            whole,
            waiter: Some(cx.waker().clone()),
        };
        let Ok(key) = conn.open(request) else { return Ok(None) };
        let mut opened = Opened { conn: conn.clone(), key: Some(key), pump: None };
        if let Kind::Reader(reader) = &mut self.body {
            let reader = std::mem::replace(reader, Box::new(tokio::io::empty()));
            opened.pump = Some(tokio::spawn(pump(conn.clone(), key, reader)).abort_handle());
        }
        Ok(Some(opened))
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

impl Opened {
    async fn begin(mut self, id: Uuid) -> Result<Response, Error> {
        let Some(key) = self.key else { unreachable!("just opened") };
        // It has just been opened, in the same poll and with this task's waker.
        let mut opened_now = true;
        let begun = poll_fn(|cx| {
            if std::mem::take(&mut opened_now) { Poll::Pending } else { self.conn.poll_begin(key, cx) }
        })
        .await?;
        if begun.rest.is_some() {
            self.key = None;
        }
        Ok(Response::new(id, begun, self))
    }
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
