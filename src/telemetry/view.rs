//! What the JSON pages say, as types: the same for who writes them and who reads them. Times are in seconds, sizes in
//! bytes, counts since the broker's start.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// `/varz`: the process and its totals.
///
/// ```
/// use corelay::telemetry::view::Varz;
/// let mut varz = Varz::default();
/// varz.requests = 7;
/// let json = serde_json::to_string(&varz).unwrap();
/// assert_eq!(serde_json::from_str::<Varz>(&json).unwrap(), varz);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Varz {
    /// Its process id.
    pub pid: u32,
    /// `server.name` of the configuration.
    pub name: String,
    /// The version of corelay.
    pub version: String,
    /// The reactor: `uring` or `epoll`.
    pub io: String,
    /// Where clients connect.
    pub listen: Vec<String>,
    /// Since the admin endpoint began to answer, with the broker's start.
    pub uptime_seconds: f64,
    /// CPU time of the whole process.
    pub cpu_seconds: f64,
    /// Memory in use.
    pub resident_bytes: u64,
    /// The most memory it ever used.
    pub peak_resident_bytes: u64,
    /// Open descriptors.
    pub open_files: u64,
    /// Cores that run the broker.
    pub cores: u16,
    /// It is on its way to its end.
    pub draining: bool,
    /// Requests read from consumers.
    pub requests: u64,
    /// Answers sent to consumers whole, those to one-way requests included.
    pub responses: u64,
    /// Of those, the ones to one-way requests.
    pub responses_oneway: u64,
    /// Requests ended with an ERROR to their consumer.
    pub errors: u64,
    /// The same, by the reason's name.
    pub errors_by_code: BTreeMap<String, u64>,
    /// Requests not ended.
    pub in_flight: u64,
    /// Requests that had to wait for a provider.
    pub queued: u64,
    /// Requests handed to a second provider (RETRY).
    pub retried: u64,
    /// Requests passed to another core.
    pub passed_on: u64,
    /// Connections open.
    pub connections: u64,
    /// The most there may be.
    pub max_connections: u64,
    /// Those of them in their handshake.
    pub handshakes: u64,
    /// Connections accepted.
    pub connections_accepted: u64,
    /// Connections that the broker ended with an ERROR, by the reason's name.
    pub connections_failed: BTreeMap<String, u64>,
    /// Connections closed as soon as they were accepted, by the limit that was reached.
    pub connections_refused: BTreeMap<String, u64>,
    /// Channels somebody is on (a spread one counts on each of its cores).
    pub channels: u64,
    /// Bytes read from clients and other cores.
    pub received_bytes: u64,
    /// Bytes that the kernel or other cores took.
    pub sent_bytes: u64,
    /// Bodies and output held in memory: what `core_buffer` bounds.
    pub held_bytes: u64,
    /// What was not delivered or not taken, by the reason.
    pub dropped: Dropped,
    /// TLS handshakes and sessions.
    #[serde(default)]
    pub tls: TlsVarz,
    /// The cores, those that gave no answer left out.
    pub per_core: Vec<CoreVarz>,
}

/// What became of TLS handshakes and sessions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct TlsVarz {
    /// Handshakes that succeeded.
    pub opened: u64,
    /// Of them, those that went on with an earlier session.
    pub resumed: u64,
    /// Handshakes that failed.
    pub failed: u64,
    /// Open sessions that failed: a record was not genuine.
    pub broken: u64,
    /// Open sessions that ended without the peer having said so (close_notify).
    pub truncated: u64,
}

/// What was dropped, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Dropped {
    /// Connections refused at once for a limit.
    pub connections_refused: u64,
    /// Requests whose consumer was lost before their answer.
    pub consumer_lost: u64,
    /// One-way requests lost with their provider or at their deadline, after they had been confirmed.
    pub oneway_lost: u64,
    /// Requests ended because `core_buffer` was full.
    pub shed: u64,
    /// Body bytes that came for streams that had ended.
    pub discarded_bytes: u64,
}

