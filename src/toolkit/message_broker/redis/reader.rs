//! Reading for one member: what is new, and what others, or this one, did not settle in time.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use ::redis::aio::MultiplexedConnection;
use ::redis::{AsyncConnectionConfig, RedisError, RedisResult, cmd};
use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use super::super::adapter::{Event, Received};
use super::super::delivery::Settle;
use super::super::{Consume, Error, ErrorKind, Message, feed};
use super::{Shared, failed};

/// What the script for refusing says of a message that was trimmed away.
const GONE: u8 = 2;

/// Others' abandoned messages are looked for each quarter of the `ack_timeout`, within these bounds.
const LOOK_MIN: Duration = Duration::from_millis(20);
const LOOK_MAX: Duration = Duration::from_secs(5);
/// An unblocking that comes before the read it is for is sent again after this.
const UNBLOCK_AGAIN: Duration = Duration::from_millis(20);

/// For messages that came from other programs without an id: always the same for the same entry.
const NAMESPACE: Uuid = Uuid::from_u128(0x2f0e_77c1_55b8_4d6e_9c36_81d1_6a24_0fb7);

/// An entry of a stream: its id, its fields and values in turn; `None` if it was trimmed away meanwhile (Redis 6).
type Entry = (String, Option<Vec<Vec<u8>>>);

/// What a message is in a stream.
pub(super) fn fields(message: &Message) -> Vec<(String, Bytes)> {
    let own = |name: &str, value: Bytes| (name.to_string(), value);
    let mut fields = vec![
        own("id", message.id().to_string().into()),
        own("time-ms", message.timestamp_ms().to_string().into()),
        own("value", message.value().clone()),
    ];
    fields.extend(message.key().map(|key| own("key", key.clone())));
    fields.extend(message.headers().iter().map(|(name, value)| (format!("h:{name}"), value.clone())));
    fields
}

fn decode(topic: &str, entry: &str, fields: Vec<Vec<u8>>) -> Message {
    let mut builder = Message::builder(topic);
    let mut id = Uuid::new_v5(&NAMESPACE, entry.as_bytes());
    let mut ms = entry.split('-').next().and_then(|ms| ms.parse().ok());
    let mut fields = fields.into_iter();
    while let (Some(field), Some(value)) = (fields.next(), fields.next()) {
        let text = || std::str::from_utf8(&value).ok();
        match &field[..] {
            b"id" => id = text().and_then(|text| text.parse().ok()).unwrap_or(id),
            b"time-ms" => ms = text().and_then(|text| text.parse().ok()).or(ms),
            b"key" => builder = builder.key(value),
            b"value" => builder = builder.value(value),
            name => {
                let name = String::from_utf8_lossy(name.strip_prefix(b"h:").unwrap_or(name)).into_owned();
                builder = builder.header(name, value);
            }
        }
    }
    builder.id(id).timestamp(UNIX_EPOCH + Duration::from_millis(ms.unwrap_or(0))).received()
}

/// What a member and the messages it holds share.
#[derive(Debug)]
struct Member {
    shared: Arc<Shared>,
    stream: String,
    consume: Consume,
    name: String,
    /// When to look for messages that are late, or were refused.
    look_at: Mutex<Instant>,
    /// That has become earlier.
    sooner: Notify,
    /// Messages found to be trimmed away and not yet told of.
    lost: AtomicU64,
}

impl Member {
    fn look_at(&self) -> Instant {
        *self.look_at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn look_by(&self, at: Instant) {
        let mut look_at = self.look_at.lock().unwrap_or_else(PoisonError::into_inner);
        *look_at = at.min(*look_at);
        self.sooner.notify_one();
    }

    /// The stream is bounded, and so many were trimmed away before they were handled.
    fn lost(&self, count: u64) {
        self.lost.fetch_add(count, Relaxed);
    }

    fn looked(&self) {
        let pause = (self.consume.ack_timeout / 4).clamp(LOOK_MIN, LOOK_MAX);
        *self.look_at.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now() + pause;
    }

    /// What an error of a read means.
    fn failed(&self, what: &str, error: RedisError) -> Error {
        // NOGROUP; UNBLOCKED when the stream is deleted under a blocked reader
        if matches!(error.code(), Some("NOGROUP" | "UNBLOCKED")) {
            Error::unknown_topic(&self.consume.topic)
        } else {
            failed(what, error)
        }
    }
}

pub(super) struct Reader {
    member: Arc<Member>,
    conn: MultiplexedConnection,
    /// What Redis calls this connection.
    client_id: u64,
    slots: Arc<Semaphore>,
}

impl Reader {
    pub(super) async fn connect(shared: Arc<Shared>, consume: &Consume) -> Result<Reader, Error> {
        // without a bound on answers: reads block
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(shared.options.timeout))
            .set_response_timeout(None);
        let conn = shared.client.get_multiplexed_async_connection_with_config(&config).await;
        let mut conn = conn.map_err(|error| failed("connecting", error))?;
        let client_id = cmd("CLIENT").arg("ID").query_async(&mut conn).await;
        let client_id = client_id.map_err(|error| failed("CLIENT ID", error))?;
        let member = Member {
            stream: shared.stream_key(&consume.topic),
            shared,
            name: Uuid::new_v4().simple().to_string(),
            look_at: Mutex::new(Instant::now()),
            sooner: Notify::new(),
            lost: AtomicU64::new(0),
            consume: consume.clone(),
        };
        let slots = Arc::new(Semaphore::new(consume.in_flight));
        Ok(Reader { member: Arc::new(member), conn, client_id, slots })
    }

