//! Clients from URLs.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use super::clients::{self, FileClient, HttpClient, TcpClient, UdpClient, UnixClient, UnixDatagramClient};
use super::url::{Url, UrlError, scheme_of};
use super::{Client, OptionsError};

type Made = Result<Arc<dyn Client>, UrlError>;
/// A function of others, which has errors of its own.
type Registered = Arc<dyn Fn(&str) -> Result<Arc<dyn Client>, Box<dyn Error + Send + Sync>> + Send + Sync>;

/// A scheme of this crate.
struct BuiltIn {
    scheme: &'static str,
    make: Make,
}

enum Make {
    /// From the parts of its URL.
    Parsed(fn(Url) -> Made),
    /// With this cargo feature.
    #[allow(dead_code, reason = "not with all features")]
    Missing(&'static str),
}

/// Every scheme this crate knows, compiled in or not. A client of a new protocol gets its line here.
const BUILT_IN: &[BuiltIn] = &[
    BuiltIn { scheme: "tcp", make: Make::Parsed(|url| Ok(Arc::new(TcpClient::from_url(url)?))) },
    BuiltIn { scheme: "udp", make: Make::Parsed(|url| Ok(Arc::new(UdpClient::from_url(url)?))) },
    BuiltIn { scheme: "unix", make: Make::Parsed(clients::unix_from_url) },
    BuiltIn { scheme: "http", make: Make::Parsed(|url| Ok(Arc::new(HttpClient::from_url(url)?))) },
    BuiltIn { scheme: "file", make: Make::Parsed(|url| Ok(Arc::new(FileClient::from_url(url)?))) },
    BuiltIn { scheme: "https", make: HTTPS },
    BuiltIn { scheme: "tls", make: TLS },
    BuiltIn { scheme: "nats", make: NATS },
    BuiltIn { scheme: "nats+tls", make: NATS },
    BuiltIn { scheme: "redis", make: REDIS },
    BuiltIn { scheme: "rediss", make: REDIS },
    BuiltIn { scheme: "amqp", make: AMQP },
    BuiltIn { scheme: "amqps", make: AMQP },
    BuiltIn { scheme: "kafka", make: KAFKA },
    BuiltIn { scheme: "kafka+tls", make: KAFKA },
    BuiltIn { scheme: "postgres", make: POSTGRES },
    BuiltIn { scheme: "postgresql", make: POSTGRES },
];

#[cfg(feature = "https")]
const HTTPS: Make = Make::Parsed(|url| Ok(Arc::new(HttpClient::from_url(url)?)));
#[cfg(feature = "https")]
const TLS: Make = Make::Parsed(|url| Ok(Arc::new(clients::TlsClient::from_url(url)?)));
#[cfg(not(feature = "https"))]
const HTTPS: Make = Make::Missing("https");
#[cfg(not(feature = "https"))]
const TLS: Make = Make::Missing("https");

#[cfg(feature = "nats")]
const NATS: Make = Make::Parsed(|url| Ok(Arc::new(super::NatsClient::from_url(url)?)));
#[cfg(not(feature = "nats"))]
const NATS: Make = Make::Missing("nats");
#[cfg(feature = "redis")]
const REDIS: Make = Make::Parsed(|url| Ok(Arc::new(super::RedisClient::from_url(url)?)));
#[cfg(not(feature = "redis"))]
const REDIS: Make = Make::Missing("redis");
#[cfg(feature = "amqp")]
const AMQP: Make = Make::Parsed(|url| Ok(Arc::new(super::AmqpClient::from_url(url)?)));
#[cfg(not(feature = "amqp"))]
const AMQP: Make = Make::Missing("amqp");
#[cfg(feature = "kafka")]
const KAFKA: Make = Make::Parsed(|url| Ok(Arc::new(super::KafkaClient::from_url(url)?)));
#[cfg(not(feature = "kafka"))]
const KAFKA: Make = Make::Missing("kafka");
#[cfg(feature = "postgres")]
const POSTGRES: Make = Make::Parsed(|url| Ok(Arc::new(super::PostgresClient::from_url(url)?)));
#[cfg(not(feature = "postgres"))]
const POSTGRES: Make = Make::Missing("postgres");

static REGISTERED: RwLock<BTreeMap<String, Registered>> = RwLock::new(BTreeMap::new());

/// Makes clients from URLs: of the protocols of this crate, and of those that are registered.
///
/// | scheme | client | feature |
/// |---|---|---|
/// | `tcp` | [`TcpClient`] | |
/// | `tls` | `TlsClient` | `https` |
/// | `udp` | [`UdpClient`] | |
/// | `unix` | [`UnixClient`], or with `?type=datagram` [`UnixDatagramClient`] | |
/// | `http`, `https` | [`HttpClient`] | `https` for the latter |
/// | `file` | [`FileClient`] | |
/// | `nats`, `nats+tls` | `NatsClient` | `nats` |
/// | `redis`, `rediss` | `RedisClient` | `redis` |
/// | `amqp`, `amqps` | `AmqpClient` | `amqp` |
/// | `kafka`, `kafka+tls` | `KafkaClient` | `kafka`, `kafka-tls` for the latter |
/// | `postgres`, `postgresql` | `PostgresClient` | `postgres` |
///
/// The options of each are on its page. To add a protocol, implement [`Client`] and register it:
///
/// ```
/// use std::sync::{Arc, Mutex};
/// use corelay::forward::{Client, ClientFactory, Message, SendError, SendErrorKind, SendFuture};
///
/// /// Speaks a made-up protocol: `shout://NAME`.
/// struct Shout {
///     address: String,
///     said: Mutex<Vec<String>>,
/// }
///
/// impl Client for Shout {
///     fn protocol_name(&self) -> &str {
///         "shout"
///     }
///     fn address(&self) -> &str {
///         &self.address
///     }
///     fn send<'a>(&'a self, message: &'a Message) -> SendFuture<'a> {
///         Box::pin(async move {
///             let text = std::str::from_utf8(&message.body)
///                 .map_err(|error| SendError::new(SendErrorKind::Rejected, error.to_string()))?;
///             self.said.lock().unwrap().push(text.to_uppercase());
///             Ok(())
///         })
///     }
/// }
///
/// ClientFactory::register("shout", |url| {
///     let name = url.strip_prefix("shout://").filter(|name| !name.is_empty()).ok_or("expected shout://NAME")?;
///     Ok(Arc::new(Shout { address: name.to_owned(), said: Mutex::default() }))
/// })?;
///
/// let client = ClientFactory::create("shout://square")?;
/// assert_eq!((client.protocol_name(), client.address()), ("shout", "square"));
/// let error = ClientFactory::create("shout://").err().unwrap();
/// assert_eq!(error.to_string(), "shout://: expected shout://NAME");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct ClientFactory;

/// A scheme that can't be registered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RegisterError {
    /// It has a client already.
    #[error("{0}:// has a client already")]
    Taken(String),
    /// It is none.
    #[error("{0:?} is no scheme; expected lower-case letters, digits, +, - and ., a letter first")]
    Scheme(String),
}

