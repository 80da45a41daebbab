//! What a client counts.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use super::ErrorKind;

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
#[derive(Clone, Debug)]
pub struct Metrics {
    pub(super) requests: Counter,
    errors: Family<KindLabel, Counter>,
    pub(super) in_flight: Gauge,
    pub(super) reconnects: Counter,
    pub(super) handler_seconds: Histogram,
    pub(super) handler_panics: Counter,
    pub(super) handler_timeouts: Counter,
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics {
            requests: Counter::default(),
            errors: Family::default(),
            in_flight: Gauge::default(),
            reconnects: Counter::default(),
            // 100 us to 26 s, each bound twice the one before.
            handler_seconds: Histogram::new(exponential_buckets(0.0001, 2.0, 19)),
            handler_panics: Counter::default(),
            handler_timeouts: Counter::default(),
        }
    }
}

impl Metrics {
    /// Registers everything under `corelay_client_...`. Give a sub-registry (with a label, say) to tell several
    /// clients of one program apart.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("corelay_client");
        registry.register("requests", "Requests sent (consumer) or received (provider)", self.requests.clone());
        registry.register("errors", "Requests that failed, by kind", self.errors.clone());
        registry.register("in_flight", "Requests begun and not ended", self.in_flight.clone());
        registry.register("reconnects", "Connections made after the first", self.reconnects.clone());
        let help = "Time from a request's arrival to its end";
        registry.register("handler_seconds", help, self.handler_seconds.clone());
        registry.register("handler_panics", "Handlers that panicked", self.handler_panics.clone());
        let help = "Handlers stopped because their request's deadline had long passed";
        registry.register("handler_timeouts", help, self.handler_timeouts.clone());
    }

    /// Requests sent (consumer) or received (provider) so far.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.requests.get()
    }

    /// Requests that failed with this kind so far.
    #[must_use]
    pub fn errors(&self, kind: ErrorKind) -> u64 {
        self.errors.get_or_create(&KindLabel { kind: kind.name() }).get()
    }

    /// Requests begun and not ended.
    #[must_use]
    pub fn in_flight(&self) -> u64 {
        self.in_flight.get().max(0) as u64
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
