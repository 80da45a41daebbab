//! PostgreSQL, through the toolkit's [connection pool](crate::toolkit::connection_pool).

mod rows;
mod table;

use std::error::Error as _;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::OnceCell;
use tokio::time::timeout;
use tokio_postgres::Config;
use tokio_postgres::config::SslMode;
use tokio_postgres::error::SqlState;

use self::table::Table;
use super::target::Common;
use super::url::{Url, UrlError};
use super::{BatchFuture, Client, Done, Message, Promise, SendError, SendErrorKind, SendFuture, Takes};
use crate::toolkit::connection_pool::{self as pool, Guard, Pool, PostgresFactory};

/// PostgreSQL takes values of 1 GiB, and a statement with all of its values may not be larger.
const MAX_BODY: usize = 256 << 20;
/// A silent connection is tried after this long, and given up after as long again.
const KEEPALIVE: Duration = Duration::from_secs(20);

/// Inserts into a table of PostgreSQL: `postgres://user:password@host:5432/database?table=corelay_messages`.
///
/// | parameter | |
/// |---|---|
/// | `table` | its name, or `schema.name`; `corelay_messages` |
/// | `create` | `true`: it is made if it isn't there |
/// | `sslmode` | `prefer`, `require` or `disable`: see [`PostgresFactory`] |
/// | `connect_timeout`, `timeout`, `max_body` | 5s; 10s for a batch; 256 MiB |
///
/// A row is a message, or a part of one:
///
/// | column | |
/// |---|---|
/// | `key uuid`, `part integer` | the primary key: [`Message::key`], and which part, from 0 |
/// | `state text` | `whole`, `chunk`, `last`, or `aborted`: nothing more comes, what came before is to be thrown away |
/// | `request_id uuid`, `channel uuid`, `kind text`, `received timestamptz` | what is known of it |
/// | `headers jsonb` | an array of pairs; what is no text is `{"hex": "..."}` |
/// | `body bytea` | |
/// | `position bigint` | counts up: rows of one client are in the order in which they were sent |
///
/// At least once, and nothing twice: a batch is one statement, which is stored as a whole or not at all, and a message
/// that is sent again meets its own key (`ON CONFLICT DO NOTHING`). If a batch is refused, its messages are inserted
/// one by one, so that only what is at fault is refused.
///
/// ```
/// use corelay::forward::{Client, PostgresClient, Promise};
/// let client = PostgresClient::new("postgres://me:secret@127.0.0.1/shop?table=events.orders&create=true")?;
/// assert_eq!(client.address(), "postgres://127.0.0.1/shop?table=events.orders");
/// assert_eq!(client.promise(), Promise::AtLeastOnce);
/// # Ok::<(), corelay::forward::UrlError>(())
/// ```
#[derive(Debug)]
pub struct PostgresClient {
    address: String,
    table: Table,
    /// The table is to be made.
    create: bool,
    /// It is there.
    ready: AtomicBool,
    common: Common,
    factory: PostgresFactory,
    /// Made when it is first needed: a pool looks after its connections in a task.
    pool: OnceCell<Pool<PostgresFactory>>,
}

impl PostgresClient {
    /// Takes the target apart; connects when the first message is sent.
    ///
    /// # Errors
    /// What is wrong with the target.
    pub fn new(target: &str) -> Result<PostgresClient, UrlError> {
        PostgresClient::from_url(Url::of(target, &["postgres", "postgresql"])?)
    }

