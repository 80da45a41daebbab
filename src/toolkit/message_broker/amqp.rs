//! RabbitMQ by AMQP 0-9-1. A topic is a durable fanout exchange, a group a quorum queue bound to it.
//!
//! - Publishing waits for the confirmation: the message is then stored in the queue of every group, on a majority of
//!   the queue's nodes.
//! - A group gets what is published after it was first joined: an exchange keeps nothing.
//! - [`Order::PerKey`] makes the queue hand out one message at a time to a single active consumer. It is a property of
//!   the queue: members that disagree are refused.
//! - `ack_timeout` is the server's business (`consumer_timeout`, 30 min): what a member holds goes to another when its
//!   connection is lost.
//! - A node on its own that is killed within a second of a group's creation may come back with a queue that has no leader
//!   (seen with RabbitMQ 3.10): publishing to it then ends in timeouts until the queue is removed.
//! - AMQP can't list exchanges, nor the queues bound to one: which groups a topic has is noted in a queue of its own, so
//!   that they can be deleted with it.

mod codec;
mod groups;
mod reader;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use lapin::options::{
    BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions, ExchangeDeclareOptions,
    ExchangeDeleteOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::protocol::{AMQPErrorKind, AMQPSoftError};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{Channel, Confirmation, Connection, ConnectionProperties, ExchangeKind};
use tokio::sync::Mutex;
use tokio::time::timeout;

use self::reader::Reader;
use super::adapter::Source;
use super::bounds::check_timeout;
use super::feed::Feed;
use super::{Adapter, Capabilities, Consume, Error, ErrorKind, Message, Order, Place, Published, TopicOptions};

/// How long the server keeps the queue of a plain subscription whose process is gone, in ms.
const ORPHAN_MS: i32 = 300_000;
/// AMQP's bound on names.
const LONGEST_NAME: usize = 255;
/// With it, the longest topic and a slash a name is as long as it may be.
const LONGEST_PREFIX: usize = LONGEST_NAME - super::name::LONGEST - 1;

/// How to connect to RabbitMQ.
#[derive(Clone, PartialEq, Eq)]
pub struct Options {
    /// `amqp://user:password@host:port/vhost`, `amqps://` for TLS. Default `amqp://127.0.0.1:5672/%2f`.
    pub url: String,
    /// What the names of exchanges and queues begin with, at most 54 bytes. Default `corelay.`.
    pub prefix: String,
    /// How long connecting may take. Default 5 s.
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
        Options { url: "amqp://127.0.0.1:5672/%2f".into(), prefix: "corelay.".into(), timeout }
    }
}

/// RabbitMQ: see the [module](self). Clones share a connection, which is made again whenever it is lost.
///
/// ```no_run
/// use corelay::toolkit::message_broker::amqp::{Amqp, Options};
/// use corelay::toolkit::message_broker::Broker;
/// # async fn example() -> Result<(), corelay::toolkit::message_broker::Error> {
/// let broker = Broker::new(Amqp::connect(Options::default()).await?);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Amqp {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    options: Options,
    conn: Mutex<Option<Arc<Connection>>>,
    publisher: Mutex<Option<Publisher>>,
}

/// A channel that confirms, and the exchanges known to be there.
#[derive(Clone)]
struct Publisher {
    channel: Channel,
    known: HashSet<String>,
}

impl std::fmt::Debug for Publisher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Publisher").field("known", &self.known).finish_non_exhaustive()
    }
}

/// What an error of AMQP means, where nothing else is known.
fn failed(what: &str, error: lapin::Error) -> Error {
    use lapin::ErrorKind as Amqp;
    let kind = match error.kind() {
        Amqp::ProtocolError(said) => match said.kind() {
            AMQPErrorKind::Soft(AMQPSoftError::PRECONDITIONFAILED) => ErrorKind::Invalid,
            AMQPErrorKind::Soft(AMQPSoftError::RESOURCELOCKED) => ErrorKind::Connection,
            AMQPErrorKind::Soft(_) => ErrorKind::Refused,
            // the server goes down, or an operator closed the connection
            AMQPErrorKind::Hard(_) => ErrorKind::Connection,
        },
        Amqp::InvalidProtocolVersion(_) | Amqp::AuthProviderError(_) | Amqp::SerialisationError(_) => {
            ErrorKind::Refused
        }
        _ => ErrorKind::Connection,
    };
    Error::new(kind, format!("{what}: {error}")).caused_by(error)
}

