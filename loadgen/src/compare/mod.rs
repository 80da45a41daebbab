//! The limit, corelay and its peers beside each other: each started here, bound alike to one CPU and loaded alike from
//! another, in alternating order, repeated.

mod apart;
mod connections;
pub mod result;
pub mod system;
pub mod table;
pub mod work;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use corelay::base::ChannelId;

use crate::dial::{Addr, DialError, Frames};
use crate::frames::DEFAULT_CHUNK;
use crate::measure::Measured;
use crate::nats::Nats;
use crate::proc::Target;
use crate::report::Report;
use crate::run::{Live, Plan, RunError, execute};
use crate::zmtp::Zmtp;
use result::Row;
use system::{Brokers, Link, StartError, System};
use work::{Kind, Layout, Work};

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
    /// Where the brokers run; the second is for works of two cores.
    pub broker_cpus: [usize; 2],
    /// Where the load comes from.
    pub load_cpu: usize,
    /// Where it comes from at works of two cores; empty where the broker leaves no CPU: the load then runs on all.
    pub load_cpus: Vec<usize>,
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
    /// No two channels were found that live on different cores.
    #[error("{0}: no two of the broker's channels live on different cores; has it two?")]
    Together(String),
}

/// Runs everything; each row is shown as it comes. Stopped early or by an error, what was measured is returned with it;
/// all children are ended.
pub fn compare(
    options: &Options,
    stop: &Arc<AtomicBool>,
    mut show: impl FnMut(&Row, Option<&Report>),
) -> (Vec<Row>, Result<(), CompareError>) {
    let mut rows = Vec::new();
    for work in &options.works {
        for round in 0..options.repeat {
            for system in order(&options.systems, round).into_iter().filter(|system| system.can(work)) {
                let found = match one(options, system, work, round, stop) {
                    Ok(found) => found,
                    // an interrupt reaches the broker, too
                    Err(_) if stop.load(Ordering::Relaxed) => None,
                    Err(error) => return (rows, Err(error)),
                };
                let Some((row, report)) = found.filter(|_| !stop.load(Ordering::Relaxed)) else {
                    return (rows, Ok(()));
                };
                show(&row, report.as_ref());
                rows.push(row);
            }
        }
    }
    (rows, Ok(()))
}

/// Forwards and backwards in turn, so that nobody is always behind the same other.
fn order(systems: &[System], round: usize) -> Vec<System> {
    let mut order = systems.to_vec();
    if !round.is_multiple_of(2) {
        order.reverse();
    }
    order
}

/// One run against a fresh broker; `None` if it was stopped.
fn one(
    options: &Options,
    system: System,
    work: &Work,
    round: usize,
    stop: &Arc<AtomicBool>,
) -> Result<Option<(Row, Option<Report>)>, CompareError> {
    let cpus = if work.layout == Layout::One { &options.broker_cpus[..1] } else { &options.broker_cpus[..] };
    let broker = options.brokers.start(system, cpus, work.layout)?;
    let failed =
        |source: RunError| CompareError::Run { system: system.to_string(), work: work.name.to_owned(), source };
    if work.kind != Kind::Requests {
        let row = idle(work, &broker.link, (system, round), broker.pid(), stop);
        return Ok(row.map_err(|source| failed(source.into()))?.map(|row| (row, None)));
    }
    let channels = if work.layout == Layout::TwoChannels {
        let Link::Frames { addr, .. } = &broker.link else { return Err(CompareError::Together(system.to_string())) };
        let dial = frames(work, addr, true, vec![channel()]);
        let found = apart::channels(&dial, broker.pid(), &options.load_cpus, stop).map_err(failed)?;
        found.ok_or_else(|| CompareError::Together(system.to_string()))?.to_vec()
    } else {
        vec![channel()]
    };
    let plan = plan(options, work, broker.pid());
    let began = SystemTime::now() + plan.warmup;
    let measured = load(&plan, work, &broker.link, channels, stop).map_err(failed)?;
    let began = began.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    let options =
        BTreeMap::from([("work".to_owned(), work.about.to_owned()), ("broker".to_owned(), system.to_string())]);
    let report = Report::new(&format!("{system}, {}", work.name), options, began, &measured);
    Ok(Some((Row::new(system, work, round, &report), Some(report))))
}

/// The channel of all works, by the name that `spread` is configured for.
fn channel() -> ChannelId {
    ChannelId::named(system::CHANNEL)
}

fn plan(options: &Options, work: &Work, pid: u32) -> Plan {
    let once = work.requests.is_some();
    let (threads, pin) = match work.layout {
        Layout::One => (1, vec![options.load_cpu]),
        _ => (2, options.load_cpus.clone()),
    };
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
        threads,
        pin,
        spin: Duration::ZERO,
        seed: 1,
        broker: Some(Target::Pid(pid)),
    }
}

fn frames(work: &Work, addr: &Addr, broker: bool, channels: Vec<ChannelId>) -> Frames {
    Frames {
        addr: addr.clone(),
        broker,
        channels,
        // the limit knows no windows: the load's own ends shall not be what holds a stream up
        window: 1 << 20,
        max_concurrent: 1024,
        slots: work.in_flight,
        chunk: DEFAULT_CHUNK,
        timeout_ms: 110_000,
        response: work.response.clone(),
        seed: 1,
        token: Default::default(),
        tls_ca: None,
    }
}

fn nats(work: &Work, addr: &Addr) -> Nats {
    Nats { addr: addr.clone(), slots: work.in_flight, response: work.response.clone() }
}

fn zmtp(work: &Work, front: &Addr, back: &Addr) -> Zmtp {
    Zmtp { front: front.clone(), back: back.clone(), slots: work.in_flight, response: work.response.clone() }
}

fn load(
    plan: &Plan,
    work: &Work,
    link: &Link,
    channels: Vec<ChannelId>,
    stop: &Arc<AtomicBool>,
) -> Result<Measured, RunError> {
    let mut live = Live::silent();
    match link {
        Link::Frames { addr, broker } => execute(plan, &mut frames(work, addr, *broker, channels), &mut live, stop),
        Link::Nats(addr) => execute(plan, &mut nats(work, addr), &mut live, stop),
        Link::Zmtp { front, back } => execute(plan, &mut zmtp(work, front, back), &mut live, stop),
    }
}

fn idle(
    work: &Work,
    link: &Link,
    (system, round): (System, usize),
    pid: u32,
    stop: &AtomicBool,
) -> Result<Option<Row>, DialError> {
    let what = (system, work, round);
    match link {
        Link::Frames { addr, broker } => {
            connections::measure(what, &mut frames(work, addr, *broker, vec![channel()]), pid, stop)
        }
        Link::Nats(addr) => connections::measure(what, &mut nats(work, addr), pid, stop),
        Link::Zmtp { front, back } => connections::measure(what, &mut zmtp(work, front, back), pid, stop),
    }
}
