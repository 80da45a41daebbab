//! Reading for one member of a group.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance, StreamConsumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Message as _, TopicPartitionList};
use tokio::sync::{Notify, oneshot};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{sleep, timeout};

use super::super::adapter::Received;
use super::super::delivery::Settle;
use super::super::{Consume, Error, ErrorKind, feed};
use super::fault::{failed, is_unknown_topic};
use super::ledger::{Acked, Entry, Ledger};
use super::log::{log, report};
use super::{Kafka, codec, lock};

/// Messages kept ready beyond those out: fetching pauses above, and goes on below half of it.
const AHEAD: usize = 1024;
/// Before a failed commit is tried again.
const COMMIT_AGAIN: Duration = Duration::from_millis(100);

/// What a member, its callbacks and the messages it holds share.
#[derive(Debug)]
pub(super) struct Member {
    ledger: Mutex<Ledger>,
    /// The ledger has changed.
    changed: Notify,
    /// Told when the group has given this member its share.
    joined: Mutex<Option<oneshot::Sender<()>>>,
    /// How long an acknowledgement waits for the group to be told.
    limit: Duration,
}

impl Member {
    /// A member, and what resolves when it has joined.
    pub(super) fn new(limit: Duration) -> (Arc<Member>, oneshot::Receiver<()>) {
        let (joined, joins) = oneshot::channel();
        let (ledger, changed) = (Mutex::default(), Notify::new());
        (Arc::new(Member { ledger, changed, joined: Mutex::new(Some(joined)), limit }), joins)
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        lock(&self.ledger)
    }

    /// The group knows that this member is there.
    fn committed(&self, positions: &[(i32, i64)]) {
        let mut ledger = self.ledger();
        positions.iter().for_each(|(partition, position)| ledger.committed(*partition, *position));
    }

    /// These partitions are this member's, and nobody else's, for as long as it is there.
    pub(super) fn join(&self, partitions: &[i32]) {
        self.ledger().assign(partitions.iter().copied());
        self.told_joined();
    }

    fn told_joined(&self) {
        if let Some(joined) = lock(&self.joined).take() {
            let _ = joined.send(());
        }
    }

    /// Nothing is this member's any more.
    fn end(&self) {
        self.ledger().revoke_all();
        lock(&self.joined).take();
    }
}

/// What the library tells; called while it is polled.
pub(super) struct Context {
    pub(super) member: Arc<Member>,
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        log(level, facility, text);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        report(&error, reason);
    }
}

fn partitions(list: &TopicPartitionList) -> Vec<i32> {
    list.elements().iter().map(|element| element.partition()).collect()
}

impl ConsumerContext for Context {
    fn pre_rebalance(&self, _: &BaseConsumer<Context>, rebalance: &Rebalance<'_>) {
        match rebalance {
            Rebalance::Assign(list) => self.member.ledger().assign(partitions(list)),
            Rebalance::Revoke(list) => self.member.ledger().revoke(partitions(list)),
            Rebalance::Error(error) => tracing::warn!(%error, "a rebalance failed"),
        }
        self.member.changed.notify_one();
    }

    fn post_rebalance(&self, _: &BaseConsumer<Context>, rebalance: &Rebalance<'_>) {
        if matches!(rebalance, Rebalance::Assign(_)) {
            self.member.told_joined();
        }
    }
}

pub(super) struct Reader {
    pub(super) kafka: Kafka,
    pub(super) consumer: Arc<StreamConsumer<Context>>,
    pub(super) member: Arc<Member>,
    pub(super) consume: Consume,
}

/// The commit on its way: one at a time, so that what is acknowledged meanwhile goes together with the next.
type Committing = Option<JoinHandle<()>>;

impl Reader {
    pub(super) async fn run(self, into: feed::Into, mut stop: feed::Stop) -> Result<(), Error> {
        let mut committing = None;
        let ended = self.read(&into, &mut stop, &mut committing).await;
        let stopped = ended.is_ok();
        if let Err(error) = ended {
            let _ = into.send(Err(error)).await;
        }
        if let Some(commit) = committing {
            let _ = commit.await;
        }
        let Reader { kafka, consumer, member, consume } = self;
        let left = spawn_blocking(move || {
            let left = commit_last(&consumer, &consume, &kafka, &member);
            member.end();
            // leaves the group, which may take a round trip or two
            drop(consumer);
            left
        });
        match left.await {
            Ok(left) if stopped => left,
            // who was told of the failure has seen enough
            _ => Ok(()),
        }
    }

    /// Until told to stop.
    async fn read(&self, into: &feed::Into, stop: &mut feed::Stop, committing: &mut Committing) -> Result<(), Error> {
        let mut paused = false;
        loop {
            if committing.is_none() {
                *committing = self.commit()?;
            }
            self.hand_out(into);
            self.bound(&mut paused)?;
            tokio::select! {
                biased;
                _ = &mut *stop => return Ok(()),
                () = self.member.changed.notified() => {}
                () = over(committing) => *committing = None,
                received = self.consumer.recv() => match received {
                    Ok(record) => {
                        let message = codec::message(&self.consume.topic, &record);
                        self.member.ledger().fetched(record.partition(), record.offset(), message);
                    }
                    Err(error) => self.look_at(error)?,
                },
            }
        }
    }

