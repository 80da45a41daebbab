//! The end of a pool.

use std::sync::{Mutex, mpsc};

use tokio::time::Instant;

use super::*;

#[tokio::test(start_paused = true)]
async fn a_shutdown_does_what_was_submitted() {
    let handler = ScriptedHandler::new(|job: &u64, attempt| {
        if job.is_multiple_of(3) && attempt == 1 { Step::fail("once") } else { Step::done().after(ms(*job)) }
    });
    let pool = WorkerPool::start(Options::new(3).retry(regular(1)), handler).unwrap();
    for job in 0..30 {
        pool.submit(job).await.unwrap();
    }
    let report = pool.shutdown(MINUTE).await;
    assert!(report.is_complete());
    assert_eq!((report.metrics.processed, report.metrics.active_workers), (30, 0));
    assert_eq!(pool.submit(1).await.unwrap_err(), SubmitError::Closed(1));
    assert_eq!(pool.try_submit(1).unwrap_err(), SubmitError::Closed(1));
    assert!(pool.is_closed());
    assert!(pool.shutdown(MINUTE).await.is_complete());
}

#[tokio::test(start_paused = true)]
async fn what_is_not_done_by_the_deadline_is_reported() {
    let script = |job: &&str, _| match *job {
        "hangs" => Step::hang(),
        "fails" => Step::fail("later, maybe"),
        _ => Step::done(),
    };
    let handler = ScriptedHandler::new(script);
    let retry = Retry::times(3).base(MINUTE).cap(MINUTE);
    let pool = WorkerPool::start(Options::new(1).retry(retry), handler.clone()).unwrap();
    let mut tickets = Vec::new();
    for job in ["done", "fails", "hangs", "queued", "too"] {
        tickets.push(pool.submit_tracked(job).await.unwrap());
    }
    let start = Instant::now();
    let mut report = pool.shutdown(ms(500)).await;
    assert_eq!((start.elapsed(), report.stuck_workers), (ms(500), 0));
    report.abandoned.sort_by_key(|left| left.job);
    let left = report.abandoned.iter().map(|left| (left.job, left.attempts)).collect::<Vec<_>>();
    assert_eq!(left, [("fails", 1), ("hangs", 1), ("queued", 0), ("too", 0)]);
    assert_eq!((report.metrics.processed, report.metrics.abandoned), (1, 4));
    assert_balanced(&report.metrics);
    for (ticket, done) in tickets.into_iter().zip([true, false, false, false, false]) {
        assert_eq!(ticket.outcome().await, if done { Outcome::Done } else { Outcome::Abandoned });
    }
    // the one that hung was dropped where it stood
    assert!(handler.attempts().iter().all(|attempt| attempt.ended.is_some()));
}

#[tokio::test(start_paused = true)]
async fn jobs_held_behind_a_retry_are_reported_too() {
    let handler = ScriptedHandler::new(|_: &u32, _| Step::fail("later, maybe"));
    let retry = Retry::times(3).base(MINUTE).cap(MINUTE);
    let pool = WorkerPool::start_ordered(Options::new(2).retry(retry), handler, |_: &u32| ()).unwrap();
    for job in 0..5 {
        pool.submit(job).await.unwrap();
    }
    let report = pool.shutdown(ms(10)).await;
    assert_eq!(report.abandoned.len(), 5);
    assert_eq!(report.abandoned.iter().map(|left| left.attempts).sum::<u32>(), 1);
    assert_balanced(&report.metrics);
}

#[tokio::test(start_paused = true)]
async fn those_who_wait_for_room_are_turned_away() {
    let pool = WorkerPool::start(Options::new(1).queue(1), ScriptedHandler::new(|_: &u32, _| Step::hang())).unwrap();
    pool.submit(1).await.unwrap();
    tokio::time::sleep(ms(1)).await;
    pool.submit(2).await.unwrap();
    let waiting = tokio::spawn({
        let pool = pool.clone();
        async move { pool.submit(3).await }
    });
    tokio::time::sleep(ms(1)).await;
    let report = pool.shutdown(ms(10)).await;
    assert_eq!(waiting.await.unwrap().unwrap_err().into_job(), 3);
    assert_eq!(report.metrics.submitted, 2);
    assert_balanced(&report.metrics);
}

/// Ends as soon as the pool begins to close.
struct Considerate;

impl Handler for Considerate {
    type Job = ();
    type Error = String;

    async fn process(&self, (): &mut (), attempt: &Attempt<'_>) -> Result<(), String> {
        attempt.closing().cancelled().await;
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn a_handler_may_learn_of_the_shutdown() {
    let pool = WorkerPool::start(Options::new(1), Considerate).unwrap();
    pool.submit(()).await.unwrap();
    let start = Instant::now();
    let report = pool.shutdown(MINUTE).await;
    assert_eq!((report.metrics.processed, start.elapsed()), (1, Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn when_the_last_handle_is_dropped_jobs_are_still_done() {
    let handler = ScriptedHandler::new(|_: &u32, _| Step::done().after(ms(10)));
    let pool = WorkerPool::start(Options::new(2), handler.clone()).unwrap();
    let metrics = pool.metrics();
    for job in 0..10 {
        pool.submit(job).await.unwrap();
    }
    drop(pool);
    tokio::time::sleep(MINUTE).await;
    let now = metrics.snapshot();
    assert_eq!((now.processed, now.active_workers), (10, 0));
    assert_balanced(&now);
}

/// Blocks its thread until it is told to go on.
struct Blocker(Mutex<mpsc::Receiver<()>>);

impl Handler for Blocker {
    type Job = ();
    type Error = String;

    async fn process(&self, (): &mut (), _: &Attempt<'_>) -> Result<(), String> {
        self.0.lock().unwrap().recv().map_err(|error| error.to_string())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blocked_worker_is_reported_and_not_waited_for() {
    let (release, blocked) = mpsc::channel();
    let pool = WorkerPool::start(Options::new(1), Blocker(Mutex::new(blocked))).unwrap();
    pool.submit(()).await.unwrap();
    while pool.metrics().snapshot().running == 0 {
        tokio::task::yield_now().await;
    }
    let report = pool.shutdown(Duration::ZERO).await;
    assert_eq!((report.stuck_workers, report.abandoned.len()), (1, 0));
    assert!(!report.is_complete());
    release.send(()).unwrap();
    while pool.metrics().snapshot().active_workers > 0 {
        tokio::task::yield_now().await;
    }
}