impl ClientFactory {
    /// The client for a URL. It connects when the first message is sent, or when it's probed.
    ///
    /// # Errors
    /// What is wrong with the URL; never with its password.
    pub fn create(url: &str) -> Made {
        let scheme = scheme_of(url)?;
        if let Some(built_in) = BUILT_IN.iter().find(|built_in| built_in.scheme == scheme) {
            return match built_in.make {
                Make::Parsed(make) => make(Url::parse(url)?),
                Make::Missing(feature) => Err(UrlError::FeatureMissing { scheme, feature }),
            };
        }
        let registered = REGISTERED.read().unwrap_or_else(PoisonError::into_inner).get(&scheme).cloned();
        match registered {
            Some(make) => make(url).map_err(|source| UrlError::Client { scheme, source }),
            None => Err(UrlError::UnknownScheme { scheme, known: ClientFactory::schemes() }),
        }
    }

    /// Brings a protocol of your own under a scheme of its own, for the whole process.
    ///
    /// # Errors
    /// It is no scheme, or is taken.
    pub fn register(
        scheme: &str,
        make: impl Fn(&str) -> Result<Arc<dyn Client>, Box<dyn Error + Send + Sync>> + Send + Sync + 'static,
    ) -> Result<(), RegisterError> {
        if scheme_of(&format!("{scheme}://")).ok().as_deref() != Some(scheme) {
            return Err(RegisterError::Scheme(scheme.to_owned()));
        }
        let mut registered = REGISTERED.write().unwrap_or_else(PoisonError::into_inner);
        if BUILT_IN.iter().any(|built_in| built_in.scheme == scheme) || registered.contains_key(scheme) {
            return Err(RegisterError::Taken(scheme.to_owned()));
        }
        registered.insert(scheme.to_owned(), Arc::new(make));
        Ok(())
    }

