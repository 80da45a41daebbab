//! What a system has to do for the rest to work on it. To bring another one, implement [`Adapter`] and have it pass
//! the conformance suite (`tests/it/message_broker/conformance`).

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;

use super::delivery::Settle;
use super::{Error, ErrorKind, Message, Place, Published, name};

/// What a system can do. What it can't is an error of kind [`ErrorKind::Unsupported`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capabilities {
    /// It takes charge of a message until that is handled. Without it, publishing resolves when the message has been
    /// acknowledged.
    pub stores: bool,
    /// What was published survives a restart of the system.
    pub durable: bool,
    /// Each group gets every message, without the publisher's knowing of it.
    pub fan_out: bool,
    /// What isn't acknowledged within [`Consume::ack_timeout`] is delivered again while its member lives.
    pub ack_timeout: bool,
    /// The system keeps a refused message back for a while by itself.
    pub delayed_nack: bool,
    /// [`Order::PerKey`].
    pub order_per_key: bool,
    /// Topics are created, deleted and checked.
    pub topics: bool,
    /// Topics are listed.
    pub list_topics: bool,
    /// [`Start::Earliest`].
    pub start_earliest: bool,
    /// [`TopicOptions::max_messages`].
    pub max_messages: bool,
    /// [`TopicOptions::max_age`].
    pub max_age: bool,
}

impl Capabilities {
    /// Nothing. An adapter adds what its system can.
    pub const NONE: Capabilities = Capabilities {
        stores: false,
        durable: false,
        fan_out: false,
        ack_timeout: false,
        delayed_nack: false,
        order_per_key: false,
        topics: false,
        list_topics: false,
        start_earliest: false,
        max_messages: false,
        max_age: false,
    };
}

/// In which order a group's messages are handled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// As they come.
    #[default]
    Any,
    /// The messages of a key one after the other, in the order in which they were published: the next is delivered
    /// when the one before is acknowledged, by whichever member. A refused one comes again before those behind it.
    PerKey,
}

/// Where a group begins when its first member joins. Afterwards it goes on where it was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// With what is published from now on.
    #[default]
    New,
    /// With the earliest message there is.
    Earliest,
}

/// What a new topic is to be like. What the system can't do is refused.
///
/// ```
/// use corelay::toolkit::message_broker::TopicOptions;
/// let options = TopicOptions { max_messages: Some(100_000), ..TopicOptions::default() };
/// assert!(options.check().is_ok());
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TopicOptions {
    /// Messages kept at most: the oldest go first. Default: as the system is configured.
    pub max_messages: Option<u64>,
    /// How long messages are kept. Default: as the system is configured.
    pub max_age: Option<Duration>,
}

impl TopicOptions {
    /// # Errors
    /// [`ErrorKind::Invalid`] for a zero.
    pub fn check(&self) -> Result<(), Error> {
        let zero = [("max_messages", self.max_messages == Some(0)), ("max_age", self.max_age == Some(Duration::ZERO))];
        match zero.iter().find(|(_, zero)| *zero) {
            Some((what, _)) => Err(Error::new(ErrorKind::Invalid, format!("{what} is 0: expected more, or None"))),
            None => Ok(()),
        }
    }

    /// Refuses what `can` doesn't include.
    pub(super) fn check_against(&self, system: &str, can: Capabilities) -> Result<(), Error> {
        if self.max_messages.is_some() && can.topics && !can.max_messages {
            return Err(Error::unsupported(system, "bound a topic by the number of its messages"));
        }
        if self.max_age.is_some() && can.topics && !can.max_age {
            return Err(Error::unsupported(system, "bound a topic by the age of its messages"));
        }
        Ok(())
    }
}

/// How a member of a group takes messages of one topic.
///
/// ```
/// use corelay::toolkit::message_broker::{Consume, Order};
/// let consume = Consume { order: Order::PerKey, in_flight: 8, ..Consume::new("orders", "billing") };
/// assert!(consume.check().is_ok());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Consume {
    /// The topic.
    pub topic: String,
    /// The group.
    pub group: String,
    /// Messages delivered to this member and not yet settled, at most. Default 16.
    pub in_flight: usize,
    /// After this long without being settled, a message is delivered again. Default 30 s.
    pub ack_timeout: Duration,
    /// Where the group begins if it is new.
    pub start: Start,
    /// In which order messages are handled.
    pub order: Order,
    /// The group is this member's alone, and goes when the member leaves.
    pub temporary: bool,
}

impl Consume {
    /// With the defaults.
    pub fn new(topic: impl Into<String>, group: impl Into<String>) -> Consume {
        Consume {
            topic: topic.into(),
            group: group.into(),
            in_flight: 16,
            ack_timeout: Duration::from_secs(30),
            start: Start::New,
            order: Order::Any,
            temporary: false,
        }
    }

