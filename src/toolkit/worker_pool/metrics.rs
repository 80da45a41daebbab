//! What a pool counts: [`Metrics`].
//!
//! Each worker counts for itself, in memory no other worker writes to; whoever asks gets the sums. Only counts that
//! grow are kept. What is queued, running or waiting is the difference of two of them, so no figure can drift.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

/// Workers with series of their own: number `n` counts under `n % MAX_WORKER_SERIES`, so that a large pool doesn't
/// make a large page.
pub const MAX_WORKER_SERIES: usize = 64;

/// The bound of a histogram's first bucket; that of each next is twice as large: 10 us to 168 s.
const FIRST_BUCKET: Duration = Duration::from_micros(10);
const BUCKETS: usize = 25;

/// All counts of a pool.
#[derive(Debug)]
pub(super) struct Counts {
    /// To the queues; what workers fetch themselves isn't counted here.
    pub(super) submitted: AtomicU64,
    /// By `try_submit`, for want of room.
    pub(super) rejected: AtomicU64,
    /// Left over by a shutdown before any worker had begun them, or while they waited for their next attempt.
    pub(super) abandoned_queued: AtomicU64,
    pub(super) abandoned_waiting: AtomicU64,
    pub(super) abandoned_running: AtomicU64,
    /// There now.
    pub(super) workers: AtomicUsize,
    cells: Box<[Cell]>,
    most: usize,
}

/// One worker's counts; alone on its cache lines.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct Cell {
    /// Jobs taken for the first time, and taken again.
    pub(super) begun: AtomicU64,
    pub(super) resumed: AtomicU64,
    pub(super) processed: AtomicU64,
    pub(super) failed: AtomicU64,
    /// Put aside for another attempt.
    pub(super) retried: AtomicU64,
    pub(super) cancelled: AtomicU64,
    /// Attempts that ended so.
    pub(super) timeouts: AtomicU64,
    pub(super) panics: AtomicU64,
    /// Time in the queue, and time of each attempt.
    pub(super) waits: Latencies,
    pub(super) attempts: Latencies,
}

/// A worker's hand on its cell.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tally<'a> {
    cell: &'a Cell,
    /// No other worker counts in it, so that no locked instruction is needed.
    alone: bool,
}

impl Tally<'_> {
    pub(super) fn count(self, of: impl Fn(&Cell) -> &AtomicU64) {
        add(of(self.cell), 1, self.alone);
    }

    pub(super) fn record(self, of: impl Fn(&Cell) -> &Latencies, time: Duration) {
        of(self.cell).record_as(time, self.alone);
    }
}

fn add(to: &AtomicU64, n: u64, alone: bool) {
    if alone {
        to.store(to.load(Relaxed).wrapping_add(n), Relaxed);
    } else {
        to.fetch_add(n, Relaxed);
    }
}

#[derive(Debug, Default)]
pub(in crate::toolkit) struct Latencies {
    nanos: AtomicU64,
    /// The last one is for what is past all bounds.
    buckets: [AtomicU64; BUCKETS + 1],
}

impl Latencies {
    #[cfg(feature = "toolkit")]
    pub(in crate::toolkit) fn record(&self, time: Duration) {
        self.record_as(time, false);
    }

    fn record_as(&self, time: Duration, alone: bool) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        add(&self.nanos, nanos, alone);
        add(&self.buckets[bucket_of(nanos)], 1, alone);
    }

    /// The sum of several.
    pub(in crate::toolkit) fn sum<'a>(all: impl Iterator<Item = &'a Latencies> + Clone) -> Histogram {
        let add = |of: &dyn Fn(&Latencies) -> &AtomicU64| all.clone().map(|one| of(one).load(Relaxed)).sum();
        let counts = std::array::from_fn(|i| add(&|one| &one.buckets[i]));
        Histogram { sum: Duration::from_nanos(add(&|one| &one.nanos)), counts }
    }
}

fn bucket_of(nanos: u64) -> usize {
    let units = nanos.div_ceil(FIRST_BUCKET.as_nanos() as u64);
    // the least i with units <= 2^i
    let i = units.saturating_sub(1).checked_ilog2().map_or(0, |log| log as usize + 1);
    i.min(BUCKETS)
}

