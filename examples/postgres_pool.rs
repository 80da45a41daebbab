//! Twenty-five tasks share five connections to PostgreSQL:
//! `cargo run --example postgres_pool -- postgres://postgres@127.0.0.1:5432/postgres`.
//!
//! ```text
//! 25 tasks, 1000 queries: sum 499500
//! open 5, idle 5, in use 0; 1001 acquired, opened 5
//! a round trip took less than a second: true
//! closed: 5 for shutdown
//! ```

use std::time::Duration;

use corelay::toolkit::connection_pool::{CloseReason, Options, Pool, PostgresFactory};
use tokio::task::JoinSet;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let url = std::env::args().nth(1).unwrap_or_else(|| "postgres://postgres@127.0.0.1:5432/postgres".into());
    let options = Options { max_open: 5, ..Options::default() };
    let pool = Pool::new(PostgresFactory::new(&url)?, options)?;

    let mut tasks = JoinSet::new();
    for task in 0..25_i64 {
        let pool = pool.clone();
        tasks.spawn(async move {
            let mut sum = 0;
            for n in 0..40 {
                let conn = pool.get().await?; // waits its turn; back in the pool at the end of the loop's turn
                sum += conn.query_one("SELECT $1::bigint", &[&(task * 40 + n)]).await?.get::<_, i64>(0);
            }
            Ok::<i64, Box<dyn std::error::Error + Send + Sync>>(sum)
        });
    }
    let mut sum = 0;
    while let Some(done) = tasks.join_next().await {
        sum += done??;
    }
    println!("25 tasks, 1000 queries: sum {sum}");

    let ping = pool.ping().await?;
    let stats = pool.stats();
    println!(
        "open {}, idle {}, in use {}; {} acquired, opened {}",
        stats.open, stats.idle, stats.in_use, stats.acquired, stats.created
    );
    println!("a round trip took less than a second: {}", ping < Duration::from_secs(1));
    pool.close().await;
    println!("closed: {} for shutdown", pool.stats().closed.by(CloseReason::Shutdown));
    Ok(())
}
