//! A request as a provider sees it.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::Instant;
use uuid::Uuid;

use super::{Body, Error, Headers};

/// A request to answer. Dropped unanswered, it fails explicitly (APPLICATION, "request dropped ...").
#[derive(Debug)]
pub struct Request {
    id: Uuid,
    headers: Headers,
    deadline: Instant,
}

impl Request {
    /// The request's id.
    pub fn id(&self) -> Uuid {
        self.id
    }
    /// The request's headers.
    pub fn headers(&self) -> &Headers {
        &self.headers
    }
    /// The first value of the header `key`.
    pub fn header(&self, key: &str) -> Option<&[u8]> {
        self.headers.iter().find(|(k, _)| k == key).map(|(_, value)| value.as_slice())
    }
    /// When the consumer stops waiting.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }
    /// Time until the consumer stops waiting.
    pub fn time_left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }
    /// Whether the consumer wants no answer (§5).
    pub fn is_oneway(&self) -> bool {
        false
    }
    /// The next piece of the body; `None` at its end.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        Ok(None)
    }
    /// What is left of the body, whole.
    pub async fn bytes(&mut self) -> Result<Bytes, Error> {
        Ok(Bytes::new())
    }
    /// The body as a reader.
    pub fn reader(&mut self) -> RequestReader<'_> {
        RequestReader { _request: self }
    }
    /// Resolves when nobody waits for the answer any more.
    pub async fn cancelled(&self) {}
    /// The same, to keep apart from the request.
    pub fn cancellation(&self) -> Cancellation {
        Cancellation {}
    }
    /// Answers.
    pub async fn respond(self, body: impl Into<Body>) -> Result<(), Error> {
        let _ = body.into();
        Ok(())
    }
    /// Answers with headers.
    pub async fn respond_with(self, headers: Headers, body: impl Into<Body>) -> Result<(), Error> {
        let _ = (headers, body.into());
        Ok(())
    }
    /// Begins an answer that is written as it comes; the request's body can still be read.
    pub fn start_response(&mut self, headers: Headers) -> Result<Responder, Error> {
        let _ = headers;
        Ok(Responder {})
    }
    /// Fails the request with the provider's own error.
    pub async fn fail(self, text: impl Into<String>) -> Result<(), Error> {
        let _ = text.into();
        Ok(())
    }
}

/// The body of a [`Request`] as a reader.
#[derive(Debug)]
pub struct RequestReader<'a> {
    _request: &'a mut Request,
}

impl AsyncRead for RequestReader<'_> {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// A response being written. Dropped unfinished, it fails the request.
#[derive(Debug)]
pub struct Responder {}

impl Responder {
    /// Writes a piece; waits while the other side doesn't take it.
    pub async fn write(&mut self, bytes: impl Into<Bytes>) -> Result<(), Error> {
        let _ = bytes.into();
        Ok(())
    }
    /// Ends the response.
    pub async fn finish(self) -> Result<(), Error> {
        Ok(())
    }
    /// Breaks the response off with the provider's own error.
    pub async fn fail(self, text: impl Into<String>) -> Result<(), Error> {
        let _ = text.into();
        Ok(())
    }
}

/// Tells when nobody waits for a request's answer any more.
#[derive(Clone, Debug)]
pub struct Cancellation {}

impl Cancellation {
    /// Resolves when nobody waits any more.
    pub async fn cancelled(&self) {}
    /// Whether that is so.
    pub fn is_cancelled(&self) -> bool {
        false
    }
}
