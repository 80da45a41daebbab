//! Redis streams. A topic is a stream and an entry in a hash of topics, a group a consumer group of the stream.
//!
//! - What Redis confirmed survives its end as far as `appendonly` and `appendfsync` say: only with `always` not a
//!   message is lost.
//! - A refused message is made to look as if it had been idle for the `ack_timeout` less the delay, so any member takes
//!   it over then; its own at once, others when they look, each quarter of their `ack_timeout` (5 s at most).
//! - Every step that reads and then writes is one script on the server. Keys share a prefix, not a hash slot: for one
//!   primary with replicas, not for a sharded cluster.
//! - [`TopicOptions::max_messages`] is a `MAXLEN ~`: Redis keeps up to a node (100 entries) more. Without it a stream
//!   grows: Redis doesn't drop what was acknowledged.

mod reader;
mod scripts;

use std::sync::Arc;
use std::time::Duration;

use ::redis::aio::{ConnectionManager, ConnectionManagerConfig};
use ::redis::io::tcp::TcpSettings;
use ::redis::io::tcp::socket2::TcpKeepalive;
use ::redis::{Client, IntoConnectionInfo, RedisError, RedisResult, cmd};
use async_trait::async_trait;

use self::reader::Reader;
use self::scripts::Scripts;
use super::adapter::Source;
use super::bounds::check_timeout;
use super::feed::Feed;
use super::{Adapter, Capabilities, Consume, Error, ErrorKind, Message, Place, Published, Start, TopicOptions};

/// A silent connection is tried after this long, and given up after as long again.
const KEEPALIVE: Duration = Duration::from_secs(20);

/// How to connect to Redis.
#[derive(Clone, PartialEq, Eq)]
pub struct Options {
    /// `redis://user:password@host:port/database`, `rediss://` for TLS. Default `redis://127.0.0.1:6379`.
    pub url: String,
    /// What all keys begin with. Default `corelay`.
    pub prefix: String,
    /// How long connecting and each command may take. Default 5 s.
    pub timeout: Duration,
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // the URL may hold a password
        f.debug_struct("Options").field("prefix", &self.prefix).field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

impl Default for Options {
    fn default() -> Options {
        let timeout = Duration::from_secs(5);
        Options { url: "redis://127.0.0.1:6379".into(), prefix: "corelay".into(), timeout }
    }
}

/// Redis streams: see the [module](self). Clones share a connection for commands, which is made again whenever it is
/// lost; each member has one of its own to wait on.
///
/// ```no_run
/// use corelay::toolkit::message_broker::redis::{Options, Redis};
/// use corelay::toolkit::message_broker::Broker;
/// # async fn example() -> Result<(), corelay::toolkit::message_broker::Error> {
/// let broker = Broker::new(Redis::connect(Options::default()).await?);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Redis {
    shared: Arc<Shared>,
}

/// What members need too.
struct Shared {
    client: Client,
    commands: ConnectionManager,
    scripts: Scripts,
    options: Options,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // the URL may hold a password
        f.debug_struct("Redis").field("prefix", &self.options.prefix).finish_non_exhaustive()
    }
}

impl Shared {
    /// The hash of topics and their bounds. Topics have no colon.
    fn topics_key(&self) -> String {
        format!("{}:topics", self.options.prefix)
    }

    fn stream_key(&self, topic: &str) -> String {
        format!("{}:topic:{topic}", self.options.prefix)
    }
}

impl Redis {
    /// What it can do.
    pub const CAPABILITIES: Capabilities = Capabilities {
        stores: true,
        durable: true,
        fan_out: true,
        ack_timeout: true,
        delayed_nack: true,
        topics: true,
        list_topics: true,
        start_earliest: true,
        max_messages: true,
        ..Capabilities::NONE
    };

    /// Connects.
    ///
    /// # Errors
    /// [`ErrorKind::Connection`] where Redis doesn't answer; [`ErrorKind::Invalid`] for a URL that can't be used.
    pub async fn connect(options: Options) -> Result<Redis, Error> {
        check_timeout(options.timeout)?;
        let invalid = |error| Error::new(ErrorKind::Invalid, "url: expected redis://host:port").caused_by(error);
        let keepalive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE / 4);
        let info = options.url.as_str().into_connection_info().map_err(invalid)?;
        let info = info.set_tcp_settings(TcpSettings::default().set_keepalive(keepalive));
        let client = Client::open(info).map_err(invalid)?;
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(options.timeout))
            .set_response_timeout(Some(options.timeout))
            // whoever calls decides whether to go on trying
            .set_number_of_retries(1)
            .set_max_delay(Duration::from_millis(200));
        let connected = ConnectionManager::new_with_config(client.clone(), config).await;
        let commands = connected.map_err(|error| failed("connecting", error))?;
        let shared = Shared { client, commands, scripts: Scripts::default(), options };
        Ok(Redis { shared: Arc::new(shared) })
    }
}

