//! Answering a request: exactly one terminal frame, whatever happens (§3).

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use bytes::Bytes;

use super::body::Kind;
use super::connection::Conn;
use super::pump::Feed;
use super::response::block_of;
use super::session::{Answer, Flow};
use super::{Body, Error, ErrorKind, Headers};
use crate::base::{Key, Time};
use crate::protocol::Code;

/// Bytes of a response that may wait for credit before a writer does.
const WAITING: usize = 64 * 1024;

/// The duty to answer. Dropped before that is done, it fails the request.
#[derive(Debug)]
pub(super) struct Reply {
    conn: Arc<Conn>,
    key: Key,
    /// When the request came.
    came: Time,
    done: bool,
    /// The connection keeps nothing of the request any more.
    released: bool,
    /// The answer has begun.
    begun: bool,
    watch: Option<Arc<Watch>>,
}

/// Lets whoever runs a handler say why a request was dropped, when the handler has returned.
#[derive(Debug, Default)]
pub(super) struct Watch(AtomicU8);

impl Watch {
    const DROPPED: u8 = 1;
    const OVER: u8 = 2;

    /// The reply is dropped unanswered: whether the watcher will see to it.
    fn leave(&self) -> bool {
        self.0.compare_exchange(0, Watch::DROPPED, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// The handler is over: whether the reply was left to the watcher.
    pub(super) fn over(&self) -> bool {
        self.0.swap(Watch::OVER, Ordering::AcqRel) == Watch::DROPPED
    }
}

impl Reply {
    /// A request begins to count as in flight.
    pub(super) fn new(conn: Arc<Conn>, key: Key, came: Time) -> Reply {
        conn.counts().begin();
        Reply { conn, key, came, done: false, released: false, begun: false, watch: None }
    }

    /// Where its request is.
    pub(super) fn place(&self) -> (&Arc<Conn>, Key) {
        (&self.conn, self.key)
    }

    /// Has a drop wait for the watcher; gives what that needs to end the request itself.
    pub(super) fn watched(&mut self) -> Watched {
        let watch = Arc::new(Watch::default());
        self.watch = Some(watch.clone());
        Watched { conn: self.conn.clone(), key: self.key, watch }
    }

    /// Answers as far as that goes without waiting; what is left of `body`, and to be done by [`Reply::complete`], is
    /// given back.
    pub(super) fn send(&mut self, headers: Headers, body: Body) -> Result<Option<Body>, Error> {
        match body.0 {
            Kind::Bytes(bytes) => {
                if self.begin(headers, bytes, true)? == Answer::Taken {
                    (self.done, self.released) = (true, true);
                    return Ok(None);
                }
                Ok(Some(Body::empty()))
            }
            Kind::Reader(_) => {
                self.begin(headers, Bytes::new(), false)?;
                Ok(Some(body))
            }
        }
    }

    pub(super) async fn complete(&mut self, rest: Body) -> Result<(), Error> {
        let Kind::Reader(reader) = rest.0 else { return self.settle().await };
        let mut feed = Feed::new(reader);
        while let Some(piece) = feed.next(&self.conn, self.key).await {
            let piece = piece.map_err(|error| self.unreadable(error))?;
            if piece.is_empty() {
                return self.finish().await;
            }
            self.conn.with(|session| session.push_body(self.key, piece));
        }
        Err(self.refused())
    }

    pub(super) fn start(mut self, headers: Headers) -> Result<Responder, Error> {
        self.begin(headers, Bytes::new(), false)?;
        self.begun = true;
        Ok(Responder { reply: self })
    }

    pub(super) fn fail(mut self, text: &str) -> Result<(), Error> {
        if let Some(error) = self.conn.failure(self.key) {
            return Err(self.count(error));
        }
        self.end_with(text);
        Ok(())
    }

    fn begin(&mut self, headers: Headers, body: Bytes, whole: bool) -> Result<Answer, Error> {
        let block = block_of(headers)?;
        self.conn.check_block(0, &block)?;
        match self.conn.with(|session| session.respond(self.key, block, body, whole)) {
            Answer::Closed => Err(self.refused()),
            answer => Ok(answer),
        }
    }

    async fn write(&mut self, bytes: Bytes) -> Result<(), Error> {
        let room = std::future::poll_fn(|cx| self.conn.poll_room(self.key, WAITING, cx)).await;
        match room {
            Flow::Open if self.conn.with(|session| session.push_body(self.key, bytes)) == Flow::Open => Ok(()),
            _ => Err(self.refused()),
        }
    }

    async fn finish(&mut self) -> Result<(), Error> {
        if self.conn.with(|session| session.finish_body(self.key)) == Flow::Closed {
            return Err(self.refused());
        }
        self.settle().await
    }

    /// Waits until the whole answer has been taken by the connection.
    async fn settle(&mut self) -> Result<(), Error> {
        match std::future::poll_fn(|cx| self.conn.poll_room(self.key, 0, cx)).await {
            Flow::Open => {
                self.done = true;
                Ok(())
            }
            Flow::Closed => Err(self.refused()),
        }
    }

    fn unreadable(&mut self, error: std::io::Error) -> Error {
        let text = format!("reading the response's body failed: {error}");
        self.end_with(&text);
        Error::new(ErrorKind::Body, text).started(true).source(Some(Arc::new(error)))
    }

    /// Nobody takes the answer; why.
    fn refused(&self) -> Error {
        let over = || Error::new(ErrorKind::Connection, "the connection ended").started(true);
        self.count(self.conn.failure(self.key).unwrap_or_else(over))
    }

    fn count(&self, error: Error) -> Error {
        self.conn.counts().failed(&error);
        error
    }

    fn let_go(&mut self) {
        if !self.done {
            if self.watch.as_ref().is_some_and(|watch| watch.leave()) {
                return;
            }
            let text = if self.begun { "response dropped before its end" } else { "request dropped without an answer" };
            self.end_with(text);
        }
        self.conn.with(|session| session.release_writer(self.key));
    }

    fn end_with(&mut self, text: &str) {
        self.done = true;
        if fail(&self.conn, self.key, text) {
            self.conn.counts().metrics.count_error(ErrorKind::Application);
        }
    }
}

/// Fails a request that has no terminal frame yet; whether that is what the consumer will see.
fn fail(conn: &Conn, key: Key, text: &str) -> bool {
    conn.with(|session| {
        let awaited = session.failure(key).is_none();
        session.fail_request(key, Code::Application, text) && awaited
    })
}

impl Drop for Reply {
    fn drop(&mut self) {
        if !self.released {
            self.let_go();
            self.conn.record(std::iter::once(self.came), self.conn.now());
        }
        self.conn.counts().end();
    }
}

/// A request whose reply is watched: ends it when its handler is over and has dropped it.
pub(super) struct Watched {
    conn: Arc<Conn>,
    key: Key,
    watch: Arc<Watch>,
}

impl Watched {
    /// The handler is over; `text` is what its request fails with, if it has not been answered.
    pub(super) fn over(self, text: &str) {
        if self.watch.over() {
            if fail(&self.conn, self.key, text) {
                self.conn.counts().metrics.count_error(ErrorKind::Application);
            }
            self.conn.with(|session| session.release_writer(self.key));
        }
    }
}

/// A response being written, from [`Request::start_response`](super::Request::start_response). Dropped before
/// [`finish`](Responder::finish), it fails the request.
#[derive(Debug)]
pub struct Responder {
    reply: Reply,
}

impl Responder {
    /// Writes a piece. Waits while the consumer doesn't take what was written before.
    ///
    /// # Errors
    /// [`ErrorKind::Cancelled`], [`ErrorKind::Deadline`] or [`ErrorKind::Connection`] when nobody waits any more.
    pub async fn write(&mut self, bytes: impl Into<Bytes>) -> Result<(), Error> {
        self.reply.write(bytes.into()).await
    }

    /// Ends the response. Resolves when all of it has been taken by the connection.
    ///
    /// # Errors
    /// As [`Responder::write`].
    pub async fn finish(mut self) -> Result<(), Error> {
        self.reply.finish().await
    }

    /// Breaks the response off with the provider's own error.
    ///
    /// # Errors
    /// As [`Responder::write`].
    pub async fn fail(self, text: impl fmt::Display) -> Result<(), Error> {
        self.reply.fail(&text.to_string())
    }
}
