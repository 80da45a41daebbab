//! Kafka, by librdkafka. A topic is a topic; a group is a consumer group of one topic, named `topic/group`.
//!
//! - Publishing waits until all replicas in sync have the message (`acks=all`); the library's own repetitions store
//!   nothing twice (`enable.idempotence`). Messages of one key are of one partition.
//! - Kafka knows how far a group is, not what was acknowledged: an acknowledgement out of turn is kept by the member
//!   until everything before it in its partition is settled. If the member is lost before, that message comes again.
//! - A refused message is repeated by its member, before those behind it; [`Received::attempt`](super::adapter::Received)
//!   begins at 1 again with another member.
//! - Members share the partitions: those beyond their number get nothing. Whenever a member comes or goes the
//!   partitions are dealt out anew, and what was on its way is delivered again.
//! - [`Order::PerKey`](super::Order::PerKey) hands out the next message of a partition when the one before is
//!   acknowledged.
//! - A plain subscription takes the partitions there are when it begins, without a group.
//! - What retention drops before it was handled is not known: offsets have gaps for other reasons too.
//! - TLS needs a librdkafka built with OpenSSL: the cargo feature `kafka-tls`.
//! - Tested on librdkafka's mock cluster, which knows no TLS and can't create or delete topics by the protocol: these
//!   have not been run.

mod codec;
mod fault;
mod group;
mod ledger;
mod log;
mod options;
mod reader;

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaError;
use rdkafka::producer::{FutureProducer, Producer};
use rdkafka::types::RDKafkaRespErr;
use tokio::task::spawn_blocking;

use self::fault::{administered, failed, is_unknown_topic, not_made};
use self::log::Quiet;
pub use self::options::{Login, Options};
use self::reader::{Context, Member, Reader};
use super::adapter::Source;
use super::feed::Feed;
use super::{Adapter, Capabilities, Consume, Error, ErrorKind, Message, Place, Published, TopicOptions};

/// Kafka: see the [module](self). Clones share connections, which the library makes again whenever they are lost; each
/// member of a group has its own.
///
/// ```no_run
/// use corelay::toolkit::message_broker::kafka::{Kafka, Options};
/// use corelay::toolkit::message_broker::Broker;
/// # async fn example() -> Result<(), corelay::toolkit::message_broker::Error> {
/// let broker = Broker::new(Kafka::connect(Options::default()).await?);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Kafka {
    shared: Arc<Shared>,
}

struct Shared {
    options: Options,
    producer: Mutex<FutureProducer<Quiet>>,
    /// Topics known to be there, by their whole names.
    known: Mutex<HashSet<String>>,
}

impl std::fmt::Debug for Kafka {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kafka").field("options", &self.shared.options).finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Kafka {
    /// What it can do.
    pub const CAPABILITIES: Capabilities = Capabilities {
        stores: true,
        durable: true,
        fan_out: true,
        order_per_key: true,
        topics: true,
        list_topics: true,
        start_earliest: true,
        max_age: true,
        ..Capabilities::NONE
    };

    /// Connects.
    ///
    /// # Errors
    /// [`ErrorKind::Connection`] where no broker answers; [`ErrorKind::Invalid`] for options that can't be used,
    /// [`ErrorKind::Unsupported`] for TLS without the cargo feature `kafka-tls`.
    pub async fn connect(options: Options) -> Result<Kafka, Error> {
        options.check()?;
        let producer = Mutex::new(options.producer()?);
        let kafka = Kafka { shared: Arc::new(Shared { options, producer, known: Mutex::default() }) };
        kafka.ping().await?;
        Ok(kafka)
    }

    fn topic_name(&self, topic: &str) -> String {
        format!("{}{topic}", self.shared.options.prefix)
    }

    /// The producer; another one in place of one that has given up.
    fn producer(&self) -> Result<FutureProducer<Quiet>, Error> {
        let mut producer = lock(&self.shared.producer);
        if let Some((code, reason)) = producer.client().fatal_error() {
            tracing::warn!(%code, reason, "the Kafka producer had to be replaced");
            *producer = self.shared.options.producer()?;
        }
        Ok(producer.clone())
    }

