//! Clients that publish through the toolkit's [message broker](crate::toolkit::message_broker) interface: NATS, Redis,
//! RabbitMQ and Kafka.
//!
//! A message keeps its [key](Message::key) as the id of the interface's message, with the number of its part worked
//! in, and its time. What else is known of it goes in headers:
//!
//! | header | |
//! |---|---|
//! | `corelay-request-id` | the request's id |
//! | `corelay-channel` | the channel's |
//! | `corelay-kind` | `request` or `response` |
//! | `corelay-part` | for a part: which one, from 0 |
//! | `corelay-end` | with the last part: `true`; with one that says that nothing more comes: `aborted` |
//! | `corelay-headers` | headers that can't go by their own names, as a JSON array of pairs |
//!
//! The message's own headers go by their names where a name is 1 to 100 letters, digits, `.`, `_` and `-`, doesn't
//! begin with `corelay-` and occurs once.
//!
//! The parameters that every target takes: `connect_timeout` (5s), `timeout` for a batch (10s), `max_body` (a size
//! such as `1MiB`).

#[cfg(feature = "amqp")]
mod amqp;
#[cfg(feature = "kafka")]
mod kafka;
#[cfg(feature = "nats")]
mod nats;
#[cfg(feature = "redis")]
mod redis;

use std::collections::BTreeMap;
use std::pin::Pin;

use bytes::Bytes;
use tokio::sync::Mutex;
use uuid::Uuid;

use super::target::Common;
use super::url::{Url, UrlError};
use super::{BatchFuture, Client, Done, Message, Part, Promise, SendError, SendErrorKind, SendFuture, Takes, headers};
use crate::toolkit::message_broker::{self as toolkit, Adapter, Broker, ErrorKind, Place};

#[cfg(feature = "amqp")]
pub use amqp::AmqpClient;
#[cfg(feature = "kafka")]
pub use kafka::KafkaClient;
#[cfg(feature = "nats")]
pub use nats::NatsClient;
#[cfg(feature = "redis")]
pub use redis::RedisClient;

/// Makes the connection.
type Connect = Box<dyn Fn() -> Pin<Box<dyn Future<Output = Result<Broker, toolkit::Error>> + Send>> + Send + Sync>;

/// What the four have in common.
struct Bridge {
    protocol: &'static str,
    address: String,
    place: Place,
    promise: Promise,
    common: Common,
    connect: Connect,
    /// Made when it is first needed. It connects again by itself.
    broker: Mutex<Option<Broker>>,
}

impl std::fmt::Debug for Bridge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bridge").field("address", &self.address).field("promise", &self.promise).finish_non_exhaustive()
    }
}

impl Bridge {
    /// To `place`, at least once, by what `connect` makes. All options of the URL have been read.
    fn new<A: Adapter, F>(
        protocol: &'static str,
        url: Url,
        place: Place,
        common: Common,
        connect: impl Fn() -> F + Send + Sync + 'static,
    ) -> Result<Bridge, UrlError>
    where
        F: Future<Output = Result<A, toolkit::Error>> + Send + 'static,
    {
        place.check().map_err(|error| url.refused(error))?;
        let address = url.address();
        url.finish()?;
        let options = toolkit::Options { timeout: common.timeout };
        let connect = move || {
            let adapter = connect();
            Box::pin(async move { Ok(Broker::with_options(adapter.await?, options)) }) as _
        };
        let (promise, broker) = (Promise::AtLeastOnce, Mutex::default());
        Ok(Bridge { protocol, address, place, promise, common, connect: Box::new(connect), broker })
    }

    async fn broker(&self) -> Result<Broker, SendError> {
        let mut broker = self.broker.lock().await;
        if let Some(broker) = &*broker {
            return Ok(broker.clone());
        }
        let limit = self.common.connect_timeout;
        let connected = tokio::time::timeout(limit, (self.connect)()).await;
        let late = |_| SendError::new(SendErrorKind::Connect, format!("no connection within {limit:?}"));
        let new =
            connected.map_err(late)?.map_err(|error| SendError::new(SendErrorKind::Connect, error.to_string()))?;
        Ok(broker.insert(new).clone())
    }

    async fn send_batch(&self, messages: &[Message]) -> Done {
        let broker = match self.broker().await {
            Ok(broker) => broker,
            Err(error) => return Done { delivered: 0, error: Some(error) },
        };
        let made: Result<Vec<_>, _> = messages.iter().map(envelope).collect();
        let published = match made {
            Ok(made) => broker.publish_to(&self.place, &made).await,
            Err(error) => toolkit::Published::up_to(0, 0, error),
        };
        let toolkit::Published { taken, begun, error } = published;
        Done { delivered: taken, error: error.map(|error| said(&error, begun.saturating_sub(taken))) }
    }

