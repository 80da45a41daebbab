//! Events from a broker into PostgreSQL, with all parts of the toolkit:
//! `cargo run --features postgres,nats,redis --example events_to_postgres -- postgres://postgres@127.0.0.1/postgres`,
//! and behind it `nats://127.0.0.1:4222` or `redis://127.0.0.1:6379` in place of `memory`.
//!
//! ```text
//! on memory: published 102 events, one of them twice, one malformed
//! given up: user.created: store: malformed event: missing field `name` at line 1 column 11 (attempts: 1)
//! worker_pool: 101 jobs processed, 1 failed, 0 left over
//! event_processor: user.created: 101 processed, 1 failed
//! message_broker: 102 delivered, 102 acknowledged, 1 of them to user-events.dead
//! connection_pool: never more than 4 connections: true
//! PostgreSQL: 100 users, user-0 to user-99
//! ```
//!
//! broker ──► worker_pool ──► event_processor ──► connection_pool ──► PostgreSQL; back to the broker goes the
//! acknowledgement, when a row is there.

use std::time::Duration;

use corelay::toolkit::connection_pool::{self, Pool, PostgresFactory};
use corelay::toolkit::event_processor::{self, EventProcessor, HandlerError, HandlerOptions, ProcessError, typed};
use corelay::toolkit::message_broker::{
    Broker, Consume, Consumer, Delivery, ErrorKind, Memory, Message, TopicOptions, nats, redis,
};
use corelay::toolkit::worker_pool::{Attempt, Cause, Failure, Handler, Options, Retry, WorkerPool};

type Error = Box<dyn std::error::Error + Send + Sync>;

const TOPIC: &str = "user-events";
const DEAD: &str = "user-events.dead";
const USERS: u32 = 100;

#[derive(serde::Serialize, serde::Deserialize)]
struct UserCreated {
    id: i32,
    name: String,
}

/// A delivery is acknowledged when its event has been dealt with. If the process ends before that, or the pool gives
/// it back, the broker delivers it again: so a row is inserted once, whatever happens.
struct Job(Option<Delivery>);

struct Worker {
    processor: EventProcessor,
    broker: Broker,
}

