//! What a processor counts: [`Metrics`].
//!
//! Series exist for registered types and handlers only, never for what an event claims to be: a stranger's types make
//! none. Those a program registers are bounded too.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use crate::toolkit::worker_pool::{Column, Histogram, Latencies, encode_columns, encode_counters};

/// Types, and pairs of type and handler, that get series of their own; further ones count together, as `other`.
pub const MAX_SERIES: usize = 500;

/// What types and handlers past [`MAX_SERIES`] are called.
const OTHER: &str = "other";

/// An event type, and the name of a handler for it.
type TypeAndHandler = (Arc<str>, Arc<str>);

#[derive(Debug, Default)]
pub(super) struct Counts {
    /// Events whose type nobody handles.
    pub(super) unknown: AtomicU64,
    /// Events refused at the door: no type, too large.
    pub(super) rejected: AtomicU64,
    pub(super) dead_letters: AtomicU64,
    pub(super) dead_letter_failures: AtomicU64,
    types: Mutex<BTreeMap<Arc<str>, Arc<TypeCounts>>>,
    handlers: Mutex<BTreeMap<TypeAndHandler, Arc<HandlerCounts>>>,
}

/// Of one event type; of [`ANY`](super::ANY), events that only handlers of all types took.
#[derive(Debug, Default)]
pub(super) struct TypeCounts {
    pub(super) processed: AtomicU64,
    pub(super) failed: AtomicU64,
}

/// Of the handlers with one name for one type.
#[derive(Debug, Default)]
pub(super) struct HandlerCounts {
    pub(super) processed: AtomicU64,
    pub(super) failed: AtomicU64,
    pub(super) running: AtomicU64,
    pub(super) retried: AtomicU64,
    pub(super) timeouts: AtomicU64,
    pub(super) panics: AtomicU64,
    pub(super) malformed: AtomicU64,
    pub(super) attempts: Latencies,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Counts {
    pub(super) fn of_type(&self, event_type: &Arc<str>) -> Arc<TypeCounts> {
        let mut types = lock(&self.types);
        let is_new = !types.contains_key(event_type) && types.len() >= MAX_SERIES;
        let name = if is_new { OTHER.into() } else { event_type.clone() };
        types.entry(name).or_default().clone()
    }

    pub(super) fn of_handler(&self, event_type: &Arc<str>, name: &Arc<str>) -> Arc<HandlerCounts> {
        let mut handlers = lock(&self.handlers);
        let key = (event_type.clone(), name.clone());
        let is_new = !handlers.contains_key(&key) && handlers.len() >= MAX_SERIES;
        let key = if is_new { (OTHER.into(), OTHER.into()) } else { key };
        handlers.entry(key).or_default().clone()
    }
}

/// What became of the events of a type.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TypeSnapshot {
    /// Events all handlers took.
    pub processed: u64,
    /// Events at least one handler failed at for good.
    pub failed: u64,
}

/// What a handler did.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HandlerSnapshot {
    /// Events it took.
    pub processed: u64,
    /// Events it failed at for good.
    pub failed: u64,
    /// Events it has in hand now, or waits to try again.
    pub running: u64,
    /// Attempts beyond each event's first.
    pub retried: u64,
    /// Attempts that took too long.
    pub timeouts: u64,
    /// Attempts that panicked.
    pub panics: u64,
    /// Events that made no sense to it.
    pub malformed: u64,
    /// Of each attempt, however it ended.
    pub attempt_time: Histogram,
}

impl HandlerCounts {
    fn snapshot(&self) -> HandlerSnapshot {
        HandlerSnapshot {
            processed: self.processed.load(Relaxed),
            failed: self.failed.load(Relaxed),
            running: self.running.load(Relaxed),
            retried: self.retried.load(Relaxed),
            timeouts: self.timeouts.load(Relaxed),
            panics: self.panics.load(Relaxed),
            malformed: self.malformed.load(Relaxed),
            attempt_time: Latencies::sum(std::iter::once(&self.attempts)),
        }
    }
}

/// A processor's metrics at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Snapshot {
    /// Events all their handlers took.
    pub processed: u64,
    /// Events at least one handler failed at for good.
    pub failed: u64,
    /// Events nobody handles.
    pub unknown: u64,
    /// Events without a type, or too large, or that can't be encoded.
    pub rejected: u64,
    /// Given to the dead-letter hook, or only counted and logged where there is none.
    pub dead_letters: u64,
    /// Dead letters the hook panicked at or took too long over.
    pub dead_letter_failures: u64,
    /// By event type.
    pub types: BTreeMap<Arc<str>, TypeSnapshot>,
    /// By event type and handler.
    pub handlers: BTreeMap<(Arc<str>, Arc<str>), HandlerSnapshot>,
}

