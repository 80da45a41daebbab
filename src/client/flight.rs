//! Counting requests while they are in flight, at two additions a request.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{Error, Metrics};

/// One client's figures, which all its connections share.
#[derive(Debug)]
pub(super) struct Counts {
    pub(super) metrics: Metrics,
    meter: Arc<Meter>,
}

/// One client's requests.
#[derive(Debug, Default)]
struct Meter {
    begun: AtomicU64,
    over: AtomicU64,
}

impl Meter {
    fn in_flight(&self) -> u64 {
        // in this order, so that none is over that has not begun
        let over = self.over.load(Ordering::Acquire);
        self.begun.load(Ordering::Relaxed).saturating_sub(over)
    }
}

impl Counts {
    pub(super) fn new(metrics: Metrics) -> Arc<Counts> {
        let meter = metrics.meters.add();
        Arc::new(Counts { metrics, meter })
    }

    pub(super) fn in_flight(&self) -> usize {
        self.meter.in_flight() as usize
    }

    #[inline]
    pub(super) fn begin(&self) {
        self.meter.begun.fetch_add(1, Ordering::Relaxed);
    }

    /// To be called once for each [`Counts::begin`].
    #[inline]
    pub(super) fn end(&self) {
        self.meter.over.fetch_add(1, Ordering::Release);
    }

    pub(super) fn failed(&self, error: &Error) {
        self.metrics.count_error(error.kind);
    }
}

/// The requests of all clients that share a [`Metrics`].
#[derive(Debug, Default)]
pub(super) struct Meters(Mutex<All>);

#[derive(Debug, Default)]
struct All {
    meters: Vec<Arc<Meter>>,
    /// What clients that are gone have begun; all of it is over.
    begun_before: u64,
}

impl Meters {
    fn add(&self) -> Arc<Meter> {
        let meter = Arc::<Meter>::default();
        let mut all = self.lock();
        if all.meters.len() == all.meters.capacity() {
            all.fold();
        }
        all.meters.push(meter.clone());
        meter
    }

    fn lock(&self) -> MutexGuard<'_, All> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn begun(&self) -> u64 {
        let all = self.lock();
        all.begun_before + all.meters.iter().map(|meter| meter.begun.load(Ordering::Relaxed)).sum::<u64>()
    }

    pub(super) fn in_flight(&self) -> u64 {
        self.lock().meters.iter().map(|meter| meter.in_flight()).sum()
    }
}

impl All {
    /// Keeps of clients that are gone their sum alone, so that a program may make new ones for ever.
    fn fold(&mut self) {
        let begun_before = &mut self.begun_before;
        self.meters.retain_mut(|meter| match Arc::get_mut(meter) {
            Some(gone) => {
                *begun_before += *gone.begun.get_mut();
                false
            }
            None => true,
        });
    }
}

/// Bounds of [`Spans`]: the first is this long, each one after it twice the one before.
const FIRST: u64 = 100_000;
const BOUNDS: usize = 19;

/// A histogram of durations, 100 us to 26 s.
#[derive(Debug, Default)]
pub(super) struct Spans {
    buckets: [AtomicU64; BOUNDS + 1],
    nanos: AtomicU64,
}

impl Spans {
    pub(super) fn record(&self, spans: impl Iterator<Item = Duration>) {
        let (mut sum, mut run) = (0, (0, 0));
        // those of one turn are much alike: one addition for each run of them
        let add = |(at, n): (usize, u64)| self.buckets[at].fetch_add(n, Ordering::Relaxed);
        for span in spans {
            let nanos = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
            let at = bucket(nanos);
            if at != run.0 {
                add(std::mem::replace(&mut run, (at, 0)));
            }
            run.1 += 1;
            sum += nanos;
        }
        add(run);
        self.nanos.fetch_add(sum, Ordering::Relaxed);
    }

    /// The sum in seconds, the number, and how many are up to each bound in seconds and beyond the one before.
    pub(super) fn read(&self) -> (f64, u64, Vec<(f64, u64)>) {
        let bound = |at: usize| if at < BOUNDS { (FIRST << at) as f64 / 1e9 } else { f64::MAX };
        let buckets: Vec<(f64, u64)> =
            self.buckets.iter().enumerate().map(|(at, n)| (bound(at), n.load(Ordering::Relaxed))).collect();
        let count = buckets.iter().map(|(_, n)| n).sum();
        (self.nanos.load(Ordering::Relaxed) as f64 / 1e9, count, buckets)
    }
}

fn bucket(nanos: u64) -> usize {
    match nanos.div_ceil(FIRST) {
        0 | 1 => 0,
        firsts => ((firsts - 1).ilog2() as usize + 1).min(BOUNDS),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_that_are_gone_leave_their_sum_and_no_memory() {
        let metrics = Metrics::default();
        let lasting = Counts::new(metrics.clone());
        lasting.begin();
        for _ in 0..1_000 {
            let brief = Counts::new(metrics.clone());
            brief.begin();
            brief.end();
        }
        assert_eq!((metrics.meters.begun(), metrics.meters.in_flight()), (1_001, 1));
        assert!(metrics.meters.lock().meters.capacity() <= 8);
        lasting.end();
        assert_eq!((metrics.meters.begun(), metrics.meters.in_flight()), (1_001, 0));
    }

    #[test]
    fn a_span_is_counted_under_the_first_bound_that_holds_it() {
        let spans = Spans::default();
        let (_, _, bounds) = spans.read();
        for (at, &(bound, _)) in bounds.iter().enumerate().take(BOUNDS) {
            let nanos = (bound * 1e9).round() as u64;
            assert_eq!((bucket(nanos), bucket(nanos + 1)), (at, at + 1), "{bound}");
        }
        assert_eq!((bucket(0), bucket(u64::MAX)), (0, BOUNDS));
        spans.record([Duration::from_micros(150), Duration::from_secs(60)].into_iter());
        let (sum, count, buckets) = spans.read();
        assert_eq!((count, buckets[1].1, buckets[BOUNDS].1), (2, 1, 1));
        assert!((sum - 60.00015).abs() < 1e-9, "{sum}");
    }

    #[test]
    fn clients_that_share_metrics_are_counted_together_and_apart() {
        let metrics = Metrics::default();
        let (one, two) = (Counts::new(metrics.clone()), Counts::new(metrics.clone()));
        one.begin();
        two.begin();
        two.begin();
        two.end();
        assert_eq!((one.in_flight(), two.in_flight(), metrics.in_flight()), (1, 1, 2));
        drop((one, two));
        assert_eq!(metrics.requests(), 3);
    }
}
