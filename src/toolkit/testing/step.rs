//! What a double does when it is called: [`Step`].

use std::time::Duration;

/// What a double does in one attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    after: Duration,
    end: End,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum End {
    Done,
    Fail(StepError),
    Panic(String),
    Hang,
}

/// A failure a test asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct StepError {
    /// As the test gave it.
    pub text: String,
    /// Whether trying again may help.
    pub retryable: bool,
}

impl Step {
    /// Succeeds.
    #[must_use]
    pub fn done() -> Step {
        Step { after: Duration::ZERO, end: End::Done }
    }

    /// Fails in a way that may be retried.
    #[must_use]
    pub fn fail(text: impl Into<String>) -> Step {
        Step { after: Duration::ZERO, end: End::Fail(StepError { text: text.into(), retryable: true }) }
    }

    /// Fails in a way no retry would help.
    #[must_use]
    pub fn fail_for_good(text: impl Into<String>) -> Step {
        Step { after: Duration::ZERO, end: End::Fail(StepError { text: text.into(), retryable: false }) }
    }

    /// Panics.
    #[must_use]
    pub fn panic(text: impl Into<String>) -> Step {
        Step { after: Duration::ZERO, end: End::Panic(text.into()) }
    }

    /// Never ends.
    #[must_use]
    pub fn hang() -> Step {
        Step { after: Duration::ZERO, end: End::Hang }
    }

    /// The same, after a time.
    #[must_use]
    pub fn after(mut self, time: Duration) -> Step {
        self.after = time;
        self
    }

    /// Does it.
    ///
    /// # Errors
    /// As the step says.
    ///
    /// # Panics
    /// If the step says so.
    pub async fn run(self) -> Result<(), StepError> {
        if !self.after.is_zero() {
            tokio::time::sleep(self.after).await;
        }
        match self.end {
            End::Done => Ok(()),
            End::Fail(error) => Err(error),
            End::Panic(text) => panic!("{text}"),
            End::Hang => std::future::pending().await,
        }
    }
}
