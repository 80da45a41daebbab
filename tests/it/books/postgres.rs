//! PostgreSQL: a table.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::task::{block_in_place, spawn_blocking};
use tokio_postgres::NoTls;

use super::served::{Served, Service};
use super::{goes_wrong, number_of_whole};
use crate::servers::{Server, postgres};

/// A server of the test's own, or a database on the one all tests share.
struct Postgres {
    server: Option<Server>,
    port: u16,
    database: String,
}

impl Postgres {
    async fn private() -> Option<Served<Postgres>> {
        let server = spawn_blocking(|| postgres::private(&[])).await.unwrap()?;
        let (port, database) = (server.port, "postgres".to_owned());
        Some(Served::new(Postgres { server: Some(server), port, database }).await)
    }

    async fn shared() -> Option<Served<Postgres>> {
        let url = postgres::database().await?;
        let mut parts = url.split(['@', '/', '?']).skip(3);
        let server: SocketAddr = parts.next().unwrap().parse().unwrap();
        let (port, database) = (server.port(), parts.next().unwrap().to_owned());
        Some(Served::new(Postgres { server: None, port, database }).await)
    }

    fn server(&mut self) -> &mut Server {
        self.server.as_mut().expect("only a private one is killed")
    }
}

impl Service for Postgres {
    /// What is sent again meets its own key.
    const TWICE: bool = false;

    fn port(&self) -> u16 {
        self.port
    }

    fn url(&self, port: u16, timeout: Duration) -> String {
        format!(
            "postgres://postgres@127.0.0.1:{port}/{}?table=books&create=true&timeout={}s",
            self.database,
            timeout.as_secs()
        )
    }

    async fn kill(&mut self) {
        block_in_place(|| self.server().kill());
    }

    async fn restart(&mut self) {
        block_in_place(|| self.server().restart(postgres::is_up));
    }

    async fn arrived(&mut self) -> Vec<u32> {
        let url = format!("postgres://postgres@127.0.0.1:{}/{}", self.port, self.database);
        let (client, driver) = tokio_postgres::connect(&url, NoTls).await.unwrap();
        tokio::spawn(driver);
        let rows = client.query("SELECT body FROM books ORDER BY position", &[]).await.unwrap();
        rows.iter().map(|row| number_of_whole(row.get(0))).collect()
    }
}

goes_wrong!(Postgres::shared(), Postgres::private(), 2);