    /// Nothing is sent: only the way is gone.
    async fn probe(&self) -> Result<(), SendError> {
        let done = self.broker().await?.publish_to(&self.place, &[]).await;
        done.error.map_or(Ok(()), |error| Err(said(&error, 0)))
    }

    async fn close(&self) {
        if let Some(broker) = self.broker.lock().await.take() {
            broker.close().await;
        }
    }
}

/// What an error means for the message it befell; so many, itself included, had left.
fn said(error: &toolkit::Error, left: usize) -> SendError {
    let (kind, is_no) = match error.kind() {
        ErrorKind::Connection if left == 0 => (SendErrorKind::Connect, true),
        ErrorKind::Connection | ErrorKind::Closed => (SendErrorKind::Closed, false),
        ErrorKind::Timeout => (SendErrorKind::Timeout, false),
        // somebody may make the stream, queue or topic
        ErrorKind::Full | ErrorKind::UnknownTopic => (SendErrorKind::Unavailable, true),
        ErrorKind::TooLarge => (SendErrorKind::TooLarge, true),
        _ => (SendErrorKind::Rejected, true),
    };
    let said = SendError::new(kind, error.to_string());
    // after a clear no there is doubt about those behind it alone
    if left > usize::from(is_no) { said.in_doubt() } else { said }
}

/// Parts share the message's key.
fn id(message: &Message) -> Uuid {
    match message.part {
        Part::Whole => message.key,
        Part::Chunk { sequence, .. } => Uuid::new_v5(&message.key, &sequence.to_be_bytes()),
        Part::Aborted { sequence } => Uuid::new_v5(&message.key, format!("aborted {sequence}").as_bytes()),
    }
}

/// Whether a header can go by its own name.
fn is_plain(name: &[u8]) -> bool {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"._-".contains(byte);
    (1..=100).contains(&name.len()) && name.iter().all(plain) && !name.starts_with(b"corelay-")
}

/// The message of the toolkit's interface. What an adapter makes of its topic is not used.
fn envelope(message: &Message) -> Result<toolkit::Message, toolkit::Error> {
    let text = |text: String| Bytes::from(text);
    let mut builder = toolkit::Message::builder("forward").value(message.body.clone()).id(id(message));
    builder = builder.timestamp(message.time.max(std::time::UNIX_EPOCH));
    let mut seen = BTreeMap::<&[u8], usize>::new();
    message.headers.iter().for_each(|(name, _)| *seen.entry(name).or_default() += 1);
    let (plain, odd): (Vec<_>, Vec<_>) =
        message.headers.iter().partition(|(name, _)| is_plain(name) && seen.get(name) == Some(&1));
    for (name, value) in plain {
        builder = builder.header(String::from_utf8_lossy(name), Bytes::copy_from_slice(value));
    }
    let mut marks = vec![
        ("corelay-request-id", text(message.id.to_string())),
        ("corelay-channel", text(message.channel.to_string())),
        ("corelay-kind", Bytes::from_static(message.kind.as_str().as_bytes())),
    ];
    if !odd.is_empty() {
        marks.push(("corelay-headers", text(headers::as_json(odd).to_string())));
    }
    let (part, end) = match message.part {
        Part::Whole => (None, None),
        Part::Chunk { sequence, last } => (Some(sequence), last.then_some("true")),
        Part::Aborted { sequence } => (Some(sequence), Some("aborted")),
    };
    marks.extend(part.map(|sequence| ("corelay-part", text(sequence.to_string()))));
    marks.extend(end.map(|end| ("corelay-end", Bytes::from_static(end.as_bytes()))));
    builder.build_marked(marks)
}

