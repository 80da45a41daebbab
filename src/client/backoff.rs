//! How long to wait between attempts to connect.

use std::time::Duration;

/// Doubling waits with jitter, so that clients cut off together don't come back together.
#[derive(Debug)]
pub(super) struct Backoff {
    min: Duration,
    max: Duration,
    next: Duration,
    rng: fastrand::Rng,
}

impl Backoff {
    pub(super) fn new(min: Duration, max: Duration, rng: fastrand::Rng) -> Backoff {
        Backoff { min, max: max.max(min), next: min, rng }
    }

    /// The next wait: between half the current bound and the bound, which then doubles.
    pub(super) fn next(&mut self) -> Duration {
        let bound = self.next;
        self.next = (bound * 2).min(self.max);
        bound.mul_f64(0.5 + self.rng.f64() / 2.0)
    }

    /// The longest wait: between half the upper bound and the bound.
    pub(super) fn longest(&mut self) -> Duration {
        self.next = self.max;
        self.next()
    }

    /// A connection has proved good: waits are short again.
    pub(super) fn reset(&mut self) {
        self.next = self.min;
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
