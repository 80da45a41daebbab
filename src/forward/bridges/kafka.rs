//! Kafka.

use super::*;
use crate::forward::url::host_port;
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
/// # Ok::<(), corelay::forward::UrlError>(())
/// ```
#[derive(Debug)]
pub struct KafkaClient(Bridge);

impl KafkaClient {
    pub(in crate::forward) fn from_url(mut url: Url) -> Result<KafkaClient, UrlError> {
        let common = url.common(MAX_BODY)?;
        let place = Place::Topic { name: url.name() };
        let (host, port) = url.place(Some(9092))?;
        let mut brokers = host_port(&host, port);
        if let Some(others) = url.text("brokers") {
            brokers = format!("{brokers},{others}");
        }
        let mechanism = url.text("mechanism").unwrap_or_else(|| "PLAIN".into());
        let password = url.password.clone().unwrap_or_default();
        let login = url.user.clone().map(|user| Login { user, password, mechanism });
        let tls = url.scheme == "kafka+tls";
        let options = Options { brokers, timeout: common.timeout, tls, login, ..Options::default() };
        options.check().map_err(|error| url.refused(error))?;
        Bridge::new("kafka", url, place, common, move || Kafka::connect(options.clone())).map(KafkaClient)
    }
}

client!(KafkaClient, ["kafka", "kafka+tls"]);
