//! What a client counts.

use std::fmt;
use std::sync::Arc;

use prometheus_client::encoding::{EncodeLabelSet, EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use super::ErrorKind;
use super::flight::{Meters, Spans};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabel {
    kind: &'static str,
}

/// What a [`Consumer`](super::Consumer), [`ConsumerPool`](super::ConsumerPool) or [`Provider`](super::Provider)
/// counts. Cloning gives another handle to the same figures.
///
/// ```
/// use corelay::client::Metrics;
/// use prometheus_client::{encoding::text::encode, registry::Registry};
/// let mut registry = Registry::default();
/// Metrics::default().register(&mut registry);
/// let mut page = String::new();
/// encode(&mut page, &registry).unwrap();
/// assert!(page.contains("corelay_client_requests_total 0"));
/// ```
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    pub(super) meters: Arc<Meters>,
    errors: Family<KindLabel, Counter>,
    pub(super) reconnects: Counter,
    pub(super) handler_times: Arc<Spans>,
    pub(super) handler_panics: Counter,
    pub(super) handler_timeouts: Counter,
}

/// What is summed up when it is asked for.
#[derive(Debug)]
enum Summed {
    Requests(Arc<Meters>),
    InFlight(Arc<Meters>),
    Times(Arc<Spans>),
}

impl EncodeMetric for Summed {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        match self {
            Summed::Requests(meters) => ConstCounter::new(meters.begun()).encode(encoder),
            Summed::InFlight(meters) => ConstGauge::new(meters.in_flight() as i64).encode(encoder),
            Summed::Times(spans) => {
                let (sum, count, buckets) = spans.read();
                encoder.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
            }
        }
    }

    fn metric_type(&self) -> MetricType {
        match self {
            Summed::Requests(_) => MetricType::Counter,
            Summed::InFlight(_) => MetricType::Gauge,
            Summed::Times(_) => MetricType::Histogram,
        }
    }
}

impl Metrics {
    /// Registers everything under `corelay_client_...`. Give a sub-registry (with a label, say) to tell several
    /// clients of one program apart.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("corelay_client");
        let requests = Summed::Requests(self.meters.clone());
        registry.register("requests", "Requests sent (consumer) or received (provider)", requests);
        registry.register("errors", "Requests that failed, by kind", self.errors.clone());
        registry.register("in_flight", "Requests begun and not ended", Summed::InFlight(self.meters.clone()));
        registry.register("reconnects", "Connections made after the first", self.reconnects.clone());
        let help = "Time from a request's arrival to its end";
        registry.register("handler_seconds", help, Summed::Times(self.handler_times.clone()));
        registry.register("handler_panics", "Handlers that panicked", self.handler_panics.clone());
        let help = "Handlers stopped because their request's deadline had long passed";
        registry.register("handler_timeouts", help, self.handler_timeouts.clone());
    }

    /// Requests sent (consumer) or received (provider) so far.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.meters.begun()
    }

    /// Requests that failed with this kind so far.
    #[must_use]
    pub fn errors(&self, kind: ErrorKind) -> u64 {
        self.errors.get_or_create(&KindLabel { kind: kind.name() }).get()
    }

    /// Requests begun and not ended.
    #[must_use]
    pub fn in_flight(&self) -> u64 {
        self.meters.in_flight()
    }

    /// Connections made after the first.
    #[must_use]
    pub fn reconnects(&self) -> u64 {
        self.reconnects.get()
    }

    /// Handlers of [`Provider::serve`](super::Provider::serve) that panicked.
    #[must_use]
    pub fn handler_panics(&self) -> u64 {
        self.handler_panics.get()
    }

    /// Handlers of [`Provider::serve`](super::Provider::serve) that were stopped because they did not end: see
    /// [`ServeOptions::overtime`](super::ServeOptions::overtime).
    #[must_use]
    pub fn handler_timeouts(&self) -> u64 {
        self.handler_timeouts.get()
    }

    pub(super) fn count_error(&self, kind: ErrorKind) {
        self.errors.get_or_create(&KindLabel { kind: kind.name() }).inc();
    }
}
