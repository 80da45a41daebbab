//! Whatever happens in whatever order: never more than `max_open`, and books that balance.

use std::time::Duration;

use proptest::prelude::*;
use tokio::time::{advance, sleep};

use super::super::{Options, Order, Pool, Stats};
use super::{pool, quiet, settle};
use crate::toolkit::testing::FakeServer;

#[derive(Clone, Debug)]
enum Step {
    /// Somebody asks, uses it for so many ms, and returns, breaks, discards or detaches it.
    Use {
        ms: u64,
        end: u8,
    },
    /// Somebody asks and gives up after so many ms.
    GiveUp {
        ms: u64,
    },
    Pass {
        ms: u64,
    },
    Down(bool),
    ConnectTime(u64),
    AnswerTime(u64),
    CloseTime(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..300_u64, 0..8_u8).prop_map(|(ms, end)| Step::Use { ms, end }),
        2 => (0..50_u64).prop_map(|ms| Step::GiveUp { ms }),
        3 => (0..400_u64).prop_map(|ms| Step::Pass { ms }),
        1 => any::<bool>().prop_map(Step::Down),
        1 => (0..80_u64).prop_map(Step::ConnectTime),
        1 => (0..80_u64).prop_map(Step::AnswerTime),
        1 => (0..80_u64).prop_map(Step::CloseTime),
    ]
}

fn options() -> impl Strategy<Value = Options> {
    (1..6_usize, 0..6_usize, 0..6_usize, any::<bool>(), 0..3_usize).prop_map(
        |(max_open, idle, min, newest, retries)| {
            let max_idle = idle.min(max_open);
            Options {
                max_open,
                max_idle: Some(max_idle),
                min_idle: min.min(max_idle),
                acquire_timeout: Duration::from_millis(500),
                create_timeout: Duration::from_millis(50),
                create_retries: retries,
                backoff_min: Duration::from_millis(5),
                backoff_max: Duration::from_millis(40),
                validate_timeout: Duration::from_millis(50),
                validate_after: Some(Duration::from_millis(60)),
                health_interval: Some(Duration::from_millis(150)),
                idle_timeout: Some(Duration::from_millis(700)),
                max_lifetime: Some(Duration::from_millis(1500)),
                order: if newest { Order::Newest } else { Order::Oldest },
            }
        },
    )
}

fn check(stats: &Stats, server: &FakeServer, detached: usize) {
    assert!(stats.open + stats.creating <= stats.max_open, "{stats:?}");
    assert_eq!(stats.open, stats.idle + stats.in_use + stats.checking + stats.closing, "{stats:?}");
    let alive = stats.created - stats.closed.total();
    assert_eq!(alive as usize, stats.idle + stats.in_use + stats.checking, "{stats:?}");
    // what the server sees: those counted, the detached, and those just accepted but not yet counted
    let seen = server.open();
    assert!(seen <= stats.open + stats.creating + detached, "{seen} seen, {stats:?}");
}

async fn run(options: Options, steps: Vec<Step>) {
    let most = options.max_open;
    let min_idle = options.min_idle;
    let (pool, server) = pool(options);
    let mut tasks = Vec::new();
    for step in steps {
        take(step, &pool, &server, &mut tasks).await;
        settle().await;
        check(&pool.stats(), &server, 0);
        assert!(server.most_open() <= most);
    }
    server.set_connect_time(Duration::ZERO);
    server.set_answer_time(Duration::ZERO);
    server.set_close_time(Duration::ZERO);
    server.set_down(false);
    for task in tasks {
        task.await.unwrap();
    }
    // once all is quiet, every place can be lent, and the minimum is there again
    sleep(Duration::from_secs(1)).await;
    assert!(pool.stats().idle >= min_idle, "{:?}", pool.stats());
    let mut held = Vec::new();
    for _ in 0..most {
        held.push(pool.get().await.unwrap());
    }
    assert_eq!(pool.stats().in_use, most);
    drop(held);
    pool.close().await;
    let stats = pool.stats();
    assert_eq!((stats.open, stats.creating, stats.created), (0, 0, stats.closed.total()), "{stats:?}");
    assert_eq!(server.open(), 0);
}

async fn take(step: Step, pool: &Pool<FakeServer>, server: &FakeServer, tasks: &mut Vec<tokio::task::JoinHandle<()>>) {
    let pool = pool.clone();
    match step {
        Step::Use { ms, end } => tasks.push(tokio::spawn(async move {
            let Ok(mut conn) = pool.get().await else { return };
            sleep(Duration::from_millis(ms)).await;
            match end {
                0 => conn.break_off(),
                1 => conn.discard(),
                _ => {}
            }
        })),
        Step::GiveUp { ms } => tasks.push(tokio::spawn(async move {
            let _ = tokio::time::timeout(Duration::from_millis(ms), pool.get()).await;
        })),
        Step::Pass { ms } => {
            for _ in 0..ms / 20 {
                advance(Duration::from_millis(20)).await;
                settle().await;
                check(&pool.stats(), server, 0);
            }
        }
        Step::Down(down) => server.set_down(down),
        Step::ConnectTime(ms) => server.set_connect_time(Duration::from_millis(ms)),
        Step::AnswerTime(ms) => server.set_answer_time(Duration::from_millis(ms)),
        Step::CloseTime(ms) => server.set_close_time(Duration::from_millis(ms)),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn never_more_than_max_open_and_the_books_balance(
        options in options(),
        steps in prop::collection::vec(step(), 1..40),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(run(options, steps));
    }
}

/// The same on threads that really race.
#[test]
fn never_more_than_max_open_under_contention() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build().unwrap();
    runtime.block_on(async {
        let (pool, server) = pool(Options { max_open: 3, max_idle: Some(2), ..quiet(3) });
        let mut tasks = Vec::new();
        for n in 0..16_usize {
            let pool = pool.clone();
            tasks.push(tokio::spawn(async move {
                for turn in 0..500 {
                    let conn = pool.get().await.unwrap();
                    if (n + turn) % 17 == 0 {
                        conn.discard();
                    } else if turn % 5 == 0 {
                        tokio::task::yield_now().await;
                    }
                }
            }));
        }
        for task in tasks {
            task.await.unwrap();
        }
        let stats = pool.stats();
        assert_eq!((stats.acquired, stats.in_use, stats.waiting), (8000, 0, 0));
        assert!(server.most_open() <= 3);
        check(&stats, &server, 0);
        pool.close().await;
        assert_eq!(server.open(), 0);
    });
}
