//! Never more than N at once, never more queued than allowed, and options that make no sense.

use std::sync::Arc;

use proptest::prelude::*;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever jobs do, no more than N run at once, N do when there is enough to do, and each job ends once.
    #[test]
    fn never_more_than_n_run_at_once(
        workers in 1_usize..12, queue in 1_usize..40, retries in 0_u32..4,
        jobs in proptest::collection::vec((0_u64..50, 0_u32..6), 1..80),
    ) {
        let most = paused().block_on(async {
            let handler = ScriptedHandler::new(|&(time, failures): &(u64, u32), attempt| {
                // the last sort panics, never ends ...
                let step = match failures {
                    5 => Step::panic("five"),
                    4 => Step::hang(),
                    n if attempt <= n => Step::fail("not yet"),
                    _ => Step::done(),
                };
                step.after(ms(time))
            });
            let options = Options::new(workers).queue(queue).retry(Retry::times(retries)).timeout(ms(60));
            let pool = WorkerPool::start(options, handler.clone()).unwrap();
            for job in &jobs {
                pool.submit(*job).await.unwrap();
            }
            let report = pool.shutdown(MINUTE * 60).await;
            assert!(report.is_complete());
            assert_balanced(&report.metrics);
            assert_eq!(report.metrics.submitted, jobs.len() as u64);
            let done = jobs.iter().filter(|(_, failures)| *failures <= retries && *failures < 4).count();
            assert_eq!(report.metrics.processed, done as u64);
            let by_worker = report.metrics.workers.iter().map(|worker| worker.processed + worker.failed).sum::<u64>();
            assert_eq!(by_worker, report.metrics.processed + report.metrics.failed);
            assert_eq!(handler.failures().len() as u64, report.metrics.failed);
            handler.most_at_once()
        });
        prop_assert!(most <= workers, "{most} of {workers}");
    }
}

#[test]
fn never_more_than_n_run_at_once_on_many_threads() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_time().build().unwrap();
    runtime.block_on(async {
        let permits = Arc::new(Semaphore::new(3));
        let handler = handler_fn({
            let permits = permits.clone();
            move |n: u32| {
                let permits = permits.clone();
                async move {
                    let permit = permits.try_acquire().map_err(|_| "a fourth one runs")?;
                    for _ in 0..n % 4 {
                        tokio::task::yield_now().await;
                    }
                    drop(permit);
                    Ok::<_, &str>(())
                }
            }
        });
        let pool = WorkerPool::start(Options::new(3).queue(16), handler).unwrap();
        let submitters = (0..4).map(|_| {
            let pool = pool.clone();
            tokio::spawn(async move {
                for n in 0..1000 {
                    pool.submit(n).await.unwrap();
                }
            })
        });
        for submitter in submitters.collect::<Vec<_>>() {
            submitter.await.unwrap();
        }
        let report = pool.shutdown(MINUTE).await;
        assert_eq!((report.metrics.processed, report.metrics.failed), (4000, 0));
        assert!(report.is_complete());
    });
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_makes_submit_wait_and_try_submit_say_so() {
    let handler = ScriptedHandler::new(|_: &u32, _| Step::done().after(ms(10)));
    let pool = WorkerPool::start(Options::new(1).queue(2), handler).unwrap();
    pool.submit(1).await.unwrap();
    tokio::time::sleep(ms(1)).await;
    for n in [2, 3] {
        pool.try_submit(n).unwrap();
    }
    assert_eq!(pool.try_submit(4).unwrap_err(), SubmitError::Full(4));
    let now = pool.metrics().snapshot();
    assert_eq!((now.queued, now.running, now.rejected, now.submitted), (2, 1, 1, 3));
    // who gives up waiting has submitted nothing, and takes no room
    assert!(timeout(ms(1), pool.submit(5)).await.is_err());
    timeout(ms(20), pool.submit(6)).await.unwrap().unwrap();
    let report = pool.shutdown(MINUTE).await;
    assert_eq!((report.metrics.processed, report.metrics.submitted), (4, 4));
}

