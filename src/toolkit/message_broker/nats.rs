//! NATS JetStream. A topic is a stream with one subject, a group a durable pull consumer of it.
//!
//! - Publishing waits for the stream's acknowledgement. The message's id is the `Nats-Msg-Id`: what is published twice
//!   within the stream's duplicate window (2 min) is stored once.
//! - Acknowledging waits for the server's confirmation.
//! - [`Order::PerKey`] lets one message of the group be on its way at a time.
//! - How many replicas a stream has and where it is stored is the server's business: create streams beforehand for
//!   other than its defaults, named as [`Options::prefix`] and the topic say, a dot written as `+`.

mod codec;
mod servers;

use std::sync::Arc;
use std::time::Duration;

use async_nats::ConnectErrorKind;
use async_nats::jetstream::consumer::{self, AckPolicy, DeliverPolicy, PullConsumer};
use async_nats::jetstream::context::{
    CreateStreamErrorKind, DeleteStreamErrorKind, GetStreamErrorKind, PublishError, PublishErrorKind,
};
use async_nats::jetstream::stream::{self, ConsumerErrorKind, Stream};
use async_nats::jetstream::{self, AckKind, ErrorCode};
use async_trait::async_trait;
use futures_util::StreamExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use uuid::Uuid;

use super::adapter::{Event, Received, Source};
use super::bounds::check_timeout;
use super::delivery::Settle;
use super::feed::{self, Feed};
use super::{Adapter, Capabilities, Consume, Error, ErrorKind, Message, Order, Place, Published, Start, TopicOptions};

/// How long a request for messages stands with the server. A server that was restarted has forgotten it, so this
/// bounds how long a member then waits for nothing.
const PULL_EXPIRES: Duration = Duration::from_secs(2);
/// How long the server keeps the group of a plain subscription whose process is gone.
const ORPHAN: Duration = Duration::from_secs(300);
/// How long leaving waits for messages already on their way, to give them back at once.
const LINGER: Duration = Duration::from_millis(20);

/// How often a silent connection is tried: a server that doesn't answer twice is gone.
const PING: Duration = Duration::from_secs(10);

/// The first attempt to connect again is made at once, the next ones after this, doubling, less up to half by chance.
const RECONNECT_MIN: Duration = Duration::from_millis(100);
const RECONNECT_MAX: Duration = Duration::from_secs(5);

fn reconnect_delay(attempts: usize) -> Duration {
    let Some(doublings) = attempts.checked_sub(2) else { return Duration::ZERO };
    let doubled = 2_u32.saturating_pow(u32::try_from(doublings).unwrap_or(u32::MAX));
    RECONNECT_MIN.saturating_mul(doubled).min(RECONNECT_MAX).mul_f64(0.5 + fastrand::f64() / 2.0)
}

/// How to connect to NATS.
#[derive(Clone, PartialEq, Eq)]
pub struct Options {
    /// Servers, `nats://user:password@host:port` or `nats://token@host:port`, separated by commas; `tls://` for TLS.
    /// The login is one for all. Default `nats://127.0.0.1:4222`.
    pub url: String,
    /// What the names of streams and subjects begin with. Default `corelay-`.
    pub prefix: String,
    /// How long a request to JetStream may take. Default 5 s.
    pub timeout: Duration,
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // the URL may hold a password
        f.debug_struct("Options").field("prefix", &self.prefix).field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

impl Default for Options {
    fn default() -> Options {
        let timeout = Duration::from_secs(5);
        Options { url: "nats://127.0.0.1:4222".into(), prefix: "corelay-".into(), timeout }
    }
}

/// NATS JetStream: see the [module](self). Clones share a connection, which is made again whenever it is lost.
///
/// ```no_run
/// use corelay::toolkit::message_broker::nats::{Nats, Options};
/// use corelay::toolkit::message_broker::Broker;
/// # async fn example() -> Result<(), corelay::toolkit::message_broker::Error> {
/// let broker = Broker::new(Nats::connect(Options::default()).await?);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Nats {
    client: async_nats::Client,
    jetstream: jetstream::Context,
    prefix: Arc<str>,
}

