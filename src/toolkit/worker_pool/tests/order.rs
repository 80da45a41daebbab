//! Order by key.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

/// A job: its number, its key, how long an attempt takes, how many fail.
type Job = (usize, u8, u64, u32);

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Jobs of one key are worked on one at a time, to their end, in the order they were submitted, by one worker.
    #[test]
    fn jobs_of_one_key_keep_their_order(
        workers in 1_usize..6, room in 1_usize..10,
        jobs in proptest::collection::vec((0_u8..8, 0_u64..30, 0_u32..4), 1..80),
    ) {
        let jobs = jobs.into_iter().enumerate().map(|(n, (key, time, fail))| (n, key, time, fail)).collect::<Vec<Job>>();
        let (attempts, report) = paused().block_on(async {
            let handler = ScriptedHandler::new(|&(_, _, time, failures): &Job, attempt| {
                let step = if attempt <= failures { Step::fail("not yet") } else { Step::done() };
                step.after(ms(time))
            });
            // two retries: some jobs fail for good, and make way
            let options = Options::new(workers).queue(workers * room).retry(Retry::times(2).base(ms(7)));
            let pool = WorkerPool::start_ordered(options, handler.clone(), |job: &Job| job.1).unwrap();
            for job in &jobs {
                pool.submit(*job).await.unwrap();
            }
            let report = pool.shutdown(MINUTE * 60).await;
            (handler.attempts(), report)
        });
        prop_assert!(report.is_complete());
        assert_balanced(&report.metrics);
        let mut by_key: HashMap<u8, Vec<_>> = HashMap::new();
        for attempt in attempts {
            by_key.entry(attempt.job.1).or_default().push(attempt);
        }
        for attempts in by_key.values() {
            let order = attempts.iter().map(|attempt| (attempt.job.0, attempt.number)).collect::<Vec<_>>();
            prop_assert!(order.is_sorted(), "{order:?}");
            prop_assert!(attempts.iter().all(|attempt| attempt.worker == attempts[0].worker));
            prop_assert!(attempts.windows(2).all(|pair| pair[0].ended.unwrap() <= pair[1].began), "{attempts:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn other_keys_dont_wait_for_a_retry() {
    let script = |&(key, n): &(u8, u8), attempt| {
        if key == 0 && n == 0 && attempt == 1 { Step::fail("once") } else { Step::done() }
    };
    let handler = ScriptedHandler::new(script);
    // one worker, so that all keys share it
    let options = Options::new(1).retry(regular(1));
    let pool = WorkerPool::start_ordered(options, handler.clone(), |job: &(u8, u8)| job.0).unwrap();
    for job in [(0, 0), (0, 1), (1, 0), (0, 2), (1, 1)] {
        pool.submit(job).await.unwrap();
    }
    pool.shutdown(MINUTE).await;
    let order = handler.attempts().iter().map(|attempt| attempt.job).collect::<Vec<_>>();
    assert_eq!(order, [(0, 0), (1, 0), (1, 1), (0, 0), (0, 1), (0, 2)]);
    assert_eq!(handler.attempts()[2].began, Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_job_that_fails_for_good_or_panics_makes_way_for_its_key() {
    let script = |job: &u32, attempt| match (*job, attempt) {
        (0, _) => Step::fail("always"),
        (1, 1) => Step::fail("once"),
        (1, _) => Step::panic("then this"),
        (2, 1) => Step::hang(),
        _ => Step::done(),
    };
    let handler = ScriptedHandler::new(script);
    let options = Options::new(3).timeout(ms(50)).retry(regular(1));
    let pool = WorkerPool::start_ordered(options, handler.clone(), |_: &u32| "the only key").unwrap();
    for job in 0..4 {
        pool.submit(job).await.unwrap();
    }
    let report = pool.shutdown(MINUTE).await;
    assert_eq!((report.metrics.processed, report.metrics.failed), (2, 2));
    let order = handler.attempts().iter().map(|attempt| attempt.job).collect::<Vec<_>>();
    assert_eq!(order, [0, 0, 1, 1, 2, 2, 3]);
    assert_balanced(&report.metrics);
}
