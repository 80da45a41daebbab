//! RabbitMQ by AMQP 0-9-1.

use super::super::target::Target;
use super::*;
use crate::forward::InvalidTarget;
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
/// # Ok::<(), corelay::forward::InvalidTarget>(())
/// ```
#[derive(Debug)]
pub struct AmqpClient(Bridge);

impl AmqpClient {
    /// Takes the target apart; connects when the first message is sent.
    ///
    /// # Errors
    /// What is wrong with the target.
    pub fn new(target: &str) -> Result<AmqpClient, InvalidTarget> {
        let mut target = Target::new(target, &["amqp", "amqps"])?;
        let common = target.common(MAX_BODY)?;
        let mandatory = target.flag("mandatory", true)?;
        let (name, key) = match (target.text("queue"), target.text("exchange"), target.text("key")) {
            (Some(queue), None, None) => (String::new(), queue),
            (None, Some(exchange), key) if !exchange.is_empty() => (exchange, key.unwrap_or_default()),
            _ => return Err(target.wrong("expected queue=NAME, or exchange=NAME and key=KEY")),
        };
        let place = Place::Exchange { name, key, mandatory };
        place.check().map_err(|error| target.wrong(error.to_string()))?;
        target.finish()?;
        // a dead connection is noticed after two of these
        let url = format!("{}?heartbeat=10", target.server(target.scheme(), target.raw_path()));
        let connect = move || {
            let amqp = Amqp::connect(Options { url: url.clone(), timeout: common.timeout, ..Options::default() });
            Box::pin(async move { Ok(Broker::with_options(amqp.await?, options(common))) }) as _
        };
        let address = match &place {
            Place::Exchange { name, key, .. } if name.is_empty() => format!("{}?queue={key}", target.address()),
            Place::Exchange { name, key, .. } => format!("{}?exchange={name}&key={key}", target.address()),
            _ => target.address().into(),
        };
        Ok(AmqpClient(Bridge {
            protocol: "amqp",
            address,
            place,
            promise: Promise::AtLeastOnce,
            common,
            connect: Box::new(connect),
            broker: Mutex::default(),
        }))
    }
}

client!(AmqpClient);