/// What an error of Redis means, where nothing else is known.
fn failed(what: &str, error: RedisError) -> Error {
    let is_passing = matches!(error.code(), Some("LOADING" | "BUSY" | "MASTERDOWN" | "TRYAGAIN" | "READONLY"));
    let kind = if error.code() == Some("OOM") {
        ErrorKind::Full
    } else if error.is_timeout() {
        ErrorKind::Timeout
    } else if error.is_io_error() || error.is_connection_dropped() || error.is_connection_refusal() || is_passing {
        ErrorKind::Connection
    } else {
        ErrorKind::Refused
    };
    Error::new(kind, format!("{what}: {error}")).caused_by(error)
}

#[async_trait]
impl Adapter for Redis {
    fn system(&self) -> &'static str {
        "redis"
    }

    fn capabilities(&self) -> Capabilities {
        Redis::CAPABILITIES
    }

    async fn publish(&self, message: Message) -> Result<(), Error> {
        let Shared { scripts, commands, .. } = &*self.shared;
        let mut call = scripts.publish.key(self.shared.topics_key());
        call.key(self.shared.stream_key(message.topic())).arg(message.topic());
        for (field, value) in reader::fields(&message) {
            call.arg(field).arg(&value[..]);
        }
        let id: Option<String> =
            call.invoke_async(&mut commands.clone()).await.map_err(|error| failed("publish", error))?;
        id.map(drop).ok_or_else(|| Error::unknown_topic(message.topic()))
    }

    async fn publish_to(&self, place: &Place, messages: &[Message]) -> Published {
        let Place::Stream { key, max_len } = place else { return Published::up_to(0, 0, self.no_place(place)) };
        if messages.is_empty() {
            return self.ping().await.map_or_else(|error| Published::up_to(0, 0, error), |()| Published::all(0));
        }
        let mut pipe = ::redis::pipe();
        pipe.ignore_errors();
        for message in messages {
            let add = pipe.cmd("XADD").arg(key);
            if let Some(most) = max_len {
                add.arg("MAXLEN").arg("~").arg(most);
            }
            add.arg("*");
            for (field, value) in reader::fields(message) {
                add.arg(field).arg(&value[..]);
            }
        }
        let added: RedisResult<Vec<RedisResult<String>>> = pipe.query_async(&mut self.shared.commands.clone()).await;
        let added = match added {
            Ok(added) => added,
            Err(error) => return Published::up_to(0, messages.len(), failed("XADD", error)),
        };
        let taken = added.iter().take_while(|entry| entry.is_ok()).count();
        let error = added.into_iter().find_map(Result::err).map(|error| failed("XADD", error));
        Published { taken, begun: messages.len(), error }
    }

    async fn consume(&self, consume: &Consume) -> Result<Box<dyn Source>, Error> {
        let Shared { scripts, commands, .. } = &*self.shared;
        let begin = if consume.start == Start::Earliest { "0" } else { "$" };
        let mut call = scripts.join.key(self.shared.topics_key());
        call.key(self.shared.stream_key(&consume.topic)).arg(&consume.topic).arg(&consume.group).arg(begin);
        let joined: Option<u8> =
            call.invoke_async(&mut commands.clone()).await.map_err(|error| failed("join", error))?;
        joined.ok_or_else(|| Error::unknown_topic(&consume.topic))?;
        let reader = Reader::connect(self.shared.clone(), consume).await?;
        Ok(Box::new(Feed::start(consume.in_flight, |into, stop| reader.run(into, stop))))
    }

    async fn create_topic(&self, topic: &str, options: &TopicOptions) -> Result<(), Error> {
        let bound = options.max_messages.map(|most| most.to_string()).unwrap_or_default();
        let mut set = cmd("HSETNX");
        set.arg(self.shared.topics_key()).arg(topic).arg(bound);
        let new: bool =
            set.query_async(&mut self.shared.commands.clone()).await.map_err(|error| failed("create_topic", error))?;
        if new { Ok(()) } else { Err(Error::topic_exists(topic)) }
    }

    async fn delete_topic(&self, topic: &str) -> Result<(), Error> {
        let Shared { scripts, commands, .. } = &*self.shared;
        let mut call = scripts.delete.key(self.shared.topics_key());
        call.key(self.shared.stream_key(topic)).arg(topic);
        let was: bool =
            call.invoke_async(&mut commands.clone()).await.map_err(|error| failed("delete_topic", error))?;
        if was { Ok(()) } else { Err(Error::unknown_topic(topic)) }
    }

    async fn topic_exists(&self, topic: &str) -> Result<bool, Error> {
        let mut exists = cmd("HEXISTS");
        exists.arg(self.shared.topics_key()).arg(topic);
        let found = exists.query_async(&mut self.shared.commands.clone()).await;
        found.map_err(|error| failed("topic_exists", error))
    }

    async fn topics(&self) -> Result<Vec<String>, Error> {
        let mut keys = cmd("HKEYS");
        keys.arg(self.shared.topics_key());
        keys.query_async(&mut self.shared.commands.clone()).await.map_err(|error| failed("topics", error))
    }

    async fn ping(&self) -> Result<(), Error> {
        let done = cmd("PING").query_async(&mut self.shared.commands.clone()).await;
        done.map_err(|error| failed("ping", error))
    }

    async fn close(&self) {}
}
