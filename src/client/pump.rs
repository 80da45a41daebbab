//! Feeding a connection from a reader, as fast as credit allows.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::connection::Conn;
use super::session::{Failure, Flow};
use crate::base::Key;

/// Bytes read at once, and bytes that may wait in the session when the next read begins: what a streamed body takes
/// of memory is at most twice this.
const PIECE: usize = 64 * 1024;

/// Reads ahead of a body's writing. Pieces are cut from one buffer, so that small reads cost little memory.
pub(super) struct Feed<R> {
    reader: R,
    buffer: BytesMut,
}

impl<R: AsyncRead + Unpin> Feed<R> {
    pub(super) fn new(reader: R) -> Feed<R> {
        Feed { reader, buffer: BytesMut::new() }
    }

    /// The next piece, once there is room for it; `None` when it is not wanted any more; empty at the end.
    pub(super) async fn next(&mut self, conn: &Conn, key: Key) -> Option<io::Result<Bytes>> {
        if std::future::poll_fn(|cx| conn.poll_room(key, PIECE, cx)).await == Flow::Closed {
            return None;
        }
        if self.buffer.capacity() < PIECE / 4 {
            self.buffer.reserve(PIECE);
        }
        let read = std::future::poll_fn(|cx| {
            if let Poll::Ready(result) = pin!(self.reader.read_buf(&mut self.buffer)).poll(cx) {
                return Poll::Ready(Some(result));
            }
            conn.with(|session| session.poll_unwanted(key, cx)).map(|()| None)
        })
        .await?;
        Some(read.map(|_| self.buffer.split().freeze()))
    }
}

/// The task that feeds a request's body. It ends by itself when the stream does.
pub(super) async fn pump(conn: Arc<Conn>, key: Key, reader: Box<dyn AsyncRead + Send + Unpin>) {
    /// Ends the request if the task ends before the body: by a panic of the reader.
    struct Guard<'a>(&'a Conn, Key, bool);
    impl Drop for Guard<'_> {
        fn drop(&mut self) {
            if !self.2 {
                self.0.give_up(self.1, Failure::body("reading the request's body panicked", None));
            }
        }
    }
    let mut guard = Guard(&conn, key, false);
    let mut feed = Feed::new(reader);
    loop {
        let flow = match feed.next(&conn, key).await {
            None => Flow::Closed,
            Some(Ok(piece)) if piece.is_empty() => {
                conn.with(|session| session.finish_body(key));
                Flow::Closed
            }
            Some(Ok(piece)) => conn.with(|session| session.push_body(key, piece)),
            Some(Err(error)) => {
                conn.give_up(key, Failure::body("reading the request's body failed", Some(Arc::new(error))));
                Flow::Closed
            }
        };
        if flow == Flow::Closed {
            guard.2 = true;
            return;
        }
    }
}
