//! A load thread's start and end.

use std::io;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::Plan;
use crate::engine::{Driver, Interval, Mode, Orders, Recorder};

type Ready = Result<(u32, Sender<Instant>), io::Error>;

/// What all load threads share.
pub(super) struct Flags {
    /// Threads whose requests are not all done.
    pub(super) running: Arc<AtomicUsize>,
    /// Ends the run early.
    pub(super) stop: Arc<AtomicBool>,
}

/// A load thread, as its starter sees it.
pub(super) struct Started {
    pub(super) id: u32,
    go: Sender<Instant>,
    back: Sender<Box<Interval>>,
    thread: JoinHandle<(io::Result<()>, Vec<String>)>,
}

impl Started {
    /// Starts its clock.
    pub(super) fn begin(&self, epoch: Instant) {
        let _ = self.go.send(epoch);
    }

    /// Gives an interval back to be filled again.
    pub(super) fn recycle(&self, interval: Box<Interval>) {
        let _ = self.back.send(interval);
    }

    /// Lets it end, after its clocks were read. Returns why connections ended.
    pub(super) fn join(self) -> io::Result<Vec<String>> {
        drop(self.go);
        let (result, complaints) = self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        result.map(|()| complaints)
    }
}

/// Makes what a load thread runs, on that thread.
pub(crate) type Make = Box<dyn FnOnce(Orders, Recorder) -> io::Result<Box<dyn Driver>> + Send>;

/// Starts a load thread; it waits for the clock to start.
pub(super) fn start(
    plan: &Plan,
    thread: usize,
    make: Make,
    out: Sender<Box<Interval>>,
    flags: &Flags,
) -> io::Result<Started> {
    let orders = orders(plan, thread, flags);
    let (back, empty) = channel();
    let (ready_out, ready) = channel::<Ready>();
    let cpu = (!plan.pin.is_empty()).then(|| plan.pin[thread % plan.pin.len()]);
    let body = move || {
        let open = matches!(orders.mode, Mode::Open { .. });
        let spans = (orders.warm, orders.end, orders.interval);
        let recorder = Recorder::new(thread, spans, open, out, empty);
        // a timer may fire up to this late, 50 us unless told otherwise: sends would be as late
        let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
        let mut driver = match cpu.map_or(Ok(()), |cpu| bind(&[cpu])).and_then(|()| make(orders, recorder)) {
            Ok(driver) => driver,
            Err(error) => {
                let _ = ready_out.send(Err(error));
                return (Ok(()), Vec::new());
            }
        };
        let (go, started) = channel();
        let _ = ready_out.send(Ok((rustix::thread::gettid().as_raw_nonzero().get() as u32, go)));
        let Ok(epoch) = started.recv() else { return (Ok(()), Vec::new()) };
        let result = driver.run(epoch);
        let complaints = driver.complaints();
        drop(driver);
        // its CPU clock is gone with the thread: stay until it was read
        let _ = started.recv();
        (result, complaints)
    };
    let thread = std::thread::Builder::new().name(format!("load-{thread}")).spawn(body)?;
    let (id, go) = ready.recv().map_err(|_| io::Error::other("ended at its start"))??;
    Ok(Started { id, go, back, thread })
}

fn orders(plan: &Plan, thread: usize, flags: &Flags) -> Orders {
    let nanos = |duration: Duration| duration.as_nanos() as u64;
    let threads = plan.threads.max(1);
    let share = |all: u64| all / threads as u64 + u64::from((thread as u64) < all % threads as u64);
    Orders {
        thread,
        threads,
        mode: plan.mode,
        size: plan.size.clone(),
        seed: plan.seed,
        epoch: Instant::now(),
        warm: nanos(plan.warmup),
        end: nanos(plan.warmup).saturating_add(nanos(plan.duration)),
        patience: nanos(plan.patience),
        interval: nanos(plan.interval),
        requests: plan.requests.map(share),
        spin: nanos(plan.spin),
        running: Arc::clone(&flags.running),
        stop: Arc::clone(&flags.stop),
    }
}

/// Binds this thread to these CPUs.
pub(crate) fn bind(cpus: &[usize]) -> io::Result<()> {
    let mut set = rustix::thread::CpuSet::new();
    for &cpu in cpus {
        if cpu >= rustix::thread::CpuSet::MAX_CPU {
            return Err(io::Error::other(format!("there is no CPU {cpu}")));
        }
        set.set(cpu);
    }
    rustix::thread::sched_setaffinity(None, &set)
        .map_err(|error| io::Error::other(format!("can't bind to CPU {cpus:?}: {error}")))
}