impl Nats {
    /// What it can do.
    pub const CAPABILITIES: Capabilities = Capabilities {
        stores: true,
        durable: true,
        fan_out: true,
        ack_timeout: true,
        delayed_nack: true,
        order_per_key: true,
        topics: true,
        list_topics: true,
        start_earliest: true,
        max_messages: true,
        max_age: true,
    };

    /// Connects.
    ///
    /// # Errors
    /// [`ErrorKind::Connection`] where no server answers; [`ErrorKind::Refused`] where it doesn't take the login;
    /// [`ErrorKind::Invalid`] for a URL or prefix that can't be used.
    pub async fn connect(options: Options) -> Result<Nats, Error> {
        let Options { url, prefix, timeout } = options;
        check_timeout(timeout)?;
        if !prefix.is_empty() {
            super::name::check("prefix", &prefix)?;
        }
        let (servers, login) = servers::servers(&url)?;
        let connect = async_nats::ConnectOptions::new()
            .connection_timeout(timeout)
            .ping_interval(PING)
            .reconnect_delay_callback(reconnect_delay);
        let connect = match login {
            Some(login) => login.put(connect),
            None => connect,
        };
        let client = connect.connect(servers).await.map_err(|error| match error.kind() {
            ConnectErrorKind::AuthorizationViolation | ConnectErrorKind::Authentication => {
                Error::new(ErrorKind::Refused, "the server refuses the login, or asks for one").caused_by(error)
            }
            _ => unreachable("connecting failed", error),
        })?;
        let mut jetstream = jetstream::new(client.clone());
        jetstream.set_timeout(timeout);
        Ok(Nats { client, jetstream, prefix: prefix.into() })
    }

    fn subject(&self, topic: &str) -> String {
        format!("{}{topic}", self.prefix)
    }

    /// Stream names have no dots; topics have no `+`.
    fn stream_name(&self, topic: &str) -> String {
        self.subject(topic).replace('.', "+")
    }

    async fn stream(&self, topic: &str) -> Result<Stream, Error> {
        let found = self.jetstream.get_stream(self.stream_name(topic)).await;
        found.map_err(|error| match error.kind() {
            GetStreamErrorKind::JetStream(inner) if inner.error_code() == ErrorCode::STREAM_NOT_FOUND => {
                Error::unknown_topic(topic)
            }
            GetStreamErrorKind::Request => unreachable("JetStream does not answer", error),
            _ => Error::new(ErrorKind::Refused, format!("stream of {topic:?}: {error}")).caused_by(error),
        })
    }

    /// Nobody took a publish: there is no such topic, or JetStream isn't there at the moment.
    async fn publish_error(&self, topic: &str, error: PublishError) -> Error {
        match error.kind() {
            PublishErrorKind::StreamNotFound => match self.stream(topic).await {
                Ok(_) => unreachable("the stream was not there", error),
                Err(why) => why,
            },
            PublishErrorKind::TimedOut => {
                Error::new(ErrorKind::Timeout, "the stream did not acknowledge in time").caused_by(error)
            }
            PublishErrorKind::MaxPayloadExceeded => too_large(error),
            PublishErrorKind::BrokenPipe => unreachable("the connection was lost", error),
            _ => Error::new(ErrorKind::Refused, format!("publish to {topic:?}: {error}")).caused_by(error),
        }
    }

