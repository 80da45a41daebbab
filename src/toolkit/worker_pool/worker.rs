//! One worker: a task that takes a job, works on it to its end, and takes the next.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::Poll;
use std::time::Duration;

use tokio::task::coop::{consume_budget, has_budget_remaining};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::clock::Clock;
use super::crew::{Crew, Envelope, Hand, Idle, Lane, Place, Turn};
use super::handler::{Attempt, Cause, Failure, Handler};
use super::metrics::Tally;
use super::retry::Retry;
use super::source::Feed;
use super::ticket::Outcome;
use crate::toolkit::contain::contain;

/// Workers that are started at once, and idle ones that are kept. Further ones start when all are busy, and end when
/// they find nothing to do: a pool of very many takes no more memory than it needs.
const SPARE: usize = 64;

/// What the workers of a pool do, and for whom.
pub(super) struct Work<H: Handler, F> {
    pub(super) handler: H,
    pub(super) retry: Retry,
    pub(super) timeout: Option<Duration>,
    /// Whether to look at the clock.
    pub(super) times: bool,
    /// One a lane.
    pub(super) feeds: Box<[F]>,
    pub(super) crew: Arc<Crew<H::Job>>,
}

impl<H: Handler, F: Feed<H::Job>> Work<H, F> {
    /// Starts a worker for a lane, if there is a place for one more.
    pub(super) fn hire(self: &Arc<Self>, lane: usize) {
        let work = self.clone();
        self.crew.hire(|place, idle| Worker { work, lane, place }.run(idle));
    }

    /// Starts the workers that are always there: one for each lane, or some for the shared one.
    pub(super) fn start(self: &Arc<Self>) {
        let lanes = self.feeds.len();
        let first = if self.crew.is_shared() { self.crew.most.min(SPARE) } else { lanes };
        (0..first).for_each(|worker| self.hire(worker % lanes));
    }
}

struct Worker<H: Handler, F> {
    work: Arc<Work<H, F>>,
    lane: usize,
    place: Place<H::Job>,
}

/// Why a worker stopped waiting.
enum Woken {
    /// A new job is in hand.
    Job,
    /// There are no more new ones.
    Dry,
    /// Something may be due.
    Look,
    /// There are enough idle ones.
    Spare,
}

/// How an attempt ended.
enum Ended<E> {
    Done,
    Cancelled,
    /// With whether it may be tried again.
    Failed(Cause<E>, bool),
}

/// What became of a job.
enum Fate {
    Over,
    Parked,
}

impl<H: Handler, F: Feed<H::Job>> Worker<H, F> {
    async fn run(self, idle: Idle<H::Job>) {
        let mut idle = Some(idle);
        let mut hand = Hand::new(&self.work.crew);
        let mut clock = Clock::new(self.work.times);
        while self.next(&mut hand, &mut idle).await {
            if idle.take().is_some() {
                clock.stale();
            }
            let is_short = self.work.crew.is_short();
            if is_short {
                self.work.hire(self.lane);
            }
            self.lane().pass_on();
            let key = hand.job().key;
            // what user code may do outside of an attempt (a panic on drop, say) ends no worker
            match contain(self.work_on(&mut hand, is_short, &mut clock)).await {
                Ok(Fate::Parked) => {}
                Ok(Fate::Over) => self.lane().release(key),
                Err(text) => {
                    self.count_panic(&text);
                    hand.leave();
                    self.lane().release(key);
                }
            }
            if !has_budget_remaining() {
                clock.stale();
            }
            consume_budget().await;
        }
    }

    fn lane(&self) -> &Lane<H::Job> {
        &self.work.crew.lanes[self.lane]
    }

