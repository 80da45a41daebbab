//! RabbitMQ by AMQP 0-9-1.

use super::*;
use crate::toolkit::message_broker::amqp::{Amqp, Options};

/// RabbitMQ's `max_message_size` since 4.0; it was 128 MiB before.
const MAX_BODY: usize = 16 << 20;

/// Publishes to RabbitMQ: `amqp://user:password@host:5672/vhost?queue=orders`, or `exchange=events&key=orders.new`;
/// `amqps://` for TLS. For headers and other parameters see the [module](super); the message's id is the property
/// `message-id`.
///
/// At least once: the server has confirmed each message, which means that the queues it goes to have stored it. A
/// message that no queue takes comes back and counts as [unavailable](SendErrorKind::Unavailable), unless
/// `mandatory=false`. Queues and exchanges are not made here.
///
/// ```
/// use corelay::forward::{AmqpClient, Client, Promise};
/// let client = AmqpClient::new("amqp://me:secret@127.0.0.1:5672/shop?exchange=events&key=orders.new")?;
/// assert_eq!(client.address(), "amqp://127.0.0.1:5672/shop?exchange=events&key=orders.new");
/// assert_eq!(client.promise(), Promise::AtLeastOnce);
/// # Ok::<(), corelay::forward::UrlError>(())
/// ```
#[derive(Debug)]
pub struct AmqpClient(Bridge);

impl AmqpClient {
    pub(in crate::forward) fn from_url(mut url: Url) -> Result<AmqpClient, UrlError> {
        let common = url.common(MAX_BODY)?;
        let mandatory = url.flag("mandatory", true)?;
        let (name, key) = match (url.text("queue"), url.text("exchange"), url.text("key")) {
            (Some(queue), None, None) => (String::new(), queue),
            (None, Some(exchange), key) if !exchange.is_empty() => (exchange, key.unwrap_or_default()),
            _ => return Err(url.refused("expected queue=NAME, or exchange=NAME and key=KEY")),
        };
        let shown = if name.is_empty() { format!("?queue={key}") } else { format!("?exchange={name}&key={key}") };
        let place = Place::Exchange { name, key, mandatory };
        // a dead connection is noticed after two of these
        let server = format!("{}?heartbeat=10", url.server(&url.scheme, url.raw_path()));
        let options = Options { url: server, timeout: common.timeout, ..Options::default() };
        let mut bridge = Bridge::new("amqp", url, place, common, move || Amqp::connect(options.clone()))?;
        bridge.address += &shown;
        Ok(AmqpClient(bridge))
    }
}

client!(AmqpClient, ["amqp", "amqps"]);