#[derive(Debug, thiserror::Error)]
enum WorkError {
    #[error(transparent)]
    Process(#[from] ProcessError),
    #[error(transparent)]
    Broker(#[from] corelay::toolkit::message_broker::Error),
}

impl Handler for Worker {
    type Job = Job;
    type Error = WorkError;

    async fn process(&self, job: &mut Job, _: &Attempt<'_>) -> Result<(), WorkError> {
        let Some(message) = job.0.as_ref().map(Delivery::message) else { return Ok(()) };
        let event_type = String::from_utf8_lossy(message.header("event-type").unwrap_or_default()).into_owned();
        let value = message.value().clone();
        self.processor.process_raw(value, event_type).await?;
        match job.0.take() {
            Some(delivery) => Ok(delivery.ack().await?),
            None => Ok(()),
        }
    }

    /// What the event's own retries could not mend goes to a topic of its own; if that can't be had, back.
    async fn on_error(&self, job: Job, failure: Failure<WorkError>) {
        let Job(Some(delivery)) = job else { return };
        if !matches!(failure.cause, Cause::Failed(WorkError::Process(_))) {
            return; // dropped, it is refused, and comes again
        }
        let dead = Message::builder(DEAD).value(delivery.message().value().clone()).id(delivery.message().id()).build();
        let moved = match dead {
            Ok(dead) => self.broker.publish(dead).await,
            Err(error) => Err(error),
        };
        if moved.is_ok() {
            let _ = delivery.ack().await;
        }
    }
}

async fn connect(target: &str) -> Result<Broker, Error> {
    let url = target.to_string();
    Ok(match target.split(':').next() {
        Some("memory") => Broker::new(Memory::default()),
        Some("nats") => Broker::new(nats::Nats::connect(nats::Options { url, ..Default::default() }).await?),
        Some("redis") => Broker::new(redis::Redis::connect(redis::Options { url, ..Default::default() }).await?),
        _ => return Err("expected memory, nats:// or redis://".into()),
    })
}

async fn store(pool: Pool<PostgresFactory>, user: UserCreated) -> Result<(), HandlerError> {
    // a database that is away, or busy, is tried again
    let conn = pool.get().await.map_err(HandlerError::new)?;
    let insert = "INSERT INTO corelay_example_users (id, name) VALUES ($1, $2) ON CONFLICT DO NOTHING";
    conn.execute(insert, &[&user.id, &user.name]).await.map_err(HandlerError::new)?;
    Ok(())
}

async fn publish(broker: &Broker) -> Result<u64, Error> {
    let event = |body: String| Message::builder(TOPIC).header("event-type", "user.created").value(body).build();
    for id in 0..USERS {
        let user = UserCreated { id: i32::try_from(id)?, name: format!("user-{id}") };
        broker.publish(event(serde_json::to_string(&user)?)?).await?;
    }
    broker.publish(event(r#"{"id":0,"name":"user-0"}"#.into())?).await?;
    broker.publish(event(r#"{"id": 100}"#.into())?).await?;
    Ok(broker.stats().published)
}

/// Hands deliveries to the workers. The pool's queue is bounded, and so is what the broker hands out unsettled.
async fn feed(workers: &WorkerPool<Job>, member: &mut Consumer, count: u64) -> Result<(), Error> {
    for _ in 0..count {
        let delivery = member.next().await?;
        workers.submit(Job(Some(delivery))).await.map_err(|error| error.to_string())?;
    }
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let mut args = std::env::args().skip(1);
    let database = args.next().unwrap_or_else(|| "postgres://postgres@127.0.0.1:5432/postgres".into());
    let target = args.next().unwrap_or_else(|| "memory".into());

    let options = connection_pool::Options { max_open: 4, ..connection_pool::Options::default() };
    let pool = Pool::new(PostgresFactory::new(&database)?, options)?;
    let table = "DROP TABLE IF EXISTS corelay_example_users;
        CREATE TABLE corelay_example_users (id integer PRIMARY KEY, name text NOT NULL)";
    pool.get().await?.batch_execute(table).await?;

    let options = event_processor::Options::default()
        .dead_letter(|letter| async move { println!("given up: {}: {}", letter.event.event_type(), letter.reason) });
    let processor = EventProcessor::new(options)?;
    let rows = pool.clone();
    let handler = typed("user.created", "store", move |user: UserCreated| store(rows.clone(), user));
    processor.register_with(handler, HandlerOptions::default().retry(Retry::times(5)))?;
    let counts = processor.metrics();

    let broker = connect(&target).await?;
    for topic in [TOPIC, DEAD] {
        match broker.create_topic(topic, TopicOptions::default()).await {
            Err(error) if error.kind() != ErrorKind::TopicExists => return Err(error.into()),
            _ => {}
        }
    }
    let mut member = broker.consume(Consume { in_flight: 32, ..Consume::new(TOPIC, "to-postgres") }).await?;
    let count = publish(&broker).await?;
    println!("on {}: published {count} events, one of them twice, one malformed", broker.system());

    let worker = Worker { processor, broker: broker.clone() };
    let workers = WorkerPool::start(Options::new(8).queue(16).retry(Retry::never()), worker)?;
    feed(&workers, &mut member, count).await?;
    let report = workers.shutdown(Duration::from_secs(30)).await;
    // only now: whoever leaves gives back what it has not acknowledged
    member.leave().await?;
    println!(
        "worker_pool: {} jobs processed, {} failed, {} left over",
        report.metrics.processed,
        report.metrics.failed,
        report.abandoned.len()
    );
    for (event_type, counts) in &counts.snapshot().types {
        println!("event_processor: {event_type}: {} processed, {} failed", counts.processed, counts.failed);
    }
    let stats = broker.stats();
    let dead = stats.published - count;
    println!("message_broker: {} delivered, {} acknowledged, {dead} of them to {DEAD}", stats.delivered, stats.acked);
    println!("connection_pool: never more than 4 connections: {}", pool.stats().created <= 4);
    let conn = pool.get().await?;
    let users = "SELECT count(*), min(id), max(id) FROM corelay_example_users";
    let row = conn.query_one(users, &[]).await?;
    let (users, first, last): (i64, i32, i32) = (row.get(0), row.get(1), row.get(2));
    println!("PostgreSQL: {users} users, user-{first} to user-{last}");

    conn.batch_execute("DROP TABLE corelay_example_users").await?;
    drop(conn);
    for topic in [TOPIC, DEAD] {
        broker.delete_topic(topic).await?;
    }
    broker.close().await;
    pool.close().await;
    Ok(())
}
