//! Redis.

use super::*;
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
/// # Ok::<(), corelay::forward::UrlError>(())
/// ```
#[derive(Debug)]
pub struct RedisClient(Bridge);

impl RedisClient {
    pub(in crate::forward) fn from_url(mut url: Url) -> Result<RedisClient, UrlError> {
        let common = url.common(MAX_BODY)?;
        let place = Place::Stream { key: url.name(), max_len: url.count("max_len")? };
        let database = url.read("db", "a number from 0 to 65535", |text| text.parse::<u16>().ok())?.unwrap_or(0);
        let server = url.server(&url.scheme, &format!("/{database}"));
        let options = Options { url: server, timeout: common.timeout, ..Options::default() };
        Bridge::new("redis", url, place, common, move || Redis::connect(options.clone())).map(RedisClient)
    }
}

client!(RedisClient, ["redis", "rediss"]);
