//! One run: connect, start the threads, follow them, add up what they measured.

mod live;
mod thread;
mod watch;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

pub use live::{Line, Live};
use thread::{Flags, Started, start};
pub(crate) use thread::{Make, bind};
use watch::Watch;

use crate::dial::{Dial, DialError};
use crate::engine::{Conns, Interval, Mode, Worker};
use crate::measure::Measured;
use crate::proc::{Target, TargetError};
use crate::size::Size;

/// The nice value of the thread that adds intervals up and shows the live line.
const LOWEST_PRIORITY: i32 = 19;

/// What is to be run, whatever the protocol.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Consumer connections.
    pub consumers: usize,
    /// Provider connections of our own.
    pub providers: usize,
    /// Open or closed loop.
    pub mode: Mode,
    /// Request sizes.
    pub size: Size,
    /// How long is measured.
    pub duration: Duration,
    /// How long runs before that.
    pub warmup: Duration,
    /// How long answers are waited for after the end.
    pub patience: Duration,
    /// Length of an interval of the report.
    pub interval: Duration,
    /// Ends when so many requests are answered.
    pub requests: Option<u64>,
    /// Load threads.
    pub threads: usize,
    /// CPUs they are bound to, in turn; empty for no binding.
    pub pin: Vec<usize>,
    /// How long a load thread looks for work before it sleeps.
    pub spin: Duration,
    /// For everything that is drawn.
    pub seed: u64,
    /// The broker, if it is to be watched.
    pub broker: Option<Target>,
}

/// Why a run could not be had.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// No connection.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// A load thread could not start or go on.
    #[error("load thread {thread}: {source}")]
    Thread {
        /// Which.
        thread: usize,
        /// What the kernel said.
        source: io::Error,
    },
    /// The broker can't be watched.
    #[error(transparent)]
    Target(#[from] TargetError),
}

/// Runs `plan` over the connections `dial` makes; `stop` ends it early.
///
/// # Errors
/// [`RunError`].
pub fn execute<D: Dial>(
    plan: &Plan,
    dial: &mut D,
    live: &mut Live,
    stop: &Arc<AtomicBool>,
) -> Result<Measured, RunError> {
    let make = |conns: Dialed<D>| -> Make {
        Box::new(move |orders, recorder| Ok(Box::new(Worker::new(conns, orders, recorder)?)))
    };
    let makes = connect(plan, dial)?.into_iter().map(make).collect();
    execute_on(plan, makes, live, stop)
}

/// Runs `plan` on threads of these makings.
pub(crate) fn execute_on(
    plan: &Plan,
    makes: Vec<Make>,
    live: &mut Live,
    stop: &Arc<AtomicBool>,
) -> Result<Measured, RunError> {
    let (out, full) = channel();
    let flags = Flags { running: Arc::new(AtomicUsize::new(makes.len())), stop: Arc::clone(stop) };
    let mut threads = Vec::new();
    for (thread, make) in makes.into_iter().enumerate() {
        let started = start(plan, thread, make, out.clone(), &flags);
        threads.push(started.map_err(|source| RunError::Thread { thread, source })?);
    }
    drop(out);
    let mut watch = Watch::new(plan.broker, threads.iter().map(|thread| thread.id).collect())?;
    let mut measured = Measured::new(plan);
    let epoch = Instant::now();
    threads.iter().for_each(|thread| thread.begin(epoch));
    let shown = &mut *live;
    let (running, clocks, sum) = (&threads, &mut watch, &mut measured);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            // never ahead of a load thread or a broker that shares its CPU; as a thread of its own, for priority
            // can't be taken back and what is started later would inherit it
            let _ = rustix::process::setpriority_process(None, LOWEST_PRIORITY);
            follow(plan, epoch, (running, &full), clocks, sum, shown);
        });
    });
    measured.uses = watch.finish();
    for (thread, started) in threads.into_iter().enumerate() {
        let complaints = started.join().map_err(|source| RunError::Thread { thread, source })?;
        measured.complaints.extend(complaints);
    }
    measured.close();
    live.finish();
    Ok(measured)
}

type Dialed<D> = Conns<<D as Dial>::Consumer, <D as Dial>::Provider>;

/// Makes all connections and deals them out over the threads.
fn connect<D: Dial>(plan: &Plan, dial: &mut D) -> Result<Vec<Dialed<D>>, DialError> {
    let threads = plan.threads.max(1);
    let mut all = Vec::new();
    all.resize_with(threads, || Conns { consumers: Vec::new(), providers: Vec::new() });
    if dial.is_paired() {
        for number in 0..plan.consumers {
            all[number % threads].consumers.push(dial.consumer(number)?);
            all[number % threads].providers.push(dial.provider(number)?);
        }
        return Ok(all);
    }
    for number in 0..plan.providers {
        all[number % threads].providers.push(dial.provider(number)?);
    }
    for number in 0..plan.consumers {
        all[number % threads].consumers.push(dial.consumer(number)?);
    }
    Ok(all)
}

/// Collects intervals until all threads have ended, and looks at the CPU clocks when measuring begins and ends.
fn follow(
    plan: &Plan,
    epoch: Instant,
    (threads, full): (&[Started], &Receiver<Box<Interval>>),
    watch: &mut Watch,
    measured: &mut Measured,
    live: &mut Live,
) {
    let begin = epoch + plan.warmup;
    let end = begin + plan.duration;
    loop {
        let now = Instant::now();
        watch.look(now >= begin, now >= end);
        let next = [begin, end].into_iter().find(|&at| at > now);
        let pause = next.map_or(Duration::from_secs(1), |next| next - now);
        match full.recv_timeout(pause) {
            Ok(mut interval) => {
                // what follows the end, planned or early, is the drain; intervals of the warm-up come here, too
                let ended = interval.to >= end.duration_since(epoch).as_nanos() as u64 || interval.drain;
                watch.look(ended || Instant::now() >= begin, ended);
                if let Some(line) = measured.add(&interval, threads.len()) {
                    live.show(&line);
                }
                interval.clear();
                threads[interval.thread].recycle(interval);
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    watch.look(true, true);
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn plan(duration: Duration) -> Plan {
        Plan {
            consumers: 1,
            providers: 1,
            mode: Mode::Closed,
            size: Size::Fixed(64),
            duration,
            warmup: Duration::ZERO,
            patience: Duration::from_secs(1),
            interval: duration,
            requests: None,
            threads: 1,
            pin: Vec::new(),
            spin: Duration::ZERO,
            seed: 1,
            broker: None,
        }
    }
}