    pub(super) async fn run(self, into: feed::Into, mut stop: feed::Stop) -> Result<(), Error> {
        loop {
            match self.turn(&into, &mut stop).await {
                Ok(true) => {}
                Ok(false) => return self.leave().await,
                Err(error) => {
                    let _ = into.send(Err(error)).await;
                    return Ok(());
                }
            }
        }
    }

    /// One look or read. Whether to go on.
    async fn turn(&self, into: &feed::Into, stop: &mut feed::Stop) -> Result<bool, Error> {
        let first = tokio::select! {
            biased;
            _ = &mut *stop => return Ok(false),
            slot = self.slots.clone().acquire_owned() => slot.map_err(|_| Error::new(ErrorKind::Closed, "left"))?,
        };
        let mut free = vec![first];
        free.extend(std::iter::from_fn(|| self.slots.clone().try_acquire_owned().ok()));
        if self.member.look_at() <= Instant::now() {
            let found = self.look(free.len()).await?;
            self.tell_lost(into).await;
            if !found.is_empty() {
                self.hand_on(into, free, found).await;
                return Ok(true);
            }
        }
        let (entries, go_on) = self.read(free.len(), stop).await?;
        let new = entries.into_iter().map(|entry| (entry, 1)).collect();
        self.hand_on(into, free, new).await;
        Ok(go_on)
    }

    /// Takes over what has been idle for too long, with how often it has been delivered.
    async fn look(&self, most: usize) -> Result<Vec<(Entry, u32)>, Error> {
        let Member { stream, consume, name, .. } = &*self.member;
        let mut commands = self.member.shared.commands.clone();
        // before looking: what is refused meanwhile brings it forward again
        self.member.looked();
        let mut found = Vec::<Entry>::new();
        let mut cursor = "0-0".to_string();
        while found.len() < most {
            let mut claim = cmd("XAUTOCLAIM");
            claim.arg(stream).arg(&consume.group).arg(name).arg(millis(consume.ack_timeout));
            claim.arg(cursor).arg("COUNT").arg(most - found.len());
            let reply: RedisResult<(String, Vec<Entry>, Vec<String>)> = claim.query_async(&mut commands).await;
            let (next, entries, forgotten) = reply.map_err(|error| self.member.failed("XAUTOCLAIM", error))?;
            found.extend(entries);
            // Redis 7 forgets what is no longer there and says so, earlier ones hand it out as nothing
            self.member.lost(forgotten.len() as u64);
            cursor = next;
            if cursor == "0-0" {
                break;
            }
        }
        if found.len() >= most {
            // there may be more
            self.member.look_by(Instant::now());
        }
        let mut counted = Vec::new();
        for entry in found {
            let mut pending = cmd("XPENDING");
            pending.arg(stream).arg(&consume.group).arg(&entry.0).arg(&entry.0).arg(1);
            let reply: RedisResult<Vec<(String, String, u64, u32)>> = pending.query_async(&mut commands).await;
            let reply = reply.map_err(|error| self.member.failed("XPENDING", error))?;
            counted.push((entry, reply.first().map_or(2, |held| held.3)));
        }
        Ok(counted)
    }

    /// Waits for new entries until there is something to look for. Whether to go on.
    async fn read(&self, most: usize, stop: &mut feed::Stop) -> Result<(Vec<Entry>, bool), Error> {
        let Member { stream, consume, name, sooner, .. } = &*self.member;
        let block = self.member.look_at().saturating_duration_since(Instant::now());
        let mut read = cmd("XREADGROUP");
        read.arg("GROUP").arg(&consume.group).arg(name).arg("COUNT").arg(most);
        read.arg("BLOCK").arg(millis(block).max(1)).arg("STREAMS").arg(stream).arg(">");
        let mut conn = self.conn.clone();
        let reading = read.query_async::<Option<Vec<(String, Vec<Entry>)>>>(&mut conn);
        tokio::pin!(reading);
        let mut go_on = true;
        let read = tokio::select! {
            biased;
            read = &mut reading => read,
            () = async {
                tokio::select! {
                    _ = &mut *stop => go_on = false,
                    () = sooner.notified() => {}
                }
            } => self.unblocked(reading).await?,
        };
        let streams = read.map_err(|error| self.member.failed("XREADGROUP", error))?.unwrap_or_default();
        Ok((streams.into_iter().flat_map(|(_, entries)| entries).collect(), go_on))
    }

