//! A factory of one's own: SQLite, embedded and blocking. `cargo run --example sqlite_pool`.
//!
//! ```text
//! 100 orders written by 4 writers
//! open 4, idle 4, in use 0
//! ```

use std::path::PathBuf;
use std::time::Duration;

use corelay::toolkit::connection_pool::{Factory, Options, Pool};
use rusqlite::Connection;
use tokio::task::{JoinSet, spawn_blocking};

struct Sqlite(PathBuf);

impl Factory for Sqlite {
    type Connection = Connection;
    type Error = rusqlite::Error;

    async fn create(&self) -> rusqlite::Result<Connection> {
        let path = self.0.clone();
        let open = move || {
            let conn = Connection::open(path)?;
            conn.busy_timeout(Duration::from_secs(5))?;
            conn.pragma_update(None, "journal_mode", "wal")?;
            Ok(conn)
        };
        spawn_blocking(open).await.unwrap_or(Err(rusqlite::Error::InvalidQuery))
    }

    async fn validate(&self, conn: &mut Connection) -> rusqlite::Result<()> {
        conn.query_row("SELECT 1", [], |_| Ok(())) // of microseconds: not worth a thread
    }

    fn is_broken(&self, conn: &Connection) -> bool {
        !conn.is_autocommit() // somebody left a transaction open
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let dir = std::env::temp_dir().join(format!("sqlite-pool-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    let options = Options { max_open: 4, min_idle: 4, ..Options::default() };
    let pool = Pool::new(Sqlite(dir.join("orders.db")), options)?;
    pool.get().await?.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, item TEXT)", [])?;

    let mut writers = JoinSet::new();
    for writer in 0..4 {
        let pool = pool.clone();
        writers.spawn(async move {
            for n in 0..25 {
                let conn = pool.get().await?;
                // a guard borrows nothing: it goes along to the thread that may block
                let item = format!("item {n} of {writer}");
                spawn_blocking(move || conn.execute("INSERT INTO orders (item) VALUES (?1)", [item])).await??;
            }
            Ok::<(), Box<dyn std::error::Error + Send + Sync>>(())
        });
    }
    while let Some(done) = writers.join_next().await {
        done??;
    }
    let conn = pool.get().await?;
    let count: i64 = conn.query_row("SELECT count(*) FROM orders", [], |row| row.get(0))?;
    drop(conn);
    println!("{count} orders written by 4 writers");
    let stats = pool.stats();
    println!("open {}, idle {}, in use {}", stats.open, stats.idle, stats.in_use);
    pool.close().await;
    std::fs::remove_dir_all(dir)?;
    Ok(())
}
