//! What a request or a response carries: bytes, or a reader that is streamed.

use std::fmt;

use bytes::Bytes;
use tokio::io::AsyncRead;

/// The body of a request or a response: bytes at hand, or a reader that is streamed as credit allows (§4 of
/// `docs/PROTOCOL.md`) and never held whole.
///
/// ```
/// use corelay::client::Body;
/// let small = Body::from("text");
/// let streamed = Body::reader(tokio::io::empty());
/// # let _ = (small, streamed, Body::empty());
/// ```
pub struct Body(pub(super) Kind);

pub(super) enum Kind {
    Bytes(Bytes),
    Reader(Box<dyn AsyncRead + Send + Unpin>),
}

impl Body {
    /// No bytes at all.
    #[must_use]
    pub fn empty() -> Body {
        Body(Kind::Bytes(Bytes::new()))
    }

    /// What `reader` gives until its end. Read only as fast as the other side takes it; a read that fails fails the
    /// request (or the response) with [`ErrorKind::Body`](super::ErrorKind::Body).
    pub fn reader(reader: impl AsyncRead + Send + Unpin + 'static) -> Body {
        Body(Kind::Reader(Box::new(reader)))
    }
}

impl Default for Body {
    fn default() -> Body {
        Body::empty()
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Bytes(bytes) => write!(f, "Body({} bytes)", bytes.len()),
            Kind::Reader(_) => f.write_str("Body(reader)"),
        }
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Body {
        Body(Kind::Bytes(bytes))
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Body {
        Body(Kind::Bytes(bytes.into()))
    }
}

impl From<String> for Body {
    fn from(text: String) -> Body {
        Body(Kind::Bytes(text.into()))
    }
}

impl From<&'static str> for Body {
    fn from(text: &'static str) -> Body {
        Body(Kind::Bytes(Bytes::from_static(text.as_bytes())))
    }
}

impl From<&'static [u8]> for Body {
    fn from(bytes: &'static [u8]) -> Body {
        Body(Kind::Bytes(Bytes::from_static(bytes)))
    }
}
