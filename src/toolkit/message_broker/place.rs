//! Where a system keeps things of its own, which no topic of this interface is.

use super::{Error, ErrorKind};

/// A place that goes by the system's own name, whoever made it and whoever reads it: for
/// [`Broker::publish_to`](super::Broker::publish_to). Each adapter knows those of its system.
///
/// ```
/// use corelay::toolkit::message_broker::Place;
/// assert!(Place::Subject { name: "orders.eu".into(), stored: true }.check().is_ok());
/// assert!(Place::Subject { name: "orders.*".into(), stored: true }.check().is_err());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Place {
    /// A subject of NATS.
    Subject {
        /// Its name, without wildcards.
        name: String,
        /// Whether a stream of JetStream has to take each message and say so. Otherwise messages are handed to the
        /// connection, and lost without a word where it breaks or nobody listens.
        stored: bool,
    },
    /// A stream of Redis, which is created if it isn't there.
    Stream {
        /// Its key.
        key: String,
        /// Entries kept, about: the oldest go first. `None`: all.
        max_len: Option<u64>,
    },
    /// An exchange of AMQP; the one with the empty name leads to the queue that `key` names.
    Exchange {
        /// Its name.
        name: String,
        /// The routing key.
        key: String,
        /// Whether it is an error if no queue takes a message.
        mandatory: bool,
    },
    /// A topic of Kafka by its whole name.
    Topic {
        /// Its name.
        name: String,
    },
}

impl Place {
    /// Whether the system would take the name.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`], saying what is expected.
    pub fn check(&self) -> Result<(), Error> {
        let wrong = |what: &str, name: &str, expected: &str| {
            Err(Error::new(ErrorKind::Invalid, format!("{what} {name:?}: expected {expected}")))
        };
        match self {
            Place::Subject { name, .. } => {
                let token = |token: &str| {
                    !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic() && !b"*>".contains(&byte))
                };
                if name.len() <= 1024 && name.split('.').all(token) {
                    return Ok(());
                }
                wrong("subject", name, "words of visible ASCII with dots between, no * and no >, at most 1024 bytes")
            }
            Place::Stream { key, max_len } => match max_len {
                _ if key.is_empty() => wrong("stream", key, "a key"),
                Some(0) => wrong("stream", key, "max_len above 0, or none"),
                _ => Ok(()),
            },
            Place::Exchange { name, key, .. } => {
                if name.len() > 255 || key.len() > 255 {
                    return wrong("exchange", name, "at most 255 bytes of name and of key");
                }
                if name.is_empty() && key.is_empty() {
                    return wrong("queue", key, "a name");
                }
                Ok(())
            }
            Place::Topic { name } => {
                let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
                if (1..=249).contains(&name.len()) && name.bytes().all(plain) && name != "." && name != ".." {
                    return Ok(());
                }
                wrong("topic", name, "1 to 249 letters, digits, dots, underscores and dashes")
            }
        }
    }
}

/// How far a batch came.
#[derive(Clone, Debug)]
pub struct Published {
    /// So many from the front the system has taken charge of, or, without such a promise, the connection.
    pub taken: usize,
    /// So many had left this process when it ended: those from `taken` on may or may not have been taken.
    pub begun: usize,
    /// What happened to the one after those taken. `None`: all were.
    pub error: Option<Error>,
}

impl Published {
    /// All of so many.
    #[must_use]
    pub fn all(taken: usize) -> Published {
        Published { taken, begun: taken, error: None }
    }

    /// So many were taken, so many had left, and then this.
    #[must_use]
    pub fn up_to(taken: usize, begun: usize, error: Error) -> Published {
        Published { taken, begun, error: Some(error) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_no_system_takes() {
        let subject = |name: &str| Place::Subject { name: name.into(), stored: false };
        let stream = |key: &str, max_len| Place::Stream { key: key.into(), max_len };
        let exchange = |name: &str, key: &str| Place::Exchange { name: name.into(), key: key.into(), mandatory: true };
        let topic = |name: &str| Place::Topic { name: name.into() };
        let long = "x".repeat(256);
        let good = [subject("a.b-c.$d"), stream("a:b c", Some(1)), exchange("", "q"), exchange("e", ""), topic("a.b")];
        for place in good {
            assert!(place.check().is_ok(), "{place:?}");
        }
        let bad = [
            subject(""),
            subject("a..b"),
            subject("a.*"),
            subject("a.>"),
            subject("a b"),
            subject("a\r\nPUB b"),
            stream("", None),
            stream("a", Some(0)),
            exchange("", ""),
            exchange(&long, "q"),
            exchange("", &long),
            topic(""),
            topic(".."),
            topic("a/b"),
            topic(&long),
        ];
        for place in bad {
            assert_eq!(place.check().unwrap_err().kind(), ErrorKind::Invalid, "{place:?}");
        }
    }
}