/// One core.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CoreVarz {
    /// Its number.
    pub core: u16,
    /// The CPU it was given.
    pub cpu: u64,
    /// CPU time of its thread.
    pub cpu_seconds: f64,
    /// Turns of its loop.
    pub turns: u64,
    /// Time spent in turns, outside the system calls that wait and send.
    pub turn_seconds: f64,
    /// How long its turns took.
    pub turn_latency: Latency,
    /// As in [`Varz`].
    pub requests: u64,
    /// As in [`Varz`].
    pub responses: u64,
    /// As in [`Varz`].
    pub errors: u64,
    /// As in [`Varz`].
    pub in_flight: u64,
    /// As in [`Varz`].
    pub connections: u64,
    /// As in [`Varz`].
    pub channels: u64,
    /// As in [`Varz`].
    pub received_bytes: u64,
    /// As in [`Varz`].
    pub sent_bytes: u64,
    /// As in [`Varz`].
    pub held_bytes: u64,
    /// Receive buffers.
    pub buffers: u64,
    /// Of them, those nobody holds.
    pub buffers_free: u64,
}

/// How long something took, in seconds. Buckets are at most 3.1 % wide, and told by their upper end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Latency {
    /// How many were counted.
    pub count: u64,
    /// Their mean, exact.
    pub mean: f64,
    /// The median.
    pub p50: f64,
    /// 90 % took no longer.
    pub p90: f64,
    /// 99 %.
    pub p99: f64,
    /// 99.9 %.
    pub p999: f64,
    /// All.
    pub max: f64,
}

/// A part of a list, by `?offset=` and `?limit=`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Listing<T> {
    /// Entries in the whole list.
    pub total: u64,
    /// The first one of this part.
    pub offset: u64,
    /// How many it has at most.
    pub limit: u64,
    /// The part.
    pub items: Vec<T>,
    /// Cores that gave no answer: theirs are missing.
    pub silent_cores: Vec<u16>,
}

/// An entry of `/connz`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Conn {
    /// The core it is on.
    pub core: u16,
    /// Its number there; no two connections of a core have had the same.
    pub id: u64,
    /// `consumer`, `provider` or `handshake`.
    pub role: String,
    /// `handshake`, `open`, `draining` or `closing`.
    pub state: String,
    /// Where it comes from.
    pub peer: String,
    /// What the client calls itself.
    pub name: String,
    /// The name of the entry that let it in, in place of its token; none where everybody is let in.
    pub user: Option<String>,
    /// The client's id.
    pub client: String,
    /// The name in the client's certificate, where it had to show one (mutual TLS).
    #[serde(default)]
    pub identity: Option<String>,
    /// Its channel, once known.
    pub channel: Option<String>,
    /// The channel's name, where the configuration has one.
    pub channel_name: Option<String>,
    /// Requests in progress on it.
    pub in_flight: u64,
    /// A provider's bound on them.
    pub max_concurrent: u64,
    /// Bytes that wait to be sent to it.
    pub pending_bytes: u64,
    /// Since it was accepted.
    pub age_seconds: f64,
    /// Since something came from it.
    pub idle_seconds: f64,
}

/// An entry of `/channelz`, all cores together.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Channel {
    /// Its id; `other` for all that are counted together.
    pub channel: String,
    /// Its name, where the configuration has one.
    pub name: Option<String>,
    /// The cores it is on.
    pub cores: Vec<u16>,
    /// Connections on it.
    pub connections: u64,
    /// Providers that take requests.
    pub providers: u64,
    /// Requests they take at once.
    pub capacity: u64,
    /// Requests they have.
    pub in_flight: u64,
    /// Requests that wait for them.
    pub queued: u64,
    /// Body bytes of those.
    pub queued_bytes: u64,
    /// Requests read.
    pub requests: u64,
    /// Of them, answered.
    pub responses: u64,
    /// Of them, ended with an ERROR.
    pub errors: u64,
    /// Body bytes read from consumers.
    #[serde(default)]
    pub request_bytes: u64,
    /// Body bytes read from providers for them.
    #[serde(default)]
    pub response_bytes: u64,
    /// From REQUEST to the end of the answer.
    pub latency: Latency,
}

/// `/producerz`: what becomes of messages forwarded to outside systems.
///
/// ```
/// use corelay::telemetry::view::Producerz;
/// let page: Producerz = serde_json::from_str(r#"{"producers":[],"silent_cores":[]}"#).unwrap();
/// assert_eq!(page, Producerz::default());
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Producerz {
    /// In the order of the configuration, those of the program itself behind them.
    pub producers: Vec<Producer>,
    /// Cores that gave no answer: what they dropped on the way to their producers (`handover`) is missing.
    pub silent_cores: Vec<u16>,
}

