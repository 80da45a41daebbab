//! What one core's thread tells of single events: lines of the log, and spans for whoever exports them.
//!
//! ```text
//!   core ── Ended, Expelled, ReportShed ──► Teller ──► log (at a bounded rate)
//!                                             └──────► bounded queue ──► exporter's thread
//! ```
//!
//! Nothing here waits: a span that finds the queue full is dropped and counted.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, SystemTime};

use tracing::{Level, debug, info, trace, warn};
use uuid::Uuid;

use super::core::{Ended, Expelled, Watch};
use super::noise::{Line, Noise};
use crate::base::{ChannelId, Time};
use crate::protocol::Code;
use crate::tls::Fault;

/// The log's target of requests' ends: `--log info,corelay::request=trace` tells of each.
const REQUEST: &str = "corelay::request";

/// A request that has ended, on its way to whoever exports traces.
#[derive(Clone, Debug)]
pub struct Span {
    /// What became of it; its `traceparent` is there, and says that the trace is recorded.
    pub ended: Ended,
    /// The core it ended on.
    pub core: u16,
    /// When.
    pub at: SystemTime,
}

/// Where cores put the spans of requests whose trace is recorded.
#[derive(Clone, Debug)]
pub struct SpanSink(SyncSender<Span>);

/// A queue of spans, from the cores to an exporter: with so many in it, further ones are dropped and counted
/// ([`Told::spans_dropped`]).
///
/// ```
/// use corelay::broker::{Server, ServerOptions, spans};
/// let (sink, queue) = spans(1024);
/// # let options = ServerOptions { listen: vec!["127.0.0.1:0".parse().unwrap()], ..ServerOptions::default() };
/// let server = Server::builder().options(options).spans(Some(sink)).start()?;
/// server.kill();
/// server.join()?;
/// assert!(queue.recv().is_err()); // nothing was sent, and nobody is left to send
/// # Ok::<(), corelay::broker::ServerError>(())
/// ```
#[must_use]
pub fn spans(capacity: usize) -> (SpanSink, Receiver<Span>) {
    let (sender, receiver) = sync_channel(capacity);
    (SpanSink(sender), receiver)
}

/// How often something was told, or not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Told {
    /// Lines left out of the log for its bounded rate.
    pub lines_suppressed: u64,
    /// Requests that took `telemetry.slow_ms` or longer.
    pub slow: u64,
    /// Spans put in the queue.
    pub spans: u64,
    /// Spans that found it full, or nobody there.
    pub spans_dropped: u64,
}

/// One core's.
#[derive(Debug)]
pub(super) struct Teller {
    core: u16,
    noise: Noise,
    slow: Option<Duration>,
    sink: Option<SpanSink>,
    watch: Watch,
    told: Told,
}

impl Teller {
    pub(super) fn new(core: u16, slow: Option<Duration>, sink: Option<SpanSink>) -> Teller {
        Teller { core, noise: Noise::default(), slow, sink, watch: Watch::default(), told: Told::default() }
    }

    /// Once a turn: what the core is to watch for, if that has changed with the log's level.
    pub(super) fn turn(&mut self, now: Time) -> Option<Watch> {
        self.noise.settle(now);
        let slower = if tracing::enabled!(target: REQUEST, Level::TRACE) {
            Some(0)
        } else {
            self.slow.map(|slow| u64::try_from(slow.as_nanos()).unwrap_or(u64::MAX))
        };
        let watch = Watch { slower, sampled: self.sink.is_some() };
        (watch != self.watch).then(|| {
            self.watch = watch;
            watch
        })
    }

    pub(super) fn told(&self) -> Told {
        Told { lines_suppressed: self.noise.suppressed(), ..self.told }
    }

    pub(super) fn ended(&mut self, ended: Ended, now: Time) {
        let request = Uuid::from_bytes(ended.id);
        let (channel, outcome) = (ended.channel, ended.outcome);
        let took = Duration::from_nanos(ended.nanos);
        let ms = took.as_secs_f64() * 1e3;
        let trace = ended.trace.map(|parent| tracing::field::display(parent.trace()));
        trace!(target: REQUEST, core = self.core, %request, %channel, %outcome, ms, trace, "ended");
        if self.slow.is_some_and(|slow| took >= slow) {
            self.told.slow += 1;
            if self.noise.allows(Line::Slow, now) {
                warn!(target: REQUEST, core = self.core, %request, %channel, %outcome, ms, trace, "slow request");
            }
        }
        if ended.trace.is_some_and(|trace| trace.is_sampled())
            && let Some(SpanSink(queue)) = &self.sink
        {
            match queue.try_send(Span { ended, core: self.core, at: SystemTime::now() }) {
                Ok(()) => self.told.spans += 1,
                Err(_) => self.told.spans_dropped += 1,
            }
        }
    }