impl Snapshot {
    /// What the handlers with this name did for this type.
    #[must_use]
    pub fn handler(&self, event_type: &str, name: &str) -> Option<&HandlerSnapshot> {
        self.handlers.get(&(event_type.into(), name.into()))
    }
}

/// What a processor counts. Cloning gives another handle to the same figures.
///
/// ```
/// use corelay::toolkit::event_processor::{EventProcessor, Options};
/// use prometheus_client::{encoding::text::encode, registry::Registry};
/// let processor = EventProcessor::new(Options::default()).unwrap();
/// let mut registry = Registry::default();
/// processor.metrics().register(&mut registry);
/// let mut page = String::new();
/// encode(&mut page, &registry).unwrap();
/// assert!(page.contains("event_processor_unknown_total 0"));
/// ```
#[derive(Clone, Debug)]
pub struct Metrics {
    pub(super) counts: Arc<Counts>,
}

impl Metrics {
    /// All figures now.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let counts = &self.counts;
        let of = |counts: &TypeCounts| TypeSnapshot {
            processed: counts.processed.load(Relaxed),
            failed: counts.failed.load(Relaxed),
        };
        let types =
            lock(&counts.types).iter().map(|(name, counts)| (name.clone(), of(counts))).collect::<BTreeMap<_, _>>();
        Snapshot {
            processed: types.values().map(|of| of.processed).sum(),
            failed: types.values().map(|of| of.failed).sum(),
            unknown: counts.unknown.load(Relaxed),
            rejected: counts.rejected.load(Relaxed),
            dead_letters: counts.dead_letters.load(Relaxed),
            dead_letter_failures: counts.dead_letter_failures.load(Relaxed),
            types,
            handlers: lock(&counts.handlers).iter().map(|(key, counts)| (key.clone(), counts.snapshot())).collect(),
        }
    }

    /// Registers everything under `event_processor_...`, with the labels `event_type` and `handler`. Give a
    /// sub-registry with a label to tell several processors apart.
    pub fn register(&self, registry: &mut Registry) {
        registry.sub_registry_with_prefix("event_processor").register_collector(Box::new(self.clone()));
    }
}

impl Collector for Metrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let now = self.snapshot();
        let totals = [
            ("unknown", "Events nobody handles", now.unknown),
            ("rejected", "Events without a type, too large, or that can't be encoded", now.rejected),
            ("dead_letters", "Events given up, once a handler", now.dead_letters),
            ("dead_letter_failures", "Dead letters the hook failed at", now.dead_letter_failures),
        ];
        encode_counters(&mut encoder, &totals)?;
        let by_type: [Column<TypeSnapshot>; 2] = [
            ("processed", "Events all their handlers took", |of| of.processed),
            ("failed", "Events at least one handler failed at for good", |of| of.failed),
        ];
        let types = now.types.iter().map(|(event_type, of)| ([("event_type", &**event_type)], of));
        encode_columns(&mut encoder, &by_type, types)?;
        let by_handler: [Column<HandlerSnapshot>; 6] = [
            ("handler_processed", "Events the handler took", |of| of.processed),
            ("handler_failed", "Events the handler failed at for good", |of| of.failed),
            ("handler_retried", "Attempts beyond each event's first", |of| of.retried),
            ("handler_timeouts", "Attempts that took too long", |of| of.timeouts),
            ("handler_panics", "Attempts that panicked", |of| of.panics),
            ("handler_malformed", "Events that made no sense to the handler", |of| of.malformed),
        ];
        let handlers = now
            .handlers
            .iter()
            .map(|((event_type, handler), of)| ([("event_type", &**event_type), ("handler", &**handler)], of));
        encode_columns(&mut encoder, &by_handler, handlers.clone())?;
        let help = "Events the handler has in hand, or waits to try again";
        let mut metric = encoder.encode_descriptor("handler_running", help, None, MetricType::Gauge)?;
        for (labels, of) in handlers.clone() {
            metric.encode_family(&labels)?.encode_gauge(&of.running)?;
        }
        let help = "Time of each attempt";
        let mut metric = encoder.encode_descriptor("handler_seconds", help, None, MetricType::Histogram)?;
        for (labels, of) in handlers {
            of.attempt_time.encode(metric.encode_family(&labels)?)?;
        }
        Ok(())
    }
}
