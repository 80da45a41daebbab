//! The handle programs use.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus_client::registry::Registry;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use super::bounds::{check_timeout, within};
use super::group::SharedHandler;
use super::metrics::Counts;
use super::runner::Runner;
use super::{
    Adapter, Capabilities, Consume, Consumer, ConsumerGroup, Error, ErrorKind, Handler, Message, Place, Published,
    Stats, TopicOptions, name,
};

/// How a [`Broker`] behaves whatever the system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// How long a call may take, reconnecting included; more than zero, or every call is refused as
    /// [`ErrorKind::Invalid`]. Default 10 s.
    pub timeout: Duration,
}

impl Default for Options {
    fn default() -> Options {
        Options { timeout: Duration::from_secs(10) }
    }
}

/// A handle on a system that carries messages. Cheap to clone; clones share everything. Subscriptions end when the
/// last one is dropped, or in order by [`Broker::close`].
///
/// See the [module](super) for an example.
#[derive(Clone)]
pub struct Broker {
    inner: Arc<Inner>,
}

struct Inner {
    adapter: Arc<dyn Adapter>,
    options: Options,
    counts: Arc<Counts>,
    running: Mutex<HashMap<SubscriptionId, Running>>,
    closed: AtomicBool,
}

/// Tells subscriptions of one handle apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SubscriptionId(Uuid);

impl fmt::Display for SubscriptionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A running subscription: what [`Broker::subscribe`] and [`Broker::join_group`] return. It goes on when this is
/// dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    /// For [`Broker::unsubscribe`].
    pub id: SubscriptionId,
    /// The group; one of its own for a plain subscription.
    pub group: String,
    /// The topics.
    pub topics: Vec<String>,
}

struct Running {
    group: String,
    topics: Vec<String>,
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<Result<(), Error>>>,
}

/// How a system is.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Health {
    /// The system's name.
    pub system: &'static str,
    /// The time of a round trip, or why there was none.
    pub round_trip: Result<Duration, Error>,
    /// Subscriptions that run.
    pub subscriptions: usize,
    /// Subscriptions of which a topic's part ended by itself: the topic was deleted, say.
    pub ended: Vec<Subscription>,
}

impl Health {
    /// Whether the system answers and every subscription runs.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.round_trip.is_ok() && self.ended.is_empty()
    }
}

impl fmt::Debug for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Broker").field("adapter", &self.inner.adapter).field("stats", &self.stats()).finish()
    }
}

impl Broker {
    /// Over `adapter`, with [`Options::default`].
    pub fn new(adapter: impl Adapter) -> Broker {
        Broker::with_options(adapter, Options::default())
    }

    /// Over `adapter`.
    pub fn with_options(adapter: impl Adapter, options: Options) -> Broker {
        let inner = Inner {
            adapter: Arc::new(adapter),
            options,
            counts: Arc::default(),
            running: Mutex::default(),
            closed: AtomicBool::new(false),
        };
        Broker { inner: Arc::new(inner) }
    }

