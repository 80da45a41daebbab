//! Why there is no connection.

use std::fmt;
use std::time::Duration;

/// What an acquisition was doing when its time was up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// All connections were in use: it stood in the queue.
    Waiting,
    /// It opened a connection, or paused between two attempts to.
    Creating,
    /// It made sure that an idle connection was still alive.
    Validating,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Stage::Waiting => "waiting for one to be given back",
            Stage::Creating => "opening one",
            Stage::Validating => "validating one",
        })
    }
}

/// Why there is no connection. `E` is the [factory](super::Factory)'s error.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error<E: std::error::Error + 'static> {
    /// The acquire timeout passed.
    #[error("no connection within {after:?}: {in_use} of {max_open} in use, {waiting} waiting; time ran out {stage}")]
    Timeout {
        /// The timeout.
        after: Duration,
        /// What it was doing when time ran out.
        stage: Stage,
        /// Connections in use then.
        in_use: usize,
        /// As many as there may be.
        max_open: usize,
        /// Acquisitions waiting then, this one included.
        waiting: usize,
        /// What the last attempt to open one failed with, if any did.
        source: Option<E>,
    },
    /// Opening a connection failed, so often as was to be tried.
    #[error("could not open a connection in {attempts} attempts")]
    Create {
        /// Attempts made.
        attempts: usize,
        /// What the last one failed with.
        source: E,
    },
    /// Opening a connection took too long, the last time it was tried.
    #[error("opening a connection took longer than {limit:?} (attempt {attempts})")]
    CreateTimeout {
        /// Attempts made.
        attempts: usize,
        /// How long each may take.
        limit: Duration,
    },
    /// [`Pool::ping`](super::Pool::ping) or [`Guard::ping`](super::Guard::ping) got no good answer.
    #[error("the connection does not answer")]
    Validate {
        /// What validation failed with.
        source: E,
    },
    /// A ping took too long.
    #[error("the connection did not answer within {limit:?}")]
    ValidateTimeout {
        /// How long it may take.
        limit: Duration,
    },
    /// The pool was closed.
    #[error("the pool is closed")]
    Closed,
}

impl<E: std::error::Error + 'static> Error<E> {
    /// Whether a later attempt may well succeed: everything but [`Error::Closed`]. That an error of
    /// [`Error::Create`] is lasting is known to the factory alone: see
    /// [`Factory::is_transient`](super::Factory::is_transient).
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        !matches!(self, Error::Closed)
    }
}
