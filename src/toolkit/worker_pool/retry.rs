//! When to try again: [`Retry`].

use std::time::Duration;

/// How often to try again what failed, and how long to wait before: exponential backoff with jitter and a cap.
///
/// The wait before retry `n` is `base * factor^(n - 1)`, never more than `cap`, less a random part of up to `jitter`
/// of it: the cap holds whatever the dice say, and what failed together doesn't come back together.
///
/// ```
/// use std::time::Duration;
/// use corelay::toolkit::worker_pool::Retry;
/// let retry = Retry::times(5).base(Duration::from_millis(100)).cap(Duration::from_secs(1)).jitter(0.0);
/// let waits = (1..=5).map(|n| retry.wait(n, 0.0).as_millis()).collect::<Vec<_>>();
/// assert_eq!(waits, [100, 200, 400, 800, 1000]);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Retry {
    times: u32,
    base: Duration,
    factor: f64,
    cap: Duration,
    jitter: f64,
}

/// A [`Retry`] that contradicts itself.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum RetryError {
    /// The first wait is zero: a failing job would be retried in a tight loop.
    #[error("the first wait (base) is zero; expected more, or Retry::never()")]
    ZeroBase,
    /// The cap is below the first wait.
    #[error("the longest wait (cap) is {cap:?}, less than the first one (base), {base:?}")]
    CapBelowBase {
        /// As given.
        base: Duration,
        /// As given.
        cap: Duration,
    },
    /// The factor makes waits shorter, or is no number.
    #[error("the factor is {0}; expected at least 1")]
    Factor(f64),
    /// The jitter is no fraction.
    #[error("the jitter is {0}; expected 0 to 1")]
    Jitter(f64),
}

impl Retry {
    /// No retries: the first failure is final.
    #[must_use]
    pub fn never() -> Retry {
        Retry::times(0)
    }

    /// Up to `times` retries after the first attempt: 100 ms before the first, twice as long before each next, 10 s at
    /// most, the upper half of it by chance.
    #[must_use]
    pub fn times(times: u32) -> Retry {
        Retry { times, base: Duration::from_millis(100), factor: 2.0, cap: Duration::from_secs(10), jitter: 0.5 }
    }

    /// The wait before the first retry; more than zero.
    #[must_use]
    pub fn base(mut self, base: Duration) -> Retry {
        self.base = base;
        self
    }

    /// What each wait is multiplied by for the next; at least 1.
    #[must_use]
    pub fn factor(mut self, factor: f64) -> Retry {
        self.factor = factor;
        self
    }

    /// The longest wait; at least the first one.
    #[must_use]
    pub fn cap(mut self, cap: Duration) -> Retry {
        self.cap = cap;
        self
    }

    /// The part of each wait that is left to chance, 0 (none) to 1 (all of it).
    #[must_use]
    pub fn jitter(mut self, jitter: f64) -> Retry {
        self.jitter = jitter;
        self
    }

    /// How many retries follow a first attempt that failed.
    #[must_use]
    pub fn max_retries(&self) -> u32 {
        self.times
    }

    /// The wait before retry `n` (the first is 1), for a `chance` of 0 to 1.
    #[must_use]
    pub fn wait(&self, n: u32, chance: f64) -> Duration {
        let exponent = i32::try_from(n.saturating_sub(1)).unwrap_or(i32::MAX);
        let grown = self.base.as_secs_f64() * self.factor.powi(exponent);
        // what overflows is past any cap
        let bound = Duration::try_from_secs_f64(grown).map_or(self.cap, |grown| grown.min(self.cap));
        bound.mul_f64(1.0 - self.jitter * chance.clamp(0.0, 1.0))
    }

    /// The wait before retry `n`, by chance.
    pub(in crate::toolkit) fn draw(&self, n: u32) -> Duration {
        self.wait(n, fastrand::f64())
    }

    /// # Errors
    /// What is contradictory in it.
    pub(in crate::toolkit) fn validate(&self) -> Result<(), RetryError> {
        if self.times == 0 {
            return Ok(());
        }
        if self.base.is_zero() {
            return Err(RetryError::ZeroBase);
        }
        if self.cap < self.base {
            return Err(RetryError::CapBelowBase { base: self.base, cap: self.cap });
        }
        if !(self.factor >= 1.0 && self.factor.is_finite()) {
            return Err(RetryError::Factor(self.factor));
        }
        if !(0.0..=1.0).contains(&self.jitter) {
            return Err(RetryError::Jitter(self.jitter));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_contradicts_itself_is_told_apart() {
        let (short, long) = (Duration::from_millis(1), Duration::from_secs(1));
        let bad = |retry: Retry| retry.validate().unwrap_err();
        assert_eq!(bad(Retry::times(1).base(Duration::ZERO)), RetryError::ZeroBase);
        assert_eq!(bad(Retry::times(1).base(long).cap(short)), RetryError::CapBelowBase { base: long, cap: short });
        assert_eq!(bad(Retry::times(1).factor(0.5)), RetryError::Factor(0.5));
        assert!(matches!(bad(Retry::times(1).factor(f64::NAN)), RetryError::Factor(_)));
        assert_eq!(bad(Retry::times(1).jitter(1.5)), RetryError::Jitter(1.5));
        Retry::times(3).validate().unwrap();
        Retry::never().base(Duration::ZERO).validate().unwrap();
    }

    proptest! {
        #[test]
        fn no_wait_is_past_the_cap_or_below_its_share(
            n in 1_u32..100_000, base in 1_u64..10_000, more in 0_u64..100_000, factor in 1.0_f64..1e6,
            jitter in 0.0_f64..=1.0, chance in 0.0_f64..=1.0,
        ) {
            let (base, cap) = (Duration::from_millis(base), Duration::from_millis(base + more));
            let retry = Retry::times(1).base(base).cap(cap).factor(factor).jitter(jitter);
            retry.validate().unwrap();
            let wait = retry.wait(n, chance);
            prop_assert!(wait <= cap);
            prop_assert!(wait >= base.mul_f64((1.0 - jitter).max(0.0)));
        }
    }
}
