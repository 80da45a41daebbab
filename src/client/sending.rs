//! A request on its way: built, opened on a connection, its body fed, its response awaited.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout_at};
use uuid::Uuid;

use super::body::Kind;
use super::connection::Conn;
use super::link::Link;
use super::pump::pump;
use super::response::block_of;
use super::session::{Begun, Limit, NewRequest};
use super::{Body, Consumer, Error, ErrorKind, Response};
use crate::base::{Key, Time};
use crate::protocol::{Flags, Headers, REQUEST_ID_LEN};

/// How long to wait for a connection where the request states no timeout and no broker has said its own.
const DEFAULT_WAIT: Duration = Duration::from_secs(30);
/// The longest timeout kept on this side; longer ones are as good as none.
const FOREVER: Duration = Duration::from_secs(365 * 24 * 3600);
/// A timeout that has not been stated.
const UNSTATED: u64 = u64::MAX;

/// A request being built: see [`Consumer::request`].
#[derive(Debug)]
#[must_use = "a request is sent by `send` or `publish`"]
pub struct RequestBuilder<'a> {
    consumer: &'a Consumer,
    body: Body,
    /// In ns, or [`UNSTATED`].
    timeout: u64,
    /// Boxed, for it is rare and large.
    head: Option<Box<Head>>,
    flags: Flags,
    id: Option<Uuid>,
    /// Of [`Sending`], where it would take more room.
    stage: Stage,
}

/// How far it has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Built,
    /// It counts as in flight.
    Begun,
    /// The response has begun, or the request has failed.
    Over,
}

/// Headers as they are given, then as they are sent.
#[derive(Debug)]
enum Head {
    Given(Headers),
    Encoded(Vec<u8>),
}

impl<'a> RequestBuilder<'a> {
    #[inline]
    pub(super) fn new(consumer: &'a Consumer, body: Body) -> RequestBuilder<'a> {
        RequestBuilder {
            consumer,
            body,
            timeout: UNSTATED,
            head: None,
            flags: Flags::NONE,
            id: None,
            stage: Stage::Built,
        }
    }

    /// Bounds the whole request, to the response's last byte. Without it, the broker's default holds.
    #[inline]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = nanos(timeout.min(FOREVER));
        self
    }

    /// Adds a header. Keys are lower-case ASCII of 1 to 255 bytes; all headers together take at most 16 KiB (§1).
    /// What can't be sent is told by `send`, as [`ErrorKind::InvalidInput`].
    pub fn header(mut self, key: impl Into<String>, value: impl Into<Vec<u8>>) -> Self {
        self.add([(key.into(), value.into())]);
        self
    }

    /// Adds these headers.
    pub fn headers(mut self, headers: Headers) -> Self {
        self.add(headers);
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
    pub fn send(self) -> impl Future<Output = Result<Response, Error>> + Send + use<'a> {
        Sending { request: self, opened: None, wait: None }
    }

    /// Sends one-way (§5), and resolves when all of the request has been handed to a provider.
    ///
    /// # Errors
    /// As [`Consumer::send`].
    pub fn publish(mut self) -> impl Future<Output = Result<(), Error>> + Send + use<'a> {
        self.set(Flags::ONEWAY, true);
        async move {
            let mut response = self.send().await?;
            while response.chunk().await?.is_some() {}
            Ok(())
        }
    }

    fn set(&mut self, flag: Flags, on: bool) {
        self.flags = Flags(if on { self.flags.0 | flag.0 } else { self.flags.0 & !flag.0 });
    }

    fn add(&mut self, headers: impl IntoIterator<Item = (String, Vec<u8>)>) {
        let head = self.head.get_or_insert_with(|| Box::new(Head::Given(Headers::new())));
        if let Head::Given(given) = head.as_mut() {
            given.extend(headers);
        }
    }

    fn encode(&mut self) -> Result<(), Error> {
        if let Some(head) = self.head.as_deref_mut()
            && let Head::Given(headers) = head
        {
            *head = Head::Encoded(block_of(std::mem::take(headers))?);
        }
        Ok(())
    }

    /// The header block, once it has been encoded.
    fn block(&self) -> &[u8] {
        match self.head.as_deref() {
            Some(Head::Encoded(block)) => block,
            _ => &[],
        }
    }

    /// The timeout in ns, if one was stated.
    fn stated(&self) -> Option<u64> {
        Some(self.timeout).filter(|&timeout| timeout != UNSTATED)
    }

    /// How long it waits for a connection and a stream.
    fn patience(&self) -> Duration {
        self.stated().map_or(DEFAULT_WAIT, Duration::from_nanos)
    }

    /// How many ns it takes this side to give up on a request that has so many left.
    fn local(&self, conn: &Conn, left: Option<u64>) -> u64 {
        let default = || nanos(conn.server().map_or(DEFAULT_WAIT, |server| server.default_timeout));
        left.unwrap_or_else(default).saturating_add(nanos(self.consumer.inner.grace))
    }

    /// The timeout on the wire, in ms, and when this side gives up. While it has not waited for anything, all of its
    /// time is left, and the clock need not be read: its connection's task tells it the time with its next turn.
    ///
    /// # Errors
    /// Where the time is over already.
    fn limits(&self, conn: &Conn, waited: Option<&Waited>) -> Result<(u32, Limit), Error> {
        let left = match (self.stated(), waited) {
            (Some(_), Some(waited)) => Some(nanos(waited.until.saturating_duration_since(waited.now))),
            (timeout, _) => timeout,
        };
        let span = self.local(conn, left);
        let limit = match waited {
            None => Limit::After(span),
            Some(waited) => Limit::At(conn.time_of(waited.now + Duration::from_nanos(span))),
        };
        let Some(left) = left else { return Ok((0, limit)) };
        if left == 0 {
            return Err(Error::new(ErrorKind::Deadline, "the timeout passed before the request was sent"));
        }
        Ok((left.div_ceil(1_000_000).min(u32::MAX.into()) as u32, limit))
    }
}

