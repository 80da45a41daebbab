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
//! - Experimental: consumers do not pass the conformance suite on the mock cluster yet, and creating and deleting
//!   topics has not been run against a real broker.
//! - TLS needs a librdkafka built with OpenSSL: the cargo feature `kafka-tls`.

mod codec;
mod ledger;
mod reader;

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication, TopicResult};
use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{CommitMode, Consumer, StreamConsumer};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::producer::{FutureProducer, Producer};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{Offset, TopicPartitionList};
use tokio::task::spawn_blocking;

use self::reader::{Context, Member, Reader};
use super::adapter::Source;
use super::feed::Feed;
use super::{Adapter, Capabilities, Consume, Error, ErrorKind, Message, Place, Published, Start, TopicOptions};

/// A reader that doesn't ask for this long is taken for hung. It is to be no less than the session.
const POLL: Duration = Duration::from_secs(300);
/// The largest message this side lets pass; what the brokers take, `message.max.bytes`, is theirs to say.
const LARGEST: &str = "100000000";

/// Who this is.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    /// The user.
    pub user: String,
    /// The password. Never shown.
    pub password: String,
    /// `PLAIN`; with the cargo feature `kafka-tls` also `SCRAM-SHA-256` and `SCRAM-SHA-512`.
    pub mechanism: String,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Login").field("user", &self.user).field("mechanism", &self.mechanism).finish_non_exhaustive()
    }
}

/// How to connect to Kafka.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Some of the brokers, `host:port`, separated by commas. Default `127.0.0.1:9092`.
    pub brokers: String,
    /// What the names of topics and groups begin with. Default `corelay-`.
    pub prefix: String,
    /// How long a call, and the delivery of a message, may take. Default 5 s.
    pub timeout: Duration,
    /// After this long without a sign of life, the partitions of a member go to others. Default 10 s; brokers take 6 s
    /// to 30 min.
    pub session_timeout: Duration,
    /// How many partitions a new topic has. Default `None`: as the brokers are configured.
    pub partitions: Option<u16>,
    /// Whether to use TLS.
    pub tls: bool,
    /// Who this is, where the brokers ask (SASL).
    pub login: Option<Login>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            brokers: "127.0.0.1:9092".into(),
            prefix: "corelay-".into(),
            timeout: Duration::from_secs(5),
            session_timeout: Duration::from_secs(10),
            partitions: None,
            tls: false,
            login: None,
        }
    }
}

impl Options {
    /// # Errors
    /// [`ErrorKind::Invalid`] for what can't be used.
    pub fn check(&self) -> Result<(), Error> {
        let invalid = |text: String| Err(Error::new(ErrorKind::Invalid, text));
        for broker in self.brokers.split(',') {
            let port = broker.trim().rsplit_once(':').filter(|(host, _)| !host.is_empty());
            if port.is_none_or(|(_, port)| port.parse::<u16>().is_err()) {
                return invalid(format!("broker {broker:?}: expected host:port"));
            }
        }
        if !self.prefix.is_empty() {
            super::name::check("prefix", &self.prefix)?;
        }
        if self.timeout < Duration::from_millis(10) {
            return invalid(format!("timeout is {:?}: expected at least 10 ms", self.timeout));
        }
        if self.session_timeout < Duration::from_secs(1) {
            return invalid(format!("session_timeout is {:?}: expected at least 1 s", self.session_timeout));
        }
        if self.partitions == Some(0) {
            return invalid("partitions is 0: expected more, or None".into());
        }
        Ok(())
    }

    /// What every client of the library is told.
    fn config(&self) -> ClientConfig {
        let millis = |time: Duration| time.as_millis().to_string();
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.brokers);
        config.set("client.id", "corelay");
        config.set("socket.connection.setup.timeout.ms", millis(self.timeout.max(Duration::from_secs(1))));
        config.set("socket.keepalive.enable", "true");
        config.set("reconnect.backoff.ms", "100");
        config.set("reconnect.backoff.max.ms", "2000");
        config.set("message.max.bytes", LARGEST);
        // a topic is created when that is asked for
        config.set("allow.auto.create.topics", "false");
        config.set(
            "security.protocol",
            match (self.tls, self.login.is_some()) {
                (false, false) => "plaintext",
                (true, false) => "ssl",
                (false, true) => "sasl_plaintext",
                (true, true) => "sasl_ssl",
            },
        );
        if let Some(login) = &self.login {
            config.set("sasl.mechanism", &login.mechanism);
            config.set("sasl.username", &login.user);
            config.set("sasl.password", &login.password);
        }
        config.set_log_level(RDKafkaLogLevel::Warning);
        config
    }

    fn producer(&self) -> Result<FutureProducer<Quiet>, Error> {
        let mut config = self.config();
        config.set("acks", "all").set("enable.idempotence", "true").set("linger.ms", "0");
        config.set("message.timeout.ms", self.timeout.as_millis().to_string());
        config.create_with_context(Quiet).map_err(not_made)
    }
}

