//! Kafka.

use super::super::target::Target;
use super::*;
use crate::forward::InvalidTarget;
use crate::toolkit::message_broker::kafka::{Kafka, Login, Options};

/// A broker's `message.max.bytes` is 1 MiB where nothing else is configured, headers included.
const MAX_BODY: usize = (1 << 20) - (64 << 10);

/// Publishes to a topic of Kafka: `kafka://host:9092/topic`, `kafka+tls://` for TLS (cargo feature `kafka-tls`).
/// `brokers=other:9092,third:9092` names more of the cluster; with a user and password in the URL, `mechanism` says how
/// they are shown: `PLAIN`, or with `kafka-tls` `SCRAM-SHA-256` and `SCRAM-SHA-512`. For headers and other parameters
/// see the [module](super); the message's id is the header `corelay-id`.
///
/// At least once: all replicas in sync have each message (`acks=all`). What the library repeats by itself is stored
/// once; what is sent again after an error may be stored twice. All parts of a message, which share a request id, are
/// in no partition in particular: give the topic one partition where their order matters.
///
/// ```
/// use corelay::forward::{Client, KafkaClient, Promise};
/// let client = KafkaClient::new("kafka://127.0.0.1:9092/orders?brokers=127.0.0.1:9093")?;
/// assert_eq!(client.address(), "kafka://127.0.0.1:9092/orders");
/// assert_eq!(client.promise(), Promise::AtLeastOnce);
/// # Ok::<(), corelay::forward::InvalidTarget>(())
/// ```
#[derive(Debug)]
pub struct KafkaClient(Bridge);

impl KafkaClient {
    /// Takes the target apart; connects when the first message is sent.
    ///
    /// # Errors
    /// What is wrong with the target.
    pub fn new(target: &str) -> Result<KafkaClient, InvalidTarget> {
        let mut target = Target::new(target, &["kafka", "kafka+tls"])?;
        let common = target.common(MAX_BODY)?;
        let place = Place::Topic { name: target.path()? };
        place.check().map_err(|error| target.wrong(error.to_string()))?;
        let mut brokers = target.host(9092);
        if let Some(others) = target.text("brokers") {
            brokers = format!("{brokers},{others}");
        }
        let mechanism = target.text("mechanism").unwrap_or_else(|| "PLAIN".into());
        let login = target.login()?.map(|(user, password)| Login { user, password, mechanism });
        target.finish()?;
        let tls = target.scheme() == "kafka+tls";
        let settings = Options { brokers, timeout: common.timeout, tls, login, ..Options::default() };
        settings.check().map_err(|error| target.wrong(error.to_string()))?;
        let connect = move || {
            let kafka = Kafka::connect(settings.clone());
            Box::pin(async move { Ok(Broker::with_options(kafka.await?, options(common))) }) as _
        };
        Ok(KafkaClient(Bridge {
            protocol: "kafka",
            address: target.address().into(),
            place,
            promise: Promise::AtLeastOnce,
            common,
            connect: Box::new(connect),
            broker: Mutex::default(),
        }))
    }
}

client!(KafkaClient);