/// Whether the server said that there is no such thing.
fn is_not_found(error: &lapin::Error) -> bool {
    let lapin::ErrorKind::ProtocolError(said) = error.kind() else { return false };
    *said.kind() == AMQPErrorKind::Soft(AMQPSoftError::NOTFOUND)
}

impl Amqp {
    /// What it can do.
    pub const CAPABILITIES: Capabilities = Capabilities {
        stores: true,
        durable: true,
        fan_out: true,
        order_per_key: true,
        topics: true,
        ..Capabilities::NONE
    };

    /// Connects.
    ///
    /// # Errors
    /// [`ErrorKind::Connection`] where RabbitMQ doesn't answer; [`ErrorKind::Invalid`] for a URL that can't be used.
    pub async fn connect(options: Options) -> Result<Amqp, Error> {
        check_timeout(options.timeout)?;
        if let Err(why) = options.url.parse::<lapin::uri::AMQPUri>() {
            return Err(Error::new(ErrorKind::Invalid, format!("url: expected amqp://host:port/vhost: {why}")));
        }
        if options.prefix.len() > LONGEST_PREFIX {
            let text = format!("prefix has {} bytes: expected at most {LONGEST_PREFIX}", options.prefix.len());
            return Err(Error::new(ErrorKind::Invalid, text));
        }
        let shared = Shared { options, conn: Mutex::default(), publisher: Mutex::default() };
        let amqp = Amqp { shared: Arc::new(shared) };
        amqp.conn().await?;
        Ok(amqp)
    }

    /// The connection, made again if it was lost.
    async fn conn(&self) -> Result<Arc<Connection>, Error> {
        let Options { url, timeout: limit, .. } = &self.shared.options;
        let mut conn = self.shared.conn.lock().await;
        if let Some(conn) = conn.as_ref().filter(|conn| conn.status().connected()) {
            return Ok(conn.clone());
        }
        let properties = ConnectionProperties::default().with_connection_name("corelay".into());
        let connecting = timeout(*limit, Connection::connect(url, properties)).await;
        let late = |_| Error::new(ErrorKind::Connection, format!("connecting: not within {limit:?}"));
        let new = connecting.map_err(late)?.map_err(|error| failed("connecting", error))?;
        Ok(conn.insert(Arc::new(new)).clone())
    }

    async fn channel(&self) -> Result<Channel, Error> {
        let conn = self.conn().await?;
        conn.create_channel().await.map_err(|error| failed("opening a channel", error))
    }

    fn exchange(&self, topic: &str) -> ShortString {
        name(&[&self.shared.options.prefix, topic])
    }

    /// Whether there is such an exchange. The server closes a channel on which it is asked for one there isn't.
    async fn has_exchange(&self, topic: &str) -> Result<bool, Error> {
        let channel = self.channel().await?;
        let passive = ExchangeDeclareOptions { passive: true, ..ExchangeDeclareOptions::default() };
        let declared =
            channel.exchange_declare(self.exchange(topic), ExchangeKind::Fanout, passive, FieldTable::default()).await;
        match declared {
            Ok(()) => {
                let _ = channel.close(200, "done".into()).await;
                Ok(true)
            }
            Err(error) if is_not_found(&error) => Ok(false),
            Err(error) => Err(failed("looking for a topic", error)),
        }
    }

    async fn need_exchange(&self, topic: &str) -> Result<(), Error> {
        if self.has_exchange(topic).await? { Ok(()) } else { Err(Error::unknown_topic(topic)) }
    }

