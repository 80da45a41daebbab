//! A response as it comes.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::{AsyncRead, ReadBuf};
use uuid::Uuid;

use super::{Error, Headers};

/// A response as it comes. Dropped before its end, it cancels the request.
#[derive(Debug)]
pub struct Response {
    id: Uuid,
    headers: Headers,
}

impl Response {
    /// The id the request went under.
    pub fn request_id(&self) -> Uuid {
        self.id
    }
    /// The response's headers.
    pub fn headers(&self) -> &Headers {
        &self.headers
    }
    /// The first value of the header `key`.
    pub fn header(&self, key: &str) -> Option<&[u8]> {
        self.headers.iter().find(|(k, _)| k == key).map(|(_, value)| value.as_slice())
    }
    /// The next piece of the body; `None` at its end.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        Ok(None)
    }
    /// The whole body.
    pub async fn bytes(self) -> Result<Bytes, Error> {
        Ok(Bytes::new())
    }
    /// The body as a reader.
    pub fn into_reader(self) -> ResponseReader {
        ResponseReader { _response: self }
    }
}

/// The body of a [`Response`] as a reader.
#[derive(Debug)]
pub struct ResponseReader {
    _response: Response,
}

impl AsyncRead for ResponseReader {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
