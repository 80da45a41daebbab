//! What a pool counts.

use std::time::Duration;

/// Why a connection was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum CloseReason {
    /// Nobody wanted it for [`idle_timeout`](super::Options::idle_timeout).
    Idle,
    /// It reached [`max_lifetime`](super::Options::max_lifetime).
    Lifetime,
    /// [`is_broken`](super::Factory::is_broken) said so.
    Broken,
    /// A validation or reset failed or took too long.
    Invalid,
    /// More were idle than [`max_idle`](super::Options::max_idle).
    Surplus,
    /// Its user [discarded](super::Guard::discard) it.
    Discarded,
    /// Its user [detached](super::Guard::detach) it: it left the pool open.
    Detached,
    /// A caller gave up while it was validated, which leaves it in an unknown state.
    Abandoned,
    /// The pool was closed.
    Shutdown,
}

impl CloseReason {
    /// All reasons.
    pub const ALL: [CloseReason; 9] = [
        CloseReason::Idle,
        CloseReason::Lifetime,
        CloseReason::Broken,
        CloseReason::Invalid,
        CloseReason::Surplus,
        CloseReason::Discarded,
        CloseReason::Detached,
        CloseReason::Abandoned,
        CloseReason::Shutdown,
    ];

    /// The name, in lower case, as metrics show it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            CloseReason::Idle => "idle",
            CloseReason::Lifetime => "lifetime",
            CloseReason::Broken => "broken",
            CloseReason::Invalid => "invalid",
            CloseReason::Surplus => "surplus",
            CloseReason::Discarded => "discarded",
            CloseReason::Detached => "detached",
            CloseReason::Abandoned => "abandoned",
            CloseReason::Shutdown => "shutdown",
        }
    }
}

/// Connections closed, by [`CloseReason`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Closed([u64; CloseReason::ALL.len()]);

impl Closed {
    /// Closed for this reason.
    #[must_use]
    pub fn by(&self, reason: CloseReason) -> u64 {
        self.0[reason as usize]
    }

    /// Closed for any reason.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    pub(super) fn count(&mut self, reason: CloseReason) {
        self.0[reason as usize] += 1;
    }
}

/// A histogram of the time acquisitions took that were not served at once by an idle connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WaitTimes {
    buckets: [u64; WaitTimes::BUCKETS],
    count: u64,
    sum: Duration,
}

impl WaitTimes {
    /// From 100 us to 26 s by doubling, and one without bound.
    const BUCKETS: usize = 20;
    const FIRST: Duration = Duration::from_micros(100);

    fn bound(bucket: usize) -> Option<Duration> {
        (bucket < WaitTimes::BUCKETS - 1).then(|| WaitTimes::FIRST * (1_u32 << bucket))
    }

    pub(super) fn observe(&mut self, time: Duration) {
        let bounded = (0..WaitTimes::BUCKETS).find(|&n| WaitTimes::bound(n).is_none_or(|bound| time <= bound));
        self.buckets[bounded.unwrap_or(WaitTimes::BUCKETS - 1)] += 1;
        self.count += 1;
        self.sum += time;
    }

    /// Acquisitions that waited.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The sum of their times.
    #[must_use]
    pub fn total(&self) -> Duration {
        self.sum
    }

    /// The upper bound of each bucket (the last has none), and how many times fell into it.
    pub fn buckets(&self) -> impl Iterator<Item = (Option<Duration>, u64)> + '_ {
        self.buckets.iter().enumerate().map(|(n, count)| (WaitTimes::bound(n), *count))
    }

    /// An upper bound of the time that the share `q` (0 to 1) of the waits took at most; `None` without waits, or where
    /// it lies beyond the last bound, 26 s.
    #[must_use]
    pub fn quantile(&self, q: f64) -> Option<Duration> {
        let rank = (self.count as f64 * q.clamp(0.0, 1.0)).ceil().max(1.0) as u64;
        let mut seen = 0;
        let within = self.buckets().find(|(_, count)| {
            seen += count;
            seen >= rank
        });
        within.and_then(|(bound, _)| bound)
    }
}

/// One consistent snapshot of a pool: all figures are of the same instant.
///
/// `created - closed.total()` connections exist: `idle + in_use + checking`, and `closing` of those already counted as
/// closed are not gone yet. `open`, which never exceeds `max_open` together with `creating`, is the sum of all four.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// As many connections as there may be.
    pub max_open: usize,
    /// Connections there are.
    pub open: usize,
    /// Lent to users.
    pub in_use: usize,
    /// Waiting for a user.
    pub idle: usize,
    /// Being validated or reset.
    pub checking: usize,
    /// Being closed.
    pub closing: usize,
    /// Being opened, not counted in `open`.
    pub creating: usize,
    /// Acquisitions waiting at this moment.
    pub waiting: usize,
    /// Connections lent so far.
    pub acquired: u64,
    /// How long acquisitions took that were not served at once.
    pub waits: WaitTimes,
    /// Acquisitions that ran out of time.
    pub timeouts: u64,
    /// Connections opened so far.
    pub created: u64,
    /// Attempts to open one that failed.
    pub create_failures: u64,
    /// Validations made, in the background and before lending.
    pub checks: u64,
    /// Connections closed so far.
    pub closed: Closed,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_fall_into_their_buckets() {
        let mut waits = WaitTimes::default();
        for time in [50, 100, 101, 200, 100_000_000] {
            waits.observe(Duration::from_micros(time));
        }
        let filled: Vec<_> = waits.buckets().filter(|(_, count)| *count > 0).collect();
        let bound = |us| Some(Duration::from_micros(us));
        assert_eq!(filled, [(bound(100), 2), (bound(200), 2), (None, 1)]);
        assert_eq!((waits.quantile(0.4), waits.quantile(0.8), waits.quantile(1.0)), (bound(100), bound(200), None));
        assert_eq!((waits.count(), waits.total()), (5, Duration::from_micros(100_000_451)));
        assert_eq!(WaitTimes::default().quantile(0.5), None);
    }

    #[test]
    fn reasons_are_counted_apart() {
        for (n, reason) in CloseReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, n);
            let mut closed = Closed::default();
            closed.count(reason);
            assert_eq!((closed.by(reason), closed.total()), (1, 1));
        }
    }
}
