//! A request as a provider sees it.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncBufRead, AsyncRead, ReadBuf};
use tokio::time::Instant;
use uuid::Uuid;

use super::connection::Conn;
use super::reply::{Reply, Responder, Watched};
use super::response::{NO_HEADERS, find, headers_of};
use super::session::{Arrival, Chunks};
use super::{Body, Error, ErrorKind, Headers};
use crate::base::{Key, Time};
use crate::protocol::Flags;

/// A request to answer: with [`respond`](Request::respond), piece by piece with
/// [`start_response`](Request::start_response), or with [`fail`](Request::fail). Dropped unanswered, it fails
/// explicitly (APPLICATION, "request dropped ..."), so that no consumer waits for nothing.
///
/// ```no_run
/// # async fn example(provider: corelay::client::Provider) -> Result<(), corelay::client::Error> {
/// while let Some(mut request) = provider.receive().await {
///     tokio::spawn(async move {
///         let order = request.bytes().await?;
///         if order.is_empty() { request.fail("an empty order").await } else { request.respond("done").await }
///     });
/// }
/// # Ok(())
/// # }
/// ```
// Small, for it is moved from hand to hand.
#[derive(Debug)]
pub struct Request {
    id: Uuid,
    flags: Flags,
    /// Time that was left when it came, in ms.
    left_ms: u32,
    came: Time,
    /// The body, once it has come whole; what else there is of it is with the connection, if `reads`.
    body: Chunks,
    reads: bool,
    duty: Duty,
    /// What short requests have none of.
    more: Option<Box<More>>,
}

#[derive(Debug, Default)]
struct More {
    headers: Headers,
    /// What a [`RequestReader`] has left of a piece; never empty.
    piece: Option<Bytes>,
}

/// The duty to answer, or what is left of it when it was taken.
#[derive(Debug)]
enum Duty {
    Open(Reply),
    Taken(Cancellation),
}

impl Drop for Request {
    fn drop(&mut self) {
        if self.reads {
            let (conn, key) = self.place();
            conn.with(|session| session.release_reader(key));
        }
    }
}

impl Request {
    #[inline]
    pub(super) fn new(conn: Arc<Conn>, arrival: Arrival) -> Request {
        let headers = |block: Box<Bytes>| Box::new(More { headers: headers_of(&block), piece: None });
        Request {
            id: arrival.id,
            flags: arrival.flags,
            left_ms: arrival.left_ms,
            came: arrival.at,
            reads: arrival.whole.is_none(),
            body: arrival.whole.unwrap_or_default(),
            duty: Duty::Open(Reply::new(conn, arrival.key, arrival.at)),
            more: arrival.block.map(headers),
        }
    }

    /// Where it is.
    fn place(&self) -> (&Arc<Conn>, Key) {
        match &self.duty {
            Duty::Open(reply) => reply.place(),
            Duty::Taken(cancellation) => (&cancellation.conn, cancellation.key),
        }
    }

    /// Lets whoever runs the handler end the request, should the handler drop it.
    pub(super) fn watch(&mut self) -> Option<Watched> {
        match &mut self.duty {
            Duty::Open(reply) => Some(reply.watched()),
            Duty::Taken(_) => None,
        }
    }

    /// The request's id, as the consumer chose it.
    #[must_use]
    pub fn id(&self) -> Uuid {
        self.id
    }

    /// The request's headers, in the order they came.
    #[must_use]
    pub fn headers(&self) -> &Headers {
        self.more.as_ref().map_or(&NO_HEADERS, |more| &more.headers)
    }

    /// The first value of the header `key`.
    #[must_use]
    pub fn header(&self, key: &str) -> Option<&[u8]> {
        find(self.headers(), key)
    }

