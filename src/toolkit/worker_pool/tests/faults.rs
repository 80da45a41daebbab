//! Jobs that fail, hang and panic.

use tokio::time::Instant;

use super::*;

#[tokio::test(start_paused = true)]
async fn waits_before_retries_double_up_to_the_cap() {
    let handler = ScriptedHandler::new(|_: &u32, _| Step::fail("busy"));
    let retry = regular(5).cap(ms(500));
    let pool = WorkerPool::start(Options::new(1).retry(retry), handler.clone()).unwrap();
    pool.submit(1).await.unwrap();
    let report = pool.shutdown(MINUTE).await;
    let began = handler.attempts().iter().map(|attempt| attempt.began.as_millis()).collect::<Vec<_>>();
    assert_eq!(began, [0, 100, 300, 700, 1200, 1700]);
    let failures = handler.failures();
    assert_eq!((failures.len(), failures[0].1.attempts), (1, 6));
    assert_eq!(failures[0].1.to_string(), "busy (after 6 attempts)");
    assert_eq!((report.metrics.retried, report.metrics.failed, report.metrics.processed), (5, 1, 0));
    assert_balanced(&report.metrics);
}

#[tokio::test(start_paused = true)]
async fn jitter_stays_within_its_part_of_the_wait() {
    let handler = ScriptedHandler::new(|_: &u32, attempt| if attempt == 1 { Step::fail("") } else { Step::done() });
    let pool = WorkerPool::start(Options::new(1).queue(64).retry(Retry::times(1).base(ms(1000))), handler.clone());
    let pool = pool.unwrap();
    for n in 0..50 {
        pool.submit(n).await.unwrap();
    }
    pool.shutdown(MINUTE).await;
    let second = handler.attempts().into_iter().filter(|attempt| attempt.number == 2);
    let waits = second.map(|attempt| attempt.began).collect::<Vec<_>>();
    assert_eq!(waits.len(), 50);
    assert!(waits.iter().all(|wait| *wait >= ms(500) && *wait <= ms(1001)), "{waits:?}");
    assert!(waits.windows(2).any(|pair| pair[1] > pair[0]), "no two waits differ: {waits:?}");
}

#[tokio::test(start_paused = true)]
async fn a_job_waiting_for_its_retry_keeps_no_worker() {
    let script = |job: &&str, attempt| match (*job, attempt) {
        ("fails", 1) => Step::fail("once"),
        ("long", _) => Step::done().after(ms(5000)),
        _ => Step::done(),
    };
    let handler = ScriptedHandler::new(script);
    let pool = WorkerPool::start(Options::new(2).retry(regular(1)), handler.clone()).unwrap();
    for job in ["fails", "quick", "long"] {
        pool.submit(job).await.unwrap();
    }
    pool.shutdown(MINUTE).await;
    let retried = handler.attempts().into_iter().find(|attempt| attempt.number == 2).unwrap();
    // whoever kept the time took the long job; the other worker is there for the retry
    assert_eq!(retried.began, ms(100));
}

#[tokio::test(start_paused = true)]
async fn with_too_many_parked_a_worker_waits_itself() {
    let handler = ScriptedHandler::new(|_: &u32, attempt| if attempt == 1 { Step::fail("") } else { Step::done() });
    let pool = WorkerPool::start(Options::new(1).queue(1).retry(regular(1)), handler.clone()).unwrap();
    for n in 0..4 {
        pool.submit(n).await.unwrap();
    }
    let report = pool.shutdown(MINUTE).await;
    assert_eq!(report.metrics.processed, 4);
    assert_eq!(handler.attempts().len(), 8);
    assert_balanced(&report.metrics);
}

#[tokio::test(start_paused = true)]
async fn what_no_retry_helps_is_not_retried() {
    let handler = ScriptedHandler::new(|_: &u32, _| Step::fail_for_good("no such user"));
    let pool = WorkerPool::start(Options::new(1).retry(regular(5)), handler.clone()).unwrap();
    pool.submit(1).await.unwrap();
    pool.shutdown(MINUTE).await;
    assert_eq!(handler.attempts().len(), 1);
    assert_eq!(handler.failures()[0].1.to_string(), "no such user");
}

