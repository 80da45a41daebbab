//! How long to wait between attempts to connect.

use std::time::Duration;

use crate::base::backoff;

/// The waits of one connection.
#[derive(Debug)]
pub(super) struct Backoff {
    min: Duration,
    max: Duration,
    failures: u32,
    rng: fastrand::Rng,
}

impl Backoff {
    pub(super) fn new(min: Duration, max: Duration, rng: fastrand::Rng) -> Backoff {
        Backoff { min, max: max.max(min), failures: 0, rng }
    }

    /// The next wait: [`backoff`].
    pub(super) fn next(&mut self) -> Duration {
        self.failures = self.failures.saturating_add(1);
        backoff(self.min, self.max, self.failures, self.rng.f64())
    }

    /// The longest wait: between half the upper bound and the bound.
    pub(super) fn longest(&mut self) -> Duration {
        self.failures = u32::MAX;
        self.next()
    }

    /// A connection has proved good: waits are short again.
    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_within_their_bounds_and_differ() {
        let (min, max) = (Duration::from_millis(50), Duration::from_secs(2));
        let mut backoff = Backoff::new(min, max, fastrand::Rng::with_seed(1));
        let mut bound = min;
        for _ in 0..12 {
            let wait = backoff.next();
            assert!(wait >= bound / 2 && wait <= bound, "{wait:?} of {bound:?}");
            bound = (bound * 2).min(max);
        }
        backoff.reset();
        assert!(backoff.next() <= min);
        let mut other = Backoff::new(min, max, fastrand::Rng::with_seed(2));
        backoff.reset();
        assert_ne!(backoff.next(), other.next());
    }
}
