//! How long things took, counted in buckets of 3 %: the size of a page, and a few plain stores to record.
//!
//! ```text
//!   ns      0 ... 32 us | 33 ... 66 us | 66 ... 131 us | ...          | 4.9 h ... 9.8 h
//!           32 buckets    32 buckets     32 buckets                     32 buckets
//!           of 1.024 us   of 1.024 us    of 2.048 us                    of 17.6 min
//! ```
//!
//! Each octave has 32 buckets, as in an HDR histogram, so a bucket is at most 1/32 (3.1 %) of its value wide. Counts are
//! exact for ever: they are 32 bits wide, and what wraps is written down.

use std::time::Duration;

/// Buckets of an octave: 2^5, which makes them at most 3.1 % wide.
const PER_OCTAVE: usize = 1 << SUB_BITS;
const SUB_BITS: u32 = 5;
/// The unit: 2^10 ns. Times are taken once a turn, and few turns are shorter.
const UNIT_BITS: u32 = 10;
/// Linear buckets, and 30 octaves above them: up to 2^(10 + 5 + 30) ns, 9.8 h. No request takes longer than
/// `max_timeout`, 1 h by default; longer ones are counted in the last bucket.
const OCTAVES: usize = 30;
/// Buckets in all.
pub const BUCKETS: usize = PER_OCTAVE * (OCTAVES + 1);

/// Counts of durations by their length. See the module's page.
///
/// ```
/// use std::time::Duration;
/// use corelay::base::Histogram;
/// let mut histogram = Histogram::new();
/// histogram.record(250_000); // nanoseconds
/// let (upper, count) = histogram.iter().next().unwrap();
/// assert_eq!(count, 1);
/// // counted by the bucket's upper end, at most 3.1 % above the value
/// assert!(upper >= Duration::from_micros(250) && upper < Duration::from_micros(258));
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Histogram {
    counts: [u32; BUCKETS],
    /// Sum of all durations, in nanoseconds; 64 bits hold 584 years.
    sum: u64,
    /// The bucket of each count that wrapped: one entry in 2^32.
    wrapped: Vec<u16>,
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram::new()
    }
}

impl std::fmt::Debug for Histogram {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl Histogram {
    /// With nothing counted.
    #[must_use]
    pub const fn new() -> Histogram {
        Histogram { counts: [0; BUCKETS], sum: 0, wrapped: Vec::new() }
    }

    /// Counts a duration of so many nanoseconds ([`Time::nanos_since`](super::Time::nanos_since)): on a request's way
    /// a `Duration` would be divided and multiplied for nothing.
    #[inline(always)]
    pub fn record(&mut self, nanos: u64) {
        self.sum = self.sum.wrapping_add(nanos);
        self.count(index_of(nanos));
    }

    #[inline(always)]
    fn count(&mut self, index: usize) {
        let count = &mut self.counts[index];
        *count = count.wrapping_add(1);
        if *count == 0 {
            self.note_wrapped(index);
        }
    }

    #[cold]
    #[inline(never)]
    fn note_wrapped(&mut self, index: usize) {
        self.wrapped.push(index as u16);
    }

    /// Adds all that `other` has counted.
    pub fn add(&mut self, other: &Histogram) {
        for (index, &more) in other.counts.iter().enumerate() {
            let (sum, wraps) = self.counts[index].overflowing_add(more);
            self.counts[index] = sum;
            if wraps {
                self.note_wrapped(index);
            }
        }
        self.wrapped.extend_from_slice(&other.wrapped);
        self.sum = self.sum.wrapping_add(other.sum);
    }

    /// How many durations were counted.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.counts.iter().map(|&count| u64::from(count)).sum::<u64>() + ((self.wrapped.len() as u64) << 32)
    }