    /// The channel to publish on; to `topic`, if one is named.
    async fn publisher(&self, topic: Option<&str>) -> Result<Channel, Error> {
        let mut publisher = self.shared.publisher.lock().await;
        if let Some(publisher) = publisher.as_ref().filter(|publisher| publisher.channel.status().connected())
            && topic.is_none_or(|topic| publisher.known.contains(topic))
        {
            return Ok(publisher.channel.clone());
        }
        if let Some(topic) = topic {
            self.need_exchange(topic).await?;
        }
        let current = publisher.take().filter(|publisher| publisher.channel.status().connected());
        let mut current = match current {
            Some(current) => current,
            None => {
                let channel = self.channel().await?;
                let selected = channel.confirm_select(ConfirmSelectOptions::default()).await;
                selected.map_err(|error| failed("confirm.select", error))?;
                Publisher { channel, known: HashSet::new() }
            }
        };
        current.known.extend(topic.map(String::from));
        Ok(publisher.insert(current).channel.clone())
    }

    /// What was known may have changed.
    async fn forget(&self, topic: &str) {
        if let Some(publisher) = &mut *self.shared.publisher.lock().await {
            publisher.known.remove(topic);
        }
    }

    async fn publish_on(&self, channel: &Channel, message: &Message) -> Result<(), Error> {
        let properties = codec::properties(message);
        let exchange = self.exchange(message.topic());
        let options = BasicPublishOptions::default();
        let sent = channel.basic_publish(exchange, ShortString::default(), options, message.value(), properties).await;
        match sent {
            Ok(confirming) => confirmed(confirming.await, message.topic()),
            Err(error) => Err(failed("publish", error)),
        }
    }

    /// All are sent, then the confirmations awaited.
    async fn publish_all_on(&self, channel: &Channel, place: (&str, &str, bool), messages: &[Message]) -> Published {
        let (exchange, key, mandatory) = place;
        let options = BasicPublishOptions { mandatory, ..BasicPublishOptions::default() };
        let mut sent = Vec::with_capacity(messages.len());
        let mut unsent = None;
        for message in messages {
            let (exchange, key) = (name(&[exchange]), name(&[key]));
            let properties = codec::properties(message);
            match channel.basic_publish(exchange, key, options, message.value(), properties).await {
                Ok(confirming) => sent.push(confirming),
                Err(error) => {
                    unsent = Some(failed("publish", error));
                    break;
                }
            }
        }
        let (begun, mut taken) = (sent.len(), 0);
        for confirming in sent {
            match confirmed(confirming.await, exchange) {
                Ok(()) => taken += 1,
                Err(error) => return Published::up_to(taken, begun, error),
            }
        }
        Published { taken, begun, error: unsent }
    }

    /// The group's queue, declared and bound.
    async fn queue(&self, channel: &Channel, consume: &Consume) -> Result<ShortString, Error> {
        let parts = [&self.shared.options.prefix, &consume.topic, "/", &consume.group];
        if parts.iter().map(|part| part.len()).sum::<usize>() > LONGEST_NAME {
            let text = "prefix, topic and group are together longer than the 255 bytes of AMQP's names";
            return Err(Error::new(ErrorKind::Invalid, text));
        }
        let queue = name(&parts);
        let mut arguments = FieldTable::default();
        arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
        if consume.order == Order::PerKey {
            arguments.insert("x-single-active-consumer".into(), AMQPValue::Boolean(true));
        }
        if consume.temporary {
            arguments.insert("x-expires".into(), AMQPValue::LongInt(ORPHAN_MS));
        }
        let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        let declared = channel.queue_declare(queue.clone(), durable, arguments).await;
        declared.map_err(|error| failed("declaring a group's queue", error))?;
        let exchange = self.exchange(&consume.topic);
        let key = ShortString::default();
        let bound =
            channel.queue_bind(queue.clone(), exchange, key, QueueBindOptions::default(), FieldTable::default()).await;
        match bound {
            Ok(()) => Ok(queue),
            Err(error) if is_not_found(&error) => Err(Error::unknown_topic(&consume.topic)),
            Err(error) => Err(failed("binding a group's queue", error)),
        }
    }
}

/// What became of a message sent to this exchange.
fn confirmed(outcome: lapin::Result<Confirmation>, exchange: &str) -> Result<(), Error> {
    match outcome {
        // it comes back if it was mandatory and no queue took it
        Ok(Confirmation::Ack(Some(_))) => Err(Error::new(ErrorKind::UnknownTopic, "no queue takes the message")),
        Ok(Confirmation::Ack(None)) => Ok(()),
        Ok(_) => Err(Error::new(ErrorKind::Full, "a queue did not take the message")),
        Err(error) if is_not_found(&error) => Err(Error::unknown_topic(exchange)),
        Err(error) => Err(failed("publish", error)),
    }
}