/// A producer, all its cores together.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Producer {
    /// Its id.
    pub id: String,
    /// The protocol: `tcp`, `http`, ...
    pub protocol: String,
    /// The target, never with a password.
    pub address: String,
    /// What *forwarded* means there: `at_most_once` or `at_least_once`.
    pub promise: String,
    /// Which half of an exchange it gets: `request`, `response` or `both`.
    pub what: String,
    /// The channels it gets messages from, as they were written; none: all.
    pub channels: Vec<String>,
    /// The largest body its target takes; none: any.
    pub max_body: Option<u64>,
    /// Whether it takes larger messages in parts.
    pub parts: bool,
    /// What happens to a message that finds no room: `drop_newest`, `drop_oldest` or `block`.
    pub when_full: String,
    /// The worst of its cores' breakers: `open`, `half_open` or `closed`.
    pub state: String,
    /// The sum of its cores; the last error of any.
    #[serde(flatten)]
    pub counts: ProducerCounts,
    /// Each core by itself.
    pub per_core: Vec<CoreProducer>,
}

/// A producer on one core: it has a connection and a queue of its own there.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CoreProducer {
    /// The core.
    pub core: u16,
    /// Its breaker: `open`, `half_open` or `closed`.
    pub state: String,
    /// What it counted.
    #[serde(flatten)]
    pub counts: ProducerCounts,
}

/// What a producer counted. `accepted = forwarded + dropped + dead_lettered + queue_messages`, where `handover` is left
/// out of `dropped`: those never came to it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ProducerCounts {
    /// Messages brought to it.
    pub accepted: u64,
    /// Messages delivered, as far as its promise goes.
    pub forwarded: u64,
    /// Body bytes delivered.
    pub forwarded_bytes: u64,
    /// Times a message was sent again.
    pub retried: u64,
    /// Messages given up and gone, by reason; `handover`: no room between the core and its producers.
    pub dropped: BTreeMap<String, u64>,
    /// Messages given up and written to the dead letter file.
    pub dead_lettered: u64,
    /// Messages waiting or being sent.
    pub queue_messages: u64,
    /// What they cost.
    pub queue_bytes: u64,
    /// What they may cost.
    pub queue_limit: u64,
    /// What went wrong last.
    pub last_error: Option<ProducerError>,
    /// From accepting a message to having delivered it.
    pub latency: Latency,
}

impl ProducerCounts {
    /// Messages dropped for any reason.
    #[must_use]
    pub fn dropped_total(&self) -> u64 {
        self.dropped.values().sum()
    }
}

/// A failure of a producer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ProducerError {
    /// In words, never with a password.
    pub text: String,
    /// How long ago.
    pub age_seconds: f64,
}

/// `/latencyz`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Latencyz {
    /// All channels together first, then each, then `other`.
    pub channels: Vec<ChannelLatency>,
    /// Cores that gave no answer: their times are missing.
    pub silent_cores: Vec<u16>,
}

/// An entry of `/latencyz`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ChannelLatency {
    /// Its id, `all` or `other`.
    pub channel: String,
    /// Its name, where the configuration has one.
    pub name: Option<String>,
    /// From REQUEST to its being staged for a provider.
    pub queue_wait: Latency,
    /// From REQUEST to RESPONSE.
    pub first_byte: Latency,
    /// From REQUEST to the end of the answer.
    pub total: Latency,
    /// Of the total: quantile and seconds, as far as the count allows.
    pub curve: Vec<(f64, f64)>,
}

/// `/healthz`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Health {
    /// `ok`, `degraded` (it serves, but something is short), `draining` or `failing`.
    pub status: String,
    /// Why it isn't `ok`.
    pub reasons: Vec<String>,
}

/// `/historyz`: what happened second by second.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Historyz {
    /// Oldest first, those after `?after=`.
    pub points: Vec<Point>,
}

/// One second of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Point {
    /// Counts up by one from each point to the next.
    pub number: u64,
    /// Its end, in milliseconds since 1970.
    pub at_ms: u64,
    /// How long it was.
    pub seconds: f64,
    /// Requests a second.
    pub requests: f64,
    /// Answers a second.
    pub responses: f64,
    /// ERRORs a second.
    pub errors: f64,
    /// Bytes read a second.
    pub received: f64,
    /// Bytes sent a second.
    pub sent: f64,
    /// Requests not ended, at its end.
    pub in_flight: u64,
    /// Connections, at its end.
    pub connections: u64,
    /// Resident memory, at its end.
    pub resident_bytes: u64,
    /// From REQUEST to the end of the answer, of the answers in it.
    pub latency: Latency,
    /// Of each core: the share of the time its thread was on a CPU; `None` where it gave no answer.
    pub load: Vec<Option<f64>>,
}
