//! The companion's thread: producers on one runtime, fed from the intake.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use rustix::thread::{CpuSet, sched_setaffinity};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;
use tracing::{error, info, warn};

use super::assembly::Assembly;
use super::outlet::{Intake, Outlet, join};
use super::{CoreProducer, Plan};
use crate::broker::core::records;
use crate::broker::options::ForwardOptions;
use crate::broker::server::ServerError;
use crate::forward::{Producer, runtime};
use crate::reactor::Waker;

/// Batches read before the producers get their turn: half a megabyte.
const BEFORE_YIELD: usize = 8;
/// What a thread that shares its CPU with a core yields to it: nice(1).
const NICE: i32 = 10;

/// A companion that runs.
#[derive(Debug)]
pub(in crate::broker) struct Companion {
    thread: JoinHandle<()>,
    /// Its producers.
    pub(in crate::broker) producers: Vec<CoreProducer>,
}

impl Companion {
    /// Waits until it has ended, which it does after its core.
    pub(in crate::broker) fn join(self) {
        if self.thread.join().is_err() {
            error!("the thread that forwards ended with a fault: messages may be missing");
        }
    }
}

/// Starts the companion of a core. When this returns, its producers are there; the core's end is the outlet.
///
/// # Errors
/// [`ServerError::Producer`] where one can't be made, [`ServerError::Core`] without a thread or a runtime.
pub(in crate::broker) fn start(
    core: u16,
    plans: &[Plan],
    options: &ForwardOptions,
    cpus: &Cpus,
) -> Result<(Outlet, Companion), ServerError> {
    let failed = |source| ServerError::Core { core, source };
    let waker = Waker::new().map_err(failed)?;
    let (mut outlet, intake) = join(waker.clone());
    let (told, telling) = mpsc::channel();
    let (plans, options, cpus) = (plans.to_vec(), options.clone(), cpus.clone());
    let run = move || {
        cpus.settle();
        let life = Life { core, plans, options, intake, waker };
        let ended = runtime::run(life.run(told.clone()));
        if let Err(source) = ended {
            let _ = told.send(Err(ServerError::Core { core, source }));
        }
    };
    let thread = std::thread::Builder::new().name(format!("forward-{core}")).spawn(run).map_err(failed)?;
    match telling.recv() {
        Ok(Ok(producers)) => {
            outlet.set_producers(producers.iter().map(|each| each.producer.clone()).collect());
            Ok((outlet, Companion { thread, producers }))
        }
        Ok(Err(error)) => Err(error),
        Err(_) => Err(failed(io::Error::other("the thread that forwards ended at its start"))),
    }
}

/// Where companions run.
#[derive(Clone, Debug)]
pub(in crate::broker) struct Cpus {
    allowed: Vec<usize>,
    /// They are a core's, which comes first.
    shared: bool,
}

impl Cpus {
    /// The CPUs that no core has, if there are any; else the core's own, at a lower priority.
    pub(in crate::broker) fn of(core: usize, allowed: &[usize], cores: &[usize]) -> Cpus {
        let free: Vec<usize> = allowed.iter().copied().filter(|cpu| !cores.contains(cpu)).collect();
        if free.is_empty() {
            Cpus { allowed: vec![cores[core]], shared: true }
        } else {
            Cpus { allowed: free, shared: false }
        }
    }

    /// Moves this thread there.
    fn settle(&self) {
        let mut set = CpuSet::new();
        self.allowed.iter().filter(|&&cpu| cpu < CpuSet::MAX_CPU).for_each(|&cpu| set.set(cpu));
        if let Err(error) = sched_setaffinity(None, &set) {
            warn!(%error, cpus = ?self.allowed, "the thread that forwards could not be bound");
        }
        if self.shared
            && let Err(error) = rustix::process::setpriority_process(None, NICE)
        {
            warn!(%error, "the thread that forwards could not be made nice");
        }
    }
}

/// All the thread has.
struct Life {
    core: u16,
    plans: Vec<Plan>,
    options: ForwardOptions,
    intake: Intake,
    waker: Waker,
}

impl Life {
    async fn run(mut self, told: mpsc::Sender<Result<Vec<CoreProducer>, ServerError>>) {
        let level = Arc::new(Notify::new());
        let producers = match self.producers(&level) {
            Ok(producers) => producers,
            Err(error) => return drop(told.send(Err(error))),
        };
        let awake = match self.waker.readable() {
            Ok(awake) => awake,
            Err(source) => return drop(told.send(Err(ServerError::Core { core: self.core, source }))),
        };
        let _ = told.send(Ok(producers.clone()));
        drop(told);
        self.serve(&producers, &level, &awake).await;
        self.end(&producers).await;
    }