    /// Has a read that blocks return, with what it may have got.
    async fn unblocked<T>(&self, mut reading: std::pin::Pin<&mut impl Future<Output = T>>) -> Result<T, Error> {
        loop {
            let mut unblock = cmd("CLIENT");
            unblock.arg("UNBLOCK").arg(self.client_id);
            let done: RedisResult<u8> = unblock.query_async(&mut self.member.shared.commands.clone()).await;
            done.map_err(|error| failed("CLIENT UNBLOCK", error))?;
            if let Ok(read) = timeout(UNBLOCK_AGAIN, &mut reading).await {
                return Ok(read);
            }
        }
    }

    async fn hand_on(&self, into: &feed::Into, free: Vec<OwnedSemaphorePermit>, found: Vec<(Entry, u32)>) {
        for (((entry, fields), attempt), slot) in found.into_iter().zip(free) {
            let held = Held { member: self.member.clone(), entry, attempt, _slot: slot };
            let Some(fields) = fields else {
                let _ = Box::new(held).ack().await;
                self.member.lost(1);
                self.tell_lost(into).await;
                continue;
            };
            let message = decode(&self.member.consume.topic, &held.entry, fields);
            let received = Received { message, attempt, settle: Box::new(held) };
            // a member that is leaving gives it back
            if let Err(left) = into.send(Ok(received.into())).await
                && let Ok(Event::Message(received)) = left.0
            {
                let _ = received.settle.nack(Duration::ZERO).await;
            }
        }
    }

    async fn tell_lost(&self, into: &feed::Into) {
        let count = self.member.lost.swap(0, Relaxed);
        if count > 0 {
            let (stream, group) = (&self.member.stream, &self.member.consume.group);
            tracing::warn!(stream, group, count, "messages were trimmed unhandled");
            // a member that is leaving has nobody to count them
            let _ = into.send(Ok(Event::Lost(count))).await;
        }
    }

    async fn leave(&self) -> Result<(), Error> {
        let Member { shared, stream, consume, name, .. } = &*self.member;
        let mut commands = shared.commands.clone();
        let left: RedisResult<i64> = if consume.temporary {
            cmd("XGROUP").arg("DESTROY").arg(stream).arg(&consume.group).query_async(&mut commands).await
        } else {
            shared.scripts.leave.key(stream).arg(&consume.group).arg(name).invoke_async(&mut commands).await
        };
        left.map(drop).map_err(|error| self.member.failed("leaving", error))
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// One message this member holds.
#[derive(Debug)]
struct Held {
    member: Arc<Member>,
    entry: String,
    attempt: u32,
    _slot: OwnedSemaphorePermit,
}

impl Held {
    /// What the script says, unless that the message is another's.
    async fn settle(&self, script: &::redis::Script, idle: Option<Duration>) -> Result<u8, Error> {
        let Member { shared, stream, consume, name, .. } = &*self.member;
        let mut call = script.key(stream);
        call.arg(&consume.group).arg(&self.entry).arg(name).arg(self.attempt);
        if let Some(idle) = idle {
            call.arg(millis(idle));
        }
        let held: RedisResult<u8> = call.invoke_async(&mut shared.commands.clone()).await;
        match held.map_err(|error| self.member.failed("settling", error))? {
            0 => Err(Error::new(ErrorKind::Expired, "the message is no longer this member's: it was late")),
            held => Ok(held),
        }
    }
}

#[async_trait]
impl Settle for Held {
    async fn ack(self: Box<Self>) -> Result<(), Error> {
        self.settle(&self.member.shared.scripts.ack, None).await.map(drop)
    }

    async fn nack(self: Box<Self>, delay: Duration) -> Result<(), Error> {
        let timeout = self.member.consume.ack_timeout;
        let idle = timeout.saturating_sub(delay);
        if self.settle(&self.member.shared.scripts.nack, Some(idle)).await? == GONE {
            self.member.lost(1);
        }
        // a millisecond more: Redis counts whole ones
        self.member.look_by(Instant::now() + delay.min(timeout) + Duration::from_millis(1));
        Ok(())
    }

    fn abandon(self: Box<Self>) {
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { self.nack(Duration::ZERO).await });
        }
    }
}
