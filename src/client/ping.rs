//! Keeping PINGs within what a broker allows.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// The broker allows bursts of 20 and 10 a second (§7). Some are left for keepalive.
const BURST: u32 = 16;
const EVERY: Duration = Duration::from_millis(120);

/// A leaky bucket: when the bucket will be empty.
#[derive(Debug, Default)]
pub(super) struct PingPace {
    empty_at: Mutex<Option<Instant>>,
}

impl PingPace {
    /// Waits for its turn.
    pub(super) async fn turn(&self) {
        let at = self.book(Instant::now());
        sleep_until(at).await;
    }

    fn book(&self, now: Instant) -> Instant {
        let mut empty_at = self.empty_at.lock().unwrap_or_else(PoisonError::into_inner);
        let filled = empty_at.unwrap_or(now).max(now) + EVERY;
        *empty_at = Some(filled);
        filled.checked_sub(EVERY * BURST).map_or(now, |at| at.max(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_goes_at_once_and_the_rest_in_turn() {
        let (pace, now) = (PingPace::default(), Instant::now());
        for _ in 0..BURST {
            assert_eq!(pace.book(now), now);
        }
        assert_eq!(pace.book(now), now + EVERY);
        assert_eq!(pace.book(now), now + EVERY * 2);
        let later = now + EVERY * (BURST + 2);
        assert_eq!(pace.book(later), later);
    }
}