/// A client could not be made: only its configuration can be the reason.
fn not_made(error: KafkaError) -> Error {
    // the value may be a password
    let text = match &error {
        KafkaError::ClientConfig(_, why, key, _) => format!("{key}: {why}"),
        other => other.to_string(),
    };
    let is_missing = text.contains("not available") || text.contains("not built") || text.contains("No provider");
    Error::new(if is_missing { ErrorKind::Unsupported } else { ErrorKind::Invalid }, format!("kafka: {text}"))
}

/// Logs by `tracing`.
#[derive(Clone, Copy, Debug)]
struct Quiet;

impl ClientContext for Quiet {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        reader::log(level, facility, text);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "kafka");
    }
}

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

/// The library's own accessor leaves out those of administrative requests.
fn code(error: &KafkaError) -> Option<RDKafkaErrorCode> {
    match error {
        KafkaError::AdminOp(code) => Some(*code),
        other => other.rdkafka_error_code(),
    }
}

fn is_unknown_topic(error: &KafkaError) -> bool {
    use RDKafkaErrorCode as Code;
    let unknown = [Code::UnknownTopicOrPartition, Code::UnknownTopic, Code::UnknownPartition];
    code(error).is_some_and(|code| unknown.contains(&code))
}

/// What an error code means, where nothing else is known.
fn kind(code: RDKafkaErrorCode) -> ErrorKind {
    use RDKafkaErrorCode as Code;
    match code {
        Code::InvalidConfig | Code::PolicyViolation | Code::InvalidTopic => ErrorKind::Invalid,
        Code::MessageSizeTooLarge | Code::InvalidMessageSize | Code::MessageBatchTooLarge => ErrorKind::TooLarge,
        Code::QueueFull => ErrorKind::Full,
        Code::MessageTimedOut | Code::OperationTimedOut | Code::RequestTimedOut => ErrorKind::Timeout,
        Code::UnsupportedFeature | Code::UnsupportedVersion => ErrorKind::Unsupported,
        Code::UnknownTopicOrPartition | Code::UnknownTopic => ErrorKind::UnknownTopic,
        Code::TopicAlreadyExists => ErrorKind::TopicExists,
        Code::BrokerTransportFailure
        | Code::AllBrokersDown
        | Code::Resolve
        | Code::BrokerDestroy
        | Code::WaitingForCoordinator
        | Code::InProgress
        | Code::LeaderNotAvailable
        | Code::NotLeaderForPartition
        | Code::BrokerNotAvailable
        | Code::ReplicaNotAvailable
        | Code::NetworkException
        | Code::CoordinatorLoadInProgress
        | Code::CoordinatorNotAvailable
        | Code::NotCoordinator
        | Code::NotEnoughReplicas
        | Code::NotEnoughReplicasAfterAppend
        | Code::NotController
        | Code::PurgeQueue
        | Code::PurgeInflight
        | Code::Fatal => ErrorKind::Connection,
        Code::IllegalGeneration | Code::UnknownMemberId | Code::RebalanceInProgress => ErrorKind::Expired,
        _ => ErrorKind::Refused,
    }
}

fn failed(what: &str, error: KafkaError) -> Error {
    let kind = code(&error).map_or(ErrorKind::Refused, kind);
    Error::new(kind, format!("{what}: {error}")).caused_by(error)
}

/// The outcome of an administrative request on one thing.
fn administered(what: &str, done: KafkaResult<Vec<TopicResult>>) -> Result<(), Error> {
    match done.map_err(|error| failed(what, error))?.pop() {
        Some(Err((_, code))) => Err(failed(what, KafkaError::AdminOp(code))),
        _ => Ok(()),
    }
}

impl Kafka {
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