    fn producers(&self, level: &Arc<Notify>) -> Result<Vec<CoreProducer>, ServerError> {
        let make = |(index, plan): (usize, &Plan)| {
            let id = &plan.options.id;
            let failed = |text: String| ServerError::Producer { id: id.clone(), text };
            let client = (plan.make)(self.core).map_err(failed)?;
            let options = plan.options.queue(self.options.max_message);
            let (producer, runner) = Producer::new(id, client, options).map_err(|bad| failed(bad.to_string()))?;
            let level = Arc::clone(level);
            producer.on_level_change(move |_| level.notify_one());
            tokio::task::spawn_local(runner.run());
            let plan = Arc::new(plan.options.clone());
            Ok(CoreProducer { core: self.core, index, plan, producer })
        };
        self.plans.iter().enumerate().map(make).collect()
    }

    /// Reads what the core hands over, until it has ended.
    async fn serve(&mut self, producers: &[CoreProducer], level: &Notify, awake: &AsyncFd<Waker>) {
        let parts = producers.iter().filter(|each| each.producer.client().takes().parts);
        let takes_parts = parts.fold(0, |bits, each| bits | 1 << each.index);
        let mut assembly = Assembly::new(self.options.max_message, self.options.assembly_bytes, takes_parts);
        let mut said = 0;
        while !self.intake.is_over() {
            let mut read = 0;
            while read < BEFORE_YIELD
                && let Some(batch) = self.intake.pop()
            {
                read += 1;
                let now = SystemTime::now();
                records(&batch)
                    .for_each(|record| assembly.take(record, now, |to, message| offer(producers, to, &message)));
                self.intake.give_back(batch);
            }
            self.intake.tell(full(producers), read > 0);
            if assembly.cut() > said {
                said = assembly.cut();
                warn!(
                    core = self.core,
                    messages = said,
                    "too many long messages at once: given up in forward.assembly_bytes"
                );
            }
            if read > 0 {
                tokio::task::yield_now().await;
            } else if self.intake.prepare_sleep() {
                tokio::select! {
                    () = woken(awake) => {}
                    () = level.notified() => {}
                }
                self.intake.awake();
            }
        }
        assembly.end(|to, message| offer(producers, to, &message));
    }

    /// Delivers what is left, within its time, and says what became of it.
    async fn end(&self, producers: &[CoreProducer]) {
        let killed = self.intake.words.killed.load(Ordering::Acquire);
        let within = if killed { Duration::ZERO } else { self.options.drain_timeout };
        let drains: Vec<_> = producers
            .iter()
            .map(|each| each.producer.clone())
            .map(|producer| {
                tokio::task::spawn_local(async move {
                    let report = producer.drain(within).await;
                    (producer, report)
                })
            })
            .collect();
        for drain in drains {
            let Ok((producer, report)) = drain.await else { continue };
            let (core, id) = (self.core, producer.id());
            let (left, dead_lettered, dropped) = (report.left, report.dead_lettered, report.dropped.total());
            if left > 0 || dropped > 0 {
                let (forwarded, unsettled) = (report.forwarded, report.unsettled);
                warn!(
                    core,
                    producer = id,
                    forwarded,
                    left,
                    dead_lettered,
                    dropped,
                    unsettled,
                    "messages were left when the time to deliver them was up"
                );
            } else {
                let forwarded = producer.snapshot().counters.forwarded;
                info!(
                    core,
                    producer = id,
                    forwarded,
                    dead_lettered,
                    "every message has been delivered or accounted for"
                );
            }
        }
    }
}

/// Brings a message to each producer of these bits. What one does not take, it has counted.
fn offer(producers: &[CoreProducer], mut to: u64, message: &crate::forward::Message) {
    while to != 0 {
        if let Some(each) = producers.get(to.trailing_zeros() as usize) {
            let _ = each.producer.offer(message.clone());
        }
        to &= to - 1;
    }
}

/// Whose queue is full.
fn full(producers: &[CoreProducer]) -> u64 {
    producers.iter().filter(|each| each.producer.is_over()).fold(0, |bits, each| bits | 1 << each.index)
}

/// Until the core wakes this thread.
async fn woken(awake: &AsyncFd<Waker>) {
    let _ = awake.async_io(Interest::READABLE, Waker::clear).await;
}