fn bound(bucket: usize) -> Duration {
    if bucket < BUCKETS { FIRST_BUCKET * (1 << bucket) } else { Duration::MAX }
}

impl Counts {
    pub(super) fn new(workers: usize) -> Counts {
        Counts {
            submitted: AtomicU64::new(0),
            rejected: AtomicU64::new(0),
            abandoned_queued: AtomicU64::new(0),
            abandoned_waiting: AtomicU64::new(0),
            abandoned_running: AtomicU64::new(0),
            workers: AtomicUsize::new(0),
            cells: (0..workers.min(MAX_WORKER_SERIES)).map(|_| Cell::default()).collect(),
            most: workers,
        }
    }

    pub(super) fn tally(&self, worker: usize) -> Tally<'_> {
        let alone = self.most <= MAX_WORKER_SERIES;
        Tally { cell: &self.cells[worker % self.cells.len()], alone }
    }

    fn sum(&self, of: impl Fn(&Cell) -> &AtomicU64) -> u64 {
        self.cells.iter().map(|cell| of(cell).load(Relaxed)).sum()
    }

    fn snapshot(&self) -> Snapshot {
        // What ends is read before what begins, so that no difference comes out below zero for work in between.
        let ended = self.sum(|cell| &cell.processed) + self.sum(|cell| &cell.failed) + self.sum(|cell| &cell.cancelled);
        let (stopped, dropped) = (self.abandoned_running.load(Relaxed), self.abandoned_queued.load(Relaxed));
        let resumed = self.sum(|cell| &cell.resumed) + self.abandoned_waiting.load(Relaxed);
        let retried = self.sum(|cell| &cell.retried);
        let begun = self.sum(|cell| &cell.begun);
        // what workers fetch themselves is submitted by being begun
        let submitted = self.submitted.load(Relaxed).max(begun + dropped);
        let waiting = retried.saturating_sub(resumed);
        Snapshot {
            submitted,
            rejected: self.rejected.load(Relaxed),
            queued: submitted.saturating_sub(begun + dropped),
            running: begun.saturating_sub(ended + stopped + self.abandoned_waiting.load(Relaxed) + waiting),
            waiting,
            processed: self.sum(|cell| &cell.processed),
            failed: self.sum(|cell| &cell.failed),
            retried,
            cancelled: self.sum(|cell| &cell.cancelled),
            timeouts: self.sum(|cell| &cell.timeouts),
            panics: self.sum(|cell| &cell.panics),
            abandoned: stopped + dropped + self.abandoned_waiting.load(Relaxed),
            active_workers: self.workers.load(Relaxed),
            workers: self.cells.iter().map(Cell::snapshot).collect(),
            queue_time: Latencies::sum(self.cells.iter().map(|cell| &cell.waits)),
            attempt_time: Latencies::sum(self.cells.iter().map(|cell| &cell.attempts)),
        }
    }
}

impl Cell {
    fn snapshot(&self) -> WorkerSnapshot {
        WorkerSnapshot {
            processed: self.processed.load(Relaxed),
            failed: self.failed.load(Relaxed),
            retried: self.retried.load(Relaxed),
        }
    }
}

/// A pool's metrics at one moment. While it works, figures may be apart by what is going on just then; of a pool that
/// is at rest, `submitted = processed + failed + cancelled + abandoned + queued + waiting`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Snapshot {
    /// Jobs accepted so far.
    pub submitted: u64,
    /// Jobs [`try_submit`](super::WorkerPool::try_submit) turned away because the queue was full.
    pub rejected: u64,
    /// Jobs that wait for a worker now.
    pub queued: u64,
    /// Jobs being worked on now.
    pub running: u64,
    /// Jobs that wait for their next attempt now.
    pub waiting: u64,
    /// Jobs done.
    pub processed: u64,
    /// Jobs that failed for good.
    pub failed: u64,
    /// Retries begun or waited for: attempts beyond each job's first.
    pub retried: u64,
    /// Jobs whose [`Ticket`](super::Ticket) was cancelled.
    pub cancelled: u64,
    /// Attempts that took too long.
    pub timeouts: u64,
    /// Attempts, and error handlers, that panicked.
    pub panics: u64,
    /// Jobs a shutdown left over.
    pub abandoned: u64,
    /// Worker tasks there now. In a pool of more than 64 they come and go.
    pub active_workers: usize,
    /// By worker; see [`MAX_WORKER_SERIES`].
    pub workers: Vec<WorkerSnapshot>,
    /// From being submitted to the first attempt.
    pub queue_time: Histogram,
    /// Of each attempt, however it ended.
    pub attempt_time: Histogram,
}

