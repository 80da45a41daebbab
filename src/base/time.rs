//! Points on CLOCK_MONOTONIC, as plain nanoseconds.

use std::ops::{Add, Sub};
use std::time::Duration;

/// A point in time: nanoseconds of CLOCK_MONOTONIC (clock_gettime(2)), or of a simulated clock.
///
/// The broker core never asks for the time; it is told.
///
/// ```
/// use corelay::base::Time;
/// use std::time::Duration;
/// let start = Time::from_nanos(5);
/// let later = start + Duration::from_nanos(7);
/// assert_eq!(later - start, Duration::from_nanos(7));
/// assert_eq!(start - later, Duration::ZERO); // never negative
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(u64);

impl Time {
    /// The clock's zero.
    pub const ZERO: Time = Time(0);
    /// Later than anything: "never".
    pub const MAX: Time = Time(u64::MAX);

    /// The point `nanos` nanoseconds after the clock's zero.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Time {
        Time(nanos)
    }

    /// Nanoseconds since the clock's zero.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Whole milliseconds since the clock's zero.
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.0 / 1_000_000
    }

    /// The point so many milliseconds after this one.
    #[must_use]
    #[inline]
    pub const fn after_millis(self, ms: u32) -> Time {
        Time(self.0.saturating_add(ms as u64 * 1_000_000))
    }

    /// Nanoseconds from `earlier` to this point; 0 if it is later.
    #[must_use]
    #[inline]
    pub const fn nanos_since(self, earlier: Time) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// Milliseconds from `earlier` to this point, rounded up; 0 if it is later.
    #[must_use]
    #[inline]
    pub const fn millis_since(self, earlier: Time) -> u64 {
        self.0.saturating_sub(earlier.0).div_ceil(1_000_000)
    }
}

impl Add<Duration> for Time {
    type Output = Time;
    #[inline]
    fn add(self, by: Duration) -> Time {
        // in 64 bits: a duration's own nanoseconds are 128 bits wide, and slow
        let nanos = by.as_secs().saturating_mul(1_000_000_000).saturating_add(u64::from(by.subsec_nanos()));
        Time(self.0.saturating_add(nanos))
    }
}

impl Sub for Time {
    type Output = Duration;
    #[inline]
    fn sub(self, earlier: Time) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}
