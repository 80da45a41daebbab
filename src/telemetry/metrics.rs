//! `/metrics`, of each core; `/metrics/channels`, of each channel.

use super::cores;
use super::latency::Distribution;
use super::lists::{AllTimes, label};
use super::process;
use super::producers::{self, Producers};
use super::prometheus::{Bounds, Families, Labels};
use super::state::State;
use super::totals::{by_code, by_limit};
use crate::broker::ShardFigures;

const QUEUE_WAIT: &str = "From REQUEST to its being staged for a provider.";
const FIRST_BYTE: &str = "From REQUEST to RESPONSE.";
const TOTAL: &str = "From REQUEST to the end of the answer.";

/// The broker and its cores.
pub(super) async fn cores(state: &State) -> String {
    let mut families = Families::default();
    process_families(&mut families, state);
    for (core, figures) in state.figures().await.into_iter().enumerate() {
        let labels = || vec![("core", core.to_string())];
        // a core that gives no answer is missing, but for this
        families.gauge("corelay_core_up", "Whether the core answers.", labels(), u64::from(figures.is_ok()));
        let Ok(figures) = figures else { continue };
        core_families(&mut families, labels, &figures);
        let Ok(meters) = cores::meters_sum(&state.inspector, core as u16).await else { continue };
        families.times(
            "corelay_queue_wait",
            QUEUE_WAIT,
            labels(),
            &Distribution::of(&meters.queue_wait),
            Bounds::Twice,
        );
        families.times(
            "corelay_first_byte",
            FIRST_BYTE,
            labels(),
            &Distribution::of(&meters.first_byte),
            Bounds::Twice,
        );
        families.times("corelay_request", TOTAL, labels(), &Distribution::of(&meters.total), Bounds::Twice);
    }
    producers::families(&mut families, &Producers::of(state).await);
    families.encode()
}

fn process_families(families: &mut Families, state: &State) {
    let used = process::usage();
    let inspector = &state.inspector;
    let build = vec![
        ("version", env!("CARGO_PKG_VERSION").to_owned()),
        ("io", inspector.io().to_string()),
        ("name", inspector.options().name.clone()),
    ];
    families.gauge("corelay_build_info", "Always 1; what runs is in the labels.", build, 1);
    families.gauge("corelay_cores", "Cores that run the broker.", vec![], u64::from(inspector.cores()));
    let draining = u64::from(inspector.is_draining());
    families.gauge("corelay_draining", "Whether it is on its way to its end.", vec![], draining);
    let most = u64::from(inspector.options().limits.max_connections);
    families.gauge("corelay_max_connections", "Connections there may be at most.", vec![], most);
    let bound = inspector.options().limits.core_buffer as u64;
    families.gauge_bytes("corelay_core_buffer", "What each core may hold: limits.core_buffer.", vec![], bound);
    families.seconds("process_cpu", "CPU time of the process.", vec![], used.cpu.as_secs_f64());
    families.gauge_bytes("process_resident_memory", "Resident memory.", vec![], used.resident);
    families.gauge("process_open_fds", "Open descriptors.", vec![], used.files);
    if let Some(log) = &state.extras.log {
        let help = "Lines of the log that were lost: nobody read them in time.";
        families.counter("corelay_log_lost", help, vec![], log.lost());
    }
    if let Some(exported) = &state.extras.exported {
        let outcome = |text: &str| vec![("outcome", text.to_owned())];
        let help = "Spans that the collector took (sent), or did not (failed).";
        families.counter("corelay_spans_exported", help, outcome("sent"), exported.sent());
        families.counter("corelay_spans_exported", help, outcome("failed"), exported.failed());
    }
    families.gauge("corelay_uptime_seconds", "Since the start.", vec![], state.uptime().as_secs());
}

