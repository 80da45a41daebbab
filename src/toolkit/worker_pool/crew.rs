//! A pool's workers as a whole: which there are, what waits for another attempt, what a stop leaves over.

use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::metrics::Counts;
use super::parked::Parked;
use super::ticket::{Outcome, Stub};

/// A job and what the pool knows of it.
#[derive(Debug)]
pub(super) struct Envelope<J> {
    pub(super) job: J,
    /// The hash of its key; jobs of one key keep their order in an ordered pool.
    pub(super) key: u64,
    /// When it was submitted; `None` for one that a worker fetched itself.
    pub(super) queued: Option<Instant>,
    /// Attempts begun.
    pub(super) attempts: u32,
    /// Whether it waits for its next one.
    pub(super) waiting: bool,
    pub(super) stub: Option<Box<Stub>>,
}

impl<J> Envelope<J> {
    pub(super) fn new(job: J, key: u64, queued: Option<Instant>, stub: Option<Box<Stub>>) -> Envelope<J> {
        Envelope { job, key, queued, attempts: 0, waiting: false, stub }
    }
}

/// Where some workers get their jobs: all of them from one lane, or each from its own if order is kept.
#[derive(Debug)]
pub(super) struct Lane<J> {
    parked: Mutex<Parked<Envelope<J>>>,
    /// Whether anything is parked: spares the lock as long as nothing fails.
    stirs: AtomicBool,
    /// For an idle worker to look at what is parked.
    kick: Notify,
    /// No more jobs come.
    over: AtomicBool,
    /// Jobs that may be parked while new ones are taken.
    limit: usize,
}

/// What a lane has for a worker.
pub(super) enum Turn<J> {
    Job(Envelope<J>),
    /// Something, but not before.
    At(Instant),
    Nothing,
}

impl<J> Lane<J> {
    fn new(limit: usize, ordered: bool) -> Lane<J> {
        let parked = Mutex::new(Parked::new(ordered));
        Lane { parked, stirs: AtomicBool::new(false), kick: Notify::new(), over: AtomicBool::new(false), limit }
    }

    pub(super) fn kicked(&self) -> tokio::sync::futures::Notified<'_> {
        self.kick.notified()
    }

    pub(super) fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    /// No more jobs come: those that wait for one are told.
    pub(super) fn end(&self) {
        self.over.store(true, Ordering::Release);
        self.kick.notify_waiters();
    }

    /// A parked job whose turn it is.
    pub(super) fn take(&self) -> Turn<J> {
        if !self.stirs.load(Ordering::Acquire) {
            return Turn::Nothing;
        }
        let mut parked = self.lock();
        match parked.take(Instant::now()) {
            Some(envelope) => {
                self.settle(&parked);
                Turn::Job(envelope)
            }
            None => parked.next().map_or(Turn::Nothing, Turn::At),
        }
    }

    /// Whether new jobs may be taken, or too many are parked.
    pub(super) fn has_room(&self) -> bool {
        !self.stirs.load(Ordering::Acquire) || self.lock().len() < self.limit
    }

    /// Whether the new job in hand may be worked on. Else it is taken, to wait behind another of its key.
    pub(super) fn pass(&self, hand: &mut Hand<'_, J>) -> bool {
        if !self.stirs.load(Ordering::Acquire) {
            return true;
        }
        let envelope = hand.give();
        match self.lock().pass(envelope.key, envelope) {
            Some(envelope) => {
                hand.take(envelope);
                true
            }
            None => false,
        }
    }

    /// Keeps a job until `at`; gives it back if there is no room.
    pub(super) fn park(&self, at: Instant, envelope: Envelope<J>) -> Result<(), Envelope<J>> {
        let mut parked = self.lock();
        if parked.len() >= self.limit {
            return Err(envelope);
        }
        parked.park(at, envelope.key, envelope);
        self.settle(&parked);
        Ok(())
    }

    /// A job of this key is over.
    pub(super) fn release(&self, key: u64) {
        if self.stirs.load(Ordering::Acquire) {
            let mut parked = self.lock();
            parked.over(key);
            self.settle(&parked);
        }
    }

    /// The worker who kept the time may be busy for long: has another one do it.
    pub(super) fn pass_on(&self) {
        if self.stirs.load(Ordering::Acquire) {
            self.kick.notify_one();
        }
    }

    fn settle(&self, parked: &Parked<Envelope<J>>) {
        self.stirs.store(!parked.is_idle(), Ordering::Release);
    }

    fn lock(&self) -> MutexGuard<'_, Parked<Envelope<J>>> {
        self.parked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What all workers of a pool share.
#[derive(Debug)]
pub(super) struct Crew<J> {
    pub(super) counts: Arc<Counts>,
    pub(super) lanes: Box<[Lane<J>]>,
    /// Cancelled when a shutdown begins.
    pub(super) closing: CancellationToken,
    /// Workers that wait for a job.
    pub(super) idle: AtomicUsize,
    /// The most workers there may be.
    pub(super) most: usize,
    places: Mutex<Places>,
    alive: watch::Sender<usize>,
    left: Mutex<Vec<Envelope<J>>>,
}

/// Who works under which number.
#[derive(Debug, Default)]
struct Places {
    tasks: Vec<Option<AbortHandle>>,
    free: Vec<usize>,
    stopped: bool,
}

/// What a shutdown left over.
#[derive(Debug)]
pub(super) struct Leftover<J> {
    pub(super) jobs: Vec<Envelope<J>>,
    pub(super) stuck: usize,
}

/// How long workers told to stop get to do so: those whose handler gives up control at all need no more.
const GRACE: Duration = Duration::from_millis(500);

