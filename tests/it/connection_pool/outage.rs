//! The server is killed in the middle of the work, and comes back.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use corelay::toolkit::connection_pool::{Error, Options, Pool, PostgresFactory};
use tokio::task::spawn_blocking;

use crate::servers::postgres::{is_up, private, url};

/// What the writers know.
#[derive(Debug, Default)]
struct Work {
    next: AtomicU64,
    acknowledged: Mutex<BTreeSet<i64>>,
    /// Sent, and nobody knows what became of it.
    in_doubt: Mutex<BTreeSet<i64>>,
    failed: AtomicU64,
    over: AtomicBool,
}

async fn write(pool: Pool<PostgresFactory>, work: Arc<Work>) {
    while !work.over.load(SeqCst) {
        let conn = match pool.get().await {
            Ok(conn) => conn,
            Err(error) => {
                assert!(error.is_retryable(), "{error}");
                work.failed.fetch_add(1, SeqCst);
                continue;
            }
        };
        let n = work.next.fetch_add(1, SeqCst) as i64;
        match conn.execute("INSERT INTO written VALUES ($1)", &[&n]).await {
            Ok(_) => work.acknowledged.lock().unwrap().insert(n),
            Err(_) => {
                work.failed.fetch_add(1, SeqCst);
                work.in_doubt.lock().unwrap().insert(n)
            }
        };
    }
}

/// Waits for something the writers bring about; each turn lets them run.
async fn until(what: &str, happened: impl Fn() -> bool) {
    let wait = async {
        while !happened() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), wait).await.unwrap_or_else(|_| panic!("no {what} within 60 s"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_when_the_server_is_killed() {
    let Some(mut server) = spawn_blocking(|| private(&[])).await.unwrap() else { return };
    let options = Options {
        max_open: 4,
        min_idle: 2,
        backoff_max: Duration::from_millis(200),
        health_interval: Some(Duration::from_millis(100)),
        ..Options::default()
    };
    let pool = Pool::new(PostgresFactory::new(&url(&server, "postgres")).unwrap(), options).unwrap();
    pool.get().await.unwrap().batch_execute("CREATE TABLE written (n bigint)").await.unwrap();
    let work = Arc::new(Work::default());
    let writers: Vec<_> = (0..8).map(|_| tokio::spawn(write(pool.clone(), work.clone()))).collect();
    let written = || work.acknowledged.lock().unwrap().len();
    for round in 0..3 {
        let before = written();
        until("writes", || written() >= before + 300).await;
        let failed = work.failed.load(SeqCst);
        server = spawn_blocking(move || {
            server.kill();
            server
        })
        .await
        .unwrap();
        until("failures", || work.failed.load(SeqCst) > failed).await;
        server = spawn_blocking(move || {
            server.restart(is_up);
            server
        })
        .await
        .unwrap();
        println!("round {round}: {} acknowledged, {:?}", written(), pool.stats());
    }
    let before = written();
    until("writes after the last restart", || written() >= before + 300).await;
    work.over.store(true, SeqCst);
    for writer in writers {
        writer.await.unwrap();
    }
    let conn = pool.get().await.unwrap();
    let rows = conn.query("SELECT n FROM written", &[]).await.unwrap();
    let present: BTreeSet<i64> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(present.len(), rows.len(), "none twice");
    let (acknowledged, in_doubt) = (work.acknowledged.lock().unwrap().clone(), work.in_doubt.lock().unwrap().clone());
    assert!(acknowledged.is_subset(&present), "lost: {:?}", acknowledged.difference(&present).collect::<Vec<_>>());
    let more: BTreeSet<_> = present.difference(&acknowledged).copied().collect();
    assert!(more.is_subset(&in_doubt), "from nowhere: {:?}", more.difference(&in_doubt).collect::<Vec<_>>());
    println!("{} acknowledged, {} in doubt of which {} arrived", acknowledged.len(), in_doubt.len(), more.len());
    drop(conn);
    let stats = pool.stats();
    assert!(stats.open <= 4 && stats.in_use == 0, "{stats:?}");
    pool.close().await;
    assert_eq!(pool.stats().created, pool.stats().closed.total());
}

#[tokio::test]
async fn a_server_that_hangs_ends_in_a_timeout_not_in_a_hang() {
    let Some(server) = spawn_blocking(|| private(&[])).await.unwrap() else { return };
    let options = Options {
        create_timeout: Duration::from_millis(100),
        acquire_timeout: Duration::from_millis(400),
        ..Options::default()
    };
    let pool = Pool::new(PostgresFactory::new(&url(&server, "postgres")).unwrap(), options).unwrap();
    // the kernel still takes connections for it; nobody answers
    server.freeze();
    let error = pool.get().await.unwrap_err();
    assert!(matches!(error, Error::CreateTimeout { .. } | Error::Timeout { .. }), "{error}");
    server.thaw();
    pool.get_within(Duration::from_secs(30)).await.unwrap();
}