    pub(super) fn expelled(&mut self, expelled: &Expelled, now: Time) {
        // of those it is told with their channel, below
        if expelled.code != Code::Unauthorized && self.noise.allows(Line::Expelled, now) {
            let Expelled { peer, name, role, code, text } = expelled;
            // what a stranger chose is shown as a literal: it cannot break a line
            info!(core = self.core, ?peer, ?name, role, code = code.name(), why = ?text, "connection ended");
        }
    }

    pub(super) fn unauthorized(&mut self, peer: &str, channel: ChannelId, why: &str, now: Time) {
        if self.noise.allows(Line::Unauthorized, now) {
            warn!(core = self.core, ?peer, %channel, ?why, "UNAUTHORIZED");
        }
    }

    pub(super) fn shed(&mut self, id: [u8; 16], channel: ChannelId, bytes: usize, now: Time) {
        if self.noise.allows(Line::Shed, now) {
            let request = Uuid::from_bytes(id);
            warn!(%request, %channel, bytes, "request ended with OVERLOADED: core_buffer is full");
        }
    }

    pub(super) fn socket_failed(&mut self, error: &std::io::Error, now: Time) {
        if tracing::enabled!(Level::DEBUG) && self.noise.allows(Line::SocketFailed, now) {
            debug!(core = self.core, %error, "a connection failed");
        }
    }

    pub(super) fn accept_failed(&mut self, listener: u32, error: &std::io::Error, now: Time) {
        if self.noise.allows(Line::AcceptFailed, now) {
            warn!(listener, %error, "accepting pauses: raise the limit on open files (ulimit -n, LimitNOFILE=)");
        }
    }

    pub(super) fn not_moved(&mut self, core: u16, now: Time) {
        if self.noise.allows(Line::NotMoved, now) {
            warn!("a connection could not be moved to core {core}; it is closed");
        }
    }

    pub(super) fn tls_fault(&mut self, peer: &str, was_open: bool, fault: &Fault, now: Time) {
        let line = if was_open { Line::TlsBroken } else { Line::TlsFailed };
        if !self.noise.allows(line, now) {
            return;
        }
        if was_open {
            warn!(core = self.core, peer, %fault, "a TLS session ended");
        } else {
            warn!(core = self.core, peer, %fault, "a TLS handshake failed");
        }
    }

    pub(super) fn tls_given_up(&mut self, now: Time) {
        if self.noise.allows(Line::TlsGivenUp, now) {
            warn!(core = self.core, "a TLS handshake was given up, or took longer than handshake_timeout");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::core::Outcome;
    use crate::protocol::TraceParent;

    fn ended(parent: &str) -> Ended {
        Ended {
            id: [7; 16],
            channel: ChannelId::named("orders"),
            outcome: Outcome::Answered,
            nanos: 5_000_000,
            trace: TraceParent::parse(parent.as_bytes()),
        }
    }

    const SAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn spans_beyond_the_queue_are_dropped_and_counted() {
        let (sink, queue) = spans(2);
        let mut teller = Teller::new(3, None, Some(sink));
        assert_eq!(teller.turn(Time::ZERO), Some(Watch { slower: None, sampled: true }));
        assert_eq!(teller.turn(Time::ZERO), None);
        for parent in [SAMPLED, SAMPLED, SAMPLED, "", &SAMPLED.replace("-01", "-00")] {
            teller.ended(ended(parent), Time::ZERO);
        }
        assert_eq!((teller.told().spans, teller.told().spans_dropped), (2, 1));
        let got: Vec<_> = queue.try_iter().map(|span| (span.core, span.ended.id)).collect();
        assert_eq!(got, [(3, [7; 16]); 2]);
        drop(queue);
        teller.ended(ended(SAMPLED), Time::ZERO);
        assert_eq!(teller.told().spans_dropped, 2);
    }

    #[test]
    fn slow_ones_are_counted_even_where_the_log_is_full() {
        let mut teller = Teller::new(0, Some(Duration::from_millis(5)), None);
        assert_eq!(teller.turn(Time::ZERO), Some(Watch { slower: Some(5_000_000), sampled: false }));
        for _ in 0..30 {
            teller.ended(ended(""), Time::ZERO);
        }
        assert_eq!(teller.told(), Told { slow: 30, lines_suppressed: 20, ..Told::default() });
        teller.ended(Ended { nanos: 4_999_999, ..ended("") }, Time::ZERO);
        assert_eq!(teller.told().slow, 30);
    }

    #[test]
    fn strangers_that_fail_their_handshakes_can_not_fill_the_log() {
        let mut teller = Teller::new(0, None, None);
        for _ in 0..30 {
            teller.tls_fault("192.0.2.1:5000", false, &Fault::TooLong, Time::ZERO);
            teller.tls_given_up(Time::ZERO);
        }
        teller.tls_fault("192.0.2.1:5000", true, &Fault::TooLong, Time::ZERO);
        assert_eq!(teller.told(), Told { lines_suppressed: 40, ..Told::default() });
    }
}