    /// All are sent, then the acknowledgements awaited.
    async fn store(&self, subject: &str, messages: &[Message]) -> Published {
        let why = |error: PublishError| match error.kind() {
            PublishErrorKind::StreamNotFound => {
                Error::new(ErrorKind::UnknownTopic, format!("no stream takes the subject {subject:?}"))
            }
            PublishErrorKind::TimedOut => {
                Error::new(ErrorKind::Timeout, "the stream did not acknowledge in time").caused_by(error)
            }
            PublishErrorKind::MaxPayloadExceeded => too_large(error),
            PublishErrorKind::BrokenPipe => unreachable("the connection was lost", error),
            _ => Error::new(ErrorKind::Refused, format!("publish to {subject:?}: {error}")).caused_by(error),
        };
        let mut sent = Vec::with_capacity(messages.len());
        let mut unsent = None;
        for message in messages {
            let (headers, value) = (codec::headers(message), message.value().clone());
            match self.jetstream.publish_with_headers(subject.to_string(), headers, value).await {
                Ok(acknowledging) => sent.push(acknowledging),
                Err(error) => {
                    unsent = Some(why(error));
                    break;
                }
            }
        }
        let (begun, mut taken) = (sent.len(), 0);
        for acknowledging in sent {
            match acknowledging.await {
                Ok(_) => taken += 1,
                Err(error) => return Published::up_to(taken, begun, why(error)),
            }
        }
        Published { taken, begun, error: unsent }
    }

    /// To the connection, and no further.
    async fn hand_over(&self, subject: &str, messages: &[Message]) -> Published {
        let mut unsent = None;
        let mut taken = 0;
        for message in messages {
            let (headers, value) = (codec::headers(message), message.value().clone());
            if let Err(error) = self.client.publish_with_headers(subject.to_string(), headers, value).await {
                unsent = Some(match error.kind() {
                    async_nats::client::PublishErrorKind::MaxPayloadExceeded => too_large(error),
                    _ => unreachable("the connection was lost", error),
                });
                break;
            }
            taken += 1;
        }
        match self.client.flush().await {
            Ok(()) => Published { taken, begun: taken, error: unsent },
            Err(error) => Published::up_to(0, taken, unreachable("the connection was lost", error)),
        }
    }

    async fn group(&self, consume: &Consume) -> Result<PullConsumer, Error> {
        let stream = self.stream(&consume.topic).await?;
        let one_at_a_time = consume.order == Order::PerKey;
        // names of consumers have no dots either
        let name = consume.group.replace('.', "+");
        let config = consumer::pull::Config {
            durable_name: Some(name.clone()),
            ack_policy: AckPolicy::Explicit,
            ack_wait: consume.ack_timeout,
            deliver_policy: if consume.start == Start::Earliest { DeliverPolicy::All } else { DeliverPolicy::New },
            max_ack_pending: if one_at_a_time { 1 } else { 0 },
            inactive_threshold: if consume.temporary { ORPHAN } else { Duration::ZERO },
            ..consumer::pull::Config::default()
        };
        let found = stream.get_or_create_consumer(&name, config).await;
        let found = found.map_err(|error| match error.kind() {
            ConsumerErrorKind::TimedOut | ConsumerErrorKind::Request => unreachable("JetStream does not answer", error),
            _ => Error::new(ErrorKind::Refused, format!("group {:?}: {error}", consume.group)).caused_by(error),
        })?;
        if one_at_a_time && found.cached_info().config.max_ack_pending != 1 {
            let text = format!("group {:?} exists, and was not made to keep keys in order", consume.group);
            return Err(Error::new(ErrorKind::Invalid, text));
        }
        Ok(found)
    }
}

fn too_large(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(ErrorKind::TooLarge, "larger than the server's max_payload").caused_by(error)
}

fn unreachable(text: &'static str, error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(ErrorKind::Connection, text).caused_by(error)
}

/// The source of errors that are boxed.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Text(String);