    /// Begins to tell the group how far this member is, if it came any further. After a failure it is over in a while.
    ///
    /// Each commit has a thread that waits for it, as the library's binding loses the outcome of those that need none
    /// (its issue 856).
    fn commit(&self) -> Result<Committing, Error> {
        let positions = self.member.ledger().uncommitted();
        if positions.is_empty() {
            return Ok(None);
        }
        if self.consume.temporary {
            // nobody has to know
            self.member.committed(&positions);
            return Ok(None);
        }
        let list = self.kafka.positions(&self.consume.topic, &positions)?;
        let (consumer, member) = (self.consumer.clone(), self.member.clone());
        Ok(Some(tokio::spawn(async move {
            match spawn_blocking(move || consumer.commit(&list, CommitMode::Sync)).await {
                Ok(Ok(())) => member.committed(&positions),
                Ok(Err(error)) => {
                    tracing::debug!(%error, "a commit failed");
                    sleep(COMMIT_AGAIN).await;
                }
                // the runtime ends
                Err(_) => {}
            }
        })))
    }

    fn hand_out(&self, into: &feed::Into) {
        // what a lost partition left in the feed takes room until it has been settled in vain
        while let Ok(room) = into.try_reserve() {
            let entry = {
                let mut ledger = self.member.ledger();
                if ledger.out() >= self.consume.in_flight {
                    return;
                }
                ledger.take(self.consume.order)
            };
            let Some(entry) = entry else { return };
            let (message, attempt) = (entry.message.clone(), entry.attempt);
            let settle = Box::new(Held { member: self.member.clone(), entry });
            room.send(Ok(Received { message, attempt, settle }.into()));
        }
    }

    /// Fetches no further ahead than is of use. The library has to be polled all the time, so it is told to pause.
    fn bound(&self, paused: &mut bool) -> Result<(), Error> {
        let ready = self.member.ledger().ready();
        let pause = if *paused { ready > AHEAD / 2 } else { ready > AHEAD };
        if pause != *paused {
            let assigned = self.consumer.assignment().map_err(|error| failed("assignment", error))?;
            let done = if pause { self.consumer.pause(&assigned) } else { self.consumer.resume(&assigned) };
            done.map_err(|error| failed("pausing", error))?;
            *paused = pause;
        }
        Ok(())
    }

    /// Most of what the library reports it mends by itself.
    fn look_at(&self, error: KafkaError) -> Result<(), Error> {
        use RDKafkaErrorCode as Code;
        let is_over = matches!(error, KafkaError::MessageConsumptionFatal(_))
            || is_unknown_topic(&error)
            || error.rdkafka_error_code() == Some(Code::PollExceeded);
        if is_over {
            // joining again shows what it is
            return Err(Error::new(ErrorKind::Connection, format!("consuming: {error}")).caused_by(error));
        }
        let is_refused =
            matches!(error.rdkafka_error_code(), Some(Code::TopicAuthorizationFailed | Code::GroupAuthorizationFailed));
        if is_refused {
            return Err(failed("consuming", error));
        }
        tracing::debug!(%error, topic = self.consume.topic, "kafka");
        Ok(())
    }
}

/// Resolves when the commit is over; never where there is none.
async fn over(committing: &mut Committing) {
    match committing {
        Some(commit) => drop(commit.await),
        None => std::future::pending().await,
    }
}

/// What was acknowledged and not yet told.
fn commit_last(
    consumer: &StreamConsumer<Context>,
    consume: &Consume,
    kafka: &Kafka,
    member: &Member,
) -> Result<(), Error> {
    let positions = member.ledger().uncommitted();
    if positions.is_empty() {
        return Ok(());
    }
    if !consume.temporary {
        let list = kafka.positions(&consume.topic, &positions)?;
        consumer.commit(&list, CommitMode::Sync).map_err(|error| failed("leaving", error))?;
    }
    member.committed(&positions);
    Ok(())
}

/// One message this member holds.
#[derive(Debug)]
struct Held {
    member: Arc<Member>,
    entry: Entry,
}

fn expired() -> Error {
    Error::new(ErrorKind::Expired, "its partition is no longer this member's")
}

#[async_trait]
impl Settle for Held {
    async fn ack(self: Box<Self>) -> Result<(), Error> {
        let Held { member, entry } = *self;
        let acked = member.ledger().ack(entry.partition, entry.epoch, entry.offset);
        member.changed.notify_one();
        match acked {
            Acked::Expired => Err(expired()),
            Acked::Noted => Ok(()),
            Acked::Moved(hears) => match timeout(member.limit, hears).await {
                Ok(heard) => heard.map_err(|_| expired()),
                Err(_) => Err(Error::new(ErrorKind::Timeout, format!("not committed within {:?}", member.limit))),
            },
        }
    }

    async fn nack(self: Box<Self>, _: Duration) -> Result<(), Error> {
        // no longer this member's, it is delivered again all the same
        self.abandon();
        Ok(())
    }

    fn abandon(self: Box<Self>) {
        let Held { member, entry } = *self;
        member.ledger().nack(entry);
        member.changed.notify_one();
    }
}