#[tokio::test(start_paused = true)]
async fn a_job_that_never_ends_times_out_and_is_counted() {
    let handler = ScriptedHandler::new(|_: &u32, _| Step::hang());
    let options = Options::new(1).timeout(ms(1000)).retry(regular(1));
    let pool = WorkerPool::start(options, handler.clone()).unwrap();
    let start = Instant::now();
    let ticket = pool.submit_tracked(1).await.unwrap();
    let outcome = ticket.outcome().await;
    assert_eq!(outcome, Outcome::Failed("not done within 1s (after 2 attempts)".into()));
    assert_eq!(start.elapsed(), ms(2100));
    let report = pool.shutdown(MINUTE).await;
    assert_eq!((report.metrics.timeouts, report.metrics.failed), (2, 1));
    assert_eq!(handler.failures()[0].1, Failure { cause: Cause::TimedOut(ms(1000)), attempts: 2 });
    assert_eq!(report.metrics.attempt_time.sum(), ms(2000));
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_is_told_nothing_of_time_is_not_kept_for_ever() {
    // all workers, and what waits behind them
    let script = |job: &u32, _| if *job < 4 { Step::hang() } else { Step::done() };
    let pool = WorkerPool::start(Options::new(4), ScriptedHandler::new(script)).unwrap();
    let start = Instant::now();
    for job in 0..4 {
        pool.submit(job).await.unwrap();
    }
    assert_eq!(pool.submit_tracked(4).await.unwrap().outcome().await, Outcome::Done);
    assert_eq!(start.elapsed(), DEFAULT_TIMEOUT);
    let now = pool.metrics().snapshot();
    assert_eq!((now.timeouts, now.failed, now.processed), (4, 4, 1));
    assert_balanced(&now);
}

#[tokio::test(start_paused = true)]
async fn without_a_timeout_a_job_may_take_as_long_as_it_likes() {
    let day = Duration::from_secs(86_400);
    let handler = ScriptedHandler::new(move |_: &u32, _| Step::done().after(day));
    let pool = WorkerPool::start(Options::new(1).timeout(None), handler).unwrap();
    assert_eq!(pool.submit_tracked(1).await.unwrap().outcome().await, Outcome::Done);
    assert_eq!(pool.metrics().snapshot().timeouts, 0);
}

#[tokio::test(start_paused = true)]
async fn each_job_has_its_whole_time_whatever_came_before_it() {
    // the alarm is set for the first, and left there
    let script = |job: &u64, _| if *job == 0 { Step::hang() } else { Step::done().after(ms(*job)) };
    let pool = WorkerPool::start(Options::new(1).timeout(ms(1000)), ScriptedHandler::new(script)).unwrap();
    let start = Instant::now();
    for job in [900, 900, 0, 1, 0, 900] {
        pool.submit(job).await.unwrap();
    }
    let report = pool.shutdown(MINUTE).await;
    assert_eq!((report.metrics.processed, report.metrics.timeouts), (4, 2));
    assert_eq!(start.elapsed(), ms(900 + 900 + 1000 + 1 + 1000 + 900));
}

/// Jobs are of use for this long, in ms, from its start.
struct Perishable(Instant);

impl Handler for Perishable {
    type Job = u64;
    type Error = String;

    async fn process(&self, job: &mut u64, attempt: &Attempt<'_>) -> Result<(), String> {
        assert!(attempt.deadline().unwrap() <= self.0 + ms(*job));
        tokio::time::sleep(ms(200)).await;
        Err("not yet".into())
    }

    fn deadline(&self, job: &u64) -> Option<Instant> {
        Some(self.0 + ms(*job))
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_of_no_use_any_more_is_stopped_and_not_begun_again() {
    for (useful, times, outcome, ended) in [
        (150, true, "not done by its deadline", 150),
        (150, false, "not done by its deadline", 150),
        // over while it waits for its second attempt
        (250, true, "not done by its deadline (after 2 attempts)", 300),
        (250, false, "not done by its deadline (after 2 attempts)", 300),
        (9000, true, "not yet (after 3 attempts)", 900),
    ] {
        let start = Instant::now();
        let options = Options::new(1).retry(regular(2));
        let options = if times { options } else { options.without_times() };
        let pool = WorkerPool::start(options, Perishable(start)).unwrap();
        assert_eq!(pool.submit_tracked(useful).await.unwrap().outcome().await, Outcome::Failed(outcome.into()));
        assert_eq!(start.elapsed(), ms(ended));
        assert_eq!(pool.metrics().snapshot().timeouts, u64::from(useful < 9000));
    }
}

/// Times out as its job says; the job is the time in ms.
struct Patient;

impl Handler for Patient {
    type Job = u64;
    type Error = String;

    async fn process(&self, _: &mut u64, attempt: &Attempt<'_>) -> Result<(), String> {
        assert!(attempt.deadline().is_some());
        std::future::pending().await
    }

    fn timeout(&self, job: &u64) -> Option<Duration> {
        (*job > 0).then(|| ms(*job))
    }
}

#[tokio::test(start_paused = true)]
async fn a_job_may_have_a_timeout_of_its_own() {
    let pool = WorkerPool::start(Options::new(1).timeout(ms(700)), Patient).unwrap();
    let start = Instant::now();
    assert_eq!(pool.submit_tracked(50).await.unwrap().outcome().await, Outcome::Failed("not done within 50ms".into()));
    assert_eq!(start.elapsed(), ms(50));
    pool.submit_tracked(0).await.unwrap().outcome().await;
    assert_eq!(start.elapsed(), ms(750));
}

#[tokio::test(start_paused = true)]
async fn a_panic_ends_its_job_and_nothing_else() {
    let script = |job: &u32, _| if *job == 1 { Step::panic("slipped") } else { Step::done() };
    let handler = ScriptedHandler::new(script);
    let pool = WorkerPool::start(Options::new(1).retry(regular(5)), handler.clone()).unwrap();
    for job in [1, 2, 1, 3] {
        pool.submit(job).await.unwrap();
    }
    let report = pool.shutdown(MINUTE).await;
    assert_eq!((report.metrics.panics, report.metrics.failed, report.metrics.processed), (2, 2, 2));
    assert_eq!(handler.failures()[0].1, Failure { cause: Cause::Panicked("slipped".into()), attempts: 1 });
    assert_balanced(&report.metrics);
}

/// Panics wherever the pool calls it, as its job says.
struct Clumsy;

#[derive(Clone)]
struct Fragile(&'static str);

impl Drop for Fragile {
    fn drop(&mut self) {
        if self.0 == "drop" && !std::thread::panicking() {
            panic!("dropped");
        }
    }
}

#[derive(Debug)]
struct Unspeakable;

impl std::fmt::Display for Unspeakable {
    fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        panic!("no words")
    }
}

impl Handler for Clumsy {
    type Job = Fragile;
    type Error = Unspeakable;

    async fn process(&self, job: &mut Fragile, _: &Attempt<'_>) -> Result<(), Unspeakable> {
        if job.0 == "fine" || job.0 == "drop" { Ok(()) } else { Err(Unspeakable) }
    }

    async fn on_error(&self, job: Fragile, _: Failure<Unspeakable>) {
        assert!(job.0 != "on_error", "on error");
    }

    fn is_retryable(&self, _: &Unspeakable) -> bool {
        panic!("asked")
    }

    fn timeout(&self, job: &Fragile) -> Option<Duration> {
        assert!(job.0 != "timeout", "asked");
        None
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_anywhere_in_a_handler_stops_no_worker() {
    let pool = WorkerPool::start(Options::new(1), Clumsy).unwrap();
    let mut tickets = Vec::new();
    for job in ["timeout", "on_error", "is_retryable", "drop", "fine"] {
        tickets.push(pool.submit_tracked(Fragile(job)).await.unwrap());
    }
    assert_eq!(tickets.pop().unwrap().outcome().await, Outcome::Done);
    let report = pool.shutdown(MINUTE).await;
    assert!(report.metrics.panics >= 4, "{:?}", report.metrics);
    assert_balanced(&report.metrics);
}

/// Counts in the job how often it was tried.
struct Learner;

impl Handler for Learner {
    type Job = Vec<u32>;
    type Error = String;

    async fn process(&self, job: &mut Vec<u32>, attempt: &Attempt<'_>) -> Result<(), String> {
        job.push(attempt.number());
        if *job == [1, 2, 3] { Ok(()) } else { Err("go on".into()) }
    }
}

#[tokio::test(start_paused = true)]
async fn an_attempt_finds_what_the_one_before_left() {
    let pool = WorkerPool::start(Options::new(1).retry(regular(2)), Learner).unwrap();
    assert_eq!(pool.submit_tracked(Vec::new()).await.unwrap().outcome().await, Outcome::Done);
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_job_stops_where_it_stands() {
    let handler = ScriptedHandler::new(|_: &u32, _| Step::hang());
    let pool = WorkerPool::start(Options::new(1), handler.clone()).unwrap();
    let (running, queued) = (pool.submit_tracked(1).await.unwrap(), pool.submit_tracked(2).await.unwrap());
    tokio::time::sleep(ms(1)).await;
    assert_eq!(handler.attempts().len(), 1);
    queued.cancel();
    running.token().cancel();
    assert_eq!((running.outcome().await, queued.outcome().await), (Outcome::Cancelled, Outcome::Cancelled));
    let report = pool.shutdown(MINUTE).await;
    assert_eq!((handler.attempts().len(), report.metrics.cancelled), (1, 2));
    assert_balanced(&report.metrics);
}

#[tokio::test(start_paused = true)]
async fn a_job_cancelled_between_attempts_is_not_begun_again() {
    let handler = ScriptedHandler::new(|_: &u32, _| Step::fail("busy"));
    let pool = WorkerPool::start(Options::new(1).retry(regular(3)), handler.clone()).unwrap();
    let ticket = pool.submit_tracked(1).await.unwrap();
    tokio::time::sleep(ms(50)).await;
    ticket.cancel();
    assert_eq!(ticket.outcome().await, Outcome::Cancelled);
    assert_eq!(handler.attempts().len(), 1);
    assert_balanced(&pool.shutdown(MINUTE).await.metrics);
}