    /// # Errors
    /// [`ErrorKind::Invalid`] for names no system would take, an `in_flight` of 0 or above 65,535 (AMQP's bound), an
    /// `ack_timeout` below 10 ms.
    pub fn check(&self) -> Result<(), Error> {
        name::check("topic", &self.topic)?;
        name::check("group", &self.group)?;
        let wrong = |text: String| Err(Error::new(ErrorKind::Invalid, text));
        if self.in_flight == 0 || self.in_flight > usize::from(u16::MAX) {
            return wrong(format!("in_flight is {}: expected 1 to 65535", self.in_flight));
        }
        if self.ack_timeout < Duration::from_millis(10) {
            return wrong(format!("ack_timeout is {:?}: expected at least 10 ms", self.ack_timeout));
        }
        Ok(())
    }

    /// Refuses what `can` doesn't include.
    pub(super) fn check_against(&self, system: &str, can: Capabilities) -> Result<(), Error> {
        if self.order == Order::PerKey && !can.order_per_key {
            return Err(Error::unsupported(system, "keep the messages of a key in order within a group"));
        }
        if self.temporary && !can.fan_out {
            return Err(Error::unsupported(system, "give a subscription messages that no group was sent"));
        }
        if self.start == Start::Earliest && !can.start_earliest {
            return Err(Error::unsupported(system, "begin a group with the earliest message"));
        }
        Ok(())
    }
}

/// A message as it comes out of a system.
#[derive(Debug)]
pub struct Received {
    /// The message.
    pub message: Message,
    /// 1 the first time; more, as far as the system knows, when it is delivered again.
    pub attempt: u32,
    /// How to acknowledge or refuse it.
    pub settle: Box<dyn Settle>,
}

/// What comes to a member.
#[derive(Debug)]
pub enum Event {
    /// A message.
    Message(Received),
    /// So many messages the system has dropped, to keep a topic's bound, before they were handled. They are counted;
    /// there is nothing else to be done.
    Lost(u64),
}

impl From<Received> for Event {
    fn from(received: Received) -> Event {
        Event::Message(received)
    }
}

/// The messages of one member of one group.
#[async_trait]
pub trait Source: fmt::Debug + Send {
    /// What comes next; waits for it. May be dropped and called again without losing a message.
    ///
    /// # Errors
    /// Any error ends this source; after a [retryable](ErrorKind::is_retryable) one the caller asks the adapter for
    /// another.
    async fn next(&mut self) -> Result<Event, Error>;

    /// Leaves the group: what was fetched and not handed out goes back.
    ///
    /// # Errors
    /// Where that can't be said to the system; it then finds out by itself.
    async fn leave(self: Box<Self>) -> Result<(), Error>;
}

/// A system that carries messages.
///
/// Names and options arrive checked. A call that fails because a connection was lost is of kind
/// [`ErrorKind::Connection`], and a later call makes the connection again.
#[async_trait]
pub trait Adapter: fmt::Debug + Send + Sync + 'static {
    /// Its name, in lower case.
    fn system(&self) -> &'static str;

    /// What it can do.
    fn capabilities(&self) -> Capabilities;

    /// Publishes; resolves when the system has taken charge.
    ///
    /// # Errors
    /// [`ErrorKind::UnknownTopic`], [`ErrorKind::Full`], [`ErrorKind::Connection`] ...
    async fn publish(&self, message: Message) -> Result<(), Error>;

    /// Publishes messages in this order to a place of the system's own, whatever their topics say. None at all:
    /// finds out whether the way is there. By itself: there is no such place.
    async fn publish_to(&self, place: &Place, messages: &[Message]) -> Published {
        let _ = (place, messages);
        Published::up_to(0, 0, self.no_place(place))
    }

    /// There is no such place here.
    fn no_place(&self, place: &Place) -> Error {
        Error::unsupported(self.system(), &format!("publish to {place:?}"))
    }

    /// Joins a group, which is created if it is new.
    ///
    /// # Errors
    /// [`ErrorKind::UnknownTopic`], [`ErrorKind::Connection`] ...
    async fn consume(&self, consume: &Consume) -> Result<Box<dyn Source>, Error>;

    /// Creates a topic.
    ///
    /// # Errors
    /// [`ErrorKind::TopicExists`], [`ErrorKind::Unsupported`] ...
    async fn create_topic(&self, topic: &str, options: &TopicOptions) -> Result<(), Error>;

    /// Deletes a topic with its messages and groups.
    ///
    /// # Errors
    /// [`ErrorKind::UnknownTopic`], [`ErrorKind::Unsupported`] ...
    async fn delete_topic(&self, topic: &str) -> Result<(), Error>;

    /// Whether there is such a topic.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`], [`ErrorKind::Connection`] ...
    async fn topic_exists(&self, topic: &str) -> Result<bool, Error>;

    /// All topics, by name.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`], [`ErrorKind::Connection`] ...
    async fn topics(&self) -> Result<Vec<String>, Error>;

    /// Makes a round trip.
    ///
    /// # Errors
    /// [`ErrorKind::Connection`] where the system doesn't answer.
    async fn ping(&self) -> Result<(), Error>;

    /// Closes the connections.
    async fn close(&self);
}
