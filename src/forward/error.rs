//! Why a target did not take a message.

/// What went wrong, as far as the one who decides about another attempt must know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SendErrorKind {
    /// No connection: nobody there, refused, name not found, TLS or login failed.
    Connect,
    /// The connection ended.
    Closed,
    /// It took longer than the client's timeout.
    Timeout,
    /// The target said no, and may say yes later: HTTP 503 and 429, a negative acknowledgement, a full disk.
    Unavailable,
    /// The target said no, or would, each time: HTTP 4xx, a table without the columns.
    Rejected,
    /// Larger than the target can take: a datagram beyond the limit, say.
    TooLarge,
}

impl SendErrorKind {
    /// Whether another attempt with the same message can succeed.
    #[must_use]
    pub fn is_worth_another_attempt(self) -> bool {
        !matches!(self, SendErrorKind::Rejected | SendErrorKind::TooLarge)
    }

    /// As logs and metrics spell it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            SendErrorKind::Connect => "connect",
            SendErrorKind::Closed => "closed",
            SendErrorKind::Timeout => "timeout",
            SendErrorKind::Unavailable => "unavailable",
            SendErrorKind::Rejected => "rejected",
            SendErrorKind::TooLarge => "too_large",
        }
    }
}

/// A target did not take a message, or it isn't known whether it did. The text never holds a password.
///
/// ```
/// use corelay::forward::{SendError, SendErrorKind};
/// let error = SendError::new(SendErrorKind::Closed, "connection reset by peer").in_doubt();
/// assert!(error.is_in_doubt());
/// assert_eq!(error.to_string(), "closed: connection reset by peer (it may have arrived)");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SendError {
    kind: SendErrorKind,
    text: String,
    in_doubt: bool,
    alone: bool,
}

impl SendError {
    /// The message has certainly not arrived.
    pub fn new(kind: SendErrorKind, text: impl Into<String>) -> SendError {
        SendError { kind, text: text.into(), in_doubt: false, alone: false }
    }

    /// The message, or a part of it, had left when this happened: it may have arrived. It is sent again only where
    /// the client promises [`Promise::AtLeastOnce`](super::Promise::AtLeastOnce).
    #[must_use]
    pub fn in_doubt(mut self) -> SendError {
        self.in_doubt = true;
        self
    }

    /// Nothing that stands behind this message in its batch has been sent, whatever is in doubt about this one.
    #[must_use]
    pub fn alone(mut self) -> SendError {
        self.alone = true;
        self
    }

    /// Whether what stands behind this message in its batch has certainly not been sent; so it is, too, if this one
    /// [isn't in doubt](SendError::is_in_doubt).
    #[must_use]
    pub fn is_alone(&self) -> bool {
        self.alone || !self.in_doubt
    }

    /// What went wrong.
    #[must_use]
    pub fn kind(&self) -> SendErrorKind {
        self.kind
    }

    /// Whether the message may have arrived nevertheless.
    #[must_use]
    pub fn is_in_doubt(&self) -> bool {
        self.in_doubt
    }
}

impl std::fmt::Display for SendError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let doubt = if self.in_doubt { " (it may have arrived)" } else { "" };
        write!(f, "{}: {}{doubt}", self.kind.as_str(), self.text)
    }
}

impl std::error::Error for SendError {}
