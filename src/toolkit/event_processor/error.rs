//! What can go wrong with an event, and with a handler.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::event::TypeError;
use crate::toolkit::worker_pool::RetryError;

/// Why a handler did not take an event. Any error converts into one that may be retried, by `?` too.
pub struct HandlerError {
    pub(super) retryable: bool,
    pub(super) malformed: bool,
    source: Box<dyn StdError + Send + Sync>,
}

impl HandlerError {
    /// A failure that may be retried.
    pub fn new(error: impl Into<Box<dyn StdError + Send + Sync>>) -> HandlerError {
        HandlerError { retryable: true, malformed: false, source: error.into() }
    }

    /// A failure no retry would help.
    pub fn permanent(error: impl Into<Box<dyn StdError + Send + Sync>>) -> HandlerError {
        HandlerError { retryable: false, malformed: false, source: error.into() }
    }

    /// The event makes no sense to the handler. Counted as malformed, and not retried.
    pub fn malformed(error: impl Into<Box<dyn StdError + Send + Sync>>) -> HandlerError {
        HandlerError { retryable: false, malformed: true, source: error.into() }
    }

    /// Whether trying again may help.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.retryable
    }

    /// What went wrong.
    #[must_use]
    pub fn get_ref(&self) -> &(dyn StdError + Send + Sync + 'static) {
        &*self.source
    }
}

// No `Error` itself, so that every error can convert into it.
impl<E: StdError + Send + Sync + 'static> From<E> for HandlerError {
    fn from(error: E) -> HandlerError {
        HandlerError::new(error)
    }
}

impl fmt::Display for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.malformed {
            f.write_str("malformed event: ")?;
        }
        self.source.fmt(f)
    }
}

impl fmt::Debug for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.source.fmt(f)
    }
}

/// Why a handler's last attempt failed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Cause {
    /// It said so.
    Failed(Arc<HandlerError>),
    /// It took longer than it may.
    TimedOut(Duration),
    /// It panicked, with this text.
    Panicked(String),
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cause::Failed(error) => error.fmt(f),
            Cause::TimedOut(after) => write!(f, "not done within {after:?}"),
            Cause::Panicked(text) => write!(f, "panicked: {text}"),
        }
    }
}

/// A handler that failed for good.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct HandlerFailure {
    /// Its name.
    pub handler: Arc<str>,
    /// Why its last attempt failed.
    pub cause: Cause,
    /// Attempts that were made, at least 1.
    pub attempts: u32,
}

impl fmt::Display for HandlerFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.handler, self.cause)?;
        if self.attempts > 1 { write!(f, " (after {} attempts)", self.attempts) } else { Ok(()) }
    }
}

/// An event that was not processed, or not by all its handlers.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProcessError {
    /// No event can have this type.
    #[error(transparent)]
    Type(#[from] TypeError),
    /// More data than allowed.
    #[error("the event has {len} bytes; expected at most {max}")]
    TooLarge {
        /// What it has.
        len: usize,
        /// What it may have.
        max: usize,
    },
    /// The event can't be put as JSON.
    #[error("the event can't be encoded: {0}")]
    Encode(#[from] serde_json::Error),
    /// Nobody handles this type, and that was to be an error.
    #[error("no handler for events of type {0:?}")]
    Unknown(Arc<str>),
    /// These handlers failed; the others, if any, were not disturbed by it.
    #[error("{}", join(.0))]
    Handlers(Vec<HandlerFailure>),
}

fn join(failures: &[HandlerFailure]) -> String {
    failures.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// What no processor or handler can be set up with.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// Every event would time out.
    #[error("a timeout of zero; expected more, or none")]
    ZeroTimeout,
    /// Every event would be too large.
    #[error("events of at most 0 bytes; expected at least 1")]
    ZeroMaxEvent,
    /// Unknown events go to dead letters, and nobody takes those.
    #[error("events of unknown type are to be dead letters, but there is no dead-letter hook")]
    NoDeadLetterHook,
    /// The retries contradict themselves.
    #[error("retries: {0}")]
    Retry(#[from] RetryError),
    /// A handler for a type no event can have.
    #[error(transparent)]
    Type(#[from] TypeError),
    /// A handler without a name.
    #[error("a handler's name is empty")]
    NoName,
}