    pub(super) fn from_url(mut url: Url) -> Result<PostgresClient, UrlError> {
        let common = url.common(MAX_BODY)?;
        let name = url.text("table").unwrap_or_else(|| "corelay_messages".into());
        let table = Table::new(&name).map_err(|why| url.refused(why))?;
        let create = url.flag("create", false)?;
        let modes = [("prefer", SslMode::Prefer), ("require", SslMode::Require), ("disable", SslMode::Disable)];
        let tls = url.choice("sslmode", &modes, SslMode::Prefer)?;
        // the driver's words could be those of the URL
        let config = url.server("postgres", url.raw_path()).parse();
        let mut config: Config =
            config.map_err(|_| url.refused("expected postgres://user:password@host:port/database"))?;
        config.ssl_mode(tls).connect_timeout(common.connect_timeout).application_name("corelay");
        config.keepalives_idle(KEEPALIVE).keepalives_interval(KEEPALIVE / 4).tcp_user_timeout(KEEPALIVE);
        let factory = PostgresFactory::with_config(config).map_err(|error| url.refused(error))?;
        let address = format!("{}?table={name}", url.address());
        url.finish()?;
        Ok(PostgresClient {
            address,
            table,
            create,
            ready: AtomicBool::new(false),
            common,
            factory,
            pool: OnceCell::new(),
        })
    }

    async fn connection(&self) -> Result<Guard<PostgresFactory>, SendError> {
        let made = self.pool.get_or_try_init(|| async {
            let options = pool::Options {
                // one for the producer's one call at a time, one for its probe
                max_open: 2,
                acquire_timeout: self.common.connect_timeout,
                create_timeout: self.common.connect_timeout,
                // the producer paces attempts
                create_retries: 0,
                ..pool::Options::default()
            };
            Pool::new(self.factory.clone(), options)
        });
        let pool = made.await.map_err(|error| SendError::new(SendErrorKind::Connect, error.to_string()))?;
        let conn = pool.get().await.map_err(|error| SendError::new(SendErrorKind::Connect, chain(&error)))?;
        if self.create && !self.ready.load(Ordering::Acquire) {
            let made = self.bounded(conn.batch_execute(self.table.create())).await;
            // two that make it at once may trip over each other: it is there then
            let made = made.or_else(|failure| if failure.is_race() { Ok(()) } else { Err(failure) });
            if let Err(failure) = made {
                if failure.is_over() {
                    conn.discard();
                }
                return Err(SendError::new(failure.kind(), format!("creating the table: {failure}")));
            }
            self.ready.store(true, Ordering::Release);
        }
        Ok(conn)
    }

    async fn bounded<T>(&self, call: impl Future<Output = Result<T, tokio_postgres::Error>>) -> Result<T, Failure> {
        match timeout(self.common.timeout, call).await {
            Ok(done) => done.map_err(Failure::Driver),
            Err(_) => Err(Failure::Late(self.common.timeout)),
        }
    }

    async fn insert(&self, messages: &[Message]) -> Result<(), SendError> {
        let conn = self.connection().await?;
        let rows = rows::Rows::of(messages);
        let inserted = self.bounded(conn.execute_typed(self.table.insert(), &rows.params())).await;
        let Err(failure) = inserted else { return Ok(()) };
        if failure.is_over() {
            conn.discard();
        }
        if failure.is_missing_table() {
            // it was dropped under way
            self.ready.store(false, Ordering::Release);
            if self.create {
                return Err(SendError::new(SendErrorKind::Unavailable, failure.to_string()));
            }
        }
        let said = SendError::new(failure.kind(), failure.to_string());
        Err(if failure.is_clear() { said } else { said.in_doubt() })
    }

    async fn batch(&self, messages: &[Message]) -> Done {
        let error = match self.insert(messages).await {
            Ok(()) => return Done { delivered: messages.len(), error: None },
            Err(error) => error,
        };
        if messages.len() == 1 || error.kind().is_worth_another_attempt() {
            return Done { delivered: 0, error: Some(error) };
        }
        // one of them is at fault: up to it they can be stored
        for (delivered, message) in messages.iter().enumerate() {
            if let Err(error) = self.insert(std::slice::from_ref(message)).await {
                return Done { delivered, error: Some(error.alone()) };
            }
        }
        Done { delivered: messages.len(), error: None }
    }
}

/// Why a statement failed.
#[derive(Debug)]
enum Failure {
    Late(Duration),
    Driver(tokio_postgres::Error),
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Failure::Late(limit) => write!(f, "no answer within {limit:?}"),
            // without the row, which the server adds as its detail
            Failure::Driver(error) => match error.as_db_error() {
                Some(said) => write!(f, "{} ({})", said.message(), said.code().code()),
                None => f.write_str(&chain(error)),
            },
        }
    }
}