fn core_families(families: &mut Families, labels: impl Fn() -> Labels, figures: &ShardFigures) {
    let (core, counters) = (&figures.core, &figures.core.counters);
    let with = |key, value: &str| labels().into_iter().chain([(key, value.to_owned())]).collect::<Labels>();
    families.counter("corelay_requests", "Requests read from consumers.", labels(), counters.requests);
    let help = "Answers sent to consumers whole.";
    families.counter("corelay_responses", help, with("kind", "answer"), counters.answered);
    families.counter("corelay_responses", help, with("kind", "oneway"), counters.oneway_answered);
    for (code, count) in by_code(&counters.failed) {
        families.counter("corelay_errors", "Requests ended with an ERROR, by code.", with("code", code), count);
    }
    families.gauge("corelay_in_flight", "Requests not ended.", labels(), core.in_flight as u64);
    for (name, help, count) in [
        ("corelay_queued", "Requests that had to wait for a provider.", counters.queued),
        ("corelay_retried", "Requests handed to a second provider.", counters.retried),
        ("corelay_passed_on", "Requests passed to another core.", counters.passed_on),
        ("corelay_frames_received", "Frames read.", counters.frames_received),
        ("corelay_connections_accepted", "Connections accepted.", counters.connections_accepted),
        ("corelay_connections_moved", "Connections moved to their home core.", counters.connections_moved),
    ] {
        families.counter(name, help, labels(), count);
    }
    for (code, count) in by_code(&counters.connections_failed) {
        let help = "Connections that the broker ended with an ERROR, by code.";
        families.counter("corelay_connections_failed", help, with("code", code), count);
    }
    for (why, count) in by_limit(&counters.connections_refused) {
        let help = "Connections closed as soon as they were accepted, by the limit that was reached.";
        families.counter("corelay_connections_refused", help, with("limit", why), count);
    }
    families.gauge("corelay_connections", "Connections open.", labels(), core.connections as u64);
    families.gauge("corelay_handshakes", "Connections in their handshake.", labels(), u64::from(core.handshakes));
    families.gauge("corelay_channels", "Channels somebody is on.", labels(), core.channels as u64);
    for (reason, count) in [
        ("connection_refused", counters.connections_refused.iter().sum()),
        ("consumer_lost", counters.consumer_lost),
        ("oneway_lost", counters.oneway_lost),
        ("shed", counters.shed),
    ] {
        let help = "Connections and requests dropped, by reason.";
        families.counter("corelay_dropped", help, with("reason", reason), count);
    }
    let tls = figures.tls;
    for (outcome, count) in [("full", tls.opened - tls.resumed), ("resumed", tls.resumed), ("failed", tls.failed)] {
        let help = "TLS handshakes, by how they ended.";
        families.counter("corelay_tls_handshakes", help, with("outcome", outcome), count);
    }
    let help = "Open TLS sessions that failed: a record was not genuine.";
    families.counter("corelay_tls_broken", help, labels(), tls.broken);
    let help = "Open TLS sessions that ended without the peer having said so.";
    families.counter("corelay_tls_truncated", help, labels(), tls.truncated);
    let help = "Body bytes that came for streams that had ended.";
    families.bytes("corelay_discarded", help, labels(), counters.bytes_discarded);
    families.bytes("corelay_received", "Bytes read, from other cores too.", labels(), counters.bytes_received);
    families.bytes("corelay_sent", "Bytes that the kernel or other cores took.", labels(), counters.bytes_sent);
    let help = "Bytes copied because their socket was slow.";
    families.bytes("corelay_settled", help, labels(), counters.bytes_settled);
    families.gauge_bytes("corelay_held", "Bodies and output held, of core_buffer.", labels(), core.held as u64);
    families.gauge("corelay_buffers", "Receive buffers.", labels(), figures.buffers as u64);
    families.gauge("corelay_buffers_free", "Receive buffers nobody holds.", labels(), figures.buffers_free as u64);
    let told = &figures.told;
    let help = "Lines left out of the log, which tells of each kind so often only.";
    families.counter("corelay_log_suppressed", help, labels(), told.lines_suppressed);
    let help = "Requests that took telemetry.slow_ms or longer.";
    families.counter("corelay_slow_requests", help, labels(), told.slow);
    let help = "Spans of requests whose trace is recorded: handed to the exporter, or dropped as its queue was full.";
    families.counter("corelay_spans", help, with("outcome", "queued"), told.spans);
    families.counter("corelay_spans", help, with("outcome", "dropped"), told.spans_dropped);
    let cpu = process::thread_cpu(figures.thread).unwrap_or_default().as_secs_f64();
    families.seconds("corelay_core_cpu", "CPU time of the core's thread.", labels(), cpu);
    let help = "Length of the loop's turns, outside the system calls that wait and send.";
    families.times("corelay_turn", help, labels(), &Distribution::of(&figures.turns), Bounds::Twice);
}

/// The channels that have a meter: at most `telemetry.channels` of each core.
pub(super) async fn channels(state: &State) -> String {
    let mut families = Families::default();
    for (id, times) in &AllTimes::of(state).await.each {
        let labels = || {
            let name = id.and_then(|id| state.name_of(id)).unwrap_or_default();
            vec![("channel", label(*id)), ("name", name)]
        };
        let help = "Requests read from consumers.";
        families.counter("corelay_channel_requests", help, labels(), times.requests);
        let help = "Requests ended with an ERROR.";
        families.counter("corelay_channel_errors", help, labels(), times.failed);
        let help = "Body bytes of requests, read from consumers.";
        families.bytes("corelay_channel_received", help, labels(), times.request_bytes);
        let help = "Body bytes of answers, read from providers.";
        families.bytes("corelay_channel_answered", help, labels(), times.response_bytes);
        families.times("corelay_channel_queue_wait", QUEUE_WAIT, labels(), &times.queue_wait, Bounds::FourTimes);
        families.times("corelay_channel_first_byte", FIRST_BYTE, labels(), &times.first_byte, Bounds::FourTimes);
        families.times("corelay_channel_request", TOTAL, labels(), &times.total, Bounds::FourTimes);
    }
    families.encode()
}
