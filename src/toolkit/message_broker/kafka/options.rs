//! How to connect: [`Options`], and what the library's clients are told of it.

use std::path::PathBuf;
use std::time::Duration;

use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::producer::FutureProducer;

use super::super::{Error, ErrorKind, name};
use super::fault::not_made;
use super::log::Quiet;

/// The largest message this side lets pass; what the brokers take, `message.max.bytes`, is theirs to say.
const LARGEST: &str = "100000000";

/// Who this is.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    /// The user.
    pub user: String,
    /// The password. Never shown.
    pub password: String,
    /// `PLAIN`; with the cargo feature `kafka-tls` also `SCRAM-SHA-256` and `SCRAM-SHA-512`.
    pub mechanism: String,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Login").field("user", &self.user).field("mechanism", &self.mechanism).finish_non_exhaustive()
    }
}

/// How to connect to Kafka.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Some of the brokers, `host:port`, separated by commas. Default `127.0.0.1:9092`.
    pub brokers: String,
    /// What the names of topics and groups begin with. Default `corelay-`.
    pub prefix: String,
    /// How long a call, and the delivery of a message, may take. Default 5 s.
    pub timeout: Duration,
    /// After this long without a sign of life, the partitions of a member go to others. Default 10 s; brokers take 6 s
    /// to 30 min.
    pub session_timeout: Duration,
    /// How many partitions a new topic has. Default `None`: as the brokers are configured.
    pub partitions: Option<u16>,
    /// Whether to use TLS.
    pub tls: bool,
    /// The CAs by which the brokers are trusted: a PEM file. Default `None`: those the system trusts.
    pub ca: Option<PathBuf>,
    /// Who this is, where the brokers ask (SASL).
    pub login: Option<Login>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            brokers: "127.0.0.1:9092".into(),
            prefix: "corelay-".into(),
            timeout: Duration::from_secs(5),
            session_timeout: Duration::from_secs(10),
            partitions: None,
            tls: false,
            ca: None,
            login: None,
        }
    }
}

impl Options {
    /// # Errors
    /// [`ErrorKind::Invalid`] for what can't be used.
    pub fn check(&self) -> Result<(), Error> {
        let invalid = |text: String| Err(Error::new(ErrorKind::Invalid, text));
        for broker in self.brokers.split(',') {
            let port = broker.trim().rsplit_once(':').filter(|(host, _)| !host.is_empty());
            if port.is_none_or(|(_, port)| port.parse::<u16>().is_err()) {
                return invalid(format!("broker {broker:?}: expected host:port"));
            }
        }
        if !self.prefix.is_empty() {
            name::check("prefix", &self.prefix)?;
        }
        if self.timeout < Duration::from_millis(10) {
            return invalid(format!("timeout is {:?}: expected at least 10 ms", self.timeout));
        }
        if self.session_timeout < Duration::from_secs(1) {
            return invalid(format!("session_timeout is {:?}: expected at least 1 s", self.session_timeout));
        }
        if let (Some(ca), false) = (&self.ca, self.tls) {
            return invalid(format!("ca is {}, but tls is off: nothing would be encrypted", ca.display()));
        }
        if self.partitions == Some(0) {
            return invalid("partitions is 0: expected more, or None".into());
        }
        Ok(())
    }

    /// What every client of the library is told.
    pub(super) fn config(&self) -> ClientConfig {
        let millis = |time: Duration| time.as_millis().to_string();
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.brokers);
        config.set("client.id", "corelay");
        config.set("socket.connection.setup.timeout.ms", millis(self.timeout.max(Duration::from_secs(1))));
        config.set("socket.keepalive.enable", "true");
        config.set("reconnect.backoff.ms", "100");
        config.set("reconnect.backoff.max.ms", "2000");
        config.set("message.max.bytes", LARGEST);
        // a topic is created when that is asked for
        config.set("allow.auto.create.topics", "false");
        config.set(
            "security.protocol",
            match (self.tls, self.login.is_some()) {
                (false, false) => "plaintext",
                (true, false) => "ssl",
                (false, true) => "sasl_plaintext",
                (true, true) => "sasl_ssl",
            },
        );
        if let Some(ca) = &self.ca {
            config.set("ssl.ca.location", ca.to_string_lossy());
        }
        if let Some(login) = &self.login {
            config.set("sasl.mechanism", &login.mechanism);
            config.set("sasl.username", &login.user);
            config.set("sasl.password", &login.password);
        }
        config.set_log_level(RDKafkaLogLevel::Warning);
        config
    }

    pub(super) fn producer(&self) -> Result<FutureProducer<Quiet>, Error> {
        let mut config = self.config();
        config.set("acks", "all").set("enable.idempotence", "true").set("linger.ms", "0");
        config.set("message.timeout.ms", self.timeout.as_millis().to_string());
        config.create_with_context(Quiet).map_err(not_made)
    }
}
