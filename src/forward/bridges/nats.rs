//! NATS.

use super::super::target::Target;
use super::*;
use crate::forward::InvalidTarget;
use crate::toolkit::message_broker::nats::{Nats, Options};

/// A server's `max_payload` is 1 MiB where nothing else is configured, headers included.
const MAX_BODY: usize = (1 << 20) - (64 << 10);

/// Publishes to a subject of NATS: `nats://user:password@host:4222/subject`, `nats+tls://` for TLS. For
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
/// # Ok::<(), corelay::forward::InvalidTarget>(())
/// ```
#[derive(Debug)]
pub struct NatsClient(Bridge);

impl NatsClient {
    /// Takes the target apart; connects when the first message is sent.
    ///
    /// # Errors
    /// What is wrong with the target.
    pub fn new(target: &str) -> Result<NatsClient, InvalidTarget> {
        let mut target = Target::new(target, &["nats", "nats+tls"])?;
        let common = target.common(MAX_BODY)?;
        let stored = target.flag("jetstream", false)?;
        let place = Place::Subject { name: target.path()?, stored };
        place.check().map_err(|error| target.wrong(error.to_string()))?;
        target.finish()?;
        let scheme = if target.scheme() == "nats" { "nats" } else { "tls" };
        let url = target.server(scheme, "");
        let connect = move || {
            let nats = Nats::connect(Options { url: url.clone(), timeout: common.timeout, ..Options::default() });
            Box::pin(async move { Ok(Broker::with_options(nats.await?, options(common))) }) as _
        };
        Ok(NatsClient(Bridge {
            protocol: "nats",
            address: target.address().into(),
            place,
            promise: if stored { Promise::AtLeastOnce } else { Promise::AtMostOnce },
            common,
            connect: Box::new(connect),
            broker: Mutex::default(),
        }))
    }
}

client!(NatsClient);
