//! What went wrong: a kind for programs, a text for people, the source, and whether the work may have begun.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;

use super::session::{Cause, End, Failure, Origin, Source};
use crate::protocol::{Code, Flags};

/// What kind of failure it was. Codes are those of §6 of `docs/PROTOCOL.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The timeout passed (DEADLINE).
    Deadline,
    /// Nobody serves the channel and WAIT was not set (NO_PROVIDER).
    NoProvider,
    /// The provider's connection ended before its answer did (PROVIDER_LOST).
    ProviderLost,
    /// The request was cancelled, or nobody waits for its answer any more (CANCELLED, CONSUMER_LOST).
    Cancelled,
    /// A queue or limit of the broker is full (OVERLOADED).
    Overloaded,
    /// The provider's own error, with its text (APPLICATION).
    Application,
    /// The connection could not be made, or was lost (also TIMEOUT).
    Connection,
    /// One side broke the protocol (PROTOCOL, FLOW_CONTROL, FRAME_TOO_LARGE).
    Protocol,
    /// Bad token, or not allowed on this channel in this role (UNAUTHORIZED).
    Unauthorized,
    /// The broker takes no new requests (DRAINING).
    Draining,
    /// No common protocol version (VERSION).
    Version,
    /// A fault of the broker (INTERNAL), or a code this version doesn't know.
    Internal,
    /// Too many cancels, pings or provoked errors (FLOOD).
    Flood,
    /// Reading the body to send failed; the source is the reader's error.
    Body,
    /// An address, channel, header or option that can't be used.
    InvalidInput,
    /// This client was closed or is draining.
    Closed,
}

impl ErrorKind {
    /// All kinds.
    pub const ALL: [ErrorKind; 16] = [
        ErrorKind::Deadline,
        ErrorKind::NoProvider,
        ErrorKind::ProviderLost,
        ErrorKind::Cancelled,
        ErrorKind::Overloaded,
        ErrorKind::Application,
        ErrorKind::Connection,
        ErrorKind::Protocol,
        ErrorKind::Unauthorized,
        ErrorKind::Draining,
        ErrorKind::Version,
        ErrorKind::Internal,
        ErrorKind::Flood,
        ErrorKind::Body,
        ErrorKind::InvalidInput,
        ErrorKind::Closed,
    ];

    /// Whether the same request may well succeed when sent again. Whether that is *safe* is another question: see
    /// [`Error::may_have_started`].
    ///
    /// ```
    /// use corelay::client::ErrorKind;
    /// assert!(ErrorKind::Overloaded.is_retryable());
    /// assert!(!ErrorKind::Application.is_retryable());
    /// ```
    #[must_use]
    pub const fn is_retryable(self) -> bool {
        matches!(
            self,
            ErrorKind::NoProvider
                | ErrorKind::ProviderLost
                | ErrorKind::Overloaded
                | ErrorKind::Connection
                | ErrorKind::Draining
        )
    }

    /// Whether connecting again can't help: the client gives up. One that was let in before and gets UNAUTHORIZED then goes
    /// on asking, after the longest backoff each time: the broker's rules can be changed back while it runs.
    #[must_use]
    pub const fn is_fatal(self) -> bool {
        matches!(self, ErrorKind::Unauthorized | ErrorKind::Version | ErrorKind::InvalidInput | ErrorKind::Closed)
    }