/// A request on its way, until its response begins. A future by hand: it is all that a task keeps of a request in
/// flight, and an `async fn` keeps arguments and locals more than once.
struct Sending<'a> {
    request: RequestBuilder<'a>,
    opened: Option<Opened>,
    /// Boxed, so that a request that needn't wait doesn't carry what waiting takes.
    wait: Option<Box<Wait<'a>>>,
}

/// Where it is with waiting for a connection and a stream.
enum Wait<'a> {
    Waiting(Pin<Box<Waiting<'a>>>),
    Waited(Waited),
}

type Waiting<'a> = dyn Future<Output = Result<(Arc<Conn>, Waited), Error>> + Send + 'a;

/// Until when to wait for a connection and a stream, and what time it was when it had waited.
struct Waited {
    until: Instant,
    now: Instant,
}

impl Future for Sending<'_> {
    type Output = Result<Response, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Response, Error>> {
        let this = self.get_mut();
        let mut begun = Begun::default();
        let result = ready!(this.poll_begun(cx, &mut begun));
        this.request.stage = Stage::Over;
        let error = match (result, this.opened.take()) {
            (Ok(()), Some(opened)) => {
                return Poll::Ready(Ok(Response::new(this.request.id.unwrap_or_default(), begun, opened)));
            }
            (Err(error), _) => *error,
            (Ok(()), None) => Error::new(ErrorKind::Internal, "a response without a request"),
        };
        let counts = &this.request.consumer.inner.counts;
        counts.failed(&error);
        counts.end();
        Poll::Ready(Err(error))
    }
}

impl Drop for Sending<'_> {
    fn drop(&mut self) {
        if self.request.stage == Stage::Begun {
            self.request.consumer.inner.counts.end();
        }
    }
}

impl<'a> Sending<'a> {
    fn poll_begun(&mut self, cx: &mut Context<'_>, begun: &mut Begun) -> Poll<Result<(), Box<Error>>> {
        match self.request.stage {
            Stage::Built => {
                self.request.stage = Stage::Begun;
                self.request.consumer.inner.counts.begin();
                self.request.encode()?;
                self.request.id.get_or_insert_with(random_id);
            }
            Stage::Begun => {}
            Stage::Over => panic!("polled after its end"),
        }
        loop {
            if let Some(opened) = &self.opened
                && let Some(key) = opened.key
            {
                match ready!(opened.conn.poll_begin(key, cx, begun)) {
                    Err(error) if self.can_move(&opened.conn, &error) => self.moves(),
                    result => return Poll::Ready(result),
                }
            }
            let conn = ready!(self.poll_conn(cx))?;
            if self.open(conn, cx)? {
                return Poll::Pending;
            }
            self.moves();
        }
    }

    /// A connection with a free stream, which is the caller's.
    #[inline]
    fn poll_conn(&mut self, cx: &mut Context<'_>) -> Poll<Result<Arc<Conn>, Error>> {
        let link = &self.request.consumer.inner.link;
        if !matches!(self.wait.as_deref(), Some(Wait::Waiting(_)))
            && let Some(conn) = link.current().filter(|conn| conn.try_acquire())
        {
            return Poll::Ready(Ok(conn));
        }
        self.poll_wait(cx)
    }