    /// Whether none was.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.wrapped.is_empty() && self.counts.iter().all(|&count| count == 0)
    }

    /// The sum of all durations, exact.
    #[must_use]
    pub fn sum(&self) -> Duration {
        Duration::from_nanos(self.sum)
    }

    /// The buckets that have counted something, shortest first: the upper end of each, and its count. A duration is
    /// counted in the first bucket whose upper end is not below it, but for those beyond the last one.
    pub fn iter(&self) -> impl Iterator<Item = (Duration, u64)> {
        self.buckets().filter(|&(_, count)| count > 0).map(|(index, count)| (upper_of(index), count))
    }

    /// Counts of all [`BUCKETS`], the empty ones included, as [`Histogram::since`] wants them.
    #[must_use]
    pub fn counts(&self) -> Vec<u64> {
        self.buckets().map(|(_, count)| count).collect()
    }

    /// What was counted since an earlier copy's [`Histogram::counts`], as [`Histogram::iter`] tells it.
    pub fn since<'a>(&'a self, earlier: &'a [u64]) -> impl Iterator<Item = (Duration, u64)> + 'a {
        let before = |index: usize| earlier.get(index).copied().unwrap_or(0);
        let later = self.buckets().map(move |(index, count)| (index, count.saturating_sub(before(index))));
        later.filter(|&(_, count)| count > 0).map(|(index, count)| (upper_of(index), count))
    }

    fn buckets(&self) -> impl Iterator<Item = (usize, u64)> + '_ {
        let wraps = |index: usize| self.wrapped.iter().filter(|&&wrapped| usize::from(wrapped) == index).count();
        self.counts.iter().enumerate().map(move |(index, &count)| {
            // hardly ever is there anything to look through
            let wraps = if self.wrapped.is_empty() { 0 } else { wraps(index) as u64 };
            (index, u64::from(count) + (wraps << 32))
        })
    }
}

/// The bucket a duration is counted in.
#[inline(always)]
fn index_of(nanos: u64) -> usize {
    let units = nanos >> UNIT_BITS;
    // how far the value reaches above the linear buckets, in octaves
    let octave = (u64::BITS - (units >> SUB_BITS).leading_zeros()).saturating_sub(1);
    let index = (units >> octave) as usize + octave as usize * PER_OCTAVE;
    index.min(BUCKETS - 1)
}

/// The longest duration counted in a bucket (in the last one: of those it is meant for).
fn upper_of(index: usize) -> Duration {
    let octave = (index / PER_OCTAVE).saturating_sub(1);
    let units = (index - octave * PER_OCTAVE) as u64 + 1;
    Duration::from_nanos((units << octave << UNIT_BITS) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn buckets_join_without_gap() {
        let mut last = None;
        for index in 0..BUCKETS {
            let upper = upper_of(index).as_nanos() as u64;
            assert_eq!(index_of(upper), index, "the upper end of bucket {index}");
            if index + 1 < BUCKETS {
                assert_eq!(index_of(upper + 1), index + 1, "just above bucket {index}");
            }
            assert!(last < Some(upper));
            last = Some(upper);
        }
        assert_eq!(index_of(u64::MAX), BUCKETS - 1);
        assert!(upper_of(BUCKETS - 1) > Duration::from_secs(9 * 3600));
    }

    #[test]
    fn counts_that_wrap_stay_exact() {
        let mut histogram = Histogram::new();
        histogram.counts[7] = u32::MAX;
        let took = upper_of(7);
        histogram.record(took.as_nanos() as u64);
        histogram.record(took.as_nanos() as u64);
        assert_eq!(histogram.len(), (1 << 32) + 1);
        let mut both = histogram.clone();
        both.add(&histogram);
        assert_eq!(both.iter().collect::<Vec<_>>(), [(took, 2 * ((1 << 32) + 1))]);
        assert_eq!(histogram.since(&histogram.counts()).count(), 0);
        assert_eq!(both.since(&histogram.counts()).collect::<Vec<_>>(), [(took, (1 << 32) + 1)]);
    }

    #[test]
    fn it_takes_a_page() {
        assert!(size_of::<Histogram>() <= 4096, "{}", size_of::<Histogram>());
    }

    proptest! {
        #[test]
        fn a_bucket_is_at_most_a_32nd_of_its_values_wide(nanos in 0_u64..1 << 45, shift in 0..45_u32) {
            let nanos = nanos >> shift;
            let mut histogram = Histogram::new();
            histogram.record(nanos);
            let (upper, count) = histogram.iter().next().unwrap();
            let upper = upper.as_nanos() as u64;
            prop_assert_eq!((count, histogram.len(), histogram.sum()), (1, 1, Duration::from_nanos(nanos)));
            prop_assert!(nanos <= upper && upper - nanos <= (nanos / 32).max(1023), "{} in {}", nanos, upper);
        }
    }
}