    /// The name, in lower case with underscores, as metrics and the command line show it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            ErrorKind::Deadline => "deadline",
            ErrorKind::NoProvider => "no_provider",
            ErrorKind::ProviderLost => "provider_lost",
            ErrorKind::Cancelled => "cancelled",
            ErrorKind::Overloaded => "overloaded",
            ErrorKind::Application => "application",
            ErrorKind::Connection => "connection",
            ErrorKind::Protocol => "protocol",
            ErrorKind::Unauthorized => "unauthorized",
            ErrorKind::Draining => "draining",
            ErrorKind::Version => "version",
            ErrorKind::Internal => "internal",
            ErrorKind::Flood => "flood",
            ErrorKind::Body => "body",
            ErrorKind::InvalidInput => "invalid_input",
            ErrorKind::Closed => "closed",
        }
    }

    pub(super) const fn of(code: Code) -> ErrorKind {
        match code {
            Code::NoProvider => ErrorKind::NoProvider,
            Code::Deadline => ErrorKind::Deadline,
            Code::ProviderLost => ErrorKind::ProviderLost,
            Code::Cancelled | Code::ConsumerLost => ErrorKind::Cancelled,
            Code::Overloaded => ErrorKind::Overloaded,
            Code::Application => ErrorKind::Application,
            Code::Protocol | Code::FlowControl | Code::FrameTooLarge => ErrorKind::Protocol,
            Code::Unauthorized => ErrorKind::Unauthorized,
            Code::Draining => ErrorKind::Draining,
            Code::Version => ErrorKind::Version,
            Code::Internal => ErrorKind::Internal,
            Code::Timeout => ErrorKind::Connection,
            Code::Flood => ErrorKind::Flood,
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A failure of the client or of a request.
///
/// ```no_run
/// # async fn example(consumer: corelay::client::Consumer) {
/// use std::time::Duration;
/// if let Err(error) = consumer.send("work", Duration::from_secs(1)).await {
///     let again = error.kind.is_retryable() && !error.may_have_started();
///     eprintln!("{error}; trying again is safe: {again}");
/// }
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Error {
    /// What kind of failure it was.
    pub kind: ErrorKind,
    text: Cow<'static, str>,
    started: bool,
    source: Option<Source>,
}

impl Error {
    pub(super) fn new(kind: ErrorKind, text: impl Into<Cow<'static, str>>) -> Error {
        Error { kind, text: text.into(), started: false, source: None }
    }

    pub(super) fn started(mut self, started: bool) -> Error {
        self.started = started;
        self
    }

    pub(super) fn source(mut self, source: Option<Source>) -> Error {
        self.source = source;
        self
    }

    /// Why a connection ended.
    pub(super) fn of_end(end: &End) -> Error {
        let kind = match end.origin {
            Origin::Peer(code) => Code::from_wire(code).map_or(ErrorKind::Internal, ErrorKind::of),
            Origin::Found(code) => ErrorKind::of(code),
            Origin::Lost => ErrorKind::Connection,
            Origin::Closed => ErrorKind::Closed,
        };
        Error::new(kind, end.text.clone()).source(end.source.clone())
    }

    /// The same, and at which address.
    pub(super) fn at(mut self, addr: &super::Addr) -> Error {
        self.text = Cow::Owned(format!("{addr}: {}", self.text));
        self
    }

    /// Why a request failed, on a connection that may have ended.
    pub(super) fn of_failure(failure: &Failure, end: Option<&End>) -> Error {
        let stated = failure.flags.has(Flags::STARTED);
        let kind = match failure.cause {
            Cause::Peer(code) => Code::from_wire(code).map_or(ErrorKind::Internal, ErrorKind::of),
            Cause::Local(code) => ErrorKind::of(code),
            Cause::Body => ErrorKind::Body,
            Cause::Connection => return Error::of_lost_request(end, stated),
        };
        // These come from a provider, so there was one.
        let implied = matches!(kind, ErrorKind::ProviderLost | ErrorKind::Application);
        Error::new(kind, failure.text.clone()).started(stated || implied).source(failure.source.clone())
    }

    /// A request whose connection ended: of kind Connection whoever ended it, unless the user of this side did.
    fn of_lost_request(end: Option<&End>, started: bool) -> Error {
        let Some(end) = end else {
            return Error::new(ErrorKind::Connection, "the connection ended").started(started);
        };
        let mut error = Error::of_end(end).started(started);
        if error.kind != ErrorKind::Closed {
            error.text = Cow::Owned(format!("the connection ended ({}: {})", error.kind, error.text));
            error.kind = ErrorKind::Connection;
        }
        error
    }

    /// Whether a provider may have begun to work on the request. Where it is `false`, sending it again is safe even
    /// if the work must not run twice.
    #[must_use]
    pub fn may_have_started(&self) -> bool {
        self.started
    }

    /// The text alone, without the kind: for [`ErrorKind::Application`] what the provider said.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.text.is_empty() { self.kind.fmt(f) } else { write!(f, "{}: {}", self.kind, self.text) }
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}

impl From<Error> for std::io::Error {
    fn from(error: Error) -> std::io::Error {
        use std::io::ErrorKind as Io;
        let kind = match error.kind {
            ErrorKind::Deadline => Io::TimedOut,
            ErrorKind::Connection | ErrorKind::ProviderLost => Io::ConnectionReset,
            ErrorKind::Unauthorized => Io::PermissionDenied,
            ErrorKind::InvalidInput => Io::InvalidInput,
            _ => Io::Other,
        };
        std::io::Error::new(kind, error)
    }
}
