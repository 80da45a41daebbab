//! Sizes, timeouts, fairness, errors.

use std::error::Error as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::super::{CloseReason, Error, InvalidOptions, Options, Order, Pool, Stage};
use super::{pool, quiet, settle};
use crate::toolkit::testing::FakeServer;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn contradictory_options_are_refused_by_name() {
    let base = Options::default();
    let cases = [
        (Options { max_open: 0, ..base.clone() }, "max_open is 0: expected at least 1"),
        (Options { max_open: usize::MAX, ..base.clone() }, "max_open is 18446744073709551615: expected at most"),
        (Options { max_open: 4, max_idle: Some(10), ..base.clone() }, "max_idle is 10, above max_open, which is 4"),
        (Options { min_idle: 11, ..base.clone() }, "min_idle is 11, above max_idle, which is 10"),
        (Options { acquire_timeout: Duration::ZERO, ..base.clone() }, "acquire_timeout is zero"),
        (Options { health_interval: Some(Duration::ZERO), ..base.clone() }, "health_interval is zero"),
        (Options { max_lifetime: Some(Duration::ZERO), ..base.clone() }, "max_lifetime is zero"),
        (Options { backoff_min: 3 * SECOND, ..base.clone() }, "backoff_min is 3s, above backoff_max, which is 2s"),
    ];
    for (options, text) in cases {
        let error = options.check().unwrap_err();
        assert!(error.to_string().starts_with(text), "{error}");
    }
    assert_eq!(base.check(), Ok(()));
    assert_eq!(Pool::new(FakeServer::default(), base).unwrap_err(), InvalidOptions::NoRuntime);
}

