//! Figures as Prometheus reads them: families of samples, encoded by prometheus-client.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

use super::latency::Distribution;

/// What the answer is: the OpenMetrics text that prometheus-client writes.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The names and values that tell a sample from the others of its family.
pub(super) type Labels = Vec<(&'static str, String)>;

#[derive(Debug)]
enum Value {
    Counter(u64),
    Seconds(f64),
    Gauge(f64),
    Histogram { sum: f64, count: u64, buckets: Vec<(f64, u64)> },
}

#[derive(Debug)]
struct Family {
    name: &'static str,
    help: &'static str,
    unit: Option<Unit>,
    kind: MetricType,
    samples: Vec<(Labels, Value)>,
}

/// All families of one scrape.
#[derive(Debug, Default)]
pub(super) struct Families(Vec<Family>);

/// Bounds of the buckets told to Prometheus: ends of octaves of our histograms, so that counts are exact. From 33 us
/// to 34 s.
const BOUNDS: std::ops::RangeInclusive<u32> = 15..=35;

/// How fine the times are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bounds {
    /// Each bound is twice the one before: 24 series for each set of labels.
    Twice = 1,
    /// Four times: 14 series.
    FourTimes = 2,
}

impl Families {
    fn family(&mut self, name: &'static str, help: &'static str, unit: Option<Unit>, kind: MetricType) -> &mut Family {
        // a count of things and one of their bytes may share a name: the unit makes it two
        let is_it = |family: &Family| {
            family.name == name && family.unit.as_ref().map(Unit::as_str) == unit.as_ref().map(Unit::as_str)
        };
        let at = self.0.iter().position(is_it).unwrap_or_else(|| {
            self.0.push(Family { name, help, unit, kind, samples: Vec::new() });
            self.0.len() - 1
        });
        &mut self.0[at]
    }

    /// A count; `_total` is added to its name.
    pub(super) fn counter(&mut self, name: &'static str, help: &'static str, labels: Labels, value: u64) {
        self.family(name, help, None, MetricType::Counter).samples.push((labels, Value::Counter(value)));
    }

    /// A count of bytes: `_bytes_total`.
    pub(super) fn bytes(&mut self, name: &'static str, help: &'static str, labels: Labels, value: u64) {
        self.family(name, help, Some(Unit::Bytes), MetricType::Counter).samples.push((labels, Value::Counter(value)));
    }

    /// A sum of times: `_seconds_total`.
    pub(super) fn seconds(&mut self, name: &'static str, help: &'static str, labels: Labels, value: f64) {
        self.family(name, help, Some(Unit::Seconds), MetricType::Counter).samples.push((labels, Value::Seconds(value)));
    }

    /// What goes up and down.
    pub(super) fn gauge(&mut self, name: &'static str, help: &'static str, labels: Labels, value: u64) {
        self.family(name, help, None, MetricType::Gauge).samples.push((labels, Value::Gauge(value as f64)));
    }

    /// Bytes that go up and down: `_bytes`.
    pub(super) fn gauge_bytes(&mut self, name: &'static str, help: &'static str, labels: Labels, value: u64) {
        let family = self.family(name, help, Some(Unit::Bytes), MetricType::Gauge);
        family.samples.push((labels, Value::Gauge(value as f64)));
    }

    /// Times: `_seconds`.
    pub(super) fn times(
        &mut self,
        name: &'static str,
        help: &'static str,
        labels: Labels,
        times: &Distribution,
        fine: Bounds,
    ) {
        let bounds: Vec<u64> = BOUNDS.step_by(fine as usize).map(|power| 1 << power).collect();
        let counts = times.by_bounds(&bounds);
        let (count, told) = (times.len(), counts.iter().sum::<u64>());
        let seconds = bounds.iter().map(|&nanos| nanos as f64 / 1e9);
        let buckets = seconds.zip(counts).chain([(f64::INFINITY, count - told)]).collect();
        let value = Value::Histogram { sum: times.sum().as_secs_f64(), count, buckets };
        self.family(name, help, Some(Unit::Seconds), MetricType::Histogram).samples.push((labels, value));
    }

    /// The text of the page.
    pub(super) fn encode(self) -> String {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(self));
        let mut page = String::new();
        text::encode(&mut page, &registry).expect("writing to a string");
        page
    }
}

impl Collector for Families {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for family in &self.0 {
            let unit = family.unit.as_ref();
            let mut encoder = encoder.encode_descriptor(family.name, family.help, unit, family.kind)?;
            for (labels, value) in &family.samples {
                match labels[..] {
                    [] => value.encode(&mut encoder)?,
                    _ => value.encode(&mut encoder.encode_family(labels)?)?,
                }
            }
        }
        Ok(())
    }
}

impl Value {
    fn encode(&self, encoder: &mut MetricEncoder<'_>) -> fmt::Result {
        match self {
            Value::Counter(count) => encoder.encode_counter::<Labels, _, u64>(count, None),
            Value::Seconds(seconds) => encoder.encode_counter::<Labels, _, u64>(seconds, None),
            Value::Gauge(value) => encoder.encode_gauge(value),
            Value::Histogram { sum, count, buckets } => encoder.encode_histogram::<Labels>(*sum, *count, buckets, None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Histogram;

    #[test]
    fn the_page_is_what_prometheus_reads() {
        let mut histogram = Histogram::new();
        for nanos in [0, 40_000, 40_001, 1 << 40] {
            histogram.record(nanos);
        }
        let mut families = Families::default();
        for core in ["0", "1"] {
            families.counter("corelay_requests", "Requests read.", vec![("core", core.into())], 7);
        }
        families.bytes("corelay_sent", "Bytes sent.", vec![], 1 << 40);
        families.counter("corelay_sent", "Messages sent.", vec![], 3);
        families.gauge("corelay_connections", "Connections.", vec![("role", "a \"b\"".into())], 3);
        let times = Distribution::of(&histogram);
        families.times("corelay_wait", "Waits.", vec![], &times, Bounds::Twice);
        families.times("corelay_coarse", "Waits.", vec![], &times, Bounds::FourTimes);
        let page = families.encode();
        for line in [
            "# TYPE corelay_requests counter",
            "corelay_requests_total{core=\"0\"} 7",
            "corelay_requests_total{core=\"1\"} 7",
            "corelay_sent_bytes_total 1099511627776",
            "corelay_sent_total 3",
            "corelay_connections{role=\"a \\\"b\\\"\"} 3.0",
            "corelay_wait_seconds_count 4",
            "corelay_wait_seconds_bucket{le=\"0.000032768\"} 1",
            "corelay_wait_seconds_bucket{le=\"0.000065536\"} 3",
            "corelay_wait_seconds_bucket{le=\"+Inf\"} 4",
            "corelay_coarse_seconds_bucket{le=\"0.000131072\"} 3",
            "# EOF",
        ] {
            assert!(page.lines().any(|found| found == line), "{line} in\n{page}");
        }
        assert_eq!(page.matches("# TYPE corelay_requests ").count(), 1);
    }
}