    /// When the consumer stops waiting.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        let came = self.place().0.instant_of(self.came).unwrap_or_else(Instant::now);
        came + Duration::from_millis(self.left_ms.into())
    }

    /// Time until the consumer stops waiting; zero once it has.
    #[must_use]
    pub fn time_left(&self) -> Duration {
        self.deadline().saturating_duration_since(Instant::now())
    }

    /// Whether the consumer wants no answer (§5). It is answered all the same; the answer goes no further.
    #[must_use]
    pub fn is_oneway(&self) -> bool {
        self.flags.has(Flags::ONEWAY)
    }

    /// Whether the work may safely run twice, as the consumer says (RETRY, §6).
    #[must_use]
    pub fn is_retry(&self) -> bool {
        self.flags.has(Flags::RETRY)
    }

    /// The next piece of the body; `None` at its end. What is not read is not granted either (§4).
    ///
    /// Small pieces share memory with others, 2 KiB at a time: copy those that are kept for long.
    ///
    /// # Errors
    /// [`ErrorKind::Cancelled`], [`ErrorKind::Deadline`] or [`ErrorKind::Connection`] when nobody waits any more. A
    /// body that had come whole when the request was received can be read all the same; then it is the answer that
    /// fails.
    pub fn chunk(&mut self) -> impl Future<Output = Result<Option<Bytes>, Error>> + Send {
        std::future::poll_fn(|cx| self.poll_chunk(cx))
    }

    /// What is left of the body, whole in memory.
    ///
    /// # Errors
    /// As [`Request::chunk`].
    pub async fn bytes(&mut self) -> Result<Bytes, Error> {
        let first = self.chunk().await?.unwrap_or_default();
        let Some(second) = self.chunk().await? else { return Ok(first) };
        let mut all = BytesMut::from(&first[..]);
        all.extend_from_slice(&second);
        while let Some(piece) = self.chunk().await? {
            all.extend_from_slice(&piece);
        }
        Ok(all.freeze())
    }

    /// The body as a reader. Its errors are [`io::Error`]s around an [`Error`].
    pub fn reader(&mut self) -> RequestReader<'_> {
        RequestReader { request: self }
    }

    /// Resolves when nobody waits for the answer any more: cancelled, past its deadline, the connection lost.
    pub async fn cancelled(&self) {
        self.cancellation().cancelled().await;
    }

    /// The same, to keep apart from the request while that is read or answered.
    #[must_use]
    pub fn cancellation(&self) -> Cancellation {
        let (conn, key) = self.place();
        Cancellation { conn: conn.clone(), key }
    }

    /// Answers. The answer is on its way with this call, or has begun to be; the future resolves when all of `body` has
    /// been taken by the connection. Dropped before that, it fails the request.
    ///
    /// # Errors
    /// [`ErrorKind::Cancelled`], [`ErrorKind::Deadline`] or [`ErrorKind::Connection`] when nobody waits any more;
    /// [`ErrorKind::Body`] when `body` can't be read, which fails the request.
    pub fn respond(self, body: impl Into<Body>) -> impl Future<Output = Result<(), Error>> + Send {
        self.respond_with(Headers::new(), body)
    }

    /// As [`Request::respond`], with headers.
    ///
    /// # Errors
    /// As [`Request::respond`], and [`ErrorKind::InvalidInput`] for headers that can't be sent (§1).
    pub fn respond_with(
        mut self,
        headers: Headers,
        body: impl Into<Body>,
    ) -> impl Future<Output = Result<(), Error>> + Send {
        let sent = match &mut self.duty {
            Duty::Open(reply) => reply.send(headers, body.into()),
            Duty::Taken(_) => Err(answered()),
        };
        let rest = match sent {
            Ok(None) => Ok(None),
            // Boxed, so that a short answer doesn't carry what streaming takes.
            Ok(Some(rest)) => Ok(Some(Box::pin(self.complete(rest)))),
            Err(error) => Err(error),
        };
        async move {
            match rest? {
                None => Ok(()),
                Some(rest) => rest.await,
            }
        }
    }

    async fn complete(mut self, rest: Body) -> Result<(), Error> {
        match &mut self.duty {
            Duty::Open(reply) => reply.complete(rest).await,
            Duty::Taken(_) => Err(answered()),
        }
    }

    /// Begins an answer that is written as it comes, while the request's body can still be read.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for headers that can't be sent (§1), or when it has begun before.
    ///
    /// ```no_run
    /// # async fn example(mut request: corelay::client::Request) -> Result<(), corelay::client::Error> {
    /// let mut response = request.start_response(vec![("content-type".into(), b"text/plain".to_vec())])?;
    /// while let Some(piece) = request.chunk().await? {
    ///     response.write(piece.to_ascii_uppercase()).await?;
    /// }
    /// response.finish().await
    /// # }
    /// ```
    pub fn start_response(&mut self, headers: Headers) -> Result<Responder, Error> {
        self.take_reply()?.start(headers)
    }

    /// Fails the request with the provider's own error: the consumer gets [`ErrorKind::Application`] with this text,
    /// of which the first 1,024 bytes travel.
    ///
    /// # Errors
    /// As [`Request::respond`].
    pub async fn fail(mut self, text: impl fmt::Display) -> Result<(), Error> {
        self.take_reply()?.fail(&text.to_string())
    }

    fn take_reply(&mut self) -> Result<Reply, Error> {
        let taken = Duty::Taken(self.cancellation());
        match std::mem::replace(&mut self.duty, taken) {
            Duty::Open(reply) => Ok(reply),
            Duty::Taken(_) => Err(answered()),
        }
    }

    #[inline]
    fn poll_chunk(&mut self, cx: &Context<'_>) -> Poll<Result<Option<Bytes>, Error>> {
        if let Some(piece) = self.more.as_mut().and_then(|more| more.piece.take()) {
            return Poll::Ready(Ok(Some(piece)));
        }
        if !self.reads {
            return Poll::Ready(Ok(self.body.pop()));
        }
        let (conn, key) = self.place();
        conn.poll_chunk(key, cx)
    }
}

