//! NATS.

use super::*;
use crate::toolkit::message_broker::nats::{Nats, Options};

/// A server's `max_payload` is 1 MiB where nothing else is configured, headers included.
const MAX_BODY: usize = (1 << 20) - (64 << 10);

/// Publishes to a subject of NATS: `nats://user:password@host:4222/subject`, or `token@host`; `nats+tls://` for TLS. For
/// headers and parameters see the [module](super).
///
/// - With `jetstream=true` a stream has to take each message and say so: at least once, and the stream itself drops
///   what comes twice within its duplicate window (2 min), by `Nats-Msg-Id`.
/// - Without, a message is handed to the connection: at most once. What was on its way when the connection broke is
///   lost without a word, and so is what nobody listens to.
///
/// The server is asked every 10 s whether it is still there.
///
/// ```
/// use corelay::forward::{Client, NatsClient, Promise};
/// let client = NatsClient::new("nats://me:secret@127.0.0.1:4222/orders.new?jetstream=true")?;
/// assert_eq!(client.address(), "nats://127.0.0.1:4222/orders.new");
/// assert_eq!(client.promise(), Promise::AtLeastOnce);
/// # Ok::<(), corelay::forward::UrlError>(())
/// ```
#[derive(Debug)]
pub struct NatsClient(Bridge);

impl NatsClient {
    pub(in crate::forward) fn from_url(mut url: Url) -> Result<NatsClient, UrlError> {
        let common = url.common(MAX_BODY)?;
        let stored = url.flag("jetstream", false)?;
        let place = Place::Subject { name: url.name(), stored };
        let server = url.server(if url.scheme == "nats" { "nats" } else { "tls" }, "");
        let options = Options { url: server, timeout: common.timeout, ..Options::default() };
        let mut bridge = Bridge::new("nats", url, place, common, move || Nats::connect(options.clone()))?;
        if !stored {
            bridge.promise = Promise::AtMostOnce;
        }
        Ok(NatsClient(bridge))
    }
}

client!(NatsClient, ["nats", "nats+tls"]);