/// What one worker did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct WorkerSnapshot {
    /// Jobs done.
    pub processed: u64,
    /// Jobs that failed for good.
    pub failed: u64,
    /// Jobs put aside for another attempt.
    pub retried: u64,
}

/// Durations counted by size, in buckets of twice the size each.
#[derive(Clone, PartialEq, Eq)]
pub struct Histogram {
    sum: Duration,
    counts: [u64; BUCKETS + 1],
}

impl Histogram {
    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// All of them together.
    #[must_use]
    pub fn sum(&self) -> Duration {
        self.sum
    }

    /// An upper bound of quantile `q` (0 to 1), at most twice the true figure or 10 us; `None` where there is nothing.
    /// [`Duration::MAX`] stands for more than 167 s.
    #[must_use]
    pub fn quantile(&self, q: f64) -> Option<Duration> {
        let rank = ((self.count() as f64 * q.clamp(0.0, 1.0)).ceil() as u64).max(1);
        let mut seen = 0;
        let bucket = self.counts.iter().position(|count| {
            seen += count;
            seen >= rank
        })?;
        Some(bound(bucket))
    }

    pub(in crate::toolkit) fn encode(&self, mut metric: MetricEncoder<'_>) -> fmt::Result {
        metric.encode_histogram::<NoLabelSet>(self.sum.as_secs_f64(), self.count(), &self.buckets(), None)
    }

    /// Upper bounds in seconds, the last one infinite, each with how many are in its bucket.
    #[must_use]
    pub fn buckets(&self) -> Vec<(f64, u64)> {
        let bound_of = |i| if i < BUCKETS { bound(i).as_secs_f64() } else { f64::INFINITY };
        self.counts.iter().enumerate().map(|(i, count)| (bound_of(i), *count)).collect()
    }
}

impl fmt::Debug for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (p50, p99) = (self.quantile(0.5), self.quantile(0.99));
        f.debug_struct("Histogram").field("count", &self.count()).field("p50", &p50).field("p99", &p99).finish()
    }
}

/// What a pool counts. Cloning gives another handle to the same figures; they outlive the pool.
///
/// ```
/// # #[tokio::main] async fn main() {
/// use corelay::toolkit::worker_pool::{Options, WorkerPool, handler_fn};
/// use prometheus_client::{encoding::text::encode, registry::Registry};
/// let handler = handler_fn(|_: u32| async { Ok::<_, std::fmt::Error>(()) });
/// let pool = WorkerPool::start(Options::new(4), handler).unwrap();
/// let mut registry = Registry::default();
/// pool.metrics().register(registry.sub_registry_with_label(("pool".into(), "mail".into())));
/// let mut page = String::new();
/// encode(&mut page, &registry).unwrap();
/// assert!(page.contains(r#"worker_pool_submitted_total{pool="mail"} 0"#));
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Metrics {
    pub(super) counts: Arc<Counts>,
}

impl Metrics {
    /// All figures now.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.counts.snapshot()
    }

    /// Registers everything under `worker_pool_...`. Give a sub-registry with a label to tell several pools apart.
    pub fn register(&self, registry: &mut Registry) {
        let page = Page(self.counts.clone());
        registry.sub_registry_with_prefix("worker_pool").register_collector(Box::new(page));
    }
}

/// Sums the counts when the registry is read.
#[derive(Debug)]
struct Page(Arc<Counts>);