#[async_trait]
impl Adapter for Nats {
    fn system(&self) -> &'static str {
        "nats"
    }

    fn capabilities(&self) -> Capabilities {
        Nats::CAPABILITIES
    }

    async fn publish(&self, message: Message) -> Result<(), Error> {
        let topic = message.topic().to_string();
        let headers = codec::headers(&message);
        let sent = self.jetstream.publish_with_headers(self.subject(&topic), headers, message.value().clone()).await;
        let done = match sent {
            Ok(acknowledged) => acknowledged.await,
            Err(error) => Err(error),
        };
        match done {
            Ok(_) => Ok(()),
            Err(error) => Err(self.publish_error(&topic, error).await),
        }
    }

    async fn publish_to(&self, place: &Place, messages: &[Message]) -> Published {
        let Place::Subject { name, stored } = place else { return Published::up_to(0, 0, self.no_place(place)) };
        if self.client.connection_state() != async_nats::connection::State::Connected {
            return Published::up_to(0, 0, Error::new(ErrorKind::Connection, "there is no connection at the moment"));
        }
        if *stored { self.store(name, messages).await } else { self.hand_over(name, messages).await }
    }

    async fn consume(&self, consume: &Consume) -> Result<Box<dyn Source>, Error> {
        let group = self.group(consume).await?;
        let reader = Reader { nats: self.clone(), group, consume: consume.clone() };
        Ok(Box::new(Feed::start(consume.in_flight, |into, stop| reader.run(into, stop))))
    }

    async fn create_topic(&self, topic: &str, options: &TopicOptions) -> Result<(), Error> {
        let config = stream::Config {
            name: self.stream_name(topic),
            subjects: vec![self.subject(topic)],
            max_messages: options.max_messages.map_or(-1, |most| i64::try_from(most).unwrap_or(i64::MAX)),
            max_age: options.max_age.unwrap_or_default(),
            // a second creation with the same settings would be no error
            description: Some(format!("topic {topic}, {}", Uuid::new_v4())),
            ..stream::Config::default()
        };
        let created = self.jetstream.create_stream(config).await;
        created.map(drop).map_err(|error| match error.kind() {
            CreateStreamErrorKind::JetStream(inner) if inner.error_code() == ErrorCode::STREAM_NAME_EXIST => {
                Error::topic_exists(topic)
            }
            CreateStreamErrorKind::TimedOut
            | CreateStreamErrorKind::Response
            | CreateStreamErrorKind::JetStreamUnavailable => unreachable("JetStream does not answer", error),
            _ => Error::new(ErrorKind::Refused, format!("creating {topic:?}: {error}")).caused_by(error),
        })
    }

    async fn delete_topic(&self, topic: &str) -> Result<(), Error> {
        let deleted = self.jetstream.delete_stream(self.stream_name(topic)).await;
        deleted.map(drop).map_err(|error| match error.kind() {
            DeleteStreamErrorKind::JetStream(inner) if inner.error_code() == ErrorCode::STREAM_NOT_FOUND => {
                Error::unknown_topic(topic)
            }
            DeleteStreamErrorKind::JetStream(_) => {
                Error::new(ErrorKind::Refused, format!("deleting {topic:?}: {error}")).caused_by(error)
            }
            _ => unreachable("JetStream does not answer", error),
        })
    }

    async fn topic_exists(&self, topic: &str) -> Result<bool, Error> {
        match self.stream(topic).await {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == ErrorKind::UnknownTopic => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn topics(&self) -> Result<Vec<String>, Error> {
        let mut names = self.jetstream.stream_names();
        let mut topics = Vec::new();
        while let Some(name) = names.next().await {
            let name = name.map_err(|error| unreachable("JetStream does not answer", error))?;
            let name = name.replace('+', ".");
            topics.extend(name.strip_prefix(&*self.prefix).map(String::from));
        }
        Ok(topics)
    }

    async fn ping(&self) -> Result<(), Error> {
        // not the account's figures: servers before 2.10 state them in a form the client can't read
        let mut names = self.jetstream.stream_names();
        match names.next().await {
            Some(Err(error)) => Err(unreachable("JetStream does not answer", error)),
            _ => Ok(()),
        }
    }

    async fn close(&self) {
        // what is not flushed by then is lost with the connection
        let _ = self.client.drain().await;
    }
}

/// Fetches messages for one member.
struct Reader {
    nats: Nats,
    group: PullConsumer,
    consume: Consume,
}

impl Reader {
    async fn run(self, into: feed::Into, mut stop: feed::Stop) -> Result<(), Error> {
        let slots = Arc::new(Semaphore::new(self.consume.in_flight));
        loop {
            match self.fetch(&slots, &into, &mut stop).await {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => {
                    let _ = into.send(Err(error)).await;
                    return Ok(());
                }
            }
        }
        if self.consume.temporary {
            let name = self.consume.group.replace('.', "+");
            let stream = self.nats.stream_name(&self.consume.topic);
            let gone = self.nats.jetstream.delete_consumer_from_stream(name, stream).await;
            gone.map_err(|error| unreachable("the group could not be deleted", error))?;
        }
        Ok(())
    }

    /// Asks for as many as may be on their way, and hands them on. Whether to go on.
    async fn fetch(&self, slots: &Arc<Semaphore>, into: &feed::Into, stop: &mut feed::Stop) -> Result<bool, Error> {
        let first = tokio::select! {
            biased;
            _ = &mut *stop => return Ok(false),
            slot = slots.clone().acquire_owned() => slot.map_err(|_| Error::new(ErrorKind::Closed, "left"))?,
        };
        let mut free = vec![first];
        free.extend(std::iter::from_fn(|| slots.clone().try_acquire_owned().ok()));
        let pull = self.group.batch().max_messages(free.len()).expires(PULL_EXPIRES);
        let mut batch = pull.messages().await.map_err(|error| unreachable("could not ask for messages", error))?;
        loop {
            let message = tokio::select! {
                biased;
                _ = &mut *stop => break,
                message = batch.next() => message,
            };
            let Some(message) = message else { return Ok(true) };
            let message = message.map_err(|error| self.why(&error.to_string()))?;
            let Some(slot) = free.pop() else { return Ok(true) };
            // a member that is leaving gives it back
            if let Err(left) = into.send(Ok(self.receive(message, slot).into())).await
                && let Ok(Event::Message(received)) = left.0
            {
                received.settle.abandon();
            }
        }
        // what is on its way goes back now, not when it is late
        while let Ok(Some(Ok(message))) = timeout(LINGER, batch.next()).await {
            let _ = message.ack_with(AckKind::Nak(None)).await;
        }
        Ok(false)
    }

    /// What a failed fetch means.
    fn why(&self, text: &str) -> Error {
        Error::new(ErrorKind::Connection, format!("messages of {:?}", self.consume.topic)).caused_by(Text(text.into()))
    }

    fn receive(&self, message: jetstream::Message, slot: OwnedSemaphorePermit) -> Received {
        let attempt = message.info().map_or(1, |info| u32::try_from(info.delivered).unwrap_or(u32::MAX));
        let decoded = codec::message(&self.consume.topic, &message);
        Received { message: decoded, attempt, settle: Box::new(Held { message, _slot: slot }) }
    }
}

/// One message this member holds.
#[derive(Debug)]
struct Held {
    message: jetstream::Message,
    _slot: OwnedSemaphorePermit,
}

fn settled(done: Result<(), async_nats::Error>) -> Result<(), Error> {
    let failed = |error: async_nats::Error| unreachable("the server did not confirm", Text(error.to_string()));
    done.map_err(failed)
}

#[async_trait]
impl Settle for Held {
    async fn ack(self: Box<Self>) -> Result<(), Error> {
        settled(self.message.double_ack().await)
    }

    async fn nack(self: Box<Self>, delay: Duration) -> Result<(), Error> {
        let delay = (!delay.is_zero()).then_some(delay);
        settled(self.message.double_ack_with(AckKind::Nak(delay)).await)
    }

    fn abandon(self: Box<Self>) {
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { self.message.ack_with(AckKind::Nak(None)).await });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_bound() {
        assert_eq!((reconnect_delay(0), reconnect_delay(1)), (Duration::ZERO, Duration::ZERO));
        for (attempts, most) in [(2, 100), (3, 200), (7, 3200), (8, 5000), (usize::MAX, 5000)] {
            let (least, most) = (Duration::from_millis(most / 2), Duration::from_millis(most));
            let delay = reconnect_delay(attempts);
            assert!((least..=most).contains(&delay), "{attempts}: {delay:?}");
        }
    }
}
