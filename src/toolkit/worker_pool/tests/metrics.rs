//! What a pool says of itself.

use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;

use super::*;

fn page(pool: &Metrics) -> String {
    let mut registry = Registry::default();
    pool.register(&mut registry);
    let mut page = String::new();
    encode(&mut page, &registry).unwrap();
    page
}

#[tokio::test(start_paused = true)]
async fn every_metric_is_on_the_page() {
    let script = |job: &u32, _| match job {
        0 => Step::fail("zero"),
        1 => Step::hang(),
        2 => Step::panic("two"),
        _ => Step::done().after(ms(30)),
    };
    let options = Options::new(1).queue(4).timeout(ms(50)).retry(Retry::times(1).base(ms(10)));
    let pool = WorkerPool::start(options, ScriptedHandler::new(script)).unwrap();
    for job in 0..5 {
        pool.submit(job).await.unwrap();
        tokio::time::sleep(ms(200)).await;
    }
    pool.shutdown(MINUTE).await;
    let page = page(&pool.metrics());
    for line in [
        "worker_pool_submitted_total 5",
        "worker_pool_rejected_total 0",
        "worker_pool_retried_total 2",
        "worker_pool_cancelled_total 0",
        "worker_pool_timeouts_total 2",
        "worker_pool_panics_total 1",
        "worker_pool_abandoned_total 0",
        "worker_pool_queued 0",
        "worker_pool_running 0",
        "worker_pool_waiting 0",
        "worker_pool_workers 0",
        "worker_pool_processed_total{worker=\"0\"} 2",
        "worker_pool_failed_total{worker=\"0\"} 3",
        "worker_pool_queue_seconds_count 5",
        "worker_pool_attempt_seconds_count 7",
        "worker_pool_attempt_seconds_bucket{le=\"+Inf\"} 7",
    ] {
        assert!(page.lines().any(|has| has == line), "no {line} in\n{page}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_large_pool_makes_no_large_page() {
    let pool = WorkerPool::start(Options::new(10_000), ScriptedHandler::<u32>::willing()).unwrap();
    assert_eq!(page(&pool.metrics()).matches("worker_pool_processed_total{").count(), MAX_WORKER_SERIES);
}

#[tokio::test(start_paused = true)]
async fn figures_tell_what_goes_on() {
    let script = |job: &u32, attempt| match (*job, attempt) {
        (0, 1) => Step::fail("once"),
        _ => Step::done().after(ms(1000)),
    };
    let pool = WorkerPool::start(Options::new(1).retry(regular(1)), ScriptedHandler::new(script)).unwrap();
    for job in 0..4 {
        pool.submit(job).await.unwrap();
    }
    tokio::time::sleep(ms(10)).await;
    let now = pool.metrics().snapshot();
    assert_eq!((now.submitted, now.queued, now.running, now.waiting, now.retried), (4, 2, 1, 1, 1));
    let report = pool.shutdown(MINUTE).await;
    assert_eq!(report.metrics.queue_time.count(), 4);
    assert_eq!(report.metrics.attempt_time.sum(), ms(4000));
    assert_eq!(report.metrics.workers, [WorkerSnapshot { processed: 4, failed: 0, retried: 1 }]);
    assert_balanced(&report.metrics);
}
