//! `/producerz`, and what `/metrics` and `/healthz` say of producers.
//!
//! A producer's own books can be read from any thread; what found no room on its way there only its core knows.

use std::collections::BTreeMap;
use std::time::SystemTime;

use super::cores;
use super::latency::Distribution;
use super::prometheus::{Bounds, Families, Labels};
use super::state::State;
use super::view::{CoreProducer, Producer, ProducerCounts, ProducerError, Producerz};
use crate::broker::{self, Inspector};
use crate::forward::{LastError, Promise, Snapshot, State as Breaker};

/// Dropped between a core and its companion; the other reasons are the producer's.
const HANDOVER: &str = "handover";

/// A producer on one core, as it is now.
struct OnCore<'a> {
    of: &'a broker::CoreProducer,
    snapshot: Snapshot,
    /// Messages that found no room on their way to it; `None`: its core gave no answer.
    handover: Option<u64>,
}

/// All producers on all cores, those of one id next to each other.
pub(super) struct Producers<'a> {
    each: Vec<OnCore<'a>>,
    silent_cores: Vec<u16>,
}

impl<'a> Producers<'a> {
    pub(super) async fn of(state: &'a State) -> Producers<'a> {
        let inspector = &state.inspector;
        let mut found = Producers { each: Vec::new(), silent_cores: Vec::new() };
        if inspector.producers().is_empty() {
            return found;
        }
        let ask = |core| cores::ask(inspector, core, |view| view.not_handed_over());
        let asked: Vec<_> = (0..inspector.cores()).map(ask).collect();
        let mut lost = Vec::with_capacity(asked.len());
        for (core, answer) in asked.into_iter().enumerate() {
            let answer = answer.get().await.ok();
            if answer.is_none() {
                found.silent_cores.push(core as u16);
            }
            lost.push(answer);
        }
        found.each.extend(inspector.producers().iter().map(|of| {
            let counts = lost.get(usize::from(of.core)).and_then(Option::as_ref);
            let handover = counts.map(|counts| counts.get(of.index()).copied().unwrap_or(0));
            OnCore { of, snapshot: of.producer.snapshot(), handover }
        }));
        found.each.sort_by_key(|on| (on.of.index(), on.of.core));
        found
    }
}

impl OnCore<'_> {
    /// All reasons, so that a series doesn't begin with its first drop.
    fn dropped(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        let own = self.snapshot.counters.dropped.iter().map(|(reason, count)| (reason.as_str(), count));
        own.chain(self.handover.map(|count| (HANDOVER, count)))
    }

    fn counts(&self, now: SystemTime) -> ProducerCounts {
        let Snapshot { counters, queue_limit, .. } = &self.snapshot;
        ProducerCounts {
            accepted: counters.accepted,
            forwarded: counters.forwarded,
            forwarded_bytes: counters.forwarded_bytes,
            retried: counters.retried,
            dropped: self.dropped().map(|(reason, count)| (reason.to_owned(), count)).collect(),
            dead_lettered: counters.dead_lettered,
            queue_messages: counters.queue_messages,
            queue_bytes: counters.queue_bytes,
            queue_limit: *queue_limit,
            last_error: self.snapshot.last_error.as_ref().map(|error| told(error, now)),
            latency: Distribution::of(&self.snapshot.latency).summary(),
        }
    }
}

fn told(error: &LastError, now: SystemTime) -> ProducerError {
    // a clock that was set back makes it new
    let age = now.duration_since(error.when).unwrap_or_default();
    ProducerError { text: error.text.clone(), age_seconds: age.as_secs_f64() }
}

/// What each core counted, added up; the newest error.
fn sum<'a>(cores: impl Iterator<Item = &'a ProducerCounts>) -> ProducerCounts {
    cores.fold(ProducerCounts::default(), |mut sum, core| {
        sum.accepted += core.accepted;
        sum.forwarded += core.forwarded;
        sum.forwarded_bytes += core.forwarded_bytes;
        sum.retried += core.retried;
        sum.dead_lettered += core.dead_lettered;
        sum.queue_messages += core.queue_messages;
        sum.queue_bytes += core.queue_bytes;
        sum.queue_limit += core.queue_limit;
        for (reason, count) in &core.dropped {
            *sum.dropped.entry(reason.clone()).or_default() += count;
        }
        let errors = sum.last_error.take().into_iter().chain(core.last_error.clone());
        sum.last_error = errors.min_by(|a, b| a.age_seconds.total_cmp(&b.age_seconds));
        sum
    })
}

/// The state of several breakers: that of the worst.
fn worst(states: impl Iterator<Item = Breaker>) -> Breaker {
    let badness = |state: &Breaker| match state {
        Breaker::Closed => 0,
        Breaker::HalfOpen => 1,
        Breaker::Open => 2,
    };
    states.max_by_key(badness).unwrap_or_default()
}

