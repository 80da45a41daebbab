//! The limit, corelay and its peers beside each other: each started here, bound alike to one CPU and loaded alike from
//! another, in alternating order, repeated.

pub mod result;
pub mod system;
pub mod work;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::dial::Frames;
use crate::frames::DEFAULT_CHUNK;
use crate::measure::Measured;
use crate::nats::Nats;
use crate::report::Report;
use crate::run::{Live, Plan, RunError, execute};
use crate::zmtp::Zmtp;
use result::Row;
use system::{Brokers, Link, StartError, System};
use work::Work;

/// What is compared, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// Whom.
    pub systems: Vec<System>,
    /// By what.
    pub works: Vec<Work>,
    /// How often.
    pub repeat: usize,
    /// Length of each run.
    pub duration: Duration,
    /// Before it.
    pub warmup: Duration,
    /// Where the brokers run.
    pub broker_cpu: usize,
    /// Where the load comes from.
    pub load_cpu: usize,
    /// How to start them.
    pub brokers: Brokers,
}

/// Why it ended early.
#[derive(Debug, thiserror::Error)]
pub enum CompareError {
    /// A broker could not be started.
    #[error(transparent)]
    Start(#[from] StartError),
    /// A run failed.
    #[error("{system}, {work}: {source}")]
    Run {
        /// With whom.
        system: String,
        /// At what.
        work: String,
        /// Why.
        source: RunError,
    },
}

/// Runs everything; each row is shown as it comes. Stopped early, what was measured is returned.
///
/// # Errors
/// [`CompareError`]; all children are ended.
pub fn compare(
    options: &Options,
    stop: &Arc<AtomicBool>,
    mut show: impl FnMut(&Row),
) -> Result<Vec<Row>, CompareError> {
    let mut rows = Vec::new();
    for work in &options.works {
        for round in 0..options.repeat {
            for system in order(&options.systems, round) {
                if !system.can(work) {
                    continue;
                }
                let row = one(options, system, work, round, stop)?;
                if stop.load(Ordering::Relaxed) {
                    return Ok(rows);
                }
                show(&row);
                rows.push(row);
            }
        }
    }
    Ok(rows)
}

/// Forwards and backwards in turn, so that nobody is always behind the same other.
fn order(systems: &[System], round: usize) -> Vec<System> {
    let mut order = systems.to_vec();
    if !round.is_multiple_of(2) {
        order.reverse();
    }
    order
}

/// One run against a fresh broker.
fn one(
    options: &Options,
    system: System,
    work: &Work,
    round: usize,
    stop: &Arc<AtomicBool>,
) -> Result<Row, CompareError> {
    let broker = options.brokers.start(system, options.broker_cpu)?;
    let plan = plan(options, work, broker.pid());
    let measured = load(&plan, work, &broker.link, stop).map_err(|source| CompareError::Run {
        system: system.to_string(),
        work: work.name.to_owned(),
        source,
    })?;
    let report = Report::new(&format!("{system}, {}", work.name), Default::default(), 0.0, &measured);
    Ok(Row::new(system, work, round, &report))
}

fn plan(options: &Options, work: &Work, pid: u32) -> Plan {
    let once = work.requests.is_some();
    Plan {
        consumers: work.consumers,
        providers: work.providers,
        mode: work.mode(),
        size: work.size.clone(),
        duration: if once { Duration::from_secs(120) } else { options.duration },
        warmup: if once { Duration::ZERO } else { options.warmup },
        patience: Duration::from_secs(5),
        interval: Duration::from_secs(1),
        requests: work.requests,
        threads: 1,
        pin: vec![options.load_cpu],
        spin: Duration::ZERO,
        seed: 1,
        pid: Some(pid),
    }
}

fn load(plan: &Plan, work: &Work, link: &Link, stop: &Arc<AtomicBool>) -> Result<Measured, RunError> {
    let (slots, response) = (work.places(), work.response.clone());
    let mut live = Live::silent();
    match link {
        Link::Frames { addr, broker } => {
            let mut dial = Frames {
                addr: addr.clone(),
                broker: *broker,
                channels: vec![corelay::base::ChannelId::named("loadgen")],
                // the limit knows no windows: the load's own ends shall not be what holds a stream up
                window: 1 << 20,
                max_concurrent: 1024,
                slots,
                chunk: DEFAULT_CHUNK,
                timeout_ms: 110_000,
                response,
                seed: 1,
                token: Vec::new(),
            };
            execute(plan, &mut dial, &mut live, stop)
        }
        Link::Nats(addr) => execute(plan, &mut Nats { addr: addr.clone(), slots, response }, &mut live, stop),
        Link::Zmtp { front, back } => {
            let mut dial = Zmtp { front: front.clone(), back: back.clone(), slots, response };
            execute(plan, &mut dial, &mut live, stop)
        }
    }
}
