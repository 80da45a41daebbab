//! From the cores' histograms to percentiles.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use super::view;
use crate::base::Histogram;

/// Durations of several histograms together: nanoseconds, and how many took no longer than that (but longer than the
/// entry before).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Distribution {
    buckets: BTreeMap<u64, u64>,
    sum: Duration,
}

impl Distribution {
    /// With all of one histogram.
    pub(super) fn of(histogram: &Histogram) -> Distribution {
        let mut all = Distribution::default();
        all.add(histogram);
        all
    }

    /// Adds all of a histogram.
    pub(super) fn add(&mut self, histogram: &Histogram) {
        self.count(histogram.iter());
        self.sum += histogram.sum();
    }

    /// Adds what a histogram has counted since an earlier look at it.
    pub(super) fn add_since(&mut self, histogram: &Histogram, earlier: &Earlier) {
        self.count(histogram.since(&earlier.counts));
        self.sum += histogram.sum().saturating_sub(earlier.sum);
    }

    fn count(&mut self, buckets: impl Iterator<Item = (Duration, u64)>) {
        for (upper, count) in buckets {
            *self.buckets.entry(upper.as_nanos() as u64).or_default() += count;
        }
    }

    pub(super) fn len(&self) -> u64 {
        self.buckets.values().sum()
    }

    /// What this share of all took at most; 0 if there is none.
    pub(super) fn quantile(&self, quantile: f64) -> Duration {
        let rank = ((self.len() as f64 * quantile).ceil() as u64).max(1);
        let mut seen = 0;
        let found = self.buckets.iter().find(|&(_, count)| {
            seen += count;
            seen >= rank
        });
        Duration::from_nanos(found.or(self.buckets.last_key_value()).map_or(0, |(&nanos, _)| nanos))
    }

    pub(super) fn summary(&self) -> view::Latency {
        let at = |quantile| self.quantile(quantile).as_secs_f64();
        let count = self.len();
        view::Latency {
            count,
            mean: if count == 0 { 0.0 } else { self.sum.as_secs_f64() / count as f64 },
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: at(1.0),
        }
    }

    /// Quantiles and seconds, from the median on ever closer to 1, while there is something between two of them.
    pub(super) fn curve(&self) -> Vec<(f64, f64)> {
        let count = self.len();
        if count == 0 {
            return Vec::new();
        }
        let nines = (0..6).flat_map(|n| [5.0, 7.5, 9.0].map(|part| 1.0 - (10.0 - part) / 10_f64.powi(n + 1)));
        let told = nines.filter(|quantile| (1.0 - quantile) * count as f64 >= 1.0);
        let quantiles = [0.0, 0.1, 0.25].into_iter().chain(told).chain([1.0]);
        quantiles.map(|quantile| (quantile, self.quantile(quantile).as_secs_f64())).collect()
    }

    /// Cumulative counts up to each of these bounds, in nanoseconds; the bounds are ends of buckets.
    pub(super) fn by_bounds(&self, bounds: &[u64]) -> Vec<u64> {
        let mut from = 0;
        let mut counts = Vec::with_capacity(bounds.len());
        for &bound in bounds {
            counts.push(self.buckets.range(from..bound).map(|(_, count)| count).sum());
            from = bound;
        }
        counts
    }

    pub(super) fn sum(&self) -> Duration {
        self.sum
    }

    /// Percentiles as HdrHistogram's plotter reads them, in milliseconds.
    pub(super) fn hgrm(&self) -> String {
        // three digits of what is 3 % exact: the tool expects no fewer
        let mut hdr = hdrhistogram::Histogram::<u64>::new_with_bounds(1_000, 1 << 46, 3).expect("sensible bounds");
        for (&nanos, &count) in &self.buckets {
            hdr.saturating_record_n(nanos, count);
        }
        let mut text =
            format!("{:>12} {:>14} {:>10} {:>14}\n\n", "Value", "Percentile", "TotalCount", "1/(1-Percentile)");
        let mut total = 0;
        for step in hdr.iter_quantiles(5) {
            total += step.count_since_last_iteration();
            let (value, quantile) = (step.value_iterated_to() as f64 / 1e6, step.quantile_iterated_to());
            let _ = if quantile < 1.0 {
                writeln!(text, "{value:12.3} {quantile:2.12} {total:10} {:14.2}", 1.0 / (1.0 - quantile))
            } else {
                writeln!(text, "{value:12.3} {quantile:2.12} {total:10}")
            };
        }
        let ms = |nanos: f64| nanos / 1e6;
        let _ = writeln!(text, "#[Mean    = {:12.3}, StdDeviation   = {:12.3}]", ms(hdr.mean()), ms(hdr.stdev()));
        let _ = writeln!(text, "#[Max     = {:12.3}, Total count    = {:12}]", ms(hdr.max() as f64), hdr.len());
        let sub_buckets = 2_u64 << (f64::from(hdr.sigfig()) * 10_f64.log2()).ceil() as u64;
        let _ = writeln!(text, "#[Buckets = {:12}, SubBuckets     = {sub_buckets:12}]", hdr.buckets());
        text
    }
}

/// What a histogram had counted at an earlier time.
#[derive(Clone, Debug, Default)]
pub(super) struct Earlier {
    counts: Vec<u64>,
    sum: Duration,
}

impl Earlier {
    pub(super) fn of(histogram: &Histogram) -> Earlier {
        Earlier { counts: histogram.counts(), sum: histogram.sum() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn micros(values: impl IntoIterator<Item = u64>) -> Histogram {
        let mut histogram = Histogram::new();
        values.into_iter().for_each(|micros| histogram.record(micros * 1000));
        histogram
    }

    #[test]
    fn percentiles_are_those_of_the_values() {
        let all = Distribution::of(&micros(1..=10_000));
        let summary = all.summary();
        for (told, micros) in
            [(summary.p50, 5_000.0), (summary.p90, 9_000.0), (summary.p99, 9_900.0), (summary.max, 10_000.0)]
        {
            let exact = micros * 1e-6;
            assert!((exact..exact * 1.032).contains(&told), "{told} for {exact}");
        }
        assert!((summary.mean - 5_000.5e-6).abs() < 1e-12, "{}", summary.mean);
        assert_eq!(summary.count, 10_000);
        assert_eq!(Distribution::default().summary(), view::Latency::default());
    }

    #[test]
    fn the_curve_rises_and_ends_where_there_are_no_more_values() {
        let curve = Distribution::of(&micros(1..=1_000)).curve();
        assert!(curve.is_sorted(), "{curve:?}");
        assert_eq!(curve.first().unwrap().0, 0.0);
        assert_eq!(curve.last().unwrap().0, 1.0);
        assert!(curve.iter().any(|(quantile, _)| (quantile - 0.999).abs() < 1e-9), "{curve:?}");
        assert!(!curve.iter().any(|&(quantile, _)| quantile > 0.9991 && quantile < 1.0), "{curve:?}");
    }

    #[test]
    fn only_what_came_since_is_counted() {
        let mut histogram = micros([10, 20]);
        let earlier = Earlier::of(&histogram);
        histogram.add(&micros([1_000]));
        let mut since = Distribution::default();
        since.add_since(&histogram, &earlier);
        assert_eq!((since.len(), since.sum()), (1, Duration::from_millis(1)));
        assert!(since.quantile(0.0) >= Duration::from_millis(1));
    }

    #[test]
    fn the_plotters_format_has_every_value() {
        let text = Distribution::of(&micros([100, 200, 300])).hgrm();
        assert!(text.contains("Total count    =            3"), "{text}");
        assert!(text.lines().count() > 5);
    }
}