    fn tally(&self) -> Tally<'_> {
        self.work.crew.counts.tally(self.place.number)
    }

    /// Takes the next job in hand. Not so when there are no more, or nothing to do for so many workers.
    ///
    /// A job is put straight where it stays until it is over: it may be large.
    async fn next(&self, hand: &mut Hand<'_, H::Job>, idle: &mut Option<Idle<H::Job>>) -> bool {
        let (lane, feed) = (self.lane(), &self.work.feeds[self.lane]);
        loop {
            // made before looking, so that what happens after it is not missed
            let kicked = pin!(lane.kicked());
            let due = match lane.take() {
                Turn::Job(envelope) => {
                    hand.take(envelope);
                    return true;
                }
                Turn::At(due) => Some(due),
                Turn::Nothing => None,
            };
            let is_over = lane.is_over();
            if is_over && due.is_none() {
                return false;
            }
            let takes = !is_over && lane.has_room();
            let woken = async {
                let mut fed = pin!(feed.next());
                let fed = std::future::poll_fn(|cx| {
                    // looks at the end again, so that nothing is fetched after it
                    if lane.is_over() {
                        return Poll::Pending;
                    }
                    fed.as_mut().poll(cx).map(|fed| match fed {
                        Some(envelope) => {
                            hand.take(envelope);
                            Woken::Job
                        }
                        None => Woken::Dry,
                    })
                });
                tokio::select! {
                    biased;
                    fed = fed, if takes => fed,
                    () = kicked => Woken::Look,
                    () = until(due) => Woken::Look,
                }
            };
            match self.wait(woken, due.is_none(), idle).await {
                Woken::Job => {
                    if lane.pass(hand) {
                        return true;
                    }
                }
                Woken::Dry => lane.end(),
                Woken::Look => {}
                Woken::Spare => return false,
            }
        }
    }

    /// Waits, as one of the idle workers as soon as there is something to wait for.
    async fn wait(&self, woken: impl Future<Output = Woken>, may_end: bool, idle: &mut Option<Idle<H::Job>>) -> Woken {
        let crew = &self.work.crew;
        let may_end = may_end && crew.is_shared();
        let mut woken = pin!(woken);
        std::future::poll_fn(|cx| {
            if let Poll::Ready(woken) = woken.as_mut().poll(cx) {
                return Poll::Ready(woken);
            }
            if idle.is_none() {
                if may_end && crew.idle.load(Relaxed) >= SPARE {
                    return Poll::Ready(Woken::Spare);
                }
                *idle = Some(Idle::enter(crew));
            }
            Poll::Pending
        })
        .await
    }

    /// Works on a job until it is done, has failed for good, or is parked for its next attempt.
    async fn work_on(&self, hand: &mut Hand<'_, H::Job>, gives_way: bool, clock: &mut Clock) -> Fate {
        let tally = self.tally();
        if gives_way {
            // A new task is the next to run on the thread that made it, and on no other. So this one moves on: it may
            // keep its thread busy for long.
            clock.stale();
            step_aside().await;
        }
        loop {
            let ended = self.attempt(hand.job(), clock).await;
            let attempts = hand.job().attempts;
            match ended {
                Ended::Done => {
                    tally.count(|cell| &cell.processed);
                    tell(hand.give(), || Outcome::Done);
                    return Fate::Over;
                }
                Ended::Cancelled => {
                    tally.count(|cell| &cell.cancelled);
                    tell(hand.give(), || Outcome::Cancelled);
                    return Fate::Over;
                }
                Ended::Failed(_, true) if attempts <= self.work.retry.max_retries() => {}
                Ended::Failed(cause, _) => {
                    tally.count(|cell| &cell.failed);
                    self.give_up(hand.give(), Failure { cause, attempts }).await;
                    clock.stale();
                    return Fate::Over;
                }
            }
            tally.count(|cell| &cell.retried);
            hand.job().waiting = true;
            let wait = self.work.retry.draw(attempts);
            match self.lane().park(after(Instant::now(), wait), hand.give()) {
                Ok(()) => return Fate::Parked,
                // no room: then this worker waits for it, and takes no other job
                Err(envelope) => {
                    hand.take(envelope);
                    sleep(wait).await;
                    clock.stale();
                }
            }
        }
    }

    /// One attempt, within its time.
    async fn attempt(&self, envelope: &mut Envelope<H::Job>, clock: &mut Clock) -> Ended<H::Error> {
        let (work, tally) = (&*self.work, self.tally());
        let began = clock.begin();
        envelope.waiting = false;
        envelope.attempts += 1;
        if envelope.attempts == 1 {
            tally.count(|cell| &cell.begun);
            if let (Some(queued), Some(began)) = (envelope.queued, began) {
                tally.record(|cell| &cell.waits, began.saturating_duration_since(queued));
            }
        } else {
            tally.count(|cell| &cell.resumed);
        }
        let Envelope { job, attempts, stub, .. } = envelope;
        let token = stub.as_ref().map(|stub| &stub.token);
        if token.is_some_and(|token| token.is_cancelled()) {
            return Ended::Cancelled;
        }
        let (limit, last) =
            match catch_unwind(AssertUnwindSafe(|| (work.handler.timeout(job), work.handler.deadline(job)))) {
                Ok((own, last)) => (own.or(work.timeout), last),
                Err(_) => return self.panicked("asked for a job's time".into()),
            };
        let is_late = |now: Instant| last.is_some_and(|last| last <= now);
        // without the times of attempts the clock is spared for the first, which is stopped as soon as it waits
        if began.is_some_and(is_late) || *attempts > 1 && last.is_some() && is_late(Instant::now()) {
            return self.late();
        }
        let limit_at = limit.and_then(|limit| began.unwrap_or_else(Instant::now).checked_add(limit));
        let deadline = [limit_at, last].into_iter().flatten().min();
        let attempt = Attempt { number: *attempts, worker: self.place.number, deadline, closing: &work.crew.closing };
        let process = contain(async {
            let result = work.handler.process(job, &attempt).await;
            result.map_err(|error| {
                let again = work.handler.is_retryable(&error);
                (error, again)
            })
        });
        let mut process = pin!(process);
        let result = if deadline.is_none() && token.is_none() {
            process.await
        } else {
            tokio::select! {
                biased;
                result = &mut process => result,
                () = cancelled(token) => return self.timed(clock, began, Ended::Cancelled),
                () = clock.rings(deadline) => {
                    let ended = match limit {
                        Some(limit) if deadline == limit_at => {
                            tally.count(|cell| &cell.timeouts);
                            Ended::Failed(Cause::TimedOut(limit), true)
                        }
                        _ => self.late(),
                    };
                    return self.timed(clock, began, ended);
                }
            }
        };
        let ended = match result {
            Ok(Ok(())) => Ended::Done,
            Ok(Err((error, again))) => Ended::Failed(Cause::Failed(error), again),
            Err(text) => self.panicked(text),
        };
        self.timed(clock, began, ended)
    }

    /// Hands a failed job back to the handler.
    async fn give_up(&self, envelope: Envelope<H::Job>, failure: Failure<H::Error>) {
        let Envelope { job, stub, .. } = envelope;
        let work = &*self.work;
        let told = contain(async {
            if let Some(stub) = stub {
                stub.end(Outcome::Failed(failure.to_string()));
            }
            work.handler.on_error(job, failure).await;
        });
        let in_time = match work.timeout {
            None => Ok(told.await),
            Some(limit) => timeout(limit, told).await,
        };
        match in_time {
            Ok(Ok(())) => {}
            Ok(Err(text)) => self.count_panic(&text),
            Err(_) => {
                self.tally().count(|cell| &cell.timeouts);
                tracing::warn!("an error handler took too long");
            }
        }
    }

    fn late(&self) -> Ended<H::Error> {
        self.tally().count(|cell| &cell.timeouts);
        Ended::Failed(Cause::TooLate, false)
    }

    fn panicked(&self, text: String) -> Ended<H::Error> {
        self.count_panic(&text);
        Ended::Failed(Cause::Panicked(text), false)
    }

    fn count_panic(&self, text: &str) {
        self.tally().count(|cell| &cell.panics);
        tracing::error!(panic = text, "a handler panicked");
    }

    fn timed(&self, clock: &mut Clock, began: Option<Instant>, ended: Ended<H::Error>) -> Ended<H::Error> {
        if let Some(took) = clock.end(began) {
            self.tally().record(|cell| &cell.attempts, took);
        }
        ended
    }
}

/// Tells whoever follows the job, then lets go of it.
fn tell<J>(envelope: Envelope<J>, outcome: impl FnOnce() -> Outcome) {
    if let Some(stub) = envelope.stub {
        stub.end(outcome());
    }
}

/// Lets the tasks run that are in line; unlike [`tokio::task::yield_now`], keeps its own place in it.
async fn step_aside() {
    let mut aside = false;
    std::future::poll_fn(|cx| {
        if std::mem::replace(&mut aside, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

async fn cancelled(token: Option<&CancellationToken>) {
    match token {
        Some(token) => token.cancelled().await,
        None => std::future::pending().await,
    }
}

/// A moment that far from now; about 30 years for one that is past all clocks.
fn after(now: Instant, wait: Duration) -> Instant {
    now.checked_add(wait).unwrap_or_else(|| now + Duration::from_secs(86_400 * 365 * 30))
}
