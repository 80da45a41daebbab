//! `/varz`: the figures of the process and all cores, added up.

use std::collections::BTreeMap;

use super::latency::Distribution;
use super::process;
use super::state::State;
use super::view::{CoreVarz, Varz};
use crate::broker::ShardFigures;
use crate::broker::core::Refused;
use crate::protocol::Code;

/// Counts by the name of their code; all names, so that a series doesn't begin with its first error.
pub(super) fn by_code(counts: &[u64; 17]) -> impl Iterator<Item = (&'static str, u64)> + '_ {
    Code::ALL.into_iter().map(|code| (code.name(), counts[usize::from(code.to_wire())]))
}

/// Connections refused, by the limit that was reached; all of them, for the same reason.
pub(super) fn by_limit(counts: &[u64; Refused::ALL.len()]) -> impl Iterator<Item = (&'static str, u64)> + '_ {
    Refused::ALL.into_iter().map(|why| (why.name(), counts[why as usize]))
}

pub(super) async fn varz(state: &State) -> Varz {
    let used = process::usage();
    let inspector = &state.inspector;
    let options = inspector.options();
    let mut varz = Varz {
        pid: std::process::id(),
        name: options.name.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        io: inspector.io().to_string(),
        listen: inspector.addrs().iter().map(ToString::to_string).collect(),
        uptime_seconds: state.uptime().as_secs_f64(),
        cpu_seconds: used.cpu.as_secs_f64(),
        resident_bytes: used.resident,
        peak_resident_bytes: used.peak,
        open_files: used.files,
        cores: inspector.cores(),
        draining: inspector.is_draining(),
        max_connections: u64::from(options.limits.max_connections),
        ..Varz::default()
    };
    for (core, figures) in state.figures().await.into_iter().enumerate() {
        if let Ok(figures) = figures {
            add(&mut varz, &figures);
            let cpu = inspector.cpus().get(core).copied().unwrap_or(core);
            varz.per_core.push(core_varz(core as u16, cpu, &figures));
        }
    }
    varz
}

fn add(varz: &mut Varz, figures: &ShardFigures) {
    let core = &figures.core;
    let counters = &core.counters;
    let add_codes = |to: &mut BTreeMap<String, u64>, counts| {
        for (name, count) in by_code(counts) {
            *to.entry(name.to_owned()).or_default() += count;
        }
    };
    varz.requests += counters.requests;
    varz.responses += counters.answered + counters.oneway_answered;
    varz.responses_oneway += counters.oneway_answered;
    varz.errors += counters.failed.iter().sum::<u64>();
    add_codes(&mut varz.errors_by_code, &counters.failed);
    add_codes(&mut varz.connections_failed, &counters.connections_failed);
    varz.in_flight += core.in_flight as u64;
    varz.queued += counters.queued;
    varz.retried += counters.retried;
    varz.passed_on += counters.passed_on;
    varz.connections += core.connections as u64;
    varz.handshakes += u64::from(core.handshakes);
    varz.connections_accepted += counters.connections_accepted;
    varz.channels += core.channels as u64;
    varz.received_bytes += counters.bytes_received;
    varz.sent_bytes += counters.bytes_sent;
    varz.held_bytes += core.held as u64;
    varz.tls.opened += figures.tls.opened;
    varz.tls.resumed += figures.tls.resumed;
    varz.tls.failed += figures.tls.failed;
    varz.tls.broken += figures.tls.broken;
    varz.tls.truncated += figures.tls.truncated;
    varz.dropped.connections_refused += counters.connections_refused.iter().sum::<u64>();
    for (why, count) in by_limit(&counters.connections_refused) {
        *varz.connections_refused.entry(why.to_owned()).or_default() += count;
    }
    varz.dropped.consumer_lost += counters.consumer_lost;
    varz.dropped.oneway_lost += counters.oneway_lost;
    varz.dropped.shed += counters.shed;
    varz.dropped.discarded_bytes += counters.bytes_discarded;
}

fn core_varz(core: u16, cpu: usize, figures: &ShardFigures) -> CoreVarz {
    let counters = &figures.core.counters;
    CoreVarz {
        core,
        cpu: cpu as u64,
        cpu_seconds: process::thread_cpu(figures.thread).unwrap_or_default().as_secs_f64(),
        turns: figures.turns.len(),
        turn_seconds: figures.turns.sum().as_secs_f64(),
        turn_latency: Distribution::of(&figures.turns).summary(),
        requests: counters.requests,
        responses: counters.answered + counters.oneway_answered,
        errors: counters.failed.iter().sum(),
        in_flight: figures.core.in_flight as u64,
        connections: figures.core.connections as u64,
        channels: figures.core.channels as u64,
        received_bytes: counters.bytes_received,
        sent_bytes: counters.bytes_sent,
        held_bytes: figures.core.held as u64,
        buffers: figures.buffers as u64,
        buffers_free: figures.buffers_free as u64,
    }
}
