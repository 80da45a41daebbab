//! What a run measured, added up over its threads.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer, V2Serializer};

use crate::engine::{Counts, Interval, new_histogram};
use crate::proc::Usage;
use crate::run::{Line, Plan};

/// What was used while it was measured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Uses {
    /// How long that was, in nanoseconds.
    pub wall_ns: u64,
    /// CPU time of each load thread, in nanoseconds.
    pub threads_ns: Vec<u64>,
    /// How long each load thread was ready to run, but something else ran on its CPU, in nanoseconds.
    pub threads_waited_ns: Vec<u64>,
    /// The broker, before and after.
    pub broker: Option<(Usage, Usage)>,
    /// What the hypervisor took, in ticks of 10 ms.
    pub stolen_ticks: u64,
}

/// One interval of all threads.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// When it began, in seconds from the start of measuring.
    pub at: f64,
    /// How long it was, in seconds.
    pub seconds: f64,
    /// Requests answered.
    pub answered: u64,
    /// Requests that failed.
    pub errors: u64,
    /// Latencies in nanoseconds: p50, p90, p99, p99.9, max.
    pub latency: [u64; 5],
    /// The histogram, as HdrHistogram's V2. Not deflated: that takes a hundred times as long, while the run goes on.
    pub histogram: Vec<u8>,
}

/// Everything a run measured.
#[derive(Debug)]
pub struct Measured {
    /// From the intended send to the answer, in nanoseconds.
    pub latency: Histogram<u64>,
    /// From the actual send; empty in a closed loop.
    pub uncorrected: Histogram<u64>,
    /// How late sends were; empty in a closed loop.
    pub lateness: Histogram<u64>,
    /// All numbers, the drain's among them.
    pub counts: Counts,
    /// Those of the drain: answers that came after the end.
    pub drained: Counts,
    /// How long was measured, in nanoseconds.
    pub measured_ns: u64,
    /// The intervals.
    pub rows: Vec<Row>,
    /// CPU time and memory.
    pub uses: Option<Uses>,
    /// Why connections ended, the first few.
    pub complaints: Vec<String>,
    /// What came after the end: the last interval's, in the log.
    late: Histogram<u64>,
    warm: u64,
    pending: BTreeMap<u64, (Interval, usize)>,
    errors: u64,
}

impl Measured {
    /// Nothing yet.
    #[must_use]
    pub fn new(plan: &Plan) -> Measured {
        Measured {
            latency: new_histogram(),
            uncorrected: new_histogram(),
            lateness: new_histogram(),
            counts: Counts::default(),
            drained: Counts::default(),
            measured_ns: 0,
            rows: Vec::new(),
            uses: None,
            complaints: Vec::new(),
            late: new_histogram(),
            warm: plan.warmup.as_nanos() as u64,
            pending: BTreeMap::new(),
            errors: 0,
        }
    }

    /// Adds one thread's interval. When all `threads` have handed theirs in, the line to show.
    pub fn add(&mut self, interval: &Interval, threads: usize) -> Option<Line> {
        if let Some(whole) = &interval.whole {
            add(&mut self.uncorrected, &whole.uncorrected);
            add(&mut self.lateness, &whole.lateness);
        }
        if interval.measured {
            add(&mut self.latency, &interval.latency);
            self.counts.add(&interval.counts);
            if interval.drain {
                add(&mut self.late, &interval.latency);
                self.drained.add(&interval.counts);
                return None;
            }
            self.measured_ns = self.measured_ns.max(interval.to - self.warm);
        }
        if threads == 1 {
            return Some(self.row(interval));
        }
        let entry = self.pending.entry(interval.from);
        let (sum, parts) = entry.or_insert_with(|| (Interval::new(), 0));
        (sum.from, sum.to, sum.measured) = (interval.from, interval.to.max(sum.to), interval.measured);
        add(&mut sum.latency, &interval.latency);
        sum.counts.add(&interval.counts);
        *parts += 1;
        if *parts < threads {
            return None;
        }
        let (sum, _) = self.pending.remove(&interval.from)?;
        Some(self.row(&sum))
    }

    /// All threads have ended: intervals that not all of them took part in are counted, too.
    pub fn close(&mut self) {
        for (_, (sum, _)) in std::mem::take(&mut self.pending) {
            self.row(&sum);
        }
        self.add_late();
    }

    /// The intervals together hold every answer: without the slowest ones the log would flatter.
    fn add_late(&mut self) {
        let Some(row) = self.rows.last_mut().filter(|_| !self.late.is_empty()) else { return };
        let last = Deserializer::new().deserialize(&mut row.histogram.as_slice());
        let mut last: Histogram<u64> = last.expect("it was written here");
        add(&mut last, &self.late);
        row.histogram = packed(&last);
        row.latency = shown(&last);
    }

    fn row(&mut self, sum: &Interval) -> Line {
        let seconds = (sum.to - sum.from) as f64 / 1e9;
        let latency = &sum.latency;
        let errors = sum.counts.errors();
        self.errors += errors;
        if sum.measured && sum.to > sum.from {
            self.rows.push(Row {
                at: (sum.from - self.warm) as f64 / 1e9,
                seconds,
                answered: sum.counts.answered,
                errors,
                latency: shown(latency),
                histogram: packed(latency),
            });
        }
        Line {
            at: sum.to as f64 / 1e9,
            measured: sum.measured,
            rate: if seconds > 0.0 { sum.counts.answered as f64 / seconds } else { 0.0 },
            p50: latency.value_at_quantile(0.5),
            p99: latency.value_at_quantile(0.99),
            errors: self.errors,
        }
    }
}

/// What a row shows: p50, p90, p99, p99.9, max.
fn shown(latency: &Histogram<u64>) -> [u64; 5] {
    let at = |quantile| latency.value_at_quantile(quantile);
    [at(0.5), at(0.9), at(0.99), at(0.999), latency.max()]
}

fn packed(latency: &Histogram<u64>) -> Vec<u8> {
    let mut bytes = Vec::new();
    V2Serializer::new().serialize(latency, &mut bytes).expect("a vector takes all bytes");
    bytes
}

fn add(sum: &mut Histogram<u64>, part: &Histogram<u64>) {
    if !part.is_empty() {
        sum.add(part).expect("the same bounds");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_intervals_together_hold_every_answer_and_none_of_the_warm_up() {
        let mut plan = crate::run::tests::plan(Duration::from_secs(2));
        plan.warmup = Duration::from_secs(1);
        let mut measured = Measured::new(&plan);
        for (second, drain) in [(0, false), (1, false), (2, false), (3, true)] {
            let mut interval = Interval::new();
            (interval.from, interval.to) = (second * 1_000_000_000, (second + 1) * 1_000_000_000);
            (interval.measured, interval.drain) = (second > 0, drain);
            (0..=second).for_each(|n| interval.latency.record((n + 1) * 1_000_000).unwrap());
            interval.counts.answered = second + 1;
            measured.add(&interval, 1);
        }
        measured.close();
        let read = |row: &Row| -> u64 {
            let histogram: Histogram<u64> = Deserializer::new().deserialize(&mut row.histogram.as_slice()).unwrap();
            histogram.len()
        };
        assert_eq!(measured.rows.iter().map(read).collect::<Vec<_>>(), [2, 3 + 4]);
        assert_eq!((measured.latency.len(), measured.rows[1].answered), (9, 3));
        assert!(measured.rows[1].latency[4] >= 4_000_000);
    }
}
