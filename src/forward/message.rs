//! What is forwarded.

use std::time::SystemTime;

use bytes::Bytes;
use uuid::Uuid;

use crate::base::ChannelId;
use crate::protocol::iter_headers;

/// Which of the two halves of an exchange a message was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Kind {
    /// What a consumer sent.
    #[default]
    Request,
    /// What a provider answered.
    Response,
}

impl Kind {
    /// As envelopes and headers spell it: `request` or `response`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Request => "request",
            Kind::Response => "response",
        }
    }
}

/// A message may be too large for its target to take at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Part {
    /// All of it.
    #[default]
    Whole,
    /// One of several, in order from 0.
    Chunk {
        /// Which one.
        sequence: u32,
        /// Nothing follows.
        last: bool,
    },
    /// Nothing follows, and the message never ended: what came of it is to be thrown away. The body is empty.
    Aborted {
        /// How many chunks came before.
        sequence: u32,
    },
}

/// A header block as it came, taken apart when somebody looks. Keys may occur more than once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(Bytes);

impl Headers {
    /// From the entries of a header block, without its size: see [`crate::protocol::encode_headers`].
    #[must_use]
    pub fn from_block(entries: Bytes) -> Headers {
        Headers(entries)
    }

    /// Keys and values, in the order they came.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        iter_headers(&self.0)
    }

    /// The first value of this key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&[u8]> {
        self.iter().find(|(name, _)| *name == key.as_bytes()).map(|(_, value)| value)
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Bytes the entries take.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

/// A message, or a part of one. Cheap to clone.
///
/// ```
/// use corelay::forward::Message;
/// let message = Message::from("Hello!");
/// assert_eq!(&message.body[..], b"Hello!");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Message {
    /// The request's id, as the requester chose it: equal ones may occur.
    pub id: Uuid,
    /// Where it was sent; [`ChannelId::NIL`] for a message made by hand.
    pub channel: ChannelId,
    /// Request or response.
    pub kind: Kind,
    /// The headers it came with.
    pub headers: Headers,
    /// When it was received.
    pub time: SystemTime,
    /// All of it, or a part.
    pub part: Part,
    /// The content.
    pub body: Bytes,
    /// Unique for each message (all parts of one share it), and the same when it is sent again: by this a target can
    /// tell a second delivery from a second message.
    pub key: Uuid,
}

impl Message {
    /// A whole message made by hand: a fresh id, no channel, no headers, received now.
    #[must_use]
    pub fn new(body: impl Into<Bytes>) -> Message {
        let id = Uuid::new_v4();
        Message {
            id,
            channel: ChannelId::NIL,
            kind: Kind::Request,
            headers: Headers::default(),
            time: SystemTime::now(),
            part: Part::Whole,
            body: body.into(),
            key: id,
        }
    }

    /// What a queue counts it for: body, headers, and 128 bytes for the rest.
    #[must_use]
    pub fn cost(&self) -> usize {
        self.body.len() + self.headers.len() + 128
    }
}

impl From<&str> for Message {
    fn from(body: &str) -> Message {
        Message::new(Bytes::copy_from_slice(body.as_bytes()))
    }
}

impl From<String> for Message {
    fn from(body: String) -> Message {
        Message::new(body)
    }
}

impl From<Vec<u8>> for Message {
    fn from(body: Vec<u8>) -> Message {
        Message::new(body)
    }
}

impl From<Bytes> for Message {
    fn from(body: Bytes) -> Message {
        Message::new(body)
    }
}
