//! Waits between attempts that fail.

use std::time::Duration;

/// How long to wait after so many failures in a row, from 1: between half of a bound and all of it, so that those cut
/// off together don't come back together. The bound is `min` after the first failure, and doubles up to `max`. `draw` is
/// a number from 0 to 1, by chance.
///
/// ```
/// use std::time::Duration;
/// use corelay::base::backoff;
/// let (min, max) = (Duration::from_millis(100), Duration::from_secs(30));
/// assert_eq!(backoff(min, max, 1, 0.0), Duration::from_millis(50));
/// assert_eq!(backoff(min, max, 4, 1.0), Duration::from_millis(800));
/// assert_eq!(backoff(min, max, 1_000, 1.0), max);
/// ```
#[must_use]
pub fn backoff(min: Duration, max: Duration, failures: u32, draw: f64) -> Duration {
    let doubled = 1_u32.checked_shl(failures.saturating_sub(1)).and_then(|times| min.checked_mul(times));
    let bound = doubled.map_or(max, |wait| wait.min(max));
    bound.mul_f64(0.5 + draw / 2.0)
}