    /// The schemes there are clients for, in this program.
    #[must_use]
    pub fn schemes() -> Vec<String> {
        let compiled = BUILT_IN.iter().filter(|built_in| !matches!(built_in.make, Make::Missing(_)));
        let mut schemes: Vec<_> = compiled.map(|built_in| built_in.scheme.to_owned()).collect();
        schemes.extend(REGISTERED.read().unwrap_or_else(PoisonError::into_inner).keys().cloned());
        schemes
    }

    /// A client for TCP to `host:port`.
    ///
    /// # Errors
    /// That is no `host:port`.
    pub fn create_tcp_client(address: &str) -> Made {
        Ok(Arc::new(TcpClient::new(address)?))
    }

    /// A client for TCP with so long for connecting, and so long without progress when sending.
    ///
    /// # Errors
    /// That is no `host:port`.
    pub fn create_tcp_client_with_timeout(address: &str, timeout: Duration) -> Made {
        Ok(Arc::new(TcpClient::new(address)?.with_timeout(timeout)))
    }

    /// A client for UDP to `host:port`.
    ///
    /// # Errors
    /// That is no `host:port`.
    pub fn create_udp_client(address: &str) -> Made {
        Ok(Arc::new(UdpClient::new(address)?))
    }

    /// A client for UDP with so long for looking up the name, and for sending.
    ///
    /// # Errors
    /// That is no `host:port`.
    pub fn create_udp_client_with_timeout(address: &str, timeout: Duration) -> Made {
        Ok(Arc::new(UdpClient::new(address)?.with_timeout(timeout)))
    }

    /// A client for a Unix stream socket.
    #[must_use]
    pub fn create_unix_client(path: impl AsRef<Path>) -> Arc<dyn Client> {
        Arc::new(UnixClient::new(path))
    }

    /// A client for a Unix stream socket with so long for connecting, and so long without progress when sending.
    #[must_use]
    pub fn create_unix_client_with_timeout(path: impl AsRef<Path>, timeout: Duration) -> Arc<dyn Client> {
        Arc::new(UnixClient::new(path).with_timeout(timeout))
    }

    /// A client for a Unix datagram socket.
    #[must_use]
    pub fn create_unix_datagram_client(path: impl AsRef<Path>) -> Arc<dyn Client> {
        Arc::new(UnixDatagramClient::new(path))
    }

    /// A client for a Unix datagram socket with so long for a full queue to have room.
    #[must_use]
    pub fn create_unix_datagram_client_with_timeout(path: impl AsRef<Path>, timeout: Duration) -> Arc<dyn Client> {
        Arc::new(UnixDatagramClient::new(path).with_timeout(timeout))
    }
}

/// Variables of the environment that name no producer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EnvError {
    /// Nothing behind `PRODUCER_`, or nothing that can be an id.
    #[error("{variable}: {source}")]
    Id {
        /// The variable's name.
        variable: String,
        /// What is wrong with the id.
        source: OptionsError,
    },
    /// It has no value.
    #[error("{0} is empty; expected a URL such as tcp://127.0.0.1:9000")]
    Empty(String),
    /// Two variables that mean the same id.
    #[error("{first} and {second} both name the producer {id:?}")]
    Twice {
        /// The id.
        id: String,
        /// One of them.
        first: String,
        /// The other.
        second: String,
    },
}

/// The producer that a variable of the environment names: what stands behind `PRODUCER_`, in lower case and with `-` for
/// `_`. `None` of a variable that begins otherwise.
///
/// ```
/// use corelay::forward::producer_id;
/// assert_eq!(producer_id("PRODUCER_CONSUMER_1").as_deref(), Some("consumer-1"));
/// assert_eq!(producer_id("HOME"), None);
/// ```
#[must_use]
pub fn producer_id(variable: &str) -> Option<String> {
    Some(variable.strip_prefix("PRODUCER_")?.to_lowercase().replace('_', "-"))
}