    /// Runs what blocks.
    async fn blocking<T: Send + 'static>(
        &self,
        call: impl FnOnce(Kafka) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let kafka = self.clone();
        let cut_off = |_| Err(Error::new(ErrorKind::Closed, "the runtime ends"));
        spawn_blocking(move || call(kafka)).await.unwrap_or_else(cut_off)
    }

    /// The partitions of the topic with this whole name, `None` if there is no such topic. Blocks.
    fn partitions(&self, name: &str) -> Result<Option<Vec<i32>>, Error> {
        let timeout = self.shared.options.timeout;
        let metadata = self.producer()?.client().fetch_metadata(Some(name), timeout);
        let metadata = metadata.map_err(|error| failed("looking for a topic", error))?;
        let Some(found) = metadata.topics().iter().find(|found| found.name() == name) else { return Ok(None) };
        match found.error() {
            None => Ok(Some(found.partitions().iter().map(|partition| partition.id()).collect())),
            Some(RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART) => Ok(None),
            Some(error) => Err(failed("looking for a topic", KafkaError::MetadataFetch(error.into()))),
        }
    }

    async fn need_topic(&self, topic: &str) -> Result<Vec<i32>, Error> {
        let name = self.topic_name(topic);
        let found = self.blocking(move |kafka| kafka.partitions(&name)).await?;
        found.ok_or_else(|| Error::unknown_topic(topic))
    }

    /// Looks once whether there is a topic with this whole name.
    async fn need_name(&self, name: &str) -> Result<(), Error> {
        if lock(&self.shared.known).contains(name) {
            return Ok(());
        }
        let wanted = name.to_string();
        let found = self.blocking(move |kafka| kafka.partitions(&wanted)).await?;
        found.ok_or_else(|| Error::unknown_topic(name))?;
        lock(&self.shared.known).insert(name.into());
        Ok(())
    }

    fn admin(&self) -> Result<AdminClient<Quiet>, Error> {
        self.shared.options.config().create_with_context(Quiet).map_err(not_made)
    }

    fn admin_options(&self) -> AdminOptions {
        let timeout = Some(self.shared.options.timeout);
        AdminOptions::new().request_timeout(timeout).operation_timeout(timeout)
    }
}

