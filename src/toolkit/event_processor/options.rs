//! How a processor is set up: [`Options`], [`HandlerOptions`].

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt};

use super::error::{Cause, ConfigError};
use super::event::RawEvent;
use crate::toolkit::worker_pool::Retry;

/// What becomes of an event nobody handles.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unknown {
    /// [`ProcessError::Unknown`](super::ProcessError::Unknown).
    #[default]
    Reject,
    /// It counts as unknown, and that is all.
    Ignore,
    /// It goes to the dead-letter hook.
    DeadLetter,
}

/// An event that was not processed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DeadLetter {
    /// The event.
    pub event: RawEvent,
    /// Why.
    pub reason: Reason,
}

/// Why an event became a dead letter.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Reason {
    /// Nobody handles its type.
    Unknown,
    /// This handler failed for good; others may have taken it.
    Failed {
        /// The handler's name.
        handler: Arc<str>,
        /// Why its last attempt failed.
        cause: Cause,
        /// Attempts that were made, at least 1.
        attempts: u32,
    },
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Unknown => f.write_str("nobody handles its type"),
            Reason::Failed { handler, cause, attempts } => write!(f, "{handler}: {cause} (attempts: {attempts})"),
        }
    }
}

/// How a handler's attempts go.
#[derive(Clone, Debug, PartialEq)]
pub struct HandlerOptions {
    pub(super) retry: Retry,
    pub(super) timeout: Option<Duration>,
}

/// Three retries ([`Retry::times`]) and 30 s for each attempt.
impl Default for HandlerOptions {
    fn default() -> HandlerOptions {
        HandlerOptions { retry: Retry::times(3), timeout: Some(Duration::from_secs(30)) }
    }
}

impl HandlerOptions {
    /// When an event the handler failed at, or took too long over, is tried again.
    #[must_use]
    pub fn retry(mut self, retry: Retry) -> HandlerOptions {
        self.retry = retry;
        self
    }

    /// How long each attempt may take. Without one, an event waits for as long as its handler takes.
    #[must_use]
    pub fn timeout(mut self, timeout: impl Into<Option<Duration>>) -> HandlerOptions {
        self.timeout = timeout.into();
        self
    }

    /// # Errors
    /// What no handler can run with.
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        if self.timeout.is_some_and(|timeout| timeout.is_zero()) {
            return Err(ConfigError::ZeroTimeout);
        }
        Ok(self.retry.validate()?)
    }
}

pub(super) type Hook = dyn Fn(DeadLetter) -> BoxFuture<'static, ()> + Send + Sync;

/// How a processor deals with events.
///
/// ```
/// use corelay::toolkit::event_processor::{EventProcessor, Options, Unknown};
/// let options = Options::default().unknown(Unknown::DeadLetter).dead_letter(|letter| async move {
///     eprintln!("{}: {}", letter.event.event_type(), letter.reason);
/// });
/// let processor = EventProcessor::new(options).unwrap();
/// # let _ = processor;
/// ```
#[derive(Clone)]
pub struct Options {
    pub(super) unknown: Unknown,
    pub(super) handler: HandlerOptions,
    pub(super) max_event: usize,
    pub(super) hook: Option<Arc<Hook>>,
}

/// Unknown types are an error, handlers run with [`HandlerOptions::default`], an event has at most 16 MiB, dead letters
/// are counted and logged.
impl Default for Options {
    fn default() -> Options {
        Options { unknown: Unknown::Reject, handler: HandlerOptions::default(), max_event: 16 << 20, hook: None }
    }
}

impl Options {
    /// What becomes of an event nobody handles.
    #[must_use]
    pub fn unknown(mut self, unknown: Unknown) -> Options {
        self.unknown = unknown;
        self
    }

    /// For handlers that are registered without options of their own.
    #[must_use]
    pub fn handler(mut self, options: HandlerOptions) -> Options {
        self.handler = options;
        self
    }

    /// Bytes of data an event may have; at least 1.
    #[must_use]
    pub fn max_event(mut self, bytes: usize) -> Options {
        self.max_event = bytes;
        self
    }

    /// Gets each event a handler has failed at for good, once a handler, and those nobody handles if
    /// [`Unknown::DeadLetter`]. It may take as long as a handler's attempt; a panic in it is contained. Both count as
    /// its failures.
    #[must_use]
    pub fn dead_letter<F, R>(mut self, hook: F) -> Options
    where
        F: Fn(DeadLetter) -> R + Send + Sync + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        self.hook = Some(Arc::new(move |letter| hook(letter).boxed()));
        self
    }

    /// # Errors
    /// What no processor can be set up with.
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        if self.max_event == 0 {
            return Err(ConfigError::ZeroMaxEvent);
        }
        if self.unknown == Unknown::DeadLetter && self.hook.is_none() {
            return Err(ConfigError::NoDeadLetterHook);
        }
        self.handler.validate()
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("unknown", &self.unknown)
            .field("handler", &self.handler)
            .field("max_event", &self.max_event)
            .field("dead_letter", &self.hook.is_some())
            .finish()
    }
}