impl<J: Send + 'static> Crew<J> {
    /// A crew of `most` workers at most. `ordered`: each with a lane of its own; `parked` is each lane's limit.
    pub(super) fn new(most: usize, ordered: bool, parked: usize) -> Arc<Crew<J>> {
        let lanes = if ordered { most } else { 1 };
        Arc::new(Crew {
            counts: Arc::new(Counts::new(most)),
            lanes: (0..lanes).map(|_| Lane::new(parked, ordered)).collect(),
            closing: CancellationToken::new(),
            idle: AtomicUsize::new(0),
            most,
            places: Mutex::default(),
            alive: watch::Sender::new(0),
            left: Mutex::default(),
        })
    }

    /// Whether workers share a lane, and come and go; where order is kept, each lane has its one from start to end.
    pub(super) fn is_shared(&self) -> bool {
        self.lanes.len() == 1
    }

    /// Whether everyone is busy and one more may be started.
    pub(super) fn is_short(&self) -> bool {
        self.is_shared()
            && self.idle.load(Ordering::Relaxed) == 0
            && self.counts.workers.load(Ordering::Relaxed) < self.most
    }

    /// Starts one more worker, if there is a place for it. It counts as idle until it takes a job.
    pub(super) fn hire<F>(self: &Arc<Self>, worker: impl FnOnce(Place<J>, Idle<J>) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let mut places = self.places();
        if places.stopped || (places.free.is_empty() && places.tasks.len() == self.most) {
            return;
        }
        let number = places.free.pop().unwrap_or(places.tasks.len());
        if number == places.tasks.len() {
            places.tasks.push(None);
        }
        self.counts.workers.fetch_add(1, Ordering::Relaxed);
        self.alive.send_modify(|alive| *alive += 1);
        let place = Place { crew: self.clone(), number };
        let task = tokio::spawn(worker(place, Idle::enter(self)));
        places.tasks[number] = Some(task.abort_handle());
    }

    /// Waits until no worker is there any more.
    pub(super) async fn gone(&self) {
        // the sender is `self`'s
        let _ = self.alive.subscribe().wait_for(|alive| *alive == 0).await;
    }

    /// Waits until the workers have ended by themselves, or makes them. Gives what they had in hand or parked.
    pub(super) async fn end(&self, deadline: Duration) -> Leftover<J> {
        self.closing.cancel();
        if timeout(deadline, self.gone()).await.is_err() {
            self.stop();
            // a handler that blocks its thread can't be stopped; it isn't waited for either
            let _ = timeout(GRACE, self.gone()).await;
        }
        let mut jobs = std::mem::take(&mut *self.left.lock().unwrap_or_else(PoisonError::into_inner));
        jobs.extend(self.lanes.iter().flat_map(|lane| lane.lock().drain()));
        Leftover { jobs, stuck: *self.alive.borrow() }
    }

    fn stop(&self) {
        let mut places = self.places();
        places.stopped = true;
        places.tasks.iter().flatten().for_each(AbortHandle::abort);
    }

    /// Counts what is left over, and tells those who wait for it.
    pub(super) fn write_off(&self, envelope: &mut Envelope<J>) {
        let counts = &self.counts;
        let count = match envelope.attempts {
            0 => &counts.abandoned_queued,
            _ if envelope.waiting => &counts.abandoned_waiting,
            _ => &counts.abandoned_running,
        };
        count.fetch_add(1, Ordering::Relaxed);
        if let Some(stub) = envelope.stub.take() {
            stub.end(Outcome::Abandoned);
        }
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A worker's number; free again when the worker is gone, however it went.
#[derive(Debug)]
pub(super) struct Place<J: Send + 'static> {
    crew: Arc<Crew<J>>,
    pub(super) number: usize,
}

impl<J: Send + 'static> Drop for Place<J> {
    fn drop(&mut self) {
        let mut places = self.crew.places();
        places.tasks[self.number] = None;
        places.free.push(self.number);
        drop(places);
        self.crew.counts.workers.fetch_sub(1, Ordering::Relaxed);
        self.crew.alive.send_modify(|alive| *alive -= 1);
    }
}

/// Counts a worker among the idle ones.
#[derive(Debug)]
pub(super) struct Idle<J>(Arc<Crew<J>>);

impl<J> Idle<J> {
    pub(super) fn enter(crew: &Arc<Crew<J>>) -> Idle<J> {
        crew.idle.fetch_add(1, Ordering::Relaxed);
        Idle(crew.clone())
    }
}

impl<J> Drop for Idle<J> {
    fn drop(&mut self) {
        self.0.idle.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A worker's hand. The job in it is left over, should the worker be stopped.
#[derive(Debug)]
pub(super) struct Hand<'a, J> {
    envelope: Option<Envelope<J>>,
    crew: &'a Crew<J>,
}

impl<'a, J> Hand<'a, J> {
    pub(super) fn new(crew: &'a Crew<J>) -> Hand<'a, J> {
        Hand { envelope: None, crew }
    }

    pub(super) fn take(&mut self, envelope: Envelope<J>) {
        self.envelope = Some(envelope);
    }

    /// The job. Only for who has taken one.
    pub(super) fn job(&mut self) -> &mut Envelope<J> {
        self.envelope.as_mut().expect("a job in hand")
    }

    /// Gives the job away. Only for who has taken one.
    pub(super) fn give(&mut self) -> Envelope<J> {
        self.envelope.take().expect("a job in hand")
    }

    /// Leaves the job over, if there is one.
    pub(super) fn leave(&mut self) {
        if let Some(envelope) = self.envelope.take() {
            self.crew.left.lock().unwrap_or_else(PoisonError::into_inner).push(envelope);
        }
    }
}

impl<J> Drop for Hand<'_, J> {
    fn drop(&mut self) {
        self.leave();
    }
}