#[async_trait]
impl Adapter for Kafka {
    fn system(&self) -> &'static str {
        "kafka"
    }

    fn capabilities(&self) -> Capabilities {
        Kafka::CAPABILITIES
    }

    async fn publish(&self, message: Message) -> Result<(), Error> {
        let topic = message.topic();
        let name = self.topic_name(topic);
        let known = self.need_name(&name).await;
        known.map_err(
            |error| if error.kind() == ErrorKind::UnknownTopic { Error::unknown_topic(topic) } else { error },
        )?;
        let producer = self.producer()?;
        match producer.send(codec::record(&name, &message), self.shared.options.timeout).await {
            Ok(_) => Ok(()),
            Err((error, _)) => {
                lock(&self.shared.known).remove(&name);
                Err(if is_unknown_topic(&error) { Error::unknown_topic(topic) } else { failed("publish", error) })
            }
        }
    }

    async fn publish_to(&self, place: &Place, messages: &[Message]) -> Published {
        let Place::Topic { name } = place else { return Published::up_to(0, 0, self.no_place(place)) };
        let begun = match self.need_name(name).await {
            Ok(()) => self.producer(),
            Err(error) => Err(error),
        };
        let producer = match begun {
            Ok(producer) => producer,
            Err(error) => return Published::up_to(0, 0, error),
        };
        let why = |error: KafkaError| {
            lock(&self.shared.known).remove(name);
            if is_unknown_topic(&error) { Error::unknown_topic(name) } else { failed("publish", error) }
        };
        // all are sent, then the acknowledgements awaited
        let mut sent = Vec::with_capacity(messages.len());
        let mut unsent = None;
        for message in messages {
            match producer.send_result(codec::record(name, message)) {
                Ok(acknowledging) => sent.push(acknowledging),
                Err((error, _)) => {
                    unsent = Some(why(error));
                    break;
                }
            }
        }
        let (begun, mut taken) = (sent.len(), 0);
        for acknowledging in sent {
            match acknowledging.await {
                Ok(Ok(_)) => taken += 1,
                Ok(Err((error, _))) => return Published::up_to(taken, begun, why(error)),
                Err(_) => {
                    let error = Error::new(ErrorKind::Connection, "the producer was replaced");
                    return Published::up_to(taken, begun, error);
                }
            }
        }
        Published { taken, begun, error: unsent }
    }

    async fn consume(&self, consume: &Consume) -> Result<Box<dyn Source>, Error> {
        let partitions = self.need_topic(&consume.topic).await?;
        let (member, joins) = Member::new(self.shared.options.timeout);
        let consumer = self.consumer(consume, Context { member: member.clone() })?;
        let (wanted, name, alone) = (consume.clone(), self.topic_name(&consume.topic), member.clone());
        let consumer = self
            .blocking(move |kafka| {
                if wanted.temporary {
                    // nobody else is in its group, so there need be none: all partitions are its own from here on
                    let start = kafka.start(&consumer, &wanted, &partitions)?;
                    alone.join(&partitions);
                    consumer.assign(&start).map_err(|error| failed("assign", error))?;
                } else {
                    kafka.begin(&consumer, &wanted, &partitions)?;
                    consumer.subscribe(&[&name]).map_err(|error| failed("subscribe", error))?;
                }
                Ok(consumer)
            })
            .await?;
        let reader = Reader { kafka: self.clone(), consumer: Arc::new(consumer), member, consume: consume.clone() };
        let feed = Feed::start(consume.in_flight, |into, stop| reader.run(into, stop));
        let ended = |_| Error::new(ErrorKind::Connection, "the group could not be joined");
        joins.await.map_err(ended)?;
        Ok(Box::new(feed))
    }

    async fn create_topic(&self, topic: &str, options: &TopicOptions) -> Result<(), Error> {
        let name = self.topic_name(topic);
        let age = options.max_age.map(|age| age.as_millis().to_string());
        let partitions = self.shared.options.partitions.map_or(-1, i32::from);
        let mut new = NewTopic::new(&name, partitions, TopicReplication::Fixed(-1));
        if let Some(age) = &age {
            new = new.set("retention.ms", age);
        }
        let created = administered("create_topic", self.admin()?.create_topics(&[new], &self.admin_options()).await);
        created.map_err(|error| if error.kind() == ErrorKind::TopicExists { Error::topic_exists(topic) } else { error })
    }

    async fn delete_topic(&self, topic: &str) -> Result<(), Error> {
        self.need_topic(topic).await?;
        let name = self.topic_name(topic);
        lock(&self.shared.known).remove(&name);
        administered("delete_topic", self.admin()?.delete_topics(&[&name], &self.admin_options()).await)
    }

    async fn topic_exists(&self, topic: &str) -> Result<bool, Error> {
        let name = self.topic_name(topic);
        Ok(self.blocking(move |kafka| kafka.partitions(&name)).await?.is_some())
    }

    async fn topics(&self) -> Result<Vec<String>, Error> {
        self.blocking(|kafka| {
            let Options { timeout, prefix, .. } = &kafka.shared.options;
            let metadata = kafka.producer()?.client().fetch_metadata(None, *timeout);
            let metadata = metadata.map_err(|error| failed("topics", error))?;
            // Kafka's own begin with two underscores
            let names = metadata.topics().iter().map(|found| found.name()).filter(|name| !name.starts_with("__"));
            Ok(names.filter_map(|name| name.strip_prefix(prefix.as_str())).map(String::from).collect())
        })
        .await
    }

    async fn ping(&self) -> Result<(), Error> {
        // a topic that need not be there: the answer is what counts
        self.blocking(|kafka| kafka.partitions("ping").map(drop)).await.map_err(|error| match error.kind() {
            ErrorKind::Timeout => Error::new(ErrorKind::Connection, "no broker answers").caused_by(error),
            _ => error,
        })
    }

    async fn close(&self) {
        let flushed = self
            .blocking(|kafka| {
                let timeout = kafka.shared.options.timeout;
                kafka.producer()?.flush(timeout).map_err(|error| failed("close", error))
            })
            .await;
        if let Err(error) = flushed {
            tracing::debug!(%error, "kafka");
        }
    }
}
