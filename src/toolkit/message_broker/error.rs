//! What went wrong: a kind for programs, a text for people, the source.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

/// What kind of failure it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A message, name or option that can't be used.
    Invalid,
    /// There is no such topic.
    UnknownTopic,
    /// There is such a topic already.
    TopicExists,
    /// The system can't do this: see [`Capabilities`](super::Capabilities).
    Unsupported,
    /// Larger than the system takes.
    TooLarge,
    /// A bound is reached: more is taken when something has been consumed.
    Full,
    /// The system can't be reached, or the connection was lost.
    Connection,
    /// It took too long. Whether it was done is unknown.
    Timeout,
    /// A delivery that is no longer this member's: its time was over, or its connection lost. It is delivered again.
    Expired,
    /// No such subscription or group here.
    UnknownSubscription,
    /// The system refused; trying again would be of no use.
    Refused,
    /// This handle was closed.
    Closed,
}

impl ErrorKind {
    /// Whether the same may well succeed when tried again. For a publish whose outcome is unknown that may store the
    /// message twice.
    #[must_use]
    pub const fn is_retryable(self) -> bool {
        matches!(self, ErrorKind::Full | ErrorKind::Connection | ErrorKind::Timeout)
    }

    /// The name, in lower case with underscores.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            ErrorKind::Invalid => "invalid",
            ErrorKind::UnknownTopic => "unknown_topic",
            ErrorKind::TopicExists => "topic_exists",
            ErrorKind::Unsupported => "unsupported",
            ErrorKind::TooLarge => "too_large",
            ErrorKind::Full => "full",
            ErrorKind::Connection => "connection",
            ErrorKind::Timeout => "timeout",
            ErrorKind::Expired => "expired",
            ErrorKind::UnknownSubscription => "unknown_subscription",
            ErrorKind::Refused => "refused",
            ErrorKind::Closed => "closed",
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A failure of a broker.
///
/// ```
/// use corelay::toolkit::message_broker::{ErrorKind, Message};
/// let error = Message::builder("no such name!").build().unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::Invalid);
/// assert!(error.to_string().starts_with("invalid: topic \"no such name!\""));
/// ```
#[derive(Clone, Debug)]
pub struct Error {
    kind: ErrorKind,
    text: Cow<'static, str>,
    source: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error of this kind. For adapters.
    pub fn new(kind: ErrorKind, text: impl Into<Cow<'static, str>>) -> Error {
        Error { kind, text: text.into(), source: None }
    }

    /// With what caused it.
    #[must_use]
    pub fn caused_by(mut self, source: impl std::error::Error + Send + Sync + 'static) -> Error {
        self.source = Some(Arc::new(source));
        self
    }

    /// There is no topic of that name.
    pub fn unknown_topic(topic: &str) -> Error {
        Error::new(ErrorKind::UnknownTopic, format!("there is no topic {topic:?}"))
    }

    /// There is a topic of that name already.
    pub fn topic_exists(topic: &str) -> Error {
        Error::new(ErrorKind::TopicExists, format!("there is a topic {topic:?} already"))
    }

    /// `system` can't do `what`.
    pub fn unsupported(system: &str, what: &str) -> Error {
        Error::new(ErrorKind::Unsupported, format!("{system} can't {what}"))
    }

    /// What kind of failure it was.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// As [`ErrorKind::is_retryable`].
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.kind.is_retryable()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind, self.text)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}