#[tokio::test(start_paused = true)]
async fn half_of_the_queue_is_always_taken() {
    let pool = WorkerPool::start(Options::new(1).queue(100), ScriptedHandler::willing()).unwrap();
    for n in 0..50 {
        pool.try_submit(n).unwrap();
    }
    assert_eq!(pool.shutdown(MINUTE).await.metrics.processed, 50);
}

#[tokio::test(start_paused = true)]
async fn workers_come_as_needed_and_leave_after_a_peak() {
    let handler = ScriptedHandler::new(|_: &u32, _| Step::done().after(ms(10)));
    let pool = WorkerPool::start(Options::new(500), handler.clone()).unwrap();
    pool.submit(0).await.unwrap();
    tokio::time::sleep(ms(20)).await;
    assert_eq!(pool.metrics().snapshot().active_workers, 64);
    for n in 0..500 {
        pool.submit(n).await.unwrap();
    }
    tokio::time::sleep(ms(5)).await;
    assert_eq!((pool.metrics().snapshot().active_workers, handler.most_at_once()), (500, 500));
    tokio::time::sleep(ms(20)).await;
    let left = pool.metrics().snapshot().active_workers;
    assert!((1..=64).contains(&left), "{left}");
    for n in 0..100 {
        pool.submit(n).await.unwrap();
    }
    assert_eq!(pool.shutdown(MINUTE).await.metrics.processed, 601);
}

#[tokio::test]
async fn options_that_make_no_sense_are_refused() {
    let refused = |options: Options| WorkerPool::start(options, ScriptedHandler::<u32>::willing()).unwrap_err();
    assert_eq!(refused(Options::new(0)), ConfigError::NoWorkers);
    assert_eq!(refused(Options::new(usize::MAX)), ConfigError::TooManyWorkers(usize::MAX));
    assert_eq!(refused(Options::new(1).queue(0)), ConfigError::NoQueue);
    assert_eq!(refused(Options::new(1).queue(usize::MAX)), ConfigError::QueueTooLarge(usize::MAX));
    assert_eq!(refused(Options::new(1).timeout(Duration::ZERO)), ConfigError::ZeroTimeout);
    let retry = Retry::times(1).base(ms(0));
    assert_eq!(refused(Options::new(1).retry(retry)), ConfigError::Retry(RetryError::ZeroBase));
    let ordered = WorkerPool::start_ordered(Options::new(4).queue(3), ScriptedHandler::willing(), |n: &u32| *n);
    let error = ordered.unwrap_err();
    assert_eq!(error, ConfigError::QueueBelowWorkers { queue: 3, workers: 4 });
    assert_eq!(
        error.to_string(),
        "a queue for 3 jobs can't be shared out to 4 workers that keep order; expected at least 4"
    );
    WorkerPool::start_ordered(Options::new(4).queue(4), ScriptedHandler::willing(), |n: &u32| *n).unwrap();
}

#[test]
fn without_a_runtime_there_is_an_error_and_no_panic() {
    let error = WorkerPool::start(Options::new(1), ScriptedHandler::<u32>::willing()).unwrap_err();
    assert_eq!(error, ConfigError::NoRuntime);
}

#[tokio::test(start_paused = true)]
async fn a_timeout_past_all_clocks_is_none() {
    let options = Options::new(1).timeout(Duration::MAX).retry(Retry::times(1).base(Duration::MAX).cap(Duration::MAX));
    let script = |_: &u32, attempt| if attempt == 1 { Step::fail("") } else { Step::done() };
    let pool = WorkerPool::start(options, ScriptedHandler::new(script)).unwrap();
    pool.submit(1).await.unwrap();
    let report = pool.shutdown(ms(10)).await;
    assert_eq!((report.metrics.abandoned, report.abandoned[0].attempts), (1, 1));
}