fn answered() -> Error {
    Error::new(ErrorKind::InvalidInput, "the answer to this request has been begun already")
}

/// The body of a [`Request`] as a reader: see [`Request::reader`].
#[derive(Debug)]
pub struct RequestReader<'a> {
    request: &'a mut Request,
}

impl AsyncBufRead for RequestReader<'_> {
    fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        let request = &mut *self.get_mut().request;
        if request.more.as_ref().is_none_or(|more| more.piece.is_none()) {
            let piece = ready!(request.poll_chunk(cx))?;
            request.more.get_or_insert_default().piece = piece;
        }
        Poll::Ready(Ok(request.more.as_ref().and_then(|more| more.piece.as_deref()).unwrap_or_default()))
    }

    fn consume(self: Pin<&mut Self>, n: usize) {
        let Some(more) = &mut self.get_mut().request.more else { return };
        if let Some(left) = &mut more.piece {
            left.advance(n);
            if left.is_empty() {
                more.piece = None;
            }
        }
    }
}

impl AsyncRead for RequestReader<'_> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let piece = ready!(self.as_mut().poll_fill_buf(cx))?;
        let n = piece.len().min(out.remaining());
        out.put_slice(&piece[..n]);
        self.consume(n);
        Poll::Ready(Ok(()))
    }
}

/// Tells when nobody waits for a request's answer any more. Keeps nothing of the request alive.
///
/// ```no_run
/// # async fn work(_: bytes::Bytes) -> &'static str { "" }
/// # async fn example(mut request: corelay::client::Request) -> Result<(), corelay::client::Error> {
/// let cancellation = request.cancellation();
/// let order = request.bytes().await?;
/// tokio::select! {
///     answer = work(order) => request.respond(answer).await,
///     () = cancellation.cancelled() => Ok(()), // nobody waits: stop working
/// }
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Cancellation {
    conn: Arc<Conn>,
    key: Key,
}

impl Cancellation {
    /// Resolves when nobody waits for the answer any more; also when it has been given.
    pub async fn cancelled(&self) {
        std::future::poll_fn(|cx| self.conn.with(|session| session.poll_over(self.key, cx))).await;
    }

    /// Whether that is so.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.conn.with(|session| session.is_over(self.key))
    }
}