/// A name of parts known to be short enough together; cut otherwise, never a panic.
fn name(parts: &[&str]) -> ShortString {
    let mut whole = parts.concat();
    whole.truncate(whole.floor_char_boundary(LONGEST_NAME));
    whole.into()
}

#[async_trait]
impl Adapter for Amqp {
    fn system(&self) -> &'static str {
        "amqp"
    }

    fn capabilities(&self) -> Capabilities {
        Amqp::CAPABILITIES
    }

    async fn publish(&self, message: Message) -> Result<(), Error> {
        let channel = self.publisher(Some(message.topic())).await?;
        let done = self.publish_on(&channel, &message).await;
        if done.is_err() {
            self.forget(message.topic()).await;
        }
        done
    }

    async fn publish_to(&self, place: &Place, messages: &[Message]) -> Published {
        let Place::Exchange { name, key, mandatory } = place else {
            return Published::up_to(0, 0, self.no_place(place));
        };
        match self.publisher(None).await {
            Ok(channel) => self.publish_all_on(&channel, (name, key, *mandatory), messages).await,
            Err(error) => Published::up_to(0, 0, error),
        }
    }

    async fn consume(&self, consume: &Consume) -> Result<Box<dyn Source>, Error> {
        self.need_exchange(&consume.topic).await?;
        let channel = self.channel().await?;
        if !consume.temporary {
            self.enter(consume).await?;
        }
        let queue = self.queue(&channel, consume).await?;
        let prefetch = if consume.order == Order::PerKey { 1 } else { consume.in_flight };
        let prefetch = u16::try_from(prefetch).unwrap_or(u16::MAX);
        let bounded = channel.basic_qos(prefetch, BasicQosOptions::default()).await;
        bounded.map_err(|error| failed("basic.qos", error))?;
        let options = BasicConsumeOptions::default();
        let consuming =
            channel.basic_consume(queue.clone(), ShortString::default(), options, FieldTable::default()).await;
        let consumer = consuming.map_err(|error| failed("basic.consume", error))?;
        let reader = Reader { channel, consumer, queue, consume: consume.clone() };
        Ok(Box::new(Feed::start(consume.in_flight, |into, stop| reader.run(into, stop))))
    }

    async fn create_topic(&self, topic: &str, _: &TopicOptions) -> Result<(), Error> {
        // AMQP takes a second declaration for granted, so two that create it at once both succeed
        if self.has_exchange(topic).await? {
            return Err(Error::topic_exists(topic));
        }
        let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
        let channel = self.channel().await?;
        let declared =
            channel.exchange_declare(self.exchange(topic), ExchangeKind::Fanout, durable, FieldTable::default()).await;
        declared.map_err(|error| failed("create_topic", error))
    }

    async fn delete_topic(&self, topic: &str) -> Result<(), Error> {
        // deleting what isn't there is no error for RabbitMQ
        self.need_exchange(topic).await?;
        self.forget(topic).await;
        let channel = self.channel().await?;
        let deleted = channel.exchange_delete(self.exchange(topic), ExchangeDeleteOptions::default()).await;
        deleted.map_err(|error| failed("delete_topic", error))?;
        self.delete_groups(&channel, topic).await.map_err(|error| failed("deleting a topic's groups", error))
    }

    async fn topic_exists(&self, topic: &str) -> Result<bool, Error> {
        self.has_exchange(topic).await
    }

    async fn topics(&self) -> Result<Vec<String>, Error> {
        Err(Error::unsupported(self.system(), "list topics"))
    }

    async fn ping(&self) -> Result<(), Error> {
        let channel = self.channel().await?;
        channel.close(200, "done".into()).await.map_err(|error| failed("ping", error))
    }

    async fn close(&self) {
        self.shared.publisher.lock().await.take();
        if let Some(conn) = self.shared.conn.lock().await.take() {
            let _ = conn.close(200, "done".into()).await;
        }
    }
}
