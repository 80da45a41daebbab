//! What a broker handle counts.

use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// What a broker handle counted so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Messages the system took charge of.
    pub published: u64,
    /// Publishes that failed.
    pub publish_failures: u64,
    /// Messages handed to members of this handle, repeated ones included.
    pub delivered: u64,
    /// Of these, those handed out before.
    pub redelivered: u64,
    /// Messages acknowledged.
    pub acked: u64,
    /// Messages refused, or dropped unsettled.
    pub nacked: u64,
    /// Messages that could not be settled: they are delivered again.
    pub settle_failures: u64,
    /// Delivered and not settled at this moment.
    pub in_flight: u64,
    /// Handlers that returned an error.
    pub handler_failures: u64,
    /// Handlers that panicked.
    pub handler_panics: u64,
    /// Handlers that were stopped because they took too long.
    pub handler_timeouts: u64,
    /// Messages moved to a dead letter topic after their last attempt.
    pub dead_lettered: u64,
    /// Messages given up after their last attempt, without a dead letter topic.
    pub dropped: u64,
    /// Messages the system had dropped by the time they were to be handled, to keep a topic's bound, as far as it says
    /// so.
    pub lost: u64,
    /// Times a member lost its connection and joined again.
    pub rejoined: u64,
}

#[derive(Debug)]
pub(super) struct Counts {
    published: Counter,
    publish_failures: Counter,
    publish_seconds: Histogram,
    delivered: Counter,
    redelivered: Counter,
    acked: Counter,
    nacked: Counter,
    settle_failures: Counter,
    in_flight: Gauge,
    handler_seconds: Histogram,
    pub(super) handler_failures: Counter,
    pub(super) handler_panics: Counter,
    pub(super) handler_timeouts: Counter,
    pub(super) dead_lettered: Counter,
    pub(super) dropped: Counter,
    lost: Counter,
    pub(super) rejoined: Counter,
}

impl Default for Counts {
    fn default() -> Counts {
        // 100 us to 26 s, each bound twice the one before
        let seconds = || Histogram::new(exponential_buckets(0.0001, 2.0, 19));
        Counts {
            published: Counter::default(),
            publish_failures: Counter::default(),
            publish_seconds: seconds(),
            delivered: Counter::default(),
            redelivered: Counter::default(),
            acked: Counter::default(),
            nacked: Counter::default(),
            settle_failures: Counter::default(),
            in_flight: Gauge::default(),
            handler_seconds: seconds(),
            handler_failures: Counter::default(),
            handler_panics: Counter::default(),
            handler_timeouts: Counter::default(),
            dead_lettered: Counter::default(),
            dropped: Counter::default(),
            lost: Counter::default(),
            rejoined: Counter::default(),
        }
    }
}

impl Counts {
    pub(super) fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("message_broker");
        let counters = [
            ("published", "Messages the system took charge of", &self.published),
            ("publish_failures", "Publishes that failed", &self.publish_failures),
            ("delivered", "Messages handed to members, repeated ones included", &self.delivered),
            ("redelivered", "Messages handed out again", &self.redelivered),
            ("acked", "Messages acknowledged", &self.acked),
            ("nacked", "Messages refused, or dropped unsettled", &self.nacked),
            ("settle_failures", "Messages that could not be settled", &self.settle_failures),
            ("handler_failures", "Handlers that returned an error", &self.handler_failures),
            ("handler_panics", "Handlers that panicked", &self.handler_panics),
            ("handler_timeouts", "Handlers stopped because they took too long", &self.handler_timeouts),
            ("dead_lettered", "Messages moved to a dead letter topic", &self.dead_lettered),
            ("dropped", "Messages given up after their last attempt", &self.dropped),
            ("lost", "Messages the system dropped before they were handled", &self.lost),
            ("rejoined", "Times a member lost its connection and joined again", &self.rejoined),
        ];
        for (name, help, counter) in counters {
            registry.register(name, help, counter.clone());
        }
        registry.register("in_flight", "Messages delivered and not settled", self.in_flight.clone());
        registry.register("publish_seconds", "Time of publishes", self.publish_seconds.clone());
        registry.register("handler_seconds", "Time handlers took", self.handler_seconds.clone());
    }

    pub(super) fn stats(&self) -> Stats {
        Stats {
            published: self.published.get(),
            publish_failures: self.publish_failures.get(),
            delivered: self.delivered.get(),
            redelivered: self.redelivered.get(),
            acked: self.acked.get(),
            nacked: self.nacked.get(),
            settle_failures: self.settle_failures.get(),
            in_flight: u64::try_from(self.in_flight.get()).unwrap_or_default(),
            handler_failures: self.handler_failures.get(),
            handler_panics: self.handler_panics.get(),
            handler_timeouts: self.handler_timeouts.get(),
            dead_lettered: self.dead_lettered.get(),
            dropped: self.dropped.get(),
            lost: self.lost.get(),
            rejoined: self.rejoined.get(),
        }
    }

    pub(super) fn published(&self, done: bool, time: Duration) {
        if done { &self.published } else { &self.publish_failures }.inc();
        self.publish_seconds.observe(time.as_secs_f64());
    }

    pub(super) fn delivered(&self, attempt: u32) {
        self.delivered.inc();
        self.in_flight.inc();
        if attempt > 1 {
            self.redelivered.inc();
        }
    }

    pub(super) fn settled(&self, done: bool, acked: bool) {
        self.in_flight.dec();
        match (done, acked) {
            (true, true) => self.acked.inc(),
            (true, false) => self.nacked.inc(),
            (false, _) => self.settle_failures.inc(),
        };
    }

    pub(super) fn lost(&self, count: u64) {
        self.lost.inc_by(count);
    }

    pub(super) fn handled(&self, time: Duration) {
        self.handler_seconds.observe(time.as_secs_f64());
    }
}
