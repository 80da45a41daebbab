//! How connections end, and how they are replaced.

use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use tokio::time::{advance, sleep, timeout};

use super::super::{CloseReason, Error, Options};
use super::{pool, quiet, settle};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn idle_ones_are_closed_in_time_but_for_the_minimum() {
    let (pool, server) = pool(Options { min_idle: 1, idle_timeout: Some(10 * SECOND), ..quiet(4) });
    let held = [pool.get().await.unwrap(), pool.get().await.unwrap(), pool.get().await.unwrap()];
    drop(held);
    sleep(Duration::from_millis(9_990)).await;
    assert!(pool.stats().idle >= 3);
    sleep(Duration::from_millis(20)).await;
    assert_eq!((pool.stats().idle, server.open()), (1, 1));
    sleep(100 * SECOND).await;
    assert_eq!(pool.stats().idle, 1);
    assert!(pool.stats().closed.by(CloseReason::Idle) >= 2);
}

#[tokio::test(start_paused = true)]
async fn old_ones_are_closed_idle_or_on_their_return() {
    let (pool, server) = pool(Options { max_lifetime: Some(10 * SECOND), ..quiet(2) });
    let (idle, used) = (pool.get().await.unwrap(), pool.get().await.unwrap());
    drop(idle);
    sleep(SECOND * 9 - Duration::from_millis(10)).await;
    assert_eq!(pool.stats().open, 2, "a tenth is left to chance, no more");
    sleep(SECOND + Duration::from_millis(20)).await;
    assert_eq!(pool.stats().open, 1);
    assert!(used.age() >= 10 * SECOND);
    drop(used);
    assert_eq!((pool.stats().closed.by(CloseReason::Lifetime), server.open()), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn lives_end_apart() {
    let (pool, _) = pool(Options { max_lifetime: Some(100 * SECOND), ..quiet(20) });
    let mut held = Vec::new();
    for _ in 0..20 {
        held.push(pool.get().await.unwrap());
    }
    drop(held);
    sleep(90 * SECOND - Duration::from_millis(5)).await;
    let mut ends = 0;
    let mut before = pool.stats().open;
    for _ in 0..101 {
        sleep(SECOND / 10).await;
        ends += usize::from(pool.stats().open != before);
        before = pool.stats().open;
    }
    assert_eq!(before, 0);
    assert!(ends > 5, "all ended in {ends} tenths of a second");
}

#[tokio::test(start_paused = true)]
async fn the_minimum_is_kept_ready() {
    let (pool, server) = pool(Options { min_idle: 2, ..quiet(4) });
    settle().await;
    assert_eq!(pool.stats().idle, 2);
    let one = pool.get().await.unwrap();
    settle().await;
    assert_eq!((pool.stats().idle, pool.stats().open), (2, 3));
    let two = pool.get().await.unwrap();
    let three = pool.get().await.unwrap();
    settle().await;
    // as far as max_open allows
    assert_eq!((pool.stats().idle, pool.stats().open), (1, 4));
    one.discard();
    settle().await;
    assert_eq!((pool.stats().idle, pool.stats().open), (2, 4));
    let gone = two.detach();
    settle().await;
    // the one detached is the pool's no more: it opened another
    assert_eq!((pool.stats().idle, pool.stats().open, server.open()), (2, 3, 4));
    drop((three, gone));
}

#[tokio::test(start_paused = true)]
async fn keeping_the_minimum_backs_off_while_the_server_is_down() {
    let options = Options { min_idle: 1, backoff_min: SECOND, backoff_max: 8 * SECOND, ..quiet(1) };
    let (pool, server) = pool(options);
    server.set_down(true);
    sleep(100 * SECOND).await;
    let asked = server.asked();
    // 1 + 2 + 4 + 8 + 8 ... with jitter of up to once as much
    assert!((8..=17).contains(&asked.len()), "{}", asked.len());
    server.set_down(false);
    sleep(17 * SECOND).await;
    assert_eq!(pool.stats().idle, 1);
}

#[tokio::test(start_paused = true)]
async fn the_health_check_replaces_dead_connections() {
    let (pool, server) = pool(Options { min_idle: 3, health_interval: Some(30 * SECOND), ..quiet(8) });
    settle().await;
    sleep(31 * SECOND).await;
    assert_eq!((pool.stats().idle, pool.stats().checks), (3, 3));
    server.set_down(true);
    sleep(30 * SECOND).await;
    assert_eq!((pool.stats().idle, pool.stats().closed.by(CloseReason::Invalid)), (0, 3));
    server.set_down(false);
    sleep(5 * SECOND).await;
    assert_eq!((pool.stats().idle, server.open()), (3, 3));
}

#[tokio::test(start_paused = true)]
async fn a_health_check_that_hangs_keeps_no_user_waiting() {
    let (pool, server) = pool(Options { health_interval: Some(30 * SECOND), validate_timeout: 2 * SECOND, ..quiet(4) });
    drop([pool.get().await.unwrap(), pool.get().await.unwrap()]);
    server.set_answer_time(60 * SECOND);
    sleep(31 * SECOND).await;
    assert_eq!(pool.stats().checking, 1);
    assert!(timeout(Duration::ZERO, pool.get()).await.is_ok(), "one is left, and is not suspected yet");
    sleep(4 * SECOND).await;
    // the other one has been used since the round began
    assert_eq!((pool.stats().closed.by(CloseReason::Invalid), pool.stats().idle), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn stale_ones_are_validated_before_they_are_lent() {
    let (pool, server) = pool(Options { validate_after: Some(SECOND), ..quiet(2) });
    drop([pool.get().await.unwrap(), pool.get().await.unwrap()]);
    drop(pool.get().await.unwrap());
    assert_eq!(server.validations(), 0, "used a moment ago");
    advance(2 * SECOND).await;
    drop(pool.get().await.unwrap());
    assert_eq!(server.validations(), 1);
    // a restart: the old ones are dead, which the users don't notice
    sleep(2 * SECOND).await;
    server.set_down(true);
    let failing = pool.get().await;
    assert!(failing.is_err());
    assert_eq!(pool.stats().closed.by(CloseReason::Invalid), 2);
    server.set_down(false);
    assert!(pool.get().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn one_dead_connection_makes_the_others_suspect() {
    let (pool, server) = pool(quiet(3));
    let mut held = [pool.get().await.unwrap(), pool.get().await.unwrap(), pool.get().await.unwrap()];
    held[2].break_off();
    drop(held);
    assert_eq!((pool.stats().idle, pool.stats().closed.by(CloseReason::Broken)), (2, 1));
    advance(SECOND).await;
    drop(pool.get().await.unwrap());
    assert_eq!(server.validations(), 1, "it was last known alive before the other was found dead");
    advance(SECOND).await;
    drop(pool.get().await.unwrap());
    assert_eq!(server.validations(), 1, "it has been used since");
}

#[tokio::test(start_paused = true)]
async fn used_ones_are_reset() {
    let (pool, server) = pool(quiet(1));
    server.set_resetting(true);
    drop(pool.get().await.unwrap());
    assert_eq!(server.resets(), 0, "new");
    drop(pool.get().await.unwrap());
    drop(pool.get().await.unwrap());
    assert_eq!(server.resets(), 2);
}

#[tokio::test(start_paused = true)]
async fn pings_measure_and_judge() {
    let (pool, server) = pool(Options { validate_timeout: 2 * SECOND, ..quiet(1) });
    server.set_answer_time(SECOND);
    assert_eq!(pool.ping().await.unwrap(), SECOND);
    server.set_answer_time(60 * SECOND);
    assert!(matches!(pool.ping().await, Err(Error::ValidateTimeout { .. })));
    server.set_answer_time(Duration::ZERO);
    assert_eq!(pool.stats().open, 0, "one that doesn't answer is not kept");
    server.set_down(true);
    assert!(matches!(pool.ping().await, Err(Error::Create { .. })));
}

#[tokio::test(start_paused = true)]
async fn closing_waits_for_the_last_connection() {
    let (pool, server) = pool(quiet(3));
    server.set_close_time(SECOND);
    let (idle, used) = (pool.get().await.unwrap(), pool.get().await.unwrap());
    drop(idle);
    let closing = tokio::spawn({
        let pool = pool.clone();
        async move { pool.close().await }
    });
    sleep(2 * SECOND).await;
    assert_eq!((pool.stats().open, pool.is_closed(), closing.is_finished()), (1, true, false));
    assert!(matches!(pool.get().await, Err(Error::Closed)));
    assert!(pool.try_get().is_none());
    drop(used);
    assert_eq!((pool.stats().closing, closing.is_finished()), (1, false), "orderly closing takes its time");
    closing.await.unwrap();
    assert_eq!((pool.stats().closed.by(CloseReason::Shutdown), server.open()), (2, 0));
    pool.close().await;
}

#[tokio::test(start_paused = true)]
async fn closing_ends_waiting_and_opening() {
    let (pool, server) = pool(quiet(2));
    let held = pool.get().await.unwrap();
    server.set_connect_time(SECOND);
    let get = |pool: &super::super::Pool<_>| {
        let pool = pool.clone();
        tokio::spawn(async move { pool.get().await.map(drop) })
    };
    let (opening, waiting) = (get(&pool), get(&pool));
    settle().await;
    assert_eq!((pool.stats().creating, pool.stats().waiting), (1, 2));
    drop(held);
    settle().await;
    waiting.await.unwrap().unwrap();
    timeout(2 * SECOND, pool.close()).await.expect("bounded by opening");
    assert!(matches!(opening.await.unwrap(), Err(Error::Closed)));
    assert_eq!((pool.stats().open, server.open()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn without_handles_all_is_closed_and_guards_stay_usable() {
    let (pool, server) = pool(quiet(2));
    let held = pool.get().await.unwrap();
    drop(pool.get().await.unwrap());
    assert_eq!(server.open(), 2);
    drop(pool);
    assert_eq!((server.open(), held.number()), (1, 1));
    drop(held);
    assert_eq!(server.open(), 0);
}

#[test]
fn guards_may_outlive_the_runtime() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (pool, held, server) = runtime.block_on(async {
        let (pool, server) = pool(quiet(2));
        server.set_close_time(SECOND);
        let held = pool.get().await.unwrap();
        (pool, held, server)
    });
    drop(runtime);
    held.discard();
    drop(pool);
    assert_eq!(server.open(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_metrics_page_shows_the_snapshot() {
    let (pool, _) = pool(Options { max_idle: Some(1), ..quiet(3) });
    let held = pool.get().await.unwrap();
    drop([pool.get().await.unwrap(), pool.get().await.unwrap()]);
    let mut registry = Registry::default();
    pool.register(&mut registry);
    let mut page = String::new();
    encode(&mut page, &registry).unwrap();
    for line in [
        "connection_pool_open 2",
        "connection_pool_in_use 1",
        "connection_pool_idle 1",
        "connection_pool_created_total 3",
        "connection_pool_acquired_total 3",
        r#"connection_pool_closed_total{reason="surplus"} 1"#,
        "connection_pool_wait_seconds_count 3",
        r#"connection_pool_wait_seconds_bucket{le="0.0001"} 3"#,
        r#"connection_pool_wait_seconds_bucket{le="+Inf"} 3"#,
    ] {
        assert!(page.contains(line), "{line} in {page}");
    }
    drop((held, pool));
    settle().await;
    page.clear();
    encode(&mut page, &registry).unwrap();
    assert_eq!(page.trim(), "# EOF");
}
