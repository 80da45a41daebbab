//! A response as it comes.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use futures_core::Stream;
use tokio::io::{AsyncBufRead, AsyncRead, ReadBuf};
use uuid::Uuid;

use super::sending::Opened;
use super::session::{Begun, Chunks};
use super::{Error, ErrorKind, Headers};
use crate::base::Key;
use crate::protocol::{encode_headers, iter_headers};

/// A response as it comes. Dropped before its end, it cancels the request at the provider.
///
/// What is not read is not granted either (§4): a slow reader slows its own provider, and nobody else.
///
/// ```no_run
/// # async fn example(consumer: corelay::client::Consumer) -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// let response = consumer.send("report.csv", Duration::from_secs(60)).await?;
/// println!("{:?}", response.header("content-type"));
/// let mut file = tokio::fs::File::create("report.csv").await?;
/// tokio::io::copy(&mut response.into_reader(), &mut file).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Response {
    id: Uuid,
    /// Boxed, for they are rare.
    headers: Option<Box<Headers>>,
    rest: Chunks,
    opened: Opened,
    /// It counts as in flight, until its end.
    counted: bool,
}

pub(super) static NO_HEADERS: Headers = Headers::new();

pub(super) fn headers_of(block: &[u8]) -> Headers {
    iter_headers(block).map(|(key, value)| (String::from_utf8_lossy(key).into_owned(), value.to_vec())).collect()
}

#[inline]
pub(super) fn block_of(headers: Headers) -> Result<Vec<u8>, Error> {
    if headers.is_empty() { Ok(Vec::new()) } else { encode(headers) }
}

fn encode(headers: Headers) -> Result<Vec<u8>, Error> {
    let mut block = Vec::new();
    encode_headers(headers, &mut block)
        .map_err(|bad| Error::new(ErrorKind::InvalidInput, bad.to_string()).source(Some(Arc::new(bad))))?;
    Ok(block)
}

pub(super) fn find<'a>(headers: &'a Headers, key: &str) -> Option<&'a [u8]> {
    headers.iter().find(|(k, _)| k == key).map(|(_, value)| value.as_slice())
}

impl Response {
    pub(super) fn new(id: Uuid, begun: Begun, mut opened: Opened) -> Response {
        let headers = begun.block.map(|block| Box::new(headers_of(&block)));
        let counted = begun.rest.is_none();
        if !counted {
            // It has come whole, and so has ended.
            opened.key = None;
            opened.conn.counts().end();
        }
        Response { id, headers, rest: begun.rest.unwrap_or_default(), opened, counted }
    }

    /// Whether it had counted as in flight; it does so no more.
    fn end_flight(&mut self) -> bool {
        let counted = std::mem::take(&mut self.counted);
        if counted {
            self.opened.conn.counts().end();
        }
        counted
    }

    /// The id the request went under.
    #[must_use]
    pub fn request_id(&self) -> Uuid {
        self.id
    }

    /// The response's headers, in the order they came.
    #[must_use]
    pub fn headers(&self) -> &Headers {
        self.headers.as_deref().unwrap_or(&NO_HEADERS)
    }

    /// The first value of the header `key`.
    #[must_use]
    pub fn header(&self, key: &str) -> Option<&[u8]> {
        find(self.headers(), key)
    }

    /// The next piece of the body; `None` at its end. Where pieces begin and end means nothing (§3).
    ///
    /// Small pieces share memory with others, 2 KiB at a time: copy those that are kept for long.
    ///
    /// # Errors
    /// What ended the request early. The pieces before were as the provider sent them.
    pub fn chunk(&mut self) -> impl Future<Output = Result<Option<Bytes>, Error>> + Send {
        std::future::poll_fn(|cx| self.poll_chunk(cx))
    }

    /// What is left of the body, whole in memory.
    ///
    /// # Errors
    /// As [`Response::chunk`].
    pub async fn bytes(mut self) -> Result<Bytes, Error> {
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
    #[must_use]
    pub fn into_reader(self) -> ResponseReader {
        ResponseReader { response: self, piece: Bytes::new() }
    }

    #[inline]
    fn poll_chunk(&mut self, cx: &Context<'_>) -> Poll<Result<Option<Bytes>, Error>> {
        match self.opened.key {
            None => Poll::Ready(Ok(self.rest.pop())),
            Some(key) => self.poll_more(key, cx),
        }
    }

    fn poll_more(&mut self, key: Key, cx: &Context<'_>) -> Poll<Result<Option<Bytes>, Error>> {
        let result = ready!(self.opened.conn.poll_chunk(key, cx));
        match &result {
            Ok(Some(_)) => {}
            Ok(None) => {
                self.end_flight();
            }
            Err(error) => {
                if self.end_flight() {
                    self.opened.conn.counts().failed(error);
                }
            }
        }
        Poll::Ready(result)
    }
}

impl Drop for Response {
    fn drop(&mut self) {
        self.end_flight();
    }
}

/// The pieces of the body, as [`Response::chunk`] gives them; over at the body's end, and behind an error.
///
/// ```no_run
/// # async fn example(consumer: corelay::client::Consumer) -> Result<(), corelay::client::Error> {
/// use std::time::Duration;
/// use futures_util::TryStreamExt;
/// let response = consumer.send("two apples", Duration::from_secs(5)).await?;
/// let pieces: Vec<bytes::Bytes> = response.try_collect().await?;
/// # Ok(())
/// # }
/// ```
impl Stream for Response {
    type Item = Result<Bytes, Error>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        let over = this.opened.key.is_some() && !this.counted;
        if over { Poll::Ready(None) } else { this.poll_chunk(cx).map(Result::transpose) }
    }
}

/// The body of a [`Response`] as a reader: see [`Response::into_reader`].
#[derive(Debug)]
pub struct ResponseReader {
    response: Response,
    piece: Bytes,
}

impl AsyncBufRead for ResponseReader {
    fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        let this = self.get_mut();
        while this.piece.is_empty() {
            match ready!(this.response.poll_chunk(cx))? {
                Some(piece) => this.piece = piece,
                None => break,
            }
        }
        Poll::Ready(Ok(&this.piece))
    }

    fn consume(mut self: Pin<&mut Self>, n: usize) {
        self.piece.advance(n);
    }
}

impl AsyncRead for ResponseReader {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let piece = ready!(self.as_mut().poll_fill_buf(cx))?;
        let n = piece.len().min(out.remaining());
        out.put_slice(&piece[..n]);
        self.consume(n);
        Poll::Ready(Ok(()))
    }
}
