//! Redis: a stream.

use std::time::Duration;

use tokio::task::{block_in_place, spawn_blocking};

use super::served::{Served, Service};
use super::{goes_wrong, number_of_whole};
use crate::servers::{Server, redis};

const KEY: &str = "books";

/// A server of the test's own.
struct Redis(Server);

impl Redis {
    async fn served() -> Option<Served<Redis>> {
        Some(Served::new(Redis(spawn_blocking(redis::private).await.unwrap()?)).await)
    }
}

impl Service for Redis {
    const TWICE: bool = true;

    fn port(&self) -> u16 {
        self.0.port
    }

    fn url(&self, port: u16, timeout: Duration) -> String {
        format!("redis://127.0.0.1:{port}/{KEY}?timeout={}s", timeout.as_secs())
    }

    async fn kill(&mut self) {
        block_in_place(|| self.0.kill());
    }

    async fn restart(&mut self) {
        block_in_place(|| self.0.restart(redis::is_up));
    }

    async fn arrived(&mut self) -> Vec<u32> {
        let entries: Vec<(String, Vec<Vec<u8>>)> = block_in_place(|| {
            let mut conn = ::redis::Client::open(redis::url(&self.0)).unwrap().get_connection().unwrap();
            ::redis::cmd("XRANGE").arg(KEY).arg("-").arg("+").query(&mut conn).unwrap()
        });
        // fields and values in turn
        let value = |fields: &[Vec<u8>]| fields[fields.iter().position(|field| field == b"value").unwrap() + 1].clone();
        entries.iter().map(|(_, fields)| number_of_whole(&value(fields))).collect()
    }
}

goes_wrong!(Redis::served(), Redis::served(), 2);
