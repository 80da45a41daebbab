//! A make-believe server: it counts, fails and hangs as told.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::super::{Closing, Factory, Options, Pool};

/// What the server sees.
#[derive(Debug, Default)]
pub(super) struct Server {
    pub(super) open: AtomicUsize,
    pub(super) most_open: AtomicUsize,
    /// Down: no connection is opened, none answers.
    pub(super) down: AtomicBool,
    /// Errors last: trying again is of no use.
    pub(super) refuses: AtomicBool,
    pub(super) connect_time: Mutex<Duration>,
    pub(super) answer_time: Mutex<Duration>,
    pub(super) close_time: Mutex<Duration>,
    /// When connections were asked for.
    pub(super) asked: Mutex<Vec<Instant>>,
    pub(super) validated: AtomicUsize,
    pub(super) reset: AtomicUsize,
    pub(super) resets: AtomicBool,
}

#[derive(Debug, thiserror::Error)]
#[error("the server is down")]
pub(super) struct Down;

/// A connection: open as long as it lives.
#[derive(Debug)]
pub(super) struct Conn {
    server: Arc<Server>,
    pub(super) number: usize,
    pub(super) broken: bool,
}

impl Drop for Conn {
    fn drop(&mut self) {
        self.server.open.fetch_sub(1, SeqCst);
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct Dialer(pub(super) Arc<Server>);

impl Server {
    pub(super) fn asked_count(&self) -> usize {
        self.asked.lock().unwrap().len()
    }

    async fn pause(time: &Mutex<Duration>) {
        let time = *time.lock().unwrap();
        if !time.is_zero() {
            sleep(time).await;
        }
    }
}

impl Factory for Dialer {
    type Connection = Conn;
    type Error = Down;

    async fn create(&self) -> Result<Conn, Down> {
        let server = &self.0;
        let number = {
            let mut asked = server.asked.lock().unwrap();
            asked.push(Instant::now());
            asked.len()
        };
        Server::pause(&server.connect_time).await;
        if server.down.load(SeqCst) {
            return Err(Down);
        }
        let open = server.open.fetch_add(1, SeqCst) + 1;
        server.most_open.fetch_max(open, SeqCst);
        Ok(Conn { server: server.clone(), number, broken: false })
    }

    async fn validate(&self, conn: &mut Conn) -> Result<(), Down> {
        self.0.validated.fetch_add(1, SeqCst);
        Server::pause(&self.0.answer_time).await;
        if self.0.down.load(SeqCst) || conn.broken { Err(Down) } else { Ok(()) }
    }

    fn needs_reset(&self, _: &Conn) -> bool {
        self.0.resets.load(SeqCst)
    }

    async fn reset(&self, _: &mut Conn) -> Result<(), Down> {
        self.0.reset.fetch_add(1, SeqCst);
        Ok(())
    }

    fn is_broken(&self, conn: &Conn) -> bool {
        conn.broken
    }

    fn close(&self, conn: Conn) -> Option<Closing> {
        let server = self.0.clone();
        if server.close_time.lock().unwrap().is_zero() {
            return None;
        }
        Some(Box::pin(async move {
            Server::pause(&server.close_time).await;
            drop(conn);
        }))
    }

    fn is_transient(&self, _: &Down) -> bool {
        !self.0.refuses.load(SeqCst)
    }
}

/// A pool over a server of its own.
pub(super) fn pool(options: Options) -> (Pool<Dialer>, Arc<Server>) {
    let dialer = Dialer::default();
    let server = dialer.0.clone();
    (Pool::new(dialer, options).unwrap(), server)
}

/// Nothing happens by itself, so that tests say what does.
pub(super) fn quiet(max_open: usize) -> Options {
    Options {
        max_open,
        max_idle: Some(max_open),
        health_interval: None,
        idle_timeout: None,
        max_lifetime: None,
        validate_after: None,
        create_retries: 0,
        ..Options::default()
    }
}

/// Lets everything that can run do so, without time passing.
pub(super) async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}
