//! Spans of requests, to an OpenTelemetry collector: OTLP, protobuf over HTTP.
//!
//! ```text
//!   core ── Span ──► bounded queue ──► exporter's thread ── batches, POST /v1/traces ──► collector
//! ```
//!
//! A span is recorded for each request whose `traceparent` says that its trace is; whether one is, is decided where the
//! trace begins. The spans' parent is the span the request was sent in. A collector that is slow or gone costs spans,
//! which are counted, and nothing else.

use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_otlp::{SpanExporter as OtlpExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanExporter, SpanLinks};
use tracing::{info, warn};

use super::Exported;
use crate::broker::Span;
use crate::broker::core::{Ended, Outcome};

/// Spans that may wait for the exporter: a second's worth at 8,000 traced requests a second, some 2 MiB.
pub const QUEUE: usize = 8192;
/// Spans of one batch: what collectors are used to.
const BATCH: usize = 512;
/// How long a batch waits to be filled.
const LINGER: Duration = Duration::from_secs(1);
/// How long the collector may take for a batch, retries included.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why nothing is exported.
#[derive(Debug, thiserror::Error)]
pub enum OtlpError {
    /// The exporter can't be made for this address.
    #[error("can't export traces to {url}: {source}")]
    Exporter {
        /// The collector's address.
        url: String,
        /// What the exporter said.
        source: opentelemetry_otlp::ExporterBuildError,
    },
    /// Its thread could not start.
    #[error("the thread that exports traces can't start: {0}")]
    Thread(#[from] std::io::Error),
}

/// A running exporter. It ends by itself when nobody is left to put spans in its queue.
///
/// ```no_run
/// use corelay::broker::{Server, ServerOptions, spans};
/// use corelay::telemetry::otlp;
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (sink, queue) = spans(otlp::QUEUE);
/// let exporter = otlp::Exporter::start("http://127.0.0.1:4318", "corelay", queue)?;
/// let server = Server::builder().spans(Some(sink)).start()?;
/// server.stop()?;
/// exporter.join(); // what was still in the queue is sent
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Exporter {
    thread: JoinHandle<()>,
    exported: Arc<Exported>,
}

impl Exporter {
    /// Begins to export what comes out of `queue` to the collector at `url` (`http://host:port`; `/v1/traces` is added),
    /// as the service `name`.
    ///
    /// # Errors
    /// [`OtlpError`].
    pub fn start(url: &str, name: &str, queue: Receiver<Span>) -> Result<Exporter, OtlpError> {
        let endpoint = format!("{}/v1/traces", url.trim_end_matches('/'));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let mut exporter = {
            // the client's pool belongs to this runtime
            let _inside = runtime.enter();
            let builder = OtlpExporter::builder().with_http().with_endpoint(endpoint).with_timeout(PATIENCE);
            builder.build().map_err(|source| OtlpError::Exporter { url: url.to_owned(), source })?
        };
        let service = KeyValue::new("service.name", name.to_owned());
        exporter.set_resource(&Resource::builder_empty().with_attributes([service]).build());
        let exported = Arc::new(Exported::default());
        let counts = Arc::clone(&exported);
        let thread = std::thread::Builder::new().name("corelay-otlp".to_owned()).spawn(move || {
            let mut failing = false;
            while let Some(batch) = next_batch(&queue) {
                let len = batch.len() as u64;
                let sent = runtime.block_on(exporter.export(batch));
                counts.add(len, sent.is_ok());
                match &sent {
                    Err(error) if !failing => warn!(%error, "traces can't be exported: their spans are dropped"),
                    Ok(()) if failing => info!("traces are exported again"),
                    _ => {}
                }
                failing = sent.is_err();
            }
        })?;
        Ok(Exporter { thread, exported })
    }

    /// What became of the spans.
    #[must_use]
    pub fn exported(&self) -> Arc<Exported> {
        Arc::clone(&self.exported)
    }

    /// Waits until it has ended: once the broker has, for a few seconds at most.
    pub fn join(self) {
        if self.thread.join().is_err() {
            warn!("the thread that exports traces panicked");
        }
    }
}

/// What is in the queue, or comes within a while of the first; `None` when nothing will come any more.
fn next_batch(queue: &Receiver<Span>) -> Option<Vec<SpanData>> {
    let mut batch = vec![span_data(queue.recv().ok()?)];
    let until = Instant::now() + LINGER;
    while batch.len() < BATCH {
        match queue.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(span) => batch.push(span_data(span)),
            Err(_) => break,
        }
    }
    Some(batch)
}

fn span_data(span: Span) -> SpanData {
    let Span { ended: Ended { id, channel, outcome, nanos, trace }, core, at } = span;
    let (trace_id, parent) = trace.map_or(([0; 16], [0; 8]), |parent| (*parent.trace().as_bytes(), parent.span()));
    // random: 64 of a version 4 UUID's 122 bits
    let (_, own) = uuid::Uuid::new_v4().as_u64_pair();
    let context = SpanContext::new(
        TraceId::from_bytes(trace_id),
        SpanId::from_bytes(own.to_be_bytes()),
        TraceFlags::SAMPLED,
        false,
        TraceState::default(),
    );
    let status = match outcome {
        Outcome::Answered | Outcome::Oneway => Status::Unset,
        Outcome::Failed(_) | Outcome::ConsumerLost => Status::error(outcome.name()),
    };
    SpanData {
        span_context: context,
        parent_span_id: SpanId::from_bytes(parent),
        parent_span_is_remote: true,
        span_kind: SpanKind::Server,
        name: "corelay.request".into(),
        start_time: at.checked_sub(Duration::from_nanos(nanos)).unwrap_or(at),
        end_time: at,
        attributes: vec![
            KeyValue::new("corelay.request.id", uuid::Uuid::from_bytes(id).to_string()),
            KeyValue::new("corelay.channel", channel.to_string()),
            KeyValue::new("corelay.outcome", outcome.name()),
            KeyValue::new("corelay.core", i64::from(core)),
        ],
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status,
        instrumentation_scope: InstrumentationScope::builder("corelay").with_version(env!("CARGO_PKG_VERSION")).build(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::SystemTime;

    use crate::base::ChannelId;
    use crate::protocol::{Code, TraceParent};

    #[test]
    fn a_span_says_what_became_of_the_request() {
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let trace = TraceParent::parse(b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
        let ended = |outcome| Ended { id: [1; 16], channel: ChannelId::NIL, outcome, nanos: 2_000_000_000, trace };
        let span = |outcome| span_data(Span { ended: ended(outcome), core: 3, at });
        let good = span(Outcome::Answered);
        assert_eq!(good.span_context.trace_id().to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(good.parent_span_id.to_string(), "00f067aa0ba902b7");
        assert_eq!(good.end_time.duration_since(good.start_time).unwrap(), Duration::from_secs(2));
        assert!(good.span_context.is_valid() && good.status == Status::Unset);
        let bad = span(Outcome::Failed(Code::Deadline));
        assert_eq!(bad.status, Status::error("DEADLINE"));
        assert_ne!(bad.span_context.span_id(), good.span_context.span_id());
    }
}