/// Producers named by variables of the environment ([`producer_id`]), as `(id, URL)`, sorted by id. Other variables are
/// ignored.
///
/// ```
/// use corelay::forward::producers_from_env;
/// let variables = [("HOME", "/"), ("PRODUCER_LOG_STORE", "udp://[::1]:5"), ("PRODUCER_CONSUMER1", "tcp://127.0.0.1:9000")];
/// let producers = producers_from_env(variables)?;
/// assert_eq!(producers[0], ("consumer1".to_owned(), "tcp://127.0.0.1:9000".to_owned()));
/// assert_eq!(producers[1].0, "log-store");
/// # Ok::<(), corelay::forward::EnvError>(())
/// ```
///
/// # Errors
/// A variable without an id or a value, and two for the same id. The text never holds a value.
pub fn producers_from_env<K: AsRef<str>, V: Into<String>>(
    variables: impl IntoIterator<Item = (K, V)>,
) -> Result<Vec<(String, String)>, EnvError> {
    let mut found = BTreeMap::<String, (String, String)>::new();
    for (variable, url) in variables {
        let Some(id) = producer_id(variable.as_ref()) else { continue };
        let (variable, url) = (variable.as_ref().to_owned(), url.into());
        if let Err(source) = super::options::validate_id(&id) {
            return Err(EnvError::Id { variable, source });
        }
        if url.is_empty() {
            return Err(EnvError::Empty(variable));
        }
        if let Some((first, _)) = found.get(&id) {
            return Err(EnvError::Twice { id, first: first.clone(), second: variable });
        }
        found.insert(id, (variable, url));
    }
    Ok(found.into_iter().map(|(id, (_, url))| (id, url)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(url: &str) -> String {
        ClientFactory::create(url).err().unwrap_or_else(|| panic!("{url} is fine")).to_string()
    }

    #[test]
    fn each_scheme_makes_its_client() {
        for (url, protocol, address) in [
            ("tcp://127.0.0.1:9000", "tcp", "127.0.0.1:9000"),
            ("TCP://[::1]:9000?framing=lines&envelope=json&connect_timeout=1s&send_timeout=2s", "tcp", "[::1]:9000"),
            ("udp://localhost:5?mtu=1400&envelope=json", "udp", "localhost:5"),
            ("unix:///run/a.sock?framing=raw", "unix", "/run/a.sock"),
            ("unix:///run/a.sock?type=datagram&mtu=8KiB", "unix", "/run/a.sock"),
            ("http://me:secret@h:81/p%20q?query=token%3Dsecret", "http", "http://h:81/p%20q"),
            ("file:///tmp/x.log?rotate=1MiB&keep=0&sync=always&framing=len32", "file", "/tmp/x.log"),
        ] {
            let client = ClientFactory::create(url).unwrap_or_else(|error| panic!("{url}: {error}"));
            assert_eq!((client.protocol_name(), client.address()), (protocol, address), "{url}");
        }
    }

    #[test]
    fn what_is_wrong_is_named_with_what_would_be_right() {
        for (url, why) in [
            ("gopher://x", "expected one of tcp, udp, unix, http, file"),
            ("tcp://me:secret@h:1", "the user has no use"),
            ("tcp://h:1?frameing=raw", "expected one of connect_timeout, envelope, framing, send_timeout"),
            ("udp://h:1?framing=raw", "no option \"framing\""),
            ("unix://x.sock", "three slashes"),
            ("file://", "three slashes"),
            ("file:///x?keep=-1", "0 to 1000"),
            ("http://h/?query=a%20b", "HTTP allows"),
        ] {
            let error = error(url);
            assert!(error.contains(why) && !error.contains("secret"), "{url}: {error}");
        }
        #[cfg(not(feature = "https"))]
        assert!(error("https://h/").contains("cargo feature `https`"));
    }

    #[test]
    fn a_scheme_is_registered_once() {
        let make = |_: &str| Err("not today".into());
        ClientFactory::register("x-test+a", make).unwrap();
        assert_eq!(error("x-test+a://"), "x-test+a://: not today");
        assert_eq!(ClientFactory::register("x-test+a", make), Err(RegisterError::Taken("x-test+a".into())));
        assert_eq!(ClientFactory::register("https", make), Err(RegisterError::Taken("https".into())));
        for bad in ["", "1x", "Tcp", "a b", "a/b"] {
            assert_eq!(ClientFactory::register(bad, make), Err(RegisterError::Scheme(bad.into())));
        }
        assert!(error("gopher://x").contains("x-test+a"));
    }

    #[test]
    fn the_environment_names_producers() {
        let url = "tcp://127.0.0.1:9000";
        let found = producers_from_env([("PRODUCER_CONSUMER_1", url), ("PRODUCER_CONSUMER1", url), ("PRODUCE", "")]);
        assert_eq!(found, Ok(vec![("consumer-1".into(), url.into()), ("consumer1".into(), url.into())]));
        assert!(matches!(producers_from_env([("PRODUCER_", url)]), Err(EnvError::Id { .. })));
        assert_eq!(producers_from_env([("PRODUCER_A", "")]), Err(EnvError::Empty("PRODUCER_A".into())));
        assert!(matches!(producers_from_env([("PRODUCER_A", url), ("PRODUCER_a", url)]), Err(EnvError::Twice { .. })));
    }
}
