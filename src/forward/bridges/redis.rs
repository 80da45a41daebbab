//! Redis.

use super::super::target::Target;
use super::*;
use crate::forward::InvalidTarget;
use crate::toolkit::message_broker::redis::{Options, Redis};

/// Redis takes strings of 512 MiB (`proto-max-bulk-len`).
const MAX_BODY: usize = 512 << 20;

/// Adds to a stream of Redis: `redis://user:password@host:6379/stream`, `rediss://` for TLS. `db=2` chooses a
/// database, `max_len=100000` bounds the stream (about: `MAXLEN ~`). For headers and other parameters see the
/// [module](super): an entry has the fields `id`, `time-ms`, `value`, and a field `h:` and name for each header.
///
/// At least once: Redis has confirmed each entry, and keeps it as well as its `appendonly` and `appendfsync` say. One
/// sent twice has the same `id`. A batch is one pipeline.
///
/// ```
/// use corelay::forward::{Client, Promise, RedisClient};
/// let client = RedisClient::new("redis://:secret@127.0.0.1:6379/orders:new?max_len=100000")?;
/// assert_eq!(client.address(), "redis://127.0.0.1:6379/orders:new");
/// assert_eq!(client.promise(), Promise::AtLeastOnce);
/// # Ok::<(), corelay::forward::InvalidTarget>(())
/// ```
#[derive(Debug)]
pub struct RedisClient(Bridge);

impl RedisClient {
    /// Takes the target apart; connects when the first message is sent.
    ///
    /// # Errors
    /// What is wrong with the target.
    pub fn new(target: &str) -> Result<RedisClient, InvalidTarget> {
        let mut target = Target::new(target, &["redis", "rediss"])?;
        let common = target.common(MAX_BODY)?;
        let place = Place::Stream { key: target.path()?, max_len: target.count("max_len")? };
        place.check().map_err(|error| target.wrong(error.to_string()))?;
        let database = target.text("db").unwrap_or_else(|| "0".into());
        if database.parse::<u16>().is_err() {
            return Err(target.wrong(format!("db is {database:?}: expected a number")));
        }
        target.finish()?;
        let url = target.server(target.scheme(), &format!("/{database}"));
        let connect = move || {
            let redis = Redis::connect(Options { url: url.clone(), timeout: common.timeout, ..Options::default() });
            Box::pin(async move { Ok(Broker::with_options(redis.await?, options(common))) }) as _
        };
        Ok(RedisClient(Bridge {
            protocol: "redis",
            address: target.address().into(),
            place,
            promise: Promise::AtLeastOnce,
            common,
            connect: Box::new(connect),
            broker: Mutex::default(),
        }))
    }
}

client!(RedisClient);