    fn group_name(&self, consume: &Consume) -> String {
        format!("{}{}/{}", self.shared.options.prefix, consume.topic, consume.group)
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

    fn positions(&self, topic: &str, positions: &[(i32, i64)]) -> Result<TopicPartitionList, Error> {
        let name = self.topic_name(topic);
        let mut list = TopicPartitionList::with_capacity(positions.len());
        for (partition, position) in positions {
            let added = list.add_partition_offset(&name, *partition, Offset::Offset(*position));
            added.map_err(|error| failed("an offset", error))?;
        }
        Ok(list)
    }

    /// Has a new group begin where it is to. Blocks.
    fn begin(&self, consumer: &StreamConsumer<Context>, consume: &Consume, partitions: &[i32]) -> Result<(), Error> {
        let timeout = self.shared.options.timeout;
        let name = self.topic_name(&consume.topic);
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for partition in partitions {
            list.add_partition(&name, *partition);
        }
        let committed = consumer.committed_offsets(list, timeout);
        let committed = committed.map_err(|error| failed("the group's offsets", error))?;
        let from = if consume.start == Start::Earliest { Offset::Beginning } else { Offset::End };
        let mut unknown = TopicPartitionList::new();
        for element in committed.elements().iter().filter(|element| element.offset() == Offset::Invalid) {
            let added = unknown.add_partition_offset(&name, element.partition(), from);
            added.map_err(|error| failed("an offset", error))?;
        }
        if unknown.count() == 0 {
            return Ok(());
        }
        // in place of times stand the marks of the first and the last
        let begin = consumer.offsets_for_times(unknown, timeout).map_err(|error| failed("a topic's offsets", error))?;
        match consumer.commit(&begin, CommitMode::Sync).map_err(|error| failed("beginning a group", error)) {
            // others are members of it already: they have begun it
            Err(error) if error.kind() == ErrorKind::Expired => Ok(()),
            done => done,
        }
    }

    fn admin(&self) -> Result<AdminClient<Quiet>, Error> {
        self.shared.options.config().create_with_context(Quiet).map_err(not_made)
    }

    fn admin_options(&self) -> AdminOptions {
        let timeout = Some(self.shared.options.timeout);
        AdminOptions::new().request_timeout(timeout).operation_timeout(timeout)
    }

    /// Deletes the group of a plain subscription; Kafka forgets it by itself otherwise (`offsets.retention.minutes`).
    async fn delete_group(&self, consume: &Consume) {
        let name = self.group_name(consume);
        let deleted = match self.admin() {
            Ok(admin) => administered("delete_group", admin.delete_groups(&[&name], &self.admin_options()).await),
            Err(error) => Err(error),
        };
        if let Err(error) = deleted {
            tracing::debug!(%error, group = name, "a group is left for Kafka to forget");
        }
    }
}

#[async_trait]
impl Adapter for Kafka {
    fn system(&self) -> &'static str {
        "kafka"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            stores: true,
            durable: true,
            fan_out: true,
            order_per_key: true,
            topics: true,
            list_topics: true,
            start_earliest: true,
            ..Capabilities::NONE
        }
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
        let session = self.shared.options.session_timeout;
        let mut config = self.shared.options.config();
        config.set("group.id", self.group_name(consume));
        config.set("enable.auto.commit", "false").set("enable.auto.offset.store", "false");
        // only for partitions that are younger than the group: the others' are set
        config.set("auto.offset.reset", "earliest");
        config.set("session.timeout.ms", session.as_millis().to_string());
        config.set("max.poll.interval.ms", session.max(POLL).as_millis().to_string());
        config.set("heartbeat.interval.ms", (session / 10).as_millis().to_string());
        let (member, joins) = Member::new();
        let context = Context { member: member.clone() };
        let consumer: StreamConsumer<Context> = config.create_with_context(context).map_err(not_made)?;
        let (wanted, name) = (consume.clone(), self.topic_name(&consume.topic));
        let consumer = self
            .blocking(move |kafka| {
                kafka.begin(&consumer, &wanted, &partitions)?;
                consumer.subscribe(&[&name]).map_err(|error| failed("subscribe", error))?;
                Ok(consumer)
            })
            .await?;
        let reader = Reader { kafka: self.clone(), consumer, member, consume: consume.clone() };
        let feed = Feed::start(consume.in_flight, |into, stop| reader.run(into, stop));
        let ended = |_| Error::new(ErrorKind::Connection, "the group could not be joined");
        joins.await.map_err(ended)?;
        Ok(Box::new(feed))
    }

    async fn create_topic(&self, topic: &str, options: &TopicOptions) -> Result<(), Error> {
        if options.max_messages.is_some() {
            return Err(Error::unsupported(self.system(), "bound a topic by the number of messages"));
        }
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
