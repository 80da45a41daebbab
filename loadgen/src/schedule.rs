//! When requests are to be sent: the intended times, which don't depend on how the answers come.

use std::fmt;
use std::str::FromStr;

use crate::size::exponential;

/// How requests of an open loop are spaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrivals {
    /// Evenly.
    Even,
    /// As a Poisson process: exponential gaps, as independent users make them.
    Poisson,
}

impl FromStr for Arrivals {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Arrivals, &'static str> {
        match text {
            "even" => Ok(Arrivals::Even),
            "poisson" => Ok(Arrivals::Poisson),
            _ => Err("expected even or poisson"),
        }
    }
}

impl fmt::Display for Arrivals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Arrivals::Even => "even",
            Arrivals::Poisson => "poisson",
        })
    }
}

/// The intended send times of one load thread, in nanoseconds from the start of the run.
///
/// Of `threads` threads, number `thread` gets every `threads`-th place of the whole schedule, so that together they
/// are evenly spaced.
///
/// ```
/// use loadgen::schedule::{Arrivals, Schedule};
/// let mut schedule = Schedule::new(1000.0, Arrivals::Even, 0, 1, 0);
/// assert_eq!(schedule.next(), 0);
/// schedule.advance();
/// assert_eq!(schedule.next(), 1_000_000); // 1,000/s: one each millisecond
/// ```
#[derive(Clone, Debug)]
pub struct Schedule {
    /// Nanoseconds between this thread's requests.
    gap: f64,
    offset: f64,
    index: u64,
    next: u64,
    /// Poisson: the exact time of the next.
    at: f64,
    random: Option<fastrand::Rng>,
}

impl Schedule {
    /// The schedule of one thread for `rate` requests a second in all.
    #[must_use]
    pub fn new(rate: f64, arrivals: Arrivals, thread: usize, threads: usize, seed: u64) -> Schedule {
        let whole = 1e9 / rate;
        let random = (arrivals == Arrivals::Poisson).then(|| fastrand::Rng::with_seed(seed ^ (thread as u64) << 32));
        let offset = if random.is_some() { 0.0 } else { whole * thread as f64 };
        let mut schedule = Schedule { gap: whole * threads as f64, offset, index: 0, next: 0, at: 0.0, random };
        match &mut schedule.random {
            None => schedule.next = offset as u64,
            Some(random) => {
                schedule.at = exponential(schedule.gap, random);
                schedule.next = schedule.at as u64;
            }
        }
        schedule
    }

    /// When the next request is to be sent.
    #[must_use]
    #[inline]
    pub fn next(&self) -> u64 {
        self.next
    }

    /// It was sent: on to the one behind it.
    #[inline]
    pub fn advance(&mut self) {
        self.index += 1;
        match &mut self.random {
            // from the index, not by adding gaps up: no error adds up over a long run
            None => self.next = (self.offset + self.gap * self.index as f64) as u64,
            Some(random) => {
                self.at += exponential(self.gap, random);
                self.next = self.at as u64;
            }
        }
    }

    /// How many of the intended times from the next one on are before `end`; those of [`Arrivals::Poisson`] by their
    /// mean.
    #[must_use]
    pub fn left_before(&self, end: u64) -> u64 {
        if self.next >= end { 0 } else { ((end - self.next) as f64 / self.gap).ceil() as u64 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(mut schedule: Schedule, n: usize) -> Vec<u64> {
        (0..n)
            .map(|_| {
                let next = schedule.next();
                schedule.advance();
                next
            })
            .collect()
    }

    #[test]
    fn even_times_are_the_multiples_of_the_gap() {
        assert_eq!(times(Schedule::new(4.0, Arrivals::Even, 0, 1, 1), 4), [0, 250_000_000, 500_000_000, 750_000_000]);
    }

    #[test]
    fn threads_interleave() {
        let a = times(Schedule::new(4.0, Arrivals::Even, 0, 2, 1), 2);
        let b = times(Schedule::new(4.0, Arrivals::Even, 1, 2, 1), 2);
        assert_eq!([a[0], b[0], a[1], b[1]], [0, 250_000_000, 500_000_000, 750_000_000]);
    }

    #[test]
    fn no_error_adds_up() {
        let mut schedule = Schedule::new(30_000.0, Arrivals::Even, 0, 1, 1);
        (0..30_000 * 3600).for_each(|_| schedule.advance());
        assert_eq!(schedule.next(), 3_600_000_000_000);
    }

    #[test]
    fn poisson_keeps_the_rate_and_the_seed() {
        let a = times(Schedule::new(1000.0, Arrivals::Poisson, 0, 1, 5), 20_000);
        assert_eq!(a, times(Schedule::new(1000.0, Arrivals::Poisson, 0, 1, 5), 20_000));
        assert_ne!(a, times(Schedule::new(1000.0, Arrivals::Poisson, 0, 1, 6), 20_000));
        assert!(a.is_sorted());
        let seconds = *a.last().unwrap() as f64 / 1e9;
        assert!((19.4..20.6).contains(&seconds), "{seconds}");
    }

    #[test]
    fn what_was_left_unsent_is_counted() {
        let mut schedule = Schedule::new(1000.0, Arrivals::Even, 0, 1, 0);
        assert_eq!(schedule.left_before(10_000_000), 10);
        (0..9).for_each(|_| schedule.advance());
        assert_eq!(schedule.left_before(10_000_000), 1);
        schedule.advance();
        assert_eq!(schedule.left_before(10_000_000), 0);
    }
}
