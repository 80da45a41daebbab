//! Failures in the log: the first one, then one line in ten seconds, then that it's over.

use std::time::Duration;

use tokio::time::Instant;

use super::{SendError, State};

/// Between two lines on the same trouble.
const EVERY: Duration = Duration::from_secs(10);

pub(super) struct Trouble {
    id: String,
    address: String,
    /// When it began, and when the log was last told.
    now: Option<(Instant, Instant)>,
    /// Failures since it began, and since the log was last told.
    failures: u64,
    untold: u64,
    error: Option<SendError>,
}

impl Trouble {
    pub(super) fn new(id: String, address: String) -> Trouble {
        Trouble { id, address, now: None, failures: 0, untold: 0, error: None }
    }

    /// While it lasts: what went wrong last.
    pub(super) fn error(&self) -> Option<SendError> {
        self.error.clone()
    }

    pub(super) fn met(&mut self, error: &SendError, state: State, now: Instant) {
        self.failures += 1;
        self.error = Some(error.clone());
        self.untold += 1;
        let (began, told) = self.now.unwrap_or((now, now));
        let is_first = self.now.is_none();
        let told = if is_first || now.duration_since(told) >= EVERY {
            tracing::warn!(
                producer = %self.id, target_address = %self.address, %error, failures = self.untold,
                breaker = state.as_str(), "forwarding fails"
            );
            self.untold = 0;
            now
        } else {
            told
        };
        self.now = Some((began, told));
    }

    pub(super) fn is_over(&mut self, now: Instant) {
        let Some((began, _)) = self.now.take() else { return };
        tracing::info!(
            producer = %self.id, target_address = %self.address, failures = self.failures,
            lasted = ?now.duration_since(began), "forwarding works again"
        );
        (self.failures, self.untold, self.error) = (0, 0, None);
    }
}