/// An error with what caused it.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}

impl Failure {
    fn code(&self) -> Option<&SqlState> {
        match self {
            Failure::Late(_) => None,
            Failure::Driver(error) => error.code(),
        }
    }

    fn class(&self) -> &str {
        self.code().and_then(|code| code.code().get(..2)).unwrap_or_default()
    }

    fn kind(&self) -> SendErrorKind {
        match self {
            Failure::Late(_) => SendErrorKind::Timeout,
            Failure::Driver(error) if error.is_closed() || error.code().is_none() => {
                // a value that can't be written never left
                let is_ours = error.source().is_some_and(|source| !source.is::<std::io::Error>());
                if is_ours && !error.is_closed() { SendErrorKind::Rejected } else { SendErrorKind::Closed }
            }
            Failure::Driver(_) => match self.class() {
                // the server shuts down or was told to end this
                "08" | "57" => SendErrorKind::Closed,
                "54" => SendErrorKind::TooLarge,
                // a transaction in the way, a lock, out of room, a fault of its own; a standby
                "25" | "40" | "53" | "55" | "58" | "XX" => SendErrorKind::Unavailable,
                _ => SendErrorKind::Rejected,
            },
        }
    }

    /// Whether the statement certainly changed nothing: the server said that it failed.
    fn is_clear(&self) -> bool {
        self.code().is_some() || self.kind() == SendErrorKind::Rejected
    }

    /// Whether the connection is of no more use: an answer may come that nobody waits for.
    fn is_over(&self) -> bool {
        matches!(self.kind(), SendErrorKind::Timeout | SendErrorKind::Closed)
    }

    fn is_missing_table(&self) -> bool {
        self.code() == Some(&SqlState::UNDEFINED_TABLE)
    }

    fn is_race(&self) -> bool {
        let others = [SqlState::UNIQUE_VIOLATION, SqlState::DUPLICATE_TABLE, SqlState::DUPLICATE_OBJECT];
        self.code().is_some_and(|code| others.contains(code))
    }
}

impl Client for PostgresClient {
    fn protocol_name(&self) -> &str {
        "postgres"
    }

    fn address(&self) -> &str {
        &self.address
    }

    fn send<'a>(&'a self, message: &'a Message) -> SendFuture<'a> {
        Box::pin(self.insert(std::slice::from_ref(message)))
    }

    fn send_batch<'a>(&'a self, messages: &'a [Message]) -> BatchFuture<'a> {
        Box::pin(self.batch(messages))
    }

    fn promise(&self) -> Promise {
        Promise::AtLeastOnce
    }

    fn takes(&self) -> Takes {
        Takes { max_body: Some(self.common.max_body), parts: true }
    }

    fn probe(&self) -> SendFuture<'_> {
        Box::pin(async {
            let conn = self.connection().await?;
            let answer = self.bounded(conn.check_connection()).await;
            answer.map_err(|failure| {
                conn.discard();
                SendError::new(SendErrorKind::Connect, failure.to_string())
            })
        })
    }

    fn close(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async {
            if let Some(pool) = self.pool.get() {
                pool.close().await;
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_that_cannot_work_are_refused() {
        let wrong = [
            ("postgres://me:secret@h/db?table=a;drop", "table"),
            ("postgres://me:secret@h/db?sslmode=maybe", "sslmode"),
            ("postgres://me:secret@h/db?create=yes", "create"),
            ("postgres://me:secret@h/db?tables=a", "no option \"tables\""),
            ("mysql://me:secret@h/db", "expected one of postgres"),
        ];
        for (target, why) in wrong {
            let error = PostgresClient::new(target).unwrap_err().to_string();
            assert!(error.contains(why) && !error.contains("secret"), "{error}");
        }
        let client = PostgresClient::new("postgres://me:secret@h/db?sslmode=require").unwrap();
        assert!(!format!("{client:?}").contains("secret"), "{client:?}");
        assert_eq!(client.address(), "postgres://h/db?table=corelay_messages");
    }
}