#[tokio::test(start_paused = true)]
async fn never_more_than_max_open_and_a_timeout_that_says_why() {
    let (pool, server) = pool(Options { acquire_timeout: SECOND, ..quiet(2) });
    let (one, two) = (pool.get().await.unwrap(), pool.get().await.unwrap());
    let begin = Instant::now();
    let error = pool.get().await.unwrap_err();
    assert_eq!(begin.elapsed(), SECOND);
    let said = "no connection within 1s: 2 of 2 in use, 1 waiting; time ran out waiting for one to be given back";
    assert_eq!(error.to_string(), said);
    let stats = pool.stats();
    assert_eq!((stats.open, stats.in_use, stats.timeouts, stats.waits.count()), (2, 2, 1, 3));
    assert!(stats.waits.total() >= SECOND);
    drop((one, two));
    assert_eq!((pool.stats().idle, pool.stats().in_use, server.most_open()), (2, 0, 2));
    assert!(pool.get().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn who_came_first_is_served_first() {
    let (pool, _) = pool(quiet(1));
    let held = pool.get().await.unwrap();
    let served = Arc::new(Mutex::new(Vec::new()));
    let mut tasks = Vec::new();
    for n in 0..20 {
        let (pool, served) = (pool.clone(), served.clone());
        tasks.push(tokio::spawn(async move {
            let _conn = pool.get().await.unwrap();
            served.lock().unwrap().push(n);
            tokio::task::yield_now().await;
        }));
        settle().await;
    }
    assert_eq!(pool.stats().waiting, 20);
    // one gives up its place in the middle
    tasks.remove(7).abort();
    settle().await;
    assert_eq!(pool.stats().waiting, 19);
    drop(held);
    for task in tasks {
        task.await.unwrap();
    }
    let expected: Vec<_> = (0..20).filter(|n| *n != 7).collect();
    assert_eq!(*served.lock().unwrap(), expected);
}

#[tokio::test(start_paused = true)]
async fn creating_is_tried_again_with_growing_waits() {
    let options = Options { create_retries: 3, backoff_min: SECOND, backoff_max: 4 * SECOND, ..quiet(1) };
    let (pool, server) = pool(options);
    server.set_down(true);
    let error = pool.get().await.unwrap_err();
    assert!(matches!(error, Error::Create { attempts: 4, .. }), "{error}");
    assert_eq!(error.source().unwrap().to_string(), "the server is down");
    let asked = server.asked();
    let waits: Vec<_> = asked.windows(2).map(|pair| pair[1] - pair[0]).collect();
    for (wait, base) in waits.iter().zip([SECOND, 2 * SECOND, 4 * SECOND]) {
        // jitter adds up to once its length; the clock of the timers has a millisecond's grain
        assert!(*wait >= base && *wait <= 2 * base + Duration::from_millis(1), "{waits:?}");
    }
    assert_eq!((waits.len(), pool.stats().create_failures, pool.stats().creating), (3, 4, 0));
    // and it succeeds within one get once the server is back
    let back = server.clone();
    tokio::spawn(async move {
        tokio::time::sleep(3 * SECOND).await;
        back.set_down(false);
    });
    pool.get().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_is_not_transient_is_not_tried_again() {
    let (pool, server) = pool(Options { create_retries: 5, ..quiet(1) });
    server.set_down(true);
    server.set_refusing(true);
    assert!(matches!(pool.get().await, Err(Error::Create { attempts: 1, .. })));
    assert_eq!(server.asked().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_hangs_costs_its_timeouts_and_no_more() {
    let (pool, server) = pool(Options { create_timeout: SECOND, acquire_timeout: 5 * SECOND, ..quiet(1) });
    server.set_connect_time(60 * SECOND);
    let begin = Instant::now();
    let error = pool.get().await.unwrap_err();
    assert!(matches!(error, Error::CreateTimeout { attempts: 1, .. }), "{error}");
    assert_eq!(begin.elapsed(), SECOND);
    // the whole is bounded too
    let error = pool.get_within(SECOND / 2).await.unwrap_err();
    assert!(matches!(error, Error::Timeout { stage: Stage::Creating, .. }), "{error}");
    let stats = pool.stats();
    assert_eq!((stats.open, stats.creating, stats.timeouts), (0, 0, 1));
    server.set_connect_time(Duration::ZERO);
    assert!(pool.get().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn giving_up_midway_leaves_nothing_behind() {
    let (pool, server) = pool(Options { validate_after: Some(Duration::ZERO), ..quiet(1) });
    server.set_connect_time(SECOND);
    assert!(timeout(SECOND / 2, pool.get()).await.is_err());
    assert_eq!((pool.stats().creating, pool.stats().waiting), (0, 0));
    drop(pool.get().await.unwrap());
    server.set_answer_time(SECOND);
    // given up while it was validated: its state is unknown
    assert!(timeout(SECOND / 2, pool.get()).await.is_err());
    let stats = pool.stats();
    assert_eq!((stats.open, stats.checking, stats.closed.by(CloseReason::Abandoned)), (0, 0, 1));
    assert!(pool.get().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn surplus_connections_are_closed_unless_somebody_waits() {
    let (pool, server) = pool(Options { max_idle: Some(1), ..quiet(3) });
    let held = [pool.get().await.unwrap(), pool.get().await.unwrap(), pool.get().await.unwrap()];
    drop(held);
    let stats = pool.stats();
    assert_eq!((stats.idle, stats.open, stats.closed.by(CloseReason::Surplus)), (1, 1, 2));
    // none is kept at all, but a waiting caller gets the one given back
    let (pool, other) = (Pool::new(server, Options { max_idle: Some(0), ..quiet(1) }).unwrap(), pool);
    let held = pool.get().await.unwrap();
    let number = held.number();
    let waiting = tokio::spawn({
        let pool = pool.clone();
        async move { pool.get().await.unwrap().number() }
    });
    settle().await;
    drop(held);
    assert_eq!(waiting.await.unwrap(), number);
    assert_eq!(pool.stats().open, 0);
    drop(other);
}

#[tokio::test(start_paused = true)]
async fn a_connection_kept_for_somebody_who_gave_up_is_closed() {
    let (pool, _) = pool(Options { max_idle: Some(0), ..quiet(1) });
    let held = pool.get().await.unwrap();
    let mut waiting = Box::pin(pool.get());
    assert!(timeout(Duration::ZERO, &mut waiting).await.is_err());
    drop(held);
    drop(waiting);
    settle().await;
    let stats = pool.stats();
    assert_eq!((stats.open, stats.closed.by(CloseReason::Surplus)), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn the_newest_or_the_oldest_is_lent_first() {
    for (order, expected) in [(Order::Newest, 2), (Order::Oldest, 1)] {
        let (pool, _) = pool(Options { order, ..quiet(2) });
        let (one, two) = (pool.get().await.unwrap(), pool.get().await.unwrap());
        drop(one);
        drop(two);
        assert_eq!(pool.get().await.unwrap().number(), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn try_get_neither_waits_nor_opens() {
    let (pool, server) = pool(quiet(1));
    assert!(pool.try_get().is_none());
    assert_eq!(server.asked().len(), 0);
    assert_eq!(pool.stats().creating, 0);
    drop(pool.get().await.unwrap());
    let held = pool.try_get().unwrap();
    assert!(pool.try_get().is_none());
    drop(held);
    assert!(pool.try_get().is_some());
}
