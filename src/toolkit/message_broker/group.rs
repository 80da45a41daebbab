//! A group of handlers.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use super::{Consume, Error, ErrorKind, Message, Order, Outcome, Start, name};

/// What is called for each message. Every function of a [`Message`] that gives a future of an [`Outcome`] is one.
pub trait Handler: Send + Sync + 'static {
    /// Handles a message; what went wrong, if something did.
    fn handle(&self, message: Message) -> Pin<Box<dyn Future<Output = Option<String>> + Send>>;
}

impl<H, F> Handler for H
where
    H: Fn(Message) -> F + Send + Sync + 'static,
    F: Future<Output: Outcome> + Send + 'static,
{
    fn handle(&self, message: Message) -> Pin<Box<dyn Future<Output = Option<String>> + Send>> {
        let work = self(message);
        Box::pin(async move { work.await.failure() })
    }
}

pub(super) type SharedHandler = Arc<dyn Handler>;

/// How members of a group handle messages, for [`Broker::join_group`](super::Broker::join_group).
///
/// ```
/// use corelay::toolkit::message_broker::{ConsumerGroup, Order};
/// let group = ConsumerGroup {
///     order: Order::PerKey,
///     max_attempts: Some(5),
///     dead_letter: Some("orders.dead".into()),
///     ..ConsumerGroup::new("billing", ["orders", "refunds"])
/// };
/// assert!(group.check().is_ok());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumerGroup {
    /// The group's name: all members of all processes that join under it share the messages.
    pub name: String,
    /// Its topics.
    pub topics: Vec<String>,
    /// Messages this member handles at once, per topic. Default 16.
    pub concurrency: usize,
    /// After this long without being settled, a message is delivered again. Default 30 s: more than a handler takes.
    pub ack_timeout: Duration,
    /// After this long a handler is stopped where it stands, and its message has failed; no longer than `ack_timeout`.
    /// Default `None`: after `ack_timeout`, when another member may have the message. One that blocks its thread can't be
    /// stopped.
    pub handler_timeout: Option<Duration>,
    /// Where the group begins if it is new.
    pub start: Start,
    /// In which order messages are handled.
    pub order: Order,
    /// How often a message is handed to a handler before it is given up. Default `None`: as often as it takes.
    pub max_attempts: Option<u32>,
    /// Wait before a failed message is delivered again; doubles with each attempt, with jitter. Default 100 ms.
    pub retry_min: Duration,
    /// The longest such wait. Default 10 s.
    pub retry_max: Duration,
    /// The topic that gets what was given up, with the headers `dead-letter-topic`, `dead-letter-group` and
    /// `dead-letter-error`. Default `None`: it is dropped, logged and counted.
    pub dead_letter: Option<String>,
}

impl ConsumerGroup {
    /// With the defaults.
    pub fn new<T: Into<String>>(name: impl Into<String>, topics: impl IntoIterator<Item = T>) -> ConsumerGroup {
        ConsumerGroup {
            name: name.into(),
            topics: topics.into_iter().map(Into::into).collect(),
            concurrency: 16,
            ack_timeout: Duration::from_secs(30),
            handler_timeout: None,
            start: Start::New,
            order: Order::Any,
            max_attempts: None,
            retry_min: Duration::from_millis(100),
            retry_max: Duration::from_secs(10),
            dead_letter: None,
        }
    }

    /// Whether it can be joined.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`], naming what is wrong.
    pub fn check(&self) -> Result<(), Error> {
        let wrong = |text: String| Err(Error::new(ErrorKind::Invalid, text));
        if self.topics.is_empty() {
            return wrong(format!("group {:?} has no topics: expected at least one", self.name));
        }
        for (n, topic) in self.topics.iter().enumerate() {
            self.consume(topic).check()?;
            if self.topics[..n].contains(topic) {
                return wrong(format!("group {:?} has the topic {topic:?} twice", self.name));
            }
        }
        if self.handler_timeout.is_some_and(|limit| limit.is_zero() || limit > self.ack_timeout) {
            let (limit, ack) = (self.handler_limit(), self.ack_timeout);
            return wrong(format!(
                "handler_timeout is {limit:?}: expected more than zero, and at most ack_timeout, {ack:?}"
            ));
        }
        if self.max_attempts == Some(0) {
            return wrong("max_attempts is 0: expected at least 1, or None".into());
        }
        if self.retry_min > self.retry_max {
            return wrong(format!("retry_min is {:?}, above retry_max, {:?}", self.retry_min, self.retry_max));
        }
        if let Some(dead) = &self.dead_letter {
            name::check("dead letter topic", dead)?;
            if self.topics.contains(dead) {
                return wrong(format!("dead_letter is {dead:?}, a topic of the group itself"));
            }
            if self.max_attempts.is_none() {
                return wrong("dead_letter without max_attempts: nothing would ever get there".into());
            }
        }
        Ok(())
    }

    pub(super) fn consume(&self, topic: &str) -> Consume {
        Consume {
            in_flight: self.concurrency,
            ack_timeout: self.ack_timeout,
            start: self.start,
            order: self.order,
            ..Consume::new(topic, &self.name)
        }
    }

    /// How long a handler may take.
    pub(super) fn handler_limit(&self) -> Duration {
        self.handler_timeout.unwrap_or(self.ack_timeout)
    }

    /// The wait after this many attempts.
    pub(super) fn retry_delay(&self, attempt: u32, chance: f64) -> Duration {
        let doubled = 2_u32.saturating_pow(attempt.saturating_sub(1).min(31));
        let bound = self.retry_min.saturating_mul(doubled).min(self.retry_max);
        bound.mul_f64(0.5 + chance / 2.0)
    }
}