    /// The system's name, in lower case.
    #[must_use]
    pub fn system(&self) -> &'static str {
        self.inner.adapter.system()
    }

    /// What the system can do.
    #[must_use]
    pub fn capabilities(&self) -> Capabilities {
        self.inner.adapter.capabilities()
    }

    fn adapter(&self) -> Result<&Arc<dyn Adapter>, Error> {
        if self.inner.closed.load(Ordering::Acquire) {
            return Err(Error::new(ErrorKind::Closed, "this broker handle was closed"));
        }
        check_timeout(self.inner.options.timeout)?;
        Ok(&self.inner.adapter)
    }

    fn running(&self) -> MutexGuard<'_, HashMap<SubscriptionId, Running>> {
        self.inner.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bounds a call.
    async fn bounded<T>(&self, what: &str, call: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        within(self.inner.options.timeout, what, call).await
    }

    /// Publishes a message to its topic. Resolves when the system has taken charge of it: what was published then is
    /// not lost, as far as the system promises.
    ///
    /// # Errors
    /// [`ErrorKind::UnknownTopic`]; [`ErrorKind::Full`], [`ErrorKind::Connection`], [`ErrorKind::Timeout`], after
    /// which it may be tried again; publishing twice is told by the message's id.
    pub async fn publish(&self, message: Message) -> Result<(), Error> {
        let adapter = self.adapter()?;
        let begin = Instant::now();
        let done = self.bounded("publish", adapter.publish(message)).await;
        self.inner.counts.published(done.is_ok(), begin.elapsed());
        done
    }

    /// Publishes messages in this order to a place of the system's own, whatever their topics say. Resolves when the
    /// system has taken charge of them as far as the [`Place`] says, or at the first it did not take. After an error
    /// of which the outcome is unknown, those from [`Published::taken`] on may be stored twice when tried again.
    ///
    /// In the outcome: [`ErrorKind::Unsupported`] for a place of another system, [`ErrorKind::Invalid`] for a name it
    /// wouldn't take, [`ErrorKind::UnknownTopic`] where nothing takes the message, and as [`Broker::publish`].
    ///
    /// ```no_run
    /// use corelay::toolkit::message_broker::redis::{Options, Redis};
    /// use corelay::toolkit::message_broker::{Broker, Message, Place};
    /// # async fn example() -> Result<(), corelay::toolkit::message_broker::Error> {
    /// let broker = Broker::new(Redis::connect(Options::default()).await?);
    /// let place = Place::Stream { key: "orders:new".into(), max_len: Some(100_000) };
    /// let published = broker.publish_to(&place, &[Message::builder("orders").value("an apple").build()?]).await;
    /// assert_eq!(published.taken, 1);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn publish_to(&self, place: &Place, messages: &[Message]) -> Published {
        let adapter = match self.adapter().and_then(|adapter| place.check().map(|()| adapter)) {
            Ok(adapter) => adapter,
            Err(error) => return Published::up_to(0, 0, error),
        };
        let begin = Instant::now();
        let limit = self.inner.options.timeout;
        let late = |_| {
            Published::up_to(
                0,
                messages.len(),
                Error::new(ErrorKind::Timeout, format!("publish: not within {limit:?}")),
            )
        };
        let published = timeout(limit, adapter.publish_to(place, messages)).await.unwrap_or_else(late);
        let took = begin.elapsed();
        (0..published.taken).for_each(|_| self.inner.counts.published(true, took));
        if published.error.is_some() {
            self.inner.counts.published(false, took);
        }
        published
    }

    /// Joins a group as a member that takes messages one by one and settles them itself.
    ///
    /// ```
    /// # use corelay::toolkit::message_broker::{Broker, Consume, Memory, Message, TopicOptions};
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let broker = Broker::new(Memory::default());
    /// # broker.create_topic("orders", TopicOptions::default()).await?;
    /// let mut member = broker.consume(Consume::new("orders", "billing")).await?;
    /// broker.publish(Message::builder("orders").value("an apple").build()?).await?;
    /// let delivery = member.next().await?;
    /// assert_eq!(delivery.message().value(), "an apple");
    /// delivery.ack().await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`], [`ErrorKind::UnknownTopic`], [`ErrorKind::Unsupported`], [`ErrorKind::Connection`] ...
    pub async fn consume(&self, consume: Consume) -> Result<Consumer, Error> {
        let adapter = self.adapter()?.clone();
        consume.check()?;
        consume.check_against(adapter.system(), adapter.capabilities())?;
        Consumer::join(adapter, consume, self.inner.counts.clone(), self.inner.options.timeout).await
    }

    /// Calls `handler` with every message published to `topic` from now on: a group of its own, which goes when the
    /// subscription ends.
    ///
    /// # Errors
    /// As [`Broker::join_group`].
    pub async fn subscribe(&self, topic: &str, handler: impl Handler) -> Result<Subscription, Error> {
        let group = ConsumerGroup::new(format!("own-{}", Uuid::new_v4().simple()), [topic]);
        self.start(group, true, Arc::new(handler)).await
    }

    /// Joins a group: `handler` is called with this member's share of the messages of its topics. `Ok` acknowledges;
    /// an error or a panic has the message delivered again.
    ///
    /// # Errors
    /// As [`Broker::consume`]; no topic is joined if one can't be.
    pub async fn join_group(&self, group: ConsumerGroup, handler: impl Handler) -> Result<Subscription, Error> {
        self.start(group, false, Arc::new(handler)).await
    }

    async fn start(
        &self,
        group: ConsumerGroup,
        temporary: bool,
        handler: SharedHandler,
    ) -> Result<Subscription, Error> {
        group.check()?;
        let mut members = Vec::new();
        for topic in &group.topics {
            members.push(self.consume(Consume { temporary, ..group.consume(topic) }).await?);
        }
        let (stop, stopped) = watch::channel(false);
        let (name, topics) = (group.name.clone(), group.topics.clone());
        let adapter = self.adapter()?.clone();
        let (counts, limit) = (self.inner.counts.clone(), self.inner.options.timeout);
        let runner = Arc::new(Runner { adapter, group, handler, counts, limit });
        let run = |member| tokio::spawn(runner.clone().run(member, stopped.clone()));
        let tasks = members.into_iter().map(run).collect();
        let id = SubscriptionId(Uuid::new_v4());
        self.running().insert(id, Running { group: name.clone(), topics: topics.clone(), stop, tasks });
        Ok(Subscription { id, group: name, topics })
    }

    /// Ends a subscription: takes no more messages, waits for the handlers that run, leaves. Handlers are stopped at
    /// their [timeout](ConsumerGroup::handler_timeout), as ever; those that block their thread are not waited for much
    /// longer than that.
    ///
    /// # Errors
    /// [`ErrorKind::UnknownSubscription`]; [`ErrorKind::Timeout`] where a handler blocks its thread; what the
    /// subscription itself ended with, if it did.
    pub async fn unsubscribe(&self, id: SubscriptionId) -> Result<(), Error> {
        let unknown = || Error::new(ErrorKind::UnknownSubscription, format!("there is no subscription {id}"));
        let running = self.running().remove(&id).ok_or_else(unknown)?;
        running.end().await
    }

    /// Leaves a group: ends all subscriptions this handle has joined under that name.
    ///
    /// # Errors
    /// [`ErrorKind::UnknownSubscription`] if there is none; as [`Broker::unsubscribe`].
    pub async fn leave_group(&self, group: &str) -> Result<(), Error> {
        let ended: Vec<_> = self.running().extract_if(|_, running| running.group == group).collect();
        if ended.is_empty() {
            let text = format!("no subscription of this handle is in the group {group:?}");
            return Err(Error::new(ErrorKind::UnknownSubscription, text));
        }
        let mut result = Ok(());
        for (_, running) in ended {
            result = result.and(running.end().await);
        }
        result
    }

    /// The subscriptions of this handle.
    #[must_use]
    pub fn subscriptions(&self) -> Vec<Subscription> {
        self.running().iter().map(|(id, running)| running.describe(*id)).collect()
    }

    /// Creates a topic.
    ///
    /// # Errors
    /// [`ErrorKind::TopicExists`], [`ErrorKind::Invalid`], [`ErrorKind::Unsupported`] ...
    pub async fn create_topic(&self, topic: &str, options: TopicOptions) -> Result<(), Error> {
        name::check("topic", topic)?;
        options.check()?;
        let adapter = self.adapter()?;
        options.check_against(adapter.system(), adapter.capabilities())?;
        self.bounded("create_topic", adapter.create_topic(topic, &options)).await
    }

    /// Deletes a topic with its messages and groups.
    ///
    /// # Errors
    /// [`ErrorKind::UnknownTopic`], [`ErrorKind::Unsupported`] ...
    pub async fn delete_topic(&self, topic: &str) -> Result<(), Error> {
        name::check("topic", topic)?;
        self.bounded("delete_topic", self.adapter()?.delete_topic(topic)).await
    }

    /// Whether there is such a topic.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`], [`ErrorKind::Connection`] ...
    pub async fn topic_exists(&self, topic: &str) -> Result<bool, Error> {
        name::check("topic", topic)?;
        self.bounded("topic_exists", self.adapter()?.topic_exists(topic)).await
    }

    /// All topics, sorted by name.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`], [`ErrorKind::Connection`] ...
    pub async fn topics(&self) -> Result<Vec<String>, Error> {
        let mut topics = self.bounded("topics", self.adapter()?.topics()).await?;
        topics.sort();
        Ok(topics)
    }

    /// Makes a round trip to the system and looks at the subscriptions.
    pub async fn health(&self) -> Health {
        let begin = Instant::now();
        let answered = match self.adapter() {
            Ok(adapter) => self.bounded("ping", adapter.ping()).await,
            Err(closed) => Err(closed),
        };
        let running = self.running();
        let ended = running.iter().filter(|(_, running)| running.tasks.iter().any(JoinHandle::is_finished));
        Health {
            system: self.system(),
            round_trip: answered.map(|()| begin.elapsed()),
            subscriptions: running.len(),
            ended: ended.map(|(id, running)| running.describe(*id)).collect(),
        }
    }

    /// What this handle counted.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.inner.counts.stats()
    }

    /// Shows the figures under `message_broker_...`. Give a sub-registry with a label to tell several brokers
    /// of one program apart.
    ///
    /// ```
    /// use corelay::toolkit::message_broker::{Broker, Memory};
    /// use prometheus_client::{encoding::text::encode, registry::Registry};
    /// let mut registry = Registry::default();
    /// Broker::new(Memory::default()).register(&mut registry);
    /// let mut page = String::new();
    /// encode(&mut page, &registry).unwrap();
    /// assert!(page.contains("message_broker_published_total 0"));
    /// ```
    pub fn register(&self, registry: &mut Registry) {
        self.inner.counts.register(registry);
    }

    /// Ends all subscriptions as [`Broker::unsubscribe`] does, and closes the connections. Bound it with
    /// [`tokio::time::timeout`] where a handler may take long.
    pub async fn close(&self) {
        self.inner.closed.store(true, Ordering::Release);
        let running: Vec<_> = self.running().drain().collect();
        for (_, running) in &running {
            running.stop.send_replace(true);
        }
        for (id, running) in running {
            if let Err(error) = running.end().await {
                tracing::debug!(%id, %error, "a subscription ended badly");
            }
        }
        if timeout(self.inner.options.timeout, self.inner.adapter.close()).await.is_err() {
            tracing::debug!(system = self.system(), "the connections were not closed in time");
        }
    }
}

impl Running {
    fn describe(&self, id: SubscriptionId) -> Subscription {
        Subscription { id, group: self.group.clone(), topics: self.topics.clone() }
    }

    async fn end(self) -> Result<(), Error> {
        self.stop.send_replace(true);
        let mut result = Ok(());
        for task in self.tasks {
            let panicked = |_| Err(Error::new(ErrorKind::Refused, "the task of a subscription was cut off"));
            result = result.and(task.await.unwrap_or_else(panicked));
        }
        result
    }
}