/// Encodes counters without labels: each with its name, its help and its value.
pub(in crate::toolkit) fn encode_counters(
    encoder: &mut DescriptorEncoder<'_>,
    counters: &[(&str, &str, u64)],
) -> fmt::Result {
    for (name, help, value) in counters {
        let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        metric.encode_counter::<NoLabelSet, u64, u64>(value, None)?;
    }
    Ok(())
}

/// A counter's name, its help, and where its value is.
pub(in crate::toolkit) type Column<T> = (&'static str, &'static str, fn(&T) -> u64);

/// Encodes a family of counters for each column: one of every row, with the row's labels.
pub(in crate::toolkit) fn encode_columns<'a, T: 'a, L: EncodeLabelSet>(
    encoder: &mut DescriptorEncoder<'_>,
    columns: &[Column<T>],
    rows: impl Iterator<Item = (L, &'a T)> + Clone,
) -> fmt::Result {
    for (name, help, value) in columns {
        let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, row) in rows.clone() {
            metric.encode_family(&labels)?.encode_counter::<NoLabelSet, u64, u64>(&value(row), None)?;
        }
    }
    Ok(())
}

impl Collector for Page {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let now = self.0.snapshot();
        let counters = [
            ("submitted", "Jobs accepted", now.submitted),
            ("rejected", "Jobs turned away because the queue was full", now.rejected),
            ("retried", "Attempts beyond each job's first", now.retried),
            ("cancelled", "Jobs cancelled by their ticket", now.cancelled),
            ("timeouts", "Attempts that took too long", now.timeouts),
            ("panics", "Attempts and error handlers that panicked", now.panics),
            ("abandoned", "Jobs left over by a shutdown", now.abandoned),
        ];
        encode_counters(&mut encoder, &counters)?;
        let gauges = [
            ("queued", "Jobs that wait for a worker", now.queued),
            ("running", "Jobs being worked on", now.running),
            ("waiting", "Jobs that wait for their next attempt", now.waiting),
            ("workers", "Worker tasks there are", now.active_workers as u64),
        ];
        for (name, help, value) in gauges {
            encoder.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&value)?;
        }
        let by_worker: [Column<WorkerSnapshot>; 2] = [
            ("processed", "Jobs done, by worker", |worker| worker.processed),
            ("failed", "Jobs that failed for good, by worker", |worker| worker.failed),
        ];
        let workers = now.workers.iter().enumerate().map(|(number, worker)| ([("worker", number)], worker));
        encode_columns(&mut encoder, &by_worker, workers)?;
        let histograms = [
            ("queue_seconds", "Time from being submitted to the first attempt", &now.queue_time),
            ("attempt_seconds", "Time of each attempt", &now.attempt_time),
        ];
        for (name, help, times) in histograms {
            times.encode(encoder.encode_descriptor(name, help, None, MetricType::Histogram)?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_in_the_bucket_whose_bound_holds_it() {
        for nanos in
            [0, 1, 9_999, 10_000, 10_001, 20_000, 20_001, 1_000_000, 167_772_160_000, 167_772_160_001, u64::MAX]
        {
            let (i, time) = (bucket_of(nanos), Duration::from_nanos(nanos));
            assert!(time <= bound(i), "{time:?} in bucket {i}");
            assert!(i == 0 || time > bound(i - 1), "{time:?} in bucket {i}");
        }
    }

    #[test]
    fn quantiles_are_upper_bounds() {
        let counts = Counts::new(1);
        for ms in 1..=100 {
            counts.tally(0).record(|cell| &cell.attempts, Duration::from_millis(ms));
        }
        let times = counts.snapshot().attempt_time;
        assert_eq!((times.count(), times.sum()), (100, Duration::from_millis(5050)));
        let p50 = times.quantile(0.5).unwrap();
        assert!(p50 >= Duration::from_millis(50) && p50 <= Duration::from_millis(100), "{p50:?}");
        assert_eq!(Counts::new(1).snapshot().attempt_time.quantile(0.5), None);
    }
}