    fn poll_wait(&mut self, cx: &mut Context<'_>) -> Poll<Result<Arc<Conn>, Error>> {
        loop {
            let until = match self.wait.as_deref_mut() {
                Some(Wait::Waiting(waiting)) => {
                    let result = ready!(waiting.as_mut().poll(cx));
                    self.wait = None;
                    return Poll::Ready(result.map(|(conn, waited)| {
                        self.wait = Some(Box::new(Wait::Waited(waited)));
                        conn
                    }));
                }
                Some(Wait::Waited(waited)) => waited.until,
                None => Instant::now() + self.request.patience(),
            };
            let waiting = wait(&self.request.consumer.inner.link, until);
            self.wait = Some(Box::new(Wait::Waiting(Box::pin(waiting))));
        }
    }

    fn waited(&self) -> Option<&Waited> {
        match self.wait.as_deref() {
            Some(Wait::Waited(waited)) => Some(waited),
            _ => None,
        }
    }

    /// Opens it on a connection on which it has a stream, to wait there for the response. `false` if that connection
    /// takes no requests any more.
    ///
    /// # Errors
    /// Where the time is over already, or the broker takes no header block as long as this.
    #[inline]
    fn open(&mut self, conn: Arc<Conn>, cx: &Context<'_>) -> Result<bool, Error> {
        let fits = conn.check_block(REQUEST_ID_LEN, self.request.block());
        let limits = fits.and_then(|()| self.request.limits(&conn, self.waited()));
        let (timeout_ms, limit) = limits.inspect_err(|_| conn.give_back())?;
        let opened = self.opened.insert(Opened { conn, key: None, pump: None });
        let (request, conn) = (&mut self.request, &opened.conn);
        let (nothing, id) = (Bytes::new(), request.id.unwrap_or_default());
        let (body, whole) = match &request.body.0 {
            Kind::Bytes(bytes) => (bytes, true),
            Kind::Reader(_) => (&nothing, false),
        };
        let (block, flags, waiter) = (request.block(), request.flags, Some(cx.waker()));
        opened.key = conn.open(&NewRequest { id, flags, timeout_ms, limit, block, body, whole, waiter });
        if let (Some(key), Kind::Reader(reader)) = (opened.key, &mut request.body.0) {
            let reader = std::mem::replace(reader, Box::new(tokio::io::empty()));
            opened.pump = Some(tokio::spawn(pump(opened.conn.clone(), key, reader)).abort_handle());
        }
        Ok(opened.key.is_some())
    }

    /// It was opened where nothing can become of it, and goes on elsewhere with the time it has left.
    fn moves(&mut self) {
        let Some(from) = self.opened.take() else { return };
        let now = Instant::now();
        let until = self.waited().map(|waited| waited.until).unwrap_or_else(|| {
            let total = Duration::from_nanos(self.request.local(&from.conn, self.request.stated()));
            let began = from.key.and_then(|key| from.conn.limit_of(key)).and_then(|limit| limit.checked_sub(total));
            began.unwrap_or(now) + self.request.patience()
        });
        self.wait = Some(Box::new(Wait::Waited(Waited { until, now })));
    }

    /// Whether it can go to another broker: this one is leaving and has begun nothing, and all bytes are still here.
    fn can_move(&self, conn: &Conn, error: &Error) -> bool {
        let whole = matches!(self.request.body.0, Kind::Bytes(_));
        whole && error.kind == ErrorKind::Draining && !error.may_have_started() && conn.broker_leaves()
    }
}

/// Waits for a connection with a free stream.
async fn wait(link: &Link, until: Instant) -> Result<(Arc<Conn>, Waited), Error> {
    loop {
        let conn = link.connected(until).await?;
        match timeout_at(until, conn.acquire()).await {
            Ok(true) => return Ok((conn, Waited { until, now: Instant::now() })),
            Ok(false) => {}
            Err(_) => {
                return Err(Error::new(ErrorKind::Deadline, "the timeout passed before a stream was free"));
            }
        }
    }
}

/// In 64 bits: a duration's own nanoseconds are 128 bits wide, and slow.
fn nanos(span: Duration) -> u64 {
    (Time::ZERO + span).as_nanos()
}

/// Request ids need to be unique, not secret: a system call each would cost more than the rest of sending.
fn random_id() -> Uuid {
    uuid::Builder::from_random_bytes(fastrand::u128(..).to_ne_bytes()).into_uuid()
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