/// Makes a client of a [`Bridge`], which `from_url` makes, for URLs of these schemes.
macro_rules! client {
    ($client:ident, $schemes:expr) => {
        impl $client {
            /// Takes the target apart; connects when the first message is sent.
            ///
            /// # Errors
            /// What is wrong with the target.
            pub fn new(target: &str) -> Result<$client, UrlError> {
                $client::from_url(Url::of(target, &$schemes)?)
            }
        }

        impl Client for $client {
            fn protocol_name(&self) -> &str {
                self.0.protocol
            }

            fn address(&self) -> &str {
                &self.0.address
            }

            fn send<'a>(&'a self, message: &'a Message) -> SendFuture<'a> {
                let one = std::slice::from_ref(message);
                Box::pin(async move { self.0.send_batch(one).await.into_result() })
            }

            fn send_batch<'a>(&'a self, messages: &'a [Message]) -> BatchFuture<'a> {
                Box::pin(self.0.send_batch(messages))
            }

            fn promise(&self) -> Promise {
                self.0.promise
            }

            fn takes(&self) -> Takes {
                Takes { max_body: Some(self.0.common.max_body), parts: true }
            }

            fn probe(&self) -> SendFuture<'_> {
                Box::pin(self.0.probe())
            }

            fn close(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
                Box::pin(self.0.close())
            }
        }
    };
}
use client;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forward::{Headers, Kind};
    use crate::protocol::encode_headers;

    fn message() -> Message {
        let mut message = Message::new("body");
        let mut block = Vec::new();
        let long = "x".repeat(101);
        let entries =
            [("one", "1"), ("two", "2"), ("two", "3"), ("a/b", "4"), ("corelay-kind", "5"), (long.as_str(), "6")];
        encode_headers(entries, &mut block).unwrap();
        message.headers = Headers::from_block(Bytes::from(block).slice(2..));
        message.kind = Kind::Response;
        message
    }

    #[test]
    fn nothing_of_a_message_is_lost_or_forged() {
        let message = message();
        let envelope = envelope(&message).unwrap();
        assert_eq!((envelope.id(), &envelope.value()[..]), (message.key, &b"body"[..]));
        let header = |name: &str| envelope.header(name).map(|value| String::from_utf8_lossy(value).into_owned());
        assert_eq!((header("one").unwrap(), header("two")), ("1".into(), None));
        assert_eq!(header("corelay-kind").unwrap(), "response");
        assert_eq!(header("corelay-request-id").unwrap(), message.id.to_string());
        assert_eq!(header("corelay-channel").unwrap(), message.channel.to_string());
        let odd = format!(r#"[["two","2"],["two","3"],["a/b","4"],["corelay-kind","5"],["{}","6"]]"#, "x".repeat(101));
        assert_eq!(header("corelay-headers").unwrap(), odd);
        assert_eq!((header("corelay-part"), header("corelay-end")), (None, None));
    }

    #[test]
    fn parts_are_told_apart_and_the_end_is_said() {
        let mut message = message();
        let mut part = |part| {
            message.part = part;
            let envelope = envelope(&message).unwrap();
            let header = |name: &str| envelope.header(name).map(|value| String::from_utf8_lossy(value).into_owned());
            (envelope.id(), header("corelay-part"), header("corelay-end"))
        };
        let whole = part(Part::Whole);
        let first = part(Part::Chunk { sequence: 0, last: false });
        let last = part(Part::Chunk { sequence: 1, last: true });
        let aborted = part(Part::Aborted { sequence: 1 });
        let ids = std::collections::BTreeSet::from([whole.0, first.0, last.0, aborted.0]);
        assert_eq!(ids.len(), 4);
        assert_eq!((first.1.as_deref(), first.2.as_deref()), (Some("0"), None));
        assert_eq!((last.1.as_deref(), last.2.as_deref()), (Some("1"), Some("true")));
        assert_eq!((aborted.1.as_deref(), aborted.2.as_deref()), (Some("1"), Some("aborted")));
    }

    #[test]
    fn doubt_is_where_something_had_left() {
        let case = |kind, left| {
            let said = said(&toolkit::Error::new(kind, "x"), left);
            (said.kind(), said.is_in_doubt())
        };
        assert_eq!(case(ErrorKind::Connection, 0), (SendErrorKind::Connect, false));
        assert_eq!(case(ErrorKind::Connection, 1), (SendErrorKind::Closed, true));
        assert_eq!(case(ErrorKind::Timeout, 1), (SendErrorKind::Timeout, true));
        assert_eq!(case(ErrorKind::Full, 1), (SendErrorKind::Unavailable, false));
        assert_eq!(case(ErrorKind::Full, 2), (SendErrorKind::Unavailable, true));
        assert_eq!(case(ErrorKind::UnknownTopic, 0), (SendErrorKind::Unavailable, false));
        assert_eq!(case(ErrorKind::TooLarge, 0), (SendErrorKind::TooLarge, false));
        assert_eq!(case(ErrorKind::Refused, 1), (SendErrorKind::Rejected, false));
    }
}
