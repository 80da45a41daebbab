//! A pool's figures on a metrics page.

use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use super::shared::Shared;
use super::{CloseReason, Factory, Stats};

/// Reads a pool's snapshot when the page is read. Nothing is shown once the pool is gone.
pub(super) struct PoolCollector<F: Factory>(Weak<Shared<F>>);

impl<F: Factory> PoolCollector<F> {
    pub(super) fn new(shared: &Arc<Shared<F>>) -> PoolCollector<F> {
        PoolCollector(Arc::downgrade(shared))
    }
}

impl<F: Factory> fmt::Debug for PoolCollector<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PoolCollector")
    }
}

impl<F: Factory> Collector for PoolCollector<F> {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let Some(shared) = self.0.upgrade() else { return Ok(()) };
        let stats = shared.stats();
        gauges(&stats, &mut encoder)?;
        counters(&stats, &mut encoder)?;
        let help = "Time of acquisitions that were not served at once by an idle connection";
        let mut metric = encoder.encode_descriptor("wait_seconds", help, None, MetricType::Histogram)?;
        let bound = |bound: Option<Duration>| bound.map_or(f64::INFINITY, |bound| bound.as_secs_f64());
        let buckets: Vec<_> = stats.waits.buckets().map(|(le, count)| (bound(le), count)).collect();
        metric.encode_histogram::<NoLabelSet>(stats.waits.total().as_secs_f64(), stats.waits.count(), &buckets, None)
    }
}

fn gauges(stats: &Stats, encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
    let gauges = [
        ("max_open", "As many connections as there may be", stats.max_open),
        ("open", "Connections there are", stats.open),
        ("in_use", "Connections lent to users", stats.in_use),
        ("idle", "Connections waiting for a user", stats.idle),
        ("checking", "Connections being validated or reset", stats.checking),
        ("closing", "Connections being closed", stats.closing),
        ("creating", "Connections being opened", stats.creating),
        ("waiting", "Acquisitions waiting", stats.waiting),
    ];
    for (name, help, value) in gauges {
        let gauge = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
        gauge.encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)?;
    }
    Ok(())
}

fn counters(stats: &Stats, encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
    let counters = [
        ("acquired", "Connections lent", stats.acquired),
        ("timeouts", "Acquisitions that ran out of time", stats.timeouts),
        ("created", "Connections opened", stats.created),
        ("create_failures", "Attempts to open a connection that failed", stats.create_failures),
        ("checks", "Validations made", stats.checks),
    ];
    for (name, help, value) in counters {
        ConstCounter::new(value).encode(encoder.encode_descriptor(name, help, None, MetricType::Counter)?)?;
    }
    let mut closed = encoder.encode_descriptor("closed", "Connections closed, by reason", None, MetricType::Counter)?;
    for reason in CloseReason::ALL {
        let labels = [("reason", reason.name())];
        ConstCounter::new(stats.closed.by(reason)).encode(closed.encode_family(&labels)?)?;
    }
    Ok(())
}