pub(super) async fn page(state: &State) -> Producerz {
    let Producers { each, silent_cores } = Producers::of(state).await;
    let now = SystemTime::now();
    let one = |cores: &[OnCore<'_>]| producer(cores, now);
    let producers = each.chunk_by(|a, b| a.of.index() == b.of.index()).map(one).collect();
    Producerz { producers, silent_cores }
}

/// One producer, from what it is on each core; there is at least one.
fn producer(cores: &[OnCore<'_>], now: SystemTime) -> Producer {
    let OnCore { of, snapshot, .. } = &cores[0];
    let mut latency = Distribution::default();
    cores.iter().for_each(|on| latency.add(&on.snapshot.latency));
    let entry = |on: &OnCore<'_>| {
        let state = on.snapshot.state.as_str().to_owned();
        CoreProducer { core: on.of.core, state, counts: on.counts(now) }
    };
    let per_core: Vec<CoreProducer> = cores.iter().map(entry).collect();
    let counts = ProducerCounts { latency: latency.summary(), ..sum(per_core.iter().map(|core| &core.counts)) };
    let takes = of.producer.client().takes();
    let promise = match snapshot.promise {
        Promise::AtMostOnce => "at_most_once",
        Promise::AtLeastOnce => "at_least_once",
    };
    Producer {
        id: snapshot.id.clone(),
        protocol: snapshot.protocol.clone(),
        address: snapshot.address.clone(),
        promise: promise.to_owned(),
        what: of.what().to_string(),
        channels: of.channels().iter().map(ToString::to_string).collect(),
        max_body: takes.max_body.map(|most| most as u64),
        parts: takes.parts,
        when_full: of.producer.options().when_full.as_str().to_owned(),
        state: worst(cores.iter().map(|on| on.snapshot.state)).as_str().to_owned(),
        counts,
        per_core,
    }
}

/// For Prometheus: 34 series for each producer and core, and there are at most 64 producers.
pub(super) fn families(families: &mut Families, producers: &Producers<'_>) {
    for on in &producers.each {
        let Snapshot { id, counters, state, queue_limit, latency, .. } = &on.snapshot;
        let labels = || -> Labels { vec![("producer", id.clone()), ("core", on.of.core.to_string())] };
        let help = "Whether it sends: 0 while its breaker is open, or tries whether the target is back.";
        families.gauge("corelay_producer_up", help, labels(), u64::from(*state == Breaker::Closed));
        for (name, help, count) in [
            ("corelay_producer_accepted", "Messages brought to a producer.", counters.accepted),
            ("corelay_producer_forwarded", "Messages delivered.", counters.forwarded),
            ("corelay_producer_retried", "Times a message was sent again.", counters.retried),
            ("corelay_producer_dead_lettered", "Messages written to a dead letter file.", counters.dead_lettered),
        ] {
            families.counter(name, help, labels(), count);
        }
        let help = "Body bytes delivered.";
        families.bytes("corelay_producer_forwarded", help, labels(), counters.forwarded_bytes);
        for (reason, count) in on.dropped() {
            let help = "Messages given up and gone, by reason.";
            let labels = labels().into_iter().chain([("reason", reason.to_owned())]).collect();
            families.counter("corelay_producer_dropped", help, labels, count);
        }
        let help = "Messages that wait or are being sent.";
        families.gauge("corelay_producer_queue_messages", help, labels(), counters.queue_messages);
        families.gauge_bytes("corelay_producer_queue", "What they cost.", labels(), counters.queue_bytes);
        families.gauge_bytes("corelay_producer_queue_limit", "What they may cost.", labels(), *queue_limit);
        let help = "From accepting a message to having delivered it.";
        let latency = Distribution::of(latency);
        families.times("corelay_producer_latency", help, labels(), &latency, Bounds::FourTimes);
    }
}

/// The producers that don't send, each with the cores where that is so.
pub(super) fn shut(inspector: &Inspector) -> Vec<String> {
    let mut shut: BTreeMap<usize, Vec<&broker::CoreProducer>> = BTreeMap::new();
    for of in inspector.producers().iter().filter(|of| of.producer.state() != Breaker::Closed) {
        shut.entry(of.index()).or_default().push(of);
    }
    shut.into_values().map(|of| reason(&of)).collect()
}

fn reason(shut: &[&broker::CoreProducer]) -> String {
    let cores: Vec<String> = shut.iter().map(|of| of.core.to_string()).collect();
    let producer = &shut[0].producer;
    let newest = shut.iter().filter_map(|of| of.producer.last_error()).max_by_key(|error| error.when);
    let why = newest.map(|error| format!(": {}", error.text)).unwrap_or_default();
    let (id, address) = (producer.id(), producer.client().address());
    format!("producer {id} does not reach {address} from core {}{why}", cores.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(accepted: u64, reason: &str, age_seconds: f64) -> ProducerCounts {
        ProducerCounts {
            accepted,
            dropped: BTreeMap::from([(reason.to_owned(), accepted)]),
            last_error: Some(ProducerError { text: format!("{age_seconds}"), age_seconds }),
            ..ProducerCounts::default()
        }
    }

    #[test]
    fn cores_are_added_up_and_the_newest_error_is_told() {
        let cores = [counts(1, "too_old", 3.0), counts(2, "handover", 1.0), counts(4, "too_old", 2.0)];
        let sum = sum(cores.iter());
        assert_eq!((sum.accepted, sum.dropped_total()), (7, 7));
        assert_eq!((sum.dropped["too_old"], sum.dropped["handover"]), (5, 2));
        assert_eq!(sum.last_error.unwrap().text, "1");
    }

    #[test]
    fn one_open_breaker_is_enough() {
        use Breaker::{Closed, HalfOpen, Open};
        for (states, all) in [
            (&[][..], Closed),
            (&[Closed, Closed], Closed),
            (&[HalfOpen, Closed], HalfOpen),
            (&[Closed, Open, HalfOpen], Open),
        ] {
            assert_eq!(worst(states.iter().copied()), all, "{states:?}");
        }
    }

    #[test]
    fn an_error_from_the_future_is_new() {
        let now = SystemTime::now();
        let error = LastError { text: "refused".into(), when: now + std::time::Duration::from_secs(60) };
        assert_eq!(told(&error, now).age_seconds, 0.0);
    }
}
