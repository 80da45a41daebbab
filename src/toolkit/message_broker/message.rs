//! What is published.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use uuid::Uuid;

use super::{Error, ErrorKind, name};

/// Names and values. Names are unique and keep their case.
pub type Headers = BTreeMap<String, Bytes>;

/// A message. Cheap to clone.
///
/// ```
/// use corelay::toolkit::message_broker::Message;
/// let message = Message::builder("user-events").key("user-123").value("hello").header("lang", "en").build()?;
/// assert_eq!((message.topic(), &message.value()[..]), ("user-events", &b"hello"[..]));
/// assert_eq!(message.header("lang"), Some(&b"en"[..]));
/// # Ok::<(), corelay::toolkit::message_broker::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    topic: String,
    key: Option<Bytes>,
    value: Bytes,
    headers: Headers,
    timestamp: SystemTime,
    id: Uuid,
}

impl Message {
    /// Begins a message for `topic`.
    pub fn builder(topic: impl Into<String>) -> MessageBuilder {
        MessageBuilder {
            topic: topic.into(),
            key: None,
            value: Bytes::new(),
            headers: Headers::new(),
            timestamp: None,
            id: None,
        }
    }

    /// Where it goes.
    #[must_use]
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// Messages of one key are kept in order, where that is asked for and the system can: see
    /// [`Order`](super::Order).
    #[must_use]
    pub fn key(&self) -> Option<&Bytes> {
        self.key.as_ref()
    }

    /// The content.
    #[must_use]
    pub fn value(&self) -> &Bytes {
        &self.value
    }

    /// All headers.
    #[must_use]
    pub fn headers(&self) -> &Headers {
        &self.headers
    }

    /// One header's value.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers.get(name).map(|value| &value[..])
    }

    /// When it was made, to the millisecond.
    #[must_use]
    pub fn timestamp(&self) -> SystemTime {
        self.timestamp
    }

    /// The same in milliseconds since 1970: as the systems carry it.
    #[must_use]
    pub fn timestamp_ms(&self) -> u64 {
        let since = self.timestamp.duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    /// The same message has the same id each time it is delivered, and when it is published again.
    #[must_use]
    pub fn id(&self) -> Uuid {
        self.id
    }

    /// The same message for a dead letter topic.
    pub(super) fn dead(mut self, topic: &str, group: &str, failure: &str) -> Message {
        let from = std::mem::replace(&mut self.topic, topic.into());
        let reasons = [("topic", from), ("group", group.into()), ("error", failure.into())];
        self.headers.extend(reasons.map(|(name, value)| (format!("dead-letter-{name}"), Bytes::from(value))));
        self
    }
}

/// Builds a [`Message`].
#[derive(Clone, Debug)]
#[must_use]
pub struct MessageBuilder {
    topic: String,
    key: Option<Bytes>,
    value: Bytes,
    headers: Headers,
    timestamp: Option<SystemTime>,
    id: Option<Uuid>,
}

impl MessageBuilder {
    /// With a key. Default: none.
    pub fn key(mut self, key: impl Into<Bytes>) -> MessageBuilder {
        self.key = Some(key.into());
        self
    }

    /// With this content. Default: empty.
    pub fn value(mut self, value: impl Into<Bytes>) -> MessageBuilder {
        self.value = value.into();
        self
    }

    /// With a header: 1 to 100 letters, digits, `.`, `_` and `-`, not beginning with `corelay-`, which the adapters
    /// use. A second one of the same name replaces the first.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<Bytes>) -> MessageBuilder {
        self.headers.insert(name.into(), value.into());
        self
    }

    /// With the time it was made; cut to milliseconds. Default: now.
    pub fn timestamp(mut self, timestamp: SystemTime) -> MessageBuilder {
        self.timestamp = Some(timestamp);
        self
    }

    /// With an id. Default: a random one.
    pub fn id(mut self, id: Uuid) -> MessageBuilder {
        self.id = Some(id);
        self
    }

    /// The message.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] for a topic or header name that not every system would take, or a time before 1970.
    pub fn build(self) -> Result<Message, Error> {
        name::check("topic", &self.topic)?;
        for header in self.headers.keys() {
            check_header(header)?;
        }
        let timestamp = self.timestamp.unwrap_or_else(SystemTime::now);
        let since = timestamp.duration_since(UNIX_EPOCH);
        let since = since.map_err(|_| Error::new(ErrorKind::Invalid, "timestamp: expected one after 1970"))?;
        let ms = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        Ok(Message {
            topic: self.topic,
            key: self.key,
            value: self.value,
            headers: self.headers,
            timestamp: UNIX_EPOCH + Duration::from_millis(ms),
            id: self.id.unwrap_or_else(Uuid::new_v4),
        })
    }
}

#[cfg(all(feature = "forward", any(feature = "nats", feature = "redis", feature = "amqp", feature = "kafka")))]
impl MessageBuilder {
    /// The message, with headers of names that are reserved.
    pub(crate) fn build_marked(self, marks: impl IntoIterator<Item = (&'static str, Bytes)>) -> Result<Message, Error> {
        let mut message = self.build()?;
        message.headers.extend(marks.into_iter().map(|(name, value)| (name.to_string(), value)));
        Ok(message)
    }
}

#[cfg(any(feature = "nats", feature = "redis", feature = "amqp", feature = "kafka", feature = "client"))]
impl MessageBuilder {
    /// A message that came from a system, whose other users keep to other rules.
    pub(super) fn received(self) -> Message {
        Message {
            topic: self.topic,
            key: self.key,
            value: self.value,
            headers: self.headers,
            timestamp: self.timestamp.unwrap_or(UNIX_EPOCH),
            id: self.id.unwrap_or_else(Uuid::new_v4),
        }
    }
}

fn check_header(header: &str) -> Result<(), Error> {
    let wrong = |why: &str| Err(Error::new(ErrorKind::Invalid, format!("header {header:?}: {why}")));
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if header.is_empty() || header.len() > 100 || !header.bytes().all(plain) {
        return wrong("expected 1 to 100 letters, digits, dots, underscores and dashes");
    }
    let reserved = header.get(..8).is_some_and(|start| start.eq_ignore_ascii_case("corelay-"));
    if reserved { wrong("names that begin with corelay- are reserved") } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_system_should_get_is_refused() {
        let build = |header: &str| Message::builder("t").header(header, "x").build();
        for header in ["", "a b", "a:b", "ä", "Corelay-Key", &"x".repeat(101)] {
            assert_eq!(build(header).unwrap_err().kind(), ErrorKind::Invalid, "{header}");
        }
        assert!(build("Event_Type-2.x").is_ok());
        let early = UNIX_EPOCH - Duration::from_secs(1);
        assert!(Message::builder("t").timestamp(early).build().is_err());
    }

    #[test]
    fn what_is_not_said_is_made_up() {
        let (one, two) = (Message::builder("t").build().unwrap(), Message::builder("t").build().unwrap());
        assert_ne!(one.id(), two.id());
        assert_eq!((one.key(), one.value().len()), (None, 0));
        assert!(one.timestamp().elapsed().unwrap() < Duration::from_secs(60));
        let precise = UNIX_EPOCH + Duration::from_nanos(1_234_567_890);
        let message = Message::builder("t").timestamp(precise).build().unwrap();
        assert_eq!((message.timestamp_ms(), message.timestamp()), (1234, UNIX_EPOCH + Duration::from_millis(1234)));
    }
}
